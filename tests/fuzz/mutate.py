"""Mutations of well-formed inputs, the same for the same seed: the short run of the suite, without a guide.

Flips, cuts, repeats, insertions, splices of two inputs, numbers at the edges of their range, words of the protocols.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

__all__ = ["mutants"]

WORDS = (
    b"\0", b"\xff", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\x80", b"-1", b"1e309", b"NaN", b"9" * 40, b'"', b"{",
    b"[" * 64, b"\\ud800", b"\\u0000", b"null", b"\xc3\x28", b'"op":', b'"rid":', b",", b"0.1", b"-0", b"1.",
    b"9223372036854775808",
    b"../../etc/passwd", b"' OR 1=1--", b"sign_in", b"place", b"cancel", b"resolve", b"subscribe", b"book:NOVA-USD",
)  # fmt: skip
LONGEST = 80_000


def mutants(inputs: Sequence[bytes], count: int, seed: int) -> Iterator[bytes]:
    """`count` inputs made from `inputs`; those themselves come first."""
    draw = random.Random(seed)
    pool = [*inputs, b""]
    yield from pool[:count]
    for _ in range(count - len(pool)):
        made = bytearray(draw.choice(pool))
        for _ in range(1 << draw.randrange(5)):
            _mutate(made, draw, pool)
        yield bytes(made[:LONGEST])


def _mutate(made: bytearray, draw: random.Random, pool: Sequence[bytes]) -> None:
    at = draw.randrange(len(made) + 1) if draw.random() < 0.6 else draw.randrange(min(len(made), 200) + 1)
    kind = draw.randrange(8)
    if kind == 0 and at < len(made):
        made[at] ^= 1 << draw.randrange(8)
    elif kind == 1 and at < len(made):
        made[at] = draw.randrange(256)
    elif kind == 2:
        del made[at : at + draw.choice([1, 2, 8, 128, len(made)])]
    elif kind == 3:
        made[at:at] = draw.choice(WORDS)
    elif kind == 4:
        made[at : at + 8] = draw.choice([0, 1, 2**31, 2**63 - 1, 2**63, 2**64 - 1]).to_bytes(8, "little")
    elif kind == 5:
        made[at:at] = made[at : at + draw.choice([1, 16, 128])] * draw.choice([1, 2, 30])
    elif kind == 6:
        other = draw.choice(pool)
        if other:
            begin = draw.randrange(len(other))
            made[at:at] = other[begin : begin + draw.randrange(256)]
    else:
        made[at : at + 1] = draw.randbytes(draw.randrange(1, 9))
