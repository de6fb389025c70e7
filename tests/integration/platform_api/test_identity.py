"""People over HTTP and a real PostgreSQL: wallets of two chains, cookies, devices, e-mail, roles."""

import asyncio
import base64
import json
import re
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest

from engine.core import Core
from engine.limits import CoreLimits
from engine.messages.errors import Unavailable
from persistence.stores.postgres.projector import Projector
from platform_api.identity.service import IdentityService
from platform_api.identity.suspensions import TellCore
from platform_api.security import ACCESS_COOKIE, REFRESH_COOKIE
from tests.support.api import opened
from tests.support.real_core import RealCore
from tests.support.sales import Shop
from tests.support.waiting import HANG_S
from tests.unit.platform_api.test_ethereum_signature import EthereumWallet
from tests.unit.platform_api.test_sui_signature import Wallet

VERIFY = ("POST", "/v1/auth/verify")


async def test_ethereum_wallet_signs_in_with_eip_4361_and_is_settled_in_custody(world):
    wallet = EthereumWallet()
    nonce = await world.data("POST", "/v1/auth/nonce", json={"address": wallet.address.lower()})
    lines = nonce["message"].split("\n")
    assert lines[:2] == ["127.0.0.1:7400 wants you to sign in with your Ethereum account:", wallet.address]
    fields = dict(line.split(": ", 1) for line in lines[5:])
    assert (fields["Version"], fields["Chain ID"], fields["Nonce"]) == ("1", "1", nonce["nonce"])
    body = {"address": wallet.address, "nonce": nonce["nonce"], "signature": wallet.sign(nonce["message"].encode())}
    session = await world.data(*VERIFY, json=body)
    assert session["address"] == wallet.address
    assert world.core.commands == [{"op": "account", "account": session["account"]}]  # no row: custody
    await world.refused(401, "UNAUTHORIZED", "nonce_used", *VERIFY, json=body)
    bearer = {"authorization": "Bearer " + session["access_token"]}
    ask = ("POST", "/v1/withdrawals")
    body = {"asset": "USDC", "amount": "1"}
    keyed = bearer | {"idempotency-key": uuid4().hex}
    await world.refused(403, "FORBIDDEN", "sui_wallet_needed", *ask, headers=keyed, json=body)
    bad = {"address": wallet.address.swapcase().replace("0X", "0x"), "purpose": "sign_in"}
    await world.refused(400, "VALIDATION_ERROR", "bad_address", "POST", "/v1/auth/nonce", json=bad)


@pytest.mark.parametrize("world", [{"public_url": "https://Byline.example:8443"}], indirect=True)
async def test_what_is_signed_and_mailed_names_the_public_address(world):
    session, bearer = await world.sign_in()
    nonce = await world.data("POST", "/v1/auth/nonce", json={"address": Wallet(0).address})
    assert nonce["message"].startswith("byline.example:8443 wants you to sign in with your Sui account:\n")
    assert "\nURI: https://Byline.example:8443\n" in nonce["message"] and "127.0.0.1" not in nonce["message"]
    claims = session["access_token"].split(".")[1]
    claims = json.loads(base64.urlsafe_b64decode(claims + "=" * (-len(claims) % 4)))
    assert (claims["iss"], claims["aud"]) == ("byline.example:8443",) * 2
    await world.data("POST", "/v1/users/me/email", headers=bearer, json={"email": f"{uuid4().hex}@example.org"})
    await world.settle()
    text = world.mail.letters[-1].text
    assert "to an account at byline.example:8443." in text
    assert "POST https://Byline.example:8443/v1/auth/email/verify" in text and "http://" not in text


@pytest.mark.parametrize(
    "world", [{"embedded": True, "test_payments": True, "public_per_minute": 1, "webhooks_per_minute": 3}],
    indirect=True,
)  # fmt: skip
async def test_events_of_payment_providers_have_a_limit_of_their_own(world):
    assert [(await world.client.get("/v1/time")).status_code for _ in range(2)] == [200, 429]
    sent = [await world.client.post("/v1/webhooks/payments/test", json={}) for _ in range(4)]
    assert [answer.status_code == 429 for answer in sent] == [False, False, False, True]


