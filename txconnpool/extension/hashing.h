/* Copyright txconnpool contributors. See LICENSE. */

/* What the hash functions read. */

#ifndef TXCONNPOOL_HASHING_H
#define TXCONNPOOL_HASHING_H

#include "txconnpool.h"

#include <stdint.h>

/* What is hashed. */
typedef struct {
    const unsigned char *at;
    size_t size;
} Bytes;

/* The bytes of an argument. False, with an exception, if it is not bytes. */
static inline bool openBytes(const char *name, PyObject *argument, Bytes *bytes)
{
    if (!PyBytes_Check(argument)) {
        PyErr_Format(PyExc_TypeError, "%s: expected bytes, got %s", name, Py_TYPE(argument)->tp_name);
        return false;
    }
    bytes->at = (const unsigned char *)PyBytes_AS_STRING(argument);
    bytes->size = (size_t)PyBytes_GET_SIZE(argument);
    return true;
}

/* The rest of the bytes after the first ones. */
static inline Bytes after(Bytes bytes, size_t size)
{
    return (Bytes){bytes.at + size, bytes.size - size};
}

/* A hash function of 32 bits. */
typedef uint32_t (*Hash)(Bytes bytes);

uint32_t hashMd5(Bytes bytes);

/* The hash function that a function of this module computes. NULL if it is another function. */
Hash hashOf(PyObject *function);

/* The little-endian number of at most 8 bytes. */
static inline uint64_t numberOf(const unsigned char *at, size_t size)
{
    uint64_t number = 0;
    for (size_t place = 0; place < size; place++)
        number |= (uint64_t)at[place] << 8 * place;
    return number;
}

#endif
