"""Copyrights over HTTP, a real PostgreSQL and a real LocalSui: registration, check, certificate, crashes, faults."""

import asyncio
import hashlib
import io
import json
import unicodedata
from itertools import count, groupby
from uuid import UUID, uuid4

import pypdfium2
import pytest
import segno
from asn1crypto import x509
from pyhanko.pdf_utils.reader import PdfFileReader
from pyhanko.sign.validation import validate_pdf_signature
from pyhanko_certvalidator import ValidationContext
from pysui.sui.sui_bcs import bcs

from engine.messages.errors import Refused, Unavailable
from platform_api.app import openapi_document
from platform_api.registry.seal import FIELD
from platform_api.registry.service import registry_desk
from settlement.chain.rights_desk import RightsTransaction
from tests.integration.platform_api.test_works import chapter, creator, decided, file_of, published, story
from tests.support.api import opened
from tests.support.chain_key import OPERATOR
from tests.support.files import png
from tests.support.registry import Crash, chain
from tests.unit.platform_api.test_sui_signature import Wallet

__all__ = ["chain"]
ROUTES = """
POST /v1/copyrights
GET /v1/copyrights/{sha256}
GET /v1/works/{work_id}/registrations
GET /v1/certificates/{registration_id}
GET /v1/licenses/{license_id}/chain
GET /v1/authorizations/{code}/chain
GET /v1/chain/transactions/{digest}
"""
PAGE = {"accept": "text/html,application/xhtml+xml,*/*;q=0.8"}


def keyed(bearer):
    return bearer | {"idempotency-key": uuid4().hex}


async def a_story(world, bearer):
    """A work, with a chapter, whose content nobody else has."""
    work = await story(world, bearer, f"Road {uuid4().hex}")
    await chapter(world, bearer, work)
    return work


async def register(world, bearer, **body):
    return await world.data("POST", "/v1/copyrights", headers=keyed(bearer), json=body)


async def registered(world, chain, bearer):
    """A work on the chain, and its registration."""
    work = await a_story(world, bearer)
    made = await register(world, bearer, work_id=work["id"])
    await chain.settle()
    (now,) = await world.data("GET", f"/v1/works/{work['id']}/registrations", headers=bearer)
    assert now["id"] == made["id"]
    return work, now


async def refused(world, bearer, status, code, reason, **body):
    await world.refused(status, code, reason, "POST", "/v1/copyrights", headers=keyed(bearer), json=body)


def test_document_has_every_route():
    paths = openapi_document()["paths"]
    for line in ROUTES.split("\n"):
        if line:
            method, path = line.split()
            assert method.lower() in paths[path], line
    content = paths["/v1/certificates/{registration_id}"]["get"]["responses"]["200"]["content"]
    assert set(content) == {"application/pdf"}


async def outcomes(world, document_id):
    """What was told of the transactions of a registration or a record of a licence."""
    rows = await world.sql(
        "SELECT type, payload->>'status' AS status, payload->>'digest' AS digest FROM kernel.outbox"
        " WHERE subject_type = 'chain_tx' AND payload->>'document_id' = $1 ORDER BY position", document_id,
    )  # fmt: skip
    return [tuple(row) for row in rows]


