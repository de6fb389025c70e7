"""Every order type through real order entry and the real core: acks, private events, open orders, timers, replay."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from byline.client import CommandError, Rejected, TradingClient
from persistence.disk import DirectoryDisk
from persistence.recovery import replay
from tests.support.gateway import MARKET, Exchange, exchange
from tests.support.waiting import HANG_S

SECOND = 1_000_000_000


@dataclass
class Floor:
    """A running exchange with three traders and the operator."""

    x: Exchange
    operator: TradingClient
    ann: TradingClient
    ben: TradingClient
    cy: TradingClient

    async def trade(self, price: str, size: str = "0.1") -> None:
        """One trade between ben and cy, who take nothing else."""
        number = self.x.core.sequence
        await self.ben.place(MARKET, f"s{number}", "sell", "limit", size=size, price=price)
        await self.cy.place(MARKET, f"b{number}", "buy", "limit", size=size, price=price, tif="ioc")

    async def open(self, client: TradingClient) -> dict[str, dict[str, Any]]:
        return {order["client_id"]: order for order in await client.open_orders()}


@asynccontextmanager
async def floor(root: Path, **market: Any) -> AsyncIterator[Floor]:
    """Ends with the journal replayed to the state that the core has."""
    async with exchange(root) as x, await x.client(x.operator) as operator:
        keys = [await x.trader(operator, name) for name in ("ann", "ben", "cy")]
        terms = {"taker_ppm": 0, "maker_ppm": 0} | market
        await operator.command(
            "market", market=MARKET, base="CRT", quote="USD", tick="0.01", lot="0.1", **terms
        )  # fmt: skip
        stays = {"cancel_on_disconnect": False}  # what is open at the end is part of what is compared
        async with (
            await x.client(keys[0], **stays) as ann,
            await x.client(keys[1], **stays) as ben,
            await x.client(keys[2], **stays) as cy,
        ):
            yield Floor(x, operator, ann, ben, cy)
            assert x.server.fault is None
            x.core.check()
            status = await operator.status()
        x.journal.wait_durable(status["sequence"])
        core, _ = replay(DirectoryDisk(root))
        assert (core.sequence, core.state_hash().hex()) == (status["sequence"], status["state_hash"])


async def until(client: TradingClient, name: str, **fields: Any) -> list[dict[str, Any]]:
    """Private events up to and with the first that fits."""
    seen: list[dict[str, Any]] = []
    async with asyncio.timeout(HANG_S):
        async for event in client.events():
            seen.append(event)
            if event.get("event") == name and fields.items() <= event.items():
                return seen
    raise AssertionError(f"the session ended after {len(seen)} events, the last {seen[-3:]}")


def names(events: list[dict[str, Any]]) -> list[str]:
    return [event["event"] for event in events]


def later(seconds: float) -> int:
    return time.time_ns() + int(seconds * SECOND)


async def test_stop_waits_triggers_and_is_told_to_its_owner(tmp_path: Path) -> None:
    async with floor(tmp_path) as f:
        await f.trade("1")
        await f.ben.place(MARKET, "ask", "sell", "limit", size="5", price="1.3")
        ack = await f.ann.place(MARKET, "stop", "buy", "stop", budget="2.6", stop_price="1.2")
        assert (ack["event"], ack["stop_price"], ack["budget"], ack["hold"]) == ("accepted", "1.2", "2.6", "0")
        assert (await f.open(f.ann))["stop"] == {
            "order_id": ack["order_id"], "client_id": "stop", "market": MARKET, "side": "buy", "type": "stop",
            "tif": "gtc", "status": "waiting", "budget": "2.6", "leaves": "2.6", "stop_price": "1.2",
        }  # fmt: skip
        replaced = await f.ann.replace(client_id="stop", stop_price="1.25", new_client_id="moved")
        assert (replaced["event"], replaced["priority_kept"]) == ("replaced", True)
        assert (await f.open(f.ann))["moved"]["stop_price"] == "1.25"
        await f.trade("1.24")
        assert (await f.open(f.ann))["moved"]["status"] == "waiting"
        before = f.x.core.sequence
        await f.trade("1.25")
        events = await until(f.ann, "trade")
        assert names(events) == ["triggered", "trade"]
        assert {key: events[0][key] for key in ("order_id", "stop_price", "trigger_price", "trigger_sequence")} == {
            "order_id": ack["order_id"], "stop_price": "1.25", "trigger_price": "1.25", "trigger_sequence": before + 2,
        }  # fmt: skip
        assert (events[1]["taker_client_id"], events[1]["size"], events[1]["taker_leaves"]) == ("moved", "2", "0")
        assert await f.open(f.ann) == {}
        assert (await f.ann.place(MARKET, "stop", "buy", "limit", size="1", price="1"))["status"] == "filled"


async def test_stop_limit_cascade_rests_and_a_waiting_stop_is_canceled(tmp_path: Path) -> None:
    async with floor(tmp_path) as f:
        for name, stop_price, price in (("one", "0.95", "0.9"), ("two", "0.9", "0.85")):
            await f.ann.place(MARKET, name, "sell", "stop_limit", size="1", price=price, stop_price=stop_price)
        await f.ann.place(MARKET, "low", "sell", "stop", size="1", stop_price="0.5")
        await f.cy.place(MARKET, "bid", "buy", "limit", size="1", price="0.9")
        await f.trade("0.95")
        events = await until(f.ann, "triggered", stop_price="0.9")
        assert names(events) == ["triggered", "trade", "triggered"]
        orders = await f.open(f.ann)
        assert {name: (order["status"], order.get("price")) for name, order in orders.items()} == {
            "two": ("open", "0.85"), "low": ("waiting", None),
        }  # fmt: skip
        canceled = await f.ann.cancel(client_id="low")
        assert (canceled["leaves"], canceled["released"], canceled["reason"]) == ("1", "1", "user")
        assert (await f.ann.balances())["CRT"]["held"] == "1"


async def test_iceberg_shows_slices_and_holds_all(tmp_path: Path) -> None:
    async with floor(tmp_path) as f:
        ack = await f.ann.place(MARKET, "ice", "sell", "limit", size="10", price="1", display_size="2")
        assert (ack["display_size"], ack["hold"]) == ("2", "10")
        bought = await f.ben.place(MARKET, "b", "buy", "limit", size="5", price="1")
        assert bought["event"] == "accepted"
        events = await until(f.ann, "trade", maker_leaves="5")
        assert names(events) == ["trade", "refreshed", "trade", "refreshed", "trade"]
        assert [event["size"] for event in events if event["event"] == "trade"] == ["2", "2", "1"]
        assert [event["display_size"] for event in events if event["event"] == "refreshed"] == ["2", "2"]
        order = (await f.open(f.ann))["ice"]
        assert (order["leaves"], order["display_size"], order["size"]) == ("5", "2", "10")
        with pytest.raises(Rejected, match="bad_display"):
            await f.ann.place(MARKET, "bad", "sell", "limit", size="1", price="1", display_size="2")
        with pytest.raises(CommandError, match="bad_display"):
            await f.ann.place(MARKET, "bad", "sell", "limit", size="1", price="1", display_size="0.05")


async def test_gtd_expires_while_nobody_sends_anything(tmp_path: Path) -> None:
    async with floor(tmp_path) as f:
        ack = await f.ann.place(MARKET, "g", "buy", "limit", size="1", price="1", tif="gtd", expires_at=later(0.4))
        await f.ann.place(
            MARKET, "w", "sell", "stop", size="2", stop_price="0.5", tif="gtd", expires_at=ack["expires_at"] + 1
        )
        assert {o["expires_at"] - ack["expires_at"] for o in (await f.open(f.ann)).values()} == {0, 1}
        before = f.x.core.sequence
        events = await until(f.ann, "canceled", client_id="w")
        assert [(event["event"], event["client_id"], event["reason"], event["released"]) for event in events] == [
            ("canceled", "g", "expired", "1"), ("canceled", "w", "expired", "2"),
        ]  # fmt: skip
        assert f.x.core.sequence > before and f.x.sequencer.ticks >= 1
        assert all(event["ts"] >= ack["expires_at"] for event in events)
        assert (await f.ann.balances())["USD"]["held"] == "0"
        with pytest.raises(Rejected, match="bad_expiry"):
            await f.ann.place(MARKET, "late", "buy", "limit", size="1", price="1", tif="gtd", expires_at=1)


async def test_pair_holds_the_larger_and_ends_with_the_first_trade(tmp_path: Path) -> None:
    async with floor(tmp_path) as f:
        await f.trade("1")
        first = await f.ann.place(MARKET, "take", "sell", "limit", size="4", price="1.5")
        second = await f.ann.place(MARKET, "stop", "sell", "stop", size="5", stop_price="0.8", oco_with="take")
        assert (first["hold"], second["hold"]) == ("4", "1")
        assert (await f.ann.balances())["CRT"]["held"] == "5"
        await f.ben.place(MARKET, "b", "buy", "limit", size="1", price="1.5")
        events = await until(f.ann, "canceled", client_id="stop")
        assert names(events) == ["trade", "canceled"] and (events[1]["reason"], events[1]["released"]) == ("oco", "1")
        assert (await f.ann.balances())["CRT"]["held"] == "3"
        with pytest.raises(Rejected, match="bad_oco"):
            await f.ann.place(MARKET, "more", "sell", "stop", size="5", stop_price="0.8", oco_with="stop")
        await f.ann.place(
            MARKET, "again", "sell", "stop_limit", size="3", price="0.7", stop_price="0.8", oco_with="take"
        )
        await f.trade("0.8")
        events = await until(f.ann, "canceled", client_id="take")
        assert names(events) == ["triggered", "canceled"] and events[1]["reason"] == "oco"
        assert [order["client_id"] for order in await f.ann.open_orders()] == ["again"]


async def test_replace_finds_orders_just_placed_and_renamed_ones_by_every_id(tmp_path: Path) -> None:
    async with floor(tmp_path) as f:
        frame: list[dict[str, Any]] = [
            {"rid": 101, "op": "place", "market": MARKET, "client_id": "a", "side": "buy", "type": "limit", "size": "3",
             "price": "1"},
            {"rid": 102, "op": "replace", "client_id": "a", "price": "0.9", "new_client_id": "b"},
            {"rid": 103, "op": "replace", "client_id": "a", "size": "2"},
            {"rid": 104, "op": "replace", "client_id": "b", "price": "0.8", "size": "4"},
            {"rid": 105, "op": "cancel", "client_id": "a"},
        ]  # fmt: skip
        answers: dict[int, asyncio.Future[dict[str, Any]]] = {
            command["rid"]: asyncio.get_running_loop().create_future() for command in frame
        }
        f.ann._open.update(answers)
        await f.ann._socket.send(json.dumps(frame))
        async with asyncio.timeout(HANG_S):
            acks = [await answers[command["rid"]] for command in frame]
        assert [ack["event"] for ack in acks] == ["accepted", "replaced", "replaced", "replaced", "canceled"]
        assert [(ack["price"], ack["size"], ack["priority_kept"]) for ack in acks[1:4]] == [
            ("0.9", "3", False), ("0.9", "2", True), ("0.8", "4", False),
        ]  # fmt: skip
        assert acks[4]["client_id"] == "b"


async def test_band_pauses_the_market_and_timers_open_it_again(tmp_path: Path) -> None:
    async with floor(tmp_path, exec_band_ppm=100_000, pause_ns=SECOND // 4) as f:
        await f.trade("1")
        await f.ben.place(MARKET, "far", "sell", "limit", size="2", price="1.2")
        await f.ann.place(MARKET, "up", "buy", "limit", size="1", price="1.25")
        events = await until(f.ann, "phase_changed")
        assert (events[-1]["phase"], events[-1]["reason"], events[-1]["market"]) == ("halt", "band", MARKET)
        with pytest.raises(Rejected, match="phase"):
            await f.ann.place(MARKET, "no", "buy", "limit", size="1", price="1")
        events = await until(f.ann, "trade")  # nobody sends anything: ticks end the halt and then the auction
        assert (events[-1]["aggressor"], events[-1]["price"], events[-1]["taker_client_id"]) == ("none", "1.2", "up")
        assert (await until(f.ben, "trade", aggressor="none"))[-1]["maker_client_id"] == "far"
        assert (await f.ann.place(MARKET, "yes", "buy", "limit", size="1", price="1.2"))["event"] == "accepted"
        assert (await until(f.ann, "trade"))[-1]["aggressor"] == "buy"


async def test_operator_collects_and_uncrosses(tmp_path: Path) -> None:
    async with floor(tmp_path) as f:
        for command in ({"op": "phase", "market": MARKET, "phase": "auction"}, {"op": "uncross", "market": MARKET}):
            with pytest.raises(CommandError, match="forbidden"):
                await f.ann.request(command)
        ack = await f.operator.command("phase", market=MARKET, phase="auction", reference_price="1")
        assert (ack["event"], ack["phase"], ack["reason"]) == ("phase_changed", "auction", "command")
        with pytest.raises(Rejected, match="phase"):
            await f.ann.place(MARKET, "m", "buy", "market", size="1")
        await f.ann.place(MARKET, "bid", "buy", "limit", size="5", price="1.1", display_size="1")
        await f.ben.place(MARKET, "ask", "sell", "limit", size="3", price="0.9")
        with pytest.raises(Rejected, match="crossed"):
            await f.operator.command("phase", market=MARKET, phase="continuous")
        ack = await f.operator.command("uncross", market=MARKET)
        assert (ack["event"], ack["price"], ack["size"], ack["imbalance"]) == ("uncrossed", "1.1", "3", "2")
        opened = (await until(f.operator, "phase_changed"))[-1]
        assert (opened["phase"], opened["reason"], opened["sequence"]) == ("continuous", "uncross", ack["sequence"])
        events = await until(f.ann, "refreshed")
        assert names(events) == ["trade", "refreshed"] and events[0]["maker_leaves"] == "2"
        assert (await until(f.ben, "trade"))[-1]["taker_leaves"] == "0"
        closed = await f.operator.command("phase", market=MARKET, phase="closed")
        assert closed["phase"] == "closed"
        assert (await until(f.ann, "canceled"))[-1]["reason"] == "closed"


async def test_an_account_protects_itself(tmp_path: Path) -> None:
    async with floor(tmp_path) as f:
        limit = {"size": "1", "price": "1"}
        await f.ann.place(MARKET, "one", "buy", "limit", **limit)
        assert (await f.ann.poison("ghost"))["event"] == "done"
        assert (await f.ann.poison("one"))["event"] == "duplicate"
        with pytest.raises(Rejected, match="poisoned"):
            await f.ann.place(MARKET, "ghost", "buy", "limit", **limit)
        assert (await f.ann.kill())["op"] == "kill"
        assert (await until(f.ann, "canceled"))[-1]["reason"] == "killed"
        with pytest.raises(Rejected, match="killed"):
            await f.ann.place(MARKET, "two", "buy", "limit", **limit)
        with pytest.raises(CommandError, match="forbidden"):
            await f.ben.request({"op": "rearm", "account": "ann"})
        await f.ann.rearm()
        await f.ann.place(MARKET, "two", "buy", "limit", **limit)
        await f.ann.place(MARKET, "three", "sell", "stop", size="1", stop_price="0.5")
        await f.ann.cancel_after(later(30))
        await f.ann.cancel_after(later(0.3))
        events = await until(f.ann, "canceled", client_id="three")
        assert [(event["client_id"], event["reason"]) for event in events] == [("two", "session"), ("three", "session")]
        assert await f.ann.open_orders() == []


async def test_fok_ioc_post_only_and_budget(tmp_path: Path) -> None:
    async with floor(tmp_path) as f:
        await f.ben.place(MARKET, "ask", "sell", "limit", size="2", price="1", display_size="0.5")
        with pytest.raises(Rejected, match="would_cross"):
            await f.ann.place(MARKET, "p", "buy", "limit", size="1", price="1", post_only=True)
        await f.ann.place(MARKET, "f", "buy", "limit", size="2.1", price="1", tif="fok")
        assert [(e["event"], e["reason"]) for e in await until(f.ann, "canceled")] == [("canceled", "fok")]
        await f.ann.place(MARKET, "whole", "buy", "limit", size="1", price="1", tif="fok")
        assert names(await until(f.ann, "trade", taker_leaves="0")) == ["trade", "trade"]
        await f.ann.place(MARKET, "i", "buy", "limit", size="0.9", price="0.99", tif="ioc")
        assert (await until(f.ann, "canceled"))[-1]["reason"] == "ioc"
        await f.ann.place(MARKET, "m", "buy", "market", budget="0.77")
        events = await until(f.ann, "canceled")
        assert (events[-1]["reason"], events[-1]["leaves"]) == ("budget", "0.07")
        duplicate = await f.ann.place(MARKET, "m", "buy", "market", budget="0.77")
        assert (duplicate["status"], duplicate["filled"]) == ("canceled", "0.7")


async def test_one_command_of_many_events_is_no_slow_reader(tmp_path: Path) -> None:
    async with (
        exchange(tmp_path, write_low_bytes=20_000, write_high_bytes=60_000) as x,
        await x.client(x.operator) as operator,
    ):
        ann, ben = await x.trader(operator, "ann"), await x.trader(operator, "ben")
        async with await x.client(ann) as a, await x.client(ben) as b:
            order = {"op": "place", "market": MARKET, "type": "limit", "size": "0.1", "price": "1", "side": "sell"}
            told = asyncio.create_task(until(a, "trade", maker_client_id="a19999"))  # more than is kept for nobody
            for start in range(0, 20_000, 500):
                await a._socket.send(json.dumps([order | {"client_id": f"a{n}"} for n in range(start, start + 500)]))
                await a.ping()
            await b.place(MARKET, "sweep", "buy", "limit", size="2000", price="1")
            assert len(await until(b, "trade", taker_leaves="0")) == 20_000
            assert names(await told).count("trade") == 20_000 and x.server.counters.closed_slow == 0
            await a.ping()
