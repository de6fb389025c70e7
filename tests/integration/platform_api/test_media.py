"""Uploads over HTTP into a blob store on disk: parts, resumption, what is refused, and who may read."""

import hashlib
import io
import os
import zipfile
from uuid import UUID, uuid4

import pytest
from PIL import Image

from engine.messages.errors import SettingsInvalid, Unavailable
from platform_api.app import openapi_document
from platform_api.media.blobs import BlobStore
from platform_api.media.service import AssembleFile, MediaService
from platform_api.media.sniff import TYPES
from tests.support.api import opened
from tests.support.files import box, movie, png

UPLOADS = "/v1/uploads"
BYTES = {"content-type": "application/octet-stream"}


@pytest.fixture
async def shop(api_dsn, tmp_path):
    """Small parts and a store on disk."""
    values = {
        "blob_url": tmp_path.as_uri(),
        "part_bytes": 1000,
        "file_bytes_max": 100_000,
        "account_bytes_max": 150_000,
    }
    async with opened(api_dsn, **values) as world:
        world.folder = tmp_path
        yield world


async def begin(world, bearer, content, type_="image/png", **more):
    body = {"name": "a b.png", "content_type": type_, "size_bytes": len(content)} | more
    return await world.data("POST", UPLOADS, headers=bearer, json=body)


async def put(world, bearer, upload, number, content):
    path = f"{UPLOADS}/{upload['id']}/parts/{number}"
    return await world.client.put(path, headers=bearer | BYTES, content=content)


async def upload(world, bearer, content, type_="image/png", **more):
    """The upload after its job."""
    made = await begin(world, bearer, content, type_, **more)
    size = made["part_bytes"]
    for number in range(1, made["part_count"] + 1):
        answer = await put(world, bearer, made, number, content[(number - 1) * size : number * size])
        assert answer.status_code == 200, answer.text
    await world.data("POST", f"{UPLOADS}/{made['id']}/complete", headers=bearer)
    await world.settle()
    return await world.data("GET", f"{UPLOADS}/{made['id']}", headers=bearer)


def files_on_disk(world):
    return sorted(path.relative_to(world.folder).as_posix() for path in world.folder.rglob("*") if path.is_file())


async def test_parts_in_any_order_become_one_file_with_its_digest(shop):
    _, bearer = await shop.sign_in()
    content = png(os.urandom(3500))
    made = await begin(shop, bearer, content, sha256=hashlib.sha256(content).hexdigest())
    assert (made["part_count"], made["missing_parts"]) == (4, [1, 2, 3, 4])
    complete = ("POST", f"{UPLOADS}/{made['id']}/complete")
    for number in (4, 1, 3):
        piece = content[(number - 1) * 1000 : number * 1000]
        answer = (await put(shop, bearer, made, number, piece)).json()["data"]
        assert answer == {"number": number, "size_bytes": len(piece), "sha256": hashlib.sha256(piece).hexdigest()}
    refused = await shop.refused(409, "CONFLICT", "parts_missing", *complete, headers=bearer)
    assert refused.json()["error"]["details"]["missing_parts"] == [2]
    assert (await put(shop, bearer, made, 2, bytes(1000))).status_code == 200
    assert (await put(shop, bearer, made, 2, content[1000:2000])).status_code == 200  # takes the place of the first
    assert len(files_on_disk(shop)) == 4
    assert (await shop.data(*complete, headers=bearer))["status"] == "scanning"
    assert (await shop.data(*complete, headers=bearer))["status"] == "scanning"
    await shop.settle()
    found = await shop.data("GET", f"{UPLOADS}/{made['id']}", headers=bearer)
    assert found["status"] == "ready" and found["file"]["sha256"] == hashlib.sha256(content).hexdigest()
    assert files_on_disk(shop) == [f"files/{found['file']['id']}"]

    url = (await shop.data("GET", f"/v1/files/{found['file']['id']}/url", headers=bearer))["url"]
    answer = await shop.client.get(url)
    assert answer.content == content and answer.headers["content-type"] == "image/png"
    assert (
        "a%20b.png" in answer.headers["content-disposition"] and "sandbox" in answer.headers["content-security-policy"]
    )
    for asked, piece in (("bytes=0-9", content[:10]), ("bytes=3000-", content[3000:]), ("bytes=-5", content[-5:])):
        answer = await shop.client.get(url, headers={"range": asked})
        assert answer.status_code == 206 and answer.content == piece
    for asked in ("bytes=9999-", "bytes=5-2", "bytes=-0", "bytes=-", "lines=1-2", "bytes=0-1,3-4"):
        await shop.refused(400, "VALIDATION_ERROR", "bad_range", "GET", url, headers={"range": asked})
    await shop.refused(404, "NOT_FOUND", "unknown_file", "GET", url.replace("expires=", "expires=1"))
    other = f"/v1/files/{uuid4()}/content?" + url.partition("?")[2]
    await shop.refused(404, "NOT_FOUND", "unknown_file", "GET", other)


