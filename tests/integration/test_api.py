"""The REST API over real HTTP semantics and a real PostgreSQL. The core behind the port is a small stand-in that keeps
order ids, references and keys as the real one answers them; it matches nothing."""

import asyncio
import socket
import time
from datetime import UTC, datetime, timedelta

import httpx
import msgspec
import pytest
import uvicorn

from engine.messages.errors import OutcomeUnknown, Unavailable
from platform_api.app import create_app, openapi_document
from platform_api.kernel.upkeep import enqueue_upkeep
from platform_api.texts import BODY_BYTES_MAX
from settlement.merkle import Proof, check_proof
from tests.support.api import Proofs, StandInBook, StandInCore, StandInStatus, opened, settings
from tests.unit.platform_api.test_sui_signature import Wallet, multisig

ROUTES = {
    "get /health", "get /ready", "get /metrics", "get /v1/time", "get /v1/status",
    "post /v1/auth/nonce", "post /v1/auth/verify", "post /v1/auth/refresh", "post /v1/auth/logout",
    "get /v1/auth/session", "post /v1/auth/step-up", "post /v1/auth/email/verify", "get /v1/users/me",
    "patch /v1/users/me", "post /v1/users/me/email", "post /v1/users/me/email/verify", "get /v1/users/me/wallets",
    "post /v1/users/me/wallets", "delete /v1/users/me/wallets/{wallet_id}", "get /v1/users/me/sessions",
    "delete /v1/users/me/sessions/{session_id}", "get /v1/users/me/devices", "delete /v1/users/me/devices/{device_id}",
    "get /v1/users/me/api-keys", "post /v1/users/me/api-keys", "delete /v1/users/me/api-keys/{key_id}",
    "get /v1/users/{user_id}", "get /v1/admin/audit-logs", "get /v1/markets", "get /v1/markets/{token_id}/candles",
    "get /v1/orderbook/{token_id}", "post /v1/orders", "get /v1/orders", "get /v1/orders/{order_id}",
    "delete /v1/orders/{order_id}", "get /v1/trades", "get /v1/users/me/balances", "get /v1/settlement/batches",
    "get /v1/settlement/batches/{number}", "post /v1/faucet", "get /v1/users/me/proof",
    "post /v1/withdrawals", "get /v1/withdrawals", "get /v1/withdrawals/{withdrawal_id}", "post /v1/deposits",
    "delete /v1/withdrawals/{withdrawal_id}", "post /v1/withdrawals/{withdrawal_id}/confirm",
    "get /v1/users/me/withdrawal-addresses", "post /v1/users/me/withdrawal-addresses",
    "delete /v1/users/me/withdrawal-addresses/{address_id}",
    "post /v1/admin/creators/{creator_id}/verification-decision", "get /v1/admin/verifications",
    "post /v1/admin/works/{work_id}/verification-decision", "get /v1/categories", "delete /v1/chapters/{chapter_id}",
    "patch /v1/chapters/{chapter_id}", "post /v1/chapters/{chapter_id}/publish",
    "post /v1/chapters/{chapter_id}/unpublish", "get /v1/chapters/{chapter_id}/versions", "get /v1/creators",
    "post /v1/creators", "get /v1/creators/feed", "get /v1/creators/search", "get /v1/creators/{creator_id}",
    "patch /v1/creators/{creator_id}", "get /v1/creators/{creator_id}/analytics",
    "post /v1/creators/{creator_id}/follow", "delete /v1/creators/{creator_id}/follow",
    "get /v1/creators/{creator_id}/profile-sections", "put /v1/creators/{creator_id}/profile-sections/achievements",
    "put /v1/creators/{creator_id}/profile-sections/education",
    "put /v1/creators/{creator_id}/profile-sections/experiences",
    "put /v1/creators/{creator_id}/profile-sections/sections",
    "put /v1/creators/{creator_id}/profile-sections/skills", "get /v1/creators/{creator_id}/verification",
    "post /v1/creators/{creator_id}/verification", "get /v1/creators/{creator_id}/works",
    "get /v1/files/{file_id}/content", "get /v1/files/{file_id}/url", "get /v1/genres", "patch /v1/offers/{offer_id}",
    "post /v1/uploads", "get /v1/uploads/{upload_id}", "post /v1/uploads/{upload_id}/complete",
    "put /v1/uploads/{upload_id}/parts/{number}", "get /v1/users/me/following", "get /v1/works", "post /v1/works",
    "get /v1/works/search", "get /v1/works/{work_id}", "delete /v1/works/{work_id}", "patch /v1/works/{work_id}",
    "post /v1/works/{work_id}/archive", "get /v1/works/{work_id}/assets", "post /v1/works/{work_id}/assets",
    "delete /v1/works/{work_id}/assets/{asset_id}", "get /v1/works/{work_id}/chapters",
    "post /v1/works/{work_id}/chapters", "get /v1/works/{work_id}/chapters/{chapter_id}",
    "get /v1/works/{work_id}/collaborators", "put /v1/works/{work_id}/collaborators",
    "post /v1/works/{work_id}/collaborators/consent", "get /v1/works/{work_id}/offers",
    "post /v1/works/{work_id}/offers", "post /v1/works/{work_id}/publish", "post /v1/works/{work_id}/verification",
    "get /v1/works/{work_id}/versions",
}  # fmt: skip


