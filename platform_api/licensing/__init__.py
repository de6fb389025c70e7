"""Licensing: terms, applications, licences with their chain and seats, release windows and availability."""

from platform_api.kernel.context import Context, Kernel
from platform_api.licensing.routes import (
    ApplicationController,
    AuthorizationController,
    LicenseController,
    LicensingStaffController,
    TermsController,
    WorkTermsController,
)
from platform_api.licensing.service import LicensingService
from platform_api.licensing.window_routes import AvailabilityController, WindowController, WorkWindowsController

__all__ = ["CONTEXT"]


async def _upkeep(kernel: Kernel) -> None:
    await kernel.service(LicensingService).calendar.sweep()


CONTEXT = Context(
    "licensing",
    (
        WorkTermsController, TermsController, ApplicationController, LicenseController, AuthorizationController,
        LicensingStaffController, WorkWindowsController, WindowController, AvailabilityController,
    ),
    LicensingService,
    events=(
        "license.applied", "license.approved", "license.rejected", "license.activated", "license.renewed",
        "license.expired", "license.suspended", "license.resumed", "license.refunded", "license.revoked",
        "license.seat_assigned", "license.seat_released", "authorization.revoked", "window.opened", "window.closed",
    ),
    upkeep=_upkeep,
    catalogue=("/v1/license-terms", "/v1/license-applications", "/v1/licenses", "/v1/windows"),
)  # fmt: skip
