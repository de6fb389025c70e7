"""What the state hash is made of notices its own changes.

An entity in a table of the state puts its key on the state's list whenever one of its fields is set, and a table when
an entity comes or goes. Nobody has to remember to say what changed, so nothing can be forgotten, and the hash mixes
again only what is on the list (`digest.RunningHash`). Containers inside an entity do not notice what is done to them.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from functools import partial
from typing import Any, TypeVar

__all__ = ["Changes", "Key", "Noticed", "Rows", "Table"]

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

Key = tuple[int, Any]
"""The tag of docs/state-hash.md, and which entity of that kind."""

Changes = dict[Key, None]
"""In the order of the first change."""


class Noticed:
    """An entity. Until a table has it, its changes are nobody's concern."""

    _note: Callable[[], None] | None = None

    def __setattr__(self, name: str, value: object) -> None:
        self.__dict__[name] = value
        if self._note is not None:
            self._note()


def _notice(changes: Changes, key: Key, value: object) -> None:
    changes[key] = None
    if isinstance(value, Noticed):
        value.__dict__["_note"] = partial(changes.__setitem__, key, None)


class Table(dict[K, V]):
    """Entities by key. What it offers is what the state may use: other ways to change a dict go unnoticed."""

    def __init__(self, tag: int, changes: Changes) -> None:
        self._tag = tag
        self._changes = changes

    def __setitem__(self, key: K, value: V) -> None:
        super().__setitem__(key, value)
        _notice(self._changes, (self._tag, key), value)

    def __delitem__(self, key: K) -> None:
        super().__delitem__(key)
        self._changes[self._tag, key] = None

    def discard(self, key: K) -> None:
        """Without it from now on, if it was there."""
        if key in self:
            del self[key]


class Rows(list[V]):
    """Entities by index, never removed."""

    def __init__(self, tag: int, changes: Changes) -> None:
        self._tag = tag
        self._changes = changes

    def append(self, value: V) -> None:
        super().append(value)
        _notice(self._changes, (self._tag, len(self) - 1), value)
