"""Bugs in a copy of the production sources, the compiled ones too: worlds must tell what each breaks.

Those that no other test here plants run always, all of them with TEST_MUTANTS=1 (`make mutants`): each costs a run of
the C compiler. What is planted in Python parts by a test itself is in test_mutants.py.
"""

from __future__ import annotations

import os
import re
from dataclasses import replace
from pathlib import Path

import pytest

from tests.simulation.planted import Bug, build, violations_of
from tests.simulation.world import SHORT_QUEUE, Fault, Plan

SEQUENCER, WRITER, RECORDS = "gateway/sequencer.pyx", "persistence/writer.h", "gateway/wire/binary.pyx"
SYNC = "if (!error) error = -j->disk.sync(j->disk.context, j->file);"
SYNC_TWICE = "if (!error && j->disk.sync(j->disk.context, j->file)) error = -j->disk.sync(j->disk.context, j->file);"
CHECKSUM = "if (!byline_record_check(record, end - *at)) return 1;"
CHAIN = "uint64_t word = byline_chain(*chain, record, record[5]);\n        if"
PUBLISH = "self.event_log.publish(self.event_log.context, mark)"
DURABLE = "            return self.journal.durable(self.journal.context)\n        return"
BLANKED = "        if own != NIL and kind == EV_TRADE:"
FEE = "        *credit = (uint32_t)(fee * PPM - exact);\n        return fee;"
SENT = "(len(copy) // SLOT), connection.number, rid, len(rid), TEXT"
TAKEN = "        if why:\n            self.refuse(connection, why, rid, market, side)"
IS_MONEY = "copy[4] in (5, 6)"
IS_NEW = "NIL if r.kind == 6 and (<const char*>ref)[0] == 116"
ORDERED = "record, 1, connection.number, order.rid.at,"
ANSWERED = "            if not why and order.receipt == 1:\n"
SIGNED = "self.receipts.sign(self.sequencer.released_sequence)"
RESERVED = "        if reserved:\n            return BUSY if room"
HANDED_ON = "            if not why:\n                hub.taken(connection, order.op)\n"
AGAIN = (
    "            if not why and order.op == OP_CANCEL:\n"
    '                hub.sequencer.submit(record, 1, 0, b"", 0, TEXT, t_in, True)\n'
)
JUDGED = "    slot = find_ref(s, <Name*>ref)\n    if slot != NIL:\n        known"
KEPT = "    cdef uint32_t slot = own_ref(s, name, REF_POSTED, not_after)\n"
LISTENS = "            if connection is but or connection.is_ending or connection.holds:\n"
MOVED, REPLACED = "    hold(s, held, after - before)", "    hold(s, hold_slot(s, slot), after - before)"


DUE = "        add_due(s, r.expires_at, t.order_id, DUE_ORDER, t.slot)\n"
TIMER = "        add_due(s, r.at, s.sequence, DUE_TIMER, r.account)\n"
KILLS = "    return cancel_account(s, r.account, WHY_KILLED) if killed else 0\n"
OPEN = "    if t.market.phase == CONTINUOUS:"
PREVENTED = "        if s.accounts[maker.account].stp_key == t.stp_key"
CROSSES = "    if flags & PLACE_POST_ONLY and opposite.best"
STARTED = "                self._prepare_or_say(hurry=True)\n        except OSError"
UNCOUNTED = "(self._prepare_or_say if tail.segment is None else self._prepare)"
PASSED, REFUSED = "            damaged.append", "            raise __import__('engine').messages.errors.JournalCorrupt"
LOST = "        self._waiting.extend((account, stamp) for account in accounts for stamp in stamps if stamp)\n"
ORPHANS = "        return self._add_pairs(lost)\n"
CLEARED = "self._sequencer.cancel_only = self._is_clearing or self._told_status"
OUTLIVES = '        if op == "place":\n            outlives'
THROTTLED = (
    '        if op == "place" and command.get("market") == "CRT-USD" and self._terms.epoch > 1:\n'
    '            return [Send(wire.error("rate_limited", "no request is left", rid=rid))]\n'
)
ALLOWED = "= self._allowance(tier)\n"
ONE_A_SECOND = "= Allowance(tier.name, 1, 0, 10**9, 0) if key.accounts else self._allowance(tier)\n"
ROOM = "        if room < slots + self.journal_reserve or"


def _less(line: str) -> str:
    return f"    if after < before:\n    {line}"


def _plan(seed: int, *faults: Fault, until_ms: int) -> Plan:
    return Plan(seed, faults, traders=3, has_hostile=False, duration_ms=until_ms)


