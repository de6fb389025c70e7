"""Reads the lists, and checks the codes that come in. They change by migration alone, so they are read once."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from msgspec import Struct

from platform_api.errors import ApiError, ErrorCode
from platform_api.kernel.context import Kernel
from platform_api.texts import Genre

__all__ = ["TaxonomyService", "Term"]


class Term(Struct, frozen=True):
    """An entry of a list."""

    code: Genre
    name: str


class TaxonomyService:
    def __init__(self, kernel: Kernel) -> None:
        self._database = kernel.database
        self._lists: dict[str, list[Term]] = {}

    async def genres(self) -> list[Term]:
        async with self._database.connection() as db:
            return await self._list(db, "genre")

    async def categories(self) -> list[Term]:
        async with self._database.connection() as db:
            return await self._list(db, "category")

    async def check(self, db: Any, *, category: str | None = None, genres: Iterable[str] = ()) -> None:
        """On the caller's connection. Raises ApiError VALIDATION_ERROR for a code that is on no list."""
        if category is not None and category not in {term.code for term in await self._list(db, "category")}:
            raise _unlisted("category", category, "/v1/categories")
        strange = set(genres) - {term.code for term in await self._list(db, "genre")}
        if strange:
            raise _unlisted("genres", min(strange), "/v1/genres")

    async def _list(self, db: Any, table: str) -> list[Term]:
        if table not in self._lists:
            rows = await db.fetch(f"SELECT code, name FROM taxonomy.{table} ORDER BY position")
            self._lists[table] = [Term(row["code"], row["name"]) for row in rows]
        return self._lists[table]


def _unlisted(field: str, code: str, path: str) -> ApiError:
    return ApiError(ErrorCode.VALIDATION_ERROR, f"{field}: {code} is not on the list at {path}", reason="unlisted",
                    field=field)  # fmt: skip