@pytest.mark.parametrize("flag", [0, 1, 2])
async def test_sign_in_of_each_scheme_makes_one_account_and_opens_it_in_the_core(world, flag):
    wallet = Wallet(flag)
    session, _ = await world.sign_in(wallet)
    assert session["created"] is True
    opening = {"op": "account", "account": "user:" + session["account_id"], "row": wallet.address}
    assert world.core.commands == [opening]
    again, bearer = await world.sign_in(wallet)
    assert again["created"] is False and again["account_id"] == session["account_id"]
    me = await world.data("GET", "/v1/users/me", headers=bearer)
    assert me["wallets"] == [wallet.address] and me["account"] == opening["account"]


async def test_sign_in_of_a_multisig(world):
    wallets = [Wallet(0), Wallet(1), Wallet(2)]
    address = multisig(wallets, [1, 1, 1], 2, [0, 1], b"")[1]
    nonce = await world.data("POST", "/v1/auth/nonce", json={"address": address})
    signature, _ = multisig(wallets, [1, 1, 1], 2, [0, 2], nonce["message"].encode())
    body = {"address": address, "nonce": nonce["nonce"], "signature": signature}
    assert (await world.data("POST", "/v1/auth/verify", json=body))["address"] == address


async def test_f68_f72_nonce_is_good_once_for_its_address_in_its_time_and_domain(world):
    wallet, other = Wallet(0), Wallet(0)
    verify = ("POST", "/v1/auth/verify")

    async def fresh():
        nonce = await world.data("POST", "/v1/auth/nonce", json={"address": wallet.address})
        signature = wallet.sign(nonce["message"].encode())
        return {"address": wallet.address, "nonce": nonce["nonce"], "signature": signature}, nonce["message"]

    body, message = await fresh()
    assert message.startswith("127.0.0.1:7400 wants you to sign in with your Sui account:\n" + wallet.address)
    await world.data(*verify, json=body)
    await world.refused(401, "UNAUTHORIZED", "nonce_used", *verify, json=body)
    body, message = await fresh()
    signed_elsewhere = wallet.sign(message.replace("127.0.0.1:7400", "evil.example").encode())
    await world.refused(401, "UNAUTHORIZED", "bad_signature", *verify, json=body | {"signature": signed_elsewhere})
    await world.refused(401, "UNAUTHORIZED", "nonce_used", *verify, json=body)  # a failed try spends it too
    body, message = await fresh()
    foreign = {"address": other.address, "signature": other.sign(message.encode())}
    await world.refused(401, "UNAUTHORIZED", "nonce_unknown", *verify, json=body | foreign)
    body, message = await fresh()
    await world.refused(
        401, "UNAUTHORIZED", "other_address", *verify, json=body | {"signature": other.sign(message.encode())}
    )
    body, _ = await fresh()
    past = "UPDATE identity.auth_nonce SET expires_at = now() - interval '1 second' WHERE nonce = $1"
    await world.sql(past, body["nonce"])
    await world.refused(401, "UNAUTHORIZED", "nonce_expired", *verify, json=body)
    body, _ = await fresh()
    await world.sql("UPDATE identity.auth_nonce SET domain = 'evil.example' WHERE nonce = $1", body["nonce"])
    await world.refused(401, "UNAUTHORIZED", "wrong_domain", *verify, json=body)
    body, _ = await fresh()
    await world.refused(
        422, "VERIFICATION_FAILED", "scheme_unavailable", *verify, json=body | {"signature": "BQ" + "A" * 98}
    )
    await world.refused(401, "UNAUTHORIZED", "nonce_unknown", *verify, json=body | {"nonce": "0" * 32})


async def test_refresh_rotates_and_a_reused_token_ends_the_session(world):
    session, bearer = await world.sign_in()
    first = {"refresh_token": session["refresh_token"]}
    second = await world.data("POST", "/v1/auth/refresh", json=first)
    assert second["session_id"] == session["session_id"] and second["refresh_token"] != session["refresh_token"]
    await world.refused(401, "UNAUTHORIZED", "refresh_reused", "POST", "/v1/auth/refresh", json=first)
    await world.refused(401, "UNAUTHORIZED", "session_revoked", "GET", "/v1/users/me", headers=bearer)
    newest = {"refresh_token": second["refresh_token"]}
    await world.refused(401, "UNAUTHORIZED", "session_revoked", "POST", "/v1/auth/refresh", json=newest)
    unknown = {"refresh_token": "x" * 43}
    await world.refused(401, "UNAUTHORIZED", "refresh_unknown", "POST", "/v1/auth/refresh", json=unknown)


