"""What LocalSui refuses before it runs anything, and what it runs and lets fail: one row a rule, over real bytes.

Also pysui's own way of building calls from names, which asks the node for signatures, objects, coins and the epoch.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pysui.sui.sui_common.sui_commands as commands
import pytest
from pysui.sui.sui_bcs import bcs
from pysui.sui.sui_common.txn_transaction_builder import ProgrammableTransactionBuilder

from engine.messages.errors import Refused
from settlement.chain.encoding import SUI_COIN, address_bytes, address_text, base58_text, u64, vector
from settlement.chain.keys import OperatorKey
from settlement.chain.localsui.movevm import load_modules, published_modules
from settlement.chain.localsui.node import LIMITS, LocalSui, Rejected
from settlement.chain.localsui.server import RunningNode, start
from settlement.chain.localsui.state import Item, Record
from settlement.chain.port import VaultListing
from settlement.chain.sui import SuiChain, SuiSettings
from tests.support.chain_key import OPERATOR

A = b"\xa1" * 32
STRANGER = OperatorKey(b"\5" * 32)
Builder = ProgrammableTransactionBuilder


@dataclass
class World:
    running: RunningNode
    chain: SuiChain
    listing: VaultListing

    @property
    def node(self) -> LocalSui:
        return self.running.node

    def gas(self) -> Item:
        coins = [item for item in self.node.state.items.values() if item.kind == SUI_COIN]
        return max((coin for coin in coins if _owner(coin) == OPERATOR.address), key=lambda coin: coin.mist)

    def cap(self) -> Item:
        return self.node.state.items[self.node.operator_cap]

    async def run(self, draft: Draft) -> Record:
        raw = draft.raw(self)
        return await self.node.execute(raw, [draft.key.sign(raw)])

    async def split_off(self, *sizes: int) -> None:
        """Coins of these sizes for the operator."""
        builder = Builder(compress_inputs=True)
        amounts = [_pure(builder, u64(size)) for size in sizes]
        coins = builder.split_coin(from_coin=bcs.Argument("GasCoin"), amounts=amounts)
        coins = coins if isinstance(coins, list) else [coins]
        builder.transfer_objects(recipient=_pure(builder, address_bytes(OPERATOR.address)), object_ref=coins)
        assert (await self.run(Draft(lambda world, _: builder))).success


def _owner(item: Item) -> str:
    return address_text(item.owner or bytes(32))


@dataclass
class Draft:
    """A transaction to be: by default one that splits a MIST off and sends it to A."""

    build: Callable[[World, Builder], Builder | None] = lambda world, builder: None
    price: int = 750
    budget: int = 10**9
    payment: Callable[[World], list[Any]] = lambda world: [_reference(world.gas())]
    expiry: Any = field(default_factory=lambda: bcs.TransactionExpiration("None"))
    key: OperatorKey = OPERATOR
    owner: str = OPERATOR.address
    bend: Callable[[bytes], bytes] = lambda raw: raw

    def raw(self, world: World) -> bytes:
        builder = Builder(compress_inputs=False)
        built = self.build(world, builder) or builder
        if built is builder and not builder.commands:
            coin = builder.split_coin(from_coin=bcs.Argument("GasCoin"), amounts=[_pure(builder, u64(1))])
            builder.transfer_objects(recipient=_pure(builder, A), object_ref=coin)
        gas = bcs.GasData(self.payment(world), _address(self.owner), self.price, self.budget)
        sender = _address(self.key.address)
        data = bcs.TransactionDataV1(built.finish_for_inspect(), sender, gas, self.expiry)
        return self.bend(bytes(bcs.TransactionData("V1", data).serialize()))


def _address(text: str) -> Any:
    return bcs.Address.from_str(text)


def _pure(builder: Builder, value: bytes) -> Any:
    return builder.input_pure(bcs.BuilderArg("Pure", list(value)))


def _reference(item: Item, version: int = 0, digest: bytes = b"") -> Any:
    told = bcs.Digest.from_str(base58_text(digest or item.digest))
    return bcs.ObjectReference(_address(address_text(item.id)), version or item.version, told)


def _owned(builder: Builder, item: Item) -> Any:
    return builder.input_obj_from_objarg(bcs.ObjectArg("ImmOrOwnedObject", _reference(item)))


def _vault(world: World, builder: Builder, mutable: bool = True, version: int = 0) -> Any:
    initial = version or world.listing.initial_version
    reference = bcs.SharedObjectReference(_address(world.listing.vault), initial, mutable)
    return builder.input_obj_from_objarg(bcs.ObjectArg("SharedObject", reference))


def _call(world: World, builder: Builder, function: str, arguments: list[Any]) -> None:
    types = [bcs.TypeTag("Struct", bcs.StructTag.from_type_str(world.listing.coin_type))]
    builder.move_call(target=_address(world.chain._package), arguments=arguments, type_arguments=types,
                      module="settlement", function=function)  # fmt: skip


def _many_pures(count: int, size: int) -> Callable[[World, Builder], None]:
    def build(world: World, builder: Builder) -> None:
        for number in range(count):
            _pure(builder, number.to_bytes(4, "big") + bytes(size - 4))

    return build


def _many_commands(world: World, builder: Builder) -> None:
    one = _pure(builder, u64(1))
    for _ in range(1_025):
        builder.split_coin(from_coin=bcs.Argument("GasCoin"), amounts=[one])


def _many_arguments(world: World, builder: Builder) -> None:
    one = _pure(builder, u64(1))
    _call(world, builder, "deposit", [one] * 513)


def _cap_twice(world: World, builder: Builder) -> None:
    for _ in range(2):
        reference = bcs.CallArg("Object", bcs.ObjectArg("ImmOrOwnedObject", _reference(world.cap())))
        builder.inputs[bcs.BuilderArg("Object", _address(address_text(bytes([len(builder.inputs)]) * 32)))] = reference


def _absent(world: World, builder: Builder) -> None:
    lost = Item(b"\x77" * 32, 1, SUI_COIN, bytes(40), address_bytes(OPERATOR.address), None, bytes(32))
    _owned(builder, lost)


def _unused(world: World, builder: Builder) -> None:
    builder.split_coin(from_coin=bcs.Argument("GasCoin"), amounts=[_pure(builder, u64(1))])


def _trailing(world: World, builder: Builder) -> None:
    coin = builder.split_coin(from_coin=bcs.Argument("GasCoin"), amounts=[_pure(builder, u64(1) + b"\0")])
    builder.transfer_objects(recipient=_pure(builder, A), object_ref=coin)


def _read_only(world: World, builder: Builder) -> None:
    admin = next(item for item in world.node.state.items.values() if item.kind.endswith("::AdminCap"))
    _call(world, builder, "set_paused", [_vault(world, builder, False), _owned(builder, admin), _pure(builder, b"\1")])


def _bad_flag(world: World, builder: Builder) -> None:
    admin = next(item for item in world.node.state.items.values() if item.kind.endswith("::AdminCap"))
    _call(world, builder, "set_paused", [_vault(world, builder), _owned(builder, admin), _pure(builder, b"\2")])


def _too_many(world: World, builder: Builder) -> None:
    _call(world, builder, "cancel_exit", [_vault(world, builder), _pure(builder, A)])


REFUSED = {
    "size": ("invalid", "limit 131072", Draft(_many_pures(9, 16_000))),
    "pure": ("invalid", "a pure argument of 16385 bytes", Draft(_many_pures(1, 16_385))),
    "inputs": ("invalid", "2051 inputs, limit 2048", Draft(_many_pures(2_049, 4))),
    "commands": ("invalid", "1025 commands, limit 1024", Draft(_many_commands)),
    "arguments": ("invalid", "a command of 513 arguments", Draft(_many_arguments)),
    "price": ("stale", "gas price 749 is under", Draft(price=749)),
    "least budget": ("invalid", "under the least, 750000", Draft(budget=749_999)),
    "most budget": ("invalid", "is over", Draft(budget=LIMITS["max_tx_gas"] + 1)),
    "funds": ("invalid", "hold 9000000 MIST, less than the budget", Draft(
        payment=lambda world: [_reference(next(i for i in world.node.state.items.values()
                                               if i.kind == SUI_COIN and i.mist == 9_000_000))])),
    "no gas": ("invalid", "0 gas objects", Draft(payment=lambda world: [])),
    "gas objects": ("invalid", "257 gas objects", Draft(payment=lambda world: [_reference(world.gas())] * 257)),
    "gas kind": ("invalid", "no SUI coin", Draft(payment=lambda world: [_reference(world.cap())])),
    "gas twice": ("invalid", "used as input twice", Draft(payment=lambda world: [_reference(world.gas())] * 2)),
    "gas as input": ("invalid", "used as input twice", Draft(lambda world, b: _owned(b, world.gas()) and None)),
    "input twice": ("invalid", "used as input twice", Draft(_cap_twice)),
    "version": ("stale", "unavailable for consumption", Draft(
        payment=lambda world: [_reference(world.gas(), version=world.gas().version + 1)])),
    "digest": ("stale", "unavailable for consumption", Draft(
        payment=lambda world: [_reference(world.gas(), digest=b"\1" * 32)])),
    "absent": ("missing", "does not exist", Draft(_absent)),
    "another's gas": ("invalid", "is not owned by", Draft(key=STRANGER, owner=STRANGER.address)),
    "another's object": ("invalid", "signatures wanted", Draft(key=STRANGER)),
    "shared version": ("missing", "no shared object", Draft(lambda world, b: _vault(world, b, version=999) and None)),
    "read-only": ("unsupported", "passed as read-only and is changed", Draft(_read_only)),
    "unused value": ("unsupported", "left unused", Draft(_unused)),
    "trailing bytes": ("unsupported", "1 bytes too many", Draft(_trailing)),
    "bad bool": ("unsupported", "BCS bool of 2", Draft(_bad_flag)),
    "arity": ("unsupported", "cancel_exit with 2 arguments and 1 type arguments, 1 and 1 wanted", Draft(_too_many)),
    "longer": ("invalid", "BCS", Draft(bend=lambda raw: raw + b"\0")),
    "shorter": ("invalid", "BCS", Draft(bend=lambda raw: raw[:-1])),
}  # fmt: skip


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    running = await start(tmp_path, OPERATOR.address, executor="model")
    chain = SuiChain(SuiSettings(f"http://127.0.0.1:{running.port}", tmp_path / "pysui", timeout_s=600.0), OPERATOR)
    await chain.connect()
    [listing] = await chain.open_vaults([("USDC", 1)], 1)
    world = World(running, chain, listing)
    await world.split_off(9_000_000)
    yield world
    await chain.close()
    await running.close()


@pytest.mark.parametrize("rule", REFUSED)
async def test_it_is_refused_and_leaves_no_trace(world: World, rule: str) -> None:
    kind, words, draft = REFUSED[rule]
    height, items = world.node.state.checkpoint, dict(world.node.state.items)
    with pytest.raises(Rejected, match=words) as refused:
        await world.run(draft)
    assert refused.value.kind == kind
    assert world.node.state.checkpoint == height and world.node.state.items == items
    assert (await world.run(Draft())).success


async def test_an_expired_transaction_is_refused(world: World) -> None:
    draft = Draft(expiry=bcs.TransactionExpiration("Epoch", 0))
    assert (await world.run(draft)).success
    world.node.next_epoch()
    with pytest.raises(Rejected, match="expired in epoch 0"):
        await world.run(draft)


def _many_events(world: World, builder: Builder) -> None:
    """Three calls of 400 deposits to one row: one dynamic field, 1,200 events."""
    package, module, _ = world.listing.coin_type.split("::")
    assert world.listing.faucet is not None and world.listing.faucet_initial_version is not None
    source = bcs.SharedObjectReference(_address(world.listing.faucet), world.listing.faucet_initial_version, True)
    faucet, vault = builder.input_obj_from_objarg(bcs.ObjectArg("SharedObject", source)), _vault(world, builder)
    size, owners = _pure(builder, u64(400)), _pure(builder, vector([A] * 400))
    ones = _pure(builder, vector([u64(1)] * 400))
    for _ in range(3):
        coin = builder.move_call(target=_address(package), arguments=[faucet, size], type_arguments=[], module=module,
                                 function="mint")  # fmt: skip
        _call(world, builder, "deposit_many", [vault, coin, owners, ones])


def _many_coins(world: World, builder: Builder) -> None:
    one, home = _pure(builder, u64(1)), _pure(builder, A)
    for _ in range(5):
        coins = builder.split_coin(from_coin=bcs.Argument("GasCoin"), amounts=[one] * 500)
        builder.transfer_objects(recipient=home, object_ref=coins)


@pytest.mark.parametrize(
    ("words", "draft"),
    [
        ("more than 1024 events", Draft(_many_events)),
        ("more than 2048 new objects", Draft(_many_coins)),
        ("insufficient gas", Draft(_many_events, budget=750_000)),
    ],
)
async def test_it_runs_and_fails_and_pays_its_gas(world: World, words: str, draft: Draft) -> None:
    before, height = world.gas(), world.node.state.checkpoint
    record = await world.run(draft)
    assert not record.success and record.abort_code is None
    assert words in record.error or (words == "insufficient gas" and record.gas_mist == draft.budget)
    assert world.gas().mist == before.mist - record.gas_mist and 0 < record.gas_mist <= draft.budget
    assert world.node.state.checkpoint == height + 1 and record.events == []
    vault = world.node.state.vaults[address_bytes(world.listing.vault)]
    assert not vault.rows and vault.header.pool == 0


async def test_an_upgrade_capability_is_kept_and_burned(world: World) -> None:
    modules = [list(code) for code in load_modules("exchange", published_modules())]

    def publish(world: World, builder: Builder) -> None:
        cap = builder.publish(modules, [_address(address_text(address_bytes(each))) for each in ("0x1", "0x2")])
        builder.transfer_objects(recipient=_pure(builder, address_bytes(OPERATOR.address)), object_ref=[cap])

    def burn(what: str) -> Callable[[World, Builder], None]:
        def build(world: World, builder: Builder) -> None:
            item = next(each for each in world.node.state.items.values() if each.kind.endswith(what))
            builder.move_call(target=_address(address_text(address_bytes("0x2"))), arguments=[_owned(builder, item)],
                              type_arguments=[], module="package", function="make_immutable")  # fmt: skip

        return build

    record = await world.run(Draft(publish))
    [package] = record.packages
    assert record.success and package in world.node.state.packages
    with pytest.raises(Rejected, match="is no 0x2::package::UpgradeCap"):
        await world.run(Draft(burn("::AdminCap")))
    assert (await world.run(Draft(burn("::UpgradeCap")))).success
    assert not [item for item in world.node.state.items.values() if item.kind.endswith("UpgradeCap")]


async def test_gas_coins_are_smashed_into_the_first(world: World) -> None:
    await world.split_off(7, 11)
    coins = [item for item in world.node.state.items.values() if item.kind == SUI_COIN and item.mist in (7, 11)]
    whole = world.gas()
    record = await world.run(Draft(payment=lambda world: [_reference(each) for each in (whole, *coins)]))
    assert record.success and world.gas().id == whole.id
    assert world.gas().mist == whole.mist + 18 - 1 - record.gas_mist
    assert not {coin.id for coin in coins} & world.node.state.items.keys()


async def test_pysui_builds_calls_from_names_over_the_node(world: World) -> None:
    """`move_call` of its own transaction: signatures, objects, coins, gas price and epoch come from the node."""
    chain, listing = world.chain, world.listing
    package = chain._package
    await world.split_off(10**9)
    told = await chain._execute(
        commands.GetFunction(package=package, module_name="settlement", function_name="deposit")
    )
    assert [each.body.type.name for each in told.function.parameters] == ["DATATYPE", "DATATYPE", "ADDRESS", "VECTOR"]
    assert told.function.parameters[0].body.type_name == f"{package}::settlement::Vault"
    for where in (("settlement", "no_such"), ("row", "credit"), ("nowhere", "deposit")):
        with pytest.raises(Refused, match="not found"):
            request = commands.GetFunction(package=package, module_name=where[0], function_name=where[1])
            await chain._execute(request)

    builder = await chain._client.transaction(initial_sender=OPERATOR.address)
    coin_package, module, _ = listing.coin_type.split("::")
    coin = await builder.move_call(target=f"{coin_package}::{module}::mint", arguments=[listing.faucet, 300])
    await builder.move_call(
        target=f"{package}::settlement::deposit",
        arguments=[listing.vault, coin, address_text(A), list(b"client 12")],
        type_arguments=[listing.coin_type],
    )
    built = await builder.build(gas_budget=str(10**9))
    raw = base64.b64decode(built)
    record = await world.node.execute(raw, [OPERATOR.sign(raw)])
    assert record.success, record.error
    assert world.node.state.vaults[address_bytes(listing.vault)].balances == {A: 300}


async def test_two_that_race_for_one_coin_leave_one_winner(world: World) -> None:
    drafts = [Draft(), Draft(budget=10**9 + 1)]
    raws = [draft.raw(world) for draft in drafts]
    results = await asyncio.gather(
        *(world.node.execute(raw, [OPERATOR.sign(raw)]) for raw in raws), return_exceptions=True
    )
    assert sorted(type(result).__name__ for result in results) == ["Record", "Rejected"]
