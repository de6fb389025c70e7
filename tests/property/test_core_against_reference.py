"""Core and reference take the same commands: same events byte for byte, same state hash, after every single one.

The state machine looks for a short stream that tells them apart, and shrinks it; the long seeded stream of the
differential bench goes where a short one does not come. Both know all commands, and require sound books and balances
that sum to zero.
"""

from __future__ import annotations

import struct
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from bench.adversary import TIGHT_LIMITS, limits_of
from bench.bench_differential import unmet
from bench.differential import Comparison, compare
from engine.core import Core
from engine.limits import CoreLimits
from engine.messages.decode import EventDecoder
from engine.messages.directory import Directory
from engine.messages.encode import CommandEncoder, Malformed
from engine.reference import ReferenceCore
from tests.support.commands import account, deposit, limit, market_order

TRADERS = ("ann", "bob", "cat")
Json = dict[str, Any]

traders = st.sampled_from(TRADERS)
sides = st.sampled_from(("buy", "sell"))
prices = st.sampled_from(("0.5", "1", "1.5", "2", "0.25", "0"))
sizes = st.sampled_from(("1", "2", "3", "7", "40", "0"))
client_ids = st.sampled_from([f"c{number}" for number in range(12)])
modes = st.sampled_from((None, "cancel_oldest", "cancel_both", "decrement", "none"))
refs = st.sampled_from([f"r{number}" for number in range(8)])
holders = st.sampled_from((*TRADERS, "debtor", "place", "system:external", "nobody"))
amounts = st.sampled_from(("1", "3", "25", "9000"))
times = st.one_of(st.none(), st.integers(-5, 60))
phases = st.sampled_from(("continuous",) * 4 + ("auction", "auction", "preopen", "halt", "cancel_only", "closed"))