async def test_f67_proof_of_one_purpose_or_account_is_worth_nothing_for_another(world):
    wallet = Wallet(0)
    _, bearer = await world.sign_in(wallet)
    _, other = await world.sign_in()
    await world.refused(401, "UNAUTHORIZED", "token_missing", "POST", "/v1/auth/nonce",
                        json={"address": wallet.address, "purpose": "step_up"})  # fmt: skip
    step_up = ("POST", "/v1/auth/step-up")
    sign_in = await world.proof(wallet, "sign_in")
    await world.refused(401, "UNAUTHORIZED", "wrong_purpose", *step_up, headers=bearer, json=sign_in)
    proof = await world.proof(wallet, "step_up", bearer)
    await world.refused(401, "UNAUTHORIZED", "wrong_purpose", *VERIFY, json=proof)
    proof = await world.proof(wallet, "step_up", bearer)
    await world.refused(401, "UNAUTHORIZED", "wrong_purpose", *step_up, headers=other, json=proof)
    foreign = await world.proof(Wallet(0), "step_up", bearer)
    await world.refused(401, "UNAUTHORIZED", "other_wallet", *step_up, headers=bearer, json=foreign)
    await world.data(*step_up, headers=bearer, json=await world.proof(wallet, "step_up", bearer))


async def test_wallets_are_linked_with_two_proofs_and_the_core_learns_the_row(world):
    first, second, ethereum = Wallet(0), Wallet(1), EthereumWallet()
    session, bearer = await world.sign_in(first)
    link = ("POST", "/v1/users/me/wallets")
    await world.refused(403, "FORBIDDEN", "step_up_required", *link, headers=bearer,
                        json=await world.proof(ethereum, "link_wallet", bearer))  # fmt: skip
    await world.step_up(first, bearer)
    await world.data(*link, headers=bearer, json=await world.proof(ethereum, "link_wallet", bearer))
    await world.refused(403, "FORBIDDEN", "step_up_required", *link, headers=bearer,
                        json=await world.proof(second, "link_wallet", bearer))  # fmt: skip
    await world.step_up(ethereum, bearer)
    linked = await world.data(*link, headers=bearer, json=await world.proof(second, "link_wallet", bearer))
    assert (linked["primary"], linked["scheme"]) == (False, "secp256k1")
    found = await world.data("GET", "/v1/users/me/wallets", headers=bearer)
    assert [wallet["address"] for wallet in found] == [first.address, ethereum.address, second.address]
    signed_in, _ = await world.sign_in(second)  # any linked wallet opens the account, and its row stays the first one
    assert signed_in["account_id"] == session["account_id"] and world.core.commands[-1]["row"] == first.address

    lonely = Wallet(0)
    stranger, foreign = await world.sign_in(lonely)
    await world.step_up(lonely, foreign)
    taken = await world.proof(second, "link_wallet", foreign)
    await world.refused(409, "CONFLICT", "wallet_taken", *link, headers=foreign, json=taken)
    path = f"/v1/users/me/wallets/{found[0]['id']}"
    await world.refused(404, "NOT_FOUND", "unknown_wallet", "DELETE", path, headers=foreign)
    (last,) = await world.data("GET", "/v1/users/me/wallets", headers=foreign)
    own = f"/v1/users/me/wallets/{last['id']}"
    await world.refused(409, "CONFLICT", "last_wallet", "DELETE", own, headers=foreign)

    proved = "UPDATE identity.session SET proved_at = now() - $2::interval WHERE account_id = $1::text::uuid"
    await world.sql(proved, session["account_id"], timedelta(minutes=11))
    await world.refused(403, "FORBIDDEN", "step_up_required", "DELETE", path, headers=bearer)
    await world.data("POST", "/v1/auth/step-up", headers=bearer, json=await world.proof(ethereum, "step_up", bearer))

    world.core.failure = Unavailable("the core is away")
    await world.refused(503, "SERVICE_UNAVAILABLE", "unavailable", "DELETE", path, headers=bearer)
    world.core.failure = None
    assert len(await world.data("GET", "/v1/users/me/wallets", headers=bearer)) == 3  # nothing changed
    await world.data("DELETE", path, headers=bearer)
    assert world.core.commands[-1] == {"op": "account", "account": session["account"], "row": second.address}
    # The wallet's own sessions are over, and it opens a new account from now on.
    await world.refused(401, "UNAUTHORIZED", "session_revoked", "GET", "/v1/users/me", headers=bearer)
    again, _ = await world.sign_in(first)
    assert again["created"] and again["account_id"] not in (session["account_id"], stranger["account_id"])
    _, bearer = await world.sign_in(second)
    remaining = await world.data("GET", "/v1/users/me/wallets", headers=bearer)
    assert [(wallet["address"], wallet["primary"]) for wallet in remaining] == [
        (second.address, True), (ethereum.address, False),
    ]  # fmt: skip
    path = f"/v1/users/me/wallets/{remaining[0]['id']}"
    await world.refused(409, "CONFLICT", "settlement_wallet", "DELETE", path, headers=bearer)


