"""What a thief with a fresh session, or even with a wallet linked by a trick, can do with an account's money: wait."""

import asyncio
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest

from byline import money_tools
from byline.people import ban_account
from byline.settings import load_settings
from engine.messages.errors import Refused, SettingsInvalid
from tests.support.sales import shop_over
from tests.support.waiting import HANG_S
from tests.unit.platform_api.test_sui_signature import Wallet

LINK = ("POST", "/v1/users/me/wallets")
DAY = timedelta(days=1)


async def test_fresh_session_links_no_wallet_and_a_linked_one_waits_a_day_for_money(api_dsn):
    async with shop_over(api_dsn) as shop:
        world, own, thief = shop.world, Wallet(0), Wallet(0)
        session, bearer = await world.sign_in(own)
        shop.core.send(op="deposit", account=session["account"], asset="USDC", amount="9", ref=f"dep:{uuid4().hex}")

        async def ask(bearer, address, amount="3"):
            body = {"asset": "USDC", "amount": amount, "address": address}
            return await shop.post("/v1/withdrawals", bearer, body)

        async def signed(wallet, document):
            return {"signature": wallet.sign(document["message"].encode())}

        await world.refused(403, "FORBIDDEN", "step_up_required", *LINK, headers=bearer,
                            json=await world.proof(thief, "link_wallet", bearer))  # fmt: skip
        await world.step_up(own, bearer)
        await world.data(*LINK, headers=bearer, json=await world.proof(thief, "link_wallet", bearer))
        again, stolen = await world.sign_in(thief)
        assert again["account_id"] == session["account_id"]

        first = await ask(stolen, thief.address)
        wait = datetime.fromisoformat(first["not_before"]) - datetime.now(UTC)
        assert timedelta(hours=23) < wait <= DAY
        confirm = f"/v1/withdrawals/{first['id']}/confirm"
        await shop.refused(403, "FORBIDDEN", "wallet_new", confirm, stolen, await signed(thief, first))
        to_owner = await ask(stolen, own.address)
        await shop.refused(403, "FORBIDDEN", "wallet_new", f"/v1/withdrawals/{to_owner['id']}/confirm", stolen,
                           await signed(thief, to_owner))  # fmt: skip
        # The wallet that opened the account waits for nothing.
        mine = await ask(bearer, own.address)
        assert datetime.fromisoformat(mine["not_before"]) <= datetime.now(UTC)
        done = await shop.post(f"/v1/withdrawals/{mine['id']}/confirm", bearer, await signed(own, mine))
        assert (done["status"], done["waiting"]) == ("confirmed", "settlement_stopped")

        aged = "UPDATE identity.wallet SET linked_at = linked_at - interval '1 day' WHERE address = $1"
        await world.sql(aged, bytes.fromhex(thief.address[2:]))
        confirmed = await world.data("POST", confirm, headers=stolen, json=await signed(thief, first))
        assert (confirmed["status"], confirmed["waiting"]) == ("confirmed", "delay")


async def test_a_stolen_session_does_not_turn_the_owners_letters_to_another_address(api_dsn):
    async with shop_over(api_dsn) as shop:
        world, own, ask = shop.world, Wallet(0), ("POST", "/v1/users/me/email")
        _, bearer = await world.sign_in(own)
        address, other = ({"email": f"{uuid4().hex}@example.org"} for _ in range(2))
        await world.data(*ask, headers=bearer, json=address)
        await world.settle()
        token = world.mail.letters.pop().text.split("\n\n    ")[1].split("\n")[0]
        await world.data("POST", "/v1/users/me/email/verify", headers=bearer, json={"token": token})
        await world.refused(403, "FORBIDDEN", "step_up_required", *ask, headers=bearer, json=other)
        await world.data(*ask, headers=bearer, json=address)
        await world.step_up(own, bearer)
        await world.data(*ask, headers=bearer, json=other)


