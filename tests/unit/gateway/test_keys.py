"""The registry of API keys: what is answered is on disk, what is torn is blanked, what is damaged refuses to start."""

import os
import stat
from pathlib import Path
from typing import Any

import pytest

from byline.client import generate_key, public_key, sign_in_signature
from gateway.keys import (
    KeyRefused,
    KeyRegistry,
    KeyRegistryCorrupt,
    Scope,
    load_or_create_key,
    sign_in_bytes,
    verify_sign_in,
)
from persistence.disk import DirectoryDisk
from tests.support.syncs import DiskCalls


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "keys").mkdir()
    return tmp_path


def test_registered_and_revoked_keys_survive_a_restart(root: Path) -> None:
    first, second = public_key(generate_key()), public_key(generate_key())
    registry = KeyRegistry(DirectoryDisk(root))
    registry.register(first, ["alice"], ["trade", "read"], "desk", 1)
    registry.register(second, ["bob"], ["cancel_only"], "", 2)
    registry.revoke(second, 3)
    registry.close()
    again = KeyRegistry(DirectoryDisk(root))
    assert again.find(second) is None
    entry = again.find(first)
    assert entry is not None and entry.accounts == ("alice",) and entry.scopes == Scope.TRADE | Scope.READ
    again.close()


@pytest.mark.parametrize("cut", [1, 5, 20])
def test_a_torn_last_line_is_forgotten_and_the_log_goes_on(root: Path, cut: int) -> None:
    first, second, third = (public_key(generate_key()) for _ in range(3))
    registry = KeyRegistry(DirectoryDisk(root))
    registry.register(first, ["a"], ["trade"], "", 1)
    registry.register(second, ["a"], ["trade"], "", 1)
    registry.close()
    path = root / "keys/registry.log"
    os.truncate(path, path.stat().st_size - cut)
    again = KeyRegistry(DirectoryDisk(root))
    assert again.find(first) is not None and again.find(second) is None
    again.register(third, ["a"], ["trade"], "", 2)
    again.close()
    last = KeyRegistry(DirectoryDisk(root))
    assert last.find(first) is not None and last.find(third) is not None and len(last) == 2
    last.close()


def test_damage_in_the_middle_refuses_to_start(root: Path) -> None:
    registry = KeyRegistry(DirectoryDisk(root))
    for _ in range(2):
        registry.register(public_key(generate_key()), ["a"], ["trade"], "", 1)
    registry.close()
    path = root / "keys/registry.log"
    data = bytearray(path.read_bytes())
    data[30] ^= 1
    path.write_bytes(data)
    with pytest.raises(KeyRegistryCorrupt, match="line 1"):
        KeyRegistry(DirectoryDisk(root))


@pytest.mark.parametrize(
    ("key", "accounts", "scopes", "field"),
    [
        ("zz", ["a"], ["trade"], "key"),
        (None, ["a"], ["trade"], "key"),
        ("A" * 64, ["a"], ["trade"], "key"),
        ("00 " * 21 + "0", ["a"], ["trade"], "key"),
        ("\u0660" * 64, ["a"], ["trade"], "key"),
        ("0" * 64 + "\n", ["a"], ["trade"], "key"),
        ("0" * 64, ["a", "b", "a"], ["trade"], "accounts"),
        ("0" * 64, ["\ud800"], ["trade"], "accounts"),
        ("0" * 64, "a", ["trade"], "accounts"),
        ("0" * 64, [], ["trade"], "accounts"),
        ("0" * 64, ["a"], [], "scopes"),
        ("0" * 64, ["a"], ["fly"], "scopes"),
        ("0" * 64, ["a"], [7], "scopes"),
    ],
)
def test_a_bad_registration_names_its_field_and_writes_nothing(
    root: Path, key: object, accounts: object, scopes: object, field: str
) -> None:
    registry = KeyRegistry(DirectoryDisk(root))
    with pytest.raises(KeyRefused) as refused:
        registry.register(key, accounts, scopes, "", 1)  # type: ignore[arg-type]
    assert refused.value.field == field
    assert (root / "keys/registry.log").stat().st_size == 0
    registry.close()


@pytest.mark.parametrize("label", ["\ud800", "caf\u00e9", "two\nlines", "x" * 65, 7])
def test_a_label_is_short_and_printable(root: Path, label: object) -> None:
    registry = KeyRegistry(DirectoryDisk(root))
    with pytest.raises(KeyRefused) as refused:
        registry.register("0" * 64, ["a"], ["trade"], label, 1)  # type: ignore[arg-type]
    assert refused.value.field == "label" and len(registry) == 0
    registry.close()


def test_operator_key_is_made_once_and_private(tmp_path: Path) -> None:
    path = tmp_path / "keys/operator.key"
    made = load_or_create_key(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert public_key(load_or_create_key(path)) == public_key(made)


def test_the_name_of_a_key_is_on_disk_before_it_is_used_also_when_an_earlier_start_could_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, disk = tmp_path / "keys" / "receipts.key", DiskCalls(monkeypatch)
    disk.refused = path.parent
    with pytest.raises(OSError, match="cannot be synced"):
        load_or_create_key(path)
    assert path.exists() and not disk.has_durable(path)
    load_or_create_key(path)
    assert disk.has_durable(path)


def test_f67_signature_binds_environment_epoch_and_nonce() -> None:
    key = generate_key()
    signature = sign_in_signature(key, "local", 1, "ab" * 32)
    assert verify_sign_in(public_key(key), signature, sign_in_bytes("local", 1, "ab" * 32))
    for other in (("live", 1, "ab" * 32), ("local", 2, "ab" * 32), ("local", 1, "cd" * 32)):
        assert not verify_sign_in(public_key(key), signature, sign_in_bytes(*other))
    assert not verify_sign_in(public_key(key), "zz" * 64, b"")


class FailingFile:
    """A file whose sync fails while `sync_fails`, and whose writes fail too while `write_fails`."""

    def __init__(self, file: Any) -> None:
        self.file = file
        self.sync_fails = self.write_fails = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)

    def write_at(self, at: int, data: bytes) -> int:
        if self.write_fails:
            raise OSError(5, "input/output error")
        return int(self.file.write_at(at, data))

    def sync(self) -> None:
        if self.sync_fails:
            raise OSError(5, "input/output error")
        self.file.sync()


