"""The settler over a real LocalSui: queueing, order, crashes between every two steps, payouts, halts."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, ClassVar

import msgspec
import pytest

from engine.messages.codes import CommandKind, EventKind
from engine.messages.errors import Refused, Unavailable
from settlement.chain.encoding import address_bytes
from settlement.chain.keys import OperatorKey
from settlement.chain.port import Execution, Signed, VaultListing, VaultState
from settlement.chain.sui import SuiChain, SuiSettings
from settlement.settler import _NAMED
from tests.support.chain_key import OPERATOR
from tests.support.settlement_bench import MARKET, Bench, SecondBooks, bench, check_rows, opened_market, reached
from tests.support.settlement_events import EXTERNAL, EventLog
from tests.support.sui_owner import Owner

__all__ = ["bench"]


class LaggingChain(SuiChain):
    """The first send takes effect and is answered by a refusal; until the next one every read shows the time before."""

    forget_first = False

    def __init__(self, settings: SuiSettings, key: OperatorKey) -> None:
        super().__init__(settings, key)
        self.sent: list[str] = []
        self._old: dict[str, VaultState] = {}

    async def vault_states(self, listings: list[VaultListing]) -> dict[str, VaultState]:
        if len(self.sent) == 1:
            return self._old
        return await super().vault_states(listings)

    async def find(self, digest: str) -> Execution | None:
        hidden = len(self.sent) == 1 or (self.forget_first and digest == self.sent[0])
        return None if hidden else await super().find(digest)

    async def sign(self, part, listings) -> Signed:
        if not self.sent:
            self._old = await super().vault_states([listings[coin.asset] for coin in part.coins])
        return await super().sign(part, listings)

    async def send(self, signed: Signed) -> Execution:
        if not self._old:
            return await super().send(signed)  # opens a vault
        self.sent.append(signed.digest)
        execution = await super().send(signed)
        if len(self.sent) == 1:
            assert execution.success
            raise Refused("an answer from before (test)")
        return execution


class ForgetfulChain(LaggingChain):
    """And it never finds the transaction that took effect."""

    forget_first = True


async def test_batches_become_final_in_order_with_digests(bench: Bench) -> None:
    log, buyer, seller = opened_market()
    log.cut()
    for _ in range(20):
        log.trade(MARKET, seller, buyer, 3, 7, 4)
    log.cut()
    log.cut()
    async with bench.settler(log) as settler:
        await reached(lambda: settler.status()["final_batch"] == 3, "3 batches")
        check_rows(bench, settler)
        status = settler.status()
        assert (status["chain"], status["executor"]) == ("embedded (not a network)", "model")
    assert bench.finals() == [1, 2, 3]
    final = [record for record in bench.records if record.status == "final"]
    assert all(len(record.digests) == 1 for record in final) and final[1].trade_count == 20
    statuses = [record.status for record in bench.records if record.number == 2]
    assert statuses == ["sealed", "signed", "submitted", "final"]


async def test_a_batch_before_the_first_settled_asset_is_final_too(bench: Bench) -> None:
    log = EventLog()
    log.asset("USD", settled=False)
    log.cut()
    usdc = log.asset("USDC")
    log.deposit(log.account("user:a", row=b"\xa1" * 32), usdc, 5)
    log.cut()
    async with bench.settler(log) as settler:
        await reached(lambda: settler.status()["final_batch"] == 2, "both final")
        check_rows(bench, settler)


class WithoutFaucet(SuiChain):
    """As on a network: the coins are the issuer's. `opened` knows their faucets all the same."""

    opened: ClassVar[dict[str, VaultListing]] = {}

    async def open_vaults(
        self, assets: list[tuple[str, int]], first_batch: int, beside: Sequence[VaultListing] = ()
    ) -> list[VaultListing]:
        opened = await super().open_vaults(assets, first_batch, beside)
        WithoutFaucet.opened.update({listing.asset: listing for listing in opened})
        return [msgspec.structs.replace(listing, faucet=None) for listing in opened]