async def test_a_letter_from_before_takes_no_address_and_the_old_address_hears_of_another(api_dsn):
    """A thief asks while there is no address to guard, and keeps the token, which needs no session."""
    async with shop_over(api_dsn) as shop:
        world, own, ask, verify = shop.world, Wallet(0), ("POST", "/v1/users/me/email"), "/v1/auth/email/verify"
        session, bearer = await world.sign_in(own)
        thief, first, second = (f"{who}.{uuid4().hex}@example.org" for who in ("thief", "first", "second"))

        async def letter(email):
            await world.data(*ask, headers=bearer, json={"email": email})
            await world.settle()
            found = world.mail.letters.pop()
            assert found.to == email
            return {"token": found.text.split("\n\n    ")[1].split("\n")[0]}

        async def stale(kept):
            await world.refused(422, "VERIFICATION_FAILED", "token_invalid", "POST", verify, json=kept)

        kept = await letter(thief)
        await world.data("POST", verify, json=await letter(first))
        await stale(kept)
        assert (await world.data("GET", "/v1/users/me", headers=bearer))["email"] == first

        await world.step_up(own, bearer)
        await world.data("POST", verify, json=await letter(second))
        await world.settle()
        (told,) = world.mail.letters
        assert (told.to, told.subject) == (first, "Your address was changed") and second in told.text
        world.mail.letters.clear()

        # The end of the session that asked takes its letter back, also where a step-up was spent for it.
        _, other = await world.sign_in(own)
        await world.step_up(own, bearer)
        kept = await letter(thief)
        await world.data("DELETE", f"/v1/users/me/sessions/{session['session_id']}", headers=other)
        await stale(kept)
        assert (await world.data("GET", "/v1/users/me", headers=other))["email"] == second


async def test_a_stolen_session_pays_nobody_new_makes_no_key_and_its_keys_end_with_it(api_dsn):
    async with shop_over(api_dsn) as shop:
        world, keys, transfers = shop.world, "/v1/users/me/api-keys", "/v1/transfers"
        owner, bearer = await shop.buyer("100")
        thief, _ = await shop.buyer()
        friend, _ = await shop.buyer()
        address = f"{uuid4().hex}@example.org"
        await world.data("POST", "/v1/users/me/email", headers=bearer, json={"email": address})
        await world.settle()
        token = world.mail.letters.pop().text.split("\n\n    ")[1].split("\n")[0]
        await world.data("POST", "/v1/users/me/email/verify", headers=bearer, json={"token": token})

        def body(to):
            return {"to": to, "asset": "USDC", "amount": "10"}

        await shop.refused(403, "FORBIDDEN", "step_up_required", transfers, bearer, body(friend))
        await shop.step_up(bearer)
        await shop.post(transfers, bearer, body(friend))
        # That step-up is spent; whom the owner has paid once is paid without, everybody else and a key are not.
        await shop.post(transfers, bearer, body(friend))
        await shop.refused(403, "FORBIDDEN", "step_up_required", transfers, bearer, body(thief))
        one = {"public_key": uuid4().hex * 2, "scopes": ["trade"]}
        await shop.refused(403, "FORBIDDEN", "step_up_required", keys, bearer, one)
        assert (shop.units(f"user:{thief}"), shop.units(f"user:{friend}")) == (0, 20_000_000)

        wallet = shop.wallets[bearer["authorization"]]
        other_session, other = await world.sign_in(wallet)
        made = []
        for each in (bearer, other):
            await world.step_up(wallet, each)
            made.append(await shop.post(keys, each, {"public_key": uuid4().hex * 2, "scopes": ["trade"]}))
        await world.settle()
        told = sorted(letter.subject for letter in world.mail.letters)
        assert told == ["A key was added", "A key was added", "A transfer to a new account"]
        assert {letter.to for letter in world.mail.letters} == {address}
        assert any(friend in letter.text for letter in world.mail.letters)

        # The refresh token of one session comes twice: that session was stolen. The core is away meanwhile.
        for status in (200, 401):
            again = {"refresh_token": other_session["refresh_token"]}
            away = status == 401
            shop.core.lose.extend(["request"] * away)
            assert (await world.client.post("/v1/auth/refresh", json=again)).status_code == status
        assert [key["id"] for key in await world.data("GET", keys, headers=bearer)] == [made[0]["id"]]
        await shop.finish()
        assert set(shop.core.keys) == {made[0]["id"]}


