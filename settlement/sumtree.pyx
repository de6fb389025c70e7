# cython: boundscheck=False
"""One asset's Merkle sum tree with all its levels kept, so that a change costs its path alone.

    leaf   = SHA-256(00 | id 28 bytes | amount u64 LE)                                         sum = amount
    node   = SHA-256(01 | left hash | left sum u64 LE | right hash | right sum u64 LE)         sum = left + right

An odd node rises unchanged. A place once given is kept; a balance that is gone leaves a leaf of zero. Sums stay below
2^63: `set` refuses what would pass it before anything changes. Eight hashes run at once (sha256x8.h).

Owns nothing but hashes and sums: which account has which place is the caller's (settlement.merkle).
"""

from libc.stdint cimport int64_t, uint8_t, uint64_t
from libc.stdlib cimport calloc, free, realloc
from libc.string cimport memcpy, memset

import numpy as np

cdef extern from "sha256x8.h" nogil:
    void sha256x8(const uint8_t *messages, size_t stride, size_t length, uint8_t *out)

cdef enum:
    ID_BYTES = 28
    LEAF_BYTES = 37
    NODE_BYTES = 81
    LEVELS = 40


cdef struct Node:
    uint8_t hash[32]
    uint64_t sum


cdef struct Level:
    Node* nodes
    size_t count
    size_t room


