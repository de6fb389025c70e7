"""Tokens over HTTP, a real PostgreSQL, the real core and projector: symbols, launch, trading, phases, proceeds."""

import asyncio
import contextlib
import itertools
import os
import time
from collections import deque
from uuid import UUID, uuid4

import msgspec
import pytest
import pytest_asyncio

from engine.messages.errors import Refused, Unavailable
from persistence.stores.postgres.projector import Projector
from platform_api.tokens import queries
from platform_api.tokens.launch import RESERVED_WORDS
from platform_api.tokens.service import TokenService
from platform_api.tokens.symbols import Symbols
from tests.support.api import opened
from tests.support.real_core import RealCore
from tests.unit.platform_api.test_sui_signature import Wallet

TOKENS, SYMBOLS = "/v1/tokens", "/v1/token-symbols"
LAUNCH = {"symbol": "QUILL", "name": "Quill", "total_supply": "1000", "sale_size": "600", "start_price": "1.5"}
names = (f"T{number}X" for number in itertools.count(10))


class Floor:
    """The world with a real core and its projection; `project` brings the projection up to date."""

    def __init__(self, world, core, projector):
        self.world, self.core, self.projector = world, core, projector
        self.desk = world.kernel.service(TokenService).desk

    async def project(self):
        while await self.projector.step():
            pass

    async def creator(self, *, verified=True, proved=True):
        wallet = Wallet(0)
        session, bearer = await self.world.sign_in(wallet)
        made = await self.world.data("POST", "/v1/creators", headers=bearer, json={"display_name": "Quill"})
        if verified:
            body = {"statement": "It is me."}
            await self.world.data("POST", f"/v1/creators/{made['id']}/verification", headers=bearer, json=body)
        if proved:
            await self.world.step_up(wallet, bearer)
        return made, session, bearer

    async def operator(self):
        session, bearer = await self.world.sign_in()
        await self.world.grant(session["account_id"], "operator")
        return bearer

    async def trader(self, usdc="10000"):
        session, bearer = await self.world.sign_in()
        self.core.send(op="deposit", account=session["account"], asset="USDC", amount=usdc, ref=uuid4().hex)
        return session, bearer

    async def launch(self, bearer, **changes):
        body = LAUNCH | {"symbol": next(names)} | changes
        return await self.world.data("POST", TOKENS, headers=keyed(bearer), json=body)

    async def step(self, bearer, path, reason="Because."):
        return await self.world.data("POST", path, headers=keyed(bearer), json={"reason": reason})

    async def order(self, bearer, market, side, size, price):
        body = {"market": market, "side": side, "type": "limit", "size": size, "price": price}
        return await self.world.data("POST", "/v1/orders", headers=keyed(bearer), json=body)


def keyed(bearer, key=None):
    return bearer | {"idempotency-key": key or uuid4().hex}


@pytest_asyncio.fixture
async def floor(api_dsn, request):
    core = RealCore(time.time_ns())
    core.send(op="asset", asset="USDC", scale=6, settled=True)
    core.send(op="account", account="platform:revenue", overdraft="forced")
    values = {"embedded": True, "verify_creators_at_once": True, "catalogue_per_hour": 0}
    async with opened(api_dsn, core=core, **(values | getattr(request, "param", {}))) as world:
        projector = Projector(core, api_dsn, journal=os.urandom(16))
        floor = Floor(world, core, projector)
        await floor.project()
        yield floor
        await projector.close()
        core.core.check()


