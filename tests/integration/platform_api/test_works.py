"""Works over HTTP and a real PostgreSQL: versions, chapters, files, collaborators, offers, publication, search."""

import asyncio
import hashlib
import json
import unicodedata
from uuid import UUID, uuid4

import asyncpg
import pytest

from platform_api.errors import ApiError
from platform_api.money import units_of
from platform_api.works import finding
from platform_api.works.chapters import checked_body
from platform_api.works.collaborators import who_must_agree
from tests.support.api import opened
from tests.support.files import movie, png
from tests.unit.platform_api.test_sui_signature import Wallet

WORKS = "/v1/works"
TEXT = "The letter was heavier than it looked. " * 4


async def creator(world, name="Ink"):
    session, bearer = await world.sign_in()
    made = await world.data("POST", "/v1/creators", headers=bearer, json={"display_name": name})
    return made, session["account_id"], bearer


async def story(world, bearer, title="The Ink Road", **fields):
    return await world.data("POST", WORKS, headers=bearer, json={"kind": "story", "title": title} | fields)


async def chapter(world, bearer, work, title="One", body=TEXT, **fields):
    path = f"{WORKS}/{work['id']}/chapters"
    return await world.data("POST", path, headers=bearer, json={"title": title, "body": body} | fields)


async def published(world, bearer, title="The Ink Road", **fields):
    work = await story(world, bearer, title, **fields)
    made = await chapter(world, bearer, work)
    await world.data("POST", f"/v1/chapters/{made['id']}/publish", headers=bearer)
    return await world.data("POST", f"{WORKS}/{work['id']}/publish", headers=bearer), made


async def case_of(world, staff, work):
    """What waits of the work for a decision, as staff sees it."""
    cursor = ""
    while cursor is not None:
        path = f"/v1/admin/verifications?type=work&limit=200{cursor}"
        answer = (await world.client.get(path, headers=staff)).json()
        for case in answer["data"]:
            if case["subject_id"] == work["id"]:
                return case
        token = answer["pagination"]["next_cursor"]
        cursor = f"&cursor={token}" if token else None
    raise AssertionError(f"nothing waits of {work['id']}")


async def decided(world, staff, work, decision="approve", case=None):
    """Of the case as it waits now, unless another was looked at."""
    case = case or await case_of(world, staff, work)
    body = {"decision": decision, "reason": "As it is.", "case_id": case["id"], "case_version": case["version"]}
    return await world.data("POST", f"/v1/admin/works/{work['id']}/verification-decision", headers=staff, json=body)


async def file_of(world, bearer, content, type_="image/png"):
    body = {"name": "file", "content_type": type_, "size_bytes": len(content)}
    upload = await world.data("POST", "/v1/uploads", headers=bearer, json=body)
    path = f"/v1/uploads/{upload['id']}"
    binary = bearer | {"content-type": "application/octet-stream"}
    await world.data("PUT", f"{path}/parts/1", headers=binary, content=content)
    await world.data("POST", f"{path}/complete", headers=bearer)
    await world.settle()
    return (await world.data("GET", path, headers=bearer))["file"]


async def test_work_is_a_draft_that_only_those_inside_see(world):
    made, _, bearer = await creator(world)
    key = bearer | {"idempotency-key": uuid4().hex}
    metadata = {"duration_seconds": 5400, "credits": [{"name": "Ada", "role": "Director"}], "year": 2026}
    body = {"kind": "film", "title": "Rain", "genres": ["drama", "drama"], "tags": ["rain"], "metadata": metadata}
    work = await world.data("POST", WORKS, headers=key, json=body)
    assert await world.data("POST", WORKS, headers=key, json=body) == work
    assert (work["status"], work["content_version"], work["creator_id"]) == ("draft", 1, made["id"])
    assert work["genres"] == ["drama"] and work["metadata"] == body["metadata"]
    path = f"{WORKS}/{work['id']}"
    assert await world.data("GET", path, headers=bearer) == work
    _, _, other = await creator(world, "Quill")
    for headers in ({}, other):
        await world.refused(404, "NOT_FOUND", "unknown_work", "GET", path, headers=headers)
    (own,) = await world.data("GET", f"{WORKS}?status=draft", headers=bearer)
    assert own["id"] == work["id"] and await world.data("GET", f"{WORKS}?status=draft", headers=other) == []
    await world.refused(401, "UNAUTHORIZED", "token_missing", "GET", f"{WORKS}?status=draft")
    _, reader = await world.sign_in()
    await world.refused(403, "FORBIDDEN", "permission_missing", "POST", WORKS, headers=reader, json=body)


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [({"title": ""}, "invalid"), ({"title": "x" * 256}, "invalid"), ({"title": "a\u0000"}, "invalid"),
     ({"kind": "opera"}, "invalid"), ({"genres": ["nonsense"]}, "unlisted"), ({"category": "drama"}, "unlisted"),
     ({"metadata": {"page_count": 3}}, "wrong_kind"), ({"metadata": {"size": 3}}, "invalid"),
     ({"tags": ["x"] * 31}, "invalid"), ({"language": "EN\n"}, "invalid"), ({"status": "published"}, "invalid")],
)  # fmt: skip
async def test_malformed_work_is_refused(world, wrong, reason):
    _, _, bearer = await creator(world)
    body = {"kind": "story", "title": "x"} | wrong
    await world.refused(400, "VALIDATION_ERROR", reason, "POST", WORKS, headers=bearer, json=body)


async def test_every_change_makes_a_version_that_stays_for_ever(world):
    _, _, bearer = await creator(world)
    work = await story(world, bearer, description="First.", metadata={"maturity": "teen"})
    path = f"{WORKS}/{work['id']}"
    stale = bearer | {"if-match": f'"{work["version"] - 1}"'}
    await world.refused(409, "CONFLICT", "version_mismatch", "PATCH", path, headers=stale, json={"title": "No"})
    answer = await world.client.patch(
        path, headers=bearer | {"if-match": f'"{work["version"]}"'}, json={"title": "Two", "change_note": "renamed"}
    )
    changed = answer.json()["data"]
    assert changed["content_version"] == 2 and answer.headers["etag"] == f'"{changed["version"]}"'
    assert changed["metadata"] == {"maturity": "teen"} and changed["description"] == "First."
    await world.refused(400, "VALIDATION_ERROR", "wrong_kind", "PATCH", path, headers=bearer,
                        json={"metadata": {"year": 1}})  # fmt: skip
    again = await world.data("PATCH", path, headers=bearer, json={"title": "Two"})
    assert again["content_version"] == 2  # nothing is another
    two, one = await world.data("GET", f"{path}/versions", headers=bearer)
    assert (two["number"], two["change_note"], json.loads(one["content"])["title"]) == (2, "renamed", "The Ink Road")
    for version in (one, two):
        assert hashlib.sha256(version["content"].encode()).hexdigest() == version["sha256"]
    for statement in ("UPDATE works.work_version SET change_note = 'x'", "DELETE FROM works.work_version"):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await world.sql(f"{statement} WHERE work_id = $1", UUID(work["id"]))
    await world.data("DELETE", path, headers=bearer)
    await world.refused(404, "NOT_FOUND", "unknown_work", "GET", path, headers=bearer)
    assert len(await world.sql("SELECT 1 FROM works.work_version WHERE work_id = $1", UUID(work["id"]))) == 2


