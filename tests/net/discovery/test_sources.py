# Copyright txconnpool contributors. See LICENSE.
"""
Tests for L{txconnpool.net.discovery.sources}.
"""

from __future__ import annotations

from typing import Any

from twisted.internet import error
from twisted.internet.defer import CancelledError, TimeoutError
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.names import dns
from twisted.names.error import DNSNameError, DNSQueryRefusedError, DNSServerError, DNSUnknownError
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from tests.net.discovery.resolvers import FakeResolver, addresses, record
from tests.net.discovery.test_cluster import REPLY
from txconnpool.net.discovery.descriptions import Discovered, parse
from txconnpool.net.discovery.results import Answer, DiscoveryFailed, explain
from txconnpool.net.discovery.sources import makeSource

INFINITE = float("inf")


class SourceCase(SynchronousTestCase):
    """
    Tests of a source, with a time limit of 5 seconds.
    """

    def setUp(self) -> None:
        """
        Create a resolver that knows nothing.
        """
        self.reactor = MemoryReactorClock()
        self.resolver = FakeResolver()

    def make(self, line: str) -> Any:
        resolver: Any = self.resolver
        return makeSource(parse(line), self.reactor, resolver, 5.0)

    def answer(self, line: str) -> Answer:
        answer: Answer = self.successResultOf(self.make(line).lookUp())
        return answer

    def servers(self, line: str) -> list[str]:
        return [str(server) for server in self.answer(line).servers]

    def reason(self, line: str) -> str:
        return explain(self.failureResultOf(self.make(line).lookUp()).value)


class AddressesTests(SourceCase):
    """
    Tests for C{dns:}.
    """

    def test_servers(self) -> None:
        """
        Each address of both families is a server, with the address as the label. They are sorted as numbers, each only
        once.
        """
        self.resolver.learn("cache", "10.0.0.10", "::2", "10.0.0.9", "2001:db8::1", "10.0.0.9", ttl=20)
        self.assertEqual(
            self.answer("dns:cache:11211"),
            Answer(
                (
                    Discovered("tcp:10.0.0.9:11211", "10.0.0.9"),
                    Discovered("tcp:10.0.0.10:11211", "10.0.0.10"),
                    Discovered(r"tcp:\:\:2:11211", "::2"),
                    Discovered(r"tcp:2001\:db8\:\:1:11211", "2001:db8::1"),
                ),
                20,
            ),
        )

    def test_words(self) -> None:
        """
        The label and the weight of the line are those of each server.
        """
        self.resolver.learn("cache", "10.0.0.1")
        self.assertEqual(
            self.servers("dns:cache:7 label={host}-{ip}:{port} weight=3"),
            ["tcp:10.0.0.1:7 weight=3 label=cache-10.0.0.1:7"],
        )

    def test_shortestTTL(self) -> None:
        """
        The shortest TTL of both families counts.
        """
        self.resolver.known["cache", dns.A] = addresses("cache", "10.0.0.1", ttl=9)
        self.resolver.known["cache", dns.AAAA] = addresses("cache", "::1", ttl=8)
        self.assertEqual(self.answer("dns:cache:1").ttl, 8)

    def test_oneFamily(self) -> None:
        """
        A name may have addresses of one family only. "No such name" for the other one is no error.
        """
        self.resolver.learn("cache", "::1")
        self.assertEqual(self.servers("dns:cache:1"), [r"tcp:\:\:1:1 label=::1"])
        self.resolver.known["cache", dns.A] = DNSNameError()
        self.assertEqual(self.servers("dns:cache:1"), [r"tcp:\:\:1:1 label=::1"])

    def test_aliases(self) -> None:
        """
        A CNAME record without the records of its target is followed by another question.
        """
        self.resolver.known["cache", dns.A] = [record("cache", dns.Record_CNAME("a"), 7)]
        self.resolver.known["a", dns.A] = [record("a", dns.Record_CNAME("b"), 6), *addresses("b", "10.0.0.1")]
        self.assertEqual(self.answer("dns:cache:1"), Answer((Discovered("tcp:10.0.0.1:1", "10.0.0.1"),), 6))

    def test_circle(self) -> None:
        """
        CNAME records that never end are a failure.
        """
        self.resolver.known["a", dns.A] = [record("a", dns.Record_CNAME("b"))]
        self.resolver.known["b", dns.A] = [record("b", dns.Record_CNAME("a"))]
        self.assertEqual(self.reason("dns:a:1"), "too many CNAME records one after the other")

    def test_nothing(self) -> None:
        """
        A name without addresses, or that does not exist, is a failure.
        """
        self.assertEqual(self.reason("dns:cache:1"), "the name has no address")
        self.resolver.known["cache", dns.A] = self.resolver.known["cache", dns.AAAA] = DNSNameError()
        self.assertEqual(self.reason("dns:cache:1"), "the name has no address")

    def test_failedFamily(self) -> None:
        """
        If one family fails that never had an address, the other one counts. Once it had one, the lookup fails.
        """
        self.resolver.known["cache", dns.A] = addresses("cache", "10.0.0.1")
        self.resolver.known["cache", dns.AAAA] = DNSServerError()
        source = self.make("dns:cache:1")
        for ips in ((), ("::1",)):
            self.assertEqual(len(self.successResultOf(source.lookUp()).servers), 1 + len(ips))
            self.resolver.known["cache", dns.AAAA] = addresses("cache", "::1")
        self.resolver.known["cache", dns.AAAA] = DNSServerError()
        self.failureResultOf(source.lookUp(), DNSServerError)

    def test_bothFailed(self) -> None:
        """
        The lookup fails with the reason of the first family.
        """
        self.resolver.known["cache", dns.A] = DNSQueryRefusedError()
        self.resolver.known["cache", dns.AAAA] = DNSServerError()
        self.assertEqual(self.reason("dns:cache:1"), "the DNS server refuses to answer")

    def test_timeLimit(self) -> None:
        """
        A family that does not answer in time has failed.
        """
        self.resolver.known["cache", dns.A] = addresses("cache", "10.0.0.1")
        self.resolver.known["cache", dns.AAAA] = None
        looking = self.make("dns:cache:1").lookUp()
        self.reactor.advance(4.9)
        self.assertNoResult(looking)
        self.reactor.advance(0.1)
        self.assertEqual(len(self.successResultOf(looking).servers), 1)
        self.resolver.known["cache", dns.A] = None
        looking = self.make("dns:cache:1").lookUp()
        self.reactor.advance(5)
        self.failureResultOf(looking, TimeoutError)
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_cancel(self) -> None:
        """
        Cancelling a lookup leaves no timer, and cancels the questions.
        """
        self.resolver.known["cache", dns.A] = self.resolver.known["cache", dns.AAAA] = None
        looking = self.make("dns:cache:1").lookUp()
        looking.cancel()
        self.failureResultOf(looking, CancelledError)
        self.assertEqual(self.reactor.getDelayedCalls(), [])
        self.assertEqual([pending.called for pending in self.resolver.pending], [True, True])


