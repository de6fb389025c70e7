# Names and scales of assets, markets and accounts by index, as C arrays for the hot path.
#
#   learn(slots, count)          takes the `done` events that define an entity; ignores every other event
#   find_market / find_account   index of a name, or NIL

from libc.stdint cimport int64_t, uint8_t, uint32_t

cdef enum:
    NAME_BYTES = 64

cdef struct NameEntry:
    uint8_t length  # 0: not defined yet
    uint8_t scale  # of an asset
    char name[64]

cdef struct MarketEntry:
    uint8_t length
    uint8_t tick_decimals
    uint8_t lot_decimals
    uint8_t base_scale
    uint8_t quote_scale
    uint32_t base
    uint32_t quote
    int64_t tick  # mantissa
    int64_t lot
    char name[64]

cdef class Names:
    cdef MarketEntry* markets
    cdef NameEntry* assets
    cdef NameEntry* accounts
    cdef readonly uint32_t market_count
    cdef readonly uint32_t asset_count
    cdef readonly uint32_t account_count
    cdef uint32_t market_room
    cdef uint32_t asset_room
    cdef uint32_t account_room
    cdef dict market_of
    cdef dict account_of

    cdef int learn(self, const uint8_t* slots, uint32_t count) except -1
    cdef uint32_t find_market(self, const char* name, Py_ssize_t length) except? 0
    cdef uint32_t find_account(self, const char* name, Py_ssize_t length) except? 0
    cdef int _name_account(self, uint32_t index, const char* name) except -1
