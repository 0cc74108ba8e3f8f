# -*- test-case-name: tests.memcache.test_memory -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Tests of L{txconnpool.memcache.memory}: the connection to the embedded memcached. What it answers is tested in
C{tests/memcache/test_store.py} and C{tests/real/test_embedded.py}.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import connectProtocol
from twisted.internet.error import (
    ConnectingCancelledError,
    ConnectionAborted,
    ConnectionDone,
    ConnectionLost,
    NoProtocol,
)
from twisted.internet.interfaces import (
    IAddress,
    IConsumer,
    IProtocol,
    IPushProducer,
    IStreamClientEndpoint,
    IStreamClientEndpointStringParserWithReactor,
    ITransport,
)
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock
from twisted.plugin import IPlugin
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from tests.pipes import Pusher
from txconnpool.memcache.memory import MemoryAddress, MemoryEndpoint, MemoryParser, Store
from txconnpool.net.transport import HIGH_WATER


class Client(Protocol):
    """
    Keeps what it receives and why it was closed.
    """

    transport: Any

    def __init__(self) -> None:
        self.data = b""
        self.lost: Failure | None = None

    def dataReceived(self, data: bytes) -> None:
        """
        Keep the data.
        """
        self.data += data

    def connectionLost(self, reason: Failure = Failure(ConnectionDone())) -> None:  # noqa: B008  # as in Protocol
        """
        Keep the reason.
        """
        assert self.lost is None
        self.lost = reason

    def taken(self) -> bytes:
        """
        What was received since this was last asked.
        """
        data, self.data = self.data, b""
        return data


class EmbeddedTestCase(SynchronousTestCase):
    """
    An endpoint and a client connected to it.
    """

    def setUp(self) -> None:
        """
        Connect.
        """
        self.clock = Clock()
        self.endpoint = MemoryEndpoint(self.clock, Store(1 << 24))
        self.client = self.connect()

    def connect(self) -> Client:
        """
        Connect one more client.
        """
        client = Client()
        connected = connectProtocol(self.endpoint, client)
        self.clock.advance(0)
        self.successResultOf(connected)
        return client

    def ask(self, request: bytes) -> bytes:
        """
        Write a request and take what came in return.
        """
        self.client.transport.write(request)
        self.clock.advance(0)
        return self.client.taken()

    def assertClosed(self, client: Client, reason: type[Exception] = ConnectionDone) -> None:
        """
        The client has been told that, and nothing is left to happen.
        """
        assert client.lost is not None
        client.lost.trap(reason)
        self.assertEqual(self.clock.getDelayedCalls(), [])


