# Copyright txconnpool contributors. See LICENSE.
"""
Tests for the proxy with Redis servers that do not execute requests for a time.
"""

from __future__ import annotations

import threading

from twisted.trial.unittest import SynchronousTestCase

from tests.real.resp import Client, ReplyError
from tests.real.servers import PATIENCE, Proxy, Redis, clientEndpoint, freePort, missing, until
from tests.real.test_redis_faults import Worker
from tests.real.watched import Watched


class DeclinedTests(SynchronousTestCase):
    """
    Two equal servers, one of which becomes a replica.
    """

    skip = missing("redis-server")

    def setUp(self) -> None:
        """
        Start the servers and the proxy.
        """
        self.servers = [Redis("--replica-serve-stale-data", "no").start() for _ in range(2)]
        for server in self.servers:
            self.addCleanup(server.stop)
            with Client(server.address) as direct:
                direct.ask("SET", "name", "value")
        addresses = [server.address for server in self.servers]
        self.proxy = Proxy("--protocol", "redis", "--distribution", "round-robin", upstream=addresses).start()
        self.addCleanup(self.proxy.stop)
        self.asked = 0
        self.wrong: list[object] = []
        self.end = threading.Event()
        self.threads = [threading.Thread(target=self.work, daemon=True) for _ in range(4)]
        self.addCleanup(self.stopWork)

    def work(self) -> None:
        """
        Read until the end.
        """
        try:
            with Client(self.proxy.address) as client:
                while not self.end.is_set():
                    if (reply := client.ask("GET", "name")) != b"value":
                        self.wrong.append(reply)
                    self.asked += 1
        except (ReplyError, OSError, EOFError) as error:
            self.wrong.append(error)

    def stopWork(self) -> None:
        """
        Let the clients end.
        """
        self.end.set()
        for thread in self.threads:
            if thread.ident is not None:
                thread.join(PATIENCE)
                self.assertFalse(thread.is_alive(), "a client is stuck")

    def goOn(self) -> None:
        """
        Wait until the clients have got more replies.
        """
        least = self.asked + 200
        until(lambda: self.asked >= least or self.wrong)

    def test_masterDown(self) -> None:
        """
        While one of the servers executes nothing, because it has no connection to its master, clients get replies of
        the other one, and no error. When it can, it is used again.
        """
        for thread in self.threads:
            thread.start()
        port = freePort()
        with Client(self.servers[1].address) as direct:
            for _ in range(2):
                self.goOn()
                direct.ask("REPLICAOF", "127.0.0.1", port)
                self.assertRaisesRegex(ReplyError, "MASTERDOWN", direct.ask, "GET", "name")
                self.goOn()
                direct.ask("REPLICAOF", "NO", "ONE")
                direct.ask("CONFIG", "RESETSTAT")
                until(lambda: b"cmdstat_get:" in direct.ask("INFO", "commandstats") or self.wrong)
        self.stopWork()
        self.assertEqual(self.wrong, [])

    def test_readOnly(self) -> None:
        """
        A client that writes to a replica gets the error of the server, and can write when it is none any more.
        """
        with Client(self.proxy.address) as client:
            for server in self.servers:
                with Client(server.address) as direct:
                    direct.ask("CONFIG", "SET", "replica-serve-stale-data", "yes")
                    direct.ask("REPLICAOF", "127.0.0.1", freePort())
            for _ in range(4):
                self.assertRaisesRegex(ReplyError, "^READONLY ", client.ask, "SET", "name", "other")
                self.assertEqual(client.ask("GET", "name"), b"value")
            for server in self.servers:
                with Client(server.address) as direct:
                    direct.ask("REPLICAOF", "NO", "ONE")
            for _ in range(4):
                self.assertEqual(client.ask("SET", "name", "value"), b"OK")


class FailoverWorker(Worker):
    """
    A client whose keys are new ones, because a failover loses the last writes.
    """

    def _value(self, client: Client) -> None:
        token = self._token()
        self._check(client.ask("SET", token, token), b"OK")
        self._check(client.ask("GET", token), token.encode(), None)


class SentinelTests(Watched, SynchronousTestCase):
    """
    A master and its replica, which sentinels make the master when that one has failed.
    """

    skip = missing("redis-server")

    def setUp(self) -> None:
        """
        Start the servers, a sentinel and the proxy, which knows another sentinel too that does not exist.
        """
        line = self.watch()
        # On a slow machine nothing may fail but what fails at once.
        timeouts = ("--connect-timeout", "10", "--wait-timeout", "8", "--request-timeout", "8")
        self.proxy = self.start(Proxy("--protocol", "redis", "--max-pinned", "6", *timeouts, upstream=[line]))

    def test_failover(self) -> None:
        """
        When the master is killed, the proxy finds the new one. Until then requests fail. No client gets a wrong reply,
        or another client's, and none waits for ever. Soon after there is a master, no request fails any more.
        """
        end = threading.Event()
        workers = [FailoverWorker(number, self.proxy.address, end) for number in range(6)]
        for worker in workers:
            worker.start()

        def goOn(least: int) -> None:
            """
            Wait until each client has got more replies.
            """
            before = [worker.answered for worker in workers]
            until(lambda: all(worker.answered >= count + least for worker, count in zip(workers, before, strict=True)))

        goOn(20)
        self.assertEqual([worker.errors for worker in workers], [[]] * len(workers))
        self.failAfter(500)
        self.master.kill()
        with Client(self.proxy.address, 30.0) as client:
            until(lambda: self.writes(client))

        def isCalm() -> bool:
            """
            Find out whether no client gets an error any more. Replies to what began before may come late.
            """
            before = [len(worker.errors) for worker in workers]
            goOn(20)
            return [len(worker.errors) for worker in workers] == before

        until(isCalm, what="replies without errors")
        end.set()
        for worker in workers:
            worker.join(PATIENCE)
        self.assertEqual([worker for worker in workers if worker.is_alive()], [])
        self.assertEqual([wrong for worker in workers for wrong in worker.wrong], [])
        self.assertIn(clientEndpoint(self.replica.address), self.proxy.log)

    def writes(self, client: Client) -> bool:
        """
        @return: whether a client can write.
        """
        try:
            return bool(client.ask("SET", "name", "value") == b"OK")
        except ReplyError:
            return False