@pytest.mark.parametrize("length", [99, 10_001, 100_000])
async def test_chapter_of_another_length_is_refused_with_the_numbers(world, length):
    _, _, bearer = await creator(world)
    work = await story(world, bearer)
    refused = await world.refused(
        400, "INVALID_CONTENT_FORMAT", "chapter_length", "POST", f"{WORKS}/{work['id']}/chapters", headers=bearer,
        json={"title": "One", "body": "x" * length},
    )  # fmt: skip
    assert refused.json()["error"]["details"] == {
        "reason": "chapter_length", "field": "body", "current_length": length, "min_length": 100, "max_length": 10_000,
    }  # fmt: skip


def test_characters_are_counted_after_they_are_composed():
    decomposed = unicodedata.normalize("NFD", "é" * 10_000)
    assert len(decomposed) == 20_000 and checked_body(decomposed) == "é" * 10_000
    assert checked_body("😀" * 100) == "😀" * 100  # code points, not UTF-16 units or bytes
    for text in (unicodedata.normalize("NFD", "é" * 99), "😀" * 10_001):
        with pytest.raises(ApiError, match="must have 100 to 10000"):
            checked_body(text)


async def test_a_chapter_of_the_greatest_length_is_taken_however_it_is_written(world):
    """As decomposed letters, and as JSON of ASCII alone, which Python's writes: twelve bytes for a letter."""
    _, _, bearer = await creator(world)
    work = await story(world, bearer)
    headers, path = bearer | {"content-type": "application/json"}, f"{WORKS}/{work['id']}/chapters"
    hangul = "".join(chr(0xAC01 + number % 500) for number in range(10_000))
    for text in (unicodedata.normalize("NFD", hangul), "\u1f82" * 10_000, "\U00010330" * 10_000):
        for ascii_alone in (False, True):
            content = json.dumps({"title": "One", "body": unicodedata.normalize("NFD", text)}, ensure_ascii=ascii_alone)
            made = await world.data("POST", path, headers=headers, content=content.encode())
            shown = await world.data("GET", f"{path}/{made['id']}", headers=bearer)
            assert shown["body"] == unicodedata.normalize("NFC", text)
    too_long = json.dumps({"title": "One", "body": "\U00010330" * 10_001}).encode()
    await world.refused(400, "INVALID_CONTENT_FORMAT", "chapter_length", "POST", path, headers=headers,
                        content=too_long)  # fmt: skip


async def test_chapters_keep_their_places_without_a_gap(world):
    _, _, bearer = await creator(world)
    work = await story(world, bearer)
    path = f"{WORKS}/{work['id']}/chapters"
    made = await asyncio.gather(*(chapter(world, bearer, work, title) for title in "ABCDE"))
    assert sorted(entry["number"] for entry in made) == [1, 2, 3, 4, 5]
    by_title = {entry["title"]: entry for entry in made}

    async def titles():
        found = await world.data("GET", path, headers=bearer)
        assert [entry["number"] for entry in found] == list(range(1, len(found) + 1))
        return [entry["title"] for entry in found]

    order = await titles()
    first, last = by_title[order[0]], by_title[order[4]]
    await world.data("PATCH", f"/v1/chapters/{last['id']}", headers=bearer, json={"number": 2})
    assert await titles() == [order[0], order[4], order[1], order[2], order[3]]
    await world.data("PATCH", f"/v1/chapters/{first['id']}", headers=bearer, json={"number": 5})
    assert await titles() == [order[4], order[1], order[2], order[3], order[0]]
    await world.refused(400, "VALIDATION_ERROR", "no_such_place", "PATCH", f"/v1/chapters/{first['id']}",
                        headers=bearer, json={"number": 6})  # fmt: skip
    await world.data("DELETE", f"/v1/chapters/{by_title[order[1]]['id']}", headers=bearer)
    assert await titles() == [order[4], order[2], order[3], order[0]]
    page = (await world.client.get(f"{path}?limit=3", headers=bearer)).json()
    rest = await world.data("GET", f"{path}?limit=3&cursor={page['pagination']['next_cursor']}", headers=bearer)
    assert [entry["title"] for entry in rest] == [order[0]]
    film = await world.data("POST", WORKS, headers=bearer, json={"kind": "film", "title": "Rain"})
    await world.refused(409, "CONFLICT", "no_chapters", "POST", f"{WORKS}/{film['id']}/chapters", headers=bearer,
                        json={"title": "One", "body": TEXT})  # fmt: skip


async def test_readers_get_previews_and_makers_everything(world):
    _, _, bearer = await creator(world)
    work, first = await published(world, bearer)
    preview = await chapter(world, bearer, work, "Two", preview=True)
    draft = await chapter(world, bearer, work, "Three")
    await world.data("POST", f"/v1/chapters/{preview['id']}/publish", headers=bearer)
    path = f"{WORKS}/{work['id']}/chapters"
    assert [entry["title"] for entry in await world.data("GET", path)] == ["One", "Two"]
    locked = await world.data("GET", f"{path}/{first['id']}")
    assert locked["locked"] and locked["body"] is None
    assert locked["sha256"] == hashlib.sha256(TEXT.encode()).hexdigest()  # who has the text can check it
    assert (await world.data("GET", f"{path}/{preview['id']}"))["body"] == TEXT
    assert (await world.data("GET", f"{path}/{first['id']}", headers=bearer))["body"] == TEXT
    await world.refused(404, "NOT_FOUND", "unknown_chapter", "GET", f"{path}/{draft['id']}")
    await world.refused(404, "NOT_FOUND", "unknown_chapter", "GET", f"{WORKS}/{uuid4()}/chapters/{preview['id']}")
    await world.data("POST", f"/v1/chapters/{preview['id']}/unpublish", headers=bearer)
    await world.refused(404, "NOT_FOUND", "unknown_chapter", "GET", f"{path}/{preview['id']}")

    edited = await world.data("PATCH", f"/v1/chapters/{first['id']}", headers=bearer, json={"body": TEXT + "More."})
    assert edited["content_version"] == 2
    same = await world.data("PATCH", f"/v1/chapters/{first['id']}", headers=bearer, json={"body": TEXT + "More."})
    assert same["content_version"] == 2  # the same text is no new version
    two, one = await world.data("GET", f"/v1/chapters/{first['id']}/versions", headers=bearer)
    assert one["sha256"] == locked["sha256"] != two["sha256"]
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await world.sql("UPDATE works.chapter_version SET body = 'x' WHERE chapter_id = $1", UUID(first["id"]))


