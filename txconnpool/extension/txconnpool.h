/* Copyright txconnpool contributors. See LICENSE. */

/* The functions of the module. Each has a twin in Python, which describes it and has the same result for the same
   arguments: the function of the same name, or for wholeValue, wholeUniqueValue, wholeMetaValue and wholeStored that of
   the command in NATIVE (wire/memcache/replies.py). All are called with an array of arguments (METH_FASTCALL), keep no
   reference and have no state. */

#ifndef TXCONNPOOL_H
#define TXCONNPOOL_H

#include "text.h"

typedef PyObject *const *Arguments;

PyObject *scanRequest(PyObject *module, Arguments arguments, Py_ssize_t count);

PyObject *wholeValue(PyObject *module, Arguments arguments, Py_ssize_t count);
PyObject *wholeUniqueValue(PyObject *module, Arguments arguments, Py_ssize_t count);
PyObject *wholeMetaValue(PyObject *module, Arguments arguments, Py_ssize_t count);
PyObject *wholeStored(PyObject *module, Arguments arguments, Py_ssize_t count);

PyObject *countValues(PyObject *module, Arguments arguments, Py_ssize_t count);
PyObject *findValues(PyObject *module, Arguments arguments, Py_ssize_t count);
PyObject *separateReplies(PyObject *module, Arguments arguments, Py_ssize_t count);

PyObject *findCommand(PyObject *module, Arguments arguments, Py_ssize_t count);
PyObject *findUsual(PyObject *module, Arguments arguments, Py_ssize_t count);
PyObject *encodeWords(PyObject *module, Arguments arguments, Py_ssize_t count);
PyObject *usualWords(PyObject *module, Arguments arguments, Py_ssize_t count);
PyObject *matchSimple(PyObject *module, Arguments arguments, Py_ssize_t count);
PyObject *passElements(PyObject *module, Arguments arguments, Py_ssize_t count);
PyObject *splitElements(PyObject *module, Arguments arguments, Py_ssize_t count);
PyObject *packElements(PyObject *module, Arguments arguments, Py_ssize_t count);

PyObject *divideWords(PyObject *module, Arguments arguments, Py_ssize_t count);
PyObject *plainKey(PyObject *module, Arguments arguments, Py_ssize_t count);
PyObject *divideLines(PyObject *module, Arguments arguments, Py_ssize_t count);
PyObject *joinEach(PyObject *module, Arguments arguments, Py_ssize_t count);

PyObject *oneAtATime(PyObject *module, Arguments arguments, Py_ssize_t count);
PyObject *fnv1x32(PyObject *module, Arguments arguments, Py_ssize_t count);
PyObject *fnv1ax32(PyObject *module, Arguments arguments, Py_ssize_t count);
PyObject *fnv1x64(PyObject *module, Arguments arguments, Py_ssize_t count);
PyObject *fnv1ax64(PyObject *module, Arguments arguments, Py_ssize_t count);
PyObject *hsieh(PyObject *module, Arguments arguments, Py_ssize_t count);
PyObject *murmur(PyObject *module, Arguments arguments, Py_ssize_t count);
PyObject *murmur3Seeded(PyObject *module, Arguments arguments, Py_ssize_t count);
PyObject *murmur3(PyObject *module, Arguments arguments, Py_ssize_t count);
PyObject *jenkins(PyObject *module, Arguments arguments, Py_ssize_t count);
PyObject *md5(PyObject *module, Arguments arguments, Py_ssize_t count);

PyObject *murmur64(PyObject *module, Arguments arguments, Py_ssize_t count);
PyObject *furc(PyObject *module, Arguments arguments, Py_ssize_t count);
PyObject *xxh3(PyObject *module, Arguments arguments, Py_ssize_t count);

#ifdef __linux__
PyObject *receiveEach(PyObject *module, Arguments arguments, Py_ssize_t count);
PyObject *sendJoined(PyObject *module, Arguments arguments, Py_ssize_t count);
#endif

/* Check the number of arguments. */
static inline bool hasArguments(const char *name, Py_ssize_t count, Py_ssize_t expected)
{
    if (count == expected)
        return true;
    PyErr_Format(PyExc_TypeError, "%s: expected %zd arguments, got %zd", name, expected, count);
    return false;
}

/* Read an argument that is an integer. False with an exception if it is none. */
static inline bool readSize(PyObject *argument, Py_ssize_t *size)
{
    *size = PyLong_AsSsize_t(argument);
    return *size != -1 || !PyErr_Occurred();
}

#endif
