"""The division of a sale: nothing lost, nothing made, whatever the order, and as the core divides it."""

from itertools import pairwise
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from platform_api.ledger.commands import work_account
from platform_api.licensing.fees import shares_of_fee
from platform_api.money import decimal_text
from platform_api.royalties.postings import PLATFORM, POSTINGS_MAX, postings
from platform_api.royalties.split import (
    CHAIN_PARTS_MAX,
    WHOLE_BPS,
    Above,
    ChainTooLong,
    Part,
    Payee,
    cascade,
    check_chains,
    largest_remainder,
    platform_part,
)
from tests.support.real_core import RealCore

UNITS = st.integers(min_value=0, max_value=10**15)
WEIGHTS = st.lists(st.integers(min_value=1, max_value=2**31 - 1), min_size=1, max_size=64)


def whole(parts):
    """Basis points that sum to 10,000, in proportion to `parts`."""
    return [bps for bps in largest_remainder(WHOLE_BPS, parts) if bps]


def payee(number, bps, work=0):
    account_id = UUID(int=work << 64 | number)
    return Payee(f"pay:{account_id}", account_id, "collaborator", bps)


@settings(deadline=None)
@given(UNITS, WEIGHTS)
def test_f60_parts_sum_to_the_whole_and_are_within_one_unit(total, weights):
    parts = largest_remainder(total, weights)
    assert sum(parts) == total
    for part, weight in zip(parts, weights, strict=True):
        assert total * weight // sum(weights) <= part <= total * weight // sum(weights) + 1


@settings(deadline=None)
@given(UNITS, st.lists(st.integers(min_value=1, max_value=500), min_size=1, max_size=30), st.randoms())
def test_order_of_the_payees_changes_nothing(total, parts, dice):
    payees = [payee(number, bps) for number, bps in enumerate(whole(parts))]
    shuffled = dice.sample(payees, len(payees))
    assert cascade(total, UUID(int=1), {UUID(int=1): payees}, {}) == cascade(
        total, UUID(int=1), {UUID(int=1): shuffled}, {}
    )


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(min_value=1, max_value=10**12), WEIGHTS), min_size=1, max_size=8))
def test_f60_core_divides_the_same_way(cases):
    core = RealCore()
    core.send(op="asset", asset="USDC", scale=0)
    core.send(op="account", account="work:1")
    for number, (total, weights) in enumerate(cases):
        names = [f"pay:{number}-{index:03d}" for index in range(len(weights))]
        for name in names:
            core.send(op="account", account=name, overdraft="forced")
        core.send(op="deposit", account="work:1", asset="USDC", amount=str(total), ref=f"in{number}")
        shares = [{"to": name, "weight": weight} for name, weight in zip(names, weights, strict=True)]
        leg = {"from": "work:1", "asset": "USDC", "amount": str(total), "shares": shares}
        assert core.send(op="transfer", ref=f"out{number}", legs=[leg])["event"] == "transferred"
        assert [core.balance(name, "USDC")[0] for name in names] == largest_remainder(total, weights)


def test_sale_of_the_worked_example():
    """Price 49.99: platform 5 %, licensor 12 % of the rest, its licensor 20 % of that, and 15 % of that."""
    sold, b, a, root = (UUID(int=number) for number in range(1, 5))
    platform = platform_part(4_999, 500)
    split = [payee(1, 5_000, 2), payee(2, 3_333, 2), payee(3, 1_667, 2)]
    payees = {sold: [payee(1, WHOLE_BPS, 1)], b: split, a: [payee(1, WHOLE_BPS, 3)], root: [payee(1, WHOLE_BPS, 4)]}
    parents = {sold: [Above(b, 1_200)], b: [Above(a, 2_000)], a: [Above(root, 1_500)]}
    parts = cascade(4_999 - platform, sold, payees, parents)
    assert platform == 250 and [part.total for part in parts] == [4_749, 570, 114, 17]
    assert [part.kept for part in parts] == [4_179, 456, 97, 17]
    assert [amount for _, amount in parts[1].payees] == [228, 152, 76]


