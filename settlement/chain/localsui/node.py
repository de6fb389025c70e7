"""LocalSui: a Sui node of one process. Takes signed transactions by Sui's rules, runs them, keeps them.

Real: TransactionData BCS, digests, signatures, owned-object versions and digests, gas payment and smashing, reference
gas price, budget, expiry, size limits, the limit of 1,000 dynamic fields, publication of the exchange package and of
test coins, and (with the wheel) the Move VM that runs the contract's bytecode. Simulated: consensus, validators,
checkpoints (one a transaction), epochs (they turn only when told), gas amounts (an estimate, no storage cost), effects
as protobuf fields only. It is no network, and says so in every status.

Order of the checks: size, encoding, signatures, expiry, gas, inputs; a refusal there costs nothing and leaves no
trace. After them the transaction is executed: it takes effect or fails, pays gas either way, and its record is on disk
before the answer leaves. The same bytes again are answered from the record.

The log also keeps what the network itself decides: epochs, gas price, objects locked by two transactions at once
(`old_locks`: as before Sui moved locking behind consensus). So a restart after any crash shows the same chain.

One transaction at a time. Worst case: as many Move calls as a transaction has, 20 ms each.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import ChainMap
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import msgspec
from pysui.sui.sui_bcs import bcs

from engine.messages.errors import JournalCorrupt, PartMissing
from settlement.appendlog import AppendLog
from settlement.chain.encoding import (
    SUI_COIN,
    Row,
    address_bytes,
    address_text,
    base58_text,
    blake2b256,
    transaction_digest,
    u64,
)
from settlement.chain.keys import BadSignature, signer_of
from settlement.chain.localsui.calls import events_of, move_call
from settlement.chain.localsui.contract import Executor, MoveAbort, SetOperator, SetPaused
from settlement.chain.localsui.interpreter import (
    DYNAMIC_FIELD_LIMIT,
    MAX_EVENTS,
    MAX_NEW_OBJECTS,
    Interpreter,
    Scratch,
    UnknownShape,
)
from settlement.chain.localsui.model import ModelExecutor
from settlement.chain.localsui.movevm import BYTECODE, MoveExecutor
from settlement.chain.localsui.state import Consumed, Genesis, Item, Record, State, Turn

__all__ = ["LIMITS", "LocalSui", "Rejected", "make_executor", "sender_of"]

PROTOCOL_VERSION = 140
REFERENCE_GAS_PRICE_MIST = 750
MIN_GAS_UNITS = 1_000
LIMITS = {
    "max_tx_size_bytes": 131_072,
    "max_programmable_tx_commands": 1_024,
    "max_arguments": 512,
    "max_pure_argument_size": 16_384,
    "max_input_objects": 2_048,
    "max_gas_payment_objects": 256,
    "max_tx_gas": 50_000_000_000_000,
    "max_num_event_emit": MAX_EVENTS,
    "max_num_new_move_object_ids": MAX_NEW_OBJECTS,
    "object_runtime_max_num_cached_objects": DYNAMIC_FIELD_LIMIT,
    "base_tx_cost_fixed": MIN_GAS_UNITS,
}


class Rejected(Exception):
    """Refused before execution: nothing happened, nothing was paid.

    `kind`: invalid, missing, stale, locked, unsupported.
    """

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


class _Admitted(msgspec.Struct, frozen=True):
    """A transaction that passed the checks."""

    data: Any
    payment: list[Item]
    inputs: list[Item]
    read_only: set[bytes]
    """Shared inputs that it may not change."""


def make_executor(choice: str = "auto") -> Executor:
    """`movevm`, `model`, or `auto`: the VM where its wheel is installed. Raises PartMissing for `movevm` without it."""
    if choice == "model":
        return ModelExecutor()
    try:
        return MoveExecutor()
    except PartMissing:
        if choice == "movevm":
            raise
        return ModelExecutor()


class LocalSui:
    """The node without its sockets."""

    def __init__(self, directory: Path, operator: str, *, executor: str = "auto") -> None:
        """Open the chain in `directory`, or begin one whose package, caps and gas belong to `operator`.

        Raises:
            DataDirectoryBusy: another process runs this chain.
            JournalCorrupt: the log is damaged, or belongs to another operator or other bytecode.
        """
        self.log = AppendLog(directory / "transactions.log")
        self.turn = Turn(0, REFERENCE_GAS_PRICE_MIST, [])
        self.old_locks = False
        self.checkpoint_lag_s = 0.0
        self.on_record: list[Callable[[], None]] = []
        self._lock = asyncio.Lock()
        entries = self.log.records()
        first = next(entries, None)
        bytecode_digest = json.loads((BYTECODE / "exchange" / "build.json").read_text())["digest"]
        if first is None:
            package = blake2b256(b"embedded package", address_bytes(operator), bytes.fromhex(bytecode_digest))
            chain_id = base58_text(blake2b256(b"embedded chain", package))
            genesis = Genesis(chain_id, package, address_bytes(operator), bytecode_digest)
            self.log.append(msgspec.msgpack.encode(genesis))
        else:
            genesis = msgspec.msgpack.decode(first[1], type=Genesis)
        for name, ours, theirs in (
            ("operator", address_bytes(operator), genesis.operator),
            ("bytecode", bytecode_digest, genesis.bytecode_digest),
        ):
            if ours != theirs:
                self.log.close()
                raise JournalCorrupt(f"{self.log.path}: the chain was begun with another {name}")
        self.state = State.at_genesis(genesis, make_executor(executor))
        for offset, payload in entries:
            entry = msgspec.msgpack.decode(payload, type=Record | Turn)
            if isinstance(entry, Turn):
                self.turn = entry
            else:
                self.state.apply(entry, offset)

    @property
    def executor_name(self) -> str:
        return self.state.executor.name

    @property
    def operator_cap(self) -> bytes:
        """Id of the operator's capability of the first package."""
        kind = f"{address_text(self.state.genesis.package)}::settlement::OperatorCap"
        return next(item.id for item in self.state.items.values() if item.kind == kind)

    @property
    def epoch(self) -> int:
        return self.turn.epoch

    def next_epoch(self) -> None:
        """Turn the epoch: old transactions expire, locked objects come free. The embedded chain has no clock for it."""
        self._set_turn(epoch=self.turn.epoch + 1, locks=[])

    def set_gas_price(self, mist: int) -> None:
        """Set the reference gas price: transactions that offer less are refused."""
        self._set_turn(gas_price=mist)

    @property
    def height(self) -> int:
        """The newest checkpoint that is out; with `checkpoint_lag_s` the newest transactions are not in one yet."""
        checkpoints, count = self.state.checkpoints, len(self.state.checkpoints)
        limit_ms = time.time_ns() / 1e6 - self.checkpoint_lag_s * 1e3
        while self.checkpoint_lag_s and count and checkpoints[count - 1][2] > limit_ms:
            count -= 1
        return count

    def record_of(self, digest: bytes) -> Record | None:
        """The executed transaction with this digest."""
        offset = self.state.offsets.get(digest)
        return None if offset is None else self._record_at(offset)

    def record_in(self, checkpoint: int) -> Record:
        """The transaction of a checkpoint, 1 … `state.checkpoint`."""
        return self._record_at(self.state.checkpoints[checkpoint - 1][0])

    async def execute(self, raw: bytes, signatures: list[bytes]) -> Record:
        """Execute signed transaction bytes, once.

        Raises:
            Rejected: refused before execution.
            JournalFailed: the disk failed; the node stops taking transactions.
        """
        async with self._lock:
            digest = transaction_digest(raw)
            if (known := self.record_of(digest)) is not None:
                return known
            admitted = self._admit(raw, signatures)
            self._check_locks(digest, admitted)
            record = await asyncio.to_thread(self._effect, digest, raw, signatures, admitted, self._now_ms())
            self._keep(record)
            return record

    async def lock_only(self, raw: bytes, signatures: list[bytes]) -> None:
        """What a lost request does under `old_locks`: some validators signed it, so its objects wait for these bytes
        until the epoch ends. Raises Rejected.
        """
        async with self._lock:
            digest = transaction_digest(raw)
            if digest in self.state.offsets:
                return
            admitted = self._admit(raw, signatures)
            self._check_locks(digest, admitted)
            held = [(item.id, item.version, digest) for item in _owned_of(admitted)]
            self._set_turn(locks=[*(lock for lock in self.turn.locks if lock not in held), *held])

    async def simulate(self, raw: bytes) -> Record:
        """What `execute` would do, without signatures and without a trace. Raises Rejected."""
        async with self._lock:
            admitted = self._admit(raw, None)
            return await asyncio.to_thread(
                self._effect, transaction_digest(raw), raw, [], admitted, self._now_ms()
            )

    def run_again(self, record: Record) -> Record:
        """What a transaction of the log would write if it came now, at the time of its record; without a trace.

        Raises Rejected.
        """
        admitted = self._admit(record.raw, record.signatures)
        return self._effect(transaction_digest(record.raw), record.raw, record.signatures, admitted, record.at_ms)

    async def administer(self, *, paused: bool | None = None, operator: bytes | None = None) -> None:
        """Fault switch: what the vaults' administrator could do behind the settler's back, in every vault."""
        async with self._lock:
            scratch = Scratch()
            for identity, vault in self.state.vaults.items():
                cap = vault.header.admin
                operation = SetOperator(cap, operator) if operator is not None else SetPaused(cap, bool(paused))
                outcome = self.state.executor.run(operation, vault)
                scratch.events += events_of(operation, vault, outcome.header, outcome.rows)[0]
                scratch.contents[identity] = outcome.header.encode()
            digest = blake2b256(b"fault switch", u64(self.state.checkpoint))
            items = [self.state.items[identity] for identity in scratch.contents]
            version = max((item.version for item in items), default=0) + 1
            written = [
                Item(item.id, version, item.kind, scratch.contents[item.id], item.owner, item.initial, digest)
                for item in items
            ]
            self._keep(
                Record(
                    digest, b"", [], True, None, "", 0, version, self.state.checkpoint + 1, self.epoch, self._now_ms(),
                    [_consumed(item) for item in items], written, [], events=scratch.events,
                )
            )  # fmt: skip

    def close(self) -> None:
        self.log.close()

    def _keep(self, record: Record) -> None:
        """On disk first, then in memory, then told."""
        self.state.apply(record, self.log.append(msgspec.msgpack.encode(record)))
        for told in self.on_record:
            told()

    def _set_turn(self, **changes: Any) -> None:
        turn = msgspec.structs.replace(self.turn, **changes)
        self.log.append(msgspec.msgpack.encode(turn))
        self.turn = turn

    def _record_at(self, offset: int) -> Record:
        return msgspec.msgpack.decode(self.log.read(offset), type=Record)

    def _now_ms(self) -> int:
        """Never before the newest checkpoint, whatever the machine's clock does."""
        newest = self.state.checkpoints[-1][2] if self.state.checkpoints else 0
        return max(newest, time.time_ns() // 1_000_000)

    # ------------------------------------------------------------ checks

    def _admit(self, raw: bytes, signatures: list[bytes] | None) -> _Admitted:
        """The checks before execution. `signatures` None: a simulation."""
        data = _decode(raw)
        sender = address_text(address_bytes(data.Sender.to_address_str()))
        payer = address_text(address_bytes(data.GasData.Owner.to_address_str()))
        if signatures is not None:
            _check_signatures(raw, signatures, {sender, payer})
        expiry = data.TransactionExpiration
        if expiry.enum_name not in ("None", "Epoch"):
            raise Rejected("unsupported", f"expiration {expiry.enum_name} is not available on the embedded chain")
        if expiry.enum_name == "Epoch" and expiry.value < self.epoch:
            raise Rejected("stale", f"the transaction expired in epoch {expiry.value}, now is {self.epoch}")
        payment = self._gas(data.GasData, payer)
        transaction = data.TransactionKind.value
        inputs, read_only = self._inputs(list(transaction.Inputs), sender)
        count = len(transaction.Command)
        if count > LIMITS["max_programmable_tx_commands"]:
            raise Rejected("invalid", f"{count} commands, limit {LIMITS['max_programmable_tx_commands']}")
        for command in transaction.Command:
            if command.enum_name == "MoveCall" and len(command.value.Arguments) > LIMITS["max_arguments"]:
                raise Rejected("invalid", f"a command of {len(command.value.Arguments)} arguments, limit 512")
        if len({item.id for item in payment + inputs}) != len(payment + inputs):
            raise Rejected("invalid", "one object is used as input twice")
        return _Admitted(data, payment, inputs, read_only)

    def _check_locks(self, digest: bytes, admitted: _Admitted) -> None:
        """Under old locks an object goes to the first transaction that names it; two of them freeze it."""
        if not self.turn.locks:
            return
        holders = {(identity, version): holder for identity, version, holder in self.turn.locks}
        wanted = [(item.id, item.version) for item in _owned_of(admitted)]
        clashes = [key for key in wanted if holders.get(key, digest) != digest]
        if not clashes:
            return
        if any(holders[key] for key in clashes):
            self._set_turn(locks=[(*key, b"" if key in clashes else holder) for key, holder in holders.items()])
        identity, version = clashes[0]
        raise Rejected(
            "locked",
            f"object {address_text(identity)} version {version} is locked by another transaction until the end of "
            f"epoch {self.epoch} (equivocation)",
        )

    def _gas(self, gas: Any, payer: str) -> list[Item]:
        """The gas coins, checked."""
        if gas.Price < self.turn.gas_price:
            raise Rejected("stale", f"gas price {gas.Price} is under the reference gas price {self.turn.gas_price}")
        if gas.Budget > LIMITS["max_tx_gas"]:
            raise Rejected("invalid", f"gas budget {gas.Budget} is over {LIMITS['max_tx_gas']}")
        if gas.Budget < MIN_GAS_UNITS * gas.Price:
            raise Rejected("invalid", f"gas budget {gas.Budget} is under the least, {MIN_GAS_UNITS * gas.Price}")
        if not 1 <= len(gas.Payment) <= LIMITS["max_gas_payment_objects"]:
            raise Rejected(
                "invalid", f"{len(gas.Payment)} gas objects, 1 … {LIMITS['max_gas_payment_objects']} allowed"
            )
        coins = [self._owned(reference, payer) for reference in gas.Payment]
        if any(coin.kind != SUI_COIN for coin in coins):
            raise Rejected("invalid", "a gas object is no SUI coin")
        funds = sum(coin.mist for coin in coins)
        if funds < gas.Budget:
            raise Rejected("invalid", f"the gas objects hold {funds} MIST, less than the budget of {gas.Budget}")
        return coins

    def _inputs(self, arguments: list[Any], sender: str) -> tuple[list[Item], set[bytes]]:
        """The objects among the inputs, checked; shared ones too. And the ids of those that are only read."""
        if len(arguments) > LIMITS["max_input_objects"]:
            raise Rejected("invalid", f"{len(arguments)} inputs, limit {LIMITS['max_input_objects']}")
        items, read_only = [], set()
        for argument in arguments:
            if argument.enum_name == "Pure":
                if len(argument.value) > LIMITS["max_pure_argument_size"]:
                    raise Rejected("invalid", f"a pure argument of {len(argument.value)} bytes, limit 16384")
            elif argument.enum_name == "Object" and argument.value.enum_name == "ImmOrOwnedObject":
                items.append(self._owned(argument.value.value, sender))
            elif argument.enum_name == "Object" and argument.value.enum_name == "SharedObject":
                items.append(self._shared(argument.value.value))
                if not argument.value.value.Mutable:
                    read_only.add(items[-1].id)
            else:
                raise Rejected("unsupported", f"an input of kind {argument.enum_name}")
        return items, read_only

    def _owned(self, reference: Any, owner: str) -> Item:
        item = self.state.items.get(address_bytes(reference.ObjectID.to_address_str()))
        if item is None:
            raise Rejected("missing", f"object {reference.ObjectID.to_address_str()} does not exist")
        if item.owner is None or address_text(item.owner) != owner:
            raise Rejected("invalid", f"object {address_text(item.id)} is not owned by {owner}")
        if item.version != reference.SequenceNumber or bytes(reference.ObjectDigest.Digest) != item.digest:
            raise Rejected(
                "stale",
                f"object {address_text(item.id)} version {reference.SequenceNumber} is unavailable for consumption, "
                f"current version: {item.version}",
            )
        return item

    def _shared(self, reference: Any) -> Item:
        item = self.state.items.get(address_bytes(reference.ObjectID.to_address_str()))
        if item is None or item.owner is not None or item.initial != reference.SequenceNumber:
            raise Rejected("missing", f"no shared object {reference.ObjectID.to_address_str()} since that version")
        return item

    # ------------------------------------------------------------ effect

    def _effect(
        self, digest: bytes, raw: bytes, signatures: list[bytes], admitted: _Admitted, now_ms: int
    ) -> Record:
        data, payment, inputs = admitted.data, admitted.payment, admitted.inputs
        sender = address_bytes(data.Sender.to_address_str())
        funds = sum(coin.mist for coin in payment)
        transaction = data.TransactionKind.value
        spendable = funds - data.GasData.Budget
        interpreter = Interpreter(self.state, digest, sender, now_ms, list(transaction.Inputs), spendable)
        abort_code, error, success = None, "", True
        try:
            scratch = interpreter.run(list(transaction.Command), move_call)
            if forbidden := admitted.read_only & scratch.contents.keys():
                raise UnknownShape(f"{address_text(forbidden.pop())} was passed as read-only and is changed")
        except MoveAbort as abort:
            abort_code, error, success = abort.code, str(abort)[:300], False
        except (UnknownShape, ValueError, IndexError, KeyError) as refused:
            raise Rejected("unsupported", f"the embedded chain does not carry this transaction: {refused}") from refused
        gas_units = max(MIN_GAS_UNITS, interpreter.scratch.gas_units)
        gas_mist = gas_units * data.GasData.Price
        if gas_mist > data.GasData.Budget:
            gas_mist, error, success = data.GasData.Budget, "insufficient gas", False
        if not success:
            scratch = Scratch()
        version = max(item.version for item in payment + inputs) + 1
        changed = [item for item in inputs if item.id not in admitted.read_only]
        head, *smashed = payment
        left = funds - scratch.gas_coin_spent - gas_mist
        written = [Item(head.id, version, head.kind, head.id + u64(left), head.owner, None, digest)]
        for item in changed:
            if item.id in scratch.deleted:
                continue
            contents = scratch.contents.get(item.id, item.contents)
            owner = scratch.owners.get(item.id, item.owner)
            written.append(Item(item.id, version, item.kind, contents, owner, item.initial, digest))
        for identity, kind, contents, owner in scratch.created:
            written.append(Item(identity, version, kind, contents, owner, version if owner is None else None, digest))
        rows = [
            (vault_id, who, row)
            for vault_id, vault in scratch.vaults.items()
            for who, row in cast("ChainMap[bytes, Row]", vault.rows).maps[0].items()
        ]
        return Record(
            digest, raw, signatures, success, abort_code, error, gas_mist, version, self.state.checkpoint + 1,
            self.epoch, now_ms, [_consumed(item) for item in payment + changed], written,
            [*(coin.id for coin in smashed), *scratch.deleted], rows, scratch.opened, scratch.coins, scratch.packages,
            scratch.events, [(parent, key, value) for (parent, key), value in scratch.entries.items()],
        )  # fmt: skip


def sender_of(raw: bytes) -> bytes:
    """Sender of an executed transaction's bytes."""
    return address_bytes(_decode(raw).Sender.to_address_str())


def _owned_of(admitted: _Admitted) -> list[Item]:
    return [item for item in admitted.payment + admitted.inputs if item.owner is not None]


def _consumed(item: Item) -> Consumed:
    return Consumed(item.id, item.version, item.digest, item.kind, item.owner, item.initial)


def _decode(raw: bytes) -> Any:
    """TransactionDataV1 of canonical bytes that carry a programmable transaction."""
    if len(raw) > LIMITS["max_tx_size_bytes"]:
        raise Rejected("invalid", f"a transaction of {len(raw)} bytes, limit {LIMITS['max_tx_size_bytes']}")
    try:
        data = bcs.TransactionData.deserialize(raw)
        canonical = data.serialize() == raw
    except Exception as error:
        raise Rejected("invalid", f"not TransactionData in BCS: {error}") from error
    if not canonical:
        raise Rejected("invalid", "not canonical BCS")
    if data.value.TransactionKind.enum_name != "ProgrammableTransaction":
        raise Rejected("unsupported", f"transaction kind {data.value.TransactionKind.enum_name}")
    return data.value


def _check_signatures(raw: bytes, signatures: list[bytes], wanted: set[str]) -> None:
    try:
        signers = {signer_of(signature, raw) for signature in signatures}
    except BadSignature as error:
        raise Rejected("invalid", f"invalid user signature: {error}") from error
    if signers != wanted or len(signatures) != len(wanted):
        raise Rejected("invalid", f"signatures wanted of {sorted(wanted)}, got {sorted(signers)}")
