"""The examples against a whole exchange as its users start it, and the protocol document against what that says."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import pytest
from referencing import Registry, Resource

from byline import protocol_document
from byline.client import CommandError, SignInFailed, TradingClient, load_key, market_messages, messages
from byline.client.market_data import MarketDataClient
from byline.operator import gateway_url, open_operator
from tests.support.exchange import ExchangeProcess, running

ROOT = Path(__file__).parents[2]
DOCUMENT = Registry().with_resource("urn:byline", Resource.opaque(protocol_document.document()))


@pytest.fixture(scope="module")
def exchange(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ExchangeProcess]:
    with running(tmp_path_factory.mktemp("exchange")) as exchange:
        yield exchange


async def run(*argv: str, code: int = 0) -> str:
    """A Python program's output. Fails unless it ends with `code`."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, *argv, cwd=ROOT, env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    output = (await process.communicate())[0].decode()
    assert process.returncode == code, output
    return output


async def new_trader(exchange: ExchangeProcess, name: str) -> str:
    """The file of a fresh key."""
    await run("-m", "byline.cli", "trader", name, "--data", str(exchange.data))
    return str(exchange.data / "keys" / f"trader-{name}.key")


def urls(exchange: ExchangeProcess) -> list[str]:
    feed = f"ws://127.0.0.1:{exchange.status('marketdata')['port']}"
    return ["--url", gateway_url(exchange.settings), "--feed", feed]


def check(message: dict[str, Any], kind: type[msgspec.Struct], prefix: str = "") -> None:
    """Valid by the published schema, decoded by the types, and not one field more than these have."""
    schema = {"$ref": f"urn:byline#/components/schemas/{prefix}{kind.__name__}"}
    jsonschema.Draft202012Validator(schema, registry=DOCUMENT).validate(message)
    assert msgspec.json.decode(msgspec.json.encode(msgspec.convert(message, kind))) == message


def test_the_document_is_the_one_that_the_types_make() -> None:
    assert protocol_document.PATH.read_text() == protocol_document.text(), "python -m byline.protocol_document"
    known = set(protocol_document.document()["components"]["schemas"])
    for target in re.findall(r'"#/components/schemas/([^"]+)"', protocol_document.text()):
        assert target in known


def test_a_message_that_breaks_the_schema_is_refused() -> None:
    good = {"type": "error", "code": "busy", "message": "later"}
    check(good, messages.Error)
    for bad in (good | {"code": 7}, {"type": "error", "code": "busy"}):
        with pytest.raises(jsonschema.ValidationError):
            check(bad, messages.Error)
        with pytest.raises(msgspec.ValidationError):
            messages.decode(bad)
    with pytest.raises(AssertionError):
        check(good | {"more": 1}, messages.Error)
    level = {"type": "update", "channel": "book:X", "seq": 2, "prev_seq": 1, "asks": [], "checksum": "0" * 16}
    with pytest.raises(jsonschema.ValidationError):
        check(level | {"bids": [["1,5", "2"]]}, market_messages.Book, "Feed")


async def test_what_a_running_exchange_says_is_what_the_document_says(exchange: ExchangeProcess) -> None:
    heard: list[dict[str, Any]] = []

    async def observe(message: dict[str, Any]) -> None:
        heard.append(message)

    key = load_key(Path(await new_trader(exchange, "alice")).read_text())
    async with open_operator(exchange.settings) as operator:
        market = (await operator.request({"op": "directory"}))["markets"][0]["market"]
    client = await TradingClient.connect(gateway_url(exchange.settings), key, resume=0, observer=observe)
    try:
        for name, side, terms in (
            ("far", "buy", {"type": "limit", "price": "0.01", "size": "5"}),
            ("market", "buy", {"type": "market", "budget": "3"}),
            ("stop", "buy", {"type": "stop_limit", "stop_price": "900", "price": "901", "size": "1"}),
            ("ice", "buy", {"type": "limit", "price": "0.02", "size": "9", "display_size": "2"}),
            ("far", "buy", {"type": "limit", "price": "0.01", "size": "5"}),
            ("poor", "buy", {"type": "limit", "price": "900", "size": "900000"}),
            ("bad", "buy", {"type": "limit", "price": "0", "size": "5"}),
        ):  # fmt: skip
            body = {"op": "place", "market": market, "client_id": name, "side": side} | terms
            if name == "bad":
                with pytest.raises(CommandError, match="bad_price"):
                    await client.request(body)
            else:
                await client.request(body | ({"receipt": True} if name == "ice" else {}))
        await client.replace(client_id="far", size="4", new_client_id="nearer")
        for question in (
            {"op": "open_orders"}, {"op": "balances"}, {"op": "resolve", "client_id": "nearer"},
            {"op": "resolve", "client_id": "none"}, {"op": "resolve", "client_id": "poor"}, {"op": "whoami"},
            {"op": "latency"}, {"op": "sessions"}, {"op": "directory"}, {"op": "ping"},
            {"op": "poison", "client_id": "p"}, {"op": "mass_cancel"}, {"op": "kill"}, {"op": "rearm"},
            {"op": "resolve", "client_id": "p"},
        ):  # fmt: skip
            await client.request(question)
        heard += [client.hello, client.signed_in]
    finally:
        await client.close()
    kinds = set()
    for message in heard:
        table = messages.EVENTS if "event" in message else messages.ANSWERS
        word = message.get("event") or message["type"]
        check(message, table[word])
        kinds.add(word)
    assert kinds >= {
        "accepted", "rejected", "duplicate", "done", "trade", "canceled", "replaced", "balance", "transferred", "hello",
        "signed_in", "error", "pong", "open_orders", "balances", "resolved", "resumed", "whoami", "latency", "sessions",
        "directory", "receipt",
    }  # fmt: skip

    channels = [f"{word}:{market}" for word in ("book", "orders", "trades", "ticker", "candles.1s", "auction", "price")]
    seen: set[str] = set()
    async with MarketDataClient(urls(exchange)[3]) as feed:
        for channel in (*channels, "status", "latency"):
            request = {"type": "subscribe", "channel": channel, "rid": 7}
            await feed.send(request)
        await feed.send({"type": "subscribe", "channel": "none:X"})
        await feed.send({"type": "ping"})
        await feed.send({"type": "history", "channel": f"candles.1m:{market}", "limit": 3})
        async for message in feed:
            kind = message["type"]
            if kind in ("snapshot", "update", "event"):
                word = message["channel"].partition(":")[0].partition(".")[0]
                check(message, market_messages.CHANNELS[word], "Feed")
                kind = f"{kind} {word}" if word in ("book", "trades", "ticker") else f"a {word}"
            else:
                check(message, market_messages.REPLIES[kind], "Feed")
            seen.add(kind)
            if seen >= {
                "snapshot book", "update book", "event trades", "update ticker", "a orders", "a candles", "a auction",
                "a price", "a status", "a latency", "heads", "pong", "error", "subscribed", "history",
            }:  # fmt: skip
                break


