# Copyright txconnpool contributors. See LICENSE.
"""
A proxy that is operated while it runs: with an ini file that can be rewritten, and a console.
"""

from __future__ import annotations

import os
import re
import signal
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from twisted.trial.unittest import SynchronousTestCase

from tests.real.load import Load, Report
from tests.real.servers import (
    HOST,
    PATIENCE,
    START_TIMEOUT,
    Address,
    Memcached,
    Twistd,
    ask,
    connect,
    everything,
    freePort,
    missing,
    serverEndpoint,
    until,
)


def execute(address: Address, *lines: str, timeout: float = PATIENCE) -> str:
    """
    Send lines to a console, and read until it closes the connection.

    @return: the answers, without the first line of a console that needs no password.
    """
    with connect(address, timeout) as console:
        console.sendall("".join(f"{line}\n" for line in lines).encode())
        console.shutdown(socket.SHUT_WR)
        return re.sub(r"\Atxconnpool [^\n]*\n", "", everything(console).decode())


def rows(address: Address, what: str) -> list[dict[str, str]]:
    """
    @return: the rows of a table that the console's command C{show} prints, by column.
    """
    *lines, last = execute(address, f"show {what}").splitlines()
    assert last.startswith("OK "), last
    if not lines:
        return []
    names, *found = (re.split("  +", line.strip()) for line in lines)
    return [dict(zip(names, row, strict=True)) for row in found]


class Operated(Twistd):
    """
    A proxy with an ini file and a console.

    @ivar upstream: the endpoint strings of the servers.
    @ivar admin: the path of the console's UNIX socket.
    """

    def __init__(self, *options: str, upstream: Sequence[str]) -> None:
        """
        @param options: options of C{connpool}.
        @param upstream: the endpoint strings of the servers.
        """
        super().__init__(*options, plugin="connpool")
        self.upstream = upstream
        self.admin = str(self.directory / "admin.sock")
        self.write()

    @property
    def ini(self) -> Path:
        """
        The ini file.
        """
        return self.directory / "connpool.ini"

    def write(self, *lines: str, listen: Sequence[str] = (), upstream: Sequence[str] = (), rest: str = "") -> None:
        """
        Write the ini file.

        @param lines: settings of the pool C{default}. Timeouts that are not among them do not expire while a test
            waits: no request is to fail because the machine is busy.
        @param listen: additional listening endpoints of this pool.
        @param upstream: the servers, if not those of the constructor.
        @param rest: text to append.
        """
        if self._address is None:
            self._address = (HOST, freePort())
        indent = "\n    "
        servers = upstream or self.upstream
        given = {line.partition(" =")[0] for line in lines}
        timeouts = {f"{what}-timeout": PATIENCE for what in ("connect", "wait", "request")}
        text = [
            # Longer than tests wait, so that a stop which ends has not ended because of it.
            f"[connpool]\nadmin = unix:{self.admin}\ndrain-timeout = {2 * PATIENCE:g}",
            "[pool:default]",
            f"upstream ={indent}{indent.join(servers)}",
            "distribution = round-robin",
            f"listen ={indent}{indent.join([serverEndpoint(self.address), *listen])}",
            *(f"{name} = {seconds:g}" for name, seconds in timeouts.items() if name not in given),
            *lines,
            rest,
        ]
        # As the manual recommends: a process that reads the file meanwhile gets the old one, not half of the new one.
        other = self.ini.with_suffix(".new")
        other.write_text("\n".join(text), "utf-8")
        other.replace(self.ini)

    def start(self) -> Self:
        """
        Start the proxy, and wait until all of its workers take clients, and it has no client.
        """
        super().start()
        until(self.complete, START_TIMEOUT, "the start of all workers")
        until(lambda: "OK 0 sessions" in self.execute("show sessions"), what="the end of the last client")
        return self

    def complete(self) -> bool:
        """
        @return: whether all workers take clients.
        """
        answer = ask(self.address, b"stats proxy\r\n", b"END\r\n", timeout=START_TIMEOUT)
        return not re.search(rb"STAT workers_(?!ready)[a-z]+ [1-9]", answer)

    def command(self) -> list[str]:
        """
        Add the option for the ini file.
        """
        return [*super().command(), "--config", str(self.ini)]

    def execute(self, *lines: str) -> str:
        """
        Send lines to the console.

        @return: the answers.
        """
        return execute(self.admin, *lines)

    def rows(self, what: str) -> list[dict[str, str]]:
        """
        @return: the rows of a table of the console, see the function L{rows}.
        """
        return rows(self.admin, what)

    def hangUp(self, *words: str) -> None:
        """
        Send SIGHUP, so that the proxy reads the ini file again, and wait until the log has one more occurrence of each
        of C{words}.
        """
        before = {each: self.log.count(each) for each in words}
        self.signal(signal.SIGHUP)
        until(
            lambda: all(self.log.count(each) > count for each, count in before.items()),
            what=f"{' and '.join(words)} in the log",
        )

    @property
    def children(self) -> list[int]:
        """
        The process ids of the workers, in the order of their start.
        """
        return [int(each) for each in Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text("ascii").split()]


class OperatedTestCase(SynchronousTestCase):
    """
    A proxy in front of one memcached with two addresses, which are two interchangeable servers for the proxy.
    """

    skip = missing("memcached")
    options: Sequence[str] = ()

    def setUp(self) -> None:
        """
        Start memcached and the proxy.
        """
        other = (HOST, freePort())
        self.memcached = Memcached("-t", "1", "-l", f"{other[0]}:{other[1]}").start()
        self.addCleanup(self.memcached.stop)
        self.servers = (self.memcached.endpoint, f"tcp:{other[0]}:{other[1]}")
        self.proxy = Operated(*self.options, upstream=self.servers)
        self.addCleanup(self.proxy.stop)
        self.proxy.start()

    def paused(self) -> socket.socket:
        """
        Pause the proxy.

        @return: a client whose request waits for C{resume}.
        """
        client = connect(self.proxy.address)
        self.addCleanup(client.close)
        self.proxy.execute("pause")
        client.sendall(b"get a\r\n")
        until(lambda: self.proxy.rows("pools")[0]["waiting"] == "1")
        return client

    def load(self, **settings: object) -> Load:
        """
        Start a load.
        """
        chosen = {"clients": 40, "seconds": 600.0, "pause": 0.02, "sizes": (10, 100, 2000), **settings}
        load = Load(self.proxy.address, **chosen)
        self.addCleanup(load.kill)
        return load.start()

    def assertUnharmed(self, load: Load) -> Report:
        """
        End a load when it has had some more replies, and assert that no client had an error or lost its connection.

        @return: the report of the load.
        """
        load.untilServed(100)
        report = load.finish()
        noticed = {name: report[name] for name in ("wrong", "stuck", "lost", "closed", "refused", "errors", "ignored")}
        self.assertEqual(
            noticed,
            {"wrong": [], "stuck": 0, "lost": 0, "closed": 0, "refused": 0, "errors": {}, "ignored": 0},
            self.proxy.log,
        )
        return report


def gone(pid: int) -> bool:
    """
    @return: whether a process has ended.
    """
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    # A process that ended is a zombie until its parent waits for it.
    return Path(f"/proc/{pid}/stat").read_text("ascii").rpartition(")")[2].split()[0] == "Z"