async def test_work_is_registered_and_everybody_can_check_it(world, chain):
    wallet = Wallet(0)
    session, bearer = await world.sign_in(wallet)
    await world.data("POST", "/v1/creators", headers=bearer, json={"display_name": "Ada Ink"})
    work = await a_story(world, bearer)
    version, _ = await world.data("GET", f"/v1/works/{work['id']}/versions", headers=bearer)
    key = keyed(bearer)
    made = await world.data("POST", "/v1/copyrights", headers=key, json={"work_id": work["id"]})
    again = await world.data("POST", "/v1/copyrights", headers=key, json={"work_id": work["id"]})
    assert made == again and (made["status"], made["sha256"]) == ("pending", version["sha256"])
    path = f"/v1/copyrights/{made['sha256']}"
    assert made["check_url"].endswith(path)
    waiting = await world.data("GET", path)
    assert (waiting["status"], waiting["registered_at"], waiting["address"]) == ("pending", None, None)
    certificate = f"/v1/certificates/{made['id']}"
    await world.refused(409, "CONFLICT", "not_registered", "GET", certificate, headers=bearer)

    await chain.settle()
    (now,) = await world.data("GET", f"/v1/works/{work['id']}/registrations", headers=bearer)
    assert (now["status"], now["author"], now["address"]) == ("registered", "Ada Ink", wallet.address)
    check = await world.data("GET", path)
    assert check["status"] == "registered" and check["object_id"] == now["object_id"]
    assert (check["title"], check["author"], check["work_id"]) == (None, None, None)  # a draft is nobody's business
    assert "does not prove who made" in check["proves"]
    # What an outsider sees on the chain, with a client of their own.
    async with chain.outsider() as desk:
        shown = await desk.work(now["object_id"])
        assert (await desk.receipt(now["digest"])).made["Work"] == now["object_id"]
    assert (shown.content_hash.hex(), shown.title, shown.uri) == (made["sha256"], "", made["check_url"])
    assert shown.creators == (bytes.fromhex(wallet.address[2:]),) and shown.shares_bps == (10_000,)
    sent = await world.data("GET", f"/v1/chain/transactions/{now['digest']}")
    assert (sent["purpose"], sent["status"], sent["digest"]) == ("registration", "executed", now["digest"])
    assert int(sent["gas_mist"]) > 0 and sent["checkpoint"] > 0
    for digest in ("1" * 44, "x", "0" * 44, "%00", "1" * 99):
        await world.refused(404, "NOT_FOUND", "unknown_transaction", "GET", f"/v1/chain/transactions/{digest}")
    told = await world.sql("SELECT type, payload FROM kernel.outbox WHERE subject_id = $1", made["id"])
    assert [row["type"] for row in told] == ["copyright.registered"]
    assert await outcomes(world, made["id"]) == [("chain.tx_confirmed", "executed", now["digest"])]
    await world.settle()
    assert 'blockchain_transaction_count{status="executed"} 1.0' in (await world.client.get("/metrics")).text
    assert session["account_id"] in told[0]["payload"] and work["title"] not in told[0]["payload"]


async def test_title_and_author_are_shown_while_the_work_is_published(world, chain):
    _, _, bearer = await creator(world, "Bo <b>Quill</b>")
    work, _ = await published(world, bearer, f"Rain & <script> {uuid4().hex}")
    made = await register(world, bearer, work_id=work["id"])
    await chain.settle()
    path = f"/v1/copyrights/{made['sha256']}"
    check = await world.data("GET", path)
    assert (check["title"], check["author"], check["work_id"]) == (work["title"], "Bo <b>Quill</b>", work["id"])
    page = await world.client.get(path, headers=PAGE)
    assert page.status_code == 200 and page.headers["content-type"].startswith("text/html")
    assert "Accept" in page.headers["vary"] and "default-src 'none'" in str(page.headers)
    assert "Rain &amp; &lt;script&gt;" in page.text and "<b>Quill" not in page.text and "<script" not in page.text
    for word in (made["sha256"], check["object_id"], check["digest"], check["registered_at"], "does not prove"):
        assert word in page.text
    await world.data("POST", f"/v1/works/{work['id']}/archive", headers=bearer)
    check = await world.data("GET", path)
    assert check["status"] == "registered" and check["title"] is None
    page = await world.client.get(path, headers=PAGE)
    assert work["title"][:4] not in page.text and "Quill" not in page.text


@pytest.mark.parametrize("world", [{"works_need_verification": True}], indirect=True)
async def test_check_tells_no_title_that_nobody_has_looked_at(world):
    _, _, bearer = await creator(world)
    staff, moderator = await world.sign_in()
    await world.grant(staff["account_id"], "moderator")
    name, text = f"Seen {uuid4().hex}", f"The letter {uuid4().hex} was heavier than it looked. " * 3
    work, _ = await published(world, bearer, name)
    second = await chapter(world, bearer, work, "Two", text)
    path, inside = f"/v1/chapters/{second['id']}", f"/v1/works/{work['id']}"
    await world.data("POST", f"{path}/publish", headers=bearer)
    await decided(world, moderator, work)

    async def told(made):
        check = await world.data("GET", f"/v1/copyrights/{made['sha256']}")
        return check["title"], check["work_id"]

    seen = await register(world, bearer, chapter_id=second["id"])
    await world.data("PATCH", path, headers=bearer, json={"title": "Deux", "body": text + "More."})
    unseen = await register(world, bearer, chapter_id=second["id"])
    for decision, title in (("reject", None), ("approve", f"{name} – Deux")):
        if decision == "approve":
            await world.data("POST", f"{path}/publish", headers=bearer)
        assert (await told(seen), await told(unseen)) == ((f"{name} – Two", work["id"]), (None, work["id"]))
        await decided(world, moderator, work, decision)
        assert await told(unseen) == (title, work["id"])
    await world.data("PATCH", inside, headers=bearer, json={"title": "Unseen"})
    never = await register(world, bearer, work_id=work["id"])
    await world.data("PATCH", inside, headers=bearer, json={"title": name})
    assert await told(never) == (None, None)
    await decided(world, moderator, work)
    assert await told(never) == (None, work["id"])


