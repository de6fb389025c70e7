"""What the gateway must know of assets, markets and accounts to read and write decimals and names.

Owns flat tables by index, grown when an entity is defined (never on the path of an order). The truth is the `done`
events of the core: whoever starts the gateway feeds the definitions of the past through `learn_events`, the
sequencer feeds each new one. Entities are never removed, and a name never changes its index.
"""

from libc.string cimport memcpy, memset
from cpython.mem cimport PyMem_Free, PyMem_Realloc

from engine.messages.records cimport (
    EV_DONE, OP_ACCOUNT, OP_ASSET, OP_MARKET, SLOT, DoneAccount, DoneAsset, DoneMarket, EventHead, MarketExtra,
)

cdef uint32_t NIL = 0xFFFFFFFF


cdef uint32_t _grown(uint32_t room, uint32_t index):
    cdef uint32_t new_room = room if room else 64
    while new_room <= index:
        new_room *= 2
    return new_room


cdef uint8_t _length(const char* text) noexcept:
    cdef uint8_t length = 0
    while length < NAME_BYTES and text[length] != 0:
        length += 1
    return length


cdef class Names:
    """Names, scales and steps by index; see `engine.messages.layout` for the events it learns from."""

    def __cinit__(self):
        self.markets = NULL
        self.assets = NULL
        self.accounts = NULL
        self.market_of = {}
        self.account_of = {}
        self._name_account(0, b"system:external")
        self._name_account(1, b"system:fees")

    def __dealloc__(self):
        PyMem_Free(self.markets)
        PyMem_Free(self.assets)
        PyMem_Free(self.accounts)

    def learn_events(self, const uint8_t[::1] slots not None):
        """Take definitions out of event slots (a whole number of 128-byte slots, whole commands)."""
        if slots.shape[0] % SLOT:
            raise ValueError(f"{slots.shape[0]} bytes are no whole number of slots")
        if slots.shape[0]:
            self.learn(&slots[0], <uint32_t>(slots.shape[0] // SLOT))

    def market_index(self, str name):
        """The index of a market, or None."""
        return self.market_of.get(name.encode())

    def account_index(self, str name):
        """The index of an account, or None."""
        return self.account_of.get(name.encode())

    def account_name(self, uint32_t index):
        """The name of an account index. Raises IndexError if there is none."""
        if index >= self.account_count:
            raise IndexError(index)
        return self.accounts[index].name[: self.accounts[index].length].decode("ascii")

    def describe(self):
        """All entities with their steps and scales, in the order of their indices: what `describe` answers."""
        cdef uint32_t i
        cdef MarketEntry* market
        assets = [
            {"asset": self.assets[i].name[: self.assets[i].length].decode("ascii"), "scale": self.assets[i].scale}
            for i in range(self.asset_count)
        ]
        markets = []
        for i in range(self.market_count):
            market = &self.markets[i]
            markets.append(
                {
                    "market": market.name[: market.length].decode("ascii"),
                    "base": assets[market.base]["asset"],
                    "quote": assets[market.quote]["asset"],
                    "tick": _step(market.tick, market.tick_decimals),
                    "lot": _step(market.lot, market.lot_decimals),
                }
            )
        return {"assets": assets, "markets": markets, "accounts": [self.account_name(i) for i in range(self.account_count)]}

    def directory(self):
        """Assets and markets with the indices by which records name them: what `directory` answers."""
        described = self.describe()
        return {
            "assets": [{"index": i} | asset for i, asset in enumerate(described["assets"])],
            "markets": [{"index": i} | market for i, market in enumerate(described["markets"])],
        }

    cdef int learn(self, const uint8_t* slots, uint32_t count) except -1:
        cdef uint32_t at = 0
        cdef uint32_t index, room
        cdef const EventHead* head
        cdef const DoneMarket* market
        cdef const MarketExtra* extra
        cdef MarketEntry* entry
        while at < count:
            head = <const EventHead*>(slots + <size_t>at * SLOT)
            if head.kind == EV_DONE and head.op == OP_ASSET:
                index = head.market
                if index >= self.asset_room:
                    room = _grown(self.asset_room, index)
                    self.assets = <NameEntry*>_resized(self.assets, self.asset_room, room, sizeof(NameEntry))
                    self.asset_room = room
                self.assets[index].length = _length((<const DoneAsset*>head).name)
                self.assets[index].scale = (<const DoneAsset*>head).scale
                memcpy(self.assets[index].name, (<const DoneAsset*>head).name, NAME_BYTES)
                self.asset_count = max(self.asset_count, index + 1)
            elif head.kind == EV_DONE and head.op == OP_ACCOUNT:
                self._name_account(head.account, (<const DoneAccount*>head).name)
            elif head.kind == EV_DONE and head.op == OP_MARKET:
                assert head.slots >= 2, "a market's done event comes with its extension"
                index = head.market
                if index >= self.market_room:
                    room = _grown(self.market_room, index)
                    self.markets = <MarketEntry*>_resized(self.markets, self.market_room, room, sizeof(MarketEntry))
                    self.market_room = room
                market = <const DoneMarket*>head
                extra = <const MarketExtra*>(<const uint8_t*>head + SLOT)
                assert market.base < self.asset_count and market.quote < self.asset_count
                entry = &self.markets[index]
                entry.length = _length(market.name)
                entry.base = market.base
                entry.quote = market.quote
                entry.base_scale = self.assets[market.base].scale
                entry.quote_scale = self.assets[market.quote].scale
                entry.tick = extra.tick
                entry.lot = extra.lot
                entry.tick_decimals = extra.tick_decimals
                entry.lot_decimals = extra.lot_decimals
                memcpy(entry.name, market.name, NAME_BYTES)
                self.market_of[<bytes>entry.name[: entry.length]] = index
                self.market_count = max(self.market_count, index + 1)
            assert head.slots > 0
            at += head.slots
        return 0

    cdef uint32_t find_market(self, const char* name, Py_ssize_t length) except? 0:
        found = self.market_of.get(<bytes>name[:length])
        return NIL if found is None else <uint32_t>found

    cdef uint32_t find_account(self, const char* name, Py_ssize_t length) except? 0:
        found = self.account_of.get(<bytes>name[:length])
        return NIL if found is None else <uint32_t>found

    cdef int _name_account(self, uint32_t index, const char* name) except -1:
        cdef uint32_t room
        cdef uint8_t length = _length(name)
        if index >= self.account_room:
            room = _grown(self.account_room, index)
            self.accounts = <NameEntry*>_resized(self.accounts, self.account_room, room, sizeof(NameEntry))
            self.account_room = room
        self.accounts[index].length = length
        memset(self.accounts[index].name, 0, NAME_BYTES)
        memcpy(self.accounts[index].name, name, length)
        self.account_of[<bytes>name[:length]] = index
        self.account_count = max(self.account_count, index + 1)
        return 0


cdef void* _resized(void* table, uint32_t room, uint32_t new_room, size_t item) except NULL:
    cdef void* grown = PyMem_Realloc(table, new_room * item)
    if grown == NULL:
        raise MemoryError(f"no memory for {new_room} names")
    memset(<uint8_t*>grown + room * item, 0, (new_room - room) * item)
    return grown


def _step(int64_t mantissa, uint8_t decimals):
    """`mantissa` × 10^-`decimals` in its shortest decimal form."""
    digits = str(mantissa).rjust(decimals + 1, "0")
    whole, fraction = (digits[:-decimals], digits[-decimals:].rstrip("0")) if decimals else (digits, "")
    return f"{whole}.{fraction}" if fraction else whole
