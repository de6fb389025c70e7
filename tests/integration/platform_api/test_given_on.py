"""What others are paid of a work is not given on without them: by licences below a licence, or by a lower share."""

import json

from tests.integration.platform_api.test_works import creator
from tests.support.licences import issued, keyed, licence, owner_of_work, payable, studio, terms_for, world

__all__ = ["world"]


async def partnered(world, owner, work, share=5_000):
    """Somebody with a share of the work, who has agreed to it: account and bearer."""
    _, partner_id, partner = await creator(world, "Partner")
    lines = {"collaborators": [{"account_id": partner_id, "role": "Writer", "share_bps": share}]}
    inside = f"/v1/works/{work['id']}/collaborators"
    change = (await world.data("PUT", inside, headers=owner, json=lines))["pending"]
    body = {"change_id": change["id"], "agree": True}
    await world.data("POST", f"{inside}/consent", headers=partner, json=body)
    return partner_id, partner


async def shares(world, bearer, work):
    return (await world.data("GET", f"/v1/works/{work['id']}/royalty-rules", headers=bearer))["licence_shares"]


async def answer(world, bearer, work, share, agree=True):
    path = f"/v1/works/{work['id']}/royalty-rules/licence-shares/consent"
    return await world.data("POST", path, headers=bearer, json={"share_id": share["id"], "agree": agree})


async def refused_below(world, bearer, work, licensee_id, top, **fields):
    body = {
        "work_id": work["id"], "licensee_id": licensee_id, "license_type": "standard", "base_fee": "50",
        "territories": ["PG"], "duration": "P10D", "scope": ["adapt"], "parent_license_id": top["id"],
    } | fields  # fmt: skip
    await world.refused(409, "CONFLICT", "sublicensing_not_agreed", "POST", "/v1/licenses", headers=keyed(bearer),
                        json=body)  # fmt: skip


async def paid_below(world, licensor, work, top, payee_id, **fields):
    """What the payee gets of a fee of 50 below the licence."""
    buyer_id, buyer = await studio(world, "100")
    before = payable(world, payee_id)
    body = {"base_fee": "50", "duration": "P10D"} | fields
    sold = await issued(world, licensor, work, buyer_id, parent_license_id=top["id"], **body)
    await world.data("POST", f"/v1/licenses/{sold['id']}/pay", headers=keyed(buyer))
    for _ in range(3):
        await world.settle()
    return payable(world, payee_id) - before


async def told_of(world, work):
    """Status and accounts of what was told about shares of licences, in order."""
    rows = await world.sql(
        "SELECT payload FROM kernel.outbox WHERE type = 'royalty.licence_share_changed' AND subject_id = $1"
        " ORDER BY position",
        work["id"],
    )
    return [(one["status"], one["for_accounts"]) for one in (json.loads(row["payload"]) for row in rows)]


async def test_free_licence_to_a_friend_is_not_given_on_before_the_partner_agrees(world):
    owner_id, owner, work = await owner_of_work(world)
    partner_id, partner = await partnered(world, owner, work)
    friend_id, friend = await studio(world)
    buyer_id, _ = await studio(world)
    top = await issued(world, owner, work, friend_id, revenue_share_bps=0, sublicensing=True)
    assert (top["given_on"], top["valid"]) == ("pending", True), "the licence itself holds"
    await refused_below(world, friend, work, buyer_id, top)
    everybody = sorted([owner_id, partner_id])
    assert await told_of(world, work) == [("pending", everybody)]
    (waiting,) = await shares(world, partner, work)
    assert (waiting["kind"], waiting["license_id"], waiting["share_bps"]) == ("given_on", top["id"], 0)
    assert (waiting["work_id"], waiting["parent_work_id"]) == (work["id"], None)
    assert (waiting["status"], waiting["waits_for"]) == ("pending", [partner_id])
    path = f"/v1/works/{work['id']}/royalty-rules/licence-shares/consent"
    for bearer in (owner, friend):
        await world.refused(404, "NOT_FOUND", "unknown_share", "POST", path, headers=bearer,
                            json={"share_id": waiting["id"], "agree": True})  # fmt: skip
    assert (await answer(world, partner, work, waiting))["status"] == "effective"
    assert await told_of(world, work) == [("pending", everybody), ("effective", everybody)]
    assert (await licence(world, friend, top["id"]))["given_on"] == "effective"
    assert await paid_below(world, friend, work, top, partner_id) == 0, "as the partner has agreed"


