# Copyright txconnpool contributors. See LICENSE.
"""
Tests for L{txconnpool.wire.memcache.unsupported}: commands that servers do not support are answered by the proxy.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from txconnpool.wire import ANSWER, MORE
from txconnpool.wire.memcache.replies import GAT, GET, MS
from txconnpool.wire.memcache.requestreader import RequestReader
from txconnpool.wire.memcache.unsupported import META, PERIOD

OLD = b"ERROR %b needs memcached 1.6 or newer, one is 1.5.22\r\n"
CLOSES = b"ERROR gat is not supported: one closes its connections at it\r\n"

#: A request of each meta command.
REQUESTS = {
    b"mg": b"mg k v\r\n",
    b"ms": b"ms k 9\r\nflush_all\r\n",
    b"md": b"md k q\r\n",
    b"ma": b"ma k\r\n",
    b"mn": b"mn\r\n",
    b"me": b"me k\r\n",
}


class UnsupportedTests(SynchronousTestCase):
    """
    Tests for L{Unsupported} of a L{RequestReader}.
    """

    def setUp(self) -> None:
        """
        Make a reader.
        """
        self.now = 1000.0
        self.reader = RequestReader(now=lambda: self.now)
        self.unsupported = self.reader.unsupported

    def assertAnswered(self, request: bytes, line: bytes) -> None:
        """
        Assert that a whole request is answered by the proxy.
        """
        self.assertEqual(self.reader.read(request + b"get k\r\n", 0, 9), (ANSWER, len(request), 0, line))

    def assertForwarded(self, *names: bytes) -> None:
        """
        Assert that meta commands are forwarded.
        """
        for name in names:
            self.assertEqual(self.reader.read(REQUESTS[name], 0, 1)[1:3], (len(REQUESTS[name]), 1), name)

    def test_old(self) -> None:
        """
        While a server is older than 1.6, meta commands are answered, with a data block if they have one: an old server
        would take the block for commands. Other commands are forwarded.
        """
        self.assertEqual(set(REQUESTS), set(META))
        self.assertForwarded(*META)
        self.unsupported.greeted("one", b"VERSION 1.5.22\r\n")
        for name, request in REQUESTS.items():
            self.assertAnswered(request, OLD % name)
        self.assertEqual(self.reader.read(b"ms k 9\r\nflush", 0, 1)[0], MORE)
        for request in (b"get k\r\n", b"gets k\r\n", b"delete k\r\n", b"set k 0 0 1\r\nx\r\n", b"get a b\r\n"):
            self.assertEqual(self.reader.read(request, 0, 1)[1:3], (len(request), 1))
        self.unsupported.greeted("two", b"VERSION 1.6.40\r\n")
        self.assertAnswered(REQUESTS[b"mg"], OLD % b"mg")
        self.unsupported.greeted("one", b"VERSION 1.6.0\r\n")
        self.assertForwarded(*META)

    def test_versions(self) -> None:
        """
        Versions that are not memcached's are taken to know all commands.
        """
        for version in (b"VERSION 1.6.18", b"VERSION 1.10.1", b"VERSION mcrouter 1.0", b"VERSION 0.5.0", b"ERROR"):
            self.unsupported.greeted("one", version + b"\r\n")
            self.assertForwarded(*META)
        for version in (b"1.4.5-rc1", b"1.2.8", b"1.5"):
            self.unsupported.greeted("one", b"VERSION %b\r\n" % version)
            self.assertEqual(self.reader.read(b"mn\r\n", 0, 1)[0], ANSWER)

    def test_removed(self) -> None:
        """
        An old server that is removed does not count any more.
        """
        self.unsupported.greeted("one", b"VERSION 1.5.22\r\n")
        self.unsupported.keep(["one", "two"])
        self.assertAnswered(REQUESTS[b"mn"], OLD % b"mn")
        self.unsupported.keep(["two"])
        self.assertForwarded(*META)

    def test_limited(self) -> None:
        """
        Other limits change nothing.
        """
        self.unsupported.greeted("one", b"VERSION 1.5.22\r\n")
        self.reader.limit(100, frozenset([b"touch"]), None)
        self.assertAnswered(REQUESTS[b"mg"], OLD % b"mg")
        self.assertAnswered(b"ms k 101\r\n%b\r\n" % (b"x" * 101), OLD % b"ms")

    def test_closed(self) -> None:
        """
        A command at which a server closes its connections is answered for a while, from the second time on.
        """
        request = b"gat 0 k\r\n"
        self.unsupported.closed("one", GAT)
        self.unsupported.closed("two", GAT)
        self.assertEqual(self.reader.read(request, 0, 1)[0], GAT)
        self.unsupported.closed("one", GAT)
        self.assertAnswered(request, CLOSES)
        self.assertAnswered(b"gat 0 k l\r\n", CLOSES)
        self.assertEqual(self.reader.read(REQUESTS[b"ms"], 0, 1)[0], MS)
        self.now += PERIOD
        self.assertEqual(self.reader.read(request, 0, 1)[0], GAT)

    def test_closedAndRemoved(self) -> None:
        """
        Such a server that is removed does not count any more.
        """
        for _ in range(2):
            self.unsupported.closed("one", GAT)
        self.unsupported.keep(["two"])
        self.assertEqual(self.reader.read(b"gat 0 k\r\n", 0, 1)[0], GAT)

    def test_known(self) -> None:
        """
        A server that closes a connection at a command that every server knows has another reason.
        """
        for _ in range(5):
            self.unsupported.closed("one", GET)
        self.assertEqual(self.reader.read(b"get k\r\n", 0, 1)[0], GET)

    def test_silent(self) -> None:
        """
        A silent request has no reply.
        """
        touch = self.reader.read(b"touch k 0\r\n", 0, 1)[0]
        for _ in range(2):
            self.unsupported.closed("one", touch)  # type: ignore[arg-type]  # it is a command
        self.assertAnswered(b"touch k 0 noreply\r\n", b"")
        self.assertAnswered(b"touch k 0\r\n", CLOSES.replace(b"gat", b"touch"))
