"""The process of the simulated traders: a market that lives, for whoever looks at an exchange for the first time."""

from __future__ import annotations

import asyncio

from byline.settings import Settings
from byline.status_file import StatusFile
from byline.trading_floor import trade

__all__ = ["run"]


async def run(settings: Settings, status: StatusFile, stop: asyncio.Event) -> None:
    await trade(settings, status, stop)
