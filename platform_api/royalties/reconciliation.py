"""Whether the books say what the core says, account by account (money.md, section 5).

    pay:ID            has what its entries sum up to
    platform:cover    has what payees together owe us
    work:ID           has nothing free, but while money of the work is on its way
    system:fees       has given what its sweeps say, by their refs

Compared is the projection of the core's events, up to its last command, with the books as they stand: one snapshot of
the database has both. What lies between them is known one by one, so no time is waited for and nothing is guessed: a
command that may have run and is not noted (its postings are found by its ref), and one that is noted and not projected
(its sequence is behind the projection's last). Payees are compared to the unit although their money moves; a cover, a
work or fees that such a command names are compared at a later look, when they rest.

A difference is told in the log at each look, kept in `royalties.difference` (counted as `books_differ` in /metrics)
until it is gone, and is in the audit trail once. Nothing is corrected here: money moves by commands, and a person
decides. Accounts of users, of the platform and of places outside have no books but the core's, and are not compared;
what trades charge is no document's either, so of `system:fees` only what the day's commands took is.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import structlog

from platform_api.kernel.context import Kernel
from platform_api.ledger.commands import MoneyCommands, touched
from platform_api.royalties import reconciliation_queries as queries

__all__ = ["Difference", "Reconciliation"]

log = structlog.get_logger(__name__)

ON_THE_WAY_MAX = 10_000
"""With more commands between the projection and the books, one of them is being built anew: the next look will do."""

OpenRefs = Callable[[Any], Awaitable[list[str]]]
"""Of a connection: the refs of commands that may have moved money of payees and are not noted."""


@dataclass(frozen=True, slots=True)
class Difference:
    """Units of an asset in an account of the core, and what the books say that it has."""

    account: str
    asset: str
    core_units: int
    book_units: int


class Reconciliation:
    def __init__(self, kernel: Kernel) -> None:
        self._kernel, self._database = kernel, kernel.database
        self._money = kernel.service(MoneyCommands)
        self._others: list[OpenRefs] = []

    def ask_also(self, others: OpenRefs) -> None:
        """Of a context that sends commands of its own to payees, and books them with `Entries.credit`."""
        self._others.append(others)

    async def look(self) -> None:
        """Every ten minutes: compare, and tell of each difference. Raises Unavailable."""
        found = await self.differences()
        if found is None:
            log.warning("books_not_compared", why=f"more than {ON_THE_WAY_MAX} commands behind")
            return
        for one in found:
            log.error("books_differ", account=one.account, asset=one.asset, core_units=one.core_units,
                      book_units=one.book_units)  # fmt: skip
        async with self._database.transaction() as db:
            gone = await queries.forget_others(db, [(one.account, one.asset) for one in found])
            for account, asset in gone:
                log.info("books_agree", account=account, asset=asset)
            for one in found:
                if await queries.is_new(db, one.account, one.asset, one.core_units, one.book_units):
                    new = {"asset": one.asset, "core_units": str(one.core_units), "book_units": str(one.book_units)}
                    await self._kernel.audit.record(
                        db, "books.differ", ("core_account", one.account), actor=None, new=new
                    )

    async def differences(self) -> list[Difference] | None:
        """By account and asset; None while the projection is too far behind the books. Raises Unavailable."""
        async with (
            self._database.connection() as db,
            db.transaction(isolation="repeatable_read", readonly=True),
        ):
            reached = await queries.reached(db)
            commands = await self._money.on_the_way(db, reached, ON_THE_WAY_MAX + 1)
            if len(commands) > ON_THE_WAY_MAX:
                return None
            refs = {row["ref"] for row in commands}
            refs |= {ref.removeprefix("refund:") for ref in refs}  # a fee that goes back was never an entry
            for others in self._others:
                refs.update(await others(db))
            bodies = [row["body"] for row in commands]
            bodies += await queries.parts_of(db, [row["document_id"] for row in commands])
            busy: set[tuple[str, str]] = set().union(*map(touched, bodies))
            rows = await queries.of_payees(db, reached, sorted(refs))
            resting = await queries.of_cover(db) + await queries.of_works(db) + await queries.of_sweeps(db)
            rows += [row for row in resting if (row["account"], row["asset"]) not in busy]
        return [Difference(row["account"], row["asset"], int(row["core"]), int(row["books"])) for row in rows]
