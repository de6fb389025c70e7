"""How settlement stands, from what the back office says of itself: for the status page and for who waits for money.

Trading does not need it: orders are matched, and fills are final between the accounts, while batches wait.
"""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from platform_api.ports import StatusPort

__all__ = ["LATE_S", "SettlementProgress", "look"]

LATE_S = 60.0
"""A batch is cut every ten seconds and final seconds later: one that waits this long is late."""


class SettlementProgress(Struct, frozen=True):
    """`ok`; `delayed`: it goes on by itself, or when `reason` is gone; `halted`: a person must look.

    `reason`: `` (none), `settlement_halted`, `settlement_stopped`, `paused` (the vaults, by an admin),
    `chain_unavailable`, or `late` (batches wait for longer than a minute). `oldest_s` is the age of the oldest cut
    that is not final, 0 if none waits.
    """

    state: Literal["ok", "delayed", "halted"]
    reason: Literal["", "settlement_halted", "settlement_stopped", "paused", "chain_unavailable", "late"]
    batches_waiting: int
    oldest_s: float

    @property
    def stops(self) -> str:
        """What keeps a batch from being sent, empty if nothing does."""
        return "" if self.reason == "late" else self.reason


def look(status: StatusPort) -> SettlementProgress:
    """As the back office said last. Never waits."""
    office = status.read().get("backoffice") or {}
    says = office.get("settlement") or {}
    waiting, oldest = int(says.get("pending_batches", 0)), float(says.get("unsettled_s", 0.0))
    if not says or not office.get("alive", True):
        return SettlementProgress("delayed", "settlement_stopped", waiting, oldest)
    if says.get("halted"):
        return SettlementProgress("halted", "settlement_halted", waiting, oldest)
    if not says.get("connected"):
        return SettlementProgress("delayed", "paused" if says.get("paused") else "chain_unavailable", waiting, oldest)
    if oldest > LATE_S:
        return SettlementProgress("delayed", "late", waiting, oldest)
    return SettlementProgress("ok", "", waiting, oldest)
