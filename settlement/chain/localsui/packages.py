"""Code of the exchange's packages on the embedded chain, and signatures of functions, as MovePackageService tells them.

A client that builds calls from names (pysui's `move_call`) asks for them to encode its arguments. They are read from
`interface.json` beside the committed bytecode; the framework's own packages are not told.
"""

from __future__ import annotations

import functools
import json
from typing import Any

import pysui.sui.sui_grpc.suimsgs.sui.rpc.v2 as v2

from settlement.chain.encoding import address_bytes, address_text
from settlement.chain.localsui.movevm import BYTECODE, load_modules, published_modules, relocate
from settlement.chain.localsui.state import State

__all__ = ["arity", "function_message", "package_message"]

_SELF = bytes(32)
"""The address that a package not yet published has in its own bytecode."""
_TEMPLATE = "coin_00000000"
_PLAIN = {
    name: v2.OpenSignatureBodyType[name.upper()]
    for name in ("address", "bool", "u8", "u16", "u32", "u64", "u128", "u256")
}


def arity(state: State, package: bytes, module: str, name: str) -> tuple[int, int] | None:
    """How many arguments and type arguments a call of the public function has; None if there is no such function."""
    body = _function(state, package, module, name)
    if body is None:
        return None
    given = [each for each in body["params"] if each.get("to", each).get("name") != "TxContext"]
    return len(given), len(body["type_params"])


def function_message(state: State, package: bytes, module: str, name: str) -> Any:
    """FunctionDescriptor of a public function, or None."""
    body = _function(state, package, module, name)
    if body is None:
        return None
    return v2.FunctionDescriptor(
        name=name,
        visibility=v2.FunctionDescriptorVisibility.PUBLIC,
        is_entry=body["is_entry"],
        type_parameters=[
            v2.TypeParameter(constraints=[v2.Ability[each.upper()] for each in parameter["constraints"]])
            for parameter in body["type_params"]
        ],
        parameters=[_signature(each, package, module) for each in body["params"]],
        returns=[_signature(each, package, module) for each in body["returns"]],
    )


def package_message(state: State, package: bytes) -> Any:
    """An exchange package with its modules, or None. Publish takes no other code than the committed one."""
    if package not in state.packages:
        return None
    names = published_modules()
    modules = [
        v2.Module(name=name, contents=relocate(code, package))
        for name, code in zip(names, load_modules("exchange", names), strict=True)
    ]
    text = address_text(package)
    return v2.Package(storage_id=text, original_id=text, version=1, modules=modules)


def _function(state: State, package: bytes, module: str, name: str) -> dict[str, Any] | None:
    if package in state.packages:
        functions = _interface("exchange").get(module, {})
    elif state.coins.get(package) == module:
        functions = _interface("coin")[_TEMPLATE]
    else:
        functions = {}
    return functions.get(name)


@functools.cache
def _interface(folder: str) -> dict[str, dict[str, Any]]:
    interface: dict[str, dict[str, Any]] = json.loads((BYTECODE / folder / "interface.json").read_text())
    return interface


def _signature(kind: dict[str, Any], package: bytes, module: str) -> Any:
    if kind["kind"] != "ref":
        return v2.OpenSignature(body=_body(kind, package, module))
    references = v2.OpenSignatureReference
    reference = references.MUTABLE if kind["mutable"] else references.IMMUTABLE
    return v2.OpenSignature(reference=reference, body=_body(kind["to"], package, module))


def _body(kind: dict[str, Any], package: bytes, module: str) -> Any:
    types = v2.OpenSignatureBodyType
    match kind["kind"]:
        case "vector":
            inner = [_body(kind["type"], package, module)]
            return v2.OpenSignatureBody(type=types.VECTOR, type_parameter_instantiation=inner)
        case "type_param":
            return v2.OpenSignatureBody(type=types.TYPE_PARAMETER, type_parameter=kind["index"])
        case "datatype":
            address = address_bytes(kind["address"])
            home, name = kind["module"], kind["name"]
            if address == _SELF:
                address = package
            if home == _TEMPLATE:
                home, name = module, module.upper() if name == _TEMPLATE.upper() else name
            return v2.OpenSignatureBody(
                type=types.DATATYPE,
                type_name=f"{address_text(address)}::{home}::{name}",
                type_parameter_instantiation=[_body(each, package, module) for each in kind["type_args"]],
            )
    return v2.OpenSignatureBody(type=_PLAIN[kind["kind"]])