async def test_a_symbol_is_reserved_by_one_of_two(floor):
    world, symbol = floor.world, next(names)
    _, _, one = await floor.creator(proved=False)
    _, _, two = await floor.creator(proved=False)
    free = {"symbol": symbol, "available": True, "reason": None}
    assert await world.data("GET", f"{SYMBOLS}/available?symbol={symbol}") == free
    answers = await asyncio.gather(
        *(world.client.post(f"{SYMBOLS}/{symbol}/reservations", headers=bearer) for bearer in (one, two))
    )
    assert sorted(answer.status_code for answer in answers) == [201, 409]
    winner, loser = (one, two) if answers[0].status_code == 201 else (two, one)
    held = {"symbol": symbol, "available": False, "reason": "held"}
    assert await world.data("GET", f"{SYMBOLS}/available?symbol={symbol}", headers=loser) == held
    assert await world.data("GET", f"{SYMBOLS}/available?symbol={symbol}", headers=winner) == free
    again = await world.data("POST", f"{SYMBOLS}/{symbol}/reservations", headers=winner)
    assert again == next(answer.json()["data"] for answer in answers if answer.status_code == 201)
    await world.sql("UPDATE tokens.symbol_reservation SET expires_at = now() WHERE symbol = $1", symbol)
    assert await world.data("GET", f"{SYMBOLS}/available?symbol={symbol}") == free
    taken = await world.data("POST", f"{SYMBOLS}/{symbol}/reservations", headers=loser)
    assert taken["status"] == "held" and taken["expires_at"] > again["expires_at"]
    for _ in range(2):
        await world.data("POST", f"{SYMBOLS}/{next(names)}/reservations", headers=loser)
    await world.refused(409, "CONFLICT", "too_many_reservations", "POST", f"{SYMBOLS}/{next(names)}/reservations",
                        headers=loser)  # fmt: skip


@pytest.mark.parametrize("floor", [{"symbols_per_account_max": 1}], indirect=True)
async def test_symbols_reserved_at_the_same_instant_are_counted_together(floor):
    world, symbols = floor.world, Symbols(floor.world.kernel)
    _, session, bearer = await floor.creator(proved=False)
    waiting = "SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
    async with world.kernel.database.transaction() as db:
        await symbols.claim(db, UUID(session["account_id"]), next(names))
        reserve = world.client.post(f"{SYMBOLS}/{next(names)}/reservations", headers=bearer)
        second = asyncio.create_task(reserve)
        while not (second.done() or await world.sql(waiting)):
            await asyncio.sleep(0.01)
    answer = await second
    assert (answer.status_code, answer.json()["error"]["details"]["reason"]) == (409, "too_many_reservations")


@pytest.mark.parametrize("symbol", ["AB", "ABCDEFGHIJK", "abc", "1AB", "A-B", "AB%00", "ABC%0A", "A%E2%80%AEB", "ÄBC"])
async def test_a_strange_symbol_is_refused(floor, symbol):
    _, _, bearer = await floor.creator(proved=False)
    for method, path in (("GET", f"{SYMBOLS}/available?symbol={symbol}"), ("POST", f"{SYMBOLS}/{symbol}/reservations")):
        await floor.world.refused(400, "VALIDATION_ERROR", "bad_symbol", method, path, headers=bearer)


async def test_reserved_words_and_listed_assets_are_not_to_be_had(floor):
    world = floor.world
    _, _, bearer = await floor.creator()
    assert "USDC" in RESERVED_WORDS
    for word in ("USDC", "SUI", "COIN"):
        assert (await world.data("GET", f"{SYMBOLS}/available?symbol={word}"))["reason"] == "reserved_word"
        await world.refused(400, "VALIDATION_ERROR", "reserved_word", "POST", f"{SYMBOLS}/{word}/reservations",
                            headers=bearer)  # fmt: skip
    await world.refused(400, "VALIDATION_ERROR", "reserved_word", "POST", TOKENS, headers=keyed(bearer),
                        json=LAUNCH | {"symbol": "USD"})  # fmt: skip
    floor.core.send(op="asset", asset="LISTED", scale=4)
    await floor.project()
    assert (await world.data("GET", f"{SYMBOLS}/available?symbol=LISTED"))["reason"] == "taken"
    await world.refused(409, "CONFLICT", "symbol_taken", "POST", TOKENS, headers=keyed(bearer),
                        json=LAUNCH | {"symbol": "LISTED"})  # fmt: skip


