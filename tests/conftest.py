"""Fixtures for all tests, and how many processes run them.

`make test` gives whole files to as many processes as there are cores (decision 0034). A process has its own temporary
folder and its own PostgreSQL; servers take free ports. A test must not look at what is outside of its own process,
folder and servers: beside it runs another.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.api import api_dsn, world
from tests.support.exchange import new_exchange
from tests.support.postgres import postgres_dsn, postgres_server

__all__ = ["api_dsn", "new_exchange", "postgres_dsn", "postgres_server", "world"]


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int | None:
    """None: as many as there are cores. 0, in this process alone and with its output as it comes: for single files."""
    return None if any(Path(argument).is_dir() for argument in config.args) else 0
