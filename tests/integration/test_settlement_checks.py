"""Each check of the settler by itself: it alone stands between one fault and wrong money. And all parts at once."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import numpy as np
import pytest

from engine.messages.codes import CommandKind, EventKind
from engine.messages.errors import Unavailable
from settlement.brake import Brake
from settlement.chain.keys import OperatorKey
from settlement.chain.port import Execution, Part, Signed, VaultListing, VaultState
from settlement.chain.sui import SuiChain, SuiSettings
from tests.integration.test_settlement_faults import (
    UNIT,
    HeldBooks,
    Hooked,
    Ledgered,
    NodeClock,
    _final,
    _signed,
    bench,
    node_clock,
    owned,
)
from tests.support.real_core import RealCore
from tests.support.settlement_bench import MARKET, Bench, SecondBooks, check_rows, opened_market, reached
from tests.support.settlement_events import EXTERNAL

__all__ = ["bench", "node_clock", "owned"]


class Gate(Hooked):
    """Signs no batch behind `last`."""

    last = 2**62

    async def hook(self, part: Part) -> None:
        if part.batch > self.last:
            raise Unavailable("not yet (test)")


async def test_what_a_batch_pays_that_is_not_final_is_not_booked(bench: Bench) -> None:
    log, buyer, _ = opened_market()
    booked: list[str] = []

    class Core:
        async def submit(self, command: dict[str, str]) -> dict[str, str]:
            ref = command["ref"]
            if ref in booked:
                return {"event": "duplicate", "status": "posted"}
            booked.append(ref)
            log.money(EventKind.POSTED, CommandKind.WITHDRAW_SETTLED, ref, [(buyer, 0, 100, EXTERNAL)])
            return {"event": "posted"}

    for ref in ("w1", "w2"):
        log.money(EventKind.PENDED, CommandKind.WITHDRAW, ref, [(buyer, 0, 100, EXTERNAL)])
        log.cut()
    async with bench.settler(log, commands=Core(), chain_type=Gate) as settler:
        chain = settler._chain
        assert isinstance(chain, Gate)
        chain.last = 1
        await reached(lambda: settler.status()["final_batch"] == 1, "the first is final")
        await reached(lambda: settler.status()["pending_batches"] == 1, "the second waits")
        assert booked == ["w1"] and set(settler.netting.paid) == {"w1", "w2"}
        chain.last = 2**62
        await reached(lambda: settler.status()["final_batch"] == 2, "final")
        assert booked == ["w1", "w2"]


async def test_a_number_that_is_left_out_of_the_events_halts(bench: Bench) -> None:
    log, _, _ = opened_market()
    log.cut()
    async with bench.settler(log) as settler:
        await reached(lambda: settler.status()["final_batch"] == 1, "first batch")
        log.batch += 1
        log.cut()
        await reached(lambda: settler.status()["halted"], "halted")
        assert settler.status()["halted"] == "batch 3 follows batch 1" and bench.finals() == [1]


@pytest.mark.parametrize("other", ["sequences", "trades"])
async def test_events_of_another_history_halt_at_the_first_stored_batch_that_differs(bench: Bench, other: str) -> None:
    log, buyer, seller = opened_market()
    log.trade(MARKET, seller, buyer, 3, 7, 4)
    log.cut()
    async with bench.settler(log) as settler:
        await reached(lambda: settler.status()["final_batch"] == 1, "first batch")
    log, buyer, seller = opened_market()
    if other == "sequences":
        log.account("user:buyer", row=b"\xa1" * 32)
        log.trade(MARKET, seller, buyer, 3, 7, 4)
    else:
        log.trade(MARKET, buyer, seller, 3, 7, 4)
    log.cut()
    async with bench.settler(log) as settler:
        await reached(lambda: settler.status()["halted"], "halted")
        assert "batch 1 is stored with other sequences, state hash or trades" in settler.status()["halted"]


class Forked(SuiChain):
    """Once told to, the vaults show another history as soon as a batch counts as executed."""

    is_forked, looks = False, 0

    async def vault_states(self, listings: list[VaultListing]) -> dict[str, VaultState]:
        states = await super().vault_states(listings)
        self.looks += self.is_forked
        if self.looks < 2:  # the first look is the submitter's: are the bytes' effects shown?
            return states
        return {asset: msgspec.structs.replace(state, chain=b"\x09" * 32) for asset, state in states.items()}


async def test_a_vault_of_another_history_at_the_right_number_halts_after_the_batch(bench: Bench) -> None:
    log, buyer, seller = opened_market()
    log.cut()
    async with bench.settler(log, chain_type=Forked) as settler:
        await reached(lambda: settler.status()["final_batch"] == 1, "first batch")
        assert isinstance(settler._chain, Forked)
        settler._chain.is_forked = True
        log.trade(MARKET, seller, buyer, 3, 7, 4)
        log.cut()
        await reached(lambda: settler.status()["halted"], "halted")
        assert "shows next batch 3, the books say 3, or its chain value differs" in settler.status()["halted"]
        assert settler.status()["final_batch"] == 1


class Aborting(SuiChain):
    """Every transaction aborts as over a paused vault, although no vault shows that it is paused."""

    def __init__(self, settings: SuiSettings, key: OperatorKey) -> None:
        super().__init__(settings, key)
        self.is_aborting = False

    async def sign(self, part: Part, listings: dict[str, VaultListing]) -> Signed:
        signed = await super().sign(part, listings)
        return msgspec.structs.replace(signed, digest=f"{signed.digest}{part.batch}") if self.is_aborting else signed

    async def send(self, signed: Signed) -> Execution:
        return Execution(signed.digest, False, 2, "paused", 1, 1) if self.is_aborting else await super().send(signed)

    async def find(self, digest: str) -> Execution | None:
        return None if self.is_aborting else await super().find(digest)


async def test_what_aborts_again_and_again_halts_for_each_attempt_costs_gas(bench: Bench) -> None:
    log, _, _ = opened_market()
    log.cut()
    async with bench.settler(log, chain_type=Aborting) as settler:
        await reached(lambda: settler.status()["final_batch"] == 1, "first batch")
        assert isinstance(settler._chain, Aborting)
        settler._chain.is_aborting = True
        log.cut()
        await reached(lambda: settler.status()["halted"], "halted")
        assert "batch 2: aborted with code 2: paused" in settler.status()["halted"]
    assert _signed(bench)[2] == 20


class Reader:
    """Another reader of a core's events."""

    def __init__(self, core: RealCore) -> None:
        self._core, self._at = core, 0

    def seek(self, after_sequence: int) -> None:
        assert after_sequence == 0
        self._at = 0

    def read(self, limit_slots: int = 65_536) -> np.ndarray:
        news, self._at = self._core.slots[self._at :], len(self._core.slots)
        return np.concatenate(news) if news else np.zeros(0, dtype=np.void(128).dtype)

    @property
    def head_sequence(self) -> int:
        return self._core.head_sequence


