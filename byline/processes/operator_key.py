"""The key that signs for the exchange on the chain, sealed in its file."""

from __future__ import annotations

from pathlib import Path

from byline.settings import Settings
from settlement.chain.keys import OperatorKey
from settlement.chain.sealed_key import KeyLock

__all__ = ["key_lock", "operator_key"]


def operator_key(settings: Settings) -> OperatorKey:
    """The sealed key of the data directory, or of the settings; made if it is missing."""
    given = Path(settings.chain_key).expanduser() if settings.chain_key else None
    path = given or settings.data_directory / "chain" / "operator.key"
    return OperatorKey.load_or_create(path, key_lock(settings))


def key_lock(settings: Settings) -> KeyLock:
    """What opens sealed keys."""
    return KeyLock(settings.key_passphrase, Path(settings.key_file).expanduser() if settings.key_file else None)
