"""The whole exchange, started as a user starts it: real processes, PostgreSQL, Move VM, disk and sockets."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import asyncpg
import httpx
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from byline.client import TradingClient, load_key
from byline.operator import gateway_url, open_operator
from byline.trading_floor import kept_key, register
from persistence.backup import Head
from persistence.disk import DirectoryDisk
from persistence.recovery import replay, verify
from tests.support.exchange import ExchangeProcess, rest_of, running
from tests.support.promql import read, selectors
from tests.support.waiting import answers, until
from tests.unit.platform_api.test_sui_signature import Wallet

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
DATABASE_OUTAGE_S = float(os.environ.get("TEST_DATABASE_OUTAGE_S", "0"))
"""Beyond the time of fifty orders; the scenario's ten minutes are too long for every run."""


def run(*argv: str, **options) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-m", "byline.cli", *argv], capture_output=True, text=True, **options)


def test_a_bounded_run_ends_with_every_check_held(tmp_path):
    summary_path = tmp_path / "summary.json"
    done = run(
        "up", "--data", str(tmp_path / "data"), "--free-ports", "--seconds", "8", "--batch-seconds", "2",
        "--json", str(summary_path),
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    summary = json.loads(summary_path.read_text())
    assert summary["conservation"] and summary["replay_hash_equal"] and summary["projection_equal"]
    assert summary["orders"] > 0 and summary["trades"] > 0
    committed = [batch for batch in summary["batches"] if batch["status"] == "final"]
    assert len(committed) >= 3 and all(batch["digests"] for batch in committed)
    assert "embedded (not a network)" in summary["chain"]

    verified = run("journal", "verify", "--replay", "--data", str(tmp_path / "data"))
    assert verified.returncode == 0 and summary["state_hash"] in verified.stdout.replace("\n", "")
    assert verify(tmp_path / "data").cuts >= summary["batches_committed"]


def test_nothing_running_is_said_in_one_line(tmp_path):
    for command in (["status"], ["snapshot"]):
        done = run(*command, "--data", str(tmp_path))
        assert done.returncode == 2
        assert done.stderr.startswith("byline: no exchange runs on") and done.stderr.count("\n") == 1


async def traders(exchange: ExchangeProcess, count: int) -> list[TradingClient]:
    """Clients with accounts of their own and money."""
    names = [f"t:{number}" for number in range(count)]
    async with open_operator(exchange.settings) as operator:
        for name in names:
            await operator.command("account", account=name)
            await operator.command("deposit", account=name, asset="USDC", amount="1000000", ref=f"f:{name}:USDC")
            await operator.command("deposit", account=name, asset="INK", amount="100000", ref=f"f:{name}:INK")
    keys = {name: kept_key(exchange.data, name.replace(":", "-")) for name in names}
    await register(exchange.settings, keys)
    return [await TradingClient.connect(gateway_url(exchange.settings), key) for key in keys.values()]


async def place_until_lost(client: TradingClient, tag: str, acked: dict[str, int]) -> None:
    """Places crossing and resting orders one after another until the connection is gone."""
    number = 0
    try:
        while True:
            number += 1
            client_id = f"{tag}-{number}"
            side = "buy" if number % 2 else "sell"
            price = f"{12 + (number % 7) / 10:.2f}"
            answer = await client.place("INK-USDC", client_id, side, "limit", size="0.5", price=price)
            acked[client_id] = answer["order_id"]
    except Exception as error:  # noqa: BLE001 - the kill may show as any broken connection
        assert "Connection" in type(error).__name__ or "Outcome" in type(error).__name__, error


async def test_kill_minus_nine_of_everything_loses_no_acked_order_and_doubles_none(new_exchange):
    exchange = new_exchange("--quiet-market", "--batch-seconds", "1")
    await exchange.start()
    clients = await traders(exchange, 3)
    acked: list[dict[str, int]] = [{} for _ in clients]
    flow = [
        asyncio.create_task(place_until_lost(client, f"k{number}", acked[number]))
        for number, client in enumerate(clients)
    ]
    await until(lambda: min(map(len, acked)) > 100, what="orders before the kill")
    beside = await asyncio.to_thread(run, "journal", "verify", "--replay", "--data", str(exchange.data))
    assert beside.returncode == 2 and beside.stderr.startswith("byline:"), "a journal in use is refused, not judged"
    assert "was cut off" not in exchange.log() and "Keep a copy of" in exchange.log()
    await exchange.kill()
    await asyncio.gather(*flow)
    for client in clients:
        await client.close()

    await exchange.start()
    await until(lambda: exchange.log().count("Ctrl-C stops it") == 2, what="the whole of what it says at its start")
    assert exchange.log().count("The last run was cut off.") == 1 and exchange.log().count("Keep a copy of") == 1
    clients = await traders(exchange, 3)
    try:
        for number, client in enumerate(clients):
            known = {}
            for client_id, order_id in acked[number].items():
                answer = await client.request(
                    {
                        "op": "place", "market": "INK-USDC", "client_id": client_id, "side": "buy", "type": "limit",
                        "size": "0.5", "price": "1",
                    }
                )  # fmt: skip
                assert answer["event"] == "duplicate", f"acked order {client_id} is missing: {answer}"
                assert answer["order_id"] == order_id
                known[order_id] = client_id
            assert len(known) == len(acked[number])
        async with open_operator(exchange.settings) as operator:
            status = await operator.status()
        core, _ = replay(DirectoryDisk(exchange.data))
        assert core.sequence >= status["sequence"]
        core.check()
        url = exchange.status("postgres")["url"]
        connection = await asyncpg.connect(url)
        await until(
            lambda: exchange.status("backoffice")["projection"]["sequence"] >= status["sequence"], what="the projection"
        )
        doubled = await connection.fetchval(
            "SELECT count(*) FROM (SELECT 1 FROM exchange.orders GROUP BY account_id, client_id HAVING count(*) > 1) d"
        )
        assert doubled == 0
        await connection.close()
    finally:
        for client in clients:
            await client.close()
        assert await exchange.stop() == 0, exchange.log()
    last_words = exchange.status("core")
    core, _ = replay(DirectoryDisk(exchange.data))
    assert (core.sequence, core.state_hash().hex()) == (last_words["sequence"], last_words["state_hash"])
    assert verify(exchange.data).state_hash == core.state_hash()


async def test_f50_trading_goes_on_without_database_and_chain_and_both_catch_up(new_exchange):
    exchange = new_exchange("--quiet-market", "--batch-seconds", "1")
    await exchange.start()
    try:
        [client] = await traders(exchange, 1)
        refused = run("up", "--data", str(exchange.data), "--free-ports")
        assert refused.returncode == 2 and "byline:" in refused.stderr, refused

        before = exchange.status("backoffice")["settlement"]["final_batch"]
        os.kill(exchange.pid("postgres"), signal.SIGSTOP)
        database = exchange.status("postgres")["postgres_pid"]
        os.kill(database, signal.SIGSTOP)
        os.kill(exchange.pid("chain"), signal.SIGKILL)
        for number in range(50):
            answer = await client.place("INK-USDC", f"x{number}", "buy", "limit", size="1", price="2")
            assert answer["event"] == "accepted"
        over, number = time.monotonic() + DATABASE_OUTAGE_S, 0
        while time.monotonic() < over:
            answer = await client.place("INK-USDC", f"y{number}", "buy", "limit", size="1", price="2")
            assert answer["event"] == "accepted"
            answer = await client.cancel(client_id=f"y{number}")
            assert answer["event"] == "canceled", answer
            number += 1
            await asyncio.sleep(0.05)
        sequence = answer["sequence"]
        os.kill(database, signal.SIGCONT)
        os.kill(exchange.pid("postgres"), signal.SIGCONT)

        def caught_up() -> bool:
            office = exchange.status("backoffice")
            return (
                office.get("projection", {}).get("sequence", 0) >= sequence
                and office["settlement"]["final_batch"] > before + 1
                and office["settlement"]["pending_batches"] == 0
            )

        await until(caught_up, what="projection and settlement to catch up")
        recent = exchange.status("backoffice")["settlement"]["recent"]
        numbers = [batch["number"] for batch in recent if batch["status"] == "final"]
        assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
        await client.close()
    finally:
        assert await exchange.stop() == 0, exchange.log()


async def test_a_snapshot_on_request_shortens_the_next_start(new_exchange):
    exchange = new_exchange("--quiet-market")
    await exchange.start()
    clients = await traders(exchange, 2)
    acked: list[dict[str, int]] = [{} for _ in clients]
    flow = [
        asyncio.create_task(place_until_lost(client, f"s{number}", acked[number]))
        for number, client in enumerate(clients)
    ]
    await until(lambda: min(map(len, acked)) > 20, what="orders before the snapshot")
    for _ in range(2):
        done = await asyncio.to_thread(run, "snapshot", "--data", str(exchange.data))
        assert done.returncode == 0 and "snapshot at sequence" in done.stdout, done
        taken = int(done.stdout.split()[3].rstrip(":"))
    before = min(map(len, acked))
    await until(lambda: min(map(len, acked)) > before, what="orders after the snapshot")
    await until(lambda: exchange.status("core")["snapshot_sequence"] == taken, what="the status to tell of it")
    told = exchange.status("core")
    assert told["snapshot_pause_ms"] > 0 and told["snapshot_error"] == ""
    core = exchange.pid("core")
    children = "".join(path.read_text() for path in Path(f"/proc/{core}/task").glob("*/children"))
    assert children == "", "the child that wrote it is still there"
    assert await exchange.stop() == 0
    await asyncio.gather(*flow)
    for client in clients:
        await client.close()
    verified = run("journal", "verify", "--replay", "--data", str(exchange.data))
    assert verified.returncode == 0 and str(taken) in verified.stdout, verified.stdout
    await exchange.start()
    log = (exchange.data / "logs" / "core.log").read_text()
    assert f"snapshot={taken}" in log and f"event=snapshot sequence={taken} pause_ms=" in log
    assert await exchange.stop() == 0


@pytest.fixture(scope="module")
def exchange(tmp_path_factory):
    """For other machines, all but the embedded chain; beside a backup, which each batch waits for."""
    directory = tmp_path_factory.mktemp("exchange")
    settings = {"BYLINE_HOST": "0.0.0.0", "BYLINE_BACKUP_URL": (directory / "store").as_uri()}
    with running(directory, "--quiet-market", "--batch-seconds", "1", **settings) as exchange:
        yield exchange


async def test_rest_tells_what_the_core_did(exchange):
    base = f"http://127.0.0.1:{exchange.status('api')['port']}"
    async with httpx.AsyncClient(base_url=base) as http:
        assert (await http.get("/health")).status_code == 200
        page = await http.get("/")
        assert page.status_code == 200 and "<title>" in page.text
        assert (await http.get("/ready")).status_code == 200
        markets = (await http.get("/v1/markets")).json()
        listed = {market["id"] for market in markets["data"]}
        assert markets["success"] and listed >= {"INK-USDC", "REEL-USDC", "VERSE-USDC"}
        metrics = (await http.get("/metrics")).text
        assert "# HELP byline_core_acks_total Commands acknowledged" in metrics
        assert exchange.status("chain")["host"] == "127.0.0.1" and exchange.status("core")["host"] == "0.0.0.0"

        async def batches():
            return (await http.get("/v1/settlement/batches")).json()["data"]

        told = await answers(batches, lambda told: any(batch["status"] == "final" for batch in told), pause_s=0.7)
        final = next(batch for batch in told if batch["status"] == "final")
        one = (await http.get(f"/v1/settlement/batches/{final['number']}")).json()["data"]
        assert one["digests"]
        missing = (await http.get("/v1/settlement/batches/999999")).json()
        assert missing["success"] is False and missing["error"]["code"] == "NOT_FOUND"
        book = (await http.get("/v1/orderbook/INK-USDC", params={"depth": 5})).json()
        assert book["success"] and len(book["data"]["bids"]) <= 5


async def test_each_alert_asks_for_series_and_labels_that_are_told(exchange):
    rules = yaml.safe_load((Path(__file__).parents[2] / "ops" / "alerts.yml").read_text())["groups"][0]["rules"]
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{exchange.status('api')['port']}") as http:
        await http.get("/v1/markets")
        text = (await http.get("/metrics")).text
    told = [
        (sample.name, sample.labels) for family in text_string_to_metric_families(text) for sample in family.samples
    ]
    asked = {selector for rule in rules for selector in selectors(read(rule["expr"]))}
    assert len(rules) > 30 and len(asked) > 30

    def is_told(selector):
        """A label that is not asked for by its value need only be there: a sound exchange answers nothing with 5xx."""
        return any(
            name == selector.name
            and all(label in labels and (how != "=" or labels[label] == value)
                    for label, how, value in selector.matchers)
            for name, labels in told
        )  # fmt: skip

    assert [selector for selector in asked if not is_told(selector)] == []
    values = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    assert float(values["byline_api_disk_bytes"]) > float(values["byline_api_disk_free_bytes"]) > 0
    assert values["chain_available"] == values["registry_available"] == "1.0" and values["settlement_halted"] == "0.0"
    assert float(values["projection_lag_seq"]) >= 0 and float(values["settlement_lag_seconds"]) >= 0


async def test_a_withdrawal_is_paid_on_the_chain_and_then_booked(exchange):
    async with open_operator(exchange.settings) as operator:
        await operator.command("account", account="w:1", row="0x" + "ab" * 32)
        await operator.command("deposit", account="w:1", asset="USDC", amount="100", ref="w-in")
        pended = await operator.command("withdraw", account="w:1", asset="USDC", amount="40", ref="w-out")
        assert pended["event"] == "pended"
        paid = {"available": "60", "held": "0"}
        await answers(lambda: operator.balances("w:1"), lambda balances: balances["USDC"] == paid)
        again = await operator.request({"op": "withdraw_settled", "ref": "w-out"})
        assert again["event"] == "duplicate" and again["status"] == "posted"
    assert not exchange.status("backoffice")["settlement"]["halted"]
    [head] = (exchange.data.parent / "store").glob("*/head")
    assert "settlement/batches.log" in Head.unpack(head.read_bytes()).beside


async def test_a_withdrawal_over_rest_is_confirmed_by_the_wallet_and_settled_with_a_digest(exchange):
    wallet = Wallet(0)
    async with rest_of(exchange, wallet) as (data, session):
        await data("POST", "/v1/faucet", assets=["USDC"])
        document = await data("POST", "/v1/withdrawals", asset="USDC", amount="40")
        assert document["status"] == "held"
        path = f"/v1/withdrawals/{document['id']}"
        await data("POST", path + "/confirm", signature=wallet.sign(document["message"].encode()))
        document = await answers(lambda: data("GET", path), lambda document: document["status"] == "settled")
        batch = await data("GET", f"/v1/settlement/batches/{document['batch']}")
        assert batch["status"] == "final" and document["digest"] in batch["digests"]
        assert document["embedded"] and document["chain"] == "sui:embedded"
    async with open_operator(exchange.settings) as operator:
        paid = {"available": "9960", "held": "0"}
        await answers(lambda: operator.balances(session["account"]), lambda balances: balances["USDC"] == paid)


async def test_a_newcomer_trades_with_one_command_and_ten_lines(exchange):
    for _ in range(2):  # a second time changes nothing
        done = run("trader", "alice", "--data", str(exchange.data))
        assert done.returncode == 0, done
    key = load_key((exchange.data / "keys" / "trader-alice.key").read_text())
    async with await TradingClient.connect(gateway_url(exchange.settings), key) as client:
        answer = await client.place("INK-USDC", "my-1", "buy", "limit", size="10", price="12.40")
        assert answer["event"] == "accepted"
        assert (await client.balances())["USDC"]["held"] == answer["hold"]
        assert (await client.cancel(client_id="my-1"))["event"] == "canceled"
    assert run("trader", "no spaces", "--data", str(exchange.data)).returncode == 2
