# Copyright txconnpool contributors. See LICENSE.
"""
Tests for L{txconnpool.errors}.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from txconnpool import errors
from txconnpool.errors import (
    ClientNotOwned,
    ConnectionLostInFlight,
    NoSuchCommand,
    PoolClosed,
    PoolError,
    PoolFull,
    PoolTimeout,
    ServerUnavailable,
    WireError,
)


class TreeTests(SynchronousTestCase):
    """
    Tests for the hierarchy and the attributes of the exceptions.
    """

    def test_poolErrors(self) -> None:
        """
        Every error of a pool is a L{PoolError}, and a matching built-in exception where there is one.
        """
        for kind in (
            PoolTimeout, PoolFull, PoolClosed, ServerUnavailable, ConnectionLostInFlight, ClientNotOwned, NoSuchCommand,
        ):  # fmt: skip
            self.assertTrue(issubclass(kind, PoolError))
        self.assertTrue(issubclass(PoolTimeout, TimeoutError))
        self.assertTrue(issubclass(ClientNotOwned, ValueError))

    def test_violations(self) -> None:
        """
        Protocol violations of a server are not errors of the pool.
        """
        self.assertFalse(issubclass(WireError, PoolError))

    def test_kinds(self) -> None:
        """
        Each exception has its own C{kind} for statistics; L{PoolTimeout} has one for each phase.
        """
        timeouts = [PoolTimeout("late", phase) for phase in ("wait", "connect", "request")]
        self.assertEqual([each.kind for each in timeouts], ["wait_timeout", "connect_timeout", "request_timeout"])
        others = [PoolFull(""), PoolClosed(""), ServerUnavailable(""), ConnectionLostInFlight("")]
        kinds = {each.kind for each in [*timeouts, *others]}
        self.assertEqual(len(kinds), 7)
        self.assertNotIn("other", kinds)

    def test_text(self) -> None:
        """
        C{str} of an exception is its text alone; the other arguments are attributes.
        """
        stats = object()
        for error in (PoolTimeout("late", "request", stats), PoolFull("late", stats), ServerUnavailable("late", stats),
                      ConnectionLostInFlight("late", False), ClientNotOwned("late")):  # fmt: skip
            self.assertEqual(str(error), "late")
        for known in (PoolTimeout("", "connect", stats), PoolFull("", stats), ServerUnavailable("", stats)):
            self.assertIs(known.stats, stats)
        self.assertEqual(PoolTimeout("", "connect").phase, "connect")
        self.assertEqual([ConnectionLostInFlight("").sent, ConnectionLostInFlight("", False).sent], [True, False])

    def test_documented(self) -> None:
        """
        Each exception has a docstring.
        """
        for name, kind in vars(errors).items():
            if isinstance(kind, type) and kind.__module__ == errors.__name__:
                self.assertTrue(kind.__doc__, name)
