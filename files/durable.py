"""Files that are there whole or not at all, and names that are on disk before anybody counts on them.

    draft beside it ▸ write ▸ fsync ▸ rename (or link: the first one stays) ▸ fsync of the directory

Without the first fsync a file may come back empty under its right name, without the second it may not come back. What
may be lost, or is made anew by each start (a status, a request to a running process, a hint), is not written so: it
would wait for the disk. Why one place has this: docs/decisions/0078-whole-files-have-one-home.md.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from pathlib import Path

__all__ = ["keep_name", "make_directory", "make_once", "sync_directory", "write_whole"]


def write_whole(path: Path, data: bytes, *, mode: int = 0o644) -> None:
    """Put `data` at `path`, in place of what is there: old or new, never a part, and on disk on return.

    The directory must exist. One writer a path. `mode`: 0o600 for a secret.

    Raises:
        OSError: the disk refuses. What was there is untouched, or the new content is there and its name may be lost.
    """
    draft = path.with_name(f"{path.name}.new")
    draft.unlink(missing_ok=True)  # of a writer that died; its mode would stay, and a link be followed
    try:
        _write(draft, data, mode)
        os.rename(draft, path)
    finally:
        draft.unlink(missing_ok=True)
    sync_directory(path.parent)


def make_once(path: Path, data: bytes, *, mode: int) -> None:
    """As `write_whole`, but what is there already stays, and counts: of processes that begin together the first's.

    Raises:
        OSError: the disk refuses. Nothing is there, or the content with a name that may be lost.
    """
    draft = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    try:
        _write(draft, data, mode)
        with contextlib.suppress(FileExistsError):  # the other process was first
            os.link(draft, path)
    finally:
        draft.unlink(missing_ok=True)
    sync_directory(path.parent)


def keep_name(path: Path) -> None:
    """The name of a file, and that of its directory, are on disk on return: also where whoever made them died before.

    Raises:
        OSError: the disk refuses.
    """
    for directory in (path.parent, path.parent.parent):
        sync_directory(directory)


def make_directory(path: Path) -> None:
    """The directory, and those above it that are missing. The names of those that were made are on disk on return.

    Raises:
        OSError: the disk refuses. One without a sure name is taken away: if it stayed, the next to come would sync what
            is in it alone, and a loss of power would take both.
    """
    if path.is_dir():
        return
    make_directory(path.parent)
    path.mkdir(exist_ok=True)
    try:
        sync_directory(path.parent)
    except OSError:
        path.rmdir()
        raise


def sync_directory(path: Path) -> None:
    """Make the names in a directory durable: those that were made, renamed and removed.

    Raises:
        OSError: there is no such directory, or the disk refuses.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write(path: Path, data: bytes, mode: int) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
