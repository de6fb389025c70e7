"""The door from Python: what it refuses changes nothing, what breaks stays refused; no record is trusted, no caller."""

from __future__ import annotations

import hashlib
import os
import struct
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.records import funded, setup
from engine.core import Core, CoreLimits
from engine.messages import layout
from engine.messages.codes import ABSENT, CommandKind, EventKind, OrderType, Side, TimeInForce
from engine.reference import ReferenceCore
from engine.reference.digest import mix

ROOT = Path(__file__).parents[3]
HEAD = len(b"BYLINE core snapshot 7\n") + 12 * 8 + 1
"""Where the sections of a snapshot begin."""
SUM = HEAD + 32
"""Where the sum of all mixes stands."""


def place(sequence: int, count: int = 1, **fields: Any) -> np.ndarray:
    """`count` buys of 5 lots at 100, each of its own client id."""
    rows = np.zeros(count, layout.PLACE)
    rows["kind"], rows["slots"] = CommandKind.PLACE, 1
    rows["sequence"] = rows["ts"] = sequence + np.arange(count)
    rows["account"], rows["type"], rows["tif"] = 2, OrderType.LIMIT, TimeInForce.GTC
    rows["price"], rows["size"] = 100, 5
    rows["client_id"] = np.char.add(b"c", rows["sequence"].astype("S20"))
    rows["stop_price"] = rows["display_size"] = rows["expires_at"] = ABSENT
    for name, value in fields.items():
        rows[name] = value
    return rows


def in_another_process(*arguments: str, script: str, **environment: str) -> str:
    """What a script printed that ends without being killed."""
    argv, env = [sys.executable, *arguments, "-c", script], os.environ | environment
    done = subprocess.run(argv, cwd=ROOT, env=env, capture_output=True, text=True)
    assert done.returncode == 0, f"{done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


# ---------------------------------------------------------------- sequence and buffers


@pytest.mark.parametrize("away", [-1, 1, 100])
def test_a_record_out_of_sequence_is_refused_and_changes_nothing(away: int) -> None:
    core, sequence = funded()
    reference = ReferenceCore()
    before = core.state_hash()
    out = np.zeros(64, layout.EVENT)
    for refused in (core.apply, lambda record: core.apply_batch(record, out)):
        with pytest.raises(ValueError, match="out of sequence"):
            refused(place(sequence + away))
    with pytest.raises(ValueError, match="out of sequence"):
        reference.apply(place(1 + away).tobytes())
    assert core.state_hash() == before and core.sequence == sequence - 1
    assert core.apply(place(sequence))["kind"].tolist() == [EventKind.ACCEPTED]
    core.check()


def test_a_batch_ends_before_a_record_out_of_sequence() -> None:
    core, sequence = funded()
    records, out = place(sequence, 4), np.zeros(64, layout.EVENT)
    records["sequence"][2] += 5
    assert core.apply_batch(records, out) == (2, 2)
    with pytest.raises(ValueError, match="out of sequence"):
        core.apply_batch(records, out, 2)


@pytest.mark.parametrize("shift", [0, 1, 7])
def test_events_may_not_be_written_over_the_records(shift: int) -> None:
    core, sequence = funded()
    both = np.concatenate([place(sequence, 8), np.zeros(40, layout.PLACE)])
    before = both.tobytes()
    with pytest.raises(ValueError, match="share memory"):
        core.apply_batch(both[:8], both[shift:])
    assert both.tobytes() == before and core.sequence == sequence - 1
    assert core.apply_batch(both[:8], both[8:]) == (8, 8)
    core.check()


def test_arrays_of_something_else_are_no_records() -> None:
    core, sequence = funded()
    record, out = place(sequence), np.zeros(64, layout.EVENT)
    swapped = record.astype(record.dtype.newbyteorder(">"))
    for wrong in (np.zeros(16), record.view("<i8"), swapped):
        for call in (core.apply, core.bound, lambda data: core.apply_batch(data, out)):
            with pytest.raises(TypeError, match="holds no slots"):
                call(wrong)
    with pytest.raises(TypeError, match="holds no slots"):
        core.apply_batch(record, np.zeros(1_000))
    assert core.sequence == sequence - 1
    assert core.apply_batch(record.view("u1"), out.view("u1")) == (1, 1)
    assert core.apply(place(sequence + 1).tobytes())["kind"].tolist() == [EventKind.ACCEPTED]


