"""The rights modules' objects in BCS: registered works, licence offers, licences, royalty tills; and why calls abort.

Field orders are those of copyright_registry.move, license.move and royalty.move. Ids and addresses are 32 bytes,
money is units of the coin, shares are basis points, times are UTC milliseconds. Pure.
"""

from __future__ import annotations

from typing import Any, ClassVar, Self

import msgspec

from settlement.chain.encoding import Reader, u64, vector, vector_u8

__all__ = [
    "RIGHTS_ABORTS", "ArbiterCap", "Grant", "License", "Offer", "Registry", "Till", "Work", "WorkCap", "decode",
    "encode",
]  # fmt: skip

RIGHTS_ABORTS = {
    "copyright_registry": {
        1: "the content is registered already", 2: "the content hash is not 32 bytes",
        3: "shares are not one each, above zero and 10,000 together", 4: "the capability is another work's",
        5: "the capability is another registry's", 6: "1 to 32 creators", 7: "a creator is named twice",
        8: "title or URI is longer than 1,024 bytes",
    },
    "license": {
        1: "the work is disputed", 2: "not the exact price", 3: "the offer is closed", 4: "the offer is another work's",
        5: "sold out", 6: "the licence is not transferable", 7: "terms out of range", 8: "unknown licence",
        9: "the licence is irrevocable", 10: "the licence is revoked already",
    },
    "royalty": {1: "nothing is due", 2: "amount is zero"},
}  # fmt: skip


def encode(form: str, value: Any) -> bytes:
    """BCS of one value. Forms: id, u64, bool, bytes, text, ids, u64s."""
    match form:
        case "id":
            assert len(value) == 32, len(value)
            return bytes(value)
        case "u64":
            return u64(value)
        case "bool":
            return bytes([value])
        case "bytes":
            return vector_u8(value)
        case "text":
            return vector_u8(value.encode())
        case "ids":
            return vector(value)
        case "u64s":
            return vector(map(u64, value))
    raise AssertionError(form)


def decode(form: str, read: Reader) -> Any:
    """The next value of `read`, in a form of `encode`. ValueError if the bytes are none."""
    match form:
        case "id":
            return read.take(32)
        case "u64":
            return read.u64()
        case "bool":
            return read.boolean()
        case "bytes":
            return read.vector_u8()
        case "text":
            return read.vector_u8().decode()
        case "ids":
            return tuple(read.vector(32))
        case "u64s":
            return read.u64s()
    raise AssertionError(form)


class _Struct(msgspec.Struct, frozen=True):
    """`FORMS`: the form of each field in order."""

    FORMS: ClassVar[tuple[str, ...]] = ()

    def encode(self) -> bytes:
        values = msgspec.structs.astuple(self)
        return b"".join(encode(form, value) for form, value in zip(self.FORMS, values, strict=True))

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """ValueError if the bytes are no struct of this layout."""
        read = Reader(data)
        value = cls(*(decode(form, read) for form in cls.FORMS))
        read.end()
        return value


class Registry(_Struct, frozen=True):
    """`works`: content hash → id of the work."""

    FORMS: ClassVar = ("id", "id", "u64", "u64")
    id: bytes
    works: bytes
    works_size: int
    count: int


class ArbiterCap(_Struct, frozen=True):
    FORMS: ClassVar = ("id", "id")
    id: bytes
    registry: bytes


class Work(_Struct, frozen=True):
    """`licenses`: id of a licence → Grant."""

    FORMS: ClassVar = ("id", "bytes", "text", "text", "ids", "u64s", "u64", "bool", "id", "u64")
    id: bytes
    content_hash: bytes
    title: str
    uri: str
    creators: tuple[bytes, ...]
    shares_bps: tuple[int, ...]
    registered_ms: int
    disputed: bool
    licenses: bytes
    licenses_size: int


class WorkCap(_Struct, frozen=True):
    FORMS: ClassVar = ("id", "id")
    id: bytes
    work: bytes


class Grant(_Struct, frozen=True):
    """What a work remembers of a licence. `revoked_ms` 0: it stands."""

    FORMS: ClassVar = ("bool", "u64")
    revocable: bool
    revoked_ms: int


class Offer(_Struct, frozen=True):
    FORMS: ClassVar = ("id", "id", "text", "bytes", "u64", "u64", "u64", "bool", "bool", "bool")
    id: bytes
    work: bytes
    terms_uri: str
    terms_hash: bytes
    price: int
    duration_ms: int
    supply_left: int
    transferable: bool
    revocable: bool
    open: bool


class License(_Struct, frozen=True):
    FORMS: ClassVar = ("id", "id", "bytes", "u64", "u64", "bool")
    id: bytes
    work: bytes
    terms_hash: bytes
    issued_ms: int
    expires_ms: int
    transferable: bool


class Till(_Struct, frozen=True):
    """`due`: payee → units."""

    FORMS: ClassVar = ("id", "u64", "id", "u64")
    id: bytes
    pool: int
    due: bytes
    due_size: int
