"""What each account is owed, entry by entry, and the platform's money laid beside debts.

An entry is written when the core has answered; it is never changed. What is read of many is summed as they are written
(docs/decisions/0063). First of all `owed`, whose row is locked before any other sum: the running sum of an account's
entries of an asset, and so the balance of `pay:ID` in the core as far as sales made it. Below zero it is a debt: as
much of our own money stands in `platform:cover`, so that clients' money on the chain is never short of what clients are
owed (`cover:ID`, from and to `platform:reserve`). No refund is ordered that would need more of it than we have. It goes
there behind the entry that makes the debt, not once a cut, so a cut never sees a debt for longer than the command
takes; what the core refuses is tried anew every few minutes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import msgspec
import structlog

from platform_api.errors import ApiError, ErrorCode
from platform_api.exchange.account_queries import available
from platform_api.ids import new_id
from platform_api.kernel.context import Kernel
from platform_api.ledger.commands import FORCED, NEVER, MoneyAnswer, MoneyCommands
from platform_api.money import decimal_text
from platform_api.royalties import queries

__all__ = ["COVER", "RESERVE", "Entries", "Income"]

log = structlog.get_logger(__name__)

COVER, RESERVE, REVENUE = "platform:cover", "platform:reserve", "platform:revenue"
COVER_AGAIN = timedelta(minutes=5)


class CoverAgain(msgspec.Struct, frozen=True):
    """The core has refused to lay money aside: look again."""

    asset: str
    scale: int


@dataclass(frozen=True, slots=True)
class Income:
    """Money of a payee that no distribution divides, as the core's answer named by `ref` and `sequence` moved it."""

    kind: str
    asset: str
    scale: int
    units: int
    ref: str
    sequence: int | None
    work_id: UUID | None = None
    licence_id: UUID | None = None

    @property
    def of_asset(self) -> dict[str, Any]:
        return {"asset": self.asset, "scale": self.scale}


