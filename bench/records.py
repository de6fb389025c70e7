"""A LOBW workload as records of our core, a core to play it on, and the proof that what came of it is right.

    LOBW file ─▶ commands() ─▶ records of 128 bytes ─▶ funded() core ─▶ verify() against the reference book

64 funded accounts, buyers and sellers apart, so that nothing trades with itself. Everything is built before any clock
starts. `verify` compares trades, volume, notional, the hash of every fill and what rests with the workload, walks the
core with `check()`, and gives the state hash with which every timed run of the same records must end.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bench.harness import WrongResult
from bench.workload import LIMIT, M64, MARKET, MOVE, Workload
from engine.core import Core
from engine.limits import CoreLimits
from engine.messages import layout
from engine.messages.codes import ABSENT, CommandKind, EventKind, OrderType, TimeInForce

__all__ = [
    "ACCOUNTS", "FIRST_ACCOUNT", "MAX_PRICE", "OUT_SLOTS", "Commands", "accounts", "apply_all", "assets", "cancels",
    "commands", "deposits", "funded", "markets", "number", "numbered", "places", "play",
    "setup", "slots_of", "transfers", "verify",
]  # fmt: skip

ACCOUNTS = 64
FIRST_ACCOUNT = 2
MAX_PRICE = 1_100_000
OUT_SLOTS = 1 << 15
LEGS = 64
TAKER_PPM, MAKER_PPM = 1_000, 200
MARKET_MASK = layout.MarketMask.MAX_PRICE | layout.MarketMask.TAKER_PPM | layout.MarketMask.MAKER_PPM


def slots_of(kind: CommandKind, count: int, dtype: np.dtype, slots: int = 1) -> np.ndarray:
    """`count` zeroed head slots of one kind."""
    rows = np.zeros(count, dtype)
    rows["kind"] = kind
    rows["slots"] = slots
    return rows


def assets(names: list[bytes]) -> np.ndarray:
    """Asset records, of scale 0."""
    rows = slots_of(CommandKind.ASSET, len(names), layout.ASSET)
    rows["name"] = names
    return rows.view(layout.COMMAND)


def markets(count: int, max_price: int, first: int = 0) -> np.ndarray:
    """Market records of two slots each: asset 0 for asset 1, tick and lot 1, with fees."""
    rows = np.zeros((count, 2), layout.COMMAND)
    heads, terms = rows[:, 0].view(layout.MARKET), rows[:, 1].view(layout.MARKET_EXTRA)
    heads["kind"], heads["slots"] = CommandKind.MARKET, 2
    heads["name"] = np.char.add(b"M", np.arange(first, first + count).astype("S12"))
    heads["base"], heads["quote"], heads["mask"] = 0, 1, MARKET_MASK
    terms["tick"] = terms["lot"] = 1
    terms["max_price"] = max_price
    terms["taker_ppm"], terms["maker_ppm"] = TAKER_PPM, MAKER_PPM
    return rows.reshape(-1)


def accounts(count: int) -> np.ndarray:
    """Account records; the first of a new core has index FIRST_ACCOUNT."""
    rows = slots_of(CommandKind.ACCOUNT, count, layout.ACCOUNT)
    rows["name"] = np.char.add(b"trader-", np.arange(count).astype("S12"))
    return rows.view(layout.COMMAND)


def deposits(to: np.ndarray, asset: int, amount: int) -> np.ndarray:
    """A deposit of `amount` units to each account index. Once for each asset and account: the ref is made of both."""
    rows = slots_of(CommandKind.DEPOSIT, len(to), layout.DEPOSIT)
    rows["ref"] = np.char.add(b"fund-%d-" % asset, to.astype("S12"))
    rows["account"], rows["asset"], rows["amount"], rows["not_after"] = to, asset, amount, ABSENT
    return rows.view(layout.COMMAND)


def transfers(source: int, to: np.ndarray, asset: int, amount: int) -> np.ndarray:
    """`amount` units from one account to each of many, 64 legs a record, fewer in none: the last ones repeat the first.

    64 legs share one remembered ref, where deposits would have one each.
    """
    count = -(-len(to) // LEGS)
    rows = np.zeros((count, 1 + LEGS // layout.PARTS_PER_SLOT), layout.COMMAND)
    heads = rows[:, 0].view(layout.TRANSFER)
    heads["kind"], heads["slots"] = CommandKind.TRANSFER, rows.shape[1]
    heads["ref"] = np.char.add(b"spread-%d-" % asset, np.arange(count).astype("S12"))
    heads["expires_at"] = heads["not_after"] = ABSENT
    heads["part_count"] = heads["leg_count"] = LEGS
    parts = np.ascontiguousarray(rows[:, 1:]).view(layout.PART).reshape(count, LEGS)
    parts["source"], parts["asset"], parts["amount"] = source, asset, amount
    parts["target"] = np.resize(to, count * LEGS).reshape(count, LEGS)
    parts["leg"] = np.arange(LEGS)
    rows[:, 1:] = parts.view(layout.COMMAND).reshape(count, -1)
    return rows.reshape(-1)


def places(
    account: np.ndarray, market: np.ndarray, side: np.ndarray, price: np.ndarray, size: np.ndarray, ids: np.ndarray
) -> np.ndarray:
    """Limit orders, good till cancelled; `ids` become their client ids. Sequences are set by `number`."""
    rows = slots_of(CommandKind.PLACE, len(ids), layout.PLACE)
    rows["account"], rows["market"], rows["side"] = account, market, side
    rows["price"], rows["size"], rows["client_id"] = price, size, ids.astype("S20")
    rows["stop_price"] = rows["display_size"] = rows["expires_at"] = ABSENT
    rows["type"], rows["tif"] = OrderType.LIMIT, TimeInForce.GTC
    return rows.view(layout.COMMAND)


def cancels(account: np.ndarray, order_ids: np.ndarray) -> np.ndarray:
    """Cancels by order id."""
    rows = slots_of(CommandKind.CANCEL, len(order_ids), layout.CANCEL)
    rows["account"], rows["flags"] = account, layout.OrderFlag.BY_ORDER_ID
    rows.view(np.uint64).reshape(-1, layout.SLOT_BYTES // 8)[:, 5] = order_ids
    return rows.view(layout.COMMAND)


def setup(max_price: int = MAX_PRICE) -> np.ndarray:
    """The slots that make one market with funded accounts, prices 1 … `max_price`; sequences are set by `number`."""
    funded = FIRST_ACCOUNT + np.arange(ACCOUNTS)
    listing = markets(1, max_price)
    listing[:1].view(layout.MARKET)["name"] = b"BASE-QUOTE"
    parts = [assets([b"BASE", b"QUOTE"]), listing, accounts(ACCOUNTS)]
    return np.concatenate([*parts, deposits(funded, 0, 10**16), deposits(funded, 1, 10**16)])


@dataclass(frozen=True, slots=True)
class Commands:
    """A workload as records: `records[:preload]` are untimed; `owner[sequence - first]` is the LOBW id of a placing."""

    records: np.ndarray
    preload: int
    owner: np.ndarray
    first_sequence: int


def commands(workload: Workload, first_sequence: int, *, by_order_id: bool = False) -> Commands:
    """The records of a workload. Odd ids are cancelled and moved by client id, even ones (or all) by order id.

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
    by_order = ~places & ((ids % 2 == 0) | by_order_id)
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


