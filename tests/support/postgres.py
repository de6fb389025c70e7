"""A real PostgreSQL for tests: one embedded server a test session, a fresh database a test."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import asyncpg
import pytest
import pytest_asyncio

from byline.embedded.postgres import EmbeddedPostgres

__all__ = ["postgres_dsn", "postgres_server"]


@pytest.fixture(scope="session")
def postgres_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedPostgres]:
    """A running server; stopped at the end of the session."""
    directory: Path = tmp_path_factory.mktemp("pg")
    server = EmbeddedPostgres(directory / "postgres")
    server.start()
    yield server
    server.stop()


@pytest_asyncio.fixture
async def postgres_dsn(postgres_server: EmbeddedPostgres) -> AsyncIterator[str]:
    """The address of an empty database, dropped after the test."""
    name = f"t{uuid.uuid4().hex}"
    connection = await asyncpg.connect(postgres_server.dsn)
    await connection.execute(f"CREATE DATABASE {name}")
    yield postgres_server.dsn.replace("/byline?", f"/{name}?")
    await connection.execute(f"DROP DATABASE {name} WITH (FORCE)")
    await connection.close()
