"""Two-sided quotes under one id: a bid and an ask that are placed, moved and withdrawn together.

A quote is no object of the engine but two orders whose client ids begin with its own: `ID.b…` and `ID.a…`, the rest
the sequence at which the child was made, so an id never comes twice. A side that is open is replaced (the size given is
what shall be open: what it has filled is added to the total), one that is not is placed, one that is not given is
cancelled. The side that makes room goes first, so that a quote that moves does not meet itself.

Which child each side had last is remembered, for the last QUOTES_REMEMBERED; of others, and after a restart, the open
orders tell it. Whether a child is open is asked of the core, as of everything submitted before. `resolve` asks the
same: a side without a known child has none that is open, and had none at all since the memory begins.

A quote id is poisoned by a poison of the client id `ID.q`, which no child ever has: journaled, and kept as any poison.
"""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Any, Protocol

from engine.messages.codes import ABSENT, OrderStatus, Side
from engine.messages.decimals import DECIMAL
from engine.messages.directory import Directory
from gateway.orders import OpenOrders

__all__ = ["QUOTES_REMEMBERED", "QUOTE_ID_RULE", "QuoteRefused", "Quotes", "is_quote_id", "poison_id"]

QUOTES_REMEMBERED = 65_536
QUOTE_ID_RULE = "1-16 of A-Z a-z 0-9 _ - . :"
_ID = re.compile(r"[A-Za-z0-9_.:-]{1,16}", re.ASCII)
_FIELDS = {"op", "account", "market", "quote_id", "bid", "ask", "post_only"}
_LETTERS = {"bid": "b", "ask": "a"}
_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"
Children = dict[str, tuple[str, Decimal | None]]
"""By side: client id and the price last asked for."""


class QuoteRefused(Exception):
    """The quote breaks a rule; nothing was submitted."""

    def __init__(self, field: str, rule: str, code: str = "malformed") -> None:
        super().__init__(rule)
        self.code = code
        self.field = field
        self.rule = rule


class OrderStates(Protocol):
    """What is asked of the engine."""

    @property
    def sequence(self) -> int: ...
    def client_id_state(self, account: int, client_id: bytes, /) -> tuple[int, int, int, int] | None: ...
    def is_poisoned(self, account: int, client_id: bytes, /) -> bool: ...


def is_quote_id(value: object) -> bool:
    """Whether a quote may be called so."""
    return isinstance(value, str) and _ID.fullmatch(value) is not None


def poison_id(quote_id: str) -> str:
    """The client id whose poison is that of the quote id."""
    return f"{quote_id}.q"


