"""Makes the core follow what the chain has done by itself: books deposits, and walks forced exits through the books.

    Deposited                one `deposit` command, ref dep:sui:DIGEST:INDEX, to the account whose row it is
    ExitRequested            the row's accounts are frozen (which cancels their orders); what is asked, or what there
                             is, is held: a pending forced transfer to `system:external`, ref exit:DIGEST:INDEX
    ExitPaid                 the hold is posted; what was paid beyond it is transferred (exitrest:…); if less was paid
                             than held, the hold is voided and the paid amount transferred
    ExitCancelled, asked     the hold is voided
    again
    the last exit is over    accounts that were frozen here are opened again, but for those that the operator has frozen
                             too in the meantime

What an exit took beyond its hold comes from the unbooked arrivals of its row first (see arrivals): their refs are
closed, or booked by so much less, before the rest is asked of the accounts. So whoever pays in and leaves without an
account is nobody's debt, and an account that opens later on that row gets what is left there.

Every step is decided from two records alone: the chain's events and what the ledger shows of their refs. So a crash or
a lost answer anywhere leads to the same command again, which the core answers `duplicate`. Call `step` only when the
ledger has caught up with the core; it sends what is due now and returns.

A freeze has no ref, and one that finds the account frozen counts as the operator's: it would outlast the exit. So none
is sent twice: that it was sent is noted before, and where no event shows it (the core stands, or it was lost on its
way) the core is asked for its sequence, and it is sent again once the events have come past that without it.

A deposit to a row that no account has waits, named in `unclaimed`: it is booked when an account with that row opens, or
by the operator's own `deposit` command with its ref and the row as memo. It never asks the chain to do anything.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from typing import Any

import msgspec

from engine.messages.codes import EventKind
from engine.messages.decimals import decimal_text, units_of
from engine.messages.errors import Refused
from settlement.arrivals import Arrivals
from settlement.chain.events import ChainEvent
from settlement.commands import CommandPort, Expired, submit_booking
from settlement.ledger import Account, Disagreement, Ledger
from settlement.refs import exit_ref, exit_rest_ref
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
    takes: dict[str, int] = field(default_factory=dict)
    """Once it has ended: ref of an unbooked arrival → units of it that the exit took."""


class Clerk:
    """One chain, one core. `assets`: vault → asset name."""

    def __init__(self, watcher: Watcher, commands: CommandPort) -> None:
        self._watcher, self._commands = watcher, commands
        self.arrivals = Arrivals(watcher)
        self._exits: list[_Exit] = []
        self._read_exits = 0
        self._asked: set[str] = set()
        """Holds sent, or found empty: once is enough."""
        self._lost: set[str] = set()
        """Accounts whose freeze was sent, and is lost if the ledger at `_sequence` does not show it."""
        self._closed: set[str] = set()
        """Refs that were unknown when they were closed (holds of an exit that ended, deposits that it took): they can
        never come to be."""
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
        self._share_arrivals(ledger)
        by_row = _by_row(ledger) if self._exits else {}
        asking = {case.asked.owner: None for case in self._exits if case.ended is None and case.asked.vault in assets}
        for row in asking:  # before anything more is there to be traded away; once, though it asks for several assets:
            if not await self._freeze(by_row.get(row, [])):  # a second time would be the operator's, for its own reason
                return
        await self._book_deposits(ledger, assets)
        for case in self._exits:
            if case.asked.vault in assets:
                await self._follow(case, ledger, assets[case.asked.vault], by_row.get(case.asked.owner, []))
        over = [case for case in self._exits if case.ended is not None and self._is_over(case, ledger)]
        for ref, units in (item for case in over for item in case.takes.items()):
            self.arrivals.use(ref, units)
        self._exits = [case for case in self._exits if case not in over]
        await self._unfreeze(ledger, by_row)

    def _read(self) -> None:
        exits = self._watcher.exits
        for event in exits[self._read_exits :]:
            for case in self._exits:
                if case.ended is None and (case.asked.vault, case.asked.owner) == (event.vault, event.owner):
                    case.ended = event
            if event.kind == "ExitRequested":
                self._exits.append(_Exit(event))
        self._read_exits = len(exits)

    # ------------------------------------------------------------ deposits

    def _share_arrivals(self, ledger: Ledger) -> None:
        """What each exit that has ended takes of the unbooked arrivals of its row, oldest first."""
        ended = [case for case in self._exits if case.ended is not None]
        for case in ended:
            case.takes = {}
        unbooked = list(self.arrivals.unbooked(ledger)) if ended else []
        taken: dict[str, int] = {}
        for case in ended:
            assert case.ended is not None
            place, missing = (case.asked.vault, case.asked.owner), self._unbooked_of(case, ledger)
            for event, ref, units in unbooked:
                part = min(missing, units - taken.get(ref, 0))
                if part > 0 and (event.vault, event.owner) == place and event.checkpoint <= case.ended.checkpoint:
                    case.takes[ref] = part
                    taken[ref] = taken.get(ref, 0) + part
                    missing -= part

    async def _book_deposits(self, ledger: Ledger, assets: dict[str, str]) -> None:
        self.unclaimed = []
        taken: dict[str, int] = {}
        for ref, units in (item for case in self._exits for item in case.takes.items()):
            taken[ref] = taken.get(ref, 0) + units
        by_row: dict[bytes, list[Account]] | None = None
        for event, ref, left in self.arrivals.unbooked(ledger):
            if ref in ledger.chain_refs:
                continue
            if not (units := left - taken.get(ref, 0)):
                with contextlib.suppress(Disagreement):  # named in `problems`; if it ran after all, the ledger shows it
                    await self._close(ref, event)
                continue
            by_row = _by_row(ledger) if by_row is None else by_row
            owners = by_row.get(event.owner)
            if event.vault not in assets or not owners:
                self.unclaimed.append(msgspec.structs.replace(event, amount=units))
                continue
            asset = assets[event.vault]
            command = {
                "op": "deposit", "account": owners[0].name, "asset": asset, "ref": ref,
                "amount": decimal_text(units, _scale(ledger, asset)), "code": "sui", "memo": event.owner.hex(),
                **_not_after(event),
            }  # fmt: skip
            try:
                await self._submit(command, "transferred", "posted")
                self.problems.pop(ref, None)
            except Refused as error:
                self.problems[ref] = str(error)

    async def _close(self, ref: str, event: ChainEvent) -> None:
        """See that a ref of `event` which the ledger does not show can never come to be: it is void until what was
        sent under it has expired too, and then forgotten, or a place of the core's table would be gone for good."""
        if ref not in self._closed:
            try:
                await self._submit({"op": "void", "ref": ref, **_not_after(event)}, "voided", "voided")
            except Expired:
                pass  # and with it what was sent: both have the same end
            except Refused as error:
                self.problems[ref] = str(error)
                raise Disagreement(str(error)) from error
            self.problems.pop(ref, None)
            self._closed.add(ref)

    # ------------------------------------------------------------ exits

    async def _follow(self, case: _Exit, ledger: Ledger, asset: str, owners: list[Account]) -> None:
        asked, ended = case.asked, case.ended
        hold = exit_ref(asked.digest, asked.index)
        kind, postings = ledger.chain_refs.get(hold, (None, []))
        if ended is None:
            if kind is None and hold not in self._asked:
                await self._transfer(hold, asked, asked.amount, ledger, asset, owners, pending=True)
                self._asked.add(hold)
            return
        paid = ended.amount if ended.kind == "ExitPaid" else 0
        held = sum(posting.amount for posting in postings)
        rest = exit_rest_ref(ended.digest, ended.index)
        if kind is None and hold not in self._closed:
            # The hold was never sent, or is on its way: afterwards it is closed or voided, and cannot come late.
            await self._close(hold, asked)
            booked = 0
        elif kind == EventKind.PENDED:
            op, event = ("post", "posted") if 0 < held <= paid else ("void", "voided")
            await self._book({"op": op, "ref": hold}, event)
            booked = held if event == "posted" else 0
        else:
            booked = held if kind == EventKind.POSTED else 0
        if self._is_sharing(case, ledger):
            return
        missing = paid - booked - sum(case.takes.values())
        if missing > 0 and rest not in ledger.chain_refs:
            done = await self._transfer(rest, ended, missing, ledger, asset, owners, pending=False)
            if done < missing:
                if _has_pending(ledger, asset, owners):
                    return  # a withdrawal of the same money is under way: the contract skips it, and it comes back
                raise Disagreement(
                    f"the chain has paid an exit of {paid} units of {asset} to 0x{asked.owner.hex()}; the accounts of "
                    f"that row have {done} of the {missing} that are not held"
                )

    def _is_over(self, case: _Exit, ledger: Ledger) -> bool:
        """Whether the ledger shows all that became of it."""
        kind, _ = ledger.chain_refs.get(exit_ref(case.asked.digest, case.asked.index), (None, []))
        if kind == EventKind.PENDED or self._is_sharing(case, ledger):
            return False
        return self._unbooked_of(case, ledger) <= sum(case.takes.values())

    def _is_sharing(self, case: _Exit, ledger: Ledger) -> bool:
        """Whether a deposit that it took from is still to be closed, or booked by what is left of it."""
        return any(ref not in ledger.chain_refs and ref not in self._closed for ref in case.takes)

    def _unbooked_of(self, case: _Exit, ledger: Ledger) -> int:
        """Units that the chain has paid and that no account has given, nor will once its hold is posted."""
        assert case.ended is not None
        paid = case.ended.amount if case.ended.kind == "ExitPaid" else 0
        kind, postings = ledger.chain_refs.get(exit_ref(case.asked.digest, case.asked.index), (None, []))
        held = sum(posting.amount for posting in postings)
        if kind == EventKind.POSTED or (kind == EventKind.PENDED and held <= paid):
            paid -= held
        _, rest = ledger.chain_refs.get(exit_rest_ref(case.ended.digest, case.ended.index), (None, []))
        return paid - sum(posting.amount for posting in rest)

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

    async def _freeze(self, owners: list[Account]) -> bool:
        """Whether all are frozen now; else one may be so soon: the next step knows."""
        for owner in owners:
            if not owner.frozen and owner.name in self._watcher.frozen and owner.name not in self._lost:
                self._sequence = max(self._sequence, await self._commands.sequence_of(owner.name))
                self._lost.add(owner.name)
                return False
        for owner in owners:
            self._lost.discard(owner.name)
            if not owner.frozen:
                self._watcher.note_frozen(owner.name, True)
                await self._set_status(owner.name, "frozen")
        return True

    async def _unfreeze(self, ledger: Ledger, by_row: dict[bytes, list[Account]]) -> None:
        if not self._watcher.frozen:
            return
        waiting = {owner.name for case in self._exits for owner in by_row.get(case.asked.owner, [])}
        ours = self._watcher.frozen - waiting
        held = {account.name for account in ledger.accounts if account.frozen_again} if ours else set()
        for name in sorted(ours):
            if name not in held:  # the operator has frozen it beside us, for a reason of its own
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
