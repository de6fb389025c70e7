"""Whose address counts behind a proxy, over uvicorn as the exchange starts it: the settings name who is one."""

import asyncio
import contextlib
import json
import socket

import httpx
import pytest
import uvicorn
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from byline.processes.api import uvicorn_config
from byline.settings import load_settings

pytestmark = pytest.mark.parametrize("world", [{"public_per_minute": 1}], indirect=True)
NONE_OF_THEM, AMONG_THEM = ("", "192.0.2.1,10.0.0.0/8"), ("127.0.0.1", "192.0.2.1, 127.0.0.0/8")
FIRST, SECOND = ({"x-forwarded-for": f"203.0.113.{number}"} for number in (1, 2))
FORGED = {"x-forwarded-for": "198.51.100.7, 203.0.113.1"}
"""A client at the first address says that it is elsewhere; the proxy appends where it is."""


@contextlib.asynccontextmanager
async def served(world, **settings):
    """A client without a proxy of its own, and the port."""
    config = uvicorn_config(world.app, load_settings({}, **settings))
    config.lifespan = "off"  # the world has opened the database
    server = uvicorn.Server(config)
    server.capture_signals = contextlib.nullcontext
    listener = socket.create_server(("127.0.0.1", 0))
    task = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        while not server.started:
            await asyncio.sleep(0.01)
        port = listener.getsockname()[1]
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client:
            yield client, port
    finally:
        server.should_exit = True
        await task


@pytest.mark.parametrize(
    ("proxies", "statuses"),
    [*((each, [200, 429, 429]) for each in NONE_OF_THEM), *((each, [200, 200, 429]) for each in AMONG_THEM)],
)
async def test_the_header_counts_if_a_proxy_of_the_settings_sent_it(world, proxies, statuses, monkeypatch):
    monkeypatch.setenv("FORWARDED_ALLOW_IPS", "*")  # uvicorn's own variable, which is none of our settings
    async with served(world, trusted_proxies=proxies) as (client, _):
        asked = [await client.get("/v1/time", headers=headers) for headers in (FIRST, SECOND, FORGED)]
        assert [answer.status_code for answer in asked] == statuses


@pytest.mark.parametrize(("proxies", "taken"), [(NONE_OF_THEM[0], 1), (AMONG_THEM[0], 2)])
async def test_readers_of_the_event_socket_are_told_apart_alike(world, proxies, taken):
    async with served(world, trusted_proxies=proxies) as (_, port), contextlib.AsyncExitStack() as readers:
        answers = 0
        for headers in (FIRST, SECOND):
            opening = connect(f"ws://127.0.0.1:{port}/v1/ws", additional_headers=headers, proxy=None)
            reader = await readers.enter_async_context(opening)
            with contextlib.suppress(ConnectionClosed):  # of one that is too many
                await reader.send('{"type":"ping"}')
                answers += json.loads(await reader.recv())["type"] == "pong"
        assert answers == taken