async def test_no_refresh_outlives_the_session(world):
    """A pair that is handed out opens something: at the session's end there is none."""
    session, bearer = await world.sign_in()
    assert session["refresh_expires_in"] == 86_400
    shorter = "UPDATE identity.session SET expires_at = now() + $2::interval WHERE id = $1::text::uuid"
    await world.sql(shorter, session["session_id"], timedelta(minutes=30))
    first = {"refresh_token": session["refresh_token"]}
    refreshed = await world.data("POST", "/v1/auth/refresh", json=first)
    assert 1_700 < refreshed["refresh_expires_in"] <= 1_800
    await world.sql(shorter, session["session_id"], timedelta(0))
    newest = {"refresh_token": refreshed["refresh_token"]}
    await world.refused(401, "UNAUTHORIZED", "session_revoked", "POST", "/v1/auth/refresh", json=newest)
    await world.refused(401, "UNAUTHORIZED", "session_revoked", "GET", "/v1/users/me", headers=bearer)


async def test_token_that_is_missing_altered_revoked_or_of_a_suspended_account_is_refused(world):
    session, bearer = await world.sign_in()
    me = ("GET", "/v1/users/me")
    await world.refused(401, "UNAUTHORIZED", "token_missing", *me)
    altered = {"authorization": bearer["authorization"][:-8] + "AAAAAAAA"}
    await world.refused(401, "UNAUTHORIZED", "token_invalid", *me, headers=altered)
    await world.refused(401, "UNAUTHORIZED", "token_invalid", *me, headers={"authorization": "Basic eDp5"})
    await world.sql(
        "UPDATE identity.account SET permission_version = 2 WHERE id = $1::text::uuid", session["account_id"]
    )
    await world.refused(401, "UNAUTHORIZED", "token_stale", *me, headers=bearer)
    await world.sql("UPDATE identity.account SET status = 'suspended' WHERE id = $1::text::uuid", session["account_id"])
    await world.refused(403, "FORBIDDEN", "account_suspended", *me, headers=bearer)
    _, other = await world.sign_in()
    await world.data("POST", "/v1/auth/logout", headers=other)
    await world.refused(401, "UNAUTHORIZED", "session_revoked", *me, headers=other)


async def test_profile_changes_are_guarded_by_version_and_names_are_taken_once(world):
    session, bearer = await world.sign_in()
    name = "ink-" + session["account_id"][-8:]
    patch = ("PATCH", "/v1/users/me")
    me = await world.data(*patch, headers=bearer, json={"username": name, "preferences": {"genres": ["verse"]}})
    assert (me["username"], me["preferences"], me["version"]) == (name, {"genres": ["verse"]}, 2)
    assert me["last_login_at"] >= me["created_at"]
    stale = bearer | {"if-match": '"1"'}
    await world.refused(409, "CONFLICT", "version_mismatch", *patch, headers=stale, json={"bio": "x"})
    _, other = await world.sign_in()
    taken = {"username": name.upper()}
    await world.refused(409, "CONFLICT", "username_taken", *patch, headers=other, json=taken)


async def upkeep(world):
    """What each process of the API does every ten minutes."""
    async with world.kernel.database.transaction() as db:
        await enqueue_upkeep(world.kernel, db)
    await world.settle()


async def test_api_key_is_registered_at_the_gateway_listed_and_revoked(world):
    wallet = Wallet(0)
    session, bearer = await world.sign_in(wallet)
    keys = "/v1/users/me/api-keys"
    body = {
        "public_key": "a1" * 16 + session["account_id"].replace("-", ""),
        "scopes": ["trade", "read"],
        "label": "bot",
    }
    await world.refused(403, "FORBIDDEN", "step_up_required", "POST", keys, headers=bearer, json=body)
    await world.step_up(wallet, bearer)
    key = await world.data("POST", keys, headers=bearer, json=body)
    expected = (bytes.fromhex(body["public_key"]), session["account"], ("read", "trade"))
    assert world.core.keys == {key["id"]: expected}
    assert await world.data("GET", keys, headers=bearer) == [key] and key["last_used_at"] is None
    used = 1_800_000_000_123_456_789
    world.core.uses = {"0" * 64: used + 9, body["public_key"]: used, "f" * 64: used - 9}  # others are the operator's
    await upkeep(world)
    (again,) = await world.data("GET", keys, headers=bearer)
    assert again == key | {"last_used_at": "2027-01-15T08:00:00.123456Z"} and world.core.uses == {}
    world.core.uses = {body["public_key"]: used - 10**9}  # told late by another process
    await upkeep(world)
    assert await world.data("GET", keys, headers=bearer) == [again]
    key = again
    await world.refused(403, "FORBIDDEN", "step_up_required", "POST", keys, headers=bearer, json=body)
    await world.step_up(wallet, bearer)
    answer = await world.refused(409, "CONFLICT", "key_exists", "POST", keys, headers=bearer, json=body)
    assert answer.json()["error"]["details"]["field"] == "public_key"
    bad = body | {"scopes": ["withdraw"]}
    answer = await world.refused(400, "VALIDATION_ERROR", "invalid", "POST", keys, headers=bearer, json=bad)
    assert "scopes" in answer.json()["error"]["details"]["field"]
    _, other = await world.sign_in()
    await world.refused(404, "NOT_FOUND", "unknown_key", "DELETE", f"{keys}/{key['id']}", headers=other)
    await world.data("DELETE", f"{keys}/{key['id']}", headers=bearer)
    assert world.core.keys == {} and await world.data("GET", keys, headers=bearer) == []
    world.core.failure = Unavailable("the gateway is away")
    await upkeep(world)  # goes on without it
    body["public_key"] = "b2" + body["public_key"][2:]
    key = await world.data("POST", keys, headers=bearer, json=body)  # listed, and begun as soon as the gateway is there
    assert await world.data("GET", keys, headers=bearer) == [key] and world.core.keys == {}
    world.core.failure = None
    await world.settle()
    assert list(world.core.keys) == [key["id"]]


