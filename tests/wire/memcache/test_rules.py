# Copyright txconnpool contributors. See LICENSE.
"""
Tests for what differs between versions of memcached in the check of requests.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from txconnpool.wire import ANSWER, CLOSE
from txconnpool.wire.memcache.dialect import Memcache
from txconnpool.wire.memcache.requestreader import RequestReader
from txconnpool.wire.memcache.rules import EARLIER, MODERN, rulesOf, versionOf

BAD_LINE = b"CLIENT_ERROR bad command line format\r\n"

#: Requests, and the replies to those that are rejected: before 1.6.40, and since then. C{None}: it is forwarded.
REQUESTS = (
    (b"\r\n", b"ERROR\r\n", BAD_LINE),
    (b"mn\n", None, BAD_LINE),
    (b"get\r\n", b"ERROR\r\n", BAD_LINE),
    (b"gat 0\r\n", b"END\r\n", BAD_LINE),
    (b"incr n\r\n", b"ERROR\r\n", BAD_LINE),
    (b"incr n 1 x y\r\n", b"ERROR\r\n", None),
    (b"touch k 0 x y\r\n", b"ERROR\r\n", None),
    (b"verbosity\r\n", b"ERROR\r\n", BAD_LINE),
    (b"flush_all 0 1 2 3\r\n", b"ERROR\r\n", None),
    (b"delete k 5\r\n", b"CLIENT_ERROR bad command line format.  Usage: delete <key> [noreply]\r\n", None),
    (b"get a\0b\r\n", BAD_LINE, None),
    (b"set a\0b 0 0 1\r\nx\r\n", BAD_LINE, None),
    (b"mg a\0b v\r\n", BAD_LINE, None),
    (b" get k\r\n", None, b"ERROR\r\n"),
    (b" set k 0 0 1\r\nx\r\n", None, b"ERROR\r\n"),
    (b" version noreply\r\n", None, b""),
    (b" flush_all\r\n", None, None),
    (b"bogus\r\n", b"ERROR\r\n", b"ERROR\r\n"),
    (b"bogus noreply\r\n", b"ERROR\r\n", b""),
    (b"mg\r\n", b"ERROR\r\n", BAD_LINE),
    (b"mg k v v\r\n", b"CLIENT_ERROR duplicate flag\r\n", b"CLIENT_ERROR duplicate flag\r\n"),
    (b"mg k ?\r\n", b"CLIENT_ERROR invalid flag\r\n", BAD_LINE),
    (b"mg k Z\r\n", b"CLIENT_ERROR invalid flag\r\n", b"CLIENT_ERROR invalid flag\r\n"),
    (b"mg k MSS\r\n", b"CLIENT_ERROR incorrect length for M token\r\n", None),
    (b"mg k Oa\0b\r\n", b"CLIENT_ERROR invalid flag\r\n", None),
    (b"md k k k\r\n", b"CLIENT_ERROR invalid or duplicate flag\r\n", b"CLIENT_ERROR duplicate flag\r\n"),
    (b"md k Tx\r\n", b"CLIENT_ERROR invalid or duplicate flag\r\n",
     b"CLIENT_ERROR bad token in command line format\r\n"),
    (b"md k F\r\n", b"CLIENT_ERROR invalid or duplicate flag\r\n", BAD_LINE),
    (b"ma n M++\r\n", b"CLIENT_ERROR invalid or duplicate flag\r\n", None),
    (b"ma n M\r\n", b"CLIENT_ERROR invalid or duplicate flag\r\n", b"CLIENT_ERROR invalid mode for ma M token\r\n"),
    (b"ma n v v\r\n", b"CLIENT_ERROR invalid or duplicate flag\r\n", b"CLIENT_ERROR invalid or duplicate flag\r\n"),
    (b"ma " + b"k" * 251 + b"\r\n", BAD_LINE, b"CLIENT_ERROR invalid or duplicate flag\r\n"),
    (b"ms k 4 MSS\r\nabcd\r\n", b"CLIENT_ERROR incorrect length for M token\r\n", None),
    (b"ms k 4 M\r\nabcd\r\n", b"CLIENT_ERROR incorrect length for M token\r\n",
     b"CLIENT_ERROR invalid mode for ms M token\r\n"),
    (b"ms k 1 ?\r\nx\r\n", b"CLIENT_ERROR invalid flag\r\n", BAD_LINE),
    (b"ms k 1 c f h k l O1 q s t u v x P L T0 N0 R0\r\nx\r\n", b"CLIENT_ERROR options flags too long\r\n", None),
    (b"ms k 1 c f h k l O1 q s t u v x P L T0 N0 R0 I\r\nx\r\n", b"CLIENT_ERROR options flags too long\r\n",
     b"CLIENT_ERROR options flags are too long\r\n"),
    (b"ma n c f h k l O1 s t u v x P L T0 N0 R0 MI D1 J1\r\n", b"CLIENT_ERROR options flags too long\r\n",
     b"CLIENT_ERROR invalid or duplicate flag\r\n"),
    (b"me k b\r\n", BAD_LINE, None),
    (b"me k ?\r\n", None, BAD_LINE),
)  # fmt: skip


class RulesTests(SynchronousTestCase):
    """
    Tests for the two sets of rules.
    """

    def test_requests(self) -> None:
        """
        Requests are accepted or rejected as servers of a version do. A rejected one is consumed whole.
        """
        for rules, place in ((EARLIER, 1), (MODERN, 2)):
            reader = RequestReader()
            reader.follow(rules)
            for row in REQUESTS:
                request, expected = row[0], row[place]
                what, end, _, payload = reader.read(request + b"mn\r\n", 0, 1)
                self.assertEqual(end, len(request), row)
                self.assertEqual(payload if what is ANSWER else None, expected, (rules, request, payload))

    def test_ends(self) -> None:
        """
        With spaces before it, C{quit} is unknown too, and a line of HTTP needs two words.
        """
        reader = RequestReader()
        for request, before, since in ((b" quit\r\n", CLOSE, ANSWER), (b"HTTP/1.1\r\n", CLOSE, ANSWER),
                                       (b"GET / HTTP/1.1\r\n", CLOSE, CLOSE)):  # fmt: skip
            for rules, expected in ((EARLIER, before), (MODERN, since)):
                reader.follow(rules)
                self.assertIs(reader.read(request, 0, 1)[0], expected)

    def test_pieces(self) -> None:
        """
        The data block of a command with spaces before it is discarded although it has not arrived.
        """
        reader = RequestReader()
        reader.follow(MODERN)
        request = b" set k 0 0 10\r\n"
        self.assertEqual(reader.read(request + b"x", 0, 1), (ANSWER, len(request) + 12, 0, b"ERROR\r\n"))

    def test_manyWords(self) -> None:
        """
        C{noreply} is looked for among the first words only.
        """
        reader = RequestReader()
        reader.follow(MODERN)
        for count, reply in ((22, b""), (23, b"ERROR\r\n")):
            self.assertEqual(reader.read(b"x " * count + b"noreply\r\n", 0, 1)[3], reply)

    def test_versions(self) -> None:
        """
        The rules of 1.6.40 need that all servers are known to have it.
        """
        self.assertIs(rulesOf([]), EARLIER)
        self.assertIs(rulesOf([b"1.6.40"]), MODERN)
        self.assertIs(rulesOf([b"1.6.45", b"1.6.40_5_gabc", b"2.0"]), MODERN)
        for version in (b"1.6.39", b"1.6.9", b"1.4.5", b"mcrouter 41", b""):
            self.assertIs(rulesOf([b"1.6.45", version]), EARLIER)

    def test_compared(self) -> None:
        """
        Versions are compared by their numbers.
        """
        self.assertEqual(versionOf(b"1.6.45-rc1"), (1, 6, 45))
        self.assertEqual(versionOf(b"1.6"), (1, 6))
        self.assertEqual(versionOf(b"unknown"), ())

    def test_followed(self) -> None:
        """
        The reader of a dialect follows the versions of the servers, also for existing clients. If another pool stands
        in for a server, it does not.
        """
        dialect = Memcache()
        reader = dialect.requestReader().read(b"get\r\n", 0, 1)[3]

        def greet(server: str, version: bytes) -> None:
            handshake = dialect.handshake(None, server)
            next(handshake)
            self.assertRaises(StopIteration, handshake.send, b"VERSION %b\r\n" % version)

        def check(reply: bytes) -> None:
            self.assertEqual(reader.read(b"get\r\n", 0, 1)[3], reply)

        check(b"ERROR\r\n")
        greet("a", b"1.6.45")
        check(BAD_LINE)
        greet("b", b"1.6.18")
        check(b"ERROR\r\n")
        dialect.keep(["a", "c"])
        check(BAD_LINE)
        dialect.standIn(True)
        check(b"ERROR\r\n")
        dialect.standIn(False)
        check(BAD_LINE)
        greet("a", b"1.6.18")
        check(b"ERROR\r\n")

    def test_deletion(self) -> None:
        """
        A C{delete} of the key C{noreply} is sent so that every version replies. It is silent if it is so for 1.6.40.
        """
        reader = RequestReader()
        for rules, silent in ((EARLIER, False), (MODERN, True)):
            reader.follow(rules)
            command, _, count, payload = reader.read(b"delete noreply\r\n", 0, 1)
            self.assertEqual((count, payload), (1, b"delete noreply 0\r\n"))
            self.assertEqual(command.visible(b"DELETED\r\n") == b"", silent)  # type: ignore[union-attr]
            self.assertEqual(reader.read(b"delete noreply noreply\r\n", 0, 1)[3], b"delete noreply 0\r\n")
        (_, request, _) = RequestReader(maxItemSize=4).read(b"set noreply 0 0 9\r\n", 0, 1)[3]
        self.assertEqual(request, b"delete noreply 0\r\n")
        self.assertEqual(reader.read(b"delete noreplyx\r\n", 0, 1)[3], None)