async def test_what_was_booked_from_outside_without_the_chain_halts_until_the_operator_pays_it(bench: Bench) -> None:
    log, buyer, seller = opened_market()
    log.cut()
    log.trade(MARKET, seller, buyer, 10, 70, 4)
    log.cut()
    async with bench.settler(log, chain_type=WithoutFaucet) as settler:
        await reached(lambda: settler.status()["halted"], "halted")
        assert "100000 units of USDC were booked from outside" in settler.status()["halted"]
        assert bench.records[-1].status == "halted" and bench.finals() == []
    owner = await Owner.open(bench.port, bench.directory, "issuer")
    async with bench.settler(log, chain_type=WithoutFaucet) as settler:
        await reached(lambda: settler.status()["connected"], "connected")
        assert settler.status()["halted"], "a restart changes nothing"
        settler.resume("the bank's transfer was booked by hand; treasury pays it in (test)")
        await reached(lambda: "has 0 units of" in settler.status()["chain_error"], "says what is missing, and where")
        assert OPERATOR.address in settler.status()["chain_error"] and not settler.status()["halted"]
        for asset, amounts in (("USDC", (60_000, 39_999, 1)), ("MAYA", (250_000,))):
            for amount in amounts:
                await owner.send_coin(WithoutFaucet.opened[asset], amount, OPERATOR.address)
        await reached(lambda: settler.status()["final_batch"] == 2, "paid in, once")
        check_rows(bench, settler)
        assert not settler.status()["unclaimed_deposits"]
        assert bench.node is not None
        maya = f"Coin<{WithoutFaucet.opened['MAYA'].coin_type}>"
        items = [item for item in bench.node.node.state.items.values() if item.kind.endswith(maya)]
        assert [(item.owner, item.mist) for item in items] == [(address_bytes(OPERATOR.address), 150_000)], "the change"
    await owner.close()


async def test_rubbish_sent_to_the_operator_hides_nothing(bench: Bench) -> None:
    owner = await Owner.open(bench.port, bench.directory, "stranger")
    await owner.scatter(1, 1_200, OPERATOR.address)
    await owner.close()
    log, _, _ = opened_market()
    log.cut()
    async with bench.settler(log) as settler:
        await reached(lambda: settler.status()["final_batch"] == 1, "capability and gas are found behind it")


async def test_a_second_core_that_differs_halts_before_the_batch_is_sealed(bench: Bench) -> None:
    log, buyer, seller = opened_market()
    log.cut()
    books = SecondBooks(log)
    async with bench.settler(log, audit=books) as settler:
        await reached(lambda: len(books.asked) > 2, "the journal is behind: asked again")
        assert bench.records == [] and not settler.status()["halted"]
        books.is_behind = False
        await reached(lambda: settler.status()["final_batch"] == 1, "the books agree")
        books.change = 1
        log.trade(MARKET, seller, buyer, 10, 70, 4)
        log.cut()
        await reached(lambda: settler.status()["halted"], "halted")
        assert "batch 2: account user:buyer has" in settler.status()["halted"] and bench.finals() == [1]
        assert {record.number for record in bench.records} == {1}
        books.change = 0
        settler.resume("the memory was exchanged (test)")
        await reached(lambda: settler.status()["final_batch"] == 2, "goes on")
        check_rows(bench, settler)


async def test_resuming_tells_of_what_is_not_final_and_of_no_batch_from_long_ago(bench: Bench) -> None:
    log, _, _ = opened_market()
    for _ in range(_NAMED + 5):
        log.cut()
    books = SecondBooks(log)
    books.is_behind = False
    async with bench.settler(log, audit=books) as settler:
        await reached(lambda: settler.status()["final_batch"] == _NAMED + 5, "all final")
        books.change = 1
        log.cut()
        await reached(lambda: settler.status()["halted"], "halted")
        books.change, told = 0, len(bench.records)
        assert settler.settled_batch == _NAMED + 5
        settler.resume("the memory was exchanged (test)")
        await reached(lambda: settler.status()["final_batch"] == _NAMED + 6, "goes on")
        again = [record.number for record in bench.records[told:] if record.number <= _NAMED + 5]
        assert again == list(range(6, _NAMED + 6)) and len(settler.status()["recent"]) == _NAMED
        check_rows(bench, settler)
    told = len(bench.records)
    async with bench.settler(log) as settler:
        await reached(lambda: settler.status()["connected"], "connected")
        assert [record.number for record in bench.records[told:]] == list(range(1, _NAMED + 7)), "a start tells of all"


async def test_batches_queue_while_the_chain_is_down(bench: Bench) -> None:
    log, buyer, seller = opened_market()
    log.cut()
    async with bench.settler(log) as settler:
        await reached(lambda: settler.status()["final_batch"] == 1, "first batch")
        await bench.node_down()
        for _ in range(4):
            log.trade(MARKET, seller, buyer, 3, 7, 4)
            log.cut()
        await reached(lambda: settler.status()["pending_batches"] == 4, "4 batches wait")
        await reached(lambda: not settler.status()["connected"], "the status says so")
        await bench.node_up()
        await reached(lambda: settler.status()["final_batch"] == 5, "all final")
        check_rows(bench, settler)
    assert bench.finals() == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("fault", ["lost_request", "lost_response", "refuse_once"])
