"""Requests made of the OpenAPI document alone, good and bad: no answer is our own failure, none has a status, a type or
a body that the document does not have.

A real server, PostgreSQL and core are asked. `BYLINE_DOCUMENT_EXAMPLES` is how many requests each route gets at most;
`BYLINE_DOCUMENT_SEED` makes others: else they follow from the document alone, so that a change of it is what may fail.
"""

import asyncio
import json
import os
import threading
import zlib

import pytest
import schemathesis
import uvicorn
from hypothesis import HealthCheck, Phase, given, seed, settings
from schemathesis.core.failures import FailureGroup
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from platform_api.app import openapi_document
from tests.integration.platform_api.test_works import creator
from tests.support.api import opened
from tests.support.real_core import RealCore

CHECKS = [
    status_code_conformance, content_type_conformance, response_headers_conformance, response_schema_conformance,
]  # fmt: skip
AWAY = {("POST", "/v1/deposits"): 503}
"""Right where a route asks for a part that this world lacks: the chain."""
EXAMPLES = int(os.environ.get("BYLINE_DOCUMENT_EXAMPLES", "10"))
SECONDS_MAX = 120  # a hang is a failure


class Door:
    """The API served on a port of loopback by a thread of its own, and the headers of somebody who may do much."""

    def __init__(self, dsn):
        self.dsn, self.ready, self.failure = dsn, threading.Event(), None
        self.thread = threading.Thread(target=lambda: asyncio.run(self.serve()))

    async def serve(self):
        try:
            core = RealCore()
            core.send(op="asset", asset="USDC", scale=6, settled=True)
            values = {"embedded": True, "test_payments": True, "catalogue_per_hour": 0}
            async with opened(self.dsn, core=core, **values) as world:
                await world.sql("INSERT INTO exchange.asset VALUES (900, 'USDC', 6, true) ON CONFLICT DO NOTHING")
                _, account, self.bearer = await creator(world, "Document")
                for role in ("moderator", "admin", "studio"):
                    await world.grant(account, role)
                config = uvicorn.Config(world.app, port=0, log_level="critical", lifespan="off", access_log=False)
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
        self.server.should_exit = True
        self.thread.join(SECONDS_MAX)


@pytest.fixture(scope="module")
def door(api_dsn):
    with Door(api_dsn) as door:
        yield door


def test_answers_are_as_the_document_says(door):
    document = openapi_document()
    chosen = int(os.environ.get("BYLINE_DOCUMENT_SEED", zlib.crc32(json.dumps(document, sort_keys=True).encode())))
    schema = schemathesis.openapi.from_dict(document)
    wrong, asked = [], 0
    for operation in schema.exclude(path="/v1/auth/logout").get_all_operations():  # it would end the asking session
        operation = operation.ok()

        @seed(chosen)
        @given(case=operation.as_strategy())
        @settings(
            max_examples=EXAMPLES, database=None, deadline=None,
            phases=[Phase.explicit, Phase.generate], suppress_health_check=list(HealthCheck),
        )  # fmt: skip
        def answers(case):
            nonlocal asked
            asked += 1
            response = case.call(base_url=door.url, headers=dict(door.bearer), timeout=SECONDS_MAX)
            away = AWAY.get((case.method.upper(), case.operation.path))
            assert response.status_code < 500 or response.status_code == away, response.text
            case.validate_response(response, checks=CHECKS)

        try:
            answers()
        except (FailureGroup, AssertionError) as error:
            wrong.append(f"{operation.label}: {error}"[:1500])
    assert not wrong, f"seed {chosen}\n\n" + "\n\n".join(wrong)
    assert asked > 100 * EXAMPLES
