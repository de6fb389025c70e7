"""LocalSui: a Sui node of one process. Takes signed transactions by Sui's rules, runs them, keeps them.

Real: TransactionData BCS, digests, signatures, owned-object versions and digests, gas payment and smashing, reference
gas price, budget, expiry, size limits, the limit of 1,000 dynamic fields, package publication of the test coins, and
(with the wheel) the Move VM that runs the contract's bytecode. Simulated: consensus, validators, checkpoints (one a
transaction), epochs (they turn only when told), gas amounts (an estimate, no storage cost), effects as protobuf fields
only. It is no network, and says so in every status.

Order of the checks: size, encoding, signatures, expiry, gas, inputs; a refusal there costs nothing and leaves no
trace. After them the transaction is executed: it takes effect or fails, pays gas either way, and its record is on disk
before the answer leaves. The same bytes again are answered from the record.

One transaction at a time. Worst case: as many Move calls as a transaction has, 20 ms each.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import ChainMap
from pathlib import Path
from typing import Any

import msgspec
from pysui.sui.sui_bcs import bcs

from engine.messages.errors import JournalCorrupt, PartMissing
from settlement.appendlog import AppendLog
from settlement.chain.encoding import (
    CLOCK_ID,
    SUI_COIN,
    address_bytes,
    address_text,
    base58_text,
    blake2b256,
    transaction_digest,
    u64,
)
from settlement.chain.keys import BadSignature, signer_of
from settlement.chain.localsui.contract import Executor, ModelExecutor, MoveAbort
from settlement.chain.localsui.interpreter import Interpreter, Scratch, UnknownShape
from settlement.chain.localsui.movevm import BYTECODE, MoveExecutor
from settlement.chain.localsui.state import Consumed, Genesis, Item, Record, State

__all__ = ["LIMITS", "LocalSui", "Rejected", "make_executor"]

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
    "max_num_transferred_move_object_ids": 2_048,
}


class Rejected(Exception):
    """Refused before execution: nothing happened, nothing was paid. `kind`: invalid, missing, stale, unsupported."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


def make_executor(package: bytes, choice: str = "auto") -> Executor:
    """`movevm`, `model`, or `auto`: the VM where its wheel is installed. Raises PartMissing for `movevm` without it."""
    if choice == "model":
        return ModelExecutor(package)
    try:
        return MoveExecutor(package)
    except PartMissing:
        if choice == "movevm":
            raise
        return ModelExecutor(package)


