"""The binary records: commands (what the journal stores) and events (what the core answers).

Both come in slots of 128 bytes, little endian, so that one slot is two cache lines and a file of slots is a numpy
array. A record is one *head slot* and, where `slots` says so, extension slots right behind it: names, money legs and
other things that are rare or long never make the common record larger.

    command head slot                              event head slot
    0    crc32c     u32  over bytes 4 … slots*128  0    sequence  u64  of the command
    4    kind       u8   CommandKind               8    ts        i64  ns, of the command
    5    slots      u8   1 … 255                   16   index     u32  0, 1, 2 … within the command
    6    flags      u16  per kind, `*Flag` below   20   account   u32  index or NIL
    8    sequence   u64                            24   market    u32  index or NIL (balance, asset: the asset)
    16   ts         i64  ns since 1970, UTC        28   kind      u8   EventKind
    24   chain      u64  hash-chain word           29   slots     u8
    32 … 127        per kind                       30   reason    u8   RejectCode, CancelReason, PhaseReason …
                                                   31   op        u8   CommandKind that caused it
                                                   32 … 127       per kind

`crc32c`, `sequence`, `ts` and `chain` are written by the sequencer and the journal; the core reads sequence and ts.
Accounts, markets and assets are named in journal and events by their index: 0, 1, 2 … in the order in which the core
first accepted them (`system:external` is account 0, `system:fees` account 1). Names stand in the `done` events.
Text fields are ASCII, zero-padded; one whose first byte is zero is empty, whatever follows. Prices are ticks, sizes
lots, amounts units. ABSENT and INVALID: see codes.

A `trade` names orders, not client ids: a reader that wants client ids keeps those of the `accepted` events.

Every dtype here has itemsize 128, so any array of slots can be viewed as any of them.
"""

from __future__ import annotations

from enum import IntFlag

import numpy as np

__all__ = [
    "ACCOUNT", "ACCOUNT_EXTRA", "ACCEPTED", "ADDRESS_SLOT", "ASSET", "BALANCE", "CANCEL", "CANCEL_AFTER", "CANCELED",
    "COMMAND", "CUT", "DEPOSIT", "DONE_ACCOUNT", "DONE_ACCOUNT_EXTRA", "DONE_ASSET", "DONE_MARKET",
    "DONE_MARKET_EXTRA", "DUPLICATE", "EVENT", "LEG", "LEGS_PER_SLOT", "MARKET", "MARKET_EXTRA", "MASS_CANCEL",
    "MONEY_EVENT", "MONEY_META", "OPEN_ORDERS", "PARTS_PER_SLOT", "PART", "PHASE", "PHASE_CHANGED", "PLACE", "POISON",
    "POST", "PREVENTED", "REF_SLOT", "REFRESHED", "REJECTED", "REPLACE", "REPLACED", "SLOT_BYTES", "TRADE",
    "TRANSFER", "TRIGGERED", "UNCROSSED", "WITHDRAW", "AccountMask", "DuplicateFlag", "MarketMask", "MoneyFlag",
    "OrderFlag", "PlaceFlag", "RejectedFlag",
]  # fmt: skip

SLOT_BYTES = 128
PARTS_PER_SLOT = 4
LEGS_PER_SLOT = 4

_COMMAND_HEAD = [
    ("crc32c", "<u4"), ("kind", "u1"), ("slots", "u1"), ("flags", "<u2"),
    ("sequence", "<u8"), ("ts", "<i8"), ("chain", "<u8"),
]  # fmt: skip
_EVENT_HEAD = [
    ("sequence", "<u8"), ("ts", "<i8"), ("index", "<u4"), ("account", "<u4"), ("market", "<u4"),
    ("kind", "u1"), ("slots", "u1"), ("reason", "u1"), ("op", "u1"),
]  # fmt: skip


def _record(head: list[tuple[str, str]], fields: list[tuple[str, str]]) -> np.dtype:
    """A slot: `head`, then `fields` without gaps, then zero bytes up to 128."""
    used = np.dtype(head + fields).itemsize
    assert used <= SLOT_BYTES, (fields, used)
    padding = [("reserved", f"V{SLOT_BYTES - used}")] if used < SLOT_BYTES else []
    return np.dtype(head + fields + padding)


def _command(*fields: tuple[str, str]) -> np.dtype:
    return _record(_COMMAND_HEAD, list(fields))


def _event(*fields: tuple[str, str]) -> np.dtype:
    return _record(_EVENT_HEAD, list(fields))


def _extension(*fields: tuple[str, str]) -> np.dtype:
    return _record([], list(fields))


