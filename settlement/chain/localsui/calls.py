"""The Move functions that the embedded chain carries: arguments in, operations of the executor, events out.

The executor changes the state; the events are built here from what it changed, because the Move VM of the wheel hands
back none. Each has the BCS of the struct that the Move source emits, and a test holds the two together.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from settlement.chain.encoding import Reader, Row, VaultHeader, address_bytes, address_text, u64, u128, vector_u8
from settlement.chain.localsui.contract import (
    CancelExit,
    ClaimExit,
    Commit,
    Deposit,
    DepositMany,
    Migrate,
    MoveAbort,
    Open,
    Operation,
    RequestExit,
    SetOperator,
    SetPaused,
    Vault,
    Withdraw,
)
from settlement.chain.localsui.interpreter import UPGRADE_CAP, Coin, Interpreter, Made, UnknownShape, UpgradeCap
from settlement.chain.localsui.packages import arity
from settlement.chain.localsui.rights import FUNCTIONS
from settlement.chain.localsui.rights_calls import rights_call
from settlement.chain.localsui.state import CLOCK_KIND, Emitted, Item

__all__ = ["events_of", "move_call"]

_FRAMEWORK = address_bytes("0x2")


@dataclass(slots=True)
class Batch:
    """A batch under way: the hot potato."""

    vault: bytes
    seq: int
    part: int
    parts: int
    previous: bytes
    cap: bytes
    accounts: list[bytes] = field(default_factory=list)
    amounts: list[int] = field(default_factory=list)
    is_debit: list[bool] = field(default_factory=list)


def move_call(machine: Interpreter, call: Any) -> Any:
    """Run one MoveCall; its result, or None. Raises UnknownShape or MoveAbort."""
    package = address_bytes(call.Package.to_address_str())
    arguments = list(call.Arguments)
    types = [_type_text(tag) for tag in call.Type_Arguments]
    target = (call.Module, call.Function)
    if package == _FRAMEWORK and target == ("package", "make_immutable"):
        _make_immutable(machine, arguments[0])
        return None
    if package == _FRAMEWORK and target == ("object", "id"):
        return _object_id(machine, arguments[0])
    wanted = arity(machine.state, package, call.Module, call.Function)
    if wanted is not None and wanted != (len(arguments), len(types)):
        raise UnknownShape(
            f"{call.Module}::{call.Function} with {len(arguments)} arguments and {len(types)} type arguments, "
            f"{wanted[0]} and {wanted[1]} wanted"
        )
    if package in machine.state.packages:
        if call.Module == "settlement" and call.Function in _SETTLEMENT:
            return _SETTLEMENT[call.Function](_Call(machine, package, arguments, types))
        if target in FUNCTIONS:
            return rights_call(machine, package, target, arguments, types)
    elif call.Function == "mint":
        return _mint(machine, package, call.Module, arguments)
    raise UnknownShape(f"function {address_text(package)}::{call.Module}::{call.Function}")


def _make_immutable(machine: Interpreter, argument: Any) -> None:
    """Burns the upgrade capability, of this transaction's package or of one published before."""
    if argument.enum_name != "Input":
        machine.take(argument, UpgradeCap)
        return
    item = machine.take_object(argument)
    if item.kind != UPGRADE_CAP:
        raise UnknownShape(f"{address_text(item.id)} is no {UPGRADE_CAP}")
    machine.scratch.deleted.append(item.id)


def _object_id(machine: Interpreter, argument: Any) -> bytes:
    if argument.enum_name == "Input":
        return machine.object(argument).id
    return machine.peek(argument, Made).contents[:32]


def _mint(machine: Interpreter, package: bytes, module: str, arguments: list[Any]) -> Coin:
    faucet, amount = machine.object(arguments[0]), machine.pure(arguments[1], Reader.u64)
    if faucet.kind != f"{address_text(package)}::{module}::Faucet":
        raise UnknownShape("mint with an object that is not this coin's faucet")
    contents = machine.contents(faucet)
    machine.scratch.gas_units += machine.state.executor.mint(package, contents, amount)
    supply = int.from_bytes(contents[64:72], "little") + amount
    machine.scratch.contents[faucet.id] = contents[:64] + u64(supply)
    return Coin(f"{address_text(package)}::{module}::{module.upper()}", amount)


