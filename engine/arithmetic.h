/* Arithmetic, bits and memory that Cython cannot say well. Everything is static inline, pure where it can be.
 *
 *   money      128-bit products; every division names its rounding
 *   mixing     multiply-mix of the state hash and of the id maps (docs/state-hash.md)
 *   bits       first and last set bit of a word
 *   groups     seven tags of a hash map compared at once
 *   regions    zeroed address space that costs memory only where it is touched
 */
#ifndef BYLINE_ARITHMETIC_H
#define BYLINE_ARITHMETIC_H

#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#if defined(__linux__) && !defined(MADV_COLLAPSE)
#define MADV_COLLAPSE 25 /* Linux 6.1; an older one refuses the advice */
#endif
#ifdef __AVX2__
#include <immintrin.h>
#elif defined(__SSE2__)
#include <emmintrin.h>
#endif

typedef __int128 int128;
typedef unsigned __int128 uint128;

#define PPM 1000000
#define SMALL_NOTIONAL ((int64_t)1 << 46) /* times 10^5 ppm (2^17) stays below 2^63 */

/* ---------------------------------------------------------------- money */

/* Least whole q with q * 10^6 >= a. C division truncates, which is already the ceiling of a negative quotient. */
static inline int64_t div_ceil_ppm(int64_t a) {
    int64_t q = a / PPM;
    return q + (a % PPM > 0);
}

/* Increase of ceil(f / 10^6) when f grows by notional * ppm; `*credit` is ceil(f / 10^6) * 10^6 - f before and after. */
static inline int64_t fee_increase(int64_t notional, int32_t ppm, uint32_t *credit) {
    if (__builtin_expect(notional < SMALL_NOTIONAL, 1)) {
        int64_t exact = notional * ppm - (int64_t)*credit;
        int64_t fee = div_ceil_ppm(exact);
        *credit = (uint32_t)(fee * PPM - exact);
        return fee;
    }
    int128 exact = (int128)notional * ppm - *credit;
    int128 fee = exact / PPM;
    fee += exact % PPM > 0;
    *credit = (uint32_t)(fee * PPM - exact);
    return (int64_t)fee;
}

/* notional + ceil((f + notional * rate) / 10^6) - ceil(f / 10^6): what a buy of that much must hold. rate >= 0. */
static inline int64_t buy_hold(int64_t notional, int32_t rate, uint32_t credit) {
    uint32_t scratch = credit;
    return notional + fee_increase(notional, rate, &scratch);
}

/* One of two amounts without a branch: sides and kinds come too mixed to be predicted. */
static inline int64_t choose(int choice, int64_t yes, int64_t no) {
    int64_t mask = -(int64_t)(choice != 0);
    return (yes & mask) | (no & ~mask);
}

/* What a sell, else a limit buy, must hold. A product that is not asked for may wrap; it is not used. */
static inline int64_t side_hold(int sells, int64_t leaves, int64_t u, int64_t unit, int32_t rate, uint32_t credit) {
    int64_t notional = (int64_t)((uint64_t)unit * (uint64_t)leaves);
    return choose(sells, leaves * u, buy_hold(notional, rate, credit));
}

/* Lots a market buy can pay: floor(floor((money * 10^6 + credit) / (10^6 + ppm)) / unit), unit = price * k. Without any
 * money a rebate may still pay for one unit. money, credit >= 0, ppm > -10^6. */
static inline int64_t lots_affordable(int64_t money, uint32_t credit, int32_t ppm, int64_t unit) {
    uint128 most = ((uint128)money * PPM + credit) / (uint128)(PPM + ppm);
    return (int64_t)(most / (uint128)unit);
}

/* a * b, or -1 if it exceeds `limit`. a, b, limit >= 0. */
static inline int64_t product_within(int64_t a, int64_t b, int64_t limit) {
    uint128 product = (uint128)a * (uint128)b;
    return product > (uint128)limit ? -1 : (int64_t)product;
}

/* floor(a * b / c), remainder in *rest. a, b >= 0, c > 0, the quotient fits because b <= c. */
static inline int64_t share_floor(int64_t a, int64_t b, int64_t c, int64_t *rest) {
    uint128 product = (uint128)a * (uint128)b;
    *rest = (int64_t)(product % (uint128)c);
    return (int64_t)(product / (uint128)c);
}

