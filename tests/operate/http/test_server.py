# Copyright txconnpool contributors. See LICENSE.
"""
Tests for L{txconnpool.operate.http.server}.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.address import IPv4Address, UNIXAddress
from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IHalfCloseableProtocol, IPushProducer
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.logger import capturedLogs, formatEvent
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from txconnpool.operate.http.messages import HEAD_MAX, TEXT, Request, Response
from txconnpool.operate.http.server import CONNECTIONS, HOST_SHOWN, LIFETIME, PIECE, HTTPConnection, HTTPFactory
from txconnpool.operate.listening import LOG_PERIOD

GET = b"GET /x HTTP/1.1\r\nHost: localhost\r\n\r\n"


class Browser(StringTransport):
    """
    The transport of a connection. It pauses its producer when more than L{PIECE} bytes are unsent, as Twisted's do.
    """

    def __init__(self, factory: HTTPFactory, host: str = "10.0.0.1") -> None:
        super().__init__(peerAddress=IPv4Address("TCP", host, 1) if host else UNIXAddress(None))
        self.protocol: HTTPConnection = factory.buildProtocol(None)
        self.protocol.makeConnection(self)

    def write(self, data: bytes) -> None:
        super().write(data)
        if self.producer is not None and len(self.value()) >= PIECE:
            self.producer.pauseProducing()

    def take(self) -> bytes:
        """
        Read what is unsent.
        """
        data: bytes = self.value()
        self.clear()
        if self.producer is not None:
            self.producer.resumeProducing()
        return data

    def lose(self) -> None:
        self.protocol.connectionLost(Failure(ConnectionDone()))


class ConnectionTests(SynchronousTestCase):
    """
    Tests for L{HTTPConnection} and L{HTTPFactory}.
    """

    def setUp(self) -> None:
        """
        Make a factory.
        """
        self.clock = Clock()
        self.requests: list[Request] = []
        self.answer: Deferred[Response] | None = None
        self.body = b"body"
        self.factory = HTTPFactory(self.respond, self.clock, ("Our.example",))
        self.browsers: list[Browser] = []
        self.addCleanup(self.end)

    def end(self) -> None:
        """
        Lose all connections, and assert that nothing is left.
        """
        for browser in self.browsers:
            if browser.protocol in self.factory.connections:
                browser.lose()
        self.factory.otherHosts.stop()
        self.assertEqual((self.clock.getDelayedCalls(), self.factory.connections), ([], {}))

    def respond(self, request: Request) -> Deferred[Response]:
        self.requests.append(request)
        return self.answer or succeed(Response(200, TEXT, self.body))

    def open(self, host: str = "10.0.0.1") -> Browser:
        self.browsers.append(Browser(self.factory, host))
        return self.browsers[-1]

    def send(self, data: bytes) -> Browser:
        """
        Send bytes on a new connection.
        """
        browser = self.open()
        browser.protocol.dataReceived(data)
        return browser

    def test_interfaces(self) -> None:
        """
        A connection is a producer, and is notified when its peer closes one side.
        """
        protocol = self.open().protocol
        verifyObject(IHalfCloseableProtocol, protocol)
        verifyObject(IPushProducer, protocol)
        self.assertEqual(self.factory.logPrefix(), "statistics")

    def test_one(self) -> None:
        """
        A request is answered, then the connection is closed.
        """
        browser = self.send(GET)
        self.assertEqual(self.requests, [Request("GET", "/x", "")])
        self.assertTrue(browser.value().startswith(b"HTTP/1.1 200 OK\r\n"))
        self.assertTrue(browser.value().endswith(b"\r\n\r\nbody"))
        self.assertTrue(browser.disconnecting)

    def test_pieces(self) -> None:
        """
        A request may arrive in any pieces, after empty lines.
        """
        for before in (b"", b"\r\n", b"\r\n\r\n\r\n"):
            browser = self.open()
            for byte in before + GET:
                self.assertEqual(browser.value(), b"")
                browser.protocol.dataReceived(bytes([byte]))
            self.assertIn(b"200 OK", browser.value())
            self.assertIn(b"200 OK", self.send(before + GET).value())

    def test_pipelined(self) -> None:
        """
        Only the first request of a connection is answered, and nothing is read after it.
        """
        browser = self.send(GET * 1000)
        browser.protocol.dataReceived(GET)
        self.assertEqual(len(self.requests), 1)
        self.assertEqual(browser.value().count(b"HTTP/1.1"), 1)
        self.assertEqual(browser.producerState, "paused")

    def test_later(self) -> None:
        """
        While the response is being made, nothing is read. The peer may close its side meanwhile.
        """
        self.answer = Deferred()
        browser = self.send(GET)
        browser.protocol.dataReceived(GET * 1000)
        self.assertEqual((browser.producerState, len(self.requests)), ("paused", 1))
        browser.protocol.readConnectionLost()
        browser.protocol.writeConnectionLost()
        self.answer.callback(Response(200, TEXT, b"late"))
        self.assertTrue(browser.value().endswith(b"late"))
        self.assertTrue(browser.disconnecting)

    def test_gone(self) -> None:
        """
        When the connection is lost, its response is cancelled.
        """
        cancelled: list[Any] = []
        self.answer = Deferred(cancelled.append)
        browser = self.send(GET)
        browser.protocol.stopProducing()
        browser.lose()
        self.assertEqual((cancelled, browser.value()), ([self.answer], b""))

    def test_failed(self) -> None:
        """
        A defect is logged, and the connection is closed. The peer gets no traceback.
        """
        self.answer = Deferred()
        browser = self.send(GET)
        self.answer.errback(ZeroDivisionError())
        self.assertEqual((browser.value(), browser.disconnected), (b"", True))
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_head(self) -> None:
        """
        HEAD gets no body, of an error either.
        """
        for path, host in ((b"/", b"localhost"), (b"/", b"other")):
            browser = self.send(b"HEAD %b HTTP/1.1\r\nHost: %b\r\n\r\n" % (path, host))
            self.assertTrue(browser.value().endswith(b"\r\n\r\n"))
            self.assertTrue(browser.disconnecting)

    def test_unread(self) -> None:
        """
        A long response is written as the peer reads it.
        """
        self.body = bytes(range(256)) * 1024
        browser = self.send(GET)
        received = b""
        while not browser.disconnecting:
            self.assertLess(len(browser.value()), 2 * PIECE)
            received += browser.take()
        received += browser.take()
        self.assertEqual(received.partition(b"\r\n\r\n")[2], self.body)

    def test_tooLong(self) -> None:
        """
        A request without an end is refused when it is too long.
        """
        for data in (b"x" * (HEAD_MAX + 1), b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * HEAD_MAX, GET[:-4] + b"x" * HEAD_MAX):
            browser = self.send(data)
            self.assertIn(b"HTTP/1.1 431 ", browser.value())
            self.assertTrue(browser.disconnecting)
        browser = self.send(b"x" * HEAD_MAX)
        self.assertEqual(browser.value(), b"")

    def test_body(self) -> None:
        """
        The body of a request is not read.
        """
        browser = self.send(b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\n")
        self.assertIn(b"HTTP/1.1 405 ", browser.value())
        for _ in range(100):
            browser.protocol.dataReceived(b"x" * 10000)
        self.assertEqual(browser.protocol._received, b"")

    def test_half(self) -> None:
        """
        A peer that closes its side before the end of its request is closed.
        """
        browser = self.send(GET[:-1])
        browser.protocol.readConnectionLost()
        self.assertTrue(browser.disconnected)

    def test_lifetime(self) -> None:
        """
        A connection is closed L{LIFETIME} seconds after it was accepted: if its request is slow, its response is slow,
        or the peer does not read.
        """
        slow, waiting, unread = self.open(), self.open(), self.open()
        self.body = b"x" * (2 * PIECE)
        unread.protocol.dataReceived(GET)
        self.answer = Deferred(lambda _: None)
        waiting.protocol.dataReceived(GET)
        for byte in GET[:15]:
            self.clock.advance(LIFETIME / 16)
            slow.protocol.dataReceived(bytes([byte]))
            self.assertFalse(slow.disconnecting)
        self.clock.advance(LIFETIME / 16)
        for browser in (slow, waiting, unread):
            self.assertTrue(browser.disconnected)
        unread.take()
        self.assertEqual(unread.value(), b"")

    def test_bound(self) -> None:
        """
        If there are too many connections, the oldest one of the network with the most is closed, and the new one is
        served.
        """
        ours = self.open("192.0.2.7")
        others = [self.open() for _ in range(CONNECTIONS - 1)]
        self.assertFalse(any(each.disconnected for each in self.browsers))
        more = [self.open() for _ in range(3)]
        self.assertEqual([each for each in self.browsers if each.disconnected], others[:3])
        others[0].lose()
        ours.protocol.dataReceived(GET)
        more[2].protocol.dataReceived(GET)
        self.assertEqual(len(self.requests), 2)

    def test_unix(self) -> None:
        """
        Peers on a UNIX socket have no address.
        """
        for _ in range(CONNECTIONS + 1):
            self.open("")
        self.assertEqual([each.disconnected for each in self.browsers[:2]], [True, False])

    def test_otherHost(self) -> None:
        """
        A request for another host is refused, and logged once in a period, without control characters.
        """
        with capturedLogs() as logs:
            for host in (b"evil{log_time}\x1b[2J", b"b", b"c" * 1000):
                browser = self.send(b"GET / HTTP/1.1\r\nHost: %b\r\n\r\n" % host)
                self.assertIn(b"HTTP/1.1 421 ", browser.value())
            self.assertIn(b"200 OK", self.send(b"GET / HTTP/1.1\r\nHost: our.EXAMPLE:80\r\n\r\n").value())
            self.clock.advance(LOG_PERIOD)
        self.assertEqual(
            [(event["count"], event["last"]) for event in logs],
            [(1, r"'evil{log_time}\x1b[2J' from 10.0.0.1:1"), (2, f"'{'c' * HOST_SHOWN}' from 10.0.0.1:1")],
        )
        texts = [formatEvent(event).partition(" for ")[0] for event in logs]
        self.assertEqual(texts, ["refused 1 request", "refused 2 requests"])

    def test_close(self) -> None:
        """
        A stop closes all connections.
        """
        self.successResultOf(self.factory.close())
        browser = self.open()
        closed = self.factory.close()
        self.assertTrue(browser.disconnected)
        self.assertNoResult(closed)
        browser.lose()
        self.successResultOf(closed)
