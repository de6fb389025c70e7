"""Token buckets over real sockets: plain accounts, tiers, cancels that always pass, fills that give back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

import gateway.session
from byline.client import CommandError, Rejected, TradingClient, generate_key, public_key, sign_in_signature
from gateway.settings import GatewaySettings, Tier
from tests.support.gateway import MARKET, exchange
from tests.support.raw import RawClient

SLOW = (Tier("plain", 5, 20, 3_600.0), Tier("unlimited", 0, 0, 1.0))


async def code_of(client: TradingClient, op: str, **fields: object) -> str:
    with pytest.raises(CommandError) as error:
        await client.command(op, **fields)
    return error.value.code


def limit(name: str, **fields: object) -> dict[str, object]:
    return {"market": MARKET, "client_id": name, "side": "buy", "type": "limit", "size": "1", "price": "1"} | fields


async def burst(client: TradingClient, count: int) -> list[dict[str, Any]]:
    """The answers to so many places in one frame, which are all of one time: no bucket fills between them."""
    places = [{"op": "place", **limit(f"c{number}")} for number in range(count)]
    await client._socket.send(json.dumps(places, separators=(",", ":")))
    events = client.events()
    return [await anext(events) for _ in range(count)]


async def test_the_default_is_what_a_plain_account_may(tmp_path: Path) -> None:
    async with exchange(tmp_path) as x, await x.client(x.operator) as operator:
        alice = await x.trader(operator, "alice", tier="plain")
        key = generate_key()
        await operator.register_key(public_key(key), ["alice"], ["trade"], "without a tier")
        async with await x.client(alice) as a, await x.client(key) as same:
            told = await a.whoami()
            assert (told["tier"], told["rate_left"]) == ("plain", 100) and 999 <= told["messages_left"] <= 1_000
            assert (await same.whoami())["tier"] == "plain"
            before = x.core.sequence
            answers = await burst(a, 102)
            assert sorted(one.get("code", "accepted") for one in answers) == ["accepted"] * 100 + ["rate_limited"] * 2
            assert x.core.sequence == before + 100
            for error in answers:
                if "code" in error:  # one of a hundred comes back each 0.6 s
                    assert error["field"] == "op" and error["rule"] and 0 <= error["retry_after_ms"] <= 600


async def test_tiers_of_trading_keys_are_far_above(tmp_path: Path) -> None:
    """A trader's second has room for ten of a plain account's minutes, a maker's for five hundred."""
    async with exchange(tmp_path) as x, await x.client(x.operator) as operator:
        keys = {tier: await x.trader(operator, tier, tier=tier) for tier in ("trader", "maker")}
        for tier, requests, messages in (("trader", 1_000, 2_000), ("maker", 50_000, 50_000)):
            async with await x.client(keys[tier]) as client:
                told = await client.whoami()
                assert (told["tier"], told["rate_left"]) == (tier, requests)
                assert messages - 1 <= told["messages_left"] <= messages  # it may have filled since it was asked
                answers = await burst(client, 400)
                assert {one.get("event") for one in answers} == {"accepted"}
                assert all(requests - 400 <= one["rate_left"] <= requests for one in answers)


def test_tiers_are_those_of_the_document() -> None:
    text = (Path(__file__).parents[2] / "docs/protocol/order-entry.md").read_text()
    for tier in GatewaySettings().tiers:
        span = {60.0: "a minute", 1.0: "a second"}[tier.window_s]
        told = [f"{number:,} {span}" if number else "–" for number in (tier.requests, tier.messages)]
        row = next(line for line in text.splitlines() if line.startswith(f"| `{tier.name}`"))
        assert [cell.strip() for cell in row.strip("|").split("|")][1:] == told


@pytest.mark.parametrize("path", ["fast", "thorough"])
async def test_requests_run_out_cancels_pass_and_nothing_was_journaled(tmp_path: Path, path: str) -> None:
    async with exchange(tmp_path, tiers=SLOW) as x, await x.client(x.operator) as operator:
        key = await x.trader(operator, "alice", tier="plain")
        extra = {} if path == "fast" else {"cancel_on_disconnect": False}
        async with await x.client(key) as a, await x.client(key) as same:
            for number in range(4):
                await (a if number % 2 else same).command("place", **limit(f"c{number}"), **extra)
            assert (await a.whoami())["rate_left"] == 1
            with pytest.raises(CommandError, match="bad_price"):
                await a.command("place", **limit("bad", price="0"))
            assert (await a.whoami())["rate_left"] == 1, "what is refused at the edge costs nothing"
            await a.replace(client_id="c0", price="1.01")
            before = x.core.sequence
            assert await code_of(a, "place", **limit("c9"), **extra) == "rate_limited"
            assert await code_of(same, "replace", client_id="c0", price="1.02") == "rate_limited"
            assert x.core.sequence == before
            for number in range(4):
                assert (await a.cancel(client_id=f"c{number}"))["event"] == "canceled"
            assert (await a.mass_cancel())["op"] == "mass_cancel" and (await a.poison("z"))["event"] == "done"
            assert (await same.kill())["op"] == "kill"


