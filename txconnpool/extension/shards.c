/* Copyright txconnpool contributors. See LICENSE. */

/* Divides keys among servers, see `divideKeys` of txconnpool.routing.distribution.keymap. */

#include "txconnpool.h"

/* Add a key to the list of an index, which is made if there is none. False, with an exception, if that fails. */
static bool addKey(PyObject *shares, PyObject *index, PyObject *key)
{
    PyObject *share = PyDict_GetItemWithError(shares, index);
    if (share != NULL)
        return PyList_Append(share, key) == 0;
    if (PyErr_Occurred() || (share = PyList_New(0)) == NULL)
        return false;
    bool added = PyList_Append(share, key) == 0 && PyDict_SetItem(shares, index, share) == 0;
    Py_DECREF(share);
    return added;
}

PyObject *divideKeys(PyObject *Py_UNUSED(module), Arguments arguments, Py_ssize_t count)
{
    if (!hasArguments("divideKeys", count, 2))
        return NULL;
    PyObject *keys = arguments[0], *cached = arguments[1];
    if (!PyList_Check(keys)) {
        PyErr_SetString(PyExc_TypeError, "divideKeys: expected a list of keys");
        return NULL;
    }
    PyObject *shares = PyDict_New();
    if (shares == NULL)
        return NULL;
    /* A key that is not in the cache is found in Python, which might change the list. */
    for (Py_ssize_t at = 0; at < PyList_GET_SIZE(keys); at++) {
        PyObject *key = Py_NewRef(PyList_GET_ITEM(keys, at));
        PyObject *index = PyObject_GetItem(cached, key);
        bool added = index != NULL && addKey(shares, index, key);
        Py_XDECREF(index);
        Py_DECREF(key);
        if (!added) {
            Py_DECREF(shares);
            return NULL;
        }
    }
    return shares;
}
