"""The registry's desk over a real LocalSui (in the Move VM where its wheel is), beside the API."""

from __future__ import annotations

from contextlib import asynccontextmanager

import pytest_asyncio

from byline.rights_port import ChainRights
from engine.messages.errors import OutcomeUnknown, Refused, Unavailable
from platform_api.registry.service import registry_desk
from settlement.chain.localsui.server import start
from settlement.chain.rights_desk import RightsDesk
from settlement.chain.sui import SuiChain, SuiSettings
from tests.support.chain_key import OPERATOR

__all__ = ["Chain", "Crash", "begun", "chain"]


class Chain:
    """`node` is the embedded chain; `rights` and `desk` are what the back office has."""

    def __init__(self, node, directory, world):
        self.node, self.directory, self.world = node, directory, world
        settings = SuiSettings(f"http://127.0.0.1:{node.port}", directory / "pysui", timeout_s=5)
        self.rights = ChainRights(lambda: SuiChain(settings, OPERATOR))
        self.desk = registry_desk(world.kernel.database, self.rights)

    async def settle(self):
        """Events are handed over, and all that is due stands on the chain."""
        await self.world.settle()
        await self.drive()
        await self.world.settle()

    async def drive(self, tries=12):
        """All that is due stands on the chain; what fails is tried again, put off or not."""
        for _ in range(tries):
            for table in ("registration", "license_record"):
                await self.world.sql(f"UPDATE registry.{table} SET try_at = now() WHERE try_at > now()")
            try:
                while await self.desk.step():
                    pass
            except (Unavailable, OutcomeUnknown, Refused):
                continue
            if not await self.world.sql("SELECT FROM registry.registration WHERE status IN ('pending', 'submitted')"):
                break

    @asynccontextmanager
    async def outsider(self):
        """The rights modules, read with a connection of one's own."""
        settings = SuiSettings(f"http://127.0.0.1:{self.node.port}", self.directory / "outsider")
        chain = SuiChain(settings, OPERATOR)
        await chain.connect()
        try:
            desk = RightsDesk(chain)
            await desk.connect()
            yield desk
        finally:
            await chain.close()

    def events(self, name):
        """Contents (BCS) of the chain's events of this name."""
        state = self.node.node.state
        records = [self.node.node.record_in(number) for number in range(1, state.checkpoint + 1)]
        return [bytes(event.contents) for record in records for event in record.events if event.name == name]


class Crash(BaseException):
    """The process dies at this place. `at(n)` gives a database and a chain that die at the n-th step of theirs."""

    @classmethod
    def at(cls, step, database, rights):
        left = [step]

        def tick():
            if left[0] == 0:
                raise cls
            left[0] -= 1

        return _Database(database, tick), _Rights(rights, tick)


class _Database:
    def __init__(self, database, tick):
        self._database, self._tick = database, tick

    def connection(self):
        return self._database.connection()

    @asynccontextmanager
    async def transaction(self):
        async with self._database.transaction() as db:
            yield db
            self._tick()  # before it is committed
        self._tick()


class _Rights:
    def __init__(self, rights, tick):
        self._rights, self._tick = rights, tick

    def __getattr__(self, name):
        method = getattr(self._rights, name)

        async def call(*arguments):
            answer = await method(*arguments)
            self._tick()  # done, and nobody knows
            return answer

        return call


@asynccontextmanager
async def begun(world, directory):
    """An empty registry on an empty chain."""
    await world.sql("TRUNCATE registry.registration, registry.license_record, registry.chain_tx CASCADE")
    node = await start(directory, OPERATOR.address)
    made = Chain(node, directory, world)
    try:
        yield made
    finally:
        await made.rights.close()
        await node.close()


@pytest_asyncio.fixture
async def chain(world, tmp_path):
    async with begun(world, tmp_path) as made:
        yield made
