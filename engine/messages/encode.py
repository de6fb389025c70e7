"""Commands as JSON objects, made into the binary records of `layout`.

Owns the first gate: what is no valid command at all (op, unknown or missing field, JSON type, name, a word out of its
list unless type or tif) raises Malformed, naming field and rule. All else is encoded faithfully and judged by the
core: a decimal that is no whole number of ticks, lots or units becomes INVALID, a name that the directory does not know
becomes NIL, an order type or tif out of the list UNKNOWN. Nothing is rounded and nothing is filled in, but for
`place`, which is `system:external` if absent.

`null` is absent. `crc32c`, `sequence` and `chain` are left zero for sequencer and journal; `ts` is the object's, or 0.
Worst case: a transfer of PARTS_MAX parts; anything longer is malformed.
"""

from __future__ import annotations

import hashlib
import re
import struct
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from engine.messages import layout
from engine.messages.codes import (
    ABSENT,
    INVALID,
    NIL,
    AccountStatus,
    CommandKind,
    OrderType,
    Overdraft,
    Phase,
    SelfTrade,
    Side,
    TimeInForce,
    Word,
)
from engine.messages.decimals import parse_decimal, steps_of
from engine.messages.directory import AssetEntry, Directory, MarketEntry
from engine.messages.layout import AccountMask, MarketMask, MoneyFlag, OrderFlag, PlaceFlag

__all__ = ["PARTS_MAX", "CommandEncoder", "HasMarket", "Malformed", "OrderMarkets", "place_record", "session_word"]

PARTS_MAX = 252 * layout.PARTS_PER_SLOT
"""Parts of one record: 255 slots less head, meta and address."""

_INT64_MAX = 2**63 - 1
_NAME = re.compile(r"[A-Za-z0-9_.:-]{1,64}", re.ASCII)
_CLIENT_ID = re.compile(r"[A-Za-z0-9_.:-]{1,32}", re.ASCII)
_CODE = re.compile(r"[A-Za-z0-9_.:-]{1,16}", re.ASCII)
_PRINTABLE = re.compile(r"[\x20-\x7e]*", re.ASCII)
_ROW = re.compile(r"0x[0-9a-f]{64}", re.ASCII | re.IGNORECASE)

_HEAD = struct.Struct("<IBBHQqQ")
_PLACE = struct.Struct("<IBBHQqQ II32sqqqqqQBBBB4x")
_PART = struct.Struct("<IIqIIHB5x")

_TERMS = ("tick", "lot", "min_size", "max_size", "max_price", "taker_ppm", "maker_ppm", "entry_band_ppm",
          "exec_band_ppm", "pause_ns", "phase", "reference_price")  # fmt: skip
_REF = ("ref", "not_after")
_META = ("force", "not_after", "code", "memo")

_FIELDS: dict[CommandKind, tuple[tuple[str, ...], tuple[str, ...]]] = {
    CommandKind.ASSET: (("asset", "scale"), ("settled", *_REF)),
    CommandKind.MARKET: (("market", "base", "quote", "tick", "lot"), (*_TERMS[2:], *_REF)),
    CommandKind.ACCOUNT: (
        ("account",),
        ("status", "overdraft", "row", "taker_ppm", "maker_ppm", "stp_group", "limits", *_REF),
    ),
    CommandKind.DEPOSIT: (("account", "asset", "amount", "ref"), ("place", *_META)),
    CommandKind.WITHDRAW: (("account", "asset", "amount", "ref"), ("place", "legs", "address", *_META)),
    CommandKind.TRANSFER: (("ref",), ("legs", "from", "asset", "amount", "shares", "pending", "expires_at", *_META)),
    CommandKind.POST: (("ref",), ("not_after",)),
    CommandKind.VOID: (("ref",), ("not_after",)),
    CommandKind.WITHDRAW_SETTLED: (("ref",), ("not_after",)),
    CommandKind.WITHDRAW_FAILED: (("ref",), ("not_after",)),
    CommandKind.PLACE: (
        ("account", "market", "client_id", "side", "type"),
        ("size", "budget", "price", "stop_price", "tif", "expires_at", "post_only", "display_size", "stp", "oco_with",
         "session"),
    ),
    CommandKind.CANCEL: (("account",), ("order_id", "client_id")),
    CommandKind.REPLACE: (("account",), ("order_id", "client_id", "price", "size", "stop_price", "new_client_id")),
    CommandKind.MASS_CANCEL: ((), ("account", "market", "side", "session")),
    CommandKind.PHASE: (("market", "phase"), ("reference_price", *_REF)),
    CommandKind.UNCROSS: (("market",), ()),
    CommandKind.KILL: (("account",), ()),
    CommandKind.REARM: (("account",), ()),
    CommandKind.CANCEL_AFTER: (("account", "at"), ()),
    CommandKind.POISON: (("account", "client_id"), ()),
    CommandKind.TICK: ((), ()),
    CommandKind.CUT: ((), ()),
}  # fmt: skip
_REQUIRED = {kind: required for kind, (required, _) in _FIELDS.items()}
_ALLOWED = {kind: frozenset((*required, *optional, "op", "ts")) for kind, (required, optional) in _FIELDS.items()}
_KINDS = {kind.word: kind for kind in _FIELDS}


