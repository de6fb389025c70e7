"""Amounts at the edge: columns hold whole numbers of ticks, lots or units, JSON decimal texts. Exact both ways."""

from __future__ import annotations

from decimal import Decimal

from engine.messages import decimals
from engine.messages.decimals import decimal_text, steps_text
from platform_api.errors import ApiError, ErrorCode

__all__ = ["UNITS_MAX", "decimal_text", "steps_text", "units_of"]

UNITS_MAX = 2**63 - 1
"""What a bigint and the core hold."""


def units_of(amount: str, scale: int, *, least: int = 1, field: str = "price") -> int:
    """The decimal text in units of 10^-scale. Raises ApiError VALIDATION_ERROR: too fine, too small, too large."""
    units = decimals.units_of(amount, scale)
    if units < least:  # INVALID is less than every amount
        rule = f"{'above 0, with' if least else 'a number with'} at most {scale} decimals"
        if Decimal(amount).scaleb(scale) > UNITS_MAX:
            rule = f"at most {decimal_text(UNITS_MAX, scale)}"
        message = f"{field}: must be {rule}"
        raise ApiError(ErrorCode.VALIDATION_ERROR, message, reason="bad_price", field=field,
                       details={"decimals": scale})  # fmt: skip
    return units
