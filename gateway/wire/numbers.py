"""What of a record the gateway refuses before it is journaled: numbers that no rule could ever accept."""

from __future__ import annotations

import numpy as np

from engine.messages import layout
from engine.messages.codes import ABSENT, INVALID, CommandKind
from engine.messages.layout import PlaceFlag

__all__ = ["first_invalid"]

_STEPS = {"price": "a positive whole number of ticks", "size": "a positive whole number of lots"}
_ORDER = (
    ("price", "bad_price", _STEPS["price"]),
    ("size", "bad_size", _STEPS["size"]),
    ("display_size", "bad_display", _STEPS["size"]),
    ("stop_price", "bad_stop", _STEPS["price"]),
)
_FIELDS: dict[int, tuple[np.dtype, tuple[tuple[str, str, str], ...]]] = {
    CommandKind.PLACE: (layout.PLACE, _ORDER),
    CommandKind.REPLACE: (layout.REPLACE, tuple(field for field in _ORDER if field[0] != "display_size")),
    CommandKind.DEPOSIT: (layout.DEPOSIT, (("amount", "bad_amount", "a positive whole number of units"),)),
    CommandKind.WITHDRAW: (layout.WITHDRAW, (("amount", "bad_amount", "a positive whole number of units"),)),
}


def first_invalid(record: bytes) -> tuple[str, str, str] | None:
    """(reject code, field, rule) of the first number given that is negative, zero, off its step or too large."""
    found = _FIELDS.get(record[4])
    if found is None:
        return None
    dtype, fields = found
    values = np.frombuffer(record, dtype, 1)[0]
    for name, code, rule in fields:
        value = int(values[name])
        if value == INVALID or (value != ABSENT and value <= 0):
            if record[4] == CommandKind.PLACE and name == "size" and values["flags"] & PlaceFlag.BUDGET:
                rule = "a positive whole number of quote units"
            return code, name, rule
    return None
