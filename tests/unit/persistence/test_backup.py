"""Shipping a journal and restoring it: the same bytes, in whatever order things stop, and nothing false is taken."""

from __future__ import annotations

import itertools
import os
import random
import shutil
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from byline.processes.office_ports import backup_gate
from engine.messages.errors import DataDirectoryBusy, JournalCorrupt, Refused, SettingsInvalid, Unavailable
from persistence import backup, segments
from persistence import restore as restoring
from persistence.backup import CHUNK_BYTES, Objects, Shipper, segment_of
from persistence.disk import DirectoryDisk, DirectoryLock
from persistence.recovery import Recovered, recover, replay, verify
from persistence.restore import READS_AT_ONCE, identities, restore
from persistence.shipped import Shipped
from persistence.truncate import plan_truncation, truncate
from tests.support.waiting import HANG_S
from tests.unit.persistence.test_recovery import SETTINGS, feed, workload


@pytest.fixture(scope="module")
def slots() -> np.ndarray:
    return workload()[:24_000]


@pytest.fixture
def place(tmp_path: Path) -> str:
    return (tmp_path / "store").as_uri()


@pytest.fixture
def data(tmp_path: Path) -> Path:
    (tmp_path / "data").mkdir()
    return tmp_path / "data"


def shipper(data: Path, place: str) -> Shipper:
    made = Shipper(data, Objects(place))
    made.start()
    return made


def journal_of(data: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((data / "journal").glob("*.journal"))}


def shipped(data: Path, place: str, slots: np.ndarray, seed: int = 0, *, seals: bool = True) -> Recovered:
    """All of `slots` written in groups and shipped in steps between them; the shipper starts anew now and then.

    What is full is sealed at times, all of it with an even seed; or never.
    """
    draw, at = random.Random(seed), 0
    recovered = recover(data, settings=SETTINGS)
    (data / "settlement").mkdir(exist_ok=True)
    (data / "keys").mkdir(exist_ok=True)
    following = shipper(data, place)
    while at < len(slots):
        at = feed(recovered, slots, at, min(len(slots), at + draw.randrange(1, 4000)))
        with (data / "settlement" / "batches.log").open("ab") as log:
            log.write(draw.randbytes(draw.randrange(1, 400_000)))
        (data / "keys" / "epoch").write_text(f"{at}\n")
        if draw.random() < 0.3:
            following = shipper(data, place)
        if draw.random() < 0.8:
            following.step()
        if seals and draw.random() < 0.3:
            following.seal()
    catch_up(following, recovered)
    if seals and seed % 2 == 0:
        following.seal()
    assert following.oldest_waiting_s() == 0.0
    return recovered


def catch_up(following: Shipper, recovered: Recovered) -> None:
    """The writer notes what is durable a moment after it tells of it."""
    following.step()
    while following.sequence < recovered.core.sequence:
        following.step()


@pytest.mark.parametrize("seed", range(4))
def test_what_is_restored_is_the_journal_byte_for_byte(
    data: Path, place: str, slots: np.ndarray, tmp_path: Path, seed: int
) -> None:
    recovered = shipped(data, place, slots, seed)
    expected, core = journal_of(data), recovered.core
    assert len(expected) >= 3
    seen: list[tuple[int, int]] = []
    found = restore(Objects(place), tmp_path / "new", progress=lambda done, total: seen.append((done, total)))
    assert journal_of(tmp_path / "new") == expected
    assert (found.sequence, found.chain, found.segments) == (core.sequence, recovered.journal.chain, len(expected))
    assert seen[-1][0] == seen[-1][1] > 0 and found.read_s > 0 and found.check_s > 0
    assert found.beside == ["keys/epoch", "settlement/batches.log"] and not found.left_out
    for path in found.beside:
        assert (tmp_path / "new" / path).read_bytes() == (data / path).read_bytes()
    recovered.close()

    again = recover(tmp_path / "new", settings=SETTINGS)  # it is a journal that goes on, and is shipped on
    assert again.report.state_hash == core.state_hash()
    following = shipper(tmp_path / "new", place)
    assert following.sequence == core.sequence and following.step() == 0
    again.close()


@pytest.mark.parametrize("what", ["batches", "segments"])
def test_a_restore_beside_a_shipper_that_goes_on(
    data: Path, place: str, slots: np.ndarray, tmp_path: Path, what: str
) -> None:
    """Between head and pieces, and between the list and its parts, the shipper takes away what it has renewed."""
    recovered = recover(data, settings=SETTINGS)
    at = feed(recovered, slots, 0, 600)
    log = data / "settlement" / "batches.log"
    log.parent.mkdir(exist_ok=True)
    log.write_bytes(b"batch 1")
    following = shipper(data, place)
    catch_up(following, recovered)

    class Meanwhile(Objects):
        renewed = 0
        one = threading.Lock()

        def read(self, name: str) -> bytes:
            with self.one:
                return self.read_alone(name)

        def read_alone(self, name: str) -> bytes:
            nonlocal at
            if self.renewed < 3 and (name.endswith(".part") if what == "segments" else "/beside/" in name):
                self.renewed += 1
                if what == "segments":
                    at = feed(recovered, slots, at, 9000)  # more than a segment
                else:
                    with log.open("ab") as file:
                        file.write(b", another")
                catch_up(following, recovered)
                following.seal()
            return super().read(name)

    objects = Meanwhile(place)
    found = restore(objects, tmp_path / "new")
    assert objects.renewed > 1 and (what == "batches" or following.sealed > 0)
    assert (tmp_path / "new" / "settlement" / "batches.log").read_bytes().startswith(b"batch 1")
    assert 0 < found.sequence <= recovered.core.sequence
    recovered.close()
    recover(tmp_path / "new", settings=SETTINGS).close()


