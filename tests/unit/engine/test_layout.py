"""The C structs and numbers of the core are those of layout.py and codes.py."""

from __future__ import annotations

import pytest

from engine import types
from engine.messages import codes, layout


@pytest.mark.parametrize("name", sorted(types.OFFSETS))
def test_struct_has_the_fields_where_the_dtype_has_them(name: str) -> None:
    dtype = getattr(layout, name)
    for field, offset in types.OFFSETS[name].items():
        known = {"hash_low": "state_hash", "hash_high": None}.get(field, field)
        if known is not None:
            assert dtype.fields is not None and dtype.fields[known][1] == offset, field
    assert types.SIZES[name] == dtype.itemsize


def test_every_field_of_a_dtype_is_in_its_struct() -> None:
    for name, offsets in types.OFFSETS.items():
        missing = set(getattr(layout, name).names) - set(offsets) - set(layout.COMMAND.names) - set(layout.EVENT.names)
        assert missing <= {"reserved", "pad", "state_hash"}, (name, missing)


@pytest.mark.parametrize("name", sorted(types.NUMBERS))
def test_numbers_are_those_of_the_codes(name: str) -> None:
    enumeration = getattr(codes, name)
    for word, number in types.NUMBERS[name].items():
        assert enumeration[word] == number, word


def test_nodes_are_as_small_as_the_docs_say() -> None:
    assert (types.SIZES["Order"], types.SIZES["OrderDetail"], types.SIZES["Level"]) == (64, 64, 16)
