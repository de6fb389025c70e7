"""Tokens: launch, opening, halt, delisting, and the proceeds of the sale. Money moves by commands of the core alone.

A creator who is verified launches one token for ever, and spends a step-up for it, which a launch that the core refuses
gives back (docs/decisions/0073). The document, its finished commands and the job that sends them are one transaction;
the desk does the rest. Markets are opened, halted, resumed and closed by operators; the owner may take out what the
sale has brought in.
"""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import asyncpg
import msgspec

from platform_api.creators.service import CreatorService
from platform_api.envelope import unknown
from platform_api.errors import ApiError, ErrorCode, refused_order
from platform_api.exchange.service import ExchangeService
from platform_api.idempotency import Answer
from platform_api.identity.service import IdentityService
from platform_api.identity.step_up import spend_step_up
from platform_api.ids import new_id
from platform_api.kernel.context import Kernel
from platform_api.money import decimal_text
from platform_api.security import Caller
from platform_api.tokens import queries
from platform_api.tokens.desk import TokenDesk
from platform_api.tokens.launch import (
    DECIMALS,
    QUOTE,
    launch_commands,
    launch_ref,
    phase_commands,
    proceeds_command,
    terms,
)
from platform_api.tokens.models import MarketPhase, Proceeds, Token, TokenRequest
from platform_api.tokens.symbols import Symbols
from platform_api.tokens.views import token_of

__all__ = ["Registry"]

NEEDED = {"open": ("minted",), "halt": ("listed",), "resume": ("halted",), "close": ("minted", "listed", "halted")}
"""Step → status of the token that it needs."""
ON_SALE = ("listed", "halted", "delisted")


