"""How many times the core of a data directory was started: it stands in what clients sign, so that an order of a
connection that is lost never looks like one of a connection to come.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from engine.messages.errors import JournalCorrupt
from files.durable import write_whole
from gateway.pulls import epoch_of

__all__ = ["next_epoch", "used_epochs"]


def next_epoch(data: Path, used: int = 0) -> int:
    """How many times the core of this data directory was started; it stands in what clients sign. Durable on return.

    It is greater than `used`: an order of a connection that is lost must never look like one of a connection to come.

    Raises:
        JournalCorrupt: the file is there and says nothing.
    """
    path = data / "keys" / "epoch"
    text = path.read_text(errors="replace").strip() if path.exists() else "0"
    if not (text.isascii() and text.isdigit()):
        raise JournalCorrupt(
            f"{path}: holds no number: put back the copy of the backup, or write one greater than it can ever have been"
        )
    epoch = max(int(text), used) + 1
    write_whole(path, f"{epoch}\n".encode())
    return epoch


def used_epochs(recovered: Any) -> int:
    """The last epoch that an open order was placed in, if the count beside this journal may be an older one, or lost.

    That is so where the event log is not of this journal's last life: after a restore, or on another machine.
    """
    return epoch_of(recovered.core.open_orders()) if recovered.report.events_rebuilt else 0
