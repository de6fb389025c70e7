"""A second core beside the writing one: the same states at the same cuts, and what differs is named."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from engine.messages.codes import CommandKind
from engine.messages.errors import JournalCorrupt, Unavailable
from persistence import segments
from persistence.disk import DirectoryDisk
from persistence.event_log import EventLogReader
from persistence.recovery import recover
from persistence.second_core import SecondCore
from settlement.audit import check_cut
from settlement.ledger import Cut, Disagreement, Ledger
from settlement.netting import Netting
from tests.unit.persistence.test_recovery import SETTINGS, feed, workload


class Audit:
    def __init__(self, core: SecondCore) -> None:
        self.core = core

    async def at_cut(self, sequence: int) -> tuple[bytes, np.ndarray]:
        return self.core.at_cut(sequence)


def _with_cuts(slots: np.ndarray, every: int) -> tuple[np.ndarray, list[tuple[int, int]]]:
    """The records with a cut after each `every`, numbered anew; sequence and end (slot) of each cut."""
    parts, ends, sequence, at, length = [], [], 0, 0, 0
    while at < len(slots):
        size = int(slots["slots"][at])
        sequence += 1
        record = slots[at : at + size].copy()
        record["sequence"][0] = sequence
        parts.append(record)
        at, length = at + size, length + size
        if sequence % every == 0:
            sequence, length = sequence + 1, length + 1
            cut = np.zeros(1, slots.dtype)
            cut["kind"], cut["slots"], cut["sequence"], cut["ts"] = CommandKind.CUT, 1, sequence, record["ts"][0]
            parts.append(cut)
            ends.append((sequence, length))
    return np.concatenate(parts), ends


def test_beside_the_writer_it_has_the_same_state_and_the_books_agree(tmp_path: Path) -> None:
    slots, cuts = _with_cuts(workload()[:12_000], 3_000)
    running = recover(tmp_path, settings=SETTINGS)
    second = SecondCore(DirectoryDisk(tmp_path))
    source, ledger, netting, at = EventLogReader(tmp_path / "events"), Ledger(), Netting(pay_pending=False), 0
    source.seek(0)
    seen: list[Cut] = []
    for sequence, end in cuts:
        with pytest.raises(Unavailable, match=f"before sequence {sequence}"):
            second.at_cut(sequence)
        at = feed(running, slots, at, end)
        expected = running.core.balances()
        at = feed(running, slots, at, min(at + 500, len(slots)))  # the writer is further than the question
        for cut in ledger.feed(source.read(1 << 24)):
            asyncio.run(check_cut(Audit(second), cut, ledger))
            balances = second.at_cut(sequence)[1]
            assert cut.last_sequence == sequence and len(balances) > 100 and (balances == expected).all()
            for wrong, text in (
                (replace(cut, state_hash=bytes(16)), "the running core had 0000"),
                (replace(cut, state_hash=cut.state_hash[:-1] + bytes([cut.state_hash[-1] ^ 1])), "the journal gives"),
            ):
                with pytest.raises(Disagreement, match=text):
                    asyncio.run(check_cut(Audit(second), wrong, ledger))
            for unit in (1, -1):
                ledger.totals[7, 0] += unit
                with pytest.raises(Disagreement, match=f"account {ledger.accounts[7].name} has .* by the events"):
                    asyncio.run(check_cut(Audit(second), cut, ledger))
                ledger.totals[7, 0] -= unit
            netting.seal(ledger, cut, 0)
            ledger.start_period()
            seen.append(cut)
    assert [cut.last_sequence for cut in seen] == [sequence for sequence, _ in cuts] and len(cuts) >= 3
    with pytest.raises(ValueError, match="is passed"):
        second.at_cut(cuts[0][0])
    feed(running, slots, at, len(slots))
    with pytest.raises(JournalCorrupt, match="is no cut"):
        second.at_cut(cuts[-1][0] + 1)
    running.close()


def test_threads_that_ask_at_once_get_one_answer_and_a_closed_one_gives_none(tmp_path: Path) -> None:
    slots, cuts = _with_cuts(workload()[:8_000], 4_000)
    running = recover(tmp_path, settings=SETTINGS)
    feed(running, slots, 0, cuts[0][1])
    expected = running.core.balances()
    second = SecondCore(DirectoryDisk(tmp_path))
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(second.at_cut, [cuts[0][0]] * 8))
    assert all(state == answers[0][0] and (balances == expected).all() for state, balances in answers)
    running.close()
    closed = SecondCore(DirectoryDisk(tmp_path))
    closed.close()
    with pytest.raises(Unavailable, match="is closed"):
        closed.at_cut(cuts[0][0])


def test_damage_behind_which_more_is_durable_is_said_at_every_question(tmp_path: Path) -> None:
    slots, cuts = _with_cuts(workload()[:4_000], 1_000)
    running = recover(tmp_path, settings=SETTINGS)
    feed(running, slots, 0, len(slots))
    running.close()
    path = tmp_path / segments.list_segments(DirectoryDisk(tmp_path))[0].path
    data = bytearray(path.read_bytes())
    data[segments.offset_of(cuts[1][1] - 1) + 60] ^= 1
    path.write_bytes(data)
    second = SecondCore(DirectoryDisk(tmp_path))
    assert second.at_cut(cuts[0][0])[0], "what lies before the damage is still good"
    for _ in range(3):
        with pytest.raises(JournalCorrupt, match=f"sequence {cuts[1][0]}: checksum, but sequence"):
            second.at_cut(cuts[2][0])