@dataclass(slots=True)
class _Call:
    """One call of the settlement module."""

    machine: Interpreter
    package: bytes
    arguments: list[Any]
    types: list[str]

    def vault(self, index: int = 0) -> bytes:
        item = self.machine.object(self.arguments[index])
        vault = self.machine.state.vaults.get(item.id)
        if vault is None or vault.coin_type != self.types[0] or vault.package != self.package:
            raise UnknownShape(f"{address_text(item.id)} is no Vault<{self.types[0]}> of {address_text(self.package)}")
        return item.id

    def cap(self, index: int, name: str) -> bytes:
        return self.thing(index, f"settlement::{name}").id

    def thing(self, index: int, kind: str) -> Item:
        item = self.machine.object(self.arguments[index])
        if item.kind != f"{address_text(self.package)}::{kind}":
            raise UnknownShape(f"{address_text(item.id)} is no {kind}")
        return item

    def clock(self, index: int) -> int:
        if self.machine.object(self.arguments[index]).kind != CLOCK_KIND:
            raise UnknownShape("an argument that must be the clock is none")
        return self.machine.now_ms

    def coin(self, index: int) -> Coin:
        coin = self.machine.take_coin(self.arguments[index])
        if coin.coin_type != self.types[0]:
            raise UnknownShape(f"a coin of {coin.coin_type} where one of {self.types[0]} is wanted")
        return coin

    def address(self, index: int) -> bytes:
        return self.machine.pure(self.arguments[index], lambda read: read.take(32))

    def number(self, index: int) -> int:
        return self.machine.pure(self.arguments[index], Reader.u64)

    def numbers(self, index: int) -> tuple[int, ...]:
        return self.machine.pure(self.arguments[index], Reader.u64s)

    def text(self, index: int) -> bytes:
        return self.machine.pure(self.arguments[index], Reader.vector_u8)

    def addresses(self, index: int) -> tuple[bytes, ...]:
        return tuple(self.machine.pure(self.arguments[index], lambda read: read.vector(32)))

    def flag(self, index: int) -> bool:
        return self.machine.pure(self.arguments[index], Reader.boolean)

    def flags(self, index: int) -> tuple[bool, ...]:
        return self.machine.pure(self.arguments[index], Reader.booleans)

    def run(self, operation: Operation, vault_id: bytes) -> None:
        """Execute, keep what changed, emit the events, place the coins paid out."""
        machine = self.machine
        vault = machine.vault(vault_id)
        machine.touch({(vault_id, who) for who in operation.touched})
        outcome = machine.state.executor.run(operation, vault)
        before = vault.header
        emitted, paid = events_of(operation, vault, outcome.header, outcome.rows)
        vault.header = outcome.header
        vault.rows.update(outcome.rows)
        machine.scratch.contents[vault_id] = outcome.header.encode()
        machine.scratch.gas_units += outcome.gas_units
        machine.scratch.events += emitted
        if paid is not None:
            machine.pay(paid, vault.coin_type, before.pool - outcome.header.pool)


def _open(call: _Call) -> None:
    machine = call.machine
    vault_id, rows_id = machine.new_id(), machine.new_id()
    terms = Open(
        call.package, call.types[0], call.cap(0, "AdminCap"), call.address(1), call.number(2), call.number(3), vault_id,
        rows_id,
    )  # fmt: skip
    header, gas_units = machine.state.executor.open(terms)
    machine.scratch.gas_units += gas_units
    kind = f"{address_text(call.package)}::settlement::Vault<{terms.coin_type}>"
    machine.scratch.created.append((vault_id, kind, header.encode(), None))
    machine.scratch.opened.append((vault_id, terms.coin_type, call.package))
    contents = vault_id + terms.admin + terms.operator + u64(terms.first_seq)
    machine.emit(call.package, "settlement", "VaultOpened", contents)


