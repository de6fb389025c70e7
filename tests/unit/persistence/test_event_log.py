"""The event log over many small files: everything comes back whole, and from any sequence."""

from __future__ import annotations

import errno
import gc
import os
import random
import threading
from pathlib import Path

import numpy as np
import pytest

from engine.messages import layout
from engine.messages.errors import JournalCorrupt
from persistence.event_log import EventLogReader, EventLogWriter, log_state, published_end


def events(sequence: int, count: int) -> np.ndarray:
    rows = np.zeros(count, layout.EVENT)
    rows["kind"], rows["sequence"], rows["slots"], rows["index"] = 5, sequence, 1, np.arange(count)
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


def publish_by_half(directory: Path, slots: int, sequence: int) -> None:
    """As a SIGKILL between the two stores of a publication leaves the page: the slots moved, the sequence did not."""
    with (directory / "control").open("r+b") as control:
        control.seek(64)
        control.write(slots.to_bytes(8, "little") + sequence.to_bytes(8, "little"))


@pytest.mark.parametrize("count", [3, 1_500, 5_000])
@pytest.mark.parametrize("without_events", [False, True])
def test_a_publication_that_was_killed_half_way_is_a_whole_one(
    tmp_path: Path, count: int, without_events: bool
) -> None:
    """Over blocks and files: the log goes on behind what readers may have seen, and they see each command once."""
    writer = EventLogWriter(tmp_path, b"i" * 16, b"b" * 16, threads=False, file_slots=2_048)
    written = [events(sequence, count) for sequence in range(1, 8)]
    for sequence, rows in enumerate(written[:5], 1):
        assert writer.append(rows.view(np.uint8), sequence) == 0
    writer.publish(2)
    follower, seen = EventLogReader(tmp_path), []
    slots = writer.slot_count
    if without_events:
        assert writer.append(b"", 6) == 0
    publish_by_half(tmp_path, slots, 2)
    seen.append(follower.read().tobytes())
    assert follower.after_sequence == 5, "it has seen them: they are published"
    writer.close()
    kept = published_end(tmp_path)
    assert kept == 5 and (log_state(tmp_path) or ())[3] == 2
    with pytest.raises(ValueError, match="published up to 5, cannot go on at 2"):
        EventLogWriter(tmp_path, b"i" * 16, b"b" * 16, keep_sequence=2, threads=False, file_slots=2_048)
    writer = EventLogWriter(tmp_path, b"i" * 16, b"b" * 16, keep_sequence=kept, threads=False, file_slots=2_048)
    assert (writer.sequence, writer.published_sequence, writer.slot_count) == (5, 5, slots)
    for sequence, rows in enumerate(written[5:], 6):
        assert writer.append_batch(rows.view(np.uint8), sequence, sequence) == 0
    writer.close()
    told = b"".join(rows.tobytes() for rows in written)
    for reader, before in ((follower, seen), (EventLogReader(tmp_path), [])):
        while len(part := reader.read()):
            before.append(part.tobytes())
        assert b"".join(before) == told


@pytest.mark.parametrize("again", [[3], [2, 3], [1]])
def test_a_log_that_tells_a_command_twice_is_refused(tmp_path: Path, again: list[int]) -> None:
    """As an earlier version left it after such a kill: the last command twice, or several."""
    writer = EventLogWriter(tmp_path, b"i" * 16, b"b" * 16, threads=False, file_slots=2_048)
    for sequence in (1, 2, 3):
        assert writer.append_batch(events(sequence, 2).view(np.uint8), sequence, sequence) == 0
    reader = EventLogReader(tmp_path)
    assert len(reader.read()) == 6
    for number, sequence in enumerate(again):
        assert writer.append(events(sequence, 2).view(np.uint8), 4 + number) == 0
        writer.publish(4 + number)
    for follower in (reader, EventLogReader(tmp_path)):
        with pytest.raises(JournalCorrupt, match=rf"event log: sequence={again[0]} at slot=6 follows sequence=3"):
            follower.read()
    writer.close()


def test_a_next_file_that_cannot_be_made_for_any_reason_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of no memory too: taken for a next file, it kept the append turning for ever."""
    writer = EventLogWriter(tmp_path, bytes(16), bytes(16), threads=False, file_slots=2_048)
    assert writer.append_batch(events(1, 2_048).view(np.uint8), 1, 1) == 0

    def no_memory(*_: object) -> None:
        raise MemoryError("no memory")

    monkeypatch.setattr(os, "posix_fallocate", no_memory)
    for sequence in (2, 3):
        assert writer.append(events(sequence, 1).view(np.uint8), sequence) == errno.EIO
    assert "no memory" in str(writer.failure)
    writer.close()
    reader = EventLogReader(tmp_path)
    assert reader.read().tobytes() == events(1, 2_048).tobytes()


def test_a_helper_that_ends_of_anything_stops_the_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = os.posix_fallocate

    def no_memory_aside(descriptor: int, offset: int, size: int) -> None:
        if threading.current_thread().name == "event-log":
            raise MemoryError("no memory")
        whole(descriptor, offset, size)

    monkeypatch.setattr(os, "posix_fallocate", no_memory_aside)
    before = set(threading.enumerate())
    writer = EventLogWriter(tmp_path, bytes(16), bytes(16), file_slots=2_048)
    for thread in set(threading.enumerate()) - before:
        thread.join()
    assert writer.append(events(1, 1).view(np.uint8), 1) == errno.EIO
    assert "no memory" in str(writer.failure)
    writer.close()


def test_a_log_that_nobody_closes_leaves_no_descriptor(tmp_path: Path) -> None:
    """A start that fails, and a crash that a simulation plays: ten thousand of them ran out of descriptors."""

    def left_open() -> list[str]:
        gc.collect()
        descriptors = Path("/proc/self/fd").iterdir()
        return [target for each in descriptors if (target := os.path.realpath(each)).startswith(str(tmp_path))]

    writers = [EventLogWriter(tmp_path / str(number), bytes(16), bytes(16), threads=False) for number in range(20)]
    assert len(left_open()) >= 20
    writers.clear()
    assert left_open() == []
