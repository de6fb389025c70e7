"""The step-up of an act: a wallet's signature after the sign-in, spent by the one act that asks for it.

The signature of the sign-in is none: it comes with a stolen session.
"""

from __future__ import annotations

from typing import Any
from uuid import UUID

from platform_api.identity import queries
from platform_api.security import PROOF_MAX, Caller, step_up_required

__all__ = ["spend_step_up"]


async def spend_step_up(db: Any, caller: Caller, rule: str = "This") -> None:
    """In the transaction of `db`. The route lets its guard forget the session afterwards.

    Raises ApiError FORBIDDEN `step_up_required`, which says that `rule` needs one;
    also for a session that ended meanwhile.
    """
    if not await queries.spend_step_up(db, UUID(caller.session_id), PROOF_MAX):
        raise step_up_required(rule)
