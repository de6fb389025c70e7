"""The step-up of an act: a wallet's signature after the sign-in, spent by the one act that asks for it.

An act that is refused in its transaction leaves it as it was. A payment is refused later, by the core's answer, and
gives it back with that.

The signature of the sign-in is none: it comes with a stolen session.
"""

from __future__ import annotations

from typing import Any
from uuid import UUID

from platform_api.identity import queries
from platform_api.security import PROOF_MAX, Caller, step_up_required

__all__ = ["give_back_step_up", "spend_step_up"]


async def spend_step_up(db: Any, caller: Caller, rule: str = "This", document_id: UUID | None = None) -> None:
    """In the transaction of `db`. The route lets its guard forget the session afterwards. `document_id`: of an act that
    may still fail, which then gives it back.

    Raises ApiError FORBIDDEN `step_up_required`, which says that `rule` needs one;
    also for a session that ended meanwhile.
    """
    if not await queries.spend_step_up(db, UUID(caller.session_id), PROOF_MAX, document_id):
        raise step_up_required(rule)


async def give_back_step_up(db: Any, account_id: UUID, document_id: UUID) -> None:
    """What was spent for the document, which came to nothing: in the transaction that notes so. It is good for as long
    as it was; one that was spent for none, or a second time, is not touched."""
    await queries.give_back_step_up(db, account_id, document_id)
