"""What one batch states, in the bytes whose hash goes to Sui as the batch's root.

    batch root = SHA-256(04 | statement)

A statement names the batch and its sequences, the core's state hash at the cut, the trades, the liability root and
what is owed in each asset, and the latest publication of the journal that it vouches for. So the chain binds all of
it, and whoever has the statement checks it with one hash. Numbers are u64 LE, times i64 LE in ns UTC; a text has its
length before it as u8. Assets stand in the order of the core.
"""

from __future__ import annotations

import hashlib

import msgspec

__all__ = ["Owed", "Statement"]


class Owed(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One asset: `owed` to clients at the cut; `unbooked` of it is paid on the chain and not yet booked by the core."""

    asset: str
    owed: int
    unbooked: int


class Statement(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """As in a batch file, where binary fields are base64."""

    number: int
    first_sequence: int
    last_sequence: int
    cut_ts: int
    state_hash: bytes
    trades_digest: bytes
    trade_count: int
    liability_root: bytes
    assets: list[Owed]
    published_batch: int
    """The last batch of the published journal that `published_digest` covers; 0: nothing is published."""
    published_digest: bytes

    def encode(self) -> bytes:
        """Raises ValueError if a field has another size than it must, or an asset is stated twice."""
        for name, size in (
            ("state_hash", 16), ("trades_digest", 32), ("liability_root", 32), ("published_digest", 32),
        ):  # fmt: skip
            if len(getattr(self, name)) != size:
                raise ValueError(f"{name} has {len(getattr(self, name))} bytes, not {size}")
        if len({item.asset for item in self.assets}) != len(self.assets):
            raise ValueError("an asset is stated twice")
        try:
            assets = b"".join(
                _text(item.asset) + item.owed.to_bytes(8, "little") + item.unbooked.to_bytes(8, "little")
                for item in self.assets
            )
            numbers = (self.number, self.first_sequence, self.last_sequence)
            return b"".join((
                b"byline batch 1", *(number.to_bytes(8, "little") for number in numbers),
                self.cut_ts.to_bytes(8, "little", signed=True), self.state_hash, self.trades_digest,
                self.trade_count.to_bytes(8, "little"), self.liability_root,
                len(self.assets).to_bytes(8, "little"), assets,
                self.published_batch.to_bytes(8, "little"), self.published_digest,
            ))  # fmt: skip
        except OverflowError as error:
            raise ValueError(f"a number of the statement is out of range: {error}") from error

    def root(self) -> bytes:
        """What goes to the chain. Raises ValueError as `encode`."""
        return hashlib.sha256(b"\4" + self.encode()).digest()


def _text(text: str) -> bytes:
    encoded = text.encode()
    return bytes([len(encoded)]) + encoded
