/* Copyright txconnpool contributors. See LICENSE. */

/* Matches complete replies of memcached to requests for several keys, see txconnpool/wire/memcache/values.py. */

#include "txconnpool.h"

/* The keys of a request, the reply, and what was found. */
typedef struct {
    Text keys; /* after the keys that were compared */
    Text reply;
    bool isUnique;
    Py_ssize_t wanted;
    Py_ssize_t found;
    PyObject *values; /* a list to which the values are appended, or NULL */
} Match;

/* The line of a value: its key, and the length of the body. */
typedef struct {
    const char *key;
    Py_ssize_t size;
    Py_ssize_t length;
} Value;

/* Read the line of a value. */
static bool readLine(Text *text, bool isUnique, Value *value)
{
    if (!skip(text, "VALUE ", 6))
        return false;
    value->key = text->at;
    value->size = skipUntil(text, ' ', KEY_MAX);
    if (value->size <= 0 || !skipByte(text, ' ') || !skipDigits(text, 20, NULL) || !skipByte(text, ' ') ||
        !skipDigits(text, 9, &value->length))
        return false;
    if (isUnique && (!skipByte(text, ' ') || !skipDigits(text, 20, NULL)))
        return false;
    return skipLineEnd(text);
}

/* Read the line of a value, its body and the line end after that. */
static bool readValue(Text *text, bool isUnique, Value *value)
{
    if (!readLine(text, isUnique, value) || remaining(text) < value->length)
        return false;
    text->at += value->length;
    return skipLineEnd(text);
}

/* Find the next key of the request. Return its length; 0 if there is none. */
static Py_ssize_t nextKey(Text *keys, const char **key)
{
    while (skipByte(keys, ' '))
        ;
    *key = keys->at;
    while (keys->at < keys->end && *keys->at != ' ')
        keys->at++;
    return keys->at - *key;
}

/* Append bytes to the values. False, with an exception, if that fails. */
static bool append(Match *match, const char *from, const char *end)
{
    if (match->values == NULL)
        return true;
    PyObject *value = PyBytes_FromStringAndSize(from, end - from);
    if (value == NULL)
        return false;
    int failed = PyList_Append(match->values, value);
    Py_DECREF(value);
    return !failed;
}

/* Compare the keys of the request with a value. Keys before its key have none. Return 1 if it is one of them, 0 if not,
   -1 after an exception. */
static int skipToKey(Match *match, const Value *value)
{
    const char *key;
    Py_ssize_t size;
    while ((size = nextKey(&match->keys, &key)) > 0) {
        match->wanted++;
        if (size == value->size && memcmp(key, value->key, (size_t)size) == 0)
            return 1;
        if (!append(match, key, key))
            return -1;
    }
    return 0;
}

/* Match a reply whose values have the order of the keys. Return its end; 0 if it is another one, or incomplete; -1 after
   an exception. */
static Py_ssize_t matchValues(Match *match, PyObject *data)
{
    Text *text = &match->reply;
    Value value;
    while (!skip(text, "END\r\n", 5)) {
        const char *start = text->at;
        if (!readValue(text, match->isUnique, &value))
            return 0;
        int isWanted = skipToKey(match, &value);
        if (isWanted <= 0)
            return isWanted;
        if (!append(match, start, text->at))
            return -1;
        match->found++;
    }
    const char *key;
    while (nextKey(&match->keys, &key) > 0) {
        match->wanted++;
        if (!append(match, key, key))
            return -1;
    }
    return text->at - PyBytes_AS_STRING(data);
}

/* Read the arguments: the received bytes, a position, the request, the position of its first key, and whether the values
   have a cas unique. Return 1 if they can be matched, 0 if not, -1 after an exception. */
static int readArguments(const char *name, Arguments arguments, Py_ssize_t count, Match *match)
{
    Py_ssize_t keyAt;
    if (!hasArguments(name, count, 5) || !readSize(arguments[3], &keyAt))
        return -1;
    int isUnique = PyObject_IsTrue(arguments[4]);
    if (isUnique < 0)
        return -1;
    PyObject *request = arguments[2];
    if (!PyBytes_Check(request) || keyAt < 0 || keyAt > PyBytes_GET_SIZE(request) - 2 ||
        !openText(arguments[0], arguments[1], &match->reply))
        return 0;
    match->keys.at = PyBytes_AS_STRING(request) + keyAt;
    match->keys.end = PyBytes_AS_STRING(request) + PyBytes_GET_SIZE(request) - 2;
    match->isUnique = isUnique;
    match->wanted = match->found = 0;
    match->values = NULL;
    return 1;
}

