"""What does not fit, in words: the texts of failed validations, for people who have the document and not the sources.

msgspec says what a value must be as a programmer would (`Expected `str` matching regex ...`). A pattern that is
not in FORMS is answered with a reference to the document; a test holds that none is.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from msgspec.inspect import EnumType, ListType, LiteralType, Metadata, StructType, Type, UnionType, type_info

from platform_api.texts import EMAIL, LINE, PROSE, URL

__all__ = ["FORMS", "NOT_ALLOWED", "choices", "in_words"]

_DECIMAL = "a decimal as 12.5: digits, and one point at most"
FORMS: Mapping[str, str] = {
    LINE: "one line without control characters and marks that nobody sees",
    PROSE: "text without control characters",
    URL: "an address that begins with https://, or empty",
    r"^[A-Za-z0-9+/=]+$(?!\n)": "base64 (Sui) or hexadecimal digits (Ethereum)",
    r"^[0-9]{1,20}(\.[0-9]{1,20})?$(?!\n)": _DECIMAL,
    r"^[0-9]{1,5}(\.[0-9]{1,4})?$(?!\n)": "a decimal as 1.5, with at most 5 digits before the point and 4 behind it",
    r"^[1-9][0-9]{0,7}$(?!\n)": "a whole number above 0, of at most 8 digits",
    r"^[1-9][0-9]{0,17}$(?!\n)": "a whole number above 0, of at most 18 digits",
    r"^[A-Za-z0-9_.-]+$(?!\n)": "letters, digits, and any of _ . -",
    r"^[A-Za-z0-9_.:-]+$(?!\n)": "letters, digits, and any of _ . : -",
    r"^[A-Z0-9_.-]+$(?!\n)": "capital letters, digits, and any of _ . -",
    r"^[A-Za-z0-9_-]+$(?!\n)": "letters, digits, _ and -",
    r"^[A-Za-z0-9-]+$(?!\n)": "a language as en or en-GB",
    r"^[a-z0-9_]+$(?!\n)": "a code: small letters, digits and _",
    r"^[a-z_.]{1,60}$(?!\n)": "a topic as license.approved",
    r"^[A-Z]{2}$(?!\n)": "two capital letters: a code of ISO 3166-1 as PG, or WW for everywhere",
    r"^[A-Z][A-Z0-9]{2,9}$(?!\n)": "3 to 10 capital letters and digits, the first a letter",
    r"^P[0-9YMWDTH]{2,29}$(?!\n)": "a duration as P1Y or P30D (ISO 8601)",
    r"^20[0-9]{2}-(0[1-9]|1[0-2])$(?!\n)": "a month as 2026-10",
    r"^[12][0-9]{3}(-(0[1-9]|1[0-2]))?$(?!\n)": "a year or a month, as 2024 or 2024-09",
    r"^\d{4}-\d\d-\d\d$(?!\n)": "a day as 2026-01-02",
    r"^[a-z]{2,3}(-[A-Za-z0-9]{2,8}){0,3}$(?!\n)": "a language as en or en-GB",
    r"^0x([0-9a-fA-F]{64}|[0-9a-fA-F]{40})$(?!\n)": "0x and 64 hexadecimal digits (Sui) or 40 (Ethereum)",
    r"^0x[0-9a-fA-F]{64}$(?!\n)": "0x and 64 hexadecimal digits",
    r"^[0-9a-f]{32}$(?!\n)": "32 hexadecimal digits in small letters",
    r"^[0-9a-f]{64}$(?!\n)": "64 hexadecimal digits in small letters",
    r"^[0-9a-f]{64}$": "64 hexadecimal digits in small letters",
    r"^[0-9a-fA-F]{64}$(?!\n)": "64 hexadecimal digits",
    r"^[a-z0-9.+-]+/[a-z0-9.+-]+$(?!\n)": "a media type as image/png",
    EMAIL: "an address as ink@example.org",
}
"""Pattern of a field → what it asks for."""
_BY_REPR = {repr(pattern): words for pattern, words in FORMS.items()}
_KINDS = {
    "str": "a text", "int": "a whole number", "float": "a number", "bool": "true or false", "object": "an object",
    "array": "a list", "null": "null", "uuid": "a UUID", "datetime": "a time", "date": "a day",
}  # fmt: skip
NOT_ALLOWED = "is none of the values allowed"
_COMPARED = {">=": "at least", "<=": "at most", ">": "above", "<": "below"}


def _kind(words: str) -> str:
    return " or ".join(_KINDS.get(word, word) for word in words.split(" | "))


_RULES: tuple[tuple[re.Pattern[str], Callable[[re.Match[str]], str]], ...] = (
    (re.compile(r"Object missing required field `.*`"), lambda _: "is missing"),
    (re.compile(r"Object contains unknown field `.*`"), lambda _: "is no field of this request"),
    (re.compile(r"Expected `(.*)`, got `(.*)`"), lambda found: f"must be {_kind(found[1])}, not {_kind(found[2])}"),
    (re.compile(r"Expected `str` of length (>=|<=|==) (\d+)"),
     lambda found: f"must have {_COMPARED.get(found[1], 'exactly')} {found[2]} characters"),
    (re.compile(r"Expected `\w+` of length (>=|<=|==) (\d+)"),
     lambda found: f"must have {_COMPARED.get(found[1], 'exactly')} {found[2]} entries"),
    (re.compile(r"Expected `\w+` (>=|<=|>|<) (\S+)"), lambda found: f"must be {_COMPARED[found[1]]} {found[2]}"),
    (re.compile(r"Expected `str` matching regex (.*)", re.DOTALL), lambda found: f"must be {_form(found[1])}"),
    (re.compile(r"Invalid enum value (.*)", re.DOTALL), lambda found: f"{found[1]} {NOT_ALLOWED}"),
    (re.compile(r"Invalid UUID"), lambda _: "must be a UUID"),
    (re.compile(r"Invalid RFC3339 encoded datetime"), lambda _: "must be a time as 2026-01-02T03:04:05Z"),
    (re.compile(r"Invalid RFC3339 encoded date"), lambda _: "must be a day as 2026-01-02"),
    (re.compile(r"'data'"), lambda _: "is missing: this request needs a JSON body"),
)  # fmt: skip


def _form(pattern: str) -> str:
    return _BY_REPR.get(pattern, "of the form that the OpenAPI document has an example of")


def choices(annotation: Any, place: str) -> list[str]:
    """What the field at `place` (`body`, `kind`, `lines[0].kind`) of a body of that type takes; nothing if open."""
    node = type_info(annotation)
    for part in [] if place == "body" else re.findall(r"\[[^\]]*\]|[^.\[\]]+", place):
        node = next((each for each in _inside(node) if isinstance(each, (StructType, ListType))), node)
        if isinstance(node, ListType):
            node = node.item_type
        elif isinstance(node, StructType):
            found = [field.type for field in node.fields if field.encode_name == part]
            if not found:
                return []
            node = found[0]
        else:
            return []
    return [str(value) for each in _inside(node) if isinstance(each, LiteralType) for value in each.values] + [
        str(member.value) for each in _inside(node) if isinstance(each, EnumType) for member in each.cls
    ]


def _inside(node: Type) -> list[Type]:
    """The types that one of its values may have."""
    if isinstance(node, Metadata):
        return _inside(node.type)
    return [part for each in node.types for part in _inside(each)] if isinstance(node, UnionType) else [node]


def in_words(message: str) -> str:
    """What msgspec says about one field, as people say it; what is not known stays as it is."""
    for rule, words in _RULES:
        if (found := rule.fullmatch(message)) is not None:
            return words(found)
    return message
