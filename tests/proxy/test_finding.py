# Copyright txconnpool contributors. See LICENSE.
"""
Tests for L{txconnpool.proxy.finding}.
"""

from __future__ import annotations

import os
from functools import partial
from typing import Any, cast

from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock
from twisted.names import dns
from twisted.trial.unittest import SynchronousTestCase

from tests.net.discovery.resolvers import FakeResolver, record
from txconnpool.config.settings import ConfigError, PoolSettings
from txconnpool.net.discovery import Discovery, DiscoveryFailed
from txconnpool.proxy.finding import Finder


class FinderTests(SynchronousTestCase):
    """
    Tests for L{Finder}.
    """

    def setUp(self) -> None:
        """
        Make a finder.
        """
        self.clock = Clock()
        self.resolver = FakeResolver()
        self.changes = 0
        self.patch(Finder, "makeSource", partial(Discovery, resolver=cast(Any, self.resolver)))
        self.finder = Finder(self.clock, self.changed)
        self.resolver.learn("a", "10.0.0.1")

    def changed(self) -> None:
        self.changes += 1

    def settings(self, *upstream: str, **values: Any) -> PoolSettings:
        return PoolSettings(upstream=upstream, **values)

    def found(self, settings: PoolSettings) -> list[str]:
        """
        @return: the server lines of the settings with what was found.
        """
        return [str(server) for server in self.finder.apply(settings).servers]

    def test_nothing(self) -> None:
        """
        Without sources there is nothing to do and nothing to wait for.
        """
        settings = self.settings("tcp:a:1")
        self.finder.use(settings)
        self.assertIs(self.finder.apply(settings), settings)
        self.successResultOf(self.finder.start(1.0))
        self.assertEqual(self.successResultOf(self.finder.lookUp()), [])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_start(self) -> None:
        """
        The servers are known when the first lookup has ended. They are looked up again after the interval.
        """
        settings = self.settings("dns:a:1", "tcp:b:1", discoverInterval=7.0)
        self.finder.use(settings)
        self.assertEqual((self.found(settings), self.resolver.asked), (["tcp:b:1"], []))
        self.successResultOf(self.finder.start(1.0))
        self.assertEqual((self.found(settings), self.changes), (["tcp:10.0.0.1:1 label=10.0.0.1", "tcp:b:1"], 1))
        self.resolver.learn("a", "10.0.0.1", "10.0.0.2")
        self.clock.advance(6.9)
        self.assertEqual(self.changes, 1)
        self.clock.advance(0.1)
        self.assertEqual((len(self.found(settings)), self.changes), (3, 2))
        self.finder.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_slow(self) -> None:
        """
        The wait for the first lookup is limited. The lookup goes on.
        """
        self.resolver.known["a", dns.A] = None
        settings = self.settings("dns:a:1")
        self.finder.use(settings)
        started = self.finder.start(1.0)
        self.clock.advance(0.9)
        self.assertNoResult(started)
        self.clock.advance(0.1)
        self.successResultOf(started)
        self.assertEqual(self.changes, 0)
        self.resolver.pending[0].callback(([record("a", dns.Record_A("10.0.0.9"))], [], []))
        self.assertEqual((self.changes, self.found(settings)), (1, ["tcp:10.0.0.9:1 label=10.0.0.9"]))
        self.finder.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_stopEarly(self) -> None:
        """
        A stop ends the wait for the first lookup. What was found is known at the next start.
        """
        self.resolver.known["a", dns.A] = None
        self.finder.use(self.settings("dns:a:1"))
        started = self.finder.start(1.0)
        self.finder.stop()
        self.successResultOf(started)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.resolver.learn("a", "10.0.0.1")
        self.successResultOf(self.finder.start(1.0))
        self.finder.stop()
        asked = len(self.resolver.asked)
        self.successResultOf(self.finder.start(1.0))
        self.assertEqual(len(self.resolver.asked), asked)
        self.finder.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_failure(self) -> None:
        """
        Servers stay when a lookup fails, and C{lookUp} says why it did.
        """
        settings = self.settings("dns:a:1")
        self.finder.use(settings)
        self.successResultOf(self.finder.start(1.0))
        self.resolver.learn("a")
        self.assertEqual(self.successResultOf(self.finder.lookUp()), ["dns:a:1: the name has no address"])
        self.assertEqual((len(self.found(settings)), self.changes), (1, 1))
        self.finder.stop()

    def test_otherSources(self) -> None:
        """
        A source that stays is not looked up again. One that is left out is not looked up any more.
        """
        self.resolver.learn("b", "10.0.0.2")
        old, new = self.settings("dns:a:1", "dns:b:1"), self.settings("dns:b:1", discoverInterval=3.0)
        self.finder.use(old)
        self.successResultOf(self.finder.start(1.0))
        self.resolver.asked.clear()
        self.finder.use(new)
        self.assertEqual((self.found(new), self.resolver.asked), (["tcp:10.0.0.2:1 label=10.0.0.2"], []))
        self.clock.advance(30)
        self.clock.advance(3)
        self.assertEqual(self.resolver.asked, [("b", dns.A), ("b", dns.AAAA)] * 2)
        self.finder.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_prepare(self) -> None:
        """
        New sources are looked up before they are used. So no time passes without servers.
        """
        self.finder.use(self.settings("tcp:b:1"))
        self.successResultOf(self.finder.start(1.0))
        settings = self.settings("dns:a:1")
        self.successResultOf(self.finder.prepare(settings))
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.finder.use(settings)
        self.assertEqual(self.found(settings), ["tcp:10.0.0.1:1 label=10.0.0.1"])
        self.finder.stop()

    def test_notPrepared(self) -> None:
        """
        New sources that cannot be looked up, or whose servers cannot be used, are an error. No lookup goes on.
        """
        self.resolver.known["slow", dns.A] = None
        preparing: Deferred[None] = self.finder.prepare(self.settings("dns:slow:1", "dns:none:1"))
        error = self.failureResultOf(preparing, DiscoveryFailed).value
        self.assertEqual(str(error), "dns:none:1: the name has no address")
        self.assertEqual(self.clock.getDelayedCalls(), [])
        wrong = self.settings("tcp:b:1 label=10.0.0.1", "dns:a:1")
        error = self.failureResultOf(self.finder.prepare(wrong), ConfigError).value
        self.assertIn("2 servers have the label '10.0.0.1'", str(error))

    def test_weights(self) -> None:
        """
        The weights of SRV records are left out where the distribution has none. A weight of the line itself stays.
        """
        self.resolver.known["s", dns.SRV] = [
            record("s", dns.Record_SRV(1, weight, 1, name)) for name, weight in (("x", 3), ("y", 70000000))
        ]
        for distribution, lines in (
            ("ketama", ["tcp:x:1 weight=3", "tcp:y:1 weight=70000000"]),
            ("pymemcache", ["tcp:x:1", "tcp:y:1"]),
            ("round-robin", ["tcp:x:1", "tcp:y:1"]),
        ):
            settings = self.settings("srv:s", distribution=distribution)
            self.finder.use(settings)
            self.successResultOf(self.finder.start(1.0))
            self.assertEqual(self.found(settings), lines)
        settings = self.settings("srv:s weight=2", distribution="pymemcache")
        self.finder.use(settings)
        self.assertRaises(ConfigError, self.finder.apply, settings)
        self.finder.stop()

    def test_sentinels(self) -> None:
        """
        Sources get the user and password for sentinels, and are asked again on request.
        """
        sources: list[Any] = []

        class Source:
            """
            A source that notes its calls.
            """

            servers = ()
            hurried = 0

            def __init__(self, *args: object, **values: object) -> None:
                self.login: Any = None
                sources.append(self)

            def hurry(self) -> None:
                self.hurried += 1

            def lookUp(self) -> Deferred[Any]:
                return succeed(())

        self.patch(Finder, "makeSource", Source)
        line = "sentinel:cache@10.0.0.1"
        self.patch(os, "environ", {"SENTINELS": "user:secret"})
        settings = self.settings(line, protocol="redis", sentinelAuth="env:SENTINELS")
        self.successResultOf(self.finder.prepare(settings))
        self.assertEqual(sources[-1].login, (b"user", b"secret"))
        self.finder.use(settings)
        self.finder.logIn((b"user", b"other"))
        self.finder.hurry()
        self.assertEqual([(each.login, each.hurried) for each in sources], [((b"user", b"other"), 1)])
        wrong = self.settings(line, protocol="redis", sentinelAuth="env:NONE")
        self.failureResultOf(self.finder.prepare(wrong), ValueError)

    def test_cluster(self) -> None:
        """
        The first nodes of a cluster may be looked up.
        """
        settings = self.settings("cluster:dns:a:6379", protocol="redis")
        self.finder.use(settings)
        self.successResultOf(self.finder.start(1.0))
        self.assertEqual((self.found(settings), self.changes), (["tcp:10.0.0.1:6379"], 1))
        self.resolver.learn("a", "10.0.0.2", "::1")
        self.clock.advance(1.0)
        self.finder.hurry()
        self.clock.advance(0)
        self.assertEqual(self.found(settings), ["tcp:10.0.0.2:6379", r"tcp:\:\:1:6379"])
        self.finder.stop()