@pytest.mark.parametrize("sha256", ["0" * 64, "0" * 63, "A" * 64, "zz", "%00", "0" * 64 + "%0A", "'--"])
async def test_unknown_or_malformed_digest_is_unknown_to_programs_and_people(world, sha256):
    await world.refused(404, "NOT_FOUND", "unknown_copyright", "GET", f"/v1/copyrights/{sha256}")
    page = await world.client.get(f"/v1/copyrights/{sha256}", headers=PAGE)
    assert page.status_code == 404 and "No content with this SHA-256" in page.text


async def test_chapter_is_registered_by_the_digest_of_its_very_text(world, chain):
    _, _, bearer = await creator(world)
    work = await a_story(world, bearer)
    text = f"The letter {uuid4().hex} was heavier than it looked. " * 3
    made = await chapter(world, bearer, work, "One", text)
    later = await world.data("PATCH", f"/v1/chapters/{made['id']}", headers=bearer, json={"body": text + "More."})
    assert later["content_version"] == 2
    second = await register(world, bearer, chapter_id=made["id"])
    first = await register(world, bearer, chapter_id=made["id"], number=1)
    assert first["sha256"] == hashlib.sha256(text.encode()).hexdigest()
    assert second["sha256"] == hashlib.sha256((text + "More.").encode()).hexdigest()
    assert (first["number"], second["number"], first["chapter_id"]) == (1, 2, made["id"])
    assert first["title"] == f"{work['title']} – One"
    await chain.settle()
    listed = await world.data("GET", f"/v1/works/{work['id']}/registrations?limit=1", headers=bearer)
    assert [row["id"] for row in listed] == [first["id"]]  # the latest first
    for sha256 in (first["sha256"], second["sha256"]):
        assert (await world.data("GET", f"/v1/copyrights/{sha256}"))["status"] == "registered"


async def test_content_is_registered_once_whoever_asks(world, chain):
    _, _, bearer = await creator(world)
    _, _, other = await creator(world, "Copyist")
    title = f"Same {uuid4().hex}"
    mine, theirs = await story(world, bearer, title), await story(world, other, title)
    await chapter(world, bearer, mine)
    await chapter(world, other, theirs)
    answers = await asyncio.gather(*(
        world.client.post("/v1/copyrights", headers=keyed(who), json={"work_id": work["id"]})
        for who, work in ((bearer, mine), (other, theirs))
    ))  # fmt: skip
    assert sorted(answer.status_code for answer in answers) == [201, 409]
    await chain.settle()
    pairs = [(bearer, mine), (other, theirs)]
    won, lost = pairs if answers[0].status_code == 201 else pairs[::-1]
    await refused(world, won[0], 409, "CONFLICT", "already_registered", work_id=won[1]["id"])
    await refused(world, lost[0], 409, "CONFLICT", "hash_registered", work_id=lost[1]["id"])
    assert len(chain.events("WorkRegistered")) == 1


async def test_work_is_registered_with_its_chapters(world, chain):
    """Each in its place, with the digest of its text in NFC: a changed chapter is another version, another digest."""
    _, _, bearer = await creator(world)
    work = await story(world, bearer, f"Road {uuid4().hex}")
    path = f"/v1/works/{work['id']}"
    texts = [f"Cafe\u0301 {uuid4().hex} " * 5, "The courier came by the river road. " * 5]
    parts = [await chapter(world, bearer, work, title, text) for title, text in zip("AB", texts, strict=True)]
    digests = [hashlib.sha256(unicodedata.normalize("NFC", text).encode()).hexdigest() for text in texts]

    async def latest():
        version = (await world.data("GET", f"{path}/versions", headers=bearer))[0]
        assert hashlib.sha256(version["content"].encode()).hexdigest() == version["sha256"]
        return version, json.loads(version["content"])["chapters"]

    version, chapters = await latest()
    assert chapters == [{"number": 1, "sha256": digests[0], "title": "A"},
                        {"number": 2, "sha256": digests[1], "title": "B"}]  # fmt: skip
    made = await register(world, bearer, work_id=work["id"])
    assert (made["number"], made["sha256"]) == (version["number"], version["sha256"]) == (3, version["sha256"])
    seen = {made["sha256"]}
    for method, place, body in (
        ("PATCH", 0, {"body": "Another text, from its first word to its last. " * 5}),
        ("PATCH", 1, {"title": "C"}), ("PATCH", 1, {"number": 1}), ("DELETE", 0, None),
    ):  # fmt: skip
        await world.data(method, f"/v1/chapters/{parts[place]['id']}", headers=bearer, json=body)
        now = await register(world, bearer, work_id=work["id"])
        assert now["number"] == made["number"] + len(seen) and now["sha256"] not in seen, body
        seen.add(now["sha256"])
    _, chapters = await latest()
    assert chapters == [{"number": 1, "sha256": digests[1], "title": "C"}]
    await refused(world, bearer, 409, "CONFLICT", "already_registered", work_id=work["id"], number=made["number"])
    assert (await world.data("GET", path, headers=bearer))["content_version"] == made["number"] + 4
    check = await world.data("GET", f"/v1/copyrights/{made['sha256']}")
    assert check["status"] == "pending" and "digest of each of its files and chapters" in check["covers"]
    page = await world.client.get(f"/v1/copyrights/{made['sha256']}", headers=PAGE)
    assert "digest of each of its files and chapters" in page.text


