"""`byline restore`: a data directory from its backup, with the time that each step took."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeElapsedColumn, TransferSpeedColumn

from byline.rebuild import ask_for_rebuild
from byline.wanted_keys import EXCHANGE_KEYS, note_keys_wanted
from engine.messages.errors import JournalCorrupt, SettingsInvalid
from persistence.backup import Objects
from persistence.disk import DirectoryDisk
from persistence.recovery import replay
from persistence.restore import Restored, restore
from settlement.store import last_sealed

__all__ = ["read_point", "restore_directory"]


def read_point(text: str | None) -> dict[str, int]:
    """`to_sequence` of digits, `to_ts` of an ISO 8601 time with its zone; nothing of None.

    Raises:
        SettingsInvalid: neither.
    """
    if text is None:
        return {}
    if text.isascii() and text.isdigit() and 0 < int(text) < 2**63:
        return {"to_sequence": int(text)}
    try:
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is None:
            raise ValueError
    except ValueError:
        raise SettingsInvalid(f"--to {text}: a sequence, or a time as 2026-11-21T20:15:00+00:00") from None
    whole = moment.astimezone(UTC) - datetime(1970, 1, 1, tzinfo=UTC)
    return {"to_ts": (whole.days * 86_400 + whole.seconds) * 1_000_000_000 + whole.microseconds * 1000}


def _before_moving(data: Path, scratch: Path, restored: Restored) -> None:
    """Settlement knows of nothing behind the journal's end, and rows of PostgreSQL of nothing that is not in it."""
    number, sealed = last_sealed(scratch / "settlement" / "batches.log")
    if sealed > restored.sequence:
        raise JournalCorrupt(
            f"backup: ends with sequence {restored.sequence}, but batch {number} was sealed up to sequence {sealed}"
        )
    ask_for_rebuild(data)  # a server elsewhere may have rows of records that the backup never got
    # Before there is a journal to start from: whoever is interrupted behind that has the list.
    if lacking := [path for path in _lacking(data) if path.startswith("keys/")]:
        note_keys_wanted(data, lacking)


def _lacking(data: Path) -> list[str]:
    return [path for path in EXCHANGE_KEYS if not (data / path).exists()]


def _end_of(sequence: int, at: str, *, is_point: bool) -> str:
    """What is missing behind the end. A backup cannot tell a journal that ended there from one that was cut off."""
    lost = f"what was acknowledged after {at} is lost, and clients ask by `resolve`"
    if is_point:
        return f"Records behind sequence {sequence:,}, if there were any, are not in it: {lost}."
    return (
        f"Sequence {sequence:,} is the last that the backup has. Of an exchange that was stopped while its store was "
        f"in reach that is all: the backup's process ends last. If it was cut off, {lost}."
    )


def restore_directory(
    url: str, data: Path, *,
    to: str | None, identity: str | None, replayed: bool, embedded_chain: bool, console: Console,
) -> int:  # fmt: skip
    """Restores and tells what was done, and what is to be done. Returns 0.

    Raises:
        ExchangeError: see persistence.restore.
    """
    point, began = read_point(to), time.monotonic()
    columns = (TextColumn("restoring"), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task("restoring", total=None)
        found = restore(
            Objects(url, make_directory=False), data, identity=identity, **point,
            progress=lambda done, total: progress.update(task, completed=done, total=total),
            before_moving=lambda scratch, restored: _before_moving(data, scratch, restored),
            told=lambda line: console.print(line, soft_wrap=True, markup=False),
        )  # fmt: skip
    at = datetime.fromtimestamp(found.last_ts / 1e9, UTC).isoformat(timespec="milliseconds")
    console.print(
        f"[bold green]Restored[/] journal {found.identity} up to sequence {found.sequence:,} of {at}, "
        f"{found.segments} segment{'' if found.segments == 1 else 's'}, chain {found.chain:016x}",
        soft_wrap=True,
    )
    console.print(f"{found.read_bytes:,} bytes checked in {found.read_s:.2f} s, once more in {found.check_s:.2f} s")
    if replayed:
        since = time.monotonic()
        core, _ = replay(DirectoryDisk(data))
        core.check()
        console.print(f"replayed in {time.monotonic() - since:.2f} s: state hash {core.state_hash().hex()}")
    console.print(f"in all {time.monotonic() - began:.2f} s")
    if found.beside:
        console.print("restored beside it: " + ", ".join(found.beside), soft_wrap=True)
    if found.left_out:
        console.print(
            "left out, for they may know of what was left out: " + ", ".join(found.left_out) + ". Settlement needs a "
            "state that fits: docs/operations.md",
            soft_wrap=True,
        )
    if lacking := _lacking(data):
        console.print(
            "keys are never in a backup; bring back yours before the first start: " + ", ".join(lacking),
            soft_wrap=True,
        )
    console.print(_end_of(found.sequence, at, is_point=to is not None), soft_wrap=True)
    if embedded_chain and (data / "settlement").is_dir():  # its log names objects of a chain that is in no backup
        console.print(
            f"The embedded chain is in no backup. Before the first start put a copy of its folder to {data}/chain; if "
            f"there is none, move {data}/settlement away: all batches are settled again on a new chain.",
            soft_wrap=True,
        )
    console.print(
        f"Next: `byline journal verify --replay --data {data}`, then `byline up --data {data}`, which rebuilds "
        "PostgreSQL's projections.",
        soft_wrap=True,
    )
    return 0