async def test_who_may_launch(floor):
    world = floor.world
    _, member = await world.sign_in()
    await world.refused(403, "FORBIDDEN", "permission_missing", "POST", TOKENS, headers=keyed(member), json=LAUNCH)
    _, _, unproved = await floor.creator(proved=False)  # has signed in just now, as a thief's session would have
    await world.refused(403, "FORBIDDEN", "step_up_required", "POST", TOKENS, headers=keyed(unproved), json=LAUNCH)
    _, _, unverified = await floor.creator(verified=False)
    await world.refused(403, "FORBIDDEN", "creator_unverified", "POST", TOKENS, headers=keyed(unverified), json=LAUNCH)
    _, _, bearer = await floor.creator()
    await world.refused(400, "VALIDATION_ERROR", "missing", "POST", TOKENS, headers=bearer, json=LAUNCH)
    headers, body = keyed(bearer), LAUNCH | {"symbol": next(names)}
    token = await world.data("POST", TOKENS, headers=headers, json=body)
    again = await world.data("POST", TOKENS, headers=headers, json=body)  # its step-up is spent
    assert again["id"] == token["id"]
    await world.refused(409, "CONFLICT", "already_launched", "POST", TOKENS, headers=keyed(bearer),
                        json=LAUNCH | {"symbol": next(names)})  # fmt: skip
    key = {"public_key": uuid4().hex * 2, "scopes": ["trade"]}
    await world.refused(403, "FORBIDDEN", "step_up_required", "POST", "/v1/users/me/api-keys", headers=bearer, json=key)
    _, _, other = await floor.creator()
    await world.refused(409, "CONFLICT", "symbol_taken", "POST", TOKENS, headers=keyed(other),
                        json=LAUNCH | {"symbol": token["symbol"]})  # fmt: skip
    assert {command["op"] for command in floor.core.commands} >= {"asset", "market", "deposit"}


@pytest.mark.parametrize("floor", [{"embedded": False}], indirect=True)
async def test_nothing_is_minted_where_nobody_can_mint(floor):
    _, _, bearer = await floor.creator()
    await floor.world.refused(503, "SERVICE_UNAVAILABLE", "minting_unavailable", "POST", TOKENS, headers=keyed(bearer),
                              json=LAUNCH)  # fmt: skip


@pytest.mark.parametrize(
    ("field", "value"),
    [("total_supply", "0"), ("total_supply", "10000001"), ("total_supply", "1.5"), ("sale_size", "1001"),
     ("sale_size", "-1"), ("start_price", "0"), ("start_price", "0.00001"), ("start_price", "10000.0001"),
     ("name", "a\u202eb"), ("symbol", "QUILL\n"), ("owner", "me")],
)  # fmt: skip
async def test_a_launch_with_wrong_numbers_leaves_nothing(floor, field, value):
    _, _, bearer = await floor.creator()
    before = len(floor.core.commands)
    answer = await floor.world.client.post(TOKENS, headers=keyed(bearer), json=LAUNCH | {field: value})
    assert answer.status_code == 400 and answer.json()["error"]["details"]["field"] == field, answer.text
    assert len(floor.core.commands) == before


async def test_a_launch_is_the_commands_of_the_money_flow(floor):
    creator, session, bearer = await floor.creator()
    key, start = keyed(bearer), len(floor.core.commands)
    body = LAUNCH | {"symbol": next(names)}
    token = await floor.world.data("POST", TOKENS, headers=key, json=body)
    assert (token["status"], token["creator_id"], token["total_supply"]) == ("reserved", creator["id"], "1000")
    symbol, market, account = body["symbol"], f"{body['symbol']}-USDC", f"launch:{body['symbol']}"
    sent = floor.core.commands[start:]
    assert [command["op"] for command in sent] == [
        "asset", "account", "account", "market", "deposit", "transfer", "place"]  # fmt: skip
    assert sent[0] | {"not_after": 0} == {"op": "asset", "asset": symbol, "scale": 4, "settled": True,
                                          "ref": f"launch:{token['id']}:asset", "not_after": 0}  # fmt: skip
    assert sent[2]["account"] == f"pay:{session['account_id']}" and sent[2]["overdraft"] == "forced"
    assert sent[4]["account"] == account and sent[4]["amount"] == "1000"
    assert sent[5]["legs"] == [{"from": account, "asset": symbol, "amount": "400", "to": session["account"]}]
    assert (sent[6]["account"], sent[6]["size"], sent[6]["price"]) == (account, "600", "1.5")
    assert floor.core.balance(account, symbol) == (0, 6_000_000)
    assert floor.core.balance(session["account"], symbol) == (4_000_000, 0)
    # The first answer word for word, and nothing is sent anew.
    answer = await floor.world.client.post(TOKENS, headers=key, json=body)
    assert answer.json()["data"] == token and answer.headers["idempotency-replayed"] == "true"
    await floor.world.refused(409, "CONFLICT", "idempotency_key_reuse", "POST", TOKENS, headers=key,
                              json=body | {"name": "Other"})  # fmt: skip
    assert len(floor.core.commands) == start + len(sent)
    minted = await floor.world.data("GET", f"{TOKENS}/{symbol}")
    assert (minted["status"], minted["market"], minted["version"]) == ("minted", market, 2)
    assert await floor.world.data("GET", f"{TOKENS}?status=listed&creator_id={creator['id']}") == []
    (listed,) = await floor.world.data("GET", f"{TOKENS}?creator_id={creator['id']}")
    assert listed["id"] == token["id"] and "holder_count" not in listed


