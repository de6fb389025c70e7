"""Where the API asks for proofs: a unix socket of the settling process, since the trees live there.

    request   a line {"batch": n or null, "account": name}       answer   a line {"proofs": […]} or {"problem": word}

Null is the last final batch. Problems: `unknown_batch`, `no_balance`, `not_final`. The socket is in DATA/run with mode
0600: whoever may open it may read the data directory anyway. Nothing here changes anything.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import msgspec

from engine.messages.errors import Unavailable
from files.durable import keep_name, make_directory, make_once
from settlement.liabilities import KEPT_BATCHES, Liabilities, UnknownBatch
from settlement.merkle import Proof

__all__ = ["ProofClient", "ProofFile", "ProofProblem", "ProofSettings", "load_proof_key", "serve_proofs"]

SOCKET = Path("run") / "proofs.sock"
_ANSWER_S = 10.0
_LINE_BYTES = 1 << 22


class ProofFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All balances of one account in one batch: what a user keeps."""

    format: Literal["byline proof 1"]
    proofs: list[Proof]


class ProofProblem(Exception):
    """No proof; `reason` is one of the words above."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class ProofSettings:
    """`key`: the exchange's secret for salts. `keep`: batches of which proofs are made. `publication`: the last batch
    and the digest of the published journal, asked for at each cut."""

    key: bytes = bytes(32)
    keep: int = KEPT_BATCHES
    publication: Callable[[], tuple[int, bytes]] = lambda: (0, bytes(32))


class _Request(msgspec.Struct, forbid_unknown_fields=True):
    account: str
    batch: int | None = None


class _Answer(msgspec.Struct, omit_defaults=True):
    proofs: list[Proof] = []
    problem: str = ""


def load_proof_key(path: Path) -> bytes:
    """32 bytes, made at the first call (mode 0600). It hides names in leaves and in the published journal; it signs
    nothing and opens nothing."""
    if not path.exists():
        make_directory(path.parent)
        make_once(path, os.urandom(32), mode=0o600)
    # Lost, it would halt settlement at the next start: also one that a start made which died before it came here.
    keep_name(path)
    key = path.read_bytes()
    if len(key) != 32:
        raise ValueError(f"{path} has {len(key)} bytes, not 32")
    return key


async def serve_proofs(
    data: Path, liabilities: Callable[[], Liabilities], final_batch: Callable[[], int], stop: asyncio.Event
) -> None:
    """Answers until `stop` is set. `liabilities` and `final_batch` are asked at each request."""

    def answer(line: bytes) -> _Answer:
        request = msgspec.json.decode(line, type=_Request)
        number = final_batch() if request.batch is None else request.batch
        if number > final_batch():
            return _Answer(problem="not_final" if number <= liabilities().last else "unknown_batch")
        try:
            return _Answer(liabilities().prove(number, request.account))
        except UnknownBatch:
            return _Answer(problem="unknown_batch")
        except KeyError:
            return _Answer(problem="no_balance")

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, msgspec.MsgspecError, ValueError):  # nonsense is hung up on
            while line := await reader.readline():
                writer.write(msgspec.json.encode(answer(line)) + b"\n")
                await writer.drain()
        writer.close()

    with _short(data) as path:
        path.unlink(missing_ok=True)
        mask = os.umask(0o177)
        try:
            server = await asyncio.start_unix_server(serve, path)
        finally:
            os.umask(mask)
        async with server:
            await stop.wait()


class ProofClient:
    """The API's side. One connection a question: they are rare, and the desk may have been restarted."""

    def __init__(self, data: Path) -> None:
        self._data = data

    async def prove(self, account: str, batch: int | None) -> list[Proof]:
        """A proof for each asset. Raises ProofProblem, Unavailable."""
        try:
            with _short(self._data) as path:
                reader, writer = await asyncio.open_unix_connection(path, limit=_LINE_BYTES)
            try:
                writer.write(msgspec.json.encode(_Request(account, batch)) + b"\n")
                async with asyncio.timeout(_ANSWER_S):
                    answer = msgspec.json.decode(await reader.readline(), type=_Answer)
            finally:
                writer.close()
        except (OSError, TimeoutError, msgspec.MsgspecError, ValueError) as error:
            raise Unavailable(f"settlement makes no proofs now: {type(error).__name__}") from error
        if answer.problem:
            raise ProofProblem(answer.problem)
        return answer.proofs


@contextlib.contextmanager
def _short(data: Path) -> Iterator[Path]:
    """The socket by way of its directory's descriptor: a socket's own path may have 107 characters only."""
    directory = data / SOCKET.parent
    directory.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield Path(f"/proc/self/fd/{descriptor}") / SOCKET.name
    finally:
        os.close(descriptor)
