"""The REST API for tests: real HTTP semantics, a real PostgreSQL, the real relay and job worker. The core behind the
port is a small stand-in that keeps order ids, references and keys as the real one answers them; it matches nothing."""

import asyncio
import uuid
from datetime import timedelta
from uuid import UUID

import asyncpg
import httpx
import msgspec
import pytest
import pytest_asyncio

from engine.messages.codes import Overdraft, RejectCode
from persistence.stores.postgres.migrate import migrate
from platform_api.app import create_app
from platform_api.database import Database
from platform_api.errors import ErrorCode
from platform_api.identity.service import IdentityService
from platform_api.kernel.jobs import Worker
from platform_api.kernel.relay import Relay
from platform_api.ports import NoProof
from platform_api.reasons import REASONS, UNKNOWN
from platform_api.settings import ApiSettings
from settlement.ledger import Account, Asset, Ledger
from settlement.liabilities import Liabilities, UnknownBatch
from tests.unit.platform_api.test_sui_signature import Wallet

__all__ = [
    "Proofs",
    "StandInBook",
    "StandInCore",
    "StandInMail",
    "StandInStatus",
    "World",
    "api_dsn",
    "migrated_database",
    "opened",
    "settings",
    "world",
]


class StandInCore:
    def __init__(self):
        self.commands, self.keys, self.orders, self.refs = [], {}, {}, {}
        self.failure, self.uses = None, {}

    async def submit(self, command):
        if self.failure is not None:
            raise self.failure
        self.commands.append(dict(command))
        sequence = len(self.commands)
        match command["op"]:
            case "place":
                if command.get("price") == "999999":
                    return {"event": "rejected", "sequence": sequence, "reason": "bad_price"}
                known = self.orders.setdefault((command["account"], command["client_id"]), sequence)
                if known != sequence:
                    return {
                        "event": "duplicate",
                        "sequence": sequence,
                        "order_id": known,
                        "status": "open",
                        "filled": "0",
                    }
                return {"event": "accepted", "sequence": sequence, "order_id": sequence}
            case "cancel":
                if (command["account"], command["order_id"]) not in {(a, o) for (a, _), o in self.orders.items()}:
                    return {"event": "rejected", "sequence": sequence, "reason": "unknown_order"}
                return {"event": "canceled", "sequence": sequence, "order_id": command["order_id"], "leaves": "1"}
            case "deposit":
                first = self.refs.setdefault(command["ref"], sequence)
                return {"event": "transferred" if first == sequence else "duplicate", "sequence": sequence}
        return {"event": "done", "sequence": sequence}

    async def register_key(self, key_id, public_key, account, scopes):
        if self.failure is not None:
            raise self.failure
        self.keys[key_id] = (public_key, account, tuple(scopes))

    async def revoke_key(self, key_id, public_key):
        if self.failure is not None:
            raise self.failure
        assert self.keys.pop(key_id, (public_key,))[0] == public_key

    async def key_uses(self, taken_ns):
        """Two at a time, so that whoever asks has to go on."""
        if self.failure is not None:
            raise self.failure
        self.uses = {key: at for key, at in self.uses.items() if taken_ns is None or at > taken_ns}
        return dict(sorted(self.uses.items(), key=lambda use: use[1])[:2])

    def status(self):
        return {"connected": self.failure is None}


class StandInBook:
    async def depth(self, market, depth):
        if market != "INK-USDC":
            raise KeyError(market)
        return {"sequence": 7, "bids": [["12.4", "3"], ["12.3", "1"]][:depth], "asks": []}


class StandInStatus:
    def __init__(self, core=None):
        self._facts = getattr(core, "facts", dict)

    def read(self):
        return {"core": {"ready": True, "alive": True, "sequence": 42, "name": "core", **self._facts()}}


