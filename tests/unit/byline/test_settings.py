from pathlib import Path

import pytest

from byline.settings import API_LIMITS, load_settings
from engine.messages.errors import SettingsInvalid
from platform_api.settings import LIMITS, ApiSettings


def test_defaults_are_valid_and_absolute():
    settings = load_settings({})
    assert settings.data_directory.is_absolute()
    assert settings.ack_mode == "durable"


def test_environment_and_then_options_override():
    environ = {"BYLINE_GATEWAY_PORT": "9001", "BYLINE_ACK_MODE": "memory", "BYLINE_DATA_DIRECTORY": "/tmp/x"}
    settings = load_settings(environ, ack_mode="durable")
    assert (settings.gateway_port, settings.ack_mode, settings.data_directory) == (9001, "durable", Path("/tmp/x"))


def test_children_get_the_very_same_settings():
    settings = load_settings({}, seed=99, quiet_market=True, gateway_port=0, api_port=0, batch_interval_s=2.5)
    assert load_settings(settings.environment_variables()) == settings


def test_every_limit_of_rest_can_be_set():
    assert {name.removeprefix("api_") for name in API_LIMITS} == set(LIMITS)
    defaults = load_settings({})
    assert all(getattr(defaults, name) == getattr(ApiSettings("dsn"), name.removeprefix("api_")) for name in API_LIMITS)


@pytest.mark.parametrize(
    ("environ", "named"),
    [
        ({"BYLINE_API_PORT": "x"}, "API_PORT"),
        ({"BYLINE_API_PORT": "65536"}, "api_port"),
        ({"BYLINE_API_PORT": "7401"}, "ports"),
        ({"BYLINE_API_AUTH_PER_MINUTE": "-1"}, "api_auth_per_minute"),
        ({"BYLINE_UNPROVED_PER_DAY": "-1"}, "unproved_per_day"),
        ({"BYLINE_ACK_MODE": "maybe"}, "ack_mode"),
        ({"BYLINE_ACK_MODE": "memory", "BYLINE_SECOND_CORE": "false"}, "second_core must be true where ack_mode"),
        ({"BYLINE_BATCH_INTERVAL_S": "0"}, "batch_interval_s"),
        ({"BYLINE_BATCH_INTERVAL_S": "nan"}, "batch_interval_s"),
        ({"BYLINE_BACKUP_URL": "file:///b", "BYLINE_BACKUP_INTERVAL_S": "5.1"}, "at most half of batch_interval_s"),
        ({"BYLINE_QUIET_MARKET": "perhaps"}, "QUIET_MARKET"),
        ({"BYLINE_API_PRT": "7"}, "BYLINE_API_PRT"),
        ({"BYLINE_API_CORS_ORIGINS": "https://a.example,*"}, "api_cors_origins"),
        ({"BYLINE_TRUSTED_PROXIES": "*"}, "trusted_proxies"),
        ({"BYLINE_TRUSTED_PROXIES": "10.0.0.5, proxy.example"}, "trusted_proxies"),
        ({"BYLINE_TRUSTED_PROXIES": "10.0.0.5/24"}, "trusted_proxies"),
    ],
)
def test_a_bad_setting_is_named_with_its_rule(environ, named):
    with pytest.raises(SettingsInvalid, match=named):
        load_settings(environ)
