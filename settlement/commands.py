"""The way back into the core: commands of the rulebook, and what their answers mean."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from engine.messages.errors import Refused, Unavailable

__all__ = ["CommandPort", "Expired", "submit_booking"]

_PASSING = ("busy", "cancel_only")
"""A full table or disk: both pass."""


class CommandPort(Protocol):
    """Open with the operator's rights."""

    async def submit(self, command: Mapping[str, Any]) -> Mapping[str, Any]:
        """One command, and the first event that answers it. The same ref again does no harm.

        Raises:
            Unavailable: no answer; whether it ran or not, it is sent again.
        """

    async def available(self, account: str) -> Mapping[str, str]:
        """Asset → decimal amount that the account has free now. Raises Unavailable."""

    async def sequence_of(self, account: str) -> int:
        """The core's sequence when this question about an account came to it: whatever was sent before and is not in
        the events up to there never runs. Raises Unavailable."""


class Expired(Refused):
    """Its `not_after` has passed: it has not run, and never will."""


async def submit_booking(commands: CommandPort, command: Mapping[str, Any], event: str, status: str) -> int:
    """Send a command that must lead to `event`, or to `duplicate` with `status`; the sequence of the answer.

    Raises:
        Unavailable: tried again later.
        Refused: the core will never do it; the message says why. Expired, if that is why.
    """
    answer = await commands.submit(command)
    if answer.get("event") == event or (answer.get("event") == "duplicate" and answer.get("status") == status):
        return int(answer.get("sequence", 0))
    if answer.get("reason") in _PASSING:
        raise Unavailable(f"the core takes no bookings now: {answer['reason']}")
    said = answer.get("reason") or f"{answer.get('event')} {answer.get('status', '')}".strip()
    kind = Expired if said == "expired" else Refused
    raise kind(f"the core answers {command.get('op')} {command.get('ref', '')}: {said}")
