# Copyright txconnpool contributors. See LICENSE.
"""
Tests for L{txconnpool.routing.uses}.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from txconnpool.errors import PoolFull
from txconnpool.pool.decisions.limits import Limits
from txconnpool.routing.group import PoolGroup
from txconnpool.routing.uses import FLAVOURS_MAX, IDLE, USERS_MAX, FlavourUses, Owner, nobody


class Uses(FlavourUses):
    """
    Records which flavours begin and end.
    """

    def __init__(self, clock: Clock, owner: Owner = nobody) -> None:
        pool = PoolGroup("pool", clock, Limits())
        pool.start()
        super().__init__(pool, "base", "base", "leases", owner)
        self.begun: list[Hashable] = []
        self.ended: list[Hashable] = []

    def _begin(self, flavour: Hashable) -> Any:
        self.begun.append(flavour)
        return f"{flavour} {self.begun.count(flavour)}"

    def _close(self, flavour: Hashable) -> None:
        self.ended.append(flavour)


class FlavourUsesTests(SynchronousTestCase):
    """
    Tests for L{FlavourUses}.
    """

    def setUp(self) -> None:
        """
        Make an object without clients.
        """
        self.clock = Clock()
        self.uses = Uses(self.clock)
        self.addCleanup(lambda: self.assertEqual(self.clock.getDelayedCalls(), []))
        self.addCleanup(lambda: self.uses._pool.close())

    def fill(self) -> None:
        """
        Have as many flavours as possible, each with a client of the same name.
        """
        for number in range(FLAVOURS_MAX - 1):
            self.uses.use(f"f{number}", f"f{number}")

    def test_shared(self) -> None:
        """
        The clients of a flavour use the same connections.
        """
        self.assertEqual([self.uses.use(each, "f") for each in "abab"], ["f 1"] * 4)
        self.assertEqual([self.uses.use(each, "base") for each in "ac"], ["base"] * 2)
        self.assertEqual(self.uses.begun, ["f"])

    def test_end(self) -> None:
        """
        A flavour ends some time after its last client has left, and begins again if one comes later.
        """
        for client in "ab":
            self.uses.use(client, "f")
        self.uses.leave("a")
        self.clock.advance(2 * IDLE)
        self.assertEqual(self.uses.ended, [])
        self.uses.leave("b")
        self.uses.leave("b")
        self.clock.advance(IDLE - 1.0)
        self.assertEqual(self.uses.ended, [])
        self.clock.advance(1.0)
        self.assertEqual(self.uses.ended, ["f"])
        self.assertEqual(self.uses.use("a", "f"), "f 2")

    def test_again(self) -> None:
        """
        A client that comes in time uses the connections of those before. The time begins anew when it leaves.
        """
        self.uses.use("a", "f")
        self.uses.use("a", "base")
        self.clock.advance(IDLE - 1.0)
        self.assertEqual(self.uses.use("b", "f"), "f 1")
        self.clock.advance(IDLE)
        self.uses.use("b", "g")
        self.clock.advance(IDLE - 1.0)
        self.assertEqual(self.uses.ended, [])
        self.clock.advance(1.0)
        self.assertEqual(self.uses.ended, ["f"])

    def test_room(self) -> None:
        """
        If there are too many flavours, the one that has been without clients for the longest time ends.
        """
        self.fill()
        for client in ("f5", "f3", "f4"):
            self.uses.leave(client)
            self.clock.advance(1.0)
        self.uses.use("x", "f3")
        for number in range(2):
            self.uses.use(f"y{number}", f"g{number}")
        self.assertEqual(self.uses.ended, ["f5", "f4"])
        self.assertRaises(PoolFull, self.uses.use, "z", "h")

    def test_full(self) -> None:
        """
        A client that gets no other flavour keeps the one that it has. The flavour of new clients always exists.
        """
        self.fill()
        self.uses.use("a", "f1")
        self.assertRaises(PoolFull, self.uses.use, "a", "g")
        self.uses.leave("f1")
        self.clock.advance(IDLE)
        self.assertEqual((self.uses.use("a", "f1"), self.uses.ended), ("f1 1", []))
        self.assertEqual(self.uses.use("b", "base"), "base")
        self.assertRaises(PoolFull, self.uses.use, "b", "g")
        self.uses.leave("a")
        self.assertEqual(self.uses.use("b", "g"), "g 1")

    def test_lastClient(self) -> None:
        """
        The only client of a flavour can have another one, although there are too many.
        """
        self.fill()
        self.assertEqual(self.uses.use("f1", "g"), "g 1")
        self.assertEqual(self.uses.ended, ["f1"])

    def test_closed(self) -> None:
        """
        No timer is left when the pool is closed. A client that leaves later ends its flavour at once.
        """
        self.uses.use("a", "f")
        self.uses.use("b", "g")
        self.uses.leave("a")
        self.uses._pool.close()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.uses.leave("b")
        self.assertEqual(self.uses.ended, ["g"])


class OwnerTests(SynchronousTestCase):
    """
    Tests for flavours of users: the user of a flavour that is a tuple is its first item.
    """

    def setUp(self) -> None:
        """
        Make an object without clients.
        """
        self.clock = Clock()
        self.uses = Uses(self.clock, lambda flavour: flavour[0] if isinstance(flavour, tuple) else None)
        self.addCleanup(lambda: self.assertEqual(self.clock.getDelayedCalls(), []))
        self.addCleanup(lambda: self.uses._pool.close())

    def fill(self) -> None:
        """
        Have as many users as possible, each with a client of the same name.
        """
        for number in range(USERS_MAX):
            self.uses.use(number, (number, "f"))

    def test_share(self) -> None:
        """
        One user cannot take the flavours of others.
        """
        for number in range(FLAVOURS_MAX):
            self.uses.use(number, ("ann", number))
        self.assertRaises(PoolFull, self.uses.use, "x", ("ann", "x"))
        for number in range(FLAVOURS_MAX - 1):
            self.uses.use(f"other {number}", f"f{number}")
        self.uses.leave("other 3")
        self.assertRaises(PoolFull, self.uses.use, "x", ("ann", "x"))
        self.uses.use("x", ("ben", "x"))
        self.assertEqual(self.uses.ended, [])
        for number in (7, 5):
            self.uses.leave(number)
            self.clock.advance(1)
        self.uses.use("y", ("ann", "x"))
        self.assertEqual(self.uses.ended, [("ann", 7)])

    def test_users(self) -> None:
        """
        If there are too many users, the flavours of one without clients end.
        """
        self.fill()
        self.assertRaisesRegex(PoolFull, "256 users", self.uses.use, "x", ("x", "f"))
        self.uses.use("other", (3, "g"))
        self.uses.use("free", "f")
        for client in (3, "free", 4, 5):
            self.uses.leave(client)
        self.uses.use("x", ("x", "f"))
        self.assertEqual(self.uses.ended, [(4, "f")])
        self.uses.leave("other")
        self.uses.use("y", ("y", "f"))
        self.uses.use("z", ("z", "f"))
        self.assertEqual(self.uses.ended[1:], [(3, "f"), (3, "g"), (5, "f")])
        self.assertRaises(PoolFull, self.uses.use, "w", ("one more", "f"))
        self.assertEqual(self.uses.use("x", ("x", "f")), "('x', 'f') 1")

    def test_forgotten(self) -> None:
        """
        A user whose flavours have ended does not count.
        """
        self.fill()
        self.uses.leave(3)
        self.clock.advance(IDLE)
        self.uses.use("x", ("x", "f"))
        self.assertEqual(self.uses.ended, [(3, "f")])
