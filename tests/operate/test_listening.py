# Copyright txconnpool contributors. See LICENSE.
"""
Tests for L{txconnpool.operate.listening}.
"""

from __future__ import annotations

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.interfaces import IAddress
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase

from txconnpool.operate.listening import (
    LOG_PERIOD,
    OperatorConnection,
    OperatorFactory,
    Tally,
    networkOf,
    oldestOfBusiest,
)


class NetworkTests(SynchronousTestCase):
    """
    Tests for L{networkOf} and L{oldestOfBusiest}.
    """

    def network(self, peer: IAddress) -> str:
        return networkOf(StringTransport(peerAddress=peer))

    def test_network(self) -> None:
        """
        An IPv6 address is known by its first half, others as a whole.
        """
        for host, expected in (
            ("2001:db8::1", "2001:0db8:0000:0000"),
            ("2001:db8::2:0:0:1", "2001:0db8:0000:0000"),
            ("::ffff:10.0.0.1", "10.0.0.1"),
            ("fe80::1%eth0", "fe80:0000:0000:0000"),
            ("a name", "a name"),
        ):
            self.assertEqual(self.network(IPv6Address("TCP", host, 1)), expected)
        self.assertEqual(self.network(IPv4Address("TCP", "10.0.0.1", 1)), "10.0.0.1")
        self.assertEqual(self.network(UNIXAddress(b"/x")), "")

    def test_oldestOfBusiest(self) -> None:
        """
        The oldest connection of the network with the most is chosen.
        """
        connections = []
        for network in "abcbcc":
            connection = OperatorConnection(OperatorFactory(Clock()))
            connection.network = network
            connections.append(connection)
        self.assertIs(oldestOfBusiest(connections), connections[2])
        self.assertIs(oldestOfBusiest(connections[:3]), connections[0])


class TallyTests(SynchronousTestCase):
    """
    Tests for L{Tally}.
    """

    def test_periods(self) -> None:
        """
        There is a line at once, then one in each period in which something has happened.
        """
        clock = Clock()
        lines: list[tuple[int, str]] = []
        tally = Tally(clock, lambda *line: lines.append(line))
        for what in "abc":
            tally.add(what)
        self.assertEqual(lines, [(1, "a")])
        clock.advance(LOG_PERIOD)
        self.assertEqual(lines.pop(), (2, "c"))
        clock.advance(LOG_PERIOD)
        self.assertEqual((lines, clock.getDelayedCalls()), ([(1, "a")], []))
        tally.add("d")
        self.assertEqual(lines.pop(), (1, "d"))

    def test_stop(self) -> None:
        """
        A stop logs the rest and leaves no timer.
        """
        clock = Clock()
        lines: list[tuple[int, str]] = []
        tally = Tally(clock, lambda *line: lines.append(line))
        tally.stop()
        tally.add("a")
        tally.stop()
        tally.add("b")
        tally.add("c")
        tally.stop()
        self.assertEqual((lines, clock.getDelayedCalls()), ([(1, "a"), (1, "b"), (1, "c")], []))
