"""Other people's engines that play whole LOBW files beside ours, each as its users would drive it.

    orderly-chaos      C++ behind a C API; the driver is bench/native/orderly_chaos.c, in this process
    matching-engine    Python; bench/peer_matching_engine.py in a process of Python 3.12 or later

They are bare books: no money, no client ids, no state hash. `proven` plays a file once and holds every fill to the
workload's hash; `timed` plays it again and holds what rests to it. `python -m bench.book_peers` (`make peers`) sets up
both in `build/peers`; what is not there is NotDriven, with the reason, and the bench names it as left out.
"""

from __future__ import annotations

import ctypes
import importlib.util
import json
import shutil
import subprocess
import sys
import tempfile
from importlib import metadata
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from bench import driver
from bench.peers import NotDriven
from bench.workload import Workload, write

__all__ = ["BookPeer", "MatchingEngine", "OrderlyChaos", "book_peers", "set_up"]

ROOT = Path(__file__).parent.parent
HOME = ROOT / "build" / "peers"
"""The virtual environment that `set_up` makes."""
PINNED = {"orderly-chaos": "0.2.0", "matching-engine": "0.1.1"}
TIME_LIMIT_S = 900
HASH_START = 0xCBF29CE484222325


class BookPeer(Protocol):
    """An engine beside ours. Every method raises NotDriven where there is no number to be had."""

    name: str
    most: int | None
    """How many timed commands it gets, if not all: a slow one would hold up the others."""

    def proven(self, workload: Workload) -> None:
        """Play it once, untimed, and compare trades, volume, notional, the hash of every fill and what rests."""

    def timed(self, workload: Workload) -> float:
        """Seconds of the commands behind the preload."""


def _compare(name: str, got: dict[str, int], want: dict[str, int]) -> None:
    wrong = [f"{key} {got[key]} is not {value}" for key, value in want.items() if got[key] != value]
    if got["failed"]:
        wrong.insert(0, f"{got['failed']} commands failed")
    if wrong:
        raise NotDriven(f"{name} disagrees: {'; '.join(wrong)}")


def _resting(workload: Workload) -> dict[str, int]:
    return {"resting": workload.resting, "resting_qty": workload.resting_qty}


def _fills(workload: Workload) -> dict[str, int]:
    return {"trades": workload.trades, "volume": workload.volume, "notional": workload.notional}


class _BookTotals(ctypes.Structure):
    """Mirrors `BookTotals` of bench/native/lobw.h."""

    _fields_ = tuple(
        (name, ctypes.c_int64 if name == "ns" else ctypes.c_uint64)
        for name in ("trades", "volume", "notional", "hash", "failed", "resting", "resting_qty", "ns")
    )


def _site_packages() -> list[Path]:
    return sorted(HOME.glob("lib/python3.*/site-packages"))


class OrderlyChaos:
    """Its shared library lies in the package, named like an extension module; it needs no Python."""

    name = "orderly-chaos"
    most: int | None = None

    def __init__(self) -> None:
        folders = [place / "orderly_chaos" for place in _site_packages()]
        spec = importlib.util.find_spec("orderly_chaos")
        if spec is not None and spec.origin and metadata.version(self.name) == PINNED[self.name]:
            folders.append(Path(spec.origin).parent)
        found = [path for folder in folders for path in sorted(folder.glob("lib_orderly_chaos*.so"))]
        if not found:
            raise NotDriven(f"{self.name} {PINNED[self.name]} is not installed: make peers")
        self.path = found[0]
        try:
            self.driver = driver.library("orderly_chaos")
        except (driver.NoCompiler, OSError) as why:
            raise NotDriven(f"{self.name}: {why}") from why
        self.driver.play.restype = ctypes.c_int64

    def _play(self, workload: Workload, hashed: bool) -> dict[str, int]:
        records, totals = np.ascontiguousarray(workload.records), _BookTotals()
        totals.hash = HASH_START
        status = self.driver.play(
            str(self.path).encode(), ctypes.c_void_p(records.ctypes.data), ctypes.c_int64(workload.preload),
            ctypes.c_int64(len(records)), ctypes.c_int64(hashed), ctypes.byref(totals),
        )  # fmt: skip
        if status:
            reason = {-1: "its library cannot be opened", -2: "its library lacks a function"}.get(status, "no memory")
            raise NotDriven(f"{self.name}: {reason}")
        return {name: getattr(totals, name) for name, *_ in _BookTotals._fields_}

    def proven(self, workload: Workload) -> None:
        _compare(self.name, self._play(workload, True), _fills(workload) | _resting(workload) | {"hash": workload.hash})

    def timed(self, workload: Workload) -> float:
        got = self._play(workload, False)
        _compare(self.name, got, _fills(workload) | _resting(workload))
        return got["ns"] / 1e9