async def test_web_session_lives_in_cookies_and_changes_need_its_csrf_token(world):
    wallet = Wallet(0)
    body = await world.proof(wallet, "sign_in") | {"delivery": "cookie", "device": {"kind": "web", "name": "Laptop"}}
    answer = await world.client.post("/v1/auth/verify", json=body)
    session = answer.json()["data"]
    assert session["access_token"] is None and session["refresh_token"] is None and session["token_type"] == "Cookie"
    headers = answer.headers.get_list("set-cookie")
    assert len(headers) == 2
    for header in headers:
        attributes = {part.strip().lower() for part in header.split(";")[1:]}
        assert {"httponly", "secure", "path=/", "samesite=lax"} <= attributes and "domain" not in header.lower()
        assert header.startswith("__Host-")
    jar = dict(re.match(r"([^=]+)=([^;]+)", header).groups() for header in headers)
    world.client.cookies.clear()  # over plain HTTP a client keeps no Secure cookies: they are sent by hand here
    cookie = {"cookie": "; ".join(f"{name}={value}" for name, value in jar.items())}
    csrf = {"x-csrf-token": session["csrf_token"]}
    assert (await world.data("GET", "/v1/users/me", headers=cookie))["wallets"] == [wallet.address]
    patch = ("PATCH", "/v1/users/me")
    await world.refused(403, "FORBIDDEN", "csrf", *patch, headers=cookie, json={"bio": "x"})
    wrong = cookie | {"x-csrf-token": "0" * 64}
    await world.refused(403, "FORBIDDEN", "csrf", *patch, headers=wrong, json={"bio": "x"})
    across = cookie | csrf | {"sec-fetch-site": "cross-site"}
    await world.refused(403, "FORBIDDEN", "csrf", *patch, headers=across, json={"bio": "x"})
    assert (await world.data(*patch, headers=cookie | csrf, json={"bio": "x"}))["bio"] == "x"
    current = await world.data("GET", "/v1/auth/session", headers=cookie)
    assert current["csrf_token"] == session["csrf_token"] and current["roles"] == ["member"]

    refresh = ("POST", "/v1/auth/refresh")
    await world.refused(401, "UNAUTHORIZED", "token_missing", *refresh, json={})
    await world.refused(403, "FORBIDDEN", "csrf", *refresh, headers=cookie, json={})
    answer = await world.client.request(*refresh, headers=cookie | csrf, json={})
    assert answer.json()["data"]["access_token"] is None and len(answer.headers.get_list("set-cookie")) == 2
    await world.refused(401, "UNAUTHORIZED", "refresh_reused", *refresh, headers=cookie | csrf, json={})
    await world.refused(401, "UNAUTHORIZED", "session_revoked", "GET", "/v1/users/me", headers=cookie)

    body = await world.proof(wallet, "sign_in") | {"delivery": "cookie"}
    answer = await world.client.post("/v1/auth/verify", json=body)
    jar = dict(re.match(r"([^=]+)=([^;]+)", header).groups() for header in answer.headers.get_list("set-cookie"))
    world.client.cookies.clear()
    cookie = {"cookie": f"{ACCESS_COOKIE}={jar[ACCESS_COOKIE]}"}
    csrf = {"x-csrf-token": answer.json()["data"]["csrf_token"]}
    answer = await world.client.post("/v1/auth/logout", headers=cookie | csrf)
    ended = answer.headers.get_list("set-cookie")
    assert {header.split("=")[0] for header in ended} == {ACCESS_COOKIE, REFRESH_COOKIE}
    assert all("max-age=0" in header.lower() for header in ended)
    await world.refused(401, "UNAUTHORIZED", "session_revoked", "GET", "/v1/users/me", headers=cookie)