async def test_a_stolen_session_launches_no_token_and_unlinks_no_wallet(api_dsn):
    """Neither can be taken back: a creator has one token for ever, and with a wallet go the owner's own sessions."""
    async with shop_over(api_dsn, verify_creators_at_once=True) as shop:
        world, own, spare = shop.world, Wallet(0), Wallet(0)
        _, bearer = await world.sign_in(own)
        made = await world.data("POST", "/v1/creators", headers=bearer, json={"display_name": "Owner"})
        await shop.post(f"/v1/creators/{made['id']}/verification", bearer, {"statement": "It is me."})
        address = f"{uuid4().hex}@example.org"
        await world.data("POST", "/v1/users/me/email", headers=bearer, json={"email": address})
        await world.settle()
        token = world.mail.letters.pop().text.split("\n\n    ")[1].split("\n")[0]
        await world.data("POST", "/v1/users/me/email/verify", headers=bearer, json={"token": token})
        await world.step_up(own, bearer)
        await world.data(*LINK, headers=bearer, json=await world.proof(spare, "link_wallet", bearer))

        _, bearer = await world.sign_in(own)
        launch = {"symbol": "OWNER", "name": "O", "total_supply": "10", "sale_size": "10", "start_price": "1"}
        await shop.refused(403, "FORBIDDEN", "step_up_required", "/v1/tokens", bearer, launch)
        linked = await world.data("GET", "/v1/users/me/wallets", headers=bearer)
        path = next(f"{LINK[1]}/{wallet['id']}" for wallet in linked if wallet["address"] == spare.address)
        await world.refused(403, "FORBIDDEN", "step_up_required", "DELETE", path, headers=bearer)
        assert await world.data("GET", "/v1/users/me/wallets", headers=bearer) == linked

        # Each costs one of its own, and the owner hears of it.
        await world.step_up(own, bearer)
        await world.data("DELETE", path, headers=bearer)
        await shop.refused(403, "FORBIDDEN", "step_up_required", "/v1/tokens", bearer, launch)
        await world.step_up(own, bearer)
        await shop.post("/v1/tokens", bearer, launch)
        await world.settle()
        letters = {letter.subject: letter for letter in world.mail.letters}
        assert set(letters) == {"A wallet was linked", "A wallet was unlinked", "A launch in your name"}
        assert {letter.to for letter in letters.values()} == {address}
        assert all(spare.address in letters[f"A wallet was {what}"].text for what in ("linked", "unlinked"))
        assert "OWNER" in letters["A launch in your name"].text


async def test_a_stolen_session_buys_little_of_a_thief_who_sells(api_dsn):
    """The rule of the day counts purchases and licences together, whoever sells, and not what a signature paid for."""
    async with shop_over(api_dsn, unproved_per_day=50) as shop:
        world, purchases = shop.world, "/v1/purchases"
        thief, selling, work, _, cheap = await shop.seller("30")
        _, _, _, _, rest = await shop.seller("20")
        _, _, _, _, dear = await shop.seller("90")
        buyer, bearer = await shop.buyer("1000")
        await world.grant(buyer, "studio")
        address = f"{uuid4().hex}@example.org"
        await world.data("POST", "/v1/users/me/email", headers=bearer, json={"email": address})
        await world.settle()
        token = world.mail.letters.pop().text.split("\n\n    ")[1].split("\n")[0]
        await world.data("POST", "/v1/users/me/email/verify", headers=bearer, json={"token": token})

        def of(offer):
            return {"offer_id": offer["id"], "method": "balance"}

        answer = await shop.refused(403, "FORBIDDEN", "step_up_required", purchases, bearer, of(dear))
        assert "from the balance beyond 50 USDC a day needs a fresh signature" in answer.json()["error"]["message"]
        await shop.post(purchases, bearer, of(cheap))
        terms = {
            "license_type": "exclusive", "base_fee": "20.000001", "territories": ["PG"], "duration": "P1Y",
            "scope": ["adapt"], "revenue_share_bps": 0, "auto_approve": True,
        }  # fmt: skip
        made = await world.data("POST", f"/v1/works/{work['id']}/license-terms", headers=selling, json=terms)
        applying, application = "/v1/license-applications", {"terms_id": made["id"]}
        await shop.refused(403, "FORBIDDEN", "step_up_required", applying, bearer, application)
        assert await world.data("GET", applying, headers=bearer) == []
        waits = await world.data(
            "POST", "/v1/licenses", headers=selling | {"idempotency-key": uuid4().hex},
            json={name: value for name, value in terms.items() if name != "auto_approve"}
            | {"work_id": work["id"], "licensee_id": buyer},
        )  # fmt: skip
        fee = f"/v1/licenses/{waits['id']}/pay"
        await shop.refused(403, "FORBIDDEN", "step_up_required", fee, bearer, None)
        await shop.post(purchases, bearer, of(rest))  # 50 to the unit
        await shop.finish()
        assert (shop.units(f"user:{buyer}"), world.mail.letters) == (950_000_000, [])

        for path, body in ((purchases, of(dear)), (fee, None)):
            await shop.step_up(bearer)
            key = uuid4().hex
            await shop.post(path, bearer, body, key)
            await shop.post(path, bearer, body, key)  # the same once more is paid and proved already
        await shop.finish()
        assert shop.units(f"user:{buyer}") == 839_999_999
        assert [letter.subject for letter in world.mail.letters] == ["A large payment from your account"] * 2
        assert {letter.to for letter in world.mail.letters} == {address}
        _, _, _, _, last = await shop.seller("0.000001")
        await shop.refused(403, "FORBIDDEN", "step_up_required", purchases, bearer, of(last))
        await world.sql("UPDATE payments.unproved SET day = day - 1")
        await shop.post(purchases, bearer, of(last))