class ServerTests(EmbeddedTestCase):
    """
    What the server end makes of bytes.
    """

    def test_pieces(self) -> None:
        """
        A request may come in any pieces.
        """
        requests = (
            b"set k 0 0 5\r\na\r\nbc\r\nget k\r\nset k 0 0 2 noreply\r\nde\r\nmg k v\r\nstats reset\r\nversion\r\n"
        )
        whole = self.ask(requests)
        self.assertTrue(
            whole.startswith(b"STORED\r\nVALUE k 0 5\r\na\r\nbc\r\nEND\r\nVA 2\r\nde\r\nRESET\r\nVERSION 1.")
        )
        self.assertEqual(b"".join(self.ask(requests[at : at + 1]) for at in range(len(requests))), whole)

    def test_silent(self) -> None:
        """
        C{noreply} is silent, C{q} hides what it hides in memcached.
        """
        silent = (
            b"set k 0 0 1 noreply\r\n1\r\nincr k 1 noreply\r\nflush_all noreply\r\nverbosity 1 noreply\r\nmg k q v\r\n"
        )
        self.assertEqual(
            self.ask(silent + b"mn\r\nms k 1 q\r\n1\r\nms k 1 C99 q\r\n1\r\nmn\r\n"), b"MN\r\nEX\r\nMN\r\n"
        )

    def test_manyKeys(self) -> None:
        """
        Any number of keys may be asked for at once.
        """
        self.ask(b"set k 0 0 1\r\nx\r\n")
        self.assertEqual(self.ask(b"get" + b" miss k" * 500 + b"\r\n"), b"VALUE k 0 1\r\nx\r\n" * 500 + b"END\r\n")

    def test_wrong(self) -> None:
        """
        What memcached would refuse is refused, in its place in the order.
        """
        self.assertEqual(
            self.ask(b"what\r\nget\r\nmn\r\nset k 0 0 1\r\nabc\r\nincr k x\r\nmn\r\n").count(b"MN\r\n"),
            2,
        )
        self.assertEqual(self.ask(b"what\r\n"), b"ERROR\r\n")

    def test_quit(self) -> None:
        """
        C{quit} closes the connection after what was asked before it is answered; the rest is not looked at.
        """
        self.assertEqual(self.ask(b"mn\r\nquit\r\nmn\r\n"), b"MN\r\n")
        self.assertClosed(self.client)

    def test_tooLarge(self) -> None:
        """
        A value over the limit is swallowed without being kept, then refused, and takes the old value with it.
        """
        self.ask(b"set k 0 0 1\r\na\r\n")
        self.assertEqual(self.ask(b"set k 0 0 3000000\r\n"), b"")
        for _ in range(30):
            self.assertEqual(self.ask(b"x" * 100000), b"")
            self.assertEqual(self.client.transport._peer._protocol._data, b"")
        self.assertEqual(self.ask(b"\r\nget k\r\n"), b"SERVER_ERROR object too large for cache\r\nEND\r\n")

    def test_tooLargeAtOnce(self) -> None:
        """
        The same when all of it comes in one piece, and without a word if it asked for silence.
        """
        large = b"x" * 3000000 + b"\r\n"
        self.ask(b"set k 0 0 1\r\na\r\nset l 0 0 1\r\na\r\n")
        self.assertEqual(
            self.ask(b"set k 0 0 3000000 noreply\r\n" + large + b"get k l\r\n"), b"VALUE l 0 1\r\na\r\nEND\r\n"
        )

    def test_badBlock(self) -> None:
        """
        A request that is wrong in another way leaves the old value alone.
        """
        self.ask(b"set k 0 0 1\r\na\r\nset k 0 0 1 noreply\r\nabc\r\n")
        self.assertEqual(self.ask(b"mg k v\r\n"), b"VA 1\r\na\r\n")

    def test_shared(self) -> None:
        """
        All connections of an endpoint share its store.
        """
        self.ask(b"set k 0 0 1\r\na\r\n")
        other = self.connect()
        other.transport.write(b"get k\r\n")
        self.clock.advance(0)
        self.assertEqual(other.data, b"VALUE k 0 1\r\na\r\nEND\r\n")

    def test_clock(self) -> None:
        """
        Items age by the reactor's clock.
        """
        self.ask(b"set k 0 3 1\r\na\r\n")
        self.clock.advance(2)
        self.assertEqual(self.ask(b"mg k\r\n"), b"HD\r\n")
        self.clock.advance(1)
        self.assertEqual(self.ask(b"mg k\r\n"), b"EN\r\n")

    def test_statistics(self) -> None:
        """
        C{stats} counts connections too.
        """
        self.connect().transport.loseConnection()
        self.clock.advance(0)
        statistics = self.ask(b"stats\r\n")
        self.assertIn(b"STAT curr_connections 1\r\n", statistics)
        self.assertIn(b"STAT total_connections 2\r\n", statistics)

    def test_unread(self) -> None:
        """
        While the client does not read its replies, requests wait; it gets them all when it does.
        """
        self.ask(b"set k 0 0 10000\r\n" + b"x" * 10000 + b"\r\n")
        self.client.transport.pauseProducing()
        self.client.transport.write(b"get k\r\n" * 100)
        self.clock.advance(0)
        self.client.transport.write(b"get k\r\n" * 100)
        self.clock.advance(0)
        self.assertEqual(self.client.data, b"")
        executed = self.endpoint.store.counters["cmd_get"]
        self.assertLessEqual(executed, HIGH_WATER // 10000 + 1)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.client.transport.resumeProducing()
        self.clock.advance(0)
        self.assertEqual(self.client.taken().count(b"VALUE k 0 10000\r\n"), 200)
        self.assertEqual(self.ask(b"mn\r\n"), b"MN\r\n")

    def test_unreadForLong(self) -> None:
        """
        A client that reads nothing but goes on to write is paused itself: nothing piles up at the server.
        """
        producer = Pusher()
        self.ask(b"set k 0 0 100000\r\n" + b"x" * 100000 + b"\r\n")
        self.client.transport.registerProducer(producer, True)
        self.client.transport.pauseProducing()
        self.client.transport.write(b"get k\r\n" * 2)
        self.clock.advance(0)
        self.client.transport.write(b"get k\r\n" * HIGH_WATER)
        self.clock.advance(0)
        self.assertEqual(producer.calls, ["pause"])

    def test_closedWhileUnread(self) -> None:
        """
        Requests that wait when the client closes are never executed.
        """
        self.ask(b"set k 0 0 10000\r\n" + b"x" * 10000 + b"\r\n")
        self.client.transport.pauseProducing()
        self.client.transport.write(b"get k\r\n" * 100 + b"delete k\r\n")
        self.clock.advance(0)
        self.client.transport.loseConnection()
        self.clock.advance(0)
        self.assertClosed(self.client)
        self.assertEqual(len(self.endpoint.store), 1)


class Pair(EmbeddedTestCase):
    """
    The transports alone, with a second client in the server's place.
    """

    def setUp(self) -> None:
        """
        Take the server's end over.
        """
        super().setUp()
        self.near = self.client.transport
        self.far = self.near._peer
        self.server = Client()
        self.far.unregisterProducer()
        self.far._protocol = self.server


class TransportTests(Pair):
    """
    The transports behave as TCP transports do.
    """

    def test_interfaces(self) -> None:
        """
        They are transports, consumers and producers, between addresses.
        """
        for interface in (ITransport, IConsumer, IPushProducer):
            verifyObject(interface, self.near)
        self.assertEqual(self.near.getHost(), MemoryAddress())
        self.assertEqual(self.near.getPeer(), MemoryAddress())
        verifyObject(IAddress, self.near.getPeer())

    def test_nextTurn(self) -> None:
        """
        What is written arrives in the next turn in one piece, with one call to the reactor.
        """
        self.near.write(b"a")
        self.near.writeSequence([b"b", b"", b"c"])
        self.assertEqual(self.server.data, b"")
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)
        self.clock.advance(0)
        self.assertEqual(self.server.data, b"abc")
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_notWithin(self) -> None:
        """
        A protocol that writes when it receives is not called from its own call.
        """
        depth = []

        def echo(data: bytes) -> None:
            depth.append("in")
            self.far.write(data)
            self.assertEqual(self.client.data, b"")
            depth.append("out")

        self.server.dataReceived = echo  # type: ignore[method-assign]
        self.near.write(b"a")
        self.clock.advance(0)
        self.assertEqual((depth, self.client.data), (["in", "out"], b"a"))

    def test_copied(self) -> None:
        """
        A buffer that is changed after it was written does not change what arrives.
        """
        buffer = bytearray(b"a")
        self.near.write(buffer)
        buffer[:] = b"b"
        self.clock.advance(0)
        self.assertEqual(self.server.data, b"a")

    def test_notBytes(self) -> None:
        """
        Text is no bytes.
        """
        self.assertRaises(TypeError, self.near.write, "text")

    def test_nothing(self) -> None:
        """
        Writing nothing does nothing.
        """
        self.near.write(b"")
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_paused(self) -> None:
        """
        A paused end receives nothing until it is resumed, and the reactor is left alone meanwhile.
        """
        self.far.pauseProducing()
        self.near.write(b"a")
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.far.resumeProducing()
        self.clock.advance(0)
        self.assertEqual(self.server.data, b"a")
        self.near.write(b"b")
        self.far.pauseProducing()
        self.clock.advance(0)
        self.assertEqual((self.server.data, self.clock.getDelayedCalls()), (b"a", []))

    def test_close(self) -> None:
        """
        What was written before the close arrives, then both ends are told.
        """
        self.near.write(b"a")
        self.near.loseConnection()
        self.assertEqual((self.near.disconnecting, self.near.connected, self.client.lost), (True, True, None))
        self.clock.advance(0)
        self.assertEqual((self.server.data, self.near.connected, self.far.connected), (b"a", False, False))
        self.assertClosed(self.client)
        self.assertClosed(self.server)

    def test_closeWhilePaused(self) -> None:
        """
        The close waits for what the other end has not read.
        """
        self.far.pauseProducing()
        self.near.write(b"a")
        self.near.loseConnection()
        self.clock.advance(0)
        self.assertIsNone(self.client.lost)
        self.far.resumeProducing()
        self.clock.advance(0)
        self.assertEqual(self.server.data, b"a")
        self.assertClosed(self.client)

    def test_closeBoth(self) -> None:
        """
        An end that is closing receives nothing more, so two that close need not wait for each other.
        """
        self.far.pauseProducing()
        for end in (self.near, self.far):
            end.write(b"a")
            end.loseConnection()
        self.clock.advance(0)
        self.assertEqual(self.client.data + self.server.data, b"")
        self.assertClosed(self.client)
        self.assertClosed(self.server)

    def test_closeAtOnce(self) -> None:
        """
        Two ends that close in the same turn are told once each.
        """
        self.near.loseConnection()
        self.far.loseConnection()
        self.clock.advance(0)
        self.assertClosed(self.client)
        self.assertClosed(self.server)

    def test_stop(self) -> None:
        """
        To stop a transport as a producer is to close it.
        """
        self.near.stopProducing()
        self.clock.advance(0)
        self.assertClosed(self.server)

    def test_abort(self) -> None:
        """
        An abort drops what is on its way, and both ends are told how it ended.
        """
        self.far.pauseProducing()
        self.near.write(b"a")
        self.far.write(b"b")
        self.near.abortConnection()
        self.assertIsNone(self.client.lost)
        self.clock.advance(0)
        self.assertEqual(self.client.data + self.server.data, b"")
        self.assertClosed(self.client, ConnectionAborted)
        self.assertClosed(self.server, ConnectionLost)

    def test_closed(self) -> None:
        """
        A closed transport takes everything without a sign.
        """
        self.near.loseConnection()
        self.clock.advance(0)
        for end in (self.near, self.far):
            end.write(b"a")
            end.loseConnection()
            end.abortConnection()
            end.pauseProducing()
            end.resumeProducing()
        self.assertClosed(self.client)

    def test_error(self) -> None:
        """
        An exception in a protocol is logged and closes its connection.
        """

        def fail(data: bytes) -> None:
            raise ZeroDivisionError

        self.server.dataReceived = fail  # type: ignore[method-assign]
        self.near.write(b"a")
        self.clock.advance(0)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertClosed(self.server, ConnectionAborted)
        self.assertClosed(self.client, ConnectionLost)

    def test_errorAtClose(self) -> None:
        """
        An exception when one end is told of the close does not keep the other from being told.
        """

        def fail(reason: Failure) -> None:
            raise ZeroDivisionError

        self.client.connectionLost = fail  # type: ignore[method-assign, assignment]
        self.near.loseConnection()
        self.clock.advance(0)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertClosed(self.server)


