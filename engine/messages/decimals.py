"""Decimal text of the wire against whole numbers of the core. Exact both ways, never rounded, no float anywhere.

A wire decimal is `[0-9]{1,20}(.[0-9]{1,20})?`. Inside, a price is ticks, a size lots, an amount units. A text that is
no decimal, or no whole number of the step, or does not fit int64, becomes INVALID, which the core always refuses.
"""

from __future__ import annotations

import re

from engine.messages.codes import INVALID

__all__ = ["DECIMAL", "decimal_text", "parse_decimal", "steps_of", "steps_text", "units_of"]

DECIMAL = re.compile(r"([0-9]{1,20})(?:\.([0-9]{1,20}))?", re.ASCII)
_INT64_MAX = 2**63 - 1


def parse_decimal(text: str) -> tuple[int, int] | None:
    """The shortest (mantissa, decimals) with value mantissa × 10^-decimals, or None for any other text."""
    match = DECIMAL.fullmatch(text)
    if match is None:
        return None
    fraction = (match[2] or "").rstrip("0")
    return int(match[1] + fraction), len(fraction)


def steps_of(text: str, step: int, step_decimals: int) -> int:
    """How many steps of `step` × 10^-step_decimals the text is, or INVALID."""
    match = DECIMAL.fullmatch(text)
    if match is None or step <= 0:
        return INVALID
    fraction = match[2]
    if fraction is None:
        mantissa, decimals = int(match[1]), 0
    else:
        mantissa, decimals = int(match[1] + fraction), len(fraction)
    if decimals > step_decimals:
        step *= 10 ** (decimals - step_decimals)
    else:
        mantissa *= 10 ** (step_decimals - decimals)
    count, rest = divmod(mantissa, step)
    return INVALID if rest or count > _INT64_MAX else count


def units_of(text: str, scale: int) -> int:
    """How many units of 10^-scale the text is, or INVALID."""
    return steps_of(text, 1, scale)


def decimal_text(mantissa: int, decimals: int) -> str:
    """The shortest text of mantissa × 10^-decimals: `12.5`, `-0.003`, `0`."""
    if decimals == 0 or mantissa == 0:
        return str(mantissa)
    sign = "-" if mantissa < 0 else ""
    whole, fraction = divmod(abs(mantissa), 10**decimals)
    if fraction == 0:
        return f"{sign}{whole}"
    return f"{sign}{whole}.{fraction:0{decimals}d}".rstrip("0")


def steps_text(count: int, step: int, step_decimals: int) -> str:
    """The shortest text of `count` steps: ticks to a price, lots to a size."""
    return decimal_text(count * step, step_decimals)
