/* Copyright txconnpool contributors. See LICENSE. */

/* Hash functions of 64 bits, see txconnpool/routing/distribution/wide.py, mcrouter.py and xxh3.py there. */

#include "hashing.h"

/* -- MurmurHash64A, and the choices that mcrouter takes from it */

static uint64_t hashMurmur64(Bytes bytes, uint64_t seed)
{
    const uint64_t factor = 0xC6A4A7935BD1E995;
    uint64_t value = seed ^ bytes.size * factor;
    for (; bytes.size >= 8; bytes = after(bytes, 8)) {
        uint64_t word = numberOf(bytes.at, 8) * factor;
        value = (value ^ (word ^ word >> 47) * factor) * factor;
    }
    if (bytes.size > 0)
        value = (value ^ numberOf(bytes.at, bytes.size)) * factor;
    value = (value ^ value >> 47) * factor;
    return value ^ value >> 47;
}

PyObject *murmur64(PyObject *Py_UNUSED(module), Arguments arguments, Py_ssize_t count)
{
    Bytes bytes;
    if (!hasArguments("murmur64", count, 2) || !openBytes("murmur64", arguments[0], &bytes))
        return NULL;
    uint64_t seed = PyLong_AsUnsignedLongLongMask(arguments[1]);
    return PyErr_Occurred() ? NULL : PyLong_FromUnsignedLongLong(hashMurmur64(bytes, seed));
}

#define FURC_SEED 4193360111
#define FURC_TRIES 32
#define FURC_SHIFT 23

/* A choice below 2^63 reads fewer bits than this number of words has. */
#define FURC_WORDS 736

/* The bits of a key. Each word is the hash of the one before. */
typedef struct {
    uint64_t words[FURC_WORDS];
    int count;
} Bits;

static int bitAt(Bits *bits, int at)
{
    for (; bits->count <= at / 64; bits->count++) {
        unsigned char before[8];
        for (int place = 0; place < 8; place++)
            before[place] = (unsigned char)(bits->words[bits->count - 1] >> 8 * place);
        bits->words[bits->count] = hashMurmur64((Bytes){before, 8}, FURC_SEED);
    }
    return bits->words[at / 64] >> at % 64 & 1;
}

static Py_ssize_t choose(Bytes key, Py_ssize_t count)
{
    Bits bits = {.count = 1};
    bits.words[0] = hashMurmur64(key, FURC_SEED);
    int depth = 0;
    while (depth < 63 && (count - 1) >> depth != 0)
        depth++;
    int at = depth;
    for (int round = 0; round < FURC_TRIES; round++) {
        while (!bitAt(&bits, at)) {
            if (--depth == 0)
                return 0;
            at = depth;
        }
        at += FURC_SHIFT;
        Py_ssize_t number = 1;
        for (int bit = 1; bit < depth; bit++) {
            number = number << 1 | bitAt(&bits, at);
            at += FURC_SHIFT;
        }
        if (number < count)
            return number;
    }
    return 0;
}

PyObject *furc(PyObject *Py_UNUSED(module), Arguments arguments, Py_ssize_t count)
{
    Bytes key;
    Py_ssize_t most;
    if (!hasArguments("furc", count, 2) || !openBytes("furc", arguments[0], &key) || !readSize(arguments[1], &most))
        return NULL;
    return PyLong_FromSsize_t(most <= 1 ? 0 : choose(key, most));
}

/* -- XXH3 with 64 bits and the seed 0 */

static const uint64_t PRIMES32[] = {0x9E3779B1, 0x85EBCA77, 0xC2B2AE3D};
static const uint64_t PRIMES64[] = {0x9E3779B185EBCA87, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9, 0x85EBCA77C2B2AE63,
                                    0x27D4EB2F165667C5};

