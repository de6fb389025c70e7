"""`byline status` on what processes wrote of themselves: a process that has stopped writing is not called up."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from byline.settings import load_settings
from byline.status_file import StatusFile
from byline.status_table import SILENT_S, settlement_waits, show_status


@pytest.mark.parametrize(
    ("changes", "shown", "code"),
    [({}, " up ", 0), ({"written_at": -SILENT_S - 5}, "figures are old", 1), ({"ready": False}, "starting", 1)],
    ids=["up", "silent", "starting"],
)
def test_a_process_that_wrote_nothing_for_long_is_silent(
    tmp_path: Path, capsys: Any, changes: dict[str, Any], shown: str, code: int
) -> None:
    StatusFile(tmp_path, "backup").write(ready=True, segments=3)
    path = tmp_path / "run" / "backup.json"
    written = json.loads(path.read_text())
    if "written_at" in changes:
        changes = {"written_at": written["written_at"] + changes["written_at"]}
    path.write_text(json.dumps(written | changes))
    console = Console(width=200)
    assert show_status(load_settings({}, data_directory=tmp_path), console=console, once=True, as_json=False) == code
    told = capsys.readouterr().out
    assert shown in told and "segments 3" in told


@pytest.mark.parametrize("field", ["chain_error", "sealing_waits", "backup_waits"])
def test_what_settlement_waits_for_is_shown(tmp_path: Path, capsys: Any, field: str) -> None:
    waits = dict.fromkeys(("chain_error", "sealing_waits", "backup_waits"), "")
    settlement = {"final_batch": 3, "pending_batches": 2, "chain": "embedded", "executor": "model", "halted": ""}
    projection = {"sequence": 7, "lag": 0, "last_error": ""}
    StatusFile(tmp_path, "backoffice").write(
        ready=True, projection=projection, settlement=settlement | waits | {field: "it is away"}
    )
    show_status(load_settings({}, data_directory=tmp_path), console=Console(width=200), once=True, as_json=False)
    assert ": it is away" in capsys.readouterr().out


def test_each_reason_why_settlement_waits_is_told() -> None:
    well = {"halted": "", "chain_error": "", "sealing_waits": "", "backup_waits": ""}
    assert settlement_waits(well) == settlement_waits({}) == []
    waits = well | {"chain_error": "NOT_FOUND: object 0x82b8", "backup_waits": "away"}
    assert settlement_waits(waits) == ["chain: NOT_FOUND: object 0x82b8", "backup: away"]
    assert settlement_waits(well | {"halted": "batch 7"}) == ["HALTED: batch 7"]
