import re
from dataclasses import fields
from pathlib import Path

import pytest

from byline.processes.api import api_settings
from byline.settings import API_LIMITS, API_SAME, OTHER_VARIABLES, load_settings
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


DATABASE = {"BYLINE_POSTGRES_URL": "postgresql://127.0.0.1:1/x"}
OTHERS = {
    "account_bytes_max": 2 * 1024**3, "public_url": "https://x.example", "redis_url": "redis://127.0.0.1:1",
}  # fmt: skip


def test_what_the_api_has_under_the_same_name_gets_there():
    defaults, own = load_settings({}), ApiSettings("dsn")
    assert {name: getattr(defaults, name) for name in API_SAME} == {name: getattr(own, name) for name in API_SAME}
    others = {name: OTHERS.get(name) or another(getattr(own, name)) for name in API_SAME}
    environ = {f"BYLINE_{name.upper()}": str(value) for name, value in others.items()}
    settings = load_settings(environ | DATABASE)
    made = api_settings(settings, 7400)
    assert {name: getattr(made, name) for name in API_SAME} == others


def another(value):
    return not value if isinstance(value, bool) else value + 1


def test_fees_of_withdrawals_get_to_the_api():
    assert api_settings(load_settings(DATABASE), 7400).withdrawal_fees == {}
    settings = load_settings(DATABASE | {"BYLINE_WITHDRAWAL_FEES": "USDC=0.25, INK=1"})
    assert api_settings(settings, 7400).withdrawal_fees == {"USDC": "0.25", "INK": "1"}


ROW = re.compile(r"^\| `(BYLINE_\w+)` \| ([^|]*) \| ([^|]+) \|$", re.MULTILINE)


def test_every_setting_has_its_row_with_its_default_and_every_row_is_of_a_setting():
    page = (Path(__file__).parents[3] / "docs" / "operations.md").read_text()
    rows = ROW.findall(page.partition("\n## Settings\n")[2].partition("\n## ")[0])
    told = {variable: default for variable, default, _ in rows}
    assert len(told) == len(rows)
    settings = load_settings({})
    real = {f"BYLINE_{each.name.upper()}": shown(getattr(settings, each.name)) for each in fields(settings)}
    assert set(told) == {*real, *OTHER_VARIABLES}
    del real["BYLINE_DATA_DIRECTORY"]  # depends on where one is
    assert {variable: told[variable] for variable in real} == real


def shown(value):
    if isinstance(value, bool):
        return str(value).lower()
    return format(value, ".10g") if isinstance(value, float) else str(value) or "–"


@pytest.mark.parametrize(
    ("environ", "named"),
    [
        ({"BYLINE_API_PORT": "x"}, "API_PORT"),
        ({"BYLINE_API_PORT": "65536"}, "api_port"),
        ({"BYLINE_API_PORT": "7401"}, "ports"),
        ({"BYLINE_API_AUTH_PER_MINUTE": "-1"}, "api_auth_per_minute"),
        ({"BYLINE_UNPROVED_PER_DAY": "-1"}, "unproved_per_day"),
        ({"BYLINE_INTENT_SECONDS": "59"}, "intent_seconds must be 60 to 604800 seconds, not 59"),
        ({"BYLINE_LAUNCH_PLATFORM_BPS": "10001"}, "launch_platform_bps"),
        ({"BYLINE_WITHDRAWAL_FEES": "USDC"}, "withdrawal_fees must be ASSET=AMOUNT"),
        ({"BYLINE_WITHDRAWAL_FEES": "USDC=-1"}, "withdrawal_fees"),
        ({"BYLINE_WITHDRAWAL_FEES": "USDC=1e3"}, "withdrawal_fees"),
        ({"BYLINE_WITHDRAWAL_FEES": "USDC=1,USDC=2"}, "withdrawal_fees"),
        ({"BYLINE_WITHDRAWAL_ADDRESS_DELAY_SECONDS": "-1"}, "withdrawal_address_delay_seconds"),
        ({"BYLINE_FILE_BYTES_MAX": "0"}, "file_bytes_max"),
        ({"BYLINE_FILE_BYTES_MAX": "83886080001"}, "file_bytes_max"),
        ({"BYLINE_ACCOUNT_BYTES_MAX": "1"}, "account_bytes_max must be file_bytes_max to"),
        ({"BYLINE_ACK_MODE": "maybe"}, "ack_mode"),
        ({"BYLINE_ACK_MODE": "memory", "BYLINE_SECOND_CORE": "false"}, "second_core must be true where ack_mode"),
        ({"BYLINE_BATCH_INTERVAL_S": "0"}, "batch_interval_s"),
        ({"BYLINE_BATCH_INTERVAL_S": "nan"}, "batch_interval_s"),
        ({"BYLINE_BACKUP_URL": "file:///b", "BYLINE_BACKUP_INTERVAL_S": "5.1"}, "at most half of batch_interval_s"),
        ({"BYLINE_BACKUP_URL": "s3://"}, "backup_url must be a URL as s3://bucket/prefix, not what"),
        ({"BYLINE_POSTGRES_URL": "nonsense"}, "postgres_url must be a URL as postgresql:.*, not what"),
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
