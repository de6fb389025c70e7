"""Texts of request bodies, as types: those that people write, amounts, and names of assets.

A `Line` holds no control characters, line ends or marks that turn the direction of what follows; a `Prose` may have
line ends and tabs. Neither holds NUL, which PostgreSQL cannot keep. `$` alone would let one line end pass.
"""

from __future__ import annotations

from typing import Annotated, Any

from litestar.params import QueryParameter
from msgspec import Meta

__all__ = [
    "BODY_BYTES_MAX", "LINE", "PROSE", "Amount", "AssetName", "Category", "Genre", "SearchText", "Url", "line", "prose",
]  # fmt: skip

BODY_BYTES_MAX = 512 * 1024
"""Of a request's JSON. Whatever lengths the document promises fit, however they are written: the longest are the two
texts of licence terms, 2 × 20,000 characters, of which an escaped one beyond U+FFFF takes 12 bytes."""

_TURNING = r"\u202a-\u202e\u2066-\u2069"
LINE = rf"^[^\x00-\x1f\x7f-\x9f\u2028\u2029{_TURNING}]*$(?!\n)"
PROSE = rf"^[^\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f{_TURNING}]*$(?!\n)"


def line(max_length: int, example: str, *, min_length: int = 0) -> Meta:
    """`Annotated[str, line(80, "Ink")]`."""
    return Meta(min_length=min_length, max_length=max_length, pattern=LINE, examples=[example])


def prose(max_length: int, example: str, *, min_length: int = 0) -> Meta:
    """Several lines."""
    return Meta(min_length=min_length, max_length=max_length, pattern=PROSE, examples=[example])


Amount = Annotated[
    str, Meta(min_length=1, max_length=41, pattern=r"^[0-9]{1,20}(\.[0-9]{1,20})?$(?!\n)", examples=["12.5"])
]
"""A decimal of its asset, not below zero."""
AssetName = Annotated[str, Meta(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9_.-]+$(?!\n)", examples=["USDC"])]
"""Of the core."""
_CODE = r"^[a-z0-9_]+$(?!\n)"
Genre = Annotated[str, Meta(min_length=2, max_length=50, pattern=_CODE, examples=["drama"])]
Category = Annotated[str, Meta(min_length=2, max_length=50, pattern=_CODE, examples=["literature"])]
Url = Annotated[
    str,
    Meta(max_length=500, pattern=r"^(https://[^\s<>\"'\x00-\x1f]+)?$(?!\n)",
         examples=["https://images.example.org/ink.png"]),
]  # fmt: skip
"""Empty for none."""
SearchText: Any = Annotated[str, QueryParameter(min_length=1, max_length=200, pattern=LINE)]