async def test_a_payment_that_fails_for_lack_of_money_gives_its_signature_back(api_dsn):
    """A transfer, a purchase, a fee, one that is taken with the application; each is paid with it once there is money,
    and then it is spent. A late answer gives it back as well."""
    async with shop_over(api_dsn, unproved_per_day=1) as shop:
        world = shop.world
        seller, selling, work, _, offer = await shop.seller("30")
        buyer, bearer = await shop.buyer()
        await world.grant(buyer, "studio")
        terms = {
            "base_fee": "20", "territories": ["PG"], "duration": "P1Y", "scope": ["adapt"], "revenue_share_bps": 0,
        }  # fmt: skip
        licence = await world.data(
            "POST", "/v1/licenses", headers=selling | {"idempotency-key": uuid4().hex},
            json=terms | {"license_type": "standard", "work_id": work["id"], "licensee_id": buyer},
        )  # fmt: skip
        at_once = terms | {"license_type": "exclusive", "territories": ["AU"], "auto_approve": True}
        made = await world.data("POST", f"/v1/works/{work['id']}/license-terms", headers=selling, json=at_once)
        acts = (
            ("/v1/transfers", {"to": seller, "asset": "USDC", "amount": "10"}, "10.01"),
            ("/v1/purchases", {"offer_id": offer["id"], "method": "balance"}, "30"),
            (f"/v1/licenses/{licence['id']}/pay", None, "20"),
            ("/v1/license-applications", {"terms_id": made["id"]}, "20"),
        )
        proved = (
            "SELECT proved_at > created_at AS good, proved_at FROM identity.session WHERE account_id = $1::text::uuid"
        )
        for path, body, needed in acts:
            await shop.refused(403, "FORBIDDEN", "step_up_required", path, bearer, body)
            await shop.step_up(bearer)
            (before,) = await world.sql(proved, buyer)
            await shop.refused(402, "PAYMENT_FAILED", "insufficient_funds", path, bearer, body)
            assert await world.sql(proved, buyer) == [before], path
            shop.core.lose.append("request")  # refused by the job, some time after the request
            late = await world.client.post(path, headers=bearer | {"idempotency-key": uuid4().hex}, json=body)
            assert late.status_code < 300 and (await world.sql(proved, buyer))[0]["good"] is False, (path, late.text)
            await shop.finish()
            assert before["good"] and await world.sql(proved, buyer) == [before], path
            ref = f"dep:{uuid4().hex}"
            shop.core.send(op="deposit", account=f"user:{buyer}", asset="USDC", amount=needed, ref=ref)
            await shop.post(path, bearer, body)
            await shop.finish()
            assert shop.units(f"user:{buyer}") == 0 and (await world.sql(proved, buyer))[0]["good"] is False, path


