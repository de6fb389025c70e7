"""The C door: the functions behind engine/core.h (docs/c-door.md), and the capsule that carries them.

    Core.port() ─▶ capsule ─▶ BylineCorePort {context: the Core, apply, apply_batch, …} ─▶ apply.pyx

Called with or without the GIL. What the core raises cannot leave here, where a thread may have no place for an exception: it
becomes a number, and the GIL is taken to drop it.
"""

from cpython.exc cimport PyErr_Clear
from cpython.pycapsule cimport PyCapsule_New
from libc.string cimport memcpy

from engine.apply cimport (
    BYLINE_BAD_CALL, BYLINE_NO_MEMORY, apply_all, apply_one, leave, overlap, refusal,
)
from engine.bounds cimport bound_of
from engine.core cimport (
    BYLINE_CORE_CAPSULE, BYLINE_CORE_VERSION, BylineCorePort, BylineEvent, BylineRecord, Core, door_apply_batch_t,
    door_apply_t, door_bound_t, door_sequence_t, door_state_hash_t, publish,
)
from engine.digest cimport state_sum
from engine.pool cimport id_tag
from engine.types cimport SLOT_BYTES, CancelRecord, Event, Record, State, int64_t, uint8_t, uint32_t, uint64_t, uint128

__all__ = ["capsule"]

ctypedef int (*one_t)(State*, const Record*, Event*, Py_ssize_t, uint32_t) noexcept nogil
ctypedef int (*all_t)(
    State*, const Record*, Py_ssize_t*, Py_ssize_t, Event*, Py_ssize_t, Py_ssize_t*
) noexcept nogil


cdef int drop_failure(Core core) noexcept nogil:
    # Why the core raised.
    with gil:
        PyErr_Clear()
    return leave(core.state)


cdef int64_t door_apply_batch(
    Core core, const BylineRecord* records, int64_t* at, int64_t end, BylineEvent* events, int64_t event_slots
) noexcept nogil:
    cdef State* s = core.state
    cdef const Record* all = <const Record*>records
    cdef Py_ssize_t reached = <Py_ssize_t>at[0], used = 0
    cdef int why
    if reached < 0 or event_slots < 0:
        return BYLINE_BAD_CALL
    if reached >= end:
        return 0
    if overlap(&all[reached], <size_t>(end - reached) * SLOT_BYTES, events, <size_t>event_slots * SLOT_BYTES):
        return BYLINE_BAD_CALL
    why = refusal(s, &all[reached], end - reached, event_slots)
    if why:
        return why
    why = (<all_t>apply_all)(s, all, &reached, <Py_ssize_t>end, <Event*>events, <Py_ssize_t>event_slots, &used)
    if why:
        why = drop_failure(core)
        if why == BYLINE_NO_MEMORY and reached > at[0]:
            why = 0  # what is done is told first
    publish(core)
    at[0] = reached
    return why if why else used


cdef int64_t door_apply(
    Core core, const BylineRecord* record, BylineEvent* events, int64_t event_slots
) noexcept nogil:
    cdef State* s = core.state
    cdef const CancelRecord* r = <const CancelRecord*>record
    cdef int why = refusal(s, <const Record*>record, (<const Record*>record).slots, event_slots)
    if why:
        return why
    why = (<one_t>apply_one)(s, <const Record*>record, <Event*>events, event_slots, id_tag(s, r.account, &r.client_id))
    if why:
        why = drop_failure(core)
    publish(core)
    return why if why else s.out_used


cdef int64_t door_bound(Core core, const BylineRecord* record) noexcept nogil:
    return bound_of(core.state, <const Record*>record)


cdef uint64_t door_sequence(Core core) noexcept nogil:
    return core.state.sequence


cdef void door_state_hash(Core core, uint8_t* hash) noexcept nogil:
    cdef uint128 sum = state_sum(core.state)
    memcpy(hash, &sum, sizeof(sum))


def capsule(Core core):
    """The capsule of `Core.port`."""
    cdef BylineCorePort* port = &core.port_struct
    port.version = BYLINE_CORE_VERSION
    port.slot_bytes = SLOT_BYTES
    port.context = <void*>core
    port.apply = <door_apply_t>door_apply
    port.apply_batch = <door_apply_batch_t>door_apply_batch
    port.bound = <door_bound_t>door_bound
    port.sequence = <door_sequence_t>door_sequence
    port.state_hash = <door_state_hash_t>door_state_hash
    return PyCapsule_New(port, BYLINE_CORE_CAPSULE, NULL)
