"""Texts of request bodies, as types: those that people write, amounts, names of assets, signatures.

A `Line` holds no control characters, line ends, marks that turn the direction of what follows, or marks that nobody
sees and no script needs in a name (soft hyphen, zero-width space, word joiner, byte order mark): with them one name
looks like another. Joiners and non-joiners it may have, which scripts and emoji are written with. A `Prose` may have
line ends and tabs, and these unseen marks too, which say where long words break: nobody is known by a prose. Neither
holds NUL, which PostgreSQL cannot keep. `$` alone would let one line end pass.

What was kept before a rule became stricter is read without it.
"""

from __future__ import annotations

from typing import Annotated, Any

from litestar.params import QueryParameter
from msgspec import Meta

__all__ = [
    "BODY_BYTES_MAX", "EMAIL", "LINE", "PROSE", "URL", "Amount", "AssetName", "Category", "Genre", "SearchText",
    "Signature", "Url", "line", "prose",
]  # fmt: skip

BODY_BYTES_MAX = 512 * 1024
"""Of a request's JSON. Whatever lengths the document promises fit, however they are written: the longest are the two
texts of licence terms, 2 × 20,000 characters, of which an escaped one beyond U+FFFF takes 12 bytes."""

_TURNING = r"\u202a-\u202e\u2066-\u2069"
_NO_LINE = rf"\x00-\x1f\x7f-\x9f\u2028\u2029{_TURNING}\xad\u180e\u200b\u2060-\u2064\ufeff"
"""For the brackets of a pattern: what no line has."""
LINE = rf"^[^{_NO_LINE}]*$(?!\n)"
PROSE = rf"^[^\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f{_TURNING}]*$(?!\n)"
URL = rf"^(https://[^\s<>\"'{_NO_LINE}]+)?$(?!\n)"
_WORD = rf"""[^\s@<>",;:\\()\[\]{_NO_LINE}]+"""
EMAIL = rf"^{_WORD}@{_WORD}\.[A-Za-z0-9-]+$(?!\n)"


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
    Meta(max_length=500, pattern=URL, examples=["https://images.example.org/ink.png"]),
]
"""Empty for none."""
Signature = Annotated[
    str,
    Meta(min_length=1, max_length=4096, pattern=r"^[A-Za-z0-9+/=]+$(?!\n)",
         examples=["AGNvbnRlbnQgb2YgYSBzaWduYXR1cmUgaXMgYmFzZTY0"]),
]  # fmt: skip
"""Of a wallet: base64, or hexadecimal digits."""
SearchText: Any = Annotated[str, QueryParameter(min_length=1, max_length=200, pattern=LINE)]
