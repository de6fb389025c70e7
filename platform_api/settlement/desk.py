"""Drives withdrawals: from the document to the hold in the core, and from the final batch back to the document.

    requested   the command is sent, as often as it takes: its ref runs once
    refusing    the core has refused it, and its ref is closed there, for a late copy could still run; a copy of another
                sender that was held meanwhile is voided by that, since nobody notes it any more
    held        not confirmed in time: cancelled
    confirmed   its address is neither a linked wallet nor on the list any more: cancelled
    canceling   the hold is voided (or its ref closed)
    confirmed   `released`, which settlement asks at each cut, takes those whose delay is over and whose address is
                still allowed; from then on a batch pays them
    released    a final batch has paid it, or the contract has skipped it

Runs in the back office; the REST service uses `drive` for its own answer. Every step can be repeated; a crash anywhere
leaves a document from which the next round goes on. While the database is away nothing is released and nothing is lost.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from engine.messages.errors import OutcomeUnknown, Refused, Unavailable
from platform_api.database import Database
from platform_api.ports import CorePort, submit_taken
from platform_api.settlement.withdrawal_life import take

__all__ = ["WithdrawalDesk", "drive"]

log = logging.getLogger(__name__)

INTERVAL_S = 0.5
ROWS_PER_ROUND = 200


async def drive(db: Any, core: CorePort, row: Any) -> None:
    """Send what the document wants of the core as it stands. `db` is not in a transaction: each step stands at once.

    Raises Unavailable, OutcomeUnknown: again; Refused: the core does not do it, and a person must look.
    """
    if row["status"] == "requested":
        await _hold(db, core, row)
    elif row["status"] == "refusing":
        await _close(db, core, row, "closed")
    elif row["status"] == "canceling":
        await _close(db, core, row, "voided")


async def _hold(db: Any, core: CorePort, row: Any) -> None:
    answer = await submit_taken(core, _command(row))
    event, status = answer.get("event"), answer.get("status")
    if event == "pended" or (event == "duplicate" and status == "pending"):
        await take(db, row["id"], "held")
        return
    reason = str(answer.get("reason") or status or event)
    if reason == "bad_ref":  # another command owns the ref: what it holds is not ours to give back
        raise Refused(f"withdrawal {row['ref']} is refused: {reason}")
    if await take(db, row["id"], "refuse", reason=reason):  # else another sender's copy was held, or it is cancelled
        log.info("event=withdrawal_refused ref=%s reason=%s", row["ref"], reason)
        await _close(db, core, row, "closed")


async def _close(db: Any, core: CorePort, row: Any, step: str) -> None:
    """Afterwards no command with this ref can take money: what it held is back, and a late copy is `duplicate`, or
    `expired`: the core remembers a closed ref no longer than a copy could run, and neither closes it after that."""
    close = {"op": "withdraw_failed", "ref": row["ref"], "not_after": _command(row)["not_after"]}
    answer = await submit_taken(core, close)
    if "voided" not in (answer.get("event"), answer.get("status")) and answer.get("reason") != "expired":
        raise Refused(f"withdrawal {row['ref']} cannot be voided: {answer.get('reason') or answer.get('status')}")
    await take(db, row["id"], step)


def _command(row: Any) -> dict[str, Any]:
    command: dict[str, Any] = msgspec.json.decode(row["command"])
    return command


class WithdrawalDesk:
    """One database, one core. Fulfils settlement's ReleasePort."""

    def __init__(self, database: Database, core: CorePort) -> None:
        self._database, self._core = database, core
        self._paid: dict[str, tuple[int, str, bool]] = {}
        """Ref → batch, digest, skipped: of final batches, until written."""
        self.error = ""

    def store_paid(self, batch: int, payouts: Sequence[tuple[str, str, bool]]) -> None:
        """Take (ref, digest, skipped) of a final batch. The same again does no harm."""
        for ref, digest, skipped in payouts:
            self._paid[ref] = (batch, digest, skipped)

    async def unpaid(self) -> set[str]:
        """Refs that a batch may pay or has paid, and that are not written as paid or skipped. Raises Unavailable."""
        async with self._database.connection() as db:
            rows = await db.fetch("SELECT ref FROM money.withdrawal WHERE status = 'released'")
        return {row["ref"] for row in rows}

    async def released(self, refs: Sequence[str]) -> Mapping[str, bytes]:
        """Ref → recipient, of those that a batch may pay now. Raises Unavailable."""
        async with self._database.transaction() as db:
            await db.execute(
                """
                UPDATE money.withdrawal w SET status = 'released', updated_at = now()
                WHERE ref = ANY($1) AND status = 'confirmed' AND not_before <= now() AND (
                    EXISTS (SELECT FROM identity.wallet l WHERE l.account_id = w.account_id
                            AND l.address = w.recipient AND l.revoked_at IS NULL AND l.linked_at <= w.created_at)
                    OR EXISTS (SELECT FROM money.withdrawal_address a WHERE a.account_id = w.account_id
                               AND a.address = w.recipient AND a.removed_at IS NULL AND a.usable_at <= now()))
                """,
                list(refs),
            )
            rows = await db.fetch(
                "SELECT ref, recipient FROM money.withdrawal WHERE ref = ANY($1) AND status = 'released'", list(refs)
            )
        return {row["ref"]: bytes(row["recipient"]) for row in rows}

    async def run(self, stop: asyncio.Event) -> None:
        """Until told to stop."""
        while not stop.is_set():
            try:
                await self.step()
                self.error = ""
            except (Unavailable, OutcomeUnknown) as error:
                self.error = str(error)
            try:
                await asyncio.wait_for(stop.wait(), INTERVAL_S)
            except TimeoutError:
                continue

    async def step(self) -> None:
        """Everything that is due now. Raises Unavailable, OutcomeUnknown; the rest is done next time."""
        await self._write_paid()
        async with self._database.connection() as db:
            await db.execute(
                "UPDATE money.withdrawal SET status = 'canceling', reason = 'not_confirmed', updated_at = now()"
                " WHERE status = 'held' AND confirm_by < now()"
            )
            await db.execute(
                """
                UPDATE money.withdrawal w SET status = 'canceling', reason = 'address_removed', updated_at = now()
                WHERE status = 'confirmed' AND NOT EXISTS (
                    SELECT FROM identity.wallet l WHERE l.account_id = w.account_id
                    AND l.address = w.recipient AND l.revoked_at IS NULL)
                AND NOT EXISTS (
                    SELECT FROM money.withdrawal_address a WHERE a.account_id = w.account_id
                    AND a.address = w.recipient AND a.removed_at IS NULL)
                """
            )
            rows = await db.fetch(
                "SELECT id, ref, command, status FROM money.withdrawal WHERE status IN ('requested', 'refusing',"
                " 'canceling') ORDER BY id LIMIT $1",
                ROWS_PER_ROUND,
            )
        for row in rows:
            try:
                async with self._database.connection() as db:
                    await drive(db, self._core, row)
            except Refused as error:
                log.error("event=withdrawal_stuck ref=%s reason=%s", row["ref"], error)

    async def _write_paid(self) -> None:
        paid = dict(self._paid)
        if not paid:
            return
        async with self._database.connection() as db:
            rows = await db.fetch(
                "SELECT id, ref FROM money.withdrawal WHERE ref = ANY($1) AND status = 'released'", list(paid)
            )
            for row in rows:
                batch, digest, skipped = paid[row["ref"]]
                if skipped:
                    await take(db, row["id"], "skip", reason="row_emptied_by_exit", batch=batch, digest=digest)
                else:
                    await take(db, row["id"], "paid", batch=batch, digest=digest)
        for ref, written in paid.items():
            if self._paid.get(ref) == written:
                del self._paid[ref]
