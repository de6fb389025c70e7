"""Pages of docs/protocol that are generated: the binary records with their numbers, and the reasons of both doors.

    python -m byline.record_document            writes order-entry-records.md, reasons.md and rest-reasons.md
    python -m byline.record_document --check    exit 1 if what is there differs

Sources: `engine.messages.layout`, `edge` and `codes` (offsets, types, numbers), `byline.client.reasons` and
`platform_api.reasons` (words). What a field means stands in FIELDS here; a test holds it to the records, and the pages
to what this module writes.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Iterator
from enum import IntFlag
from pathlib import Path

import numpy as np

from byline.client import reasons
from engine.messages import edge, layout
from engine.messages.codes import (
    Aggressor,
    CancelReason,
    CommandKind,
    EventKind,
    OrderStatus,
    OrderType,
    Phase,
    PhaseReason,
    RefStatus,
    RejectCode,
    SelfTrade,
    Side,
    TimeInForce,
    Word,
)
from platform_api.errors import ErrorCode
from platform_api.reasons import CODES, REASONS, UNKNOWN

__all__ = ["EVENT_RECORDS", "PAGES", "unexplained"]

_FOLDER = Path(__file__).parent.parent / "docs" / "protocol"
_PADDING = ("pad", "spare", "reserved")

COMMAND_RECORDS = {
    "PLACE": (CommandKind.PLACE,), "CANCEL": (CommandKind.CANCEL,), "REPLACE": (CommandKind.REPLACE,),
    "MASS_CANCEL": (CommandKind.MASS_CANCEL,),
    "CANCEL_AFTER": (CommandKind.CANCEL_AFTER, CommandKind.KILL, CommandKind.REARM), "POISON": (CommandKind.POISON,),
}  # fmt: skip
EVENT_RECORDS = {
    "ACCEPTED": (EventKind.ACCEPTED,), "REJECTED": (EventKind.REJECTED,), "DUPLICATE": (EventKind.DUPLICATE,),
    "EVENT": (EventKind.DONE,), "TRADE": (EventKind.TRADE,), "CANCELED": (EventKind.CANCELED,),
    "REPLACED": (EventKind.REPLACED,), "TRIGGERED": (EventKind.TRIGGERED,), "REFRESHED": (EventKind.REFRESHED,),
    "PREVENTED": (EventKind.PREVENTED,), "BALANCE": (EventKind.BALANCE,),
    "MONEY_EVENT": (EventKind.TRANSFERRED, EventKind.PENDED, EventKind.POSTED, EventKind.VOIDED),
    "PHASE_CHANGED": (EventKind.PHASE_CHANGED,), "UNCROSSED": (EventKind.UNCROSSED,),
}  # fmt: skip
"""The record of each kind of event that a session hears."""

FIELDS = {
    "crc32c": "zero", "chain": "the hash-chain word of the journal", "slots": "of 128 bytes, with this one",
    "kind": "EventKind", "flags": "see the flags", "sequence": "of the command", "ts": "ns since 1970, of the command",
    "index": "0, 1, 2 … within the command", "reason": "RejectCode, CancelReason or PhaseReason",
    "op": "CommandKind that caused it", "account": "index, NIL: none",
    "market": "index, NIL: none; of a balance the asset", "client_id": "text", "new_client_id": "text, empty: keep",
    "price": "ticks", "size": "lots; of a budget order quote units", "stop_price": "ticks", "display_size": "lots",
    "expires_at": "ns since 1970",
    "session": "first 8 bytes of SHA-256 of a name; 0: this connection; all bits: outlives it", "side": "Side",
    "type": "OrderType", "tif": "TimeInForce", "stp": "SelfTrade", "given": "bit 0 account, bit 1 market",
    "at": "ns since 1970, 0: ends the timer; zero in kill and rearm", "order_id": "of a ref: its first sequence",
    "hold": "quote units (buy) or base units (sell)", "text": "client id or ref, see the flags",
    "filled": "lots; of a budget order quote units", "status": "OrderStatus; of a ref RefStatus",
    "aggressor": "Aggressor", "buyer": "0 maker, 1 taker", "trade_id": "of the market, from 1",
    "notional": "quote units", "leaves": "lots; of a budget order quote units",
    "released": "units given back to the buyer; below zero: taken", "fee": "quote units; below zero: a rebate",
    "priority_kept": "0, 1", "trigger_price": "ticks", "trigger_sequence": "of the command whose trade it was",
    "mode": "SelfTrade", "available": "units", "held": "units",
    "cause": "of a balance CommandKind, 0: expired; of money 1: expired", "ref": "text", "code": "text",
    "leg_count": "LEG records behind it", "has_memo": "1: a MONEY_META slot comes first", "memo": "text",
    "source": "account that pays", "asset": "index", "amount": "units", "target": "account that gets",
    "phase": "Phase", "reference_price": "ticks", "imbalance": "lots, buy minus sell",
    "rate_left": "commands that may follow now, NIL: no limit", "rid": "your request id", "t_in": "ns since 1970",
    "t_durable": "ns since 1970, 0: not on disk yet", "t_matched": "ns since 1970", "t_out": "ns since 1970",
    "offset": "byte of the record at fault, 65535: none", "taker_account": "index, NIL: not yours", "ACK.type": "1",
    "TOLD.type": "2", "REFUSAL.type": "3", "ACK.slots": "of the event behind it, 0: none",
    "TOLD.slots": "of the event behind it", "REFUSAL.slots": "0", "COMMAND.sequence": "your request id",
    "COMMAND.ts": "zero", "COMMAND.chain": "zero", "COMMAND.kind": "CommandKind",
    "REFUSAL.index": "of the command in the frame, from 0", "REFUSAL.code": "EdgeCode",
}  # fmt: skip
"""What a field holds, by its name without `maker_` and `taker_`; in one record another thing: by record and name."""


_RECORDS_HEAD = f"""\
# Records of `byline.binary.v1`

