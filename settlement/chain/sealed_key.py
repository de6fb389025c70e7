"""A private key on disk: sealed, never in clear. What opens it never lies in the same directory.

    file   = {"byline_key": 1, "address", "lock": "passphrase" | "file", "salt", "nonce", "sealed"}   JSON, mode 0600
    sealed = AES-256-GCM of the 32-byte seed; the address is authenticated with it

`passphrase`: the sealing key is scrypt(passphrase, salt; n = 2^15, r = 8, p = 1), about 32 MiB and a tenth of a second.
`file`: it is HKDF-SHA256 of a random key in a file of the user's own configuration directory, made on first use. A
copy or backup of the data directory opens nothing in either case. The address is public and readable without opening.

A file of an older version with the seed in clear is sealed when it is next opened. Nothing here is ever logged but
addresses and paths.
"""

from __future__ import annotations

import json
import logging
import os
import secrets
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from engine.messages.errors import SettingsInvalid
from files.durable import keep_name, make_directory, make_once, write_whole

__all__ = ["KeyLock", "address_in", "open_seed", "write_seed"]

log = logging.getLogger(__name__)

SEED_BYTES = 32
_HELP = "set BYLINE_KEY_PASSPHRASE, or BYLINE_KEY_FILE to a file outside the data directory"


@dataclass(frozen=True, slots=True)
class KeyLock:
    """What opens sealed keys: a passphrase, or else a key file (None: the user's own)."""

    passphrase: str = field(default="", repr=False)
    key_file: Path | None = None

    @property
    def kind(self) -> str:
        return "passphrase" if self.passphrase else "file"

    def sealing_key(self, salt: bytes, *, create: bool) -> bytes:
        """32 bytes. Raises SettingsInvalid: there is no key file, and none may or can be made."""
        if self.passphrase:
            return Scrypt(salt=salt, length=32, n=2**15, r=8, p=1).derive(self.passphrase.encode())
        secret = _read_key_file(self.key_file or default_key_file(), create=create)
        return HKDF(hashes.SHA256(), 32, salt, b"byline key").derive(secret)


def default_key_file() -> Path:
    """`$XDG_CONFIG_HOME/byline/wrapping.key`, or under ~/.config."""
    base = os.environ.get("XDG_CONFIG_HOME")
    return (Path(base) if base else Path.home() / ".config") / "byline" / "wrapping.key"


def write_seed(path: Path, seed: bytes, address: str, lock: KeyLock, *, replace: bool = False) -> None:
    """Seal `seed` into `path`. Unless `replace`, a file that is there already stays, and counts.

    Raises:
        SettingsInvalid: the lock cannot seal.
    """
    salt, nonce = secrets.token_bytes(16), secrets.token_bytes(12)
    key = lock.sealing_key(salt, create=True)
    body = {
        "byline_key": 1, "address": address, "lock": lock.kind, "salt": salt.hex(), "nonce": nonce.hex(),
        "sealed": AESGCM(key).encrypt(nonce, seed, address.encode()).hex(),
    }  # fmt: skip
    make_directory(path.parent)
    (write_whole if replace else make_once)(path, json.dumps(body).encode() + b"\n", mode=0o600)
    keep_name(path)


def open_seed(path: Path, lock: KeyLock) -> tuple[bytes, str]:
    """The seed, and the address that the file names; empty for a file of the older version, in clear.

    Raises:
        SettingsInvalid: others may read the file, it is no key, or the lock does not open it.
    """
    text = _private_text(path)
    if not text.startswith("{"):
        return _seed_of(path, text), ""
    try:
        body = json.loads(text)
        address, kind = str(body["address"]), str(body["lock"])
        salt, nonce, sealed = (bytes.fromhex(body[name]) for name in ("salt", "nonce", "sealed"))
    except (ValueError, KeyError, TypeError) as error:
        raise SettingsInvalid(f"{path}: is no sealed key") from error
    if kind != lock.kind:
        raise SettingsInvalid(f"{path}: is sealed with a {kind}; {_HELP}")
    try:
        return AESGCM(lock.sealing_key(salt, create=False)).decrypt(nonce, sealed, address.encode()), address
    except InvalidTag as error:
        raise SettingsInvalid(f"{path}: does not open with this {kind}; {_HELP}") from error


def address_in(path: Path) -> str:
    """The address of a sealed key, without opening it. Raises SettingsInvalid."""
    try:
        return str(json.loads(_private_text(path))["address"])
    except (ValueError, KeyError, TypeError) as error:
        raise SettingsInvalid(f"{path}: is no sealed key") from error


def _private_text(path: Path) -> str:
    if path.stat().st_mode & 0o077:
        raise SettingsInvalid(f"{path}: a key must be readable by its owner only (mode 0600)")
    return path.read_text().strip()


def _seed_of(path: Path, text: str) -> bytes:
    try:
        seed = bytes.fromhex(text)
    except ValueError:
        seed = b""
    if len(seed) != SEED_BYTES:
        raise SettingsInvalid(f"{path}: a key must be sealed, or 64 hex digits")
    return seed


def _read_key_file(path: Path, *, create: bool) -> bytes:
    if not path.exists():
        if not create:
            raise SettingsInvalid(f"{path}: the file that opens the keys is gone; {_HELP}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            make_once(path, secrets.token_hex(SEED_BYTES).encode() + b"\n", mode=0o600)
            keep_name(path)
        except OSError as error:
            raise SettingsInvalid(f"{path}: cannot keep a key file there ({error}); {_HELP}") from error
        log.info("key_file=%s: opens the keys of data directories; keep it, and keep it apart from them", path)
    return _seed_of(path, _private_text(path))
