"""Requests made of the OpenAPI document, good and bad: no answer is our own failure, none has a status, a type or a
body that the document does not have, what breaks the schema is refused, and each route does what it is for at least
once.

A real server, PostgreSQL and core are asked, for things that are there: where a generated request names a work or a
licence, it names one of the caller's, two times of three, so that it gets behind the look-up of its route. Where none
of them was answered with 2xx, one that is made well is asked as the last: the document's example, with what the route
needs (`tests.support.every_sort`). Half of what is generated breaks the schema, where a route has one that can be
broken. `TEST_DOCUMENT_EXAMPLES` is how many requests each route gets at most; `TEST_DOCUMENT_SEED` makes others:
else they follow from the document alone, so that a change of it is what may fail.
"""

import asyncio
import json
import os
import threading
import zlib
from contextlib import suppress
from uuid import uuid4

import pytest
import requests
import schemathesis
import uvicorn
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis.errors import Unsatisfiable
from schemathesis.core.failures import FailureGroup
from schemathesis.core.parameters import ParameterLocation
from schemathesis.core.transport import Response
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from platform_api.app import openapi_document
from tests.support.api import opened
from tests.support.every_sort import EverySort, core_with_markets

CHECKS = [
    status_code_conformance, content_type_conformance, response_headers_conformance, response_schema_conformance,
    negative_data_rejection,
]  # fmt: skip
WAYS = ("GET", "PUT", "PATCH", "POST", "DELETE")
"""In this order: what is deleted has been asked for."""
EXAMPLES = int(os.environ.get("TEST_DOCUMENT_EXAMPLES", "7"))
SECONDS_MAX = 120  # a hang is a failure


class Door:
    """The API served on a port of loopback by a thread of its own, and the headers of somebody who may do much."""

    def __init__(self, dsn, directory):
        self.dsn, self.directory, self.ready, self.failure = dsn, directory, threading.Event(), None
        self.thread = threading.Thread(target=lambda: asyncio.run(self.serve()))
        self.session = requests.Session()
        self.proves = True

    async def serve(self):
        try:
            values = {
                "embedded": True, "test_payments": True, "catalogue_per_hour": 0, "royalty_hold_days": 0,
                "withdrawal_address_delay_seconds": 0, "faucet": {"USDC": "10000"}, "access_seconds": 80_000,
                "nonce_seconds": 80_000,
            }  # fmt: skip
            async with opened(self.dsn, core=core_with_markets(), **values) as world:
                self.things = EverySort(world, self.directory)
                self.bearer = await self.things.make()
                self.loop = asyncio.get_running_loop()
                config = uvicorn.Config(
                    world.app, port=0, log_level="critical", lifespan="off", access_log=False,
                    timeout_keep_alive=SECONDS_MAX,
                )  # fmt: skip
                self.server = uvicorn.Server(config)
                self.server.install_signal_handlers = lambda: None
                serving = asyncio.create_task(self.server.serve())
                while not self.server.started and not serving.done():
                    await asyncio.sleep(0.01)
                port = self.server.servers[0].sockets[0].getsockname()[1]
                self.url = f"http://127.0.0.1:{port}"
                self.ready.set()
                await serving
        except BaseException as error:
            self.failure = error
            self.ready.set()
            raise

    def __enter__(self):
        self.thread.start()
        assert self.ready.wait(SECONDS_MAX) and self.failure is None, self.failure
        return self

    def __exit__(self, *_):
        self.session.close()
        self.server.should_exit = True
        self.thread.join(SECONDS_MAX)

    def ask(self, method, send):
        """The answer to what `send` sends. Of writes each finds a fresh signature: a good one may spend it."""
        if method != "GET" and self.proves:
            asyncio.run_coroutine_threadsafe(self.things.proved(), self.loop).result(SECONDS_MAX)
            self.proves = False
        response = send()
        self.proves = self.proves or (method != "GET" and response.status_code < 300)
        return response

    def generated(self, case, turn):
        """A request of the document, of things that are there; each third stays as it was made, and so does the part
        of one that breaks the schema: its ids may be what does."""
        own = self.things.own.get(case.operation.label, {})
        ids = self.things.ids | {name: [id_] for name, id_ in own.get("json", {}).items() if name.endswith("_id")}
        broken = {place for place, part in case.meta.components.items() if part.mode.is_negative}
        if turn % 3 != 2:
            if ParameterLocation.PATH not in broken:
                for name in case.path_parameters or ():
                    case.path_parameters[name] = own.get("path", {}).get(name) or one_of(ids, name, turn)
            if ParameterLocation.QUERY not in broken:
                case.query = named(case.query, ids, turn)
            if ParameterLocation.BODY not in broken:
                case.body = named(case.body, ids, turn)
        headers = own.get("bearer", self.bearer)
        return self.ask(
            case.method,
            lambda: case.call(base_url=self.url, session=self.session, headers=headers, timeout=SECONDS_MAX),
        )

    def made_well(self, operation, document):
        """The example of the document, with what the route needs: the case and the answer."""
        method, path = operation.method.upper(), operation.path
        described = document["paths"][path][method.lower()]
        ids, own, parts, query = self.things.ids, self.things.own.get(operation.label, {}), {}, {}
        for parameter in described.get("parameters", []):
            name = parameter["name"]
            if parameter["in"] == "path":
                parts[name] = own.get("path", {}).get(name) or one_of(ids, name, 0)
            elif parameter["in"] == "query" and parameter.get("required"):
                query[name] = parameter["example"]
        headers = own.get("bearer", self.bearer) | {"idempotency-key": uuid4().hex} | own.get("headers", dict)()
        example = described.get("requestBody", {}).get("content", {}).get("application/json", {}).get("example")
        sent = {"data": own["content"]} if "content" in own else {"json": own.get("json", named(example, ids, 0))}
        response = self.ask(
            method,
            lambda: self.session.request(
                method, self.url + path.format(**parts), params=own.get("query", query), headers=headers,
                timeout=SECONDS_MAX, **sent,
            ),
        )  # fmt: skip
        return operation.Case(path_parameters=parts), response


