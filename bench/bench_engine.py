"""The core alone, native: million commands a second on W1 … W5 and on a real capture, other engines beside it.

    W1/full              the whole core: ids, holds, fees, idempotency, events, state hash
    W1/book              `Core(risk=False)`: matching alone; cancels by order id
    W1/orderly-chaos     its C API, from a C driver        W1/matching-engine    Python, in a process of its own

Ours is driven through the C door (engine/core.h) by a loop in C that counts every trade it is told of. A command is
one LOBW record, whatever it takes: a move to the price where the order is costs us a cancel and a place. First all is
played untimed and held to the reference book: trades, volume, notional, the hash of every fill, what rests, and
`check()` of our core. Then the contenders take turns, five times; every timed run must trade and end the same. Times
are CPU times of one thread on one core: nothing waits, so on an idle machine they are wall times.

A peer that is missing or disagrees gives no row and is named in what is left out. `make peers` sets them up.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Protocol

import typer
from rich.progress import track

from bench.bitstamp import bitstamp
from bench.book_peers import BookPeer, book_peers
from bench.driver import BATCH, FLAGS, Native
from bench.harness import Row, WrongResult, median, pinned
from bench.peers import NotDriven
from bench.records import MAX_PRICE, Commands, commands, funded, verify
from bench.workload import Workload, generate, head, of_records, read, stored
from engine.messages.codes import CommandKind
from engine.messages.errors import PartMissing

__all__ = ["LEFT_OUT", "MIX", "run"]

ALWAYS_LEFT_OUT = (
    "wire, journal, crc and hash chain, disk; building the records; generating the workload. One market, one thread, "
    "events into a reused buffer; the peers are bare books"
)
LEFT_OUT = ALWAYS_LEFT_OUT
"""What the last `run` left out: the peers that gave no row are named."""
MIX = (
    "full: 64 accounts, buyers and sellers apart, taker 1,000 and maker 200 ppm, a client id on every place; even ids "
    "cancelled and moved by order id, odd ones by client id; every id is remembered. book: no money, all by order id. "
    "Memory for all orders and ids is reserved first. Batches of "
    f"{BATCH} records through the C door; drivers compiled with {' '.join(FLAGS)}"
)
WORKLOADS = ("W1", "W2", "W3", "W4", "W5")
MUSTS = {
    "full": {"W1": 12.0, "W2": 4.0, "W3": 15.0, "W4": 7.0, "W5": 12.0},
    "book": {"W1": 37.0, "W2": 9.0, "W3": 30.0, "W4": 12.0, "W5": 25.0},
}
ROUNDS = 5
SMOKE_CAPTURE = 20_000
STORE = Path(__file__).parent.parent / "build" / "bench"


class Contender(Protocol):
    """What takes part in the turns. Both methods raise NotDriven or WrongResult."""

    name: str
    ops: int

    def prove(self) -> None: ...
    def seconds(self) -> float: ...


class Ours:
    """Our core, with money or without."""

    def __init__(self, name: str, workload: Workload) -> None:
        self.name, self.ops, self.workload = name, workload.ops, workload
        self.risk = name == "full"
        priced = workload.records["price"]
        if len(priced) and int(priced.min()) < 0:
            raise ValueError(f"{workload.name} has prices below 1 tick")
        self.max_price = max(MAX_PRICE, int(priced.max(initial=0)))
        _, first = funded(risk=self.risk, max_price=self.max_price)
        self.played: Commands = commands(workload, first, by_order_id=not self.risk)
        self.placed = int((self.played.records["kind"] == CommandKind.PLACE).sum())
        self.hash = b""

    def prove(self) -> None:
        self.hash = verify(self.workload, self.played, risk=self.risk, max_price=self.max_price)

    def seconds(self) -> float:
        core, _ = funded(risk=self.risk, max_price=self.max_price)
        core.reserve(self.placed)
        native = Native(core)
        before = native.play(self.played.records, 0, self.played.preload)
        timed = native.play(self.played.records, self.played.preload)
        got = (before.trades + timed.trades, before.volume + timed.volume, before.notional + timed.notional)
        want = (self.workload.trades, self.workload.volume, self.workload.notional)
        if got != want or core.state_hash() != self.hash:
            raise WrongResult(f"{self.workload.name}/{self.name}: a timed run ended otherwise than the one before it")
        return timed.ns / 1e9


class Theirs:
    """A peer, on all of the workload or on the head that it is given."""

    def __init__(self, peer: BookPeer, workload: Workload) -> None:
        self.name, self.peer = peer.name, peer
        self.workload = head(workload, peer.most)
        self.ops = self.workload.ops

    def prove(self) -> None:
        self.peer.proven(self.workload)

    def seconds(self) -> float:
        return self.peer.timed(self.workload)


def turns(contenders: list[Contender], rounds: int) -> tuple[dict[str, float], list[str]]:
    """Median seconds of each, one run each a round; and a line for each that gives no number."""
    taken: dict[str, list[float]] = {each.name: [] for each in contenders}
    left_out: list[str] = []
    for number in range(-1, rounds):
        for each in contenders:
            if each.name not in taken:
                continue
            try:
                if number < 0:
                    each.prove()
                else:
                    taken[each.name].append(each.seconds())
            except NotDriven as why:
                del taken[each.name]
                left_out.append(str(why))
    return {name: median(times) for name, times in taken.items()}, left_out


def measured(workload: Workload, peers: list[BookPeer], rounds: int, judged: bool) -> tuple[list[Row], list[str]]:
    """The rows of one workload, and who is left out of it."""
    contenders: list[Contender] = [Ours("full", workload), Ours("book", workload)]
    contenders += [Theirs(peer, workload) for peer in peers]
    taken, missing = turns(contenders, rounds)
    rows = []
    for each in contenders:
        if each.name in taken:
            must = MUSTS.get(each.name, {}).get(workload.name) if judged else None
            speed = each.ops / taken[each.name] / 1e6
            rows.append(Row(f"{workload.name}/{each.name}", "Mcmd/s", speed, "Mcmd/s", must=must))
    missing = [f"{workload.name}: {line}" for line in missing]
    missing += [
        f"{workload.name}/{each.name}: after its first {each.ops:,} commands" for each in contenders
        if each.ops < workload.ops
    ]  # fmt: skip
    return rows, missing


def chosen(which: str | None, smoke: bool, seed: int) -> Iterator[tuple[Workload | None, str, bool]]:
    """(workload or None, name or why there is none, whether it must reach something)."""
    names = [*WORKLOADS, "BTS"] if which is None else [which]
    for name in track(names, description="engine", transient=True):
        if name in WORKLOADS:
            its_seed = seed + WORKLOADS.index(name)
            made = generate(name, seed=its_seed, smoke=True) if smoke else stored(STORE, name, its_seed)
            yield made, name, True
        elif name == "BTS":
            try:
                capture = bitstamp(download=not smoke)
            except PartMissing as why:
                yield None, f"BTS: {why}", False
            else:
                yield head(capture, SMOKE_CAPTURE) if smoke else capture, name, False
        else:
            path = Path(name)
            try:
                preload, records = read(path)
                yield of_records(path.stem, preload, records), name, False
            except (OSError, ValueError) as why:
                raise typer.BadParameter(f"{name} is no workload: {why}") from why


def run(
    smoke: bool,
    seed: int,
    workload: Annotated[
        str | None, "One of W1 … W5, BTS (the capture), or a LOBW file, whose rows carry its stem. All, if not given."
    ] = None,
    peers: Annotated[int | None, "0: no other engines beside ours."] = None,
) -> list[Row]:
    """Rows of all workloads. `seed` is W1's; the others take the following ones."""
    global LEFT_OUT
    if peers not in (None, 0, 1):
        raise typer.BadParameter(f"peers must be 0 or 1, not {peers}")
    others, left_out = ([], ["peers: not asked for"]) if peers == 0 else book_peers()
    rows: list[Row] = []
    with pinned():
        for made, name, judged in chosen(workload, smoke, seed):
            if made is None:
                left_out.append(name)
                continue
            more, missing = measured(made, others, 1 if smoke else ROUNDS, judged)
            rows += more
            left_out += missing
    LEFT_OUT = "; ".join([ALWAYS_LEFT_OUT, *left_out])
    return rows