async def test_sessions_and_devices_are_seen_and_ended_by_their_owner_alone(world):
    wallet = Wallet(0)
    sessions = []
    for name in ("Phone", "Phone", "Tablet"):
        body = await world.proof(wallet, "sign_in") | {"device": {"kind": "mobile", "name": name}}
        sessions.append(await world.data(*VERIFY, json=body))
    bearers = [{"authorization": "Bearer " + session["access_token"]} for session in sessions]
    _, other = await world.sign_in()
    devices = await world.data("GET", "/v1/users/me/devices", headers=bearers[0])
    assert {(device["name"], device["sessions"]) for device in devices} == {("Phone", 2), ("Tablet", 1)}
    listed = await world.data("GET", "/v1/users/me/sessions", headers=bearers[2])
    assert [entry["id"] for entry in listed] == [session["session_id"] for session in reversed(sessions)]
    assert [entry["current"] for entry in listed] == [True, False, False]
    answer = (await world.client.get("/v1/users/me/sessions?limit=2", headers=bearers[0])).json()
    rest = f"/v1/users/me/sessions?limit=2&cursor={answer['pagination']['next_cursor']}"
    assert [e["id"] for e in await world.data("GET", rest, headers=bearers[0])] == [sessions[0]["session_id"]]

    path = f"/v1/users/me/sessions/{sessions[0]['session_id']}"
    await world.refused(404, "NOT_FOUND", "unknown_session", "DELETE", path, headers=other)
    await world.data("DELETE", path, headers=bearers[2])
    await world.refused(401, "UNAUTHORIZED", "session_revoked", "GET", "/v1/users/me", headers=bearers[0])
    await world.refused(404, "NOT_FOUND", "unknown_session", "DELETE", path, headers=bearers[2])
    phone = next(device["id"] for device in devices if device["name"] == "Phone")
    path = f"/v1/users/me/devices/{phone}"
    await world.refused(404, "NOT_FOUND", "unknown_device", "DELETE", path, headers=other)
    await world.data("DELETE", path, headers=bearers[2])
    await world.refused(401, "UNAUTHORIZED", "session_revoked", "GET", "/v1/users/me", headers=bearers[1])
    token = {"refresh_token": sessions[1]["refresh_token"]}
    await world.refused(401, "UNAUTHORIZED", "session_revoked", "POST", "/v1/auth/refresh", json=token)
    await world.data("GET", "/v1/users/me", headers=bearers[2])


async def test_address_counts_once_its_letters_token_came_back(world):
    session, bearer = await world.sign_in()
    ask, verify = ("POST", "/v1/users/me/email"), ("POST", "/v1/users/me/email/verify")
    address = f"Ink.{uuid4().hex[:8]}@example.org"
    pending = await world.data(*ask, headers=bearer, json={"email": address})
    assert pending["provider"] == "a list"
    world.mail.failures = [Unavailable("the provider is away"), Unavailable("still")]
    await world.settle()
    (letter,) = world.mail.letters
    token = re.search(r"^    (\S+)$", letter.text, re.MULTILINE).group(1)
    assert letter.to == address
    assert (await world.data("GET", "/v1/users/me", headers=bearer))["email"] is None
    _, other = await world.sign_in()
    invalid = (422, "VERIFICATION_FAILED", "token_invalid")
    await world.refused(*invalid, *verify, headers=other, json={"token": token})
    await world.refused(*invalid, *verify, headers=bearer, json={"token": "x" * 43})
    await world.data(*verify, headers=bearer, json={"token": token})
    await world.refused(*invalid, *verify, headers=bearer, json={"token": token})
    me = await world.data("GET", "/v1/users/me", headers=bearer)
    assert me["email"] == address and me["email_verified_at"]

    # Another account may ask for the same address, is answered alike, and cannot have it.
    pending = await world.data(*ask, headers=other, json={"email": address.upper()})
    await world.settle()
    token = re.search(r"^    (\S+)$", world.mail.letters[-1].text, re.MULTILINE).group(1)
    await world.refused(409, "CONFLICT", "email_taken", "POST", "/v1/auth/email/verify", json={"token": token})

    # At rest it is sealed, in the queue and in the audit trail it is not at all.
    (row,) = await world.sql("SELECT email_sealed FROM identity.account WHERE id = $1", UUID(session["account_id"]))
    assert address.encode() not in bytes(row["email_sealed"])
    for table in ("jobs.pgqueuer", "jobs.pgqueuer_log", "kernel.audit_entry", "kernel.outbox"):
        for row in await world.sql(f"SELECT t::text AS text FROM {table} t"):
            assert address.lower() not in row["text"].lower() and token not in row["text"], table

    for email in ("", "ink", "a@b", "a@b.c\r\nBcc: x@y.z", "a b@c.de", "<a@b.cd>", "a" * 250 + "@b.cd"):
        await world.refused(400, "VALIDATION_ERROR", "invalid", *ask, headers=bearer, json={"email": email})
    for _ in range(4):
        await world.data(*ask, headers=bearer, json={"email": address})
    await world.refused(429, "RATE_LIMITED", "too_many_letters", *ask, headers=bearer, json={"email": address})


