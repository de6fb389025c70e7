"""The whole of Byline as its people live it, through the public doors alone and with real signatures.

A writer joins by wallet, publishes a story, has it registered and sets terms; a studio applies, is approved and pays;
the fee splits four ways; the writer launches a token, and two traders trade it over the websocket. Then everybody's
statement, balances, proofs and the batches on Sui must agree to the last unit, and an outsider checks licence and
proof.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import subprocess
import sys
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pypdfium2
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from byline.client import TradingClient
from byline.operator import gateway_url, open_operator
from byline.summary import read_projection
from tests.support.exchange import ExchangeProcess
from tests.support.people import Person
from tests.support.waiting import HANG_S, answers

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
TEXT = "The letter was heavier than it looked, and nobody had asked who would carry it over the border. " * 3
FEE = Decimal("100.01")
SHARES = {"writer": 5_000, "editor": 3_333, "painter": 1_111, "translator": 556}
"""Of what is left to the work, in parts of 10,000."""
PARTS = {
    "platform": Decimal("15.0015"),  # 15 % of 100.01; 85.0085 are left, to be divided in units of 0.000001
    "writer": Decimal("42.504250"),  # 50 %    = 42.504250
    "editor": Decimal("28.333333"),  # 33.33 % = 28.33333305
    "painter": Decimal("9.444444"),  # 11.11 % =  9.44444435
    "translator": Decimal("4.726473"),  # 5.56 % = 4.7264726: the unit that is over goes to the largest remainder
}
"""By hand. They sum to FEE."""
CARD = Decimal("150.02")
FAUCET = Decimal(10_000)


async def test_a_writer_a_studio_and_two_traders(
    new_exchange: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BYLINE_API_AUTH_PER_MINUTE", "0")  # eight people of one address
    exchange = new_exchange("--quiet-market", "--batch-seconds", "1")
    await exchange.start()
    try:
        api = exchange.status("api")
        async with httpx.AsyncClient(base_url=f"http://{api['host']}:{api['port']}", timeout=HANG_S) as http:
            people = [Person(http) for _ in range(8)]
            for person in people:
                await person.sign_in()
            writer, editor, painter, translator, studio, staff, ann, bob = people
            for person, role in ((staff, "admin"), (staff, "operator"), (studio, "studio")):
                command(exchange, "people", "grant", person.wallet.address, role)
            work = await the_story(http, writer, staff)
            await registered(http, writer, work)
            licence = await licensed(writer, [editor, painter, translator], studio, work)
            payees = dict(zip(SHARES, (writer, editor, painter, translator), strict=True))
            await split_four_ways(payees, work)
            market = await launched(writer, staff)
            batch = await traded(exchange, market, ann, bob)
            await agree(exchange, tmp_path, people, batch)
            assert total(await studio.data("GET", "/v1/users/me/balances"), "USDC") == CARD - FEE
            await books(exchange, work, payees)
            await papers(staff, payees, work)
            await statements(exchange, staff, payees, work)
            await outsider(http, work, licence)
            tell_the_example(exchange)
    finally:
        assert await exchange.stop() == 0, exchange.log()


def command(exchange: ExchangeProcess, *words: str) -> str:
    argv = [sys.executable, "-m", "byline.cli", *words, "--data", str(exchange.data)]
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout


async def the_story(http: httpx.AsyncClient, writer: Person, staff: Person) -> dict[str, Any]:
    """The writer becomes an approved creator and publishes a story of two chapters, which a reader then reads."""
    creator = await writer.data("POST", "/v1/creators", display_name="Ada Ink")
    await writer.data("POST", f"/v1/creators/{creator['id']}/verification", statement="It is me.")
    await staff.data("POST", f"/v1/admin/creators/{creator['id']}/verification-decision", decision="approve")
    work = await writer.data("POST", "/v1/works", kind="story", title="The Ink Road", genres=["drama"])
    for title in ("One", "Two"):
        body = {"title": title, "body": TEXT + title, "preview": True}
        chapter = await writer.data("POST", f"/v1/works/{work['id']}/chapters", **body)
        await writer.data("POST", f"/v1/chapters/{chapter['id']}/publish")
    work = await writer.data("POST", f"/v1/works/{work['id']}/publish")
    reader = (await http.get(f"/v1/works/{work['id']}/chapters")).json()["data"]
    assert [chapter["title"] for chapter in reader] == ["One", "Two"]
    return dict(work)


async def registered(http: httpx.AsyncClient, writer: Person, work: dict[str, Any]) -> None:
    await writer.step_up()
    asked = await writer.data("POST", "/v1/copyrights", work_id=work["id"])
    (found,) = await answers(
        lambda: writer.data("GET", f"/v1/works/{work['id']}/registrations"),
        lambda rows: rows[0]["status"] not in ("pending", "submitted"),
    )
    assert found["status"] == "registered"
    check = (await http.get(f"/v1/copyrights/{asked['sha256']}")).json()["data"]
    assert (check["title"], check["author"], check["object_id"]) == ("The Ink Road", "Ada Ink", found["object_id"])
    version = (await writer.data("GET", f"/v1/works/{work['id']}/versions"))[0]
    assert hashlib.sha256(version["content"].encode()).hexdigest() == check["sha256"]
    digests = [hashlib.sha256((TEXT + title).encode()).hexdigest() for title in ("One", "Two")]
    assert [chapter["sha256"] for chapter in json.loads(version["content"])["chapters"]] == digests
    certificate = await http.get(f"/v1/certificates/{asked['id']}", headers=writer.bearer)
    assert certificate.content.startswith(b"%PDF-")


async def licensed(writer: Person, partners: list[Person], studio: Person, work: dict[str, Any]) -> dict[str, Any]:
    """Four makers agree on their shares; the studio applies, is approved, and pays."""
    inside = f"/v1/works/{work['id']}"
    lines = [
        {"account_id": person.id, "role": role, "bps": bps}
        for person, role, bps in zip(
            [writer, *partners], ["producer", "collaborator", "collaborator", "collaborator"],
            SHARES.values(), strict=True,
        )
    ]  # fmt: skip
    rule = await writer.data("PUT", f"{inside}/royalty-rules", lines=lines)
    assert set(rule["waits_for"]) == {person.id for person in partners}
    for person in partners:
        rule = await person.data("POST", f"{inside}/royalty-rules/consent", rule_id=rule["id"], agree=True)
    assert rule["status"] == "effective"
    terms = await writer.data(
        "POST", f"{inside}/license-terms", license_type="exclusive", base_fee=str(FEE), asset="USDC",
        territories=["PG", "AU"], duration="P2Y", scope=["adapt"], revenue_share_bps=500,
    )  # fmt: skip
    await pays_in_by_card(studio)
    asked = await studio.data("POST", "/v1/license-applications", terms_id=terms["id"], purpose="A film of it.")
    assert asked["status"] == "pending"
    approved = await writer.data("POST", f"/v1/license-applications/{asked['id']}/approve")
    path = f"/v1/licenses/{approved['license_id']}"
    assert (await studio.data("GET", path))["status"] == "pending_payment"
    await studio.step_up()
    await studio.data("POST", f"{path}/pay")
    found = await answers(lambda: studio.data("GET", path), lambda row: row["status"] == "active")
    assert found["valid"] and found["verification_code"]
    return dict(found)


async def pays_in_by_card(person: Person) -> None:
    """A top-up of CARD at the provider, which is the test provider beside the embedded chain."""
    intent = await person.data("POST", "/v1/payments/intents", asset="USDC", amount=str(CARD))
    card = {"intent": intent["provider_ref"], "client_secret": intent["client_secret"], "card": "ok"}
    await person.data("POST", "/v1/test-provider/payments", **card)
    await answers(
        lambda: person.data("GET", "/v1/users/me/balances"), lambda balances: total(balances, "USDC") == CARD
    )


def total(balances: list[dict[str, Any]], asset: str) -> Decimal:
    return sum((Decimal(row["total"]) for row in balances if row["asset"] == asset), Decimal(0))


async def split_four_ways(payees: dict[str, Person], work: dict[str, Any]) -> None:
    """Each gets the part worked out by hand, in a line with its batch and digests; the balance says the same."""

    def final(found: Any) -> bool:
        sales = found["distributions"]
        return bool(sales) and all(line["digests"] for line in sales[0]["lines"])

    found = await answers(lambda: payees["writer"].data("GET", f"/v1/royalties/works/{work['id']}"), final)
    (sale,) = found["distributions"]
    assert (sale["revenue_kind"], sale["status"], Decimal(sale["gross"])) == ("licence_fee", "posted", FEE)
    ids: dict[str | None, str] = {None: "platform"} | {person.id: name for name, person in payees.items()}
    assert {ids[line["account_id"]]: Decimal(line["amount"]) for line in sale["lines"]} == PARTS
    assert len(sale["lines"]) == len(PARTS) and sum(PARTS.values()) == FEE
    for name, person in payees.items():
        (held,) = await person.data("GET", "/v1/royalties/balance")
        assert Decimal(held["payable"]) + Decimal(held["held"]) == PARTS[name]


async def launched(writer: Person, staff: Person) -> str:
    await writer.step_up()
    token = await writer.data(
        "POST", "/v1/tokens", symbol="ADA", name="Ada Ink", total_supply="1000", sale_size="600", start_price="1.5"
    )
    path = f"/v1/tokens/{token['id']}"
    await answers(lambda: writer.data("GET", path), lambda found: found["status"] == "minted")
    await staff.data("POST", f"{path}/list", reason="Ready.")
    return "ADA-USDC"


async def traded(exchange: ExchangeProcess, market: str, ann: Person, bob: Person) -> int:
    """Ann buys of the launch and sells to Bob, both over the websocket. Returns a batch that has all of it."""
    keys = []
    for person in (ann, bob):
        await person.data("POST", "/v1/faucet", assets=["USDC"])
        key = Ed25519PrivateKey.generate()
        public = key.public_key().public_bytes_raw().hex()
        await person.step_up()
        await person.data("POST", "/v1/users/me/api-keys", public_key=public, scopes=["trade", "read"], label="s")
        keys.append(key)
    url = gateway_url(exchange.settings)
    async with await TradingClient.connect(url, keys[0]) as hers, await TradingClient.connect(url, keys[1]) as his:
        bought = await hers.place(market, "a1", "buy", "limit", size="40", price="1.5")
        sold = await hers.place(market, "a2", "sell", "limit", size="15", price="1.4")
        taken = await his.place(market, "b1", "buy", "limit", size="10", price="1.4")
        assert {each["event"] for each in (bought, sold, taken)} == {"accepted"}

    def settled(fills: Any) -> bool:
        return len(fills) >= 2 and all(fill.get("batch_status") == "final" for fill in fills)

    fills = await answers(lambda: ann.data("GET", "/v1/trades?own=true"), settled)
    assert all(fill["digests"] for fill in fills)
    assert await moved(ann) == {"buy": Decimal(60), "sell": Decimal(14)}
    assert await moved(bob) == {"buy": Decimal(14)}
    for person, tokens in ((ann, 30), (bob, 10)):
        assert total(await person.data("GET", "/v1/users/me/balances"), "ADA") == tokens
    return max(int(fill["batch"]) for fill in fills)


async def moved(person: Person) -> dict[str, Decimal]:
    """What somebody bought and sold for, in USDC; the balance is what the faucet gave, with that and the fees."""
    sums: dict[str, Decimal] = {}
    fees = Decimal(0)
    for fill in await person.data("GET", "/v1/trades?own=true"):
        sums[fill["side"]] = sums.get(fill["side"], Decimal(0)) + Decimal(fill["notional"])
        fees += Decimal(fill["fee"])
    left = FAUCET - sums.get("buy", Decimal(0)) + sums.get("sell", Decimal(0)) - fees
    assert total(await person.data("GET", "/v1/users/me/balances"), "USDC") == left
    return sums


async def books(exchange: ExchangeProcess, work: dict[str, Any], payees: dict[str, Person]) -> None:
    """What the operator sees: each payee is owed its part, nothing stays with the work, all accounts sum to zero."""
    async with open_operator(exchange.settings) as operator:
        for name, person in payees.items():
            owed = (await operator.balances(f"pay:{person.id}"))["USDC"]
            assert Decimal(owed["available"]) + Decimal(owed["held"]) == PARTS[name]
        passing = await operator.balances(f"work:{work['id']}")
        assert all(Decimal(part) == 0 for row in passing.values() for part in row.values())
    sums: dict[int, int] = {}
    for (_, asset), parts in (await read_projection(exchange.status("postgres")["url"])).balances.items():
        sums[asset] = sums.get(asset, 0) + sum(parts)
    assert len(sums) >= 2 and set(sums.values()) == {0}


async def papers(staff: Person, payees: dict[str, Person], work: dict[str, Any]) -> None:
    """Each payee's report of the last thirty days, as JSON, CSV and PDF; the running month cannot be closed."""
    for name, person in payees.items():
        path = "/v1/royalties/report"
        report = await person.data("GET", path)
        (line,), (in_all,) = report["lines"], report["totals"]
        assert (line["kind"], Decimal(line["amount"])) == ("earned", PARTS[name]) and line["digests"]
        assert (line["work_title"], Decimal(line["gross"])) == (work["title"], FEE)
        assert Decimal(line["platform_fee"]) == PARTS["platform"]
        sums = [Decimal(in_all[part]) for part in ("earned", "reversed", "paid", "net")]
        assert in_all["asset"] == "USDC" and sums == [PARTS[name], 0, 0, PARTS[name]]
        table = await person.http.get(f"{path}?format=csv", headers=person.bearer)
        (row,) = csv.DictReader(io.StringIO(table.text))
        assert (row["work_title"], Decimal(row["amount"]), Decimal(row["gross"])) == (work["title"], PARTS[name], FEE)
        paper = await person.http.get(f"{path}?format=pdf", headers=person.bearer)
        text = pypdfium2.PdfDocument(paper.content)[0].get_textpage().get_text_bounded()
        for word in (work["title"], work["id"], f"{line['amount']} USDC", line["gross"], line["platform_fee"]):
            assert "".join(word.split()) in "".join(text.split()), word
    closed = await staff.answer("POST", "/v1/admin/royalties/runs", period=f"{datetime.now(UTC):%Y-%m}")
    assert (closed.status_code, closed.json()["error"]["details"]["reason"]) == (409, "period_open")


