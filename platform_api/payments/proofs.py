"""Payments from a balance that cost a wallet's signature, so that a stolen session alone pays little, and few.

A transfer to an account that was never paid before costs one. Purchases and fees of licences pay anybody who sells, and
whoever stole a session may be one of them: so many units of an asset a day (UTC) are paid without, the rest each with
one of its own. What is paid with one does not count. The owner gets a letter of each. A payment that the core refuses
gives its step-up back.
"""

from __future__ import annotations

from typing import Any
from uuid import UUID

from platform_api.identity.service import IdentityService
from platform_api.identity.step_up import give_back_step_up, spend_step_up
from platform_api.kernel.context import Kernel
from platform_api.money import decimal_text
from platform_api.payments import queries
from platform_api.security import Caller

__all__ = ["PaymentProofs"]


class PaymentProofs:
    """Keeps nothing: whoever asks makes one. The route of what asks lets its guard forget the session afterwards."""

    def __init__(self, kernel: Kernel) -> None:
        self._per_day = kernel.settings.unproved_per_day
        self._letters = kernel.service(IdentityService).letters

    async def spend(
        self, db: Any, caller: Caller, document_id: UUID, subject: str, text: str, *, rule: str = "This"
    ) -> None:
        """The session's step-up for this document, and a letter of what it was spent for, in the transaction of `db`.

        Raises ApiError FORBIDDEN `step_up_required`, which says that `rule` needs one.
        """
        await spend_step_up(db, caller, rule, document_id)
        await self._letters.tell(db, UUID(caller.account_id), subject, text)

    async def give_back(self, db: Any, account_id: UUID, document_id: UUID) -> None:
        """The core refused the payment: the step-up that it cost, if any, is the session's again."""
        await give_back_step_up(db, account_id, document_id)

    async def of_payment(
        self, db: Any, caller: Caller, document_id: UUID, asset: str, scale: int, units: int, what: str
    ) -> None:
        """For a payment of `units` to whoever sells, counted if it needs none; `what` it is for, as the letter says.

        Payments of one account at the same time count one after the other. One that the core refuses stays counted.

        Raises ApiError FORBIDDEN `step_up_required`.
        """
        most = self._per_day * 10**scale
        if units <= most and await queries.count_unproved(db, UUID(caller.account_id), asset, units, most):
            return
        text = f"{decimal_text(units, scale)} {asset} are on their way from your account for {what}."
        rule = f"What is paid from the balance beyond {self._per_day} {asset} a day"
        await self.spend(db, caller, document_id, "A large payment from your account", text, rule=rule)
