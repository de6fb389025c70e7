"""The scanner says yes only to what the thorough path encodes to the same bytes."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.core import Core
from engine.messages.directory import Directory
from engine.messages.encode import CommandEncoder, Malformed
from gateway.wire.numbers import first_invalid
from gateway.wire.scan import scan_record


def _directory() -> Directory:
    core, directory = Core(), Directory()
    for sequence, command in enumerate(
        (
            {"op": "asset", "asset": "USD", "scale": 6},
            {"op": "asset", "asset": "CRT", "scale": 2},
            {"op": "market", "market": "CRT-USD", "base": "CRT", "quote": "USD", "tick": "0.05", "lot": "0.1"},
            {"op": "account", "account": "alice"},
        ),
        1,
    ):
        record = CommandEncoder(directory).encode(command)
        record[8:16] = sequence.to_bytes(8, "little")
        directory.learn(core.apply(record))
    return directory


DIRECTORY = _directory()


class OneMarket:
    """Every order is of the one market."""

    market = 0

    def find(self, account: int, order_id: int | None, client_id: str | None) -> "OneMarket":
        return self


ENCODER = CommandEncoder(DIRECTORY, OneMarket())
PLACE = {
    "op": "place", "market": "CRT-USD", "client_id": "a-1", "side": "buy", "type": "limit", "size": "1.5",
    "price": "2.05",
}  # fmt: skip


def _without(*fields: str, **changes: object) -> dict[str, object]:
    return {key: value for key, value in PLACE.items() if key not in fields} | changes


def scanned(text: bytes) -> bytes | None:
    market, account = DIRECTORY.markets_by_name["CRT-USD"], DIRECTORY.accounts_by_name["alice"]
    steps = (market.tick, market.tick_decimals, market.lot, market.lot_decimals, market.quote.scale)
    return scan_record(text, "CRT-USD", steps, market.index, account.index)


def thorough(command: dict[str, object]) -> bytes | None:
    plain = {key: value for key, value in command.items() if key != "rid"} | {"account": "alice"}
    try:
        record = bytes(ENCODER.encode(plain))
    except Malformed:
        return None
    return None if first_invalid(record) else record


@pytest.mark.parametrize(
    "extra",
    [
        {}, {"rid": 7}, {"rid": "x"}, {"tif": "ioc"}, {"tif": "fok"}, {"post_only": True}, {"post_only": False},
        {"stp": "decrement"}, {"price": "00002.050"}, {"account": "alice"},
    ],
)  # fmt: skip
def test_usual_place_is_scanned_to_the_encoders_bytes(extra: dict[str, object]) -> None:
    command = PLACE | extra
    assert scanned(json.dumps(command).encode()) == thorough(command) is not None


@pytest.mark.parametrize(
    "command",
    [
        PLACE | {"display_size": "0.3"}, PLACE | {"tif": "gtd", "expires_at": 1_795_000_000_000_000_000},
        PLACE | {"type": "stop_limit", "stop_price": "2", "tif": "fok"},
        _without("price", type="stop", stop_price="2.1"),
        _without("price", "size", type="stop", stop_price="2.1", budget="7.000001", rid=2**63 - 1),
        _without("price", "size", type="market", budget="12"), _without("price", type="market"),
    ],
)  # fmt: skip
def test_every_order_type_is_scanned_to_the_encoders_bytes(command: dict[str, object]) -> None:
    assert scanned(json.dumps(command).encode()) == thorough(command) is not None


@pytest.mark.parametrize(
    ("extra", "session"),
    [
        ({"receipt": True}, 0), ({"receipt": False}, 0), ({"cancel_on_disconnect": True}, 0),
        ({"cancel_on_disconnect": False}, 2**64 - 1), ({"cancel_on_disconnect": False, "receipt": True}, 2**64 - 1),
    ],
)  # fmt: skip
def test_what_a_place_says_of_its_session_is_scanned_as_the_session_reads_it(
    extra: dict[str, bool], session: int
) -> None:
    plain = thorough(PLACE)
    assert plain is not None
    assert scanned(json.dumps(PLACE | extra).encode()) == plain[:112] + session.to_bytes(8, "little") + plain[120:]


@pytest.mark.parametrize(
    "command",
    [
        {"op": "cancel", "client_id": "a-1", "cancel_on_disconnect": False},
        PLACE | {"cancel_on_disconnect": 0}, PLACE | {"receipt": "true"}, PLACE | {"receipt": None},
    ],
)  # fmt: skip
def test_what_only_the_session_can_refuse_is_left_to_it(command: dict[str, object]) -> None:
    assert scanned(json.dumps(command).encode()) is None


@pytest.mark.parametrize("command", [{"op": "cancel", "client_id": "a-1"}, {"op": "cancel", "order_id": 42, "rid": 1}])
def test_usual_cancel_is_scanned_to_the_encoders_bytes(command: dict[str, object]) -> None:
    assert scanned(json.dumps(command).encode()) == thorough(command) is not None


@pytest.mark.parametrize(
    "text",
    [
        b"", b"{", b"[]", b'{"op":"place"}', json.dumps(PLACE).encode() + b"x", json.dumps(PLACE).encode()[:-1],
        json.dumps(PLACE | {"price": "2.06"}).encode(), json.dumps(PLACE | {"price": "0"}).encode(),
        json.dumps(PLACE | {"price": "-1"}).encode(), json.dumps(PLACE | {"price": "NaN"}).encode(),
        json.dumps(PLACE | {"price": 2.05}).encode(), json.dumps(PLACE | {"price": "1e2"}).encode(),
        json.dumps(PLACE | {"price": "99999999999999999999"}).encode(), json.dumps(PLACE | {"price": "2."}).encode(),
        json.dumps(PLACE | {"size": "0.15"}).encode(), json.dumps(PLACE | {"size": ""}).encode(),
        json.dumps(PLACE | {"client_id": "a b"}).encode(), json.dumps(PLACE | {"client_id": "x" * 33}).encode(),
        json.dumps(PLACE | {"side": "bid"}).encode(), json.dumps(PLACE | {"color": "red"}).encode(),
        json.dumps(PLACE | {"rid": -1}).encode(), json.dumps(PLACE | {"rid": "r" * 33}).encode(),
        json.dumps(PLACE | {"stop_price": "2"}).encode(), json.dumps(PLACE | {"budget": "2"}).encode(),
        json.dumps(PLACE | {"type": "stop"}).encode(), json.dumps(PLACE | {"type": "stop", "stop_price": "2"}).encode(),
        json.dumps(PLACE | {"type": "stop_limit"}).encode(), json.dumps(PLACE | {"display_size": "0.01"}).encode(),
        json.dumps(PLACE | {"expires_at": 2**63}).encode(), json.dumps(PLACE | {"expires_at": 0}).encode(),
        json.dumps(PLACE | {"oco_with": "b"}).encode(), json.dumps(PLACE | {"session": "s"}).encode(),
        json.dumps(_without("size", budget="0.0000001")).encode(), b'{"op":"cancel","order_id":1,"budget":"1"}',
        json.dumps(PLACE)[:-1].encode() + b',"price":"2.10"}', b'{"op":"cancel","client_id":"a","order_id":1}',
        b'{"op":"cancel"}', b'{"op":"cancel","client_id":"a","price":"1"}', "{\"op\":\"canc\u00e9l\"}".encode(),
    ],
)  # fmt: skip
def test_anything_unusual_or_wrong_is_left_to_the_thorough_path(text: bytes) -> None:
    assert scanned(text) is None


@pytest.mark.parametrize(
    "changes",
    [
        {"price": "2.05"}, {"size": "3"}, {"stop_price": "1.9"}, {"new_client_id": "b"}, {"order_id": 7, "price": "2"},
        {"price": "2", "size": "1.5", "stop_price": "3", "new_client_id": "b", "rid": 9, "account": "alice"},
    ],
)  # fmt: skip
def test_replace_is_scanned_to_the_encoders_bytes(changes: dict[str, object]) -> None:
    command = {"op": "replace"} | ({} if "order_id" in changes else {"client_id": "a"}) | changes
    assert scanned(json.dumps(command).encode()) == thorough(command) is not None


@pytest.mark.parametrize(
    "changes",
    [
        {}, {"order_id": 7, "price": "2"}, {"price": "2.06"}, {"size": "0"}, {"stop_price": "-1"},
        {"new_client_id": ""}, {"price": "2", "market": "CRT-USD"}, {"price": "2", "tif": "gtc"},
        {"price": "2", "display_size": "1"}, {"price": "2", "side": "buy"}, {"price": None},
        {"size": "1", "expires_at": 5}, {"size": "1", "budget": "5"},
    ],
)  # fmt: skip
def test_unusual_replace_is_left_to_the_thorough_path(changes: dict[str, object]) -> None:
    assert scanned(json.dumps({"op": "replace", "client_id": "a"} | changes).encode()) is None


@given(
    price=st.from_regex(r"[0-9.\-eN]{0,24}", fullmatch=True) | st.decimals("0.05", "9999", places=2).map(str),
    size=st.from_regex(r"[0-9]{1,21}(\.[0-9]{0,3})?", fullmatch=True),
    side=st.sampled_from(["buy", "sell", "Buy", ""]),
    kind=st.sampled_from(["limit", "market", "stop", "stop_limit"]),
    more=st.fixed_dictionaries(
        {},
        optional={
            "stop_price": st.sampled_from(["2", "2.05", "0", "2.06"]), "display_size": st.sampled_from(["0.1", "x"]),
            "budget": st.sampled_from(["7", "0.0000001", "-1"]), "expires_at": st.integers(-1, 2**64),
            "tif": st.sampled_from(["gtc", "gtd", "ioc", "fok", "day"]), "post_only": st.booleans(),
        },
    ),
    left_out=st.sets(st.sampled_from(["price", "size"])),
)  # fmt: skip
def test_f47_a_yes_of_the_scanner_is_always_the_encoders_record(
    price: str, size: str, side: str, kind: str, more: dict[str, object], left_out: set[str]
) -> None:
    command = _without("price", "size", **more, side=side, type=kind)
    command |= {field: value for field, value in (("price", price), ("size", size)) if field not in left_out}
    record = scanned(json.dumps(command).encode())
    if record is not None:
        assert record == thorough(command)


@given(st.binary(max_size=60))
def test_random_bytes_never_pass(data: bytes) -> None:
    assert scanned(data) is None
