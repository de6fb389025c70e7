/* Counts what one thread of the interpreter asks of its allocators (objects and what belongs to them).
 *
 *   allocations_watch    from now on count what the calling thread asks for
 *   allocations_counted  how many since then: malloc, calloc, and realloc of nothing
 *   allocations_unwatch  no more
 *
 * Objects that CPython keeps on a free list (floats, small lists, frames) and takes from there are not seen; integers are.
 * Call with the GIL (ctypes.PyDLL). The struct is that of Python 3.5 and later.
 */
#include <stdint.h>
#include <stddef.h>

typedef struct {
    void *context;
    void *(*malloc)(void *context, size_t size);
    void *(*calloc)(void *context, size_t count, size_t size);
    void *(*realloc)(void *context, void *block, size_t size);
    void (*free)(void *context, void *block);
} Allocator;

extern void PyMem_GetAllocator(int domain, Allocator *allocator);
extern void PyMem_SetAllocator(int domain, Allocator *allocator);

enum { MEM = 1, OBJ = 2, DOMAINS = 2 };
static Allocator real[DOMAINS];
static int64_t counted;
static _Thread_local int is_watched;

static void *count_malloc(void *context, size_t size) {
    Allocator *of = context;
    if (is_watched) counted++;
    return of->malloc(of->context, size);
}

static void *count_calloc(void *context, size_t count, size_t size) {
    Allocator *of = context;
    if (is_watched) counted++;
    return of->calloc(of->context, count, size);
}

static void *count_realloc(void *context, void *block, size_t size) {
    Allocator *of = context;
    if (block == NULL && is_watched) counted++;
    return of->realloc(of->context, block, size);
}

static void count_free(void *context, void *block) {
    Allocator *of = context;
    of->free(of->context, block);
}

void allocations_watch(void) {
    counted = 0;
    is_watched = 1;
    for (int i = 0; i < DOMAINS; i++) {
        PyMem_GetAllocator(MEM + i, &real[i]);
        Allocator counting = {&real[i], count_malloc, count_calloc, count_realloc, count_free};
        PyMem_SetAllocator(MEM + i, &counting);
    }
}

int64_t allocations_counted(void) { return counted; }

void allocations_unwatch(void) {
    is_watched = 0;
    for (int i = 0; i < DOMAINS; i++) PyMem_SetAllocator(MEM + i, &real[i]);
}
