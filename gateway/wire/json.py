"""The JSON protocol `byline.json.v1`: text to plain values and back. No session state, no authority, no socket.

Parsing is strict where JSON libraries are lenient: a doubled key, NaN or Infinity, text that is not UTF-8, and half of
a surrogate pair are refused. Prices, sizes and amounts are strings, so no float ever exists: a number with a fraction
or an exponent is kept as `Fraction`, its text, and HasFraction tells of it; whoever asked is refused, by name.
"""

from __future__ import annotations

import json
import re
from typing import Any, NoReturn

import msgspec

__all__ = ["PROTOCOL", "BadJson", "BadText", "HasFraction", "encode", "error", "fraction_in", "parse", "rid_text"]

PROTOCOL = "byline.json.v1"
RID_TEXT_MAX = 32
_RID_INT_MAX = 2**63 - 1
_SURROGATE = re.compile("[\ud800-\udfff]")

encode = msgspec.json.Encoder().encode


class BadText(ValueError):
    """The payload of a text frame is not UTF-8: the connection ends with 1007."""


class BadJson(ValueError):
    """Not JSON as this protocol reads it. The message says what is wrong."""


class HasFraction(ValueError):
    """A number that is not whole stands somewhere in `value`, which is all of the frame."""

    def __init__(self, value: dict[str, Any] | list[Any]) -> None:
        super().__init__("a number is not whole")
        self.value = value


class Fraction(str):
    """The text of a number that is not whole."""

    __slots__ = ()


class _FractionMet(ValueError):
    """The strict decoder met one."""


def parse(payload: bytes) -> dict[str, Any] | list[Any]:
    """One JSON object, or an array. Raises BadText, BadJson, HasFraction."""
    try:
        text = payload.decode("utf-8")
    except UnicodeDecodeError as cause:
        raise BadText(f"invalid UTF-8 at byte {cause.start}") from cause
    try:
        return _decode(text, _DECODER)
    except _FractionMet:
        raise HasFraction(_decode(text, _FRACTIONS)) from None


def fraction_in(value: Any) -> str | None:
    """The path of the first number that is not whole, as `bid.price`; None: there is none."""
    waiting = [("", value)]
    while waiting:
        path, item = waiting.pop()
        if isinstance(item, Fraction):
            return path
        if isinstance(item, dict):
            waiting += [(f"{path}.{name[:64]}" if path else name[:64], each) for name, each in reversed(item.items())]
        elif isinstance(item, list):
            waiting += [(path, each) for each in reversed(item)]
    return None


def _decode(text: str, decoder: json.JSONDecoder) -> dict[str, Any] | list[Any]:
    try:
        value = decoder.decode(text.strip(" \t\r\n"))
    except _FractionMet:
        raise
    except (json.JSONDecodeError, RecursionError) as cause:
        raise BadJson("nested too deep" if isinstance(cause, RecursionError) else str(cause)) from cause
    except ValueError as cause:
        raise BadJson(str(cause)) from cause
    if not isinstance(value, (dict, list)):
        raise BadJson("a frame is one object or an array of objects")
    if "\\u" in text and _has_lone_surrogate(value):  # no other spelling of one passes as UTF-8
        raise BadJson("a \\u escape is half of a surrogate pair, which is no character")
    return value


def rid_text(rid: object) -> bytes | None:
    """A request id as the answer repeats it, or None if it breaks the rule: an int64, or 1–32 plain characters."""
    if isinstance(rid, int) and not isinstance(rid, bool) and 0 <= rid <= _RID_INT_MAX:
        return b"%d" % rid
    if isinstance(rid, str) and 1 <= len(rid) <= RID_TEXT_MAX and rid.isascii() and rid.isprintable():
        return None if '"' in rid or "\\" in rid else b'"%s"' % rid.encode()
    return None


def error(
    code: str, message: str, *, rid: bytes | None = None, field: str | None = None, rule: str | None = None,
    retry_after_ns: int | None = None,
) -> bytes:  # fmt: skip
    """An error frame. `code` is stable; `field` and `rule` say what broke which rule; `message` is for people."""
    body: dict[str, Any] = {"type": "error", "code": code}
    if field is not None:
        body["field"] = field
    if rule is not None:
        body["rule"] = rule
    if retry_after_ns is not None:
        body["retry_after_ms"] = -(-retry_after_ns // 1_000_000)
    body["message"] = message
    text = encode(body)
    return b'{"rid":%s,%s' % (rid, text[1:]) if rid else text


def _has_lone_surrogate(value: Any) -> bool:
    waiting = [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, str):
            if _SURROGATE.search(item):
                return True
        elif isinstance(item, dict):
            waiting += item.keys()
            waiting += item.values()
        elif isinstance(item, list):
            waiting += item
    return False


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        seen: set[str] = set()
        doubled = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"the key {doubled[:64]!r} stands twice in one object")
    return value


def _no_float(text: str) -> NoReturn:
    raise _FractionMet(text)


def _no_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is no JSON value")


_DECODER = json.JSONDecoder(object_pairs_hook=_pairs, parse_float=_no_float, parse_constant=_no_constant)
_FRACTIONS = json.JSONDecoder(object_pairs_hook=_pairs, parse_float=Fraction, parse_constant=_no_constant)
