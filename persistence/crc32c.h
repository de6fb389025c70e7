/* Checksums of the journal: CRC32C, the hash-chain word and SHA-256.
 *
 * CRC32C (Castagnoli) finds damage of one record. The chain word binds a record to all before it: it is a fast
 * multiply-mix without a key, so it detects mistakes and does not authenticate. SHA-256 over the records of a sealed
 * segment, kept in the header of the next one, authenticates what is older than the last segment.
 *
 * Each has a portable body and one that uses the CPU's instructions; which runs is decided once, at import. Both give
 * the same bytes (tests/unit/persistence/test_checksums.py). Little endian machines only, as the layout is.
 */
#ifndef BYLINE_CRC32C_H
#define BYLINE_CRC32C_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "the journal is little endian"
#endif

#if defined(__x86_64__)
#include <immintrin.h>
#define BYLINE_X86 1
#endif
#if defined(__aarch64__) && defined(__ARM_FEATURE_CRC32)
#include <arm_acle.h>
#endif

static inline uint64_t byline_load64(const uint8_t *p) { uint64_t v; memcpy(&v, p, 8); return v; }
static inline uint32_t byline_load32(const uint8_t *p) { uint32_t v; memcpy(&v, p, 4); return v; }

/* ---------------------------------------------------------------- CRC32C */

static uint32_t byline_crc_table[8][256];

static uint32_t byline_crc32c_table(uint32_t crc, const uint8_t *p, size_t n) {
    crc = ~crc;
    while (n >= 8) {
        uint64_t w = byline_load64(p) ^ crc;
        crc = byline_crc_table[7][w & 255] ^ byline_crc_table[6][(w >> 8) & 255]
            ^ byline_crc_table[5][(w >> 16) & 255] ^ byline_crc_table[4][(w >> 24) & 255]
            ^ byline_crc_table[3][(w >> 32) & 255] ^ byline_crc_table[2][(w >> 40) & 255]
            ^ byline_crc_table[1][(w >> 48) & 255] ^ byline_crc_table[0][w >> 56];
        p += 8; n -= 8;
    }
    while (n--) crc = (crc >> 8) ^ byline_crc_table[0][(crc ^ *p++) & 255];
    return ~crc;
}

#if defined(BYLINE_X86)
__attribute__((target("sse4.2")))
static uint32_t byline_crc32c_cpu(uint32_t crc, const uint8_t *p, size_t n) {
    uint64_t c = (uint32_t)~crc;
    if (n & 4) { c = _mm_crc32_u32((uint32_t)c, byline_load32(p)); p += 4; n -= 4; }
    for (; n >= 8; p += 8, n -= 8) c = _mm_crc32_u64(c, byline_load64(p));
    for (; n; p++, n--) c = _mm_crc32_u8((uint32_t)c, *p);
    return ~(uint32_t)c;
}
#elif defined(__aarch64__) && defined(__ARM_FEATURE_CRC32)
static uint32_t byline_crc32c_cpu(uint32_t crc, const uint8_t *p, size_t n) {
    crc = ~crc;
    for (; n >= 8; p += 8, n -= 8) crc = __crc32cd(crc, byline_load64(p));
    for (; n; p++, n--) crc = __crc32cb(crc, *p);
    return ~crc;
}
#endif

static uint32_t (*byline_crc32c)(uint32_t crc, const uint8_t *p, size_t n) = byline_crc32c_table;

/* ---------------------------------------------------------------- chain word */

#define BYLINE_CHAIN_K0 0xa0761d6478bd642fULL
#define BYLINE_CHAIN_K1 0xe7037ed1a0b428dbULL
#define BYLINE_CHAIN_K2 0x8ebc6af09c88c6e3ULL

static inline uint64_t byline_fold(uint64_t a, uint64_t b) {
    unsigned __int128 product = (unsigned __int128)a * b;
    return (uint64_t)product ^ (uint64_t)(product >> 64);
}

/* fold(a, b) = low ^ high half of a * b. With w[0] the word of bytes 0 … 7 whose low half (the CRC) is zeroed and
 * w[3] (the chain itself) zeroed, sum = XOR over pairs i = 0, 2, 4 … of fold(w[i] ^ (K0 + i), w[i + 1] ^ (K1 - i)),
 * chain' = fold(chain ^ K2, sum ^ K0) + sum. The products of a record do not wait for one another. */
