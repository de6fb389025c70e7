"""docs/faults.md names tests that exist, for each of the 72 scenarios, and each has one that carries its number."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
NAMED = re.compile(r"`((?:[\w/]+/)?test_\w+\.py)(?:::(\w+)(…?))?`")


def rows() -> dict[str, str]:
    """Scenario → its line in the table."""
    page = (ROOT / "docs" / "faults.md").read_text()
    found = re.findall(r"^\| (F\d+) \| (.*)$", page, re.MULTILINE)
    assert len(found) == len(dict(found)), "a scenario stands twice"
    return dict(found)


def missing(line: str) -> list[str]:
    """Tests named in a line that are not there. A file without a path is of the simulator; `…` ends a beginning."""
    gone = []
    for path, name, begins in NAMED.findall(line):
        file = ROOT / (path if "/" in path else f"tests/simulation/{path}")
        wanted = rf"def {name}" + ("" if begins else r"\(")
        if not file.is_file() or (name and not re.search(wanted, file.read_text())):
            gone.append(f"{path}::{name}{begins}")
    return gone


def test_every_scenario_names_tests_that_exist() -> None:
    found = rows()
    assert sorted(found, key=lambda name: int(name[1:])) == [f"F{number}" for number in range(1, 73)]
    assert {scenario: missing(line) for scenario, line in found.items() if missing(line)} == {}
    assert [scenario for scenario, line in found.items() if not NAMED.search(line)] == []


def numbered() -> dict[str, set[str]]:
    """File of tests → the scenarios whose numbers its tests carry: `test_f19_f62_…` has two."""
    carried: dict[str, set[str]] = {}
    for path in (ROOT / "tests").rglob("test_*.py"):
        for numbers in re.findall(r"^ *(?:async )?def test_((?:f\d\d_)+)", path.read_text(), re.MULTILINE):
            found = {f"F{int(number)}" for number in re.findall(r"\d\d", numbers)}
            carried.setdefault(str(path.relative_to(ROOT)), set()).update(found)
    return carried


def test_every_scenario_has_a_test_that_carries_its_number() -> None:
    """As `test_f23_…`, in a file that the scenario's line names."""
    carried = numbered()
    without = []
    for scenario, line in rows().items():
        files = {path if "/" in path else f"tests/simulation/{path}" for path, _, _ in NAMED.findall(line)}
        if not any(scenario in carried.get(path, ()) for path in files):
            without.append(scenario)
    assert without == []


def test_a_name_that_is_nowhere_is_found() -> None:
    assert missing("| x | `tests/faults/test_kills.py::test_that_never_was` | kill |")
    assert missing("| x | `tests/faults/test_nothing.py` | kill |") and missing("| x | `test_seeds.py::test_f99_…` |")
    assert not missing("| x | `tests/unit/test_fault_list.py::test_a_name_that_…` | kill |")
