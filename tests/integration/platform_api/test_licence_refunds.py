"""Licence fees given back: what crosses a refund on its way, and who keeps a fee of a licence that was ended."""


import pytest_asyncio

from tests.integration.platform_api.test_licensing import (
    apply,
    issued,
    keyed,
    licence,
    owner_of_work,
    payable,
    studio,
    terms_for,
    units,
)
from tests.support.api import opened
from tests.support.real_core import RealCore
from tests.support.sales import own_money


@pytest_asyncio.fixture
async def world(api_dsn):
    core = RealCore()
    core.send(op="asset", asset="USDC", scale=6, settled=True)
    async with opened(api_dsn, core=core, embedded=True) as world:
        await world.sql("INSERT INTO exchange.asset VALUES (900, 'USDC', 6, true) ON CONFLICT DO NOTHING")
        yield world


async def paid(world, bearer, id_):
    await world.data("POST", f"/v1/licenses/{id_}/pay", headers=keyed(bearer))
    await world.settle()


async def test_nothing_is_renewed_or_paid_while_a_refund_waits_for_the_core(world):
    owner_id, owner, work = await owner_of_work(world)
    buyer_id, buyer = await studio(world, "100")
    terms = await terms_for(world, owner, work, base_fee="10", duration="P5D", auto_approve=True)
    path = f"/v1/licenses/{(await apply(world, buyer, terms))['license_id']}"
    await paid(world, buyer, path.rpartition("/")[2])
    await world.data("POST", f"{path}/renew", headers=keyed(buyer))
    # A fee on its way: it is known what is to be given back only when it has come.
    world.core.lose.append("request")
    await world.data("POST", f"{path}/pay", headers=keyed(buyer))
    body = {"reason": "Misprint."}
    await world.refused(409, "CONFLICT", "payment_under_way", "POST", f"{path}/refund", headers=keyed(owner), json=body)
    await world.settle()
    assert units(world, f"user:{buyer_id}")[0] == 80_000_000
    world.core.lose.append("request")
    waits = await world.data("POST", f"{path}/refund", headers=keyed(owner), json=body)
    assert waits["status"] == "active"
    for what in ("renew", "pay"):
        await world.refused(409, "CONFLICT", "refund_open", "POST", f"{path}/{what}", headers=keyed(buyer))
    await world.settle()
    assert (await licence(world, buyer, waits["id"]))["status"] == "revoked"
    assert (units(world, f"user:{buyer_id}")[0], payable(world, owner_id)) == (100_000_000, 0)


async def test_who_has_taken_a_fee_does_not_end_the_licence_and_keep_it(world):
    """The platform may end it for a breach, and may give the fee back also afterwards."""
    owner_id, owner, work = await owner_of_work(world)
    buyer_id, buyer = await studio(world, "100")
    held = await issued(world, owner, work, buyer_id, base_fee="10")
    path, body = f"/v1/licenses/{held['id']}", {"reason": "A better offer."}
    await paid(world, buyer, held["id"])
    await world.refused(409, "CONFLICT", "fee_paid", "POST", f"{path}/revoke", headers=keyed(owner), json=body)
    staff_id, staff = await studio(world)
    await world.grant(staff_id, "admin")
    await own_money(world, 100)
    await world.data("POST", f"/v1/admin/licenses/{held['id']}/revoke", headers=keyed(staff), json=body)
    assert units(world, f"user:{buyer_id}")[0] == 90_000_000
    await world.data("POST", f"{path}/refund", headers=keyed(staff), json=body)
    assert (units(world, f"user:{buyer_id}")[0], payable(world, owner_id)) == (100_000_000, 0)
    await world.refused(409, "CONFLICT", "nothing_to_refund", "POST", f"{path}/refund", headers=keyed(staff), json=body)


async def test_fees_of_licences_below_go_back_with_the_one_above(world):
    owner_id, owner, work = await owner_of_work(world)
    middle_id, middle = await studio(world, "100")
    lower_id, lower = await studio(world, "100")
    top = await issued(world, owner, work, middle_id, base_fee="10", sublicensing=True)
    await paid(world, middle, top["id"])
    below = await issued(world, middle, work, lower_id, base_fee="20", parent_license_id=top["id"], duration="P10D")
    await paid(world, lower, below["id"])
    assert payable(world, middle_id) > 0
    path, body = f"/v1/licenses/{top['id']}", {"reason": "Somebody else's work."}
    await world.refused(409, "CONFLICT", "paid_below", "POST", f"{path}/refund", headers=keyed(owner), json=body)
    staff_id, staff = await studio(world)
    await world.grant(staff_id, "admin")
    await own_money(world, 100)
    ended = await world.data("POST", f"{path}/refund", headers=keyed(staff), json=body)
    await world.settle()
    assert ended["status"] == "revoked" and (await licence(world, lower, below["id"]))["status"] == "revoked"
    for account in (middle_id, lower_id):
        assert units(world, f"user:{account}")[0] == 100_000_000
        assert payable(world, account) == 0
    assert payable(world, owner_id) == 0

    async def fees(bearer):
        """Of each line: which licence, and whether it is a part of what the work got."""
        report = await world.data("GET", "/v1/royalties/report", headers=bearer)
        return {(line["kind"], line["license_id"], line["distribution_id"] is not None) for line in report["lines"]}

    assert await fees(middle) == {("earned", below["id"], False), ("reversed", below["id"], False)}
    sold = {(kind, one["id"], True) for kind in ("earned", "reversed") for one in (top, below)}
    assert await fees(owner) == sold
    shown = await world.data("GET", f"/v1/royalties/works/{work['id']}", headers=owner)
    assert [one["license_id"] for one in shown["distributions"]] == [below["id"], top["id"]]
