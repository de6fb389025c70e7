"""MoveCalls of the rights modules: arguments in, a call of the executor, objects placed and events out."""

from __future__ import annotations

from typing import Any

from settlement.chain.encoding import address_text, u64, vector, vector_u8
from settlement.chain.localsui.interpreter import Interpreter, Made, UnknownShape
from settlement.chain.localsui.rights import (
    FUNCTIONS,
    GENERIC,
    OBJECT_KINDS,
    Function,
    RightsCall,
    RightsOutcome,
    touched,
)
from settlement.chain.localsui.state import CLOCK_KIND, Emitted, Item
from settlement.chain.rights import License, Offer, Till, Work, decode

__all__ = ["rights_call", "rights_events"]


def rights_call(
    machine: Interpreter, package: bytes, name: tuple[str, str], arguments: list[Any], types: list[str]
) -> Any:
    """Run one function of `FUNCTIONS`; its result, or None. Raises UnknownShape or MoveAbort."""
    function = FUNCTIONS[name]
    if len(arguments) != len(function.arguments) or len(types) != int(function.has_coin_type):
        raise UnknownShape(f"arguments of {'::'.join(name)}")
    coin_type = types[0] if types else ""
    items: dict[str, Item] = {}
    values: list[Any] = []
    payment = 0
    for form, argument in zip(function.arguments, arguments, strict=True):
        if form in OBJECT_KINDS:
            items[form] = _object(machine, package, form, argument, coin_type)
        elif form == "coin":
            coin = machine.take_coin(argument)
            if coin.coin_type != coin_type:
                raise UnknownShape(f"a coin of {coin.coin_type} where one of {coin_type} is wanted")
            payment = coin.amount
        elif form == "clock":
            if machine.object(argument).kind != CLOCK_KIND:
                raise UnknownShape("an argument that must be the clock is none")
        else:
            values.append(_value(machine, form, argument))
    objects = {role: machine.contents(item) for role, item in items.items()}
    looked_at = touched(function, objects, tuple(values))
    machine.touch({(parent, key) for _, parent, key in looked_at})
    call = RightsCall(
        package, function, coin_type, objects, tuple(values), payment, machine.now_ms,
        tuple(machine.new_id() for _ in range(function.made)),
        {(parent, key): value for _, parent, key in looked_at
         if (value := machine.entry(parent, key)) is not None},
    )  # fmt: skip
    outcome = machine.state.executor.run_rights(call)
    return _place(machine, call, items, outcome)


def _object(machine: Interpreter, package: bytes, role: str, argument: Any, coin_type: str) -> Item:
    item = machine.take_object(argument) if role == "license" else machine.object(argument)
    kind = f"{address_text(package)}::{OBJECT_KINDS[role]}" + (f"<{coin_type}>" if role in GENERIC else "")
    if item.kind != kind:
        raise UnknownShape(f"{address_text(item.id)} is no {kind}")
    return item


def _value(machine: Interpreter, form: str, argument: Any) -> Any:
    return machine.pure(argument, lambda read: decode(form, read))


def _place(machine: Interpreter, call: RightsCall, items: dict[str, Item], outcome: RightsOutcome) -> Any:
    """Write what changed, put what was made where the function puts it, emit, pay."""
    scratch = machine.scratch
    scratch.gas_units += outcome.gas_units
    for role, contents in outcome.changed.items():
        scratch.contents[items[role].id] = contents
    scratch.entries |= outcome.entries
    machine.touch({(parent, key) for parent, key in outcome.entries})
    scratch.events += rights_events(call, outcome, machine.sender)
    result = None
    for kind, contents in outcome.made.items():
        full = f"{address_text(call.package)}::{kind}"
        if kind == "copyright_registry::WorkCap":
            result = Made(full, contents)
        elif kind == "license::License":
            scratch.created.append((contents[:32], full, contents, call.values[0]))
        else:
            generic = f"<{call.coin_type}>" if call.coin_type else ""
            scratch.created.append((contents[:32], full + generic, contents, None))
    if call.function.probe == "hand_over":
        scratch.owners[items["license"].id] = call.values[0]
    if call.function.probe == "claim":
        before, after = Till.decode(call.objects["till"]), Till.decode(outcome.changed["till"])
        machine.pay(call.values[0], call.coin_type, before.pool - after.pool)
    return result


def rights_events(call: RightsCall, outcome: RightsOutcome, sender: bytes) -> list[Emitted]:
    """What the modules emit for a call that succeeded."""
    return [
        Emitted(call.package, module, name, contents) for module, name, contents in _events(call, outcome, sender)
    ]


def _events(call: RightsCall, outcome: RightsOutcome, sender: bytes) -> list[tuple[str, str, bytes]]:
    function: Function = call.function
    values, changed = call.values, outcome.changed
    now = u64(call.now_ms)
    work = call.objects["work"][:32] if "work" in call.objects else b""
    match function.probe:
        case "register":
            made = outcome.made["copyright_registry::Work"][:32]
            return [("copyright_registry", "WorkRegistered", made + vector_u8(values[0]) + sender + now)]
        case "set_disputed":
            return [("copyright_registry", "DisputeChanged", work + bytes([values[0]]))]
        case "set_shares":
            contents = work + vector(values[0]) + vector(map(u64, values[1]))
            return [("copyright_registry", "SharesChanged", contents)]
        case "make_offer":
            offer = Offer.decode(outcome.made["license::Offer"])
            return [("license", "OfferMade", offer.id + work + u64(offer.price))]
        case "close_offer":
            return [("license", "OfferClosed", call.objects["offer"][:32] + work)]
        case "issue":
            return [_issued(outcome, values[0])]
        case "buy":
            return [_paid(call), _issued(outcome, values[0])]
        case "revoke":
            return [("license", "LicenseRevoked", values[0] + work + now)]
        case "open_till":
            return [("royalty", "TillOpened", outcome.made["royalty::Till"][:32])]
        case "pay":
            return [_paid(call)]
        case "claim":
            amount = Till.decode(call.objects["till"]).pool - Till.decode(changed["till"]).pool
            return [("royalty", "RoyaltyClaimed", changed["till"][:32] + values[0] + u64(amount))]
    return []


def _issued(outcome: RightsOutcome, to: bytes) -> tuple[str, str, bytes]:
    license = License.decode(outcome.made["license::License"])
    contents = license.id + license.work + to + vector_u8(license.terms_hash) + u64(license.expires_ms)
    return "license", "LicenseIssued", contents


def _paid(call: RightsCall) -> tuple[str, str, bytes]:
    work = Work.decode(call.objects["work"])
    contents = call.objects["till"][:32] + work.id + u64(call.payment) + u64(len(work.creators))
    return "royalty", "RoyaltyPaid", contents
