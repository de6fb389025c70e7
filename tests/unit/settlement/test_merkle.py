"""Inclusion proofs hold, and nothing else passes for one."""

from __future__ import annotations

import random

import msgspec
import pytest

from settlement.merkle import EMPTY_ROOT, LiabilityTree, verify


def _balances(rng: random.Random, clients: int) -> dict[str, dict[str, int]]:
    return {
        asset: {f"user:{number}": rng.randrange(-5, 10**12) for number in range(clients)} for asset in ("USDC", "MAYA")
    }


@pytest.mark.parametrize("clients", [1, 2, 3, 7, 8, 33])
def test_every_positive_balance_has_a_proof(clients: int) -> None:
    balances = _balances(random.Random(clients), clients)
    tree = LiabilityTree(balances)
    for asset, accounts in balances.items():
        assert dict((name, total) for name, _, total in tree.assets).get(asset, 0) == sum(
            amount for amount in accounts.values() if amount > 0
        )
        for account, amount in accounts.items():
            if amount > 0:
                assert verify(tree.root, account, asset, amount, tree.prove(account, asset))
            else:
                with pytest.raises(KeyError):
                    tree.prove(account, asset)


def test_tampering_fails() -> None:
    balances = {"USDC": {f"user:{number}": 100 + number for number in range(9)}, "MAYA": {"user:1": 5}}
    tree = LiabilityTree(balances)
    proof = tree.prove("user:4", "USDC")
    assert verify(tree.root, "user:4", "USDC", 104, proof)
    assert not verify(tree.root, "user:4", "USDC", 103, proof)
    assert not verify(tree.root, "user:5", "USDC", 104, proof)
    assert not verify(tree.root, "user:4", "MAYA", 104, proof)
    assert not verify(bytes(32), "user:4", "USDC", 104, proof)
    for place, (sibling, total, is_left) in enumerate(proof.path):
        for other in ((sibling, total - 1, is_left), (sibling, total, not is_left), (bytes(32), total, is_left)):
            path = [*proof.path[:place], other, *proof.path[place + 1 :]]
            assert not verify(tree.root, "user:4", "USDC", 104, msgspec.structs.replace(proof, path=path))
    shrunk = [(name, hashed, total - 1) for name, hashed, total in proof.assets]
    assert not verify(tree.root, "user:4", "USDC", 104, msgspec.structs.replace(proof, assets=shrunk))
    # A negative sibling would hide what others are owed.
    hidden = [(proof.path[0][0], -50, proof.path[0][2]), *proof.path[1:]]
    assert not verify(tree.root, "user:4", "USDC", 104, msgspec.structs.replace(proof, path=hidden))


def test_root_depends_on_balances_and_not_on_their_order() -> None:
    forward = LiabilityTree({"A": {"x": 1, "y": 2}, "B": {"z": 3}})
    backward = LiabilityTree({"B": {"z": 3}, "A": {"y": 2, "x": 1}})
    assert forward.root == backward.root != LiabilityTree({"A": {"x": 2, "y": 1}, "B": {"z": 3}}).root
    assert LiabilityTree({"A": {"x": 0, "y": -4}}).root == EMPTY_ROOT