@settings(deadline=None)
@given(st.data())
def test_chain_gives_away_what_came_in_and_no_more(data):
    """Any tree of works, any shares: everything arrives at payees, and a parent gets what its child received times."""
    count = data.draw(st.integers(min_value=1, max_value=12))
    works = [UUID(int=number + 1) for number in range(count)]
    payees, parents = {}, {}
    for number, work in enumerate(works):
        parts = data.draw(st.lists(st.integers(min_value=1, max_value=100), min_size=1, max_size=6))
        payees[work] = [payee(index, bps, number + 1) for index, bps in enumerate(whole(parts))]
        if number:
            child = data.draw(st.sampled_from(works[:number]))
            free = WHOLE_BPS - sum(one.bps for one in parents.get(child, []))
            if free:
                parents.setdefault(child, []).append(Above(work, data.draw(st.integers(min_value=1, max_value=free))))
    side = data.draw(UNITS)
    parts = cascade(side, works[0], payees, parents)
    assert sum(part.kept for part in parts) == side
    for part in parts:
        assert part.total == part.kept + sum(amount for _, amount in part.above)
    for part in parts:
        for parent, amount in part.above:
            (bps,) = [one.bps for one in parents[part.work_id] if one.work_id == parent]
            assert abs(amount * WHOLE_BPS - part.total * bps) < WHOLE_BPS


def line_of(count):
    """So many works, each made of the next one and giving it half; and their payees."""
    works = [UUID(int=number + 1) for number in range(count)]
    payees = {work: [payee(1, WHOLE_BPS, work.int)] for work in works}
    return works, {work: [Above(above, 5_000)] for work, above in pairwise(works)}, payees


def test_chain_has_at_most_so_many_works_on_all_ways_together():
    works, parents, _ = line_of(CHAIN_PARTS_MAX)
    check_chains(works, parents)
    longer, below, _ = line_of(CHAIN_PARTS_MAX + 1)
    for wrong in (longer, longer[:1], [longer[5], longer[0]]):
        with pytest.raises(ChainTooLong):
            check_chains(wrong, below)
    with pytest.raises(ChainTooLong):
        check_chains(works, parents | {works[-1]: [Above(works[0], 1)]})
    # Each of six works is made of the next one in two ways: 63 parts, though six works.
    twice = {work: [Above(above, 1), Above(above, 2)] for work, above in pairwise(works[:6])}
    check_chains(works[1:6], twice)
    with pytest.raises(ChainTooLong):
        check_chains(works[:6], twice)


def test_sale_is_divided_whatever_the_chain():
    """A sale that met a longer chain than a distribution reaches was never divided, its money lay in between."""
    works, parents, payees = line_of(CHAIN_PARTS_MAX + 3)
    parts = cascade(2**40, works[0], payees, parents)
    assert [part.total for part in parts] == [2 ** (40 - number) for number in range(CHAIN_PARTS_MAX)]
    assert sum(part.kept for part in parts) == 2**40 and parts[-1].kept == parts[-1].total
    assert [part.left_out for part in parts if part.left_out] == [(works[CHAIN_PARTS_MAX],)]
    circle = parents | {works[3]: [Above(works[0], 5_000)]}
    parts = cascade(2**40, works[0], payees, circle)
    assert sum(part.kept for part in parts) == 2**40 and len(parts) == CHAIN_PARTS_MAX
    too_much = {works[0]: [Above(works[1], 6_000), Above(works[2], 6_000)]}
    (only,) = cascade(100, works[0], payees, too_much)
    assert (only.kept, only.left_out) == (100, (works[1], works[2]))


@settings(deadline=None)
@given(st.data())
def test_any_graph_of_works_is_divided_whole(data):
    works = [UUID(int=number + 1) for number in range(data.draw(st.integers(min_value=1, max_value=8)))]
    bps = st.integers(min_value=0, max_value=WHOLE_BPS)
    between = st.lists(st.tuples(st.builds(payee, st.integers(1, 3), bps), bps), max_size=3).map(tuple)
    shares = st.builds(Above, st.sampled_from(works), st.integers(min_value=1, max_value=WHOLE_BPS), between)
    parents = {work: data.draw(st.lists(shares, max_size=4)) for work in works}
    side = data.draw(UNITS)
    parts = cascade(side, works[0], {work: [payee(1, WHOLE_BPS, work.int)] for work in works}, parents)
    assert sum(amount for part in parts for _, amount in part.lines) == side and len(parts) <= CHAIN_PARTS_MAX
    for part in parts:
        assert part.total == sum(amount for _, amount in part.lines + part.above)
    if all(sum(one.bps for one in above) <= WHOLE_BPS for above in parents.values()):
        try:
            check_chains(works, parents)
        except ChainTooLong:
            return
        assert not any(part.left_out for part in parts), "what was checked is divided in full"