async def test_a_payment_whose_ref_is_anothers_waits_for_a_person(api_dsn):
    """What it took nobody knows, so it is not told as failed, and gives no signature back for another one."""
    async with shop_over(api_dsn, unproved_per_day=1) as shop:
        world = shop.world
        _, _, _, _, offer = await shop.seller("30")
        seller, _ = await shop.buyer()
        other, _ = await shop.buyer("1")
        buyer, bearer = await shop.buyer("100")
        good = "SELECT proved_at > created_at AS good FROM identity.session WHERE account_id = $1::text::uuid"
        for path, body in (
            ("/v1/transfers", {"to": seller, "asset": "USDC", "amount": "10"}),
            ("/v1/purchases", {"offer_id": offer["id"], "method": "balance"}),
        ):
            await shop.step_up(bearer)
            shop.core.lose.append("request")
            made = await shop.post(path, bearer, body)
            (row,) = await world.sql("SELECT ref FROM money.command WHERE document_id = $1::text::uuid", made["id"])
            legs = [{"from": f"user:{other}", "asset": "USDC", "amount": "0.1", "to": f"user:{seller}"}]
            shop.core.send(op="transfer", ref=row["ref"], legs=legs)
            await shop.finish()
            (told,) = await world.sql("SELECT state FROM money.command WHERE ref = $1", row["ref"])
            assert told["state"] == "stuck"
            shown = {one["id"]: one["status"] for one in await shop.get(path, bearer)}
            assert shown[made["id"]] == "pending", path
            assert not (await world.sql(good, buyer))[0]["good"], path
            await money_tools._resolve(world.dsn, row["ref"], "refused", "the ref was another's", core_at=0)
            await shop.finish()
            shown = {one["id"]: one["status"] for one in await shop.get(path, bearer)}
            assert shown[made["id"]] == "failed" and shop.units(f"user:{buyer}") == 100_000_000, path
            assert (await world.sql(good, buyer))[0]["good"], path


async def test_payments_of_one_account_at_the_same_instant_share_the_day(api_dsn):
    async with shop_over(api_dsn, unproved_per_day=50) as shop:
        offers = [(await shop.seller("20"))[4] for _ in range(5)]
        _, bearer = await shop.buyer("1000")

        async def buy(offer):
            body = {"offer_id": offer["id"], "method": "balance"}
            headers = bearer | {"idempotency-key": uuid4().hex}
            return (await shop.world.client.post("/v1/purchases", headers=headers, json=body)).status_code

        assert sorted(await asyncio.gather(*map(buy, offers))) == [201, 201, 403, 403, 403]


async def test_a_sign_in_beside_the_unlinking_of_its_wallet_comes_before_it_or_not_at_all(world):
    """The thief's sign-in waits for the core while the owner unlinks the stolen wallet."""
    stolen, safe = Wallet(0), Wallet(0)
    _, bearer = await world.sign_in(stolen)
    await world.step_up(stolen, bearer)
    await world.data(*LINK, headers=bearer, json=await world.proof(safe, "link_wallet", bearer))
    _, owner = await world.sign_in(safe)
    await world.step_up(safe, owner)
    old = next(wallet for wallet in await world.data("GET", "/v1/users/me/wallets", headers=owner) if wallet["primary"])
    assert old["address"] == stolen.address
    submit, held, arrived, rows = world.core.submit, asyncio.Event(), asyncio.Event(), []

    async def slow(command):
        if command["op"] == "account" and not arrived.is_set():
            arrived.set()
            await held.wait()
        rows.append(command.get("row"))
        return await submit(command)

    world.core.submit = slow
    body = await world.proof(stolen, "sign_in")
    thief = asyncio.create_task(world.client.post("/v1/auth/verify", json=body))
    await arrived.wait()
    unlinking = asyncio.create_task(world.client.delete(f"/v1/users/me/wallets/{old['id']}", headers=owner))
    waits = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    async with asyncio.timeout(HANG_S):
        while not unlinking.done() and not (await world.sql(waits))[0]["count"]:
            await asyncio.sleep(0.01)
    held.set()
    signed_in, unlinked = await thief, await unlinking
    assert (signed_in.status_code, unlinked.status_code) == (200, 200), (signed_in.text, unlinked.text)
    assert rows[-1] == safe.address
    token = {"authorization": "Bearer " + signed_in.json()["data"]["access_token"]}
    await world.refused(401, "UNAUTHORIZED", "session_revoked", "GET", "/v1/users/me", headers=token)


