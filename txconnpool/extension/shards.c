/* Copyright txconnpool contributors. See LICENSE. */

/* Divides keys among servers, see `divideKeys` of txconnpool/wire/shares.py, and joins what they have for
   the keys, see txconnpool/wire/joining.py. */

#include "txconnpool.h"

/* The indexes below this one are found in an array. */
#define FEW 128

/* The results: the number of the share of each key, and the shares. `last` has the number of the last share of each
   index, or -1, and `others` that of indexes that are not in `last`. */
typedef struct {
    PyObject *order;
    PyObject *shares;
    PyObject *others;
    Py_ssize_t last[FEW];
    Py_ssize_t most;
} Division;

/* Return the keys of a share. */
static PyObject *keysOf(const Division *division, Py_ssize_t number)
{
    return PyTuple_GET_ITEM(PyList_GET_ITEM(division->shares, number), 1);
}

/* Return the number of the last share of an index, -1 if there is none, or -2 after an exception. */
static Py_ssize_t lastOf(const Division *division, PyObject *index, Py_ssize_t at)
{
    if (at >= 0 && at < FEW)
        return division->last[at];
    PyObject *number = PyDict_GetItemWithError(division->others, index);
    if (number == NULL)
        return PyErr_Occurred() ? -2 : -1;
    return PyLong_AsSsize_t(number);
}

/* Begin a share for an index. False, with an exception, if that fails. */
static bool addShare(Division *division, PyObject *index, Py_ssize_t at, PyObject *number)
{
    PyObject *keys = PyList_New(0);
    PyObject *share = keys != NULL ? PyTuple_Pack(2, index, keys) : NULL;
    bool added = share != NULL && PyList_Append(division->shares, share) == 0;
    Py_XDECREF(share);
    Py_XDECREF(keys);
    if (!added)
        return false;
    if (at < 0 || at >= FEW)
        return PyDict_SetItem(division->others, index, number) == 0;
    division->last[at] = PyList_GET_SIZE(division->shares) - 1;
    return true;
}

/* Add a key to the share of its index. False, with an exception, if that fails. */
static bool addKey(Division *division, PyObject *index, PyObject *key)
{
    if (!PyLong_Check(index)) {
        PyErr_SetString(PyExc_TypeError, "divideKeys: expected an index");
        return false;
    }
    int isLarge;
    Py_ssize_t at = (Py_ssize_t)PyLong_AsLongAndOverflow(index, &isLarge);
    if (isLarge)
        at = -1;
    Py_ssize_t number = lastOf(division, index, at);
    if (number == -2)
        return false;
    bool isNew = number < 0 || PyList_GET_SIZE(keysOf(division, number)) >= division->most;
    if (isNew)
        number = PyList_GET_SIZE(division->shares);
    PyObject *item = PyLong_FromSsize_t(number);
    bool added = item != NULL && (!isNew || addShare(division, index, at, item)) &&
                 PyList_Append(keysOf(division, number), key) == 0 && PyList_Append(division->order, item) == 0;
    Py_XDECREF(item);
    return added;
}

/* Find the index of a key: NULL with an exception if that fails. A key that is not in the cache is found in Python. */
static PyObject *indexOf(PyObject *cached, PyObject *key)
{
    if (PyDict_Check(cached)) {
        PyObject *index = PyDict_GetItemWithError(cached, key);
        if (index != NULL)
            return Py_NewRef(index);
        if (PyErr_Occurred())
            return NULL;
    }
    return PyObject_GetItem(cached, key);
}

/* Divide the keys. What finds a key in Python might change the list. */
static bool divide(Division *division, PyObject *keys, PyObject *cached)
{
    for (Py_ssize_t at = 0; at < PyList_GET_SIZE(keys); at++) {
        PyObject *key = Py_NewRef(PyList_GET_ITEM(keys, at));
        PyObject *index = indexOf(cached, key);
        bool added = index != NULL && addKey(division, index, key);
        Py_XDECREF(index);
        Py_DECREF(key);
        if (!added)
            return false;
    }
    return true;
}

PyObject *divideKeys(PyObject *Py_UNUSED(module), Arguments arguments, Py_ssize_t count)
{
    Division division;
    if (!hasArguments("divideKeys", count, 3) || !readSize(arguments[2], &division.most))
        return NULL;
    if (!PyList_Check(arguments[0])) {
        PyErr_SetString(PyExc_TypeError, "divideKeys: expected a list of keys");
        return NULL;
    }
    for (int at = 0; at < FEW; at++)
        division.last[at] = -1;
    division.order = PyList_New(0);
    division.shares = PyList_New(0);
    division.others = PyDict_New();
    PyObject *result = NULL;
    if (division.order != NULL && division.shares != NULL && division.others != NULL &&
        divide(&division, arguments[0], arguments[1]))
        result = PyTuple_Pack(2, division.order, division.shares);
    Py_XDECREF(division.order);
    Py_XDECREF(division.shares);
    Py_XDECREF(division.others);
    return result;
}

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
