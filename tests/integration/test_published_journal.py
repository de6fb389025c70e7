"""The journal of a busy exchange, published without names, replayed by a stranger; whatever is altered is refused."""

from __future__ import annotations

import asyncio
import base64
import dataclasses
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from rich.console import Console

from byline.journal_publication import batch_files, publish_journal, verify_published
from byline.settings import load_settings
from engine.messages import layout
from settlement.chain.reader import NodeReader
from settlement.history import check_history
from settlement.publication import read_entries
from settlement.verify import Executed, NodeFacts, Refuted, check_executed

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


@pytest.fixture(scope="module")
def node(data: Path) -> Iterator[str]:
    """The exchange's own chain, on a node that runs without the exchange."""
    operator = json.loads((data / "chain" / "operator.key").read_bytes())["address"]
    argv = [sys.executable, "-m", "settlement.chain.localsui", "run", "--operator", operator, "--port", "0"]
    shutil.copytree(data / "chain", data.parent / "chain")
    process = subprocess.Popen([*argv, "--data", str(data.parent / "chain")], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    yield f"http://127.0.0.1:{json.loads(process.stdout.readline())['port']}"
    process.terminate()
    process.wait()


def test_with_a_node_every_transaction_and_vault_of_every_batch_is_held_against_it(
    folder: Path, node: str, capsys: Any
) -> None:
    assert verify_published(folder, node, console=Console(highlight=False)) == 0
    told = capsys.readouterr().out
    last = len(list(read_entries(folder)))
    assert f"the transactions of batches 1 to {last - 1:,} took effect" in told and "to exactly these vaults" in told
    assert "no statement vouches for these records yet" in told and "is vouched for" not in told


def without_vault(entry: dict[str, Any]) -> None:
    entry["batch"]["vaults"] = [link for link in entry["batch"]["vaults"] if link["asset"] != "USDC"]


def in_every_entry(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        for path in folder.glob("*.json"):
            content = json.loads(path.read_bytes())
            change(content)
            path.write_text(json.dumps(content, indent=1))

    return apply


def borrowed_digests(folder: Path) -> None:
    """A batch names the transaction of the batch after it, which is a genuine one."""
    path = busy(folder)
    later = json.loads((folder / f"{int(path.stem) + 1:010d}.json").read_bytes())["batch"]["digests"]
    content = json.loads(path.read_bytes())
    content["batch"]["digests"] = later
    path.write_text(json.dumps(content))


def edit(change: Callable[[dict[str, Any]], None]) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        path = busy(folder)
        content = json.loads(path.read_bytes())
        change(content)
        path.write_text(json.dumps(content))

    return apply


@pytest.mark.parametrize(
    ("alter", "reason"),
    [
        (edit(lambda entry: entry["batch"].update(digests=["9" * 44])), "batch [0-9]+: .*(knows no|is no digest)"),
        (edit(lambda entry: entry["batch"].update(digests=["1" * 32])), "batch [0-9]+: the node knows no transaction"),
        (borrowed_digests, "batch [0-9]+: transaction .* on the chain"),
        (in_every_entry(without_vault), "is about the vault 0x.* too, which the file leaves out"),
        (
            in_every_entry(lambda entry: entry["batch"].update(vaults=[])),
            "REFUSED the file names no vault",
        ),
        (
            in_every_entry(lambda entry: [v.update(coin_type="0x2::sui::SUI") for v in entry["batch"]["vaults"]]),
            "coin_type is 0x.* on the chain",
        ),
    ],
)
def test_what_only_the_chain_can_refute_is_refuted_by_it(
    folder: Path, node: str, tmp_path: Path, capsys: Any, alter: Callable[[Path], None], reason: str
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    alter(copy)
    assert verify_published(copy, None, console=Console(highlight=False)) == 0
    assert "which transactions, vaults and coins they went to, is not checked" in capsys.readouterr().out
    assert verify_published(copy, node, console=Console(highlight=False)) == 1
    told = capsys.readouterr().out
    assert "REFUSED" in told and re.search(reason, told), told


def test_a_node_that_has_dropped_old_transactions_says_so_and_may_miss_the_first_alone(
    folder: Path, node: str
) -> None:
    batches = [entry.batch for entry in read_entries(folder)]

    class Dropping(NodeReader):
        """Keeps what comes after batch 2, and, told to, not the transactions of a later one."""

        gone: set[str]
        first = 9

        async def facts(self) -> NodeFacts:
            return dataclasses.replace(await super().facts(), first_checkpoint=self.first)

        async def transaction(self, digest: str) -> Executed | None:
            return None if digest in self.gone else await super().transaction(digest)

    async def first(*gone: int, keeps_from: int = 9) -> int:
        reader = Dropping(node)
        reader.gone = {digest for number in gone for digest in batches[number - 1].digests}
        reader.first = keeps_from
        try:
            package = (await check_executed(batches[-1], reader)).package
            return await check_history(batches[:-1], package, reader, lambda _: None)
        finally:
            await reader.close()

    assert asyncio.run(first()) == 1
    assert asyncio.run(first(1)) == 2 and asyncio.run(first(*range(1, len(batches)))) == len(batches)
    with pytest.raises(Refuted, match="batch 2: the node knows no transaction"):
        asyncio.run(first(2))
    with pytest.raises(Refuted, match="batch 1: the node knows no transaction"):
        asyncio.run(first(1, keeps_from=0))


def test_an_earlier_batch_that_is_said_to_have_no_vault_is_asked_for_its_transaction_too(
    folder: Path, node: str
) -> None:
    """A market opens its vaults before its first batch or after it: which batch is the earlier one is no matter."""
    batches = [entry.batch for entry in read_entries(folder)]
    at = next(at for at, batch in enumerate(batches) if batch.vaults and at < len(batches) - 1)
    loud = [*batches[:at], msgspec.structs.replace(batches[at], vaults=[]), *batches[at + 1 : -1]]

    async def check() -> None:
        reader = NodeReader(node)
        try:
            package = (await check_executed(batches[-1], reader)).package
            await check_history(loud, package, reader, lambda _: None)
        finally:
            await reader.close()

    with pytest.raises(Refuted, match=f"batch {at + 1}: transaction .* is about the vault 0x.*, the file names no va"):
        asyncio.run(check())


def busy(folder: Path) -> Path:
    """The entry of a batch with trades, not the last."""
    entries = list(read_entries(folder))[:-1]
    number = next(entry.number for entry in reversed(entries) if entry.batch.statement.trade_count)
    return folder / f"{number:010d}.json"


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
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    alter(copy)
    assert verify_published(copy, None, console=Console()) == 1
    told = capsys.readouterr().out.replace("\n", " ")
    assert "REFUSED" in told and re.search(reason, told), told


def test_an_empty_folder_is_no_publication(tmp_path: Path, capsys: Any) -> None:
    assert verify_published(tmp_path, None, console=Console()) == 1
    assert "no published batch" in capsys.readouterr().out