class ProducerTests(Pair):
    """
    The transports as consumers.
    """

    def setUp(self) -> None:
        """
        Make a producer.
        """
        super().setUp()
        self.producer = Pusher()

    def test_push(self) -> None:
        """
        A push producer is paused once above the mark and resumed when all has arrived.
        """
        self.near.registerProducer(self.producer, True)
        self.near.write(b"x" * HIGH_WATER)
        self.assertEqual(self.producer.calls, [])
        self.near.write(b"x")
        self.near.write(b"x")
        self.assertEqual(self.producer.calls, ["pause"])
        self.clock.advance(0)
        self.assertEqual(self.producer.calls, ["pause", "resume"])
        self.near.write(b"x" * (HIGH_WATER + 1))
        self.clock.advance(0)
        self.assertEqual(self.producer.calls, ["pause", "resume"] * 2)

    def test_next(self) -> None:
        """
        A producer that follows a paused one is paused and resumed itself.
        """
        self.near.registerProducer(Pusher(), True)
        self.near.write(b"x" * (HIGH_WATER + 1))
        self.near.unregisterProducer()
        self.near.registerProducer(self.producer, True)
        self.near.write(b"x")
        self.clock.advance(0)
        self.assertEqual(self.producer.calls, ["pause", "resume"])

    def test_pull(self) -> None:
        """
        A pull producer is asked for more when it is registered and whenever all has arrived.
        """
        self.near.registerProducer(self.producer, False)
        self.near.write(b"x" * (HIGH_WATER + 1))
        self.assertEqual(self.producer.calls, ["resume"])
        self.clock.advance(0)
        self.assertEqual(self.producer.calls, ["resume", "resume"])

    def test_one(self) -> None:
        """
        There is one producer at a time.
        """
        self.near.registerProducer(self.producer, True)
        self.assertRaises(RuntimeError, self.near.registerProducer, Pusher(), True)
        self.near.unregisterProducer()
        self.near.registerProducer(Pusher(), True)

    def test_unregistered(self) -> None:
        """
        A producer that has finished is told nothing more.
        """
        self.near.registerProducer(self.producer, True)
        self.near.unregisterProducer()
        self.near.write(b"x" * (HIGH_WATER + 1))
        self.near.loseConnection()
        self.clock.advance(0)
        self.assertEqual(self.producer.calls, [])

    def test_close(self) -> None:
        """
        A producer is stopped when the connection closes, and one that comes later at once.
        """
        self.near.registerProducer(self.producer, True)
        self.far.loseConnection()
        self.clock.advance(0)
        self.assertEqual(self.producer.calls, ["stop"])
        late = Pusher()
        self.far.registerProducer(late, True)
        self.assertEqual(late.calls, ["stop"])


