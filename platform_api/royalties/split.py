"""Dividing money: pure, integers, nothing rounded away.

    gross ── platform                        by the policy of its kind
      └──── creators' side of the work ──┬── ancestors, each a share of what the work received, and so on upwards
                                         └── the rest to the work's payees, by its rule

Every division is by largest remainder: each part gets the floor of its share, the units left go one each to the largest
remainders, ties to the earlier, receivers in ascending order of their keys. The core divides the same way, so what is
computed here before a command is sent is what the core posts. Source: docs/decisions/0033-money-of-sales.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

__all__ = [
    "CHAIN_PARTS_MAX", "WHOLE_BPS", "ChainTooLong", "Part", "Payee", "cascade", "largest_remainder", "platform_part",
]  # fmt: skip

WHOLE_BPS = 10_000
CHAIN_PARTS_MAX = 32


class ChainTooLong(Exception):
    """More works above one than a distribution reaches, or a work above itself."""


def largest_remainder(total: int, weights: Sequence[int]) -> list[int]:
    """`total` in parts proportional to `weights` (none negative, their sum at least 1); the parts sum to it.

    Cost: O(n log n).
    """
    whole = sum(weights)
    assert total >= 0 and whole >= 1 and min(weights) >= 0
    parts = [total * weight // whole for weight in weights]
    left = total - sum(parts)
    by_remainder = sorted(range(len(weights)), key=lambda index: (-(total * weights[index] % whole), index))
    for index in by_remainder[:left]:
        parts[index] += 1
    return parts


def platform_part(gross: int, platform_bps: int) -> int:
    """Of a sale; a tie goes to the platform, whose account comes first."""
    return largest_remainder(gross, [platform_bps, WHOLE_BPS - platform_bps])[0]


@dataclass(frozen=True, slots=True)
class Payee:
    """Of a work: `key` is the account in the core."""

    key: str
    account_id: UUID
    role: str
    bps: int


@dataclass(frozen=True, slots=True)
class Part:
    """What one work of the chain received, and where it goes: to works above it, and to its payees.

    Invariant: `total` is the sum of all amounts.
    """

    work_id: UUID
    total: int
    above: tuple[tuple[UUID, int], ...]
    payees: tuple[tuple[Payee, int], ...]

    @property
    def kept(self) -> int:
        return sum(amount for _, amount in self.payees)


def cascade(
    side: int,
    work_id: UUID,
    payees: Mapping[UUID, Sequence[Payee]],
    parents: Mapping[UUID, Sequence[tuple[UUID, int]]],
) -> list[Part]:
    """The creators' side of a sale of the work, up the chain: the sold work first, each before those above it.

    `payees` are whole (10,000) for each work of the chain; `parents` are (work, basis points of what the child
    received) and at most whole together. An ancestor is given a share of what its direct licensee received, so
    all the shares together never exceed the side. A work that is reached on two ways has two parts.

    Raises:
        ChainTooLong
    """
    parts: list[Part] = []
    waiting: list[tuple[UUID, int]] = [(work_id, side)]
    while waiting:
        work, total = waiting.pop(0)
        if len(parts) >= CHAIN_PARTS_MAX:
            raise ChainTooLong
        above = sorted(parents.get(work, ()), key=lambda parent: parent[0].hex)
        shares = largest_remainder(total, [*(bps for _, bps in above), WHOLE_BPS - sum(bps for _, bps in above)])
        ups = tuple((parent, amount) for (parent, _), amount in zip(above, shares, strict=False) if amount)
        own = sorted(payees[work], key=lambda payee: payee.key)
        amounts = largest_remainder(shares[-1], [payee.bps for payee in own])
        parts.append(Part(work, total, ups, tuple(zip(own, amounts, strict=True))))
        waiting.extend(ups)
    return parts
