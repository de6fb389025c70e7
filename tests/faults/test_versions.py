"""F27: a version whose formats are one further, as a real process on the same data directory, and back again.

The next version is this one with another number in a copy of a module, which its process imports instead of ours.
Whoever meets what it does not read says so and touches nothing, or does without it and comes to the same state.
"""

from __future__ import annotations

import asyncio
import re
import signal
from pathlib import Path

import pytest

from byline.operator import open_operator, request_snapshot
from byline.supervisor import DO_NOT_RESTART
from persistence import segments, snapshot
from persistence.disk import DirectoryDisk
from persistence.recovery import replay
from tests.faults.test_storage_faults import open_names, placed
from tests.simulation.planted import Bug
from tests.support.core_process import CoreProcess

FINDER = """
import importlib.util, sys

class Finder:
    @staticmethod
    def find_spec(name, path=None, target=None):
        return importlib.util.spec_from_file_location(name, {copy!r}) if name == {name!r} else None

sys.meta_path.insert(0, Finder)
"""


def next_version(folder: Path, module: str, number: int) -> dict[str, str]:
    """The environment of a process in which `module` writes and reads the format behind `number`."""
    folder.mkdir()
    source, copy = module.replace(".", "/") + ".py", folder / "next.py"
    copy.write_text(Bug(source, ((f"\nFORMAT = {number}\n", f"\nFORMAT = {number + 1}\n"),)).text())
    (folder / "sitecustomize.py").write_text(FINDER.format(copy=str(copy), name=module))
    return {"PYTHONPATH": str(folder)}


async def orders(core: CoreProcess, names: list[str]) -> int:
    """Placed and accepted; the sequence that was durable then. Then the core is killed."""
    [client] = await core.traders(1, cancel_on_disconnect=False)
    assert set((await placed(client, names)).values()) == {"accepted"}
    async with open_operator(core.settings) as operator:
        sequence = int((await operator.status())["sequence"])
    await client.close()
    core.signal(signal.SIGKILL)
    await core.ended()
    return sequence


def recovered(core: CoreProcess) -> tuple[int, int, str]:
    """Sequence, that of the snapshot, and state hash, as the last start told them."""
    found = re.findall(r"event=recovered sequence=(\d+) snapshot=(\d+) .*state_hash=(\w+)", core.log())[-1]
    return int(found[0]), int(found[1]), found[2]


def files(data: Path, *names: str) -> dict[Path, bytes]:
    return {path: path.read_bytes() for name in names for path in sorted((data / name).glob("*")) if path.is_file()}


@pytest.mark.parametrize("first", ["this version", "the next one"])
async def test_f27_a_journal_of_another_format_is_refused_and_whoever_wrote_it_goes_on(
    core: CoreProcess, tmp_path: Path, first: str
) -> None:
    versions: list[dict[str, str]] = [{}, next_version(tmp_path / "next", "persistence.segments", segments.FORMAT)]
    written, read = segments.FORMAT, segments.FORMAT + 1
    if first == "the next one":
        versions.reverse()
        written, read = read, written
    core.environment = versions[0]
    await core.start()
    told = await orders(core, ["one", "two"])
    before = files(core.data, "journal", "snapshots", "keys", "events")
    core.environment = versions[1]
    core.spawn()
    assert await core.ended() == DO_NOT_RESTART
    assert f"format {written}, layout {segments.LAYOUT}; this build reads format {read}" in core.log()
    assert files(core.data, "journal", "snapshots", "keys", "events") == before
    core.environment = versions[0]
    await core.start()
    assert recovered(core)[0] >= told
    assert await core.stop() == 0
    if first == "this version":
        assert open_names(core.data) == ["one", "two"]


async def test_f27_without_the_snapshots_of_the_other_version_each_comes_to_the_same_state(
    core: CoreProcess, tmp_path: Path
) -> None:
    """And back: the snapshot of its own, which is older, and the whole journal behind it."""

    async def lives(name: str) -> tuple[int, str]:
        """Starts, writes a snapshot and goes on behind it until it is killed. The snapshot's sequence, and the hash."""
        await core.start()
        taken = await asyncio.to_thread(request_snapshot, core.settings)
        await orders(core, [name])
        return int(taken["sequence"]), replay(DirectoryDisk(core.data))[0].state_hash().hex()

    own, expected = await lives("one")
    core.environment = next_version(tmp_path / "next", "persistence.snapshot", snapshot.FORMAT)
    _, later = await lives("two")
    assert recovered(core)[1:] == (0, expected)
    assert f"format {snapshot.FORMAT}; this build reads {snapshot.FORMAT + 1}" in core.log()
    core.environment = {}
    await core.start()
    assert recovered(core)[1:] == (own, later)
    assert f"format {snapshot.FORMAT + 1}; this build reads {snapshot.FORMAT}" in core.log()
    assert await core.stop() == 0
    assert open_names(core.data) == ["one", "two"]
