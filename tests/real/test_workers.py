# Copyright txconnpool contributors. See LICENSE.
"""
Tests for a proxy of several processes.
"""

from __future__ import annotations

import functools
import os
import re
import signal
import socket
import threading
import time
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.real.load import Load
from tests.real.operated import OperatedTestCase, gone
from tests.real.servers import HOST, Memcached, Proxy, ask, connect, everything, freeze, missing, until


class Watch(threading.Thread):
    """
    Reads memcached's number of connections repeatedly, over one connection of its own.

    @ivar most: the maximum number of other connections.
    """

    def __init__(self, memcached: Memcached) -> None:
        super().__init__(daemon=True)
        self.most = 0
        self._ended = threading.Event()
        self._line = connect(memcached.address)

    def run(self) -> None:
        """
        Read the number until L{end} is called.
        """
        while not self._ended.wait(0.01):
            self._line.sendall(b"stats\r\n")
            answer = b""
            while not answer.endswith(b"END\r\n"):
                answer += self._line.recv(1 << 16)
            (count,) = [line for line in answer.split(b"\r\n") if line.startswith(b"STAT curr_connections ")]
            # With no other connection than this one, memcached reports 2.
            self.most = max(self.most, int(count.split()[2]) - 2)

    def end(self) -> int:
        """
        @return: L{most}.
        """
        self._ended.set()
        self.join()
        self._line.close()
        return self.most


