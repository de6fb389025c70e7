"""What is fuzzed: each target takes any bytes, and what may not happen raises.

A target refuses what it must with the one error of its kind; anything else that leaves it is a finding. Where two parts
read the same bytes (the JSON scanner and the thorough path, a decoder and its encoder) they must agree.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import cache
from itertools import count
from typing import Any

from byline.client import generate_key, public_key, sign_in_signature
from engine.core import Core
from engine.messages.encode import Malformed
from engine.messages.errors import JournalCorrupt
from gateway.keys import ApiKey, Scope
from gateway.session import CommandRefused, Send, Session, SessionTerms, State, Submit
from gateway.wire import json as wire
from gateway.wire.binary import command_count
from persistence import segments
from persistence.backup import PartHeader
from persistence.disk import SystemClock
from persistence.journal import Journal, JournalSettings, new_tail
from persistence.ring import chain_word, crc32c
from persistence.snapshot import read_snapshot, snapshot_name
from settlement.chain.encoding import Reader, Row, VaultHeader
from settlement.chain.events import decode_event
from settlement.chain.localsui.node import Rejected
from settlement.chain.localsui.node import _decode as decode_transaction
from tests.support.disk import Node, SimulatedDisk

__all__ = ["TARGETS", "resealed", "seeds_of"]

Target = Callable[[bytes], bool]
"""True: the bytes were understood, so what lies behind the first refusal was reached."""
FRAME_MAX = 1 << 16
ANY, OPEN_END, RESERVED = 2, 16, 32
GROUP_MARK = 0x47524F55
"""In the checksum of a group's first record (docs/journal.md)."""
KEY = generate_key()
ALICE = 2
"""Who sends the records: in the core of `_listed` as in the directory that their words are made with."""


# ------------------------------------------------------------------------------------------------ order entry


class _Keys:
    def find(self, key: str) -> ApiKey | None:
        return ApiKey(key, ("alice", "house"), Scope.TRADE | Scope.READ, "") if key == public_key(KEY) else None


def _session(data: bytes) -> bool:
    """Frames of one connection, the first byte says whether it has signed in. Lengths of two bytes before each, whose
    lowest bits choose the opcode; with 2 it is in a byte of its own, with the bits of a last fragment and of the
    reserve."""
    nonces = (f"{number:064x}" for number in count(1))
    terms = SessionTerms("local", 1, _Keys(), _encode, lambda: next(nonces), lambda: 5, {"house"}.__contains__)
    session = Session(terms)
    hello = json.loads(session.connect()[0].payload)
    if data[:1] and data[0] & 1:
        signature = sign_in_signature(KEY, "local", 1, hello["nonce"])
        frame = {"op": "sign_in", "key": public_key(KEY), "signature": signature, "nonce": hello["nonce"]}
        list(session.receive(1, json.dumps(frame).encode()))
    understood = False
    for opcode, frame in _frames(data[1:]):
        if session.state is State.CLOSED:
            break
        told = {"is_final": not opcode & OPEN_END, "has_reserved_bits": bool(opcode & RESERVED)}
        for output in session.receive(opcode & 15, frame, **told):
            understood = understood or isinstance(output, Submit)
            if isinstance(output, Send) and isinstance(output.payload, bytes) and output.payload[:1] in b"{[":
                json.loads(output.payload)
    return understood


