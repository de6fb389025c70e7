"""Facts of the request being answered, for whatever is written on its way: logs, events, audit entries.

Set once by the gate for each request; work outside of a request (jobs, relay, command line) sees the empty facts.
"""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass

__all__ = ["NO_REQUEST", "RequestFacts", "current_request"]


@dataclass(frozen=True, slots=True)
class RequestFacts:
    """`ip_address` is a plain address or None; `user_agent` is cut to what a column holds."""

    request_id: str | None = None
    ip_address: str | None = None
    user_agent: str | None = None


NO_REQUEST = RequestFacts()
current_request: ContextVar[RequestFacts] = ContextVar("current_request", default=NO_REQUEST)
