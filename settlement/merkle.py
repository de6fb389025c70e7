"""The liability root, and the proof that one client's balance is in it. Pure; what a verifier needs and no more.

Each asset has a Merkle sum tree over its clients; a Merkle tree over the assets has the root.

    id       = first 28 bytes of SHA-256(05 | salt 16 bytes | account name)
    leaf     = SHA-256(00 | id | amount u64 LE)                                                    sum = amount
    node     = SHA-256(01 | left hash | left sum u64 LE | right hash | right sum u64 LE)           sum = left + right
    asset    = SHA-256(02 | name length u8 | name | tree hash | tree sum u64 LE)
    above    = SHA-256(03 | left hash | right hash);   the root of no assets is SHA-256(03)

An odd node rises unchanged. Every sum is hashed, non-negative and below 2^63, so no node can make the total smaller
than what is below it: a balance below zero counts as zero and hides nothing that another is owed.

A proof shows its owner's name, salt and balance, the sums on the way (the first is one other client's amount, without
a name), hashes of assets, and the asset's total. The salt is secret to the exchange and the client: without it an id
tells no name. Two clients with equal balances cannot be given one leaf, since an id binds one name.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import msgspec

__all__ = [
    "EMPTY_ROOT", "ID_BYTES", "SALT_BYTES", "SUM_LIMIT", "AssetRoot", "Proof", "ProofInvalid", "asset_path",
    "asset_root", "check_proof", "client_id", "client_salt", "liability_root", "pack_path",
]  # fmt: skip

ID_BYTES, SALT_BYTES = 28, 16
SUM_LIMIT = 2**63
STEP_BYTES = 41
"""Of a packed path: 1 if the sibling stands to the left else 0, its hash, its sum u64 LE."""
LINK_BYTES = 33

Step = tuple[bytes, int, bool]
AssetRoot = tuple[str, bytes, int]
"""Name, hash of the tree, total."""


class ProofInvalid(ValueError):
    """A proof, or the root it is held against, is not right; the text says what differs."""


class Proof(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One balance in one batch, as it stands in a proof file. Binary fields are base64; 1.7 kB at a million.

    `path`: STEP_BYTES a step from the leaf upwards; `links`: likewise above the asset, a byte for the side and a hash.
    """

    batch: int
    account: str
    salt: bytes
    asset: str
    amount: int
    total: int
    """Of the asset, over all clients."""
    path: bytes
    links: bytes


def client_salt(key: bytes, account: str) -> bytes:
    """The account's salt. `key` (32 bytes) is the exchange's secret."""
    return hashlib.blake2b(account.encode(), key=key, digest_size=SALT_BYTES).digest()


def client_id(salt: bytes, account: str) -> bytes:
    """What stands for the account in leaves and in the published journal."""
    return hashlib.sha256(b"\5" + salt + account.encode()).digest()[:ID_BYTES]


def pack_path(steps: Sequence[Step]) -> bytes:
    """From `SumTree.path`."""
    return b"".join(bytes([left]) + hashed + total.to_bytes(8, "little") for hashed, total, left in steps)


def asset_path(assets: Sequence[AssetRoot], name: str) -> bytes:
    """`links` of the asset. KeyError if it is not among them."""
    names = [asset for asset, _, _ in assets]
    if name not in names:
        raise KeyError(name)
    place, level, links = names.index(name), [asset_root(*asset) for asset in assets], b""
    while len(level) > 1:
        if place ^ 1 < len(level):
            links += bytes([place & 1]) + level[place ^ 1]
        level, place = _above(level), place >> 1
    return links


def liability_root(assets: Sequence[AssetRoot]) -> bytes:
    """Over all assets, in the order given."""
    level = [asset_root(*asset) for asset in assets]
    while len(level) > 1:
        level = _above(level)
    return level[0] if level else EMPTY_ROOT


def asset_root(name: str, tree: bytes, total: int) -> bytes:
    encoded = name.encode()
    return hashlib.sha256(b"\2" + bytes([len(encoded)]) + encoded + tree + total.to_bytes(8, "little")).digest()


