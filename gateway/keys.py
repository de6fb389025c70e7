"""API keys: who may do what. Ed25519 public keys with accounts, scopes, restrictions and a label.

The registry is a log of lines, `CRC32 JSON\\n`, appended and synced before a registration is answered; loading it is
reading it from the first line. That a key's protection has tripped, and that it was reset, are lines too. A torn last
line (a crash in the middle of an append) was never answered and is blanked, as is a line whose write or sync failed;
anything else that does not check is damage and refuses to start, a last line that is all there too: it may be a
revocation that was answered. Keys are never removed from the log, a revocation is a
line of its own.

Private keys never come near this module, but for the exchange's own (the operator's, the receipts'), which
`load_or_create_key` makes at the first start.
"""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import re
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import IntFlag
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from engine.messages.errors import LocalFault
from engine.messages.ports import Disk, File
from files.durable import make_directory, make_once, sync_directory
from gateway.restrictions import FIELDS, KeyRefused, Restrictions, parse

__all__ = [
    "ApiKey",
    "KeyRefused",
    "KeyLookup",
    "KeyRegistry",
    "KeyRegistryCorrupt",
    "Scope",
    "load_or_create_key",
    "public_hex",
    "read_living",
    "sign_in_bytes",
    "verify_sign_in",
]

log = logging.getLogger(__name__)
REGISTRY_PATH = "keys/registry.log"
_LABEL_MAX = 64
_ACCOUNTS_MAX = 64
_KEYS_MAX = 100_000
_SECTOR = 512
_HEAD = re.compile(rb"[0-9a-f]{8} \{")
_PUBLIC = re.compile(r"[0-9a-f]{64}", re.ASCII)
_PRINTABLE = re.compile(r"[\x20-\x7e]*", re.ASCII)


class KeyRegistryCorrupt(LocalFault):
    """The registry holds a line that does not check, and no crash left it so."""


class Scope(IntFlag):
    """What a key may do. `operator` includes everything, for every account."""

    READ = 1
    TRADE = 2
    CANCEL_ONLY = 4
    TRANSFER = 8
    WITHDRAW = 16
    OPERATOR = 32

    @classmethod
    def parse(cls, words: list[str]) -> Scope:
        """Raises KeyRefused for a word that is no scope."""
        scopes = cls(0)
        for word in words:
            if not isinstance(word, str) or word != word.lower() or word.upper() not in cls.__members__:
                known = ", ".join(name.lower() for name in cls.__members__)
                raise KeyRefused("bad_value", "scopes", f"{word!r} is none of {known}")
            scopes |= cls[word.upper()]
        return scopes

    def words(self) -> list[str]:
        return [scope.name.lower() for scope in Scope if scope in self and scope.name]


@dataclass(frozen=True, slots=True)
class ApiKey:
    """`key` is the public key, 64 hex digits. `accounts` are names; the first is the default of its commands."""

    key: str
    accounts: tuple[str, ...]
    scopes: Scope
    label: str
    restrictions: Restrictions = Restrictions()


class KeyLookup(Protocol):
    """What a session needs of the registry."""

    def find(self, key: str) -> ApiKey | None: ...


