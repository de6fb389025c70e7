"""The order-entry server: sockets, timers and the answers about the exchange. No rule of a session stands here.

`GatewayServer` takes every part by its constructor and owns none of them but the connections; `serve` runs it until
it is told to stop or a broken invariant ends it. `fault` then holds the exception: the caller ends the process with it.

Before it listens, what the process before it did not live to cancel is in the journal and matched: orders of lost
sessions, of revoked keys and of tripped ones.

Timers: ticks that are due while nobody sends, a `cut` each batch interval, and a look at the journal's health. A
failed journal is told to every session, and nothing is acked from then on. A full disk leaves cancels only.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import ssl
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Protocol

import picows
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from engine.messages import edge
from engine.messages.codes import Overdraft
from engine.messages.decode import EventDecoder
from engine.messages.directory import Directory
from engine.messages.encode import CommandEncoder, Malformed
from engine.messages.errors import ExchangeError, SettingsInvalid
from engine.messages.layout import AccountMask
from engine.messages.ports import Clock, EventSource
from gateway.answers import Answers, CoreState
from gateway.guard import Allowance
from gateway.hub import Connection, Counters, Hub
from gateway.key_uses import KeyUses
from gateway.keys import ApiKey, KeyRefused, KeyRegistry, Scope
from gateway.listener import OrderEntryListener
from gateway.liveness import LOOKS, Liveness, Verdict
from gateway.names import Names
from gateway.orders import OpenOrders
from gateway.protection import Protection
from gateway.pulls import Pulls, key_stamp
from gateway.quotes import Quotes
from gateway.receipts import Receipts
from gateway.rejections import Rejections
from gateway.replay import Replay, had_budget, rejections_in
from gateway.rights import Rights
from gateway.sequencer import Sequencer
from gateway.session import Ask, CommandRefused, Resume, Session, SessionTerms, SignedIn
from gateway.settings import GatewaySettings
from gateway.unsigned import Pace, Unsigned, network_of
from gateway.wire import json as wire
from gateway.wire.numbers import first_invalid

__all__ = ["CoreState", "GatewayServer", "JournalHealth", "serve"]

log = logging.getLogger(__name__)
_quiet = logging.getLogger("gateway.transport")
_quiet.setLevel(logging.CRITICAL)  # picows reports each client's fault as an error; ours are counted
PROTOCOLS = (wire.PROTOCOL, edge.PROTOCOL)
_PATHS = (b"/", b"/v1/ws/trade")
_CLOSE_GRACE_S = 0.5
_REPLAY_WAIT_S = 0.01
_CLEAR_WAIT_S = 0.001  # for the journal's writer, between two lots of what a start cancels


class JournalHealth(Protocol):
    """What the server needs of the journal beside its C port."""

    def fileno(self) -> int: ...
    def drain_wakeup(self) -> None: ...

    @property
    def status(self) -> str:
        """running, disk_full, failed or closed."""


@dataclass(slots=True)
class _Telling:
    """A `resume` that goes on. `liveness`: whether its reader takes what it is told."""

    replay: Replay
    rid: bytes
    liveness: Liveness


class GatewayServer:
    """Order entry over one sequencer.

    Args:
        settings: bounds and addresses.
        sequencer: new, with `durable_acks` as `settings.ack_mode` says.
        journal: its health and wake-up; the same object that the sequencer appends to.
        state: the engine under the sequencer, recovered.
        keys: the registry of API keys.
        clock: wall clock.
        open_events: opens the event log for one more reader, for `resume` and `resolve`. Without it `resume` is
            refused, and `resolve` knows of no refusal before this start.
        receipt_key: signs receipts; without it there are none.
    """

    def __init__(
        self, settings: GatewaySettings, sequencer: Sequencer, journal: JournalHealth, state: CoreState,
        keys: KeyRegistry, clock: Clock, open_events: Callable[[], EventSource] | None = None,
        receipt_key: Ed25519PrivateKey | None = None,
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
        open_orders = state.open_orders()
        self._orders.restore(open_orders)
        decoder = EventDecoder(directory)
        sequencer.on_definition = self._define
        self.hub = Hub(
            sequencer, self._names, self._orders, lambda slots: decoder.decode(slots)[0], self._answer,
            self.counters, settings.write_high_bytes, settings.asks_max, settings.asks_per_session_max,
        )  # fmt: skip
        self.hub.on_fatal = self._fatal
        self.hub.look = self._look
        self.hub.collar_rule = self._collar_rule
        self._open_events = open_events
        self._past: EventSource | None = None
        if open_events is not None:
            self._orders.look_back(sequencer.sequence, self._had_budget)
        self._replays: deque[_Telling] = deque()
        self._quotes = Quotes(state, directory, self._orders)
        if receipt_key is not None:
            self.hub.receipts = Receipts(receipt_key, settings.environment, settings.epoch)
            self.hub.state_hash = state.state_hash
        self._pulls = Pulls(sequencer)
        orphans = self._pulls.add_orphans(open_orders, settings.epoch)
        if orphans:
            log.warning("orders of lost connections are to be cancelled sessions=%d", orphans)
        self._pulls.add_disowned(open_orders, keys.revoked())
        self.hub.rejections = rejections = self._known_rejections()
        self._rights = Rights(settings, self._names, keys, self._trip)
        self.hub.guarded.update(self._rights.protected_orders(open_orders))
        for key in self._rights.tripped_keys():  # what it did not live to cancel
            self._pulls.add(self._rights.accounts_of(key), [key_stamp(key.key)])
        self.answers = Answers(
            settings, sequencer, state, self._names, directory, self._orders, rejections, keys, clock, self.counters,
            self, lambda: journal.status, self.hub.stages, self._quotes,
        )  # fmt: skip
        self._encoder = CommandEncoder(directory, _OrderMarkets(sequencer))
        self._terms = SessionTerms(
            environment=settings.environment, epoch=settings.epoch, keys=keys, encode=self._encode,
            make_nonce=lambda: secrets.token_hex(32), now_ns=clock.now_ns,
            is_house=self._is_house, make_allowance=self._rights.plain_allowance,
            plan_quote=self._quotes.plan, signs_receipts=receipt_key is not None,
            failures_max=settings.sign_in_failures_max,
            commands_per_frame_max=settings.commands_per_frame_max, message_bytes_max=settings.frame_bytes_max,
        )  # fmt: skip
        self._listeners: set[OrderEntryListener] = set()
        self._unsigned: Unsigned[OrderEntryListener] = Unsigned(settings.unsigned_max)
        self.sign_ins = Pace(
            settings.sign_ins_per_turn, lambda turn: asyncio.get_running_loop().call_soon(self._run, turn)
        )
        self._of_key: Counter[str] = Counter()  # sessions that have signed in
        self._liveness: dict[OrderEntryListener, Liveness] = {}
        self._look_due = 0
        self._expiring: set[OrderEntryListener] = set()
        self._signed_in: dict[Session, tuple[Connection, int]] = {}
        self._key_uses = KeyUses()
        self._followers: dict[Session, tuple[int, int]] = {}  # interval and when it is due next, ns: of `latency`
        self._timers: dict[OrderEntryListener, asyncio.TimerHandle] = {}
        self._servers: list[asyncio.Server] = []
        self.tls_address: tuple[str, int] | None = None
        """Where TLS is spoken, once started and if it is."""
        self._tasks: list[asyncio.Task[None]] = []
        self._told_status = "running"
        self._is_stopping = False
        self._is_clearing = False
        self._ended = asyncio.Event()

    # ---------------------------------------------------------------- life

    async def start(self) -> tuple[str, int]:
        """Listen, once what the process before this one did not live to cancel is cancelled. Returns host and port.

        Raises OSError: an address is taken; SettingsInvalid: a bad certificate.
        """
        loop = asyncio.get_running_loop()
        await self._clear()
        self._servers = [await self._listen(self.settings.host, self.settings.port, None)]
        if self.settings.tls_certificate:
            host = self.settings.tls_host or self.settings.host
            self._servers.append(await self._listen(host, self.settings.tls_port, self._tls()))
            self.tls_address = self._servers[1].sockets[0].getsockname()[:2]
            log.info("listening with TLS host=%s port=%d", *self.tls_address)
        loop.add_reader(self._journal.fileno(), self._journal_woke)
        self._tasks = [asyncio.create_task(self._poll())]
        if self.settings.batch_interval_s:
            self._tasks.append(asyncio.create_task(self._cut_regularly()))
        host, port = self._servers[0].sockets[0].getsockname()[:2]
        log.info("listening host=%s port=%d ack_mode=%s", host, port, self.settings.ack_mode)
        return host, port

    async def _clear(self) -> None:
        """Carry out every waiting pull before the first connection: nobody may trade with an order that is to go.

        Where the journal or the event log takes no more, only cancels are taken until all is carried out: the poll
        goes on with it.
        """
        self._is_clearing = self._sequencer.cancel_only = bool(self._pulls)
        while self._pulls or self._sequencer.pending:
            moved = self._pulls.work()
            self.hub.settle()
            is_stuck = self._pulls and not (moved or self._sequencer.pending)
            if is_stuck or self._journal.status != "running":
                log.error("order entry begins with cancels alone: orders of lost sessions wait=%d", len(self._pulls))
                return
            await asyncio.sleep(_CLEAR_WAIT_S)
        self._take_orders_again()

    def _take_orders_again(self) -> None:
        """New orders are taken unless the journal is in trouble or a start's pulls are still to come."""
        self._is_clearing = self._is_clearing and bool(self._pulls)
        self._sequencer.cancel_only = self._is_clearing or self._told_status != "running"

    async def _listen(self, host: str, port: int, context: ssl.SSLContext | None) -> asyncio.Server:
        listening = await picows.ws_create_server(
            self._accept, host, port, ssl=context, backlog=self.settings.accepts_per_turn,
            websocket_handshake_timeout=self.settings.handshake_timeout_s, enable_auto_pong=False,
            ssl_handshake_timeout=None if context is None else self.settings.handshake_timeout_s,
            max_frame_size=self.settings.frame_bytes_max, read_buffer_init_size=8_192, logger_name=_quiet,
        )  # fmt: skip
        # A turn of the loop accepts as many as the backlog was when it began; the kernel may keep more of them waiting.
        for door in listening.sockets:
            with door.dup() as own:
                own.listen(self.settings.accept_backlog)
        return listening

    def _tls(self) -> ssl.SSLContext:
        """TLS 1.3 with the certificate of the settings. Raises SettingsInvalid if it cannot be used."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        try:
            context.load_cert_chain(self.settings.tls_certificate, self.settings.tls_key)
        except OSError as error:  # ssl.SSLError is one
            raise SettingsInvalid(f"gateway setting tls_certificate: {error}") from error
        return context

    async def wait_ended(self) -> None:
        """Until `stop` was called or a fault ended it. Raises the fault."""
        await self._ended.wait()
        if self.fault is not None:
            raise self.fault

    async def stop(self) -> None:
        """Take no more connections, end the sessions. What was submitted stays submitted."""
        self._is_stopping = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._servers:
            asyncio.get_running_loop().remove_reader(self._journal.fileno())
            for server in self._servers:
                server.close()
            if self.fault is None:
                self.hub.settle()
            self._say_goodbye()
            for listener in list(self._listeners):
                self._let_go(listener.link)
            if self.fault is None:
                while self._pulls.work():
                    self.hub.settle()
            await asyncio.sleep(0)
            for listener in list(self._listeners):
                listener.drop()
            for server in self._servers:
                await server.wait_closed()
            self._servers = []
        self._ended.set()

    # ---------------------------------------------------------------- told by listeners

    def opened(self, listener: OrderEntryListener) -> None:
        """Its handshake was good: from here on it takes a place. A bad one never comes here, nor to `closed`."""
        self._listeners.add(listener)
        if listener.link is not None:
            listener.link.session.peer = listener.link.peer
        loop = asyncio.get_running_loop()
        self.counters.sessions = len(self._listeners)
        self.counters.sessions_opened += 1
        evicted = self._unsigned.add(listener, "" if listener.link is None else network_of(listener.link.peer))
        if evicted is not None and evicted.link is not None:
            self.counters.refused_sessions += 1
            evicted.carry_out(evicted.link.session.end(1013, "too many connections sign in: connect again"))
        self._timers[listener] = loop.call_later(self.settings.sign_in_timeout_s, self._time_out, listener)

    def signed_in(self, listener: OrderEntryListener, signed: SignedIn) -> None:
        """Give the session the rights of its key, and greet it by name."""
        key, link = signed.key, listener.link
        assert link is not None, "only a living connection signs in"
        most = self.settings.sessions_per_key_max
        full = "too many sessions" if len(self._signed_in) >= self.settings.sessions_max else (
            f"the key has {most} sessions, its most" if self._of_key[key.key] >= most else ""
        )  # fmt: skip
        if full:
            self.counters.refused_sessions += 1
            listener.carry_out(link.session.end(1013, full))
            return
        self._disarm(listener)
        self._unsigned.discard(listener)
        self._of_key[key.key] += 1
        self._liveness[listener] = self._new_liveness(self.settings.ping_interval_s)
        indices = [self._names.account_index(name) for name in key.accounts]
        known = [index for index in indices if index is not None]
        trades = Scope.TRADE in key.scopes and Scope.OPERATOR not in key.scopes and len(known) == len(indices)
        cancels = Scope.CANCEL_ONLY in key.scopes and Scope.OPERATOR not in key.scopes and len(known) == len(indices)
        if Scope.OPERATOR not in key.scopes:
            link.guard = self._rights.guard(key, signed.cancels)
            link.session.allowance = link.guard.allowance
            if link.guard.allowance.requests_left(0) is not None:
                for index in known:
                    self.hub.allow(index, link.guard.allowance)
        else:
            link.session.allowance = Allowance("operator", 0, 0, 1)
        if key.restrictions.expires_at:
            self._expiring.add(listener)
        self.hub.subscribe(link, known, trades, trades or cancels)
        now = self._clock.now_ns()
        self._signed_in[link.session] = link, now
        self._key_uses.note(key.key, now)
        link.stages_seat = self.hub.stages.seat_of(key.key)
        body = {
            "type": "signed_in", "label": key.label, "accounts": key.accounts, "scopes": key.scopes.words(),
            "session": link.number, "cancel_on_disconnect": _cancels(link), "tier": link.session.allowance.tier,
            "sequence": link.told_since,
        }  # fmt: skip
        if self.hub.receipts is not None:
            body["receipt_key"] = self.hub.receipts.key
        if link.is_binary:
            body["account_indices"] = indices
        self.hub.send(link, wire.encode(_with_rid(signed.rid) | body))

    def resume(self, listener: OrderEntryListener, resume: Resume) -> None:
        """Tell it the past from the event log, a bounded piece in each turn of the loop."""
        link = listener.link
        assert link is not None, "only a living connection resumes"
        refusal: tuple[str, str, str] | None = None
        seats = self.settings.replays_per_account_max
        whose = _account_of(link)
        if link.is_ending:
            return
        if self._open_events is None:
            refusal = "unavailable", "op", "there is no event log to read from"
        elif resume.after > self._sequencer.released_sequence:
            refusal = "bad_value", "after", "a sequence that has been"
        elif len(self._replays) >= self.settings.replays_max:
            refusal = "busy", "op", "too many sessions are told of the past; try again"
        elif any(one.replay.connection is link for one in self._replays):
            refusal = "busy", "op", "this session is told of the past already"
        elif sum(_account_of(one.replay.connection) == whose for one in self._replays) >= seats:
            refusal = "busy", "op", f"{seats} sessions of this account are told of the past, its most; try again"
        else:
            try:
                replay = Replay(self.hub, link, self._open_events(), resume.after)
            except (OSError, ExchangeError) as error:
                log.error("the event log cannot be opened for a replay: %s", error)
                refusal = "busy", "op", "the event log cannot be read now; try again"
        if refusal is not None:
            code, field, rule = refusal
            self.hub.send(link, wire.error(code, rule, rid=resume.rid, field=field, rule=rule))
            return
        self._replays.append(_Telling(replay, resume.rid, self._new_liveness(self.settings.replay_stall_s / 2)))
        if len(self._replays) == 1:
            asyncio.get_running_loop().call_soon(self._replay_on)

    def closing(self, listener: OrderEntryListener) -> None:
        """The session has sent its close frame: give it a moment to arrive."""
        self._disarm(listener)
        self._timers[listener] = asyncio.get_running_loop().call_later(_CLOSE_GRACE_S, listener.drop)

    def closed(self, listener: OrderEntryListener, link: Connection | None) -> None:
        """It is gone: what it placed goes too, but for what was to outlive it."""
        self._disarm(listener)
        self._listeners.discard(listener)
        self._expiring.discard(listener)
        self._unsigned.discard(listener)
        self._liveness.pop(listener, None)
        self.counters.sessions = len(self._listeners)
        if link is None:
            return
        if self._signed_in.pop(link.session, None) is not None and link.session.key is not None:
            key = link.session.key.key
            if self._keys.find(key) is not None:  # of one that was revoked nobody wants to know
                self._key_uses.note(key, self._clock.now_ns())
            self._of_key[key] -= 1
            if not self._of_key[key]:
                del self._of_key[key]
        self._followers.pop(link.session, None)
        self._let_go(link)
        if self._pulls:
            asyncio.get_running_loop().call_soon(self._run, self._pull)

    def _let_go(self, link: Connection | None) -> None:
        """Have the orders cancelled that end with this connection. Once."""
        if link is not None and link.guard is not None and link.session.key is not None:
            if link.guard.has_placed:
                self._pulls.add(self._rights.accounts_of(link.session.key), [link.guard.stamp])
            link.guard = None

    # ---------------------------------------------------------------- what Answers asks

    def facts_of(self, session: Session) -> dict[str, Any]:
        """Session number, address, age and what is left of one that has signed in."""
        now = self._clock.now_ns()
        link, since = self._signed_in[session]
        guard = link.guard
        facts = {
            "session": link.number, "address": session.peer, "signed_in_at": since,
            "cancel_on_disconnect": _cancels(link),
            "rate_left": session.allowance.requests_left(now), "messages_left": session.allowance.messages_left(now),
            "protection_tripped": None if guard is None or guard.protection is None else guard.protection.is_tripped,
        }  # fmt: skip
        return {name: value for name, value in facts.items() if value is not None}

    def living(self) -> list[Session]:
        """The sessions that have signed in."""
        return list(self._signed_in)

    def end_of_key(self, key: ApiKey) -> None:
        """A key was revoked, stolen perhaps: end its sessions and cancel what they placed, what outlives them too."""
        for listener in list(self._listeners):
            link = listener.link
            if link is not None and link.session.key is not None and link.session.key.key == key.key:
                listener.carry_out(link.session.end(1008, "its key was revoked"))
                self._let_go(link)
        self._pulls.add(self._rights.accounts_of(key), [key_stamp(key.key)])
        self._rights.forget(key.key)
        self._key_uses.forget(key.key)
        asyncio.get_running_loop().call_soon(self._run, self._pull)

    def tell(self, body: dict[str, Any]) -> int:
        """Send it to every session that has signed in; how many these are."""
        payload = wire.encode(body)
        for link, _ in self._signed_in.values():
            self.hub.send(link, payload)
        return len(self._signed_in)

    def key_uses(self, taken_ns: int | None) -> dict[str, int]:
        """See `gateway.key_uses`."""
        return self._key_uses.tell(taken_ns)

    def reset_protection(self, key: ApiKey) -> bool:
        """Take orders of the key again. False: its protection had not tripped."""
        return self._rights.reset_protection(key, self._clock.now_ns())

    def follow_latency(self, session: Session, interval_ms: int) -> None:
        """Tell it `latency` so often; 0: no more."""
        if interval_ms:
            self._followers[session] = interval_ms * 1_000_000, self._clock.now_ns() + interval_ms * 1_000_000
        else:
            self._followers.pop(session, None)

    # ---------------------------------------------------------------- inside

    def _accept(self, request: picows.WSUpgradeRequest) -> Any:
        if request.path.split(b"?")[0] not in _PATHS:
            return None
        reason = (
            b"stopping" if self._is_stopping
            else b"journal_failed" if self._told_status == "failed"
            else b"too_many_sessions" if len(self._signed_in) >= self.settings.sessions_max
            else None
        )  # fmt: skip
        if reason is not None:
            self.counters.refused_sessions += 1
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

    def _collar_rule(self, market: int, reference: int, ppm: int) -> str:
        text = self._directory.markets[market].price_text(reference)
        return f"abs(price - {text}) * 10^6 <= {text} * {ppm}"

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
        while status == "running" and self._pulls.work():  # what waited for the disk goes before new orders
            self.hub.settle()
        self._is_clearing = self._is_clearing or bool(self._pulls)
        self._take_orders_again()
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
        self._pulls.work()
        if self._is_clearing:
            self._take_orders_again()
        self._end_expired()
        self._end_silent()
        self._tell_latency()
        self.hub.settle()
        self._look_at_journal()

    def _tell_latency(self) -> None:
        now = self._clock.now_ns()
        venue: dict[str, Any] | None = None  # summed over all keys, so once for all who are told in this turn
        for session, (interval, due) in list(self._followers.items()):
            if now >= due and session.key is not None:
                self._followers[session] = interval, now + interval
                told = self.answers.latency(session.key, venue)
                venue = told["venue"]
                self.hub.send(self._signed_in[session][0], wire.encode(told))

    def _end_expired(self) -> None:
        now = self._clock.now_ns()
        for listener in list(self._expiring):
            session = None if listener.link is None else listener.link.session
            if session is not None and session.key is not None and now >= session.key.restrictions.expires_at:
                self._expiring.discard(listener)
                listener.carry_out(session.end(1008, "its key has expired"))

    def _end_silent(self) -> None:
        """Ask those who were silent long whether they are there; end who does not answer, and cancel its orders now."""
        now = _monotonic_ns()
        if now < self._look_due:
            return
        self._look_due = now + round(self.settings.ping_interval_s * 1e9 / LOOKS)
        for listener, liveness in list(self._liveness.items()):
            link = listener.link
            if link is None or link.is_ending:
                continue
            verdict = liveness.look(now, listener.was_heard(), link.unsent)
            if verdict is Verdict.PING:
                listener.ping()
            elif verdict is Verdict.END:
                self.counters.closed_silent += 1
                log.info("event=silent_session session=%d address=%s", link.number, link.session.peer)
                listener.carry_out(link.session.end(1008, f"silent for {2 * self.settings.ping_interval_s:g} s"))
                self._let_go(link)
                asyncio.get_running_loop().call_soon(self._run, self._pull)

    @staticmethod
    def _new_liveness(interval_s: float) -> Liveness:
        return Liveness(round(interval_s * 1e9), _monotonic_ns())

    def _pull(self) -> None:
        if self._pulls.work():
            self.hub.settle()

    def _replay_on(self) -> None:
        """One bounded step of one replay, then the next in the following turn."""
        self._run(self._replay_one)
        if self._replays and all(one.replay.is_blocked for one in self._replays):
            asyncio.get_running_loop().call_later(_REPLAY_WAIT_S, self._replay_on)
        elif self._replays:
            asyncio.get_running_loop().call_soon(self._replay_on)

    def _replay_one(self) -> None:
        now = _monotonic_ns()
        for _ in range(len(self._replays)):
            one = self._replays.popleft()
            link = one.replay.connection
            if not link.is_ending and one.replay.is_blocked:
                if one.liveness.look(now, False, link.unsent) is Verdict.END:
                    self.counters.closed_slow += 1
                    self._end_session(link.session, 1008, "slow_reader: it takes nothing of what it asked for")
                else:
                    self._replays.append(one)  # it does not read: the others go on
                continue
            one.liveness.look(now, True, 0)
            if not self._step(one):
                self._replays.append(one)
            break
        self.hub.settle()

    def _step(self, one: _Telling) -> bool:
        """True: it is over. What fails here has changed nothing but what that session has been told: it alone ends."""
        replay, link = one.replay, one.replay.connection
        try:
            is_over = replay.step(self.settings.replay_slots)
        except (OSError, ExchangeError) as error:
            log.error("the event log cannot be read for a replay: %s", error)
            self._end_session(link.session, 1013, "the event log cannot be read now: resume again")
            return True
        except Exception:
            log.exception("a replay behind %d failed: its session ends", replay.after)
            self._end_session(link.session, 1011, "internal")
            return True
        if is_over and not link.is_ending:
            sequence = self._sequencer.released_sequence
            body = {"type": "resumed", "after": replay.after, "sequence": sequence, "events": replay.told}
            self.hub.send(link, wire.encode(_with_rid(one.rid) | body))
        return bool(is_over)

    def _say_goodbye(self) -> None:
        """The last thing each session hears is how far it was told everything: it resumes from there."""
        sequence = self._sequencer.released_sequence
        for listener in list(self._listeners):
            link = listener.link
            if link is None:
                continue
            if link.session.key is not None:
                told = link.told_until(sequence)
                message = "the exchange is stopping: resume after this sequence"
                self.hub.send(link, wire.encode({"type": "shutdown", "sequence": told, "message": message}))
            listener.carry_out(link.session.end(1001, "the exchange is stopping"))

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

    def _look(self, ask: Ask, session: Session) -> bytes | None:
        """What of an answer must be read when it is asked. An answer already only if it cannot be given."""
        return self._guarded(ask, session, lambda: self.answers.look(ask))

    def _answer(self, ask: Ask, session: Session) -> bytes:
        """The frame that answers a question. A broken rule gives an error; a fault of ours ends that session alone."""
        return self._guarded(ask, session, lambda: self.answers.body(ask, session)) or b"{}"

    def _guarded(self, ask: Ask, session: Session, step: Callable[[], dict[str, Any] | None]) -> bytes | None:
        try:
            body = step()
            return None if body is None else wire.encode(_with_rid(ask.rid) | body)
        except KeyRefused as error:
            return wire.error(error.code, str(error), rid=ask.rid, field=error.field, rule=error.rule)
        except OSError as error:
            log.error("key registry errno=%s", error.errno)
            return wire.error("registry_failed", f"the key registry could not be written: {error}", rid=ask.rid)
        except Exception:
            log.exception("the question %s could not be answered: its session ends", ask.what)
            asyncio.get_running_loop().call_soon(self._end_session, session, 1011, "internal")
            return wire.error("internal", "a fault of the exchange: this session ends", rid=ask.rid)

    def _end_session(self, session: Session, code: int, reason: str) -> None:
        for listener in list(self._listeners):
            if listener.link is not None and listener.link.session is session:
                listener.carry_out(session.end(code, reason))

    def status(self) -> dict[str, Any]:
        """Where the exchange stands, for the status file of the process; with histograms of its stages."""
        stages = self.hub.stages
        return self.answers.status() | {"stages": stages.of_venue(), "key_stages": stages.by_key()}

    # ---------------------------------------------------------------- rights

    def _trip(self, key: ApiKey, protection: Protection) -> None:
        """Pull every order of the key: those of its living connections, and those that outlive them."""
        try:
            self._keys.trip(key.key, protection.reason, self._clock.now_ns())
        except OSError as error:
            log.error("a trip is not on disk, a restart will not know of it label=%s errno=%s", key.label, error.errno)
        stamps = [key_stamp(key.key)]
        for session, (link, _) in self._signed_in.items():
            if session.key == key and link.guard is not None:
                stamps.append(link.guard.stamp)
                body = {"type": "protection", "reason": protection.reason, "message": "the key's orders are cancelled"}
                self.hub.send(link, wire.encode(body))
        log.warning("protection tripped label=%s reason=%s", key.label, protection.reason)
        self._pulls.add(self._rights.accounts_of(key), stamps)
        asyncio.get_running_loop().call_soon(self._run, self._pull)

    def _had_budget(self, order_id: int) -> bool:
        """Whether an order of the past was bounded by its budget: its acceptance is the event of its own sequence."""
        assert self._open_events is not None
        try:
            self._past = self._past or self._open_events()
            self._past.seek(order_id - 1)
            return had_budget(self._past.read(1))
        except (OSError, ExchangeError) as error:
            log.error("the event log cannot be read for order %d: %s", order_id, error)
            return False

    def _known_rejections(self) -> Rejections:
        """What the event log of the recent past tells of refused places."""
        head = self._sequencer.released_sequence
        settings = self.settings
        since = max(0, head - settings.rejections_lookback) if self._open_events is not None else head
        rejections = Rejections(since, settings.rejections_per_account, settings.rejections_max)
        if self._open_events is not None:
            source = self._open_events()
            source.seek(since)
            while len(events := source.read()):
                for account, client_id, sequence, reason in rejections_in(events):
                    rejections.learn(account, client_id, sequence, reason)
        return rejections


def _monotonic_ns() -> int:
    """The loop's clock: liveness is measured by it, never by the wall clock, and a simulated loop brings its own."""
    return round(asyncio.get_running_loop().time() * 1e9)


def _account_of(link: Connection) -> str:
    """Whose bounds a session counts for: its key's first account, or the key."""
    key = link.session.key
    return "" if key is None else key.accounts[0] if key.accounts else key.key


def _cancels(link: Connection) -> bool:
    return link.guard is not None and link.guard.stamp != 0


def _with_rid(rid: bytes) -> dict[str, Any]:
    if not rid:
        return {}
    [value] = wire.parse(b"[%s]" % rid)
    return {"rid": value}


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
