"""Genres and categories: the lists that works and creators are sorted by."""

from platform_api.kernel.context import Context
from platform_api.taxonomy.routes import TaxonomyController
from platform_api.taxonomy.service import TaxonomyService

__all__ = ["CONTEXT"]

CONTEXT = Context("taxonomy", (TaxonomyController,), TaxonomyService)
