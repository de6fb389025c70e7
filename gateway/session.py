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

Invariants: a frame that cannot be understood produces no Submit, and neither does anything that comes before
`sign_in` or after a Close; each command of an array is answered for itself; a failing one does not touch the others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any, Protocol

from engine.messages import edge
from engine.messages.codes import CommandKind
from gateway.authority import CANCELS, Forbidden, authorize
from gateway.keys import ApiKey, KeyLookup, Scope, sign_in_bytes, verify_sign_in
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
    "Send",
    "Session",
    "SessionTerms",
    "SignedIn",
    "State",
    "Submit",
]

PROTOCOL_ERROR, UNSUPPORTED, BAD_UTF8, POLICY, TOO_BIG, INTERNAL, TRY_LATER = 1002, 1003, 1007, 1008, 1009, 1011, 1013
TEXT, BINARY, CONTINUATION = 1, 2, 0
_SHELL_ONLY = {"tick", "cut", "malformed"}
_RULEBOOK_OPS = {kind.word for kind in CommandKind} - _SHELL_ONLY
_READS = {"ping", "open_orders", "balances", "directory"}
_OPERATOR_ASKS = {"status", "describe", "register_key", "revoke_key"}


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
    """Give `record` to the sequencer; if it is not taken, send `Session.not_taken`."""

    record: bytes
    rid: bytes
    is_cancel: bool


@dataclass(frozen=True, slots=True)
class Ask:
    """Answer a question about the exchange: `what` is its op. Not before everything submitted earlier may be told."""

    what: str
    rid: bytes
    fields: dict[str, Any]


@dataclass(frozen=True, slots=True)
class SignedIn:
    """The session is `key`'s from now on: private events of its accounts are to be sent to it."""

    key: ApiKey


Output = Send | Close | Submit | Ask | SignedIn


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
    account_index: Callable[[str], int | None]
    """The index by which records name an account; None if there is none of that name."""
    failures_max: int = 3
    commands_per_frame_max: int = 1_000


