"""Money commands and refs.

A command becomes at most 64 moves; what they touch is judged before anything changes. Every move takes from one
account what it gives to another, so each asset keeps summing to zero.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from engine.messages import layout
from engine.messages.codes import (
    ABSENT,
    NIL,
    AccountStatus,
    CommandKind,
    EventKind,
    Overdraft,
    RefStatus,
    RejectCode,
)
from engine.messages.layout import DuplicateFlag, MoneyFlag
from engine.reference.digest import content_digest
from engine.reference.model import INT64_MAX, TOTAL_LIMIT, Move, Ref, State, extension, is_empty, reject, unpack

__all__ = ["begin_ref", "expire_transfer", "has_ref_room", "judge_ref", "keep_ref", "money", "post", "void"]

_LEGS_MAX = 64


@dataclass(slots=True)
class _Part:
    source: int
    asset: int
    amount: int
    target: int
    weight: int = 0
    leg: int = 0
    is_share: int = 0


@dataclass(slots=True)
class _Touched:
    """A balance that moves touch: what they take from it, and the change of its available."""

    out: int = 0
    change: int = 0


# ---------------------------------------------------------------- refs


def judge_ref(s: State, record: bytes, ref: bytes, not_after: int, account: int = NIL) -> bool:
    """Whether the ref lets the command go on; otherwise it is answered."""
    if is_empty(ref):
        reject(s, RejectCode.BAD_REF, account, ref=ref)
    elif ref in s.refs:
        if s.refs[ref].digest in (0, content_digest(record)):
            _duplicate(s, ref)
        else:
            reject(s, RejectCode.BAD_REF, account, ref=ref)
    elif not_after != ABSENT and s.time > not_after:
        reject(s, RejectCode.EXPIRED, account, ref=ref)
    else:
        return True
    return False


def begin_ref(s: State, record: bytes, account: int = NIL) -> tuple[bytes | None, int] | None:
    """The ref that asset, account, market, phase may carry in their last slot (None: it has none), and its not_after.

    None instead if the ref already answered the command.
    """
    head = unpack(layout.COMMAND, record)
    if not head.flags & MoneyFlag.HAS_REF:
        return None, ABSENT
    r = unpack(layout.REF_SLOT, record, head.slots - 1)
    return (r.ref, r.not_after) if judge_ref(s, record, r.ref, r.not_after, account) else None


def has_ref_room(s: State, ref: bytes | None) -> bool:
    return ref is None or len(s.refs) < s.limits.refs


def keep_ref(s: State, record: bytes, ref: bytes, not_after: int) -> None:
    """The ref of an accepted command that is not pending."""
    s.refs[ref] = Ref(content_digest(record), RefStatus.POSTED, s.sequence, not_after)


def _duplicate(s: State, name: bytes) -> None:
    ref = s.refs[name]
    s.emit(
        layout.DUPLICATE, EventKind.DUPLICATE, order_id=ref.first_sequence, text=name, status=ref.status,
        flags=DuplicateFlag.REF,
    )  # fmt: skip


# ---------------------------------------------------------------- deposit, withdraw, transfer


def money(s: State, record: bytes) -> None:
    head = unpack(layout.COMMAND, record)
    is_transfer, withdraw = head.kind == CommandKind.TRANSFER, head.kind == CommandKind.WITHDRAW
    r = unpack(layout.TRANSFER if is_transfer else layout.WITHDRAW, record)
    account = NIL if is_transfer else r.account
    expires_at = r.expires_at if is_transfer else ABSENT
    pending = withdraw or bool(is_transfer and head.flags & MoneyFlag.PENDING)
    force = bool(head.flags & MoneyFlag.FORCE)
    if not judge_ref(s, record, r.ref, r.not_after, account):
        return
    moves = _moves(s, record)
    if isinstance(moves, RejectCode):
        return reject(s, moves, account, ref=r.ref)
    if expires_at != ABSENT and (not pending or expires_at <= s.time):
        return reject(s, RejectCode.BAD_EXPIRY, account, ref=r.ref)
    touched = _touch(moves, both=not pending)
    reason = _check_funds(s, moves, touched, pending, force)
    if reason is None:
        fresh = sum(key not in s.balances for key in touched) + (len(moves) if pending else 0)
        postings = sum(len(ref.moves) for ref in s.refs.values()) + (len(moves) if pending else 0)
        if len(s.refs) >= s.limits.refs or not s.has_balance_room(fresh) or postings > s.limits.postings:
            reason = RejectCode.BUSY
    if reason is not None:
        return reject(s, reason, account, ref=r.ref)

    # From here on nothing is refused.
    code, memo = _meta(record)
    for key, t in touched.items():
        balance = s.balance(*key)
        balance.available += t.change
        if pending:
            balance.held += t.out
    if pending:
        for move in moves:
            s.balance(move.target, move.asset)
        s.refs[r.ref] = Ref(
            content_digest(record), RefStatus.PENDING, s.sequence, r.not_after, expires_at, list(moves), code, memo
        )
    else:
        keep_ref(s, record, r.ref, r.not_after)
    _write_money(s, EventKind.PENDED if pending else EventKind.TRANSFERRED, r.ref, code, memo, moves)
    _write_balances(s, touched)


def _meta(record: bytes) -> tuple[bytes, bytes]:
    if not unpack(layout.COMMAND, record).flags & MoneyFlag.HAS_META:
        return b"", b""
    meta = unpack(layout.MONEY_META, record, 1)
    return meta.code, meta.memo


def _parts(record: bytes) -> tuple[list[_Part], list[_Part]] | None:
    """The leg that deposit and withdraw imply, and the parts in the record; None if it is shorter than it says."""
    head = unpack(layout.COMMAND, record)
    implied, count = [], 0
    if head.kind == CommandKind.TRANSFER:
        count = unpack(layout.TRANSFER, record).part_count
    else:
        r = unpack(layout.WITHDRAW, record)
        if head.kind == CommandKind.WITHDRAW:
            implied, count = [_Part(r.account, r.asset, r.amount, r.place)], r.part_count
        else:
            implied = [_Part(r.place, r.asset, r.amount, r.account)]
    first = 1 + bool(head.flags & MoneyFlag.HAS_META) + bool(head.flags & MoneyFlag.HAS_ADDRESS)
    if first + -(-count // layout.PARTS_PER_SLOT) > head.slots:
        return None
    rows = np.frombuffer(record[first * layout.SLOT_BYTES :], layout.PART)[:count]
    return implied, [_Part(*row.item()[:7]) for row in rows]


def _moves(s: State, record: bytes) -> list[Move] | RejectCode:
    """The postings of a command after splitting, or the first of unknown_account … bad_legs, bad_amount."""
    read = _parts(record)
    if read is None:
        return RejectCode.BAD_LEGS
    implied, more = read
    parts = implied + more
    if any(p.source >= len(s.accounts) or p.target >= len(s.accounts) for p in parts):
        return RejectCode.UNKNOWN_ACCOUNT
    if any(p.asset >= len(s.assets) for p in parts):
        return RejectCode.UNKNOWN_ASSET
    if any(not p.is_share and p.source == p.target for p in parts):
        return RejectCode.BAD_ACCOUNT
    if implied:
        place = implied[0].target if record[4] == CommandKind.WITHDRAW else implied[0].source
        if s.accounts[place].overdraft != Overdraft.OPEN:
            return RejectCode.BAD_ACCOUNT
    legs = _legs(more)
    if not parts or legs is None:
        return RejectCode.BAD_LEGS
    if any(p.amount < 1 for p in parts):
        return RejectCode.BAD_AMOUNT
    moves = [Move(p.source, p.asset, p.amount, p.target) for p in implied]
    for leg in legs:
        moves += _split(leg)
    return RejectCode.BAD_LEGS if len(moves) > _LEGS_MAX else moves


def _legs(parts: list[_Part]) -> list[list[_Part]] | None:
    """The parts by leg, or None if they do not form legs."""
    legs: list[list[_Part]] = []
    for part in parts:
        if part.leg == len(legs):
            legs.append([part])
        elif part.leg == len(legs) - 1 and legs:
            legs[-1].append(part)
        else:
            return None
    for leg in legs:
        first = leg[0]
        alike = all(
            (p.source, p.asset, p.amount, bool(p.is_share)) == (first.source, first.asset, first.amount, True)
            for p in leg[1:]
        )
        if len(leg) > 1 and not (alike and first.is_share):
            return None
        if first.is_share:
            weights = [p.weight for p in leg]
            if len(leg) > _LEGS_MAX or sum(weights) < 1 or max(weights) >= 2**31:
                return None
    return legs


def _split(leg: list[_Part]) -> list[Move]:
    """Largest remainder: floors, then one unit each to the largest remainders, ties to the earlier."""
    first = leg[0]
    if not first.is_share:
        return [Move(first.source, first.asset, first.amount, first.target)]
    total = sum(p.weight for p in leg)
    amounts = [first.amount * p.weight // total for p in leg]
    remainders = [first.amount * p.weight % total for p in leg]
    by_remainder = sorted(range(len(leg)), key=lambda i: (-remainders[i], i))
    for i in by_remainder[: first.amount - sum(amounts)]:
        amounts[i] += 1
    return [Move(p.source, p.asset, amount, p.target) for p, amount in zip(leg, amounts, strict=True) if amount]


# ---------------------------------------------------------------- balances


def _touch(moves: list[Move], *, both: bool) -> dict[tuple[int, int], _Touched]:
    """In leg order, payer first; `both`: receivers too."""
    touched: dict[tuple[int, int], _Touched] = {}
    for move in moves:
        payer = touched.setdefault((move.source, move.asset), _Touched())
        payer.out += move.amount
        payer.change -= move.amount
        if both:
            touched.setdefault((move.target, move.asset), _Touched()).change += move.amount
    return touched


def _check_funds(
    s: State, moves: list[Move], touched: dict[tuple[int, int], _Touched], pending: bool, force: bool
) -> RejectCode | None:
    if not force and any(s.accounts[move.source].status == AccountStatus.FROZEN for move in moves):
        return RejectCode.FROZEN
    for (account, asset), t in touched.items():
        overdraft = s.accounts[account].overdraft
        free = overdraft == Overdraft.OPEN or (overdraft == Overdraft.FORCED and force)
        if not free and t.out > max(s.available(account, asset), 0):
            return RejectCode.INSUFFICIENT_FUNDS
    for (account, asset), t in touched.items():
        balance = s.balances.get((account, asset))
        held = 0 if balance is None else balance.held
        if not -(2**63) <= t.change + s.available(account, asset) <= INT64_MAX:
            return RejectCode.TOO_LARGE
        if pending and (t.out > TOTAL_LIMIT or t.out + held > INT64_MAX):
            return RejectCode.TOO_LARGE
    for asset in {asset for _, asset in touched}:
        after = {account: b.available for (account, a), b in s.balances.items() if a == asset}
        for (account, a), t in touched.items():
            if a == asset:
                after[account] = after.get(account, 0) + t.change
        if -sum(available for available in after.values() if available < 0) > TOTAL_LIMIT:
            return RejectCode.TOO_LARGE
    return None


def _write_money(
    s: State, kind: EventKind, ref: bytes, code: bytes, memo: bytes, moves: list[Move], *, expired: bool = False
) -> None:
    extensions = extension(layout.MONEY_META, code=code, memo=memo) if not is_empty(memo) else b""
    legs = np.zeros(-(-len(moves) // layout.LEGS_PER_SLOT) * layout.LEGS_PER_SLOT, layout.LEG)
    for leg, move in zip(legs, moves, strict=False):
        leg["source"], leg["asset"], leg["amount"], leg["target"] = move.source, move.asset, move.amount, move.target
    s.emit(
        layout.MONEY_EVENT, kind, extensions=extensions + legs.tobytes(), ref=ref, code=code, leg_count=len(moves),
        cause=expired, has_memo=not is_empty(memo),
    )  # fmt: skip


def _write_balances(s: State, touched: dict[tuple[int, int], _Touched], *, expired: bool = False) -> None:
    for account, asset in touched:
        balance = s.balances[account, asset]
        s.emit(
            layout.BALANCE, EventKind.BALANCE, account=account, market=asset, available=balance.available,
            held=balance.held, cause=0 if expired else s.op,
        )  # fmt: skip


# ---------------------------------------------------------------- post, void, expiry


def post(s: State, record: bytes) -> None:
    """post, withdraw_settled."""
    r = unpack(layout.POST, record)
    ref = s.refs.get(r.ref)
    if ref is None:
        return reject(s, RejectCode.BAD_REF, ref=r.ref)
    if ref.status != RefStatus.PENDING:
        return _duplicate(s, r.ref)
    if ref.expires_at != ABSENT and s.time >= ref.expires_at:
        return reject(s, RejectCode.EXPIRED, ref=r.ref)
    return _decide(s, r.ref, RefStatus.POSTED)


def void(s: State, record: bytes) -> None:
    """void, withdraw_failed. Of an unknown ref: closes it for good."""
    r = unpack(layout.POST, record)
    ref = s.refs.get(r.ref)
    if ref is not None:
        return _decide(s, r.ref, RefStatus.VOIDED) if ref.status == RefStatus.PENDING else _duplicate(s, r.ref)
    if is_empty(r.ref):
        return reject(s, RejectCode.BAD_REF, ref=r.ref)
    if r.not_after != ABSENT and s.time > r.not_after:
        return reject(s, RejectCode.EXPIRED, ref=r.ref)
    if len(s.refs) >= s.limits.refs:
        return reject(s, RejectCode.BUSY, ref=r.ref)
    # From here on nothing is refused.
    s.refs[r.ref] = Ref(0, RefStatus.VOIDED, s.sequence, r.not_after)
    return _write_money(s, EventKind.VOIDED, r.ref, b"", b"", [])


def _decide(s: State, name: bytes, status: RefStatus, *, expired: bool = False) -> None:
    """A pending ref is posted or voided."""
    ref = s.refs[name]
    for move in ref.moves:
        s.balance(move.source, move.asset).held -= move.amount
        receiver = move.target if status == RefStatus.POSTED else move.source
        s.balance(receiver, move.asset).available += move.amount
    moves, code, memo = ref.moves, ref.code, ref.memo
    ref.status, ref.moves, ref.code, ref.memo, ref.expires_at = status, [], b"", b"", 0
    kind = EventKind.POSTED if status == RefStatus.POSTED else EventKind.VOIDED
    _write_money(s, kind, name, code, memo, moves, expired=expired)
    _write_balances(s, _touch(moves, both=status == RefStatus.POSTED), expired=expired)


def expire_transfer(s: State, ref: bytes) -> None:
    """A pending transfer that nobody decided in time."""
    _decide(s, ref, RefStatus.VOIDED, expired=True)