LIMIT = {"market": "INK-USDC", "side": "buy", "type": "limit", "size": "1", "price": "12.4"}


async def test_order_is_placed_once_for_a_key_and_the_key_keeps_its_body(world):
    session, bearer = await world.sign_in()
    post = ("POST", "/v1/orders")
    keyed = bearer | {"idempotency-key": "abc"}
    first = await world.client.request(*post, headers=keyed, json=LIMIT)
    again = await world.client.request(*post, headers=keyed, json=LIMIT)
    assert (first.status_code, again.status_code) == (201, 201) and first.json()["data"] == again.json()["data"]
    assert again.headers["idempotency-replayed"] == "true"
    placed = [command for command in world.core.commands if command["op"] == "place"]
    client_id = first.json()["data"]["client_order_id"]
    assert placed == [{"op": "place", "account": session["account"], "client_id": client_id, **LIMIT}]
    pair = {
        "market": "INK-USDC", "side": "sell", "type": "stop_limit", "size": "2", "price": "1", "stop_price": "1.1",
        "tif": "gtd", "expires_at": 1_900_000_000_000_000_000, "oco_with": "first", "client_order_id": "stop",
    }  # fmt: skip
    assert (await world.data(*post, headers=bearer, json=pair))["client_order_id"] == "stop"
    sent = pair | {"op": "place", "account": session["account"], "client_id": "stop"}
    assert world.core.commands[-1] == {field: value for field, value in sent.items() if field != "client_order_id"}
    other = LIMIT | {"size": "2"}
    await world.refused(409, "CONFLICT", "idempotency_key_reuse", *post, headers=keyed, json=other)
    named = LIMIT | {"client_order_id": "mine"}
    assert (await world.data(*post, headers=bearer, json=named))["duplicate"] is False
    answer = await world.client.request(*post, headers=bearer, json=named)
    assert answer.status_code == 200 and answer.json()["data"]["duplicate"] is True


async def test_order_that_is_refused_says_why_and_may_be_sent_again_with_its_key(world):
    _, bearer = await world.sign_in()
    post = ("POST", "/v1/orders")
    await world.refused(400, "VALIDATION_ERROR", "missing", *post, headers=bearer, json=LIMIT)
    keyed = bearer | {"idempotency-key": "k"}
    bad = LIMIT | {"price": "999999"}
    await world.refused(422, "ORDER_REJECTED", "bad_price", *post, headers=keyed, json=bad)
    world.core.failure = OutcomeUnknown("no answer in time")
    await world.refused(504, "UPSTREAM_TIMEOUT", "outcome_unknown", *post, headers=keyed, json=LIMIT)
    world.core.failure = None
    order = await world.data(*post, headers=keyed, json=LIMIT)
    await world.data("DELETE", f"/v1/orders/{order['order_id']}", headers=bearer)
    _, other = await world.sign_in()
    for path in (f"/v1/orders/{order['order_id']}", "/v1/orders/0", "/v1/orders/-1", "/v1/orders/99999999999999999999"):
        await world.refused(404, "NOT_FOUND", "unknown_order", "DELETE", path, headers=other)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"price": "-1"}, "price"), ({"price": "NaN"}, "price"), ({"price": 12.4}, "price"), ({"size": "1e5"}, "size"),
        ({"size": "1" * 21}, "size"), ({"side": "bid"}, "side"), ({"surprise": 1}, "surprise"), ({"side": None}, "side"),  # noqa: E501
        ({"client_order_id": "a b"}, "client_order_id"), ({"client_order_id": "a" * 33}, "client_order_id"),
        ({"expires_at": 2**63}, "expires_at"),
    ],
)  # fmt: skip
async def test_order_with_a_bad_field_is_refused_by_its_name(world, change, field):
    _, bearer = await world.sign_in()
    before = len(world.core.commands)
    answer = await world.refused(
        400, "VALIDATION_ERROR", "invalid", "POST", "/v1/orders", headers=bearer, json=LIMIT | change
    )
    assert answer.json()["error"]["details"]["field"] == field and len(world.core.commands) == before


