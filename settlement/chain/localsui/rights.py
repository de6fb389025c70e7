"""The functions of the rights modules as data: arguments, objects, tables; and a call of one under way.

`RightsCall` is what an executor runs: contents of the objects by role, plain values, the table entries it may touch and
the ids for what it makes. `RightsOutcome` is what changed.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from settlement.chain.encoding import type_tag, vector_u8
from settlement.chain.rights import Registry, Till, Work

__all__ = ["FUNCTIONS", "OBJECT_KINDS", "TABLES", "Function", "RightsCall", "RightsOutcome", "Table", "touched"]

OBJECT_KINDS = {
    "registry": "copyright_registry::Registry", "arbiter": "copyright_registry::ArbiterCap",
    "work": "copyright_registry::Work", "cap": "copyright_registry::WorkCap", "offer": "license::Offer",
    "license": "license::License", "till": "royalty::Till",
}  # fmt: skip
GENERIC = ("offer", "till")
"""Roles whose type names the coin."""


@dataclass(frozen=True, slots=True)
class Function:
    """`arguments`: a role, `coin`, `clock`, or the form of a plain value (`settlement.chain.rights.encode`)."""

    module: str
    probe: str
    arguments: tuple[str, ...]
    made: int = 0
    """How many ids it takes from the transaction."""
    has_coin_type: bool = False


FUNCTIONS = {
    ("copyright_registry", "register"): Function(
        "copyright_registry", "register", ("registry", "bytes", "text", "text", "ids", "u64s", "clock"), 3
    ),
    ("copyright_registry", "set_disputed"): Function(
        "copyright_registry", "set_disputed", ("registry", "arbiter", "work", "bool")
    ),
    ("copyright_registry", "set_shares"): Function("copyright_registry", "set_shares", ("work", "cap", "ids", "u64s")),
    ("license", "make_offer"): Function(
        "license", "make_offer", ("work", "cap", "text", "bytes", "u64", "u64", "u64", "bool", "bool"), 1, True
    ),
    ("license", "close_offer"): Function("license", "close_offer", ("offer", "work", "cap"), 0, True),
    ("license", "buy"): Function("license", "buy", ("offer", "work", "till", "coin", "id", "clock"), 1, True),
    ("license", "issue"): Function(
        "license", "issue", ("work", "cap", "id", "bytes", "u64", "bool", "bool", "clock"), 1
    ),
    ("license", "revoke"): Function("license", "revoke", ("work", "cap", "id", "clock")),
    ("license", "hand_over"): Function("license", "hand_over", ("license", "id")),
    ("royalty", "open"): Function("royalty", "open_till", (), 2, True),
    ("royalty", "pay"): Function("royalty", "pay", ("till", "work", "coin"), 0, True),
    ("royalty", "claim"): Function("royalty", "claim", ("till", "id"), 0, True),
}


@dataclass(frozen=True, slots=True)
class Table:
    """Type of a table's keys and values; `{}` stands for the package."""

    key: str
    value: str

    @property
    def key_tag(self) -> bytes:
        return type_tag(self.key)


TABLES = {
    "works": Table("vector<u8>", "0x2::object::ID"),
    "licenses": Table("0x2::object::ID", "{}::copyright_registry::Grant"),
    "due": Table("address", "u64"),
}


@dataclass(frozen=True, slots=True)
class RightsCall:
    """`objects`: role → contents. `values`: plain arguments in order. `entries`: (table's id, key) → value, those that
    exist among `touched`. `fresh`: ids for what is made. `coin_type` is empty where the function has none.
    """

    package: bytes
    function: Function
    coin_type: str
    objects: dict[str, bytes]
    values: tuple[Any, ...]
    payment: int
    now_ms: int
    fresh: tuple[bytes, ...]
    entries: dict[tuple[bytes, bytes], bytes] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RightsOutcome:
    """`changed`: role → contents. `made`: kind → contents. `entries`: (table, key) → value, None: removed."""

    changed: dict[str, bytes]
    made: dict[str, bytes]
    entries: dict[tuple[bytes, bytes], bytes | None]
    gas_units: int


def touched(function: Function, objects: dict[str, bytes], values: tuple[Any, ...]) -> list[tuple[str, bytes, bytes]]:
    """Table entries that a call looks at: name of the table, its id, key."""
    match function.probe:
        case "register":
            return [("works", Registry.decode(objects["registry"]).works, vector_u8(values[0]))]
        case "revoke":
            return [("licenses", Work.decode(objects["work"]).licenses, values[0])]
        case "pay" | "buy":
            due = Till.decode(objects["till"]).due
            return [("due", due, who) for who in Work.decode(objects["work"]).creators]
        case "claim":
            return [("due", Till.decode(objects["till"]).due, values[0])]
    return []
