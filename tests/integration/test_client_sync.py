"""The blocking clients from a thread without a loop, against a real order entry and with errors that come through."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from byline.client import Rejected, SignInFailed, generate_key
from byline.client.messages import Accepted, Canceled, Trade
from byline.client.sync import SyncTrader
from tests.support.gateway import MARKET, exchange


async def test_a_program_without_a_loop_trades(tmp_path: Path) -> None:
    async with exchange(tmp_path) as x, await x.client(x.operator) as operator:
        alice, bob = await x.trader(operator, "alice"), await x.trader(operator, "bob")

        def program() -> list[object]:
            with SyncTrader(x.url, alice) as trader, SyncTrader(x.url, bob) as other:
                events = trader.events()
                order = trader.place(MARKET, "a", "sell", "limit", size="3", price="2")
                assert other.place(MARKET, "b", "buy", "limit", size="1", price="2").state == "filled"
                assert trader.ask("resolve", client_id="a")["filled"] == "1"
                assert (order.filled, order.leaves) == (1, 2)
                assert [found.client_id for found in trader.open_orders()] == ["a"]
                assert trader.replace("a", price="3", new_client_id="c").price == "3"
                with pytest.raises(Rejected, match="insufficient_funds"):
                    trader.place(MARKET, "poor", "buy", "limit", size="900000", price="9")
                assert trader.cancel("c").state == "canceled" and not trader.open_orders()
                told: list[object] = []
                while not isinstance(told[-1] if told else None, Canceled):
                    told.append(next(events))
                trader.cancel_all()
                return told

        told = await asyncio.to_thread(program)
        assert [type(event).__name__ for event in told] == [
            "Accepted", "Trade", "Replaced", "RejectedEvent", "Canceled",
        ]  # fmt: skip
        accepted, trade = told[:2]
        assert isinstance(accepted, Accepted) and accepted.t_in
        assert isinstance(trade, Trade) and trade.maker_fee == "0.006"


async def test_what_goes_wrong_is_raised_and_nothing_stays_behind(tmp_path: Path) -> None:
    async with exchange(tmp_path) as x:

        def program() -> None:
            with pytest.raises(SignInFailed), SyncTrader(x.url, generate_key()):
                raise AssertionError("the key is unknown")

        await asyncio.to_thread(program)
