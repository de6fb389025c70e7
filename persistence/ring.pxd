# Ring and writer of the journal as Cython sees them; the bodies are in writer.h and crc32c.h.

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from engine.messages.ports cimport JournalPort

cdef extern from "persistence/writer.h" nogil:
    ctypedef struct byline_sha256:
        pass
    ctypedef struct cpu_set_t:
        pass
    ctypedef struct byline_disk:
        void* context
        int64_t (*write)(void* context, int64_t file, const uint8_t* data, size_t size, int64_t offset) noexcept nogil
        int (*sync)(void* context, int64_t file) noexcept nogil
        void (*forget)(void* context, int64_t file, int64_t begin, int64_t end) noexcept nogil
    ctypedef struct byline_journal:
        uint8_t* ring
        uint64_t* ends
        uint64_t ring_slots, pace_ns
        byline_disk disk
        int wakeup_fd, keeper_fd
        uint64_t* mark
        uint64_t head, chain, sequence, published, tail, durable, durable_at, limit
        int failed, started, has_cpus, is_hurried
        int64_t file
        uint64_t segment_slots, segment_used, written_chain, groups
        byline_sha256 sha
        cpu_set_t cpus
    int STEP_IDLE "BYLINE_STEP_IDLE"
    int STEP_WROTE "BYLINE_STEP_WROTE"
    int STEP_NEEDS_SEGMENT "BYLINE_STEP_NEEDS_SEGMENT"
    int STEP_FAILED "BYLINE_STEP_FAILED"
    uint64_t byline_get(uint64_t* p)
    void byline_set(uint64_t* p, uint64_t value)
    int64_t byline_real_write(void* context, int64_t file, const uint8_t* data, size_t size, int64_t offset) noexcept
    int byline_real_sync(void* context, int64_t file) noexcept
    void byline_real_forget(void* context, int64_t file, int64_t begin, int64_t end) noexcept
    void byline_journal_fail(byline_journal* j, int error)
    int byline_journal_failed(byline_journal* j)
    uint32_t byline_journal_room(byline_journal* j)
    int byline_journal_append(byline_journal* j, uint8_t* record, uint32_t slots, uint64_t* chain)
    int byline_journal_publish(byline_journal* j)
    int byline_journal_presses(void* context, uint64_t written) noexcept
    int byline_journal_step(byline_journal* j)
    void byline_journal_set_segment(byline_journal* j, int64_t file, uint64_t slots, uint64_t used)
    int byline_journal_start(byline_journal* j)
    void byline_journal_stop(byline_journal* j, int stop)
    int byline_scan(const uint8_t* data, uint64_t* at, uint64_t end, uint64_t limit, uint64_t* sequence, uint64_t* chain)
    uint64_t byline_find_record(const uint8_t* data, uint64_t at, uint64_t end, int kind, uint64_t after)

cdef extern from "persistence/aside.h" nogil:
    ctypedef struct byline_zeros_work:
        int file
        uint64_t size, bytes_per_second
        int is_synced
        int (*is_due)(void* context, uint64_t written) noexcept nogil
        void* context
    int byline_zeros(void* work) noexcept
    int byline_aside(int (*work)(void*) noexcept nogil, void* argument)

cdef extern from "persistence/crc32c.h" nogil:
    uint32_t (*byline_crc32c)(uint32_t crc, const uint8_t* p, size_t n) noexcept
    uint64_t byline_chain(uint64_t chain, const uint8_t* record, size_t slots)
    void byline_sha256_start(byline_sha256* h)
    void byline_sha256_update(byline_sha256* h, const uint8_t* p, size_t n)
    void byline_sha256_digest(const byline_sha256* h, uint8_t* out)
    int byline_checksums_choose(int portable)


cdef class Ring:
    cdef byline_journal* j
    cdef JournalPort port_struct
    cdef dict files                 # handle → File, on a disk without descriptors
    cdef public object roll         # inline: called for the next segment; True if there is one now
    cdef readonly bint inline       # publish() runs the steps itself
    cdef readonly bint real         # segments are descriptors, written by system calls
