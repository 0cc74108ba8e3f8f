# Copyright txconnpool contributors. See LICENSE.
"""
C{safe_strtol}, C{safe_strtoul} and C{safe_strtoull} of memcached 1.6.18 on 64-bit machines, with the functions of the C
library that they call.
"""

from __future__ import annotations

import ctypes
import errno
from typing import Any, Final

_LIBRARY: Final = ctypes.CDLL(None, use_errno=True)
_LIBRARY.strtoll.restype = ctypes.c_longlong
_LIBRARY.strtoull.restype = ctypes.c_ulonglong


def _converted(function: Any, word: bytes) -> int | None:
    text = ctypes.create_string_buffer(word)
    end = ctypes.c_void_p()
    ctypes.set_errno(0)
    value: int = function(text, ctypes.byref(end), 10)
    stop = (end.value or 0) - ctypes.addressof(text)
    if ctypes.get_errno() == errno.ERANGE or not stop or text.raw[stop] not in b"\0\t\n\v\f\r ":
        return None
    return value


def safeStrtol(word: bytes) -> int | None:
    """
    @return: the number, or C{None} if the word is rejected.
    """
    value = _converted(_LIBRARY.strtoll, word)
    return None if value is None else ctypes.c_int32(value).value


def safeStrtoull(word: bytes) -> int | None:
    """
    @return: the number, or C{None} if the word is rejected.
    """
    value = _converted(_LIBRARY.strtoull, word)
    return None if value is None or (value >= 1 << 63 and b"-" in word) else value


def safeStrtoul(word: bytes) -> int | None:
    """
    @return: the number, or C{None} if the word is rejected.
    """
    value = safeStrtoull(word)
    return None if value is None else ctypes.c_uint32(value).value
