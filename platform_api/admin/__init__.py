"""What people of the platform see and do: the audit trail, and how far projections are."""

from platform_api.admin.routes import AdminController
from platform_api.admin.service import AdminService
from platform_api.kernel.context import Context

__all__ = ["CONTEXT"]

CONTEXT = Context("admin", (AdminController,), AdminService, catalogue=("/v1/admin/",))
