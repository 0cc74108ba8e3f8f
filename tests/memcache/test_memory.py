# -*- test-case-name: tests.memcache.test_memory -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Tests for L{txconnpool.memcache.memory}: the connection to the embedded memcached. C{tests/memcache/test_store.py} and
C{tests/real/test_embedded.py} test its replies.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.endpoints import connectProtocol
from twisted.internet.error import (
    ConnectionDone,
)
from twisted.internet.interfaces import (
    IProtocol,
    IStreamClientEndpointStringParserWithReactor,
)
from twisted.internet.task import Clock
from twisted.plugin import IPlugin
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from tests.pipes import Pusher, Recorder
from txconnpool.memcache.memory import MemoryEndpoint, MemoryParser, Store
from txconnpool.net.inprocess import InProcessAddress
from txconnpool.net.transport import HIGH_WATER


class Endpoint(MemoryEndpoint):
    """
    An endpoint that keeps the server's protocols of its connections.
    """

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.served: list[Any] = []

    def serve(self) -> IProtocol:
        self.served.append(super().serve())
        return self.served[-1]  # type: ignore[no-any-return]


class EmbeddedTestCase(SynchronousTestCase):
    """
    An endpoint and a client connected to it.
    """

    def setUp(self) -> None:
        self.clock = Clock()
        self.endpoint = Endpoint(self.clock, Store(1 << 24))
        self.client = self.connect()

    def connect(self) -> Recorder:
        """
        Connect another client.
        """
        client = Recorder()
        connected = connectProtocol(self.endpoint, client)
        self.clock.advance(0)
        self.successResultOf(connected)
        return client

    def ask(self, request: bytes) -> bytes:
        """
        Write a request and return the bytes received for it.
        """
        self.client.transport.write(request)
        self.clock.advance(0)
        return self.client.taken()

    def assertClosed(self, client: Recorder, reason: type[Exception] = ConnectionDone) -> None:
        """
        Assert that the connection of a client was lost, and that no timer is left.
        """
        assert client.lost is not None
        client.lost.trap(reason)
        self.assertEqual(self.clock.getDelayedCalls(), [])


class ServerTests(EmbeddedTestCase):
    """
    How the server handles received bytes.
    """

    def test_pieces(self) -> None:
        """
        A request may arrive in pieces of any size.
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
        C{noreply} has no reply, and C{q} suppresses the same replies as in memcached.
        """
        silent = (
            b"set k 0 0 1 noreply\r\n1\r\nincr k 1 noreply\r\nflush_all noreply\r\nverbosity 1 noreply\r\nmg k q v\r\n"
        )
        self.assertEqual(
            self.ask(silent + b"mn\r\nms k 1 q\r\n1\r\nms k 1 C99 q\r\n1\r\nmn\r\n"), b"MN\r\nEX\r\nMN\r\n"
        )

    def test_manyKeys(self) -> None:
        """
        A request may have any number of keys.
        """
        self.ask(b"set k 0 0 1\r\nx\r\n")
        self.assertEqual(self.ask(b"get" + b" miss k" * 500 + b"\r\n"), b"VALUE k 0 1\r\nx\r\n" * 500 + b"END\r\n")

    def test_wrong(self) -> None:
        """
        A request that memcached would refuse is refused, in its place in the order.
        """
        self.assertEqual(
            self.ask(b"what\r\nget\r\nmn\r\nset k 0 0 1\r\nabc\r\nincr k x\r\nmn\r\n").count(b"MN\r\n"),
            2,
        )
        self.assertEqual(self.ask(b"what\r\n"), b"ERROR\r\n")

    def test_quit(self) -> None:
        """
        C{quit} closes the connection after the replies to earlier requests; later requests are ignored.
        """
        self.assertEqual(self.ask(b"mn\r\nquit\r\nmn\r\n"), b"MN\r\n")
        self.assertClosed(self.client)

    def test_tooLarge(self) -> None:
        """
        A value over the limit is dropped as it arrives, then refused, and the old value is deleted.
        """
        self.ask(b"set k 0 0 1\r\na\r\n")
        self.assertEqual(self.ask(b"set k 0 0 3000000\r\n"), b"")
        for _ in range(30):
            self.assertEqual(self.ask(b"x" * 100000), b"")
            self.assertEqual(self.endpoint.served[0].buffered, b"")
        self.assertEqual(self.ask(b"\r\nget k\r\n"), b"SERVER_ERROR object too large for cache\r\nEND\r\n")

    def test_tooLargeAtOnce(self) -> None:
        """
        The same holds when it arrives in one piece; with C{noreply} there is no reply.
        """
        large = b"x" * 3000000 + b"\r\n"
        self.ask(b"set k 0 0 1\r\na\r\nset l 0 0 1\r\na\r\n")
        self.assertEqual(
            self.ask(b"set k 0 0 3000000 noreply\r\n" + large + b"get k l\r\n"), b"VALUE l 0 1\r\na\r\nEND\r\n"
        )

    def test_badBlock(self) -> None:
        """
        A request that is malformed in another way leaves the old value unchanged.
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
        Items expire by the reactor's clock.
        """
        self.ask(b"set k 0 3 1\r\na\r\n")
        self.clock.advance(2)
        self.assertEqual(self.ask(b"mg k\r\n"), b"HD\r\n")
        self.clock.advance(1)
        self.assertEqual(self.ask(b"mg k\r\n"), b"EN\r\n")

    def test_dump(self) -> None:
        """
        C{stats cachedump} and C{lru_crawler} return keys.
        """
        self.ask(b"set a 0 0 1\r\nx\r\n")
        self.assertEqual(self.ask(b"stats cachedump 1 0\r\n"), b"ITEM a [1 b; 0 s]\r\nEND\r\n")
        self.assertIn(b"key=a exp=-1 ", self.ask(b"lru_crawler metadump all\r\n"))

    def test_statistics(self) -> None:
        """
        C{stats} counts connections.
        """
        self.connect().transport.loseConnection()
        self.clock.advance(0)
        statistics = self.ask(b"stats\r\n")
        self.assertIn(b"STAT curr_connections 1\r\n", statistics)
        self.assertIn(b"STAT total_connections 2\r\n", statistics)

    def test_unread(self) -> None:
        """
        While the client does not read its replies, no requests are executed. Later it gets all replies.
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
        A client that writes without reading is paused itself, so that the server does not buffer without limit.
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
        Requests that were not executed when the client closes never are.
        """
        self.ask(b"set k 0 0 10000\r\n" + b"x" * 10000 + b"\r\n")
        self.client.transport.pauseProducing()
        self.client.transport.write(b"get k\r\n" * 100 + b"delete k\r\n")
        self.clock.advance(0)
        self.client.transport.loseConnection()
        self.clock.advance(0)
        self.assertClosed(self.client)
        self.assertEqual(len(self.endpoint.store), 1)