async def test_an_empty_draft_is_not_registered_and_keeps_nobody_from_the_title(world):
    _, _, squatter = await creator(world, "Squatter")
    _, _, bearer = await creator(world)
    title = f"The Famous Book {uuid4().hex}"
    draft, film = await story(world, squatter, title), await story(world, squatter, title, kind="film")
    for empty in (draft, film):
        await refused(world, squatter, 409, "CONFLICT", "nothing_to_register", work_id=empty["id"])
    await chapter(world, squatter, draft, body="Not a word of what the other wrote stands here. " * 5)
    await register(world, squatter, work_id=draft["id"])
    await refused(world, squatter, 409, "CONFLICT", "nothing_to_register", work_id=draft["id"], number=1)
    work, _ = await published(world, bearer, title)
    assert (await register(world, bearer, work_id=work["id"]))["status"] == "pending"


async def test_what_was_registered_before_versions_named_chapters_stays_and_is_named_for_what_it_is(world, chain):
    """A registration of that time, as it lies in the database, is checked as ever; the next one has the chapters."""
    _, _, bearer = await creator(world)
    work, before = await registered(world, chain, bearer)
    path = f"/v1/works/{work['id']}"
    content = json.loads((await world.data("GET", f"{path}/versions", headers=bearer))[0]["content"])
    del content["chapters"]
    old = json.dumps(content, sort_keys=True, separators=(",", ":")).encode()
    digest = hashlib.sha256(old)
    await world.sql(
        "INSERT INTO works.work_version (work_id, number, content, sha256, change_note, created_by)"
        " SELECT id, 3, $2, $3, '', account_id FROM works.work WHERE id = $1", UUID(work["id"]), old, digest.digest(),
    )  # fmt: skip
    await world.sql("UPDATE works.work SET content_version = 3 WHERE id = $1", UUID(work["id"]))
    await world.sql(
        "UPDATE registry.registration SET sha256 = $2, number = 3 WHERE id = $1", UUID(before["id"]), digest.digest()
    )
    check = await world.data("GET", f"/v1/copyrights/{digest.hexdigest()}")
    assert check["status"] == "registered" and check["object_id"] == before["object_id"]
    assert "of no chapter" in check["covers"]
    await refused(world, bearer, 409, "CONFLICT", "nothing_to_register", work_id=work["id"], number=3)
    now = await register(world, bearer, work_id=work["id"])
    assert now["number"] == 4 and now["sha256"] == before["sha256"]


async def test_content_that_stands_on_the_chain_for_somebody_else_fails(world, chain):
    """Anybody may call the contract: whoever was first there keeps it, and ours says so."""
    _, _, bearer = await creator(world)
    work = await a_story(world, bearer)
    made = await register(world, bearer, work_id=work["id"])
    thief = b"\xa1" * 32
    async with chain.outsider() as desk:
        call = await desk.registration(bytes.fromhex(made["sha256"]), "", "", [thief], [10_000], owner=thief)
        await call.submit()
    await chain.settle()
    (now,) = await world.data("GET", f"/v1/works/{work['id']}/registrations", headers=bearer)
    assert (now["status"], now["reason"]) == ("failed", "registered_elsewhere")
    await world.refused(404, "NOT_FOUND", "unknown_copyright", "GET", f"/v1/copyrights/{made['sha256']}")
    retry = await register(world, bearer, work_id=work["id"])  # it may be asked again, and fails again
    assert retry["id"] != made["id"]
    await chain.settle()
    assert (await world.sql("SELECT count(*) FROM registry.registration WHERE status = 'failed'"))[0][0] == 2