class PlaceFlag(IntFlag):
    POST_ONLY = 1
    BUDGET = 2
    """`size` holds quote units to spend, fees included."""
    HAS_OCO = 4
    """Extension slot: `oco_with` at 0 … 31."""
    NO_SIZE = 8
    """Neither size nor budget was given."""
    BOTH_SIZES = 16
    """Size and budget were both given."""


class OrderFlag(IntFlag):
    """Of cancel and replace."""

    BY_ORDER_ID = 1
    """The `client_id` field holds the order id in its first 8 bytes."""
    BOTH_IDS = 2


class MoneyFlag(IntFlag):
    FORCE = 1
    HAS_META = 2
    """Extension slot MONEY_META: code, memo."""
    HAS_ADDRESS = 4
    """Extension slot ADDRESS_SLOT, of withdraw."""
    PENDING = 8
    HAS_REF = 16
    """Of asset, account, market, phase: extension slot REF_SLOT, always the last."""


class MarketMask(IntFlag):
    """Which optional fields of a market command were given."""

    MIN_SIZE = 1
    MAX_SIZE = 2
    MAX_PRICE = 4
    TAKER_PPM = 8
    MAKER_PPM = 16
    ENTRY_BAND = 32
    EXEC_BAND = 64
    PAUSE = 128
    PHASE = 256
    REFERENCE_PRICE = 512


class AccountMask(IntFlag):
    """Which optional fields of an account command were given."""

    STATUS = 1
    OVERDRAFT = 2
    TAKER_PPM = 4
    MAKER_PPM = 8
    MAX_OPEN_ORDERS = 16
    ROW = 32
    STP_GROUP = 64


# ---------------------------------------------------------------- commands

COMMAND = _command()

ASSET = _command(("name", "S64"), ("scale", "u1"), ("settled", "u1"))

MARKET = _command(("name", "S64"), ("base", "<u4"), ("quote", "<u4"), ("mask", "<u4"), ("phase", "u1"))
"""Always followed by MARKET_EXTRA, then REF_SLOT where flagged."""

MARKET_EXTRA = _extension(
    ("tick", "<i8"), ("lot", "<i8"),  # tick = mantissa * 10^-decimals, likewise lot
    ("min_size", "<i8"), ("max_size", "<i8"), ("max_price", "<i8"),
    ("reference_price", "<i8"), ("pause_ns", "<i8"),
    ("entry_band_ppm", "<i8"), ("exec_band_ppm", "<i8"),
    ("taker_ppm", "<i4"), ("maker_ppm", "<i4"),
    ("tick_decimals", "u1"), ("lot_decimals", "u1"),
)  # fmt: skip
"""Sizes in lots and prices in ticks; INVALID where the text was no whole number of them."""

ACCOUNT = _command(
    ("name", "S64"), ("mask", "<u4"), ("taker_ppm", "<i4"), ("maker_ppm", "<i4"), ("max_open_orders", "<u4"),
    ("status", "u1"), ("overdraft", "u1"),
)  # fmt: skip
"""Followed by ACCOUNT_EXTRA if mask has ROW or STP_GROUP, then REF_SLOT where flagged."""

ACCOUNT_EXTRA = _extension(("row", "V32"), ("stp_group", "S64"))
"""`row` is the 32-byte chain address."""

DEPOSIT = _command(
    ("ref", "S64"), ("account", "<u4"), ("asset", "<u4"), ("amount", "<i8"), ("not_after", "<i8"),
    ("place", "<u4"),
)  # fmt: skip
"""`place` is 0 (`system:external`) where it was not given; NIL is an unknown name. Also in withdraw."""

WITHDRAW = _command(
    ("ref", "S64"), ("account", "<u4"), ("asset", "<u4"), ("amount", "<i8"), ("not_after", "<i8"),
    ("place", "<u4"), ("part_count", "<u2"), ("leg_count", "<u2"),
)  # fmt: skip
"""Extensions in this order: MONEY_META, ADDRESS_SLOT, then PART slots (the optional legs)."""

TRANSFER = _command(
    ("ref", "S64"), ("expires_at", "<i8"), ("not_after", "<i8"), ("part_count", "<u2"), ("leg_count", "<u2"),
)  # fmt: skip
"""Extensions: MONEY_META, then PART slots. A plain leg is one part; a leg with shares one part a share."""

POST = _command(("ref", "S64"), ("not_after", "<i8"))
"""Also void, withdraw_settled, withdraw_failed."""

PLACE = _command(
    ("account", "<u4"), ("market", "<u4"), ("client_id", "S32"), ("price", "<i8"), ("size", "<i8"),
    ("stop_price", "<i8"), ("display_size", "<i8"), ("expires_at", "<i8"), ("session", "<u8"),
    ("side", "u1"), ("type", "u1"), ("tif", "u1"), ("stp", "u1"),
)  # fmt: skip
"""`session` is the first 8 bytes of SHA-256 of the session's name, little endian; 0 is none."""

