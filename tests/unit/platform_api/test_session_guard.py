"""What the guard of sessions remembers, and what it costs: every request asks it."""

from collections import OrderedDict
from types import SimpleNamespace

import pytest

from platform_api import security
from platform_api.errors import ApiError
from platform_api.security import Caller, SessionGuard, Standing

CACHE_SECONDS = 10


class NeverWalked(OrderedDict):
    """Refuses to be walked over by its keys or items."""

    def __iter__(self):
        raise AssertionError("somebody walks over all sessions")

    keys = items = __iter__


@pytest.fixture
def clock(monkeypatch):
    clock = SimpleNamespace(ns=10**9)
    monkeypatch.setattr(security, "time", SimpleNamespace(monotonic_ns=lambda: clock.ns))
    return clock


def caller(session_id, version=1):
    return Caller("account", "user:account", str(session_id), "0x1", version)


def guard_with(standing=None):
    asked = []

    async def look_up(caller):
        asked.append((caller.session_id, caller.version))
        return standing(caller) if standing is not None else Standing(None)

    return SessionGuard(look_up, CACHE_SECONDS), asked


async def test_session_that_is_forgotten_is_asked_for_again_and_no_other_is_touched(clock):
    guard, asked = guard_with()
    for number in range(100):
        await guard.check(caller(number))
    guard._known = NeverWalked(list(guard._known.items()))
    guard.forget("7")
    guard.forget("unknown")
    asked.clear()
    for number in range(100):
        await guard.check(caller(number))
    assert asked == [("7", 1)]


async def test_sessions_that_are_over_are_dropped_as_others_come(clock):
    guard, _ = guard_with()
    for number in range(50):
        await guard.check(caller(number))
    clock.ns += CACHE_SECONDS * 10**9
    for number in range(100, 125):
        await guard.check(caller(number))
    assert set(guard._known) == {str(number) for number in range(100, 125)}


async def test_session_longest_unasked_makes_room(clock, monkeypatch):
    monkeypatch.setattr(security, "SESSIONS_MAX", 3)
    guard, asked = guard_with()
    for number in (1, 2, 3, 4, 4):
        await guard.check(caller(number))
    assert len(asked) == 4 and set(guard._known) == {"2", "3", "4"}


async def test_token_of_another_version_is_asked_for_and_a_refused_one_is_not_kept(clock):
    guard, asked = guard_with(lambda caller: Standing(None if caller.version == 2 else "token_stale"))
    await guard.check(caller(1, version=2))
    for _ in range(2):
        with pytest.raises(ApiError, match="The session has ended"):
            await guard.check(caller(1))
    await guard.check(caller(1, version=2))
    assert asked == [("1", 2), ("1", 1), ("1", 1)]