static inline uint64_t byline_chain(uint64_t chain, const uint8_t *record, size_t slots) {
    uint64_t sum = byline_fold((byline_load64(record) & 0xffffffff00000000ULL) ^ BYLINE_CHAIN_K0,
                               byline_load64(record + 8) ^ BYLINE_CHAIN_K1);
    sum ^= byline_fold(byline_load64(record + 16) ^ (BYLINE_CHAIN_K0 + 2), BYLINE_CHAIN_K1 - 2);
    for (size_t i = 4; i < slots * 16; i += 2)
        sum ^= byline_fold(byline_load64(record + 8 * i) ^ (BYLINE_CHAIN_K0 + i),
                           byline_load64(record + 8 * i + 8) ^ (BYLINE_CHAIN_K1 - i));
    return byline_fold(chain ^ BYLINE_CHAIN_K2, sum ^ BYLINE_CHAIN_K0) + sum;
}

/* ---------------------------------------------------------------- SHA-256 */

typedef struct {
    uint32_t state[8];
    uint64_t size_bytes;
    uint8_t block[64];
} byline_sha256;

static const uint32_t byline_sha_k[64] = {
    0x428a2f98,0x71374491,0xb5c0fbcf,0xe9b5dba5,0x3956c25b,0x59f111f1,0x923f82a4,0xab1c5ed5,0xd807aa98,0x12835b01,
    0x243185be,0x550c7dc3,0x72be5d74,0x80deb1fe,0x9bdc06a7,0xc19bf174,0xe49b69c1,0xefbe4786,0x0fc19dc6,0x240ca1cc,
    0x2de92c6f,0x4a7484aa,0x5cb0a9dc,0x76f988da,0x983e5152,0xa831c66d,0xb00327c8,0xbf597fc7,0xc6e00bf3,0xd5a79147,
    0x06ca6351,0x14292967,0x27b70a85,0x2e1b2138,0x4d2c6dfc,0x53380d13,0x650a7354,0x766a0abb,0x81c2c92e,0x92722c85,
    0xa2bfe8a1,0xa81a664b,0xc24b8b70,0xc76c51a3,0xd192e819,0xd6990624,0xf40e3585,0x106aa070,0x19a4c116,0x1e376c08,
    0x2748774c,0x34b0bcb5,0x391c0cb3,0x4ed8aa4a,0x5b9cca4f,0x682e6ff3,0x748f82ee,0x78a5636f,0x84c87814,0x8cc70208,
    0x90befffa,0xa4506ceb,0xbef9a3f7,0xc67178f2};

static inline uint32_t byline_ror(uint32_t v, int n) { return (v >> n) | (v << (32 - n)); }

static void byline_sha_blocks_portable(uint32_t *s, const uint8_t *p, size_t blocks) {
    uint32_t w[64];
    for (; blocks--; p += 64) {
        for (int i = 0; i < 16; i++) w[i] = __builtin_bswap32(byline_load32(p + 4 * i));
        for (int i = 16; i < 64; i++) {
            uint32_t x = w[i - 15], y = w[i - 2];
            w[i] = w[i - 16] + w[i - 7] + (byline_ror(x, 7) ^ byline_ror(x, 18) ^ (x >> 3))
                 + (byline_ror(y, 17) ^ byline_ror(y, 19) ^ (y >> 10));
        }
        uint32_t a = s[0], b = s[1], c = s[2], d = s[3], e = s[4], f = s[5], g = s[6], h = s[7];
        for (int i = 0; i < 64; i++) {
            uint32_t t = h + (byline_ror(e, 6) ^ byline_ror(e, 11) ^ byline_ror(e, 25)) + ((e & f) ^ (~e & g))
                       + byline_sha_k[i] + w[i];
            uint32_t u = (byline_ror(a, 2) ^ byline_ror(a, 13) ^ byline_ror(a, 22)) + ((a & b) ^ (a & c) ^ (b & c));
            h = g; g = f; f = e; e = d + t; d = c; c = b; b = a; a = t + u;
        }
        s[0] += a; s[1] += b; s[2] += c; s[3] += d; s[4] += e; s[5] += f; s[6] += g; s[7] += h;
    }
}

