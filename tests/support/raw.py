"""A websocket client made of single frames: what no library sends, and what none would leave out."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import struct
from typing import Any, Self

from byline.client import public_key, sign_in_signature

__all__ = ["RawClient"]

TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10


class RawClient:
    """Answers nothing by itself, not even a ping."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    async def connect(cls, url: str, protocol: str = "byline.json.v1", receive_bytes: int = 0) -> Self:
        """`receive_bytes`: of the kernel's buffer of what is not read. Raises ConnectionRefusedError: no upgrade."""
        host, _, port = url.split("/")[2].partition(":")
        made = socket.socket()
        if receive_bytes:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        made.setblocking(False)
        await asyncio.get_running_loop().sock_connect(made, (host, int(port)))
        reader, writer = await asyncio.open_connection(sock=made, limit=4_096 if receive_bytes else 1 << 20)
        writer.write(
            b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: " + protocol.encode() + b"\r\n\r\n"
        )
        answer = await reader.readuntil(b"\r\n\r\n")
        if b" 101 " not in answer:
            writer.close()
            raise ConnectionRefusedError(answer.decode())
        return cls(reader, writer)

    def send(self, opcode: int, payload: bytes, *, fin: bool = True) -> None:
        size = len(payload)
        head = bytes([opcode | (0x80 if fin else 0)])
        head += bytes([0x80 | size]) if size < 126 else b"\xfe" + struct.pack(">H", size)
        mask = os.urandom(4)
        self.writer.write(head + mask + bytes(byte ^ mask[at & 3] for at, byte in enumerate(payload)))

    def say(self, message: dict[str, Any]) -> None:
        self.send(TEXT, json.dumps(message).encode())

    async def frame(self) -> tuple[int, bytes]:
        """Opcode and payload of the next frame. Raises IncompleteReadError at the end of the connection."""
        first, second = await self.reader.readexactly(2)
        size = second & 0x7F
        if size >= 126:
            size = int.from_bytes(await self.reader.readexactly(2 if size == 126 else 8), "big")
        return first & 0x0F, await self.reader.readexactly(size)

    async def hear(self) -> dict[str, Any]:
        """The next text frame."""
        while True:
            opcode, payload = await self.frame()
            if opcode == TEXT:
                return dict(json.loads(payload))

    async def closed(self) -> int:
        """The code of the close frame, all before it passed over."""
        while True:
            opcode, payload = await self.frame()
            if opcode == CLOSE:
                return int.from_bytes(payload[:2], "big")

    async def sign_in(self, key: Any, **more: Any) -> dict[str, Any]:
        hello = await self.hear()
        signature = sign_in_signature(key, hello["environment"], hello["epoch"], hello["nonce"])
        self.say({"op": "sign_in", "key": public_key(key), "signature": signature} | more)
        return await self.hear()

    def abort(self) -> None:
        self.writer.transport.abort()
