"""The doors of the core for Python: one `Core.apply` a command, and `apply_batch`, beside the C door they stand on.

    apply                W1, one call a command, records as bytes made before the clock starts
    apply_batch N        share that it reaches of the C door's speed with as many records a call, in turns
    fixed cost           what a call of apply_batch with one record takes beyond the same call of the C door

`--peers 1` adds the packages of `bench/peers.py` that are installed: the same head of W1, one call a command, in turn
with ours, each held to the reference book after every run. One that is missing or disagrees gives no row, and is named
in what is left out. Every run of ours must end with the state hash of the run that was held to the reference book.
Times are CPU times of the thread.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Annotated

import numpy as np
import typer

from bench import peers as others
from bench.driver import BATCH, Native
from bench.harness import Row, WrongResult, busy_seconds, median, pinned
from bench.records import OUT_SLOTS, Commands, commands, funded, play, verify
from bench.workload import CANCEL, IOC, LIMIT, MOVE, ReferenceBook, Workload, generate
from engine.core import Core
from engine.messages import layout

__all__ = ["LEFT_OUT", "run"]

ALWAYS_LEFT_OUT = "wire, journal, disk; building the records. W1, one market, one thread, events read by nobody"
LEFT_OUT = ALWAYS_LEFT_OUT
"""What the last `run` left out: with peers, those that gave no row are named."""
COUNT = 300_000
"""Timed commands of W1."""
ROUNDS = 9
APPLY_MUST = 2.5
SHARES = {1_000: 0.90, 16_384: 0.97}
CALL_MUST_US = 1.0


def _ready(played: Commands) -> Core:
    """A core behind the preload."""
    core, _ = funded()
    play(core, played.records, np.zeros(OUT_SLOTS, layout.EVENT), 0, played.preload)
    return core


def _apply_seconds(played: Commands, expected: bytes) -> float:
    core = _ready(played)
    apply, singles = core.apply, [record.tobytes() for record in played.records[played.preload :]]

    def loop() -> None:
        for record in singles:
            apply(record)

    taken = busy_seconds(loop)
    if core.state_hash() != expected:
        raise WrongResult("one apply a command ended with another state hash than batches")
    return taken


def _batch_seconds(played: Commands, expected: bytes, size: int) -> float:
    core, out = _ready(played), np.zeros(OUT_SLOTS, layout.EVENT)
    out["sequence"] = 1
    records, end = played.records, len(played.records)

    def loop() -> None:
        at, apply_batch = played.preload, core.apply_batch
        while at < end:
            at, _ = apply_batch(records, out, at, at + size if at + size < end else end)

    taken = busy_seconds(loop)
    if core.state_hash() != expected:
        raise WrongResult(f"batches of {size} ended with another state hash")
    return taken


def _native_seconds(played: Commands, expected: bytes, size: int) -> float:
    core = _ready(played)
    native = Native(core)
    taken = native.bare(played.records, played.preload, batch=size)
    if core.state_hash() != expected:
        raise WrongResult("the C door ended with another state hash")
    return taken


def _doors(played: Commands, expected: bytes, rounds: int) -> list[Row]:
    """Rows of apply and apply_batch, each beside the C door in turns."""
    count = len(played.records) - played.preload
    runs: dict[str, Callable[[], float]] = {"apply": partial(_apply_seconds, played, expected)}
    for size in (1, BATCH, *SHARES):
        runs[f"native {size}"] = partial(_native_seconds, played, expected, size)
        runs[f"batch {size}"] = partial(_batch_seconds, played, expected, size)
    taken: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, measure in runs.items():
            taken[name].append(measure())
    native = count / median(taken[f"native {BATCH}"]) / 1e6
    single = count / median(taken["apply"]) / 1e6
    rows = [
        Row(f"C door, {BATCH} records a call", "Mcmd/s", native, "Mcmd/s"),
        Row("one apply a command, from Python", "Mcmd/s", single, "Mcmd/s", native, single / native, APPLY_MUST),
    ]
    for size, must in SHARES.items():
        share = median([c / ours for c, ours in zip(taken[f"native {size}"], taken[f"batch {size}"], strict=True)])
        rows.append(Row(f"apply_batch of {size:,} records", "share of the C door", share, "×", must=must))
    calls = [(ours - c) / count * 1e6 for c, ours in zip(taken["native 1"], taken["batch 1"], strict=True)]
    return [*rows, Row("a call of apply_batch", "fixed cost", median(calls), "us", must=CALL_MUST_US)]


def _plain_seconds(workload: Workload) -> float:
    """The reference book of the generator, plain Python, on the same commands."""
    book = ReferenceBook()
    rows = workload.records.tolist()

    def loop(rows: list[tuple[int, int, int, int, int, int]]) -> None:
        for op, side, _, qty, order_id, price in rows:
            if op == LIMIT:
                book.limit(order_id, side, price, qty)
            elif op == CANCEL:
                book.cancel(order_id)
            elif op == MOVE:
                old_side, _, open_qty = book.cancel(order_id)
                book.rest(order_id, old_side, price, open_qty)
            else:
                book.take(order_id, side, price if op == IOC else None, qty)

    loop(rows[: workload.preload])
    return busy_seconds(lambda: loop(rows[workload.preload :]))


def _peer_seconds(driver: others.Driver, records: np.ndarray, preload: int, want: others.Ended) -> float:
    """Time of the commands after the preload. Raises NotDriven if a call failed or another book came of them."""
    calls = driver.calls(records)
    timed = calls[preload:]
    try:
        others.play(calls[:preload])
        taken = busy_seconds(lambda: others.play(timed))
        ended = driver.ended(set(records["id"].tolist()))
    except Exception as error:
        # Every command is valid, so whatever a peer raises is a disagreement; each has exceptions of its own.
        raise others.NotDriven(f"disagrees: a call failed, {error!r}") from error
    others.compare(ended, want)
    return taken


def against_peers(
    workload: Workload, played: Commands, expected: bytes, chosen: tuple[others.Peer, ...], rounds: int
) -> tuple[list[Row], list[str]]:
    """Rows of the peers that agree, and a line for each that gives none. Ours and theirs take turns, round by round."""
    reference = others.ReferenceDriver()
    others.play(reference.calls(workload.records))
    want = reference.ended(())
    ours: list[float] = []
    theirs: dict[others.Peer, list[float]] = {peer: [] for peer in chosen}
    left_out: dict[others.Peer, str] = {}
    for _ in range(rounds):
        ours.append(_apply_seconds(played, expected))
        for peer in chosen:
            if peer in left_out:
                continue
            try:
                theirs[peer].append(_peer_seconds(peer.open(), workload.records, workload.preload, want))
            except others.NotDriven as why:
                left_out[peer] = f"{peer}: {why}"
    single = workload.ops / median(ours) / 1e6
    rows = []
    for peer in chosen:
        if peer not in left_out:
            speed = workload.ops / median(theirs[peer]) / 1e6
            held = "" if peer.driver.reports_fills else ", reports no fills"
            case = f"W1 one apply a command against {peer} (a book, no money{held})"
            rows.append(Row(case, "Mcmd/s", single, "Mcmd/s", speed, single / speed))
    return rows, list(left_out.values())


def run(
    smoke: bool,
    seed: int,
    peers: Annotated[int | None, "1: other packages beside ours, those of the extra `peers`."] = None,
) -> list[Row]:
    """Rows of all doors. `seed` is that of W1."""
    global LEFT_OUT
    if peers not in (None, 0, 1):
        raise typer.BadParameter(f"peers must be 0 or 1, not {peers}")
    LEFT_OUT = ALWAYS_LEFT_OUT
    rounds = 1 if smoke else ROUNDS
    with pinned():
        workload = generate("W1", seed=seed, ops=None if smoke else COUNT, smoke=smoke)
        _, first = funded()
        played = commands(workload, first)
        expected = verify(workload, played)
        rows = _doors(played, expected, rounds)
        plain = workload.ops / median([_plain_seconds(workload) for _ in range(rounds)]) / 1e6
        rows.append(Row("plain Python dict book, no money", "Mcmd/s", plain, "Mcmd/s"))
        if peers:
            beside, left_out = against_peers(workload, played, expected, others.PEERS, rounds)
            rows += beside
            LEFT_OUT = "; ".join([ALWAYS_LEFT_OUT, *left_out])
    return rows
