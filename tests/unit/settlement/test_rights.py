"""Registry, licences and royalties in the Move VM: what they do, every refusal with its code; and the Python model."""

from __future__ import annotations

import random
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from settlement.chain.encoding import address_text, u64, vector_u8
from settlement.chain.localsui.contract import Executor, MoveAbort
from settlement.chain.localsui.model import ModelExecutor
from settlement.chain.localsui.movevm import MoveExecutor, coin_module
from settlement.chain.localsui.rights import FUNCTIONS, RightsCall, RightsOutcome, touched
from settlement.chain.localsui.rights_model import split
from settlement.chain.rights import ArbiterCap, Grant, License, Offer, Registry, Till, Work, WorkCap

PACKAGE, COIN = b"\xc0" * 32, b"\xcc" * 32
NAME, CODE = coin_module(12)
COIN_TYPE = f"{address_text(COIN)}::{NAME}::{NAME.upper()}"
A, B, C, BUYER = b"\xa1" * 32, b"\xb2" * 32, b"\xc3" * 32, b"\xd4" * 32
HASH, TERMS = b"\7" * 32, b"\x08" * 32
REGISTRY = Registry(b"\x10" * 32, b"\x11" * 32, 0, 0)
ARBITER = ArbiterCap(b"\x12" * 32, REGISTRY.id)
WORK = Work(b"\x20" * 32, HASH, "Song", "ipfs://x", (A, B, C), (3334, 3333, 3333), 5, False, b"\x21" * 32, 1)
CAP = WorkCap(b"\x22" * 32, WORK.id)
OFFER = Offer(b"\x30" * 32, WORK.id, "ipfs://t", TERMS, 100, 1_000, 2, True, True, True)
LICENSE = License(b"\x40" * 32, WORK.id, TERMS, 5, 1_005, True)
TILL = Till(b"\x50" * 32, 0, b"\x51" * 32, 0)
NOW = 77
OTHER = msgspec.structs.replace(CAP, work=b"\x99" * 32)


def _executor(name: str) -> Executor:
    if name == "model":
        return ModelExecutor()
    pytest.importorskip("sui_sandbox", reason="the Move VM wheel is not installed")
    executor = MoveExecutor()
    executor.add_coin(COIN, NAME, CODE)
    return executor


@pytest.fixture(params=["movevm", "model"], scope="module")
def executor(request: pytest.FixtureRequest) -> Executor:
    return _executor(request.param)


class Desk:
    """The objects and tables of a small world; calls change it as the node would."""

    def __init__(self, executor: Executor, **objects: Any) -> None:
        self.executor = executor
        known = {"registry": REGISTRY, "arbiter": ARBITER, "work": WORK, "cap": CAP, "offer": OFFER,
                 "license": LICENSE, "till": TILL}  # fmt: skip
        self.objects = {role: value.encode() for role, value in (known | objects).items()}
        self.entries: dict[tuple[bytes, bytes], bytes] = {(WORK.licenses, LICENSE.id): Grant(True, 0).encode()}
        self.count = 0

    def call(self, module: str, name: str, *values: Any, payment: int = 0) -> RightsOutcome:
        function = FUNCTIONS[module, name]
        objects = {form: self.objects[form] for form in function.arguments if form in self.objects}
        keys = [(parent, key) for _, parent, key in touched(function, objects, values)]
        fresh = tuple(bytes([0xF0, self.count, place]) + bytes(29) for place in range(function.made))
        self.count += 1
        known = {key: self.entries[key] for key in keys if key in self.entries}
        coin_type = COIN_TYPE if function.has_coin_type else ""
        call = RightsCall(PACKAGE, function, coin_type, objects, values, payment, NOW, fresh, known)
        outcome = self.executor.run_rights(call)
        self.objects |= outcome.changed
        for key, value in outcome.entries.items():
            if value is None:
                del self.entries[key]
            else:
                self.entries[key] = value
        return outcome

    def refused(self, where: str, code: int, module: str, name: str, *values: Any, payment: int = 0) -> None:
        before = (dict(self.objects), dict(self.entries))
        with pytest.raises(MoveAbort) as abort:
            self.call(module, name, *values, payment=payment)
        assert (abort.value.module, abort.value.code) == (where, code)
        assert (self.objects, self.entries) == before

    def due(self) -> dict[bytes, int]:
        return {key: int.from_bytes(value, "little") for (table, key), value in self.entries.items()
                if table == TILL.due}  # fmt: skip


