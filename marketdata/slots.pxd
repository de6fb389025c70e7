# The event slots of engine/messages/layout.py that a market data reader needs, as C sees them.
# `feed.pyx` compares every offset with the numpy dtypes on import.

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

cdef packed struct EventSlot:
    uint64_t sequence
    int64_t ts
    uint32_t index
    uint32_t account
    uint32_t market
    uint8_t kind
    uint8_t slots
    uint8_t reason
    uint8_t op
    uint8_t payload[96]

cdef packed struct AcceptedSlot:
    uint8_t head[32]
    uint64_t order_id
    uint8_t client_id[32]
    int64_t price
    int64_t size
    int64_t hold
    int64_t stop_price
    int64_t display_size
    int64_t expires_at
    uint8_t side
    uint8_t type
    uint8_t tif
    uint8_t flags
    uint8_t reserved[4]

cdef packed struct TradeSlot:
    uint8_t head[32]
    uint32_t taker_account
    uint8_t aggressor
    uint8_t buyer
    uint8_t pad[2]
    uint64_t trade_id
    int64_t price
    int64_t size
    int64_t notional
    uint64_t maker_order_id
    int64_t maker_leaves
    int64_t maker_fee
    uint64_t taker_order_id
    int64_t taker_leaves
    int64_t taker_fee
    int64_t released

cdef packed struct CanceledSlot:
    uint8_t head[32]
    uint64_t order_id
    uint8_t client_id[32]
    int64_t leaves
    int64_t released
    uint8_t reserved[40]

cdef packed struct ReplacedSlot:
    uint8_t head[32]
    uint64_t order_id
    uint8_t client_id[32]
    int64_t price
    int64_t size
    int64_t leaves
    int64_t hold
    int64_t released
    uint8_t priority_kept
    uint8_t reserved[15]

cdef packed struct RefreshedSlot:
    uint8_t head[32]
    uint64_t order_id
    int64_t display_size
    uint8_t reserved[80]

cdef packed struct PreventedSlot:
    uint8_t head[32]
    uint32_t taker_account
    uint8_t mode
    uint8_t pad[3]
    int64_t price
    int64_t size
    uint64_t maker_order_id
    int64_t maker_leaves
    int64_t maker_released
    uint64_t taker_order_id
    int64_t taker_leaves
    int64_t taker_released
    uint8_t reserved[24]

# One public trade, 56 bytes; `feed.TRADE_ROW` is its dtype.
cdef packed struct TradeRow:
    uint64_t sequence
    int64_t ts
    uint64_t trade_id
    int64_t price
    int64_t size
    int64_t notional
    uint32_t market
    uint8_t aggressor
    uint8_t pad[3]
