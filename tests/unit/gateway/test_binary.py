"""Records from a client: what passes is what the JSON encoder makes of the same words, and nothing else passes."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from engine.messages import layout
from engine.messages.codes import ABSENT, INVALID, NIL, CommandKind, EventKind, OrderType, SelfTrade, Side, TimeInForce
from engine.messages.directory import Directory
from engine.messages.edge import ORDER_KINDS, EdgeCode
from engine.messages.encode import CommandEncoder
from engine.messages.layout import OrderFlag, PlaceFlag
from gateway.wire.binary import command_count, first_fault, told_message
from gateway.wire.numbers import first_invalid
from tests.support.binary import cancel, messages, place, record, replace
from tests.unit.gateway.test_scan import DIRECTORY, OneMarket

ENCODER = CommandEncoder(DIRECTORY, OneMarket())
ALICE = DIRECTORY.accounts_by_name["alice"].index
MARKETS = 1
PLAIN = st.text("ABCXYZabcxyz0189_-.:", min_size=1, max_size=32)
AMOUNTS = st.sampled_from([ABSENT, INVALID, -1, 0, 1, 2, 10**6, 2**62, 2**63 - 1])


def words(made: bytes, directory: Directory = DIRECTORY) -> dict[str, Any]:
    """The command of a record that passed, as JSON would have it."""
    kind, flags = CommandKind(made[4]), struct.unpack_from("<H", made, 6)[0]
    market = directory.markets[0]
    command: dict[str, Any] = {"op": kind.word, "account": "alice"}

    def put(row: np.void, field: str, text: Any) -> None:
        if row[field] != ABSENT:
            command[field] = text(int(row[field]))

    def name(row: np.void) -> None:
        if flags & OrderFlag.BY_ORDER_ID:
            command["order_id"] = int.from_bytes(made[40:48], "little")
        else:
            command["client_id"] = row["client_id"].decode()

    if kind is CommandKind.PLACE:
        row = np.frombuffer(made, layout.PLACE, 1)[0]
        command |= {
            "market": market.name, "client_id": row["client_id"].decode(), "side": Side(row["side"]).word,
            "type": OrderType(row["type"]).word, "stp": SelfTrade(row["stp"]).word,
        }  # fmt: skip
        if row["tif"]:
            command["tif"] = TimeInForce(row["tif"]).word
        if flags & PlaceFlag.POST_ONLY:
            command["post_only"] = True
        if flags & PlaceFlag.BUDGET:
            command["budget"] = market.quote.text(int(row["size"]))
        else:
            put(row, "size", market.size_text)
        for field, text in (("price", market.price_text), ("stop_price", market.price_text)):
            put(row, field, text)
        put(row, "display_size", market.size_text)
        put(row, "expires_at", int)
        if flags & PlaceFlag.HAS_OCO:
            command["oco_with"] = made[128:160].rstrip(b"\0").decode()
    elif kind is CommandKind.CANCEL:
        name(np.frombuffer(made, layout.CANCEL, 1)[0])
    elif kind is CommandKind.REPLACE:
        row = np.frombuffer(made, layout.REPLACE, 1)[0]
        name(row)
        for field, text in (
            ("price", market.price_text), ("size", market.size_text), ("stop_price", market.price_text),
        ):  # fmt: skip
            put(row, field, text)
        if row["new_client_id"]:
            command["new_client_id"] = row["new_client_id"].decode()
    elif kind is CommandKind.MASS_CANCEL:
        row = np.frombuffer(made, layout.MASS_CANCEL, 1)[0]
        if row["given"] & 2:
            command["market"] = market.name if row["market"] == 0 else "no-such"
        if row["side"] != 255:
            command["side"] = Side(row["side"]).word
    elif kind is CommandKind.CANCEL_AFTER:
        command["at"] = int(np.frombuffer(made, layout.CANCEL_AFTER, 1)[0]["at"])
    elif kind is CommandKind.POISON:
        command["client_id"] = np.frombuffer(made, layout.POISON, 1)[0]["client_id"].decode()
    return command


def judge(made: bytes) -> tuple[int, int] | None:
    """What the gateway says. If it says yes, the record must be the encoder's."""
    fault = first_fault(made, [ALICE], MARKETS)
    if fault is None:
        stripped = bytearray(made)
        stripped[8:16] = bytes(8)  # the request id
        if made[4] == CommandKind.PLACE:
            stripped[112:120] = bytes(8)  # a session is the hash of a name: any word may be one
        elif made[4] == CommandKind.MASS_CANCEL:
            stripped[40:48] = bytes(8)
            if stripped[49] & 2 and stripped[36:40] != bytes(4):
                stripped[36:40] = NIL.to_bytes(4, "little")  # a name that nobody knows: the core says so
        assert bytes(ENCODER.encode(words(bytes(stripped)))) == bytes(stripped)
        if made[4] in (CommandKind.PLACE, CommandKind.REPLACE):
            assert first_invalid(bytes(stripped)) is None
    return fault


