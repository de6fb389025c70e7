"""The frames of docs/protocol/vectors/binary.json: written from the fields, read to the fields, judged as they say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from byline.record_document import EVENT_RECORDS
from engine.messages import edge, layout
from engine.messages.codes import EventKind
from engine.messages.edge import EdgeCode, MessageType
from gateway.wire.binary import command_count, first_fault

VECTORS: dict[str, Any] = json.loads((Path(__file__).parents[3] / "docs/protocol/vectors/binary.json").read_text())
HEADS = {MessageType.ACK: edge.ACK, MessageType.TOLD: edge.TOLD, MessageType.REFUSAL: edge.REFUSAL}


def written(dtype: np.dtype, fields: dict[str, Any]) -> bytes:
    row = np.zeros(1, dtype)
    for name, value in fields.items():
        row[name] = value.encode() if isinstance(value, str) else value
    return row.tobytes()


def pieces(frame: dict[str, Any]) -> bytes:
    """The frame's bytes from the fields that the vector lists."""
    return b"".join(
        written(getattr(edge if hasattr(edge, part["record"]) else layout, part["record"]), part["fields"])
        for part in frame["parts"]
    )


def test_the_vectors_are_of_this_schema() -> None:
    assert (VECTORS["protocol"], VECTORS["version"]) == (edge.PROTOCOL, edge.VERSION)
    assert VECTORS["schema"] == edge.SCHEMA_ID


def test_there_is_a_vector_of_every_event_that_a_session_hears() -> None:
    told = {
        EventKind(part["fields"]["kind"])
        for frame in VECTORS["answers"] for part in frame["parts"] if part["record"] in EVENT_RECORDS
    }  # fmt: skip
    assert told == {kind for kinds in EVENT_RECORDS.values() for kind in kinds} == set(EventKind) - {EventKind.CUT}


@pytest.mark.parametrize("frame", VECTORS["commands"] + VECTORS["answers"], ids=lambda frame: frame["name"])
def test_the_fields_make_the_bytes_and_the_bytes_the_fields(frame: dict[str, Any]) -> None:
    whole = bytes.fromhex(frame["hex"])
    assert pieces(frame) == whole
    at = 0
    for part in frame["parts"]:
        dtype = getattr(edge if hasattr(edge, part["record"]) else layout, part["record"])
        row = np.frombuffer(whole, dtype, 1, at)[0]
        for name, value in part["fields"].items():
            read = row[name].item()
            assert (read.decode() if isinstance(read, bytes) else read) == value, name
        at += dtype.itemsize
    assert at == len(whole)


@pytest.mark.parametrize("frame", VECTORS["commands"], ids=lambda frame: frame["name"])
def test_the_gateway_judges_each_command_as_the_vector_says(frame: dict[str, Any]) -> None:
    whole = bytes.fromhex(frame["hex"])
    assert command_count(whole) == len(frame["judged"])
    at = 0
    for judged in frame["judged"]:
        size = whole[at + 5] * layout.SLOT_BYTES
        found = first_fault(whole[at : at + size], VECTORS["accounts"], VECTORS["market_count"])
        expected = None if judged is None else (EdgeCode.of(judged["code"]), judged["offset"])
        assert found == expected
        at += size
