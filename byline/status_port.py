"""What the processes say of themselves, for the API's metrics. Fulfils `platform_api.ports.StatusPort`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from byline.status_file import read_all_statuses

__all__ = ["StatusFiles"]


class StatusFiles:
    """The status files of one data directory, read when asked for."""

    def __init__(self, data_directory: Path) -> None:
        self._data = data_directory

    def read(self) -> Mapping[str, Mapping[str, Any]]:
        return read_all_statuses(self._data)
