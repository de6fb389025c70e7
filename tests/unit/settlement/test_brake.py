"""The cap on unsettled trading, over the real core: closes once, opens only what it closed, survives crashes."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.messages import layout
from engine.messages.errors import Unavailable
from settlement.brake import Brake
from tests.support.real_core import RealCore


class World:
    def __init__(self, directory: Path) -> None:
        self.core, self.path = RealCore(), directory / "brake.log"
        self.core.send(op="asset", asset="USDC", scale=6)
        for name in ("INK", "MAYA", "ZOE"):
            self.core.send(op="asset", asset=name, scale=2)
            self.core.send(op="market", market=f"{name}-USDC", base=name, quote="USDC", tick="0.01", lot="0.01")
        self.core.send(op="phase", market="ZOE-USDC", phase="halt")
        self.cuts = 0
        self.brake = self.start()

    def start(self) -> Brake:
        return Brake(self.core, self.core, self.path, 100.0)

    def restart(self) -> None:
        self.brake.close()
        self.brake = self.start()

    async def step(self, unsettled_s: float) -> None:
        """The oldest cut that is not settled is so old; 0: there is none."""
        if not self.cuts:
            self.core.send(op="cut")
            event = self.core.slots[-1][-1:].view(layout.CUT)[0]
            self.cuts, self.cut_ts = int(event["batch"]), int(event["ts"])
        await self.brake.step(self.cuts - bool(unsettled_s), self.cut_ts + round(unsettled_s * 1e9))

    def phases(self) -> list[str]:
        """By market, from the core's own events."""
        self.core.seek(0)
        reader = Brake(self.core, self.core, self.path.with_name("reader.log"), 0)
        while len(slots := self.core.read()):
            reader._read(slots)
        reader.close()
        return [phase.word for phase in reader._phases]


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def _phase_commands(world: World) -> list[tuple[str, str]]:
    return [(each["market"], each["phase"]) for each in world.core.commands if each["op"] == "phase"]


async def test_past_the_limit_markets_take_cancels_alone_until_settlement_has_caught_up(world: World) -> None:
    await world.step(100.0)
    assert world.core.commands == []
    for _ in range(3):
        await world.step(100.5)
    assert _phase_commands(world) == [("INK-USDC", "cancel_only"), ("MAYA-USDC", "cancel_only")]
    world.core.send(op="account", account="user:a")
    order = {"op": "place", "account": "user:a", "market": "INK-USDC", "client_id": "c", "side": "buy", "type": "limit",
             "price": "1", "size": "1"}  # fmt: skip
    assert world.core.send(**order)["reason"] == "phase"
    await world.step(26.0)
    assert len(world.core.commands) == 2, "not caught up yet"
    for _ in range(3):
        await world.step(25.0)
    assert _phase_commands(world)[2:] == [("INK-USDC", "continuous"), ("MAYA-USDC", "continuous")]
    assert world.phases() == ["continuous", "continuous", "halt"] and world.brake.status()["closed"] == []


async def test_what_the_operator_has_moved_meanwhile_is_left_alone(world: World) -> None:
    await world.step(101.0)
    world.core.send(op="phase", market="INK-USDC", phase="halt")
    await world.step(0.0)
    assert world.phases() == ["halt", "continuous", "halt"] and world.brake.closed == set()
    world.core.send(op="phase", market="INK-USDC", phase="cancel_only")
    await world.step(0.0)
    assert world.phases() == ["cancel_only", "continuous", "halt"], "not closed by the brake: not opened by it"


@pytest.mark.parametrize("fault", ["request", "answer"])
@pytest.mark.parametrize("crash", [False, True])
async def test_lost_requests_and_answers_and_crashes_leave_no_market_forgotten(
    world: World, fault: str, crash: bool
) -> None:
    for unsettled_s, expected in ((101.0, "cancel_only"), (0.0, "continuous")):
        world.core.lose.extend([fault, fault])
        while world.core.lose:
            with pytest.raises(Unavailable, match="test"):
                await world.step(unsettled_s)
            if crash:
                world.restart()
        await world.step(unsettled_s)
        await world.step(unsettled_s)
        assert world.phases() == [expected, expected, "halt"]
    assert world.brake.closed == set()


async def test_without_a_limit_nothing_is_closed(world: World) -> None:
    world.core.send(op="cut")
    brake = Brake(world.core, world.core, world.path.with_name("none.log"), 0)
    await brake.step(0, 2**62)
    assert world.core.commands == []


async def test_what_is_not_sealed_counts_and_nothing_is_done_before_settlement_has_told(world: World) -> None:
    now = world.core.now_ns
    for _ in range(3):
        world.core.send(op="cut")
    for settled in (None, None):
        await world.brake.step(settled, now + 10**12)
    assert world.core.commands == []
    await world.brake.step(1, now + 10**12)
    assert world.brake.closed == {"INK-USDC", "MAYA-USDC"} and world.brake.status()["unsettled_cuts"] == 2
    for settled in (None, 0):  # settlement is resumed and reads its store again
        await world.brake.step(settled, now + 10**12)
    assert world.brake.closed == {"INK-USDC", "MAYA-USDC"} and world.brake.status()["unsettled_cuts"] == 2
    world.restart()
    await world.brake.step(None, now + 10**12)
    assert world.brake.status()["unsettled_cuts"] == 0, "it does not keep years of cuts until it hears that they are"
    await world.brake.step(3, now + 10**12)
    assert world.brake.closed == set() and world.phases() == ["continuous", "continuous", "halt"]
    assert world.brake.status()["unsettled_s"] == 0
