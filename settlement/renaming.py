"""The journal without names: every text that tells of a person becomes a token, and the core does the same with it.

The core compares names, refs and client ids and never looks into them, so a renaming that keeps equal what is equal
(and different what differs) gives the same trades, balances, refusals and sequences. What differs is the state hash,
since names enter it: the published journal has state hashes of its own.

    account            kind:HEX56, HEX the id of its leaf in the liability trees (merkle.client_id); the exchange's own
                       accounts (rows.is_house) keep their names
    client id          32 hex digits, of account and id       ref, memo, address, stp group   64 hex digits
    row                32 bytes                               session                         8 bytes

Tokens are keyed BLAKE2b: without the key nobody gets from a token to a name, not by trying all names either. Empty
texts stay empty; assets, markets, amounts, prices, times and order ids stay as they are. CRC and chain words, which
belong to the journal's own files, are zero.
"""

from __future__ import annotations

import hashlib

import numpy as np
import numpy.typing as npt

from engine.messages import layout
from engine.messages.codes import CommandKind
from settlement.merkle import client_id, client_salt
from settlement.rows import is_house

__all__ = ["Renamer", "id_of_name"]

_KINDS = ("user", "coins", "pay", "work", "pool", "escrow", "ad", "bond", "launch")
_OUTLIVES = b"\xff" * 8
"""A session word that means: none, and not this connection's."""
_MONEY = (CommandKind.DEPOSIT, CommandKind.WITHDRAW, CommandKind.TRANSFER)
_BY_REF = (CommandKind.POST, CommandKind.VOID, CommandKind.WITHDRAW_SETTLED, CommandKind.WITHDRAW_FAILED)
_HAS_REF_SLOT = (CommandKind.ASSET, CommandKind.MARKET, CommandKind.ACCOUNT, CommandKind.PHASE)

Slots = npt.NDArray[np.void]


class Renamer:
    """`key`: the exchange's secret (proof_desk.load_proof_key). The same key gives the same tokens."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def records(self, slots: Slots) -> Slots:
        """A copy of whole command records (dtype layout.COMMAND) with tokens for names."""
        renamed = slots.copy()
        at = 0
        while at < len(renamed):
            count = max(1, int(renamed["slots"][at]))
            self._record(renamed[at : at + count])
            at += count
        return renamed

    def account(self, name: str) -> str:
        """The published name of an account."""
        if is_house(name):
            return name
        kind = name.partition(":")[0]
        identity = client_id(client_salt(self._key, name), name)
        return f"{kind if kind in _KINDS else 'client'}:{identity.hex()}"

    # ------------------------------------------------------------ inside

    def _record(self, record: Slots) -> None:
        head = record[:1]
        kind, flags = int(head["kind"][0]), int(head["flags"][0])
        head["crc32c"] = 0
        head["chain"] = 0
        if kind == CommandKind.ACCOUNT:
            account = head.view(layout.ACCOUNT)
            account["name"] = self.account(bytes(account["name"][0]).decode("ascii")).encode()
            if int(account["mask"][0]) & (layout.AccountMask.ROW | layout.AccountMask.STP_GROUP):
                extra = record[1:2].view(layout.ACCOUNT_EXTRA)
                self._text(extra, "stp_group", b"group", 32)
                row = extra["row"][0].tobytes()
                if any(row):
                    extra["row"] = np.void(self._token(b"row", row, 32))
        elif kind == CommandKind.PLACE:
            place = head.view(layout.PLACE)
            self._client_id(place, "client_id")
            self._session(place)
            if flags & layout.PlaceFlag.HAS_OCO:
                raw = record[1:2].view("S32")  # `oco_with` is the first of the slot
                raw[0] = self._client_token(place, bytes(raw[0]))
        elif kind == CommandKind.CANCEL and not flags & layout.OrderFlag.BY_ORDER_ID:
            self._client_id(head.view(layout.CANCEL), "client_id")
        elif kind == CommandKind.REPLACE:
            replace = head.view(layout.REPLACE)
            if not flags & layout.OrderFlag.BY_ORDER_ID:
                self._client_id(replace, "client_id")
            self._client_id(replace, "new_client_id")
        elif kind == CommandKind.POISON:
            self._client_id(head.view(layout.POISON), "client_id")
        elif kind == CommandKind.MASS_CANCEL:
            self._session(head.view(layout.MASS_CANCEL))
        elif kind in _MONEY or kind in _BY_REF:
            self._text(head.view(layout.POST), "ref", b"ref", 32)
            at = 1
            if flags & layout.MoneyFlag.HAS_META:
                self._text(record[at : at + 1].view(layout.MONEY_META), "memo", b"memo", 32)
                at += 1
            if flags & layout.MoneyFlag.HAS_ADDRESS:
                self._text(record[at : at + 1].view(layout.ADDRESS_SLOT), "address", b"address", 32)
        if kind in _HAS_REF_SLOT and flags & layout.MoneyFlag.HAS_REF:
            self._text(record[-1:].view(layout.REF_SLOT), "ref", b"ref", 32)

    def _client_id(self, slot: Slots, name: str) -> None:
        slot[name] = self._client_token(slot, bytes(slot[name][0]))

    def _client_token(self, slot: Slots, value: bytes) -> bytes:
        account = int(slot["account"][0]).to_bytes(4, "little")
        return self._token(b"client id", account + value, 16).hex().encode() if value else b""

    def _session(self, slot: Slots) -> None:
        value = int(slot["session"][0]).to_bytes(8, "little")
        if any(value) and value != _OUTLIVES:
            slot["session"] = int.from_bytes(self._token(b"session", value, 8), "little")

    def _text(self, slot: Slots, name: str, purpose: bytes, size: int) -> None:
        value = bytes(slot[name][0])
        if value:
            slot[name] = self._token(purpose, value, size).hex().encode()

    def _token(self, purpose: bytes, value: bytes, size: int) -> bytes:
        return hashlib.blake2b(value, key=self._key, digest_size=size, person=purpose).digest()


def id_of_name(name: str) -> bytes:
    """The leaf id in an account's published name. ValueError if there is none."""
    identity = bytes.fromhex(name.partition(":")[2])
    if len(identity) != 28:
        raise ValueError(f"{name} is no published name of a client")
    return identity
