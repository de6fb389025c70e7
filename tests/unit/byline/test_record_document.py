"""The generated pages: what stands in docs is what the definitions make, and every word and field is explained."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from byline import record_document
from byline.client import reasons
from byline.record_document import COMMAND_RECORDS, EVENT_RECORDS, PAGES
from engine.messages import edge, layout
from engine.messages.codes import CancelReason, RejectCode

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_the_page_is_the_one_that_the_definitions_make(path: Path) -> None:
    assert path.read_text() == "\n".join(PAGES[path]()) + "\n", "python -m byline.record_document"


def test_check_tells_a_page_that_differs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record_document, "PAGES", {tmp_path / path.name: page for path, page in PAGES.items()})
    assert record_document.main(["--check"]) == 1
    assert record_document.main([]) == 0 == record_document.main(["--check"])
    (tmp_path / "reasons.md").write_text("other")
    assert record_document.main(["--check"]) == 1


def test_every_field_is_explained_and_every_record_shown() -> None:
    assert record_document.unexplained() == set()
    shown = {*COMMAND_RECORDS, *EVENT_RECORDS, "COMMAND", "MONEY_META", "LEG"}
    assert shown == set(edge.RECORDS)
    assert {kind for kinds in COMMAND_RECORDS.values() for kind in kinds} == set(edge.ORDER_KINDS)


def test_a_place_can_be_written_from_the_page_alone() -> None:
    page = PAGES[next(path for path in PAGES if path.name == "order-entry-records.md")]
    section = "\n".join(page()).split("### `place` 11")[1].split("###")[0]
    rows = re.findall(r"\| (\d+) \| `(\w+)` \| (u|i|text )(\d+) ", section)
    told = {name: (int(at), int(size) // (1 if kind == "text " else 8)) for at, name, kind, size in rows}
    fields = layout.PLACE.fields
    assert fields is not None
    assert told == {name: (fields[name][1], fields[name][0].itemsize) for name in told} and len(told) == 13


def test_every_reason_is_explained_in_the_order_of_the_checks() -> None:
    assert set(reasons.REJECTED) == {code.word for code in RejectCode}
    assert set(reasons.CANCELED) == {reason.word for reason in CancelReason}
    assert {code.word for code in edge.EdgeCode} <= set(reasons.ERRORS)
    codes = (ROOT / "docs/protocol/order-entry.md").read_text().split("## Errors")[1]
    codes = codes.split("Codes:")[1].split("`busy`: a queue")[0]
    named = set(re.findall(r"`([a-z]+(?:_[a-z]+)*)`", codes)) - {"row", "address"}
    assert named <= set(reasons.ERRORS), named - set(reasons.ERRORS)
    rulebook = (ROOT / "docs/rulebook.md").read_text().split("**Checks come before changes**")[1]
    order = re.findall(r"[a-z]+(?:_[a-z]+)+|frozen|duplicate|poisoned|killed|phase|exists|band|crossed", rulebook)
    first = [word for word in reasons.REJECTED if word in order[: order.index("crossed") + 1]]
    assert first == list(reasons.REJECTED)[: len(first)] and len(first) == 28
    assert "would_cross" in reasons.REJECTED and reasons.meaning_of("would_cross").startswith("a post_only")
    assert "not know" in reasons.meaning_of("a_new_word")