class Registry:
    def __init__(self, kernel: Kernel, symbols: Symbols, desk: TokenDesk) -> None:
        self._kernel = kernel
        self._symbols, self._desk = symbols, desk
        self._creators = kernel.service(CreatorService)
        self._exchange = kernel.service(ExchangeService)
        self._letters = kernel.service(IdentityService).letters

    # Launch.

    async def launch(self, caller: Caller, body: TokenRequest, key: str) -> tuple[Token, bool]:
        """The document, whose commands are under way; and whether it is that of an earlier request with the key.

        Raises ApiError VALIDATION_ERROR; FORBIDDEN `no_creator`, `creator_unverified`, `step_up_required`; CONFLICT;
        SERVICE_UNAVAILABLE.
        """
        total_supply, sale_size = terms(body)
        if not self._kernel.settings.embedded:
            message = "New tokens are minted on the embedded chain only: there is no issuer for the network in use."
            raise ApiError(ErrorCode.SERVICE_UNAVAILABLE, message, reason="minting_unavailable")

        async def change(db: Any) -> Answer:
            creator = await self._creators.own(db, caller)
            if creator is None:
                raise ApiError(ErrorCode.FORBIDDEN, "Tokens are launched by creators.", reason="no_creator")
            if creator.verification_status != "verified":
                message = "A token needs a creator who is verified."
                raise ApiError(ErrorCode.FORBIDDEN, message, reason="creator_unverified")
            if await queries.token_of_creator(db, UUID(creator.id)) is not None:
                raise _launched()
            await self._symbols.claim(db, UUID(caller.account_id), body.symbol)
            token_id = new_id()
            fields = {
                "id": token_id, "creator_id": UUID(creator.id), "account_id": UUID(caller.account_id),
                "symbol": body.symbol, "name": body.name, "description": body.description, "decimals": DECIMALS,
                "total_supply": total_supply, "sale_size": sale_size, "start_price": body.start_price,
                "quote_asset": QUOTE, "market": f"{body.symbol}-{QUOTE}",
            }  # fmt: skip
            await spend_step_up(db, caller, "A launch", token_id)
            row = await queries.insert_token(db, fields)
            await queries.set_reservation(db, body.symbol, "used")
            await self._write(db, row["market"], row["id"], list(launch_commands(row)), UUID(caller.account_id))
            await self._kernel.audit.record(
                db, "token.launched", ("token", str(row["id"])), actor=caller.account_id,
                new=msgspec.structs.asdict(body),
            )  # fmt: skip
            text = (
                f"The token {body.symbol} is being launched in your name: {body.total_supply} in all, of which"
                f" {body.sale_size} are for sale at {body.start_price} {QUOTE}."
            )
            await self._letters.tell(db, UUID(caller.account_id), "A launch in your name", text)
            return 201, msgspec.json.encode(token_of(row, None))

        try:
            answer, replayed = await self._kernel.idempotency.once(
                caller.account_id, "POST /v1/tokens", key, body, change
            )
        except asyncpg.UniqueViolationError as error:  # the other of two at the same instant
            raise _launched() from error
        token = msgspec.json.decode(answer[1], type=Token)
        if not replayed:
            await self._desk.try_drive(token.market)
        return token, replayed

    # Phases of a market.

    async def open(self, caller: Caller, token_id: UUID, reason: str, key: str | None) -> MarketPhase:
        """An auction of what was collected, then continuous trading. Raises ApiError NOT_FOUND, CONFLICT."""
        return await self._change(caller, await self._market_of(token_id), "open", reason, key)

    async def delist(self, caller: Caller, token_id: UUID, reason: str, key: str | None) -> MarketPhase:
        """All orders are cancelled; what is not sold stays with the launch. Raises ApiError NOT_FOUND, CONFLICT."""
        return await self._change(caller, await self._market_of(token_id), "close", reason, key)

    async def halt(self, caller: Caller, market: str, reason: str, key: str | None) -> MarketPhase:
        """Any market, also one without a token of a creator. Raises ApiError NOT_FOUND, CONFLICT."""
        return await self._change(caller, await self._market_named(market), "halt", reason, key)

    async def resume(self, caller: Caller, market: str, reason: str, key: str | None) -> MarketPhase:
        """Raises ApiError NOT_FOUND, CONFLICT."""
        return await self._change(caller, await self._market_named(market), "resume", reason, key)

    async def _change(self, caller: Caller, market: str, step: str, reason: str, key: str | None) -> MarketPhase:
        """The ref comes from the key, so a request that died half-way is found again by the next with its key."""
        name = f"{caller.account_id} {key}" if key is not None else str(new_id())
        ref = f"phase:{hashlib.sha256(f'{market} {step} {name}'.encode()).hexdigest()[:32]}"

        async def work() -> Answer:
            await self._ask(caller, market, step, reason, ref)
            await self._desk.try_drive(market)
            async with self._kernel.database.connection() as db:
                row = await queries.command(db, ref)
            if row["state"] == "refused":
                raise refused_order(row["reason"])
            return 200, msgspec.json.encode(MarketPhase(market, row["step"], row["state"], row["sequence"]))

        if key is None:
            (_, data), _ = await work(), False
        else:
            body = {"market": market, "reason": reason}
            (_, data), _ = await self._kernel.idempotency.run(caller.account_id, f"market {step}", key, body, work)
        return msgspec.json.decode(data, type=MarketPhase)

    async def _ask(self, caller: Caller, market: str, step: str, reason: str, ref: str) -> None:
        """Writes the command, once for the ref."""
        async with self._kernel.database.transaction() as db:
            token = await queries.lock_token_of_market(db, market)
            if await queries.command(db, ref) is not None:
                return
            if token is not None and token["status"] not in NEEDED[step]:
                raise _stands(token)
            if await queries.waiting_steps(db, market) - {"proceeds"}:
                message = "Another change of this market has not been answered yet."
                raise ApiError(ErrorCode.CONFLICT, message, reason="in_progress")
            commands = list(phase_commands(market, step, ref, datetime.now(UTC)))
            await self._write(db, market, token["id"] if token else None, commands, UUID(caller.account_id))
            await self._kernel.audit.record(
                db, f"market.{step}", ("market", market), actor=caller.account_id,
                old={"status": token["status"]} if token else None, new={"reason": reason},
            )  # fmt: skip

    async def _market_of(self, token_id: UUID) -> str:
        async with self._kernel.database.connection() as db:
            row = await queries.token(db, token_id)
        if row is None or row["status"] == "failed":
            raise unknown("token")
        return str(row["market"])

    async def _market_named(self, market: str) -> str:
        async with self._kernel.database.connection() as db:
            if await self._exchange.reader.market(db, market) is None:
                raise unknown("market")
        return market

    # Proceeds.

    async def proceeds(self, caller: Caller, token_id: UUID, key: str) -> Proceeds:
        """Everything that the launch has free of the quote asset. Raises ApiError NOT_FOUND, CONFLICT."""
        ref = launch_ref(token_id, hashlib.sha256(key.encode()).hexdigest()[:16])

        async def work() -> Answer:
            await self._ask_proceeds(caller, token_id, ref)
            async with self._kernel.database.connection() as db:
                market = (await queries.command(db, ref))["market"]
            await self._desk.try_drive(market)
            async with self._kernel.database.connection() as db:
                row = await queries.command(db, ref)
            if row["state"] == "refused":
                raise refused_order(row["reason"])
            (leg,) = msgspec.json.decode(row["body"])["legs"]
            paid = Proceeds(ref, leg["asset"], leg["amount"], leg["shares"][1]["weight"], row["state"], row["sequence"])
            return 200, msgspec.json.encode(paid)

        (_, data), _ = await self._kernel.idempotency.run(
            caller.account_id, "POST /v1/tokens/proceeds", key, str(token_id), work
        )
        return msgspec.json.decode(data, type=Proceeds)

    async def _ask_proceeds(self, caller: Caller, token_id: UUID, ref: str) -> None:
        async with self._kernel.database.transaction() as db:
            token = await queries.lock_token(db, token_id)
            if token is None or str(token["account_id"]) != caller.account_id:
                raise unknown("token")
            if await queries.command(db, ref) is not None:
                return
            if token["status"] not in ON_SALE:
                raise _stands(token)
            if "proceeds" in await queries.waiting_steps(db, token["market"]):
                message = "The last payment of proceeds has not been answered yet."
                raise ApiError(ErrorCode.CONFLICT, message, reason="in_progress")
            scale = await self._exchange.asset_scale(db, token["quote_asset"]) or 0
            units = await self._exchange.reader.available(db, f"launch:{token['symbol']}", token["quote_asset"])
            if units <= 0:
                raise ApiError(ErrorCode.CONFLICT, "Nothing was sold since the last time.", reason="nothing_to_pay")
            bps = self._kernel.settings.launch_platform_bps
            command = proceeds_command(token, units, scale, bps, ref, datetime.now(UTC))
            await self._write(db, token["market"], token_id, [command], UUID(caller.account_id))
            await self._kernel.audit.record(
                db, "token.proceeds_asked", ("token", str(token_id)), actor=caller.account_id,
                new={"asset": token["quote_asset"], "amount": decimal_text(units, scale)},
            )  # fmt: skip

    async def _write(self, db: Any, market: str, token_id: UUID | None, commands: list[Any], actor: UUID) -> None:
        for step, ref, body in commands:
            await queries.insert_command(db, market, token_id, step, ref, msgspec.json.encode(body).decode(), actor)
        await self._desk.enqueue(db, market)


def _stands(token: Any) -> ApiError:
    return ApiError(ErrorCode.CONFLICT, f"The token is {token['status']}.", reason=f"token_{token['status']}")


def _launched() -> ApiError:
    return ApiError(ErrorCode.CONFLICT, "This creator has launched a token.", reason="already_launched")
