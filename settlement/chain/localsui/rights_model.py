"""The rights modules in Python: the executor's fallback where the Move VM has no wheel.

Every check stands in the order of the Move source. Held to the VM by tests/unit/settlement/test_rights.py.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import msgspec

from settlement.chain.encoding import u64, vector_u8
from settlement.chain.localsui.contract import MoveAbort
from settlement.chain.localsui.rights import RightsCall, RightsOutcome
from settlement.chain.rights import (
    RIGHTS_ABORTS,
    ArbiterCap,
    Grant,
    License,
    Offer,
    Registry,
    Till,
    Work,
    WorkCap,
)

__all__ = ["run_rights", "split"]

BPS = 10_000
MAX_CREATORS = 32
MAX_TEXT_BYTES = 1_024
MAX_DURATION_MS = 3_155_760_000_000
U64_MAX = 2**64 - 1
MODEL_GAS_UNITS = 2_000
_T = TypeVar("_T", bound=msgspec.Struct)


def run_rights(call: RightsCall) -> RightsOutcome:
    """Raises MoveAbort with the module's code."""
    desk = _Desk(call)
    _ACTS[call.function.probe](desk, *call.values)
    changed = {role: contents for role, contents in desk.changed.items() if contents != call.objects[role]}
    return RightsOutcome(changed, desk.made, desk.entries, MODEL_GAS_UNITS)


