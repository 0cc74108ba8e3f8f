# -*- test-case-name: tests.wire.memcache.test_runs -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Puts the replies to a run in order, if a server may send the values in another order than their keys were requested.

memcached sends values in the order of the keys. twemproxy and other proxies in front of several servers do not, if some
keys are missing. So a key without a value is not known to be missing before the reply ends, and the reply to its C{get}
comes before those to later ones. From this key on, all replies are held back until then.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from txconnpool.errors import WireError
from txconnpool.wire.memcache.matching import MemcacheCommand, checkIncomplete, received


class HeldReplies:
    """
    The last replies to a run, from that to the first key that was skipped.

    @ivar size: the number of bytes that are held.
    """

    __slots__ = ("_due", "_key", "_part", "_values", "_wanted", "size")

    def __init__(self, keys: Sequence[bytes], values: Iterable[bytes]) -> None:
        """
        @param keys: the keys of the replies, in order. No key occurs twice.
        @param values: the values of the first of these keys, from C{VALUE} to the line end; empty if there is none yet.
        """
        self._values = dict.fromkeys(keys, b"")
        self._values.update(zip(keys, values, strict=False))
        self._key = b""  # the key of a value that is incomplete
        self._part = bytearray()  # its bytes, from VALUE on
        self._due = -1  # bytes of its body that are not received yet; -1: before a line
        self._wanted = True
        self.size = sum(map(len, self._values.values()))

    def match(self, data: bytes, pos: int, command: MemcacheCommand) -> tuple[int, bool]:
        """
        Match received bytes against the rest of the reply of the server.

        @param data: the received bytes. Those before C{pos} are processed already.
        @param command: the command of the single requests.

        @return: the new C{pos}, and whether the reply is complete.

        @raise WireError: the bytes are not such a reply, or a value has a key that is not outstanding.
        """
        size = len(data)
        begin = pos
        due = self._due
        while pos < size:
            if due < 0:
                match = command.first(data, pos)
                if match is None:
                    checkIncomplete(data, pos, pos, command)
                    break
                key, length = match.group(1, 2)
                if length is None:
                    return match.end(), True
                if self._values.get(key, key):
                    raise WireError(f"a value in reply to {command.name} that was not requested")
                self._key = key
                begin, pos, due = pos, match.end(), int(length)
            pos += due
            if pos >= size:
                self._keep(data[begin:])
                self._due = pos - size
                return size, False
            follows = data[pos : pos + 2]
            if follows != b"\r\n":
                if not b"\r\n".startswith(follows):
                    raise WireError(f"expected the end of a value in reply to {command.name}, {received(data, pos)}")
                self._keep(data[begin:pos])
                self._due = 0
                return pos, False
            pos += 2
            due = self._due = -1
            self._keep(data[begin:pos])
            self._values[self._key] = bytes(self._part) if self._wanted else self._key
            self._part.clear()
            begin = pos
        return pos, False

    def _keep(self, piece: bytes) -> None:
        if self._wanted:
            self._part += piece
            self.size += len(piece)

    def discard(self) -> None:
        """
        Drop all bytes, because the client is gone. The rest of the reply is checked nevertheless.
        """
        self._wanted = False
        self._values = {key: key if value else b"" for key, value in self._values.items()}
        self._part.clear()
        self.size = 0

    def finish(self) -> tuple[bytes, int]:
        """
        @return: when the reply of the server is complete: the replies for the client, and how many of them have no
            value.
        """
        values = list(self._values.values())
        return b"END\r\n".join([*values, b""]), values.count(b"")