CANCEL = _command(("account", "<u4"), ("spare", "<u4"), ("client_id", "S32"))

REPLACE = _command(
    ("account", "<u4"), ("spare", "<u4"), ("client_id", "S32"), ("price", "<i8"), ("size", "<i8"),
    ("stop_price", "<i8"), ("new_client_id", "S32"),
)  # fmt: skip

MASS_CANCEL = _command(("account", "<u4"), ("market", "<u4"), ("session", "<u8"), ("side", "u1"), ("given", "u1"))
"""`side` 255 is absent. `given`: bit 0 account, 1 market, so that an unknown name is not taken for an absent one."""

PHASE = _command(("market", "<u4"), ("phase", "u1"), ("pad", "V3"), ("reference_price", "<i8"))
"""Also uncross, which has the market alone."""

CANCEL_AFTER = _command(("account", "<u4"), ("spare", "<u4"), ("at", "<i8"))
"""Also kill and rearm, which have the account alone."""

POISON = _command(("account", "<u4"), ("spare", "<u4"), ("client_id", "S32"))

PART = np.dtype(
    [
        ("source", "<u4"), ("asset", "<u4"), ("amount", "<i8"), ("target", "<u4"), ("weight", "<u4"),
        ("leg", "<u2"), ("is_share", "u1"), ("reserved", "V5"),
    ]
)  # fmt: skip
"""32 bytes, four a slot. `amount` is the whole leg's; parts of one leg stand together and share `leg`."""

MONEY_META = _extension(("code", "S16"), ("memo", "S64"))
ADDRESS_SLOT = _extension(("address", "S128"))
REF_SLOT = _extension(("ref", "S64"), ("not_after", "<i8"))

# ---------------------------------------------------------------- events


class RejectedFlag(IntFlag):
    ORDER_ID = 1
    CLIENT_ID = 2
    REF = 4


class DuplicateFlag(IntFlag):
    ORDER = 0
    REF = 1


EVENT = _event()

ACCEPTED = _event(
    ("order_id", "<u8"), ("client_id", "S32"), ("price", "<i8"), ("size", "<i8"), ("hold", "<i8"),
    ("stop_price", "<i8"), ("display_size", "<i8"), ("expires_at", "<i8"),
    ("side", "u1"), ("type", "u1"), ("tif", "u1"), ("flags", "u1"),
)  # fmt: skip
"""`flags`: PlaceFlag.BUDGET, POST_ONLY. ABSENT where a field has no meaning."""

REJECTED = _event(("order_id", "<u8"), ("text", "S64"), ("flags", "u1"))
"""`reason` of the head is the RejectCode, `op` the command. `text`: client id or ref, by RejectedFlag."""

DUPLICATE = _event(("order_id", "<u8"), ("text", "S64"), ("filled", "<i8"), ("status", "u1"), ("flags", "u1"))
"""Of an order: OrderStatus, lots filled as of now (of a budget order: quote units spent).

Of a ref: `order_id` is the first sequence, `status` a RefStatus.
"""

DONE_ASSET = _event(("name", "S64"), ("scale", "u1"), ("settled", "u1"))
"""`done` answering asset: the asset's index is in `market` of the head."""

DONE_MARKET = _event(
    ("name", "S64"), ("base", "<u4"), ("quote", "<u4"), ("k", "<i8"), ("u", "<i8"), ("phase", "u1"),
)  # fmt: skip
"""`done` answering market, then DONE_MARKET_EXTRA. k: quote units of one tick × lot; u: base units of one lot."""

DONE_MARKET_EXTRA = MARKET_EXTRA

DONE_ACCOUNT = _event(
    ("name", "S64"), ("taker_ppm", "<i4"), ("maker_ppm", "<i4"), ("max_open_orders", "<u4"), ("mask", "<u4"),
    ("status", "u1"), ("overdraft", "u1"),
)  # fmt: skip
"""`done` answering account, followed by DONE_ACCOUNT_EXTRA: the whole account as it now is (mask: what it has set)."""

DONE_ACCOUNT_EXTRA = ACCOUNT_EXTRA

TRADE = _event(
    ("taker_account", "<u4"), ("aggressor", "u1"), ("buyer", "u1"), ("pad", "V2"),
    ("trade_id", "<u8"), ("price", "<i8"), ("size", "<i8"), ("notional", "<i8"),
    ("maker_order_id", "<u8"), ("maker_leaves", "<i8"), ("maker_fee", "<i8"),
    ("taker_order_id", "<u8"), ("taker_leaves", "<i8"), ("taker_fee", "<i8"),
    ("released", "<i8"),
)  # fmt: skip
"""`account` of the head is the maker's. `released` is the buyer's (`buyer`: 0 maker, 1 taker); a seller's is 0."""