@pytest.fixture
async def brake(owned: Ledgered, tmp_path: Path) -> AsyncIterator[Brake]:
    owned.core.send(op="asset", asset="INK", scale=2)
    owned.core.send(op="market", market="INK-USDC", base="INK", quote="USDC", tick="0.01", lot="1")
    brake = Brake(Reader(owned.core), owned.core, tmp_path / "brake.log", 7_200.0)
    yield brake
    brake.close()


async def _step(brake: Brake, settled: int | None, now_ns: int) -> None:
    """As its loop does, whatever gets lost."""
    for _ in range(4):
        with contextlib.suppress(Unavailable):
            await brake.step(settled, now_ns)


async def test_second_core_clerk_and_brake_beside_a_chain_that_lags(
    bench: Bench, owned: Ledgered, node_clock: NodeClock, brake: Brake
) -> None:
    """A deposit, a withdrawal and a forced exit of the same money while checkpoints and the second core are late."""
    core, books = owned.core, HeldBooks(owned.core, 2**62)
    hours = 3 * 3_600 * 10**9
    async with bench.settler(core, commands=core, audit=books) as settler:
        await _final(settler, core)
        listing = settler._listings["USDC"]
        assert bench.node is not None
        await bench.node.flip("checkpoint_lag", "1000000")
        core.lose.extend(["answer", "request", "answer"])
        await owned.owner.deposit(listing, 7 * UNIT)
        await owned.owner.request_exit(listing, 90 * UNIT)
        node_clock.late_ns = 2 * 86_400 * 10**9
        await owned.owner.claim_exit(listing)
        core.send(op="withdraw", account="user:o", asset="USDC", amount="40", ref="w1")
        core.send(op="cut")
        books.until = core.head_sequence
        core.send(op="cut")
        await reached(lambda: settler.status()["sealing_waits"] != "", "the second core is behind")
        assert settler.status()["final_batch"] == 1 and settler.status()["halted"] == ""
        await _step(brake, settler.settled_batch, core.now_ns + hours)
        assert brake.closed == {"INK-USDC"} and brake.status()["unsettled_cuts"] == 2
        await bench.node.flip("checkpoint_lag", "0")
        await reached(lambda: settler.status()["final_batch"] == 2, "the lag is over, batch 3 is not sealed")
        assert {c["op"] for c in core.commands if c.get("ref") == "w1"} == {"withdraw_failed"}
        await _step(brake, settler.settled_batch, core.now_ns + hours)
        assert brake.closed == {"INK-USDC"}, "a cut that is not sealed counts"
        books.until = 2**62
        await reached(lambda: settler.status()["final_batch"] == 3, "caught up")
        await reached(lambda: owned.balance() == (17 * UNIT, 0) or settler.status()["halted"], "all booked")
        assert settler.status()["halted"] == "" and settler.status()["sealing_waits"] == ""
        await _step(brake, settler.settled_batch, core.now_ns + hours)
        assert brake.closed == set()
        await _final(settler, core)
        check_rows(bench, settler)
    second = SecondBooks(core)
    second.is_behind = False
    async with bench.settler(core, commands=core, audit=second) as settler:
        await _final(settler, core)
        check_rows(bench, settler)
        assert owned.balance() == (17 * UNIT, 0) and settler.netting.skipped == {"w1"}
