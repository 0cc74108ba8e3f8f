# Copyright txconnpool contributors. See LICENSE.
"""
Tests for L{txconnpool.routing.measuring}.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from txconnpool.errors import PoolError, ServerUnavailable
from txconnpool.interfaces import IReplySink, IWaiter
from txconnpool.routing.measuring import Measuring

PROBE = "PING", b"PING\r\n"


class FakePool:
    """
    A pool with one connection, which is its own record.

    @ivar mode: C{"send"}, C{"wait"} or C{"fail"}.
    @ivar sent: the sinks of the requests in flight.
    @ivar waiting: the waiters.
    """

    def __init__(self) -> None:
        self.mode = "send"
        self.sent: list[Any] = []
        self.waiting: list[Any] = []
        self.connection = self

    def take(self, waiter: Any) -> Any:
        """
        Find a connection.
        """
        verifyObject(IWaiter, waiter)
        if self.mode == "fail":
            raise ServerUnavailable("down")
        if self.mode == "send":
            return self
        waiter.ticket = waiter
        self.waiting.append(waiter)
        return None

    def forget(self, ticket: Any) -> None:
        """
        Forget a waiter.
        """
        self.waiting.remove(ticket)

    def send(self, sink: Any, command: Any, count: int, data: bytes) -> None:
        """
        Send a request.
        """
        assert verifyObject(IReplySink, sink) and (command, count, data) == ("PING", 1, b"PING\r\n")
        self.sent.append(sink)

    def reply(self) -> None:
        """
        Reply to all requests.
        """
        sent, self.sent = self.sent, []
        for sink in sent:
            sink.replied(b"+PO", 0)
            sink.replied(b"NG\r\n", 1)


class MeasuringTests(SynchronousTestCase):
    """
    Tests for L{Measuring}.
    """

    def setUp(self) -> None:
        """
        Measure two pools with the same keys, and one that is alone.
        """
        self.clock = Clock()
        self.changes = 0
        self.measuring = Measuring(self.clock, PROBE, lambda pool: pool, self.changed, lambda low, high: 1.0)
        self.one, self.two, self.alone = FakePool(), FakePool(), FakePool()
        self.turns = self.measuring.use([[self.one, self.two], [self.alone]])
        self.addCleanup(self.assertTidy)

    def changed(self) -> None:
        """
        Other nodes are near.
        """
        self.changes += 1
        self.turns = self.measuring.use([[self.one, self.two], [self.alone]])

    def assertTidy(self) -> None:
        """
        Assert that nothing is left.
        """
        self.measuring.stop()
        self.assertEqual((self.clock.getDelayedCalls(), self.one.waiting, self.two.waiting), ([], [], []))

    def test_order(self) -> None:
        """
        The pool whose replies arrive sooner comes first, and the other one when it is nearer. A pool without another
        one is not measured.
        """
        one, two = self.one, self.two
        self.assertEqual(self.turns, [[(one, two), (two, one)], [(self.alone,)]])
        self.elapse(0.01, 0.1)
        self.assertEqual(self.turns, [[(one, two)], [(self.alone,)]])
        self.elapse(0.1, 0.01)
        self.elapse(0.1, 0.01)
        self.assertEqual(self.turns, [[(two, one)], [(self.alone,)]])
        self.assertEqual((self.alone.sent, self.changes), ([], 2))

    def elapse(self, *delays: float) -> None:
        """
        Let nine seconds pass.

        @param delays: how long the two pools take for a reply.
        """
        for _ in range(900):
            self.clock.advance(0.01)
            for pool, delay in zip((self.one, self.two), delays, strict=True):
                if pool.sent and self.clock.seconds() - pool.sent[0].since >= delay:
                    pool.reply()

    def test_times(self) -> None:
        """
        The first measurements follow soon, later ones all few seconds, and none while a request is in flight.
        """
        times = []
        for _ in range(200):
            self.clock.advance(0.125)
            if self.one.sent:
                times.append(self.clock.seconds())
                self.one.reply()
                self.two.reply()
        self.assertEqual(times[:6], [0.25, 0.75, 1.75, 3.75, 6.75, 9.75])
        for _ in range(10):
            self.clock.advance(3)
        self.assertEqual(len(self.one.sent), 1)

    def test_frozen(self) -> None:
        """
        A node that does not reply becomes the farther one.
        """
        for _ in range(10):
            self.clock.advance(3)
            self.two.reply()
        self.assertEqual(self.turns[0], [(self.two, self.one)])

    def test_failures(self) -> None:
        """
        Without a connection, or when it is lost, the node is asked again the next time.
        """
        for mode in ("fail", "wait", "send"):
            self.one.mode = mode
            self.clock.advance(3)
            error: PoolError = ServerUnavailable("lost")
            for waiter in self.one.waiting:
                waiter.refused(error)
            for sink in self.one.sent:
                sink.requestsLost([], False, error)
                sink.afterLoss(error)
            self.one.sent, self.one.waiting = [], []
        self.one.mode = "wait"
        self.clock.advance(3)
        (waiter,) = self.one.waiting
        self.one.waiting = []
        waiter.granted(self.one)
        self.assertEqual(len(self.one.sent), 1)

    def test_leaving(self) -> None:
        """
        Nothing waits for a connection to a node that has left.
        """
        self.one.mode = "wait"
        self.clock.advance(0.25)
        self.assertEqual(len(self.one.waiting), 1)
        self.measuring.use([[self.two, self.alone]])
        self.assertEqual(self.one.waiting, [])
        self.two.mode = "wait"
        self.two.reply()
        self.clock.advance(3)
        self.assertEqual(len(self.two.waiting), 1)
