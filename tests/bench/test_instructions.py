# -*- test-case-name: tests.bench.test_instructions -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Tests that the workloads of the count of instructions are answered, and that instructions are counted.
"""

from __future__ import annotations

import sys
from io import StringIO

from twisted.trial.unittest import SynchronousTestCase

from tests.bench import __main__ as command
from tests.bench import instructions
from tests.bench.instructions import EXCHANGES, count, table
from tests.real.servers import SOURCE, missing


class ExchangeTests(SynchronousTestCase):
    """
    Tests for L{Exchange}.
    """

    def test_answered(self) -> None:
        """
        In each turn all requests are answered by the servers, so that further turns cost the same.
        """
        for name, exchange in EXCHANGES.items():
            turn, sessions = exchange.prepare()
            for _ in range(3):
                turn()
                self.assertEqual([each.inFlight for each in sessions], [0] * exchange.clients, name)
            counters = sessions[0].factory.counters
            self.assertEqual((counters.refused, counters.errors), (0, {}), name)


class CountTests(SynchronousTestCase):
    """
    Tests for L{count} and L{table}.
    """

    def test_fewer(self) -> None:
        """
        Gets that are merged cost fewer instructions than a single one.
        """
        counted = count(SOURCE, ["one client", "pipelines of 16"])
        self.assertGreater(counted["one client"], 2 * counted["pipelines of 16"])

    test_fewer.skip = missing("valgrind")  # type: ignore[attr-defined]

    def test_table(self) -> None:
        """
        Each source tree has a column, and all but the first one a ratio.
        """
        text = table(["one client"], {"proxy": {"one client": 50000.0}, "old": {"one client": 55000.0}})
        cells = [cell.strip() for cell in text.splitlines()[-1].strip("|").split("|")]
        self.assertEqual(cells, ["one client", "50,000", "55,000", "1.100"])

    def test_wrongVariant(self) -> None:
        """
        A source tree has the package.
        """
        errors = StringIO()
        self.patch(sys, "stderr", errors)
        self.patch(instructions, "missing", lambda *programs: None)
        self.assertRaises(SystemExit, instructions.main, ["--variant", "old=/nowhere"])
        self.assertIn("old=/nowhere: expected NAME=DIRECTORY", errors.getvalue())

    def test_known(self) -> None:
        """
        C{instructions} is one of the commands.
        """
        self.assertIs(command.COMMAND_NAMES["instructions"][0], instructions.main)