def _new_operator(call: _Call) -> Made:
    call.cap(0, "AdminCap")
    return Made(f"{address_text(call.package)}::settlement::OperatorCap", call.machine.new_id())


def _deposit(call: _Call) -> None:
    vault = call.vault()
    owner, reference = call.address(2), call.text(3)
    call.run(Deposit(owner, call.coin(1).amount, reference), vault)


def _deposit_many(call: _Call) -> None:
    vault = call.vault()
    call.run(DepositMany(call.coin(1).amount, call.addresses(2), call.numbers(3)), vault)


def _begin(call: _Call) -> Batch:
    return Batch(
        call.vault(), call.number(2), call.number(3), call.number(4), call.text(5), call.cap(1, "OperatorCap")
    )


def _apply(call: _Call) -> None:
    batch = call.machine.peek(call.arguments[1], Batch)
    if batch.vault != call.vault():
        raise MoveAbort(14)
    _extend(call, batch, 2)


def _finish(call: _Call) -> None:
    batch = call.machine.take(call.arguments[1], Batch)
    if batch.vault != call.vault():
        raise MoveAbort(14)
    _commit(call, batch, call.text(2), call.number(3), call.text(4), call.clock(5))


def _commit_batch(call: _Call) -> None:
    batch = _begin(call)
    _extend(call, batch, 9)
    _commit(call, batch, call.text(6), call.number(7), call.text(8), call.clock(12))


def _extend(call: _Call, batch: Batch, first: int) -> None:
    accounts, amounts = call.addresses(first), call.numbers(first + 1)
    flags = call.flags(first + 2)
    if not len(accounts) == len(amounts) == len(flags):
        raise MoveAbort(5)
    batch.accounts += accounts
    batch.amounts += amounts
    batch.is_debit += flags


def _commit(call: _Call, batch: Batch, root: bytes, liabilities: int, trades: bytes, now_ms: int) -> None:
    operation = Commit(
        batch.cap, batch.seq, batch.part, batch.parts, batch.previous, root, liabilities, trades,
        tuple(batch.accounts), tuple(batch.amounts), tuple(batch.is_debit), now_ms,
    )  # fmt: skip
    call.run(operation, batch.vault)


def _withdraw(call: _Call) -> None:
    cap, vault = call.cap(1, "OperatorCap"), call.vault()
    call.run(Withdraw(cap, call.address(2), call.address(3), call.number(4), call.number(5)), vault)


def _set_paused(call: _Call) -> None:
    call.run(SetPaused(call.cap(1, "AdminCap"), call.flag(2)), call.vault())


def _set_operator(call: _Call) -> None:
    call.run(SetOperator(call.cap(1, "AdminCap"), call.address(2)), call.vault())


def _migrate(call: _Call) -> None:
    call.run(Migrate(call.cap(1, "AdminCap")), call.vault())


def _request_exit(call: _Call) -> None:
    call.run(RequestExit(call.machine.sender, call.number(1), call.clock(2)), call.vault())


def _cancel_exit(call: _Call) -> None:
    call.run(CancelExit(call.machine.sender), call.vault())


def _claim_exit(call: _Call) -> None:
    call.run(ClaimExit(call.machine.sender, call.clock(1)), call.vault())


_SETTLEMENT: dict[str, Callable[[_Call], Any]] = {
    "open": _open,
    "new_operator": _new_operator,
    "set_operator": _set_operator,
    "set_paused": _set_paused,
    "migrate": _migrate,
    "deposit": _deposit,
    "deposit_many": _deposit_many,
    "withdraw": _withdraw,
    "begin": _begin,
    "apply": _apply,
    "finish": _finish,
    "commit_batch": _commit_batch,
    "request_exit": _request_exit,
    "cancel_exit": _cancel_exit,
    "claim_exit": _claim_exit,
}


