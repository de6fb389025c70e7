"""F30, F31, F32, F36, F37, sessions of records, and what seeds found: told on small worlds where each step is said."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from tests.simulation.client import SimulatedClient
from tests.simulation.network import MS, Link
from tests.simulation.traders import place
from tests.simulation.world import SECOND, SHORT_QUEUE, Fault, Plan, World, prepared, run_seed

Json = dict[str, Any]


def _run(world: World, ms: int) -> None:
    world.schedule.run(world.schedule.now_ns + ms * MS)


def _answers(client: SimulatedClient) -> list[tuple[Json, Json]]:
    """(request, answer) of all that comes from now on."""
    found: list[tuple[Json, Json]] = []
    client.on_answer = lambda request, answer: found.append((request, answer))
    return found


def _restart(world: World, death: str = "kill") -> None:
    world._died(death)
    _run(world, 6_000)
    assert world.process is not None and all(client.is_live for client in world.clients)


def _holds(world: World) -> None:
    """The auditor goes through all of it."""
    world.question()
    assert not world.auditor.violations, "\n".join(map(str, world.auditor.violations))


def test_f30_an_error_is_a_definite_no(tmp_path: Path) -> None:
    """Full disk, stalled disk, full queues: whatever was answered `error` never executes, before or after a restart."""
    refused = 0
    for seed in range(6):
        faults = (
            Fault(2_000, "full_disk", seed), Fault(4_000, "slow_disk", seed + 7), Fault(9_000, "kill", 1),
            Fault(12_000, "full_disk", seed + 3), Fault(15_000, "power", 1),
        )  # fmt: skip
        world = World(Plan(seed, faults, traders=4, duration_ms=20_000), tmp_path / str(seed))
        result = world.run()
        assert not result.violations, result.failure
        refused += sum(
            request.answer == "error" for requests in world.auditor._asked.values() for request in requests
        )
    assert refused > 20


@pytest.mark.parametrize("records", [(), ("trader0", "trader1", "trader2")], ids=["text", "records"])
def test_cancels_pass_while_a_full_queue_tells_others_that_it_is_busy(records: tuple[str, ...]) -> None:
    """I12 under overload: the disk stands still, orders fill all of the queue but the part that is kept for cancels."""
    told_busy = passed_others = 0
    for seed in range(3):
        faults = Fault(3_000, "slow_disk", 5), Fault(8_000, "slow_disk", 5)
        plan = Plan(seed, faults, has_hostile=False, duration_ms=14_000, records=records, queue=SHORT_QUEUE)
        result = run_seed(seed, plan=plan)
        assert not result.violations, result.failure
        told_busy += result.outcomes["told_busy"]
        passed_others += result.outcomes["passed_others"]
    assert told_busy > 20 and passed_others > 5


def test_records_and_text_tell_the_same_through_every_death() -> None:
    """Facts told as records are compared with those told as JSON to the drop copy: now, resumed, after a restart."""
    kinds = ("storm", "kill", "power", "storm", "wipe_events")
    faults = tuple(Fault(at, kind, at) for at, kind in zip(range(3_000, 15_500, 2_500), kinds, strict=True))
    for seed in range(3):
        records = ("trader0", "trader2") if seed else ("trader0", "trader1", "trader2", "eve")
        result = run_seed(seed, plan=Plan(seed, faults, duration_ms=16_000, records=records))
        assert not result.violations, result.failure
        assert result.records > result.requests / 4


@pytest.mark.parametrize("rate", [1, 3, 10])
def test_f31_messages_lost_doubled_and_out_of_turn_execute_at_most_once(rate: int) -> None:
    """Every `1000 / rate` ms some link breaks with bytes under way, delivered late half of the time."""
    faults = tuple(
        Fault(at, ("cut", "cut_late", "cut_late", "half_open")[at // 7 % 4], at)
        for at in range(500, 20_000, 1_000 // rate)
    )
    result = run_seed(31, plan=Plan(31, faults, duration_ms=20_000))
    assert not result.violations, result.failure
    assert result.requests > 150


@pytest.mark.parametrize("share", [0.05, 0.3])
def test_f31_nearly_a_third_of_all_messages_is_lost_and_some_come_late(
    share: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A link is left right behind a message: what is under way is gone, or arrives behind what the next link brings."""
    dice, say, arrive = random.Random(31), SimulatedClient.say, Link._arrive
    pieces, lost, late, is_lossy = 0, 0, 0, False

    def left(client: SimulatedClient, message: Json) -> int:
        link, schedule = client.link, client.network.schedule
        assert link is not None
        link.latency_ns = max(link.latency_ns, 2 * MS)  # so that it is under way
        rid = say(client, message)
        if is_lossy and client.accounts and dice.random() < share / (1 - client.late):
            schedule.later(0, lambda: client.abandon() if client.link is link else None)
        return rid

    def counted(link: Link, data: bytes) -> None:
        nonlocal pieces, lost, late
        pieces += is_lossy
        lost += is_lossy and link.is_half_open
        late += link.is_left and not link.is_half_open
        arrive(link, data)

    monkeypatch.setattr(SimulatedClient, "say", left)
    monkeypatch.setattr(Link, "_arrive", counted)
    for seed in (31, 32):
        with prepared(Plan(seed, (), records=("trader1",)), tmp_path / str(seed)) as world:
            is_lossy = True
            for actor in (*world.traders, *world.hostile, world.operator):
                actor.begin()
            _run(world, 20_000)
            is_lossy = False
            for actor in (*world.traders, *world.hostile, world.operator):
                actor.stop()
            _holds(world)
    assert lost > 0.6 * share * pieces and late, f"{lost} of {pieces}, {late} late"


