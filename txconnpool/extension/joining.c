/* Copyright txconnpool contributors. See LICENSE. */

/* Joins the values that several servers have for the keys of a request, see txconnpool/wire/joining.py. */

#include "txconnpool.h"

#include <stdint.h>

/* The most digits of a number, with the byte after them, and the most bytes of the head of a reply. */
#define DIGITS_MAX 24
#define HEAD_MAX 64

/* Bytes in an object. */
typedef struct {
    const char *at;
    Py_ssize_t size;
} Piece;

static Piece pieceOf(PyObject *bytes)
{
    return (Piece){PyBytes_AS_STRING(bytes), PyBytes_GET_SIZE(bytes)};
}

/* Copy bytes. Return the position after them. */
static char *copy(char *to, Piece piece)
{
    memcpy(to, piece.at, (size_t)piece.size);
    return to + piece.size;
}

/* The requests whose values are joined, see `joinEach`. */
typedef struct {
    PyObject *orders;
    PyObject *values;
    Py_ssize_t arrived;
    Text head;
    PyObject *between;
    PyObject *end;
    Py_ssize_t *used; /* for each list, how many of its values were passed */
    Piece *found;     /* the values for one request */
    bool *complete;   /* for each request, whether it is */
} Joint;

/* Find the number of a list. -1, with an exception, if it is none. */
static Py_ssize_t numberOf(const Joint *joint, PyObject *order, Py_ssize_t at)
{
    Py_ssize_t number = PyLong_AsSsize_t(PyList_GET_ITEM(order, at));
    if (number >= 0 && number < PyList_GET_SIZE(joint->values))
        return number;
    if (number != -1 || !PyErr_Occurred())
        PyErr_SetString(PyExc_IndexError, "joinEach: expected the number of a list");
    return -1;
}

/* Find out whether a request needs the list that has arrived, and whether it lacks others. False, with an exception, if
   that fails. */
static bool look(const Joint *joint, PyObject *order, bool *needs, bool *lacks)
{
    *needs = *lacks = false;
    for (Py_ssize_t at = 0; at < PyList_GET_SIZE(order) && !(*needs && *lacks); at++) {
        Py_ssize_t number = numberOf(joint, order, at);
        if (number < 0)
            return false;
        if (number == joint->arrived)
            *needs = true;
        if (PyList_GET_ITEM(joint->values, number) == Py_None)
            *lacks = true;
    }
    return true;
}

/* Find the requests that are complete. Return how many, -1 with an exception if that fails. `isLeft` is whether others
   need the list that has arrived. */
static Py_ssize_t findComplete(Joint *joint, bool *isLeft)
{
    Py_ssize_t count = 0;
    *isLeft = false;
    for (Py_ssize_t at = 0; at < PyList_GET_SIZE(joint->orders); at++) {
        bool needs, lacks;
        if (!look(joint, PyList_GET_ITEM(joint->orders, at), &needs, &lacks))
            return -1;
        joint->complete[at] = needs && !lacks;
        count += joint->complete[at];
        *isLeft = *isLeft || (needs && lacks);
    }
    return count;
}

/* Find a value in a list. False, with an exception, if there is none. */
static bool findListed(PyObject *list, Py_ssize_t at, Piece *value)
{
    PyObject *bytes = at < PyList_GET_SIZE(list) ? PyList_GET_ITEM(list, at) : NULL;
    if (bytes == NULL)
        PyErr_SetString(PyExc_ValueError, "joinEach: expected a value for each key");
    else if (!PyBytes_Check(bytes))
        PyErr_SetString(PyExc_TypeError, "joinEach: expected bytes");
    else {
        *value = pieceOf(bytes);
        return true;
    }
    return false;
}

