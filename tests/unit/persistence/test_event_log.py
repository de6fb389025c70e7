"""The event log over many small files: everything comes back whole, and from any sequence."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np

from engine.messages import layout
from persistence.event_log import EventLogReader, EventLogWriter, log_state


def events(sequence: int, count: int) -> np.ndarray:
    rows = np.zeros(count, layout.EVENT)
    rows["kind"], rows["sequence"], rows["slots"] = 5, sequence, 1
    if count >= 4:  # an extension that looks like anything but a head
        rows["slots"][count - 3] = 3
        rows[count - 2 :].view(np.uint8)[:] = sequence % 251
    return rows


def test_every_event_comes_back_from_any_position(tmp_path: Path) -> None:
    draw = random.Random(1)
    writer = EventLogWriter(tmp_path, b"i" * 16, b"b" * 16, file_slots=2048)
    reader = EventLogReader(tmp_path)
    written = [events(s, draw.choice([0, 1, 1, 2, 5]) if s % 3000 else 5000) for s in range(1, 9001)]
    for sequence, rows in enumerate(written, 1):
        assert writer.append(rows.view(np.uint8) if len(rows) else b"", sequence) == 0
    assert len(reader.read()) == 0  # nothing is published yet
    writer.publish(9000)
    parts = []
    while len(part := reader.read(777)):
        parts.append(part.tobytes())
    assert b"".join(parts) == b"".join(rows.tobytes() for rows in written)
    for after in draw.sample(range(8990), 500):
        reader.seek(after)
        following = next(rows for rows in written[after:] if len(rows))
        assert reader.read(1).tobytes().startswith(following.tobytes())
    writer.close()
    assert log_state(tmp_path) == (b"i" * 16, b"b" * 16, 2, 9000)


def test_a_seek_goes_by_what_is_published_however_far_the_writer_is(tmp_path: Path) -> None:
    """A command runs over the edge of an index block; the next is appended, and the index names it, unpublished."""
    writer = EventLogWriter(tmp_path, bytes(16), bytes(16), threads=False, file_slots=8_192)
    for sequence, count in ((1, 1_020), (2, 10), (3, 1)):
        assert writer.append(events(sequence, count).view(np.uint8), sequence) == 0
    writer.publish(2)
    reader = EventLogReader(tmp_path)
    reader.seek(1)
    assert reader.read().tobytes() == events(2, 10).tobytes()
    writer.publish(3)
    assert reader.read().tobytes() == events(3, 1).tobytes()
    writer.close()
