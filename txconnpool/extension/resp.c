/* Copyright txconnpool contributors. See LICENSE. */

/* Finds the usual requests and replies of Redis, see `findCommand`, `findUsual` and `usualWords` of
   txconnpool.wire.redis.framing, and the functions of txconnpool.wire.redis.elements. */

#include "resp.h"

#include <stdint.h>

/* A request: the number of its words, the first one, and where it ends. */
typedef struct {
    Py_ssize_t words;
    const char *name;
    Py_ssize_t nameSize;
    Py_ssize_t end;
} Request;

/* Find a request. False, without an exception, if it is not a usual one. */
static bool findRequest(PyObject *data, PyObject *pos, Py_ssize_t itemMax, Request *request)
{
    Text text;
    Py_ssize_t size;
    if (!openText(data, pos, &text) || !skipHeader(&text, '*', 6, &request->words) || request->words == 0 ||
        !skipHeader(&text, '$', 3, &request->nameSize) || request->nameSize == 0)
        return false;
    request->name = text.at;
    if (!skipString(&text, request->nameSize))
        return false;
    for (Py_ssize_t word = 1; word < request->words; word++)
        if (!skipHeader(&text, '$', 9, &size) || size > itemMax || !skipString(&text, size))
            return false;
    request->end = text.at - PyBytes_AS_STRING(data);
    return true;
}

/* Append the words of a request to a list. False if they are not usual, or with an exception. */
static bool appendWords(Text *text, Py_ssize_t count, PyObject *words)
{
    Py_ssize_t size;
    for (; count > 0; count--) {
        if (!skipHeader(text, '$', 9, &size))
            return false;
        const char *start = text->at;
        if (!skipString(text, size))
            return false;
        PyObject *word = PyBytes_FromStringAndSize(start, size);
        bool appended = word != NULL && PyList_Append(words, word) == 0;
        Py_XDECREF(word);
        if (!appended)
            return false;
    }
    return true;
}

PyObject *usualWords(PyObject *Py_UNUSED(module), Arguments arguments, Py_ssize_t count)
{
    Text text;
    Py_ssize_t number;
    if (!hasArguments("usualWords", count, 2))
        return NULL;
    if (!openText(arguments[0], arguments[1], &text) || !skipHeader(&text, '*', 6, &number) || number == 0)
        Py_RETURN_NONE;
    PyObject *words = PyList_New(0);
    if (words != NULL && appendWords(&text, number, words))
        return words;
    Py_XDECREF(words);
    if (PyErr_Occurred())
        return NULL;
    Py_RETURN_NONE;
}

PyObject *encodeWords(PyObject *Py_UNUSED(module), Arguments arguments, Py_ssize_t count)
{
    char header[HEADER_MAX];
    if (!hasArguments("encodeWords", count, 1))
        return NULL;
    PyObject *words = arguments[0];
    if (!PyList_Check(words)) {
        PyErr_SetString(PyExc_TypeError, "encodeWords: expected a list of words");
        return NULL;
    }
    Py_ssize_t number = PyList_GET_SIZE(words), size = writeHeader(header, '*', number);
    for (Py_ssize_t at = 0; at < number; at++) {
        PyObject *word = PyList_GET_ITEM(words, at);
        if (!PyBytes_Check(word)) {
            PyErr_SetString(PyExc_TypeError, "encodeWords: expected bytes");
            return NULL;
        }
        size += writeHeader(header, '$', PyBytes_GET_SIZE(word)) + PyBytes_GET_SIZE(word) + 2;
    }
    PyObject *request = PyBytes_FromStringAndSize(NULL, size);
    if (request == NULL)
        return NULL;
    char *to = PyBytes_AS_STRING(request);
    to += writeHeader(to, '*', number);
    for (Py_ssize_t at = 0; at < number; at++) {
        PyObject *word = PyList_GET_ITEM(words, at);
        Py_ssize_t length = PyBytes_GET_SIZE(word);
        to += writeHeader(to, '$', length);
        memcpy(to, PyBytes_AS_STRING(word), (size_t)length);
        memcpy(to + length, "\r\n", 2);
        to += length + 2;
    }
    return request;
}

PyObject *findCommand(PyObject *Py_UNUSED(module), Arguments arguments, Py_ssize_t count)
{
    Py_ssize_t itemMax;
    Request request;
    if (!hasArguments("findCommand", count, 3) || !readSize(arguments[2], &itemMax))
        return NULL;
    if (!findRequest(arguments[0], arguments[1], itemMax, &request))
        Py_RETURN_NONE;
    return Py_BuildValue("(nny#)", request.end, request.words, request.name, request.nameSize);
}

/* The entry of a command, a borrowed reference: the command, and the least and the greatest number of words. NULL
   without an exception if there is none. */
