from typing import Self

import numpy as np

CHANGE: np.dtype[np.void]
LEVEL_ROW: int
ORDER_ROW: int
TRADE_ROW_KIND: int
PHASE_ROW: int
UNCROSSED_ROW: int

class Changes:
    """`capacity` rows of 64 bytes, rounded up to a power of two."""

    def __new__(cls, capacity: int) -> Self: ...
    @property
    def count(self) -> int: ...
    @property
    def capacity(self) -> int: ...
    @property
    def oldest(self) -> int: ...
    @property
    def horizon(self) -> int: ...
    def after(self, sequence: int) -> int: ...
    def take(self, start: int, stop: int) -> np.ndarray: ...
