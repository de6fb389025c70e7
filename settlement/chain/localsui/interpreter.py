"""Runs a programmable transaction's commands, one by one, over a scratch copy of the vaults.

It knows the commands that the settler, an administrator and an owner send; anything else is refused before it runs
(`UnknownShape`). Values without `drop` must be used up, as on Sui: a coin minted and not deposited, a batch begun and
not finished, an upgrade capability kept, all refuse the transaction.

All or nothing: the caller takes the scratch only if `run` returns.
"""

from __future__ import annotations

import re
from collections import ChainMap
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from settlement.chain.encoding import (
    Reader,
    VaultHeader,
    address_bytes,
    address_text,
    blake2b256,
    u64,
)
from settlement.chain.localsui.contract import (
    CancelExit,
    ClaimExit,
    Commit,
    DepositMany,
    MoveAbort,
    Operation,
    RequestExit,
    SetOperator,
    SetPaused,
    Vault,
    Withdraw,
)
from settlement.chain.localsui.movevm import coin_module
from settlement.chain.localsui.state import Item, State

__all__ = ["DYNAMIC_FIELD_LIMIT", "Interpreter", "UnknownShape"]

DYNAMIC_FIELD_LIMIT = 1_000
"""object_runtime_max_num_cached_objects of protocol 140; the Move VM of the wheel does not enforce it."""

MIN_EXIT_DELAY_MS, MAX_EXIT_DELAY_MS = 3_600_000, 1_209_600_000
_FRAMEWORK = address_bytes("0x2")
_Value = TypeVar("_Value")


class UnknownShape(ValueError):
    """A command that the embedded chain does not carry."""


@dataclass(slots=True)
class _Coin:
    coin_type: str
    amount: int


@dataclass(slots=True)
class _UpgradeCap:
    package: bytes


@dataclass(slots=True)
class _Batch:
    vault: bytes
    seq: int
    part: int
    parts: int
    previous: bytes
    cap: bytes
    accounts: list[bytes] = field(default_factory=list)
    amounts: list[int] = field(default_factory=list)
    is_debit: list[bool] = field(default_factory=list)


@dataclass(slots=True)
class Scratch:
    """What a transaction would change."""

    vaults: dict[bytes, Vault] = field(default_factory=dict)
    contents: dict[bytes, bytes] = field(default_factory=dict)
    """New contents of objects that exist already."""
    created: list[tuple[bytes, str, bytes, bytes | None]] = field(default_factory=list)
    """Id, type, contents, owner (None: shared)."""
    opened: list[tuple[bytes, str]] = field(default_factory=list)
    coins: list[tuple[bytes, str, bytes]] = field(default_factory=list)
    gas_units: int = 0
    fields: set[tuple[bytes, bytes]] = field(default_factory=set)


