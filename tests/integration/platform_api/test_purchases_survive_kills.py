"""Purchases on a whole exchange whose core and whose database are killed while the money moves."""

import asyncio
import os
import signal
from typing import Any
from uuid import uuid4

import httpx
import pytest

from byline.people import grant_role
from tests.support.people import Person
from tests.support.waiting import HANG_S, until

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

PRICE, FAUCET = 10, 10_000
TEXT = "Long enough for a chapter of its own. " * 4


class Patient(Person):
    """Asks again, with the same key, until the exchange has decided."""

    async def data(self, method: str, path: str, /, **body: Any) -> Any:
        key = {"idempotency-key": uuid4().hex} if method == "POST" else {}
        while True:
            try:
                answer = await self.http.request(method, path, headers=self.bearer | key, json=body or None)
            except httpx.TransportError:
                await asyncio.sleep(0.2)
                continue
            if answer.status_code in (429, 500, 502, 503, 504):  # away: not decided yet
                assert answer.status_code != 500, answer.text
                await asyncio.sleep(0.2)
                continue
            assert answer.status_code < 300, answer.text
            return answer.json()["data"]

    async def money(self) -> float:
        found = {row["asset"]: row["available"] for row in await self.data("GET", "/v1/users/me/balances")}
        return float(found.get("USDC", "0"))

    async def held(self) -> float:
        rows = await self.data("GET", "/v1/royalties/balance")
        return sum(float(row["held"]) for row in rows)


async def offer_of(writer):
    await writer.data("POST", "/v1/creators", display_name="Quill")
    work = await writer.data("POST", "/v1/works", kind="story", title="The Ink Road")
    chapter = await writer.data("POST", f"/v1/works/{work['id']}/chapters", title="One", body=TEXT)
    await writer.data("POST", f"/v1/chapters/{chapter['id']}/publish")
    await writer.data("POST", f"/v1/works/{work['id']}/publish")
    return work, await writer.data(
        "POST", f"/v1/works/{work['id']}/offers", kind="purchase", asset="USDC", price=str(PRICE)
    )


async def bought(buyer, offer, method):
    """The purchase once it is decided."""
    purchase = await buyer.data("POST", "/v1/purchases", offer_id=offer["id"], method=method)
    if method == "provider":
        intent = purchase["intent"]
        secret = {"intent": intent["provider_ref"], "client_secret": intent["client_secret"]}
        await buyer.data("POST", "/v1/test-provider/payments", **secret, card="events_twice")
    while purchase["status"] == "pending":
        await asyncio.sleep(0.2)
        purchase = await buyer.data("GET", f"/v1/purchases/{purchase['id']}")
    return purchase


async def test_purchases_are_whole_after_core_and_database_were_killed_in_their_middle(new_exchange, monkeypatch):
    for limit in ("PUBLIC", "ACCOUNT", "AUTH"):
        monkeypatch.setenv(f"BYLINE_API_{limit}_PER_MINUTE", "0")
    exchange = new_exchange("--quiet-market", "--batch-seconds", "1")
    await exchange.start()

    def pid(name):
        return exchange.pid("core") if name == "core" else int(exchange.status("postgres")["postgres_pid"])

    def kill(name):
        os.kill(pid(name), signal.SIGKILL)

    async def kill_stopped_core():
        """What was sent to it is neither run nor refused: it died with it, or stands in the journal unanswered."""
        os.kill(exchange.pid("core"), signal.SIGSTOP)
        await asyncio.sleep(1)
        kill("core")

    async def kill_both():
        await asyncio.sleep(0.1)
        kill("core")
        kill("postgres")

    async def kill_database():
        await asyncio.sleep(0.1)
        kill("postgres")

    try:
        api = exchange.status("api")
        async with httpx.AsyncClient(base_url=f"http://{api['host']}:{api['port']}", timeout=60) as http:
            writer, staff = [await Patient(http).sign_in() for _ in range(2)]
            await asyncio.to_thread(grant_role, exchange.settings, staff.id, "admin", [], take_away=False)
            work, offer = await offer_of(writer)
            sold = 0
            for month, fault in enumerate((kill_stopped_core, kill_database, kill_both), 1):
                buyers = [await Patient(http).sign_in() for _ in range(2)]
                for buyer in buyers:
                    await buyer.data("POST", "/v1/faucet", assets=["USDC"])
                before = {name: pid(name) for name in ("core", "postgres")}
                methods = ("balance", "provider")
                purchases = asyncio.gather(
                    *(bought(buyer, offer, method) for buyer, method in zip(buyers, methods, strict=True))
                )
                await fault()
                states = [purchase["status"] for purchase in await asyncio.wait_for(purchases, HANG_S)]
                assert states == ["completed", "completed"], fault.__name__
                sold += 2
                for buyer, spent in zip(buyers, (PRICE, 0), strict=True):
                    assert len(await buyer.data("GET", "/v1/library")) == 1
                    assert await asyncio.wait_for(reached(buyer.money, FAUCET - spent), HANG_S)
                assert await asyncio.wait_for(reached(writer.held, sold * PRICE * 0.9), HANG_S)
                after = {name: pid(name) for name in before}
                assert after != before, "it was killed"
                # No month is closed unless what payees are owed is what they have in the core, to the unit.
                run = await asyncio.wait_for(closed(staff, f"2025-{month:02}"), HANG_S)
                assert (run["state"], run["reason"]) == ("closed", None)
            royalties = await writer.data("GET", f"/v1/royalties/works/{work['id']}")
            assert [one["status"] for one in royalties["distributions"]] == ["posted"] * sold
            await until(lambda: not exchange.status("backoffice")["settlement"]["halted"], what="settlement to go on")
    finally:
        assert await exchange.stop() == 0, exchange.log()


async def closed(staff, period):
    """The run of the month, when it has ended."""
    runs = "/v1/admin/royalties/runs"
    run = await staff.data("POST", runs, period=period)
    while run["state"] == "open":
        await asyncio.sleep(0.2)
        run = await staff.data("GET", f"{runs}/{period}")
    return run


async def reached(read, wanted):
    """Projections follow."""
    while (found := await read()) != wanted:
        assert found <= FAUCET, found
        await asyncio.sleep(0.2)
    return True
