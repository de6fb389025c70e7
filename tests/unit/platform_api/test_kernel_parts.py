"""Sealed columns, redaction, roles, and the letters of the built-in mail provider."""

import email.policy
import io
import logging
import stat
from datetime import UTC, datetime, timedelta, timezone
from uuid import UUID

import pytest
import structlog

from engine.messages.errors import Refused, SettingsInvalid, Unavailable
from platform_api.errors import timestamp
from platform_api.kernel.sealing import KeyRing, NotOurs, SealedColumn, Sealer, load_ring, rotate
from platform_api.logs import configure_logs
from platform_api.mail import OutboxFolder
from platform_api.permissions import DEPARTMENTS, ROLES, Grant, may, permissions_of
from platform_api.ports import Letter
from platform_api.redaction import REDACTED, redacted
from platform_api.security import load_signing_key
from tests.support.syncs import DiskCalls

COLUMN, OTHER = SealedColumn("identity.account", "email_sealed"), SealedColumn("identity.account", "other")
ROW = UUID(int=7)


def test_sealed_value_opens_in_its_row_and_column_alone():
    sealer = Sealer(KeyRing.fresh())
    sealed = sealer.seal(COLUMN, ROW, "ink@example.org")
    assert b"ink" not in sealed and sealer.open(COLUMN, ROW, sealed) == "ink@example.org"
    assert sealer.seal(COLUMN, ROW, "ink@example.org") != sealed
    changed = [sealed[:i] + bytes([sealed[i] ^ 1]) + sealed[i + 1 :] for i in range(len(sealed))]
    for value in [*changed, sealed[:-1], b"", sealed[:10]]:
        with pytest.raises(NotOurs):
            sealer.open(COLUMN, ROW, value)
    for column, row in ((OTHER, ROW), (COLUMN, UUID(int=8))):
        with pytest.raises(NotOurs):
            sealer.open(column, row, sealed)
    with pytest.raises(NotOurs):
        Sealer(KeyRing.fresh()).open(COLUMN, ROW, sealed)


