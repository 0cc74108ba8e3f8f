/* Copyright txconnpool contributors. See LICENSE. */

/* Hash functions of 32 bits, see txconnpool/routing/hashing.py. */

#include "hashing.h"

/* A byte as a signed character that is extended to 32 bits, as in C on x86-64. */
static uint32_t extended(unsigned char byte)
{
    return byte < 0x80 ? byte : byte | 0xFFFFFF00;
}

static uint32_t rotated(uint32_t value, int bits)
{
    return value << bits | value >> (32 - bits);
}

static uint32_t hashOneAtATime(Bytes bytes)
{
    uint32_t value = 0;
    for (size_t at = 0; at < bytes.size; at++) {
        value = (value + extended(bytes.at[at])) * 1025;
        value ^= value >> 6;
    }
    value *= 9;
    return (value ^ value >> 11) * 0x8001;
}

static uint32_t fnv1(Bytes bytes, uint32_t value, uint32_t prime)
{
    for (size_t at = 0; at < bytes.size; at++)
        value = value * prime ^ extended(bytes.at[at]);
    return value;
}

static uint32_t fnv1a(Bytes bytes, uint32_t value, uint32_t prime)
{
    for (size_t at = 0; at < bytes.size; at++)
        value = (value ^ extended(bytes.at[at])) * prime;
    return value;
}

static uint32_t hashFnv1x32(Bytes bytes)
{
    return fnv1(bytes, 0x811C9DC5, 0x01000193);
}

static uint32_t hashFnv1ax32(Bytes bytes)
{
    return fnv1a(bytes, 0x811C9DC5, 0x01000193);
}

static uint32_t hashFnv1x64(Bytes bytes)
{
    return fnv1(bytes, 0x84222325, 0x1B3);
}

static uint32_t hashFnv1ax64(Bytes bytes)
{
    return fnv1a(bytes, 0x84222325, 0x1B3);
}

/* Mix up to three bytes at the end into the value of `hsieh`. */
static uint32_t hsiehTail(uint32_t value, Bytes tail)
{
    if (tail.size == 0)
        return value;
    value += (uint32_t)numberOf(tail.at, tail.size > 1 ? 2 : 1);
    if (tail.size == 3) {
        value ^= value << 16;
        value ^= extended(tail.at[2]) << 18;
        return value + (value >> 11);
    }
    if (tail.size == 2) {
        value ^= value << 11;
        return value + (value >> 17);
    }
    value ^= value << 10;
    return value + (value >> 1);
}

static uint32_t hashHsieh(Bytes bytes)
{
    uint32_t value = 0;
    for (; bytes.size >= 4; bytes = after(bytes, 4)) {
        value += (uint32_t)numberOf(bytes.at, 2);
        value = value << 16 ^ (uint32_t)numberOf(bytes.at + 2, 2) << 11 ^ value;
        value += value >> 11;
    }
    value = hsiehTail(value, bytes);
    value ^= value << 3;
    value += value >> 5;
    value ^= value << 4;
    value += value >> 17;
    value ^= value << 25;
    return value + (value >> 6);
}

static uint32_t hashMurmur(Bytes bytes)
{
    const uint32_t factor = 0x5BD1E995;
    uint32_t value = 0xDEADBEEF * (uint32_t)bytes.size ^ (uint32_t)bytes.size;
    for (; bytes.size >= 4; bytes = after(bytes, 4)) {
        uint32_t word = (uint32_t)numberOf(bytes.at, 4) * factor;
        value = value * factor ^ (word ^ word >> 24) * factor;
    }
    if (bytes.size > 0)
        value = (value ^ (uint32_t)numberOf(bytes.at, bytes.size)) * factor;
    value = (value ^ value >> 13) * factor;
    return value ^ value >> 15;
}

/* What MurmurHash3 does with a word before it goes into the value. */
static uint32_t mixed(uint32_t word)
{
    return rotated(word * 0xCC9E2D51, 15) * 0x1B873593;
}

static uint32_t hashMurmur3(Bytes bytes, uint32_t value)
{
    uint32_t size = (uint32_t)bytes.size;
    for (; bytes.size >= 4; bytes = after(bytes, 4))
        value = rotated(value ^ mixed((uint32_t)numberOf(bytes.at, 4)), 13) * 5 + 0xE6546B64;
    value ^= mixed((uint32_t)numberOf(bytes.at, bytes.size)) ^ size;
    value = (value ^ value >> 16) * 0x85EBCA6B;
    value = (value ^ value >> 13) * 0xC2B2AE35;
    return value ^ value >> 16;
}

