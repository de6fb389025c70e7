"""Fixtures for all tests."""

from tests.support.exchange import new_exchange
from tests.support.postgres import postgres_dsn, postgres_server

__all__ = ["new_exchange", "postgres_dsn", "postgres_server"]
