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
    @ivar replicas: its replicas.
    @ivar replica: the first of them.
    @ivar sentinel: the sentinel, which makes the replica the master when that one has failed.
    """

    addCleanup: Any

    def watch(self, replicas: int = 1, *lines: str) -> str:
        """
        Start the servers and the sentinel.

        @param replicas: the number of replicas.
        @param lines: further lines of the configuration of the sentinel.

        @return: the upstream, which names another sentinel too that does not exist.
        """
        self.master = self.start(Redis("--repl-diskless-sync-delay", "0"))
        host, port = self.master.address
        options = ("--replicaof", f"{host} {port}", "--repl-diskless-sync-delay", "0")
        self.replicas = [self.start(Redis(*options)) for _ in range(replicas)]
        self.replica = self.replicas[0]
        for replica in self.replicas:
            with Client(replica.address) as direct:
                until(lambda: b"master_link_status:up" in direct.ask("INFO", "replication"))
        self.sentinel = self.start(Sentinel("cache", self.master.address, *lines))
        with Client(self.sentinel.address) as direct:
            # By default it asks the servers every ten seconds for their replicas and links, and waits eight seconds
            # (four periods) until it makes an old master a replica. If it gets no processor time for two seconds, it
            # decides nothing for thirty seconds.
            direct.ask("SENTINEL", "DEBUG", "INFO-PERIOD", 1000, "PUBLISH-PERIOD", 500, "TILT-TRIGGER", 100_000)
            until(lambda: self._linked(direct) == replicas, what="the replicas at the sentinel")
        host, port = self.sentinel.address
        return f"sentinel:cache@127.0.0.1:{freePort()},{host}:{port}"

    def failAfter(self, milliseconds: int) -> None:
        """
        Let the sentinel take a server for failed after another time. At first it is patient: on a slow machine a server
        may not answer for a while.
        """
        with Client(self.sentinel.address) as direct:
            direct.ask("SENTINEL", "SET", "cache", "down-after-milliseconds", milliseconds)

    @staticmethod
    def _linked(sentinel: Client) -> int:
        """
        @return: the number of replicas that a sentinel reports as linked to the master.
        """
        replicas = (
            dict(zip(each[::2], each[1::2], strict=True)) for each in sentinel.ask("SENTINEL", "REPLICAS", "cache")
        )
        return sum(each[b"master-link-status"] == b"ok" and each[b"flags"] == b"slave" for each in replicas)

    def start(self, server: Any) -> Any:
        """
        Start a server, which is stopped at the end of the test.
        """
        server.start()
        self.addCleanup(server.stop)
        return server
