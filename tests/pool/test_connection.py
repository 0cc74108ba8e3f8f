# -*- test-case-name: tests.pool.test_connection -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Tests for L{txconnpool.pool.connection}.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from weakref import ref

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import ITCPTransport
from twisted.internet.task import Clock
from twisted.logger import LogLevel, capturedLogs
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import directlyProvides, implementer

from tests.bugs import covers
from tests.pipes import Pipe
from tests.toy import ADD, Toy, netstring
from txconnpool.errors import ConnectionLostInFlight, PoolError, PoolTimeout
from txconnpool.interfaces import IMergedReplySink
from txconnpool.metrics import LATENCY_BOUNDS, Counters, Traffic
from txconnpool.pool import connection
from txconnpool.pool.connection import ConnectionFactory
from txconnpool.pool.decisions.records import Record
from txconnpool.pool.decisions.servers import Server
from txconnpool.pool.decisions.shared import Shared
from txconnpool.pool.decisions.waiting import Waiters
from txconnpool.wire.memcache import replies
from txconnpool.wire.memcache.dialect import Memcache
from txconnpool.wire.memcache.matching import REPLY_LINE_MAX, MemcacheCommand

GET_SEVERAL = replies.SEVERAL[replies.GET]
SILENT_SET = replies.SILENT[replies.SET]
MG, MG_VALUE = replies.MG[False, True], replies.MG[True, True]
VALUE = b"VALUE k 0 5\r\nEND\r\n\r\n"
HIT = VALUE + b"END\r\n"

#: Requests, for commands whose replies name keys.
REQUESTS = {
    replies.GET: b"get k\r\n",
    GET_SEVERAL: b"get a b k\r\n",
    replies.GETS: b"gets k\r\n",
    replies.GAT: b"gat 0 k\r\n",
    replies.GATS: b"gats 0 k\r\n",
}

#: Replies to each command that a client gets unchanged.
SAMPLES: list[tuple[MemcacheCommand, bytes]] = [
    (replies.GET, b"END\r\n"),
    (replies.GET, HIT),
    (GET_SEVERAL, b"VALUE a 1 0\r\n\r\nVALUE b 2 13\r\nVALUE k 0 5\r\n\r\nEND\r\n"),
    (replies.GET, b"SERVER_ERROR out of memory\r\n"),
    (replies.GETS, b"VALUE k 0 2 77\r\n\r\n\r\nEND\r\n"),
    (replies.GAT, HIT),
    (replies.GATS, b"VALUE k 0 1 1\r\nx\r\nEND\r\n"),
    *(
        (command, b"STORED\r\n")
        for command in (replies.SET, replies.ADD, replies.REPLACE, replies.APPEND, replies.PREPEND)
    ),
    *((command, b"NOT_STORED\r\n") for command in (replies.ADD, replies.REPLACE, replies.APPEND, replies.PREPEND)),
    (replies.CAS, b"EXISTS\r\n"),
    (replies.SET, b"SERVER_ERROR out of memory storing object\r\n"),
    (replies.INCR, b"18446744073709551615\r\n"),
    (replies.DECR, b"9  \r\n"),
    (replies.INCR, b"CLIENT_ERROR cannot increment or decrement non-numeric value\r\n"),
    (replies.DELETE, b"DELETED\r\n"),
    (replies.TOUCH, b"TOUCHED\r\n"),
    (replies.FLUSH_ALL, b"OK\r\n"),
    (replies.VERBOSITY, b"OK\r\n"),
    (replies.VERSION, b"VERSION 1.6.18\r\n"),
    (replies.STATS, b"STAT pid 1\r\nSTAT empty \r\nEND\r\n"),
    (MG, b"HD t-1 f0\r\n"),
    (MG_VALUE, b"VA 7 f0 Oabc\r\nEN\r\nHD \r\n"),
    (MG_VALUE, b"EN\r\n"),
    (replies.MS, b"HD\r\n"),
    (replies.MS, b"CLIENT_ERROR invalid flag\r\n"),
    (replies.MD, b"NF\r\n"),
    (replies.MA[True], b"VA 2\r\n10\r\n"),
    (replies.MN, b"MN\r\n"),
    (replies.ME, b"ME k exp=-1 la=0\r\n"),
    (replies.QUIET[MG_VALUE], b"VA 1\r\nx\r\n"),
    (replies.QUIET[MG], b"SERVER_ERROR out of memory\r\n"),
    (replies.QUIET[replies.MD], b"NF O1\r\n"),
]

#: Replies that are hidden from the client, because its request was silent.
HIDDEN: list[tuple[MemcacheCommand, bytes]] = [
    (SILENT_SET, b"STORED\r\n"),
    (SILENT_SET, b"SERVER_ERROR out of memory storing object\r\n"),
    (replies.SILENT[replies.INCR], b"10\r\n"),
    (replies.QUIET[MG_VALUE], b"EN\r\n"),
    (replies.QUIET[replies.MS], b"HD O1\r\n"),
    (replies.QUIET[replies.MD], b"HD\r\n"),
    (replies.QUIET[replies.MA[True]], b"VA 2 t0\r\n10\r\n"),
]