/* mantissa * factor * 10^(scale - decimals) if that is a whole number from 1 to 2^62, else -1. */
static inline int64_t scaled_exact(int64_t mantissa, int64_t factor, int scale, int decimals) {
    const uint128 limit = (uint128)1 << 62;
    if (mantissa < 1 || factor < 1) return -1;
    uint128 product = (uint128)mantissa * (uint128)factor;
    int exponent = scale - decimals;
    for (; exponent < 0; exponent++) {
        if (product % 10) return -1;
        product /= 10;
    }
    for (; exponent > 0; exponent--) {
        if (product > limit) return -1;
        product *= 10;
    }
    return product > limit ? -1 : (int64_t)product;
}

/* Whether a * 10^-x and b * 10^-y are the same number. */
static inline int same_decimal(int64_t a, int x, int64_t b, int y) {
    while (x > 0 && a % 10 == 0) { a /= 10; x--; }
    while (y > 0 && b % 10 == 0) { b /= 10; y--; }
    return a == b && x == y;
}

static inline int fits_int64(int128 value) { return value >= INT64_MIN && value <= INT64_MAX; }

/* ---------------------------------------------------------------- mixing */

/* The first 64 outputs of splitmix64 with seed 0. */
static const uint64_t MIX[64] = {
    0xE220A8397B1DCDAFu, 0x6E789E6AA1B965F4u, 0x06C45D188009454Fu, 0xF88BB8A8724C81ECu,
    0x1B39896A51A8749Bu, 0x53CB9F0C747EA2EAu, 0x2C829ABE1F4532E1u, 0xC584133AC916AB3Cu,
    0x3EE5789041C98AC3u, 0xF3B8488C368CB0A6u, 0x657EECDD3CB13D09u, 0xC2D326E0055BDEF6u,
    0x8621A03FE0BBDB7Bu, 0x8E1F7555983AA92Fu, 0xB54E0F1600CC4D19u, 0x84BB3F97971D80ABu,
    0x7D29825C75521255u, 0xC3CF17102B7F7F86u, 0x3466E9A083914F64u, 0xD81A8D2B5A4485ACu,
    0xDB01602B100B9ED7u, 0xA9038A921825F10Du, 0xEDF5F1D90DCA2F6Au, 0x54496AD67BD2634Cu,
    0xDD7C01D4F5407269u, 0x935E82F1DB4C4F7Bu, 0x69B82EBC92233300u, 0x40D29EB57DE1D510u,
    0xA2F09DABB45C6316u, 0xEE521D7A0F4D3872u, 0xF16952EE72F3454Fu, 0x377D35DEA8E40225u,
    0x0C7DE8064963BAB0u, 0x05582D37111AC529u, 0xD254741F599DC6F7u, 0x69630F7593D108C3u,
    0x417EF96181DAA383u, 0x3C3C41A3B43343A1u, 0x6E19905DCBE531DFu, 0x4FA9FA7324851729u,
    0x84EB4454A792922Au, 0x134F7096918175CEu, 0x07DC930B302278A8u, 0x12C015A97019E937u,
    0xCC06C31652EBF438u, 0xECEE65630A691E37u, 0x3E84ECB1763E79ADu, 0x690ED476743AAE49u,
    0x774615D7B1A1F2E1u, 0x22B353F04F4F52DAu, 0xE3DDD86BA71A5EB1u, 0xDF268ADEB6513356u,
    0x2098EB73D4367D77u, 0x03D6845323CE3C71u, 0xC952C5620043C714u, 0x9B196BCA844F1705u,
    0x30260345DD9E0EC1u, 0xCF448A5882BB9698u, 0xF4A578DCCBC87656u, 0xBFDEAED9A17B3C8Fu,
    0xED79402D1D5C5D7Bu, 0x55F070AB1CBBF170u, 0x3E00A34929A88F1Du, 0xE255B237B8BB18FBu,
};

/* Pairs of words are multiplied independently of one another, so the CPU overlaps them; two dependent multiplications finish.
 * What a part of the words adds, from the even number `first` on, may be kept while they stay the same. */
static inline uint128 mix_part(const uint64_t *words, int first, int count) {
    const uint64_t *K = MIX + first;
    uint128 sum = 0;
    int i = 0;
    for (; i + 1 < count; i += 2) sum += (uint128)(words[i] + K[i]) * (uint128)(words[i + 1] + K[i + 1]);
    if (i < count) sum += (uint128)(words[i] + K[i]) * (uint128)K[i + 1];
    return sum;
}

