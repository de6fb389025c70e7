/* What appending a record to a journal costs at the very least: its CRC32C and its copy, into memory that is there.
 *
 *   append_bare   that, for records of 128 bytes one behind another: CPU nanoseconds of all of them
 */
#include <stdint.h>
#include <string.h>

#include "clock.h"

enum { SLOT = 128 };

#if defined(__x86_64__)
#include <nmmintrin.h>
__attribute__((target("sse4.2"))) static uint32_t crc32c(const uint8_t *data) {
    uint64_t crc = 0xFFFFFFFF, word;
    uint32_t half;
    memcpy(&half, data, 4);
    crc = _mm_crc32_u32((uint32_t)crc, half);
    for (int at = 4; at < SLOT - 4; at += 8) {
        memcpy(&word, data + at, 8);
        crc = _mm_crc32_u64(crc, word);
    }
    return ~(uint32_t)crc;
}
#else
static uint32_t crc32c(const uint8_t *data) {
    uint32_t crc = 0xFFFFFFFF;
    for (int at = 0; at < SLOT - 4; at++) {
        crc ^= data[at];
        for (int bit = 0; bit < 8; bit++) crc = crc & 1 ? crc >> 1 ^ 0x82F63B78u : crc >> 1;
    }
    return ~crc;
}
#endif

int64_t append_bare(uint8_t *records, int64_t count, uint8_t *target) {
    int64_t begun = cpu_ns();
    for (int64_t at = 0; at < count; at++) {
        uint8_t *record = records + at * SLOT;
        uint32_t crc = crc32c(record + 4);
        memcpy(record, &crc, 4);
        memcpy(target + at * SLOT, record, SLOT);
    }
    return cpu_ns() - begun;
}
