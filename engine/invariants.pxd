# Invariants, checked in every build: a plain `assert` is gone under `python -O`, and with it all that these keep.
#
# What raises here is a fault of the core, never of its caller. `Core` then refuses whatever comes (State.use). A macro, so
# that nothing is called while all is well: gcc does not inline a function into code that is as large as `place`.

cdef extern from * nogil:
    """
    static __attribute__((noinline, cold, unused)) int byline_fault(const char *what) {
        PyGILState_STATE held = PyGILState_Ensure();
        PyErr_SetString(PyExc_AssertionError, what);
        PyGILState_Release(held);
        return -1;
    }
    #define byline_require(holds, what) (__builtin_expect(!(holds), 0) ? byline_fault(what) : 0)
    """
    int require "byline_require" (bint holds, const char* what) except -1
