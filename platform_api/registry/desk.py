"""Brings registrations and licences to the chain, one transaction after the other, each at most once.

    1  the next document that is due is signed for                  nothing has happened
    2  bytes and digest are stored, the document is `submitted`     one transaction of PostgreSQL
    3  the bytes are noted as sent, then sent
    4  what the chain has done is taken into the document           one transaction of PostgreSQL

    signed ──▶ submitted ──▶ executed | aborted | refused

A crash between any two steps leaves a row from which the next round goes on: what is `signed` was never sent, what is
`submitted` is asked for by its digest and the same bytes are sent again. Only a definite refusal of bytes that the
chain has not executed allows new ones, and whatever was signed for the document before is asked for first. That two of
them exclude each other is the chain's part (`RightsPort`). One transaction is under way at a time, held by a unique
index: the capability and the gas coin that a transaction names change with the one before it.

Turn by turn: of the purposes, and of the accounts for which a purpose has documents. Whoever has one waits for one of
each other account, however many those have.

Runs in the back office. While the chain or the database is away nothing is lost, and nothing is sent twice.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import Any, Protocol
from uuid import UUID

from engine.messages.errors import OutcomeUnknown, Refused, Unavailable
from platform_api.database import Database
from platform_api.ids import new_id
from platform_api.kernel.events import Events
from platform_api.ports import ChainOutcome, RightsPort, SignedCall
from platform_api.registry import queries

__all__ = ["ABORTS_MAX", "Part", "RegistryDesk"]

log = logging.getLogger(__name__)

INTERVAL_S = 0.5
REST_S = 30.0
"""After something that nobody foresaw."""
ABORTS_MAX = 5
"""Transactions of one document that cost gas without an effect; then a person is asked."""
_FIRST = UUID(int=0)
"""Before all accounts."""


class Part(Protocol):
    """One purpose of transactions: which documents wait for it, and what it does to them."""

    purpose: str

    async def due(self, db: Any, after: UUID) -> Any:
        """What has waited longest, of the first account after this one that waits for anything; None: of none after it.
        `turn_of` is the account."""

    async def sign(self, row: Any) -> SignedCall | None:
        """None: it must wait, and was put off. Raises Refused: the chain says no before anything was sent."""

    async def begin(self, db: Any, row: Any) -> bool:
        """The document is under way; False if it no longer waits."""

    async def read(self, digest: str) -> Any:
        """What a transaction has made, for `end`."""

    async def end(self, db: Any, document_id: Any, made: Any) -> None:
        """It has taken effect."""

    async def made_before(self, document_id: Any, outcome: ChainOutcome) -> Any:
        """After an abort: what `end` takes, if the document's effect stands on the chain all the same. Else None."""

    async def put_off(self, db: Any, document_id: Any) -> None:
        """To be signed anew, later."""

    async def fail(self, db: Any, document_id: Any, outcome: ChainOutcome) -> None:
        """It never takes effect."""

    def is_final(self, outcome: ChainOutcome) -> bool:
        """Would another try abort alike?"""


async def _rest(stop: asyncio.Event, seconds: float) -> None:
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(stop.wait(), seconds)