def test_a_core_that_was_never_initialised_refuses_everything() -> None:
    core = Core.__new__(Core)
    record, out = place(1), np.zeros(8, layout.EVENT)
    calls: list[Callable[[], object]] = [
        core.check, core.state_hash, core.describe, core.balances, core.open_orders, core.snapshot, core.port,
        lambda: core.reserve(10), lambda: core.apply(record), lambda: core.apply_batch(record, out),
        lambda: core.bound(record), lambda: core.market_index("M0"), lambda: core.market_name(0),
        lambda: core.asset_name(0), lambda: core.account_name(0), lambda: core.balances_of(0),
        lambda: core.order_market(0, 1, b""), lambda: core.client_id_state(0, b"c"), lambda: core.is_poisoned(0, b"c"),
        lambda: core.ids_known_since(0), lambda: core.indicative(0),
    ]  # fmt: skip
    for call in calls:
        with pytest.raises(RuntimeError, match="never initialised"):
            call()


def test_what_a_core_is_made_of_is_said_clearly() -> None:
    with pytest.raises(TypeError, match="CoreLimits"):
        Core(5)  # type: ignore[arg-type]
    for risk in (None, 1, "no"):
        with pytest.raises(TypeError, match="risk"):
            Core(risk=risk)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="accounts"):
        CoreLimits(accounts=2.0)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="markets"):
        CoreLimits(markets=True)
    assert CoreLimits(accounts=np.int64(5)) == CoreLimits(accounts=5)  # type: ignore[arg-type]
    core = Core(CoreLimits(accounts=np.int64(5)))  # type: ignore[arg-type]
    with pytest.raises(RuntimeError, match="once"):
        core.__init__()  # type: ignore[misc]
    assert core.market_index("é") is None and core.account_index("system:fees") == 1


# ---------------------------------------------------------------- records that no encoder writes


def replace(**fields: Any) -> np.ndarray:
    row = np.zeros(1, layout.REPLACE)
    row["kind"], row["slots"], row["account"] = CommandKind.REPLACE, 1, 2
    for name, value in {"price": ABSENT, "size": ABSENT, "stop_price": ABSENT, **fields}.items():
        row[name] = value
    return row


def named(kind: CommandKind, dtype: np.dtype, client_id: bytes, flags: int = 0) -> np.ndarray:
    row = np.zeros(1, dtype)
    row["kind"], row["slots"], row["account"], row["client_id"], row["flags"] = kind, 1, 2, client_id, flags
    return row


HIDDEN = (b"\0q", bytes(8) + b"x", bytes(31) + b"y")
"""Texts whose first byte is zero: empty, whatever follows."""

RAW: dict[str, Callable[[], list[np.ndarray]]] = {
    "place": lambda: [place(0, client_id=text) for text in HIDDEN],
    "oco": lambda: [pair(text) for text in HIDDEN],
    "rename": lambda: [
        place(0, client_id=b"c1"), *(replace(client_id=b"c1", new_client_id=text) for text in HIDDEN),
        *(replace(client_id=b"c1", new_client_id=text, price=90 + at) for at, text in enumerate(HIDDEN)),
        *(replace(client_id=text, price=80) for text in HIDDEN),
    ],
    "poison": lambda: [named(CommandKind.POISON, layout.POISON, text) for text in HIDDEN],
    "cancel": lambda: [named(CommandKind.CANCEL, layout.CANCEL, text) for text in HIDDEN],
    "flags": lambda: [
        named(kind, dtype, b"zz", 1 << bit)
        for bit in range(16)
        for kind, dtype in ((CommandKind.CANCEL, layout.CANCEL), (CommandKind.REPLACE, layout.REPLACE))
    ],
    "ref": lambda: [money(CommandKind.DEPOSIT, layout.DEPOSIT, ref=text) for text in HIDDEN],
    "memo": lambda: [withdrawal(text) for text in HIDDEN],
    "name": lambda: [money(CommandKind.ASSET, layout.ASSET, name=text) for text in HIDDEN],
}  # fmt: skip


