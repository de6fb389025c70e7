"""Symbols: whether one is to be had, and the reservation that claims it.

    reservation   held → used (by a launch) | expired (by time, or because the launch failed)

Availability is advice; the reservation is the claim: one row for a symbol that is not expired, by a unique index, so of
two that want it at the same instant one gets it.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import msgspec

from platform_api.errors import ApiError, ErrorCode, timestamp
from platform_api.exchange.service import ExchangeService
from platform_api.idempotency import Answer
from platform_api.ids import new_id
from platform_api.kernel.context import Kernel
from platform_api.security import Caller
from platform_api.tokens import queries
from platform_api.tokens.launch import RESERVED_WORDS, SYMBOL
from platform_api.tokens.models import Availability, Reservation

__all__ = ["Symbols"]


class Symbols:
    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._exchange = kernel.service(ExchangeService)

    async def availability(self, visitor: Caller | None, symbol: str) -> Availability:
        """What the caller holds is available to the caller. Raises ApiError VALIDATION_ERROR."""
        _check(symbol)
        async with self._kernel.database.connection() as db:
            reason: Any = await self._taken(db, symbol)
            holder = await queries.holder_of(db, symbol)
        if reason is None and holder is not None and (visitor is None or str(holder) != visitor.account_id):
            reason = "held"
        return Availability(symbol, reason is None, reason)

    async def reserve(self, caller: Caller, symbol: str, key: str | None) -> Reservation:
        """Again by the same caller: the reservation that stands. Raises ApiError VALIDATION_ERROR, CONFLICT."""
        _check(symbol)

        async def change(db: Any) -> Answer:
            row = await self.claim(db, UUID(caller.account_id), symbol)
            return 201, msgspec.json.encode(Reservation(symbol, "held", timestamp(row["expires_at"])))

        route = "POST /v1/token-symbols/reservations"
        answer, _ = await self._kernel.idempotency.once(caller.account_id, route, key, symbol, change)
        return msgspec.json.decode(answer[1], type=Reservation)

    async def claim(self, db: Any, account_id: UUID, symbol: str) -> Any:
        """The account's reservation, made if there is none; locked until the transaction ends.

        Raises ApiError CONFLICT `symbol_taken`, `symbol_held`, `too_many_reservations`; VALIDATION_ERROR.
        """
        reason = await self._taken(db, symbol)
        if reason == "reserved_word":
            message = "symbol: is a word that is kept"
            raise ApiError(ErrorCode.VALIDATION_ERROR, message, reason=reason, field="symbol")
        if reason is not None:
            raise ApiError(ErrorCode.CONFLICT, f"There is a token {symbol}.", reason="symbol_taken", field="symbol")
        await queries.expire(db, symbol, account_id)
        until = datetime.now(UTC) + timedelta(seconds=self._kernel.settings.symbol_reservation_seconds)
        row = await queries.reserve(db, new_id(), symbol, account_id, until)
        if row is None or row["account_id"] != account_id or row["status"] != "held":
            message = f"Somebody else holds {symbol}."
            raise ApiError(ErrorCode.CONFLICT, message, reason="symbol_held", field="symbol")
        held_max = self._kernel.settings.symbols_per_account_max
        if await queries.held_count(db, account_id) > held_max:
            message = f"An account holds at most {held_max} symbols."
            raise ApiError(ErrorCode.CONFLICT, message, reason="too_many_reservations")
        return row

    async def _taken(self, db: Any, symbol: str) -> str | None:
        if symbol in RESERVED_WORDS:
            return "reserved_word"
        if await queries.taken(db, symbol) or await self._exchange.asset_scale(db, symbol) is not None:
            return "taken"
        return None


def _check(symbol: str) -> None:
    if not SYMBOL.fullmatch(symbol):
        message = "symbol: must be a capital letter and 2 to 9 capital letters or digits"
        raise ApiError(ErrorCode.VALIDATION_ERROR, message, reason="bad_symbol", field="symbol")
