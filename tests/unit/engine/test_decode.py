"""Event slots to JSON: fields in the rulebook's order, decimals, names, and a decoder that starts in the middle."""

from __future__ import annotations

import numpy as np
import pytest

from engine.messages import layout
from engine.messages.codes import Phase
from engine.messages.decode import EventDecoder
from engine.messages.directory import Directory
from engine.messages.open_orders import OpenOrder
from tests.support.commands import Desk, account, cancel, limit, replace


def raw(desk: Desk, command: dict) -> np.ndarray:
    record = desk.encoder.encode(command)
    record[8:16] = (desk.core.sequence + 1).to_bytes(8, "little")
    return desk.core.apply(record)


def test_trade_has_the_fields_of_the_rulebook_in_order() -> None:
    desk = Desk(taker_ppm=5000, maker_ppm=-3000)
    desk.do(limit("bob", "s", "sell", "10.50", "5"))
    accepted, trade = desk.do(limit("ann", "b", "buy", "11", "2", ts=7))
    assert list(accepted) == [
        "sequence", "index", "ts", "event", "order_id", "client_id", "account", "market", "side", "type", "tif",
        "price",
        "size", "hold",
    ]  # fmt: skip
    sides = [f"{who}_{field}" for who in ("maker", "taker")
             for field in ("order_id", "account", "client_id", "leaves", "fee", "released")]  # fmt: skip
    head = ["sequence", "index", "ts", "event"]
    assert list(trade) == [*head, "trade_id", "market", "price", "size", "notional", "aggressor", *sides]
    assert (trade["index"], trade["ts"], trade["price"], trade["notional"]) == (1, 7, "10.5", "21")
    assert (trade["maker_fee"], trade["taker_fee"], trade["maker_client_id"]) == ("-0.06", "0.11", "s")


def test_balance_and_money_events_name_everything() -> None:
    desk = Desk()
    leg = {
        "from": "ann",
        "asset": "USD",
        "amount": "0.05",
        "shares": [{"to": "bob", "weight": 1}, {"to": "ann", "weight": 2}],
    }
    pended, payer = desk.do(
        {"op": "transfer", "ref": "r", "legs": [leg], "pending": True, "expires_at": 9, "memo": "m"}
    )
    assert pended["legs"] == [
        {"from": "ann", "asset": "USD", "amount": "0.02", "to": "bob"},
        {"from": "ann", "asset": "USD", "amount": "0.03", "to": "ann"},
    ]
    assert (pended["event"], pended["memo"], payer["held"], payer["cause"]) == ("pended", "m", "0.05", "transfer")
    voided, back = desk.do({"op": "tick", "ts": 9})
    assert (voided["event"], voided["cause"], back["available"], back["cause"]) == (
        "voided",
        "expired",
        "10000",
        "expired",
    )
    assert desk.do({"op": "post", "ref": "r"})[0]["status"] == "voided"


def test_rejected_shows_the_names_that_were_given() -> None:
    event = Desk().do(cancel("zed", "nothing"))[0]
    assert event["account"] == "zed" and event["client_id"] == "nothing" and event["reason"] == "unknown_account"
    assert list(event)[3:] == ["event", "op", "account", "client_id", "reason"]


def test_directory_learns_listing_and_changes_and_refuses_a_gap() -> None:
    desk = Desk(min_size="2")
    market = desk.directory.markets_by_name["TOK-USD"]
    assert (market.base.name, market.k, market.u, market.min_size, market.ticks("1.5")) == ("TOK", 1, 1, 2, 150)
    slots = raw(desk, account("bob", status="cancel_only", stp_group="desk", row="0x" + "07" * 32))
    desk.directory.learn(slots)
    entry = desk.directory.account("bob")
    assert entry is not None and (entry.status.word, entry.stp_group, entry.row) == (
        "cancel_only",
        "desk",
        b"\x07" * 32,
    )
    with pytest.raises(ValueError, match="index 3"):
        Directory().learn(slots)
    with pytest.raises(ValueError, match="length is 0"):
        desk.directory.learn(np.concatenate([np.zeros(1, layout.EVENT), slots]))


def test_directory_follows_a_market_through_its_phases() -> None:
    desk = Desk(phase="preopen")
    assert desk.directory.markets_by_name["TOK-USD"].phase == Phase.PREOPEN
    opened = desk.do({"op": "uncross", "market": "TOK-USD"})
    assert opened[0] == {"sequence": desk.core.sequence, "index": 0, "ts": 0, "event": "uncrossed", "market": "TOK-USD",
                         "size": "0", "imbalance": "0"}  # fmt: skip
    assert desk.directory.markets_by_name["TOK-USD"].phase == desk.directory.markets[0].phase == Phase.CONTINUOUS
    halted = raw(desk, {"op": "phase", "market": "TOK-USD", "phase": "halt"})
    with pytest.raises(ValueError, match="market 0 changes its phase"):
        Directory().learn(halted)


def test_of_a_budget_order_size_and_leaves_are_quote() -> None:
    desk = Desk()
    stop = {"op": "place", "account": "ann", "market": "TOK-USD", "client_id": "s", "side": "buy", "type": "stop"}
    assert desk.do(stop | {"stop_price": "11", "budget": "7.5"})[0]["budget"] == "7.5"
    renamed = desk.do(replace("ann", "s", new_client_id="s2"))[0]
    assert (renamed["size"], renamed["leaves"], "price" in renamed) == ("7.5", "7.5", False)
    assert desk.do(cancel("ann", "s2"))[0]["leaves"] == "7.5"


def test_a_decoder_that_starts_in_the_middle_tells_what_it_can() -> None:
    desk = Desk()
    order_id = desk.do(limit("bob", "s", "sell", "10", "5"))[0]["order_id"]
    slots = raw(desk, cancel("bob", "s"))
    late = EventDecoder(desk.directory)
    event = late.decode(slots)[0]
    assert event["client_id"] == "s" and event["leaves"] == "5" and "released" not in event
    late = EventDecoder(desk.directory)
    index = desk.directory.accounts_by_name["bob"].index
    late.orders.add(OpenOrder(order_id, index, 0, "s", 1))
    assert late.decode(slots.tobytes())[0]["released"] == "5"


def test_open_orders_are_forgotten_when_they_close() -> None:
    desk = Desk()
    desk.do(limit("bob", "s", "sell", "10", "5"))
    desk.do(replace("bob", "s", new_client_id="s2"))
    assert desk.decoder.orders.find(desk.directory.accounts_by_name["bob"].index, None, "s") is not None
    desk.do(limit("ann", "b", "buy", "10", "5"))
    desk.do({"op": "tick"})
    desk.do({"op": "cut"})
    assert len(desk.decoder.orders) == 0
