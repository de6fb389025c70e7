"""Errors that a client is told without a reason: each code is blamed, and none that has one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.simulation.auditor import Auditor
from tests.simulation.network import MS
from tests.simulation.world import Plan, World, prepared

PLACE = {"op": "place", "market": "CRT-USD", "client_id": "c", "side": "buy", "type": "limit", "size": "0.1"}
NARROWED = {"tier": "plain", "collar_ppm": 1, "protection": {"window_ms": 1, "fills": 1}, "expires_at": 1}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with prepared(Plan(1, (), traders=2, has_hostile=False), tmp_path_factory.mktemp("world")) as made:
        yield made


def _told(world: World, message: dict[str, Any], code: str, **more: Any) -> set[str]:
    """The invariants that a trader's being told this breaks."""
    auditor: Auditor = world.auditor
    client = world.traders[0].client
    client.rid += 1
    auditor.sent(client, {"rid": client.rid} | message)
    auditor.heard(client, {"rid": client.rid, "type": "error", "code": code} | more)
    found, auditor.violations = {violation.invariant for violation in auditor.violations}, []
    return found


@pytest.mark.parametrize(
    ("code", "broken"),
    [
        *((code, "I4") for code in (
            "rate_limited", "collar", "protection", "expired_key", "unavailable", "forbidden", "unknown_op", "exists",
            "malformed", "bad_json", "bad_rid", "bad_price", "bad_size", "bad_display", "bad_stop", "not_signed_in",
            "bad_frame", "too_many_commands", "unknown_market", "unknown_account", "crossed", "poisoned", "bad_value",
        )),
        ("internal", "I13"), ("journal_failed", "I12"), ("cancel_only", "I12"), ("busy", "I12"),
    ],
)  # fmt: skip
def test_an_error_without_a_reason_is_blamed(world: World, code: str, broken: str) -> None:
    assert _told(world, PLACE | {"price": "99.95"}, code, field="op") == {broken}


@pytest.mark.parametrize(
    ("code", "wrong"),
    [
        ("bad_price", {"price": "99.96"}), ("bad_price", {"price": "1e5"}), ("bad_size", {"price": "1", "size": "0"}),
        ("bad_size", {"price": "1", "size": "9223372036854775807"}), ("malformed", {"price": "1", "budget": "5"}),
        ("bad_stop", {"price": "1", "stop_price": "-1"}), ("bad_display", {"price": "1", "display_size": "0.05"}),
    ],
)  # fmt: skip
def test_an_error_about_what_is_wrong_is_not(world: World, code: str, wrong: dict[str, str]) -> None:
    assert _told(world, PLACE | wrong, code) == set()


@pytest.mark.parametrize("code", ["rate_limited", "collar", "protection", "expired_key"])
def test_a_limit_of_the_key_is_a_reason(world: World, code: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(world.auditor, "_terms", lambda client: NARROWED)
    assert _told(world, PLACE | {"price": "1"}, code) == set()


def test_a_failed_disk_is_a_reason_until_its_process_is_gone(world: World) -> None:
    now_ns = world.schedule.now_ns
    world.auditor.disk_refused(now_ns, has_failed=True)
    assert _told(world, PLACE | {"price": "1"}, "journal_failed") == set()
    world.schedule.run(now_ns + 4_000 * MS)
    assert _told(world, PLACE | {"price": "1"}, "journal_failed") == {"I12"}