def test_a_work_is_registered_once(executor: Executor) -> None:
    desk = Desk(executor)
    made = desk.call("copyright_registry", "register", HASH, "Sång", "ipfs://x", (A, B), (9_999, 1)).made
    work = Work.decode(made["copyright_registry::Work"])
    cap = WorkCap.decode(made["copyright_registry::WorkCap"])
    fresh = [bytes([0xF0, 0, place]) + bytes(29) for place in range(3)]
    assert work == Work(fresh[0], HASH, "Sång", "ipfs://x", (A, B), (9_999, 1), NOW, False, fresh[1], 0)
    assert cap == WorkCap(fresh[2], work.id) and desk.entries[REGISTRY.works, vector_u8(HASH)] == work.id
    assert Registry.decode(desk.objects["registry"]) == msgspec.structs.replace(REGISTRY, works_size=1, count=1)
    desk.refused("copyright_registry", 1, "copyright_registry", "register", HASH, "", "", (C,), (10_000,))


@pytest.mark.parametrize(
    ("code", "content", "title", "creators", "shares"),
    [
        (2, b"\7" * 31, "", (A,), (10_000,)),
        (3, HASH, "", (A, B), (10_000,)),
        (3, HASH, "", (A, B), (10_000, 0)),
        (3, HASH, "", (A, B), (5_000, 4_999)),
        (3, HASH, "", (A,), (10_001,)),
        (6, HASH, "", (), ()),
        (6, HASH, "", tuple(bytes([n]) * 32 for n in range(33)), (1,) * 33),
        (7, HASH, "", (A, A), (5_000, 5_000)),
        (8, HASH, "å" * 513, (A,), (10_000,)),
    ],
)
def test_a_bad_registration_is_refused(
    executor: Executor, code: int, content: bytes, title: str, creators: tuple[bytes, ...], shares: tuple[int, ...]
) -> None:
    args = ("copyright_registry", "register", content, title, "", creators, shares)
    Desk(executor).refused("copyright_registry", code, *args)


def test_shares_and_disputes_change_by_their_holders_alone(executor: Executor) -> None:
    desk = Desk(executor)
    desk.call("copyright_registry", "set_shares", (B,), (10_000,))
    desk.call("copyright_registry", "set_disputed", True)
    work = Work.decode(desk.objects["work"])
    assert (work.creators, work.shares_bps, work.disputed) == ((B,), (10_000,), True)
    Desk(executor, cap=OTHER).refused("copyright_registry", 4, "copyright_registry", "set_shares", (B,), (10_000,))
    desk.refused("copyright_registry", 3, "copyright_registry", "set_shares", (B,), (9_999,))
    foreign = msgspec.structs.replace(ARBITER, registry=b"\x98" * 32)
    Desk(executor, arbiter=foreign).refused("copyright_registry", 5, "copyright_registry", "set_disputed", True)


TERMS_ARGS = ("ipfs://t", TERMS, 100, 1_000, 2, True, False)


