"""What `byline restore` compares before anything is moved into place."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from byline.rebuild import REQUEST
from byline.restore_tools import _end_of, restore_directory
from byline.wanted_keys import check_keys_wanted
from engine.messages.errors import JournalCorrupt, SettingsInvalid
from persistence.backup import Objects, Shipper
from persistence.disk import DirectoryDisk
from persistence.recovery import recover
from settlement.batch import Sealed
from settlement.store import FileBatchStore
from tests.unit.persistence.test_recovery import SETTINGS, feed, workload
from tests.unit.persistence.test_truncate import sealed

QUIET = Console(quiet=True)


@pytest.mark.parametrize("ahead", [0, 1])
def test_a_batch_that_was_sealed_behind_the_journals_end_refuses_the_restore(tmp_path: Path, ahead: int) -> None:
    """The store lost records that the files beside them, and the chain, know of."""
    data, new, place = tmp_path / "data", tmp_path / "new", (tmp_path / "store").as_uri()
    data.mkdir()
    recovered = recover(data, settings=SETTINGS)
    feed(recovered, workload(), 0, 500)
    last = recovered.core.sequence
    (data / "settlement").mkdir()
    store = FileBatchStore(data / "settlement" / "batches.log")
    store.append(Sealed(1, sealed(last + ahead)))
    store.close()
    recovered.close()
    shipper = Shipper(data, Objects(place))
    shipper.start()
    shipper.step()
    assert shipper.sequence == last
    arguments = {"to": None, "identity": None, "replayed": False, "embedded_chain": True, "console": QUIET}
    if ahead:
        with pytest.raises(JournalCorrupt, match=f"ends with sequence {last}, but batch 1 was sealed up to sequence"):
            restore_directory(place, new, **arguments)  # type: ignore[arg-type]
        assert not (new / "journal").exists() and not (new / "settlement").exists()
    else:
        assert restore_directory(place, new, **arguments) == 0  # type: ignore[arg-type]
        assert (new / "settlement" / "batches.log").exists() and (new / REQUEST).exists()


def test_a_restore_that_is_interrupted_while_it_replays_has_said_which_keys_are_wanted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The journal is at its place by then: `byline up` would start, with new keys that open nothing."""
    data, new, place = tmp_path / "data", tmp_path / "new", (tmp_path / "store").as_uri()
    data.mkdir()
    recovered = recover(data, settings=SETTINGS)
    feed(recovered, workload(), 0, 50)
    recovered.close()
    shipper = Shipper(data, Objects(place))
    shipper.start()
    shipper.step()

    def interrupted(_: DirectoryDisk) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("byline.restore_tools.replay", interrupted)
    with pytest.raises(KeyboardInterrupt):
        restore_directory(place, new, to=None, identity=None, replayed=True, embedded_chain=True, console=QUIET)
    assert (new / "journal").exists()
    with pytest.raises(SettingsInvalid, match="bring back yours"):
        check_keys_wanted(new)


@pytest.mark.parametrize("is_embedded", [True, False])
def test_what_is_to_be_done_names_the_step_of_an_embedded_chain(tmp_path: Path, is_embedded: bool) -> None:
    """Settlement's log comes back without the chain that it speaks of, and would wait for that for ever."""
    data, new, place = tmp_path / "data", tmp_path / "new", (tmp_path / "store").as_uri()
    data.mkdir()
    recovered = recover(data, settings=SETTINGS)
    feed(recovered, workload(), 0, 50)
    (data / "settlement").mkdir()
    store = FileBatchStore(data / "settlement" / "batches.log")
    store.append(Sealed(1, sealed(recovered.core.sequence)))
    store.close()
    recovered.close()
    shipper = Shipper(data, Objects(place))
    shipper.start()
    shipper.step()
    console = Console(file=io.StringIO(), width=80)
    restore_directory(
        place, new, to=None, identity=None, replayed=False, embedded_chain=is_embedded, console=console
    )
    told = console.file.getvalue()  # type: ignore[attr-defined]
    step = f"put a copy of its folder to {new}/chain; if there is none, move {new}/settlement away"
    assert (step in told) == is_embedded
    assert told.rstrip().splitlines()[-1].startswith("Next: ")
    assert "stopped while its store was in reach that is all" in told and "If it was cut off, what was" in told


def test_a_restore_to_a_point_says_that_the_rest_is_not_in_it() -> None:
    told = _end_of(7, "2026-11-21", is_point=True)
    assert told.startswith("Records behind sequence 7, if there were any, are not in it") and "cut off" not in told
