# -*- test-case-name: tests.real.test_attack -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Clients that overload the proxy, deliberately or not: other clients must not be affected, and memory must stay below the
limit that the operator's manual publishes.
"""

from __future__ import annotations

import os
import resource
import select
import socket
import struct
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

from twisted.trial.unittest import SynchronousTestCase

from tests.real.load import Load, Report
from tests.real.processes import cpu, memory, peak
from tests.real.servers import PATIENCE, Memcached, Proxy, ServerFailed, ask, connect, missing, until
from tests.real.tokens import META_KINDS
from txconnpool.proxy.sessions import SPARE

MEGABYTE = 1 << 20

#: The size of a value that memcached accepts by default.
LARGE = 1000 * 1000

#: The memory of one client that C{max-unread-bytes} does not count: replies in the transport's buffer (64 kB), bytes of
#: one read (124 kB), and the session (3 kB), including the overhead of the allocator.
CLIENT = MEGABYTE // 4

#: The memory for each byte that C{max-unread-bytes} counts.
OVERHEAD = 1.1

#: The most bytes by which the peak of the memory may grow while something of 50 MB is not buffered.
MUCH = 16 * MEGABYTE

#: The memory that may remain allocated after the clients have disconnected, in bytes.
REST = 40 * MEGABYTE


class AttackTestCase(SynchronousTestCase):
    """
    Base class of tests with a proxy in front of a memcached.
    """

    options: ClassVar[tuple[str, ...]] = ()
    skip = missing("memcached") or (None if sys.platform == "linux" else "there is no /proc to look at")

    def setUp(self) -> None:
        """
        Start memcached and the proxy.
        """
        self.memcached = Memcached("-m", "256").start()
        self.addCleanup(self.memcached.stop)
        self.proxy = Proxy(*self.options, upstream=[self.memcached.address]).start()
        self.addCleanup(self.proxy.stop)
        self.assertEqual(ask(self.proxy.address, put(b"large", LARGE)), b"STORED\r\n")

    def connect(self, count: int = 1) -> list[socket.socket]:
        """
        Connect non-blocking clients with small receive buffers in the kernel.
        """
        clients = []
        for _ in range(count):
            client = connect(self.proxy.address)
            self.addCleanup(client.close)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 12)
            client.setblocking(False)
            clients.append(client)
        return clients

    def send(
        self, clients: list[socket.socket], data: bytes, seconds: float, enough: Callable[[], bool] = lambda: True
    ) -> None:
        """
        Send C{data} from each client, as far as the proxy accepts it, for C{seconds} at least and until C{enough()} is
        true, but not for ever.
        """
        left = {client: memoryview(data) for client in clients}
        began = time.monotonic()
        while True:
            for client, rest in list(left.items()):
                try:
                    left[client] = rest[client.send(rest[: 1 << 16]) :]
                except BlockingIOError:
                    pass
                except OSError:
                    del left[client]  # the proxy has closed it
            passed = time.monotonic() - began
            if (enough() and passed > seconds) or passed > seconds + PATIENCE:
                return
            time.sleep(0.01)

    def statistic(self, name: str) -> int:
        """
        @return: one of the proxy's statistics.
        """
        lines = ask(self.proxy.address, b"stats proxy\r\n", b"END\r\n").decode("ascii").splitlines()
        return int(next(line.split()[2] for line in lines if line.split()[1:2] == [name]))


def put(key: bytes, size: int) -> bytes:
    """
    @return: a C{set} request with a value of C{size} bytes.
    """
    return b"set %s 0 0 %d\r\n%s\r\n" % (key, size, b"x" * size)


class MemoryTests(AttackTestCase):
    """
    Tests that memory stays below the published limit, and that it is freed.
    """

    bound = 256 * MEGABYTE
    clients = 200

    def attack(self, requests: bytes, seconds: float = 2.0) -> None:
        """
        Send C{requests} from all clients, which read nothing, and check the memory of the proxy.
        """
        base = memory(self.proxy.pid)
        most = base + self.bound * OVERHEAD + self.clients * CLIENT
        much = base + min(self.bound, 100 * MEGABYTE) / 2
        peak = 0

        def look() -> bool:
            nonlocal peak
            peak = max(peak, memory(self.proxy.pid))
            return peak > much

        clients = self.connect(self.clients)
        self.send(clients, requests, seconds, look)
        self.assertTrue(much < peak < most, f"{peak} from {base}")
        self.assertEqual(ask(self.proxy.address, b"mn\r\n"), b"MN\r\n")
        self.assertLessEqual(self.statistic("held_bytes"), self.bound)
        for client in clients:
            client.close()
        try:
            until(lambda: memory(self.proxy.pid) < base + REST)
        except ServerFailed:
            self.fail(f"{memory(self.proxy.pid)} are left, from {base} by way of {peak}")

    def test_unread(self) -> None:
        """
        Clients pipeline requests for large values, and do not read the replies.
        """
        self.attack(b"get large\r\n" * 18000)

    def test_halfSent(self) -> None:
        """
        Clients send the most part of a large value, and stop.
        """
        self.attack(put(b"other", LARGE)[:-100000])


class SmallMemoryTests(MemoryTests):
    """
    The same tests with a smaller C{max-unread-bytes}.
    """

    options = ("--max-unread-bytes=64m",)
    bound = 64 * MEGABYTE


class LineTests(AttackTestCase):
    """
    Tests for requests that are too long.
    """

    def test_longLine(self) -> None:
        """
        A client that sends a line of 50 MB is closed immediately, and the proxy buffers nothing of it.
        """
        base = peak(self.proxy.pid)
        for start in (b"x", b"set ", b"mg ", b"gat 0 "):
            (client,) = self.connect()
            client.setblocking(True)
            with self.assertRaises((BrokenPipeError, ConnectionResetError)):
                client.sendall(start + b"x" * (50 * MEGABYTE))
        self.assertLess(peak(self.proxy.pid), base + MUCH)

    def test_longRetrieval(self) -> None:
        """
        A line of a C{get} may be long, but its length is bounded.
        """
        base = peak(self.proxy.pid)
        (client,) = self.connect()
        client.setblocking(True)
        with self.assertRaises((BrokenPipeError, ConnectionResetError)):
            client.sendall(b"get " + b"key " * (50 * MEGABYTE // 4))
        self.assertLess(peak(self.proxy.pid), base + MUCH)

    def test_hugeValue(self) -> None:
        """
        A value of 50 MB, which is too large, is discarded while it is received, and the proxy buffers nothing of it.
        """
        base = peak(self.proxy.pid)
        request = put(b"huge", 50 * MEGABYTE)
        self.assertEqual(ask(self.proxy.address, request), b"SERVER_ERROR object too large for cache\r\n")
        self.assertLess(peak(self.proxy.pid), base + MUCH)


class HarmTests(AttackTestCase):
    """
    Tests that other clients are not affected while some overload the proxy.
    """

    def harm(
        self, do: Iterator[None], enough: Callable[[], bool] = lambda: True, busy: float = 1.0, pace: int = 0
    ) -> Report:
        """
        Run C{do}, one step after another, for some time and until C{enough()} is true, under a load of other clients,
        and check that these are not affected.

        @param busy: the limit for the processor time of the proxy between a request of the load and its reply.
        @param pace: the requests of the load that are answered after each step: a step that costs the proxy much
            processor time must not come faster the slower the machine is.
        """
        load = Load(
            self.proxy.address, clients=50, seconds=600.0, kinds=META_KINDS, pause=0.01, sizes=(10, 100, 5000),
            watched=self.proxy.pid,
        ).start()  # fmt: skip
        self.addCleanup(load.kill)
        began = time.monotonic()
        for _ in do:
            if pace:
                load.untilServed(pace)
            passed = time.monotonic() - began
            if (passed > 1.5 and load.count("ok") > 1000 and enough()) or passed > 4 * PATIENCE:
                break
        report = load.finish()
        self.assertEqual((report["wrong"], report["stuck"], report["errors"]), ([], 0, {}))
        self.assertEqual((report["lost"], report["closed"], report["refused"]), (0, 0, 0))
        self.assertGreater(report["ok"], 1000)
        self.assertLess(report["busiest"], busy)
        return report

    def vanish(self, requests: bytes, step: int) -> Iterator[None]:
        """
        Reset connections of clients at every position of their requests.
        """
        while True:
            for place in range(1, len(requests), step):
                (client,) = self.connect()
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                client.send(requests[:place])
                if place % 2:
                    select.select([client], [], [], 0.005)
                client.close()
                yield

    def test_vanish(self) -> None:
        """
        Clients disappear in the middle of requests and of replies.
        """
        requests = put(b"k", 50) + b"get k large\r\nmg large v\r\nincr k 1\r\nset k 0 0 5 noreply\r\nhello\r\nget k\r\n"
        self.harm(self.vanish(requests, 3))
        until(lambda: self.statistic("held_bytes") == 0, what="an end of it")

    def churn(self) -> Iterator[None]:
        """
        Open and close connections as fast as possible.
        """
        while True:
            for client in [connect(self.proxy.address) for _ in range(20)]:
                client.close()
            yield

    def test_churn(self) -> None:
        """
        Clients open and close connections at a high rate.
        """
        before = self.statistic("total_connections")
        self.harm(self.churn(), lambda: self.statistic("total_connections") - before > 1000)

    def drip(self) -> Iterator[None]:
        """
        Send requests byte by byte from some clients, and half a value from others.
        """
        clients = self.connect(100)
        request = put(b"slow", 100) + b"get slow nothing\r\nmg slow v\r\n"
        stalled = self.connect(100)
        for client in stalled:
            client.send(put(b"k", 100000)[:50000])
        while True:
            for place in range(len(request)):
                for client in clients:
                    client.send(request[place : place + 1])
                yield
            value = b"x" * 100
            expected = b"STORED\r\nVALUE slow 0 100\r\n%b\r\nEND\r\nVA 100\r\n%b\r\n" % (value, value)
            for client in clients:
                client.setblocking(True)
                self.assertEqual(client.recv(len(expected), socket.MSG_WAITALL), expected)
                client.setblocking(False)

    def test_drip(self) -> None:
        """
        Clients send byte by byte, or stall in the middle of a value.
        """
        self.harm(self.drip())

    def flood(self) -> Iterator[None]:
        """
        Pipeline small requests with large replies, and do not read them.
        """
        clients = self.connect(20)
        for client in clients:
            self.send([client], b"get large\r\n" * 1000, 0.02)
            yield
        while True:
            self.send(clients, b"get a\r\nbogus\r\n" * 1000, 0.05)
            yield

    def test_flood(self) -> None:
        """
        Clients pipeline requests, and do not read the replies.
        """
        self.harm(self.flood())

    def greed(self) -> Iterator[None]:
        """
        Request gigabytes in one line, and read nothing. Some of these clients disconnect soon.
        """
        while True:
            (client,) = self.connect()
            self.send([client], b"get" + b" large" * 2000 + b"\r\n", 0.1)
            yield
            (client,) = self.connect()
            self.send([client], b"gat 0" + b" large" * 300 + b"\r\n", 0.1)
            client.close()
            yield

    def test_greed(self) -> None:
        """
        Clients request gigabytes in one line.
        """
        self.harm(self.greed(), busy=3.0, pace=100)


class DescriptorTests(AttackTestCase):
    """
    Tests for a process that has reached its limit for open files.
    """

    def test_exhausted(self) -> None:
        """
        Clients for which there is no file descriptor are closed, and this uses little processor time. Connected clients
        are served, over new connections to the server if necessary. When descriptors are free again, new clients are
        served.
        """
        load = Load(self.proxy.address, clients=20, seconds=600.0, pause=0.05, misses=True).start()
        self.addCleanup(load.kill)
        (old,) = self.connect()
        until(lambda: self.statistic("curr_connections") >= 21, what="all clients")
        used = len(os.listdir(f"/proc/{self.proxy.pid}/fd"))
        limits: Any = resource.prlimit(self.proxy.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(self.proxy.pid, resource.RLIMIT_NOFILE, (used + SPARE + 10, limits[1]))
        crowd = self.connect(100)
        until(lambda: len(select.select(crowd, [], [], 0)[0]) > 80, what="the end of those who are too many")
        self.memcached.restart()
        old.setblocking(True)
        until(lambda: old.send(b"mn\r\n") and old.recv(1 << 10) == b"MN\r\n", what="an answer to an old client")
        load.untilServed(100)  # errors of before may still be on their way
        errors = load.count("errors")
        load.untilServed(100)
        report = load.finish()
        self.assertEqual((report["wrong"], report["stuck"], report["refused"]), ([], 0, 0))
        self.assertEqual(sum(report["errors"].values()), errors)
        before, began = cpu(self.proxy.pid), time.monotonic()
        time.sleep(1.0)
        self.assertLess(cpu(self.proxy.pid) - before, 0.2 * (time.monotonic() - began))
        refused, _, _ = select.select(crowd, [], [], 0)
        self.assertLessEqual({client.recv(100) for client in refused}, {b"ERROR Too many open connections\r\n", b""})
        for client in crowd:
            client.close()
        until(self.answers, what="an answer to a new client")

    def answers(self) -> bool:
        """
        @return: whether a new client is served.
        """
        try:
            return ask(self.proxy.address, b"mn\r\n") == b"MN\r\n"
        except OSError:
            return False