class Twins(RuleBasedStateMachine):
    """The pair under test. `both` is the only way in."""

    @initialize(
        limits=st.sampled_from((CoreLimits(), TIGHT_LIMITS)),
        rates=st.sampled_from(((0, 0), (5000, 3000), (90_000, -80_000))),
        group=st.booleans(),
        bands=st.sampled_from(((0, 0), (0, 0), (0, 300_000), (600_000, 400_000))),
        phase=st.sampled_from(("continuous", "continuous", "preopen")),
    )
    def open(self, limits: CoreLimits, rates: tuple[int, int], group: bool, bands: tuple[int, int], phase: str) -> None:
        self.core, self.reference = Core(limits), ReferenceCore(limits)
        self.directory = Directory()
        self.decoder = EventDecoder(self.directory)
        self.encoder = CommandEncoder(self.directory, self.decoder.orders)
        self.now = 100
        taker_ppm, maker_ppm = rates
        self.both({"op": "asset", "asset": "USD", "scale": 2})
        self.both({"op": "asset", "asset": "TOK", "scale": 1, "settled": True})
        self.both(
            {"op": "market", "market": "TOK-USD", "base": "TOK", "quote": "USD", "tick": "0.5", "lot": "1",
             "taker_ppm": taker_ppm, "maker_ppm": maker_ppm, "max_price": "50", "phase": phase,
             "entry_band_ppm": bands[0], "exec_band_ppm": bands[1], "pause_ns": 15, "reference_price": "1"}
        )  # fmt: skip
        self.both(account("debtor", overdraft="forced"))
        self.both(account("place", overdraft="open"))
        for name in TRADERS:
            self.both(account(name, **({"stp_group": "desk"} if group and name != "cat" else {})))
            self.both(deposit(name, "USD", "60"))
            self.both(deposit(name, "TOK", "30"))

    def both(self, command: dict[str, Any]) -> None:
        command = {"ts": self.now, **command}
        try:
            record = self.encoder.encode(command)
        except Malformed:
            record = self.encoder.malformed()
        struct.pack_into("<Q", record, 8, self.core.sequence + 1)
        ours, theirs = self.core.apply(record), self.reference.apply(record)
        assert ours.tobytes() == theirs.tobytes(), f"{command}\ncore      {ours}\nreference {theirs}"
        self.decoder.decode(ours, command)

    @rule(name=traders, client_id=client_ids, side=sides, price=prices, size=sizes, stp=modes,
          tif=st.sampled_from((None, "gtc", "ioc", "fok")), post_only=st.booleans())  # fmt: skip
    def place(self, name: str, client_id: str, side: str, price: str, size: str, **fields: Any) -> None:
        self.both(limit(name, client_id, side, price, size, **fields))

    @rule(name=traders, client_id=client_ids, side=sides, price=prices, shown=st.sampled_from(("1", "2", "3")),
          size=st.sampled_from(("4", "7", "20")), stp=modes, lasts=times, oco_with=st.none() | client_ids)  # fmt: skip
    def place_iceberg(self, name: str, client_id: str, side: str, price: str, size: str, shown: str,
                      lasts: int | None, **fields: Any) -> None:  # fmt: skip
        tif = None if lasts is None else "gtd"
        self.both(limit(name, client_id, side, price, size, display_size=shown, tif=tif,
                        expires_at=self._later(lasts), **fields))  # fmt: skip

    @rule(name=traders, client_id=client_ids, side=sides, stop_price=prices, price=st.none() | prices,
          size=st.none() | sizes, tif=st.sampled_from((None, "gtc", "ioc", "fok")), stp=modes,
          oco_with=st.none() | client_ids)  # fmt: skip
    def place_stop(self, name: str, client_id: str, price: str | None, size: str | None, tif: str | None,
                   **fields: Any) -> None:  # fmt: skip
        """A stop_limit if it has a price; a budget if it has no size."""
        kind: Json = {"type": "stop_limit", "tif": tif} if price else {"type": "stop"}
        self.both({"op": "place", "account": name, "market": "TOK-USD", "client_id": client_id, "price": price,
                   "size": size, "budget": None if size else "5", **kind, **fields})  # fmt: skip

    @rule(name=traders, client_id=client_ids, partner=client_ids, side=sides, size=sizes, above=prices, below=prices)
    def place_pair(self, name: str, client_id: str, partner: str, side: str, size: str, above: str,
                   below: str) -> None:  # fmt: skip
        self.both(limit(name, client_id, side, above, size))
        self.both({"op": "place", "account": name, "market": "TOK-USD", "client_id": partner, "side": side,
                   "type": "stop", "stop_price": below, "size": size, "oco_with": client_id})  # fmt: skip

    @rule(phase=phases, reference_price=st.none() | prices)
    def change_phase(self, **fields: Any) -> None:
        self.both({"op": "phase", "market": "TOK-USD", **fields})

    @rule()
    def uncross(self) -> None:
        self.both({"op": "uncross", "market": "TOK-USD"})

    @rule(name=traders, op=st.sampled_from(("kill", "rearm", "rearm")))
    def kill(self, name: str, op: str) -> None:
        self.both({"op": op, "account": name})

    @rule(name=traders, after=times)
    def cancel_after(self, name: str, after: int | None) -> None:
        self.both({"op": "cancel_after", "account": name, "at": 0 if after is None else self.now + after})

    @rule(name=traders, client_id=client_ids)
    def poison(self, name: str, client_id: str) -> None:
        self.both({"op": "poison", "account": name, "client_id": client_id})

    @rule(name=traders, client_id=client_ids, side=sides, stp=modes, size=sizes)
    def place_market(self, name: str, client_id: str, side: str, stp: str | None, size: str) -> None:
        self.both(market_order(name, client_id, side, stp=stp, size=size))

    @rule(name=traders, client_id=client_ids, stp=modes, budget=st.sampled_from(("0.01", "0.77", "5", "59.99", "100")))
    def place_budget(self, name: str, client_id: str, stp: str | None, budget: str) -> None:
        self.both(market_order(name, client_id, "buy", stp=stp, budget=budget))

    @rule(name=traders, client_id=client_ids)
    def cancel(self, name: str, client_id: str) -> None:
        self.both({"op": "cancel", "account": name, "client_id": client_id})

    @rule(name=traders, client_id=client_ids, price=st.none() | prices, size=st.none() | sizes,
          stop_price=st.none() | st.none() | prices, new_client_id=st.none() | client_ids)  # fmt: skip
    def replace(self, name: str, **fields: Any) -> None:
        self.both({"op": "replace", "account": name, **fields})

    @rule(name=st.none() | traders, side=st.none() | sides)
    def mass_cancel(self, name: str | None, side: str | None) -> None:
        self.both({"op": "mass_cancel", "account": name, "side": side})

    @rule(
        name=traders, status=st.sampled_from(("active", "active", "cancel_only", "frozen")), most=st.none() | st.just(2)
    )
    def change_account(self, name: str, status: str, most: int | None) -> None:
        self.both(account(name, status=status, limits={"max_open_orders": most}))

    @rule(ref=refs, source=holders, receiver=holders, amount=amounts, asset=st.sampled_from(("USD", "TOK")),
          pending=st.booleans(), force=st.booleans(), lasts=times, not_after=times)  # fmt: skip
    def transfer(self, ref: str, source: str, receiver: str, amount: str, asset: str, lasts: int | None,
                 not_after: int | None, **flags: bool) -> None:  # fmt: skip
        leg = {"from": source, "asset": asset, "amount": amount, "to": receiver}
        self.both({"op": "transfer", "ref": ref, "legs": [leg], "expires_at": self._later(lasts),
                   "not_after": self._later(not_after), **flags})  # fmt: skip

    @rule(ref=refs, source=holders, amount=amounts, weights=st.lists(st.integers(0, 9), min_size=1, max_size=5),
          not_after=times)  # fmt: skip
    def split(self, ref: str, source: str, amount: str, weights: list[int], not_after: int | None) -> None:
        shares = [{"to": TRADERS[i % 3], "weight": weight} for i, weight in enumerate(weights)]
        self.both({"op": "transfer", "ref": ref, "from": source, "asset": "USD", "amount": amount, "shares": shares,
                   "not_after": self._later(not_after)})  # fmt: skip

    @rule(ref=refs, name=traders, amount=amounts, not_after=times)
    def withdraw(self, ref: str, name: str, amount: str, not_after: int | None) -> None:
        legs = [{"from": name, "asset": "USD", "amount": "1", "to": "debtor"}]
        self.both({"op": "withdraw", "account": name, "asset": "USD", "amount": amount, "ref": ref, "legs": legs,
                   "not_after": self._later(not_after)})  # fmt: skip

    @rule(ref=refs, op=st.sampled_from(("post", "void", "withdraw_settled", "withdraw_failed")), not_after=times)
    def decide(self, ref: str, op: str, not_after: int | None) -> None:
        self.both({"op": op, "ref": ref, "not_after": self._later(not_after)})

    @rule(step=st.integers(-3, 40), cut=st.booleans())
    def tick(self, step: int, cut: bool) -> None:
        self.now = max(self.now + step, 1)
        self.both({"op": "cut" if cut else "tick"})

    def _later(self, after: int | None) -> int | None:
        return None if after is None else self.now + after

    @invariant()
    def agree(self) -> None:
        assert self.core.state_hash() == self.reference.state_hash()
        assert self.core.next_due == self.reference.next_due
        assert self.core.open_orders().tobytes() == self.reference.open_orders().tobytes()
        assert self.core.indicative(0) == self.reference.indicative(0)
        self.core.check()
        self.reference.check()

    @invariant()
    def money_is_conserved(self) -> None:
        rows = self.core.balances()
        for asset in (0, 1):
            mine = rows[rows["asset"] == asset]
            assert int(mine["available"].sum() + mine["held"].sum()) == 0


Twins.TestCase.settings = settings(
    max_examples=40, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
)
TestTwins = Twins.TestCase


def test_f49_long_hostile_stream_agrees_and_makes_everything_happen() -> None:
    """Twenty thousand commands: every event, every reason for a refusal and for a cancel."""
    result = Comparison()
    for number in range(4):
        result.add(compare(5_000, number, limits_of(number), decode=number < 2))
    assert result.commands == 20_000
    assert not unmet(result), "the stream no longer makes this happen"
