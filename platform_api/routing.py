"""What routes of every context share: types of arguments, and which failures a read or a change may answer."""

from __future__ import annotations

from typing import Any

from litestar import Request
from litestar.di import NamedDependency

from platform_api.openapi import failures
from platform_api.security import Caller

__all__ = ["CHANGES", "READS", "READS_ONE", "AnyRequest", "Visitor", "Who"]

AnyRequest = Request[Any, Any, Any]
Who = NamedDependency[Caller]
"""Signed in; anybody else is answered 401."""
Visitor = NamedDependency[Caller | None]
"""A token may be left out."""

READS = failures(400, 401, 403, 429, 503)
READS_ONE = failures(400, 401, 403, 404, 429, 503)
CHANGES = failures(400, 401, 403, 404, 409, 429, 503)
