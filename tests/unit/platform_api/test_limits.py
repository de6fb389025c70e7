"""Token buckets, decimal texts, cursors, ids, and the map of the error tree."""

from datetime import UTC, datetime
from uuid import UUID

import pytest

from engine.messages import errors
from platform_api.envelope import cursor_from, cursor_text, page
from platform_api.errors import STATUS, ApiError, ErrorCode, as_api_error
from platform_api.ids import new_id
from platform_api.limits import HOUR_NS, MINUTE_NS, SITE_TIMES, Buckets, Limits, network_of
from platform_api.money import decimal_text, steps_text
from platform_api.settings import ApiSettings


def test_bucket_takes_a_minutes_worth_at_once_then_one_each_step():
    buckets = Buckets(60)
    verdicts = [buckets.take("a", 0) for _ in range(61)]
    assert [verdict.allowed for verdict in verdicts] == [True] * 60 + [False]
    assert [verdict.remaining for verdict in verdicts[:3]] == [59, 58, 57]
    assert verdicts[-1].headers() == {
        "ratelimit-limit": "60", "ratelimit-remaining": "0", "ratelimit-reset": "60", "retry-after": "1",
    }  # fmt: skip
    assert buckets.take("b", 0).allowed
    assert not buckets.take("a", 999_999_999).allowed
    assert buckets.take("a", 1_000_000_000).allowed
    assert not buckets.take("a", 1_000_000_000).allowed
    assert buckets.take("a", 10 * MINUTE_NS).remaining == 59


def test_bucket_table_is_bounded_and_a_limit_of_zero_is_none():
    buckets = Buckets(1, keys_max=2)
    assert buckets.take("a", 0).allowed and buckets.take("b", 0).allowed and buckets.take("c", 0).allowed
    assert buckets.take("a", 0).allowed  # forgotten, so full again
    assert not buckets.take("c", 0).allowed
    assert Buckets(0).take("a", 0) is None
    hourly = Buckets(2, HOUR_NS)
    assert [hourly.take("a", at).allowed for at in (0, 0, 0, HOUR_NS // 2)] == [True, True, False, True]


def test_address_of_ipv6_counts_with_its_network_and_one_of_ipv4_alone():
    assert network_of("2001:db8:1:2::1") == network_of("2001:db8:1:2:ffff::9") != network_of("2001:db8:1:3::1")
    assert network_of("192.0.2.1") == "192.0.2.1" and network_of("-") == "-"
    assert network_of("::ffff:192.0.2.1") != network_of("::ffff:192.0.2.2")


async def test_networks_of_one_site_share_a_wider_limit():
    limits = Limits({"auth": Buckets(2, HOUR_NS), "auth_site": Buckets(2 * SITE_TIMES, HOUR_NS)})
    house = [await limits.take_of_address("auth", f"2001:db8:1:2::{n}") for n in range(3)]
    assert [verdict.allowed for verdict in house] == [True, True, False]
    site = [await limits.take_of_address("auth", f"2001:db8:1:{n:x}::1") for n in range(100, 101 + 2 * SITE_TIMES - 2)]
    assert [verdict.allowed for verdict in site] == [True] * (2 * SITE_TIMES - 2) + [False]
    assert (await limits.take_of_address("auth", "2001:db8:2::1")).allowed
    assert (await limits.take_of_address("auth", "192.0.2.1")).allowed
    assert await Limits({"auth": Buckets(0)}).take_of_address("auth", "2001:db8::1") is None


async def test_what_is_given_back_may_be_taken_again_and_never_more():
    limits = Limits({"cancels": Buckets(2, HOUR_NS), "free": Buckets(0)})
    for _ in range(5):
        assert (await limits.take("cancels", "a")).allowed
        await limits.give_back("cancels", "a")
    for _ in range(3):
        await limits.give_back("cancels", "a")
    await limits.give_back("cancels", "unheard of")
    await limits.give_back("free", "a")
    assert [(await limits.take("cancels", "a")).allowed for _ in range(3)] == [True, True, False]


@pytest.mark.parametrize(
    ("value", "decimals", "text"),
    [(0, 0, "0"), (0, 6, "0"), (1500, 3, "1.5"), (-5, 0, "-5"), (-5, 2, "-0.05"), (10**18, 9, "1000000000")],
)
def test_decimal_text_is_exact_and_shortest(value, decimals, text):
    assert decimal_text(value, decimals) == text


def test_steps_are_multiplied_before_the_point_is_set():
    assert steps_text(3, 25, 2) == "0.75"


def test_cursor_comes_back_and_any_other_text_is_refused():
    assert cursor_from(cursor_text(5, 7), int, int) == (5, 7)
    assert cursor_from(None, int) is None
    wrong = ("", "x", "äö", "LTEuMg", cursor_text(5), cursor_text(5, 7) + "=", cursor_text(2**63, 1),
             cursor_text("5", 7), cursor_text(-1, 7))  # fmt: skip
    for text in wrong:
        with pytest.raises(ApiError) as refused:
            cursor_from(text, int, int)
        assert refused.value.details == {"reason": "bad_cursor", "field": "cursor"}


def test_cursor_of_a_time_and_an_id_comes_back_exactly():
    at, id_ = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC), new_id()
    assert cursor_from(cursor_text(at, id_), datetime, UUID) == (at, id_)
    assert cursor_from(cursor_text("zoë", id_), str, UUID) == ("zoë", id_)
    with pytest.raises(ApiError):
        cursor_from(cursor_text("zoë", id_), datetime, UUID)


def test_page_is_cut_and_names_the_next_only_if_there_is_more():
    rows, pagination = page([3, 2, 1], 2, lambda row: (row,))
    assert rows == [3, 2] and cursor_from(pagination.next_cursor, int) == (2,)
    assert page([3, 2], 2, lambda row: (row,))[1].next_cursor is None


def test_every_operating_error_has_its_place_in_the_table():
    assert set(STATUS) == set(ErrorCode)
    expected = {
        errors.Unavailable: 503, errors.OutcomeUnknown: 504, errors.Refused: 502, errors.JournalFailed: 503,
        errors.PartMissing: 503, errors.JournalCorrupt: 500, errors.SettingsInvalid: 500, ValueError: 500,
    }  # fmt: skip
    for error, status in expected.items():
        answer = as_api_error(error("secret" if status == 500 else "said"))
        assert answer.code.status == status
        assert "secret" not in answer.message


def test_ids_are_version_seven_and_rise():
    ids = [new_id() for _ in range(50)]
    assert {id_.version for id_ in ids} == {7} and len(set(ids)) == 50
    assert ids[0].int >> 80 <= ids[-1].int >> 80


def test_settings_that_break_a_rule_are_refused_by_name():
    for values in ({"nonce_seconds": 0}, {"public_per_minute": -1}, {"faucet": {"USDC": "1"}}, {"listens_at": "a b"},
                   {"redis_url": "localhost"}, {"cors_origins": ("*",)}, {"jobs_running_max": 1},
                   {"public_url": "https://a.example/x"},
                   {"ethereum_chain_id": 0}, {"email_token_seconds": 0}):
        with pytest.raises(errors.SettingsInvalid, match=next(iter(values))):
            ApiSettings(postgres_dsn="", **values)