class Malformed(ValueError):
    """A line that is no valid command. `field` is the JSON field, `rule` what it must be."""

    def __init__(self, field: str, rule: str) -> None:
        super().__init__(f"{field}: {rule}")
        self.field = field
        self.rule = rule


def session_word(name: str) -> int:
    """The session of a place or mass_cancel record: the first 8 bytes of SHA-256 of its name."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little")


def place_record(
    account: int,
    market: int,
    client_id: bytes,
    side: int,
    type: int,
    tif: int,
    price: int,
    size: int,
    *,
    flags: int = 0,
    stp: int = 0,
    session: int = 0,
    stop_price: int = ABSENT,
    display_size: int = ABSENT,
    expires_at: int = ABSENT,
    ts: int = 0,
    slots: int = 1,
) -> bytearray:
    """A place record from numbers: prices in ticks, sizes in lots (with PlaceFlag.BUDGET quote units). No checks."""
    record = bytearray(slots * layout.SLOT_BYTES)
    _PLACE.pack_into(
        record, 0, 0, CommandKind.PLACE, slots, flags, 0, ts, 0, account, market, client_id, price, size, stop_price,
        display_size, expires_at, session, side, type, tif, stp,
    )  # fmt: skip
    return record


class HasMarket(Protocol):
    """An open order, as far as a replace must know it."""

    @property
    def market(self) -> int:
        """Its index."""


class OrderMarkets(Protocol):
    """Who knows the market of an open order; `engine.messages.open_orders.OpenOrders` is one."""

    def find(self, account: int, order_id: int | None, client_id: str | None, /) -> HasMarket | None:
        """The account's open order of that id, or else of that client id."""


