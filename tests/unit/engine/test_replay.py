"""The replay door: JSON lines in, JSON lines out, the same from core and reference."""

from __future__ import annotations

import json

import pytest

from engine.replay import PROGRESS_EVERY, open_core, replay
from tests.support.commands import account, deposit, limit

LINES = [
    {"op": "asset", "asset": "USD", "scale": 2},
    {"op": "asset", "asset": "TOK", "scale": 0},
    {"op": "market", "market": "TOK-USD", "base": "TOK", "quote": "USD", "tick": "0.01", "lot": "1"},
    account("ann"),
    account("bob"),
    deposit("ann", "USD", "100", "d1"),
    deposit("bob", "TOK", "9", "d2"),
    limit("bob", "s", "sell", "1.5", "4", ts=5),
    limit("ann", "b", "buy", "1.5", "3", ts=6),
    {"op": "cut", "ts": 7},
]


def run(lines: list[bytes | str], *, reference: bool) -> list[str]:
    return list(replay(lines, core=open_core(reference=reference), state_hash=True))


def test_core_and_reference_print_the_same_lines() -> None:
    lines: list[bytes | str] = [json.dumps(line) for line in LINES]
    ours, theirs = run(lines, reference=False), run(lines, reference=True)
    assert ours == theirs
    last, cut = json.loads(ours[-1]), json.loads(ours[-2])
    assert list(last) == ["sequence", "state_hash"] and last["sequence"] == len(LINES)
    assert cut["event"] == "cut" and cut["state_hash"] == last["state_hash"]
    assert [json.loads(line)["event"] for line in ours[-4:-1]] == ["accepted", "trade", "cut"]


@pytest.mark.parametrize("reference", [False, True], ids=["core", "reference"])
@pytest.mark.parametrize(
    "line",
    [b"", b"nonsense", b"[]", b"null", b"{", b"\xff\xfe", b'{"op":"fly"}', b'{"op":"tick","x":1}', b"[" * 100_000, b"3",
     b'{"op":"tick","ts":1e400}', b'{"op":"tick","ts":5.5}', b"\x00"],
)  # fmt: skip
def test_a_bad_line_takes_a_sequence_and_the_run_goes_on(line: bytes, reference: bool) -> None:
    printed = [
        json.loads(text) for text in run([line, b'{"op":"asset","asset":"A","scale":0,"ts":3}\n'], reference=reference)
    ]
    assert printed[0] == {"sequence": 1, "index": 0, "ts": 0, "event": "rejected", "reason": "malformed"}
    assert printed[1] == {"sequence": 2, "index": 0, "ts": 3, "event": "done", "op": "asset"}
    assert printed[2]["sequence"] == 2


def test_progress_is_told_at_intervals_and_at_the_end() -> None:
    told: list[int] = []
    count = PROGRESS_EVERY + 3
    assert list(replay([b'{"op":"tick"}'] * count, core=open_core(), progress=told.append)) == []
    assert told == [PROGRESS_EVERY, count]


def test_replay_needs_an_empty_core() -> None:
    core = open_core()
    list(replay([b'{"op":"tick"}'], core=core))
    with pytest.raises(ValueError, match="empty core"):
        list(replay([], core=core))
