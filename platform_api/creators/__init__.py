"""Creators: profiles, verification, followers, feed and analytics."""

from platform_api.creators.routes import CreatorController, FollowingController, VerificationController
from platform_api.creators.service import CreatorService
from platform_api.kernel.context import Context

__all__ = ["CONTEXT"]

CONTEXT = Context(
    "creators",
    (CreatorController, FollowingController, VerificationController),
    CreatorService,
    events=(
        "creator.registered", "creator.verified", "creator.rejected", "creator.followed", "creator.unfollowed",
    ),
    catalogue=("/v1/creators",),
)  # fmt: skip
