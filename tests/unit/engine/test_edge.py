"""The message heads of binary order entry: C and Python agree, and the schema id follows the records."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from engine.messages import edge, layout

SOURCE = (Path(edge.__file__).parent / "edge.pxd").read_text()
SIZES = {"uint8_t": 1, "uint16_t": 2, "uint32_t": 4, "int64_t": 8, "uint64_t": 8}


@pytest.mark.parametrize(("name", "dtype"), [("Ack", edge.ACK), ("Told", edge.TOLD), ("Refusal", edge.REFUSAL)])
def test_a_head_has_the_same_fields_in_c_and_python(name: str, dtype: np.dtype) -> None:
    body = re.search(rf"cdef packed struct {name}:\n((?:    .*\n)+)", SOURCE)
    assert body is not None and dtype.fields is not None
    at, found = 0, {}
    for kind, field, count in re.findall(r"^    (\w+) (\w+)(?:\[(\d+)\])?", body[1], re.MULTILINE):
        found[field] = (at, SIZES[kind] * int(count or 1))
        at += found[field][1]
    assert found == {field: (known[1], known[0].itemsize) for field, known in dtype.fields.items()}
    assert at == dtype.itemsize and at % 8 == 0


@pytest.mark.parametrize(("prefix", "words"), [("MESSAGE", edge.MessageType), ("EDGE", edge.EdgeCode)])
def test_numbers_are_the_same_in_c_and_python(prefix: str, words: type[edge.EdgeCode]) -> None:
    found = {word: int(number) for word, number in re.findall(rf"^    {prefix}_(\w+) = (\d+)$", SOURCE, re.MULTILINE)}
    assert found == {word.name: int(word) for word in words}


def test_the_schema_id_names_every_record_and_changes_with_each() -> None:
    text = edge.schema_text()
    assert re.fullmatch("[0-9a-f]{16}", edge.SCHEMA_ID)
    for name in (*edge.RECORDS, "ACK", "REFUSAL", "TOLD"):
        assert re.search(rf"^{name} \d+ \S+@0:", text, re.MULTILINE), name
    assert len(text.splitlines()) == 2 + len(edge.RECORDS) + 3
    commands = {name for name in edge.RECORDS if "crc32c" in (getattr(layout, name).names or ())}
    kinds = {kind.name for kind in edge.ORDER_KINDS}
    assert kinds - {"KILL", "REARM"} == commands - {"COMMAND"}, "kill and rearm have the fields of cancel_after"


def test_the_protocol_document_lists_every_code() -> None:
    text = (Path(edge.__file__).parents[2] / "docs/protocol/order-entry-binary.md").read_text()
    for code in edge.EdgeCode:
        assert re.search(rf"\| {int(code)} \| `{code.word}`", text), code.word
