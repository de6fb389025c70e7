"""Record every change of a book, and prove that the record is whole.

    .venv/bin/python examples/book_recorder.py --market INK-USDC --out ink.jsonl --seconds 60
    .venv/bin/python examples/book_recorder.py --check ink.jsonl

The stream is lossless: a message for every command that changed the book. Each names the one before it (`prev_seq`)
and carries a checksum over the whole book, so `--check`, with the file alone, rebuilds every state and notices any line
that is missing or changed. The client does the same while it records, and subscribes anew if something was lost.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from pathlib import Path

from byline.client.market_data import BookGap, LocalBook, MarketDataClient


async def record(feed_url: str, market: str, out: Path, seconds: float | None) -> None:
    """Write the messages of the book as they came, one a line."""
    channel, count = f"book:{market}", 0
    with out.open("w") as file:
        async with MarketDataClient(feed_url) as feed:
            book = await feed.subscribe_book(market, depth=0, mode="lossless")
            try:
                async with asyncio.timeout(seconds):
                    async for message in feed:
                        if message.get("channel") == channel and message["type"] in ("snapshot", "update"):
                            file.write(json.dumps(message) + "\n")
                            count += 1
            except TimeoutError:
                pass
    print(f"{count} messages, up to sequence {book.seq}, {book.gap_count} gaps")


def check(path: Path) -> int:
    """Rebuild the book from a record; the exit code. A snapshot within it begins anew, as it did for the recorder."""
    book, line = LocalBook(str(path)), 0
    with path.open() as file:
        try:
            for text in file:
                line += 1
                book.apply(json.loads(text))
        except (BookGap, ValueError, KeyError) as error:
            print(f"line {line}: {error!r}")
            return 1
    print(f"{line} messages are whole; at sequence {book.seq}: {len(book.bids)} bids, {len(book.asks)} asks")
    return 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--feed", default="ws://127.0.0.1:7402", help="market data")
    parser.add_argument("--market", default="INK-USDC")
    parser.add_argument("--out", type=Path, default=Path("book.jsonl"), help="the record, one JSON object a line")
    parser.add_argument("--seconds", type=float, help="stop after so long; without it at Ctrl-C")
    parser.add_argument("--check", type=Path, help="verify this record instead")
    args = parser.parse_args()
    if args.check:
        sys.exit(check(args.check))
    asyncio.run(record(args.feed, args.market, args.out, args.seconds))