@settings(deadline=None)
@given(UNITS, st.lists(st.integers(min_value=0, max_value=WHOLE_BPS), min_size=1, max_size=15))
def test_licensors_between_keep_what_they_would_of_a_fee(total, passed):
    sold, work = UUID(int=1), UUID(int=2)
    between = tuple((payee(number, 0), bps) for number, bps in enumerate(passed))
    payees = {one: [payee(1, WHOLE_BPS, one.int)] for one in (sold, work)}
    first = cascade(total, sold, payees, {sold: [Above(work, WHOLE_BPS, between)]})[0]
    of_fee = shares_of_fee(total, 0, passed)[1:]
    assert [amount for _, amount in first.between] == of_fee[:-1] and sum(up for _, up in first.above) == of_fee[-1]


def test_works_under_a_licence_below_others_by_hand():
    """Of 1,001 the film owes 20 %: 200.2. The nearer licensor owes 25 % of it, the farther 50 % of that: half a unit of
    a tie goes upwards."""
    film, work = UUID(int=1), UUID(int=2)
    near, far = payee(1, 7_500, 9), payee(2, 5_000, 9)
    payees = {one: [payee(1, WHOLE_BPS, one.int)] for one in (film, work)}
    film_part, work_part = cascade(1_001, film, payees, {film: [Above(work, 2_000, ((near, 2_500), (far, 5_000)))]})
    assert film_part.between == ((near, 150), (far, 25)) and film_part.above == ((work, 25),)
    assert (film_part.kept, work_part.kept) == (801, 25)
    film_part, work_part = cascade(15, film, payees, {film: [Above(work, 10_000, ((near, 5_000),))]})
    assert film_part.between == ((near, 7),) and (film_part.kept, work_part.kept) == (0, 8)


@pytest.mark.parametrize("payees", [1, 31, 32, 33, 64, 101])
@pytest.mark.parametrize(("above", "middle"), [(0, 0), (31, 0), (0, 3), (31, 40)])
@pytest.mark.parametrize("kept", [0, 7, 1_000_003])
def test_core_takes_any_number_of_receivers(payees, above, middle, kept):
    """A work with more than 64 receivers was never distributed: the core refused the one command."""
    core = RealCore()
    core.send(op="asset", asset="USDC", scale=6)
    core.send(op="account", account="external:test", overdraft="open")
    own = [payee(number, bps) for number, bps in enumerate(largest_remainder(WHOLE_BPS, [1] * payees))]
    ups = tuple((UUID(int=number + 1), 11) for number in range(above))
    amounts = largest_remainder(kept, [one.bps for one in own])
    work, platform = UUID(int=2**100), 5
    between = tuple((payee(number // 2, 5_000), 13) for number in range(middle))  # each twice, and payees of the work
    part = Part(work, kept + 11 * above + 13 * middle, ups, tuple(zip(own, amounts, strict=True)), between)
    source, total = work_account(work), decimal_text(part.total + platform, 6)
    core.send(op="account", account=source)
    core.send(op="deposit", account=source, asset="USDC", amount=total, ref="d", place="external:test")
    commands = postings(part, platform, "USDC", 6)
    for number, command in enumerate(commands):
        for account, overdraft in command.accounts.items():
            core.send(op="account", account=account, overdraft=overdraft)
        assert core.send(op="transfer", ref=f"dist:{number}", legs=command.legs)["event"] == "transferred"
    lines = [line for command in commands for line in command.payees]
    assert [line for line in lines if line[1]] == [line for line in part.lines if line[1]]
    for one, _ in lines:
        if core.directory.account(one.key):
            assert core.balance(one.key, "USDC")[0] == sum(amount for other, amount in lines if other.key == one.key)
    assert core.balance(source, "USDC") == (0, 0) and core.balance(PLATFORM, "USDC") == (platform, 0)
    assert len(commands) == 1 or 1 + above + middle + payees > POSTINGS_MAX


@settings(deadline=None)
@given(
    st.lists(st.integers(min_value=0, max_value=10**9), min_size=1, max_size=20).filter(any),
    st.lists(st.integers(min_value=1, max_value=10**9), min_size=1, max_size=10),
)
def test_refunds_over_what_is_left_never_take_more_than_a_line_had(lines, wishes):
    left = list(lines)
    for wish in wishes:
        if not sum(left):
            break
        taken = largest_remainder(min(wish, sum(left)), left)
        assert all(part <= line for part, line in zip(taken, left, strict=True))
        left = [line - part for part, line in zip(taken, left, strict=True)]
    assert all(line >= 0 for line in left)


def test_refunds_of_the_worked_example():
    """Sale 1,100 = tax 100, platform 150, A 510, B 340; 333 back, then 267."""
    left = [100, 150, 510, 340]
    first = largest_remainder(333, left)
    left = [line - part for line, part in zip(left, first, strict=True)]
    assert first == [30, 46, 154, 103] and largest_remainder(267, left) == [24, 36, 124, 83]