class WorkersTests(OperatedTestCase):
    """
    Tests for two workers in front of a memcached with two addresses.
    """

    options = ("--workers", "2", "--pool-size", "5", "--max-clients", "100")

    def setUp(self) -> None:
        """
        Start memcached and the proxy.
        """
        super().setUp()
        self._connected: list[socket.socket] = []

    def clients(self, count: int) -> list[bytes]:
        """
        Connect clients, and send a request from each.

        @return: their replies.
        """
        replies = []
        for _ in range(count):
            client = connect(self.proxy.address)
            self._connected.append(client)
            self.addCleanup(client.close)
            client.sendall(b"get a\r\n")
            replies.append(client.recv(100))
        return replies

    def killWorker(self, number: int) -> None:
        """
        Kill a worker, and wait until the parent knows that and another one serves.
        """
        victim = self.proxy.children[number - 1]
        os.kill(victim, signal.SIGKILL)
        until(lambda: self.reaped(victim), what="the end of the worker")
        self.complete()

    def complete(self) -> None:
        """
        Wait until both workers serve.
        """

        def shares() -> list[str]:
            return [row["pool-size"] for row in self.proxy.rows("pools")]

        until(lambda: shares() == ["5"], what="two workers")

    def perWorker(self) -> dict[str, int]:
        """
        @return: the number of sessions of each worker.
        """
        numbers = [row["session"].split(".")[0] for row in self.proxy.rows("sessions 1000")]
        return {number: numbers.count(number) for number in sorted(set(numbers))}

    def test_equal(self) -> None:
        """
        All workers have equally many clients, whether these connect one by one or all at once. If a worker has lost its
        clients, it gets the next ones.
        """
        load = self.load(clients=60)
        until(lambda: sum(self.perWorker().values()) == 60, what="all clients")
        self.assertEqual(self.perWorker(), {"1": 30, "2": 30})
        report = load.finish()
        self.assertEqual((report["wrong"], report["stuck"]), ([], 0))
        until(lambda: self._spread(21) == [10, 11], what="equally many clients for each worker")
        self.killWorker(1)
        (left,) = self.perWorker().values()
        self.clients(left)
        self.assertEqual(list(self.perWorker().values()), [left, left])

    def _spread(self, count: int) -> list[int]:
        """
        Connect clients. This is repeated with others, since a worker tells the parent only a moment later that clients
        have left.

        @return: the numbers of the workers' clients.
        """
        for client in self._connected:
            client.close()
        until(lambda: "OK 0 sessions" in self.proxy.execute("show sessions"), what="the end of all clients")
        self.clients(count)
        return sorted(self.perWorker().values())

    def test_bound(self) -> None:
        """
        The bound on connections holds for all workers together, and all of it is used.
        """
        watch = Watch(self.memcached)
        watch.start()
        self.assertUnharmed(self._busy(watch))
        self.assertEqual(watch.end(), 5)

    def _busy(self, watch: Watch) -> Load:
        load = self.load(clients=80, depth=16, pause=0.0)
        load.untilServed(5000)
        until(lambda: watch.most == 5, what="the use of all connections")
        load.untilServed(5000)
        return load

    def test_maxClients(self) -> None:
        """
        C{max-clients} holds for all workers together: one more client gets the error, and a client that disconnects
        makes room.
        """
        replies = self.clients(101)
        self.assertEqual(replies[:100], [b"END\r\n"] * 100)
        self.assertEqual(replies[100], b"ERROR Too many open connections\r\n")
        (session, *_) = self.proxy.rows("sessions")
        self.proxy.execute(f"kill {session['session']}")
        until(lambda: self.clients(1) == [b"END\r\n"], what="room")

    def stats(self) -> dict[str, str]:
        """
        @return: the statistics that C{stats proxy} returns to a client.
        """
        lines = ask(self.proxy.address, b"stats proxy\r\n", b"END\r\n").decode().splitlines()
        return dict(line.split(" ", 2)[1:] for line in lines if line.startswith("STAT "))

    def test_statistics(self) -> None:
        """
        C{stats proxy} returns the sums of all workers, from any worker. Counters of a worker that was killed are kept.
        """
        self.clients(11)
        for _ in range(2):
            # The numbers of a worker that does not answer within a second are older ones.
            until(lambda: self.numbers() == ("12", "11", "5"), what="the sums")
        self.killWorker(1)
        self.assertEqual(self.stats()["cmd_get"], "11")

    def numbers(self) -> tuple[str, str, str]:
        """
        @return: the numbers of clients and of gets, and the bound on connections.
        """
        found = self.stats()
        return found["curr_connections"], found["cmd_get"], found["connections_max"]

    def test_killed(self) -> None:
        """
        When a worker is killed only its own clients lose their connections. Another worker replaces it, and gets them
        when they connect again. No reply is wrong, and no client is refused.
        """
        load = self.load(clients=40)
        load.untilServed(200)
        first, _ = self.proxy.children
        self.killWorker(2)
        until(lambda: sum(self.perWorker().values()) == 40, what="all clients")
        load.untilServed(1000)
        report = load.finish()
        self.assertEqual((report["wrong"], report["stuck"], report["refused"], report["errors"]), ([], 0, 0, {}))
        self.assertEqual(report["closed"], 20)
        self.assertNotIn(0.0, report["resumed"])
        self.assertIn(first, self.proxy.children)
        self.assertRegex(self.proxy.log, r"worker 2 ended: signal 9 \(SIGKILL\); another starts in 0\.\d s")

    def reaped(self, pid: int) -> bool:
        """
        @return: whether a worker has ended and the parent has reaped it.
        """
        return pid not in self.proxy.children

    def test_frozen(self) -> None:
        """
        A worker that hangs gets no clients, and is replaced. Those that were sent to it and that it has not received
        are served by another one.
        """
        stopped = self.proxy.children[1]
        freeze(stopped)
        clients = [connect(self.proxy.address) for _ in range(6)]
        for client in clients:
            self.addCleanup(client.close)
            client.sendall(b"get a\r\n")
        until(lambda: "worker 2 does not answer: it gets no clients" in self.proxy.log, what="a line of the log")
        for _ in range(4):
            self.assertEqual(ask(self.proxy.address, b"get a\r\n"), b"END\r\n")
        self.assertEqual([client.recv(100) for client in clients], [b"END\r\n"] * 6)
        self.assertIn("worker 2 does not answer: killing it", self.proxy.log)
        until(lambda: len(self.proxy.children) == 2 and stopped not in self.proxy.children, what="another worker")

    def test_handOver(self) -> None:
        """
        Clients that connect in the moment in which a worker dies are served by another one.
        """
        for _ in range(2):
            until(lambda: len(self.proxy.children) == 2, what="two workers")
            self.complete()
            victim = self.proxy.children[1]
            freeze(victim)  # it receives nothing any more
            clients = [connect(self.proxy.address) for _ in range(10)]
            time.sleep(0.05)
            os.kill(victim, signal.SIGKILL)
            for client in clients:
                client.sendall(b"get a\r\n")
            self.assertEqual([client.recv(100) for client in clients], [b"END\r\n"] * 10)
            for client in clients:
                client.close()

    def test_backOff(self) -> None:
        """
        A worker that dies repeatedly is replaced after growing delays. Meanwhile the other workers serve.
        """
        deaths = []
        for _ in range(3):
            until(lambda: len(self.proxy.children) == 2, what="another worker")
            last = self.proxy.children[-1]
            deaths.append(time.monotonic())
            os.kill(last, signal.SIGKILL)
            until(functools.partial(self.reaped, last))
            self.assertEqual(ask(self.proxy.address, b"get a\r\n"), b"END\r\n")
        until(lambda: len(self.proxy.children) == 2, what="another worker")
        self.assertGreater(time.monotonic() - deaths[-1], 0.5)
        delays = [float(delay) for delay in re.findall(r"another starts in (\d+\.\d) s", self.proxy.log)]
        self.assertEqual(delays, sorted(set(delays)))

    def test_term(self) -> None:
        """
        A worker that gets SIGTERM answers the requests that it has read before it ends, and another one replaces it.
        """
        client = self.paused()
        number = self.proxy.rows("sessions")[0]["session"].split(".")[0]
        os.kill(self.proxy.children[int(number) - 1], signal.SIGTERM)
        time.sleep(0.5)
        self.proxy.execute("resume")
        self.assertEqual((client.recv(100), client.recv(100)), (b"END\r\n", b""))
        until(lambda: f"worker {number} ended" in self.proxy.log)
        until(lambda: len(self.proxy.children) == 2, what="another worker")
        self.assertNotIn("Traceback", self.proxy.log)

    def test_stop(self) -> None:
        """
        At a stop all workers answer the requests that they have read, and then all processes end.
        """
        children = self.proxy.children
        clients = [connect(self.proxy.address) for _ in range(4)]
        self.proxy.execute("pause")
        for client in clients:
            self.addCleanup(client.close)
            client.sendall(b"get a\r\nget b\r\n")
        until(lambda: self.proxy.rows("pools")[0]["waiting"] == "4")
        self.proxy.signal(signal.SIGTERM)
        self.proxy.signal(signal.SIGHUP)
        self.proxy.execute("resume")
        for client in clients:
            self.assertEqual(everything(client), b"END\r\nEND\r\n")
        self.proxy.wait()
        self.assertEqual([gone(pid) for pid in children], [True, True])
        self.assertNotIn("Traceback", self.proxy.log)

    def test_group(self) -> None:
        """
        The same if all processes get the signal, as from systemd and from a terminal.
        """
        children = self.proxy.children
        client = self.paused()
        for number in (signal.SIGINT, signal.SIGTERM):
            for pid in children:
                os.kill(pid, number)
        self.proxy.signal(signal.SIGTERM)
        time.sleep(0.5)
        self.assertTrue(self.proxy.running())
        self.proxy.execute("resume")
        self.assertEqual((client.recv(100), client.recv(100)), (b"END\r\n", b""))
        self.proxy.wait()
        self.assertNotIn("Traceback", self.proxy.log)

    def test_orphans(self) -> None:
        """
        If the parent is killed its workers end by themselves.
        """
        children = self.proxy.children
        # Not Server.kill, which would kill its children too.
        os.kill(self.proxy.pid, signal.SIGKILL)
        until(lambda: all(gone(pid) for pid in children), what="the end of the workers")