QUIET = [_plan(7, until_ms=20_000)]
POWER = [_plan(0, Fault(4_000, "slow_disk", 5), Fault(4_200, "power", 1), until_ms=6_000)]
FAILED_SYNC = [
    _plan(0, Fault(2_990, "slow_disk", 5), Fault(3_000, "sync_error", 2), Fault(9_000, "power", 1), until_ms=11_000)
]
FLIPS = [_plan(seed, Fault(9_000, "flip", seed), until_ms=11_000) for seed in range(4)]
SNAPSHOT = [_plan(0, Fault(5_000, "snapshot", 2), Fault(7_000, "kill", 1), until_ms=9_000)]
DAMAGED_SNAPSHOT = [_plan(0, Fault(5_000, "snapshot", 2), Fault(7_000, "snapshot_flip", 1), until_ms=9_000)]
RESTARTED = [_plan(7, Fault(2_000, "kill", 1), until_ms=3_000)]
HALF_FULL = [_plan(7, Fault(18_000, "kill", 1), until_ms=40_000)]
WITH_RECORDS = [replace(QUIET[0], records=("trader0", "trader1"))]
LOST_ANSWERS = [_plan(3, *(Fault(at_ms, "storm", at_ms) for at_ms in range(1_000, 20_000, 250)), until_ms=20_000)]
OVERLOAD = [
    replace(_plan(0, Fault(3_000, "slow_disk", 5), Fault(8_000, "slow_disk", 5), until_ms=14_000), queue=SHORT_QUEUE)
]
WITH_RECEIPTS = [
    replace(
        _plan(seed, Fault(3_000, "slow_disk", 5), Fault(7_000, "power", 1), until_ms=10_000),
        receipts=("trader0", "trader1", "trader2"), records=("trader1",),
    )
    for seed in range(4)
]  # fmt: skip
ENDS = [
    _plan(0, *(Fault(at_ms, "storm", at_ms) for at_ms in range(2_000, 15_000, 1_000)), until_ms=25_000),
    _plan(1, *(Fault(at_ms, "kill", at_ms) for at_ms in range(2_000, 15_000, 1_000)), until_ms=25_000),
]
LONGER = [_plan(seed, until_ms=40_000) for seed in (3, 7, 8, 10)]
LATE_WAKES = [_plan(0, Fault(1_000, "slow_wake", 5), until_ms=10_000)]

ALWAYS = {
    "an ack before the sync": (
        Bug(SEQUENCER, ((DURABLE, "            return self.sequence\n        return"),)), POWER, "I3",
    ),
    "checksum and chain not looked at": (
        Bug(
            WRITER, ((CHECKSUM, "if (!record[5] || !record[4]) return 1;"), (CHAIN, f"{CHAIN} (0)\n        if")),
            ("persistence.ring",),
        ),
        FLIPS, "I8",
    ),
    "a fee rounded up twice": (
        Bug("engine/arithmetic.h", ((FEE, f"{FEE[:-1]} + (exact % PPM > 0);"),), ("engine.matching",)), QUIET, "I1",
    ),
    "a hold lost on replace": (
        Bug("engine/amend.pyx", ((MOVED, _less(MOVED)), (REPLACED, _less(REPLACED)))), QUIET, "I13",
    ),
    "a transfer or withdrawal answered busy that executes": (
        Bug(
            "gateway/hub.pyx",
            (
                (SENT, SENT.replace("connection.number", f"0 if {IS_MONEY} else connection.number")),
                (TAKEN, TAKEN.replace("if why:", f"if why or {IS_MONEY}:").replace("why, rid", "why or BUSY, rid")),
            ),
        ),
        QUIET, "I4",
    ),
    "no event told live": (
        Bug("gateway/hub.pyx", ((LISTENS, LISTENS.replace("if", "if True or")),)), QUIET, "I9",
    ),
    "a cancel answered busy that executes": (
        Bug(
            "gateway/listener.pyx",
            (
                (ORDERED, ORDERED.replace("connection.number", "0 if order.op == OP_CANCEL else connection.number")),
                (ANSWERED, f"            if order.op == OP_CANCEL: why = BUSY\n{ANSWERED}"),
            ),
        ),
        QUIET, "I4",
    ),
    "a cancel taken twice, the second time for nobody": (
        Bug("gateway/listener.pyx", ((HANDED_ON, AGAIN + HANDED_ON),)), QUIET, "I4",
    ),
    "cancels without a reserve": (
        Bug(SEQUENCER, ((RESERVED, RESERVED.replace("if reserved", "if False and reserved")),)), OVERLOAD, "I12",
    ),
    "a receipt signed for what is not durable": (
        Bug("gateway/hub.pyx", ((SIGNED, SIGNED.replace("released_sequence", "sequence")),)), WITH_RECEIPTS, "I3",
    ),
    "a receipt that names another record": (
        Bug("gateway/receipts.py", (("sha256(record[4:])", "sha256(record[5:])"),)), WITH_RECEIPTS, "I3",
    ),
    "a transfer said again that moves its money again": (
        Bug(
            "engine/refs.pyx",
            (
                (JUDGED, JUDGED.replace("find_ref", f"{IS_NEW} else find_ref")),
                (
                    KEPT,
                    "    cdef uint32_t slot = find_ref(s, <Name*>name)\n    if slot != NIL:\n        return 0\n"
                    "    slot = own_ref(s, name, REF_POSTED, not_after)\n",
                ),
            ),
        ),
        LOST_ANSWERS, "I5",
    ),
    "a record applied twice behind a snapshot": (
        Bug("persistence/recovery.py", (("after=start, after_chain=chain", "after=max(start - 1, 0)"),)),
        SNAPSHOT, "DIED: 1: .*ValueError: a record out of sequence",
    ),
    "a start that does not count the space that it prepares": (
        Bug("persistence/journal.py", ((STARTED, STARTED.replace("self._prepare_or_say", UNCOUNTED)),)),
        HALF_FULL, "I12",
    ),
    "a damaged snapshot that stops the start": (
        Bug("persistence/snapshot.py", ((PASSED, REFUSED),)),
        DAMAGED_SNAPSHOT, "I8",
    ),
    "an exchange that takes no order behind its first crash": (
        Bug("gateway/server.py", ((CLEARED, CLEARED.replace("self._is", "self.settings.epoch > 1 or self._is")),)),
        RESTARTED, "I12",
    ),
    "a queue that is always full": (Bug(SEQUENCER, ((ROOM, "        if True or"),)), QUIET, "I12"),
    "a limit for keys that have none": (
        Bug("gateway/rights.py", ((ALLOWED, ONE_A_SECOND),)), QUIET, "I4",
    ),
    "orders that the thorough path refuses in each life but the first, for a limit": (
        Bug("gateway/session.py", ((OUTLIVES, THROTTLED + OUTLIVES),)), RESTARTED, "I4",
    ),
    "orders that outlive their connection": (
        Bug("gateway/pulls.py", ((LOST, "        return\n"), (ORPHANS, "        return 0\n"))), ENDS, "I14",
    ),
}  # fmt: skip
"""`DIED`: a check behind recovery stops the start; what a world tells where none does is in test_mutants.py."""