@pytest.mark.parametrize("fault", ["request", "answer"])
@pytest.mark.parametrize("at", range(7))
async def test_a_launch_cut_off_anywhere_goes_on_and_mints_once(floor, at, fault):
    _, session, bearer = await floor.creator()
    _, stranger = await floor.world.sign_in()
    floor.core.lose = deque(["none"] * at + [fault, "request"])  # the job's first look fails as well
    token = await floor.launch(bearer)
    path = f"{TOKENS}/{token['id']}"
    assert (await floor.world.data("GET", path, headers=bearer))["status"] == "reserved"
    for headers in ({}, stranger):
        await floor.world.refused(404, "NOT_FOUND", "unknown_token", "GET", path, headers=headers)
    with pytest.raises(Unavailable):
        await floor.desk.drive(token["market"])
    await asyncio.gather(*(floor.desk.drive(token["market"]) for _ in range(2)))  # two desks at once do no harm
    assert (await floor.world.data("GET", path))["status"] == "minted"
    symbol = token["symbol"]
    assert floor.core.balance("system:external", symbol) == (-10_000_000, 0)
    assert floor.core.balance(f"launch:{symbol}", symbol) == (0, 6_000_000)
    assert floor.core.balance(session["account"], symbol) == (4_000_000, 0)
    events = await floor.world.sql(
        "SELECT type FROM kernel.outbox WHERE subject_id = $1 AND subject_type = 'token'", token["id"])
    assert [row["type"] for row in events] == ["token.created"]


async def test_the_job_goes_on_when_the_core_is_back(floor):
    _, _, bearer = await floor.creator()
    floor.core.lose = deque(["none", "request", "request"])
    token = await floor.launch(bearer)
    await floor.world.settle()
    assert not floor.core.lose
    assert (await floor.world.data("GET", f"{TOKENS}/{token['id']}"))["status"] == "minted"


async def driven(floor, market):
    """Until nothing waits, with as many tries as faults are laid."""
    for _ in range(len(floor.core.lose) + 1):
        with contextlib.suppress(Unavailable):
            await floor.desk.drive(market)


async def test_a_core_that_takes_nothing_now_refuses_no_step_of_a_launch(floor):
    """Also not one that has run already: the gateway says so before it looks at the ref."""
    _, session, bearer = await floor.creator()
    floor.core.lose = deque(["answer", "cancel_only", "busy"] * 7)
    token = await floor.launch(bearer)
    await driven(floor, token["market"])
    assert not floor.core.lose
    assert (await floor.world.data("GET", f"{TOKENS}/{token['id']}"))["status"] == "minted"
    symbol = token["symbol"]
    assert floor.core.balance("system:external", symbol) == (-10_000_000, 0)
    assert floor.core.balance(f"launch:{symbol}", symbol) == (0, 6_000_000)
    assert floor.core.balance(session["account"], symbol) == (4_000_000, 0)


