"""Stable numbers of the vocabulary. A number, once given, is never reused.

The names are the words of the rulebook: `CommandKind.PLACE.word == "place"`. `engine/types.pxd` repeats the
numbers for C; `tests/unit/engine/test_layout.py` holds the two together.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Self

__all__ = [
    "ABSENT",
    "INVALID",
    "NIL",
    "AccountStatus",
    "Aggressor",
    "CancelReason",
    "CommandKind",
    "EventKind",
    "OrderStatus",
    "OrderType",
    "Overdraft",
    "Phase",
    "PhaseReason",
    "RefStatus",
    "RejectCode",
    "SelfTrade",
    "Side",
    "TimeInForce",
]

ABSENT = -(2**63)
"""An int64 field that was not given (`null` on the wire)."""

INVALID = -(2**63) + 1
"""An int64 field that was given but is no whole number of ticks, lots or units, or does not fit. Always refused."""

NIL = 0xFFFFFFFF
"""A uint32 index that names nothing: an absent or an unknown account, market or asset."""


class Word(IntEnum):
    """An enumeration whose members are words of the rulebook."""

    @property
    def word(self) -> str:
        """The name as JSON writes it."""
        return self.name.lower()

    @classmethod
    def of(cls, word: str) -> Self:
        """The member for a word of the rulebook. Raises KeyError for any other text."""
        if word != word.lower():
            raise KeyError(word)
        return cls[word.upper()]


class CommandKind(Word):
    """What a journal record asks of the core."""

    ASSET = 1
    MARKET = 2
    ACCOUNT = 3
    DEPOSIT = 4
    WITHDRAW = 5
    TRANSFER = 6
    POST = 7
    VOID = 8
    WITHDRAW_SETTLED = 9
    WITHDRAW_FAILED = 10
    PLACE = 11
    CANCEL = 12
    REPLACE = 13
    MASS_CANCEL = 14
    PHASE = 15
    UNCROSS = 16
    KILL = 17
    REARM = 18
    CANCEL_AFTER = 19
    POISON = 20
    TICK = 21
    CUT = 22
    MALFORMED = 31
    """A line that is no valid command but takes a sequence (replay door only)."""


class EventKind(Word):
    """What the core says happened."""

    ACCEPTED = 1
    REJECTED = 2
    DUPLICATE = 3
    DONE = 4
    TRADE = 5
    CANCELED = 6
    REPLACED = 7
    TRIGGERED = 8
    REFRESHED = 9
    PREVENTED = 10
    BALANCE = 11
    TRANSFERRED = 12
    PENDED = 13
    POSTED = 14
    VOIDED = 15
    PHASE_CHANGED = 16
    UNCROSSED = 17
    CUT = 18


class Side(Word):
    """The wire says buy and sell; the book calls its halves bid and ask."""

    BUY = 0
    SELL = 1


class Aggressor(Word):
    BUY = 0
    SELL = 1
    NONE = 2


class OrderType(Word):
    LIMIT = 1
    MARKET = 2
    STOP = 3
    STOP_LIMIT = 4
    UNKNOWN = 255
    """A word out of the list: the core answers `bad_type`."""


class TimeInForce(Word):
    DEFAULT = 0
    """Not given. The core fills in the default of the order type."""
    GTC = 1
    IOC = 2
    FOK = 3
    GTD = 4
    UNKNOWN = 255
    """A word out of the list: the core answers `bad_tif`."""


class SelfTrade(Word):
    """Self-trade prevention: what the taker's mode does when taker and maker are of one group."""

    CANCEL_NEWEST = 0
    CANCEL_OLDEST = 1
    CANCEL_BOTH = 2
    DECREMENT = 3
    NONE = 4


class AccountStatus(Word):
    ACTIVE = 0
    CANCEL_ONLY = 1
    FROZEN = 2


class Overdraft(Word):
    NEVER = 0
    FORCED = 1
    OPEN = 2


class Phase(Word):
    CONTINUOUS = 0
    PREOPEN = 1
    AUCTION = 2
    CANCEL_ONLY = 3
    HALT = 4
    CLOSED = 5


class PhaseReason(Word):
    COMMAND = 0
    UNCROSS = 1
    BAND = 2
    PAUSE = 3


class OrderStatus(Word):
    WAITING = 0
    OPEN = 1
    FILLED = 2
    CANCELED = 3


class RefStatus(Word):
    POSTED = 0
    PENDING = 1
    VOIDED = 2


class CancelReason(Word):
    USER = 1
    MASS = 2
    IOC = 3
    FOK = 4
    MARKET = 5
    STP = 6
    EXPIRED = 7
    OCO = 8
    KILLED = 9
    FROZEN = 10
    CLOSED = 11
    SESSION = 12
    BAND = 13
    BUDGET = 14
    FUNDS = 15
    REPLACED = 16
    FILLS_LIMIT = 17


class RejectCode(Word):
    """Why a command was refused, in the order of the checks; see the rulebook, section 3."""

    BAD_REF = 1
    UNKNOWN_ACCOUNT = 2
    DUPLICATE = 3
    POISONED = 4
    UNKNOWN_MARKET = 5
    UNKNOWN_ASSET = 6
    FROZEN = 7
    CANCEL_ONLY = 8
    KILLED = 9
    UNKNOWN_ORDER = 10
    PHASE = 11
    BAD_VALUE = 12
    EXISTS = 13
    BAD_TYPE = 14
    BAD_TIF = 15
    BAD_PRICE = 16
    BAD_SIZE = 17
    BAD_DISPLAY = 18
    BAD_STOP = 19
    BAD_AMOUNT = 20
    BAD_EXPIRY = 21
    BAND = 22
    TOO_MANY_ORDERS = 23
    BAD_OCO = 24
    INSUFFICIENT_FUNDS = 25
    WOULD_CROSS = 26
    NO_LIQUIDITY = 27
    CROSSED = 28
    EXPIRED = 29
    BAD_ACCOUNT = 30
    BAD_LEGS = 31
    TOO_LARGE = 32
    BUSY = 33
    MALFORMED = 34
    # 35 was `unsupported`, of builds that did not carry every rule.
