# C twins of engine/messages (records, numbers) and the nodes of the core's state. Sizes and offsets are compared with
# layout.py and codes.py by tests/unit/engine/test_layout.py through `engine.types`.
#
#   State ── assets, markets, accounts     tables; their position is the index that records and events carry
#         ── balances                      chained to their account, beyond eight in a map; never given back
#         ── orders, order_details         two pools with the same slots: 64 bytes hot, 64 bytes cold
#         ── ids                           pool of client ids: of open orders, and remembered
#         ── refs, postings                pools of money commands
#         ── dirty lists, state sum        the state hash, kept up lazily
#
# Everything links by 32-bit slots; NIL names nothing. No pointer into a pool survives a call.

from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t

cdef extern from "engine/arithmetic.h" nogil:
    ctypedef long long int128
    ctypedef unsigned long long uint128
    ctypedef struct SortItem:
        uint64_t key
        uint32_t slot
    int64_t div_ceil_ppm(int64_t a) noexcept
    int64_t fee_increase(int64_t notional, int32_t ppm, uint32_t* credit) noexcept
    int64_t buy_hold(int64_t notional, int32_t rate, uint32_t credit) noexcept
    int64_t choose(int choice, int64_t yes, int64_t no) noexcept
    int64_t side_hold(int sells, int64_t leaves, int64_t u, int64_t unit, int32_t rate, uint32_t credit) noexcept
    int64_t lots_affordable(int64_t money, uint32_t credit, int32_t ppm, int64_t unit) noexcept
    int64_t product_within(int64_t a, int64_t b, int64_t limit) noexcept
    int64_t share_floor(int64_t a, int64_t b, int64_t c, int64_t* rest) noexcept
    int64_t scaled_exact(int64_t mantissa, int64_t factor, int scale, int decimals) noexcept
    bint same_decimal(int64_t a, int x, int64_t b, int y) noexcept
    bint fits_int64(int128 value) noexcept
    uint128 mix_part(const uint64_t* words, int first, int count) noexcept
    uint128 mix_finish(uint128 sum) noexcept
    uint128 mix_words(const uint64_t* words, int count) noexcept
    uint64_t fold(uint64_t a, uint64_t b) noexcept
    void clear_slot(void* slot) noexcept
    uint32_t match_tags(const uint32_t* tags, uint32_t tag) noexcept
    uint32_t match_eight(const uint32_t* tags, uint32_t tag) noexcept
    bint id_after(const uint64_t* id, const uint64_t* other) noexcept
    int lowest_bit(uint64_t word) noexcept
    int highest_bit(uint64_t word) noexcept
    bint rarely(bint condition) noexcept
    void* region_map(size_t size) noexcept
    void* region_map_dense(size_t size) noexcept
    void* table_region(size_t size) noexcept
    void region_forget(void* region, size_t size) noexcept
    void region_touch(void* region, size_t size) noexcept
    void region_collapse(void* region, size_t size) noexcept
    void region_unmap(void* region, size_t size) noexcept
    void sort_items(SortItem* items, size_t count) noexcept
    const void* either(int choice, const void* yes, const void* no) noexcept
    void prefetch_line(const void* address) noexcept

cdef extern from * nogil:
    """
    #define BYLINE_NIL 0xFFFFFFFFu
    #define BYLINE_ABSENT INT64_MIN
    #define BYLINE_INVALID (INT64_MIN + 1)
    #define BYLINE_TOTAL_LIMIT ((int64_t)1 << 62)
    #define BYLINE_PRICE_TICKS_TOTAL ((int64_t)1 << 39)
    """
    const uint32_t NIL "BYLINE_NIL"
    const int64_t ABSENT "BYLINE_ABSENT"
    const int64_t INVALID "BYLINE_INVALID"
    const int64_t TOTAL_LIMIT "BYLINE_TOTAL_LIMIT"
    const int64_t PRICE_TICKS_TOTAL "BYLINE_PRICE_TICKS_TOTAL"

