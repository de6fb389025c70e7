"""Release windows and availability over HTTP and a real PostgreSQL: overlaps, rights, what the clock does."""

import asyncio
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest

from platform_api.app import openapi_document
from tests.integration.platform_api.test_works import story
from tests.support.licences import chain, issued, keyed, owner_of_work, studio, sweep, world

__all__ = ["world"]

WINDOWS = "/v1/windows"
TYPES = ("festival", "cinema", "collector", "pvod", "ppv", "tvod", "svod", "avod")
PAID = ("collector", "pvod", "ppv", "tvod")


def day(number):
    """Midnight UTC, so many days from today."""
    today = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    return (today + timedelta(days=number)).isoformat()


async def window(world, bearer, work, type_="svod", *, first=0, last=30, **fields):
    price = {"price": "4.99"} if type_ in PAID else {}
    times = {"starts_at": day(first), "ends_at": day(last)}
    body = {"work_id": work["id"], "window_type": type_, "territories": ["PG"]} | times | price | fields
    return await world.client.post(WINDOWS, headers=bearer, json=body)


async def made(world, bearer, work, *arguments, **fields):
    answer = await window(world, bearer, work, *arguments, **fields)
    assert answer.status_code == 201, answer.text
    return answer.json()["data"]


async def availability(world, work, territory="PG", **query):
    return await world.data("GET", f"/v1/availability/{work['id']}", params={"territory": territory} | query)


def reason(answer):
    return answer.status_code, answer.json()["error"]["details"]["reason"]


async def moved(world, id_, days):
    await world.sql(
        "UPDATE licensing.release_window SET period = tstzrange(lower(period) + $2::interval, upper(period) + $2)"
        " WHERE id = $1",
        UUID(id_), timedelta(days=days),
    )  # fmt: skip


async def told(world, id_):
    rows = await world.sql("SELECT type FROM kernel.outbox WHERE subject_id = $1 ORDER BY position", id_)
    return [row["type"] for row in rows]


async def test_windows_of_all_eight_types_stand_beside_each_other(world):
    _, owner, work = await owner_of_work(world)
    for type_ in TYPES:
        shown = await made(world, owner, work, type_)
        assert (shown["window_type"], shown["status"], shown["version"]) == (type_, "open", 1)
        assert (shown["price"], shown["asset"]) == (("4.99", "USDC") if type_ in PAID else (None, None))
    found = await availability(world, work)
    assert found["available"] and [opening["window_type"] for opening in found["openings"]] == sorted(TYPES)
    listed = await world.data("GET", f"/v1/works/{work['id']}/windows?limit=5")
    assert len(listed) == 5


@pytest.mark.parametrize(
    ("second", "stands"),
    [({}, False), ({"first": 29}, False), ({"first": 30, "last": 60}, True), ({"territories": ["AU"]}, True),
     ({"territories": ["AU", "PG"]}, False), ({"territories": ["WW"]}, False), ({"type_": "avod"}, True),
     ({"first": 10, "ends_at": None}, False), ({"type_": "avod", "exclusive": True}, False),
     ({"type_": "avod", "exclusive": True, "first": 30, "last": 60}, True)],
)  # fmt: skip
async def test_windows_of_one_type_never_overlap_and_an_exclusive_one_stands_alone(world, second, stands):
    _, owner, work = await owner_of_work(world)
    await made(world, owner, work)
    fields = {"type_": "svod", "last": 60} | second
    answer = await window(world, owner, work, fields.pop("type_"), **fields)
    if stands:
        assert answer.status_code == 201, answer.text
    else:
        assert reason(answer) == (409, "window_overlap")
    assert (await window(world, owner, (await owner_of_work(world))[2])).status_code == 404, "of the owner alone"


async def test_exclusive_window_shuts_all_types_out(world):
    _, owner, work = await owner_of_work(world)
    await made(world, owner, work, "cinema", exclusive=True)
    for type_ in TYPES:
        assert reason(await window(world, owner, work, type_, first=5)) == (409, "window_overlap")
    assert [o["window_type"] for o in (await availability(world, work))["openings"]] == ["cinema"]


async def test_of_windows_that_clash_at_the_same_instant_one_stands(world):
    _, owner, work = await owner_of_work(world)
    answers = await asyncio.gather(*(window(world, owner, work, "tvod", first=i, last=20) for i in range(5)))
    assert sorted(answer.status_code for answer in answers) == [201, 409, 409, 409, 409]
    _, owner, work = await owner_of_work(world)
    answers = await asyncio.gather(*(window(world, owner, work, type_, exclusive=True) for type_ in TYPES))
    assert sorted(answer.status_code for answer in answers) == [201] + [409] * 7


