"""`byline verify`: files, a node, and plain words. Uses no data directory and no running exchange of ours."""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec
from rich.console import Console

from settlement.batch_file import BatchFile, read_batch_file
from settlement.chain.reader import NodeReader
from settlement.envelope import unwrapped
from settlement.merkle import Proof
from settlement.proof_desk import ProofFile
from settlement.verify import Refuted, unbacked, verify_batch

__all__ = ["read_proofs", "verify_files"]

COUNTED = (
    "What this shows: the balance is in the total that the exchange says it owes, and the chain has that total with "
    "this batch."
)
HELD = (
    "For {assets} a vault on the chain held what is owed when the batch took effect, in the coin named above; whether "
    "that coin is the one you mean is for you to look at."
)
NOT_HELD = "NOT shown for {assets}: that anything is held. No vault takes part for it in this batch."
LIMITS = (
    "What it does not show: that other clients checked theirs too, or what the exchange owes outside this list. See "
    "docs/settlement.md."
)


def verify_files(proof: Path, batch: Path, previous: Path | None, node: str, *, console: Console) -> int:
    """0: all holds. 1: something does not, and what. Raises Unavailable if the node does not answer."""
    try:
        files = [_batch(batch), _batch(previous) if previous else None]
        proofs = read_proofs(proof)
    except ValueError as error:
        console.print("[bold red]REFUSED[/] ", end="")
        console.print(str(error), markup=False, soft_wrap=True)
        return 1
    assert files[0] is not None
    return asyncio.run(_verify(proofs, files[0], files[1], node, console))


async def _verify(
    proofs: list[Proof], batch: BatchFile, previous: BatchFile | None, node: str, console: Console
) -> int:
    reader = NodeReader(node)
    try:
        async for line in verify_batch(batch, proofs, reader, previous):
            mark = "[yellow]!![/]" if line.startswith("NOTE") else "[green]ok[/]"
            console.print(f"{mark} ", end="")
            console.print(line.removeprefix("NOTE "), markup=False, soft_wrap=True)
    except Refuted as reason:
        console.print("[bold red]REFUSED[/] ", end="")
        console.print(str(reason), markup=False, soft_wrap=True)
        return 1
    finally:
        await reader.close()
    without = unbacked(batch, proofs)
    held = sorted({proof.asset for proof in proofs}.difference(without))
    told = f"{len(proofs)} balances counted, {_listed(held)} shown to be held"
    console.print("[bold green]VERIFIED[/] ", end="")
    console.print(f"batch {batch.statement.number}, {told}", markup=False, soft_wrap=True)
    if without:
        console.print("[bold red]NOT HELD[/] ", end="")
        console.print(NOT_HELD.format(assets=_listed(without)), markup=False, soft_wrap=True)
    parts = [COUNTED, HELD.format(assets=_listed(held)), LIMITS] if held else [COUNTED, LIMITS]
    console.print(" ".join(parts), markup=False, soft_wrap=True)
    return 0


def _listed(assets: list[str]) -> str:
    return ", ".join(assets) or "nothing"


def read_proofs(path: Path) -> list[Proof]:
    """From a proof file, or the whole answer of `GET /v1/users/me/proof`. ValueError if it is neither, or empty."""
    try:
        proofs = msgspec.json.decode(unwrapped(path.read_bytes()), type=ProofFile).proofs
    except (ValueError, msgspec.MsgspecError) as error:
        raise ValueError(f"{path} is no proof file: {error}") from error
    if not proofs:
        raise ValueError(f"{path} holds no proof")
    return proofs


def _batch(path: Path) -> BatchFile:
    try:
        return read_batch_file(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
