# Copyright txconnpool contributors. See LICENSE.
"""
Tests for L{txconnpool.config.warnings}.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.certificates import Certificate, missingTLS, quoted
from txconnpool.config.settings import PoolSettings, Settings
from txconnpool.config.warnings import warningsOf


class WarningsTests(SynchronousTestCase):
    """
    Tests for L{warningsOf}.
    """

    def test_none(self) -> None:
        """
        The defaults need no warning, nor do words that leave nothing open.
        """
        pool = PoolSettings(denyCommands=("flush_all", "verbosity", "stats", "version", "@write", "set"))
        self.assertEqual(warningsOf(Settings()), [])
        self.assertEqual(warningsOf(Settings(pools=(pool,))), [])
        pool = PoolSettings(allowCommands=("@read", "set"), denyCommands=("set",))
        self.assertEqual(warningsOf(Settings(pools=(pool,))), [])

    def test_certificates(self) -> None:
        """
        Certificates that have expired, expire within two weeks or are not valid yet are reported with file and date,
        for listeners, servers, statistics and the console. So are those of the chain.
        """
        if missingTLS:
            self.skipTest(missingTLS)
        directory = Path(self.mktemp()).absolute()
        directory.mkdir()
        days = {"good": (-1, 20), "old": (-9, -1), "soon": (-9, 13), "new": (1, 90)}
        made = {name: Certificate(directory, name, days=each) for name, each in days.items()}

        def server(name: str, more: str = "") -> str:
            return f"ssl:0:privateKey={quoted(made[name].key)}:certKey={quoted(made[name].certificate)}{more}"

        def date(days: float) -> str:
            return f"{datetime.now(UTC) + timedelta(days):%Y-%m-%d} [0-9:]{{5}} UTC"

        client = f"tls:h:1:privateKey={quoted(made['soon'].key)}:certificate={quoted(made['soon'].certificate)}"
        chain = server("good", f":extraCertChain={quoted(made['old'].certificate)}")
        pool = PoolSettings(name="p", upstream=(client,), listen=(server("old"), server("good"), chain))
        lines = warningsOf(Settings(pools=(pool,), stats=server("new")))
        for line, (place, name, text) in zip(
            lines,
            (
                ("stats", "new", f"is not valid yet: it is from {date(1)}"),
                ("pool 'p': listen", "old", f"has expired: it was valid until {date(-1)}"),
                ("pool 'p': listen", "old", f"has expired: it was valid until {date(-1)}"),
                ("pool 'p': upstream", "soon", f"expires soon: it is valid until {date(13)}"),
            ),
            strict=True,
        ):
            self.assertRegex(line, rf"\A{place}: the certificate {re.escape(str(directory))}/{name}.pem {text}\Z")
        made["old"].certificate.write_text("no certificate", "ascii")
        self.assertEqual(len(warningsOf(Settings(pools=(pool,)))), 1)

    def test_quit(self) -> None:
        """
        Denying the command that closes a client's own connection has no use.
        """
        pool = PoolSettings(denyCommands=("quit",))
        (warning,) = warningsOf(Settings(pools=(pool,)))
        self.assertIn("deny-commands: quit only closes the connection of its client", warning)

    def assertWarnings(self, expected: list[str], **values: Any) -> None:
        """
        Assert that a pool of the servers C{a} and C{b} has these warnings.
        """
        pool = PoolSettings(**{"name": "p", "upstream": ("tcp:a:1", "tcp:b:1"), **values})
        self.assertEqual(warningsOf(Settings(pools=(pool,))), [f"pool 'p': {text}" for text in expected])

    def test_servers(self) -> None:
        """
        Servers are warned about that get all keys or none, or whose weights are ignored.
        """
        self.assertWarnings([])
        self.assertWarnings(
            ["all keys go to b:1, because the hash crc32 has 15 bits only and the points have 32"], hash="crc32"
        )
        upstream = ("tcp:a:1 weight=2", "tcp:b:1")
        self.assertWarnings(
            ["the distribution libmemcached ignores weights"], distribution="libmemcached", upstream=upstream
        )
        self.assertWarnings([], upstream=upstream)
        self.assertWarnings([], upstream=upstream[:1], hash="crc32")

    def test_sources(self) -> None:
        """
        Servers that are looked up have no order that would stay.
        """
        self.assertWarnings(
            ["with the distribution libmemcached, a server is its position in the list: most keys move when dns:a:1 "
             "has other servers"],
            distribution="libmemcached",
            upstream=("dns:a:1 label={ip}",),
        )  # fmt: skip
        self.assertWarnings([], upstream=("dns:a:1",), onFailure="rehash", hash="crc32")

    def test_rehash(self) -> None:
        """
        It is no use to rehash if the distribution does not do that, or if no server may go.
        """
        text = "on-failure = rehash has no effect: "
        for distribution in ("gomemcache", "round-robin"):
            self.assertWarnings(
                [f"{text}with the distribution {distribution}, no server gets the keys of another"],
                distribution=distribution,
                onFailure="rehash",
            )
        self.assertWarnings(
            [f"{text}min-live-servers is as many as there are servers, 2"], onFailure="rehash", minLiveServers=2
        )
        self.assertWarnings([], onFailure="rehash")
        self.assertWarnings([], onFailure="rehash", minLiveServers=2, upstream=("tcp:a:1",))

    def test_commands(self) -> None:
        """
        Commands that are denied by name leave others open: a line for each pool and effect, which names them.
        """
        pool = PoolSettings(name="a", denyCommands=("set", "delete", "flush_all"))
        self.assertEqual(
            warningsOf(Settings(pools=(pool,))),
            [
                "pool 'a': deny-commands: set is denied, but clients can write with add append cas decr gat gats incr "
                "ma mg ms prepend replace touch; @write denies that for all commands",
                "pool 'a': deny-commands: delete is denied, but clients can delete with add append cas gat gats ma md "
                "mg ms prepend replace touch; @delete denies that for all commands",
            ],
        )
