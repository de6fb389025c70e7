"""Keys that sign Sui transactions: the operator's Ed25519 key file, and verification of any single-key signature.

A Sui signature is flag (0 ed25519, 1 secp256k1, 2 secp256r1) | 64 bytes | public key. What is signed is
blake2b256(intent 00 00 00 | transaction bytes); the two ECDSA schemes sign the sha256 of that and must have a low s.
The operator key file holds 64 hex digits, mode 0600, and is written once.
"""

from __future__ import annotations

import base64
import os
import secrets
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from engine.messages.errors import SettingsInvalid
from settlement.chain.encoding import address_text, blake2b256

__all__ = ["BadSignature", "OperatorKey", "signer_of"]

_TRANSACTION_INTENT = b"\0\0\0"
_KEY_BYTES = {0: 32, 1: 33, 2: 33}
_CURVES: dict[int, ec.EllipticCurve] = {1: ec.SECP256K1(), 2: ec.SECP256R1()}
_ORDERS = {
    1: 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141,
    2: 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551,
}


class BadSignature(ValueError):
    """The signature is malformed, of an unknown scheme, or of other bytes."""


class OperatorKey:
    """An Ed25519 key that signs transactions. `address` is its Sui address."""

    def __init__(self, seed: bytes) -> None:
        self.seed = seed
        self._private = ed25519.Ed25519PrivateKey.from_private_bytes(seed)
        self._public = self._private.public_key().public_bytes_raw()
        self.address = address_text(blake2b256(b"\0" + self._public))

    @classmethod
    def load_or_create(cls, path: Path) -> OperatorKey:
        """Read the key file, or make it. Two processes that start together agree on one key.

        Raises:
            SettingsInvalid: the file holds no key, or others may read it.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            fresh = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
            descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            try:
                os.write(descriptor, secrets.token_hex(32).encode() + b"\n")
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            try:
                os.link(fresh, path)
            except FileExistsError:
                pass  # the other process was first, and its key counts
            finally:
                fresh.unlink()
        if path.stat().st_mode & 0o077:
            raise SettingsInvalid(f"{path}: the operator key must be readable by its owner only (mode 0600)")
        try:
            seed = bytes.fromhex(path.read_text().strip())
        except ValueError as error:
            raise SettingsInvalid(f"{path}: the operator key must be 64 hex digits") from error
        if len(seed) != 32:
            raise SettingsInvalid(f"{path}: the operator key must be 64 hex digits")
        return cls(seed)

    def sign(self, transaction: bytes) -> bytes:
        """The 97-byte Sui signature of transaction bytes."""
        return b"\0" + self._private.sign(blake2b256(_TRANSACTION_INTENT, transaction)) + self._public

    def __repr__(self) -> str:
        return f"OperatorKey({self.address})"


def signer_of(signature: bytes, transaction: bytes) -> str:
    """The address whose signature of `transaction` this is. Raises BadSignature."""
    flag = signature[0] if signature else -1
    if flag not in _KEY_BYTES:
        raise BadSignature(f"scheme {flag} is not known here (multisig and zkLogin need a full node)")
    if len(signature) != 65 + _KEY_BYTES[flag]:
        raise BadSignature(f"length {len(signature)} does not fit scheme {flag}")
    body, public = signature[1:65], signature[65:]
    digest = blake2b256(_TRANSACTION_INTENT, transaction)
    try:
        if flag == 0:
            ed25519.Ed25519PublicKey.from_public_bytes(public).verify(body, digest)
        else:
            r, s = int.from_bytes(body[:32], "big"), int.from_bytes(body[32:], "big")
            if not 0 < s <= _ORDERS[flag] // 2:
                raise BadSignature("s is not in the lower half")
            key = ec.EllipticCurvePublicKey.from_encoded_point(_CURVES[flag], public)
            key.verify(encode_dss_signature(r, s), digest, ec.ECDSA(hashes.SHA256()))
    except (InvalidSignature, ValueError) as error:
        raise BadSignature(str(error) or "does not verify") from error
    return address_text(blake2b256(bytes([flag]) + public))


def signature_text(signature: bytes) -> str:
    return base64.b64encode(signature).decode()
