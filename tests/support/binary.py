"""Binary order entry for tests: records made of numbers, and what a frame of answers says."""

from __future__ import annotations

import json
import struct
from typing import Any, Self

import numpy as np
from websockets.asyncio.client import ClientConnection, connect

from byline.client import public_key, sign_in_signature
from engine.messages import edge, layout
from engine.messages.codes import ABSENT, NIL, CommandKind, EventKind
from engine.messages.edge import MessageType
from engine.messages.encode import place_record
from engine.messages.layout import OrderFlag, PlaceFlag

__all__ = ["BinaryClient", "cancel", "messages", "place", "record", "replace"]


def record(kind: int, payload: bytes = b"", *, rid: int = 0, flags: int = 0, slots: int = 1) -> bytes:
    """A record with `payload` from byte 32 on."""
    head = struct.pack("<IBBHQqQ", 0, kind, slots, flags, rid, 0, 0)
    return (head + payload).ljust(slots * layout.SLOT_BYTES, b"\0")


def place(account: int, client_id: str, side: int, price: int, size: int, *, rid: int = 0, market: int = 0,
          oco: str = "", type: int = 1, tif: int = 0, flags: int = 0, **fields: int) -> bytes:  # fmt: skip
    """A place; ticks and lots."""
    made = place_record(
        account, market, client_id.encode(), side, type, tif, price, size,
        flags=flags | (PlaceFlag.HAS_OCO if oco else 0), slots=2 if oco else 1, **fields,
    )  # fmt: skip
    made[8:16] = rid.to_bytes(8, "little")
    made[128 : 128 + len(oco)] = oco.encode()
    return bytes(made)


def _name(order: str | int) -> tuple[int, bytes]:
    if isinstance(order, int):
        return OrderFlag.BY_ORDER_ID, order.to_bytes(8, "little")
    return 0, order.encode()


def cancel(account: int, order: str | int, *, rid: int = 0) -> bytes:
    """A cancel by client id or order id."""
    flags, name = _name(order)
    return record(CommandKind.CANCEL, struct.pack("<II32s", account, 0, name), rid=rid, flags=flags)


def replace(account: int, order: str | int, *, rid: int = 0, price: int = ABSENT, size: int = ABSENT,
            stop_price: int = ABSENT, new_client_id: str = "") -> bytes:  # fmt: skip
    flags, name = _name(order)
    payload = struct.pack("<II32sqqq32s", account, 0, name, price, size, stop_price, new_client_id.encode())
    return record(CommandKind.REPLACE, payload, rid=rid, flags=flags)


_EVENTS: dict[int, np.dtype] = {
    EventKind.ACCEPTED: layout.ACCEPTED, EventKind.REJECTED: layout.REJECTED, EventKind.DUPLICATE: layout.DUPLICATE,
    EventKind.TRADE: layout.TRADE, EventKind.CANCELED: layout.CANCELED, EventKind.REPLACED: layout.REPLACED,
    EventKind.TRIGGERED: layout.TRIGGERED, EventKind.REFRESHED: layout.REFRESHED,
    EventKind.PREVENTED: layout.PREVENTED, EventKind.BALANCE: layout.BALANCE,
    **{kind: layout.MONEY_EVENT for kind in range(EventKind.TRANSFERRED, EventKind.VOIDED + 1)},
}  # fmt: skip


def _values(row: np.void) -> dict[str, Any]:
    names = [name for name in row.dtype.names or () if name not in ("reserved", "pad", "spare")]
    return {name: value.decode() if isinstance(value := row[name].item(), bytes) else value for name in names}


def messages(frame: bytes) -> list[dict[str, Any]]:
    """What a frame of the exchange says: heads as dicts, `event` with the fields of its slot, `raw` with its slots."""
    found, at = [], 0
    heads = {MessageType.ACK: edge.ACK, MessageType.TOLD: edge.TOLD, MessageType.REFUSAL: edge.REFUSAL}
    while at < len(frame):
        head = heads[MessageType(frame[at])]
        message = _values(np.frombuffer(frame, head, 1, at)[0])
        at += head.itemsize
        size = message["slots"] * layout.SLOT_BYTES
        message["raw"] = frame[at : at + size]
        if size:
            assert len(message["raw"]) == size and frame[at + 29] == message["slots"]
            message["event"] = _values(np.frombuffer(frame, _EVENTS.get(frame[at + 28], layout.EVENT), 1, at)[0])
        at += size
        found.append(message)
    assert at == len(frame)
    return found


class BinaryClient:
    """A signed-in binary session on the `websockets` library."""

    def __init__(self, socket: ClientConnection, hello: dict[str, Any]) -> None:
        self.socket = socket
        self.hello = hello
        self.signed_in: dict[str, Any] = {}
        self.account = NIL
        self._waiting: list[dict[str, Any]] = []

    @classmethod
    async def connect(cls, url: str, key: Any) -> Self:
        socket = await connect(url, subprotocols=[edge.PROTOCOL], compression=None, max_size=None)  # type: ignore[list-item]
        client = cls(socket, json.loads(await socket.recv()))
        if key is not None:
            hello = client.hello
            signature = sign_in_signature(key, hello["environment"], hello["epoch"], hello["nonce"])
            client.signed_in = await client.ask({"op": "sign_in", "key": public_key(key), "signature": signature})
            indices = client.signed_in["account_indices"]
            client.account = indices[0] if indices else NIL
        return client

    async def ask(self, question: dict[str, Any]) -> dict[str, Any]:
        """The text answer to a text frame."""
        await self.socket.send(json.dumps(question))
        answer = await self.socket.recv()
        assert isinstance(answer, str)
        return dict(json.loads(answer))

    async def send(self, *records: bytes) -> None:
        await self.socket.send(b"".join(records))

    async def next(self) -> dict[str, Any]:
        """The next message."""
        while not self._waiting:
            frame = await self.socket.recv()
            assert isinstance(frame, bytes), frame
            self._waiting = messages(frame)
        return self._waiting.pop(0)

    async def take(self, count: int) -> list[dict[str, Any]]:
        return [await self.next() for _ in range(count)]

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.socket.close()
