"""Where does the time of an order go? Place far from the market, cancel, and read the stamps in the acks.

    .venv/bin/byline trader probe
    .venv/bin/python examples/latency_probe.py --key .data/keys/trader-probe.key --market INK-USDC --count 1000

Every ack carries times of the exchange's clock: `t_in` (frame read), `t_matched`, `t_durable` (on disk), `t_out` (ack
written). The round trip is measured here, so what is left of it is the network and this client. Only differences within
one clock are formed: nothing here needs clocks that agree. With `--every` orders leave by plan, and the round trip
counts from the planned time, so that a stall is charged to all who waited.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from pathlib import Path
from typing import Any

from byline.client import TradingClient, load_key


def line(name: str, values: list[int]) -> str:
    """Percentiles of nanoseconds, told in microseconds."""
    values = sorted(values)
    marks = [values[min(len(values) - 1, int(len(values) * share))] / 1e3 for share in (0.5, 0.9, 0.99, 0.999)]
    return f"{name:<20}" + "".join(f"{mark:>11,.1f}" for mark in [*marks, values[-1] / 1e3])


async def probe(client: TradingClient, market: str, price: str, size: str, count: int, every_s: float) -> None:
    found: dict[str, list[int]] = {"round trip": []}
    begin = time.perf_counter_ns()
    for number in range(count):
        planned = begin + int(number * every_s * 1e9)
        await asyncio.sleep(max(0, planned - time.perf_counter_ns()) / 1e9)
        start = planned if every_s else time.perf_counter_ns()
        ack: dict[str, Any] = await client.place(
            market, f"probe-{begin}-{number}", "buy", "limit", size=size, price=price, post_only=True
        )
        found["round trip"].append(time.perf_counter_ns() - start)
        for name, first, last in (
            ("in to matched", "t_in", "t_matched"), ("matched to durable", "t_matched", "t_durable"),
            ("in to out", "t_in", "t_out"),
        ):  # fmt: skip
            if last in ack:  # acks from memory know nothing of the disk
                found.setdefault(name, []).append(max(0, ack[last] - ack[first]))
        await client.cancel(order_id=ack["order_id"])
    print(f"{'microseconds':<20}" + "".join(f"{mark:>11}" for mark in ("p50", "p90", "p99", "p99.9", "worst")))
    for name, values in found.items():
        print(line(name, values))


async def run(args: argparse.Namespace) -> None:
    async with await TradingClient.connect(args.url, load_key(args.key.read_text())) as client:
        who = await client.whoami()
        print(f"tier {who.get('tier')}, {who.get('rate_left', 'any number of')} requests left")
        await probe(client, args.market, args.price, args.size, args.count, args.every)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", default="ws://127.0.0.1:7401", help="order entry")
    parser.add_argument("--key", type=Path, required=True, help="file with the private key, 64 hex digits")
    parser.add_argument("--market", default="INK-USDC")
    parser.add_argument("--price", default="0.01", help="far below the market")
    parser.add_argument("--size", default="1")
    parser.add_argument("--count", type=int, default=40, help="a plain key has 100 requests a minute")
    parser.add_argument("--every", type=float, default=0.0, help="seconds between planned orders; 0: one after another")
    asyncio.run(run(parser.parse_args()))
