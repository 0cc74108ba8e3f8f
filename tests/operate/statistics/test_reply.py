# Copyright txconnpool contributors. See LICENSE.
"""
Tests for L{txconnpool.operate.statistics.reply}.
"""

from __future__ import annotations

from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.operate.snapshots import snapshotOf
from tests.stage import Stage
from txconnpool import __version__
from txconnpool.config.settings import PoolSettings, Settings
from txconnpool.native import IMPLEMENTATION
from txconnpool.operate.reactor import reactorName
from txconnpool.operate.statistics.reply import (
    _SUMMARY,
    MOST_SESSIONS,
    general,
    perServer,
    perSession,
    settingsInForce,
    summary,
)
from txconnpool.operate.statistics.table import ERRORS
from txconnpool.proxy.statistics import NoStatistics


class ReplyTests(SynchronousTestCase):
    """
    Tests for the items of the replies to C{stats}.
    """

    def test_general(self) -> None:
        """
        Each item has a name of its own without spaces and a value on one line, as programs that read memcached's
        statistics expect.
        """
        stage = Stage(2)
        items = list(general(snapshotOf(stage), "pool"))
        self.assertEqual(len({name for name, _ in items}), len(items))
        text = stage.dialect.statistics(items).decode("ascii")
        self.assertRegex(text, r"\A(?:STAT [a-z_]+ [!-~][ -~]*\r\n)+END\r\n\Z")
        self.assertEqual(text.count("\r\n"), len(items) + 1)

    def test_summary(self) -> None:
        """
        The summary has the same values. It is short enough for programs that read 4,096 bytes of C{stats}, of which the
        server's own statistics are up to 2,800, also when its numbers are large.
        """
        snapshot = snapshotOf(Stage(2))
        items = dict(summary(snapshot, "pool"))
        self.assertEqual(items, {name: value for name, value in general(snapshot, "pool") if name in items})
        self.assertEqual(items.keys(), _SUMMARY)
        self.assertLess(sum(len(f"STAT proxy_{name} {10**12}\r\n") for name in items), 1200)

    def test_memcached(self) -> None:
        """
        A number that memcached has too has its name and is a whole number.
        """
        stage = Stage()
        stage.ask(stage.client(), b"get a\r\nget missb\r\nset a 0 0 1\r\nx\r\n")
        numbers = dict(general(snapshotOf(stage), "pool"))
        self.assertEqual(numbers["version"], f"txconnpool-{__version__}")
        self.assertEqual(numbers["implementation"], IMPLEMENTATION)
        self.assertEqual(numbers["reactor"], reactorName())
        for name, value in (
            *(("curr_connections", "1"), ("total_connections", "1"), ("rejected_connections", "0")),
            *(("auth_cmds", "0"), ("auth_errors", "0")),
            *(("cmd_get", "2"), ("cmd_set", "1"), ("get_hits", "1"), ("get_misses", "1")),
        ):
            self.assertEqual(str(numbers[name]), value, name)
        for name in ("uptime", "time", "pid", "bytes_read", "bytes_written", "max_connections"):
            self.assertRegex(str(numbers[name]), r"\A\d+\Z")
        self.assertEqual((numbers["pool"], numbers["pool_state"]), ("pool", "ready"))

    def test_parts(self) -> None:
        """
        Each part of a statistic with a label is an item. Times are decimal numbers.
        """
        stage = Stage(start=False)
        stage.servers[0].mode = "refuse"
        stage.pool.start()
        stage.turns()
        numbers = dict(general(snapshotOf(stage), "pool"))
        self.assertEqual(numbers["dial_failures_connection_refused"], "1")
        self.assertEqual([name for name in numbers if name.startswith("request_errors_")],
                         [f"request_errors_{reason}" for reason in ERRORS])  # fmt: skip
        self.assertEqual((numbers["latency_seconds_count"], numbers["latency_seconds_sum"]), (0, "0.000000"))

    def test_noPool(self) -> None:
        """
        A pool that the snapshot does not have is an error.
        """
        error = self.assertRaises(NoStatistics, list, general(snapshotOf(Stage()), "other"))
        self.assertIn("other", str(error))

    def test_servers(self) -> None:
        """
        The names of C{stats servers} begin with the number of a server.
        """
        stage = Stage(2)
        items = list(perServer(snapshotOf(stage), "pool"))
        self.assertEqual(items[:3], [("1:name", "server0"), ("1:state", "up"), ("1:reason", "")])
        self.assertIn(("2:name", "server1"), items)
        self.assertEqual(dict(items)["2:connections_idle"], "1")
        self.assertEqual(len({name for name, _ in items}), len(items))

    def test_sessions(self) -> None:
        """
        C{stats sessions} lists the busiest sessions, at most L{MOST_SESSIONS}.
        """
        stage = Stage()
        clients = [stage.client() for _ in range(MOST_SESSIONS + 5)]
        clients[7].send(b"get a\r\nget b\r\n")
        items = list(perSession(stage.sessions.sessions))
        self.assertEqual(items[0], ("8:address", "192.0.2.1:4321"))
        self.assertEqual(dict(items)["8:in_flight"], 2)
        self.assertEqual(len({name.partition(":")[0] for name, _ in items}), MOST_SESSIONS)
        self.assertEqual({value for name, value in items if name.endswith(":waiting")}, {0})

    def test_settings(self) -> None:
        """
        C{stats settings} lists all settings as in an ini file, except the places of passwords.
        """
        path = self.mktemp()
        Path(path).write_text("me:secret\n")
        pool = PoolSettings(upstream=("tcp:a:1", "tcp:b:1"), distribution="round-robin", upstreamAuth=f"file:{path}")
        items = dict(settingsInForce(pool, Settings(pools=(pool,), adminPasswordFile=path)))
        self.assertEqual((items["pool"], items["upstream"], items["pool-size"]), ("default", "tcp:a:1, tcp:b:1", "4"))
        self.assertEqual((items["max-unread-bytes"], items["drain-timeout"]), ("256m", "5"))
        self.assertNotIn("upstream-auth", items)
        self.assertNotIn(path, str(items))
