"""Which processes there are, and how the shards of market data are named.

Market data can be several processes: `marketdata` and its shards `marketdata_2` … are feed A, `marketdata_b` … feed B.
"""

from __future__ import annotations

import re

__all__ = ["PROCESSES", "feed_and_shard", "kind_of"]

PROCESSES = ("core", "chain", "postgres", "backoffice", "marketdata", "api", "traders", "relay", "backup")
"""Kinds of process: each is a file beside this one."""
_MARKETDATA = re.compile(r"(marketdata(?:_b)?)(?:_([2-9]|1[0-6]))?")
"""Feed and number of the shard."""


def kind_of(name: str) -> str | None:
    """The kind of the process `name`; None if no process is called so."""
    kind = "marketdata" if _MARKETDATA.fullmatch(name) else name
    return kind if kind in PROCESSES else None


def feed_and_shard(name: str) -> tuple[str, str | None]:
    """Of a process of market data: the name of its feed's first process, and the shard's number, None in the first."""
    named = _MARKETDATA.fullmatch(name)
    assert named is not None
    return named[1], named[2]
