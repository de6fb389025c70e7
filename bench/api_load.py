"""Requests over kept HTTP/1.1 connections, and a load that asks by the clock whether the answers keep up or not.

A latency is counted from when the request was planned, so an answer that is late makes those behind it late as well
(no coordinated omission). Every answer is read whole and judged by its request; a wrong one ends the bench.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import msgspec

from bench.harness import WrongResult

__all__ = ["Connection", "Request", "Timed", "drive"]


@dataclass(frozen=True, slots=True)
class Request:
    """`check` raises WrongResult of an answer's `data` that is not what was asked for."""

    name: str
    method: str
    path: str
    check: Callable[[Any], None]
    body: Any = None
    headers: Mapping[str, str] | None = None


@dataclass(frozen=True, slots=True)
class Timed:
    name: str
    milliseconds: float


class Connection:
    """One connection, one request at a time. `async with` opens and closes it."""

    def __init__(self, host: str, port: int) -> None:
        self._host, self._port = host, port

    async def __aenter__(self) -> Connection:
        await self._open()
        return self

    async def _open(self) -> None:
        self._reader, self._writer = await asyncio.open_connection(self._host, self._port)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._writer.close()
        await self._writer.wait_closed()

    async def send(
        self, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None
    ) -> tuple[int, bytes]:
        """Status and body. `body` is sent as JSON, bytes as they are. Opens anew what the server closed as idle."""
        if self._reader.at_eof():
            self._writer.close()
            await self._open()
        content = b"" if body is None else body if isinstance(body, bytes) else msgspec.json.encode(body)
        lines = [f"{method} {path} HTTP/1.1", f"host: {self._host}:{self._port}", f"content-length: {len(content)}"]
        if content and not isinstance(body, bytes):
            lines.append("content-type: application/json")
        lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
        self._writer.write("\r\n".join([*lines, "", ""]).encode() + content)
        head = await self._reader.readuntil(b"\r\n\r\n")
        status, length = int(head[9:12]), None
        for line in head.split(b"\r\n")[1:]:
            name, _, value = line.partition(b":")
            if name.lower() == b"content-length":
                length = int(value)
        if length is None:
            raise WrongResult(f"{method} {path}: an answer without a length, status {status}")
        return status, await self._reader.readexactly(length)

    async def data(
        self, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None
    ) -> Any:
        """The `data` of a good answer. Raises WrongResult of any other."""
        status, content = await self.send(method, path, body, headers)
        if not 200 <= status < 300:
            raise WrongResult(f"{method} {path}: {status} {content[:300].decode(errors='replace')}")
        return msgspec.json.decode(content)["data"]


async def drive(connections: Sequence[Connection], requests: Iterable[Request], per_second: float) -> list[Timed]:
    """Asks each request at its time, by whichever connection is free. Times in the order of the answers.

    Raises:
        WrongResult: an answer is no success, or not of its request.
    """
    timed: list[Timed] = []
    plan = enumerate(requests)
    start = time.perf_counter()

    async def work(connection: Connection) -> None:
        for number, request in plan:  # all of them take the next of one plan
            planned = start + number / per_second
            if (wait := planned - time.perf_counter()) > 0:
                await asyncio.sleep(wait)
            data = await connection.data(request.method, request.path, request.body, request.headers)
            timed.append(Timed(request.name, (time.perf_counter() - planned) * 1e3))
            request.check(data)

    async with asyncio.TaskGroup() as group:
        for connection in connections:
            group.create_task(work(connection))
    return timed
