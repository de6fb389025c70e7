"""Compile the Move packages and write `bytecode/`: python -m settlement.move.tools.compile --node-modules DIR

For developers who change Move sources; everybody else uses the committed bytecode. Needs Node 20 and the compiler that
`make move-builder` installs into build/move (DIR).
`--check` writes nothing: it compares with the committed files, runs the Move unit tests, and fails if either does.

    exchange/   what is published: one NAME.mv a module, build.json with the package digest, interface.json with the
                signatures of the public functions
    coin/       the same for the test coin of the embedded chain, digits still zero
    probe/      the probes, and every published module that differs because it names a probe a friend; never published
"""

from __future__ import annotations

import argparse
import base64
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import sui_sandbox

from settlement.move.tools.stubs import write_stubs

MOVE = Path(__file__).resolve().parents[1]
UNIT_TEST_STUB = "#[test_only]\nmodule std::unit_test;\n\npublic fun poison() {}\n"
"""What the compiler wants to find in test mode."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="compare with the committed files, run the Move tests")
    parser.add_argument("--node-modules", required=True, help="the folder in which npm installed the compiler")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        outputs = compile_all(Path(scratch), Path(arguments.node_modules))
        tests_failed = arguments.check and run_move_tests(Path(scratch), Path(arguments.node_modules))
    differing = [name for name, data in outputs.items() if _committed(name) != data]
    if arguments.check:
        for name in differing:
            print(f"differs: {name}", file=sys.stderr)
        return 1 if differing or tests_failed else 0
    for name, data in outputs.items():
        target = MOVE / "bytecode" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)
    return 0


def compile_all(scratch: Path, node_modules: Path) -> dict[str, bytes]:
    """File name under `bytecode/` → contents."""
    stubs = scratch / "stubs"
    write_stubs(stubs)
    probe_package = scratch / "probe"
    shutil.copytree(MOVE / "exchange", probe_package)
    for source in (MOVE / "probe").glob("*.move"):
        shutil.copy(source, probe_package / "sources")
    outputs: dict[str, bytes] = {}
    for name, folder in (("exchange", MOVE / "exchange"), ("coin", MOVE / "coin"), ("probe", probe_package)):
        built = _compile(folder.resolve(), stubs, node_modules)
        codes = [base64.b64decode(text) for text in built["modules"]]
        modules, interface = _named(scratch / f"{name}.modules", codes)
        if name == "probe":
            modules = {key: code for key, code in modules.items() if outputs.get(f"exchange/{key}.mv") != code}
        for module, code in modules.items():
            outputs[f"{name}/{module}.mv"] = code
        if name != "probe":
            meta = {"digest": built["digest"], "dependencies": built["dependencies"], "modules": list(modules)}
            outputs[f"{name}/build.json"] = (json.dumps(meta, indent=1) + "\n").encode()
            outputs[f"{name}/interface.json"] = _lines(interface)
    return outputs


def run_move_tests(scratch: Path, node_modules: Path) -> int:
    """Run the unit tests beside the exchange package; their report goes to standard output. 0 if all passed.

    `compile_all` has written the stubs.
    """
    (scratch / "stubs" / "std" / "sources" / "unit_test.move").write_text(UNIT_TEST_STUB)
    script = Path(__file__).with_name("test.mjs")
    command = ["node", str(script), str((MOVE / "exchange").resolve()), str(scratch / "stubs")]
    return subprocess.run(command, cwd=node_modules, check=False).returncode


def _compile(package: Path, stubs: Path, node_modules: Path) -> dict[str, list[str]]:
    script = Path(__file__).with_name("compile.mjs")
    done = subprocess.run(
        ["node", str(script), str(package), str(stubs)], cwd=node_modules, check=True, stdout=subprocess.PIPE
    )
    built: dict[str, list[str]] = json.loads(done.stdout)
    return built


def _named(folder: Path, modules: list[bytes]) -> tuple[dict[str, bytes], dict[str, dict[str, Any]]]:
    """The modules by their names, in the compiler's order (dependencies first); and their public functions."""
    named, interfaces = {}, {}
    for number, code in enumerate(modules):
        single = folder / str(number) / "bytecode_modules"
        single.mkdir(parents=True)
        (single / "m.mv").write_bytes(code)
        interface = sui_sandbox.extract_interface(bytecode_dir=str(single.parent))
        [(name, module)] = interface["modules"].items()
        named[name] = code
        interfaces[name] = {
            function: {key: body[key] for key in ("is_entry", "type_params", "params", "returns")}
            for function, body in module["functions"].items()
            if body["visibility"] == "public"
        }
    return named, interfaces


def _lines(interface: dict[str, dict[str, Any]]) -> bytes:
    """JSON with one line a function, so that a change of one shows as one."""
    modules = []
    for name, functions in interface.items():
        lines = [f"  {json.dumps(function)}: {json.dumps(body)}" for function, body in functions.items()]
        modules.append(f" {json.dumps(name)}: {{\n" + ",\n".join(lines) + "\n }")
    return ("{\n" + ",\n".join(modules) + "\n}\n").encode()


def _committed(name: str) -> bytes | None:
    path = MOVE / "bytecode" / name
    return path.read_bytes() if path.exists() else None


if __name__ == "__main__":
    sys.exit(main())