async def test_the_examples_do_what_they_say(exchange: ExchangeProcess, tmp_path: Path) -> None:
    async with open_operator(exchange.settings) as operator:
        market = (await operator.request({"op": "directory"}))["markets"][0]["market"]
    maker, prober = await new_trader(exchange, "maker"), await new_trader(exchange, "probe")
    url, feed, out = urls(exchange)[:2], urls(exchange)[2:], tmp_path / "book.jsonl"
    made, recorded, probed = await asyncio.gather(
        run("examples/market_maker.py", *url, *feed, "--key", maker, "--market", market, "--seconds", "4"),
        run("examples/book_recorder.py", *feed, "--market", market, "--out", str(out), "--seconds", "4"),
        run("examples/latency_probe.py", *url, "--key", prober, "--market", market, "--count", "30"),
    )
    assert "done: 0 orders open, 1 connections" in made and "would_cross" not in made
    kept = tmp_path / "receipt.json"
    said = await run("examples/receipts.py", *url, "--key", prober, "--market", market, "--out", str(kept))
    checking = ["examples/receipts.py", *said.split("check it with ")[1].split()]
    assert "signed by the exchange: command" in await run(*checking)
    receipt = json.loads(kept.read_text())
    kept.write_text(json.dumps(receipt | {"sequence": receipt["sequence"] + 1}))
    assert "ReceiptInvalid" in await run(*checking, code=1)
    assert ", 0 gaps" in recorded and "microseconds" in probed and "matched to durable" in probed
    lines = out.read_text().splitlines()
    assert len(lines) > 10 and json.loads(lines[0])["type"] == "snapshot"
    assert f"{len(lines)} messages are whole" in await run("examples/book_recorder.py", "--check", str(out))
    changed = lines[5].replace('"checksum": "', '"checksum": "f')
    desk = [
        "-m", "byline.cli", "key", "register", "--name", "desk", "--account", "user:maker", "--tier", "maker",
        "--protection", '{"window_ms":1000,"fills":20}', "--collar-ppm", "50000", "--data", str(exchange.data),
    ]  # fmt: skip
    registered = json.loads((await run(*desk, "--market", market)).partition("private key")[0])
    assert (registered["tier"], registered["collar_ppm"], registered["markets"]) == ("maker", 50000, [market])
    assert registered["protection"] == {"window_ms": 1000, "fills": 20} and registered["scopes"] == ["read", "trade"]
    key = load_key((exchange.data / "keys" / "desk.key").read_text())
    async with await TradingClient.connect(url[1], key) as client:
        with pytest.raises(CommandError, match="collar"):
            await client.place(market, "far", "buy", "limit", size="1", price="0.01")
    assert "exists" in await run(*desk, code=2)
    assert "revoked" in await run("-m", "byline.cli", "key", "revoke", registered["key"], "--data", str(exchange.data))
    with pytest.raises(SignInFailed, match="bad_signature"):
        await TradingClient.connect(url[1], key)
    for broken in (lines[:5] + lines[6:], [*lines[:5], changed, *lines[6:]]):
        out.write_text("\n".join(broken))
        assert "BookGap" in await run("examples/book_recorder.py", "--check", str(out), code=1)
    async with open_operator(exchange.settings) as operator:
        for name in ("maker", "probe"):
            sessions = [one["label"] for one in await operator.sessions()]
            assert not [label for label in sessions if label.endswith(name)]


@pytest.mark.parametrize("name", ["market_maker", "book_recorder", "latency_probe", "receipts"])
async def test_help_teaches(name: str) -> None:
    told = await run(f"examples/{name}.py", "--help")
    assert f"python examples/{name}.py" in told and "--market" in told
