# Copyright txconnpool contributors. See LICENSE.
"""
Tests for L{txconnpool.net.discovery.discovery}.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError
from twisted.internet.testing import EventLoggingObserver, MemoryReactorClock
from twisted.logger import formatEvent, globalLogPublisher
from twisted.names import dns
from twisted.names.error import DNSServerError
from twisted.trial.unittest import SynchronousTestCase

from tests.bugs import covers
from tests.net.discovery.resolvers import FakeResolver
from txconnpool.net.discovery import Discovered, Discovery, DiscoveryFailed


class DiscoveryTests(SynchronousTestCase):
    """
    Tests for L{Discovery}.
    """

    def setUp(self) -> None:
        """
        Create a discovery with an interval of 30 seconds, and a resolver that knows two addresses for a long time.
        """
        self.reactor = MemoryReactorClock()
        self.resolver = FakeResolver()
        self.resolver.learn("cache", "10.0.0.1", "10.0.0.2")
        self.changes: list[list[str]] = []
        self.discovery = self.make()
        self.logged = EventLoggingObserver()
        globalLogPublisher.addObserver(self.logged)
        self.addCleanup(globalLogPublisher.removeObserver, self.logged)

    def make(self, **options: Any) -> Discovery:
        resolver: Any = self.resolver
        return Discovery("dns:cache:1", self.reactor, resolver, **{"interval": 30.0, "timeLimit": 5.0, **options})

    def changed(self, servers: tuple[Discovered, ...]) -> None:
        self.changes.append([server.label or "" for server in servers])

    def breakResolver(self, error: Exception | None) -> None:
        """
        Let the resolver fail, or hang.
        """
        self.resolver.known["cache", dns.A] = self.resolver.known["cache", dns.AAAA] = error

    def lookups(self) -> int:
        """
        @return: the number of lookups so far.
        """
        return len(self.resolver.asked) // 2

    def log(self) -> list[str | None]:
        return [formatEvent(event) for event in self.logged if event["log_namespace"] == "txconnpool.net"]

    def advance(self, seconds: int) -> None:
        """
        Advance the clock by single seconds.
        """
        self.reactor.pump([1.0] * seconds)

    def test_lookUp(self) -> None:
        """
        L{Discovery.lookUp} looks up once. No timer is left.
        """
        servers = self.successResultOf(self.discovery.lookUp())
        self.assertEqual(servers, (Discovered("tcp:10.0.0.1:1", "10.0.0.1"), Discovered("tcp:10.0.0.2:1", "10.0.0.2")))
        self.assertEqual((self.discovery.servers, self.reactor.getDelayedCalls()), (servers, []))

    def test_noIO(self) -> None:
        """
        The constructor looks up nothing, and refuses a wrong line.
        """
        self.assertEqual((self.lookups(), self.discovery.servers), (0, ()))
        self.assertRaises(ValueError, Discovery, "dns:cache", self.reactor)

    def test_changes(self) -> None:
        """
        After L{Discovery.start} the servers are looked up in each interval. Only changes are reported, and the first
        servers. Another order of the answers is no change.
        """
        self.discovery.start(self.changed)
        self.assertEqual(self.changes, [["10.0.0.1", "10.0.0.2"]])
        self.advance(29)
        self.assertEqual(self.lookups(), 1)
        self.resolver.learn("cache", "10.0.0.2", "10.0.0.1")
        self.advance(1)
        self.assertEqual((self.lookups(), len(self.changes)), (2, 1))
        self.resolver.learn("cache", "10.0.0.3", "10.0.0.1")
        self.advance(30)
        self.assertEqual(self.changes[1:], [["10.0.0.1", "10.0.0.3"]])
        self.assertEqual(self.log(), [])

    def test_known(self) -> None:
        """
        If servers are known already, L{Discovery.start} does not look them up again before the interval is over.
        """
        self.successResultOf(self.discovery.lookUp())
        self.discovery.start(self.changed)
        self.advance(29)
        self.assertEqual((self.lookups(), self.changes), (1, []))
        self.resolver.learn("cache", "10.0.0.3")
        self.advance(1)
        self.assertEqual((self.lookups(), self.changes), (2, [["10.0.0.3"]]))

    def test_ttl(self) -> None:
        """
        A TTL that is shorter than the interval is the time to the next lookup, but never less than a second. A longer
        one is not.
        """
        for ttl, seconds in ((7, 7), (0, 1), (1, 1), (30, 30), (31, 30), (86400, 30)):
            self.resolver.learn("cache", "10.0.0.1", ttl=ttl)
            discovery = self.make()
            discovery.start(self.changed)
            [timer] = self.reactor.getDelayedCalls()
            self.assertEqual(timer.getTime() - self.reactor.seconds(), seconds)
            discovery.stop()

    @covers("R44")
    def test_failure(self) -> None:
        """
        While lookups fail the servers stay, and no change is reported. The log has one line for the first failure, and
        one when they work again.
        """
        self.discovery.start(self.changed)
        self.breakResolver(DNSServerError())
        self.advance(100)
        self.assertEqual((len(self.discovery.servers), len(self.changes)), (2, 1))
        first = "dns:cache:1: looking up servers failed: the DNS server cannot answer; the 2 servers known so far stay"
        self.assertEqual(self.log(), [first])
        self.resolver.learn("cache")  # another failure: no address
        self.advance(31)
        self.resolver.learn("cache", "10.0.0.1", "10.0.0.2")
        self.advance(31)
        self.assertEqual(self.log(), [first, "dns:cache:1: looking up servers works again"])
        self.assertEqual(len(self.changes), 1)
        self.breakResolver(DNSServerError())
        self.advance(31)
        self.assertEqual(len(self.log()), 3)

    def test_backOff(self) -> None:
        """
        After a failure the servers are looked up again after 1, 2, 4 ... seconds, at most after the interval.
        """
        self.breakResolver(DNSServerError())
        self.discovery.start(self.changed)
        times = []
        for _ in range(7):
            [timer] = self.reactor.getDelayedCalls()
            times.append(timer.getTime() - self.reactor.seconds())
            self.reactor.advance(times[-1])
        self.assertEqual(times, [1, 2, 4, 8, 16, 30, 30])

    def test_hang(self) -> None:
        """
        A lookup that hangs fails after its time limit. There is never a second one beside it.
        """
        self.breakResolver(None)
        self.discovery.start(self.changed)
        waiting = self.discovery.lookUp()
        self.advance(4)
        self.assertEqual(self.lookups(), 1)
        self.assertNoResult(waiting)
        self.advance(1)
        failure = self.failureResultOf(waiting, DiscoveryFailed)
        self.assertEqual(str(failure.value), "dns:cache:1: no answer in time")
        self.advance(1)
        self.assertEqual(self.lookups(), 2)

    def test_shared(self) -> None:
        """
        All who wait for a lookup get its result. One that is cancelled does not end it for the others.
        """
        self.breakResolver(None)
        cancelled, first, second = (self.discovery.lookUp() for _ in range(3))
        cancelled.cancel()
        self.failureResultOf(cancelled, CancelledError)
        self.assertEqual(self.lookups(), 1)
        [record] = self._answers("10.0.0.9")
        a, aaaa = self.resolver.pending
        a.callback(([record], [], []))
        aaaa.callback(([], [], []))
        self.assertEqual(self.successResultOf(first), self.successResultOf(second))

    def _answers(self, ip: str) -> list[Any]:
        return [dns.RRHeader(b"cache", dns.A, dns.IN, 300, dns.Record_A(ip))]

    def test_cancel(self) -> None:
        """
        If nobody waits for a lookup any more, it ends without a log line, and another one may begin.
        """
        self.breakResolver(None)
        waiting = self.discovery.lookUp()
        waiting.cancel()
        self.failureResultOf(waiting, CancelledError)
        self.assertEqual((self.reactor.getDelayedCalls(), self.log()), ([], []))
        self.assertTrue(all(pending.called for pending in self.resolver.pending))
        self.resolver.learn("cache", "10.0.0.1")
        self.successResultOf(self.discovery.lookUp())

    def test_stop(self) -> None:
        """
        After L{Discovery.stop} nothing is looked up, and no timer is left. It may be called again.
        """
        self.discovery.start(self.changed)
        for _ in range(2):
            self.discovery.stop()
            self.assertEqual(self.reactor.getDelayedCalls(), [])
        self.assertEqual(self.lookups(), 1)

    def test_stopLookup(self) -> None:
        """
        L{Discovery.stop} ends a lookup: who waits for it gets a failure, and what comes later is ignored.
        """
        self.breakResolver(None)
        self.discovery.start(self.changed)
        waiting = self.discovery.lookUp()
        self.discovery.stop()
        self.failureResultOf(waiting, CancelledError)
        self.assertEqual((self.reactor.getDelayedCalls(), self.log(), self.changes), ([], [], []))
        for pending in self.resolver.pending:
            pending.callback((self._answers("10.0.0.9"), [], []))
        self.assertEqual((self.discovery.servers, self.changes), ((), []))

    def test_restart(self) -> None:
        """
        A discovery may be started again.
        """
        self.discovery.start(self.changed)
        self.discovery.stop()
        self.discovery.start(self.changed)
        self.resolver.learn("cache", "10.0.0.3")
        self.advance(30)
        self.assertEqual(self.changes[1:], [["10.0.0.3"]])

    def test_stopInChange(self) -> None:
        """
        A discovery may be stopped while it reports a change.
        """
        self.discovery.start(lambda servers: self.discovery.stop())
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_failingChange(self) -> None:
        """
        An exception of the function that is called with changes is logged, and the next change is reported.
        """

        def changed(servers: tuple[Discovered, ...]) -> None:
            self.changed(servers)
            raise ZeroDivisionError()

        self.discovery.start(changed)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.resolver.learn("cache", "10.0.0.3")
        self.advance(30)
        self.assertEqual(len(self.changes), 2)
        self.flushLoggedErrors(ZeroDivisionError)

    def test_askedBetween(self) -> None:
        """
        A lookup that the program asks for reports changes too, and the interval starts again.
        """
        self.discovery.start(self.changed)
        self.advance(20)
        self.resolver.learn("cache", "10.0.0.3")
        self.successResultOf(self.discovery.lookUp())
        self.assertEqual(self.changes[1:], [["10.0.0.3"]])
        self.advance(29)
        self.assertEqual(self.lookups(), 2)
        self.advance(1)
        self.assertEqual(self.lookups(), 3)
