# -*- test-case-name: tests.real.test_shards -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Tests of the proxy in front of several servers, each of which has a part of the keys: servers die, freeze, come and go
under a load of clients that know every correct reply, and proxies in front of proxies.
"""

from __future__ import annotations

import re
import time
from collections.abc import Sequence

from twisted.trial.unittest import SynchronousTestCase

from tests.real.load import Load, Report, run
from tests.real.operated import Operated
from tests.real.servers import (
    PATIENCE,
    Address,
    Memcached,
    Nutcracker,
    Proxy,
    ask,
    connect,
    exchange,
    freePort,
    missing,
    until,
)

#: The number of clients of a load. They are few, so that on a machine that is busy with other things no request takes
#: nearly as long as a timeout.
CLIENTS = 16

#: The requests between two events: enough that replies to those of before have come, and that many are for each server.
SEVERAL = 500

#: Shares of requests with many gets of several keys.
KINDS = {"get": 40, "gets": 5, "many": 30, "set": 18, "quiet": 3, "delete": 4}


#: The timeouts while a server hangs, in seconds: it is away after that time.
HANGING = 2.0


def times(seconds: float) -> list[str]:
    """
    @return: the lines of the ini file for the timeouts of a pool. Nothing waits in vain for a connection: then the
        error would not have the name of the server.
    """
    return [f"wait-timeout = {PATIENCE:g}", *(f"{name}-timeout = {seconds:g}" for name in ("connect", "request"))]


def keysOf(count: int) -> list[bytes]:
    """
    @return: keys, which are on all servers if there are only a few.
    """
    return [b"key:%d" % number for number in range(count)]


class Sharded(Operated):
    """
    An operated proxy whose servers share the keys.
    """

    def write(self, *lines: str, listen: Sequence[str] = (), upstream: Sequence[str] = (), rest: str = "") -> None:
        """
        Write the ini file.
        """
        super().write(*lines, listen=listen, upstream=upstream, rest=rest)
        text = self.ini.read_text("utf-8").replace("distribution = round-robin", "distribution = ketama")
        self.ini.write_text(text, "utf-8")


class ShardsTestCase(SynchronousTestCase):
    """
    Base class of these tests.
    """

    skip = missing("memcached")

    def memcacheds(self, count: int) -> list[Memcached]:
        """
        Start memcacheds.
        """
        servers = [Memcached("-t", "1") for _ in range(count)]
        for server in servers:
            self.addCleanup(server.start().stop)
        return servers

    def proxy(self, upstream: Sequence[Address], *options: str) -> Proxy:
        """
        Start a proxy.
        """
        proxy = Proxy(*options, upstream=upstream).start()
        self.addCleanup(proxy.stop)
        return proxy

    def stored(self, address: Address, keys: Sequence[bytes]) -> None:
        """
        Store a value of each key, which is the key.
        """
        requests = b"".join(b"set %b 0 0 %d\r\n%b\r\n" % (key, len(key), key) for key in keys)
        with connect(address) as client:
            client.sendall(requests)
            reply = b""
            while reply.count(b"\n") < len(keys):
                reply += client.recv(1 << 16)
        self.assertEqual(reply, b"STORED\r\n" * len(keys))

    def values(self, keys: Sequence[bytes]) -> bytes:
        """
        @return: the reply to a get of stored keys.
        """
        return b"".join(b"VALUE %b 0 %d\r\n%b\r\n" % (key, len(key), key) for key in keys) + b"END\r\n"

    def statistic(self, address: Address, name: str) -> int:
        """
        @return: the value of a statistic of the proxy.
        """
        (value,) = re.findall(rb"STAT %b ([0-9]+)\r\n" % name.encode(), ask(address, b"stats proxy\r\n", b"END\r\n"))
        return int(value)

    def assertClean(self, report: Report) -> None:
        """
        Assert that a load has had no failure of any kind.
        """
        self.assertEqual((report["wrong"], report["errors"]), ([], {}))
        for what in ("wrongs", "stuck", "lost", "halved", "closed", "refused", "ignored"):
            self.assertEqual(report[what], 0, what)
        self.assertEqual(report["connected"], report["clients"])
        self.assertGreater(report["ok"], 1000)


class EveningTestCase(ShardsTestCase):
    """
    Base class of tests with a load of unique values, while servers come and go.
    """

    workers = 1
    rest = ""  # the other sections of the ini file
    #: What each worker logs about a server that is away, and that is back.
    away, back = "is down: ", "is up again"

    def begin(self, *lines: str, servers: int = 5) -> None:
        """
        Start the servers, the proxy with the first of them, and the load.
        """
        self.servers = self.memcacheds(6)
        self.lines = lines
        self.process = Sharded(*(["--workers", str(self.workers)] if self.workers > 1 else []), upstream=["memory:"])
        self.addCleanup(self.process.stop)
        self.use(*range(servers))
        self.process.start()
        self.load = Load(
            self.process.address, clients=CLIENTS, seconds=600.0, pause=0.02, sizes=(10, 100, 2000), keys=12,
            kinds=KINDS, depth=4, misses=True, stale=True,
        )  # fmt: skip
        self.addCleanup(self.load.kill)
        self.load.start()
        self.excuses: list[tuple[float, float]] = []
        self.failed: set[str] = set()

    def use(self, *numbers: int, timeout: float = PATIENCE) -> None:
        """
        Write the ini file with some of the servers.

        @param timeout: seconds until a server that does not answer is away.
        """
        self.numbers = numbers
        upstream = [self.servers[number].endpoint for number in numbers]
        self.process.write(*times(timeout), *self.lines, upstream=upstream, rest=self.rest)

    def change(self, *numbers: int) -> None:
        """
        Reload with some of the servers. No request may fail.
        """
        self.use(*numbers)
        self.process.hangUp("reloaded, ")
        until(lambda: len(self.up()) == len(numbers), what="a connection to each server")
        self.load.untilServed(SEVERAL)

    def up(self) -> set[str]:
        """
        @return: the servers that are up and have a connection.
        """
        return {row["server"] for row in self.process.rows("servers")
                if row["pool"] == "default" and row["state"] == "up" and row["connections"] != "0"}  # fmt: skip

    def fault(self, server: Memcached, freeze: bool) -> None:
        """
        Let a server be away for a while.
        """
        self.load.untilServed(SEVERAL)
        begun = time.monotonic()
        if freeze:
            self.use(*self.numbers, timeout=HANGING)
            self.process.hangUp("reloaded, ")
        (server.freeze if freeze else server.kill)()
        until(lambda: server.endpoint not in self.up(), what=f"{server} is noticed to be away")
        until(lambda: self.logged(server, self.away), what="each worker notices that")
        self.load.untilServed(SEVERAL)
        (server.thaw if freeze else server.start)()
        until(lambda: server.endpoint in self.up(), what=f"{server} is back")
        until(lambda: self.logged(server, self.back), what="each worker notices that")
        if freeze:
            self.use(*self.numbers)
            self.process.hangUp("reloaded, ")
        self.load.untilServed(SEVERAL)
        self.excuses.append((begun, time.monotonic()))
        self.failed.add(server.endpoint)

    def logged(self, server: Memcached, words: str) -> bool:
        """
        @return: whether each worker has logged words about a server.
        """
        return self.process.log.count(f"{server.endpoint} {words}") >= self.workers

    def evening(self) -> Report:
        """
        One is killed, one freezes, one is added, one is removed and comes back.
        """
        self.fault(self.servers[0], freeze=False)
        self.fault(self.servers[1], freeze=True)
        self.change(0, 1, 2, 3, 4, 5)
        self.change(0, 1, 3, 4, 5)
        self.change(5, 0, 1, 2, 3, 4)
        report = self.load.finish()
        self.judge(report)
        return report

    def judge(self, report: Report) -> None:
        """
        No reply is wrong, no client is stuck, and requests fail only while a server is away, and with its name.
        """
        self.assertEqual((report["wrong"], report["wrongs"], report["stuck"]), ([], 0, 0))
        self.assertEqual((report["connected"], report["refused"]), (CLIENTS, 0))
        # Requests of which a part of the reply was already forwarded.
        self.assertEqual(report["closed"], report["halved"])
        strangers = [error for error in report["errors"] if not any(f"({name}" in error for name in self.failed)]
        self.assertEqual(strangers, [])
        for second, seen in enumerate(report["timeline"]):
            at = report["begun"] + second
            if seen["errors"] or seen["closed"]:
                excused = any(begun < at + 1 and at <= over for begun, over in self.excuses)
                self.assertTrue(excused, f"second {second} of {report['timeline']}, excused: {self.excuses}")
        violations = self.statistic(self.process.address, "protocol_errors")
        self.assertEqual(violations, 0)


class GrowingTests(EveningTestCase):
    """
    The only server gets company, and is alone again.
    """

    def test_growing(self) -> None:
        """
        No request fails, no reply is wrong and no client is closed.
        """
        self.begin(servers=1)
        for numbers in ((0, 1, 2), (1,), (1, 0)):
            self.load.untilServed(SEVERAL)
            self.change(*numbers)
        self.judge(self.load.finish())


class EveningTests(EveningTestCase):
    """
    Servers of five die, freeze, come and go.
    """

    def test_fail(self) -> None:
        """
        Requests for servers that are down fail.
        """
        self.begin("on-failure = fail")
        self.assertNotEqual(self.evening()["errors"], {})

    def test_rehash(self) -> None:
        """
        Others get the keys of servers that are down, until these are back.
        """
        self.begin("on-failure = rehash", "eject-after = 1", "min-live-servers = 2")
        self.away, self.back = "is ejected", "has its keys again"
        self.evening()

    def test_failover(self) -> None:
        """
        Another pool gets the requests for servers that are down, until these are back.
        """
        (spare,) = self.memcacheds(1)
        place = f"listen = tcp:{freePort()}:interface=127.0.0.1"
        self.rest = "\n".join(["[pool:spare]", place, f"upstream = {spare.endpoint}", *times(PATIENCE), ""])
        self.begin("on-failure = failover", "failover = spare")
        self.evening()
        self.assertGreater(self.statistic(self.process.address, "failovers"), 0)
        self.assertGreater(int(spare.stats()["cmd_set"]), 0)


class SharedEveningTests(EveningTests):
    """
    The same with two workers.
    """

    workers = 2


class SeveralTests(ShardsTestCase):
    """
    Tests for requests that concern several servers.
    """

    def setUp(self) -> None:
        """
        Start the servers.
        """
        self.servers = self.memcacheds(5)
        self.upstream = [server.address for server in self.servers]

    def test_everywhere(self) -> None:
        """
        C{flush_all} and C{stats upstream} concern all servers, C{version} any. A server that is down fails the former
        only.
        """
        for options in ((), ("--workers", "2")):
            address = self.proxy(self.upstream, *options).address
            keys = keysOf(60)
            self.stored(address, keys)
            self.assertNotIn("0", [server.stats()["curr_items"] for server in self.servers])
            self.assertEqual(ask(address, b"get %b\r\n" % b" ".join(keys), b"END\r\n"), self.values(keys))
            report = ask(address, b"stats upstream\r\n", b"END\r\n")
            pids = [int(pid) for pid in re.findall(rb"STAT [0-9]+:pid ([0-9]+)\r\n", report)]
            self.assertEqual(pids, [server.pid for server in self.servers])
            self.assertEqual(ask(address, b"flush_all\r\n"), b"OK\r\n")
            self.assertEqual(ask(address, b"get %b\r\n" % b" ".join(keys), b"END\r\n"), b"END\r\n")
        self.servers[0].kill()
        # Some workers may not have noticed it.
        version = rb"VERSION [0-9.]+\r\n"
        until(lambda: re.fullmatch(version, ask(address, b"version\r\n")), what="a version")
        down = b"SERVER_ERROR upstream unavailable: connection refused (%b)\r\n" % self.servers[0].endpoint.encode()
        until(lambda: ask(address, b"flush_all\r\n") == down, what="an error")

    def down(self, *options: str) -> tuple[Proxy, bytes, list[bytes], list[bytes]]:
        """
        Store keys through a proxy, and kill a server.

        @return: the proxy, the error for keys of the server, all keys, and those of other servers.
        """
        proxy = self.proxy(self.upstream, *options)
        keys = keysOf(120)
        self.stored(proxy.address, keys)
        server = self.servers[2]
        lost = [key for key in keys if ask(server.address, b"get %b\r\n" % key, b"END\r\n") != b"END\r\n"]
        self.assertGreater(len(lost), 5)
        server.kill()
        error = b"SERVER_ERROR upstream unavailable: connection refused (%b)\r\n" % server.endpoint.encode()
        until(lambda: ask(proxy.address, b"get %b\r\n" % lost[0]) == error, what="the server is noticed to be down")
        return proxy, error, keys, [key for key in keys if key not in lost]

    def test_misses(self) -> None:
        """
        A get of several keys has no values for those of a server that is down, and a counter and the log say so.
        Pipelined gets have an error for each, and all others their values.
        """
        proxy, error, keys, others = self.down()
        request = b"get %b\r\n" % b" ".join(keys)
        with connect(proxy.address) as client:
            for _ in range(3):
                self.assertEqual(exchange(client, request, b"END\r\n"), self.values(others))
            reply = exchange(client, b"gets %b nothing\r\n" % others[0], b"END\r\n")
            self.assertEqual(reply.count(b"VALUE"), 1)
            pipeline = b"".join(b"get %b\r\n" % key for key in keys) + b"version\r\n"
            expected = b"".join(self.values([key]) if key in others else error for key in keys)
            client.sendall(pipeline)
            reply = b""
            while not re.search(rb"VERSION [^\r\n]*\r\n\Z", reply):
                reply += client.recv(1 << 16)
            self.assertEqual(reply.rpartition(b"VERSION")[0], expected)
        self.assertGreaterEqual(self.statistic(proxy.address, "partial_gets"), 3)
        self.assertEqual(proxy.log.count("gets misses for its keys"), 1, proxy.log)

    def test_error(self) -> None:
        """
        With another setting it gets an error, and the connection goes on.
        """
        proxy, error, keys, others = self.down("--partial-gets", "error")
        with connect(proxy.address) as client:
            some = keys[:40]
            self.assertEqual(exchange(client, b"get %b\r\n" % b" ".join(some), b"\r\n"), error)
            some = others[:40]
            self.assertEqual(exchange(client, b"get %b\r\n" % b" ".join(some), b"END\r\n"), self.values(some))

    def test_clients(self) -> None:
        """
        Many clients, also with workers, and with more connections than one for each server.
        """
        for options in (("--workers", "2"), ("--pool-size", "13", "--min-pool-size", "8")):
            proxy = self.proxy(self.upstream, *options)
            self.assertClean(
                run(proxy.address, clients=100, seconds=600.0, requests=50, keys=16, kinds=KINDS, depth=32)
            )


class RowTests(ShardsTestCase):
    """
    Tests for proxies in front of proxies, which have the keys of several servers.
    """

    def check(self, proxy: Proxy) -> None:
        """
        Gets of several keys with misses, and pipelines, have no error.
        """
        keys = keysOf(200)
        some = [key for number, key in enumerate(keys) if number % 3]
        self.stored(proxy.address, some)
        self.assertEqual(ask(proxy.address, b"get %b\r\n" % b" ".join(keys), b"END\r\n"), self.values(some))
        for sizes in ((10, 100, 2000), (50, 20000, 100000)):
            report = run(
                proxy.address, clients=30, seconds=600.0, requests=60, keys=16, kinds=KINDS, depth=32, sizes=sizes
            )
            self.assertClean(report)
        self.assertEqual(self.statistic(proxy.address, "protocol_errors"), 0)
        self.assertEqual(self.statistic(proxy.address, "retries"), 0)

    def test_oneBehind(self) -> None:
        """
        One in front of one that distributes the keys.
        """
        upstream = [server.address for server in self.memcacheds(3)]
        self.check(self.proxy([self.proxy(upstream).address]))

    def test_severalBehind(self) -> None:
        """
        One that distributes the keys among others that do so too, with another hash.
        """
        behind = [
            self.proxy([server.address for server in self.memcacheds(2)], "--distribution", "libmemcached").address
            for _ in range(3)
        ]
        self.check(self.proxy(behind))

    def test_equalBehind(self) -> None:
        """
        One in front of two equal ones with the same servers.
        """
        upstream = [server.address for server in self.memcacheds(3)]
        behind = [self.proxy(upstream).address for _ in range(2)]
        # Two requests of a client may be sent through different proxies only when the first one is answered.
        self.check(self.proxy(behind, "--distribution", "round-robin"))

    def test_twemproxyBehind(self) -> None:
        """
        One that distributes the keys among two twemproxies, each with servers of its own.
        """
        behind = []
        for _ in range(2):
            upstream = [server.address for server in self.memcacheds(3)]
            nutcracker = Nutcracker(upstream=upstream, settings=["hash: md5"]).start()
            self.addCleanup(nutcracker.stop)
            behind.append(nutcracker.address)
        self.check(self.proxy(behind))

    test_twemproxyBehind.skip = missing("nutcracker")  # type: ignore[attr-defined]
