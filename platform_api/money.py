"""Decimal texts on the way out. Columns hold whole numbers of ticks, lots or units; JSON carries decimal strings."""

from __future__ import annotations

__all__ = ["decimal_text", "steps_text"]


def decimal_text(value: int, decimals: int) -> str:
    """`value` · 10^-decimals in the shortest form: (1500, 3) is "1.5", (-5, 0) is "-5"."""
    sign, digits = ("-" if value < 0 else ""), str(abs(value))
    if decimals:
        digits = digits.rjust(decimals + 1, "0")
        whole, rest = digits[:-decimals], digits[-decimals:].rstrip("0")
        digits = f"{whole}.{rest}" if rest else whole
    return sign + digits


def steps_text(count: int, step: int, decimals: int) -> str:
    """`count` ticks or lots, each `step` · 10^-decimals."""
    return decimal_text(count * step, decimals)