def one_of(ids, name, turn):
    return ids[name][turn % len(ids[name])]


def named(value, ids, turn, key=""):
    """The same with ids that are there in place of those that are only of their form."""
    if isinstance(value, dict):
        return {name: named(inner, ids, turn, name) for name, inner in value.items()}
    if isinstance(value, list):
        return [named(inner, ids, turn, key.removesuffix("s")) for inner in value]
    is_id = key in ids and isinstance(value, str) and len(value) == 36
    return one_of(ids, key, turn) if is_id else value


@pytest.fixture(scope="module")
def door(api_dsn, tmp_path_factory):
    with Door(api_dsn, tmp_path_factory.mktemp("chain")) as door:
        yield door


def test_answers_are_as_the_document_says(door):
    document = openapi_document()
    chosen = int(os.environ.get("TEST_DOCUMENT_SEED", zlib.crc32(json.dumps(document, sort_keys=True).encode())))
    operations = operations_of(document)
    operations.sort(key=lambda operation: WAYS.index(operation.method.upper()))
    wrong, asked, broken = [], 0, 0
    for operation in operations:
        answers, failures, bad = ask_for(door, operation, document, chosen)
        asked, broken = asked + len(answers), broken + bad
        wrong += failures
        if not any(map(is_good, answers)):
            wrong.append(f"{operation.label} never did what it is for: {answers[-1].text}")
    assert not wrong, f"seed {chosen}\n\n" + "\n\n".join(wrong)
    assert asked > 100 * EXAMPLES
    assert broken >= 100 * ((EXAMPLES - 1) // 2)


def operations_of(document):
    schema = schemathesis.openapi.from_dict(document)
    schema.config.generation.update(with_security_parameters=False)  # the bearer would go over what they break
    return [found.ok() for found in schema.get_all_operations()]


class TakesAll:
    """A door behind which every route answers whatever comes as if it were good."""

    def generated(self, case, turn):
        request = requests.Request(case.method, "http://127.0.0.1/").prepare()
        good = b'{"success": true}'
        return Response(200, {"content-type": ["application/json"]}, good, request, elapsed=0.1, verify=True)


def test_a_route_that_takes_what_breaks_the_schema_is_found():
    document = openapi_document()
    operation = next(each for each in operations_of(document) if each.label == "POST /v1/orders/estimate")
    answers, failures, broken = ask_for(TakesAll(), operation, document, 7)
    assert all(map(is_good, answers)) and broken >= 3
    assert sum("Invalid data should have been rejected" in failure for failure in failures) == broken


def ask_for(door, operation, document, chosen):
    """The answers of one route, to requests that are generated and, if none was good, one that is made well; what in
    them is not as the document says; and how many requests broke the schema."""
    answers, failures = [], []

    def check(case, response):
        answers.append(response)
        try:
            assert response.status_code < 500, response.text
            case.validate_response(response, checks=CHECKS)
        except (FailureGroup, AssertionError) as error:  # raised here, it would be asked once more
            failures.append(f"{operation.label}: {error}"[:1500])

    def generate(mode, count):
        @seed(chosen)
        @given(case=operation.as_strategy(mode))
        @settings(
            max_examples=count, database=None, deadline=None, phases=[Phase.explicit, Phase.generate],
            suppress_health_check=list(HealthCheck),
        )  # fmt: skip
        def generated(case):
            check(case, door.generated(case, len(answers)))

        if count:
            generated()

    with suppress(Unsatisfiable):  # nothing of it can be broken
        generate(GenerationMode.NEGATIVE, (EXAMPLES - 1) // 2)
    broken = len(answers)
    generate(GenerationMode.POSITIVE, EXAMPLES - 1 - broken)
    if not any(map(is_good, answers)):
        check(*door.made_well(operation, document))
    return answers, failures, broken


def is_good(answer):
    return 200 <= answer.status_code < 300
