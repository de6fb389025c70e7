"""A command asks a running process by a file, DATA/run/NAME.request; the process answers by NAME.done beside it."""

from __future__ import annotations

import logging
import time
from pathlib import Path

from engine.messages.errors import Unavailable

__all__ = ["RequestFile"]

logger = logging.getLogger(__name__)

POLL_S = 0.05


class RequestFile:
    """One name, seen from both sides. Both files are written whole: nobody reads the half of one."""

    def __init__(self, data_directory: Path, name: str) -> None:
        self._request = data_directory / "run" / f"{name}.request"
        self._done = self._request.with_suffix(".done")

    def ask(self, text: str, *, wait_s: float, unanswered: str) -> str:
        """The answer of who serves it. Raises Unavailable with `unanswered`: there was none in `wait_s` seconds."""
        self._done.unlink(missing_ok=True)
        _put(self._request, text)
        deadline = time.monotonic() + wait_s
        while not self._done.exists():
            if time.monotonic() > deadline:
                self._request.unlink(missing_ok=True)
                raise Unavailable(unanswered)
            time.sleep(POLL_S)
        answer = self._done.read_text()
        self._done.unlink()
        return answer

    def asked(self) -> str | None:
        """What is asked now; None if nothing is."""
        try:
            return self._request.read_text()
        except FileNotFoundError:
            return None

    def answer(self, text: str) -> None:
        """Where the disk takes no answer, who asked waits in vain; who serves goes on."""
        try:
            self._request.unlink(missing_ok=True)
            _put(self._done, text)
        except OSError as error:
            logger.error("event=not_answered request=%s error=%s", self._request.name, error)


def _put(path: Path, text: str) -> None:
    partial = path.with_suffix(f"{path.suffix}.partial")
    partial.write_text(text)
    partial.replace(path)