async def test_faults_of_the_connection_change_nothing(bench: Bench, fault: str) -> None:
    log, buyer, seller = opened_market()
    log.cut()
    async with bench.settler(log) as settler:
        await reached(lambda: settler.status()["final_batch"] == 1, "first batch")
        assert bench.node is not None
        bench.node.faults.next_execute.extend([fault, "none", fault])
        for _ in range(3):
            log.trade(MARKET, seller, buyer, 3, 7, 4)
            log.cut()
        await reached(lambda: settler.status()["final_batch"] == 4, "all final")
        check_rows(bench, settler)
        assert not bench.node.faults.next_execute


@pytest.mark.parametrize("chain_type", [LaggingChain, ForgetfulChain])
async def test_the_digest_is_of_the_transaction_that_took_effect(bench: Bench, chain_type: type[LaggingChain]) -> None:
    """Signed anew although the first bytes ran: the second aborts, and its digest is not the batch's."""
    log, _, _ = opened_market()
    log.cut()
    async with bench.settler(log, chain_type=chain_type) as settler:
        await reached(lambda: settler.status()["final_batch"] == 1, "final")
        check_rows(bench, settler)
        chain = settler._chain
        assert isinstance(chain, LaggingChain) and len(chain.sent) == 2 and chain.sent[0] != chain.sent[1]
        aborted = await SuiChain.find(chain, chain.sent[1])
        assert aborted is not None and not aborted.success
        [record] = settler.status()["recent"]
        assert record["status"] == "final"
        if chain.forget_first:
            assert record["digests"] == [] and "by none of the transactions signed here" in record["error"]
        else:
            assert record["digests"] == [chain.sent[0]] and record["error"] == ""
        log.cut()
        await reached(lambda: settler.status()["final_batch"] == 2, "and it goes on")


@pytest.mark.parametrize("crash_after", range(12))
async def test_a_crash_between_any_two_steps_is_survived(bench: Bench, crash_after: int) -> None:
    """Stored events: seal ×2, list ×2, sign, send, executed of each batch … cut off after each of them."""
    log, buyer, seller = opened_market()
    log.cut()
    log.trade(MARKET, seller, buyer, 3, 7, 4)
    log.cut()
    async with bench.settler(log, crash_after=crash_after):
        await asyncio.sleep(0.25)
    async with bench.settler(log) as settler:
        await reached(lambda: settler.status()["final_batch"] == 2, "both final")
        check_rows(bench, settler)
        log.trade(MARKET, seller, buyer, 1, 1, 2)
        log.cut()
        await reached(lambda: settler.status()["final_batch"] == 3, "the next too")
        check_rows(bench, settler)
    assert bench.finals()[-1] == 3


async def test_withdrawals_are_paid_once_then_booked(bench: Bench) -> None:
    log, buyer, _ = opened_market()
    booked: list[str] = []

    class Core:
        async def submit(self, command: dict[str, Any]) -> dict[str, Any]:
            ref = command["ref"]
            if ref in booked:
                return {"event": "duplicate", "status": "posted"}
            booked.append(ref)
            log.money(EventKind.POSTED, CommandKind.WITHDRAW_SETTLED, ref, [(buyer, 0, 250, EXTERNAL)])
            return {"event": "posted"}

    log.money(EventKind.PENDED, CommandKind.WITHDRAW, "w1", [(buyer, 0, 250, EXTERNAL)])
    log.cut()
    async with bench.settler(log, commands=Core()) as settler:
        await reached(lambda: booked == ["w1"], "booked")
        log.cut()
        log.cut()
        await reached(lambda: settler.status()["final_batch"] == 3, "final")
        check_rows(bench, settler)
        assert not settler.netting.paid
    assert bench.node is not None
    paid = [item.mist for item in bench.node.node.state.items.values() if item.kind.startswith("0x2::coin::Coin<0x")]
    assert 250 in paid and paid.count(250) == 1


