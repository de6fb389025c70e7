"""Core and reference side by side on one stream: what is compared, and how a difference is told.

After every command the events must be equal byte for byte, and so must the state hash; a command that was refused, or
answered `duplicate`, must have left the hash as it was but for the clock. Every `check_every` commands, and the rarer
the more is remembered, both check their invariants and show the same balances, orders, indicative prices and next due
time, and the reference computes its hash anew from everything there is; now and then the core goes on from its own
snapshot. A second core takes the same records through `apply_batch`, in batches of any size, and must say the same.

A difference is raised with seed, position and command, and with a history that still shows it, shortened by leaving
out commands for as long as that does not hide it.
"""

from __future__ import annotations

import random
import struct
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from bench.adversary import Adversary
from engine.core import Core
from engine.limits import CoreLimits
from engine.messages import layout
from engine.messages.codes import (
    CancelReason,
    CommandKind,
    EventKind,
    PhaseReason,
    RejectCode,
)
from engine.messages.decode import EventDecoder
from engine.messages.layout import OrderFlag
from engine.reference import ReferenceCore
from engine.reference.digest import mix

__all__ = ["Comparison", "Difference", "compare", "describe", "names", "shorten"]

_M128 = 2**128 - 1
_REASONS = {EventKind.REJECTED: RejectCode, EventKind.CANCELED: CancelReason, EventKind.PHASE_CHANGED: PhaseReason}
_NAMED = (CommandKind.CANCEL, CommandKind.REPLACE)


class Difference(AssertionError):
    """Core and reference differ, or one of them broke an invariant."""


@dataclass(slots=True)
class Comparison:
    """What streams made both cores do. `counts`: events by kind and reason."""

    commands: int = 0
    events: int = 0
    counts: Counter[tuple[int, int]] = field(default_factory=Counter)
    state_hash: str = ""

    def add(self, other: Comparison) -> None:
        self.commands += other.commands
        self.events += other.events
        self.counts += other.counts


def names() -> dict[tuple[int, int], str]:
    """All that an event can be: `canceled oco` … for every kind and reason there is."""
    every: dict[tuple[int, int], str] = {}
    for kind in EventKind:
        for reason in _REASONS.get(kind, ()):
            every[kind, reason] = f"{kind.word} {reason.word}"
        if kind not in _REASONS:
            every[kind, 0] = kind.word
    return every


def compare(
    commands: int,
    seed: int,
    limits: CoreLimits | None = None,
    *,
    check_every: int = 199,
    decode: bool = False,
    progress: Callable[[int], None] | None = None,
) -> Comparison:
    """Drive core and reference with the same commands.

    check_every: commands between two looks at everything.
    decode: all events are made into JSON as well, so that nothing comes that could not be told.
    progress: called with the number of commands since it was called last.

    Raises:
        Difference: with the seed, the position, the command and a shortened history.
    """
    adversary, records = Adversary(seed), []
    pair = _Pair(limits, check_every, EventDecoder(adversary.directory) if decode else None)
    for sequence in range(1, commands + 1):
        record = adversary.record(sequence)
        records.append(bytes(record))
        try:
            adversary.learn(pair.apply(record))
            if sequence == commands:
                pair.look()
        except Exception as error:
            where = f"seed {seed}, sequence {sequence}: {describe(bytes(record))}\n{error}"
            raise Difference(f"{where}\n{_history(records, limits, check_every)}") from error
        if progress is not None and sequence % 500 == 0:
            progress(500)
    return Comparison(commands, adversary.events, adversary.counts, pair.core.state_hash().hex())