cdef class SumTree:
    """Starts empty."""

    cdef Level levels[LEVELS]
    cdef int height
    cdef uint8_t* ids

    def __cinit__(self):
        memset(self.levels, 0, sizeof(self.levels))
        self.height = 0
        self.ids = NULL

    def __dealloc__(self):
        for level in range(LEVELS):
            free(self.levels[level].nodes)
        free(self.ids)

    def __len__(self):
        return self.levels[0].count

    @property
    def total(self):
        """Sum of all leaves."""
        return self.levels[self.height - 1].nodes[0].sum if self.height else 0

    @property
    def root(self):
        """32 bytes; zeros while there is no leaf."""
        return bytes((<uint8_t*> self.levels[self.height - 1].nodes[0].hash)[:32]) if self.height else bytes(32)

    def amount(self, size_t place):
        """Of the leaf at `place`. Raises IndexError."""
        if place >= self.levels[0].count:
            raise IndexError(place)
        return self.levels[0].nodes[place].sum

    def append(self, bytes ids):
        """Make places for leaves with these ids (28 bytes each, one behind another), of amount zero until `set`."""
        cdef size_t more = len(ids) // ID_BYTES, before = self.levels[0].count
        if len(ids) % ID_BYTES:
            raise ValueError("an id has 28 bytes")
        if not more:
            return
        cdef uint8_t* grown = <uint8_t*> realloc(self.ids, (before + more) * ID_BYTES)
        if grown == NULL:
            raise MemoryError
        self.ids = grown
        memcpy(self.ids + before * ID_BYTES, <const uint8_t*> ids, more * ID_BYTES)
        self._grow(before + more)
        self.set(np.arange(before, before + more, dtype=np.int64), np.zeros(more, dtype=np.uint64))

    def set(self, places, amounts):
        """New amounts (uint64) at `places` (int64, ascending, no repeats). Costs the changed paths.

        Raises IndexError, ValueError (places out of order), OverflowError (the total would reach 2^63): nothing changed.
        """
        cdef const int64_t[::1] at = np.ascontiguousarray(places, dtype=np.int64)
        cdef const uint64_t[::1] units = np.ascontiguousarray(amounts, dtype=np.uint64)
        cdef Py_ssize_t count = at.shape[0], index
        cdef uint64_t taken = 0, given = 0
        if units.shape[0] != count:
            raise ValueError("as many amounts as places")
        if not count:
            return
        if at[0] < 0 or <size_t> at[count - 1] >= self.levels[0].count:
            raise IndexError("a place that was never given")
        for index in range(count):
            if index and at[index] <= at[index - 1]:
                raise ValueError("places must ascend")
            taken += self.levels[0].nodes[at[index]].sum
            if units[index] >> 63 or (given + units[index]) >> 63:
                raise OverflowError("the sum would reach 2^63")
            given += units[index]
        if (self.total - taken + given) >> 63:
            raise OverflowError("the sum would reach 2^63")
        cdef int64_t* changed = <int64_t*> calloc(count, sizeof(int64_t))
        if changed == NULL:
            raise MemoryError
        memcpy(changed, &at[0], count * sizeof(int64_t))
        with nogil:
            self._leaves(changed, &units[0], count)
            self._rise(changed, count)
        free(changed)

    def path(self, size_t place):
        """Siblings of a leaf, upwards: (hash, sum, whether it stands to the left). Raises IndexError."""
        if place >= self.levels[0].count:
            raise IndexError(place)
        steps = []
        cdef int level
        cdef size_t sibling
        cdef Node* node
        for level in range(self.height - 1):
            sibling = place ^ 1
            if sibling < self.levels[level].count:
                node = &self.levels[level].nodes[sibling]
                steps.append((bytes((<uint8_t*> node.hash)[:32]), node.sum, sibling < place))
            place >>= 1
        return steps

    def copy(self):
        """Another tree, the same now."""
        cdef SumTree other = SumTree()
        cdef int level
        cdef size_t count = self.levels[0].count
        if not count:
            return other
        other.ids = <uint8_t*> realloc(NULL, count * ID_BYTES)
        if other.ids == NULL:
            raise MemoryError
        memcpy(other.ids, self.ids, count * ID_BYTES)
        other._grow(count)
        for level in range(self.height):
            memcpy(other.levels[level].nodes, self.levels[level].nodes, self.levels[level].count * sizeof(Node))
        return other

    def shrink(self, size_t count):
        """Take back the last places, as if they had never been given."""
        cdef size_t before = self.levels[0].count
        cdef int level = 0
        if count >= before:
            return
        self._count(count)
        if count:
            # What now rises, or lost a sibling, is on the path of the last leaf that stays.
            self.set(np.array([count - 1], dtype=np.int64), np.array([self.amount(count - 1)], dtype=np.uint64))

    # ------------------------------------------------------------ inside

    cdef int _count(self, size_t count) except -1:
        """Set the number of nodes of each level; there is room for them."""
        cdef int level = 0
        while True:
            self.levels[level].count = count
            if count <= 1:
                break
            count = (count + 1) >> 1
            level += 1
        self.height = level + 1 if self.levels[0].count else 0
        return 0

    cdef int _grow(self, size_t leaves) except -1:
        cdef int level = 0
        cdef size_t count = leaves, room
        cdef Node* grown
        while True:
            if level == LEVELS:
                raise MemoryError
            if count > self.levels[level].room:
                room = max(count, self.levels[level].room * 3 // 2)
                grown = <Node*> realloc(self.levels[level].nodes, room * sizeof(Node))
                if grown == NULL:
                    raise MemoryError
                self.levels[level].nodes = grown
                self.levels[level].room = room
            if count > self.levels[level].count:
                memset(&self.levels[level].nodes[self.levels[level].count], 0,
                       (count - self.levels[level].count) * sizeof(Node))
            if count <= 1:
                break
            count = (count + 1) >> 1
            level += 1
        return self._count(leaves)

    cdef void _leaves(self, const int64_t* at, const uint64_t* units, Py_ssize_t count) noexcept nogil:
        cdef uint8_t messages[8][LEAF_BYTES]
        cdef uint8_t digests[8][32]
        cdef Py_ssize_t start, lane, lanes
        cdef Node* node
        for start in range(0, count, 8):
            lanes = min(8, count - start)
            for lane in range(lanes):
                messages[lane][0] = 0
                memcpy(&messages[lane][1], self.ids + at[start + lane] * ID_BYTES, ID_BYTES)
                memcpy(&messages[lane][1 + ID_BYTES], &units[start + lane], 8)
            for lane in range(lanes, 8):
                memcpy(&messages[lane][0], &messages[0][0], LEAF_BYTES)
            sha256x8(&messages[0][0], LEAF_BYTES, LEAF_BYTES, &digests[0][0])
            for lane in range(lanes):
                node = &self.levels[0].nodes[at[start + lane]]
                memcpy(node.hash, &digests[lane][0], 32)
                node.sum = units[start + lane]

    cdef void _rise(self, int64_t* changed, Py_ssize_t count) noexcept nogil:
        """From the changed places upwards; `changed` ascends and is overwritten."""
        cdef uint8_t messages[8][NODE_BYTES]
        cdef uint8_t digests[8][32]
        cdef int64_t parents[8]
        cdef Py_ssize_t index, kept, lanes, lane
        cdef int level
        cdef Node* below
        cdef Node* above
        cdef size_t width
        cdef int64_t parent
        for level in range(self.height - 1):
            below, above, width = self.levels[level].nodes, self.levels[level + 1].nodes, self.levels[level].count
            kept = lanes = 0
            for index in range(count):
                parent = changed[index] >> 1
                if kept and changed[kept - 1] == parent:
                    continue
                changed[kept] = parent
                kept += 1
                if <size_t> (2 * parent + 1) >= width:
                    memcpy(&above[parent], &below[2 * parent], sizeof(Node))
                    continue
                messages[lanes][0] = 1
                memcpy(&messages[lanes][1], below[2 * parent].hash, 32)
                memcpy(&messages[lanes][33], &below[2 * parent].sum, 8)
                memcpy(&messages[lanes][41], below[2 * parent + 1].hash, 32)
                memcpy(&messages[lanes][73], &below[2 * parent + 1].sum, 8)
                parents[lanes] = parent
                above[parent].sum = below[2 * parent].sum + below[2 * parent + 1].sum
                lanes += 1
                if lanes == 8:
                    sha256x8(&messages[0][0], NODE_BYTES, NODE_BYTES, &digests[0][0])
                    for lane in range(8):
                        memcpy(above[parents[lane]].hash, &digests[lane][0], 32)
                    lanes = 0
            if lanes:
                for lane in range(lanes, 8):
                    memcpy(&messages[lane][0], &messages[0][0], NODE_BYTES)
                sha256x8(&messages[0][0], NODE_BYTES, NODE_BYTES, &digests[0][0])
                for lane in range(lanes):
                    memcpy(above[parents[lane]].hash, &digests[lane][0], 32)
            count = kept


def sha256_eight(bytes messages, size_t length):
    """SHA-256 of eight messages of `length` ≤ 119 bytes, one behind another. For the test that holds sha256x8.h."""
    if length > 119 or <size_t> len(messages) != 8 * length:
        raise ValueError("eight messages of at most 119 bytes")
    cdef uint8_t digests[256]
    sha256x8(<const uint8_t*> messages, length, length, digests)
    return [bytes(digests[32 * lane:32 * lane + 32]) for lane in range(8)]
