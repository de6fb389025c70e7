"""Workloads W1 … W5: the commands of a limit order book, and what must come of them. Deterministic, integers only.

Each generator plays its commands into a plain reference book as it draws them, so the expected trades, volume, notional
and hash come with the file. The same seed gives the same bytes on every machine.

    W1  realistic: about 1,000 resting orders; 42 % passive adds, 43 % cancels, 6 % moves, 9 % aggressive
    W2  deep: 1 M resting on 100,000 levels; random add and cancel
    W3  sweep: each aggressor takes 20 … 100 resting orders
    W4  wide: the mid walks over 10^6 ticks, about 50,000 resting, oldest cancelled first
    W5  move-heavy: 9 % gtc, 3 % ioc, 6 % cancel, 82 % move

LOBW file, little endian: a header of 64 bytes (magic `LOBWv1`, header and record size, preload count, op count,
highest id, lowest and highest price, seed), then records of 24 bytes: op, side, zero, qty, id, price. Every cancel and
move names a resting order, so nothing is ever refused. A move keeps the open quantity, loses its time, never crosses.
"""

from __future__ import annotations

import hashlib
import heapq
import json
import random
import struct
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TypeAlias

import numpy as np

__all__ = ["RECORD", "Live", "ReferenceBook", "Workload", "generate", "head", "of_records", "read", "stored", "write"]

RECORD = np.dtype([("op", "u1"), ("side", "u1"), ("zero", "<u2"), ("qty", "<u4"), ("id", "<u8"), ("price", "<i8")])
MAGIC = b"LOBWv1\0\0"
HEADER = struct.Struct("<8sIIQQQqqQ")

M64 = (1 << 64) - 1
LIMIT, IOC, MARKET, CANCEL, MOVE = range(5)


_Levels: TypeAlias = dict[int, dict[int, int]]
"""Price to the orders at it, id to quantity: insertion order is time."""


class ReferenceBook:
    """Plain price-time book: the semantics of record for these files."""

    __slots__ = ("side", "heap", "where", "trades", "volume", "notional", "h", "makers")

    def __init__(self) -> None:
        self.side: tuple[_Levels, _Levels] = ({}, {})
        self.heap: tuple[list[int], list[int]] = ([], [])  # keys: -price for bids, price for asks
        self.where: dict[int, tuple[int, int]] = {}  # id -> (side, price)
        self.trades = self.volume = self.notional = 0
        self.h = 0xCBF29CE484222325
        self.makers: list[int] = []     # ids filled completely by the last call

    def best(self, s: int) -> int | None:
        hp, lv = self.heap[s], self.side[s]
        while hp:
            p = -hp[0] if s == 0 else hp[0]
            if p in lv:
                return p
            heapq.heappop(hp)
        return None

    def rest(self, i: int, s: int, p: int, q: int) -> None:
        lv = self.side[s]
        d = lv.get(p)
        if d is None:
            lv[p] = {i: q}
            heapq.heappush(self.heap[s], -p if s == 0 else p)
        else:
            d[i] = q
        self.where[i] = (s, p)

    def take(self, i: int, s: int, p: int | None, q: int) -> int:
        """Match; p None = market. Returns what is left."""
        o = 1 - s
        lv = self.side[o]
        self.makers.clear()
        while q:
            b = self.best(o)
            if b is None or (p is not None and (b > p if s == 0 else b < p)):
                break
            d = lv[b]
            while q and d:
                m = next(iter(d))
                mq = d[m]
                f = mq if mq < q else q
                q -= f
                self.trades += 1
                self.volume += f
                self.notional += f * b
                h = self.h
                h = ((h ^ ((m * 0x9E3779B97F4A7C15 + i) & M64)) * 0x100000001B3) & M64
                self.h = ((h ^ ((b * 0x9E3779B97F4A7C15 + f) & M64)) * 0x100000001B3) & M64
                if f == mq:
                    del d[m]
                    del self.where[m]
                    self.makers.append(m)
                else:
                    d[m] = mq - f
            if not d:
                del lv[b]
        return q

    def limit(self, i: int, s: int, p: int, q: int) -> int:
        q = self.take(i, s, p, q)
        if q:
            self.rest(i, s, p, q)
        return q

    def cancel(self, i: int) -> tuple[int, int, int]:
        s, p = self.where.pop(i)
        d = self.side[s][p]
        q = d.pop(i)
        if not d:
            del self.side[s][p]
        return s, p, q

    def open_qty(self, i: int) -> int:
        s, p = self.where[i]
        return self.side[s][p][i]


