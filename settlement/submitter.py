"""Drives one sealed batch through the table of `batch` to `final` or `halted`, one part after the other.

    what comes back                              what it means
    nothing, or "I do not know"                  the digest is asked for, then the same bytes again
    executed, in no checkpoint yet, or while     one node's word: asked again until a checkpoint has it and the vaults
    the vaults stand before it                   show it
    refused before execution                     the vaults are read: done already, or signed anew for the same number
    executed: paused, another operator, no gas,  signed anew for the same number when that has passed
    too much traffic on the vault
    executed: wrong number, part or history      the vaults are read: done already; older than our books: a stale node,
                                                 asked again; anything else: halt
    executed: anything else                      halt: the books and the contract differ

Everything is stored by `step` before it is acted upon. Never builds a transaction while another one may be under way.
Bytes are first sent once `wait_for_backup` returns: then a lost machine takes nothing with it that the chain has seen.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable
from typing import Literal

from engine.messages.errors import Refused, Unavailable
from settlement.batch import Life, PartExecuted, PartRefused, Sent, SignedPart, State, StoredEvent
from settlement.chain.port import ChainPort, CoinPart, Execution, Part, VaultListing, VaultPaused, VaultState

__all__ = ["Submitter"]

log = logging.getLogger(__name__)

_WRONG_PLACE = {4, 16, 17, 18}
"""Abort codes that mean: the vault stands at another place than we think (batch, history, withdrawal, part)."""
_PAUSED = 2
_PASSING = {_PAUSED: "a vault is paused", 3: "a vault names another operator"}
_PASSING_KINDS = {
    "INSUFFICIENT_GAS": "the operator's gas is used up",
    "EXECUTION_CANCELED_DUE_TO_CONSENSUS_OBJECT_CONGESTION": "too much traffic on a vault",
}
_SIGNED_MOST = 20
"""Transactions signed for one part before a person is asked: each aborted one has cost gas."""

Place = Literal["before", "after", "past", "stale", "other"]


class Submitter:
    """`step` stores an event and applies it to its batch; `halt` stores why a batch cannot go on; `wait_for_backup`
    returns once the backup has the batch and its signed bytes."""

    def __init__(
        self,
        chain: ChainPort,
        step: Callable[[Life, StoredEvent], Awaitable[None]],
        halt: Callable[[Life, str], Awaitable[None]],
        wait_for_backup: Callable[[Life], Awaitable[None]],
    ) -> None:
        self._chain, self._step, self._halt, self._wait_for_backup = chain, step, halt, wait_for_backup

    async def drive(self, life: Life, listings: dict[str, VaultListing]) -> None:
        """Take the batch as far as it goes. Chain errors leave it at a step from which this goes on.

        Raises:
            Unavailable, OutcomeUnknown, Refused: call again later.
        """
        number = life.batch.number
        while life.state not in (State.FINAL, State.HALTED):
            if life.state is State.SUBMITTED:
                assert life.signed is not None
                if (found := await self._chain.find(life.signed.digest)) is not None:
                    await self._executed(life, found, listings)
                    continue
            if life.state is State.SEALED:
                signed = await self._chain.sign(life.batch.parts[life.part], listings)
                await self._step(life, SignedPart(time.time_ns(), number, signed))
            assert life.signed is not None
            if life.state is State.SIGNED:
                await self._wait_for_backup(life)
            await self._step(life, Sent(time.time_ns(), number))
            try:
                execution = await self._chain.send(life.signed)
            except Refused as refused:
                await self._refused(life, str(refused), listings)
                raise
            await self._executed(life, execution, listings)

    async def _executed(self, life: Life, execution: Execution, listings: dict[str, VaultListing]) -> None:
        """The chain has run the bytes: with effect, or aborted."""
        now, number = time.time_ns(), life.batch.number
        if execution.checkpoint is None:
            raise Unavailable(f"batch {number}: {execution.digest} is executed and in no checkpoint yet")
        if execution.success:
            await self._succeeded(life, execution, listings)
            return
        passing = _PASSING.get(execution.abort_code or 0) or _PASSING_KINDS.get(execution.kind)
        place: Place = "other"
        if execution.abort_code in _WRONG_PLACE:
            place = await self._place(life, listings)
        if place == "after":
            await self._step(life, PartExecuted(now, number, await self._effective(life, listings)))
        elif (passing or place == "stale" or place == "before") and len(life.digests) < _SIGNED_MOST:
            why = passing or "the node showed old vaults"
            await self._step(life, PartRefused(now, number, why))
            raise (VaultPaused if execution.abort_code == _PAUSED else Unavailable)(f"batch {number}: {why}")
        else:
            reason = f"aborted with code {execution.abort_code}: {execution.error} ({execution.digest})"
            if execution.abort_code in _WRONG_PLACE:
                reason = f"the vaults stand at another number or chain value; {reason}"
            await self._halt(life, f"batch {number}: {reason}")

    async def _succeeded(self, life: Life, execution: Execution, listings: dict[str, VaultListing]) -> None:
        """Counts once the vaults show it. Those of a second settler may have gone on: the next look at them halts."""
        number = life.batch.number
        place = await self._place(life, listings) if life.batch.parts[life.part].coins else "after"
        if place in ("before", "stale"):
            raise Unavailable(f"batch {number}: {execution.digest} is executed, and the vaults are shown before it")
        if place == "other":
            reason = f"{execution.digest} is executed, and the vaults stand at another number or chain value"
            await self._halt(life, f"batch {number}: {reason}")
            return
        await self._step(life, PartExecuted(time.time_ns(), number, execution))

    async def _refused(self, life: Life, reason: str, listings: dict[str, VaultListing]) -> None:
        """A definite no. The bytes may be old: if their first copy took effect, that counts, else sign anew."""
        assert life.signed is not None
        number = life.batch.number
        found = await self._chain.find(life.signed.digest)
        if found is not None and found.success:
            await self._executed(life, found, listings)
            return
        place = await self._place(life, listings)
        if place == "after":
            await self._step(life, PartExecuted(time.time_ns(), number, await self._effective(life, listings)))
        elif place in ("other", "past"):
            await self._halt(life, f"batch {number}: the vaults stand at another number or chain value")
        else:
            await self._step(life, PartRefused(time.time_ns(), number, reason))

    async def _effective(self, life: Life, listings: dict[str, VaultListing]) -> Execution:
        """The transaction that gave the vaults what they show, among all that were ever signed for this part.

        Raises Unavailable: no checkpoint has what gave it to them, ours or (so it seems to this node) another's.
        """
        for digest in reversed(life.digests):
            found = await self._chain.find(digest)
            if found is not None and found.success:
                if found.checkpoint is None:
                    raise Unavailable(f"batch {life.batch.number}: {digest} is executed and in no checkpoint yet")
                return found
        coins = life.batch.parts[life.part].coins
        states = await self._chain.vault_states([listings[coin.asset] for coin in coins])
        for coin in coins:
            state = states[coin.asset]
            given = await self._chain.find(state.previous)
            if _place(state, coin, life) != "after" or given is None or given.checkpoint is None:
                raise Unavailable(f"batch {life.batch.number}: no checkpoint has what the vault of {coin.asset} shows")
        error = f"part {life.part} is on the chain, by none of the transactions signed here: {', '.join(life.digests)}"
        log.error("settlement=foreign_transaction batch=%d reason=%s", life.batch.number, error)
        return Execution("", True, None, error, 0, None)

    async def _place(self, life: Life, listings: dict[str, VaultListing]) -> Place:
        """Where the vaults stand, seen from this part. `stale`: more than a part before it; `past`: after the next."""
        part = life.batch.parts[life.part]
        states = await self._chain.vault_states([listings[coin.asset] for coin in part.coins])
        places = {_place(states[coin.asset], coin, life) for coin in part.coins}
        if not places:
            return "before"  # a batch before the first settled asset: it has no vault, and no number to be refused
        if len(places) == 1:
            return places.pop()
        if places == {"after", "past"}:
            return "past"
        return "other" if places & {"other", "past"} else "stale"


def _place(state: VaultState, coin: CoinPart, life: Life) -> Place:
    part, number = life.batch.parts[life.part], life.batch.number
    if state.chain == coin.next_chain(number, part.number, part.root, part.trades_digest):
        return "after"
    if (state.next_batch, state.next_part) < (number, part.number):
        return "stale"
    if (state.next_batch, state.next_part) > _next_place(part):
        return "past"
    here = (state.next_batch, state.next_part, state.chain) == (number, part.number, coin.previous)
    return "before" if here else "other"


def _next_place(part: Part) -> tuple[int, int]:
    """Batch and part that a vault expects after this one."""
    return (part.batch, part.number + 1) if part.number + 1 < part.count else (part.batch + 1, 0)
