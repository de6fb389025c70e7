"""Liveness, readiness, metrics, time, status."""

from platform_api.kernel.context import Context
from platform_api.ops.routes import OpsController, StatusController
from platform_api.ops.service import OpsService

__all__ = ["CONTEXT"]

CONTEXT = Context("ops", (OpsController, StatusController), OpsService)