class ServicesTests(SourceCase):
    """
    Tests for C{srv:}.
    """

    def learn(self, *records: tuple[int, int, int, str]) -> None:
        """
        @param records: priority, weight, port and target of each.
        """
        self.resolver.known["_m._tcp.x", dns.SRV] = [record("_m._tcp.x", dns.Record_SRV(*each), 20) for each in records]

    def test_servers(self) -> None:
        """
        Each record is a server, without a label of its own. They are sorted, each only once.
        """
        self.learn((0, 5, 11211, "b.x"), (0, 5, 11211, "A.x."), (0, 5, 11212, "a.x"), (0, 5, 11211, "a.x"))
        self.assertEqual(
            self.answer("srv:_m._tcp.x"),
            Answer((Discovered("tcp:a.x:11211"), Discovered("tcp:a.x:11212"), Discovered("tcp:b.x:11211")), 20),
        )

    def test_weights(self) -> None:
        """
        Different weights become the weights of the servers. A weight of 0 becomes 1.
        """
        self.learn((0, 10, 1, "a.x"), (0, 20, 1, "b.x"), (0, 0, 1, "c.x"))
        self.assertEqual(
            self.servers("srv:_m._tcp.x"), ["tcp:a.x:1 weight=10", "tcp:b.x:1 weight=20", "tcp:c.x:1 weight=1"]
        )
        self.assertEqual(self.servers("srv:_m._tcp.x weight=3")[1], "tcp:b.x:1 weight=3")

    def test_priority(self) -> None:
        """
        Only the records with the lowest priority number count.
        """
        self.learn((10, 1, 1, "a.x"), (20, 9, 1, "b.x"))
        self.assertEqual(self.servers("srv:_m._tcp.x"), ["tcp:a.x:1"])

    def test_label(self) -> None:
        """
        A label may contain the target and the port.
        """
        self.learn((0, 0, 7, "a.x"))
        self.assertEqual(self.servers("srv:_m._tcp.x label={host}/{port}"), ["tcp:a.x:7 label=a.x/7"])

    def test_nothing(self) -> None:
        """
        A name without records is a failure, and one whose target says that there is no such service.
        """
        self.assertEqual(self.reason("srv:_m._tcp.x"), "the name has no service")
        self.learn((0, 0, 0, ""))
        self.assertEqual(self.reason("srv:_m._tcp.x"), "the name has no service")
        self.resolver.known["_m._tcp.x", dns.SRV] = DNSServerError()
        self.assertEqual(self.reason("srv:_m._tcp.x"), "the DNS server cannot answer")

    def test_wrongTarget(self) -> None:
        """
        A target that is not the name of a host is a failure.
        """
        self.learn((0, 0, 7, "a.x weight=9"))
        self.assertEqual(self.reason("srv:_m._tcp.x"), "an SRV record has the wrong target 'a.x weight=9'")


