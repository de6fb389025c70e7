"""Keys are sealed on disk, opened only by their lock, never shown; other programs sign and are checked."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import sys
from pathlib import Path

import pytest

from engine.messages.errors import Refused, SettingsInvalid, Unavailable
from settlement.chain.keys import OperatorKey, signer_of
from settlement.chain.sealed_key import KeyLock, address_in, default_key_file, write_seed
from settlement.chain.signer import ExternalSigner
from settlement.proof_desk import load_proof_key
from tests.support.chain_key import OPERATOR, SEED
from tests.support.syncs import DiskCalls

TRANSACTION = b"transaction bytes"


@pytest.fixture(params=["passphrase", "file"])
def lock(request: pytest.FixtureRequest, tmp_path: Path) -> KeyLock:
    if request.param == "passphrase":
        return KeyLock("correct horse")
    return KeyLock(key_file=tmp_path / "elsewhere" / "wrapping.key")


def test_a_key_is_made_once_and_opened_again(tmp_path: Path, lock: KeyLock) -> None:
    path = tmp_path / "data" / "operator.key"
    first = OperatorKey.load_or_create(path, lock)
    again = OperatorKey.load_or_create(path, lock)
    assert again.address == first.address == address_in(path) and list(path.parent.iterdir()) == [path]
    assert signer_of(again.sign(TRANSACTION), TRANSACTION) == first.address
    assert path.stat().st_mode & 0o777 == 0o600


def test_nothing_in_the_data_directory_shows_the_key(tmp_path: Path, lock: KeyLock) -> None:
    path = tmp_path / "data" / "operator.key"
    path.parent.mkdir()
    path.write_text(SEED.hex() + "\n")
    path.chmod(0o600)
    key = OperatorKey.load(path, lock)
    assert key.address == OPERATOR.address, "a key of an older version, in clear, opens once more"
    stored = path.read_bytes()
    assert SEED not in stored and SEED.hex().encode() not in stored and json.loads(stored)["byline_key"] == 1
    assert OperatorKey.load(path, lock).address == OPERATOR.address
    for shown in (repr(key), str(key), repr(lock), str(vars(type(key)))):
        assert SEED.hex() not in shown and "correct horse" not in shown


def test_another_lock_does_not_open_it(tmp_path: Path) -> None:
    path, passphrase, file = tmp_path / "k", KeyLock("one"), KeyLock(key_file=tmp_path / "w")
    OperatorKey.load_or_create(path, passphrase)
    with pytest.raises(SettingsInvalid, match="does not open with this passphrase"):
        OperatorKey.load(path, KeyLock("two"))
    with pytest.raises(SettingsInvalid, match="sealed with a passphrase; set BYLINE_KEY_PASSPHRASE"):
        OperatorKey.load(path, file)
    OperatorKey.load_or_create(tmp_path / "k2", file)
    (tmp_path / "w").unlink()
    with pytest.raises(SettingsInvalid, match="the file that opens the keys is gone"):
        OperatorKey.load(tmp_path / "k2", file)


@pytest.mark.parametrize("kind", ["operator", "replaced", "proofs"])
def test_a_fresh_keys_name_is_on_disk_before_the_key_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """After a power cut the file would else be gone, and what was made with the key be nobody's."""
    path = tmp_path / "keys" / "k"
    synced: list[tuple[int, bool]] = []
    fsync = os.fsync

    def note(descriptor: int) -> None:
        fsync(descriptor)
        synced.append((os.fstat(descriptor).st_ino, path.exists()))

    monkeypatch.setattr(os, "fsync", note)
    if kind == "proofs":
        load_proof_key(path)
    else:
        write_seed(path, SEED, OPERATOR.address, KeyLock("correct horse"), replace=kind == "replaced")
    assert {(path.parent.stat().st_ino, True), (tmp_path.stat().st_ino, True)} <= set(synced)
    assert (path.stat().st_ino, False) in synced, "what it holds comes before its name"


@pytest.mark.parametrize("kind", ["operator", "proofs"])
def test_a_name_that_a_start_could_not_keep_is_kept_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    path, disk = tmp_path / "keys" / "k", DiskCalls(monkeypatch)

    def load() -> None:
        if kind == "proofs":
            load_proof_key(path)
        else:
            OperatorKey.load_or_create(path, KeyLock("correct horse"))

    disk.refused = path.parent
    with pytest.raises(OSError, match="cannot be synced"):
        load()
    assert path.exists() and not disk.has_durable(path)
    load()
    assert disk.has_durable(path) and ("sync", tmp_path) in disk.calls


def test_every_changed_byte_of_a_sealed_key_is_noticed(tmp_path: Path) -> None:
    path, lock = tmp_path / "k", KeyLock(key_file=tmp_path / "w")
    OperatorKey.load_or_create(path, lock)
    body = json.loads(path.read_text())
    for name in ("address", "salt", "nonce", "sealed"):
        for position in range(2, len(body[name])):
            changed = "1" if body[name][position] != "1" else "2"
            path.write_text(json.dumps(body | {name: body[name][:position] + changed + body[name][position + 1 :]}))
            with pytest.raises(SettingsInvalid):
                OperatorKey.load(path, lock)


