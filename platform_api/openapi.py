"""What the OpenAPI document says beyond the types of the routes."""

from __future__ import annotations

from litestar.openapi.config import OpenAPIConfig
from litestar.openapi.datastructures import ResponseSpec
from litestar.openapi.plugins import JsonRenderPlugin
from litestar.openapi.spec import Components, SecurityScheme

from platform_api.errors import STATUS, Failure

__all__ = ["BEARER", "config", "failures"]

BEARER: list[dict[str, list[str]]] = [{"bearer": []}]


def failures(*statuses: int) -> dict[int, ResponseSpec]:
    """The error answers of a route, each with the codes that it may carry."""
    return {
        status: ResponseSpec(
            Failure,
            generate_examples=False,
            description=", ".join(code.value for code, number in STATUS.items() if number == status),
        )
        for status in statuses
    }


def config(version: str) -> OpenAPIConfig:
    return OpenAPIConfig(
        title="Byline",
        version=version,
        description="An exchange for creators' tokens. Prices, sizes and amounts are decimal strings.",
        path="/v1/openapi",  # Litestar answers everything below this path itself, errors too
        render_plugins=[JsonRenderPlugin()],
        use_handler_docstrings=True,
        components=Components(
            security_schemes={"bearer": SecurityScheme(type="http", scheme="bearer", bearer_format="JWT")}
        ),
    )
