"""Operating errors: the network, a store or a peer failed. A refused command is no error but a RejectCode.

    ExchangeError
    ├── LocalFault            ours: the machine, its disk, its settings
    │   ├── JournalFailed     a write or fdatasync failed; the core stops acknowledging for good
    │   ├── JournalCorrupt    the journal holds something that is no valid prefix
    │   ├── DataDirectoryBusy another process holds the data directory
    │   ├── SettingsInvalid   a setting breaks its rule
    │   └── PartMissing       a binary or wheel that this machine does not have
    └── RemoteFault           a peer: database, chain, client
        ├── Unavailable       not reachable now; trying again may help
        ├── OutcomeUnknown    the request may or may not have taken effect: ask before trying again
        └── Refused           a definite no; trying the same again will not help

A broken invariant is neither: it is an AssertionError, nobody catches it, and the process stops.
"""

from __future__ import annotations

__all__ = [
    "DataDirectoryBusy",
    "ExchangeError",
    "JournalCorrupt",
    "JournalFailed",
    "LocalFault",
    "OutcomeUnknown",
    "PartMissing",
    "Refused",
    "RemoteFault",
    "SettingsInvalid",
    "Unavailable",
]


class ExchangeError(Exception):
    """Root of the tree. `retry` says whether the same call may succeed later."""

    retry = False


class LocalFault(ExchangeError):
    """Ours."""


class JournalFailed(LocalFault):
    """A write or fdatasync failed. Final: an fsync error is never retried."""


class JournalCorrupt(LocalFault):
    """The journal is no valid prefix. The message names segment, offset, sequence and what differs."""


class DataDirectoryBusy(LocalFault):
    """Another process holds the lock of the data directory."""


class SettingsInvalid(LocalFault):
    """A setting breaks its rule. The message names the setting and the rule."""


class PartMissing(LocalFault):
    """A part that this machine lacks. The message says how to get it, and what is used instead."""


class RemoteFault(ExchangeError):
    """A peer's."""


class Unavailable(RemoteFault):
    """Not reachable now."""

    retry = True


class OutcomeUnknown(RemoteFault):
    """The request may have taken effect. Ask by its id before sending anything else."""


class Refused(RemoteFault):
    """A definite no."""