PyObject *murmur3Seeded(PyObject *Py_UNUSED(module), Arguments arguments, Py_ssize_t count)
{
    Bytes bytes;
    if (!hasArguments("murmur3Seeded", count, 2) || !openBytes("murmur3Seeded", arguments[0], &bytes))
        return NULL;
    unsigned long seed = PyLong_AsUnsignedLongMask(arguments[1]);
    return PyErr_Occurred() ? NULL : PyLong_FromUnsignedLong(hashMurmur3(bytes, (uint32_t)seed));
}

static uint32_t hashMurmur3OfLength(Bytes bytes)
{
    return hashMurmur3(bytes, 0xDEADBEEF * (uint32_t)bytes.size);
}

static uint32_t hashJenkins(Bytes bytes)
{
    uint32_t a = 0xDEADBEEF + (uint32_t)bytes.size + 13, b = a, c = a;
    if (bytes.size == 0)
        return c;
    for (; bytes.size > 12; bytes = after(bytes, 12)) {
        a += (uint32_t)numberOf(bytes.at, 4);
        b += (uint32_t)numberOf(bytes.at + 4, 4);
        c += (uint32_t)numberOf(bytes.at + 8, 4);
        a = (a - c) ^ rotated(c, 4);
        c += b;
        b = (b - a) ^ rotated(a, 6);
        a += c;
        c = (c - b) ^ rotated(b, 8);
        b += a;
        a = (a - c) ^ rotated(c, 16);
        c += b;
        b = (b - a) ^ rotated(a, 19);
        a += c;
        c = (c - b) ^ rotated(b, 4);
        b += a;
    }
    unsigned char last[12] = {0};
    memcpy(last, bytes.at, bytes.size);
    a += (uint32_t)numberOf(last, 4);
    b += (uint32_t)numberOf(last + 4, 4);
    c += (uint32_t)numberOf(last + 8, 4);
    c = (c ^ b) - rotated(b, 14);
    a = (a ^ c) - rotated(c, 11);
    b = (b ^ a) - rotated(a, 25);
    c = (c ^ b) - rotated(b, 16);
    a = (a ^ c) - rotated(c, 4);
    b = (b ^ a) - rotated(a, 14);
    return (c ^ b) - rotated(b, 24);
}

/* Call a hash function for the only argument. */
static PyObject *hashed(const char *name, Hash hash, Arguments arguments, Py_ssize_t count)
{
    Bytes bytes;
    if (!hasArguments(name, count, 1) || !openBytes(name, arguments[0], &bytes))
        return NULL;
    return PyLong_FromUnsignedLong(hash(bytes));
}

/* Define the function of the module with this name, whose only argument is hashed. */
#define HASHING(name, hash) \
    PyObject *name(PyObject *Py_UNUSED(module), Arguments arguments, Py_ssize_t count) \
    { \
        return hashed(#name, hash, arguments, count); \
    }

HASHING(oneAtATime, hashOneAtATime)
HASHING(fnv1x32, hashFnv1x32)
HASHING(fnv1ax32, hashFnv1ax32)
HASHING(fnv1x64, hashFnv1x64)
HASHING(fnv1ax64, hashFnv1ax64)
HASHING(hsieh, hashHsieh)
HASHING(murmur, hashMurmur)
HASHING(murmur3, hashMurmur3OfLength)
HASHING(jenkins, hashJenkins)
HASHING(md5, hashMd5)

Hash hashOf(PyObject *function)
{
    static const struct {
        PyObject *(*function)(PyObject *, Arguments, Py_ssize_t);
        Hash hash;
    } known[] = {
        {oneAtATime, hashOneAtATime}, {fnv1x32, hashFnv1x32}, {fnv1ax32, hashFnv1ax32}, {fnv1x64, hashFnv1x64},
        {fnv1ax64, hashFnv1ax64},     {hsieh, hashHsieh},     {murmur, hashMurmur},     {murmur3, hashMurmur3OfLength},
        {jenkins, hashJenkins},       {md5, hashMd5},
    };
    if (!PyCFunction_Check(function))
        return NULL;
    for (size_t at = 0; at < sizeof known / sizeof *known; at++)
        if (PyCFunction_GET_FUNCTION(function) == (PyCFunction)(void (*)(void))known[at].function)
            return known[at].hash;
    return NULL;
}