async def test_publication_needs_content_and_tells_followers(world):
    made, _, bearer = await creator(world)
    work = await story(world, bearer)
    publish = ("POST", f"{WORKS}/{work['id']}/publish")
    await world.refused(409, "CONFLICT", "nothing_to_publish", *publish, headers=bearer)
    entry = await chapter(world, bearer, work)
    await world.refused(409, "CONFLICT", "nothing_to_publish", *publish, headers=bearer)  # a draft is not enough
    await world.data("POST", f"/v1/chapters/{entry['id']}/publish", headers=bearer)
    key = bearer | {"idempotency-key": uuid4().hex}
    shown = await world.data(*publish, headers=key)
    assert shown["status"] == "published" and shown["published_at"]
    assert await world.data(*publish, headers=key) == shown
    await world.refused(409, "CONFLICT", "not_draft", *publish, headers=bearer)
    second = await chapter(world, bearer, work, "Two")
    for _ in range(2):
        await world.data("POST", f"/v1/chapters/{second['id']}/publish", headers=bearer)
    await world.settle()
    assert (await world.data("GET", f"/v1/creators/{made['id']}"))["work_count"] == 1
    numbers = await world.data("GET", f"/v1/creators/{made['id']}/analytics", headers=bearer)
    assert numbers["totals"]["works_published"] == 1 and numbers["totals"]["chapters_published"] == 1
    _, fan = await world.sign_in()
    await world.data("POST", f"/v1/creators/{made['id']}/follow", headers=fan)
    feed = await world.data("GET", "/v1/creators/feed", headers=fan)
    assert [entry["type"] for entry in feed] == ["chapter.published", "work.published", "creator.registered"]
    assert [entry["id"] for entry in await world.data("GET", f"/v1/creators/{made['id']}/works")] == [work["id"]]
    case = {"statement": "Me.", "portfolio_work_ids": [work["id"]]}
    await world.data("POST", f"/v1/creators/{made['id']}/verification", headers=bearer, json=case)

    async def told():
        return [entry["type"] for entry in await world.data("GET", "/v1/creators/feed", headers=fan)]

    await world.data("POST", f"/v1/chapters/{second['id']}/unpublish", headers=bearer)
    assert await told() == ["work.published", "creator.registered"]
    await world.data("POST", f"{WORKS}/{work['id']}/archive", headers=bearer)
    assert await told() == ["creator.registered"]
    await world.refused(404, "NOT_FOUND", "unknown_work", "GET", f"{WORKS}/{work['id']}", headers=fan)
    await world.refused(409, "CONFLICT", "not_editable", "PATCH", f"{WORKS}/{work['id']}", headers=bearer,
                        json={"title": "No"})  # fmt: skip
    await world.settle()
    assert (await world.data("GET", f"/v1/creators/{made['id']}"))["work_count"] == 0


async def test_what_was_sold_is_archived_but_never_deleted(world):
    _, _, bearer = await creator(world)
    work, _ = await published(world, bearer)
    await world.sql("UPDATE works.work SET sold = true WHERE id = $1", UUID(work["id"]))
    await world.refused(409, "CONFLICT", "sold", "DELETE", f"{WORKS}/{work['id']}", headers=bearer)
    await world.data("POST", f"{WORKS}/{work['id']}/archive", headers=bearer)


@pytest.mark.parametrize(
    "kind, fits, strange",
    [("film", movie(), png(bytes(20))), ("audio", b"fLaC" + bytes(50), png(bytes(20))),
     ("document", b"%PDF-1.7 " + bytes(50), b"fLaC" + bytes(50)), ("course", png(bytes(20)), None)],
    ids=["film", "audio", "document", "course"],
)  # fmt: skip
async def test_a_master_is_what_the_kind_of_its_work_is(world, kind, fits, strange):
    types = {movie()[:4]: "video/mp4", b"fLaC": "audio/flac", b"%PDF": "application/pdf", png()[:4]: "image/png"}
    _, _, bearer = await creator(world)
    work = await world.data("POST", WORKS, headers=bearer, json={"kind": kind, "title": "Itself"})
    path = f"{WORKS}/{work['id']}/assets"
    for content, is_taken in ((strange, False), (fits, True)):
        if content is None:
            continue
        file = await file_of(world, bearer, content, types[content[:4]])
        body = {"role": "master", "file_id": file["id"]}
        if is_taken:
            assert (await world.data("POST", path, headers=bearer, json=body))["role"] == "master"
        else:
            await world.refused(400, "VALIDATION_ERROR", "wrong_type", "POST", path, headers=bearer, json=body)


async def test_files_have_roles_and_posters_get_public_with_the_work(world):
    _, _, bearer = await creator(world)
    work = await world.data("POST", WORKS, headers=bearer, json={"kind": "document", "title": "Manual"})
    path = f"{WORKS}/{work['id']}"
    poster = await file_of(world, bearer, png(bytes(20)))
    master = await file_of(world, bearer, b"%PDF-1.7 " + bytes(50), "application/pdf")
    wrong = {"role": "poster", "file_id": master["id"]}
    await world.refused(400, "VALIDATION_ERROR", "wrong_type", "POST", f"{path}/assets", headers=bearer, json=wrong)
    shown = await world.data("POST", f"{path}/assets", headers=bearer, json={"role": "poster", "file_id": poster["id"]})
    kept = await world.data("POST", f"{path}/assets", headers=bearer, json={"role": "master", "file_id": master["id"]})
    await world.refused(409, "CONFLICT", "asset_exists", "POST", f"{path}/assets", headers=bearer,
                        json={"role": "master", "file_id": master["id"]})  # fmt: skip
    _, _, other = await creator(world, "Quill")
    foreign = await world.data("POST", WORKS, headers=other, json={"kind": "document", "title": "Stolen"})
    await world.refused(400, "VALIDATION_ERROR", "unknown_file", "POST", f"{WORKS}/{foreign['id']}/assets",
                        headers=other, json={"role": "master", "file_id": master["id"]})  # fmt: skip
    url = ("GET", f"/v1/files/{poster['id']}/url")
    await world.refused(404, "NOT_FOUND", "unknown_file", *url)
    await world.data("POST", f"{path}/publish", headers=bearer)
    await world.data(*url)
    await world.refused(404, "NOT_FOUND", "unknown_file", "GET", f"/v1/files/{master['id']}/url")
    assert [asset["role"] for asset in await world.data("GET", f"{path}/assets")] == ["poster"]
    assert len(await world.data("GET", f"{path}/assets", headers=bearer)) == 2
    three, two, one = await world.data("GET", f"{path}/versions", headers=bearer)
    assert [len(json.loads(version["content"])["files"]) for version in (one, two, three)] == [0, 1, 2]
    await world.refused(409, "CONFLICT", "last_master", "DELETE", f"{path}/assets/{kept['id']}", headers=bearer)
    await world.data("DELETE", f"{path}/assets/{shown['id']}", headers=bearer)
    await world.refused(404, "NOT_FOUND", "unknown_file", *url)


async def test_a_file_of_two_works_is_for_everybody_while_a_published_one_shows_it(world):
    _, _, bearer = await creator(world)
    (shown, _), (also, _) = await published(world, bearer, "One"), await published(world, bearer, "Two")
    draft = await story(world, bearer, "Three")
    poster = await file_of(world, bearer, png(bytes(20)))
    body = {"role": "poster", "file_id": poster["id"]}
    assets = {
        work["id"]: await world.data("POST", f"{WORKS}/{work['id']}/assets", headers=bearer, json=body)
        for work in (draft, shown, also)
    }
    url = ("GET", f"/v1/files/{poster['id']}/url")
    await world.data(*url)
    await world.data("POST", f"{WORKS}/{shown['id']}/archive", headers=bearer)
    await world.data(*url)  # the other one shows it
    await world.data("DELETE", f"{WORKS}/{also['id']}/assets/{assets[also['id']]['id']}", headers=bearer)
    await world.refused(404, "NOT_FOUND", "unknown_file", *url)  # one is a draft, and one is archived
    first = await chapter(world, bearer, draft)
    await world.data("POST", f"/v1/chapters/{first['id']}/publish", headers=bearer)
    await world.data("POST", f"{WORKS}/{draft['id']}/publish", headers=bearer)
    await world.data(*url)


