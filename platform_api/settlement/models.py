"""Bodies of the settlement routes."""

from __future__ import annotations

from typing import Any, Literal

from msgspec import Struct

__all__ = ["Batch", "Proof", "Proofs"]


class Batch(Struct, frozen=True):
    """`digests` are those of the transactions on chain; `chain` and `executor` name what executed them, and say so if
    it is no network. `file`, of a final batch, is what `byline verify` wants; the list leaves it out."""

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
    executor: str
    embedded: bool
    file: dict[str, Any] | None = None


class Proof(Struct, frozen=True):
    """One balance in one batch. `salt`, `path`, `links` are base64; units are integers."""

    batch: int
    account: str
    salt: str
    asset: str
    amount: int
    total: int
    path: str
    links: str


class Proofs(Struct, frozen=True):
    """A proof file: one proof for each asset of the caller. Binary fields are base64."""

    format: Literal["byline proof 1"]
    proofs: list[Proof]
