/* Copyright txconnpool contributors. See LICENSE. */

#include "search.h"

/* Read the parts of a search. It has nothing to search if they are not usual. False with an exception. */
static bool readSearch(PyObject *parts, Search *search)
{
    if (!PyTuple_Check(parts) || PyTuple_GET_SIZE(parts) != 5)
        return true;
    PyObject *points = PyTuple_GET_ITEM(parts, 3), *owners = PyTuple_GET_ITEM(parts, 4);
    Hash hash = hashOf(PyTuple_GET_ITEM(parts, 0));
    int isAfter = PyObject_IsTrue(PyTuple_GET_ITEM(parts, 2));
    unsigned long modulus = PyLong_AsUnsignedLong(PyTuple_GET_ITEM(parts, 1));
    if (PyErr_Occurred())
        return false;
    if (hash == NULL || modulus > UINT32_MAX || !PyBytes_Check(points) || !PyBytes_Check(owners))
        return true;
    search->count = PyBytes_GET_SIZE(points) / (Py_ssize_t)sizeof(uint32_t);
    if (PyBytes_GET_SIZE(owners) / (Py_ssize_t)sizeof(int32_t) <= search->count)
        return true;
    search->hash = hash;
    search->modulus = (uint32_t)modulus;
    search->isAfter = isAfter;
    search->points = PyBytes_AS_STRING(points);
    search->owners = PyBytes_AS_STRING(owners);
    return true;
}

bool openSearch(PyObject *indexes, Search *search)
{
    *search = (Search){.hash = NULL};
    search->held = PyObject_GetAttrString(indexes, "search");
    if (search->held != NULL)
        return readSearch(search->held, search);
    if (!PyErr_ExceptionMatches(PyExc_AttributeError))
        return false;
    PyErr_Clear(); /* any other map */
    return true;
}

int32_t searchIndex(const Search *search, const char *key, Py_ssize_t size)
{
    uint64_t value = search->hash((Bytes){(const unsigned char *)key, (size_t)size});
    if (search->modulus != 0)
        value %= search->modulus;
    value += search->isAfter;
    Py_ssize_t low = 0, high = search->count;
    while (low < high) {
        Py_ssize_t middle = low + (high - low) / 2;
        uint32_t point;
        memcpy(&point, search->points + middle * (Py_ssize_t)sizeof point, sizeof point);
        if (point < value)
            low = middle + 1;
        else
            high = middle;
    }
    int32_t owner;
    memcpy(&owner, search->owners + low * (Py_ssize_t)sizeof owner, sizeof owner);
    return owner;
}