class Entries:
    def __init__(self, kernel: Kernel) -> None:
        self.hold = timedelta(days=kernel.settings.royalty_hold_days)
        """So long what is earned stays held; its seller may refund it meanwhile."""
        self._money = kernel.service(MoneyCommands)
        self._money.handle("cover", self._on_answer)
        self._database, self._jobs = kernel.database, kernel.jobs
        self._jobs.handle("payments", "cover_again", CoverAgain, self._cover_again)

    async def write(
        self,
        db: Any,
        account_id: UUID,
        kind: str,
        row: Any,
        units: int,
        *,
        ref: str,
        sequence: int | None,
        matures_at: datetime | None = None,
        hold: timedelta | None = None,
        work_id: UUID | None = None,
        revenue_kind: str | None = None,
        distribution_id: UUID | None = None,
        licence_id: UUID | None = None,
    ) -> None:
        """One entry, in the asset and scale of `row`. It matures at a time, or `hold` from now.

        Who writes several in one transaction has called `lock` with all their accounts.
        """
        await queries.add_owed(db, account_id, row["asset"], units if kind == "earned" else -units)
        await queries.insert_entry(
            db, new_id(),
            (account_id, kind, row["asset"], row["scale"], units, matures_at, hold, work_id, revenue_kind,
             distribution_id, licence_id, ref, sequence),
        )  # fmt: skip

    async def lock(self, db: Any, asset: str, accounts: Iterable[UUID]) -> None:
        """Everybody of whom this transaction writes entries in this asset, before the first and before any cover.

        In one order, so that of two transactions the one waits for the other, and never both.
        """
        await queries.lock_owed(db, asset, sorted(set(accounts)))

    async def credit(self, db: Any, parts: Sequence[tuple[UUID, Income]]) -> None:
        """What the core has posted to each `pay:ID` by one command of another context than royalties, of one asset.

        Raises nothing of its own; in the transaction that notes the answer, once.
        """
        if not parts:
            return
        of = parts[0][1]
        await self.lock(db, of.asset, (account_id for account_id, _ in parts))
        for account_id, income in parts:
            await self.write(
                db, account_id, "earned", income.of_asset, income.units, ref=income.ref, sequence=income.sequence,
                hold=self.hold, work_id=income.work_id, revenue_kind=income.kind, licence_id=income.licence_id,
            )  # fmt: skip
        await self.cover_debts(db, of.asset, of.scale)

    async def take_back(self, db: Any, account_id: UUID, income: Income, earned_at: datetime) -> None:
        """A refund has taken it from `pay:ID` again; the caller has called `lock`.

        `earned_at`: of the entry that it undoes.
        """
        await self.write(
            db, account_id, "reversed", income.of_asset, income.units, ref=income.ref, sequence=income.sequence,
            matures_at=earned_at + self.hold, work_id=income.work_id, revenue_kind=income.kind,
            licence_id=income.licence_id,
        )  # fmt: skip
        await self.cover_debts(db, income.asset, income.scale)

    def check_held(self, paid_at: datetime) -> None:
        """Before a refund by who has sold it. Raises ApiError FORBIDDEN `hold_over`."""
        if paid_at + self.hold <= datetime.now(UTC):
            message = f"After {self.hold.days} days refunds are made by the platform."
            raise ApiError(ErrorCode.FORBIDDEN, message, reason="hold_over")

    async def set_aside(
        self, db: Any, ref: str, row: Any, parts: Iterable[tuple[str, int]], *, forced: bool
    ) -> None:
        """A refund under way will take these units from these accounts of the core: none of it is payable meanwhile.

        In the asset and scale of `row`, in the transaction that orders the command `ref`; `release` in the one that
        notes its end. `forced`: it takes them from payees who no longer have them, too.

        Raises:
            ApiError: CONFLICT `reserve_empty` if it is forced and needs more of our own money than we have.
        """
        payees = [
            (UUID(account.removeprefix("pay:")), units) for account, units in parts if account.startswith("pay:")
        ]
        await queries.add_set_aside(db, ref, row["asset"], payees)
        if forced:
            await self._check_reserve(db, row["asset"], row["scale"])

    async def _check_reserve(self, db: Any, asset: str, scale: int) -> None:
        """Our own money covers what payees would owe us once all that is set aside is taken.

        It is asked of the projection, which may be a moment behind: a brake, not a lock of the core.
        """
        await queries.lock_cover(db, asset)  # of two refunds at once, the second sees what the first takes
        lacking = await queries.debts_to_come(db, asset) - await queries.covered(db, asset)
        if lacking <= 0:
            return
        own = await available(db, (RESERVE, REVENUE), asset)
        if lacking > own:
            message = f"It takes {decimal_text(lacking, scale)} {asset} of the platform's own money: it is not there."
            raise ApiError(ErrorCode.CONFLICT, message, reason="reserve_empty", details={
                "lacking": decimal_text(lacking - max(own, 0), scale), "asset": asset})  # fmt: skip

    async def release(self, db: Any, ref: str) -> None:
        """The refund has ended: its reversals, if any, are entries of the same transaction."""
        await queries.release(db, ref)

    async def cover_debts(self, db: Any, asset: str, scale: int) -> None:
        """Lay so much aside as payees owe us, behind the entries of a transaction."""
        debts, covered = await queries.debts_and_cover(db, asset)
        if debts == covered:
            return
        await queries.lock_cover(db, asset)  # of two at once, the second sees what the first did
        if await queries.is_cover_open(db, asset):  # its answer looks again
            return
        debts, covered = await queries.debts_and_cover(db, asset)
        if debts == covered:
            return
        source, target = (RESERVE, COVER) if debts > covered else (COVER, RESERVE)
        id_ = new_id()
        leg = {"from": source, "asset": asset, "amount": decimal_text(abs(debts - covered), scale), "to": target}
        await queries.insert_cover(db, id_, asset, scale, debts)
        await self._money.order(
            db, f"cover:{id_.hex}", "cover", id_, {"op": "transfer", "legs": [leg], "force": True, "code": "cover"},
            accounts={RESERVE: FORCED, COVER: NEVER},
        )  # fmt: skip

    async def _on_answer(self, db: Any, answer: MoneyAnswer) -> None:
        row = await queries.cover(db, answer.document_id)
        await queries.lock_cover(db, row["asset"])
        await queries.turn_cover(db, answer.document_id, "posted" if answer.state == "posted" else "failed")
        if answer.state == "posted":
            await self.cover_debts(db, row["asset"], row["scale"])
        else:
            log.error("cover_not_posted", ref=answer.ref, state=answer.state, reason=answer.reason)
            again = CoverAgain(row["asset"], row["scale"])
            await self._jobs.enqueue(db, "payments", "cover_again", again, run_after=COVER_AGAIN)

    async def _cover_again(self, job: CoverAgain) -> None:
        async with self._database.transaction() as db:
            await self.cover_debts(db, job.asset, job.scale)
