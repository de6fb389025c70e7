"""Market data as it goes over the wire, taken apart."""

from __future__ import annotations

from typing import Any

import msgspec

__all__ = ["messages_of"]


def messages_of(frames: bytes) -> list[dict[str, Any]]:
    """The messages of whole unmasked text frames; anything else among them is a failure."""
    messages, at = [], 0
    while at < len(frames):
        assert frames[at] == 0x81
        size, at = frames[at + 1], at + 2
        if size >= 126:
            width = 2 if size == 126 else 8
            size, at = int.from_bytes(frames[at : at + width], "big"), at + width
        messages.append(msgspec.json.decode(frames[at : at + size]))
        at += size
    return messages