async def test_a_fill_gives_a_request_back(tmp_path: Path) -> None:
    async with exchange(tmp_path, tiers=SLOW) as x, await x.client(x.operator) as operator:
        key, rich = await x.trader(operator, "alice", tier="plain"), await x.trader(operator, "bob")
        async with await x.client(key) as a, await x.client(rich) as b:
            for number in range(5):
                await a.place(**limit(f"c{number}", side="sell", price="2"))
            assert (await a.whoami())["rate_left"] == 0
            await b.place(**limit("b", size="3", price="2"))
            assert (await a.whoami())["rate_left"] == 3
            assert (await a.place(**limit("again")))["event"] == "accepted"


async def test_f49_messages_run_out_and_a_flood_ends_the_session(tmp_path: Path) -> None:
    async with exchange(tmp_path, tiers=SLOW) as x, await x.client(x.operator) as operator:
        key, other = await x.trader(operator, "alice", tier="plain"), await x.trader(operator, "bob")
        async with await x.client(key) as a, await x.client(other) as b:
            await a.place(**limit("c"))
            for _ in range(19):
                await a.ping()
            assert await code_of(a, "ping") == "rate_limited"
            await a._socket.send(json.dumps([{"op": "ping"}, {"op": "cancel", "client_id": "c", "rid": "r"}]))
            told = [await anext(a.events()), await anext(a.events())]
            assert told[0]["code"] == "rate_limited" and told[1]["event"] == "canceled"
            for _ in range(1_100):
                await a._socket.send('{"op":"ping"}')
            assert x.server.fault is None
            async for _ in a.events():
                pass
            assert a._socket.close_code == 1008 and a._socket.close_reason == "too many messages"
            assert (await b.place(**limit("b")))["event"] == "accepted"


async def cancels_of_nothing(a: TradingClient, path: str, count: int) -> None:
    extra = {} if path == "fast" else {"receipt": False}
    for number in range(count):
        with pytest.raises(Rejected, match="unknown_order"):
            await a.command("cancel", client_id=f"none{number}", **extra)


@pytest.mark.parametrize("path", ["fast", "thorough"])
async def test_cancels_that_find_nothing_are_bounded_and_those_that_do_always_pass(tmp_path: Path, path: str) -> None:
    tiers = (Tier("plain", 60, 20, 3_600.0), Tier("trader", 60, 100, 3_600.0), Tier("unlimited", 0, 0, 1.0))
    extra = {} if path == "fast" else {"receipt": False}
    async with exchange(tmp_path, tiers=tiers) as x, await x.client(x.operator) as operator:
        key, other = await x.trader(operator, "alice", tier="plain"), await x.trader(operator, "bob", tier="plain")
        async with await x.client(key) as a, await x.client(other) as b:
            orders = [{"op": "place", **limit(f"c{number}"), "rid": 1_000 + number} for number in range(50)]
            await a._socket.send(json.dumps(orders))
            for number in range(40):  # more than may be in vain: what they take comes back
                assert (await a.command("cancel", client_id=f"c{number}", **extra))["event"] == "canceled"
            await cancels_of_nothing(a, path, 19)
            assert (await a.mass_cancel(side="sell"))["event"] == "done"  # found nothing either: the twentieth
            before = x.core.sequence
            for vain in ({"op": "cancel", "client_id": "none"}, {"op": "cancel", "order_id": 2**62}):
                assert await code_of(a, **vain, **extra) == "rate_limited"
            for op, fields in (("mass_cancel", {}), ("kill", {}), ("cancel_after", {"at": 2**62})):
                assert await code_of(a, op, **fields) == "rate_limited"
            assert x.core.sequence == before
            assert (await a.command("cancel", client_id="c40", **extra))["event"] == "canceled"
            number = (await a.resolve("c41"))["order_id"]
            assert (await a.command("cancel", order_id=number, **extra))["event"] == "canceled"
            await a.mass_cancel()  # each cancel that found something gave one back
            assert await a.open_orders() == [] and (await b.kill())["op"] == "kill"


