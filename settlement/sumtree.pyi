import numpy as np
import numpy.typing as npt

class SumTree:
    """One asset's Merkle sum tree; see sumtree.pyx for the hashes."""

    def __init__(self) -> None: ...
    def __len__(self) -> int: ...
    @property
    def total(self) -> int:
        """Sum of all leaves."""
    @property
    def root(self) -> bytes:
        """32 bytes; zeros while there is no leaf."""
    def amount(self, place: int) -> int:
        """Of the leaf at `place`. Raises IndexError."""
    def append(self, ids: bytes) -> None:
        """Make places for leaves with these ids (28 bytes each), of amount zero until `set`."""
    def set(self, places: npt.NDArray[np.int64], amounts: npt.NDArray[np.uint64]) -> None:
        """New amounts at `places` (ascending). Raises IndexError, ValueError, OverflowError: nothing changed."""
    def path(self, place: int) -> list[tuple[bytes, int, bool]]:
        """Siblings of a leaf, upwards: (hash, sum, whether it stands to the left). Raises IndexError."""
    def copy(self) -> SumTree:
        """Another tree, the same now."""
    def shrink(self, count: int) -> None:
        """Take back the last places, as if they had never been given."""

def sha256_eight(messages: bytes, length: int) -> list[bytes]:
    """SHA-256 of eight messages of `length` ≤ 119 bytes, one behind another."""
