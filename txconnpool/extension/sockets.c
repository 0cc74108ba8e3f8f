/* Copyright txconnpool contributors. See LICENSE. */

/* System calls for many sockets, see txconnpool/net/sockets.py. The sockets do not block, so other threads wait for a
   moment only: the lock of the interpreter is kept. */

#include "txconnpool.h"

#ifdef __linux__

#include <errno.h>
#include <sys/epoll.h>
#include <sys/socket.h>

/* The number and the mask of an event. False, with an exception, if it is not a pair of integers. */
static bool readEvent(PyObject *event, int *number, long *mask)
{
    if (!PyTuple_Check(event) || PyTuple_GET_SIZE(event) != 2) {
        PyErr_SetString(PyExc_TypeError, "receiveEach: expected pairs of integers");
        return false;
    }
    long value = PyLong_AsLong(PyTuple_GET_ITEM(event, 0));
    *number = (int)value;
    *mask = PyLong_AsLong(PyTuple_GET_ITEM(event, 1));
    return !PyErr_Occurred();
}

/* Append a pair of an owner and bytes. False, with an exception, if that fails. */
static bool appendBytes(PyObject *arrived, PyObject *owner, const char *bytes, Py_ssize_t size)
{
    Py_INCREF(owner); /* the allocation of the pair may run the garbage collector */
    PyObject *data = PyBytes_FromStringAndSize(bytes, size);
    PyObject *pair = data == NULL ? NULL : PyTuple_Pack(2, owner, data);
    bool appended = pair != NULL && PyList_Append(arrived, pair) == 0;
    Py_DECREF(owner);
    Py_XDECREF(data);
    Py_XDECREF(pair);
    return appended;
}

/* Append what is left to the caller. False, with an exception, if that fails. */
static bool appendOther(PyObject *others, int number, long mask, int error)
{
    if (error == EAGAIN || error == EINTR)
        return true;
    PyObject *other = Py_BuildValue("ili", number, mask, error);
    bool appended = other != NULL && PyList_Append(others, other) == 0;
    Py_XDECREF(other);
    return appended;
}

/* Read from the sockets of the events from `at` on. Return the index of the next event, 0 if there is none, or -1 with
   an exception. */
static Py_ssize_t receive(PyObject *events, Py_ssize_t at, PyObject *owners, char *buffer, Py_ssize_t size,
                          Py_ssize_t most, PyObject *arrived, PyObject *others)
{
    for (; at < PyList_GET_SIZE(events); at++) {
        PyObject *event = PyList_GET_ITEM(events, at);
        int number;
        long mask;
        if (!readEvent(event, &number, &mask))
            return -1;
        PyObject *owner = mask == EPOLLIN ? PyDict_GetItemWithError(owners, PyTuple_GET_ITEM(event, 0)) : NULL;
        ssize_t got = owner == NULL ? -1 : recv(number, buffer, (size_t)size, 0);
        if (got >= 0) {
            if (!appendBytes(arrived, owner, buffer, got))
                return -1;
            most -= got;
            if (most <= 0 && at + 1 < PyList_GET_SIZE(events))
                return at + 1;
        } else if (PyErr_Occurred() || !appendOther(others, number, mask, owner == NULL ? 0 : errno))
            return -1;
    }
    return 0;
}

PyObject *receiveEach(PyObject *Py_UNUSED(module), Arguments arguments, Py_ssize_t count)
{
    Py_ssize_t start, size, most, next = -1;
    if (!hasArguments("receiveEach", count, 5) || !readSize(arguments[1], &start) || !readSize(arguments[3], &size) ||
        !readSize(arguments[4], &most))
        return NULL;
    if (!PyList_Check(arguments[0]) || !PyDict_Check(arguments[2]) || start < 0 || size < 1) {
        PyErr_SetString(PyExc_TypeError, "receiveEach: expected a list, an index, a dict and a size");
        return NULL;
    }
    PyObject *arrived = PyList_New(0), *others = PyList_New(0), *result = NULL;
    char *buffer = PyMem_Malloc((size_t)size);
    if (buffer == NULL)
        PyErr_NoMemory();
    else if (arrived != NULL && others != NULL)
        next = receive(arguments[0], start, arguments[2], buffer, size, most, arrived, others);
    PyMem_Free(buffer);
    if (next >= 0)
        result = Py_BuildValue("OOn", arrived, others, next);
    Py_XDECREF(arrived);
    Py_XDECREF(others);
    return result;
}

/* Write bytes. Return how many were taken, or the negative errno. */
static Py_ssize_t sendBytes(int number, const char *bytes, Py_ssize_t size)
{
    ssize_t sent = send(number, bytes, (size_t)size, MSG_NOSIGNAL);
    return sent < 0 ? -errno : sent;
}

/* Write one piece, which may be a memoryview. False with an exception if it has no bytes. */
static bool sendOne(int number, PyObject *piece, Py_ssize_t *sent)
{
    Py_buffer view;
    if (PyObject_GetBuffer(piece, &view, PyBUF_SIMPLE) < 0)
        return false;
    *sent = sendBytes(number, view.buf, view.len);
    PyBuffer_Release(&view);
    return true;
}

PyObject *sendJoined(PyObject *Py_UNUSED(module), Arguments arguments, Py_ssize_t count)
{
    Py_ssize_t number, sent = 0;
    if (!hasArguments("sendJoined", count, 2) || !readSize(arguments[0], &number))
        return NULL;
    PyObject *pieces = arguments[1];
    if (!PyList_Check(pieces) || PyList_GET_SIZE(pieces) == 0) {
        PyErr_SetString(PyExc_TypeError, "sendJoined: expected a list of pieces");
        return NULL;
    }
    PyObject *piece;
    if (PyList_GET_SIZE(pieces) == 1)
        piece = Py_NewRef(PyList_GET_ITEM(pieces, 0));
    else {
        PyObject *empty = PyBytes_FromStringAndSize(NULL, 0);
        piece = empty == NULL ? NULL : PyObject_CallMethod(empty, "join", "O", pieces);
        Py_XDECREF(empty);
    }
    bool done = piece != NULL && sendOne((int)number, piece, &sent);
    Py_XDECREF(piece);
    return done ? PyLong_FromSsize_t(sent) : NULL;
}

#endif
