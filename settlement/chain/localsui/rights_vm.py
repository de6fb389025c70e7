"""Runs the rights modules in the Move VM: what a call hands in, and what is read out of the probe's return values.

The VM gives new objects ids of its own; they get those of the transaction instead, everywhere they appear.
"""

from __future__ import annotations

from typing import Any

from settlement.chain.encoding import (
    CLOCK_ID,
    Reader,
    address_text,
    blake2b256,
    dynamic_field_id,
    u64,
    vector_u8,
)
from settlement.chain.localsui.rights import GENERIC, OBJECT_KINDS, TABLES, RightsCall, RightsOutcome, touched
from settlement.chain.rights import Grant, Offer, Registry, Till, Work, WorkCap, encode

__all__ = ["children_of", "inputs_of", "outcome_of"]

_RETURNS = {
    # probe → what it returns in order: a role changed, or the kind of an object made
    "register": ("registry", "copyright_registry::Work", "copyright_registry::WorkCap"),
    "set_disputed": ("work",), "set_shares": ("work",), "make_offer": ("license::Offer",), "close_offer": ("offer",),
    "buy": ("offer", "work", "till", "license::License"), "issue": ("work", "license::License"), "revoke": ("work",),
    "hand_over": ("license",), "open_till": ("royalty::Till",), "pay": ("till",), "claim": ("till",),
}  # fmt: skip


def inputs_of(call: RightsCall) -> tuple[list[tuple[bytes, str, bytes, bool]], list[bytes]]:
    """Objects (id, type, contents, whether it is shared) and pure arguments, as the probes want them: objects in the
    function's order, the payment, the clock; then the plain values.
    """
    package = address_text(call.package)
    objects = []
    for role, contents in call.objects.items():
        kind = f"{package}::{OBJECT_KINDS[role]}" + (f"<{call.coin_type}>" if role in GENERIC else "")
        objects.append((contents[:32], kind, contents, role in ("registry", "work", "offer", "till")))
    if "coin" in call.function.arguments:
        identity = blake2b256(b"payment")
        objects.append((identity, f"0x2::coin::Coin<{call.coin_type}>", identity + u64(call.payment), False))
    if "clock" in call.function.arguments:
        objects.append((CLOCK_ID, "0x2::clock::Clock", CLOCK_ID + u64(call.now_ms), True))
    forms = [form for form in call.function.arguments if form not in (*OBJECT_KINDS, "coin", "clock")]
    return objects, [encode(form, value) for form, value in zip(forms, call.values, strict=True)]


def children_of(call: RightsCall) -> dict[str, list[tuple[bytes, str, bytes]]]:
    """Table entries by the id of their table: id, type, contents."""
    package = address_text(call.package)
    children: dict[str, list[tuple[bytes, str, bytes]]] = {}
    for name, parent, key in touched(call.function, call.objects, call.values):
        if (value := call.entries.get((parent, key))) is not None:
            table = TABLES[name]
            identity = dynamic_field_id(parent, key, table.key_tag)
            kind = f"0x2::dynamic_field::Field<{table.key}, {table.value.format(package)}>"
            children.setdefault(address_text(parent), []).append((identity, kind, identity + key + value))
    return children


def outcome_of(call: RightsCall, returned: list[bytes], gas_units: int) -> RightsOutcome:
    """`returned`: the BCS of the probe's return values."""
    names = _RETURNS[call.function.probe]
    contents = [Reader(raw).vector_u8() for raw in returned[: len(names)]]
    found = dict(zip(names, contents, strict=True))
    for theirs, ours in zip(_fresh(found), call.fresh, strict=True):
        found = {name: data.replace(theirs, ours) for name, data in found.items()}
    changed = {name: data for name, data in found.items() if data != call.objects.get(name, data)}
    made = {name: data for name, data in found.items() if name not in OBJECT_KINDS}
    entries = _entries(call, made, returned[len(names) :])
    return RightsOutcome(changed, made, entries, gas_units)


def _fresh(found: dict[str, bytes]) -> list[bytes]:
    """The ids that the VM made, in the order in which it made them."""
    if "copyright_registry::Work" in found:
        work = Work.decode(found["copyright_registry::Work"])
        return [work.id, work.licenses, WorkCap.decode(found["copyright_registry::WorkCap"]).id]
    if "royalty::Till" in found:
        till = Till.decode(found["royalty::Till"])
        return [till.id, till.due]
    return [data[:32] for name, data in found.items() if name not in OBJECT_KINDS]


def _entries(call: RightsCall, made: dict[str, bytes], rest: list[bytes]) -> dict[tuple[bytes, bytes], bytes | None]:
    """Table entries that changed. What a licence's entry says follows from the call; all else the VM has told."""
    entries: dict[tuple[bytes, bytes], bytes | None] = {}
    values: tuple[Any, ...] = call.values
    match call.function.probe:
        case "register":
            works = Registry.decode(call.objects["registry"]).works
            entries[works, vector_u8(values[0])] = made["copyright_registry::Work"][:32]
        case "buy" | "issue":
            work = Work.decode(call.objects["work"])
            is_sold = "offer" in call.objects
            revocable = Offer.decode(call.objects["offer"]).revocable if is_sold else values[4]
            entries[work.licenses, made["license::License"][:32]] = Grant(revocable, 0).encode()
        case "revoke":
            licenses = Work.decode(call.objects["work"]).licenses
            entries[licenses, values[0]] = Grant(True, Reader(rest[0]).u64()).encode()
        case "claim":
            entries[Till.decode(call.objects["till"]).due, values[0]] = None
    if call.function.probe in ("buy", "pay"):
        due = Till.decode(call.objects["till"]).due
        creators = Work.decode(call.objects["work"]).creators
        for who, amount in zip(creators, Reader(rest[0]).vector(8), strict=True):
            if amount != u64(0) and amount != call.entries.get((due, who)):
                entries[due, who] = amount
    return entries
