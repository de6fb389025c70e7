"""How a context (identity, creators, works …) joins the application: one package, one line in `contexts.py`.

    platform_api/<name>/models.py     bodies (msgspec Structs)       service.py   rules; takes the Kernel
                        queries.py    SQL of its own schema          routes.py    a Controller; no rules
                        __init__.py   CONTEXT = Context("<name>", …)

A service gets everything it may use from the Kernel, subscribes to events and registers job handlers in its
constructor, and reaches other contexts by their events or by `kernel.service(Type)`, never by their tables.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from litestar import Controller

from platform_api.database import Database
from platform_api.idempotency import Idempotency
from platform_api.kernel.audit import Audit
from platform_api.kernel.events import Events
from platform_api.kernel.jobs import Jobs
from platform_api.kernel.sealing import SealedColumn, Sealer
from platform_api.limits import Limits
from platform_api.metrics import Metrics
from platform_api.ports import BookPort, CorePort, MailPort, StatusPort
from platform_api.security import TokenSigner
from platform_api.settings import ApiSettings

__all__ = ["Context", "Kernel"]

S = TypeVar("S")


@dataclass(slots=True)
class Kernel:
    """What every service may use. `services` is filled while the application is put together."""

    settings: ApiSettings
    database: Database
    core: CorePort
    book: BookPort
    status: StatusPort
    mail: MailPort | None
    events: Events
    jobs: Jobs
    audit: Audit
    idempotency: Idempotency
    sealer: Sealer
    limits: Limits
    signer: TokenSigner
    metrics: Metrics
    services: dict[type, Any] = field(default_factory=dict)

    def service(self, type_: type[S]) -> S:
        """The service of a context that stands before the caller's in `contexts.py`. Raises KeyError."""
        found: S = self.services[type_]
        return found


@dataclass(frozen=True, slots=True)
class Context:
    """`service(kernel)` makes the service; routes get it as the argument named like the context.

    `events` are the types it publishes. `catalogue` are path prefixes whose writes count by the hour. `binary` are path
    prefixes where a PUT has bytes instead of JSON. `sealed` are its sealed columns, for the turning of keys.
    `upkeep` runs every ten minutes.
    """

    name: str
    controllers: tuple[type[Controller], ...]
    service: Callable[[Kernel], Any] | None = None
    events: tuple[str, ...] = ()
    catalogue: tuple[str, ...] = ()
    binary: tuple[str, ...] = ()
    sealed: tuple[SealedColumn, ...] = ()
    upkeep: Callable[[Kernel], Awaitable[None]] | None = None