def pair(text: bytes) -> np.ndarray:
    """A place with a partner of that name."""
    rows = np.zeros(2, layout.PLACE)
    rows[0] = place(0, client_id=b"one")[0]
    rows["slots"][0], rows["flags"][0] = 2, layout.PlaceFlag.HAS_OCO
    rows.view("u1").reshape(2, -1)[1, : len(text)] = list(text)
    return rows


def money(kind: CommandKind, dtype: np.dtype, **fields: Any) -> np.ndarray:
    row = np.zeros(1, dtype)
    row["kind"], row["slots"] = kind, 1
    for name, value in {"account": 2, "asset": 1, "amount": 5, "not_after": ABSENT, **fields}.items():
        if name in (dtype.names or ()):
            row[name] = value
    return row


def withdrawal(memo: bytes) -> np.ndarray:
    """A withdraw with that memo."""
    rows = np.zeros(2, layout.COMMAND)
    rows[:1].view(layout.WITHDRAW)[:] = money(CommandKind.WITHDRAW, layout.WITHDRAW, ref=b"w%d" % len(memo))
    rows["slots"][0], rows["flags"][0] = 2, layout.MoneyFlag.HAS_META
    rows[1:].view(layout.MONEY_META)["memo"] = memo
    return rows


@pytest.mark.parametrize("case", RAW)
def test_core_and_reference_agree_on_records_that_no_encoder_writes(case: str) -> None:
    core, reference, sequence = Core(), ReferenceCore(), 0
    listing = setup(1_000)
    at = 0
    while at < len(listing):
        slots = int(listing["slots"][at])
        rows = listing[at : at + slots].copy()
        at, sequence = at + slots, sequence + 1
        rows["sequence"][0] = sequence
        assert core.apply(rows.tobytes()).tobytes() == reference.apply(rows.tobytes()).tobytes()
    for rows in RAW[case]():
        sequence += 1
        rows["sequence"][0] = sequence
        assert core.apply(rows.tobytes()).tobytes() == reference.apply(rows.tobytes()).tobytes()
        assert core.state_hash() == reference.state_hash()
    core.check()


# ---------------------------------------------------------------- what other threads may ask


def test_other_threads_are_refused_while_a_batch_is_applied() -> None:
    core, sequence = funded()
    core.reserve(100_000)
    first = sequence
    out, refused, done = np.empty(1 << 15, layout.EVENT), 0, threading.Event()

    def ask() -> None:
        nonlocal refused
        while not done.is_set():
            for question in (core.state_hash, core.open_orders, core.snapshot, core.check):
                try:
                    question()
                except RuntimeError as error:
                    assert "another thread" in str(error)
                    refused += 1

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        for _ in range(2_000):
            records, at = place(sequence, 2_000), 0
            records["tif"] = TimeInForce.IOC
            sequence += len(records)
            while at < len(records):
                try:
                    at, _ = core.apply_batch(records, out, at)
                except RuntimeError:  # the other one is in a call that lets go of the GIL
                    continue
            if refused:
                break
    finally:
        done.set()
        asking.join()
    assert refused
    core.check()
    assert core.sequence == sequence - 1 > first


# ---------------------------------------------------------------- broken for good


def snapshot_with_less_held(core: Core, account: int, asset: int) -> bytes:
    """A snapshot whose hashes fit, and in which that balance holds nothing: the next release goes below zero."""
    row = next(row for row in core.balances() if (row["account"], row["asset"]) == (account, asset))
    available, held = int(row["available"]), int(row["held"])
    body = bytearray(core.snapshot()[:-32])
    image = struct.pack("<qqII", available, held, account, asset)
    assert held and body.count(image) == 1
    at = body.index(image)
    body[at : at + 16] = struct.pack("<qq", available, 0)
    total = int.from_bytes(body[SUM : SUM + 16], "little")
    named = account | asset << 32
    total += mix(5, named, available, 0) - mix(5, named, available, held)
    body[SUM : SUM + 16] = (total % 2**128).to_bytes(16, "little")
    return bytes(body) + hashlib.sha256(body).digest()


