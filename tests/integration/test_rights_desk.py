"""Registry, licences and royalties end to end: unmodified pysui, LocalSui, the Move VM (and the Python model)."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from engine.messages.errors import Refused, Unavailable
from settlement.chain.encoding import address_bytes, address_text, u64
from settlement.chain.localsui import server
from settlement.chain.localsui.server import RunningNode, start
from settlement.chain.port import CoinPart, Part, Payout
from settlement.chain.rights import Grant
from settlement.chain.rights_desk import SUI, RightsDesk
from settlement.chain.sui import SuiChain, SuiSettings
from tests.support.chain_key import OPERATOR
from tests.support.sui_owner import Owner

A, B, FAN = b"\xa1" * 32, b"\xb2" * 32, b"\xd4" * 32
HASH, TERMS = b"\7" * 32, b"\x08" * 32


@dataclass
class World:
    directory: Path
    node: RunningNode
    chain: SuiChain
    desk: RightsDesk

    def owned(self, owner: bytes) -> dict[str, int]:
        """Kinds of the objects that an address owns, and the balance of its coins."""
        items = [item for item in self.node.node.state.items.values() if item.owner == owner]
        return {item.kind.partition("<")[0].rpartition("::")[2]: item.mist for item in items}

    def events(self) -> list[str]:
        state = self.node.node.state
        records = [self.node.node.record_in(number) for number in range(1, state.checkpoint + 1)]
        return [event.name for record in records for event in record.events]

    async def restart(self) -> None:
        name = self.node.node.executor_name
        await self.chain.close()
        await self.node.close()
        self.node = await start(self.directory, OPERATOR.address, executor=name)
        await self.connect()

    async def connect(self) -> None:
        url = f"http://127.0.0.1:{self.node.port}"
        self.chain = SuiChain(SuiSettings(url, self.directory / "pysui"), OPERATOR)
        await self.chain.connect()
        self.desk = RightsDesk(self.chain)
        await self.desk.connect()


@pytest.fixture(params=["auto", "model"])
async def world(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[World]:
    node = await start(tmp_path, OPERATOR.address, executor=request.param)
    world = World(tmp_path, node, None, None)  # type: ignore[arg-type]
    await world.connect()
    yield world
    await world.chain.close()
    await world.node.close()


async def test_from_registration_to_the_creators_money(world: World) -> None:
    desk = world.desk
    made = (await (await desk.registration(HASH, "Song", "ipfs://x", [A, B], [6_667, 3_333])).submit()).made
    work, cap = made["Work"], made["WorkCap"]
    assert (await desk.cap(cap)).work == address_bytes(work)
    with pytest.raises(Refused, match="abort 1 in copyright_registry"):
        await (await desk.registration(HASH, "Copy", "", [B], [10_000])).submit()

    licence = (await (await desk.grant(work, cap, FAN, TERMS, 60_000)).submit()).made["License"]
    shown = await desk.license(licence)
    assert (shown.work, shown.expires_ms - shown.issued_ms) == (address_bytes(work), 60_000)
    assert "License" in world.owned(FAN)
    await (await desk.revocation(work, cap, licence)).submit()
    grants = await desk.entries((await desk.work(work)).licenses)
    assert Grant.decode(grants[address_bytes(licence)]).revoked_ms >= shown.issued_ms
    with pytest.raises(Refused, match="abort 10 in license"):
        await (await desk.revocation(work, cap, licence)).submit()

    till = (await desk.open_till(SUI)).made["Till"]
    await desk.fund(till, work, SUI, 100)
    offer = (await desk.offer(work, cap, SUI, 50, 1, "ipfs://t", TERMS, 1_000)).made["Offer"]
    await world.restart()
    desk = world.desk
    await desk.buy(offer, work, till, SUI, 50, FAN)
    with pytest.raises(Refused, match="abort 5 in license"):
        await desk.buy(offer, work, till, SUI, 50, FAN)
    await desk.close_offer(work, cap, offer, SUI)
    assert not (await desk.offer_state(offer)).open

    state = await desk.till(till)
    assert state.pool == 150 and await desk.entries(state.due) == {A: u64(100), B: u64(50)}
    await desk.claim(till, SUI, A)
    await desk.claim(till, SUI, B)
    assert (world.owned(A), world.owned(B)) == ({"Coin": 100}, {"Coin": 50})
    with pytest.raises(Refused, match="abort 1 in royalty"):
        await desk.claim(till, SUI, A)
    assert (await desk.till(till)).pool == 0
    assert world.events() == [
        "WorkRegistered", "LicenseIssued", "LicenseRevoked", "TillOpened", "RoyaltyPaid", "OfferMade", "RoyaltyPaid",
        "LicenseIssued", "OfferClosed", "RoyaltyClaimed", "RoyaltyClaimed",
    ]  # fmt: skip


async def test_a_disputed_work_sells_nothing_and_shares_change_what_comes_later(world: World) -> None:
    desk = world.desk
    made = (await (await desk.registration(HASH, "Song", "", [A], [10_000])).submit()).made
    work, cap = made["Work"], made["WorkCap"]
    await desk.set_disputed(work, True)
    with pytest.raises(Refused, match="abort 1 in license"):
        await (await desk.grant(work, cap, FAN, TERMS, 1)).submit()
    await desk.set_disputed(work, False)
    await (await desk.grant(work, cap, FAN, TERMS, 1)).submit()
    till = (await desk.open_till(SUI)).made["Till"]
    await desk.fund(till, work, SUI, 7)
    await desk.set_shares(work, cap, [A, B], [5_000, 5_000])
    await desk.fund(till, work, SUI, 7)
    assert await desk.entries((await desk.till(till)).due) == {A: u64(11), B: u64(3)}


async def test_royalties_in_another_coin_come_from_the_coins_at_hand(world: World) -> None:
    [listing] = await world.chain.open_vaults([("USDC", 1)], 1)
    operator = address_bytes(OPERATOR.address)
    payouts = [Payout("w1", A, operator, 30), Payout("w2", B, operator, 40)]
    coin = CoinPart("USDC", bytes(32), [], [(A, 1_000), (B, 1_000)], payouts)
    signed = await world.chain.sign(Part(1, 0, 1, bytes(32), bytes(32), [coin]), {"USDC": listing})
    assert (await world.chain.send(signed)).success
    desk = world.desk
    work = (await (await desk.registration(HASH, "Song", "", [A], [10_000])).submit()).made["Work"]
    till = (await desk.open_till(listing.coin_type)).made["Till"]
    with pytest.raises(Refused, match="insufficient coin balance"):
        await desk.fund(till, work, listing.coin_type, 71)
    await desk.fund(till, work, listing.coin_type, 65)
    await desk.claim(till, listing.coin_type, A)
    assert world.owned(A) == {"Coin": 65} and world.owned(operator)["Coin"] > 0
    left = [item.mist for item in world.node.node.state.items.values()
            if item.owner == operator and listing.coin_type in item.kind]  # fmt: skip
    assert left == [5]


@pytest.mark.parametrize("world", ["model"], indirect=True)
async def test_capabilities_of_many_works_do_not_hide_the_registry(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What an address owns comes in pages: the arbiter's capability may be on any of them."""
    hashes = [number.to_bytes(32, "little") for number in range(12)]
    for content_hash in hashes:
        await (await world.desk.registration(content_hash, "", "", [A], [10_000])).submit()
    monkeypatch.setattr(server, "PAGE_SIZE", 1)
    desk = RightsDesk(world.chain)
    await desk.connect()
    for content_hash in hashes:
        found = await desk.held_cap(content_hash)
        assert found is not None and (await desk.work(found[0])).content_hash == content_hash
    assert await desk.held_cap(b"\xff" * 32) is None


