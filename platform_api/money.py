"""Decimal texts. Columns hold whole numbers of ticks, lots or units; JSON carries decimal strings."""

from __future__ import annotations

__all__ = ["decimal_text", "steps_text", "units_of"]

UNITS_MAX = 2**63 - 1


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


def units_of(text: str, decimals: int) -> int | None:
    """The units of a decimal text without sign; None if it is no whole number of them, or too many."""
    whole, _, part = text.partition(".")
    part = part.rstrip("0")
    if not (whole.isascii() and whole.isdecimal()) or (part and not part.isdecimal()) or len(part) > decimals:
        return None
    units = int(whole + part.ljust(decimals, "0"))
    return units if units <= UNITS_MAX else None
