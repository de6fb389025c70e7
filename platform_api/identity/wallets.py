"""Several wallets for one account: a lost wallet need not be a lost account.

Linking needs a step-up of its own, by a wallet that is linked already, and a proof of the new wallet: the signature of
the sign-in is not enough, for it comes with a stolen session. Unlinking needs a fresh proof.
A wallet is of one account at a time. The primary one, a Sui wallet, is the account's row on chain: the core is told
before the change is committed, and refuses while money of the account is on its way out.
"""

from __future__ import annotations

from typing import Any
from uuid import UUID

from platform_api.envelope import unknown
from platform_api.errors import ApiError, ErrorCode, timestamp
from platform_api.identity import queries
from platform_api.identity.models import Wallet, WalletProof
from platform_api.identity.owner_letters import OwnerLetters
from platform_api.identity.sessions import Sessions, core_account
from platform_api.identity.step_up import spend_step_up
from platform_api.identity.wallet_proof import WalletAddress
from platform_api.ids import new_id
from platform_api.kernel.context import Kernel
from platform_api.security import Caller

__all__ = ["Wallets"]


class Wallets:
    def __init__(self, kernel: Kernel, sessions: Sessions, letters: OwnerLetters) -> None:
        self._kernel = kernel
        self._sessions = sessions
        self._letters = letters

    async def wallets_of(self, caller: Caller) -> list[Wallet]:
        async with self._kernel.database.connection() as db:
            return [_wallet(row) for row in await queries.wallets(db, UUID(caller.account_id))]

    async def link(self, caller: Caller, body: WalletProof) -> Wallet:
        """Raises ApiError UNAUTHORIZED (the proof), FORBIDDEN `step_up_required`, CONFLICT `wallet_taken`,
        `too_many_wallets`, `row_in_use`."""
        wallet, signer = await self._sessions.prove(body, "link_wallet", caller.account_id)
        account_id, wallet_id = UUID(caller.account_id), new_id()
        async with self._kernel.database.transaction_beside_core() as db:
            await queries.lock_account(db, account_id)
            await spend_step_up(db, caller)
            known = await queries.wallets(db, account_id)
            if len(known) >= self._kernel.settings.wallets_per_account_max:
                raise ApiError(ErrorCode.CONFLICT, "The account has too many wallets.", reason="too_many_wallets")
            primary = wallet.chain == "sui" and not any(row["is_primary"] for row in known)
            if not await queries.insert_wallet(db, wallet_id, account_id, wallet, signer, primary=primary):
                message = "This wallet is linked to an account already."
                raise ApiError(ErrorCode.CONFLICT, message, reason="wallet_taken", field="address")
            await self._note(db, "wallet.linked", caller, wallet_id, wallet, new=True)
            if primary:
                await self._set_row(account_id, wallet)
            (row,) = (row for row in await queries.wallets(db, account_id) if row["id"] == wallet_id)
            return _wallet(row)

    async def unlink(self, caller: Caller, wallet_id: UUID) -> list[UUID]:
        """The sessions that ended with it.

        Raises:
            ApiError: NOT_FOUND, FORBIDDEN `step_up_required`, CONFLICT `last_wallet`, `withdrawal_open`,
                `settlement_wallet`, `row_in_use`.
        """
        account_id = UUID(caller.account_id)
        async with self._kernel.database.transaction_beside_core() as db:
            await queries.lock_account(db, account_id)
            known = await queries.wallets(db, account_id)
            found = next((row for row in known if row["id"] == wallet_id), None)
            if found is None:
                raise unknown("wallet")
            if len(known) == 1:
                raise ApiError(ErrorCode.CONFLICT, "The last wallet of an account stays.", reason="last_wallet")
            if await queries.has_open_withdrawal(db, account_id):  # one that begins now is cancelled by its desk
                message = "A withdrawal of the account is under way: cancel it, or wait until it is settled."
                raise ApiError(ErrorCode.CONFLICT, message, reason="withdrawal_open")
            heir = next((row for row in known if row["chain"] == "sui" and row["id"] != wallet_id), None)
            if found["is_primary"] and heir is None:
                message = "The account is settled in this wallet: link another Sui wallet first."
                raise ApiError(ErrorCode.CONFLICT, message, reason="settlement_wallet")
            await spend_step_up(db, caller)
            ended = await queries.revoke_wallet(db, wallet_id)
            await self._sessions.cut_off(db, account_id, ended, "wallet_unlinked")
            wallet = WalletAddress(found["chain"], bytes(found["address"]))
            await self._note(db, "wallet.unlinked", caller, wallet_id, wallet, new=False)
            if found["is_primary"] and heir is not None:
                await queries.make_primary(db, heir["id"])
                await self._set_row(account_id, WalletAddress("sui", bytes(heir["address"])))
        return ended

    async def _set_row(self, account_id: UUID, wallet: WalletAddress) -> None:
        command = {"op": "account", "account": core_account(account_id), "row": wallet.text}
        answer = await self._kernel.core.submit(command)
        if answer.get("event") == "rejected":
            message = "Money of the account is on its way out: the wallet it is settled in cannot change now."
            raise ApiError(
                ErrorCode.CONFLICT, message, reason="row_in_use", details={"core_reason": str(answer.get("reason"))}
            )

    async def _note(
        self, db: Any, event: str, caller: Caller, wallet_id: UUID, wallet: WalletAddress, *, new: bool
    ) -> None:
        facts = {"chain": wallet.chain, "address": wallet.text}
        await self._kernel.events.publish(
            db, event, ("wallet", str(wallet_id)), {"account_id": caller.account_id, "chain": wallet.chain},
            actor=caller.account_id,
        )  # fmt: skip
        await self._kernel.audit.record(
            db, event, ("wallet", str(wallet_id)), actor=caller.account_id, old=None if new else facts,
            new=facts if new else None,
        )  # fmt: skip
        text = f"The wallet {wallet.text} {'opens' if new else 'no longer opens'} your account."
        await self._letters.tell(db, UUID(caller.account_id), f"A wallet was {'' if new else 'un'}linked", text)


def _wallet(row: Any) -> Wallet:
    address = WalletAddress(row["chain"], bytes(row["address"]))
    return Wallet(
        str(row["id"]), row["chain"], address.text, row["scheme"], row["is_primary"], timestamp(row["linked_at"])
    )
