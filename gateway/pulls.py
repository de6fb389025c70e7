"""Orders that go when their session does: cancel on disconnect, and the pull of a tripped protection.

An order carries a session number, stamped by `gateway.guard`: the connection's, if it ends with the connection, else
its key's. Both are cancelled by journaled `mass_cancel` commands of one account and number, so a replay does the same.

    connection's   epoch << 28 | number of the sign-in; below 2^48
    key's          the upper half of the numbers, from SHA-256 of the public key: the same in every life

What the exchange itself did not live to cancel (it was killed) is cancelled at the next start, before anybody is
listened to: connections of earlier epochs are lost for certain, and a revoked key's orders are nobody's. A refusal for
want of room is tried again at the next look.
"""

from __future__ import annotations

import hashlib
import logging
import struct
from collections import deque
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.messages.codes import NIL, CommandKind
from gateway.sequencer import Sequencer

__all__ = ["Pulls", "connection_stamp", "epoch_of", "key_stamp"]

log = logging.getLogger(__name__)
_NUMBER_BITS = 28
_CONNECTIONS = 1 << 48
_KEYS = 1 << 63
AT_ONCE = 256


def connection_stamp(epoch: int, number: int) -> int:
    """The session number of orders that end with the sign-in of that number, from 1; 0: there is none left for it."""
    fits = 0 < number < 1 << _NUMBER_BITS and 0 < epoch < 1 << 20
    return epoch << _NUMBER_BITS | number if fits else 0


def epoch_of(open_orders: NDArray[Any]) -> int:
    """The last epoch in which a connection placed one of these orders, 0 if none did."""
    sessions = open_orders["session"]
    return int(sessions[sessions < _CONNECTIONS].max(initial=0)) >> _NUMBER_BITS


def key_stamp(key: str) -> int:
    """The session number of the key's orders that outlive their connection."""
    return int.from_bytes(hashlib.sha256(bytes.fromhex(key)).digest()[:8], "little") | _KEYS


class Pulls:
    """What is still to be cancelled, in order."""

    def __init__(self, sequencer: Sequencer) -> None:
        self._sequencer = sequencer
        self._waiting: deque[tuple[int, int]] = deque()

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, accounts: Iterable[int], stamps: Iterable[int]) -> None:
        """Cancel the orders of these account indices that carry one of these numbers, at the next `work`."""
        stamps = tuple(stamps)
        self._waiting.extend((account, stamp) for account in accounts for stamp in stamps if stamp)

    def add_orphans(self, open_orders: NDArray[Any], epoch: int) -> int:
        """Those of connections of earlier epochs. Returns how many (account, session) there are."""
        sessions = open_orders["session"]
        lost = open_orders[(sessions != 0) & (sessions < min(_CONNECTIONS, epoch << _NUMBER_BITS))]
        return self._add_pairs(lost)

    def add_disowned(self, open_orders: NDArray[Any], keys: Iterable[str]) -> int:
        """Those of keys that were revoked and are not registered. Returns how many (account, session) there are."""
        stamps = np.array([key_stamp(key) for key in keys], np.uint64)
        return self._add_pairs(open_orders[np.isin(open_orders["session"], stamps)])

    def _add_pairs(self, rows: NDArray[Any]) -> int:
        """(account, session) of each, once, in the order of their first rows. A million orders may be of few."""
        accounts, sessions = rows["account"], rows["session"]
        order = np.lexsort((sessions, accounts))  # stable: the first of equal ones is the first row of its pair
        is_first = np.ones(len(rows), bool)
        is_first[1:] = (np.diff(accounts[order]) != 0) | (np.diff(sessions[order]) != 0)
        firsts = np.sort(order[is_first])
        self._waiting.extend(zip(accounts[firsts].tolist(), sessions[firsts].tolist(), strict=True))
        return len(firsts)

    def work(self) -> bool:
        """Submit at most AT_ONCE. True if something was submitted: it is for the caller to release it."""
        done = 0
        while self._waiting and done < AT_ONCE:
            account, stamp = self._waiting[0]
            taken = self._sequencer.submit_record(_mass_cancel(account, stamp), reserved=True)
            if taken != "taken":
                if taken == "failed":
                    self._waiting.clear()  # the journal takes nothing any more; the next start finds them
                break
            self._waiting.popleft()
            done += 1
        return done > 0


def _mass_cancel(account: int, stamp: int) -> bytes:
    record = bytearray(128)
    record[4], record[5] = CommandKind.MASS_CANCEL, 1
    struct.pack_into("<IIQBB", record, 32, account, NIL, stamp, 255, 1)
    return bytes(record)
