"""The life of a withdrawal's document: one table, and the statements that take a step in it.

    requested ──held──▶ held ──confirm──▶ confirmed ──release──▶ released ──paid──▶ settled
        │  └──refuse──▶ refusing ──closed──▶ failed ◀──skip────────┘
        └───────┬────────┴──────cancel──────┘
                ▼
            canceling ──voided──▶ canceled

    requested   written, its command not yet answered     confirmed   the wallet has signed for it
    held        the core holds the money                  released    a batch may pay it: no way back by the user
    refusing    the core refused it; its ref is closed    settled     paid by a final batch, number and digest known

A step changes a document only if it stands where the table lets the step begin, in one statement: two drivers at once,
or the same step again, do no harm. What the core did decides; a document never runs ahead of its answer.
"""

from __future__ import annotations

from typing import Any
from uuid import UUID

__all__ = ["STEPS", "TRANSITIONS", "take"]

TRANSITIONS: dict[tuple[str, str], str] = {
    ("requested", "held"): "held",
    ("requested", "refuse"): "refusing",
    ("refusing", "closed"): "failed",
    ("requested", "cancel"): "canceling",
    ("held", "confirm"): "confirmed",
    ("held", "cancel"): "canceling",
    ("confirmed", "cancel"): "canceling",
    ("confirmed", "release"): "released",
    ("released", "paid"): "settled",
    ("released", "skip"): "failed",
    ("canceling", "voided"): "canceled",
}
STEPS = {step for _, step in TRANSITIONS}
_COLUMNS = ("reason", "confirmed_at", "batch", "digest")


async def take(db: Any, withdrawal_id: UUID, step: str, **columns: Any) -> bool:
    """Take a step; whether the document stood where it can begin. `columns`: those that change with it."""
    assert set(columns) <= set(_COLUMNS), columns
    sources = [source for source, name in TRANSITIONS if name == step]
    targets = {target for (_, name), target in TRANSITIONS.items() if name == step}
    assert len(targets) == 1, step
    sets = "".join(f", {name} = ${number}" for number, name in enumerate(columns, 4))
    tag = await db.execute(
        f"UPDATE money.withdrawal SET status = $2, updated_at = now(){sets} WHERE id = $1 AND status = ANY($3)",
        withdrawal_id, targets.pop(), sources, *columns.values(),
    )  # fmt: skip
    return bool(tag == "UPDATE 1")
