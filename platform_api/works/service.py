"""Everything that works offer, to their routes and to other contexts."""

from __future__ import annotations

from platform_api.kernel.context import Kernel
from platform_api.works.assets import Assets
from platform_api.works.catalog import Catalog
from platform_api.works.chapters import Chapters
from platform_api.works.collaborators import Collaboration
from platform_api.works.offers import Offers
from platform_api.works.ratings import Ratings
from platform_api.works.views import Views

__all__ = ["WorkService"]


class WorkService:
    """One part for each concern, all under the lock of the work's row."""

    def __init__(self, kernel: Kernel) -> None:
        self.views = Views(kernel)
        self.catalog = Catalog(kernel, self.views)
        self.ratings = Ratings(kernel, self.catalog)
        self.chapters = Chapters(kernel, self.catalog)
        self.assets = Assets(kernel, self.catalog)
        self.collaboration = Collaboration(kernel, self.catalog)
        self.offers = Offers(kernel, self.catalog)
