# -*- test-case-name: tests.bench.test_library -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Tests that the library benchmark calls, counts and compares correctly. No test depends on a measured time.
"""

from __future__ import annotations

import importlib.util
from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from tests.bench import __main__ as command
from tests.bench import library
from tests.bench.library import CLIENTS, ITEMS, OVERHEADS, RETRIEVALS, Bare, Contestant, WrongAnswer, caller, contest
from tests.real.servers import freePort, missing


class CallerTests(SynchronousTestCase):
    """
    Tests for L{caller}.
    """

    def ask(self, answer: Any) -> Deferred[None]:
        """
        Make three calls.

        @param answer: makes the result of a call from the stored value.
        """
        self.asked: list[bytes] = []

        async def ask(key: bytes, value: bytes) -> Any:
            self.asked.append(key)
            return answer(value)

        return Deferred.fromCoroutine(caller(ask, len(ITEMS) - 1, 3))

    def test_keys(self) -> None:
        """
        A caller uses one item after another, and starts again after the last.
        """
        self.successResultOf(self.ask(lambda value: (0, value)))
        self.assertEqual(self.asked, [ITEMS[-1][0], ITEMS[0][0], ITEMS[1][0]])

    def test_wrong(self) -> None:
        """
        A wrong result is an error.
        """
        self.successResultOf(self.ask(lambda value: True))
        for wrong in (lambda value: (0, b"other"), lambda value: (0, None), lambda value: False):
            failed = self.ask(wrong)
            self.assertEqual(len(self.asked), 1)
            failed.addErrback(lambda failure: failure.trap(WrongAnswer, TypeError) and None)
            self.assertIsNone(self.successResultOf(failed))


class ContestTests(SynchronousTestCase):
    """
    Tests for L{contest} and L{Contestant}.
    """

    skip = missing("memcached")

    def test_ours(self) -> None:
        """
        Each client has a result for each round.
        """
        clients = [client for client in CLIENTS.values() if importlib.util.find_spec(client.needs)]
        costs = contest(clients, callers=5, rounds=2, calls=100, pin=False)
        self.assertEqual({name: len(rounds) for name, rounds in costs.items()}, {each.name: 2 for each in clients})
        for rounds in costs.values():
            for cost in rounds:
                self.assertGreater(min(cost["cpu"], cost["rate"]), 0)
        text = library.clientTable(clients, costs, 5)
        self.assertIn("| 5 concurrent callers", text)
        self.assertEqual(text.count("\n"), 2 + len(clients))

    def test_retrievals(self) -> None:
        """
        Calls for many keys get all values from several servers.
        """
        clients = [client for client in RETRIEVALS.values() if importlib.util.find_spec(client.needs)]
        costs = contest(clients, callers=5, rounds=1, calls=50, pin=False, servers=2)
        self.assertEqual(list(costs), [client.name for client in clients])

    def test_nobodyThere(self) -> None:
        """
        The error of a client is raised in the parent.
        """
        contestant = Contestant(CLIENTS["get"], [freePort()], 1)
        self.addCleanup(contestant.close)
        error = self.assertRaises(WrongAnswer, contestant.round, 1)
        self.assertIn("ServerUnavailable", str(error))


class OverheadTests(SynchronousTestCase):
    """
    Tests for the measurements of the pool without I/O.
    """

    def test_all(self) -> None:
        """
        All measurements are taken in each round, and no call is left unanswered.
        """
        taken = library.overheads(rounds=2, calls=10)
        self.assertEqual(list(taken), list(OVERHEADS))
        self.assertEqual({len(rounds) for rounds in taken.values()}, {2})
        self.assertEqual(Bare.calls, [])

    def test_overheadTable(self) -> None:
        """
        The time that the pool adds to the bare call is compared with its limit.
        """
        taken = {name: [3.0, 1.0, 2.0] for name in OVERHEADS} | {
            "performRequest, idle": [7.0, 1.0, 6.0],
            "performRequest, 100 waiting": [9.0, 9.0, 9.0],
        }
        rows = {
            words[1]: words[2:-1]
            for words in (
                [word.strip() for word in row.split("|")] for row in library.overheadTable(taken).splitlines()
            )
        }
        self.assertEqual(rows["the bare call"], ["2.00", "2.00", ""])
        self.assertEqual(rows["acquireNow + release"], ["2.00", "2.00", "0.5: missed"])
        self.assertEqual(rows["performRequest, idle"], ["6.00", "4.00", "4: reached"])
        self.assertEqual(rows["performRequest, 100 waiting"], ["9.00", "7.00", "6: missed"])

    def test_growth(self) -> None:
        """
        The growth is the largest of several sizes while requests waited, and the size after they were answered, both
        less the size before. No call is left unanswered.
        """
        sizes = iter([70, 100, 140, 180, 130, 110])
        self.patch(library, "residentSize", lambda pid: next(sizes))
        self.assertEqual(library.growth(1000), (80, 10))
        self.assertEqual(list(sizes), [])
        self.assertEqual(Bare.calls, [])


class CommandTests(SynchronousTestCase):
    """
    Tests for the command line.
    """

    def test_known(self) -> None:
        """
        C{library} is one of the commands.
        """
        self.assertIs(command.COMMAND_NAMES["library"][0], library.main)
