# -*- test-case-name: tests.wire.memcache.test_auth -*-
# Copyright txconnpool contributors. See LICENSE.
"""
The login of memcached's text protocol (its option C{-Y}): a C{set} of any key whose value is C{user password}, before
anything else is said on a connection.

C{proto_text.c}, C{try_read_command_asciiauth} of 1.6.18, is followed byte for byte, its oddity included: of the answers
to several failed attempts that arrive together it sends the last one only. Who is not let in is closed rather than
listened to where memcached would read more than a login can need.
"""

from __future__ import annotations

from hmac import compare_digest
from typing import Final

from txconnpool.wire import ADMIT, ANSWER, CLOSE, MORE, Command, Verdict
from txconnpool.wire.memcache.replies import AUTH

#: Bytes of a line without an end, and of a user and password, at most.
LINE_MAX: Final = 2048

STORED: Final = b"STORED\r\n"
UNAUTHENTICATED: Final = b"CLIENT_ERROR unauthenticated\r\n"
FAILURE: Final = b"CLIENT_ERROR authentication failure\r\n"
BAD_TOKEN: Final = b"CLIENT_ERROR bad authentication token format\r\n"
BAD_END: Final = b"CLIENT_ERROR bad command line termination\r\n"


def login(token: bytes) -> tuple[bytes, Command]:
    """
    The request with which a client logs in, and the command of its reply.

    @param token: the user, a space and the password.
    """
    return b"set auth 0 0 %d\r\n%s\r\n" % (len(token), token), AUTH


class Gate:
    """
    Reads the requests of a client until it has logged in.

    @ivar tokens: who is let in: the user, a space and the password of each. C{None}: the gate is open.
    @ivar logins: how many attempts there have been.
    @ivar failures: how many of them failed.
    """

    def __init__(self, tokens: tuple[bytes, ...] | None = None) -> None:
        self.tokens = tokens
        self.logins = 0
        self.failures = 0

    def requests(self, data: bytes, pos: int, most: int) -> Verdict:
        """
        Look at a client's bytes from C{pos}, as L{txconnpool.wire.memcache.dialect.Memcache.requests} does.

        @return: C{ADMIT} when the client is let in, or a directive.
        """
        end, answer = pos, b""
        while True:
            command, stop, count, payload = self._attempt(data, end)
            if command is MORE and answer:
                return ANSWER, end, 0, answer
            if command is not ANSWER:
                return command, stop, count, payload
            end, answer = stop, payload

    def _attempt(self, data: bytes, pos: int) -> Verdict:
        """
        Look at one attempt to say something.
        """
        if len(data) - pos < 2:
            return MORE, pos, 0, 2  # memcached does not look at a single byte
        newline = data.find(b"\n", pos)
        if newline < 0:
            return (MORE, pos, 0, 0) if len(data) - pos <= LINE_MAX else (CLOSE, len(data), 0, b"")
        words = _words(data[pos:newline].removesuffix(b"\r"))
        stop = newline + 1
        if len(words) < 5 or words[0] != b"set" or not words[4].isdigit():
            return ANSWER, stop, 0, UNAUTHENTICATED
        if len(words[4]) > 9 or int(words[4]) > LINE_MAX:
            return CLOSE, len(data), 0, BAD_TOKEN
        end = stop + int(words[4]) + 2
        if end > len(data):
            return MORE, pos, 0, end - pos
        self.logins += 1
        answer = self._verdict(data[stop:end])
        if answer is STORED:
            return ADMIT, end, 0, answer
        self.failures += 1
        return ANSWER, end, 0, answer

    def _verdict(self, block: bytes) -> bytes:
        """
        Judge the data block of a login.
        """
        if block[-2:] != b"\r\n":
            return BAD_END
        words = _words(block[:-2])
        if len(words) < 2:
            return BAD_TOKEN
        token = b" ".join(words[:2])
        known = False
        for each in self.tokens or ():  # all of them: how long it takes is not to tell which one is near
            known |= compare_digest(token, each)
        return STORED if known else FAILURE


def _words(line: bytes) -> list[bytes]:
    """
    What memcached takes for words: up to a NUL byte, between spaces.
    """
    return [word for word in line.partition(b"\0")[0].split(b" ") if word]
