"""What a loss of power does to what production maps: the event log, and the journal's mark.

These are production's own files, in a scratch directory; a running exchange writes to them past any disk of ours. So
the loss is done to the files while the exchange is down: but for the files that the event log's mark names, any of it
may be as it once was. A kill leaves them as they are.
"""

from __future__ import annotations

import random
from pathlib import Path

from persistence.event_log import file_name
from persistence.event_mark import read_mark
from persistence.journal import MARK

__all__ = ["lose_events", "lose_mark"]

PAGE = 4_096


def lose_events(directory: Path, draw: random.Random) -> None:
    """The power failed: by this draw all is there, all is gone, or pages of the event files are as they began."""
    mark = read_mark(directory / "events")
    synced = {file_name(mark.generation, number) for number in range(len(mark.sums))} if mark is not None else set()
    paths = [path for path in sorted((directory / "events").glob("*.events")) if path.name not in synced]
    chance = draw.choice([0.0, 0.2, 0.8, 1.0])
    for path in paths if chance else ():
        if chance == 1.0 and draw.random() < 0.5:
            path.unlink()
            continue
        with path.open("r+b") as file:
            for page in range(path.stat().st_size // PAGE):
                if draw.random() < chance:
                    file.seek(page * PAGE)
                    file.write(bytes(PAGE))


def lose_mark(directory: Path, draw: random.Random) -> None:
    """The power failed: the journal's mark, never synced, is as it stands, as it once was, or gone."""
    path = directory / MARK
    kind = draw.choice(["stands", "was", "was", "zeros", "gone"])
    if kind == "stands" or not path.exists():
        return
    if kind == "gone":
        path.unlink()
        return
    with path.open("r+b") as file:
        last = int.from_bytes(file.read(8), "little")
        file.seek(0)
        file.write(bytes(PAGE) if kind == "zeros" else draw.randrange(last + 1).to_bytes(8, "little"))
