"""Letters to an account's owner about what a stolen session could have done in their name.

Never holds a secret. Pages hear of the same by the event that is published beside it.
"""

from __future__ import annotations

from typing import Any
from uuid import UUID

import msgspec

from platform_api.identity import queries
from platform_api.ids import new_id
from platform_api.kernel.context import Kernel
from platform_api.kernel.sealing import SealedColumn
from platform_api.ports import Letter

__all__ = ["ACCOUNT_EMAIL", "OwnerLetters"]

ACCOUNT_EMAIL = SealedColumn("identity.account", "email_sealed")


class OwnerLetter(msgspec.Struct, frozen=True):
    """A job: write this to the owner of the account."""

    id: UUID
    account_id: UUID
    subject: str
    text: str
    instead: bytes | None = None


class OwnerLetters:
    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        kernel.jobs.handle("notifications", "owner_letter", OwnerLetter, self._write)

    async def tell(
        self, db: Any, account_id: UUID, subject: str, text: str, instead: bytes | None = None
    ) -> None:  # fmt: skip
        """To the account's confirmed address, if it has one, once the transaction of `db` is committed.
        `instead`: to the address that it had, sealed as it stood in the account's row."""
        if self._kernel.mail is not None:
            letter = OwnerLetter(new_id(), account_id, subject, text, instead)
            await self._kernel.jobs.enqueue(db, "notifications", "owner_letter", letter)

    async def _write(self, job: OwnerLetter) -> None:
        async with self._kernel.database.connection() as db:
            row = await queries.account_by_id(db, job.account_id)
        sealed = row["email_sealed"] if job.instead is None else job.instead
        if self._kernel.mail is None or sealed is None:
            return
        email = self._kernel.sealer.open(ACCOUNT_EMAIL, row["id"], bytes(sealed))
        text = (
            f"{job.text}\n\nIf it was not you: sign in at {self._kernel.settings.origin} with a wallet you trust,\n"
            "end the sessions and keys that you do not know, and write to us.\n"
        )
        await self._kernel.mail.send(Letter(str(job.id), email, job.subject, text))