CANCELED = _event(("order_id", "<u8"), ("client_id", "S32"), ("leaves", "<i8"), ("released", "<i8"))

REPLACED = _event(
    ("order_id", "<u8"), ("client_id", "S32"), ("price", "<i8"), ("size", "<i8"), ("leaves", "<i8"),
    ("hold", "<i8"), ("released", "<i8"), ("priority_kept", "u1"), ("pad", "V7"), ("stop_price", "<i8"),
)  # fmt: skip
"""`stop_price`, ABSENT if it has none, is for those who keep orders: the JSON event does not show it."""

TRIGGERED = _event(("order_id", "<u8"), ("stop_price", "<i8"), ("trigger_price", "<i8"), ("trigger_sequence", "<u8"))
REFRESHED = _event(("order_id", "<u8"), ("display_size", "<i8"))

PREVENTED = _event(
    ("taker_account", "<u4"), ("mode", "u1"), ("pad", "V3"), ("price", "<i8"), ("size", "<i8"),
    ("maker_order_id", "<u8"), ("maker_leaves", "<i8"), ("maker_released", "<i8"),
    ("taker_order_id", "<u8"), ("taker_leaves", "<i8"), ("taker_released", "<i8"),
)  # fmt: skip

BALANCE = _event(("available", "<i8"), ("held", "<i8"), ("cause", "u1"))
"""`market` of the head is the asset. `cause`: the CommandKind, 0 for expired."""

MONEY_EVENT = _event(
    ("ref", "S64"), ("code", "S16"), ("leg_count", "<u2"), ("cause", "u1"), ("has_memo", "u1"),
)  # fmt: skip
"""transferred, pended, posted, voided. Extensions: MONEY_META if has_memo, then LEG slots. `cause` 1: expired."""

LEG = np.dtype([("source", "<u4"), ("asset", "<u4"), ("amount", "<i8"), ("target", "<u4"), ("reserved", "V12")])
"""32 bytes, four a slot: one posting, after splitting."""

PHASE_CHANGED = _event(("phase", "u1"), ("pad", "V7"), ("reference_price", "<i8"))
"""`reason` of the head is the PhaseReason. `reference_price`: what bands and an uncross go by now; ABSENT: none."""

UNCROSSED = _event(("price", "<i8"), ("size", "<i8"), ("imbalance", "<i8"))
"""`price` ABSENT, size and imbalance 0 where nothing crossed. Imbalance: buy minus sell at that price, lots."""

CUT = _event(("batch", "<u8"), ("first_sequence", "<u8"), ("last_sequence", "<u8"), ("state_hash", "V16"))

# ---------------------------------------------------------------- what is there now

OPEN_ORDERS = np.dtype(
    [
        ("order_id", "<u8"), ("account", "<u4"), ("market", "<u4"), ("client_id", "S32"), ("price", "<i8"),
        ("size", "<i8"), ("leaves", "<i8"), ("hold", "<i8"), ("join", "<u8"), ("session", "<u8"),
        ("side", "u1"), ("type", "u1"), ("tif", "u1"), ("flags", "u1"), ("status", "u1"), ("pad", "V3"),
        ("stop_price", "<i8"), ("display_size", "<i8"), ("displayed", "<i8"), ("expires_at", "<i8"), ("oco", "<u8"),
    ]
)  # fmt: skip
"""An open or waiting order, as a core's `open_orders` tells it. `hold` is its own, `oco` its partner's order id or 0.

`displayed` is what depth counts: leaves of what is no iceberg, 0 while waiting. `status`: OrderStatus.
"""

assert all(
    dtype.itemsize == SLOT_BYTES
    for dtype in (
        COMMAND, ASSET, MARKET, MARKET_EXTRA, ACCOUNT, ACCOUNT_EXTRA, DEPOSIT, WITHDRAW, TRANSFER, POST, PLACE,
        CANCEL, REPLACE, MASS_CANCEL, PHASE, CANCEL_AFTER, POISON, MONEY_META, ADDRESS_SLOT, REF_SLOT, EVENT,
        ACCEPTED, REJECTED, DUPLICATE, DONE_ASSET, DONE_MARKET, DONE_ACCOUNT, TRADE, CANCELED, REPLACED, TRIGGERED,
        REFRESHED, PREVENTED, BALANCE, MONEY_EVENT, PHASE_CHANGED, UNCROSSED, CUT,
    )
)  # fmt: skip
assert PART.itemsize * PARTS_PER_SLOT == SLOT_BYTES == LEG.itemsize * LEGS_PER_SLOT
