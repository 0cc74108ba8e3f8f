/* Copyright txconnpool contributors. See LICENSE. */

/* The module txconnpool._native. It has no state, so every interpreter and thread may use it. */

#include "txconnpool.h"

/* txconnpool.native uses the module only if it has the same number there. */
#define INTERFACE 19

/* An entry for the function of this name. The cast by way of a function without arguments avoids a warning. */
#define FUNCTION(name) {#name, (PyCFunction)(void (*)(void))name, METH_FASTCALL, NULL}

static PyMethodDef methods[] = {
    FUNCTION(scanRequest),
    FUNCTION(wholeValue),
    FUNCTION(wholeUniqueValue),
    FUNCTION(wholeMetaValue),
    FUNCTION(wholeStored),
    FUNCTION(countValues),
    FUNCTION(findValues),
    FUNCTION(separateReplies),
    FUNCTION(findCommand),
    FUNCTION(findUsual),
    FUNCTION(encodeWords),
    FUNCTION(usualWords),
    FUNCTION(matchSimple),
    FUNCTION(passElements),
    FUNCTION(splitElements),
    FUNCTION(packElements),
    FUNCTION(divideWords),
    FUNCTION(plainKey),
    FUNCTION(divideLines),
#ifdef __linux__
    FUNCTION(receiveEach),
    FUNCTION(sendJoined),
#endif
    FUNCTION(joinEach),
    FUNCTION(oneAtATime),
    FUNCTION(fnv1x32),
    FUNCTION(fnv1ax32),
    FUNCTION(fnv1x64),
    FUNCTION(fnv1ax64),
    FUNCTION(hsieh),
    FUNCTION(murmur),
    FUNCTION(murmur3Seeded),
    FUNCTION(murmur3),
    FUNCTION(jenkins),
    FUNCTION(md5),
    FUNCTION(murmur64),
    FUNCTION(furc),
    FUNCTION(xxh3),
    {NULL, NULL, 0, NULL},
};

static int execute(PyObject *module)
{
    return PyModule_AddIntConstant(module, "INTERFACE", INTERFACE);
}

static PyModuleDef_Slot slots[] = {
    {Py_mod_exec, (void *)execute},
#if PY_VERSION_HEX >= 0x030C0000
    {Py_mod_multiple_interpreters, Py_MOD_PER_INTERPRETER_GIL_SUPPORTED},
#endif
#if PY_VERSION_HEX >= 0x030D0000
    {Py_mod_gil, Py_MOD_GIL_USED}, /* a dict may change while it is read */
#endif
    {0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "txconnpool._native",
    .m_doc = "The hot parts of txconnpool, see txconnpool.native.",
    .m_size = 0,
    .m_methods = methods,
    .m_slots = slots,
};

PyMODINIT_FUNC PyInit__native(void)
{
    return PyModuleDef_Init(&definition);
}
