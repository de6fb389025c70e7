"""From two cuts to one batch: what each chain row must receive or pay, asset by asset. Pure.

Chain rows. An account with a `row` of its own is settled there; the house's accounts in the treasury row; every other
client in the custody row; accounts outside (`system:external`, and all others with overdraft `open` but `system:fees`)
are the world beyond the exchange and have none. A row's balance on the chain after the batch is the sum of its accounts
at the cut, less withdrawals paid there that the core has not booked yet:

    entry(row) = target(row) - row on chain - deposits(row) - arrived(row) + payouts(row) + left(row)

Five kinds of change stand beside each other. `arrived` are deposits that somebody made on the chain, `left` forced
exits that it has paid: both stand there before the exchange books them, and are only counted here. `deposits` are what
the core booked from outside without the chain: the embedded chain's named faucet makes them in the same transaction,
before the entries; on a network without a faucet they are a Disagreement. Payouts come after the entries.
The formula also moves a whole balance when an account links its wallet. Entries of one asset sum to zero; a row below
zero, or a sum that is not zero, is a Disagreement and nothing is sent. A `forced` account below zero is covered by the
others of its row.

A withdrawal with a document (`wd:…`) is paid once it is released, from whatever row its account has, to the address
that the release names. One without goes to its account's own row; a house row has no key and is never paid so, for the
money would be lost: such a withdrawal stays unpaid, is named in `unpayable`, and holds up nothing else. If the core
books one all the same, its units stay in the custody row. So do those that went to another place than the chain, as a
refund that a payment provider has paid.

A pended withdrawal of several legs to the chain is not paid either: the contract skips payouts one by one, when a
forced exit has emptied a row in one vault, and the core posts or voids a ref as a whole.

A batch that touches more rows than a transaction may goes in parts, payers first: each part is made zero-sum by one
entry of the clearing row, which ends at zero.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import msgspec
import numpy as np

from settlement.chain.port import CoinPart, Part, Payout
from settlement.ledger import EXTERNAL, Cut, Disagreement, Ledger, Posting
from settlement.liabilities import Liabilities
from settlement.refs import DOCUMENTED
from settlement.rows import CLEARING_ROW, CUSTODY_ROW, KEYLESS_ROWS, TREASURY_ROW, chain_row
from settlement.statement import Owed, Statement

__all__ = ["CLEARING_ROW", "CUSTODY_ROW", "TREASURY_ROW", "Batch", "Netting", "Unpayable", "split"]

KEPT_NAMED = 100
"""Booked but unpayable withdrawals that are still named; their units count for ever."""

ROWS_PER_PART = 900
"""Of the 1,000 dynamic fields a transaction may touch; the rest is room for the clearing row of each vault."""

PAYOUT_WEIGHT = 18
"""Fifty payouts a part: each is a command of its own, about 250 bytes, and 20 ms in the embedded node."""


class Batch(msgspec.Struct, frozen=True):
    """A sealed batch: everything that goes to the chain and what it is derived from. `cut_ts` in ns, UTC."""

    number: int
    first_sequence: int
    last_sequence: int
    state_hash: bytes
    cut_ts: int
    sealed_ts: int
    root: bytes
    trades_digest: bytes
    trade_count: int
    row_count: int
    parts: list[Part]
    pools: dict[str, int]
    """Asset → units in its vault once the batch is final, but for what `beside` does not count yet."""
    beside: dict[str, int] = {}
    """Asset → units that came beside the batches and are counted up to this cut, since the beginning: deposits on the
    chain, less forced exits, plus payouts that the contract skipped."""
    statement: Statement | None = None
    """What `root` is the hash of; None in batches of before there were statements."""


class Unpayable(msgspec.Struct, frozen=True):
    """A withdrawal that no batch pays, and why."""

    ref: str
    account: str
    asset: str
    amount: int
    booked: bool
    reason: str


class Netting:
    """The rows as they will be on the chain once every sealed batch is final."""

    def __init__(
        self,
        *,
        pay_pending: bool,
        liabilities: Liabilities | None = None,
        publication: Callable[[], tuple[int, bytes]] | None = None,
    ) -> None:
        """`pay_pending`: withdrawals are paid when they are pended, and the caller then books them with
        `withdraw_settled`. Otherwise they are paid once the core has booked them.

        `liabilities`: with the exchange's key. By default with a key that everybody knows: ids then hide no names.
        `publication`: last batch and digest of the published journal.
        """
        self._pay_pending = pay_pending
        self.liabilities = liabilities or Liabilities(bytes(32))
        self._publication = publication or (lambda: (0, bytes(32)))
        self.rows: dict[str, dict[bytes, int]] = {}
        self.chain: dict[str, bytes] = {}
        """Asset → chain value of its vault."""
        self.paid: dict[str, list[tuple[str, bytes, int]]] = {}
        """Withdrawals paid and not booked: ref → (asset, row, units)."""
        self.kept: dict[str, int] = {}
        """Asset → units of unpayable withdrawals that the core has booked: in the custody row, owed to no account."""
        self.beside: dict[str, int] = {}
        """See Batch."""
        self.skipped: set[str] = set()
        """Withdrawals that the contract skipped: they fail, and are never paid."""
        self._unpayable: list[Unpayable] = []
        self._kept_named: deque[Unpayable] = deque(maxlen=KEPT_NAMED)

    @property
    def unpayable(self) -> list[Unpayable]:
        """As of the last cut: those pended, and the latest of those booked."""
        return [*self._unpayable, *self._kept_named]

    def seal(
        self,
        ledger: Ledger,
        cut: Cut,
        now_ns: int,
        released: Mapping[str, bytes] | None = None,
        paid_in: Mapping[tuple[str, bytes], int] | None = None,
    ) -> Batch:
        """Close the period that ends at `cut`; the ledger stands there. Raises Disagreement and changes nothing.

        `released`: withdrawals with a document that may be paid now, ref → recipient. `paid_in`: (asset, row) → units
        that were paid in on the chain and are not in the ledger: by so much a row of the books may be below zero.
        """
        ledger.check()
        payouts, booked = self._payouts(ledger, released or {})
        beside = dict(self.beside)
        kept = dict(self.kept)
        for item in self._newly_kept(ledger, booked | {payout.ref for legs in payouts.values() for payout in legs}):
            kept[item.asset] = kept.get(item.asset, 0) + item.amount
        unbooked = {ref: legs for ref, legs in self.paid.items() if ref not in booked}
        coins: list[CoinPart] = []
        pools: dict[str, int] = {}
        leaving: dict[str, int] = {}
        row_of = [chain_row(account.name, account.row) for account in ledger.accounts]
        for index, asset in enumerate(ledger.assets):
            if not asset.settled:
                continue
            targets = _targets(ledger, index, row_of)
            if amount := kept.get(asset.name, 0):
                targets[CUSTODY_ROW] = targets.get(CUSTODY_ROW, 0) + amount
            paying = payouts.get(asset.name, [])
            held_back = [leg for legs in unbooked.values() for leg in legs]
            held_back += [(asset.name, payout.row, payout.amount) for payout in paying if payout.ref in ledger.pending]
            for name, row, amount in held_back:
                if name == asset.name:
                    targets[row] = targets.get(row, 0) - amount
                    leaving[name] = leaving.get(name, 0) + amount
            deposits = _by_row(
                (row_of[account], amount) for (account, kind), amount in ledger.border.deposits.items() if kind == index
            )
            came = _by_row((row, n) for (row, kind), n in ledger.border.arrived.items() if kind == index)
            went = _by_row((row, n) for (row, kind), n in ledger.border.left.items() if kind == index)
            entries = self._entries(asset.name, targets, deposits, paying, came, went, paid_in or {})
            previous = self.chain.get(asset.name, bytes(32))
            coins.append(
                CoinPart(
                    asset.name, previous, entries, sorted(deposits.items()), paying, sorted(came.items()),
                    sorted(went.items()),
                )
            )  # fmt: skip
            pools[asset.name] = sum(targets.values())
            beside[asset.name] = beside.get(asset.name, 0) + sum(came.values()) - sum(went.values())
        statement = self._statement(ledger, cut, leaving)
        root, owed = statement.root(), {item.asset: item.owed for item in statement.assets}
        coins = [msgspec.structs.replace(coin, liabilities=owed[coin.asset]) for coin in coins]
        parts = split(cut.batch, root, cut.trades_digest, coins)
        rows = sum(len(coin.entries) for coin in coins)
        batch = Batch(
            cut.batch, cut.first_sequence, cut.last_sequence, cut.state_hash, cut.ts, now_ns, root,
            cut.trades_digest, cut.trade_count, rows, parts, pools, beside, statement,
        )  # fmt: skip
        self.take(batch, ledger, booked)
        return batch

    def take(self, batch: Batch, ledger: Ledger, booked: Iterable[str] | None = None) -> None:
        """Count a sealed batch in. At restart the stored batches come through here, not through `seal`.

        Raises Disagreement if a stored batch states other liabilities than the events and the key give.
        """
        if self.liabilities.number < batch.number:
            root, _ = self.liabilities.close(batch.number, ledger)
            if batch.statement is not None and batch.statement.liability_root != root:
                raise Disagreement(f"batch {batch.number} is stored with another liability root: is the key another?")
        settled = {payout.ref for part in batch.parts for coin in part.coins for payout in coin.payouts}
        for item in self._newly_kept(ledger, settled | self.paid.keys()):
            self.kept[item.asset] = self.kept.get(item.asset, 0) + item.amount
            self._kept_named.append(item)
        self._unpayable = [
            item
            for ref, postings in ledger.pending.items()
            if ref not in settled and ref not in self.paid and not ref.startswith(DOCUMENTED)
            for item in _unpayable(ledger, ref, postings, booked=False)
        ]
        for part in batch.parts:
            for coin in part.coins:
                rows = self.rows.setdefault(coin.asset, {})
                for row, amount in (*coin.deposits, *coin.arrived, *coin.entries):
                    rows[row] = rows.get(row, 0) + amount
                for row, amount in coin.left:
                    rows[row] = rows.get(row, 0) - amount
                change = sum(amount for _, amount in coin.arrived) - sum(amount for _, amount in coin.left)
                self.beside[coin.asset] = self.beside.get(coin.asset, 0) + change
                for payout in coin.payouts:
                    rows[payout.row] -= payout.amount
                    if payout.ref in ledger.pending:
                        self.paid.setdefault(payout.ref, []).append((coin.asset, payout.row, payout.amount))
                self.chain[coin.asset] = coin.next_chain(batch.number, part.number, part.root, part.trades_digest)
        for ref in [ref for ref, _ in ledger.border.posted] if booked is None else booked:
            self.paid.pop(ref, None)

    def _statement(self, ledger: Ledger, cut: Cut, leaving: dict[str, int]) -> Statement:
        root, owed = self.liabilities.close(cut.batch, ledger)
        published, digest = self._publication()
        return Statement(
            cut.batch, cut.first_sequence, cut.last_sequence, cut.ts, cut.state_hash, cut.trades_digest,
            cut.trade_count, root, [Owed(name, units, leaving.get(name, 0)) for name, units in owed.items()],
            published, digest,
        )  # fmt: skip

    def skip(self, payouts: Iterable[tuple[str, Payout]]) -> None:
        """The contract skipped these (asset, payout) of a final batch: their rows have the units still.

        What was told before changes nothing.
        """
        for asset, payout in [item for item in payouts if item[1].ref not in self.skipped]:
            self.rows[asset][payout.row] += payout.amount
            self.beside[asset] = self.beside.get(asset, 0) + payout.amount
            self.paid.pop(payout.ref, None)
            self.skipped.add(payout.ref)

    def _payouts(
        self, ledger: Ledger, released: Mapping[str, bytes]
    ) -> tuple[dict[str, list[Payout]], set[str]]:
        """What this batch pays, by asset, and the refs that it finds booked after they were paid."""
        payouts: dict[str, list[Payout]] = {}
        booked: set[str] = set()

        def pay(ref: str, posting: Posting) -> None:
            asset, account = ledger.assets[posting.asset], ledger.accounts[posting.source]
            if asset.settled:
                row = chain_row(account.name, account.row)
                payout = Payout(ref, row, released.get(ref, row), posting.amount)
                payouts.setdefault(asset.name, []).append(payout)

        for ref, postings in _by_ref(ledger).items():
            if ref in self.paid:
                booked.add(ref)
            elif not _unpayable(ledger, ref, postings, booked=True):
                for posting in postings:
                    pay(ref, posting)
        for ref in self.paid:
            if ref not in booked and ref not in ledger.pending:
                raise Disagreement(f"withdrawal {ref} was paid on the chain and then voided in the core")
        if self._pay_pending:
            for ref, postings in ledger.pending.items():
                if ref in self.paid or ref in self.skipped or (ref.startswith(DOCUMENTED) and ref not in released):
                    continue
                if len(_settled(ledger, postings)) > 1:
                    continue
                if ref in released or not _unpayable(ledger, ref, postings, booked=False):
                    for posting in postings:
                        pay(ref, posting)
        return payouts, booked

    def _newly_kept(self, ledger: Ledger, paid: Iterable[str]) -> list[Unpayable]:
        """What the core booked in this period and neither this batch nor one before has paid."""
        done = set(paid)
        return [
            item
            for ref, postings in _by_ref(ledger).items()
            if ref not in done
            for item in _unpayable(ledger, ref, postings, booked=True)
        ]

    def _entries(
        self,
        asset: str,
        targets: dict[bytes, int],
        deposits: dict[bytes, int],
        payouts: list[Payout],
        arrived: dict[bytes, int],
        left: dict[bytes, int],
        paid_in: Mapping[tuple[str, bytes], int],
    ) -> list[tuple[bytes, int]]:
        """Net entries, payers first, then by row."""
        now = self.rows.get(asset, {})
        paid = _by_row((payout.row, payout.amount) for payout in payouts)
        entries = []
        for row in sorted(targets.keys() | now.keys() | deposits.keys() | paid.keys() | arrived.keys() | left.keys()):
            target = targets.get(row, 0)
            if target + paid_in.get((asset, row), 0) < 0:
                raise Disagreement(f"{asset}: row 0x{row.hex()} would fall to {target}; it must be paid in first")
            change = target - now.get(row, 0) - deposits.get(row, 0) - arrived.get(row, 0)
            change += paid.get(row, 0) + left.get(row, 0)
            if change:
                entries.append((row, change))
        if total := sum(amount for _, amount in entries):
            raise Disagreement(f"{asset}: the entries sum to {total}, not to zero")
        return sorted(entries, key=lambda entry: (entry[1] > 0, entry[0]))


def split(number: int, root: bytes, trades_digest: bytes, coins: list[CoinPart]) -> list[Part]:
    """One part if the rows fit into a transaction, else several; the order is deposits, payers, receivers, payouts."""
    fields = {
        (coin.asset, row)
        for coin in coins
        for row in (*(r for r, _ in coin.deposits), *(r for r, _ in coin.entries), *(p.row for p in coin.payouts))
    }
    if len(fields) + PAYOUT_WEIGHT * sum(len(coin.payouts) for coin in coins) <= ROWS_PER_PART:
        return [Part(number, 0, 1, root, trades_digest, coins)]
    limit = ROWS_PER_PART - len(coins)
    items: list[tuple[str, str, Any]] = []
    items += [("deposits", coin.asset, item) for coin in coins for item in coin.deposits]
    items += [("entries", coin.asset, item) for coin in coins for item in coin.entries if item[1] < 0]
    items += [("entries", coin.asset, item) for coin in coins for item in coin.entries if item[1] > 0]
    items += [("payouts", coin.asset, payout) for coin in coins for payout in coin.payouts]
    chunks: list[list[tuple[str, str, Any]]] = [[]]
    room = limit
    for item in items:
        weight = PAYOUT_WEIGHT if item[0] == "payouts" else 1
        if room < weight:
            chunks.append([])
            room = limit
        chunks[-1].append(item)
        room -= weight
    previous = {coin.asset: coin.previous for coin in coins}
    parts = []
    for index, chunk in enumerate(chunks):
        built = []
        for coin in coins:
            mine = [(kind, item) for kind, asset, item in chunk if asset == coin.asset]
            entries = [item for kind, item in mine if kind == "entries"]
            if rest := -sum(amount for _, amount in entries):
                entries.append((CLEARING_ROW, rest))
            entries.sort(key=lambda entry: entry[1] > 0)
            deposits = [item for kind, item in mine if kind == "deposits"]
            payouts = [item for kind, item in mine if kind == "payouts"]
            arrived, left = (coin.arrived, coin.left) if index == 0 else ([], [])
            fresh = msgspec.structs.replace(
                coin, previous=previous[coin.asset], entries=entries, deposits=deposits, payouts=payouts,
                arrived=arrived, left=left,
            )  # fmt: skip
            previous[coin.asset] = fresh.next_chain(number, index, root, trades_digest)
            built.append(fresh)
        parts.append(Part(number, index, len(chunks), root, trades_digest, built))
    return parts


def _targets(ledger: Ledger, asset: int, row_of: list[bytes]) -> dict[bytes, int]:
    """Sum of the accounts of each row; rows at zero are left out."""
    totals = ledger.totals[: len(row_of), asset]
    targets: dict[bytes, int] = {}
    for account in np.flatnonzero(totals).tolist():
        if account not in ledger.outside:
            row = row_of[account]
            targets[row] = targets.get(row, 0) + int(totals[account])
    return targets


def _by_ref(ledger: Ledger) -> dict[str, list[Posting]]:
    posted: dict[str, list[Posting]] = {}
    for ref, posting in ledger.border.posted:
        posted.setdefault(ref, []).append(posting)
    return posted


def _unpayable(ledger: Ledger, ref: str, postings: list[Posting], *, booked: bool) -> list[Unpayable]:
    """Empty if every settled posting has a wallet to go to; else all of them: it is paid whole or not at all.

    What goes to another place than the chain, as to a payment provider, is paid there and never here.
    """
    settled = _settled(ledger, postings)
    rowless = [
        account.name
        for account in (ledger.accounts[posting.source] for posting in settled)
        if account.row is None or account.row in KEYLESS_ROWS
    ]
    elsewhere = [ledger.accounts[posting.target].name for posting in settled if posting.target != EXTERNAL]
    if elsewhere:
        reason = f"it goes to {elsewhere[0]}, not to the chain; " + (
            "its units stay in the custody row" if booked else "it waits until it is posted or voided"
        )
    elif rowless:
        reason = f"account {rowless[0]} has no row of its own to be paid to; " + (
            "booked all the same, its units stay in the custody row" if booked else "it waits until withdraw_failed"
        )
    elif len(settled) > 1 and not booked:
        reason = (
            "it has several legs to the chain, of which an exit could stop one: it waits until withdraw_failed; send "
            "one withdrawal for each"
        )
    else:
        return []
    return [
        Unpayable(
            ref, ledger.accounts[posting.source].name, ledger.assets[posting.asset].name, posting.amount, booked, reason
        )
        for posting in settled
    ]


def _settled(ledger: Ledger, postings: list[Posting]) -> list[Posting]:
    return [posting for posting in postings if ledger.assets[posting.asset].settled]


def _by_row(amounts: Iterable[tuple[bytes, int]]) -> dict[bytes, int]:
    rows: dict[bytes, int] = {}
    for row, amount in amounts:
        rows[row] = rows.get(row, 0) + amount
    return rows
