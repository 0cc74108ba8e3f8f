/* Copyright txconnpool contributors. See LICENSE. */

/* Finds keys and divides requests among servers, see txconnpool/wire/memcache/lines.py, and `divideWords` of
   txconnpool/wire/redis/framing.py. */

#include "resp.h"
#include "search.h"

/* The indexes below this one are found in an array. */
#define FEW 128

/* A key of a request, the bytes that are copied for it, and the number of its share. */
typedef struct {
    const char *at;
    Py_ssize_t size;
    const char *from;
    Py_ssize_t length;
    Py_ssize_t share;
} Key;

/* The keys of one server. `to` is where the next one is written. */
typedef struct {
    PyObject *index;
    Py_ssize_t count;
    Py_ssize_t size; /* of the bytes that are copied */
    char *to;
} Share;

/* The keys and their shares. `ends` has for each request the number of keys up to its end. The requests for the shares
   begin with the bytes `before` the keys; those of Redis have a header too, and lines an end. `last` has the number of
   the last share of each index, or -1, and `others` that of indexes that are not in `last`. */
typedef struct {
    Key *keys;
    Py_ssize_t count;
    Py_ssize_t *ends;
    Py_ssize_t requests;
    Share *shares;
    Py_ssize_t shareCount;
    const char *before;
    Py_ssize_t beforeSize;
    bool isLine;
    PyObject *others;
    Py_ssize_t last[FEW];
} Division;

/* Find the keys in the text, at most one for two bytes. Each is copied with the byte after it. */
static void findKeys(Division *division, Text text)
{
    while (true) {
        while (skipByte(&text, ' '))
            ;
        if (text.at == text.end)
            return;
        const char *end = memchr(text.at, ' ', (size_t)remaining(&text));
        Key *key = &division->keys[division->count++];
        key->at = text.at;
        text.at = end != NULL ? end : text.end;
        key->size = text.at - key->at;
        key->from = key->at;
        key->length = key->size + 1;
    }
}

/* Find the index of a key: NULL with an exception if that fails. Without a search it is looked up in the dict, and in
   Python if it is not there. */
static PyObject *indexOf(PyObject *indexes, const Search *search, const Key *key)
{
    if (search->hash != NULL)
        return PyLong_FromLong(searchIndex(search, key->at, key->size));
    PyObject *bytes = PyBytes_FromStringAndSize(key->at, key->size), *index = NULL;
    if (bytes == NULL)
        return NULL;
    if (PyDict_Check(indexes))
        index = Py_XNewRef(PyDict_GetItemWithError(indexes, bytes));
    if (index == NULL && !PyErr_Occurred())
        index = PyObject_GetItem(indexes, bytes);
    Py_DECREF(bytes);
    if (index != NULL && !PyLong_Check(index)) {
        PyErr_SetString(PyExc_TypeError, "expected an index");
        Py_CLEAR(index);
    }
    return index;
}

/* Find the number of the last share of an index: -1 if there is none, -2 after an exception. */
static Py_ssize_t lastOf(const Division *division, PyObject *index, Py_ssize_t at)
{
    if (at >= 0 && at < FEW)
        return division->last[at];
    PyObject *number = PyDict_GetItemWithError(division->others, index);
    if (number == NULL)
        return PyErr_Occurred() ? -2 : -1;
    return PyLong_AsSsize_t(number);
}

/* Begin a share for an index, of which it takes over the reference. False, with an exception, if that fails. */
static bool addShare(Division *division, PyObject *index, Py_ssize_t at)
{
    Py_ssize_t number = division->shareCount++;
    division->shares[number].index = index;
    if (at >= 0 && at < FEW) {
        division->last[at] = number;
        return true;
    }
    PyObject *item = PyLong_FromSsize_t(number);
    bool added = item != NULL && PyDict_SetItem(division->others, index, item) == 0;
    Py_XDECREF(item);
    return added;
}

/* Find the shares of all keys. False, with an exception, if that fails. */
static bool findShares(Division *division, PyObject *indexes, const Search *search, Py_ssize_t most)
{
    for (Key *key = division->keys; key < division->keys + division->count; key++) {
        PyObject *index = indexOf(indexes, search, key);
        if (index == NULL)
            return false;
        int isLarge;
        Py_ssize_t at = (Py_ssize_t)PyLong_AsLongAndOverflow(index, &isLarge);
        if (isLarge)
            at = -1;
        key->share = lastOf(division, index, at);
        if (key->share == -1 || (key->share >= 0 && division->shares[key->share].count >= most)) {
            key->share = division->shareCount;
            if (!addShare(division, index, at))
                return false;
        } else {
            Py_DECREF(index);
            if (key->share < 0)
                return false;
        }
        Share *share = &division->shares[key->share];
        share->count++;
        share->size += key->length;
    }
    return true;
}

