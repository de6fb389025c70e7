"""Event slots, made into the JSON objects of the rulebook, section 3.

Each object is `sequence`, `index`, `ts`, `event` and the event's fields in the rulebook's order; what has no meaning is
left out. Decimals are strings of the shortest form; ids, times and ppm integers.

The decoder feeds its Directory, and keeps the open orders, because a trade names its orders by id alone. Started in the
middle, `orders.add` tells it those that were accepted before; of an order that it does not know it leaves out client
id, and the amounts whose unit depends on side or budget.

The binary `rejected` cannot carry a name that nobody knows: give `decode` the original command and the names stand as
they were given.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from engine.messages import layout
from engine.messages.codes import (
    ABSENT,
    NIL,
    Aggressor,
    CancelReason,
    CommandKind,
    EventKind,
    OrderStatus,
    OrderType,
    Phase,
    PhaseReason,
    RefStatus,
    RejectCode,
    SelfTrade,
    Side,
    TimeInForce,
)
from engine.messages.directory import AssetEntry, Directory, MarketEntry
from engine.messages.layout import DuplicateFlag, PlaceFlag, RejectedFlag
from engine.messages.open_orders import OpenOrder, OpenOrders

__all__ = ["BUDGETS_REMEMBERED", "EventDecoder"]

BUDGETS_REMEMBERED = 100_000
"""Closed budget orders whose `filled` a late `duplicate` still shows in quote; the oldest are forgotten first."""

Event = dict[str, Any]

_MONEY = (EventKind.TRANSFERRED, EventKind.PENDED, EventKind.POSTED, EventKind.VOIDED)


class EventDecoder:
    """Decodes whole events in order against one Directory, which it teaches as it goes."""

    def __init__(self, directory: Directory) -> None:
        self._directory = directory
        self.orders = OpenOrders()
        self._budgets: dict[int, None] = {}
        self._closing: list[int] = []
        self._sequence = 0
        self._original: Mapping[str, Any] = {}
        self._bodies: dict[int, Callable[[np.ndarray, int, Event], None]] = {
            EventKind.ACCEPTED: self._accepted,
            EventKind.REJECTED: self._rejected,
            EventKind.DUPLICATE: self._duplicate,
            EventKind.DONE: self._done,
            EventKind.TRADE: self._trade,
            EventKind.CANCELED: self._canceled,
            EventKind.REPLACED: self._replaced,
            EventKind.TRIGGERED: self._triggered,
            EventKind.REFRESHED: self._refreshed,
            EventKind.PREVENTED: self._prevented,
            EventKind.BALANCE: self._balance,
            EventKind.PHASE_CHANGED: self._phase_changed,
            EventKind.UNCROSSED: self._uncrossed,
            EventKind.CUT: self._cut,
            **dict.fromkeys(_MONEY, self._money),
        }

    def decode(
        self, slots: np.ndarray | bytes | bytearray | memoryview, original: Mapping[str, Any] | None = None
    ) -> list[Event]:
        """Events of one or more commands as JSON objects.

        slots: whole events, an array of any 128-byte dtype or bytes.
        original: the command they answer, where it is one and at hand.
        """
        heads = slots.view(layout.EVENT) if isinstance(slots, np.ndarray) else np.frombuffer(slots, layout.EVENT)
        self._directory.learn(heads)
        self._original = {} if original is None else original
        events: list[Event] = []
        at = 0
        while at < len(heads):
            head = heads[at]
            sequence = int(head["sequence"])
            if sequence != self._sequence:
                self._sequence = sequence
                self._drop_closed()
            kind = int(head["kind"])
            event: Event = {
                "sequence": sequence,
                "index": int(head["index"]),
                "ts": int(head["ts"]),
                "event": EventKind(kind).word,
            }
            self._bodies[kind](heads, at, event)
            events.append(event)
            at += int(head["slots"])
        return events

    def _drop_closed(self) -> None:
        """Orders close with their command: until its last event they may still be named."""
        for order_id in self._closing:
            self.orders.close(order_id)
        self._closing.clear()

    # ------------------------------------------------------------ orders

    def _accepted(self, heads: np.ndarray, at: int, event: Event) -> None:
        record, head = heads.view(layout.ACCEPTED)[at], heads[at]
        market = self._market(head)
        order_id, client_id, side = int(record["order_id"]), _text(record["client_id"]), Side(int(record["side"]))
        budget = bool(record["flags"] & PlaceFlag.BUDGET)
        self.orders.add(OpenOrder(order_id, int(head["account"]), market.index, client_id, side, budget))
        if budget:
            self._budgets[order_id] = None
            if len(self._budgets) > BUDGETS_REMEMBERED:
                del self._budgets[next(iter(self._budgets))]
        event |= {
            "order_id": order_id,
            "client_id": client_id,
            "account": self._account(head["account"]),
            "market": market.name,
            "side": side.word,
            "type": OrderType(int(record["type"])).word,
            "tif": TimeInForce(int(record["tif"])).word,
        }
        _put(event, "price", record["price"], market.price_text)
        if budget:
            _put(event, "budget", record["size"], market.quote.text)
        else:
            _put(event, "size", record["size"], market.size_text)
        _put(event, "stop_price", record["stop_price"], market.price_text)
        _put(event, "display_size", record["display_size"], market.size_text)
        _put(event, "expires_at", record["expires_at"], int)
        event["hold"] = self._held_asset(market, side).text(int(record["hold"]))

    def _rejected(self, heads: np.ndarray, at: int, event: Event) -> None:
        record, head = heads.view(layout.REJECTED)[at], heads[at]
        reason = RejectCode(int(head["reason"]))
        if reason == RejectCode.MALFORMED and head["op"] == CommandKind.MALFORMED:
            event["ts"] = 0
        else:
            original, flags, text = self._original, int(record["flags"]), _text(record["text"])
            event["op"] = CommandKind(int(head["op"])).word
            event["account"] = original.get("account")
            if event["account"] is None and head["account"] != NIL:
                event["account"] = self._account(head["account"])
            event["client_id"] = original.get("client_id") or (text if flags & RejectedFlag.CLIENT_ID else None)
            event["order_id"] = original.get("order_id")
            if event["order_id"] is None and flags & RejectedFlag.ORDER_ID:
                event["order_id"] = int(record["order_id"])
            event["ref"] = original.get("ref") or (text if flags & RejectedFlag.REF else None)
            for field in ("account", "client_id", "order_id", "ref"):
                if event[field] is None:
                    del event[field]
        event["reason"] = reason.word

    def _duplicate(self, heads: np.ndarray, at: int, event: Event) -> None:
        record, head = heads.view(layout.DUPLICATE)[at], heads[at]
        text, number, status = _text(record["text"]), int(record["order_id"]), int(record["status"])
        if record["flags"] & DuplicateFlag.REF:
            event |= {"ref": text, "first_sequence": number, "status": RefStatus(status).word}
            return
        market = self._market(head)
        filled = int(record["filled"])
        event |= {
            "client_id": text,
            "order_id": number,
            "account": self._account(head["account"]),
            "market": market.name,
            "status": OrderStatus(status).word,
            "filled": market.quote.text(filled) if number in self._budgets else market.size_text(filled),
        }

    def _trade(self, heads: np.ndarray, at: int, event: Event) -> None:
        record, head = heads.view(layout.TRADE)[at], heads[at]
        market = self._market(head)
        event |= {
            "trade_id": int(record["trade_id"]),
            "market": market.name,
            "price": market.price_text(int(record["price"])),
            "size": market.size_text(int(record["size"])),
            "notional": market.quote.text(int(record["notional"])),
            "aggressor": Aggressor(int(record["aggressor"])).word,
        }
        for number, who in enumerate(("maker", "taker")):
            account = head["account"] if number == 0 else record["taker_account"]
            order_id, leaves = int(record[f"{who}_order_id"]), int(record[f"{who}_leaves"])
            self._order_fields(event, who, order_id, account)
            self._leaves(event, f"{who}_leaves", order_id, leaves, market)
            event[f"{who}_fee"] = market.quote.text(int(record[f"{who}_fee"]))
            buys = record["buyer"] == number
            event[f"{who}_released"] = market.quote.text(int(record["released"]) if buys else 0)
            if leaves == 0:
                self._closing.append(order_id)

    def _canceled(self, heads: np.ndarray, at: int, event: Event) -> None:
        record, head = heads.view(layout.CANCELED)[at], heads[at]
        market, order_id = self._market(head), int(record["order_id"])
        event |= {
            "order_id": order_id,
            "client_id": _text(record["client_id"]),
            "account": self._account(head["account"]),
            "market": market.name,
        }
        self._leaves(event, "leaves", order_id, int(record["leaves"]), market)
        self._held(event, "released", order_id, int(record["released"]), market)
        event["reason"] = CancelReason(int(head["reason"])).word
        self._closing.append(order_id)

    def _replaced(self, heads: np.ndarray, at: int, event: Event) -> None:
        record, head = heads.view(layout.REPLACED)[at], heads[at]
        market, order_id, client_id = self._market(head), int(record["order_id"]), _text(record["client_id"])
        self.orders.rename(order_id, client_id)
        event |= {
            "order_id": order_id,
            "client_id": client_id,
            "account": self._account(head["account"]),
            "market": market.name,
        }
        _put(event, "price", record["price"], market.price_text)
        self._leaves(event, "size", order_id, int(record["size"]), market)
        self._leaves(event, "leaves", order_id, int(record["leaves"]), market)
        self._held(event, "hold", order_id, int(record["hold"]), market)
        self._held(event, "released", order_id, int(record["released"]), market)
        event["priority_kept"] = bool(record["priority_kept"])

    def _triggered(self, heads: np.ndarray, at: int, event: Event) -> None:
        record, market = heads.view(layout.TRIGGERED)[at], self._market(heads[at])
        event |= {
            "order_id": int(record["order_id"]),
            "stop_price": market.price_text(int(record["stop_price"])),
            "trigger_price": market.price_text(int(record["trigger_price"])),
            "trigger_sequence": int(record["trigger_sequence"]),
        }

    def _refreshed(self, heads: np.ndarray, at: int, event: Event) -> None:
        record, market = heads.view(layout.REFRESHED)[at], self._market(heads[at])
        event["order_id"] = int(record["order_id"])
        event["display_size"] = market.size_text(int(record["display_size"]))

    def _prevented(self, heads: np.ndarray, at: int, event: Event) -> None:
        record, head = heads.view(layout.PREVENTED)[at], heads[at]
        market = self._market(head)
        event |= {
            "market": market.name,
            "price": market.price_text(int(record["price"])),
            "size": market.size_text(int(record["size"])),
            "mode": SelfTrade(int(record["mode"])).word,
        }
        for who, account in (("maker", head["account"]), ("taker", record["taker_account"])):
            order_id = int(record[f"{who}_order_id"])
            self._order_fields(event, who, order_id, account)
            self._leaves(event, f"{who}_leaves", order_id, int(record[f"{who}_leaves"]), market)
            self._held(event, f"{who}_released", order_id, int(record[f"{who}_released"]), market)

    # ------------------------------------------------------------ money and the rest

    def _done(self, heads: np.ndarray, at: int, event: Event) -> None:
        event["op"] = CommandKind(int(heads[at]["op"])).word

    def _balance(self, heads: np.ndarray, at: int, event: Event) -> None:
        record, head = heads.view(layout.BALANCE)[at], heads[at]
        asset, cause = self._directory.assets[head["market"]], int(record["cause"])
        event |= {
            "account": self._account(head["account"]),
            "asset": asset.name,
            "available": asset.text(int(record["available"])),
            "held": asset.text(int(record["held"])),
            "cause": CommandKind(cause).word if cause else "expired",
        }

    def _money(self, heads: np.ndarray, at: int, event: Event) -> None:
        record = heads.view(layout.MONEY_EVENT)[at]
        event["ref"] = _text(record["ref"])
        first, memo = at + 1, ""
        if record["has_memo"]:
            memo = _text(heads.view(layout.MONEY_META)[first]["memo"])
            first += 1
        last = at + int(heads[at]["slots"])
        event["legs"] = [
            {
                "from": self._account(leg["source"]),
                "asset": self._directory.assets[leg["asset"]].name,
                "amount": self._directory.assets[leg["asset"]].text(int(leg["amount"])),
                "to": self._account(leg["target"]),
            }
            for leg in np.ascontiguousarray(heads[first:last]).view(layout.LEG)[: int(record["leg_count"])]
        ]
        code = _text(record["code"])
        if code:
            event["code"] = code
        if memo:
            event["memo"] = memo
        if record["cause"]:
            event["cause"] = "expired"

    def _phase_changed(self, heads: np.ndarray, at: int, event: Event) -> None:
        record, head = heads.view(layout.PHASE_CHANGED)[at], heads[at]
        event |= {
            "market": self._market(head).name,
            "phase": Phase(int(record["phase"])).word,
            "reason": PhaseReason(int(head["reason"])).word,
        }

    def _uncrossed(self, heads: np.ndarray, at: int, event: Event) -> None:
        record, market = heads.view(layout.UNCROSSED)[at], self._market(heads[at])
        event["market"] = market.name
        _put(event, "price", record["price"], market.price_text)
        event["size"] = market.size_text(int(record["size"]))
        event["imbalance"] = market.size_text(int(record["imbalance"]))

    def _cut(self, heads: np.ndarray, at: int, event: Event) -> None:
        record = heads.view(layout.CUT)[at]
        event |= {field: int(record[field]) for field in ("batch", "first_sequence", "last_sequence")}
        event["state_hash"] = bytes(record["state_hash"]).hex()

    # ------------------------------------------------------------ parts of an event

    def _account(self, index: int) -> str:
        return self._directory.accounts[index].name

    def _market(self, head: np.void) -> MarketEntry:
        return self._directory.markets[int(head["market"])]

    @staticmethod
    def _held_asset(market: MarketEntry, side: int) -> AssetEntry:
        return market.quote if side == Side.BUY else market.base

    def _order_fields(self, event: Event, who: str, order_id: int, account: int) -> None:
        event[f"{who}_order_id"] = order_id
        event[f"{who}_account"] = self._account(account)
        order = self.orders.get(order_id)
        if order is not None:
            event[f"{who}_client_id"] = order.client_id

    def _leaves(self, event: Event, field: str, order_id: int, leaves: int, market: MarketEntry) -> None:
        """Lots, of a budget order quote units."""
        order = self.orders.get(order_id)
        budget = order is not None and order.budget
        event[field] = market.quote.text(leaves) if budget else market.size_text(leaves)

    def _held(self, event: Event, field: str, order_id: int, amount: int, market: MarketEntry) -> None:
        """An amount of what the order holds. Of an unknown order only 0 can be told."""
        order = self.orders.get(order_id)
        if order is not None:
            event[field] = self._held_asset(market, order.side).text(amount)
        elif amount == 0:
            event[field] = "0"


def _put(event: Event, field: str, value: np.integer, text: Callable[[int], Any]) -> None:
    if value != ABSENT:
        event[field] = text(int(value))


def _text(value: bytes) -> str:
    return bytes(value).partition(b"\0")[0].decode("ascii")  # empty if its first byte is zero, whatever follows
