"""What the exchange owes its clients at each cut: one incremental sum tree an asset, and proofs for the last batches.

A client is every account that is not the exchange's own (`rows.is_house`) and does not stand for the world outside
(overdraft `open`). Its leaf is available and held together, at least zero. Places are given in the order of account
indices at the cut in which a balance is first above zero, and kept: so the root follows from the journal alone, and
whoever replays it from the first record comes to the same trees. That is also how they survive a restart.

`close` is called once at every cut, in order. For the last `keep` batches what changed is kept, so that a proof of an
older batch is made from a copy taken back to it. Memory: 96 bytes a balance and level of hashes, 16 bytes a change
kept. Cost of `close`: a pass over accounts × assets in numpy (1 ms a million), and the paths of what changed.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from engine.messages.codes import Overdraft
from engine.messages.errors import ExchangeError
from settlement.ledger import Account, Ledger
from settlement.merkle import AssetRoot, Proof, asset_path, client_id, client_salt, liability_root, pack_path
from settlement.rows import is_house
from settlement.sumtree import SumTree

__all__ = ["KEPT_BATCHES", "Liabilities", "UnknownBatch", "is_client"]

KEPT_BATCHES = 360
"""An hour of cuts."""
_COPIES = 8
"""Trees of older batches that are kept for the next question about the same batch."""

Change = tuple[int, npt.NDArray[np.int64], npt.NDArray[np.uint64]]
"""Of one tree in one batch: leaves before, places that changed, their amounts before."""


class UnknownBatch(ExchangeError):
    """A batch that has not been closed, or so long ago that its tree is not kept."""


@dataclass(slots=True)
class _Asset:
    name: str
    tree: SumTree = field(default_factory=SumTree)
    places: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    """By account index; -1: none."""
    amounts: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    """By account index, as of the last cut."""


@dataclass(frozen=True, slots=True)
class _Closed:
    number: int
    assets: list[AssetRoot]
    changes: dict[int, Change]


class Liabilities:
    """The trees as of the last cut that was closed."""

    def __init__(
        self, key: bytes, keep: int = KEPT_BATCHES, identify: Callable[[str], bytes] | None = None
    ) -> None:
        """`key`: 32 secret bytes from which the salts of accounts are made.

        `identify`: account name → id, for whoever has published names instead of the key; it makes no proofs.
        """
        assert len(key) == 32, len(key)
        self._identify = identify or (lambda account: client_id(client_salt(key, account), account))
        self._key = key
        self._assets: list[_Asset] = []
        self._clients = np.zeros(0, dtype=bool)
        self._index: dict[str, int] = {}
        self._names: list[str] = []
        self._closed: deque[_Closed] = deque(maxlen=keep)
        self._copies: OrderedDict[tuple[int, int], SumTree] = OrderedDict()

    def close(self, number: int, ledger: Ledger) -> tuple[bytes, dict[str, int]]:
        """The ledger stands at the cut of batch `number`. Returns the liability root, and asset → what is owed."""
        self._new_accounts(ledger)
        self._assets += [_Asset(asset.name) for asset in ledger.assets[len(self._assets) :]]
        changes: dict[int, Change] = {}
        for index, asset in enumerate(self._assets):
            if (change := self._bring(asset, ledger.totals[: len(ledger.accounts), index])) is not None:
                changes[index] = change
        roots = [(asset.name, asset.tree.root, asset.tree.total) for asset in self._assets]
        self._closed.append(_Closed(number, roots, changes))
        return liability_root(roots), {name: total for name, _, total in roots}

    @property
    def last(self) -> int:
        """The last batch that was closed, which may not be final yet; 0: none."""
        return self._closed[-1].number if self._closed else 0

    def prove(self, number: int, account: str) -> list[Proof]:
        """A proof for each asset in which the account ever had something, as of batch `number`.

        Raises UnknownBatch; KeyError if no account of that name had a balance by then.
        """
        if not self._closed or not self._closed[0].number <= number <= self._closed[-1].number:
            kept = f"{self._closed[0].number} to {self._closed[-1].number}" if self._closed else "none"
            raise UnknownBatch(f"batch {number}: trees are kept of batches {kept}")
        who = self._index[account]
        salt = client_salt(self._key, account)
        assets = self._closed[number - self._closed[0].number].assets
        proofs = []
        for index, (name, _, total) in enumerate(assets):
            places = self._assets[index].places
            place = int(places[who]) if who < len(places) else -1
            tree = self._tree_at(number, index)
            if 0 <= place < len(tree):
                path, links = pack_path(tree.path(place)), asset_path(assets, name)
                proofs.append(Proof(number, account, salt, name, tree.amount(place), total, path, links))
        if not proofs:
            raise KeyError(account)
        return proofs

    @property
    def number(self) -> int:
        """The last batch closed, 0 before the first."""
        return self._closed[-1].number if self._closed else 0

    # ------------------------------------------------------------ inside

    def _new_accounts(self, ledger: Ledger) -> None:
        known = len(self._clients)
        fresh = ledger.accounts[known:]
        self._clients = np.concatenate((self._clients, np.array([is_client(account) for account in fresh], dtype=bool)))
        self._index.update((account.name, known + number) for number, account in enumerate(fresh))
        self._names += [account.name for account in fresh]

    def _bring(self, asset: _Asset, totals: npt.NDArray[np.int64]) -> Change | None:
        """Take the changes since the last cut into the tree; what they were before, None if nothing changed."""
        more = len(totals) - len(asset.places)
        if more:
            asset.places = np.concatenate((asset.places, np.full(more, -1, dtype=np.int64)))
            asset.amounts = np.concatenate((asset.amounts, np.zeros(more, dtype=np.int64)))
        owed = np.where(self._clients, np.maximum(totals, 0), 0)
        changed = np.flatnonzero(owed != asset.amounts)
        if not len(changed):
            return None
        before = len(asset.tree)
        fresh = changed[asset.places[changed] < 0]
        if len(fresh):
            asset.places[fresh] = before + np.arange(len(fresh))
            asset.tree.append(b"".join(self._identify(self._names[account]) for account in fresh.tolist()))
        places = asset.places[changed]
        order = np.argsort(places)
        old = asset.amounts[changed][order].astype(np.uint64)
        places = places[order]
        asset.tree.set(places, owed[changed][order].astype(np.uint64))
        asset.amounts = owed
        stayed = places < before
        return before, places[stayed], old[stayed]

    def _tree_at(self, number: int, index: int) -> SumTree:
        """The tree of asset `index` as batch `number` left it: the live one, or a copy taken back."""
        first = self._closed[0].number
        later = [
            closed.changes[index]
            for closed in reversed(list(self._closed)[number - first + 1 :])
            if index in closed.changes
        ]
        if not later:
            return self._assets[index].tree
        if (number, index) not in self._copies:
            tree = self._assets[index].tree.copy()
            for before, places, amounts in later:
                tree.shrink(before)
                tree.set(places, amounts)
            self._copies[number, index] = tree
            if len(self._copies) > _COPIES:
                self._copies.popitem(last=False)
        return self._copies[number, index]


def is_client(account: Account) -> bool:
    """Whether the exchange owes the account what stands in it."""
    return not is_house(account.name) and account.overdraft != Overdraft.OPEN
