"""The checksums of market data, formed from what a reader has. Docs: docs/protocol/market-data.md, docs/state-hash.md.

    of a book      sum over its levels of level_mix(side, price ticks, lots)                       mod 2^64
    of the orders  sum over them of order_mix(public number, side, price ticks, lots)              mod 2^64

A sum is kept up by each change alone: take out the mix that was, add the one that is. Side 0 is bid, 1 is ask.
"""

from __future__ import annotations

__all__ = ["M64", "level_mix", "order_mix"]

M64 = 2**64 - 1


def _splitmix(count: int) -> tuple[int, ...]:
    state, outputs = 0, []
    for _ in range(count):
        state = (state + 0x9E3779B97F4A7C15) & M64
        z = ((state ^ state >> 30) * 0xBF58476D1CE4E5B9) & M64
        z = ((z ^ z >> 27) * 0x94D049BB133111EB) & M64
        outputs.append(z ^ z >> 31)
    return tuple(outputs)


_K = _splitmix(64)


def _finish(total: int) -> int:
    low, high = total & M64, total >> 64 & M64
    p = (low ^ _K[60]) * (high ^ _K[61])
    return (p + ((p & M64) ^ high ^ _K[62]) * ((p >> 64) ^ low ^ _K[63])) & M64


def level_mix(side: int, price: int, size: int) -> int:
    """Of one level: 64 bits."""
    return _finish(
        (0xB2 + _K[0] & M64) * (side + _K[1] & M64) + (price + _K[2] & M64) * (size + _K[3] & M64)
    )  # fmt: skip


def order_mix(number: int, side: int, price: int, size: int) -> int:
    """Of one order: 64 bits."""
    return _finish(
        (0xB3 + _K[0] & M64) * (number + _K[1] & M64)
        + (side + _K[2] & M64) * (price + _K[3] & M64)
        + (size + _K[4] & M64) * _K[5]
    )
