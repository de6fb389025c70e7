"""Two-sided quotes, signed receipts and TLS over real sockets."""

from __future__ import annotations

import asyncio
import json
import ssl
from pathlib import Path
from typing import Any

import pytest

from byline.client import CommandError, ConnectionLost, TradingClient, verify_receipt
from engine.core import Core
from engine.messages import layout
from engine.messages.errors import SettingsInvalid
from gateway.settings import Tier
from persistence.disk import DirectoryDisk
from persistence.recovery import replay
from persistence.segments import list_segments
from tests.support.gateway import MARKET, exchange
from tests.support.tls import certificate
from tests.support.waiting import HANG_S


def open_of(orders: list[dict[str, Any]]) -> set[tuple[str, str, str]]:
    return {(order["side"], order["price"], order["leaves"]) for order in orders}


async def test_a_quote_is_placed_moved_filled_and_withdrawn(tmp_path: Path) -> None:
    async with exchange(tmp_path) as x, await x.client(x.operator) as operator:
        key, other = await x.trader(operator, "alice"), await x.trader(operator, "bob")
        async with await x.client(key) as a, await x.client(other) as b:
            told = await a.quote(MARKET, "q", ("0.99", "5"), ("1.01", "6"))
            assert (told["bid"]["status"], told["ask"]["status"]) == ("open", "open")
            assert open_of(await a.open_orders()) == {("buy", "0.99", "5"), ("sell", "1.01", "6")}
            await b.place(MARKET, "b1", "buy", "limit", size="2", price="1.01", tif="ioc")
            moved = await a.quote(MARKET, "q", ("1.02", "5"), ("1.04", "6"))  # over its own old ask
            assert moved["ask"]["client_id"] == told["ask"]["client_id"] and moved["ask"]["filled"] == "2"
            assert open_of(await a.open_orders()) == {("buy", "1.02", "5"), ("sell", "1.04", "6")}
            moved = await a.quote(MARKET, "q", ("0.95", "5"), ("0.97", "6"))  # and under its own old bid
            assert open_of(await a.open_orders()) == {("buy", "0.95", "5"), ("sell", "0.97", "6")}
            await b.place(MARKET, "b2", "buy", "limit", size="6", price="0.97", tif="ioc")
            again = await a.quote(MARKET, "q", ("0.95", "5"), ("0.97", "1"))
            assert again["ask"]["client_id"] != moved["ask"]["client_id"] and again["ask"]["op"] == "place"
            one = await a.quote(MARKET, "q", None, ("0.97", "1"))
            canceled = {"client_id": told["bid"]["client_id"], "op": "cancel", "status": "canceled", "filled": "0"}
            assert one["bid"] == canceled | {"order_id": one["bid"]["order_id"]}
            none = await a.quote(MARKET, "q", None, None)
            assert "bid" not in none and none["ask"]["status"] == "canceled" and await a.open_orders() == []
            refused = await a.quote(MARKET, "q", ("1", "1"), ("1.01", "9999999999"), post_only=True)
            assert (refused["bid"]["status"], refused["ask"]["status"]) == ("open", "refused")
            assert refused["ask"]["reason"] == "bad_size"


