/* Copyright txconnpool contributors. See LICENSE. */

/* Divides a request that is a line among servers, see `divideLine` of txconnpool/wire/memcache/lines.py. */

#include "txconnpool.h"

/* The indexes below this one are found in an array. */
#define FEW 128

/* A key of the request, and the number of its share. */
typedef struct {
    const char *at;
    Py_ssize_t size;
    Py_ssize_t share;
} Key;

/* The keys of one server. `to` is where the next one is written. */
typedef struct {
    PyObject *index;
    Py_ssize_t count;
    Py_ssize_t size; /* of the keys, each with the byte after it */
    char *to;
} Share;

/* The keys and their shares. `last` has the number of the last share of each index, or -1, and `others` that of indexes
   that are not in `last`. */
typedef struct {
    Key *keys;
    Py_ssize_t count;
    Share *shares;
    Py_ssize_t shareCount;
    PyObject *others;
    Py_ssize_t last[FEW];
} Line;

/* Find the keys in the text, at most one for two bytes. */
static void findKeys(Line *line, Text text)
{
    while (true) {
        while (skipByte(&text, ' '))
            ;
        if (text.at == text.end)
            return;
        const char *end = memchr(text.at, ' ', (size_t)remaining(&text));
        Key *key = &line->keys[line->count++];
        key->at = text.at;
        text.at = end != NULL ? end : text.end;
        key->size = text.at - key->at;
    }
}

/* Find the index of a key: NULL with an exception if that fails. A key that is not in the dict is found in Python. */
static PyObject *indexOf(PyObject *indexes, const Key *key)
{
    PyObject *bytes = PyBytes_FromStringAndSize(key->at, key->size), *index = NULL;
    if (bytes == NULL)
        return NULL;
    if (PyDict_Check(indexes))
        index = Py_XNewRef(PyDict_GetItemWithError(indexes, bytes));
    if (index == NULL && !PyErr_Occurred())
        index = PyObject_GetItem(indexes, bytes);
    Py_DECREF(bytes);
    if (index != NULL && !PyLong_Check(index)) {
        PyErr_SetString(PyExc_TypeError, "divideLine: expected an index");
        Py_CLEAR(index);
    }
    return index;
}

/* Find the number of the last share of an index: -1 if there is none, -2 after an exception. */
static Py_ssize_t lastOf(const Line *line, PyObject *index, Py_ssize_t at)
{
    if (at >= 0 && at < FEW)
        return line->last[at];
    PyObject *number = PyDict_GetItemWithError(line->others, index);
    if (number == NULL)
        return PyErr_Occurred() ? -2 : -1;
    return PyLong_AsSsize_t(number);
}

/* Begin a share for an index, of which it takes over the reference. False, with an exception, if that fails. */
static bool addShare(Line *line, PyObject *index, Py_ssize_t at)
{
    Py_ssize_t number = line->shareCount++;
    line->shares[number].index = index;
    if (at >= 0 && at < FEW) {
        line->last[at] = number;
        return true;
    }
    PyObject *item = PyLong_FromSsize_t(number);
    bool added = item != NULL && PyDict_SetItem(line->others, index, item) == 0;
    Py_XDECREF(item);
    return added;
}

/* Find the shares of all keys. False, with an exception, if that fails. */
static bool findShares(Line *line, PyObject *indexes, Py_ssize_t most)
{
    for (Key *key = line->keys; key < line->keys + line->count; key++) {
        PyObject *index = indexOf(indexes, key);
        if (index == NULL)
            return false;
        int isLarge;
        Py_ssize_t at = (Py_ssize_t)PyLong_AsLongAndOverflow(index, &isLarge);
        if (isLarge)
            at = -1;
        key->share = lastOf(line, index, at);
        if (key->share == -1 || (key->share >= 0 && line->shares[key->share].count >= most)) {
            key->share = line->shareCount;
            if (!addShare(line, index, at))
                return false;
        } else {
            Py_DECREF(index);
            if (key->share < 0)
                return false;
        }
        Share *share = &line->shares[key->share];
        share->count++;
        share->size += key->size + 1;
    }
    return true;
}

