"""Whose silence ends a session, and who may hold a place before signing in. Without sockets, with told times."""

from __future__ import annotations

from gateway.liveness import LOOKS, Liveness, Verdict
from gateway.unsigned import Unsigned, network_of

INTERVAL = 8_000
STEP = INTERVAL // LOOKS


def verdicts(liveness: Liveness, looks: int, *, heard: bool = False, unsent: int = 0, start: int = 0) -> list[Verdict]:
    return [liveness.look(start + STEP * (n + 1), heard, unsent) for n in range(looks)]


def test_silence_is_asked_once_and_ends_after_twice_the_interval() -> None:
    told = verdicts(Liveness(INTERVAL, 0), 2 * LOOKS)
    asked = LOOKS - 1
    assert told == [Verdict.FINE] * asked + [Verdict.PING] + [Verdict.FINE] * asked + [Verdict.END]


def test_a_frame_begins_the_silence_anew_and_the_asking_too() -> None:
    liveness = Liveness(INTERVAL, 0)
    assert Verdict.PING in verdicts(liveness, 2 * LOOKS - 1)
    assert liveness.look(16_000, True, 0) is Verdict.FINE
    assert verdicts(liveness, 2 * LOOKS - 1, start=16_000).count(Verdict.PING) == 1


def test_who_takes_what_waits_for_it_is_there_though_nothing_is_read_from_it() -> None:
    taking, stuck = Liveness(INTERVAL, 0), Liveness(INTERVAL, 0)
    for number in range(5 * LOOKS):
        now = STEP * (number + 1)
        assert taking.look(now, False, 10_000 - number) is Verdict.FINE
        told = stuck.look(now, False, 10_000)
    assert told is Verdict.END


def test_a_process_that_slept_blames_nobody() -> None:
    liveness = Liveness(INTERVAL, 0)
    verdicts(liveness, LOOKS)
    assert liveness.look(1_000 * INTERVAL, False, 0) is Verdict.FINE  # it was asked just before
    assert liveness.look(1_000 * INTERVAL + 1, True, 0) is Verdict.FINE


def test_a_crowd_of_one_address_makes_room_out_of_itself() -> None:
    unsigned: Unsigned[str] = Unsigned(4)
    assert [unsigned.add(name, "here") for name in ("old", "b")] == [None, None]
    assert [unsigned.add(f"f{n}", "there") for n in range(2)] == [None, None]
    assert unsigned.add("f2", "there") == "old"  # as many from each: the oldest of the first
    assert [unsigned.add(f"g{n}", "there") for n in range(3)] == ["f0", "f1", "f2"] and len(unsigned) == 4
    unsigned.discard("b")
    unsigned.discard("b")
    assert unsigned.add("c", "here") is None and unsigned.add("d", "else") == "g0"


def test_an_ipv6_host_has_a_whole_network() -> None:
    assert network_of("2001:db8::1") == network_of("2001:db8::ffff:1") != network_of("2001:db8:0:1::1")
    assert network_of("10.0.0.1") != network_of("10.0.0.2") and network_of("::ffff:10.0.0.1") == "::ffff:10.0.0.1"
    assert network_of("") == ""
