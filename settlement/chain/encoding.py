"""Sui's binary forms that both the adapter and the embedded node need: BCS pieces, digests, the vault's layout.

Checked against pysui's own serialisation in the tests. Everything here is pure.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import base58
import msgspec

__all__ = [
    "CLOCK_ID", "SUI_COIN", "Reader", "Row", "VaultHeader", "address_bytes", "address_text", "base58_text",
    "blake2b256", "dynamic_field_id", "object_digest", "transaction_digest", "type_tag", "u128", "u64", "uleb128",
    "vector", "vector_u8",
]  # fmt: skip

SUI_COIN = "0x2::coin::Coin<0x2::sui::SUI>"
ADDRESS_TYPE_TAG = b"\x04"
_PRIMITIVE_TAGS = {"bool": 0, "u8": 1, "u64": 2, "u128": 3, "address": 4, "signer": 5, "u16": 8, "u32": 9, "u256": 10}


def address_bytes(text: str) -> bytes:
    """`0x…` of 1–64 hex digits as 32 bytes. ValueError if longer or no hex."""
    raw = bytes.fromhex(text.removeprefix("0x").rjust(64, "0"))
    if len(raw) != 32:
        raise ValueError(f"address: {text!r} is longer than 32 bytes")
    return raw


def address_text(raw: bytes) -> str:
    assert len(raw) == 32, len(raw)
    return "0x" + raw.hex()


CLOCK_ID = address_bytes("0x6")


def base58_text(raw: bytes) -> str:
    return base58.b58encode(raw).decode()


def blake2b256(*parts: bytes) -> bytes:
    return hashlib.blake2b(b"".join(parts), digest_size=32).digest()


def u64(number: int) -> bytes:
    return number.to_bytes(8, "little")


def u128(number: int) -> bytes:
    return number.to_bytes(16, "little")


def uleb128(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def vector(items: Iterable[bytes]) -> bytes:
    items = list(items)
    return uleb128(len(items)) + b"".join(items)


def vector_u8(data: bytes) -> bytes:
    return uleb128(len(data)) + data


class Reader:
    """Reads BCS. ValueError when the bytes end early."""

    def __init__(self, data: bytes) -> None:
        self.data, self.position = data, 0

    def take(self, count: int) -> bytes:
        piece = self.data[self.position : self.position + count]
        if len(piece) != count:
            raise ValueError(f"BCS ends after {len(self.data)} bytes, {count} more wanted at {self.position}")
        self.position += count
        return piece

    def u64(self) -> int:
        return int.from_bytes(self.take(8), "little")

    def u128(self) -> int:
        return int.from_bytes(self.take(16), "little")

    def boolean(self) -> bool:
        byte = self.take(1)[0]
        if byte > 1:
            raise ValueError(f"BCS bool of {byte}")
        return byte == 1

    def uleb128(self) -> int:
        result = shift = 0
        while True:
            byte = self.take(1)[0]
            result |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return result
            if shift > 28:
                raise ValueError("BCS length of more than 32 bits")

    def vector_u8(self) -> bytes:
        return self.take(self.uleb128())

    def vector(self, width: int) -> list[bytes]:
        return [self.take(width) for _ in range(self.uleb128())]

    def u64s(self) -> tuple[int, ...]:
        return tuple(int.from_bytes(item, "little") for item in self.vector(8))

    def booleans(self) -> tuple[bool, ...]:
        return tuple(self.boolean() for _ in range(self.uleb128()))

    def end(self) -> None:
        if self.position != len(self.data):
            raise ValueError(f"BCS has {len(self.data) - self.position} bytes too many")


def transaction_digest(raw: bytes) -> bytes:
    return blake2b256(b"TransactionData::", raw)


def dynamic_field_id(parent: bytes, key: bytes, key_type: bytes = ADDRESS_TYPE_TAG) -> bytes:
    """What sui::dynamic_field::hash_type_and_key gives."""
    return blake2b256(b"\xf0", parent, u64(len(key)), key, key_type)


def type_tag(text: str) -> bytes:
    """BCS TypeTag of `0x2::coin::Coin<0x2::sui::SUI>`, `u64`, `vector<…>`."""
    text = text.strip()
    if text in _PRIMITIVE_TAGS:
        return bytes([_PRIMITIVE_TAGS[text]])
    if text.startswith("vector<"):
        return b"\x06" + type_tag(text[7:-1])
    return b"\x07" + _struct_tag(text)


def _struct_tag(text: str) -> bytes:
    head, _, tail = text.partition("<")
    package, module, name = head.strip().split("::")
    arguments = _split_arguments(tail[:-1]) if tail else []
    return (
        address_bytes(package)
        + vector_u8(module.encode())
        + vector_u8(name.encode())
        + vector(type_tag(argument) for argument in arguments)
    )


def _split_arguments(text: str) -> list[str]:
    parts, depth, start = [], 0, 0
    for index, character in enumerate(text):
        depth += (character == "<") - (character == ">")
        if character == "," and depth == 0:
            parts.append(text[start:index])
            start = index + 1
    return [*parts, text[start:]]


def object_digest(
    kind: str, version: int, contents: bytes, owner: bytes | None, initial_version: int | None, previous: bytes
) -> bytes:
    """Digest of a Move object. `owner` None means shared since `initial_version`."""
    is_coin = kind.startswith("0x2::coin::Coin<")
    if kind == SUI_COIN:
        form = b"\x01"
    elif is_coin:
        form = b"\x03" + type_tag(kind[len("0x2::coin::Coin<") : -1])
    else:
        form = b"\x00" + _struct_tag(kind)
    transferable = is_coin or kind.endswith("Cap")
    if owner is not None:
        owned = b"\x00" + owner
    else:
        assert initial_version is not None
        owned = b"\x02" + u64(initial_version)
    body = form + bytes([transferable]) + u64(version) + vector_u8(contents) + owned + vector_u8(previous) + u64(0)
    return blake2b256(b"Object::", b"\x00" + body)


class Row(msgspec.Struct, frozen=True):
    """`row::Row`: an account in a vault. `exit_amount` 0: no exit is asked for. row.move explains the other two."""

    balance: int = 0
    debt: int = 0
    exited: int = 0
    exit_amount: int = 0
    exit_ready_ms: int = 0

    def encode(self) -> bytes:
        return b"".join(map(u64, (self.balance, self.debt, self.exited, self.exit_amount, self.exit_ready_ms)))

    @classmethod
    def decode(cls, data: bytes) -> Row:
        read = Reader(data)
        row = cls(read.u64(), read.u64(), read.u64(), read.u64(), read.u64())
        read.end()
        return row


class VaultHeader(msgspec.Struct, frozen=True):
    """`settlement::Vault<T>` without its rows."""

    id: bytes
    version: int
    paused: bool
    admin: bytes
    operator: bytes
    next_seq: int
    next_part: int
    next_withdrawal: int
    exit_delay_ms: int
    chain: bytes
    last_root: bytes
    last_liabilities: int
    last_pool: int
    last_commit_ms: int
    deficit: int
    pool: int
    rows_id: bytes
    row_count: int

    def encode(self) -> bytes:
        return b"".join((
            self.id, u64(self.version), bytes([self.paused]), self.admin, self.operator, u64(self.next_seq),
            u64(self.next_part), u64(self.next_withdrawal), u64(self.exit_delay_ms), vector_u8(self.chain),
            vector_u8(self.last_root), u64(self.last_liabilities), u64(self.last_pool), u64(self.last_commit_ms),
            u128(self.deficit), u64(self.pool), self.rows_id, u64(self.row_count),
        ))  # fmt: skip

    @classmethod
    def decode(cls, data: bytes) -> VaultHeader:
        """ValueError if the bytes are no vault of this layout."""
        read = Reader(data)
        header = cls(
            id=read.take(32), version=read.u64(), paused=read.boolean(), admin=read.take(32),
            operator=read.take(32), next_seq=read.u64(), next_part=read.u64(), next_withdrawal=read.u64(),
            exit_delay_ms=read.u64(), chain=read.vector_u8(), last_root=read.vector_u8(),
            last_liabilities=read.u64(), last_pool=read.u64(), last_commit_ms=read.u64(), deficit=read.u128(),
            pool=read.u64(), rows_id=read.take(32), row_count=read.u64(),
        )  # fmt: skip
        read.end()
        return header