class RegistryDesk:
    def __init__(self, database: Database, chain: RightsPort, events: Events, parts: list[Part]) -> None:
        self._database, self._chain, self._events = database, chain, events
        self._parts = {part.purpose: part for part in parts}
        self._in_turn = [(part, _FIRST) for part in parts]
        """Each with the account it served last; the part that was served last is the last."""
        self.error = ""

    async def run(self, stop: asyncio.Event) -> None:
        """Until told to stop. Never raises: it shares its process with settlement."""
        while not stop.is_set():
            try:
                busy = await self.step()
                self.error = ""
            except (Unavailable, OutcomeUnknown, Refused) as error:
                busy, self.error = False, str(error)
            except Exception as error:
                log.exception("event=registry_failed: the registry rests; settlement in this process goes on")
                busy, self.error = False, f"{type(error).__name__}: {error}"
                await _rest(stop, REST_S)
            if not busy:
                await _rest(stop, INTERVAL_S)

    async def step(self) -> bool:
        """One document further; False if nothing is due. Raises Unavailable, OutcomeUnknown, Refused: call again."""
        async with self._database.connection() as db:
            row = await queries.transaction_under_way(db)
        if row is None:
            for turn in self._in_turn:
                part, served = turn
                async with self._database.connection() as db:
                    document = await part.due(db, served) or await part.due(db, _FIRST)
                if document is not None:
                    self._in_turn.remove(turn)
                    self._in_turn.append((part, document["turn_of"]))
                    return await self._begin(part, document)
            return False
        await self._drive(row)
        return True

    async def _begin(self, part: Part, document: Any) -> bool:
        if await self._found_before(part, document):
            return True
        try:
            signed = await part.sign(document)
        except Refused:
            async with self._database.transaction() as db:
                await part.put_off(db, document["id"])
            raise
        if signed is None:
            return True
        async with self._database.transaction() as db:
            # The very same bytes again, if nothing has changed since they were refused.
            row = await queries.revive_transaction(db, signed.digest)
            if row is None:
                fields = {
                    "id": new_id(), "purpose": part.purpose, "document_id": document["id"], "raw": signed.raw,
                    "signature": signed.signature, "digest": signed.digest,
                }  # fmt: skip
                row = await queries.insert_transaction(db, fields)
            if row is None:  # another desk was first
                return True
            if not await part.begin(db, document):
                await queries.end_transaction(db, row["id"], "refused", "no longer wanted", None, None)
                return True
        await self._drive(row)
        return True

    async def _found_before(self, part: Part, document: Any) -> bool:
        """Did bytes take effect that were signed before, and that a node has refused to us?"""
        async with self._database.connection() as db:
            earlier = await queries.refused_transactions(db, document["id"], part.purpose)
        for row in earlier:
            found = await self._chain.find(row["digest"])
            if found is not None and found.success:
                made = await part.read(row["digest"])
                async with self._database.transaction() as db:
                    if await queries.correct_transaction(db, row["id"], found.gas_mist, found.checkpoint):
                        await self._tell(db, row, "executed")
                        await part.end(db, document["id"], made)
                return True
        return False

    async def _drive(self, row: Any) -> None:
        """From bytes that are stored to the document. Raises Unavailable, OutcomeUnknown."""
        outcome = None
        if row["status"] == "submitted":
            outcome = await self._chain.find(row["digest"])
        else:
            async with self._database.transaction() as db:
                await queries.note_sending(db, row["id"])
        if outcome is None:
            try:
                outcome = await self._chain.send(
                    SignedCall(bytes(row["raw"]), bytes(row["signature"]), row["digest"])
                )
            except Refused as refused:
                outcome = await self._chain.find(row["digest"])
                if outcome is None:
                    await self._refused(row, str(refused))
                    return
        if outcome.checkpoint is None:
            raise Unavailable(f"{outcome.digest} is executed and in no checkpoint yet")
        await self._executed(row, outcome)

    async def _refused(self, row: Any, why: str) -> None:
        """The bytes are dead, or exclude those that are signed next."""
        part = self._parts[row["purpose"]]
        async with self._database.transaction() as db:
            if await queries.end_transaction(db, row["id"], "refused", why[:1_000], None, None):
                await self._tell(db, row, "refused")
                await part.put_off(db, row["document_id"])
        log.warning("event=rights_refused purpose=%s document=%s reason=%s", row["purpose"], row["document_id"], why)

    async def _executed(self, row: Any, outcome: ChainOutcome) -> None:
        part, document_id = self._parts[row["purpose"]], row["document_id"]
        made = await (part.read(outcome.digest) if outcome.success else part.made_before(document_id, outcome))
        async with self._database.transaction() as db:
            status = "executed" if outcome.success else "aborted"
            if not await queries.end_transaction(
                db, row["id"], status, outcome.error[:1_000], outcome.gas_mist, outcome.checkpoint
            ):
                return
            await self._tell(db, row, status)
            if made is not None:
                await part.end(db, document_id, made)
            elif part.is_final(outcome) or await queries.transaction_counts(db, document_id) >= ABORTS_MAX:
                await part.fail(db, document_id, outcome)
            else:
                await part.put_off(db, document_id)
        log.info("event=rights_%s purpose=%s document=%s digest=%s", status, row["purpose"], document_id, row["digest"])

    async def _tell(self, db: Any, row: Any, status: str) -> None:
        """In the transaction that notes it. Refused bytes may turn out to have taken effect, and are told of again."""
        payload = {
            "purpose": row["purpose"], "document_id": str(row["document_id"]), "digest": row["digest"],
            "status": status,
        }  # fmt: skip
        type_ = "chain.tx_confirmed" if status == "executed" else "chain.tx_failed"
        await self._events.publish(db, type_, ("chain_tx", str(row["id"])), payload)