async def test_a_file_that_two_works_say_something_of_at_the_same_instant_stays_shown(world):
    """One work is published with it, is not written yet, and the other one is archived."""
    _, _, bearer = await creator(world)
    (shown, _), draft = await published(world, bearer, "One"), await story(world, bearer, "Two")
    poster = await file_of(world, bearer, png(bytes(20)))
    for work in (shown, draft):
        body = {"role": "poster", "file_id": poster["id"]}
        await world.data("POST", f"{WORKS}/{work['id']}/assets", headers=bearer, json=body)
    first = await chapter(world, bearer, draft)
    await world.data("POST", f"/v1/chapters/{first['id']}/publish", headers=bearer)
    waiting = "SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
    turns = []
    async with world.kernel.database.transaction() as db:
        await db.execute("SELECT FROM media.file_object WHERE id = $1 FOR UPDATE", UUID(poster["id"]))
        for path in (f"{draft['id']}/publish", f"{shown['id']}/archive"):
            turns.append(asyncio.create_task(world.data("POST", f"{WORKS}/{path}", headers=bearer)))
            while len(await world.sql(waiting)) < len(turns) and not any(turn.done() for turn in turns):
                await asyncio.sleep(0.01)
    assert [(await turn)["status"] for turn in turns] == ["published", "archived"]
    await world.data("GET", f"/v1/files/{poster['id']}/url")


async def test_shares_change_with_the_consent_of_those_who_lose(world):
    _, _, bearer = await creator(world)
    (_, ada, ada_bearer), (_, bob, bob_bearer) = await creator(world, "Ada"), await creator(world, "Bob")
    work = await story(world, bearer)
    path = f"{WORKS}/{work['id']}/collaborators"

    def lines(**shares):
        accounts = {"ada": ada, "bob": bob}
        return {"collaborators": [
            {"account_id": accounts[name], "role": "Writer", "share_bps": share} for name, share in shares.items()
        ]}  # fmt: skip

    proposed = await world.data("PUT", path, headers=bearer, json=lines(ada=3000, bob=1000))
    assert proposed["owner_share_bps"] == 10_000 and sorted(proposed["pending"]["waiting_for"]) == sorted([ada, bob])
    consent = {"change_id": proposed["pending"]["id"], "agree": True}
    assert (await world.data("GET", path, headers=ada_bearer))["pending"]["id"] == consent["change_id"]
    await world.data("POST", f"{path}/consent", headers=ada_bearer, json=consent)
    done = await world.data("POST", f"{path}/consent", headers=bob_bearer, json=consent)
    assert done["owner_share_bps"] == 6000 and done["pending"] is None

    raised = await world.data("PUT", path, headers=bearer, json=lines(ada=3500, bob=1000))
    assert raised["owner_share_bps"] == 5500 and raised["pending"] is None  # nobody loses but the owner
    lower = await world.data("PUT", path, headers=bearer, json=lines(ada=3500, bob=500))
    assert lower["pending"]["waiting_for"] == [bob]
    await world.refused(404, "NOT_FOUND", "unknown_change", "POST", f"{path}/consent", headers=ada_bearer,
                        json={"change_id": lower["pending"]["id"], "agree": True})  # fmt: skip
    await world.refused(409, "CONFLICT", "no_such_change", "POST", f"{path}/consent", headers=bob_bearer, json=consent)
    refused = await world.data("POST", f"{path}/consent", headers=bob_bearer,
                               json={"change_id": lower["pending"]["id"], "agree": False})  # fmt: skip
    assert refused["pending"] is None and refused["owner_share_bps"] == 5500
    gone = await world.data("PUT", path, headers=bearer, json=lines(ada=3500))
    assert gone["pending"]["waiting_for"] == [bob]
    await world.data("PUT", path, headers=bearer, json=lines(ada=4000, bob=1000))  # takes its place
    assert (await world.data("GET", path, headers=bearer))["pending"] is None
    for wrong, reason in (
        (lines(ada=9000, bob=1001), "more_than_whole"),
        ({"collaborators": lines(ada=1)["collaborators"] * 2}, "account_twice"),
        ({"collaborators": [{"account_id": str(uuid4()), "role": "x", "share_bps": 1}]}, "unknown_account"),
    ):
        await world.refused(400, "VALIDATION_ERROR", reason, "PUT", path, headers=bearer, json=wrong)


def test_who_must_agree_is_whoever_loses_or_is_new():
    a, b, c = (UUID(int=number) for number in range(3))
    assert who_must_agree({}, {}) == set()
    assert who_must_agree({a: 5, b: 5, c: 5}, {a: 5, b: 6, c: 4}) == {c}
    assert who_must_agree({a: 0}, {}) == {a}  # also a credit without a share
    assert who_must_agree({a: 5}, {a: 5, b: 0}) == {b}


async def test_offers_have_exact_prices_in_assets_that_exist(world):
    await world.sql("INSERT INTO exchange.asset VALUES (900, 'USDC', 6, true) ON CONFLICT DO NOTHING")
    _, _, bearer = await creator(world)
    work, entry = await published(world, bearer, f"Priced {uuid4().hex}")
    path = f"{WORKS}/{work['id']}/offers"
    offer = await world.data("POST", path, headers=bearer, json={"kind": "purchase", "price": "2.500000"})
    assert (offer["price"], offer["asset"]) == ("2.5", "USDC")
    coin = {"kind": "coin", "price": "3", "asset": "COIN", "chapter_id": entry["id"]}
    await world.data("POST", path, headers=bearer, json=coin)
    await world.refused(409, "CONFLICT", "offer_exists", "POST", path, headers=bearer, json=coin)
    for wrong, reason in (
        ({"price": "0"}, "bad_price"), ({"price": "0.0000001"}, "bad_price"), ({"price": "9" * 20}, "bad_price"),
        ({"price": "-1"}, "invalid"), ({"price": "1e3"}, "invalid"), ({"asset": "DOGE"}, "unknown_asset"),
        ({"kind": "rent"}, "missing"), ({"kind": "coin"}, "wrong_asset"), ({"asset": "COIN"}, "wrong_asset"),
        ({"chapter_id": str(uuid4())}, "unknown_chapter"),
    ):  # fmt: skip
        body = {"kind": "ppv", "price": "1"} | wrong
        await world.refused(400, "VALIDATION_ERROR", reason, "POST", path, headers=bearer, json=body)
    query = f"{WORKS}?sort=title&price_min=2&price_max=2.5&tag="
    assert work["id"] in {found["id"] for found in await world.data("GET", query.replace("&tag=", ""))}
    over = f"{WORKS}?creator_id={work['creator_id']}&price_min=2.500001"
    assert await world.data("GET", over) == []
    change = ("PATCH", f"/v1/offers/{offer['id']}")
    await world.data(*change, headers=bearer | {"if-match": '"1"'}, json={"price": "3"})
    await world.refused(409, "CONFLICT", "version_mismatch", *change, headers=bearer | {"if-match": '"1"'},
                        json={"active": False})  # fmt: skip
    await world.data(*change, headers=bearer, json={"active": False})
    assert [found["kind"] for found in await world.data("GET", path)] == ["coin"]
    assert len(await world.data("GET", path, headers=bearer)) == 2