static const unsigned char SECRET[192] = {
    0xb8, 0xfe, 0x6c, 0x39, 0x23, 0xa4, 0x4b, 0xbe, 0x7c, 0x01, 0x81, 0x2c, 0xf7, 0x21, 0xad, 0x1c, 0xde, 0xd4, 0x6d,
    0xe9, 0x83, 0x90, 0x97, 0xdb, 0x72, 0x40, 0xa4, 0xa4, 0xb7, 0xb3, 0x67, 0x1f, 0xcb, 0x79, 0xe6, 0x4e, 0xcc, 0xc0,
    0xe5, 0x78, 0x82, 0x5a, 0xd0, 0x7d, 0xcc, 0xff, 0x72, 0x21, 0xb8, 0x08, 0x46, 0x74, 0xf7, 0x43, 0x24, 0x8e, 0xe0,
    0x35, 0x90, 0xe6, 0x81, 0x3a, 0x26, 0x4c, 0x3c, 0x28, 0x52, 0xbb, 0x91, 0xc3, 0x00, 0xcb, 0x88, 0xd0, 0x65, 0x8b,
    0x1b, 0x53, 0x2e, 0xa3, 0x71, 0x64, 0x48, 0x97, 0xa2, 0x0d, 0xf9, 0x4e, 0x38, 0x19, 0xef, 0x46, 0xa9, 0xde, 0xac,
    0xd8, 0xa8, 0xfa, 0x76, 0x3f, 0xe3, 0x9c, 0x34, 0x3f, 0xf9, 0xdc, 0xbb, 0xc7, 0xc7, 0x0b, 0x4f, 0x1d, 0x8a, 0x51,
    0xe0, 0x4b, 0xcd, 0xb4, 0x59, 0x31, 0xc8, 0x9f, 0x7e, 0xc9, 0xd9, 0x78, 0x73, 0x64, 0xea, 0xc5, 0xac, 0x83, 0x34,
    0xd3, 0xeb, 0xc3, 0xc5, 0x81, 0xa0, 0xff, 0xfa, 0x13, 0x63, 0xeb, 0x17, 0x0d, 0xdd, 0x51, 0xb7, 0xf0, 0xda, 0x49,
    0xd3, 0x16, 0x55, 0x26, 0x29, 0xd4, 0x68, 0x9e, 0x2b, 0x16, 0xbe, 0x58, 0x7d, 0x47, 0xa1, 0xfc, 0x8f, 0xf8, 0xb8,
    0xd1, 0x7a, 0xd0, 0x31, 0xce, 0x45, 0xcb, 0x3a, 0x8f, 0x95, 0x16, 0x04, 0x28, 0xaf, 0xd7, 0xfb, 0xca, 0xbb, 0x4b,
    0x40, 0x7e,
};

static uint64_t wordAt(const unsigned char *at)
{
    return numberOf(at, 8);
}

/* The two halves of a product of 128 bits, combined by exclusive or. */
static uint64_t folded(uint64_t a, uint64_t b)
{
    uint64_t aLow = a & 0xFFFFFFFF, aHigh = a >> 32, bLow = b & 0xFFFFFFFF, bHigh = b >> 32;
    uint64_t low = aLow * bLow, cross = aHigh * bLow + (low >> 32), other = aLow * bHigh + (cross & 0xFFFFFFFF);
    return (aHigh * bHigh + (cross >> 32) + (other >> 32)) ^ (other << 32 | (low & 0xFFFFFFFF));
}

static uint64_t end64(uint64_t value)
{
    value = (value ^ value >> 33) * PRIMES64[1];
    value = (value ^ value >> 29) * PRIMES64[2];
    return value ^ value >> 32;
}

static uint64_t end3(uint64_t value)
{
    value = (value ^ value >> 37) * 0x165667919E3779F9;
    return value ^ value >> 32;
}

static uint64_t swapped(uint64_t value)
{
    uint64_t result = 0;
    for (int place = 0; place < 8; place++)
        result = result << 8 | (value >> 8 * place & 0xFF);
    return result;
}

static uint64_t rotated(uint64_t value, int bits)
{
    return value << bits | value >> (64 - bits);
}

