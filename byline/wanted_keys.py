"""Keys that a restored directory lacks: no backup has them, and made anew they open nothing of what there was.

`byline restore` writes their names to DATA/keys/wanted; `byline up` refuses to start while one of them is missing, and
takes the list away once all are there. Who has lost them for good removes the list: then new ones are made.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from engine.messages.errors import SettingsInvalid
from files.durable import make_directory, write_whole

__all__ = ["CHAIN_KEY", "EXCHANGE_KEYS", "check_keys_wanted", "note_keys_wanted"]

LIST = "keys/wanted"
CHAIN_KEY = "chain/operator.key"
EXCHANGE_KEYS = {
    "keys/operator.key": "signs in the operator, who registers keys and opens accounts: this command line",
    "keys/receipts.key": "signs the receipts of order entry",
    "keys/proofs.key": "hides names in proofs and in the published journal",
    "keys/access-token.key": "signs the access tokens of REST",
    "keys/columns.json": "opens the sealed columns of people's data",
    CHAIN_KEY: "signs batches for the chain; sealed itself, see BYLINE_KEY_FILE",
}
"""The exchange's own, below the data directory, and what each is for."""


def note_keys_wanted(data: Path, paths: Sequence[str]) -> None:
    """`paths` below `data`, which are not there. On disk on return."""
    make_directory((data / LIST).parent)
    write_whole(data / LIST, "".join(f"{path}\n" for path in paths).encode())


def check_keys_wanted(data: Path) -> None:
    """Raises SettingsInvalid while one is missing."""
    if not (data / LIST).exists():
        return
    lacking = [path for path in (data / LIST).read_text().split() if not (data / path).exists()]
    if lacking:
        raise SettingsInvalid(
            f"{data} was restored without {', '.join(lacking)}: bring back yours, or, if they are lost for good, "
            f"remove {data / LIST}, and new ones are made, which open nothing that is sealed"
        )
    (data / LIST).unlink()