def check_proof(proof: Proof, root: bytes, assets: Sequence[str]) -> None:
    """Whether the account's amount is counted in the total, and the total under `root`. Raises ProofInvalid.

    `assets`: all that the batch states, in its order. They say where the asset's tree stands under the root: else a
    second tree of the same asset and total could stand beside it, with half of the clients in each.
    """
    if not 0 <= proof.amount < SUM_LIMIT or not 0 <= proof.total < SUM_LIMIT:
        raise ProofInvalid("an amount is below zero or not below 2^63")
    if len(proof.salt) != SALT_BYTES:
        raise ProofInvalid(f"the salt has {len(proof.salt)} bytes, not {SALT_BYTES}")
    if len(proof.path) % STEP_BYTES or len(proof.links) % LINK_BYTES:
        raise ProofInvalid("the path is cut off")
    if len(proof.path) > 64 * STEP_BYTES or len(proof.links) > 64 * LINK_BYTES:
        raise ProofInvalid("the path is longer than any tree is high")
    if len(proof.asset.encode()) > 255:
        raise ProofInvalid("the asset's name is too long")
    if list(assets).count(proof.asset) != 1:
        raise ProofInvalid(f"the batch states {list(assets).count(proof.asset)} totals of {proof.asset}, not one")
    identity = client_id(proof.salt, proof.account)
    hashed = hashlib.sha256(b"\0" + identity + proof.amount.to_bytes(8, "little")).digest()
    total = proof.amount
    for number, start in enumerate(range(0, len(proof.path), STEP_BYTES)):
        side, sibling = proof.path[start], proof.path[start + 1 : start + 33]
        beside = int.from_bytes(proof.path[start + 33 : start + STEP_BYTES], "little")
        if side > 1:
            raise ProofInvalid(f"step {number} of the path stands on no side")
        if total + beside >= SUM_LIMIT:
            raise ProofInvalid(f"step {number} of the path: the sum reaches 2^63, so another could be hidden in it")
        left, right = ((sibling, beside), (hashed, total)) if side else ((hashed, total), (sibling, beside))
        hashed = _node(left, right)
        total += beside
    if total != proof.total:
        raise ProofInvalid(f"the path adds up to {total}, the proof says a total of {proof.total} {proof.asset}")
    above = asset_root(proof.asset, hashed, total)
    sides = _link_sides(list(assets).index(proof.asset), len(assets))
    if len(proof.links) != len(sides) * LINK_BYTES or bytes(sides) != proof.links[::LINK_BYTES]:
        raise ProofInvalid(f"{proof.asset} does not stand where the batch's {len(assets)} assets put it")
    for start in range(0, len(proof.links), LINK_BYTES):
        sibling = proof.links[start + 1 : start + LINK_BYTES]
        above = _join(sibling, above) if proof.links[start] else _join(above, sibling)
    if above != root:
        raise ProofInvalid(
            "the proof leads to another liability root than the batch's: the account, the salt, the amount or a step "
            f"of the path differs ({above.hex()[:16]}…, the batch has {root.hex()[:16]}…)"
        )


def _link_sides(place: int, count: int) -> list[int]:
    """On which side each link of `asset_path` stands, for the asset at `place` of `count`."""
    sides = []
    while count > 1:
        if place ^ 1 < count:
            sides.append(place & 1)
        place, count = place >> 1, (count + 1) // 2
    return sides


def _node(left: tuple[bytes, int], right: tuple[bytes, int]) -> bytes:
    body = left[0] + left[1].to_bytes(8, "little") + right[0] + right[1].to_bytes(8, "little")
    return hashlib.sha256(b"\1" + body).digest()


def _join(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"\3" + left + right).digest()


def _above(level: list[bytes]) -> list[bytes]:
    joined = [_join(level[index], level[index + 1]) for index in range(0, len(level) - 1, 2)]
    return [*joined, level[-1]] if len(level) % 2 else joined


EMPTY_ROOT = hashlib.sha256(b"\3").digest()
