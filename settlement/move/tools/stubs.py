"""Interface stubs of the Sui framework, written from the bytecode that the sui-sandbox wheel carries.

The compiler wants the framework's sources only for its types and signatures. Every stub has `abort 0` for a body: it
never runs, because chain and Move VM link the true 0x1, 0x2, 0x3. A wrong stub shows at once: the VM refuses to link.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import sui_sandbox

MAGIC = b"\xa1\x1c\xeb\x0b"
PACKAGES = {1: "std", 2: "sui", 3: "sui_system"}
MANIFEST_NAMES = {"std": "MoveStdlib", "sui": "Sui", "sui_system": "SuiSystem"}
MANIFEST_DEPENDENCIES = {
    "std": "",
    "sui": '[dependencies]\nMoveStdlib = { local = "../move-stdlib" }\n\n',
    "sui_system": '[dependencies]\nMoveStdlib = { local = "../move-stdlib" }\nSui = { local = "../sui-framework" }\n\n',
}
BYTECODE_INSTRUCTIONS = {
    "empty", "length", "borrow", "push_back", "borrow_mut", "pop_back", "destroy_empty", "swap",
}  # fmt: skip
ABILITY_ORDER = ("copy", "drop", "store", "key")
RESERVED_WORDS = {"for", "match", "enum", "type", "mut"}


def write_stubs(target: Path) -> None:
    """Write the packages std, sui and sui_system under `target`."""
    library = next(Path(sui_sandbox.__file__).parent.glob("*.so")).read_bytes()
    for modules in _embedded_packages(library):
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch) / "bytecode_modules"
            folder.mkdir()
            for number, module in enumerate(modules):
                (folder / f"{number:03d}.mv").write_bytes(module)
            interface = sui_sandbox.extract_interface(bytecode_dir=scratch)["modules"]
        address = int(next(iter(interface.values()))["address"], 16)
        package = PACKAGES[address]
        sources = target / package / "sources"
        sources.mkdir(parents=True, exist_ok=True)
        for name, module in interface.items():
            (sources / f"{name}.move").write_text(_module_text(package, name, module))
        (target / package / "Move.toml").write_text(
            f'[package]\nname = "{MANIFEST_NAMES[package]}"\nedition = "2024"\nimplicit-dependencies = false\n'
            f'published-at = "{address:#x}"\n\n{MANIFEST_DEPENDENCIES[package]}'
            f'[addresses]\n{package} = "{address:#x}"\n'
        )


def _embedded_packages(data: bytes) -> Iterator[list[bytes]]:
    """Every BCS vector<vector<u8>> of Move modules in the library."""
    end, position = 0, -1
    while (position := data.find(MAGIC, position + 1)) >= 0:
        if position < end:
            continue
        parsed = [found for start in range(position - 2, position - 6, -1) if (found := _parse_package(data, start))]
        if parsed:
            modules, end = max(parsed, key=lambda found: len(found[0]))
            yield modules


def _parse_package(data: bytes, position: int) -> tuple[list[bytes], int] | None:
    count, position = _uleb128(data, position)
    if not 1 <= count <= 300:
        return None
    modules = []
    for _ in range(count):
        length, position = _uleb128(data, position)
        if data[position : position + 4] != MAGIC or length > 500_000:
            return None
        modules.append(data[position : position + length])
        position += length
    return modules, position


def _uleb128(data: bytes, position: int) -> tuple[int, int]:
    result = shift = 0
    while True:
        byte = data[position]
        position += 1
        result |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return result, position


def _type_text(kind: dict[str, Any]) -> str:
    match kind["kind"]:
        case "vector":
            return f"vector<{_type_text(kind['type'])}>"
        case "ref":
            return ("&mut " if kind["mutable"] else "&") + _type_text(kind["to"])
        case "type_param":
            return f"T{kind['index']}"
        case "datatype":
            arguments = ", ".join(map(_type_text, kind["type_args"]))
            name = f"{PACKAGES[int(kind['address'], 16)]}::{kind['module']}::{kind['name']}"
            return f"{name}<{arguments}>" if arguments else name
        case primitive:
            return str(primitive)


def _abilities(words: list[str], separator: str) -> str:
    lower = [word.lower() for word in words]
    return separator.join(word for word in ABILITY_ORDER if word in lower)


def _type_parameters(parameters: list[dict[str, Any]]) -> str:
    texts = []
    for index, parameter in enumerate(parameters):
        constraints = _abilities(parameter.get("constraints", []), " + ")
        phantom = "phantom " if parameter.get("is_phantom") else ""
        texts.append(f"{phantom}T{index}" + (f": {constraints}" if constraints else ""))
    return f"<{', '.join(texts)}>" if texts else ""


def _field(name: str) -> str:
    return f"`{name}`" if name in RESERVED_WORDS else name


def _module_text(package: str, name: str, module: dict[str, Any]) -> str:
    lines = [f"module {package}::{name};", ""]
    for struct, body in module["structs"].items():
        abilities = _abilities(body["abilities"], ", ")
        has = f" has {abilities}" if abilities else ""
        head = f"public struct {struct}{_type_parameters(body['type_params'])}"
        fields = body["fields"]
        if fields and all(field["name"].startswith("pos") for field in fields):
            lines.append(f"{head}({', '.join(_type_text(field['type']) for field in fields)}){has};")
        else:
            inner = ", ".join(f"{_field(field['name'])}: {_type_text(field['type'])}" for field in fields)
            lines.append(f"{head}{has} {{ {inner} }}")
    for enum, body in module["enums"].items():
        abilities = _abilities(body["abilities"], ", ")
        has = f" has {abilities}" if abilities else ""
        variants = []
        for variant in body["variants"]:
            fields = variant["fields"]
            if not fields:
                variants.append(variant["name"])
            elif all(field["name"].startswith("pos") for field in fields):
                variants.append(f"{variant['name']}({', '.join(_type_text(field['type']) for field in fields)})")
            else:
                inner = ", ".join(f"{field['name']}: {_type_text(field['type'])}" for field in fields)
                variants.append(f"{variant['name']} {{ {inner} }}")
        lines.append(f"public enum {enum}{_type_parameters(body['type_params'])}{has} {{ {', '.join(variants)} }}")
    for function, body in module["functions"].items():
        if body["visibility"] != "public":
            continue
        parameters = ", ".join(f"_p{index}: {_type_text(kind)}" for index, kind in enumerate(body["params"]))
        returns = [_type_text(kind) for kind in body["returns"]]
        result = "" if not returns else f": {returns[0]}" if len(returns) == 1 else f": ({', '.join(returns)})"
        signature = f"fun {function}{_type_parameters(body['type_params'])}({parameters}){result}"
        if (package, name) == ("std", "vector") and function in BYTECODE_INSTRUCTIONS:
            lines.append(f"#[bytecode_instruction]\npublic native {signature};")
        else:
            lines.append(f"public {'entry ' if body['is_entry'] else ''}{signature} {{ abort 0 }}")
    return "\n".join(lines) + "\n"
