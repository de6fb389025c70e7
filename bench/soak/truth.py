"""The judge: replays the journal with core and reference, and compares what everybody saw with it.

The reference (plain Python, shares no line with the core) makes the same events as the core, which traders are held to;
the core gives the books. Both must agree event by event, and on the state hash that the exchange itself told last.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bench.soak.readers import ORDERS, Seen
from bench.soak.traders import Trader, json_digest
from bench.soak.world import MARKETS, World
from byline.client.book_hash import M64, level_mix
from engine.core import Core
from engine.messages import layout
from engine.messages.codes import ABSENT, NIL, EventKind, OrderStatus
from engine.messages.decode import EventDecoder
from engine.messages.directory import Directory
from engine.reference import ReferenceCore
from persistence import segments
from persistence.disk import DirectoryDisk

__all__ = ["Truth", "judge", "judge_end"]

_MONEY = range(EventKind.TRANSFERRED, EventKind.VOIDED + 1)
_ACK_ONLY = 0
_Digests = tuple[int, int]


class Truth:
    """What the journal says, for accounts by index and for the books that readers saw."""

    def __init__(self, seen: Seen, settled: int, on_settled: Callable[[Truth], None]) -> None:
        """`on_settled` is called when everything up to sequence `settled` is in, and nothing more."""
        self._settled = settled
        self._on_settled = on_settled
        self.core = Core()
        self.reference = ReferenceCore()
        self.directory = Directory()
        self.events: dict[int, dict[tuple[int, int], _Digests]] = {}
        """By account: (sequence, index) to the digests of the event as JSON and as slots."""
        self.firsts: dict[int, _Digests] = {}
        """By sequence: of its first event, which the ack tells whole."""
        self.trades: dict[tuple[int, int], tuple[int, str, str, str]] = {}
        self.minutes: dict[int, dict[int, tuple[str, int]]] = {market: {} for market in range(len(MARKETS))}
        """By market: begin of the minute to (close, trades)."""
        self.kinds: dict[int, Counter[int]] = {}
        """By second since 1970, how many events of each kind."""
        self.commands = 0
        self.event_count = 0
        self.books_compared = 0
        self.faults: list[str] = []
        self._decoder = EventDecoder(self.directory)
        self._wanted: dict[int, list[tuple[int, int, str]]] = {}
        for (market, depth, seq), checksum in seen.books.items():
            if depth != ORDERS:
                self._wanted.setdefault(seq, []).append((market, depth, checksum))

    def replay(self, directory: Path, progress: Callable[[int], None]) -> None:
        """From the first record to the last. Raises JournalCorrupt."""
        disk = DirectoryDisk(directory)

        def take(slots: npt.NDArray[Any], first: int, last: int) -> None:
            at = 0
            while at < len(slots):
                width = int(slots["slots"][at])
                self._command(slots[at : at + width].tobytes())
                at += width
            progress(last)

        segments.scan(disk, segments.list_segments(disk), take)

    def _command(self, record: bytes) -> None:
        events = np.array(self.core.apply(record))
        if self.reference.apply(record).tobytes() != events.tobytes():
            self.faults.append(f"core and reference differ at sequence {self.core.sequence}")
        self.commands += 1
        decoded = iter(self._decoder.decode(events))
        at = 0
        while at < len(events):
            head = events[at]
            width = int(head["slots"])
            self._event(events[at : at + width], next(decoded))
            at += width
        self._compare_books(self.core.sequence)
        if self.core.sequence == self._settled:
            self._on_settled(self)

    def _event(self, slots: npt.NDArray[Any], event: dict[str, Any]) -> None:
        head = slots[0]
        sequence, index, kind = int(head["sequence"]), int(head["index"]), int(head["kind"])
        self.event_count += 1
        self.kinds.setdefault(int(head["ts"]) // 1_000_000_000, Counter())[kind] += 1
        if index == _ACK_ONLY:
            self.firsts[sequence] = json_digest(event), hash(slots.tobytes())
        accounts = {int(head["account"])} - {NIL}
        if kind == EventKind.TRADE:
            self._trade(event)
        if kind in (EventKind.TRADE, EventKind.PREVENTED):
            accounts.add(int(slots.view(layout.TRADE)[0]["taker_account"]))
        elif kind in _MONEY:
            names = {leg[end] for leg in event["legs"] for end in ("from", "to")}
            accounts |= {self.directory.accounts_by_name[name].index for name in names}
        for account in accounts:
            told = self.events.setdefault(account, {})
            told[sequence, index] = (
                json_digest(self._own_json(event, kind, account)), hash(self._own_slots(slots, kind, account)),
            )  # fmt: skip

    def _own_json(self, event: dict[str, Any], kind: int, account: int) -> dict[str, Any]:
        """As the account is told of it: its own side, its own legs."""
        name = self.directory.accounts[account].name
        if kind in (EventKind.TRADE, EventKind.PREVENTED):
            others = tuple(f"{who}_" for who in ("maker", "taker") if event[f"{who}_account"] != name)
            return {field: value for field, value in event.items() if not field.startswith(others or ("\0",))}
        if kind in _MONEY:
            return event | {"legs": [leg for leg in event["legs"] if name in (leg["from"], leg["to"])]}
        return event

    def _own_slots(self, slots: npt.NDArray[Any], kind: int, account: int) -> bytes:
        if kind in (EventKind.TRADE, EventKind.PREVENTED):
            return _blanked(slots, kind, account)
        if kind in _MONEY:
            return _own_legs(slots, account)
        return slots.tobytes()

    def _trade(self, event: dict[str, Any]) -> None:
        if event["market"] not in MARKETS:
            return
        market = MARKETS.index(event["market"])
        told = event["sequence"], event["price"], event["size"], event["aggressor"]
        self.trades[market, event["trade_id"]] = told
        begin = event["ts"] - event["ts"] % 60_000_000_000
        self.minutes[market][begin] = event["price"], self.minutes[market].get(begin, ("", 0))[1] + 1

    # ---------------------------------------------------------------- books

    def _compare_books(self, sequence: int) -> None:
        wanted = self._wanted.pop(sequence, None)
        if not wanted:
            return
        rows = self.core.open_orders()
        for market in {market for market, _, _ in wanted}:
            sides = self.levels(market, rows)
            for _, depth, checksum in (one for one in wanted if one[0] == market):
                self.books_compared += 1
                found = book_checksum(sides, depth)
                if found != checksum:
                    name = f"{MARKETS[market]} depth {depth} at {sequence}"
                    self.faults.append(f"{name}: readers {checksum}, engine {found}")

    def levels(self, market: int, rows: npt.NDArray[Any]) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
        """Displayed (price, size) of bids and asks, best first."""
        rows = rows[(rows["market"] == market) & (rows["status"] == OrderStatus.OPEN) & (rows["displayed"] > 0)]
        sides = []
        for side in (0, 1):
            mine = rows[rows["side"] == side]
            prices, places = np.unique(mine["price"], return_inverse=True)
            sums = np.zeros(len(prices), np.int64)
            np.add.at(sums, places, mine["displayed"])
            both = list(zip(prices.tolist(), sums.tolist(), strict=True))
            sides.append(both if side else both[::-1])
        return sides[0], sides[1]

    def queue(self, market: int) -> list[tuple[str, str, str]]:
        """(side, price, size) of what rests and shows, in the order of joining."""
        entry = self.directory.markets_by_name[MARKETS[market]]
        rows = self.core.open_orders()
        rows = rows[(rows["market"] == entry.index) & (rows["status"] == OrderStatus.OPEN) & (rows["displayed"] > 0)]
        rows = rows[np.argsort(rows["join"], kind="stable")]
        return [
            (("buy", "sell")[row["side"]], entry.price_text(int(row["price"])), entry.size_text(int(row["displayed"])))
            for row in rows
        ]


def book_checksum(sides: tuple[list[tuple[int, int]], list[tuple[int, int]]], depth: int) -> str:
    """As a message of that depth tells it."""
    total = sum(level_mix(side, *level) for side in (0, 1) for level in sides[side][: depth or None])
    return f"{total & M64:016x}"


def _blanked(slots: npt.NDArray[Any], kind: int, account: int) -> bytes:
    """A trade or a prevention without the counterparty."""
    row = slots.copy().view(layout.TRADE if kind == EventKind.TRADE else layout.PREVENTED)[:1]
    for who, field, number in (("maker", "account", 0), ("taker", "taker_account", 1)):
        if row[field][0] == account:
            continue
        row[field] = NIL
        row[f"{who}_order_id"] = 0
        row[f"{who}_leaves"] = ABSENT
        if kind == EventKind.PREVENTED:
            row[f"{who}_released"] = ABSENT
            continue
        row[f"{who}_fee"] = ABSENT
        if row["buyer"][0] == number:
            row["released"] = ABSENT
    return bytes(row.tobytes())


def _own_legs(slots: npt.NDArray[Any], account: int) -> bytes:
    """A movement of money with the legs of one account."""
    head = slots[:1].copy().view(layout.MONEY_EVENT)
    before = 2 if head["has_memo"][0] else 1
    legs = np.frombuffer(slots[before:].tobytes(), layout.LEG)[: int(head["leg_count"][0])]
    own = legs[(legs["source"] == account) | (legs["target"] == account)]
    slot_count = -(-len(own) // layout.LEGS_PER_SLOT)
    head["leg_count"] = len(own)
    head["slots"] = before + slot_count
    tail = own.tobytes().ljust(slot_count * layout.SLOT_BYTES, b"\0")
    return bytes(head.tobytes() + slots[1:before].tobytes() + tail)


# -------------------------------------------------------------------- comparing


def judge_end(world: World, truth: Truth, final: dict[str, Any]) -> None:
    """The whole journal is in: what the exchange ended as."""
    for fault in truth.faults[:20]:
        world.fault(fault)
    if truth.core.state_hash() != truth.reference.state_hash():
        world.fault("state hash of core and reference differ")
    if (final["sequence"], final["state_hash"]) != (truth.core.sequence, truth.core.state_hash().hex()):
        world.fault(f"the exchange ended at {final['sequence']}, the journal at {truth.core.sequence}, or differ")


def judge(world: World, truth: Truth, traders: list[Trader], seen: Seen) -> dict[str, int]:
    """All that was seen up to the quiet moment; what differs is a fault of `world`. Returns how much was compared."""
    compared = {"events of traders": 0, "orders": 0, "balances": 0, "outcomes": 0, "trades": 0, "books at the end": 0}
    rows = truth.core.open_orders()
    for trader in traders:
        compared["events of traders"] += _judge_events(world, truth, trader)
        if not trader.viewer:
            _judge_answers(world, truth, trader, rows, compared)
    _judge_trades(world, truth, seen, compared)
    _judge_books(world, truth, seen, rows, compared)
    return compared


def _judge_events(world: World, truth: Truth, trader: Trader) -> int:
    index = truth.directory.accounts_by_name[trader.member.name].index
    expected = truth.events.get(index, {})
    for key in expected.keys() - trader.records.keys():
        world.fault(f"{trader.member.name}: never told of {key}")
    for key, (is_binary, digest) in trader.records.items():
        of_event = expected.get(key)
        whole = truth.firsts.get(key[0]) if key[1] == _ACK_ONLY else None
        if digest not in {found[is_binary] for found in (of_event, whole) if found is not None}:
            world.fault(f"{trader.member.name}: told of {key} what the journal does not say, binary {is_binary}")
    return len(trader.records)


def _judge_answers(
    world: World, truth: Truth, trader: Trader, rows: npt.NDArray[Any], compared: dict[str, int]
) -> None:
    name, core, names = trader.member.name, truth.core, truth.directory
    index = names.accounts_by_name[name].index
    own = rows[rows["account"] == index]
    wanted = {int(row["order_id"]): _order_text(row, names) for row in own}
    told = {
        row["order_id"]: (row["client_id"], row["market"], row["side"], row["leaves"], row["status"])
        for row in trader.answers["open_orders"]["orders"]
    }
    if told != wanted:
        world.fault(f"{name}: open orders {sorted(told.items() ^ wanted.items())[:4]}")
    if trader.open.keys() != wanted.keys():
        world.fault(f"{name}: open by its events {sorted(trader.open.keys() ^ wanted.keys())[:4]}")
    compared["orders"] += len(wanted)
    money = {
        asset.name: (asset.text(int(row["available"])), asset.text(int(row["held"])))
        for row in core.balances_of(index)
        for asset in [names.assets[int(row["asset"])]]
    }
    answer = {row["asset"]: (row["available"], row["held"]) for row in trader.answers["balances"]["balances"]}
    if {asset: both for asset, both in answer.items() if both != ("0", "0")} != {
        asset: both for asset, both in money.items() if both != ("0", "0")
    }:
        world.fault(f"{name}: balances {answer}, the journal says {money}")
    compared["balances"] += len(answer)
    for resolved in trader.resolved:
        client_id = resolved["client_id"]
        if core.is_poisoned(index, client_id.encode()):
            right = "poisoned"
        elif any(order[0] == client_id for order in wanted.values()):
            right = "accepted"
        else:
            right = "final" if core.client_id_state(index, client_id.encode()) else "never_received"
        outcome = resolved["outcome"]
        if outcome != right and not (right == "never_received" and outcome == "rejected"):
            world.fault(f"{name}: {client_id} is {right}, and was resolved as {resolved}")
        compared["outcomes"] += 1


def _order_text(row: Any, names: Directory) -> tuple[str, str, str, str, str]:
    entry = names.markets[int(row["market"])]
    leaves = int(row["leaves"])
    amount = entry.quote.text(leaves) if row["flags"] & layout.PlaceFlag.BUDGET else entry.size_text(leaves)
    side = ("buy", "sell")[int(row["side"])]
    return row["client_id"].decode(), entry.name, side, amount, OrderStatus(int(row["status"])).word


def _judge_trades(world: World, truth: Truth, seen: Seen, compared: dict[str, int]) -> None:
    for key, told in seen.trades.items():
        if truth.trades.get(key) != told:
            world.fault(f"trade {key}: readers {told}, the journal {truth.trades.get(key)}")
    missing = truth.trades.keys() - seen.trades.keys()
    # Readers tell a gap that was not announced themselves. Where the machine left them no time to read, they were told,
    # and perhaps nobody was left to be shown a trade.
    excused = {trade for trade in missing if trade[0] in seen.thinned}
    world.counts["trades missed by readers told that they are slow"] += len(excused)
    missing -= excused
    if missing:
        world.fault(f"{len(missing)} trades were shown to nobody: {sorted(missing)[:4]}")
    compared["trades"] += len(seen.trades)
    for market, candles in seen.candles.items():
        for candle in candles:
            want = truth.minutes[market].get(candle["begin"])
            if want != (candle["close"], candle["trades"]):
                world.fault(f"minute {candle['begin']} of {MARKETS[market]}: {candle}, the journal {want}")
    for market, ticker in seen.tickers.items():
        last = max((number for index, number in truth.trades if index == market), default=0)
        if last and ticker["seq"] >= truth.trades[market, last][0] and ticker["last"] != truth.trades[market, last][1]:
            world.fault(f"ticker of {MARKETS[market]}: {ticker['last']}, the journal {truth.trades[market, last]}")


def _judge_books(
    world: World, truth: Truth, seen: Seen, rows: npt.NDArray[Any], compared: dict[str, int]
) -> None:
    for (market, depth), last in seen.last.items():
        compared["books at the end"] += len(last)
        if depth == ORDERS:
            continue
        right = book_checksum(truth.levels(market, rows), depth)
        for seq, checksum in last:
            if checksum != right:
                world.fault(f"{MARKETS[market]} depth {depth}: readers ended at {seq} with {checksum}, engine {right}")
    for market, queue in seen.queues.items():
        right_queue = truth.queue(market)
        if sorted(queue) != sorted(right_queue) or _by_level(queue) != _by_level(right_queue):
            world.fault(f"single orders of {MARKETS[market]} are not those of the engine")


def _by_level(queue: list[tuple[str, str, str]]) -> dict[tuple[str, str], list[str]]:
    found: dict[tuple[str, str], list[str]] = {}
    for side, price, size in queue:
        found.setdefault((side, price), []).append(size)
    return found