@pytest.mark.parametrize(("text", "why"), [("zz", "64 hex digits"), ("{}", "no sealed key"), ("{", "no sealed key")])
def test_what_is_no_key_is_refused(tmp_path: Path, text: str, why: str) -> None:
    path, lock = tmp_path / "k", KeyLock("p")
    path.write_text(text)
    path.chmod(0o644)
    with pytest.raises(SettingsInvalid, match="mode 0600"):
        OperatorKey.load(path, lock)
    path.chmod(0o600)
    with pytest.raises(SettingsInvalid, match=why):
        OperatorKey.load(path, lock)


def test_the_users_own_key_file_lies_in_the_configuration_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    assert default_key_file() == tmp_path / "config/byline/wrapping.key"
    OperatorKey.load_or_create(tmp_path / "data" / "k", KeyLock())
    assert default_key_file().stat().st_mode & 0o777 == 0o600
    (tmp_path / "blocked").write_text("")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "blocked"))
    with pytest.raises(SettingsInvalid, match="cannot keep a key file there"):
        OperatorKey.load_or_create(tmp_path / "data" / "k2", KeyLock())


# ---------------------------------------------------------------- another program signs


async def test_a_signer_of_its_own_process_signs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BYLINE_KEY_PASSPHRASE", "correct horse")
    path = tmp_path / "k"
    key = OperatorKey.load_or_create(path, KeyLock("correct horse"))
    signer = await ExternalSigner.start(f"{sys.executable} -m settlement.chain.signer_process --key {path}")
    try:
        assert signer.address == key.address
        assert await signer.sign_transaction(TRANSACTION) == key.sign(TRANSACTION)
        assert signer._process is not None
        signer._process.kill()
        await signer._process.wait()
        assert await signer.sign_transaction(TRANSACTION) == key.sign(TRANSACTION), "started again"
    finally:
        await signer.close()


def _program(directory: Path, body: str) -> str:
    path = directory / "signer.py"
    path.write_text(f"import json, sys, time\nfor line in sys.stdin:\n    request = json.loads(line)\n{body}")
    return f"{sys.executable} {path}"


ADDRESS = f"    if request['op'] == 'address': print(json.dumps({{'address': '{OPERATOR.address}'}}), flush=True)\n"


async def test_the_answer_to_a_question_that_was_cancelled_is_nobody_elses(tmp_path: Path) -> None:
    slow = (
        "    else:\n        import os\n"
        f"        if not os.path.exists({str(tmp_path / 'asked')!r}):\n"
        f"            open({str(tmp_path / 'asked')!r}, 'w').close()\n"
        f"            while not os.path.exists({str(tmp_path / 'go')!r}): time.sleep(0.01)\n"
        "        print(json.dumps({'error': request['transaction']}), flush=True)\n"
    )
    signer = await ExternalSigner.start(_program(tmp_path, ADDRESS + slow))
    try:
        first = asyncio.create_task(signer.sign_transaction(b"first"))
        while not (tmp_path / "asked").exists():
            await asyncio.sleep(0.01)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        (tmp_path / "go").touch()
        for text in (b"second", b"third"):
            with pytest.raises(Refused, match=base64.b64encode(text).decode()):
                await signer.sign_transaction(text)
    finally:
        await signer.close()


@pytest.mark.parametrize(
    ("answer", "error", "why"),
    [
        ("print(json.dumps({'error': 'the policy forbids it'}), flush=True)", Refused, "the policy forbids it"),
        ("print(json.dumps({'signature': 'AAAA'}), flush=True)", Refused, "no signature of these bytes"),
        ("print(json.dumps({'signature': '%%'}), flush=True)", Refused, "no signature"),
        ("print(json.dumps({}), flush=True)", Refused, "no signature"),
        ("print('hello', flush=True)", Unavailable, "something else than a JSON object"),
        ("sys.exit(1)", Unavailable, "has ended"),
        ("time.sleep(60)", Unavailable, "does not answer"),
    ],
)
async def test_a_signer_that_misbehaves_is_refused(tmp_path: Path, answer: str, error: type, why: str) -> None:
    command = _program(tmp_path, ADDRESS + f"    else: {answer}\n")
    signer = await ExternalSigner.start(command, timeout_s=10.0)
    signer._timeout_s = 1.0 if "sleep" in answer else 10.0
    try:
        with pytest.raises(error, match=why):
            await signer.sign_transaction(TRANSACTION)
    finally:
        await signer.close()


async def test_a_signature_of_another_key_or_of_other_bytes_is_refused(tmp_path: Path) -> None:
    other = OperatorKey(b"\x05" * 32)
    for signature, why in (
        (other.sign(TRANSACTION), "with the key of"),
        (OPERATOR.sign(b"other bytes"), "no signature of these bytes"),
    ):
        text = base64.b64encode(signature).decode()
        reply = f"print(json.dumps({{'signature': '{text}'}}), flush=True)"
        signer = await ExternalSigner.start(_program(tmp_path, ADDRESS + f"    else: {reply}\n"))
        try:
            with pytest.raises(Refused, match=why):
                await signer.sign_transaction(TRANSACTION)
        finally:
            await signer.close()


async def test_a_command_that_is_no_signer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsInvalid, match="cannot be started"):
        await ExternalSigner.start("/nonexistent/signer")
    with pytest.raises(SettingsInvalid, match="names no address"):
        await ExternalSigner.start(_program(tmp_path, "    print('{}', flush=True)\n"))