class KeyRegistry:
    """The keys, in memory by public key, and their log on disk."""

    def __init__(self, disk: Disk, path: str = REGISTRY_PATH) -> None:
        """Load the log, or begin it. Raises KeyRegistryCorrupt; OSError comes through."""
        self._keys: dict[str, ApiKey] = {}
        self._revoked: set[str] = set()
        self._tripped: dict[str, str] = {}
        self._untold = 0  # bytes behind the end of lines that were refused and may be on disk
        self._file: File = disk.open(path, create=True)
        self._end = self._load(path)
        self._settle()
        disk.sync_directory(path.rpartition("/")[0])

    def __len__(self) -> int:
        return len(self._keys)

    def find(self, key: str) -> ApiKey | None:
        """The living key with this public half, or None."""
        return self._keys.get(key)

    def register(
        self, key: str, accounts: list[str], scopes: list[str], label: str, at_ns: int,
        restrictions: Mapping[str, Any] | None = None,
    ) -> ApiKey:  # fmt: skip
        """Add a key, on disk when this returns. The same registration again changes nothing.

        `restrictions`: the fields of gateway.restrictions.

        Raises:
            KeyRefused: a rule is broken; nothing was written.
            OSError: the disk refused; the key is not registered, nor is it after a restart, unless the disk
                refused to take the line back as well: until it does, nothing else is registered or revoked.
        """
        _check_public(key)
        if (
            not isinstance(accounts, list)
            or len(accounts) > _ACCOUNTS_MAX
            or not all(isinstance(a, str) and a and _PRINTABLE.fullmatch(a) for a in accounts)
        ):
            raise KeyRefused("bad_value", "accounts", f"a list of at most {_ACCOUNTS_MAX} account names")
        if len(set(accounts)) != len(accounts):
            raise KeyRefused("bad_value", "accounts", "each account stands once")
        if not isinstance(scopes, list) or not scopes:
            raise KeyRefused("bad_value", "scopes", "a list of at least one scope")
        if not isinstance(label, str) or len(label) > _LABEL_MAX or not _PRINTABLE.fullmatch(label):
            raise KeyRefused("bad_value", "label", f"at most {_LABEL_MAX} printable ASCII characters")
        narrowed = parse(restrictions or {})
        if narrowed.expires_at and narrowed.expires_at <= at_ns:
            raise KeyRefused("bad_value", "expires_at", "later than now")
        entry = ApiKey(key, tuple(accounts), Scope.parse(scopes), label, narrowed)
        if Scope.OPERATOR in entry.scopes:
            for field in ("markets", "collar_ppm", "protection"):
                if narrowed.fields().get(field) is not None:
                    raise KeyRefused("bad_value", field, "an operator's key has none: it would not hold")
            if (restrictions or {}).get("tier") is not None:
                raise KeyRefused("bad_value", "tier", "an operator's key has none: it is without limit")
        if not entry.accounts and Scope.OPERATOR not in entry.scopes:
            raise KeyRefused("bad_value", "accounts", "a key without the operator scope needs an account")
        known = self._keys.get(key)
        if known == entry:
            return entry
        if known is not None:
            raise KeyRefused("exists", "key", "this key is registered with other rights; revoke it first")
        if len(self._keys) >= _KEYS_MAX:
            raise KeyRefused("busy", "key", f"the registry holds its most, {_KEYS_MAX} keys")
        line = {"act": "register", "key": key, "accounts": accounts, "scopes": entry.scopes.words(), "label": label}
        self._append(line | narrowed.fields() | {"at": at_ns})
        self._keys[key] = entry
        self._revoked.discard(key)
        return entry

    def revoke(self, key: str, at_ns: int) -> None:
        """End a key, on disk when this returns. Sessions that it opened are the server's to close."""
        _check_public(key)
        if key not in self._keys:
            raise KeyRefused("unknown_key", "key", "no living key has this public half")
        self._append({"act": "revoke", "key": key, "at": at_ns})
        del self._keys[key]
        self._revoked.add(key)
        self._tripped.pop(key, None)

    def tripped(self, key: str) -> str:
        """Why the key's protection has tripped, or "" if it has not, or was reset since."""
        return self._tripped.get(key, "")

    def trip(self, key: str, reason: str, at_ns: int) -> None:
        """The protection of a living key has tripped: on disk when this returns. OSError comes through."""
        self._tripped[key] = reason
        self._append({"act": "trip", "key": key, "reason": reason, "at": at_ns})

    def reset(self, key: str, at_ns: int) -> None:
        """It takes orders again, on disk when this returns. Raises OSError: it does not."""
        if key in self._tripped:
            self._append({"act": "reset", "key": key, "at": at_ns})
            del self._tripped[key]

    def living(self) -> Iterator[ApiKey]:
        """All keys that are registered and not revoked."""
        return iter(self._keys.values())

    def revoked(self) -> Iterator[str]:
        """The public halves of all keys that were revoked and not registered again."""
        return iter(self._revoked)

    def close(self) -> None:
        self._file.close()

    def _append(self, entry: dict[str, object]) -> None:
        self._take_back()
        text = json.dumps(entry, separators=(",", ":")).encode()
        line = b"%08x %s\n" % (zlib.crc32(text), text)
        try:
            self._write(line)
        except OSError:
            with contextlib.suppress(OSError):  # it has told; the first error is the one to raise
                self._take_back()
            raise
        self._end += len(line)
        self._untold = 0

    def _write(self, data: bytes) -> None:
        """Behind the last line, and synced. Counts what of it may be on disk, whatever comes of the rest."""
        done = 0
        while done < len(data):
            written = self._file.write_at(self._end + done, data[done:])
            if written <= 0:
                raise OSError(errno.EIO, f"key registry: nothing written at offset {self._end + done}")
            done += written
            self._untold = max(self._untold, done)
        self._file.sync()

    def _take_back(self) -> None:
        """Blank what a failed append has left: what was refused is not to live after a restart. Raises OSError."""
        if not self._untold:
            return
        try:
            self._write(b"\n" * self._untold)
        except OSError as error:
            log.critical("key registry: a refused line of %d bytes at offset %d is not taken back errno=%s",
                         self._untold, self._end, error.errno)  # fmt: skip
            raise
        self._end += self._untold
        self._untold = 0

    def _settle(self) -> None:
        """Write the last line once more and sync: of a process that was killed it may be in the page cache alone."""
        data = self._file.read_at(0, self._end)
        if data:
            begin = data.rstrip(b"\n").rfind(b"\n") + 1
            while begin < len(data):
                written = self._file.write_at(begin, data[begin:])
                if written <= 0:
                    raise OSError(errno.EIO, f"key registry: nothing written at offset {begin}")
                begin += written
            self._file.sync()

    def _load(self, path: str) -> int:
        data = self._file.read_at(0, self._file.size())
        end = 0
        for number, line in enumerate(data.split(b"\n"), 1):
            following = end + len(line) + 1
            if line.strip():
                crc, _, text = line.partition(b" ")
                whole = following <= len(data)
                if not whole or crc != b"%08x" % zlib.crc32(text):
                    torn = _is_torn(data, end, following - 1) if whole else crc != b"%08x" % zlib.crc32(text[:-1])
                    if data[following:].strip() or not torn:
                        raise KeyRegistryCorrupt(f"{path} line {number} at offset {end}: its checksum differs")
                    log.warning("key registry: blanked=%d offset=%d: of a line that was never answered",
                                len(data) - end, end)  # fmt: skip
                    self._file.write_at(end, b"\n" * (len(data) - end))
                    self._file.sync()
                    return len(data)
                self._take(json.loads(text))
            end = min(following, len(data))
        return end

    def _take(self, entry: dict[str, object]) -> None:
        key = str(entry["key"])
        if entry["act"] == "trip":
            self._tripped[key] = str(entry["reason"])
            return
        if entry["act"] in ("reset", "revoke"):
            self._tripped.pop(key, None)
            if entry["act"] == "revoke":
                self._keys.pop(key, None)
                self._revoked.add(key)
            return
        self._keys[key] = _registered(entry)
        self._revoked.discard(key)


