"""Fixtures for all tests."""

from tests.support.api import api_dsn, world
from tests.support.exchange import new_exchange
from tests.support.postgres import postgres_dsn, postgres_server

__all__ = ["api_dsn", "new_exchange", "postgres_dsn", "postgres_server", "world"]
