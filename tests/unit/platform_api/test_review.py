"""What becomes of an owner's change, over all pairs of a work's two states."""

from itertools import product

import pytest

from platform_api.works.review import of_chapter, of_work

VERIFICATIONS = ("unsubmitted", "pending", "approved", "rejected")
STATES = [
    (*pair, was_shown)
    for *pair, was_shown in product(("draft", "in_review", "published"), VERIFICATIONS, (False, True))
    if was_shown or pair[0] != "published"
]


@pytest.mark.parametrize("pair", list(product(("draft", "in_review", "published"), VERIFICATIONS)), ids="-".join)
def test_change_of_a_work(pair):
    expected = {"published": "out_of_sight"}.get(pair[0], "stays")
    if pair == ("draft", "approved"):
        expected = "asks_anew"
    assert of_work(*pair) == expected


@pytest.mark.parametrize(("status", "verification", "was_shown"), STATES)
def test_nothing_new_of_what_somebody_may_have_a_right_to_gets_to_readers_unseen(status, verification, was_shown):
    change = of_chapter(status, verification, was_shown=was_shown)
    assert change.waits == was_shown


@pytest.mark.parametrize(("status", "verification", "was_shown"), STATES)
def test_whatever_a_chapter_brings_somebody_will_look_at(status, verification, was_shown):
    """By a case of its own, by that of the work in review, or by the one that comes with the draft's publication,
    which needs none only if the work is still approved."""
    change = of_chapter(status, verification, was_shown=was_shown)
    left = {"asks_anew": "unsubmitted", "stays": verification}[change.work]
    assert change.needs_case == (status == "published")
    assert change.needs_case or status == "in_review" or left != "approved"
