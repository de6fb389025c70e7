"""`byline journal verify`: reads what the core wrote, and says in plain words what it found."""

from __future__ import annotations

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from byline.settings import Settings
from engine.messages.errors import JournalCorrupt, Unavailable
from persistence.disk import DirectoryLock
from persistence.recovery import LOCK, verify

__all__ = ["verify_journal"]


def verify_journal(settings: Settings, *, console: Console, replay: bool) -> int:
    """Verifies the journal of the data directory. Returns 0 if it is sound, 1 if not.

    Raises:
        Unavailable: there is no journal.
        DataDirectoryBusy: a core is writing it.
    """
    if not (settings.data_directory / "journal").is_dir():
        raise Unavailable(f"there is no journal in {settings.data_directory}")
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed:,.0f} records"))
    try:
        lock = DirectoryLock(settings.data_directory / LOCK)  # the end of a running journal moves under the reader
        with lock, Progress(*columns, console=console, disable=not console.is_terminal) as progress:
            task = progress.add_task("replaying" if replay else "reading", total=None)
            found = verify(
                settings.data_directory, lambda sequence: progress.update(task, completed=sequence), with_replay=replay
            )
    except JournalCorrupt as error:
        console.print(f"[bold red]The journal is damaged[/]: {error}")
        return 1
    console.print(
        f"[bold green]The journal is sound[/]: {found.sequence:,} records in {found.segments} segments, "
        f"chain {found.chain:016x}"
    )
    if found.torn_bytes:
        console.print(f"{found.torn_bytes:,} bytes behind it are a write that was cut off; nobody was told of it")
    if replay:
        console.print(
            f"replayed: state hash {found.state_hash.hex()}, {found.cuts} cuts ({found.cuts_compared} compared), "
            f"snapshots compared: {', '.join(map(str, found.snapshots_checked)) or 'none'}"
        )
    for damaged in found.snapshots_damaged:
        console.print(f"[yellow]damaged snapshot[/] (an older one and more of the journal serve): {damaged}")
    return 0
