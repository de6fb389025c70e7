"""Every fault switch of LocalSui, seen through unmodified pysui; the door and the command; a node that is killed."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pysui.sui.sui_common.sui_commands as commands
import pytest
from pysui.sui.sui_bcs import bcs
from pysui.sui.sui_common.txn_transaction_builder import ProgrammableTransactionBuilder

from engine.messages.errors import OutcomeUnknown, Refused, Unavailable
from settlement.chain.encoding import (
    Reader,
    address_bytes,
    address_text,
    base58_text,
    transaction_digest,
    u64,
    u128,
    vector_u8,
)
from settlement.chain.keys import OperatorKey
from settlement.chain.localsui import door
from settlement.chain.localsui.door import SWITCHES, ask
from settlement.chain.localsui.faults import Faults
from settlement.chain.localsui.node import LocalSui
from settlement.chain.localsui.server import RunningNode, Service, start
from settlement.chain.port import CoinPart, Execution, Part, Signed, VaultListing
from settlement.chain.sui import SuiChain, SuiSettings
from tests.support.chain_key import OPERATOR

A, B = b"\xa1" * 32, b"\xb2" * 32


class World:
    """A chain with one vault, and the operator's client."""

    def __init__(self, directory: Path, node: RunningNode | None, port: int) -> None:
        self.directory, self.node, self.port = directory, node, port
        self.previous, self.batch = bytes(32), 1
        self.listing: VaultListing

    async def connect(self, timeout_s: float = 600.0) -> None:
        url = f"http://127.0.0.1:{self.port}"
        self.chain = SuiChain(SuiSettings(url, self.directory / "pysui", timeout_s=timeout_s), OPERATOR)
        await self.chain.connect()

    async def open(self) -> None:
        [self.listing] = await self.chain.open_vaults([("USDC", 1)], 1)
        assert (await self.run(deposit=1_000)).success

    def part(self, amount: int = 5, deposit: int = 0) -> Part:
        deposits = [(A, deposit), (B, deposit)] if deposit else []
        coin = CoinPart("USDC", self.previous, [(A, -amount), (B, amount)], deposits, liabilities=77)
        return Part(self.batch, 0, 1, b"\1" * 32, b"\2" * 32, [coin])

    async def sign(self, part: Part) -> Signed:
        return await self.chain.sign(part, {"USDC": self.listing})

    async def run(self, amount: int = 5, deposit: int = 0) -> Execution:
        part = self.part(amount, deposit)
        execution = await self.chain.send(await self.sign(part))
        if execution.success:
            self.went(part)
        return execution

    def went(self, part: Part) -> None:
        self.previous = part.coins[0].next_chain(part.batch, 0, part.root, part.trades_digest)
        self.batch += 1

    async def next_batch(self) -> int:
        return (await self.chain.vault_states([self.listing]))["USDC"].next_batch

    async def flip(self, switch: str, value: str = "") -> None:
        assert self.node is not None
        await self.node.flip(switch, value)


