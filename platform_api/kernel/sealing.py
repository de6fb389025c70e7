"""Columns that nobody reads without the keys: AES-256-GCM, with a key ring that can be turned.

    value    1 || key number u32 || nonce 12 || ciphertext and tag        bound to its column and row by the AAD
    digest   HMAC-SHA-256 under the index key, for equality searches      does not turn: it is what the index holds

The ring is a file of mode 0600 beside the other keys. `rotate` adds a key, which seals from the next start on; older
ones still open. `reseal` then brings rows to the newest key, a few at a time, after which old keys may be removed.
A lost ring is lost data: it belongs into the backup, apart from the database's.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from engine.messages.errors import SettingsInvalid
from files.durable import keep_name, make_directory, write_whole
from platform_api.database import Database

__all__ = ["KeyRing", "NotOurs", "SealedColumn", "Sealer", "load_ring", "reseal", "rotate"]

_VERSION = b"\x01"
_NONCE_BYTES = 12
_HEAD_BYTES = 5
_KEY_BYTES = 32
_BATCH = 200


class NotOurs(ValueError):
    """A sealed value that no key of the ring opens, or of another column or row."""


@dataclass(frozen=True, slots=True)
class SealedColumn:
    """A column `table.column` of sealed values; `key` is the table's primary key, a uuid."""

    table: str
    column: str
    key: str = "id"

    @property
    def name(self) -> str:
        return f"{self.table}.{self.column}"


class _RingFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    index_key: str
    keys: dict[str, str]


@dataclass(frozen=True, slots=True, repr=False)
class KeyRing:
    """Keys by number; the highest seals."""

    index_key: bytes
    keys: Mapping[int, bytes]

    @property
    def newest(self) -> int:
        return max(self.keys)

    @classmethod
    def fresh(cls) -> KeyRing:
        return cls(secrets.token_bytes(_KEY_BYTES), {1: secrets.token_bytes(_KEY_BYTES)})

    def turned(self) -> KeyRing:
        return KeyRing(self.index_key, {**self.keys, self.newest + 1: secrets.token_bytes(_KEY_BYTES)})


class Sealer:
    """Seals and opens with one ring."""

    def __init__(self, ring: KeyRing) -> None:
        self.newest = ring.newest
        self._index_key = ring.index_key
        self._ciphers = {number: AESGCM(key) for number, key in ring.keys.items()}

    def seal(self, column: SealedColumn, row: UUID, text: str) -> bytes:
        nonce = os.urandom(_NONCE_BYTES)
        sealed = self._ciphers[self.newest].encrypt(nonce, text.encode(), _bound_to(column, row))
        return _VERSION + self.newest.to_bytes(4, "big") + nonce + sealed

    def open(self, column: SealedColumn, row: UUID, sealed: bytes) -> str:
        """Raises NotOurs."""
        cipher = self._ciphers.get(int.from_bytes(sealed[1:_HEAD_BYTES], "big"))
        if cipher is None or sealed[:1] != _VERSION:
            raise NotOurs(f"{column.name}: no key of the ring opens this value")
        nonce, rest = sealed[_HEAD_BYTES : _HEAD_BYTES + _NONCE_BYTES], sealed[_HEAD_BYTES + _NONCE_BYTES :]
        try:
            return cipher.decrypt(nonce, rest, _bound_to(column, row)).decode()
        except (InvalidTag, ValueError) as error:
            raise NotOurs(f"{column.name}: the value is altered, or of another row") from error

    def digest(self, purpose: str, text: str) -> bytes:
        """32 bytes, equal for equal texts of one purpose."""
        return hmac.new(self._index_key, f"{purpose}\0{text}".encode(), hashlib.sha256).digest()


def load_ring(path: Path | None) -> KeyRing:
    """The ring at `path`, made there (mode 0600) if there is none. Without a path: one that dies with the process.

    Raises:
        SettingsInvalid: the file holds something else, or others may read it.
    """
    if path is None:
        return KeyRing.fresh()
    if not path.exists():
        _write(path, KeyRing.fresh())
    if path.stat().st_mode & 0o077:
        raise SettingsInvalid(f"column_keys_path: {path} may be read by others: chmod 600 it")
    try:
        file = msgspec.json.decode(path.read_bytes(), type=_RingFile)
        keys = {int(number): base64.b64decode(key, validate=True) for number, key in file.keys.items()}
        ring = KeyRing(base64.b64decode(file.index_key, validate=True), keys)
    except (msgspec.DecodeError, ValueError) as error:
        raise SettingsInvalid(f"column_keys_path: {path} holds no key ring") from error
    if not keys or any(len(key) != _KEY_BYTES for key in (*keys.values(), ring.index_key)):
        raise SettingsInvalid(f"column_keys_path: {path} holds no key ring")
    return ring


def rotate(path: Path) -> int:
    """Adds a key to the ring at `path`; returns its number. It seals once the API has been started anew."""
    ring = load_ring(path).turned()
    _write(path, ring)
    return ring.newest


async def reseal(database: Database, sealer: Sealer, columns: Iterable[SealedColumn]) -> int:
    """Brings values of older keys to the newest; returns how many. A row that changed meanwhile is left to its writer.

    Raises NotOurs, Unavailable.
    """
    changed = 0
    for column in columns:
        head = _VERSION + sealer.newest.to_bytes(4, "big")
        last = UUID(int=0)
        while True:
            rows = await database.fetch(
                f"SELECT {column.key} AS key, {column.column} AS sealed FROM {column.table} WHERE {column.key} > $1"
                f" AND substring({column.column} FROM 1 FOR {_HEAD_BYTES}) <> $2 ORDER BY {column.key} LIMIT {_BATCH}",
                last, head,
            )  # fmt: skip
            for row in rows:
                old, last = bytes(row["sealed"]), row["key"]
                new = sealer.seal(column, last, sealer.open(column, last, old))
                tag = await database.execute(
                    f"UPDATE {column.table} SET {column.column} = $3 WHERE {column.key} = $1 AND {column.column} = $2",
                    last, old, new,
                )  # fmt: skip
                changed += tag == "UPDATE 1"
            if len(rows) < _BATCH:
                break
    return changed


def _bound_to(column: SealedColumn, row: UUID) -> bytes:
    return f"{column.name}:{row}".encode()


def _write(path: Path, ring: KeyRing) -> None:
    """Whole or not at all, and on disk before a value is sealed with it."""
    file = _RingFile(
        base64.b64encode(ring.index_key).decode(),
        {str(number): base64.b64encode(key).decode() for number, key in ring.keys.items()},
    )
    make_directory(path.parent)
    write_whole(path, msgspec.json.format(msgspec.json.encode(file)), mode=0o600)
    keep_name(path)
