"""Verify a receipt of the exchange: that its key signed this sequence, this state hash and this command.

What is signed stands in docs/protocol/order-entry.md. A verified receipt binds the exchange to a record of its journal:
whoever has the journal can compare `command_digest` with the SHA-256 of that record but its first four bytes.
"""

from __future__ import annotations

import hashlib
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

__all__ = ["ReceiptInvalid", "verify_receipt"]


class ReceiptInvalid(ValueError):
    """Not a receipt of this exchange, or one that was changed."""


def verify_receipt(receipt: dict[str, Any], exchange_key: str, environment: str, record: bytes | None = None) -> int:
    """The sequence that the receipt is about.

    exchange_key: the public key that you know to be the exchange's, 64 hex digits; the receipt's own proves nothing.
    record: the command as the journal has it, if you have it.

    Raises ReceiptInvalid.
    """
    try:
        digest = bytes.fromhex(receipt["command_digest"])
        state_hash = bytes.fromhex(receipt["state_hash"])
        sequence = receipt["sequence"]
        if len(digest) != 32 or len(state_hash) != 16 or not isinstance(sequence, int):
            raise ReceiptInvalid("a field has another size")
        node = hashlib.sha256(b"\0" + sequence.to_bytes(8, "little") + state_hash + digest).digest()
        for side, text in receipt["path"]:
            neighbour = bytes.fromhex(text)
            if len(neighbour) != 32 or side not in ("left", "right"):
                raise ReceiptInvalid("the path is none")
            node = hashlib.sha256(b"\1" + (neighbour + node if side == "left" else node + neighbour)).digest()
        signed = f"byline.receipt.v1\n{environment}\n{receipt['epoch']}\n{node.hex()}".encode()
        Ed25519PublicKey.from_public_bytes(bytes.fromhex(exchange_key)).verify(
            bytes.fromhex(receipt["signature"]), signed
        )
    except (KeyError, TypeError, ValueError, OverflowError, InvalidSignature) as error:
        raise error if isinstance(error, ReceiptInvalid) else ReceiptInvalid(repr(error)) from error
    if record is not None and hashlib.sha256(record[4:]).digest() != digest:
        raise ReceiptInvalid("the receipt is about another command")
    return sequence
