"""The report card: what `make faults` did and found, as a page and as numbers.

Two parts, seeds and kills, each with the command, commit and machine of its run: who runs one of them alone (`KILLS=0`)
renews that part of the card and leaves the other as it is.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench.harness import commit, machine
from tests.faults.kills import RECOVERED_S, Kills

__all__ = ["Card", "Seeds", "write"]

ROOT = Path(__file__).parents[2]
FAILURES_NAMED = 20
OUTCOMES = {
    "refused": "damage that no disk can mend: the start was refused",
    "found_by_verify": "damage in front of the snapshot that a start used, found by `byline journal verify`",
    "told": "the last group gone without a trace (a lying disk, a damaged end), known to the clients that were told",
    "damaged_snapshot": "damaged snapshots that a start passed over, for an older one or for the first record",
    "snapshot": "snapshots begun",
    "snapshot_failed": "snapshots that failed",
    "snapshot_whole": "snapshots that got their names, by production's writer once the journal was durable up to them",
    "told_busy": "orders and money told `busy` by a full queue",
    "passed_others": "cancels and the like taken while others were told `busy`",
    "short_queue": "worlds with a short queue, all of them whole",
    "overloaded": "of these, worlds in which at least 24 orders were told `busy`, and 8 cancels taken meanwhile",
    "receipts": "signed receipts of clients, verified, and compared with the journal and with the state replayed",
}


@dataclass
class Seeds:
    """Sums over the seeds of the simulator."""

    count: int = 0
    first: int = 0
    commands: int = 0
    virtual_s: float = 0.0
    faults: Counter[str] = field(default_factory=Counter)
    """Each once, and nothing else."""
    slowest_recovery_s: float = 0.0
    failures: list[str] = field(default_factory=list)
    seconds: float = 0.0
    pace: dict[str, float] = field(default_factory=dict)
    """`tests.simulation.budget.pace`."""
    outcomes: Counter[str] = field(default_factory=Counter)
    """What came of damage, and of snapshots."""


@dataclass
class Card:
    """One run."""

    command: str
    seeds: Seeds
    kills: Kills
    pause_s: float
    """How long what was stopped stayed so."""

    def parts(self) -> dict[str, dict[str, Any]]:
        """`seeds` and `kills`, those of them that were run."""
        kills, seeds = self.kills, self.seeds
        found: dict[str, dict[str, Any]] = {}
        run = {
            "command": self.command, "commit": commit(), "machine": machine(),
            "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        }  # fmt: skip
        if seeds.count:
            found["seeds"] = {
                **run, "failures": seeds.failures,
                "run": seeds.count, "first": seeds.first, "commands_checked": seeds.commands,
                "virtual_seconds": round(seeds.virtual_s, 1), "faults": dict(sorted(seeds.faults.items())),
                "outcomes": dict(sorted(seeds.outcomes.items())),
                "slowest_recovery_s": round(seeds.slowest_recovery_s, 3), "seconds": round(seeds.seconds, 1),
                **seeds.pace,
            }  # fmt: skip
        if kills.faults or kills.failures:
            stops = sum(count for fault, count in kills.faults.items() if fault.startswith("stop"))
            found["kills"] = {
                **run, "failures": kills.failures,
                "run": sum(kills.faults.values()), "killed": sum(kills.faults.values()) - stops, "stopped": stops,
                "faults": dict(sorted(kills.faults.items())),
                "journal_commands_replayed": kills.commands, "orders_checked": kills.requests,
                "orders_acknowledged": kills.acked, "unknown_outcomes_resolved": dict(sorted(kills.resolved.items())),
                "fills_checked": kills.fills, "money_commands_checked": kills.refs,
                "money_commands_sent_again": kills.refs_again, "orders_ended_with_their_session": kills.ended,
                "withdrawals_paid": kills.withdrawn,
                "deposits_booked": kills.deposited, "starts_of_the_core_struck": kills.starts,
                "starts_from_a_snapshot": kills.from_snapshots, "segments_filled": kills.segments,
                "records_restored_from_backups": kills.restored,
                "batch_transactions_found_in_backups": kills.backed,
                "slowest_recovery_of_the_core_by_fault_s": dict(sorted(kills.core_s.items())),
                "slowest_up_again_s": {fault: max(times) for fault, times in sorted(kills.recovery_s.items())},
                "pause_s": self.pause_s, "slowest_recovery_of_the_core_s": kills.replay_s,
                "seconds": round(kills.seconds, 1),
            }  # fmt: skip
        return found


def write(card: Card, folder: Path) -> tuple[Path, Path]:
    """Writes report-card.json and report-card.md into `folder`; the parts that were not run stay as they are there."""
    numbers, page = folder / "report-card.json", folder / "report-card.md"
    told = (json.loads(numbers.read_text()) if numbers.exists() else {}) | card.parts()
    numbers.write_text(json.dumps(told, indent=2) + "\n")
    page.write_text(_page(told))
    return page, numbers


def _page(told: dict[str, dict[str, Any]]) -> str:
    failures = [text for part in told.values() for text in part["failures"]]
    lines = [
        "# Report card",
        "",
        "What the simulator and real kills did to the exchange, and what they found. Written by the commands named",
        "here, from the numbers in [report-card.json](report-card.json). Scenarios: [faults.md](faults.md).",
        "",
        f"Violations: **{len(failures)}**",
        "",
    ]
    if "seeds" in told:
        lines += _seeds_page(told["seeds"])
    if "kills" in told:
        lines += _kills_page(told["kills"])
    lines += ["## Violations", ""]
    lines += [f"- {text}" for text in failures[:FAILURES_NAMED]] or ["None."]
    return "\n".join(lines) + "\n"


def _seeds_page(seeds: dict[str, Any]) -> list[str]:
    return [
        "## Seeds of the simulator",
        "",
        f"    {seeds['command']}",
        "",
        "| | |",
        "|---|---|",
        f"| seeds | {seeds['run']:,}, from {seeds['first']:,}; "
        f"{seeds['virtual_seconds']:,.0f} virtual seconds in {seeds['seconds']:,.0f} s |",
        _pace(seeds),
        f"| commands checked by the auditor | {seeds['commands_checked']:,} |",
        f"| faults injected | {sum(seeds['faults'].values()):,} |",
        f"| slowest recovery of the core | {seeds['slowest_recovery_s']} s |",
        *_run(seeds),
        "",
        "| fault | times |",
        "|---|---|",
        *(f"| {kind} | {count:,} |" for kind, count in seeds["faults"].items()),
        "",
        "Those that begin with `chain_` are of settlement's worlds. What came of damage, and of snapshots:",
        "",
        "| outcome | times |",
        "|---|---|",
        *(f"| {OUTCOMES[kind]} | {count:,} |" for kind, count in seeds["outcomes"].items()),
        "",
    ]


def _kills_page(kills: dict[str, Any]) -> list[str]:
    resolved = ", ".join(f"{count:,} {kind}" for kind, count in kills["unknown_outcomes_resolved"].items())
    return [
        "## Kills of real processes",
        "",
        f"    {kills['command']}",
        "",
        "| | |",
        "|---|---|",
        f"| processes killed (SIGKILL) | {kills['killed']:,} times{_in_starts(kills)} |",
        f"| processes stopped for a while (SIGSTOP) | {kills['stopped']:,} times; with the kills "
        f"{kills['seconds']:,.0f} s |",
        f"| orders whose true outcome was compared with what was told | {kills['orders_checked']:,}, "
        f"{kills['orders_acknowledged']:,} of them acknowledged |",
        "| orders, and money commands (ref), without an answer, resolved | "
        f"{sum(kills['unknown_outcomes_resolved'].values()):,}: {resolved or 'none'} |",
        "| starts of the core from a snapshot; segments of the journal that were filled | "
        f"{kills['starts_from_a_snapshot']:,}; {kills['segments_filled']:,} |",
        f"| orders that went with the session they were to end with | {kills['orders_ended_with_their_session']:,}; "
        "none of that kind stayed, or was filled in a later life of the core |",
        f"| fills told to their owners, compared with the journal both ways | {kills['fills_checked']:,} |",
        f"| money commands that acted once, and as was told, or not at all | {kills['money_commands_checked']:,}, "
        f"{kills['money_commands_sent_again']:,} of them sent again after a lost answer |",
        f"| withdrawals that the embedded chain paid, each once and with its record | {kills['withdrawals_paid']:,} |",
        f"| deposits on the embedded chain, each booked once | {kills['deposits_booked']:,} |",
        "| vaults | hold what is owed, by the chain and the journal alone, behind each fault and at the end |",
        f"| records that backups held when their exchange had stopped | {kills['records_restored_from_backups']:,}: "
        "each journal to its last record |",
        "| transactions of batches that the embedded chain had when everything was killed | "
        f"{kills['batch_transactions_found_in_backups']:,}, each with its cut in the backup by then |",
        f"| slowest recovery of the core | {kills['slowest_recovery_of_the_core_s']} s |",
        *_run(kills),
        "",
        "| fault | times | the core's slowest recovery | slowest until every process was up and order entry answered |",
        "|---|---|---|---|",
        *(f"| {fault} | {count} | {_core(kills, fault)} | {kills['slowest_up_again_s'].get(fault, 0)} s |"
          for fault, count in kills["faults"].items()),
        "",
        f"The core's recovery is by its own count, and more than {RECOVERED_S:g} s of it are a failure of the run. In",
        "the last column are the supervisor's pause, the starts of all processes and the first cancels too, beside",
        "seeds on all cores.",
        "",
        "`kill`: SIGKILL; `twice`: again in the start that follows; `all`: SIGKILL of all, "
        "`unshipped`: while the backup, stopped before, lacks a batch; "
        f"`stop`: SIGSTOP for {kills['pause_s']:g} seconds, then SIGCONT.",
        "",
    ]  # fmt: skip


def _core(kills: dict[str, Any], fault: str) -> str:
    seconds = kills["slowest_recovery_of_the_core_by_fault_s"].get(fault)
    return "–" if seconds is None else f"{seconds} s"


def _in_starts(kills: dict[str, Any]) -> str:
    struck = kills["starts_of_the_core_struck"]
    return f", and {struck:,} times more a core that was starting, before it was ready" if struck else ""


def _run(part: dict[str, Any]) -> list[str]:
    return [
        f"| commit | `{part['commit']}` |",
        f"| machine | {part['machine']} |",
        f"| finished | {part['finished']} |",
    ]


def _pace(seeds: dict[str, Any]) -> str:
    return (
        f"| a seed | {seeds['cpu_s_median']} s of one core in the median (95 of 100 under {seeds['cpu_s_p95']} s, "
        f"{seeds['over_1_s']:,} of all over 1 s, the longest {seeds['cpu_s_max']} s) for at least "
        f"{seeds['virtual_s_min']} virtual seconds; damage that no disk can mend ended "
        f"{seeds['ended_by_detected_damage']:,} of them before |"
    )