async def statements(
    exchange: ExchangeProcess, staff: Person, payees: dict[str, Person], work: dict[str, Any]
) -> None:
    """Each payee's statement of the month in which the fee was paid.

    Nobody waits here for a month to end: what was booked is put into the month before in the database. All else is
    asked for as a platform's staff and its people ask.
    """
    database = await asyncpg.connect(exchange.status("postgres")["url"])
    try:
        moved_back = "UPDATE royalties.entry SET happened_at = happened_at - interval '31 days'"
        assert await database.execute(moved_back) == f"UPDATE {len(payees)}"
        await database.execute("SELECT royalties.sum_again()")
        period = f"{await database.fetchval('SELECT max(happened_at) FROM royalties.entry'):%Y-%m}"
    finally:
        await database.close()
    runs = "/v1/admin/royalties/runs"
    await staff.data("POST", runs, period=period)
    run = await answers(lambda: staff.data("GET", f"{runs}/{period}"), lambda found: found["state"] != "open")
    assert (run["state"], run["statements"]) == ("closed", len(payees))
    for name, person in payees.items():
        (closed,) = await person.data("GET", "/v1/royalties/statements")
        found = await person.data("GET", f"/v1/royalties/statements/{closed['id']}")
        (line,) = found["lines"]
        assert found["statement"] == closed and (closed["period"], closed["asset"]) == (period, "USDC")
        sums = [Decimal(closed[part]) for part in ("opening", "earned", "reversed", "paid", "closing")]
        assert sums == [0, PARTS[name], 0, 0, PARTS[name]] and Decimal(line["amount"]) == PARTS[name]
        assert (line["kind"], line["work_title"], Decimal(line["gross"])) == ("earned", work["title"], FEE)
        batch = await person.data("GET", f"/v1/settlement/batches/{line['batch']}")
        assert batch["status"] == "final" and line["digests"] and set(line["digests"]) <= set(batch["digests"])
        (held,) = await person.data("GET", "/v1/royalties/balance")
        assert Decimal(held["payable"]) + Decimal(held["held"]) == Decimal(closed["closing"])