async def test_registration_that_a_restored_database_has_forgotten_is_found_on_the_chain(world, chain):
    _, _, bearer = await creator(world)
    work, before = await registered(world, chain, bearer)
    await world.sql("TRUNCATE registry.registration, registry.license_record, registry.chain_tx CASCADE")
    await register(world, bearer, work_id=work["id"])
    await chain.settle()
    (now,) = await world.data("GET", f"/v1/works/{work['id']}/registrations", headers=bearer)
    same = ("status", "object_id", "digest", "registered_at", "sha256")
    assert {name: now[name] for name in same} == {name: before[name] for name in same}
    assert len(chain.events("WorkRegistered")) == 1


async def test_malformed_or_foreign_requests_are_refused(world):
    _, _, bearer = await creator(world)
    _, _, other = await creator(world, "Other")
    work = await a_story(world, bearer)
    made = await chapter(world, bearer, work)
    await refused(world, bearer, 400, "VALIDATION_ERROR", "missing")
    await refused(world, bearer, 400, "VALIDATION_ERROR", "missing", work_id=work["id"], chapter_id=made["id"])
    await refused(world, bearer, 400, "VALIDATION_ERROR", "invalid", work_id=work["id"], number=0)
    await refused(world, bearer, 400, "VALIDATION_ERROR", "invalid", work_id="x")
    await refused(world, bearer, 404, "NOT_FOUND", "unknown_version", work_id=work["id"], number=9)
    await refused(world, bearer, 404, "NOT_FOUND", "unknown_version", chapter_id=made["id"], number=9)
    await refused(world, other, 404, "NOT_FOUND", "unknown_work", work_id=work["id"])
    await refused(world, other, 404, "NOT_FOUND", "unknown_chapter", chapter_id=made["id"])
    await world.refused(400, "VALIDATION_ERROR", "missing", "POST", "/v1/copyrights", headers=bearer,
                        json={"work_id": work["id"]})  # fmt: skip
    await world.sql("UPDATE identity.session SET proved_at = now() - interval '1 hour'")
    await refused(world, bearer, 403, "FORBIDDEN", "step_up_required", work_id=work["id"])
    _, member = await world.sign_in()
    await refused(world, member, 403, "FORBIDDEN", "permission_missing", work_id=work["id"])
    await world.refused(404, "NOT_FOUND", "unknown_work", "GET", f"/v1/works/{work['id']}/registrations", headers=other)


# Certificates.


async def certificate_of(world, bearer, registration):
    answer = await world.client.get(f"/v1/certificates/{registration['id']}", headers=bearer)
    assert answer.status_code == 200 and answer.headers["content-type"] == "application/pdf"
    return answer.content


async def validated(document):
    """As a reader validates it who trusts the certificate inside; and that certificate."""
    reader = PdfFileReader(io.BytesIO(document))
    (signature,) = reader.embedded_signatures
    assert signature.field_name == FIELD
    trusted = ValidationContext(trust_roots=[signature.signer_cert], allow_fetching=False)
    status = await asyncio.to_thread(validate_pdf_signature, signature, trusted)
    return status, signature.signer_cert


async def test_certificate_is_signed_and_says_what_stands_on_the_chain(world, chain):
    author = "Łucja Чехова 曹雪芹"  # of three faces
    _, _, bearer = await creator(world, author)
    _, now = await registered(world, chain, bearer)
    document = await certificate_of(world, bearer, now)
    assert await certificate_of(world, bearer, now) == document
    status, signer = await validated(document)
    assert status.intact and status.valid and status.trusted and status.bottom_line
    assert status.coverage.name == "ENTIRE_FILE" and status.md_algorithm == "sha256"
    assert signer.self_signed != "no" and isinstance(signer, x509.Certificate)
    text = pypdfium2.PdfDocument(document)[0].get_textpage().get_text_bounded()
    whole = "".join(text.split())
    for fact in (now["title"], author, now["sha256"], now["object_id"], now["digest"], now["registered_at"],
                 now["address"], now["check_url"], "does not prove who made", "a certificate of its own",
                 "of its files and chapters",
                 hashlib.sha256(signer.dump()).hexdigest()):  # fmt: skip
        assert "".join(fact.split()) in whole, fact
    check = await world.data("GET", f"/v1/copyrights/{now['sha256']}")
    assert check["certificate_sha256"] == hashlib.sha256(document).hexdigest()
    assert check["signer_sha256"] == hashlib.sha256(signer.dump()).hexdigest()
    page = (await world.client.get(f"/v1/copyrights/{now['sha256']}", headers=PAGE)).text
    assert check["certificate_sha256"] in page and check["signer_sha256"] in page
    await world.settle()
    told = await world.sql("SELECT type FROM kernel.outbox WHERE subject_id = $1 ORDER BY occurred_at", now["id"])
    assert [row["type"] for row in told] == ["copyright.registered", "certificate.issued"]


