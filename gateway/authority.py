"""Which key may send which command: pure rules over a command's fields, before it is encoded.

An operator may send everything for every account. Any other key acts for its own accounts alone: the account of an
order or withdrawal, and the payer of every leg. `force`, house accounts (those that may owe without bound), the refs by
which money of the chain is booked, and whatever defines entities are the operator's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gateway.keys import ApiKey, Scope

__all__ = ["CANCELS", "Forbidden", "authorize"]

_ORDERS = {"place", "replace"}
CANCELS = {"cancel", "mass_cancel", "cancel_after", "kill", "poison"}
"""Commands that only ever take risk away: they keep a reserve when the exchange is busy."""
_OWN = _ORDERS | CANCELS | {"rearm", "withdraw"}

_OPERATORS_REFS = (
    "dep:", "exit:", "exitrest:", "wd:",
    "launch:", "phase:", "lic:", "buy:", "dist:", "refund:", "payout:", "cover:", "tr:", "faucet:",
)  # fmt: skip
"""A ref runs once: whoever took that of somebody's deposit on the chain, which all can see, would keep it from being
booked; so too those that the platform makes of documents with public ids. `settlement.refs` makes the first four."""


class Forbidden(Exception):
    """The key may not do this. `field` and `rule` say why."""

    def __init__(self, field: str | None, rule: str) -> None:
        super().__init__(rule)
        self.field = field
        self.rule = rule


def authorize(command: dict[str, Any], key: ApiKey, is_house: Callable[[str], bool]) -> dict[str, Any]:
    """The command with the account filled in, or Forbidden. `command` has an `op` that the rulebook knows.

    `is_house` tells of an account's name whether it may owe without bound.
    """
    op = command["op"]
    if Scope.OPERATOR in key.scopes:
        return command
    if op in _OWN and command.get("account") is None and key.accounts:
        command = command | {"account": key.accounts[0]}
    if op in _OWN and command.get("account") not in key.accounts:
        raise Forbidden("account", "a key acts for its own accounts alone")
    if op in _ORDERS or op in ("rearm", "poison"):  # a key that only cancels poisons nothing: ids are a scarce good
        _need(key, Scope.TRADE, op)
    elif op in CANCELS:
        if not key.scopes & (Scope.TRADE | Scope.CANCEL_ONLY):
            raise Forbidden("op", f"{op} needs the scope trade or cancel_only")
    elif op == "withdraw":
        _need(key, Scope.WITHDRAW, op)
        for field in ("place", "legs", "force"):
            if command.get(field) is not None:
                raise Forbidden(field, "only the operator says this of a withdrawal")
        if is_house(command["account"]):
            raise Forbidden("account", "house accounts are the operator's")
        _authorize_ref(command)
    elif op == "transfer":
        _need(key, Scope.TRANSFER, op)
        _authorize_ref(command)
        _authorize_legs(command, key, is_house)
    else:
        raise Forbidden("op", f"{op} needs the scope operator")
    return command


def _authorize_ref(command: dict[str, Any]) -> None:
    ref = command.get("ref")
    if isinstance(ref, str) and ref.startswith(_OPERATORS_REFS):
        raise Forbidden("ref", f"refs that begin with {', '.join(_OPERATORS_REFS)} are the operator's")


def _authorize_legs(command: dict[str, Any], key: ApiKey, is_house: Callable[[str], bool]) -> None:
    if command.get("force") is not None:
        raise Forbidden("force", "only the operator forces a transfer")
    legs = command.get("legs")
    for leg in legs if isinstance(legs, list) else [command]:  # from, asset, amount, shares alone are one leg
        if not isinstance(leg, dict):
            continue  # malformed: the encoder names it
        if leg.get("from") not in key.accounts:
            raise Forbidden("legs.from", "a key pays out of its own accounts alone")
        if is_house(leg["from"]):
            raise Forbidden("legs.from", "house accounts are the operator's")
        shares = leg.get("shares")
        targets = [leg.get("to")] + [
            s.get("to") for s in (shares if isinstance(shares, list) else []) if isinstance(s, dict)
        ]
        if any(isinstance(target, str) and (target.startswith("system:") or is_house(target)) for target in targets):
            raise Forbidden("legs.to", "house accounts are the operator's")


def _need(key: ApiKey, scope: Scope, op: str) -> None:
    if not key.scopes & scope:
        raise Forbidden("op", f"{op} needs the scope {str(scope.name).lower()}")
