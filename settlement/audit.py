"""The double-entry check at each cut: a second core over the journal, the running core's hash, the ledger's totals.

    journal ──▶ second core ──▶ state hash ══ hash in the cut's event (what the running core was)
                           └──▶ balances   ══ totals of the ledger (what the events said)

If both hold, three records of the same money agree: the running core's state, what it told, and the commands it was
given. Else settlement halts before the batch is sealed.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np

from settlement.ledger import Cut, Disagreement, Ledger

__all__ = ["AuditPort", "check_cut"]


class AuditPort(Protocol):
    """A core that goes through the journal again."""

    async def at_cut(self, sequence: int) -> tuple[bytes, np.ndarray]:
        """State hash of the cut with that sequence, and all balances then: account, asset, available, held.

        Raises Unavailable: the journal does not hold it yet.
        """


async def check_cut(audit: AuditPort, cut: Cut, ledger: Ledger) -> None:
    """The ledger stands at the cut. Raises Disagreement, Unavailable (ask again)."""
    state_hash, balances = await audit.at_cut(cut.last_sequence)
    if state_hash != cut.state_hash:
        raise Disagreement(
            f"batch {cut.batch}: the journal gives state {state_hash.hex()} at sequence {cut.last_sequence}, the "
            f"running core had {cut.state_hash.hex()}"
        )
    account, asset = balances["account"].astype(np.int64), balances["asset"].astype(np.int64)
    accounts, assets = len(ledger.accounts), len(ledger.assets)
    if len(balances) and (account.max() >= accounts or asset.max() >= assets):
        raise Disagreement(f"batch {cut.batch}: the core has an account or asset that no event has told of")
    core = np.zeros((accounts, assets), dtype=np.int64)
    np.add.at(core, (account, asset), balances["available"] + balances["held"])
    wrong = np.argwhere(core != ledger.totals[:accounts, :assets])
    if len(wrong):
        who, what = wrong[0].tolist()
        raise Disagreement(
            f"batch {cut.batch}: account {ledger.accounts[who].name} has {int(core[who, what])} "
            f"{ledger.assets[what].name} in the core, {ledger.total(who, what)} by the events"
        )
