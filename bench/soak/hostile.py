"""Clients that misbehave: every malformed frame and connection that order entry and market data must answer rightly.

Each case is a connection of its own, bytes that break one rule, and the close code (or the plain end) that the protocol
documents promise. Another answer is a fault of the soak. Nothing here is ever executed by the exchange.
"""

from __future__ import annotations

import asyncio
import random
import struct
from collections.abc import Callable
from dataclasses import dataclass

from bench.gateway_load import upgrade
from bench.soak.world import MARKETS, World

__all__ = ["CASES", "Case", "attack", "attack_all", "frame", "on_session"]

_ANSWER_S = 60.0
_GATEWAY, _MARKETDATA = "order entry", "market data"


def frame(opcode: int, payload: bytes = b"", *, final: bool = True, reserved: int = 0, masked: bool = True) -> bytes:
    """One websocket frame of a client, as good or as bad as asked for."""
    first = (0x80 if final else 0) | reserved << 4 | opcode
    flag, size = (0x80 if masked else 0), len(payload)
    if size < 126:
        head = bytes([first, flag | size])
    elif size < 1 << 16:
        head = bytes([first, flag | 126]) + size.to_bytes(2, "big")
    else:
        head = bytes([first, flag | 127]) + size.to_bytes(8, "big")
    return head + (b"\0\0\0\0" if masked else b"") + payload


@dataclass(frozen=True, slots=True)
class Case:
    """Bytes to send behind the handshake. `codes`: the close codes that are right; empty: any end, or an answer."""

    door: str
    name: str
    data: Callable[[random.Random], bytes]
    codes: tuple[int, ...]
    stays: bool = False
    """The connection goes on: a ping behind the bytes is answered."""


def _text(text: bytes) -> Callable[[random.Random], bytes]:
    return lambda _: frame(1, text)


def _reserved(bit: int) -> Callable[[random.Random], bytes]:
    return lambda _: frame(1, b"{}", reserved=bit)


def _garbage(rng: random.Random) -> bytes:
    return frame(1, bytes(rng.randrange(0x20, 0x7F) for _ in range(rng.randrange(1, 300))))


def _book(_: random.Random) -> bytes:
    return frame(1, b'{"type":"subscribe","channel":"book:%s","depth":0,"mode":"lossless"}' % MARKETS[0].encode())


_BAD_SIGN_IN = b'{"op":"sign_in","key":"%s","signature":"%s"}' % (b"0" * 64, b"0" * 128)
_LONG = b" " * 60_000
_STOPS_SHORT = frame(1, b" ", final=False) + frame(0, b"", final=False) * 1_100
CASES: tuple[Case, ...] = (
    *(
        Case(_GATEWAY, f"reserved bit {bit}", _reserved(bit), (1002,))
        for bit in (1, 2, 4)
    ),
    Case(_GATEWAY, "invalid UTF-8", _text(b'{"op":"\xff\xfe"}'), (1007,)),
    Case(_GATEWAY, "half a character", lambda _: frame(1, b"\xe2", final=False) + frame(0, b"x"), (1007,)),
    Case(_GATEWAY, "continuation of nothing", lambda _: frame(0, b"x"), (1002,)),
    Case(_GATEWAY, "message inside a message", lambda _: frame(1, b"{", final=False) + frame(1, b"}"), (1002,)),
    Case(_GATEWAY, "long control frame", lambda _: frame(9, b"x" * 126), (1002,)),
    Case(_GATEWAY, "fragmented control frame", lambda _: frame(9, b"x", final=False), (1002,)),
    Case(_GATEWAY, "unknown opcode", lambda rng: frame(rng.choice((3, 7, 11, 15)), b"x"), (1002,)),
    Case(_GATEWAY, "unmasked", lambda _: frame(1, b'{"op":"ping"}', masked=False), (1002,)),
    Case(_GATEWAY, "oversize", lambda _: frame(1, b" " * 70_000), (1009,)),
    Case(_GATEWAY, "oversize in fragments", lambda _: frame(1, _LONG, final=False) + frame(0, _LONG), (1009,)),
    # 1008 where they came faster than those who have not signed in are looked at.
    Case(_GATEWAY, "too many fragments", lambda _: _STOPS_SHORT, (1008, 1009)),
    Case(_GATEWAY, "binary in a JSON session", lambda _: frame(2, bytes(128)), (1003,)),
    Case(_GATEWAY, "bad close code", lambda _: frame(8, struct.pack(">H", 999)), (1002,)),
    Case(_GATEWAY, "close of one byte", lambda _: frame(8, b"x"), (1002,)),
    Case(_GATEWAY, "bad JSON", _garbage, (), stays=True),
    Case(_GATEWAY, "half a surrogate pair", _text(rb'{"op":"\ud800"}'), (), stays=True),
    Case(_GATEWAY, "order without sign-in", _text(b'{"op":"place","market":"S0-USD"}'), (), stays=True),
    Case(_GATEWAY, "three bad sign-ins", lambda _: frame(1, _BAD_SIGN_IN) * 3, (1008,)),
    Case(_GATEWAY, "half a frame", lambda _: frame(1, b'{"op":"ping"}')[:9], ()),
    Case(_GATEWAY, "nothing: half-open", lambda _: b"", ()),
    *(
        Case(_MARKETDATA, f"reserved bit {bit}", _reserved(bit), (1002,))
        for bit in (1, 2, 4)
    ),
    Case(_MARKETDATA, "binary frame", lambda _: frame(2, b"x"), (1003,)),
    Case(_MARKETDATA, "continuation of nothing", lambda _: frame(0, b"}"), (1002,)),
    Case(_MARKETDATA, "fragments", lambda _: frame(1, b"{", final=False) + frame(0, b"}"), (), stays=True),
    Case(_MARKETDATA, "oversize in fragments", lambda _: (frame(1, _LONG, final=False) + frame(0, _LONG)), (1009,)),
    Case(_MARKETDATA, "unmasked", lambda _: frame(1, b'{"type":"ping"}', masked=False), (1002,)),
    Case(_MARKETDATA, "long control frame", lambda _: frame(9, b"x" * 126), (1002,)),
    Case(_MARKETDATA, "fragmented control frame", lambda _: frame(9, b"x", final=False), (1002,)),
    Case(_MARKETDATA, "unknown opcode", lambda rng: frame(rng.choice((3, 7, 11, 15)), b"x"), (1002,)),
    Case(_MARKETDATA, "bad close code", lambda _: frame(8, struct.pack(">H", 999)), (1002,)),
    Case(_MARKETDATA, "oversize", lambda _: frame(1, b" " * 20_000), (1009,)),
    Case(_MARKETDATA, "invalid UTF-8", _text(b'{"type":"\xff"}'), (1007,)),
    Case(_MARKETDATA, "bad JSON", _garbage, (), stays=True),
    Case(_MARKETDATA, "flood of requests", lambda _: frame(1, b'{"type":"ping"}') * 1_000, (), stays=True),
    Case(_MARKETDATA, "subscribes and is gone", _book, ()),
    Case(_MARKETDATA, "half a frame", lambda _: frame(1, b'{"type":"ping"}')[:9], ()),
)
_ON_SESSION = ("reserved bit 1", "invalid UTF-8", "continuation of nothing", "oversize", "unmasked", "unknown opcode")


