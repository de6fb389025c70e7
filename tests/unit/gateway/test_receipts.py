"""Receipts: what is signed verifies, and whatever was changed does not."""

import hashlib
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from byline.client import ReceiptInvalid, verify_receipt
from gateway.receipts import Receipts


@pytest.mark.parametrize("count", [1, 2, 3, 5, 8, 33])
def test_every_receipt_of_a_group_verifies_and_no_changed_one_does(count: int) -> None:
    receipts: Receipts[int] = Receipts(Ed25519PrivateKey.generate(), "test", 7)
    records = [hashlib.sha256(bytes([n])).digest() * 4 for n in range(count + 2)]
    for number, record in enumerate(records):
        receipts.ask(number, 10 + number, record, bytes([number]) * 16)
    told = receipts.sign(10 + count - 1)
    assert [owner for owner, _ in told] == list(range(count)) and len(receipts) == 2
    assert len({body["signature"] for _, body in told}) == 1
    for number, body in told:
        assert verify_receipt(body, receipts.key, "test", records[number]) == 10 + number
        changes: list[dict[str, Any]] = [
            {"sequence": 9}, {"state_hash": "00" * 16 if number else "01" * 16}, {"command_digest": "11" * 32},
            {"epoch": 8}, {"signature": "22" * 64}, {"path": [["left", "33" * 32], *body["path"]]}, {"path": None},
            {"signature": "zz"}, {"sequence": -1}, {"sequence": "9"},
        ]  # fmt: skip
        for change in changes:
            with pytest.raises(ReceiptInvalid):
                verify_receipt(body | change, receipts.key, "test")
        for key, environment in ((Receipts(Ed25519PrivateKey.generate(), "", 1).key, "test"), (receipts.key, "live")):
            with pytest.raises(ReceiptInvalid):
                verify_receipt(body, key, environment)
        with pytest.raises(ReceiptInvalid, match="another command"):
            verify_receipt(body, receipts.key, "test", records[number + 1])
