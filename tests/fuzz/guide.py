"""What lets libFuzzer see compiled code: our extensions a second time, and a library that counts what runs in them.

    *.pyx ─▶ C compiler: a call at each block, AddressSanitizer ─▶ build/guided/*.so, imported by a fuzzer
    guide.c ─▶ build/guided/guide.so, preloaded in front of atheris' libFuzzer

The tree and its own extensions are never written to. A read past the end of an input is a finding as any other. gcc and
clang know these flags.
Source: docs/decisions/0077-the-guide-sees-compiled-code.md.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.support.extensions import Finder, build_extension
from tests.support.faulty_disk import compiler

__all__ = ["FLAGS", "PACKAGES", "SEES", "begin", "build", "build_counter", "environment", "install", "reached"]

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "build" / "guided"
PACKAGES = ("gateway", "persistence", "settlement", "marketdata", "engine")
SEES = ("-Og", "-fsanitize-coverage=trace-pc,trace-cmp")
"""-O1 makes one block of some conditions, with nothing for a counter to tell them by."""
FLAGS = (*SEES, "-g1", "-fno-omit-frame-pointer", "-fsanitize=address", "-nodefaultlibs", "-lc", "-lm", "-lgcc")
"""Without default libraries: the sanitizer's runtime is atheris', not the compiler's."""
LOADED = """
import json, sys
from tests.fuzz.targets import TARGETS, seeds_of
for name, target in TARGETS.items():
    for data in seeds_of(name):
        target(data)
ours = {name: module.__file__ or "" for name, module in sys.modules.items() if name.split(".")[0] in sys.argv[1:]}
print(json.dumps(sorted(name for name, file in ours.items() if file.endswith(".so"))))
"""
"""Prints the names of the extensions that the targets load."""


def build(folder: Path = FOLDER) -> None:
    """Builds what the targets load, and of it what is missing or older than its sources.

    Raises CalledProcessError: Cython or the compiler refuses; `stderr` says why.
    """
    folder.mkdir(parents=True, exist_ok=True)
    build_counter(folder)
    told = subprocess.run([sys.executable, "-c", LOADED, *PACKAGES], cwd=ROOT, check=True, stdout=subprocess.PIPE)
    shared = [path for name in PACKAGES for kind in ("pxd", "h") for path in (ROOT / name).rglob(f"*.{kind}")]
    sources = [f"{name.replace('.', '/')}.pyx" for name in json.loads(told.stdout)]
    old = [source for source in sources if _is_old(folder / source, [ROOT / source, *shared])]
    print(f"building {len(old)} of {len(sources)} extensions for the guide", flush=True)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(lambda source: build_extension(source, folder, *FLAGS), old))


def _is_old(library: Path, sources: Sequence[Path]) -> bool:
    library = library.with_suffix(".so")
    newest = max(path.stat().st_mtime for path in (*sources, Path(__file__)))
    return not library.exists() or library.stat().st_mtime < newest


def build_counter(folder: Path) -> Path:
    """guide.so."""
    source, library, cc = Path(__file__).with_suffix(".c"), folder / "guide.so", compiler()
    assert cc is not None, "no C compiler"
    if _is_old(library, [source]):
        flags = ("-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC")
        subprocess.run([cc, *flags, "-o", str(library), str(source)], check=True)
    return library


def environment(folder: Path = FOLDER) -> dict[str, str]:
    """Of the process of a fuzzer: what it preloads, and Python's objects in memory of their own, so that a read past
    the end of one is seen."""
    runtime = Path(importlib.import_module("atheris").path()) / "asan_with_fuzzer.so"
    asan = ("detect_leaks=0", "detect_odr_violation=0", "malloc_context_size=2", "quarantine_size_mb=16")
    preloaded = f"{folder / 'guide.so'}:{runtime}"
    return {**os.environ, "LD_PRELOAD": preloaded, "ASAN_OPTIONS": ":".join(asan), "PYTHONMALLOC": "malloc"}


def install(folder: Path = FOLDER) -> None:
    """In such a process, before anything of the exchange is imported."""
    libraries = {path.relative_to(folder).with_suffix(""): str(path) for path in folder.glob("*/**/*.so")}
    sys.meta_path.insert(0, Finder({".".join(module.parts): path for module, path in libraries.items()}))


def begin() -> None:
    """In such a process, when everything is imported: from here on it is counted what runs."""
    ctypes.CDLL(None).guide_begin()


def reached() -> int:
    """How many blocks of compiled code have run since."""
    return int(ctypes.CDLL(None).guide_reached())