async def test_suspended_account_ends_everywhere_at_once_and_comes_back_with_its_money_alone(api_dsn):
    async with shop_over(api_dsn) as shop:
        world = shop.world
        seller, bearer, work, _, offer = await shop.seller()
        account, thief = await shop.buyer("30")
        friend, _ = await shop.buyer()
        own = await shop.staff()
        session, _ = await world.sign_in()  # staff of another kind
        _, member = await shop.buyer()
        await shop.step_up(thief)
        key = await shop.post("/v1/users/me/api-keys", thief, {"public_key": uuid4().hex * 2, "scopes": ["trade"]})
        await world.settle()
        assert set(shop.core.keys) == {key["id"]}
        path, why = f"/v1/admin/users/{account}", {"reason": "Stolen."}
        await shop.refused(403, "FORBIDDEN", "permission_missing", f"{path}/suspend", member, why)
        await shop.refused(404, "NOT_FOUND", "unknown_user", f"/v1/admin/users/{uuid4()}/suspend", own, why)
        await shop.refused(409, "CONFLICT", "not_suspended", f"{path}/unsuspend", own, why)
        me = (await world.data("GET", "/v1/users/me", headers=own))["id"]
        await shop.refused(403, "FORBIDDEN", "own_account", f"/v1/admin/users/{me}/suspend", own, why)
        await world.grant(session["account_id"], "super_admin")
        await shop.refused(403, "FORBIDDEN", "command_line_only",
                           f"/v1/admin/users/{session['account_id']}/suspend", own, why)  # fmt: skip

        shop.core.lose.append("request")  # the core is away when it is told first
        assert await shop.post(f"{path}/suspend", own, why) == {"id": account, "status": "suspended"}
        await world.refused(401, "UNAUTHORIZED", "session_revoked", "GET", "/v1/users/me", headers=thief)
        await shop.refused(409, "CONFLICT", "not_active", f"{path}/suspend", own, why)
        wallet = shop.wallets[thief["authorization"]]
        await world.refused(403, "FORBIDDEN", "account_suspended", "POST", "/v1/auth/verify",
                            json=await world.proof(wallet, "sign_in"))  # fmt: skip
        for _ in range(20):
            await world.settle()
            if not shop.core.keys and shop.core.commands[-1].get("status") == "frozen":
                break
        assert not shop.core.keys and shop.core.commands[-1] == {
            "op": "account", "account": f"user:{account}", "status": "frozen"}  # fmt: skip
        legs = [{"from": f"user:{account}", "asset": "USDC", "amount": "1", "to": f"user:{friend}"}]
        refused = shop.core.send(op="transfer", ref=uuid4().hex, legs=legs)
        assert (refused["event"], refused["reason"]) == ("rejected", "frozen")

        assert (await shop.post(f"{path}/unsuspend", own, why))["status"] == "active"
        await world.settle()
        _, back = await world.sign_in(wallet)
        assert await world.data("GET", "/v1/users/me/api-keys", headers=back) == []
        assert shop.units(f"user:{account}") == 30_000_000
        await shop.buy(back, offer, "balance")
        await shop.finish()
        assert len(await shop.get("/v1/library", back)) == 1

        settings = load_settings({"BYLINE_POSTGRES_URL": world.dsn})
        with pytest.raises(SettingsInvalid, match="only one that staff have suspended is banned"):
            await asyncio.to_thread(ban_account, settings, account, "Stolen goods.")
        await shop.post(f"{path}/suspend", own, why)
        told = await asyncio.to_thread(ban_account, settings, wallet.address, "Stolen goods.")
        assert told.startswith(f"account {account} is banned")
        await world.settle()  # the job of the suspension finds it banned
        assert shop.core.commands[-1] == {"op": "account", "account": f"user:{account}", "status": "frozen"}
        await world.refused(403, "FORBIDDEN", "account_banned", "POST", "/v1/auth/verify",
                            json=await world.proof(wallet, "sign_in"))  # fmt: skip
        await world.refused(401, "UNAUTHORIZED", "session_revoked", "GET", "/v1/users/me", headers=back)
        await shop.refused(409, "CONFLICT", "not_suspended", f"{path}/unsuspend", own, why)
        await world.refused(404, "NOT_FOUND", "unknown_user", "GET", f"/v1/users/{account}")
        assert shop.units(f"user:{account}") > 0
        noted = "SELECT action FROM kernel.audit_entry WHERE resource_id = $1 ORDER BY position"
        rows = await world.sql(noted, account)
        assert [row["action"] for row in rows if row["action"].startswith("user.")] == [
            "user.suspended", "user.unsuspended", "user.suspended", "user.banned"]  # fmt: skip


