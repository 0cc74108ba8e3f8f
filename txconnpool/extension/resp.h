/* Copyright txconnpool contributors. See LICENSE. */

/* The lines of Redis' protocol. */

#ifndef TXCONNPOOL_RESP_H
#define TXCONNPOOL_RESP_H

#include "txconnpool.h"

/* Skip a number without leading zeros, and a line end. */
static inline bool skipNumber(Text *text, int digitsMax, Py_ssize_t *number)
{
    const char *first = text->at;
    int digits = skipDigits(text, digitsMax, number);
    return digits > 0 && (digits == 1 || *first != '0') && skipLineEnd(text);
}

/* Skip a type, a number and a line end. */
static inline bool skipHeader(Text *text, char type, int digitsMax, Py_ssize_t *number)
{
    return skipByte(text, type) && skipNumber(text, digitsMax, number);
}

/* Skip bytes and a line end. */
static inline bool skipString(Text *text, Py_ssize_t size)
{
    if (remaining(text) < size)
        return false;
    text->at += size;
    return skipLineEnd(text);
}

/* Write a type, a number and a line end, at most HEADER_MAX bytes. Return how many. */
#define HEADER_MAX 24
static inline Py_ssize_t writeHeader(char *to, char type, Py_ssize_t number)
{
    char digits[HEADER_MAX];
    char *first = digits + sizeof digits;
    Py_ssize_t size;
    do
        *--first = (char)('0' + number % 10);
    while ((number /= 10) > 0);
    size = digits + sizeof digits - first;
    *to++ = type;
    memcpy(to, first, (size_t)size);
    memcpy(to + size, "\r\n", 2);
    return size + 3;
}

#endif