class OneFileDisk(DirectoryDisk):
    file: FailingFile

    def open(self, path: str, *, create: bool = False) -> Any:
        self.file = FailingFile(super().open(path, create=create))
        return self.file


def test_a_refused_registration_or_revocation_is_none_after_a_restart_either(root: Path) -> None:
    first, second, third = (public_key(generate_key()) for _ in range(3))
    disk = OneFileDisk(root)
    registry = KeyRegistry(disk)
    registry.register(first, ["alice"], ["trade"], "", 1)
    disk.file.sync_fails = True
    for attempt in (lambda: registry.register(second, ["alice"], ["withdraw"], "a longer label than the others", 1),
                    lambda: registry.revoke(first, 2)):  # fmt: skip
        with pytest.raises(OSError, match="input/output"):
            attempt()
        assert registry.find(second) is None and registry.find(first) is not None
    disk.file.write_fails = True  # nor can it be taken back: nothing else is taken before that
    with pytest.raises(OSError, match="input/output"):
        registry.register(third, ["alice"], ["read"], "", 3)
    disk.file.sync_fails = disk.file.write_fails = False
    registry.register(third, ["alice"], ["read"], "", 3)
    registry.close()
    again = KeyRegistry(DirectoryDisk(root))
    assert {key.key for key in again.living()} == {first, third} and not list(again.revoked())
    again.revoke(first, 4)
    again.close()
    last = KeyRegistry(DirectoryDisk(root))
    assert {key.key for key in last.living()} == {third} and list(last.revoked()) == [first]
    last.register(first, ["alice"], ["read"], "", 5)
    assert not list(last.revoked())
    last.close()


@pytest.mark.parametrize(
    ("field", "value"),
    [("markets", ["A-B"]), ("collar_ppm", 5), ("tier", "plain"), ("protection", {"window_ms": 1, "fills": 1})],
)
def test_an_operators_key_is_not_narrowed_by_what_would_not_hold(root: Path, field: str, value: object) -> None:
    registry = KeyRegistry(DirectoryDisk(root))
    with pytest.raises(KeyRefused) as refused:
        registry.register(public_key(generate_key()), [], ["operator"], "", 1, {field: value})
    assert refused.value.field == field
    kept = {"addresses": ["10.0.0.0/8"], "expires_at": 5}
    entry = registry.register(public_key(generate_key()), [], ["operator"], "", 1, kept)
    assert entry.restrictions.addresses == ("10.0.0.0/8",)
    registry.close()


@pytest.mark.parametrize("label_bytes", [0, 30, 64])
def test_a_bit_that_turned_in_the_last_line_brings_no_revoked_key_back(root: Path, label_bytes: int) -> None:
    """A line that is all there was answered: that its sum differs is damage, not a write that was cut short."""
    key = public_key(generate_key())
    registry = KeyRegistry(DirectoryDisk(root))
    registry.register(key, ["a", "b" * label_bytes or "b"], ["trade", "withdraw"], "l" * label_bytes, 1)
    registry.revoke(key, 2)
    registry.close()
    path = root / "keys/registry.log"
    data = path.read_bytes()
    begin = data[:-1].rfind(b"\n") + 1
    for bit in range(begin * 8, len(data) * 8):
        broken = bytearray(data)
        broken[bit // 8] ^= 1 << bit % 8
        path.write_bytes(broken)
        with pytest.raises(KeyRegistryCorrupt, match="line 2"):
            KeyRegistry(DirectoryDisk(root))
        assert path.read_bytes() == broken


def test_a_last_line_cut_at_any_byte_or_without_a_sector_is_forgotten(root: Path) -> None:
    first, second = public_key(generate_key()), public_key(generate_key())
    registry = KeyRegistry(DirectoryDisk(root))
    registry.register(first, ["a"], ["trade"], "", 1)
    begin = (root / "keys/registry.log").stat().st_size
    registry.register(second, ["b" * 400, "c" * 400], ["trade"], "", 1)
    registry.close()
    path = root / "keys/registry.log"
    data = path.read_bytes()
    torn = [data[:size] for size in range(begin, len(data))]
    for sector in range(begin // 512, -(-len(data) // 512)):  # lost by the write, or taken by its blanking
        head, stop = max(begin, sector * 512), min(len(data), (sector + 1) * 512)
        torn.append(data[:head] + bytes(stop - head) + data[stop:])
    edge = (begin // 512 + 1) * 512
    torn.append(data[:edge] + b"\n" * (len(data) - edge))
    edge = (len(data) - 1) // 512 * 512
    torn.append(data[:begin] + b"\n" * (edge - begin) + data[edge:])
    for left in torn:
        path.write_bytes(left)
        again = KeyRegistry(DirectoryDisk(root))
        assert again.find(first) is not None and again.find(second) is None
        again.close()