class CommandEncoder:
    """Encodes against one Directory, which its owner keeps learning.

    A replace names no market; `orders` tells the market of the order it names. Without it the price and size of a
    replace become INVALID.
    """

    __slots__ = ("_directory", "_makers", "_orders")

    def __init__(self, directory: Directory, orders: OrderMarkets | None = None) -> None:
        self._directory = directory
        self._orders = orders
        self._makers: dict[CommandKind, Callable[[CommandKind, Mapping[str, Any]], bytearray]] = {
            CommandKind.ASSET: self._asset,
            CommandKind.MARKET: self._market,
            CommandKind.ACCOUNT: self._account,
            CommandKind.DEPOSIT: self._direct,
            CommandKind.WITHDRAW: self._direct,
            CommandKind.TRANSFER: self._transfer,
            CommandKind.POST: self._post,
            CommandKind.VOID: self._post,
            CommandKind.WITHDRAW_SETTLED: self._post,
            CommandKind.WITHDRAW_FAILED: self._post,
            CommandKind.PLACE: self._place,
            CommandKind.CANCEL: self._cancel,
            CommandKind.REPLACE: self._replace,
            CommandKind.MASS_CANCEL: self._mass_cancel,
            CommandKind.PHASE: self._phase,
            CommandKind.UNCROSS: self._phase,
            CommandKind.KILL: self._account_only,
            CommandKind.REARM: self._account_only,
            CommandKind.CANCEL_AFTER: self._account_only,
            CommandKind.POISON: self._account_only,
            CommandKind.TICK: self._bare,
            CommandKind.CUT: self._bare,
        }

    def encode(self, command: Mapping[str, Any]) -> bytearray:
        """The record of one command: one head slot and its extensions.

        Raises:
            Malformed: the object is no valid command.
        """
        if not isinstance(command, Mapping):
            raise Malformed("command", "must be a JSON object")
        op = command.get("op")
        if not isinstance(op, str):
            raise Malformed("op", "must be a string")
        kind = _KINDS.get(op)
        if kind is None:
            raise Malformed("op", f"is not a command: {op[:64]!r}")
        allowed = _ALLOWED[kind]
        for field in command:
            if field not in allowed:
                raise Malformed(str(field)[:64], f"is not a field of {op}")
        for field in _REQUIRED[kind]:
            if command.get(field) is None:
                raise Malformed(field, f"is required by {op}")
        record = self._makers[kind](kind, command)
        ts = _integer(command, "ts")
        if ts is not None:
            if not ABSENT < ts <= _INT64_MAX:
                raise Malformed("ts", "must be nanoseconds that fit int64")
            struct.pack_into("<q", record, 16, ts)
        return record

    @staticmethod
    def malformed() -> bytearray:
        """The record of a line that is no command but takes a sequence (replay door)."""
        return _record(CommandKind.MALFORMED, 0, 1)

    # ------------------------------------------------------------ orders

    def _place(self, kind: CommandKind, command: Mapping[str, Any]) -> bytearray:
        market = self._directory.markets_by_name.get(_name(command, "market"))
        side = _word(command, "side", Side)
        type_ = _listed(command, "type", OrderType, OrderType.UNKNOWN)
        tif = _listed(command, "tif", TimeInForce, TimeInForce.UNKNOWN)
        assert side is not None and type_ is not None  # required fields
        flags = PlaceFlag.POST_ONLY if _flag(command, "post_only") else PlaceFlag(0)
        size = _steps(command, "size", None if market is None else market.lots)
        budget = _steps(command, "budget", None if market is None else market.quote.units)
        if budget is not None:
            flags |= PlaceFlag.BUDGET | (PlaceFlag.BOTH_SIZES if size is not None else PlaceFlag(0))
            size = budget
        elif size is None:
            flags |= PlaceFlag.NO_SIZE
        partner = _text(command, "oco_with", _CLIENT_ID)
        if partner is not None:
            flags |= PlaceFlag.HAS_OCO
        session = _text(command, "session", _NAME)
        record = place_record(
            self._account_index(command, "account"),
            NIL if market is None else market.index,
            _client_id(command, "client_id"),
            side,
            type_,
            TimeInForce.DEFAULT if tif is None else tif,
            _or_absent(_steps(command, "price", None if market is None else market.ticks)),
            _or_absent(size),
            flags=flags,
            stp=_word(command, "stp", SelfTrade) or 0,
            session=0 if session is None else session_word(session),
            stop_price=_or_absent(_steps(command, "stop_price", None if market is None else market.ticks)),
            display_size=_or_absent(_steps(command, "display_size", None if market is None else market.lots)),
            expires_at=_or_absent(_time(command, "expires_at")),
            slots=1 if partner is None else 2,
        )
        if partner is not None:
            record[layout.SLOT_BYTES : layout.SLOT_BYTES + len(partner)] = partner.encode()
        return record

    def _cancel(self, kind: CommandKind, command: Mapping[str, Any]) -> bytearray:
        flags, name = _order_name(command)
        record = _record(kind, flags, 1)
        struct.pack_into("<II32s", record, 32, self._account_index(command, "account"), 0, name)
        return record

    def _replace(self, kind: CommandKind, command: Mapping[str, Any]) -> bytearray:
        flags, name = _order_name(command)
        if all(command.get(field) is None for field in ("price", "size", "stop_price", "new_client_id")):
            raise Malformed("price", "replace needs at least one of price, size, stop_price, new_client_id")
        new_client_id = b"" if command.get("new_client_id") is None else _client_id(command, "new_client_id")
        market = self._market_of(command)
        record = _record(kind, flags, 1)
        struct.pack_into(
            "<II32sqqq32s", record, 32, self._account_index(command, "account"), 0, name,
            _or_absent(_steps(command, "price", None if market is None else market.ticks)),
            _or_absent(_steps(command, "size", None if market is None else market.lots)),
            _or_absent(_steps(command, "stop_price", None if market is None else market.ticks)), new_client_id,
        )  # fmt: skip
        return record

    def _mass_cancel(self, kind: CommandKind, command: Mapping[str, Any]) -> bytearray:
        side = _word(command, "side", Side)
        session = _text(command, "session", _NAME)
        has_account, has_market = command.get("account") is not None, command.get("market") is not None
        record = _record(kind, 0, 1)
        struct.pack_into(
            "<IIQBB", record, 32,
            self._account_index(command, "account") if has_account else NIL,
            self._market_index(command) if has_market else NIL,
            0 if session is None else session_word(session),
            255 if side is None else side,
            has_account | has_market << 1,
        )  # fmt: skip
        return record

    # ------------------------------------------------------------ money

    def _direct(self, kind: CommandKind, command: Mapping[str, Any]) -> bytearray:
        asset = self._directory.assets_by_name.get(_name(command, "asset"))
        flags, extension = _meta(command)
        parts: list[bytes] = []
        leg_count = 0
        if kind is CommandKind.WITHDRAW:
            address = command.get("address")
            if address is not None:
                if not isinstance(address, str) or not 1 <= len(address) <= 128 or not _PRINTABLE.fullmatch(address):
                    raise Malformed("address", "must be 1-128 printable ASCII characters")
                flags |= MoneyFlag.HAS_ADDRESS
                extension += struct.pack("128s", address.encode())
            legs = command.get("legs")
            if legs is not None:
                parts = self._legs(legs)
                leg_count = len(legs)
        record = _with_parts(kind, flags, extension, parts)
        struct.pack_into(
            "<64sIIqqIHH", record, 32, _name(command, "ref").encode(), self._account_index(command, "account"),
            NIL if asset is None else asset.index, _units(command, "amount", asset),
            _or_absent(_time(command, "not_after")),
            0 if command.get("place") is None else self._account_index(command, "place"), len(parts), leg_count,
        )  # fmt: skip
        return record

    def _transfer(self, kind: CommandKind, command: Mapping[str, Any]) -> bytearray:
        legs = command.get("legs")
        single = {field: command[field] for field in ("from", "asset", "amount", "shares")
                  if command.get(field) is not None}  # fmt: skip
        if legs is None:
            if len(single) != 4:
                raise Malformed("legs", "is required, or from, asset, amount and shares as the one leg")
            legs = [single]
        elif single:
            raise Malformed(next(iter(single)), "cannot stand beside legs")
        flags, extension = _meta(command)
        if _flag(command, "pending"):
            flags |= MoneyFlag.PENDING
        parts = self._legs(legs)
        record = _with_parts(kind, flags, extension, parts)
        struct.pack_into(
            "<64sqqHH", record, 32, _name(command, "ref").encode(), _or_absent(_time(command, "expires_at")),
            _or_absent(_time(command, "not_after")), len(parts), len(legs),
        )  # fmt: skip
        return record

    def _post(self, kind: CommandKind, command: Mapping[str, Any]) -> bytearray:
        record = _record(kind, 0, 1)
        struct.pack_into(
            "<64sq", record, 32, _name(command, "ref").encode(), _or_absent(_time(command, "not_after"))
        )
        return record

    def _legs(self, legs: Any) -> list[bytes]:
        """PART records. A leg with shares is one part a share; empty shares are one part of weight 0, to be refused."""
        if not isinstance(legs, Sequence) or isinstance(legs, str | bytes):
            raise Malformed("legs", "must be an array")
        parts: list[bytes] = []
        for number, leg in enumerate(legs):
            at = f"legs[{number}]"
            _object(leg, at, ("from", "asset", "amount"), ("to", "shares"))
            if (leg.get("to") is None) == (leg.get("shares") is None):
                raise Malformed(at, "must have either to or shares")
            source = self._account_index(leg, "from", at)
            asset = self._directory.assets_by_name.get(_name(leg, "asset", at))
            asset_index, amount = NIL if asset is None else asset.index, _units(leg, "amount", asset, at)
            if leg.get("to") is not None:
                target = self._account_index(leg, "to", at)
                parts.append(_PART.pack(source, asset_index, amount, target, 0, number, 0))
            else:
                for target, weight in self._shares(leg["shares"], f"{at}.shares") or [(source, 0)]:
                    parts.append(_PART.pack(source, asset_index, amount, target, weight, number, 1))
            if len(parts) > PARTS_MAX:
                raise Malformed("legs", f"must not have more than {PARTS_MAX} legs and shares")
        return parts

    def _shares(self, shares: Any, at: str) -> list[tuple[int, int]]:
        if not isinstance(shares, Sequence) or isinstance(shares, str | bytes):
            raise Malformed(at, "must be an array")
        result = []
        for number, share in enumerate(shares):
            where = f"{at}[{number}]"
            _object(share, where, ("to", "weight"), ())
            weight = _integer(share, "weight", where)
            assert weight is not None
            target = self._account_index(share, "to", where)
            result.append((target, weight if 0 <= weight < 2**31 else NIL))
        return result

    # ------------------------------------------------------------ entities

    def _asset(self, kind: CommandKind, command: Mapping[str, Any]) -> bytearray:
        scale = _integer(command, "scale")
        assert scale is not None
        record = _with_ref(kind, command, b"")
        struct.pack_into(
            "<64sBB", record, 32, _name(command, "asset").encode(), scale if 0 <= scale < 255 else 255,
            _flag(command, "settled"),
        )  # fmt: skip
        return record

    def _market(self, kind: CommandKind, command: Mapping[str, Any]) -> bytearray:
        tick, tick_decimals = _step(command, "tick")
        lot, lot_decimals = _step(command, "lot")

        def ticks(text: str) -> int:
            return steps_of(text, tick, tick_decimals)

        def lots(text: str) -> int:
            return steps_of(text, lot, lot_decimals)

        phase = _word(command, "phase", Phase)
        values = {
            MarketMask.MIN_SIZE: _steps(command, "min_size", lots),
            MarketMask.MAX_SIZE: _steps(command, "max_size", lots),
            MarketMask.MAX_PRICE: _steps(command, "max_price", ticks),
            MarketMask.REFERENCE_PRICE: _steps(command, "reference_price", ticks),
            MarketMask.PAUSE: _time(command, "pause_ns"),
            MarketMask.ENTRY_BAND: _time(command, "entry_band_ppm"),
            MarketMask.EXEC_BAND: _time(command, "exec_band_ppm"),
            MarketMask.TAKER_PPM: _ppm(command, "taker_ppm"),
            MarketMask.MAKER_PPM: _ppm(command, "maker_ppm"),
            MarketMask.PHASE: phase,
        }
        mask = sum(flag for flag, value in values.items() if value is not None)
        del values[MarketMask.PHASE]
        *wide, taker_ppm, maker_ppm = values.values()
        extra = struct.pack(
            "<9qiiBB46x", tick, lot, *map(_or_absent, wide), taker_ppm or 0, maker_ppm or 0, tick_decimals, lot_decimals
        )
        record = _with_ref(kind, command, extra)
        struct.pack_into(
            "<64sIIIB", record, 32, _name(command, "market").encode(), self._asset_index(command, "base"),
            self._asset_index(command, "quote"), mask, phase or 0,
        )  # fmt: skip
        return record

    def _account(self, kind: CommandKind, command: Mapping[str, Any]) -> bytearray:
        status = _word(command, "status", AccountStatus)
        overdraft = _word(command, "overdraft", Overdraft)
        taker_ppm, maker_ppm = _ppm(command, "taker_ppm"), _ppm(command, "maker_ppm")
        max_open_orders = None
        limits = command.get("limits")
        if limits is not None:
            _object(limits, "limits", (), ("max_open_orders",))
            max_open_orders = _integer(limits, "max_open_orders", "limits")
            if max_open_orders is not None and not 0 <= max_open_orders < NIL:
                raise Malformed("limits.max_open_orders", f"must be 0-{NIL - 1}")
        row = _text(command, "row", _ROW, "must be 0x and 64 hexadecimal digits")
        group = _text(command, "stp_group", _NAME)
        given = {
            AccountMask.STATUS: status, AccountMask.OVERDRAFT: overdraft, AccountMask.TAKER_PPM: taker_ppm,
            AccountMask.MAKER_PPM: maker_ppm, AccountMask.MAX_OPEN_ORDERS: max_open_orders, AccountMask.ROW: row,
            AccountMask.STP_GROUP: group,
        }  # fmt: skip
        extra = b""
        if row is not None or group is not None:
            extra = struct.pack("32s64s32x", bytes.fromhex((row or "0x")[2:]), (group or "").encode())
        record = _with_ref(kind, command, extra)
        struct.pack_into(
            "<64sIiiIBB", record, 32, _name(command, "account").encode(),
            sum(flag for flag, value in given.items() if value is not None), taker_ppm or 0, maker_ppm or 0,
            max_open_orders or 0, status or 0, overdraft or 0,
        )  # fmt: skip
        return record

    def _phase(self, kind: CommandKind, command: Mapping[str, Any]) -> bytearray:
        market = self._directory.markets_by_name.get(_name(command, "market"))
        phase = _word(command, "phase", Phase)
        price = _steps(command, "reference_price", None if market is None else market.ticks)
        record = _with_ref(kind, command, b"")
        struct.pack_into(
            "<IB3xq", record, 32, NIL if market is None else market.index, phase or 0, _or_absent(price)
        )
        return record

    def _account_only(self, kind: CommandKind, command: Mapping[str, Any]) -> bytearray:
        record = _record(kind, 0, 1)
        struct.pack_into("<II", record, 32, self._account_index(command, "account"), 0)
        if kind is CommandKind.CANCEL_AFTER:
            struct.pack_into("<q", record, 40, _or_absent(_time(command, "at")))
        elif kind is CommandKind.POISON:
            struct.pack_into("32s", record, 40, _client_id(command, "client_id"))
        return record

    def _bare(self, kind: CommandKind, command: Mapping[str, Any]) -> bytearray:
        return _record(kind, 0, 1)

    # ------------------------------------------------------------ names to indices

    def _account_index(self, source: Mapping[str, Any], field: str, at: str = "") -> int:
        entry = self._directory.accounts_by_name.get(_name(source, field, at))
        return NIL if entry is None else entry.index

    def _asset_index(self, command: Mapping[str, Any], field: str) -> int:
        entry = self._directory.assets_by_name.get(_name(command, field))
        return NIL if entry is None else entry.index

    def _market_of(self, command: Mapping[str, Any]) -> MarketEntry | None:
        """The market of the open order that a replace names."""
        account = self._account_index(command, "account")
        if self._orders is None or account == NIL:
            return None
        order = self._orders.find(account, command.get("order_id"), command.get("client_id"))
        return None if order is None else self._directory.markets[order.market]

    def _market_index(self, command: Mapping[str, Any]) -> int:
        entry = self._directory.markets_by_name.get(_name(command, "market"))
        return NIL if entry is None else entry.index