async def test_letter_that_is_too_old_or_written_twice_opens_nothing_by_its_older_token(world):
    _, bearer = await world.sign_in()
    await world.data("POST", "/v1/users/me/email", headers=bearer, json={"email": f"{uuid4().hex}@example.org"})
    await world.settle()
    token = re.search(r"^    (\S+)$", world.mail.letters[-1].text, re.MULTILINE).group(1)
    await world.sql("UPDATE identity.email_token SET expires_at = now() - interval '1 second'")
    await world.refused(422, "VERIFICATION_FAILED", "token_invalid", "POST", "/v1/auth/email/verify",
                        json={"token": token})  # fmt: skip


async def test_profile_is_public_without_what_is_private(world):
    session, bearer = await world.sign_in()
    changes = {"display_name": "Ink", "avatar_url": "https://images.example.org/a.png",
               "preferences": {"language": "en-GB", "notifications": {"license.approved": False}}}  # fmt: skip
    me = await world.data("PATCH", "/v1/users/me", headers=bearer, json=changes)
    me = await world.data("PATCH", "/v1/users/me", headers=bearer, json={"preferences": {"genres": ["verse"]}})
    assert me["preferences"] == changes["preferences"] | {"genres": ["verse"]}
    answer = await world.client.get("/v1/users/me", headers=bearer)
    assert answer.headers["etag"] == f'"{me["version"]}"'
    shown = await world.data("GET", f"/v1/users/{session['account_id']}")
    assert shown["display_name"] == "Ink" and set(shown) == {
        "id", "username", "display_name", "bio", "avatar_url", "cover_url", "created_at",
    }  # fmt: skip
    for bad in ({"avatar_url": "javascript:alert(1)"}, {"preferences": {"colour": "red"}},
                {"preferences": {"language": "../../etc"}}, {"preferences": {"genres": ["x"] * 51}},
                {"display_name": "Ink\x1b[2J"}, {"display_name": "a\nb"}, {"bio": "\u202eknI"}):  # fmt: skip
        await world.refused(400, "VALIDATION_ERROR", "invalid", "PATCH", "/v1/users/me", headers=bearer, json=bad)
    await world.sql("UPDATE identity.account SET status = 'suspended' WHERE id = $1", UUID(session["account_id"]))
    for id_ in (session["account_id"], str(uuid4()), "me2", "%00"):
        await world.refused(404, "NOT_FOUND", "unknown_user", "GET", f"/v1/users/{id_}")


async def test_who_keeps_the_platform_sees_how_far_projections_are(world, monkeypatch):
    session, bearer = await world.sign_in()
    look = ("GET", "/v1/admin/projections")
    await world.refused(403, "FORBIDDEN", "permission_missing", *look, headers=bearer)
    await world.grant(session["account_id"], "operator")  # either of two permissions is enough
    await world.sql(
        "INSERT INTO exchange.projection (name, sequence, journal) VALUES ('exchange', 7, '') "
        "ON CONFLICT (name) DO UPDATE SET sequence = 7"
    )
    for core, lag in (({}, None), ({"released_sequence": 12}, 5), ({"released_sequence": 7}, 0)):
        monkeypatch.setattr(world.kernel.status, "read", lambda core=core: {"core": core})
        (found,) = await world.data(*look, headers=bearer)
        assert (found["name"], found["sequence"], found["lag"]) == ("exchange", 7, lag)


