"""The event socket over real websockets: who hears what, the end of sessions, slow readers, malformed requests."""

import asyncio
import contextlib
import json
import os
from uuid import uuid4

import pytest
import pytest_asyncio
import uvicorn
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from persistence.stores.postgres.projector import Projector
from platform_api.contexts import CONTEXTS
from platform_api.kernel.events import Event
from platform_api.live.channels import SHOWN, TOLD_TO, tellings
from platform_api.live.connection import QUEUE_MAX, Connection
from platform_api.live.service import LiveService, Reader
from platform_api.security import ACCESS_COOKIE
from tests.integration.platform_api.test_works import chapter, creator, decided, published, story
from tests.support.api import opened
from tests.support.real_core import RealCore
from tests.unit.platform_api.test_sui_signature import Wallet


class Page:
    """One reader. `ask` gives the answer to a request; events that come meanwhile wait in `events`."""

    def __init__(self, socket):
        self.socket, self.events, self._rid = socket, [], 0

    async def ask(self, type_, **fields):
        self._rid += 1
        await self.socket.send(json.dumps({"type": type_, "rid": self._rid} | fields))
        while True:
            message = json.loads(await self.socket.recv())
            if message.get("rid") == self._rid:
                return message
            self.events.append(message)

    async def subscribe(self, channel, **fields):
        return await self.ask("subscribe", channel=channel, **fields)

    async def heard(self):
        """(channel, event type) of everything that was sent so far."""
        assert (await self.ask("ping"))["type"] == "pong"
        found, self.events = self.events, []
        return [(message["channel"], message["event"]) for message in found]


@pytest_asyncio.fixture
async def served(world):
    """Opens pages: `served(headers)` is a context."""
    async with serving(world.app) as page:
        yield page


@contextlib.asynccontextmanager
async def serving(app):
    config = uvicorn.Config(app, port=0, ws="websockets-sansio", ws_max_size=16_384, lifespan="off",
                            log_level="error")  # fmt: skip
    server = uvicorn.Server(config)
    server.capture_signals = contextlib.nullcontext
    task = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]

    @contextlib.asynccontextmanager
    async def page(**headers):
        async with connect(f"ws://127.0.0.1:{port}/v1/ws", additional_headers=headers) as socket:
            yield Page(socket)

    page.port = port
    try:
        yield page
    finally:
        server.should_exit = True
        await task


def bearer_of(headers):
    return {"authorization": headers["authorization"]}


async def ends_with_its_session(page):
    with pytest.raises(ConnectionClosed) as closed:
        while True:
            await page.ask("ping")
    assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (4401, "session_revoked")


async def test_a_work_is_heard_by_everybody_once_it_is_public(world, served):
    made, account, bearer = await creator(world, "Quill")
    _, stranger = await world.sign_in()
    work = await story(world, bearer)
    await world.settle()
    content, own = f"content:{work['id']}", f"creator:{made['id']}"
    async with served(**bearer_of(bearer)) as owner, served(**bearer_of(stranger)) as other, served() as nobody:
        for page in (other, nobody):
            refused = await page.subscribe(content)
            assert (refused["type"], refused["code"], refused["channel"]) == ("error", "unknown_channel", content)
            assert refused["message"] == (await page.subscribe(f"content:{uuid4()}"))["message"]
            assert (await page.subscribe(own))["access"] == "public"
        assert (await owner.subscribe(content))["access"] == "own"
        assert (await owner.subscribe(own))["access"] == "own"
        one = await chapter(world, bearer, work, "One", "Long enough for a chapter of its own. " * 4)
        await world.data("POST", f"/v1/chapters/{one['id']}/publish", headers=bearer)
        await world.settle()
        assert [event["type"] for _, event in await owner.heard()].count("chapter.published") == 2
        assert await nobody.heard() == []  # the work is no public one yet
        await world.data("POST", f"/v1/works/{work['id']}/publish", headers=bearer)
        await world.settle()
        ((channel, event),) = await nobody.heard()
        assert (channel, event["type"], event["subject_id"]) == (own, "work.published", work["id"])
        assert set(event["data"]) == {"title", "kind", "creator_id"} and "actor" not in event
        (heard,) = [event for channel, event in await owner.heard() if channel == content]
        assert heard["actor"] == account and heard["id"] == event["id"]
        assert (await nobody.subscribe(content))["access"] == "public"
        await world.data("POST", f"/v1/works/{work['id']}/archive", headers=bearer)
        await world.settle()
        assert (content, "work.archived") in [(channel, event["type"]) for channel, event in await nobody.heard()]
        await other.ask("unsubscribe", channel=own)
        await world.data("POST", f"/v1/creators/{made['id']}/follow", headers=stranger)
        await world.settle()
        assert "creator.followed" not in [event["type"] for _, event in await other.heard()]
        (followed,) = [event for _, event in await nobody.heard() if event["type"] == "creator.followed"]
        assert followed["data"] == {} and "actor" not in followed  # who follows is nobody's business


