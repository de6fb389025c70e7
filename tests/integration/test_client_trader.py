"""The trader and its tracker over real sockets: cut off at random, in the end equal to the exchange and its journal."""

from __future__ import annotations

import asyncio
import contextlib
import random
from contextlib import asynccontextmanager
from decimal import Decimal
from pathlib import Path

import pytest

from byline.client import CommandError, ConnectionLost, Rejected, SignInFailed, generate_key, public_key
from byline.client.messages import Accepted, Canceled, Trade
from byline.client.trader import Forgotten, NeverReceived, Trader
from engine.core import CoreLimits
from engine.messages.decode import EventDecoder
from engine.messages.directory import Directory
from persistence.event_log import EventLogReader
from tests.support.gateway import MARKET, exchange
from tests.support.waiting import HANG_S, until


class Cutter:
    """A way to the exchange that breaks: after so many bytes in one direction, wherever in a frame that is."""

    def __init__(self, url: str) -> None:
        self.host, _, port = url.removeprefix("ws://").partition(":")
        self.port = int(port)
        self.budgets: list[tuple[int, int]] = []
        self.cuts = 0
        self._writers: set[asyncio.StreamWriter] = set()

    async def _meet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        up, down = self.budgets.pop(0) if self.budgets else (1 << 60, 1 << 60)
        try:
            theirs, ours = await asyncio.open_connection(self.host, self.port)
        except OSError:
            writer.transport.abort()
            return
        ends = {writer, ours}
        self._writers |= ends

        async def pass_on(source: asyncio.StreamReader, target: asyncio.StreamWriter, left: int) -> None:
            while data := await source.read(65_536):
                target.write(data[:left])
                left -= len(data)
                if left <= 0:
                    self.cuts += 1
                    await target.drain()
                    break
            for end in ends:
                if left <= 0 and end is target:
                    end.close()  # what was let through arrives
                else:
                    end.transport.abort()

        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(pass_on(reader, ours, up))
                group.create_task(pass_on(theirs, writer, down))
        except* OSError:
            pass
        finally:
            self._writers -= ends

    @asynccontextmanager
    async def serve(self):
        server = await asyncio.start_server(self._meet, "127.0.0.1", 0)
        try:
            yield f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        finally:
            server.close()
            for writer in list(self._writers):
                writer.transport.abort()


def journaled(root: Path, account: str) -> tuple[dict[int, Decimal], dict[int, str]]:
    """What the event log says of an account: base traded by order, and the names of its orders."""
    reader, decoder = EventLogReader(root / "events"), EventDecoder(Directory())
    filled: dict[int, Decimal] = {}
    names: dict[int, str] = {}
    while len(slots := reader.read(65_536)):
        for event in decoder.decode(slots):
            if event["event"] == "accepted" and event["account"] == account:
                names[event["order_id"]] = event["client_id"]
                filled[event["order_id"]] = Decimal(0)
            for who in ("maker", "taker"):
                if event["event"] == "trade" and event[f"{who}_account"] == account:
                    filled[event[f"{who}_order_id"]] += Decimal(event["size"])
    return filled, names


async def _trade(trader: Trader, chance: random.Random, count: int, sent: dict[str, str]) -> None:
    """Orders of every kind; what is refused is as good as what is taken. `sent`: what place said of each client id."""
    for number in range(count):
        name, roll = f"{len(sent)}-{number}", chance.random()
        known = [order.client_id for order in trader.open_orders()]
        try:
            if roll < 0.6 or not known:
                sent[name] = "asked"
                terms = {"price": f"1.0{chance.randrange(10)}", "size": str(chance.randrange(1, 9))}
                kind = "limit"
                if chance.random() < 0.15:
                    kind, terms = "stop", {"stop_price": f"1.0{chance.randrange(10)}", "size": "1"}
                elif chance.random() < 0.1:
                    terms["size"] = "100000000"  # not to be paid
                side = chance.choice(("buy", "sell"))
                sent[name] = (await trader.place(MARKET, name, side, kind, **terms)).state
            elif roll < 0.75:
                await trader.replace(chance.choice(known), price=f"1.0{chance.randrange(10)}", new_client_id=name + "r")
            else:
                assert not (await trader.cancel(chance.choice(known))).is_open
        except NeverReceived:
            sent[name] = "never_received"
        except Rejected:
            if name in sent:
                sent[name] = "rejected"
        except (CommandError, ConnectionLost):
            pass


