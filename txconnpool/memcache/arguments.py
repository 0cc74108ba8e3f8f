# -*- test-case-name: tests.memcache.test_arguments -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Checks of the arguments of commands, before anything is sent.

A wrong argument must not reach the server: memcached would take a space in a key for its end, and answers a number that
it cannot read with an error even where no reply is expected.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

from txconnpool.memcache.errors import InvalidArgument
from txconnpool.memcache.results import Key
from txconnpool.wire.memcache.classic import UINT64, checkKey

K = TypeVar("K", bound=Key)


def encodeKey(key: Key, namespace: bytes = b"") -> bytes:
    """
    Encode a key: text becomes UTF-8.

    @param namespace: is put before the key.

    @raise InvalidArgument: it is neither text nor bytes, empty, longer than 250 bytes, or contains a space or a control
        character.
    """
    try:
        name = key.encode() if isinstance(key, str) else key
        if not isinstance(name, bytes):
            raise ValueError(f"a key is str or bytes, not {type(name).__name__}")
        if namespace and not name:
            raise ValueError("a key is empty")
        return checkKey(namespace + name)
    except ValueError as reason:
        raise InvalidArgument(str(reason)) from reason


def checkKeys(keys: Iterable[K]) -> Iterable[K]:
    """
    Check a list of keys.

    @return: the list.

    @raise InvalidArgument: C{keys} is a text, so each of its characters would be a key; or it is no list.
    """
    if isinstance(keys, str | bytes) or not isinstance(keys, Iterable):
        raise InvalidArgument(f"keys must be a list of keys, not {keys!r}")
    return keys


def checkNumber(name: str, value: int, bounds: tuple[int, int]) -> int:
    """
    Check a number.

    @param name: the name of the argument, for the error.
    @param bounds: the smallest and the largest valid number.

    @return: the number.

    @raise InvalidArgument: it is not an integer within the bounds.
    """
    low, high = bounds
    if not isinstance(value, int) or not low <= value <= high:
        raise InvalidArgument(f"{name} is a whole number from {low} to {high}, not {value!r}")
    return value


def checkValue(value: bytes, maximum: int) -> bytes:
    """
    Check a value to be stored.

    @param maximum: the maximum length, in bytes.

    @return: the value.

    @raise InvalidArgument: it is not bytes, or too long.
    """
    if not isinstance(value, bytes):
        raise InvalidArgument(f"a value is bytes, not {type(value).__name__}")
    if len(value) > maximum:
        raise InvalidArgument(f"a value of {len(value)} bytes; at most {maximum} (maxItemSize) are allowed")
    return value


def checkIdentifier(cas: bytes) -> bytes:
    """
    Check an identifier for C{checkAndSet}.

    @return: the identifier.

    @raise InvalidArgument: it is not the decimal digits of a number of 64 bits.
    """
    if not isinstance(cas, bytes) or not cas.isdigit() or int(cas) > UINT64[1]:
        raise InvalidArgument(f"an identifier is what get(key, withIdentifier=True) returned, not {cas!r}")
    return cas