/* Return the list of the numbers of the shares. */
static PyObject *orderOf(const Line *line)
{
    PyObject *order = PyList_New(line->count);
    for (Py_ssize_t at = 0; order != NULL && at < line->count; at++) {
        PyObject *number = PyLong_FromSsize_t(line->keys[at].share);
        if (number == NULL)
            Py_CLEAR(order);
        else
            PyList_SET_ITEM(order, at, number);
    }
    return order;
}

/* Return the list of the shares, whose requests have the bytes before their keys only. */
static PyObject *beginRequests(Line *line, const char *before, Py_ssize_t size)
{
    PyObject *found = PyList_New(line->shareCount);
    for (Py_ssize_t at = 0; found != NULL && at < line->shareCount; at++) {
        Share *share = &line->shares[at];
        PyObject *request = PyBytes_FromStringAndSize(NULL, size + share->size + 1);
        PyObject *item = request != NULL ? Py_BuildValue("ONn", share->index, request, share->count) : NULL;
        if (item == NULL) {
            Py_CLEAR(found);
            break;
        }
        share->to = PyBytes_AS_STRING(request);
        memcpy(share->to, before, (size_t)size);
        share->to += size;
        PyList_SET_ITEM(found, at, item);
    }
    return found;
}

/* Write the keys, each with a space after it, and in place of the last space the line end. */
static void writeKeys(Line *line)
{
    for (const Key *key = line->keys; key < line->keys + line->count; key++) {
        Share *share = &line->shares[key->share];
        memcpy(share->to, key->at, (size_t)key->size);
        share->to += key->size;
        *share->to++ = ' ';
    }
    for (Share *share = line->shares; share < line->shares + line->shareCount; share++)
        memcpy(share->to - 1, "\r\n", 2);
}

/* Divide a request. */
static PyObject *divide(Line *line, Text text, Py_ssize_t keyAt, PyObject *indexes, Py_ssize_t most)
{
    const char *before = text.at;
    text.at += keyAt;
    text.end -= 2;
    findKeys(line, text);
    if (!findShares(line, indexes, most))
        return NULL;
    PyObject *order = orderOf(line);
    PyObject *found = order != NULL ? beginRequests(line, before, keyAt) : NULL;
    if (found == NULL) {
        Py_XDECREF(order);
        return NULL;
    }
    writeKeys(line);
    return Py_BuildValue("NN", order, found);
}

PyObject *divideLine(PyObject *Py_UNUSED(module), Arguments arguments, Py_ssize_t count)
{
    Py_ssize_t keyAt, most;
    Text text;
    if (!hasArguments("divideLine", count, 4) || !readSize(arguments[1], &keyAt) || !readSize(arguments[3], &most))
        return NULL;
    PyObject *request = arguments[0];
    if (!PyBytes_Check(request) || keyAt < 0 || keyAt + 2 > PyBytes_GET_SIZE(request)) {
        PyErr_SetString(PyExc_TypeError, "divideLine: expected a request and the position of its first key");
        return NULL;
    }
    text.at = PyBytes_AS_STRING(request);
    text.end = text.at + PyBytes_GET_SIZE(request);
    size_t room = (size_t)(PyBytes_GET_SIZE(request) - keyAt) / 2 + 1;
    Line line = {.keys = PyMem_Malloc(room * sizeof(Key)), .shares = PyMem_Calloc(room, sizeof(Share))};
    for (int at = 0; at < FEW; at++)
        line.last[at] = -1;
    line.others = PyDict_New();
    PyObject *result = NULL;
    if (line.keys == NULL || line.shares == NULL)
        PyErr_NoMemory();
    else if (line.others != NULL)
        result = divide(&line, text, keyAt, arguments[2], most);
    for (Py_ssize_t at = 0; at < line.shareCount; at++)
        Py_DECREF(line.shares[at].index);
    PyMem_Free(line.keys);
    PyMem_Free(line.shares);
    Py_XDECREF(line.others);
    return result;
}
