"""Runs a programmable transaction's commands, one by one, over a scratch copy of the state.

It carries what the settler, an administrator, an owner of money and the rights desk send: MoveCall of the known
functions (`calls.py`, `rights_calls.py`), Publish of a test coin or of the exchange package, SplitCoins, MergeCoins,
TransferObjects.
Anything else is refused before it runs (`UnknownShape`). Values without `drop` must be used up, as on Sui: a coin
minted and not deposited, a batch begun and not finished, an upgrade capability kept, all refuse the transaction.

All or nothing: the caller takes the scratch only if `run` returns.
"""

from __future__ import annotations

import re
from collections import ChainMap
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from settlement.chain.encoding import (
    SUI_COIN,
    Reader,
    address_bytes,
    address_text,
    blake2b256,
    u64,
)
from settlement.chain.localsui.contract import MoveAbort, Vault
from settlement.chain.localsui.movevm import coin_module, load_modules, published_modules
from settlement.chain.localsui.state import Emitted, Item, State

__all__ = [
    "DYNAMIC_FIELD_LIMIT", "MAX_EVENTS", "MAX_NEW_OBJECTS", "UPGRADE_CAP", "Coin", "Interpreter", "Made", "Scratch",
    "UnknownShape", "UpgradeCap",
]  # fmt: skip

DYNAMIC_FIELD_LIMIT = 1_000
"""object_runtime_max_num_cached_objects of protocol 140; the Move VM of the wheel does not enforce it."""

MAX_EVENTS = 1_024
MAX_NEW_OBJECTS = 2_048

UPGRADE_CAP = "0x2::package::UpgradeCap"
_T = TypeVar("_T")


class UnknownShape(ValueError):
    """A command that the embedded chain does not carry."""


@dataclass(slots=True)
class Coin:
    """A coin made in this transaction that lies nowhere yet."""

    coin_type: str
    amount: int


@dataclass(slots=True)
class UpgradeCap:
    package: bytes


@dataclass(slots=True)
class Made:
    """An object made in this transaction that lies nowhere yet."""

    kind: str
    contents: bytes


@dataclass(slots=True)
class Scratch:
    """What a transaction would change."""

    vaults: dict[bytes, Vault] = field(default_factory=dict)
    contents: dict[bytes, bytes] = field(default_factory=dict)
    """New contents of objects that exist already."""
    owners: dict[bytes, bytes] = field(default_factory=dict)
    """New owners of objects that exist already."""
    deleted: list[bytes] = field(default_factory=list)
    created: list[tuple[bytes, str, bytes, bytes | None]] = field(default_factory=list)
    """Id, type, contents, owner (None: shared)."""
    opened: list[tuple[bytes, str, bytes]] = field(default_factory=list)
    """Vaults: id, coin type, package."""
    coins: list[tuple[bytes, str, bytes]] = field(default_factory=list)
    packages: list[bytes] = field(default_factory=list)
    entries: dict[tuple[bytes, bytes], bytes | None] = field(default_factory=dict)
    """Table entries: (table, key) → new value, None: removed."""
    events: list[Emitted] = field(default_factory=list)
    gas_units: int = 0
    gas_coin_spent: int = 0
    """MIST split off the gas coin."""
    fields: set[tuple[bytes, bytes]] = field(default_factory=set)


