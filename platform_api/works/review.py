"""What becomes of a change that the owner makes to a work or a chapter, where the settings want works looked at.

    work is     verification   the work's change   a chapter's, if the work was never shown   if it was
    draft       approved       asks anew           at once, asks anew                         waits, asks anew
    draft       any other      stays               at once                                    waits
    in_review   any            stays               at once                                    waits
    published   any            out of sight        (it was shown)                             waits, with a case

Whoever has a right to a work that was shown reads it in all of these, so nothing new of it gets to readers before
somebody has looked; that it is out of sight, was rejected, or was published before the settings wanted it, opens no
door. What was never shown is looked at as a whole, and until then it is not the public's: who has a right to it has it
by a licence of the owner's, a private matter between the two. Archived and suspended works do not change.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["ChapterChange", "WorkTurn", "of_chapter", "of_work"]

WorkTurn = Literal["stays", "asks_anew", "out_of_sight"]
"""`asks_anew`: its approval was of what it is no more, so its publication submits it again."""


@dataclass(frozen=True, slots=True)
class ChapterChange:
    waits: bool
    """It is `in_review`, and readers get it when it is approved."""
    needs_case: bool
    """Nothing else will have somebody look at it: in a work out of sight that is done with the work."""
    work: WorkTurn


def of_work(status: str, verification: str) -> WorkTurn:
    if status == "published":
        return "out_of_sight"
    return "asks_anew" if verification == "approved" and status == "draft" else "stays"


def of_chapter(status: str, verification: str, *, was_shown: bool) -> ChapterChange:
    """A chapter that is changed in readers' sight, or is to come there, of a work that `was_shown` to readers once."""
    is_shown = status == "published"
    return ChapterChange(was_shown, is_shown, "stays" if is_shown else of_work(status, verification))
