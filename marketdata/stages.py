"""How long the stages of a flush take, as histograms since the start: at /metrics and as the channel `latency`.

    journal_to_flush    from the command's time in the journal to the flush that tells of it (needs clocks that agree)
    read                reading the event log and keeping the books
    build               messages and frames, once for each stream
    write               one write for each reader
    flush               all of it

Bounds double from 16 µs to 16.8 s; the last bucket is what took longer. Never: keeps single values.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import Any

import msgspec

from marketdata.frames import text_frame

__all__ = ["BOUNDS_US", "STAGES", "Histogram", "Stages"]

BOUNDS_US = tuple(16 << power for power in range(21))
STAGES = ("journal_to_flush", "read", "build", "write", "flush")
_ENCODER = msgspec.json.Encoder()


class Histogram:
    """Counts by upper bound, in microseconds."""

    __slots__ = ("count", "counts", "sum_us")

    def __init__(self) -> None:
        self.counts = [0] * (len(BOUNDS_US) + 1)
        self.count = 0
        self.sum_us = 0.0

    def observe(self, seconds: float) -> None:
        """A negative time (clocks that do not agree) counts as none."""
        microseconds = max(0.0, seconds * 1e6)
        self.counts[bisect_left(BOUNDS_US, microseconds)] += 1
        self.count += 1
        self.sum_us += microseconds

    def quantile_us(self, share: float) -> int | None:
        """The bound that so many lie at or below; None without a value, -1 beyond the last bound."""
        wanted, seen = share * self.count, 0
        if not self.count:
            return None
        for bound, count in zip(BOUNDS_US, self.counts, strict=False):
            seen += count
            if seen >= wanted:
                return bound
        return -1

    def told(self) -> dict[str, Any]:
        """As JSON: counts as [upper bound in µs, how many]; bound -1 is beyond the last."""
        buckets = [[bound, count] for bound, count in zip((*BOUNDS_US, -1), self.counts, strict=True)]
        return {
            "count": self.count, "sum_us": round(self.sum_us), "p50_us": self.quantile_us(0.5),
            "p99_us": self.quantile_us(0.99), "buckets": buckets,
        }  # fmt: skip


class Stages:
    """One histogram a stage."""

    def __init__(self) -> None:
        self.histograms = {name: Histogram() for name in STAGES}

    def observe(self, stage: str, seconds: float) -> None:
        self.histograms[stage].observe(seconds)

    def told(self) -> dict[str, Any]:
        return {name: histogram.told() for name, histogram in self.histograms.items()}

    def frame(self, word: str, seq: int, prev_seq: int) -> bytes:
        """Text in every encoding."""
        chain = {} if prev_seq < 0 else {"prev_seq": prev_seq}
        kind = "snapshot" if prev_seq < 0 else word
        return text_frame(
            _ENCODER.encode({"type": kind, "channel": "latency", "seq": seq, **chain, "stages": self.told()})
        )