class Live:
    """Set of live ids with O(1) random choice."""

    def __init__(self) -> None:
        self.a: list[int] = []
        self.at: dict[int, int] = {}

    def add(self, i: int) -> None:
        self.at[i] = len(self.a)
        self.a.append(i)

    def drop(self, i: int) -> None:
        k = self.at.pop(i, None)
        if k is None:
            return
        last = self.a.pop()
        if last != i:
            self.a[k] = last
            self.at[last] = k

    def __len__(self) -> int:
        return len(self.a)


class Writer:
    def __init__(self) -> None:
        self.buf = bytearray()
        self.n = 0
        self.lo, self.hi = 1 << 62, -(1 << 62)
        self.pack = struct.Struct("<BBHIQq").pack

    def put(self, op: int, side: int, qty: int, i: int, price: int) -> None:
        self.buf += self.pack(op, side, 0, qty, i, price)
        self.n += 1
        if op not in (MARKET, CANCEL):
            if price < self.lo:
                self.lo = price
            if price > self.hi:
                self.hi = price


def power_distance(rnd: Callable[[], float], scale: float, alpha: float, cap: int) -> int:
    return min(cap, 1 + int(((1.0 - rnd()) ** (-1.0 / alpha) - 1.0) * scale))


_Drawn: TypeAlias = tuple[ReferenceBook, Writer, int, int]
"""The book, the file, the preload count and the highest id."""


def w1(rng: random.Random, n: int = 3_000_000, moves: bool = False) -> _Drawn:
    b, w, live = ReferenceBook(), Writer(), Live()
    rnd = rng.random
    fair, nid, recent, rp = 100_000, 0, [0] * 256, 0

    def passive(s: int) -> int:
        d = power_distance(rnd, 40.0, 1.1, 1800)
        p = fair - d if s == 0 else fair + d
        o = b.best(1 - s)
        if o is not None:                       # never crosses
            p = min(p, o - 1) if s == 0 else max(p, o + 1)
        return p

    def add(s: int, p: int, q: int) -> None:
        nonlocal nid, rp
        nid += 1
        w.put(LIMIT, s, q, nid, p)
        left = b.limit(nid, s, p, q)
        for m in b.makers:
            live.drop(m)
        if left:
            live.add(nid)
            recent[rp & 255] = nid
            rp += 1

    def qty() -> int:
        return 1 + int(rnd() * 100)

    for k in range(1000):
        add(k & 1, passive(k & 1), qty())
    pre = w.n
    if moves:
        c_add, c_agg, c_move = 0.09, 0.12, 0.94
    else:
        c_add, c_agg, c_move = 0.42, 0.51, 0.57
    while w.n < pre + n:
        if rnd() < 0.01:
            fair += 1 if rnd() < 0.5 else -1
        r = rnd()
        s = 1 if rnd() < 0.5 else 0
        nl = len(live)
        if r < c_add and nl < 1300 or nl < 700:
            add(s, passive(s), qty())
        elif r < c_agg:                         # aggressive: one third trades
            o, own = b.best(1 - s), b.best(s)
            x = rnd()
            if o is None or own is None:
                continue
            if x < 0.34:                        # trades
                y = rnd()
                if y < 0.4:
                    add(s, o, qty())
                else:
                    nid += 1
                    q = qty()
                    if y < 0.8:
                        p = o + 2 if s == 0 else o - 2
                        w.put(IOC, s, q, nid, p)
                    else:
                        p = None
                        w.put(MARKET, s, q, nid, 0)
                    b.take(nid, s, p, q)
                    for m in b.makers:
                        live.drop(m)
            elif x < 0.67:                      # joins or improves the touch
                p = own + 1 if s == 0 else own - 1
                if p >= o and s == 0 or p <= o and s == 1:
                    p = own
                add(s, p, qty())
            else:                               # IOC that misses
                nid += 1
                w.put(IOC, s, qty(), nid, own)
        elif r < c_move:
            i = live.a[int(rnd() * nl)]
            s = b.where[i][0]
            p = passive(s)
            s, _, q = b.cancel(i)
            w.put(MOVE, s, q, i, p)
            b.rest(i, s, p, q)
        else:
            i = recent[int(rnd() * 256)] if rnd() < 0.5 else live.a[int(rnd() * nl)]
            if i not in b.where:
                i = live.a[int(rnd() * nl)]
            s = b.cancel(i)[0]
            live.drop(i)
            w.put(CANCEL, s, 0, i, 0)
    return b, w, pre, nid


