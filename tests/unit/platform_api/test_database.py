"""The pool does not reset its connections, so no statement of the platform may leave anything on one."""

import re
from pathlib import Path

import pytest

from platform_api.database import insertion

PLATFORM = Path(__file__).parents[3] / "platform_api"
OF_A_SESSION = re.compile(
    r"[\"';]\s*set\s+(?!local\b)(session\b|role\b|time\b|[\w.]+\s*(=|to\b))"
    r"|\bset_config\s*\(|\bpg_(try_)?advisory_lock(_shared)?\b|[\"';]listen\s+\w"
    r"|\bdeclare\s+\w+\s+cursor\b|\bcreate\s+temp(orary)?\b|\bprepare\s+\w+\s+as\b"
    r"|\.(add_listener|add_log_listener|set_type_codec)\(",
    re.IGNORECASE,
)


@pytest.mark.parametrize(
    "statement",
    ['"SET search_path TO works"', '"SELECT 1; SET ROLE admin"', '"set time zone 1"', "SELECT pg_advisory_lock(1)",
     "SELECT pg_try_advisory_lock(1)", '"LISTEN ch"', "DECLARE c CURSOR FOR", "CREATE TEMP TABLE t",
     "set_config('a', 'b', false)", "await db.add_listener('x', f)"],
)  # fmt: skip
def test_state_of_a_session_is_recognized(statement):
    assert OF_A_SESSION.search(statement)


def test_no_statement_of_the_platform_sets_anything_for_a_session():
    for harmless in ("SELECT pg_advisory_xact_lock(1)", '"SET LOCAL a = 1"', "\"UPDATE a.b SET c = 'd'\""):
        assert not OF_A_SESSION.search(harmless)
    found = [
        f"{path.relative_to(PLATFORM)}:{number}: {line.strip()}"
        for path in PLATFORM.rglob("*.py")
        if path != PLATFORM / "kernel/alone.py"  # it holds a lock for as long as its own connection lives, of no pool
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if OF_A_SESSION.search(line)
    ]
    assert found == []


def test_insertion_names_each_column_once_in_the_order_of_its_value():
    fields = {"id": 7, "search_words": "english", "title": "T"}
    assert insertion("works.work", fields, {"search_words": "::text::regconfig"}) == (
        "INSERT INTO works.work (id, search_words, title) VALUES ($1, $2::text::regconfig, $3)", [7, "english", "T"])
