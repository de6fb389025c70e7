/* Where compiled code goes, told to libFuzzer (docs/decisions/0077-the-guide-sees-compiled-code.md).
 *
 *     a block of an extension ─▶ __sanitizer_cov_trace_pc ─▶ a counter of its own ─▶ libFuzzer reads and clears them all
 *
 * gcc calls trace_pc at the beginning of each block, but no gcc makes the counters that libFuzzer reads, so they are made
 * here: a table of addresses, open addressing, the counter of an address under the same index. libFuzzer wants the
 * addresses in a table of that length too, and takes this one. A block has its slot from the first time it runs; what
 * comes when the table is full around its place shares a counter. Preloaded in front of libFuzzer, whose own trace_pc
 * does nothing. Threads may lose a count to each other, never more. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdint.h>
#include <stdlib.h>

enum { SLOTS = 1 << 16, TRIES = 64 };

typedef struct {
    uintptr_t address, flags;
} Place;

static Place places[SLOTS];
static uint8_t counters[SLOTS];
static int reached, is_watching;

void __sanitizer_cov_trace_pc(void) {
    if (!is_watching) return;
    uintptr_t address = (uintptr_t)__builtin_return_address(0);
    unsigned home = address * UINT64_C(0x9E3779B97F4A7C15) >> 48, at = home;
    while (places[at].address != address) {
        if (places[at].address == 0) {
            places[at].address = address;
            reached++;
        } else if ((at = (at + 1) % SLOTS) == (home + TRIES) % SLOTS) {
            at = home;
            break;
        }
    }
    counters[at] += counters[at] != 255; /* 256 rounds of a loop are not none */
}

/* Comparisons: libFuzzer puts what was compared into its inputs. Pointers, counts of references and tests for null are
 * most of what the C of Cython compares; they would push everything else out of its table of 32. */
#define FORWARDED(NAME, TYPE)                                                                                          \
    typedef void NAME##_type(TYPE, TYPE);                                                                              \
    static NAME##_type *NAME##_real;                                                                                   \
    void __sanitizer_cov_trace_##NAME(TYPE one, TYPE two) {                                                            \
        if (is_watching && one && two && !is_pointer(one) && !is_pointer(two)) NAME##_real(one, two);                  \
    }

static int is_pointer(uint64_t word) { return word >> 40 && !(word >> 47); }

FORWARDED(cmp1, uint8_t)
FORWARDED(cmp2, uint16_t)
FORWARDED(cmp4, uint32_t)
FORWARDED(cmp8, uint64_t)
FORWARDED(const_cmp1, uint8_t)
FORWARDED(const_cmp2, uint16_t)
FORWARDED(const_cmp4, uint32_t)
FORWARDED(const_cmp8, uint64_t)

typedef void Switch(uint64_t, uint64_t *);
static Switch *switch_real;

void __sanitizer_cov_trace_switch(uint64_t value, uint64_t *cases) {
    if (is_watching) switch_real(value, cases);
}

/* libFuzzer has none for floats. */
void __sanitizer_cov_trace_cmpf(float one, float two) { (void)one, (void)two; }
void __sanitizer_cov_trace_cmpd(double one, double two) { (void)one, (void)two; }

static void *next(const char *name) {
    void *found = dlsym(RTLD_NEXT, name);
    if (!found) abort(); /* preloaded without libFuzzer behind it */
    return found;
}

/* What runs from now on is counted. Once, when everything is imported: what runs in an import says nothing of an input. */
void guide_begin(void) {
    typedef void Range(void *, void *);
    cmp1_real = next("__sanitizer_cov_trace_cmp1"), const_cmp1_real = next("__sanitizer_cov_trace_const_cmp1");
    cmp2_real = next("__sanitizer_cov_trace_cmp2"), const_cmp2_real = next("__sanitizer_cov_trace_const_cmp2");
    cmp4_real = next("__sanitizer_cov_trace_cmp4"), const_cmp4_real = next("__sanitizer_cov_trace_const_cmp4");
    cmp8_real = next("__sanitizer_cov_trace_cmp8"), const_cmp8_real = next("__sanitizer_cov_trace_const_cmp8");
    switch_real = next("__sanitizer_cov_trace_switch");
    ((Range *)next("__sanitizer_cov_8bit_counters_init"))(counters, counters + SLOTS);
    ((Range *)next("__sanitizer_cov_pcs_init"))(places, places + SLOTS);
    is_watching = 1;
}

/* How many blocks have run since. */
int guide_reached(void) { return reached; }
