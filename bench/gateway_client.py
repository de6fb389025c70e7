"""The load on order entry: sockets signed in here, driven by `bench/native/gateway.c`, what came back judged here.

`Plan` is what one connection sends: the same draws as JSON, as records, or as bytes for an echo. `drive` sends the
plans of all connections at once and gives back the time of every frame and the place of every answer; `judge` reads
each of them and raises `WrongResult` if one is missing, of another request, out of order, or says what cannot be.
"""

from __future__ import annotations

import base64
import ctypes
import json
import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from numpy.typing import NDArray

from bench.driver import library
from bench.gateway_load import MARKET, frame
from bench.harness import WrongResult
from byline.client import public_key, sign_in_signature
from engine.messages import edge, layout
from engine.messages.codes import ABSENT, NIL, CommandKind, EventKind, RejectCode
from engine.messages.edge import MessageType

__all__ = ["PROTOCOLS", "Draws", "Plan", "Result", "Signed", "connect", "disk_sync_us", "drive", "judge", "plan"]

PROTOCOLS = {"echo": 0, "json": 1, "binary": 2}
PATIENCE_NS = 5_000_000_000
BYTES_PER_ANSWER = {"json": 1_600, "binary": 560}
"""Room for an answer and the private events that come with it."""


@dataclass(frozen=True, slots=True)
class Signed:
    """A connected socket, signed in; `account` is the index of its account, or NIL."""

    socket: socket.socket
    account: int


class _Connection(ctypes.Structure):
    _fields_ = tuple(
        (name, ctypes.c_int64)
        for name in ("fd", "out", "ends", "frames", "input", "room", "began", "took", "start", "stop", "sent",
                     "answers", "size", "parsed")
    )  # fmt: skip


# ---------------------------------------------------------------- connections


class _Reader:
    """Whole frames of a blocking socket, for the few before the load."""

    def __init__(self, connected: socket.socket) -> None:
        self._socket = connected
        self._data = b""

    def until(self, mark: bytes) -> bytes:
        while mark not in self._data:
            self._more()
        head, _, self._data = self._data.partition(mark)
        return head

    def message(self) -> dict[str, Any]:
        while len(self._data) < 4:
            self._more()
        size, at = (self._data[1], 2) if self._data[1] < 126 else (int.from_bytes(self._data[2:4], "big"), 4)
        while len(self._data) < at + size:
            self._more()
        payload, self._data = self._data[at : at + size], self._data[at + size :]
        return dict(json.loads(payload))

    def _more(self) -> None:
        got = self._socket.recv(65_536)
        if not got:
            raise WrongResult(f"the server closed: {self._data[:200]!r}")
        self._data += got


def connect(url: str, key: Ed25519PrivateKey | None, protocol: str) -> Signed:
    """A new connection that speaks `protocol`; signed in if there is a key."""
    host, port = url.removeprefix("ws://").split(":")
    connected = socket.create_connection((host, int(port)), 10)
    connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    offered = f"Sec-WebSocket-Protocol: {edge.PROTOCOL}\r\n" if protocol == "binary" else ""
    nonce = base64.b64encode(os.urandom(16)).decode()
    connected.sendall(
        f"GET / HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n{offered}"
        f"Sec-WebSocket-Key: {nonce}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
    )
    reader = _Reader(connected)
    status = reader.until(b"\r\n\r\n")
    if b" 101 " not in status.splitlines()[0]:
        raise WrongResult(status.decode())
    account = NIL
    if key is not None:
        hello = reader.message()
        signature = sign_in_signature(key, hello["environment"], hello["epoch"], hello["nonce"])
        # What is open at the end stays open: between two runs the journal is to hold nothing else.
        command = {"op": "sign_in", "key": public_key(key), "signature": signature, "cancel_on_disconnect": False}
        connected.sendall(frame(json.dumps(command).encode()))
        answer = reader.message()
        if answer.get("type") != "signed_in":
            raise WrongResult(f"sign-in: {answer}")
        account = answer.get("account_indices", [NIL])[0]
    connected.setblocking(False)
    return Signed(connected, account)


