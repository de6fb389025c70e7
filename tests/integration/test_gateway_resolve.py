"""What became of an order: `resolve` and `poison` over real sockets, across restarts, against the journal."""

from __future__ import annotations

from pathlib import Path

import pytest

from byline.client import CommandError, Rejected
from engine.core import CoreLimits
from tests.support.gateway import MARKET, exchange


async def test_every_outcome_is_told_and_the_same_after_a_restart(tmp_path: Path) -> None:
    async with exchange(tmp_path) as x, await x.client(x.operator) as operator:
        key = await x.trader(operator, "alice")
        other = await x.trader(operator, "bob")
        async with await x.client(key) as a, await x.client(other) as b:
            never = await a.resolve("never")
            assert (never["outcome"], never["since"], never["not_accepted_since"]) == ("never_received", 0, 0)
            keep = {"cancel_on_disconnect": False}
            opened = await a.command("place", market=MARKET, client_id="open", side="sell", type="limit", size="3",
                                     price="2", **keep)  # fmt: skip
            assert (await b.place(MARKET, "taker", "buy", "limit", size="1", price="2"))["event"] == "accepted"
            found = await a.resolve("open")
            assert (found["outcome"], found["order_id"], found["status"], found["filled"]) == (
                "accepted", opened["order_id"], "open", "1",
            )  # fmt: skip
            assert found["sequence"] >= opened["sequence"] and found["market"] == MARKET
            final = await b.resolve("taker")
            assert (final["outcome"], final["status"], final["filled"]) == ("final", "filled", "1")
            await a.place(MARKET, "gone", "sell", "limit", size="2", price="3")
            await a.replace(client_id="gone", new_client_id="renamed")
            await a.cancel(client_id="renamed")
            for name in ("gone", "renamed"):
                told = await a.resolve(name)
                assert (told["outcome"], told["status"], told["filled"]) == ("final", "canceled", "0")
            with pytest.raises(Rejected) as refused:
                await a.place(MARKET, "poor", "buy", "limit", size="900000", price="9")
            told = await a.resolve("poor")
            assert (told["outcome"], told["rejected_sequence"], told["reason"]) == (
                "rejected", refused.value.ack["sequence"], "insufficient_funds",
            )  # fmt: skip
            spent = await a.place(MARKET, "budget", "buy", "market", budget="1")
            assert spent["event"] == "accepted" and (await a.resolve("budget"))["filled"] == "0"
            with pytest.raises(CommandError, match="rate|bad_price"):
                await a.place(MARKET, "edge", "buy", "limit", size="1", price="0")
            assert (await a.resolve("edge"))["outcome"] == "never_received"
            before = {name: await a.resolve(name) for name in ("open", "gone", "renamed", "poor", "budget", "edge")}
    async with exchange(tmp_path, listed=False, restart=True) as x, await x.client(key) as a:
        for name, told in before.items():
            again = await a.resolve(name)
            assert again.pop("sequence") >= told["sequence"]
            same = {field: value for field, value in told.items() if field not in ("sequence", "rid")}
            assert {field: again[field] for field in again if field != "rid"} == same


async def test_a_poisoned_id_never_executes(tmp_path: Path) -> None:
    async with exchange(tmp_path) as x, await x.client(x.operator) as operator:
        key = await x.trader(operator, "alice")
        async with await x.client(key) as a, await x.client(key) as late:
            assert (await a.resolve("p"))["outcome"] == "never_received"
            assert (await a.poison("p"))["event"] == "done"
            assert (await a.resolve("p"))["outcome"] == "poisoned"
            with pytest.raises(Rejected, match="poisoned"):
                await late.place(MARKET, "p", "buy", "limit", size="1", price="1")
            assert (await a.resolve("p"))["outcome"] == "poisoned"
            await a.place(MARKET, "q", "buy", "limit", size="1", price="1")
            assert (await a.poison("q"))["event"] == "duplicate"
            assert (await a.resolve("q"))["outcome"] == "accepted"


async def test_a_poison_of_what_the_engine_forgot_does_not_say_that_it_never_executed(tmp_path: Path) -> None:
    limits = CoreLimits(client_ids_per_account=3)
    async with exchange(tmp_path, limits=limits) as x, await x.client(x.operator) as operator:
        key, other = await x.trader(operator, "alice"), await x.trader(operator, "bob")
        async with await x.client(key) as a, await x.client(other) as b:
            await b.place(MARKET, "b", "sell", "limit", size="5", price="1")
            filled = await a.place(MARKET, "x", "buy", "limit", size="5", price="1")
            assert (await a.resolve("x"))["outcome"] == "final"
            assert (await a.poison("fresh"))["event"] == "done"
            assert (await a.resolve("fresh"))["not_accepted_since"] == 0  # nothing was forgotten yet: it never executed
            for number in range(6):
                await a.place(MARKET, f"c{number}", "buy", "limit", size="1", price="0.5")
                await a.cancel(client_id=f"c{number}")
            assert (await a.poison("x"))["event"] == "done"  # it does not know it any more
            told = await a.resolve("x")
            assert told["outcome"] == "poisoned" and told["not_accepted_since"] > filled["sequence"]


async def test_the_horizon_is_told_where_ids_were_forgotten(tmp_path: Path) -> None:
    limits = CoreLimits(client_ids_per_account=3)
    async with exchange(tmp_path, limits=limits, rejections_per_account=2) as x, await x.client(x.operator) as operator:
        key = await x.trader(operator, "alice")
        async with await x.client(key) as a:
            closed = []
            for number in range(6):
                await a.place(MARKET, f"c{number}", "buy", "limit", size="1", price="1")
                closed.append((await a.cancel(client_id=f"c{number}"))["sequence"])
            assert [(await a.resolve(f"c{n}"))["outcome"] for n in range(6)] == ["never_received"] * 3 + ["final"] * 3
            told = await a.resolve("c0")
            assert told["since"] == told["not_accepted_since"] == closed[3]  # c3 is the oldest that is remembered
            refused = []
            for number in range(4):
                with pytest.raises(Rejected) as error:
                    await a.place(MARKET, f"r{number}", "buy", "limit", size="900000", price="9")
                refused.append(error.value.ack["sequence"])
            told = await a.resolve("r0")
            assert (told["outcome"], told["since"]) == ("never_received", refused[1])
            assert (await a.resolve("r3"))["rejected_sequence"] == refused[3]


async def test_resolve_is_for_ones_own_accounts(tmp_path: Path) -> None:
    async with exchange(tmp_path) as x, await x.client(x.operator) as operator:
        key, reader = await x.trader(operator, "alice"), await x.trader(operator, "carol", ("transfer",))
        async with await x.client(key) as a, await x.client(reader) as c:
            for client, fields, code in (
                (a, {"client_id": "x", "account": "carol"}, "forbidden"), (a, {"client_id": "ä"}, "malformed"),
                (a, {}, "malformed"), (c, {"client_id": "x"}, "forbidden"),
            ):  # fmt: skip
                with pytest.raises(CommandError) as error:
                    await client.request({"op": "resolve"} | fields)
                assert error.value.code == code
            assert (await operator.resolve("x", "alice"))["outcome"] == "never_received"