class Books:
    """
    A stand-in for the pool that records its calls.
    """

    name = "pool"

    def __init__(self) -> None:
        self.counters = Counters()
        self.waiters = Waiters(None, lambda exclusive: None, Shared())
        self.told: list[str] = []
        self.servers: list[Server] = []

    def hasCapacity(self, record: Record) -> None:
        """
        Record that the connection has capacity.
        """
        self.told.append("hasCapacity")

    def hold(self, record: Record) -> None:
        """
        Record that the connection must get no new requests.
        """
        self.told.append("hold")

    def unhold(self, record: Record) -> None:
        """
        Record that the connection may get new requests.
        """
        self.told.append("unhold")

    def suspect(self, record: Record, since: float) -> None:
        """
        Record that a server is silent, and since when.
        """
        self.told.append("suspect")
        self.silentSince = since


@implementer(IMergedReplySink)
class Owner:
    """
    A sink for replies that records them.

    @ivar data: all received bytes.
    @ivar done: the number of complete replies.
    @ivar log: the calls of several owners, in order.
    @ivar then: called after each call.
    @ivar held: the number of bytes that are held back for this sink.
    @ivar wants: whether it still wants them.
    @ivar aborted: the error with which it was ended after an exception, or C{None}.
    """

    def __init__(self, log: list[tuple[Any, bytes, int]] | None = None, joins: bool = False) -> None:
        self.joins = joins
        self.data = b""
        self.done = 0
        self.held = 0
        self.wants = True
        self.log = log
        self.then: Callable[[], object] | None = None
        self.lost: list[tuple[list[Any], bool, PoolError]] = []
        self.aborted: PoolError | None = None

    def replied(self, data: bytes, done: int) -> None:
        """
        Record a part of a reply.
        """
        self.data += data
        self.done += done
        if self.log is not None:
            self.log.append((self, data, done))
        if self.then is not None:
            self.then()

    def heldBack(self, change: int) -> bool:
        """
        Record how many bytes are held back.
        """
        self.held += change
        return self.wants

    def requestsLost(self, requests: list[Any], begun: bool, error: PoolError) -> None:
        """
        Record that requests were lost.
        """
        self.lost.append((requests, begun, error))

    def afterLoss(self, error: PoolError) -> None:
        """
        Go on as after a reply.
        """
        if self.then is not None:
            self.then()

    def abort(self, error: PoolError) -> None:
        """
        Record the end after an exception.
        """
        self.aborted = error


class ConnectionTestCase(SynchronousTestCase):
    """
    Base class of tests with a connection on a L{Pipe} and a stand-in for the pool.

    @ivar dialect: the protocol.
    """

    dialect: Any = Memcache()

    def setUp(self) -> None:
        """
        Connect.
        """
        self.clock = Clock()
        self.books = Books()
        factory = ConnectionFactory(self.dialect, self.clock, 2.0)
        factory.connectionPool = self.books
        self.connection = factory.buildProtocol(None)
        self.traffic = Traffic(len(self.dialect.commands))
        self.record = self.connection.record = Record(Server("server", None, self.traffic), 128)
        self.books.servers.append(self.record.server)
        self.record.connection = self.connection
        self.pipe = Pipe(self.clock).connect(self.connection)
        self.owner = Owner()

    def get(self, *keys: bytes, owner: Owner | None = None) -> None:
        """
        Send single gets of several keys as one request.
        """
        self.connection.send(owner or self.owner, replies.GET, len(keys), b"get %s\r\n" % b" ".join(keys))

    def assertClosed(self, counter: str = "violations") -> None:
        """
        Assert that the connection was aborted once, that this was counted, and that nothing is left.
        """
        self.assertTrue(self.pipe.aborted)
        self.assertEqual(self.books.told[-1], "hold")
        self.clock.advance(0)
        self.assertFalse(self.pipe.connected)
        self.assertEqual(getattr(self.books.counters, counter), 1)
        self.assertEqual(self.clock.getDelayedCalls(), [])


