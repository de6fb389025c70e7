"""The OpenAPI document beyond what comes from the types of the routes: how to begin, security, failures, and examples
everywhere.

Examples are made from the schemas: a field's own `examples` (in its `msgspec.Meta`) come first, then what its type,
format or limits call for, or its name (`example_values.py`). So a route has them without writing any; a field with a
pattern needs one of its own, and a test says so; one whose name has no value there yet is shown as `text`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec
from litestar import Litestar
from litestar.openapi.config import OpenAPIConfig
from litestar.openapi.datastructures import ResponseSpec
from litestar.openapi.plugins import JsonRenderPlugin
from litestar.openapi.spec import (
    Components,
    OpenAPIMediaType,
    OpenAPIResponse,
    OpenAPIType,
    Operation,
    Reference,
    Schema,
    SecurityScheme,
    Tag,
)
from litestar.plugins import OpenAPISchemaPlugin
from litestar.typing import FieldDefinition
from msgspec import inspect

from platform_api.errors import STATUS, Failure
from platform_api.example_values import BY_NAME
from platform_api.parameter_words import words_of
from platform_api.reasons import REASONS
from platform_api.security import ACCESS_COOKIE

if TYPE_CHECKING:
    from litestar._openapi.schema_generation import SchemaCreator

__all__ = ["BEARER", "RulesInside", "also_as", "config", "document_of", "failures"]

BEARER: list[dict[str, list[str]]] = [{"bearer": []}, {"cookie": []}]
"""Either is enough."""

GUIDE = """An exchange for creators' tokens, and the licences and royalties behind them, on one ledger.

**Values.** Prices, sizes and amounts are decimal strings of their asset (`"12.5"`), times are RFC 3339 in UTC, ids are
UUIDs. A good answer is `{"success": true, "data": …}`; a failure `{"success": false, "error": {"code", "message",
"details": {"reason", "field"}, "request_id"}}`, of which `code` and `details.reason` are stable words for programs:
docs/protocol/rest-reasons.md has what each means and what to do.

**Signing in.** `POST /v1/auth/nonce` with the address of a Sui or Ethereum wallet gives a `nonce` and a `message`. Let
the wallet sign the message (Sui: as a personal message, the serialized signature in base64; Ethereum: `personal_sign`,
hex) and send address, nonce and signature to `POST /v1/auth/verify`, which makes the account the first time. Programs
send the `access_token` as `Authorization: Bearer …` and renew it by `POST /v1/auth/refresh`, whose refresh token is
good once. Pages take the tokens as cookies (`"delivery": "cookie"`); a request of theirs that changes something also
carries the `csrf_token` as the header `X-CSRF-Token`. Steps of weight want a fresh
signature, `POST /v1/auth/step-up`: a registration one within ten minutes, that of the sign-in included; a launch, a
wallet that is linked or unlinked, a key, another e-mail address, a transfer to somebody new, and what is paid from the
balance beyond 50 units of an asset a day, one of their own, made after the sign-in and spent by the act; one that
fails, as for lack of money, spends none.

**Once.** Send an `Idempotency-Key` with what must not happen twice; where it is needed the route says so. What is
edited has an `ETag`: send it back as `If-Match`, and nobody's change is overwritten unseen.

**What was just done.** The answer to an order, a cancel or a payment is the core's own, and durable. Lists and reads of
orders, trades and balances come from a copy that follows by some milliseconds, so a read right behind an answer may
tell of the moment before it; order entry (docs/clients.md) tells them in the core's own order.

**Lists** come in pages: `limit` (20 unless told, at most 200) and the `next_cursor` of the answer as `cursor`.
A parameter or a field that the route does not have is refused (400), so a misspelt one is never passed over.
`HEAD` is answered as `GET`, without the body.

**Limits**, unless the operator sets others: a minute 100 requests of an address without a token, 1,000 of an account,
100 orders, and 10 of sign-ins and steps up (each is two); an hour 1,000 changes of the catalogue, and
20 payments that are refused (402). Answers carry `RateLimit-Limit`, `RateLimit-Remaining`
and `RateLimit-Reset`; beyond it is 429 with `Retry-After`. Bodies have at most 512 KiB; files go in parts
(`POST /v1/uploads`).

**The calls in order**, from a wallet to a royalty and a token: docs/for-creators.md.