class Interpreter:
    """One transaction. `inputs` are pysui's decoded call arguments; objects are already checked."""

    def __init__(self, state: State, digest: bytes, sender: bytes, now_ms: int, inputs: list[Any]) -> None:
        self._state, self._digest, self._sender, self._now_ms = state, digest, sender, now_ms
        self._inputs = inputs
        self._results: list[Any] = []
        self._created_count = 0
        self.scratch = Scratch()
        self._package = state.genesis.package

    def run(self, commands: list[Any]) -> Scratch:
        """Raises UnknownShape (refused, nothing paid) or MoveAbort (executed, failed, gas paid)."""
        for command in commands:
            if command.enum_name == "MoveCall":
                self._results.append(self._move_call(command.value))
            elif command.enum_name == "Publish":
                self._results.append(self._publish(command.value))
            else:
                raise UnknownShape(f"command {command.enum_name}")
        for value in self._results:
            if value is not None:
                raise UnknownShape(f"a value of type {type(value).__name__.strip('_')} is left unused")
        return self.scratch

    # ------------------------------------------------------------ commands

    def _move_call(self, call: Any) -> Any:
        package = address_bytes(call.Package.to_address_str())
        target = (call.Module, call.Function)
        arguments = list(call.Arguments)
        if package == _FRAMEWORK and target == ("package", "make_immutable"):
            self._take(arguments[0], _UpgradeCap)
            return None
        if target == (call.Module, "mint") and package != self._package:
            return self._mint(package, call.Module, arguments)
        if package != self._package or call.Module != "settlement":
            raise UnknownShape(f"function {address_text(package)}::{call.Module}::{call.Function}")
        handlers: dict[str, Callable[[list[Any], str], Any]] = {
            "open": self._open,
            "deposit_many": self._deposit_many,
            "commit_batch": self._commit_batch,
            "begin": self._begin,
            "apply": self._apply,
            "finish": self._finish,
            "withdraw": self._withdraw,
            "set_paused": self._set_paused,
            "set_operator": self._set_operator,
            "request_exit": self._request_exit,
            "cancel_exit": self._cancel_exit,
            "claim_exit": self._claim_exit,
        }
        if call.Function not in handlers:
            raise UnknownShape(f"function settlement::{call.Function}")
        return handlers[call.Function](arguments, _type_text(call.Type_Arguments[0]))

    def _publish(self, command: Any) -> _UpgradeCap:
        modules = [bytes(module) for module in command.Modules]
        if len(modules) != 1:
            raise UnknownShape("publishing anything but one test coin")
        name = _coin_name(modules[0])
        package = self._new_id()
        self.scratch.coins.append((package, name, modules[0]))
        faucet, cap = self._new_id(), self._new_id()
        kind = f"{address_text(package)}::{name}::Faucet"
        self.scratch.created.append((faucet, kind, faucet + cap + u64(0), None))
        return _UpgradeCap(package)

    def _mint(self, package: bytes, module: str, arguments: list[Any]) -> _Coin:
        faucet = self._object(arguments[0])
        if faucet.kind != f"{address_text(package)}::{module}::Faucet":
            raise UnknownShape(f"mint with {faucet.kind}")
        amount = self._read(arguments[1]).u64()
        contents = self.scratch.contents.get(faucet.id, faucet.contents)
        self.scratch.gas_units += self._state.executor.mint(package, contents, amount)
        supply = int.from_bytes(contents[64:72], "little") + amount
        self.scratch.contents[faucet.id] = contents[:64] + u64(supply)
        return _Coin(f"{address_text(package)}::{module}::{module.upper()}", amount)

    def _open(self, arguments: list[Any], coin_type: str) -> None:
        admin = self._cap(arguments[0], "AdminCap")
        operator, first = self._read(arguments[1]).take(32), self._read(arguments[2]).u64()
        delay = self._read(arguments[3]).u64()
        if not MIN_EXIT_DELAY_MS <= delay <= MAX_EXIT_DELAY_MS:
            raise MoveAbort(13)
        header = VaultHeader(
            self._new_id(), 1, False, admin, operator, first, 0, 0, delay, bytes(32), bytes(32), 0, 0,
            self._new_id(), 0, self._new_id(), 0,
        )  # fmt: skip
        kind = f"{address_text(self._package)}::settlement::Vault<{coin_type}>"
        self.scratch.created.append((header.id, kind, header.encode(), None))
        self.scratch.opened.append((header.id, coin_type))
        self.scratch.gas_units += 1_000

    def _deposit_many(self, arguments: list[Any], coin_type: str) -> None:
        vault = self._vault(arguments[0], coin_type)
        coin = self._take(arguments[1], _Coin)
        if coin.coin_type != coin_type:
            raise UnknownShape(f"deposit of {coin.coin_type} into a vault of {coin_type}")
        owners, amounts = self._read(arguments[2]).vector(32), self._u64s(arguments[3])
        self._run(DepositMany(coin.amount, tuple(owners), tuple(amounts)), vault)

    def _commit_batch(self, arguments: list[Any], coin_type: str) -> None:
        batch = self._begin(arguments[:6], coin_type)
        self._extend(batch, arguments[8:11])
        self._commit(batch, arguments[6], arguments[7], arguments[11])

    def _begin(self, arguments: list[Any], coin_type: str) -> _Batch:
        vault = self._vault(arguments[0], coin_type)
        cap = self._cap(arguments[1], "OperatorCap")
        seq, part, parts = (self._read(argument).u64() for argument in arguments[2:5])
        return _Batch(vault, seq, part, parts, self._read(arguments[5]).vector_u8(), cap)

    def _apply(self, arguments: list[Any], coin_type: str) -> None:
        batch = self._peek(arguments[1], _Batch)
        if batch.vault != self._vault(arguments[0], coin_type):
            raise MoveAbort(14)
        self._extend(batch, arguments[2:5])

    def _finish(self, arguments: list[Any], coin_type: str) -> None:
        batch = self._take(arguments[1], _Batch)
        if batch.vault != self._vault(arguments[0], coin_type):
            raise MoveAbort(14)
        self._commit(batch, *arguments[2:5])

    def _extend(self, batch: _Batch, arguments: list[Any]) -> None:
        accounts, amounts = self._read(arguments[0]).vector(32), self._u64s(arguments[1])
        flags = [flag != b"\0" for flag in self._read(arguments[2]).vector(1)]
        if not len(accounts) == len(amounts) == len(flags):
            raise MoveAbort(5)
        batch.accounts += accounts
        batch.amounts += amounts
        batch.is_debit += flags

    def _commit(self, batch: _Batch, root: Any, trades: Any, clock: Any) -> None:
        if self._object(clock).kind != "0x2::clock::Clock":
            raise UnknownShape("finish without the clock")
        operation = Commit(
            batch.cap, batch.seq, batch.part, batch.parts, batch.previous, self._read(root).vector_u8(),
            self._read(trades).vector_u8(), tuple(batch.accounts), tuple(batch.amounts), tuple(batch.is_debit),
            self._now_ms,
        )  # fmt: skip
        self._run(operation, batch.vault)

    def _withdraw(self, arguments: list[Any], coin_type: str) -> None:
        vault = self._vault(arguments[0], coin_type)
        cap = self._cap(arguments[1], "OperatorCap")
        owner, recipient = (self._read(argument).take(32) for argument in arguments[2:4])
        amount, number = (self._read(argument).u64() for argument in arguments[4:6])
        self._run(Withdraw(cap, owner, recipient, amount, number), vault)
        self._pay(recipient, coin_type, amount)

    def _set_paused(self, arguments: list[Any], coin_type: str) -> None:
        paused = self._read(arguments[2]).take(1) != b"\0"
        operation = SetPaused(self._cap(arguments[1], "AdminCap"), paused)
        self._run(operation, self._vault(arguments[0], coin_type))

    def _set_operator(self, arguments: list[Any], coin_type: str) -> None:
        operation = SetOperator(self._cap(arguments[1], "AdminCap"), self._read(arguments[2]).take(32))
        self._run(operation, self._vault(arguments[0], coin_type))

    def _request_exit(self, arguments: list[Any], coin_type: str) -> None:
        operation = RequestExit(self._sender, self._read(arguments[1]).u64(), self._now_ms)
        self._run(operation, self._vault(arguments[0], coin_type))

    def _cancel_exit(self, arguments: list[Any], coin_type: str) -> None:
        self._run(CancelExit(self._sender), self._vault(arguments[0], coin_type))

    def _claim_exit(self, arguments: list[Any], coin_type: str) -> None:
        vault = self._vault(arguments[0], coin_type)
        owner = self._read(arguments[1]).take(32)
        before = self._working(vault).header.pool
        self._run(ClaimExit(owner, self._now_ms), vault)
        paid = before - self._working(vault).header.pool
        if paid:
            self._pay(owner, coin_type, paid)

    # ------------------------------------------------------------ values and objects

    def _run(self, operation: Operation, vault_id: bytes) -> None:
        vault = self._working(vault_id)
        self.scratch.fields.update((vault_id, who) for who in operation.touched)
        if len(self.scratch.fields) > DYNAMIC_FIELD_LIMIT:
            raise MoveAbort(None, f"more than {DYNAMIC_FIELD_LIMIT} dynamic fields in one transaction")
        outcome = self._state.executor.run(operation, vault)
        vault.header = outcome.header
        vault.rows.update(outcome.rows)
        for who, pending in outcome.exits.items():
            vault.exits[who] = pending or (0, 0)
        self.scratch.contents[vault_id] = outcome.header.encode()
        self.scratch.gas_units += outcome.gas_units

    def _working(self, vault_id: bytes) -> Vault:
        """The vault as this transaction has changed it so far."""
        if vault_id not in self.scratch.vaults:
            base = self._state.vaults[vault_id]
            rows: Any = ChainMap({}, base.rows)
            exits: Any = ChainMap({}, base.exits)
            self.scratch.vaults[vault_id] = Vault(base.header, base.coin_type, rows, exits)
        vault = self.scratch.vaults[vault_id]
        if any(pending == (0, 0) for pending in vault.exits.maps[0].values()):  # type: ignore[attr-defined]
            raise UnknownShape("a second exit operation on one account in one transaction")
        return vault

    def _pay(self, recipient: bytes, coin_type: str, amount: int) -> None:
        identity = self._new_id()
        self.scratch.created.append((identity, f"0x2::coin::Coin<{coin_type}>", identity + u64(amount), recipient))

    def _new_id(self) -> bytes:
        """Sui's rule: hash of the transaction's digest and a counter."""
        identity = blake2b256(b"\xf1", self._digest, u64(self._created_count))
        self._created_count += 1
        return identity

    def _object(self, argument: Any) -> Item:
        if argument.enum_name != "Input" or self._inputs[argument.value].enum_name != "Object":
            raise UnknownShape("an argument that must be an object is none")
        identity = self._inputs[argument.value].value.value.ObjectID.to_address_str()
        return self._state.items[address_bytes(identity)]

    def _vault(self, argument: Any, coin_type: str) -> bytes:
        item = self._object(argument)
        if item.id not in self._state.vaults or self._state.vaults[item.id].coin_type != coin_type:
            raise UnknownShape(f"{address_text(item.id)} is no Vault<{coin_type}>")
        return item.id

    def _cap(self, argument: Any, name: str) -> bytes:
        item = self._object(argument)
        if item.kind != f"{address_text(self._package)}::settlement::{name}":
            raise UnknownShape(f"{address_text(item.id)} is no {name}")
        return item.id

    def _read(self, argument: Any) -> Reader:
        if argument.enum_name != "Input" or self._inputs[argument.value].enum_name != "Pure":
            raise UnknownShape("an argument that must be a pure value is none")
        return Reader(bytes(self._inputs[argument.value].value))

    def _u64s(self, argument: Any) -> list[int]:
        return [int.from_bytes(item, "little") for item in self._read(argument).vector(8)]

    def _peek(self, argument: Any, kind: type[_Value]) -> _Value:
        """A result of an earlier command that stays where it is."""
        if argument.enum_name != "Result" or not isinstance(self._results[argument.value], kind):
            raise UnknownShape(f"an argument that must be a {kind.__name__.strip('_')} is none")
        value: _Value = self._results[argument.value]
        return value

    def _take(self, argument: Any, kind: type[_Value]) -> _Value:
        """A result of an earlier command, used up."""
        value = self._peek(argument, kind)
        self._results[argument.value] = None
        return value


def _type_text(tag: Any) -> str:
    """A struct type with whole addresses and without type arguments of its own."""
    if tag.enum_name != "Struct" or tag.value.type_parameters:
        raise UnknownShape("a coin type that is no plain struct")
    address = address_text(address_bytes(tag.value.address.to_address_str()))
    return f"{address}::{tag.value.module}::{tag.value.name}"


def _coin_name(code: bytes) -> str:
    """The module's name if it is one of the test coins, byte for byte."""
    for found in re.finditer(rb"coin_(\d{8})", code):
        number = int(found[1])
        if number:
            name, expected = coin_module(number)
            if code == expected:
                return name
    raise UnknownShape("publishing a module that is no test coin")
