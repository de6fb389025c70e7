"""The journal of a busy exchange, published without names, replayed by a stranger; whatever is altered is refused."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from rich.console import Console

from byline.journal_publication import batch_files, publish_journal, verify_published
from byline.settings import load_settings
from engine.messages import layout
from settlement.publication import read_entries

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data directory of an exchange that traded for some seconds and was stopped."""
    directory = tmp_path_factory.mktemp("published") / "data"
    done = subprocess.run(
        [sys.executable, "-m", "byline.cli", "up", "--data", str(directory), "--free-ports", "--seconds", "8",
         "--batch-seconds", "1", "--orders-per-s", "400"],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return directory


@pytest.fixture(scope="module")
def folder(data: Path) -> Path:
    target = data.parent / "published"
    assert publish_journal(load_settings({}, data_directory=data), target, console=Console()) == 0
    return target


def test_it_replays_to_the_stated_trades_and_balances_and_holds_no_name(data: Path, folder: Path, capsys: Any) -> None:
    assert verify_published(folder, None, console=Console()) == 0
    told = capsys.readouterr().out
    entries = list(read_entries(folder))
    assert f"{len(entries):,} batches" in told and "no node was asked" in told
    assert len(entries) == len(batch_files(data)) >= 3
    assert sum(entry.batch.statement.trade_count for entry in entries) > 0
    assert entries[-1].state_hash != entries[-1].batch.statement.state_hash
    published = b"".join(path.read_bytes() for path in sorted(folder.glob("*.records")))
    journal = b"".join(path.read_bytes()[4096:] for path in sorted((data / "journal").glob("*.journal")))
    names = names_in(journal)
    assert len(names) > 50 and not [name for name in names if name in published]
    assert len(published) // layout.SLOT_BYTES > entries[-1].last_sequence // 2


def names_in(journal: bytes) -> set[bytes]:
    """Clients' account names and client ids of orders, as they stand in the journal."""
    import numpy as np

    from engine.messages.codes import CommandKind

    slots = np.frombuffer(journal, layout.COMMAND)
    accounts = slots[slots["kind"] == CommandKind.ACCOUNT].view(layout.ACCOUNT)["name"]
    orders = slots[(slots["kind"] == CommandKind.PLACE) & (slots["slots"] == 1)].view(layout.PLACE)["client_id"]
    house = (b"system:", b"platform:", b"treasury:", b"tax:", b"external:", b"issue:")
    found = {bytes(name) for name in accounts if not bytes(name).startswith(house)}
    return found | {bytes(name) for name in orders if len(bytes(name)) > 7}


def test_publishing_again_writes_the_same_and_refuses_to_change_what_is_there(
    data: Path, folder: Path, tmp_path: Path, capsys: Any
) -> None:
    settings = load_settings({}, data_directory=data)
    again = tmp_path / "again"
    assert publish_journal(settings, again, console=Console()) == 0
    assert {path.name: path.read_bytes() for path in again.iterdir()} == {
        path.name: path.read_bytes() for path in folder.iterdir()
    }
    first = sorted(again.glob("*.records"))[0]
    first.write_bytes(first.read_bytes()[:-128])
    assert publish_journal(settings, again, console=Console()) == 1
    assert "a publication is never changed" in capsys.readouterr().out.replace("\n", " ")


def busy(folder: Path) -> Path:
    """The entry of a batch with trades, not the last."""
    entries = list(read_entries(folder))[:-1]
    number = next(entry.number for entry in reversed(entries) if entry.batch.statement.trade_count)
    return folder / f"{number:010d}.json"


def edit(change: Callable[[dict[str, Any]], None]) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        path = busy(folder)
        content = json.loads(path.read_bytes())
        change(content)
        path.write_text(json.dumps(content))

    return apply


def flip(folder: Path) -> None:
    path = busy(folder).with_suffix(".records")
    data = bytearray(path.read_bytes())
    data[-40] ^= 1
    path.write_bytes(bytes(data))


def reprice(folder: Path) -> None:
    """An operator's forgery: an order's price is another, and the publication agrees with itself."""
    import hashlib

    import numpy as np

    from engine.messages.codes import CommandKind
    from settlement.publication import Entry, digest_after

    entry_path = busy(folder)
    path = entry_path.with_suffix(".records")
    slots = np.frombuffer(path.read_bytes(), layout.COMMAND).copy()
    places = np.flatnonzero(slots["kind"] == CommandKind.PLACE)
    slots.view(layout.PLACE)["price"][places[len(places) // 2]] += 1
    path.write_bytes(slots.tobytes())
    entry = msgspec.json.decode(entry_path.read_bytes(), type=Entry)
    before = msgspec.json.decode((folder / f"{entry.number - 1:010d}.json").read_bytes(), type=Entry)
    sha = hashlib.sha256(slots.tobytes()).digest()
    digest = digest_after(before.digest, entry.number, entry.first_sequence, entry.last_sequence, sha, entry.state_hash)
    entry_path.write_bytes(msgspec.json.encode(msgspec.structs.replace(entry, records_sha256=sha, digest=digest)))


def text(data: bytes) -> str:
    return base64.b64encode(data).decode()


@pytest.mark.parametrize(
    ("alter", "reason"),
    [
        (flip, "another SHA-256"),
        (reprice, "by replay"),
        (lambda folder: (folder / "0000000002.records").unlink(), "its records are missing"),
        (lambda folder: (folder / "0000000002.json").unlink(), "batch 2 is missing"),
        (lambda folder: (folder / "0000000002.json").write_text("{"), "is no entry"),
        (lambda folder: shutil.copy(folder / "0000000001.json", folder / "0000000002.json"), "is of batch 1"),
        (edit(lambda entry: entry.update(state_hash=text(bytes(16)))), "state hash .* by replay"),
        (edit(lambda entry: entry.update(digest=text(bytes(32)))), "digest of the publication"),
        (edit(lambda entry: entry.update(first_sequence=1)), "other sequences"),
        (edit(lambda entry: entry["batch"]["statement"].update(trade_count=0)), "number of trades"),
        (edit(lambda entry: entry["batch"]["statement"].update(liability_root=text(bytes(32)))), "liability root"),
        (edit(lambda entry: entry["batch"]["statement"]["assets"][0].update(owed=1)), "total owed"),
        (
            edit(lambda entry: entry["batch"]["statement"].update(state_hash=text(bytes(16)))),
            "not the batch's root",
        ),
        (edit(lambda entry: entry["batch"].update(root=text(bytes(32)))), "not the batch's root"),
        (edit(lambda entry: entry["batch"]["vaults"][0].update(chain=text(bytes(32)))), "does not follow"),
    ],
)
def test_an_altered_publication_is_refused_with_its_reason(
    folder: Path, tmp_path: Path, capsys: Any, alter: Callable[[Path], None], reason: str
) -> None:
    import re

    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    alter(copy)
    assert verify_published(copy, None, console=Console()) == 1
    told = capsys.readouterr().out.replace("\n", " ")
    assert "REFUSED" in told and re.search(reason, told), told


def test_an_empty_folder_is_no_publication(tmp_path: Path, capsys: Any) -> None:
    assert verify_published(tmp_path, None, console=Console()) == 1
    assert "no published batch" in capsys.readouterr().out
