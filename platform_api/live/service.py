"""The event socket: sign-in, subscriptions with their checks, and the end of sessions. Frames in, frames out.

    connection   open ──auth──▶ signed in ──session ended──▶ closed 4401
    subscription checked once when it is asked for; those that see more than everybody are checked again each minute and
                 at every event that may take it away

What a caller may not hear answers like what does not exist. Events reach the connections of the process whose relay
handed them over, and by Redis those of the others (`kernel.stream`); a reader that comes back reads the state over REST
first, nothing is kept for it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine
from typing import Annotated, Any
from uuid import UUID

import msgspec
import structlog
from msgspec import Meta

from engine.messages.errors import Unavailable
from platform_api.creators.service import CreatorService
from platform_api.envelope import unknown
from platform_api.errors import ApiError, ErrorCode, as_api_error
from platform_api.exchange.service import ExchangeService
from platform_api.kernel.context import Kernel
from platform_api.kernel.events import Event
from platform_api.limits import Buckets, network_of
from platform_api.live.connection import SESSION_ENDED, Connection
from platform_api.live.hub import Hub
from platform_api.live.tape import CHANNEL as MARKET
from platform_api.live.tape import Tape, told_if_broken
from platform_api.security import Caller, SessionGuard, unauthorized
from platform_api.works.service import WorkService

__all__ = ["LiveService", "Reader"]

log = structlog.get_logger(__name__)

SUBSCRIPTIONS_MAX = 100
RECHECK_SECONDS = 60.0
POLICY = 1008
TAKES_AWAY = ("session.revoked", "user.role_granted", "user.role_revoked", "work.collaborators_changed")
"""Events after which somebody may be signed in, or inside, no longer."""


class _Request(msgspec.Struct, tag_field="type", forbid_unknown_fields=True, frozen=True, kw_only=True):
    rid: Annotated[int, Meta(ge=-(2**53), le=2**53)] | Annotated[str, Meta(max_length=64)] | None = None


class Auth(_Request, tag="auth", frozen=True, kw_only=True):
    token: Annotated[str, Meta(max_length=4096)]


class Subscribe(_Request, tag="subscribe", frozen=True, kw_only=True):
    channel: Annotated[str, Meta(max_length=100)]
    auth_token: Annotated[str, Meta(max_length=4096)] | None = None


class Unsubscribe(_Request, tag="unsubscribe", frozen=True, kw_only=True):
    channel: Annotated[str, Meta(max_length=100)]


class Ping(_Request, tag="ping", frozen=True, kw_only=True):
    pass


_DECODER = msgspec.json.Decoder(Auth | Subscribe | Unsubscribe | Ping)


class LiveService:
    """One for each process; `open` makes the protocol of one connection."""

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        self.hub = Hub()
        self.works = kernel.service(WorkService).catalog
        self.creators = kernel.service(CreatorService)
        reader = kernel.service(ExchangeService).reader
        self.tape = Tape(kernel.database, reader, self.hub.tell_all, self.hub.has_readers)
        self._readers: dict[Connection, Reader] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._watch: asyncio.Task[None] | None = None
        kernel.events.listen(self._hear)

    async def open(self, address: str, caller: Caller | None, guard: SessionGuard) -> Reader:
        """A connection of the address, which counts with its network.

        Raises:
            ApiError: RATE_LIMITED; UNAUTHORIZED, FORBIDDEN if the session ended.
        """
        verdict = await self.kernel.limits.take_of_address("public", address)
        if verdict is not None and not verdict.allowed:
            raise _limited("rate_limited")
        settings = self.kernel.settings
        if len(self.hub.connections) >= settings.sockets_max:
            raise _limited("too_many_connections")
        network = network_of(address)
        if self.hub.count_of(network) >= settings.sockets_per_address_max:
            raise _limited("too_many_connections")
        checked = await guard.check(caller) if caller is not None else None
        reader = Reader(self, Connection(network, checked), guard)
        self._readers[reader.connection] = reader
        self.hub.add(reader.connection)
        if self._watch is None or self._watch.done():
            self._watch = asyncio.create_task(self._recheck_all(), name="event socket")
            self._watch.add_done_callback(told_if_broken)
        return reader

    def close(self, reader: Reader) -> None:
        self.hub.drop(reader.connection)
        self._readers.pop(reader.connection, None)

    async def access(self, db: Any, caller: Caller | None, channel: str) -> bool:
        """Whether the caller is inside. Raises ApiError `unknown_channel`: it is not there, or not for the caller."""
        kind, _, text = channel.partition(":")
        if channel == MARKET:
            return False
        try:
            id_ = UUID(text)
        except ValueError as error:
            raise unknown("channel") from error
        if channel == f"{kind}:{id_}":  # one spelling for each channel
            if kind == "user" and caller is not None and caller.account_id == str(id_):
                return True
            if kind == "creator":
                return await self._inside_creator(db, caller, id_)
            if kind == "content":
                try:
                    _, inside = await self.works.visible(db, caller, id_)
                except ApiError as error:
                    raise unknown("channel") from error
                return inside
        raise unknown("channel")

    async def _inside_creator(self, db: Any, caller: Caller | None, creator_id: UUID) -> bool:
        if not await self.creators.exists(db, creator_id):
            raise unknown("channel")
        own = await self.creators.own(db, caller) if caller is not None else None
        return own is not None and own.id == str(creator_id)

    def _hear(self, event: Event) -> None:
        self.hub.tell(event)
        if event.type not in TAKES_AWAY:
            return
        for connection, reader in list(self._readers.items()):
            caller = connection.caller
            if caller is None:
                continue
            ended = event.type == "session.revoked" and event.subject_id == caller.session_id
            changed = event.subject_type == "account" and event.subject_id == caller.account_id
            taken = f"content:{event.subject_id}" in connection.channels
            if ended or changed or taken:
                self._spawn(reader.recheck())

    async def _recheck_all(self) -> None:
        """While anybody is there."""
        while self._readers:
            await asyncio.sleep(RECHECK_SECONDS)
            for reader in list(self._readers.values()):
                await reader.recheck()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(told_if_broken)


class Reader:
    """The protocol of one connection: requests in, answers into its line."""

    def __init__(self, live: LiveService, connection: Connection, guard: SessionGuard) -> None:
        self.connection = connection
        self._live, self._guard = live, guard
        self._messages = Buckets(live.kernel.settings.socket_messages_per_minute)

    async def receive(self, text: str | None) -> None:
        """One message; None: it was binary."""
        connection = self.connection
        verdict = self._messages.take("", time.monotonic_ns())
        if verdict is not None and not verdict.allowed:
            connection.refuse("rate_limited", f"At most {verdict.limit} messages a minute.", None)
            connection.end(POLICY, "rate_limited")
            return
        try:
            if text is None:
                raise msgspec.DecodeError("messages are text")
            request = _DECODER.decode(text)
        except (msgspec.DecodeError, UnicodeError) as error:
            connection.refuse("bad_message", str(error), None)
            return
        channel = {"channel": request.channel} if isinstance(request, (Subscribe, Unsubscribe)) else {}
        try:
            match request:
                case Ping():
                    connection.answer("pong", request.rid)
                case Auth():
                    await self._sign_in(request.token)
                    connection.answer("signed_in", request.rid, account_id=self._account_id())
                case Subscribe():
                    await self._subscribe(request)
                case Unsubscribe():
                    self._live.hub.unsubscribe(connection, request.channel)
                    connection.answer("unsubscribed", request.rid, **channel)
        except (ApiError, Unavailable) as error:
            failure = as_api_error(error)
            connection.refuse(failure.reason, failure.message, request.rid, **channel)

    async def recheck(self) -> None:
        """Does the session still stand, and is the reader still inside where it was?"""
        connection = self.connection
        if connection.caller is None or connection.closing is not None:
            return
        self._guard.forget(connection.caller.session_id)
        try:
            connection.caller = await self._guard.check(connection.caller)
            async with self._live.kernel.database.connection() as db:
                for channel in [channel for channel, inside in connection.channels.items() if inside]:
                    await self._recheck_channel(db, channel)
        except ApiError as error:
            self.session_ended(error)
        except Unavailable:
            return  # asked again at the next round

    async def _recheck_channel(self, db: Any, channel: str) -> None:
        try:
            inside = await self._live.access(db, self.connection.caller, channel)
        except ApiError as error:
            self._live.hub.unsubscribe(self.connection, channel)
            self.connection.refuse(error.reason, error.message, None, channel=channel)
            return
        if channel in self.connection.channels:  # not given up meanwhile
            self._live.hub.subscribe(self.connection, channel, inside)

    def session_ended(self, error: ApiError) -> None:
        """Private channels end with the session: the connection is told and closed."""
        self._live.hub.drop(self.connection)
        self.connection.refuse(error.reason, error.message, None)
        self.connection.end(SESSION_ENDED, error.reason)

    async def _sign_in(self, token: str) -> None:
        """Again for the same account: with a newer token. Raises ApiError UNAUTHORIZED."""
        caller = await self._guard.check(self._live.kernel.signer.read(token))
        known = self._account_id()
        if known is not None and known != caller.account_id:
            raise unauthorized("other_account", "This connection speaks for another account.")
        self.connection.caller = caller

    async def _subscribe(self, request: Subscribe) -> None:
        connection = self.connection
        if request.auth_token is not None:
            await self._sign_in(request.auth_token)
        if request.channel not in connection.channels and len(connection.channels) >= SUBSCRIPTIONS_MAX:
            message = f"A connection has at most {SUBSCRIPTIONS_MAX} channels."
            connection.refuse("too_many_subscriptions", message, request.rid, channel=request.channel)
            return
        if request.channel == MARKET:
            await self._live.tape.start()
            inside = False
        else:
            async with self._live.kernel.database.connection() as db:
                inside = await self._live.access(db, connection.caller, request.channel)
        if connection not in self._live.hub.connections:  # it ended meanwhile
            return
        self._live.hub.subscribe(connection, request.channel, inside)
        access = "own" if inside else "public"
        connection.answer("subscribed", request.rid, channel=request.channel, access=access)

    def _account_id(self) -> str | None:
        return self.connection.caller.account_id if self.connection.caller is not None else None


def _limited(reason: str) -> ApiError:
    return ApiError(ErrorCode.RATE_LIMITED, "No more connections now.", reason=reason)