@pytest.fixture(params=["auto", "model"])
async def world(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[World]:
    node = await start(tmp_path, OPERATOR.address, executor=request.param)
    world = World(tmp_path, node, node.port)
    await world.connect()
    await world.open()
    yield world
    await world.chain.close()
    await node.close()


async def test_lost_request_changes_nothing(world: World) -> None:
    signed = await world.sign(world.part())
    await world.flip("lost_request")
    with pytest.raises(OutcomeUnknown):
        await world.chain.send(signed)
    assert await world.chain.find(signed.digest) is None and await world.next_batch() == 2
    assert (await world.chain.send(signed)).success


async def test_lost_response_is_found_by_its_digest(world: World) -> None:
    signed = await world.sign(world.part())
    await world.flip("lost_response")
    with pytest.raises(OutcomeUnknown):
        await world.chain.send(signed)
    found = await world.chain.find(signed.digest)
    assert found is not None and found.success and await world.chain.send(signed) == found


async def test_a_hanging_answer_comes_when_the_transaction_has_long_taken_effect(world: World) -> None:
    signed = await world.sign(world.part())
    await world.flip("hang")
    sending = asyncio.create_task(world.chain.send(signed))
    while (found := await world.chain.find(signed.digest)) is None:
        await asyncio.sleep(0.01)
    assert found.success and not sending.done()
    await world.flip("clear")
    assert await sending == found


async def test_a_delayed_transaction_takes_effect_later(world: World) -> None:
    signed = await world.sign(world.part())
    assert world.node is not None
    await world.flip("delay_s", "3600")
    await world.flip("delay")
    sending = asyncio.create_task(world.chain.send(signed))
    while world.node.faults.next_execute:
        await asyncio.sleep(0.01)
    assert await world.chain.find(signed.digest) is None and not sending.done()
    await world.flip("clear")
    assert (await sending).success


async def test_refuse_once_is_a_definite_no(world: World) -> None:
    signed = await world.sign(world.part())
    await world.flip("refuse_once")
    with pytest.raises(Refused, match="fault switch"):
        await world.chain.send(signed)
    assert (await world.chain.send(signed)).success


async def test_chances_come_as_often_as_their_dice_say(world: World) -> None:
    await world.flip("chance", "lost_request=1")
    with pytest.raises(OutcomeUnknown):
        await world.chain.send(await world.sign(world.part()))
    await world.flip("chance", "lost_request=0.3,refuse_once=0.2")
    assert world.node is not None
    faults = world.node.faults
    await world.flip("seed", "7")
    first = [faults.next_fault() for _ in range(2_000)]
    await world.flip("seed", "7")
    assert first == [faults.next_fault() for _ in range(2_000)]
    assert 500 < first.count("lost_request") < 700 and 300 < first.count("refuse_once") < 500
    await world.flip("chance", "")
    assert (await world.run()).success


async def test_a_stale_node_shows_the_time_before_and_executes_all_the_same(world: World) -> None:
    signed = await world.sign(world.part())
    assert world.node is not None
    node = world.node.node
    await world.flip("stale_read", "on")
    head = await world.chain.head()
    assert (await world.chain.send(signed)).success
    assert await world.next_batch() == 2 and await world.chain.find(signed.digest) is None
    assert await world.chain.head() == head
    await world.flip("epoch")
    rows = commands.GetDynamicFields(object_id=address_text(next(iter(node.state.vaults.values())).header.rows_id))
    told = (await world.chain._execute(rows)).dynamic_fields
    assert {bytes(each.name.value): Reader(bytes(each.value.value)).u64() for each in told} == {A: 995, B: 1_005}
    assert (await world.chain._execute(commands.GetBasicCurrentEpochInfo())).epoch == 0
    await world.flip("stale_read", "off")
    assert (await world.chain._execute(commands.GetBasicCurrentEpochInfo())).epoch == 1
    assert await world.next_batch() == 3 and await world.chain.head() == head + 1


async def test_an_unavailable_node_answers_nothing(world: World) -> None:
    await world.flip("unavailable", "on")
    with pytest.raises(Unavailable):
        await world.next_batch()
    await world.flip("clear")
    assert await world.next_batch() == 2


async def test_a_question_whose_answer_is_lost_is_asked_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of every three askings two are lost on their way: nobody hears of it. Of all of them: somebody does."""
    client, asked, answered = world.chain._client, 0, 0

    def losing(ask: Callable[..., Awaitable[Any]], every: int) -> Callable[..., Awaitable[Any]]:
        async def lost_or_asked(**question: Any) -> Any:
            nonlocal asked, answered
            asked += 1
            if not every or asked % every:
                raise ConnectionResetError("lost on its way")
            answered += 1
            return await ask(**question)

        return lost_or_asked

    with monkeypatch.context() as patch:
        for name in ("execute", "execute_grpc_request"):
            patch.setattr(client, name, losing(getattr(client, name), 3))
        signed = await world.sign(world.part())
        assert await world.next_batch() == 2 and await world.chain.find(signed.digest) is None
        assert answered >= 4 and asked == 3 * answered
    with monkeypatch.context() as patch:
        for name in ("execute", "execute_grpc_request"):
            patch.setattr(client, name, losing(getattr(client, name), 0))
        with pytest.raises(Unavailable, match="lost on its way"):
            await world.chain.head()
    assert (await world.chain.send(signed)).success and await world.next_batch() == 3


async def test_epochs_expire_old_bytes_and_survive_a_restart(world: World) -> None:
    signed = await world.sign(world.part())
    await world.flip("epoch")
    fresh = await world.sign(world.part())
    await world.flip("epoch")
    with pytest.raises(Refused, match="expired in epoch 1, now is 2"):
        await world.chain.send(signed)
    await _restart(world)
    assert world.node is not None and world.node.node.epoch == 2
    assert (await world.chain.send(fresh)).success


async def test_a_risen_gas_price_refuses_what_offers_less(world: World) -> None:
    signed = await world.sign(world.part())
    await world.flip("gas_price", "1500")
    with pytest.raises(Refused, match="under the reference gas price 1500"):
        await world.chain.send(signed)
    await _restart(world)
    execution = await world.run()
    assert execution.success and execution.gas_mist % 1_500 == 0


async def test_old_locks_freeze_what_two_transactions_want_until_the_epoch_ends(world: World) -> None:
    first, other = await world.sign(world.part(5)), await world.sign(world.part(6))
    await world.flip("old_locks", "on")
    await world.flip("lost_request")
    with pytest.raises(OutcomeUnknown):
        await world.chain.send(first)
    await _restart(world)
    with pytest.raises(Refused, match="locked by another transaction until the end of epoch 0"):
        await world.chain.send(other)
    with pytest.raises(Refused, match="equivocation"):
        await world.chain.send(first)
    assert await world.next_batch() == 2
    await world.flip("epoch")
    assert (await world.chain.send(await world.sign(world.part(6)))).success


async def test_old_locks_let_the_same_bytes_through(world: World) -> None:
    signed = await world.sign(world.part())
    await world.flip("old_locks", "on")
    await world.flip("lost_request")
    with pytest.raises(OutcomeUnknown):
        await world.chain.send(signed)
    assert (await world.chain.send(signed)).success
    world.went(world.part())
    assert (await world.run()).success


async def test_a_paused_vault_and_a_rotated_operator_stop_the_batches(world: World) -> None:
    signed = await world.sign(world.part())
    await world.flip("paused", "on")
    stopped = await world.chain.send(signed)
    assert (stopped.success, stopped.abort_code) == (False, 2)
    assert (await world.chain.vault_states([world.listing]))["USDC"].paused
    await world.flip("paused", "off")
    signed = await world.sign(world.part())
    await world.flip("operator", "other")
    stopped = await world.chain.send(signed)
    assert (stopped.success, stopped.abort_code) == (False, 3)
    with pytest.raises(Unavailable):
        await world.sign(world.part())
    await _restart(world)
    await world.flip("operator", "own")
    assert (await world.run()).success
    assert [event.kind for event in (await world.chain.events(0, 100))[1]] == [
        "VaultOpened", "Deposited", "Deposited", "BatchCommitted", "PauseChanged", "PauseChanged", "OperatorChanged",
        "OperatorChanged", "BatchCommitted",
    ]  # fmt: skip


async def test_a_lagging_checkpoint_comes_later(world: World) -> None:
    head = await world.chain.head()
    await world.flip("checkpoint_lag", "3600")
    execution = await world.run()
    assert execution.success and execution.checkpoint is None
    found = await world.chain.find(execution.digest)
    assert found is not None and found.checkpoint is None
    assert (await world.chain.events(head, 100))[1] == []
    await world.flip("checkpoint_lag", "0")
    found = await world.chain.find(execution.digest)
    assert found is not None and found.checkpoint == head + 1 == await world.chain.head()


async def test_a_switch_that_makes_no_sense_is_refused_and_says_what_there_is(world: World) -> None:
    for switch, value, words in (
        ("lose", "", "there are lost_request"), ("unavailable", "maybe", "must be on or off"),
        ("chance", "hang=2", "FAULT=PROBABILITY"), ("chance", "hang=0.6,delay=0.6", "more than 1"),
        ("gas_price", "many", "invalid literal"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=words):
            await world.flip(switch, value)
    assert (await world.run()).success


# ---------------------------------------------------------------- what pysui reads


async def test_events_have_the_bytes_that_the_contract_emits(world: World) -> None:
    execution = await world.run()
    transaction = await world.chain._execute(commands.GetTransaction(digest=execution.digest))
    [event] = transaction.events.events
    vault = address_bytes(world.listing.vault)
    chain = world.previous
    said = vector_u8(b"\1" * 32) + u64(77) + vector_u8(b"\2" * 32) + vector_u8(chain)
    totals = u64(2) + u128(5) + u64(2_000) + u128(0)
    read = Reader(bytes(event.contents.value))
    assert read.take(len(event.contents.value) - 8) == vault + u64(2) + u64(0) + u64(1) + said + totals
    assert abs(read.u64() - transaction.timestamp.timestamp() * 1_000) < 1
    assert event.event_type.endswith("::settlement::BatchCommitted") and event.sender == OPERATOR.address
    assert bytes(transaction.signatures[0].bcs.value)[0] == 0
    state = (await world.chain.vault_states([world.listing]))["USDC"]
    assert (state.last_root, state.last_liabilities, state.last_pool) == (b"\1" * 32, 77, 2_000)


async def test_checkpoints_are_a_chain_and_are_told_in_order(world: World) -> None:
    head = await world.chain.head()
    request = commands.GetCheckpointBySequence(sequence_number=head)
    last = (await world.chain._execute(request)).checkpoint
    before = (await world.chain._execute(commands.GetCheckpointBySequence(sequence_number=head - 1))).checkpoint
    assert last.summary.previous_digest == before.digest
    by_digest = (await world.chain._execute(commands.GetCheckpointByDigest(digest=last.digest))).checkpoint
    latest = (await world.chain._execute(commands.GetLatestCheckpoint())).checkpoint
    assert by_digest == latest == last and len(last.transactions) == 1
    with pytest.raises(Refused, match="the latest is"):
        await world.chain._execute(commands.GetCheckpointBySequence(sequence_number=head + 1))
    assert world.node is not None
    told = asyncio.create_task(_subscribed(world.port, 2))
    while not world.node.node.on_record:
        await asyncio.sleep(0.01)
    await world.run()
    await world.run()
    assert await told == [head + 1, head + 2]


async def _subscribed(port: int, count: int) -> list[int]:
    import pysui.sui.sui_grpc.suimsgs.sui.rpc.v2 as v2
    from grpclib.client import Channel

    channel = Channel("127.0.0.1", port)
    numbers = []
    async for message in v2.SubscriptionServiceStub(channel).subscribe_checkpoints(v2.SubscribeCheckpointsRequest()):
        numbers.append(message.cursor)
        if len(numbers) == count:
            break
    channel.close()
    return numbers


async def test_rows_balances_and_a_simulation_can_be_asked_for(world: World) -> None:
    assert world.node is not None
    rows_id = next(iter(world.node.node.state.vaults.values())).header.rows_id
    fields = await world.chain._execute(commands.GetDynamicFields(object_id=address_text(rows_id)))
    assert {bytes(each.name.value): Reader(bytes(each.value.value)).u64() for each in fields.dynamic_fields} == {
        A: 995, B: 1_005,
    }  # fmt: skip
    signed = await world.sign(world.part())
    before = world.node.node.state.checkpoint
    simulated = await world.node.node.simulate(signed.raw)
    assert simulated.success and world.node.node.state.checkpoint == before
    assert (await world.chain.send(signed)).gas_mist == simulated.gas_mist
    balance = await world.chain._execute(commands.GetAddressCoinBalance(owner=OPERATOR.address))
    coin = next(item for item in world.node.node.state.items.values() if item.kind.endswith("sui::SUI>"))
    assert balance.balance.balance == coin.mist


# ---------------------------------------------------------------- other shapes


async def test_an_owner_with_gas_deposits_and_leaves_by_force(world: World) -> None:
    """Everything an owner needs, without the operator: gas, a deposit with a reference, a forced exit."""
    owner = OperatorKey(b"\5" * 32)
    builder = ProgrammableTransactionBuilder(compress_inputs=True)
    amount = builder.input_pure(bcs.BuilderArg("Pure", list(u64(10**10))))
    gas = builder.split_coin(from_coin=bcs.Argument("GasCoin"), amounts=[amount])
    recipient = builder.input_pure(bcs.BuilderArg("Pure", list(address_bytes(owner.address))))
    builder.transfer_objects(recipient=recipient, object_ref=gas)
    await world.chain._submit(builder)
    assert world.node is not None
    node = world.node.node
    [coin] = [item for item in node.state.items.values() if item.owner == address_bytes(owner.address)]
    assert coin.mist == 10**10

    async def call(function: str, *arguments: object, faucet: bool = False) -> None:
        builder = ProgrammableTransactionBuilder(compress_inputs=True)
        types = [bcs.TypeTag("Struct", bcs.StructTag.from_type_str(world.listing.coin_type))]
        known = {"vault": _shared(world.listing.vault, world.listing.initial_version, True),
                 "clock": _shared("0x6", 1, False)}  # fmt: skip
        inputs = [
            builder.input_obj_from_objarg(known[each]) if isinstance(each, str)
            else builder.input_pure(bcs.BuilderArg("Pure", list(each)))  # type: ignore[call-overload]
            for each in arguments
        ]  # fmt: skip
        if faucet:
            package, module, _ = world.listing.coin_type.split("::")
            assert world.listing.faucet is not None
            source = builder.input_obj_from_objarg(
                _shared(world.listing.faucet, world.listing.faucet_initial_version, True)
            )
            size = builder.input_pure(bcs.BuilderArg("Pure", list(u64(300))))
            inputs.insert(1, builder.move_call(target=_address(package), arguments=[source, size], type_arguments=[],
                                               module=module, function="mint"))  # fmt: skip
        builder.move_call(target=_address(world.chain._package), arguments=inputs, type_arguments=types,
                          module="settlement", function=function)  # fmt: skip
        item = node.state.items[coin.id]
        reference = bcs.ObjectReference(_address(address_text(item.id)), item.version,
                                        bcs.Digest.from_str(base58_text(item.digest)))  # fmt: skip
        data = bcs.TransactionData("V1", bcs.TransactionDataV1(
            builder.finish_for_inspect(), _address(owner.address),
            bcs.GasData([reference], _address(owner.address), 750, 10**9), bcs.TransactionExpiration("None"),
        ))  # fmt: skip
        raw = bytes(data.serialize())
        digest = base58_text(transaction_digest(raw))
        execution = await world.chain.send(Signed(raw, owner.sign(raw), digest))
        assert execution.success, execution.error

    me = address_bytes(owner.address)
    await call("deposit", "vault", me, vector_u8(b"client 12"), faucet=True)
    await call("request_exit", "vault", u64(200), "clock")
    await call("cancel_exit", "vault")
    await call("request_exit", "vault", u64(250), "clock")
    vault = node.state.vaults[address_bytes(world.listing.vault)]
    assert vault.rows[me].exit_amount == 250
    later = vault.rows[me].exit_ready_ms
    node._now_ms = lambda: later  # type: ignore[method-assign]
    await call("claim_exit", "vault", "clock")
    assert (vault.rows[me].balance, vault.rows[me].exited, vault.header.pool) == (50, 250, 2_050)
    coins = [item.mist for item in node.state.items.values() if item.owner == me and "sui::SUI" not in item.kind]
    assert coins == [250]
    _, events = await world.chain.events(0, 100)
    kinds = [event.kind for event in events if event.owner == me]
    assert kinds == ["Deposited", "ExitRequested", "ExitCancelled", "ExitRequested", "ExitPaid"]


def _address(text: str) -> object:
    return bcs.Address.from_str(address_text(address_bytes(text)))


def _shared(identity: str, version: int, mutable: bool) -> object:
    return bcs.ObjectArg("SharedObject", bcs.SharedObjectReference(_address(identity), version, mutable))


# ---------------------------------------------------------------- the door, the command, a kill


async def test_the_door_flips_switches_from_another_process(tmp_path: Path) -> None:
    node = await start(tmp_path, OPERATOR.address, executor="model", has_door=True)
    status = await ask(tmp_path, "lost_request", "2")
    assert status["switches"]["next"] == ["lost_request"] * 2 == list(node.faults.next_execute)
    assert (status["chain"], status["executor"]) == ("embedded (not a network)", "model")
    assert "there are lost_request" in (await ask(tmp_path, "lose"))["error"]
    assert (tmp_path / "faults.sock").stat().st_mode & 0o777 == 0o600
    for count in ("999", "0", "-1", "1000000000000"):
        told = (await ask(tmp_path, "hang", count))["error"]
        assert told == "hang: N must be 1 to 998: 1000 may wait, and 2 do"
    assert len((await ask(tmp_path, "hang", "998"))["switches"]["next"]) == 1_000
    assert (await ask(tmp_path, "clear"))["switches"]["next"] == []
    await node.close()
    with pytest.raises(OSError):
        await ask(tmp_path)


def _command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "settlement.chain.localsui", *arguments]


def _launch(directory: Path, port: int = 0) -> tuple[subprocess.Popen[str], dict[str, object]]:
    process = subprocess.Popen(
        _command("run", "--data", str(directory), "--operator", OPERATOR.address, "--port", str(port)),
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    return process, json.loads(process.stdout.readline())


async def test_a_killed_node_has_lost_nothing_that_it_answered(tmp_path: Path) -> None:
    process, status = _launch(tmp_path)
    try:
        world = World(tmp_path, None, int(str(status["port"])))
        await world.connect()
        await world.open()
        answered = [await world.run() for _ in range(3)]
        signed = await world.sign(world.part())
        sending = asyncio.create_task(world.chain.send(signed))
        await asyncio.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
        with pytest.raises((OutcomeUnknown, Refused)):
            await sending
            raise OutcomeUnknown("answered just before")
        process, status = _launch(tmp_path, world.port)
        await world.chain.close()
        await world.connect()
        for execution in answered:
            assert await world.chain.find(execution.digest) == execution
        assert (await world.chain.send(signed)).success and await world.next_batch() == 6
        asked = subprocess.run(_command("switch", "--data", str(tmp_path), "epoch"), capture_output=True, text=True)
        assert json.loads(asked.stdout)["epoch"] == 1
        wrong = subprocess.run(
            _command("switch", "--data", str(tmp_path), "gas_price", "x"), capture_output=True, text=True
        )
        assert wrong.returncode == 1 and "invalid literal" in wrong.stderr
        await world.chain.close()
    finally:
        process.kill()
        process.wait()
    again = subprocess.run(_command("replay", "--data", str(tmp_path)), capture_output=True, text=True)
    told = json.loads(again.stdout)
    assert again.returncode == 0 and told["transactions"] >= 6 and not told["differences"] and not told["gas_differs"]
    nobody = subprocess.run(_command("status", "--data", str(tmp_path)), capture_output=True, text=True)
    assert nobody.returncode == 2 and "no node" in nobody.stderr


def test_the_help_teaches_every_switch() -> None:
    told = subprocess.run(_command("--help"), capture_output=True, text=True, check=True).stdout
    assert all(f" {name} " in told for name in SWITCHES) and "It is no network" in told


def test_the_readme_names_every_method_and_switch(tmp_path: Path) -> None:
    text = Path(door.__file__).with_name("README.md").read_text()
    node = LocalSui(tmp_path, OPERATOR.address, executor="model")
    methods = {path.rpartition("/")[2] for path in Service(node, Faults()).__mapping__()}
    node.close()
    assert not [method for method in methods if method not in text]
    assert not [name for name in SWITCHES if name not in text and name not in ("hang_s", "delay_s")]


async def _restart(world: World) -> None:
    assert world.node is not None
    name, old_locks = world.node.node.executor_name, world.node.node.old_locks
    await world.chain.close()
    await world.node.close()
    world.node = await start(world.directory, OPERATOR.address, executor=name)
    world.node.node.old_locks = old_locks
    world.port = world.node.port
    await world.connect()