async def test_licence_that_the_partner_refuses_is_not_given_on(world):
    _, owner, work = await owner_of_work(world)
    _, partner = await partnered(world, owner, work)
    friend_id, friend = await studio(world)
    buyer_id, _ = await studio(world)
    top = await issued(world, owner, work, friend_id, revenue_share_bps=9_999, sublicensing=True)
    (waiting,) = await shares(world, partner, work)
    assert (await answer(world, partner, work, waiting, False))["status"] == "declined"
    assert await shares(world, partner, work) == []
    assert (await licence(world, friend, top["id"]))["given_on"] == "declined"
    await refused_below(world, friend, work, buyer_id, top)


async def test_nobody_is_asked_where_nobody_loses(world):
    """The owner alone is paid; or everything that is sold below comes to the work."""
    _, owner, work = await owner_of_work(world)
    friend_id, friend = await studio(world)
    alone = await issued(world, owner, work, friend_id, revenue_share_bps=0, sublicensing=True)
    assert alone["given_on"] == "effective"
    partner_id, partner = await partnered(world, owner, work)
    assert [one["license_id"] for one in await shares(world, partner, work)] == [alone["id"]]
    assert await paid_below(world, friend, work, alone, partner_id) == 0, "it stood when the partner agreed to a share"
    whole = await issued(world, owner, work, friend_id, revenue_share_bps=10_000, sublicensing=True)
    assert whole["given_on"] == "effective"
    # 85 % of 50 is 42.50, all of it the work's; half of that is the partner's.
    assert await paid_below(world, friend, work, whole, partner_id) == 21_250_000


async def test_terms_that_approve_themselves_do_not_take_from_the_partner(world):
    _, owner, work = await owner_of_work(world)
    _, partner = await partnered(world, owner, work)
    terms = await terms_for(world, owner, work, revenue_share_bps=0, sublicensing=True, auto_approve=True)
    friend_id, friend = await studio(world)
    buyer_id, _ = await studio(world)
    body = {"terms_id": terms["id"]}
    made = await world.data("POST", "/v1/license-applications", headers=keyed(friend), json=body)
    top = {"id": made["license_id"]}
    await refused_below(world, friend, work, buyer_id, top)
    (waiting,) = await shares(world, partner, work)
    assert waiting["license_id"] == made["license_id"]


async def test_licence_below_is_given_on_with_consent_of_its_own(world):
    """The partner agreed to the whole of what the friend receives; a friend's friend would receive it instead."""
    _, owner, work = await owner_of_work(world)
    partner_id, partner = await partnered(world, owner, work)
    friend_id, friend = await studio(world)
    other_id, other = await studio(world)
    buyer_id, _ = await studio(world)
    top = await issued(world, owner, work, friend_id, revenue_share_bps=10_000, sublicensing=True)
    below = await issued(world, friend, work, other_id, revenue_share_bps=0, sublicensing=True, duration="P90D",
                         parent_license_id=top["id"])  # fmt: skip
    await refused_below(world, other, work, buyer_id, below)
    waiting = next(one for one in await shares(world, partner, work) if one["license_id"] == below["id"])
    assert (waiting["status"], waiting["waits_for"]) == ("pending", [partner_id])


async def test_renewal_asks_for_the_time_that_it_adds(world):
    _, owner, work = await owner_of_work(world)
    friend_id, friend = await studio(world)
    buyer_id, _ = await studio(world)
    top = await issued(world, owner, work, friend_id, revenue_share_bps=0, sublicensing=True)
    partner_id, partner = await partnered(world, owner, work)
    longer = await world.data("POST", f"/v1/licenses/{top['id']}/renew", headers=keyed(owner))
    assert longer["given_on"] == "pending"
    sold = await issued(world, friend, work, buyer_id, parent_license_id=top["id"], duration="P360D")
    await refused_below(world, friend, work, buyer_id, top, duration="P500D")
    await world.refused(409, "CONFLICT", "sublicensing_not_agreed", "POST", f"/v1/licenses/{sold['id']}/renew",
                        headers=keyed(friend))  # fmt: skip
    found = await shares(world, partner, work)
    assert [(one["license_id"], one["status"]) for one in found] == [
        (top["id"], "effective"), (top["id"], "pending")
    ]  # fmt: skip
    await answer(world, partner, work, found[1])
    await issued(world, friend, work, buyer_id, parent_license_id=top["id"], duration="P500D")


