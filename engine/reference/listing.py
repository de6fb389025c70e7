"""Assets, markets, accounts: what may be listed and opened, and what may change."""

from __future__ import annotations

from fractions import Fraction
from types import SimpleNamespace

from engine.limits import PRICE_TICKS_TOTAL
from engine.messages import layout
from engine.messages.codes import (
    ABSENT,
    NIL,
    AccountStatus,
    CancelReason,
    EventKind,
    Overdraft,
    Phase,
    RejectCode,
)
from engine.messages.layout import AccountMask, MarketMask
from engine.reference.model import (
    FEES,
    TOTAL_LIMIT,
    Account,
    Asset,
    Market,
    Move,
    State,
    extension,
    is_empty,
    reject,
    unpack,
)
from engine.reference.money import begin_ref, has_ref_room, keep_ref
from engine.reference.orders import cancel_account

__all__ = ["account", "asset", "market"]


# ---------------------------------------------------------------- asset


def asset(s: State, record: bytes) -> None:
    begun = begin_ref(s, record)
    if begun is None:
        return None
    ref, not_after = begun
    r = unpack(layout.ASSET, record)
    if is_empty(r.name) or r.scale > 9 or r.settled > 1:
        return reject(s, RejectCode.BAD_VALUE, ref=ref)
    if s.named(s.assets, r.name) != NIL:
        return reject(s, RejectCode.EXISTS, ref=ref)
    if len(s.assets) >= s.limits.assets or not has_ref_room(s, ref):
        return reject(s, RejectCode.BUSY, ref=ref)
    # From here on nothing is refused.
    s.assets.append(Asset(r.name, r.scale, r.settled))
    if ref is not None:
        keep_ref(s, record, ref, not_after)
    return s.emit(
        layout.DONE_ASSET, EventKind.DONE, market=len(s.assets) - 1, name=r.name, scale=r.scale, settled=r.settled
    )


# ---------------------------------------------------------------- market


def market(s: State, record: bytes) -> None:
    begun = begin_ref(s, record)
    if begun is None:
        return None
    ref, not_after = begun
    r, terms = unpack(layout.MARKET, record), unpack(layout.MARKET_EXTRA, record, 1)
    index = s.named(s.markets, r.name)
    known = None if index == NIL else s.markets[index]
    listing = _listing(s, r, terms, known)
    if isinstance(listing, RejectCode):
        return reject(s, listing, ref=ref)
    if known is not None and not _same_listing(r.mask, listing, known):
        return reject(s, RejectCode.EXISTS, ref=ref)
    if known is None:
        full = len(s.markets) >= s.limits.markets or listing.max_price > s.limits.max_price_ticks
        full = full or listing.max_price + sum(each.max_price for each in s.markets) > PRICE_TICKS_TOTAL
        if full or not s.has_balance_room(1):
            return reject(s, RejectCode.BUSY, ref=ref)
    if not has_ref_room(s, ref):
        return reject(s, RejectCode.BUSY, ref=ref)

    # From here on nothing is refused.
    if known is None:
        index, known = len(s.markets), listing
        known.band_reference = known.reference_price
        s.markets.append(listing)
        s.balance(FEES, listing.quote)
    else:
        for field in ("taker_ppm", "maker_ppm", "entry_band_ppm", "exec_band_ppm", "pause_ns"):
            setattr(known, field, getattr(listing, field))
    if ref is not None:
        keep_ref(s, record, ref, not_after)
    fields = (
        "tick", "lot", "min_size", "max_size", "max_price", "reference_price", "pause_ns", "entry_band_ppm",
        "exec_band_ppm", "taker_ppm", "maker_ppm", "tick_decimals", "lot_decimals",
    )  # fmt: skip
    return s.emit(
        layout.DONE_MARKET, EventKind.DONE, market=index, name=known.name, base=known.base, quote=known.quote,
        k=known.k, u=known.u, phase=known.phase,
        extensions=extension(layout.DONE_MARKET_EXTRA, **{field: getattr(known, field) for field in fields}),
    )  # fmt: skip


