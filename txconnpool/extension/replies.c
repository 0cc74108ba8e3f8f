/* Copyright txconnpool contributors. See LICENSE. */

/* Matches the most common complete replies of memcached to one request. Each function returns the end of the reply, or
   0 if Python must read it, see `matchWhole` of txconnpool.wire.memcache.matching.MemcacheCommand. */

#include "txconnpool.h"

/* Skip the end of a value's line, the body and the bytes after it. Return the end of the reply, or 0. */
static Py_ssize_t skipBody(Text *text, PyObject *data, Py_ssize_t length, const char *ending, Py_ssize_t size)
{
    if (remaining(text) < length)
        return 0;
    text->at += length;
    return skip(text, ending, size) ? text->at - PyBytes_AS_STRING(data) : 0;
}

/* Match a value and END. The key must be that of the request, if there is one, whose key begins at `keyAt`. */
static Py_ssize_t matchValue(PyObject *data, PyObject *pos, PyObject *request, Py_ssize_t keyAt, bool isUnique)
{
    Text text;
    Py_ssize_t length;
    if (!openText(data, pos, &text) || !skip(&text, "VALUE ", 6))
        return 0;
    const char *key = text.at;
    Py_ssize_t size = skipUntil(&text, ' ', KEY_MAX);
    if (size <= 0)
        return 0;
    if (request != Py_None) {
        if (!PyBytes_Check(request) || PyBytes_GET_SIZE(request) != keyAt + size + 2 ||
            memcmp(PyBytes_AS_STRING(request) + keyAt, key, (size_t)size) != 0)
            return 0;
    }
    if (!skipByte(&text, ' ') || !skipDigits(&text, 20, NULL) || !skipByte(&text, ' ') ||
        !skipDigits(&text, 10, &length))
        return 0;
    if (isUnique && (!skipByte(&text, ' ') || !skipDigits(&text, 20, NULL)))
        return 0;
    return skipLineEnd(&text) ? skipBody(&text, data, length, "\r\nEND\r\n", 7) : 0;
}

PyObject *wholeValue(PyObject *Py_UNUSED(module), Arguments arguments, Py_ssize_t count)
{
    if (!hasArguments("wholeValue", count, 4))
        return NULL;
    return PyLong_FromSsize_t(matchValue(arguments[0], arguments[1], arguments[2], 4, false));
}

PyObject *wholeUniqueValue(PyObject *Py_UNUSED(module), Arguments arguments, Py_ssize_t count)
{
    if (!hasArguments("wholeUniqueValue", count, 4))
        return NULL;
    return PyLong_FromSsize_t(matchValue(arguments[0], arguments[1], arguments[2], 5, true));
}

/* Match VA and a body. There may be flags after the length, which may contain CR. */
static Py_ssize_t matchMetaValue(PyObject *data, PyObject *pos)
{
    Text text;
    Py_ssize_t length;
    if (!openText(data, pos, &text) || !skip(&text, "VA ", 3) || !skipDigits(&text, 10, &length))
        return 0;
    if (!skipLineEnd(&text)) {
        if (!skipByte(&text, ' ') || skipUntil(&text, '\n', remaining(&text)) < 1 || text.at[-1] != '\r')
            return 0;
        text.at++;
    }
    return skipBody(&text, data, length, "\r\n", 2);
}

PyObject *wholeMetaValue(PyObject *Py_UNUSED(module), Arguments arguments, Py_ssize_t count)
{
    if (!hasArguments("wholeMetaValue", count, 4))
        return NULL;
    return PyLong_FromSsize_t(matchMetaValue(arguments[0], arguments[1]));
}

static Py_ssize_t matchStored(PyObject *data, PyObject *pos)
{
    Text text;
    if (!openText(data, pos, &text) || !(skip(&text, "STORED\r\n", 8) || skip(&text, "NOT_STORED\r\n", 12)))
        return 0;
    return text.at - PyBytes_AS_STRING(data);
}

PyObject *wholeStored(PyObject *Py_UNUSED(module), Arguments arguments, Py_ssize_t count)
{
    if (!hasArguments("wholeStored", count, 4))
        return NULL;
    return PyLong_FromSsize_t(matchStored(arguments[0], arguments[1]));
}