class Quotes:
    """The quotes of all accounts."""

    def __init__(self, state: OrderStates, directory: Directory, orders: OpenOrders) -> None:
        self._state = state
        self._directory = directory
        self._orders = orders
        self._children: dict[tuple[int, str], Children] = {}
        self._since = state.sequence

    def plan(self, command: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
        """The commands that make the quote so, each with its side, in the order to send them. Raises QuoteRefused."""
        unknown = set(command) - _FIELDS
        if unknown:
            raise QuoteRefused(min(unknown), f"one of {', '.join(sorted(_FIELDS))}")
        quote_id = command.get("quote_id")
        if not isinstance(quote_id, str) or not is_quote_id(quote_id):
            raise QuoteRefused("quote_id", QUOTE_ID_RULE)
        account = self._directory.accounts_by_name.get(command.get("account") or "")
        if account is None:
            raise QuoteRefused("account", "an account that exists")
        market_name = command.get("market")
        market = self._directory.markets_by_name.get(market_name) if isinstance(market_name, str) else None
        if market is None:
            raise QuoteRefused("market", "a market that exists")
        wanted = {side: _side(command, side) for side in _LETTERS}
        prices = [None if terms is None else _decimal(terms["price"]) for terms in wanted.values()]
        if prices[0] is not None and prices[1] is not None and prices[0] >= prices[1]:
            raise QuoteRefused("bid.price", "bid.price below ask.price", "crossed")
        if any(wanted.values()) and self._state.is_poisoned(account.index, poison_id(quote_id).encode()):
            raise QuoteRefused("quote_id", "an id that was not poisoned", "poisoned")
        known = self._known(account.index, quote_id)
        children: Children = {}  # those that are open
        planned: dict[str, dict[str, Any]] = {}
        for side, terms in wanted.items():
            child = known.get(side)
            state = None if child is None else self._state.client_id_state(account.index, child[0].encode())
            is_open = state is not None and state[0] in (OrderStatus.WAITING, OrderStatus.OPEN)
            if child is not None and is_open:
                children[side] = child
            if child is not None and state is not None and is_open:
                if state[2] != market.index:
                    raise QuoteRefused("market", "the market in which this quote stands")
                if terms is None:
                    planned[side] = {"op": "cancel", "client_id": child[0]}
                else:
                    size = _total(terms["size"], market.size_text(state[3]))
                    planned[side] = {"op": "replace", "client_id": child[0], "price": terms["price"], "size": size}
            elif terms is not None:
                name = f"{quote_id}.{_LETTERS[side]}{_base36(self._state.sequence + 1)}"
                planned[side] = {
                    "op": "place", "market": market_name, "client_id": name, "side": "buy" if side == "bid" else "sell",
                    "type": "limit", **terms,
                }  # fmt: skip
                if command.get("post_only") is not None:
                    planned[side]["post_only"] = command["post_only"]
        sides = ["ask", "bid"] if _meets(wanted["bid"], children.get("ask")) else ["bid", "ask"]
        self._keep(account.index, quote_id, known, planned, wanted)
        common = {"account": command.get("account")}
        return [(side, planned[side] | common) for side in sides if side in planned]

    def children(self, account: int, quote_id: str) -> dict[str, str]:
        """The client id of the last child of each side that is known."""
        return {side: child[0] for side, child in self._known(account, quote_id).items()}

    @property
    def since(self) -> int:
        """The sequence behind which every child that was made is known."""
        return self._since

    def _known(self, account: int, quote_id: str) -> Children:
        known = self._children.get((account, quote_id))
        if known is not None:
            return dict(known)
        found: Children = {}
        for order in self._orders.of_account(account):
            for side, letter in _LETTERS.items():
                begin, _, rest = order["client_id"].rpartition(".")
                is_side = order["side"] == (Side.BUY if side == "bid" else Side.SELL)
                if begin == quote_id and rest.startswith(letter) and is_side and order["price"] != ABSENT:
                    text = self._directory.markets[order["market"]].price_text(order["price"])
                    found.setdefault(side, (order["client_id"], Decimal(text)))
        return found

    def _keep(
        self, account: int, quote_id: str, children: Children, planned: dict[str, Any], wanted: dict[str, Any]
    ) -> None:
        for side in _LETTERS:
            command = planned.get(side)
            if command is not None and command["op"] != "cancel":
                children[side] = (command["client_id"], _decimal(wanted[side]["price"]))
        self._children.pop((account, quote_id), None)
        self._children[(account, quote_id)] = children
        if len(self._children) > QUOTES_REMEMBERED:
            del self._children[next(iter(self._children))]
            self._since = self._state.sequence


def _side(command: dict[str, Any], side: str) -> dict[str, Any] | None:
    terms = command.get(side)
    if terms is None:
        return None
    if not isinstance(terms, dict) or set(terms) != {"price", "size"}:
        raise QuoteRefused(side, "an object with price and size, or absent")
    for field, value in terms.items():
        if not isinstance(value, str):
            raise QuoteRefused(f"{side}.{field}", "a decimal, as text")
    return terms


def _total(size: str, filled: str) -> str:
    """What the engine calls size: the new total. A size that is no number is left for the encoder to refuse."""
    open_size = _decimal(size)
    return size if open_size is None or filled == "0" else f"{open_size + Decimal(filled):f}"


def _decimal(text: str) -> Decimal | None:
    return Decimal(text) if DECIMAL.fullmatch(text) else None


def _meets(bid: dict[str, Any] | None, ask: tuple[str, Decimal | None] | None) -> bool:
    price = None if bid is None else _decimal(bid["price"])
    return price is not None and ask is not None and ask[1] is not None and price >= ask[1]


def _base36(number: int) -> str:
    text = ""
    while number:
        number, digit = divmod(number, 36)
        text = _DIGITS[digit] + text
    return text or "0"
