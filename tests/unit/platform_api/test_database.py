"""The pool does not reset its connections, so no statement of the platform may leave anything on one."""

import re
from pathlib import Path

import pytest

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
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if OF_A_SESSION.search(line)
    ]
    assert found == []
