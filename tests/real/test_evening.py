# -*- test-case-name: tests.real.test_evening -*-
# Copyright txconnpool contributors. See LICENSE.
"""
All operations of an operator on a running proxy, one after another, under a load of clients that know every correct
reply.
"""

from __future__ import annotations

import json
import re
import signal
import socket
import time
from collections import defaultdict
from collections.abc import Mapping
from http.client import HTTPConnection
from typing import Any

from tests.certificates import quoted
from tests.real.load import Load, Report
from tests.real.operated import execute, rows
from tests.real.servers import (
    HOST,
    PATIENCE,
    PATIENT_OPTIONS,
    Address,
    Memcached,
    Twistd,
    ask,
    connect,
    freePort,
    missing,
    serverEndpoint,
    until,
)
from tests.real.test_proxy import AWAY, quietly
from tests.real.test_tls import TLSTestCase

#: The number of clients of each of the two loads.
CLIENTS = 40

#: Seconds after the return of a server in which requests may still fail.
RECOVERY = 2.0

#: Seconds between two operations, so that the seconds in which failures are allowed can be separated from the others.
CALM = 1.2

_INI = """
[connpool]
admin = {admin}
stats = {stats}
drain-timeout = 120
workers = {workers}

[pool:pages]
upstream = {pages}
listen =
    systemd:domain=INET:name=pages
    {tls}
{setting}

[pool:row]
upstream =
    {first}
    {second}
distribution = round-robin
listen = systemd:domain=INET:name=row
"""

# The final number of a descriptor may be in use by another one, so all of them are moved out of the way first.
_ACTIVATED = """
import fcntl, os
held = [fcntl.fcntl(each, fcntl.F_DUPFD, 64) for each in {descriptors}]
for place, each in enumerate(held, 3):
    os.dup2(each, place)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS=str(len(held)), LISTEN_FDNAMES="{names}")
"""


class Activated(Twistd):
    """
    A proxy that is started like by a systemd socket unit: the test holds the listening sockets, they stay open while no
    process runs, and each process inherits them.
    """

    def __init__(self, *options: str, sockets: Mapping[str, socket.socket]) -> None:
        """
        @param sockets: the listening sockets, by name. A connection to the first one tests whether the process serves.
        """
        super().__init__(
            *PATIENT_OPTIONS, *options, plugin="connpool", address=next(iter(sockets.values())).getsockname()
        )
        self.inherited = [each.fileno() for each in sockets.values()]
        self._names = ":".join(sockets)

    def command(self) -> list[str]:
        """
        Move the sockets to the file descriptors that the protocol of systemd defines, and then run C{twistd}.
        """
        python, flag, code, *rest = super().command()
        return [python, flag, _ACTIVATED.format(descriptors=self.inherited, names=self._names) + code, *rest]