async def agree(exchange: ExchangeProcess, folder: Path, people: list[Person], batch: int) -> None:
    """By REST, by proof against the chain, and all accounts together: the same amounts to the last unit."""
    node = exchange.status("chain")
    batches = "/v1/settlement/batches"
    later = await answers(lambda: people[0].data("GET", f"{batches}?limit=1"), lambda rows: rows[0]["number"] > batch)
    number = int(later[0]["number"])
    await answers(lambda: people[0].data("GET", f"{batches}/{number}"), lambda row: row["status"] == "final")
    file = folder / "batch.json"
    file.write_text((await people[0].http.get(f"{batches}/{number}")).text)
    units_of_one: dict[str, set[Decimal]] = {}
    for person in people:
        balances = await person.data("GET", "/v1/users/me/balances")
        said = {row["asset"]: Decimal(row["total"]) for row in balances if Decimal(row["total"])}
        answer = await person.http.get(f"/v1/users/me/proof?batch={number}", headers=person.bearer)
        if not said:
            assert answer.status_code == 404
            continue
        proof = folder / f"{person.id}.json"
        proof.write_text(answer.text)
        argv = ["verify", str(proof), str(file), "--node", f"http://{node['host']}:{node['port']}"]
        done = subprocess.run([sys.executable, "-m", "byline.cli", *argv], capture_output=True, text=True)
        assert done.returncode == 0 and f"VERIFIED batch {number}" in done.stdout, done.stdout + done.stderr
        proved = {part["asset"]: part["amount"] for part in answer.json()["data"]["proofs"]}
        assert set(proved) == set(said)
        for asset, units in proved.items():
            units_of_one.setdefault(asset, set()).add(units / said[asset])
    assert units_of_one.pop("USDC") == {Decimal(10**6)}
    assert all(len(found) == 1 for found in units_of_one.values()) and "ADA" in units_of_one


