# Copyright txconnpool contributors. See LICENSE.
"""
Tests for the proxy with a Redis server that fails while clients work.
"""

from __future__ import annotations

import random
import socket
import threading
import time
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.real.resp import Client, ReplyError
from tests.real.servers import PATIENCE, Proxy, Redis, missing, until

CLIENTS = 12


class Worker(threading.Thread):
    """
    A client that writes and reads unique values, in transactions too, and notes each wrong reply.

    @ivar wrong: what was wrong.
    @ivar answered: the number of correct replies.
    @ivar errors: the errors.
    """

    def __init__(self, number: int, address: Any, end: threading.Event) -> None:
        super().__init__(daemon=True)
        self._number = number
        self._address = address
        self._end = end
        self._chance = random.Random(number)
        self._count = 0
        self.wrong: list[str] = []
        self.errors: list[str] = []
        self.answered = 0

    def run(self) -> None:
        """
        Work until the end. A connection that was closed is made again.
        """
        while not self._end.is_set():
            try:
                with Client(self._address, PATIENCE) as client:
                    if self._number % 2:
                        client.ask("HELLO", 3)
                    while not self._end.is_set():
                        self._step(client)
                        if self._chance.random() < 0.02:
                            break
            except (EOFError, ConnectionError, ReplyError) as error:
                self.errors.append(repr(error))
            except TimeoutError:
                self.wrong.append("stuck")

    def _token(self) -> str:
        self._count += 1
        return f"{self._number}-{self._count}"

    def _step(self, client: Client) -> None:
        step = self._chance.choice((self._echo, self._value, self._transaction, self._blocked, self._subscribe))
        try:
            step(client)
        except ReplyError as error:
            self.errors.append(repr(error))
            if client.result("RESET") != b"RESET":
                raise
            if self._number % 2:
                client.ask("HELLO", 3)

    def _check(self, reply: Any, *expected: Any) -> None:
        if reply in expected:
            self.answered += 1
        else:
            self.wrong.append(f"{reply!r} and not {expected!r}")

    def _echo(self, client: Client) -> None:
        token = self._token()
        self._check(client.ask("EVAL", "return ARGV[1]", 0, token), token.encode())

    def _value(self, client: Client) -> None:
        key, token = f"k{self._number}", self._token()
        self._check(client.ask("SET", key, token), b"OK")
        self._check(client.ask("GET", key), token.encode(), None)  # a server that was restarted is empty

    def _transaction(self, client: Client) -> None:
        token = self._token()
        for words in (("MULTI",), ("SET", token, token), ("GET", token)):
            self._check(client.ask(*words), b"OK", b"QUEUED")
        self._check(client.ask("EXEC"), [b"OK", token.encode()])

    def _blocked(self, client: Client) -> None:
        token = self._token()
        self._check(client.ask("RPUSH", token, token), 1)
        self._check(client.ask("BLPOP", token, 0.05), [token.encode()] * 2, None)

    def _subscribe(self, client: Client) -> None:
        token = self._token()
        self._check(client.ask("SUBSCRIBE", token), [b"subscribe", token.encode(), 1])
        self._check(client.ask("UNSUBSCRIBE", token), [b"unsubscribe", token.encode(), 0])


class FaultTests(SynchronousTestCase):
    """
    A server is killed and frozen while clients work.
    """

    skip = missing("redis-server")

    def test_load(self) -> None:
        """
        No client gets a wrong reply, or another client's, and none waits for ever. After each fault the work goes on.
        """
        server = Redis().start()
        self.addCleanup(server.stop)
        options = ("--pool-size", "3", "--max-pinned", "6", "--request-timeout", "0.5", "--connect-timeout", "0.5")
        proxy = Proxy("--protocol", "redis", *options, upstream=[server.address]).start()
        self.addCleanup(proxy.stop)
        end = threading.Event()
        workers = [Worker(number, proxy.address, end) for number in range(CLIENTS)]
        for worker in workers:
            worker.start()
        for fault in (server.kill, server.freeze, server.kill, server.freeze):
            self._untilAnswered(workers)
            fault()
            time.sleep(0.8)
            if fault == server.kill:
                server.start()
            else:
                server.thaw()
        self._untilAnswered(workers)
        end.set()
        for worker in workers:
            worker.join(PATIENCE)
        self.assertEqual([worker for worker in workers if worker.is_alive()], [])
        self.assertEqual([wrong for worker in workers for wrong in worker.wrong], [])

    def _untilAnswered(self, workers: list[Worker]) -> None:
        """
        Wait until each client has had more replies.
        """
        enough = [worker.answered + 20 for worker in workers]
        until(
            lambda: all(worker.answered >= count for worker, count in zip(workers, enough, strict=True)),
            what="replies to each client",
        )

    def test_closedBefore(self) -> None:
        """
        A client that has sent a blocking request and closed its side is not blocked, also if it had to wait for a
        connection.
        """
        server = Redis().start()
        self.addCleanup(server.stop)
        proxy = Proxy("--protocol", "redis", "--max-pinned", "1", upstream=[server.address]).start()
        self.addCleanup(proxy.stop)
        with Client(server.address) as direct:
            for _ in range(20):
                clients = [Client(proxy.address) for _ in range(3)]
                for client in clients:
                    client.send("BLPOP", "list", 0)
                    client.socket.shutdown(socket.SHUT_WR)
                for client in clients:
                    self.assertRaises((EOFError, ConnectionError), client.read)
                    client.close()
                until(lambda: b"blocked_clients:0\r" in direct.ask("INFO", "clients"))

    def test_elements(self) -> None:
        """
        While clients block on a list and leave, none of its elements is lost.
        """
        server = Redis().start()
        self.addCleanup(server.stop)
        proxy = Proxy("--protocol", "redis", "--max-pinned", "40", upstream=[server.address]).start()
        self.addCleanup(proxy.stop)
        received = []
        with Client(proxy.address) as producer, Client(server.address) as direct:

            def blocked(count: int) -> None:
                """
                Wait until so many clients are blocked.
                """
                line = b"blocked_clients:%d\r" % count
                until(lambda: line in direct.ask("INFO", "clients"))

            for number in range(50):
                leaving = [Client(proxy.address) for _ in range(6)]
                for client in leaving:
                    client.send("BLPOP", "list", 0)
                blocked(6)
                for client in leaving:
                    if number % 2:
                        client.socket.shutdown(socket.SHUT_WR)
                    else:
                        client.close()
                blocked(0)
                for client in leaving:
                    client.close()
                producer.ask("RPUSH", "list", number)
                received.append(producer.ask("BLPOP", "list", 1))
        self.assertEqual(received, [[b"list", b"%d" % number] for number in range(50)])