@pytest.mark.parametrize("seed", range(6))
async def test_cut_off_anywhere_the_tracker_ends_true(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    async with exchange(tmp_path, ack_mode="durable" if seed % 2 else "memory") as x, await x.client(
        x.operator
    ) as operator:
        alice, bob = await x.trader(operator, "alice"), await x.trader(operator, "bob")
        cutter, sent = Cutter(x.url), {}
        heard = []
        async with cutter.serve() as url, Trader(
            url, alice, cancel_on_disconnect=bool(seed % 3), pause_s_max=0.05
        ) as trader, await x.client(bob) as other:  # fmt: skip

            async def listen() -> None:
                async for event in events:
                    heard.append(event)

            async def oppose() -> None:
                number = 0
                while True:
                    number += 1
                    side = chance.choice(("buy", "sell"))
                    await other.request(
                        {"op": "place", "market": MARKET, "client_id": f"o{number}", "side": side, "type": "limit",
                         "price": f"1.0{chance.randrange(10)}", "size": str(chance.randrange(1, 5))}
                    )  # fmt: skip
                    await asyncio.sleep(chance.random() * 0.004)

            events = trader.events()
            listening, opposing = asyncio.create_task(listen()), asyncio.create_task(oppose())
            for _ in range(12):
                many = 1 << 60
                cutter.budgets = [
                    (chance.randrange(1, 3_000), many) if chance.random() < 0.5 else (many, chance.randrange(1, 9_000))
                    for _ in range(chance.randrange(1, 3))
                ]
                for writer in list(cutter._writers):
                    writer.transport.abort()
                await asyncio.gather(*(_trade(trader, chance, chance.randrange(1, 12), sent) for _ in range(2)))
            opposing.cancel()
            await asyncio.gather(opposing, return_exceptions=True)
            listed = {row["order_id"]: row for row in (await trader.ask("open_orders"))["orders"]}
            mine = {order.order_id: order for order in trader.open_orders()}
            assert set(mine) == set(listed)
            for number, row in listed.items():
                assert (mine[number].client_id, mine[number].state) == (row["client_id"], row["status"])
                assert (mine[number].leaves, mine[number].price) == (Decimal(row["leaves"]), row.get("price"))
            assert not trader.tracker.unanswered() and not trader.tracker.doubted()
            await asyncio.sleep(0)
            filled, names = journaled(tmp_path, "alice")
            assert {number: order.filled for number, order in trader.tracker.orders.items()} == filled
            for name, told in sent.items():
                assert (name in names.values()) == (told not in ("never_received", "rejected")), (name, told)
            assert trader.connections > 8 and cutter.cuts > 3 and sum(filled.values()) > 0
            await until(lambda: len([e for e in heard if isinstance(e, Accepted)]) == len(names), what="every event")
            told = [(event.sequence, type(event).__name__, getattr(event, "order_id", 0)) for event in heard
                    if isinstance(event, Accepted | Canceled)]  # fmt: skip
            assert told == sorted(set(told), key=told.index) and [e[0] for e in told] == sorted(e[0] for e in told)
            traded = sum((Decimal(e.size) for e in heard if isinstance(e, Trade)), Decimal(0))
            assert traded == sum(filled.values()), "each fill was told once"
            listening.cancel()


async def test_a_restart_in_between_is_nothing_special(tmp_path: Path) -> None:
    async with exchange(tmp_path) as x, await x.client(x.operator) as operator:
        key = await x.trader(operator, "alice")
        port = int(x.url.rpartition(":")[2])
        trader = Trader(x.url, key, cancel_on_disconnect=False, pause_s_max=0.05)
        await trader.__aenter__()
        order = await trader.place(MARKET, "a", "buy", "limit", size="3", price="1", cancel_on_disconnect=False)
    async with exchange(tmp_path, restart=True, listed=False, port=port) as x:
        await until(lambda: trader.connections == 2 or trader._ended, what="the trader to be back")
        assert order.is_open
        assert (await trader.replace("a", size="2")).leaves == 2
        assert (await trader.cancel("a")).state == "canceled"
        await trader.__aexit__(None, None, None)


async def test_what_was_acked_and_lost_is_found_out(tmp_path: Path) -> None:
    """With memory acks a crash may take what was acked: the tracker then says so, from the exchange's own words."""
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    async with exchange(tmp_path / "one") as x, await x.client(x.operator) as operator:
        key = await x.trader(operator, "alice")
        trader = Trader(x.url, key, cancel_on_disconnect=False, pause_s_max=0.05)
        await trader.__aenter__()
        lost = [await trader.place(MARKET, f"l{n}", "buy", "limit", size="3", price="1") for n in range(30)]
    async with exchange(tmp_path / "two", port=0) as x, await x.client(x.operator) as operator:
        assert operator.signed_in["sequence"] < trader.tracker.position
        await operator.command("account", account="alice")
        await operator.register_key(public_key(key), ["alice"], ["trade", "read"], "again", tier="unlimited")
        trader.url = x.url
        await until(lambda: trader.connections == 2 or trader._ended, what="the trader to be back")
        assert {order.state for order in lost} == {"never_received"} and not trader.open_orders()
        await trader.__aexit__(None, None, None)


class Breach:
    """A way to the exchange by which, once `is_open`, a place comes in and its connection is cut before the ack."""

    def __init__(self, url: str) -> None:
        self.host, _, port = url.removeprefix("ws://").partition(":")
        self.port = int(port)
        self.is_open = self.swallows = False
        self.held: list[asyncio.StreamWriter] = []
        self.writers: list[asyncio.StreamWriter] = []

    async def meet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        theirs, ours = await asyncio.open_connection(self.host, self.port)
        self.writers += [writer, ours]

        async def up() -> None:
            while data := await reader.read(65_536):
                if self.is_open:
                    self.is_open = False
                    if not self.swallows:
                        ours.write(data)
                    self.held.append(ours)  # as after a fault of the network: nobody told the exchange
                    writer.transport.abort()
                    return
                ours.write(data)

        async def down() -> None:
            with contextlib.suppress(OSError):
                while data := await theirs.read(65_536):
                    if ours not in self.held:
                        writer.write(data)

        await asyncio.gather(up(), down(), return_exceptions=True)
        if ours not in self.held:
            ours.close()
            writer.close()

    @asynccontextmanager
    async def serve(self):
        server = await asyncio.start_server(self.meet, "127.0.0.1", 0)
        try:
            yield f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        finally:
            server.close()
            for writer in self.writers:
                writer.transport.abort()


async def test_what_the_exchange_forgot_is_not_called_never_received(tmp_path: Path) -> None:
    """The place is filled and forgotten while the trader is away, and the events of that time are not to be had."""
    limits = CoreLimits(client_ids_per_account=2)
    async with exchange(tmp_path, limits=limits) as x, await x.client(x.operator) as operator:
        key, other = await x.trader(operator, "alice"), await x.trader(operator, "bob")
        breach = Breach(x.url)
        async with breach.serve() as url, await x.client(key) as own, await x.client(other) as b:
            await b.place(MARKET, "b", "sell", "limit", size="5", price="1")
            x.server._open_events = None  # an exchange without an event log to resume from
            async with Trader(url, key, pause_s_max=0.05) as trader:
                breach.is_open = True
                trader.url = "ws://127.0.0.1:1"  # away, for as long as the others need
                placing = asyncio.create_task(
                    trader.place(MARKET, "x", "buy", "limit", size="5", price="1")
                )  # fmt: skip
                while (await own.resolve("x"))["outcome"] != "final":
                    await asyncio.sleep(0.02)
                for number in range(4):
                    await own.place(MARKET, f"c{number}", "buy", "limit", size="1", price="0.5")
                    await own.cancel(client_id=f"c{number}")
                trader.url = url
                with pytest.raises(Forgotten):
                    await asyncio.wait_for(placing, HANG_S)
                assert (await trader.place(MARKET, "y", "buy", "limit", size="1", price="0.5")).state == "open"


async def test_it_goes_on_where_nothing_can_be_poisoned_any_more(tmp_path: Path) -> None:
    """The place is lost on its way and its old session still stands: the answer is true when that one has ended."""
    limits = CoreLimits(poisons=1)
    async with exchange(tmp_path, limits=limits, ping_interval_s=0.5) as x, await x.client(x.operator) as operator:
        key = await x.trader(operator, "alice")
        breach = Breach(x.url)
        async with breach.serve() as url, await x.client(key) as own:
            await own.poison("only")
            with pytest.raises(Rejected, match="busy"):
                await own.poison("more")
            async with Trader(url, key, pause_s_max=0.05) as trader:
                breach.is_open = breach.swallows = True
                with pytest.raises(NeverReceived):
                    await asyncio.wait_for(trader.place(MARKET, "x", "buy", "limit", size="1", price="1"), HANG_S)
                assert x.server.counters.closed_silent == 1 and len(await own.sessions()) == 2
                assert (await trader.place(MARKET, "x", "buy", "limit", size="1", price="1")).state == "open"


async def test_a_key_that_is_not_taken_ends_it(tmp_path: Path) -> None:
    async with exchange(tmp_path) as x:
        trader = Trader(x.url, generate_key())
        with pytest.raises(SignInFailed):
            await trader.__aenter__()
        await trader.__aexit__(None, None, None)