def number(slots: np.ndarray, first_sequence: int) -> int:
    """Give the records in an array of slots their sequences, from `first_sequence`. Returns the sequence after them."""
    at, sequence = 0, first_sequence
    while at < len(slots):
        slots["sequence"][at] = sequence
        at += int(slots["slots"][at])
        sequence += 1
    return sequence


def numbered(parts: list[np.ndarray], first_sequence: int) -> tuple[np.ndarray, int]:
    """Records in one array with their sequences, and the sequence after them; each part's records are of one width."""
    after = first_sequence
    for part in parts:
        if len(part):
            width = int(part["slots"][0])
            heads = part[::width]
            heads["sequence"] = heads["ts"] = after + np.arange(len(heads))
            after += len(heads)
    return np.concatenate(parts), after


def apply_all(core: Core, slots: np.ndarray) -> None:
    """Apply records of which none may be refused, of any kind. Raises WrongResult naming the first that was."""
    out = np.zeros(OUT_SLOTS, layout.EVENT)
    at = 0
    while at < len(slots):
        reached, used = core.apply_batch(slots, out, at)
        if reached == at:
            raise WrongResult("the event buffer is too small for one command")
        at = reached
        refused = out[:used][np.isin(out[:used]["kind"], (EventKind.REJECTED, EventKind.DUPLICATE))]
        if len(refused):
            raise WrongResult(f"command {refused['sequence'][0]} was refused: {refused['reason'][0]}")


def funded(
    limits: CoreLimits | None = None, *, risk: bool = True, max_price: int = MAX_PRICE
) -> tuple[Core, int]:
    """A core after `setup`, and its next sequence."""
    core = Core(limits, risk=risk)
    slots = setup(max_price)
    after = number(slots, 1)
    apply_all(core, slots)
    return core, after


def play(core: Core, records: np.ndarray, out: np.ndarray, start: int, stop: int) -> None:
    """Apply the records by `apply_batch` from Python, as few calls as the buffer allows."""
    while start < stop:
        start, used = core.apply_batch(records, out, start, stop)
        if used == 0:
            raise WrongResult("the event buffer is too small for one command")


def verify(workload: Workload, played: Commands, *, risk: bool = True, max_price: int = MAX_PRICE) -> bytes:
    """Play everything once and compare it with the reference book. Returns the state hash.

    Raises:
        WrongResult: a command was refused, or anything differs from what the workload says.
    """
    core, _ = funded(risk=risk, max_price=max_price)
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