def test_an_offer_keeps_its_terms_and_closes(executor: Executor) -> None:
    desk = Desk(executor)
    made = desk.call("license", "make_offer", *TERMS_ARGS).made["license::Offer"]
    assert Offer.decode(made) == Offer(made[:32], WORK.id, "ipfs://t", TERMS, 100, 1_000, 2, True, False, True)
    desk.call("license", "close_offer")
    assert not Offer.decode(desk.objects["offer"]).open
    desk.refused("license", 3, "license", "buy", BUYER, payment=100)
    Desk(executor, cap=OTHER).refused("copyright_registry", 4, "license", "make_offer", *TERMS_ARGS)
    Desk(executor, cap=OTHER).refused("copyright_registry", 4, "license", "close_offer")
    strange = msgspec.structs.replace(OFFER, work=b"\x97" * 32)
    Desk(executor, offer=strange).refused("license", 4, "license", "close_offer")
    for place, bad in [(0, "u" * 1_025), (1, b"\7" * 31), (2, 0), (3, 0), (3, 3_155_760_000_001), (4, 0)]:
        values = [*TERMS_ARGS]
        values[place] = bad
        desk.refused("license", 7, "license", "make_offer", *values)


def test_a_licence_is_bought_for_the_exact_price_and_the_creators_are_paid(executor: Executor) -> None:
    desk = Desk(executor)
    made = desk.call("license", "buy", BUYER, payment=100).made["license::License"]
    assert License.decode(made) == License(made[:32], WORK.id, TERMS, NOW, NOW + 1_000, True)
    assert desk.entries[WORK.licenses, made[:32]] == Grant(True, 0).encode()
    assert desk.due() == {A: 34, B: 33, C: 33} and Till.decode(desk.objects["till"]).pool == 100
    assert Work.decode(desk.objects["work"]).licenses_size == 2
    for price in (99, 101):
        desk.refused("license", 2, "license", "buy", BUYER, payment=price)
    desk.call("license", "buy", BUYER, payment=100)
    desk.refused("license", 5, "license", "buy", BUYER, payment=100)
    strange = msgspec.structs.replace(OFFER, work=b"\x97" * 32)
    Desk(executor, offer=strange).refused("license", 4, "license", "buy", BUYER, payment=100)
    disputed = msgspec.structs.replace(WORK, disputed=True)
    Desk(executor, work=disputed).refused("license", 1, "license", "buy", BUYER, payment=100)


def test_a_granted_licence_is_revoked_once_if_its_terms_say_so(executor: Executor) -> None:
    desk = Desk(executor)
    made = desk.call("license", "issue", BUYER, TERMS, 1_000, False, True).made["license::License"]
    firm = desk.call("license", "issue", BUYER, TERMS, 1_000, False, False).made["license::License"]
    desk.call("license", "revoke", made[:32])
    assert desk.entries[WORK.licenses, made[:32]] == Grant(True, NOW).encode()
    desk.refused("license", 10, "license", "revoke", made[:32])
    desk.refused("license", 9, "license", "revoke", firm[:32])
    desk.refused("license", 8, "license", "revoke", b"\x96" * 32)
    Desk(executor, cap=OTHER).refused("copyright_registry", 4, "license", "revoke", LICENSE.id)
    Desk(executor, cap=OTHER).refused("copyright_registry", 4, "license", "issue", BUYER, TERMS, 1, False, False)
    desk.refused("license", 7, "license", "issue", BUYER, TERMS, 0, False, False)
    desk.refused("license", 7, "license", "issue", BUYER, b"", 1, False, False)
    disputed = msgspec.structs.replace(WORK, disputed=True)
    Desk(executor, work=disputed).refused("license", 1, "license", "issue", BUYER, TERMS, 1, False, False)


def test_a_licence_is_handed_over_only_if_it_may_be(executor: Executor) -> None:
    Desk(executor).call("license", "hand_over", B)
    bound = msgspec.structs.replace(LICENSE, transferable=False)
    Desk(executor, license=bound).refused("license", 6, "license", "hand_over", B)


