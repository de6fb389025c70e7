"""Puts the REST application together from the parts it is given.

    request → Gate (id, limits, token) → Litestar (routing, types) → service → CorePort | Database | BookPort

`create_app` makes no connection; the ASGI lifespan opens and closes the database. Litestar decodes bodies and makes the
OpenAPI document from the same types.
"""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed_version
from typing import Any

from litestar import Litestar, Request
from litestar.datastructures import State
from litestar.di import Provide
from litestar.static_files import create_static_files_router

from engine.messages.errors import Unavailable
from platform_api.database import Database
from platform_api.errors import ApiError, handle
from platform_api.exchange.routes import ExchangeController
from platform_api.exchange.service import ExchangeService
from platform_api.gate import Gate
from platform_api.identity.routes import AuthController, UserController
from platform_api.identity.service import IdentityService
from platform_api.openapi import config
from platform_api.ops.metrics import Metrics
from platform_api.ops.routes import OpsController
from platform_api.ports import BookPort, CorePort, ProofPort, StatusPort
from platform_api.security import Caller, SessionGuard, TokenSigner, load_signing_key, unauthorized
from platform_api.settings import ApiSettings
from platform_api.settlement.routes import ProofController, SettlementController
from platform_api.settlement.withdrawal_routes import WithdrawalController
from platform_api.settlement.withdrawals import WithdrawalService

__all__ = ["create_app", "openapi_document"]


def create_app(
    settings: ApiSettings,
    core: CorePort,
    book: BookPort,
    status: StatusPort,
    proofs: ProofPort,
    database: Database | None = None,
) -> Gate:
    """The ASGI application, for uvicorn. `database` is made from the settings unless given."""
    owned = database or Database(
        settings.postgres_dsn,
        connections_max=settings.pool_connections_max,
        query_seconds_max=settings.query_seconds_max,
    )
    signer = TokenSigner(load_signing_key(settings.signing_key_path), settings.domain, settings.access_seconds)
    identity = IdentityService(owned, core, signer, settings)
    parts: dict[str, Any] = {
        "settings": settings,
        "core": core,
        "database": owned,
        "identity": identity,
        "exchange": ExchangeService(owned, core, book, settings),
        "withdrawals": WithdrawalService(owned, core, status, settings),
        "guard": SessionGuard(identity.session_problem, settings.session_cache_seconds),
        "metrics": Metrics(status),
        "processes": status,
        "proofs": proofs,
        "version": _version(),
    }

    async def open_database() -> None:
        await owned.open()

    async def close_database() -> None:
        await owned.close()

    routes: list[Any] = [OpsController, AuthController, UserController, ExchangeController, SettlementController]
    routes += [ProofController, WithdrawalController]
    if settings.web_folder is not None and settings.web_folder.is_dir():
        routes.append(create_static_files_router("/", [settings.web_folder], html_mode=True, include_in_schema=False))
    app = Litestar(
        routes,
        dependencies={name: Provide(_given(part), sync_to_thread=False) for name, part in parts.items()}
        | {
            "caller": Provide(provide_caller),
            "visitor": Provide(provide_visitor),
        },
        exception_handlers={Exception: handle},
        on_startup=[open_database],
        on_shutdown=[close_database],
        openapi_config=config(_version()),
        request_max_body_size=settings.body_bytes_max,
        state=State({"guard": parts["guard"]}),
        debug=False,
    )
    return Gate(app, settings, signer, parts["metrics"].observe)


def openapi_document() -> dict[str, Any]:
    """The OpenAPI 3.1 document of the API; needs no server and no database."""
    app = create_app(ApiSettings(postgres_dsn="postgresql:///unused"), _Absent(), _Absent(), _Absent(), _Absent())
    document: dict[str, Any] = app.app.openapi_schema.to_schema()
    return document


async def provide_caller(request: Request[Any, Any, Any]) -> Caller:
    """Whose request this is. Raises ApiError UNAUTHORIZED or FORBIDDEN."""
    caller = await provide_visitor(request)
    if caller is None:
        raise unauthorized("token_missing", "This needs an access token.")
    return caller


async def provide_visitor(request: Request[Any, Any, Any]) -> Caller | None:
    """The same where a token may be left out; one that is there must be good."""
    state = request.scope["state"]
    error: ApiError | None = state.get("caller_error")
    if error is not None:
        raise error
    caller: Caller | None = state.get("caller")
    if caller is None:
        return None
    guard: SessionGuard = request.app.state.guard
    return await guard.check(caller)


def _given(part: Any) -> Any:
    def provide() -> Any:
        return part

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

    def status(self) -> dict[str, Any]:
        return {"connected": False}

    async def depth(self, market: str, depth: int) -> dict[str, Any]:
        raise Unavailable("no market data")

    async def prove(self, account: str, batch: int | None) -> list[Any]:
        raise Unavailable("no settlement")

    def read(self) -> dict[str, dict[str, Any]]:
        return {}
