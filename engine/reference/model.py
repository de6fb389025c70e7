"""What exists in the reference, how a record is read and how an event is written.

Texts are bytes without their padding, numbers plain int. Invariants are checked by ReferenceCore.check().
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from functools import cache
from types import SimpleNamespace
from typing import Any

import numpy as np
from sortedcontainers import SortedDict  # type: ignore[import-untyped]

from engine.limits import CoreLimits
from engine.messages import layout
from engine.messages.codes import ABSENT, NIL, EventKind, OrderStatus, OrderType, Overdraft, RefStatus, RejectCode, Side
from engine.messages.layout import AccountMask, RejectedFlag
from engine.reference.noticed import Changes, Noticed, Rows, Table

__all__ = [
    "EXTERNAL", "FEES", "INT64_MAX", "MILLION", "TOTAL_LIMIT", "Account", "Asset", "Balance", "ClientId", "Market",
    "Move", "Order", "Ref", "State", "ceil_ppm", "extension", "is_empty", "reject", "required_hold", "saturated",
    "unpack", "words",
]  # fmt: skip

EXTERNAL, FEES = 0, 1
INT64_MAX = 2**63 - 1
TOTAL_LIMIT = 2**62
MILLION = 10**6


@dataclass
class Asset(Noticed):
    name: bytes
    scale: int
    settled: int


@dataclass
class Account(Noticed):
    name: bytes
    overdraft: int
    status: int = 0
    mask: int = 0
    taker_ppm: int = 0
    maker_ppm: int = 0
    max_open_orders: int = 0
    row: bytes = bytes(32)
    stp_group: bytes = b""
    killed: int = 0
    cancel_after: int = 0
    """When a tick cancels its orders, ns; 0: never."""
    cancel_after_sequence: int = 0
    poisons: int = 0
    """How many of its ids are poisoned."""
    orders: dict[int, Order] = field(default_factory=dict)
    """Open and waiting ones."""
    closed: dict[bytes, ClientId] = field(default_factory=dict)
    """Remembered client ids of its closed orders, oldest first."""


@dataclass
class Balance(Noticed):
    available: int = 0
    held: int = 0


@dataclass
class Market(Noticed):
    """`bids` and `asks`: price → orders by id, in the order of joining. `stops`: waiting orders by id.

    reference_price: the listing's own. band_reference: what bands are around, ABSENT if nothing gave it yet.
    pause_sequence: the command that set `pause_at`, 0 while no pause is on.
    """

    name: bytes
    base: int
    quote: int
    tick: int
    lot: int
    tick_decimals: int
    lot_decimals: int
    k: int
    u: int
    min_size: int
    max_size: int
    max_price: int
    reference_price: int
    taker_ppm: int = 5000
    maker_ppm: int = 3000
    entry_band_ppm: int = 0
    exec_band_ppm: int = 0
    pause_ns: int = 5_000_000_000
    phase: int = 0
    last_price: int = 0
    trade_count: int = 0
    band_reference: int = ABSENT
    pause_at: int = 0
    pause_sequence: int = 0
    bids: SortedDict = field(default_factory=SortedDict)
    asks: SortedDict = field(default_factory=SortedDict)
    stops: dict[int, Order] = field(default_factory=dict)

    def half(self, side: int) -> SortedDict:
        return self.bids if side == Side.BUY else self.asks

    def best(self, side: int) -> int | None:
        """The highest bid or the lowest ask."""
        half = self.half(side)
        if not half:
            return None
        return int(half.keys()[-1] if side == Side.BUY else half.keys()[0])


@dataclass(eq=False)
class Order(Noticed):
    """`size` and `leaves` in lots, a budget order's in quote units. `exact_fee`: sum of notional × ppm over fills.

    status: WAITING or OPEN; a taker counts as open. join: 0 until it first stands in a book.
    displayed: of an iceberg that rests, what is left of the slice it shows.
    """

    order_id: int
    account: int
    market: int
    client_ids: list[bytes]
    side: int
    type: int
    tif: int
    flags: int
    stp: int
    price: int
    size: int
    leaves: int
    taker_ppm: int
    maker_ppm: int
    session: int
    budget: bool
    stop_price: int = ABSENT
    display_size: int = ABSENT
    expires_at: int = ABSENT
    status: OrderStatus = OrderStatus.OPEN
    exact_fee: int = 0
    join: int = 0
    displayed: int = 0
    partner: Order | None = field(default=None, repr=False)
    """The other order of its oco pair."""

    @property
    def filled(self) -> int:
        return self.size - self.leaves

    @property
    def shown(self) -> int:
        """What depth counts, and what one fill can take."""
        if self.status == OrderStatus.WAITING:
            return 0
        return self.leaves if self.display_size == ABSENT else self.displayed

    @property
    def is_limited(self) -> bool:
        """Whether it trades as a limit order; the others trade as market orders."""
        return self.type in (OrderType.LIMIT, OrderType.STOP_LIMIT)

    @property
    def credit(self) -> int:
        return ceil_ppm(self.exact_fee) * MILLION - self.exact_fee


@dataclass
class ClientId(Noticed):
    """An id that answers. `order` while it is open or waiting; status and filled are of its end.

    closing: 0 while it is open; then larger than that of whatever closed before.
    """

    order_id: int
    account: int
    market: int
    client_id: bytes
    order: Order | None
    status: int = OrderStatus.OPEN
    filled: int = 0
    closing: int = 0


@dataclass(frozen=True, slots=True)
class Move:
    """One posting."""

    source: int
    asset: int
    amount: int
    target: int


@dataclass
class Ref(Noticed):
    digest: int
    status: int
    first_sequence: int
    not_after: int
    expires_at: int = 0
    moves: list[Move] = field(default_factory=list)
    code: bytes = b""
    memo: bytes = b""

    def due(self) -> int | None:
        """When a tick has work with it, ns."""
        if self.status == RefStatus.PENDING:
            return None if self.expires_at == ABSENT else self.expires_at
        return None if self.not_after in (ABSENT, INT64_MAX) else self.not_after + 1


class _Packing:
    """How the fields of a slot stand in its bytes."""

    def __init__(self, dtype: np.dtype) -> None:
        self.names = [name for name in dtype.names or () if name != "reserved"]
        kinds = [dtype[name] for name in self.names]
        self._texts = [name for name, kind in zip(self.names, kinds, strict=True) if kind.kind == "S"]
        self._absent = {name: b"" if kind.kind in "SV" else 0 for name, kind in zip(self.names, kinds, strict=True)}
        codes = "".join(f"{kind.itemsize}s" if kind.kind in "SV" else kind.char for kind in kinds)
        self._struct = struct.Struct(f"<{codes.replace('l', 'q').replace('L', 'Q')}")
        self._padding = bytes(dtype.itemsize - self._struct.size)

    def pack(self, values: dict[str, Any]) -> bytes:
        """A slot; what is not given is zero. Raises TypeError for a field that it does not have."""
        row = self._absent | values
        if len(row) != len(self.names):
            raise TypeError(f"no field of a slot: {sorted(row.keys() - self._absent)}")
        return self._struct.pack(*row.values()) + self._padding

    def unpack(self, record: bytes, at: int) -> dict[str, Any]:
        """Numbers as int, texts without their padding, other bytes as they are."""
        values = dict(zip(self.names, self._struct.unpack_from(record, at), strict=True))
        for name in self._texts:
            values[name] = values[name].rstrip(b"\0")
        return values


@cache
def _packing(dtype: np.dtype) -> _Packing:
    return _Packing(dtype)


class State:
    """Everything, and the events of the command being applied."""

    def __init__(self, limits: CoreLimits) -> None:
        self.limits = limits
        self.sequence = 0
        self.time = 0
        self.batch = 0
        self.batch_first = 1
        self.changes: Changes = {}
        """What the state hash has not taken in yet."""
        self.assets: Rows[Asset] = Rows(2, self.changes)
        self.markets: Rows[Market] = Rows(3, self.changes)
        self.accounts: Rows[Account] = Rows(4, self.changes)
        for name in (b"system:external", b"system:fees"):
            self.accounts.append(Account(name, Overdraft.OPEN))
        self.balances: Table[tuple[int, int], Balance] = Table(5, self.changes)
        self.orders: Table[int, Order] = Table(6, self.changes)
        """Open and waiting ones."""
        self.ids: Table[tuple[int, bytes], ClientId] = Table(7, self.changes)
        self.closed: dict[tuple[int, bytes], ClientId] = {}
        """Remembered client ids of all accounts, oldest first."""
        self.refs: Table[bytes, Ref] = Table(8, self.changes)
        self.poisons: Table[tuple[int, bytes], bool] = Table(10, self.changes)
        self.groups: set[bytes] = set()
        # the command being applied
        self.ts = 0
        self.op = 0
        self.fills = 0
        self.joins = 0
        self.exec_references: dict[int, int] = {}
        """By market that has traded: what its exec band is around until the command ends."""
        self.events: list[bytes] = []

    # ------------------------------------------------------------ look-ups

    def balance(self, account: int, asset: int) -> Balance:
        """The balance, opened at zero if it was never touched."""
        if (account, asset) not in self.balances:
            self.balances[account, asset] = Balance()
        return self.balances[account, asset]

    def available(self, account: int, asset: int) -> int:
        balance = self.balances.get((account, asset))
        return 0 if balance is None else balance.available

    def has_balance_room(self, count: int) -> bool:
        return self.limits.balances - len(self.balances) >= count

    def group(self, account: int) -> bytes | int:
        """Whom self-trade prevention takes for one: the account's group, or itself."""
        owner = self.accounts[account]
        return owner.stp_group if owner.mask & AccountMask.STP_GROUP else account

    def named(self, table: list[Any], name: bytes) -> int:
        """Index of the asset, market or account of that name, or NIL."""
        return next((index for index, entry in enumerate(table) if entry.name == name), NIL)

    # ------------------------------------------------------------ events

    def emit(
        self,
        dtype: np.dtype,
        kind: EventKind,
        *,
        account: int = NIL,
        market: int = NIL,
        reason: int = 0,
        extensions: bytes = b"",
        **values: Any,
    ) -> None:
        head = {
            "sequence": self.sequence, "ts": self.ts, "index": len(self.events), "account": account, "market": market,
            "kind": kind, "slots": 1 + len(extensions) // layout.SLOT_BYTES, "reason": reason, "op": self.op,
        }  # fmt: skip
        self.events.append(_packing(dtype).pack(head | values) + extensions)