@pytest.mark.parametrize("world", [{"works_need_verification": True}], indirect=True)
async def test_nobody_hears_a_title_before_somebody_has_looked_at_it(world, served):
    made, _, bearer = await creator(world)
    staff, moderator = await world.sign_in()
    await world.grant(staff["account_id"], "moderator")
    work, first = await published(world, bearer)
    stays = await chapter(world, bearer, work, "Stays")
    await world.data("POST", f"/v1/chapters/{stays['id']}/publish", headers=bearer)
    await decided(world, moderator, work)
    await world.settle()
    inside = f"/v1/works/{work['id']}"
    async with served() as page:
        for channel in (f"content:{work['id']}", f"creator:{made['id']}"):
            assert (await page.subscribe(channel))["access"] == "public"

        async def heard():
            await world.settle()
            return {(event["type"], event["data"]["title"]) for _, event in await page.heard()}

        await world.data("PATCH", f"/v1/chapters/{first['id']}", headers=bearer, json={"title": "Never looked at"})
        second = await chapter(world, bearer, work, "Never looked at")
        await world.data("POST", f"/v1/chapters/{second['id']}/publish", headers=bearer)
        assert await heard() == set()
        await decided(world, moderator, work, "reject")
        assert await heard() == set()
        await world.data("PATCH", inside, headers=bearer, json={"title": "Never looked at"})
        assert await heard() == {("work.withdrawn", "The Ink Road")}
        await decided(world, moderator, work, "reject")
        await world.data("PATCH", inside, headers=bearer, json={"title": "Looked at"})
        await world.data("POST", f"{inside}/publish", headers=bearer)
        assert await heard() == set()
        await decided(world, moderator, work)
        assert await heard() == {("work.published", "Looked at")}
        feed = [entry["title"] for entry in await world.data("GET", "/v1/creators/feed")]
        assert "Never looked at" not in " ".join(feed)


async def test_what_concerns_an_account_is_heard_by_it_alone(world, served):
    session, bearer = await world.sign_in()
    other, stranger = await world.sign_in()
    await world.settle()
    own = f"user:{session['account_id']}"
    async with served() as page, served(**bearer_of(stranger)) as curious:
        assert (await page.subscribe(own))["code"] == "unknown_channel"
        refused = await curious.subscribe(own)
        assert refused["code"] == "unknown_channel"
        assert refused["message"] == (await curious.subscribe(f"user:{uuid4()}"))["message"]
        assert (await page.ask("auth", token="x"))["code"] == "token_invalid"
        signed = await page.ask("auth", token=session["access_token"])
        assert (signed["type"], signed["account_id"]) == ("signed_in", session["account_id"])
        assert (await page.ask("auth", token=other["access_token"]))["code"] == "other_account"
        assert (await page.subscribe(own))["access"] == "own"
        assert (await curious.subscribe(f"user:{other['account_id']}"))["access"] == "own"
        async with world.kernel.database.transaction() as db:  # as any context tells an account
            await world.kernel.events.publish(
                db, "token.failed", ("token", str(uuid4())), {"for_accounts": [session["account_id"]], "problem": "x"}
            )
        await world.settle()
        ((channel, event),) = await page.heard()
        assert (channel, event["type"], event["data"]) == (own, "token.failed", {"problem": "x"})
        assert await curious.heard() == []
    async with served() as page:  # a token with the subscription is the same as `auth`
        assert (await page.subscribe(own, auth_token=session["access_token"]))["access"] == "own"


