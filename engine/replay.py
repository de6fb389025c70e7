"""The replay door: commands as JSON lines in, events as JSON lines out, through the core or the reference.

Rulebook, section 6. Every line takes a sequence; one that is no valid command is answered by `rejected malformed` and
the run goes on. Nothing is kept but what the core keeps, so a file of any length replays in bounded memory.

    core = Core()                      # or ReferenceCore()
    with open(path, "rb") as lines:
        for text in replay(lines, core=core, state_hash=True):
            print(text)

An invariant that breaks is an AssertionError and ends the run. Worst case: what the core's own is.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol

import msgspec
import numpy as np

from engine.limits import CoreLimits
from engine.messages.decode import EventDecoder
from engine.messages.directory import Directory
from engine.messages.encode import CommandEncoder, Malformed

__all__ = ["PROGRESS_EVERY", "ReplayCore", "open_core", "replay", "replay_events"]

PROGRESS_EVERY = 1_000
"""Lines between two calls of the progress callback."""


Refused = Callable[[int, str], None]
"""Takes the number of a malformed line, from 1, and what is wrong with it: `field: rule`, or what JSON is broken."""


class ReplayCore(Protocol):
    """What the door needs of a core: engine.core.Core and engine.reference.ReferenceCore have it."""

    @property
    def sequence(self) -> int: ...
    def apply(self, record: bytearray) -> np.ndarray: ...
    def state_hash(self) -> bytes: ...


def open_core(*, reference: bool = False, limits: CoreLimits | None = None) -> ReplayCore:
    """An empty core, or with `reference` its plain-Python twin."""
    if reference:
        from engine.reference import ReferenceCore

        return ReferenceCore(limits)
    from engine.core import Core

    return Core(limits)


def replay(
    lines: Iterable[bytes | str],
    *,
    core: ReplayCore,
    state_hash: bool = False,
    progress: Callable[[int], None] | None = None,
    refused: Refused | None = None,
) -> Iterator[str]:
    """The events of the commands as JSON lines, without line ends.

    lines: one JSON object each, with or without its line end. An empty line is a line: malformed.
    core: an empty core. It is left in the state after the last line, its `sequence` being the number of commands.
    state_hash: adds a last line {"sequence", "state_hash"}.
    progress: called with the number of commands so far, every PROGRESS_EVERY and at the end.
    refused: called for each malformed line, before its event.
    """
    encode = msgspec.json.Encoder().encode
    for events in replay_events(lines, core=core, progress=progress, refused=refused):
        for event in events:
            yield encode(event).decode()
    if state_hash:
        yield encode({"sequence": core.sequence, "state_hash": core.state_hash().hex()}).decode()


def replay_events(
    lines: Iterable[bytes | str],
    *,
    core: ReplayCore,
    progress: Callable[[int], None] | None = None,
    refused: Refused | None = None,
) -> Iterator[list[dict[str, Any]]]:
    """The events of each command as JSON objects, one list a command."""
    if core.sequence != 0:
        raise ValueError(f"replay needs an empty core, this one is at sequence {core.sequence}")
    directory = Directory()
    decoder = EventDecoder(directory)
    encoder = CommandEncoder(directory, decoder.orders)
    parse = msgspec.json.Decoder().decode
    for line in lines:
        try:
            command = parse(line)
            record = encoder.encode(command)
        except (msgspec.DecodeError, UnicodeError, RecursionError, Malformed) as error:
            command, record = None, encoder.malformed()
            if refused is not None:
                refused(core.sequence + 1, str(error))
        struct.pack_into("<Q", record, 8, core.sequence + 1)
        yield decoder.decode(core.apply(record), command)
        if progress is not None and core.sequence % PROGRESS_EVERY == 0:
            progress(core.sequence)
    if progress is not None:
        progress(core.sequence)
