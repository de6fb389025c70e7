# Price bands. Inside is |price − reference| × 10^6 ≤ reference × ppm; without a reference everything is.
#
# The exec band of a command is the one of its start: its trades move the reference, not the band. `begin_band` is called
# once, where the command meets its market, and only if that market has an exec band.

from engine.types cimport ABSENT, MILLION, Market, State, int64_t, share_floor

from libc.stdint cimport INT64_MAX


cdef inline bint inside_band(int64_t reference, int64_t ppm, int64_t price) noexcept nogil:
    cdef int64_t rest, width
    if reference == ABSENT:
        return True
    width = share_floor(reference, ppm, MILLION, &rest)
    return reference - width <= price <= reference + width


cdef inline void begin_band(State* s, Market* market) noexcept nogil:
    cdef int64_t rest, width
    if market.exec_band_ppm == 0 or market.band_reference == ABSENT:
        s.band_low = 0
        s.band_high = INT64_MAX
        return
    width = share_floor(market.band_reference, market.exec_band_ppm, MILLION, &rest)
    s.band_low = market.band_reference - width
    s.band_high = market.band_reference + width
