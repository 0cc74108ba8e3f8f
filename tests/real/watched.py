# Copyright txconnpool contributors. See LICENSE.
"""
A master and a replica of Redis, with a sentinel that watches them.
"""

from __future__ import annotations

from typing import Any

from tests.real.resp import Client
from tests.real.servers import Redis, Sentinel, freePort, until


class Watched:
    """
    A part of a test case.

    @ivar master: the master.
    @ivar replica: its replica.
    @ivar sentinel: the sentinel, which makes the replica the master when that one has failed.
    """

    addCleanup: Any

    def watch(self) -> str:
        """
        Start the servers and the sentinel.

        @return: the upstream, which names another sentinel too that does not exist.
        """
        self.master = self.start(Redis())
        host, port = self.master.address
        self.replica = self.start(Redis("--replicaof", f"{host} {port}", "--repl-diskless-sync-delay", "0"))
        with Client(self.replica.address) as direct:
            until(lambda: b"master_link_status:up" in direct.ask("INFO", "replication"))
        self.sentinel = self.start(Sentinel("cache", self.master.address))
        with Client(self.sentinel.address) as direct:
            until(lambda: direct.ask("SENTINEL", "REPLICAS", "cache"))
        host, port = self.sentinel.address
        return f"sentinel:cache@127.0.0.1:{freePort()},{host}:{port}"

    def start(self, server: Any) -> Any:
        """
        Start a server, which is stopped at the end of the test.
        """
        server.start()
        self.addCleanup(server.stop)
        return server
