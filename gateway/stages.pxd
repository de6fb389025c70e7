# How long an order takes from stage to stage, counted in C: no Python object for an order.
#
#   Histogram    counts by doubling bounds, their number and sum, of one stage
#   Stages       one set of histograms for each key, seat by seat; the venue's are their sum

from libc.stdint cimport int64_t, uint32_t, uint64_t

cdef enum:
    BUCKETS = 26  # bounds of 1 µs · 2^0 … 2^24, then what took longer
    STAGE_COUNT = 3

cdef struct Histogram:
    uint64_t[26] counts
    uint64_t sum_ns

cdef struct Seat:
    Histogram[3] stages

cdef class Stages:
    cdef Seat* seats  # 0: of those that have no seat of their own
    cdef uint32_t seat_count
    cdef uint32_t seats_max
    cdef uint32_t told_max
    cdef dict seat_by_key

    # An answered command. Times are ns of the gateway's clock; t_durable 0: nothing was waited for.
    cdef void observe(self, uint32_t seat, int64_t t_in, int64_t t_matched, int64_t t_durable, int64_t t_out) noexcept nogil
