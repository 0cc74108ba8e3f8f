/* Copyright txconnpool contributors. See LICENSE. */

/* A position in received bytes. Each function that reads a byte first checks that there is one. */

#ifndef TXCONNPOOL_TEXT_H
#define TXCONNPOOL_TEXT_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdbool.h>
#include <string.h>

/* The greatest length of a key, as in memcached. */
#define KEY_MAX 250

/* The next byte to read, and the end of the bytes. */
typedef struct {
    const char *at;
    const char *end;
} Text;

/* The bytes of an object from a position on. False, without an exception, if the object is not bytes, or the position
   is not in them: then the caller lets Python look at the arguments. */
static inline bool openText(PyObject *data, PyObject *pos, Text *text)
{
    if (!PyBytes_Check(data) || !PyLong_Check(pos))
        return false;
    Py_ssize_t start = PyLong_AsSsize_t(pos);
    if (start == -1 && PyErr_Occurred()) {
        PyErr_Clear(); /* a number that no position can be */
        return false;
    }
    if (start < 0 || start > PyBytes_GET_SIZE(data))
        return false;
    text->at = PyBytes_AS_STRING(data) + start;
    text->end = PyBytes_AS_STRING(data) + PyBytes_GET_SIZE(data);
    return true;
}

static inline Py_ssize_t remaining(const Text *text)
{
    return text->end - text->at;
}

/* Whether the next bytes are these. */
static inline bool follows(const Text *text, const char *bytes, Py_ssize_t size)
{
    return remaining(text) >= size && memcmp(text->at, bytes, (size_t)size) == 0;
}

/* Skip these bytes, if they are the next ones. */
static inline bool skip(Text *text, const char *bytes, Py_ssize_t size)
{
    if (!follows(text, bytes, size))
        return false;
    text->at += size;
    return true;
}

static inline bool skipByte(Text *text, char byte)
{
    if (text->at == text->end || *text->at != byte)
        return false;
    text->at++;
    return true;
}

static inline bool skipLineEnd(Text *text)
{
    return skip(text, "\r\n", 2);
}

/* Skip bytes up to and without this one. Return how many, or -1 if it is not among the next `most` + 1 bytes. */
static inline Py_ssize_t skipUntil(Text *text, char byte, Py_ssize_t most)
{
    Py_ssize_t size = remaining(text) > most ? most + 1 : remaining(text);
    const char *found = size > 0 ? memchr(text->at, byte, (size_t)size) : NULL;
    if (found == NULL)
        return -1;
    size = found - text->at;
    text->at = found;
    return size;
}

/* Skip decimal digits. Return how many, and their value unless it is NULL; 0 if there are none or more than `most`,
   which is at most 18 if a value is wanted. */
static inline int skipDigits(Text *text, int most, Py_ssize_t *value)
{
    const char *start = text->at;
    Py_ssize_t number = 0;
    while (text->at < text->end && *text->at >= '0' && *text->at <= '9') {
        if (text->at - start == most)
            return 0;
        if (value != NULL)
            number = 10 * number + (*text->at - '0');
        text->at++;
    }
    if (value != NULL)
        *value = number;
    return (int)(text->at - start);
}

#endif
