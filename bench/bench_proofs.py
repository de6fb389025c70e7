"""How long do the liability trees take at a cut, and how large is a proof?

A million balances built from nothing, beside SHA-256 of as many messages one by one in hashlib; then 10,000 changes;
then the whole `Liabilities.close` with its pass over the accounts. Checked before any number: the tree changed step by
step equals the one built anew, proofs hold under the root, and hashes are hashlib's.
"""

from __future__ import annotations

import hashlib
import random
from functools import partial

import msgspec
import numpy as np

from bench.harness import Row, WrongResult, median, seconds
from engine.messages.codes import Overdraft
from settlement.ledger import Account, Asset, Ledger
from settlement.liabilities import Liabilities
from settlement.merkle import ProofInvalid, check_proof
from settlement.sumtree import SumTree

__all__ = ["LEFT_OUT", "run"]

LEFT_OUT = "names become ids once in an account's life (ids row); nothing here waits for a disk or a chain"
BUILD_S, CHANGE_MS, PROOF_BYTES = 2.0, 100.0, 2_000


def run(smoke: bool, seed: int) -> list[Row]:
    """Rows of build, change, close and proof size."""
    rng, count, changes = random.Random(seed), 20_000 if smoke else 1_000_000, 1_000 if smoke else 10_000
    ids = rng.randbytes(28 * count)
    numbers = np.random.default_rng(seed)
    amounts = numbers.integers(0, 10**12, count).astype(np.uint64)
    every = np.arange(count, dtype=np.int64)

    def build() -> SumTree:
        tree = SumTree()
        tree.append(ids)
        tree.set(every, amounts)
        return tree

    def bare() -> None:
        for start in range(0, 28 * count, 28):
            hashlib.sha256(ids[start : start + 28]).digest()

    tree = build()
    build_s = median([seconds(build) for _ in range(3)])
    bare_s = seconds(bare)
    times = []
    for _ in range(7):
        places = np.sort(numbers.choice(count, changes, replace=False)).astype(np.int64)
        fresh = numbers.integers(0, 10**12, changes).astype(np.uint64)
        amounts[places] = fresh
        times.append(seconds(partial(tree.set, places, fresh)))
    if (tree.root, tree.total) != (build().root, int(amounts.sum())):
        raise WrongResult("a changed tree differs from the one built anew")
    change_ms = median(times) * 1e3
    case = f"{count:,} balances"
    close_ms, first_s, size = _close(count, changes, numbers)
    return [
        Row(case, "tree_built", build_s, "s", bare_s, build_s / bare_s, BUILD_S, build_s <= BUILD_S),
        Row(f"{changes:,} of {case}", "tree_changed", change_ms, "ms", None, None, CHANGE_MS, change_ms <= CHANGE_MS),
        Row(f"{changes:,} of {case}", "close", close_ms, "ms", None, None, CHANGE_MS, close_ms <= CHANGE_MS),
        Row(case, "first_close_with_ids", first_s, "s"),
        Row(case, "proof_file", size, "bytes", None, None, PROOF_BYTES, size <= PROOF_BYTES),
    ]


def _close(count: int, changes: int, numbers: np.random.Generator) -> tuple[float, float, float]:
    """Median ms of a cut with that many changes, seconds of the first one, bytes of a proof file."""
    ledger, owed = Ledger(), Liabilities(bytes(32))
    ledger.assets = [Asset("USDC", 6, True)]
    ledger.accounts += [Account(f"user:{number:032x}", None, Overdraft.NEVER) for number in range(count)]
    ledger.totals = np.zeros((count + 2, 1), dtype=np.int64)
    ledger.totals[2:, 0] = numbers.integers(1, 10**12, count)
    first_s = seconds(lambda: owed.close(1, ledger))
    times, root = [], b""
    for batch in range(2, 9):
        changed = numbers.choice(count, changes, replace=False) + 2
        ledger.totals[changed, 0] = numbers.integers(1, 10**12, changes)

        def close(batch: int = batch) -> None:
            nonlocal root
            root = owed.close(batch, ledger)[0]

        times.append(seconds(close))
    size = 0
    for who in (0, count // 3, count - 1):
        [proof] = owed.prove(8, f"user:{who:032x}")
        try:
            check_proof(proof, root, ["USDC"])
        except ProofInvalid as error:
            raise WrongResult(str(error)) from error
        size = max(size, len(msgspec.json.encode(proof)))
    return median(times) * 1e3, first_s, float(size)