/* Find a value in `Packed` values. False, with an exception, if there is none. */
static bool findPacked(PyObject *packed, Py_ssize_t at, Piece *value)
{
    PyObject *data = PyTuple_GET_ITEM(packed, 0), *ends = PyTuple_GET_ITEM(packed, 1);
    uint32_t start = 0, end;
    if ((at + 1) * (Py_ssize_t)sizeof end > PyBytes_GET_SIZE(ends)) {
        PyErr_SetString(PyExc_ValueError, "joinEach: expected a value for each key");
        return false;
    }
    const char *place = PyBytes_AS_STRING(ends) + at * (Py_ssize_t)sizeof end;
    if (at > 0)
        memcpy(&start, place - sizeof start, sizeof start);
    memcpy(&end, place, sizeof end);
    if (end < start || end > PyBytes_GET_SIZE(data)) {
        PyErr_SetString(PyExc_ValueError, "joinEach: expected the ends of values in their order");
        return false;
    }
    *value = (Piece){PyBytes_AS_STRING(data) + start, end - start};
    return true;
}

static bool isPacked(PyObject *values)
{
    return PyTuple_Check(values) && PyTuple_GET_SIZE(values) == 2 && PyBytes_Check(PyTuple_GET_ITEM(values, 0)) &&
           PyBytes_Check(PyTuple_GET_ITEM(values, 1));
}

/* Find the values for one request, as far as they are there, and the number of their bytes. False, with an exception, if
   that fails. */
static bool findEach(Joint *joint, PyObject *order, Py_ssize_t *size)
{
    *size = 0;
    for (Py_ssize_t at = 0; at < PyList_GET_SIZE(order); at++) {
        Py_ssize_t number = numberOf(joint, order, at);
        if (number < 0)
            return false;
        PyObject *values = PyList_GET_ITEM(joint->values, number);
        if (values == Py_None)
            continue;
        bool found = false;
        if (PyList_Check(values))
            found = findListed(values, joint->used[number]++, &joint->found[at]);
        else if (isPacked(values))
            found = findPacked(values, joint->used[number]++, &joint->found[at]);
        else
            PyErr_SetString(PyExc_TypeError, "joinEach: expected lists of values");
        if (!found)
            return false;
        *size += joint->found[at].size;
    }
    return true;
}

/* The position of the place for a number in the head of a reply. NULL if there is none. */
static const char *placeIn(Text head)
{
    while (remaining(&head) >= 2 && !follows(&head, "%d", 2))
        head.at++;
    return remaining(&head) >= 2 ? head.at : NULL;
}

/* Write the head of a reply to so many keys, if there is one. Return the number of its bytes, at most HEAD_MAX. */
static Py_ssize_t writeHead(Text head, Py_ssize_t keys, char *to)
{
    const char *place = placeIn(head);
    if (place == NULL)
        return 0;
    Py_ssize_t size = place - head.at, rest = head.end - place - 2;
    memcpy(to, head.at, (size_t)size);
    size += PyOS_snprintf(to + size, DIGITS_MAX, "%zd", keys);
    memcpy(to + size, place + 2, (size_t)rest);
    return size + rest;
}

/* Return the reply to a request with so many keys, whose values have so many bytes. */
static PyObject *joinFound(const Joint *joint, Py_ssize_t keys, Py_ssize_t size)
{
    char head[HEAD_MAX];
    Py_ssize_t headSize = writeHead(joint->head, keys, head);
    size += headSize + PyBytes_GET_SIZE(joint->end);
    if (keys > 1)
        size += (keys - 1) * PyBytes_GET_SIZE(joint->between);
    PyObject *reply = PyBytes_FromStringAndSize(NULL, size);
    if (reply == NULL)
        return NULL;
    char *to = PyBytes_AS_STRING(reply);
    memcpy(to, head, (size_t)headSize);
    to += headSize;
    for (Py_ssize_t at = 0; at < keys; at++) {
        if (at > 0)
            to = copy(to, pieceOf(joint->between));
        to = copy(to, joint->found[at]);
    }
    copy(to, pieceOf(joint->end));
    return reply;
}

