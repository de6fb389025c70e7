"""A hostile stream of commands: what a core and its twin must agree on.

Few accounts with little money meet in three small markets, so that nearly every command touches what another one left.
The stream has moods of some hundred commands each: trading with oneself in all modes, dense stops on both sides that
trigger one another, icebergs that share a level, oco pairs, storms of replaces and renames, narrow bands and the
pauses they cause, auctions, timers, money. At every field now and then stands a value that must be refused, and bytes
that no encoder writes. The stream is a function of the seed and of the events shown.

Orders are made as records at once (`adversary_orders`), money and listings as JSON through CommandEncoder
(`adversary_money`). Open orders are read off the events' bytes: `learn` must be shown all of them. Cost: some
microseconds a command. It never looks into a core.
"""

from __future__ import annotations

import random
import struct
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from itertools import accumulate
from typing import NamedTuple

import numpy as np

from bench.adversary_money import TRADERS, MoneyCommands, first_commands
from bench.adversary_orders import OrderCommands
from engine.limits import CoreLimits
from engine.messages import layout
from engine.messages.codes import AccountStatus, CommandKind, EventKind, Phase
from engine.messages.directory import Directory
from engine.messages.encode import CommandEncoder, Malformed

__all__ = ["TIGHT_LIMITS", "Adversary", "limits_of"]

TIGHT_LIMITS = CoreLimits(
    accounts=64, markets=8, assets=8, balances=200, orders=60, client_ids_total=60, client_ids_per_account=12, refs=60,
    postings=40, max_price_ticks=1 << 20, max_fills_per_command=4, poisons=20,
)  # fmt: skip
"""Bounds so narrow that every one of them is met."""
_FILLS_LIMITS = (4, 9, 15)


