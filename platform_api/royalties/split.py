"""Dividing money: pure, integers, nothing rounded away.

    gross ── platform                        by the policy of its kind
      └──── creators' side of the work ──┬── ancestors, each a share of what the work received, and so on upwards
                                         └── the rest to the work's payees, by its rule

Every division is by largest remainder: each part gets the floor of its share, the units left go one each to the largest
remainders, ties to the earlier, receivers in ascending order of their keys. The core divides the same way, so what is
computed here before a command is sent is what the core posts. Source: docs/decisions/0033-money-of-sales.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

__all__ = [
    "CHAIN_PARTS_MAX", "WHOLE_BPS", "ChainTooLong", "Part", "Payee", "cascade", "check_chains", "largest_remainder",
    "platform_part",
]  # fmt: skip

WHOLE_BPS = 10_000
CHAIN_PARTS_MAX = 32


class ChainTooLong(Exception):
    """More works above one than a distribution reaches, or a work above itself."""


def check_chains(works: Iterable[UUID], parents: Mapping[UUID, Sequence[tuple[UUID, int]]]) -> None:
    """Whether a sale of any of these works has at most `CHAIN_PARTS_MAX` parts, by `parents` as `cascade` takes them.

    Raises:
        ChainTooLong

    Cost: O(works and edges).
    """
    parts: dict[UUID, int] = {}

    def count(work: UUID, depth: int) -> int:
        if depth > CHAIN_PARTS_MAX:  # a circle too
            raise ChainTooLong
        if work not in parts:
            total = 1 + sum(count(parent, depth + 1) for parent, _ in parents.get(work, ()))
            if total > CHAIN_PARTS_MAX:
                raise ChainTooLong
            parts[work] = total
        return parts[work]

    for work in works:
        count(work, 1)


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

    `left_out` are works above it that get nothing since the chain is longer than a distribution reaches.
    Invariant: `total` is the sum of all amounts.
    """

    work_id: UUID
    total: int
    above: tuple[tuple[UUID, int], ...]
    payees: tuple[tuple[Payee, int], ...]
    left_out: tuple[UUID, ...] = ()

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

    Nothing is raised, whatever the chain: a sale whose money has come must be divided. Works beyond `CHAIN_PARTS_MAX`
    parts, or above one that would give more than it receives, are left out, and what they would get stays with the
    payees below. `check_chains` sees to it that there are none.
    """
    parts: list[Part] = []
    waiting: list[tuple[UUID, int]] = [(work_id, side)]
    while waiting:
        work, total = waiting.pop(0)
        above = sorted(parents.get(work, ()), key=lambda parent: parent[0].hex)
        rest = WHOLE_BPS - sum(bps for _, bps in above)
        left_out: tuple[UUID, ...] = ()
        if rest < 0 or len(parts) + 1 + len(waiting) + len(above) > CHAIN_PARTS_MAX:
            left_out, above, rest = tuple(parent for parent, _ in above), [], WHOLE_BPS
        shares = largest_remainder(total, [*(bps for _, bps in above), rest])
        ups = tuple((parent, amount) for (parent, _), amount in zip(above, shares, strict=False) if amount)
        own = sorted(payees[work], key=lambda payee: payee.key)
        amounts = largest_remainder(shares[-1], [payee.bps for payee in own])
        parts.append(Part(work, total, ups, tuple(zip(own, amounts, strict=True)), left_out))
        waiting.extend(ups)
    return parts