cdef enum:
    SLOT_BYTES = 128
    POISONS_ACCOUNT = 10_000
    SLICES_MAX = 1000  # display_size times this is the most an iceberg may be
    OLDER_NAMES = 100  # client ids an order may have had before its newest
    LEGS_MAX = 64  # postings of one money command, and shares of one leg
    NO_NAME = 0  # slot of the one id of a core without money
    NO_ANNEX = 0  # slot of the one annex that is all zeros
    EXTERNAL = 0  # account indices that exist from the start
    FEES = 1
    WINDOW_BITS = 18
    WINDOW = 1 << 18  # order ids of which the youngest open one is found without hashing
    LATE = 8  # client ids that wait to be put into their map
    DIRTY_LIMIT = 4096  # entities that wait for their mix; a full list is mixed at once
    STP_GROUP = 0x80000000  # a self-trade key with this bit is a group, without it an account
    MILLION = 1000000

# ---------------------------------------------------------------- numbers of codes.py

cdef enum:
    DO_ASSET = 1
    DO_MARKET = 2
    DO_ACCOUNT = 3
    DO_DEPOSIT = 4
    DO_WITHDRAW = 5
    DO_TRANSFER = 6
    DO_POST = 7
    DO_VOID = 8
    DO_WITHDRAW_SETTLED = 9
    DO_WITHDRAW_FAILED = 10
    DO_PLACE = 11
    DO_CANCEL = 12
    DO_REPLACE = 13
    DO_MASS_CANCEL = 14
    DO_PHASE = 15
    DO_UNCROSS = 16
    DO_KILL = 17
    DO_REARM = 18
    DO_CANCEL_AFTER = 19
    DO_POISON = 20
    DO_TICK = 21
    DO_CUT = 22
    DO_MALFORMED = 31

cdef enum:
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
    EV_PENDED = 13
    EV_POSTED = 14
    EV_VOIDED = 15
    EV_PHASE_CHANGED = 16
    EV_UNCROSSED = 17
    EV_CUT = 18

cdef enum:
    BUY = 0
    SELL = 1

cdef enum:
    AGGRESSOR_NONE = 2

cdef enum:
    LIMIT = 1
    MARKET_ORDER = 2
    STOP = 3
    STOP_LIMIT = 4

cdef enum:
    TIF_DEFAULT = 0
    GTC = 1
    IOC = 2
    FOK = 3
    GTD = 4

cdef enum:
    CANCEL_NEWEST = 0
    CANCEL_OLDEST = 1
    CANCEL_BOTH = 2
    DECREMENT = 3
    STP_NONE = 4

cdef enum:
    ACTIVE = 0
    CANCEL_ONLY = 1
    FROZEN = 2

cdef enum:
    NEVER = 0
    FORCED = 1
    OPEN_OVERDRAFT = 2

cdef enum:
    CONTINUOUS = 0
    PREOPEN = 1
    AUCTION = 2
    PHASE_CANCEL_ONLY = 3
    HALT = 4
    CLOSED = 5

cdef enum:
    BY_COMMAND = 0
    BY_UNCROSS = 1
    BY_BAND = 2
    BY_PAUSE = 3

cdef enum:
    STATUS_WAITING = 0
    STATUS_OPEN = 1
    STATUS_FILLED = 2
    STATUS_CANCELED = 3

cdef enum:
    REF_POSTED = 0
    REF_PENDING = 1
    REF_VOIDED = 2

cdef enum:
    WHY_USER = 1
    WHY_MASS = 2
    WHY_IOC = 3
    WHY_FOK = 4
    WHY_MARKET = 5
    WHY_STP = 6
    WHY_EXPIRED = 7
    WHY_OCO = 8
    WHY_KILLED = 9
    WHY_FROZEN = 10
    WHY_CLOSED = 11
    WHY_SESSION = 12
    WHY_BAND = 13
    WHY_BUDGET = 14
    WHY_FUNDS = 15
    WHY_REPLACED = 16
    WHY_FILLS_LIMIT = 17

cdef enum:
    OK = 0
    BAD_REF = 1
    UNKNOWN_ACCOUNT = 2
    DUPLICATE = 3
    POISONED = 4
    UNKNOWN_MARKET = 5
    UNKNOWN_ASSET = 6
    REJECT_FROZEN = 7
    REJECT_CANCEL_ONLY = 8
    KILLED = 9
    UNKNOWN_ORDER = 10
    REJECT_PHASE = 11
    BAD_VALUE = 12
    EXISTS = 13
    BAD_TYPE = 14
    BAD_TIF = 15
    BAD_PRICE = 16
    BAD_SIZE = 17
    BAD_DISPLAY = 18
    BAD_STOP = 19
    BAD_AMOUNT = 20
    BAD_EXPIRY = 21
    BAND = 22
    TOO_MANY_ORDERS = 23
    BAD_OCO = 24
    INSUFFICIENT_FUNDS = 25
    WOULD_CROSS = 26
    NO_LIQUIDITY = 27
    CROSSED = 28
    EXPIRED = 29
    BAD_ACCOUNT = 30
    BAD_LEGS = 31
    TOO_LARGE = 32
    BUSY = 33
    REJECT_MALFORMED = 34

