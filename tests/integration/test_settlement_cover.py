"""P9: what payees owe us lies beside the clients' money on the chain: custody holds what its clients own."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.messages.codes import CommandKind, EventKind
from settlement.batch_file import read_batch_file
from settlement.chain.encoding import address_bytes
from settlement.chain.reader import NodeReader
from settlement.netting import CUSTODY_ROW, TREASURY_ROW
from settlement.verify import verify_batch
from tests.support.settlement_bench import Bench
from tests.support.settlement_events import EventLog
from tests.support.waiting import until

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
DEBT, OWNED, RESERVE = 78, 178, 500


@pytest.mark.parametrize("cover", [DEBT, 0], ids=["covered", "bare"])
async def test_p9_a_payee_below_zero_is_covered_in_the_cut_and_root_and_vault_agree(tmp_path: Path, cover: int) -> None:
    log, bench = EventLog(), Bench(tmp_path)
    usdc, who = log.asset("USDC"), log.account("user:c")
    payee, reserve = log.account("pay:p", overdraft=1), log.account("platform:reserve", overdraft=1)
    laid = log.account("platform:cover")
    log.deposit(who, usdc, OWNED - DEBT)
    log.deposit(reserve, usdc, RESERVE)
    log.money(EventKind.TRANSFERRED, CommandKind.TRANSFER, "refund:1", [(payee, usdc, DEBT, who)])
    if cover:
        log.money(EventKind.TRANSFERRED, CommandKind.TRANSFER, "cover:1", [(reserve, usdc, cover, laid)])
    log.cut()
    await bench.node_up()
    try:
        async with bench.settler(log) as settler:
            await until(lambda: len(bench.finals()) == 1, what="the batch")
            owed, rows = settler.netting.liabilities, settler.netting.rows["USDC"]
            proofs = owed.prove(1, "user:c")
            assert [proof.amount for proof in proofs] == [OWNED]
            for nobody in ("platform:cover", "pay:p"):
                with pytest.raises(KeyError):
                    owed.prove(1, nobody)
            vault = bench.node.node.state.vaults[address_bytes(settler.status()["vaults"]["USDC"])]
        assert {row: amount for row, amount in vault.balances.items() if amount} == rows
        assert vault.balances[CUSTODY_ROW] == OWNED - DEBT + cover, "clients are short by the debts that nobody covers"
        assert vault.balances[TREASURY_ROW] == RESERVE - cover and vault.header.pool == OWNED - DEBT + RESERVE
        assert vault.header.last_liabilities == OWNED
        [record] = [record for record in bench.records if record.status == "final"]
        reader = NodeReader(f"http://127.0.0.1:{bench.port}")
        try:
            assert [line async for line in verify_batch(read_batch_file(record.file), proofs, reader)]
        finally:
            await reader.close()
    finally:
        await bench.node_down()
