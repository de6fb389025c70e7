"""The C door: what engine/core.h says is what layout.py and codes.py say, and a C harness gets what Python gets."""

from __future__ import annotations

import ctypes
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.driver import Native
from bench.harness import WrongResult
from bench.records import commands, funded
from bench.workload import generate
from engine.core import Core
from engine.messages import codes, layout

ROOT = Path(__file__).parents[3]
STRUCTS = {
    "BylinePlace": layout.PLACE, "BylineCancel": layout.CANCEL, "BylineReplace": layout.REPLACE,
    "BylineAccepted": layout.ACCEPTED, "BylineTrade": layout.TRADE, "BylineCanceled": layout.CANCELED,
    "BylineRejected": layout.REJECTED, "BylineDuplicate": layout.DUPLICATE, "BylineReplaced": layout.REPLACED,
    "BylinePrevented": layout.PREVENTED,
}  # fmt: skip
HEADS = ("crc32c", "kind", "slots", "flags", "sequence", "ts", "chain", "index", "account", "market", "reason", "op")
NUMBERS = {
    **{f"BYLINE_{kind.name}": kind for kind in codes.CommandKind if kind.name in (
        "ASSET", "MARKET", "ACCOUNT", "DEPOSIT", "PLACE", "CANCEL", "REPLACE", "TICK", "CUT")},
    **{f"BYLINE_{kind.name}": kind for kind in codes.EventKind if 1 <= kind <= 11},
    **{f"BYLINE_REJECT_{reason.name}": reason for reason in codes.RejectCode},
    **{f"BYLINE_CANCEL_{reason.name}": reason for reason in codes.CancelReason},
    **{f"BYLINE_NAMES_{flag.name}": flag for flag in layout.RejectedFlag},
    "BYLINE_WAITING": codes.OrderStatus.WAITING, "BYLINE_OPEN": codes.OrderStatus.OPEN,
    "BYLINE_FILLED": codes.OrderStatus.FILLED, "BYLINE_ENDED": codes.OrderStatus.CANCELED,
    "BYLINE_BUY": codes.Side.BUY, "BYLINE_SELL": codes.Side.SELL,
    "BYLINE_LIMIT_ORDER": codes.OrderType.LIMIT, "BYLINE_MARKET_ORDER": codes.OrderType.MARKET,
    "BYLINE_GTC": codes.TimeInForce.GTC, "BYLINE_IOC": codes.TimeInForce.IOC, "BYLINE_FOK": codes.TimeInForce.FOK,
    "BYLINE_PLACE_POST_ONLY": layout.PlaceFlag.POST_ONLY, "BYLINE_PLACE_BUDGET": layout.PlaceFlag.BUDGET,
    "BYLINE_PLACE_NO_SIZE": layout.PlaceFlag.NO_SIZE, "BYLINE_BY_ORDER_ID": layout.OrderFlag.BY_ORDER_ID,
    "BYLINE_SLOT_BYTES": layout.SLOT_BYTES, "BYLINE_NO_INDEX": codes.NIL,
}  # fmt: skip


class Port(ctypes.Structure):
    """The head of BylineCorePort."""

    _fields_ = (
        ("version", ctypes.c_uint32),
        ("slot_bytes", ctypes.c_uint32),
        ("context", ctypes.c_void_p),
        ("apply", ctypes.c_void_p),
        ("apply_batch", ctypes.CFUNCTYPE(
            ctypes.c_int64, ctypes.c_void_p, ctypes.c_void_p, ctypes.POINTER(ctypes.c_int64), ctypes.c_int64,
            ctypes.c_void_p, ctypes.c_int64,
        )),
    )  # fmt: skip


def pointer(capsule: object, name: bytes) -> int:
    """The address in a capsule."""
    get = ctypes.pythonapi.PyCapsule_GetPointer
    get.restype, get.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    return int(get(capsule, name))