static PyObject *usualCommand(PyObject *usual, const Request *request, Py_ssize_t *least, Py_ssize_t *most)
{
    PyObject *name = PyBytes_FromStringAndSize(request->name, request->nameSize);
    PyObject *entry = name == NULL ? NULL : PyDict_GetItemWithError(usual, name);
    Py_XDECREF(name);
    if (entry == NULL)
        return NULL;
    if (!PyTuple_Check(entry) || PyTuple_GET_SIZE(entry) != 3) {
        PyErr_SetString(PyExc_TypeError, "findUsual: expected a command and two numbers");
        return NULL;
    }
    if (!readSize(PyTuple_GET_ITEM(entry, 1), least) || !readSize(PyTuple_GET_ITEM(entry, 2), most))
        return NULL;
    return PyTuple_GET_ITEM(entry, 0);
}

PyObject *findUsual(PyObject *Py_UNUSED(module), Arguments arguments, Py_ssize_t count)
{
    Py_ssize_t itemMax, least, most;
    Request request;
    if (!hasArguments("findUsual", count, 4) || !readSize(arguments[2], &itemMax))
        return NULL;
    if (!PyDict_Check(arguments[3])) {
        PyErr_SetString(PyExc_TypeError, "findUsual: expected a dict");
        return NULL;
    }
    if (!findRequest(arguments[0], arguments[1], itemMax, &request))
        Py_RETURN_NONE;
    PyObject *command = usualCommand(arguments[3], &request, &least, &most);
    if (command == NULL && PyErr_Occurred())
        return NULL;
    if (command == NULL || request.words < least || request.words > most)
        Py_RETURN_NONE;
    PyObject *one = PyLong_FromLong(1), *end = PyLong_FromSsize_t(request.end);
    PyObject *result = one == NULL || end == NULL ? NULL : PyTuple_Pack(4, command, end, one, Py_None);
    Py_XDECREF(one);
    Py_XDECREF(end);
    return result;
}

/* Skip a line without a carriage return or line feed in it, and its end. */
static bool skipLine(Text *text)
{
    while (text->at < text->end && *text->at != '\r' && *text->at != '\n')
        text->at++;
    return skipLineEnd(text);
}

/* Match a status, an integer or a string. Return its end, or 0. */
static Py_ssize_t matchElement(Text *text, PyObject *data)
{
    Py_ssize_t size;
    if (skipByte(text, '$')) {
        if (!skipDigits(text, 9, &size) || !skipLineEnd(text) || !skipString(text, size))
            return 0;
    } else {
        if (!skipByte(text, '+') && !skipByte(text, ':'))
            return 0;
        if (!skipLine(text))
            return 0;
    }
    return text->at - PyBytes_AS_STRING(data);
}

/* The elements that are still to come, and the nulls that were found. */
typedef struct {
    Py_ssize_t elements;
    Py_ssize_t nulls;
} Tally;

/* More elements than bytes can hold. The caller lets Python, whose integers have no bounds, look at such a reply. */
#define ELEMENTS_MAX ((Py_ssize_t)1 << 60)

/* Skip an element that is neither a string nor an aggregate. */
static bool skipScalar(Text *text, char type, Tally *tally)
{
    switch (type) {
    case '+': case '-': case ':': case ',': case '(':
        if (!skipLine(text))
            return false;
        break;
    case '_':
        if (!skipLineEnd(text))
            return false;
        tally->nulls++;
        break;
    case '#':
        if (!skip(text, "t\r\n", 3) && !skip(text, "f\r\n", 3))
            return false;
        break;
    default:
        return false;
    }
    tally->elements--;
    return true;
}

/* Skip an element, or the head of an aggregate, whose own elements are then to come too. */
static bool skipElement(Text *text, bool pushes, Tally *tally)
{
    Py_ssize_t number;
    if (text->at == text->end)
        return false;
    char type = *text->at++;
    bool isString = type == '$' || type == '=' || type == '!';
    if (!isString && (type == '\0' || strchr("*~%|>", type) == NULL))
        return skipScalar(text, type, tally);
    if (skip(text, "-1\r\n", 4)) {
        tally->nulls++;
        tally->elements--;
        return true;
    }
    if (!skipNumber(text, 10, &number) || (isString && !skipString(text, number)))
        return false;
    if (isString)
        tally->elements--;
    else if (type == '*' || type == '~' || (type == '>' && pushes))
        tally->elements += number - 1;
    else if (type == '%')
        tally->elements += 2 * number - 1;
    else
        tally->elements += type == '|' ? 2 * number : number;
    return true;
}

/* Match an array without nulls. Return its end, or 0. */
static Py_ssize_t matchArray(Text *text, PyObject *data)
{
    Tally tally = {1, 0};
    while (tally.elements > 0 && tally.elements < ELEMENTS_MAX && skipElement(text, false, &tally))
        ;
    return tally.elements > 0 || tally.nulls > 0 ? 0 : text->at - PyBytes_AS_STRING(data);
}