def test_prices_are_units_without_any_rounding():
    assert units_of("9223372036854.775807", 6) == 2**63 - 1
    assert units_of("1.50", 1) == 15 and units_of("7", 0) == 7
    for price in ("9223372036854.775808", "1.0000001", "0.000000"):
        with pytest.raises(ApiError):
            units_of(price, 6)


async def test_lists_and_search_show_what_is_published_and_nothing_else(world):
    word = "q" + uuid4().hex
    _, _, bearer = await creator(world)
    made = [
        (await published(world, bearer, f"{word} {n}", tags=[word], genres=["western"], language=("en", "de")[n % 2],
                         description="Running horses"))[0]
        for n in range(5)
    ]  # fmt: skip
    await story(world, bearer, f"{word} draft", tags=[word])
    for query in ("?sort=newest", "?sort=oldest", "?sort=title", f"/search?q={word}", f"/search?q={word[:9]}"):
        found, cursor = [], ""
        while cursor is not None:
            separator = "&" if "?" in query else "?"
            answer = (await world.client.get(f"{WORKS}{query}{separator}tag={word}&limit=2{cursor}")).json()
            found += [entry["id"] for entry in answer["data"]]
            token = answer["pagination"]["next_cursor"]
            cursor = f"&cursor={token}" if token else None
        assert len(found) == 5 and set(found) == {work["id"] for work in made}, query
        if query == "?sort=newest":
            assert found == [work["id"] for work in reversed(made)]
    german = await world.data("GET", f"{WORKS}?tag={word}&language=de&kind=story&genre=western")
    assert [entry["language"] for entry in german] == ["de", "de"]
    stemmed = await world.data("GET", f"{WORKS}/search?q=horse run&tag={word}&language=en")
    assert len(stemmed) == 3  # "Running horses", reduced as in English
    for text in ("&", "!", "a:*", "'", "(", "\\", ":", "-", "the", "<->", '"unclosed'):
        answer = await world.client.get(f"{WORKS}/search", params={"q": text, "language": "xx"})
        assert answer.status_code == 200, (text, answer.text)
    for bad in ("?tag=%00", "?category=%00", "?language=..", "/search?q=%00", "?price_min=1&asset=%0a", "?sort=rank"):
        await world.refused(400, "VALIDATION_ERROR", "invalid", "GET", f"{WORKS}{bad}")


async def test_longest_titles_are_listed_page_by_page(world):
    _, _, bearer = await creator(world)
    tag = "q" + uuid4().hex
    made = [(await published(world, bearer, number + "𝕬" * 254, tags=[tag]))[0]["id"] for number in "12"]
    found, query = [], {"sort": "title", "tag": tag, "limit": 1}
    while len(found) < len(made):
        answer = (await world.client.get(WORKS, params=query)).json()
        found += [entry["id"] for entry in answer["data"]]
        query["cursor"] = answer["pagination"]["next_cursor"]
    assert query["cursor"] is None and found == made


async def test_words_of_any_letters_are_found_whatever_their_capitals_and_quotes(world):
    _, _, bearer = await creator(world)
    word = "q" + uuid4().hex
    work, _ = await published(world, bearer, f"Война – “{word}”")
    for text in (f"{word} война", f"ВОЙНА {word}", word):
        found = await world.data("GET", f"{WORKS}/search", params={"q": text})
        assert [entry["id"] for entry in found] == [work["id"]], text


@pytest.mark.parametrize(
    ("name", "own", "other"),
    [("kind", "story", "film"), ("category", "literature", "music"), ("language", "de", "en"),
     ("genre", "western", "drama"), ("tag", "dust", "rust")],
)  # fmt: skip
async def test_title_that_is_just_the_query_is_found_if_it_fits_what_else_is_asked(world, name, own, other):
    _, _, bearer = await creator(world)
    word = "q" + uuid4().hex
    fields = {"category": "literature", "language": "de", "genres": ["western"], "tags": ["dust"]}
    work, _ = await published(world, bearer, word, **fields)
    for value, fits in ((own, True), (other, False)):
        found = await world.data("GET", f"{WORKS}/search?q={word}&{name}={value}")
        assert [entry["id"] for entry in found] == [work["id"]] * fits, value


async def test_of_more_matches_than_are_ranked_the_newest_are_and_pages_are_cut_from_them(world, monkeypatch):
    monkeypatch.setattr(finding, "CANDIDATES_MAX", 3)
    word, other = "q" + uuid4().hex, "r" + uuid4().hex
    _, _, bearer = await creator(world)
    titles = [f"{word} {word}", f"{word} of old", f"{word} four words long", f"{word} two", "Named elsewhere", other]
    made = [(await published(world, bearer, title, description=f"About {word}."))[0] for title in titles]
    found, cursor = [], ""
    while cursor is not None:
        answer = (await world.client.get(f"{WORKS}/search?q={word}&limit=1{cursor}")).json()
        found += [entry["title"] for entry in answer["data"]]
        token = answer["pagination"]["next_cursor"]
        cursor = f"&cursor={token}" if token else None
    assert found[0] == titles[3] and sorted(found[1:]) == sorted(titles[4:])
    exact = await world.data("GET", f"{WORKS}/search?q={word} of old")
    assert exact[0]["id"] == made[1]["id"]  # however old it is


@pytest.mark.parametrize("world", [{"works_need_verification": True}], indirect=True)
async def test_publication_waits_for_the_approval_where_settings_say_so(world):
    _, account, bearer = await creator(world)
    work = await story(world, bearer)
    entry = await chapter(world, bearer, work)
    await world.data("POST", f"/v1/chapters/{entry['id']}/publish", headers=bearer)
    publish = ("POST", f"{WORKS}/{work['id']}/publish")
    assert (await world.data(*publish, headers=bearer))["status"] == "in_review"
    gone = await story(world, bearer, "Gone")
    await world.data("POST", f"{WORKS}/{gone['id']}/verification", headers=bearer, json={"statement": "Mine."})
    await world.data("DELETE", f"{WORKS}/{gone['id']}", headers=bearer)
    decide = ("POST", f"/v1/admin/works/{work['id']}/verification-decision")
    no = {"decision": "reject", "reason": "A copy."}
    await world.refused(403, "FORBIDDEN", "permission_missing", *decide, headers=bearer, json=no)
    await world.grant(account, "moderator")
    await world.refused(403, "FORBIDDEN", "own_account", *decide, headers=bearer, json=no)
    staff, moderator = await world.sign_in()
    await world.refused(403, "FORBIDDEN", "permission_missing", "GET", "/v1/admin/verifications", headers=moderator)
    await world.grant(staff["account_id"], "moderator")
    waiting = await world.data("GET", "/v1/admin/verifications?type=work&limit=200", headers=moderator)
    assert work["id"] in {case["subject_id"] for case in waiting}
    assert gone["id"] not in {case["subject_id"] for case in waiting}
    await world.refused(400, "VALIDATION_ERROR", "missing", *decide, headers=moderator, json={"decision": "approve"})
    await world.data(*decide, headers=moderator, json=no)
    assert (await world.data("GET", f"{WORKS}/{work['id']}", headers=bearer))["status"] == "draft"
    assert (await world.data(*publish, headers=bearer))["status"] == "in_review"
    await decided(world, moderator, work)
    shown = await world.data("GET", f"{WORKS}/{work['id']}")
    assert (shown["status"], shown["verification_status"]) == ("published", "approved")
    await world.refused(409, "CONFLICT", "verification_approved", "POST", f"{WORKS}/{work['id']}/verification",
                        headers=bearer, json={"statement": "x"})  # fmt: skip


