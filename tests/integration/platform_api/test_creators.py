"""Creators over HTTP and a real PostgreSQL: profile, sections, verification, followers, feed, analytics."""

from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest

from platform_api.creators import queries
from platform_api.creators.service import TREND_UNIT, trend_after
from tests.integration.platform_api.test_works import file_of

CREATORS = "/v1/creators"


async def creator(world, name="Ink", **fields):
    session, bearer = await world.sign_in()
    made = await world.data("POST", CREATORS, headers=bearer, json={"display_name": name} | fields)
    return made, session, bearer


async def test_creator_is_made_once_and_gets_the_role(world):
    session, bearer = await world.sign_in()
    body = {"display_name": "Ink", "category": "literature", "bio": "Line one.\nLine two."}
    key = bearer | {"idempotency-key": uuid4().hex}
    made = await world.data("POST", CREATORS, headers=key, json=body)
    assert made["verification_status"] == "unsubmitted" and made["follower_count"] == 0
    assert await world.data("POST", CREATORS, headers=key, json=body) == made  # the first answer again
    await world.refused(409, "CONFLICT", "idempotency_key_reuse", "POST", CREATORS, headers=key,
                        json=body | {"bio": ""})  # fmt: skip
    await world.refused(409, "CONFLICT", "already_creator", "POST", CREATORS, headers=bearer, json=body)
    assert "creator" in (await world.data("GET", "/v1/auth/session", headers=bearer))["roles"]
    assert await world.data("GET", f"{CREATORS}/{made['id']}") == made  # without a token
    await world.refused(401, "UNAUTHORIZED", "token_missing", "POST", CREATORS, json=body)


@pytest.mark.parametrize(
    "wrong",
    [{"display_name": ""}, {"display_name": "x" * 101}, {"display_name": "a\u0000b"}, {"display_name": "a\n"},
     {"display_name": "a\u202eb"}, {"category": "nonsense"}, {"category": "drama"}, {"avatar_url": "http://x.example/"},
     {"avatar_url": "javascript:alert(1)"}, {"bio": "\u0007"}, {"creator_type": "robot"}, {"owner": "me"}],
)  # fmt: skip
async def test_malformed_creator_is_refused(world, wrong):
    _, bearer = await world.sign_in()
    body = {"display_name": "Ink"} | wrong
    answer = await world.client.post(CREATORS, headers=bearer, json=body)
    assert answer.status_code == 400 and answer.json()["error"]["details"]["field"] == next(iter(wrong))


async def test_text_that_cannot_be_kept_is_the_callers_fault(world):
    _, bearer = await world.sign_in()
    answer = await world.client.patch("/v1/users/me", headers=bearer, json={"bio": "\u0000"})
    assert answer.status_code == 400 and answer.json()["error"]["details"]["reason"] in ("invalid", "bad_character")
    await world.refused(400, "VALIDATION_ERROR", "invalid", "PATCH", "/v1/users/me", headers=bearer,
                        json={"username": "abcd\n"})  # fmt: skip
    for path in (f"{CREATORS}/search?q=%00", f"{CREATORS}/%00", f"{CREATORS}/{uuid4()}%0a", f"{CREATORS}?category=%00"):
        assert (await world.client.get(path)).status_code in (400, 404), path


async def test_profile_changes_with_its_version_and_only_by_its_owner(world):
    made, _, bearer = await creator(world)
    path = f"{CREATORS}/{made['id']}"
    answer = await world.client.patch(path, headers=bearer | {"if-match": '"1"'}, json={"category": "music"})
    assert answer.headers["etag"] == '"2"' and answer.json()["data"]["category"] == "music"
    await world.refused(409, "CONFLICT", "version_mismatch", "PATCH", path, headers=bearer | {"if-match": '"1"'},
                        json={"bio": "late"})  # fmt: skip
    assert (await world.data("PATCH", path, headers=bearer, json={"category": None}))["category"] is None
    _, _, other = await creator(world, "Quill")
    await world.refused(404, "NOT_FOUND", "unknown_creator", "PATCH", path, headers=other, json={"bio": "mine"})
    (entry,) = await world.sql(
        "SELECT old_values, new_values FROM kernel.audit_entry WHERE resource_id = $1 AND action = 'creator.changed'"
        " ORDER BY position LIMIT 1", made["id"],
    )  # fmt: skip
    assert "music" in entry["new_values"] and "music" not in entry["old_values"]