GOOD = [
    place(ALICE, "a", 0, 5, 7), place(ALICE, "a" * 32, 1, 5, 7, rid=2**64 - 1, tif=3, flags=PlaceFlag.POST_ONLY, stp=4),
    place(ALICE, "a", 0, ABSENT, 7, type=2, flags=PlaceFlag.BUDGET), place(ALICE, "a", 0, 5, 7, oco="partner"),
    place(ALICE, "a", 0, 5, 7, type=4, stop_price=4, expires_at=9, session=77, display_size=3),
    cancel(ALICE, "a"), cancel(ALICE, 2**64 - 1), replace(ALICE, "a", price=3), replace(ALICE, 9, size=1),
    replace(ALICE, "a", new_client_id="b" * 32), replace(ALICE, "a", stop_price=2, price=1, size=1),
    record(CommandKind.MASS_CANCEL, struct.pack("<IIQBB", ALICE, NIL, 0, 255, 1)),
    record(CommandKind.MASS_CANCEL, struct.pack("<IIQBB", ALICE, 0, 5, 1, 3)),
    record(CommandKind.MASS_CANCEL, struct.pack("<IIQBB", ALICE, 7, 5, 1, 3)),
    record(CommandKind.KILL, struct.pack("<I", ALICE)), record(CommandKind.REARM, struct.pack("<I", ALICE)),
    record(CommandKind.CANCEL_AFTER, struct.pack("<IIq", ALICE, 0, 10**18)),
    record(CommandKind.POISON, struct.pack("<II32s", ALICE, 0, b"a")),
]  # fmt: skip


@pytest.mark.parametrize("made", GOOD, ids=range(len(GOOD)))
def test_a_good_record_is_the_encoders(made: bytes) -> None:
    assert judge(made) is None


def test_every_kind_that_may_come_as_a_record_is_tried() -> None:
    assert {made[4] for made in GOOD} == set(ORDER_KINDS)


def _set(made: bytes, at: int, value: bytes) -> bytes:
    return made[:at] + value + made[at + len(value) :]


ONE = GOOD[0]
MASS = GOOD[11]


