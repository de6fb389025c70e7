from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from engine.limits import CoreLimits as CoreLimits

__all__ = ["BALANCES", "OPEN_ORDERS", "Core", "CoreLimits"]

# What has bytes in one piece. Python 3.11 has no type for the buffer protocol.
_Slots: TypeAlias = bytes | bytearray | memoryview | NDArray[Any]

BALANCES: np.dtype[np.void]
OPEN_ORDERS: np.dtype[np.void]

class Core:
    """All state of the exchange: records in, events out. docs/matching.md says more, examples/core.py shows it.

    Records and events are slots of 128 bytes (engine/messages/layout.py) in numpy arrays or other buffers. One thread
    at a time: others are refused with RuntimeError while `apply_batch` runs. After a broken invariant every call raises
    AssertionError.
    """

    sequence: int
    """Of the last record applied; the next one must have this + 1. 0 at first."""
    time: int
    """The greatest `ts` so far, ns."""
    batch: int
    """Cuts so far."""
    next_due: int
    """When the next tick has work, ns; 2^63 - 1: never."""
    def __init__(self, limits: CoreLimits | None = None, *, risk: bool = True) -> None:
        """An empty core; without `risk` matching alone. Raises MemoryError: no address space for these limits."""
    @property
    def limits(self) -> CoreLimits: ...
    @property
    def ref_count(self) -> int:
        """Refs of commands that are kept now; there is room for `limits.refs`."""
    @property
    def risk(self) -> bool: ...
    def reserve(self, orders: int, client_ids: int | None = None) -> None:
        """Bring in the memory of that many more open orders and client ids now, before trading."""
    def apply(self, record: _Slots) -> NDArray[np.void]:
        """Apply one record; its events, read-only, dtype layout.EVENT.

        Raises ValueError, TypeError, MemoryError, RuntimeError: nothing has changed.
        """
    def apply_batch(self, records: _Slots, out: _Slots, start: int = 0, stop: int | None = None) -> tuple[int, int]:
        """Apply the records in slots `start` … `stop`; (first slot not applied, slots of `out` used).

        Stops early where `out` might be too small for the next record. Errors as `apply`, of the record at `start`.
        """
    def bound(self, record: _Slots) -> int:
        """The most event slots that this record can make in the present state."""
    def port(self) -> object:
        """The capsule "byline.CorePort" for C: docs/c-door.md."""
    def state_hash(self) -> bytes:
        """16 bytes: docs/state-hash.md."""
    def check(self) -> None:
        """Walk the whole state. Raises AssertionError naming the invariant that does not hold."""
    def snapshot(self) -> bytes:
        """The whole state. Raises ValueError for a core without money."""
    @staticmethod
    def restore(data: _Slots, *, checked: bool = False) -> Core:
        """The core that `snapshot` described. Raises ValueError: damaged, of another version, or no possible state."""
    def asset_index(self, name: str | bytes) -> int | None: ...
    def market_index(self, name: str | bytes) -> int | None: ...
    def account_index(self, name: str | bytes) -> int | None: ...
    def asset_name(self, index: int) -> str: ...
    def market_name(self, index: int) -> str: ...
    def account_name(self, index: int) -> str: ...
    def describe(self) -> NDArray[np.void]:
        """The `done` slots of every asset, market and account, to fill a directory after a restore."""
    def balances(self) -> NDArray[np.void]:
        """Every (account, asset) that has something, units; dtype BALANCES."""
    def balances_of(self, account: int) -> NDArray[np.void]:
        """Those of one account index."""
    def open_orders(self) -> NDArray[np.void]:
        """Every open and waiting order, dtype OPEN_ORDERS, by market, side, price from the best, queue."""
    def order_market(self, account: int, order_id: int | None, client_id: bytes) -> int | None: ...
    def client_id_state(self, account: int, client_id: bytes) -> tuple[int, int, int, int] | None: ...
    def is_poisoned(self, account: int, client_id: bytes) -> bool: ...
    def ids_known_since(self, account: int) -> int: ...
    def indicative(self, market: int) -> tuple[int | None, int, int]: ...