async def test_sections_are_replaced_as_a_whole(world):
    made, _, bearer = await creator(world)
    path = f"{CREATORS}/{made['id']}/profile-sections"
    empty = await world.data("GET", path)
    assert empty["skills"] == [] and empty["versions"] == {}
    bodies = {
        "skills": {"name": "Dialogue", "level": "expert", "years": 7},
        "achievements": {"title": "Serial of the year", "achieved": "2024-09"},
        "experiences": {"organization": "House", "role": "Editor", "since": "2019", "until": "2023-04"},
        "education": {"institution": "Academy", "degree": "MA"},
        "sections": {"title": "How I work", "body": "Slowly.\n\nThen fast."},
    }
    for section, item in bodies.items():
        saved = await world.data("PUT", f"{path}/{section}", headers=bearer, json={"items": [item, item]})
        assert (saved["count"], saved["version"]) == (2, 1)
    found = await world.data("GET", path)
    for section, item in bodies.items():
        assert all(found[section][1][name] == value for name, value in item.items())
    skills = ("PUT", f"{path}/skills")
    stale = bearer | {"if-match": '"0"'}
    await world.refused(409, "CONFLICT", "version_mismatch", *skills, headers=stale, json={"items": []})
    assert (await world.data(*skills, headers=bearer | {"if-match": '"1"'}, json={"items": []}))["version"] == 2
    assert (await world.data("GET", path))["skills"] == []
    await world.refused(400, "VALIDATION_ERROR", "invalid", *skills, headers=bearer,
                        json={"items": [{"name": "x"}] * 101})  # fmt: skip
    _, _, other = await creator(world, "Quill")
    await world.refused(404, "NOT_FOUND", "unknown_creator", *skills, headers=other, json={"items": []})


async def test_followers_are_counted_from_events_and_once_each(world):
    made, _, bearer = await creator(world)
    path = f"{CREATORS}/{made['id']}/follow"
    fans = [(await world.sign_in())[1] for _ in range(3)]
    for fan in fans:
        await world.data("POST", path, headers=fan)
        await world.data("POST", path, headers=fan)
    await world.data("DELETE", path, headers=fans[0])
    await world.data("DELETE", path, headers=fans[0])
    assert (await world.data("GET", f"{CREATORS}/{made['id']}"))["follower_count"] == 0  # a request counts nothing
    await world.settle()
    assert (await world.data("GET", f"{CREATORS}/{made['id']}"))["follower_count"] == 2
    await world.refused(409, "CONFLICT", "own_creator", "POST", path, headers=bearer)
    (followed,) = await world.data("GET", "/v1/users/me/following", headers=fans[1])
    assert followed["creator"]["id"] == made["id"]
    assert await world.data("GET", "/v1/users/me/following", headers=fans[0]) == []

    trend = "SELECT trend FROM creators.tally WHERE creator_id = $1"
    before = await world.sql(trend, UUID(made["id"]))
    await world.data("POST", path, headers=fans[0])  # comes back: a follower, but no news
    await world.settle()
    assert await world.sql(trend, UUID(made["id"])) == before

    numbers = await world.data("GET", f"{CREATORS}/{made['id']}/analytics", headers=bearer)
    assert numbers["follower_count"] == 3
    assert numbers["totals"]["followers_gained"] == 4 and numbers["totals"]["followers_lost"] == 1
    assert [day["day"] for day in numbers["days"]] == [numbers["until"]]
    await world.refused(403, "FORBIDDEN", "permission_missing", "GET", f"{CREATORS}/{made['id']}/analytics",
                        headers=fans[0])  # fmt: skip
    _, _, other = await creator(world, "Quill")
    await world.refused(404, "NOT_FOUND", "unknown_creator", "GET", f"{CREATORS}/{made['id']}/analytics",
                        headers=other)  # fmt: skip
    backwards = f"{CREATORS}/{made['id']}/analytics?since=2026-02-01&until=2026-01-01"
    await world.refused(400, "VALIDATION_ERROR", "bad_period", "GET", backwards, headers=bearer)