@pytest.mark.parametrize(
    ("wrong", "why"),
    [({"territories": ["ZZ"]}, "unknown_territory"), ({"last": -1}, "bad_period"), ({"window_type": "dvd"}, "invalid"),
     ({"window_type": "tvod"}, "missing"), ({"price": "1.00000001"}, "bad_price"), ({"price": "1", "asset": "X"},
     "unknown_asset"), ({"starts_at": "0001-01-01T00:00:00Z"}, "bad_moment"), ({"starts_at": "2026-01-01"}, "invalid"),
     ({"ends_at": "9999-12-31T00:00:00Z"}, "bad_moment")],
)  # fmt: skip
async def test_malformed_windows_are_refused(world, wrong, why):
    _, owner, work = await owner_of_work(world)
    assert reason(await window(world, owner, work, **wrong)) == (400, why)


async def test_availability_needs_a_territory_and_the_document_says_so(world):
    """It was said to be optional. An unknown work is unknown without one, too."""
    _, _, work = await owner_of_work(world)
    (named,) = [
        one for one in openapi_document()["paths"]["/v1/availability/{work_id}"]["get"]["parameters"]
        if one["name"] == "territory"
    ]  # fmt: skip
    assert named["required"]
    await world.refused(400, "VALIDATION_ERROR", "missing", "GET", f"/v1/availability/{work['id']}")
    await world.refused(404, "NOT_FOUND", "unknown_work", "GET", f"/v1/availability/{uuid4()}")


async def test_availability_is_by_territory_and_moment_and_half_open(world):
    _, owner, work = await owner_of_work(world)
    planned = await made(world, owner, work, "tvod", first=10, last=20)
    assert planned["status"] == "scheduled"
    now = await availability(world, work)
    assert (now["available"], now["openings"], now["next_at"]) == (False, [], planned["starts_at"])
    for at, open_ in ((day(9), False), (day(10), True), (day(19), True), (day(20), False)):
        found = await availability(world, work, at=at)
        assert found["available"] is open_, at
    (opening,) = (await availability(world, work, at=day(12)))["openings"]
    assert (opening["window_id"], opening["price"], opening["asset"]) == (planned["id"], "4.99", "USDC")
    assert not (await availability(world, work, "AU", at=day(12)))["available"]
    path = f"/v1/availability/{work['id']}"
    await world.refused(400, "VALIDATION_ERROR", "missing", "GET", path)
    await world.refused(400, "VALIDATION_ERROR", "unknown_territory", "GET", f"{path}?territory=WW")
    await world.refused(400, "VALIDATION_ERROR", "bad_moment", "GET", f"{path}?territory=PG&at=0001-01-01T00:00:00Z")
    draft = await story(world, owner)
    await world.refused(404, "NOT_FOUND", "unknown_work", "GET", f"/v1/availability/{draft['id']}?territory=PG")


async def test_bulk_availability_keeps_the_order_and_tells_nothing_of_drafts(world):
    _, owner, work = await owner_of_work(world)
    _, other, second = await owner_of_work(world)
    await made(world, owner, work)
    draft = await story(world, owner)
    await made(world, owner, draft)
    ids = [str(uuid4()), second["id"], work["id"], draft["id"], work["id"]]
    found = await world.data("POST", "/v1/availability/bulk", json={"work_ids": ids, "territory": "PG"})
    assert [row["work_id"] for row in found] == ids
    assert [row["available"] for row in found] == [False, False, True, False, True]
    assert found[0]["openings"] == found[3]["openings"] == [] and found[3]["next_at"] is None
    many = {"work_ids": [str(uuid4()) for _ in range(201)], "territory": "PG"}
    await world.refused(400, "VALIDATION_ERROR", "invalid", "POST", "/v1/availability/bulk", json=many)
    await world.data("POST", f"/v1/works/{work['id']}/archive", headers=owner)
    again = await world.data("POST", "/v1/availability/bulk", json={"work_ids": [work["id"]], "territory": "PG"})
    assert again[0]["available"] is False


async def test_clock_opens_and_closes_windows_once(world):
    _, owner, work = await owner_of_work(world)
    planned = await made(world, owner, work, first=10, last=20)
    await sweep(world)
    assert await told(world, planned["id"]) == []
    await moved(world, planned["id"], -15)
    await sweep(world)
    await sweep(world)
    (shown,) = await world.data("GET", f"/v1/works/{work['id']}/windows")
    assert shown["status"] == "open" and await told(world, planned["id"]) == ["window.opened"]
    await moved(world, planned["id"], -15)
    await sweep(world)
    (shown,) = await world.data("GET", f"/v1/works/{work['id']}/windows")
    assert shown["status"] == "closed" and await told(world, planned["id"]) == ["window.opened", "window.closed"]
    await made(world, owner, work)


