"""Fixtures for all tests, and how many processes run them.

`make test` gives whole files to one process more than there are cores (decisions 0034 and 0048). A process has its own
temporary folder and its own PostgreSQL; servers take free ports. A test must not look at what is outside of its own
process, folder and servers: beside it run others.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Generator
from pathlib import Path

import pytest

from tests.support.api import api_dsn, migrated_database, world
from tests.support.exchange import new_exchange
from tests.support.postgres import postgres_dsn, postgres_server

__all__ = ["api_dsn", "migrated_database", "new_exchange", "postgres_dsn", "postgres_server", "world"]


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int | None:
    """One more than there are cores, which it keeps busy while others wait for a batch, a retry or a server's end.
    0, in this process alone and with its output as it comes: for single files."""
    return len(os.sched_getaffinity(0)) + 1 if any(Path(argument).is_dir() for argument in config.args) else 0


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """What collection makes stays to the end: the garbage collector need not walk it, neither now nor later."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()
        gc.collect()
        gc.freeze()
