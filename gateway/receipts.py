"""Signed receipts: proof, for whoever asks, that the exchange took this command as this sequence, and stood so after.

A leaf binds a sequence, the state hash right after that command, and the SHA-256 of its journal record but the first
four bytes (the checksum, in which the journal also marks where a group begins). The leaves of one release are the
bottom of a Merkle tree and share one Ed25519 signature over its root (36 µs a release, however many ask); a receipt
brings its leaf's path to the root.

    leaf = SHA-256(00 | sequence, 8 bytes little endian | state hash, 16 bytes | digest of the record, 32 bytes)
    node = SHA-256(01 | left | right); the last of an odd row goes up as it is
    signed: the lines "byline.receipt.v1", environment, epoch, root in hex; joined by one \\n, none after the last

A receipt is told with its ack or right behind it, so with durable acks it is about what is on disk. Nothing is kept:
who wants proof later keeps the receipt. `byline.client.receipts` verifies.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

__all__ = ["Receipts"]

Owner = TypeVar("Owner")


@dataclass(frozen=True, slots=True)
class _Asked(Generic[Owner]):
    owner: Owner
    sequence: int
    state_hash: bytes
    digest: bytes

    def leaf(self) -> bytes:
        body = b"\0" + self.sequence.to_bytes(8, "little") + self.state_hash + self.digest
        return hashlib.sha256(body).digest()


class Receipts(Generic[Owner]):
    """What was asked for and not yet told, in sequence. `environment` and `epoch` stand in what is signed."""

    def __init__(self, private: Ed25519PrivateKey, environment: str, epoch: int) -> None:
        self.key = private.public_key().public_bytes_raw().hex()
        self._private = private
        self._environment = environment
        self._epoch = epoch
        self._waiting: list[_Asked[Owner]] = []

    def __len__(self) -> int:
        return len(self._waiting)

    def ask(self, owner: Owner, sequence: int, record: bytes, state_hash: bytes) -> None:
        """`record` as the journal has it, `state_hash` right after it. Sequences ascend."""
        self._waiting.append(_Asked(owner, sequence, state_hash, hashlib.sha256(record[4:]).digest()))

    def sign(self, released: int) -> list[tuple[Owner, dict[str, Any]]]:
        """The receipts up to `released`, under one signature."""
        count = sum(asked.sequence <= released for asked in self._waiting)
        group, self._waiting = self._waiting[:count], self._waiting[count:]
        if not group:
            return []
        rows = [[asked.leaf() for asked in group]]
        while len(rows[-1]) > 1:
            row = rows[-1]
            pairs = [row[at : at + 2] for at in range(0, len(row), 2)]
            rows.append([hashlib.sha256(b"\1" + b"".join(p)).digest() if len(p) == 2 else p[0] for p in pairs])
        root = rows[-1][0].hex()
        text = f"byline.receipt.v1\n{self._environment}\n{self._epoch}\n{root}"
        signature = self._private.sign(text.encode()).hex()
        return [
            (asked.owner, self._body(asked, _path(rows, position), signature)) for position, asked in enumerate(group)
        ]

    def _body(self, asked: _Asked[Owner], path: list[list[str]], signature: str) -> dict[str, Any]:
        return {
            "type": "receipt", "sequence": asked.sequence, "state_hash": asked.state_hash.hex(),
            "command_digest": asked.digest.hex(), "environment": self._environment, "epoch": self._epoch, "path": path,
            "key": self.key, "signature": signature,
        }  # fmt: skip


def _path(rows: list[list[bytes]], position: int) -> list[list[str]]:
    """From a leaf to the root: on which side its neighbour stands, and what it is."""
    path = []
    for row in rows[:-1]:
        neighbour = position ^ 1
        if neighbour < len(row):
            path.append(["left" if neighbour < position else "right", row[neighbour].hex()])
        position //= 2
    return path