async def test_roles_open_routes_and_their_loss_closes_them(world):
    session, bearer = await world.sign_in()
    account = session["account_id"]
    logs = ("GET", "/v1/admin/audit-logs")
    await world.refused(401, "UNAUTHORIZED", "token_missing", *logs)
    await world.refused(403, "FORBIDDEN", "permission_missing", *logs, headers=bearer)
    await world.grant(account, "admin", ["users"])
    await world.refused(403, "FORBIDDEN", "permission_missing", *logs, headers=bearer)
    await world.grant(account, "admin")  # wider: the older grant is replaced, so tokens from before it are refused
    await world.refused(401, "UNAUTHORIZED", "token_stale", *logs, headers=bearer)
    token = {"refresh_token": session["refresh_token"]}
    pair = await world.data("POST", "/v1/auth/refresh", json=token)
    bearer = {"authorization": "Bearer " + pair["access_token"]}
    entries = await world.data(*logs, headers=bearer)
    assert entries[0]["action"] == "user.role_granted" and entries[0]["resource_id"] == account
    assert entries[0]["old_values"] == {"roles": {"admin": ["users"]}}
    assert entries[0]["new_values"] == {"roles": {"admin": []}}
    shown = await world.data("GET", "/v1/auth/session", headers=bearer)
    assert shown["roles"] == ["admin", "member"] and "audit_logs" in shown["permissions"]
    roles = world.kernel.service(IdentityService).roles
    async with world.kernel.database.transaction() as db:
        assert await roles.revoke(db, UUID(account), "admin", actor=None)
    await world.refused(401, "UNAUTHORIZED", "token_stale", *logs, headers=bearer)


async def test_nobody_gives_themselves_a_role_and_super_admin_comes_from_the_command_line(world):
    session, _ = await world.sign_in()
    account, roles = UUID(session["account_id"]), world.kernel.service(IdentityService).roles
    for role, actor, reason in (
        ("admin", account, "own_account"), ("super_admin", None, "command_line_only"), ("member", None, "invalid"),
        ("king", None, "invalid"),
    ):  # fmt: skip
        with pytest.raises(Exception) as refused:
            async with world.kernel.database.transaction() as db:
                await roles.grant(db, account, role, actor=actor)
        assert refused.value.reason == reason
    over = datetime.now(UTC) - timedelta(seconds=1)
    async with world.kernel.database.transaction() as db:
        await roles.grant(db, account, "operator", actor=None, expires_at=over)
    assert await world.sql("SELECT 1 FROM identity.role_grant WHERE account_id = $1", account)
    _, bearer = await world.sign_in()
    assert "manage_markets" not in (await world.data("GET", "/v1/auth/session", headers=bearer))["permissions"]


@pytest.mark.parametrize("world", [{"auth_per_minute": 4}], indirect=True)
async def test_f71_tries_are_limited_for_each_wallet_and_each_address(world):
    # Nonces and bad proofs, which anybody may ask for and send, count against whoever does, not against the wallet.
    wallet = Wallet(0)
    ask = ("POST", "/v1/auth/nonce")
    for _ in range(2):
        bad = await world.proof(wallet, "sign_in") | {"signature": Wallet(0).sign(b"something else")}
        await world.refused(401, "UNAUTHORIZED", "bad_signature", *VERIFY, json=bad)
    answer = await world.refused(429, "RATE_LIMITED", "rate_limited", *ask, json={"address": wallet.address})
    assert int(answer.headers["retry-after"]) >= 1
    said = []
    for number in range(5):  # its owner, from wherever
        async with world.from_address(f"192.0.2.{number}") as world.client:
            proof = await world.proof(wallet, "sign_in")
            said.append((await world.client.post("/v1/auth/verify", json=proof)).status_code)
    assert said == [200, 200, 200, 200, 429]


@pytest.mark.parametrize("world", [{"auth_per_minute": 5}], indirect=True)
async def test_the_addresses_of_one_network_have_one_limit(world):
    said = []
    for number in range(6):
        async with world.from_address(f"2001:db8:1:2::{number + 1:x}") as client:
            said.append((await client.post("/v1/auth/nonce", json={"address": Wallet(0).address})).status_code)
    assert said == [200] * 5 + [429]


