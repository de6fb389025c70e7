"""Withdrawals for their owner: ask, confirm, watch, cancel; and the addresses that money may go to.

Money goes to the account's own wallets, or to an address of its list; a wallet that was linked later, and an address,
only after the delay. The second factor is a wallet, one that is past its delay too: it signs a text that names amount,
asset, address and the withdrawal's own id, so a stolen session alone withdraws nothing. The document is written before
the core is asked, and the answer tells what the core said; if it said nothing, the desk goes on.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid5

import asyncpg
import msgspec

from engine.messages.decimals import decimal_text, parse_decimal, units_of
from engine.messages.errors import OutcomeUnknown, Unavailable
from platform_api.envelope import BIGINT_MAX, Pagination, cursor_from, page, path_id, unknown
from platform_api.errors import ApiError, ErrorCode, timestamp
from platform_api.exchange import account_queries
from platform_api.exchange.account_models import Deposit
from platform_api.identity.sui_signature import (
    BadSignature,
    address_text,
    canonical_address,
    verify_personal_message,
)
from platform_api.ids import new_id
from platform_api.kernel.context import Kernel
from platform_api.money import UNITS_MAX
from platform_api.security import Caller, unauthorized
from platform_api.settlement.desk import drive
from platform_api.settlement.progress import look, takes_withdrawals
from platform_api.settlement.queries import settled_in
from platform_api.settlement.withdrawal_life import take
from platform_api.settlement.withdrawal_models import (
    Address,
    AddressRequest,
    Confirmation,
    DepositArgument,
    DepositRequest,
    DepositRoute,
    Withdrawal,
    WithdrawalRequest,
)

__all__ = ["WithdrawalService", "confirmation_message"]

REF_KEPT = timedelta(days=7)
ADDRESSES_MAX = 50
OPEN_MAX = 20
_ROUTE = "POST /v1/withdrawals"
_LATEST = (BIGINT_MAX, BIGINT_MAX, 2**31 - 1)
_CLOSED = ["settled", "canceled", "failed"]
# The wallet that opened the account is no new place for its money, and has the account's own time: now() of one
# transaction. Any other waits, whoever linked it.
_WALLET_USABLE_AT = """
    SELECT w.linked_at + CASE WHEN w.linked_at = a.created_at THEN interval '0' ELSE $3::interval END AS usable_at
    FROM identity.wallet w JOIN identity.account a ON a.id = w.account_id
    WHERE w.account_id = $1 AND w.address = $2 AND w.revoked_at IS NULL
