/* Copyright txconnpool contributors. See LICENSE. */

/* The first four bytes of an MD5 digest (RFC 1321), see `md5` in txconnpool/routing/hashing.py. */

#include "hashing.h"

#define BLOCK 64

static const uint32_t SINES[BLOCK] = {
    0xD76AA478, 0xE8C7B756, 0x242070DB, 0xC1BDCEEE, 0xF57C0FAF, 0x4787C62A, 0xA8304613, 0xFD469501,
    0x698098D8, 0x8B44F7AF, 0xFFFF5BB1, 0x895CD7BE, 0x6B901122, 0xFD987193, 0xA679438E, 0x49B40821,
    0xF61E2562, 0xC040B340, 0x265E5A51, 0xE9B6C7AA, 0xD62F105D, 0x02441453, 0xD8A1E681, 0xE7D3FBC8,
    0x21E1CDE6, 0xC33707D6, 0xF4D50D87, 0x455A14ED, 0xA9E3E905, 0xFCEFA3F8, 0x676F02D9, 0x8D2A4C8A,
    0xFFFA3942, 0x8771F681, 0x6D9D6122, 0xFDE5380C, 0xA4BEEA44, 0x4BDECFA9, 0xF6BB4B60, 0xBEBFBC70,
    0x289B7EC6, 0xEAA127FA, 0xD4EF3085, 0x04881D05, 0xD9D4D039, 0xE6DB99E5, 0x1FA27CF8, 0xC4AC5665,
    0xF4292244, 0x432AFF97, 0xAB9423A7, 0xFC93A039, 0x655B59C3, 0x8F0CCC92, 0xFFEFF47D, 0x85845DD1,
    0x6FA87E4F, 0xFE2CE6E0, 0xA3014314, 0x4E0811A1, 0xF7537E82, 0xBD3AF235, 0x2AD7D2BB, 0xEB86D391,
};

static const unsigned char SHIFTS[4][4] = {{7, 12, 17, 22}, {5, 9, 14, 20}, {4, 11, 16, 23}, {6, 10, 15, 21}};

/* A round: the steps with one function of b, c and d, which read the words in one order. A macro, so that the compiler
   knows the function and the order. */
#define ROUND(number, function, order) \
    for (int step = 0; step < 16; step++) { \
        uint32_t sum = a + (function) + words[(order) % 16] + SINES[16 * (number) + step]; \
        int shift = SHIFTS[number][step % 4]; \
        a = d; \
        d = c; \
        c = b; \
        b += sum << shift | sum >> (32 - shift); \
    }

/* Mix a block into the state. */
static void mix(uint32_t *state, const unsigned char *block)
{
    uint32_t a = state[0], b = state[1], c = state[2], d = state[3], words[16];
    for (int word = 0; word < 16; word++)
        words[word] = (uint32_t)numberOf(block + 4 * word, 4);
    ROUND(0, (b & c) | (~b & d), step)
    ROUND(1, (d & b) | (~d & c), 5 * step + 1)
    ROUND(2, b ^ c ^ d, 3 * step + 5)
    ROUND(3, c ^ (b | ~d), 7 * step)
    state[0] += a;
    state[1] += b;
    state[2] += c;
    state[3] += d;
}

uint32_t hashMd5(Bytes bytes)
{
    uint32_t state[] = {0x67452301, 0xEFCDAB89, 0x98BADCFE, 0x10325476};
    uint64_t bits = (uint64_t)bytes.size * 8;
    for (; bytes.size >= BLOCK; bytes = after(bytes, BLOCK))
        mix(state, bytes.at);
    /* The rest, a bit that is set, and the number of all bits at the end of the last block. */
    unsigned char last[2 * BLOCK] = {0};
    size_t size = bytes.size + 9 <= BLOCK ? BLOCK : 2 * BLOCK;
    memcpy(last, bytes.at, bytes.size);
    last[bytes.size] = 0x80;
    for (int place = 0; place < 8; place++)
        last[size - 8 + place] = (unsigned char)(bits >> 8 * place);
    for (size_t at = 0; at < size; at += BLOCK)
        mix(state, last + at);
    return state[0];
}
