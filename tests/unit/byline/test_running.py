"""What commands say where no exchange runs, or runs without what they need; and which keys a data directory has."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from rich.console import Console
from typer.testing import CliRunner

from byline import rebuild
from byline.cli import app
from byline.client import generate_key, public_key
from byline.running import check_journal, find_process, running_exchange, running_process
from byline.settings import load_settings
from byline.status_file import StatusFile
from byline.trading_floor import kept_key
from engine.messages.errors import Unavailable
from gateway.keys import KeyRegistry, KeyRegistryCorrupt, load_or_create_key
from persistence.disk import DirectoryDisk


def invoke(*arguments: str, data: Path) -> str:
    """What a command says, and what it raises."""
    result = CliRunner().invoke(app, [*arguments, "--data", str(data)], env={"COLUMNS": "200"})
    return result.output + str(result.exception or "")


def file_text(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


@pytest.fixture
def data(tmp_path: Path) -> Path:
    (tmp_path / "journal").mkdir()
    return tmp_path


COMMANDS = (
    ("status",), ("snapshot",), ("restart", "core"), ("trader", "alice"), ("proof", "user:alice"),
    ("deposit", "USDC", "1"), ("withdraw", "USDC", "1"), ("key", "revoke", "00" * 32), ("people", "verify-audit"),
    ("jobs", "list"), ("events", "list"), ("settle", "pause"), ("settle", "resume", "--note", "x"),
    ("settle", "status"),
)  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_says_alike_that_no_exchange_runs(data: Path, command: tuple[str, ...]) -> None:
    StatusFile(data, "core").write(ready=True, host="127.0.0.1", port=1)
    path = data / "run" / "core.json"
    path.write_text(path.read_text().replace(f'"pid": {os.getpid()}', '"pid": 4194305'))  # above the most of Linux
    told = invoke(*command, data=data)
    assert f"no exchange runs on {data}: start one with `byline up` or `make run`" in told


def test_a_directory_that_is_no_exchanges_is_said_to_be_none(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="is no exchange's data directory: name the right one with --data, or start"):
        running_exchange(tmp_path)
    for command in (("journal", "verify"), ("journal", "truncate", "--to", "1"), ("rebuild",), ("key", "list")):
        told = invoke(*command, data=tmp_path)
        assert told == f"{tmp_path} is no exchange's data directory, it has no journal: name the right one with --data"
    with pytest.raises(Unavailable):
        check_journal(tmp_path)


@pytest.mark.parametrize(
    ("ready", "told"), [(None, "its process core does not run"), (False, "its process core is not ready yet")]
)
def test_a_process_that_is_missing_is_named_with_its_log(data: Path, ready: bool | None, told: str) -> None:
    StatusFile(data, "api").write(ready=True)
    if ready is not None:
        StatusFile(data, "core").write(ready=ready)
    with pytest.raises(Unavailable) as raised:
        running_process(data, "core", instead="or wait")
    assert told in str(raised.value) and f"{data}/logs/core.log, or wait" in str(raised.value)
    assert find_process(data, "core") is None and find_process(data, "api") is not None


def test_a_rebuild_says_that_it_waits_for_postgres_and_how_long(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    StatusFile(data, "core").write(ready=True, released_sequence=7)
    away = {"sequence": 3, "connected": False, "last_error": "connection refused"}
    StatusFile(data, "backoffice").write(ready=True, projection=away)
    monkeypatch.setattr(rebuild, "TOLD_S", 0.05)
    monkeypatch.setattr(rebuild, "STILL_S", 0.3)
    console = Console(file=io.StringIO(), width=80)
    with pytest.raises(Unavailable, match="sequence 0, PostgreSQL is away .connection refused.: see DATA/logs/backoff"):
        rebuild.rebuild_projections(load_settings({}, data_directory=data), console=console)
    told = file_text(console)
    assert told.count("PostgreSQL is away (connection refused): the rebuild waits") == 1
    assert "gives up when nothing has moved for 0 s" in told
    assert (data / rebuild.REQUEST).exists()
    StatusFile(data, "core").write(ready=False, progress=1)
    rebuild.rebuild_projections(load_settings({}, data_directory=data), console=console)
    assert "the exchange is starting: the projections are rebuilt as soon as it has" in file_text(console)


@pytest.fixture
def registry(data: Path) -> Any:
    registry = KeyRegistry(DirectoryDisk(data))
    yield registry
    registry.close()


def test_keys_are_listed_with_what_they_are_for_and_without_a_secret(data: Path, registry: KeyRegistry) -> None:
    operator = load_or_create_key(data / "keys" / "operator.key")
    kept, foreign, ended = kept_key(data, "trader-alice"), generate_key(), generate_key()
    (data / "keys" / "proofs.key").write_bytes(os.urandom(32))
    registry.register(public_key(operator), [], ["operator"], "operator of this data directory", 1)
    registry.register(public_key(kept), ["user:alice"], ["read", "trade"], "key of user:alice", 2, {"tier": "trader"})
    registry.register(public_key(ended), ["user:bob"], ["read"], "old", 3)
    narrowed = {"expires_at": 2 * 10**18, "markets": ["A-B"]}
    registry.register(public_key(foreign), ["user:bob"], ["read"], "", 4, narrowed)
    registry.revoke(public_key(ended), 5)
    told = invoke("key", "list", data=data)
    lines = told.splitlines()
    assert "API keys (3 living):" in lines and public_key(ended) not in told
    assert lines[lines.index(f"  {public_key(kept)}  key of user:alice") + 1] == (
        f"    for user:alice; may read, trade; tier trader; private half: {data}/keys/trader-alice.key"
    )
    assert lines[lines.index(f"  {public_key(foreign)}  no label") + 1] == (
        "    for user:bob; may read; markets A-B; expires_at 2033-05-18T03:33:20+00:00; tier plain"
    )
    assert any(line.startswith("  keys/operator.key") and "(not there)" not in line for line in lines)
    assert any(line.startswith("  chain/operator.key") and line.endswith("(not there)") for line in lines)
    for key in (operator, kept):
        assert key.private_bytes(Encoding.Raw, PrivateFormat.Raw, NoEncryption()).hex() not in told


def test_keys_are_listed_while_the_core_writes_and_not_from_a_damaged_registry(
    data: Path, registry: KeyRegistry
) -> None:
    for number in range(2):
        registry.register(public_key(generate_key()), ["user:a"], ["read"], f"key {number}", 1)
    path = data / "keys" / "registry.log"
    whole = path.read_bytes()
    path.write_bytes(whole[:-9])
    told = invoke("key", "list", data=data)
    assert "key 0" in told and "key 1" not in told and "(1 living)" in told
    assert path.read_bytes() == whole[:-9], "it is the core's to mend"
    path.write_bytes(b"x" + whole[1:])
    result = CliRunner().invoke(app, ["key", "list", "--data", str(data)])
    assert isinstance(result.exception, KeyRegistryCorrupt) and "line 1 at offset 0" in str(result.exception)
