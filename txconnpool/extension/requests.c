/* Copyright txconnpool contributors. See LICENSE. */

/* Finds the most common requests of memcached's text protocol, see txconnpool/wire/memcache/common.py. */

#include "txconnpool.h"

/* The most keys of a request, and the most single gets that are merged (PART_KEYS). */
#define KEYS_MAX 50

/* The lengths of the keys of a get with several, spaces included. */
#define KEYS_SIZE_MIN 3
#define KEYS_SIZE_MAX 2001

/* The items of the argument `accepted`: a command, or None if such requests are not accepted. */
enum {
    GET, GET_SEVERAL, GETS, MG, MG_VALUE, SET, SET_SILENT, DELETE, DELETE_SILENT, INCR, INCR_SILENT, DECR, DECR_SILENT,
    TOUCH, TOUCH_SILENT, COMMANDS
};

/* One request: where it begins, the next byte, and the arguments. */
typedef struct {
    Text text;
    const char *start;
    PyObject *data;
    PyObject *accepted;
    Py_ssize_t room;
    Py_ssize_t maxItemSize;
} Request;

/* Skip a key without control characters. Return its length; 0 if there is none, or it is too long. */
static Py_ssize_t skipKey(Text *text)
{
    const char *start = text->at;
    while (text->at < text->end && (unsigned char)*text->at > ' ') {
        if (text->at - start == KEY_MAX)
            return 0;
        text->at++;
    }
    return text->at - start;
}

/* Make a frame of the bytes up to the next one. Steals the reference to the payload; NULL: the bytes are sent. */
static PyObject *frame(const Request *request, int which, Py_ssize_t count, PyObject *payload)
{
    PyObject *command = PyTuple_GET_ITEM(request->accepted, which);
    if (command == Py_None) {
        Py_XDECREF(payload);
        Py_RETURN_NONE;
    }
    PyObject *result = PyTuple_New(4);
    PyObject *end = PyLong_FromSsize_t(request->text.at - PyBytes_AS_STRING(request->data));
    PyObject *number = PyLong_FromSsize_t(count);
    if (result == NULL || end == NULL || number == NULL) {
        Py_XDECREF(result);
        Py_XDECREF(end);
        Py_XDECREF(number);
        Py_XDECREF(payload);
        return NULL;
    }
    PyTuple_SET_ITEM(result, 0, Py_NewRef(command));
    PyTuple_SET_ITEM(result, 1, end);
    PyTuple_SET_ITEM(result, 2, number);
    PyTuple_SET_ITEM(result, 3, payload != NULL ? payload : Py_NewRef(Py_None));
    return result;
}

/* Make a frame with a payload of two pieces of the request. */
static PyObject *joined(const Request *request, int which, const char *end, const char *from)
{
    Py_ssize_t first = end - request->start, second = request->text.at - from;
    PyObject *payload = PyBytes_FromStringAndSize(NULL, first + second);
    if (payload == NULL)
        return NULL;
    memcpy(PyBytes_AS_STRING(payload), request->start, (size_t)first);
    memcpy(PyBytes_AS_STRING(payload) + first, from, (size_t)second);
    return frame(request, which, 1, payload);
}

/* A key of a request. */
typedef struct {
    const char *at;
    Py_ssize_t size;
} Key;

static bool isAmong(const Key *key, const Key *keys, Py_ssize_t count)
{
    for (Py_ssize_t i = 0; i < count; i++)
        if (keys[i].size == key->size && memcmp(keys[i].at, key->at, (size_t)key->size) == 0)
            return true;
    return false;
}

/* Make a frame of consecutive single gets, of which the first is read. It ends before a key that occurs in it. */
static PyObject *run(Request *request, Py_ssize_t size)
{
    Key keys[KEYS_MAX];
    Py_ssize_t count = 1, most = request->room < KEYS_MAX ? request->room : KEYS_MAX;
    Py_ssize_t bytes = size;
    keys[0] = (Key){request->start + 4, size};
    while (count < most) {
        Text text = request->text;
        if (!skip(&text, "get ", 4))
            break;
        Key key = {text.at, skipKey(&text)};
        if (key.size == 0 || !skipLineEnd(&text) || isAmong(&key, keys, count))
            break;
        keys[count++] = key;
        bytes += 1 + key.size;
        request->text = text;
    }
    if (count == 1)
        return frame(request, GET, 1, NULL);
    PyObject *payload = PyBytes_FromStringAndSize(NULL, 6 + bytes);
    if (payload == NULL)
        return NULL;
    char *to = PyBytes_AS_STRING(payload);
    memcpy(to, "get", 3);
    to += 3;
    for (Py_ssize_t i = 0; i < count; i++) {
        *to++ = ' ';
        memcpy(to, keys[i].at, (size_t)keys[i].size);
        to += keys[i].size;
    }
    memcpy(to, "\r\n", 2);
    return frame(request, GET, count, payload);
}

