"""What protects an account: kill and rearm, the timer of cancel_after, poisoned ids.

They ask for nothing but a known account: any account may be killed, whatever its status.
"""

from __future__ import annotations

from engine.messages import layout
from engine.messages.codes import CancelReason, CommandKind, EventKind, RejectCode
from engine.reference.model import State, is_empty, reject, unpack
from engine.reference.orders import cancel_account
from engine.reference.place import write_duplicate

__all__ = ["POISONS_PER_ACCOUNT", "cancel_after", "kill", "poison", "run_timer"]

POISONS_PER_ACCOUNT = 10_000


def _done(s: State, account: int) -> None:
    s.emit(layout.EVENT, EventKind.DONE, account=account)


def kill(s: State, record: bytes) -> None:
    """kill, rearm."""
    r = unpack(layout.CANCEL_AFTER, record)
    if r.account >= len(s.accounts):
        return reject(s, RejectCode.UNKNOWN_ACCOUNT, r.account)
    # From here on nothing is refused.
    s.accounts[r.account].killed = s.op == CommandKind.KILL
    _done(s, r.account)
    if s.op == CommandKind.KILL:
        cancel_account(s, r.account, CancelReason.KILLED)
    return None


def cancel_after(s: State, record: bytes) -> None:
    r = unpack(layout.CANCEL_AFTER, record)
    if r.account >= len(s.accounts):
        return reject(s, RejectCode.UNKNOWN_ACCOUNT, r.account)
    if r.at != 0 and r.at <= s.time:
        return reject(s, RejectCode.BAD_EXPIRY, r.account)
    # From here on nothing is refused.
    owner = s.accounts[r.account]
    owner.cancel_after, owner.cancel_after_sequence = r.at, s.sequence if r.at else 0
    return _done(s, r.account)


def run_timer(s: State, account: int) -> None:
    """The timer of cancel_after is due."""
    owner = s.accounts[account]
    owner.cancel_after = owner.cancel_after_sequence = 0
    cancel_account(s, account, CancelReason.SESSION)


def poison(s: State, record: bytes) -> None:
    r = unpack(layout.POISON, record)

    def refuse(reason: RejectCode) -> None:
        reject(s, reason, r.account, client_id=r.client_id)

    if r.account >= len(s.accounts):
        return refuse(RejectCode.UNKNOWN_ACCOUNT)
    if is_empty(r.client_id):
        return refuse(RejectCode.BAD_VALUE)
    known = s.ids.get((r.account, r.client_id))
    if known is not None:
        return write_duplicate(s, known)
    if (r.account, r.client_id) not in s.poisons:
        owner = s.accounts[r.account]
        if owner.poisons >= POISONS_PER_ACCOUNT or len(s.poisons) >= s.limits.poisons:
            return refuse(RejectCode.BUSY)
        # From here on nothing is refused.
        s.poisons[r.account, r.client_id] = True
        owner.poisons += 1
    return _done(s, r.account)
