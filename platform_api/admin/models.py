"""Bodies of the admin routes."""

from __future__ import annotations

from typing import Any

from msgspec import Struct

__all__ = ["AuditEntry", "Projection"]


class AuditEntry(Struct, frozen=True):
    """`hash` is null for the moment between the act and its place in the chain. `actor_id` null: the platform."""

    id: str
    recorded_at: str
    actor_id: str | None
    action: str
    resource_type: str
    resource_id: str
    old_values: dict[str, Any] | None
    new_values: dict[str, Any] | None
    ip_address: str | None
    user_agent: str | None
    request_id: str | None
    seal_number: int | None
    hash: str | None


class Projection(Struct, frozen=True):
    """What is read of the core's events into PostgreSQL. `lag`: how many commands the core has told of beyond
    `sequence`; null while the core does not say where it is."""

    name: str
    sequence: int
    lag: int | None
    updated_at: str