class ClusterTests(SourceCase):
    """
    Tests for C{elasticache:}.
    """

    def connect(self) -> tuple[Any, StringTransport]:
        """
        Accept the newest connection.
        """
        host, port, factory, *_ = self.reactor.tcpClients[-1]
        self.assertEqual((host, port), ("10.0.0.1", 11211))
        protocol: Any = factory.buildProtocol(None)
        transport = StringTransport()
        transport.abortConnection = transport.loseConnection  # type: ignore[method-assign]
        protocol.makeConnection(transport)
        self.assertEqual(transport.value(), b"config get cluster\r\n")
        return protocol, transport

    def found(self, line: str, *nodes: str) -> list[str]:
        looking = self.make(line).lookUp()
        protocol, transport = self.connect()
        protocol.dataReceived(b"CONFIG cluster 0 9\r\n1\n%s\n\r\nEND\r\n" % " ".join(nodes).encode())
        self.assertTrue(transport.disconnecting)
        return [str(server) for server in self.successResultOf(looking).servers]

    def test_servers(self) -> None:
        """
        Each node is a server: the endpoint has its address, and the label is its name.
        """
        looking = self.make("elasticache:10.0.0.1:11211").lookUp()
        protocol, transport = self.connect()
        for byte in range(len(REPLY)):
            self.assertNoResult(looking)
            protocol.dataReceived(REPLY[byte : byte + 1])
        self.assertTrue(transport.disconnecting)
        self.assertEqual(
            self.successResultOf(looking),
            Answer(
                (
                    Discovered("tcp:10.82.235.120:11211", "my.0001.use1.cache.amazonaws.com"),
                    Discovered("tcp:10.80.249.27:11211", "my.0002.use1.cache.amazonaws.com"),
                )
            ),
        )
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_labels(self) -> None:
        """
        Nodes of one host have the port in their labels. Others are sorted by their names.
        """
        self.assertEqual(
            self.found("elasticache:10.0.0.1:11211", "b||2", "c|10.0.0.3|1", "b||1", "c|10.0.0.3|1"),
            ["tcp:b:1 label=b:1", "tcp:b:2 label=b:2", "tcp:10.0.0.3:1 label=c"],
        )
        self.assertEqual(
            self.found("elasticache:10.0.0.1:11211 label={host}/{ip} weight=2", "b||2", "c|10.0.0.3|1"),
            ["tcp:b:2 weight=2 label=b/b", "tcp:10.0.0.3:1 weight=2 label=c/10.0.0.3"],
        )

    def test_failures(self) -> None:
        """
        The lookup fails if the server answers something else, too much, or closes the connection.
        """
        for data, text in (
            (b"ERROR\r\n", "the server has no list of a cluster"),
            (b"CONFIG cluster 0 9\r\n" + b"x" * (1 << 20), "a reply of more than 1048576 bytes"),
        ):
            looking = self.make("elasticache:10.0.0.1:11211").lookUp()
            protocol, transport = self.connect()
            protocol.dataReceived(data)
            protocol.dataReceived(b"more")
            self.assertTrue(transport.disconnecting)
            self.assertEqual(explain(self.failureResultOf(looking).value), text)
        looking = self.make("elasticache:10.0.0.1:11211").lookUp()
        protocol, _ = self.connect()
        protocol.connectionLost(Failure(error.ConnectionDone()))
        self.assertEqual(explain(self.failureResultOf(looking).value), "the server closed the connection")

    def test_timeLimit(self) -> None:
        """
        The lookup fails if there is no connection, or no reply in time.
        """
        for connected in (False, True):
            looking = self.make("elasticache:10.0.0.1:11211").lookUp()
            transport = self.connect()[1] if connected else None
            self.reactor.advance(5)
            self.failureResultOf(looking, TimeoutError)
            self.assertTrue(transport is None or transport.disconnecting)
            self.assertEqual(self.reactor.getDelayedCalls(), [])


class ExplainTests(SynchronousTestCase):
    """
    Tests for L{explain}.
    """

    def test_texts(self) -> None:
        """
        There is a short text for each kind of failure.
        """
        for reason, text in (
            (TimeoutError(), "no answer in time"),
            (error.TimeoutError(), "no answer in time"),
            (DNSNameError(b"message"), "there is no such name"),
            (DNSUnknownError(b"message"), "the DNS server answers with an error"),
            (ConnectionRefusedError(111, "Connection refused"), "connection refused"),
            (error.ConnectionRefusedError(), "connection refused"),
            (DiscoveryFailed("something"), "something"),
        ):
            self.assertEqual(explain(reason), text)
