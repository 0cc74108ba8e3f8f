/* Copyright txconnpool contributors. See LICENSE. */

/* Joins the values that several servers have for the keys of a request, see txconnpool/wire/joining.py. */

#include "txconnpool.h"

/* Find the next value of each key, and how many bytes they have in all, at most the number of keys. The values are
   borrowed references. False, with an exception, if there are fewer, or the arguments have other types. */
static bool findNext(PyObject *order, PyObject *values, Py_ssize_t *used, PyObject **found, Py_ssize_t *size)
{
    for (Py_ssize_t at = 0; at < PyList_GET_SIZE(order); at++) {
        Py_ssize_t number = PyLong_AsSsize_t(PyList_GET_ITEM(order, at));
        if (number == -1 && PyErr_Occurred())
            return false;
        if (number < 0 || number >= PyList_GET_SIZE(values)) {
            PyErr_SetString(PyExc_IndexError, "joinValues: expected the number of a list");
            return false;
        }
        PyObject *list = PyList_GET_ITEM(values, number);
        if (!PyList_Check(list)) {
            PyErr_SetString(PyExc_TypeError, "joinValues: expected lists of values");
            return false;
        }
        if (used[number] >= PyList_GET_SIZE(list)) {
            PyErr_SetString(PyExc_ValueError, "joinValues: expected a value for each key");
            return false;
        }
        PyObject *value = PyList_GET_ITEM(list, used[number]++);
        if (!PyBytes_Check(value)) {
            PyErr_SetString(PyExc_TypeError, "joinValues: expected bytes");
            return false;
        }
        found[at] = value;
        *size += PyBytes_GET_SIZE(value);
    }
    return true;
}

/* Copy the bytes of an object. Return the position after them. */
static char *copy(char *to, PyObject *bytes)
{
    Py_ssize_t size = PyBytes_GET_SIZE(bytes);
    memcpy(to, PyBytes_AS_STRING(bytes), (size_t)size);
    return to + size;
}

PyObject *joinValues(PyObject *Py_UNUSED(module), Arguments arguments, Py_ssize_t count)
{
    if (!hasArguments("joinValues", count, 4))
        return NULL;
    PyObject *order = arguments[0], *values = arguments[1], *between = arguments[2], *end = arguments[3];
    if (!PyList_Check(order) || !PyList_Check(values) || !PyBytes_Check(between) || !PyBytes_Check(end)) {
        PyErr_SetString(PyExc_TypeError, "joinValues: expected a list of numbers, a list of lists and bytes");
        return NULL;
    }
    Py_ssize_t keys = PyList_GET_SIZE(order), lists = PyList_GET_SIZE(values), size = PyBytes_GET_SIZE(end);
    Py_ssize_t *used = PyMem_Calloc((size_t)lists + 1, sizeof *used);
    PyObject **found = PyMem_Calloc((size_t)keys + 1, sizeof *found);
    PyObject *result = NULL;
    if (used == NULL || found == NULL) {
        PyErr_NoMemory();
    } else if (findNext(order, values, used, found, &size)) {
        if (keys > 1)
            size += (keys - 1) * PyBytes_GET_SIZE(between);
        result = PyBytes_FromStringAndSize(NULL, size);
    }
    if (result != NULL) {
        char *to = PyBytes_AS_STRING(result);
        for (Py_ssize_t at = 0; at < keys; at++) {
            if (at > 0)
                to = copy(to, between);
            to = copy(to, found[at]);
        }
        copy(to, end);
    }
    PyMem_Free(used);
    PyMem_Free(found);
    return result;
}