def w2(rng: random.Random, n: int = 2_000_000, resting: int = 1_000_000, half: int = 50_000) -> _Drawn:
    b, w, live = ReferenceBook(), Writer(), Live()
    rnd = rng.random
    nid = 0

    def add() -> None:
        nonlocal nid
        nid += 1
        s = 1 if rnd() < 0.5 else 0
        p = 1 + int(rnd() * half) + (half if s else 0)
        q = 1 + int(rnd() * 100)
        w.put(LIMIT, s, q, nid, p)
        b.rest(nid, s, p, q)
        live.add(nid)

    for _ in range(resting):
        add()
    pre = w.n
    for _ in range(n):
        if rnd() < 0.5:
            add()
        else:
            i = live.a[int(rnd() * len(live))]
            s = b.cancel(i)[0]
            live.drop(i)
            w.put(CANCEL, s, 0, i, 0)
    return b, w, pre, nid


def w3(rng: random.Random, n: int = 2_000_000, resting: int = 4000) -> _Drawn:
    b, w = ReferenceBook(), Writer()
    rnd = rng.random
    mid, nid = 50_000, 0
    fifo: list[int] = []
    head = 0

    def passive(s: int) -> None:
        nonlocal nid
        nid += 1
        d = 1 + int(rnd() * 400)
        p = mid - d if s == 0 else mid + d
        q = 1 + int(rnd() * 10)
        w.put(LIMIT, s, q, nid, p)
        b.rest(nid, s, p, q)
        fifo.append(nid)

    for k in range(resting):
        passive(k & 1)
    pre = w.n
    while w.n < pre + n:
        s = 1 if rnd() < 0.5 else 0             # aggressor's side
        k = 20 + int(rnd() * 81)
        for _ in range(k + k // 4):
            passive(1 - s)
        while len(b.where) > resting:           # deep leftovers age out
            while fifo[head] not in b.where:
                head += 1
            i = fifo[head]
            w.put(CANCEL, b.cancel(i)[0], 0, i, 0)
            if len(b.where) <= resting + k:
                break
        need, left = 0, k                       # quantity of the first k orders
        last: int | None = None
        lv = b.side[1 - s]
        for p in sorted(lv, reverse=(s == 1)):
            for q in lv[p].values():
                need += q
                left -= 1
                if not left:
                    break
            last = p
            if not left:
                break
        assert last is not None, "a deep book has orders on both sides"
        nid += 1
        if rnd() < 0.5:
            w.put(IOC, s, need, nid, last)
            b.take(nid, s, last, need)
        else:
            w.put(LIMIT, s, need, nid, last)
            b.limit(nid, s, last, need)
    return b, w, pre, nid


def w4(
    rng: random.Random, n: int = 3_000_000, resting: int = 50_000, span: int = 1_000_000, far: int = 100_000
) -> _Drawn:
    b, w = ReferenceBook(), Writer()
    rnd = rng.random
    mid, nid = span // 2, 0
    fifo: list[int] = []
    head = 0

    def add() -> None:
        nonlocal nid
        nid += 1
        s = 1 if rnd() < 0.5 else 0
        d = 1 + int(rnd() * far)
        p = mid - d if s == 0 else mid + d
        p = min(max(p, 1), span)
        q = 1 + int(rnd() * 100)
        w.put(LIMIT, s, q, nid, p)
        if b.limit(nid, s, p, q):
            fifo.append(nid)

    for _ in range(resting):
        add()
    pre = w.n
    while w.n < pre + n:
        mid += int(rnd() * 1001) - 500
        if mid < 1000:
            mid = 2000 - mid
        elif mid > span - 1000:
            mid = 2 * (span - 1000) - mid
        r = rnd()
        if r < 0.02:
            s = 1 if rnd() < 0.5 else 0
            o = b.best(1 - s)
            if o is None:
                continue
            nid += 1
            p = o + 500 if s == 0 else max(1, o - 500)
            q = 50 + int(rnd() * 500)
            w.put(IOC, s, q, nid, p)
            b.take(nid, s, p, q)
        elif r < 0.51 or len(b.where) < resting // 2:
            add()
        else:
            while fifo[head] not in b.where:
                head += 1
            i = fifo[head]
            s = b.cancel(i)[0]
            w.put(CANCEL, s, 0, i, 0)
    return b, w, pre, nid


SEEDS: dict[str, tuple[Callable[..., _Drawn], int, dict[str, int]]] = {
    "W1": (w1, 20260801, {"n": 20_000}),
    "W2": (w2, 20260802, {"n": 5_000, "resting": 10_000, "half": 2_000}),
    "W3": (w3, 20260803, {"n": 10_000, "resting": 1_000}),
    "W4": (w4, 20260804, {"n": 10_000, "resting": 2_000}),
    "W5": (lambda rng, **size: w1(rng, moves=True, **size), 20260805, {"n": 20_000}),
}


@dataclass(frozen=True, slots=True)
class Workload:
    """Commands (dtype RECORD, the first `preload` untimed) and what the reference book made of them."""

    name: str
    seed: int
    preload: int
    records: np.ndarray
    max_id: int
    trades: int
    volume: int
    notional: int
    hash: int
    resting: int
    resting_qty: int

    @property
    def ops(self) -> int:
        return len(self.records) - self.preload


def generate(name: str, *, seed: int | None = None, ops: int | None = None, smoke: bool = False) -> Workload:
    """One workload. `smoke` takes a size that is done in well under a second; `ops` overrides the timed commands."""
    function, default_seed, small = SEEDS[name]
    size = dict(small) if smoke else {}
    if ops is not None:
        size["n"] = ops
    seed = default_seed if seed is None else seed
    book, writer, preload, max_id = function(random.Random(seed), **size)
    records = np.frombuffer(bytes(writer.buf), RECORD)
    return Workload(
        name, seed, preload, records, max_id, book.trades, book.volume, book.notional, book.h, len(book.where),
        sum(sum(level.values()) for half in book.side for level in half.values()),
    )


def of_records(name: str, preload: int, records: np.ndarray, seed: int = 0) -> Workload:
    """Any LOBW records as a workload: the reference book says what must come of them.

    Raises:
        ValueError: a cancel or a move names an order that does not rest, or a move crosses.
    """
    book = ReferenceBook()
    for at, (op, side, _, qty, number, price) in enumerate(records.tolist()):
        if op == LIMIT:
            book.limit(number, side, price, qty)
        elif op in (IOC, MARKET):
            book.take(number, side, price if op == IOC else None, qty)
        elif number not in book.where:
            raise ValueError(f"record {at} names order {number}, which does not rest")
        else:
            side, _, left = book.cancel(number)
            if op == MOVE:
                best = book.best(1 - side)
                if best is not None and (price >= best if side == 0 else price <= best):
                    raise ValueError(f"record {at} moves order {number} across the book")
                book.rest(number, side, price, left)
    return Workload(
        name, seed, preload, records, int(records["id"].max(initial=0)), book.trades, book.volume, book.notional,
        book.h, len(book.where), sum(sum(level.values()) for half in book.side for level in half.values()),
    )


def head(workload: Workload, ops: int | None) -> Workload:
    """The preload and the first `ops` timed commands, and what must come of them; all if None."""
    if ops is None or ops >= workload.ops:
        return workload
    return of_records(workload.name, workload.preload, workload.records[: workload.preload + ops], workload.seed)


def stored(folder: Path, name: str, seed: int) -> Workload:
    """`generate(name, seed=seed)` at full size, kept in `folder` as LOBW file and sidecar once it was generated.

    The file's name carries the digest of this generator, so that a change of it is never missed.
    """
    digest = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:16]
    path = folder / f"{name}-{seed}-{digest}.lobw"
    sidecar = path.with_suffix(".json")
    if sidecar.exists() and path.exists():
        preload, records = read(path)
        return Workload(records=records, preload=preload, **json.loads(sidecar.read_text()))
    made = generate(name, seed=seed)
    folder.mkdir(parents=True, exist_ok=True)
    write(path, made)
    kept = {field.name: getattr(made, field.name) for field in fields(made) if field.name not in ("records", "preload")}
    sidecar.write_text(json.dumps(kept))
    return made


def write(path: Path, workload: Workload) -> None:
    """The workload as a LOBW file."""
    priced = workload.records["price"][np.isin(workload.records["op"], (LIMIT, IOC, MOVE))]
    head = HEADER.pack(
        MAGIC, 64, 24, workload.preload, workload.ops, workload.max_id, int(priced.min()), int(priced.max()),
        workload.seed,
    )
    path.write_bytes(head + workload.records.tobytes())


def read(path: Path) -> tuple[int, np.ndarray]:
    """(preload count, records) of a LOBW file. Raises ValueError if it is none."""
    data = path.read_bytes()
    if len(data) < 64 or data[:8] != MAGIC:
        raise ValueError(f"{path} is no LOBW file")
    _, header, record, preload, ops, *_ = HEADER.unpack_from(data)
    if header != 64 or record != 24 or len(data) != 64 + 24 * (preload + ops):
        raise ValueError(f"{path} is not as long as its header says")
    return preload, np.frombuffer(data, RECORD, offset=64)
