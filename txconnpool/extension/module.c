/* Copyright txconnpool contributors. See LICENSE. */

/* The module txconnpool._native. It has no state, so every interpreter and thread may use it. */

#include "txconnpool.h"

/* txconnpool.native uses the module only if it has the same number there. */
#define INTERFACE 19

static PyMethodDef methods[] = {
    {"scanRequest", (PyCFunction)(void (*)(void))scanRequest, METH_FASTCALL, NULL},
    {"wholeValue", (PyCFunction)(void (*)(void))wholeValue, METH_FASTCALL, NULL},
    {"wholeUniqueValue", (PyCFunction)(void (*)(void))wholeUniqueValue, METH_FASTCALL, NULL},
    {"wholeMetaValue", (PyCFunction)(void (*)(void))wholeMetaValue, METH_FASTCALL, NULL},
    {"wholeStored", (PyCFunction)(void (*)(void))wholeStored, METH_FASTCALL, NULL},
    {"countValues", (PyCFunction)(void (*)(void))countValues, METH_FASTCALL, NULL},
    {"findValues", (PyCFunction)(void (*)(void))findValues, METH_FASTCALL, NULL},
    {"separateReplies", (PyCFunction)(void (*)(void))separateReplies, METH_FASTCALL, NULL},
    {"findCommand", (PyCFunction)(void (*)(void))findCommand, METH_FASTCALL, NULL},
    {"findUsual", (PyCFunction)(void (*)(void))findUsual, METH_FASTCALL, NULL},
    {"encodeWords", (PyCFunction)(void (*)(void))encodeWords, METH_FASTCALL, NULL},
    {"usualWords", (PyCFunction)(void (*)(void))usualWords, METH_FASTCALL, NULL},
    {"matchSimple", (PyCFunction)(void (*)(void))matchSimple, METH_FASTCALL, NULL},
    {"passElements", (PyCFunction)(void (*)(void))passElements, METH_FASTCALL, NULL},
    {"splitElements", (PyCFunction)(void (*)(void))splitElements, METH_FASTCALL, NULL},
    {"packElements", (PyCFunction)(void (*)(void))packElements, METH_FASTCALL, NULL},
    {"divideWords", (PyCFunction)(void (*)(void))divideWords, METH_FASTCALL, NULL},
    {"plainKey", (PyCFunction)(void (*)(void))plainKey, METH_FASTCALL, NULL},
    {"divideLines", (PyCFunction)(void (*)(void))divideLines, METH_FASTCALL, NULL},
#ifdef __linux__
    {"receiveEach", (PyCFunction)(void (*)(void))receiveEach, METH_FASTCALL, NULL},
    {"sendJoined", (PyCFunction)(void (*)(void))sendJoined, METH_FASTCALL, NULL},
#endif
    {"joinEach", (PyCFunction)(void (*)(void))joinEach, METH_FASTCALL, NULL},
    {"oneAtATime", (PyCFunction)(void (*)(void))oneAtATime, METH_FASTCALL, NULL},
    {"fnv1x32", (PyCFunction)(void (*)(void))fnv1x32, METH_FASTCALL, NULL},
    {"fnv1ax32", (PyCFunction)(void (*)(void))fnv1ax32, METH_FASTCALL, NULL},
    {"fnv1x64", (PyCFunction)(void (*)(void))fnv1x64, METH_FASTCALL, NULL},
    {"fnv1ax64", (PyCFunction)(void (*)(void))fnv1ax64, METH_FASTCALL, NULL},
    {"hsieh", (PyCFunction)(void (*)(void))hsieh, METH_FASTCALL, NULL},
    {"murmur", (PyCFunction)(void (*)(void))murmur, METH_FASTCALL, NULL},
    {"murmur3Seeded", (PyCFunction)(void (*)(void))murmur3Seeded, METH_FASTCALL, NULL},
    {"murmur3", (PyCFunction)(void (*)(void))murmur3, METH_FASTCALL, NULL},
    {"jenkins", (PyCFunction)(void (*)(void))jenkins, METH_FASTCALL, NULL},
    {"md5", (PyCFunction)(void (*)(void))md5, METH_FASTCALL, NULL},
    {"murmur64", (PyCFunction)(void (*)(void))murmur64, METH_FASTCALL, NULL},
    {"furc", (PyCFunction)(void (*)(void))furc, METH_FASTCALL, NULL},
    {"xxh3", (PyCFunction)(void (*)(void))xxh3, METH_FASTCALL, NULL},
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
