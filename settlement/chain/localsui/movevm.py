"""Runs the compiled settlement package in the Move VM of the `sui-sandbox` wheel.

The wheel runs one Move call and hands back its return values, not the objects it changed. So every operation goes
through a probe module of the same package, never published, that calls the settlement function and returns the vault
as BCS with the rows and exits it touched. The settlement bytecode is the published one, byte for byte; only the two
owner's exit calls, which need a sender the wheel cannot set, run a build that names the probe a friend.

State goes in as objects: the vault, and its rows as dynamic fields whose ids the VM derives anew (a wrong id would
not be found). Only touched rows go in. The wheel forgets the removal of a field it was given, so a removed exit is
recognised by the table's own count.

Worst case: about 20 ms a call, 60 ms with 900 entries. Never touches the network (`fetch_deps=False`).
"""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from engine.messages.errors import PartMissing
from settlement.chain.encoding import (
    CLOCK_ID,
    Reader,
    VaultHeader,
    address_text,
    blake2b256,
    dynamic_field_id,
    u64,
    vector,
    vector_u8,
)
from settlement.chain.localsui.contract import (
    CancelExit,
    ClaimExit,
    Commit,
    DepositMany,
    MoveAbort,
    Operation,
    Outcome,
    RequestExit,
    SetOperator,
    SetPaused,
    Vault,
    Withdraw,
)

__all__ = ["BYTECODE", "MoveExecutor", "coin_module", "load_modules", "relocate"]

BYTECODE = Path(__file__).resolve().parents[2] / "move" / "bytecode"
PUBLISHED = ("copyright_registry", "license", "royalty", "settlement")
ABSENT_ROW = 2**64 - 1
_MAGIC = b"\xa1\x1c\xeb\x0b"
_ADDRESS_TABLE = 0x8
_ABORTED = re.compile(r"ABORTED, sub_status: Some\((\d+)\)")


def load_modules(folder: str, names: Sequence[str]) -> list[bytes]:
    """Committed bytecode of `folder` (exchange, probe, coin), address still 0x0."""
    return [(BYTECODE / folder / f"{name}.mv").read_bytes() for name in names]


def relocate(code: bytes, address: bytes) -> bytes:
    """What Publish does to a module: the package's id takes the place of the self-address 0x0."""
    if code[:4] != _MAGIC:
        raise ValueError("not a Move module: wrong magic")
    read = Reader(code)
    read.take(8)
    tables = [(read.take(1)[0], read.uleb128(), read.uleb128()) for _ in range(read.uleb128())]
    out = bytearray(code)
    for kind, offset, length in tables:
        if kind == _ADDRESS_TABLE:
            start = read.position + offset
            for position in range(start, start + length, 32):
                if out[position : position + 32] == bytes(32):
                    out[position : position + 32] = address
    return bytes(out)


def coin_module(number: int) -> tuple[str, bytes]:
    """Name and bytecode of test coin `number`: the template's fixed-width digits, rewritten.

    The digits appear only in the module's and the type's name and in the coin's symbol and label, so every offset
    and length in the module stays as it was.
    """
    if not 0 < number < 10**8:
        raise ValueError(f"coin number {number} must lie in 1 … 99999999")
    digits = f"{number:08d}".encode()
    [template] = load_modules("coin", ["coin_00000000"])
    code = template
    for head in (b"coin_", b"COIN_", b"test coin "):
        code = code.replace(head + b"00000000", head + digits)
    return f"coin_{number:08d}", code