async def test_who_got_a_share_while_a_licence_waited_is_asked_before_it_is_given_on(world):
    owner_id, owner, work = await owner_of_work(world)
    partner_id, partner = await partnered(world, owner, work)
    friend_id, friend = await studio(world)
    buyer_id, _ = await studio(world)
    top = await issued(world, owner, work, friend_id, revenue_share_bps=0, sublicensing=True)
    _, third_id, third = await creator(world, "Third")
    inside = f"/v1/works/{work['id']}/royalty-rules"
    lines = [(owner_id, 2_500), (partner_id, 5_000), (third_id, 2_500)]
    body = {"lines": [{"account_id": one, "role": "collaborator", "bps": bps} for one, bps in lines]}
    rule = await world.data("PUT", inside, headers=owner, json=body)
    await world.data("POST", f"{inside}/consent", headers=third, json={"rule_id": rule["id"], "agree": True})
    (waiting,) = await shares(world, partner, work)
    waiting = await answer(world, partner, work, waiting)
    assert (waiting["status"], waiting["waits_for"]) == ("pending", [third_id])
    await refused_below(world, friend, work, buyer_id, top)
    assert (await answer(world, third, work, waiting))["status"] == "effective"
    await issued(world, friend, work, buyer_id, parent_license_id=top["id"], duration="P10D")


async def test_what_waits_ends_with_the_licence(world):
    _, owner, work = await owner_of_work(world)
    _, partner = await partnered(world, owner, work)
    friend_id, friend = await studio(world)
    top = await issued(world, owner, work, friend_id, revenue_share_bps=0, sublicensing=True)
    (waiting,) = await shares(world, partner, work)
    await world.data("POST", f"/v1/licenses/{top['id']}/revoke", headers=keyed(owner), json={"reason": "Over."})
    assert await shares(world, owner, work) == []
    assert (await licence(world, friend, top["id"]))["given_on"] == "over"
    path = f"/v1/works/{work['id']}/royalty-rules/licence-shares/consent"
    await world.refused(409, "CONFLICT", "share_closed", "POST", path, headers=partner,
                        json={"share_id": waiting["id"], "agree": True})  # fmt: skip


# A lower share in place of a higher one.


async def made_under(world, owner, work, maker_id, maker, film, bps):
    held = await issued(world, owner, work, maker_id, revenue_share_bps=bps)
    await world.data("POST", f"/v1/licenses/{held['id']}/works", headers=maker, json={"work_id": film["id"]})
    return held


async def replaced(world, owner, work, maker_id, maker, film, held, bps):
    """The licence is revoked, and the film named under another one."""
    await world.data("POST", f"/v1/licenses/{held['id']}/revoke", headers=keyed(owner), json={"reason": "A friend."})
    return await made_under(world, owner, work, maker_id, maker, film, bps)


async def sold(world, maker, film, *payees):
    """What a licence of the film for 10 gives them."""
    buyer_id, buyer = await studio(world, "10")
    before = [payable(world, payee) for payee in payees]
    one = await issued(world, maker, film, buyer_id, base_fee="10")
    await world.data("POST", f"/v1/licenses/{one['id']}/pay", headers=keyed(buyer))
    for _ in range(4):
        await world.settle()
    return [payable(world, payee) - had for payee, had in zip(payees, before, strict=True)]


async def test_lower_share_takes_nothing_of_the_licensed_works_partner_who_has_not_agreed(world):
    owner_id, owner, work = await owner_of_work(world)
    partner_id, partner = await partnered(world, owner, work)
    maker_id, maker, film = await owner_of_work(world, "The film")
    await world.grant(maker_id, "studio")
    held = await made_under(world, owner, work, maker_id, maker, film, 5_000)
    people = (owner_id, partner_id, maker_id)
    # 8.50 come to the film, half of it to the story, half of that to the partner.
    assert await sold(world, maker, film, *people) == [2_125_000, 2_125_000, 4_250_000]
    anew = await replaced(world, owner, work, maker_id, maker, film, held, 1)
    assert await sold(world, maker, film, *people) == [2_125_000, 2_125_000, 4_250_000]
    (waiting,) = await shares(world, partner, work)
    assert (waiting["kind"], waiting["license_id"], waiting["share_bps"]) == ("made_under", anew["id"], 1)
    assert (waiting["work_id"], waiting["parent_work_id"]) == (film["id"], work["id"])
    assert waiting["waits_for"] == [partner_id]
    assert (await shares(world, maker, film))[-1] == waiting
    assert await told_of(world, film) == [(status, sorted(people)) for status in ("effective", "pending")]
    assert (await answer(world, partner, work, waiting, False))["status"] == "declined"
    assert await sold(world, maker, film, *people) == [2_125_000, 2_125_000, 4_250_000], "the old share stands"
    await world.data("POST", f"/v1/licenses/{anew['id']}/works", headers=maker, json={"work_id": film["id"]})
    (waiting,) = await shares(world, partner, work)
    assert (await answer(world, partner, film, waiting))["status"] == "effective"
    # One basis point of 8.50 is 0.00085.
    assert await sold(world, maker, film, *people) == [425, 425, 8_499_150]


