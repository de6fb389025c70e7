"""Withdrawals over real HTTP semantics, a real PostgreSQL and the real core: every step, every refusal, every crash."""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any
from uuid import uuid4

import asyncpg
import httpx
import pytest
import pytest_asyncio

from byline.embedded.postgres import EmbeddedPostgres
from engine.messages.errors import Unavailable
from persistence.stores.postgres.migrate import migrate
from platform_api.app import create_app
from platform_api.database import Database
from platform_api.settings import ApiSettings
from platform_api.settlement import withdrawals
from platform_api.settlement.desk import WithdrawalDesk
from platform_api.settlement.progress import LATE_S
from platform_api.settlement.withdrawal_life import STEPS, TRANSITIONS, take
from platform_api.settlement.withdrawals import OPEN_MAX
from tests.support.real_core import RealCore
from tests.unit.platform_api.test_sui_signature import Wallet

OTHER = "0x" + "ee" * 32


class Status:
    def __init__(self) -> None:
        self.office: dict[str, Any] = {
            "alive": True, "settlement": {"package": "0xp", "vaults": {"USDC": "0xv"}, "connected": True, "halted": "",
                "coins": {
                    "USDC": {
                        "scale": 6, "coin_type": "0xc::usdc::USDC", "vault_version": 5, "faucet": "0xf",
                        "faucet_version": 4,
                    }
                }}
        }  # fmt: skip

    def read(self) -> dict[str, Any]:
        return {"backoffice": self.office}


class World:
    """One account that has signed in with its wallet and owns 100 USDC."""

    def __init__(
        self, server: EmbeddedPostgres, database: Database, core: RealCore, client: httpx.AsyncClient, says: Status
    ) -> None:
        self.server, self.database, self.core, self.client, self.says = server, database, core, client, says
        self.desk = WithdrawalDesk(database, core)
        self.wallet = Wallet(0)
        self.account = ""
        self.bearer: dict[str, str] = {}

    async def sign_in(self) -> None:
        nonce = await self.data("POST", "/v1/auth/nonce", json={"address": self.wallet.address})
        signature = self.wallet.sign(nonce["message"].encode())
        body = {"address": self.wallet.address, "nonce": nonce["nonce"], "signature": signature}
        session = await self.data("POST", "/v1/auth/verify", json=body)
        self.bearer = {"authorization": "Bearer " + session["access_token"]}
        self.account = session["account"]

    async def answer(self, method: str, path: str, **options: Any) -> httpx.Response:
        headers = self.bearer | {"idempotency-key": uuid4().hex} | options.pop("headers", {})
        return await self.client.request(method, path, headers=headers, **options)

    async def data(self, method: str, path: str, **options: Any) -> Any:
        answer = await self.answer(method, path, **options)
        assert answer.status_code < 300, answer.text
        return answer.json()["data"]

    async def refused(self, reason: str, method: str, path: str, **options: Any) -> int:
        answer = await self.answer(method, path, **options)
        assert answer.json()["error"]["details"]["reason"] == reason, answer.text
        return answer.status_code

    async def ask(self, amount: str = "40", **body: Any) -> Any:
        return await self.data("POST", "/v1/withdrawals", json={"asset": "USDC", "amount": amount, **body})

    async def confirm(self, document: Any) -> Any:
        body = {"signature": self.wallet.sign(document["message"].encode())}
        return await self.data("POST", f"/v1/withdrawals/{document['id']}/confirm", json=body)

    async def status(self, document: Any) -> str:
        return str((await self.data("GET", f"/v1/withdrawals/{document['id']}"))["status"])

    def balance(self) -> tuple[int, int]:
        return self.core.balance(self.account, "USDC")

    async def sql(self, query: str, *arguments: Any) -> Any:
        connection = await asyncpg.connect(self.server.dsn)
        try:
            return await connection.fetch(query, *arguments)
        finally:
            await connection.close()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedPostgres]:
    server = EmbeddedPostgres(tmp_path_factory.mktemp("withdrawals") / "postgres")
    server.start()
    asyncio.run(migrate(server.dsn))
    yield server
    server.stop()