def limits_of(number: int) -> CoreLimits | None:
    """What the run of that number is held to: by turns the default bounds and tight ones with another fills limit."""
    if number % 2 == 0:
        return None
    return replace(TIGHT_LIMITS, max_fills_per_command=_FILLS_LIMITS[number // 2 % len(_FILLS_LIMITS)])


_SLOT = layout.SLOT_BYTES
_ENTITIES = frozenset({CommandKind.ASSET, CommandKind.MARKET, CommandKind.ACCOUNT})
_REASONED = frozenset({EventKind.REJECTED, EventKind.CANCELED, EventKind.PHASE_CHANGED})
_ACCEPTED = struct.Struct("<20xII4xQ32s48xBB")
_TRADE = struct.Struct("<24xI20xQ16xQq8xQq")
_ORDER_ID = struct.Struct("<32xQ")
_NAME, _CLIENT_ID, _NEW_CLIENT_ID = 32, 40, 96
_OCO, _GROUP, _MEMO = _SLOT, _SLOT + 32, _SLOT + 16
_TEXTS = {
    CommandKind.PLACE: (_CLIENT_ID, _CLIENT_ID, _OCO), CommandKind.CANCEL: (_CLIENT_ID,),
    CommandKind.REPLACE: (_CLIENT_ID, _NEW_CLIENT_ID, _NEW_CLIENT_ID), CommandKind.POISON: (_CLIENT_ID,),
    CommandKind.ACCOUNT: (_NAME, _GROUP), CommandKind.WITHDRAW: (_NAME, _MEMO), CommandKind.TRANSFER: (_NAME, _MEMO),
}  # fmt: skip
"""Where texts of a record begin; of other kinds it is the name or the ref."""


class OpenOrder(NamedTuple):
    account: int
    market: int
    client_id: bytes
    side: int
    type: int


class Mood(NamedTuple):
    """How often each command comes, and which types of order."""

    weights: dict[str, int]
    types: tuple[int, int, int, int] = (60, 12, 14, 14)
    """limit, market, stop, stop_limit, in percent."""
    spread: int = 4
    """Prices lie within so many ticks of the middle."""
    iceberg: float = 0.15
    pair: float = 0.1


_USUAL = {
    "place": 160, "cancel": 5, "replace": 22, "mass_cancel": 1, "phase": 1, "uncross": 1, "kill": 1, "rearm": 1,
    "cancel_after": 1, "poison": 2, "tick": 6, "cut": 2, "deposit": 9, "withdraw": 3, "transfer": 7, "decide": 7,
    "repeat": 4, "account": 4, "listing": 2, "garbage": 1,
}  # fmt: skip
_MOODS = (
    Mood(_USUAL),
    Mood(_USUAL, spread=2),
    Mood(_USUAL | {"place": 220, "tick": 2}, types=(40, 10, 26, 24), spread=6, pair=0.05),
    Mood(_USUAL, types=(60, 4, 16, 20), pair=0.4),
    Mood(_USUAL, types=(38, 6, 26, 30), spread=3, pair=0.5),
    Mood(_USUAL, types=(80, 12, 4, 4), spread=0, iceberg=0.5),
    Mood(_USUAL | {"replace": 150}, spread=3, pair=0.2),
    Mood(_USUAL | {"phase": 9, "uncross": 9}, types=(84, 2, 7, 7), spread=5, iceberg=0.3),
    Mood(_USUAL | {"listing": 9, "tick": 14}, types=(55, 20, 10, 15), spread=6),
    Mood(_USUAL | {"tick": 20, "cancel_after": 8, "kill": 4, "poison": 8, "mass_cancel": 4}),
    Mood(_USUAL | {"deposit": 25, "withdraw": 20, "transfer": 60, "decide": 50, "repeat": 25, "account": 9}),
)


class Adversary:
    """`record` proposes, `learn` must be shown the events. Counts what it was shown."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.directory = Directory()
        self.encoder = CommandEncoder(self.directory)
        self.time = 1_000
        self.open: dict[int, OpenOrder] = {}
        self.recent: list[tuple[int, bytes]] = []
        """Ids that were sent, open or not, and whose."""
        self.last_price: dict[int, int] = {}
        self.phases: dict[int, int] = {}
        self.killed: set[int] = set()
        self.poisoned: list[tuple[int, bytes]] = [(2, b"p")]
        """The latest ids that were to be poisoned."""
        self.pending: list[str] = []
        """Refs of the latest pending transfers."""
        self.traders = range(2, 2 + len(TRADERS))
        self.counts: Counter[tuple[int, int]] = Counter()
        """Events shown, by kind and reason (0 where it has none)."""
        self.events = 0
        self.mood = _MOODS[0]
        self._alive: list[int] = []
        self._left = 0
        self._numbers = 0
        self._opening = first_commands()
        self._money = MoneyCommands(self)
        self._orders = OrderCommands(self)
        self._makers: dict[str, Callable[[], bytearray]] = {
            name: getattr(self._orders, name, None) or getattr(self._money, name) for name in _USUAL
        }
        self._choices = list(self._makers.values())
        self._weights: list[int] = []

    def record(self, sequence: int) -> bytearray:
        """The next command as a record, valid or not."""
        if self._opening:
            record = self.encode(self._opening.pop(0))
        else:
            if self._left == 0:
                self._change_mood()
            self._left -= 1
            record = self._nudge() or self.random.choices(self._choices, cum_weights=self._weights)[0]()
        if self.random.random() < 0.004:
            self._deface(record)
        self.time += (0, 0, 1, 3, 12, -3)[int(self.random.random() * 6)]
        struct.pack_into("<Qq", record, 8, sequence, max(self.time, 0))
        return record

    def _deface(self, record: bytearray) -> None:
        """What no encoder writes: a text that begins with zeros, or a flag that means nothing."""
        if self.random.random() < 0.25:
            record[7] ^= 1 << self.random.randrange(8)
            return
        at = self.random.choice(_TEXTS.get(CommandKind(record[4]), (_NAME,)))
        if at < len(record):
            zeros = self.random.choice((b"\0", bytes(8) + b"x"))
            record[at : at + len(zeros)] = zeros

    def encode(self, command: dict[str, object]) -> bytearray:
        """Its record, or the record of a malformed line."""
        try:
            return self.encoder.encode(command)
        except Malformed:
            return self.encoder.malformed()

    def learn(self, data: bytes) -> None:
        """Events as bytes, whole ones."""
        at, length, counts = 0, len(data), self.counts
        while at < length:
            kind = data[at + 28]
            counts[kind, data[at + 30] if kind in _REASONED else 0] += 1
            self.events += 1
            if kind == EventKind.TRADE:
                market, price, maker, maker_leaves, taker, taker_leaves = _TRADE.unpack_from(data, at)
                self.last_price[market] = price
                if maker_leaves == 0:
                    self.open.pop(maker, None)
                if taker_leaves == 0:
                    self.open.pop(taker, None)
            elif kind == EventKind.ACCEPTED:
                account, market, order_id, client_id, side, type_ = _ACCEPTED.unpack_from(data, at)
                self.open[order_id] = OpenOrder(account, market, client_id.rstrip(b"\0"), side, type_)
                self._alive.append(order_id)
            elif kind == EventKind.CANCELED:
                self.open.pop(_ORDER_ID.unpack_from(data, at)[0], None)
            elif kind == EventKind.PHASE_CHANGED:
                self.phases[int.from_bytes(data[at + 24 : at + 28], "little")] = data[at + 32]
            elif kind == EventKind.DONE:
                self._learn_done(data, at)
            elif kind == EventKind.PENDED:
                self.pending = [*self.pending[-9:], data[at + 32 : at + 96].rstrip(b"\0").decode()]
            at += data[at + 29] * _SLOT

    def _learn_done(self, data: bytes, at: int) -> None:
        op, account = data[at + 31], int.from_bytes(data[at + 20 : at + 24], "little")
        if op in _ENTITIES:
            self.directory.learn(np.frombuffer(data, layout.EVENT))
        elif op == CommandKind.KILL:
            self.killed.add(account)
        elif op == CommandKind.REARM:
            self.killed.discard(account)

    # ------------------------------------------------------------ what the commands are made of

    def later(self, *waits: int) -> int:
        """A due time after one of the waits; often one at which something else is due as well."""
        at = self.time + waits[int(self.random.random() * len(waits))]
        return at if self.random.random() < 0.4 else at // 64 * 64 + 64

    def some_order(self) -> int | None:
        """An order that is open or waits, any one's."""
        alive = self._alive
        while alive:
            place = int(self.random.random() * len(alive))
            if alive[place] in self.open:
                return alive[place]
            alive[place] = alive[-1]
            alive.pop()
        return None

    def fresh_name(self, letter: str) -> str:
        """A name that is new, or now and then one that was used before."""
        self._numbers += 1
        if self.random.random() < 0.9:
            return f"{letter}{self._numbers}"
        return f"{letter}{max(0, self._numbers - int(self.random.random() * 300))}"

    def _change_mood(self) -> None:
        self._left = 40 + int(self.random.random() * 300)
        self.mood = self.random.choice(_MOODS)
        self._weights = list(accumulate(self.mood.weights[name] for name in self._makers))

    def _nudge(self) -> bytearray | None:
        """Markets that do not trade and accounts that may not are not left so for long."""
        chance = self.random.random()
        if chance < 0.09:
            account = self.random.choice(self.traders)
            if account in self.killed:
                return self._orders.rearm(account)
            if self.directory.accounts[account].status != AccountStatus.ACTIVE or chance < 0.01:
                return self._money.reactivate(self.directory.accounts[account].name)
        elif chance < 0.3:
            for market, phase in self.phases.items():
                if phase != Phase.CONTINUOUS and chance < 0.16:
                    return self._orders.reopen(market)
        return None
