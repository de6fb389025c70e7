"""Bodies of the settlement routes."""

from __future__ import annotations

from msgspec import Struct

__all__ = ["Batch"]


class Batch(Struct, frozen=True):
    """`digests` are those of the transactions on chain; `chain` names it, and says so if it is the embedded one."""

    number: int
    first_sequence: int
    last_sequence: int
    cut_at: str
    status: str
    root: str | None
    leg_count: int
    digests: list[str]
    committed_at: str | None
    error: str | None
    chain: str
    embedded: bool
