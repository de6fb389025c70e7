# The C doors between the sequencer (gateway) and the parts it must not import (persistence).
#
# A port is a struct of functions with a context, handed over as a PyCapsule by a method `port()` of the Python object
# that owns it. The owner must outlive the user of the port. All functions are nogil, and called from one thread only
# unless said otherwise. Capsule names: "byline.JournalPort", "byline.EventLogPort",
# "byline.ClockPort".

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

ctypedef struct JournalPort:
    void* context
    # Takes a record of `slots` slots with kind, slots, flags, sequence, ts and payload set; writes its chain and crc32c
    # INTO the record, copies it to the journal's ring, and stores the new chain word in *chain.
    # 0: taken. 1: the ring is full (nothing was changed). 2: the journal has failed for good.
    int (*append)(void* context, uint8_t* record, uint32_t slots, uint64_t* chain) noexcept nogil
    # Everything appended so far may be written: wakes the writer if it sleeps.
    void (*publish)(void* context) noexcept nogil
    # Sequence of the last durable record. Any thread.
    uint64_t (*durable)(void* context) noexcept nogil
    # ns since 1970: when the last durable record was on disk, by the writer's clock. Read it after `durable`: it is then
    # the time of that record or of a later one. Any thread.
    int64_t (*durable_at)(void* context) noexcept nogil
    # Slots that still fit in the ring.
    uint32_t (*room)(void* context) noexcept nogil
    # 0, or the errno that stopped the journal. Any thread.
    int (*failed)(void* context) noexcept nogil

ctypedef struct EventLogPort:
    void* context
    # Appends all event slots of one command (maybe none). 0: taken; otherwise an errno.
    int (*append)(void* context, const uint8_t* slots, uint32_t slot_count, uint64_t sequence) noexcept nogil
    # Readers may now see the events of every command up to and including `sequence`.
    void (*publish)(void* context, uint64_t sequence) noexcept nogil
    # Slots that surely fit: without bound, unless the disk has refused the next file.
    uint64_t (*room)(void* context) noexcept nogil

ctypedef struct ClockPort:
    void* context
    # Wall clock, ns since 1970, as `now_ns` of the object tells it. Any thread.
    int64_t (*now_ns)(void* context) noexcept nogil