async def test_changed_certificate_does_not_validate(world, chain):
    _, _, bearer = await creator(world)
    _, now = await registered(world, chain, bearer)
    document = await certificate_of(world, bearer, now)
    at = document.index(b"/MediaBox") + len(b"/MediaBox [ 0 0 5")
    changed = document[:at] + bytes([document[at] ^ 1]) + document[at + 1 :]
    assert len(changed) == len(document) and changed != document
    status, _ = await validated(changed)
    assert not status.intact and not status.bottom_line


async def test_code_on_the_certificate_leads_to_the_check(world, chain):
    """The modules that are drawn on the page, sampled from a picture of it, are those of the URL."""
    _, _, bearer = await creator(world)
    _, now = await registered(world, chain, bearer)
    page = pypdfium2.PdfDocument(await certificate_of(world, bearer, now))[0]
    picture = page.render(scale=4, grayscale=True).to_pil()
    code = segno.make(now["check_url"], error="m", micro=False)
    expected = [[bool(cell) for cell in row] for row in code.matrix]
    assert modules(picture, len(expected)) == expected
    other = segno.make(now["check_url"][:-1] + "g", error="m", micro=False)
    assert [[bool(cell) for cell in row] for row in other.matrix] != expected


def modules(picture, size):
    """The code of the page, sampled in the middle of each of its size × size modules."""
    dark = picture.point(lambda value: 255 if value < 128 else 0)
    left, top, width = finder(dark)
    module = width / 7
    return [
        [bool(dark.getpixel((int(left + (x + 0.5) * module), int(top + (y + 0.5) * module)))) for x in range(size)]
        for y in range(size)
    ]


