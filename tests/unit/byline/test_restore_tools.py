"""What `byline restore` compares before anything is moved into place."""

from __future__ import annotations

from pathlib import Path

import pytest
from rich.console import Console

from byline.rebuild import REQUEST
from byline.restore_tools import restore_directory
from engine.messages.errors import JournalCorrupt
from persistence.backup import Objects, Shipper
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
    arguments = {"to": None, "identity": None, "replayed": False, "console": QUIET}
    if ahead:
        with pytest.raises(JournalCorrupt, match=f"ends with sequence {last}, but batch 1 was sealed up to sequence"):
            restore_directory(place, new, **arguments)  # type: ignore[arg-type]
        assert not (new / "journal").exists() and not (new / "settlement").exists()
    else:
        assert restore_directory(place, new, **arguments) == 0  # type: ignore[arg-type]
        assert (new / "settlement" / "batches.log").exists() and (new / REQUEST).exists()
