"""Bugs that move money twice, planted in the processes of an exchange that is killed: the audit must tell.

The one in C costs a run of the compiler, and comes with BYLINE_MUTANTS=1 (`make mutants`).
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.faults.kills import run_kills
from tests.simulation.planted import Bug, build

FINDER = """
import importlib.util, sys

PLANTED = {planted}

class Finder:
    @staticmethod
    def find_spec(name, path=None, target=None):
        return importlib.util.spec_from_file_location(name, PLANTED[name]) if name in PLANTED else None

sys.meta_path.insert(0, Finder)
"""
PAYS = "            for index, payout in enumerate(coin.payouts):\n"
JUDGED = "    slot = find_ref(s, <Name*>ref)\n    if slot != NIL:\n        known"
IS_TRANSFER = "r.kind == 6 and (<const char*>ref)[0] == 107"
KEPT = "    cdef uint32_t slot = own_ref(s, name, REF_POSTED, not_after)\n"


def planted(bug: Bug, folder: Path) -> dict[str, str]:
    """The environment of processes that have it."""
    found = build(bug, folder / "planted")
    (folder / "sitecustomize.py").write_text(FINDER.format(planted=json.dumps(found)))
    return {"PYTHONPATH": str(folder)}


async def test_a_withdrawal_that_the_chain_pays_twice_is_told(tmp_path: Path) -> None:
    bug = Bug("settlement/chain/sui.py", ((PAYS, PAYS.replace("coin.payouts", "[*coin.payouts, *coin.payouts[:1]]")),))
    found = await run_kills(tmp_path, ["kill marketdata"], seed=1, environment=planted(bug, tmp_path))
    assert any("the chain paid" in text and " 2 times" in text for text in found.failures), found.failures


@pytest.mark.skipif(os.environ.get("BYLINE_MUTANTS") != "1", reason="set BYLINE_MUTANTS=1: it runs the C compiler")
async def test_a_transfer_that_moves_its_money_again_when_it_is_said_again_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("BYLINE_MUTANTS")  # no setting of an exchange
    bug = Bug(
        "engine/refs.pyx",
        (
            (JUDGED, JUDGED.replace("find_ref", f"NIL if {IS_TRANSFER} else find_ref")),
            (
                KEPT,
                "    cdef uint32_t slot = find_ref(s, <Name*>name)\n    if slot != NIL:\n        return 0\n"
                "    slot = own_ref(s, name, REF_POSTED, not_after)\n",
            ),
        ),
    )
    found = await run_kills(tmp_path, ["kill core"], seed=1, environment=planted(bug, tmp_path))
    assert any(text.startswith("fault 1 (kill core): ref k") for text in found.failures), found.failures