# ---------------------------------------------------------------- records


def _record(kind: CommandKind, flags: int, slots: int) -> bytearray:
    record = bytearray(slots * layout.SLOT_BYTES)
    _HEAD.pack_into(record, 0, 0, kind, slots, flags, 0, 0, 0)
    return record


def _with_parts(kind: CommandKind, flags: int, extension: bytes, parts: list[bytes]) -> bytearray:
    payload = extension + b"".join(parts)
    record = _record(kind, flags, 1 + -(-len(payload) // layout.SLOT_BYTES))
    record[layout.SLOT_BYTES : layout.SLOT_BYTES + len(payload)] = payload
    return record


def _with_ref(kind: CommandKind, command: Mapping[str, Any], extension: bytes) -> bytearray:
    ref = _text(command, "ref", _NAME)
    not_after = _time(command, "not_after")
    if ref is None:
        if not_after is not None:
            raise Malformed("not_after", "needs a ref")
        return _with_parts(kind, 0, extension, [])
    slot = struct.pack("<64sq56x", ref.encode(), _or_absent(not_after))
    return _with_parts(kind, MoneyFlag.HAS_REF, extension + slot, [])


def _meta(command: Mapping[str, Any]) -> tuple[int, bytes]:
    flags = MoneyFlag.FORCE if _flag(command, "force") else MoneyFlag(0)
    code = _text(command, "code", _CODE, "must be 1-16 of A-Z a-z 0-9 _ - . :")
    memo = command.get("memo")
    if memo is not None and (not isinstance(memo, str) or len(memo) > 64 or not _PRINTABLE.fullmatch(memo)):
        raise Malformed("memo", "must be at most 64 printable ASCII characters")
    if not code and not memo:
        return flags, b""
    return flags | MoneyFlag.HAS_META, struct.pack("16s64s48x", (code or "").encode(), (memo or "").encode())


def _order_name(command: Mapping[str, Any]) -> tuple[int, bytes]:
    order_id = _integer(command, "order_id")
    client_id = None if command.get("client_id") is None else _client_id(command, "client_id")
    if order_id is None:
        if client_id is None:
            raise Malformed("order_id", "is required, or client_id")
        return 0, client_id
    flags = OrderFlag.BY_ORDER_ID | (OrderFlag.BOTH_IDS if client_id is not None else OrderFlag(0))
    return flags, (order_id if 0 <= order_id < 2**64 else 0).to_bytes(8, "little")  # no order has id 0


# ---------------------------------------------------------------- fields


def _integer(source: Mapping[str, Any], field: str, at: str = "") -> int | None:
    value = source.get(field)
    if value is not None and type(value) is not int:
        raise Malformed(_path(at, field), "must be an integer")
    return value


def _time(source: Mapping[str, Any], field: str) -> int | None:
    """An int64; what lies beyond is as far away as the last value there is."""
    value = _integer(source, field)
    return None if value is None else max(INVALID, min(value, _INT64_MAX))


def _ppm(source: Mapping[str, Any], field: str) -> int | None:
    """An int32; a value beyond it is out of every bound, as the last one there is."""
    value = _integer(source, field)
    return None if value is None else max(-(2**31), min(value, 2**31 - 1))


def _flag(source: Mapping[str, Any], field: str) -> bool:
    value = source.get(field)
    if value is None:
        return False
    if type(value) is not bool:
        raise Malformed(field, "must be true or false")
    return value


def _text(
    source: Mapping[str, Any], field: str, pattern: re.Pattern[str], rule: str = "", at: str = ""
) -> str | None:
    value = source.get(field)
    if value is None:
        return None
    if not isinstance(value, str) or not pattern.fullmatch(value):
        length = 32 if pattern is _CLIENT_ID else 64
        raise Malformed(_path(at, field), rule or f"must be 1-{length} of A-Z a-z 0-9 _ - . :")
    return value


def _name(source: Mapping[str, Any], field: str, at: str = "") -> str:
    value = _text(source, field, _NAME, at=at)
    if value is None:
        raise Malformed(_path(at, field), "is required")
    return value


def _client_id(source: Mapping[str, Any], field: str) -> bytes:
    value = _text(source, field, _CLIENT_ID)
    assert value is not None, field
    return value.encode()


def _word(source: Mapping[str, Any], field: str, words: type[Word]) -> int | None:
    value = source.get(field)
    if value is None:
        return None
    if not isinstance(value, str):
        raise Malformed(field, "must be a string")
    try:
        return words.of(value)
    except KeyError:
        raise Malformed(field, "must be one of " + ", ".join(word.word for word in words)) from None


def _listed(source: Mapping[str, Any], field: str, words: type[Word], unknown: int) -> int | None:
    """A word whose being out of its list is for the core to refuse."""
    value = source.get(field)
    if value is None:
        return None
    if not isinstance(value, str):
        raise Malformed(field, "must be a string")
    try:
        word = words.of(value)
    except KeyError:
        return unknown
    return unknown if word == 0 else word  # `default` is no word of the wire


def _steps(source: Mapping[str, Any], field: str, convert: Callable[[str], int] | None) -> int | None:
    """A decimal in steps; INVALID where the market is unknown, for then the command is refused anyway."""
    value = source.get(field)
    if value is None:
        return None
    if not isinstance(value, str):
        raise Malformed(field, "must be a decimal string")
    return INVALID if convert is None else convert(value)


def _units(source: Mapping[str, Any], field: str, asset: AssetEntry | None, at: str = "") -> int:
    value = source.get(field)
    if not isinstance(value, str):
        raise Malformed(_path(at, field), "must be a decimal string")
    return INVALID if asset is None else asset.units(value)


def _step(command: Mapping[str, Any], field: str) -> tuple[int, int]:
    value = command.get(field)
    if not isinstance(value, str):
        raise Malformed(field, "must be a decimal string")
    parsed = parse_decimal(value)
    return (INVALID, 0) if parsed is None or parsed[0] > _INT64_MAX else parsed


def _or_absent(value: int | None) -> int:
    return ABSENT if value is None else value


def _object(value: Any, at: str, required: tuple[str, ...], optional: tuple[str, ...]) -> None:
    if not isinstance(value, Mapping):
        raise Malformed(at, "must be an object")
    for field in value:
        if field not in required and field not in optional:
            raise Malformed(_path(at, str(field)[:64]), "is not a field of it")
    for field in required:
        if value.get(field) is None:
            raise Malformed(_path(at, field), "is required")


def _path(at: str, field: str) -> str:
    return f"{at}.{field}" if at else field