class MatchingEngine:
    """One process a run, pinned where this one is; its events are made and thrown away in the timed runs."""

    name = "matching-engine"
    most: int | None = 300_000

    def __init__(self) -> None:
        candidates = [HOME / "bin" / "python"]
        if sys.version_info >= (3, 12):
            candidates.append(Path(sys.executable))
        for python in candidates:
            if python.exists() and self._version(python) == PINNED[self.name]:
                self.python = python
                return
        raise NotDriven(f"{self.name} {PINNED[self.name]} is not installed for a Python of 3.12 or later: make peers")

    def _version(self, python: Path) -> str:
        code = f"from importlib.metadata import version; print(version({self.name!r}))"
        done = subprocess.run([python, "-c", code], capture_output=True, text=True)
        return done.stdout.strip()

    def _play(self, workload: Workload, hashed: bool) -> dict[str, Any]:
        script = Path(__file__).with_name("peer_matching_engine.py")
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "commands.lobw"
            write(path, workload)
            argv = [str(self.python), str(script), str(path), str(workload.ops), str(int(hashed))]
            try:
                done = subprocess.run(argv, capture_output=True, text=True, timeout=TIME_LIMIT_S)
            except subprocess.TimeoutExpired as why:
                raise NotDriven(f"{self.name}: not done in {TIME_LIMIT_S} s") from why
        if done.returncode:
            raise NotDriven(f"{self.name} failed: {done.stderr.strip()[-300:]}")
        result: dict[str, Any] = json.loads(done.stdout)
        return result

    def proven(self, workload: Workload) -> None:
        _compare(self.name, self._play(workload, True), _fills(workload) | _resting(workload) | {"hash": workload.hash})

    def timed(self, workload: Workload) -> float:
        got = self._play(workload, False)
        _compare(self.name, got, _resting(workload))
        return float(got["ns"]) / 1e9


def book_peers() -> tuple[list[BookPeer], list[str]]:
    """The peers that can be driven here, and for each of the others why not."""
    found: list[BookPeer] = []
    missing: list[str] = []
    for kind in (OrderlyChaos, MatchingEngine):
        try:
            found.append(kind())
        except NotDriven as why:
            missing.append(str(why))
    return found, missing


def _newer_python() -> str:
    """A Python of 3.12 or later. Raises NotDriven if none runs here."""
    names = [name for minor in (14, 13, 12) if (name := shutil.which(f"python3.{minor}"))]
    names += [str(path) for path in sorted(Path.home().glob(".pyenv/versions/3.1[2-9]*/bin/python"), reverse=True)]
    for name in [sys.executable, *names]:
        code = "import sys; print(sys.version_info >= (3, 12))"
        done = subprocess.run([name, "-c", code], capture_output=True, text=True)
        if done.stdout.strip() == "True":
            return name
    raise NotDriven("no Python of 3.12 or later runs here")


def set_up() -> list[str]:
    """Make `build/peers` and install the pinned peers there. Returns a line for each that could not be installed."""
    python = _newer_python()
    HOME.parent.mkdir(parents=True, exist_ok=True)
    subprocess.run([python, "-m", "venv", "--clear", str(HOME)], check=True)
    failed = []
    for name, version in PINNED.items():
        argv = [str(HOME / "bin" / "python"), "-m", "pip", "install", "-q", "--disable-pip-version-check"]
        done = subprocess.run([*argv, f"{name}=={version}"], capture_output=True, text=True)
        if done.returncode:
            failed.append(f"{name} {version}: {done.stderr.strip()[-300:]}")
    return failed


if __name__ == "__main__":
    try:
        problems = set_up()
    except (NotDriven, subprocess.CalledProcessError) as why:
        raise SystemExit(f"peers: {why}") from why
    for problem in problems:
        print(f"peers: not installed: {problem}", file=sys.stderr)
    raise SystemExit(1 if problems else 0)