class CountingFactory(Factory):
    """
    Notes when it is started and stopped.
    """

    noisy = False

    def __init__(self, protocol: IProtocol | None) -> None:
        self.built = protocol
        self.notes: list[str] = []

    def buildProtocol(self, addr: IAddress | None) -> Any:
        """
        Give the protocol, or fail.
        """
        assert addr == MemoryAddress()
        if isinstance(self.built, Exception):
            raise self.built
        return self.built

    def startFactory(self) -> None:
        """
        Note it.
        """
        self.notes.append("start")

    def stopFactory(self) -> None:
        """
        Note it.
        """
        self.notes.append("stop")


class EndpointTests(SynchronousTestCase):
    """
    L{MemoryEndpoint}.
    """

    def setUp(self) -> None:
        """
        Make an endpoint.
        """
        self.clock = Clock()
        self.endpoint = MemoryEndpoint(self.clock)

    def connect(self, built: Any) -> tuple[Deferred[IProtocol], CountingFactory]:
        """
        Begin to connect.
        """
        factory = CountingFactory(built)
        return self.endpoint.connect(factory), factory

    def test_interface(self) -> None:
        """
        It is an endpoint.
        """
        verifyObject(IStreamClientEndpoint, self.endpoint)

    def test_connect(self) -> None:
        """
        The connection is made in the reactor's next turn. The factory is started before and stopped after it.
        """
        client = Client()
        connected, factory = self.connect(client)
        self.assertNoResult(connected)
        self.assertEqual(factory.notes, ["start"])
        self.clock.advance(0)
        self.assertIs(self.successResultOf(connected), client)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(self.endpoint.store.connections, 1)
        client.transport.loseConnection()
        self.clock.advance(0)
        self.assertEqual((factory.notes, self.endpoint.store.connections), (["start", "stop"], 0))

    def test_noProtocol(self) -> None:
        """
        A factory that builds nothing makes the connection fail.
        """
        connected, factory = self.connect(None)
        self.clock.advance(0)
        self.failureResultOf(connected, NoProtocol)
        self.assertEqual((factory.notes, self.endpoint.store.connections), (["start", "stop"], 0))

    def test_brokenFactory(self) -> None:
        """
        So does one that raises an exception, with that exception.
        """
        connected, factory = self.connect(ZeroDivisionError())
        self.clock.advance(0)
        self.failureResultOf(connected, ZeroDivisionError)
        self.assertEqual(factory.notes, ["start", "stop"])

    def test_cancel(self) -> None:
        """
        A connection that is being made can be cancelled; nothing is left of it.
        """
        connected, factory = self.connect(Client())
        connected.cancel()
        self.failureResultOf(connected, ConnectingCancelledError)
        self.assertEqual((factory.notes, self.clock.getDelayedCalls()), (["start", "stop"], []))

    def test_cancelWithin(self) -> None:
        """
        A protocol may have its own connection cancelled while it is being made; it is then closed.
        """
        client = Client()
        connected, factory = self.connect(client)
        client.connectionMade = connected.cancel  # type: ignore[method-assign]
        self.clock.advance(0)
        self.failureResultOf(connected, ConnectingCancelledError)
        assert client.lost is not None
        client.lost.trap(ConnectionAborted)
        self.assertEqual((factory.notes, self.clock.getDelayedCalls()), (["start", "stop"], []))

    def test_firstWords(self) -> None:
        """
        A protocol may write as soon as it is connected.
        """
        client = Client()
        client.connectionMade = lambda: client.transport.write(b"mn\r\n")  # type: ignore[method-assign]
        self.connect(client)
        self.clock.advance(0)
        self.assertEqual(client.data, b"MN\r\n")


