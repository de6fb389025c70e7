"""A token on a whole exchange: launched while the core stands still, listed, traded, settled on the embedded chain.

And a work that is registered there while the back office is killed.
"""

import asyncio
import json
import os
import signal
import subprocess
import sys

import httpx
import pytest
from websockets.asyncio.client import connect

from tests.support.people import Person
from tests.support.waiting import HANG_S, answers, until

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


async def test_a_launch_survives_a_core_that_stands_still_and_its_trades_reach_the_chain(new_exchange):
    exchange = new_exchange("--quiet-market", "--batch-seconds", "1")
    await exchange.start()
    try:
        api = exchange.status("api")
        async with httpx.AsyncClient(base_url=f"http://{api['host']}:{api['port']}", timeout=HANG_S) as http:
            writer, staff, buyer = Person(http), Person(http), Person(http)
            for person in (writer, staff, buyer):
                await person.sign_in()
            for role in ("admin", "operator"):
                argv = ["people", "grant", staff.wallet.address, role, "--data", str(exchange.data)]
                subprocess.run([sys.executable, "-m", "byline.cli", *argv], check=True, capture_output=True)
            creator = await writer.data("POST", "/v1/creators", display_name="Quill")
            await writer.data("POST", f"/v1/creators/{creator['id']}/verification", statement="It is me.")
            await staff.data("POST", f"/v1/admin/creators/{creator['id']}/verification-decision", decision="approve")
            await writer.step_up()

            core = exchange.pid("core")
            os.kill(core, signal.SIGSTOP)  # the first command is sent and not answered
            try:
                token = await writer.data(
                    "POST", "/v1/tokens", symbol="QUILL", name="Quill", total_supply="1000", sale_size="600",
                    start_price="1.5",
                )  # fmt: skip
                path = f"/v1/tokens/{token['id']}"
                assert (await writer.data("GET", path))["status"] == "reserved"
            finally:
                os.kill(core, signal.SIGCONT)

            async def reached(holds):
                while not holds(found := await writer.data("GET", path)):
                    await asyncio.sleep(0.2)
                return found

            await asyncio.wait_for(reached(lambda token: token["status"] == "minted"), HANG_S)
            await staff.data("POST", f"{path}/list", reason="Ready.")
            await buyer.data("POST", "/v1/faucet", assets=["USDC"])
            async with connect(f"ws://{api['host']}:{api['port']}/v1/ws") as page:
                await page.send(json.dumps({"type": "subscribe", "channel": "market"}))
                assert json.loads(await page.recv())["type"] == "subscribed"
                order = {"market": "QUILL-USDC", "side": "buy", "type": "limit", "size": "40", "price": "1.5"}
                await buyer.data("POST", "/v1/orders", **order)
                while (event := json.loads(await page.recv())["event"])["type"] != "trade":
                    continue
                assert (event["data"]["market"], event["data"]["size"]) == ("QUILL-USDC", "40")

            async def settled():
                trade, *_ = await writer.data("GET", f"{path}/transactions")
                while trade.get("batch_status") != "final":
                    await asyncio.sleep(0.2)
                    trade, *_ = await writer.data("GET", f"{path}/transactions")
                return trade

            trade = await asyncio.wait_for(settled(), HANG_S)
            assert trade["type"] == "trade" and trade["digests"]
            found = await asyncio.wait_for(reached(lambda token: token["vault"]), HANG_S)
            assert (found["circulating_supply"], found["holder_count"], found["last_price"]) == ("1000", 3, "1.5")
            held = await writer.data("GET", f"{path}/holders")
            assert [(holder["kind"], holder["quantity"]) for holder in held] == [
                ("launch", "560"), ("user", "400"), ("user", "40")]  # fmt: skip
            paid = await writer.data("POST", f"{path}/proceeds")
            assert (paid["amount"], paid["state"]) == ("60", "done")
            await staff.data("POST", "/v1/admin/markets/QUILL-USDC/halt", reason="Look.")
            await until(lambda: not exchange.status("backoffice")["settlement"]["halted"], what="settlement to go on")
            await check_registration(exchange, writer)
    finally:
        assert await exchange.stop() == 0, exchange.log()


async def check_registration(exchange, writer):
    """The back office dies while the registration is on its way; the next one ends it."""
    work = await writer.data("POST", "/v1/works", kind="story", title="The Ink Road")
    await writer.data("POST", f"/v1/works/{work['id']}/chapters", title="One", body="Down the river road. " * 10)
    asked = await writer.data("POST", "/v1/copyrights", work_id=work["id"])
    os.kill(exchange.pid("backoffice"), signal.SIGKILL)
    (found,) = await answers(
        lambda: writer.data("GET", f"/v1/works/{work['id']}/registrations"),
        lambda rows: rows[0]["status"] not in ("pending", "submitted"),
    )
    assert found["status"] == "registered" and found["sha256"] == asked["sha256"]
    page = await writer.http.get(asked["check_url"], headers={"accept": "text/html"})
    assert page.status_code == 200 and found["object_id"] in page.text
    certificate = await writer.http.get(f"/v1/certificates/{asked['id']}", headers=writer.bearer)
    assert certificate.content.startswith(b"%PDF-")
