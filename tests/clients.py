# Copyright txconnpool contributors. See LICENSE.
"""
A test case for sessions, and requests and replies to compare with.
"""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.memcached import answer
from tests.stage import Stage, assertClosed, assertTidy
from txconnpool.proxy import ordering

#: The requests that a session of these tests may have in flight at first: enough for several to be lost at once.
FIRST_WINDOW = 16

TOO_LARGE = b"SERVER_ERROR object too large for cache\r\n"
BAD_LINE = b"CLIENT_ERROR bad command line format\r\n"
STATISTICS = b"STAT answer 42\r\nEND\r\n"
LOST = b"SERVER_ERROR upstream connection lost (server0)\r\n"
REFUSED = b"SERVER_ERROR upstream unavailable: connection refused (server0)\r\n"


def get(*keys: bytes) -> bytes:
    """
    @return: the reply to a C{get} of these keys, each in a request of its own.
    """
    return b"".join(answer(b"get %s\r\n" % key)[0] for key in keys)


def keys(count: int, first: int = 0) -> list[bytes]:
    return [b"key%d" % number for number in range(first, first + count)]


def gets(names: list[bytes]) -> bytes:
    """
    @return: a C{get} for each key.
    """
    return b"".join(b"get %s\r\n" % name for name in names)


def put(key: bytes, size: int, noreply: bytes = b"") -> bytes:
    """
    @return: a C{set} of a value of so many bytes.
    """
    return b"set %s 0 0 %d%s\r\n%s\r\n" % (key, size, noreply, b"x" * size)


class SessionTestCase(SynchronousTestCase):
    """
    A test case with a L{Stage}.
    """

    def stage(self, servers: int = 1, **settings: Any) -> Stage:
        """
        Set up a stage. At the end of the test it is closed, and nothing may be in flight or left.
        """
        self.patch(ordering, "FIRST_WINDOW", FIRST_WINDOW)
        stage = Stage(servers, **settings)
        # A connection that is lost within its first second counts as a failed dial.
        stage.clock.advance(2)
        self.addCleanup(self.strike, stage)
        return stage

    def strike(self, stage: Stage) -> None:
        """
        Let all requests end, check the records of the pool, close everything, and check that nothing is left.
        """
        for server in stage.servers:
            server.mode = "accept"
        for client in stage.clients:
            client.reads = True
            client.read()
        stage.serve()
        stage.clock.advance(2)
        stage.serve()
        assertTidy(self, stage.pool)
        stage.sessions.abort()
        stage.turns()
        self.assertEqual((stage.sessions.sessions, stage.unread.total), (set(), 0))
        assertClosed(self, stage)