class RepliesTests(ConnectionTestCase):
    """
    Tests that replies reach the sinks of their requests.
    """

    @covers("11", "12")
    def test_splitAnywhere(self) -> None:
        """
        A reply of any command arrives complete and is counted once, wherever its bytes are split.
        """
        for command, reply in SAMPLES:
            for cut in range(1, len(reply) + 1):
                owner = Owner()
                self.connection.send(owner, command, 1, REQUESTS.get(command, b"request\r\n"))
                self.pipe.send(reply[:cut])
                self.assertEqual((owner.done, self.record.load), (0, 1) if cut < len(reply) else (1, 0), (reply, cut))
                self.assertTrue(reply.startswith(owner.data))
                self.pipe.send(reply[cut:])
                self.assertEqual((owner.data, owner.done, self.record.load), (reply, 1, 0), (reply, cut))

    def test_byteByByte(self) -> None:
        """
        Replies of all commands that arrive byte by byte each reach their own sink.
        """
        owners = [(Owner(), command, reply) for command, reply in SAMPLES]
        for owner, command, _ in owners:
            self.connection.send(owner, command, 1, REQUESTS.get(command, b"request\r\n"))
        self.assertEqual(self.record.load, len(owners))
        self.pipe.send(b"".join(reply for _, reply in SAMPLES), piece=1)
        self.assertEqual([(owner.data, owner.done) for owner, _, _ in owners], [(reply, 1) for _, reply in SAMPLES])
        self.assertEqual(self.record.load, 0)

    @covers("11")
    def test_hiddenSplitAnywhere(self) -> None:
        """
        A hidden reply is counted and not passed on, wherever its bytes are split. The reply after it is passed on.
        """
        for command, reply in HIDDEN:
            for cut in range(1, len(reply) + 1):
                owner = Owner()
                self.connection.send(owner, command, 1, b"request\r\n")
                self.connection.send(owner, replies.MN, 1, b"mn\r\n")
                self.pipe.send(reply[:cut])
                self.assertEqual((owner.data, owner.done), (b"", 1 if cut == len(reply) else 0), (reply, cut))
                self.pipe.send(reply[cut:] + b"MN\r\n")
                self.assertEqual((owner.data, owner.done, self.record.load), (b"MN\r\n", 2, 0), (reply, cut))

    def test_hiddenTooLong(self) -> None:
        """
        A hidden reply is buffered until it is complete, so its length is bounded.
        """
        self.connection.send(self.owner, replies.QUIET[replies.MA[True]], 1, b"ma k v\r\n")
        self.pipe.send(b"VA %d\r\n" % (REPLY_LINE_MAX + 1))
        self.assertClosed()
        self.assertEqual(self.owner.data, b"")

    def test_streamed(self) -> None:
        """
        A long value is passed on in parts as it arrives.
        """
        self.get(b"k")
        self.pipe.send(b"VALUE k 0 1000000\r\n")
        for _ in range(10):
            self.pipe.send(b"x" * 100000)
        self.assertEqual((len(self.owner.data), self.owner.done), (1000019, 0))
        self.pipe.send(b"\r\nEND\r\n")
        self.assertEqual((len(self.owner.data), self.owner.done), (1000026, 1))

    def test_run(self) -> None:
        """
        The reply to merged gets is split into a reply to each, whether its bytes arrive together or in parts. After a
        key without a value, all is held back until the end.
        """
        self.get(b"k", b"a", b"b", b"d")
        self.assertEqual((self.record.load, self.pipe.take()), (4, b"get k a b d\r\n"))
        self.pipe.send(VALUE)
        self.assertEqual((self.owner.data, self.owner.done, self.record.load), (HIT, 1, 3))
        other = VALUE.replace(b"k", b"b")
        for piece, held in ((other[:5], 0), (other[5:-1], len(other) - 2), (b"\n", len(other)), (b"EN", len(other))):
            self.pipe.send(piece)
            self.assertEqual((self.owner.data, self.owner.done, self.record.load), (HIT, 1, 3))
            self.assertEqual(self.owner.held, held)
        self.assertTrue(self.connection.receiving)
        self.pipe.send(b"D\r\n")
        self.assertEqual((self.owner.done, self.record.load, self.owner.held), (4, 0, 0))
        self.assertEqual(self.owner.data, HIT + b"END\r\n" + other + b"END\r\n" * 2)

    def test_heldOfOther(self) -> None:
        """
        Bytes that are held back for a sink do not count before it is known that there are any, and are no longer
        counted when the sink gets them.
        """
        held: list[int] = []
        self.get(b"a", b"k")
        self.owner.then = lambda: held.append(self.owner.held)
        self.pipe.send(VALUE + b"END\r\n")
        self.assertEqual(held, [0])
        self.get(b"a", b"k")
        self.pipe.send(VALUE)
        self.assertEqual(self.owner.held, len(VALUE))
        self.pipe.send(b"END\r\n")
        self.assertEqual(held, [0, 0])

    def test_heldUnwanted(self) -> None:
        """
        Bytes that are held back are dropped if the sink does not want them any more. The rest of the reply is checked,
        and further replies reach their sinks.
        """
        other = Owner()
        self.owner.wants = False
        self.get(b"a", b"k", b"b")
        self.get(b"k", owner=other)
        self.pipe.send(VALUE)
        self.pipe.send(VALUE.replace(b"k", b"b"))
        self.pipe.send(b"END\r\n" + HIT)
        self.assertEqual((self.owner.done, other.data, self.record.load), (3, HIT, 0))
        self.assertLess(len(self.owner.data), len(VALUE))

    @covers("5")
    def test_together(self) -> None:
        """
        Replies for several sinks that arrive together are passed on in the order of the requests.
        """
        log: list[tuple[Any, bytes, int]] = []
        one, two = Owner(log), Owner(log)
        self.get(b"a", b"b", owner=one)
        self.get(b"k", owner=two)
        self.connection.send(one, replies.SET, 1, b"set a 0 0 1\r\nx\r\n")
        self.pipe.send(b"END\r\n" + HIT + b"STORED\r\n")
        self.assertEqual(log, [(one, b"END\r\nEND\r\n", 2), (two, HIT, 1), (one, b"STORED\r\n", 1)])

    def test_joined(self) -> None:
        """
        A sink that may get several replies at once gets those that arrive together, up to the first one that is not
        whole, or that another sink gets. Each of them is counted, with its time.
        """
        log: list[tuple[Any, bytes, int]] = []
        one, two = Owner(log, joins=True), Owner(log)
        for key, owner in zip(b"kkkkkkk", (one, one, one, two, two, one, one), strict=True):
            self.clock.advance(0.01)
            self.get(b"%c" % key, owner=owner)
        self.connection.send(one, replies.MN, 1, b"mn\r\n")
        self.clock.advance(0.021)
        self.pipe.send(HIT * 6 + HIT[:16])
        self.assertEqual(log, [(one, HIT * 3, 3), (two, HIT, 1), (two, HIT, 1), (one, HIT, 1), (one, HIT[:16], 0)])
        self.assertEqual((self.record.load, self.traffic.requests[replies.GET.index]), (2, 6))
        self.assertEqual(sum(self.traffic.latency.counts), 6)
        self.assertAlmostEqual(self.traffic.latency.total, sum(0.021 + 0.01 * age for age in range(1, 7)))
        self.pipe.send(HIT[16:] + b"MN\r\n")
        self.assertEqual(log[5:], [(one, HIT[16:] + b"MN\r\n", 2)])
        self.assertEqual((self.record.load, self.traffic.requests[replies.MN.index]), (0, 1))

    def test_joinedTimes(self) -> None:
        """
        Replies that arrive together are counted by the time that each of them took, also if these times differ much.
        """
        owner = Owner(joins=True)
        for pause in (1.0, 0.0, 0.3):
            self.get(b"k", owner=owner)
            self.clock.advance(pause)
        self.pipe.send(HIT * 3)
        self.assertEqual((owner.data, owner.done), (HIT * 3, 3))
        counts = dict(zip(LATENCY_BOUNDS, self.traffic.latency.counts, strict=False))
        self.assertEqual((counts[2.0], counts[0.5], sum(counts.values())), (1, 2, 3))

    def test_joinedBeforeWrong(self) -> None:
        """
        Replies before wrong bytes are passed on.
        """
        owner = Owner(joins=True)
        for key in (b"k", b"k", b"a"):
            self.get(key, owner=owner)
        self.pipe.send(HIT * 3)
        self.assertClosed()
        self.assertEqual((owner.data, owner.done, len(owner.lost)), (HIT * 2, 2, 1))

    def test_eased(self) -> None:
        """
        The pool is notified when nothing is in flight, and of every reply while there are waiters.
        """
        self.get(b"a")
        self.get(b"b")
        self.pipe.send(b"END\r\n")
        self.assertEqual(self.books.told, [])
        self.pipe.send(b"END\r\n")
        self.assertEqual(self.books.told, ["hasCapacity"])
        self.get(b"a")
        self.get(b"b")
        self.books.waiters.join(None, 0.0)
        self.pipe.send(b"END\r\n")
        self.assertEqual(self.books.told, ["hasCapacity", "hasCapacity"])

    def test_traffic(self) -> None:
        """
        Requests are counted by command, bytes by direction, and latencies in a histogram.
        """
        self.get(b"a", b"b")
        self.connection.send(self.owner, SILENT_SET, 1, b"set a 0 0 1\r\nx\r\n")
        self.clock.advance(0.03)
        self.pipe.send(b"END\r\nSTORED\r\n")
        self.assertEqual(self.traffic.requests[replies.GET.index], 2)
        self.assertEqual(self.traffic.requests[replies.SET.index], 1)
        self.assertEqual((self.traffic.sent, self.traffic.received), (9 + 16, 13))
        self.assertEqual(self.traffic.latency.counts[LATENCY_BOUNDS.index(0.05)], 3)
        self.assertAlmostEqual(self.traffic.latency.total, 0.09)


