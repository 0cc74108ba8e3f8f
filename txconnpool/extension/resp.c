/* Copyright txconnpool contributors. See LICENSE. */

/* Finds the usual requests and replies of Redis, see `findCommand` of txconnpool.wire.redis.framing and `matchSimple` of
   txconnpool.wire.redis.commands. */

#include "txconnpool.h"

/* Skip a type, a number without leading zeros, and a line end. */
static bool skipHeader(Text *text, char type, int digitsMax, Py_ssize_t *number)
{
    if (!skipByte(text, type))
        return false;
    const char *first = text->at;
    int digits = skipDigits(text, digitsMax, number);
    return digits > 0 && (digits == 1 || *first != '0') && skipLineEnd(text);
}

/* Skip bytes and a line end. */
static bool skipString(Text *text, Py_ssize_t size)
{
    if (remaining(text) < size)
        return false;
    text->at += size;
    return skipLineEnd(text);
}

PyObject *findCommand(PyObject *Py_UNUSED(module), Arguments arguments, Py_ssize_t count)
{
    Text text;
    Py_ssize_t itemMax, words, size;
    if (!hasArguments("findCommand", count, 3) || !readSize(arguments[2], &itemMax))
        return NULL;
    if (!openText(arguments[0], arguments[1], &text) || !skipHeader(&text, '*', 6, &words) || words == 0 ||
        !skipHeader(&text, '$', 3, &size) || size == 0)
        Py_RETURN_NONE;
    const char *name = text.at;
    Py_ssize_t nameSize = size;
    if (!skipString(&text, size))
        Py_RETURN_NONE;
    for (Py_ssize_t word = 1; word < words; word++)
        if (!skipHeader(&text, '$', 9, &size) || size > itemMax || !skipString(&text, size))
            Py_RETURN_NONE;
    return Py_BuildValue("(nny#)", text.at - PyBytes_AS_STRING(arguments[0]), words, name, nameSize);
}

/* Match a status, an integer or a string. Return its end, or 0. */
static Py_ssize_t matchElement(Text *text, PyObject *data)
{
    Py_ssize_t size;
    if (skipByte(text, '$')) {
        if (!skipDigits(text, 9, &size) || !skipLineEnd(text) || !skipString(text, size))
            return 0;
    } else {
        if (!skipByte(text, '+') && !skipByte(text, ':'))
            return 0;
        while (text->at < text->end && *text->at != '\r' && *text->at != '\n')
            text->at++;
        if (!skipLineEnd(text))
            return 0;
    }
    return text->at - PyBytes_AS_STRING(data);
}

PyObject *matchSimple(PyObject *Py_UNUSED(module), Arguments arguments, Py_ssize_t count)
{
    Text text;
    if (!hasArguments("matchSimple", count, 3))
        return NULL;
    if (!openText(arguments[0], arguments[1], &text))
        return PyLong_FromLong(0);
    return PyLong_FromSsize_t(matchElement(&text, arguments[0]));
}
