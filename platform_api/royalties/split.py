"""Dividing money: pure, integers, nothing rounded away.

    gross ── platform                        by the policy of its kind
      └──── creators' side of the work ──┬── ancestors, each a share of what the work received, and so on upwards; of
                                         │   it licensors between keep what they do not owe to the licence above
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
    "CHAIN_PARTS_MAX", "WHOLE_BPS", "Above", "ChainTooLong", "Part", "Payee", "cascade", "check_chains",
    "largest_remainder", "platform_part",
]  # fmt: skip

WHOLE_BPS = 10_000
CHAIN_PARTS_MAX = 32


class ChainTooLong(Exception):
    """More works above one than a distribution reaches, or a work above itself."""


def check_chains(works: Iterable[UUID], parents: Mapping[UUID, Sequence[Above]]) -> None:
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
            total = 1 + sum(count(above.work_id, depth + 1) for above in parents.get(work, ()))
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
class Above:
    """A work above another, and what it is given: `bps` of what the other received, through the licensors between, the
    nearest first. Of what comes to one of these, that many basis points are given on; the rest is theirs."""

    work_id: UUID
    bps: int
    between: tuple[tuple[Payee, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Part:
    """What one work of the chain received, and where it goes: to works above it, to licensors between, to its payees.

    `left_out` are works above it that get nothing since the chain is longer than a distribution reaches.
    Invariant: `total` is the sum of all amounts.
    """

    work_id: UUID
    total: int
    above: tuple[tuple[UUID, int], ...]
    payees: tuple[tuple[Payee, int], ...]
    between: tuple[tuple[Payee, int], ...] = ()
    left_out: tuple[UUID, ...] = ()

    @property
    def kept(self) -> int:
        """By the work's own payees."""
        return sum(amount for _, amount in self.payees)

    @property
    def lines(self) -> tuple[tuple[Payee, int], ...]:
        """All who are paid of it."""
        return self.between + self.payees


def cascade(
    side: int,
    work_id: UUID,
    payees: Mapping[UUID, Sequence[Payee]],
    parents: Mapping[UUID, Sequence[Above]],
) -> list[Part]:
    """The creators' side of a sale of the work, up the chain: the sold work first, each before those above it.

    `payees` are whole (10,000) for each work of the chain; `parents` are at most whole together. An ancestor, and each
    licensor between, is given a share of what its direct licensee received, so all the shares together never exceed
    the side. A work that is reached on two ways has two parts.

    Nothing is raised, whatever the chain: a sale whose money has come must be divided. Works beyond `CHAIN_PARTS_MAX`
    parts, or above one that would give more than it receives, are left out, and what they would get stays with the
    payees below. `check_chains` sees to it that there are none.
    """
    parts: list[Part] = []
    waiting: list[tuple[UUID, int]] = [(work_id, side)]
    while waiting:
        work, total = waiting.pop(0)
        above = sorted(
            parents.get(work, ()),
            key=lambda one: (one.work_id.hex, [(payee.key, bps) for payee, bps in one.between]),
        )
        rest = WHOLE_BPS - sum(one.bps for one in above)
        left_out: tuple[UUID, ...] = ()
        if rest < 0 or len(parts) + 1 + len(waiting) + len(above) > CHAIN_PARTS_MAX:
            left_out, above, rest = tuple(one.work_id for one in above), [], WHOLE_BPS
        shares = largest_remainder(total, [*(one.bps for one in above), rest])
        up: dict[UUID, int] = {}
        between: list[tuple[Payee, int]] = []
        for one, amount in zip(above, shares, strict=False):
            for licensor, passed_bps in one.between:
                amount, kept = largest_remainder(amount, [passed_bps, WHOLE_BPS - passed_bps])
                between.append((licensor, kept))
            up[one.work_id] = up.get(one.work_id, 0) + amount
        ups = tuple((parent, amount) for parent, amount in up.items() if amount)
        own = sorted(payees[work], key=lambda payee: payee.key)
        amounts = largest_remainder(shares[-1], [payee.bps for payee in own])
        parts.append(Part(work, total, ups, tuple(zip(own, amounts, strict=True)), tuple(between), left_out))
        waiting.extend(ups)
    return parts