# flags and masks of layout.py
cdef enum:
    PLACE_POST_ONLY = 1
    PLACE_BUDGET = 2
    PLACE_HAS_OCO = 4
    PLACE_NO_SIZE = 8
    PLACE_BOTH_SIZES = 16
    ORDER_BY_ORDER_ID = 1
    ORDER_BOTH_IDS = 2
    MONEY_FORCE = 1
    MONEY_HAS_META = 2
    MONEY_HAS_ADDRESS = 4
    MONEY_PENDING = 8
    MONEY_HAS_REF = 16
    MASK_MIN_SIZE = 1
    MASK_MAX_SIZE = 2
    MASK_MAX_PRICE = 4
    MASK_TAKER_PPM = 8
    MASK_MAKER_PPM = 16
    MASK_ENTRY_BAND = 32
    MASK_EXEC_BAND = 64
    MASK_PAUSE = 128
    MASK_PHASE = 256
    MASK_REFERENCE_PRICE = 512
    HAS_STATUS = 1
    HAS_OVERDRAFT = 2
    HAS_TAKER_PPM = 4
    HAS_MAKER_PPM = 8
    HAS_MAX_OPEN_ORDERS = 16
    HAS_ROW = 32
    HAS_STP_GROUP = 64
    ACCOUNT_MASKS = 127  # all of them
    REJECTED_ORDER_ID = 1
    REJECTED_CLIENT_ID = 2
    REJECTED_REF = 4

# ---------------------------------------------------------------- text

ctypedef struct ClientId:
    uint64_t word[4]

ctypedef struct Name:
    uint64_t word[8]

# ---------------------------------------------------------------- command records

ctypedef struct Record:
    uint32_t crc32c
    uint8_t kind, slots
    uint16_t flags
    uint64_t sequence
    int64_t ts
    uint64_t chain
    uint64_t payload[12]

ctypedef struct AssetRecord:
    uint64_t head[4]
    Name name
    uint8_t scale, settled
    uint8_t pad[30]

ctypedef struct MarketRecord:
    uint64_t head[4]
    Name name
    uint32_t base, quote, mask
    uint8_t phase
    uint8_t pad[19]

ctypedef struct MarketTerms:
    int64_t tick, lot, min_size, max_size, max_price, reference_price, pause_ns, entry_band_ppm, exec_band_ppm
    int32_t taker_ppm, maker_ppm
    uint8_t tick_decimals, lot_decimals
    uint8_t pad[46]

ctypedef struct AccountRecord:
    uint64_t head[4]
    Name name
    uint32_t mask
    int32_t taker_ppm, maker_ppm
    uint32_t max_open_orders
    uint8_t status, overdraft
    uint8_t pad[14]

ctypedef struct AccountExtra:
    uint64_t row[4]
    Name stp_group
    uint64_t pad[4]

ctypedef struct DirectRecord:  # deposit, withdraw
    uint64_t head[4]
    Name ref
    uint32_t account, asset
    int64_t amount, not_after
    uint32_t place
    uint16_t part_count, leg_count

ctypedef struct TransferRecord:
    uint64_t head[4]
    Name ref
    int64_t expires_at, not_after
    uint16_t part_count, leg_count
    uint8_t pad[12]

ctypedef struct PostRecord:
    uint64_t head[4]
    Name ref
    int64_t not_after
    uint8_t pad[24]

ctypedef struct PlaceRecord:
    uint64_t head[4]
    uint32_t account, market
    ClientId client_id
    int64_t price, size, stop_price, display_size, expires_at
    uint64_t session
    uint8_t side, type, tif, stp
    uint8_t pad[4]

ctypedef struct CancelRecord:
    uint64_t head[4]
    uint32_t account, spare
    ClientId client_id
    uint64_t pad[7]