async def test_bodies_that_are_no_json_too_large_or_of_another_type_are_refused(world):
    post = ("POST", "/v1/auth/nonce")
    json_type = {"content-type": "application/json"}
    await world.refused(400, "INVALID_CONTENT_FORMAT", "bad_content_type", *post, content=b"x=1")
    await world.refused(400, "INVALID_CONTENT_FORMAT", "bad_json", *post, content=b"{", headers=json_type)
    refusal = await world.refused(400, "VALIDATION_ERROR", "body_too_large", *post, content=b" " * (BODY_BYTES_MAX + 1),
                                  headers=json_type)  # fmt: skip
    assert refusal.json()["error"]["details"]["max_bytes"] == BODY_BYTES_MAX
    await world.refused(400, "VALIDATION_ERROR", "invalid", *post, content=b"[]", headers=json_type)
    await world.refused(404, "NOT_FOUND", "no_route", "GET", "/v1/nothing")
    refusal = await world.refused(405, "METHOD_NOT_ALLOWED", "method_not_allowed", "DELETE", "/v1/markets")
    assert refusal.headers["allow"] == "GET, HEAD, OPTIONS" and "takes GET" in refusal.json()["error"]["message"]


async def fill(world, account):
    await world.sql("TRUNCATE exchange.asset, exchange.market, exchange.account, exchange.orders, exchange.trade,"
                    " exchange.posting, exchange.balance, exchange.candle, settlement.batch")  # fmt: skip
    rows = {
        "asset": [{"id": 0, "name": "USDC", "scale": 6, "settled": True}, {"id": 1, "name": "INK", "scale": 4, "settled": True}],  # noqa: E501
        "market": [{
            "id": 0, "name": "INK-USDC", "base_id": 1, "quote_id": 0, "tick": 1, "tick_decimals": 2, "lot": 1,
            "lot_decimals": 2, "min_size": 1, "max_size": 10_000, "max_price": 1_000_000, "taker_ppm": 5000,
            "maker_ppm": 3000, "entry_band_ppm": 50_000, "exec_band_ppm": 250_000, "k": 100, "u": 100,
            "phase": "continuous",
        }],
        "account": [{"id": 2, "name": account, "status": "active", "overdraft": "never"}, {"id": 3, "name": "user:x", "status": "active", "overdraft": "never"}],  # noqa: E501
        "orders": [{
            "order_id": n, "account_id": 2 if n != 4 else 3, "market_id": 0, "client_id": f"c{n}", "side": "buy",
            "type": "limit", "tif": "gtc", "price": 1240, "size": 300, "leaves": 100, "filled": 200, "fee": 124_000,
            "status": "open" if n % 2 else "filled", "accepted_at": NOW, "updated_at": NOW,
        } for n in range(1, 8)],
        "trade": [{
            "market_id": 0, "trade_id": n, "sequence": n, "event_index": 1, "traded_at": NOW, "price": 1240, "size": 50,
            "notional": 6_200_000, "aggressor": "buy", "maker_account_id": 3, "maker_order_id": 4, "maker_fee": 18_600,
            "taker_account_id": 2, "taker_order_id": 5, "taker_fee": 31_000,
        } for n in range(1, 6)] + [{
            "market_id": 0, "trade_id": 6, "sequence": 6, "event_index": 1, "traded_at": NOW, "price": 1240, "size": 50,
            "notional": 6_200_000, "aggressor": "none", "maker_account_id": 2, "maker_order_id": 6, "maker_fee": 18_600,
            "taker_account_id": 3, "taker_order_id": 4, "taker_fee": 18_600,
        }],
        "balance": [{"account_id": 2, "asset_id": 0, "available": 1_500_000, "held": 250_000, "sequence": 9}],
        "candle": [{
            "market_id": 0, "interval_seconds": 60, "opened_at": NOW, "open": 1240, "high": 1250, "low": 1230,
            "close": 1245, "volume": 250, "quote_volume": 31_000_000, "trade_count": 5,
        }],
    }  # fmt: skip
    for table, records in rows.items():
        columns = await world.sql(
            "SELECT column_name, data_type FROM information_schema.columns WHERE table_schema = 'exchange'"
            " AND table_name = $1 AND is_nullable = 'NO' AND column_default IS NULL", table,
        )  # fmt: skip
        empty = {column["column_name"]: "" if column["data_type"] == "text" else 0 for column in columns}
        for record in records:
            record = empty | record
            marks = ", ".join(f"${position}" for position in range(1, len(record) + 1))
            names = ", ".join(f'"{name}"' for name in record)
            await world.sql(f"INSERT INTO exchange.{table} ({names}) VALUES ({marks})", *record.values())
    for n in (1, 2, 3):
        await world.sql(
            "INSERT INTO settlement.batch (number, first_sequence, last_sequence, cut_at, status, digests)"
            " VALUES ($1, $2, $3, $4, 'committed', $5)", n, n * 10 - 9, n * 10, NOW, [f"digest{n}"],
        )  # fmt: skip


