"""What `byline up` says, and how it goes when it is not up yet."""

import asyncio
import os
import signal
import socket
import subprocess
import sys

import pytest

from byline.status_file import read_status
from byline.up import _without_password
from tests.support.exchange import descendants
from tests.support.waiting import has_ended, until


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("postgresql://byline:s3cr:t/@db:5432/byline?sslmode=require", "postgresql://byline:***@db:5432/byline?sslmode=require"),
        ("postgresql://db/byline?user=byline&password=s3cret&x=1", "postgresql://db/byline?user=byline&password=***&x=1"),
        ("postgresql://byline@/byline?host=/run/pg&port=5433", "postgresql://byline@/byline?host=/run/pg&port=5433"),
    ],
)  # fmt: skip
def test_addresses_tell_no_password(url, told):
    assert _without_password(url) == told


async def test_whoever_ends_a_start_that_waits_for_a_database_waits_no_longer(tmp_path):
    data = tmp_path / "data"
    argv = [sys.executable, "-m", "byline.cli", "up", "--data", str(data), "--free-ports", "--quiet-market"]
    with socket.create_server(("127.0.0.1", 0)) as mute:  # a database that takes connections and says nothing
        url = f"postgresql://byline@127.0.0.1:{mute.getsockname()[1]}/byline"
        environment = os.environ | {"BYLINE_POSTGRES_URL": url, "BYLINE_KEY_FILE": str(tmp_path / "key")}
        process = subprocess.Popen(argv, env=environment, stdout=subprocess.PIPE, text=True)
        try:
            await until(lambda: (read_status(data, "core") or {}).get("ready"), what="the core")
            below = descendants(process.pid)
            process.send_signal(signal.SIGTERM)
            said, _ = await asyncio.to_thread(process.communicate)
        finally:
            process.kill()
    assert process.returncode == 0 and "stopped before it was up" in said, said
    assert len(below) >= 2 and all(map(has_ended, below))