async def test_lower_share_asks_those_of_the_works_further_up(world):
    """They are paid of what the work below them receives: its owner alone does not say that it shall be less."""
    book_id, book_owner, book = await owner_of_work(world, "The book")
    partner_id, partner = await partnered(world, book_owner, book)
    story_id, story_owner, story = await owner_of_work(world, "The story")
    maker_id, maker, film = await owner_of_work(world, "The film")
    for account in (story_id, maker_id):
        await world.grant(account, "studio")
    await made_under(world, book_owner, book, story_id, story_owner, story, 5_000)
    held = await made_under(world, story_owner, story, maker_id, maker, film, 5_000)
    people = (book_id, partner_id, story_id, maker_id)
    # 8.50 at the film; 4.25 to the story; 2.125 to the book, halves.
    assert await sold(world, maker, film, *people) == [1_062_500, 1_062_500, 2_125_000, 4_250_000]
    await replaced(world, story_owner, story, maker_id, maker, film, held, 1_000)
    waiting = next(one for one in await shares(world, story_owner, story) if one["status"] == "pending")
    assert waiting["waits_for"] == sorted([book_id, partner_id])
    await answer(world, book_owner, story, waiting)
    assert await sold(world, maker, film, *people) == [1_062_500, 1_062_500, 2_125_000, 4_250_000]
    await answer(world, partner, story, waiting)
    # 0.85 to the story; 0.425 to the book, halves.
    assert await sold(world, maker, film, *people) == [212_500, 212_500, 425_000, 7_650_000]


# Works made under a licence below another.


async def test_licensor_between_loses_nothing_by_another_licence_without_saying_so(world):
    """The maker's licence from the first is over; the owner gives one with less, and nobody asks the first."""
    owner_id, owner, work = await owner_of_work(world)
    partner_id, partner = await partnered(world, owner, work)
    first_id, first = await studio(world)
    maker_id, maker, film = await owner_of_work(world, "The film")
    await world.grant(maker_id, "studio")
    half = await issued(world, owner, work, first_id, revenue_share_bps=5_000, sublicensing=True, duration="P90D")
    (waiting,) = [one for one in await shares(world, partner, work) if one["status"] == "pending"]
    await answer(world, partner, work, waiting)
    held = await issued(world, first, work, maker_id, revenue_share_bps=4_000, duration="P9D",
                        parent_license_id=half["id"])  # fmt: skip
    await world.data("POST", f"/v1/licenses/{held['id']}/works", headers=maker, json={"work_id": film["id"]})
    people = (owner_id, partner_id, first_id, maker_id)
    # 8.50 at the film; 3.40 to the first, who owes half; the other half to the work, halves.
    earned = [850_000, 850_000, 1_700_000, 5_100_000]
    assert await sold(world, maker, film, *people) == earned
    revoke = {"headers": keyed(first), "json": {"reason": "Over."}}
    await world.data("POST", f"/v1/licenses/{held['id']}/revoke", **revoke)
    # As much for the work, nothing for the first.
    await made_under(world, owner, work, maker_id, maker, film, 2_000)
    assert await sold(world, maker, film, *people) == earned
    (waiting,) = [one for one in await shares(world, maker, film) if one["status"] == "pending"]
    assert waiting["waits_for"] == [first_id]
    await answer(world, first, film, waiting)
    assert await sold(world, maker, film, *people) == [850_000, 850_000, 0, 6_800_000]
    assert (await told_of(world, film))[-1] == ("effective", sorted(people))
    # And by way of the first: as much for both, then less for the work, which its owner has not given.
    path = f"/v1/licenses/{waiting['license_id']}/revoke"
    await world.data("POST", path, headers=keyed(owner), json={"reason": "Over."})
    again = await issued(world, first, work, maker_id, revenue_share_bps=1_000, duration="P9D",
                         parent_license_id=half["id"])  # fmt: skip
    await world.data("POST", f"/v1/licenses/{again['id']}/works", headers=maker, json={"work_id": film["id"]})
    (waiting,) = [one for one in await shares(world, maker, film) if one["status"] == "pending"]
    assert waiting["waits_for"] == sorted([owner_id, partner_id])
    assert await sold(world, maker, film, *people) == [850_000, 850_000, 0, 6_800_000]
    await answer(world, owner, film, waiting)
    await answer(world, partner, film, waiting)
    # 0.85 to the first, half of it to the work.
    assert await sold(world, maker, film, *people) == [212_500, 212_500, 425_000, 7_650_000]