async def test_private_channels_end_with_the_session(world, served):
    session, bearer = await world.sign_in()
    async with served(**bearer_of(bearer)) as page, served() as nobody:
        assert (await page.subscribe(f"user:{session['account_id']}"))["access"] == "own"
        await nobody.subscribe("market")
        await world.data("DELETE", f"/v1/users/me/sessions/{session['session_id']}", headers=bearer)
        await world.settle()
        await ends_with_its_session(page)
        assert await nobody.heard() == []
    async with served(**bearer_of(bearer)) as again:
        with pytest.raises(ConnectionClosed) as closed:
            await again.ask("ping")
        assert closed.value.rcvd.code == 4401


@pytest.mark.parametrize("way", ["logout", "refresh_reused", "wallet_unlinked"])
async def test_a_socket_ends_with_its_session_however_that_ends(world, served, way):
    wallet, second = Wallet(0), Wallet(1)
    session, bearer = await world.sign_in(wallet)
    async with served(**bearer_of(bearer)) as page:
        assert (await page.subscribe(f"user:{session['account_id']}"))["access"] == "own"
        if way == "logout":
            await world.data("POST", "/v1/auth/logout", headers=bearer)
        elif way == "refresh_reused":
            for status in (200, 401):
                body = {"refresh_token": session["refresh_token"]}
                answer = await world.client.post("/v1/auth/refresh", json=body)
                assert answer.status_code == status, answer.text
        else:
            await world.step_up(wallet, bearer)
            link = await world.proof(second, "link_wallet", bearer)
            await world.data("POST", "/v1/users/me/wallets", headers=bearer, json=link)
            _, other = await world.sign_in(second)
            await world.step_up(second, other)
            first, _ = await world.data("GET", "/v1/users/me/wallets", headers=other)
            await world.data("DELETE", f"/v1/users/me/wallets/{first['id']}", headers=other)
        await world.settle()
        await ends_with_its_session(page)


async def test_a_cookie_opens_for_pages_of_our_own_origin_alone(world, served):
    session, _ = await world.sign_in()
    cookie, own = f"{ACCESS_COOKIE}={session['access_token']}", f"user:{session['account_id']}"
    async with served(cookie=cookie, origin=f"http://127.0.0.1:{served.port}") as page:
        assert (await page.subscribe(own))["access"] == "own"
    for origin in ("https://evil.example", "null", f"http://127.0.0.1:{served.port}.evil.example"):
        async with served(cookie=cookie, origin=origin) as page:
            assert (await page.subscribe(own))["code"] == "unknown_channel"
    async with served(cookie=cookie) as page:
        assert (await page.subscribe(own))["code"] == "unknown_channel"


async def test_malformed_requests_are_refused_and_harm_nobody(world, served):
    async with served() as page, served() as other:
        for text in ("", "{", "[]", "null", '{"type":"subscribe"}', '{"type":"shout"}', '{"type":"ping","more":1}',
                     '{"type":"auth","token":1}', '{"type":"subscribe","channel":"' + "x" * 200 + '"}'):  # fmt: skip
            await page.socket.send(text)
            assert json.loads(await page.socket.recv())["code"] == "bad_message", text
        await page.socket.send(b"\x00")
        assert json.loads(await page.socket.recv())["code"] == "bad_message"
        for channel in ("", "market:1", "content:", "content:x", f"content:{uuid4().hex}", f"user:{uuid4()}",
                        f"CREATOR:{uuid4()}", "orderbook:INK-USDC", "content:\u0000", "creator:../../x"):  # fmt: skip
            assert (await page.subscribe(channel))["code"] == "unknown_channel", channel
        assert (await page.ask("unsubscribe", channel="market"))["type"] == "unsubscribed"
        await page.socket.send("x" * 20_000)
        with pytest.raises(ConnectionClosed) as closed:
            await page.ask("ping")
        assert closed.value.rcvd.code == 1009
        assert await other.heard() == []