static uint64_t upTo16(Bytes bytes)
{
    const unsigned char *end = bytes.at + bytes.size;
    if (bytes.size > 8) {
        uint64_t low = wordAt(SECRET + 24) ^ wordAt(SECRET + 32) ^ wordAt(bytes.at);
        uint64_t high = wordAt(SECRET + 40) ^ wordAt(SECRET + 48) ^ wordAt(end - 8);
        return end3(bytes.size + swapped(low) + high + folded(low, high));
    }
    if (bytes.size > 3) {
        uint64_t both = numberOf(end - 4, 4) + (numberOf(bytes.at, 4) << 32);
        uint64_t value = wordAt(SECRET + 8) ^ wordAt(SECRET + 16) ^ both;
        value ^= rotated(value, 49) ^ rotated(value, 24);
        value *= 0x9FB21C651E98DF25;
        value = (value ^ ((value >> 35) + bytes.size)) * 0x9FB21C651E98DF25;
        return value ^ value >> 28;
    }
    if (bytes.size == 0)
        return end64(wordAt(SECRET + 56) ^ wordAt(SECRET + 64));
    uint64_t combined = (uint64_t)bytes.at[0] << 16 | (uint64_t)bytes.at[bytes.size >> 1] << 24 | end[-1] |
                        (uint64_t)bytes.size << 8;
    return end64(combined ^ numberOf(SECRET, 4) ^ numberOf(SECRET + 4, 4));
}

static uint64_t mixedAt(const unsigned char *at, const unsigned char *secret)
{
    return folded(wordAt(at) ^ wordAt(secret), wordAt(at + 8) ^ wordAt(secret + 8));
}

static uint64_t upTo240(Bytes bytes)
{
    const unsigned char *end = bytes.at + bytes.size;
    uint64_t value = bytes.size * PRIMES64[0];
    if (bytes.size <= 128) {
        for (size_t pair = 0; pair <= (bytes.size - 1) / 32; pair++) {
            value += mixedAt(bytes.at + 16 * pair, SECRET + 32 * pair);
            value += mixedAt(end - 16 * (pair + 1), SECRET + 32 * pair + 16);
        }
        return end3(value);
    }
    for (size_t part = 0; part < 8; part++)
        value += mixedAt(bytes.at + 16 * part, SECRET + 16 * part);
    value = end3(value);
    for (size_t part = 8; part < bytes.size / 16; part++)
        value += mixedAt(bytes.at + 16 * part, SECRET + 16 * (part - 8) + 3);
    return end3(value + mixedAt(end - 16, SECRET + 136 - 17));
}

/* Add a stripe of 64 bytes. */
static void accumulate(uint64_t *sums, const unsigned char *at, const unsigned char *secret)
{
    for (int lane = 0; lane < 8; lane++) {
        uint64_t word = wordAt(at + 8 * lane), mixed = word ^ wordAt(secret + 8 * lane);
        sums[lane ^ 1] += word;
        sums[lane] += (mixed & 0xFFFFFFFF) * (mixed >> 32);
    }
}

/* A block has 16 stripes. Each stripe but the first of a block begins 8 bytes later in the secret. */
static uint64_t ofLong(Bytes bytes)
{
    uint64_t sums[] = {PRIMES32[2], PRIMES64[0], PRIMES64[1], PRIMES64[2],
                       PRIMES64[3], PRIMES32[1], PRIMES64[4], PRIMES32[0]};
    for (size_t stripe = 0; stripe < (bytes.size - 1) / 64; stripe++) {
        accumulate(sums, bytes.at + 64 * stripe, SECRET + 8 * (stripe % 16));
        for (int lane = 0; stripe % 16 == 15 && lane < 8; lane++)
            sums[lane] = (sums[lane] ^ sums[lane] >> 47 ^ wordAt(SECRET + 128 + 8 * lane)) * PRIMES32[0];
    }
    accumulate(sums, bytes.at + bytes.size - 64, SECRET + 128 - 7);
    uint64_t value = bytes.size * PRIMES64[0];
    for (int pair = 0; pair < 4; pair++) {
        const unsigned char *secret = SECRET + 11 + 16 * pair;
        value += folded(sums[2 * pair] ^ wordAt(secret), sums[2 * pair + 1] ^ wordAt(secret + 8));
    }
    return end3(value);
}

PyObject *xxh3(PyObject *Py_UNUSED(module), Arguments arguments, Py_ssize_t count)
{
    Bytes bytes;
    if (!hasArguments("xxh3", count, 1) || !openBytes("xxh3", arguments[0], &bytes))
        return NULL;
    if (bytes.size <= 16)
        return PyLong_FromUnsignedLongLong(upTo16(bytes));
    return PyLong_FromUnsignedLongLong(bytes.size <= 240 ? upTo240(bytes) : ofLong(bytes));
}
