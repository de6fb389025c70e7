"""`byline rebuild`: PostgreSQL's projections from the journal alone, beside a running exchange and at a start."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from typing import Any

import asyncpg

from byline.operator import open_operator
from byline.summary import read_projection
from persistence.disk import DirectoryDisk
from tests.faults.audit import replay_durable
from tests.integration.test_exchange import traders
from tests.support.exchange import ExchangeProcess, until
from tests.support.waiting import answers


def rebuild(exchange: ExchangeProcess) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "byline.cli", "rebuild", "--data", str(exchange.data)]
    return subprocess.run(argv, capture_output=True, text=True, check=False, env=os.environ)


async def spoil(exchange: ExchangeProcess) -> None:
    """What nobody should ever do to the projections."""
    connection = await asyncpg.connect(exchange.status("postgres")["url"])
    await connection.execute("DELETE FROM exchange.trade")
    await connection.execute("UPDATE exchange.balance SET available = available + 1")
    await connection.execute("DELETE FROM settlement.batch WHERE number = 1")
    await connection.close()


async def projected(exchange: ExchangeProcess) -> Any:
    """The projection once it has what the core has told, and the first batch."""
    async with open_operator(exchange.settings) as operator:
        sequence = (await operator.status())["sequence"]
    await until(lambda: exchange.status("backoffice").get("projection", {}).get("sequence", 0) >= sequence, what="rows")
    return await read_projection(exchange.status("postgres")["url"])


async def test_projections_come_back_beside_a_running_exchange_and_at_a_start(new_exchange: Any) -> None:
    exchange = new_exchange("--quiet-market", "--batch-seconds", "1")
    await exchange.start()
    buyer, seller = await traders(exchange, 2)
    for number in range(20):
        await buyer.place("INK-USDC", f"b{number}", "buy", "limit", size="1", price="12")
        await seller.place("INK-USDC", f"s{number}", "sell", "limit", size="1", price="12")
    await until(lambda: exchange.status("backoffice")["settlement"]["final_batch"] > 1, what="a final batch")
    before = await projected(exchange)
    assert before.trades == 20
    await spoil(exchange)

    done = await asyncio.to_thread(rebuild, exchange)
    assert done.returncode == 0 and "Rebuilt" in done.stdout, done.stderr
    await answers(lambda: beside_the_journal(exchange), lambda both: both[0] == both[1])
    after = await projected(exchange)
    assert (after.trades, after.orders) == (before.trades, before.orders)
    assert [batch["number"] for batch in after.batches][:2] == [1, 2] and after.batches[0]["digests"]

    for client in (buyer, seller):
        await client.close()
    await spoil(exchange)
    assert await exchange.stop() == 0
    done = await asyncio.to_thread(rebuild, exchange)
    assert done.returncode == 0 and "at its next start" in done.stdout, done.stderr
    await exchange.start()
    # A start sweeps the fees of the days before, so balances are those of the journal as it is by then.
    await answers(lambda: beside_the_journal(exchange), lambda both: both[0] == both[1])
    assert (await projected(exchange)).trades == before.trades
    assert await exchange.stop() == 0


async def beside_the_journal(exchange: ExchangeProcess) -> tuple[Any, Any]:
    """The balances of the projection, and those of the journal."""
    return (await projected(exchange)).balances, await asyncio.to_thread(balances_of_the_journal, exchange)


def balances_of_the_journal(exchange: ExchangeProcess) -> dict[tuple[int, int], tuple[int, int]]:
    core, _ = replay_durable(DirectoryDisk(exchange.data))
    return {
        (int(row["account"]), int(row["asset"])): (int(row["available"]), int(row["held"]))
        for row in core.balances()
        if row["available"] or row["held"]
    }
