"""`byline proof`: the files that `byline verify` wants, for any account, on the machine of the exchange.

Users with a wallet ask REST for theirs. This is the operator's way, and a newcomer's, whose `byline trader` has no
wallet to sign in with. It reads the data directory and changes nothing in the exchange.
"""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import msgspec
from rich.console import Console

from byline.journal_publication import kept_batch_file
from byline.running import running_process
from byline.settings import Settings
from byline.status_file import read_status
from engine.messages.errors import Refused, Unavailable
from settlement.proof_desk import ProofClient, ProofFile, ProofProblem
from settlement.rows import is_house

__all__ = ["write_proof"]

KEPT_S_MAX = 10.0
_PROBLEMS = {
    "unknown_batch": "there is no such batch, or it is too old: proofs are made of the last 360",
    "not_final": "this batch is not final yet",
}


def write_proof(settings: Settings, account: str, batch: int | None, folder: Path, *, console: Console) -> None:
    """Writes proof.json and batch.json into `folder`, of the last final batch if none is given.

    Raises:
        Refused: there is no such proof, and why.
        Unavailable: no exchange runs on the data directory, or it has no final batch yet.
    """
    data = settings.data_directory
    running_process(data, "backoffice")
    try:
        proofs = asyncio.run(ProofClient(data).prove(account, batch))
    except ProofProblem as problem:
        raise Refused(_PROBLEMS.get(problem.reason) or _no_balance(data, account, batch)) from problem
    number = proofs[0].batch
    kept = _kept(data, number)
    folder.mkdir(parents=True, exist_ok=True)
    proof, batch_path = folder / "proof.json", folder / "batch.json"
    proof.write_bytes(msgspec.json.encode(ProofFile("byline proof 1", proofs)))
    batch_path.write_bytes(kept)
    chain = read_status(data, "chain")
    node = settings.chain_url or (f"http://{chain['host']}:{chain['port']}" if chain else "http://HOST:PORT")
    console.print(f"{account} in batch {number}: {len(proofs)} balances. Now, anywhere:", soft_wrap=True)
    console.print(f"byline verify {proof} {batch_path} --node {node}", soft_wrap=True, markup=False)


def _no_balance(data: Path, account: str, batch: int | None) -> str:
    """Why there may be no balance of that name, and what to do."""
    if is_house(account):
        return f"{account} is the exchange's own account: nothing is owed to it, so no proof counts it"
    if ":" not in account:
        return f"no account is called {account!r}: did you mean user:{account or 'alice'}?"
    last = (read_status(data, "backoffice") or {}).get("settlement", {}).get("final_batch", 0)
    if batch is None or batch >= last:
        which = f"batch {batch or last}, the last that is final"
        return f"{account} had no balance in {which}; opened since (`byline trader`)? Then try after the next batch"
    return f"{account} had no balance in batch {batch}; leave --batch out for the last final one"


def _kept(data: Path, number: int) -> bytes:
    """The batch file, which is written a moment after the batch is final."""
    until = time.monotonic() + KEPT_S_MAX
    while (file := kept_batch_file(data, number)) is None:
        if time.monotonic() > until:
            raise Unavailable(f"the file of batch {number} is not written yet; try again")
        time.sleep(0.05)
    return file
