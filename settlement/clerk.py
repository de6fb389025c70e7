"""Makes the core follow what the chain has done by itself: books deposits, and walks forced exits through the books.

    Deposited                one `deposit` command, ref dep:sui:DIGEST:INDEX, to the account whose row it is
    ExitRequested            the row's accounts are frozen (which cancels their orders); what is asked, or what there
                             is, is held: a pending forced transfer to `system:external`, ref exit:DIGEST:INDEX
    ExitPaid                 the hold is posted; what was paid beyond it is transferred (exitrest:…); if less was paid
                             than held, the hold is voided and the paid amount transferred
    ExitCancelled, asked     the hold is voided
    again
    the last exit is over    accounts that were frozen here are opened again

Every step is decided from two records alone: the chain's events and what the ledger shows of their refs. So a crash or
a lost answer anywhere leads to the same command again, which the core answers `duplicate`. Call `step` only when the
ledger has caught up with the core; it sends what is due now and returns.

A deposit to a row that no account has waits, named in `unclaimed`: it is booked when an account with that row opens, or
by the operator's own `deposit` command with its ref and the row as memo. It never asks the chain to do anything.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from engine.messages.codes import EventKind
from engine.messages.decimals import decimal_text, units_of
from engine.messages.errors import Refused
from settlement.chain.events import ChainEvent
from settlement.commands import CommandPort, submit_booking
from settlement.ledger import Account, Disagreement, Ledger
from settlement.refs import deposit_ref, exit_ref, exit_rest_ref
from settlement.watcher import Watcher

__all__ = ["Clerk"]

NOT_AFTER_NS = 400 * 86_400 * 10**9
"""A ref of a chain event is remembered for 400 days after it."""
_EXTERNAL = "system:external"


@dataclass(slots=True)
class _Exit:
    """One request and how it ended: ExitPaid, ExitCancelled, the next ExitRequested, or None while it is open."""

    asked: ChainEvent
    ended: ChainEvent | None = None


class Clerk:
    """One chain, one core. `assets`: vault → asset name."""

    def __init__(self, watcher: Watcher, commands: CommandPort) -> None:
        self._watcher, self._commands = watcher, commands
        self._deposits: list[ChainEvent] = []
        self._exits: list[_Exit] = []
        self._read_deposits = self._read_exits = 0
        self._asked: set[str] = set()
        """Holds sent, or found empty: once is enough."""
        self._closed: set[str] = set()
        """Holds that were unknown when their exit ended: they can never come to be."""
        self._sequence = 0
        """Of the latest answer: what was done is not decided upon before the ledger shows it."""
        self.unclaimed: list[ChainEvent] = []
        self.problems: dict[str, str] = {}
        """Ref → why the core does not book it."""

    @property
    def open_exits(self) -> list[ChainEvent]:
        """Requests that are neither paid nor cancelled."""
        return [case.asked for case in self._exits if case.ended is None]

    async def step(self, ledger: Ledger, assets: dict[str, str]) -> None:
        """Send what is due. Raises Unavailable, Disagreement (the chain has paid what the books do not have)."""
        self._read()
        if ledger.sequence < self._sequence:
            return
        await self._book_deposits(ledger, assets)
        by_row = _by_row(ledger) if self._exits else {}
        for case in self._exits:
            if case.asked.vault in assets:
                await self._follow(case, ledger, assets[case.asked.vault], by_row.get(case.asked.owner, []))
        self._exits = [case for case in self._exits if case.ended is None or not self._is_over(case, ledger)]
        await self._unfreeze(by_row)

    def _read(self) -> None:
        arrivals, exits = self._watcher.arrivals, self._watcher.exits
        self._deposits += arrivals[self._read_deposits :]
        self._read_deposits = len(arrivals)
        for event in exits[self._read_exits :]:
            for case in self._exits:
                if case.ended is None and (case.asked.vault, case.asked.owner) == (event.vault, event.owner):
                    case.ended = event
            if event.kind == "ExitRequested":
                self._exits.append(_Exit(event))
        self._read_exits = len(exits)

    # ------------------------------------------------------------ deposits

    async def _book_deposits(self, ledger: Ledger, assets: dict[str, str]) -> None:
        self._deposits = [e for e in self._deposits if deposit_ref(e.digest, e.index) not in ledger.chain_refs]
        self.unclaimed = []
        if not self._deposits:
            return
        by_row = _by_row(ledger)
        for event in self._deposits:
            owners = by_row.get(event.owner)
            if event.vault not in assets or not owners:
                self.unclaimed.append(event)
                continue
            asset = assets[event.vault]
            ref = deposit_ref(event.digest, event.index)
            command = {
                "op": "deposit", "account": owners[0].name, "asset": asset, "ref": ref,
                "amount": decimal_text(event.amount, _scale(ledger, asset)), "code": "sui", "memo": event.owner.hex(),
                **_not_after(event),
            }  # fmt: skip
            try:
                await self._submit(command, "transferred", "posted")
                self.problems.pop(ref, None)
            except Refused as error:
                self.problems[ref] = str(error)

    # ------------------------------------------------------------ exits

    async def _follow(self, case: _Exit, ledger: Ledger, asset: str, owners: list[Account]) -> None:
        asked, ended = case.asked, case.ended
        hold = exit_ref(asked.digest, asked.index)
        kind, postings = ledger.chain_refs.get(hold, (None, []))
        if ended is None:
            await self._freeze(owners)
            if kind is None and hold not in self._asked:
                await self._transfer(hold, asked, asked.amount, ledger, asset, owners, pending=True)
                self._asked.add(hold)
            return
        paid = ended.amount if ended.kind == "ExitPaid" else 0
        held = sum(posting.amount for posting in postings)
        rest = exit_rest_ref(ended.digest, ended.index)
        if kind is None and hold not in self._closed:
            # The hold was never sent, or is on its way: afterwards it is closed or voided, and cannot come late.
            await self._book({"op": "void", "ref": hold}, "voided")
            self._closed.add(hold)
            booked = 0
        elif kind == EventKind.PENDED:
            op, event = ("post", "posted") if 0 < held <= paid else ("void", "voided")
            await self._book({"op": op, "ref": hold}, event)
            booked = held if event == "posted" else 0
        else:
            booked = held if kind == EventKind.POSTED else 0
        if paid > booked and rest not in ledger.chain_refs:
            done = await self._transfer(rest, ended, paid - booked, ledger, asset, owners, pending=False)
            if done < paid - booked:
                if _has_pending(ledger, asset, owners):
                    return  # a withdrawal of the same money is under way: the contract skips it, and it comes back
                raise Disagreement(
                    f"the chain has paid an exit of {paid} units of {asset} to 0x{asked.owner.hex()}; the accounts of "
                    f"that row have {done} of the {paid - booked} that are not held"
                )

    def _is_over(self, case: _Exit, ledger: Ledger) -> bool:
        """Whether the ledger shows all that became of it."""
        assert case.ended is not None
        paid = case.ended.amount if case.ended.kind == "ExitPaid" else 0
        kind, postings = ledger.chain_refs.get(exit_ref(case.asked.digest, case.asked.index), (None, []))
        if kind == EventKind.PENDED:
            return False
        booked = sum(posting.amount for posting in postings) if kind == EventKind.POSTED else 0
        return paid <= booked or exit_rest_ref(case.ended.digest, case.ended.index) in ledger.chain_refs

    async def _transfer(
        self, ref: str, event: ChainEvent, amount: int, ledger: Ledger, asset: str, owners: list[Account], *,
        pending: bool,
    ) -> int:  # fmt: skip
        """Take at most `amount` from what the accounts of the row have free; the units taken or held."""
        scale, left, legs = _scale(ledger, asset), amount, []
        for owner in owners:
            free = units_of((await self._commands.available(owner.name)).get(asset, "0"), scale)
            if part := min(left, max(0, free)):  # below zero, or INVALID: nothing
                legs.append({"from": owner.name, "asset": asset, "amount": decimal_text(part, scale), "to": _EXTERNAL})
                left -= part
        if not legs or (left and not pending):
            return amount - left
        command: dict[str, Any] = {
            "op": "transfer", "ref": ref, "legs": legs, "force": True, "code": "exit", "memo": event.owner.hex(),
            **({"pending": True} if pending else {}), **_not_after(event),
        }  # fmt: skip
        await self._book(command, "pended" if pending else "transferred")
        return amount - left

    async def _book(self, command: dict[str, Any], event: str) -> None:
        ref = command["ref"]
        status = {"pended": "pending", "transferred": "posted"}.get(event, event)
        try:
            await self._submit(command, event, status)
            self.problems.pop(ref, None)
        except Refused as error:
            self.problems[ref] = str(error)
            if event != "pended":
                raise Disagreement(str(error)) from error

    async def _freeze(self, owners: list[Account]) -> None:
        for owner in owners:
            if not owner.frozen:
                self._watcher.note_frozen(owner.name, True)
                await self._set_status(owner.name, "frozen")

    async def _unfreeze(self, by_row: dict[bytes, list[Account]]) -> None:
        if not self._watcher.frozen:
            return
        waiting = {owner.name for case in self._exits for owner in by_row.get(case.asked.owner, [])}
        for name in sorted(self._watcher.frozen - waiting):
            await self._set_status(name, "active")
            self._watcher.note_frozen(name, False)

    async def _set_status(self, account: str, status: str) -> None:
        try:
            await self._submit({"op": "account", "account": account, "status": status}, "done", "")
        except Refused as error:
            self.problems[account] = str(error)

    async def _submit(self, command: dict[str, Any], event: str, status: str) -> None:
        self._sequence = max(self._sequence, await submit_booking(self._commands, command, event, status))


def _by_row(ledger: Ledger) -> dict[bytes, list[Account]]:
    """The accounts of each wallet's row, in the order in which they opened."""
    rows: dict[bytes, list[Account]] = {}
    for account in ledger.accounts:
        if account.row is not None:
            rows.setdefault(account.row, []).append(account)
    return rows


def _has_pending(ledger: Ledger, asset: str, owners: list[Account]) -> bool:
    """Whether a withdrawal of one of these accounts waits for its batch."""
    names = {owner.name for owner in owners}
    return any(
        ledger.accounts[posting.source].name in names and ledger.assets[posting.asset].name == asset
        for postings in ledger.pending.values()
        for posting in postings
    )


def _scale(ledger: Ledger, asset: str) -> int:
    return {each.name: each.scale for each in ledger.assets}[asset]


def _not_after(event: ChainEvent) -> dict[str, int]:
    return {"not_after": event.at_ms * 10**6 + NOT_AFTER_NS} if event.at_ms else {}
