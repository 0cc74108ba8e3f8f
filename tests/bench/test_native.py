# -*- test-case-name: tests.bench.test_native -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Tests that clients in C detect every wrong reply, as those in Python do.
"""

from __future__ import annotations

from tests.bench import measure, test_bench
from tests.bench.generator import Generator
from tests.bench.native import NativeClients, missingCompiler
from tests.bench.workloads import Workload
from tests.real.servers import missing


class NativeClientsTests(test_bench.ClientsTests):
    """
    The tests of the clients in Python, with the loop in C.
    """

    skip = measure.unable() or missing("memcached") or missingCompiler()
    workload = Workload("test", "test", clients=4, depth=3, size=50, native=True)
    kind = NativeClients

    def test_counted(self) -> None:
        """
        The child process of a load runs them.
        """
        load = Generator(self.memcached.address, self.workload, 2)
        self.addCleanup(load.close)
        load.ready()
        load.go(0.05)
        self.assertGreater(load.outcome().requests, 0)
