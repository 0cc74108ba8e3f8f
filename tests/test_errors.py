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
    Tests for who is whose exception.
    """

    def test_poolErrors(self) -> None:
        """
        All that a pool does to a request is one C{except PoolError}, and what Python has a word for is that too.
        """
        for kind in (PoolTimeout, PoolFull, PoolClosed, ServerUnavailable, ConnectionLostInFlight, ClientNotOwned):
            self.assertTrue(issubclass(kind, PoolError))
        self.assertTrue(issubclass(PoolTimeout, TimeoutError))
        self.assertTrue(issubclass(ClientNotOwned, ValueError))

    def test_mistakes(self) -> None:
        """
        A mistake in the program is no error of the pool, nor is one of the server in its protocol.
        """
        for kind in (NoSuchCommand, WireError):
            self.assertFalse(issubclass(kind, PoolError))

    def test_kinds(self) -> None:
        """
        Each has a word of its own for statistics, the timeouts one for each of their phases.
        """
        timeouts = [PoolTimeout("late", phase) for phase in ("wait", "connect", "request")]
        self.assertEqual([each.kind for each in timeouts], ["wait_timeout", "connect_timeout", "request_timeout"])
        others = [PoolFull(""), PoolClosed(""), ServerUnavailable(""), ConnectionLostInFlight("")]
        kinds = {each.kind for each in [*timeouts, *others]}
        self.assertEqual(len(kinds), 7)
        self.assertNotIn("other", kinds)

    def test_text(self) -> None:
        """
        The text is what was said, without what the exception knows beside.
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
        Each says what it means.
        """
        for name, kind in vars(errors).items():
            if isinstance(kind, type) and kind.__module__ == errors.__name__:
                self.assertTrue(kind.__doc__, name)