class Proofs:
    """The real trees over a ledger set by hand, without the socket between."""

    def __init__(self):
        self.ledger, self.owed = Ledger(), Liabilities(bytes(range(32)), keep=2)
        self.ledger.assets.append(Asset("USDC", 6, True))
        self.root = b""

    def close(self, batch, **amounts):
        for name, amount in amounts.items():
            self.ledger.accounts.append(Account(name.replace("_", ":", 1).replace("_", "-"), None, Overdraft.NEVER))
            self.ledger.totals[len(self.ledger.accounts) - 1, 0] = amount
        self.root = self.owed.close(batch, self.ledger)[0]

    async def prove(self, account, batch):
        if (batch or 0) > self.owed.number:
            raise NoProof("not_final")
        try:
            return msgspec.to_builtins(self.owed.prove(batch or self.owed.number, account))
        except UnknownBatch:
            raise NoProof("unknown_batch") from None
        except KeyError:
            raise NoProof("no_balance") from None


class StandInMail:
    """Keeps letters; `failures` are raised first."""

    provider = "a list"

    def __init__(self):
        self.letters, self.failures = [], []

    async def send(self, letter):
        if self.failures:
            raise self.failures.pop(0)
        self.letters.append(letter)


def is_explained(code, reason):
    """Whether docs/protocol/rest-reasons.md has it, or reasons.md for what the core says."""
    is_of_core = reason in {reject.word for reject in RejectCode}
    return reason in REASONS[code] or (code is ErrorCode.NOT_FOUND and reason.startswith(UNKNOWN)) or (
        is_of_core and code in (ErrorCode.ORDER_REJECTED, ErrorCode.PAYMENT_FAILED)
    )


class World:
    """`client` speaks HTTP; `kernel` is what the services have; jobs and events run when `settle` says so."""

    def __init__(self, client, core, dsn, app, mail, proofs):
        self.client, self.core, self.dsn, self.app, self.mail = client, core, dsn, app, mail
        self.proofs = proofs
        self.kernel = app.kernel
        self._connections = None

    async def settle(self):
        """Everything that waits in the outbox and in the job queue has happened when this returns.

        What is planned for later than in a minute does not come: those jobs are put aside, else this waited for them.
        """
        relay = Relay(self.kernel.database, self.kernel.events)
        while await relay.deliver_due():
            pass
        await self._put_aside()
        waiting = "SELECT FROM jobs.pgqueuer WHERE status IN ('queued', 'picked') AND entrypoint <> 'aside' LIMIT 1"
        if not await self.sql(waiting):
            return  # a worker that starts to find nothing costs more than most jobs
        drained = asyncio.create_task(Worker(self.dsn, self.kernel.jobs, retry_delay=timedelta(milliseconds=1)).drain())
        while not drained.done():  # jobs may plan others while they run
            await asyncio.wait({drained}, timeout=0.1)
            await self._put_aside()
        await drained

    async def _put_aside(self):
        await self.sql(
            "UPDATE jobs.pgqueuer SET entrypoint = 'aside'"
            " WHERE status = 'queued' AND execute_after > now() + interval '1 minute'"
        )

    def from_address(self, address):
        """A client there, for `async with`."""
        transport = httpx.ASGITransport(self.app, client=(address, 5))
        return httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1")

    async def sign_in(self, wallet=None):
        wallet = wallet or Wallet(0)
        nonce = await self.data("POST", "/v1/auth/nonce", json={"address": wallet.address})
        body = {"address": wallet.address, "nonce": nonce["nonce"], "signature": wallet.sign(nonce["message"].encode())}
        session = await self.data("POST", "/v1/auth/verify", json=body)
        return session, {"authorization": "Bearer " + session["access_token"]}

    async def proof(self, wallet, purpose, headers=None):
        """A signed nonce, as the body of a request."""
        body = {"address": wallet.address, "purpose": purpose}
        nonce = await self.data("POST", "/v1/auth/nonce", headers=headers, json=body)
        signature = wallet.sign(nonce["message"].encode())
        return {"address": wallet.address, "nonce": nonce["nonce"], "signature": signature}

    async def step_up(self, wallet, bearer):
        await self.data("POST", "/v1/auth/step-up", headers=bearer, json=await self.proof(wallet, "step_up", bearer))

    async def grant(self, account_id, role, departments=()):
        """As the command line does it."""
        async with self.kernel.database.transaction() as db:
            roles = self.kernel.service(IdentityService).roles
            await roles.grant(db, UUID(account_id), role, actor=None, departments=departments, from_command_line=True)

    async def grant_all(self, account_id):
        """Every role that opens routes."""
        for role in ("moderator", "admin", "studio", "operator", "super_admin"):
            await self.grant(account_id, role)

    async def data(self, method, path, **options):
        answer = await self.client.request(method, path, **options)
        assert answer.status_code < 300, answer.text
        body = answer.json()
        assert body["success"] is True and body["meta"]["request_id"] == answer.headers["x-request-id"]
        return body["data"]

    async def refused(self, status, code, reason, method, path, **options):
        answer = await self.client.request(method, path, **options)
        error = answer.json()["error"]
        assert is_explained(ErrorCode(error["code"]), error["details"]["reason"]), error
        assert (answer.status_code, error["code"], error["details"]["reason"]) == (status, code, reason), answer.text
        assert answer.json()["success"] is False
        assert error["request_id"] == answer.headers["x-request-id"] and error["timestamp"].endswith("Z")
        return answer

    async def sql(self, query, *arguments):
        """On connections of the test's own, kept for the next statement: a new one costs 20 times as much."""
        if self._connections is None:
            self._connections = await asyncpg.create_pool(self.dsn, min_size=0, max_size=16)
        return await self._connections.fetch(query, *arguments)

    async def entries(self, change, *arguments):
        """Moves entries of royalties in time, and what is summed of them with them."""
        await self.sql(f"UPDATE royalties.entry {change}", *arguments)
        await self.sql("SELECT royalties.sum_again()")

    async def close(self):
        if self._connections is not None:
            self._connections.terminate()  # a task that the test left behind may hold one of them