async def test_a_ref_that_the_core_takes_no_closing_of_is_not_refused(floor):
    """Proceeds that ran, whose answer was lost: refused for want of funds is final only when the ref is closed."""
    _, session, bearer = await floor.creator()
    operator = await floor.operator()
    _, buys = await floor.trader()
    token = await floor.launch(bearer)
    path = f"{TOKENS}/{token['id']}"
    floor.core.lose = deque(["none", "answer", "cancel_only"])
    await floor.step(operator, f"{path}/list")
    await driven(floor, token["market"])
    assert (await floor.world.data("GET", path))["status"] == "listed"
    await floor.order(buys, token["market"], "buy", "10", "1.5")
    await floor.project()
    floor.core.lose = deque(["answer", "cancel_only", "busy"])
    ref = (await floor.world.data("POST", f"{path}/proceeds", headers=keyed(bearer)))["ref"]
    await driven(floor, token["market"])
    async with floor.world.kernel.database.connection() as db:
        assert (await queries.command(db, ref))["state"] == "done"
    assert floor.core.balance(f"pay:{session['account_id']}", "USDC") == (14_250_000, 0)
    (owed,) = await floor.world.data("GET", "/v1/royalties/balance", headers=bearer)
    assert owed["held"] == "14.25"
    # Refused, and its ref not closed: it stays, and is asked about again.
    await floor.order(buys, token["market"], "buy", "10", "1.5")
    await floor.project()
    launch = f"launch:{token['symbol']}"
    floor.core.send(op="transfer", legs=[{"from": launch, "asset": "USDC", "amount": "15", "to": session["account"]}],
                    ref=uuid4().hex)  # fmt: skip
    floor.core.lose = deque(["none", "cancel_only", "none", "busy"])
    waits = await floor.world.data("POST", f"{path}/proceeds", headers=keyed(bearer))
    assert waits["state"] == "waiting"
    with pytest.raises(Unavailable):
        await floor.desk.drive(token["market"])
    await floor.desk.drive(token["market"])
    async with floor.world.kernel.database.connection() as db:
        row = await queries.command(db, waits["ref"])
    assert (row["state"], row["reason"]) == ("refused", "insufficient_funds")
    floor.core.lose = deque(["answer", "cancel_only", "busy"])
    await floor.step(operator, f"{path}/delist")
    await driven(floor, token["market"])
    assert (await floor.world.data("GET", path))["status"] == "delisted"


async def test_a_launch_whose_supply_is_minted_goes_on_when_its_obstacle_is_away(floor):
    _, session, bearer = await floor.creator()
    floor.core.lose = deque(["none"] * 5 + ["request", "request"])
    token = await floor.launch(bearer)
    launch = f"launch:{token['symbol']}"
    floor.core.send(op="account", account=launch, status="frozen")
    with pytest.raises(Unavailable):
        await floor.desk.drive(token["market"])
    with pytest.raises(Refused):
        await floor.desk.drive(token["market"])
    path = f"{TOKENS}/{token['id']}"
    assert (await floor.world.data("GET", path, headers=bearer))["status"] == "reserved"
    old = "UPDATE tokens.command SET created_at = now() - interval '1 hour' WHERE market = $1"
    await floor.world.sql(old, token["market"])
    await floor.desk.sweep()  # says that a person must look
    assert (await floor.world.data("GET", path, headers=bearer))["status"] == "reserved"
    floor.core.send(op="account", account=launch, status="active")
    await floor.desk.sweep()
    assert (await floor.world.data("GET", path))["status"] == "minted"
    assert floor.core.balance(session["account"], token["symbol"]) == (4_000_000, 0)


async def test_a_market_that_the_core_takes_nothing_for_holds_up_no_other(floor):
    waiting = []
    for _ in range(2):
        _, _, bearer = await floor.creator()
        floor.core.lose = deque(["none"] * 5 + ["request", "request"])
        waiting.append((await floor.launch(bearer), bearer))
        floor.core.lose.clear()
    floor.core.lose = deque(["cancel_only"])
    await floor.world.sql("UPDATE tokens.command SET created_at = now() - interval '1 hour' WHERE state = 'waiting'")
    await floor.desk.sweep()
    status = [(await floor.world.data("GET", f"{TOKENS}/{token['id']}", headers=bearer))["status"]
              for token, bearer in waiting]  # fmt: skip
    assert status == ["reserved", "minted"]


async def test_a_launch_that_the_core_refuses_fails_and_frees_the_creator(floor):
    creator, _, bearer = await floor.creator()
    symbol = next(names)
    floor.core.send(op="asset", asset=symbol, scale=2)  # listed by somebody else; the projection does not know yet
    token = await floor.launch(bearer, symbol=symbol)
    failed = await floor.world.data("GET", f"{TOKENS}/{token['id']}", headers=bearer)
    assert (failed["status"], failed["problem"]) == ("failed", "asset: exists")
    await floor.world.refused(404, "NOT_FOUND", "unknown_token", "GET", f"{TOKENS}/{token['id']}")
    rows = await floor.world.sql("SELECT step, state FROM tokens.command WHERE token_id = $1::text::uuid", token["id"])
    assert {row["state"] for row in rows} == {"refused"} and len(rows) == 7
    # Its ref is closed: a late copy of the command can do nothing any more.
    late = next(command for command in floor.core.commands if command.get("asset") == symbol)
    assert floor.core.send(**late)["status"] == "voided"
    path = f"/v1/creators/{creator['id']}"
    await floor.world.settle()
    assert (await floor.world.data("GET", path))["token_id"] is None
    again = await floor.launch(bearer)  # by the same step-up: the first launch gave it back
    assert (await floor.world.data("GET", f"{TOKENS}/{again['id']}"))["status"] == "minted"
    await floor.world.settle()
    assert (await floor.world.data("GET", path))["token_id"] == again["id"]