async def test_a_refused_booking_halts_after_the_others_and_an_absent_core_is_tried_again(bench: Bench) -> None:
    log, buyer, seller = opened_market()
    calls: list[str] = []

    class Core:
        async def submit(self, command: dict[str, Any]) -> dict[str, Any]:
            ref = command["ref"]
            calls.append(ref)
            if len(calls) <= 2:
                raise Unavailable("the core is not reachable (test)")
            if ref == "w-bad":
                return {"event": "rejected", "reason": "bad_ref"}
            log.money(EventKind.POSTED, CommandKind.WITHDRAW_SETTLED, ref, [(seller, 1, 20, EXTERNAL)])
            return {"event": "posted"}

    log.money(EventKind.PENDED, CommandKind.WITHDRAW, "w-bad", [(buyer, 0, 250, EXTERNAL)])
    log.money(EventKind.PENDED, CommandKind.WITHDRAW, "w-good", [(seller, 1, 20, EXTERNAL)])
    log.cut()
    async with bench.settler(log, commands=Core()) as settler:
        await reached(lambda: settler.status()["halted"], "halted")
        status = settler.status()
        assert "refuses to book withdrawal w-bad" in status["halted"] and status["final_batch"] == 1
        assert calls == ["w-bad", "w-bad", "w-bad", "w-good"]
        log.cut()
        await asyncio.sleep(0.1)
        assert len(calls) == 4 and bench.finals() == [1]
    async with bench.settler(log, commands=Core()) as settler:
        await reached(lambda: settler.status()["halted"], "still halted after a restart")
        assert "w-bad" in settler.status()["halted"] and bench.finals() == [1]
        assert "w-bad" in settler.resume("looked at (test)")
        await reached(lambda: bench.finals() == [1, 2], "resumed")
        await reached(lambda: settler.status()["halted"], "the next batch finds it again")
        assert len(calls) == 5 and "w-bad" in settler.status()["halted"]


async def test_a_withdrawal_without_a_wallet_is_named_and_holds_up_nothing(bench: Bench) -> None:
    log, buyer, _ = opened_market()
    rowless, bank = log.account("user:rowless"), log.account("bank:fiat", overdraft=2)
    log.money(EventKind.TRANSFERRED, CommandKind.DEPOSIT, "d-bank", [(bank, 0, 500, rowless)])
    booked: list[str] = []

    class Core:
        async def submit(self, command: dict[str, Any]) -> dict[str, Any]:
            booked.append(command["ref"])
            log.money(EventKind.POSTED, CommandKind.WITHDRAW_SETTLED, command["ref"], [(buyer, 0, 250, EXTERNAL)])
            return {"event": "posted"}

    log.money(EventKind.PENDED, CommandKind.WITHDRAW, "stuck", [(rowless, 0, 120, EXTERNAL)])
    log.money(EventKind.PENDED, CommandKind.WITHDRAW, "w1", [(buyer, 0, 250, EXTERNAL)])
    log.cut()
    async with bench.settler(log, commands=Core()) as settler:
        await reached(lambda: booked, "booked")
        log.cut()
        log.cut()
        await reached(lambda: settler.status()["final_batch"] == 3, "final")
        check_rows(bench, settler)
        status = settler.status()
        assert not status["halted"] and booked == ["w1"] and status["unpayable_count"] == 1
        assert status["unpayable"][0]["ref"] == "stuck" and "user:rowless" in status["unpayable"][0]["reason"]
    async with bench.settler(log, commands=Core()) as settler:
        await reached(lambda: settler.status()["unpayable_count"] == 1, "named after a restart too")
        log.cut()
        await reached(lambda: settler.status()["final_batch"] == 4, "and settlement goes on")
        check_rows(bench, settler)
    assert bench.node is not None
    paid = [item.mist for item in bench.node.node.state.items.values() if item.kind.startswith("0x2::coin::Coin<0x")]
    assert 250 in paid and 120 not in paid


async def test_a_disagreement_halts_and_says_so(bench: Bench) -> None:
    log, buyer, seller = opened_market()
    log.cut()
    async with bench.settler(log) as settler:
        await reached(lambda: settler.status()["final_batch"] == 1, "first batch")
        log.balances[buyer, 0] += 1
        log.deposit(buyer, 0, 5)
        log.cut()
        await reached(lambda: settler.status()["halted"], "halted")
        assert "user:buyer" in settler.status()["halted"]
    assert bench.finals() == [1]


async def test_a_vault_changed_behind_our_back_halts(bench: Bench) -> None:
    log, _, _ = opened_market()
    log.cut()
    async with bench.settler(log) as settler:
        await reached(lambda: settler.status()["final_batch"] == 1, "first batch")
        assert bench.node is not None
        other = SuiChain(SuiSettings(f"http://127.0.0.1:{bench.port}", bench.directory / "other"), OPERATOR)
        await other.connect()
        part = settler.netting  # a second settler commits the next number with another root
        from settlement.chain.port import CoinPart, Part

        coins = [CoinPart(asset, part.chain[asset]) for asset in ("USDC", "MAYA")]
        signed = await other.sign(Part(2, 0, 1, b"\x09" * 32, b"\x09" * 32, coins), settler._listings)
        assert (await other.send(signed)).success
        await other.close()
        log.cut()
        await reached(lambda: settler.status()["halted"], "halted")
        assert "another number or chain value" in settler.status()["halted"]
    async with bench.settler(log) as settler:
        await reached(lambda: settler.status()["halted"], "still halted after a restart")