class LocalSui:
    """The node without its sockets."""

    def __init__(self, directory: Path, operator: str, *, executor: str = "auto") -> None:
        """Open the chain in `directory`, or begin one whose package, caps and gas belong to `operator`.

        Raises:
            DataDirectoryBusy: another process runs this chain.
            JournalCorrupt: the log is damaged, or belongs to another operator or other bytecode.
        """
        self.log = AppendLog(directory / "transactions.log")
        self.epoch = 0
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
        self.state = State.at_genesis(genesis, make_executor(genesis.package, executor))
        for offset, payload in entries:
            record = msgspec.msgpack.decode(payload, type=Record)
            self.state.apply(record, offset)
            self.epoch = max(self.epoch, record.epoch)

    @property
    def executor_name(self) -> str:
        return self.state.executor.name

    def next_epoch(self) -> None:
        """Turn the epoch. What a test calls; the embedded chain has no clock for it."""
        self.epoch += 1

    def record_of(self, digest: bytes) -> Record | None:
        """The executed transaction with this digest."""
        offset = self.state.offsets.get(digest)
        return None if offset is None else msgspec.msgpack.decode(self.log.read(offset), type=Record)

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
            record = await asyncio.to_thread(self._run, digest, raw, signatures)
            self.state.apply(record, self.log.append(msgspec.msgpack.encode(record)))
            return record

    def close(self) -> None:
        self.log.close()

    # ------------------------------------------------------------ checks

    def _run(self, digest: bytes, raw: bytes, signatures: list[bytes]) -> Record:
        data = _decode(raw)
        sender = address_text(address_bytes(data.Sender.to_address_str()))
        payer = address_text(address_bytes(data.GasData.Owner.to_address_str()))
        _check_signatures(raw, signatures, {sender, payer})
        expiry = data.TransactionExpiration
        if expiry.enum_name not in ("None", "Epoch"):
            raise Rejected("unsupported", f"expiration {expiry.enum_name} is not available on the embedded chain")
        if expiry.enum_name == "Epoch" and expiry.value < self.epoch:
            raise Rejected("stale", f"the transaction expired in epoch {expiry.value}, now is {self.epoch}")
        payment = self._gas(data.GasData, payer)
        transaction = data.TransactionKind.value
        inputs = self._inputs(list(transaction.Inputs), sender)
        commands = list(transaction.Command)
        if len(commands) > LIMITS["max_programmable_tx_commands"]:
            raise Rejected("invalid", f"{len(commands)} commands, limit {LIMITS['max_programmable_tx_commands']}")
        if len({item.id for item in payment + inputs}) != len(payment + inputs):
            raise Rejected("invalid", "one object is used as input twice")
        return self._effect(digest, raw, signatures, data, payment, inputs, commands)

    def _gas(self, gas: Any, payer: str) -> list[Item]:
        """The gas coins, checked."""
        if gas.Price < REFERENCE_GAS_PRICE_MIST:
            raise Rejected(
                "invalid", f"gas price {gas.Price} is under the reference gas price {REFERENCE_GAS_PRICE_MIST}"
            )
        if gas.Budget > LIMITS["max_tx_gas"]:
            raise Rejected("invalid", f"gas budget {gas.Budget} is over {LIMITS['max_tx_gas']}")
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

    def _inputs(self, arguments: list[Any], sender: str) -> list[Item]:
        """The objects among the inputs, checked; shared ones too."""
        if len(arguments) > LIMITS["max_input_objects"]:
            raise Rejected("invalid", f"{len(arguments)} inputs, limit {LIMITS['max_input_objects']}")
        items = []
        for argument in arguments:
            if argument.enum_name == "Pure":
                if len(argument.value) > LIMITS["max_pure_argument_size"]:
                    raise Rejected("invalid", f"a pure argument of {len(argument.value)} bytes, limit 16384")
            elif argument.enum_name == "Object" and argument.value.enum_name == "ImmOrOwnedObject":
                items.append(self._owned(argument.value.value, sender))
            elif argument.enum_name == "Object" and argument.value.enum_name == "SharedObject":
                items.append(self._shared(argument.value.value))
            else:
                raise Rejected("unsupported", f"an input of kind {argument.enum_name}")
        return items

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
        self,
        digest: bytes,
        raw: bytes,
        signatures: list[bytes],
        data: Any,
        payment: list[Item],
        inputs: list[Item],
        commands: list[Any],
    ) -> Record:
        now_ms = time.time_ns() // 1_000_000
        sender = address_bytes(data.Sender.to_address_str())
        interpreter = Interpreter(self.state, digest, sender, now_ms, list(data.TransactionKind.value.Inputs))
        abort_code, error, success = None, "", True
        try:
            scratch = interpreter.run(commands)
        except MoveAbort as abort:
            abort_code, error, success = abort.code, (abort.detail or str(abort))[:300], False
        except (UnknownShape, ValueError, IndexError) as refused:
            raise Rejected("unsupported", f"the embedded chain does not carry this transaction: {refused}") from refused
        gas_units = max(MIN_GAS_UNITS, interpreter.scratch.gas_units)
        gas_mist = gas_units * data.GasData.Price
        if gas_mist > data.GasData.Budget:
            gas_mist, error, success = data.GasData.Budget, "insufficient gas", False
        if not success:
            scratch = Scratch()
        version = max(item.version for item in payment + inputs) + 1
        head, *smashed = payment
        left = sum(coin.mist for coin in payment) - gas_mist
        written = [Item(head.id, version, head.kind, head.id + u64(left), head.owner, None, digest)]
        for item in inputs:
            if item.id == CLOCK_ID:
                continue
            contents = scratch.contents.get(item.id, item.contents)
            written.append(Item(item.id, version, item.kind, contents, item.owner, item.initial, digest))
        for identity, kind, contents, owner in scratch.created:
            written.append(Item(identity, version, kind, contents, owner, version if owner is None else None, digest))
        consumed = [
            Consumed(item.id, item.version, item.digest, item.kind, item.owner, item.initial)
            for item in payment + inputs
            if item.id != CLOCK_ID
        ]
        rows: list[tuple[bytes, bytes, int]] = []
        exits: list[tuple[bytes, bytes, int, int]] = []
        for vault_id, vault in scratch.vaults.items():
            assert isinstance(vault.rows, ChainMap) and isinstance(vault.exits, ChainMap)
            rows += [(vault_id, who, balance) for who, balance in vault.rows.maps[0].items()]
            exits += [(vault_id, who, *pending) for who, pending in vault.exits.maps[0].items()]
        return Record(
            digest, raw, signatures, success, abort_code, error, gas_mist, version, self.state.checkpoint + 1,
            self.epoch, now_ms,
            consumed,
            written, [coin.id for coin in smashed], rows, exits, scratch.opened, scratch.coins,
        )  # fmt: skip


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
