"""Extensions built beside the tree, from changed sources or with other flags, and imported in place of its own.

    FOLDER/*.pyx, *.h, else the tree's ─▶ Cython, C compiler ─▶ FOLDER/*.so ─▶ a process with a Finder

The tree is never written to.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import importlib.util
import os
import subprocess
import sys
import sysconfig
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

import numpy

__all__ = ["Finder", "build_extension"]

ROOT = Path(__file__).parents[2]
DIRECTIVES = "wraparound=False,cdivision=True,boundscheck=False,initializedcheck=False"
"""As in setup.py."""


def build_extension(source: str, folder: Path, *flags: str) -> Path:
    """Builds one module, with what stands in `folder` in front of the tree, without optimisation unless `flags` say so.

    `source`: the .pyx, by its path in the tree. Returns the library, in `folder` under the same path.

    Raises:
        CalledProcessError: Cython or the compiler refuses; `stderr` says why.
    """
    c_file, library = (folder / source).with_suffix(".c"), (folder / source).with_suffix(".so")
    c_file.parent.mkdir(parents=True, exist_ok=True)
    changed = folder / source
    whole = changed if changed.exists() else ROOT / source
    module = source.rpartition(".")[0].replace("/", ".")
    subprocess.run(
        [sys.executable, "-m", "cython", "-3", "-X", DIRECTIVES, "-I", str(ROOT), "--module-name", module,
         "-o", str(c_file), str(whole)],
        check=True, capture_output=True, text=True, cwd=ROOT,
    )  # fmt: skip
    includes = [folder, ROOT, (ROOT / source).parent, sysconfig.get_path("include"), numpy.get_include()]
    command = [*_compiler(), *(f"-I{path}" for path in includes), str(c_file), *flags, "-o", str(library)]
    subprocess.run(command, check=True, capture_output=True, text=True)
    return library


def _compiler() -> list[str]:
    """The command that turns one .c into one extension."""
    given = sysconfig.get_config_var("CC") or "cc"
    flags = "-O0 -w -fPIC -shared -pthread -DNPY_NO_DEPRECATED_API=NPY_1_7_API_VERSION"
    from_cpu = ["-march=x86-64-v3"] if "avx2" in Path("/proc/cpuinfo").read_text() else []
    return [*os.environ.get("CC", given).split(), *flags.split(), *from_cpu]


class Finder(importlib.abc.MetaPathFinder):
    """Stands in front of `sys.meta_path`. `instead`: module → the file it is imported from."""

    def __init__(self, instead: Mapping[str, str]) -> None:
        self._instead = instead

    def find_spec(
        self, name: str, path: object = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if name not in self._instead:
            return None
        return importlib.util.spec_from_file_location(name, self._instead[name])