class _Pair:
    def __init__(self, limits: CoreLimits | None, check_every: int, decoder: EventDecoder | None = None) -> None:
        self.core, self.reference = Core(limits), ReferenceCore(limits)
        self._check_every = check_every
        self._next_look, self._looks = check_every, 0
        self._decoder = decoder
        self._batches = _Batches(limits)
        self._hash = int.from_bytes(self.core.state_hash(), "little")
        self._clock = 0, 0, 0, 1

    def apply(self, record: bytes | bytearray) -> bytes:
        """The events of both, as bytes."""
        core, reference = self.core, self.reference
        ours, theirs = core.apply(record), reference.apply(record)
        data: bytes = ours.tobytes()
        if data != theirs.tobytes():
            raise Difference(f"events differ\ncore      {_told(ours)}\nreference {_told(theirs)}")
        hashed = core.state_hash()
        if hashed != reference.state_hash():
            raise Difference(f"state hash differs: core {hashed.hex()}, reference {reference.state_hash().hex()}")
        self._refusal_changed_nothing(record[4], data, int.from_bytes(hashed, "little"))
        self._batches.add(record, data, hashed)
        if self._decoder is not None:
            self._decoder.decode(ours)
        if core.sequence >= self._next_look:
            self.look()
        return data

    def look(self) -> None:
        """Everything is looked at, and the core goes on from its snapshot."""
        core, reference = self.core, self.reference
        core.check()
        reference.check()
        if core.next_due != reference.next_due:
            raise Difference(f"next_due differs: core {core.next_due}, reference {reference.next_due}")
        _same_balances(core, reference)
        ours, theirs = core.open_orders(), reference.open_orders()
        if ours.tobytes() != theirs.tobytes():
            raise Difference(f"open orders differ\ncore      {ours}\nreference {theirs}")
        for market in range(len(reference._state.markets)):
            if core.indicative(market) != reference.indicative(market):
                raise Difference(f"indicative prices differ: {core.indicative(market)} {reference.indicative(market)}")
        self._looks += 1
        # A look walks over every remembered id: the more there are, the rarer it is.
        self._next_look = core.sequence + max(self._check_every, len(reference._state.ids) // 4)
        if self._looks % 11 == 0:
            self.core = Core.restore(core.snapshot())
            if self.core.state_hash() != reference.state_hash():
                raise Difference("a snapshot has another state hash")

    def _refusal_changed_nothing(self, kind: int, data: bytes, hashed: int) -> None:
        core, before = self.core, self._clock
        first = core.sequence + 1 if kind == CommandKind.CUT else before[3]
        now = core.sequence, core.time, core.batch, first
        refused = data and data[28] in (EventKind.REJECTED, EventKind.DUPLICATE)
        if refused and (self._hash - mix(1, *before) - hashed + mix(1, *now)) & _M128:
            raise Difference("a refused command changed the state")
        self._hash, self._clock = hashed, now


class _Batches:
    """The other door: a core of its own that takes the records in batches, behind the first one."""

    def __init__(self, limits: CoreLimits | None) -> None:
        self._core = Core(limits)
        self._out = np.empty(4_096, layout.EVENT)
        self._random = random.Random(0)
        self._size = 1
        self._records: list[bytes | bytearray] = []
        self._events: list[bytes] = []

    def add(self, record: bytes | bytearray, events: bytes, hashed: bytes) -> None:
        """A record with its events, and the state hash after it."""
        self._records.append(record)
        self._events.append(events)
        if len(self._records) < self._size:
            return
        if self._apply(b"".join(self._records)) != b"".join(self._events):
            raise Difference(f"the events of a batch of {len(self._records)} differ")
        if self._core.state_hash() != hashed:
            raise Difference(f"the state hash after a batch of {len(self._records)} differs")
        self._records, self._events = [], []
        self._size = self._random.choice((1, 2, 3, 17, 64, 300))

    def _apply(self, records: bytes) -> bytes:
        at, end, told = 0, len(records) // layout.SLOT_BYTES, b""
        while at < end:
            after, used = self._core.apply_batch(records, self._out, at)
            told += self._out[:used].tobytes()
            if after == at:  # not even one: its events may not fit
                self._out = np.empty(self._core.bound(records[at * layout.SLOT_BYTES :]), layout.EVENT)
            at = after
        return told


def _same_balances(core: Core, reference: ReferenceCore) -> None:
    rows = core.balances()
    ours = {(int(r["account"]), int(r["asset"])): (int(r["available"]), int(r["held"])) for r in rows}
    if ours != reference.balances():
        raise Difference(f"balances differ\ncore      {ours}\nreference {reference.balances()}")
    for asset in np.unique(rows["asset"]):
        mine = rows[rows["asset"] == asset]
        total = int(mine["available"].astype(object).sum() + mine["held"].astype(object).sum())
        if total:
            raise Difference(f"asset {asset} sums to {total}")


# ---------------------------------------------------------------- telling a difference


_COMMANDS = {
    kind: getattr(layout, name)
    for kind, name in {
        CommandKind.ASSET: "ASSET", CommandKind.MARKET: "MARKET", CommandKind.ACCOUNT: "ACCOUNT",
        CommandKind.DEPOSIT: "DEPOSIT", CommandKind.WITHDRAW: "WITHDRAW", CommandKind.TRANSFER: "TRANSFER",
        CommandKind.POST: "POST", CommandKind.VOID: "POST", CommandKind.WITHDRAW_SETTLED: "POST",
        CommandKind.WITHDRAW_FAILED: "POST", CommandKind.PLACE: "PLACE", CommandKind.CANCEL: "CANCEL",
        CommandKind.REPLACE: "REPLACE", CommandKind.MASS_CANCEL: "MASS_CANCEL", CommandKind.PHASE: "PHASE",
        CommandKind.UNCROSS: "PHASE", CommandKind.CANCEL_AFTER: "CANCEL_AFTER", CommandKind.KILL: "CANCEL_AFTER",
        CommandKind.REARM: "CANCEL_AFTER", CommandKind.POISON: "POISON",
    }.items()
}  # fmt: skip
_EVENTS = {
    EventKind.ACCEPTED: layout.ACCEPTED, EventKind.REJECTED: layout.REJECTED, EventKind.DUPLICATE: layout.DUPLICATE,
    EventKind.TRADE: layout.TRADE, EventKind.CANCELED: layout.CANCELED, EventKind.REPLACED: layout.REPLACED,
    EventKind.TRIGGERED: layout.TRIGGERED, EventKind.REFRESHED: layout.REFRESHED,
    EventKind.PREVENTED: layout.PREVENTED, EventKind.BALANCE: layout.BALANCE,
    EventKind.PHASE_CHANGED: layout.PHASE_CHANGED, EventKind.UNCROSSED: layout.UNCROSSED, EventKind.CUT: layout.CUT,
    **dict.fromkeys((EventKind.TRANSFERRED, EventKind.PENDED, EventKind.POSTED, EventKind.VOIDED), layout.MONEY_EVENT),
}  # fmt: skip
_SILENT = ("crc32c", "chain", "reserved", "pad", "spare")


def describe(record: bytes) -> str:
    """A command's record, field by field, and its other slots as they are."""
    kind = CommandKind(record[4])
    told = _fields(np.frombuffer(record, _COMMANDS.get(kind, layout.COMMAND))[0])
    rest = record[layout.SLOT_BYTES :].rstrip(b"\0")
    return f"{kind.word} {told}{f' + {rest!r}' if rest else ''}"


def _told(events: np.ndarray) -> str:
    lines, at = [], 0
    heads = events.view(layout.EVENT)
    while at < len(heads):
        kind = EventKind(int(heads[at]["kind"]))
        reason = int(heads[at]["reason"])
        word = _REASONS[kind](reason).word if kind in _REASONS else ""
        lines.append(f"{kind.word} {word} {_fields(heads.view(_EVENTS.get(kind, layout.EVENT))[at])}")
        at += int(heads[at]["slots"])
    return "\n          ".join(lines)


def _fields(row: np.void) -> dict[str, Any]:
    return {
        name: value
        for name, value in zip(row.dtype.names or (), row.item(), strict=True)
        if name not in _SILENT and value not in (0, b"", -(2**63), 0xFFFFFFFF)
    }


# ---------------------------------------------------------------- a shorter history


def shorten(
    records: list[bytes], limits: CoreLimits | None, *, check_every: int = 1, seconds: float = 60.0
) -> list[bytes]:
    """The fewest commands found within the time that still make a difference; as given if they make none.

    Sequences close up, and order ids with them: a cancel by order id still means the same order.
    """
    until = time.monotonic() + seconds
    shortest = _up_to_difference(records, limits, check_every)
    if shortest is None:
        return records
    step = max(1, len(shortest) // 2)
    while time.monotonic() < until:
        at = len(shortest) - 1 - step
        while at > -step and time.monotonic() < until:
            attempt = shortest[: max(at, 0)] + shortest[max(at, 0) + step + min(at, 0) :]
            found = _up_to_difference(attempt, limits, check_every)
            if found is not None:
                shortest = found
            at -= step
        if step == 1:
            break
        step //= 2
    return shortest


def _up_to_difference(records: list[bytes], limits: CoreLimits | None, check_every: int) -> list[bytes] | None:
    """The commands up to the one that differs, in sequence; None if none does."""
    pair, renumbered, numbers = _Pair(limits, check_every), [], dict[int, int]()
    for sequence, record in enumerate(records, 1):
        numbers[struct.unpack_from("<Q", record, 8)[0]] = sequence
        fresh = bytearray(record)
        struct.pack_into("<Q", fresh, 8, sequence)
        if record[4] in _NAMED and record[6] & OrderFlag.BY_ORDER_ID:
            struct.pack_into("<Q", fresh, 40, numbers.get(struct.unpack_from("<Q", record, 40)[0], 0))
        renumbered.append(bytes(fresh))
        try:
            pair.apply(fresh)
        except Exception:  # noqa: BLE001 - a crash is a difference too
            return renumbered
    return None


def _history(records: list[bytes], limits: CoreLimits | None, check_every: int) -> str:
    short = shorten(records, limits, check_every=check_every)
    if len(short) <= 100:
        short = shorten(short, limits, seconds=20)
    told = "\n".join(describe(record) for record in short[-60:])
    return f"shortened from {len(records):,} to {len(short):,} commands, the last of them:\n{told}"