/* Return the list of the numbers of the shares of some keys. */
static PyObject *orderOf(const Key *keys, Py_ssize_t count)
{
    PyObject *order = PyList_New(count);
    for (Py_ssize_t at = 0; order != NULL && at < count; at++) {
        PyObject *number = PyLong_FromSsize_t(keys[at].share);
        if (number == NULL)
            Py_CLEAR(order);
        else
            PyList_SET_ITEM(order, at, number);
    }
    return order;
}

/* Return the list of such a list for each request. */
static PyObject *ordersOf(const Division *division)
{
    PyObject *orders = PyList_New(division->requests);
    Py_ssize_t start = 0;
    for (Py_ssize_t at = 0; orders != NULL && at < division->requests; at++) {
        PyObject *order = orderOf(division->keys + start, division->ends[at] - start);
        if (order == NULL)
            Py_CLEAR(orders);
        else
            PyList_SET_ITEM(orders, at, order);
        start = division->ends[at];
    }
    return orders;
}

/* Return the list of the shares, whose requests have the bytes before their keys only. */
static PyObject *beginRequests(Division *division)
{
    PyObject *found = PyList_New(division->shareCount);
    for (Py_ssize_t at = 0; found != NULL && at < division->shareCount; at++) {
        Share *share = &division->shares[at];
        char header[HEADER_MAX];
        Py_ssize_t size = division->isLine ? 0 : writeHeader(header, '*', share->count + 1);
        PyObject *request = PyBytes_FromStringAndSize(NULL, size + division->beforeSize + share->size + division->isLine);
        PyObject *item = request != NULL ? Py_BuildValue("ONn", share->index, request, share->count) : NULL;
        if (item == NULL) {
            Py_CLEAR(found);
            break;
        }
        share->to = PyBytes_AS_STRING(request);
        memcpy(share->to, header, (size_t)size);
        memcpy(share->to + size, division->before, (size_t)division->beforeSize);
        share->to += size + division->beforeSize;
        PyList_SET_ITEM(found, at, item);
    }
    return found;
}

/* Write the keys, and the ends of lines in place of the byte after the last key. In lines a space is after each other
   key, which may have been the last one of its request. */
static void writeKeys(Division *division)
{
    for (const Key *key = division->keys; key < division->keys + division->count; key++) {
        Share *share = &division->shares[key->share];
        memcpy(share->to, key->from, (size_t)key->length);
        share->to += key->length;
        if (division->isLine)
            share->to[-1] = ' ';
    }
    for (Share *share = division->shares; division->isLine && share < division->shares + division->shareCount; share++)
        memcpy(share->to - 1, "\r\n", 2);
}

/* Divide the keys that were found. */
static PyObject *divide(Division *division, PyObject *indexes, Py_ssize_t most)
{
    Search search;
    bool found = openSearch(indexes, &search) && findShares(division, indexes, &search, most);
    Py_XDECREF(search.held);
    if (!found)
        return NULL;
    PyObject *orders = ordersOf(division);
    PyObject *shares = orders != NULL ? beginRequests(division) : NULL;
    if (shares == NULL) {
        Py_XDECREF(orders);
        return NULL;
    }
    writeKeys(division);
    return Py_BuildValue("NN", orders, shares);
}

/* Begin the division of so many requests with at most so many keys in all. False, with an exception, if that fails. */
static bool begin(Division *division, Py_ssize_t requests, Py_ssize_t room)
{
    division->keys = PyMem_Malloc(((size_t)room + 1) * sizeof(Key));
    division->shares = PyMem_Calloc((size_t)room + 1, sizeof(Share));
    division->ends = PyMem_Malloc(((size_t)requests + 1) * sizeof *division->ends);
    division->others = PyDict_New();
    for (int at = 0; at < FEW; at++)
        division->last[at] = -1;
    if (division->keys == NULL || division->shares == NULL || division->ends == NULL)
        PyErr_NoMemory();
    return !PyErr_Occurred();
}

static void end(Division *division)
{
    for (Py_ssize_t at = 0; at < division->shareCount; at++)
        Py_DECREF(division->shares[at].index);
    PyMem_Free(division->keys);
    PyMem_Free(division->shares);
    PyMem_Free(division->ends);
    Py_XDECREF(division->others);
}

/* Return a tuple of the requests in a list, which the dict of indexes cannot change, and the number of their bytes. NULL,
   with an exception, if it is no list of requests. */
static PyObject *requestsOf(PyObject *list, Py_ssize_t *size)
{
    PyObject *requests = PyList_Check(list) ? PyList_AsTuple(list) : NULL;
    *size = 0;
    for (Py_ssize_t at = 0; requests != NULL && at < PyTuple_GET_SIZE(requests); at++) {
        PyObject *request = PyTuple_GET_ITEM(requests, at);
        if (PyBytes_Check(request))
            *size += PyBytes_GET_SIZE(request);
        else
            Py_CLEAR(requests);
    }
    if (requests == NULL && !PyErr_Occurred())
        PyErr_SetString(PyExc_TypeError, "expected a list of requests");
    return requests;
}