@pytest_asyncio.fixture
async def world(server: EmbeddedPostgres, request: pytest.FixtureRequest) -> AsyncIterator[World]:
    database, core = Database(server.dsn), RealCore()
    limits = {"public_per_minute": 0, "account_per_minute": 0, "trading_per_minute": 0, "auth_per_minute": 0}
    settings = ApiSettings(
        postgres_dsn=server.dsn, session_cache_seconds=0, **limits, **getattr(request, "param", {})
    )
    core.send(op="asset", asset="USDC", scale=6, settled=True)
    core.send(op="asset", asset="USD", scale=2)
    core.send(op="account", account="platform:gas", overdraft="forced")
    # No book and no proof is asked for.
    says = Status()
    app = create_app(settings, core, None, says, None, database)  # type: ignore[arg-type]
    await database.open()
    client = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1")
    world = World(server, database, core, client, says)
    await world.sql(
        "INSERT INTO exchange.asset VALUES (0, 'USDC', 6, true), (1, 'USD', 2, false) ON CONFLICT DO NOTHING"
    )
    await world.sign_in()
    core.send(op="deposit", account=world.account, asset="USDC", amount="100", ref="d1")
    core.commands.clear()
    yield world
    await client.aclose()
    await database.close()


async def test_from_the_request_to_the_digest(world: World) -> None:
    document = await world.ask("40.500")
    assert (document["status"], document["amount"], document["address"]) == ("held", "40.5", world.wallet.address)
    assert world.balance() == (59_500_000, 40_500_000)
    assert f"40.5 USDC to {world.wallet.address}" in document["message"] and document["id"] in document["message"]
    refs = [document["ref"]]
    assert await world.desk.released(refs) == {}, "held is not confirmed"
    confirmed = await world.confirm(document)
    assert (confirmed["status"], confirmed["message"]) == ("confirmed", None)
    recipient = bytes.fromhex(world.wallet.address[2:])
    assert await world.desk.released(refs) == {document["ref"]: recipient}
    assert await world.desk.released(refs) == {document["ref"]: recipient}, "asked again after a crash"
    assert await world.refused("already_released", "DELETE", f"/v1/withdrawals/{document['id']}") == 409
    world.desk.store_paid(7, [(document["ref"], "digest7", False)])
    await world.desk.step()
    settled = await world.data("GET", f"/v1/withdrawals/{document['id']}")
    assert (settled["status"], settled["batch"], settled["digest"]) == ("settled", 7, "digest7")
    assert [row["id"] for row in await world.data("GET", "/v1/withdrawals")] == [document["id"]]


