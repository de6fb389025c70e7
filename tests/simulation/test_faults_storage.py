"""F1, F3–F8, F10, F13–F17: what a disk can do to journal and snapshots, by the journal of a whole exchange."""

from __future__ import annotations

import errno
import itertools
import random
import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from engine.messages.errors import JournalCorrupt, JournalFailed
from persistence import ring, segments
from persistence.evidence import check_durable
from persistence.journal import MARK
from persistence.segments import HEADER_BYTES, Tail
from persistence.snapshot import read_snapshot
from tests.simulation.disk import FaultyDisk
from tests.simulation.storage import Written, disk_of, recovered, written
from tests.simulation.test_journal_simulated import written as plain_journal
from tests.simulation.traders import place
from tests.simulation.world import SECOND, Fault, Plan, prepared, run_seed
from tests.support.disk import SECTOR, SimulatedDisk

RECORDS, SLOT = 200, 128


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Written:
    """One segment of a few hundred records."""
    found = written(tmp_path_factory.mktemp("small"), seed=1, duration_ms=16_000)
    assert len([path for path in found.files if path.endswith(segments.SUFFIX)]) == 1
    return found


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Written:
    """Several segments, and snapshots in between."""
    faults = tuple(Fault(at, "snapshot", 2) for at in (6_000, 14_000, 30_000, 45_000))
    found = written(tmp_path_factory.mktemp("large"), seed=9, duration_ms=60_000, faults=faults)
    assert len([path for path in found.files if path.endswith(segments.SUFFIX)]) >= 2
    assert len([path for path in found.files if path.endswith(".snapshot")]) >= 2
    return found


def _scan(disk: SimulatedDisk) -> Tail:
    return segments.scan(disk, segments.list_segments(disk))


def test_f01_journal_cut_at_every_byte_recovers_a_prefix(small: Written, tmp_path: Path) -> None:
    """Each cut as a torn write leaves it (zeros behind) and as a short file."""
    path = small.last
    whole = small.files[path]
    disk = disk_of(small.files)
    node = disk.files[path]
    ends = _slot_ends(whole, RECORDS)
    count = 0
    for cut in range(ends[-1] + 1):
        node.cached[:] = whole[: HEADER_BYTES + cut] + bytes(len(whole) - HEADER_BYTES - cut)
        tail = _scan(disk)
        while count + 1 < len(ends) and ends[count + 1] <= cut:
            count += 1
        assert tail.sequence >= count, f"cut at {cut}"
        if tail.sequence > count:  # the record's last bytes are zero anyway
            assert whole[HEADER_BYTES + cut : HEADER_BYTES + ends[tail.sequence]].strip(b"\0") == b""
        if cut % 997 == 0:
            node.cached[:] = whole[: HEADER_BYTES + cut]
            with pytest.raises(JournalCorrupt, match="its header says"):
                _scan(disk)
    for cut in random.Random(1).sample(range(ends[-1]), 25):  # with the engine behind
        torn = disk_of(small.files | {path: whole[: HEADER_BYTES + cut] + bytes(len(whole) - HEADER_BYTES - cut)})
        with _closing(recovered(torn, tmp_path / str(cut))) as again:
            assert again.core.state_hash() == small.hashes[again.report.sequence]
            assert again.report.sequence >= max(n for n, end in enumerate(ends) if end <= cut)


