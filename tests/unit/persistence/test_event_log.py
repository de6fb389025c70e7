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
