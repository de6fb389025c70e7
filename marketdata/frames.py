"""Whole websocket frames of a server: not masked, so the same bytes do for every reader."""

from __future__ import annotations

__all__ = ["binary_frame", "text_frame"]


def _frame(opcode: bytes, payload: bytes) -> bytes:
    size = len(payload)
    if size < 126:
        return opcode + size.to_bytes(1, "big") + payload
    if size < 65_536:
        return opcode + b"\x7e" + size.to_bytes(2, "big") + payload
    return opcode + b"\x7f" + size.to_bytes(8, "big") + payload


def text_frame(payload: bytes) -> bytes:
    """A complete text frame."""
    return _frame(b"\x81", payload)


def binary_frame(payload: bytes) -> bytes:
    """A complete binary frame."""
    return _frame(b"\x82", payload)
