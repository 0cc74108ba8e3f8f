# -*- test-case-name: tests.wire.memcache.test_auth -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Tests for L{txconnpool.wire.memcache.auth}: the replies to clients that have not logged in.
"""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.bugs import covers
from txconnpool.proxy.logins import LoginGate
from txconnpool.wire import ADMIT, ANSWER, CLOSE, MORE, Login
from txconnpool.wire.memcache.auth import (
    BAD_END,
    BAD_TOKEN,
    FAILURE,
    LINE_MAX,
    STORED,
    UNAUTHENTICATED,
    LoginReader,
    loginRequest,
)
from txconnpool.wire.memcache.matching import matchReplies

LOGIN = b"set x 0 0 10\r\njoe secret\r\n"
WRONG = b"set x 0 0 9\r\njoe wrong\r\n"

#: First requests of clients, and the beginnings of the replies: C{STORED} logs in, C{b""} closes the connection,
#: C{None} waits for more bytes. L{tests.real.test_auth} compares the replies with those of memcached 1.6.18.
FIRST: list[tuple[bytes, bytes | None]] = [
    (LOGIN, STORED),
    (b"set k f e 10 a b c d\r\njoe secret\r\n", STORED),
    (b"set x 0 0 10 noreply\r\njoe secret\r\n", STORED),
    (b" set  x  0  0  10 \r\njoe secret\r\n", STORED),
    (b"set x 0 0 10\njoe secret\r\n", STORED),
    (b"set " + b"k" * 2100 + b" 0 0 10\r\njoe secret\r\n", STORED),
    (b"set x 0 0 010\r\njoe secret\r\n", STORED),
    (b"set x 0 0 10 \0a\r\njoe secret\r\n", STORED),
    (b"set x 0 0 11\r\njoe  secret\r\n", STORED),
    (b"set x 0 0 12\r\n joe secret \r\n", STORED),
    (b"set x 0 0 16\r\njoe secret extra\r\n", STORED),
    (b"set x 0 0 12\r\njoe secret\0a\r\n", STORED),
    (b"set x 0 0 7\r\ncol a:b\r\n", STORED),
    (WRONG, FAILURE),
    (b"set x 0 0 9\r\njoe secre\r\n", FAILURE),
    (b"set x 0 0 11\r\njoe secrets\r\n", FAILURE),
    (b"set x 0 0 10\r\njoe secr\0t\r\n", FAILURE),
    (b"set x 0 0 12\r\njoe  secret\n\r\n", FAILURE),
    (b"set x 0 0 6\r\nabcdef\r\n", BAD_TOKEN),
    (b"set x 0 0 0\r\n\r\n", BAD_TOKEN),
    (b"set x 0 0 1\r\na\r\n", BAD_TOKEN),
    (b"set x 0 0 4\r\njoe \r\n", BAD_TOKEN),
    (b"set x 0 0 7\r\n secret\r\n", BAD_TOKEN),
    (b"set x 0 0 10\njoe secret\n\n", BAD_END),
    (b"set x 0 0 10\r\njoe secretXX", BAD_END),
    (b"get a\r\n", UNAUTHENTICATED),
    (b"version\r\n", UNAUTHENTICATED),
    (b"quit\r\n", UNAUTHENTICATED),
    (b"mn\r\n", UNAUTHENTICATED),
    (b"\r\n", UNAUTHENTICATED),
    (b"GET / HTTP/1.1\r\n", UNAUTHENTICATED),
    (b"sett k f e 10\r\n", UNAUTHENTICATED),
    (b"set\0 x 0 0 10\r\n", UNAUTHENTICATED),
    (b"set x 0 0\r\n", UNAUTHENTICATED),
    (b"set x 0 0 abc\r\n", UNAUTHENTICATED),
    (b"set x 0 0 -1\r\n", UNAUTHENTICATED),
    (b"a" * 5000 + b"\r\n", UNAUTHENTICATED),
    (b"get " + b"a" * 5000 + b"\r\n", UNAUTHENTICATED),
    # Of several at once, only the last reply is sent.
    (b"get a\r\nget b\r\n", UNAUTHENTICATED),
    (WRONG + b"get b\r\n", UNAUTHENTICATED),
    (b"get a\r\n" + WRONG, FAILURE),
    (WRONG + LOGIN, STORED),
    (b"get a\r\n" + LOGIN, STORED),
    (b"a" * 2049, b""),
    (b"get " + b"a" * 2045, b""),
    (b"\x80" * 2049, b""),
    (b"a" * 2048, None),
    (b"\x80" + b"\0" * 23, None),
    (b"\n", None),
    (b"s", None),
    (b"set x 0 0 10", None),
    (b"set x 0 0 10\r\njoe secret", None),
    (b"set x 0 0 10\njoe secret\n", None),
    (b"set x 0 0 2046\r\n", None),
]  # fmt: skip


def gate(logins: tuple[Login, ...] = ((b"ann", b"pw2"), (b"joe", b"secret"), (b"col", b"a:b"))) -> LoginGate:
    """
    @return: a gate with a few users.
    """
    gate = LoginGate()
    gate.accepted = logins
    return gate


def reader() -> LoginReader:
    """
    @return: a reader with these users.
    """
    return LoginReader(gate().check)


class LoginReaderTests(SynchronousTestCase):
    """
    Tests for L{LoginReader}.
    """

    def test_first(self) -> None:
        """
        The reply to any first request is that of memcached.
        """
        for data, answer in FIRST:
            command, end, count, payload = reader().read(data, 0, 16)
            self.assertEqual(count, 0)
            if answer is None:
                self.assertIs(command, MORE, data)
            elif answer == b"":
                self.assertEqual((command, end, payload), (CLOSE, len(data), b""), data)
            else:
                self.assertEqual(
                    (command, end, payload), (ADMIT if answer == STORED else ANSWER, len(data), answer), data
                )

    @covers("30")
    def test_behind(self) -> None:
        """
        Bytes after the login are left for the request reader.
        """
        self.assertEqual(reader().read(b"x" + LOGIN + b"get a\r\n", 1, 1), (ADMIT, 1 + len(LOGIN), 0, STORED))

    def test_incomplete(self) -> None:
        """
        Complete requests are answered without waiting for the bytes that follow.
        """
        for rest in (b"get", LOGIN[:-1]):
            self.assertEqual(reader().read(b"get a\r\n" + rest, 0, 1), (ANSWER, 7, 0, UNAUTHENTICATED))

    def test_need(self) -> None:
        """
        The size of an incomplete login is known as soon as its line is complete.
        """
        self.assertEqual(reader().read(b"xx" + LOGIN[:5], 2, 1), (MORE, 2, 0, 0))
        self.assertEqual(reader().read(b"xx" + LOGIN[:14], 2, 1), (MORE, 2, 0, len(LOGIN)))
        self.assertEqual(reader().read(b"xx" + LOGIN[:1], 2, 1), (MORE, 2, 0, 2))

    def test_long(self) -> None:
        """
        A login that is too long gets an error and closes the connection before it is received.
        """
        for length in (b"2049", b"99999999999", b"+2049"):
            data = b"set x 0 0 " + length + b"\r\n"
            self.assertEqual(reader().read(data, 0, 1), (CLOSE, len(data), 0, BAD_TOKEN), length)

    def test_length(self) -> None:
        """
        The length is a number as memcached reads it.
        """
        for length in (b"+9", b"0009", b"\t9\tx", b"4294967305"):
            data = LOGIN.replace(b" 9\r", b" " + length + b"\r")
            self.assertEqual(reader().read(data, 0, 1), (ADMIT, len(data), 0, STORED), length)
        for length in (b"x", b"9x", b"-1", b"9" * 5000):
            data = b"set x 0 0 " + length + b"\r\n"
            self.assertEqual(reader().read(data, 0, 1), (ANSWER, len(data), 0, UNAUTHENTICATED), length)

    def test_counts(self) -> None:
        """
        Attempts to log in and their failures are counted, other requests are not.
        """
        door = gate()
        for data in (b"get a\r\n", WRONG, b"set x 0 0 2\r\nab\r\n", WRONG + LOGIN, LOGIN):
            LoginReader(door.check).read(data, 0, 1)
        self.assertEqual((door.attempts, door.failures), (5, 3))

    def test_nobody(self) -> None:
        """
        Without users no login is valid.
        """
        self.assertEqual(LoginReader(gate(()).check).read(LOGIN, 0, 1), (ANSWER, len(LOGIN), 0, FAILURE))

    @settings(deadline=None)
    @given(
        st.lists(
            st.sampled_from([LOGIN, WRONG, b"get a\r\n", b"set x 0 0 ", b"3\r\n", b"12", b"\r\n", b"\n", b"a" * 1500])
            | st.binary(max_size=20)
        ),
        st.integers(0, 20),
    )
    def test_anyBytes(self, says: list[bytes], pos: int) -> None:
        """
        No bytes raise an exception, each answer consumes bytes, and only the right password logs in.
        """
        data = b"".join(says)
        command, end, count, payload = reader().read(data, pos, 1)
        self.assertIn(command, (MORE, ANSWER, CLOSE, ADMIT))
        self.assertEqual(count, 0)
        if command is MORE:
            self.assertEqual(end, pos)
            self.assertTrue(payload == 0 or payload > len(data) - pos)
            self.assertLessEqual(payload, LINE_MAX + len(data) + 2)
        else:
            self.assertTrue(pos < end <= len(data))
        if command is ADMIT:
            self.assertIn(b"joe secret", data[pos:end])


class LoginTests(SynchronousTestCase):
    """
    Tests for L{loginRequest}.
    """

    def test_letsIn(self) -> None:
        """
        The login request is accepted by a L{LoginReader}.
        """
        _, request = loginRequest((b"joe", b"secret"))
        self.assertEqual(reader().read(request, 0, 1), (ADMIT, len(request), 0, STORED))

    def test_replies(self) -> None:
        """
        Every reply of a server to the login request is one reply.
        """
        command, _ = loginRequest((b"joe", b"secret"))
        for reply in (STORED, FAILURE, BAD_TOKEN, b"ERROR\r\n", b"SERVER_ERROR out of memory storing object\r\n"):
            self.assertEqual(matchReplies(reply, 0, command, 1, -1), (len(reply), 0, -1))