def ceil_ppm(exact: int) -> int:
    """ceil(exact / 10^6)."""
    return -(-exact // MILLION)


def required_hold(market: Market, order: Order) -> int:
    """What the order holds: base of a sell, quote of a limit buy, nothing of a market or stop buy."""
    if order.side == Side.SELL:
        return order.leaves * market.u
    if not order.is_limited:
        return 0
    notional = order.price * order.leaves * market.k
    rate = max(order.taker_ppm, order.maker_ppm, 0)
    return notional + ceil_ppm(order.exact_fee + notional * rate) - ceil_ppm(order.exact_fee)


def saturated(at: int, wait: int) -> int:
    """`wait` ns after `at`, or the last time there is."""
    return min(at + wait, INT64_MAX)


def unpack(dtype: np.dtype, record: bytes, slot: int = 0) -> SimpleNamespace:
    """The fields of one slot of a record."""
    return SimpleNamespace(**_packing(dtype).unpack(record, slot * layout.SLOT_BYTES))


def extension(dtype: np.dtype, **values: Any) -> bytes:
    """One extension slot."""
    return _packing(dtype).pack(values)


def is_empty(text: bytes) -> bool:
    """Of a text of a record: whether there is none. Its first byte decides (layout.py)."""
    return text[:1] in (b"", b"\0")


def reject(
    s: State,
    reason: RejectCode,
    account: int = NIL,
    *,
    ref: bytes | None = None,
    client_id: bytes | None = None,
    order_id: int | None = None,
) -> None:
    flags, text = RejectedFlag(0), b""
    if ref is not None:
        flags, text = RejectedFlag.REF, ref
    elif client_id is not None:
        flags, text = RejectedFlag.CLIENT_ID, client_id
    elif order_id is not None:
        flags = RejectedFlag.ORDER_ID
    s.emit(
        layout.REJECTED, EventKind.REJECTED, account=account, reason=reason, order_id=order_id or 0, text=text,
        flags=flags,
    )  # fmt: skip


def words(text: bytes, count: int) -> tuple[int, ...]:
    """Zero-padded text as little-endian 64-bit words."""
    return struct.unpack(f"<{count}Q", text.ljust(8 * count, b"\0"))
