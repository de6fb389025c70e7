"""LocalSui over gRPC with unmodified pysui: faults, forged and repeated bytes, old numbers, restarts."""

from __future__ import annotations

import asyncio
import base64
import dataclasses
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest
from pysui.sui.sui_grpc.pgrpc_clients import GrpcProtocolClient

from engine.messages.errors import DataDirectoryBusy, JournalCorrupt, OutcomeUnknown, Refused, Unavailable
from settlement.appendlog import AppendLog
from settlement.chain.keys import OperatorKey, signer_of
from settlement.chain.localsui.replay import replay
from settlement.chain.localsui.server import RunningNode, start
from settlement.chain.localsui.state import Record
from settlement.chain.port import CoinPart, Execution, Part, Payout, Signed, VaultListing
from settlement.chain.sui import SuiChain, SuiSettings
from settlement.netting import CLEARING_ROW, split
from tests.support.chain_key import OPERATOR, SEED
from tests.support.waiting import HANG_S

A, B = b"\xa1" * 32, b"\xb2" * 32


@dataclass
class World:
    directory: Path
    node: RunningNode
    chain: SuiChain
    listings: dict[str, VaultListing]
    previous: bytes = bytes(32)

    def part(self, batch: int, *, entries: list[tuple[bytes, int]] | None = None, deposit: int = 0) -> Part:
        deposits = [(A, deposit), (B, deposit)] if deposit else []
        coin = CoinPart("USDC", self.previous, entries if entries is not None else [(A, -5), (B, 5)], deposits)
        return Part(batch, 0, 1, b"\1" * 32, b"\2" * 32, [coin])

    async def run(self, part: Part) -> Execution:
        execution = await self.chain.send(await self.chain.sign(part, self.listings))
        if execution.success:
            self.previous = part.coins[0].next_chain(part.batch, 0, part.root, part.trades_digest)
        return execution

    async def next_batch(self) -> int:
        return (await self.chain.vault_states(list(self.listings.values())))["USDC"].next_batch


async def _connect(directory: Path, node: RunningNode) -> SuiChain:
    chain = SuiChain(SuiSettings(f"http://127.0.0.1:{node.port}", directory / "pysui", timeout_s=HANG_S), OPERATOR)
    await chain.connect()
    return chain