async def test_a_quote_is_one_request_and_checked_before_anything_moves(tmp_path: Path) -> None:
    tiers = (Tier("plain", 2, 100, 3_600.0), Tier("unlimited", 0, 0, 1.0))
    async with exchange(tmp_path, tiers=tiers) as x, await x.client(x.operator) as operator:
        key = await x.trader(operator, "alice", tier="plain")
        reader = await x.trader(operator, "carol", ("read",), money=False)
        async with await x.client(key) as a, await x.client(reader) as c:
            before = x.core.sequence
            for fields, field, code in (
                ({"ask": {"price": "1.001", "size": "1"}}, "ask.price", "bad_price"),
                ({"bid": {"price": "1", "size": "1"}, "ask": {"price": "1", "size": "1"}}, "bid.price", "crossed"),
                ({"bid": {"price": "2", "size": "1"}, "ask": {"price": "1", "size": "1"}}, "bid.price", "crossed"),
                ({"bid": {"price": "1", "size": "0.01"}}, "bid.size", "bad_size"),
                ({"bid": {"price": "1"}}, "bid", "malformed"),
                ({"bid": {"price": 1, "size": "1"}}, "bid.price", "malformed"),
                ({"quote_id": "x" * 17}, "quote_id", "malformed"), ({"market": "NO-SUCH"}, "market", "malformed"),
                ({"color": 1}, "color", "malformed"), ({"account": "carol"}, "account", "forbidden"),
            ):  # fmt: skip
                with pytest.raises(CommandError) as error:
                    await a.request({"op": "quote", "market": MARKET, "quote_id": "q"} | fields)
                assert (error.value.field, error.value.code) == (field, code)
            with pytest.raises(CommandError, match="forbidden"):
                await c.quote(MARKET, "q", ("1", "1"), None)
            assert x.core.sequence == before and (await a.whoami())["rate_left"] == 2
            await a.quote(MARKET, "q", ("1", "1"), ("2", "1"))
            assert (await a.whoami())["rate_left"] == 1
            await a.quote(MARKET, "q", ("1.1", "1"), ("2.1", "1"))
            assert (await a.whoami())["rate_left"] == 0 and len(await a.open_orders()) == 2
            spent = await a.quote(MARKET, "q", ("1.2", "1"), ("2.2", "1"))
            assert spent["bid"]["status"] == "open" and open_of(await a.open_orders()) == {
                ("buy", "1.1", "1"), ("sell", "2.1", "1"),
            }  # fmt: skip
            await a.quote(MARKET, "q", None, None)
            assert await a.open_orders() == [], "withdrawing takes no request"


async def test_a_quote_that_is_refused_forgets_no_side(tmp_path: Path) -> None:
    async with exchange(tmp_path) as x, await x.client(x.operator) as operator:
        key = await x.trader(operator, "alice")
        async with await x.client(key) as a:
            await a.quote(MARKET, "q", ("0.99", "5"), ("1.01", "6"))
            with pytest.raises(CommandError, match="bad_price"):
                await a.quote(MARKET, "q", None, ("1.0000001", "6"))
            await a.quote(MARKET, "q", ("0.98", "5"), ("1.02", "6"))
            assert open_of(await a.open_orders()) == {("buy", "0.98", "5"), ("sell", "1.02", "6")}
            with pytest.raises(CommandError, match="bad_price"):
                await a.quote(MARKET, "q", ("0.0000001", "5"), None)
            await a.quote(MARKET, "q", None, None)
            assert await a.open_orders() == []


async def test_a_quote_is_found_again_after_a_restart(tmp_path: Path) -> None:
    async with exchange(tmp_path) as x, await x.client(x.operator) as operator:
        key = await x.trader(operator, "alice")
        async with await x.client(key, cancel_on_disconnect=False) as a:
            await a.quote(MARKET, "q.1", ("1", "1"), ("2", "1"))
            await a.quote(MARKET, "q", ("0.5", "1"), ("3", "1"))
    async with exchange(tmp_path, listed=False, restart=True) as x, await x.client(key) as a:
        await a.quote(MARKET, "q.1", ("1.5", "1"), ("1.8", "1"))
        assert open_of(await a.open_orders()) == {
            ("buy", "1.5", "1"), ("sell", "1.8", "1"), ("buy", "0.5", "1"), ("sell", "3", "1"),
        }  # fmt: skip


@pytest.mark.parametrize("mode", ["durable", "memory"])
async def test_a_receipt_binds_the_exchange_to_its_journal(tmp_path: Path, mode: str) -> None:
    async with exchange(tmp_path, ack_mode=mode) as x, await x.client(x.operator) as operator:
        key = await x.trader(operator, "alice")
        async with await x.client(key) as a:
            exchange_key = a.signed_in["receipt_key"]
            place = {"market": MARKET, "side": "buy", "type": "limit", "size": "1", "price": "1"}
            ack = await a.command("place", client_id="one", receipt=True, **place)
            assert x.server.counters.commands_fast == 1, "asking for one does not make the command slow"
            receipts = [await asyncio.wait_for(anext(a.events()), HANG_S)]
            assert receipts[0]["sequence"] == ack["sequence"]
            many = [{"op": "place"} | place | {"client_id": f"m{n}", "receipt": n % 2 == 0, "rid": n} for n in range(9)]
            await a._socket.send(json.dumps(many))
            while len(receipts) < 6:
                event = await asyncio.wait_for(anext(a.events()), HANG_S)
                receipts += [event] if event.get("type") == "receipt" else []
            assert len({receipt["signature"] for receipt in receipts[1:]}) == 1, "one signature for what left together"
            with pytest.raises(CommandError) as error:
                await a.command("cancel", client_id="one", receipt=1)
            assert error.value.field == "receipt"
            for receipt in receipts:
                assert verify_receipt(receipt, exchange_key, "local") == receipt["sequence"]
        x.journal.wait_durable(x.core.sequence)
    wanted = {receipt["sequence"]: receipt for receipt in receipts}
    core, found = Core(), 0
    for record in journal_records(tmp_path):
        sequence = int.from_bytes(record[8:16], "little")
        core.apply(record)
        if sequence in wanted:
            verify_receipt(wanted[sequence], exchange_key, "local", record)
            assert core.state_hash().hex() == wanted[sequence]["state_hash"]
            found += 1
    assert found == len(receipts) and core.state_hash() == replay(DirectoryDisk(tmp_path))[0].state_hash()


