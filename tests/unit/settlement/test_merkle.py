"""Inclusion proofs hold, and nothing else passes for one."""

from __future__ import annotations

import hashlib
import os
import random
from types import SimpleNamespace

import msgspec
import numpy as np
import pytest

from engine.messages.codes import Overdraft
from settlement.ledger import Account, Asset, Ledger
from settlement.liabilities import Liabilities, UnknownBatch
from settlement.merkle import (
    EMPTY_ROOT,
    SUM_LIMIT,
    Proof,
    ProofInvalid,
    asset_path,
    asset_root,
    check_proof,
    client_id,
    client_salt,
    liability_root,
    pack_path,
)
from settlement.sumtree import SumTree, sha256_eight

KEY = bytes(range(32))
NAMES = ["USDC", "MAYA", "INK", "SONG", "FILM"]


def plain_root(ids: list[bytes], amounts: list[int]) -> tuple[bytes, int]:
    """The tree of merkle's docstring, written straight down."""
    level = [
        (hashlib.sha256(b"\0" + identity + amount.to_bytes(8, "little")).digest(), amount)
        for identity, amount in zip(ids, amounts, strict=True)
    ]
    while len(level) > 1:
        above = []
        for left, right in zip(level[::2], level[1::2], strict=False):
            body = b"\1" + left[0] + left[1].to_bytes(8, "little") + right[0] + right[1].to_bytes(8, "little")
            above.append((hashlib.sha256(body).digest(), left[1] + right[1]))
        level = above + ([level[-1]] if len(level) % 2 else [])
    return level[0]


@pytest.mark.parametrize("length", [0, 1, 37, 55, 56, 63, 64, 81, 118, 119])
def test_eight_hashes_at_once_are_those_of_hashlib(length: int) -> None:
    messages = os.urandom(8 * length)
    single = [hashlib.sha256(messages[start * length :][:length]).digest() for start in range(8)]
    assert sha256_eight(messages, length) == single


@pytest.mark.parametrize("seed", range(5))
def test_a_changed_tree_is_the_tree_built_anew(seed: int) -> None:
    rng = random.Random(seed)
    tree, ids, amounts = SumTree(), [], []
    past: list[tuple[int, list[int], bytes]] = []
    for _ in range(40):
        more = rng.choice([0, 0, 1, 2, 7, 30])
        fresh = [rng.randbytes(28) for _ in range(more)]
        tree.append(b"".join(fresh))
        ids += fresh
        amounts += [0] * more
        places = sorted(rng.sample(range(len(ids)), rng.randrange(len(ids) + 1)))
        for place in places:
            amounts[place] = rng.choice([0, 1, rng.randrange(2**40)])
        tree.set(np.array(places, dtype=np.int64), np.array([amounts[p] for p in places], dtype=np.uint64))
        if ids:
            assert (tree.root, tree.total) == plain_root(ids, amounts)
            past.append((len(ids), list(amounts), tree.root))
    for count, before, root in past:
        old = tree.copy()
        old.shrink(count)
        old.set(np.arange(count), np.array(before, dtype=np.uint64))
        assert old.root == root and len(old) == count
    assert (tree.root, tree.total) == plain_root(ids, amounts)


def test_a_sum_never_wraps() -> None:
    tree = SumTree()
    tree.append(os.urandom(28 * 3))
    tree.set(np.arange(3), np.array([2**62, 2**61, 2**61 - 1], dtype=np.uint64))
    root = tree.root
    for places, amounts in (([2], [2**61]), ([0, 1], [2**63, 0]), ([0, 1, 2], [2**62, 2**62, 2**62])):
        with pytest.raises(OverflowError):
            tree.set(np.array(places), np.array(amounts, dtype=np.uint64))
        assert (tree.root, tree.total) == (root, 2**63 - 1)
    for bad in ([3], [-1], [1, 0], [1, 1]):
        with pytest.raises((IndexError, ValueError)):
            tree.set(np.array(bad), np.ones(len(bad), dtype=np.uint64))
    assert (tree.root, tree.total) == (root, 2**63 - 1)


class Books:
    """A ledger whose totals are set by hand."""

    def __init__(self, assets: int = 2) -> None:
        self.ledger = Ledger()
        self.ledger.assets = [Asset(name, 6, True) for name in NAMES[:assets]]

    def account(self, name: str, overdraft: Overdraft = Overdraft.NEVER) -> int:
        self.ledger.accounts.append(Account(name, None, overdraft))
        return len(self.ledger.accounts) - 1

    def put(self, account: int, asset: int, amount: int) -> None:
        self.ledger.totals[account, asset] = amount


def totals_of(proofs: list[Proof]) -> dict[str, int]:
    return {proof.asset: proof.amount for proof in proofs}


