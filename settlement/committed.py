"""What a transaction tells which vaults: read from its own bytes, which its digest binds, and from its events.

The bytes name each vault that the transaction's calls commit to, with the coin it is for. The events name each vault
that anything happened to, also where a helper's code made the call and the bytes show none. Both together are all the
vaults of a batch: a file that names fewer hides one. Decoding only; `settlement.verify` compares.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec
from pysui.sui.sui_bcs import bcs

from settlement.chain.encoding import Reader, address_bytes, address_text
from settlement.chain.events import ChainEvent, decode_event

__all__ = ["Commitment", "commitments", "normal_package", "normal_type", "vault_events"]


class Commitment(msgspec.Struct, frozen=True):
    """What a transaction says to one vault about one part of a batch. `coin_type` as `normal_type` writes it."""

    package: str
    vault: str
    coin_type: str
    batch: int
    part: int
    parts: int
    previous: bytes
    root: bytes
    liabilities: int
    trades_digest: bytes


def commitments(raw: bytes) -> tuple[str, list[Commitment]]:
    """Sender, and what the transaction's calls of `settlement` commit; maybe nothing. Any exception: unreadable."""
    data = bcs.TransactionData.deserialize(raw).value
    program = data.TransactionKind.value
    inputs = list(program.Inputs)

    def pure(argument: Any) -> Reader:
        if argument.enum_name != "Input" or inputs[argument.value].enum_name != "Pure":
            raise ValueError("an argument of the batch is no plain value")
        return Reader(bytes(inputs[argument.value].value))

    def thing(argument: Any) -> str:
        text: str = inputs[argument.value].value.value.ObjectID.to_address_str()
        return address_text(address_bytes(text))

    found: list[Commitment] = []
    open_batches: dict[int, list[Any]] = {}
    for position, command in enumerate(program.Command):
        if command.enum_name != "MoveCall" or command.value.Module != "settlement":
            continue
        call = command.value
        package, arguments = address_text(address_bytes(call.Package.to_address_str())), list(call.Arguments)
        if call.Function in ("commit_batch", "begin"):
            [coin] = call.Type_Arguments
            head: list[Any] = [package, thing(arguments[0]), normal_type(coin.type_tag_to_str())]
            head += [pure(argument).u64() for argument in arguments[2:5]]
            head.append(pure(arguments[5]).vector_u8())
            if call.Function == "begin":
                open_batches[position] = head
                continue
            says = arguments[6:9]
        elif call.Function == "finish":
            begun = arguments[1].value if arguments[1].enum_name == "Result" else arguments[1].value[0]
            head, says = open_batches.pop(begun), arguments[2:5]
        else:
            continue
        root, owed, trades = pure(says[0]).vector_u8(), pure(says[1]).u64(), pure(says[2]).vector_u8()
        found.append(Commitment(*[*head, root, owed, trades]))
    return address_text(address_bytes(data.Sender.to_address_str())), found


def vault_events(events: Iterable[tuple[str, bytes]], package: str, digest: str) -> list[ChainEvent]:
    """What happened to vaults of `package`. `events`: (type, BCS). ValueError, with its index: one cannot be read."""
    found = []
    for index, (kind, contents) in enumerate(events):
        head, _, rest = kind.partition("::")
        try:
            event = decode_event(
                f"{normal_package(head)}::{rest}", contents, package, checkpoint=0, digest=digest, index=index
            )
        except ValueError as error:
            raise ValueError(f"event {index} cannot be read: {error}") from error
        if event is not None:
            found.append(event)
    return found


def normal_package(text: str) -> str:
    """An address in its long form. ValueError: it is none."""
    return address_text(address_bytes(text))


def normal_type(text: str) -> str:
    """A coin type with its package in the long form. ValueError: it names no package."""
    package, _, rest = text.partition("::")
    return f"{normal_package(package)}::{rest}"
