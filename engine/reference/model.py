"""What exists in the reference, how a record is read and how an event is written.

Texts are bytes without their padding, numbers plain int. Invariants are checked by ReferenceCore.check().
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
from sortedcontainers import SortedDict  # type: ignore[import-untyped]

from engine.limits import CoreLimits
from engine.messages import layout
from engine.messages.codes import ABSENT, NIL, EventKind, OrderStatus, OrderType, Overdraft, RefStatus, RejectCode, Side
from engine.messages.layout import AccountMask, RejectedFlag

__all__ = [
    "EXTERNAL", "FEES", "INT64_MAX", "MILLION", "TOTAL_LIMIT", "Account", "Asset", "Balance", "ClientId", "Market",
    "Move", "Order", "Ref", "State", "ceil_ppm", "extension", "reject", "required_hold", "saturated", "unpack", "words",
]  # fmt: skip

EXTERNAL, FEES = 0, 1
INT64_MAX = 2**63 - 1
TOTAL_LIMIT = 2**62
MILLION = 10**6


@dataclass(slots=True)
class Asset:
    name: bytes
    scale: int
    settled: int


@dataclass(slots=True)
class Account:
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
    poisons: set[bytes] = field(default_factory=set)
    orders: dict[int, Order] = field(default_factory=dict)
    """Open and waiting ones."""
    closed: dict[bytes, ClientId] = field(default_factory=dict)
    """Remembered client ids of its closed orders, oldest first."""


@dataclass(slots=True)
class Balance:
    available: int = 0
    held: int = 0


@dataclass(slots=True)
class Market:
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


@dataclass(slots=True, eq=False)
class Order:
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


@dataclass(slots=True)
class ClientId:
    """An id that answers. `order` while it is open or waiting; status and filled are of its end."""

    order_id: int
    account: int
    market: int
    client_id: bytes
    order: Order | None
    status: int = OrderStatus.OPEN
    filled: int = 0


@dataclass(frozen=True, slots=True)
class Move:
    """One posting."""

    source: int
    asset: int
    amount: int
    target: int


@dataclass(slots=True)
class Ref:
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


class State:
    """Everything, and the events of the command being applied."""

    def __init__(self, limits: CoreLimits) -> None:
        self.limits = limits
        self.sequence = 0
        self.time = 0
        self.batch = 0
        self.batch_first = 1
        self.assets: list[Asset] = []
        self.markets: list[Market] = []
        self.accounts = [
            Account(b"system:external", Overdraft.OPEN),
            Account(b"system:fees", Overdraft.OPEN),
        ]
        self.balances: dict[tuple[int, int], Balance] = {}
        self.orders: dict[int, Order] = {}
        self.ids: dict[tuple[int, bytes], ClientId] = {}
        self.closed: dict[tuple[int, bytes], ClientId] = {}
        """Remembered client ids of all accounts, oldest first."""
        self.refs: dict[bytes, Ref] = {}
        self.groups: set[bytes] = set()
        # the command being applied
        self.ts = 0
        self.op = 0
        self.fills = 0
        self.joins = 0
        self.exec_references: dict[int, int] = {}
        """By market that has traded: what its exec band is around until the command ends."""
        self.events: list[np.ndarray] = []

    # ------------------------------------------------------------ look-ups

    def balance(self, account: int, asset: int) -> Balance:
        """The balance, opened at zero if it was never touched."""
        return self.balances.setdefault((account, asset), Balance())

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
        slots = np.zeros(1 + len(extensions) // layout.SLOT_BYTES, layout.EVENT)
        record = slots[:1].view(dtype)
        head = {
            "sequence": self.sequence, "ts": self.ts, "index": len(self.events), "account": account, "market": market,
            "kind": kind, "slots": len(slots), "reason": reason, "op": self.op,
        }  # fmt: skip
        for name, value in {**head, **values}.items():
            record[name] = value
        slots[1:] = np.frombuffer(extensions, layout.EVENT)
        self.events.append(slots)


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
    at = slot * layout.SLOT_BYTES
    values = np.frombuffer(record[at : at + layout.SLOT_BYTES], dtype)[0].item()
    return SimpleNamespace(**dict(zip(dtype.names or (), values, strict=True)))


def extension(dtype: np.dtype, **values: Any) -> bytes:
    """One extension slot."""
    slot = np.zeros(1, dtype)
    for name, value in values.items():
        slot[name] = value
    return slot.tobytes()


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
