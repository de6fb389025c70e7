"""A trader that survives its connection: places and follows orders, reconnects, and always knows what became of them.

    async with Trader("ws://127.0.0.1:7401", key) as trader:
        order = await trader.place("CRT-USD", "my-1", "buy", "limit", size="10", price="1.25")
        order.state, order.filled                     # kept true from here on, also by what others do to it
        await trader.cancel("my-1")

Theory of operation. One task connects, recovers, and waits for the end of the connection, for ever:

    connect ─▶ resume behind the last whole sequence ─▶ list the open orders ─▶ resolve what is in doubt ─▶ ready
       ▲                                                (never received: poison it, so that a late packet cannot run)
       └───────────────── pause, doubling to `pause_s_max` ◀── the connection ended

Calls wait until it is ready. A place whose connection ends before the ack returns or raises what is true after the
recovery; it is never sent twice by itself. `tracker` takes each message before any caller gets it.
Never: guesses an outcome. Ends by itself only when the exchange no longer takes the key.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import AsyncIterator, Callable
from types import TracebackType
from typing import Any, Self

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from byline.client.errors import CommandError, ConnectionLost, OutcomeUnknownError, Rejected, TradingError
from byline.client.event_queue import EventQueue
from byline.client.messages import ServerMessage, decode
from byline.client.plain import plain
from byline.client.tracker import FIXED_TERMS, TERMS, OrderTracker, TrackedOrder, differs
from byline.client.trading import TradingClient

__all__ = ["DuplicateId", "Forgotten", "NeverReceived", "Trader"]

log = logging.getLogger(__name__)

_PASSED_ON = ("protection", "shutdown", "status", "receipt", "settled")
"""What is no event of an order and told to readers all the same, by `type`."""
PAUSE_S = 0.05
BUSY_PAUSE_S = 0.25
BUSY = {"busy", "rate_limited", "journal_failed"}


class NeverReceived(TradingError):
    """The connection ended before the exchange had the order, and it will never be executed."""

    def __init__(self, order: TrackedOrder) -> None:
        super().__init__(f"{order.client_id} never came to the exchange and never will")
        self.order = order


class DuplicateId(TradingError):
    """The client id is that of another order, which `order` is; what was asked for was not executed.

    `term` is the first that differs. An order that was over before this program began has no terms to compare.
    """

    def __init__(self, order: TrackedOrder, term: str) -> None:
        what = f"{order.side} {order.size or order.budget} {order.market}" if order.side else f"in {order.market}"
        super().__init__(
            f"{order.client_id} is order {order.order_id}, {what}, {order.state}: not the order asked for, by its "
            f"{term}; use a fresh client id"
        )
        self.order = order
        self.term = term


class Forgotten(TradingError):
    """The order is not open and never will be; whether it was executed the exchange remembers no more. Balances tell.

    Only after so long an absence that 100,000 other orders of the account were closed, and only where the events of
    that time could not be had.
    """

    def __init__(self, order: TrackedOrder) -> None:
        super().__init__(f"{order.client_id} is over, and what became of it is not known any more")
        self.order = order


class Trader:
    """Use it with `async with`.

    Args:
        url, key: as of TradingClient.connect, `ssl` too.
        cancel_on_disconnect: True: the exchange cancels what this trader has open when it loses the connection.
        events_max: how many events wait for each reader of `events`; one that takes none ends with EventsMissed.
        pause_s_max: the longest pause between attempts to connect, seconds.
    """

    def __init__(
        self, url: str, key: Ed25519PrivateKey, *, cancel_on_disconnect: bool = True, ssl: ssl.SSLContext | None = None,
        events_max: int = 10_000, pause_s_max: float = 5.0,
    ) -> None:  # fmt: skip
        self.url = url
        self.tracker = OrderTracker()
        self.accounts: list[str] = []
        self.connections = 0
        self.client: TradingClient | None = None
        self._key = key
        self._cancels = cancel_on_disconnect
        self._ssl = ssl
        self._events_max = events_max
        self._pause_s_max = pause_s_max
        self._readers: list[EventQueue] = []
        self._ready = asyncio.Event()
        self._resumed: asyncio.Future[dict[str, Any]] | None = None
        self._ended: BaseException | None = None
        self._task: asyncio.Task[None] | None = None
        self._sessions: set[tuple[int, int]] = set()  # (epoch, number) of all over which what is in doubt was sent

    async def __aenter__(self) -> Self:
        """Returns when it is signed in and knows its open orders. Raises SignInFailed."""
        self._task = asyncio.create_task(self._run())
        await self.wait_ready()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._task is not None, "it was entered"
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        client, self.client = self.client, None
        if client is not None:
            await client.close()
        self._end(ConnectionLost("closed by this trader"))

    async def wait_ready(self) -> TradingClient:
        """The living connection, recovered. Raises what ended this trader, if anything did."""
        while True:
            await self._ready.wait()
            if self._ended is not None:
                raise self._ended
            if self.client is not None:
                return self.client

    @property
    def account(self) -> str:
        """The key's first: what commands mean that name none."""
        return self.accounts[0]

    # ---------------------------------------------------------------- orders

    async def place(self, market: str, client_id: str, side: str, type: str, **terms: Any) -> TrackedOrder:
        """Place an order; `terms` as of TradingClient.place. Returns when the exchange has said what became of it.

        A client id names one order for ever. Asked again with the same terms, the answer is that order as it stands.

        Raises:
            Rejected: by a rule of the exchange. CommandError: by the gateway. Neither executed anything.
            DuplicateId: the id is another order's, and this one was not executed.
            NeverReceived: the connection ended too early. Forgotten: see there.
        """
        body = plain({"market": market, "client_id": client_id, "side": side, "type": type} | terms)
        while True:
            client = await self.wait_ready()
            order = self.tracker.sent(body.get("account") or self.account, client_id, body)
            is_new, answer = order.order_id is None, None
            try:
                answer = await client.command("place", **body)
            except CommandError as error:
                self.tracker.refused(order, error.code)
                raise
            except OutcomeUnknownError:
                await self._recovered(client)
            except ConnectionLost:
                self.tracker.refused(order, "not_sent")  # this connection had ended before: nothing left
                await self._recovered(client)
                continue
            found = self.tracker.find(client_id, order.account) or order
            if self.tracker.doubted():
                await self._settle(await self.wait_ready(), self.tracker.doubted)
            is_old = answer["event"] == "duplicate" if answer is not None else not is_new or found is not order
            return _standing(found, body, TERMS if is_old else FIXED_TERMS)

    async def replace(self, client_id: str, **changes: Any) -> TrackedOrder:
        """Change price, size (the new total), stop_price or new_client_id.

        Raises:
            Rejected, CommandError: it stays as it was.
            ConnectionLost: the connection ended first. The order's state is true again, with the change or without.
        """
        order = self._known(client_id, changes.get("account"))
        client = await self.wait_ready()
        try:
            await client.replace(client_id=client_id, **changes)
        except ConnectionLost:
            await self._recovered(client)
            raise
        return order

    async def cancel(self, client_id: str, account: str | None = None) -> TrackedOrder:
        """Have the order canceled; asks again after a lost connection. Returns it finished, by this or otherwise."""
        order = self._known(client_id, account)
        while order.is_open:
            client = await self.wait_ready()
            try:
                await client.cancel(client_id=client_id, account=account)
            except Rejected:
                if order.is_open:
                    raise
            except ConnectionLost:
                await self._recovered(client)
        return order

    async def cancel_all(self, **scope: Any) -> None:
        """Cancel all open orders, or those that fit market, side, session. Asks again after a lost connection."""
        while True:
            client = await self.wait_ready()
            try:
                await client.mass_cancel(**scope)
                return
            except ConnectionLost:
                await self._recovered(client)

    async def ask(self, op: str, **fields: Any) -> dict[str, Any]:
        """The answer to a question that changes nothing: `balances`, `whoami`, `resolve`. Asked again if need be."""
        while True:
            client = await self.wait_ready()
            try:
                return await client.request({"op": op} | fields)
            except ConnectionLost:
                await self._recovered(client)

    def open_orders(self) -> list[TrackedOrder]:
        """As the last message told."""
        return self.tracker.open_orders()

    def events(self) -> AsyncIterator[ServerMessage]:
        """Every event of the accounts from now on, acks included, typed, each once, over any number of connections.

        Raises EventsMissed, and ends, if `events_max` events wait that nobody takes. Nothing else waits for a reader.
        """
        queue = EventQueue(self._events_max)
        self._readers.append(queue)
        return self._told(queue)

    async def _told(self, queue: EventQueue) -> AsyncIterator[ServerMessage]:
        try:
            while (message := await queue.take()) is not None:
                yield decode(message)
        finally:
            if queue in self._readers:
                self._readers.remove(queue)

    def _known(self, client_id: str, account: str | None) -> TrackedOrder:
        order = self.tracker.find(client_id, account or self.account)
        if order is None:
            raise KeyError(f"no order is known by {client_id!r}")
        return order

    # ---------------------------------------------------------------- the connection

    async def _run(self) -> None:
        pause = PAUSE_S
        try:
            while True:
                try:
                    client = await self._connect()
                except ConnectionLost as error:
                    log.info("event=not_connected url=%s reason=%s", self.url, error.reason)
                    await asyncio.sleep(pause)
                    pause = min(2 * pause, self._pause_s_max)
                    continue
                pause = PAUSE_S
                self._ready.set()
                reason = await client.wait_closed()
                self._ready.clear()
                self.client = None
                log.info("event=connection_lost url=%s reason=%s", self.url, reason)
        except Exception as error:  # whatever it is, those who wait must hear of it
            self._end(error)
            raise

    async def _connect(self) -> TradingClient:
        """Connected and recovered. Raises ConnectionLost, SignInFailed."""
        resumes = self.connections > 0
        self._resumed = asyncio.get_running_loop().create_future() if resumes else None
        client = await TradingClient.connect(
            self.url, self._key, resume=self.tracker.resume_after if resumes else None, ssl=self._ssl,
            cancel_on_disconnect=self._cancels, observer=self._take,
        )  # fmt: skip
        self._sessions.add((client.hello["epoch"], client.signed_in["session"]))
        try:
            if self._resumed is not None:
                if not await client.comes(self._resumed):
                    raise ConnectionLost("the connection ended within the replay")
                self._check_resumed(client)
            else:
                self.tracker.restart(client.signed_in["sequence"])
            self.accounts = client.accounts
            await self._settle(client, self._in_doubt)
        except BaseException:
            await client.close()
            raise
        self._sessions = {(client.hello["epoch"], client.signed_in["session"])}
        self.client = client
        self.connections += 1
        return client

    def _check_resumed(self, client: TradingClient) -> None:
        """Raises ConnectionLost if the replay is to be tried again."""
        assert self._resumed is not None, "it was asked for"
        answer = self._resumed.result()
        if answer.get("code") == "busy":
            raise ConnectionLost(f"resume: {answer.get('message', 'busy')}")
        if answer["type"] == "error":
            self.tracker.events_since = client.signed_in["sequence"]

    def _in_doubt(self) -> list[TrackedOrder]:
        return [*self.tracker.unanswered(), *self.tracker.doubted()]

    async def _settle(self, client: TradingClient, questions: Callable[[], list[TrackedOrder]]) -> None:
        """List, then resolve, then poison what never came, until nothing is in question."""
        for account in client.accounts:
            await self._answer(client, {"op": "open_orders", "account": account})
        for order in questions():
            body = {"client_id": order.client_id, "account": order.account}
            while order in questions():
                await self._answer(client, {"op": "resolve"} | body)
                if order not in questions():
                    break
                if (await self._answer(client, {"op": "poison"} | body))["event"] == "rejected":
                    await self._settle_without_poison(client, order, questions)

    async def _settle_without_poison(
        self, client: TradingClient, order: TrackedOrder, questions: Callable[[], list[TrackedOrder]]
    ) -> None:
        """The exchange holds all the poisoned ids that it can: once the sessions are gone over which the order may have
        been sent, no packet of theirs is carried out any more, and what is true then stays true."""
        now = client.hello["epoch"], client.signed_in["session"]
        told = await self._answer(client, {"op": "sessions"})
        living = {(now[0], row["session"]) for row in told["sessions"]}
        if self._sessions & living - {now}:
            await asyncio.sleep(BUSY_PAUSE_S)
            return
        answer = await self._answer(
            client, {"op": "resolve", "client_id": order.client_id, "account": order.account}
        )  # fmt: skip
        if order in questions() and "not_accepted_since" in answer:
            self.tracker.never_received(order, answer["not_accepted_since"])

    @staticmethod
    async def _answer(client: TradingClient, question: dict[str, Any]) -> dict[str, Any]:
        """Asked again while the exchange has no room for it; `_take` has seen it first."""
        while True:
            try:
                return await client.request(question)
            except CommandError as error:
                if error.code not in BUSY:
                    raise
            await asyncio.sleep(BUSY_PAUSE_S)

    async def _recovered(self, client: TradingClient) -> None:
        """Until another connection than `client` stands."""
        while self.client is client:
            await client.wait_closed()
            await asyncio.sleep(0)
        await self.wait_ready()

    async def _take(self, message: dict[str, Any]) -> None:
        if self._resumed is not None and not self._resumed.done():
            kind = message.get("type")
            if kind == "resumed" or (kind == "error" and "rid" not in message):
                if kind == "error" and message["code"] != "busy":
                    log.warning("event=not_resumed after=%d code=%s", self.tracker.resume_after, message["code"])
                    self.tracker.restart(0)  # a gap in the events: the lists and questions tell the state all the same
                self._resumed.set_result(message)
        is_new = self.tracker.take(message)
        if "event" in message and is_new or message.get("type") in _PASSED_ON:
            for queue in list(self._readers):
                await queue.put(message)
                if queue.is_missing and queue in self._readers:
                    self._readers.remove(queue)
                    log.warning("event=reader_ended events_max=%d reason=nobody takes its events", self._events_max)

    def _end(self, why: BaseException) -> None:
        if self._ended is None:
            self._ended = why
        self._ready.set()
        for queue in self._readers:
            queue.end()


def _standing(order: TrackedOrder, asked: dict[str, Any], terms: tuple[str, ...]) -> TrackedOrder:
    """The order, if the exchange has it and `terms` are those asked for. Raises what it says otherwise."""
    if order.state == "never_received":
        raise NeverReceived(order)
    if order.state == "forgotten":
        raise Forgotten(order)
    if order.state == "rejected":
        raise Rejected({"op": "place", "client_id": order.client_id, "reason": order.reason})
    if (term := differs(order, asked, terms)) is not None:
        raise DuplicateId(order, term)
    return order
