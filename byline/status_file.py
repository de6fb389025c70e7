"""What each process says of itself: DATA/run/NAME.json, replaced whole, read by the supervisor and `byline status`."""

from __future__ import annotations

import json
import logging
import os
import time
from pathlib import Path
from typing import Any

__all__ = ["StatusFile", "read_all_statuses", "read_status"]

logger = logging.getLogger(__name__)


class StatusFile:
    """The status of this process. One writer a name; readers see the old or the new content, never a mixture.

    A status that cannot be written is logged once and left: `written_at` of the last one tells its age.
    """

    def __init__(self, data_directory: Path, name: str) -> None:
        self._path = data_directory / "run" / f"{name}.json"
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._started_at = time.time()
        self._values: dict[str, Any] = {}
        self._is_failing = False
        self.name = name

    def write(self, *, ready: bool, **values: Any) -> None:
        """Replaces the status. `values` must be JSON; `pid` and times are added."""
        self._values = values
        content = {"name": self.name, "pid": os.getpid(), "ready": ready, "started_at": self._started_at}
        content |= {"written_at": time.time(), **values}
        partial = self._path.with_suffix(".partial")
        try:
            partial.write_text(json.dumps(content))
            partial.replace(self._path)
        except OSError as error:  # a full disk: what the process does is worth more than what it says of itself
            if not self._is_failing:
                logger.error("event=status_not_written process=%s error=%s", self.name, error)
            self._is_failing = True
        else:
            self._is_failing = False

    def close(self) -> None:
        """Says that the process is going, and leaves its last numbers for whoever looks afterwards."""
        self.write(ready=False, **self._values)


def read_status(data_directory: Path, name: str) -> dict[str, Any] | None:
    """The last status that `name` wrote, or None. The process may have died since: compare `pid`."""
    try:
        status: dict[str, Any] = json.loads((data_directory / "run" / f"{name}.json").read_text())
    except FileNotFoundError:
        return None
    return status


def read_all_statuses(data_directory: Path) -> dict[str, dict[str, Any]]:
    """The statuses of all processes by name, with `alive` added."""
    statuses = {}
    for path in sorted((data_directory / "run").glob("*.json")):
        status = read_status(data_directory, path.stem)
        if status is not None:
            statuses[path.stem] = status | {"alive": _is_alive(int(status["pid"]))}
    return statuses


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
