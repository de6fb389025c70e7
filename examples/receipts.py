"""Keep proof of what was acked: place an order with a receipt, and verify the exchange's signature on it.

    .venv/bin/byline trader alice                 # opens an account, writes .data/keys/trader-alice.key
    .venv/bin/python examples/receipts.py --key .data/keys/trader-alice.key --market INK-USDC --out receipt.json
    .venv/bin/python examples/receipts.py --check receipt.json --exchange-key 64-HEX-DIGITS --environment local

What to look at: the receipt names a key of its own, which proves nothing; give the one that you know. Here it is that
of the first sign-in, which you would keep from then on. A receipt of which one digit was changed is refused.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from pathlib import Path

from byline.client import Trader, load_key, verify_receipt
from byline.client.messages import Receipt


async def place(args: argparse.Namespace) -> None:
    key = load_key(args.key.read_text())
    async with Trader(args.url, key) as trader:
        events = trader.events()
        name = f"receipt-{time.time_ns()}"
        order = await trader.place(args.market, name, "buy", "limit", size=args.size, price=args.price, receipt=True)
        async for event in events:
            if isinstance(event, Receipt) and event.sequence == order.order_id:
                break
        client = await trader.wait_ready()
        exchange_key, environment = client.signed_in["receipt_key"], client.hello["environment"]
        receipt = {name: getattr(event, name) for name in event.__struct_fields__ if name != "rid"}
        sequence = verify_receipt(receipt, exchange_key, environment)  # raises ReceiptInvalid
        args.out.write_text(json.dumps(receipt) + "\n")
        print(f"order {order.client_id} stands in the journal as command {sequence}; {args.out} proves it")
        print(f"check it with --check {args.out} --exchange-key {exchange_key} --environment {environment}")
        await trader.cancel(name)


def check(args: argparse.Namespace) -> None:
    sequence = verify_receipt(json.loads(args.check.read_text()), args.exchange_key, args.environment)
    print(f"signed by the exchange: command {sequence}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", default="ws://127.0.0.1:7401", help="order entry")
    parser.add_argument("--key", type=Path, help="file with the private key, 64 hex digits")
    parser.add_argument("--market", default="INK-USDC")
    parser.add_argument("--size", default="1", help="of the order, in base")
    parser.add_argument("--price", default="0.01", help="so low that it rests")
    parser.add_argument("--out", type=Path, default=Path("receipt.json"), help="where the receipt is kept")
    parser.add_argument("--check", type=Path, help="only verify this file; needs the next two")
    parser.add_argument("--exchange-key", help="the exchange's public key as you know it, 64 hex digits")
    parser.add_argument("--environment", default="local", help="as the exchange's hello says")
    given = parser.parse_args()
    if given.check:
        if not given.exchange_key:
            parser.error("--check needs --exchange-key: whoever wrote the receipt cannot vouch for it")
        check(given)
    elif given.key:
        asyncio.run(place(given))
    else:
        parser.error("--key or --check")
