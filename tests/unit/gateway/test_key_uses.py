"""When keys were used: told the oldest first, again until taken, and never more than one entry for a key."""

from gateway.key_uses import KeyUses


def test_uses_are_told_again_until_they_are_taken() -> None:
    uses = KeyUses()
    for number, key in enumerate(("a", "b", "a", "c"), 1):
        uses.note(key, number * 10)
    assert list(uses.tell(None).items()) == [("b", 20), ("a", 30), ("c", 40)]
    assert uses.tell(None) == uses.tell(19) == {"b": 20, "a": 30, "c": 40}
    uses.note("b", 50)  # used again before the answer was kept
    assert list(uses.tell(30).items()) == [("c", 40), ("b", 50)]
    assert uses.tell(50) == uses.tell(None) == {}


def test_a_revoked_key_is_forgotten_and_a_page_is_bounded() -> None:
    uses = KeyUses()
    for number in range(2_500):
        uses.note(f"{number:064x}", number + 1)
    uses.forget(f"{0:064x}")
    uses.forget("unknown")
    found: dict[str, int] = {}
    taken = None
    sizes = []
    while page := uses.tell(taken):
        sizes.append(len(page))
        found |= page
        taken = max(page.values())
    assert sizes == [1_000, 1_000, 499] and set(found.values()) == set(range(2, 2_501))


def test_a_clock_that_stepped_back_ends_no_key_and_no_page() -> None:
    uses = KeyUses()
    for key, at_ns in (("a", 100), ("b", 40), ("c", 60)):
        uses.note(key, at_ns)
    assert uses.tell(None) == {"a": 100, "b": 40, "c": 60}
    assert uses.tell(100) == {}
