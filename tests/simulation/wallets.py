"""Wallets of settlement's world: they pay in on the chain, ask for forced exits, call them off and claim them.

One of them has no account at first: it pays in, leaves, and may open one later. An exit is claimed once a batch is
settled that was cut well behind the freezing of its accounts: the contract's hour is there for that, and five seconds
of this world, in which a batch may wait for longer, are not (`HOUR_IN_MS`).

What they did is what the contract's events say, what the exchange made of it is what the core took. Both are held
together at the end (I11), row by row and asset by asset:

  - each deposit to a row with an account is booked once, but for what an exit took of it before;
  - each exit left the accounts of its row once, but for what it took of deposits that were not booked;
  - no exit is open, no account frozen any more, nothing is held.
"""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from engine.messages.decimals import units_of
from settlement.chain.localsui.contract import CancelExit, ClaimExit, Deposit, RequestExit
from tests.simulation.auditor import Violation
from tests.simulation.chain import ChainNode
from tests.simulation.loop import Schedule
from tests.simulation.network import MS

__all__ = ["STRANGER", "Wallets"]

STRANGER = b"\xee" * 32
"""The row of whoever has no account yet."""
CUTS_BEHIND = 2
"""Cuts between the freezing of an exit's accounts and the one whose batch must be settled before it is claimed."""
Place = tuple[str, bytes]
"""Asset and row."""


