"""What fails below a real process: libraries in C, preloaded into it. A disk that fails or stalls; no resolver."""

from __future__ import annotations

import mmap
import shutil
import subprocess
import sysconfig
from pathlib import Path

__all__ = ["FaultyDisk", "compiler", "without_names"]

SOURCE = Path(__file__).with_name("faulty_disk.c")
WORDS = {
    "sync_errno": 0, "sync_errno_stays": 1, "sync_delay_us": 2, "write_bytes_max": 3, "interrupts": 4, "open_errno": 5,
    "syncs": 6, "failed_syncs": 7, "odd_writes": 8, "refused_opens": 9, "write_errno": 10,
    "done_delay_us": 11, "done_syncs": 12,
}  # fmt: skip


def compiler() -> str | None:
    """The C compiler that the extensions are built with, if this machine has one."""
    return shutil.which((sysconfig.get_config_var("CC") or "cc").split()[0]) or shutil.which("cc")


def _built(source: Path, folder: Path) -> Path:
    cc, library = compiler(), folder / source.with_suffix(".so").name
    assert cc is not None
    subprocess.run([cc, "-shared", "-fPIC", "-O1", "-o", str(library), str(source), "-ldl"], check=True)
    return library


def without_names(folder: Path) -> tuple[dict[str, str], Path]:
    """The environment of a process that finds no name (no_names.c), and a file with a byte for each it looked up."""
    asked = folder / "names"
    asked.touch()
    return {"LD_PRELOAD": str(_built(SOURCE.with_name("no_names.c"), folder)), "NO_NAMES": str(asked)}, asked


class FaultyDisk:
    """Built and controlled in `folder`. `environment()` goes to the process; `set` and `get` at any time afterwards."""

    def __init__(self, folder: Path, *, name: str) -> None:
        """`name`: part of the paths that are met."""
        folder.mkdir(exist_ok=True)
        self._library = _built(SOURCE, folder)
        self._control = folder / "faulty_disk.words"
        self._control.write_bytes(bytes(64))
        self._name = name
        with self._control.open("r+b") as file:
            self._page = mmap.mmap(file.fileno(), 64)

    def environment(self) -> dict[str, str]:
        return {
            "LD_PRELOAD": str(self._library), "FAULTY_DISK": str(self._control), "FAULTY_NAME": self._name,
        }  # fmt: skip

    def set(self, **words: int) -> None:
        for word, value in words.items():
            at = WORDS[word] * 4
            self._page[at : at + 4] = value.to_bytes(4, "little", signed=True)

    def get(self, word: str) -> int:
        at = WORDS[word] * 4
        return int.from_bytes(self._page[at : at + 4], "little", signed=True)
