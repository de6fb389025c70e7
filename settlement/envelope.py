"""What is in a downloaded file, which may be the whole answer of REST as `curl` leaves it: `success` and `data`."""

from __future__ import annotations

import msgspec

__all__ = ["unwrapped"]


def unwrapped(content: bytes, *fields: str) -> bytes:
    """The JSON of the file itself: of `data`, and of `fields` in it, if `content` is an answer; else `content`.

    ValueError: no JSON object, cut off for one; or an answer that is an error, with what it says.
    """
    try:
        whole = msgspec.json.decode(content, type=dict[str, msgspec.Raw])
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise ValueError(f"no JSON object: {error}") from error
    if "success" not in whole:
        return content
    if "data" not in whole:
        raise ValueError(f"the answer of a request that was refused: {bytes(whole.get('error', b''))[:300].decode()}")
    inner = bytes(whole["data"])
    for field in fields:
        try:
            inner = bytes(msgspec.json.decode(inner, type=dict[str, msgspec.Raw])[field])
        except (msgspec.MsgspecError, KeyError) as error:
            raise ValueError(f"an answer without {field!r}") from error
    return inner