class Wallets:
    """Those of one world. `accounts`: row → names of its accounts; the world adds to it."""

    def __init__(
        self, node: ChainNode, schedule: Schedule, seed: int, scales: Mapping[str, int],
        accounts: dict[bytes, list[str]], cut: Callable[[], int], seen: Callable[[], int],
    ) -> None:  # fmt: skip
        """`cut`: the last batch that was cut. `seen`: the last checkpoint that the exchange has read."""
        self.node, self.schedule, self.scales, self.accounts = node, schedule, scales, accounts
        self.random = random.Random(f"wallets-{seed}")
        self.is_calm = False
        self._cut, self._seen = cut, seen
        self._ready: dict[Place, tuple[int, int]] = {}
        """Exit → the last cut, and the time, when its accounts were found frozen and have been since."""
        self._asked_in: dict[Place, int] = {}
        """Checkpoint of the request."""
        self._claims: set[Place] = set()
        self.frozen: set[str] = set()
        self.booked: dict[Place, Counter[int]] = defaultdict(Counter)
        """Units of each deposit that the core has taken for one of the chain."""
        self.left: Counter[Place] = Counter()
        """Units that the core has taken out of accounts for exits."""
        self._holds: dict[str, tuple[Place, int]] = {}

    # ------------------------------------------------------------ what they do

    def act(self) -> None:
        """Some of them, within the next seconds."""
        for _ in range(self.random.randrange(4)):
            self.schedule.later(self.random.randrange(3_000) * MS, self._act)

    def _act(self) -> None:
        known = sorted(self.node.touched)  # by a batch: a vault is not told of before it is stored which one it is
        if self.is_calm or not known:
            return
        asset = self.random.choice(known)
        row = self.random.choice([*sorted(self.accounts), STRANGER])
        draw, place = self.random.random(), (asset, row)
        if draw < 0.6:
            units = self.random.randrange(1, 200 * 10 ** self.scales[asset])
            self.node.act(asset, Deposit(row, units, b""))
        elif draw < 0.9:
            units = self.random.randrange(1, 1_500 * 10 ** self.scales[asset])
            if self.node.act(asset, RequestExit(row, units, self.node.clock_ms())):
                self._asked_in[place] = self.node.checkpoint
                self._ready.pop(place, None)
                if place not in self._claims:
                    self._claims.add(place)
                    self._later(place)
        else:
            self.node.act(asset, CancelExit(row))

    def _later(self, place: Place) -> None:
        self.schedule.later(self.random.randrange(300, 1_500) * MS, lambda: self._claim(place))

    def _claim(self, place: Place) -> None:
        asset, row = place
        if not self.node.vaults[asset].rows[row].exit_amount:
            self._claims.discard(place)  # called off
        elif self._may_claim(place) and self.node.act(asset, ClaimExit(row, self.node.clock_ms())):
            self._claims.discard(place)
        else:
            self._later(place)

    def _may_claim(self, place: Place) -> bool:
        asset, row = place
        if self._seen() < self._asked_in[place] or not self.frozen.issuperset(self.accounts.get(row, ())):
            self._ready.pop(place, None)
            return False
        cut, since_ns = self._ready.setdefault(place, (self._cut(), self.schedule.now_ns))
        is_settled = self.node.vaults[asset].header.next_seq > cut + CUTS_BEHIND
        return is_settled and self.schedule.now_ns > since_ns + 3_000 * MS

    def call_off(self) -> None:
        """Whatever exit is open, of a row that has nothing mostly."""
        for asset, vault in sorted(self.node.vaults.items()):
            for row in [row for row, state in sorted(vault.rows.items()) if state.exit_amount]:
                self.node.act(asset, CancelExit(row))

    # ------------------------------------------------------------ what the core takes

    def took(self, command: Mapping[str, Any], answer: Mapping[str, Any]) -> None:
        """A command of settlement's and its answer, whether that gets there or not."""
        op, event, ref = command["op"], answer["event"], command.get("ref", "")
        if op == "account" and event == "done":
            (self.frozen.add if command["status"] == "frozen" else self.frozen.discard)(command["account"])
        elif op == "deposit" and event == "transferred":
            place = command["asset"], next(row for row, names in self.accounts.items() if command["account"] in names)
            self.booked[place][units_of(command["amount"], self.scales[command["asset"]])] += 1
        elif op == "transfer" and event in ("transferred", "pended"):
            asset = command["legs"][0]["asset"]
            units = sum(units_of(leg["amount"], self.scales[asset]) for leg in command["legs"])
            place = asset, bytes.fromhex(command["memo"])
            if event == "pended":
                self._holds[ref] = place, units
            else:
                self.left[place] += units
        elif op == "post" and event == "posted":
            place, units = self._holds[ref]
            self.left[place] += units

    # ------------------------------------------------------------ I11

    def unbooked(self) -> Counter[Place]:
        """Units that the vaults hold for rows without an account."""
        units: Counter[Place] = Counter()
        for place in self._arrived().keys() | self._paid().keys():
            if place[1] not in self.accounts:
                units[place] = sum(self._arrived()[place].elements()) - self._paid()[place]
        return units

    def audit(self, held: Mapping[str, int]) -> Iterator[Violation]:
        """`held`: account → what of any asset is held in it at the end."""
        arrived, paid = self._arrived(), self._paid()
        for place in sorted(arrived.keys() | paid.keys() | self.booked.keys() | self.left.keys()):
            booked, left = self.booked[place], self.left[place]
            of = f"{place[0]} of the row {place[1].hex()[-4:]}"
            if place[1] in self.accounts and not paid[place] and booked != arrived[place]:
                yield Violation("I11", f"{of}: {dict(arrived[place])} were paid in, {dict(booked)} are booked")
            taken = sum(arrived[place].elements()) - sum(booked.elements())
            if place[1] in self.accounts and taken != paid[place] - left:
                news = f"of what was paid in {taken} units are not booked, of what exits paid {paid[place] - left}"
                yield Violation("I11", f"{of}: {news}")
            if place[1] not in self.accounts and (booked or left):
                yield Violation("I11", f"{of}, which has no account: {dict(booked)} booked, {left} booked for exits")
        for asset, vault in sorted(self.node.vaults.items()):
            yield from (
                Violation("I12", f"{asset}: the exit of {row.hex()[-4:]} is open 60 s after the last fault")
                for row, state in sorted(vault.rows.items()) if state.exit_amount
            )  # fmt: skip
        for account in sorted(self.frozen):
            yield Violation("I12", f"{account} is frozen, and no exit is open")
        for account, units in sorted(held.items()):
            if units:
                yield Violation("I2", f"{units} units are held in {account}, and nothing is under way")

    def _arrived(self) -> dict[Place, Counter[int]]:
        found: dict[Place, Counter[int]] = defaultdict(Counter)
        for event in self.node.events:
            if event.kind == "Deposited" and event.digest in self.node.of_wallets:
                found[self.node.assets[event.digest, event.index], event.owner][event.amount] += 1
        return found

    def _paid(self) -> Counter[Place]:
        found: Counter[Place] = Counter()
        for event in self.node.events:
            if event.kind == "ExitPaid":
                found[self.node.assets[event.digest, event.index], event.owner] += event.amount
        return found
