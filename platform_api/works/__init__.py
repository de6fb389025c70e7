"""Works: documents, videos, audio, courses, IP assets, stories and films, with all that belongs to them."""

from platform_api.kernel.context import Context
from platform_api.works.part_routes import ChapterController, OfferController, WorkPartController
from platform_api.works.routes import CreatorWorksController, WorkController, WorkStaffController
from platform_api.works.service import WorkService
from platform_api.works.views import forget_views

__all__ = ["CONTEXT"]

CONTEXT = Context(
    "works",
    (
        WorkController, WorkPartController, ChapterController, OfferController, CreatorWorksController,
        WorkStaffController,
    ),
    WorkService,
    events=(
        "work.created", "work.published", "work.version_published", "work.archived", "work.deleted", "work.approved",
        "work.rejected", "work.suspended", "work.withdrawn", "work.collaborators_changed", "chapter.published",
        "chapter.rejected",
    ),
    catalogue=("/v1/works", "/v1/chapters", "/v1/offers"),
    upkeep=forget_views,
)  # fmt: skip
