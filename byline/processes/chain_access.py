"""The chain that an exchange settles on, opened: a network's node, or the embedded one of its data directory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from byline.processes.operator_key import operator_key
from byline.rights_port import ChainRights
from byline.settings import CHAIN_HOST, Settings
from byline.status_file import read_status
from engine.messages.errors import Unavailable
from settlement.chain.admin import SuiAdmin
from settlement.chain.signer import ExternalSigner
from settlement.chain.sui import SuiChain, SuiSettings
from settlement.store import listings

__all__ = ["open_chain", "open_rights"]


async def open_chain(settings: Settings, scratch: Path, url: str = "", purse: Any = None) -> tuple[Any, Any]:
    """The chain of the settings, or the node at `url`; and its signer: the settings' program, or the sealed key.

    `purse`: see SuiChain.
    """
    signer = await ExternalSigner.start(settings.chain_signer) if settings.chain_signer else operator_key(settings)
    own = SuiSettings(
        url=url or _chain_url(settings), config_directory=scratch, package=settings.chain_package,
        vault=_open_vault(settings), coin_types=settings.coin_types(), publish_test_coins=not settings.chain_url,
    )  # fmt: skip
    return SuiAdmin(own, signer, purse), signer


def open_rights(settings: Settings, scratch: Path, signer: Any, purse: Any) -> Any:
    """Copyrights and licences on the chain, signed by `signer`, paid beside the purse's others; connects at the first
    use."""

    def connected() -> SuiChain:
        package, vault = settings.chain_package, _open_vault(settings)
        own = SuiSettings(url=_chain_url(settings), config_directory=scratch, package=package, vault=vault)
        return SuiChain(own, signer, purse)

    return ChainRights(connected)


def _chain_url(settings: Settings) -> str:
    if settings.chain_url:
        return settings.chain_url
    status = read_status(settings.data_directory, "chain")
    if not status or "port" not in status:
        raise Unavailable("the embedded node has not started yet")
    return f"http://{CHAIN_HOST}:{status['port']}"


def _open_vault(settings: Settings) -> str:
    """One of the vaults that are open; empty: none is yet."""
    known = listings(settings.data_directory / "settlement" / "batches.log")
    return next((listing.vault for listing in known.values()), "")
