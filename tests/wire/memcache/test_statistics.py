# Copyright txconnpool contributors. See LICENSE.
"""
Tests for the statistics of memcached servers.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from txconnpool.wire import ServerStatistics
from txconnpool.wire.memcache.statistics import serverStatistics, totals

ONE = (
    b"STAT pid 10\r\nSTAT uptime 500\r\nSTAT time 1700000000\r\nSTAT version 1.6.45\r\nSTAT libevent 2.1.13-stable\r\n"
    b"STAT pointer_size 64\r\nSTAT rusage_user 1.900000\r\nSTAT curr_items 3\r\nSTAT limit_maxbytes 67108864\r\n"
    b"STAT accepting_conns 1\r\nSTAT hash_power_level 16\r\nSTAT slab_reassign_last_busy_status none\r\nEND\r\n"
)
OTHER = (
    b"STAT pid 20\r\nSTAT uptime 90\r\nSTAT time 1700000001\r\nSTAT version 1.6.9\r\nSTAT libevent 2.1.12-stable\r\n"
    b"STAT pointer_size 64\r\nSTAT rusage_user 2.200001\r\nSTAT curr_items 40\r\nSTAT limit_maxbytes 67108864\r\n"
    b"STAT accepting_conns 0\r\nSTAT hash_power_level 18\r\nSTAT get_flushed 7\r\nEND\r\n"
)
DOWN = b"SERVER_ERROR upstream unavailable: connection refused (tcp:192.0.2.1:1)\r\n"


class TotalsTests(SynchronousTestCase):
    """
    Tests for the totals of several servers.
    """

    def test_one(self) -> None:
        """
        Of one server all values are its own, in its order.
        """
        lines = [line.split(b" ")[1:] for line in ONE.split(b"\r\n")[:-2]]
        expected = [(name.decode(), value.decode()) for name, value in lines]
        self.assertEqual(totals([ONE]), expected)
        self.assertEqual(totals([DOWN, ONE]), expected)

    def test_several(self) -> None:
        """
        Counters and sizes are added, times and levels are the largest ones; what identifies a server is that of the
        first. The version is the lowest.
        """
        self.assertEqual(
            dict(totals([ONE, DOWN, OTHER]) or ()),
            {
                "pid": "10",
                "uptime": "500",
                "time": "1700000001",
                "version": "1.6.9",
                "libevent": "2.1.13-stable",
                "pointer_size": "64",
                "rusage_user": "4.100001",
                "curr_items": "43",
                "limit_maxbytes": "134217728",
                "accepting_conns": "0",
                "hash_power_level": "18",
                "slab_reassign_last_busy_status": "none",
                "get_flushed": "7",
            },
        )

    def test_none(self) -> None:
        """
        There are no totals if no server has answered.
        """
        self.assertIsNone(totals([DOWN, DOWN]))
        self.assertIsNone(totals([]))
        self.assertEqual(totals([b"END\r\n"]), [])

    def test_noNumber(self) -> None:
        """
        Values that are not numbers, or not in all servers, are not added: the first one is used.
        """
        replies = [b"STAT x yes\r\nSTAT y 1\r\nEND\r\n", b"STAT x no\r\nSTAT y -\r\nEND\r\n"]
        self.assertEqual(totals(replies), [("x", "yes"), ("y", "1")])


class GroupTests(SynchronousTestCase):
    """
    Tests for the groups of statistics that clients may ask for.
    """

    def asked(self, *words: bytes) -> ServerStatistics:
        """
        @return: what is asked of the servers.
        """
        asked = serverStatistics(words, True)
        assert isinstance(asked, ServerStatistics), asked
        return asked

    def test_shared(self) -> None:
        """
        Requests that change nothing may have the reply that another client got.
        """
        for group in (b"", b"items", b"slabs", b"sizes", b"settings", b"conns", b"extstore"):
            words: tuple[bytes, ...] = (group,) if group else ()
            asked = self.asked(*words)
            self.assertEqual((asked.request, asked.shared), (b" ".join((b"stats", *words)) + b"\r\n", True))
            self.assertEqual(self.asked(b"upstream", *words)[:4], asked[:4])
        for changing in (b"reset", b"detail on", b"detail off", b"detail dump"):
            words = tuple(changing.split())
            asked = self.asked(*words)
            self.assertEqual((asked.request, asked.shared), (b" ".join((b"stats", *words)) + b"\r\n", False))

    def test_more(self) -> None:
        """
        Arguments that memcached ignores are ignored (C{process_stat}): those after the name of a group.
        """
        for words, used in (
            ((b"settings", b"items"), b"settings"),
            ((b"upstream", b"items", b"1"), b"items"),
            ((b"reset", b"x"), b"reset"),
            ((b"detail", b"on", b"x"), b"detail on"),
        ):
            self.assertEqual(self.asked(*words)[:4], self.asked(*used.split())[:4])
        self.assertIsInstance(serverStatistics((b"conns", b"x"), False), bytes)

    def test_refused(self) -> None:
        """
        Other requests have memcached's replies.
        """
        for words, reply in (
            ((b"cachedump", b"1", b"0"), b"ERROR\r\n"),
            ((b"detail",), b"CLIENT_ERROR usage: stats detail on|off|dump\r\n"),
            ((b"detail", b"x"), b"CLIENT_ERROR usage: stats detail on|off|dump\r\n"),
            ((b"sizes_enable",), b"ERROR\r\n"),
            ((b"bogus",), b"ERROR\r\n"),
            ((b"upstream", b"upstream"), b"ERROR\r\n"),
        ):
            self.assertEqual(serverStatistics(words, True), reply)
        self.assertEqual(
            serverStatistics((b"conns",), False), b"CLIENT_ERROR stats conns needs stats-addresses = yes\r\n"
        )

    def test_blocks(self) -> None:
        """
        The replies of several servers are blocks, each of which names its server. That of one server is unchanged.
        """
        slabs = b"STAT 5:chunk_size 240\r\nSTAT active_slabs 1\r\nEND\r\n"
        join = self.asked(b"slabs").join
        self.assertEqual(join(["tcp:a:1"], [slabs]), slabs)
        self.assertEqual(
            join(["tcp:a:1", "tcp:b:1", "unix:/c"], [slabs, DOWN, b"END\r\n"]),
            b"STAT server:1:slabs:name tcp:a:1\r\n"
            b"STAT server:1:slabs:5:chunk_size 240\r\n"
            b"STAT server:1:slabs:active_slabs 1\r\n"
            b"STAT server:2:slabs:name tcp:b:1\r\n"
            b"STAT server:2:slabs:error " + DOWN + b"STAT server:3:slabs:name unix:/c\r\n"
            b"END\r\n",
        )

    def test_skipped(self) -> None:
        """
        Tools take no line of a block for one of their own names: in those a number is before the first or the second of
        at most two colons.
        """
        for group in (b"items", b"slabs", b"settings", b"sizes", b"conns"):
            reply = self.asked(group).join(["tcp:a:1", "b"], [b"STAT 1:x 2\r\nSTAT x 1\r\nSTAT 96 1\r\nEND\r\n"] * 2)
            if group != b"settings":
                names = [line.split(b" ")[1] for line in reply.split(b"\r\n")[:-2]]
                self.assertEqual([name for name in names if name.count(b":") < 3], [])

    def test_settings(self) -> None:
        """
        Settings that all servers have in common come first. Servers that are down do not count.
        """
        join = self.asked(b"settings").join
        replies = [b"STAT item_size_max 1048576\r\nSTAT tcpport %d\r\nEND\r\n" % port for port in (1, 2)]
        reply = join(["a", "b"], replies)
        self.assertTrue(reply.startswith(b"STAT item_size_max 1048576\r\nSTAT server:1:settings:name a\r\n"), reply)
        self.assertNotIn(b"STAT tcpport", reply)
        self.assertIn(b"STAT server:2:settings:tcpport 2\r\n", reply)
        alone = join(["a", "b"], [DOWN, replies[1]])
        self.assertTrue(alone.startswith(b"STAT item_size_max 1048576\r\nSTAT tcpport 2\r\nSTAT server:1:"), alone)
        self.assertEqual(join(["a", "b"], [DOWN, DOWN]), DOWN)

    def test_words(self) -> None:
        """
        If all servers reply with the same word, the client gets it; else it sees which servers did not.
        """
        join = self.asked(b"reset").join
        self.assertEqual(join(["a", "b"], [b"RESET\r\n", b"RESET\r\n"]), b"RESET\r\n")
        self.assertEqual(
            join(["a", "b"], [b"RESET\r\n", DOWN]),
            b"STAT server:1:reset:name a\r\nSTAT server:1:reset:reply RESET\r\n"
            b"STAT server:2:reset:name b\r\nSTAT server:2:reset:error " + DOWN + b"END\r\n",
        )
        self.assertEqual(join(["a", "b"], [DOWN, DOWN]), DOWN)

    def test_prefixes(self) -> None:
        """
        The reply to C{stats detail dump} has lines of another kind.
        """
        dump = b"PREFIX foo get 1 hit 0 set 0 del 0\r\nEND\r\n"
        self.assertIn(
            b"PREFIX server:2:detail:foo get 1 hit 0 set 0 del 0\r\n",
            self.asked(b"detail", b"dump").join(["a", "b"], [dump, dump]),
        )
