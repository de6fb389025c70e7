"""Runs a chain's log again from its first transaction and compares what each wrote with what was written then.

A restart trusts the log; this does not. Signatures, checks and contract run anew over the state that the log had come
to, at the times it names. What must be the same: success, abort code, every object, row, table entry and event. Gas is
told apart, because another executor has another meter: with the model over a log of the VM (or the other way round)
this also holds the two together over whatever has really happened.

Reads only; the node may run meanwhile. Worst case: 20 ms a Move call.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from engine.messages.errors import JournalCorrupt
from settlement.appendlog import AppendLog
from settlement.chain.encoding import address_text, base58_text
from settlement.chain.localsui.node import LocalSui, Rejected
from settlement.chain.localsui.state import Genesis, Record, Turn

__all__ = ["Replayed", "replay"]


@dataclass(slots=True)
class Replayed:
    """`differences`: one line each. `switched`: records that a fault switch made, which nobody signed."""

    executor: str
    transactions: int = 0
    switched: int = 0
    gas_differs: int = 0
    differences: list[str] = field(default_factory=list)


def replay(
    directory: Path, executor: str = "auto", progress: Callable[[int, int], None] | None = None
) -> Replayed:
    """Run the log of the chain in `directory` again. `progress` hears of each entry done, and of how many there are.

    Raises:
        FileNotFoundError: there is no chain.
        JournalCorrupt: the log was begun with other bytecode than is here.
    """
    entries = AppendLog.peek(directory / "transactions.log")
    genesis = msgspec.msgpack.decode(next(entries, b"\xc0"), type=Genesis | None)
    if genesis is None:
        raise FileNotFoundError(f"{directory}: the log is empty")
    with tempfile.TemporaryDirectory() as scratch:
        node = LocalSui(Path(scratch), address_text(genesis.operator), executor=executor)
        try:
            if node.state.genesis != genesis:
                raise JournalCorrupt(f"{directory}: the chain was begun with other bytecode")
            return _run(node, [msgspec.msgpack.decode(entry, type=Record | Turn) for entry in entries], progress)
        finally:
            node.close()


def _run(
    node: LocalSui, entries: list[Record | Turn], progress: Callable[[int, int], None] | None
) -> Replayed:
    told = Replayed(node.executor_name)
    for done, entry in enumerate(entries, 1):
        if progress:
            progress(done, len(entries))
        if isinstance(entry, Turn):
            node.turn = entry
            continue
        if entry.raw:
            told.transactions += 1
            _compare(node, entry, told)
        else:
            told.switched += 1
        node.state.apply(entry, 0)
    return told


def _compare(node: LocalSui, then: Record, told: Replayed) -> None:
    where = f"transaction {then.checkpoint} ({base58_text(then.digest)})"
    try:
        now = node.run_again(then)
    except Rejected as rejected:
        told.differences.append(f"{where}: refused now: {rejected}")
        return
    told.gas_differs += now.gas_mist != then.gas_mist
    for name in Record.__struct_fields__:
        if name not in ("gas_mist", "error") and getattr(_without_gas(now), name) != getattr(_without_gas(then), name):
            told.differences.append(f"{where}: {name} differs")


def _without_gas(record: Record) -> Record:
    """The gas coin comes first among what was written; what it holds depends on the meter."""
    coin, *others = record.written
    return msgspec.structs.replace(record, written=[msgspec.structs.replace(coin, contents=coin.id), *others])