def test_f03_any_subset_of_sectors_of_the_last_write_recovers_a_prefix(tmp_path: Path) -> None:
    disk = SimulatedDisk()
    before = plain_journal(disk, 40, 40)[-1]
    path = segments.segment_name(1)
    old = bytes(disk.files[path].cached)
    disk = SimulatedDisk()
    plain_journal(disk, 72, 40)  # a second group of 32 records: eight sectors
    new = bytes(disk.files[path].cached)
    first = (HEADER_BYTES + 40 * SLOT) // SECTOR
    sectors = [n for n in range(first, len(new) // SECTOR) if new[n * SECTOR :][:SECTOR].strip(b"\0")]
    assert len(sectors) == 8
    for landed in itertools.product([False, True], repeat=len(sectors)):
        torn = bytearray(old)
        for sector, has in zip(sectors, landed, strict=True):
            if has:
                torn[sector * SECTOR : (sector + 1) * SECTOR] = new[sector * SECTOR :][:SECTOR]
        disk.files[path].cached[:] = torn
        tail = _scan(disk)
        whole = len(list(itertools.takewhile(bool, landed)))
        assert before <= tail.sequence <= 72 and (tail.sequence == 72) == all(landed)
        assert tail.sequence >= before + max(0, whole - 1) * SECTOR // SLOT


def test_f04_every_single_flipped_bit_is_detected_or_harmless() -> None:
    """Header, every byte of 200 records and a stretch of the zeros behind: 238,000 flips.

    Each flip of the header and one of each byte goes through the whole scan, each flip of a record through its check.
    In the last group no later record proves that it was synced: there the shorter end is found by the writer's mark.
    """
    disk = SimulatedDisk()
    plain_journal(disk, RECORDS, 20)
    node, draw = disk.files[segments.segment_name(1)], random.Random(4)
    last_group, end = HEADER_BYTES + (RECORDS - 20) * SLOT, HEADER_BYTES + RECORDS * SLOT
    raw = np.frombuffer(node.cached, np.uint8)[HEADER_BYTES:]
    chain = segments.first_chain(bytes(range(16)))
    found = 0
    for byte in range(end + 2 * SLOT):
        chosen = draw.randrange(8)
        for bit in range(8):
            node.cached[byte] ^= 1 << bit
            if HEADER_BYTES <= byte < end:
                _, sequence, _, why = ring.scan_records(raw, 0, RECORDS, RECORDS, 0, chain)
                assert why and sequence == (byte - HEADER_BYTES) // SLOT
                found += 1
            if byte < HEADER_BYTES or byte >= end or bit == chosen:
                found += byte < HEADER_BYTES or byte >= end
                _flipped(disk, byte, last_group, end)
            node.cached[byte] ^= 1 << bit
    assert found == 8 * (end + 2 * SLOT) and _scan(disk).sequence == RECORDS


def _flipped(disk: SimulatedDisk, byte: int, last_group: int, end: int) -> None:
    if byte >= end:
        tail = _scan(disk)
        assert tail.sequence == RECORDS and tail.torn_bytes, "garbage behind the end is cut, and told"
    elif byte >= last_group:
        tail = _scan(disk)
        assert tail.sequence == (byte - HEADER_BYTES) // SLOT and tail.torn_bytes
        with pytest.raises(JournalCorrupt, match="was durable"):
            check_durable(tail, RECORDS)
    else:
        with pytest.raises(JournalCorrupt):
            _scan(disk)


@pytest.mark.parametrize("slots", [0, 2, 3, 127, 255])
def test_f05_a_wrong_length_is_found_and_takes_no_memory(small: Written, slots: int) -> None:
    disk = disk_of(small.files)
    node = disk.files[small.last]
    at = HEADER_BYTES + 50 * SLOT
    node.cached[at + 5] = slots
    for with_checksum in (False, True):
        if with_checksum and slots:
            stored = ring.crc32c(bytes(node.cached[at + 4 : at + slots * SLOT]))
            node.cached[at : at + 4] = struct.pack("<I", stored)
        tracemalloc.start()
        with pytest.raises(JournalCorrupt):
            _scan(disk)
        assert tracemalloc.get_traced_memory()[1] < 4_000_000
        tracemalloc.stop()


@pytest.mark.parametrize("value", [0, 1, 2**31, 2**63, 2**64 - 1])
@pytest.mark.parametrize("field", [88, 96])
def test_f05_a_header_that_states_absurd_sizes_is_refused(large: Written, field: int, value: int) -> None:
    disk = disk_of(large.files)
    node = disk.files[large.last]
    if struct.unpack_from("<Q", node.cached, field)[0] == value:
        pytest.skip("it states just that")
    struct.pack_into("<Q", node.cached, field, value)
    struct.pack_into("<I", node.cached, HEADER_BYTES - 4, ring.crc32c(bytes(node.cached[: HEADER_BYTES - 4])))
    tracemalloc.start()
    with pytest.raises(JournalCorrupt):
        _scan(disk)
    assert tracemalloc.get_traced_memory()[1] < 4_000_000
    tracemalloc.stop()


def test_f06_misdirected_and_old_blocks_are_detected(large: Written) -> None:
    draw = random.Random(6)
    paths = [path for path in large.files if path.endswith(segments.SUFFIX)]
    for _ in range(1_500):
        disk = disk_of(large.files)
        path = draw.choice(paths)
        node, source = disk.files[path], large.files[draw.choice(paths)]
        used = len(large.files[path].rstrip(b"\0")) // SECTOR
        to, of = draw.randrange(used), draw.randrange(len(source.rstrip(b"\0")) // SECTOR)
        block = source[of * SECTOR :][:SECTOR]
        if node.cached[to * SECTOR :][:SECTOR] == block:
            continue
        node.cached[to * SECTOR : (to + 1) * SECTOR] = block
        try:
            tail = _scan(disk)
        except JournalCorrupt:
            continue
        assert path == large.last and tail.sequence < len(large.hashes) - 1, "only the last group may end earlier"
        with pytest.raises(JournalCorrupt):
            check_durable(tail, len(large.hashes) - 1)


def test_f07_valid_records_behind_a_hole_stop_the_start(large: Written, tmp_path: Path) -> None:
    for path in [path for path in large.files if path.endswith(segments.SUFFIX)]:
        used = len(large.files[path].rstrip(b"\0"))
        for at in range(HEADER_BYTES, used - 8 * SECTOR, 7 * SECTOR):
            files = dict(large.files)
            files[path] = files[path][:at] + bytes(SECTOR) + files[path][at + SECTOR :]
            disk = disk_of(files)
            with pytest.raises(JournalCorrupt, match="but|continue"):
                recovered(disk, tmp_path)
            assert bytes(disk.files[path].cached) == files[path], "nothing was cut, nothing skipped"


def test_f08_a_tail_that_a_lying_disk_lost_is_known_by_those_who_were_told() -> None:
    detected = 0
    for seed in range(12):
        result = run_seed(seed, plan=Plan(seed, (Fault(9_000, "lie", seed),), duration_ms=20_000))
        assert not result.violations, result.failure
        detected += result.outcome in ("told", "refused")
    assert detected >= 2


def test_f08_a_client_that_was_told_more_than_there_is_now_is_told_so(tmp_path: Path) -> None:
    with prepared(Plan(8, (), has_hostile=False), tmp_path) as world:
        trader = world.traders[0].client
        world.disk.lies = 10_000
        for number in range(5):
            place(trader, f"x{number}")
            world.schedule.run(world.schedule.now_ns + SECOND)
        seen, answers = trader.seen, []
        trader.on_answer = lambda request, answer: answers.append(answer)
        world.is_damaged = True
        for node in world.disk.files.values():
            node.cached = bytearray(node.stored)  # the power fails, and nothing of what was not stored survives
            node.dirty.clear()
        (tmp_path / MARK).unlink()  # which nobody ever synced
        world._judge_damaged = lambda found: None  # type: ignore[method-assign]  # it is the client that finds out
        world._died("power")
        world.schedule.run(world.schedule.now_ns + 8 * SECOND)
        assert world.process is not None and world.process.core.sequence < seen
        assert trader.refused_resumes == ["a sequence that has been"]
        world.auditor.check_journal(world._journal_files())
        assert {violation.invariant for violation in world.auditor.violations} == {"I3"}


def test_f13_a_half_written_or_damaged_snapshot_gives_way_to_an_older_one(large: Written, tmp_path: Path) -> None:
    snapshots = sorted(path for path in large.files if path.endswith(".snapshot"))
    newest = large.files[snapshots[-1]]
    draw = random.Random(13)
    damaged = [newest[:size] for size in (0, 1, 64, 127, 128, 129, len(newest) // 2, len(newest) - 1)]
    for bit in draw.sample(range(len(newest) * 8), 12):
        flipped = bytearray(newest)
        flipped[bit // 8] ^= 1 << bit % 8
        damaged.append(bytes(flipped))
    for number, data in enumerate(damaged):
        directory = tmp_path / str(number)
        disk = disk_of(large.files | {snapshots[-1]: data})
        with _closing(recovered(disk_of(large.files), directory, 7)):
            pass  # leaves an event log of this boot, so that a snapshot is worth its while
        with _closing(recovered(disk, directory, 7)) as again:
            assert again.core.state_hash() == large.hashes[-1]
            assert again.report.snapshot_sequence == int(snapshots[-2].rpartition("/")[2].split(".")[0])
            assert len(again.report.damaged_snapshots) == 1
        assert bytes(disk.files[snapshots[-1]].cached) == data, "the damaged one is left as it was"


@pytest.mark.parametrize("death", ["kill", "power"])
def test_f14_a_crash_at_any_operation_of_snapshot_and_roll_applies_nothing_twice(death: str) -> None:
    """A snapshot is begun, and the machine dies 1 … 24 operations later, among the records and rolls that follow."""
    for operations in range(1, 25, 2 if death == "kill" else 1):
        faults = (
            Fault(3_000, "snapshot", 2), Fault(6_000, "snapshot", 2), Fault(6_000, f"{death}_in_disk", operations),
            Fault(9_000, death, 1),
        )  # fmt: skip
        result = run_seed(14, plan=Plan(14, faults, duration_ms=10_000))
        assert not result.violations and result.recoveries >= 1, result.failure


def test_f16_other_formats_and_missing_segments_are_refused_with_their_reason(large: Written, tmp_path: Path) -> None:
    paths = sorted(path for path in large.files if path.endswith(segments.SUFFIX))
    for at, field in ((8, "format"), (12, "layout")):
        for version in (0, 2, 99):
            disk = disk_of(large.files)
            struct.pack_into("<I", disk.files[paths[0]].cached, at, version)
            with pytest.raises(JournalCorrupt, match=f"{field} {version}.*this build reads"):
                recovered(disk, tmp_path)
    for path in paths[:-1]:
        with pytest.raises(JournalCorrupt, match="missing|continue"):
            recovered(disk_of({name: data for name, data in large.files.items() if name != path}), tmp_path)
    snapshot = max(path for path in large.files if path.endswith(".snapshot"))
    for version in (0, 2, 4):
        data = bytearray(large.files[snapshot])
        struct.pack_into("<I", data, 8, version)
        disk = disk_of(large.files | {snapshot: bytes(data)})
        with pytest.raises(ValueError, match=f"format {version}; this build reads"):
            read_snapshot(disk, snapshot)
    with _closing(recovered(disk_of(large.files), tmp_path)) as again:
        assert again.core.state_hash() == large.hashes[-1]


def test_f17_no_name_is_lost_that_something_rests_on(tmp_path: Path) -> None:
    """A loss of power right after the first acks: journal, key registry and snapshots are found under their names."""
    for seed in range(30):
        with prepared(Plan(seed, (), traders=2, has_hostile=False), tmp_path / str(seed)) as world:
            world._died("power")
            world.schedule.run(world.schedule.now_ns + 5 * SECOND)
            assert not world.auditor.violations, world.auditor.violations
            assert world.process is not None and len(world.process.keys) == 4, "operator, two traders, the observer"


def test_a_failed_sync_then_a_kill_then_a_loss_of_power_lose_nothing(tmp_path: Path) -> None:
    """The kernel takes its pages for clean after it has told of the error once: a start must write them again."""
    for seed in range(20):
        disk = FaultyDisk(seed)
        with _closing(recovered(disk, tmp_path / f"{seed}a", boot=1)) as first:
            disk.fail["sync"] = (2, 5)
            for sequence in range(1, 7):
                first.journal.append(_tick(sequence))
                first.journal.publish()
                first.journal.step()
            assert first.journal.failed
        with _closing(recovered(disk, tmp_path / f"{seed}a", boot=1)) as second:
            told = second.report.sequence
            second.journal.append(_tick(told + 1))
            second.journal.publish()
            assert second.journal.step() == ring.WROTE
        disk.revive("power")
        with _closing(recovered(disk, tmp_path / f"{seed}b", boot=2)) as third:
            assert third.report.sequence == told + 1


@pytest.mark.parametrize("operation", ["open", "rename", "sync_directory", "read"])
def test_f10_f15_a_name_or_a_read_that_fails_in_a_start_is_told_and_costs_nothing(
    large: Written, tmp_path: Path, operation: str
) -> None:
    """Each such operation of a start in turn: it raises, or its journal takes nothing; the start behind it is whole."""
    told = 0
    for passes in itertools.count():
        disk = disk_of(large.files, passes)
        disk.fail[operation] = passes, errno.EIO
        try:
            with _closing(recovered(disk, tmp_path / f"{passes}a", boot=1)) as first:
                if operation in disk.fail:
                    break  # a start has no more of them
                assert first.journal.failed == errno.EIO and first.journal.status == "failed"
        except (OSError, JournalFailed) as error:
            assert operation not in disk.fail, error
        told += 1
        disk.revive("power" if passes % 2 else "kill")
        with _closing(recovered(disk, tmp_path / f"{passes}b", boot=2)) as second:
            assert second.core.state_hash() == large.hashes[-1] and not second.journal.failed
    assert told >= {"open": 5, "rename": 1, "sync_directory": 2, "read": 5}[operation]


@pytest.mark.parametrize("operation", ["open", "rename", "sync_directory"])
def test_f10_f17_a_name_that_fails_in_a_roll_stops_the_journal_and_loses_nothing(
    tmp_path: Path, operation: str
) -> None:
    """Each such operation of two changes of segment in turn. It is told once, and nothing is tried again."""
    stopped = 0
    for passes in itertools.count():
        disk = FaultyDisk(passes)
        with _closing(recovered(disk, tmp_path / f"{passes}a", boot=1)) as first:
            disk.fail[operation] = passes, errno.EIO
            for sequence in range(1, 1_200):
                first.journal.append(_tick(sequence))
                if sequence % 50 == 0:
                    first.journal.publish()
                    first.journal.step()
            if operation in disk.fail:
                assert not first.journal.failed
                break  # two rolls have no more of them
            assert first.journal.failed == errno.EIO
            durable, groups = first.journal.durable_sequence, first.journal.group_count
            first.journal.step()
            assert (first.journal.durable_sequence, first.journal.group_count) == (durable, groups)
        stopped += 1
        disk.revive("power" if passes % 2 else "kill")
        with _closing(recovered(disk, tmp_path / f"{passes}b", boot=2)) as second:
            assert second.report.sequence >= durable > 0 and not second.journal.failed
    assert stopped >= 2


def test_what_a_start_found_is_durable_before_it_is_told(tmp_path: Path) -> None:
    """kill -9 between write and sync, a start that tells of the record, then a loss of power: the record stays."""
    for seed in range(20):
        disk = FaultyDisk(seed)
        with _closing(recovered(disk, tmp_path / f"{seed}a", boot=1)) as first:
            first.journal.append(_tick(1))
            first.journal.publish()
            disk.die_in = 2  # in the sync
            first.journal.step()
            disk.revive("kill")
        with _closing(recovered(disk, tmp_path / f"{seed}a", boot=1)) as second:
            assert second.report.sequence == 1
        disk.revive("power")
        with _closing(recovered(disk, tmp_path / f"{seed}b", boot=2)) as third:
            assert third.report.sequence == 1


def _tick(sequence: int) -> bytearray:
    record = bytearray(SLOT)
    record[4], record[5] = 21, 1
    struct.pack_into("<Qq", record, 8, sequence, sequence * 1_000)
    return record


def _slot_ends(data: bytes, count: int) -> list[int]:
    """Byte behind each of the first `count` records, from the end of the header; the first is 0."""
    ends = [0]
    for _ in range(count):
        width = data[HEADER_BYTES + ends[-1] + 5]
        if not width:
            break
        ends.append(ends[-1] + width * SLOT)
    assert len(ends) == count + 1, f"{len(ends)} records"
    return ends


class _closing:
    """`with` for what recovery gives; the disk may be dead."""

    def __init__(self, found) -> None:  # type: ignore[no-untyped-def]
        self.found = found

    def __enter__(self):  # type: ignore[no-untyped-def]
        return self.found

    def __exit__(self, *_: object) -> None:
        self.found.event_log.close()
        self.found.lock.release()