#if defined(BYLINE_X86)
__attribute__((target("sha,sse4.1")))
static void byline_sha_blocks_cpu(uint32_t *s, const uint8_t *p, size_t blocks) {
    const __m128i swap = _mm_set_epi64x(0x0c0d0e0f08090a0bULL, 0x0405060700010203ULL);
    __m128i low = _mm_shuffle_epi32(_mm_loadu_si128((const __m128i *)s), 0xB1);
    __m128i high = _mm_shuffle_epi32(_mm_loadu_si128((const __m128i *)(s + 4)), 0x1B);
    __m128i abef = _mm_alignr_epi8(low, high, 8), cdgh = _mm_blend_epi16(high, low, 0xF0);
    for (; blocks--; p += 64) {
        __m128i w[4], abef0 = abef, cdgh0 = cdgh;
        for (int i = 0; i < 4; i++)
            w[i] = _mm_shuffle_epi8(_mm_loadu_si128((const __m128i *)(p + 16 * i)), swap);
        for (int i = 0; i < 16; i++) {
            __m128i now = w[i & 3];
            __m128i sum = _mm_add_epi32(now, _mm_loadu_si128((const __m128i *)(byline_sha_k + 4 * i)));
            cdgh = _mm_sha256rnds2_epu32(cdgh, abef, sum);
            abef = _mm_sha256rnds2_epu32(abef, cdgh, _mm_shuffle_epi32(sum, 0x0E));
            if (i < 12) {
                __m128i last = w[(i + 3) & 3];
                __m128i next = _mm_add_epi32(_mm_sha256msg1_epu32(now, w[(i + 1) & 3]),
                                             _mm_alignr_epi8(last, w[(i + 2) & 3], 4));
                w[i & 3] = _mm_sha256msg2_epu32(next, last);
            }
        }
        abef = _mm_add_epi32(abef, abef0);
        cdgh = _mm_add_epi32(cdgh, cdgh0);
    }
    low = _mm_shuffle_epi32(abef, 0x1B);
    high = _mm_shuffle_epi32(cdgh, 0xB1);
    _mm_storeu_si128((__m128i *)s, _mm_blend_epi16(low, high, 0xF0));
    _mm_storeu_si128((__m128i *)(s + 4), _mm_alignr_epi8(high, low, 8));
}
#endif

static void (*byline_sha_blocks)(uint32_t *s, const uint8_t *p, size_t blocks) = byline_sha_blocks_portable;

static void byline_sha256_start(byline_sha256 *h) {
    static const uint32_t first[8] = {0x6a09e667,0xbb67ae85,0x3c6ef372,0xa54ff53a,
                                      0x510e527f,0x9b05688c,0x1f83d9ab,0x5be0cd19};
    memcpy(h->state, first, 32);
    h->size_bytes = 0;
}

static void byline_sha256_update(byline_sha256 *h, const uint8_t *p, size_t n) {
    size_t used = h->size_bytes & 63;
    h->size_bytes += n;
    if (used) {
        size_t part = n < 64 - used ? n : 64 - used;
        memcpy(h->block + used, p, part);
        p += part; n -= part;
        if (used + part < 64) return;
        byline_sha_blocks(h->state, h->block, 1);
    }
    byline_sha_blocks(h->state, p, n / 64);
    memcpy(h->block, p + (n & ~(size_t)63), n & 63);
}

static void byline_sha256_digest(const byline_sha256 *h, uint8_t *out) {
    byline_sha256 end = *h;
    uint8_t padding[72] = {0x80};
    size_t used = h->size_bytes & 63, zeros = (used < 56 ? 56 : 120) - used;
    uint64_t bits = __builtin_bswap64(h->size_bytes * 8);
    byline_sha256_update(&end, padding, zeros);
    byline_sha256_update(&end, (const uint8_t *)&bits, 8);
    for (int i = 0; i < 8; i++) {
        uint32_t word = __builtin_bswap32(end.state[i]);
        memcpy(out + 4 * i, &word, 4);
    }
}

/* ---------------------------------------------------------------- dispatch */

/* Chooses the bodies; `portable` forces the table and scalar ones. Returns 1 if CRC32C, 2 if SHA-256, 3 if both are
 * the CPU's. Call before any thread uses them. */
static int byline_checksums_choose(int portable) {
    int cpu = 0;
    for (uint32_t i = 0; i < 256; i++) {
        uint32_t crc = i;
        for (int bit = 0; bit < 8; bit++) crc = (crc >> 1) ^ (0x82f63b78U & (0U - (crc & 1)));
        byline_crc_table[0][i] = crc;
    }
    for (int row = 1; row < 8; row++)
        for (int i = 0; i < 256; i++) {
            uint32_t crc = byline_crc_table[row - 1][i];
            byline_crc_table[row][i] = (crc >> 8) ^ byline_crc_table[0][crc & 255];
        }
    byline_crc32c = byline_crc32c_table;
    byline_sha_blocks = byline_sha_blocks_portable;
    if (portable) return 0;
#if defined(BYLINE_X86)
    __builtin_cpu_init();
    if (__builtin_cpu_supports("sse4.2")) { byline_crc32c = byline_crc32c_cpu; cpu |= 1; }
    /* CPUID leaf 7, EBX bit 29: SHA extensions. GCC learned the name of this one late. */
    unsigned a = 7, b = 0, c = 0, d = 0;
    __asm__ volatile("cpuid" : "+a"(a), "=b"(b), "+c"(c), "=d"(d));
    if (((b >> 29) & 1) && __builtin_cpu_supports("sse4.1")) { byline_sha_blocks = byline_sha_blocks_cpu; cpu |= 2; }
#elif defined(__aarch64__) && defined(__ARM_FEATURE_CRC32)
    byline_crc32c = byline_crc32c_cpu;
    cpu |= 1;
#endif
    return cpu;
}

#endif