def test_document_has_the_types_of_files_whole_and_in_ranges():
    """It had `application/json` alone, and no 206."""
    responses = openapi_document()["paths"]["/v1/files/{file_id}/content"]["get"]["responses"]
    assert set(responses["200"]["content"]) == set(responses["206"]["content"]) == set(TYPES)


async def test_part_of_another_length_is_refused_while_it_streams(shop):
    _, bearer = await shop.sign_in()
    made = await begin(shop, bearer, png(bytes(1500)))
    sent = 0

    async def endless():
        nonlocal sent
        while sent < 50_000_000:
            sent += 1000
            yield png(bytes(1000))[:1000].ljust(1000, b"\0")

    path = f"{UPLOADS}/{made['id']}/parts/1"
    await shop.refused(400, "VALIDATION_ERROR", "part_too_long", "PUT", path, headers=bearer | BYTES, content=endless())
    short = await put(shop, bearer, made, 2, bytes(7))
    assert short.json()["error"]["details"] == {
        "reason": "part_too_short", "field": "body", "expected_bytes": 579, "received_bytes": 7,
    }  # fmt: skip
    for number in ("0", "3", "x", "-1", "1e3", "%00", "9999999"):
        await shop.refused(404, "NOT_FOUND", "unknown_part", "PUT", f"{UPLOADS}/{made['id']}/parts/{number}",
                           headers=bearer | BYTES, content=b"x")  # fmt: skip
    assert files_on_disk(shop) == []
    json = await shop.client.put(path, headers=bearer, json={})
    assert json.json()["error"]["details"]["reason"] == "bad_content_type"


async def test_two_gibibytes_and_a_full_account_are_refused_before_a_byte(shop):
    _, bearer = await shop.sign_in()
    body = {"name": "film.mp4", "content_type": "video/mp4", "size_bytes": 2 * 1024**3}
    refused = await shop.refused(400, "VALIDATION_ERROR", "file_too_large", "POST", UPLOADS, headers=bearer, json=body)
    assert refused.json()["error"]["details"]["max_bytes"] == 100_000
    await shop.data("POST", UPLOADS, headers=bearer, json=body | {"size_bytes": 90_000})
    await shop.refused(409, "CONFLICT", "quota_exceeded", "POST", UPLOADS, headers=bearer,
                       json=body | {"size_bytes": 90_000})  # fmt: skip
    for _ in range(19):
        await shop.data("POST", UPLOADS, headers=bearer, json=body | {"size_bytes": 1})
    await shop.refused(409, "CONFLICT", "too_many_uploads", "POST", UPLOADS, headers=bearer,
                       json=body | {"size_bytes": 1})  # fmt: skip


SVG = b"<?xml version='1.0'?>\n<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>"