ctypedef struct ReplaceRecord:
    uint64_t head[4]
    uint32_t account, spare
    ClientId client_id
    int64_t price, size, stop_price
    ClientId new_client_id

ctypedef struct MassCancelRecord:
    uint64_t head[4]
    uint32_t account, market
    uint64_t session
    uint8_t side, given
    uint8_t pad[78]

ctypedef struct MarketOnlyRecord:  # phase, uncross
    uint64_t head[4]
    uint32_t market
    uint8_t phase
    uint8_t pad1[3]
    int64_t reference_price
    uint64_t pad[10]

ctypedef struct OcoSlot:
    ClientId client_id
    uint64_t pad[12]

ctypedef struct CancelAfterRecord:  # kill and rearm have the account alone
    uint64_t head[4]
    uint32_t account, spare
    int64_t at
    uint64_t pad[10]

ctypedef struct PoisonRecord:
    uint64_t head[4]
    uint32_t account, spare
    ClientId client_id
    uint64_t pad[7]

ctypedef struct Part:
    uint32_t source, asset
    int64_t amount
    uint32_t target, weight
    uint16_t leg
    uint8_t is_share
    uint8_t pad[5]

ctypedef struct MoneyMeta:
    uint64_t code[2]
    uint64_t memo[8]
    uint64_t pad[6]

ctypedef struct RefSlot:
    Name ref
    int64_t not_after
    uint64_t pad[7]

# ---------------------------------------------------------------- events

ctypedef struct Event:
    uint64_t sequence
    int64_t ts
    uint32_t index, account, market
    uint8_t kind, slots, reason, op
    uint64_t payload[12]

ctypedef struct AcceptedEvent:
    uint64_t head[4]
    uint64_t order_id
    ClientId client_id
    int64_t price, size, hold, stop_price, display_size, expires_at
    uint8_t side, type, tif, flags
    uint8_t pad[4]

ctypedef struct RejectedEvent:
    uint64_t head[4]
    uint64_t order_id
    Name text
    uint8_t flags
    uint8_t pad[23]

ctypedef struct DuplicateEvent:
    uint64_t head[4]
    uint64_t order_id
    Name text
    int64_t filled
    uint8_t status, flags
    uint8_t pad[14]

ctypedef struct DoneAssetEvent:
    uint64_t head[4]
    Name name
    uint8_t scale, settled
    uint8_t pad[30]

ctypedef struct DoneMarketEvent:
    uint64_t head[4]
    Name name
    uint32_t base, quote
    int64_t k, u
    uint8_t phase
    uint8_t pad[7]

ctypedef struct DoneAccountEvent:
    uint64_t head[4]
    Name name
    int32_t taker_ppm, maker_ppm
    uint32_t max_open_orders, mask
    uint8_t status, overdraft
    uint8_t pad[14]

ctypedef struct TradeEvent:
    uint64_t head[4]
    uint32_t taker_account
    uint8_t aggressor, buyer
    uint8_t pad[2]
    uint64_t trade_id
    int64_t price, size, notional
    uint64_t maker_order_id
    int64_t maker_leaves, maker_fee
    uint64_t taker_order_id
    int64_t taker_leaves, taker_fee, released

ctypedef struct CanceledEvent:
    uint64_t head[4]
    uint64_t order_id
    ClientId client_id
    int64_t leaves, released
    uint64_t pad[5]

ctypedef struct ReplacedEvent:
    uint64_t head[4]
    uint64_t order_id
    ClientId client_id
    int64_t price, size, leaves, hold, released
    uint8_t priority_kept
    uint8_t pad[7]
    int64_t stop_price

ctypedef struct TriggeredEvent:
    uint64_t head[4]
    uint64_t order_id
    int64_t stop_price, trigger_price
    uint64_t trigger_sequence
    uint64_t pad[8]

ctypedef struct RefreshedEvent:
    uint64_t head[4]
    uint64_t order_id
    int64_t display_size
    uint64_t pad[10]

ctypedef struct PhaseChangedEvent:
    uint64_t head[4]
    uint8_t phase
    uint8_t pad[7]
    int64_t reference_price
    uint64_t rest[10]

ctypedef struct UncrossedEvent:
    uint64_t head[4]
    int64_t price, size, imbalance
    uint64_t pad[9]

