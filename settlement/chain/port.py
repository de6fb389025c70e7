"""What settlement needs of a chain, in words of settlement.

A batch goes to the chain as one or more parts; each part is one transaction that either takes effect as a whole or not
at all. `sign` gives bytes that can take effect at most once; the caller keeps them before it calls `send`, and on any
doubt asks `find` and sends the same bytes again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Protocol

import msgspec

from engine.messages.errors import Unavailable
from settlement.chain.events import ChainEvent

__all__ = [
    "ChainEvent", "ChainInfo", "ChainPort", "CoinPart", "Execution", "Part", "Payout", "Signed", "VaultListing",
    "VaultPaused", "VaultState",
]  # fmt: skip


class VaultListing(msgspec.Struct, frozen=True):
    """Where an asset lives on the chain. `faucet` is there for test coins of the embedded chain only."""

    asset: str
    coin_type: str
    vault: str
    first_batch: int
    initial_version: int
    faucet: str | None = None
    faucet_initial_version: int = 0


class Payout(msgspec.Struct, frozen=True):
    """A withdrawal: `amount` units leave `row` for `recipient`."""

    ref: str
    row: bytes
    recipient: bytes
    amount: int


class CoinPart(msgspec.Struct, frozen=True):
    """One asset in one part. Amounts are units; an entry's sign says whether the row receives or pays.

    Invariant: the entries sum to zero. Deposits take effect before them, payouts after.
    """

    asset: str
    previous: bytes
    """The vault's chain value this part builds on."""
    entries: list[tuple[bytes, int]] = []
    deposits: list[tuple[bytes, int]] = []
    payouts: list[Payout] = []
    arrived: list[tuple[bytes, int]] = []
    """Deposits that stood on the chain before: the row has them already, nothing is sent for them."""
    left: list[tuple[bytes, int]] = []
    """Forced exits that the chain has paid before."""
    liabilities: int = 0
    """What is owed to clients in this asset under the batch's root."""

    def next_chain(self, batch: int, part: int, root: bytes, trades_digest: bytes) -> bytes:
        """The vault's chain value after it.

        SHA-256(previous | batch u64 | part u64 | root | liabilities u64 | trades digest), numbers little-endian.
        """
        numbers = batch.to_bytes(8, "little") + part.to_bytes(8, "little")
        owed = self.liabilities.to_bytes(8, "little")
        return hashlib.sha256(self.previous + numbers + root + owed + trades_digest).digest()


class Part(msgspec.Struct, frozen=True):
    """One transaction of a batch: every vault takes part, with or without entries."""

    batch: int
    number: int
    """From 0."""
    count: int
    root: bytes
    trades_digest: bytes
    coins: list[CoinPart]


class Signed(msgspec.Struct, frozen=True):
    """Bytes that the chain executes at most once."""

    raw: bytes
    signature: bytes
    digest: str


class Execution(msgspec.Struct, frozen=True):
    """What the chain did with a transaction. `abort_code` is the contract's, None if it is no contract abort.

    Without a `checkpoint` the effects are one node's word: nothing may rest on them yet.
    An empty `digest`: the vaults show the effect, and the chain knows none of our transactions that has had it.
    """

    digest: str
    success: bool
    abort_code: int | None
    error: str
    gas_mist: int
    checkpoint: int | None
    kind: str = ""
    """Sui's name of the failure, as MOVE_ABORT or INSUFFICIENT_GAS."""
    skipped: list[int] = []
    """Payouts that the contract skipped, counted over all coins of the part in order: their rows had less."""


class VaultState(msgspec.Struct, frozen=True):
    """A vault as the chain shows it now."""

    next_batch: int
    next_part: int
    next_withdrawal: int
    chain: bytes
    pool: int
    paused: bool
    last_root: bytes = bytes(32)
    last_liabilities: int = 0
    last_pool: int = 0
    """What the vault held when the last part was committed."""
    deficit: int = 0
    """What rows owe the vault after exits that a batch did not know of."""
    previous: str = ""
    """Digest of the transaction that last touched the vault."""


class ChainInfo(msgspec.Struct, frozen=True):
    """What is at the other end, for status pages. `chain` says so if it is no network."""

    chain: str
    chain_id: str
    executor: str
    package: str
    operator: str


class VaultPaused(Unavailable):
    """An admin has paused a vault: nothing is sent until that is lifted."""


class ChainPort(Protocol):
    """Every method raises Unavailable when the chain does not answer."""

    async def connect(self) -> ChainInfo:
        """Reach the chain and find the package and the operator's capabilities. Refused if they are not there."""

    async def open_vaults(
        self, assets: list[tuple[str, int]], first_batch: int, beside: Sequence[VaultListing] = ()
    ) -> list[VaultListing]:
        """Open a vault for each (asset, number), of the operator that the vaults `beside` name.

        Not idempotent: called again it opens others, which stay empty.
        """

    async def vault_states(self, listings: list[VaultListing]) -> dict[str, VaultState]:
        """By asset."""

    async def sign(self, part: Part, listings: dict[str, VaultListing]) -> Signed:
        """Build and sign; changes nothing. Unavailable too while a vault is paused or names another operator."""

    async def send(self, signed: Signed) -> Execution:
        """Raises OutcomeUnknown (ask `find`) or Refused (definitely not executed)."""

    async def find(self, digest: str) -> Execution | None:
        """The transaction if the chain has executed it."""

    async def head(self) -> int:
        """The latest checkpoint."""

    async def events(self, after: int, limit: int) -> tuple[int, list[ChainEvent]]:
        """Vault events of at most `limit` checkpoints later than `after`, in order; and the last checkpoint read."""

    async def close(self) -> None: ...