static inline uint128 mix_finish(uint128 sum) {
    const uint64_t *K = MIX;
    uint64_t lo = (uint64_t)sum, hi = (uint64_t)(sum >> 64);
    uint128 p = (uint128)(lo ^ K[60]) * (uint128)(hi ^ K[61]);
    uint64_t plo = (uint64_t)p, phi = (uint64_t)(p >> 64);
    uint128 q = (uint128)(plo ^ hi ^ K[62]) * (uint128)(phi ^ lo ^ K[63]);
    return p + q;
}

static inline uint128 mix_words(const uint64_t *words, int count) { return mix_finish(mix_part(words, 0, count)); }

static inline uint64_t fold(uint64_t a, uint64_t b) {
    uint128 product = (uint128)a * (uint128)b;
    return (uint64_t)product ^ (uint64_t)(product >> 64);
}

/* ---------------------------------------------------------------- bits */

static inline int lowest_bit(uint64_t word) { return __builtin_ctzll(word); }
static inline int highest_bit(uint64_t word) { return 63 - __builtin_clzll(word); }

/* A condition that seldom holds: what hangs on it is kept out of the way of the rest. */
static inline int rarely(int condition) { return __builtin_expect(condition != 0, 0); }

/* ---------------------------------------------------------------- slots */

typedef uint64_t slot_words __attribute__((vector_size(32), aligned(8)));

/* 128 bytes of zeros, in the widest stores the machine has. */
static inline void clear_slot(void *slot) {
    slot_words *words = (slot_words *)slot;
    const slot_words zero = {0, 0, 0, 0};
    words[0] = zero;
    words[1] = zero;
    words[2] = zero;
    words[3] = zero;
}

/* ---------------------------------------------------------------- groups */

/* Which of the first seven of eight tags equal `tag`, as bits 0 … 6. */
static inline uint32_t match_tags(const uint32_t *tags, uint32_t tag) {
#ifdef __AVX2__
    __m256i same = _mm256_cmpeq_epi32(_mm256_load_si256((const __m256i *)tags), _mm256_set1_epi32((int)tag));
    return (uint32_t)_mm256_movemask_ps(_mm256_castsi256_ps(same)) & 0x7F;
#elif defined(__SSE2__)
    __m128i wanted = _mm_set1_epi32((int)tag);
    __m128i low = _mm_cmpeq_epi32(_mm_load_si128((const __m128i *)tags), wanted);
    __m128i high = _mm_cmpeq_epi32(_mm_load_si128((const __m128i *)tags + 1), wanted);
    __m128i all = _mm_packs_epi16(_mm_packs_epi32(low, high), _mm_setzero_si128());
    return (uint32_t)_mm_movemask_epi8(all) & 0x7F;
#else
    uint32_t found = 0;
    for (int i = 0; i < 7; i++) found |= (uint32_t)(tags[i] == tag) << i;
    return found;
#endif
}

/* Which of eight tags equal `tag`, as bits 0 … 7. */
static inline uint32_t match_eight(const uint32_t *tags, uint32_t tag) {
#ifdef __AVX2__
    __m256i same = _mm256_cmpeq_epi32(_mm256_loadu_si256((const __m256i *)tags), _mm256_set1_epi32((int)tag));
    return (uint32_t)_mm256_movemask_ps(_mm256_castsi256_ps(same));
#else
    uint32_t found = 0;
    for (int i = 0; i < 8; i++) found |= (uint32_t)(tags[i] == tag) << i;
    return found;
#endif
}

/* ---------------------------------------------------------------- client ids */

/* Up to eight characters, the first in the lowest byte, as a number: of two texts the longer is greater, of two of one
 * length the later in the alphabet. So numbers written in decimal ascend. */
static inline uint64_t text_rank(uint64_t word) {
    return word ? __builtin_bswap64(word) >> (__builtin_clzll(word) & 56) : 0;
}

static inline int id_length(const uint64_t *id) {
    for (int i = 3; i > 0; i--)
        if (id[i]) return 8 * (i + 1) - (__builtin_clzll(id[i]) >> 3);
    return id[0] ? 8 - (__builtin_clzll(id[0]) >> 3) : 0;
}

/* Whether the client id of four words comes after the other: by its length, then by the alphabet. */
static inline int id_after(const uint64_t *id, const uint64_t *other) {
    if (!(id[1] | id[2] | id[3] | other[1] | other[2] | other[3])) return text_rank(id[0]) > text_rank(other[0]);
    int length = id_length(id) - id_length(other);
    for (int i = 0; length == 0 && i < 4; i++)
        if (id[i] != other[i]) return __builtin_bswap64(id[i]) > __builtin_bswap64(other[i]);
    return length > 0;
}

