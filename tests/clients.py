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


#: Requests of all kinds, and the replies of a proxy with a C{max-item-size} of 2048.
EXCHANGES: list[tuple[bytes, bytes]] = [
    (b"get a\r\n", get(b"a")),
    (b"nonsense\r\n", b"ERROR\r\n"),
    (put(b"a", 10), b"STORED\r\n"),
    (put(b"a", 10, b" noreply"), b""),
    (b"get a b missc\r\n", answer(b"get a b missc\r\n")[0]),
    (b"get missa\r\nget missb\r\nget c\r\n", get(b"missa", b"missb", b"c")),
    (b"mg a v q\r\n", answer(b"mg a v\r\n")[0]),
    (b"mg missa v q\r\n", b""),
    (b"md a q\r\n", b""),
    (b"md missa q\r\n", b"NF\r\n"),
    (b"ms a 3 q\r\nend\r\n", b""),
    (b"mn\r\n", b"MN\r\n"),
    (b"incr a x\r\n", b"CLIENT_ERROR invalid numeric delta argument\r\n"),
    (b"incr a 1\r\n", answer(b"incr a 1\r\n")[0]),
    (b"set %s 0 0 3\r\nabc\r\n" % (b"k" * 251), BAD_LINE),
    (b"cas a 0 0 3 7\r\nget\r\n", b"STORED\r\n"),
    (put(b"big", 3000), TOO_LARGE),
    (put(b"big", 3000, b" noreply"), b""),
    (b"stats proxy\r\n", STATISTICS),
    (b"delete a noreply\r\n", b""),
    (b"delete missa\r\n", b"NOT_FOUND\r\n"),
    (b"flush_all\r\n", b"OK\r\n"),
    (b"flush_all noreply\r\n", b""),
    (b"verbosity 1\r\n", b"OK\r\n"),
    (b"version\r\n", b"VERSION 1.6.18\r\n"),
    (b"gets a\r\n", answer(b"gets a\r\n")[0]),
]


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
        self.assertEqual((stage.sessions.sessions, stage.unread.total), ({}, 0))
        assertClosed(self, stage)
