# -*- test-case-name: tests.memcache.test_values -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Values that are not bytes, and compressed ones: the hooks of
L{MemCachePool<txconnpool.memcache.pool.MemCachePool>}, and one implementation of each.

Flags, the number that memcached stores with each value, say how it was made. A hook sets bits of its own and leaves
those of the caller and of other hooks as they are; C{get} returns all of them, as they are stored.
"""

from __future__ import annotations

import json
import zlib
from typing import Any, Generic, Protocol

from txconnpool.memcache.arguments import checkNumber, checkValue
from txconnpool.memcache.errors import InvalidArgument, UnreadableValue
from txconnpool.memcache.results import AnyValue, V
from txconnpool.pool.checks import checkWhole
from txconnpool.wire.memcache.classic import UINT32


class Serializer(Protocol[V]):
    """
    Converts values to bytes and back.
    """

    def serialize(self, value: V, flags: int) -> tuple[bytes, int]:
        """
        Convert a value to bytes.

        @param flags: the flags that the caller of C{set} has given.

        @return: the bytes, and the flags with those of the serializer.
        """

    def deserialize(self, data: bytes, flags: int) -> V:
        """
        Convert bytes to a value.

        @param flags: the flags that are stored with them.
        """


class Compressor(Protocol):
    """
    Makes bytes shorter, and restores them.
    """

    def compress(self, data: bytes, flags: int) -> tuple[bytes, int]:
        """
        Compress bytes, if that is worth it.

        @param flags: the flags so far.

        @return: the bytes to store, and the flags with those of the compressor.
        """

    def decompress(self, data: bytes, flags: int) -> bytes:
        """
        Restore bytes.

        @param flags: the flags that are stored with them.
        """


class JSONSerializer:
    """
    Stores bytes as they are, and all other values as JSON in UTF-8::

        pool = MemCachePool("tcp:127.0.0.1:11211", serializer=JSONSerializer())
        await pool.set("user", {"name": "Ada"})
        flags, user = await pool.get("user")
    """

    def __init__(self, flag: int = 1) -> None:
        """
        @param flag: the bit of the flags that marks JSON.
        """
        checkWhole("flag", flag, 1, most=(1 << 32) - 1)
        self._flag = flag

    def serialize(self, value: Any, flags: int) -> tuple[bytes, int]:
        """
        Convert a value to bytes, see L{Serializer}.
        """
        if isinstance(value, bytes):
            return value, flags & ~self._flag
        return json.dumps(value, separators=(",", ":")).encode(), flags | self._flag

    def deserialize(self, data: bytes, flags: int) -> Any:
        """
        Convert bytes to a value, see L{Serializer}.
        """
        return json.loads(data) if flags & self._flag else data


class ZlibCompressor:
    """
    Compresses values with zlib::

        pool = MemCachePool("tcp:127.0.0.1:11211", compressor=ZlibCompressor(least=2000))
    """

    def __init__(self, least: int = 1024, flag: int = 2, most: int = 64 << 20) -> None:
        """
        @param least: values of fewer bytes are stored as they are, and so are those that do not become shorter.
        @param flag: the bit of the flags that marks compressed values.
        @param most: the maximum length of a restored value, in bytes: a short value of another client may be a very
            long one when it is restored.
        """
        checkWhole("least", least, 0)
        checkWhole("flag", flag, 1, most=(1 << 32) - 1)
        checkWhole("most", most, 1)
        self._least = least
        self._flag = flag
        self._most = most

    def compress(self, data: bytes, flags: int) -> tuple[bytes, int]:
        """
        Compress bytes, see L{Compressor}.
        """
        if len(data) >= self._least:
            short = zlib.compress(data)
            if len(short) < len(data):
                return short, flags | self._flag
        return data, flags & ~self._flag

    def decompress(self, data: bytes, flags: int) -> bytes:
        """
        Restore bytes, see L{Compressor}.

        @raise ValueError: they are not what zlib has compressed, or too long.
        """
        if not flags & self._flag:
            return data
        work = zlib.decompressobj()
        try:
            value = work.decompress(data, self._most + 1)
        except zlib.error as reason:
            raise ValueError(f"not compressed by zlib: {reason}") from reason
        if len(value) > self._most:
            raise ValueError(f"more than {self._most} bytes (most)")
        if not work.eof:
            raise ValueError("the end of the compressed value is missing")
        return value


class Codec(Generic[V]):
    """
    The way of a value to its bytes and back.

    @ivar maximum: the maximum length of a stored value, in bytes.
    @ivar plain: whether values are stored as they are.
    """

    def __init__(self, serializer: Serializer[V] | None, compressor: Compressor | None, maximum: int) -> None:
        """
        @param maximum: the maximum length of a stored value, in bytes.

        @raise TypeError: a hook lacks its methods.
        """
        checkHook("serializer", serializer, ("serialize", "deserialize"), "JSONSerializer()")
        checkHook("compressor", compressor, ("compress", "decompress"), "ZlibCompressor()")
        self._serializer = serializer
        self._compressor = compressor
        self.maximum = maximum
        self.plain = serializer is None and compressor is None

    def encode(self, value: Any, flags: int) -> tuple[bytes, int]:
        """
        Make the bytes of a value.

        @return: the bytes and the flags to store.

        @raise InvalidArgument: the value cannot be stored.
        """
        if self._serializer is not None:
            try:
                value, flags = self._serializer.serialize(value, flags)
            except Exception as reason:
                raise InvalidArgument(f"the value cannot be serialized: {reason}") from reason
        if self._compressor is not None and isinstance(value, bytes):
            value, flags = self._compressor.compress(value, flags)
        return checkValue(value, self.maximum), checkNumber("flags", flags, UINT32)

    def decode(self, found: AnyValue) -> AnyValue:
        """
        Restore the value of a result.

        @param found: flags and bytes, with the identifier in between if it was requested. The bytes may be C{None}.

        @raise UnreadableValue: the hooks cannot restore it.
        """
        data = found[-1]
        if data is None:
            return found
        flags = found[0]
        try:
            if self._compressor is not None:
                data = self._compressor.decompress(data, flags)
            if self._serializer is not None:
                data = self._serializer.deserialize(data, flags)
        except Exception as reason:
            raise UnreadableValue(
                f"a value of {len(found[-1])} bytes, flags {flags}, is unreadable: {reason}"
            ) from reason
        return (*found[:-1], data)


def checkHook(name: str, hook: Any, methods: tuple[str, str], example: str) -> None:
    """
    Check a serializer or compressor, or C{None}.

    @param methods: the methods that it must have.
    @param example: what would be right.

    @raise TypeError: it is none.
    """
    if hook is not None and (
        isinstance(hook, type) or not all(callable(getattr(hook, method, None)) for method in methods)
    ):
        raise TypeError(
            f"{name} must be an object with {' and '.join(methods)}, such as {example}, or None, not {hook!r}"
        )