class Interpreter:
    """One transaction. `inputs` are pysui's decoded call arguments; objects are already checked.

    `spendable` is what may be split off the gas coin: all of it but the budget.
    """

    def __init__(
        self, state: State, digest: bytes, sender: bytes, now_ms: int, inputs: list[Any], spendable: int
    ) -> None:
        self.state, self.sender, self.now_ms = state, sender, now_ms
        self._digest, self._inputs, self._spendable = digest, inputs, spendable
        self._results: list[list[Any]] = []
        self._created_count = 0
        self.scratch = Scratch()

    def run(self, commands: list[Any], move_call: Callable[[Interpreter, Any], Any]) -> Scratch:
        """Run all commands; `move_call` runs the MoveCalls.

        Raises UnknownShape (refused, nothing paid) or MoveAbort (executed, failed, gas paid).
        """
        for command in commands:
            body = command.value
            match command.enum_name:
                case "MoveCall":
                    result = move_call(self, body)
                    self._results.append([] if result is None else [result])
                case "Publish":
                    self._results.append([self._publish(body)])
                case "SplitCoin":
                    self._results.append(self._split(body.FromCoin, list(body.Amount)))
                case "MergeCoins":
                    self._merge(body.ToCoin, list(body.FromCoins))
                    self._results.append([])
                case "TransferObjects":
                    self._transfer(list(body.Objects), self.pure(body.Address, _address))
                    self._results.append([])
                case other:
                    raise UnknownShape(f"command {other}")
        if len(self.scratch.events) > MAX_EVENTS:
            raise MoveAbort(None, f"more than {MAX_EVENTS} events in one transaction")
        for value in (value for result in self._results for value in result):
            if value is not None and not isinstance(value, bytes):
                raise UnknownShape(f"a value of type {type(value).__name__} is left unused")
        return self.scratch

    # ------------------------------------------------------------ commands

    def _publish(self, command: Any) -> UpgradeCap:
        modules = [bytes(module) for module in command.Modules]
        package = self.new_id()
        if modules == load_modules("exchange", published_modules()):
            self._publish_exchange(package)
        elif len(modules) == 1:
            self._publish_coin(package, modules[0])
        else:
            raise UnknownShape("publishing anything but the exchange package or one test coin")
        return UpgradeCap(package)

    def _publish_coin(self, package: bytes, code: bytes) -> None:
        name = _coin_name(code)
        self.scratch.coins.append((package, name, code))
        faucet, cap = self.new_id(), self.new_id()
        self.scratch.created.append((faucet, f"{address_text(package)}::{name}::Faucet", faucet + cap + u64(0), None))

    def _publish_exchange(self, package: bytes) -> None:
        self.scratch.packages.append(package)
        self.scratch.created += State.initial_objects(package, self.sender, self.new_id)

    def _split(self, source: Any, amounts: list[Any]) -> list[Any]:
        sizes = [self.pure(amount, Reader.u64) for amount in amounts]
        total = sum(sizes)
        if source.enum_name == "GasCoin":
            if self.scratch.gas_coin_spent + total > self._spendable:
                raise MoveAbort(None, "insufficient coin balance: the gas coin less the budget")
            self.scratch.gas_coin_spent += total
            coin_type = SUI_COIN[len("0x2::coin::Coin<") : -1]
        elif source.enum_name == "Input":
            item = self.object(source)
            coin_type, held = self._coin_of(item), self._balance(item)
            if held < total:
                raise MoveAbort(None, "insufficient coin balance")
            self.scratch.contents[item.id] = item.id + u64(held - total)
        else:
            coin = self.peek(source, Coin)
            coin_type = coin.coin_type
            if coin.amount < total:
                raise MoveAbort(None, "insufficient coin balance")
            coin.amount -= total
        return [Coin(coin_type, size) for size in sizes]

    def _merge(self, target: Any, sources: list[Any]) -> None:
        coins = [self.take_coin(source) for source in sources]
        total = sum(coin.amount for coin in coins)
        if target.enum_name == "Input":
            item = self.object(target)
            coin_type = self._coin_of(item)
            self.scratch.contents[item.id] = item.id + u64(self._balance(item) + total)
        elif target.enum_name == "GasCoin":
            coin_type = SUI_COIN[len("0x2::coin::Coin<") : -1]
            self.scratch.gas_coin_spent -= total
        else:
            kept = self.peek(target, Coin)
            coin_type = kept.coin_type
            kept.amount += total
        if any(coin.coin_type != coin_type for coin in coins):
            raise UnknownShape("merging coins of different types")

    def _transfer(self, values: list[Any], recipient: bytes) -> None:
        for value in values:
            if value.enum_name == "Input":
                item = self.take_object(value)
                if item.owner is None or item.kind.endswith("::License"):
                    raise UnknownShape(f"transferring a {item.kind}")
                self.scratch.owners[item.id] = recipient
                continue
            result = self._slot(value)
            match result[0]:
                case Coin(coin_type, amount):
                    self.pay(recipient, coin_type, amount)
                case Made(kind, contents):
                    self.scratch.created.append((contents[:32], kind, contents, recipient))
                case UpgradeCap(package):
                    identity = self.new_id()
                    contents = identity + package + u64(1) + b"\0"
                    self.scratch.created.append((identity, UPGRADE_CAP, contents, recipient))
                case other:
                    raise UnknownShape(f"transferring a {type(other).__name__}")
            result[1][result[2]] = None

    # ------------------------------------------------------------ arguments

    def pure(self, argument: Any, read: Callable[[Reader], _T]) -> _T:
        """A pure value, or a plain value that an earlier command returned; nothing may follow it."""
        reader = self._reader(argument)
        value = read(reader)
        reader.end()
        return value

    def _reader(self, argument: Any) -> Reader:
        if argument.enum_name == "Input" and self._inputs[argument.value].enum_name == "Pure":
            return Reader(bytes(self._inputs[argument.value].value))
        if argument.enum_name in ("Result", "NestedResult"):
            value = self._slot(argument)[0]
            if isinstance(value, bytes):
                return Reader(value)
        raise UnknownShape("an argument that must be a pure value is none")

    def object(self, argument: Any) -> Item:
        """An input object, as it was before this transaction."""
        if argument.enum_name != "Input" or self._inputs[argument.value].enum_name != "Object":
            raise UnknownShape("an argument that must be an object is none")
        identity = address_bytes(self._inputs[argument.value].value.value.ObjectID.to_address_str())
        if identity in self.scratch.deleted or identity in self.scratch.owners:
            raise UnknownShape(f"object {address_text(identity)} is used after it was given away")
        return self.state.items[identity]

    def take_object(self, argument: Any) -> Item:
        """An owned input object that this transaction gives away or uses up: nothing may touch it again."""
        item = self.object(argument)
        if item.owner is None:
            raise UnknownShape(f"{address_text(item.id)} is shared and cannot be taken")
        return item

    def contents(self, item: Item) -> bytes:
        """An object's contents as this transaction has changed them so far."""
        return self.scratch.contents.get(item.id, item.contents)

    def take_coin(self, argument: Any) -> Coin:
        """A coin to be used up: made here, or an input object, which is then gone."""
        if argument.enum_name == "Input":
            item = self.take_object(argument)
            coin = Coin(self._coin_of(item), self._balance(item))
            self.scratch.contents.pop(item.id, None)
            self.scratch.deleted.append(item.id)
            return coin
        return self.take(argument, Coin)

    def peek(self, argument: Any, kind: type[_T]) -> _T:
        """A result of an earlier command that stays where it is."""
        value = self._slot(argument)[0]
        if not isinstance(value, kind):
            raise UnknownShape(f"an argument that must be a {kind.__name__} is none")
        return value

    def take(self, argument: Any, kind: type[_T]) -> _T:
        """A result of an earlier command, used up."""
        value = self.peek(argument, kind)
        _, result, index = self._slot(argument)
        result[index] = None
        return value

    def _slot(self, argument: Any) -> tuple[Any, list[Any], int]:
        """Value of a result, the list it lies in, its place there."""
        if argument.enum_name == "Result":
            command, index = argument.value, 0
        elif argument.enum_name == "NestedResult":
            command, index = argument.value
        else:
            raise UnknownShape("an argument that must be a result is none")
        result = self._results[command]
        return result[index], result, index

    def _coin_of(self, item: Item) -> str:
        if not item.kind.startswith("0x2::coin::Coin<"):
            raise UnknownShape(f"{address_text(item.id)} is no coin")
        return item.kind[len("0x2::coin::Coin<") : -1]

    def _balance(self, item: Item) -> int:
        return int.from_bytes(self.contents(item)[32:40], "little")

    # ------------------------------------------------------------ effects

    def touch(self, fields: set[tuple[bytes, bytes]]) -> None:
        """Count dynamic fields (parent, key). Raises MoveAbort past Sui's limit."""
        self.scratch.fields |= fields
        if len(self.scratch.fields) > DYNAMIC_FIELD_LIMIT:
            raise MoveAbort(None, f"more than {DYNAMIC_FIELD_LIMIT} dynamic fields in one transaction")

    def entry(self, parent: bytes, key: bytes) -> bytes | None:
        """A table's entry as this transaction has changed it so far."""
        if (parent, key) in self.scratch.entries:
            return self.scratch.entries[parent, key]
        return self.state.entries.get(parent, {}).get(key)

    def vault(self, identity: bytes) -> Vault:
        """The vault as this transaction has changed it so far."""
        if identity not in self.scratch.vaults:
            base = self.state.vaults[identity]
            self.scratch.vaults[identity] = Vault(base.header, base.coin_type, base.package, ChainMap({}, base.rows))
        return self.scratch.vaults[identity]

    def pay(self, recipient: bytes, coin_type: str, amount: int) -> None:
        identity = self.new_id()
        self.scratch.created.append((identity, f"0x2::coin::Coin<{coin_type}>", identity + u64(amount), recipient))

    def emit(self, package: bytes, module: str, name: str, contents: bytes) -> None:
        self.scratch.events.append(Emitted(package, module, name, contents))

    def new_id(self) -> bytes:
        """Sui's rule: hash of the transaction's digest and a counter."""
        identity = blake2b256(b"\xf1", self._digest, u64(self._created_count))
        self._created_count += 1
        if self._created_count > MAX_NEW_OBJECTS:
            raise MoveAbort(None, f"more than {MAX_NEW_OBJECTS} new objects in one transaction")
        return identity


def _address(read: Reader) -> bytes:
    return read.take(32)


def _coin_name(code: bytes) -> str:
    """The module's name if it is one of the test coins, byte for byte."""
    for found in re.finditer(rb"coin_(\d{8})", code):
        number = int(found[1])
        if number:
            name, expected = coin_module(number)
            if code == expected:
                return name
    raise UnknownShape("publishing a module that is no test coin")