/* ---------------------------------------------------------------- regions */

#define LARGE_PAGE ((size_t)2 << 20)

/* Zeroed memory of `bytes`; pages cost nothing until touched. NULL if the address space is refused. */
static inline void *region_map(size_t bytes) {
    void *region = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return region == MAP_FAILED ? NULL : region;
}

/* The same for nodes that are filled from the front: large pages spare faults and TLB misses where the kernel has them. */
static inline void *region_map_dense(size_t bytes) {
    void *region = region_map(bytes);
#ifdef MADV_HUGEPAGE
    if (region && bytes >= LARGE_PAGE) madvise(region, bytes, MADV_HUGEPAGE);
#endif
    return region;
}

/* A region for tables that double in place, each as far from its start as it is long (pool.pxd): from LARGE_PAGE on in large
 * pages. `bytes` is a power of two. */
static inline void *table_region(size_t bytes) {
    size_t spare = bytes > LARGE_PAGE ? LARGE_PAGE : 0;
    char *region = (char *)region_map(bytes + spare);
    if (region && spare) {
        size_t skip = (LARGE_PAGE - ((size_t)region & (LARGE_PAGE - 1))) & (LARGE_PAGE - 1);
        if (skip) munmap(region, skip);
        if (spare - skip) munmap(region + skip + bytes, spare - skip);
        region += skip;
#ifdef MADV_HUGEPAGE
        madvise(region + LARGE_PAGE, bytes - LARGE_PAGE, MADV_HUGEPAGE);
#endif
    }
    return region;
}

/* Gives the memory of whole pages back; the address space stays. */
static inline void region_forget(void *region, size_t bytes) { madvise(region, bytes, MADV_DONTNEED); }

/* Pages of a region that are about to be written, brought in at once: a first touch costs up to 3 ns a byte where the host
 * has to find the page too. Where the kernel cannot, every page is touched: what it holds stays as it is. */
static inline void region_touch(void *region, size_t bytes) {
#ifdef MADV_POPULATE_WRITE
    size_t start = ((size_t)region + 4095) & ~(size_t)4095, end = ((size_t)region + bytes) & ~(size_t)4095;
    if (end <= start || madvise((void *)start, end - start, MADV_POPULATE_WRITE) == 0) return;
#endif
    for (size_t at = 0; at < bytes; at += 4096) {
        volatile char *byte = (volatile char *)region + at;
        *byte = *byte;
    }
}

/* Large pages again for a region that a fork left in small ones: each child that reads it splits those which are written
 * meanwhile, and a fork copies an entry for each small page. Any thread, also beside one that uses the memory, which waits at
 * most for the copy of one large page; so the work is done in strides with rests. A kernel without it does nothing. */
static inline void region_collapse(void *region, size_t bytes) {
#ifdef MADV_COLLAPSE
    const size_t stride = 8 * LARGE_PAGE;
    const struct timespec rest = {0, 2000000};
    size_t start = ((size_t)region + LARGE_PAGE - 1) & ~(LARGE_PAGE - 1);
    size_t end = ((size_t)region + bytes + LARGE_PAGE - 1) & ~(LARGE_PAGE - 1);
    for (; start < end; start += stride) {
        madvise((void *)start, stride < end - start ? stride : end - start, MADV_COLLAPSE);
        nanosleep(&rest, NULL);
    }
#endif
}

static inline void region_unmap(void *region, size_t bytes) {
    if (region) munmap(region, bytes);
}

/* `yes` or `no` without a branch: what is looked at ahead is too mixed to be predicted. */
static inline const void *either(int choice, const void *yes, const void *no) {
    uintptr_t mask = (uintptr_t)0 - (uintptr_t)(choice != 0);
    return (const void *)(((uintptr_t)yes & mask) | ((uintptr_t)no & ~mask));
}

/* The empty asm matters: gcc takes a function that does nothing but prefetch for pure, and drops its calls. */
static inline void prefetch_line(const void *address) {
    __builtin_prefetch(address);
    __asm__ volatile("");
}

/* ---------------------------------------------------------------- sorting */

typedef struct { uint64_t key; uint32_t slot; uint32_t spare; } SortItem;

static int sort_item_compare(const void *a, const void *b) {
    uint64_t x = ((const SortItem *)a)->key, y = ((const SortItem *)b)->key;
    return (x > y) - (x < y);
}

static inline void sort_items(SortItem *items, size_t count) {
    qsort(items, count, sizeof(SortItem), sort_item_compare);
}

#endif
