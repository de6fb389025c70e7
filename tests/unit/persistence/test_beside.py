"""Reading a journal beside its writer: what is durable is read whole, and its moving end is never taken for damage."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest

from engine.messages.errors import JournalCorrupt, Unavailable
from persistence import segments
from persistence.beside import durable_sequence, read_beside
from persistence.disk import DirectoryDisk, SystemClock
from persistence.journal import MARK, Journal, new_tail
from tests.unit.persistence.test_journal_modes import records, settings

GROUP, COUNT = 23, 1_150  # 544 records a segment: over the ends of two
PAGE = 512


def _journal(root: Path) -> tuple[DirectoryDisk, Journal]:
    disk = DirectoryDisk(root)
    return disk, Journal(disk, new_tail(), SystemClock(), settings("durable"), threads=False)


def _write(journal: Journal, first: int) -> None:
    assert journal.append_all(records(first, GROUP)) == GROUP
    journal.publish()
    while journal.durable_sequence < first + GROUP - 1:
        journal.step()


def _read(disk: DirectoryDisk, to: int, after: int = 0, *, known: bool = False) -> list[int]:
    found: list[int] = []

    def take(slots: np.ndarray, _first: int, _last: int) -> None:
        found.extend(slots["sequence"].tolist())

    read_beside(disk, take, to=to, after=after, known=known)
    return found


def test_every_durable_record_is_read_once_and_nothing_behind_it(tmp_path: Path) -> None:
    disk, journal = _journal(tmp_path)
    with pytest.raises(Unavailable, match="before sequence 1"):
        _read(disk, 1)
    read: list[int] = []
    for first in range(1, COUNT + 1, GROUP):
        _write(journal, first)
        durable = first + GROUP - 1
        assert durable_sequence(disk) == durable
        middle = durable - GROUP // 2
        read += _read(disk, middle, len(read))
        assert read == list(range(1, middle + 1))
        with pytest.raises(Unavailable, match=f"before sequence {durable + 1}: {durable} is durable"):
            _read(disk, durable + 1, len(read))
    assert len(segments.list_segments(disk)) == 3
    journal.close()
    assert _read(disk, COUNT) == list(range(1, COUNT + 1)) and _read(disk, 0) == []


def test_a_group_under_way_in_any_order_of_its_pages_is_no_damage(tmp_path: Path) -> None:
    """Regression: `byline journal publish` took the group that was being written for damage: a record not yet whole
    where it looked first, and the marked record of a later group where it looked next."""
    disk, journal = _journal(tmp_path)
    for first in range(1, 10 * GROUP, GROUP):
        _write(journal, first)
    journal.close()
    path = tmp_path / segments.list_segments(disk)[0].path
    whole, mark = path.read_bytes(), (tmp_path / MARK).read_bytes()
    draw, judged = random.Random(11), 0
    for groups in range(1, 9):
        durable = groups * GROUP
        (tmp_path / MARK).write_bytes(durable.to_bytes(8, "little") + mark[8:])
        begin, end = segments.offset_of(durable), segments.offset_of(durable + 2 * GROUP)  # and one group more
        pages = list(range(begin // PAGE, -(-end // PAGE)))
        draw.shuffle(pages)
        seen = bytearray(whole[:begin] + bytes(len(whole) - begin))
        for page in pages:
            at = max(begin, page * PAGE)
            seen[at : (page + 1) * PAGE] = whole[at : (page + 1) * PAGE]
            path.write_bytes(seen)
            assert _read(disk, durable) == list(range(1, durable + 1))
            assert _read(disk, durable - 7, durable - 9) == [durable - 8, durable - 7]
            with pytest.raises(Unavailable):
                _read(disk, durable + 1)
            try:
                segments.scan(disk, segments.list_segments(disk))
            except JournalCorrupt:
                judged += 1  # what a reader without the mark made of the same bytes
    assert judged > 10


def test_damage_in_what_is_durable_is_named(tmp_path: Path) -> None:
    disk, journal = _journal(tmp_path)
    for first in range(1, 31 * GROUP, GROUP):
        _write(journal, first)
    journal.close()
    durable, listed = 31 * GROUP, segments.list_segments(disk)
    last = tmp_path / listed[-1].path
    whole = last.read_bytes()
    place = segments.offset_of(durable - listed[-1].header.first_sequence)  # the last durable record
    for change, reason in ((whole[place] ^ 1, "checksum"), (None, "checksum")):
        data = bytearray(whole)
        data[place : place + 128] = bytes(128) if change is None else bytes([change]) + whole[place + 1 : place + 128]
        last.write_bytes(data)
        with pytest.raises(JournalCorrupt, match=f"sequence {durable}: {reason}, but sequence {durable} was durable"):
            _read(disk, durable)
        assert _read(disk, durable - 1)[-1] == durable - 1
    last.unlink()
    with pytest.raises(JournalCorrupt, match=f"ends with sequence 544, but {durable} was durable"):
        _read(disk, durable)


def test_without_a_mark_what_is_known_to_be_durable_is_read(tmp_path: Path) -> None:
    disk, journal = _journal(tmp_path)
    _write(journal, 1)
    journal.close()
    (tmp_path / MARK).unlink()
    with pytest.raises(Unavailable, match="0 is durable"):
        _read(disk, GROUP)
    assert _read(disk, GROUP, known=True) == np.arange(1, GROUP + 1).tolist()
    with pytest.raises(JournalCorrupt):
        _read(disk, GROUP + 1, known=True)
