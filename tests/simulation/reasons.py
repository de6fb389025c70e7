"""Whether a refusal has its reason: in what was asked, in what the key may, and in how the ledger stands.

An error of order entry has a code for each rule (docs/protocol/reasons.md). Of those that rest on trouble of the disk
the auditor decides, by when the disk had it; here are those that rest on the words of a request, and on limits of the
key that sent it. What is not listed has no reason in these worlds: their clients sign in first, name what there is, and
send for accounts and in markets that they may.

A `rejected` of the core is held against the ledger as it stood right before that command: the market's phase, its
book, the account's money, the kill that stands. So no order is refused for a phase that its market is not in, or for
want of money that is there.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from tests.simulation.model import MILLION, Broken, Ledger, Market, ceil_div, ratio, units

__all__ = ["LIMITS", "OPERATOR", "bears_out", "has_limit", "is_open_to", "is_wrong"]

Json = dict[str, Any]
LIMITS = {"rate_limited": "tier", "collar": "collar_ppm", "protection": "protection", "expired_key": "expires_at"}
"""Code → what of a key's registration brings it about."""
OPERATOR: Json = {"tier": "unlimited"}
"""The terms of a key that nobody registered while the world ran."""
_STEPS = {
    "bad_price": {"price": "tick"}, "bad_size": {"size": "lot"}, "bad_display": {"display_size": "lot"},
    "bad_stop": {"stop_price": "tick"},
}  # fmt: skip
_CLOSED = ("cancel_only", "halt", "closed")
"""Phases that take no order."""
_COLLECTING = ("preopen", "auction")
_LOTS_MOST = 1 << 40
"""More than any size that a market here allows, and less than the nonsense that these clients send."""
_NEVER = {"kill", "rearm", "mass_cancel", "poison"}
"""Of accounts that there are the core takes these always."""
_DECIMAL = re.compile(r"[0-9]{1,20}(\.[0-9]{1,20})?", re.ASCII)


def has_limit(terms: Json, code: str) -> bool:
    """Whether a key registered with these terms may be told this code, of `LIMITS`."""
    value = terms.get(LIMITS[code])
    return value != "unlimited" if code == "rate_limited" else bool(value)


def is_wrong(request: Json, error: Json, markets: Mapping[str, Market]) -> bool:
    """Whether a field of the request breaks the rule of the error's code."""
    code, op = error["code"], request["op"]
    if op == "replace" and code in _STEPS:
        return "field" not in error  # a record, of an order that its client knew no more: it says INVALID
    if op != "place":
        return False
    if code in ("malformed", "bad_size") and "size" in request and "budget" in request:
        return True
    market = markets[request["market"]]
    steps = _STEPS.get(code, {})
    return any(name in request and not _fits(request[name], getattr(market, step)) for name, step in steps.items())


def _is_at_once(order: Json) -> bool:
    """Whether it rests in no book: such an order needs a market that trades."""
    return order["type"] == "market" or (order["type"] == "limit" and order.get("tif") in ("ioc", "fok"))


def is_open_to(order: Json, phase: str) -> bool:
    """Whether a market in this phase takes such an order. Empty: the phase is not known, and may be any."""
    return phase not in _CLOSED and not (phase in _COLLECTING and _is_at_once(order))


def bears_out(ledger: Ledger, request: Json, event: Json, *, is_killed: bool, is_poisoned: bool) -> bool:
    """Whether the ledger, right before the command, gives the reason that it was rejected for.

    `is_killed`, `is_poisoned`: the account and the client id of a place, or they may be.
    """
    op, reason = request["op"], event["reason"]
    if op == "cancel":
        return reason == "unknown_order" and not _is_open(ledger, request, event["account"])
    if op == "cancel_after":
        return bool(reason == "bad_expiry" and 0 < request["at"] <= event["ts"])
    if op != "place":
        return op not in _NEVER
    if reason in ("killed", "poisoned"):
        return is_killed if reason == "killed" else is_poisoned
    market = ledger.markets[request["market"]]
    if reason == "phase":
        return not market.phase or not is_open_to(request, market.phase)
    if reason == "bad_expiry":
        return bool(request.get("expires_at", event["ts"] + 1) <= event["ts"])
    if reason in ("bad_size", "bad_display"):
        return _is_no_size(request, market)
    best = next(iter(market.asks if request["side"] == "buy" else market.bids), None)
    if reason == "no_liquidity":
        return request["type"] == "market" and best is None
    if reason == "would_cross":
        return bool(request.get("post_only")) and best is not None and _reaches(request, market, best.price)
    return reason == "insufficient_funds" and _is_short(ledger, request, market, event["account"], best and best.price)


def _is_open(ledger: Ledger, request: Json, account: str) -> bool:
    """Whether the order that a cancel names is open, by its number or its present name."""
    return any(
        order.is_open and order.account == account
        and (order.client_id == request.get("client_id") or str(order.order_id) == str(request.get("order_id")))
        for order in ledger.orders.values()
    )  # fmt: skip


def _is_no_size(request: Json, market: Market) -> bool:
    if "size" not in request or "budget" in request:
        return "size" in request
    size = ratio(request["size"], market.lot)
    return size >= _LOTS_MOST or ratio(request.get("display_size", "0"), market.lot) >= size


def _reaches(request: Json, market: Market, price: int) -> bool:
    own = ratio(request["price"], market.tick)
    return own >= price if request["side"] == "buy" else own <= price


def _is_short(ledger: Ledger, request: Json, market: Market, account: str, best: int | None) -> bool:
    """Whether there is less available than the order needs: what it holds, or the money for one lot at the best ask."""
    asset = market.quote if request["side"] == "buy" else market.base
    money = ledger.balances.get((account, asset), [0, 0])[0]
    if request["side"] == "sell":
        return money < ratio(request["size"], market.lot) * market.u
    if "price" in request:
        notional = ratio(request["price"], market.tick) * ratio(request["size"], market.lot) * market.k
        return money < notional + ceil_div(notional * max(market.taker_ppm, market.maker_ppm, 0), MILLION)
    if request["type"] == "stop" or best is None:
        return False  # a stop holds nothing, and without an ask it is `no_liquidity`
    if "budget" in request:
        money = min(money, units(request["budget"], market.quote_scale))
    return money <= best * market.k + ceil_div(best * market.k * market.taker_ppm, MILLION)


def _fits(text: str, step: str) -> bool:
    """Whether it is a positive whole number of steps that an int64 holds."""
    try:
        return bool(_DECIMAL.fullmatch(text)) and 0 < ratio(text, step) < 1 << 63
    except Broken:
        return False