# ---------------------------------------------------------------- what is sent


@dataclass(frozen=True, slots=True)
class Draws:
    """The commands of one connection in numbers: a place, then the cancel of the order placed eight places before it.

    One place in ten crosses the spread (98 … 102 ticks), the others wait up to ten ticks behind it, so the book holds
    some eight orders of each connection however long a run is.
    """

    names: list[str]
    is_cancel: NDArray[np.bool_]
    target: NDArray[np.int64]
    side: NDArray[np.int64]
    price: NDArray[np.int64]
    size: NDArray[np.int64]

    @classmethod
    def of(cls, count: int, prefix: str, rng: np.random.Generator) -> Draws:
        at = np.arange(count)
        side = rng.integers(0, 2, count)
        behind = np.where(rng.integers(0, 10, count) == 0, -5, rng.integers(0, 10, count))
        price = np.where(side == 0, 98 - behind, 102 + behind)
        target = np.maximum(at - 17, 0)
        return cls(
            [f"{prefix}-{n}" for n in range(count)], at % 2 == 1, target, side, price, rng.integers(1, 9, count)
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Plan:
    """Frames of one connection, masked, one behind another, and where each ends. `per_frame` commands in each."""

    protocol: str
    draws: Draws
    out: NDArray[np.uint8]
    ends: NDArray[np.int64]
    per_frame: int


def _json_frames(draws: Draws) -> list[bytes]:
    frames = []
    for rid, name in enumerate(draws.names):
        if draws.is_cancel[rid]:
            text = f'{{"rid":{rid},"op":"cancel","client_id":"{draws.names[draws.target[rid]]}"}}'
        else:
            text = (
                f'{{"rid":{rid},"op":"place","market":"{MARKET}","client_id":"{name}",'
                f'"side":"{"sell" if draws.side[rid] else "buy"}","type":"limit","size":"{draws.size[rid]}",'
                f'"price":"{draws.price[rid] / 100:.2f}"}}'
            )
        frames.append(frame(text.encode()))
    return frames


def _records(draws: Draws, account: int) -> NDArray[np.void]:
    made = np.zeros(len(draws.names), layout.PLACE)
    names = np.array(draws.names, "S32")
    made["kind"], made["slots"], made["account"] = CommandKind.PLACE, 1, account
    made["sequence"] = np.arange(len(made))
    made["client_id"], made["price"], made["size"], made["side"], made["type"] = (
        names, draws.price, draws.size, draws.side, 1,
    )  # fmt: skip
    for field in ("stop_price", "display_size", "expires_at"):
        made[field] = ABSENT
    cancels = np.zeros(int(draws.is_cancel.sum()), layout.CANCEL)
    for field in ("slots", "account", "sequence"):
        cancels[field] = made[field][draws.is_cancel]
    cancels["kind"], cancels["client_id"] = CommandKind.CANCEL, names[draws.target[draws.is_cancel]]
    made.view(layout.CANCEL)[draws.is_cancel] = cancels
    return made


def plan(protocol: str, draws: Draws, account: int, per_frame: int = 1, *, binary_echo: bool = False) -> Plan:
    """The frames of `draws`. An echo gets the very bytes that order entry would get, as JSON or as records."""
    count = len(draws.names) // per_frame
    if protocol == "json" or (protocol == "echo" and not binary_echo):
        frames = _json_frames(draws)
        return Plan(
            protocol, draws, np.frombuffer(b"".join(frames), np.uint8), np.cumsum([len(f) for f in frames]), 1
        )  # fmt: skip
    size = per_frame * layout.SLOT_BYTES
    head = bytes([0x82, 0xFE, size >> 8, size & 0xFF, 0, 0, 0, 0])
    if size < 126:
        raise ValueError("a record is longer than that")
    whole = np.zeros((count, len(head) + size), np.uint8)
    whole[:, : len(head)] = np.frombuffer(head, np.uint8)
    whole[:, len(head) :] = _records(draws, account)[: count * per_frame].view(np.uint8).reshape(count, size)
    ends = np.arange(1, count + 1) * (len(head) + size)
    return Plan(protocol, draws, whole.reshape(-1), ends, 1 if protocol == "echo" else per_frame)


# ---------------------------------------------------------------- the run


@dataclass(frozen=True, slots=True)
class Result:
    """What came of one run. `took_ns`: of every frame, from send (or plan, in open loop) to its last answer."""

    elapsed_s: float
    took_ns: NDArray[np.int64]
    answers: list[tuple[Plan, NDArray[np.uint8], NDArray[np.int64], NDArray[np.int64]]]
    """Plan, all bytes received, and where each answer begins and ends, of every connection."""

    @property
    def commands(self) -> int:
        return sum(len(start) for _, _, start, _ in self.answers)

    def percentile_us(self, percent: float) -> float:
        return float(np.percentile(self.took_ns, percent)) / 1_000


def drive(sockets: Sequence[Signed], plans: Sequence[Plan], in_flight: int, rate: float | None = None) -> Result:
    """Send all plans: closed loop with `in_flight` frames unanswered, or open loop with `rate` frames a second.

    Raises:
        WrongResult: a connection ended, or answers stayed away.
    """
    per_frame, protocol = plans[0].per_frame, plans[0].protocol
    connections = (_Connection * len(plans))()
    kept = []
    for at, (signed, made) in enumerate(zip(sockets, plans, strict=True)):
        frames, count = len(made.ends), len(made.ends) * per_frame
        room = 65_536 + (len(made.out) if protocol == "echo" else count * BYTES_PER_ANSWER[protocol])
        arrays: dict[str, NDArray[Any]] = {
            # Written, so that the pages are there before the clock starts.
            "input": np.full(room, 1, np.uint8),
            "began": np.full(frames, 0, np.int64), "took": np.full(frames, 0, np.int64),
            "start": np.full(count, 0, np.int64), "stop": np.full(count, 0, np.int64),
            "out": np.ascontiguousarray(made.out), "ends": np.ascontiguousarray(made.ends, np.int64),
        }  # fmt: skip
        for name, array in arrays.items():
            setattr(connections[at], name, array.ctypes.data)
        connections[at].fd, connections[at].frames, connections[at].room = signed.socket.fileno(), frames, room
        kept.append(arrays)
    elapsed = ctypes.c_int64()
    run = library("gateway").drive
    run.restype = ctypes.c_int64
    status = run(
        connections, ctypes.c_int64(len(plans)), ctypes.c_int64(PROTOCOLS[protocol]), ctypes.c_int64(per_frame),
        ctypes.c_int64(in_flight), ctypes.c_int64(0 if rate is None else int(1e9 / rate)),
        ctypes.c_int64(PATIENCE_NS), ctypes.byref(elapsed),
    )  # fmt: skip
    if status:
        answered = sum(connection.answers for connection in connections)
        tails = [bytes(kept[n]["input"][max(0, connections[n].size - 300) : connections[n].size]) for n in range(1)]
        raise WrongResult(f"{os.strerror(-status)} after {answered} answers; one connection ended with {tails[0]!r}")
    answers = [(made, k["input"], k["start"], k["stop"]) for made, k in zip(plans, kept, strict=True)]
    return Result(elapsed.value / 1e9, np.concatenate([k["took"] for k in kept]), answers)


# ---------------------------------------------------------------- what it said


def judge(result: Result) -> tuple[int, int]:
    """The lowest and the highest sequence of all answers; together they must be one range without a gap.

    Raises:
        WrongResult: an answer is of another request, says what cannot be, or a sequence is missing or told twice.
    """
    parts = [
        (_judge_json if made.protocol == "json" else _judge_records)(made, data, start, stop)
        for made, data, start, stop in result.answers
    ]
    for sequences in parts:
        if np.any(np.diff(sequences) <= 0):
            raise WrongResult("sequences of one connection do not rise")
    found = np.sort(np.concatenate(parts))
    if np.any(np.diff(found) != 1):
        raise WrongResult("the sequences of all answers are no gapless range")
    return int(found[0]), int(found[-1])


def _judge_json(made: Plan, data: NDArray[np.uint8], start: NDArray[np.int64], stop: NDArray[np.int64]) -> Any:
    whole, draws = data.tobytes(), made.draws
    sequences = np.zeros(len(start), np.int64)
    for rid in range(len(start)):
        ack = json.loads(whole[start[rid] : stop[rid]])
        if draws.is_cancel[rid]:
            good = ack.get("event") == "canceled" or ack.get("reason") == "unknown_order"
        else:
            good = ack.get("event") == "accepted" and ack["client_id"] == draws.names[rid]
        if ack["rid"] != rid or not good or not ack["t_in"] <= ack["t_matched"] <= ack["t_out"]:
            raise WrongResult(f"request {rid} was answered {ack}")
        sequences[rid] = ack["sequence"]
    return sequences


def _judge_records(made: Plan, data: NDArray[np.uint8], start: NDArray[np.int64], stop: NDArray[np.int64]) -> Any:
    count, draws = len(start), made.draws
    size = edge.ACK.itemsize + layout.SLOT_BYTES
    if np.any(stop - start != size):
        rid = int(np.argmax(stop - start != size))
        answer = data[start[rid] : stop[rid]].tobytes()
        told = (
            np.frombuffer(answer, edge.REFUSAL)[0] if len(answer) == edge.REFUSAL.itemsize else f"{len(answer)} bytes"
        )
        raise WrongResult(f"request {rid} of {count} was answered {told}, no ack with one event")
    rows = data[start[:, None] + np.arange(size)]
    acks = np.ascontiguousarray(rows[:, : edge.ACK.itemsize]).view(edge.ACK)[:, 0]
    events = np.ascontiguousarray(rows[:, edge.ACK.itemsize :])
    accepted, canceled = events.view(layout.ACCEPTED)[:, 0], events.view(layout.CANCELED)[:, 0]
    names = np.array(draws.names[:count], "S32")
    is_cancel, wanted = draws.is_cancel[:count], names[draws.target[:count]]
    kind, reason = accepted["kind"], accepted["reason"]
    good = np.where(
        is_cancel,
        ((kind == EventKind.CANCELED) & (canceled["client_id"] == wanted))
        | ((kind == EventKind.REJECTED) & (reason == RejectCode.UNKNOWN_ORDER)),
        (kind == EventKind.ACCEPTED) & (accepted["client_id"] == names) & (accepted["price"] == draws.price[:count])
        & (accepted["size"] == draws.size[:count]),
    )  # fmt: skip
    good &= (acks["type"] == MessageType.ACK) & (acks["rid"] == np.arange(count))
    good &= (acks["sequence"] == accepted["sequence"]) & (acks["t_in"] <= acks["t_matched"])
    good &= acks["t_matched"] <= acks["t_out"]
    if not np.all(good):
        rid = int(np.argmin(good))
        raise WrongResult(f"request {rid} was answered {acks[rid]}, {accepted[rid]}")
    return acks["sequence"].astype(np.int64)


def disk_sync_us(folder: str, count: int = 200) -> float:
    """Median time of one record written and synced (fdatasync) into a zero-filled file there, microseconds."""
    import time

    path = os.path.join(folder, "sync-probe")
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        os.write(descriptor, bytes(count * 4_096))
        os.fsync(descriptor)
        taken = []
        for at in range(count):
            begun = time.perf_counter_ns()
            os.pwrite(descriptor, b"\1" * layout.SLOT_BYTES, at * 4_096)
            os.fdatasync(descriptor)
            taken.append(time.perf_counter_ns() - begun)
    finally:
        os.close(descriptor)
        os.unlink(path)
    return float(np.median(taken)) / 1_000
