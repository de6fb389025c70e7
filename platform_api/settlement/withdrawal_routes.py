"""Routes of deposits and withdrawals."""

from __future__ import annotations

from litestar import Controller, Response, delete, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath, JSONBody

from platform_api.envelope import LIMIT_DEFAULT, Cursor, Envelope, Limit, ok
from platform_api.exchange.account_models import Deposit
from platform_api.idempotency import NeededKey, required_key
from platform_api.openapi import BEARER, failures
from platform_api.routing import READS, AnyRequest, Who
from platform_api.settlement.withdrawal_models import (
    Address,
    AddressRequest,
    Confirmation,
    DepositRequest,
    DepositRoute,
    Withdrawal,
    WithdrawalRequest,
)
from platform_api.settlement.withdrawals import WithdrawalService

__all__ = ["WithdrawalController"]

Desk = NamedDependency[WithdrawalService]


class WithdrawalController(Controller):
    path = "/v1"
    tags = ("settlement",)

    @post("/withdrawals", status_code=201, security=BEARER, responses=failures(400, 401, 402, 403, 409, 429, 503, 504))
    async def ask(
        self,
        request: AnyRequest,
        data: JSONBody[WithdrawalRequest],
        caller: Who,
        withdrawals: Desk,
        idempotency_key: NeededKey = None,
    ) -> Response[Envelope[Withdrawal]]:
        """Ask for a withdrawal: the money is held; sign `message` and confirm, then a batch pays it on the chain.

        402 says that nothing is held, and why, as `insufficient_funds`.
        """
        document, replayed = await withdrawals.ask(caller, data, required_key(idempotency_key))
        headers = {"idempotency-replayed": "true"} if replayed else {}
        return Response(ok(request, document), status_code=201, headers=headers)

    @post("/withdrawals/{withdrawal_id:str}/confirm", status_code=200, security=BEARER,
          responses=failures(400, 401, 403, 404, 409, 429, 503))  # fmt: skip
    async def confirm(
        self,
        request: AnyRequest,
        data: JSONBody[Confirmation],
        caller: Who,
        withdrawals: Desk,
        withdrawal_id: FromPath[str],
    ) -> Envelope[Withdrawal]:
        """The second factor: the wallet's signature of the withdrawal's message.

        It signs `message` byte for byte, as a personal message, until `confirm_by`; by then one that is not confirmed
        is cancelled. 403 `wallet_new` for a wallet that was linked too lately (a day, unless the operator set another
        time), 409 `not_held` for one that waits for no signature.
        """
        return ok(request, await withdrawals.confirm(caller, withdrawal_id, data))

    @get("/withdrawals", security=BEARER, responses=failures(400, 401, 403, 429, 503))
    async def many(
        self,
        request: AnyRequest,
        caller: Who,
        withdrawals: Desk,
        limit: Limit = LIMIT_DEFAULT,
        cursor: Cursor = None,
    ) -> Envelope[list[Withdrawal]]:
        """Own withdrawals, the latest first. `waiting` says what one that is not paid waits for."""
        return ok(request, *await withdrawals.many(caller, cursor, limit))

    @get("/withdrawals/{withdrawal_id:str}", security=BEARER, responses=failures(401, 403, 404, 429, 503))
    async def one(
        self, request: AnyRequest, caller: Who, withdrawals: Desk, withdrawal_id: FromPath[str]
    ) -> Envelope[Withdrawal]:
        """One own withdrawal. `waiting` says what it waits for; `batch` and `digest` where it was paid."""
        return ok(request, await withdrawals.one(caller, withdrawal_id))

    @delete("/withdrawals/{withdrawal_id:str}", status_code=200, security=BEARER,
            responses=failures(401, 403, 404, 409, 429, 503))  # fmt: skip
    async def cancel(
        self, request: AnyRequest, caller: Who, withdrawals: Desk, withdrawal_id: FromPath[str]
    ) -> Envelope[Withdrawal]:
        """Cancel an own withdrawal that no batch pays yet: the money is free again.

        409 `already_released` once a batch pays it, `already_settled` and `already_failed` once it is over. Again: the
        same.
        """
        return ok(request, await withdrawals.cancel(caller, withdrawal_id))

    @get("/users/me/withdrawal-addresses", security=BEARER, responses=failures(401, 403, 429, 503))
    async def addresses(self, request: AnyRequest, caller: Who, withdrawals: Desk) -> Envelope[list[Address]]:
        """Addresses that money may go to, beside the account's own wallets.

        Money goes to one from its `usable_at` on.
        """
        return ok(request, await withdrawals.addresses(caller))

    @post("/users/me/withdrawal-addresses", status_code=201, security=BEARER,
          responses=failures(400, 401, 403, 409, 429, 503))  # fmt: skip
    async def add_address(
        self, request: AnyRequest, data: JSONBody[AddressRequest], caller: Who, withdrawals: Desk
    ) -> Envelope[Address]:
        """Add an address. It can be used after a delay (`usable_at`)."""
        return ok(request, await withdrawals.add_address(caller, data))

    @delete("/users/me/withdrawal-addresses/{address_id:str}", status_code=204, security=BEARER,
            responses=failures(401, 403, 404, 429, 503))  # fmt: skip
    async def remove_address(self, caller: Who, withdrawals: Desk, address_id: FromPath[str]) -> None:
        """Take an address off the list.

        A confirmed withdrawal to it that no batch pays yet is cancelled, and its money is free again.
        """
        await withdrawals.remove_address(caller, address_id)

    @get("/deposits", security=BEARER, responses=READS)
    async def deposits(
        self, request: AnyRequest, caller: Who, withdrawals: Desk, limit: Limit = LIMIT_DEFAULT, cursor: Cursor = None
    ) -> Envelope[list[Deposit]]:
        """Own money that came from outside, the latest first.

        `place` is where it came from: the chain, a payment provider, or the faucet.
        """
        return ok(request, *await withdrawals.deposits(caller, cursor, limit))

    @post("/deposits", status_code=200, security=BEARER, responses=failures(400, 401, 403, 429, 503))
    async def deposit_route(
        self, request: AnyRequest, data: JSONBody[DepositRequest], caller: Who, withdrawals: Desk
    ) -> Envelope[DepositRoute]:
        """Where to pay in an asset on the chain, so that it is booked to the caller's account.

        It moves nothing itself: call the function that it names, or let `byline deposit` do it. Needs the session of a
        linked Sui wallet (403 `sui_wallet_needed`).
        """
        return ok(request, withdrawals.deposit_route(caller, data))
