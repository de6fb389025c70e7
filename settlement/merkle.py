"""The liability root: a Merkle sum tree of client balances for each asset, and one root over the assets.

    leaf   = SHA-256(00 | name length u8 | name | asset length u8 | asset | amount u64 LE)            sum = amount
    node   = SHA-256(01 | left hash | left sum u128 LE | right hash | right sum u128 LE)              sum = left + right
    root   = SHA-256(02 | for each asset by name: length u8 | asset | tree hash | tree sum u128 LE)

Leaves stand by account name; an odd node rises unchanged. A client with the proof of its leaf and the published root
knows that its balance is counted in the total the exchange owes: every node's sum is hashed, so a sum cannot be made
smaller on the way up. A negative balance counts as zero, so one client's debt never hides what another is owed.

An asset without a positive balance has no tree. Cost: two hashes a leaf, about 3 µs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping

import msgspec

__all__ = ["EMPTY_ROOT", "AssetTree", "LiabilityTree", "Proof", "verify"]

Node = tuple[bytes, int]
"""Hash and sum."""


class Proof(msgspec.Struct, frozen=True):
    """Everything a client needs beside its own name, asset and amount.

    `path` is from the leaf upwards: sibling hash, sibling sum, whether the sibling stands to the left. `assets` are all
    assets of the root with their tree's hash and sum.
    """

    path: list[tuple[bytes, int, bool]]
    assets: list[tuple[str, bytes, int]]


def leaf_hash(account: str, asset: str, amount: int) -> bytes:
    name, kind = account.encode(), asset.encode()
    head = b"\0" + bytes([len(name)]) + name + bytes([len(kind)]) + kind
    return hashlib.sha256(head + amount.to_bytes(8, "little")).digest()


def _join(left: Node, right: Node) -> Node:
    body = left[0] + left[1].to_bytes(16, "little") + right[0] + right[1].to_bytes(16, "little")
    return hashlib.sha256(b"\1" + body).digest(), left[1] + right[1]


def _root_hash(assets: Iterable[tuple[str, bytes, int]]) -> bytes:
    digest = hashlib.sha256(b"\2")
    for name, tree, total in assets:
        encoded = name.encode()
        digest.update(bytes([len(encoded)]) + encoded + tree + total.to_bytes(16, "little"))
    return digest.digest()


EMPTY_ROOT = _root_hash([])


class AssetTree:
    """One asset's tree, all levels kept."""

    def __init__(self, asset: str, balances: Mapping[str, int]) -> None:
        """`balances`: account → units, at least one, all positive."""
        self.asset = asset
        self.names = sorted(balances)
        self._positions = {name: position for position, name in enumerate(self.names)}
        level: list[Node] = [(leaf_hash(name, asset, balances[name]), balances[name]) for name in self.names]
        self.levels = [level]
        while len(level) > 1:
            above = [_join(level[index], level[index + 1]) for index in range(0, len(level) - 1, 2)]
            if len(level) % 2:
                above.append(level[-1])
            self.levels.append(above)
            level = above
        self.root, self.total = level[0]

    def path(self, account: str) -> list[tuple[bytes, int, bool]]:
        """Siblings of the account's leaf, upwards. KeyError if it has none."""
        position, path = self._positions[account], []
        for level in self.levels[:-1]:
            sibling = position ^ 1
            if sibling < len(level):
                path.append((*level[sibling], sibling < position))
            position //= 2
        return path


class LiabilityTree:
    """All assets at one cut."""

    def __init__(self, balances: Mapping[str, Mapping[str, int]]) -> None:
        """`balances`: asset → account → units. What is not positive is left out."""
        self.trees: dict[str, AssetTree] = {}
        for asset in sorted(balances):
            positive = {account: amount for account, amount in balances[asset].items() if amount > 0}
            if positive:
                self.trees[asset] = AssetTree(asset, positive)
        self.assets = [(asset, tree.root, tree.total) for asset, tree in self.trees.items()]
        self.root = _root_hash(self.assets)

    def prove(self, account: str, asset: str) -> Proof:
        """Raises KeyError if the account has nothing in that asset."""
        return Proof(self.trees[asset].path(account), self.assets)


def verify(root: bytes, account: str, asset: str, amount: int, proof: Proof) -> bool:
    """Whether `amount` of `account` is counted under `root`."""
    if not 0 < amount < 2**64 or any(not 0 < total < 2**128 for _, total, _ in proof.path):
        return False
    if any(not 0 < total < 2**128 for _, _, total in proof.assets):
        return False
    node: Node = (leaf_hash(account, asset, amount), amount)
    for sibling, total, is_left in proof.path:
        node = _join((sibling, total), node) if is_left else _join(node, (sibling, total))
        if node[1] >= 2**128:
            return False
    named = [(tree, total) for name, tree, total in proof.assets if name == asset]
    return named == [node] and _root_hash(proof.assets) == root
