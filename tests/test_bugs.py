# Copyright txconnpool contributors. See LICENSE.
"""
Tests for the list of bugs in L{tests.bugs}: none of the tests that cover them disappears unnoticed.
"""

from __future__ import annotations

import inspect
import pkgutil
from collections import defaultdict

from twisted.python.reflect import namedModule
from twisted.trial.unittest import SynchronousTestCase

import tests
from tests.bugs import BUGS, covered, covers


def coverage() -> dict[str, set[str]]:
    """
    Load the test modules and find the tests that are decorated with L{covers}.

    @return: the names of the tests, by the numbers of the bugs.
    """
    found: dict[str, set[str]] = defaultdict(set)
    for each in pkgutil.walk_packages(tests.__path__, "tests."):
        # Tests against real servers are skipped where these are not installed, so they cover nothing.
        if each.name.startswith(("tests.real", "tests.bench")):
            continue
        for name, case in inspect.getmembers(namedModule(each.name), inspect.isclass):
            if issubclass(case, SynchronousTestCase):
                for method, test in inspect.getmembers(case, inspect.isfunction):
                    if method.startswith("test"):
                        for number in covered(test):
                            found[number].add(f"{each.name}.{name}.{method}")
    return found


class BugsTests(SynchronousTestCase):
    """
    Tests for the list.
    """

    def test_numbers(self) -> None:
        """
        Every bug is in it once.
        """
        numbers = [str(number) for number in range(1, 31)]
        numbers.insert(5, "5b")
        numbers += [f"R{number}" for number in range(1, 47)]
        self.assertEqual([bug.number for bug in BUGS], numbers)

    def test_covered(self) -> None:
        """
        Every bug has a test that trial runs, or a reason.
        """
        tested = coverage()
        self.assertEqual([bug.number for bug in BUGS if not (tested[bug.number] or bug.reason)], [])

    def test_known(self) -> None:
        """
        A test cannot name a bug that is not in the list.
        """
        self.assertEqual(set(coverage()) - {bug.number for bug in BUGS}, set())
        error = self.assertRaises(ValueError, covers, "5b", "31")
        self.assertEqual(str(error), "no such bugs: 31")