async def test_strangers_who_sign_in_end_no_sale(api_dsn):
    """Wallets cost nothing, and the core forgets no account: the last part of its table is not for new people."""
    core = RealCore()
    core.core = Core(CoreLimits(accounts=40))
    core.send(op="asset", asset="USDC", scale=6, settled=True)
    async with opened(api_dsn, core=core, embedded=True, test_payments=True, royalty_hold_days=0) as world:
        await world.sql("INSERT INTO exchange.asset VALUES (900, 'USDC', 6, true) ON CONFLICT DO NOTHING")
        shop = Shop(world)
        _, _, _, _, offer = await shop.seller("5")
        known = Wallet(0)
        await world.sign_in(known)
        _, bearer = await shop.buyer("20")
        people = "SELECT count(*) FROM identity.account"
        while core.facts()["accounts"] < 36:
            await world.sign_in(Wallet(0))
        before = await world.sql(people)
        for _ in range(5):
            proof = await world.proof(Wallet(0), "sign_in")
            await world.refused(503, "SERVICE_UNAVAILABLE", "no_room_for_accounts", *VERIFY, json=proof)
        assert await world.sql(people) == before and core.facts()["accounts"] == 36
        await world.sign_in(known)  # who is here comes in
        bought = await shop.buy(bearer, offer, "balance")
        await shop.finish()
        assert (await shop.get(f"/v1/purchases/{bought['id']}", bearer))["status"] == "completed"


@pytest.mark.parametrize("world", [{"pool_connections_max": 1, "core_connections_max": 1}], indirect=True)
async def test_reads_do_not_wait_for_a_core_that_stalls(world):
    """Sign-ins hold a connection and a lock until the core has answered: none of those that reads have."""
    submit, goes_on, asked = world.core.submit, asyncio.Event(), []
    world.kernel.database._query_seconds_max = HANG_S  # a slow machine is not a database that is away

    async def stalled(command):
        asked.append(command)
        await goes_on.wait()
        return await submit(command)

    bodies = [await world.proof(Wallet(0), "sign_in") for _ in range(12)]
    world.core.submit = stalled
    signing = [asyncio.create_task(world.client.post("/v1/auth/verify", json=body)) for body in bodies]
    while not asked:
        await asyncio.sleep(0)
    answers = await asyncio.gather(*(world.client.get("/v1/works") for _ in range(6)))
    assert [answer.status_code for answer in answers] == [200] * 6 and not any(task.done() for task in signing)
    goes_on.set()
    assert [answer.status_code for answer in await asyncio.gather(*signing)] == [200] * 12


async def test_who_is_here_signs_in_without_the_core_and_waits_for_no_newcomer(api_dsn):
    """The core stalls. Newcomers wait for it, one another, and nobody else for them: neither those whose account the
    projection shows, nor the job that tells of a suspension."""
    core, goes_on, asked = RealCore(), asyncio.Event(), []
    async with opened(api_dsn, core=core, core_connections_max=1) as world:
        await world.sql(
            "TRUNCATE exchange.projection, exchange.asset, exchange.market, exchange.account, exchange.balance,"
            " exchange.posting CASCADE"
        )
        world.kernel.database._query_seconds_max = HANG_S
        people = [Wallet(0) for _ in range(12)]
        ids = [(await world.sign_in(wallet))[0]["account_id"] for wallet in people]
        projector = Projector(core, world.dsn, journal=uuid4().bytes)
        while await projector.step():
            pass
        await projector.close()
        submit = core.submit

        async def stalled(command):
            asked.append(command)
            await goes_on.wait()
            return await submit(command)

        bodies = [await world.proof(Wallet(0), "sign_in") for _ in range(3)]
        core.submit = stalled
        signing = [asyncio.create_task(world.client.post("/v1/auth/verify", json=body)) for body in bodies]
        while not asked:
            await asyncio.sleep(0)
        for wallet in people:
            assert not (await world.sign_in(wallet))[0]["created"]
        suspensions = world.kernel.service(IdentityService).suspensions
        telling = asyncio.create_task(suspensions._tell_core(TellCore(UUID(ids[0]))))
        while len(asked) == 1:
            await asyncio.sleep(0)
        assert asked[1:] == [{"op": "account", "account": f"user:{ids[0]}", "status": "active"}]
        assert not any(task.done() for task in signing)
        goes_on.set()
        await telling
        assert [answer.status_code for answer in await asyncio.gather(*signing)] == [200] * 3
        # Settled in another row than the primary wallet, or in none, or gone with a core begun anew: told again.
        changes = ("UPDATE exchange.account SET row = decode(repeat('07', 32), 'hex') WHERE name = $1",
                   "UPDATE exchange.account SET row = NULL WHERE name = $1",
                   "DELETE FROM exchange.account WHERE name = $1")  # fmt: skip
        for change, wallet, id_ in zip(changes, people, ids, strict=False):
            await world.sql(change, f"user:{id_}")
            await world.sign_in(wallet)
            assert asked[-1] == {"op": "account", "account": f"user:{id_}", "row": wallet.address}