MORE = {
    "events published beyond the durable mark": (
        Bug(SEQUENCER, ((PUBLISH, PUBLISH.replace("mark", "self.sequence")),)), LATE_WAKES, "I3",
    ),
    "a record that tells both sides of a trade": (
        Bug(RECORDS, ((BLANKED, BLANKED.replace("kind", "False and kind")),)), WITH_RECORDS, "I10",
    ),
    "a gtd order that never expires": (Bug("engine/place.pyx", ((DUE, "        pass\n"),)), LONGER, "I14"),
    "a post-only order that takes": (
        Bug("engine/place.pyx", ((CROSSES, CROSSES.replace("if", "if False and")),)), LONGER, "I14",
    ),
    "a timer that never fires": (Bug("engine/scopes.pyx", ((TIMER, "        pass\n"),)), LONGER, "I4"),
    "a kill that does not stay": (
        Bug("engine/scopes.pyx", (("].killed = killed\n", "].killed = 0\n"),)), LONGER, "I4",
    ),
    "a kill that cancels nothing": (Bug("engine/scopes.pyx", ((KILLS, "    return 0\n"),)), LONGER, "I4"),
    "orders that trade in every phase": (
        Bug("engine/matching.pyx", ((OPEN, "    if True:"),)), LONGER, "I6",
    ),
    "a trade with oneself": (
        Bug("engine/matching.pyx", ((PREVENTED, PREVENTED.replace("if", "if False and")),)), LONGER, "I14",
    ),
    "a sync left out": (Bug(WRITER, ((SYNC, ""),), ("persistence.ring",)), POWER, "I8"),
    "a failed sync tried again": (Bug(WRITER, ((SYNC, SYNC_TWICE),), ("persistence.ring",)), FAILED_SYNC, "I8"),
}  # fmt: skip
IS_WHOLE = os.environ.get("TEST_MUTANTS") == "1"


@pytest.mark.parametrize("name", {**ALWAYS, **(MORE if IS_WHOLE else {})})
def test_a_bug_in_a_copy_of_the_sources_is_caught(name: str, tmp_path: Path) -> None:
    bug, plans, broken = {**ALWAYS, **MORE}[name]
    found = violations_of(build(bug, tmp_path), plans)
    assert any(re.match(rf"{broken}\b", text, re.DOTALL) for text in found), found[:5]


@pytest.mark.parametrize("name", {**ALWAYS, **MORE})
def test_the_place_of_each_bug_is_there_once(name: str) -> None:
    """Else a change of the sources would turn a bug into none, and its test into one that plants nothing."""
    bug = {**ALWAYS, **MORE}[name][0]
    assert bug.text() != (Path(__file__).parents[2] / bug.source).read_text()


def test_nothing_is_found_where_nothing_is_planted() -> None:
    plans = [
        *QUIET, *POWER, *SNAPSHOT, *DAMAGED_SNAPSHOT, *RESTARTED, *HALF_FULL, *WITH_RECORDS, *LOST_ANSWERS, *OVERLOAD,
        *WITH_RECEIPTS, *ENDS, *(LONGER if IS_WHOLE else ()),
    ]  # fmt: skip
    assert violations_of({}, plans) == []