Generated from the exchange's own definitions by `python -m byline.record_document`; `order-entry-binary.md` says how
they travel. Schema `{edge.SCHEMA_ID}`. Everything is little endian: `u` without sign, `i` with, then the bits. Text is
ASCII, padded with zeros. Bytes in no table are zero. An `i64` of −2^63 is “not given”, a `u32` of 2^32−1 (NIL) names
nothing. Frames byte by byte are in `vectors/binary.json`, with every kind of event.
"""
_REST_HEAD = """\
# Refusals of REST: codes and reasons

Generated from `platform_api/reasons.py` by `python -m byline.record_document`. A refusal is `{"success": false,
"error": {"code", "message", "details": {"reason", "field"}, "timestamp", "request_id"}}`: programs go by `code` and
`details.reason`, people by `message`, which has the numbers and names of the case. `details.field` names what was wrong
of what was sent. Nothing was done, unless the code says otherwise.
"""
_REASONS_HEAD = """\
# Why: reasons of refusals and cancels

Generated from `byline/client/reasons.py` by `python -m byline.record_document`. Steps and bounds: `directory` tells
tick, lot and scales; `GET /v1/markets` tells these and `min_size`, `max_size`, `max_price`, fees in ppm and the phase
of each market. Bands are the operator's to tell (`describe`), and an account may have its own fees and its own bound of
open orders. Sizes count in base, prices in quote.

## `rejected`: a rule of the exchange

