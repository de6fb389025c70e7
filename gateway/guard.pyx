"""Rights and limits of a session on the hot path: a judgement of 6 to 9 nanoseconds on the record itself.

Token buckets count in time: a bucket of n tokens, one back every `each_ns`, is the single number `full_at`. Taking one
moves it by `each_ns`, and is refused where it would lie more than `n × each_ns` ahead; giving one back moves it the
other way. No loop, no refill, no division until somebody asks how many are left. The clock is the caller's.

What only takes risk away takes no request. A cancel, mass_cancel, kill or cancel_after takes a token of its own, `vain`,
which comes back when it is told that something was canceled by it: so those that find nothing, and would fill the
journal for nothing, are bounded as messages are. Without a token a cancel of an open order passes all the same (the hub
looks). A poison is kept for ever by the engine: so many a minute are free, then it takes a request.
Every other command takes one request. Keys of one account and tier share an Allowance, so more keys are no more room.

`judge` looks at the key's expiry, its markets and its price collar, then at the protection, then takes the token: what
is refused costs nothing. A place without a session gets the session's stamp, by which it is cancelled when the
connection is lost; one whose session says OUTLIVES gets the key's.

The collar is the rulebook's band, of this key alone: `|price − reference| × 10^6 ≤ reference × ppm`, in whole ticks.
Where there is no reference there is no collar. An order without a limit price has no bound that could be judged, so a
key with a collar places none.
"""

from cpython.mem cimport PyMem_Calloc, PyMem_Free

from engine.messages.records cimport OP_PLACE, OP_POISON, OP_REPLACE, CommandHead, Place, Replace
from gateway.wire.binary cimport takes_risk_away

from engine.messages.codes import ABSENT as _ABSENT

__all__ = ["Allowance", "Guard", "Protected"]

cdef extern from *:
    """
    typedef __int128 gateway_i128;
    """
    ctypedef long long i128 "gateway_i128"

cdef int64_t ABSENT = _ABSENT
cdef uint64_t OUTLIVES = 0xFFFFFFFFFFFFFFFF
cdef uint32_t NIL = 0xFFFFFFFF
cdef int64_t MINUTE_NS = 60_000_000_000


cdef inline bint _take(Bucket* bucket, int64_t now) noexcept nogil:
    cdef int64_t at
    if bucket.each_ns == 0:
        return True
    at = (bucket.full_at if bucket.full_at > now else now) + bucket.each_ns
    if at - now > bucket.most_ns:
        return False
    bucket.full_at = at
    return True


cdef inline int64_t _wait(const Bucket* bucket, int64_t now) noexcept nogil:
    cdef int64_t wait = bucket.full_at + bucket.each_ns - bucket.most_ns - now
    return wait if wait > 0 else 0


cdef inline void _fill(Bucket* bucket, int64_t most, int64_t per_ns) noexcept nogil:
    bucket.each_ns = per_ns // most if most else 0
    bucket.most_ns = bucket.each_ns * most


cdef class Allowance:
    """What the keys of one account and tier may send together.

    Args:
        tier: its name.
        requests, messages: how many in `per_ns`, and at once; 0: without limit. As many cancels as messages may find
            nothing.
        poisons: how many a minute take no request; 0: without limit.
    """

    def __init__(self, str tier not None, int64_t requests, int64_t messages, int64_t per_ns, int64_t poisons=0):
        self.tier = tier
        _fill(&self.requests, requests, per_ns)
        _fill(&self.messages, messages, per_ns)
        _fill(&self.vain, messages, per_ns)
        _fill(&self.poisons, poisons, MINUTE_NS)
        if requests and not self.requests.each_ns or messages and not self.messages.each_ns:
            raise ValueError(f"tier {tier}: more than one a nanosecond is no limit")

    cdef void give_back(self) noexcept nogil:
        self.requests.full_at -= self.requests.each_ns

    cdef void untake(self, uint8_t kind) noexcept nogil:
        cdef Bucket* bucket = &self.requests
        if kind == OP_POISON:
            bucket = &self.poisons
        elif takes_risk_away(kind):
            bucket = &self.vain
        bucket.full_at -= bucket.each_ns

    cdef int64_t left(self, int64_t now) noexcept nogil:
        if self.requests.each_ns == 0:
            return -1
        if self.requests.full_at <= now:
            return self.requests.most_ns // self.requests.each_ns
        return (self.requests.most_ns - (self.requests.full_at - now)) // self.requests.each_ns

    cdef int64_t wait_ns(self, bint is_vain, int64_t now) noexcept nogil:
        return _wait(&self.vain if is_vain else &self.requests, now)

    cdef bint take_message_at(self, int64_t now) noexcept nogil:
        return _take(&self.messages, now)

    def take_request(self, int64_t now):
        """Take one request at `now` (ns). False: there is none left."""
        return _take(&self.requests, now)

    def take_message(self, int64_t now):
        """Take one message at `now` (ns). False: there is none left."""
        return _take(&self.messages, now)

    def message_wait_ns(self, int64_t now):
        """How long from `now` until the next message passes; 0: one does."""
        return _wait(&self.messages, now)

    def refund(self):
        """Give one request back."""
        self.give_back()

    def requests_left(self, int64_t now):
        """Requests left at `now`, or None: no limit."""
        cdef int64_t left = self.left(now)
        return None if left < 0 else left

    def messages_left(self, int64_t now):
        """Messages left at `now`, or None: no limit."""
        if self.messages.each_ns == 0:
            return None
        return (self.messages.most_ns - max(self.messages.full_at - now, 0)) // self.messages.each_ns


