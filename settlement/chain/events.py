"""The contract's events as settlement reads them: one flat record for every kind, decoded from BCS.

Field orders are those of `settlement.move`. An event of another module or an unknown kind is none of ours.
"""

from __future__ import annotations

import re

import msgspec

from settlement.chain.encoding import Reader, address_text

__all__ = ["ChainEvent", "decode_event"]


class ChainEvent(msgspec.Struct, frozen=True):
    """Something a vault did. (`digest`, `index`) is unique; `index` counts all events of the transaction.

    `owner` is the row. `amount` is units; of BatchCommitted it is the batch number. `at_ms` is the chain's clock, UTC.
    """

    checkpoint: int
    digest: str
    index: int
    kind: str
    vault: str
    owner: bytes = b""
    amount: int = 0
    at_ms: int = 0
    ready_ms: int = 0
    """Of ExitRequested: from when it can be claimed."""
    reference: bytes = b""
    """Of Deposited: whom it is for, as the payer says. Anybody may write anything there."""

    @property
    def reference_text(self) -> str:
        """Fit to be shown: plain words as they are, everything else in hex."""
        text = self.reference.decode("ascii", "replace")
        return text if _PLAIN_TEXT.fullmatch(text) else f"0x{self.reference.hex()}"


_PLAIN_TEXT = re.compile(r"[A-Za-z0-9 ._:/@#+-]*")
_AMOUNT_AFTER = {
    # kind → bytes between owner and amount
    "Deposited": 0, "ExitRequested": 0, "ExitPaid": 0, "ExitShortfall": 0, "Withdrawn": 32, "WithdrawalSkipped": 32,
}  # fmt: skip
_PLAIN = ("VaultOpened", "PauseChanged", "OperatorChanged")


def decode_event(
    event_type: str, contents: bytes, package: str, *, checkpoint: int, digest: str, index: int, at_ms: int = 0
) -> ChainEvent | None:
    """None if it is no vault event of `package`. ValueError if the bytes do not fit the kind."""
    head, _, kind = event_type.partition("<")[0].rpartition("::")
    if head != f"{package}::settlement":
        return None
    read = Reader(contents)
    if kind in _AMOUNT_AFTER:
        vault, owner = address_text(read.take(32)), read.take(32)
        read.take(_AMOUNT_AFTER[kind])
        amount = read.u64()
        ready_ms = read.u64() if kind == "ExitRequested" else 0
        reference = b""
        if kind == "Deposited":
            read.u64()  # the row's balance after it
            reference = read.vector_u8()
        return ChainEvent(checkpoint, digest, index, kind, vault, owner, amount, at_ms, ready_ms, reference)
    if kind == "ExitCancelled":
        return ChainEvent(checkpoint, digest, index, kind, address_text(read.take(32)), read.take(32), 0, at_ms)
    if kind == "BatchCommitted":
        return ChainEvent(checkpoint, digest, index, kind, address_text(read.take(32)), b"", read.u64(), at_ms)
    if kind in _PLAIN:
        return ChainEvent(checkpoint, digest, index, kind, address_text(read.take(32)), b"", 0, at_ms)
    return None
