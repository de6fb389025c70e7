"""Commands as JSON to records: exact numbers, sentinels, and a named error for what is no command."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from engine.messages import layout
from engine.messages.codes import ABSENT, INVALID, NIL, CommandKind, OrderType, TimeInForce
from engine.messages.decimals import decimal_text, parse_decimal, steps_of, steps_text
from engine.messages.encode import PARTS_MAX, CommandEncoder, Malformed, session_word
from engine.messages.layout import AccountMask, MarketMask, MoneyFlag, OrderFlag, PlaceFlag
from tests.support.commands import Desk, limit


@pytest.fixture
def desk() -> Desk:
    return Desk()


def head(record: bytearray, dtype: np.dtype = layout.COMMAND, slot: int = 0) -> Any:
    return np.frombuffer(record, dtype)[slot]


@pytest.mark.parametrize(
    ("text", "step", "decimals", "steps"),
    [
        ("1", 1, 2, 100), ("1.5", 1, 2, 150), ("0.005", 1, 2, INVALID), ("1.500000", 1, 2, 150), ("000.50", 5, 1, 1),
        ("7", 2, 0, INVALID), ("", 1, 0, INVALID), ("-1", 1, 0, INVALID), ("+1", 1, 0, INVALID), ("1.", 1, 0, INVALID),
        (".5", 1, 1, INVALID), ("1e3", 1, 0, INVALID), ("NaN", 1, 0, INVALID), ("٣", 1, 0, INVALID),
        ("1\n", 1, 0, INVALID),
        ("9223372036854775807", 1, 0, 2**63 - 1), ("9223372036854775808", 1, 0, INVALID),
        ("123456789012345678901", 1, 0, INVALID), ("0.00000000000000000001", 1, 20, 1), ("1", INVALID, 0, INVALID),
    ],
)  # fmt: skip
def test_decimals_are_exact_or_invalid(text: str, step: int, decimals: int, steps: int) -> None:
    assert steps_of(text, step, decimals) == steps


def test_decimal_text_is_the_shortest() -> None:
    assert [decimal_text(value, 3) for value in (0, 5, -5, 1500, -12_000)] == ["0", "0.005", "-0.005", "1.5", "-12"]
    assert steps_text(3, 25, 2) == "0.75"
    assert parse_decimal("010.2500") == (1025, 2)


def test_place_is_encoded_in_ticks_and_lots(desk: Desk) -> None:
    record = desk.encoder.encode(
        limit("ann", "c1", "sell", "12.34", "7", post_only=True, stp="decrement", session="s", ts=99)
    )
    place = head(record, layout.PLACE)
    assert len(record) == layout.SLOT_BYTES and place["kind"] == CommandKind.PLACE and place["slots"] == 1
    assert (place["price"], place["size"], place["ts"], place["client_id"]) == (1234, 7, 99, b"c1")
    assert (place["side"], place["tif"], place["stp"]) == (1, TimeInForce.DEFAULT, 3)
    assert place["flags"] == PlaceFlag.POST_ONLY and place["session"] == session_word("s")
    assert place["stop_price"] == place["display_size"] == place["expires_at"] == ABSENT
    assert place["account"] == desk.directory.accounts_by_name["ann"].index


def test_unknown_names_and_odd_values_are_left_to_the_core(desk: Desk) -> None:
    command = limit("zed", "c", "buy", "0.001", "x", type="odd", tif="odd", oco_with="other", budget="5")
    place = head(desk.encoder.encode(command), layout.PLACE)
    assert (place["account"], place["price"], place["size"]) == (NIL, INVALID, 500)
    assert (place["type"], place["tif"]) == (OrderType.UNKNOWN, TimeInForce.UNKNOWN)
    assert place["flags"] == PlaceFlag.BUDGET | PlaceFlag.BOTH_SIZES | PlaceFlag.HAS_OCO and place["slots"] == 2
    bare = head(desk.encoder.encode(command | {"size": None, "budget": None, "market": "zed"}), layout.PLACE)
    assert bare["flags"] & PlaceFlag.NO_SIZE and bare["market"] == NIL and bare["price"] == INVALID


def test_replace_finds_the_market_of_its_order(desk: Desk) -> None:
    desk.do(limit("ann", "c1", "buy", "1", "5"))
    by_client = head(
        desk.encoder.encode({"op": "replace", "account": "ann", "client_id": "c1", "price": "2"}), layout.REPLACE
    )
    order_id = desk.core.sequence
    by_id = head(
        desk.encoder.encode({"op": "replace", "account": "ann", "order_id": order_id, "size": "9"}), layout.REPLACE
    )
    assert (by_client["price"], by_client["size"], by_client["flags"]) == (200, ABSENT, 0)
    assert (by_id["size"], by_id["flags"]) == (9, OrderFlag.BY_ORDER_ID)
    blind = CommandEncoder(desk.directory).encode({"op": "replace", "account": "ann", "client_id": "c1", "price": "2"})
    assert head(blind, layout.REPLACE)["price"] == INVALID


def test_transfer_with_shares_becomes_parts(desk: Desk) -> None:
    legs = [
        {"from": "ann", "asset": "USD", "amount": "1.5", "to": "bob"},
        {
            "from": "bob",
            "asset": "TOK",
            "amount": "7",
            "shares": [{"to": "ann", "weight": 2}, {"to": "zed", "weight": -1}],
        },
    ]
    record = desk.encoder.encode(
        {"op": "transfer", "ref": "r", "legs": legs, "pending": True, "code": "sale", "memo": "m"}
    )
    transfer = head(record, layout.TRANSFER)
    assert transfer["flags"] == MoneyFlag.HAS_META | MoneyFlag.PENDING
    assert (transfer["part_count"], transfer["leg_count"], transfer["slots"]) == (3, 2, 3)
    parts = np.frombuffer(record[2 * layout.SLOT_BYTES :], layout.PART)[:3]
    assert parts["amount"].tolist() == [150, 7, 7] and parts["leg"].tolist() == [0, 1, 1]
    assert parts["weight"].tolist() == [0, 2, NIL] and parts["target"][2] == NIL
    single = desk.encoder.encode({"op": "transfer", "ref": "r", **legs[1]})
    assert head(single, layout.TRANSFER)["leg_count"] == 1


def test_entities_carry_masks_and_refs(desk: Desk) -> None:
    record = desk.encoder.encode(
        {"op": "account", "account": "new", "status": "frozen", "row": "0x" + "Ab" * 32,
         "limits": {"max_open_orders": 3},
         "ref": "r", "not_after": 7}
    )  # fmt: skip
    row = head(record, layout.ACCOUNT)
    assert row["mask"] == AccountMask.STATUS | AccountMask.ROW | AccountMask.MAX_OPEN_ORDERS and row["slots"] == 3
    assert bytes(head(record, layout.ACCOUNT_EXTRA, 1)["row"]) == b"\xab" * 32
    assert head(record, layout.REF_SLOT, 2)["ref"] == b"r" and head(record, layout.REF_SLOT, 2)["not_after"] == 7
    market = desk.encoder.encode(
        {"op": "market", "market": "M", "base": "TOK", "quote": "XYZ", "tick": "0.050", "lot": "2", "min_size": "4",
         "max_price": "0.07", "maker_ppm": -5}
    )  # fmt: skip
    extra = head(market, layout.MARKET_EXTRA, 1)
    assert (extra["tick"], extra["tick_decimals"], extra["min_size"], extra["max_price"]) == (5, 2, 2, INVALID)
    assert head(market, layout.MARKET)["mask"] == MarketMask.MIN_SIZE | MarketMask.MAX_PRICE | MarketMask.MAKER_PPM
    assert head(market, layout.MARKET)["quote"] == NIL


@pytest.mark.parametrize(
    ("command", "field"),
    [
        ([], "command"), ({}, "op"), ({"op": "fly"}, "op"), ({"op": 3}, "op"), ({"op": "malformed"}, "op"),
        ({"op": "tick", "x": 1}, "x"), ({"op": "tick", "ts": 1.0}, "ts"), ({"op": "tick", "ts": True}, "ts"),
        ({"op": "tick", "ts": 2**63}, "ts"), ({"op": "cancel", "account": "ann"}, "order_id"),
        ({"op": "cancel", "client_id": "x"}, "account"),
        ({"op": "cancel", "account": "a b", "client_id": "x"}, "account"),
        ({"op": "cancel", "account": "ann", "client_id": "x" * 33}, "client_id"),
        ({"op": "cancel", "account": "ann", "order_id": "7"}, "order_id"),
        ({"op": "replace", "account": "ann", "client_id": "x"}, "price"),
        ({"op": "asset", "asset": "A" * 65, "scale": 2}, "asset"),
        ({"op": "asset", "asset": "A", "scale": "2"}, "scale"),
        ({"op": "asset", "asset": "A", "scale": 2, "settled": 1}, "settled"),
        ({"op": "asset", "asset": "A", "scale": 2, "not_after": 1}, "not_after"),
        ({"op": "account", "account": "a", "status": "Frozen"}, "status"),
        ({"op": "account", "account": "a", "row": "0x12"}, "row"),
        ({"op": "account", "account": "a", "limits": {"max": 1}}, "limits.max"),
        ({"op": "account", "account": "a", "limits": {"max_open_orders": -1}}, "limits.max_open_orders"),
        ({"op": "deposit", "account": "a", "asset": "USD", "amount": 5, "ref": "r"}, "amount"),
        ({"op": "deposit", "account": "a", "asset": "USD", "amount": "5", "ref": ""}, "ref"),
        ({"op": "deposit", "account": "a", "asset": "USD", "amount": "5", "ref": "r", "memo": "ü"}, "memo"),
        ({"op": "transfer", "ref": "r"}, "legs"), ({"op": "transfer", "ref": "r", "legs": {}}, "legs"),
        ({"op": "transfer", "ref": "r", "legs": [{"from": "a", "asset": "b", "amount": "1"}]}, "legs[0]"),
        ({"op": "transfer", "ref": "r", "legs": [], "amount": "1"}, "amount"),
        ({"op": "transfer", "ref": "r", "legs": [3]}, "legs[0]"),
        ({"op": "mass_cancel", "side": "both"}, "side"), (limit("ann", "c", "buy", "1", "1", post_only=1), "post_only"),
        (limit("ann", "c", "buy", "1", "1", stp="odd"), "stp"),
    ],
)  # fmt: skip
def test_what_is_no_command_names_field_and_rule(desk: Desk, command: Any, field: str) -> None:
    with pytest.raises(Malformed) as caught:
        desk.encoder.encode(command)
    assert caught.value.field == field and caught.value.rule


def test_more_parts_than_a_record_holds_are_malformed(desk: Desk) -> None:
    leg = {"from": "ann", "asset": "USD", "amount": "1", "to": "bob"}
    assert (
        len(desk.encoder.encode({"op": "transfer", "ref": "r", "legs": [leg] * PARTS_MAX})) == 253 * layout.SLOT_BYTES
    )
    with pytest.raises(Malformed):
        desk.encoder.encode({"op": "transfer", "ref": "r", "legs": [leg] * (PARTS_MAX + 1)})
