"""Bodies of the withdrawal and deposit routes. Unknown fields are refused; amounts are decimal strings."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from platform_api.texts import Amount, AssetName, Signature, line

__all__ = [
    "Address", "AddressRequest", "Confirmation", "DepositArgument", "DepositRequest", "DepositRoute", "Withdrawal",
    "WithdrawalRequest",
]  # fmt: skip

AddressText = Annotated[
    str, Meta(min_length=66, max_length=66, pattern=r"^0x[0-9a-fA-F]{64}$(?!\n)", examples=["0x" + "5f" * 32])
]


class WithdrawalRequest(Struct, frozen=True, forbid_unknown_fields=True):
    """`address` is left out for the wallet that signed in."""

    asset: AssetName
    amount: Amount
    address: AddressText | None = None


class Confirmation(Struct, frozen=True, forbid_unknown_fields=True):
    """The wallet's signature of the withdrawal's `message`, as a personal message, base64."""

    signature: Signature


class Withdrawal(Struct, frozen=True):
    """`message` is what the wallet signs, byte for byte, until `confirm_by`. A batch pays it not before `not_before`;
    then `batch` and `digest` say where. Until then `waiting` says what it waits for: `confirmation` (by its owner),
    `delay` (until `not_before`), `batch` (the next), `settlement_stopped`, `settlement_halted`, `paused` (the vaults,
    by an admin), or `chain_unavailable`; its money stays held meanwhile. `chain` names the chain, and says so if it is
    the embedded one.
    """

    id: str
    asset: str
    amount: str
    fee: str
    address: str
    status: str
    reason: str | None
    ref: str
    message: str | None
    created_at: str
    confirm_by: str
    not_before: str
    waiting: str | None
    batch: int | None
    digest: str | None
    chain: str
    embedded: bool


class AddressRequest(Struct, frozen=True, forbid_unknown_fields=True):
    address: AddressText
    label: Annotated[str, line(64, "Hardware wallet")] = ""


class Address(Struct, frozen=True):
    """An address that money may go to from `usable_at` on."""

    id: str
    address: str
    label: str
    added_at: str
    usable_at: str


class DepositRequest(Struct, frozen=True, forbid_unknown_fields=True):
    asset: AssetName


class DepositArgument(Struct, frozen=True):
    """One argument of the call, in order. `value` is None for the coin: whichever is to be paid in.

    `shared_version`: of a shared object, the version since which it is.
    """

    name: str
    type: str
    value: str | None
    shared_version: int | None = None


class DepositRoute(Struct, frozen=True):
    """How to pay in on the chain: call `function` of `package` with `type_arguments` and `arguments`, in this order.

    What arrives there, once in a checkpoint, is booked to the account whose wallet `owner` is; `owner` may be another
    than who pays. A coin has 10^-`scale` as its unit. `faucet` (embedded chain only) is the object at which anybody
    mints test coins of the type, with `mint(faucet, amount: u64)` of the coin's module. `byline deposit` does it all.
    """

    asset: str
    package: str
    function: str
    scale: int
    coin_type: str
    type_arguments: list[str]
    arguments: list[DepositArgument]
    vault: str
    owner: str
    faucet: DepositArgument | None
    chain: str
    embedded: bool
