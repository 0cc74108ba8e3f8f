# Copyright txconnpool contributors. See LICENSE.
"""
What the tests of sessions share.
"""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.memcached import answer
from tests.stage import Stage, assertClosed, assertTidy
from txconnpool.proxy import session

#: So many requests may a session of these tests have in flight at first, for several to be lost at once.
FIRST_WINDOW = 16

TOO_LARGE = b"SERVER_ERROR object too large for cache\r\n"
BAD_LINE = b"CLIENT_ERROR bad command line format\r\n"
STATISTICS = b"STAT answer 42\r\nEND\r\n"
LOST = b"SERVER_ERROR upstream connection lost (server0)\r\n"
REFUSED = b"SERVER_ERROR upstream unavailable: connection refused (server0)\r\n"


def get(*keys: bytes) -> bytes:
    """
    @return: the answers to a C{get} of each key.
    """
    return b"".join(answer(b"get %s\r\n" % key)[0] for key in keys)


def keys(count: int, first: int = 0) -> list[bytes]:
    """
    @return: so many different keys.
    """
    return [b"key%d" % number for number in range(first, first + count)]


def gets(names: list[bytes]) -> bytes:
    """
    @return: a C{get} for each key.
    """
    return b"".join(b"get %s\r\n" % name for name in names)


def put(key: bytes, size: int, noreply: bytes = b"") -> bytes:
    """
    @return: a C{set} of so many bytes.
    """
    return b"set %s 0 0 %d%s\r\n%s\r\n" % (key, size, noreply, b"x" * size)


class SessionTestCase(SynchronousTestCase):
    """
    What the tests of sessions share.
    """

    def stage(self, servers: int = 1, **settings: Any) -> Stage:
        """
        Make a stage whose books are looked at when the test ends: by then nothing may be in flight any more.
        """
        self.patch(session, "FIRST_WINDOW", FIRST_WINDOW)
        stage = Stage(servers, **settings)
        # A connection that is lost within its first second counts as a failed dial.
        stage.clock.advance(2)
        self.addCleanup(self.strike, stage)
        return stage

    def strike(self, stage: Stage) -> None:
        """
        Look at the books, then close everything, and see that nothing is left behind.
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