def header_checks() -> str:
    """A source that compiles only if header and layout agree."""
    lines = ['#include <stddef.h>', '#include "engine/core.h"']
    for struct, dtype in STRUCTS.items():
        records = struct in ("BylinePlace", "BylineCancel", "BylineReplace")
        head_names = [name for name in (layout.COMMAND if records else layout.EVENT).names or () if name in HEADS]
        for name in dtype.names or ():
            if name in ("reserved", "pad"):
                continue
            offset = dtype.fields[name][1]  # type: ignore[index]
            member = f"head.{name}" if name in head_names and offset < 32 else name
            lines.append(f'BYLINE_ASSERT(offsetof({struct}, {member}) == {offset}, "{struct}.{member}");')
            size = dtype.fields[name][0].itemsize  # type: ignore[index]
            lines.append(f'BYLINE_ASSERT(sizeof((({struct} *)0)->{member}) == {size}, "size of {struct}.{member}");')
    lines += [f'BYLINE_ASSERT({name} == {int(number)}u, "{name}");' for name, number in NUMBERS.items()]
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize(("language", "standard"), [("c", "c11"), ("c++", "c++11")])
def test_header_is_what_the_layout_says(language: str, standard: str, tmp_path: Path) -> None:
    compiler = shutil.which(os.environ.get("CC", "cc") if language == "c" else "c++")
    if compiler is None:
        pytest.skip(f"no compiler for {language}")
    source = tmp_path / "checks.c"
    source.write_text(header_checks())
    argv = [compiler, "-x", language, f"-std={standard}", "-Wall", "-Wextra", "-Werror", "-pedantic"]
    argv += [f"-I{ROOT}", "-fsyntax-only", str(source)]
    done = subprocess.run(argv, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    source.write_text(header_checks() + 'BYLINE_ASSERT(offsetof(BylinePlace, price) == 71, "caught");\n')
    assert subprocess.run(argv, capture_output=True).returncode != 0


def played() -> tuple[np.ndarray, Core]:
    """Records that trade, cancel, move, and are refused (the last hundred come twice), and a funded core."""
    core, first = funded()
    made = commands(generate("W1", smoke=True, ops=4_000), first).records
    again = made[-100:].copy()
    again["sequence"] += 100
    return np.concatenate([made, again]), core


@pytest.mark.parametrize("batch", [1, 7, 512])
def test_a_c_harness_gets_the_events_of_apply(batch: int) -> None:
    records, core = played()
    other, _ = funded()
    want = b"".join(other.apply(record.tobytes()).tobytes() for record in records)
    got = Native(core).collect(records, len(want) // layout.SLOT_BYTES + 10_000, batch)
    assert got.tobytes() == want
    kinds = set(np.unique(got["kind"]).tolist())
    assert kinds >= {codes.EventKind[name] for name in ("ACCEPTED", "TRADE", "REJECTED", "REPLACED", "CANCELED")}
    assert core.state_hash() == other.state_hash() and core.sequence == other.sequence
    core.check()


def test_what_cannot_be_taken_is_refused_with_a_number_and_changes_nothing() -> None:
    records, core = played()
    native, before = Native(core), core.state_hash()
    with pytest.raises(WrongResult, match="said -1"):
        native.collect(records, 0)
    with pytest.raises(WrongResult, match="said -2"):
        native.collect(records[1:], 10_000)
    for slots in (0, 2):
        broken = records[:1].copy()
        broken["slots"] = slots
        with pytest.raises(WrongResult, match="said -3"):
            native.collect(broken, 10_000)
    port = ctypes.cast(ctypes.c_void_p(pointer(core.port(), b"byline.CorePort")), ctypes.POINTER(Port)).contents
    both = np.concatenate([records[:4], np.zeros(8, records.dtype)])
    source = both.ctypes.data
    for at, events, room in ((-1, source + 512, 8), (0, source, 8), (0, source + 3 * 128, 8), (0, source + 512, -1)):
        reached = ctypes.c_int64(at)
        assert port.apply_batch(port.context, source, ctypes.byref(reached), 4, events, room) == -6
        assert reached.value == at
    assert both[:4].tobytes() == records[:4].tobytes() and core.sequence == int(records["sequence"][0]) - 1
    assert core.state_hash() == before
    assert len(native.collect(records, 100_000)) >= len(records)


def test_single_calls_and_batches_end_alike() -> None:
    records, core = played()
    other, _ = funded()
    few, a, b = records[:4_000], Native(core), Native(other)
    batches, (ticks, fills) = a.play(few), b.ticks(few)
    assert batches.trades == fills.sum() > 0 and batches.ns > 0 and (ticks > 0).all()
    assert core.state_hash() == other.state_hash()
    with pytest.raises(WrongResult, match="the core refused"):
        a.play(records, 4_000)


def test_the_example_of_the_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if (compiler := shutil.which(os.environ.get("CC", "cc"))) is None:
        pytest.skip("no C compiler")
    page = (ROOT / "docs" / "c-door.md").read_text()
    python, source = (re.search(rf"```{name}\n(.*?)```", page, re.DOTALL)[1] for name in ("python", "c"))  # type: ignore[index]
    (tmp_path / "harness.c").write_text(source)
    argv = [compiler, "-O3", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", f"-I{ROOT}", "harness.c", "-o"]
    subprocess.run([*argv, "harness.so"], cwd=tmp_path, check=True)
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(python, names)
    orders = names["core"].open_orders()
    assert orders["client_id"].tolist() == [b"mine-1"] and orders["order_id"].tolist() == [names["next_sequence"]]