class MoveExecutor:
    """Every state change is made by the Move VM."""

    name = "movevm"

    def __init__(self, package: bytes) -> None:
        """Raises PartMissing where the wheel is not installed."""
        try:
            import sui_sandbox
        except ImportError as error:
            raise PartMissing(
                "the Move VM (wheel sui-sandbox==0.22.0) is not installed; the Python model runs instead"
            ) from error
        self._call_view_function = sui_sandbox.call_view_function
        self._package = address_text(package)
        published = load_modules("exchange", PUBLISHED)
        probe, exit_probe, friendly = load_modules("probe", ("probe", "exit_probe", "settlement"))
        self._modules = [relocate(code, package) for code in (*published, probe)]
        self._exit_modules = [relocate(code, package) for code in (*published[:-1], friendly, probe, exit_probe)]
        self._coins: dict[str, tuple[str, bytes]] = {}

    def add_coin(self, package: bytes, module: str, code: bytes) -> None:
        self._coins[address_text(package)] = (module, relocate(code, package))

    def mint(self, package: bytes, faucet: bytes, amount: int) -> int:
        address = address_text(package)
        module, code = self._coins[address]
        item = _object(faucet[:32], f"{address}::{module}::Faucet", faucet, is_shared=True, mutable=True)
        reply = self._call(address, module, "mint", [], [item], [u64(amount)], None, {address: [code]})
        [coin] = [base64.b64decode(value) for value in reply["return_values"][0]]
        assert int.from_bytes(coin[32:40], "little") == amount, "mint returned another amount"
        return int(reply["gas_used"])

    def run(self, operation: Operation, vault: Vault) -> Outcome:
        module, function, objects, arguments = self._prepare(operation, vault.coin_type)
        touched = list(dict.fromkeys(operation.touched))
        header = vault.header
        bytecodes = {self._package: self._exit_modules if module == "exit_probe" else self._modules}
        coin_package = vault.coin_type.partition("::")[0]
        if coin_package in self._coins:
            bytecodes[coin_package] = [self._coins[coin_package][1]]
        kind = f"{self._package}::settlement::Vault<{vault.coin_type}>"
        shared = _object(header.id, kind, header.encode(), is_shared=True, mutable=True)
        reply = self._call(
            self._package,
            module,
            function,
            [vault.coin_type],
            [shared, *objects],
            [*arguments, vector(touched)],
            self._children(vault, touched),
            bytecodes,
        )
        return self._outcome(reply, vault, touched)

    def _prepare(self, operation: Operation, coin_type: str) -> tuple[str, str, list[dict[str, Any]], list[bytes]]:
        """Probe module and function, objects behind the vault, pure arguments before the watched addresses."""
        match operation:
            case DepositMany():
                coin_id = blake2b256(b"payment")
                coin = _object(coin_id, f"0x2::coin::Coin<{coin_type}>", coin_id + u64(operation.total))
                amounts = vector(map(u64, operation.amounts))
                return "probe", "deposit_many", [coin], [vector(operation.owners), amounts]
            case Commit():
                pures = [
                    u64(operation.seq),
                    u64(operation.part),
                    u64(operation.parts),
                    vector_u8(operation.previous),
                    vector_u8(operation.root),
                    vector_u8(operation.digest),
                    vector(operation.accounts),
                    vector(map(u64, operation.amounts)),
                    vector(bytes([flag]) for flag in operation.is_debit),
                ]
                objects = [self._cap("OperatorCap", operation.cap), _clock(operation.now_ms)]
                return "probe", "commit_batch", objects, pures
            case Withdraw():
                pures = [operation.owner, operation.recipient, u64(operation.amount), u64(operation.number)]
                return "probe", "withdraw", [self._cap("OperatorCap", operation.cap)], pures
            case SetPaused():
                return "probe", "set_paused", [self._cap("AdminCap", operation.cap)], [bytes([operation.paused])]
            case SetOperator():
                return "probe", "set_operator", [self._cap("AdminCap", operation.cap)], [operation.operator]
            case RequestExit():
                pures = [operation.owner, u64(operation.amount)]
                return "exit_probe", "request_exit", [_clock(operation.now_ms)], pures
            case CancelExit():
                return "exit_probe", "cancel_exit", [], [operation.owner]
            case ClaimExit():
                return "probe", "claim_exit", [_clock(operation.now_ms)], [operation.owner]

    def _cap(self, name: str, identity: bytes) -> dict[str, Any]:
        return _object(identity, f"{self._package}::settlement::{name}", identity)

    def _children(self, vault: Vault, touched: list[bytes]) -> dict[str, list[dict[str, Any]]] | None:
        """The touched rows and exits as dynamic fields, by the id of their table."""
        header = vault.header
        rows, exits = [], []
        for who in touched:
            if (row := vault.rows.get(who)) is not None:
                identity = dynamic_field_id(header.rows_id, who)
                rows.append(_child(identity, "0x2::dynamic_field::Field<address, u64>", identity + who + u64(row)))
            if (pending := vault.exits.get(who)) is not None:
                identity = dynamic_field_id(header.exits_id, who)
                kind = f"0x2::dynamic_field::Field<address, {self._package}::settlement::Exit>"
                exits.append(_child(identity, kind, identity + who + u64(pending[0]) + u64(pending[1])))
        children = {address_text(header.rows_id): rows, address_text(header.exits_id): exits}
        return {parent: fields for parent, fields in children.items() if fields} or None

    def _outcome(self, reply: dict[str, Any], vault: Vault, touched: list[bytes]) -> Outcome:
        raw, rows_raw, amounts_raw, ready_raw = (base64.b64decode(value) for value in reply["return_values"][0])
        header = VaultHeader.decode(Reader(raw).vector_u8())
        rows: dict[bytes, int] = {}
        exits: dict[bytes, tuple[int, int] | None] = {}
        removed = header.exit_count < vault.header.exit_count
        for who, row, amount, ready_ms in zip(
            touched, _u64s(rows_raw), _u64s(amounts_raw), _u64s(ready_raw), strict=True
        ):
            if row != ABSENT_ROW and vault.rows.get(who) != row:
                rows[who] = row
            now = (amount, ready_ms) if (amount or ready_ms) and not removed else None
            if now != vault.exits.get(who):
                exits[who] = now
        return Outcome(header, rows, exits, int(reply["gas_used"]))

    def _call(
        self,
        package: str,
        module: str,
        function: str,
        type_arguments: list[str],
        objects: list[dict[str, Any]],
        pures: list[bytes],
        children: dict[str, list[dict[str, Any]]] | None,
        bytecodes: dict[str, list[bytes]],
    ) -> dict[str, Any]:
        reply = self._call_view_function(
            package,
            module,
            function,
            type_args=type_arguments,
            object_inputs=objects,
            pure_inputs=pures,
            child_objects=children,
            package_bytecodes=bytecodes,
            fetch_deps=False,
        )
        if not reply["success"]:
            detail = str(reply["error"])
            found = _ABORTED.search(detail)
            raise MoveAbort(int(found[1]) if found else None, detail)
        return dict(reply)


def _object(identity: bytes, kind: str, contents: bytes, **owner: bool) -> dict[str, Any]:
    return {"object_id": address_text(identity), "type_tag": kind, "bcs_bytes": contents, **owner}


def _child(identity: bytes, kind: str, contents: bytes) -> dict[str, Any]:
    return {"child_id": address_text(identity), "type_tag": kind, "bcs_bytes": contents}


def _clock(now_ms: int) -> dict[str, Any]:
    return _object(CLOCK_ID, "0x2::clock::Clock", CLOCK_ID + u64(now_ms), is_shared=True, mutable=False)


def _u64s(raw: bytes) -> list[int]:
    return [int.from_bytes(item, "little") for item in Reader(raw).vector(8)]
