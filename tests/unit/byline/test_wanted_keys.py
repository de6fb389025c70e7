"""A restored directory does not start without its keys."""

from pathlib import Path

import pytest

from byline.settings import load_settings
from byline.up import Exchange
from byline.wanted_keys import check_keys_wanted, note_keys_wanted
from engine.messages.errors import SettingsInvalid


async def test_a_restored_directory_waits_for_its_keys(tmp_path: Path) -> None:
    note_keys_wanted(tmp_path, ["keys/operator.key", "keys/columns.json"])
    (tmp_path / "keys" / "operator.key").write_text("x")
    exchange = Exchange(load_settings({}, data_directory=tmp_path))
    for _ in range(2):  # and again: the refusal leaves no lock behind
        with pytest.raises(SettingsInvalid, match=r"without keys/columns\.json: bring back yours") as refused:
            await exchange.__aenter__()
    assert str(tmp_path / "keys" / "wanted") in str(refused.value)
    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_file()) == ["lock", "operator.key", "wanted"]


def test_the_list_goes_when_all_are_there(tmp_path: Path) -> None:
    check_keys_wanted(tmp_path)
    note_keys_wanted(tmp_path, ["keys/columns.json"])
    (tmp_path / "keys" / "columns.json").write_text("{}")
    check_keys_wanted(tmp_path)
    assert not (tmp_path / "keys" / "wanted").exists()