"""


def confirmation_message(
    domain: str, chain: str, asset: str, amount: str, fee: str, recipient: bytes, identity: UUID, until: datetime
) -> str:
    """The text a wallet shows and signs."""
    return (
        f"{domain} asks you to confirm a withdrawal:\n"
        f"{amount} {asset} to {address_text(recipient)}\n"
        f"Fee: {fee} {asset}\n"
        "\n"
        f"Chain ID: {chain}\n"
        f"Withdrawal: {identity}\n"
        f"Expiration Time: {timestamp(until)}"
    )


def fee_text(fee: str, scale: int) -> str:
    """The fee of the settings, a decimal, rounded up to whole units of 10^-scale: tokens come with any scale, and one
    that the core cannot take would keep everybody's money in."""
    number = parse_decimal(fee)
    assert number is not None, fee  # the settings were checked
    mantissa, decimals = number
    return decimal_text(-(-mantissa * 10**scale // 10**decimals), scale)


class WithdrawalService:
    """Needs the database for everything; the core to hold and to give back."""

    def __init__(self, kernel: Kernel) -> None:
        self._database, self._core, self._status = kernel.database, kernel.core, kernel.status
        self._settings, self._idempotency = kernel.settings, kernel.idempotency
        self._address_delay = timedelta(seconds=kernel.settings.withdrawal_address_delay_seconds)

    async def ask(self, caller: Caller, body: WithdrawalRequest, key: str) -> tuple[Withdrawal, bool]:
        """Write the document and hold the money; the document, and whether it is that of an earlier request.

        A key is one withdrawal for good: its id comes from account and key, so one that was refused stays refused.

        Raises:
            ApiError: VALIDATION_ERROR, FORBIDDEN (address_not_allowed), CONFLICT; PAYMENT_FAILED with the core's
                reason, as `insufficient_funds`.
            Unavailable: nothing was written.
        """

        async def work() -> tuple[int, bytes]:
            identity = uuid5(UUID(caller.account_id), f"{_ROUTE} {key}")
            return 201, msgspec.json.encode(await self._ask(caller, body, identity))

        (_, data), replayed = await self._idempotency.run(caller.account_id, _ROUTE, key, body, work)
        return msgspec.json.decode(data, type=Withdrawal), replayed

    async def _ask(self, caller: Caller, body: WithdrawalRequest, identity: UUID) -> Withdrawal:
        recipient = canonical_address(body.address or _sui_address(caller))
        async with self._database.transaction() as db:
            asset = await db.fetchrow("SELECT scale, settled FROM exchange.asset WHERE name = $1", body.asset)
            if asset is None or not asset["settled"]:
                message = "asset: there is none of this name that can leave over the chain"
                raise ApiError(ErrorCode.VALIDATION_ERROR, message, reason="unknown_asset", field="asset")
            units = units_of(body.amount, asset["scale"])
            if units <= 0:
                most = decimal_text(UNITS_MAX, asset["scale"])
                message = f"amount: must be above zero, at most {most}, with at most {asset['scale']} decimals"
                raise ApiError(ErrorCode.VALIDATION_ERROR, message, reason="bad_amount", field="amount")
            amount = decimal_text(units, asset["scale"])
            await _wait_for_others(db, UUID(caller.account_id))
            row = await db.fetchrow("SELECT * FROM money.withdrawal WHERE id = $1", identity)
            if row is None:
                self._check_settles()
                fee = fee_text(self._settings.withdrawal_fees.get(body.asset, "0"), asset["scale"])
                row = await self._insert(db, caller, identity, body.asset, amount, fee, recipient)
            elif (row["asset"], row["amount"], bytes(row["recipient"])) != (body.asset, amount, recipient):
                message = "This Idempotency-Key came with another body before."
                raise ApiError(ErrorCode.CONFLICT, message, reason="idempotency_key_reuse", field="Idempotency-Key")
        return await self._drive(row)

    def _check_settles(self) -> None:
        """Raises ApiError SERVICE_UNAVAILABLE: the reason is that of GET /v1/status."""
        if not takes_withdrawals(self._status):
            message = "Settlement stands still, so nothing can leave: nothing is held, and trading goes on."
            raise ApiError(ErrorCode.SERVICE_UNAVAILABLE, message, reason=look(self._status).reason)

    async def _insert(
        self, db: Any, caller: Caller, identity: UUID, asset: str, amount: str, fee: str, recipient: bytes
    ) -> Any:
        """The document's row. Raises ApiError FORBIDDEN, CONFLICT `too_many_withdrawals`."""
        account_id, now = UUID(caller.account_id), datetime.now(UTC)
        until = now + timedelta(seconds=self._settings.withdrawal_confirm_seconds)
        usable_at = await self._usable_at(db, account_id, recipient)
        open_count = await db.fetchval(
            "SELECT count(*) FROM money.withdrawal WHERE account_id = $1 AND status <> ALL($2)", account_id, _CLOSED
        )
        if open_count >= OPEN_MAX:
            message = f"An account has at most {OPEN_MAX} open withdrawals."
            raise ApiError(ErrorCode.CONFLICT, message, reason="too_many_withdrawals")
        ref = f"wd:{identity}"
        command: dict[str, Any] = {
            "op": "withdraw", "account": caller.account, "asset": asset, "amount": amount, "ref": ref,
            "address": address_text(recipient), "not_after": int((now + REF_KEPT).timestamp()) * 10**9,
            "code": "withdrawal",
        }  # fmt: skip
        if fee != "0":
            command["legs"] = [{"from": caller.account, "asset": asset, "amount": fee, "to": "platform:gas"}]
        message = confirmation_message(
            self._settings.domain, self._settings.chain, asset, amount, fee, recipient, identity, until
        )
        return await db.fetchrow(
            """
            INSERT INTO money.withdrawal (id, account_id, asset, amount, fee, recipient, ref, command, message,
                status, confirm_by, not_before)
            VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, 'requested', $10, $11) RETURNING *
            """,
            identity, account_id, asset, amount, fee, recipient, ref, msgspec.json.encode(command).decode(), message,
            until, max(usable_at, now),
        )  # fmt: skip

    async def confirm(self, caller: Caller, withdrawal_id: str, body: Confirmation) -> Withdrawal:
        """The second factor.

        Raises ApiError NOT_FOUND, UNAUTHORIZED (bad_signature …), FORBIDDEN (wallet_new), CONFLICT (not_held).
        """
        row = await self._row(caller, withdrawal_id)
        if row["status"] == "requested":
            row = await self._reload(await self._drive(row))
        if row["status"] == "held" and row["confirm_by"] > datetime.now(UTC):
            try:
                signer = verify_personal_message(row["message"].encode(), body.signature, caller.address)
            except BadSignature as error:
                raise unauthorized(error.reason, f"signature: {error}") from error
            async with self._database.transaction() as db:
                usable_at = await db.fetchval(
                    _WALLET_USABLE_AT, row["account_id"], signer.address, self._address_delay
                )
                if usable_at is None:
                    raise unauthorized("wallet_unlinked", "This wallet is not linked to the account any more.")
                if usable_at > datetime.now(UTC):
                    message = f"This wallet was linked lately: it confirms withdrawals from {timestamp(usable_at)} on."
                    raise ApiError(ErrorCode.FORBIDDEN, message, reason="wallet_new")
                await take(db, row["id"], "confirm", confirmed_at=datetime.now(UTC))
            row = await self._row(caller, withdrawal_id)
        elif row["status"] not in ("confirmed", "released", "settled"):
            message = f"The withdrawal is {row['status']}: only a held one can be confirmed."
            raise ApiError(ErrorCode.CONFLICT, message, reason="not_held")
        return self._document(row)

    async def cancel(self, caller: Caller, withdrawal_id: str) -> Withdrawal:
        """Give the money back. Raises ApiError NOT_FOUND, CONFLICT (already_released: a batch pays it)."""
        row = await self._row(caller, withdrawal_id)
        async with self._database.connection() as db:
            taken = await take(db, row["id"], "cancel", reason="canceled_by_owner")
        row = await self._row(caller, withdrawal_id)  # as it stands by now
        if not taken and row["status"] not in ("canceling", "canceled"):
            message = f"The withdrawal is {row['status']}: it can no longer be cancelled."
            raise ApiError(ErrorCode.CONFLICT, message, reason=f"already_{row['status']}")
        return await self._drive(row)

    async def one(self, caller: Caller, withdrawal_id: str) -> Withdrawal:
        return self._document(await self._row(caller, withdrawal_id))

    async def deposits(self, caller: Caller, cursor: str | None, limit: int) -> tuple[list[Deposit], Pagination]:
        """Money from outside, the latest first."""
        before = cursor_from(cursor, int, int, int) or _LATEST
        async with self._database.connection() as db:
            account = await account_queries.account_id(db, caller.account)
            rows = [] if account is None else await account_queries.deposits(db, account, before, limit + 2)
            rows = [row for row in rows if _place(row) < before]
            rows, pagination = page(rows, limit, _place)
            batches = await settled_in(db, [row["sequence"] for row in rows])
        return [
            Deposit(
                row["sequence"], timestamp(row["posted_at"]), row["asset"], decimal_text(row["amount"], row["scale"]),
                row["ref"], row["place"], *batches.get(row["sequence"], (None, [])),
            )
            for row in rows
        ], pagination  # fmt: skip

    async def many(self, caller: Caller, cursor: str | None, limit: int) -> tuple[list[Withdrawal], Pagination]:
        """The latest first."""
        (before,) = cursor_from(cursor, int) or (None,)
        rows = await self._database.fetch(
            "SELECT * FROM money.withdrawal WHERE account_id = $1 AND ($2::bigint IS NULL OR number < $2)"
            " ORDER BY number DESC LIMIT $3",
            UUID(caller.account_id), before, limit + 1,
        )  # fmt: skip
        rows, pagination = page(rows, limit, lambda row: (row["number"],))
        return [self._document(row) for row in rows], pagination

    def deposit_route(self, caller: Caller, body: DepositRequest) -> DepositRoute:
        """Raises ApiError VALIDATION_ERROR, Unavailable: settlement has no vault of it, or does not run."""
        settlement = self._status.read().get("backoffice", {}).get("settlement") or {}
        if not settlement.get("package"):
            raise Unavailable("settlement has not reached the chain yet")
        vault = settlement["vaults"].get(body.asset)
        if vault is None:
            message = "asset: has no vault on the chain"
            raise ApiError(ErrorCode.VALIDATION_ERROR, message, reason="unknown_asset", field="asset")
        coin, package, owner = settlement["coins"][body.asset], settlement["package"], _sui_address(caller)
        kind, faucet = coin["coin_type"], coin["faucet"]
        return DepositRoute(
            body.asset, package, "settlement::deposit", coin["scale"], kind, [kind],
            [
                DepositArgument("vault", f"&mut {package}::settlement::Vault<{kind}>", vault, coin["vault_version"]),
                DepositArgument("payment", f"0x2::coin::Coin<{kind}>", None),
                DepositArgument("owner", "address", owner),
                DepositArgument("reference", "vector<u8>", ""),
            ],
            vault, owner,
            DepositArgument("faucet", f"&mut {kind.rpartition('::')[0]}::Faucet", faucet, coin["faucet_version"])
            if faucet
            else None,
            self._settings.chain, self._settings.embedded,
        )  # fmt: skip

    # ------------------------------------------------------------ addresses

    async def addresses(self, caller: Caller) -> list[Address]:
        rows = await self._database.fetch(
            "SELECT * FROM money.withdrawal_address WHERE account_id = $1 AND removed_at IS NULL ORDER BY id",
            UUID(caller.account_id),
        )
        return [_address(row) for row in rows]

    async def add_address(self, caller: Caller, body: AddressRequest) -> Address:
        """Usable after the delay. Raises ApiError CONFLICT (address_exists, too_many_addresses)."""
        address = canonical_address(body.address)
        usable_at = datetime.now(UTC) + self._address_delay
        account_id = UUID(caller.account_id)
        try:
            async with self._database.transaction() as db:
                await _wait_for_others(db, account_id)
                count = await db.fetchval(
                    "SELECT count(*) FROM money.withdrawal_address WHERE account_id = $1 AND removed_at IS NULL",
                    account_id,
                )
                if count >= ADDRESSES_MAX:
                    message = f"An account has at most {ADDRESSES_MAX} addresses."
                    raise ApiError(ErrorCode.CONFLICT, message, reason="too_many_addresses")
                row = await db.fetchrow(
                    "INSERT INTO money.withdrawal_address (id, account_id, address, label, usable_at)"
                    " VALUES ($1, $2, $3, $4, $5) RETURNING *",
                    new_id(), account_id, address, body.label, usable_at,
                )  # fmt: skip
        except asyncpg.UniqueViolationError as error:
            message = "address: is on the list already"
            raise ApiError(ErrorCode.CONFLICT, message, reason="address_exists", field="address") from error
        return _address(row)

    async def remove_address(self, caller: Caller, address_id: str) -> None:
        tag = await self._database.execute(
            "UPDATE money.withdrawal_address SET removed_at = now()"
            " WHERE id = $1 AND account_id = $2 AND removed_at IS NULL",
            path_id(address_id, "address"), UUID(caller.account_id),
        )  # fmt: skip
        if tag != "UPDATE 1":
            raise unknown("address")

    # ------------------------------------------------------------ inside

    async def _usable_at(self, db: Any, account_id: UUID, recipient: bytes) -> datetime:
        """From when money may go there. Raises ApiError FORBIDDEN."""
        usable_at: datetime | None = await db.fetchval(
            f"""
            SELECT min(usable_at) FROM (
                {_WALLET_USABLE_AT}
                UNION ALL
                SELECT usable_at FROM money.withdrawal_address
                WHERE account_id = $1 AND address = $2 AND removed_at IS NULL
            ) places
            """,
            account_id, recipient, self._address_delay,
        )  # fmt: skip
        if usable_at is None:
            message = "address: is neither a wallet of yours nor on your list of withdrawal addresses"
            raise ApiError(ErrorCode.FORBIDDEN, message, reason="address_not_allowed", field="address")
        return usable_at

    async def _drive(self, row: Any) -> Withdrawal:
        """Take what the core answers now into the document; what it does not answer is the desk's."""
        try:
            async with self._database.connection_beside_core() as db:
                await drive(db, self._core, row)
                row = await db.fetchrow("SELECT * FROM money.withdrawal WHERE id = $1", row["id"])
        except (Unavailable, OutcomeUnknown):
            pass  # the row says what is still to be done, and the desk does it
        if row["status"] == "failed" and row["batch"] is None:
            message = f"The core refused the withdrawal: {row['reason']}."
            raise ApiError(ErrorCode.PAYMENT_FAILED, message, reason=row["reason"], details={"id": str(row["id"])})
        return self._document(row)

    async def _reload(self, document: Withdrawal) -> Any:
        return await self._database.fetch_row("SELECT * FROM money.withdrawal WHERE id = $1", UUID(document.id))

    async def _row(self, caller: Caller, withdrawal_id: str) -> Any:
        """Raises ApiError NOT_FOUND: another's looks like none."""
        row = await self._database.fetch_row(
            "SELECT * FROM money.withdrawal WHERE id = $1 AND account_id = $2",
            path_id(withdrawal_id, "withdrawal"), UUID(caller.account_id),
        )  # fmt: skip
        if row is None:
            raise unknown("withdrawal")
        return row

    def _document(self, row: Any) -> Withdrawal:
        return Withdrawal(
            id=str(row["id"]),
            asset=row["asset"],
            amount=row["amount"],
            fee=row["fee"],
            address=address_text(bytes(row["recipient"])),
            status=row["status"],
            reason=row["reason"],
            ref=row["ref"],
            message=row["message"] if row["status"] in ("requested", "held") else None,
            created_at=timestamp(row["created_at"]),
            confirm_by=timestamp(row["confirm_by"]),
            not_before=timestamp(row["not_before"]),
            waiting=self._waiting(row),
            batch=row["batch"],
            digest=row["digest"],
            chain=self._settings.chain,
            embedded=self._settings.embedded,
        )

    def _waiting(self, row: Any) -> str | None:
        """Why it is not paid yet; None before its money is held, and once it is over."""
        if row["status"] == "held":
            return "confirmation"
        if row["status"] not in ("confirmed", "released"):
            return None
        if row["status"] == "confirmed" and row["not_before"] > datetime.now(UTC):
            return "delay"
        return look(self._status).stops or "batch"


async def _wait_for_others(db: Any, account_id: UUID) -> None:
    """What an account asks for comes one after the other: a key is one withdrawal, and what is open is counted."""
    await db.execute("SELECT pg_advisory_xact_lock(hashtextextended('withdrawal ' || $1::uuid::text, 0))", account_id)


def _sui_address(caller: Caller) -> str:
    """The wallet of the session, where it is one of Sui. Raises ApiError FORBIDDEN `sui_wallet_needed`."""
    if len(caller.address) != 66:
        message = "Money leaves and comes over Sui: sign in with a Sui wallet that is linked to the account."
        raise ApiError(ErrorCode.FORBIDDEN, message, reason="sui_wallet_needed")
    return caller.address


def _address(row: Any) -> Address:
    return Address(
        id=str(row["id"]),
        address=address_text(bytes(row["address"])),
        label=row["label"],
        added_at=timestamp(row["added_at"]),
        usable_at=timestamp(row["usable_at"]),
    )


def _place(row: Any) -> tuple[int, int, int]:
    return row["sequence"], row["event_index"], row["number"]