@pytest.mark.parametrize(
    ("made", "code", "offset"),
    [
        (_set(ONE, 0, b"\1"), EdgeCode.MALFORMED, 0),
        (_set(ONE, 16, b"\1"), EdgeCode.MALFORMED, 16),
        (_set(ONE, 31, b"\1"), EdgeCode.MALFORMED, 24),
        *((_set(ONE, 4, bytes([kind])), EdgeCode.UNKNOWN_OP, 4) for kind in (0, 1, 4, 5, 6, 15, 16, 21, 22, 31, 255)),
        (_set(ONE, 6, b"\x08"), EdgeCode.MALFORMED, 6),
        (_set(ONE, 7, b"\1"), EdgeCode.MALFORMED, 6),
        (_set(ONE, 5, b"\2") + bytes(128), EdgeCode.MALFORMED, 5),
        (_set(ONE, 6, b"\4"), EdgeCode.MALFORMED, 5),
        (_set(cancel(ALICE, "a"), 5, b"\2") + bytes(128), EdgeCode.MALFORMED, 5),
        (place(ALICE + 1, "a", 0, 5, 7), EdgeCode.FORBIDDEN, 32),
        (place(NIL, "a", 0, 5, 7), EdgeCode.FORBIDDEN, 32),
        (place(ALICE, "a", 0, 5, 7, market=1), EdgeCode.UNKNOWN_MARKET, 36),
        (place(ALICE, "a", 0, 5, 7, market=NIL), EdgeCode.UNKNOWN_MARKET, 36),
        *((_set(ONE, 40, text), EdgeCode.MALFORMED, 40) for text in (b"\0", b" ", b"\xff", b"a\0b", b"a" * 31 + b"\n")),
        *((place(ALICE, "a", 0, price, 7), EdgeCode.BAD_PRICE, 72) for price in (0, -1, INVALID)),
        *((place(ALICE, "a", 0, 5, size), EdgeCode.BAD_SIZE, 80) for size in (0, -1, INVALID, ABSENT)),
        (place(ALICE, "a", 0, 5, 7, stop_price=0), EdgeCode.BAD_STOP, 88),
        (place(ALICE, "a", 0, 5, 7, display_size=-7), EdgeCode.BAD_DISPLAY, 96),
        (place(ALICE, "a", 2, 5, 7), EdgeCode.MALFORMED, 120),
        (place(ALICE, "a", 0, 5, 7, type=0), EdgeCode.MALFORMED, 121),
        (place(ALICE, "a", 0, 5, 7, type=5), EdgeCode.MALFORMED, 121),
        (place(ALICE, "a", 0, 5, 7, tif=5), EdgeCode.MALFORMED, 122),
        (place(ALICE, "a", 0, 5, 7, stp=5), EdgeCode.MALFORMED, 123),
        (_set(ONE, 127, b"\1"), EdgeCode.MALFORMED, 124),
        (_set(GOOD[3], 128, b"\0"), EdgeCode.MALFORMED, 128),
        (_set(GOOD[3], 255, b"\1"), EdgeCode.MALFORMED, 160),
        (_set(cancel(ALICE, "a"), 36, b"\1"), EdgeCode.MALFORMED, 36),
        (_set(cancel(ALICE, "a"), 127, b"\1"), EdgeCode.MALFORMED, 72),
        (_set(cancel(ALICE, 5), 71, b"\1"), EdgeCode.MALFORMED, 40),
        (_set(cancel(ALICE, "a"), 6, b"\2"), EdgeCode.MALFORMED, 6),
        (replace(ALICE, "a"), EdgeCode.MALFORMED, 72),
        (replace(ALICE, "a", price=0), EdgeCode.BAD_PRICE, 72),
        (replace(ALICE, "a", size=0), EdgeCode.BAD_SIZE, 80),
        (replace(ALICE, "a", stop_price=INVALID), EdgeCode.BAD_STOP, 88),
        (replace(ALICE, "a", new_client_id="b b"), EdgeCode.MALFORMED, 96),
        (_set(MASS, 49, b"\0"), EdgeCode.MALFORMED, 49),
        (_set(MASS, 49, b"\2"), EdgeCode.MALFORMED, 49),
        (_set(MASS, 36, bytes(4)), EdgeCode.MALFORMED, 36),
        (_set(MASS, 48, b"\2"), EdgeCode.MALFORMED, 48),
        (_set(MASS, 50, b"\1"), EdgeCode.MALFORMED, 50),
        (_set(GOOD[14], 40, b"\1"), EdgeCode.MALFORMED, 40),
        (_set(GOOD[16], 40, struct.pack("<q", ABSENT)), EdgeCode.MALFORMED, 40),
        (_set(GOOD[16], 48, b"\1"), EdgeCode.MALFORMED, 48),
        (_set(GOOD[17], 40, b"\0"), EdgeCode.MALFORMED, 40),
        (_set(GOOD[17], 72, b"\1"), EdgeCode.MALFORMED, 72),
    ],
)
def test_a_bad_record_is_refused_at_the_byte_that_is_wrong(made: bytes, code: EdgeCode, offset: int) -> None:
    assert judge(made) == (code, offset)


def test_a_scope_is_needed_for_each_kind() -> None:
    lowers = (CommandKind.CANCEL, CommandKind.MASS_CANCEL, CommandKind.KILL, CommandKind.CANCEL_AFTER)  # not POISON
    for made in GOOD:
        for may_trade, may_cancel in ((True, True), (False, True), (False, False)):
            allowed = may_cancel if made[4] in lowers else may_trade
            found = first_fault(made, [3, ALICE], MARKETS, may_trade, may_cancel)
            assert found == (None if allowed else (EdgeCode.FORBIDDEN, 4)), made
    assert first_fault(ONE, [], MARKETS) == (EdgeCode.FORBIDDEN, 32)


@given(st.binary(min_size=1, max_size=600))
@example(bytes(128))
def test_any_bytes_are_whole_records_or_none(frame: bytes) -> None:
    count, at, expected = command_count(frame), 0, 0
    while at < len(frame):
        step = frame[at + 5] if at + 5 < len(frame) else 0
        at, expected = at + step * 128, expected + 1
        if step == 0 or at > len(frame) or len(frame) % 128:
            expected = -1
            break
    assert count == expected


@given(st.sampled_from(GOOD), st.lists(st.tuples(st.integers(0, 255), st.binary(min_size=1, max_size=9)), max_size=4))
def test_a_record_with_any_bytes_changed_is_the_encoders_or_refused(
    made: bytes, changes: list[tuple[int, bytes]]
) -> None:
    changed = bytearray(made)
    for at, value in changes:
        at %= len(made)
        changed[at : min(at + len(value), len(made))] = value[: len(made) - at]
    changed[5] = len(made) // 128
    fault = judge(bytes(changed))
    assert fault is None or (EdgeCode(fault[0]) and 0 <= fault[1] < len(made))


