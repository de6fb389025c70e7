"""The drivers in `bench/native`: compiled when they are first asked for, and what they measure on a `Core`.

`Native` is our own harness on the C door of engine/core.h: what our benches call native. A compiled driver stays in
`build/bench` under the digest of its sources and flags, so a change is never missed and nothing is compiled twice.

Never takes a number from a run that was refused: every refusal by the door or by the core raises `WrongResult`.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bench.harness import WrongResult
from engine.core import Core
from engine.messages import layout

__all__ = ["BATCH", "FLAGS", "EVENT_SLOTS", "Native", "NoCompiler", "Totals", "library", "ns_per_tick", "timer_ticks"]

ROOT = Path(__file__).parent.parent
FLAGS = ("-O3", "-shared", "-fPIC", "-Wall", "-Wextra", "-Werror")
EVENT_SLOTS = 1 << 15
"""Slots of the event buffer: 4 MiB. Every batch starts at its beginning, so what is written stays in the cache."""
BATCH = 512
"""Records a call of the C door gets, where nothing else is said."""


class NoCompiler(Exception):
    """There is no C compiler, or it refused; the text says which."""


class Totals(ctypes.Structure):
    """What the driver counted in the events, and the CPU time that it took. Mirrors `Totals` of byline.c."""

    _fields_ = (
        ("trades", ctypes.c_uint64),
        ("volume", ctypes.c_uint64),
        ("refused", ctypes.c_uint64),
        ("notional", ctypes.c_int64),
        ("ns", ctypes.c_int64),
    )
    trades: int
    volume: int
    refused: int
    notional: int
    ns: int


@functools.cache
def library(name: str) -> ctypes.CDLL:
    """The driver `bench/native/NAME.c` as a loaded library.

    Raises:
        NoCompiler: it cannot be compiled here.
    """
    folder = Path(__file__).parent / "native"
    sources = [folder / f"{name}.c", *sorted(folder.glob("*.h")), ROOT / "engine" / "core.h"]
    digest = hashlib.sha256(" ".join(FLAGS).encode() + b"".join(path.read_bytes() for path in sources)).hexdigest()
    target = ROOT / "build" / "bench" / f"{name}-{digest[:16]}.so"
    if not target.exists():
        compiler = shutil.which(os.environ.get("CC", "cc"))
        if compiler is None:
            raise NoCompiler("no C compiler: cc")
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_suffix(f".{os.getpid()}")
        command = [compiler, *FLAGS, f"-I{ROOT}", str(sources[0]), "-o", str(partial), "-ldl"]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise NoCompiler(f"{name}.c does not compile: {done.stderr.strip()[-400:]}")
        partial.rename(target)
    loaded = ctypes.CDLL(str(target))
    return loaded


def _driver() -> ctypes.CDLL:
    loaded = library("byline")
    for name in ("collect", "play", "bare", "singles", "ticks", "timer"):
        getattr(loaded, name).restype = ctypes.c_int64
    loaded.ns_per_tick.restype = ctypes.c_double
    return loaded


def ns_per_tick() -> float:
    """Nanoseconds of one tick of the cycle counter, measured over 50 ms."""
    return float(_driver().ns_per_tick(ctypes.c_int64(50_000_000)))


def timer_ticks(readings: int = 100_000) -> np.ndarray:
    """What the timer reads with nothing between its two readings, ticks."""
    made = np.zeros(readings, np.uint32)
    _driver().timer(ctypes.c_int64(readings), ctypes.c_void_p(made.ctypes.data))
    return made


_pointer = ctypes.pythonapi.PyCapsule_GetPointer
_pointer.restype = ctypes.c_void_p
_pointer.argtypes = [ctypes.py_object, ctypes.c_char_p]


@dataclass(frozen=True, slots=True)
class Span:
    """Slots `start` … `stop` of an array of records."""

    records: np.ndarray
    start: int
    stop: int

    def __post_init__(self) -> None:
        if not (self.records.dtype.itemsize == layout.SLOT_BYTES and self.records.flags.c_contiguous):
            raise ValueError("records must be a contiguous array of slots")
        if not 0 <= self.start <= self.stop <= len(self.records):
            raise ValueError(f"slots {self.start} … {self.stop} of {len(self.records)}")


class Native:
    """The C driver on one core, with an event buffer of its own.

    Every method applies records and raises WrongResult if the door or the core refused one.
    """

    def __init__(self, core: Core, event_slots: int = EVENT_SLOTS) -> None:
        self._core = core  # must outlive the port
        self._capsule = core.port()
        self._port = ctypes.c_void_p(_pointer(self._capsule, b"byline.CorePort"))
        self._driver = _driver()
        self._events = np.zeros(event_slots, layout.EVENT)
        self._events["sequence"] = 1  # the pages are there before the clock starts

    def _run(self, name: str, span: Span, *more: object, after: tuple[object, ...] = ()) -> Totals:
        totals = Totals()
        status = getattr(self._driver, name)(
            self._port, ctypes.c_void_p(span.records.ctypes.data), ctypes.c_int64(span.start),
            ctypes.c_int64(span.stop), *more, ctypes.c_void_p(self._events.ctypes.data),
            ctypes.c_int64(len(self._events)), *after, ctypes.byref(totals),
        )  # fmt: skip
        if status or totals.refused:
            raise WrongResult(f"{name}: the door said {status}, the core refused {totals.refused} commands")
        return totals

    def collect(self, records: np.ndarray, event_slots: int, batch: int = BATCH) -> np.ndarray:
        """The events of all records, kept in a buffer of that many slots; dtype EVENT."""
        span, events = Span(records, 0, len(records)), np.zeros(event_slots, layout.EVENT)
        used = self._driver.collect(
            self._port, ctypes.c_void_p(span.records.ctypes.data), ctypes.c_int64(0), ctypes.c_int64(span.stop),
            ctypes.c_int64(batch), ctypes.c_void_p(events.ctypes.data), ctypes.c_int64(event_slots),
        )  # fmt: skip
        if used < 0:
            raise WrongResult(f"collect: the door said {used}")
        return events[:used]

    def play(self, records: np.ndarray, start: int = 0, stop: int | None = None, batch: int = BATCH) -> Totals:
        """Apply the records in batches; the time is that of the whole loop, counting the events included."""
        span = Span(records, start, len(records) if stop is None else stop)
        return self._run("play", span, ctypes.c_int64(batch))

    def bare(self, records: np.ndarray, start: int = 0, stop: int | None = None, batch: int = BATCH) -> float:
        """Seconds for the records in batches, without a look at their events: what the doors for Python are held to."""
        span = Span(records, start, len(records) if stop is None else stop)
        return self._run("bare", span, ctypes.c_int64(batch)).ns / 1e9

    def singles(self, records: np.ndarray, start: int = 0, stop: int | None = None) -> Totals:
        """One call a record."""
        return self._run("singles", Span(records, start, len(records) if stop is None else stop))

    def ticks(self, records: np.ndarray, start: int = 0, stop: int | None = None) -> tuple[np.ndarray, np.ndarray]:
        """(ticks, fills) of every record, one call a record; records of one slot only. 2^32 - 1 ticks: or more."""
        span = Span(records, start, len(records) if stop is None else stop)
        taken, fills = np.zeros(span.stop - span.start, np.uint32), np.zeros(span.stop - span.start, np.uint32)
        after = (ctypes.c_void_p(taken.ctypes.data), ctypes.c_void_p(fills.ctypes.data))
        self._run("ticks", span, after=after)
        return taken, fills
