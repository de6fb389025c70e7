"""The core alone: commands a second on W1 … W5, through `apply_batch` and through one `apply` a command.

Records are built before the clock starts; 64 funded accounts, buyers and sellers apart; holds, fees, client ids, full
events and the state hash are on. An untimed run is compared with the generator's reference book (trades, volume,
notional, hash of every fill, what rests), walked by `check()`, and every timed run must end with its state hash.

`--peers 1` adds the engines of `bench/peers.py` that are installed: the same head of W1, one call a command, in turn
with ours, each held to the reference book after every run. One that is missing or disagrees gives no row, and is named
in what is left out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import numpy as np
import typer
from rich.progress import track

from bench import peers as others
from bench.harness import Row, WrongResult, median, seconds
from bench.workload import CANCEL, IOC, LIMIT, M64, MARKET, MOVE, ReferenceBook, Workload, generate
from engine.core import Core
from engine.messages import layout
from engine.messages.codes import ABSENT, CommandKind, EventKind, OrderType, TimeInForce

__all__ = ["LEFT_OUT", "Commands", "commands", "funded", "run", "setup", "verify"]

ALWAYS_LEFT_OUT = (
    "wire, journal, crc and hash chain, disk; building the records; generating the workload. One market, one thread, "
    "events into a reused buffer of 4 MiB"
)
LEFT_OUT = ALWAYS_LEFT_OUT
"""What the last `run` left out: with peers, those that gave no row are named."""
ACCOUNTS = 64
FIRST_ACCOUNT = 2
BATCH_MUST = 7.0
OUT_SLOTS = 1 << 15
SINGLES = 300_000
"""How many commands of W1 go one call a command."""
FULL_OPS = {"W1": 3_000_000, "W2": 1_000_000, "W3": 1_000_000, "W4": 1_000_000, "W5": 1_000_000}


def _head(count: int, kind: CommandKind, dtype: np.dtype, slots: int = 1) -> np.ndarray:
    rows = np.zeros(count, dtype)
    rows["kind"] = kind
    rows["slots"] = slots
    return rows


def setup() -> np.ndarray:
    """The slots that make one market with funded accounts; sequences are set by `numbered`."""
    assets = _head(2, CommandKind.ASSET, layout.ASSET)
    assets["name"] = [b"BASE", b"QUOTE"]
    market = _head(1, CommandKind.MARKET, layout.MARKET, 2)
    market["name"] = b"BASE-QUOTE"
    market["base"], market["quote"], market["mask"] = 0, 1, layout.MarketMask.MAX_PRICE
    terms = np.zeros(1, layout.MARKET_EXTRA)
    terms["tick"] = terms["lot"] = 1
    terms["max_price"] = 1_100_000
    accounts = _head(ACCOUNTS, CommandKind.ACCOUNT, layout.ACCOUNT)
    accounts["name"] = [b"trader-%d" % i for i in range(ACCOUNTS)]
    deposits = _head(2 * ACCOUNTS, CommandKind.DEPOSIT, layout.DEPOSIT)
    deposits["ref"] = [b"fund-%d" % i for i in range(2 * ACCOUNTS)]
    deposits["account"] = FIRST_ACCOUNT + np.arange(2 * ACCOUNTS) // 2
    deposits["asset"] = np.arange(2 * ACCOUNTS) % 2
    deposits["amount"] = 10**16
    deposits["not_after"] = ABSENT
    return np.concatenate([part.view(layout.COMMAND) for part in (assets, market, terms, accounts, deposits)])


@dataclass(frozen=True, slots=True)
class Commands:
    """A workload as records: `records[:preload]` are untimed; `owner[sequence - first]` is the LOBW id of a placing."""

    records: np.ndarray
    preload: int
    owner: np.ndarray
    first_sequence: int


def commands(workload: Workload, first_sequence: int) -> Commands:
    """The records of a workload, odd order ids cancelled and moved by client id, even ones by order id.

    A move to the price where the order already is would keep its time by our rules, and loses it in LOBW: it becomes a
    cancel and a place, two commands.
    """
    source = workload.records
    ids, ops = source["id"].astype(np.int64), source["op"]
    by_id = np.argsort(ids, kind="stable")
    priced = np.isin(ops[by_id], (LIMIT, MOVE))
    # The price an order had before each of its records: that of the last priced record before it.
    last = np.maximum.accumulate(np.where(priced, np.arange(len(source)), 0))
    before = np.concatenate(([0], last[:-1]))
    stays = np.zeros(len(source), bool)
    stays[by_id] = (ops[by_id] == MOVE) & (source["price"][by_id] == source["price"][by_id][before])

    # Where each LOBW record goes; a move that stays takes two places, the second of which places the order anew.
    at = np.arange(len(source)) + np.concatenate(([0], np.cumsum(stays)[:-1]))
    count = len(source) + int(stays.sum())
    row = np.repeat(np.arange(len(source)), 1 + stays)
    kind = np.array([CommandKind.PLACE] * 3 + [CommandKind.CANCEL, CommandKind.REPLACE])[ops[row]]
    kind[at[stays]] = CommandKind.CANCEL
    kind[at[stays] + 1] = CommandKind.PLACE
    places = kind == CommandKind.PLACE

    # The placing that each record is about: the last one of the same id, itself included.
    ids, ops = ids[row], ops[row]
    by_id = np.argsort(ids, kind="stable")
    last = np.maximum.accumulate(np.where(places[by_id], np.arange(count), 0))
    order_ids = np.zeros(count, np.uint64)
    order_ids[by_id] = first_sequence + by_id[last]

    out = np.zeros(count, layout.COMMAND)
    place = out.view(layout.PLACE)
    place["kind"] = kind
    place["slots"] = 1
    place["sequence"] = place["ts"] = first_sequence + np.arange(count)
    place["account"] = FIRST_ACCOUNT + ids % (ACCOUNTS // 2) + ACCOUNTS // 2 * source["side"][row]
    place["client_id"] = order_ids.astype("S20")
    for name in ("price", "stop_price", "display_size", "expires_at"):
        column = place[name]
        column[places] = ABSENT
    limited = places & (ops != MARKET)
    place["price"][limited] = source["price"][row][limited]
    place["size"][places] = source["qty"][row][places]
    place["side"][places] = source["side"][row][places]
    place["type"][places] = np.where(ops[places] == MARKET, OrderType.MARKET, OrderType.LIMIT)
    place["tif"][places] = np.where(np.isin(ops[places], (LIMIT, MOVE)), TimeInForce.GTC, TimeInForce.IOC)

    # In cancel and replace too the id stands at 40 … 71: words 5 … 8.
    by_order = ~places & (ids % 2 == 0)
    words = out.view(np.uint64).reshape(count, layout.SLOT_BYTES // 8)
    words[by_order, 5:9] = 0
    words[by_order, 5] = order_ids[by_order]
    place["flags"][by_order] = layout.OrderFlag.BY_ORDER_ID
    moves = kind == CommandKind.REPLACE
    replace = out.view(layout.REPLACE)
    replace["price"][moves] = source["price"][row][moves]
    replace["size"][moves] = ABSENT
    replace["stop_price"][moves] = ABSENT
    preload = int(at[workload.preload]) if workload.preload < len(source) else count
    return Commands(out, preload, ids, first_sequence)


def funded() -> tuple[Core, int]:
    """A core after `setup`, and its next sequence."""
    core = Core()
    slots = setup()
    at = sequence = 0
    while at < len(slots):
        width = int(slots["slots"][at])
        sequence += 1
        slots["sequence"][at] = sequence
        events = core.apply(slots[at : at + width].tobytes())
        if events["kind"][0] == EventKind.REJECTED:
            raise WrongResult(f"set-up command {sequence} was refused: {events['reason'][0]}")
        at += width
    return core, sequence + 1


def _play(core: Core, records: np.ndarray, out: np.ndarray, start: int, stop: int) -> None:
    while start < stop:
        start, used = core.apply_batch(records, out, start, stop)
        if used == 0:
            raise WrongResult("the event buffer is too small for one command")


def verify(workload: Workload, played: Commands) -> bytes:
    """Play everything once and compare it with the reference book. Returns the state hash."""
    core, _ = funded()
    out = np.zeros(OUT_SLOTS, layout.EVENT)
    at = 0
    digest, trades, volume, notional = 0xCBF29CE484222325, 0, 0, 0
    ids, first = played.owner, played.first_sequence
    while at < len(played.records):
        at, used = core.apply_batch(played.records, out, at)
        events = out[:used]
        if (events["kind"] == EventKind.REJECTED).any() or (events["kind"] == EventKind.DUPLICATE).any():
            raise WrongResult(f"{workload.name}: a command was refused")
        fills = events[events["kind"] == EventKind.TRADE].view(layout.TRADE)
        makers = ids[(fills["maker_order_id"] - first).astype(np.int64)].tolist()
        takers = ids[(fills["taker_order_id"] - first).astype(np.int64)].tolist()
        prices, sizes = fills["price"].tolist(), fills["size"].tolist()
        for maker, taker, price, size in zip(makers, takers, prices, sizes, strict=True):
            digest = ((digest ^ ((maker * 0x9E3779B97F4A7C15 + taker) & M64)) * 0x100000001B3) & M64
            digest = ((digest ^ ((price * 0x9E3779B97F4A7C15 + size) & M64)) * 0x100000001B3) & M64
        trades += len(fills)
        volume += int(fills["size"].sum())
        notional += int(fills["notional"].sum())
    core.check()
    resting = core.open_orders()
    got = (trades, volume, notional, digest, len(resting), int(resting["leaves"].sum()))
    want = (
        workload.trades, workload.volume, workload.notional, workload.hash, workload.resting, workload.resting_qty,
    )  # fmt: skip
    if got != want:
        raise WrongResult(f"{workload.name}: (trades, volume, notional, hash, resting, quantity) {got} is not {want}")
    return core.state_hash()


def _batch_seconds(played: Commands, expected: bytes) -> float:
    core, _ = funded()
    out = np.zeros(OUT_SLOTS, layout.EVENT)
    _play(core, played.records, out, 0, played.preload)
    taken = seconds(lambda: _play(core, played.records, out, played.preload, len(played.records)))
    if core.state_hash() != expected:
        raise WrongResult("a timed run ended with another state hash")
    return taken


def _single_seconds(played: Commands, count: int) -> tuple[float, bytes]:
    core, _ = funded()
    out = np.zeros(OUT_SLOTS, layout.EVENT)
    _play(core, played.records, out, 0, played.preload)
    singles = played.records[played.preload : played.preload + count]
    calls: list[others.Call] = [(core.apply, (record.tobytes(),)) for record in singles]
    return seconds(lambda: others.play(calls)), core.state_hash()


def _hash_after(played: Commands, count: int) -> bytes:
    """The state hash of batches, `count` commands after the preload."""
    core, _ = funded()
    _play(core, played.records, np.zeros(OUT_SLOTS, layout.EVENT), 0, played.preload + count)
    return core.state_hash()


def _checked_singles(played: Commands, count: int, expected: bytes) -> float:
    taken, ended = _single_seconds(played, count)
    if ended != expected:
        raise WrongResult("one apply a command ended with another state hash than batches")
    return taken


def _plain_seconds(workload: Workload, count: int) -> float:
    """The reference book of the generator, plain Python, on the same commands."""
    book = ReferenceBook()
    rows = workload.records.tolist()

    def play(rows: list[tuple[int, int, int, int, int, int]]) -> None:
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

    play(rows[: workload.preload])
    return seconds(lambda: play(rows[workload.preload : workload.preload + count]))


def run(
    smoke: bool,
    seed: int,
    peers: Annotated[
        int | None, "1: other engines beside ours, on W1 from Python; those that are installed (see the extra `peers`)."
    ] = None,
) -> list[Row]:
    """Rows of all workloads. `seed` is W1's; the others take the following ones."""
    global LEFT_OUT
    if peers not in (None, 0, 1):
        raise typer.BadParameter(f"peers must be 0 or 1, not {peers}")
    LEFT_OUT = ALWAYS_LEFT_OUT
    rows: list[Row] = []
    for number, name in enumerate(track(sorted(FULL_OPS), description="engine", transient=True)):
        workload = generate(name, seed=seed + number, ops=None if smoke else FULL_OPS[name], smoke=smoke)
        _, first_sequence = funded()
        played = commands(workload, first_sequence)
        expected = verify(workload, played)
        taken = median([_batch_seconds(played, expected) for _ in range(1 if smoke else 5)])
        speed = (len(played.records) - played.preload) / taken / 1e6
        must = BATCH_MUST if name == "W1" else None
        rows.append(Row(f"{name} batch", "commands", speed, "M/s", must=must, ok=must is None or speed >= must))
        if name == "W1":
            rows += _against_python(workload, played, speed)
            if peers:
                beside, left_out = _against_peers(workload, played, others.PEERS, 1 if smoke else 3)
                rows += beside
                LEFT_OUT = "; ".join([ALWAYS_LEFT_OUT, *left_out])
    return rows


