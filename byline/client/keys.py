"""Ed25519 API keys on the client's side. The private key never leaves it."""

from __future__ import annotations

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

__all__ = ["generate_key", "load_key", "public_key", "sign_in_signature"]


def generate_key() -> Ed25519PrivateKey:
    """A fresh private key. Register `public_key(key)` with the operator before using it."""
    return Ed25519PrivateKey.generate()


def load_key(text: str) -> Ed25519PrivateKey:
    """A private key from 64 hex digits (the form of DATA/keys/operator.key). Raises ValueError for anything else."""
    return Ed25519PrivateKey.from_private_bytes(bytes.fromhex(text.strip()))


def public_key(key: Ed25519PrivateKey) -> str:
    """The public half as the exchange names it: 64 hex digits."""
    return key.public_key().public_bytes_raw().hex()


def sign_in_signature(key: Ed25519PrivateKey, environment: str, epoch: int, nonce: str) -> str:
    """The signature of a sign-in, 128 hex digits; see docs/protocol/order-entry.md."""
    return key.sign(f"byline.sign_in.v1\n{environment}\n{epoch}\n{nonce}".encode()).hex()