/* Find the keys of all lines. False if one of them has other bytes before its keys. */
static bool findLines(Division *division, PyObject *requests)
{
    for (Py_ssize_t at = 0; at < PyTuple_GET_SIZE(requests); at++) {
        PyObject *request = PyTuple_GET_ITEM(requests, at);
        Text text = {PyBytes_AS_STRING(request), PyBytes_AS_STRING(request) + PyBytes_GET_SIZE(request)};
        if (!skip(&text, division->before, division->beforeSize))
            return false;
        text.end -= remaining(&text) >= 2 ? 2 : remaining(&text);
        findKeys(division, text);
        division->ends[division->requests++] = division->count;
    }
    return true;
}

PyObject *divideLines(PyObject *Py_UNUSED(module), Arguments arguments, Py_ssize_t count)
{
    Py_ssize_t size, most;
    if (!hasArguments("divideLines", count, 4) || !readSize(arguments[3], &most))
        return NULL;
    PyObject *before = arguments[1];
    if (!PyBytes_Check(before)) {
        PyErr_SetString(PyExc_TypeError, "divideLines: expected bytes before the keys");
        return NULL;
    }
    PyObject *requests = requestsOf(arguments[0], &size);
    if (requests == NULL)
        return NULL;
    Division division = {
        .before = PyBytes_AS_STRING(before), .beforeSize = PyBytes_GET_SIZE(before), .isLine = true};
    PyObject *result = NULL;
    /* Each key but the first of a line has a space before it. */
    if (begin(&division, PyTuple_GET_SIZE(requests), size / 2 + PyTuple_GET_SIZE(requests)))
        result = findLines(&division, requests) ? divide(&division, arguments[2], most) : Py_NewRef(Py_None);
    end(&division);
    Py_DECREF(requests);
    return result;
}

PyObject *plainKey(PyObject *Py_UNUSED(module), Arguments arguments, Py_ssize_t count)
{
    Text text;
    if (!hasArguments("plainKey", count, 3))
        return NULL;
    PyObject *before = arguments[2];
    if (!openText(arguments[0], arguments[1], &text) || !PyBytes_Check(before)) {
        PyErr_SetString(PyExc_TypeError, "plainKey: expected bytes, a position in them, and bytes");
        return NULL;
    }
    if (!skip(&text, PyBytes_AS_STRING(before), PyBytes_GET_SIZE(before)))
        Py_RETURN_NONE;
    const char *end = memchr(text.at, '\n', (size_t)remaining(&text));
    if (end == NULL)
        Py_RETURN_NONE;
    const char *space = memchr(text.at, ' ', (size_t)(end - text.at));
    if (space != NULL)
        end = space;
    else if (end > text.at && end[-1] == '\r')
        end--;
    return end > text.at ? PyBytes_FromStringAndSize(text.at, end - text.at) : Py_NewRef(Py_None);
}

/* Find words that are keys, each of which is copied with the line before it. False if they are not usual. */
static bool findWords(Division *division, Text *text, Py_ssize_t number)
{
    for (; number > 0; number--) {
        Key *key = &division->keys[division->count++];
        key->from = text->at;
        if (!skipHeader(text, '$', 9, &key->size))
            return false;
        key->at = text->at;
        if (!skipString(text, key->size))
            return false;
        key->length = text->at - key->from;
    }
    return true;
}

/* Find the keys of all requests. False if one of them is not usual. */
static bool findArrays(Division *division, PyObject *requests)
{
    for (Py_ssize_t at = 0; at < PyTuple_GET_SIZE(requests); at++) {
        PyObject *request = PyTuple_GET_ITEM(requests, at);
        Text text = {PyBytes_AS_STRING(request), PyBytes_AS_STRING(request) + PyBytes_GET_SIZE(request)};
        Py_ssize_t number, size;
        if (!skipHeader(&text, '*', 6, &number) || number == 0 || number > remaining(&text) ||
            !skipHeader(&text, '$', 9, &size) || !skipString(&text, size) || !findWords(division, &text, number - 1))
            return false;
        division->ends[division->requests++] = division->count;
    }
    return true;
}

PyObject *divideWords(PyObject *Py_UNUSED(module), Arguments arguments, Py_ssize_t count)
{
    Py_ssize_t size, most;
    if (!hasArguments("divideWords", count, 4) || !readSize(arguments[3], &most))
        return NULL;
    PyObject *name = arguments[1];
    if (!PyBytes_Check(name)) {
        PyErr_SetString(PyExc_TypeError, "divideWords: expected a name");
        return NULL;
    }
    PyObject *requests = requestsOf(arguments[0], &size);
    if (requests == NULL)
        return NULL;
    Division division = {.before = PyBytes_AS_STRING(name), .beforeSize = PyBytes_GET_SIZE(name)};
    PyObject *result = NULL;
    /* Each key has at least five bytes: $0, CR LF, CR LF. */
    if (begin(&division, PyTuple_GET_SIZE(requests), size / 5))
        result = findArrays(&division, requests) ? divide(&division, arguments[2], most) : Py_NewRef(Py_None);
    end(&division);
    Py_DECREF(requests);
    return result;
}