async def test_poisons_are_few_and_then_cost_requests(tmp_path: Path) -> None:
    async with exchange(tmp_path, tiers=SLOW, poisons_per_minute=2) as x, await x.client(x.operator) as operator:
        key, other = await x.trader(operator, "alice", tier="plain"), await x.trader(operator, "bob", tier="plain")
        async with await x.client(key) as a, await x.client(other) as b:
            left = [(await a.poison(f"p{number}"))["rate_left"] for number in range(7)]
            assert left == [5, 5, 4, 3, 2, 1, 0]
            before = x.core.sequence
            assert await code_of(a, "poison", client_id="p8") == "rate_limited" and x.core.sequence == before
            assert (await b.poison("p"))["event"] == "done"


@pytest.mark.parametrize("text", ["{", "[]", '[{"op":"cancel","client_id":"a"},{"op":"kill"}]', "é" * 9])
async def test_f71_whoever_has_not_signed_in_has_few_messages_too(tmp_path: Path, text: str) -> None:
    async with exchange(tmp_path, tiers=SLOW) as x, connect(x.url) as socket:
        with pytest.raises(ConnectionClosed) as closed:
            for _ in range(1_100):
                await socket.send(text)
            while True:
                await socket.recv()
        assert closed.value.rcvd is not None
        assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (1008, "too many messages")


async def test_f71_who_is_in_waits_for_few_of_the_signatures_that_come_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sixty-four connections send all the bad sign-ins they may in one moment; each is answered, a few in a turn."""
    verified = 0
    real = gateway.session.verify_sign_in

    def verify(key: str, signature: str, message: bytes) -> bool:
        nonlocal verified
        verified += 1
        return real(key, signature, message)

    async with exchange(tmp_path, ack_mode="memory") as x:
        async with await x.client(x.operator) as operator:
            key = await x.trader(operator, "alice")
        alice = await RawClient.connect(x.url)
        assert (await alice.sign_in(key))["type"] == "signed_in"
        crowd = [await RawClient.connect(x.url) for _ in range(64)]
        forged = {"op": "sign_in", "key": public_key(key), "signature": sign_in_signature(key, "local", 1, "0" * 64)}
        for one in crowd:
            assert (await one.hear())["type"] == "hello"
        monkeypatch.setattr(gateway.session, "verify_sign_in", verify)
        for one in crowd:
            for _ in range(3):
                one.say(forged)
        alice.say({"op": "place", "market": MARKET, "client_id": "in", "side": "buy", "type": "limit", "size": "0.1",
                   "price": "1"})  # fmt: skip
        assert (await alice.hear())["event"] == "accepted"
        assert verified <= 8 * x.server.settings.sign_ins_per_turn < 3 * len(crowd)
        for one in crowd:
            told = [await one.hear() for _ in range(5)]
            assert [body.get("code") for body in told] == ["bad_signature", None] * 2 + ["bad_signature"]
            assert await one.closed() == 1008
        assert verified == 3 * len(crowd) and not len(x.server.sign_ins)
        alice.abort()


async def test_a_tier_that_is_none_is_refused(tmp_path: Path) -> None:
    async with exchange(tmp_path) as x, await x.client(x.operator) as operator:
        with pytest.raises(CommandError) as error:
            await x.trader(operator, "alice", tier="royal")
        assert (error.value.code, error.value.field) == ("bad_value", "tier")


async def test_before_sign_in_a_message_is_small(tmp_path: Path) -> None:
    async with exchange(tmp_path) as x, await x.client(x.operator) as operator:
        async with connect(x.url) as socket:
            await socket.recv()
            await socket.send(json.dumps([{"op": "ping"}] * 17))
            assert json.loads(await socket.recv())["code"] == "too_many_commands"
            await socket.send(json.dumps([{"op": "ping"}] * 16))
            assert [json.loads(await socket.recv())["type"] for _ in range(16)] == ["pong"] * 16
            for parts in ("{" + " " * 4_096, ["{" + " " * 2_048, " " * 2_048]):
                async with connect(x.url) as big:
                    await big.send(parts)
                    with pytest.raises(ConnectionClosed) as closed:
                        await big.recv()
                        await big.recv()
                    assert closed.value.rcvd is not None and closed.value.rcvd.code == 1009
        await operator._socket.send(json.dumps([{"op": "ping"}] * 999 + [{"op": "ping", "rid": "z" * 30}]))
        await operator.ping()
