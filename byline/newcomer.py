"""`byline trader`: an account with test money and an API key, so that a newcomer trades a minute after `make run`."""

from __future__ import annotations

import asyncio
from pathlib import Path

from byline.genesis import QUOTE, TOKENS
from byline.operator import gateway_url, open_operator, send_all
from byline.settings import Settings
from byline.trading_floor import kept_key, register
from engine.messages.errors import Refused

__all__ = ["open_trader"]

TEST_MONEY = {QUOTE: "100000", **{token.symbol: "1000" for token in TOKENS}}


def open_trader(settings: Settings, name: str) -> tuple[str, str, Path]:
    """Opens `user:NAME`, gives it test money once, and registers its key.

    Returns the account, the address of order entry and the file of the private key.

    Raises:
        Refused: the chain is a real network, where money comes from deposits; or the name breaks its rule.
        Unavailable: no exchange runs on the data directory.
    """
    if settings.chain_url:
        raise Refused("test money exists on the embedded chain only; on a network, deposit to the vault")
    return asyncio.run(_open(settings, name))


async def _open(settings: Settings, name: str) -> tuple[str, str, Path]:
    account = f"user:{name}"
    commands: list[dict[str, object]] = [{"op": "account", "account": account}]
    for asset, amount in TEST_MONEY.items():
        ref = f"test:{account}:{asset}"
        commands.append({"op": "deposit", "account": account, "asset": asset, "amount": amount, "ref": ref})
    async with open_operator(settings) as operator:
        await send_all(operator, commands)
    key = kept_key(settings.data_directory, f"trader-{name}")
    await register(settings, {account: key}, "trader")
    return account, gateway_url(settings), settings.data_directory / "keys" / f"trader-{name}.key"
