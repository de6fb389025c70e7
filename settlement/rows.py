"""Which chain row an account is settled in, and which accounts are the exchange's own. Pure."""

from __future__ import annotations

import hashlib

__all__ = ["CLEARING_ROW", "CUSTODY_ROW", "KEYLESS_ROWS", "TREASURY_ROW", "chain_row", "is_house"]


def _house_row(name: str) -> bytes:
    """A row without a key: nobody can ask for its exit, only the operator moves it."""
    return hashlib.sha256(b"byline row: " + name.encode()).digest()


CUSTODY_ROW = _house_row("custody")
TREASURY_ROW = _house_row("treasury")
CLEARING_ROW = _house_row("clearing")
KEYLESS_ROWS = {CUSTODY_ROW, TREASURY_ROW, CLEARING_ROW}

_HOUSE_PREFIXES = ("system:", "platform:", "treasury:", "tax:", "buyback:", "external:", "issue:", "shard:")
_CUSTODY_HOUSE = ("platform:cover",)
"""Our money laid beside the clients', against payees below zero: it backs what is owed, and is owed to nobody."""


def is_house(name: str) -> bool:
    """Whether an account is the exchange's own, by the first word of its name."""
    return name.startswith(_HOUSE_PREFIXES)


def chain_row(name: str, row: bytes | None) -> bytes:
    """The row in which an account is settled."""
    if row is not None:
        return row
    return TREASURY_ROW if is_house(name) and name not in _CUSTODY_HOUSE else CUSTODY_ROW
