# Copyright txconnpool contributors. See LICENSE.
"""
Tests for L{txconnpool.pool.containment}: an unexpected exception of a sink, a lease or a waiter reaches nobody else.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.task import Clock
from zope.interface.verify import verifyObject

from tests.pool.test_connection import REQUESTS, ConnectionTestCase, Owner
from tests.toy import ADD, Toy, netstring
from txconnpool.errors import ConnectionLostInFlight, PoolError, WireError
from txconnpool.interfaces import IMergedReplySink, IRedirectedSink
from txconnpool.pool.containment import DROPPED
from txconnpool.pool.decisions.limits import Limits
from txconnpool.pool.engine import PoolEngine
from txconnpool.testing import FakeServer
from txconnpool.wire.memcache import replies

END = b"END\r\n"


class Raising(Owner):
    """
    A sink whose methods raise an exception.

    @ivar at: the name of the method that does.
    @ivar error: the exception.
    """

    def __init__(self, at: str, error: Exception | None = None) -> None:
        super().__init__(joins=False)
        self.at = at
        self.error = error or ZeroDivisionError("a sink has failed")

    def _call(self, name: str) -> None:
        if self.at == name:
            raise self.error

    def replied(self, data: bytes, done: int) -> None:
        self._call("replied")
        super().replied(data, done)

    def heldBack(self, change: int) -> bool:
        self._call("heldBack")
        return super().heldBack(change)

    def requestsLost(self, requests: list[Any], begun: bool, error: PoolError) -> None:
        self._call("requestsLost")
        super().requestsLost(requests, begun, error)

    def afterLoss(self, error: PoolError) -> None:
        self._call("afterLoss")
        super().afterLoss(error)

    def abort(self, error: PoolError) -> None:
        super().abort(error)
        self._call("abort")


class SinkTests(ConnectionTestCase):
    """
    Tests for sinks that raise an exception.
    """

    def ask(self, sink: Owner, command: Any = replies.GET) -> None:
        """
        Send a request.
        """
        self.connection.send(sink, command, 1, REQUESTS[command])

    def assertLogged(self, count: int = 1) -> None:
        """
        Assert that the exception was logged so many times.
        """
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), count)

    def assertContained(self, sink: Owner) -> None:
        """
        Assert that an exception was logged once, and has ended the sink only.
        """
        self.assertLogged()
        self.assertEqual(str(sink.aborted), "internal error: ZeroDivisionError('a sink has failed')")
        self.assertIsInstance(getattr(sink.aborted, "__cause__", None), ZeroDivisionError)
        self.assertFalse(self.pipe.aborted)

    def test_replied(self) -> None:
        """
        A sink that fails when it gets a reply is ended, and its other replies are dropped. Other sinks get theirs, and
        the connection is used further.
        """
        for command in (replies.GET, replies.GETS):  # replies are found in two ways
            sink, first, last = Raising("replied"), Owner(), Owner()
            for each in (first, sink, sink, last):
                self.ask(each, command)
            self.pipe.send(END * 4)
            self.assertEqual((first.data, sink.data, last.data), (END, b"", END))
            self.assertContained(sink)
            self.assertEqual((self.record.load, self.connection.unanswered), (0, 0))

    def test_part(self) -> None:
        """
        A sink may fail when it gets a part of a reply. The rest of this reply is dropped.
        """
        sink, last = Raising("replied"), Owner()
        self.ask(sink)
        self.ask(last)
        value = b"VALUE k 0 100000\r\n%s\r\nEND\r\n" % (b"v" * 100000)
        for at in range(0, len(value), 20000):
            self.pipe.send(value[at : at + 20000])
        self.pipe.send(END)
        self.assertEqual((last.data, self.record.load), (END, 0))
        self.assertContained(sink)

    def test_lost(self) -> None:
        """
        A sink that fails when the connection is lost is ended. Those before and behind it learn of the loss.
        """
        for at in ("requestsLost", "afterLoss"):
            self.setUp()
            sinks = [Owner(), Raising(at), Owner(), Raising(at)]
            for each in sinks:
                self.ask(each)
                each.then = lambda each=each: setattr(each, "done", -1)
            self.pipe.lose()
            self.assertLogged(2)
            self.assertEqual([len(each.lost) for each in sinks], [1, at == "afterLoss", 1, at == "afterLoss"])
            self.assertEqual([each.done for each in sinks], [-1, 0, -1, 0])
            self.assertEqual([each.aborted is None for each in sinks], [True, False, True, False])
            self.assertEqual((self.record.load, self.clock.getDelayedCalls()), (0, []))

    def test_heldBack(self) -> None:
        """
        A sink may fail when it counts bytes that are held back.
        """
        sink, last = Raising("heldBack"), Owner()
        self.connection.send(sink, replies.GET, 2, b"get a k\r\n")
        self.ask(last)
        self.pipe.send(b"VALUE k 0 1\r\n1\r\n")
        self.pipe.send(END + END)
        self.assertEqual((last.data, self.record.load), (END, 0))
        self.assertContained(sink)

    def test_violation(self) -> None:
        """
        A sink that finds that bytes violate the protocol is ended with that error, and the connection is closed.
        """
        sink, last = Raising("replied", WireError("expected another key")), Owner()
        self.ask(sink)
        self.ask(last)
        self.pipe.send(END + END)
        self.assertClosed()
        self.assertIsInstance(sink.aborted, ConnectionLostInFlight)
        self.assertEqual((str(sink.aborted), sink.lost), ("upstream protocol error: expected another key", []))
        self.assertEqual((last.data, len(last.lost)), (b"", 1))

    def test_abort(self) -> None:
        """
        A sink may fail even when it is ended. That is logged too.
        """
        sink, last = Raising("abort"), Owner()
        sink.then = lambda: 1 // 0
        self.ask(sink)
        self.ask(last)
        self.pipe.send(END + END)
        self.assertLogged(2)
        self.assertEqual(last.data, END)

    def test_dropped(self) -> None:
        """
        What takes the place of the sink has all methods of sinks, and wants nothing.
        """
        verifyObject(IMergedReplySink, DROPPED)
        verifyObject(IRedirectedSink, DROPPED)
        self.assertFalse(DROPPED.heldBack(1))
        DROPPED.redirected(None, None)


class Lease:
    """
    A lease of a connection whose methods raise an exception.
    """

    def __init__(self) -> None:
        self.errors: list[PoolError] = []

    def pushed(self, data: bytes) -> None:
        raise ZeroDivisionError(data)

    def connectionLost(self, error: PoolError) -> None:
        raise ZeroDivisionError(error)

    def abort(self, error: PoolError) -> None:
        """
        Record the end.
        """
        self.errors.append(error)


class LeaseTests(ConnectionTestCase):
    """
    Tests for leases that raise an exception.
    """

    dialect = Toy()

    def test_pushed(self) -> None:
        """
        A lease that fails when it gets a frame, or when the connection is lost, is ended, and requests are not.
        """
        lease = self.connection.lease = Lease()
        self.connection.send(self.owner, ADD, 1, netstring(b"add 1"))
        self.pipe.send(netstring(b"!news") + netstring(b"+1"))
        self.assertEqual((self.owner.data, len(lease.errors)), (netstring(b"+1"), 1))
        self.connection.send(self.owner, ADD, 1, netstring(b"add 1"))
        self.pipe.lose()
        self.assertEqual((len(self.owner.lost), len(lease.errors)), (1, 2))
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 2)


class Caller:
    """
    A waiter whose methods raise an exception.
    """

    ticket: Any = None

    def __init__(self) -> None:
        self.errors: list[PoolError] = []

    def granted(self, record: Any) -> None:
        raise ZeroDivisionError(record)

    def refused(self, error: PoolError) -> None:
        raise ZeroDivisionError(error)

    def abort(self, error: PoolError) -> None:
        """
        Record the end.
        """
        self.errors.append(error)


class WaiterTests(ConnectionTestCase):
    """
    Tests for waiters that raise an exception.
    """

    def test_waiters(self) -> None:
        """
        Waiters that fail when they are served or refused are ended, each of them once.
        """
        for serve in (True, False):
            clock = Clock()
            server = FakeServer(clock, None)
            factory = type(self.connection.factory)(self.dialect, clock, 2.0)
            pool = PoolEngine([server], factory, Limits(maximum=1, waitTimeout=1.0, whenDown=None), clock)
            callers = [Caller() for _ in range(3)]
            if not serve:
                server.hang()
            self.assertEqual([pool.take(caller) for caller in callers], [None] * 3)
            clock.advance(0)
            clock.advance(1)
            self.assertEqual([len(caller.errors) for caller in callers], [1] * 3)
            self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 3)
            self.assertEqual(pool.waiters.count, 0)
            pool.abort()
            clock.advance(0)
            clock.advance(60)