class WrongTests(ConnectionTestCase):
    """
    Tests for received bytes that do not match the requests in flight.
    """

    def assertLost(self, owner: Owner, begun: bool = False) -> None:
        """
        Assert that an owner was notified once that its requests were lost, and got none of the wrong bytes.
        """
        ((_, has, error),) = owner.lost
        self.assertIs(has, begun)
        self.assertIsInstance(error, ConnectionLostInFlight)
        self.assertEqual(str(error), "upstream protocol error (server)")

    @covers("6")
    def test_unowed(self) -> None:
        """
        Bytes while nothing is in flight close the connection.
        """
        self.pipe.send(b"END\r\n")
        self.assertClosed()

    @covers("1", "6")
    def test_unowedBehind(self) -> None:
        """
        Bytes after the last reply close the connection. That reply is passed on.
        """
        self.get(b"a")
        self.pipe.send(b"END\r\nEND\r\n")
        self.assertEqual((self.owner.data, self.owner.done, self.owner.lost), (b"END\r\n", 1, []))
        self.assertClosed()

    @covers("16")
    def test_wrongForm(self) -> None:
        """
        A reply to another kind of request closes the connection.
        """
        for command, reply in ((replies.GET, b"STORED\r\n"), (replies.SET, b"END\r\n"), (replies.SET, b"ERROR\r\n")):
            self.setUp()
            other = Owner()
            self.connection.send(self.owner, command, 1, b"request\r\n")
            self.get(b"a", owner=other)
            self.pipe.send(reply)
            self.assertClosed()
            self.assertEqual((self.owner.data, other.data), (b"", b""))
            self.assertLost(self.owner)
            self.assertLost(other)

    def test_wrongAfterBody(self) -> None:
        """
        A value that is longer than announced closes the connection. A part of it was already passed on.
        """
        other = Owner()
        self.get(b"k")
        self.get(b"k", owner=other)
        self.pipe.send(b"VALUE k 0 3\r\nab")
        self.pipe.send(b"cd\r\nEND\r\n")
        self.assertClosed()
        self.assertLost(self.owner, begun=True)
        self.assertLost(other)

    def test_wrongInRun(self) -> None:
        """
        A wrong value in the reply to merged gets fails all gets whose values arrived together with it.
        """
        self.get(b"a", b"k", b"c")
        self.pipe.send(VALUE + b"STORED\r\n")
        self.assertClosed()
        self.assertEqual((self.owner.data, self.owner.done), (b"", 0))
        self.assertLost(self.owner)

    def test_lineTooLong(self) -> None:
        """
        A line without an end closes the connection when it exceeds the maximum length.
        """
        self.get(b"a")
        self.pipe.send(b"VALUE " + b"k" * (REPLY_LINE_MAX - 6))
        self.assertFalse(self.pipe.aborted)
        self.pipe.send(b"k")
        self.assertClosed()

    def test_afterwards(self) -> None:
        """
        A request that is sent after the connection was closed, and before it has ended, fails.
        """
        self.get(b"a")
        self.pipe.send(b"no\r\n")
        late = Owner()
        self.get(b"b", owner=late)
        self.assertClosed()
        self.assertLost(late)

    def test_log(self) -> None:
        """
        The log has one line with the server and the kind of the wrong bytes, and not the bytes themselves.
        """
        with capturedLogs() as events:
            self.get(b"a")
            self.pipe.send(b"{secret}\x1b\r\n")
            self.assertClosed()
        (event,) = events
        self.assertIs(event["log_level"], LogLevel.warn)
        text = (
            "pool: closing a connection to server, 1 requests in flight: expected a reply to get, received 11 bytes of "
            "another kind"
        )
        self.assertEqual(event["log_format"].format(**event), text)
        self.assertNotIn("secret", repr(event))