async def test_change_and_end_of_windows(world):
    _, owner, work = await owner_of_work(world)
    planned = await made(world, owner, work, "tvod", first=10, last=20)
    path = f"{WINDOWS}/{planned['id']}"
    _, stranger, _ = await owner_of_work(world)
    for method, body in (("PATCH", {"price": "1"}), ("DELETE", None)):
        await world.refused(404, "NOT_FOUND", "unknown_window", method, path, headers=stranger, json=body)
    stale = owner | {"if-match": '"9"'}
    await world.refused(409, "CONFLICT", "version_mismatch", "PATCH", path, headers=stale, json={"price": "1"})
    changed = await world.data("PATCH", path, headers=owner | {"if-match": '"1"'},
                               json={"price": "3", "starts_at": day(5), "territories": ["AU"]})  # fmt: skip
    assert (changed["price"], changed["territories"], changed["version"]) == ("3", ["AU"], 2)
    await made(world, owner, work, "tvod", first=10, last=20)
    back = {"territories": ["PG"]}
    await world.refused(409, "CONFLICT", "window_overlap", "PATCH", path, headers=owner, json=back)
    bad = {"ends_at": day(4)}
    await world.refused(400, "VALIDATION_ERROR", "bad_period", "PATCH", path, headers=owner, json=bad)
    assert (await world.data("DELETE", path, headers=owner))["status"] == "cancelled"
    await world.refused(409, "CONFLICT", "window_over", "DELETE", path, headers=owner)
    await world.refused(409, "CONFLICT", "window_over", "PATCH", path, headers=owner, json={"price": "1"})
    running = await made(world, owner, work, "svod", first=-5, last=20)
    path = f"{WINDOWS}/{running['id']}"
    await world.refused(409, "CONFLICT", "window_open", "PATCH", path, headers=owner, json=back)
    await world.refused(400, "VALIDATION_ERROR", "no_price", "PATCH", path, headers=owner, json={"price": "1"})
    assert (await world.data("PATCH", path, headers=owner, json={"ends_at": None}))["ends_at"] is None
    ended = await world.data("DELETE", path, headers=owner)
    assert ended["status"] == "closed" and ended["ends_at"] < day(1)
    assert not (await availability(world, work))["available"]
    assert (await told(world, running["id"])) == ["window.opened", "window.closed"]


async def test_who_has_no_exclusive_licence_shuts_nobody_out(world):
    _, owner, work = await owner_of_work(world)
    one_id, one = await studio(world)
    other_id, other = await studio(world)
    mine = await issued(world, owner, work, one_id, license_type="standard", territories=["PG"])
    theirs = await issued(world, owner, work, other_id, license_type="standard", territories=["PG"])
    right = {"license_id": mine["id"], "first": 1}
    shut = await window(world, one, work, exclusive=True, **right)
    assert reason(shut) == (400, "beyond_license") and shut.json()["error"]["details"]["field"] == "exclusive"
    planned = await made(world, one, work, **right)
    await world.refused(400, "VALIDATION_ERROR", "beyond_license", "PATCH", f"{WINDOWS}/{planned['id']}", headers=one,
                        json={"exclusive": True})  # fmt: skip
    await made(world, other, work, "avod", first=1, license_id=theirs["id"])
    await made(world, owner, work, "cinema", first=1)


async def test_exclusive_licence_gives_an_exclusive_window_and_one_below_it_does_not(world):
    _, owner, work = await owner_of_work(world)
    one_id, one = await studio(world)
    below_id, below = await studio(world)
    sole = await issued(world, owner, work, one_id, license_type="exclusive", sublicensing=True, duration="P90D")
    under = await issued(world, one, work, below_id, parent_license_id=sole["id"], duration="P60D")
    shut = await window(world, below, work, exclusive=True, license_id=under["id"], first=1)
    assert reason(shut) == (400, "beyond_license")
    await made(world, one, work, exclusive=True, license_id=sole["id"], first=1)
    assert reason(await window(world, owner, work, "cinema", first=1)) == (409, "window_overlap")


