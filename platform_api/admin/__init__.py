"""What people of the platform see and do: so far the audit trail."""

from platform_api.admin.routes import AdminController
from platform_api.admin.service import AdminService
from platform_api.kernel.context import Context

__all__ = ["CONTEXT"]

CONTEXT = Context("admin", (AdminController,), AdminService, catalogue=("/v1/admin/",))
