/* Copyright txconnpool contributors. See LICENSE. */

/* Divides keys among servers, see `divideKeys` of txconnpool.routing.distribution.keymap. */

#include "txconnpool.h"

/* The results: the number of the share of each key, the shares, and the number of the last share of each index. */
typedef struct {
    PyObject *order;
    PyObject *shares;
    PyObject *last;
    Py_ssize_t most;
} Division;

/* Return the keys of a share. */
static PyObject *keysOf(const Division *division, Py_ssize_t number)
{
    return PyTuple_GET_ITEM(PyList_GET_ITEM(division->shares, number), 1);
}

/* Begin a share for an index. False, with an exception, if that fails. */
static bool addShare(Division *division, PyObject *index, PyObject *number)
{
    PyObject *keys = PyList_New(0);
    PyObject *share = keys != NULL ? PyTuple_Pack(2, index, keys) : NULL;
    bool added = share != NULL && PyList_Append(division->shares, share) == 0 &&
                 PyDict_SetItem(division->last, index, number) == 0;
    Py_XDECREF(share);
    Py_XDECREF(keys);
    return added;
}

/* Add a key to the share of its index. False, with an exception, if that fails. */
static bool addKey(Division *division, PyObject *index, PyObject *key)
{
    PyObject *number = PyDict_GetItemWithError(division->last, index);
    if (number == NULL && PyErr_Occurred())
        return false;
    Py_ssize_t at = number != NULL ? PyLong_AsSsize_t(number) : -1;
    bool isNew = at < 0 || PyList_GET_SIZE(keysOf(division, at)) >= division->most;
    if (isNew) {
        at = PyList_GET_SIZE(division->shares);
        number = PyLong_FromSsize_t(at);
        if (number == NULL || !addShare(division, index, number)) {
            Py_XDECREF(number);
            return false;
        }
    }
    bool added = PyList_Append(keysOf(division, at), key) == 0 && PyList_Append(division->order, number) == 0;
    if (isNew)
        Py_DECREF(number);
    return added;
}

/* Divide the keys. A key that is not in the cache is found in Python, which might change the list. */
static bool divide(Division *division, PyObject *keys, PyObject *cached)
{
    for (Py_ssize_t at = 0; at < PyList_GET_SIZE(keys); at++) {
        PyObject *key = Py_NewRef(PyList_GET_ITEM(keys, at));
        PyObject *index = PyObject_GetItem(cached, key);
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
    division.order = PyList_New(0);
    division.shares = PyList_New(0);
    division.last = PyDict_New();
    PyObject *result = NULL;
    if (division.order != NULL && division.shares != NULL && division.last != NULL &&
        divide(&division, arguments[0], arguments[1]))
        result = PyTuple_Pack(2, division.order, division.shares);
    Py_XDECREF(division.order);
    Py_XDECREF(division.shares);
    Py_XDECREF(division.last);
    return result;
}
