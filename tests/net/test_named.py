# Copyright txconnpool contributors. See LICENSE.
"""
Tests for L{txconnpool.net.named}.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.internet.endpoints import HostnameEndpoint, clientFromString
from twisted.internet.error import ConnectionRefusedError, DNSLookupError
from twisted.internet.interfaces import IReactorThreads, IStreamClientEndpoint
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import alsoProvides
from zope.interface.verify import verifyObject

from tests.net.test_names import info
from tests.net.tlscase import Named
from txconnpool.net import names
from txconnpool.net.addresses import endpointOf
from txconnpool.net.endpoints import clientEndpoint
from txconnpool.net.named import NamedEndpoint, byName, connectFirst, nameIn
from txconnpool.net.names import Address, Names


class NameInTests(SynchronousTestCase):
    """
    Tests for L{nameIn}.
    """

    def test_names(self) -> None:
        """
        The name is found that has to be looked up to connect.
        """
        for description, name in (
            ("tcp:h:1", "h"),
            ("TCP:h:1:timeout=3", "h"),
            ("tcp:host=h.example:port=1", "h.example"),
            ("tcp:port=1:host=h", "h"),
            ("tls:h:1:trustRoots=/x", "h"),
            (r"tls:h:1:endpoint=tcp\:inner\:1", "inner"),
            (r"tls:h:1:endpoint=unix\:/x", None),
            ("tcp:10.0.0.1:1", None),
            (r"tcp:\:\:1:1", None),
            (r"tls:\:\:1:1", None),
            ("unix:/run/h", None),
            ("memory:", None),
            ("tcp:port=1", None),
            ("tcp", None),
        ):
            self.assertEqual(nameIn(description), name, description)


class ConnectFirstTests(SynchronousTestCase):
    """
    Tests for L{connectFirst}, with a delay of one second.
    """

    def setUp(self) -> None:
        """
        Connect to three addresses.
        """
        self.clock = Clock()
        self.attempts: list[Deferred[Any]] = []
        self.connecting = connectFirst(self.clock, [IPv4Address("TCP", str(n), 0) for n in range(3)], self.attempt, 1)

    def attempt(self, address: Address) -> Deferred[Any]:
        self.assertEqual(address.host, str(len(self.attempts)))
        self.attempts.append(Deferred())
        return self.attempts[-1]

    def called(self) -> list[bool]:
        """
        Assert that nothing is left.

        @return: which attempts have a result.
        """
        self.assertEqual(self.clock.getDelayedCalls(), [])
        return [attempt.called for attempt in self.attempts]

    def test_first(self) -> None:
        """
        If the first address accepts, no other one is tried.
        """
        self.attempts[0].callback("connection")
        self.assertEqual(self.successResultOf(self.connecting), "connection")
        self.assertEqual(self.called(), [True])

    def test_slow(self) -> None:
        """
        After the delay the next address is tried too. The first that accepts wins, the others are cancelled.
        """
        self.clock.advance(0.9)
        self.assertEqual(len(self.attempts), 1)
        self.clock.pump([0.1, 1])
        self.assertEqual(len(self.attempts), 3)
        self.attempts[1].callback("connection")
        self.assertEqual(self.successResultOf(self.connecting), "connection")
        self.assertEqual(self.called(), [True, True, True])

    def test_failed(self) -> None:
        """
        If an address fails, the next one is tried at once. When all have failed, the last failure is the result.
        """
        for number in range(3):
            self.assertNoResult(self.connecting)
            self.attempts[number].errback(ConnectionRefusedError(str(number)))
            self.clock.advance(0)
        self.assertEqual(self.failureResultOf(self.connecting, ConnectionRefusedError).value.osError, "2")
        self.assertEqual(self.called(), [True, True, True])

    def test_lateFailure(self) -> None:
        """
        If all addresses were tried, the result waits for the last of them.
        """
        self.clock.pump([1, 1])
        for number in (2, 0):
            self.attempts[number].errback(ConnectionRefusedError())
            self.assertNoResult(self.connecting)
        self.attempts[1].callback("connection")
        self.assertEqual(self.successResultOf(self.connecting), "connection")

    def test_cancel(self) -> None:
        """
        Cancelling ends all attempts.
        """
        self.clock.advance(1)
        self.connecting.cancel()
        self.failureResultOf(self.connecting, CancelledError)
        self.assertEqual(self.called(), [True, True])

    def test_immediate(self) -> None:
        """
        Attempts may have results at once, for many addresses too.
        """
        addresses = [IPv4Address("TCP", str(n), 0) for n in range(2000)]
        connecting = connectFirst(self.clock, addresses, lambda each: fail(ConnectionRefusedError()), 1)
        self.clock.pump([0] * 2000)
        self.failureResultOf(connecting, ConnectionRefusedError)
        self.assertEqual(self.successResultOf(connectFirst(self.clock, addresses, succeed, 1)), addresses[0])
        self.connecting.addErrback(lambda failure: None).cancel()


class NamedEndpointTests(SynchronousTestCase):
    """
    Tests for L{NamedEndpoint} and L{byName}.
    """

    def setUp(self) -> None:
        """
        Create a reactor with threads, which are run when the test says so.
        """
        reactor: Any = MemoryReactorClock()
        self.reactor = reactor
        alsoProvides(reactor, IReactorThreads)
        reactor.callFromThread = lambda function, *args: function(*args)
        reactor.nameResolver = None
        self.threads: list[Any] = []
        self.known: list[str] = []
        looked = Names(self.reactor, 5, lambda *args: info(*self.known), self.threads.append)
        self.patch(names, "_names", {self.reactor: looked})

    def connect(self, endpoint: IStreamClientEndpoint, *known: str) -> Deferred[Any]:
        """
        Connect, and find these addresses.
        """
        self.known[:] = known
        connecting: Deferred[Any] = endpoint.connect(Named())
        self.threads.pop()()
        return connecting

    def tried(self) -> list[tuple[str, int]]:
        return [client[:2] for client in self.reactor.tcpClients]

    def refuse(self) -> None:
        """
        Refuse the last attempt to connect.
        """
        self.reactor.tcpClients[-1][2].clientConnectionFailed(None, Failure(ConnectionRefusedError()))
        self.reactor.pump([0.1, 0])

    def test_kinds(self) -> None:
        """
        Only a name is looked up, and only if the reactor has threads.
        """
        endpoint = clientEndpoint(self.reactor, "tcp:h:1")
        verifyObject(IStreamClientEndpoint, endpoint)
        self.assertIsInstance(endpoint, NamedEndpoint)
        for description in ("tcp:10.0.0.1:1", r"tcp:\:\:1:1", "unix:/x"):
            self.assertNotIsInstance(clientEndpoint(self.reactor, description), NamedEndpoint)
        self.assertNotIsInstance(clientEndpoint(MemoryReactorClock(), "tcp:h:1"), NamedEndpoint)
        self.assertRaises(ValueError, clientEndpoint, self.reactor, "tcp:h:x")
        self.assertRaises(ValueError, clientEndpoint, self.reactor, "tcp:h:1:bogus=1")

    def test_allAddresses(self) -> None:
        """
        All addresses of both families are tried, for all kinds of endpoints.
        """
        for endpoint in (
            clientEndpoint(self.reactor, "tcp:h:7:timeout=3"),
            endpointOf(("h", 7), self.reactor)[1],
            byName(self.reactor, "h", lambda each: HostnameEndpoint(each, "h", 7, attemptDelay=0.1)),
            byName(self.reactor, "h", lambda each: clientFromString(each, "tcp:h:7")),
        ):
            del self.reactor.tcpClients[:]
            connecting = self.connect(endpoint, "::1", "10.0.0.1", "10.0.0.2")
            self.refuse()
            self.refuse()
            self.assertEqual(self.tried(), [("::1", 7), ("10.0.0.1", 7), ("10.0.0.2", 7)])
            self.refuse()
            self.failureResultOf(connecting, ConnectionRefusedError)
            self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_connected(self) -> None:
        """
        The protocol of the first connection is the result.
        """
        connecting = self.connect(clientEndpoint(self.reactor, "tcp:h:7"), "::1", "10.0.0.1")
        self.refuse()
        wrapped = self.reactor.tcpClients[-1][2].buildProtocol(IPv6Address("TCP", "::1", 7))
        wrapped.makeConnection(self.reactor.connectors[-1])
        self.assertIsNotNone(self.successResultOf(connecting))
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_noAddress(self) -> None:
        """
        A name without addresses is a failure.
        """
        connecting = self.connect(clientEndpoint(self.reactor, "tcp:h:7"))
        self.failureResultOf(connecting, DNSLookupError)

    def test_cancel(self) -> None:
        """
        Cancelling ends the lookup, or the attempts, and leaves no timer.
        """
        endpoint = clientEndpoint(self.reactor, "tcp:h:7")
        connecting: Deferred[Any] = endpoint.connect(Named())
        connecting.cancel()
        self.failureResultOf(connecting, CancelledError)
        self.assertEqual(self.reactor.getDelayedCalls(), [])
        self.threads.pop()()
        self.assertEqual(self.tried(), [])
        connecting = self.connect(endpoint, "::1", "10.0.0.1")
        connecting.cancel()
        self.failureResultOf(connecting, CancelledError)
        self.assertEqual(self.reactor.getDelayedCalls(), [])
