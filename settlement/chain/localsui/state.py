"""The embedded chain's state and the record that changes it.

A `Record` is one executed transaction with everything it wrote. It is on disk before it is answered, and `State.apply`
is the only way state changes, live and at restart alike: a restart applies the records, it does not execute again.

Objects have versions and digests as on Sui. Rows of a vault and other table entries lie beside the objects (on Sui they
are dynamic fields, objects of their own).
A transaction's answer is rebuilt from its record, so the same bytes get the same answer for ever.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import msgspec

from settlement.chain.encoding import (
    CLOCK_ID,
    SUI_COIN,
    Row,
    VaultHeader,
    address_text,
    blake2b256,
    dynamic_field_id,
    object_digest,
    u64,
)
from settlement.chain.localsui.contract import Executor, Vault
from settlement.chain.localsui.faucet import FAUCET_ADDRESS
from settlement.chain.localsui.rights import TABLES, Table
from settlement.chain.rights import Registry, Till, Work

__all__ = ["CLOCK_KIND", "GENESIS_GAS_MIST", "Consumed", "Emitted", "Genesis", "Item", "Record", "State", "Turn"]

CLOCK_KIND = "0x2::clock::Clock"

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


class Emitted(msgspec.Struct, frozen=True):
    """An event: the struct `name` of a module, in BCS."""

    package: bytes
    module: str
    name: str
    contents: bytes


class Record(msgspec.Struct, frozen=True, tag=True):
    """One executed transaction, successful or not. One that the node made itself (a fault switch) has no bytes."""

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
    rows: list[tuple[bytes, bytes, Row]] = []
    """Vault, owner, new row."""
    vaults: list[tuple[bytes, str, bytes]] = []
    """Vaults opened: id, coin type, package."""
    coins: list[tuple[bytes, str, bytes]] = []
    """Test coins published: package, module, bytecode."""
    packages: list[bytes] = []
    """Exchange packages published."""
    events: list[Emitted] = []
    entries: list[tuple[bytes, bytes, bytes | None]] = []
    """Table entries of the rights modules: table, key, value (None: removed)."""


class Turn(msgspec.Struct, frozen=True, tag=True):
    """What the network itself decides, from here on: epoch, reference gas price, objects locked until the epoch's end.

    `locks`: object, version, digest of the transaction that holds it (empty: two met there, none can have it).
    """

    epoch: int
    gas_price: int
    locks: list[tuple[bytes, int, bytes]] = []


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
    packages: set[bytes] = field(default_factory=set)
    coins: dict[bytes, str] = field(default_factory=dict)
    """Test coins: package → module."""
    entries: dict[bytes, dict[bytes, bytes]] = field(default_factory=dict)
    """Tables of the rights modules: id → key → value."""
    vaults: dict[bytes, Vault] = field(default_factory=dict)
    offsets: dict[bytes, int] = field(default_factory=dict)
    """Digest of each executed transaction → offset of its record in the log."""
    checkpoints: list[tuple[int, bytes, int]] = field(default_factory=list)
    """Of each transaction, oldest first: offset of its record, digest of its checkpoint, time (ms)."""

    @classmethod
    def at_genesis(cls, genesis: Genesis, executor: Executor) -> State:
        """The package is published, its two caps and the gas belong to the operator; as much gas to the faucet.

        Simulated: on Sui the publisher pays for a Publish transaction, and `init` hands out the caps.
        """
        state = cls(genesis, executor, packages={genesis.package})
        numbers = iter(range(2**32))
        objects = state.initial_objects(
            genesis.package, genesis.operator, lambda: blake2b256(genesis.package, b"init", u64(next(numbers)))
        )
        for identity, kind, contents, owner in objects:
            initial = 1 if owner is None else None
            state.items[identity] = Item(identity, 1, kind, contents, owner, initial, GENESIS_DIGEST)
        gas = blake2b256(genesis.package, b"gas")
        contents = gas + u64(GENESIS_GAS_MIST)
        state.items[gas] = Item(gas, 1, SUI_COIN, contents, genesis.operator, None, GENESIS_DIGEST)
        tap = blake2b256(genesis.package, b"faucet gas")
        contents = tap + u64(GENESIS_GAS_MIST)
        state.items[tap] = Item(tap, 1, SUI_COIN, contents, FAUCET_ADDRESS, None, GENESIS_DIGEST)
        clock = CLOCK_ID + u64(0)
        state.items[CLOCK_ID] = Item(CLOCK_ID, 1, CLOCK_KIND, clock, None, 1, GENESIS_DIGEST)
        return state

    @staticmethod
    def initial_objects(
        package: bytes, publisher: bytes, new_id: Callable[[], bytes]
    ) -> list[tuple[bytes, str, bytes, bytes | None]]:
        """What the `init` functions of the exchange package make: id, type, contents, owner (None: shared)."""
        prefix = address_text(package)
        admin, operator, registry, works, arbiter = (new_id() for _ in range(5))
        return [
            (admin, f"{prefix}::settlement::AdminCap", admin, publisher),
            (operator, f"{prefix}::settlement::OperatorCap", operator, publisher),
            (registry, f"{prefix}::copyright_registry::Registry", registry + works + u64(0) + u64(0), None),
            (arbiter, f"{prefix}::copyright_registry::ArbiterCap", arbiter + registry, publisher),
        ]

    def copy(self) -> State:
        """What reads need, as it is now; `apply` on either leaves the other alone."""
        vaults = {
            identity: Vault(vault.header, vault.coin_type, vault.package, dict(vault.rows))
            for identity, vault in self.vaults.items()
        }
        entries = {parent: dict(table) for parent, table in self.entries.items()}
        return State(
            self.genesis, self.executor, dict(self.items), set(self.packages), dict(self.coins), entries, vaults,
            dict(self.offsets), list(self.checkpoints),
        )  # fmt: skip

    def apply(self, record: Record, offset: int) -> None:
        for item in record.written:
            self.items[item.id] = item
        for identity in record.deleted:
            del self.items[identity]
        for package, module, code in record.coins:
            self.executor.add_coin(package, module, code)
            self.coins[package] = module
        self.packages.update(record.packages)
        for identity, coin_type, package in record.vaults:
            self.vaults[identity] = Vault(VaultHeader.decode(self.items[identity].contents), coin_type, package)
        for item in record.written:
            if item.id in self.vaults:
                self.vaults[item.id].header = VaultHeader.decode(item.contents)
        for vault, owner, row in record.rows:
            self.vaults[vault].rows[owner] = row
        for parent, key, value in record.entries:
            if value is None:
                del self.entries[parent][key]
            else:
                self.entries.setdefault(parent, {})[key] = value
        self.offsets[record.digest] = offset
        previous = self.checkpoints[-1][1] if self.checkpoints else bytes(32)
        digest = blake2b256(b"embedded checkpoint", previous, u64(record.checkpoint), record.digest)
        self.checkpoints.append((offset, digest, record.at_ms))

    def table(self, parent: bytes) -> list[tuple[bytes, str, bytes, str, bytes]]:
        """Entries of a table: field id, key type, key, value type, value; in the order of the keys."""
        for vault in self.vaults.values():
            if vault.header.rows_id == parent:
                kind = f"{address_text(vault.package)}::row::Row"
                return [
                    (dynamic_field_id(parent, who), "address", who, kind, row.encode())
                    for who, row in sorted(vault.rows.items())
                ]
        return [
            (dynamic_field_id(parent, key, table.key_tag), table.key, key, table.value.format(package), value)
            for table, package in self._table_of(parent)
            for key, value in sorted(self.entries.get(parent, {}).items())
        ]

    def _table_of(self, parent: bytes) -> list[tuple[Table, str]]:
        """Form of a rights table and its package, found by the object that holds it; empty if there is none."""
        holders: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
            "copyright_registry::Registry": ("works", lambda contents: Registry.decode(contents).works),
            "copyright_registry::Work": ("licenses", lambda contents: Work.decode(contents).licenses),
            "royalty::Till": ("due", lambda contents: Till.decode(contents).due),
        }
        for item in self.items.values():
            package, _, kind = item.kind.partition("<")[0].partition("::")
            if kind in holders and holders[kind][1](item.contents) == parent:
                return [(TABLES[holders[kind][0]], package)]
        return []

    def checkpoint_of(self, digest: bytes) -> int | None:
        """Number of the checkpoint with this digest."""
        return next((n for n, (_, known, _) in enumerate(self.checkpoints, 1) if known == digest), None)

    @property
    def checkpoint(self) -> int:
        """The embedded chain closes one checkpoint a transaction."""
        return len(self.checkpoints)