class LossTests(ConnectionTestCase):
    """
    Tests for connections that are lost with requests in flight.
    """

    def test_quiet(self) -> None:
        """
        If nothing is in flight, no sink is notified.
        """
        self.get(b"a")
        self.pipe.send(b"END\r\n")
        self.pipe.lose()
        self.assertEqual(self.owner.lost, [])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_each(self) -> None:
        """
        Every sink is notified once, of all its requests, in their order.
        """
        other = Owner()
        self.get(b"a")
        self.get(b"b", owner=other)
        self.connection.send(self.owner, replies.SET, 1, b"set a 0 0 1\r\nx\r\n")
        self.pipe.lose()
        ((entries, begun, error),) = self.owner.lost
        self.assertEqual([entry[1:3] for entry in entries], [(replies.GET, 1), (replies.SET, 1)])
        self.assertEqual([entry[4] for entry in entries], [b"get a\r\n", None])
        self.assertFalse(begun)
        self.assertEqual(str(error), "upstream connection lost (server)")
        self.assertEqual([entry[4] for entry in other.lost[0][0]], [b"get b\r\n"])

    def test_begun(self) -> None:
        """
        Only a sink that received a part of a reply gets C{begun}.
        """
        other = Owner()
        self.get(b"k")
        self.get(b"b", owner=other)
        self.pipe.send(b"VALUE k 0 5\r\nEN")
        self.pipe.lose()
        self.assertEqual([owner.lost[0][1] for owner in (self.owner, other)], [True, False])

    def test_betweenValues(self) -> None:
        """
        A reply of several values has begun between two of them too.
        """
        self.connection.send(self.owner, GET_SEVERAL, 1, b"get k l\r\n")
        self.pipe.send(b"VALUE k 0 1\r\nx\r\nVAL")
        self.assertEqual(self.owner.data, b"VALUE k 0 1\r\nx")
        self.pipe.lose()
        self.assertTrue(self.owner.lost[0][1])

    def test_line(self) -> None:
        """
        An incomplete line is not passed on, so the reply has not begun.
        """
        self.get(b"k")
        self.pipe.send(b"VALUE k 0 5\r")
        self.pipe.lose()
        self.assertEqual((self.owner.data, self.owner.lost[0][1]), (b"", False))

    def test_hiddenBody(self) -> None:
        """
        A hidden reply never has begun.
        """
        self.connection.send(self.owner, replies.QUIET[replies.MA[True]], 1, b"ma k v\r\n")
        self.pipe.send(b"VA 2\r\n1")
        self.pipe.lose()
        self.assertEqual((self.owner.data, self.owner.lost[0][1]), (b"", False))

    def test_wrongRunUncounted(self) -> None:
        """
        Hits and misses of merged gets whose reply turns out wrong are not counted, because the gets are sent again.
        """
        self.get(b"a", b"b", b"c")
        self.pipe.send(b"VALUE b 0 1\r\nxx\r\n")
        self.assertClosed()
        self.assertEqual((self.traffic.missed, self.traffic.requests[replies.GET.index]), (0, 0))
        (entry,) = self.owner.lost[0][0]
        self.assertEqual((entry[2], entry[4]), (3, b"get a b c\r\n"))

    def test_heldLost(self) -> None:
        """
        Merged gets whose replies are held back when the connection is lost are sent again.
        """
        for rest in (b"", b"VALUE a 0 5\r\nx"):
            self.setUp()
            self.get(b"k", b"a", b"b", b"c")
            self.pipe.send(VALUE)
            self.pipe.send(VALUE.replace(b"k", b"b") + rest)
            self.assertEqual(self.owner.held, len(VALUE + rest))
            self.pipe.lose()
            ((entry,), begun, _) = self.owner.lost[0]
            self.assertEqual((entry[2], entry[4], begun), (3, b"get a b c\r\n", False))
            self.assertEqual((self.owner.data, self.owner.held), (HIT, 0))

    def test_heldWrong(self) -> None:
        """
        A wrong value among replies that are held back closes the connection. Of the gets that arrived with it, and
        those that were held back, nothing was passed on, so they are sent again.
        """
        for first in (b"", VALUE):
            self.setUp()
            self.get(b"k", b"a", b"b", b"c")
            if first:
                self.pipe.send(first)
            self.pipe.send((b"" if first else VALUE) + VALUE.replace(b"k", b"b") + b"VALUE z 0 1\r\nx\r\n")
            self.assertClosed()
            ((entry,), begun, _) = self.owner.lost[0]
            again = b"get a b c\r\n" if first else b"get k a b c\r\n"
            self.assertEqual((entry[2], entry[4], begun), (3 if first else 4, again, False))
            self.assertEqual((self.owner.data, self.owner.held), (HIT if first else b"", 0))
            self.assertEqual(self.traffic.missed, 0)

    def test_runPartlyAnswered(self) -> None:
        """
        Of merged gets, only those without a reply are sent again.
        """
        self.get(b"k", b"b", b"c")
        self.pipe.send(VALUE)
        self.pipe.lose()
        (entry,) = self.owner.lost[0][0]
        self.assertEqual((entry[2], entry[4]), (2, b"get b c\r\n"))

    def test_notAgain(self) -> None:
        """
        Values are compared with the requested keys also for requests that must not be sent again.
        """
        for command, request in ((replies.GAT, b"gat 0 a\r\n"), (replies.GET.variant(idempotent=False), b"get a\r\n")):
            self.setUp()
            self.connection.send(self.owner, command, 1, request)
            self.pipe.send(b"VALUE b 0 1\r\nx\r\nEND\r\n")
            self.assertClosed()
            self.assertEqual(self.owner.data, b"")


