"""The earlier batches of a publication, each against the node: its transactions, and what the vaults held.

The chain values of the last batch bind the statements of all before it. They do not bind which transactions an entry
names, which other vaults those were about, nor what a vault held then. So each digest is looked up, and its transaction
held against the entry like that of the last batch (`verify.check_executed`).

Full nodes drop old transactions. Where this one says that it did, the first batches may be missing, and from which
batch on they were seen is told; after one that is there, none may be missing. A node that keeps all knows all.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable

from settlement.batch_file import BatchFile
from settlement.verify import ChainReader, CommittedBatch, Refuted, TransactionMissing, check_executed

__all__ = ["check_history"]

AT_ONCE = 16
"""Batches asked for at a time."""


async def check_history(
    batches: Iterable[BatchFile], package: str, chain: ChainReader, seen: Callable[[int], None]
) -> int:
    """The number of the first batch that the node still has. `batches`: from 1 on, their links checked; not none.

    `package`: that of the last batch, hence of every vault. `seen` hears of each batch looked at. Raises Refuted with
    the batch, Unavailable.
    """
    drops = (await chain.facts()).first_checkpoint > 0
    waiting: deque[tuple[int, asyncio.Task[CommittedBatch]]] = deque(maxlen=AT_ONCE)
    first = number = 0

    async def take() -> None:
        nonlocal first
        at, task = waiting.popleft()
        try:
            called = (await task).package
        except TransactionMissing as missing:
            if first or not drops:
                raise Refuted(f"batch {at}: {missing}") from missing
        except Refuted as reason:
            raise Refuted(f"batch {at}: {reason}") from reason
        else:
            first = first or at
            if called not in (package, ""):
                raise Refuted(f"batch {at} went to package {called}, its vaults are of {package}")
        seen(at)

    try:
        for batch in batches:
            number = batch.statement.number
            waiting.append((number, asyncio.create_task(check_executed(batch, chain))))
            if len(waiting) == AT_ONCE:
                await take()
        while waiting:
            await take()
    finally:
        for _, task in waiting:
            task.cancel()
        await asyncio.gather(*(task for _, task in waiting), return_exceptions=True)
    return first or number + 1
