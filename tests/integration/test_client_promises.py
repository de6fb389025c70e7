"""What the client library promises of ids, readers, values and TLS, against a running order entry."""

from __future__ import annotations

import asyncio
import ssl
from decimal import Decimal
from pathlib import Path

import pytest

from byline.client import CommandError, DuplicateId, EventsMissed, Trader
from byline.client.messages import Accepted
from tests.integration.test_client_trader import Cutter
from tests.support.gateway import MARKET, exchange
from tests.support.tls import certificate
from tests.support.waiting import until


async def test_f33_an_id_used_before_never_passes_for_the_order_asked_for(tmp_path: Path) -> None:
    async with exchange(tmp_path) as x, await x.client(x.operator) as operator:
        alice, bob = await x.trader(operator, "alice"), await x.trader(operator, "bob")
        async with Trader(x.url, bob) as maker, Trader(x.url, alice) as first:
            await maker.place(MARKET, "m", "sell", "limit", size="3", price="1.00")
            bought = await first.place(MARKET, "a", "buy", "limit", size="3", price="1.00", tif="ioc")
            assert (bought.state, bought.filled) == ("filled", 3)
            again = await first.place(MARKET, "a", "buy", "limit", size="3.0", price=Decimal("1"), tif="ioc")
            assert again is bought, "the same order asked for again is that order"
            with pytest.raises(DuplicateId) as raised:
                await first.place(MARKET, "a", "sell", "limit", size="5", price="2")
            assert raised.value.order is bought and raised.value.term == "side" and bought.side == "buy"
            with pytest.raises(DuplicateId, match="price"):
                await first.place(MARKET, "a", "buy", "limit", size="3", price="1.01", tif="ioc")
            assert bought.price == "1.00" or Decimal(bought.price or 0) == 1
        async with Trader(x.url, alice, cancel_on_disconnect=False) as second:
            with pytest.raises(DuplicateId) as raised:
                await second.place(MARKET, "a", "sell", "limit", size="5", price="2")
            old = raised.value.order
            assert (old.order_id, old.state, old.filled, old.market) == (bought.order_id, "filled", 3, MARKET)
            assert (old.side, old.price, old.size) == ("", None, None), "nothing of what was sent"
            resting = await second.place(MARKET, "b", "buy", "limit", size="4", price="0.5")
        async with Trader(x.url, alice) as third:
            with pytest.raises(DuplicateId, match="buy 4") as raised:
                await third.place(MARKET, "b", "sell", "market", size="1")
            assert raised.value.order.order_id == resting.order_id and raised.value.order.is_open
            assert (await third.place(MARKET, "b", "buy", "limit", size="4", price="0.50")).order_id == resting.order_id
            assert [order.client_id for order in third.open_orders()] == ["b"]


async def test_an_id_used_before_is_told_after_a_lost_connection_too(tmp_path: Path) -> None:
    async with exchange(tmp_path) as x, await x.client(x.operator) as operator:
        alice = await x.trader(operator, "alice")
        async with Trader(x.url, alice) as first:
            old = await first.place(MARKET, "a", "buy", "limit", size="3", price="1.00")
            await first.cancel("a")
        cutter = Cutter(x.url)
        async with cutter.serve() as url:
            cutter.budgets = [(10_000, 10_000)]
            async with Trader(url, alice, pause_s_max=0.05) as second:
                for writer in list(cutter._writers):
                    writer.transport.pause_reading()  # what is placed now does not arrive
                placing = asyncio.create_task(second.place(MARKET, "a", "sell", "limit", size="5", price="2"))
                while not second.tracker.unanswered():
                    await asyncio.sleep(0)
                for writer in list(cutter._writers):
                    writer.transport.abort()
                with pytest.raises(DuplicateId) as raised:
                    await placing
                order = raised.value.order
                assert (order.order_id, order.state, order.side) == (old.order_id, "canceled", "")
                assert second.connections == 2 and not second.tracker.unanswered() and not second.tracker.doubted()


async def test_a_reader_that_takes_nothing_ends_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with exchange(tmp_path) as x, await x.client(x.operator) as operator:
        key = await x.trader(operator, "alice")
        async with Trader(x.url, key, events_max=20) as trader, await x.client(key, events_max=20) as plain:
            unread, read = trader.events(), trader.events()
            heard = []
            for number in range(60):
                await trader.place(MARKET, f"u{number}", "buy", "limit", size="1", price="0.10")
                heard.append(await anext(read))
            assert [type(event) for event in heard] == [Accepted] * 60
            assert caplog.text.count("reader_ended") == 1, "said once"
            await trader.cancel_all()
            await until(lambda: not trader.open_orders(), what="the cancels")
            kept = [await anext(unread) for _ in range(20)]
            assert kept == heard[:20]
            with pytest.raises(EventsMissed) as raised:
                await anext(unread)
            assert raised.value.after == kept[-1].sequence and raised.value.missed >= 1
            await plain.ping()  # a connection that never read its events is answered all the same
            events = plain.events()
            assert len([await anext(events) for _ in range(20)]) == 20
            with pytest.raises(EventsMissed):
                await anext(events)
            await trader.place(MARKET, "later", "buy", "limit", size="1", price="0.10")
            assert (await anext(plain.events()))["client_id"] == "later"


async def test_a_float_is_refused_before_it_is_sent(tmp_path: Path) -> None:
    async with exchange(tmp_path) as x, await x.client(x.operator) as operator:
        key = await x.trader(operator, "alice")
        async with Trader(x.url, key) as trader:
            for wrong in (1.0, float("nan"), Decimal("NaN"), object()):
                with pytest.raises(CommandError) as raised:
                    await trader.place(MARKET, "f", "buy", "limit", size="1", price=wrong)
                assert (raised.value.code, raised.value.field) == ("malformed", "price") and raised.value.rule
            with pytest.raises(CommandError) as raised:
                await trader.ask("quote", market=MARKET, quote_id="q", bid={"price": 0.1, "size": "1"})
            assert raised.value.field == "bid.price"
            assert (await trader.ask("resolve", client_id="f"))["outcome"] == "never_received"
            order = await trader.place(MARKET, "f", "buy", "limit", size=Decimal("1E+1"), price=Decimal("0.50"))
            assert (order.state, order.leaves) == ("open", 10)


async def test_wss_has_the_default_context(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chain, private = certificate(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", chain)
    async with exchange(tmp_path, tls_certificate=chain, tls_key=private, tls_port=0) as x, await x.client(
        x.operator
    ) as operator:
        alice = await x.trader(operator, "alice")
        url = f"wss://127.0.0.1:{x.server.tls_address[1]}"
        context = ssl.create_default_context(cafile=chain)
        async with Trader(url, alice) as trader, Trader(url, alice, ssl=context) as two:
            assert (await trader.ask("whoami"))["accounts"] == two.accounts == ["alice"]
