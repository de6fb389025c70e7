"""Keys that sign Sui transactions: the operator's Ed25519 key file, and verification of any single-key signature.

A Sui signature is flag (0 ed25519, 1 secp256k1, 2 secp256r1) | 64 bytes | public key. What is signed is
blake2b256(intent 00 00 00 | transaction bytes); the two ECDSA schemes sign the sha256 of that and must have a low s.
`sealed_key` says how a key lies on disk.
"""

from __future__ import annotations

import secrets
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from engine.messages.errors import SettingsInvalid
from files.durable import keep_name
from settlement.chain.encoding import address_text, blake2b256
from settlement.chain.sealed_key import KeyLock, open_seed, write_seed

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
        self._private = ed25519.Ed25519PrivateKey.from_private_bytes(seed)
        self._public = self._private.public_key().public_bytes_raw()
        self.address = address_text(blake2b256(b"\0" + self._public))

    @classmethod
    def load(cls, path: Path, lock: KeyLock) -> OperatorKey:
        """Open a key file; one of an older version, in clear, is sealed by that.

        Raises:
            SettingsInvalid: it is no key, others may read it, or the lock does not open it.
        """
        seed, named = open_seed(path, lock)
        key = cls(seed)
        if not named:
            write_seed(path, seed, key.address, lock, replace=True)
        elif named != key.address:
            raise SettingsInvalid(f"{path}: the key inside is of {key.address}, the file says {named}")
        return key

    @classmethod
    def load_or_create(cls, path: Path, lock: KeyLock) -> OperatorKey:
        """`load`, after making a fresh key if there is none. Processes that start together agree on one key."""
        if not path.exists():
            seed = secrets.token_bytes(32)
            write_seed(path, seed, cls(seed).address, lock)
        else:
            keep_name(path)
        return cls.load(path, lock)

    def sign(self, transaction: bytes) -> bytes:
        """The 97-byte Sui signature of transaction bytes."""
        return b"\0" + self._private.sign(blake2b256(_TRANSACTION_INTENT, transaction)) + self._public

    async def sign_transaction(self, transaction: bytes) -> bytes:
        return self.sign(transaction)

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