The command stands in the journal and has changed nothing. Checks come in this order, money commands have their own
(rulebook, section 3); the first that fails is told.
"""


def _fields(dtype: np.dtype) -> list[tuple[int, str, np.dtype]]:
    """By offset, without padding."""
    found = [(at, name, kind) for name, (kind, at, *_) in (dtype.fields or {}).items() if not name.startswith(_PADDING)]
    return sorted(found, key=lambda field: field[0])


def _key(record: str, name: str) -> str:
    """Under what FIELDS explains it."""
    names = (f"{record}.{name}", name, name.removeprefix("maker_").removeprefix("taker_"))
    return next((known for known in names if known in FIELDS), name)


def _tables() -> dict[str, np.dtype]:
    heads = {"ACK": edge.ACK, "TOLD": edge.TOLD, "REFUSAL": edge.REFUSAL}
    return {name: getattr(layout, name) for name in edge.RECORDS} | heads


def unexplained() -> set[str]:
    """Fields of the records without a meaning here, and meanings without a field."""
    used = {_key(record, name) for record, dtype in _tables().items() for _, name, _ in _fields(dtype)}
    return used ^ set(FIELDS)


def _kind(kind: np.dtype) -> str:
    if kind.kind in "SV":
        return f"{'text' if kind.kind == 'S' else 'bytes'} {kind.itemsize}"
    return f"{kind.kind}{kind.itemsize * 8}"


def _table(record: str, behind: int = 0) -> Iterator[str]:
    yield "| byte | field | type | |"
    yield "|---|---|---|---|"
    for at, name, kind in _fields(_tables()[record]):
        if at >= behind:
            yield f"| {at} | `{name}` | {_kind(kind)} | {FIELDS[_key(record, name)]} |"
    yield ""


def _numbers(kind: type[Word]) -> str:
    return f"| {kind.__name__} | " + ", ".join(f"{int(member)} `{member.word}`" for member in kind) + " |"


def _flags(name: str, kind: type[IntFlag]) -> str:
    return f"| {name} | " + ", ".join(f"{int(flag)} `{flag.name}`" for flag in kind) + " |"


def records_page() -> Iterable[str]:
    """docs/protocol/order-entry-records.md, line by line."""
    yield _RECORDS_HEAD
    yield "## Messages"
    yield ""
    for name in ("ACK", "TOLD", "REFUSAL"):
        yield f"### {name}: {_tables()[name].itemsize} bytes"
        yield ""
        yield from _table(name)
    yield "## Commands"
    yield ""
    yield "The head is the same in all:"
    yield ""
    yield from _table("COMMAND")
    for name, kinds in COMMAND_RECORDS.items():
        yield f"### {', '.join(f'`{kind.word}` {int(kind)}' for kind in kinds)}"
        yield ""
        yield from _table(name, 32)
    yield "The second slot of a `place` with `HAS_OCO` has the partner's client id as text in its first 32 bytes."
    yield ""
    yield "## Events"
    yield ""
    yield "The head is the same in all; `done` is nothing but a head, `op` says of what:"
    yield ""
    yield from _table("EVENT")
    for name, events in EVENT_RECORDS.items():
        if name == "EVENT":
            continue
        yield f"### {', '.join(f'`{event.word}` {int(event)}' for event in events)}"
        yield ""
        yield from _table(name, 32)
    yield "Behind a money event: MONEY_META if `has_memo`, then `leg_count` records LEG of 32 bytes, four a slot.\n"
    for name in ("MONEY_META", "LEG"):
        yield f"### {name}"
        yield ""
        yield from _table(name)
    yield "## Numbers"
    yield ""
    yield "A number, once given, is never reused; new ones are added. The words are those of JSON."
    yield ""
    yield "| | |"
    yield "|---|---|"
    for kind in (
        CommandKind, EventKind, Side, OrderType, TimeInForce, SelfTrade, OrderStatus, RefStatus, Aggressor, Phase,
        PhaseReason, CancelReason, RejectCode, edge.EdgeCode,
    ):  # fmt: skip
        yield _numbers(kind)
    yield _flags("flags of `place`, `accepted`", layout.PlaceFlag)
    yield _flags("flags of `cancel`, `replace`", layout.OrderFlag)
    yield _flags("flags of `rejected`", layout.RejectedFlag)
    yield _flags("flags of `duplicate`", layout.DuplicateFlag)


def reasons_page() -> Iterable[str]:
    """docs/protocol/reasons.md, line by line."""
    yield _REASONS_HEAD
    yield from _reasons(reasons.REJECTED)
    yield "## `error`: not taken"
    yield ""
    yield "Nothing was journaled and nothing executed. `field` and `rule`, where they stand, say what is wrong.\n"
    yield from _reasons(reasons.ERRORS)
    yield "## `canceled`"
    yield ""
    yield "| reason | the order ended because of |"
    yield "|---|---|"
    for word, why in reasons.CANCELED.items():
        yield f"| `{word}` | {why} |"


def _reasons(table: dict[str, tuple[str, str]]) -> Iterator[str]:
    yield "| word | means | what to do |"
    yield "|---|---|---|"
    for word, (meaning, action) in table.items():
        yield f"| `{word}` | {meaning} | {action} |"
    yield ""


def rest_reasons_page() -> Iterable[str]:
    """docs/protocol/rest-reasons.md, line by line."""
    yield _REST_HEAD
    yield "| code | status | what to do |"
    yield "|---|---|---|"
    for code, action in CODES.items():
        yield f"| `{code.value}` | {code.status} | {action} |"
    yield ""
    for code, words in REASONS.items():
        if words:
            yield f"## {code.status} `{code.value}`"
            yield ""
            yield "| reason | means, and what to do |"
            yield "|---|---|"
            for word, text in words.items():
                yield f"| `{word}` | {text} |"
            if code is ErrorCode.NOT_FOUND:
                yield f"| `{UNKNOWN}` and the name of a thing, as `{UNKNOWN}work` | {CODES[code]} |"
            yield ""


PAGES = {
    _FOLDER / "order-entry-records.md": records_page, _FOLDER / "reasons.md": reasons_page,
    _FOLDER / "rest-reasons.md": rest_reasons_page,
}  # fmt: skip
"""Each file and what makes its lines."""


def main(argv: list[str] | None = None) -> int:
    """Write or check the files; the exit code."""
    parser = argparse.ArgumentParser(description="Write the generated pages of docs/protocol.")
    parser.add_argument("--check", action="store_true", help="only compare; exit 1 if a file differs")
    is_check = parser.parse_args(argv).check
    differing = 0
    for path, page in PAGES.items():
        text = "\n".join(page()) + "\n"
        if not is_check:
            path.write_text(text)
        elif not path.exists() or path.read_text() != text:
            print(f"{path} differs: run python -m byline.record_document", file=sys.stderr)
            differing = 1
    return differing


if __name__ == "__main__":
    sys.exit(main())
