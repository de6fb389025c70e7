"""The true state of one's orders, kept up from private events. No socket, no clock: messages in, questions out.

    sent ──accepted──▶ open / waiting ──▶ filled / canceled
      ├──rejected (a rule) / refused (by the gateway)          in the end every order stands in one of these:
      └──connection lost──▶ `unanswered` names it ─▶ what `resolve` and `poison` answer, `never_received` included

Give `take` every message of the connection in the order in which it came, own acks included. When the connection
breaks, go on with `resume` behind `resume_after`; events of the sequence that the break tore apart come again and are
known by (sequence, index, side). Send nothing before `resumed`: acks come at once, in front of what the replay still
has to tell, and the next `resume` would pass over that. The answer to `open_orders` goes in as well: what it
contradicts is `doubted`.

An order id is the sequence of its place, so one at or below the sequence known when a place left is another place's: an
id used before. Then the older order takes the name, with the terms that the exchange tells and none of those just sent.

Invariants: nothing is guessed. An order is open because an event or the exchange's own list says so, and it leaves
`sent` by an answer alone. An older message never undoes a newer one.
Bounds: the last `closed_max` finished orders are kept. Cost: O(1) a message.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

__all__ = ["FIXED_TERMS", "OPEN_STATES", "TERMS", "OrderTracker", "TrackedOrder", "differs"]

Message = dict[str, Any]
OPEN_STATES = frozenset({"open", "waiting"})
_REUSABLE = frozenset({"rejected", "refused", "never_received", "forgotten"})
TERMS = (
    "market", "side", "type", "tif", "price", "size", "budget", "stop_price", "display_size", "expires_at",
)  # fmt: skip
FIXED_TERMS = ("market", "side", "type")
"""What no fill and no replace changes."""
_DECIMALS = frozenset({"price", "size", "budget", "stop_price", "display_size"})


@dataclass(slots=True, eq=False)
class TrackedOrder:
    """One order as of `sequence`. Decimals of the terms are the texts of the wire.

    state: `sent` (nothing known yet), `open`, `waiting` (a stop), `filled`, `canceled`, `rejected` (by a rule),
        `refused` (by the gateway: not executed), `never_received` (and it never will be), `forgotten` (it is not open
        and never will be; the exchange remembers no more what became of it, and its events are not to be had).
    filled: base traded so far. `leaves`: what is still open, hidden size too; of a budget order unspent quote.
    reason: why it was canceled, rejected or refused.
    side, type and the other terms are empty of an order that was over before this program began: nobody tells them.
    """

    account: str
    client_id: str
    state: str = "sent"
    order_id: int | None = None
    sequence: int = 0
    market: str = ""
    side: str = ""
    type: str = ""
    tif: str = ""
    price: str | None = None
    size: str | None = None
    budget: str | None = None
    stop_price: str | None = None
    display_size: str | None = None
    expires_at: int | None = None
    filled: Decimal = Decimal(0)
    fees: Decimal = Decimal(0)
    trades: int = 0
    leaves: Decimal = Decimal(0)
    reason: str | None = None
    names: set[str] = field(default_factory=set)

    @property
    def is_open(self) -> bool:
        """Whether it is in the exchange, open or waiting."""
        return self.state in OPEN_STATES

    @property
    def is_known(self) -> bool:
        """Whether the exchange has said what became of it so far."""
        return self.state != "sent"


def differs(order: TrackedOrder, asked: Message, terms: tuple[str, ...]) -> str | None:
    """The first of `terms` in which the order is not what a place asked for, or None. Decimals by value."""
    for name in terms:
        wanted, stands = asked.get(name), getattr(order, name)
        if name == "tif" and wanted is None:
            continue  # the exchange chose it
        if name in _DECIMALS and wanted is not None and stands is not None:
            if Decimal(wanted) != Decimal(stands):
                return name
        elif (wanted or None) != (stands or None):
            return name
    return None


class OrderTracker:
    """Every order of a key's accounts. `position` is the last sequence all of whose events were taken.

    `events_since`: every event of a later sequence was taken, up to `position`.
    """

    def __init__(self, position: int = 0, closed_max: int = 100_000) -> None:
        self.position = self.events_since = position
        self.orders: dict[int, TrackedOrder] = {}
        self._names: dict[tuple[str, str], TrackedOrder] = {}
        self._doubted: dict[int, TrackedOrder] = {}
        self._closed: OrderedDict[int, TrackedOrder] = OrderedDict()
        self._closed_max = closed_max
        self._last = position
        self._seen: set[tuple[Any, ...]] = set()

    # ---------------------------------------------------------------- what is known

    @property
    def resume_after(self) -> int:
        """Where to `resume`: the newest sequence may have been torn, so it is told again."""
        return max(self.position, self._last - 1)

    def find(self, client_id: str, account: str) -> TrackedOrder | None:
        """By any name that the order has had."""
        return self._names.get((account, client_id))

    def open_orders(self) -> list[TrackedOrder]:
        """By order id."""
        return [self.orders[number] for number in sorted(self.orders) if self.orders[number].is_open]

    def unanswered(self) -> list[TrackedOrder]:
        """Orders whose place has had no answer: in doubt once its connection has ended."""
        return list({id(order): order for order in self._names.values() if not order.is_known}.values())

    def doubted(self) -> list[TrackedOrder]:
        """Orders about which the exchange's list says something else: to be resolved."""
        return list(self._doubted.values())

    # ---------------------------------------------------------------- what happens

    def sent(self, account: str, client_id: str, terms: Message) -> TrackedOrder:
        """A place is about to leave."""
        order = self._names.get((account, client_id))
        if order is None or order.state in _REUSABLE:
            order = self._name(TrackedOrder(account, client_id, sequence=self._last), client_id)
            _copy(order, terms)
        return order

    def refused(self, order: TrackedOrder, code: str) -> None:
        """The gateway's error: it was not executed. Says nothing of an order that had been accepted before."""
        if order.state == "sent":
            order.state, order.reason = "refused", code

    def take(self, message: Message) -> bool:
        """One message of the exchange. False: it was known already, or says nothing of orders."""
        if "event" in message:
            return self._event(message)
        kind = message.get("type")
        if kind == "open_orders":
            self._listed(message)
        elif kind == "resolved":
            self._resolved(message)
        elif kind == "resumed":
            self._passed(message["sequence"])
        else:
            return False
        return True

    def never_received(self, order: TrackedOrder, not_accepted_since: int = 0) -> None:
        """The exchange knows no order of its id and takes none any more.

        It may have forgotten one that it accepted up to `not_accepted_since`: the events would have told, if all since
        the order left were taken.
        """
        if order.state == "sent" or id(order) in self._doubted:
            is_sure = min(not_accepted_since, self.events_since) <= order.sequence
            self._finish(order, "never_received" if is_sure else "forgotten", None)

    def restart(self, position: int) -> None:
        """Events go on behind `position`, whatever was taken before: those between, if any, are not to be had."""
        self.position = self.events_since = self._last = position
        self._seen.clear()
        for order in (*self.orders.values(), *self.unanswered()):
            order.sequence = min(order.sequence, position)

    # ---------------------------------------------------------------- events

    def _event(self, event: Message) -> bool:
        sequence, index = event["sequence"], event.get("index", 0)
        if sequence < self._last or sequence <= self.position:
            return False
        if sequence > self._last:
            self.position, self._last = max(self.position, self._last), sequence
            self._seen.clear()
        key = (index, "maker_order_id" in event, "taker_order_id" in event, str(event.get("legs", "")) if index else "")
        if key in self._seen:
            return False
        self._seen.add(key)
        handler = getattr(self, f"_{event['event']}", None)
        if handler is not None:
            handler(event)
        return True

    def _passed(self, sequence: int) -> None:
        """Everything up to `sequence` was taken."""
        if sequence >= self._last:
            self.position = self._last = sequence
            self._seen.clear()

    def _accepted(self, event: Message) -> None:
        order = self._of_id(event)
        order.state = "waiting" if event["type"] in ("stop", "stop_limit") else "open"
        order.leaves = Decimal(event.get("size") or event.get("budget") or 0)
        _restate(order, event)

    def _rejected(self, event: Message) -> None:
        if event.get("op") != "place" or "client_id" not in event:
            return
        order = self.find(event["client_id"], event.get("account", ""))
        if order is not None and order.state == "sent":
            order.sequence = event["sequence"]
            self._finish(order, "rejected", event["reason"])

    def _duplicate(self, event: Message) -> None:
        """The answer to a place, a replace or a poison of a known id: as of now."""
        if "client_id" not in event:
            return
        known = self.orders.get(event["order_id"])
        if known is not None:
            self._name(known, event["client_id"])
            return
        order = self._of_id(event)
        _copy(order, event)
        self._standing(order, event["status"], event["filled"])
        self._doubt(order)  # its terms, if it is open, are told by the exchange's list alone

    def _trade(self, event: Message) -> None:
        for who in ("maker", "taker"):
            order = self.orders.get(event.get(f"{who}_order_id", 0))
            if order is None or not order.is_open:
                continue
            order.sequence = event["sequence"]
            order.filled += Decimal(event["size"])
            order.fees += Decimal(event[f"{who}_fee"])
            order.trades += 1
            order.leaves = Decimal(event[f"{who}_leaves"])
            if not order.leaves:
                self._finish(order, "filled", None)

    def _prevented(self, event: Message) -> None:
        for who in ("maker", "taker"):
            order = self.orders.get(event.get(f"{who}_order_id", 0))
            if order is None:
                continue
            order.sequence = event["sequence"]
            leaves = Decimal(event[f"{who}_leaves"])
            if order.size is not None and leaves < order.leaves:
                order.size = _text(Decimal(order.size) - (order.leaves - leaves))
            order.leaves = leaves

    def _canceled(self, event: Message) -> None:
        order = self.orders.get(event["order_id"])
        if order is not None:
            order.sequence = event["sequence"]
            self._finish(order, "canceled", event["reason"])

    def _replaced(self, event: Message) -> None:
        order = self.orders.get(event["order_id"])
        if order is None:
            return
        order.sequence, order.leaves = event["sequence"], Decimal(event["leaves"])
        _copy(order, event)
        if order.budget is not None:
            order.budget, order.size = event["size"], None
        order.client_id = event["client_id"]
        self._name(order, event["client_id"])

    def _triggered(self, event: Message) -> None:
        order = self.orders.get(event["order_id"])
        if order is not None and order.state == "waiting":
            order.state, order.sequence = "open", event["sequence"]

    # ---------------------------------------------------------------- answers

    def _listed(self, answer: Message) -> None:
        """The open orders of one account as of a sequence: what differs is in doubt, what is not known is added."""
        account, sequence = answer["account"], answer["sequence"]
        listed = set()
        for row in answer["orders"]:
            listed.add(row["order_id"])
            order = self.orders.get(row["order_id"])
            if order is None:
                order = self._of_id(row | {"account": account, "sequence": sequence})
            elif order.sequence > sequence:
                continue
            self._doubted.pop(id(order), None)
            order.state, order.client_id, order.leaves = row["status"], row["client_id"], Decimal(row["leaves"])
            order.reason, order.sequence = None, sequence
            self._closed.pop(row["order_id"], None)
            _restate(order, row)
            self._name(order, row["client_id"])
            if order.size is not None:
                order.filled = Decimal(order.size) - order.leaves
        for order in self.open_orders():
            if order.account == account and order.order_id not in listed and order.sequence <= sequence:
                self._doubt(order)

    def _resolved(self, answer: Message) -> None:
        order = self.find(answer["client_id"], answer["account"])
        if order is None or order.sequence > answer["sequence"]:
            return
        outcome = answer["outcome"]
        if outcome in ("accepted", "final"):
            if order.order_id not in (None, answer["order_id"]):
                self._finish(order, "never_received", None)  # a crash took it, and its id serves another order now
            order = self._of_id(answer)
            order.market = answer["market"]
            self._standing(order, answer["status"], answer["filled"])
        elif outcome == "rejected" and order.state == "sent" and answer["rejected_sequence"] > order.sequence:
            self._finish(order, "rejected", answer["reason"])  # an earlier one speaks of an earlier place of that id
        elif outcome == "poisoned":
            self.never_received(order, answer["not_accepted_since"])

    def _standing(self, order: TrackedOrder, status: str, filled: str) -> None:
        if order.budget is None:
            order.filled = Decimal(filled)
            order.leaves = Decimal(order.size or filled) - order.filled
        if status in OPEN_STATES:
            order.state = status
            self._doubted.pop(id(order), None)
        else:
            self._finish(order, status, order.reason)

    # ---------------------------------------------------------------- inside

    def _doubt(self, order: TrackedOrder) -> None:
        self._doubted[id(order)] = order

    def _of_id(self, message: Message) -> TrackedOrder:
        """The order that a message is about, made if need be: the one sent under its client id, or a new one."""
        number, account, name = message["order_id"], message["account"], message["client_id"]
        order = self.orders.get(number)
        if order is None:
            sent = self.find(name, account)
            is_it = sent is not None and sent.order_id is None and number > sent.sequence
            order = sent if sent is not None and is_it else TrackedOrder(account, name)
            order.order_id = number
            self.orders[number] = order
        order.sequence = max(order.sequence, message["sequence"])
        return self._name(order, name)

    def _name(self, order: TrackedOrder, name: str) -> TrackedOrder:
        order.names.add(name)
        self._names[order.account, name] = order
        return order

    def _finish(self, order: TrackedOrder, state: str, reason: str | None) -> None:
        order.state, order.reason = state, reason
        self._doubted.pop(id(order), None)
        key = -id(order) if order.order_id is None else order.order_id
        self._closed[key] = order
        if len(self._closed) > self._closed_max:
            self._forget(self._closed.popitem(last=False)[1])

    def _forget(self, order: TrackedOrder) -> None:
        if order.order_id is not None:
            self.orders.pop(order.order_id, None)
        for name in order.names:
            if self._names.get((order.account, name)) is order:
                del self._names[order.account, name]


def _copy(order: TrackedOrder, source: Message) -> None:
    """The terms that a message names."""
    for name in TERMS:
        if source.get(name) is not None:
            setattr(order, name, source[name])


def _restate(order: TrackedOrder, message: Message) -> None:
    """The terms of a message that names all that an order has."""
    for name in TERMS:
        setattr(order, name, message.get(name))


def _text(value: Decimal) -> str:
    """The shortest form, as on the wire."""
    text = f"{value:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
