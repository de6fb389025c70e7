"""A reader of journal files written from docs/journal.md alone: it shares no line with the code that it checks.

Reads bytes and gives records; every rule of the format is checked. Slow and plain, but for the CRC of many records of
one width, which numpy does column by column.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256

import numpy as np

__all__ = ["JournalRead", "Record", "Unsound", "read_journal"]

SLOT, HEADER = 128, 4096
GROUP_MARK = 0x47524F55
K0, K1, K2 = 0xA0761D6478BD642F, 0xE7037ED1A0B428DB, 0x8EBC6AF09C88C6E3
MASK = (1 << 64) - 1
_HEADER = struct.Struct("<8sIIQQ16s32sqQQ")


class Unsound(Exception):
    """The files are not what docs/journal.md says."""


@dataclass(frozen=True, slots=True)
class Record:
    sequence: int
    chain: int
    kind: int
    ts: int
    body: bytes
    """All its slots."""
    is_first_of_group: bool


@dataclass(slots=True)
class JournalRead:
    records: list[Record]
    torn_bytes: int
    """Behind the last record: the rest of a write that never ended."""
    hole_before: int = 0
    """A whole record that is the first of its group stands behind the end, with this sequence: what is missing before
    it was synced once. 0: none."""


def _table() -> np.ndarray:
    table = np.zeros(256, np.uint32)
    for value in range(256):
        crc = value
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 if crc & 1 else 0)
        table[value] = crc
    return table


_TABLE = _table()
_TABLE_LIST = [int(value) for value in _TABLE]


def crc32c(data: bytes) -> int:
    crc = 0xFFFFFFFF
    for byte in data:
        crc = (crc >> 8) ^ _TABLE_LIST[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF


def _crc_of_slots(slots: np.ndarray) -> np.ndarray:
    """CRC32C of bytes 4 … 128 of each row."""
    crc = np.full(len(slots), 0xFFFFFFFF, np.uint32)
    for column in range(4, SLOT):
        crc = (crc >> np.uint32(8)) ^ _TABLE[(crc ^ slots[:, column]) & np.uint32(0xFF)]
    return crc ^ np.uint32(0xFFFFFFFF)


def _fold(a: int, b: int) -> int:
    product = a * b
    return (product & MASK) ^ (product >> 64)


@lru_cache(maxsize=4_096)
def chain_after(chain: int, body: bytes) -> int:
    """The chain word of a record behind one with `chain`. Kept, since each recovery of a world reads it all again."""
    words = list(struct.unpack(f"<{len(body) // 8}Q", body))
    words[0] &= MASK ^ 0xFFFFFFFF
    words[3] = 0
    total = 0
    for i in range(0, len(words), 2):
        total ^= _fold(words[i] ^ ((K0 + i) & MASK), words[i + 1] ^ ((K1 - i) & MASK))
    return (_fold(chain ^ K2, total ^ K0) + total) & MASK


def read_journal(files: dict[str, bytes]) -> JournalRead:
    """The records of segments by name. Raises Unsound."""
    names = sorted(name for name in files if name.endswith(".journal"))
    records: list[Record] = []
    torn, chain, digest, used, hole_before = 0, None, bytes(32), 0, 0
    for place, name in enumerate(names):
        data = files[name]
        if len(data) < HEADER:
            raise Unsound(f"{name}: shorter than a header")
        magic, form, layout, first, before, identity, before_digest, _, size, before_slots = _HEADER.unpack_from(data)
        if magic != b"BYLINEJ\0" or (form, layout) != (1, 1) or size != len(data):
            raise Unsound(f"{name}: header")
        if crc32c(data[: HEADER - 4]) != struct.unpack_from("<I", data, HEADER - 4)[0]:
            raise Unsound(f"{name}: checksum of the header")
        if first != len(records) + 1 or int(name.rpartition("/")[2].split(".")[0]) != first:
            raise Unsound(f"{name}: begins with {first} behind {len(records)}")
        if chain is None:
            chain = int.from_bytes(identity[:8], "little")
        if before != chain or before_digest != digest or before_slots != used:
            raise Unsound(f"{name}: does not continue the segment before")
        is_last = place == len(names) - 1
        slots = np.frombuffer(data, np.uint8, (len(data) - HEADER) // SLOT * SLOT, HEADER).reshape(-1, SLOT)
        crcs = _crc_of_slots(slots[: int(np.count_nonzero(slots.any(axis=1))) + 256])
        at, end = 0, len(slots)
        while at < end and slots[at, 5]:
            width = int(slots[at, 5])
            start = HEADER + at * SLOT
            body = bytes(data[start : start + width * SLOT])
            stored = int.from_bytes(body[:4], "little")
            crc = int(crcs[at]) if width == 1 and at < len(crcs) else crc32c(body[4:])
            sequence = int.from_bytes(body[8:16], "little")
            after = chain_after(chain, body)
            if (
                stored not in (crc, crc ^ GROUP_MARK)
                or sequence != len(records) + 1
                or int.from_bytes(body[24:32], "little") != after
            ):
                break
            chain = after
            records.append(
                Record(
                    sequence, chain, body[4], int.from_bytes(body[16:24], "little", signed=True), body, stored != crc
                )
            )
            at += width
        used = at
        rest = bytes(data[HEADER + at * SLOT :]).rstrip(b"\0")
        if rest and not is_last:
            raise Unsound(f"{name}: slot {at} is no record, and a segment follows")
        torn = len(rest)
        hole_before = _later_group(slots[at:], -(-len(rest) // SLOT), len(records))
        digest = sha256(data[HEADER : HEADER + at * SLOT]).digest()
    return JournalRead(records, torn, hole_before)


def _later_group(slots: np.ndarray, used: int, sequence: int) -> int:
    """The first whole record to begin in `used` of these slots, and a group, that comes after `sequence`. 0: none."""
    for at in range(used):
        body = bytes(slots[at : at + int(slots[at, 5])].data)
        if not body or len(body) != int(slots[at, 5]) * SLOT:
            continue
        found = int.from_bytes(body[8:16], "little")
        if found > sequence and int.from_bytes(body[:4], "little") == crc32c(body[4:]) ^ GROUP_MARK:
            return found
    return 0
