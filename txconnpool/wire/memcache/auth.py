# -*- test-case-name: tests.wire.memcache.test_auth -*-
# Copyright txconnpool contributors. See LICENSE.
"""
The login of memcached's text protocol (option C{-Y}): a C{set} of any key whose value is C{user password}, before any
other request on a connection.

The replies are those of C{try_read_command_asciiauth} in C{proto_text.c} of 1.6.18, byte for byte. This includes one
peculiarity: of the replies to several failed attempts that arrive together, only the last one is sent. In two cases the
proxy differs: it closes the connection where memcached would read more bytes than a login can have, and it sends a
reply for each L{TOGETHER} failed attempts that arrive together.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from txconnpool.wire import ADMIT, ANSWER, CLOSE, MORE, Frame, IRequestReader, Login
from txconnpool.wire.memcache.integers import unsigned32
from txconnpool.wire.memcache.matching import MemcacheCommand
from txconnpool.wire.memcache.replies import AUTH

#: The maximum length of a line without an end, and of a user and password, in bytes.
LINE_MAX: Final = 2048

#: The maximum number of requests that are read at once, so that a flood of them does not hold up other clients.
TOGETHER: Final = 32

STORED: Final = b"STORED\r\n"
UNAUTHENTICATED: Final = b"CLIENT_ERROR unauthenticated\r\n"
FAILURE: Final = b"CLIENT_ERROR authentication failure\r\n"
BAD_TOKEN: Final = b"CLIENT_ERROR bad authentication token format\r\n"
BAD_END: Final = b"CLIENT_ERROR bad command line termination\r\n"


def loginRequest(login: Login) -> tuple[MemcacheCommand, bytes]:
    """
    @return: the command and the bytes of the request that logs in to a server.
    """
    token = b" ".join(login)
    return AUTH, b"set auth 0 0 %d\r\n%s\r\n" % (len(token), token)


class LoginReader(IRequestReader):
    """
    Reads the requests of a client until it has logged in: an L{IRequestReader<txconnpool.wire.IRequestReader>}.
    """

    def __init__(self, check: Callable[[Login | None], bool]) -> None:
        """
        @param check: called with the user and password of each attempt, or C{None} if they could not be read. Returns
            whether the client is logged in.
        """
        self._check = check

    def read(self, data: bytes, pos: int, room: int) -> Frame:
        """
        Read a client's bytes from C{pos}, see L{IRequestReader.read<txconnpool.wire.IRequestReader.read>}.

        @return: the frame; with C{ADMIT} if the client is logged in.
        """
        end, answer = pos, b""
        for _ in range(TOGETHER):
            command, stop, count, payload = self._attempt(data, end)
            if command is MORE and answer:
                return ANSWER, end, 0, answer
            if command is not ANSWER:
                return command, stop, count, payload
            end, answer = stop, payload
        return ANSWER, end, 0, answer

    def _attempt(self, data: bytes, pos: int) -> Frame:
        """
        Read one attempt to log in, or another request.
        """
        if len(data) - pos < 2:
            return MORE, pos, 0, 2  # memcached does not process a single byte
        newline = data.find(b"\n", pos)
        if newline < 0:
            return (MORE, pos, 0, 0) if len(data) - pos <= LINE_MAX else (CLOSE, len(data), 0, b"")
        words = _words(data[pos:newline].removesuffix(b"\r"))
        stop = newline + 1
        length = unsigned32(words[4]) if len(words) > 4 and words[0] == b"set" else None
        if length is None:
            return ANSWER, stop, 0, UNAUTHENTICATED
        if length > LINE_MAX:
            return CLOSE, len(data), 0, BAD_TOKEN
        end = stop + length + 2
        if end > len(data):
            return MORE, pos, 0, end - pos
        answer = self._verdict(data[stop:end])
        return (ADMIT if answer is STORED else ANSWER), end, 0, answer

    def _verdict(self, block: bytes) -> bytes:
        """
        @return: the reply to a login with this data block.
        """
        error = BAD_END
        login: Login | None = None
        if block[-2:] == b"\r\n":
            error = BAD_TOKEN
            words = _words(block[:-2])
            if len(words) >= 2:
                error = FAILURE
                login = words[0], words[1]
        return STORED if self._check(login) else error


def _words(line: bytes) -> list[bytes]:
    """
    @return: the words of a line as memcached splits it: separated by spaces, up to a NUL byte.
    """
    return [word for word in line.partition(b"\0")[0].split(b" ") if word]