async def test_gas_of_its_own_is_split_off_once(world: World) -> None:
    before = world.chain._gas_coin
    await world.chain.pay_apart()
    own = world.chain._gas_coin
    assert own != before
    await world.chain.pay_apart()
    assert world.chain._gas_coin == own
    settler = SuiChain(SuiSettings(f"http://127.0.0.1:{world.node.port}", world.directory / "settler"), OPERATOR)
    await settler.connect()
    assert settler._gas_coin == before  # the larger one
    await settler.close()


@pytest.mark.parametrize("world", ["model"], indirect=True)
async def test_gas_is_not_gathered_from_the_coin_that_another_desk_pays_with(world: World) -> None:
    url, state, settler = f"http://127.0.0.1:{world.node.port}", world.node.node.state, world.chain
    desk = SuiChain(SuiSettings(url, world.directory / "desk"), OPERATOR, settler._purse)
    await desk.connect()
    await desk.pay_apart()
    own, main = state.items[address_bytes(desk._gas_coin)], state.items[address_bytes(settler._gas_coin)]
    assert own.id != main.id and own.mist > 3 * 10**9
    sponsor = await Owner.open(world.node.port, world.directory, "sponsor")
    await sponsor.scatter(2 * 10**9, 2, OPERATOR.address)
    await sponsor.close()
    left = state.items[main.id].mist

    settler._settings = dataclasses.replace(settler._settings, gas_floor_mist=left + 3 * 10**9)
    await world.desk.open_till(SUI)
    assert state.items[main.id].mist > left and state.items[own.id] == own, "the coins that were sent, not this one"
    settler._settings = dataclasses.replace(settler._settings, gas_floor_mist=left + 5 * 10**9)
    with pytest.raises(Unavailable, match="left for gas"):
        await world.desk.open_till(SUI)
    await RightsDesk(desk).open_till(SUI)
    await settler._find_owned()
    assert settler._gas_coin == address_text(main.id)

    await desk.close()
    await world.desk.open_till(SUI)
    assert own.id not in state.items, "nobody pays with it any more"


@pytest.mark.parametrize("world", ["model"], indirect=True)
async def test_a_coin_too_small_to_pay_with_does_not_keep_the_desk_from_a_share_of_the_large_one(world: World) -> None:
    sponsor = await Owner.open(world.node.port, world.directory, "sponsor")
    await sponsor.scatter(5, 1, OPERATOR.address)
    await sponsor.close()
    url = f"http://127.0.0.1:{world.node.port}"
    desk = SuiChain(SuiSettings(url, world.directory / "desk"), OPERATOR, world.chain._purse)
    await desk.connect()
    await desk.pay_apart()
    coin = world.node.node.state.items[address_bytes(desk._gas_coin)]
    assert coin.mist > desk._settings.gas_floor_mist and desk._gas_coin != world.chain._gas_coin
    await desk.close()