@pytest.mark.parametrize(
    ("content", "declared", "reason"),
    [(SVG, "image/png", "type_not_allowed"), (SVG, "text/plain", "type_not_allowed"),
     (b"\xef\xbb\xbf  <!DOCTYPE html><script>", "text/plain", "type_not_allowed"),
     (b"MZ" + bytes(200), "application/pdf", "type_not_allowed"),
     (b"%PDF-1.7 " + bytes(50), "image/png", "type_mismatch"),
     (b"PK\x03\x04" + bytes(100), "application/epub+zip", "type_not_allowed")],
)  # fmt: skip
async def test_file_is_what_its_bytes_say(shop, content, declared, reason):
    _, bearer = await shop.sign_in()
    made = await begin(shop, bearer, content, declared)
    answer = await put(shop, bearer, made, 1, content)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["details"]["reason"]) == (400, "INVALID_CONTENT_FORMAT", reason)
    assert files_on_disk(shop) == []
    found = await shop.data("GET", f"{UPLOADS}/{made['id']}", headers=bearer)
    assert (found["status"], found["problem"]) == ("failed", reason)
    again = await put(shop, bearer, made, 1, content)
    assert again.json()["error"]["details"]["reason"] == "not_receiving"


def epub(**entries):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(zipfile.ZipInfo("mimetype"), "application/epub+zip")
        for name, content in entries.items():
            archive.writestr(name, content)
    return out.getvalue()


async def test_book_is_kept_and_a_bomb_in_its_place_is_not(shop):
    _, bearer = await shop.sign_in()
    good = await upload(shop, bearer, epub(chapter="Once upon a time. " * 40), "application/epub+zip")
    assert good["status"] == "ready"
    for content, problem in (
        (epub(bomb=bytes(30_000_000)), "archive_bomb"), (epub(**{"../../etc/passwd": "x"}), "archive_bad_name"),
        (epub(chapter="text")[:-30], "archive_broken"),
    ):  # fmt: skip
        bad = await upload(shop, bearer, content, "application/epub+zip")
        assert (bad["status"], bad["problem"], bad["file"]) == ("failed", problem, None)
    assert files_on_disk(shop) == [f"files/{good['file']['id']}"]


async def test_image_of_400_megapixels_is_refused_by_its_head_or_when_it_is_whole(shop):
    _, bearer = await shop.sign_in()
    huge = png(width=20_000, height=20_000)
    made = await begin(shop, bearer, huge)
    answer = await put(shop, bearer, made, 1, huge)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (400, "INVALID_CONTENT_FORMAT"), answer.text
    assert error["message"] == "body: an image has at most 100,000,000 pixels, and 32,767 a side"
    assert error["details"] == {
        "reason": "image_too_large", "field": "body", "width": 20_000, "height": 20_000, "max_pixels": 100_000_000,
        "max_side": 32_767,
    }  # fmt: skip
    out = io.BytesIO()
    Image.new("L", (10, 10)).save(out, "JPEG", exif=b"Exif\0\0" + bytes(6000))  # the size stands behind the first bytes
    jpeg = out.getvalue()
    frame = jpeg.index(b"\xff\xc0")
    large = jpeg[: frame + 5] + (40_000).to_bytes(2, "big") * 2 + jpeg[frame + 9 :]
    assert (await upload(shop, bearer, jpeg, "image/jpeg"))["status"] == "ready"
    found = await upload(shop, bearer, large, "image/jpeg")
    assert (found["status"], found["problem"], found["rule"]) == ("failed", "image_too_large", error["message"])
    late = await put(shop, bearer, found, 1, large[:1000])
    assert late.json()["error"]["details"]["rule"] == error["message"]


async def test_movie_without_its_tables_or_its_samples_is_no_movie(shop):
    _, bearer = await shop.sign_in()
    for content, problem in (
        (box(b"ftyp", b"isom", bytes(4)) + box(b"mdat", os.urandom(2000)), "movie_no_index"),
        (movie()[:-1], "movie_broken"), (png(os.urandom(5000))[:-20], "image_broken"),
    ):  # fmt: skip
        type_ = "image/png" if problem == "image_broken" else "video/mp4"
        found = await upload(shop, bearer, content, type_)
        assert (found["status"], found["problem"], found["file"]) == ("failed", problem, None)
        assert found["rule"].startswith("body: ")
    assert (await upload(shop, bearer, movie(), "video/mp4"))["status"] == "ready"