ctypedef struct PreventedEvent:
    uint64_t head[4]
    uint32_t taker_account
    uint8_t mode
    uint8_t pad[3]
    int64_t price, size
    uint64_t maker_order_id
    int64_t maker_leaves, maker_released
    uint64_t taker_order_id
    int64_t taker_leaves, taker_released
    uint64_t pad2[3]

ctypedef struct BalanceEvent:
    uint64_t head[4]
    int64_t available, held
    uint8_t cause
    uint8_t pad[79]

ctypedef struct MoneyEvent:
    uint64_t head[4]
    Name ref
    uint64_t code[2]
    uint16_t leg_count
    uint8_t cause, has_memo
    uint8_t pad[12]

ctypedef struct Leg:
    uint32_t source, asset
    int64_t amount
    uint32_t target
    uint8_t pad[12]

ctypedef struct CutEvent:
    uint64_t head[4]
    uint64_t batch, first_sequence, last_sequence
    uint64_t hash_low, hash_high
    uint64_t pad[7]

# ---------------------------------------------------------------- state

# The 128-bit mix that an entity last added to the state sum, as two words so that nodes need no 16-byte alignment.
ctypedef struct Mix:
    uint64_t low, high

# Fixed-size nodes in reserved address space. A free node's first 4 bytes link to the next free one.
ctypedef struct Pool:
    uint8_t* nodes
    uint32_t node_bytes, capacity
    uint32_t used  # nodes ever taken: 0 … used - 1 have been touched
    uint32_t free, free_count

cdef enum:
    GROUP_ROOM = 7

# One cache line of a map. Lane 7 of the tags counts the keys whose home is here or before and that stand further on.
ctypedef struct Group:
    uint32_t tag[8]  # low half of the key's hash, 0: empty; tag & mask is the home
    uint32_t slot[8]

# Groups of seven; a key that finds its home full stands in the next group with room.
ctypedef struct Map:
    Group* groups
    uint32_t mask, count
    uint32_t full  # keys at which it doubles
    uint64_t most  # groups it may have: the table of n groups is from group n on of a region of twice as many

ctypedef struct Recent:
    uint32_t slot  # plus 1; 0: none
    uint32_t age  # the id without its low WINDOW_BITS bits

# Who is due when. A binary heap; entries whose subject is gone are passed over when they surface.
ctypedef struct Due:
    int64_t at
    uint64_t sequence  # of the command that set it
    uint32_t kind
    uint32_t slot  # of the order or ref; the account or market

cdef enum:
    DUE_ORDER = 0
    DUE_TRANSFER = 1
    DUE_TIMER = 2
    DUE_MARKET = 3
    DUE_FORGET = 4

ctypedef struct Asset:
    Name name
    int64_t below  # sum of the magnitudes of all available below zero
    uint8_t scale, settled

ctypedef struct Level:  # 16 bytes
    uint32_t head, tail  # slots of orders; meaningful only while the level's bit is set
    uint64_t size  # sum of what is displayed, modulo 2^64

cdef enum:
    BITMAP_DEPTH = 7  # 64^7 > 2^40
    SMALLEST_SHIFT = 4  # windows of 16 prices, of 64, of twice as many up to 4,096, of all
    WORD_SHIFT = 6
    LARGEST_SHIFT = 12
    WHOLE_SHIFT = 63

# One half of a book: 64 bytes. Its levels are those of a window of prices, windows.pyx; `levels` and `bits` are indexed
# by the price all the same.
ctypedef struct Half:
    Level* levels  # by price
    uint64_t* bits  # by price >> 6: a bit per price
    uint64_t word  # `bits` of a window of one word; the layer above of one of up to 64
    uint64_t words  # of `bits`; of all prices the layers above follow: a bit per word of the one below that is not zero
    int64_t best  # price, or 0: no order
    int64_t nearest  # stop price of its side that a trade meets first; beyond any price if none waits
    int64_t low  # where the window of 2^shift prices begins
    uint32_t order_count
    uint8_t shift, depth  # depth: layers; 0: there is no window yet
    uint8_t pad[2]