def test_parts_are_read_many_at_once_and_used_in_order(
    data: Path, place: str, slots: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A quiet market's segment is of very many, and each is a round trip to the store."""
    monkeypatch.setattr(backup, "PART_BYTES_MAX", 2_048)
    recovered = shipped(data, place, slots, seals=False)
    together = threading.Barrier(READS_AT_ONCE)

    class Far(Objects):
        parts = len(kinds(place)[".part"]) // READS_AT_ONCE * READS_AT_ONCE
        asked = itertools.count()

        def read(self, name: str) -> bytes:
            if name.endswith(".part") and next(self.asked) < self.parts:
                together.wait(HANG_S)  # no answer before all are asked
            return super().read(name)

    assert Far.parts >= 2 * READS_AT_ONCE
    found = restore(Far(place), tmp_path / "new")
    assert found.sequence == recovered.core.sequence and journal_of(tmp_path / "new") == journal_of(data)
    recovered.close()


@pytest.mark.parametrize("seals", [True, False], ids=["sealed", "in parts"])
@pytest.mark.parametrize("where", ["in a part", "in a full segment", "at the end of a segment", "by its time"])
def test_a_point_is_the_last_record_that_stays(
    data: Path, place: str, slots: np.ndarray, tmp_path: Path, where: str, *, seals: bool
) -> None:
    shipped(data, place, slots, seals=seals).close()
    listed = segments.list_segments(DirectoryDisk(data))
    last = verify(data, with_replay=False).sequence
    to = {
        "in a part": last - 5, "in a full segment": 777, "by its time": 9000,
        "at the end of a segment": listed[1].header.first_sequence - 1,
    }[where]  # fmt: skip
    times = {int(row["sequence"]): int(row["ts"]) for row in heads(slots)}
    assert times[to] < times[to + 1]
    point = {"to_ts": times[to + 1] - 1} if where == "by its time" else {"to_sequence": to}
    found = restore(Objects(place), tmp_path / "new", **point)
    assert (found.sequence, found.last_ts) == (to, times[to])
    assert found.left_out == ["keys/epoch", "settlement/batches.log"] and not found.beside
    expected = DirectoryDisk(data)
    truncate(expected, plan_truncation(expected, to))
    core, tail = replay(DirectoryDisk(tmp_path / "new"))
    same, _ = replay(expected)
    assert (core.state_hash(), tail.sequence) == (same.state_hash(), to)
    following = Shipper(tmp_path / "new", Objects(place))
    with pytest.raises(JournalCorrupt, match="Ship it to another place|does not|ends in it"):
        following.start()
    assert shipper(tmp_path / "new", place + "-2").sequence == 0


def positions(slots: np.ndarray) -> list[int]:
    """Where records begin."""
    at, found = 0, []
    while at < len(slots):
        found.append(at)
        at += int(slots["slots"][at])
    return found


def heads(slots: np.ndarray) -> np.ndarray:
    return slots[positions(slots)]


def test_nothing_is_overwritten_and_a_choice_is_asked_for(
    data: Path, place: str, slots: np.ndarray, tmp_path: Path
) -> None:
    with pytest.raises(Unavailable, match="holds no journal"):
        restore(Objects(place), tmp_path / "new")
    shipped(data, place, slots[:3000]).close()
    before = {path: path.read_bytes() for path in data.rglob("*") if path.is_file()}
    with pytest.raises(Refused, match="empty directory"):
        restore(Objects(place), data)
    assert {path: path.read_bytes() for path in before} == before
    (tmp_path / "half" / "keys").mkdir(parents=True)
    (tmp_path / "half" / "keys" / "epoch").write_text("5\n")
    store = Away(place)
    with pytest.raises(Refused, match="is there already"):
        restore(store, tmp_path / "half")
    assert not store.segments, "hours of reading come behind that"
    assert not (tmp_path / "half" / "journal").exists()
    with DirectoryLock(tmp_path / "held" / "lock"), pytest.raises(DataDirectoryBusy):
        restore(Objects(place), tmp_path / "held")
    with pytest.raises(Refused, match="ends with sequence"):
        restore(Objects(place), tmp_path / "far", to_sequence=10**9)
    other = tmp_path / "other"
    other.mkdir()
    shipped(other, place, slots[:200]).close()
    known = identities(Objects(place))
    assert len(known) == 2
    with pytest.raises(Refused, match="--identity"):
        restore(Objects(place), tmp_path / "new")
    for identity in known:
        restore(Objects(place), tmp_path / identity, identity=identity)
    assert journal_of(tmp_path / known[0]) != journal_of(tmp_path / known[1])
    with pytest.raises(SettingsInvalid, match="backup: "):
        Objects("nowhere://x")


class Away(Objects):
    """Every `nth` request is lost, in the order in which they come, and each for the object `lost`."""

    def __init__(self, place: str, nth: int = 1 << 30, lost: str | None = None) -> None:
        super().__init__(place)
        self.requests, self.nth, self.lost = itertools.count(1), nth, lost
        self.given: list[str] = []

    def meet(self, key: str) -> None:
        if next(self.requests) % self.nth == 0 or key == self.lost:
            raise Unavailable("the backup's store: timed out")

    def names(self, prefix: str) -> list[tuple[str, int]]:
        self.meet(prefix)
        return super().names(prefix)

    def read(self, key: str) -> bytes:
        self.meet(key)
        self.given.append(key)
        return super().read(key)

    @property
    def segments(self) -> set[int]:
        """Those of which an object was given."""
        return {segment_of(key) for key in self.given if key.endswith((".segment", ".part"))}


def test_a_store_that_loses_every_third_answer_is_asked_again(
    data: Path, place: str, slots: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shipped(data, place, slots, seed=1).close()
    with pytest.raises(Unavailable):
        restore(Away(place, nth=1), tmp_path / "new")  # it has never answered: the URL may be wrong
    monkeypatch.setattr(restoring, "AGAIN_FIRST_S", 0.001)
    store, told = Away(place, nth=3), list[str]()
    restore(store, tmp_path / "new", told=told.append)
    assert journal_of(tmp_path / "new") == journal_of(data)
    assert len(store.given) == len(set(store.given)), "what was read is not read again"
    assert told and set(told) == {"the backup's store: timed out; asked again for up to 10 minutes"}


def test_a_store_is_waited_for_from_the_first_answer_it_lost_not_from_the_last_it_gave(
    data: Path, place: str, slots: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between two requests an hour may pass: what an interrupted run had restored is read and checked there."""
    shipped(data, place, slots, seed=1).close()
    clock_s = itertools.count(step=3_600.0)
    now_s = next(clock_s)

    class Slow(Away):
        def meet(self, key: str) -> None:
            nonlocal now_s
            super().meet(key)
            now_s = next(clock_s)

    monkeypatch.setattr(restoring, "time", SimpleNamespace(monotonic=lambda: now_s, time_ns=time.time_ns))
    monkeypatch.setattr(restoring, "AGAIN_FIRST_S", 0.001)
    monkeypatch.setattr(restoring, "READS_AT_ONCE", 1)  # one request at a time moves the clock
    store = Slow(place, nth=3)
    restore(store, tmp_path / "new")
    assert journal_of(tmp_path / "new") == journal_of(data) and len(store.given) > 3


@pytest.mark.parametrize("where", ["while records are checked", "while the store is waited for"])
def test_an_interrupted_restore_does_not_wait_for_a_store_that_is_away(
    data: Path, place: str, slots: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest, where: str,
) -> None:  # fmt: skip
    monkeypatch.setattr(backup, "PART_BYTES_MAX", 16_384)
    shipped(data, place, slots, seals=False).close()
    monkeypatch.setattr(restoring, "AGAIN_FIRST_S", 0.05)
    monkeypatch.setattr(restoring, "AGAIN_MOST_S", 0.05)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored, where the suite runs in the background
    request.addfinalizer(lambda: signal.signal(signal.SIGINT, before))
    is_interrupted, main = threading.Event(), threading.main_thread().ident
    assert main is not None

    class Gone(Objects):
        parts, lost, after = itertools.count(), itertools.count(1), itertools.count()

        def read(self, key: str) -> bytes:
            if key.endswith(".part") and next(self.parts) >= READS_AT_ONCE:
                if is_interrupted.is_set() and next(self.after) > 40 * READS_AT_ONCE:
                    return super().read(key)  # so that one that does not end fails, and does not hang
                if next(self.lost) == 3 * READS_AT_ONCE and where == "while the store is waited for":
                    is_interrupted.set()
                    signal.pthread_kill(main, signal.SIGINT)
                raise Unavailable("the backup's store: timed out")
            return super().read(key)

    def progress(done: int, total: int) -> None:
        if where == "while records are checked":
            is_interrupted.set()
            raise KeyboardInterrupt

    store = Gone(place)
    with pytest.raises(KeyboardInterrupt):
        restore(store, tmp_path / "new", progress=progress)
    assert next(store.after) <= 4 * READS_AT_ONCE, "each ends with the request that it makes"


def test_a_segment_has_its_name_once_all_of_it_is_on_the_disk(
    data: Path, place: str, slots: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shipped(data, place, slots[:2_000]).close()
    sync = os.fsync

    def no_space(descriptor: int) -> None:
        path = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
        if path.parent == tmp_path / "new" / "restoring" / "journal":
            raise OSError(28, "No space left on device")
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", no_space)
    with pytest.raises(OSError, match="No space left"):
        restore(Objects(place), tmp_path / "new")
    (left,) = (tmp_path / "new" / "restoring" / "journal").iterdir()
    assert left.suffix == ".new", "whoever goes on would take it for whole"
    monkeypatch.undo()
    restore(Objects(place), tmp_path / "new")
    assert journal_of(tmp_path / "new") == journal_of(data)


@pytest.mark.parametrize("seals", [True, False], ids=["sealed", "in parts"])
def test_a_restore_goes_on_behind_the_whole_segments_of_one_that_was_interrupted(
    data: Path, place: str, slots: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, seals: bool
) -> None:
    shipped(data, place, slots, seals=seals).close()
    firsts = [segment.header.first_sequence for segment in segments.list_segments(DirectoryDisk(data))]
    assert len(firsts) >= 3
    last = max(name for name, _ in Objects(place).names("") if name.endswith(".part"))
    monkeypatch.setattr(restoring, "PATIENCE_S", 0.0)

    def interrupted(name: str) -> Path:
        """A directory with what a restore had of all but the last object."""
        with pytest.raises(Unavailable):
            restore(Away(place, lost=last), tmp_path / name)
        assert not (tmp_path / name / "journal").exists()
        return tmp_path / name

    def again(directory: Path, **point: int) -> tuple[int, set[int]]:
        store, told = Away(place), list[str]()
        (directory / "restoring" / "nohup.out").write_text("restoring")
        found = restore(store, directory, told=told.append, **point)
        assert len(told) == 1 and ("it goes on there" if found.resumed_sequence else "all is read again") in told[0]
        assert not (directory / "restoring").exists()
        assert found.segments == len(journal_of(directory)) and verify(directory).sequence == found.sequence
        if not point:
            assert files_of(directory) == files_of(data)
        return found.resumed_sequence, store.segments

    kept = len(firsts) - 2  # the last one was not whole, and of the one before nothing in the store told that yet
    assert again(interrupted("new")) == (firsts[kept] - 1, set(firsts[kept:]))
    resumed, read = again(interrupted("later point"), to_sequence=firsts[kept] + 5)
    assert resumed == firsts[kept] - 1 and not read & set(firsts[:kept])
    resumed, read = again(interrupted("a segment's end"), to_sequence=firsts[kept] - 1)
    assert resumed == firsts[kept] - 1 and not read & set(firsts[:kept])
    assert again(interrupted("earlier point"), to_sequence=7)[0] == 0
    assert again(interrupted("before it"), to_ts=int(heads(slots)["ts"][3]))[0] == 0

    for damage in ("cut", "lost", "changed"):  # what is not as it was written is read anew
        directory = interrupted(damage)
        path = min((directory / "restoring" / "journal").iterdir())
        if damage == "lost":
            path.unlink()
        else:
            text = path.read_bytes()
            path.write_bytes(text[:9000] + (bytes(8) + text[9008:] if damage == "changed" else b""))
        assert again(directory) == (0, set(firsts))

    for kind in ("head", "batches.log/*", last.rpartition("/")[2]):
        directory = interrupted(f"damage of {kind[:4]}")  # elsewhere: it costs nothing of what is there
        path = min((tmp_path / "store").rglob(kind))
        good = path.read_bytes()
        path.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
        with pytest.raises(JournalCorrupt):
            restore(Objects(place), directory)
        path.write_bytes(good)
        assert again(directory)[0] >= firsts[kept] - 1

    fork, disk = tmp_path / "fork", DirectoryDisk(tmp_path / "fork")
    shutil.copytree(data, fork)
    truncate(disk, plan_truncation(disk, firsts[kept] - 3))
    recovered = recover(fork, settings=SETTINGS)
    at, elsewhere = np.flatnonzero(slots["sequence"] == firsts[kept] - 1)[0], (tmp_path / "elsewhere").as_uri()
    renumbered = slots[at:].copy()
    renumbered["sequence"][np.isin(np.arange(at, len(slots)), positions(slots))] -= 1
    for others in (renumbered[:0], renumbered):  # shorter, and longer
        feed(recovered, others, 0, len(others))
        catch_up(shipper(fork, elsewhere), recovered)
        directory = interrupted(f"of another history up to {recovered.core.sequence}")
        told = list[str]()
        found = restore(Objects(elsewhere), directory, told=told.append)
        assert ["goes on there" in told[0], "had restored another history" in told[1]] == [True, True]
        assert found.sequence == recovered.core.sequence and journal_of(directory) == journal_of(fork)
    recovered.close()


def test_a_restore_that_is_killed_at_any_rename_is_finished_by_the_same_command(
    data: Path, place: str, slots: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shipped(data, place, slots, seals=True).close()
    expected, rename, done = files_of(data), os.rename, 0

    class Killed(BaseException):
        """As SIGKILL: nobody cleans up."""

    def killed(source: Path, target: Path) -> None:
        nonlocal done
        if done == dies_at:
            raise Killed
        done += 1
        rename(source, target)

    for dies_at in range(20):
        directory, done = tmp_path / f"new {dies_at}", 0
        with monkeypatch.context() as patched:
            patched.setattr(os, "rename", killed)
            try:
                restore(Objects(place), directory)
            except Killed:
                assert not (directory / "journal").exists()
            else:
                break
        restore(Objects(place), directory)
        assert files_of(directory) == expected and not list(directory.glob("restoring*"))
    assert dies_at >= 3, "the note, a file beside, the journal"
    (tmp_path / "other" / "settlement").mkdir(parents=True)
    (tmp_path / "other" / "settlement" / "batches.log").write_bytes(b"of somebody else")
    with pytest.raises(Refused, match="is there already"):
        restore(Objects(place), tmp_path / "other")


@pytest.mark.parametrize("seals", [True, False], ids=["sealed", "in parts"])
def test_any_damage_of_an_object_is_found(
    data: Path, place: str, slots: np.ndarray, tmp_path: Path, *, seals: bool
) -> None:
    shipped(data, place, slots, seals=seals).close()
    expected, draw = files_of(data), random.Random(3)
    objects = [path for path in (tmp_path / "store").rglob("*") if path.is_file()]
    assert {path.suffix for path in objects} == {".part", ""} | ({".segment"} if seals else set())
    assert len({path.parent for path in objects}) > 2
    for number in range(80):
        path = draw.choice(objects)
        good = path.read_bytes()
        kind = draw.choice(["flip", "cut", "lost", "flip", "flip", "swap"])
        at = draw.randrange(len(good)) if draw.random() < 0.7 else draw.randrange(min(4300, len(good)))
        if kind == "lost":
            path.unlink()
        elif kind == "swap":
            path.write_bytes(draw.choice([other for other in objects if other != path]).read_bytes())
        else:
            flipped = bytes([good[at] ^ 1 << number % 8]) + good[at + 1 :]
            path.write_bytes(good[:at] + (b"" if kind == "cut" else flipped))
        shutil.rmtree(tmp_path / "new", ignore_errors=True)
        try:
            restore(Objects(place), tmp_path / "new")
        except (JournalCorrupt, Unavailable):
            assert not (tmp_path / "new" / "journal").exists(), "what is refused is not left behind"
        else:
            assert files_of(tmp_path / "new") == expected, (kind, path.name, at)
        path.write_bytes(good)


def files_of(data: Path) -> dict[str, bytes]:
    beside = {path: (data / path).read_bytes() for path in ("settlement/batches.log", "keys/epoch")}
    return journal_of(data) | beside


@pytest.mark.parametrize("is_sealed", [True, False], ids=["sealed", "in parts"])
def test_a_store_that_lost_its_newest_objects_is_no_shorter_journal(
    data: Path, place: str, slots: np.ndarray, tmp_path: Path, *, is_sealed: bool
) -> None:
    recovered = shipped(data, place, slots, seals=is_sealed)
    sequence = recovered.core.sequence
    recovered.close()
    objects = sorted(path for path in (tmp_path / "store").rglob("*") if path.suffix in (".segment", ".part"))
    firsts = sorted({segment_of(path.name) for path in objects})
    assert len(firsts) >= 3 and len(kinds(place)[".segment"]) == (len(firsts) - 1 if is_sealed else 0)
    last = [path for path in objects if segment_of(path.name) == firsts[-1]]
    behind_the_first = [path for path in objects if segment_of(path.name) > firsts[0]]
    missing = f"but its head says {sequence}, .*its newest objects are missing"
    for gone, why in (
        (last[-1:], missing), (last, missing), (behind_the_first, missing),
        (behind_the_first[:1], "does not continue sequence"), (objects[:1], "does not continue sequence"),
    ):  # fmt: skip
        kept = {path: path.read_bytes() for path in gone}
        for path in gone:
            path.unlink()
        with pytest.raises(JournalCorrupt, match=why):
            restore(Objects(place), tmp_path / "new")
        for path, text in kept.items():
            path.write_bytes(text)
    head = next((tmp_path / "store").rglob("head"))
    text = head.read_bytes()
    head.unlink()
    with pytest.raises(JournalCorrupt, match="the head is missing"):
        restore(Objects(place), tmp_path / "new")
    assert restore(Objects(place), tmp_path / "point", to_sequence=sequence - 1).sequence == sequence - 1
    head.write_bytes(text)
    found = restore(Objects(place), tmp_path / "late", to_ts=1 << 62)
    assert found.sequence == sequence and found.beside and not found.left_out, "a time behind the end is the end"

    def unfit(_scratch: Path, _found: object) -> None:
        raise JournalCorrupt("a batch is ahead")

    with pytest.raises(JournalCorrupt, match="ahead"):
        restore(Objects(place), tmp_path / "new", before_moving=unfit)
    assert not (tmp_path / "new" / "journal").exists() and not (tmp_path / "new" / "keys").exists()


def test_a_store_that_fails_leaves_no_gap(
    data: Path, place: str, slots: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw, objects = random.Random(5), Objects(place)
    real = {name: getattr(Objects, name) for name in ("make", "replace", "remove", "names")}

    def flaky(name: str) -> object:
        def call(self: Objects, *arguments: object) -> object:
            when = draw.random()
            if when < 0.2:
                raise Unavailable("the request was lost")
            answer = real[name](self, *arguments)
            if when < 0.4:
                raise Unavailable("the answer was lost")
            return answer

        return call

    for name in real:
        monkeypatch.setattr(Objects, name, flaky(name))
    recovered, at, following = recover(data, settings=SETTINGS), 0, None
    while at < len(slots) or following is None or following.sequence < recovered.core.sequence:
        at = feed(recovered, slots, at, min(len(slots), at + 900))
        try:
            if following is None:
                begun = Shipper(data, objects)
                begun.start()
                following = begun
            following.step()
            following.seal()
        except Unavailable:
            if draw.random() < 0.3:
                following = None
    recovered.close()
    monkeypatch.undo()
    restore(objects, tmp_path / "new")
    assert journal_of(tmp_path / "new") == journal_of(data)


class Slow(Objects):
    """A store that takes a sealed segment only once it is told to."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.parts: list[str] = []
        self.begun, self.go_on = threading.Event(), threading.Event()
        self.stepping = 0
        """The thread that sends the parts."""

    def make(self, key: str, data: bytes) -> bytes:
        if key.endswith(".segment"):
            assert threading.get_ident() != self.stepping, "what is new waits for a sealed segment"
            self.begun.set()
            self.go_on.wait()
        elif key.endswith(".part"):
            self.parts.append(key)
        return super().make(key, data)


def test_nothing_new_waits_for_a_sealed_segment_that_is_on_its_way(
    data: Path, place: str, slots: np.ndarray, tmp_path: Path
) -> None:
    recovered, store = recover(data, settings=SETTINGS), Slow(place)
    at = feed(recovered, slots, 0, 600)
    following = Shipper(data, store)
    following.start()
    store.stepping = threading.get_ident()
    assert following.seal() == following.unsealed == 0, "the segment goes on"
    at = feed(recovered, slots, at, 9000)
    catch_up(following, recovered)
    assert (following.sealed, following.unsealed) == (0, 1)
    sealing = threading.Thread(target=following.seal)
    sealing.start()
    try:
        store.begun.wait()
        sent = len(store.parts)
        for stop in (9500, 10_000, 20_000):  # into the next segment and the one behind it
            at = feed(recovered, slots, at, stop)
            catch_up(following, recovered)
            assert len(store.parts) > sent and (following.sealed, following.oldest_waiting_s()) == (0, 0.0)
            sent = len(store.parts)
            assert not kinds(place)[".segment"], "all of it is a backup without any"
            shutil.rmtree(tmp_path / "new", ignore_errors=True)
            found = restore(Objects(place), tmp_path / "new")
            assert found.sequence == recovered.core.sequence
            assert journal_of(tmp_path / "new") == journal_of(data)
    finally:
        store.go_on.set()
        sealing.join()
    assert (following.sealed, following.unsealed) == (2, 0)
    last = segments.list_segments(DirectoryDisk(data))[-1].header.first_sequence
    left = kinds(place)
    assert len(left[".segment"]) == 2 and {int(name.partition("-")[0]) for name in left[".part"]} == {last}
    recovered.close()


def kinds(place: str) -> dict[str, list[str]]:
    """Names of the journal's objects in a store, by their kind."""
    names = [path.name for path in Path(place.removeprefix("file://")).rglob("*") if path.is_file()]
    return {kind: sorted(name for name in names if name.endswith(kind)) for kind in (".segment", ".part")}


class Died(Exception):
    """The process was killed at a request."""


class Mortal(Objects):
    """A store whose client is killed at its request number `dies`: before it was carried out, or behind it."""

    def __init__(self, url: str, dies: int, *, done: bool) -> None:
        super().__init__(url)
        self.left, self.done = dies, done

    def _request(self, call: Callable[[], bytes | None]) -> bytes:
        self.left -= 1
        if self.left == 0 and not self.done:
            raise Died
        answer = call()
        if self.left == 0:
            raise Died
        return answer or b""

    def make(self, key: str, data: bytes) -> bytes:
        return self._request(lambda: super(Mortal, self).make(key, data))

    def replace(self, key: str, data: bytes) -> None:
        self._request(lambda: super(Mortal, self).replace(key, data))

    def remove(self, keys: list[str]) -> None:
        for key in keys:  # one request each
            self._request(lambda key=key: super(Mortal, self).remove([key]))  # type: ignore[misc]


@pytest.mark.parametrize("order", ["sealed at once", "sealed late"])
@pytest.mark.parametrize("done", [False, True], ids=["request lost", "answer lost"])
def test_a_shipper_killed_at_any_request_leaves_a_backup_and_the_next_goes_on(
    data: Path, place: str, slots: np.ndarray, tmp_path: Path, order: str, *, done: bool
) -> None:
    recovered, at, marks = recover(data, settings=SETTINGS), 0, list[bytes]()
    while at < 20_000:
        at = feed(recovered, slots, at, at + 5000)
        catch_up(shipper(data, place + "-marks"), recovered)  # the mark says it
        marks.append((data / "journal.mark").read_bytes())
    recovered.close()
    expected, dies, died = journal_of(data), 0, True
    assert len(expected) == 3
    while died:
        dies, died, shipped_to = dies + 1, False, 0
        store = f"{place}-{dies}"
        following = Shipper(data, Mortal(store, dies, done=done))
        for number, mark in enumerate(marks):  # what is durable comes bit by bit
            (data / "journal.mark").write_bytes(mark)
            try:
                if number == 0:
                    following.start()
                following.step()
                shipped_to = following.sequence
                if order == "sealed at once" or mark is marks[-1]:
                    following.seal()
            except Died:
                died = True
                break
        if kinds(store)[".part"] and list(Path(store.removeprefix("file://")).rglob("head")):
            found = restore(Objects(store), tmp_path / f"died-{dies}")
            assert shipped_to <= found.sequence <= recovered.core.sequence
            assert verify(tmp_path / f"died-{dies}", with_replay=False).chain == found.chain
            shutil.rmtree(tmp_path / f"died-{dies}")
        else:
            assert shipped_to == 0
        (data / "journal.mark").write_bytes(marks[-1])
        following = shipper(data, store)
        following.step()
        following.seal()
        left, last = kinds(store), sorted(expected)[-1].partition(".")[0]
        assert len(left[".segment"]) == 2 and {name.partition("-")[0] for name in left[".part"]} == {last}
        restore(Objects(store), tmp_path / f"new-{dies}")
        assert journal_of(tmp_path / f"new-{dies}") == expected
        shutil.rmtree(tmp_path / f"new-{dies}")
    assert dies > 12, "requests of parts, heads, sealed segments and removals"


def test_a_local_store_has_an_object_on_disk_before_it_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed at any call it has it whole or not at all, and a list shows no draft."""
    calls: list[str] = []
    dies_at = 1 << 30

    def told(name: str) -> Callable[..., object]:
        real = getattr(os, name)

        def call(*arguments: object) -> object:
            of = os.readlink(f"/proc/self/fd/{arguments[0]}") if name == "fsync" else str(arguments[-1])
            calls.append(f"{name} {Path(of).relative_to(tmp_path)}".partition("#")[0])
            if len(calls) == dies_at:
                raise Died
            return real(*arguments)

        return call

    for name in ("fsync", "link", "replace"):
        monkeypatch.setattr(os, name, told(name))
    objects = Objects(f"file://{tmp_path}/store")
    objects.make("a/b", b"1")
    assert calls == ["fsync store/a/b", "link store/a/b", "fsync store/a", "fsync store", "fsync ."]
    for renewed in (False, True):
        for dies_at in range(1, 4):
            calls.clear()
            key = f"a/{renewed}{dies_at}"
            with pytest.raises(Died):
                (objects.replace if renewed else objects.make)(key, b"2" * 5000)
            found = dict(objects.names("a"))
            assert found.get(key) == (None if dies_at < 3 else 5000) and found["a/b"] == 1
    calls.clear()
    dies_at = 1 << 30
    assert objects.make("a/b", b"3") == b"1" and calls[-1] == "fsync store/a", "whoever made it may have died before"
    objects.replace("a/b", b"4")
    assert objects.read("a/b") == b"4" and not [name for name, _ in objects.names("") if "#" in name]


def test_a_sealed_segment_that_the_store_lost_is_sent_anew_and_a_short_one_told(
    data: Path, place: str, slots: np.ndarray, tmp_path: Path
) -> None:
    recovered = shipped(data, place, slots)
    first, second, *_ = (Path(place.removeprefix("file://")) / name for name, _ in Objects(place).names("")
                         if name.endswith(".segment"))  # fmt: skip
    whole = first.read_bytes()
    first.unlink()
    again = shipper(data, place)
    assert again.unsealed == 1 and again.seal() == 1 and first.read_bytes() == whole
    second.write_bytes(second.read_bytes()[:-4096])
    with pytest.raises(JournalCorrupt, match=rf"{second.name} has \d+ bytes, not \d+: remove it, and it is sent anew"):
        shipper(data, place)
    second.unlink()
    assert shipper(data, place).seal() == 1
    assert restore(Objects(place), tmp_path / "new").sequence == recovered.core.sequence
    recovered.close()


async def test_a_directory_that_is_gone_is_no_empty_store_and_nothing_is_shipped_beside_it(
    data: Path, tmp_path: Path, slots: np.ndarray
) -> None:
    """A disk that is unmounted: its directory is away, or its mount point is there, on another disk."""
    recovered = recover(data, settings=SETTINGS)
    at = feed(recovered, slots, 0, 300)
    (data / "settlement").mkdir()
    (data / "settlement" / "batches.log").write_bytes(b"signed")
    identity = segments.list_segments(DirectoryDisk(data))[0].header.identity
    root = tmp_path / "disk" / "store"
    gate = backup_gate(cast(Any, SimpleNamespace(data_directory=data, backup_url=root.as_uri())), identity)
    asked = gate._shipped

    async def lacks(sequence: int) -> str:
        return await asked.lacks(sequence, "settlement/batches.log", 6)

    assert await lacks(1) == f"backup: there is no directory {root}"
    assert not root.exists(), "whoever asks makes nothing"
    root.mkdir(parents=True)
    assert await lacks(1) == "the backup has nothing of this exchange yet"
    following = shipper(data, root.as_uri())
    catch_up(following, recovered)
    last = recovered.core.sequence
    assert await lacks(last) == ""

    away = root.rename(tmp_path / "away")
    feed(recovered, slots, at, 600)
    gone = f"the backup's store: there is no directory {root}"
    assert await lacks(last) == gone
    with pytest.raises(Unavailable, match=gone):
        following.step()
    assert not root.exists()
    root.mkdir()
    other = f"the backup's store: {root} is not the directory that this process opened"
    assert (await lacks(last)).startswith(other)
    with pytest.raises(Unavailable, match=other):
        following.step()
    assert list(root.iterdir()) == []
    root.rmdir()
    away.rename(root)
    assert await lacks(last) == "" and "is wanted" in await lacks(recovered.core.sequence)
    catch_up(following, recovered)
    assert await lacks(recovered.core.sequence) == ""
    recovered.close()


def test_a_mount_point_without_its_disk_after_a_start_is_no_empty_store(
    data: Path, tmp_path: Path, slots: np.ndarray
) -> None:
    recovered = recover(data, settings=SETTINGS)
    at = feed(recovered, slots, 0, 300)
    root = tmp_path / "store"
    root.mkdir()
    catch_up(shipper(data, root.as_uri()), recovered)
    last = recovered.core.sequence
    away = root.rename(tmp_path / "away")
    root.mkdir()  # the machine was started, and its disk was not mounted
    at = feed(recovered, slots, at, 600)
    with pytest.raises(JournalCorrupt, match=f"up to sequence {last} and ends with 0: is its disk mounted"):
        shipper(data, root.as_uri())
    assert not any(path.suffix in (".part", ".segment") or path.name == "head" for path in root.rglob("*"))
    other = tmp_path / "other"
    catch_up(shipper(data, other.as_uri()), recovered)  # another URL begins with the first record
    shutil.rmtree(root)
    away.rename(root)
    catch_up(shipper(data, root.as_uri()), recovered)
    feed(recovered, slots, at, 700)
    (data / "backup.mark").write_bytes(b"{")
    with pytest.raises(JournalCorrupt, match="see that the store is the right one"):
        shipper(data, root.as_uri())
    (data / "backup.mark").unlink()
    catch_up(shipper(data, root.as_uri()), recovered)
    recovered.close()


async def test_what_a_backup_lacks_is_told_by_the_store_itself(data: Path, place: str, slots: np.ndarray) -> None:
    recovered = recover(data, settings=SETTINGS)
    at, path = feed(recovered, slots, 0, 600), "settlement/batches.log"
    log = data / path
    log.parent.mkdir()
    log.write_bytes(random.Random(1).randbytes(CHUNK_BYTES + 5000))
    size, last = CHUNK_BYTES + 5000, recovered.core.sequence
    identity = segments.list_segments(DirectoryDisk(data))[0].header.identity
    asked = Shipped(data, lambda: Objects(place), identity)
    assert await asked.lacks(1, path, 1) == "the backup has nothing of this exchange yet"
    following = shipper(data, place)
    catch_up(following, recovered)
    for wanted in (1, CHUNK_BYTES, CHUNK_BYTES + 1, size):
        assert await asked.lacks(last, path, wanted) == ""
    assert await asked.lacks(last + 1, path, 1) == f"the backup ends with sequence {last}, {last + 1} is wanted"
    assert await asked.lacks(last, path, size + 1) == f"the backup has {size} bytes of {path}, {size + 1} are wanted"
    assert "has 0 bytes of settlement/chain.log" in await asked.lacks(last, "settlement/chain.log", 1)

    log.write_bytes(log.read_bytes()[:-2000] + bytes(4000))  # what a crash had torn from its end is another record now
    assert "has another settlement/batches.log" in await asked.lacks(last, path, size - 1000)
    assert await asked.lacks(last, path, CHUNK_BYTES) == "", "the piece before is the same"
    feed(recovered, slots, at, 700)
    catch_up(following, recovered)
    assert await asked.lacks(recovered.core.sequence, path, size + 2000) == ""
    head = Path(place.removeprefix("file://")) / identity.hex() / "head"
    head.write_bytes(head.read_bytes()[:-1])
    assert await asked.lacks(1, path, 1) == "backup: the head is damaged"
    recovered.close()


def test_a_second_shipper_is_harmless_and_another_history_refused(data: Path, place: str, slots: np.ndarray) -> None:
    recovered = recover(data, settings=SETTINGS)
    at = feed(recovered, slots, 0, 2000)
    one, two = shipper(data, place), shipper(data, place)
    catch_up(one, recovered)
    assert two.step() == one.sequence, "the same part, made twice, is one"
    at = feed(recovered, slots, at, 2600)
    catch_up(one, recovered)
    feed(recovered, slots, at, 3000)
    catch_up(two, recovered)  # its part would begin where a shorter one is: it goes on behind that
    assert one.step() == two.sequence - 2599 > 0
    assert restore(Objects(place), data.parent / "new").sequence == recovered.core.sequence
    recovered.close()
    disk = DirectoryDisk(data)
    truncate(disk, plan_truncation(disk, 1500))
    with pytest.raises(JournalCorrupt, match="Ship it to another place"):
        shipper(data, place)


def test_another_history_is_refused_that_has_grown_past_the_stores_end(
    data: Path, place: str, slots: np.ndarray
) -> None:
    """Each of its records is sound, and it is longer: going on behind the store's end would join the two for good."""
    recovered = recover(data, settings=SETTINGS)
    feed(recovered, slots, 0, 3000)
    catch_up(shipper(data, place), recovered)
    end = recovered.core.sequence
    recovered.close()
    disk = DirectoryDisk(data)
    truncate(disk, plan_truncation(disk, 1500))
    (begin,) = (at for at in positions(slots[:3000]) if slots["sequence"][at] == 1601)
    others = slots[begin:8000].copy()
    others["sequence"][positions(others)] -= 100
    recovered = recover(data, settings=SETTINGS)
    feed(recovered, others, 0, 5000)
    assert recovered.core.sequence > end
    kept = stored(place)
    with pytest.raises(JournalCorrupt, match=f"ends with sequence {end}, .* Ship it to another place"):
        shipper(data, place)
    assert stored(place) == kept
    recovered.close()


def stored(place: str) -> dict[str, bytes]:
    """Objects of a store, without the probe."""
    objects = Objects(place)
    return {name: objects.read(name) for name, _ in objects.names("") if not name.endswith("/probe")}


def test_a_store_that_replaces_what_is_there_is_refused(data: Path, place: str, slots: np.ndarray) -> None:
    """As `rclone serve s3` and JuiceFS's gateway do: they answer 200 to If-None-Match and overwrite."""

    class Careless(Objects):
        def make(self, key: str, data: bytes) -> bytes:
            self.replace(key, data)
            return data

    recovered = recover(data, settings=SETTINGS)
    feed(recovered, slots, 0, 200)
    for _ in range(2):  # empty, and with the probe of before
        with pytest.raises(SettingsInvalid, match="replaces objects"):
            Shipper(data, Careless(place)).start()
    for _ in range(2):
        shipper(data, place)
    assert [path.name for path in Path(place.removeprefix("file://")).rglob("*") if path.is_file()] == ["probe"]
    recovered.close()


def test_the_torn_end_of_a_log_beside_is_sent_again(data: Path, place: str, slots: np.ndarray, tmp_path: Path) -> None:
    recovered = recover(data, settings=SETTINGS)
    feed(recovered, slots, 0, 200)
    (data / "settlement").mkdir()
    log, draw = data / "settlement" / "chain.log", random.Random(1)
    log.write_bytes(draw.randbytes(CHUNK_BYTES + 100))
    following = shipper(data, place)
    following.step()
    for size in (CHUNK_BYTES - 50, 20, 3 * CHUNK_BYTES):  # a crash took bytes, others came in their place
        log.write_bytes(log.read_bytes()[:size] + draw.randbytes(300 if size < CHUNK_BYTES else 2 * CHUNK_BYTES))
        if draw.random() < 0.5:
            following = shipper(data, place)
        following.step()
        recovered_to = tmp_path / f"new{size}"
        restore(Objects(place), recovered_to)
        assert (recovered_to / "settlement" / "chain.log").read_bytes() == log.read_bytes()
    recovered.close()


@pytest.mark.parametrize("url", ["/srv/backup", "file:///no/such/place", "nonsense://x"])
def test_a_place_that_is_none_is_refused_in_one_line_and_not_made(url: str) -> None:
    with pytest.raises(SettingsInvalid) as refused:
        Objects(url, make_directory=False)
    assert "\n" not in str(refused.value) and str(refused.value).startswith("backup: ")
    assert not url.startswith("file:") or str(refused.value) == "backup: there is no directory /no/such/place"
    assert not Path("/no/such/place").exists()