async def test_who_cancels_what_is_released_at_that_instant_is_told_so(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    document = await world.ask()
    await world.confirm(document)

    async def released_before(db: Any, withdrawal_id: Any, step: str, **columns: Any) -> bool:
        await world.desk.released([document["ref"]])
        return await take(db, withdrawal_id, step, **columns)

    monkeypatch.setattr(withdrawals, "take", released_before)
    assert await world.refused("already_released", "DELETE", f"/v1/withdrawals/{document['id']}") == 409
    assert await world.status(document) == "released"


@pytest.mark.parametrize("world", [{"withdrawal_fees": {"USDC": "0.25"}}], indirect=True)
async def test_a_fee_goes_to_gas_with_the_withdrawal_and_comes_back_with_it(world: World) -> None:
    document = await world.ask("40")
    assert document["fee"] == "0.25" and world.balance() == (59_750_000, 40_250_000)
    await world.data("DELETE", f"/v1/withdrawals/{document['id']}")
    assert world.balance() == (100_000_000, 0)
    assert world.core.balance("platform:gas", "USDC") == (0, 0)


@pytest.mark.parametrize(
    ("fee", "scale", "text"),
    [("0.25", 6, "0.25"), ("0.250", 2, "0.25"), ("0.25", 1, "0.3"), ("0.1", 0, "1"), ("0", 4, "0")],
)  # fmt: skip
def test_a_fee_that_is_finer_than_its_asset_is_rounded_up(fee: str, scale: int, text: str) -> None:
    assert withdrawals.fee_text(fee, scale) == text


async def test_only_the_wallet_confirms_and_only_this_withdrawal(world: World) -> None:
    first, second = await world.ask("10"), await world.ask("10")
    path = f"/v1/withdrawals/{first['id']}/confirm"
    stranger = Wallet(0)
    for signature in (
        stranger.sign(first["message"].encode()),
        world.wallet.sign(second["message"].encode()),
        world.wallet.sign(first["message"].replace("10 USDC", "90 USDC").encode()),
    ):
        answer = await world.answer("POST", path, json={"signature": signature})
        assert answer.status_code == 401, answer.text
    assert await world.status(first) == "held"
    assert (await world.confirm(first))["status"] == "confirmed"
    again = {"signature": world.wallet.sign(first["message"].encode())}
    assert (await world.data("POST", path, json=again))["status"] == "confirmed", "the same again does no harm"


async def test_an_address_must_be_on_the_list_and_old_enough(world: World) -> None:
    body = {"asset": "USDC", "amount": "10", "address": OTHER}
    assert await world.refused("address_not_allowed", "POST", "/v1/withdrawals", json=body) == 403
    assert world.core.commands == []
    listed = await world.data("POST", "/v1/users/me/withdrawal-addresses", json={"address": OTHER, "label": "cold"})
    assert await world.refused(
        "address_exists", "POST", "/v1/users/me/withdrawal-addresses", json={"address": OTHER}
    ) == 409
    document = await world.ask("10", address=OTHER)
    await world.confirm(document)
    assert await world.desk.released([document["ref"]]) == {}, "the address is new"
    await world.sql("UPDATE money.withdrawal SET not_before = now()")
    assert await world.desk.released([document["ref"]]) == {}, "and its own time counts too"
    await world.sql("UPDATE money.withdrawal_address SET usable_at = now()")
    await world.sql("UPDATE money.withdrawal_address SET removed_at = now()")
    assert await world.desk.released([document["ref"]]) == {}, "taken off the list meanwhile"
    await world.sql("UPDATE money.withdrawal_address SET removed_at = NULL")
    assert await world.desk.released([document["ref"]]) == {document["ref"]: bytes.fromhex(OTHER[2:])}
    answer = await world.answer("DELETE", f"/v1/users/me/withdrawal-addresses/{listed['id']}")
    assert answer.status_code == 204 and await world.data("GET", "/v1/users/me/withdrawal-addresses") == []


async def test_a_wallet_that_is_linked_behind_a_withdrawal_lets_nothing_go_to_it(world: World) -> None:
    await world.data("POST", "/v1/users/me/withdrawal-addresses", json={"address": OTHER})
    document = await world.ask("10", address=OTHER)
    await world.confirm(document)
    await world.sql("UPDATE money.withdrawal SET not_before = now()")
    await world.sql("UPDATE money.withdrawal_address SET usable_at = now(), removed_at = now()")
    link = """INSERT INTO identity.wallet (id, account_id, chain, address, scheme, public_key, is_primary, linked_at)
        SELECT $1, account_id, chain, decode($2, 'hex'), scheme, public_key, false, now() FROM identity.wallet
        WHERE address = decode($3, 'hex')"""
    await world.sql(link, uuid4(), OTHER[2:], world.wallet.address[2:])
    assert await world.desk.released([document["ref"]]) == {}, "else a link would be a way around the list's delay"
    await world.sql("UPDATE identity.wallet SET linked_at = now() - interval '1 day'")
    assert await world.desk.released([document["ref"]]) == {document["ref"]: bytes.fromhex(OTHER[2:])}


FORMS = {
    "capitals": "0x" + "EE" * 32, "a prefix in capitals": "0X" + "ee" * 32, "no prefix": "ee" * 32,
    "space before": " " + OTHER, "space behind": OTHER + " ", "a zero byte behind": OTHER + "\0",
    "longer": "0x00" + "ee" * 32, "shorter": OTHER[:-1], "wide letters": "0x" + "\uff45" * 64,
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
async def test_f72_no_other_way_to_write_an_address_passes_the_list(world: World, form: str) -> None:
    path, body = "/v1/users/me/withdrawal-addresses", {"address": FORMS[form]}
    ask = {"asset": "USDC", "amount": "10"} | body
    answer = await world.answer("POST", "/v1/withdrawals", json=ask)
    assert answer.status_code in (400, 403) and world.core.commands == [], "nothing of it is on the list"
    await world.data("POST", path, json={"address": OTHER, "label": "cold"})
    answer = await world.answer("POST", path, json=body | {"label": "again"})
    assert answer.status_code in (400, 409), "it is no address, or the one that is there"
    answer = await world.answer("POST", "/v1/withdrawals", json=ask)
    if answer.status_code == 400:
        assert world.core.commands == []
        return
    document = answer.json()["data"]  # the same address: it waits as long, and goes where the list says
    assert document["address"] == OTHER
    await world.confirm(document)
    await world.sql("UPDATE money.withdrawal SET not_before = now()")
    assert await world.desk.released([document["ref"]]) == {}, "the address is new, however it is written"
    await world.sql("UPDATE money.withdrawal_address SET usable_at = now()")
    assert await world.desk.released([document["ref"]]) == {document["ref"]: bytes.fromhex(OTHER[2:])}


async def test_each_condition_of_a_release_counts_by_itself_and_a_removed_address_gives_the_money_back(
    world: World,
) -> None:
    await world.data("POST", "/v1/users/me/withdrawal-addresses", json={"address": OTHER, "label": "cold"})
    await world.sql("UPDATE money.withdrawal_address SET usable_at = now()")
    document = await world.ask("10", address=OTHER)
    own = await world.ask("5")
    await world.confirm(document)
    await world.confirm(own)
    refs = [document["ref"], own["ref"]]
    await world.sql("UPDATE money.withdrawal SET not_before = now() + interval '1 day' WHERE ref = ANY($1)", refs)
    assert await world.desk.released(refs) == {}, "the time of the withdrawal itself"
    await world.sql("UPDATE money.withdrawal SET not_before = now() WHERE ref = ANY($1)", refs)
    await world.sql("UPDATE identity.wallet SET revoked_at = now() WHERE address = $1", _address_of(world))
    await world.sql("UPDATE money.withdrawal_address SET removed_at = now()")
    assert await world.desk.released(refs) == {}, "a wallet that is not linked any more, an address off the list"
    world.core.lose.append("answer")
    with pytest.raises(Unavailable):
        await world.desk.step()
    await world.desk.step()
    rows = await world.sql("SELECT status, reason FROM money.withdrawal WHERE ref = ANY($1)", refs)
    assert [tuple(row) for row in rows] == [("canceled", "address_removed")] * 2
    assert world.balance() == (100_000_000, 0)


def _address_of(world: World) -> bytes:
    """The wallet's address as the database has it."""
    return bytes.fromhex(world.wallet.address[2:])


async def test_a_wallet_that_is_not_linked_any_more_confirms_nothing(world: World) -> None:
    document = await world.ask()
    await world.sql(  # the session is of another wallet: one of the wallet itself would end with it
        "WITH other AS (INSERT INTO identity.wallet (id, account_id, chain, address, public_key, scheme, is_primary)"
        " SELECT gen_random_uuid(), account_id, chain, sha256(address), public_key, scheme, false FROM identity.wallet"
        " WHERE address = $1 RETURNING id, account_id) UPDATE identity.session s SET wallet_id = other.id FROM other"
        " WHERE s.account_id = other.account_id",
        _address_of(world),
    )
    await world.sql("UPDATE identity.wallet SET revoked_at = now() WHERE address = $1", _address_of(world))
    body = {"signature": world.wallet.sign(document["message"].encode())}
    path = f"/v1/withdrawals/{document['id']}/confirm"
    assert await world.refused("wallet_unlinked", "POST", path, json=body) == 401
    [row] = await world.sql("SELECT status FROM money.withdrawal WHERE ref = $1", document["ref"])
    assert row["status"] == "held"


async def test_a_wallet_stays_linked_while_a_withdrawal_is_open(world: World) -> None:
    await world.sql(
        "INSERT INTO identity.wallet (id, account_id, chain, address, public_key, scheme, is_primary)"
        " SELECT gen_random_uuid(), account_id, chain, sha256(address), public_key, scheme, false FROM identity.wallet"
        " WHERE address = $1",
        _address_of(world),
    )
    wallets = await world.data("GET", "/v1/users/me/wallets")
    path = next(f"/v1/users/me/wallets/{row['id']}" for row in wallets if row["address"] != world.wallet.address)
    await world.sql("UPDATE identity.session SET proved_at = now()")  # a step-up, which unlinking costs
    document = await world.ask()
    assert await world.refused("withdrawal_open", "DELETE", path) == 409
    assert await world.data("GET", "/v1/users/me/wallets") == wallets
    await world.data("DELETE", f"/v1/withdrawals/{document['id']}")
    await world.desk.step()
    assert (await world.client.delete(path, headers=world.bearer)).status_code < 300
    assert len(await world.data("GET", "/v1/users/me/wallets")) == len(wallets) - 1


async def test_no_more_withdrawals_are_open_than_allowed(world: World) -> None:
    documents = [await world.ask("1") for _ in range(OPEN_MAX)]
    body = {"asset": "USDC", "amount": "1"}
    assert await world.refused("too_many_withdrawals", "POST", "/v1/withdrawals", json=body) == 409
    assert world.balance() == ((100 - OPEN_MAX) * 10**6, OPEN_MAX * 10**6)
    await world.data("DELETE", f"/v1/withdrawals/{documents[0]['id']}")
    await world.ask("1")


@pytest.mark.parametrize("what", ["withdrawals", "users/me/withdrawal-addresses"])
async def test_what_is_asked_for_at_the_same_instant_is_counted(
    world: World, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """The first is held where it has counted what is open, and is not written yet."""
    monkeypatch.setattr(withdrawals, "OPEN_MAX", 1)
    monkeypatch.setattr(withdrawals, "ADDRESSES_MAX", 1)
    bodies: list[dict[str, str]] = [{"asset": "USDC", "amount": "1"}] * 2
    if what != "withdrawals":
        bodies = [{"address": "0x" + "dd" * 32}, {"address": OTHER}]
    waiting = "SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
    own = "(SELECT account_id FROM identity.wallet WHERE address = $1)"
    other = await asyncpg.connect(world.server.dsn)
    try:
        async with other.transaction():
            await other.execute(f"SELECT FROM identity.account WHERE id = {own} FOR UPDATE", _address_of(world))
            asked = [asyncio.create_task(world.answer("POST", f"/v1/{what}", json=body)) for body in bodies]
            while len(await world.sql(waiting)) < 2 and not any(one.done() for one in asked):
                await asyncio.sleep(0.01)
    finally:
        await other.close()
    answers = [await one for one in asked]
    assert sorted(answer.status_code for answer in answers) == [201, 409]
    (late,) = [answer for answer in answers if answer.status_code == 409]
    assert late.json()["error"]["details"]["reason"].startswith("too_many")


async def test_a_full_disk_closes_no_ref_and_is_waited_for(world: World) -> None:
    """The core takes cancels alone while its disk is nearly full: that passes, a closed ref does not."""
    submit, full = world.core.submit, True

    async def nearly_full(command: Mapping[str, Any]) -> dict[str, Any]:
        return {"event": "rejected", "reason": "cancel_only"} if full else await submit(command)

    world.core.submit = nearly_full  # type: ignore[method-assign]
    document = await world.ask()
    assert document["status"] == "requested"
    with pytest.raises(Unavailable, match="cancel_only"):
        await world.desk.step()
    canceled = await world.ask("1")
    assert (await world.data("DELETE", f"/v1/withdrawals/{canceled['id']}"))["status"] == "canceling"
    with pytest.raises(Unavailable, match="cancel_only"):
        await world.desk.step()
    full = False
    await world.desk.step()
    assert await world.status(document) == "held" and await world.status(canceled) == "canceled"
    assert world.balance() == (60_000_000, 40_000_000)


async def test_what_cannot_leave_is_refused_and_changes_nothing(world: World) -> None:
    cases = [
        ({"asset": "USD", "amount": "1"}, "unknown_asset"),
        ({"asset": "NONE", "amount": "1"}, "unknown_asset"),
        ({"asset": "USDC", "amount": "0"}, "bad_amount"),
        ({"asset": "USDC", "amount": "0.0000001"}, "bad_amount"),
        ({"asset": "USDC", "amount": "99999999999999999999"}, "bad_amount"),
        ({"asset": "USDC", "amount": "100.000001"}, "insufficient_funds"),
    ]
    for body, reason in cases:
        assert await world.refused(reason, "POST", "/v1/withdrawals", json=body) in (400, 402)
    for amount, words in (("-5", "be a decimal as 12.5"), ("99999999999999999999", "at most 9223372036854.775807")):
        answer = await world.answer("POST", "/v1/withdrawals", json={"asset": "USDC", "amount": amount})
        said = answer.json()["error"]["message"]
        assert answer.status_code == 400 and said.startswith("amount: ") and words in said and "^" not in said
    world.core.send(op="account", account=world.account, status="frozen")
    assert await world.refused("frozen", "POST", "/v1/withdrawals", json={"asset": "USDC", "amount": "1"}) == 402
    assert world.balance() == (100_000_000, 0)
    ref = (await world.sql("SELECT ref FROM money.withdrawal WHERE reason = 'frozen'"))[0]["ref"]
    world.core.send(op="account", account=world.account, status="active")
    late = world.core.send(op="withdraw", account=world.account, asset="USDC", amount="1", ref=ref, address=OTHER)
    assert (late["event"], late["status"]) == ("duplicate", "voided"), "a late copy cannot run"


async def test_f69_another_account_sees_and_moves_nothing(world: World) -> None:
    document = await world.ask()
    mine = world.bearer
    world.wallet = Wallet(0)
    await world.sign_in()
    assert world.bearer != mine
    for method, path in (("GET", ""), ("DELETE", ""), ("POST", "/confirm")):
        options = {"json": {"signature": "AA=="}} if method == "POST" else {}
        path = f"/v1/withdrawals/{document['id']}{path}"
        assert await world.refused("unknown_withdrawal", method, path, **options) == 404
    assert await world.refused("unknown_withdrawal", "GET", "/v1/withdrawals/nonsense") == 404
    assert await world.data("GET", "/v1/withdrawals") == []


async def test_the_same_key_is_one_withdrawal(world: World) -> None:
    body, headers = {"asset": "USDC", "amount": "10"}, {"idempotency-key": "k1"}
    first = await world.data("POST", "/v1/withdrawals", json=body, headers=headers)
    assert (await world.data("POST", "/v1/withdrawals", json=body, headers=headers))["id"] == first["id"]
    assert world.balance() == (90_000_000, 10_000_000)
    other = {"asset": "USDC", "amount": "11"}
    assert await world.refused("idempotency_key_reuse", "POST", "/v1/withdrawals", json=other, headers=headers) == 409
    # The key's record is gone, as after a day or a process that died with the answer: the document itself answers.
    await world.sql("DELETE FROM kernel.idempotency_record")
    assert (await world.data("POST", "/v1/withdrawals", json=body, headers=headers))["id"] == first["id"]
    await world.sql("DELETE FROM kernel.idempotency_record")
    assert await world.refused("idempotency_key_reuse", "POST", "/v1/withdrawals", json=other, headers=headers) == 409
    assert world.balance() == (90_000_000, 10_000_000)
    assert len(await world.data("GET", "/v1/withdrawals")) == 1


async def test_a_withdrawal_needs_a_key_and_a_refused_one_stays_refused(world: World) -> None:
    body = {"asset": "USDC", "amount": "101"}
    answer = await world.client.post("/v1/withdrawals", headers=world.bearer, json=body)
    assert (answer.status_code, answer.json()["error"]["details"]["reason"]) == (400, "missing"), answer.text
    assert world.core.commands == []
    headers = {"idempotency-key": "too-much"}
    assert await world.refused("insufficient_funds", "POST", "/v1/withdrawals", json=body, headers=headers) == 402
    world.core.send(op="deposit", account=world.account, asset="USDC", amount="50", ref="late")
    assert await world.refused("insufficient_funds", "POST", "/v1/withdrawals", json=body, headers=headers) == 402
    assert world.balance() == (150_000_000, 0)


async def test_a_refused_withdrawal_leaves_no_ref_in_the_core(world: World) -> None:
    """The table of refs has a fixed size: what a refusal closed is forgotten when no copy can run any more."""
    world.core.now_ns = time.time_ns()
    body, headers = {"asset": "USDC", "amount": "101"}, {"idempotency-key": uuid4().hex}
    assert await world.refused("insufficient_funds", "POST", "/v1/withdrawals", json=body, headers=headers) == 402
    [row] = await world.sql("SELECT ref, command::text FROM money.withdrawal ORDER BY number DESC LIMIT 1")
    command = json.loads(row["command"])
    assert world.core.send(**command)["status"] == "voided", "closed, as long as a copy could run"
    world.core.now_ns = command["not_after"] + 1
    world.core.events({"op": "tick"})
    assert world.core.send(**command)["reason"] == "expired"
    assert world.core.send(op="void", ref=row["ref"])["event"] == "voided", "unknown: it was forgotten"


async def test_what_came_too_late_for_the_core_is_refused_and_given_back_once(world: World) -> None:
    world.core.now_ns = time.time_ns()
    world.core.lose.extend(["request", "none", "answer"])
    never, held = await world.ask("1"), await world.ask("2")
    assert (await world.data("DELETE", f"/v1/withdrawals/{held['id']}"))["status"] == "canceling"
    world.core.now_ns += 8 * 86_400 * 10**9
    world.core.events({"op": "tick"})
    await world.desk.step()
    assert await world.status(never) == "failed" and await world.status(held) == "canceled"
    assert world.balance() == (100_000_000, 0)


@pytest.mark.parametrize("when", ["refused", "closing"])
async def test_rest_and_desk_agree_when_one_is_refused_and_money_comes(world: World, when: str) -> None:
    """REST is refused; then money comes, and the desk sends the same document, before REST closes the ref or before it
    has noted the refusal."""
    submit, met = world.core.submit, []

    async def meeting(command: Mapping[str, Any]) -> dict[str, Any]:
        moment = not met and (command["op"], when) in (("withdraw", "refused"), ("withdraw_failed", "closing"))
        answer = await submit(command) if moment and when == "refused" else {}
        if moment:
            met.append(when)
            world.core.send(op="deposit", account=world.account, asset="USDC", amount="9", ref="late")
            await world.desk.step()
        return answer or await submit(command)

    world.core.submit = meeting  # type: ignore[method-assign]
    await world.answer("POST", "/v1/withdrawals", json={"asset": "USDC", "amount": "105"})
    world.core.submit = submit  # type: ignore[method-assign]
    await world.desk.step()
    (document,) = await world.data("GET", "/v1/withdrawals")
    expected = {"held": (4_000_000, 105_000_000), "failed": (109_000_000, 0)}
    assert met and world.balance() == expected[document["status"]]
    assert document["status"] == ("held" if when == "refused" else "failed")


@pytest.mark.parametrize("fault", ["request", "answer"])
async def test_a_refusal_whose_closing_was_lost_is_closed_and_never_sent_again(world: World, fault: str) -> None:
    world.core.lose.extend(["none", fault])
    document = await world.ask("101")
    assert await world.status(document) == "refusing"
    world.core.send(op="deposit", account=world.account, asset="USDC", amount="9", ref="late")
    del world.core.commands[:]
    await world.desk.step()
    assert {command["op"] for command in world.core.commands} == {"withdraw_failed"}
    assert await world.status(document) == "failed" and world.balance() == (109_000_000, 0)


@pytest.mark.parametrize("faults", list(itertools.product(("none", "request", "answer"), repeat=2)))
async def test_lost_requests_and_answers_hold_once_and_give_back_once(world: World, faults: tuple[str, str]) -> None:
    world.core.lose.append(faults[0])
    document = await world.ask()
    assert document["status"] == ("held" if faults[0] == "none" else "requested")
    await world.desk.step()
    assert await world.status(document) == "held" and world.balance() == (60_000_000, 40_000_000)
    world.core.lose.append(faults[1])
    canceled = await world.data("DELETE", f"/v1/withdrawals/{document['id']}")
    assert canceled["status"] == ("canceled" if faults[1] == "none" else "canceling")
    await world.desk.step()
    assert await world.status(document) == "canceled" and world.balance() == (100_000_000, 0)


async def test_cancelling_before_the_core_has_answered_closes_the_ref(world: World) -> None:
    world.core.lose.append("request")
    document = await world.ask()
    canceled = await world.data("DELETE", f"/v1/withdrawals/{document['id']}")
    assert canceled["status"] == "canceled"
    [row] = await world.sql("SELECT command::text FROM money.withdrawal WHERE ref = $1", document["ref"])
    late = world.core.send(**json.loads(row["command"]))
    assert (late["event"], late["status"]) == ("duplicate", "voided")
    assert world.balance() == (100_000_000, 0)


async def test_f56_a_withdrawal_says_why_it_waits(world: World) -> None:
    document = await world.ask()
    assert document["waiting"] == "confirmation"
    await world.confirm(document)
    path, settlement = f"/v1/withdrawals/{document['id']}", world.says.office["settlement"]

    async def waiting() -> str:
        return (await world.data("GET", path))["waiting"]

    assert await waiting() == "batch"
    await world.sql("UPDATE money.withdrawal SET not_before = now() + interval '1 day'")
    assert await waiting() == "delay"
    await world.sql("UPDATE money.withdrawal SET not_before = now()")
    await world.desk.released([document["ref"]])
    settlement["connected"] = False
    assert await waiting() == "chain_unavailable"
    settlement["paused"] = True
    assert await waiting() == "paused"
    settlement["halted"] = "batch 3: vault of USDC shows pool 5; the books say 6"
    assert await waiting() == "settlement_halted"
    world.says.office["alive"] = False
    assert await waiting() == "settlement_stopped"
    world.says.office.clear()
    assert await waiting() == "settlement_stopped"
    world.desk.store_paid(7, [(document["ref"], "digest7", False)])
    await world.desk.step()
    assert await waiting() is None


async def test_one_that_nobody_confirms_is_given_back(world: World) -> None:
    document = await world.ask()
    await world.sql("UPDATE money.withdrawal SET confirm_by = now() - interval '1 second'")
    body = {"signature": world.wallet.sign(document["message"].encode())}
    assert await world.refused("not_held", "POST", f"/v1/withdrawals/{document['id']}/confirm", json=body) == 409
    await world.desk.step()
    canceled = await world.data("GET", f"/v1/withdrawals/{document['id']}")
    assert (canceled["status"], canceled["reason"]) == ("canceled", "not_confirmed")
    assert world.balance() == (100_000_000, 0)


async def test_while_settlement_stands_still_nothing_new_is_held_and_a_restart_is_no_standstill(world: World) -> None:
    office, body = world.says.office, {"asset": "USDC", "amount": "1"}
    held, key = world.balance(), {"idempotency-key": "once"}
    first = await world.data("POST", "/v1/withdrawals", json=body, headers=key)

    async def status() -> tuple[str, str, bool]:
        found = (await world.data("GET", "/v1/status"))["settlement"]
        return found["state"], found["reason"], found["oldest_s"] > LATE_S

    office["settlement"]["halted"] = "batch 3: vault of USDC shows pool 5; the books say 6"
    assert await world.refused("settlement_halted", "POST", "/v1/withdrawals", json=body) == 503
    office["settlement"]["halted"] = ""
    office["alive"] = False
    assert await status() == ("delayed", "settlement_stopped", False)
    assert (await world.ask("1"))["status"] == "held", "it is being started again"
    office |= {"written_at": time.time() - 2 * LATE_S}
    for alive in (False, True):  # dead, and a process that hangs
        office["alive"] = alive
        assert await status() == ("delayed", "settlement_stopped", True)
        assert await world.refused("settlement_stopped", "POST", "/v1/withdrawals", json=body) == 503
    assert (await world.data("POST", "/v1/withdrawals", json=body, headers=key))["id"] == first["id"]
    assert world.balance() == (held[0] - 2_000_000, 2_000_000)
    assert (await world.data("DELETE", f"/v1/withdrawals/{first['id']}"))["status"] == "canceled"


async def test_one_that_the_contract_skipped_has_failed(world: World) -> None:
    document = await world.ask()
    await world.confirm(document)
    await world.desk.released([document["ref"]])
    world.desk.store_paid(3, [(document["ref"], "digest3", True), ("w-other", "digest3", False)])
    await world.desk.step()
    failed = await world.data("GET", f"/v1/withdrawals/{document['id']}")
    assert (failed["status"], failed["reason"], failed["batch"]) == ("failed", "row_emptied_by_exit", 3)


async def test_while_the_database_is_away_nothing_is_released(world: World) -> None:
    document = await world.ask()
    await world.confirm(document)
    desk = WithdrawalDesk(Database("postgresql:///nothing?host=/nonexistent"), world.core)
    with pytest.raises(Unavailable):
        await desk.released([document["ref"]])
    assert await world.status(document) == "confirmed"


async def test_every_step_starts_only_where_the_table_says(world: World) -> None:
    statuses = {source for source, _ in TRANSITIONS} | set(TRANSITIONS.values())
    document = await world.ask()
    [row] = await world.sql("SELECT id FROM money.withdrawal WHERE ref = $1", document["ref"])
    for status, step in itertools.product(sorted(statuses), sorted(STEPS)):
        await world.sql("UPDATE money.withdrawal SET status = $2 WHERE id = $1", row["id"], status)
        async with world.database.connection() as db:
            taken = await take(db, row["id"], step)
        assert taken == ((status, step) in TRANSITIONS), (status, step)
        assert await world.status(document) == TRANSITIONS.get((status, step), status)


async def test_where_to_pay_in(world: World) -> None:
    route = await world.data("POST", "/v1/deposits", json={"asset": "USDC"})
    assert (route["vault"], route["owner"], route["function"]) == ("0xv", world.wallet.address, "settlement::deposit")
    assert route["type_arguments"] == [route["coin_type"]] == ["0xc::usdc::USDC"]
    assert [(item["name"], item["value"], item["shared_version"]) for item in route["arguments"]] == [
        ("vault", "0xv", 5), ("payment", None, None), ("owner", world.wallet.address, None), ("reference", "", None)
    ]  # fmt: skip
    assert (route["faucet"]["value"], route["faucet"]["type"]) == ("0xf", "&mut 0xc::usdc::Faucet")
    assert await world.refused("unknown_asset", "POST", "/v1/deposits", json={"asset": "USD"}) == 400