ctypedef struct Market:  # 384 bytes
    # 64 bytes: what an order is judged by
    int64_t k, u, min_size, max_size, max_price
    int32_t taker_ppm, maker_ppm
    uint32_t stop_count
    uint32_t slices  # at most so many of all its icebergs are still to be shown
    uint32_t fees  # slot of the balance of system:fees in quote
    uint8_t phase, dirty
    uint8_t tick_decimals, lot_decimals
    # 64 bytes: what a trade changes, and what else its mix needs
    int64_t last_price  # 0: no trade yet
    uint64_t trade_count
    int64_t band_reference  # ABSENT: none
    int64_t pause_at
    Mix fixed  # the part of its mix that no trade changes: `fix_market`
    int32_t entry_band_ppm, exec_band_ppm
    uint32_t base, quote
    # 128 bytes
    Half half[2]
    # 128 bytes that few commands look at
    uint32_t stops[2]  # by side: root of the tree of waiting stops
    uint32_t spenders  # waiting stops that meets_again
    uint32_t parked  # slot of the first of its orders whose expiry waits until it leaves the halt, or NIL
    uint64_t pause_sequence  # of the command that set pause_at; 0: no pause
    int64_t tick, lot, reference_price, pause_ns
    uint8_t* wide  # address space for all prices of both halves; NULL: not reserved, windows.pyx
    Name name

ctypedef struct Account:  # 64 bytes: all that place, cancel and a fill read
    uint32_t open_orders
    int32_t taker_ppm, maker_ppm
    uint32_t stp_key
    uint8_t status, overdraft, killed, mask
    uint32_t first_order  # of its open orders, linked through OrderDetail
    uint32_t oldest_id, newest_id, closed_ids  # remembered client ids
    uint32_t pair_market, pair_base, pair_quote  # the market it last placed in, plus 1; slots of its balances there
    uint32_t first_balance  # a link, as in Balance
    uint16_t poisons
    uint8_t name_words, pad
    uint32_t name  # where its name starts in State.account_names
    uint32_t annex  # slot of what few accounts have; NO_ANNEX: it has none of it

ctypedef struct Annex:  # 56 bytes
    uint64_t row[4]
    int64_t cancel_after  # 0: never
    uint64_t cancel_after_sequence
    uint32_t pending_out  # pending postings from here to an open account
    uint32_t max_open_orders

# The first balances of an account are a chain from Account.first_balance, CHAIN_MAX of them at most; what it has beyond
# is found in a map. The link of the last one, and of each in the map, names the account.
cdef enum:
    CHAIN_MAX = 8
    LINK_SLOT = 0x0FFFFFFF  # slot of the next balance, or the account
    LINK_DIRTY = 0x40000000  # of the balance that has this link: its mix is not in the state sum
    LINK_END = 0x80000000  # what the link names is the account

ctypedef struct Balance:  # 24 bytes
    int64_t available, held
    uint32_t asset, link

ctypedef struct Order:  # 64 bytes: all that matching and cancelling read
    int64_t price
    int64_t leaves  # displayed; what an iceberg hides is in its Terms
    int64_t size
    uint64_t order_id
    uint32_t next, prior  # in the queue of its level; while it waits: before and after it in the tree of stops
    uint32_t account, market
    uint32_t id_slot  # its newest client id
    uint32_t credit
    int32_t maker_ppm, hold_ppm  # hold_ppm: the larger of both rates, at least 0

ctypedef struct OrderDetail:  # 64 bytes
    Mix mix
    uint64_t join  # 0: it waits
    uint64_t session
    uint32_t base, quote  # slots of the two balances
    uint32_t next, prior  # of the same account
    uint8_t side, type, tif, stp, flags, dirty
    uint8_t older_names  # that hang on its newest client id
    uint8_t pad
    int32_t taker_ppm
    uint32_t terms  # slot of its Terms; NIL: it has none

ctypedef struct Terms:  # 48 bytes: of an order that waits, hides, expires or has a partner
    int64_t stop_price, display_size, expires_at  # ABSENT: none
    int64_t hidden  # leaves that are not displayed
    uint32_t partner  # slot of the other order of its pair, or NIL
    uint32_t slices  # of an iceberg: at most so many are still to be shown
    uint32_t parked_next  # slot of the next parked order of the market, or NIL
    uint32_t parked_prior  # slot of the one before, of the first: the last; NIL: it is not parked

ctypedef struct Rest:  # what an iceberg of a level still hides, while a fok is judged
    int64_t hidden, display_size

