"""Simulated clients: they speak the protocol to the last byte, and remember what they are unsure of.

A client lives outside the exchange: crashes of the exchange are lost connections to it. What it sent and heard goes to
the auditor, and nothing else of it does. When a link is lost with a command unanswered, the client does what the
documentation tells a good client to do: it resumes behind the last sequence that it has wholly, and resolves each
command in doubt, or says it again under the same id, or poisons the id first. Late clients let bytes of the old link
arrive after they have gone on with the new one.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable
from typing import Any, Protocol

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from byline.client.keys import public_key, sign_in_signature
from tests.simulation.network import MS, Link, Network

__all__ = ["SimulatedClient", "Witness", "key_of", "text_frame"]

UPGRADE = (
    b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: %s\r\n\r\n"
)
TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10
COMMANDS = {
    "place", "replace", "cancel", "mass_cancel", "kill", "rearm", "cancel_after", "poison", "transfer", "withdraw",
}  # fmt: skip
"""Of traders, that stand in the journal."""
PATIENCE_NS = 8_000 * MS
"""After which a client takes its link for dead."""

Json = dict[str, Any]


class Witness(Protocol):
    """Who is told of every request and every reply."""

    def sent(self, client: SimulatedClient, message: Json) -> None: ...
    def heard(self, client: SimulatedClient, message: Json) -> None: ...
    def closed(self, client: SimulatedClient) -> None: ...
    def lost(self, client: SimulatedClient, *, quietly: bool) -> None: ...


def key_of(name: str) -> Ed25519PrivateKey:
    """The key of that name, the same in every run."""
    return Ed25519PrivateKey.from_private_bytes(hashlib.sha256(name.encode()).digest())


def text_frame(payload: bytes, opcode: int = TEXT) -> bytes:
    """One masked frame; the mask is four zeros, which is as good as any here."""
    size = len(payload)
    length = bytes([0x80 | size]) if size < 126 else b"\xfe" + size.to_bytes(2, "big")
    return bytes([0x80 | opcode]) + length + b"\0\0\0\0" + payload


class SimulatedClient:
    """One key with one link at a time. Speaks JSON; records.py has one that sends its orders as records."""

    protocol = b"byline.json.v1"
    has_receipts = COMMANDS
    """The operations for which it may ask for one."""

    def __init__(
        self, name: str, network: Network, witness: Witness, seed: int, accounts: list[str], *, key: Any = None,
        late: float = 0.3, cancel_on_disconnect: bool | None = None,
    ) -> None:  # fmt: skip
        self.says, self.said = f"{name} >", f"{name} <"
        self.name, self.network, self.witness, self.accounts = name, network, witness, accounts
        self.random = random.Random(f"client-{name}-{seed}")
        self.key = key_of(name) if key is None else key
        self.late = late
        self.cancel_on_disconnect = cancel_on_disconnect
        self.wants_receipts = 0.0
        """Of what share of its commands it asks for a signed receipt."""
        self.environment = ""
        """As the exchange names it when it greets."""
        self._receipt_dice = random.Random(f"receipts-{name}-{seed}")
        self.link: Link | None = None
        self.is_live = False
        """Signed in, and everything of the past is told."""
        self.rid = 0
        self.open: dict[int, Json] = {}
        """What was sent over this link and is not answered."""
        self.doubtful: list[Json] = []
        """What was sent over lost links and never answered."""
        self.seen = 0
        """The last sequence of which something was told."""
        self.sent_money: list[Json] = []
        """Withdrawals that it has asked for."""
        self.refused_resumes: list[str] = []
        self.on_answer: Callable[[Json, Json], None] | None = None
        self.on_live: Callable[[], None] | None = None
        self.on_event: Callable[[Json], None] | None = None
        self.on_lost: Callable[[], None] | None = None
        self._buffer = b""
        self._is_upgraded = self._resumes = False

    # ------------------------------------------------------------ links

    def connect(self) -> None:
        """A new link, now; tries again until somebody listens."""
        if self.link is not None:
            return
        self.link = self.network.connect(self, f"10.1.0.{sum(self.name.encode()) % 200 + 1}")
        if self.link is None:
            self._again(100)
            return
        self._buffer, self._is_upgraded, self.is_live = b"", False, False
        self.link.send(UPGRADE % self.protocol)
        self._watch(self.link)

    def _watch(self, link: Link) -> None:
        """Nothing heard for long: this client believes that the link is dead."""

        def look() -> None:
            if self.link is link and not self.is_live:
                self.abandon(quietly=True)

        self.network.schedule.later(3_000 * MS, look)

    def _again(self, delay_ms: int) -> None:
        self.network.schedule.later(self.random.randrange(delay_ms, 3 * delay_ms) * MS, self.connect)

    def lost(self, link: Link) -> None:
        """The link is over."""
        if link is self.link:
            self._gone()
            self._again(50)

    def abandon(self, *, quietly: bool = False) -> None:
        """Leave this link and take another. What is under way on it may still arrive."""
        if self.link is not None:
            self.link.leave(late_bytes=self.random.random() < self.late, quietly=quietly)
            self._gone(quietly=quietly)
            self._again(10)

    def _gone(self, *, quietly: bool = False) -> None:
        """`quietly`: the exchange is not told."""
        self.link, self.is_live = None, False
        self.doubtful += self.open.values()
        self.open.clear()
        self.witness.lost(self, quietly=quietly)
        if self.on_lost is not None:
            self.on_lost()

    # ------------------------------------------------------------ messages

    def say(self, message: Json) -> int:
        """Send one message with a request id. Returns the id."""
        assert self.link is not None
        self.rid += 1
        message = {"rid": self.rid} | message
        if message["op"] in self.has_receipts and self._receipt_dice.random() < self.wants_receipts:
            message["receipt"] = True
        self.open[self.rid] = message
        if message["op"] == "withdraw":
            self.sent_money.append(message)
        self.witness.sent(self, message)
        self._send(message)
        link, rid = self.link, self.rid

        def look() -> None:
            if self.link is link and rid in self.open:
                self.abandon(quietly=True)

        self.network.schedule.later(PATIENCE_NS, look)
        return rid

    def _send(self, message: Json) -> None:
        assert self.link is not None
        self.link.send(text_frame(msgspec.json.encode(message)))

    def send_raw(self, data: bytes) -> None:
        """Bytes of any kind."""
        if self.link is not None:
            self.link.send(data)

    def data(self, link: Link, data: bytes) -> None:
        """Bytes of the exchange."""
        if link is not self.link:
            return
        self._buffer += data
        if not self._is_upgraded:
            head, found, rest = self._buffer.partition(b"\r\n\r\n")
            if not found:
                return
            if b" 101 " not in head:
                self.link.leave()
                self._gone()
                self._again(200)
                return
            self._is_upgraded, self._buffer = True, rest
        while self.link is link and (frame := self._frame()) is not None:
            opcode, payload = frame
            if opcode == TEXT:
                self._hear(msgspec.json.decode(payload))
            elif opcode == BINARY:
                self._hear_records(payload)
            elif opcode == CLOSE:
                self.witness.closed(self)
            elif opcode == PING:
                link.send(text_frame(payload, PONG))

    def _frame(self) -> tuple[int, bytes] | None:
        data = self._buffer
        if len(data) < 2:
            return None
        size, at = data[1] & 0x7F, 2
        if size == 126:
            size, at = int.from_bytes(data[2:4], "big"), 4
        elif size == 127:
            size, at = int.from_bytes(data[2:10], "big"), 10
        if len(data) < at or len(data) < at + size:
            return None
        self._buffer = data[at + size :]
        return data[0] & 0x0F, data[at : at + size]

    def _hear(self, message: Json) -> None:
        self.witness.heard(self, message)
        kind = message.get("type")
        if kind == "hello":
            self._sign_in(message)
            return
        if kind == "signed_in":
            self.seen = self.seen or message["sequence"]
            if not self._resumes:
                self._live()
            return
        if kind == "error" and "rid" not in message and message.get("field") == "after":
            self.refused_resumes.append(message["rule"])  # it was told of what is no more
            self.seen = 0
            self._live()
            return
        if kind == "resumed" and "rid" not in message:
            self._live()
            return
        if self.is_live and "sequence" in message and ("event" in message or "chain" in message):
            self.seen = max(self.seen, message["sequence"])
        request = self.open.pop(message["rid"], None) if "rid" in message and kind != "receipt" else None
        if request is not None:
            if self.on_answer is not None:
                self.on_answer(request, message)
        elif "event" in message and self.on_event is not None:
            self.on_event(message)

    def _hear_records(self, payload: bytes) -> None:
        raise AssertionError(f"{self.name} was sent {len(payload)} bytes of records on a session of JSON")

    def _sign_in(self, hello: Json) -> None:
        assert self.link is not None
        self.environment = hello["environment"]
        message = {
            "op": "sign_in", "key": public_key(self.key),
            "signature": sign_in_signature(self.key, hello["environment"], hello["epoch"], hello["nonce"]),
        }  # fmt: skip
        self._resumes = self.seen > 0
        if self._resumes:
            message["resume"] = max(0, self.seen - 1)
        if self.cancel_on_disconnect is not None:
            message["cancel_on_disconnect"] = self.cancel_on_disconnect
        self.link.send(text_frame(msgspec.json.encode(message)))

    def _live(self) -> None:
        self.is_live = True
        doubtful, self.doubtful = self.doubtful, []
        for message in doubtful:
            self._settle(message)
        if self.on_live is not None:
            self.on_live()

    def _settle(self, message: Json) -> None:
        """Find out what became of a command whose answer was lost."""
        body = {name: value for name, value in message.items() if name != "rid"}
        op = body["op"]
        if op == "place":
            how = self.random.random()
            subject = {"account": body.get("account", self.accounts[0]), "client_id": body["client_id"]}
            if how < 0.4:
                self.say({"op": "poison"} | subject)
            elif how < 0.6:
                self.say(body)
            self.say({"op": "resolve"} | subject)
        elif "ref" in body or op in (
            "poison",
            "resolve",
            "kill",
            "rearm",
            "register_key",
            "asset",
            "account",
            "market",
        ):
            self.say(body)
