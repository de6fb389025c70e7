"""The order-entry server: sockets, timers and the answers about the exchange. No rule of a session stands here.

`GatewayServer` takes every part by its constructor and owns none of them but the connections; `serve` runs it until
it is told to stop or a broken invariant ends it. `fault` then holds the exception: the caller ends the process with it.

Timers: ticks that are due while nobody sends, a `cut` each batch interval, and a look at the journal's health. A
failed journal is told to every session, and nothing is acked from then on. A full disk leaves cancels only.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Callable
from http import HTTPStatus
from typing import Any, Protocol

import picows
from numpy.typing import NDArray

from engine.messages import edge
from engine.messages.codes import ABSENT, OrderStatus, OrderType, Overdraft, Side, TimeInForce
from engine.messages.decode import EventDecoder
from engine.messages.directory import Directory
from engine.messages.encode import CommandEncoder, Malformed
from engine.messages.layout import AccountMask
from engine.messages.ports import Clock
from gateway.hub import Counters, Hub
from gateway.keys import ApiKey, KeyRefused, KeyRegistry, Scope
from gateway.listener import OrderEntryListener
from gateway.names import Names
from gateway.orders import OpenOrders
from gateway.sequencer import Sequencer
from gateway.session import Ask, CommandRefused, Session, SessionTerms
from gateway.settings import GatewaySettings
from gateway.wire import json as wire
from gateway.wire.numbers import first_invalid

__all__ = ["CoreState", "GatewayServer", "JournalHealth", "serve"]

log = logging.getLogger(__name__)
_quiet = logging.getLogger("gateway.transport")
_quiet.setLevel(logging.CRITICAL)  # picows reports each client's fault as an error; ours are counted
PROTOCOLS = (wire.PROTOCOL, edge.PROTOCOL)
_PATHS = (b"/", b"/v1/ws/trade")
_CLOSE_GRACE_S = 0.5


class CoreState(Protocol):
    """What the server reads of the engine beside applying commands; dtypes as `engine.core` publishes them."""

    @property
    def batch(self) -> int:
        """Cuts so far."""

    def describe(self) -> NDArray[Any]: ...
    def open_orders(self) -> NDArray[Any]: ...
    def balances_of(self, account: int, /) -> NDArray[Any]: ...
    def state_hash(self) -> bytes: ...


class JournalHealth(Protocol):
    """What the server needs of the journal beside its C port."""

    def fileno(self) -> int: ...
    def drain_wakeup(self) -> None: ...

    @property
    def status(self) -> str:
        """running, disk_full, failed or closed."""


class GatewayServer:
    """Order entry over one sequencer.

    Args:
        settings: bounds and addresses.
        sequencer: new, with `durable_acks` as `settings.ack_mode` says.
        journal: its health and wake-up; the same object that the sequencer appends to.
        state: the engine under the sequencer, recovered.
        keys: the registry of API keys.
        clock: wall clock.
    """

    def __init__(
        self, settings: GatewaySettings, sequencer: Sequencer, journal: JournalHealth, state: CoreState,
        keys: KeyRegistry, clock: Clock,
    ) -> None:  # fmt: skip
        self.settings = settings
        self.counters = Counters()
        self.fault: BaseException | None = None
        self._sequencer = sequencer
        self._journal = journal
        self._state = state
        self._directory = directory = Directory()
        self._keys = keys
        self._clock = clock
        self._names = Names()
        self._orders = OpenOrders()
        definitions = state.describe().tobytes()
        self._names.learn_events(definitions)
        directory.learn(definitions)
        self._orders.restore(state.open_orders())
        decoder = EventDecoder(directory)
        sequencer.on_definition = self._define
        self.hub = Hub(
            sequencer, self._names, self._orders, lambda slots: decoder.decode(slots)[0], self._answer,
            self.counters, settings.write_high_bytes, settings.asks_max, settings.asks_per_session_max,
        )  # fmt: skip
        self.hub.on_fatal = self._fatal
        self._encoder = CommandEncoder(directory, _OrderMarkets(sequencer))
        self._terms = SessionTerms(
            environment=settings.environment, epoch=settings.epoch, keys=keys, encode=self._encode,
            make_nonce=lambda: secrets.token_hex(32), now_ns=clock.now_ns,
            is_house=self._is_house, account_index=self._names.account_index,
            failures_max=settings.sign_in_failures_max,
            commands_per_frame_max=settings.commands_per_frame_max,
        )  # fmt: skip
        self._listeners: set[OrderEntryListener] = set()
        self._timers: dict[OrderEntryListener, asyncio.TimerHandle] = {}
        self._server: asyncio.Server | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._told_status = "running"
        self._ended = asyncio.Event()
        self._started_ns = time.monotonic_ns()

    # ---------------------------------------------------------------- life

    async def start(self) -> tuple[str, int]:
        """Listen. Returns host and port. Raises OSError if the address is taken."""
        loop = asyncio.get_running_loop()
        self._server = await picows.ws_create_server(
            self._accept, self.settings.host, self.settings.port,
            websocket_handshake_timeout=self.settings.handshake_timeout_s, enable_auto_pong=False,
            max_frame_size=self.settings.frame_bytes_max, read_buffer_init_size=8_192, logger_name=_quiet,
        )  # fmt: skip
        loop.add_reader(self._journal.fileno(), self._journal_woke)
        self._tasks = [asyncio.create_task(self._poll())]
        if self.settings.batch_interval_s:
            self._tasks.append(asyncio.create_task(self._cut_regularly()))
        host, port = self._server.sockets[0].getsockname()[:2]
        log.info("listening host=%s port=%d ack_mode=%s", host, port, self.settings.ack_mode)
        return host, port

    async def wait_ended(self) -> None:
        """Until `stop` was called or a fault ended it. Raises the fault."""
        await self._ended.wait()
        if self.fault is not None:
            raise self.fault

    async def stop(self) -> None:
        """Take no more connections, end the sessions. What was submitted stays submitted."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._server is not None:
            asyncio.get_running_loop().remove_reader(self._journal.fileno())
            self._server.close()
            if self.fault is None:
                self.hub.settle()
            for listener in list(self._listeners):
                if listener.link is not None:
                    listener.carry_out(listener.link.session.end(1001, "the exchange is stopping"))
            await asyncio.sleep(0)
            for listener in list(self._listeners):
                listener.drop()
            await self._server.wait_closed()
        self._ended.set()

    # ---------------------------------------------------------------- told by listeners

    def opened(self, listener: OrderEntryListener) -> None:
        """Its handshake was good: from here on it takes a place. A bad one never comes here, nor to `closed`."""
        self._listeners.add(listener)
        loop = asyncio.get_running_loop()
        self.counters.sessions = len(self._listeners)
        self.counters.sessions_opened += 1
        self._timers[listener] = loop.call_later(self.settings.sign_in_timeout_s, self._time_out, listener)

    def signed_in(self, listener: OrderEntryListener, key: ApiKey) -> None:
        self._disarm(listener)
        indices = [self._names.account_index(name) for name in key.accounts]
        known = [index for index in indices if index is not None]
        trades = Scope.TRADE in key.scopes and Scope.OPERATOR not in key.scopes and len(known) == len(indices)
        cancels = Scope.CANCEL_ONLY in key.scopes and Scope.OPERATOR not in key.scopes and len(known) == len(indices)
        assert listener.link is not None, "only a living connection signs in"
        self.hub.subscribe(listener.link, known, trades, trades or cancels)

    def closing(self, listener: OrderEntryListener) -> None:
        """The session has sent its close frame: give it a moment to arrive."""
        self._disarm(listener)
        self._timers[listener] = asyncio.get_running_loop().call_later(_CLOSE_GRACE_S, listener.drop)

    def closed(self, listener: OrderEntryListener) -> None:
        self._disarm(listener)
        self._listeners.discard(listener)
        self.counters.sessions = len(self._listeners)

    # ---------------------------------------------------------------- inside

    def _accept(self, request: picows.WSUpgradeRequest) -> Any:
        if request.path.split(b"?")[0] not in _PATHS:
            return None
        if len(self._listeners) >= self.settings.sessions_max or self._told_status == "failed":
            self.counters.refused_sessions += 1
            reason = b"journal_failed" if self._told_status == "failed" else b"too_many_sessions"
            response = picows.WSUpgradeResponse.create_error_response(HTTPStatus.SERVICE_UNAVAILABLE, reason)
            return picows.WSUpgradeResponseWithListener(response, None)
        offered = [word.strip() for word in request.headers.get("Sec-WebSocket-Protocol", "").split(",")]
        protocol = next((word for word in offered if word in PROTOCOLS), None)
        session = Session(self._terms, is_binary=protocol == edge.PROTOCOL)
        listener = OrderEntryListener(self.hub, session, self)
        if protocol is not None:
            response = picows.WSUpgradeResponse.create_101_response({"Sec-WebSocket-Protocol": protocol})
            return picows.WSUpgradeResponseWithListener(response, listener)
        return listener

    def _encode(self, command: dict[str, Any]) -> bytes:
        """The record of a command; what a client can only have got wrong is refused here and never journaled."""
        op = command["op"]
        if "ts" in command:
            raise CommandRefused("malformed", "ts", "the exchange alone tells the time")
        try:
            record = bytes(self._encoder.encode(command))
        except Malformed as error:
            raise CommandRefused("malformed", error.field, error.rule) from error
        if (
            command.get("account") is not None
            and op != "account"
            and command["account"] not in self._directory.accounts_by_name
        ):
            raise CommandRefused("unknown_account", "account", "an account that exists")
        if op == "place" and command["market"] not in self._directory.markets_by_name:
            raise CommandRefused("unknown_market", "market", "a market that exists")
        if op in ("place", "deposit", "withdraw", "cancel_after") or (op == "replace" and self._knows_order(command)):
            found = first_invalid(record)
            if found is not None:
                code, field, rule = found
                raise CommandRefused(
                    code, "budget" if field == "size" and command.get("budget") is not None else field, rule
                )
        if op == "withdraw":
            self._check_payout(command)
        return record

    def _check_payout(self, command: dict[str, Any]) -> None:
        """A withdrawal is paid to the account's row and nowhere else: refuse what would be paid to nobody."""
        entry = self._directory.accounts_by_name[command["account"]]
        if not entry.mask & AccountMask.ROW:
            raise CommandRefused("bad_address", "address", f"the account {entry.name} has a row to be paid to")
        address = command.get("address")
        if address is not None and address.lower() != f"0x{entry.row.hex()}":
            raise CommandRefused("bad_address", "address", "the account's own row, 0x and 64 hex digits, or none")

    def _is_house(self, name: str) -> bool:
        entry = self._directory.accounts_by_name.get(name)
        return entry is not None and entry.overdraft is Overdraft.OPEN

    def _knows_order(self, command: dict[str, Any]) -> bool:
        account = self._directory.accounts_by_name[command["account"]].index
        markets = _OrderMarkets(self._sequencer)
        return markets.find(account, command.get("order_id"), command.get("client_id")) is not None

    def _define(self, slots: bytes) -> None:
        self._names.learn_events(slots)
        self._directory.learn(slots)

    def _journal_woke(self) -> None:
        try:
            self._journal.drain_wakeup()
            self.hub.settle()
            self._look_at_journal()
        except BaseException as error:
            self._fatal(error)
            raise

    def _look_at_journal(self) -> None:
        status = self._journal.status
        if status == self._told_status:
            return
        self._told_status = status
        self._sequencer.cancel_only = status != "running"
        log.error(
            "journal status=%s errno=%d sequence=%d", status, self._sequencer.journal_errno, self._sequencer.sequence
        )
        messages = {
            "running": "orders are taken again",
            "disk_full": "the disk is full: only cancels are taken",
            "failed": "the journal has failed: nothing is acked from here on; unacked commands may be lost",
            "closed": "the journal is closed",
        }
        self.hub.broadcast(wire.encode({"type": "status", "journal": status, "message": messages[status]}))
        self.hub.settle()

    async def _poll(self) -> None:
        while True:
            await asyncio.sleep(self.settings.tick_poll_s)
            self._run(self._poll_once)

    def _poll_once(self) -> None:
        self._sequencer.advance()
        self.hub.settle()
        self._look_at_journal()

    async def _cut_regularly(self) -> None:
        while True:
            await asyncio.sleep(self.settings.batch_interval_s)
            self._run(self._cut)

    def _cut(self) -> None:
        taken = self._sequencer.cut()
        if taken != "taken":
            log.warning("no cut was written reason=%s sequence=%d", taken, self._sequencer.sequence)
        self.hub.settle()

    def _run(self, step: Callable[[], None]) -> None:
        try:
            step()
        except BaseException as error:
            self._fatal(error)
            raise

    def _fatal(self, error: BaseException) -> None:
        if self.fault is None:
            self.fault = error
            log.critical("order entry stops: a broken invariant", exc_info=error)
            self._ended.set()

    def _time_out(self, listener: OrderEntryListener) -> None:
        if listener.link is not None:
            listener.carry_out(listener.link.session.time_out())

    def _disarm(self, listener: OrderEntryListener) -> None:
        timer = self._timers.pop(listener, None)
        if timer is not None:
            timer.cancel()

    # ---------------------------------------------------------------- answers

    def _answer(self, ask: Ask, session: Session) -> bytes:
        """The frame that answers a question. A broken rule gives an error; a fault of ours ends that session alone."""
        try:
            return wire.encode(self._answer_body(ask))
        except Exception:
            log.exception("the question %s could not be answered: its session ends", ask.what)
            asyncio.get_running_loop().call_soon(self._end_session, session)
            return wire.error("internal", "a fault of the exchange: this session ends", rid=ask.rid)

    def _end_session(self, session: Session) -> None:
        for listener in list(self._listeners):
            if listener.link is not None and listener.link.session is session:
                listener.carry_out(session.end(1011, "internal"))

    def _answer_body(self, ask: Ask) -> dict[str, Any]:
        body: dict[str, Any]
        try:
            body = getattr(self, f"_answer_{ask.what}")(ask.fields)
        except KeyRefused as error:
            body = {
                "type": "error",
                "code": error.code,
                "field": error.field,
                "rule": error.rule,
                "message": str(error),
            }
        except OSError as error:
            log.error("key registry errno=%s", error.errno)
            body = {
                "type": "error",
                "code": "registry_failed",
                "message": f"the key registry could not be written: {error}",
            }
        if not ask.rid:
            return body
        [rid] = wire.parse(b"[%s]" % ask.rid)
        return {"rid": rid} | body

    def _account_of(self, fields: dict[str, Any]) -> int:
        index = self._names.account_index(fields["account"])
        if index is None:
            raise KeyRefused("unknown_account", "account", "an account that exists")
        return int(index)

    def _answer_open_orders(self, fields: dict[str, Any]) -> dict[str, Any]:
        orders = [self._order_body(order) for order in self._orders.of_account(self._account_of(fields))]
        released = self._sequencer.released_sequence
        return {"type": "open_orders", "account": fields["account"], "sequence": released, "orders": orders}

    def _order_body(self, order: dict[str, Any]) -> dict[str, Any]:
        """An open order on the wire: its fields as in `accepted`, `status` and `leaves`."""
        entry = self._directory.markets[order["market"]]
        amount = entry.quote.text if order["budget"] else entry.size_text
        body = {
            "order_id": order["order_id"], "client_id": order["client_id"], "market": entry.name,
            "side": Side(order["side"]).word, "type": OrderType(order["type"]).word,
            "tif": TimeInForce(order["tif"]).word, "status": OrderStatus(order["status"]).word,
            "budget" if order["budget"] else "size": amount(order["size"]), "leaves": amount(order["leaves"]),
        }  # fmt: skip
        for field, text in (
            ("price", entry.price_text), ("stop_price", entry.price_text), ("display_size", entry.size_text),
            ("expires_at", int),
        ):  # fmt: skip
            if order[field] != ABSENT:
                body[field] = text(order[field])
        return body

    def _answer_balances(self, fields: dict[str, Any]) -> dict[str, Any]:
        account = self._account_of(fields)
        balances = []
        for row in self._state.balances_of(account):
            asset = self._directory.assets[int(row["asset"])]
            available, held = asset.text(int(row["available"])), asset.text(int(row["held"]))
            balances.append({"asset": asset.name, "available": available, "held": held})
        return {
            "type": "balances",
            "account": fields["account"],
            "sequence": self._sequencer.sequence,
            "balances": balances,
        }

    def _answer_directory(self, fields: dict[str, Any]) -> dict[str, Any]:
        return {"type": "directory"} | self._names.directory()

    def _answer_describe(self, fields: dict[str, Any]) -> dict[str, Any]:
        return {"type": "describe"} | self._names.describe()

    def _answer_status(self, fields: dict[str, Any]) -> dict[str, Any]:
        return {"type": "status"} | self.status()

    def status(self) -> dict[str, Any]:
        """Where the exchange stands, for `status` and for the status file of the process."""
        sequencer = self._sequencer
        seconds = (time.monotonic_ns() - self._started_ns) / 1e9
        return {
            "environment": self.settings.environment,
            "epoch": self.settings.epoch,
            "ack_mode": self.settings.ack_mode,
            "journal": self._journal.status,
            "journal_errno": sequencer.journal_errno,
            "sequence": sequencer.sequence,
            "released_sequence": sequencer.released_sequence,
            "batch": self._state.batch,
            "durable_sequence": sequencer.durable_sequence,
            "chain": f"{sequencer.chain:016x}",
            "state_hash": self._state.state_hash().hex(),
            "pending": sequencer.pending,
            "ticks": sequencer.ticks,
            "cancel_only": bool(sequencer.cancel_only),
            "sessions": len(self._listeners),
            "open_orders": self._orders.count,
            "acks_per_s": round(self.counters.acks / seconds) if seconds else 0,
            "counters": self.counters.as_dict(),
        }

    def _answer_register_key(self, fields: dict[str, Any]) -> dict[str, Any]:
        accounts = fields.get("accounts", [])
        for name in accounts if isinstance(accounts, list) else []:
            if not isinstance(name, str) or self._names.account_index(name) is None:
                raise KeyRefused("unknown_account", "accounts", "accounts that exist")
        entry = self._keys.register(
            fields.get("key", ""), accounts, fields.get("scopes", []), fields.get("label", ""), self._clock.now_ns()
        )
        return {"type": "key_registered", "key": entry.key, "accounts": entry.accounts, "scopes": entry.scopes.words()}

    def _answer_revoke_key(self, fields: dict[str, Any]) -> dict[str, Any]:
        key = fields.get("key", "")
        self._keys.revoke(key, self._clock.now_ns())
        for listener in list(self._listeners):
            session = None if listener.link is None else listener.link.session
            if session is not None and session.key is not None and session.key.key == key:
                listener.carry_out(session.end(1008, "its key was revoked"))
        return {"type": "key_revoked", "key": key}


class _OrderMarkets:
    """The market of an order, for the encoder of `replace`: as of all commands submitted before it, released or not."""

    def __init__(self, sequencer: Sequencer) -> None:
        self._sequencer = sequencer

    def find(self, account: int, order_id: Any, client_id: Any) -> _OrderMarket | None:
        if not isinstance(order_id, int) or isinstance(order_id, bool) or not 0 < order_id < 2**63:
            order_id = None
        name = client_id.encode() if isinstance(client_id, str) else b""
        market = self._sequencer.order_market(account, order_id, name)
        return None if market is None else _OrderMarket(market)


class _OrderMarket:
    __slots__ = ("market",)

    def __init__(self, market: int) -> None:
        self.market = market


async def serve(server: GatewayServer, *, on_ready: Callable[[str, int], None] | None = None) -> None:
    """Start `server` and run it until it is stopped. Raises what ended it, if anything did."""
    host, port = await server.start()
    if on_ready is not None:
        on_ready(host, port)
    try:
        await server.wait_ended()
    finally:
        await server.stop()