def test_royalties_add_up_and_are_claimed_once(executor: Executor) -> None:
    desk = Desk(executor)
    opened = Till.decode(desk.call("royalty", "open").made["royalty::Till"])
    assert (opened.pool, opened.due_size) == (0, 0)
    for amount in (1, 10, 999, 10**12 + 7):
        desk.call("royalty", "pay", payment=amount)
        assert sum(desk.due().values()) == Till.decode(desk.objects["till"]).pool
    due = desk.due()[B]
    desk.call("royalty", "claim", B)
    till = Till.decode(desk.objects["till"])
    assert till.pool == sum(desk.due().values()) == 10**12 + 1_017 - due and till.due_size == 2
    desk.refused("royalty", 1, "royalty", "claim", B)
    desk.refused("royalty", 2, "royalty", "pay", payment=0)


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 2**63),
    st.lists(st.integers(1, 9_999), max_size=6, unique=True).map(lambda cuts: sorted(cuts)),
)
def test_the_split_is_the_largest_remainder(amount: int, cuts: list[int]) -> None:
    shares = [high - low for low, high in zip([0, *cuts], [*cuts, 10_000], strict=True)]
    parts = split(amount, shares)
    assert sum(parts) == amount
    for part, share in zip(parts, shares, strict=True):
        assert -10_000 < part * 10_000 - amount * share < 10_000
    creators = tuple(bytes([n + 1]) * 32 for n in range(len(shares)))
    work = msgspec.structs.replace(WORK, creators=creators, shares_bps=tuple(shares))
    desk = Desk(_shared_machine(), work=work)
    desk.call("royalty", "pay", payment=amount)
    assert [desk.due().get(who, 0) for who in creators] == parts


_MACHINES: list[Executor] = []


def _shared_machine() -> Executor:
    if not _MACHINES:
        _MACHINES.append(_executor("movevm"))
    return _MACHINES[0]


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_model_and_move_vm_agree(seed: int) -> None:
    rng = random.Random(seed)
    machine, model = Desk(_shared_machine()), Desk(ModelExecutor())
    licenses, seen = [LICENSE.id], set()
    for step in range(60):
        module, name, values, payment = _random_call(rng, licenses, step)
        results: list[Any] = []
        for desk in (machine, model):
            try:
                outcome = desk.call(module, name, *values, payment=payment)
                results.append((outcome.changed, outcome.made, outcome.entries))
            except MoveAbort as abort:
                results.append((abort.module, abort.code))
        assert results[0] == results[1], (module, name, values)
        assert (machine.objects, machine.entries) == (model.objects, model.entries)
        seen.add(name if len(results[0]) == 3 else results[0])
        if len(results[0]) == 3 and "license::License" in results[0][1]:
            licenses.append(results[0][1]["license::License"][:32])
    assert len(seen) >= 12, seen


def _random_call(rng: random.Random, licenses: list[bytes], step: int) -> tuple[str, str, tuple[Any, ...], int]:
    who = tuple(rng.sample([A, B, C, BUYER], rng.randrange(1, 4)))
    shares = tuple([10_000 // len(who)] * (len(who) - 1))
    whole = (*shares, 10_000 - sum(shares) + rng.choice([0, 0, 0, 1]))
    flag = rng.random() < 0.5
    calls: list[tuple[str, str, tuple[Any, ...], int]] = [
        ("copyright_registry", "register", (bytes([rng.randrange(3)]) * 32, "t", "u", who, whole), 0),
        ("copyright_registry", "set_disputed", (rng.random() < 0.2,), 0),
        ("copyright_registry", "set_shares", (who, whole), 0),
        ("license", "make_offer", ("u", TERMS, rng.randrange(2), 5, rng.randrange(2), flag, flag), 0),
        ("license", "close_offer", (), 0) if step > 50 else ("royalty", "open", (), 0),
        ("license", "buy", (BUYER,), rng.choice([100, 100, 99])),
        ("license", "issue", (rng.choice(who), TERMS, rng.randrange(3), flag, flag), 0),
        ("license", "revoke", (rng.choice([*licenses, NOT_THERE]),), 0),
        ("license", "hand_over", (rng.choice(who),), 0),
        ("royalty", "pay", (), rng.choice([0, 1, 7, 12_345])),
        ("royalty", "claim", (rng.choice([A, B, C, BUYER]),), 0),
    ]
    return rng.choice(calls)


NOT_THERE = u64(1) * 4