class TimeTests(ConnectionTestCase):
    """
    Tests for late replies.
    """

    @covers("2", "R1")
    def test_late(self) -> None:
        """
        When the oldest request exceeds the timeout, the connection is closed and all requests in flight fail.
        """
        other = Owner()
        self.get(b"a")
        self.clock.advance(1.5)
        self.get(b"b", owner=other)
        self.clock.advance(0.4)
        self.assertFalse(self.pipe.aborted)
        with capturedLogs() as events:
            self.clock.advance(0.1)
        self.assertEqual(len(events), 1)
        self.assertClosed("requestTimeouts")
        for owner in (self.owner, other):
            error = owner.lost[0][2]
            assert isinstance(error, PoolTimeout)
            self.assertEqual(str(error), "upstream timed out: no answer within 2 s (server)")
            self.assertEqual(error.phase, "request")

    def test_inTime(self) -> None:
        """
        One timer serves all requests: it is set again for the oldest request.
        """
        self.get(b"a")
        self.clock.advance(1.5)
        self.get(b"b")
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)
        self.pipe.send(b"END\r\n")
        self.clock.advance(1.9)
        self.assertFalse(self.pipe.aborted)
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)
        self.clock.advance(0.1)
        self.assertTrue(self.pipe.aborted)

    def test_quiet(self) -> None:
        """
        If nothing is in flight when the timer fires, it is not set again until the next request.
        """
        self.get(b"a")
        self.pipe.send(b"END\r\n")
        self.clock.advance(2)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.clock.advance(100)
        self.get(b"a")
        self.clock.advance(1.9)
        self.assertFalse(self.pipe.aborted)
        self.clock.advance(0.1)
        self.assertTrue(self.pipe.aborted)

    def arrive(self, size: int, seconds: float, step: float = 1.5) -> None:
        """
        Receive a value in equal parts over some seconds.
        """
        self.pipe.send(b"VALUE k 0 %d\r\n" % size)
        steps = int(seconds / step)
        for _ in range(steps):
            self.clock.advance(step)
            self.pipe.send(b"x" * (size // steps))
        self.assertFalse(self.pipe.aborted)

    def test_slow(self) -> None:
        """
        A large value is not late as long as its bytes keep coming. The timer fires no more often for it.
        """
        self.get(b"k")
        self.arrive(1000000, 12)
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)
        self.pipe.send(b"\r\nEND\r\n")
        self.assertEqual((len(self.owner.data), self.owner.done), (1000026, 1))
        self.clock.advance(2)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_behind(self) -> None:
        """
        Requests behind a large value are not late either: they wait from the last received bytes on.
        """
        others = [Owner() for _ in range(3)]
        self.get(b"k")
        for other in others:
            self.get(b"k", owner=other)
        self.arrive(1000000, 12)
        self.pipe.send(b"\r\nEND\r\n")
        for other in others:
            self.clock.advance(1.9)
            self.pipe.send(HIT)
            self.assertEqual(other.data, HIT)
        self.assertFalse(self.pipe.aborted)

    @covers("13", "14")
    def test_silence(self) -> None:
        """
        A reply that stops in the middle is late, and so are the requests behind it. The pool is told since when the
        server has been silent.
        """
        other = Owner()
        self.get(b"k")
        self.get(b"k", owner=other)
        self.pipe.send(b"VALUE k 0 100\r\n")
        self.clock.advance(1.5)
        self.pipe.send(b"x" * 50)
        self.clock.advance(1.9)
        self.assertFalse(self.pipe.aborted)
        with capturedLogs():
            self.clock.advance(0.1)
        self.assertEqual(self.books.silentSince, 1.5)
        self.assertClosed("requestTimeouts")
        ((_, begun, error),) = self.owner.lost
        self.assertEqual((begun, len(self.owner.data)), (True, 15 + 50))
        self.assertEqual(str(error), "upstream timed out: no answer within 2 s (server)")
        self.assertEqual(other.lost[0][1], False)

    def test_silenceAfterReply(self) -> None:
        """
        A server that is silent after a reply is silent since that reply.
        """
        self.get(b"k")
        self.get(b"k")
        self.clock.advance(1)
        self.pipe.send(HIT)
        with capturedLogs():
            self.clock.advance(1.9)
            self.assertFalse(self.pipe.aborted)
            self.clock.advance(0.1)
        self.assertEqual(self.books.silentSince, 1)
        self.assertClosed("requestTimeouts")
        self.assertIn("no answer within 2 s", str(self.owner.lost[0][2]))

    def test_drip(self) -> None:
        """
        A reply of which a byte comes now and then for ever is cut. The server is not considered silent.
        """
        other = Owner()
        self.connection.factory.replyTimeout = 10.0
        self.get(b"k")
        self.get(b"k", owner=other)
        self.pipe.send(b"VALUE k 0 1000\r\n")
        with capturedLogs():
            for _ in range(12):
                self.assertFalse(self.pipe.aborted)
                self.clock.advance(1)
                self.pipe.send(b"x")
        self.assertNotIn("suspect", self.books.told)
        self.assertClosed("requestTimeouts")
        for owner, begun in (self.owner, True), (other, False):
            ((_, its, error),) = owner.lost
            self.assertEqual((its, str(error)), (begun, "upstream timed out: reply incomplete after 10 s (server)"))

    def test_manySlow(self) -> None:
        """
        The limit of one reply is not the sum of those before it.
        """
        self.connection.factory.replyTimeout = 10.0
        for _ in range(5):
            self.get(b"k")
        for _ in range(5):
            self.arrive(1000000, 8, 1)
            self.pipe.send(b"\r\nEND\r\n")
        self.assertEqual(self.owner.done, 5)

    def test_forgotten(self) -> None:
        """
        The oldest request is not kept after its reply, beyond one timeout.
        """
        self.connection.factory.replyTimeout = 10.0
        self.get(b"k")
        self.arrive(1000, 6)
        self.pipe.send(b"\r\nEND\r\n")
        owner = ref(self.owner)
        self.owner = Owner()
        self.clock.advance(2)
        self.assertIsNone(owner())

    def test_busy(self) -> None:
        """
        If this process was suspended, what has arrived meanwhile is read before a reply is called late: a reactor calls
        timers before it reads.
        """
        self.get(b"k")
        self.clock.callLater(2, self.pipe.send, HIT)
        self.clock.advance(2)
        self.assertFalse(self.pipe.aborted)
        self.assertEqual((self.owner.data, self.clock.getDelayedCalls()), (HIT, []))

    def test_pushed(self) -> None:
        """
        Frames that are no replies do not make a reply less late. Replies do, whether frames come before them or not.
        """
        self.dialect = Toy()
        self.setUp()
        for _ in range(3):
            self.connection.send(self.owner, ADD, 1, netstring(b"add a 1"))
        self.clock.advance(1.5)
        self.pipe.send(netstring(b"1"))
        self.clock.advance(1.5)
        self.pipe.send(netstring(b"!a 1") + netstring(b"2"))
        with capturedLogs():
            for _ in range(4):
                self.clock.advance(0.5)
                self.pipe.send(netstring(b"!a 1"))
        self.assertEqual(self.books.silentSince, 3)
        self.assertClosed("requestTimeouts")


class AskTests(ConnectionTestCase):
    """
    Tests for L{Connection.ask}.
    """

    def test_answered(self) -> None:
        """
        The Deferred fires with the whole reply, whether it arrived in one piece or in several.
        """
        asked = self.connection.ask(replies.GET, b"get k\r\n")
        self.assertEqual(self.pipe.take(), b"get k\r\n")
        self.pipe.send(HIT, piece=3)
        self.assertEqual(self.successResultOf(asked), HIT)

    def test_lost(self) -> None:
        """
        The Deferred fails when the connection is lost, even if a part of the reply has arrived.
        """
        asked = self.connection.ask(replies.GET, b"get k\r\n")
        second = self.connection.ask(replies.GET, b"get k\r\n")
        self.pipe.send(HIT[:-1])
        self.pipe.lose()
        self.failureResultOf(asked, ConnectionLostInFlight)
        self.failureResultOf(second, ConnectionLostInFlight)

    def test_endless(self) -> None:
        """
        A reply that is very long closes the connection: a server could send statistics without an end.
        """
        line = b"STAT a b\r\n"
        self.patch(connection, "WHOLE_MAX", 10 * len(line))
        asked = self.connection.ask(replies.STATS, b"stats\r\n")
        for _ in range(10):
            self.pipe.send(line)
        self.assertNoResult(asked)
        self.pipe.send(line * 2)
        self.assertClosed()
        self.failureResultOf(asked, ConnectionLostInFlight)


class ReentryTests(ConnectionTestCase):
    """
    Tests for sinks that use the connection while they are notified.
    """

    def once(self, owner: Owner, act: Callable[[], object]) -> None:
        """
        Call a function at the first notification of an owner.
        """

        def then() -> None:
            owner.then = None
            act()

        owner.then = then

    def test_sends(self) -> None:
        """
        A request that a sink sends while it gets a reply comes after all requests in flight. The pool does not consider
        the connection idle meanwhile.
        """
        other = Owner()
        self.get(b"a")
        self.get(b"k", owner=other)
        self.once(self.owner, lambda: self.get(b"b"))
        self.pipe.send(b"END\r\n" + HIT)
        self.assertEqual((self.owner.data, other.data), (b"END\r\n", HIT))
        self.assertEqual((self.record.load, self.books.told), (1, []))
        self.pipe.send(b"END\r\n")
        self.assertEqual((self.owner.done, self.record.load, self.books.told), (2, 0, ["hasCapacity"]))

    def test_sendsWithinRun(self) -> None:
        """
        A sink may send between two replies to its merged gets.
        """
        self.get(b"k", b"a")
        self.once(self.owner, lambda: self.get(b"b"))
        self.pipe.send(VALUE)
        self.pipe.send(b"END\r\n" + b"END\r\n")
        self.assertEqual((self.owner.data, self.owner.done), (HIT + b"END\r\n" + b"END\r\n", 3))

    def test_aborts(self) -> None:
        """
        A sink may abort the connection while it gets a reply. Replies that arrived together with it are still counted.
        """
        other = Owner()
        self.get(b"a")
        self.get(b"k", owner=other)
        self.get(b"b")
        self.once(self.owner, self.pipe.abortConnection)
        self.pipe.send(b"END\r\n" + HIT)
        self.clock.advance(0)
        self.assertEqual((other.data, other.lost), (HIT, []))
        self.assertEqual([entry[4] for entry in self.owner.lost[0][0]], [b"get b\r\n"])

    def test_losesAtOnce(self) -> None:
        """
        If the transport reports the loss synchronously, the replies after this one are lost, and no sink is notified
        twice.
        """
        other = Owner()
        self.get(b"a")
        self.get(b"k", owner=other)
        self.once(self.owner, self.pipe.lose)
        self.pipe.send(b"END\r\n" + HIT)
        self.assertEqual((self.owner.done, self.owner.lost), (1, []))
        self.assertEqual((other.data, len(other.lost)), (b"", 1))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_losesWithinRun(self) -> None:
        """
        The same within merged gets: those that are left were not answered.
        """
        for held in (b"", VALUE.replace(b"k", b"c")):
            self.setUp()
            self.get(b"k", b"a", b"c")
            self.once(self.owner, self.pipe.lose)
            self.pipe.send(VALUE + held)
            (entry,) = self.owner.lost[0][0]
            self.assertEqual((self.owner.done, entry[2], entry[4]), (1, 2, b"get a c\r\n"))
            self.assertEqual(self.owner.held, 0)

    def test_sendsWhenLost(self) -> None:
        """
        A sink may send its requests on another connection as soon as it is notified of the loss.
        """
        other = Owner()
        asked: list[Deferred[bytes]] = []
        self.get(b"a")
        self.get(b"b", owner=other)
        first = self.connection
        self.once(self.owner, lambda: asked.append(self.connection.ask(replies.GET, b"get a\r\n")))
        self.setUpAgain()
        first.transport.lose()
        self.assertEqual(len(other.lost), 1)
        self.pipe.send(b"END\r\n")
        self.assertEqual(self.successResultOf(asked[0]), b"END\r\n")

    def setUpAgain(self) -> None:
        """
        Create another connection for the same owner.
        """
        owner = self.owner
        self.setUp()
        self.owner = owner


class TransportTests(ConnectionTestCase):
    """
    Tests for the calls between a connection and its transport.
    """

    def test_held(self) -> None:
        """
        While the server does not read, the pool must not send.
        """
        self.pipe.reads = False
        self.connection.send(self.owner, replies.SET, 1, b"x" * 70000)
        self.assertEqual(self.books.told, ["hold"])
        self.pipe.read(1000)
        self.assertEqual(self.books.told, ["hold"])
        self.pipe.read()
        self.assertEqual(self.books.told, ["hold", "unhold"])

    def test_sending(self) -> None:
        """
        The outlet reports unsent requests if the transport does.
        """
        self.get(b"a")
        self.assertFalse(self.connection.outlet.queued)
        pipe = Pipe(self.clock)
        vars(pipe)["queued"] = True
        connection = self.connection.factory.buildProtocol(None)
        connection.record = Record(Server("server", None, self.traffic), 128)
        pipe.connect(connection)
        self.assertTrue(connection.outlet.queued)

    @covers("22", "R28")
    def test_options(self) -> None:
        """
        On TCP, small requests are sent without delay, and a vanished server is detected.
        """
        options: list[tuple[str, bool]] = []
        pipe: Any = Pipe(self.clock)
        pipe.setTcpNoDelay = lambda on: options.append(("no delay", on))
        pipe.setTcpKeepAlive = lambda on: options.append(("keep alive", on))
        directlyProvides(pipe, ITCPTransport)
        connection = self.connection.factory.buildProtocol(None)
        connection.record = self.record
        pipe.connect(connection)
        self.assertEqual(options, [("no delay", True), ("keep alive", True)])

    def test_probe(self) -> None:
        """
        What the pool itself asks is not counted, and the next request is.
        """
        command = Memcache.probe[0]
        for ask, counted in ((self.connection.probe, 0), (self.connection.ask, 1)):
            reply = ask(*Memcache.probe)
            self.pipe.send(b"VERSION 1.6.18\r\n")
            self.assertEqual(self.successResultOf(reply), b"VERSION 1.6.18\r\n")
            self.assertEqual(
                (self.traffic.requests[command.index], sum(self.traffic.latency.counts)), (counted, counted)
            )
        lost = self.connection.probe(*Memcache.probe)
        self.pipe.lose()
        self.failureResultOf(lost, ConnectionLostInFlight)

    def test_stopProducing(self) -> None:
        """
        A transport that ends stops its producer before it reports the loss. The sinks are notified only then.
        """
        self.get(b"a")
        self.connection.stopProducing()
        self.assertEqual(self.owner.lost, [])
        self.pipe.lose()
        self.assertEqual(len(self.owner.lost), 1)