def _listing(s: State, r: SimpleNamespace, terms: SimpleNamespace, known: Market | None) -> Market | RejectCode:
    """The market as the command says it, judged as a listing of its own; what a repeat leaves out is as listed."""
    if r.base >= len(s.assets) or r.quote >= len(s.assets):
        return RejectCode.UNKNOWN_ASSET
    if is_empty(r.name) or r.base == r.quote or terms.tick < 1 or terms.lot < 1:
        return RejectCode.BAD_VALUE
    tick, lot = Fraction(terms.tick, 10**terms.tick_decimals), Fraction(terms.lot, 10**terms.lot_decimals)
    k, u = tick * lot * 10 ** s.assets[r.quote].scale, lot * 10 ** s.assets[r.base].scale
    if k.denominator != 1 or u.denominator != 1:
        return RejectCode.BAD_VALUE

    def given(bit: MarketMask, field: str, default: int) -> int:
        if known is None and not r.mask & bit:
            return default
        value: int = getattr(terms if r.mask & bit else known, field)
        return value

    max_price = given(MarketMask.MAX_PRICE, "max_price", 10**6)
    most = min(TOTAL_LIMIT // (max_price * int(k)), TOTAL_LIMIT // int(u)) if max_price >= 1 else 0
    m = Market(
        name=r.name, base=r.base, quote=r.quote, tick=terms.tick, lot=terms.lot, tick_decimals=terms.tick_decimals,
        lot_decimals=terms.lot_decimals, k=int(k), u=int(u),
        min_size=given(MarketMask.MIN_SIZE, "min_size", 1),
        max_size=terms.max_size if r.mask & MarketMask.MAX_SIZE else min(most, known.max_size if known else most),
        max_price=max_price,
        reference_price=given(MarketMask.REFERENCE_PRICE, "reference_price", ABSENT),
        taker_ppm=given(MarketMask.TAKER_PPM, "taker_ppm", 5000),
        maker_ppm=given(MarketMask.MAKER_PPM, "maker_ppm", 3000),
        entry_band_ppm=given(MarketMask.ENTRY_BAND, "entry_band_ppm", 0),
        exec_band_ppm=given(MarketMask.EXEC_BAND, "exec_band_ppm", 0),
        pause_ns=given(MarketMask.PAUSE, "pause_ns", 5 * 10**9),
        phase=r.phase if r.mask & MarketMask.PHASE else Phase.CONTINUOUS,
    )  # fmt: skip
    no_reference = not r.mask & MarketMask.REFERENCE_PRICE
    sound = (
        m.max_price >= 1
        and 1 <= m.min_size <= m.max_size <= most
        and (1 <= m.reference_price <= m.max_price or (m.reference_price == ABSENT and no_reference))
        and 0 <= m.taker_ppm <= 100_000
        and -m.taker_ppm <= m.maker_ppm <= 100_000
        and 0 <= m.entry_band_ppm <= 10**9
        and 0 <= m.exec_band_ppm <= 10**9
        and m.pause_ns >= 0
        and m.phase <= max(Phase)
    )
    return m if sound else RejectCode.BAD_VALUE


def _same_listing(mask: int, said: Market, known: Market) -> bool:
    """Whether a repeat says nothing else about what cannot change."""
    optional = {
        MarketMask.MIN_SIZE: "min_size",
        MarketMask.MAX_SIZE: "max_size",
        MarketMask.MAX_PRICE: "max_price",
        MarketMask.REFERENCE_PRICE: "reference_price",
        MarketMask.PHASE: "phase",
    }

    def fixed(m: Market) -> tuple[object, ...]:
        steps = Fraction(m.tick, 10**m.tick_decimals), Fraction(m.lot, 10**m.lot_decimals)
        return (m.base, m.quote, *steps, *(getattr(m, field) for bit, field in optional.items() if mask & bit))

    return fixed(said) == fixed(known)


# ---------------------------------------------------------------- account


def account(s: State, record: bytes) -> None:
    r = unpack(layout.ACCOUNT, record)
    index = s.named(s.accounts, r.name)
    begun = begin_ref(s, record, index)
    if begun is None:
        return None
    ref, not_after = begun
    row, group = bytes(32), b""
    if r.mask & (AccountMask.ROW | AccountMask.STP_GROUP):
        extra = unpack(layout.ACCOUNT_EXTRA, record, 1)
        row, group = extra.row, extra.stp_group
    reason = _check_account(s, r, index, row, group)
    if reason is None and not has_ref_room(s, ref):
        reason = RejectCode.BUSY
    if reason is not None:
        return reject(s, reason, index, ref=ref)

    # From here on nothing is refused.
    if index == NIL:
        index = len(s.accounts)
        s.accounts.append(Account(r.name, r.overdraft if r.mask & AccountMask.OVERDRAFT else Overdraft.NEVER))
    a = s.accounts[index]
    a.mask |= r.mask & sum(AccountMask)
    for bit, field in (
        (AccountMask.STATUS, "status"),
        (AccountMask.TAKER_PPM, "taker_ppm"),
        (AccountMask.MAKER_PPM, "maker_ppm"),
        (AccountMask.MAX_OPEN_ORDERS, "max_open_orders"),
    ):
        if r.mask & bit:
            setattr(a, field, getattr(r, field))
    if r.mask & AccountMask.ROW:
        a.row = row
    if r.mask & AccountMask.STP_GROUP:
        a.stp_group = group
        s.groups.add(group)
    if ref is not None:
        keep_ref(s, record, ref, not_after)
    s.emit(
        layout.DONE_ACCOUNT, EventKind.DONE, account=index, name=a.name, taker_ppm=a.taker_ppm, maker_ppm=a.maker_ppm,
        max_open_orders=a.max_open_orders, mask=a.mask, status=a.status, overdraft=a.overdraft,
        extensions=extension(layout.DONE_ACCOUNT_EXTRA, row=a.row, stp_group=a.stp_group),
    )  # fmt: skip
    if a.status == AccountStatus.FROZEN:
        cancel_account(s, index, CancelReason.FROZEN)
    return None


def _check_account(s: State, r: SimpleNamespace, index: int, row: bytes, group: bytes) -> RejectCode | None:
    mask = r.mask
    if is_empty(r.name) or r.name.startswith(b"system:"):
        return RejectCode.BAD_VALUE
    if mask & AccountMask.STATUS and r.status > max(AccountStatus):
        return RejectCode.BAD_VALUE
    if mask & AccountMask.OVERDRAFT and r.overdraft > max(Overdraft):
        return RejectCode.BAD_VALUE
    for bit, ppm in ((AccountMask.TAKER_PPM, r.taker_ppm), (AccountMask.MAKER_PPM, r.maker_ppm)):
        if mask & bit and not -100_000 <= ppm <= 100_000:
            return RejectCode.BAD_VALUE
    if mask & AccountMask.STP_GROUP and is_empty(group):
        return RejectCode.BAD_VALUE
    if index == NIL:
        if len(s.accounts) >= s.limits.accounts:
            return RejectCode.BUSY
    else:
        a = s.accounts[index]
        if mask & AccountMask.OVERDRAFT and r.overdraft != a.overdraft:
            return RejectCode.BAD_VALUE
        if mask & AccountMask.ROW and row != a.row and any(_leaves_to_open(s, move, index) for move in _pending(s)):
            return RejectCode.BAD_VALUE
    if mask & AccountMask.STP_GROUP and len(s.groups) >= 2 * s.limits.accounts:
        return RejectCode.BUSY
    return None


def _pending(s: State) -> list[Move]:
    return [move for ref in s.refs.values() for move in ref.moves]


def _leaves_to_open(s: State, move: Move, account: int) -> bool:
    return move.source == account and s.accounts[move.target].overdraft == Overdraft.OPEN
