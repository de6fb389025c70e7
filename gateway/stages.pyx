"""Histograms of order entry's stages, for each key and for the whole venue, since the start.

    matched    from the reading of the command's frame to the end of the core's work on it
    durable    from the same moment until its record was on disk, by the disk writer's clock (only with durable acks)
    out        from the same moment until its answer was written

Every key that signs in has a seat of its own, up to `seats_max`; those who come later share one. The counts of a seat
are plain C; what reads them sums over seats. Names of keys are cut to NAME_DIGITS hex digits for those who are told of
all keys; only the first `told_max` that signed in are named there and the others summed as `other`, so the names are
bounded and no count ever goes back.

Bounds double from 1 µs to 16.8 s; the last bucket is what took longer. A time before its stage began (the clock was set
back) counts as none. Never: keeps single values.
"""

from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memset

__all__ = ["BOUNDS_US", "NAME_DIGITS", "OTHER", "STAGES", "Stages"]

STAGES = ("matched", "durable", "out")
BOUNDS_US = tuple(1 << power for power in range(BUCKETS - 1))
NAME_DIGITS = 12
OTHER = "other"

cdef extern from *:
    int __builtin_clzll(unsigned long long) noexcept nogil


cdef inline void _count(Histogram* histogram, int64_t ns) noexcept nogil:
    cdef uint64_t taken = <uint64_t>ns if ns > 0 else 0
    cdef uint64_t above = (taken - 1) // 1000 if taken > 1000 else 0  # 0 up to 1 µs, 1 up to 2 µs, 2 and 3 up to 4 µs …
    cdef int bucket = 64 - __builtin_clzll(above) if above else 0
    histogram.counts[bucket if bucket < BUCKETS else BUCKETS - 1] += 1
    histogram.sum_ns += taken


cdef class Stages:
    """Seats of keys.

    Args:
        seats_max: keys that have histograms of their own.
        told_max: of these, how many are named where all are told.
    """

    def __cinit__(self, uint32_t seats_max=4_096, uint32_t told_max=16):
        if not seats_max >= told_max >= 1:
            raise ValueError(f"told_max is {told_max}; it must be 1 to seats_max ({seats_max})")
        self.seats = <Seat*>calloc(seats_max + 1, sizeof(Seat))  # untouched pages cost nothing
        if self.seats == NULL:
            raise MemoryError("no memory for the histograms of stages")
        self.seats_max = seats_max
        self.told_max = told_max
        self.seat_count = 1
        self.seat_by_key = {}

    def __dealloc__(self):
        free(self.seats)

    cdef void observe(self, uint32_t seat, int64_t t_in, int64_t t_matched, int64_t t_durable, int64_t t_out) noexcept nogil:
        cdef Seat* own = &self.seats[seat]
        _count(&own.stages[0], t_matched - t_in)
        if t_durable:
            _count(&own.stages[1], t_durable - t_in)
        _count(&own.stages[2], t_out - t_in)

    def seat_of(self, str key not None):
        """The seat of a key, given at its first sign-in; 0 is that of all who came when there was none left."""
        seat = self.seat_by_key.get(key)
        if seat is None:
            if self.seat_count > self.seats_max:
                return 0
            seat = self.seat_by_key[key] = self.seat_count
            self.seat_count += 1
        return seat

    def note(self, uint32_t seat, int64_t t_in, int64_t t_matched, int64_t t_durable, int64_t t_out):
        """`observe`, for tests."""
        if seat >= self.seat_count:
            raise ValueError(f"seat {seat} was not given")
        self.observe(seat, t_in, t_matched, t_durable, t_out)

    def of_key(self, str key not None):
        """The stages of one key, as JSON. Of a key without a seat: those of all such."""
        seat = self.seat_by_key.get(key, 0)
        return self._told(seat, seat + 1)

    def of_venue(self):
        """The stages of all keys together, as JSON: by name count, sum_us, p50_us, p99_us and buckets.

        `buckets`: [upper bound in µs, how many]; bound -1 is beyond the last.
        """
        return self._told(0, self.seat_count)

    def by_key(self):
        """The stages of the first keys by the beginning of their name, and of the others as `other`."""
        told = {
            key[:NAME_DIGITS]: self._told(seat, seat + 1)
            for key, seat in self.seat_by_key.items() if seat <= self.told_max
        }
        others = self._told(self.told_max + 1, self.seat_count, True)
        return told | ({OTHER: others} if others["out"]["count"] else {})

    def _told(self, uint32_t first, uint32_t end, bint with_shared=False):
        cdef Histogram total
        cdef uint32_t seat
        cdef int stage, bucket
        told = {}
        for stage in range(STAGE_COUNT):
            if with_shared:
                total = self.seats[0].stages[stage]
            else:
                memset(&total, 0, sizeof(total))
            for seat in range(first, end):
                total.sum_ns += self.seats[seat].stages[stage].sum_ns
                for bucket in range(BUCKETS):
                    total.counts[bucket] += self.seats[seat].stages[stage].counts[bucket]
            counts = [total.counts[bucket] for bucket in range(BUCKETS)]
            told[STAGES[stage]] = {
                "count": sum(counts), "sum_us": total.sum_ns // 1000, "p50_us": _quantile(counts, 0.5),
                "p99_us": _quantile(counts, 0.99), "buckets": [list(pair) for pair in zip((*BOUNDS_US, -1), counts)],
            }  # fmt: skip
        return told


def _quantile(counts, double share):
    """The bound that so many lie at or below; None without a value, -1 beyond the last bound."""
    wanted, seen = share * sum(counts), 0
    if not wanted:
        return None
    for bound, count in zip(BOUNDS_US, counts):
        seen += count
        if seen >= wanted:
            return bound
    return -1