def test_after_a_broken_invariant_everything_is_refused() -> None:
    core, sequence = funded()
    core.apply(place(sequence))
    core = Core.restore(snapshot_with_less_held(core, 2, 1))
    cancel = np.zeros(1, layout.CANCEL)
    cancel["kind"], cancel["slots"], cancel["sequence"], cancel["account"] = CommandKind.CANCEL, 1, sequence + 1, 2
    cancel["client_id"] = place(sequence)["client_id"]
    with pytest.raises(AssertionError, match="below zero"):
        core.apply(cancel)
    out = np.zeros(64, layout.EVENT)
    for call in (
        lambda: core.apply(place(core.sequence + 1)), lambda: core.apply_batch(place(core.sequence + 1), out),
        core.check, core.state_hash, core.snapshot, core.open_orders, lambda: core.apply(cancel),
    ):  # fmt: skip
        with pytest.raises(AssertionError, match="must not be used"):
            call()


UNOPTIMIZED = """
import sys
sys.path.insert(0, ".")
from tests.unit.engine.test_core_door import *
if sys.flags.optimize != 1:
    raise SystemExit("not optimized")
core, sequence = funded()
core.apply(place(sequence))
try:
    core.apply(place(sequence + 100))
except ValueError:
    print("sequence")
twin = Core.restore(snapshot_with_less_held(core, 2, 1))
try:
    twin.check()
except AssertionError:
    print("check")
cancel = np.zeros(1, layout.CANCEL)
cancel["kind"], cancel["slots"], cancel["sequence"], cancel["account"] = CommandKind.CANCEL, 1, sequence + 1, 2
cancel["client_id"] = place(sequence)["client_id"]
for _ in range(2):
    try:
        twin.apply(cancel)
    except AssertionError:
        print("broken")
"""


def test_invariants_are_checked_in_optimized_python_too() -> None:
    assert in_another_process("-O", script=UNOPTIMIZED).split() == ["sequence", "check", "broken", "broken"]


# ---------------------------------------------------------------- memory


SHORT_OF_MEMORY = """
import re, resource, sys
sys.path.insert(0, ".")
from bench.driver import Native
from bench.harness import WrongResult
from bench.records import accounts, apply_all, assets, deposits, markets, numbered
from tests.unit.engine.test_core_door import *
core = Core(CoreLimits(accounts=64, balances=256, orders=1_000, client_ids_total=1_000, refs=1_000, postings=100,
                       poisons=100, markets=4, assets=4))
rows = [assets([b"A", b"Q"]), markets(2, 1 << 32), accounts(4)]
rows += [deposits(np.arange(2, 6), asset, 10**17) for asset in (0, 1)]
records, sequence = numbered(rows, 1)
apply_all(core, records)
native, out = Native(core), np.zeros(64, layout.EVENT)
size = int(re.search(r"VmSize:\\s+(\\d+)", open("/proc/self/status").read())[1]) << 10
resource.setrlimit(resource.RLIMIT_AS, (size + (1 << 30), resource.RLIM_INFINITY))
core.apply(place(sequence))
sequence += 1
far = {"price": 10**9}
waits = {"type": OrderType.STOP_LIMIT, "stop_price": 7_000, "price": 10**9}
for fields in (far, {"tif": TimeInForce.GTD, "expires_at": 10**15, **far}, waits):
    record, before = place(sequence, **fields), (core.state_hash(), core.sequence, core.time, core.next_due)
    try:
        core.apply(record)
    except MemoryError as error:
        print("apply", str(error).split()[0])
    try:
        core.apply_batch(record, out)
    except MemoryError:
        print("batch")
    try:
        native.collect(record, 64, 1)
    except WrongResult as error:
        print("door", "-5" in str(error))
    if (core.state_hash(), core.sequence, core.time, core.next_due) != before:
        raise SystemExit("changed")
    core.check()
records = place(sequence, 4)
records["price"] = [101, 102, 10**9, 103]
print("told", core.apply_batch(records, out))
move = np.zeros(1, layout.REPLACE)
move["kind"], move["slots"], move["sequence"], move["account"] = CommandKind.REPLACE, 1, sequence + 2, 2
move["client_id"], move["price"], move["size"], move["stop_price"] = b"c%d" % sequence, 10**9, ABSENT, ABSENT
try:
    core.apply(move)
except MemoryError:
    print("replace")
core.check()
resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
print("later", core.apply_batch(records, out, 2), len(core.open_orders()))
core.check()
"""