async def test_who_sold_a_work_exclusively_opens_no_window_within_what_was_sold(world):
    """Nor one that shuts nobody out: two who distribute a work are not exclusive. The owner, then the licensee who has
    given on what they have."""
    _, owner, work = await owner_of_work(world)
    one_id, one = await studio(world)
    below_id, below = await studio(world)
    before = await made(world, owner, work, "cinema", first=1, last=5)
    later = await made(world, owner, work, "avod", first=200, last=210)
    sole = await issued(world, owner, work, one_id, license_type="exclusive", sublicensing=True, duration="P90D",
                        territories=["PG", "AU"])  # fmt: skip
    clash = (409, "exclusivity_clash")
    assert reason(await window(world, owner, work, exclusive=True, first=6, last=85)) == clash
    assert reason(await window(world, owner, work, first=1, last=85)) == clash
    assert reason(await window(world, owner, work, first=1, ends_at=None, territories=["WW"])) == clash
    await made(world, owner, work, "tvod", first=1, territories=["NZ"])
    await made(world, owner, work, "tvod", first=100, last=110)

    # What stood before stands: it changes its price and its end, but takes no more.
    path = f"{WINDOWS}/{before['id']}"
    assert (await world.data("PATCH", path, headers=owner, json={"ends_at": day(4)}))["status"] == "scheduled"
    for wider in ({"ends_at": day(6)}, {"territories": ["PG", "AU"]}, {"starts_at": day(0)}, {"exclusive": True}):
        await world.refused(409, "CONFLICT", "exclusivity_clash", "PATCH", path, headers=owner, json=wider)
    await world.refused(409, "CONFLICT", "exclusivity_clash", "PATCH", f"{WINDOWS}/{later['id']}", headers=owner,
                        json={"starts_at": day(50)})  # fmt: skip

    under = await issued(world, one, work, below_id, parent_license_id=sole["id"], license_type="exclusive",
                         duration="P60D", territories=["PG"])  # fmt: skip
    mine, theirs = {"license_id": sole["id"]}, {"license_id": under["id"]}
    assert reason(await window(world, one, work, first=1, **mine)) == clash
    await made(world, one, work, first=1, territories=["AU"], **mine)
    await made(world, below, work, exclusive=True, first=6, **theirs)


async def test_studio_opens_windows_within_its_licence_to_distribute(world):
    _, owner, work = await owner_of_work(world)
    studio_id, bearer = await studio(world)
    _, other = await studio(world)
    held = await issued(world, owner, work, studio_id, territories=["PG", "AU"], duration="P90D")
    right = {"license_id": held["id"], "first": 1}
    assert reason(await window(world, bearer, work)) == (404, "unknown_work")
    assert reason(await window(world, other, work, **right)) == (404, "unknown_license")
    for wrong in ({"territories": ["NZ"]}, {"last": 100}, {"ends_at": None}, {"first": -2}):
        assert reason(await window(world, bearer, work, **right | wrong)) == (400, "beyond_license")
    adapt = await issued(world, owner, work, studio_id, scope=["adapt"])
    assert reason(await window(world, bearer, work, **right | {"license_id": adapt["id"]})) == (400, "beyond_license")
    planned = await made(world, bearer, work, **right)
    later = await made(world, bearer, work, first=40, last=50, license_id=held["id"])
    await moved(world, planned["id"], -2)
    await sweep(world)
    assert (await availability(world, work))["available"]
    await world.sql("UPDATE licensing.license SET status = 'suspended' WHERE id = $1", UUID(held["id"]))
    assert not (await availability(world, work))["available"], "a right that does not hold opens nothing"
    await world.sql("UPDATE licensing.license SET status = 'active' WHERE id = $1", UUID(held["id"]))
    body = {"reason": "Over."}
    await world.data("POST", f"/v1/licenses/{held['id']}/revoke", headers=keyed(owner), json=body)
    shown = await world.data("GET", f"/v1/works/{work['id']}/windows")
    assert [(row["id"], row["status"]) for row in shown] == [(planned["id"], "closed")]
    assert later["id"] not in [row["id"] for row in shown], "what was only planned is cancelled"
    assert await told(world, planned["id"]) == ["window.opened", "window.closed"]


async def test_who_has_a_licence_below_one_that_is_suspended_opens_no_window(world):
    work, parties, licences = await chain(world, 2)
    _, below = parties[2]
    right = {"license_id": licences[1]["id"], "first": 1}
    status = "UPDATE licensing.license SET status = $2 WHERE id = $1"
    await world.sql(status, UUID(licences[0]["id"]), "suspended")
    assert (await world.data("GET", f"/v1/licenses/{licences[1]['id']}", headers=below))["status"] == "active"
    assert reason(await window(world, below, work, **right)) == (403, "license_not_valid")
    await world.sql(status, UUID(licences[0]["id"]), "active")
    await made(world, below, work, **right)
