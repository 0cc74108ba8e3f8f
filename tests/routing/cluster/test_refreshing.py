# -*- test-case-name: tests.routing.cluster.test_refreshing -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Tests for L{txconnpool.routing.cluster.refreshing}.
"""

from __future__ import annotations

from math import inf

from twisted.trial.unittest import SynchronousTestCase

from tests.bugs import covers
from txconnpool.routing.cluster.refreshing import LEAST, PERIOD, SPREAD, Refreshing
from txconnpool.wire.topology import Node

A, B, C = (Node("10.0.0.1", port) for port in (1, 2, 3))


def refreshing(*seeds: Node) -> Refreshing:
    """
    @return: one that takes the mean where chance decides, and asks the last node first.
    """
    return Refreshing(seeds or (A,), uniform=lambda low, high: (low + high) / 2, shuffle=lambda nodes: nodes.reverse())


class RefreshingTests(SynchronousTestCase):
    """
    Tests for L{Refreshing}.
    """

    def test_start(self) -> None:
        """
        Nothing is asked before the start; then a seed is.
        """
        each = refreshing()
        self.assertEqual(each.due, inf)
        each.wrong(5.0)
        self.assertEqual(each.due, inf)
        each.start(7.0)
        self.assertEqual(each.due, 7.0)
        self.assertEqual(each.ask(7.0, []), A)
        self.assertEqual((each.asked, each.due), (A, inf))

    def test_period(self) -> None:
        """
        After an answer the cluster is asked again once in a while.
        """
        each = refreshing()
        each.start(0.0)
        each.ask(0.0, [])
        each.answered(1.0, False)
        self.assertEqual((each.asked, each.due, each.count, each.since), (None, 1.0 + PERIOD, 1, 1.0))

    @covers("R36")
    def test_storm(self) -> None:
        """
        Any number of events leads to one question, soon, but not within the least interval.
        """
        each = refreshing()
        each.start(0.0)
        each.ask(0.0, [])
        each.answered(0.0, False)
        for number in range(10000):
            each.wrong(10.0 + number / 1e6)
        self.assertEqual(each.due, 10.0 + SPREAD / 2)
        each.ask(each.due, [A])
        for _ in range(10000):
            each.wrong(10.1)
        self.assertEqual(each.due, inf)
        each.answered(10.2, False)
        self.assertEqual(each.due, 10.2 + LEAST * 1.25)
        each.ask(each.due, [A])
        each.answered(20.0, False)
        each.wrong(20.5)
        self.assertEqual(each.due, 20.0 + LEAST + SPREAD / 2)
        self.assertEqual(each.count, 3)

    def test_candidates(self) -> None:
        """
        If a node does not answer, another known one is asked, then the seeds. After all of them the next round comes
        later.
        """
        each = refreshing(A, C)
        each.start(0.0)
        self.assertEqual(each.ask(0.0, [A, B]), B)
        self.assertEqual([each.failed(1.0), each.failed(2.0), each.failed(3.0)], [A, C, None])
        self.assertEqual((each.failures, each.asked, each.due), (1, None, 3.0 + LEAST * 1.25))
        each.ask(each.due, [])
        each.answered(5.0, False)
        self.assertEqual(each.failures, 0)

    def test_stillWrong(self) -> None:
        """
        If the new map is wrong already, the cluster is asked again after the least interval.
        """
        each = refreshing()
        each.start(0.0)
        each.ask(0.0, [])
        each.answered(1.0, True)
        self.assertEqual(each.due, 1.0 + LEAST * 1.25)

    def test_stop(self) -> None:
        """
        After the end nothing is asked.
        """
        each = refreshing()
        each.start(0.0)
        each.ask(0.0, [])
        each.stop()
        each.wrong(1.0)
        self.assertEqual((each.asked, each.due), (None, inf))

    def test_noSeeds(self) -> None:
        """
        Without seeds nothing is asked until there are some. They are kept if none are found later.
        """
        each = Refreshing((), uniform=lambda low, high: (low + high) / 2)
        each.use((), 0.0)
        each.start(1.0)
        each.wrong(1.0)
        self.assertEqual(each.due, inf)
        each.use((A,), 2.0)
        self.assertEqual((each.due, each.ask(2.0, [])), (2.0, A))
        each.answered(3.0, False)
        each.use((B, C), 4.0)
        each.use((), 5.0)
        self.assertEqual((each.seeds, each.due), ((B, C), 3.0 + PERIOD))