class Session:
    """See the module's theory of operation.

    On a binary session orders come as records, which never reach this class; text frames are the same on both.
    """

    __slots__ = ("_failures", "_nonce", "_terms", "is_binary", "key", "state")

    def __init__(self, terms: SessionTerms, *, is_binary: bool = False) -> None:
        self.is_binary = is_binary
        self.state = State.NEW
        self.key: ApiKey | None = None
        self._terms = terms
        self._nonce: str | None = None
        self._failures = 0

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
        if frame_type == CONTINUATION or not is_final:
            yield from self.end(UNSUPPORTED, "fragmented messages are not taken: one frame is one message")
            return
        if frame_type != TEXT:
            yield from self.end(UNSUPPORTED, "binary frame on a JSON session")
            return
        try:
            value = wire.parse(payload)
        except wire.BadText as error:
            yield from self.end(BAD_UTF8, str(error))
            return
        except wire.BadJson as error:
            yield Send(wire.error("bad_json", str(error)))
            return
        if isinstance(value, dict):
            yield from self._command(value)
            return
        if len(value) > self._terms.commands_per_frame_max:
            rule = f"at most {self._terms.commands_per_frame_max} commands a frame"
            yield Send(wire.error("too_many_commands", f"{len(value)} commands in one frame", rule=rule))
            return
        for item in value:
            if isinstance(item, dict):
                yield from self._command(item)
            else:
                yield Send(wire.error("bad_json", "an item of the array is no object"))
            if self._has_ended():
                return

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
    def not_taken(why: str, rid: bytes) -> bytes:
        """The error for a Submit that the sequencer did not take: a definite no, nothing was executed."""
        messages = {
            "busy": "the exchange is busy: this command was not journaled and not executed; cancels still pass",
            "closed": "only cancels are taken now: this command was not journaled and not executed",
            "failed": "the journal has failed: this command was not journaled and not executed",
        }
        return wire.error({"failed": "journal_failed", "closed": "cancel_only"}.get(why, why), messages[why], rid=rid)

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

    def _command(self, command: dict[str, Any]) -> list[Output]:
        raw = command.pop("rid", None)
        rid = b"" if raw is None else wire.rid_text(raw)
        if rid is None:
            rule = "a whole number from 0 to 2^63-1, or 1-32 plain characters"
            return [Send(wire.error("bad_rid", "the request id breaks its rule", field="rid", rule=rule))]
        op = command.get("op")
        if not isinstance(op, str):
            return [Send(wire.error("malformed", "a command needs an op", rid=rid, field="op", rule="text"))]
        if op == "sign_in":
            return self._sign_in(command, rid)
        if op == "ping":
            return [Send(wire.encode({"type": "pong"}) if not rid else b'{"rid":%s,"type":"pong"}' % rid)]
        if self.state is not State.OPEN or self.key is None:
            return [Send(wire.error("not_signed_in", "sign in first", rid=rid, field="op"))]
        self._move(Event.COMMAND)
        if op in _READS or op in _OPERATOR_ASKS:
            return self._ask(command, rid, self.key)
        if op in _SHELL_ONLY:
            return [Send(wire.error("forbidden", f"{op} is written by the exchange alone", rid=rid, field="op"))]
        if op not in _RULEBOOK_OPS:
            return [Send(wire.error("unknown_op", f"no op is called {op[:32]!r}", rid=rid, field="op"))]
        try:
            record = self._terms.encode(authorize(command, self.key, self._terms.is_house))
        except Forbidden as error:
            return [Send(wire.error("forbidden", str(error), rid=rid, field=error.field, rule=error.rule))]
        except CommandRefused as error:
            return [Send(wire.error(error.code, f"{op}: {error}", rid=rid, field=error.field, rule=error.rule))]
        return [Submit(record, rid, op in CANCELS)]

    def _ask(self, command: dict[str, Any], rid: bytes, key: ApiKey) -> list[Output]:
        op = command.pop("op")
        if op in _OPERATOR_ASKS and Scope.OPERATOR not in key.scopes:
            return [Send(wire.error("forbidden", f"{op} needs the scope operator", rid=rid, field="op"))]
        if op not in _READS or op == "directory":
            return [Ask(op, rid, command)]
        if not key.scopes & (Scope.READ | Scope.TRADE | Scope.OPERATOR):
            return [Send(wire.error("forbidden", f"{op} needs the scope read", rid=rid, field="op"))]
        account = command.get("account") or (key.accounts[0] if key.accounts else None)
        if not isinstance(account, str):
            return [Send(wire.error("malformed", f"{op} needs an account", rid=rid, field="account", rule="a name"))]
        if account not in key.accounts and Scope.OPERATOR not in key.scopes:
            rule = "a key reads its own accounts alone"
            return [Send(wire.error("forbidden", rule, rid=rid, field="account", rule=rule))]
        return [Ask(op, rid, {"account": account})]

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
        known = self._terms.keys.find(key)
        if known is None:
            return self._refuse(
                wire.error("unknown_key", "no living API key has this public half", rid=rid, field="key")
            )
        message = sign_in_bytes(self._terms.environment, self._terms.epoch, spent or "")
        if not verify_sign_in(key, signature, message):
            rule = "Ed25519 over the sign-in bytes of environment, epoch and the latest nonce"
            return self._refuse(
                wire.error("bad_signature", "the signature does not fit", rid=rid, field="signature", rule=rule)
            )
        self._move(Event.SIGNED_IN)
        self.key = known
        fields: dict[str, Any] = {
            "type": "signed_in", "label": known.label, "accounts": known.accounts, "scopes": known.scopes.words(),
        }  # fmt: skip
        if self.is_binary:
            fields["account_indices"] = [self._terms.account_index(name) for name in known.accounts]
        body = wire.encode(fields)
        return [SignedIn(known), Send(b'{"rid":%s,%s' % (rid, body[1:]) if rid else body)]

    def _refuse(self, answer: bytes) -> list[Output]:
        """A failed sign-in: say why, and greet again with a fresh nonce, or end."""
        self._failures += 1
        if self._failures >= self._terms.failures_max:
            return [Send(answer), *self.end(POLICY, "too many failed sign-ins")]
        self._move(Event.REFUSED)
        return [Send(answer), self._hello()]