/* Make a frame of a get whose line begins at its first key, if that is not a single usual key. */
static PyObject *severalKeys(Request *request)
{
    Text text = {request->start + 4, request->text.end};
    const char *first = text.at;
    Py_ssize_t size = skipUntil(&text, '\n', KEYS_SIZE_MAX + 1) - 1; /* without the CR */
    if (size < KEYS_SIZE_MIN || size > KEYS_SIZE_MAX || first[size] != '\r' || *first == ' ' || *first == '\r')
        Py_RETURN_NONE;
    int spaces = 0;
    const char *key = first;
    for (const char *at = first; at < first + size; at++) {
        if (*at == ' ') {
            if (++spaces == KEYS_MAX)
                Py_RETURN_NONE;
            key = at + 1;
        } else if (*at == '\0' || at - key == KEY_MAX) {
            Py_RETURN_NONE;
        }
    }
    request->text.at = text.at + 1;
    return frame(request, spaces > 0 ? GET_SEVERAL : GET, 1, NULL);
}

static PyObject *scanGet(Request *request)
{
    Py_ssize_t size = skipKey(&request->text);
    if (size > 0 && skipLineEnd(&request->text))
        return run(request, size);
    return severalKeys(request);
}

static PyObject *scanGets(Request *request)
{
    if (skipKey(&request->text) == 0 || !skipLineEnd(&request->text))
        Py_RETURN_NONE;
    return frame(request, GETS, 1, NULL);
}

static PyObject *scanMetaGet(Request *request)
{
    Text *text = &request->text;
    unsigned flags = 0;
    if (skipKey(text) == 0)
        Py_RETURN_NONE;
    while (skipByte(text, ' ')) {
        if (text->at == text->end || *text->at == '\0' || strchr("cfhklstuv", *text->at) == NULL)
            Py_RETURN_NONE;
        unsigned flag = 1u << (*text->at++ - 'a');
        if (flags & flag)
            Py_RETURN_NONE;
        flags |= flag;
    }
    if (flags == 0 || !skipLineEnd(text))
        Py_RETURN_NONE;
    return frame(request, flags & 1u << ('v' - 'a') ? MG_VALUE : MG, 1, NULL);
}

static PyObject *scanSet(Request *request)
{
    Text *text = &request->text;
    Py_ssize_t length;
    if (skipKey(text) == 0 || !skipByte(text, ' ') || !skipDigits(text, 9, NULL) || !skipByte(text, ' '))
        Py_RETURN_NONE;
    skipByte(text, '-');
    const char *expiry = text->at;
    int digits = skipDigits(text, 10, NULL);
    if (digits == 0 || (digits == 10 && *expiry != '1') || !skipByte(text, ' '))
        Py_RETURN_NONE;
    const char *number = text->at;
    digits = skipDigits(text, 9, &length);
    if (digits == 0 || (digits > 1 && *number == '0') || length > request->maxItemSize)
        Py_RETURN_NONE;
    const char *lineEnd = text->at;
    bool silent = skip(text, " noreply", 8);
    const char *rest = text->at;
    if (!skipLineEnd(text) || remaining(text) < length)
        Py_RETURN_NONE;
    text->at += length;
    if (!skipLineEnd(text))
        Py_RETURN_NONE;
    return silent ? joined(request, SET_SILENT, lineEnd, rest) : frame(request, SET, 1, NULL);
}

/* Make a frame of a request that is a line. The next command is for such requests with noreply. */
static PyObject *scanLine(Request *request, int which, bool hasNumber)
{
    Text *text = &request->text;
    const char *key = text->at;
    Py_ssize_t size = skipKey(text);
    if (size == 0 || (hasNumber && (!skipByte(text, ' ') || !skipDigits(text, 9, NULL))))
        Py_RETURN_NONE;
    if (which == DELETE && size == 7 && memcmp(key, "noreply", 7) == 0)
        Py_RETURN_NONE;
    const char *lineEnd = text->at;
    bool silent = skip(text, " noreply", 8);
    const char *rest = text->at;
    if (!skipLineEnd(text))
        Py_RETURN_NONE;
    return silent ? joined(request, which + 1, lineEnd, rest) : frame(request, which, 1, NULL);
}

PyObject *scanRequest(PyObject *Py_UNUSED(module), Arguments arguments, Py_ssize_t count)
{
    Request request;
    if (!hasArguments("scanRequest", count, 5) || !readSize(arguments[2], &request.room) ||
        !readSize(arguments[3], &request.maxItemSize))
        return NULL;
    request.data = arguments[0];
    request.accepted = arguments[4];
    if (!PyTuple_Check(request.accepted) || PyTuple_GET_SIZE(request.accepted) != COMMANDS) {
        PyErr_Format(PyExc_TypeError, "scanRequest: expected a tuple of %d commands", (int)COMMANDS);
        return NULL;
    }
    if (!openText(request.data, arguments[1], &request.text))
        Py_RETURN_NONE;
    request.start = request.text.at;
    Text *text = &request.text;
    if (skip(text, "get ", 4))
        return scanGet(&request);
    if (skip(text, "set ", 4))
        return scanSet(&request);
    if (skip(text, "mg ", 3))
        return scanMetaGet(&request);
    if (skip(text, "gets ", 5))
        return scanGets(&request);
    if (skip(text, "delete ", 7))
        return scanLine(&request, DELETE, false);
    if (skip(text, "incr ", 5))
        return scanLine(&request, INCR, true);
    if (skip(text, "decr ", 5))
        return scanLine(&request, DECR, true);
    if (skip(text, "touch ", 6))
        return scanLine(&request, TOUCH, true);
    Py_RETURN_NONE;
}
