"""The exchange that runs on a data directory: what each command asks that needs one, and what it says where none does.

The processes tell of themselves in DATA/run (`status_file`). One that died leaves its last words there, so that a
status counts only while its process lives, and its addresses only once it is ready.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from byline.status_file import read_all_statuses
from engine.messages.errors import Unavailable

__all__ = ["check_journal", "find_process", "running_exchange", "running_process"]


def running_exchange(data: Path, *, instead: str = "") -> dict[str, dict[str, Any]]:
    """The statuses of its processes by name, also of those that are down; one lives at least.

    `instead`: what else would do, a clause that begins with "or".

    Raises:
        Unavailable: none lives there, and what to do.
    """
    statuses = read_all_statuses(data)
    if not any(status["alive"] for status in statuses.values()):
        start = ": start one"
        if not _has_journal(data):
            start = ", which is no exchange's data directory: name the right one with --data, or start one"
        other = f", {instead}" if instead else ""
        raise Unavailable(f"no exchange runs on {data}{start} with `byline up` or `make run`{other}")
    return statuses


def running_process(data: Path, name: str, *, instead: str = "") -> dict[str, Any]:
    """The status of one process of the exchange, which lives and is ready.

    Raises:
        Unavailable: no exchange runs there, or it runs without this process; and what to do.
    """
    status = running_exchange(data, instead=instead).get(name)
    if status is None or not (status["alive"] and status["ready"]):
        what = "is not ready yet" if status and status["alive"] else "does not run"
        other = f", {instead}" if instead else ""
        raise Unavailable(
            f"the exchange on {data} runs, but its process {name} {what}: see `byline status` and the end of "
            f"{data}/logs/{name}.log{other}"
        )
    return status


def find_process(data: Path, name: str) -> dict[str, Any] | None:
    """As `running_process`, for who can do without it. None: it does not live, or is not ready."""
    status = read_all_statuses(data).get(name)
    return status if status and status["alive"] and status["ready"] else None


def check_journal(data: Path) -> None:
    """Raises Unavailable: this is no exchange's data directory."""
    if not _has_journal(data):
        raise Unavailable(f"{data} is no exchange's data directory, it has no journal: name the right one with --data")


def _has_journal(data: Path) -> bool:
    return (data / "journal").is_dir()