@pytest.mark.parametrize("share", [0.1, 0.5])
def test_f31_messages_said_again_execute_at_most_once(share: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Up to every second command is said twice, at once or behind the next, on links that break meanwhile."""
    dice, whole, waiting = random.Random(31), SimulatedClient.say, {}
    again = 0

    def twice(client: SimulatedClient, message: Json) -> int:
        nonlocal again
        rid = whole(client, message)
        late = waiting.pop(client, None)
        if late is not None and client.link is not None:
            whole(client, late)
            again += 1
        if message["op"] in ("place", "cancel", "replace") and dice.random() < share:
            if dice.random() < 0.5:
                waiting[client] = message
            else:
                whole(client, message)
                again += 1
        return rid

    monkeypatch.setattr(SimulatedClient, "say", twice)
    faults = tuple(Fault(at, "cut_late", at) for at in range(1_000, 12_000, 1_000))
    result = run_seed(31, plan=Plan(31, faults, duration_ms=12_000))
    assert not result.violations, result.failure
    assert again > result.requests * share / 4, "said again"


def test_f32_a_packet_that_comes_after_its_id_was_poisoned_never_executes(tmp_path: Path) -> None:
    with prepared(Plan(32, (), has_hostile=False), tmp_path) as world:
        trader = world.traders[0].client
        found = _answers(trader)
        for number in range(20):
            link = trader.link
            assert link is not None
            link.latency_ns = 4 * SECOND  # it is under way for long
            place(trader, f"late-{number}")
            trader.late = 1.0
            trader.random.seed(1)  # poison first, then resolve
            link.leave(late_bytes=True)
            trader._gone()
            trader.doubtful.clear()
            trader.connect()
            _run(world, 1_500)
            trader.say({"op": "poison", "client_id": f"late-{number}"})
            _run(world, 500)
            assert found[-1][1]["event"] == "done", "poisoned before the packet is there"
            _run(world, 4_000)
            trader.say({"op": "resolve", "client_id": f"late-{number}"})
            _run(world, 500)
            assert found[-1][1]["outcome"] in ("poisoned", "rejected")
            if number == 10:
                _restart(world)
        _holds(world)


@pytest.mark.parametrize("offset_us", range(0, 2_400, 150))
def test_f36_cancel_on_disconnect_races_with_a_fill_and_a_cancel(tmp_path: Path, offset_us: int) -> None:
    """One order, three ends: a taker, its own cancel, the loss of its link. Exactly one takes each lot."""
    with prepared(Plan(36, (), traders=2, has_hostile=False), tmp_path) as world:
        maker, taker = (trader.client for trader in world.traders)
        for client in (maker, taker):
            assert client.link is not None
            client.link.latency_ns = MS
        place(maker, "rest", "sell", "100", size="5")
        _run(world, 1_000)
        start = world.schedule.now_ns
        link = maker.link
        assert link is not None
        world.schedule.at(start + offset_us * 1_000, lambda: place(taker, "take", "buy", "100", size="3"))
        world.schedule.at(start + 700_000, lambda: maker.say({"op": "cancel", "client_id": "rest"}))
        world.schedule.at(start + 900_000 + offset_us * 300, lambda: link.cut(late_bytes=offset_us % 300 == 0))
        _run(world, 3_000)
        _holds(world)
        ends = [event for event in world.drop_copy if event["event"] == "canceled" and event["client_id"] == "rest"]
        fills = [event for event in world.drop_copy if event["event"] == "trade" and "maker_order_id" in event]
        assert len(ends) == 1 and ends[0]["leaves"] == ("2" if fills else "5")


@pytest.mark.parametrize("death", ["kill", "power"])
@pytest.mark.parametrize("down_ms", [100, 3_000])
def test_f37_a_dead_mans_timer_fires_once_whether_the_exchange_was_there_or_not(
    tmp_path: Path, death: str, down_ms: int
) -> None:
    with prepared(Plan(37, (), has_hostile=False), tmp_path) as world:
        trader = world.traders[0].client
        place(trader, "kept", cancel_on_disconnect=False)
        trader.say({"op": "cancel_after", "at": world.clock.now_ns() + 1_500 * MS})
        _run(world, 500)
        world._starting = True  # it stays down for as long as this test says
        world._died(death)
        world.schedule.later(down_ms * MS, world._start)
        _run(world, 8_000)
        _holds(world)
        ends = [event for event in world.drop_copy if event["event"] == "canceled" and event["client_id"] == "kept"]
        assert [event["reason"] for event in ends] == ["session"]
        due = 1_500 * MS
        placed = next(event for event in world.drop_copy if event["event"] == "accepted")
        assert ends[0]["ts"] - placed["ts"] >= due - SECOND, "by journaled time, not before"


def test_filled_of_a_budget_order_is_told_alike_after_a_restart(tmp_path: Path) -> None:
    with prepared(Plan(4, (), traders=2, has_hostile=False), tmp_path) as world:
        maker, taker = (trader.client for trader in world.traders)
        place(maker, "rest", "sell", "100", size="5", cancel_on_disconnect=False)
        _run(world, 500)
        order = {
            "op": "place",
            "market": "TOK-USD",
            "client_id": "spend",
            "side": "buy",
            "type": "market",
            "budget": "250.5",
        }
        found = _answers(taker)
        taker.say(order)
        _run(world, 500)
        for _ in range(2):
            taker.say({"op": "resolve", "client_id": "spend"})
            taker.say(order)
            _run(world, 500)
            _restart(world)
        filled = [answer["filled"] for _, answer in found if "filled" in answer]
        assert filled == ["200.5"] * 4
        _holds(world)