async def test_from_the_launch_to_the_last_unit(floor):
    """Launch, auction, trades, holders, prices, transactions, proceeds, halt, resume, delisting."""
    world, core = floor.world, floor.core
    _, session, bearer = await floor.creator()
    operator = await floor.operator()
    buyer, buys = await floor.trader()
    second, sells = await floor.trader()
    token = await floor.launch(bearer)
    path, market, symbol = f"{TOKENS}/{token['id']}", token["market"], token["symbol"]
    await floor.order(buys, market, "buy", "100", "1.6")  # collected before the opening
    await world.refused(403, "FORBIDDEN", "permission_missing", "POST", f"{path}/list", headers=bearer,
                        json={"reason": "Mine."})  # fmt: skip
    key = keyed(operator)
    opened_ = await world.data("POST", f"{path}/list", headers=key, json={"reason": "Ready."})
    assert (opened_["step"], opened_["state"], opened_["market"]) == ("open", "done", market)
    assert await world.data("POST", f"{path}/list", headers=key, json={"reason": "Ready."}) == opened_
    await world.refused(409, "CONFLICT", "token_listed", "POST", f"{path}/list", headers=keyed(operator),
                        json={"reason": "Again."})  # fmt: skip
    assert core.balance(buyer["account"], symbol) == (1_000_000, 0)  # by the auction, at the price of the sale
    await floor.order(sells, market, "buy", "50", "1.5")
    await floor.project()

    read = await world.data("GET", path)
    assert (read["status"], read["phase"], read["last_price"], read["volume_24h"]) == (
        "listed", "continuous", "1.5", "150")  # fmt: skip
    assert (read["circulating_supply"], read["holder_count"], read["vault"]) == ("1000", 4, None)
    held = await world.data("GET", f"{path}/holders")
    assert [(holder["kind"], holder["quantity"], holder["share_bps"]) for holder in held] == [
        ("launch", "450", 4500), ("user", "400", 4000), ("user", "100", 1000), ("user", "50", 500)]  # fmt: skip
    assert held[1]["account_id"] == session["account_id"] and held[0]["account_id"] is None
    assert await pages(world, f"{path}/holders", 1) == held

    (candle,) = await world.data("GET", f"{path}/price-history?interval=1d")
    for name in (token["id"], token["symbol"], f"{token['symbol']}-{token['quote_asset']}"):  # whatever it is called
        assert len(await world.data("GET", f"/v1/markets/{name}/candles?interval=1d")) == 1
        assert await world.data("GET", f"/v1/trades?token_id={name}")
    await world.refused(404, "NOT_FOUND", "unknown_market", "GET", f"/v1/trades?token_id={uuid4()}")
    assert (candle["open"], candle["close"], candle["volume"], candle["trade_count"]) == ("1.5", "1.5", "150", 2)
    at = candle["opened_at"]
    assert await world.data("GET", f"{path}/price-history?interval=1d&to={at}") == []
    assert await world.data("GET", f"{path}/price-history?interval=1d&from={at}") == [candle]
    for ends in ("from=0001-01-01T00:00:00%2B14:00", "to=9999-12-31T23:59:59-14:00"):
        await world.refused(400, "VALIDATION_ERROR", "bad_moment", "GET", f"{path}/price-history?{ends}")

    (held,) = await world.data("GET", "/v1/users/me/investments", headers=buys)
    assert (held["token_id"], held["symbol"], held["status"]) == (token["id"], symbol, "listed")
    assert held["position"]["quantity"] == held["position"]["bought"] and held["position"]["last_price"] == "1.5"

    told = await world.data("GET", f"{path}/transactions")
    assert [entry["type"] for entry in told] == ["trade", "open", "trade", "share", "mint"]
    assert [entry.get("size") for entry in told] == ["50", None, "100", "400", "1000"]
    assert [entry["sequence"] for entry in told] == sorted((entry["sequence"] for entry in told), reverse=True)
    assert await pages(world, f"{path}/transactions", 2) == told

    # Proceeds: 150 × 1.5 = 225 USDC, 5 % for the platform; the launch pays no trading fee.
    await world.refused(404, "NOT_FOUND", "unknown_token", "POST", f"{path}/proceeds", headers=keyed(buys))
    await world.refused(400, "VALIDATION_ERROR", "missing", "POST", f"{path}/proceeds", headers=bearer)
    key, before = keyed(bearer), core.balance("platform:revenue", "USDC")[0]
    paid = await world.data("POST", f"{path}/proceeds", headers=key)
    assert (paid["amount"], paid["state"], paid["platform_bps"]) == ("225", "done", 500)
    assert await world.data("POST", f"{path}/proceeds", headers=key) == paid
    assert core.balance(f"pay:{session['account_id']}", "USDC") == (213_750_000, 0)
    assert core.balance("platform:revenue", "USDC")[0] - before == 11_250_000
    held = {"asset": "USDC", "payable": "0", "held": "213.75", "paid": "0"}
    assert await world.data("GET", "/v1/royalties/balance", headers=bearer) == [held]  # paid out like other income
    assert core.balance(f"launch:{symbol}", "USDC") == (0, 0)
    await floor.project()
    await world.refused(409, "CONFLICT", "nothing_to_pay", "POST", f"{path}/proceeds", headers=keyed(bearer))

    markets = f"/v1/admin/markets/{market}"
    await world.refused(403, "FORBIDDEN", "permission_missing", "POST", f"{markets}/halt", headers=bearer,
                        json={"reason": "Mine."})  # fmt: skip
    await floor.step(operator, f"{markets}/halt")
    refused = await world.client.post("/v1/orders", headers=keyed(buys), json={
        "market": market, "side": "buy", "type": "limit", "size": "1", "price": "1.5"})  # fmt: skip
    assert refused.json()["error"]["details"]["reason"] == "phase"
    assert (await world.data("GET", path))["status"] == "halted"
    await world.refused(409, "CONFLICT", "token_halted", "POST", f"{markets}/halt", headers=keyed(operator),
                        json={"reason": "Again."})  # fmt: skip
    await floor.step(operator, f"{markets}/resume")
    await floor.order(buys, market, "buy", "1", "1.5")
    await floor.step(operator, f"{path}/delist")
    gone = await world.data("GET", path)
    assert gone["status"] == "delisted" and gone["delisted_at"]
    assert core.balance(f"launch:{symbol}", symbol) == (4_490_000, 0)  # what is not sold stays, its order is gone
    await world.refused(409, "CONFLICT", "token_delisted", "POST", f"{markets}/resume", headers=keyed(operator),
                        json={"reason": "Back."})  # fmt: skip
    await floor.project()
    rest = await world.data("POST", f"{path}/proceeds", headers=keyed(bearer))
    assert (rest["amount"], rest["state"]) == ("1.5", "done")

    events = await world.sql("SELECT type FROM kernel.outbox WHERE subject_id = $1 ORDER BY position", token["id"])
    assert [row["type"] for row in events] == [
        "token.created", "token.listed", "token.proceeds_paid", "token.halted", "token.resumed", "token.delisted",
        "token.proceeds_paid"]  # fmt: skip