@pytest.mark.parametrize("world", [{"socket_messages_per_minute": 5, "sockets_per_address_max": 2}], indirect=True)
async def test_messages_and_connections_are_bounded(world, served):
    async with served() as page, served() as other:
        async with served() as third:
            with pytest.raises(ConnectionClosed) as closed:
                await third.ask("ping")
            assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (1013, "too_many_connections")
        with pytest.raises(ConnectionClosed) as closed:
            for _ in range(6):
                await page.ask("ping")
        assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (1008, "rate_limited")
        assert (await other.ask("ping"))["type"] == "pong"
    come_back = False
    while not come_back:  # a place comes back when the server has seen that its reader is gone
        async with served() as page:
            with contextlib.suppress(ConnectionClosed):
                come_back = (await page.ask("ping"))["type"] == "pong"


async def test_a_reader_that_does_not_keep_up_is_cut_and_others_are_not():
    sent, slow, quick = [], Connection("a"), Connection("b")
    never = asyncio.Event()

    async def stuck(message):
        sent.append(message)
        await never.wait()

    async def taken(message):
        sent.append(message)

    writing = asyncio.create_task(slow.write(stuck))
    for number in range(QUEUE_MAX + 2):
        slow.push(str(number))
        await asyncio.sleep(0)
    assert slow.closing == (1013, "too_slow")
    slow.push("more")
    writing.cancel()
    sent.clear()
    for number in range(QUEUE_MAX):
        quick.push(str(number))
    quick.end(1000, "bye")
    await quick.write(taken)
    assert [message.get("text") for message in sent[:-1]] == [str(number) for number in range(QUEUE_MAX)]
    assert sent[-1] == {"type": "websocket.close", "code": 1000, "reason": "bye"}


async def test_every_trade_of_every_market_is_heard_once_and_in_order(api_dsn):
    core = RealCore()
    core.send(op="asset", asset="USDC", scale=6, settled=True)
    for symbol in ("INK", "REEL"):
        core.send(op="asset", asset=symbol, scale=4, settled=True)
        core.send(op="market", market=f"{symbol}-USDC", base=symbol, quote="USDC", tick="0.01", lot="0.01")
    for name in ("user:a", "user:b"):
        core.send(op="account", account=name)
    core.send(op="deposit", account="user:a", asset="USDC", amount="1000000", ref="1")
    core.send(op="deposit", account="user:b", asset="INK", amount="1000", ref="2")
    core.send(op="deposit", account="user:b", asset="REEL", amount="1000", ref="3")

    def trade(market, size, number):
        place = {"op": "place", "market": market, "type": "limit", "price": "2", "size": size}
        core.send(**place, account="user:b", side="sell", client_id=f"s{number}")
        core.send(**place, account="user:a", side="buy", client_id=f"b{number}")

    async with opened(api_dsn, core=core) as world:
        projector = Projector(core, api_dsn, journal=os.urandom(16))

        async def project():
            while await projector.step():
                pass

        trade("INK-USDC", "1", 0)  # before anybody listens
        await project()
        service, connection = world.kernel.service(LiveService), Connection("a")
        service.hub.add(connection)
        page = Reader(service, connection, world.app.parts["guard"])
        await page.receive(json.dumps({"type": "subscribe", "channel": "market"}))
        for number in range(1, 8):
            trade("INK-USDC" if number % 2 else "REEL-USDC", f"0.0{number}", number)
            await project()
        found = []

        async def taken(message):
            found.append(json.loads(message["text"]))

        writing = asyncio.create_task(connection.write(taken))
        while len(found) < 8:
            await asyncio.sleep(0.02)
        writing.cancel()
        assert found[0]["type"] == "subscribed" and found[0]["access"] == "public"
        trades = [message["event"]["data"] for message in found[1:]]
        assert [(entry["market"], entry["size"]) for entry in trades] == [
            ("INK-USDC" if number % 2 else "REEL-USDC", f"0.0{number}") for number in range(1, 8)]  # fmt: skip
        assert all("account" not in key and "order" not in key for entry in trades for key in entry)
        service.hub.drop(connection)
        await projector.close()


def test_only_events_that_exist_are_shown():
    declared = {type_ for context in CONTEXTS for type_ in context.events}
    assert set(SHOWN) | set(TOLD_TO) <= declared