def on_session(rng: random.Random) -> bytes:
    """Bytes that end a signed-in session, whichever protocol it speaks."""
    return next(case for case in CASES if case.name == rng.choice(_ON_SESSION) or case is CASES[8]).data(rng)


async def attack_all(world: World, rng: random.Random, pause_s: float) -> None:
    """Every case in turn, again and again until the world stops; with `pause_s` 0 once."""
    while True:
        for case in rng.sample(CASES, len(CASES)):
            await attack(world, case, rng)
            if pause_s:
                await asyncio.sleep(pause_s)
            if pause_s and world.stop.is_set():
                return
        if not pause_s:
            return


async def attack(world: World, case: Case, rng: random.Random) -> None:
    """One connection that does it, and whether the exchange answers rightly."""
    host, _, port = world.gateway_url.removeprefix("ws://").partition("/")[0].partition(":")
    number = int(port) if case.door == _GATEWAY else world.marketdata_port
    world.counts["hostile connections"] += 1
    try:
        async with asyncio.timeout(_ANSWER_S):
            reader, writer = await _handshake(world, host, number)
            try:
                found = await _answer(reader, writer, case, rng)
            finally:
                writer.transport.abort()  # a reset: nobody says goodbye
    except (TimeoutError, OSError) as error:
        found = f"{type(error).__name__} {error}"
    if found:
        world.fault(f"{case.door}, {case.name}: {found}")


async def _handshake(world: World, host: str, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A websocket. A handshake that a machine with too much to do stretched beyond the server's limit is made again."""
    while True:
        reader, writer = await asyncio.open_connection(host, port)
        try:
            writer.write(upgrade())
            answer = await reader.readuntil(b"\r\n\r\n")
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.transport.abort()
            world.counts["hostile connections cut in the handshake"] += 1
        except BaseException:
            writer.transport.abort()
            raise
        else:
            if b" 101 " in answer:
                return reader, writer
            writer.transport.abort()
            raise ConnectionRefusedError(f"the handshake was refused: {answer[:60]!r}")


async def _answer(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, case: Case, rng: random.Random
) -> str:
    """What was wrong with the answer; empty if it was right."""
    writer.write(case.data(rng))
    if case.stays:
        writer.write(frame(9, b"still here"))
    elif not case.codes:
        return ""
    while True:
        try:
            opcode, payload = await _frame(reader)
        except asyncio.IncompleteReadError:
            return "" if not case.codes else f"ended without a close frame, {case.codes} is right"
        except ConnectionError as error:
            return f"{type(error).__name__}, {case.codes or 'to stay'} is right"
        if opcode == 8:
            code = int.from_bytes(payload[:2], "big")
            right = case.codes or "to stay"
            return "" if code in case.codes else f"closed with {code} {payload[2:]!r}, {right} is right"
        if opcode == 10 and case.stays:
            return "" if payload == b"still here" else f"a pong of {payload!r}"


async def _frame(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    first, second = await reader.readexactly(2)
    size = second & 0x7F
    if size == 126:
        size = int.from_bytes(await reader.readexactly(2), "big")
    elif size == 127:
        size = int.from_bytes(await reader.readexactly(8), "big")
    return first & 0x0F, await reader.readexactly(size)