def journal_records(root: Path) -> list[bytes]:
    """The journal's records, by its own reading of the files."""
    disk = DirectoryDisk(root)
    found: list[bytes] = []
    for segment in list_segments(disk):
        data = disk.open(segment.path).read_at(0, 1 << 26)
        first = (len(found) + 1).to_bytes(8, "little")
        at = next(at for at in range(0, len(data), 128) if data[at + 8 : at + 16] == first)
        while at < len(data) and data[at + 5] and int.from_bytes(data[at + 8 : at + 16], "little") == len(found) + 1:
            size = data[at + 5] * layout.SLOT_BYTES
            found.append(data[at : at + size])
            at += size
    return found


@pytest.mark.parametrize("size", ["1E+9999999", "1e3", "NaN", "Infinity", "-1", "+1", " 1", "1_0", "٣", "1" * 21, "1."])
async def test_a_size_that_is_no_decimal_of_the_protocol_moves_nothing(tmp_path: Path, size: str) -> None:
    async with exchange(tmp_path) as x, await x.client(x.operator) as operator:
        key, other = await x.trader(operator, "alice"), await x.trader(operator, "bob")
        async with await x.client(key) as a, await x.client(other) as b:
            await a.quote(MARKET, "q", ("0.99", "5"), ("1.01", "6"))
            await b.place(MARKET, "b1", "buy", "limit", size="2", price="1.01", tif="ioc")  # partly filled
            before = x.core.sequence
            for bid, ask in ((("0.99", size), ("1.01", "6")), (("0.99", "5"), ("1.01", size))):
                with pytest.raises(CommandError) as refused:
                    await a.quote(MARKET, "q", bid, ask)
                assert refused.value.code in ("malformed", "bad_size")
            assert x.core.sequence == before and a._socket.close_code is None
            assert open_of(await a.open_orders()) == {("buy", "0.99", "5"), ("sell", "1.01", "4")}


async def test_tls_by_setting(tmp_path: Path) -> None:
    pem, key_pem = certificate(tmp_path)
    trusts = ssl.create_default_context(cafile=pem)
    async with exchange(tmp_path, listed=False, tls_certificate=pem, tls_key=key_pem, tls_port=0) as x:
        host, port = x.server.tls_address
        url = f"wss://{host}:{port}"
        with pytest.raises(ConnectionLost):
            await TradingClient.connect(f"ws://{host}:{port}", x.operator, timeout_s=5)
        old = ssl.create_default_context(cafile=pem)
        old.maximum_version = ssl.TLSVersion.TLSv1_2
        with pytest.raises((ConnectionLost, OSError)):  # ssl.SSLError is one
            await TradingClient.connect(url, x.operator, ssl=old, timeout_s=5)
        async with await TradingClient.connect(url, x.operator, ssl=trusts) as operator:
            await operator.command("asset", asset="USD", scale=6)
            await operator.command("asset", asset="CRT", scale=2)
            await operator.command("market", market=MARKET, base="CRT", quote="USD", tick="0.01", lot="0.1")
            key = await x.trader(operator, "alice")
            async with await TradingClient.connect(url, key, ssl=trusts) as a:
                await a._socket.send(json.dumps([
                    {"op": "place", "market": MARKET, "client_id": f"c{n}", "side": "buy", "type": "limit", "size": "1",
                     "price": "1"} for n in range(500)
                ]))  # fmt: skip
                await a.ping()
                assert len(await a.open_orders()) == 500
        async with await x.client(x.operator) as plain:
            assert (await plain.status())["sessions"] == 1
    other = tmp_path / "other"
    other.mkdir()
    with pytest.raises(SettingsInvalid, match="tls_certificate"):
        async with exchange(other, tls_certificate=key_pem, tls_key=key_pem, tls_port=0):
            pass
    with pytest.raises(SettingsInvalid, match="tls_key"):
        async with exchange(tmp_path, tls_certificate=pem):
            pass