@pytest.mark.parametrize("world", [{"works_need_verification": True}], indirect=True)
@pytest.mark.parametrize("change", ["title", "file"])
async def test_what_was_approved_is_looked_at_again_when_its_owner_changes_it(world, change):
    made, _, bearer = await creator(world)
    staff, moderator = await world.sign_in()
    await world.grant(staff["account_id"], "moderator")
    work, _ = await published(world, bearer)
    inside = f"{WORKS}/{work['id']}"
    await decided(world, moderator, work)
    await world.data("PATCH", inside, headers=moderator, json={"description": "Corrected by staff."})
    first = await world.data("GET", inside)
    assert (first["status"], first["verification_status"]) == ("published", "approved")
    if change == "title":
        await world.data("PATCH", inside, headers=bearer, json={"title": "Another thing"})
    else:
        poster = await file_of(world, bearer, png(bytes(20)))
        await world.data("POST", f"{inside}/assets", headers=bearer, json={"role": "poster", "file_id": poster["id"]})
        await world.refused(404, "NOT_FOUND", "unknown_file", "GET", f"/v1/files/{poster['id']}/url")
    await world.refused(404, "NOT_FOUND", "unknown_work", "GET", inside)
    own = await world.data("GET", inside, headers=bearer)
    assert (own["status"], own["verification_status"]) == ("in_review", "pending")
    await world.settle()
    assert (await world.data("GET", f"/v1/creators/{made['id']}"))["work_count"] == 0
    await decided(world, moderator, work)
    again = await world.data("GET", inside)
    assert (again["status"], again["published_at"]) == ("published", first["published_at"])
    await world.settle()
    assert (await world.data("GET", f"/v1/creators/{made['id']}"))["work_count"] == 1


@pytest.fixture
def serial(world):
    """An approved story in sight, with a chapter: work, chapter, owner's bearer, how to decide, how to look."""

    async def make():
        _, _, bearer = await creator(world)
        staff, moderator = await world.sign_in()
        await world.grant(staff["account_id"], "moderator")
        work, first = await published(world, bearer)

        async def decide(decision):
            return await decided(world, moderator, work, decision)

        async def seen(headers=None):
            """What readers see, or those inside: the work's two states, and those of its chapters by place."""
            found = await world.data("GET", f"{WORKS}/{work['id']}", headers=headers)
            rows = await world.data("GET", f"{WORKS}/{work['id']}/chapters", headers=headers)
            return found["status"], found["verification_status"], {row["number"]: row["status"] for row in rows}

        await decide("approve")
        return work, first, bearer, decide, seen

    return make


def told_of(world, chapter_id):
    query = "SELECT type, payload -> 'first' AS first, payload -> 'was_public' AS public FROM kernel.outbox"
    return world.sql(f"{query} WHERE subject_id = $1 ORDER BY position", chapter_id)


@pytest.mark.parametrize("world", [{"works_need_verification": True}], indirect=True)
async def test_new_chapter_of_an_approved_work_waits_and_the_work_stays_in_sight(world, serial):
    work, _, bearer, decide, seen = await serial()
    second, third = [await chapter(world, bearer, work, title) for title in ("Two", "Three")]
    for made in (second, second, third):  # again: the same
        waits = await world.data("POST", f"/v1/chapters/{made['id']}/publish", headers=bearer)
        assert (waits["status"], waits["published_at"]) == ("in_review", None)
    assert await seen() == ("published", "approved", {1: "published"})
    assert await seen(bearer) == ("published", "approved", {1: "published", 2: "in_review", 3: "in_review"})
    inside = f"{WORKS}/{work['id']}/chapters/{second['id']}"
    await world.refused(404, "NOT_FOUND", "unknown_chapter", "GET", inside)
    assert await told_of(world, second["id"]) == []
    assert (await decide("reject"))["status"] == "rejected"
    assert await seen(bearer) == ("published", "approved", {1: "published", 2: "draft", 3: "draft"})
    assert await seen() == ("published", "approved", {1: "published"}), "what was approved before stays"
    await world.data("POST", f"/v1/chapters/{second['id']}/publish", headers=bearer)
    await decide("approve")
    assert await seen() == ("published", "approved", {1: "published", 2: "published"})
    told = [tuple(row) for row in await told_of(world, second["id"])]
    assert told == [("chapter.rejected", None, None), ("chapter.published", "true", "true")]
    (entry,) = await world.sql("SELECT new_values FROM kernel.audit_entry WHERE action = 'chapter.rejected'"
                               " AND resource_id = $1", second["id"])  # fmt: skip
    assert json.loads(entry["new_values"]) == {"status": "draft", "reason": "As it is."}


@pytest.mark.parametrize("world", [{"works_need_verification": True}], indirect=True)
@pytest.mark.parametrize("decision", ["approve", "reject"])
async def test_changed_chapter_of_an_approved_work_is_looked_at_before_readers_get_it(world, serial, decision):
    work, first, bearer, decide, seen = await serial()
    path = f"/v1/chapters/{first['id']}"
    await world.data("PATCH", path, headers=bearer, json={"preview": True})
    assert await seen() == ("published", "approved", {1: "published"}), "it says nothing new"
    changed = await world.data("PATCH", path, headers=bearer, json={"body": TEXT + "Never seen."})
    assert changed["status"] == "in_review"
    assert await seen() == ("published", "approved", {})
    await world.refused(404, "NOT_FOUND", "unknown_chapter", "GET", f"{WORKS}/{work['id']}/chapters/{first['id']}")
    await decide(decision)
    left = {"approve": "published", "reject": "unpublished"}[decision]
    assert await seen(bearer) == ("published", "approved", {1: left})
    told = {"approve": ("chapter.published", "false", "true"), "reject": ("chapter.rejected", None, None)}
    assert [tuple(row) for row in await told_of(world, first["id"])][-1] == told[decision]


