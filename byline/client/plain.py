"""Commands as the wire has them: decimals as texts, no floats, nothing that is not given.

A float is refused here, before anything is sent: 0.1 is none of the prices that a market has, and the exchange would
not guess which was meant.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Any, TypeAlias

from byline.client.errors import CommandError

__all__ = ["Amount", "plain"]

Amount: TypeAlias = str | Decimal
"""A price, size or amount."""


def plain(command: dict[str, Any]) -> dict[str, Any]:
    """The command without what is None, each `Decimal` as text.

    Raises CommandError, with the field and its rule: a value is a float or nothing that JSON has.
    """
    return {name: _value(value, name) for name, value in command.items() if value is not None}


def _value(value: Any, field: str) -> Any:
    if isinstance(value, Decimal) and value.is_finite():
        return f"{value:f}"
    if isinstance(value, dict):
        return {name: _value(each, f"{field}.{name}") for name, each in value.items() if each is not None}
    if isinstance(value, list | tuple):
        return [_value(each, f"{field}.{number}") for number, each in enumerate(value)]
    if isinstance(value, str | int) or value is None:
        return value
    rule = 'a decimal as text or Decimal: "1.25", never a float'
    if not isinstance(value, float | Decimal):
        rule = "text, a whole number, true or false, or a decimal as text or Decimal"
    raise CommandError(
        {"code": "malformed", "field": field, "rule": rule, "message": f"{field} is {value!r}; it must be {rule}"}
    )
