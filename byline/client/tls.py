"""How `ssl` arguments of the clients reach the websocket library."""

from __future__ import annotations

from ssl import SSLContext
from typing import Any

__all__ = ["tls_options"]


def tls_options(context: SSLContext | None) -> dict[str, Any]:
    """Nothing for None: then `wss://` has the default context, and `ws://` none. An explicit None is refused there."""
    return {} if context is None else {"ssl": context}
