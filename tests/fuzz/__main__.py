"""`python -m tests.fuzz [--target NAME …] [--runs N] [--seconds N]`: coverage-guided fuzzing by atheris. `make fuzz
RUNS=N` runs it.

Each target in a process of its own, N inputs each (0: until Ctrl-C), on extensions that tell the guide where they go
and whose reads past the end of memory end the run (guide.py). New inputs that reach something new are kept in
build/fuzz/NAME; what is found stands beside it as `crash-…`. To keep an input: copy it to tests/fuzz/corpus/NAME.
`--target NAME --again FILE` runs one input again.
Exit status 0: nothing found. 1: the targets that found something are named.
"""

from __future__ import annotations

import argparse
import importlib
import subprocess
import sys
from pathlib import Path

from tests.fuzz import guide

ROOT = Path(__file__).parents[2]
NAMES = ("session", "json", "binary", "journal", "snapshot", "part", "localsui", "marketdata")
INPUT_BYTES_MAX = 80_000


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description="Coverage-guided fuzzing.")
    parser.add_argument("--runs", type=int, default=100_000, help="inputs for each target; 0: until Ctrl-C")
    parser.add_argument("--seconds", type=int, default=0, help="time for each target; 0: as long as its inputs take")
    parser.add_argument("--target", action="append", choices=NAMES, help="once or more; left out: all")
    parser.add_argument("--again", type=Path, help="a file of build/fuzz/NAME that is run once, by the one --target")
    parser.add_argument("--inside", choices=NAMES, help=argparse.SUPPRESS)
    given, rest = parser.parse_known_args()
    if given.inside:
        return _fuzz(given.inside, rest)
    if given.again and len(given.target or ()) != 1:
        parser.error("--again needs the one --target that found it")
    try:
        importlib.import_module("atheris")
    except ImportError:
        print("atheris is not installed: pip install 'atheris>=3,<4'", file=sys.stderr)
        return 2
    guide.build()
    found = []
    for number, name in enumerate(given.target or NAMES, 1):
        print(f"[{number} of {len(given.target or NAMES)}] {name}", flush=True)
        work = ROOT / "build" / "fuzz" / name
        work.mkdir(parents=True, exist_ok=True)
        own = ROOT / "tests" / "fuzz" / "corpus" / name
        argv = [sys.executable, "-m", "tests.fuzz", "--inside", name]
        if given.again:
            argv.append(str(given.again.resolve()))
        else:
            argv += [str(work), *([str(own)] if own.is_dir() else []), *([f"-runs={given.runs}"] if given.runs else [])]
            argv += [f"-max_total_time={given.seconds}"]
        argv += [f"-max_len={INPUT_BYTES_MAX}", f"-artifact_prefix={work}/", "-timeout=60"]
        if subprocess.run(argv, cwd=ROOT, env=guide.environment(), check=False).returncode:
            found.append(name)
    if found:
        print(f"found something: {', '.join(found)}: see build/fuzz/NAME/crash-*")
    return 1 if found else 0


def _fuzz(name: str, arguments: list[str]) -> int:
    """In a process of its own: never returns."""
    import atheris

    guide.install()
    with atheris.instrument_imports(include=[*guide.PACKAGES]):
        targets = importlib.import_module("tests.fuzz.targets")
        for data in targets.seeds_of(name):
            targets.TARGETS[name](data)  # what it imports only now is measured too
    inputs = targets.seeds_of(name)
    guide.begin()
    for number, data in enumerate(inputs):
        targets.TARGETS[name](data)
        if Path(arguments[0]).is_dir():
            (Path(arguments[0]) / f"seed-{number}").write_bytes(data)
    print(f"well-formed inputs run through {guide.reached()} blocks of compiled code", flush=True)
    atheris.Setup([sys.argv[0], *arguments], targets.TARGETS[name])
    atheris.Fuzz()
    return 0


if __name__ == "__main__":
    sys.exit(main())
