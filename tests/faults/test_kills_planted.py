"""Bugs planted in the processes of an exchange that is killed: the audit must tell.

Those that cost another exchange, or a run of the C compiler too, come with TEST_MUTANTS=1 (`make mutants`).
"""

from __future__ import annotations

import json
import os
import re
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
LOST = "        return self._add_pairs(lost)\n"
IS_TRANSFER = "r.kind == 6 and (<const char*>ref)[0] == 107"
GATE = "        await self._backup.wait(life.batch.last_sequence)\n"
CLEARED = "self._sequencer.cancel_only = self._is_clearing or self._told_status"
KEPT = "    cdef uint32_t slot = own_ref(s, name, REF_POSTED, not_after)\n"


def planted(folder: Path, *bugs: Bug) -> dict[str, str]:
    """The environment of processes that have them."""
    found = {name: path for bug in bugs for name, path in build(bug, folder / "planted").items()}
    (folder / "sitecustomize.py").write_text(FINDER.format(planted=json.dumps(found)))
    return {"PYTHONPATH": str(folder)}


async def test_a_withdrawal_paid_twice_and_orders_that_outlive_the_session_they_end_with_are_told(
    tmp_path: Path,
) -> None:
    pays = Bug("settlement/chain/sui.py", ((PAYS, PAYS.replace("coin.payouts", "[*coin.payouts, *coin.payouts[:1]]")),))
    stays = Bug("gateway/pulls.py", ((LOST, "        return 0\n"),))
    found = await run_kills(tmp_path, ["kill core"], seed=1, environment=planted(tmp_path, pays, stays))
    for what in ("the chain paid .* 2 times", "orders of sessions that k3 lost are open"):
        assert any(re.search(what, text) for text in found.failures), (what, found.failures)


@pytest.mark.skipif(os.environ.get("TEST_MUTANTS") != "1", reason="set TEST_MUTANTS=1: it starts an exchange")
async def test_batches_that_do_not_wait_for_the_backup_are_told(tmp_path: Path) -> None:
    bug = Bug("settlement/settler.py", ((GATE, ""),))
    found = await run_kills(tmp_path, ["all unshipped"], seed=1, batch_s=3, environment=planted(tmp_path, bug))
    assert any("the backup knows of no such bytes" in text for text in found.failures), found.failures


@pytest.mark.skipif(os.environ.get("TEST_MUTANTS") != "1", reason="set TEST_MUTANTS=1: it starts an exchange")
async def test_an_exchange_that_takes_no_order_behind_its_first_crash_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.faults.kills.TAKEN_S", 3.0)
    bug = Bug("gateway/server.py", ((CLEARED, CLEARED.replace("self._is", "self.settings.epoch > 1 or self._is")),))
    found = await run_kills(tmp_path, ["kill core"], seed=1, environment=planted(tmp_path, bug))
    assert any("of k0 in INK-USDC is taken: refused cancel_only" in text for text in found.failures), found.failures


@pytest.mark.skipif(os.environ.get("TEST_MUTANTS") != "1", reason="set TEST_MUTANTS=1: it runs the C compiler")
async def test_a_transfer_that_moves_its_money_again_when_it_is_said_again_is_told(tmp_path: Path) -> None:
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
    found = await run_kills(tmp_path, ["kill core"], seed=1, environment=planted(tmp_path, bug))
    assert any(text.startswith("fault 1 (kill core): ref k") for text in found.failures), found.failures