@given(st.binary(min_size=128, max_size=128))
def test_any_slot_is_refused_or_the_encoders(slot: bytes) -> None:
    judge(_set(slot, 5, b"\1"))


@given(PLAIN, AMOUNTS, AMOUNTS, AMOUNTS, AMOUNTS, st.integers(0, 255), st.integers(0, 7), st.integers(0, 6))
def test_f47_numbers_of_a_place_are_the_encoders_or_refused(
    name: str, price: int, size: int, stop: int, display: int, type_: int, flags: int, tif: int
) -> None:
    judge(
        place(
            ALICE, name, 0, price, size, type=type_, tif=tif, stop_price=stop, display_size=display,
            flags=flags & ~PlaceFlag.HAS_OCO, oco="p" if flags & PlaceFlag.HAS_OCO else "",
        )
    )  # fmt: skip


# ---------------------------------------------------------------- what is told


def _slot(dtype: np.dtype, kind: int, **fields: Any) -> bytes:
    made = np.zeros(1, dtype)
    made["kind"], made["slots"] = kind, 1
    for field, value in fields.items():
        made[field] = value
    return made.tobytes()


SIDES = {
    "maker_order_id": 11, "maker_leaves": 12, "taker_order_id": 21, "taker_leaves": 22, "price": 3, "size": 4,
    "account": 1, "taker_account": 2,
}  # fmt: skip


@pytest.mark.parametrize("buyer", [0, 1])
def test_a_trade_shows_each_side_its_own(buyer: int) -> None:
    slot = _slot(
        layout.TRADE,
        EventKind.TRADE,
        maker_fee=13,
        taker_fee=23,
        released=31,
        buyer=buyer,
        trade_id=5,
        notional=12,
        **SIDES,
    )
    [maker], [taker], [both] = (messages(told_message(slot, own)) for own in (1, 2, NIL))
    assert both["raw"] == slot
    for told, mine, other in ((maker, "maker", "taker"), (taker, "taker", "maker")):
        event, whole = told["event"], both["event"]
        assert [event[f"{mine}_{field}"] for field in ("order_id", "leaves", "fee")] == [
            whole[f"{mine}_{field}"] for field in ("order_id", "leaves", "fee")
        ]
        assert (event[f"{other}_order_id"], event[f"{other}_leaves"], event[f"{other}_fee"]) == (0, ABSENT, ABSENT)
        assert event["account" if other == "maker" else "taker_account"] == NIL
        assert event["released"] == (31 if (mine == "taker") == bool(buyer) else ABSENT)
        assert [event[field] for field in ("price", "size", "notional", "trade_id")] == [3, 4, 12, 5]
    same = _slot(layout.TRADE, EventKind.TRADE, **(SIDES | {"taker_account": 1}))
    assert messages(told_message(same, 1))[0]["raw"] == same


def test_a_prevented_match_shows_each_side_its_own() -> None:
    slot = _slot(layout.PREVENTED, EventKind.PREVENTED, maker_released=13, taker_released=23, **SIDES)
    for own, mine, other in ((1, "maker", "taker"), (2, "taker", "maker")):
        [event] = [told["event"] for told in messages(told_message(slot, own))]
        assert event[f"{mine}_order_id"] and event[f"{mine}_released"] > 0
        assert (event[f"{other}_order_id"], event[f"{other}_leaves"], event[f"{other}_released"]) == (0, ABSENT, ABSENT)


@pytest.mark.parametrize("has_memo", [0, 1])
@pytest.mark.parametrize("mine", [0, 1, 3, 4, 5, 8])
def test_a_movement_of_money_shows_an_account_its_own_legs(has_memo: int, mine: int) -> None:
    legs = np.zeros(12, layout.LEG)
    legs["source"], legs["target"], legs["amount"] = 5, 6, range(12)
    legs["target"][:mine] = 7
    head = np.zeros(1, layout.MONEY_EVENT)
    head["kind"], head["slots"], head["ref"], head["leg_count"], head["has_memo"] = 12, 4 + has_memo, b"r", 12, has_memo
    memo = b"memo".ljust(128, b"\0") if has_memo else b""
    [told] = messages(told_message(head.tobytes() + memo + legs.tobytes(), 7))
    assert told["slots"] == 1 + has_memo + -(-mine // 4) and told["event"]["leg_count"] == mine
    kept = np.frombuffer(told["raw"][(1 + has_memo) * 128 :], layout.LEG)
    assert kept["amount"][:mine].tolist() == list(range(mine)) and not kept[mine:].tobytes().strip(b"\0")
    assert told["raw"][128:256] == memo if has_memo else True
