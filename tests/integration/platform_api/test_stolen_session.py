"""What a thief with a fresh session, or even with a wallet linked by a trick, can do with an account's money: wait."""

from datetime import UTC, datetime, timedelta
from uuid import uuid4

from tests.support.sales import shop_over
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
