"""How settlement stands, from what the back office says of itself: for the status page and for who waits for money.

Trading does not need it: orders are matched, and fills are final between the accounts, while batches wait.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, Literal

from msgspec import Struct

from platform_api.ports import StatusPort

__all__ = ["LATE_S", "SettlementProgress", "look", "silent_s", "takes_withdrawals"]

LATE_S = 60.0
"""A batch is cut every ten seconds and final seconds later: one that waits this long is late. And the back office says
how it stands twice a second: one that has said nothing for so long does not run, whatever its process does."""


class SettlementProgress(Struct, frozen=True):
    """`ok`; `delayed`: it goes on by itself, or when `reason` is gone; `halted`: a person must look.

    `reason`: `` (none), `settlement_halted`, `settlement_stopped`, `paused` (the vaults, by an admin),
    `chain_unavailable`, or `late` (batches wait for longer than a minute). `batches_waiting` and `oldest_s` are of the
    cuts that are not final, sealed or not; of a back office that does not answer, as it said last, and since then.
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
    says, brake, silent = office.get("settlement") or {}, office.get("brake") or {}, silent_s(office)
    waiting = max(int(says.get("pending_batches", 0)), int(brake.get("unsettled_cuts", 0)))
    oldest = float(brake.get("unsettled_s", 0.0))
    if not says or not office.get("alive", True) or silent > LATE_S:
        return SettlementProgress("delayed", "settlement_stopped", waiting, round(oldest + silent, 3))
    if says.get("halted"):
        return SettlementProgress("halted", "settlement_halted", waiting, oldest)
    if not says.get("connected"):
        return SettlementProgress("delayed", "paused" if says.get("paused") else "chain_unavailable", waiting, oldest)
    if oldest > LATE_S:
        return SettlementProgress("delayed", "late", waiting, oldest)
    return SettlementProgress("ok", "", waiting, oldest)


def takes_withdrawals(status: StatusPort) -> bool:
    """False while settlement is halted, or the back office has said nothing more for a minute: what is asked for then
    would be held, and nobody knows for how long. A restart is shorter, and a chain that is away comes back."""
    office = status.read().get("backoffice") or {}
    return silent_s(office) <= LATE_S and look(status).state != "halted"


def silent_s(process: Mapping[str, Any]) -> float:
    """For how long a process has said nothing."""
    return max(0.0, time.time() - float(process["written_at"])) if "written_at" in process else 0.0
