"""The described requests against what the exchange takes: every op, every field, and which are required."""

from __future__ import annotations

import jsonschema
import msgspec
import pytest
from referencing import Registry, Resource

from byline import protocol_document
from byline.client.requests import REQUESTS
from engine.messages import encode
from engine.messages.codes import CommandKind
from gateway import quotes, restrictions, session

OF_A_REQUEST = {"rid", "receipt"}
"""What no record has."""
OF_THE_GATEWAY = {"place": {"cancel_on_disconnect"}, "poison": {"quote_id"}}
"""What it takes out before a record is made."""


def fields_of(op: str) -> dict[str, bool]:
    """Each field but those of any request, and whether it is required."""
    found = {field.encode_name: field.required for field in msgspec.structs.fields(REQUESTS[op])}
    return {name: required for name, required in found.items() if name not in OF_A_REQUEST}


def test_every_op_is_described_and_no_other() -> None:
    taken = (
        session._RULEBOOK_OPS | session._READS | session._OWN_ASKS | session._OPERATOR_ASKS
        | {"sign_in", "ping", "resume", "quote"}
    )  # fmt: skip
    assert set(REQUESTS) == taken


@pytest.mark.parametrize("kind", [kind for kind in CommandKind if kind.word in REQUESTS], ids=lambda kind: kind.word)
def test_a_command_has_the_fields_that_are_taken(kind: CommandKind) -> None:
    required, optional = encode._FIELDS[kind]
    told = fields_of(kind.word)
    assert set(told) - OF_THE_GATEWAY.get(kind.word, set()) == {*required, *optional}
    left_out = {"account"} if kind.word != "account" else set()  # the gateway fills in the key's first
    left_out |= {"client_id"} if kind.word == "poison" else set()  # or a quote's
    assert {name for name, needed in told.items() if needed} == set(required) - left_out


def test_quotes_and_keys_have_the_fields_that_are_taken() -> None:
    assert {"op", *fields_of("quote")} == quotes._FIELDS
    assert set(restrictions.FIELDS) == set(fields_of("register_key")) - {"key", "accounts", "scopes", "label"}


def test_the_document_judges_requests() -> None:
    document = Registry().with_resource("urn:byline", Resource.opaque(protocol_document.document()))

    def check(name: str, request: dict[str, object]) -> None:
        schema = {"$ref": f"urn:byline#/components/schemas/Request{name}"}
        jsonschema.Draft202012Validator(schema, registry=document).validate(request)

    place = {"op": "place", "rid": 1, "market": "X-Y", "client_id": "a", "side": "buy", "type": "limit", "size": "1"}
    check("Place", place | {"price": "0.10"})
    for wrong in ({"price": 0.1}, {"side": "bid"}, {"op": "cancel"}, {"client_id": "a b"}, {"client_id": None}):
        with pytest.raises(jsonschema.ValidationError):
            check("Place", place | wrong)
    with pytest.raises(jsonschema.ValidationError):
        check("CancelAfter", {"op": "cancel_after"})