class ParserTests(SynchronousTestCase):
    """
    C{memory:} strings.
    """

    def parse(self, *args: str, reactor: Any = None, **options: str) -> Store:
        """
        @return: the store of the endpoint.
        """
        endpoint = MemoryParser().parseStreamClient(reactor or Clock(), *args, **options)
        return endpoint.store

    def test_interfaces(self) -> None:
        """
        It is a plugin that parses client endpoints which begin with C{memory}.
        """
        parser = MemoryParser()
        verifyObject(IStreamClientEndpointStringParserWithReactor, parser)
        self.assertTrue(IPlugin.providedBy(parser))
        self.assertEqual(parser.prefix, "memory")

    def test_size(self) -> None:
        """
        A size is a number of bytes, kilobytes, megabytes or gigabytes, 64 megabytes if none is given.
        """
        sizes = {"5000": 5000, "1k": 1024, "1K": 1024, "3m": 3 << 20, "2g": 2 << 30}
        self.assertEqual({size: self.parse("", size=size).size for size in sizes}, sizes)
        self.assertEqual(self.parse("").size, 64 << 20)
        self.assertEqual(self.parse().size, 64 << 20)

    def test_wrongSize(self) -> None:
        """
        Any other size is an error that says what would be right.
        """
        for size in ("", "0", "1023", "-1", "1t", "1.5m", "64 m", "9" * 20, "\N{SUPERSCRIPT TWO}000"):
            error = self.assertRaises(ValueError, self.parse, "", size=size)
            self.assertEqual(
                str(error), f"memory: size {size!r} is wrong; right are 1k (the least), 64m, 1g and the like"
            )

    def test_unknown(self) -> None:
        """
        An unknown option is an error that says which are known.
        """
        for args, options, shown in ((["1k"], {}, "1k"), ([""], {"sizes": "1k", "size": "1k"}, "sizes")):
            error = self.assertRaises(ValueError, self.parse, *args, **options)
            self.assertEqual(str(error), f"memory: unknown option {shown!r}; size and name are known")

    def test_named(self) -> None:
        """
        Endpoints of one name and reactor have one store, all others one each.
        """
        clock = Clock()
        store = self.parse("", reactor=clock, name="a")
        self.assertIs(self.parse("", reactor=clock, name="a", size="64m"), store)
        others = {
            self.parse("", reactor=clock, name="b"),
            self.parse("", reactor=Clock(), name="a"),
            self.parse("", reactor=clock),
            self.parse("", reactor=clock),
        }
        self.assertEqual(len(others | {store}), 5)

    def test_namedSize(self) -> None:
        """
        The first endpoint of a name says the size; another one may leave it out or say the same.
        """
        clock = Clock()
        self.parse("", reactor=clock, name="a", size="2k")
        self.assertEqual(self.parse("", reactor=clock, name="a").size, 2048)
        error = self.assertRaises(ValueError, self.parse, "", reactor=clock, name="a", size="3k")
        self.assertEqual(str(error), "memory: size '3k' is wrong; the store 'a' has 2048 bytes already")

    def test_emptyName(self) -> None:
        """
        An empty name is an error.
        """
        error = self.assertRaises(ValueError, self.parse, "", name="")
        self.assertEqual(str(error), "memory: name is empty; leave it out for a store that is not shared")

    def test_address(self) -> None:
        """
        The name is the address.
        """
        clock = Clock()
        endpoint = MemoryParser().parseStreamClient(clock, "", name="a")
        connected = connectProtocol(endpoint, Client())
        clock.advance(0)
        self.assertEqual(self.successResultOf(connected).transport.getPeer(), MemoryAddress("a"))