class ParserTests(SynchronousTestCase):
    """
    Tests for L{MemoryParser}.
    """

    def parse(self, *args: str, reactor: Any = None, **options: str) -> Store:
        """
        @return: the store of the endpoint.
        """
        endpoint = MemoryParser().parseStreamClient(reactor or Clock(), *args, **options)
        return endpoint.store

    def test_interfaces(self) -> None:
        """
        The parser is a plugin for client endpoint strings that begin with C{memory}.
        """
        parser = MemoryParser()
        verifyObject(IStreamClientEndpointStringParserWithReactor, parser)
        self.assertTrue(IPlugin.providedBy(parser))
        self.assertEqual(parser.prefix, "memory")

    def test_size(self) -> None:
        """
        A size is in bytes, or in kilobytes, megabytes or gigabytes with a unit; the default is 64 megabytes.
        """
        sizes = {"5000": 5000, "1k": 1024, "1K": 1024, "3m": 3 << 20, "2g": 2 << 30}
        self.assertEqual({size: self.parse("", size=size).size for size in sizes}, sizes)
        self.assertEqual(self.parse("").size, 64 << 20)
        self.assertEqual(self.parse().size, 64 << 20)

    def test_wrongSize(self) -> None:
        """
        Any other size is an error with examples of valid ones.
        """
        for size in ("", "0", "1023", "-1", "1t", "1.5m", "64 m", "9" * 20, "\N{SUPERSCRIPT TWO}000"):
            error = self.assertRaises(ValueError, self.parse, "", size=size)
            self.assertEqual(
                str(error), f"memory: invalid size {size!r}; valid are 1k (the minimum), 64m, 1g and so on"
            )

    def test_unknown(self) -> None:
        """
        An unknown option is an error that names the known ones.
        """
        for args, options, shown in ((["1k"], {}, "1k"), ([""], {"sizes": "1k", "size": "1k"}, "sizes")):
            error = self.assertRaises(ValueError, self.parse, *args, **options)
            self.assertEqual(str(error), f"memory: unknown option {shown!r}; the options are size and name")

    def test_named(self) -> None:
        """
        Endpoints with the same name and reactor share one store, all others have one each.
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
        The first endpoint with a name sets the size; the others must omit it or repeat it.
        """
        clock = Clock()
        self.parse("", reactor=clock, name="a", size="2k")
        self.assertEqual(self.parse("", reactor=clock, name="a").size, 2048)
        error = self.assertRaises(ValueError, self.parse, "", reactor=clock, name="a", size="3k")
        self.assertEqual(str(error), "memory: invalid size '3k'; the store 'a' has 2048 bytes already")

    def test_emptyName(self) -> None:
        """
        An empty name is an error.
        """
        error = self.assertRaises(ValueError, self.parse, "", name="")
        self.assertEqual(str(error), "memory: name is empty; leave it out for a store that is not shared")

    def test_address(self) -> None:
        """
        The name is in the address of the connections.
        """
        clock = Clock()
        endpoint = MemoryParser().parseStreamClient(clock, "", name="a")
        connected = connectProtocol(endpoint, Recorder())
        clock.advance(0)
        self.assertEqual(self.successResultOf(connected).transport.getPeer(), InProcessAddress("a"))