NOW = datetime(2026, 1, 2, 3, 4, tzinfo=UTC)


async def pages(world, path, headers):
    seen, cursor = [], None
    while True:
        more = f"limit=2&cursor={cursor}" if cursor else "limit=2"
        answer = await world.client.get(f"{path}{'&' if '?' in path else '?'}{more}", headers=headers)
        body = answer.json()
        assert answer.status_code == 200 and len(body["data"]) <= 2 and body["pagination"]["limit"] == 2, body
        seen += body["data"]
        cursor = body["pagination"]["next_cursor"]
        if cursor is None:
            return seen


async def test_reads_give_decimals_in_pages_without_gaps_and_only_ones_own(world):
    session, bearer = await world.sign_in()
    await fill(world, session["account"])
    (market,) = await world.data("GET", "/v1/markets")
    assert (market["entry_band_ppm"], market["exec_band_ppm"]) == (50_000, 250_000)
    assert (market["id"], market["token_id"], market["tick_size"], market["max_size"]) == (
        "INK-USDC",
        "INK",
        "0.01",
        "100",
    )
    orders = await pages(world, "/v1/orders", bearer)
    assert [order["order_id"] for order in orders] == ["7", "6", "5", "3", "2", "1"]
    assert {key: orders[0][key] for key in ("price", "size", "leaves", "filled", "fee", "status")} == {
        "price": "12.4", "size": "3", "leaves": "1", "filled": "2", "fee": "0.124", "status": "open",
    }  # fmt: skip
    live = await pages(world, "/v1/orders?status=live", bearer)
    assert [order["order_id"] for order in live] == ["7", "5", "3", "1"]
    assert (await world.data("GET", "/v1/orders/5", headers=bearer))["client_order_id"] == "c5"
    await world.refused(404, "NOT_FOUND", "unknown_order", "GET", "/v1/orders/4", headers=bearer)
    tape = await pages(world, "/v1/trades?token_id=INK", {})
    assert [trade["trade_id"] for trade in tape] == ["6", "5", "4", "3", "2", "1"] and "order_id" not in tape[0]
    own = await pages(world, "/v1/trades?own=true", bearer)
    assert len(own) == 6 and (own[1]["liquidity"], own[1]["fee"], own[1]["side"]) == ("taker", "0.031", "buy")
    assert (own[0]["liquidity"], own[0]["fee"], own[0]["side"]) == ("auction", "0.0186", "buy")
    balances = await world.data("GET", "/v1/users/me/balances", headers=bearer)
    assert balances == [{"asset": "USDC", "available": "1.5", "held": "0.25", "total": "1.75"}]
    candles = await world.data("GET", "/v1/markets/INK/candles")
    assert candles[0]["high"] == "12.5" and candles[0]["volume"] == "2.5"
    batches = await pages(world, "/v1/settlement/batches", {})
    assert [(batch["number"], batch["digests"]) for batch in batches] == [(n, [f"digest{n}"]) for n in (3, 2, 1)]
    assert (await world.data("GET", "/v1/settlement/batches/2"))["last_sequence"] == 20
    await world.refused(404, "NOT_FOUND", "unknown_batch", "GET", "/v1/settlement/batches/9")
    for trade in tape:
        settled = await world.data("GET", f"/v1/trades/{trade['trade_id']}/settlement?token_id=INK")
        in_one = [batch for batch in batches if batch["first_sequence"] <= trade["sequence"] <= batch["last_sequence"]]
        assert [settled["batch"]] == ([batch["number"] for batch in in_one] or [None])
        assert settled["batch"] == trade.get("batch") and settled["digests"] == trade.get("digests", [])
        if in_one:
            found = await world.data("GET", settled["batch_path"])
            assert (found["number"], found["status"]) == (settled["batch"], settled["status"])
    for number in ("99", "x", "٣"):
        await world.refused(404, "NOT_FOUND", "unknown_trade", "GET", f"/v1/trades/{number}/settlement?token_id=INK")
    await world.refused(400, "VALIDATION_ERROR", "missing", "GET", "/v1/trades/1/settlement")
    book = await world.data("GET", "/v1/orderbook/INK?depth=1")
    assert book == {"market": "INK-USDC", "sequence": 7, "bids": [["12.4", "3"]], "asks": []}
    await world.refused(404, "NOT_FOUND", "unknown_market", "GET", "/v1/orderbook/NOPE")
    await world.refused(401, "UNAUTHORIZED", "token_missing", "GET", "/v1/trades?own=true")
    for path, field in (
        ("/v1/orders?limit=0", "limit"), ("/v1/orders?limit=201", "limit"), ("/v1/orders?limit=x", "limit"),
        ("/v1/orders?status=gone", "status"), ("/v1/trades", "token_id"), ("/v1/markets/INK/candles?interval=7m", "interval"),  # noqa: E501
        ("/v1/orderbook/INK?depth=0", "depth"), ("/v1/orders?cursor=!!", "cursor"),
    ):  # fmt: skip
        answer = await world.client.get(path, headers=bearer)
        error = answer.json()["error"]
        assert (answer.status_code, error["code"], error["details"]["field"]) == (400, "VALIDATION_ERROR", field), path