async def test_verification_is_decided_by_somebody_else(world):
    made, session, bearer = await creator(world)
    path = f"{CREATORS}/{made['id']}/verification"
    await world.refused(404, "NOT_FOUND", "unknown_verification", "GET", path, headers=bearer)
    strange = {"statement": "Me.", "portfolio_work_ids": [str(uuid4())]}
    await world.refused(400, "VALIDATION_ERROR", "unknown_work", "POST", path, headers=bearer, json=strange)
    document = await file_of(world, bearer, b"%PDF-1.7 " + bytes(50), "application/pdf")
    forger, _, foreign = await creator(world, "Forger")
    await world.refused(400, "VALIDATION_ERROR", "unknown_file", "POST", f"{CREATORS}/{forger['id']}/verification",
                        headers=foreign, json={"statement": "Me.", "file_ids": [document["id"]]})  # fmt: skip
    case = await world.data("POST", path, headers=bearer, json={"statement": "I am Ink.", "file_ids": [document["id"]]})
    assert case["status"] == "pending"
    await world.refused(409, "CONFLICT", "verification_pending", "POST", path, headers=bearer, json={"statement": "x"})

    decide = ("POST", f"/v1/admin/creators/{made['id']}/verification-decision")
    await world.refused(403, "FORBIDDEN", "permission_missing", *decide, headers=bearer, json={"decision": "approve"})
    await world.grant(session["account_id"], "admin")
    await world.refused(403, "FORBIDDEN", "own_account", *decide, headers=bearer, json={"decision": "approve"})
    staff, admin = await world.sign_in()
    await world.grant(staff["account_id"], "admin", ["users"])
    waiting = await world.data("GET", "/v1/admin/verifications?type=creator&limit=200", headers=admin)
    (entry,) = [entry for entry in waiting if entry["id"] == case["id"]]
    assert entry["file_ids"] == [document["id"]]
    shown = await world.client.get(entry["file_urls"][0]["url"])
    assert shown.content == b"%PDF-1.7 " + bytes(50)
    await world.refused(400, "VALIDATION_ERROR", "missing", *decide, headers=admin, json={"decision": "reject"})
    await world.data(*decide, headers=admin, json={"decision": "reject", "reason": "Not you."})
    await world.refused(409, "CONFLICT", "not_pending", *decide, headers=admin, json={"decision": "approve"})
    assert (await world.data("GET", path, headers=bearer))["reason"] == "Not you."
    await world.data("POST", path, headers=bearer, json={"statement": "Now with proof."})
    await world.data(*decide, headers=admin, json={"decision": "approve"})
    assert (await world.data("GET", f"{CREATORS}/{made['id']}"))["verification_status"] == "verified"
    await world.refused(409, "CONFLICT", "verification_verified", "POST", path, headers=bearer, json={"statement": "x"})
    _, _, other = await creator(world, "Quill")
    await world.refused(404, "NOT_FOUND", "unknown_verification", "GET", path, headers=other)


@pytest.mark.parametrize("world", [{"verify_creators_at_once": True, "portfolio_needed": True}], indirect=True)
async def test_settings_decide_what_a_verification_needs(world):
    made, _, bearer = await creator(world)
    path = f"{CREATORS}/{made['id']}/verification"
    await world.refused(400, "VALIDATION_ERROR", "missing", "POST", path, headers=bearer, json={"statement": "x"})


@pytest.mark.parametrize("world", [{"verify_creators_at_once": True}], indirect=True)
async def test_verified_at_once_where_the_settings_say_so(world):
    made, _, bearer = await creator(world)
    path = f"{CREATORS}/{made['id']}/verification"
    assert (await world.data("POST", path, headers=bearer, json={"statement": "x"}))["status"] == "verified"


async def test_lists_have_no_gap_and_no_repeat_in_any_order(world):
    word = "w" + uuid4().hex
    made = [(await creator(world, f"{word} {n % 3}", category="comics"))[0] for n in range(7)]
    fans = [(await world.sign_in())[1] for _ in range(2)]
    for index, entry in enumerate(made):
        for fan in fans[: index % 3]:
            await world.data("POST", f"{CREATORS}/{entry['id']}/follow", headers=fan)
    await world.settle()
    ids = {entry["id"] for entry in made}
    for query in ("?sort=newest&category=comics", "?sort=followers&category=comics", "?sort=trending&category=comics",
                  "?sort=name&category=comics", f"/search?q={word}"):  # fmt: skip
        found, cursor = [], ""
        while True:
            answer = (await world.client.get(f"{CREATORS}{query}&limit=3{cursor}")).json()
            found += answer["data"]
            if answer["pagination"]["next_cursor"] is None:
                break
            cursor = "&cursor=" + answer["pagination"]["next_cursor"]
        assert [entry["id"] for entry in found if entry["id"] in ids].__len__() == 7, query
        assert len(found) == len({entry["id"] for entry in found}), query
        if "followers" in query:
            counts = [entry["follower_count"] for entry in found]
            assert counts == sorted(counts, reverse=True)
        if "name" in query:
            names = [entry["display_name"].lower() for entry in found]
            assert names == sorted(names)
    await world.refused(400, "VALIDATION_ERROR", "bad_cursor", "GET", f"{CREATORS}?sort=name{cursor}")