def split(amount: int, shares_bps: Sequence[int]) -> list[int]:
    """Largest remainder, ties to the earlier; the parts add up to `amount`."""
    parts = [amount * share // BPS for share in shares_bps]
    order = sorted(range(len(parts)), key=lambda place: -(amount * shares_bps[place] % BPS))
    for place in order[: amount - sum(parts)]:
        parts[place] += 1
    return parts


def _require(condition: bool, module: str, code: int) -> None:
    if not condition:
        raise MoveAbort(code, RIGHTS_ABORTS[module][code], module)


class _Desk:
    """One call under way."""

    def __init__(self, call: RightsCall) -> None:
        self.call = call
        self.changed: dict[str, bytes] = {}
        self.made: dict[str, bytes] = {}
        self.entries: dict[tuple[bytes, bytes], bytes | None] = {}

    def get(self, role: str, kind: Callable[[bytes], _T]) -> _T:
        return kind(self.changed.get(role, self.call.objects[role]))

    def put(self, role: str, value: Any, **changes: Any) -> None:
        self.changed[role] = msgspec.structs.replace(value, **changes).encode()

    def controlled(self) -> Work:
        """The work, which the capability controls."""
        work, cap = self.get("work", Work.decode), self.get("cap", WorkCap.decode)
        _require(cap.work == work.id, "copyright_registry", 4)
        return work

    def pay(self) -> None:
        till, work, amount = self.get("till", Till.decode), self.get("work", Work.decode), self.call.payment
        _require(amount > 0, "royalty", 2)
        if till.pool + amount > U64_MAX:
            raise MoveAbort(None, "ARITHMETIC_ERROR: the till would overflow")
        added = 0
        for who, part in zip(work.creators, split(amount, work.shares_bps), strict=True):
            if part:
                before = self.call.entries.get((till.due, who))
                added += before is None
                self.entries[till.due, who] = u64(int.from_bytes(before or b"", "little") + part)
        self.put("till", till, pool=till.pool + amount, due_size=till.due_size + added)

    def license(self, terms_hash: bytes, duration_ms: int, transferable: bool, revocable: bool) -> None:
        work = self.get("work", Work.decode)
        _require(not work.disputed, "license", 1)
        [identity] = self.call.fresh
        now_ms = self.call.now_ms
        self.made["license::License"] = License(
            identity, work.id, terms_hash, now_ms, now_ms + duration_ms, transferable
        ).encode()
        self.entries[work.licenses, identity] = Grant(revocable, 0).encode()
        self.put("work", work, licenses_size=work.licenses_size + 1)


def _check_shares(creators: Sequence[bytes], shares_bps: Sequence[int]) -> None:
    _require(0 < len(creators) <= MAX_CREATORS, "copyright_registry", 6)
    whole = all(0 < share <= BPS for share in shares_bps) and sum(shares_bps) == BPS
    _require(len(creators) == len(shares_bps) and whole, "copyright_registry", 3)
    _require(len(set(creators)) == len(creators), "copyright_registry", 7)


def _check_terms(terms_hash: bytes, duration_ms: int) -> None:
    _require(len(terms_hash) == 32, "license", 7)
    _require(0 < duration_ms <= MAX_DURATION_MS, "license", 7)


def _register(
    desk: _Desk, content_hash: bytes, title: str, uri: str, creators: tuple[bytes, ...], shares_bps: tuple[int, ...]
) -> None:
    registry = desk.get("registry", Registry.decode)
    _require(len(content_hash) == 32, "copyright_registry", 2)
    _require(max(len(title.encode()), len(uri.encode())) <= MAX_TEXT_BYTES, "copyright_registry", 8)
    entry = (registry.works, vector_u8(content_hash))
    _require(entry not in desk.call.entries, "copyright_registry", 1)
    _check_shares(creators, shares_bps)
    identity, licenses, cap = desk.call.fresh
    work = Work(
        identity, content_hash, title, uri, creators, shares_bps, desk.call.now_ms, False, licenses, 0
    )
    desk.made["copyright_registry::Work"] = work.encode()
    desk.made["copyright_registry::WorkCap"] = WorkCap(cap, identity).encode()
    desk.entries[entry] = identity
    desk.put("registry", registry, works_size=registry.works_size + 1, count=registry.count + 1)


def _set_disputed(desk: _Desk, disputed: bool) -> None:
    registry, arbiter = desk.get("registry", Registry.decode), desk.get("arbiter", ArbiterCap.decode)
    _require(arbiter.registry == registry.id, "copyright_registry", 5)
    desk.put("work", desk.get("work", Work.decode), disputed=disputed)


def _set_shares(desk: _Desk, creators: tuple[bytes, ...], shares_bps: tuple[int, ...]) -> None:
    work = desk.controlled()
    _check_shares(creators, shares_bps)
    desk.put("work", work, creators=creators, shares_bps=shares_bps)


def _make_offer(
    desk: _Desk, terms_uri: str, terms_hash: bytes, price: int, duration_ms: int, supply: int, transferable: bool,
    revocable: bool,
) -> None:  # fmt: skip
    work = desk.controlled()
    _check_terms(terms_hash, duration_ms)
    _require(price > 0 and supply > 0 and len(terms_uri.encode()) <= MAX_TEXT_BYTES, "license", 7)
    [identity] = desk.call.fresh
    desk.made["license::Offer"] = Offer(
        identity, work.id, terms_uri, terms_hash, price, duration_ms, supply, transferable, revocable, True
    ).encode()


def _close_offer(desk: _Desk) -> None:
    work, offer = desk.controlled(), desk.get("offer", Offer.decode)
    _require(offer.work == work.id, "license", 4)
    desk.put("offer", offer, open=False)


def _buy(desk: _Desk, to: bytes) -> None:
    offer, work = desk.get("offer", Offer.decode), desk.get("work", Work.decode)
    _require(offer.work == work.id, "license", 4)
    _require(offer.open, "license", 3)
    _require(offer.supply_left > 0, "license", 5)
    _require(desk.call.payment == offer.price, "license", 2)
    desk.put("offer", offer, supply_left=offer.supply_left - 1)
    desk.pay()
    desk.license(offer.terms_hash, offer.duration_ms, offer.transferable, offer.revocable)


def _issue(
    desk: _Desk, to: bytes, terms_hash: bytes, duration_ms: int, transferable: bool, revocable: bool
) -> None:
    desk.controlled()
    _check_terms(terms_hash, duration_ms)
    desk.license(terms_hash, duration_ms, transferable, revocable)


def _revoke(desk: _Desk, identity: bytes) -> None:
    work = desk.controlled()
    entry = (work.licenses, identity)
    _require(entry in desk.call.entries, "license", 8)
    grant = Grant.decode(desk.call.entries[entry])
    _require(grant.revocable, "license", 9)
    _require(grant.revoked_ms == 0, "license", 10)
    desk.entries[entry] = Grant(True, desk.call.now_ms).encode()


def _hand_over(desk: _Desk, to: bytes) -> None:
    _require(desk.get("license", License.decode).transferable, "license", 6)


def _open_till(desk: _Desk) -> None:
    identity, due = desk.call.fresh
    desk.made["royalty::Till"] = Till(identity, 0, due, 0).encode()


def _claim(desk: _Desk, payee: bytes) -> None:
    till = desk.get("till", Till.decode)
    amount = int.from_bytes(desk.call.entries.get((till.due, payee), b""), "little")
    _require(amount > 0, "royalty", 1)
    desk.entries[till.due, payee] = None
    desk.put("till", till, pool=till.pool - amount, due_size=till.due_size - 1)


_ACTS: dict[str, Callable[..., None]] = {
    "register": _register, "set_disputed": _set_disputed, "set_shares": _set_shares, "make_offer": _make_offer,
    "close_offer": _close_offer, "buy": _buy, "issue": _issue, "revoke": _revoke, "hand_over": _hand_over,
    "open_till": _open_till, "pay": _Desk.pay, "claim": _claim,
}  # fmt: skip