def test_an_event_without_a_line_reaches_nobody_but_those_it_names():
    account = str(uuid4())
    payload = {"work_id": str(uuid4()), "creator_id": str(uuid4()), "for_accounts": [account], "price": "5"}
    event = Event(str(uuid4()), "licence.paid", "2026-01-01T00:00:00Z", account, "licence", str(uuid4()), 1, payload)
    (telling,) = tellings(event)
    assert telling.channel == f"user:{account}" and telling.everybody is None and "for_accounts" not in telling.inside


async def test_who_takes_part_no_longer_is_inside_no_longer(world, served):
    _, _, bearer = await creator(world, "Quill")
    helper, theirs = await world.sign_in()
    work = await story(world, bearer)
    path, content = f"/v1/works/{work['id']}", f"content:{work['id']}"

    async def take_part(*lines):
        body = {"collaborators": list(lines)}
        pending = (await world.data("PUT", f"{path}/collaborators", headers=bearer, json=body))["pending"]
        consent = {"change_id": pending["id"], "agree": True}
        await world.data("POST", f"{path}/collaborators/consent", headers=theirs, json=consent)
        await world.settle()

    await take_part({"account_id": helper["account_id"], "role": "Proof reader", "share_bps": 0})
    async with served(**bearer_of(theirs)) as page:
        assert (await page.subscribe(content))["access"] == "own"
        one, two = [await chapter(world, bearer, work, title) for title in ("One", "Two")]
        await world.data("POST", f"/v1/chapters/{one['id']}/publish", headers=bearer)
        await world.settle()
        assert [event["type"] for _, event in await page.heard()] == ["chapter.published"]
        await take_part()
        while rechecks := world.kernel.service(LiveService)._tasks:
            await asyncio.gather(*rechecks)
        await world.data("POST", f"/v1/chapters/{two['id']}/publish", headers=bearer)
        await world.settle()
        await page.ask("ping")
        told = [(message["type"], message.get("code")) for message in page.events]
        assert told == [("event", None), ("error", "unknown_channel")]
        assert page.events[0]["event"]["type"] == "work.collaborators_changed", "the last that they hear"


async def test_what_was_never_public_stays_inside(world, served):
    _, _, bearer = await creator(world, "Quill")
    work, _ = await published(world, bearer, "Open")
    await world.settle()
    async with served() as page:
        await page.subscribe(f"content:{work['id']}")
        await world.data("POST", f"/v1/works/{work['id']}/verification", headers=bearer, json={"statement": "Mine."})
        await world.data("PATCH", f"/v1/works/{work['id']}", headers=bearer, json={"title": "Open again"})
        await world.settle()
        heard = [event["type"] for _, event in await page.heard()]
        assert "work.version_published" in heard and set(heard) == {"work.version_published"}


async def test_windows_of_a_work_that_went_out_of_sight_are_told_to_nobody_outside(world, served):
    """Who had subscribed while it was public heard where and how it opens, of a work that is not there for them."""
    _, _, bearer = await creator(world, "Quill")
    work, _ = await published(world, bearer, "Shown")
    planned = {"work_id": work["id"], "territories": ["PG"], "starts_at": "2020-01-01T00:00:00Z"}
    await world.settle()
    async with served() as nobody, served(**bearer_of(bearer)) as owner:
        for page in (nobody, owner):
            await page.subscribe(f"content:{work['id']}")
        await world.data("POST", "/v1/windows", headers=bearer, json=planned | {"window_type": "svod"})
        await world.settle()
        ((_, event),) = await nobody.heard()
        assert event["type"] == "window.opened" and set(event["data"]) == {"work_id", "window_type", "territories"}
        await world.data("POST", f"/v1/works/{work['id']}/archive", headers=bearer)
        await world.data("POST", "/v1/windows", headers=bearer, json=planned | {"window_type": "avod"})
        await world.settle()
        assert [event["type"] for _, event in await nobody.heard()] == ["work.archived"]
        heard = [event["type"] for _, event in await owner.heard()]
        assert heard == ["window.opened", "work.archived", "window.opened"]


def test_what_everybody_hears_of_a_work_is_of_a_public_one():
    told = {type_ for type_, line in SHOWN.items() if "content" in line.channels and line.fields is not None}
    assert {type_ for type_ in told if not SHOWN[type_].if_public} == {"work.published"}
