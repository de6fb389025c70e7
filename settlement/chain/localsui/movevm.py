"""Runs the compiled settlement package in the Move VM of the `sui-sandbox` wheel.

The wheel runs one Move call and hands back its return values, not the objects it changed. So every operation goes
through a probe module of the same package, never published, that calls the settlement function and returns the vault
as BCS with the rows it touched. The settlement bytecode is the published one, byte for byte; only opening a vault (the
wheel does not show what was shared), the owner's two exit calls (the wheel cannot set a sender) and the rights modules
run a build that names the probes as friends.

State goes in as objects: the vault, and its rows as dynamic fields whose ids the VM derives anew (a wrong id would
not be found). Only touched rows go in.

Worst case: about 20 ms a call, 60 ms with 900 entries. Never touches the network (`fetch_deps=False`).
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from engine.messages.errors import PartMissing
from settlement.chain.encoding import (
    CLOCK_ID,
    Reader,
    Row,
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
    Deposit,
    DepositMany,
    Migrate,
    MoveAbort,
    Open,
    Operation,
    Outcome,
    RequestExit,
    SetOperator,
    SetPaused,
    Vault,
    Withdraw,
)
from settlement.chain.localsui.rights import RightsCall, RightsOutcome
from settlement.chain.localsui.rights_vm import children_of, inputs_of, outcome_of

__all__ = ["BYTECODE", "MoveExecutor", "coin_module", "load_modules", "published_modules", "relocate"]

BYTECODE = Path(__file__).resolve().parents[2] / "move" / "bytecode"
_MAGIC = b"\xa1\x1c\xeb\x0b"
_ADDRESS_TABLE = 0x8
_ABORTED = re.compile(r"ABORTED, sub_status: Some\((\d+)\)")
_PLACE = re.compile(r"::((\w+)::\w+ at offset \d+)")


def load_modules(folder: str, names: Sequence[str]) -> list[bytes]:
    """Committed bytecode of `folder` (exchange, probe, coin), address still 0x0."""
    return [(BYTECODE / folder / f"{name}.mv").read_bytes() for name in names]


def published_modules() -> list[str]:
    """Names of the modules of the exchange package, in the order in which they are published."""
    names: list[str] = json.loads((BYTECODE / "exchange" / "build.json").read_text())["modules"]
    return names


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

    def __init__(self) -> None:
        """Raises PartMissing where the wheel is not installed."""
        try:
            import sui_sandbox
        except ImportError as error:
            raise PartMissing(
                "the Move VM (wheel sui-sandbox==0.22.0) is not installed; the Python model runs instead"
            ) from error
        self._call_view_function = sui_sandbox.call_view_function
        names = published_modules()
        published = dict(zip(names, load_modules("exchange", names), strict=True))
        friendly = {path.stem: path.read_bytes() for path in sorted((BYTECODE / "probe").glob("*.mv"))}
        self._published = [*published.values(), friendly["probe"]]
        self._friendly = list((published | friendly).values())
        self._relocated: dict[bytes, tuple[list[bytes], list[bytes]]] = {}
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

    def open(self, call: Open) -> tuple[VaultHeader, int]:
        """The VM gives ids of its own; the vault gets those of the transaction."""
        admin = _object(call.admin, f"{address_text(call.package)}::settlement::AdminCap", call.admin)
        pures = [call.operator, u64(call.first_seq), u64(call.exit_delay_ms)]
        reply = self._probe(call.package, "friend_probe", "open", call.coin_type, [admin], pures, None)
        header = VaultHeader.decode(Reader(base64.b64decode(reply["return_values"][0][0])).vector_u8())
        return msgspec.structs.replace(header, id=call.vault_id, rows_id=call.rows_id), int(reply["gas_used"])

    def run(self, operation: Operation, vault: Vault) -> Outcome:
        module, function, objects, arguments = _prepare(operation, address_text(vault.package), vault.coin_type)
        touched = list(dict.fromkeys(operation.touched))
        header = vault.header
        kind = f"{address_text(vault.package)}::settlement::Vault<{vault.coin_type}>"
        shared = _object(header.id, kind, header.encode(), is_shared=True, mutable=True)
        reply = self._probe(
            vault.package, module, function, vault.coin_type, [shared, *objects], [*arguments, vector(touched)],
            _children(vault, touched),
        )  # fmt: skip
        raw, rows_raw = (base64.b64decode(value) for value in reply["return_values"][0])
        rows: dict[bytes, Row] = {}
        read = Reader(rows_raw)
        assert read.uleb128() == len(touched), "the probe watched other rows"
        for who in touched:
            if (encoded := read.vector_u8()) and (row := Row.decode(encoded)) != vault.rows.get(who):
                rows[who] = row
        return Outcome(VaultHeader.decode(Reader(raw).vector_u8()), rows, int(reply["gas_used"]))

    def run_rights(self, call: RightsCall) -> RightsOutcome:
        objects, pures = inputs_of(call)
        given = [
            _object(identity, kind, contents, is_shared=is_shared, mutable=is_shared)
            for identity, kind, contents, is_shared in objects
        ]
        children = {
            parent: [_child(identity, kind, contents) for identity, kind, contents in fields]
            for parent, fields in children_of(call).items()
        }
        reply = self._probe(
            call.package, "rights_probe", call.function.probe, call.coin_type, given, pures, children or None
        )
        returned = [base64.b64decode(value) for value in reply["return_values"][0]]
        return outcome_of(call, returned, int(reply["gas_used"]))

    def _probe(
        self,
        package: bytes,
        module: str,
        function: str,
        coin_type: str,
        objects: list[dict[str, Any]],
        pures: list[bytes],
        children: dict[str, list[dict[str, Any]]] | None,
    ) -> dict[str, Any]:
        if package not in self._relocated:
            builds = (self._published, self._friendly)
            published, friendly = ([relocate(code, package) for code in build] for build in builds)
            self._relocated[package] = (published, friendly)
        address = address_text(package)
        bytecodes = {address: self._relocated[package][module != "probe"]}
        coin_package = coin_type.partition("::")[0]
        if coin_package in self._coins:
            bytecodes[coin_package] = [self._coins[coin_package][1]]
        types = [coin_type] if coin_type else []
        return self._call(address, module, function, types, objects, pures, children, bytecodes)

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
            found, place = _ABORTED.search(detail), _PLACE.search(detail)
            if found is None or place is None:
                raise MoveAbort(None, detail)
            raise MoveAbort(int(found[1]), place[1], place[2])
        return dict(reply)


def _prepare(operation: Operation, package: str, coin_type: str) -> tuple[str, str, list[dict[str, Any]], list[bytes]]:
    """Probe module and function, objects behind the vault, pure arguments before the watched addresses."""
    match operation:
        case Deposit():
            return "probe", "deposit", [_coin(coin_type, operation.amount)], [
                operation.owner, vector_u8(operation.reference),
            ]  # fmt: skip
        case DepositMany():
            pures = [vector(operation.owners), vector(map(u64, operation.amounts))]
            return "probe", "deposit_many", [_coin(coin_type, operation.total)], pures
        case Commit():
            pures = [
                u64(operation.seq),
                u64(operation.part),
                u64(operation.parts),
                vector_u8(operation.previous),
                vector_u8(operation.root),
                u64(operation.liabilities),
                vector_u8(operation.digest),
                vector(operation.accounts),
                vector(map(u64, operation.amounts)),
                vector(bytes([flag]) for flag in operation.is_debit),
            ]
            objects = [_cap(package, "OperatorCap", operation.cap), _clock(operation.now_ms)]
            return "probe", "commit_batch", objects, pures
        case Withdraw():
            pures = [operation.owner, operation.recipient, u64(operation.amount), u64(operation.number)]
            return "probe", "withdraw", [_cap(package, "OperatorCap", operation.cap)], pures
        case SetPaused():
            return "probe", "set_paused", [_cap(package, "AdminCap", operation.cap)], [bytes([operation.paused])]
        case SetOperator():
            return "probe", "set_operator", [_cap(package, "AdminCap", operation.cap)], [operation.operator]
        case Migrate():
            return "probe", "migrate", [_cap(package, "AdminCap", operation.cap)], []
        case RequestExit():
            pures = [operation.owner, u64(operation.amount)]
            return "friend_probe", "request_exit", [_clock(operation.now_ms)], pures
        case CancelExit():
            return "friend_probe", "cancel_exit", [], [operation.owner]
        case ClaimExit():
            return "friend_probe", "claim_exit", [_clock(operation.now_ms)], [operation.owner]


def _children(vault: Vault, touched: list[bytes]) -> dict[str, list[dict[str, Any]]] | None:
    """The touched rows as dynamic fields of their table."""
    kind = f"0x2::dynamic_field::Field<address, {address_text(vault.package)}::row::Row>"
    rows = []
    for who in touched:
        if (row := vault.rows.get(who)) is not None:
            identity = dynamic_field_id(vault.header.rows_id, who)
            rows.append(_child(identity, kind, identity + who + row.encode()))
    return {address_text(vault.header.rows_id): rows} if rows else None


def _cap(package: str, name: str, identity: bytes) -> dict[str, Any]:
    return _object(identity, f"{package}::settlement::{name}", identity)


def _coin(coin_type: str, amount: int) -> dict[str, Any]:
    identity = blake2b256(b"payment")
    return _object(identity, f"0x2::coin::Coin<{coin_type}>", identity + u64(amount))


def _object(identity: bytes, kind: str, contents: bytes, **owner: bool) -> dict[str, Any]:
    return {"object_id": address_text(identity), "type_tag": kind, "bcs_bytes": contents, **owner}


def _child(identity: bytes, kind: str, contents: bytes) -> dict[str, Any]:
    return {"child_id": address_text(identity), "type_tag": kind, "bcs_bytes": contents}


def _clock(now_ms: int) -> dict[str, Any]:
    return _object(CLOCK_ID, "0x2::clock::Clock", CLOCK_ID + u64(now_ms), is_shared=True, mutable=False)
