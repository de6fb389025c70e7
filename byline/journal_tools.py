"""`byline journal verify` and `truncate`: the operator's two tools for a journal that the core refuses."""

from __future__ import annotations

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from byline.rebuild import ask_for_rebuild
from byline.running import check_journal
from byline.settings import Settings
from engine.messages.errors import JournalCorrupt, Refused
from persistence.disk import DirectoryDisk, DirectoryLock
from persistence.evidence import REGISTRY
from persistence.journal import read_mark
from persistence.recovery import LOCK, verify
from persistence.truncate import plan_truncation, truncate
from settlement.store import last_sealed

__all__ = ["truncate_journal", "verify_journal"]


def verify_journal(settings: Settings, *, console: Console, replay: bool) -> int:
    """Verifies the journal of the data directory. Returns 0 if it is sound, 1 if not.

    Raises:
        Unavailable: there is no journal.
        DataDirectoryBusy: a core is writing it.
    """
    check_journal(settings.data_directory)
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed:,.0f} records"))
    sealed, status = 0, 0
    try:
        sealed = last_sealed(settings.data_directory / "settlement" / "batches.log")[1]
    except JournalCorrupt as error:
        console.print(f"[bold red]Settlement's log is damaged[/]: {error}")  # the answer of this command
        status = 1
    try:
        lock = DirectoryLock(settings.data_directory / LOCK)  # the end of a running journal moves under the reader
        with lock, Progress(*columns, console=console, disable=not console.is_terminal) as progress:
            task = progress.add_task("replaying" if replay else "reading", total=None)
            found = verify(
                settings.data_directory, lambda sequence: progress.update(task, completed=sequence),
                with_replay=replay, sealed=sealed,
            )  # fmt: skip
    except JournalCorrupt as error:
        console.print(f"[bold red]The journal is damaged[/]: {error}")  # the answer of this command
        return 1
    console.print(
        f"[bold green]The journal is sound[/]: {found.sequence:,} records in {found.segments} "
        f"segment{'' if found.segments == 1 else 's'}, chain {found.chain:016x}"
    )
    if found.torn_bytes:
        console.print(f"{found.torn_bytes:,} bytes behind it are a write that was cut off; nobody was told of it")
    if replay:
        console.print(
            f"replayed: state hash {found.state_hash.hex()}, {found.cuts} cuts ({found.cuts_compared} compared), "
            f"snapshots compared: {', '.join(map(str, found.snapshots_checked)) or 'none'}"
        )
        if not (found.cuts_compared or found.snapshots_checked):
            console.print(
                "[bold yellow]Nothing here to compare with[/]: no snapshot, and no event log, which no backup has. A "
                "final batch has the hash of its cut (docs/operations.md, Drills)",
                soft_wrap=True,
            )
    else:
        console.print(
            "checked: header, checksum, chain and sequence of each record, digests of whole segments, and that nothing "
            "beside the journal knows of more. Not checked: whether the commands lead to the states that snapshots and "
            "settlement's cuts have; --replay runs them all and compares",
            soft_wrap=True,
        )
    if found.event_file_damaged:
        console.print(
            f"[bold red]The event log is damaged[/]: events/{found.event_file_damaged}: remove the folder events/, it "
            "is built anew from the journal"
        )
        status = 1
    if found.event_log_damaged:
        console.print(f"[bold red]The event log is damaged[/]: {found.event_log_damaged}")
        status = 1
    for damaged in found.snapshots_damaged:
        console.print(f"[yellow]damaged snapshot[/] (an older one and more of the journal serve): {damaged}")
    return status


def truncate_journal(settings: Settings, to: int, *, console: Console, yes: bool) -> int:
    """Cuts the journal behind sequence `to` and keeps what is cut. Returns 0: done, or nothing was there to cut.

    Raises:
        Unavailable: there is no journal.
        DataDirectoryBusy: an exchange runs on the directory.
        JournalCorrupt: it is damaged up to `to` already.
        Refused: the operator did not agree, a settled batch lies behind `to`, or the journal ends before it.
    """
    data = settings.data_directory
    check_journal(data)
    with DirectoryLock(data / "lock"), DirectoryLock(data / LOCK):
        disk = DirectoryDisk(data)
        try:
            plan = plan_truncation(disk, to)
        except ValueError as error:
            raise Refused(f"--to {to}: {error}; `byline journal verify` names the place to cut before") from error
        durable = read_mark(disk, plan.tail.identity)
        if plan.cuts_nothing and durable <= to:
            console.print(f"the journal ends with sequence {to:,} already: nothing to cut")
            return 0
        number, sealed = last_sealed(data / "settlement" / "batches.log")
        if sealed > to:
            raise Refused(
                f"--to {to}: batch {number} was sealed up to sequence {sealed} and may be on the chain: "
                "restore the journal from the backup instead (byline restore)"
            )
        assert plan.tail.segment is not None
        console.print(
            f"To be cut behind sequence {to:,}: {plan.used_bytes:,} bytes of {plan.tail.segment.path}, "
            f"{len(plan.later_segments)} later segments, {len(plan.later_snapshots)} snapshots.",
            soft_wrap=True,
        )
        if durable > to:
            console.print(f"Records up to sequence {durable:,} were durable once.")
        console.print("Commands among them that were acknowledged are [bold]lost[/] to the exchange.")
        if (data / REGISTRY).exists():
            console.print(
                "The registry of keys goes aside too, for it may name keys of accounts that are cut: traders' keys "
                "must be registered again (byline key register).",
                soft_wrap=True,
            )
        if not yes and not (console.is_terminal and console.input("Cut it? Type yes: ").strip() == "yes"):
            raise Refused("nothing was cut: give --yes, or type yes where it asks")
        ask_for_rebuild(data)  # rows of what is cut must not meet what will take its sequences
        aside = truncate(disk, plan)
    console.print(f"[bold green]Cut[/]: the journal ends with sequence {to:,}, chain {plan.tail.chain:016x}")
    console.print(f"what was cut is kept in {aside}", soft_wrap=True)
    console.print("PostgreSQL is rebuilt from the journal at the next start. Next: byline journal verify --replay")
    return 0