cdef class Protected:
    """Whether a key's orders are under protection and it has tripped; the base of gateway.protection.Protection."""


cdef class Guard:
    """One session's rights.

    Args:
        allowance: shared by the sessions of the account and tier.
        stamp, keep_stamp: session numbers for orders; 0: none.
        market_indices: those permitted, or None: all.
        collar_ppm: 0: no collar.
        expires_at: of the key, ns since 1970; 0: never.
        protection: of the key, or None.
    """

    def __init__(self, Allowance allowance not None, uint64_t stamp, uint64_t keep_stamp, market_indices=None,
                 int64_t collar_ppm=0, int64_t expires_at=0, Protected protection=None):
        self.allowance = allowance
        self.stamp = stamp
        self.keep_stamp = keep_stamp
        self.collar_ppm = collar_ppm
        self.expires_at = expires_at
        self.protection = protection
        self.markets = NULL
        if market_indices is not None:
            self.market_count = max(market_indices, default=0) + 1
            self.markets = <uint8_t*>PyMem_Calloc(self.market_count, 1)
            if self.markets == NULL:
                raise MemoryError("no memory for a key's markets")
            for index in market_indices:
                self.markets[<uint32_t>index] = 1

    def __dealloc__(self):
        PyMem_Free(self.markets)

    cdef int judge(self, uint8_t* record, uint32_t market, int64_t reference, int64_t now) noexcept nogil:
        cdef uint8_t kind = (<CommandHead*>record).kind
        cdef Place* place = <Place*>record
        cdef int64_t price
        if kind == OP_POISON:
            return 0 if _take(&self.allowance.poisons, now) or _take(&self.allowance.requests, now) else RATE_LIMITED
        if takes_risk_away(kind):
            return 0 if _take(&self.allowance.vain, now) else IN_VAIN
        if self.expires_at and now >= self.expires_at:
            return EXPIRED_KEY
        if kind == OP_PLACE or kind == OP_REPLACE:
            if self.markets != NULL and market != NIL and (market >= self.market_count or not self.markets[market]):
                return MARKET_NOT_PERMITTED
            if self.collar_ppm and reference != ABSENT:
                price = place.price if kind == OP_PLACE else (<Replace*>record).price
                if price == ABSENT and kind == OP_PLACE:
                    return UNPRICED
                if price != ABSENT and _outside(price, reference, self.collar_ppm):
                    return COLLAR
            if self.protection is not None:
                if self.protection.is_tripped:
                    return PROTECTED
                # An order under protection carries the connection's number or the key's: by these all are found and pulled.
                if kind == OP_PLACE and place.session != 0 and place.session != OUTLIVES:
                    return SESSION_NOT_PERMITTED
        if not _take(&self.allowance.requests, now):
            return RATE_LIMITED
        if kind == OP_PLACE:
            if place.session == 0 and self.stamp:
                place.session = self.stamp
                self.has_placed = True
            elif place.session == 0 or place.session == OUTLIVES:
                place.session = self.keep_stamp
        return 0


cdef inline bint _outside(int64_t price, int64_t reference, int64_t ppm) noexcept nogil:
    cdef i128 distance = <i128>price - reference
    if distance < 0:
        distance = -distance
    return distance * 1000000 > <i128>reference * ppm
