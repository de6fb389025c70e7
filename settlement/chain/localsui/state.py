"""The embedded chain's state and the record that changes it.

A `Record` is one executed transaction with everything it wrote. It is on disk before it is answered, and `State.apply`
is the only way state changes, live and at restart alike: a restart applies the records, it does not execute again.

Objects have versions and digests as on Sui. Rows and exits of a vault lie beside its object (on Sui they are dynamic
fields of their own). A transaction's answer is rebuilt from its record, so the same bytes get the same answer for ever.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import msgspec

from settlement.chain.encoding import (
    CLOCK_ID,
    SUI_COIN,
    VaultHeader,
    blake2b256,
    object_digest,
    u64,
)
from settlement.chain.localsui.contract import Executor, Vault

__all__ = ["GENESIS_GAS_MIST", "Consumed", "Item", "Record", "State"]

GENESIS_GAS_MIST = 1_000_000 * 10**9
GENESIS_DIGEST = blake2b256(b"embedded chain genesis")


class Item(msgspec.Struct, frozen=True):
    """One version of one object. `owner` None means shared since version `initial`."""

    id: bytes
    version: int
    kind: str
    contents: bytes
    owner: bytes | None
    initial: int | None
    previous: bytes

    @property
    def digest(self) -> bytes:
        return object_digest(self.kind, self.version, self.contents, self.owner, self.initial, self.previous)

    @property
    def mist(self) -> int:
        """Balance of a coin."""
        return int.from_bytes(self.contents[32:40], "little")


class Consumed(msgspec.Struct, frozen=True):
    """An object as the transaction found it."""

    id: bytes
    version: int
    digest: bytes
    kind: str
    owner: bytes | None
    initial: int | None


class Record(msgspec.Struct, frozen=True):
    """One executed transaction, successful or not."""

    digest: bytes
    raw: bytes
    signatures: list[bytes]
    success: bool
    abort_code: int | None
    error: str
    gas_mist: int
    version: int
    checkpoint: int
    epoch: int
    at_ms: int
    consumed: list[Consumed]
    written: list[Item]
    deleted: list[bytes]
    rows: list[tuple[bytes, bytes, int]] = []
    """Vault, owner, new balance."""
    exits: list[tuple[bytes, bytes, int, int]] = []
    """Vault, owner, amount, ready at; both 0: gone."""
    vaults: list[tuple[bytes, str]] = []
    """Vaults opened: id, coin type."""
    coins: list[tuple[bytes, str, bytes]] = []
    """Test coins published: package, module, bytecode."""


class Genesis(msgspec.Struct, frozen=True):
    """First entry of the log."""

    chain_id: str
    package: bytes
    operator: bytes
    bytecode_digest: str


@dataclass(slots=True)
class State:
    """Everything at the latest record."""

    genesis: Genesis
    executor: Executor
    items: dict[bytes, Item] = field(default_factory=dict)
    vaults: dict[bytes, Vault] = field(default_factory=dict)
    offsets: dict[bytes, int] = field(default_factory=dict)
    """Digest of each executed transaction → offset of its record in the log."""

    @classmethod
    def at_genesis(cls, genesis: Genesis, executor: Executor) -> State:
        """The package is published, its two caps and the gas belong to the operator.

        Simulated: on Sui the publisher pays for a Publish transaction, and `init` hands out the caps.
        """
        state = cls(genesis, executor)
        owner = genesis.operator
        for kind in ("AdminCap", "OperatorCap"):
            identity = blake2b256(genesis.package, kind.encode())
            full = f"0x{genesis.package.hex()}::settlement::{kind}"
            state.items[identity] = Item(identity, 1, full, identity, owner, None, GENESIS_DIGEST)
        gas = blake2b256(genesis.package, b"gas")
        contents = gas + u64(GENESIS_GAS_MIST)
        state.items[gas] = Item(gas, 1, SUI_COIN, contents, owner, None, GENESIS_DIGEST)
        clock = CLOCK_ID + u64(0)
        state.items[CLOCK_ID] = Item(CLOCK_ID, 1, "0x2::clock::Clock", clock, None, 1, GENESIS_DIGEST)
        return state

    def apply(self, record: Record, offset: int) -> None:
        for item in record.written:
            self.items[item.id] = item
        for identity in record.deleted:
            del self.items[identity]
        for package, module, code in record.coins:
            self.executor.add_coin(package, module, code)
        for identity, coin_type in record.vaults:
            self.vaults[identity] = Vault(VaultHeader.decode(self.items[identity].contents), coin_type)
        for item in record.written:
            if item.id in self.vaults:
                self.vaults[item.id].header = VaultHeader.decode(item.contents)
        for vault, owner, balance in record.rows:
            self.vaults[vault].rows[owner] = balance
        for vault, owner, amount, ready_ms in record.exits:
            if amount or ready_ms:
                self.vaults[vault].exits[owner] = (amount, ready_ms)
            else:
                self.vaults[vault].exits.pop(owner, None)
        self.offsets[record.digest] = offset

    @property
    def checkpoint(self) -> int:
        """The embedded chain closes one checkpoint a transaction."""
        return len(self.offsets)
