"""What falls due, and the tick that sees to it: by due time, then by the sequence that set it, then by kind.

    order     a gtd order expires, open or waiting; not while its market is halted
    transfer  a pending transfer is voided
    timer     cancel_after cancels an account's orders
    market    a pause goes on or ends
    forget    a decided ref is forgotten

Times are ns, compared with the largest ts so far, never with a clock. Worst case: a tick looks at everything that
may fall due once more for each thing that does.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import IntEnum
from typing import NamedTuple

from engine.messages.codes import ABSENT, CancelReason, Phase, RefStatus
from engine.reference.auction import end_pause
from engine.reference.model import State
from engine.reference.money import expire_transfer
from engine.reference.orders import cancel_order
from engine.reference.safeguards import run_timer

__all__ = ["Due", "DueKind", "next_due", "tick"]


class DueKind(IntEnum):
    ORDER = 0
    TRANSFER = 1
    TIMER = 2
    MARKET = 3
    FORGET = 4


class Due(NamedTuple):
    """at: ns. entry: order id, account or market index, or the ref. No two dues are equal before `entry`."""

    at: int
    sequence: int
    kind: DueKind
    entry: int | bytes


def _dues(s: State) -> Iterator[Due]:
    for order in s.orders.values():
        if order.expires_at != ABSENT and s.markets[order.market].phase != Phase.HALT:
            yield Due(order.expires_at, order.order_id, DueKind.ORDER, order.order_id)
    for name, ref in s.refs.items():
        at = ref.due()
        if at is not None:
            kind = DueKind.TRANSFER if ref.status == RefStatus.PENDING else DueKind.FORGET
            yield Due(at, ref.first_sequence, kind, name)
    for index, account in enumerate(s.accounts):
        if account.cancel_after:
            yield Due(account.cancel_after, account.cancel_after_sequence, DueKind.TIMER, index)
    for index, market in enumerate(s.markets):
        if market.pause_sequence:
            yield Due(market.pause_at, market.pause_sequence, DueKind.MARKET, index)


def next_due(s: State) -> Due | None:
    """What the next tick has to see to first."""
    return min(_dues(s), default=None)


def tick(s: State) -> None:
    while (due := next_due(s)) is not None and due.at <= s.time:
        match due:
            case Due(kind=DueKind.ORDER, entry=int(order_id)):
                cancel_order(s, s.orders[order_id], CancelReason.EXPIRED)
            case Due(kind=DueKind.TIMER, entry=int(account)):
                run_timer(s, account)
            case Due(kind=DueKind.MARKET, entry=int(market)):
                end_pause(s, market)
            case Due(kind=DueKind.TRANSFER, entry=bytes(ref)):
                expire_transfer(s, ref)
            case Due(kind=DueKind.FORGET, entry=bytes(ref)):
                del s.refs[ref]