@pytest.fixture(params=["auto", "model"])
async def world(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[World]:
    node = await start(tmp_path, OPERATOR.address, executor=request.param)
    chain = await _connect(tmp_path, node)
    [listing] = await chain.open_vaults([("USDC", 1)], 1)
    world = World(tmp_path, node, chain, {"USDC": listing})
    assert (await world.run(world.part(1, deposit=1_000))).success
    yield world
    await world.chain.close()
    await world.node.close()


async def test_same_bytes_twice_take_effect_once(world: World) -> None:
    signed = await world.chain.sign(world.part(2), world.listings)
    first, second = await world.chain.send(signed), await world.chain.send(signed)
    assert first.success and first == second == await world.chain.find(signed.digest)
    assert await world.next_batch() == 3


async def test_lost_response_is_unknown_and_found_by_digest(world: World) -> None:
    signed = await world.chain.sign(world.part(2), world.listings)
    world.node.faults.next_execute.append("lost_response")
    with pytest.raises(OutcomeUnknown):
        await world.chain.send(signed)
    found = await world.chain.find(signed.digest)
    assert found is not None and found.success
    assert await world.chain.send(signed) == found and await world.next_batch() == 3


async def test_lost_request_did_nothing_and_the_same_bytes_work(world: World) -> None:
    signed = await world.chain.sign(world.part(2), world.listings)
    world.node.faults.next_execute.append("lost_request")
    with pytest.raises(OutcomeUnknown):
        await world.chain.send(signed)
    assert await world.chain.find(signed.digest) is None and await world.next_batch() == 2
    assert (await world.chain.send(signed)).success


async def test_hang_ends_by_the_timeout(world: World) -> None:
    signed = await world.chain.sign(world.part(2), world.listings)
    world.node.faults.next_execute.append("hang")
    world.node.faults.hang_s = 30.0
    patient = world.chain._settings
    world.chain._settings = dataclasses.replace(patient, timeout_s=1.0)
    with pytest.raises(OutcomeUnknown):
        await world.chain.send(signed)
    world.chain._settings = patient
    found = await world.chain.find(signed.digest)
    assert found is not None and found.success


async def test_old_number_and_forked_history_abort_and_still_pay_gas(world: World) -> None:
    old = await world.run(world.part(1))
    assert (old.success, old.abort_code) == (False, 4) and old.gas_mist > 0
    forked = await world.run(msgspec.structs.replace(world.part(2), coins=[CoinPart("USDC", b"\1" * 32)]))
    assert (forked.success, forked.abort_code) == (False, 16)
    overdrawn = await world.run(world.part(2, entries=[(A, -10_000), (B, 10_000)]))
    assert (overdrawn.success, overdrawn.abort_code) == (False, 6)
    uneven = await world.run(world.part(2, entries=[(A, -10), (B, 9)]))
    assert (uneven.success, uneven.abort_code) == (False, 7)
    assert (await world.run(world.part(2))).success


async def test_two_transactions_over_one_gas_coin_only_one_runs(world: World) -> None:
    first = await world.chain.sign(world.part(2), world.listings)
    second = await world.chain.sign(world.part(2, entries=[(A, -6), (B, 6)]), world.listings)
    results = await asyncio.gather(*(world.chain.send(s) for s in (first, second)), return_exceptions=True)
    refused = [result for result in results if isinstance(result, Refused)]
    assert len(refused) == 1 and "unavailable for consumption" in str(refused[0])
    assert await world.next_batch() == 3


async def test_forged_and_foreign_signatures_are_refused(world: World) -> None:
    signed = await world.chain.sign(world.part(2), world.listings)
    forged = bytearray(signed.signature)
    forged[5] ^= 1
    stranger = OperatorKey(os.urandom(32))
    for signature in (bytes(forged), stranger.sign(signed.raw), b"", b"\5" + signed.signature[1:]):
        with pytest.raises(Refused, match="signature"):
            await world.chain.send(Signed(signed.raw, signature, signed.digest))
    for raw in (signed.raw[:-1], signed.raw + b"\0", b"", b"\xff" * 200):
        with pytest.raises(Refused):
            await world.chain.send(Signed(raw, world.chain._key.sign(raw), signed.digest))
    assert await world.next_batch() == 2


async def test_expired_bytes_are_refused(world: World) -> None:
    signed = await world.chain.sign(world.part(2), world.listings)
    world.node.node.next_epoch()
    world.node.node.next_epoch()
    with pytest.raises(Refused, match="expired in epoch 1"):
        await world.chain.send(signed)


async def test_payout_is_numbered_and_creates_the_coin(world: World) -> None:
    part = world.part(2)
    coin = msgspec.structs.replace(part.coins[0], payouts=[Payout("w1", A, B, 100), Payout("w2", B, B, 7)])
    assert (await world.run(msgspec.structs.replace(part, coins=[coin]))).success
    state = (await world.chain.vault_states(list(world.listings.values())))["USDC"]
    assert (state.pool, state.next_withdrawal) == (2_000 - 107, 2)
    owned = [item for item in world.node.node.state.items.values() if item.owner == B]
    assert sorted(item.mist for item in owned) == [7, 100]


async def test_more_than_a_thousand_rows_in_one_transaction_abort(world: World) -> None:
    rows = [(number.to_bytes(32, "big"), 1) for number in range(1, 1_001)]
    too_many = await world.run(world.part(2, entries=[(A, -1_000), *rows]))
    assert not too_many.success and "1000 dynamic fields" in too_many.error
    assert (await world.run(world.part(2, entries=[(A, -900), *rows[:900]]))).success


async def test_a_batch_in_parts_fits_and_clears(world: World) -> None:
    rows = [bytes([1]) + number.to_bytes(31, "big") for number in range(1_400)]
    entries = [(row, -1) for row in rows[:700]] + [(row, 1) for row in rows[700:]]
    payouts = [Payout(f"w{number}", A, A, 1) for number in range(60)]
    coin = CoinPart("USDC", world.previous, entries, [(row, 2) for row in rows[:700]], payouts)
    parts = split(2, b"\1" * 32, b"\2" * 32, [coin])
    assert len(parts) > 3
    for part in parts:
        assert (await world.chain.send(await world.chain.sign(part, world.listings))).success
    vault = world.node.node.state.vaults[bytes.fromhex(world.listings["USDC"].vault[2:])]
    assert vault.balances[CLEARING_ROW] == 0 and all(vault.balances[row] == 1 for row in rows)
    assert (vault.header.next_seq, vault.header.pool) == (3, 2_000 + 1_400 - 60)


async def test_restart_loses_nothing(world: World) -> None:
    signed = await world.chain.sign(world.part(2), world.listings)
    executed = await world.chain.send(signed)
    state = world.node.node.state
    rows = state.vaults[bytes.fromhex(world.listings["USDC"].vault[2:])].balances
    items = dict(state.items)
    await world.chain.close()
    await world.node.close()
    with (world.directory / "transactions.log").open("ab") as log:
        log.write(b"\x40\0\0\0torn")  # a write that a crash cut short
    world.node = await start(world.directory, OPERATOR.address, executor=world.node.node.executor_name)
    world.chain = await _connect(world.directory, world.node)
    again = world.node.node.state
    assert again.items == items
    assert again.vaults[bytes.fromhex(world.listings["USDC"].vault[2:])].balances == rows == {A: 990, B: 1_010}
    assert await world.chain.send(signed) == executed


async def test_the_log_runs_again_to_the_same_chain_and_says_where_it_does_not(world: World, tmp_path: Path) -> None:
    """Under both executors, over a log with successes, an abort, a turned epoch and a record nobody signed."""
    await world.run(world.part(1))
    assert (await world.run(world.part(2, entries=[(A, -10), (B, 9)]))).abort_code == 7
    world.node.node.next_epoch()
    await world.node.node.administer(paused=True)
    await world.node.node.administer(paused=False)
    assert (await world.run(world.part(2))).success
    for executor in ("auto", "model"):
        told = replay(tmp_path, executor)
        assert not told.differences and told.switched == 2 and told.transactions == world.node.node.state.checkpoint - 2
        same = told.executor == world.node.node.executor_name
        assert (told.gas_differs == 0) is same
    genesis, *entries = AppendLog.peek(tmp_path / "transactions.log")
    last = msgspec.msgpack.decode(entries[-1], type=Record)
    vault, owner, row = last.rows[0]
    richer = [(vault, owner, msgspec.structs.replace(row, balance=row.balance + 1)), *last.rows[1:]]
    stranger = [OperatorKey(os.urandom(32)).sign(last.raw)]
    for change, words in (
        ({"rows": richer}, "rows differs"), ({"signatures": stranger}, "signatures wanted of"),
        ({"success": False}, "success differs"), ({"raw": last.raw + b"!"}, "bytes not all consumed"),
    ):  # fmt: skip
        log = AppendLog(tmp_path / words / "transactions.log")
        bent = msgspec.msgpack.encode(msgspec.structs.replace(last, **change))
        for entry in (genesis, *entries[:-1], bent):
            log.append(entry)
        log.close()
        differences = replay(tmp_path / words, "model").differences
        assert any(words in line for line in differences), differences
        assert all(f"transaction {last.checkpoint} " in line for line in differences)
    with pytest.raises(FileNotFoundError):
        replay(tmp_path / "nowhere", "model")


async def test_paused_and_stopped_nodes_are_unavailable(world: World) -> None:
    world.node.faults.unavailable = True
    with pytest.raises(Unavailable):
        await world.next_batch()
    world.node.faults.unavailable = False
    world.node.faults.next_execute.append("refuse_once")
    with pytest.raises(Refused, match="fault switch"):
        await world.run(world.part(2))
    assert (await world.run(world.part(2))).success


async def test_a_directory_has_one_node_and_damage_is_refused(tmp_path: Path) -> None:
    node = await start(tmp_path, OPERATOR.address)
    with pytest.raises(DataDirectoryBusy):
        await start(tmp_path, OPERATOR.address)
    chain = await _connect(tmp_path, node)
    await chain.open_vaults([("USDC", 1)], 1)
    await chain.close()
    await node.close()
    log = tmp_path / "transactions.log"
    data = bytearray(log.read_bytes())
    data[20] ^= 1
    log.write_bytes(data)
    with pytest.raises(JournalCorrupt, match="checksum at offset 0"):
        await start(tmp_path, OPERATOR.address)


async def test_pysui_builds_signs_and_keeps_the_channel_where_we_replace_it(world: World) -> None:
    """What we rely on in pysui: the private channel attribute, and that our key signs as its own does."""
    from pysui.sui.sui_crypto import keypair_from_keystring

    client = world.chain._client
    assert type(client) is GrpcProtocolClient and client._channel._port == world.node.port
    assert client._channel._ssl is None
    signed = await world.chain.sign(world.part(2), world.listings)
    key = world.chain._key
    assert key is OPERATOR
    theirs = keypair_from_keystring(base64.b64encode(b"\0" + SEED).decode())
    assert base64.b64decode(theirs.new_sign_secure(base64.b64encode(signed.raw).decode())) == signed.signature
    assert signer_of(signed.signature, signed.raw) == key.address