def _frames(data: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at + 2 <= len(data):
        (head,) = struct.unpack_from("<H", data, at)
        size, frame = head >> 2, data[at + 2 : at + 2 + (head >> 2)]
        yield (frame[0], frame[1:]) if head & 3 == ANY and frame else ((1, 2, 1, 9)[head & 3], frame)
        at += 2 + size


def _encode(command: dict[str, Any]) -> bytes:
    from tests.unit.gateway.test_scan import ENCODER

    try:
        return bytes(ENCODER.encode(command))
    except Malformed as error:
        raise CommandRefused("malformed", error.field, error.rule) from error


def _json(data: bytes) -> bool:
    """What the scanner takes, the thorough path takes too, to the same bytes."""
    from tests.unit.gateway.test_scan import ENCODER, scanned

    quick = scanned(data)
    try:
        value = wire.parse(data)
    except (wire.BadText, wire.BadJson, wire.HasFraction):
        assert quick is None, "the scanner takes what is no JSON of this protocol"
        return False
    json.dumps(value)
    if quick is not None:
        assert isinstance(value, dict) and bytes(ENCODER.encode(_bare(value))) == quick
    return quick is not None


def _bare(value: dict[str, Any]) -> dict[str, Any]:
    """As the session gives it on: whose account it is, it has settled before (and refused, if it is another's)."""
    return {key: field for key, field in value.items() if key != "rid"} | {"account": "alice"}


def _binary(data: bytes) -> bool:
    """Records from a client: a count, or none; and a record that passes is the one that the JSON encoder makes of its
    words, and applies without breaking the core."""
    from tests.unit.gateway.test_binary import judge

    number = command_count(data)
    if number <= 0:
        return False
    at, understood = 0, False
    for _ in range(number):
        size = data[at + 5] * 128
        record = bytearray(data[at : at + size])
        if judge(bytes(record)) is None:
            core = _listed()
            record[8:24] = struct.pack("<Qq", core.sequence + 1, 1_000)
            core.apply(bytes(record))
            core.check()
            understood = True
        at += size
    return understood


def _listed() -> Core:
    """A core with two assets, a market and an account with money, made anew."""
    return Core.restore(_listed_state())


@cache
def _listed_state() -> bytes:
    from engine.messages.directory import Directory
    from engine.messages.encode import CommandEncoder

    core, directory = Core(), Directory()
    for sequence, command in enumerate(
        (
            {"op": "asset", "asset": "USD", "scale": 6}, {"op": "asset", "asset": "CRT", "scale": 2},
            {"op": "market", "market": "CRT-USD", "base": "CRT", "quote": "USD", "tick": "0.05", "lot": "0.1"},
            {"op": "account", "account": "alice"},
            {"op": "deposit", "account": "alice", "asset": "USD", "amount": "1000000", "ref": "d1"},
            {"op": "deposit", "account": "alice", "asset": "CRT", "amount": "1000000", "ref": "d2"},
        ),
        1,
    ):  # fmt: skip
        record = CommandEncoder(directory).encode(command)
        record[8:16] = sequence.to_bytes(8, "little")
        directory.learn(core.apply(record))
    return bytes(core.snapshot())


# ------------------------------------------------------------------------------------------------------ files


def _disk(path: str, data: bytes) -> SimulatedDisk:
    disk = SimulatedDisk()
    node = Node()
    node.cached, node.stored = bytearray(data), bytearray(data)
    disk.files[path] = node
    return disk


def _journal(data: bytes) -> bool:
    """A segment of 73,728 bytes from these. By the first byte its header's checksum is made to fit (1), those of its
    records (2, and their chain words), and their sequences (4)."""
    whole = bytearray(data[1:].ljust(73_728, b"\0")[:73_728])
    if data[:1] and data[0] & 2:
        _reseal_records(whole, is_numbered=bool(data[0] & 4))
    if data[:1] and data[0] & 1:
        whole[4092:4096] = crc32c(bytes(whole[:4092])).to_bytes(4, "little")
    first = int.from_bytes(whole[16:24], "little")
    disk = _disk(segments.segment_name(1 if first >= 10**20 else first), bytes(whole))
    taken: list[tuple[int, int]] = []
    try:
        listed = segments.list_segments(disk)
        tail = segments.scan(disk, listed, lambda slots, first, last: taken.append((first, last)), check_sha256=True)
    except JournalCorrupt:
        return False
    assert all(before[1] + 1 == after[0] for before, after in zip(taken, taken[1:], strict=False))
    assert tail.sequence == (taken[-1][1] if taken else tail.sequence)
    segments.cut_tail(disk, tail)
    again = segments.scan(disk, segments.list_segments(disk), check_sha256=True)
    assert (again.sequence, again.chain, again.torn_bytes) == (tail.sequence, tail.chain, 0)
    return tail.sequence > 1


def _reseal_records(whole: bytearray, *, is_numbered: bool) -> None:
    at, sequence = segments.HEADER_BYTES, int.from_bytes(whole[16:24], "little")
    chain = int.from_bytes(whole[24:32], "little")
    while at < len(whole) and whole[at + 5]:
        end = at + 128 * whole[at + 5]
        if is_numbered:
            whole[at + 8 : at + 16] = (sequence & (1 << 64) - 1).to_bytes(8, "little")
        chain = chain_word(chain, bytes(whole[at:end].ljust(end - at, b"\0")))
        whole[at + 24 : at + 32] = chain.to_bytes(8, "little")
        crc = crc32c(bytes(whole[at + 4 : end]))
        is_first = at == segments.HEADER_BYTES or whole[at] & 1
        whole[at : at + 4] = (crc ^ GROUP_MARK if is_first else crc).to_bytes(4, "little")
        at, sequence = end, sequence + 1


def _snapshot(data: bytes) -> bool:
    """Header and body of a snapshot's file, and the core's own reader of the body; then of what lies behind a digest
    that is made to fit: whatever is read there is a state that can be written and read again."""
    sequence = int.from_bytes(data[16:24].ljust(8, b"\0"), "little")
    path = snapshot_name(sequence)
    with suppress(ValueError):  # refused, as it must be
        read_snapshot(_disk(path, data), path)
    body = data[128:]
    core, behind = _restored(body), _restored(resealed(body))
    if core is not None:
        core.check()
        assert bytes(core.snapshot()) == body, "a state that is read is the state that is written"
    if behind is not None:
        again = _restored(bytes(behind.snapshot()))
        assert again is not None and again.state_hash() == behind.state_hash(), "what it wrote it does not read"
    return core is not None or behind is not None


def _restored(body: bytes) -> Core | None:
    try:
        return Core.restore(body)
    except ValueError:
        return None


def resealed(body: bytes) -> bytes:
    """The body with the SHA-256 of what stands before its last 32 bytes."""
    return body[:-32] + hashlib.sha256(body[:-32]).digest()


def _part(data: bytes) -> bool:
    """The header of a part of the backup."""
    try:
        part = PartHeader.unpack("x", data)
    except JournalCorrupt:
        return False
    assert part.pack()[16:104] == data[16:104]
    return True


# ------------------------------------------------------------------------------------------------------ chain


def _localsui(data: bytes) -> bool:
    """Transactions from a stranger, and objects and events from the chain."""
    understood = 0
    try:
        decode_transaction(data)
    except Rejected:
        understood -= 1
    for kind in (Row, VaultHeader):
        try:
            decoded = kind.decode(data)
        except ValueError:
            continue
        assert kind.decode(decoded.encode()) == decoded
        understood += 1
    for name in ("Deposited", "ExitRequested", "Withdrawn", "ExitCancelled", "BatchCommitted", "PauseChanged"):
        try:
            decode_event(f"0x1::settlement::{name}<0x2::usdc::USDC>", data, "0x1", checkpoint=1, digest="d", index=0)
        except ValueError:
            continue
    read = Reader(data)
    with suppress(ValueError):  # refused, as it must be
        read.vector_u8(), read.booleans(), read.u64s(), read.end()
    return understood >= 0


# -------------------------------------------------------------------------------------------------- market data


def _marketdata(data: bytes) -> bool:
    """Requests of one reader. The session never raises, whatever it is sent."""
    from marketdata.session import Session as ReaderSession

    rig = _rig()
    session = ReaderSession(rig.publisher, rig.settings)
    for number, (_, frame) in enumerate(_frames(data)):
        for answer in session.receive(frame, float(number)):
            assert answer
    understood = bool(session.subscriptions)
    for held in list(session.subscriptions.values()):
        rig.publisher.leave(session, held)
    return understood


@cache
def _rig() -> Any:
    from tests.unit.marketdata.test_publisher import Rig

    rig = Rig(seed=5)
    rig.step(200)
    return rig


TARGETS: dict[str, Target] = {
    "session": _session, "json": _json, "binary": _binary, "journal": _journal, "snapshot": _snapshot, "part": _part,
    "localsui": _localsui, "marketdata": _marketdata,
}  # fmt: skip



# ------------------------------------------------------------------------------------------------------ beginnings


def _framed(*frames: bytes, opcode: int = 0) -> bytes:
    return b"".join(struct.pack("<H", len(frame) << 2 | opcode) + frame for frame in frames)


def seeds_of(name: str) -> list[bytes]:
    """Well-formed inputs, made by the writers of what the target reads."""
    place = (
        b'{"op":"place","market":"CRT-USD","client_id":"a-1","side":"buy","type":"limit","size":"1.5","price":"2.05"}'
    )
    asks = (b'{"op":"ping","rid":1}', b'{"op":"open_orders","rid":"x"}', b'[{"op":"cancel","client_id":"a"}]', place)
    if name == "session":
        pieces = [bytes([1 | OPEN_END]) + place[:40], bytes([0 | OPEN_END]) + place[40:60], b"\0" + place[60:]]
        fragments = b"\1" + _framed(*pieces, opcode=ANY)
        reserved = b"\1" + _framed(bytes([1 | RESERVED]) + place, opcode=ANY)
        binary = b"\1" + _framed(bytes(128), opcode=1)
        return [b"\1" + _framed(*asks), b"\0" + _framed(place), binary, fragments, reserved]
    if name == "json":
        cancel_it = b'{"op":"cancel","client_id":"a-1","account":"alice"}'
        return [*asks, cancel_it, b'{"a":1e400,"a":"\\ud800"}', b"\xff\xfe"]
    if name == "binary":
        from tests.support.binary import cancel
        from tests.support.binary import place as placed

        order = placed(ALICE, "a-1", 0, 41, 15)
        return [order, cancel(ALICE, "a-1"), order + cancel(ALICE, 7), placed(ALICE, "b", 1, 40, 5, oco="a-1")]
    if name == "journal":
        return [b"\0" + _written(5), b"\1" + _written(60), b"\7" + _written(60), b"\1" + bytes(4096)]
    if name == "snapshot":
        return [bytes(128) + _listed_state(), bytes(128) + bytes(Core().snapshot())]
    if name == "part":
        return [PartHeader(bytes(16), 1, 1, 9, 7, 8, bytes(32)).pack()]
    if name == "localsui":
        return [Row(1, 2, 3, 4, 5).encode(), bytes(400), bytes(range(256))]
    subscribe = b'{"type":"subscribe","channel":"book:NOVA-USD","depth":10,"rid":3}'
    history = b'{"type":"history","channel":"candles.1m:NOVA-USD","limit":5}'
    replay = b'{"type":"replay","channel":"trades:NOVA-USD","from":0}'
    return [_framed(subscribe, b'{"type":"ping","rid":1}', history), _framed(replay)]


def _written(records: int) -> bytes:
    """A segment with that many cuts in groups of three."""
    disk = SimulatedDisk()
    settings = JournalSettings(segment_bytes=73_728, ring_slots=1024, reserved_slots=0)
    journal = Journal(disk, new_tail(bytes(16)), SystemClock(), settings, threads=False)
    for sequence in range(1, records + 1):
        record = bytearray(128)
        record[4], record[5] = 18, 1
        record[8:24] = struct.pack("<Qq", sequence, sequence)
        assert journal.append(record) == 0
        if sequence % 3 == 0:
            journal.publish()
            journal.step()
    journal.publish()
    journal.step()
    return bytes(disk.files[segments.segment_name(1)].cached[: 4096 + 128 * records])