@pytest.mark.parametrize("world", [{"embedded": True, "faucet": {"USDC": "10000", "INK": "500"}}], indirect=True)
async def test_faucet_gives_once_and_names_itself_simulated(world):
    _, bearer = await world.sign_in()
    given = await world.data("POST", "/v1/faucet", headers=bearer, json={})
    assert [(gift["asset"], gift["amount"], gift["duplicate"], gift["simulated"]) for gift in given] == [
        ("USDC", "10000", False, True), ("INK", "500", False, True),
    ]  # fmt: skip
    again = await world.data("POST", "/v1/faucet", headers=bearer, json={"assets": ["INK"]})
    assert again[0]["duplicate"] is True
    for command in [command for command in world.core.commands if command["op"] == "deposit"]:
        left = datetime.fromtimestamp(command["not_after"] / 10**9, UTC) - datetime.now(UTC)
        assert timedelta(0) < left <= timedelta(days=366), "the core keeps no ref of it for ever"
    wrong = {"assets": ["GOLD"]}
    await world.refused(400, "VALIDATION_ERROR", "unknown_asset", "POST", "/v1/faucet", headers=bearer, json=wrong)


async def test_faucet_is_refused_where_money_is_not_simulated(world):
    _, bearer = await world.sign_in()
    await world.refused(403, "FORBIDDEN", "faucet_disabled", "POST", "/v1/faucet", headers=bearer, json={})


async def test_a_caller_gets_proofs_of_its_own_balances_and_of_nobody_elses(world):
    session, bearer = await world.sign_in()
    path = "/v1/users/me/proof"
    await world.refused(401, "UNAUTHORIZED", "token_missing", "GET", path)
    world.proofs.close(1, user_other=5)
    await world.refused(404, "NOT_FOUND", "no_balance", "GET", path, headers=bearer)
    world.proofs.close(2, **{("user:" + session["account_id"]).replace(":", "_").replace("-", "_"): 40})
    told = await world.data("GET", path, headers=bearer)
    [proof] = msgspec.convert(told["proofs"], list[Proof])
    assert (proof.batch, proof.amount, proof.total) == (2, 40, 45)
    assert told["format"] == "byline proof 1" and proof.account == "user:" + session["account_id"]
    check_proof(proof, world.proofs.root, ["USDC"])
    await world.refused(409, "CONFLICT", "not_final", "GET", path + "?batch=3", headers=bearer)
    await world.refused(404, "NOT_FOUND", "no_balance", "GET", path + "?batch=1", headers=bearer)
    world.proofs.close(3)
    world.proofs.close(4)
    await world.refused(404, "NOT_FOUND", "unknown_batch", "GET", path + "?batch=2", headers=bearer)
    for bad in ("0", "-1", "x", "9" * 30, "1e3", "4.0", "+4"):
        assert (await world.client.get(path + "?batch=" + bad, headers=bearer)).status_code == 400


@pytest.mark.parametrize("world", [{"public_per_minute": 2}], indirect=True)
async def test_rate_limit_answers_with_its_headers_and_spares_the_probes(world):
    assert (await world.client.get("/v1/settlement/batches")).headers["ratelimit-remaining"] == "1"
    await world.data("GET", "/v1/settlement/batches")
    answer = await world.refused(429, "RATE_LIMITED", "rate_limited", "GET", "/v1/settlement/batches")
    assert answer.headers["ratelimit-limit"] == "2" and int(answer.headers["retry-after"]) >= 1
    await world.data("GET", "/health")


@pytest.mark.parametrize("world", [{"trading_per_minute": 3, "account_per_minute": 5}], indirect=True)
async def test_a_cancel_passes_when_the_limit_of_orders_is_spent(world):
    _, bearer = await world.sign_in()
    placed = [
        await world.data("POST", "/v1/orders", headers=bearer | {"idempotency-key": f"k{n}"}, json=LIMIT)
        for n in range(3)
    ]
    fourth = bearer | {"idempotency-key": "k3"}
    await world.refused(429, "RATE_LIMITED", "rate_limited", "POST", "/v1/orders", headers=fourth, json=LIMIT)
    for order in (*placed, *placed, *placed):  # as many as there are: what cancels costs nothing
        await world.data("DELETE", f"/v1/orders/{order['order_id']}", headers=bearer)
    for _ in range(5):
        await world.refused(404, "NOT_FOUND", "unknown_order", "DELETE", "/v1/orders/999", headers=bearer)
    await world.refused(429, "RATE_LIMITED", "rate_limited", "DELETE", "/v1/orders/999", headers=bearer)
    assert (await world.client.get("/v1/auth/session", headers=bearer)).status_code == 200  # a bucket of its own


