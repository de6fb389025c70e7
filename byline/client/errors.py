"""What the order-entry library raises. One tree under TradingError.

    CommandError      the gateway, or this library before it sent anything: not executed; `field` and `rule` say why
    Rejected          a rule of the exchange
    DuplicateId       the client id is another order's
    ConnectionLost    the connection ended;  OutcomeUnknownError: before the answer
    SignInFailed, EventsMissed
"""

from __future__ import annotations

from typing import Any

from byline.client.reasons import meaning_of

__all__ = [
    "CommandError",
    "ConnectionLost",
    "EventsMissed",
    "OutcomeUnknownError",
    "Rejected",
    "SignInFailed",
    "TradingError",
]


class TradingError(Exception):
    """Root of what this library raises."""


class CommandError(TradingError):
    """The gateway refused a command before it was journaled: nothing was executed."""

    def __init__(self, answer: dict[str, Any]) -> None:
        super().__init__(f"{answer['code']}: {answer.get('message', '')}")
        self.code: str = answer["code"]
        self.field: str | None = answer.get("field")
        self.rule: str | None = answer.get("rule")


class Rejected(TradingError):
    """The core refused a command by a rule of the rulebook. `ack` is the whole answer, `reason` the rule."""

    def __init__(self, ack: dict[str, Any]) -> None:
        super().__init__(f"{ack['op']}: {ack['reason']}: {meaning_of(ack['reason'])}")
        self.ack = ack
        self.reason: str = ack["reason"]


class SignInFailed(TradingError):
    """The exchange did not take the key. `code` is the error's."""

    def __init__(self, answer: dict[str, Any]) -> None:
        super().__init__(f"{answer.get('code')}: {answer.get('message', '')}")
        self.code = answer.get("code")


class ConnectionLost(TradingError):
    """The connection ended. `reason` is the exchange's, if it gave one."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class OutcomeUnknownError(ConnectionLost):
    """The connection ended before the answer: the command may have been executed."""


class EventsMissed(TradingError):
    """A reader of events took them too slowly, and `missed` of them, behind sequence `after`, were not kept for it.

    Nothing else suffered: orders were answered and their states are true. Read on with a new `events()`.
    """

    def __init__(self, missed: int, after: int) -> None:
        super().__init__(f"{missed} events behind sequence {after} were not kept for a reader that took none")
        self.missed = missed
        self.after = after
