# Copyright txconnpool contributors. See LICENSE.
"""
Tests for reads from the replicas that a real sentinel names.
"""

from __future__ import annotations

import threading

from twisted.trial.unittest import SynchronousTestCase

from tests.real.operated import rows
from tests.real.resp import Client, ReplyError
from tests.real.servers import PATIENCE, Proxy, Redis, Sentinel, clientEndpoint, missing, until
from tests.real.watched import Watched

READERS = 4

#: Keys of which each replica reads some.
KEYS = 40


class ReplicaTests(Watched, SynchronousTestCase):
    """
    A master and two replicas, and readers that use the proxy.
    """

    skip = missing("redis-server")

    def setUp(self) -> None:
        """
        Start the servers, the proxy and the readers.
        """
        line = self.watch(2)
        # On a slow machine nothing may fail but what fails at once.
        timeouts = ("--connect-timeout", "10", "--wait-timeout", "8", "--request-timeout", "8")
        console = str(self.master.directory / "admin.sock")
        self.proxy = self.start(
            Proxy(
                *("--protocol", "redis", "--read-from", "prefer-replica", "--admin", f"unix:{console}", *timeouts),
                upstream=[line],
            )
        )
        self.roles = lambda: sorted((row["server"], row["label"]) for row in rows(console, "servers"))
        with Client(self.proxy.address) as client:
            until(lambda: self.writes(client), what="a master")
            for number in range(KEYS):
                client.ask("SET", f"k{number}", f"v{number}")
        for replica in self.replicas:
            with Client(replica.address) as direct:
                until(lambda: direct.ask("GET", f"k{KEYS - 1}"), what="the replication")
                direct.ask("CONFIG", "RESETSTAT")
        self.wrong: list[object] = []
        self.lost: list[ReplyError] = []
        self.read = [0] * READERS
        self.end = threading.Event()
        self.threads = [threading.Thread(target=self.work, args=(number,), daemon=True) for number in range(READERS)]
        self.addCleanup(self.finish)

    def work(self, reader: int) -> None:
        """
        Read until the end.
        """
        try:
            with Client(self.proxy.address, 30.0) as client:
                while not self.end.is_set():
                    number = self.read[reader] % KEYS
                    reply = client.result("GET", f"k{number}")
                    if isinstance(reply, ReplyError):
                        self.lost.append(reply)
                    elif reply != f"v{number}".encode():
                        self.wrong.append(reply)
                    self.read[reader] += 1
        except (OSError, EOFError) as error:
            self.wrong.append(error)

    def finish(self) -> None:
        """
        Let the readers end.
        """
        self.end.set()
        for thread in self.threads:
            if thread.ident is not None:
                thread.join(PATIENCE)

    def goOn(self, what: str) -> None:
        """
        Wait until each reader has read more.
        """
        before = list(self.read)
        until(
            lambda: self.wrong or all(now >= then + KEYS for now, then in zip(self.read, before, strict=True)),
            what=f"the reads {what}",
        )
        self.assertEqual(self.wrong, [], what)

    def writes(self, client: Client) -> bool:
        """
        @return: whether a client can write.
        """
        try:
            return bool(client.ask("SET", "name", "value") == b"OK")
        except ReplyError:
            return False

    def gets(self, server: Redis) -> bool:
        """
        @return: whether a server has got GETs.
        """
        with Client(server.address) as direct:
            return b"cmdstat_get:" in direct.ask("INFO", "commandstats")

    def forget(self) -> None:
        """
        Let the master forget what it has got.
        """
        with Client(self.master.address) as direct:
            direct.ask("CONFIG", "RESETSTAT")

    def test_reads(self) -> None:
        """
        Replicas read. When one is killed, and when the master is killed, no read fails, and none has a wrong value.
        When a replica becomes the master, reads go on.
        """
        names = {server: clientEndpoint(server.address) for server in (self.master, *self.replicas)}
        expected = [(names[self.master], "master"), *((names[each], "replica") for each in self.replicas)]
        until(lambda: self.roles() == sorted(expected), what="the roles")
        self.forget()
        for thread in self.threads:
            thread.start()
        self.goOn("of both replicas")
        self.assertTrue(all(map(self.gets, self.replicas)))
        self.assertFalse(self.gets(self.master))
        killed, left = self.replicas
        self.failAfter(500)
        killed.kill()
        self.goOn("without a replica")
        until(lambda: (names[killed], "replica") not in self.roles(), what="the end of a replica")
        self.failAfter(Sentinel.downAfter)
        self.goOn("of what the replica had not answered")  # the master has got it
        self.forget()
        self.goOn("from the other replica")
        self.assertFalse(self.gets(self.master))
        self.assertEqual(self.lost, [])
        self.failAfter(500)
        self.master.kill()
        self.goOn("without a master")
        with Client(self.proxy.address, 30.0) as client:
            until(lambda: self.writes(client), what="another master")
        until(lambda: self.roles() == [(names[left], "master")], what="its role")
        # Redis closes all connections of a replica that becomes the master, so that a read may be lost twice.
        self.goOn("of what was lost")
        lost, self.lost = self.lost, []
        self.assertEqual([each for each in lost if not str(each).startswith("ERR upstream ")], [])
        self.goOn("from another master")
        self.assertEqual(self.lost, [])
        self.finish()
        self.assertEqual(([thread for thread in self.threads if thread.is_alive()], self.wrong), ([], []))
