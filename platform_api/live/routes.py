"""The websocket of the event socket. Tokens never travel in its URL.

Who is it: a bearer in the handshake (programs), the cookie of a page of our own origin (browsers send cookies whichever
page opens the socket, so the Origin decides), or the message `auth` later.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any
from urllib.parse import urlsplit

from litestar import Controller, WebSocket, websocket
from litestar.di import NamedDependency

from platform_api.errors import ApiError, ErrorCode
from platform_api.live.connection import SESSION_ENDED
from platform_api.live.service import LiveService, Reader
from platform_api.security import ACCESS_COOKIE, Caller, TokenSigner, guard_of

__all__ = ["SocketController"]

TRY_AGAIN = 1013

Socket = WebSocket[Any, Any, Any]


class SocketController(Controller):
    path = "/v1/ws"

    @websocket("/")
    async def events(self, socket: Socket, live: NamedDependency[LiveService]) -> None:
        """The event socket (docs/protocol/event-socket.md)."""
        await socket.accept()
        try:
            caller = _caller(socket, live.kernel.signer)
            reader = await live.open(_address(socket), caller, guard_of(socket))
        except ApiError as error:
            limited = error.code is ErrorCode.RATE_LIMITED
            await socket.close(TRY_AGAIN if limited else SESSION_ENDED, error.reason)
            return
        writer = asyncio.create_task(reader.connection.write(socket.send))
        try:
            await _read(socket, reader)
        finally:
            live.close(reader)
            writer.cancel()
            with contextlib.suppress(asyncio.CancelledError, OSError):  # the connection is over either way
                await writer


async def _read(socket: Socket, reader: Reader) -> None:
    while True:
        message: Any = await socket.receive()
        if message["type"] == "websocket.disconnect":
            return
        if reader.connection.closing is None:
            await reader.receive(message.get("text"))


def _caller(socket: Socket, signer: TokenSigner) -> Caller | None:
    """Raises ApiError UNAUTHORIZED for a bearer or cookie that is not good."""
    scheme, _, token = socket.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return signer.read(token.strip())
    cookie = socket.cookies.get(ACCESS_COOKIE)
    if not cookie:
        return None
    origin = urlsplit(socket.headers.get("origin", ""))
    return signer.read(cookie) if origin.netloc and origin.netloc == socket.headers.get("host") else None


def _address(socket: Socket) -> str:
    return socket.client.host if socket.client is not None else "-"