PyObject *matchSimple(PyObject *Py_UNUSED(module), Arguments arguments, Py_ssize_t count)
{
    Text text;
    if (!hasArguments("matchSimple", count, 4))
        return NULL;
    if (!openText(arguments[0], arguments[1], &text))
        return PyLong_FromLong(0);
    bool isArray = follows(&text, "*", 1);
    return PyLong_FromSsize_t(isArray ? matchArray(&text, arguments[0]) : matchElement(&text, arguments[0]));
}

PyObject *passElements(PyObject *Py_UNUSED(module), Arguments arguments, Py_ssize_t count)
{
    Text text;
    Tally tally = {0, 0};
    if (!hasArguments("passElements", count, 4) || !readSize(arguments[2], &tally.elements))
        return NULL;
    int pushes = PyObject_IsTrue(arguments[3]);
    if (pushes < 0)
        return NULL;
    if (!openText(arguments[0], arguments[1], &text))
        Py_RETURN_NONE;
    const char *start = text.at, *end = start;
    Tally passed = tally;
    while (tally.elements > 0 && tally.elements < ELEMENTS_MAX && skipElement(&text, pushes, &tally)) {
        end = text.at;
        passed = tally;
    }
    if (end == start)
        Py_RETURN_NONE;
    return Py_BuildValue("(nnn)", end - PyBytes_AS_STRING(arguments[0]), passed.elements, passed.nulls);
}

/* Whether a request has as many words after the first. */
static bool hasKeys(PyObject *request, Py_ssize_t number)
{
    Py_ssize_t words;
    if (!PyBytes_Check(request))
        return false;
    Text text = {PyBytes_AS_STRING(request), PyBytes_AS_STRING(request) + PyBytes_GET_SIZE(request)};
    return skipHeader(&text, '*', 18, &words) && words == number + 1;
}

/* Read the head of an array, set or map, and with a request that of an array of a value for each of its keys. Return the
   number of elements; -1 if there is anything else. */
static Py_ssize_t readHead(Text *text, PyObject *request)
{
    Py_ssize_t number;
    if (text->at == text->end)
        return -1;
    char type = *text->at++;
    if ((type != '*' && type != '~' && type != '%') || !skipNumber(text, 10, &number))
        return -1;
    if (request != Py_None && (type != '*' || !hasKeys(request, number)))
        return -1;
    return type == '%' ? 2 * number : number;
}

/* Skip an element with all in it. False if it is not complete, or unusual. */
static bool skipWhole(Text *text, Py_ssize_t *nulls)
{
    Tally tally = {1, 0};
    while (tally.elements > 0 && tally.elements < ELEMENTS_MAX)
        if (!skipElement(text, false, &tally))
            return false;
    *nulls += tally.nulls;
    return true;
}

PyObject *splitElements(PyObject *Py_UNUSED(module), Arguments arguments, Py_ssize_t count)
{
    Text text;
    Py_ssize_t number, nulls = 0;
    if (!hasArguments("splitElements", count, 3))
        return NULL;
    if (!openText(arguments[0], arguments[1], &text) || (number = readHead(&text, arguments[2])) < 0)
        Py_RETURN_NONE;
    PyObject *found = PyList_New(0);
    if (found == NULL)
        return NULL;
    for (; number > 0; number--) {
        const char *start = text.at;
        if (!skipWhole(&text, &nulls)) {
            Py_DECREF(found);
            Py_RETURN_NONE;
        }
        PyObject *element = PyBytes_FromStringAndSize(start, text.at - start);
        if (element == NULL || PyList_Append(found, element) < 0) {
            Py_XDECREF(element);
            Py_DECREF(found);
            return NULL;
        }
        Py_DECREF(element);
    }
    return Py_BuildValue("(nnN)", text.at - PyBytes_AS_STRING(arguments[0]), nulls, found);
}

PyObject *packElements(PyObject *Py_UNUSED(module), Arguments arguments, Py_ssize_t count)
{
    Text text;
    Py_ssize_t number, nulls = 0;
    if (!hasArguments("packElements", count, 3))
        return NULL;
    /* An element has at least 3 bytes. */
    if (!openText(arguments[0], arguments[1], &text) || (number = readHead(&text, arguments[2])) < 0 ||
        number > remaining(&text) / 3 || (uint64_t)remaining(&text) > UINT32_MAX)
        Py_RETURN_NONE;
    PyObject *ends = PyBytes_FromStringAndSize(NULL, number * (Py_ssize_t)sizeof(uint32_t));
    if (ends == NULL)
        return NULL;
    const char *start = text.at;
    for (Py_ssize_t at = 0; at < number; at++) {
        if (!skipWhole(&text, &nulls)) {
            Py_DECREF(ends);
            Py_RETURN_NONE;
        }
        uint32_t end = (uint32_t)(text.at - start);
        memcpy(PyBytes_AS_STRING(ends) + at * (Py_ssize_t)sizeof end, &end, sizeof end);
    }
    return Py_BuildValue("(nny#N)", text.at - PyBytes_AS_STRING(arguments[0]), nulls, start, text.at - start, ends);
}