def finder(dark):
    """Left, top and width of the first finder pattern: dark and light runs of 1, 1, 3, 1, 1 modules."""
    width, height = dark.size
    for y in range(height):
        runs, x = [], 0
        for is_dark, pixels in groupby(dark.crop((0, y, width, y + 1)).getdata()):
            runs.append((x, len(list(pixels)), is_dark))
            x += runs[-1][1]
        for place in range(len(runs) - 4):
            (left, one, is_dark), *rest = runs[place : place + 5]
            widths = [length for _, length, _ in rest]
            if is_dark and one > 5 and all(abs(w - one * n) <= 2 for w, n in zip(widths, (1, 3, 1, 1), strict=True)):
                top, bottom, whole = y, y, one + sum(widths)
                while top and dark.getpixel((left + one // 2, top - 1)):
                    top -= 1
                while bottom < height - 1 and dark.getpixel((left + one // 2, bottom + 1)):
                    bottom += 1
                if abs(bottom - top + 1 - whole) <= 2:  # as high as it is wide: no letter
                    return left, top, whole
    raise AssertionError("no finder pattern is drawn")


async def test_certificate_is_its_owners_alone(world, chain):
    _, _, bearer = await creator(world)
    _, now = await registered(world, chain, bearer)
    _, other = await world.sign_in()
    for id_ in (now["id"], str(uuid4()), "x"):
        await world.refused(404, "NOT_FOUND", "unknown_certificate", "GET", f"/v1/certificates/{id_}", headers=other)
    await world.refused(401, "UNAUTHORIZED", "token_missing", "GET", f"/v1/certificates/{now['id']}")


async def test_two_first_requests_get_the_same_certificate(world, chain):
    _, _, bearer = await creator(world)
    _, now = await registered(world, chain, bearer)
    first, second = await asyncio.gather(*(certificate_of(world, bearer, now) for _ in range(2)))
    assert first == second
    kept = await world.sql("SELECT document FROM registry.certificate WHERE registration_id = $1", UUID(now["id"]))
    assert bytes(kept[0]["document"]) == first


async def test_signing_key_is_kept_sealed_and_is_the_same_for_every_process(world, chain, api_dsn, tmp_path):
    ring = tmp_path / "columns.json"
    signers = []
    for _ in range(2):
        async with opened(api_dsn, column_keys_path=ring) as one:
            _, _, bearer = await creator(one)
            chain.world = one
            _, now = await registered(one, chain, bearer)
            signers.append((await validated(await certificate_of(one, bearer, now)))[1].dump())
    assert signers[0] == signers[1]
    rows = await world.sql("SELECT sealed_key FROM registry.signer WHERE certificate = $1", signers[0])
    assert len(rows) == 1 and bytes(rows[0]["sealed_key"])[:1] == b"\x01"


# Crashes and faults.


async def test_crash_after_any_step_registers_once(world, chain):
    """The process dies after the n-th step, for every n that there is: a fresh one ends with one registration."""
    _, _, bearer = await creator(world)
    database, died = world.kernel.database, 0
    for step in count():
        work = await a_story(world, bearer)
        made = await register(world, bearer, work_id=work["id"])
        before = len(chain.events("WorkRegistered"))
        try:
            await registry_desk(*Crash.at(step, database, chain.rights)).step()
        except Crash:
            died += 1
        else:
            break
        await chain.drive()
        (now,) = await world.data("GET", f"/v1/works/{work['id']}/registrations", headers=bearer)
        assert now["status"] == "registered", step
        assert len(chain.events("WorkRegistered")) == before + 1, step
        sent = await world.sql("SELECT digest, status FROM registry.chain_tx WHERE document_id = $1", UUID(made["id"]))
        assert [(row["digest"], row["status"]) for row in sent] == [(now["digest"], "executed")], step
        told = await world.sql("SELECT 1 FROM kernel.outbox WHERE subject_id = $1", made["id"])
        assert len(told) == 1, step
        assert await outcomes(world, made["id"]) == [("chain.tx_confirmed", "executed", now["digest"])], step
    assert died >= 8


@pytest.mark.parametrize("faults", [["lost_request"] * 3, ["lost_response"], ["refuse_once"] * 3])
async def test_registration_outlives_a_faulty_line(world, chain, faults):
    _, _, bearer = await creator(world)
    await registered(world, chain, bearer)  # the desk is connected, and its gas coin is its own
    chain.node.faults.next_execute.extend(faults)
    _, now = await registered(world, chain, bearer)
    assert now["status"] == "registered" and not chain.node.faults.next_execute
    assert len(chain.events("WorkRegistered")) == 2
    assert (await world.sql("SELECT count(*) FROM registry.chain_tx WHERE status = 'executed'"))[0][0] == 2


async def test_registration_waits_while_the_chain_is_away(world, chain):
    _, _, bearer = await creator(world)
    chain.node.faults.unavailable = True
    _, now = await registered(world, chain, bearer)
    assert now["status"] == "pending"
    chain.node.faults.unavailable = False
    await chain.settle()
    assert (await world.data("GET", f"/v1/copyrights/{now['sha256']}"))["status"] == "registered"


async def test_bytes_that_died_with_their_epoch_are_signed_anew(world, chain):
    _, _, bearer = await creator(world)
    work = await a_story(world, bearer)
    made = await register(world, bearer, work_id=work["id"])
    with pytest.raises(Crash):  # signed and stored, never sent
        await registry_desk(*Crash.at(2, world.kernel.database, chain.rights)).step()
    (row,) = await world.sql("SELECT status FROM registry.chain_tx")
    assert row["status"] == "signed"
    for _ in range(3):
        chain.node.node.next_epoch()
    await chain.settle()
    (now,) = await world.data("GET", f"/v1/works/{work['id']}/registrations", headers=bearer)
    assert now["status"] == "registered" and len(chain.events("WorkRegistered")) == 1
    rows = await world.sql("SELECT status FROM registry.chain_tx WHERE document_id = $1 ORDER BY id", UUID(made["id"]))
    assert [row["status"] for row in rows] == ["refused", "executed"]
    assert [told[:2] for told in await outcomes(world, made["id"])] == [
        ("chain.tx_failed", "refused"), ("chain.tx_confirmed", "executed")
    ]  # fmt: skip


async def test_two_desks_at_once_register_once(world, chain):
    _, _, bearer = await creator(world)
    await registered(world, chain, bearer)
    for _ in range(3):
        work = await a_story(world, bearer)
        await register(world, bearer, work_id=work["id"])
    desks = [registry_desk(world.kernel.database, chain.rights) for _ in range(2)]
    for _ in range(4):
        await asyncio.gather(*(desk.step() for desk in desks), return_exceptions=True)
    await chain.settle()
    assert len(chain.events("WorkRegistered")) == 4
    assert (await world.sql("SELECT count(*) FROM registry.registration WHERE status = 'registered'"))[0][0] == 4


class Beside:
    """The chain as a desk sees it that another one overtakes, once, at this call of it."""

    def __init__(self, chain, call, refused=False):
        self._chain, self._call, self._refused = chain, call, refused

    def __getattr__(self, name):
        method = getattr(self._chain.rights, name)

        async def overtaken(*arguments):
            answer = await method(*arguments)
            self._call = ""
            await self._chain.drive()
            if self._refused:
                raise Refused("the node says no (test)")
            return answer

        return overtaken if name == self._call else method


async def test_what_one_desk_has_failed_another_does_not_put_off(world, chain):
    _, _, bearer = await creator(world)
    work = await a_story(world, bearer)
    made = await register(world, bearer, work_id=work["id"])
    thief = b"\xa1" * 32
    async with chain.outsider() as desk:
        call = await desk.registration(bytes.fromhex(made["sha256"]), "", "", [thief], [10_000], owner=thief)
        await call.submit()
    with pytest.raises(Refused):
        await registry_desk(world.kernel.database, Beside(chain, "sign_registration", refused=True)).step()
    (now,) = await world.data("GET", f"/v1/works/{work['id']}/registrations", headers=bearer)
    assert (now["status"], now["reason"]) == ("failed", "registered_elsewhere")
    assert [told[:2] for told in await outcomes(world, made["id"])] == [("chain.tx_failed", "aborted")]


async def test_what_one_desk_finds_on_the_chain_another_does_not_tell_again(world, chain):
    _, _, bearer = await creator(world)
    work, now = await registered(world, chain, bearer)
    await world.sql("UPDATE registry.chain_tx SET status = 'refused'")  # as of a node that has taken it all the same
    await world.sql("UPDATE registry.registration SET status = 'pending', object_id = NULL, cap_id = NULL,"
                    " digest = NULL, registered_at = NULL")  # fmt: skip
    told = "SELECT FROM kernel.outbox WHERE subject_id = $1 AND type = 'copyright.registered'"
    before = len(await world.sql(told, now["id"]))
    await registry_desk(world.kernel.database, Beside(chain, "find")).step()
    assert len(await world.sql(told, now["id"])) == before + 1 and len(chain.events("WorkRegistered")) == 1
    (again,) = await world.data("GET", f"/v1/works/{work['id']}/registrations", headers=bearer)
    assert again == now


async def test_used_up_gas_coin_is_left_for_another(world, chain):
    _, _, bearer = await creator(world)
    await registered(world, chain, bearer)
    async with chain.outsider() as desk:
        call = RightsTransaction(desk._chain)
        poor = call.builder.split_coin(from_coin=bcs.Argument("GasCoin"), amounts=[call.pure("u64", 5)])
        own = call.pure("id", bytes.fromhex(OPERATOR.address[2:]))
        call.builder.transfer_objects(recipient=own, object_ref=poor)
        made = (await call.submit()).made["Coin"]
    connection, _ = chain.rights._made
    connection._gas_coin = made
    work = await a_story(world, bearer)
    await register(world, bearer, work_id=work["id"])
    with pytest.raises(Unavailable, match="left for gas"):
        await chain.desk.step()
    await chain.drive()
    (now,) = await world.data("GET", f"/v1/works/{work['id']}/registrations", headers=bearer)
    assert now["status"] == "registered"


async def test_mistake_in_the_desk_ends_nothing_else(world, chain, monkeypatch, caplog):
    """It shares its process with settlement: whatever happens, it says so and rests."""
    monkeypatch.setattr("platform_api.registry.desk.REST_S", 0.0)
    stop, steps = asyncio.Event(), []

    async def step():
        steps.append(1)
        if len(steps) > 2:
            stop.set()
            return False
        raise AssertionError("nobody foresaw this")

    monkeypatch.setattr(chain.desk, "step", step)
    await chain.desk.run(stop)
    assert len(steps) == 3 and caplog.text.count("event=registry_failed") == 2


async def test_work_with_a_file_is_registered_with_the_files_digest_inside(world, chain):
    _, _, bearer = await creator(world)
    content = png(uuid4().bytes)
    file = await file_of(world, bearer, content)
    work = await a_story(world, bearer)
    await world.data("POST", f"/v1/works/{work['id']}/assets", headers=bearer,
                     json={"role": "master", "file_id": file["id"]})  # fmt: skip
    made = await register(world, bearer, work_id=work["id"])
    version = (await world.data("GET", f"/v1/works/{work['id']}/versions", headers=bearer))[0]
    assert made["number"] == version["number"] and hashlib.sha256(content).hexdigest() in version["content"]
    assert hashlib.sha256(version["content"].encode()).hexdigest() == made["sha256"]