async def test_without_a_database_orders_go_on_and_reads_say_so(world, tmp_path):
    _, bearer = await world.sign_in()
    session_key = world.kernel.signer
    async with opened(f"postgresql://nobody@/none?host={tmp_path}") as dark:
        dark.kernel.signer = session_key
        placed = await dark.data("POST", "/v1/orders", headers=bearer | {"idempotency-key": "k"}, json=LIMIT)
        again = await dark.data("POST", "/v1/orders", headers=bearer | {"idempotency-key": "k"}, json=LIMIT)
        assert again["order_id"] == placed["order_id"] and again["duplicate"] is True
        await dark.data("DELETE", f"/v1/orders/{placed['order_id']}", headers=bearer)
        for path in ("/v1/orders", "/v1/markets", "/v1/settlement/batches", "/v1/users/me", "/v1/users/me/balances"):
            await dark.refused(503, "SERVICE_UNAVAILABLE", "unavailable", "GET", path, headers=bearer)
        answer = await dark.refused(503, "SERVICE_UNAVAILABLE", "not_ready", "GET", "/ready")
        assert answer.json()["error"]["details"]["missing"] == ["database"]
        await dark.data("GET", "/health")


async def test_ready_names_a_core_that_is_connected_and_hangs(world, monkeypatch):
    """Stopped by SIGSTOP, its socket stays open: a load balancer went on sending orders to it."""
    said = {"written_at": time.time()}
    monkeypatch.setattr(world.kernel.status, "_facts", lambda: said)
    await world.data("GET", "/ready")
    said["written_at"] -= 35
    answer = await world.refused(503, "SERVICE_UNAVAILABLE", "not_ready", "GET", "/ready")
    assert answer.json()["error"]["details"]["missing"] == ["core"]
    assert (await world.data("GET", "/v1/status"))["components"]["core"] == "down"


async def test_ready_names_a_core_that_is_away_and_sign_in_leaves_no_session(world):
    await world.data("GET", "/ready")
    world.core.failure = Unavailable("the core is away")
    answer = await world.refused(503, "SERVICE_UNAVAILABLE", "not_ready", "GET", "/ready")
    assert answer.json()["error"]["details"]["missing"] == ["core"]
    wallet = Wallet(0)
    nonce = await world.data("POST", "/v1/auth/nonce", json={"address": wallet.address})
    body = {"address": wallet.address, "nonce": nonce["nonce"], "signature": wallet.sign(nonce["message"].encode())}
    await world.refused(503, "SERVICE_UNAVAILABLE", "unavailable", "POST", "/v1/auth/verify", json=body)
    found = await world.sql("SELECT 1 FROM identity.wallet WHERE address = $1", bytes.fromhex(wallet.address[2:]))
    assert found == []


async def test_uvicorn_serves_it_with_metrics_and_the_terminal(api_dsn, tmp_path):
    (tmp_path / "index.html").write_text("<title>terminal</title>")
    listener = socket.create_server(("127.0.0.1", 0))
    app = create_app(settings(api_dsn, web_folder=tmp_path), StandInCore(), StandInBook(), StandInStatus(), Proofs())
    uvicorn_server = uvicorn.Server(uvicorn.Config(app, http="httptools", log_level="warning", lifespan="on"))
    task = asyncio.create_task(uvicorn_server.serve(sockets=[listener]))
    try:
        while not uvicorn_server.started:
            await asyncio.sleep(0.01)
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        async with httpx.AsyncClient(base_url=url) as client:
            assert (await client.get("/ready")).status_code == 200
            assert "terminal" in (await client.get("/")).text
            assert (await client.get("/v1/openapi.json")).json()["openapi"].startswith("3.1")
            text = (await client.get("/metrics")).text
            assert "byline_core_sequence 42.0" in text and 'byline_process_up{process="core"} 1.0' in text
            assert 'http_requests_total{method="GET",route="/ready",status="200"} 1.0' in text
    finally:
        uvicorn_server.should_exit = True
        await task


def test_openapi_document_names_every_route_and_its_references_resolve():
    document = openapi_document()
    assert document["openapi"].startswith("3.1")
    named = {f"{method} {path}" for path, item in document["paths"].items() for method in item}
    assert named >= ROUTES  # the creators' contexts have more, and tests of their own in platform_api/

    def references(node):
        if isinstance(node, dict):
            yield from [node["$ref"]] if "$ref" in node else []
            for child in node.values():
                yield from references(child)
        elif isinstance(node, list):
            for child in node:
                yield from references(child)

    found = set(references(document))
    assert found and all(ref.rsplit("/", 1)[1] in document["components"]["schemas"] for ref in found)
    ids = [operation["operationId"] for item in document["paths"].values() for operation in item.values()]
    assert len(set(ids)) == len(ids)
    failure = document["paths"]["/v1/orders"]["post"]["responses"]["422"]["description"]
    assert failure == "VERIFICATION_FAILED, ORDER_REJECTED"
