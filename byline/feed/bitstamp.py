"""A real order-by-order capture (Bitstamp BTC/USD, 30 minutes) as commands of the order entry.

The capture rides in a source package of the Python index, under its own licence: it is downloaded when asked for, its
digest is checked, and it is never part of this project. 314,057 rows: created, changed, deleted.

Rule of conversion: `created` is a limit order; `deleted` cancels it if it still rests; a `changed` row with another
price is cancel and new, one with another volume alone is left out (the fill that caused it happens here by itself);
prices outside 40,000 … 160,000 are dropped. A post-match feed replayed as commands trades more than the venue did,
because marketable orders stand in the feed before their fills.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import os
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

from engine.messages.errors import PartMissing

__all__ = ["MARKET", "PRICE_RANGE", "FeedCommand", "convert", "fetch_capture", "setup_commands"]

PACKAGE = "ob-analytics==0.1.0"
MEMBER = "ob_analytics/_sample_data/orders.csv.gz"
SHA256 = "880501e94fb43942b7f98cbc37bab421d72703d85898aae8de5da117bf62cdfc"
PRICE_RANGE = (40_000, 160_000)

BASE, QUOTE, MARKET = "BTC-T", "USD-T", "BTC-T_USD-T"


@dataclass(frozen=True, slots=True)
class FeedCommand:
    """One command of the feed. `order` names the capture's order; `revision` counts its re-prices."""

    op: str  # place or cancel
    order: int
    revision: int
    side: str = ""
    price: str = ""
    size: str = ""

    @property
    def client_id(self) -> str:
        return f"{self.order}.{self.revision}"


def fetch_capture(cache: Path) -> Path:
    """The capture as a gzipped CSV in `cache`, downloaded once and checked by its digest.

    Raises:
        PartMissing: it can neither be found nor downloaded, or its digest differs.
    """
    target = cache / "bitstamp-btcusd-2026-05-02.csv.gz"
    if target.exists() and hashlib.sha256(target.read_bytes()).hexdigest() == SHA256:
        return target
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as directory:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
        command += ["--no-deps", "--no-binary", ":all:", "--dest", directory, PACKAGE]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        archives = list(Path(directory).glob("*.tar.gz"))
        if done.returncode or not archives:
            raise PartMissing(f"cannot download {PACKAGE} with pip: {done.stderr.strip()[-400:] or 'no archive came'}")
        with tarfile.open(archives[0]) as archive:
            names = [name for name in archive.getnames() if name.endswith(MEMBER)]
            member = archive.extractfile(names[0]) if names else None
            if member is None:
                raise PartMissing(f"{archives[0].name} holds no {MEMBER}")
            data = member.read()
    if (digest := hashlib.sha256(data).hexdigest()) != SHA256:
        raise PartMissing(f"{MEMBER} has digest {digest}, expected {SHA256}")
    partial = target.with_suffix(f".{os.getpid()}")
    partial.write_bytes(data)
    partial.rename(target)
    return target


def convert(capture: Path) -> Iterator[FeedCommand]:
    """The commands of the capture in its order."""
    low, high = PRICE_RANGE
    live: dict[int, tuple[int, str]] = {}  # order → (revision, price)
    with io.TextIOWrapper(gzip.open(capture, "rb"), encoding="ascii", newline="") as text:
        for row in csv.DictReader(text):
            order, action = int(row["id"]), row["action"]
            side = "buy" if row["direction"] == "bid" else "sell"
            price = row["price"].removesuffix(".0")
            inside = "." not in price and low <= int(price) <= high
            known = live.get(order)
            if action == "deleted":
                if known:
                    del live[order]
                    yield FeedCommand("cancel", order, known[0])
            elif action == "created":
                if inside and known is None and (size := _size(row["volume"])):
                    live[order] = (0, price)
                    yield FeedCommand("place", order, 0, side, price, size)
            elif known and price != known[1]:
                yield FeedCommand("cancel", order, known[0])
                del live[order]
                if inside and (size := _size(row["volume"])):
                    live[order] = (known[0] + 1, price)
                    yield FeedCommand("place", order, known[0] + 1, side, price, size)


def _size(volume: str) -> str:
    """A decimal with at most 8 places; empty for zero."""
    number = Decimal(volume)  # the capture writes 1e-08 for a satoshi
    return f"{number.normalize():f}" if number else ""


def setup_commands() -> list[dict[str, object]]:
    """Assets and market of the replay. Prices are whole dollars, sizes whole satoshi, as in the capture."""
    return [
        {"op": "asset", "asset": BASE, "scale": 8, "settled": True},
        {"op": "asset", "asset": QUOTE, "scale": 8, "settled": True},
        {
            "op": "market", "market": MARKET, "base": BASE, "quote": QUOTE, "tick": "1", "lot": "0.00000001",
            "max_price": "200000", "max_size": "100000",
        },
    ]  # fmt: skip
