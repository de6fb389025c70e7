"""Keys that are narrowed, watched, revoked and expired, over real sockets."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import connect

from byline.client import CommandError, SignInFailed, TradingClient, generate_key, public_key, sign_in_signature
from byline.client.messages import Settled, decode
from tests.support.gateway import MARKET, exchange
from tests.support.waiting import HANG_S

OTHER = "CRT-EUR"


async def refused(client: TradingClient, op: str, **fields: Any) -> tuple[str, str | None]:
    with pytest.raises(CommandError) as error:
        await client.command(op, **fields)
    return error.value.code, error.value.field


def limit(name: str, **fields: Any) -> dict[str, Any]:
    return {"market": MARKET, "client_id": name, "side": "buy", "type": "limit", "size": "1", "price": "1"} | fields


async def second_market(operator: TradingClient) -> None:
    await operator.command("asset", asset="EUR", scale=6)
    await operator.command("market", market=OTHER, base="CRT", quote="EUR", tick="0.01", lot="0.1")


@pytest.mark.parametrize("path", ["fast", "thorough"])
async def test_a_key_trades_in_its_markets_and_within_its_collar(tmp_path: Path, path: str) -> None:
    extra = {} if path == "fast" else {"cancel_on_disconnect": False}
    async with exchange(tmp_path) as x, await x.client(x.operator) as operator:
        await second_market(operator)
        key = await x.trader(operator, "alice", markets=[MARKET], collar_ppm=100_000)
        other = await x.trader(operator, "bob")
        async with await x.client(key) as a, await x.client(other) as b:
            assert await refused(a, "place", **limit("e", market=OTHER), **extra) == ("forbidden", "market")
            await a.command("place", **limit("far", price="5"), **extra)  # no reference yet: no collar
            await a.cancel(client_id="far")
            await b.place(**limit("b1", side="sell", price="1"))
            await a.command("place", **limit("a1", price="1"), **extra)  # a trade at 1.00
            before = x.core.sequence
            for price in ("1.11", "0.89"):
                with pytest.raises(CommandError) as error:
                    await a.command("place", **limit("a2", price=price), **extra)
                assert (error.value.code, error.value.field) == ("collar", "price")
                assert error.value.rule == "abs(price - 1) * 10^6 <= 1 * 100000"
            with pytest.raises(CommandError) as error:
                await a.command("place", **limit("m", type="market", price=None), **extra)
            assert (error.value.code, error.value.field) == ("collar", "price") and "limit price" in error.value.rule
            assert x.core.sequence == before
            for number, price in enumerate(("1.10", "0.90")):
                ack = await a.command("place", **limit(f"a3{number}", price=price), **extra)
                assert ack["event"] == "accepted"
            assert (await refused(a, "replace", client_id="a31", price="0.89"))[0] == "collar"
            assert (await a.replace(client_id="a31", price="0.91"))["event"] == "replaced"
            assert (await a.mass_cancel())["op"] == "mass_cancel"


async def test_a_key_comes_from_its_addresses(tmp_path: Path) -> None:
    async with exchange(tmp_path) as x, await x.client(x.operator) as operator:
        near = await x.trader(operator, "alice", addresses=["10.0.0.0/8", "127.0.0.0/8"])
        far = await x.trader(operator, "bob", addresses=["10.0.0.0/8", "2001:db8::/32"])
        async with await x.client(near) as a:
            assert (await a.whoami())["address"] == "127.0.0.1"
        with pytest.raises(SignInFailed, match="bad_address"):
            await x.client(far)


@pytest.mark.parametrize("how", ["revoked", "expired"])
async def test_f72_the_session_of_a_dead_key_ends_within_a_second(tmp_path: Path, how: str) -> None:
    async with exchange(tmp_path) as x, await x.client(x.operator) as operator:
        ends_at = time.time_ns() + 3_000_000_000
        key = await x.trader(operator, "alice", expires_at=ends_at if how == "expired" else None)
        a = await x.client(key)
        await a.place(**limit("open"))
        if how == "revoked":
            await operator.request({"op": "revoke_key", "key": public_key(key)})
        await asyncio.wait_for(a._reader, HANG_S)
        assert how == "revoked" or time.time_ns() >= ends_at
        assert a._socket.close_code == 1008 and how in str(a._socket.close_reason)
        with pytest.raises(SignInFailed, match="bad_signature" if how == "revoked" else "expired_key"):
            await x.client(key)
        while await operator.open_orders("alice"):  # what it had placed ends with it
            await asyncio.sleep(0.01)


async def test_the_operator_hears_when_keys_were_used(tmp_path: Path) -> None:
    async with exchange(tmp_path) as x, await x.client(x.operator) as operator:

        async def uses(**taken: int) -> dict[str, int]:
            answer = await operator.request({"op": "key_uses", **taken})
            return {row["key"]: row["used_at"] for row in answer["keys"]}

        begin = time.time_ns()
        alice, bob, unused = [await x.trader(operator, name) for name in ("alice", "bob", "carol")]
        async with await x.client(alice), await x.client(bob) as b:
            told = await uses()
            assert {public_key(alice), public_key(bob)} < set(told) and public_key(unused) not in told
            assert all(begin <= told[public_key(key)] <= time.time_ns() for key in (alice, bob))
            assert (await uses(taken=told[public_key(alice)])).keys() == {public_key(bob)}
            with pytest.raises(CommandError, match="forbidden"):
                await b.request({"op": "key_uses"})
            for wrong in (0, -1, "1", True):
                with pytest.raises(CommandError, match="bad_value"):
                    await operator.request({"op": "key_uses", "taken": wrong})
            last = max(told.values())
            assert await uses(taken=last) == {}
        while set(ended := await uses()) != {public_key(alice), public_key(bob)}:  # their ends are uses too
            await asyncio.sleep(0.01)
        assert min(ended.values()) > last
        async with await x.client(alice) as a:
            await operator.request({"op": "revoke_key", "key": public_key(alice)})
            await asyncio.wait_for(a._reader, HANG_S)
        assert set(await uses()) == {public_key(bob)}


async def test_a_key_tells_all_about_itself_and_its_sessions(tmp_path: Path) -> None:
    terms: dict[str, Any] = {
        "markets": [MARKET], "collar_ppm": 5_000, "addresses": ["127.0.0.1/32"], "expires_at": 2**62, "tier": "trader",
        "protection": {"window_ms": 1_000, "fills": 5, "size": "10", "notional": "100.5"},
    }  # fmt: skip
    async with exchange(tmp_path) as x, await x.client(x.operator) as operator:
        key = await x.trader(operator, "alice", **terms)
        other = await x.trader(operator, "bob")
        async with await x.client(key) as a, await x.client(key, cancel_on_disconnect=False) as b, await x.client(
            other
        ) as c:
            told = await a.whoami()
            assert {name: told[name] for name in terms} == terms
            assert (told["key"], told["accounts"], told["scopes"]) == (public_key(key), ["alice"], ["read", "trade"])
            assert told["cancel_on_disconnect"] and told["protection_tripped"] is False and told["rate_left"] == 1_000
            mine = await a.sessions()
            assert sorted(one["session"] for one in mine) == sorted((told["session"], b.signed_in["session"]))
            assert [one["cancel_on_disconnect"] for one in mine if not one["is_this"]] == [False]
            assert [one["is_this"] for one in await c.sessions()] == [True]
            assert len(await operator.sessions()) == 4
    async with exchange(tmp_path, listed=False, restart=True) as x, await x.client(key) as a:
        told = await a.whoami()
        assert {name: told[name] for name in terms} == terms


@pytest.mark.parametrize(
    ("terms", "field"),
    [
        ({"markets": ["NO-SUCH"]}, "markets"), ({"markets": []}, "markets"), ({"collar_ppm": -1}, "collar_ppm"),
        ({"addresses": ["10.0.0.1/8"]}, "addresses"), ({"addresses": ["x"]}, "addresses"),
        ({"expires_at": 1}, "expires_at"), ({"protection": {"window_ms": 5}}, "protection"),
        ({"protection": {"window_ms": 5, "fills": 0}}, "protection.fills"),
        ({"protection": {"window_ms": 5, "size": "0.0"}}, "protection.size"),
    ],
)  # fmt: skip
async def test_terms_that_break_a_rule_are_named(tmp_path: Path, terms: dict[str, Any], field: str) -> None:
    async with exchange(tmp_path) as x, await x.client(x.operator) as operator:
        with pytest.raises(CommandError) as error:
            await x.trader(operator, "alice", money=False, **terms)
        assert error.value.field == field


NOTICE: dict[str, Any] = {
    "op": "settled", "batch": 7, "first_sequence": 3, "last_sequence": 9, "digests": ["4Zs"],
    "chain": "embedded (not a network)", "executor": "movevm",
}  # fmt: skip


async def test_an_operator_tells_every_session_that_a_batch_is_settled(tmp_path: Path) -> None:
    async with exchange(tmp_path) as x, await x.client(x.operator) as operator:
        alice, bob = await x.trader(operator, "alice"), await x.trader(operator, "bob")
        async with await x.client(alice) as a, await x.client(bob) as b, connect(x.url, compression=None) as stranger:
            hello = json.loads(await stranger.recv())
            assert (await operator.request(NOTICE))["sessions"] == 3
            for client in (a, b, operator):
                told = await anext(client.events())
                assert told == {"type": "settled"} | {name: NOTICE[name] for name in NOTICE if name != "op"}
                assert isinstance(decode(told), Settled)
            await stranger.send('{"op":"ping"}')
            assert (hello["type"], json.loads(await stranger.recv())["type"]) == ("hello", "pong")
            with pytest.raises(CommandError) as error:
                await a.request(NOTICE)
            assert error.value.code == "forbidden"


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"batch": 0}, "batch"), ({"batch": True}, "batch"), ({"first_sequence": "3"}, "batch"),
        ({"last_sequence": None}, "batch"), ({"last_sequence": 2}, "batch"), ({"digests": "4Zs"}, "digests"),
        ({"digests": [4]}, "digests"), ({"chain": None}, "chain"), ({"executor": 1}, "chain"),
    ],
)  # fmt: skip
async def test_a_notice_that_says_nonsense_is_refused_and_told_to_nobody(
    tmp_path: Path, changes: dict[str, Any], field: str
) -> None:
    async with exchange(tmp_path) as x, await x.client(x.operator) as operator:
        with pytest.raises(CommandError) as error:
            await operator.request(NOTICE | changes)
        assert (error.value.code, error.value.field) == ("bad_value", field)
        await operator.request(NOTICE | {"batch": 8})
        assert (await anext(operator.events()))["batch"] == 8


async def test_a_sign_in_is_worth_nothing_after_a_restart(tmp_path: Path) -> None:
    key = generate_key()
    async with exchange(tmp_path, listed=False) as x, await x.client(x.operator) as operator:
        await operator.command("account", account="alice")
        await operator.register_key(public_key(key), ["alice"], ["trade"])
        async with connect(x.url, compression=None) as socket:
            hello = json.loads(await socket.recv())
            signature = sign_in_signature(key, hello["environment"], hello["epoch"], hello["nonce"])
            body = {"op": "sign_in", "key": public_key(key), "signature": signature}
            await socket.send(json.dumps(body))
            assert json.loads(await socket.recv())["type"] == "signed_in"
        async with connect(x.url, compression=None) as socket:  # the same again, in the same life
            await socket.recv()
            await socket.send(json.dumps(body))
            assert json.loads(await socket.recv())["code"] == "bad_signature"
    async with exchange(tmp_path, listed=False, restart=True) as x, connect(x.url, compression=None) as socket:
        fresh = json.loads(await socket.recv())
        assert fresh["epoch"] != hello["epoch"] and fresh["nonce"] != hello["nonce"]
        for changes in ({}, {"nonce": hello["nonce"]}):
            await socket.send(json.dumps(body | changes))
            answer = json.loads(await socket.recv())
            assert answer["code"] in ("bad_signature", "nonce_used")
            await socket.recv()