@pytest.mark.parametrize("clients", [1, 2, 3, 7, 8, 33])
@pytest.mark.parametrize("assets", [1, 2, 3, 5])
def test_every_client_has_a_proof_of_every_kept_batch(clients: int, assets: int) -> None:
    rng, books, owed = random.Random(clients * 8 + assets), Books(assets), Liabilities(KEY, keep=4)
    names = [f"user:{number}" for number in range(clients)]
    indices = [books.account(name) for name in names]
    history: dict[int, tuple[bytes, dict[str, dict[str, int]]]] = {}
    for batch in range(1, 8):
        for index in indices:
            if rng.random() < 0.6:
                books.put(index, rng.randrange(assets), rng.randrange(-5, 10**12))
        if batch == 4:
            names.append("user:late")
            indices.append(books.account("user:late"))
            books.put(indices[-1], 0, 77)
        root, totals = owed.close(batch, books.ledger)
        amounts = {
            name: {
                asset.name: max(0, int(books.ledger.totals[index, number]))
                for number, asset in enumerate(books.ledger.assets)
            }
            for name, index in zip(names, indices, strict=True)
        }
        assert totals == {
            asset.name: sum(account[asset.name] for account in amounts.values()) for asset in books.ledger.assets
        }
        history[batch] = (root, amounts)
    for batch in (7, 4, 6, 5):
        root, amounts = history[batch]
        for name, having in amounts.items():
            try:
                proofs = owed.prove(batch, name)
            except KeyError:
                assert not any(having.values())
                continue
            for proof in proofs:
                check_proof(proof, root, NAMES[:assets])
            told = totals_of(proofs)
            assert {asset: amount for asset, amount in having.items() if amount} == {
                asset: amount for asset, amount in told.items() if amount
            }
    for batch in (0, 3, 8):
        with pytest.raises(UnknownBatch):
            owed.prove(batch, "user:0")
    with pytest.raises(KeyError):
        owed.prove(7, "user:nobody")


def test_what_is_no_debt_to_a_client_is_no_leaf_and_hides_nothing() -> None:
    books, owed = Books(1), Liabilities(KEY)
    books.put(books.account("user:1"), 0, 50)
    books.put(books.account("pay:2", Overdraft.FORCED), 0, -30)
    books.put(books.account("external:bank", Overdraft.OPEN), 0, -900)
    books.put(books.account("issue:COIN", Overdraft.OPEN), 0, 700)
    books.put(books.account("platform:revenue"), 0, 4)
    books.put(1, 0, 9)  # system:fees
    books.put(books.account("platform:cover"), 0, 30)
    _, totals = owed.close(1, books.ledger)
    assert totals == {"USDC": 50}, "what lies in custody: 50 - 30 + 30"
    assert totals_of(owed.prove(1, "user:1")) == {"USDC": 50}
    for name in ("platform:cover", "pay:2", "external:bank", "platform:revenue", "system:fees"):
        with pytest.raises(KeyError):
            owed.prove(1, name)


def test_the_same_cuts_give_the_same_trees_after_a_restart() -> None:
    roots = []
    for _ in range(2):
        rng, books, owed = random.Random(4), Books(3), Liabilities(KEY)
        accounts = [books.account(f"user:{number}") for number in range(20)]
        for batch in range(1, 6):
            for account in rng.sample(accounts, 7):
                books.put(account, rng.randrange(3), rng.randrange(1000))
            roots.append(owed.close(batch, books.ledger)[0])
    assert roots[:5] == roots[5:] and len(set(roots)) == 5
    books = Books(2)
    nothing = [("USDC", bytes(32), 0), ("MAYA", bytes(32), 0)]
    assert Liabilities(KEY).close(1, books.ledger)[0] == liability_root(nothing)
    assert liability_root([]) == EMPTY_ROOT


def test_ids_tell_no_name_and_bind_one() -> None:
    salt = client_salt(KEY, "user:1")
    assert salt != client_salt(bytes(32), "user:1") != client_salt(KEY, "user:2")
    assert client_id(salt, "user:1") != client_id(salt, "user:2")
    assert b"user" not in client_id(salt, "user:1")


@pytest.fixture
def nine() -> SimpleNamespace:
    books, owed = Books(3), Liabilities(KEY)
    for number in range(9):
        account = books.account(f"user:{number}")
        for asset in range(3):
            books.put(account, asset, 100 + 7 * number + asset)
    root, _ = owed.close(1, books.ledger)
    proof = next(item for item in owed.prove(1, "user:4") if item.asset == "MAYA")
    check_proof(proof, root, NAMES[:3])
    return SimpleNamespace(root=root, proof=proof, owed=owed)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"amount": 128}, "adds up to"),
        ({"amount": 130, "total": 1153}, "adds up to"),
        ({"amount": -1}, "below zero"),
        ({"amount": SUM_LIMIT}, "not below 2"),
        ({"total": 1151}, "adds up to"),
        ({"account": "user:5"}, "another liability root"),
        ({"asset": "USDC"}, "does not stand where"),
        ({"asset": "GOLD"}, "states 0 totals of GOLD"),
        ({"asset": "x" * 256}, "too long"),
        ({"salt": bytes(16)}, "another liability root"),
        ({"salt": b""}, "the salt has 0 bytes"),
    ],
)
def test_an_altered_proof_is_refused_and_says_why(nine: SimpleNamespace, changes: dict, reason: str) -> None:
    with pytest.raises(ProofInvalid, match=reason):
        check_proof(msgspec.structs.replace(nine.proof, **changes), nine.root, NAMES[:3])