PyObject *countValues(PyObject *Py_UNUSED(module), Arguments arguments, Py_ssize_t count)
{
    Match match;
    Py_ssize_t end = readArguments("countValues", arguments, count, &match);
    if (end > 0)
        end = matchValues(&match, arguments[0]);
    if (end < 0)
        return NULL;
    if (end == 0)
        Py_RETURN_NONE;
    return Py_BuildValue("(nnn)", end, match.found, match.wanted);
}

PyObject *findValues(PyObject *Py_UNUSED(module), Arguments arguments, Py_ssize_t count)
{
    Match match;
    Py_ssize_t end = readArguments("findValues", arguments, count, &match);
    if (end > 0) {
        match.values = PyList_New(0);
        end = match.values != NULL ? matchValues(&match, arguments[0]) : -1;
        if (end > 0)
            return Py_BuildValue("(nnN)", end, match.found, match.values);
        Py_XDECREF(match.values);
    }
    if (end < 0)
        return NULL;
    Py_RETURN_NONE;
}

/* The values of a reply, one after another. */
typedef struct {
    Text text;
    bool isUnique;
    bool isRead; /* whether the next value was read, and no key has taken it */
    bool ended;
    Value value;
    const char *start;
} Values;

/* Read the next value, if that is not done, or the end. False if there is neither. */
static bool readNext(Values *values)
{
    if (values->isRead || values->ended)
        return true;
    Text *text = &values->text;
    if (skip(text, "END\r\n", 5)) {
        values->ended = true;
        return true;
    }
    values->start = text->at;
    values->isRead = readValue(text, values->isUnique, &values->value);
    return values->isRead;
}

/* Take the values of the keys of a request. Return the reply to it; NULL if that is not possible. */
static PyObject *takeReply(Values *values, Text *keys)
{
    const char *from = values->text.at, *to = from, *key;
    Py_ssize_t size;
    while ((size = nextKey(keys, &key)) > 0) {
        if (!readNext(values))
            return NULL;
        if (!values->isRead || size != values->value.size || memcmp(key, values->value.key, (size_t)size) != 0)
            continue;
        values->isRead = false;
        if (from == to)
            from = values->start;
        to = values->text.at;
    }
    PyObject *reply = PyBytes_FromStringAndSize(NULL, to - from + 5);
    if (reply != NULL) {
        memcpy(PyBytes_AS_STRING(reply), from, (size_t)(to - from));
        memcpy(PyBytes_AS_STRING(reply) + (to - from), "END\r\n", 5);
    }
    return reply;
}

PyObject *separateReplies(PyObject *Py_UNUSED(module), Arguments arguments, Py_ssize_t count)
{
    Py_ssize_t keyAt;
    if (!hasArguments("separateReplies", count, 4) || !readSize(arguments[2], &keyAt))
        return NULL;
    int isUnique = PyObject_IsTrue(arguments[3]);
    if (isUnique < 0)
        return NULL;
    PyObject *data = arguments[0], *requests = arguments[1];
    if (!PyBytes_Check(data) || !PyList_Check(requests) || keyAt < 0)
        Py_RETURN_NONE;
    char *at = PyBytes_AS_STRING(data);
    Values values = {.text = {at, at + PyBytes_GET_SIZE(data)}, .isUnique = isUnique};
    Py_ssize_t wanted = PyList_GET_SIZE(requests);
    PyObject *replies = PyList_New(wanted);
    if (replies == NULL)
        return NULL;
    for (Py_ssize_t number = 0; number < wanted; number++) {
        PyObject *request = PyList_GET_ITEM(requests, number), *reply = NULL;
        if (PyBytes_Check(request) && keyAt <= PyBytes_GET_SIZE(request) - 2) {
            char *start = PyBytes_AS_STRING(request);
            Text keys = {start + keyAt, start + PyBytes_GET_SIZE(request) - 2};
            reply = takeReply(&values, &keys);
        }
        if (reply == NULL) {
            Py_DECREF(replies);
            if (PyErr_Occurred())
                return NULL;
            Py_RETURN_NONE;
        }
        PyList_SET_ITEM(replies, number, reply);
    }
    if (!readNext(&values) || values.isRead || remaining(&values.text) > 0) {
        Py_DECREF(replies);
        Py_RETURN_NONE;
    }
    return replies;
}
