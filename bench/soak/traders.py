"""Traders of the soak: each keeps every private event that it was told, in either protocol, over all its connections.

A record is (sequence, index) to a digest of what was told; the judge forms the same from the journal. A connection that
is lost is made again with `resume`, and what belonged to the sequence that the break tore apart must come again. What
may not be is a fault at once: an event told twice, or out of order, or an error that means a fault of the exchange.

Never: trusts the exchange for what it can check itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import struct
from typing import Any

import msgspec
from picows import WSFrame, WSListener, WSMsgType, WSTransport, ws_connect

from bench.soak.hostile import on_session
from bench.soak.world import MARKETS, Member, World
from byline.client import public_key, sign_in_signature
from engine.messages import edge, layout
from engine.messages.codes import EventKind
from engine.messages.encode import place_record

__all__ = ["Record", "Trader", "json_digest"]

Record = tuple[bool, int]
"""Whether it was told as a binary slot, and the digest of what was told."""
_ACK_FIELDS = ("rid", "sequence", "index", "chain", "t_in", "t_durable", "t_matched", "t_out", "rate_left")
_HARMFUL = (
    "internal", "bad_json", "malformed", "journal_failed", "failed", "registry_failed", "unknown_op", "forbidden",
    "unknown_key", "bad_signature", "nonce_used", "bad_value",
)  # fmt: skip
_ACK = struct.Struct("<BBHIQQ")
_ENCODE = msgspec.json.Encoder(order="sorted").encode
_DECODE = msgspec.json.Decoder().decode
_SIGN_IN = 1
_CENT = {"asset": "USD", "amount": "0.01"}
_IN_FLIGHT = 8


def json_digest(event: dict[str, Any]) -> int:
    """Of what an event says, without what belongs to the telling."""
    return hash(_ENCODE({name: value for name, value in event.items() if name not in _ACK_FIELDS}))


class _Line(WSListener):
    """One connection of a trader."""

    def __init__(self, trader: Trader) -> None:
        super().__init__()
        self.trader = trader

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if self.trader.line is not self:
            return  # the trader has given it up
        if frame.msg_type == WSMsgType.TEXT:
            self.trader.hear(_DECODE(frame.get_payload_as_bytes()))
        elif frame.msg_type == WSMsgType.BINARY:
            self.trader.hear_records(frame.get_payload_as_bytes())
        elif frame.msg_type == WSMsgType.CLOSE:
            self.trader.world.counts[f"sessions closed {frame.get_close_code()}"] += 1
            transport.disconnect()

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        if self.trader.line is self:
            self.trader.lost()


class Trader:
    """One account's view. With `viewer` it is a drop copy: it signs in with the reading key and sends nothing."""

    def __init__(self, world: World, member: Member, seed: int, *, viewer: bool = False) -> None:
        self.world = world
        self.member = member
        self.key = member.viewer if viewer else member.key
        self.viewer = viewer
        self.rng = random.Random(seed)
        self.records: dict[tuple[int, int], Record] = {}
        self.open: dict[int, tuple[str, int]] = {}  # order id: client id, market
        self.closed: set[str] = set()
        self.poisoned: set[str] = set()
        self.answers: dict[str, dict[str, Any]] = {}
        self.resolved: list[dict[str, Any]] = []
        self.position = 1  # everything before it was told; of itself perhaps not all
        self.line: _Line | None = None
        self.transport: WSTransport | None = None
        self.is_binary = False
        self._holds = False
        self._hello: asyncio.Future[dict[str, Any]] | None = None
        self._signed = asyncio.Event()
        self._ready = asyncio.Event()
        self._free = asyncio.Event()
        self._waiting: dict[int, str] = {}
        self._rid = _SIGN_IN
        self._order = 0
        self._newest = (0, -1)

    # ---------------------------------------------------------------- life

    async def run(self, mean_pause_s: float, steps: int | None) -> None:
        """Trades until the world stops, or for so many steps."""
        taken = 0
        while not self.world.stop.is_set() and (steps is None or taken < steps):
            if self.transport is None:
                await self.connect()
            if mean_pause_s:
                await asyncio.sleep(min(self.rng.expovariate(1.0 / mean_pause_s), 30.0))
            if len(self._waiting) >= _IN_FLIGHT or self.rng.random() < 0.7:
                await self._free.wait()
            if self.transport is not None:
                await self._step()
            taken += 1

    async def settle(self) -> None:
        """Comes back if it is away, hears everything up to now, asks for its orders, its money and some outcomes."""
        for _ in range(20):
            if self.transport is None:
                await self.connect()
            await self._ready.wait()
            await self._free.wait()
            if self.viewer and self.transport is not None:
                return
            self.resolved.clear()
            self.answers.clear()
            some = [*list(self.open.values())[:3], *((name, 0) for name in sorted(self.closed)[:3])]
            names = [name for name, _ in some] + sorted(self.poisoned)[:2] + ["never-sent"]
            asks = [{"op": "open_orders"}, {"op": "balances"}]
            self._send([*asks, *({"op": "resolve", "client_id": name} for name in names)])
            await self._free.wait()
            if self.transport is not None and len(self.answers) == 2 and len(self.resolved) == len(names):
                return
        self.world.fault(f"{self.member.name}: could not settle: {list(self.answers)}")

    async def connect(self) -> None:
        """Until it is signed in. The protocol is drawn anew each time."""
        for attempt in range(100):
            self.is_binary = self.rng.random() < 0.5
            line = _Line(self)
            self._hello = asyncio.get_running_loop().create_future()
            self.line = line
            word = edge.PROTOCOL if self.is_binary else "byline.json.v1"
            try:
                made, _ = await ws_connect(
                    lambda line=line: line, self.world.gateway_url, websocket_handshake_timeout=60.0,
                    extra_headers={"Sec-WebSocket-Protocol": word}, max_frame_size=1 << 24,
                )  # fmt: skip
                if made.is_disconnected:  # cut in the handshake, of which picows says nothing
                    raise ConnectionResetError("cut in the handshake")
                self.transport = made
                await self._sign_in(await self._hello)
                await self._signed.wait()  # or lost
                return
            except (OSError, asyncio.CancelledError, Exception) as error:
                if isinstance(error, asyncio.CancelledError) and not self._hello.cancelled():
                    raise
                self.world.counts["connects that failed"] += 1
                self.transport = self.line = None
                await asyncio.sleep(0.05 * (attempt + 1))
        self.world.fault(f"{self.member.name}: no connection in 100 attempts")

    async def _sign_in(self, hello: dict[str, Any]) -> None:
        assert self.key is not None
        after = self.position - 1
        for record in [record for record in self.records if record[0] > after]:
            del self.records[record]
        self._holds, self._newest = True, (0, -1)
        self._ready.clear()
        self._signed.clear()
        self._waiting = {_SIGN_IN: "sign_in"}
        self._free.clear()
        body = {
            "rid": _SIGN_IN, "op": "sign_in", "key": public_key(self.key), "nonce": hello["nonce"], "resume": after,
            "signature": sign_in_signature(self.key, hello["environment"], hello["epoch"], hello["nonce"]),
        }  # fmt: skip
        if self.rng.random() < 0.3:
            body["cancel_on_disconnect"] = False
        self._write(body)
        self.world.counts["sign-ins"] += 1

    def lost(self) -> None:
        """The connection is gone, whoever ended it."""
        self.transport = self.line = None
        if self._hello is not None and not self._hello.done():
            self._hello.cancel()
        self._waiting.clear()
        self._signed.set()
        self._ready.set()
        self._free.set()

    def _give_up(self, *, graceful: bool) -> None:
        transport = self.transport
        self.lost()
        if transport is not None:
            transport.disconnect(graceful)

    # ---------------------------------------------------------------- hearing

    def hear(self, message: dict[str, Any]) -> None:
        kind = message.get("type")
        rid = message.get("rid")
        if kind == "hello":
            if self._hello is not None and not self._hello.done():
                self._hello.set_result(message)
            return
        if "event" in message:
            self._told(message, message["sequence"], message.get("index", 0), (False, json_digest(message)))
            self._follow_json(message)
        elif kind == "resumed":
            self._resumed(message["sequence"])
            self._answered(_SIGN_IN)
            return
        elif kind == "error":
            self._refused(message)
        elif kind in ("open_orders", "balances"):
            self.answers[kind] = message
        elif kind == "resolved":
            self.resolved.append(message)
        elif kind == "signed_in":
            if "account_indices" in message:
                self.member.index = message["account_indices"][0]
            self._signed.set()
            return  # `resumed` follows
        elif kind == "receipt":
            self.world.counts["receipts"] += 1
        elif kind == "protection":
            self._send({"op": "reset_protection"})
        if rid is not None:
            self._answered(rid)

    def hear_records(self, frame: bytes) -> None:
        at = 0
        while at < len(frame):
            kind, slots, code, _, rid, sequence = _ACK.unpack_from(frame.ljust(at + _ACK.size, b"\0"), at)
            head = {edge.MessageType.ACK: 64, edge.MessageType.TOLD: 8, edge.MessageType.REFUSAL: 32}[kind]
            event = frame[at + head : at + head + slots * layout.SLOT_BYTES]
            at += head + len(event)
            if kind == edge.MessageType.REFUSAL:
                word = edge.EdgeCode(code).word
                self.world.counts[f"refused {word}"] += 1
                if word in ("malformed", "bad_frame", "unknown_op", "forbidden", "journal_failed"):
                    self.world.fault(f"{self.member.name}: a good record was refused {word}")
            elif event:
                slot = struct.unpack_from("<QqIIIBBBB", event)
                if kind == edge.MessageType.ACK and slot[0] != sequence:
                    self.world.fault(f"{self.member.name}: ack of {sequence} with an event of {slot[0]}")
                self._told(slot, slot[0], slot[2], (True, hash(event)))
                self._follow_slot(slot[5], event)
            if kind != edge.MessageType.TOLD:
                self._answered(rid)

    def _told(self, what: Any, sequence: int, index: int, record: Record) -> None:
        self.world.counts["private events told"] += 1
        key = sequence, index
        if key in self.records:
            self.world.fault(f"{self.member.name}: {key} was told twice: {what}")
        self.records[key] = record
        if self._holds:
            return
        if key <= self._newest:
            self.world.fault(f"{self.member.name}: {key} was told behind {self._newest}")
        self._newest = key
        self.position = max(self.position, sequence)

    def _resumed(self, sequence: int) -> None:
        self._holds = False
        self.position = max(self.position, sequence + 1)
        self.world.counts["resumes"] += 1
        self._ready.set()

    def _refused(self, message: dict[str, Any]) -> None:
        code = message["code"]
        self.world.counts[f"refused {code}"] += 1
        if code in _HARMFUL:
            self.world.fault(f"{self.member.name}: {message}")
        if code == "busy" and self._holds and message.get("rid") in (None, _SIGN_IN):
            asyncio.get_running_loop().call_later(0.1, self._ask_again, self.line)

    def _ask_again(self, line: _Line | None) -> None:
        if line is self.line and self.transport is not None:
            self._write({"rid": _SIGN_IN, "op": "resume", "after": self.position - 1})

    def _answered(self, rid: int) -> None:
        if rid == _SIGN_IN and self._holds:
            return
        self._waiting.pop(rid, None)
        if not self._waiting:
            self._free.set()

    def _follow_json(self, event: dict[str, Any]) -> None:
        kind = event["event"]
        if kind == "accepted":
            self.open[event["order_id"]] = event["client_id"], MARKETS.index(event["market"])
        elif kind == "trade":
            for who in ("maker", "taker"):
                if event.get(f"{who}_leaves") == "0":
                    self._close(event[f"{who}_order_id"])
        elif kind == "canceled":
            self._close(event["order_id"])
        elif kind == "replaced" and event["order_id"] in self.open:
            self.open[event["order_id"]] = event["client_id"], self.open[event["order_id"]][1]

    def _follow_slot(self, kind: int, event: bytes) -> None:
        if kind == EventKind.ACCEPTED:
            order, client_id = _id_and_name(event, layout.ACCEPTED)
            self.open[order] = client_id, struct.unpack_from("<I", event, 24)[0]
        elif kind == EventKind.TRADE:
            for who in ("maker", "taker"):
                if _field(event, layout.TRADE, f"{who}_leaves", "<q") == 0:
                    self._close(_field(event, layout.TRADE, f"{who}_order_id", "<Q"))
        elif kind == EventKind.CANCELED:
            self._close(_field(event, layout.CANCELED, "order_id", "<Q"))
        elif kind == EventKind.REPLACED:
            order, client_id = _id_and_name(event, layout.REPLACED)
            if order in self.open:
                self.open[order] = client_id, self.open[order][1]

    def _close(self, order_id: int) -> None:
        order = self.open.pop(order_id, None)
        if order is not None:
            self.closed.add(order[0])
            if len(self.closed) > 1_000:
                self.closed.pop()

    # ---------------------------------------------------------------- acting

    async def _step(self) -> None:
        draw = self.rng.random()
        if draw < 0.006:
            self.world.counts["disconnects by traders"] += 1
            self._give_up(graceful=self.rng.random() < 0.5)
        elif draw < 0.008:
            self.world.counts["disconnects by a malformed frame"] += 1
            assert self.transport is not None
            raw = self.transport.underlying_transport
            raw.write(on_session(self.rng))
        elif draw < 0.009 and self.transport is not None:
            self.world.counts["disconnects half-open"] += 1  # nothing is read any more, and nothing said
            self.transport.underlying_transport.pause_reading()
            self._send(self._place())
            await asyncio.sleep(self.rng.random())
            self._give_up(graceful=False)
        elif self.viewer:
            self._send({"op": self.rng.choice(["ping", "open_orders", "balances", "whoami"])})
        elif self.is_binary and draw < 0.6:
            self._send_records(self.rng.choice((1, 1, 1, 2, 4, 16)))
        elif draw < 0.7:
            self._send([self._command() for _ in range(self.rng.choice((2, 3, 5)))])
        else:
            self._send(self._command())

    def _command(self) -> dict[str, Any]:
        draw = self.rng.random()
        some = self.rng.choice(list(self.open.values())) if self.open else None
        if draw < 0.55 or some is None:
            return self._place()
        if draw < 0.78:
            return {"op": "cancel", "client_id": some[0]}
        if draw < 0.88:
            return {"op": "replace", "client_id": some[0], "price": self._price(), "size": self._size()}
        rest: list[dict[str, Any]] = [
            {"op": "mass_cancel", "market": MARKETS[some[1]]},
            {"op": "quote", "market": MARKETS[some[1]], "quote_id": f"q{some[1]}",
             "bid": {"price": "9.90", "size": "1"}, "ask": {"price": "10.10", "size": "1"}},
            {"op": "resolve", "client_id": some[0]}, {"op": "balances"}, {"op": "open_orders"}, {"op": "ping"},
            self._poison(), {"op": "cancel_after", "at": 0},
            {"op": "transfer", "ref": f"{self.member.name}-{self._number()}", "legs": [
                {"from": self.member.name, "to": self.rng.choice(self.world.members).name} | _CENT
            ]},
        ]  # fmt: skip
        if self.rng.random() < 0.05:
            return {"op": "kill"} if self.rng.random() < 0.5 else {"op": "rearm"}
        return self.rng.choice(rest)

    def _poison(self) -> dict[str, Any]:
        name = f"p{self._number()}"
        self.poisoned.add(name)
        return {"op": "poison", "client_id": name}

    def _number(self) -> int:
        self._order += 1
        return self._order

    def _price(self, *, crossing: bool = False) -> str:
        return f"{10 + self.rng.gauss(0.0, 0.15) * (3 if crossing else 1):.2f}"

    def _size(self) -> str:
        return f"{self.rng.choice((1, 2, 5, 10, 37)) / 10:.1f}"

    def _place(self) -> dict[str, Any]:
        """Mostly limit orders around ten dollars, some of each other kind."""
        side = self.rng.choice(("buy", "sell"))
        order: dict[str, Any] = {
            "op": "place", "market": self.rng.choice(MARKETS), "client_id": f"o{self._number()}", "side": side,
            "type": "limit", "size": self._size(), "price": self._price(),
        }  # fmt: skip
        draw = self.rng.random()
        if draw < 0.08:
            order |= {"type": "market"}
            del order["price"]
        elif draw < 0.12:
            order |= {"tif": self.rng.choice(("ioc", "fok"))}
        elif draw < 0.18:
            order |= {"post_only": True}
        elif draw < 0.24:
            order |= {"size": "9.0", "display_size": "1.0"}
        elif draw < 0.28:
            order |= {"type": "stop_limit", "stop_price": self._price(crossing=True)}
        elif draw < 0.30:
            order |= {"receipt": True}
        elif draw < 0.32:
            order |= {"cancel_on_disconnect": False}
        return order

    def _send(self, commands: dict[str, Any] | list[dict[str, Any]]) -> None:
        many = commands if isinstance(commands, list) else [commands]
        for command in many:
            self._rid += 1
            command["rid"] = self._rid
            self._waiting[self._rid] = command["op"]
        self._free.clear()
        self.world.counts["commands sent"] += len(many)
        self._write(commands)

    def _send_records(self, count: int) -> None:
        records = []
        for _ in range(count):
            self._rid += 1
            self._waiting[self._rid] = "record"
            market = self.rng.randrange(len(MARKETS))
            if self.open and self.rng.random() < 0.35:
                name, _ = self.rng.choice(list(self.open.values()))
                payload = struct.pack("<II32s", self.member.index, 0, name.encode())
                record = bytearray(struct.pack("<IBBHQqQ", 0, 12, 1, 0, 0, 0, 0) + payload).ljust(128, b"\0")
            else:
                price = round(1_000 + self.rng.gauss(0.0, 15.0))
                record = bytearray(
                    place_record(
                        self.member.index, market, f"o{self._number()}".encode(), self.rng.randrange(2), 1,
                        self.rng.choice((0, 0, 0, 1, 2)), price, self.rng.choice((1, 2, 5, 10, 37)),
                    )
                )  # fmt: skip
            record[8:16] = self._rid.to_bytes(8, "little")
            records.append(bytes(record))
        self._free.clear()
        self.world.counts["commands sent"] += count
        assert self.transport is not None
        self.transport.send(WSMsgType.BINARY, b"".join(records))

    def _write(self, body: Any) -> None:
        if self.transport is not None:
            with contextlib.suppress(OSError):
                self.transport.send(WSMsgType.TEXT, json.dumps(body).encode())


def _field(event: bytes, table: Any, name: str, form: str) -> int:
    return int(struct.unpack_from(form, event, table.fields[name][1])[0])


def _id_and_name(event: bytes, table: Any) -> tuple[int, str]:
    start = table.fields["client_id"][1]
    return _field(event, table, "order_id", "<Q"), event[start : start + 32].rstrip(b"\0").decode()

