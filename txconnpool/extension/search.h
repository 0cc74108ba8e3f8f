/* Copyright txconnpool contributors. See LICENSE. */

/* Finds the servers of keys by their hashes, see `Search` in txconnpool/routing/distribution/locators.py. */

#ifndef TXCONNPOOL_SEARCH_H
#define TXCONNPOOL_SEARCH_H

#include "hashing.h"

/* The hash of keys, the sorted numbers among which it is searched, and the index of the server for each position in
   them. `hash` is NULL if there is nothing to search. */
typedef struct {
    Hash hash;
    uint32_t modulus;
    bool isAfter;
    const char *points;
    const char *owners;
    Py_ssize_t count;
    PyObject *held; /* keeps the bytes */
} Search;

/* Read the attribute `search` of the map of keys, if it has a usual one. False, with an exception, if that fails. */
bool openSearch(PyObject *indexes, Search *search);

/* The index of the server of a key. */
int32_t searchIndex(const Search *search, const char *key, Py_ssize_t size);

#endif
