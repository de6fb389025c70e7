"""Puts the REST application together from the parts it is given.

    request → Gate (id, limits, token) → Litestar (routing, types) → service → CorePort | Database | BookPort
                                                                        └→ outbox → Relay → consumers
                                                                        └→ jobs   → Worker → handlers

`create_app` makes no connection; the ASGI lifespan opens and closes the database, and starts and stops what runs in the
background. Litestar decodes bodies and makes the OpenAPI document from the same types; its routes hold no part of an
application: each request brings the parts, so that all applications of a process share the routes, which are dear to
make. What the application consists of stands in `contexts.py`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import lru_cache
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Any

from litestar import Litestar, Request
from litestar.config.cors import CORSConfig
from litestar.datastructures import State
from litestar.di import Provide
from litestar.routes import HTTPRoute
from litestar.static_files import create_static_files_router
from litestar.types import BeforeRequestHookHandler, Scope

from engine.messages.errors import Unavailable
from platform_api.contexts import CONTEXTS
from platform_api.database import Database
from platform_api.errors import ApiError, ErrorCode, handle
from platform_api.gate import Gate
from platform_api.idempotency import Idempotency
from platform_api.identity.service import IdentityService
from platform_api.kernel.audit import Audit
from platform_api.kernel.background import in_background
from platform_api.kernel.context import Kernel
from platform_api.kernel.events import Events
from platform_api.kernel.jobs import Jobs
from platform_api.kernel.sealing import Sealer, load_ring
from platform_api.kernel.upkeep import add_upkeep
from platform_api.limits import HOUR_NS, SITE_TIMES, Buckets, Limits
from platform_api.mail import OutboxFolder
from platform_api.metrics import Metrics
from platform_api.openapi import RulesInside, config, document_of
from platform_api.ports import BookPort, CorePort, MailPort, ProofPort, StatusPort
from platform_api.security import Caller, SessionGuard, TokenSigner, caller_of, load_signing_key, visitor_of
from platform_api.settings import ApiSettings
from platform_api.texts import BODY_BYTES_MAX

__all__ = ["create_app", "openapi_document"]

NAME_TOLD_MAX = 100
"""Characters of a name that nobody knows: an answer is no place for what somebody sent."""


def create_app(
    settings: ApiSettings,
    core: CorePort,
    book: BookPort,
    status: StatusPort,
    proofs: ProofPort,
    database: Database | None = None,
    mail: MailPort | None = None,
) -> Gate:
    """The ASGI application, for uvicorn. `database` and `mail` are made from the settings unless given."""
    kernel = _kernel(settings, core, book, status, database, mail)
    parts = _parts(kernel, proofs)
    add_upkeep(
        kernel, [column for context in CONTEXTS for column in context.sealed],
        [context.upkeep for context in CONTEXTS if context.upkeep is not None],
    )  # fmt: skip

    @asynccontextmanager
    async def lifespan() -> AsyncIterator[None]:
        await kernel.database.open()
        try:
            async with in_background(kernel):
                yield
        finally:
            await kernel.limits.close()
            await kernel.database.close()

    web_folder = settings.web_folder if settings.web_folder is not None and settings.web_folder.is_dir() else None
    routes = _routes(frozenset(parts), web_folder, tuple(settings.cors_origins))
    catalogue = [prefix for context in CONTEXTS for prefix in context.catalogue]
    binary = [prefix for context in CONTEXTS for prefix in context.binary]
    return Gate(routes, kernel, parts, lifespan, kernel.metrics.observe, catalogue=catalogue, binary=binary)


def _kernel(
    settings: ApiSettings, core: CorePort, book: BookPort, status: StatusPort, database: Database | None,
    mail: MailPort | None,
) -> Kernel:  # fmt: skip
    """Without services yet."""
    metrics = Metrics(status)
    owned = database or Database(
        settings.postgres_dsn,
        connections_max=settings.pool_connections_max,
        core_connections_max=settings.core_connections_max,
        query_seconds_max=settings.query_seconds_max,
    )
    owned.observe = metrics.query_seconds
    if mail is None and settings.mail_folder is not None:
        mail = OutboxFolder(settings.mail_folder, settings.mail_sender)
    return Kernel(
        settings=settings,
        database=owned,
        core=core,
        book=book,
        status=status,
        mail=mail,
        events=Events(type_ for context in CONTEXTS for type_ in context.events),
        jobs=Jobs(),
        audit=Audit(),
        idempotency=Idempotency(owned),
        sealer=Sealer(load_ring(settings.column_keys_path)),
        limits=_limits(settings),
        signer=TokenSigner(load_signing_key(settings.signing_key_path), settings.domain, settings.access_seconds),
        metrics=metrics,
    )


def _parts(kernel: Kernel, proofs: ProofPort) -> dict[str, Any]:
    """What the arguments of routes come from, by name: the services of all contexts, made here, among them."""
    parts: dict[str, Any] = {
        "kernel": kernel,
        "settings": kernel.settings,
        "database": kernel.database,
        "processes": kernel.status,
        "proofs": proofs,
    }
    for context in CONTEXTS:
        if context.service is not None:
            parts[context.name] = service = context.service(kernel)
            kernel.services[type(service)] = service
    standing_of = kernel.service(IdentityService).sessions.standing_of
    parts["guard"] = SessionGuard(standing_of, kernel.settings.session_cache_seconds)
    return parts


@lru_cache(maxsize=8)
def _routes(names: frozenset[str], web_folder: Path | None, origins: tuple[str, ...]) -> Litestar:
    """All routes, with no part of an application in them: what is called one of `names` comes with each request."""
    routes: list[Any] = [controller for context in CONTEXTS for controller in context.controllers]
    if web_folder is not None:
        routes.append(create_static_files_router("/", [web_folder], html_mode=True, include_in_schema=False))
    known: dict[tuple[str, str], frozenset[str]] = {}
    app = Litestar(
        routes,
        before_request=_refuse_unknown(known),
        dependencies={name: Provide(_part(name), sync_to_thread=False) for name in names}
        | {
            "caller": Provide(provide_caller),
            "visitor": Provide(provide_visitor),
        },
        exception_handlers={Exception: handle},
        openapi_config=config(_version()),
        plugins=[RulesInside()],
        request_max_body_size=BODY_BYTES_MAX,
        cors_config=_cors(origins),
        state=State({"version": _version()}),
        logging_config=None,  # `logs.py` says how the process logs
        debug=False,
    )
    for route in app.routes:
        if isinstance(route, HTTPRoute):
            _one_after_the_other(route)
            for method, (handler, model) in route.route_handler_map.items():
                if handler.resolve_include_in_schema():  # files of the terminal take what a page puts behind names
                    names = frozenset(parameter.field_alias for parameter in model.expected_query_params)
                    known[route.path_format, method] = names
    return app


def _refuse_unknown(known: Mapping[tuple[str, str], frozenset[str]]) -> BeforeRequestHookHandler:
    """Litestar's hook before a handler: a parameter of the query that the route has not is refused, not passed over.

    `known` has the names of each route by its path template and method; whoever makes it may fill it later.
    """

    async def before(request: Request[Any, Any, Any]) -> None:
        if not request.scope["query_string"]:
            return
        names = known.get((request.scope["path_template"], request.method))
        if names is None:
            return
        for name in request.query_params:
            if name not in names:
                taken = f"takes {', '.join(sorted(names))}" if names else "takes none"
                raise ApiError(
                    ErrorCode.VALIDATION_ERROR, f"{name[:NAME_TOLD_MAX]}: is no parameter of this route, which {taken}",
                    reason="unknown_parameter", field=name[:NAME_TOLD_MAX],
                )  # fmt: skip

    return before


def _one_after_the_other(route: HTTPRoute) -> None:
    """Of dependencies that need nothing of each other Litestar makes a task group, with a task for each. Ours are at
    hand, but for the caller, which may ask the database once: a task costs more than all of it (docs/decisions/0046).
    """
    for _, model in route.route_handler_map.values():
        model.dependency_batches = [{one} for batch in model.dependency_batches for one in batch]


def openapi_document() -> dict[str, Any]:
    """The OpenAPI 3.1 document of the API; needs no server and no database."""
    app = create_app(ApiSettings(postgres_dsn="postgresql:///unused"), _Absent(), _Absent(), _Absent(), _Absent())
    return document_of(app.app)


async def provide_caller(request: Request[Any, Any, Any]) -> Caller:
    """Whose request this is. Raises ApiError UNAUTHORIZED or FORBIDDEN."""
    return await caller_of(request)


async def provide_visitor(request: Request[Any, Any, Any]) -> Caller | None:
    """The same where a token may be left out; one that is there must be good."""
    return await visitor_of(request)


def _limits(settings: ApiSettings) -> Limits:
    by_address = {
        "auth": settings.auth_per_minute, "public": settings.public_per_minute, "webhooks": settings.webhooks_per_minute
    }  # fmt: skip
    classes = {
        "trading": Buckets(settings.trading_per_minute),
        "cancels": Buckets(settings.account_per_minute),
        "account": Buckets(settings.account_per_minute),
        "catalogue": Buckets(settings.catalogue_per_hour, HOUR_NS),
        "refusals": Buckets(settings.refusals_per_hour, HOUR_NS),
    }
    for name, limit in by_address.items():
        classes |= {name: Buckets(limit), f"{name}_site": Buckets(SITE_TIMES * limit)}
    return Limits(classes, settings.redis_url)


def _cors(origins: tuple[str, ...]) -> CORSConfig | None:
    """Reading with a bearer from the pages that are listed; never with cookies."""
    if not origins:
        return None
    return CORSConfig(
        allow_origins=list(origins),
        allow_credentials=False,
        allow_headers=["authorization", "content-type", "idempotency-key", "if-match", "x-request-id"],
        expose_headers=["etag", "idempotency-replayed", "ratelimit-limit", "ratelimit-remaining", "ratelimit-reset",
                        "retry-after", "x-request-id"],
    )  # fmt: skip


def _part(name: str) -> Any:
    def provide(scope: Scope) -> Any:
        return scope["state"]["parts"][name]

    return provide


def _version() -> str:
    try:
        return installed_version("byline")
    except PackageNotFoundError:
        return "0.1.0"


class _Absent:
    """Stands for the parts that a document does not need. Every use is refused."""

    async def submit(self, command: Any) -> dict[str, Any]:
        raise Unavailable("no core")

    async def register_key(self, key_id: str, public_key: bytes, account: str, scopes: Any) -> None:
        raise Unavailable("no core")

    async def revoke_key(self, key_id: str, public_key: bytes) -> None:
        raise Unavailable("no core")

    async def key_uses(self, taken_ns: int | None) -> dict[str, int]:
        raise Unavailable("no core")

    def status(self) -> dict[str, Any]:
        return {"connected": False}

    async def depth(self, market: str, depth: int) -> dict[str, Any]:
        raise Unavailable("no market data")

    async def prove(self, account: str, batch: int | None) -> Any:
        raise Unavailable("no proofs")

    def read(self) -> dict[str, dict[str, Any]]:
        return {}