class EveningTests(TLSTestCase):
    """
    One pool in front of one memcached, which also serves clients with TLS, and another pool in front of two addresses
    of a second memcached, so that each of these can be missing.

    @ivar workers: the number of worker processes.
    """

    workers = 1
    skip = TLSTestCase.skip or missing("memcached")

    def setUp(self) -> None:
        """
        Start all processes.
        """
        super().setUp()
        self.port = freePort()
        self.pages = Memcached("-t", "1").start()
        self.addCleanup(self.pages.stop)
        second = (HOST, freePort())
        self.row = Memcached("-t", "1", "-l", f"{second[0]}:{second[1]}").start()
        self.addCleanup(self.row.stop)
        self.other = f"tcp:{second[0]}:{second[1]}"
        self.admin = str(self.directory / "admin.sock")
        self.stats = (HOST, freePort())
        self.ini = self.directory / "connpool.ini"
        self.configure("pool-size = 4")
        self.sockets = {}
        for name in ("pages", "row"):
            self.sockets[name] = socket.create_server((HOST, 0), backlog=1024)
            self.addCleanup(self.sockets[name].close)
        self.process = Activated("--config", str(self.ini), sockets=self.sockets)
        self.addCleanup(self.process.stop)
        self.serve()
        chosen = {"clients": CLIENTS, "seconds": 600.0, "pause": 0.05, "sizes": (10, 100, 2000)}
        self.loads = {
            "pages": Load(self.address("pages"), misses=True, **chosen),
            "row": Load(self.address("row"), **chosen),
        }
        for load in self.loads.values():
            self.addCleanup(load.kill)
            load.start()
        #: The times when failures are allowed, by pool and kind.
        self.excuses: defaultdict[tuple[str, str], list[tuple[float, float]]] = defaultdict(list)

    # Tools

    def configure(self, setting: str) -> None:
        """
        Write the ini file.

        @param setting: a line for the first pool.
        """
        files = f"privateKey={quoted(self.host.key)}:certKey={quoted(self.host.certificate)}"
        self.ini.write_text(
            _INI.format(
                admin=f"{serverEndpoint(self.admin)}:mode=600",
                stats=serverEndpoint(self.stats),
                pages=self.pages.endpoint,
                workers=self.workers,
                tls=f"ssl:{self.port}:interface={HOST}:{files}",
                setting=setting,
                first=self.row.endpoint,
                second=self.other,
            )
        )

    def address(self, pool: str) -> Address:
        """
        @return: the address of a pool.
        """
        address: tuple[str, int] = self.sockets[pool].getsockname()
        return address

    def serve(self) -> None:
        """
        Start the proxy, and wait until each pool answers.
        """
        self.process.start()
        for pool in self.sockets:
            try:
                self.assertEqual(ask(self.address(pool), b"mn\r\n", timeout=PATIENCE), b"MN\r\n")
            except TimeoutError:
                # The listening socket accepts connections even if no process runs.
                self.fail(self.process.log)

    def calm(self) -> None:
        """
        Wait for some time in which no failure is allowed.
        """
        time.sleep(CALM)

    def command(self, line: str) -> list[str]:
        """
        Send a line to the console.

        @return: the lines of the answer.
        """
        return execute(self.admin, line).splitlines()

    def table(self, what: str) -> list[dict[str, str]]:
        """
        @return: the rows of a table of the console.
        """
        return rows(self.admin, what)

    def get(self, path: str) -> tuple[int, str]:
        """
        Request a page of the statistics.

        @return: the status code and the content.
        """
        connection = HTTPConnection(*self.stats, timeout=PATIENCE)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, response.read().decode()
        finally:
            connection.close()

    def health(self) -> dict[str, int]:
        """
        @return: the status code of each pool from C{/healthz}.
        """
        return {pool: self.get(f"/healthz?pool={pool}")[0] for pool in self.loads}

    def seen(self, pool: str = "pages") -> dict[str, Any]:
        """
        @return: the statistics of a pool.
        """
        (found,) = [each for each in json.loads(self.get("/stats.json")[1])["pools"] if each["name"] == pool]
        return dict(found)

    def logged(self, text: str) -> str:
        """
        Reload by SIGHUP, and wait for a text in the log.

        @return: the log since the signal.
        """
        before = len(self.process.log)
        self.process.signal(signal.SIGHUP)
        until(lambda: text in self.process.log[before:], what=f"{text!r} in the log")
        return self.process.log[before:]

    # Operations

    def test_evening(self) -> None:
        """
        No operation fails a request. While a server is away, requests fail with the right reason. No reply is wrong, no
        client is stuck, and nothing fails at any other time.
        """
        for do in (self.watch, self.lose, self.takeOut, self.resize, self.mistake, self.rotate, self.handOver):
            do()
            self.calm()
        reports = {pool: load.finish() for pool, load in self.loads.items()}
        self.end()
        for pool, report in reports.items():
            self.judge(pool, report)

    def watch(self) -> None:
        """
        The status page in a browser, Prometheus' metrics and the health check show the clients and their requests.
        """
        self.assertEqual((self.get("/healthz")[0], self.health()), (200, {"pages": 200, "row": 200}))
        code, page = self.get("/")
        self.assertEqual((code, "<html" in page.lower()), (200, True))
        before = {pool: self.received(pool) for pool in self.loads}
        until(lambda: all(self.received(pool) > before[pool] + CLIENTS for pool in self.loads), what="requests")
        _, metrics = self.get("/metrics")
        for pool in self.loads:
            self.assertGreaterEqual(self.seen(pool)["sessions"], CLIENTS)
            counted = re.findall(rf'^connpool_requests_total{{[^}}]*pool="{pool}"[^}}]*}} (\d+)', metrics, re.MULTILINE)
            self.assertGreater(sum(map(int, counted)), before[pool] + CLIENTS)

    def received(self, pool: str) -> int:
        """
        @return: the number of requests of a pool's clients.
        """
        return sum(self.seen(pool)["requests"].values())

    def lose(self) -> None:
        """
        A server dies, and comes back.
        """
        begun = time.monotonic()
        self.pages.kill()
        until(lambda: self.health() == {"pages": 503, "row": 200}, what="the loss is shown")
        self.assertIn("down: ", self.command("show servers")[1])
        self.assertEqual((self.seen()["state"], self.seen()["servers"][0]["up"]), ("down", 0))
        self.assertIn(b"SERVER_ERROR upstream unavailable: ", ask(self.address("pages"), b"get k\r\n"))
        time.sleep(0.5)
        self.pages.start()
        back = time.monotonic()
        until(lambda: ask(self.address("pages"), b"mn\r\n") == b"MN\r\n", what="service")
        server = self.pages.endpoint
        self.assertEqual(self.process.log.count(f"pages: {server} is down: connection "), self.workers)
        until(lambda: "down" not in "".join(self.command("show servers")), what="the return is shown")
        until(lambda: self.health() == {"pages": 200, "row": 200}, what="the return is shown")
        self.assertEqual(self.seen()["state"], "ready")
        self.assertEqual(self.seen()["outages"], self.workers)
        self.assertEqual(self.process.log.count(f"pages: {server} is up again after "), self.workers)
        time.sleep(max(0.0, back + RECOVERY - time.monotonic()))
        self.loads["pages"].untilServed(5 * CLIENTS)  # errors of before may still be on their way
        # The connections of requests of which a part of the reply was already forwarded are closed.
        for kind in ("errors", "closed"):
            self.excuses["pages", kind].append((begun, time.monotonic()))

    def takeOut(self) -> None:
        """
        One of two servers is drained, gets no requests meanwhile, and is restored.
        """
        begun = time.monotonic()
        (answer,) = self.command(f"drain {self.other} now")
        self.assertTrue(answer.startswith("OK "), answer)
        self.loads["row"].untilServed(5 * CLIENTS)
        # Requests in flight at that moment that must not be sent a second time.
        for kind in ("errors", "closed"):
            self.excuses["row", kind].append((begun, time.monotonic()))
        (before,) = [row for row in self.table("servers") if row["server"] == self.other]
        self.assertEqual((before["state"], before["connections"]), ("drained", "0"))
        self.calm()
        self.assertIn(before, self.table("servers"))
        (answer,) = self.command(f"restore {self.other}")
        self.assertTrue(answer.startswith("OK "), answer)
        until(lambda: self.requests(self.other) > int(before["requests"]) + CLIENTS, what="requests for who is back")

    def requests(self, server: str) -> int:
        """
        @return: the number of requests that a server has received.
        """
        return sum(int(row["requests"]) for row in self.table("servers") if row["server"] == server)

    def resize(self) -> None:
        """
        The bounds of a pool change.
        """
        changes = ["pool pages: pool-size 4 -> 8", "pool pages: min-pool-size 1 -> 6"]
        *lines, last = self.command("resize pages 6 8")
        self.assertEqual((sorted(lines), last), (sorted(changes), "OK 2 changed"))
        for line in changes:
            self.assertIn(line, self.process.log)
        until(lambda: int(self.table("pools")[0]["connections"]) >= 6, what="more connections")
        self.assertEqual(self.seen()["connections_max"], 8)

    def mistake(self) -> None:
        """
        A reload with an invalid ini file changes nothing, and the log and the console have the reason. A reload with a
        valid one keeps every session.
        """
        sessions = {(row["session"], row["client"]) for row in self.table("sessions 1000")}
        settings = self.command("show settings")
        self.configure("pool-sise = 6")
        log = self.logged("not reloaded: ")
        self.assertIn("pool-sise", log)
        self.assertIn("pool-size", log)
        *_, last = self.command("reload")
        self.assertTrue(last.startswith("ERROR ") and "pool-size" in last, last)
        self.assertEqual(self.command("show settings"), settings)
        self.configure("pool-size = 6")
        log = self.logged("reloaded, 2 changed")
        self.assertIn("pool pages: pool-size 8 -> 6", log)
        self.assertIn("pool pages: min-pool-size 6 -> 1", log)
        self.assertEqual({(row["session"], row["client"]) for row in self.table("sessions 1000")}, sessions)

    def rotate(self) -> None:
        """
        The certificate is replaced. New clients get the new one, and connected clients are not affected.
        """
        before = self.client()
        self.assertEqual(self.serial(before), self.host.serial)
        self.assertEqual(self.ask(before, b"get k\r\n"), b"END\r\n")
        old, self.host = self.host, self.certificate(HOST)
        self.assertNotEqual(self.host.serial, old.serial)
        self.assertIn("reloaded, 1 changed", self.logged("reloaded, "))
        after = self.client()
        self.assertEqual(self.serial(after), self.host.serial)
        for client in (before, after):
            self.assertEqual(self.ask(client, b"get k\r\n"), b"END\r\n")
            client.close()

    def handOver(self) -> None:
        """
        The process is replaced by another one. The old one answers the requests that it has read and closes its
        clients; new clients wait for the new process.
        """
        begun = time.monotonic()
        self.process.signal(signal.SIGTERM)
        self.assertEqual(self.process.wait(), -signal.SIGTERM)
        between = connect(self.address("pages"))
        between.sendall(b"mn\r\n")
        self.serve()
        self.assertEqual(between.recv(100), b"MN\r\n")
        between.close()
        self.assertEqual(self.ask(self.client(), b"get k\r\n"), b"END\r\n")
        until(lambda: len(self.table("sessions 1000")) >= 2 * CLIENTS, what="everybody back")
        over = time.monotonic()
        for pool in self.loads:
            self.excuses[pool, "closed"].append((begun, over))

    def end(self) -> None:
        """
        The process is stopped. Clients see the end of their connections, and no process or file remains.
        """
        clients = [self.client(), connect(self.address("row"))]
        for client in clients:
            self.assertEqual(self.ask(client, b"get k\r\n"), b"END\r\n")
        self.process.signal(signal.SIGTERM)
        self.assertEqual(self.process.wait(), -signal.SIGTERM)
        for client in clients:
            self.assertEqual(client.recv(1), b"")
            client.close()
        expected = re.compile(
            rf"pages: {re.escape(self.pages.endpoint)} is down: connection |not reloaded: .*pool-sise"
        )
        self.assertEqual([line for line in quietly(self.process.log) if not expected.search(line)], [])

    # Results

    def judge(self, pool: str, report: Report) -> None:
        """
        Check the results of the load on a pool.
        """
        self.assertEqual((report["wrong"], report["wrongs"], report["stuck"]), ([], 0, 0))
        self.assertEqual((report["connected"], report["refused"]), (CLIENTS, 0))
        # The process that was replaced closed each client once. All other closed connections had an incomplete reply.
        self.assertEqual(report["closed"], CLIENTS + report["halved"])
        self.assertEqual([error for error in report["errors"] if not AWAY.match(error)], [])
        self.assertGreater(report["resumed"][1], 0)
        for second, seen in enumerate(report["timeline"]):
            failed = {kind for kind in ("errors", "closed") if seen[kind]}
            message = f"{pool}: second {second} of {report['timeline']}"
            self.assertEqual(failed - self.excused(pool, report["begun"] + second), set(), message)

    def excused(self, pool: str, second: float) -> set[str]:
        """
        @return: the kinds of failures that are allowed in the second that begins at a time.
        """
        return {
            kind
            for (whose, kind), spans in self.excuses.items()
            for begun, over in spans
            if whose == pool and begun < second + 1 and second <= over
        }


class SharedEveningTests(EveningTests):
    """
    The same test with two workers.
    """

    workers = 2
