"""Bugs planted in the production sources themselves: a changed copy is built beside the tree, and worlds run on it.

    source ─▶ a place changed ─▶ Cython, C compiler (no optimisation) ─▶ FOLDER/*.so ─▶ a process that imports it first

The tree is never written to. `python -m tests.simulation.planted` is that process: it reads what to import from where
and which plans to run as JSON from its input, and tells the violations of all worlds, one a line.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tests.support.extensions import Finder, build_extension

if TYPE_CHECKING:
    from tests.simulation.world import Plan

__all__ = ["Bug", "build", "violations_of"]

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True)
class Bug:
    """`source`: a file of the tree, .py, .pyx or .h. `changes`: (text, what stands there instead), each once in it."""

    source: str
    changes: tuple[tuple[str, str], ...]
    modules: tuple[str, ...] = ()
    """Of a header: the modules that are built with it."""

    def text(self) -> str:
        """The source with the bug. Raises ValueError if the places to change are not there, or more than once."""
        text = (ROOT / self.source).read_text()
        for old, new in self.changes:
            if text.count(old) != 1:
                raise ValueError(f"{self.source}: {text.count(old)} places are like {old!r}")
            text = text.replace(old, new)
        return text


def build(bug: Bug, folder: Path) -> dict[str, str]:
    """Module → file with the bug in it, to be imported in place of the tree's."""
    changed = folder / bug.source
    changed.parent.mkdir(parents=True, exist_ok=True)
    changed.write_text(bug.text())
    if changed.suffix == ".py":
        return {_module(bug.source): str(changed)}
    sources = [str(Path(*name.split(".")).with_suffix(".pyx")) for name in bug.modules] or [bug.source]
    return {_module(source): str(build_extension(source, folder)) for source in sources}


def _module(source: str) -> str:
    return source.rpartition(".")[0].replace("/", ".")


def violations_of(planted: dict[str, str], plans: Sequence[Plan]) -> list[str]:
    """Those of worlds after these plans, in a process that imports the planted modules: `I3: what broke`, or `DIED`."""
    told = {"planted": planted, "plans": [asdict(plan) for plan in plans]}
    done = subprocess.run(
        [sys.executable, "-m", "tests.simulation.planted"], input=json.dumps(told), capture_output=True, text=True,
        cwd=ROOT, check=False,
    )  # fmt: skip
    found = [line for line in done.stdout.splitlines() if line]
    return found + ([f"DIED: {done.returncode}: {done.stderr[-500:]}"] if done.returncode else [])


def main() -> int:
    """The process of the worlds: nothing of the exchange is imported before the finder stands in front."""
    told = json.loads(sys.stdin.read())
    sys.meta_path.insert(0, Finder(told["planted"]))
    from tests.simulation.world import Fault, Plan, run_seed

    for given in told["plans"]:
        plan = Plan(**given | {"faults": tuple(Fault(**fault) for fault in given["faults"])})
        for violation in run_seed(plan.seed, plan=plan).violations:
            print(violation, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
