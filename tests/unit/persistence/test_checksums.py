"""CRC32C and SHA-256: the portable bodies and those of the CPU give the same, known bytes."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator

import pytest

from persistence import ring


@pytest.fixture(params=[True, False], ids=["portable", "cpu"])
def portable(request: pytest.FixtureRequest) -> Iterator[bool]:
    chosen = ring.choose_checksums(portable=request.param)
    assert not (request.param and chosen)
    yield request.param
    ring.choose_checksums()


def bitwise(data: bytes, crc: int = 0) -> int:
    """CRC32C by its definition, a bit at a time."""
    crc ^= 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


# RFC 3720, B.4.
@pytest.mark.parametrize(
    ("data", "crc"),
    [
        (b"", 0),
        (b"123456789", 0xE3069283),
        (bytes(32), 0x8A9136AA),
        (b"\xff" * 32, 0x62A8AB43),
        (bytes(range(32)), 0x46DD794E),
        (bytes(range(31, -1, -1)), 0x113FDB5C),
    ],
)
@pytest.mark.usefixtures("portable")
def test_crc32c_gives_the_published_values(data: bytes, crc: int) -> None:
    assert ring.crc32c(data) == crc == bitwise(data)


@pytest.mark.usefixtures("portable")
def test_crc32c_of_any_length_and_in_parts_is_the_definition() -> None:
    data = random.Random(5).randbytes(700)
    for size in [*range(80), 124, 128, 252, 699, 700]:
        assert ring.crc32c(data[:size]) == bitwise(data[:size])
        assert ring.crc32c(memoryview(data)[3 : 3 + size]) == bitwise(data[3 : 3 + size])  # not aligned
        assert ring.crc32c(data[size:], ring.crc32c(data[:size])) == bitwise(data)


@pytest.mark.usefixtures("portable")
def test_sha256_is_that_of_the_standard_library() -> None:
    draw = random.Random(6)
    for _ in range(200):
        parts = [draw.randbytes(draw.choice([0, 1, 55, 56, 63, 64, 65, 128, 1000])) for _ in range(draw.randrange(5))]
        assert ring.record_sha256(*parts) == hashlib.sha256(b"".join(parts)).digest()


def test_the_chain_word_is_the_documented_one() -> None:
    mask, k0, k1, k2 = (1 << 64) - 1, 0xA0761D6478BD642F, 0xE7037ED1A0B428DB, 0x8EBC6AF09C88C6E3

    def fold(a: int, b: int) -> int:
        product = (a & mask) * (b & mask)
        return (product ^ product >> 64) & mask

    draw = random.Random(7)
    for slots in (1, 2, 3, 255):
        record, chain = draw.randbytes(slots * 128), draw.getrandbits(64)
        w = [int.from_bytes(record[at : at + 8], "little") for at in range(0, len(record), 8)]
        w[0], w[3], total = w[0] >> 32 << 32, 0, 0
        for i in range(0, len(w), 2):
            total ^= fold(w[i] ^ (k0 + i), w[i + 1] ^ (k1 - i))
        assert ring.chain_word(chain, record) == (fold(chain ^ k2, total ^ k0) + total) & mask