async def test_a_market_order_stops_at_the_band_of_a_launched_token(floor):
    """The book is thin: behind the sale stands one offer near, and one at twice the price."""
    world, core = floor.world, floor.core
    _, session, bearer = await floor.creator()
    operator = await floor.operator()
    token = await floor.launch(bearer, sale_size="10")
    market, symbol = token["market"], token["symbol"]
    await floor.step(operator, f"{TOKENS}/{token['id']}/list")
    for price in ("1.8", "3"):  # 20 % and 100 % above the start price
        await floor.order(bearer, market, "sell", "10", price)
    buyer, buys = await floor.trader()
    body = {"market": market, "side": "buy", "type": "market", "size": "25"}
    placed = await world.data("POST", "/v1/orders", headers=keyed(buys), json=body)
    await floor.project()
    order = await world.data("GET", f"/v1/orders/{placed['order_id']}", headers=buys)
    assert (order["status"], order["reason"], order["filled"]) == ("canceled", "band", "20")
    assert core.balance(buyer["account"], symbol) == (200_000, 0)
    (listed,) = [one for one in await world.data("GET", "/v1/markets") if one["id"] == market]
    assert (listed["exec_band_ppm"], listed["entry_band_ppm"], listed["phase"]) == (250_000, 0, "continuous")