def test_any_bit_of_the_path_counts(nine: SimpleNamespace) -> None:
    for field in ("path", "links"):
        whole = getattr(nine.proof, field)
        assert whole
        for bit in range(8 * len(whole)):
            altered = bytearray(whole)
            altered[bit // 8] ^= 1 << bit % 8
            with pytest.raises(ProofInvalid):
                check_proof(msgspec.structs.replace(nine.proof, **{field: bytes(altered)}), nine.root, NAMES[:3])
        for cut in (whole[:-1], whole[:-41], whole[33:], whole + whole[-41:], whole * 40):
            with pytest.raises(ProofInvalid):
                check_proof(msgspec.structs.replace(nine.proof, **{field: cut}), nine.root, NAMES[:3])
    with pytest.raises(ProofInvalid, match="another liability root"):
        check_proof(nine.proof, bytes(32), NAMES[:3])


def test_a_negative_neighbour_cannot_hide_what_is_owed() -> None:
    """2^64 - 50 is -50 in 64 bits: the sum must be refused, not wrap."""
    identity = client_id(client_salt(KEY, "user:1"), "user:1")
    leaf = hashlib.sha256(b"\0" + identity + (100).to_bytes(8, "little")).digest()
    debt = hashlib.sha256(b"\0" + bytes(28) + (2**64 - 50).to_bytes(8, "little")).digest()
    body = b"\1" + leaf + (100).to_bytes(8, "little") + debt + (2**64 - 50).to_bytes(8, "little")
    root = asset_root("USDC", hashlib.sha256(body).digest(), 50)
    path = pack_path([(debt, 2**64 - 50, False)])
    proof = Proof(1, "user:1", client_salt(KEY, "user:1"), "USDC", 100, 50, path, b"")
    with pytest.raises(ProofInvalid, match="reaches 2"):
        check_proof(proof, root, ["USDC"])


def test_two_trees_of_one_asset_cannot_share_a_total() -> None:
    """Half of the clients in each tree, one total for both: every path would add up, and half of the debt be hidden."""
    salts = [client_salt(KEY, f"user:{number}") for number in range(2)]
    trees = [
        hashlib.sha256(b"\0" + client_id(salt, f"user:{number}") + (70).to_bytes(8, "little")).digest()
        for number, salt in enumerate(salts)
    ]
    assets = [("USDC", tree, 70) for tree in trees]
    root = liability_root(assets)
    for number, salt in enumerate(salts):
        links = bytes([number]) + asset_root(*assets[1 - number])
        proof = Proof(1, f"user:{number}", salt, "USDC", 70, 70, b"", links)
        with pytest.raises(ProofInvalid, match="does not stand where the batch's 1 assets put it"):
            check_proof(proof, root, ["USDC"])
        with pytest.raises(ProofInvalid, match="states 2 totals of USDC"):
            check_proof(proof, root, ["USDC", "USDC"])
        with pytest.raises(ProofInvalid, match="states 0 totals of USDC"):
            check_proof(proof, root, ["MAYA"])


@pytest.mark.parametrize("count", range(1, 10))
def test_an_asset_stands_at_its_own_place_only(count: int) -> None:
    assets = [(f"A{number}", bytes([number]) * 32, 5) for number in range(count)]
    names, root = [name for name, _, _ in assets], liability_root(assets)
    for place, name in enumerate(names):
        proof = Proof(1, "x", bytes(16), name, 5, 5, b"", asset_path(assets, name))
        with pytest.raises(ProofInvalid, match="another liability root"):  # the place is right, the tree is none
            check_proof(proof, root, names)
        for other in {*range(count)} - {place}:
            swapped = list(names)
            swapped[place], swapped[other] = names[other], name
            with pytest.raises(ProofInvalid, match=f"{name} does not stand where the batch's {count} assets put it"):
                check_proof(proof, root, swapped)


def test_a_proof_of_a_million_clients_and_two_hundred_assets_is_small() -> None:
    steps = [(bytes(range(32)), 2**62 // 3**level, True) for level in range(20)]
    links = bytes(33 * 8)
    proof = Proof(10**7, "user:" + "0" * 32, bytes(16), "A" * 16, 2**62, 2**62, pack_path(steps), links)
    assert len(msgspec.json.encode(proof)) <= 2_000