def _against_python(workload: Workload, played: Commands, speed: float) -> list[Row]:
    count = min(workload.ops, SINGLES)
    plain = count / _plain_seconds(workload, count) / 1e6
    single = count / _checked_singles(played, count, _hash_after(played, count)) / 1e6
    return [
        Row("W1 one apply a command, from Python", "commands", single, "M/s", plain, single / plain),
        Row("W1 batch against plain Python (dict book, no money)", "commands", speed, "M/s", plain, speed / plain),
    ]


def _peer_seconds(driver: others.Driver, records: np.ndarray, preload: int, want: others.Ended) -> float:
    """Time of the commands after the preload. Raises NotDriven if a call failed or another book came of them."""
    calls = driver.calls(records)
    timed = calls[preload:]
    try:
        others.play(calls[:preload])
        taken = seconds(lambda: others.play(timed))
        ended = driver.ended(set(records["id"].tolist()))
    except Exception as error:
        # Every command is valid, so whatever a peer raises is a disagreement; each has exceptions of its own.
        raise others.NotDriven(f"disagrees: a call failed, {error!r}") from error
    others.compare(ended, want)
    return taken


def _against_peers(
    workload: Workload, played: Commands, chosen: tuple[others.Peer, ...], rounds: int
) -> tuple[list[Row], list[str]]:
    """Rows of the peers that agree, and a line for each that gives none. Ours and theirs take turns, round by round."""
    count = min(workload.ops, SINGLES)
    records = workload.records[: workload.preload + count]
    reference = others.ReferenceDriver()
    others.play(reference.calls(records))
    want = reference.ended(())
    expected = _hash_after(played, count)
    ours: list[float] = []
    theirs: dict[others.Peer, list[float]] = {peer: [] for peer in chosen}
    left_out: dict[others.Peer, str] = {}
    for _ in range(rounds):
        ours.append(_checked_singles(played, count, expected))
        for peer in chosen:
            if peer in left_out:
                continue
            try:
                theirs[peer].append(_peer_seconds(peer.open(), records, workload.preload, want))
            except others.NotDriven as why:
                left_out[peer] = f"{peer}: {why}"
    single = count / median(ours) / 1e6
    rows = []
    for peer in chosen:
        if peer not in left_out:
            speed = count / median(theirs[peer]) / 1e6
            held = "" if peer.driver.reports_fills else ", reports no fills"
            case = f"W1 one apply a command against {peer} (a book, no money{held})"
            rows.append(Row(case, "commands", single, "M/s", speed, single / speed))
    return rows, list(left_out.values())
