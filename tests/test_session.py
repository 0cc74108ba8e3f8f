# -*- test-case-name: tests.test_session -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Tests for L{txconnpool.session}: clients in, answers out, over a pool and servers in memory.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tests.support import Stage, answer, assertTidy


def get(key: bytes) -> bytes:
    """
    @return: the answer to a C{get} of C{key}.
    """
    return answer(b"get %s\r\n" % key)[0]


class BooksTests(SynchronousTestCase):
    """
    Tests for the accounts that sessions, connections and the pool keep together.
    """

    def test_start(self) -> None:
        """
        A connection whose handshake is done is idle once: given away, it is idle no more.
        """
        stage = Stage(minimum=2, maximum=2)
        assertTidy(self, stage.pool)
        first, second = stage.client(), stage.client()
        first.send(b"get a\r\n")
        second.send(b"get b\r\n")
        for line in stage.lines:
            line.look()
        self.assertEqual([len(line.asked) for line in stage.lines], [1, 1])
        assertTidy(self, stage.pool, quiet=False)
        stage.serve()
        assertTidy(self, stage.pool)

    def test_everywhereFromAReply(self) -> None:
        """
        What goes to every server may be sent while the last reply of the only connection to one is being delivered.
        """
        stage = Stage(2)
        client = stage.client()
        self.assertEqual(stage.ask(client, b"get a\r\nflush_all\r\nget b\r\n"), get(b"a") + b"OK\r\n" + get(b"b"))
        assertTidy(self, stage.pool)
