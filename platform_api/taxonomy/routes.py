"""Routes of the lists."""

from __future__ import annotations

from litestar import Controller, get
from litestar.di import NamedDependency

from platform_api.envelope import Envelope, ok
from platform_api.openapi import failures
from platform_api.routing import AnyRequest
from platform_api.taxonomy.service import TaxonomyService, Term

__all__ = ["TaxonomyController"]

Taxonomy = NamedDependency[TaxonomyService]


class TaxonomyController(Controller):
    path = "/v1"
    tags = ("works",)

    @get("/genres", responses=failures(401, 403, 429, 503))
    async def genres(self, request: AnyRequest, taxonomy: Taxonomy) -> Envelope[list[Term]]:
        """All genres, in their order. A work names them by their codes."""
        return ok(request, await taxonomy.genres())

    @get("/categories", responses=failures(401, 403, 429, 503))
    async def categories(self, request: AnyRequest, taxonomy: Taxonomy) -> Envelope[list[Term]]:
        """All categories, in their order. A work or a creator names one by its code."""
        return ok(request, await taxonomy.categories())