async def outsider(http: httpx.AsyncClient, work: dict[str, Any], licence: dict[str, Any]) -> None:
    """Nobody in particular, with the code that stands in the film's credits."""
    code = licence["verification_code"]
    found = (await http.get(f"/v1/authorizations/{code}")).json()["data"]
    assert found["valid"] and (found["work_id"], found["work_title"]) == (work["id"], "The Ink Road")

    async def proof() -> Any:
        return (await http.get(f"/v1/authorizations/{code}/chain")).json()["data"]

    shown = await answers(proof, lambda row: bool(row["periods"]) and row["periods"][0]["object_id"])
    assert shown["embedded"]
    assert (await http.get(f"/v1/authorizations/{'A' * 32}")).status_code == 404


def tell_the_example(exchange: ExchangeProcess) -> None:
    """`examples/story.py`, as README has it run."""
    api = exchange.status("api")
    address = f"http://{api['host']}:{api['port']}"
    argv = [sys.executable, "examples/story.py", "--api", address, "--data", str(exchange.data)]
    root = Path(__file__).parents[2]
    done = subprocess.run(argv, cwd=root, env={"PYTHONPATH": str(root)}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert all(word in done.stdout for word in ("registered on the chain", "the painter", "the platform"))
    assert "waiting for" not in done.stdout, "nobody looks at a pipe while it waits"
    lost = [*argv[:-1], str(exchange.data / "keys")]
    refused = subprocess.run(lost, cwd=root, env={"PYTHONPATH": str(root)}, capture_output=True, text=True)
    assert refused.returncode == 1 and "name it with --data" in refused.stderr and "joined" not in refused.stdout
    wrong = [sys.executable, "examples/story.py", "--api", "http://127.0.0.1:1"]
    refused = subprocess.run(wrong, cwd=root, capture_output=True, text=True)
    assert refused.returncode == 1 and "Does `byline up` run?" in refused.stderr
