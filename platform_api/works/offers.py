"""What a work, or a chapter, is offered for. Prices are whole units of an asset of the core, or coins.

An offer only says the price: money moves in the core, when commerce asks for it. Of one kind and asset there is one
active offer for a work, and one for each chapter.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

import asyncpg
import msgspec

from platform_api.envelope import check_version, unknown
from platform_api.errors import ApiError, ErrorCode
from platform_api.exchange.service import ExchangeService
from platform_api.ids import new_id
from platform_api.kernel.context import Kernel
from platform_api.money import decimal_text, units_of
from platform_api.security import Caller
from platform_api.works import queries
from platform_api.works.catalog import SERIALS, Catalog, check_open
from platform_api.works.models import Offer, OfferPatch, OfferRequest

__all__ = ["Offers"]

COIN = "COIN"


class Offers:
    def __init__(self, kernel: Kernel, catalog: Catalog) -> None:
        self._kernel = kernel
        self._database = kernel.database
        self._catalog = catalog
        self._exchange = kernel.service(ExchangeService)

    async def list_of(self, visitor: Caller | None, work_id: UUID) -> list[Offer]:
        """Those that ended only for those inside. Raises ApiError NOT_FOUND."""
        async with self._database.connection() as db:
            _, inside = await self._catalog.visible(db, visitor, work_id)
            return [_offer(row) for row in await queries.offers(db, work_id, active_only=not inside)]

    async def add(self, caller: Caller, work_id: UUID, body: OfferRequest) -> Offer:
        """Raises ApiError NOT_FOUND, VALIDATION_ERROR; CONFLICT `offer_exists`."""
        try:
            async with self._database.transaction() as db:
                work = await self._catalog.lock_own(db, caller, work_id)
                check_open(work)
                fields = await self._fields(db, work, body)
                row = await queries.insert_offer(db, new_id(), work_id, fields)
                await self._audit(db, "offer.created", row, caller, None, _facts(row))
        except asyncpg.UniqueViolationError as error:
            message = "There is an active offer of this kind and asset."
            raise ApiError(ErrorCode.CONFLICT, message, reason="offer_exists") from error
        return _offer(row)

    async def change(self, caller: Caller, offer_id: UUID, body: OfferPatch, if_match: str | None) -> Offer:
        """Who bought before keeps the price paid. Raises ApiError NOT_FOUND, VALIDATION_ERROR, CONFLICT."""
        try:
            async with self._database.transaction() as db:
                row = await queries.offer(db, offer_id)
                if row is None:
                    raise unknown("offer")
                try:
                    check_open(await self._catalog.lock_own(db, caller, row["work_id"]))
                except ApiError as error:
                    raise unknown("offer") if error.code is ErrorCode.NOT_FOUND else error from None
                row = await queries.offer(db, offer_id)  # as it is under the lock
                check_version(if_match, row["version"])
                changes: dict[str, Any] = {}
                if body.price is not msgspec.UNSET:
                    changes["price_units"] = units_of(body.price, row["scale"])
                if body.active is not msgspec.UNSET:
                    changes["active"] = body.active
                if changes:
                    old, row = row, await queries.update_offer(db, offer_id, changes)
                    await self._audit(db, "offer.changed", row, caller, _facts(old), _facts(row))
        except asyncpg.UniqueViolationError as error:
            message = "There is an active offer of this kind and asset."
            raise ApiError(ErrorCode.CONFLICT, message, reason="offer_exists") from error
        return _offer(row)

    async def open_offer(self, db: Any, caller: Caller, offer_id: UUID) -> tuple[Any, Any]:
        """For whoever sells it: the offer, and its work, which stays so meanwhile; buyers do not wait for each other.
        Raises ApiError NOT_FOUND unless it is shown; CONFLICT `offer_ended` if its buyer would have nothing to read."""
        work = await queries.hold_offered(db, offer_id)
        row = await queries.offer_for_sale(db, offer_id)  # as it is under the lock
        if work is None or row is None or not row["active"] or row["is_hidden"]:
            raise unknown("offer")
        if work["status"] != "published":  # what is published everybody sees
            try:
                await self._catalog.visible(db, caller, work["id"])
            except ApiError as error:
                raise unknown("offer") if error.code is ErrorCode.NOT_FOUND else error from None
        if work["status"] != "published" or not row["is_readable"]:
            raise ApiError(ErrorCode.CONFLICT, "The offer has ended.", reason="offer_ended")
        return row, work

    async def lock_subject(self, db: Any, work_id: UUID, chapter_id: UUID | None, since: datetime) -> bool:
        """Whether the work, locked now, or the chapter of it, if it is about one, has something left to read for a
        right that counts `since` then: not if it was deleted."""
        if await queries.lock_work(db, work_id) is None:
            return False
        if chapter_id is not None:
            return await queries.chapter(db, chapter_id) is not None
        return await queries.is_readable(db, work_id, since)

    async def bounds(self, asset: str, least: str | None, most: str | None) -> tuple[int | None, int | None]:
        """Prices of a filter in units. Raises ApiError VALIDATION_ERROR."""
        async with self._database.connection() as db:
            scale = await self._scale(db, asset)
        return (
            None if least is None else units_of(least, scale, least=0),
            None if most is None else units_of(most, scale, least=0),
        )

    async def _fields(self, db: Any, work: Any, body: OfferRequest) -> dict[str, Any]:
        if (body.kind == "coin") != (body.asset == COIN):
            message = f"asset: must be {COIN} for coin, and for nothing else"
            raise ApiError(ErrorCode.VALIDATION_ERROR, message, reason="wrong_asset", field="asset")
        if body.kind == "rent" and body.access_seconds is None:
            message = "access_seconds: a rent needs to end"
            raise ApiError(ErrorCode.VALIDATION_ERROR, message, reason="missing", field="access_seconds")
        if body.chapter_id is not None:
            chapter = await queries.chapter(db, body.chapter_id) if work["kind"] in SERIALS else None
            if chapter is None or chapter["work_id"] != work["id"]:
                message = "chapter_id: is no chapter of this work"
                raise ApiError(ErrorCode.VALIDATION_ERROR, message, reason="unknown_chapter", field="chapter_id")
        scale = await self._scale(db, body.asset)
        return msgspec.structs.asdict(body) | {"scale": scale, "price_units": units_of(body.price, scale)}

    async def _scale(self, db: Any, asset: str) -> int:
        scale = 0 if asset == COIN else await self._exchange.asset_scale(db, asset)
        if scale is None:
            message = f"asset: the exchange lists no {asset}"
            raise ApiError(ErrorCode.VALIDATION_ERROR, message, reason="unknown_asset", field="asset")
        return scale

    async def _audit(self, db: Any, action: str, row: Any, caller: Caller, old: Any, new: Any) -> None:
        await self._kernel.audit.record(
            db, action, ("offer", str(row["id"])), actor=caller.account_id, old=old, new=new
        )


def _facts(row: Any) -> dict[str, Any]:
    return {"price": decimal_text(row["price_units"], row["scale"]), "asset": row["asset"], "active": row["active"]}


def _offer(row: Any) -> Offer:
    return Offer(
        str(row["id"]), str(row["work_id"]), str(row["chapter_id"]) if row["chapter_id"] else None, row["kind"],
        decimal_text(row["price_units"], row["scale"]), row["asset"], row["access_seconds"], row["active"],
        row["version"],
    )  # fmt: skip