def events_of(
    operation: Operation, vault: Vault, after: VaultHeader, rows: dict[bytes, Row]
) -> tuple[list[Emitted], bytes | None]:
    """What the contract emits for an operation that succeeded, and who was paid from the pool. `vault` is as it was
    before, `after` and `rows` are what the operation left.
    """
    made: list[tuple[str, bytes]] = []
    paid: bytes | None = None
    match operation:
        case Deposit(owner, amount, reference):
            balance = _row(vault, rows, owner).balance
            made.append(("Deposited", owner + u64(amount) + u64(balance) + vector_u8(reference)))
        case DepositMany():
            made += _deposits(operation, vault)
        case Commit():
            made += _shortfalls(operation, vault)
            volume = sum(n for n, is_debit in zip(operation.amounts, operation.is_debit, strict=True) if is_debit)
            made.append((
                "BatchCommitted",
                u64(operation.seq) + u64(operation.part) + u64(operation.parts) + vector_u8(operation.root)
                + u64(operation.liabilities) + vector_u8(operation.digest) + vector_u8(after.chain)
                + u64(len(operation.accounts)) + u128(volume) + u64(after.pool) + u128(after.deficit)
                + u64(operation.now_ms),
            ))  # fmt: skip
        case Withdraw(_, owner, recipient, amount, number):
            is_paid = after.pool < vault.header.pool
            name = "Withdrawn" if is_paid else "WithdrawalSkipped"
            made.append((name, owner + recipient + u64(amount) + u64(number)))
            paid = recipient if is_paid else None
        case SetPaused(_, paused):
            made.append(("PauseChanged", bytes([paused])))
        case SetOperator(_, operator):
            made.append(("OperatorChanged", operator))
        case Migrate():
            pass
        case RequestExit(owner, amount, _):
            ready_ms = _row(vault, rows, owner).exit_ready_ms
            made.append(("ExitRequested", owner + u64(amount) + u64(ready_ms)))
        case CancelExit(owner):
            made.append(("ExitCancelled", owner))
        case ClaimExit(owner, _):
            amount = vault.header.pool - after.pool
            made.append(("ExitPaid", owner + u64(amount)))
            paid = owner
    identity = vault.header.id
    return [Emitted(vault.package, "settlement", name, identity + body) for name, body in made], paid


def _row(vault: Vault, rows: dict[bytes, Row], who: bytes) -> Row:
    return rows.get(who) or vault.rows.get(who) or Row()


def _deposits(operation: DepositMany, vault: Vault) -> list[tuple[str, bytes]]:
    """One event each, with the balance after it; an owner may come twice."""
    made, signed = [], {who: (vault.rows.get(who) or Row()) for who in operation.owners}
    worth = {who: row.balance - row.debt for who, row in signed.items()}
    for owner, amount in zip(operation.owners, operation.amounts, strict=True):
        worth[owner] += amount
        made.append(("Deposited", owner + u64(amount) + u64(max(0, worth[owner])) + vector_u8(b"")))
    return made


def _shortfalls(operation: Commit, vault: Vault) -> list[tuple[str, bytes]]:
    """An event for each entry that took more than its row held."""
    made = []
    worth = {who: row.balance - row.debt for who in operation.accounts if (row := vault.rows.get(who)) is not None}
    for who, amount, is_debit in zip(operation.accounts, operation.amounts, operation.is_debit, strict=True):
        before = worth.get(who, 0)
        worth[who] = before - amount if is_debit else before + amount
        if worth[who] < 0 and is_debit:
            made.append(("ExitShortfall", who + u64(min(amount, -worth[who]))))
    return made


def _type_text(tag: Any) -> str:
    """A struct type with whole addresses, the framework's short."""
    if tag.enum_name != "Struct":
        raise UnknownShape("a type argument that is no struct")
    address = address_bytes(tag.value.address.to_address_str())
    head = "0x2" if address == _FRAMEWORK else address_text(address)
    inner = ", ".join(_type_text(each) for each in tag.value.type_parameters)
    return f"{head}::{tag.value.module}::{tag.value.name}" + (f"<{inner}>" if inner else "")