@pytest.mark.parametrize("world", [{"works_need_verification": True}], indirect=True)
@pytest.mark.parametrize("decision", ["approve", "reject"])
async def test_all_chapters_that_wait_are_decided_in_one_statement_each_as_what_it_was(world, serial, decision):
    """One for each of two thousand took seconds."""
    work, first, bearer, decide, seen = await serial()
    path = f"{WORKS}/{work['id']}/chapters"
    (before,) = await world.data("GET", path)
    await world.data("PATCH", f"/v1/chapters/{first['id']}", headers=bearer, json={"body": TEXT + "More."})
    new = [await chapter(world, bearer, work, title) for title in ("Two", "Three")]
    for made in new:
        await world.data("POST", f"/v1/chapters/{made['id']}/publish", headers=bearer)
    await decide(decision)
    told = {made["id"]: tuple((await told_of(world, made["id"]))[-1]) for made in [first, *new]}
    by_one = ("SELECT count(DISTINCT cmin::text) = 1 AS yes FROM works.chapter"
              " WHERE work_id = $1::text::uuid AND status = $2")  # fmt: skip
    if decision == "approve":
        assert [told[made["id"]][:2] for made in [first, *new]] == [
            ("chapter.published", "false"), ("chapter.published", "true"), ("chapter.published", "true")
        ]  # fmt: skip
        shown = await world.data("GET", path)
        assert [row["title"] for row in shown] == ["One", "Two", "Three"]
        assert shown[0]["published_at"] == before["published_at"] and all(row["published_at"] for row in shown)
        assert (await world.sql(by_one, work["id"], "published"))[0]["yes"]
    else:
        assert {row[0] for row in told.values()} == {"chapter.rejected"}
        assert (await seen(bearer))[2] == {1: "unpublished", 2: "draft", 3: "draft"}
        assert (await world.sql(by_one, work["id"], "draft"))[0]["yes"]
    entries = await world.sql("SELECT resource_id, old_values FROM kernel.audit_entry WHERE action = $1 AND resource_id"
                              " = ANY($2) AND old_values ->> 'status' = 'in_review' ORDER BY position",
                              told[first["id"]][0], list(told))  # fmt: skip
    assert [row["resource_id"] for row in entries] == list(told)


def cases_of(world, work):
    query = "SELECT status FROM works.verification_case WHERE work_id = $1::text::uuid ORDER BY id"
    return world.sql(query, work["id"])


@pytest.mark.parametrize("world", [{"works_need_verification": True}], indirect=True)
async def test_chapter_in_review_is_taken_back_and_a_case_about_nothing_ends(world, serial):
    work, first, bearer, _, seen = await serial()
    second, third = [await chapter(world, bearer, work, title) for title in ("Two", "Three")]
    for made in (second, third):
        await world.data("POST", f"/v1/chapters/{made['id']}/publish", headers=bearer)
    await world.data("PATCH", f"/v1/chapters/{first['id']}", headers=bearer, json={"title": "Uno"})
    for made, left in ((first, "unpublished"), (second, "draft")):
        assert [row["status"] for row in await cases_of(world, work)] == ["approved", "pending"]
        back = await world.data("POST", f"/v1/chapters/{made['id']}/unpublish", headers=bearer)
        assert back["status"] == left
    assert [row["status"] for row in await cases_of(world, work)] == ["approved", "pending"]
    gone = await world.client.delete(f"/v1/chapters/{third['id']}", headers=bearer)
    assert gone.status_code < 300
    assert [row["status"] for row in await cases_of(world, work)] == ["approved", "withdrawn"]
    assert await seen(bearer) == ("published", "approved", {1: "unpublished", 2: "draft"})
    await world.refused(409, "CONFLICT", "not_published", "POST", f"/v1/chapters/{second['id']}/unpublish",
                        headers=bearer)  # fmt: skip


@pytest.mark.parametrize("world", [{"works_need_verification": True}], indirect=True)
@pytest.mark.parametrize("first_time", [True, False])
async def test_approval_is_of_what_was_seen_and_of_nothing_that_came_since(world, first_time):
    _, _, bearer = await creator(world)
    staff, moderator = await world.sign_in()
    await world.grant(staff["account_id"], "moderator")
    work, first = await published(world, bearer)
    decide = ("POST", f"/v1/admin/works/{work['id']}/verification-decision")
    inside, path = f"{WORKS}/{work['id']}", f"/v1/chapters/{first['id']}"
    if not first_time:
        await decided(world, moderator, work)
        await world.data("PATCH", path, headers=bearer, json={"body": TEXT + "Harmless."})
    second = await chapter(world, bearer, work, "Two")
    for method, where, body in (
        ("PATCH", path, {"body": TEXT + "Evil."}), ("PATCH", path, {"title": "Evil"}),
        ("POST", f"/v1/chapters/{second['id']}/publish", None), ("PATCH", inside, {"title": "Evil"}),
        ("POST", f"/v1/chapters/{second['id']}/unpublish", None),
    ):  # fmt: skip
        case = await case_of(world, moderator, work)
        await world.data(method, where, headers=bearer, json=body)
        seen = {"case_id": case["id"], "case_version": case["version"]}
        answer = await world.refused(409, "CONFLICT", "changed_since", *decide, headers=moderator,
                                     json={"decision": "approve"} | seen)  # fmt: skip
        now = answer.json()["error"]["details"]
        assert now["case_id"] == case["id"] and now["case_version"] > case["version"]
    await world.data("POST", f"/v1/chapters/{second['id']}/publish", headers=bearer)
    case = await case_of(world, moderator, work)
    await world.data("PATCH", f"/v1/chapters/{second['id']}", headers=bearer, json={"preview": True})
    stays = await case_of(world, moderator, work)
    assert stays == case, "nothing new of it"
    await decided(world, moderator, work, "reject")  # whatever it was, nobody gets to read it
    await world.data("POST", f"{path}/publish", headers=bearer)
    await world.data("POST", f"{inside}/publish", headers=bearer)
    assert (await case_of(world, moderator, work))["version"] == 1
    seen = {"case_id": case["id"], "case_version": 1}
    await world.refused(409, "CONFLICT", "changed_since", *decide, headers=moderator,
                        json={"decision": "approve"} | seen)  # fmt: skip
    await decided(world, moderator, work)
    assert (await world.data("GET", inside))["title"] == "Evil"  # somebody saw that it is


async def test_work_that_was_published_before_works_were_looked_at_is_looked_at_when_it_changes(api_dsn):
    wallet = Wallet(0)
    async with opened(api_dsn) as world:
        _, bearer = await world.sign_in(wallet)
        await world.data("POST", "/v1/creators", headers=bearer, json={"display_name": "Old"})
        work, first = await published(world, bearer, "Before")
        inside, path = f"{WORKS}/{work['id']}", f"/v1/chapters/{first['id']}"
        await world.data("PATCH", path, headers=bearer, json={"preview": True})
    async with opened(api_dsn, works_need_verification=True) as world:
        _, bearer = await world.sign_in(wallet)
        staff, moderator = await world.sign_in()
        await world.grant(staff["account_id"], "moderator")
        assert (await world.data("GET", f"{inside}/chapters/{first['id']}"))["body"] == TEXT
        changed = await world.data("PATCH", path, headers=bearer, json={"body": TEXT + "Never seen."})
        assert changed["status"] == "in_review" and await world.data("GET", f"{inside}/chapters") == []
        await decided(world, moderator, work)
        shown = await world.data("GET", inside)
        assert (shown["status"], shown["verification_status"]) == ("published", "unsubmitted")
        assert len(await world.data("GET", f"{inside}/chapters")) == 1
        await world.data("PATCH", inside, headers=bearer, json={"title": "Never seen"})
        await world.refused(404, "NOT_FOUND", "unknown_work", "GET", inside)
        await decided(world, moderator, work)
        assert (await world.data("GET", inside))["verification_status"] == "approved"


