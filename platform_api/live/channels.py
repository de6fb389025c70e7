"""Which event is shown on which channel, and how much of it to whom. Pure.

    content:WORK_ID     what happens to a work               everybody; more for its owner and collaborators
    creator:CREATOR_ID  what a creator does                  everybody; more for the creator
    market              trades of all markets, tokens' lives everybody
    user:ACCOUNT_ID     what concerns an account             that account alone

Closed by default: an event that has no line in `SHOWN` reaches nobody but the accounts it names in `for_accounts`, and
everybody sees only the fields that its line names. Those inside see the whole payload and who did it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from platform_api.kernel.events import Event

__all__ = ["FOR_ACCOUNTS", "SHOWN", "Line", "Telling", "message", "tellings"]

FOR_ACCOUNTS = "for_accounts"
"""Field of a payload: ids of accounts whose `user:` channel tells the event. It is not shown."""
NOT_TOLD = (FOR_ACCOUNTS, "was_public", "first")


@dataclass(frozen=True, slots=True)
class Line:
    """`fields`: what everybody sees of the payload; None: only those inside see the event at all.

    `if_public`: everybody sees it only if the payload says that the work was public.
    """

    channels: tuple[str, ...]
    fields: tuple[str, ...] | None = None
    if_public: bool = False


_WORK = ("title", "kind", "creator_id")
_WINDOW = ("work_id", "window_type", "territories")
_TOKEN = ("symbol", "market", "title", "creator_id")
SHOWN: Mapping[str, Line] = {
    "work.created": Line(("content", "creator")),
    "work.published": Line(("content", "creator"), _WORK),
    "work.version_published": Line(("content",), _WORK, if_public=True),
    "work.archived": Line(("content", "creator"), _WORK, if_public=True),
    "work.deleted": Line(("content", "creator"), _WORK, if_public=True),
    "work.suspended": Line(("content", "creator"), _WORK, if_public=True),
    "work.withdrawn": Line(("content", "creator"), _WORK, if_public=True),
    "work.approved": Line(("content",)),
    "work.rejected": Line(("content",)),
    "work.collaborators_changed": Line(("content",)),
    "chapter.rejected": Line(("content",)),
    "chapter.published": Line(("content", "creator"), ("title", "work_id", "creator_id"), if_public=True),
    "copyright.registered": Line(("content", "creator")),
    "copyright.failed": Line(("content", "creator")),
    "creator.registered": Line(("creator",), ("title",)),
    "creator.verified": Line(("creator",), ("title",)),
    "creator.rejected": Line(("creator",)),
    "creator.followed": Line(("creator",), ()),
    "creator.unfollowed": Line(("creator",)),
    "token.created": Line(("creator", "market"), _TOKEN),
    "token.listed": Line(("creator", "market"), _TOKEN),
    "token.halted": Line(("creator", "market"), _TOKEN),
    "token.resumed": Line(("creator", "market"), _TOKEN),
    "token.delisted": Line(("creator", "market"), _TOKEN),
    "token.failed": Line(("creator",)),
    "token.proceeds_paid": Line(("creator",)),
    "window.opened": Line(("content",), _WINDOW, if_public=True),
    "window.closed": Line(("content",), _WINDOW, if_public=True),
    "royalty.rule_changed": Line(("content",)),
    "royalty.licence_share_changed": Line(("content",)),
}
"""What is not here, as payments, purchases, refunds, licences, and what a work's sales gave whom, is told to the
accounts that it names alone: REST tells it to its parties, and whoever an owner asks to take part is inside."""
TOLD_TO: Mapping[str, str] = {
    "user.registered": "subject", "user.email_verified": "subject", "user.role_granted": "subject",
    "user.role_revoked": "subject", "user.suspended": "subject", "user.unsuspended": "subject",
    "session.revoked": "actor", "wallet.linked": "actor", "wallet.unlinked": "actor",
    "file.ready": "actor", "file.quarantined": "actor", "payout.paid": "actor",
}  # fmt: skip
"""Events that concern one account without naming it: who that is."""


@dataclass(frozen=True, slots=True)
class Telling:
    """What one channel is told. `everybody` and `inside` are frames; None: those are told nothing."""

    channel: str
    everybody: str | None
    inside: str


def tellings(event: Event) -> Iterator[Telling]:
    """What each channel is told of the event."""
    line = SHOWN.get(event.type)
    for kind in line.channels if line is not None else ():
        channel = _channel(kind, event)
        if channel is None or line is None:
            continue
        is_open = line.fields is not None and (not line.if_public or bool(event.payload.get("was_public")))
        everybody = message(channel, event, line.fields or ()) if is_open else None
        yield Telling(channel, everybody, message(channel, event, None))
    for account_id in _accounts(event):
        channel = f"user:{account_id}"
        yield Telling(channel, None, message(channel, event, None))


def message(channel: str, event: Event, fields: tuple[str, ...] | None) -> str:
    """The frame; with `fields` None all of the payload, and the actor."""
    shown: dict[str, Any] = {
        "id": event.event_id, "type": event.type, "occurred_at": event.occurred_at, "subject_type": event.subject_type,
        "subject_id": event.subject_id,
    }  # fmt: skip
    if fields is None:
        shown["actor"] = event.actor
        shown["data"] = {name: value for name, value in event.payload.items() if name not in NOT_TOLD}
    else:
        shown["data"] = {name: event.payload[name] for name in fields if name in event.payload}
    return msgspec.json.encode({"type": "event", "channel": channel, "event": shown}).decode()


def _channel(kind: str, event: Event) -> str | None:
    if kind == "market":
        return kind
    subject = {"content": "work", "creator": "creator"}[kind]
    id_ = event.subject_id if event.subject_type == subject else event.payload.get(f"{subject}_id")
    return f"{kind}:{id_}" if id_ else None


def _accounts(event: Event) -> list[str]:
    named = list(event.payload.get(FOR_ACCOUNTS, ()))
    match TOLD_TO.get(event.type):
        case "subject":
            named.append(event.subject_id)
        case "actor" if event.actor is not None:
            named.append(event.actor)
    return list(dict.fromkeys(map(str, named)))