/* Return the list of so many complete requests, with their replies. */
static PyObject *joinComplete(Joint *joint, Py_ssize_t count)
{
    PyObject *replies = PyList_New(count);
    Py_ssize_t done = 0;
    for (Py_ssize_t at = 0; replies != NULL && done < count; at++) {
        PyObject *order = PyList_GET_ITEM(joint->orders, at), *item = NULL;
        Py_ssize_t size;
        bool found = findEach(joint, order, &size);
        if (found && !joint->complete[at])
            continue;
        PyObject *reply = found ? joinFound(joint, PyList_GET_SIZE(order), size) : NULL;
        if (reply != NULL)
            item = Py_BuildValue("nN", at, reply);
        if (item == NULL)
            Py_CLEAR(replies);
        else
            PyList_SET_ITEM(replies, done++, item);
    }
    return replies;
}

/* The greatest number of keys of a request. -1, with an exception, if these are no lists. */
static Py_ssize_t mostKeys(PyObject *orders)
{
    Py_ssize_t most = 0;
    for (Py_ssize_t at = 0; at < PyList_GET_SIZE(orders); at++) {
        PyObject *order = PyList_GET_ITEM(orders, at);
        if (!PyList_Check(order)) {
            PyErr_SetString(PyExc_TypeError, "joinEach: expected lists of numbers");
            return -1;
        }
        if (PyList_GET_SIZE(order) > most)
            most = PyList_GET_SIZE(order);
    }
    return most;
}

/* The number of bytes of the values that have arrived. */
static Py_ssize_t sizeOf(PyObject *values)
{
    Py_ssize_t size = 0;
    if (isPacked(values))
        return PyBytes_GET_SIZE(PyTuple_GET_ITEM(values, 0));
    for (Py_ssize_t at = 0; PyList_Check(values) && at < PyList_GET_SIZE(values); at++) {
        PyObject *value = PyList_GET_ITEM(values, at);
        size += PyBytes_Check(value) ? PyBytes_GET_SIZE(value) : 0;
    }
    return size;
}

PyObject *joinEach(PyObject *Py_UNUSED(module), Arguments arguments, Py_ssize_t count)
{
    Py_ssize_t arrived, most;
    if (!hasArguments("joinEach", count, 6) || !readSize(arguments[2], &arrived))
        return NULL;
    Joint joint = {.orders = arguments[0], .values = arguments[1], .arrived = arrived, .between = arguments[4],
                   .end = arguments[5]};
    PyObject *head = arguments[3];
    if (!PyList_Check(joint.orders) || !PyList_Check(joint.values) || !PyBytes_Check(head) ||
        !PyBytes_Check(joint.between) || !PyBytes_Check(joint.end) || arrived < 0 ||
        arrived >= PyList_GET_SIZE(joint.values)) {
        PyErr_SetString(PyExc_TypeError, "joinEach: expected two lists, the number of a list of values and bytes");
        return NULL;
    }
    joint.head = (Text){PyBytes_AS_STRING(head), PyBytes_AS_STRING(head) + PyBytes_GET_SIZE(head)};
    if (remaining(&joint.head) > HEAD_MAX - DIGITS_MAX || (remaining(&joint.head) > 0 && placeIn(joint.head) == NULL)) {
        PyErr_SetString(PyExc_TypeError, "joinEach: expected a short head with a place for a number");
        return NULL;
    }
    if ((most = mostKeys(joint.orders)) < 0)
        return NULL;
    joint.used = PyMem_Calloc((size_t)PyList_GET_SIZE(joint.values) + 1, sizeof *joint.used);
    joint.found = PyMem_Calloc((size_t)most + 1, sizeof *joint.found);
    joint.complete = PyMem_Calloc((size_t)PyList_GET_SIZE(joint.orders) + 1, sizeof *joint.complete);
    PyObject *replies = NULL;
    bool isLeft = false;
    if (joint.used == NULL || joint.found == NULL || joint.complete == NULL)
        PyErr_NoMemory();
    else if ((count = findComplete(&joint, &isLeft)) >= 0)
        replies = joinComplete(&joint, count);
    PyMem_Free(joint.used);
    PyMem_Free(joint.found);
    PyMem_Free(joint.complete);
    if (replies == NULL)
        return NULL;
    return Py_BuildValue("Nn", replies, isLeft ? sizeOf(PyList_GET_ITEM(joint.values, arrived)) : 0);
}