@pytest.mark.parametrize("world", [{"works_need_verification": True}], indirect=True)
@pytest.mark.parametrize("decision", ["approve", "reject"])
async def test_work_that_is_changed_while_a_chapter_waits_is_decided_with_it(world, serial, decision):
    work, _, bearer, decide, seen = await serial()
    second = await chapter(world, bearer, work, "Two")
    await world.data("POST", f"/v1/chapters/{second['id']}/publish", headers=bearer)
    await world.data("PATCH", f"{WORKS}/{work['id']}", headers=bearer, json={"title": "Another thing"})
    await world.refused(404, "NOT_FOUND", "unknown_work", "GET", f"{WORKS}/{work['id']}")
    assert await seen(bearer) == ("in_review", "pending", {1: "published", 2: "in_review"})
    await decide(decision)
    if decision == "approve":
        assert await seen() == ("published", "approved", {1: "published", 2: "published"})
        assert [tuple(row) for row in await told_of(world, second["id"])] == [("chapter.published", "true", "true")]
    else:
        assert await seen(bearer) == ("draft", "rejected", {1: "published", 2: "draft"})


async def test_staff_suspends_and_resumes_what_is_not_its_own(world):
    made, account, bearer = await creator(world)
    work, _ = await published(world, bearer)
    suspend, resume = (("POST", f"/v1/admin/works/{work['id']}/{turn}") for turn in ("suspend", "resume"))
    why = {"reason": "A complaint."}
    staff, moderator = await world.sign_in()
    await world.refused(403, "FORBIDDEN", "permission_missing", *suspend, headers=moderator, json=why)
    await world.grant(staff["account_id"], "moderator")
    await world.grant(account, "moderator")
    await world.refused(403, "FORBIDDEN", "own_account", *suspend, headers=bearer, json=why)
    await world.refused(409, "CONFLICT", "not_suspended", *resume, headers=moderator, json=why)
    assert (await world.data(*suspend, headers=moderator, json=why))["status"] == "suspended"
    await world.refused(404, "NOT_FOUND", "unknown_work", "GET", f"{WORKS}/{work['id']}")
    await world.refused(409, "CONFLICT", "not_editable", "PATCH", f"{WORKS}/{work['id']}", headers=bearer,
                        json={"title": "No"})  # fmt: skip
    await world.refused(403, "FORBIDDEN", "own_account", *resume, headers=bearer, json=why)
    await world.settle()
    assert (await world.data("GET", f"/v1/creators/{made['id']}"))["work_count"] == 0
    assert (await world.data(*resume, headers=moderator, json=why))["status"] == "published"
    await world.settle()
    assert (await world.data("GET", f"/v1/creators/{made['id']}"))["work_count"] == 1


@pytest.mark.parametrize("turn", ["archived", "suspended"])
async def test_nothing_of_a_work_that_is_archived_or_suspended_can_be_changed(world, turn):
    """Who bought it reads on what was shown."""
    await world.sql("INSERT INTO exchange.asset VALUES (900, 'USDC', 6, true) ON CONFLICT DO NOTHING")
    _, account, bearer = await creator(world)
    work, first = await published(world, bearer)
    second = await chapter(world, bearer, work, "Two")
    inside = f"{WORKS}/{work['id']}"
    files = [await file_of(world, bearer, png(bytes(20))) for _ in range(2)]
    poster = {"role": "poster", "file_id": files[0]["id"]}
    asset = await world.data("POST", f"{inside}/assets", headers=bearer, json=poster)
    priced = {"kind": "purchase", "price": "2"}
    offer = await world.data("POST", f"{inside}/offers", headers=bearer, json=priced)
    if turn == "archived":
        await world.data("POST", f"{inside}/archive", headers=bearer)
    else:
        staff, moderator = await world.sign_in()
        await world.grant(staff["account_id"], "moderator")
        why = {"reason": "A complaint."}
        await world.data("POST", f"/v1/admin/works/{work['id']}/suspend", headers=moderator, json=why)
    places = ("", "/chapters", f"/chapters/{first['id']}", "/versions", "/assets", "/offers", "/collaborators")

    async def look():
        return [await world.data("GET", inside + place, headers=bearer) for place in places]

    before = await look()
    one, two = f"/v1/chapters/{first['id']}", f"/v1/chapters/{second['id']}"
    partner = {"account_id": account, "role": "Writer", "share_bps": 1_000}
    for method, path, body in (
        ("PATCH", inside, {"title": "No"}),
        ("POST", f"{inside}/chapters", {"title": "Three", "body": TEXT}),
        ("PATCH", one, {"body": TEXT + "Never seen."}), ("PATCH", one, {"title": "No"}), ("PATCH", one, {"number": 2}),
        ("POST", f"{one}/unpublish", None), ("POST", f"{two}/publish", None), ("DELETE", two, None),
        ("POST", f"{inside}/assets", {"role": "image", "file_id": files[1]["id"]}),
        ("DELETE", f"{inside}/assets/{asset['id']}", None),
        ("POST", f"{inside}/offers", {"kind": "ppv", "price": "1"}),
        ("PATCH", f"/v1/offers/{offer['id']}", {"price": "1"}),
        ("PUT", f"{inside}/collaborators", {"collaborators": [partner]}),
    ):  # fmt: skip
        await world.refused(409, "CONFLICT", "not_editable", method, path, headers=bearer, json=body)
    assert await look() == before


async def test_title_that_is_just_the_query_is_found_first_however_many_works_have_the_word(world):
    """Thousands have it in their titles, more than a search ranks; the one that is called so was made last."""
    _, _, bearer = await creator(world, "Mine")
    word = f"w{uuid4().hex}"
    model, _ = await published(world, bearer, f"{word} and more of {word}")
    rows = await world.sql(
        "SELECT column_name FROM information_schema.columns WHERE table_schema = 'works' AND table_name = 'work'"
        " AND is_generated = 'NEVER' AND column_name <> 'id'"
    )
    columns = ", ".join(row["column_name"] for row in rows)
    await world.sql(
        f"INSERT INTO works.work (id, {columns}) SELECT gen_random_uuid(), {columns} FROM works.work,"
        " generate_series(1, 2000) WHERE id = $1", UUID(model["id"]),
    )  # fmt: skip
    wanted, _ = await published(world, bearer, word.capitalize())
    found, cursor = [], ""
    while cursor is not None:
        path = f"{WORKS}/search?q={word}&limit=200" + (f"&cursor={cursor}" if cursor else "")
        answer = (await world.client.get(path)).json()
        found += [one["id"] for one in answer["data"]]
        cursor = answer["pagination"]["next_cursor"]
    assert found[0] == wanted["id"] and len(found) == len(set(found)) == 1 + finding.CANDIDATES_MAX