@pytest.fixture(scope="module")
def api_dsn(postgres_server, migrated_database):
    """A migrated database of the module's own."""
    name = f"api{uuid.uuid4().hex}"
    asyncio.run(_create(postgres_server, f"{name} TEMPLATE {migrated_database}"))
    return postgres_server.dsn.replace("/byline?", f"/{name}?")


@pytest.fixture(scope="session")
def migrated_database(postgres_server):
    """The name of a database that was migrated and that nobody connects to: what others are copied from."""

    async def make():
        await _create(postgres_server, "migrated")
        await migrate(postgres_server.dsn.replace("/byline?", "/migrated?"))

    asyncio.run(make())
    return "migrated"


async def _create(server, database):
    connection = await asyncpg.connect(server.dsn)
    await connection.execute(f"CREATE DATABASE {database}")
    await connection.close()


def settings(dsn, **values):
    limits = {"public_per_minute": 0, "account_per_minute": 0, "trading_per_minute": 0, "auth_per_minute": 0}
    others = {"counted_seconds": 0, "unproved_per_day": 10_000_000, "refusals_per_hour": 0}
    return ApiSettings(postgres_dsn=dsn, session_cache_seconds=0, **(limits | others | values))


@pytest_asyncio.fixture
async def world(api_dsn, request):
    """The API over that database; parametrize it indirectly with settings."""
    async with opened(api_dsn, **getattr(request, "param", {})) as world:
        yield world


class opened:
    """`core`: another one than the stand-in, as `real_core.RealCore`."""

    def __init__(self, dsn, *, core=None, **values):
        self.dsn, self.core, self.values = dsn, core, values

    async def __aenter__(self):
        values = settings(self.dsn, **self.values)
        self.database = Database(
            self.dsn, connections_max=values.pool_connections_max, core_connections_max=values.core_connections_max
        )
        core, self.proofs = self.core or StandInCore(), Proofs()
        self.mail = StandInMail()
        app = create_app(
            values,
            core,
            StandInBook(),
            StandInStatus(core),
            self.proofs,
            self.database,
            self.mail,
        )
        await self.database.open()
        transport = httpx.ASGITransport(app)
        self.client = httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1")
        self.world = World(self.client, core, self.dsn, app, self.mail, self.proofs)
        return self.world

    async def __aexit__(self, *_):
        await self.world.close()
        await self.client.aclose()
        await self.database.close()
