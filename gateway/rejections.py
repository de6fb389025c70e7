"""Which client ids were refused by the core, and since when that is known: what `resolve` needs beside the core.

The core forgets a refused order at once: a refusal changes nothing, and the id may be used again. So this index
follows the released events, and at the start it is filled from the event log. It is bounded: an account keeps its last
`of_account_max`, all together `total_max`, so nobody's flood of refusals shortens the memory of the others by more
than that. Whatever falls out, or lies before the first event seen, moves the account's horizon: `since` tells the
sequence after which every refusal of the account is known.

Cost: one dict operation for each refused place; nothing for any other event.
"""

from __future__ import annotations

from collections import deque

__all__ = ["Rejections"]


class Rejections:
    """The last refused `place` of each client id, by account index.

    Args:
        since: everything after this sequence will be told by `learn`, in order.
    """

    def __init__(self, since: int, of_account_max: int = 1_000, total_max: int = 100_000) -> None:
        self._since = since
        self._of_account_max = of_account_max
        self._total_max = total_max
        self._accounts: dict[int, dict[bytes, tuple[int, int]]] = {}
        self._horizons: dict[int, int] = {}
        self._order: deque[tuple[int, int, bytes]] = deque()
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def learn(self, account: int, client_id: bytes, sequence: int, reason: int) -> None:
        """A place of that id was refused for `reason` (codes.RejectCode)."""
        known = self._accounts.setdefault(account, {})
        if known.pop(client_id, None) is None:
            self._count += 1
        known[client_id] = (sequence, reason)
        self._order.append((sequence, account, client_id))
        if len(known) > self._of_account_max:
            self._forget(account, next(iter(known)))
        while self._count > self._total_max or len(self._order) > 2 * self._total_max:
            oldest, account, client_id = self._order.popleft()
            found = self._accounts.get(account, {}).get(client_id)
            if found is not None and found[0] == oldest:
                self._forget(account, client_id)

    def find(self, account: int, client_id: bytes) -> tuple[int, int] | None:
        """(sequence, reason) of the latest refusal of that id that is known."""
        return self._accounts.get(account, {}).get(client_id)

    def since(self, account: int) -> int:
        """Every refusal of the account after this sequence is known; 0: all there ever were."""
        return max(self._since, self._horizons.get(account, 0))

    def _forget(self, account: int, client_id: bytes) -> None:
        known = self._accounts[account]
        sequence, _ = known.pop(client_id)
        self._count -= 1
        self._horizons[account] = max(self._horizons.get(account, 0), sequence)
        if not known:
            del self._accounts[account]
