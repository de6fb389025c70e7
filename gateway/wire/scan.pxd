# JSON text to binary records on the hot path: `place`, `replace` and `cancel` as traders send them, in place, without objects.

from libc.stdint cimport int64_t, uint8_t, uint32_t

from gateway.names cimport MarketEntry

cdef struct Slice:
    const char* at
    Py_ssize_t size  # -1: not given

cdef struct OrderText:
    uint8_t op  # 0: not understood, take the thorough path
    Slice rid  # as it stands in the text, quotes included
    Slice account
    Slice market
    Slice client_id
    Slice new_client_id
    Slice side
    Slice type
    Slice size
    Slice budget
    Slice price
    Slice stop_price
    Slice display_size
    Slice tif
    Slice stp
    int64_t order_id  # -1: not given
    int64_t expires_at  # -1: not given
    int post_only  # -1: not given
    int receipt  # -1: not given
    int cancel_on_disconnect  # -1: not given

cdef void scan(const char* text, Py_ssize_t size, OrderText* out) noexcept nogil
cdef bint fill_place(const OrderText* order, const MarketEntry* market, uint32_t market_index, uint32_t account,
                     uint8_t* record) noexcept nogil
cdef bint fill_cancel(const OrderText* order, uint32_t account, uint8_t* record) noexcept nogil
cdef bint fill_replace(const OrderText* order, const MarketEntry* market, uint32_t account, uint8_t* record) noexcept nogil
cdef int64_t steps(const char* text, Py_ssize_t size, int64_t mantissa, uint8_t decimals) noexcept nogil