def read_living(data: bytes, path: str = REGISTRY_PATH) -> list[ApiKey]:
    """The living keys of a registry's content, in the order of their registration; its core may be writing to it.

    A last line that does not check is left out: it is being written, or was never answered.

    Raises KeyRegistryCorrupt.
    """
    keys: dict[str, ApiKey] = {}
    begin = 0
    for number, line in enumerate(data.split(b"\n"), 1):
        crc, _, text = line.partition(b" ")
        if line.strip() and crc != b"%08x" % zlib.crc32(text):
            if data[begin + len(line) :].strip():
                raise KeyRegistryCorrupt(f"{path} line {number} at offset {begin}: its checksum differs")
            break
        begin += len(line) + 1
        entry = json.loads(text) if line.strip() else {"act": ""}
        if entry["act"] == "register":
            keys[entry["key"]] = _registered(entry)
        elif entry["act"] == "revoke":
            keys.pop(entry["key"], None)
    return list(keys.values())


def _registered(entry: Mapping[str, Any]) -> ApiKey:
    narrowed = parse({name: entry[name] for name in FIELDS if name in entry})
    scopes = Scope.parse(list(entry["scopes"]))
    return ApiKey(str(entry["key"]), tuple(entry["accounts"]), scopes, str(entry["label"]), narrowed)


def _is_torn(data: bytes, begin: int, stop: int) -> bool:
    """Whether a crash may have left this of a line, or of the blanking of one: in both the disk takes whole sectors.

    `data[stop]` is the newline behind it. Lost sectors of a line are zeros; of a line that was being blanked, newlines.
    """
    edges = [begin, *range((begin // _SECTOR + 1) * _SECTOR, stop + 1, _SECTOR), stop + 1]
    if any(not data[first:last].strip(b"\0") for first, last in pairwise(edges)):
        return True
    if stop % _SECTOR == 0 and data[stop - 1 : stop] != b"}":
        return True
    return data[max(0, begin - 2) : begin] == b"\n\n" and not _HEAD.match(data, begin)  # blanked from the front


def sign_in_bytes(environment: str, epoch: int, nonce: str) -> bytes:
    """What a client signs: four lines without a final newline. See docs/protocol/order-entry.md."""
    return f"byline.sign_in.v1\n{environment}\n{epoch}\n{nonce}".encode()


def verify_sign_in(key: str, signature: str, message: bytes) -> bool:
    """Whether `signature` (128 hex digits) over `message` was made by the private half of `key`."""
    try:
        Ed25519PublicKey.from_public_bytes(bytes.fromhex(key)).verify(bytes.fromhex(signature), message)
    except (InvalidSignature, ValueError):
        return False
    return True


def public_hex(private: Ed25519PrivateKey) -> str:
    """The public half as 64 hex digits."""
    return private.public_key().public_bytes_raw().hex()


def load_or_create_key(path: Path) -> Ed25519PrivateKey:
    """A private key of the exchange from `path` (64 hex digits, mode 0600), made at the first start.

    Its name is on disk on return, also of one that a start made which died before it could see to that.

    Raises LocalFault if the file is no key. OSError comes through.
    """
    if not path.exists():
        make_directory(path.parent)
        make_once(path, Ed25519PrivateKey.generate().private_bytes_raw().hex().encode() + b"\n", mode=0o600)
    sync_directory(path.parent)
    try:
        return Ed25519PrivateKey.from_private_bytes(bytes.fromhex(path.read_text("ascii").strip()))
    except ValueError as error:
        raise LocalFault(f"{path} holds no Ed25519 private key (64 hex digits)") from error


def _check_public(key: object) -> None:
    if not isinstance(key, str) or not _PUBLIC.fullmatch(key):  # bytes.fromhex would pass over blanks
        raise KeyRefused("bad_value", "key", "an Ed25519 public key, 64 lower-case hex digits")