async def test_the_outcome_of_a_quote_can_be_asked_for_and_poisoned(tmp_path: Path) -> None:
    async with exchange(tmp_path) as x, await x.client(x.operator) as operator:
        key, other = await x.trader(operator, "alice"), await x.trader(operator, "bob")
        async with await x.client(key, cancel_on_disconnect=False) as a, await x.client(other) as b:
            never = await a.resolve_quote("q")
            assert never["bid"] == never["ask"] == {"outcome": "never_received", "since": 0}
            told = await a.quote(MARKET, "q", ("0.99", "5"), ("1.01", "2"))
            await b.place(MARKET, "b1", "buy", "limit", size="2", price="1.01", tif="ioc")
            found = await a.resolve_quote("q")
            assert not found["is_poisoned"] and found["sequence"] == x.core.sequence
            assert found["bid"]["client_id"] == told["bid"]["client_id"]
            states = [[found[side][name] for name in ("outcome", "status", "filled")] for side in ("bid", "ask")]
            assert states == [["accepted", "open", "0"], ["final", "filled", "2"]]
            await a.quote(MARKET, "q", ("0.98", "5"), None)  # what is over is told all the same
            assert (await a.resolve_quote("q"))["ask"] == found["ask"]
            await a.quote(MARKET, "q", ("0.98", "5"), ("1.02", "9999999999"))
            assert (await a.resolve_quote("q"))["ask"]["outcome"] == "rejected"
            assert (await a.poison_quote("q"))["event"] == "done"
            with pytest.raises(CommandError) as error:
                await a.quote(MARKET, "q", ("0.98", "6"), None)
            assert (error.value.code, error.value.field) == ("poisoned", "quote_id")
            now = await a.resolve_quote("q")
            assert now["is_poisoned"] and now["bid"]["status"] == "open", "what stands goes on standing"
            assert (await a.quote(MARKET, "late", None, None))["quote_id"] == "late"
            for bad in ({"quote_id": "x" * 17}, {"quote_id": 1}, {"quote_id": "q", "client_id": "q"}):
                for op in ("resolve", "poison"):
                    with pytest.raises(CommandError) as error:
                        await a.request({"op": op} | bad)
                    assert (error.value.code, error.value.field) == ("malformed", "quote_id")
    async with exchange(tmp_path, listed=False, restart=True) as x, await x.client(key) as a:
        again = await a.resolve_quote("q")
        assert again["is_poisoned"] and again["bid"]["status"] == "open"
        assert again["ask"]["outcome"] == "never_received" and again["ask"]["since"] > 0  # where the memory begins
        with pytest.raises(CommandError):
            await a.quote(MARKET, "q", ("0.98", "6"), None)
        await a.quote(MARKET, "q", None, None)  # to withdraw it is always possible
        assert (await a.resolve_quote("q"))["bid"]["status"] == "canceled"


async def test_a_quote_may_ask_for_receipts(tmp_path: Path) -> None:
    async with exchange(tmp_path) as x, await x.client(x.operator) as operator:
        key = await x.trader(operator, "alice")
        async with await x.client(key) as a:
            sides = {"bid": {"price": "1", "size": "1"}, "ask": {"price": "2", "size": "1"}}
            before = x.core.sequence
            await a.request({"op": "quote", "market": MARKET, "quote_id": "q", "receipt": True} | sides)
            seen = []
            while len(seen) < 2:
                event = await asyncio.wait_for(anext(a.events()), HANG_S)
                seen += [event["sequence"]] if event.get("type") == "receipt" else []
            assert seen == [before + 1, before + 2]
            with pytest.raises(CommandError) as error:
                await a.request({"op": "quote", "market": MARKET, "quote_id": "q", "receipt": 1} | sides)
            assert error.value.field == "receipt"