**Other doors.** Events for pages: the websocket `/v1/ws`. Order entry and market data for programs: docs/clients.md.
"""
TAGS: Mapping[str, str] = {
    "ops": "Whether it runs, the time, and what may be measured.",
    "identity": "Signing in by wallet, sessions, profile, e-mail, wallets, devices, keys for programs.",
    "exchange": "Markets, order book, orders, trades; what an account has, had and moved.",
    "settlement": "Batches that take effect on the chain, proofs of balances, deposits and withdrawals.",
    "files": "Files: uploads in parts, and signed URLs to read them.",
    "creators": "Profiles of creators, their verification, following and the feed.",
    "works": "Works with versions, chapters, files, collaborators and offers; genres and categories.",
    "royalties": "Rules of sharing, distributions, statements, reports and payouts.",
    "payments": "Payments by a provider, purchases, refunds, transfers and what was bought.",
    "licensing": "Terms, applications, licences, seats, release windows and availability.",
    "registry": "Works and licences on the chain, certificates, and checks for everybody.",
    "tokens": "Creators' tokens: symbols, launch, listing, prices, holders.",
    "admin": "For the platform's staff.",
}
"""What routes are grouped by."""
GOOD: Mapping[int, str] = {200: "Done.", 201: "Made.", 202: "Taken; it is done later.", 204: "Done; no body."}
DEPTH_MAX = 12
BODIES: Mapping[str, Any] = {
    "CalculationRequest": {"work_id": BY_NAME["id"], "asset": "USDC", "amount": "12.5"},
    "OrderRequest": {
        "market": "INK-USDC", "side": "buy", "type": "limit", "size": "5", "price": "0.25", "tif": "gtc",
        "client_order_id": "first-1",
    },
    "EstimateRequest": {"market": "INK-USDC", "side": "buy", "size": "5", "budget": None, "price": None},
}  # fmt: skip
"""Of which one field needs another, or stands in its place."""
_NUMBER = {
    "ge": "minimum", "le": "maximum", "gt": "exclusive_minimum", "lt": "exclusive_maximum",
    "multiple_of": "multiple_of",
}  # fmt: skip
_LIST = {"min_length": "min_items", "max_length": "max_items"}
_RULES: Mapping[type[inspect.Type], Mapping[str, str]] = {
    inspect.StrType: {"min_length": "min_length", "max_length": "max_length", "pattern": "pattern"},
    inspect.IntType: _NUMBER, inspect.FloatType: _NUMBER,
    inspect.ListType: _LIST, inspect.VarTupleType: _LIST,
    inspect.DictType: {"min_length": "min_properties", "max_length": "max_properties"},
}  # fmt: skip
"""Rules of msgspec, by their names there and in a schema."""
FORMATS: Mapping[str, str] = {
    "uuid": BY_NAME["id"], "date-time": BY_NAME["timestamp"], "date": "2026-01-02", "uri": "https://example.org/",
    "duration": "P30D",
}  # fmt: skip


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


def also_as(*media_types: str) -> type[Operation]:
    """For `operation_class`: good answers come in these types as well, as files or pages."""

    @dataclass
    class AlsoAs(Operation):
        def __post_init__(self) -> None:
            for status, response in (self.responses or {}).items():
                if int(status) < 300 and isinstance(response, OpenAPIResponse):
                    file = OpenAPIMediaType(Schema(type=OpenAPIType.STRING))
                    response.content = {**(response.content or {}), **dict.fromkeys(media_types, file)}

    return AlsoAs


class RulesInside(OpenAPISchemaPlugin):
    """Of the rules of a struct's field Litestar tells those of the field itself, without bounds of 0 and those of some
    unions, and none of what is inside of a list or a map, though msgspec asks for them all: they are put in here."""

    def is_plugin_supported_field(self, field_definition: FieldDefinition) -> bool:
        return not field_definition.is_union and field_definition.is_subclass_of(msgspec.Struct)

    def to_openapi_schema(self, field_definition: FieldDefinition, schema_creator: SchemaCreator) -> Schema:
        of_litestar = next(
            plugin for plugin in schema_creator.plugins
            if plugin is not self and schema_creator.plugin_supports_field(plugin, field_definition)
        )  # fmt: skip
        schema = of_litestar.to_openapi_schema(field_definition, schema_creator)
        struct = inspect.type_info(field_definition.type_)
        assert isinstance(struct, inspect.StructType) and schema.properties is not None
        for field in struct.fields:
            _tell(field.type, schema.properties[field.encode_name])
        return schema


def config(version: str) -> OpenAPIConfig:
    return OpenAPIConfig(
        title="Byline",
        version=version,
        description=GUIDE,
        tags=[Tag(name, text) for name, text in TAGS.items()],
        path="/v1/openapi",  # Litestar answers everything below this path itself, errors too
        render_plugins=[JsonRenderPlugin()],
        use_handler_docstrings=True,
        components=Components(
            security_schemes={
                "bearer": SecurityScheme(type="http", scheme="bearer", bearer_format="JWT"),
                "cookie": SecurityScheme(
                    type="apiKey", name=ACCESS_COOKIE, security_scheme_in="cookie",
                    description="Requests that change something also need the header X-CSRF-Token.",
                ),
            }
        ),
    )  # fmt: skip


def document_of(app: Litestar) -> dict[str, Any]:
    """The document with examples."""
    document: dict[str, Any] = app.openapi_schema.to_schema()
    example = _Examples(document.get("components", {}).get("schemas", {}))
    for path, item in document["paths"].items():
        for operation in item.values():
            if path.startswith("/v1/"):
                operation["responses"].setdefault("400", {})  # of a parameter that the route has not
            operation["summary"], more = _summary_and_more(operation.pop("description", ""))
            if more:
                operation["description"] = more
            contents = [operation.get("requestBody", {}).get("content", {})]
            for status, response in operation.get("responses", {}).items():
                if int(status) >= 400:
                    _put_failure(response, int(status))
                else:
                    if int(status) in GOOD and "," in response["description"]:  # Litestar's own words for a status
                        response["description"] = GOOD[int(status)]
                    contents.append(response.get("content", {}))
            for content in contents:
                for media in content.values():
                    if "schema" in media and "example" not in media:
                        media["example"] = example.of(media["schema"])
            for parameter in operation.get("parameters", []):
                if not parameter.get("description"):
                    parameter["description"] = words_of(path, parameter["name"])
                if parameter.get("required"):
                    parameter["schema"] = _not_null(parameter["schema"])
                if "example" not in parameter:
                    parameter["example"] = example.of(parameter.get("schema", {}), parameter["name"])
    return document


def _tell(enforced: inspect.Type, told: Schema | Reference | None) -> None:
    """Puts the rules of this type into the schema that Litestar made of it: its own, and those of what is inside."""
    about, enforced = _alone(enforced)
    told = _alone_told(told)
    if not isinstance(told, Schema):  # a struct, which has its own
        return
    told.examples = told.examples or about.get("examples")
    for rule, name in _RULES.get(type(enforced), {}).items():
        setattr(told, name, getattr(enforced, rule))
    if isinstance(enforced, inspect.DictType):
        names = Schema()
        _tell(enforced.key_type, names)
        told.property_names = names if names != Schema() else None
        if not isinstance(told.additional_properties, bool):
            _tell(enforced.value_type, told.additional_properties)
    elif isinstance(enforced, inspect.TupleType):
        for part, schema in zip(enforced.item_types, told.prefix_items or (), strict=True):
            _tell(part, schema)
    elif isinstance(enforced, inspect.CollectionType):
        _tell(enforced.item_type, told.items)


def _alone(enforced: inspect.Type) -> tuple[dict[str, Any], inspect.Type]:
    """What is said of a value that may be null besides, and what it is; of two kinds and more, both."""
    if isinstance(enforced, inspect.Metadata):
        about, kind = _alone(enforced.type)
        if about or isinstance(enforced.type, inspect.UnionType):  # what is said of the field, Litestar tells
            return about, kind
        return enforced.extra_json_schema or {}, kind
    if isinstance(enforced, inspect.UnionType):
        kinds = [kind for kind in enforced.types if not isinstance(kind, inspect.NoneType)]
        if len(kinds) == 1:
            return _alone(kinds[0])
    return {}, enforced


def _alone_told(told: Schema | Reference | None) -> Schema | Reference | None:
    if not isinstance(told, Schema) or not told.one_of:
        return told
    parts = [part for part in told.one_of if not isinstance(part, Schema) or part.type != OpenAPIType.NULL]
    if len(parts) != 1:
        return told
    for name in {name for names in _RULES.values() for name in names.values()}:
        setattr(told, name, None)  # they are told of the part
    return parts[0]


def _summary_and_more(docstring: str) -> tuple[str, str]:
    """The first sentence, which a list of routes shows, and what a caller is told beside it; empty if nothing is."""
    first, *more = re.split(r"(?<=[.!?])\s+", docstring.strip(), maxsplit=1)
    paragraphs = [" ".join(part.split()) for part in "".join(more).split("\n\n")]
    return " ".join(first.split()).rstrip("."), "\n\n".join(paragraphs)


def _not_null(schema: dict[str, Any]) -> dict[str, Any]:
    """Of what is needed; the type of the route allows null only so that the lack is answered in its place."""
    parts = [part for part in schema.get("oneOf", ()) if part.get("type") != "null"]
    if len(parts) != 1:
        return schema
    shared = {name: value for name, value in schema.items() if name not in ("oneOf", "default")}
    return {**shared, **parts[0]}


def _put_failure(response: dict[str, Any], status: int) -> None:
    """Also in place of what Litestar documents for requests that it refuses itself: we answer those alike."""
    codes = [code for code, number in STATUS.items() if number == status]
    response["description"] = ", ".join(code.value for code in codes)
    examples = {
        code.value: {
            "value": {
                "success": False,
                "error": {
                    "code": code.value, "message": "What was wrong, in words.",
                    "details": {"reason": next(iter(REASONS[code]), "insufficient_funds")},
                    "timestamp": BY_NAME["timestamp"], "request_id": BY_NAME["request_id"],
                },
            }
        }
        for code in codes
    }  # fmt: skip
    schema = {"$ref": f"#/components/schemas/{Failure.__name__}"}
    response["content"] = {"application/json": {"schema": schema, "examples": examples}}


class _Examples:
    """Values that fit schemas. A schema that holds itself ends in null or an empty list."""

    def __init__(self, schemas: Mapping[str, Any]) -> None:
        self._schemas = schemas

    def of(self, schema: Mapping[str, Any], name: str = "", depth: int = 0) -> Any:
        if depth > DEPTH_MAX or (name in BY_NAME and BY_NAME[name] is None):
            return None
        if "$ref" in schema:
            kind = schema["$ref"].rsplit("/", 1)[1]
            return BODIES[kind] if kind in BODIES else self.of(self._schemas[kind], name, depth + 1)
        if schema.get("examples"):
            examples = schema["examples"]
            first = next(iter(examples.values()) if isinstance(examples, Mapping) else iter(examples))
            return first.get("value") if isinstance(first, Mapping) and "value" in first else first
        for word in ("const", "default"):
            if word in schema:
                return schema[word]
        if schema.get("enum"):
            return schema["enum"][0]
        for word in ("oneOf", "anyOf", "allOf"):
            if schema.get(word):
                useful = [part for part in schema[word] if part.get("type") != "null"]
                return self.of((useful or schema[word])[0], name, depth + 1)
        return self._of_type(schema, name, depth)

    def _of_type(self, schema: Mapping[str, Any], name: str, depth: int) -> Any:
        kind = schema.get("type")
        if isinstance(kind, list):
            kind = next((word for word in kind if word != "null"), "null")
        match kind:
            case "object":
                fields = schema.get("properties", {})
                example = {}
                for field, part in fields.items():
                    particular = f"{schema.get('title')}.{field}"
                    word = particular if particular in BY_NAME else field
                    example[field] = self.of(part, word, depth + 1)
                if "pagination" in example and not isinstance(example.get("data"), list):
                    del example["pagination"]  # of the envelope: lists alone have it
                return example
            case "array":
                if isinstance(BY_NAME.get(name), list):
                    return BY_NAME[name]
                if "prefixItems" in schema:
                    return [self.of(part, name, depth + 1) for part in schema["prefixItems"]]
                return [self.of(schema["items"], name, depth + 1)] if schema.get("items") else []
            case "integer" | "number":
                known = BY_NAME.get(name)
                if isinstance(known, int):
                    return known
                return max(1, schema.get("minimum", 1)) if schema.get("maximum", 1) >= 1 else schema["maximum"]
            case "boolean":
                return True
            case "string":
                return self._text(schema, name)
        return None

    @staticmethod
    def _text(schema: Mapping[str, Any], name: str) -> str:
        if schema.get("format") in FORMATS:
            return FORMATS[schema["format"]]
        if name.endswith("_at"):
            return str(BY_NAME["timestamp"])
        known = BY_NAME.get(name, BY_NAME["id"] if name == "id" or name.endswith("_id") else None)
        text = known if isinstance(known, str) else "text"
        text = text.ljust(schema.get("minLength", 0), "x")
        return text[: schema.get("maxLength", len(text))]