class StartTests(SynchronousTestCase):
    """
    Tests for workers that cannot start.
    """

    skip = missing("memcached") or (None if os.geteuid() == 0 else "this needs root")

    def test_none(self) -> None:
        """
        If no worker can start, the process ends with the reason and with exit code 1. Here the workers may not use a
        file that their parent has used before it gave up the rights of root.
        """
        users = Path(self.mktemp()).absolute()
        users.write_text("joe:secret\n", "ascii")
        users.chmod(0o600)
        proxy = Proxy(
            "--workers", "2", "--listen-auth", f"file:{users}", upstream=[(HOST, 9)], general=["--uid", "nobody"]
        )
        self.addCleanup(proxy.stop)
        proxy.start()  # its parent listens
        self.assertEqual(proxy.wait(), 1)
        self.assertRegex(proxy.log, "no worker can start: .*Permission denied")
        self.assertNotIn("Traceback", proxy.log)


class UNIXTests(SynchronousTestCase):
    """
    Tests for workers with a UNIX socket.
    """

    skip = missing("memcached")

    def test_serves(self) -> None:
        """
        Clients of a UNIX socket are served, and the socket's file is removed at the end.
        """
        with Memcached() as memcached:
            proxy = Proxy("--workers", "2", upstream=[memcached.address], address="socket").start()
            self.addCleanup(proxy.stop)
            for _ in range(4):
                self.assertEqual(ask(proxy.address, b"get a\r\n"), b"END\r\n")
            proxy.signal(signal.SIGTERM)
            proxy.wait()
            self.assertFalse(Path(str(proxy.address)).exists())