async def test_a_change_of_phase_waits_for_the_core_and_is_not_asked_twice(floor):
    world = floor.world
    _, _, bearer = await floor.creator()
    operator = await floor.operator()
    token = await floor.launch(bearer)
    await floor.step(operator, f"{TOKENS}/{token['id']}/list")
    await floor.project()
    path = f"/v1/admin/markets/{token['market']}"
    for fault in ("request", "answer"):
        floor.core.lose = deque([fault])
        waits = await floor.step(operator, f"{path}/halt")
        assert (waits["state"], waits["sequence"]) == ("waiting", None)
        await world.refused(409, "CONFLICT", "in_progress", "POST", f"{path}/halt", headers=keyed(operator),
                            json={"reason": "Now."})  # fmt: skip
        await floor.desk.drive(token["market"])
        assert (await world.data("GET", f"{TOKENS}/{token['id']}"))["status"] == "halted"
        await floor.step(operator, f"{path}/resume")
    told = await world.sql("SELECT type FROM kernel.outbox WHERE subject_id = $1", token["id"])
    assert [row["type"] for row in told].count("token.halted") == 2
    await world.refused(404, "NOT_FOUND", "unknown_market", "POST", "/v1/admin/markets/NONE-USDC/halt",
                        headers=keyed(operator), json={"reason": "None."})  # fmt: skip


async def test_a_market_without_a_token_document_is_halted_too(floor):
    floor.core.send(op="asset", asset="INK", scale=4, settled=True)
    floor.core.send(op="market", market="INK-USDC", base="INK", quote="USDC", tick="0.01", lot="0.01")
    await floor.project()
    operator = await floor.operator()
    await floor.step(operator, "/v1/admin/markets/INK-USDC/halt")
    await floor.project()
    phases = {market["id"]: market["phase"] for market in await floor.world.data("GET", "/v1/markets")}
    assert phases["INK-USDC"] == "halt"
    await floor.step(operator, "/v1/admin/markets/INK-USDC/resume")
    actions = await floor.world.sql("SELECT action FROM kernel.audit_entry WHERE resource_id = 'INK-USDC' ORDER BY 1")
    assert [row["action"] for row in actions] == ["market.halt", "market.resume"]


async def test_proceeds_cut_off_are_paid_once(floor):
    _, session, bearer = await floor.creator()
    operator = await floor.operator()
    _, buys = await floor.trader()
    token = await floor.launch(bearer)
    await floor.step(operator, f"{TOKENS}/{token['id']}/list")
    path, payee = f"{TOKENS}/{token['id']}/proceeds", f"pay:{session['account_id']}"
    for number, fault in enumerate(("request", "answer"), 1):
        await floor.order(buys, token["market"], "buy", "10", "1.5")
        await floor.project()
        floor.core.lose = deque([fault])
        waits = await floor.world.data("POST", path, headers=keyed(bearer))
        assert waits["state"] == "waiting"
        await floor.world.refused(409, "CONFLICT", "in_progress", "POST", path, headers=keyed(bearer))
        await floor.desk.drive(token["market"])
        await floor.desk.drive(token["market"])
        assert floor.core.balance(payee, "USDC") == (14_250_000 * number, 0)
    async with floor.world.kernel.database.connection() as db:
        row = await queries.command(db, waits["ref"])
    assert (row["state"], msgspec.json.decode(row["body"])["legs"][0]["amount"]) == ("done", "15")


async def pages(world, path, limit):
    found, cursor = [], None
    while True:
        query = f"?limit={limit}" + (f"&cursor={cursor}" if cursor else "")
        answer = (await world.client.get(path + query)).json()
        found += answer["data"]
        cursor = answer["pagination"]["next_cursor"]
        if cursor is None:
            return found