async def test_what_the_gateway_lets_in_is_on_its_owners_list(api_dsn):
    """PostgreSQL is away as soon as the gateway has taken the key."""
    async with shop_over(api_dsn) as shop:
        world, wallet, path = shop.world, Wallet(0), "/v1/users/me/api-keys"
        _, bearer = await world.sign_in(wallet)
        await world.step_up(wallet, bearer)
        register = shop.core.register_key

        async def then_cut(*arguments):
            await register(*arguments)
            await world.sql(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND state = 'idle in transaction'"
            )

        shop.core.register_key = then_cut
        body = {"public_key": uuid4().hex * 2, "scopes": ["trade"]}
        made = await shop.post(path, bearer, body)
        shop.core.register_key = register
        assert [key["id"] for key in await world.data("GET", path, headers=bearer)] == [made["id"]]
        assert set(shop.core.keys) == {made["id"]}
        await world.data("DELETE", f"{path}/{made['id']}", headers=bearer)
        await world.settle()
        assert not shop.core.keys


async def test_a_key_begins_and_ends_as_soon_as_the_core_is_there(api_dsn):
    async with shop_over(api_dsn) as shop:
        world, wallet, path = shop.world, Wallet(0), "/v1/users/me/api-keys"
        _, bearer = await world.sign_in(wallet)

        async def make():
            await world.step_up(wallet, bearer)
            return await shop.post(path, bearer, {"public_key": uuid4().hex * 2, "scopes": ["trade"]})

        shop.core.lose.append("request")
        made = await make()
        assert not shop.core.keys
        await world.settle()
        assert set(shop.core.keys) == {made["id"]}
        shop.core.lose.append("request")
        await world.data("DELETE", f"{path}/{made['id']}", headers=bearer)
        assert set(shop.core.keys) == {made["id"]}
        await world.settle()
        assert not shop.core.keys and await world.data("GET", path, headers=bearer) == []
        # One that ends before the core has heard of it never begins.
        shop.core.lose.extend(["request", "request"])
        made = await make()
        await world.data("DELETE", f"{path}/{made['id']}", headers=bearer)
        await world.settle()
        assert not shop.core.keys


async def test_a_key_that_the_gateway_does_not_take_is_none(api_dsn):
    """Its public half is that of a key that is registered otherwise, as the operator's."""
    async with shop_over(api_dsn) as shop:
        world, wallet, path = shop.world, Wallet(0), "/v1/users/me/api-keys"
        _, bearer = await world.sign_in(wallet)
        register = shop.core.register_key

        async def refuse(*_):
            raise Refused("exists")

        shop.core.register_key = refuse
        body = {"public_key": uuid4().hex * 2, "scopes": ["trade"]}
        await world.step_up(wallet, bearer)
        assert (await world.client.post(path, headers=bearer, json=body)).status_code == 502
        assert await world.data("GET", path, headers=bearer) == []
        shop.core.register_key = register
        await world.settle()
        assert not shop.core.keys
        await world.step_up(wallet, bearer)
        await shop.post(path, bearer, body)  # nothing of it stayed