async def test_names_in_any_letters_stand_on_one_page_each(world):
    """PostgreSQL's small letters are not Python's: a capital Σ that ends a word is σ to the one and ς to the other."""
    names = ["ΟΔΟΣ", "Österreich", "Ärmel", "Zoe", "İnk", "𝕬" * 100]
    made = {(await creator(world, name, category="games"))[0]["id"] for name in names}
    found, cursor = [], ""
    while cursor is not None and len(found) <= len(names):
        answer = (await world.client.get(f"{CREATORS}?sort=name&category=games&limit=1{cursor}")).json()
        found += [entry["id"] for entry in answer["data"]]
        cursor = answer["pagination"]["next_cursor"] and "&cursor=" + answer["pagination"]["next_cursor"]
    assert len(found) == len(names) and set(found) == made


async def test_search_finds_beginnings(world):
    word = "z" + uuid4().hex
    made, _, _ = await creator(world, f"Anna {word}", bio="Watercolours")
    found = await world.data("GET", f"{CREATORS}/search?q=anna {word[:12]}")
    assert [entry["id"] for entry in found] == [made["id"]]
    await world.refused(400, "VALIDATION_ERROR", "invalid", "GET", f"{CREATORS}/search?q={'x' * 201}")


async def test_of_more_matches_than_are_ranked_the_most_followed_are(world, monkeypatch):
    monkeypatch.setattr(queries, "CANDIDATES_MAX", 2)
    word = "z" + uuid4().hex
    made = [(await creator(world, name, bio=f"About {word}"))[0] for name in (word, "One", "Two", "Three")]
    for number, fans in ((2, 2), (3, 1)):
        for _ in range(fans):
            _, fan = await world.sign_in()
            await world.data("POST", f"{CREATORS}/{made[number]['id']}/follow", headers=fan)
    await world.settle()
    found = await world.data("GET", f"{CREATORS}/search?q={word}")
    assert {entry["id"] for entry in found} == {made[2]["id"], made[3]["id"]}


async def test_feed_is_of_those_followed_and_of_the_trending_for_others(world):
    made, _, _ = await creator(world, "Feeder")
    await creator(world, "Unfollowed")
    await world.settle()
    _, fan = await world.sign_in()
    everything = await world.data("GET", f"{CREATORS}/feed?limit=200")
    assert everything and await world.data("GET", f"{CREATORS}/feed?limit=200", headers=fan) == everything
    await world.data("POST", f"{CREATORS}/{made['id']}/follow", headers=fan)
    (activity,) = await world.data("GET", f"{CREATORS}/feed", headers=fan)
    assert (activity["creator_id"], activity["type"], activity["title"]) == (
        made["id"], "creator.registered", "Feeder",
    )  # fmt: skip


def test_trend_keeps_its_order_over_time_and_newer_events_weigh_more():
    now = datetime(2026, 1, 2, tzinfo=UTC)
    one, two = trend_after(0, 1, now), trend_after(trend_after(0, 1, now), 1, now)
    assert two - one == pytest.approx(TREND_UNIT)  # twice the weight is one more in log2
    later = trend_after(0, 1, now + timedelta(days=3))
    assert later == pytest.approx(two, abs=2)  # half a life later one event weighs like two before
    assert trend_after(one, 4, now - timedelta(days=3)) < trend_after(one, 4, now)


async def test_genres_and_categories_are_listed(world):
    assert {"code": "drama", "name": "Drama"} in await world.data("GET", "/v1/genres")
    assert (await world.data("GET", "/v1/categories"))[0] == {"code": "literature", "name": "Literature"}
