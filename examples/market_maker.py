"""Make a market: one bid and one ask around the middle of the book, moved when the middle moves.

    .venv/bin/byline trader maker                 # opens an account, writes .data/keys/trader-maker.key
    .venv/bin/python examples/market_maker.py --key .data/keys/trader-maker.key --market INK-USDC

The market moves while an order is on its way, so a post-only price may meet the other side when it arrives
(`would_cross`): the maker then steps behind it and tries again; `--steps` says how often before it waits for the next
message of the book. The side that makes room goes first, so that its own bid and ask do not meet.

What to look at: `place` returns when the exchange has said what became of the order, whatever happens to the
connection; `trader.open_orders()` is always true; the orders end with the connection (cancel on disconnect), so a maker
that dies leaves nothing behind.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import time
from decimal import ROUND_DOWN, Decimal
from pathlib import Path

from byline.client import CommandError, ConnectionLost, NeverReceived, Rejected, Trader, load_key
from byline.client.market_data import LocalBook, MarketDataClient
from byline.client.messages import Trade


def wanted(book: LocalBook, mine: set[str], spread_ppm: int, tick: Decimal, start: Decimal) -> dict[str, Decimal]:
    """Bid and ask around the middle of what others show (`start` where they show nothing on a side)."""
    sides = [next((Decimal(price) for price, _ in side if price not in mine), None) for side in (book.bids, book.asks)]
    shown = [price for price in sides if price is not None]
    middle = sum(shown, Decimal(0)) / len(shown) if shown else start
    half = max(tick, middle * spread_ppm / 2_000_000)

    def on_tick(price: Decimal) -> Decimal:
        return max(tick, (price / tick).to_integral_value(ROUND_DOWN) * tick)

    bid = on_tick(middle - half)
    return {"buy": bid, "sell": max(on_tick(middle + half), bid + tick)}


async def quote(
    trader: Trader, market: str, side: str, price: Decimal, size: str, names: itertools.count[int], tick: Decimal,
    steps: int,
) -> int:  # fmt: skip
    """One order on this side, at this price or up to `steps` doubling steps behind it. Returns how many it took."""
    for step in range(steps + 1):
        away = tick * (2**step - 1)
        at = max(tick, price - away if side == "buy" else price + away)
        try:
            await move(trader, market, side, at, size, names)
            return step
        except Rejected as error:
            if error.reason != "would_cross":
                print(f"{side} at {at}: {error}")
                return step
        except (CommandError, ConnectionLost, NeverReceived) as error:
            print(f"{side} at {at}: {error}")  # a limit was reached, the connection broke: the next round tries again
            return step
    return steps


async def move(trader: Trader, market: str, side: str, price: Decimal, size: str, names: itertools.count[int]) -> None:
    """The order of this side at this price: replaced if there is one, placed otherwise."""
    for order in trader.open_orders():
        if order.market == market and order.side == side:
            if order.price is None or Decimal(order.price) != price:
                await trader.replace(order.client_id, price=price)
            return
    await trader.place(market, f"mm-{next(names)}", side, "limit", price=price, size=size, post_only=True)


async def follow(feed: MarketDataClient, news: asyncio.Event) -> None:
    """Keeps the book up whatever the orders wait for: a decision is always made on the newest."""
    async for _ in feed:
        news.set()
    raise ConnectionError("the feed ended")


async def tell_fills(trader: Trader) -> None:
    async for event in trader.events():
        if isinstance(event, Trade):
            side = "ask" if event.aggressor == "buy" else "bid"
            print(f"filled {event.size} at {event.price} ({side}), fee {event.maker_fee or event.taker_fee}")


async def run(args: argparse.Namespace) -> None:
    key, names = load_key(args.key.read_text()), itertools.count(time.time_ns())
    async with Trader(args.url, key) as trader, MarketDataClient(args.feed) as feed:
        telling = asyncio.create_task(tell_fills(trader))
        book = await feed.subscribe_book(args.market, depth=10)
        listed = (await trader.ask("directory"))["markets"]
        tick = next(Decimal(market["tick"]) for market in listed if market["market"] == args.market)
        news, stepped = asyncio.Event(), 0
        following = asyncio.create_task(follow(feed, news))
        following.add_done_callback(lambda _: news.set())
        try:
            async with asyncio.timeout(args.seconds):
                while not following.done():
                    await news.wait()
                    news.clear()
                    if not book.ready:
                        continue
                    mine = {order.price or "" for order in trader.open_orders()}
                    prices = wanted(book, mine, args.spread_ppm, tick, Decimal(args.start))
                    ask = next((order.price for order in trader.open_orders() if order.side == "sell"), None)
                    rises = ask is not None and prices["sell"] > Decimal(ask)
                    for side in ("sell", "buy") if rises else ("buy", "sell"):
                        stepped += await quote(
                            trader, args.market, side, prices[side], args.size, names, tick, args.steps
                        )
                following.result()  # raises why it ended
        except TimeoutError:
            pass
        following.cancel()
        await trader.cancel_all()
        telling.cancel()
        print(f"done: {len(trader.open_orders())} orders open, {trader.connections} connections, "
              f"{stepped} steps behind a market that had moved")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", default="ws://127.0.0.1:7401", help="order entry")
    parser.add_argument("--feed", default="ws://127.0.0.1:7402", help="market data")
    parser.add_argument("--key", type=Path, required=True, help="file with the private key, 64 hex digits")
    parser.add_argument("--market", default="INK-USDC")
    parser.add_argument("--size", default="1", help="of each order, in base")
    parser.add_argument("--spread-ppm", type=int, default=4_000, help="between bid and ask, millionths of the price")
    parser.add_argument("--steps", type=int, default=6, help="how often a price that would cross is moved back")
    parser.add_argument("--start", default="1", help="the middle while the book is empty")
    parser.add_argument("--seconds", type=float, help="stop after so long; without it at Ctrl-C")
    asyncio.run(run(parser.parse_args()))
