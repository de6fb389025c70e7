"""The C structs that gateway and market data share are those of layout.py, and their numbers those of codes.py."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from engine.messages import codes, layout

SOURCE = (Path(layout.__file__).parent / "records.pxd").read_text()
SIZES = {"char": 1, "uint8_t": 1, "uint16_t": 2, "int32_t": 4, "uint32_t": 4, "int64_t": 8, "uint64_t": 8}
HEADS = {"CommandHead": layout.COMMAND, "EventHead": layout.EVENT}
ROWS = {"OpenOrder": layout.OPEN_ORDERS}


def _structs() -> dict[str, dict[str, tuple[int, int]]]:
    """{struct: {field: (offset, bytes)}}, without the head. Packed: each field begins where the one before it ends."""
    found: dict[str, dict[str, tuple[int, int]]] = {}
    sizes = dict(SIZES)
    for name, body in re.findall(r"cdef packed struct (\w+):\n((?:    .*\n)+)", SOURCE):
        at, fields = 0, {}
        for kind, field, count in re.findall(r"^    (\w+) (\w+)(?:\[(\d+)\])?", body, re.MULTILINE):
            size = sizes[kind] * int(count or 1)
            if field != "head":
                fields[field] = (at, size)
            at += size
        found[name], sizes[name] = fields, at
    return found


COMMANDS = ("Place", "Cancel", "Replace", "MassCancel", "CancelAfter", "Poison")
STRUCTS = _structs()


def _dtype(name: str) -> np.dtype:
    if name in HEADS or name in ROWS:
        return (HEADS | ROWS)[name]
    upper = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).upper()
    return getattr(layout, upper)


@pytest.mark.parametrize("name", sorted(set(STRUCTS) - {"EventSlot"}))
def test_struct_has_the_fields_where_the_dtype_has_them(name: str) -> None:
    dtype, fields = _dtype(name), STRUCTS[name]
    assert fields and dtype.fields is not None
    for field, (offset, size) in fields.items():
        known, at = dtype.fields[field][:2]
        assert (at, known.itemsize) == (offset, size), field
    head = layout.COMMAND if name in COMMANDS else layout.EVENT
    head = np.dtype([]) if name in ("MarketExtra", "Leg", *ROWS) else head
    missing = set(dtype.names or ()) - set(fields) - (set() if name in HEADS else set(head.names or ()))
    assert missing <= {"reserved"}, missing


def test_a_slot_is_a_slot() -> None:
    assert STRUCTS["EventSlot"]["payload"] == (32, layout.SLOT_BYTES - 32)
    assert f"SLOT = {layout.SLOT_BYTES}" in SOURCE


@pytest.mark.parametrize(("prefix", "enumeration"), [("OP", codes.CommandKind), ("EV", codes.EventKind)])
def test_numbers_are_those_of_the_codes(prefix: str, enumeration: type[codes.Word]) -> None:
    numbers = re.findall(rf"^    {prefix}_(\w+) = (\d+)$", SOURCE, re.MULTILINE)
    assert len(numbers) > 5
    for word, number in numbers:
        assert enumeration[word] == int(number), word
