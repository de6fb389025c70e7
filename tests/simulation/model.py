"""Book and ledger as the events that were told make them, computed anew from the rulebook in whole numbers.

Knows sections 1, 2 and 4 of docs/rulebook.md and nothing of the engine: what an order holds, what a fill costs, who is
first in the queue. Takes events as clients hear them (JSON), in order, and names the invariant that one of them breaks:

    I1 conservation     I2 holds     I5 fills once     I6 price, then time; never crossed; trades only while it is open
    I14 nobody trades with himself: here all orders ask for prevention
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Broken", "Ledger", "Market"]

Json = dict[str, Any]
MILLION = 1_000_000
HOLDING = {"limit", "stop_limit"}


class Broken(Exception):
    """An invariant does not hold. `number` is its name: I1 …"""

    def __init__(self, number: str, text: str) -> None:
        super().__init__(f"{number}: {text}")
        self.number = number


def units(text: str, scale: int) -> int:
    """A decimal of at most `scale` places as whole units."""
    sign, text = (-1, text[1:]) if text.startswith("-") else (1, text)
    whole, _, part = text.partition(".")
    if len(part) > scale:
        raise Broken("I1", f"{text} has more than {scale} decimals")
    return sign * int(whole + part.ljust(scale, "0"))


def ratio(text: str, step: str) -> int:
    """How many steps a decimal is. Raises Broken if it is no whole number of them."""
    scale = max(len(text.partition(".")[2]), len(step.partition(".")[2]))
    count, rest = divmod(units(text, scale), units(step, scale))
    if rest:
        raise Broken("I6", f"{text} is no whole number of {step}")
    return count


def ceil_div(value: int, by: int) -> int:
    return -(-value // by)


@dataclass(slots=True)
class Market:
    name: str
    base: str
    quote: str
    tick: str
    lot: str
    base_scale: int
    quote_scale: int
    taker_ppm: int
    maker_ppm: int
    phase: str = "continuous"
    """Empty: not known."""
    left_halt_at: int = 0
    """The last command that took it out of a halt, or may have."""
    last_trade_id: int = 0
    bids: list[Order] = field(default_factory=list)
    """Resting, best first, each price in the order of joining."""
    asks: list[Order] = field(default_factory=list)

    @property
    def k(self) -> int:
        decimals = len(self.tick.partition(".")[2]) + len(self.lot.partition(".")[2])
        product = units(self.tick, len(self.tick.partition(".")[2])) * units(self.lot, len(self.lot.partition(".")[2]))
        return product * 10**self.quote_scale // 10**decimals

    @property
    def u(self) -> int:
        decimals = len(self.lot.partition(".")[2])
        return units(self.lot, decimals) * 10**self.base_scale // 10**decimals


@dataclass(slots=True)
class Order:
    order_id: int
    account: str
    client_id: str
    market: Market
    is_buy: bool
    type: str
    price: int
    size: int
    leaves: int
    is_budget: bool
    taker_ppm: int
    maker_ppm: int
    k: int
    u: int
    is_resting: bool = False
    is_waiting: bool = False
    is_open: bool = True
    filled: int = 0
    """Lots, of a budget order quote units, as `size` and `leaves`."""
    exact: int = 0
    """Sum of notional × ppm of its fills."""
    charged: int = 0
    held: int = 0

    def need(self) -> int:
        """What it holds, by rulebook section 2."""
        if not self.is_open:
            return 0
        if not self.is_buy:
            return self.leaves * self.u
        if self.type not in HOLDING:
            return 0
        notional = self.price * self.leaves * self.k
        worst = max(self.taker_ppm, self.maker_ppm, 0)
        return notional + ceil_div(self.exact + notional * worst, MILLION) - ceil_div(self.exact, MILLION)


class Ledger:
    """Feed it `take` with the events of one command after the other; then `balances`, `orders` are how it stands."""

    def __init__(self, scales: dict[str, int], markets: dict[str, Market]) -> None:
        self.scales, self.markets = scales, markets
        self.balances: dict[tuple[str, str], list[int]] = {}
        self.orders: dict[int, Order] = {}
        self.history: dict[int, list[tuple[int, int, str]]] = {}
        """order_id → (sequence, filled lots, status) after each change."""
        self.commands = 0

    # ------------------------------------------------------------ one command

    def take(self, sequence: int, events: list[Json]) -> None:
        """The events of one command as the drop copy of all accounts heard them. Raises Broken."""
        self.commands += 1
        taker: Order | None = None
        touched: dict[int, None] = {}
        pairs: dict[int, dict[str, Json]] = {}
        moved: dict[int, Counter[tuple[str, str, str, str]]] = {}
        for event in events:
            if event["event"] in ("trade", "prevented"):
                both = pairs.setdefault(event["index"], {})
                both.update({side: event for side in ("maker", "taker") if f"{side}_order_id" in event})
                if "maker" in both and "taker" in both:
                    handler = self._trade if event["event"] == "trade" else self._prevented
                    handler(sequence, both["maker"], both["taker"])
                    touched[both["maker"]["maker_order_id"]] = touched[both["taker"]["taker_order_id"]] = None
                continue
            name = event["event"]
            if name in ("accepted", "triggered", "replaced"):
                self._rest(taker)
                taker = None
            if name == "accepted":
                taker = self._accepted(event)
                touched[taker.order_id] = None
            elif name == "triggered":
                taker = self._order(event)
                taker.is_waiting = False
            elif name == "replaced":
                taker = self._replaced(event)
                touched[event["order_id"]] = None
            elif name == "canceled":
                self._canceled(event)
                touched[event["order_id"]] = None
            elif name == "refreshed":
                self._refreshed(event, events)
            elif name in ("transferred", "pended", "posted", "voided"):
                self._money(event, moved.setdefault(event["index"], Counter()))
            elif name == "balance":
                self._told_balance(event)
        self._rest(taker)
        for index, both in pairs.items():
            if len(both) != 2:
                raise Broken("I9", f"sequence {sequence}: event {index} was told to one side alone")
        for order_id in touched:
            order = self.orders[order_id]
            status = "open" if order.is_open else "filled" if order.leaves == 0 and order.filled else "canceled"
            self.history.setdefault(order_id, []).append((sequence, order.filled, status))
            if order.held != order.need():
                raise Broken("I2", f"sequence {sequence}: order {order_id} holds {order.held}, needs {order.need()}")
        for market in self.markets.values():
            is_open = market.phase == "continuous"
            if is_open and market.bids and market.asks and market.bids[0].price >= market.asks[0].price:
                raise Broken("I6", f"sequence {sequence}: the book of {market.name} is crossed")

    def _order(self, event: Json) -> Order:
        order = self.orders.get(event["order_id"])
        if order is None or not order.is_open:
            raise Broken("I4", f"sequence {event['sequence']}: {event['event']} of order {event['order_id']}, not open")
        return order

    def _accepted(self, event: Json) -> Order:
        market = self.markets[event["market"]]
        is_budget = "budget" in event
        size = units(event["budget"], market.quote_scale) if is_budget else ratio(event["size"], market.lot)
        order = Order(
            event["order_id"], event["account"], event["client_id"], market, event["side"] == "buy", event["type"],
            ratio(event["price"], market.tick) if "price" in event else 0, size, size, is_budget, market.taker_ppm,
            market.maker_ppm, market.k, market.u, is_waiting=event["type"].startswith("stop"),
        )  # fmt: skip
        if order.order_id in self.orders or order.order_id != event["sequence"]:
            raise Broken("I5", f"sequence {event['sequence']}: order {order.order_id} is accepted again")
        self.orders[order.order_id] = order
        self._hold(order, units(event["hold"], self._held_scale(order)))
        if order.held != order.need():
            raise Broken("I2", f"sequence {event['sequence']}: accepted with {order.held} held, needs {order.need()}")
        return order

    def _held_scale(self, order: Order) -> int:
        return self.scales[self._held_asset(order)]

    def _held_asset(self, order: Order) -> str:
        return order.market.quote if order.is_buy else order.market.base

    def _hold(self, order: Order, amount: int) -> None:
        """Move `amount` from available to held; negative gives back."""
        self._move(order.account, self._held_asset(order), -amount, amount)
        order.held += amount

    def _move(self, account: str, asset: str, available: int, held: int) -> None:
        balance = self.balances.setdefault((account, asset), [0, 0])
        balance[0] += available
        balance[1] += held
        if balance[1] < 0 or (balance[0] < 0 and not account.startswith("system:")):
            raise Broken("I2", f"{account} has {balance[0]} available and {balance[1]} held of {asset}")

    # ------------------------------------------------------------ matching

    def _half(self, order: Order) -> list[Order]:
        return order.market.bids if order.is_buy else order.market.asks

    def _rest(self, order: Order | None) -> None:
        """Its own matching is over: what is left joins the back of its price."""
        if order is None or not order.is_open or order.is_waiting or order.is_resting or order.type not in HOLDING:
            return
        half, at = self._half(order), 0
        while at < len(half) and (half[at].price >= order.price if order.is_buy else half[at].price <= order.price):
            at += 1
        half.insert(at, order)
        order.is_resting = True

    def _unrest(self, order: Order) -> None:
        if order.is_resting:
            self._half(order).remove(order)
            order.is_resting = False

    def _trade(self, sequence: int, maker_side: Json, taker_side: Json) -> None:
        market = self.markets[maker_side["market"]]
        maker, taker = self.orders[maker_side["maker_order_id"]], self.orders[taker_side["taker_order_id"]]
        where = f"sequence {sequence}: trade {maker_side['trade_id']}"
        if not (maker.is_open and taker.is_open):
            raise Broken("I4", f"{where} of an order that is over")
        if maker_side["trade_id"] != market.last_trade_id + 1:
            raise Broken("I5", f"{where} follows {market.last_trade_id}")
        market.last_trade_id += 1
        price, size = ratio(maker_side["price"], market.tick), ratio(maker_side["size"], market.lot)
        notional = price * size * market.k
        if notional != units(maker_side["notional"], market.quote_scale):
            raise Broken("I1", f"{where}: notional")
        if maker.is_buy == taker.is_buy:
            raise Broken("I6", f"{where} between two of one side")
        if market.phase not in ("", "continuous"):
            raise Broken("I6", f"{where} while {market.name} is in {market.phase}")
        is_auction = maker_side["aggressor"] == "none"
        if maker.account == taker.account and not is_auction:
            raise Broken("I14", f"{where} of {maker.account} with itself")
        if is_auction:
            for order in (maker, taker):
                if self._half(order)[0] is not order:
                    raise Broken("I6", f"{where}: order {order.order_id} is not first")
        else:
            if not maker.is_resting or self._half(maker)[0] is not maker:
                raise Broken("I6", f"{where}: order {maker.order_id} is not first")
            if price != maker.price:
                raise Broken("I6", f"{where}: not at the maker's price")
        for order in (maker, taker):
            if order.price and (price > order.price if order.is_buy else price < order.price):
                raise Broken("I6", f"{where}: outside the limit of {order.order_id}")
        buyer, seller = (maker, taker) if maker.is_buy else (taker, maker)
        fees = {}
        for order, side, told in ((maker, "maker", maker_side), (taker, "taker", taker_side)):
            ppm = max(order.maker_ppm, 0) if is_auction else order.maker_ppm if side == "maker" else order.taker_ppm
            before = ceil_div(order.exact, MILLION)
            order.exact += notional * ppm
            fee = ceil_div(order.exact, MILLION) - before
            if fee != units(told[f"{side}_fee"], market.quote_scale):
                raise Broken("I1", f"{where}: fee {told[f'{side}_fee']} of the {side}, the exact one is {fee} units")
            order.charged += fee
            fees[order.order_id] = fee
            done = notional + fee if order.is_budget else size
            order.filled += done
            order.leaves -= done
            if order.leaves < 0 or order.filled > order.size:
                raise Broken("I5", f"{where}: order {order.order_id} is filled beyond its size")
            if (units(told[f"{side}_leaves"], market.quote_scale) if order.is_budget else ratio(
                told[f"{side}_leaves"], market.lot
            )) != order.leaves:  # fmt: skip
                raise Broken("I5", f"{where}: leaves of {order.order_id}")
            if order.leaves == 0:
                self._unrest(order)
                order.is_open = False
        paid = notional + fees[buyer.order_id]
        told = maker_side if buyer is maker else taker_side
        released = units(told["maker_released" if buyer is maker else "taker_released"], market.quote_scale)
        if buyer.type in HOLDING:
            after = buyer.need()
            if released != buyer.held - after - paid:
                raise Broken("I2", f"{where}: released {released}, by the rule {buyer.held - after - paid}")
            self._move(buyer.account, market.quote, released, -(paid + released))
            buyer.held = after
        else:
            self._move(buyer.account, market.quote, -paid, 0)
        self._move(buyer.account, market.base, size * market.u, 0)
        self._move(seller.account, market.base, 0, -size * market.u)
        seller.held -= size * market.u
        self._move(seller.account, market.quote, notional - fees[seller.order_id], 0)
        self._move("system:fees", market.quote, sum(fees.values()), 0)

    def _prevented(self, sequence: int, maker_side: Json, taker_side: Json) -> None:
        for side, told in (("maker", maker_side), ("taker", taker_side)):
            order = self.orders[told[f"{side}_order_id"]]
            lots = ratio(told[f"{side}_leaves"], order.market.lot) if not order.is_budget else order.leaves
            if told["mode"] == "decrement":
                order.size -= order.leaves - lots
                order.leaves = lots
            elif lots != order.leaves:
                raise Broken("I5", f"sequence {sequence}: leaves of {order.order_id} in a prevented match")
            self._hold(order, -units(told[f"{side}_released"], self._held_scale(order)))

    def _canceled(self, event: Json) -> None:
        order = self._order(event)
        self._unrest(order)
        self._hold(order, -units(event["released"], self._held_scale(order)))
        order.is_open = False
        if order.held:
            raise Broken(
                "I2", f"sequence {event['sequence']}: canceled order {order.order_id} still holds {order.held}"
            )

    def _replaced(self, event: Json) -> Order | None:
        order = self._order(event)
        market = order.market
        price = ratio(event["price"], market.tick) if "price" in event else order.price
        size = order.size if order.is_budget else ratio(event["size"], market.lot)
        kept = event.get("priority_kept", True)
        if not kept:
            self._unrest(order)
        order.price, order.size, order.client_id = price, size, event.get("client_id", order.client_id)
        if not order.is_budget:
            order.leaves = size - order.filled
            if ratio(event["leaves"], market.lot) != order.leaves:
                raise Broken("I5", f"sequence {event['sequence']}: leaves of replaced order {order.order_id}")
        self._hold(order, -units(event["released"], self._held_scale(order)))
        if order.held != units(event["hold"], self._held_scale(order)) or order.held != order.need():
            raise Broken("I2", f"sequence {event['sequence']}: replaced holds {order.held}, needs {order.need()}")
        return None if kept else order

    def _refreshed(self, event: Json, events: list[Json]) -> None:
        """A new slice goes to the back of its price; in an uncross it stays where it is."""
        order = self._order(event)
        # A stop that an uncross sets off trades behind it, in the same command: the slice ended with the last trade.
        trades = [one for one in events if one["event"] == "trade" and one["index"] < event["index"]]
        in_auction = bool(trades) and trades[-1]["aggressor"] == "none"
        if order.is_resting and not in_auction:
            self._unrest(order)
            self._rest(order)

    # ------------------------------------------------------------ money

    def _money(self, event: Json, seen: Counter[tuple[str, str, str, str]]) -> None:
        """Each account is told of its own legs, so a leg comes twice: once to who pays, once to who is paid."""
        told = Counter((leg["from"], leg["to"], leg["asset"], leg["amount"]) for leg in event.get("legs", ()))
        news = told - seen
        seen |= told
        for source, target, asset, text in news.elements():
            amount = units(text, self.scales[asset])
            if event["event"] == "transferred":
                self._pay(source, target, asset, amount, from_held=False)
            elif event["event"] == "pended":
                self._shift(source, asset, amount)
            elif event["event"] == "posted":
                self._pay(source, target, asset, amount, from_held=True)
            else:
                self._shift(source, asset, -amount)

    def _pay(self, source: str, target: str, asset: str, amount: int, *, from_held: bool) -> None:
        self._move(target, asset, amount, 0)
        self._move(source, asset, 0 if from_held else -amount, -amount if from_held else 0)

    def _shift(self, account: str, asset: str, amount: int) -> None:
        self._move(account, asset, -amount, amount)

    def _told_balance(self, event: Json) -> None:
        scale = self.scales[event["asset"]]
        told = [units(event["available"], scale), units(event["held"], scale)]
        own = self.balances.get((event["account"], event["asset"]), [0, 0])
        if told != own:
            raise Broken(
                "I1", f"sequence {event['sequence']}: {event['account']} has {told} of {event['asset']}, not {own}"
            )
