"""The doors to S3, over a server on loopback that speaks it (moto's): parts, ranges, uploads gone on with, backups."""

import hashlib
import os

import httpx
import pytest
from moto.server import ThreadedMotoServer

from engine.messages.errors import Unavailable
from persistence.backup import Objects
from platform_api.media.blobs import WRITE_BYTES, BlobStore
from tests.integration.platform_api.test_media import UPLOADS, begin, put
from tests.support.api import opened
from tests.support.files import png
from tests.unit.platform_api.test_sui_signature import Wallet


@pytest.fixture
def s3(monkeypatch):
    """URL of an empty bucket; what the library needs to reach it is in the environment, as an operator sets it."""
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    values = {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}", "AWS_REGION": "us-east-1", "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
    }  # fmt: skip
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    bucket = f"bucket-{os.urandom(6).hex()}"
    assert httpx.put(f"http://{host}:{port}/{bucket}").status_code == 200
    yield f"s3://{bucket}/files"
    server.stop()


async def stream(content, size=300_000, fail_at=None):
    for at in range(0, len(content), size):
        if fail_at is not None and at >= fail_at:
            raise OSError("the sender went away")
        yield content[at : at + size]


async def read(store, key, *range_):
    return b"".join([chunk async for chunk in store.read(key, *range_)])


async def test_objects_of_several_parts_are_written_and_read_again(s3):
    store, content = BlobStore(s3), os.urandom(2 * WRITE_BYTES + 12_345)
    await store.write("a/1", stream(content))
    await store.write("a/2", stream(b"small"))
    other = BlobStore(s3)  # as after a restart
    assert await read(other, "a/1") == content and await read(other, "a/2") == b"small"
    for start, end in ((0, 10), (WRITE_BYTES - 5, WRITE_BYTES + 5), (2 * WRITE_BYTES, None), (7, len(content))):
        assert await read(other, "a/1", start, end) == content[start:end]
    assert other.reading("a/1", lambda copy: hashlib.sha256(copy.read()).digest()) == hashlib.sha256(content).digest()
    with pytest.raises(Unavailable):
        await store.write("a/3", stream(content, fail_at=WRITE_BYTES))
    await store.write("a/2", stream(b"another"))
    assert await read(other, "a/2") == b"another"
    await store.delete(["a/1", "a/1", "none"])
    for key in ("a/1", "a/3"):
        with pytest.raises(KeyError, match=f"no object {key}"):
            await read(other, key)


async def test_upload_is_gone_on_with_after_a_restart(s3, api_dsn):
    content = png(os.urandom(3500))
    pieces = {number: content[(number - 1) * 1000 : number * 1000] for number in (1, 2, 3, 4)}
    wallet = Wallet(0)
    values = {"blob_url": s3, "part_bytes": 1000, "file_bytes_max": 100_000}
    async with opened(api_dsn, **values) as world:
        _, bearer = await world.sign_in(wallet)
        made = await begin(world, bearer, content, sha256=hashlib.sha256(content).hexdigest())
        for number in (4, 1):
            assert (await put(world, bearer, made, number, pieces[number])).status_code == 200
    async with opened(api_dsn, **values) as world:
        _, bearer = await world.sign_in(wallet)
        path = f"{UPLOADS}/{made['id']}"
        assert (await world.data("GET", path, headers=bearer))["missing_parts"] == [2, 3]
        for number in (2, 3):
            assert (await put(world, bearer, made, number, pieces[number])).status_code == 200
        await world.data("POST", f"{path}/complete", headers=bearer)
        await world.settle()
        done = await world.data("GET", path, headers=bearer)
        assert done["status"] == "ready" and done["file"]["sha256"] == hashlib.sha256(content).hexdigest()
        url = (await world.data("GET", f"/v1/files/{done['file']['id']}/url", headers=bearer))["url"]
        url = url[url.index("/v1/"):]
        whole = await world.client.get(url)
        assert whole.content == content
        rest = await world.client.get(url, headers={"range": "bytes=1000-"})
        assert (rest.status_code, rest.content) == (206, content[1000:])


def test_backup_keeps_what_is_there(s3):
    objects = Objects(s3)
    assert objects.make("1", b"first") == b"first" and objects.make("1", b"second") == b"first"
    objects.check_refuses("probe")
    objects.replace("1", b"third")
    assert Objects(s3).read("1") == b"third"
    with pytest.raises(KeyError):
        objects.read("2")