def test_ring_on_disk_is_made_private_turned_and_refused_when_it_is_no_ring(tmp_path):
    path = tmp_path / "keys" / "columns.json"
    first = load_ring(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600 and load_ring(path) == first
    old = Sealer(first)
    sealed, digest = old.seal(COLUMN, ROW, "x"), old.digest("email", "x")
    assert rotate(path) == 2
    turned = Sealer(load_ring(path))
    assert turned.newest == 2 and turned.open(COLUMN, ROW, sealed) == "x" and turned.digest("email", "x") == digest
    assert turned.digest("phone", "x") != digest
    with pytest.raises(NotOurs):
        old.open(COLUMN, ROW, turned.seal(COLUMN, ROW, "x"))
    assert "keys=" not in repr(first) and first.index_key.hex() not in repr(first)
    path.chmod(0o644)
    with pytest.raises(SettingsInvalid, match="chmod"):
        load_ring(path)
    for text in ("", "{}", '{"index_key": "AA==", "keys": {"1": "AA=="}}', '{"index_key": "", "keys": {}}'):
        path.write_text(text)
        path.chmod(0o600)
        with pytest.raises(SettingsInvalid, match="holds no key ring"):
            load_ring(path)


def test_secrets_are_taken_out_wherever_they_stand():
    token = "eyJhbGciOiJFZERTQSJ9.eyJzdWIiOiJ4In0.c2lnbmF0dXJl"
    given = {
        "access_token": "a", "Authorization": "Bearer abc", "deep": [{"signature": "s", "note": f"token {token}!"}],
        "text": "write to ink@example.org", "public_key": "d75a", "nonce": None, "count": 3,
    }  # fmt: skip
    assert redacted(given) == {
        "access_token": REDACTED, "Authorization": REDACTED,
        "deep": [{"signature": REDACTED, "note": f"token {REDACTED}!"}],
        "text": f"write to {REDACTED}", "public_key": "d75a", "nonce": None, "count": 3,
    }  # fmt: skip


@pytest.mark.parametrize("as_json", [False, True])
def test_log_lines_are_one_line_each_with_the_bound_facts_and_no_secrets(as_json):
    out, root = io.StringIO(), logging.getLogger()
    handlers, level = root.handlers[:], root.level
    try:
        configure_logs(as_json=as_json, stream=out)
        with structlog.contextvars.bound_contextvars(request_id="r-1"):
            structlog.get_logger("ours").info("sign_in", account_id="a", refresh_token="hidden", note='two\nlines "q"')
            logging.getLogger("theirs").warning("event=old key=%s", "Bearer abcdefghijklmnopqrstuvwxyz")
    finally:
        root.handlers[:], root.level = handlers, level
        structlog.reset_defaults()
    ours, theirs = out.getvalue().splitlines()
    for word in ("sign_in", "r-1", "ours", "info"):
        assert word in ours
    assert "hidden" not in ours and "abcdefghij" not in theirs and "event=old" in theirs and "r-1" in theirs
    assert ours.startswith("{") is as_json


@pytest.mark.parametrize("fraction", [0, 1, 10, 123_456, 500_000, 999_999])
@pytest.mark.parametrize("zone", [UTC, timezone(timedelta(0)), timezone(timedelta(hours=5, minutes=30))])
def test_times_are_told_in_utc_with_six_decimals_always(fraction, zone):
    at = datetime(2026, 3, 1, 2, 30, 0, fraction, tzinfo=zone)
    told = timestamp(at)
    assert (datetime.fromisoformat(told), len(told), told[-8], told[-1]) == (at, 27, ".", "Z")


def test_f70_roles_permit_what_the_table_says():
    member = ROLES["member"]
    assert permissions_of(()) == member
    assert permissions_of([Grant("creator")]) == member | ROLES["creator"]
    narrow = permissions_of([Grant("admin", ("users", "payments"))])
    assert narrow == member | DEPARTMENTS["users"] | DEPARTMENTS["payments"]
    assert not may(narrow, "audit_logs") and may(permissions_of([Grant("admin")]), "audit_logs")
    assert may(permissions_of([Grant("super_admin")]), "manage_markets")
    assert not may(permissions_of([Grant("admin")]), "manage_markets")
    assert not may(permissions_of([Grant("moderator")]), "create_ip")
    with pytest.raises(KeyError):
        may(member, "no_such_permission")
    assert all(departments <= ROLES["admin"] for departments in DEPARTMENTS.values())


async def test_keys_and_letters_are_there_after_a_loss_of_power(tmp_path, monkeypatch):
    """A lost ring is lost data, and a letter that counts as sent is not sent again."""
    disk, keys = DiskCalls(monkeypatch), tmp_path / "keys"
    load_ring(keys / "columns.json")
    assert disk.has_durable(keys / "columns.json") and disk.has_durable(keys), "the directory was made, too"
    disk.calls.clear()
    rotate(keys / "columns.json")
    load_signing_key(keys / "access-token.key")
    await OutboxFolder(tmp_path / "mail", "a@b.c").send(Letter("1", "ink@example.org", "s", "t"))
    for path in (keys / "columns.json", keys / "access-token.key", tmp_path / "mail" / "1.eml"):
        assert disk.has_durable(path), path
    disk.refused = tmp_path / "mail"
    with pytest.raises(Unavailable):
        await OutboxFolder(tmp_path / "mail", "a@b.c").send(Letter("2", "ink@example.org", "s", "t"))


async def test_letters_become_private_files_once_each(tmp_path):
    folder = OutboxFolder(tmp_path / "mail", "Byline <no-reply@byline.invalid>")
    letter = Letter("0197-a", "ink@example.org", "Grüße", "token\n")
    await folder.send(letter)
    await folder.send(letter)
    (path,) = (tmp_path / "mail").iterdir()
    assert path.name == "0197-a.eml" and stat.S_IMODE(path.stat().st_mode) == 0o600
    message = email.message_from_bytes(path.read_bytes(), policy=email.policy.default)
    assert (message["To"], message["Subject"]) == ("ink@example.org", "Grüße") and "token" in message.get_content()
    for bad in (Letter("../x", "a@b.c", "s", "t"), Letter("x", "a@b.c\nBcc: d@e.f", "s", "t")):
        with pytest.raises(Refused):
            await folder.send(bad)
    assert len(list((tmp_path / "mail").iterdir())) == 1
