# The slots of layout.py as C structs, for the readers of events that live outside the core (gateway, market data).
#
#   Place … Poison         command records that are written straight from a client's bytes
#   EventHead … Uncrossed  events; the head slot alone, without the padding up to 128 bytes
#   EventSlot              any event slot as 128 bytes, to step over slots
#   OpenOrder              a row of `Core.open_orders`: no slot
#
# Packed and in the order of the dtypes: tests/unit/engine/test_records.py compares every offset, size and number here with
# layout.py and codes.py.

from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t

cdef enum:
    SLOT = 128

cdef enum Op:
    OP_ASSET = 1
    OP_MARKET = 2
    OP_ACCOUNT = 3
    OP_PLACE = 11
    OP_CANCEL = 12
    OP_REPLACE = 13
    OP_MASS_CANCEL = 14
    OP_KILL = 17
    OP_REARM = 18
    OP_CANCEL_AFTER = 19
    OP_POISON = 20
    OP_TICK = 21
    OP_CUT = 22

cdef enum Event:
    EV_ACCEPTED = 1
    EV_REJECTED = 2
    EV_DUPLICATE = 3
    EV_DONE = 4
    EV_TRADE = 5
    EV_CANCELED = 6
    EV_REPLACED = 7
    EV_TRIGGERED = 8
    EV_REFRESHED = 9
    EV_PREVENTED = 10
    EV_BALANCE = 11
    EV_TRANSFERRED = 12
    EV_VOIDED = 15
    EV_PHASE_CHANGED = 16
    EV_UNCROSSED = 17

cdef packed struct CommandHead:
    uint32_t crc32c
    uint8_t kind
    uint8_t slots
    uint16_t flags
    uint64_t sequence
    int64_t ts
    uint64_t chain

cdef packed struct Place:
    CommandHead head
    uint32_t account
    uint32_t market
    char client_id[32]
    int64_t price
    int64_t size
    int64_t stop_price
    int64_t display_size
    int64_t expires_at
    uint64_t session
    uint8_t side
    uint8_t type
    uint8_t tif
    uint8_t stp

cdef packed struct Cancel:
    CommandHead head
    uint32_t account
    uint32_t spare
    char client_id[32]

cdef packed struct Replace:
    CommandHead head
    uint32_t account
    uint32_t spare
    char client_id[32]
    int64_t price
    int64_t size
    int64_t stop_price
    char new_client_id[32]

cdef packed struct MassCancel:
    CommandHead head
    uint32_t account
    uint32_t market
    uint64_t session
    uint8_t side
    uint8_t given

cdef packed struct CancelAfter:
    CommandHead head
    uint32_t account
    uint32_t spare
    int64_t at

cdef packed struct Poison:
    CommandHead head
    uint32_t account
    uint32_t spare
    char client_id[32]

cdef packed struct EventHead:
    uint64_t sequence
    int64_t ts
    uint32_t index
    uint32_t account
    uint32_t market
    uint8_t kind
    uint8_t slots
    uint8_t reason
    uint8_t op

cdef packed struct EventSlot:
    EventHead head
    uint8_t payload[96]

cdef packed struct Accepted:
    EventHead head
    uint64_t order_id
    char client_id[32]
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

cdef packed struct Rejected:
    EventHead head
    uint64_t order_id
    char text[64]
    uint8_t flags

cdef packed struct Duplicate:
    EventHead head
    uint64_t order_id
    char text[64]
    int64_t filled
    uint8_t status
    uint8_t flags

cdef packed struct DoneAsset:
    EventHead head
    char name[64]
    uint8_t scale
    uint8_t settled

cdef packed struct DoneMarket:
    EventHead head
    char name[64]
    uint32_t base
    uint32_t quote
    int64_t k
    int64_t u
    uint8_t phase

cdef packed struct MarketExtra:
    int64_t tick
    int64_t lot
    int64_t min_size
    int64_t max_size
    int64_t max_price
    int64_t reference_price
    int64_t pause_ns
    int64_t entry_band_ppm
    int64_t exec_band_ppm
    int32_t taker_ppm
    int32_t maker_ppm
    uint8_t tick_decimals
    uint8_t lot_decimals

cdef packed struct DoneAccount:
    EventHead head
    char name[64]
    int32_t taker_ppm
    int32_t maker_ppm
    uint32_t max_open_orders
    uint32_t mask
    uint8_t status
    uint8_t overdraft

cdef packed struct Trade:
    EventHead head
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

cdef packed struct Canceled:
    EventHead head
    uint64_t order_id
    char client_id[32]
    int64_t leaves
    int64_t released

cdef packed struct Replaced:
    EventHead head
    uint64_t order_id
    char client_id[32]
    int64_t price
    int64_t size
    int64_t leaves
    int64_t hold
    int64_t released
    uint8_t priority_kept
    uint8_t pad[7]
    int64_t stop_price

cdef packed struct Triggered:
    EventHead head
    uint64_t order_id
    int64_t stop_price
    int64_t trigger_price
    uint64_t trigger_sequence

cdef packed struct Refreshed:
    EventHead head
    uint64_t order_id
    int64_t display_size

cdef packed struct Prevented:
    EventHead head
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

cdef packed struct Balance:
    EventHead head
    int64_t available
    int64_t held
    uint8_t cause

cdef packed struct MoneyEvent:
    EventHead head
    char ref[64]
    char code[16]
    uint16_t leg_count
    uint8_t cause
    uint8_t has_memo

cdef packed struct Leg:
    uint32_t source
    uint32_t asset
    int64_t amount
    uint32_t target
    uint8_t reserved[12]

cdef packed struct PhaseChanged:
    EventHead head
    uint8_t phase
    uint8_t pad[7]
    int64_t reference_price

cdef packed struct Uncrossed:
    EventHead head
    int64_t price
    int64_t size
    int64_t imbalance

cdef packed struct OpenOrder:
    uint64_t order_id
    uint32_t account
    uint32_t market
    char client_id[32]
    int64_t price
    int64_t size
    int64_t leaves
    int64_t hold
    uint64_t join
    uint64_t session
    uint8_t side
    uint8_t type
    uint8_t tif
    uint8_t flags
    uint8_t status
    uint8_t pad[3]
    int64_t stop_price
    int64_t display_size
    int64_t displayed
    int64_t expires_at
    uint64_t oco