async def test_another_digest_than_declared_is_found(shop):
    _, bearer = await shop.sign_in()
    found = await upload(shop, bearer, png(bytes(100)), sha256="0" * 64)
    assert (found["status"], found["problem"]) == ("failed", "sha256_mismatch")


async def test_nobody_else_sees_uploads_or_files(shop):
    _, bearer = await shop.sign_in()
    done = await upload(shop, bearer, png(bytes(10)))
    _, other = await shop.sign_in()
    path = f"{UPLOADS}/{done['id']}"
    await shop.refused(404, "NOT_FOUND", "unknown_upload", "GET", path, headers=other)
    await shop.refused(404, "NOT_FOUND", "unknown_upload", "POST", f"{path}/complete", headers=other)
    await shop.refused(
        404, "NOT_FOUND", "unknown_upload", "PUT", f"{path}/parts/1", headers=other | BYTES, content=b"x"
    )
    url = ("GET", f"/v1/files/{done['file']['id']}/url")
    await shop.refused(404, "NOT_FOUND", "unknown_file", *url, headers=other)
    await shop.refused(404, "NOT_FOUND", "unknown_file", *url)
    media = shop.kernel.service(MediaService)
    async with shop.kernel.database.transaction() as db:
        await media.set_public(db, [UUID(done["file"]["id"])], True)
    assert (await shop.client.get((await shop.data(*url))["url"])).content == png(bytes(10))


async def test_assembly_that_was_cut_off_runs_again_and_what_is_left_expires(shop):
    _, bearer = await shop.sign_in()
    content = png(bytes(2000))
    made = await begin(shop, bearer, content)
    for number in (1, 2, 3):
        await put(shop, bearer, made, number, content[(number - 1) * 1000 : number * 1000])
    await shop.data("POST", f"{UPLOADS}/{made['id']}/complete", headers=bearer)
    media = shop.kernel.service(MediaService)
    write = media._blobs.write

    async def cut(key, chunks):
        await anext(aiter(chunks))
        raise Unavailable("the blob store is not reachable")

    media._blobs.write = cut
    with pytest.raises(Unavailable):
        await media._assemble(AssembleFile(UUID(made["id"])))
    media._blobs.write = write
    await shop.settle()
    assert (await shop.data("GET", f"{UPLOADS}/{made['id']}", headers=bearer))["status"] == "ready"

    left = await begin(shop, bearer, content)
    await put(shop, bearer, left, 1, content[:1000])
    await shop.sql("UPDATE media.upload SET expires_at = now() WHERE id = $1", UUID(left["id"]))
    await begin(shop, bearer, content)  # which has the rest of the others taken away
    await shop.settle()
    assert (await shop.data("GET", f"{UPLOADS}/{left['id']}", headers=bearer))["status"] == "expired"
    assert len(files_on_disk(shop)) == 1
    assert (await put(shop, bearer, left, 2, content[1000:2000])).status_code == 409


async def test_store_that_is_away_is_no_failure_of_ours(shop):
    _, bearer = await shop.sign_in()
    content = png(bytes(10))
    made = await begin(shop, bearer, content)
    shop.folder.rmdir()
    shop.folder.write_text("no folder")
    answer = await put(shop, bearer, made, 1, content)
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "SERVICE_UNAVAILABLE")
    with pytest.raises(SettingsInvalid):
        BlobStore("gopher://x")
    BlobStore("s3://bucket/files?region=eu-west-1")


def test_an_object_that_is_gone_is_named():
    with pytest.raises(KeyError, match="no object files/1"):
        BlobStore("").reading("files/1", lambda copy: copy.read())