def test_a_command_that_gets_no_memory_is_not_applied_and_may_come_again() -> None:
    told = in_another_process(script=SHORT_OF_MEMORY).splitlines()
    refused = ["apply no", "batch", "door True"]
    assert told == [*refused * 3, "told (2, 2)", "replace", "later (4, 2) 5"]


def test_a_core_says_what_it_needs_address_space_for() -> None:
    script = "import resource\nfrom engine.core import Core, CoreLimits\nimport re\n"
    script += "size = int(re.search(r'VmSize:\\s+(\\d+)', open('/proc/self/status').read())[1]) << 10\n"
    script += "resource.setrlimit(resource.RLIMIT_AS, (size + (1 << 29), -1))\n"
    script += "try:\n    Core()\nexcept MemoryError as error:\n    print(error)\n"
    script += "small = CoreLimits(accounts=1000, markets=16, assets=16, balances=4000, orders=10_000, refs=10_000,"
    script += " client_ids_total=10_000, postings=1000, poisons=1000)\nprint(Core(small).sequence)\n"
    said, sequence = in_another_process(script=script).splitlines()
    assert "CoreLimits" in said and sequence == "0"


# ---------------------------------------------------------------- snapshots that nobody wrote


FUZZED = """
import random, sys
sys.path.insert(0, ".")
from tests.unit.engine.test_core_door import *
body, seen = busy_snapshot()[:-32], {}
for seed in range(600):
    draw, spoilt = random.Random(seed), bytearray(body)
    at = draw.randrange(HEAD, len(spoilt))
    if seed % 3 == 2:
        spoilt[at : at + 4] = draw.choice((b"\\xff" * 4, bytes(4), draw.randbytes(4)))
    else:
        spoilt[at] ^= 1 << draw.randrange(8) if seed % 3 else 0xFF
    try:
        core = Core.restore(bytes(spoilt) + hashlib.sha256(spoilt).digest())
    except ValueError:
        end = "refused"
    else:
        end = "restored"
        try:
            core.check()
        except AssertionError:
            end = "unsound"
    seen[end] = seen.get(end, 0) + 1
print(seen.get("refused", 0), sum(seen.values()))
"""


def busy_snapshot() -> bytes:
    """Of orders at several prices, icebergs, waiting stops in pairs, remembered ids, poisons, and pending money."""
    core, sequence = funded()
    records = place(sequence, 40)
    records["price"] = 90 + np.arange(40) % 10
    records["side"][30:] = Side.SELL
    records["account"][30:] = 40
    records["price"][30:] = 110 + np.arange(10)
    records["size"][36:], records["display_size"][36:] = 50, 5
    records["type"][20:24], records["stop_price"][20:24] = OrderType.STOP_LIMIT, 150
    records["tif"][24:26], records["expires_at"][24:26] = TimeInForce.GTD, 10**15
    records["tif"][26:30] = TimeInForce.IOC
    core.apply_batch(records, np.zeros(500, layout.EVENT))
    poison = np.zeros(1, layout.POISON)
    poison["kind"], poison["slots"], poison["account"], poison["client_id"] = CommandKind.POISON, 1, 3, b"never"
    poison["sequence"] = core.sequence + 1
    core.apply(poison)
    withdraw = np.zeros(1, layout.WITHDRAW)
    withdraw["kind"], withdraw["slots"], withdraw["sequence"] = CommandKind.WITHDRAW, 1, core.sequence + 1
    withdraw["ref"], withdraw["account"], withdraw["asset"], withdraw["amount"] = b"out", 5, 1, 77
    withdraw["not_after"] = ABSENT
    assert core.apply(withdraw)["kind"][0] == EventKind.PENDED
    core.check()
    return core.snapshot()


def test_a_snapshot_that_no_core_wrote_is_refused_or_is_a_core() -> None:
    refused, tried = map(int, in_another_process(script=FUZZED).split())
    assert tried == 600 and refused > 400


def test_a_snapshot_with_another_state_hash_than_it_says_is_refused() -> None:
    body = bytearray(busy_snapshot()[:-32])
    body[SUM] ^= 1
    with pytest.raises(ValueError, match="another state hash"):
        Core.restore(bytes(body) + hashlib.sha256(body).digest())
