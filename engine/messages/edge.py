"""What travels around the records on a binary session of order entry: message heads, refusal codes, the schema id.

A client sends frames of whole command records (`layout`): one head slot each, and the extension slots that it says. The
words that the exchange writes (`crc32c`, `ts`, `chain`) are zero, and `sequence` holds the client's request id. The
answers are messages, one behind another in a frame, none split between two frames:

    ACK       64 bytes, then `slots` slots: the first event of the command, if it has one
    TOLD       8 bytes, then `slots` slots: one event of an account that this session hears of
    REFUSAL   32 bytes: the command was not journaled and not executed

Little endian like everything here. `docs/protocol/order-entry-binary.md` is the text, `docs/protocol/vectors/` has
frames as examples, and `edge.pxd` repeats heads and numbers for C (`tests/unit/engine/test_edge.py` compares).
"""

from __future__ import annotations

import hashlib

import numpy as np

from engine.messages import layout
from engine.messages.codes import CommandKind, Word

__all__ = [
    "ACK", "NOT_GIVEN", "PROTOCOL", "REFUSAL", "SCHEMA_ID", "TOLD", "VERSION", "EdgeCode", "MessageType", "ORDER_KINDS",
    "RECORDS", "schema_text",
]  # fmt: skip

PROTOCOL = "byline.binary.v1"
VERSION = 1

NOT_GIVEN = 0xFFFF
"""An `offset` of a refusal that concerns no field."""

ORDER_KINDS = (
    CommandKind.PLACE, CommandKind.CANCEL, CommandKind.REPLACE, CommandKind.MASS_CANCEL, CommandKind.KILL,
    CommandKind.REARM, CommandKind.CANCEL_AFTER, CommandKind.POISON,
)  # fmt: skip
"""What may come as a record. Everything else goes as a text frame of the same session."""

RECORDS = (
    "COMMAND", "PLACE", "CANCEL", "REPLACE", "MASS_CANCEL", "CANCEL_AFTER", "POISON",
    "EVENT", "ACCEPTED", "REJECTED", "DUPLICATE", "TRADE", "CANCELED", "REPLACED", "TRIGGERED", "REFRESHED",
    "PREVENTED", "BALANCE", "MONEY_EVENT", "MONEY_META", "LEG", "PHASE_CHANGED", "UNCROSSED",
)  # fmt: skip
"""The records of `layout` that travel here."""


class MessageType(Word):
    ACK = 1
    TOLD = 2
    REFUSAL = 3


class EdgeCode(Word):
    """Why a command was not taken. The words are the `code` of an error on a JSON session."""

    NOT_SIGNED_IN = 1
    FORBIDDEN = 2
    BAD_FRAME = 3
    """The frame is no whole number of records: nothing of it was executed."""
    TOO_MANY_COMMANDS = 4
    UNKNOWN_OP = 5
    MALFORMED = 6
    UNKNOWN_MARKET = 7
    BAD_PRICE = 8
    BAD_SIZE = 9
    BAD_DISPLAY = 10
    BAD_STOP = 11
    BUSY = 12
    JOURNAL_FAILED = 13
    CANCEL_ONLY = 14
    RATE_LIMITED = 15
    COLLAR = 16
    PROTECTION = 17
    EXPIRED_KEY = 18


ACK = np.dtype(
    [
        ("type", "u1"), ("slots", "u1"), ("spare", "<u2"), ("rate_left", "<u4"), ("rid", "<u8"), ("sequence", "<u8"),
        ("chain", "<u8"), ("t_in", "<i8"), ("t_durable", "<i8"), ("t_matched", "<i8"), ("t_out", "<i8"),
    ]
)  # fmt: skip
"""Times are ns since 1970 of the gateway's clock. `t_durable` 0: not on disk yet when this left (`memory` acks).

`rate_left`: commands that the key may still send now; NIL without a limit.
"""

TOLD = np.dtype([("type", "u1"), ("slots", "u1"), ("spare", "V6")])

REFUSAL = np.dtype(
    [
        ("type", "u1"), ("slots", "u1"), ("code", "<u2"), ("rate_left", "<u4"), ("rid", "<u8"), ("index", "<u4"),
        ("offset", "<u2"), ("pad", "<u2"), ("t_out", "<i8"),
    ]
)  # fmt: skip
"""`index` counts the commands of the frame from 0, NIL is the frame itself; `offset` is where in the record the fault
stands, NOT_GIVEN if in no field of it."""


def schema_text() -> str:
    """Every record and head that this protocol is made of, one a line: what the schema id is a digest of.

    Numbers of kinds, codes and flags are not: they are only ever added to, and never reused.
    """
    lines = [f"version {VERSION}", f"slot {layout.SLOT_BYTES}"]
    tables: dict[str, np.dtype] = {name: getattr(layout, name) for name in RECORDS}
    for name, table in (tables | {"ACK": ACK, "REFUSAL": REFUSAL, "TOLD": TOLD}).items():
        fields = sorted((at, field, kind.str) for field, (kind, at, *_) in (table.fields or {}).items())
        lines.append(f"{name} {table.itemsize} " + " ".join(f"{field}@{at}:{kind}" for at, field, kind in fields))
    return "\n".join(lines) + "\n"


SCHEMA_ID = hashlib.sha256(schema_text().encode()).hexdigest()[:16]
"""Named in the `hello` of a binary session. Another value: the records are not those that this client knows."""
