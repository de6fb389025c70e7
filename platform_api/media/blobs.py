"""Where bytes are kept: one object store by URL (`file:///…`, `s3://bucket/…`, `gs://…`; none: memory of the process).

Keys are made by us alone, never from names that people gave. A store that is away, or refuses, is `Unavailable`; an
object that is not there is `KeyError`. Writing is all or nothing: a stream that fails leaves no object.
"""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, BinaryIO, TypeVar, cast

import obstore
from obstore.exceptions import BaseError
from obstore.store import MemoryStore, from_url

from engine.messages.errors import SettingsInvalid, Unavailable

__all__ = ["BlobStore"]

T = TypeVar("T")

CHUNK_BYTES = 1024 * 1024
WRITE_BYTES = 5 * 1024 * 1024
"""The least that a part of an object may have on S3."""
_REMOTE = {
    # Over http only where the operator's AWS_ENDPOINT_URL says so. With options of ours AWS_ALLOW_HTTP has no effect.
    "client_options": {"connect_timeout": timedelta(seconds=5), "timeout": timedelta(seconds=60), "allow_http": True},
    "retry_config": {"max_retries": 3, "retry_timeout": timedelta(seconds=20)},
}


class BlobStore:
    """Asynchronous; the work is done by threads of the library, not by the event loop."""

    def __init__(self, url: str = "") -> None:
        """Raises SettingsInvalid for a URL that names no store."""
        try:
            options = {"mkdir": True} if url.startswith("file:") else _REMOTE
            self._store: Any = from_url(url, **cast(Any, options)) if url else MemoryStore()
        except (BaseError, ValueError, OSError) as error:
            raise SettingsInvalid(f"blob_url: {error}") from error

    async def write(self, key: str, chunks: AsyncIterator[bytes]) -> None:
        """Raises Unavailable, and what `chunks` raises."""
        with _mapped(key):
            await obstore.put_async(self._store, key, chunks, chunk_size=WRITE_BYTES, max_concurrency=2)

    async def read(self, key: str, start: int = 0, end: int | None = None) -> AsyncIterator[bytes]:
        """Chunks of about 1 MiB of the bytes from `start` to before `end`. Raises KeyError, Unavailable."""
        options: Any = {"range": {"offset": start}} if end is None else {"range": (start, end)}
        with _mapped(key):
            found = await obstore.get_async(self._store, key, options=options if start or end is not None else None)
            async for chunk in found.stream(min_chunk_size=CHUNK_BYTES):
                yield bytes(chunk)

    async def delete(self, keys: list[str]) -> None:
        """What is not there already is no failure. Raises Unavailable."""
        for key in keys:
            try:
                with _mapped(key):
                    await obstore.delete_async(self._store, key)
            except KeyError:
                continue

    def reading(self, key: str, work: Callable[[BinaryIO], T]) -> T:
        """`work` with a copy that can be sought in; for `asyncio.to_thread`.

        Raises KeyError, Unavailable, and what `work` raises.
        """
        with tempfile.TemporaryFile() as copy:
            with _mapped(key):
                reader = obstore.open_reader(self._store, key, buffer_size=CHUNK_BYTES)
                while chunk := reader.read(CHUNK_BYTES):
                    copy.write(chunk)
            copy.seek(0)
            return work(cast(BinaryIO, copy))


@contextmanager
def _mapped(key: str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise KeyError(f"the blob store has no object {key}") from error
    except (BaseError, OSError) as error:
        raise Unavailable("the blob store is not reachable") from error
