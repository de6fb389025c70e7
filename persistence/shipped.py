"""Asks the backup what it has of this exchange: the head in the store, held against the files here.

The head is written behind all that it names, so what it says is the least that a restore brings back. It is read of the
store, not of the shipper's word: that one may have been started with another URL, or have ended.

A store with another history (of before a cut, or of another machine's life) may be further than the journal here. Its
files beside differ, so a file counts only where the piece with its last byte has the bytes that are here. And files are
measured before the journal is shipped, and sent after it: what they tell of is in the backup too.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

from engine.messages.errors import JournalCorrupt, SettingsInvalid, Unavailable
from persistence.backup import CHUNK_BYTES, Head, Objects, head_name

__all__ = ["Shipped"]


class Shipped:
    """One exchange, by its data directory and the identity of its journal (16 bytes).

    `opens` gives the store. It makes no directory, which is the shipper's to make: as long as it raises SettingsInvalid
    the store is not there, which is another thing than one that is empty.
    """

    def __init__(self, directory: Path, opens: Callable[[], Objects], identity: bytes) -> None:
        self._directory, self._opens, self._key = directory, opens, head_name(identity)
        self._objects: Objects | None = None

    async def lacks(self, sequence: int, path: str, size: int) -> str:
        """What the backup lacks of the journal up to `sequence`, and of the first `size` bytes of the file at `path`
        beside it; empty: nothing. One request, which is over within the store's own time limits."""
        try:
            self._objects = self._objects or self._opens()
            head = Head.unpack(await self._objects.fetch(self._key))
        except KeyError:
            return "the backup has nothing of this exchange yet"
        except SettingsInvalid as error:
            return str(error)
        except (JournalCorrupt, Unavailable) as error:
            return str(error)  # a head that nobody can read has nothing: whoever waits goes on waiting, and tells it
        if head.sequence < sequence:
            return f"the backup ends with sequence {head.sequence}, {sequence} is wanted"
        kept, digests = head.beside.get(path, (0, []))
        if kept < size:
            return f"the backup has {kept} bytes of {path}, {size} are wanted"
        piece = max(0, size - 1) // CHUNK_BYTES
        with (self._directory / path).open("rb") as file:
            file.seek(piece * CHUNK_BYTES)
            data = file.read(min(CHUNK_BYTES, kept - piece * CHUNK_BYTES))
        if hashlib.sha256(data).hexdigest() != digests[piece]:
            return f"the backup has another {path}: it is of another history"
        return ""
