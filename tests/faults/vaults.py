"""Is the money on the chain that of the books? By the chain itself and by the journal, never by the settler's word.

    each `Withdrawn`         is one withdrawal that the core held, with its row and amount, and no other is of it (I11)
    each deposit by others   is booked at most once, to the account of its row, as much as it was (I14)
    a posted withdrawal      stands on the chain; a voided one does not
    a vault, as its last     what came in less what went out, by the journal up to the cut of that batch; less what the
    batch measured it        chain has paid and the journal posts later; plus what came on the chain and it books later

Every amount in and out is of one movement alone (`Numbers`), so what is alike is the same.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any, Protocol

from engine.messages.codes import EventKind
from settlement.chain.port import ChainEvent, VaultListing, VaultState
from tests.faults.load import ASSETS
from tests.faults.purse import Purse, chain_of
from tests.faults.told import EXTERNAL, Events
from tests.support.exchange import ExchangeProcess

__all__ = ["DEPOSIT", "Vaults", "check_chain", "check_end"]

DEPOSIT = "dep:sui:"
Payment = tuple[str, bytes, int]
"""Asset, row, units."""


class Result(Protocol):
    def check(self, holds: bool, text: str) -> None: ...


@dataclass
class Vaults:
    """What the chain has told. `purse`: whose eyes look; nothing of its own is looked at, but for `coins`."""

    exchange: ExchangeProcess
    directory: Path
    purse: Purse
    events: list[ChainEvent] = field(default_factory=list)
    states: dict[str, VaultState] = field(default_factory=dict)
    assets: dict[str, str] = field(default_factory=dict)
    """Vault → asset."""
    _cursor: int = 0
    _known: dict[str, Any] = field(default_factory=dict)

    async def read(self) -> None:
        """The vaults, and every event up to what they show and further. Raises Unavailable."""
        told = self._told()
        if not told["package"]:  # events that are read now would be nobody's, and they are read once
            return
        listings = [
            VaultListing(asset, coin["coin_type"], told["vaults"][asset], 1, coin["vault_version"])
            for asset, coin in told["coins"].items() if asset in ASSETS
        ]  # fmt: skip
        self.assets = {listing.vault: listing.asset for listing in listings}
        chain = chain_of(self.exchange, self.directory, self.purse.key, told["package"])
        try:
            states = await chain.vault_states(listings)
            while True:
                self._cursor, events = await chain.events(self._cursor, 1_000)
                self.events += events
                last = {event.vault: event.amount for event in self.events if event.kind == "BatchCommitted"}
                if all(last.get(item.vault, 0) >= states[item.asset].next_batch - 1 for item in listings):
                    break
        finally:
            await chain.close()
        self.states = states

    async def coins(self, asset: str, purse: Purse) -> int:
        """Units that a wallet owns. Raises Unavailable."""
        told = self._told()
        chain = chain_of(self.exchange, self.directory, purse.key, told["package"])
        try:
            owned = await chain._owned_objects(f"0x2::coin::Coin<{told['coins'][asset]['coin_type']}>")
        finally:
            await chain.close()
        return sum(int(item.balance or 0) for item in owned)

    def paid(self) -> dict[Payment, list[ChainEvent]]:
        """What the vaults paid out, however often."""
        found: dict[Payment, list[ChainEvent]] = defaultdict(list)
        for event in self.events:
            if event.kind == "Withdrawn" and event.vault in self.assets:
                found[self.assets[event.vault], event.owner, event.amount].append(event)
        return found

    def arrivals(self) -> list[ChainEvent]:
        """Deposits that no batch made."""
        batches = {event.digest for event in self.events if event.kind == "BatchCommitted"}
        return [
            event for event in self.events
            if event.kind == "Deposited" and event.digest not in batches and event.vault in self.assets
        ]  # fmt: skip

    def _told(self) -> dict[str, Any]:
        """Where the vaults are: an address book. What is in them the chain says. A back office that has only begun does
        not know the package yet: then as it was known before."""
        settlement = self.exchange.status("backoffice")["settlement"]
        if settlement["package"] or not self._known:
            self._known = dict(settlement)
        return self._known


def check_chain(before: Vaults, journal: Events, after: Vaults, result: Result) -> None:
    """`before` was read in front of the journal, `after` behind it."""
    held, posted, voided = _withdrawals(journal)
    late = after.paid()
    for payment, events in before.paid().items():
        result.check(payment in held, f"the chain paid {_words(payment)} in {events[0].digest}: nobody withdrew that")
        result.check(payment not in voided, f"the chain paid {_words(payment)}, which was given back")
    for payment, events in late.items():
        result.check(len(events) == 1, f"the chain paid {_words(payment)} {len(events)} times: {_digests(events)}")
    for payment in posted:
        result.check(payment in late, f"{_words(payment)} is posted as withdrawn; the chain never paid it")
    skipped = [event for event in after.events if event.kind == "WithdrawalSkipped"]
    result.check(not skipped, f"the contract skipped a withdrawal: {skipped[:1]}")
    _check_arrivals(journal, after, result)
    for asset, state in before.states.items():
        _check_vault(asset, state, before, journal, result)


def check_end(vaults: Vaults, journal: Events, result: Result) -> None:
    """Once nothing is under way: all is booked, and the vaults hold what is owed, to the unit."""
    held, posted, voided = _withdrawals(journal)
    open_ = [payment for payment in held if payment not in posted and payment not in voided]
    result.check(
        not open_, f"{len(open_)} withdrawals are neither posted nor voided: {_words(open_[0]) if open_ else ''}"
    )
    for event in vaults.arrivals():
        ref = _ref(event)
        result.check(ref in journal.deeds, f"deposit {ref} of {event.amount} units was never booked")
    for asset, state in vaults.states.items():
        owed = journal.liabilities(asset, journal.cuts[state.next_batch - 1])
        result.check(state.pool == owed, f"the vault of {asset} holds {state.pool} units, {owed} are owed")


def _check_vault(asset: str, state: VaultState, vaults: Vaults, journal: Events, result: Result) -> None:
    batch = state.next_batch - 1
    if batch == 0:
        return
    if batch not in journal.cuts:
        result.check(False, f"the vault of {asset} is at batch {batch}, which the journal does not know")
        return
    cut = journal.cuts[batch]
    until = next(
        number for number, event in enumerate(vaults.events)
        if event.kind == "BatchCommitted" and event.amount == batch and vaults.assets.get(event.vault) == asset
    )  # fmt: skip
    digest = vaults.events[until].digest
    mine = [
        event for number, event in enumerate(vaults.events)
        if vaults.assets.get(event.vault) == asset and (number <= until or event.digest == digest)
    ]  # fmt: skip
    _, posted, _ = _withdrawals(journal)
    expected = journal.liabilities(asset, cut)
    for event in mine:
        if event.kind == "Withdrawn" and posted.get((asset, event.owner, event.amount), cut + 1) > cut:
            expected -= event.amount
    for event in vaults.arrivals():
        deeds = journal.deeds.get(_ref(event), [])
        if event in mine and not any(sequence <= cut for _, sequence, _ in deeds):
            expected += event.amount
    at_commit = state.last_pool - sum(
        event.amount for event in mine if event.kind == "Withdrawn" and event.digest == digest
    )
    result.check(
        at_commit == expected,
        f"behind batch {batch} the vault of {asset} held {at_commit} units; by the journal {expected}",
    )


def _check_arrivals(journal: Events, vaults: Vaults, result: Result) -> None:
    arrivals = {_ref(event): event for event in vaults.arrivals()}
    for ref, deeds in journal.deeds.items():
        if not ref.startswith(DEPOSIT):
            continue
        event = arrivals.get(ref)
        if event is None:
            result.check(False, f"{ref} is booked, and no such deposit stands on the chain")
            continue
        for _, _, legs in deeds:
            ((source, asset, units, account),) = legs
            told = source, asset, units, journal.rows.get(account)
            found = EXTERNAL, vaults.assets[event.vault], event.amount, event.owner
            result.check(told == found, f"{ref} is booked as {told}; the chain has {found}")


def _withdrawals(journal: Events) -> tuple[dict[Payment, str], dict[Payment, int], dict[Payment, int]]:
    """Of those to the chain: payment → ref, payment → sequence that posted it, and that voided it."""
    held: dict[Payment, str] = {}
    posted: dict[Payment, int] = {}
    voided: dict[Payment, int] = {}
    for ref, deeds in journal.deeds.items():
        for kind, sequence, legs in deeds:
            for source, asset, units, target in legs:
                if target == EXTERNAL and source in journal.rows and asset in ASSETS:
                    payment = asset, journal.rows[source], units
                    if kind == EventKind.PENDED:
                        held[payment] = ref
                    elif kind in (EventKind.POSTED, EventKind.VOIDED):
                        (posted if kind == EventKind.POSTED else voided)[payment] = sequence
    return held, posted, voided


def _ref(event: ChainEvent) -> str:
    return f"{DEPOSIT}{event.digest}:{event.index}"


def _digests(events: list[ChainEvent]) -> list[str]:
    return sorted(Counter(event.digest for event in events))


def _words(payment: Payment) -> str:
    asset, row, units = payment
    return f"{Decimal(units).scaleb(-ASSETS[asset])} {asset} to 0x{row.hex()[:8]}…"