ctypedef struct Poison:
    ClientId client_id
    uint32_t account, pad

ctypedef struct IdNode:  # 80 bytes
    ClientId client_id
    uint64_t order_id
    int64_t filled
    uint32_t account, market
    uint32_t order  # open: slot of the order (NIL while it is the taker); closed: the account's next younger id
    uint32_t next  # open: an older id of the same order; closed: the next younger remembered id of all accounts
    uint32_t prior  # closed: the next older remembered id of all accounts
    uint8_t status
    uint8_t pad[3]
    uint64_t closing  # 0: open; closed: larger than that of whatever closed before

ctypedef struct Posting:
    uint32_t source, target  # slots of balances
    int64_t amount
    uint32_t next
    uint32_t pad

ctypedef struct Ref:
    Name ref
    uint64_t digest[2]
    uint64_t code[2]
    uint64_t memo[8]
    uint64_t first_sequence
    int64_t not_after, expires_at
    uint32_t first_posting, posting_count
    uint8_t status
    uint8_t pad[7]

ctypedef struct Limits:
    uint32_t accounts, markets, assets, balances, orders, ids, closed_ids, closed_ids_account, refs, postings, poisons
    int64_t max_price
    uint32_t max_fills
    bint risk

# Whether a core may be used. What raises while it applies a record leaves it broken, unless nothing has changed yet.
cdef enum:
    USE_NEW = 0  # not initialised
    USE_FREE = 1
    USE_APPLYING = 2
    USE_BROKEN = 3

ctypedef struct State:
    uint64_t sequence, batch, batch_first
    int64_t time
    int64_t time_before  # the time before this command, for one that cannot get memory
    uint8_t use
    bint untouched  # this command raised before it changed anything: it may come again
    Limits limits
    uint64_t secret  # mixed into the maps of texts, so that nobody can choose texts that collide
    # tables and pools
    Asset* assets
    Market* markets
    Account* accounts
    uint64_t* account_names  # the words of their names, without the zeros at the end, one after the other
    Annex* annexes
    Balance* balances
    Order* orders
    OrderDetail* details
    Terms* terms
    IdNode* ids
    Poison* poisons
    Ref* refs
    Posting* postings
    uint32_t asset_count, market_count, account_count, balance_count
    uint32_t account_name_words
    Pool annex_pool, order_pool, terms_pool, id_pool, poison_pool, ref_pool, posting_pool, group_pool
    Map asset_map, market_map, account_map, group_map, balance_map, order_map, id_map, ref_map, poison_map
    ClientId* latest_ids  # of each account the one after all others it ever had, as ids.pxd orders them
    # ids that are not in id_map yet: a ring
    uint32_t late_tags[LATE]  # 0: none
    uint32_t late_slots[LATE]
    uint32_t late_next
    Recent* window  # the youngest open order by the low bits of its id. The others: order_map
    # remembered client ids of all accounts, oldest first
    uint32_t oldest_id, newest_id, closed_ids
    # windows of halves, engine/windows.pyx
    uint8_t* windows
    size_t windows_used, windows_size
    uint32_t free_windows[LARGEST_SHIFT + 1]  # by shift: offset / 64 of a free one, which begins with the next; NIL: none
    # timers
    Due* due
    uint32_t due_count, due_capacity  # capacity: entries at which those that are no longer due are dropped
    uint64_t due_most  # entries that there is address space for
    # of all markets
    int64_t price_ticks  # sum of max_price
    uint32_t stop_count, iceberg_count
    # the state hash
    uint64_t sum_low, sum_high
    uint32_t* dirty_orders
    uint32_t* dirty_balances
    uint32_t* dirty_markets
    uint32_t dirty_order_count, dirty_balance_count, dirty_market_count
    # the command being applied
    Event* out
    uint32_t out_used, out_capacity, event_index, joins, fills
    uint32_t tag  # of the client id that the command names
    int64_t broken  # every number that may not be below zero is or-ed in: a sign bit is an invariant that broke
    int64_t ts
    uint8_t op
    int64_t band_low, band_high  # inside the exec band; meaningful if the command's market has one
    int64_t* marks[2]  # by side of the stop: prices that made stops due, each beyond the last
    uint32_t mark_count[2]
    uint32_t mark_at[2]
    SortItem* scratch  # as many as orders
    Rest* rests  # as many as the fills limit
