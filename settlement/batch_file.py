"""A final batch as a file that anyone may keep: what was stated, over which vaults, in which transactions.

It holds nothing secret and nothing that has to be believed: `settlement.verify` checks every field of it against a
node. Binary fields are base64, addresses `0x…`, digests base58.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import msgspec

from settlement.batch import Life
from settlement.chain.port import CoinPart, VaultListing
from settlement.envelope import unwrapped
from settlement.statement import Statement

__all__ = ["FORMAT", "BatchFile", "VaultLink", "batch_file", "read_batch_file"]

FORMAT: Literal["byline batch 1"] = "byline batch 1"


class VaultLink(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One vault of the batch. `previous` and `chain`: its chain value before and after."""

    asset: str
    coin_type: str
    vault: str
    previous: bytes
    chain: bytes


class BatchFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`digests`: one transaction for each part, in order."""

    format: Literal["byline batch 1"]
    statement: Statement
    root: bytes
    digests: list[str]
    vaults: list[VaultLink]

    def chain_after(self, link: VaultLink, number: int, previous: bytes, parts: int) -> bytes:
        """The vault's chain value after batch `number` of that many parts, by the contract's rule."""
        owed = next((item.owed for item in self.statement.assets if item.asset == link.asset), 0)
        value = previous
        for part in range(parts):
            coin = CoinPart(link.asset, value, liabilities=owed)
            value = coin.next_chain(number, part, self.root, self.statement.trades_digest)
        return value


def batch_file(life: Life, listings: Mapping[str, VaultListing]) -> bytes:
    """The file of a final batch, as JSON; empty if it has no statement."""
    batch = life.batch
    if batch.statement is None:
        return b""
    vaults = [
        VaultLink(
            coin.asset, listings[coin.asset].coin_type, listings[coin.asset].vault, coin.previous,
            last.next_chain(batch.number, len(batch.parts) - 1, batch.root, batch.trades_digest),
        )
        for coin, last in zip(batch.parts[0].coins, batch.parts[-1].coins, strict=True)
    ]  # fmt: skip
    digests = [execution.digest for execution in life.executions if execution.success]
    return msgspec.json.encode(BatchFile(FORMAT, batch.statement, batch.root, digests, vaults))


def read_batch_file(data: bytes) -> BatchFile:
    """A file as kept, or the whole answer of `GET /v1/settlement/batches/{n}`. ValueError if it is neither."""
    try:
        return msgspec.json.decode(unwrapped(data, "file"), type=BatchFile)
    except (ValueError, msgspec.MsgspecError) as error:
        raise ValueError(f"this is no batch file: {error}") from error
