"""One client's session, without I/O: frames in, outputs out.

Theory of operation. The server greets (`hello` with a nonce), the client signs in by signing environment, epoch and
nonce, and from then on sends commands. A nonce is spent by the first attempt, good or bad; after a bad one the server
greets again, until the failures run out. A protocol fault, a time-out or a lost connection ends the session.

    NEW ──connect──▶ GREETED ──signed_in──▶ OPEN
                      │  ▲ └─refused─(greets again)        any ──fault/close/time-out──▶ CLOSING ──lost──▶ CLOSED
                      └──┘

All transitions stand in TRANSITIONS. An event that the state does not have raises IllegalTransition and changes
nothing. What the caller must do with each output stands with its class. The caller also tells the time and the nonce,
so a session is the same every time it is fed the same.

A message may come in fragments, which are put together up to the bound of a frame. Every message but those that only
take risk away takes one of the session's messages; when there are none left, what is in it is refused by name, cancels
still pass, and a client that goes on all the same is closed.

Invariants: a frame that cannot be understood produces no Submit, and neither does anything that comes before
`sign_in` or after a Close; each command of an array is answered for itself; a failing one does not touch the others.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any, Protocol

from engine.messages import edge
from engine.messages.codes import CommandKind
from gateway.authority import CANCELS, Forbidden, authorize
from gateway.guard import Allowance
from gateway.keys import ApiKey, KeyLookup, Scope, sign_in_bytes, verify_sign_in
from gateway.quotes import QUOTE_ID_RULE, QuoteRefused, is_quote_id, poison_id
from gateway.wire import json as wire

__all__ = [
    "TRANSITIONS",
    "Ask",
    "Close",
    "CommandEncoder",
    "CommandRefused",
    "Event",
    "IllegalTransition",
    "Output",
    "Records",
    "Resume",
    "Send",
    "Session",
    "SessionTerms",
    "SignedIn",
    "State",
    "Submit",
]

PROTOCOL_ERROR, UNSUPPORTED, BAD_UTF8, POLICY, TOO_BIG, INTERNAL, TRY_LATER = 1002, 1003, 1007, 1008, 1009, 1011, 1013
TEXT, BINARY, CONTINUATION = 1, 2, 0
_PARTS_MAX = 1_024
_SHELL_ONLY = {"tick", "cut", "malformed"}
_RULEBOOK_OPS = {kind.word for kind in CommandKind} - _SHELL_ONLY
_READS = {"open_orders", "balances", "resolve"}
_OWN_ASKS = {"whoami", "sessions", "reset_protection", "directory", "latency"}
_OPERATOR_ASKS = {"status", "describe", "register_key", "revoke_key", "key_uses", "settled"}
_SESSION_FIELD = slice(112, 120)
_OUTLIVES = b"\xff" * 8
_CLIENT_ID = re.compile(r"[A-Za-z0-9_.:-]{1,32}", re.ASCII)
_NOTHING = "not journaled, not executed"
_REFUSED = {
    "busy": ("busy", None, None, "the exchange is busy; cancels still pass"),
    "closed": ("cancel_only", "op", "only cancels are taken now", "only cancels are taken now"),
    "failed": ("journal_failed", None, None, "the journal has failed"),
    "rate_limited": (
        "rate_limited", "op", "so many requests in a while as the key's tier has; cancels pass", "no request is left"
    ),
    "market_not_permitted": (
        "forbidden", "market", "one of the markets of the key: whoami lists them",
        "the key does not trade in this market",
    ),
    "collar": ("collar", "price", "within the key's collar", "the price lies outside the key's collar"),
    "unpriced": (
        "collar", "price", "a key with a collar places orders with a limit price alone",
        "an order without a limit price could trade outside the key's collar",
    ),
    "protection": (
        "protection", "op", "no place or replace between a trip and reset_protection", "the protection has tripped"
    ),
    "session_not_permitted": (
        "forbidden", "session", "none: orders of a key under protection carry its own",
        "orders of a key under protection are in no session of their own",
    ),
    "in_vain": (
        "rate_limited", "op", "so many cancels that find nothing as the key's tier has messages",
        "too many cancels that found nothing; a cancel of an open order passes",
    ),
    "expired_key": ("expired_key", None, "a key that has not expired", "the key has expired"),
}  # fmt: skip


class State(Enum):
    NEW = auto()
    GREETED = auto()
    OPEN = auto()
    CLOSING = auto()
    CLOSED = auto()


class Event(Enum):
    CONNECT = auto()
    SIGNED_IN = auto()
    REFUSED = auto()
    COMMAND = auto()
    END = auto()
    LOST = auto()


TRANSITIONS: dict[tuple[State, Event], State] = {
    (State.NEW, Event.CONNECT): State.GREETED,
    (State.GREETED, Event.SIGNED_IN): State.OPEN,
    (State.GREETED, Event.REFUSED): State.GREETED,
    (State.GREETED, Event.END): State.CLOSING,
    (State.OPEN, Event.COMMAND): State.OPEN,
    (State.OPEN, Event.END): State.CLOSING,
    (State.CLOSING, Event.END): State.CLOSING,
    (State.NEW, Event.LOST): State.CLOSED,
    (State.GREETED, Event.LOST): State.CLOSED,
    (State.OPEN, Event.LOST): State.CLOSED,
    (State.CLOSING, Event.LOST): State.CLOSED,
}


class IllegalTransition(Exception):
    """The caller told a session something that its state does not have."""


class CommandRefused(Exception):
    """The encoder's no: `code` a word of the rulebook's reasons or `malformed`, `field` the field, `rule` the rule."""

    def __init__(self, code: str, field: str | None, rule: str) -> None:
        super().__init__(rule)
        self.code = code
        self.field = field
        self.rule = rule


class CommandEncoder(Protocol):
    """Turns a command of the rulebook into its record."""

    def __call__(self, command: dict[str, Any]) -> bytes:
        """The slots of the record. Raises CommandRefused."""


@dataclass(frozen=True, slots=True)
class Send:
    """Send this as one text frame."""

    payload: bytes


@dataclass(frozen=True, slots=True)
class Close:
    """Send a close frame, then end the connection. Nothing else follows."""

    code: int
    reason: str


@dataclass(frozen=True, slots=True)
class Submit:
    """Give `record` to the sequencer; if it is not taken, send `Session.not_taken`.

    `wants_receipt`: sign one when it is told. `is_free`: a request was taken for it already. `side`: of a quote.
    """

    record: bytes
    rid: bytes
    is_cancel: bool
    wants_receipt: bool = False
    is_free: bool = False
    side: str = ""


@dataclass(frozen=True, slots=True)
class Ask:
    """Answer a question about the exchange: `what` is its op. Not before everything submitted earlier may be told."""

    what: str
    rid: bytes
    fields: dict[str, Any]


@dataclass(frozen=True, slots=True)
class SignedIn:
    """The session is `key`'s from now on: private events of its accounts are to be sent to it. Answer `signed_in`.

    `cancels`: whether its orders are to be cancelled when the connection is lost.
    """

    key: ApiKey
    rid: bytes
    cancels: bool


@dataclass(frozen=True, slots=True)
class Resume:
    """Tell the private events behind the sequence `after` before any new one, then `resumed` with `rid`."""

    after: int
    rid: bytes


@dataclass(frozen=True, slots=True)
class Records:
    """Take the records of a binary message that came in fragments."""

    payload: bytes


Output = Send | Close | Submit | Ask | SignedIn | Resume | Records


@dataclass(frozen=True, slots=True)
class SessionTerms:
    """What all sessions of one server share. `make_nonce` gives 32 fresh random bytes as hex."""

    environment: str
    epoch: int
    keys: KeyLookup
    encode: CommandEncoder
    make_nonce: Callable[[], str]
    now_ns: Callable[[], int]
    is_house: Callable[[str], bool]
    """Whether an account of this name may owe without bound: nobody but the operator moves its money."""
    make_allowance: Callable[[], Allowance] = lambda: Allowance("plain", 100, 1_000, 60_000_000_000)
    """What a session may send before it has signed in."""
    plan_quote: Callable[[dict[str, Any]], list[tuple[str, dict[str, Any]]]] = lambda command: []
    """The commands of a quote, by side. Raises QuoteRefused."""
    signs_receipts: bool = False
    failures_max: int = 3
    commands_per_frame_max: int = 1_000
    message_bytes_max: int = 65_536
    unsigned_bytes_max: int = 4_096
    """Of a message before sign-in: whoever is nobody yet is not to make much work."""
    unsigned_commands_max: int = 16
    refused_messages_max: int = 1_000
    """Messages in a row beyond the limit; one more ends the session."""


class Session:
    """See the module's theory of operation.


    On a binary session orders come as records, which never reach this class; text frames are the same on both.
    """

    __slots__ = (
        "_failures", "_is_of_records", "_nonce", "_parts", "_refused", "_terms", "allowance", "is_binary", "key",
        "peer", "state",
    )  # fmt: skip

    def __init__(self, terms: SessionTerms, *, is_binary: bool = False) -> None:
        self.is_binary = is_binary
        self.state = State.NEW
        self.key: ApiKey | None = None
        self._terms = terms
        self._nonce: str | None = None
        self._failures = 0
        self._refused = 0
        self._parts: list[bytes] = []
        self._is_of_records = False
        self.allowance = terms.make_allowance()
        """What it sends is taken from this; the caller sets the key's after SignedIn."""
        self.peer = ""
        """The address of the client; the caller sets it before the first frame."""

    @property
    def unsigned_bytes_max(self) -> int:
        """Of a message before sign-in; a longer one ends the session, so nobody need keep it."""
        return self._terms.unsigned_bytes_max

    @property
    def in_fragments(self) -> bool:
        """Whether a message has begun whose last frame has not come: the next data frame is for `receive`."""
        return bool(self._parts)

    def connect(self) -> list[Output]:
        """The handshake is done."""
        self._move(Event.CONNECT)
        return [self._hello()]

    def receive(
        self, frame_type: int, payload: bytes, *, is_final: bool = True, has_reserved_bits: bool = False
    ) -> Iterator[Output]:
        """A data frame: `frame_type` is its opcode, `payload` unmasked.

        The caller carries out each output before it asks for the next: a command of an array is encoded when the ones
        before it have been submitted, so that a replace finds the order that its own frame placed.
        """
        if self._has_ended():
            return
        if has_reserved_bits:
            yield from self.end(PROTOCOL_ERROR, "reserved bits are set, and no extension was agreed")
            return
        if (frame_type == CONTINUATION) != self.in_fragments:
            fault = "a new message inside a fragmented one" if self._parts else "a continuation of nothing"
            yield from self.end(PROTOCOL_ERROR, fault)
            return
        if frame_type == BINARY and not self.is_binary:
            yield from self.end(UNSUPPORTED, "binary frame on a JSON session")
            return
        is_known = self.state is State.OPEN
        bytes_max = self._terms.message_bytes_max if is_known else self._terms.unsigned_bytes_max
        if len(payload) > bytes_max:
            yield from self.end(TOO_BIG, "the message is too big" if is_known else "too big before sign-in")
            return
        if frame_type != CONTINUATION:
            self._is_of_records = frame_type == BINARY
        if not is_final or self._parts:
            self._parts.append(payload)
            if sum(map(len, self._parts)) > bytes_max or len(self._parts) > _PARTS_MAX:
                yield from self.end(TOO_BIG, "the message is too big")
                return
            if not is_final:
                return
            payload = b"".join(self._parts)
            self._parts.clear()
        if self._is_of_records:
            yield Records(payload)
            return
        has_fraction = False
        try:
            value = wire.parse(payload)
        except wire.HasFraction as error:
            value, has_fraction = error.value, True
        except wire.BadText as error:
            yield from self.end(BAD_UTF8, str(error))
            return
        except wire.BadJson as error:
            if self.take_message(self._terms.now_ns()) or not self.is_flooding:
                yield Send(wire.error("bad_json", str(error)))
            else:
                yield from self.flooded()
            return
        items = [value] if isinstance(value, dict) else value
        is_exempt = self.state is State.OPEN and bool(items) and all(map(_only_removes, items))
        may_speak = is_exempt or self.take_message(self._terms.now_ns())
        if self.is_flooding:
            yield from self.flooded()
            return
        if isinstance(value, dict):
            yield from self._command(value, may_speak, has_fraction)
            return
        if not value:
            yield Send(wire.error("bad_json", "an empty array: there is nothing to answer", rule="at least one object"))
            return
        most = self._terms.commands_per_frame_max if is_known else self._terms.unsigned_commands_max
        if len(value) > most:
            rule = f"at most {most} commands a frame" if is_known else f"at most {most} before sign-in"
            yield Send(wire.error("too_many_commands", f"{len(value)} commands in one frame", rule=rule))
            return
        for number, item in enumerate(value):
            if isinstance(item, dict):
                yield from self._command(item, may_speak, has_fraction)
            else:
                message = f"item {number} of the array, from 0, is no object"
                yield Send(wire.error("bad_json", message, field=f"[{number}]", rule="an object"))
            if self._has_ended():
                return

    def take_message(self, now: int) -> bool:
        """Take one message from the allowance at `now` (ns). False: none is left."""
        may_speak = self.allowance.take_message(now)
        self.count_message(may_speak)
        return may_speak

    def count_message(self, may_speak: bool) -> None:
        """One message more that was within the limit, or was not."""
        self._refused = 0 if may_speak else self._refused + 1

    @property
    def is_flooding(self) -> bool:
        """Whether more messages in a row were over the limit than a session may send."""
        return self._refused > self._terms.refused_messages_max

    def flooded(self) -> list[Output]:
        """End it for that."""
        return self.end(POLICY, "too many messages")

    def time_out(self) -> list[Output]:
        """The time for signing in is over."""
        if self.state is not State.GREETED:
            return []
        return [Send(wire.error("sign_in_timeout", "no sign-in in time")), *self.end(POLICY, "sign_in_timeout")]

    def end(self, code: int, reason: str) -> list[Output]:
        """Close for `reason`, which the close frame carries (at most 123 bytes)."""
        if self._has_ended():
            return []
        self._move(Event.END)
        return [Close(code, reason[:120])]

    def broken(self) -> list[Output]:
        """A frame of this session could not be handled, by a fault of ours: say so, and end this session alone."""
        answer = Send(wire.error("internal", "a fault of the exchange: this session ends"))
        return [answer, *self.end(INTERNAL, "internal")]

    def lost(self) -> None:
        """The connection is gone."""
        self._move(Event.LOST)

    @staticmethod
    def not_taken(
        why: str, rid: bytes, side: str = "", retry_after_ns: int | None = None, rule: str | None = None
    ) -> bytes:
        """The error for a Submit that the sequencer did not take: a definite no, nothing was executed.

        `side`: of a quote. `retry_after_ns`: when the limit lets the next one pass. `rule`: with its numbers.
        """
        code, field, usual, message = _REFUSED[why]
        if side:
            field = f"{side}.{field}" if field == "price" else side
        return wire.error(
            code, f"{message}: {_NOTHING}", rid=rid, field=field, rule=rule or usual, retry_after_ns=retry_after_ns
        )

    @staticmethod
    def not_answered(why: str, rid: bytes) -> bytes:
        """The error for an Ask that gets no answer: `busy` or `failed`."""
        messages = {
            "busy": "too many questions wait for their answer already",
            "failed": "the journal has failed: what this would tell may be lost",
        }
        return wire.error({"failed": "journal_failed"}.get(why, why), messages[why], rid=rid)

    # ---------------------------------------------------------------- inside

    def _has_ended(self) -> bool:
        return self.state in (State.CLOSING, State.CLOSED)

    def _move(self, event: Event) -> None:
        target = TRANSITIONS.get((self.state, event))
        if target is None:
            raise IllegalTransition(f"{event.name} in state {self.state.name}")
        self.state = target

    def _hello(self) -> Send:
        self._nonce = self._terms.make_nonce()
        body = {
            "type": "hello", "environment": self._terms.environment, "epoch": self._terms.epoch, "nonce": self._nonce,
            "protocol": edge.PROTOCOL if self.is_binary else wire.PROTOCOL, "server_time": self._terms.now_ns(),
        }  # fmt: skip
        if self.is_binary:
            body |= {"schema": edge.SCHEMA_ID, "version": edge.VERSION}
        return Send(wire.encode(body))

    def _command(self, command: dict[str, Any], may_speak: bool, has_fraction: bool) -> list[Output]:
        raw = command.pop("rid", None)
        rid = b"" if raw is None else wire.rid_text(raw)
        if rid is None:
            rule = "a whole number from 0 to 2^63-1, or 1-32 plain characters"
            return [Send(wire.error("bad_rid", "the request id breaks its rule", field="rid", rule=rule))]
        op = command.get("op")
        if not isinstance(op, str):
            return [Send(wire.error("malformed", "a command needs an op", rid=rid, field="op", rule="text"))]
        if not may_speak and op not in CANCELS:
            rule, message = "so many messages in a while; cancels pass", "no message is left: this was not executed"
            wait = self.allowance.message_wait_ns(self._terms.now_ns())
            return [Send(wire.error("rate_limited", message, rid=rid, field="op", rule=rule, retry_after_ns=wait))]
        field = wire.fraction_in(command) if has_fraction else None
        if field is not None:
            rule = "a whole number, or for prices, sizes and amounts a decimal as text"
            return [Send(wire.error("malformed", f"{op[:32]}: a number is not whole", rid=rid, field=field, rule=rule))]
        if op == "sign_in":
            return self._sign_in(command, rid)
        if op == "ping":
            return [Send(wire.encode({"type": "pong"}) if not rid else b'{"rid":%s,"type":"pong"}' % rid)]
        if self.state is not State.OPEN or self.key is None:
            return [Send(wire.error("not_signed_in", "sign in first", rid=rid, field="op"))]
        self._move(Event.COMMAND)
        if op in _READS or op in _OWN_ASKS or op in _OPERATOR_ASKS:
            return self._ask(command, rid, self.key)
        if op == "resume":
            return self._resume(command.get("after"), "after", rid)
        if op == "quote":
            return self._quote(command, rid, self.key)
        if op in _SHELL_ONLY:
            return [Send(wire.error("forbidden", f"{op} is written by the exchange alone", rid=rid, field="op"))]
        if op not in _RULEBOOK_OPS:
            return [Send(wire.error("unknown_op", f"no op is called {op[:32]!r}", rid=rid, field="op"))]
        return self._submit(command, op, rid, self.key)

    def _submit(self, command: dict[str, Any], op: str, rid: bytes, key: ApiKey) -> list[Output]:
        wants_receipt, outlives = command.pop("receipt", None), None
        if wants_receipt is True and not self._terms.signs_receipts:
            rule = "this exchange signs no receipts"
            return [Send(wire.error("unavailable", f"{op}: {rule}", rid=rid, field="receipt", rule=rule))]
        if op == "place":
            outlives = command.pop("cancel_on_disconnect", None)
        if op == "poison" and command.get("quote_id") is not None:
            quote_id = command.pop("quote_id")
            if command.get("client_id") is not None or not is_quote_id(quote_id):
                rule = f"{QUOTE_ID_RULE}, and no client_id"
                return [Send(wire.error("malformed", f"{op}: quote_id", rid=rid, field="quote_id", rule=rule))]
            command["client_id"] = poison_id(quote_id)
        for field, value in (("receipt", wants_receipt), ("cancel_on_disconnect", outlives)):
            if value is not None and not isinstance(value, bool):
                return [Send(wire.error("malformed", f"{op}: {field}", rid=rid, field=field, rule="true or false"))]
        try:
            record = self._terms.encode(authorize(command, key, self._terms.is_house))
        except Forbidden as error:
            return [Send(wire.error("forbidden", str(error), rid=rid, field=error.field, rule=error.rule))]
        except CommandRefused as error:
            return [Send(wire.error(error.code, f"{op}: {error}", rid=rid, field=error.field, rule=error.rule))]
        if outlives is False:
            if command.get("session") is not None:
                rule = "an order in a named session does not end with the connection"
                field = "cancel_on_disconnect"
                return [Send(wire.error("malformed", f"{op}: {field}", rid=rid, field=field, rule=rule))]
            record = record[: _SESSION_FIELD.start] + _OUTLIVES + record[_SESSION_FIELD.stop :]
        return [Submit(record, rid, op in CANCELS, bool(wants_receipt))]

    def _quote(self, command: dict[str, Any], rid: bytes, key: ApiKey) -> list[Output]:
        """Both sides are understood before either is submitted. One request for the two."""
        if command.get("account") is None and key.accounts:
            command["account"] = key.accounts[0]
        if not isinstance(command.get("account"), str):
            return [Send(wire.error("malformed", "quote: account", rid=rid, field="account", rule="a name"))]
        wants_receipt = command.pop("receipt", None)
        if wants_receipt is True and not self._terms.signs_receipts:
            rule = "this exchange signs no receipts"
            return [Send(wire.error("unavailable", f"quote: {rule}", rid=rid, field="receipt", rule=rule))]
        if wants_receipt is not None and not isinstance(wants_receipt, bool):
            return [Send(wire.error("malformed", "quote: receipt", rid=rid, field="receipt", rule="true or false"))]
        outputs: list[Output] = []
        side, part = "", dict[str, Any]()
        told: dict[str, Any] = {"account": command["account"], "quote_id": command.get("quote_id")}
        is_free = False
        try:
            # Who may not trade learns nothing of what stands, and moves nothing.
            authorize({"op": "place", "account": command["account"]}, key, self._terms.is_house)
            for side, part in self._terms.plan_quote(command):
                record = self._terms.encode(authorize(part, key, self._terms.is_house))
                outputs.append(Submit(record, b"", part["op"] in CANCELS, bool(wants_receipt), is_free, side))
                told[side] = {"client_id": part["client_id"], "op": part["op"]}
                is_free |= part["op"] not in CANCELS
        except Forbidden as error:
            return [Send(wire.error("forbidden", str(error), rid=rid, field=error.field, rule=error.rule))]
        except QuoteRefused as error:
            return [Send(wire.error(error.code, f"quote: {error}", rid=rid, field=error.field, rule=error.rule))]
        except CommandRefused as error:
            field = f"{side}.{error.field}" if error.field in ("price", "size") else error.field
            return [Send(wire.error(error.code, f"quote: {side}: {error}", rid=rid, field=field, rule=error.rule))]
        return [*outputs, Ask("quoted", rid, told)]

    def _resume(self, after: object, field: str, rid: bytes) -> list[Output]:
        if not isinstance(after, int) or isinstance(after, bool) or not 0 <= after < 2**63:
            rule = "the last sequence seen, 0 for all there ever was"
            return [Send(wire.error("malformed", "resume needs a sequence", rid=rid, field=field, rule=rule))]
        return [Resume(after, rid)]

    def _ask(self, command: dict[str, Any], rid: bytes, key: ApiKey) -> list[Output]:
        op = command.pop("op")
        if op in _OPERATOR_ASKS and Scope.OPERATOR not in key.scopes:
            return [Send(_forbidden(op, "operator", rid))]
        if op == "reset_protection" and not key.scopes & Scope.TRADE:
            return [Send(_forbidden(op, "trade", rid))]
        if op not in _READS:
            return [Ask(op, rid, command)]
        if not key.scopes & (Scope.READ | Scope.TRADE | Scope.OPERATOR) and not (
            op == "resolve" and Scope.CANCEL_ONLY in key.scopes
        ):
            return [Send(_forbidden(op, "read", rid))]
        account = command.get("account") or (key.accounts[0] if key.accounts else None)
        if not isinstance(account, str):
            return [Send(wire.error("malformed", f"{op} needs an account", rid=rid, field="account", rule="a name"))]
        if account not in key.accounts and Scope.OPERATOR not in key.scopes:
            rule = "a key reads its own accounts alone"
            return [Send(wire.error("forbidden", rule, rid=rid, field="account", rule=rule))]
        if op != "resolve":
            return [Ask(op, rid, {"account": account})]
        client_id, quote_id = command.get("client_id"), command.get("quote_id")
        if quote_id is not None:
            if client_id is not None or not is_quote_id(quote_id):
                rule = f"{QUOTE_ID_RULE}, and no client_id"
                return [Send(wire.error("malformed", "resolve: quote_id", rid=rid, field="quote_id", rule=rule))]
            return [Ask("resolve_quote", rid, {"account": account, "quote_id": quote_id})]
        if not isinstance(client_id, str) or not _CLIENT_ID.fullmatch(client_id):
            rule = "1-32 of A-Z a-z 0-9 _ - . :"
            return [Send(wire.error("malformed", "resolve: client_id", rid=rid, field="client_id", rule=rule))]
        return [Ask(op, rid, {"account": account, "client_id": client_id})]

    def _sign_in(self, command: dict[str, Any], rid: bytes) -> list[Output]:
        if self.state is State.OPEN:
            return [Send(wire.error("already_signed_in", "this session is signed in", rid=rid, field="op"))]
        for field, size in (("key", 64), ("signature", 128)):
            value = command.get(field)
            if not isinstance(value, str) or len(value) != size:
                rule = f"{size} hex digits"
                return self._refuse(wire.error("malformed", f"sign_in: {field}", rid=rid, field=field, rule=rule))
        key: str = command["key"]
        signature: str = command["signature"]
        nonce = command.get("nonce")
        spent, self._nonce = self._nonce, None
        if nonce is not None and nonce != spent:
            rule = "the nonce of the latest hello of this connection; each serves once"
            return self._refuse(
                wire.error("nonce_used", "not the nonce of this session", rid=rid, field="nonce", rule=rule)
            )
        # One answer and one work, whether there is such a key or not: nobody is told which keys there are.
        fits = verify_sign_in(key, signature, sign_in_bytes(self._terms.environment, self._terms.epoch, spent or ""))
        known = self._terms.keys.find(key)
        if known is None or not fits:
            rule = "Ed25519 of a registered key over the sign-in bytes of environment, epoch and the latest nonce"
            return self._refuse(
                wire.error("bad_signature", "no living API key made this", rid=rid, field="signature", rule=rule)
            )
        refused = self._narrowed(known)
        if refused is not None:
            code, why, rule = refused
            return self._refuse(wire.error(code, why, rid=rid, rule=rule))
        cancels, after = command.get("cancel_on_disconnect"), command.get("resume")
        if cancels is not None and not isinstance(cancels, bool):
            field = "cancel_on_disconnect"
            return self._refuse(wire.error("malformed", "sign_in", rid=rid, field=field, rule="true or false"))
        resume = [] if after is None else self._resume(after, "resume", b"")
        for output in resume:
            if isinstance(output, Send):
                return self._refuse(output.payload)
        self._move(Event.SIGNED_IN)
        self.key = known
        trades = Scope.TRADE in known.scopes and Scope.OPERATOR not in known.scopes
        return [SignedIn(known, rid, trades and cancels is not False), *resume]

    def _narrowed(self, key: ApiKey) -> tuple[str, str, str] | None:
        """Why this key may not sign in from here and now, as code, message and rule; None if it may."""
        narrowed = key.restrictions
        if narrowed.expires_at and self._terms.now_ns() >= narrowed.expires_at:
            return "expired_key", "the key has expired", "a key that has not expired"
        if not narrowed.admits_address(self.peer):
            message = f"the key does not sign in from {self.peer or 'an unknown address'}"
            return "bad_address", message, "a connection from the addresses of the key"
        return None

    def _refuse(self, answer: bytes) -> list[Output]:
        """A failed sign-in: say why, and greet again with a fresh nonce, or end."""
        self._failures += 1
        if self._failures >= self._terms.failures_max:
            return [Send(answer), *self.end(POLICY, "too many failed sign-ins")]
        self._move(Event.REFUSED)
        return [Send(answer), self._hello()]


def _forbidden(op: str, scope: str, rid: bytes) -> bytes:
    return wire.error("forbidden", f"{op} needs the scope {scope}", rid=rid, field="op", rule=f"the scope {scope}")


def _only_removes(item: object) -> bool:
    """Whether it is a command that only takes risk away: it takes no message."""
    op = item.get("op") if isinstance(item, dict) else None
    return isinstance(op, str) and op in CANCELS
