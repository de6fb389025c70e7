/* SHA-256 (FIPS 180-4) of eight messages of the same length at once, in GCC's vector types.

   Owns: sha256x8(messages, stride, length, out): `out` gets 8 digests of 32 bytes. `length` is at most 119 bytes, so a
   message is one or two blocks. Lanes that are not needed may repeat another message. Never reads beyond `length`.
   Held to hashlib by tests/unit/settlement/test_merkle.py. */

#ifndef BYLINE_SHA256X8_H
#define BYLINE_SHA256X8_H

#include <stdint.h>
#include <string.h>

typedef uint32_t lanes_t __attribute__((vector_size(32)));

static const uint32_t SHA256_K[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
};

#define SHA256_ROTATE(x, n) (((x) >> (n)) | ((x) << (32 - (n))))

static void sha256x8_block(lanes_t state[8], const uint8_t blocks[8][128], int offset)
{
    lanes_t w[64];
    for (int t = 0; t < 16; t++) {
        for (int lane = 0; lane < 8; lane++) {
            uint32_t word;
            memcpy(&word, blocks[lane] + offset + 4 * t, 4);
            w[t][lane] = __builtin_bswap32(word);
        }
    }
    for (int t = 16; t < 64; t++) {
        lanes_t s0 = SHA256_ROTATE(w[t - 15], 7) ^ SHA256_ROTATE(w[t - 15], 18) ^ (w[t - 15] >> 3);
        lanes_t s1 = SHA256_ROTATE(w[t - 2], 17) ^ SHA256_ROTATE(w[t - 2], 19) ^ (w[t - 2] >> 10);
        w[t] = w[t - 16] + s0 + w[t - 7] + s1;
    }
    lanes_t a = state[0], b = state[1], c = state[2], d = state[3];
    lanes_t e = state[4], f = state[5], g = state[6], h = state[7];
    for (int t = 0; t < 64; t++) {
        lanes_t s1 = SHA256_ROTATE(e, 6) ^ SHA256_ROTATE(e, 11) ^ SHA256_ROTATE(e, 25);
        lanes_t one = h + s1 + ((e & f) ^ (~e & g)) + SHA256_K[t] + w[t];
        lanes_t s0 = SHA256_ROTATE(a, 2) ^ SHA256_ROTATE(a, 13) ^ SHA256_ROTATE(a, 22);
        lanes_t two = s0 + ((a & b) ^ (a & c) ^ (b & c));
        h = g; g = f; f = e; e = d + one; d = c; c = b; b = a; a = one + two;
    }
    state[0] += a; state[1] += b; state[2] += c; state[3] += d;
    state[4] += e; state[5] += f; state[6] += g; state[7] += h;
}

static void sha256x8(const uint8_t *messages, size_t stride, size_t length, uint8_t *out)
{
    static const uint32_t first[8] = {
        0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19,
    };
    uint8_t blocks[8][128];
    int used = length <= 55 ? 64 : 128;
    memset(blocks, 0, sizeof blocks);
    for (int lane = 0; lane < 8; lane++) {
        memcpy(blocks[lane], messages + lane * stride, length);
        blocks[lane][length] = 0x80;
        blocks[lane][used - 2] = (uint8_t)(length * 8 >> 8);
        blocks[lane][used - 1] = (uint8_t)(length * 8);
    }
    lanes_t state[8];
    for (int i = 0; i < 8; i++)
        state[i] = (lanes_t){0} + first[i];
    for (int offset = 0; offset < used; offset += 64)
        sha256x8_block(state, (const uint8_t(*)[128])blocks, offset);
    for (int i = 0; i < 8; i++) {
        for (int lane = 0; lane < 8; lane++) {
            uint32_t word = __builtin_bswap32(state[i][lane]);
            memcpy(out + 32 * lane + 4 * i, &word, 4);
        }
    }
}

#endif
