"""What a loss of power does to the event log: nothing of it was ever synced, so any of it may be anything it once was.

The log is production's own, mapped files in a scratch directory; a running exchange writes to them past any disk of
ours. So the loss is done to the files while the exchange is down.
"""

from __future__ import annotations

import random
from pathlib import Path

__all__ = ["lose_events"]

PAGE = 4_096


def lose_events(directory: Path, draw: random.Random) -> None:
    """The power failed: by this draw all is there, all is gone, or pages of the event files are as they began."""
    paths = sorted((directory / "events").glob("*.events"))
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
