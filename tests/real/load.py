# -*- test-case-name: tests.real.test_load -*-
# Copyright txconnpool contributors. See LICENSE.
"""
A load of many clients, each of which knows every correct reply to its requests (see L{tests.real.tokens}).

It counts correct replies and I{wrong} ones, which must never happen, and describes the first wrong ones. It counts
separately the failures that are allowed when servers die: C{SERVER_ERROR} lines and lost connections.

It runs in a child process, so that it neither blocks the reactor of a test nor is blocked by it::

    load = Load(proxy.address, clients=1000, misses=True).start()
    memcached.restart()
    load.untilServed(5000)
    report = load.finish()
    self.assertEqual((report["wrong"], report["stuck"]), ([], 0))
"""

from __future__ import annotations

import errno
import heapq
import json
import os
import select
import socket
import subprocess
import sys
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import asdict
from typing import Any, Self, TypedDict

from tests.real.processes import cpu, dieWithParent
from tests.real.servers import PATIENCE, SOURCE, Address, ServerFailed, raiseFileLimit, until
from tests.real.tokens import Client, Settings, Wrong

#: The maximum number of wrong replies that are described; all are counted.
DESCRIBED = 20

#: The maximum number of clients that connect at the same time, since listeners have short queues.
CONNECTING = 32

#: Seconds until a client whose connection was refused or closed connects again.
AGAIN = 0.05


class Second(TypedDict):
    """
    The events in one second of the load.
    """

    ok: int
    errors: int
    wrong: int
    closed: int
    refused: int
    stuck: int
    slowest: float


class Report(TypedDict):
    """
    The result of a load. Times are those of C{time.monotonic}, which is the same for all processes of a machine.

    C{ok}: correctly answered requests, including misses that are allowed (C{missed} of them).
    C{errors}: requests answered with a C{SERVER_ERROR} line, by its text.
    C{ignored}: C{set} requests with C{noreply} that were not executed, as the next C{get} showed.
    C{wrong}: descriptions of the first of C{wrongs} wrong replies.
    C{stuck}: requests that had no reply within the timeout.
    C{lost}: requests without a reply because their connection was closed; C{halved} of them had a part of it.
    C{closed}: connections closed by the peer; C{idle} of them while no reply was expected.
    C{refused}: attempts to connect that failed; C{turnedAway} of them with the reply that there are too many clients.
    C{connected}: clients that were connected at the beginning of the load.
    C{begun}, C{ended}: the times of the first request and of the last reply.
    C{timeline}: the events in each second since C{begun}.
    C{slowest}, C{median}, C{p99}: latencies, in seconds.
    C{busiest}: the most processor time that the watched process used between a request and its reply, in seconds.
        Unlike a latency, it does not depend on what else the machine does.
    C{lastError}: the time of the last failure (error, lost, refused or stuck), 0 if there was none.
    C{resumed}: the times of each client's first success after its last failure: the earliest and the latest. Both are 0
        if nothing failed; the latest is 0 if a client had no success after its failure.
    """

    clients: int
    connected: int
    ok: int
    missed: int
    errors: dict[str, int]
    ignored: int
    wrong: list[str]
    wrongs: int
    stuck: int
    lost: int
    halved: int
    closed: int
    idle: int
    refused: int
    turnedAway: int
    begun: float
    ended: float
    median: float
    p99: float
    slowest: float
    busiest: float
    lastError: float
    resumed: list[float]
    timeline: list[Second]


class _Line:
    """
    A client and its connection.

    @ivar socket: C{None} while there is no connection.
    @ivar connecting: whether the connection is not yet established.
    @ivar fresh: whether nothing has been received on this connection.
    @ivar unsent: bytes that the kernel has not accepted yet.
    @ivar spent: the processor time that the watched process had used when the last batch was sent.
    @ivar failed: the time of the last failure, or 0.
    @ivar well: the time of the first success after that, or 0.
    """

    def __init__(self, client: Client) -> None:
        self.client = client
        self.socket: socket.socket | None = None
        self.connecting = False
        self.fresh = True
        self.unsent = b""
        self.spent = 0.0
        self.failed = 0.0
        self.well = 0.0


class Runner:
    """
    The clients of a load, which share one epoll object.
    """

    def __init__(self, settings: Settings, send: Callable[[object], None], commands: int | None = None) -> None:
        """
        @param send: called when all clients have connected or were refused, before the first request, and with the
            counts so far when these are asked for.
        @param commands: a file descriptor. The byte C{?} that arrives on it asks for the counts so far; any other one
            ends the load early.
        """
        self._settings = settings
        self._notify = send
        self._commands = commands
        self._epoll = select.epoll()
        self._lines = [_Line(Client(number, settings)) for number in range(settings.clients)]
        self._byFd: dict[int, _Line] = {}
        self._timers: list[tuple[float, int, Callable[[_Line], None], _Line]] = []
        self._waiting = deque(self._lines)
        self._connecting = 0
        self._tried = 0
        self._asking = self._ended = False
        self._count: Counter[str] = Counter()
        self._errors: Counter[str] = Counter()
        self._wrong: list[str] = []
        self._latencies: list[float] = []
        self._timeline: list[Second] = []
        self._connected = 0
        self._start = self._end = 0.0
        self._busiest = 0.0

    def run(self) -> Report:
        """
        Run the load.

        @return: its result, at the end.
        """
        if self._commands is not None:
            self._epoll.register(self._commands, select.EPOLLIN)
        patience = time.monotonic() + self._settings.timeout
        while self._tried < len(self._lines) and time.monotonic() < patience:
            self._turn()
        self._connected = sum(line.socket is not None and not line.connecting for line in self._lines)
        self._start = self._end = time.monotonic()
        self._asking = True
        self._notify("begun")
        for line in self._lines:
            self._ask(line)
        stop = self._start + self._settings.seconds
        while not self._ended and time.monotonic() < stop and not self._exhausted():
            self._turn()
        self._asking = False
        while any(line.client.due for line in self._lines):
            self._turn()
        for line in self._lines:
            self._close(line)
        self._epoll.close()
        return self._report()

    def _exhausted(self) -> bool:
        most = self._settings.requests
        return most > 0 and all(line.client.made >= most and not line.client.due for line in self._lines)

    def _turn(self) -> None:
        now = time.monotonic()
        while self._timers and self._timers[0][0] <= now:
            _, _, do, line = heapq.heappop(self._timers)
            do(line)
        while self._waiting and self._connecting < CONNECTING:
            self._connect(self._waiting.popleft())
        for fd, event in self._epoll.poll(0.02):
            if fd == self._commands:
                self._command(os.read(fd, 1))
            elif fd in self._byFd:
                self._ready(self._byFd[fd], event)
        for line in self._lines:
            if line.client.due and now - line.client.due[0].sent > self._settings.timeout:
                self._stuck(line)

    def _command(self, command: bytes) -> None:
        assert self._commands is not None
        if command == b"?":
            self._notify(self._count)
        else:
            self._epoll.unregister(self._commands)
            # The end of the stream does not end the load.
            self._ended = bool(command)

    def _after(self, seconds: float, do: Callable[[_Line], None], line: _Line) -> None:
        heapq.heappush(self._timers, (time.monotonic() + seconds, line.client.number, do, line))

    # Connections

    def _connect(self, line: _Line) -> None:
        address = self._settings.address
        unix = isinstance(address, str)
        connection = socket.socket(socket.AF_UNIX if unix else socket.AF_INET)
        connection.setblocking(False)
        if not unix:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        code = connection.connect_ex(address)
        if code == errno.EAGAIN:
            # The queue of the UNIX socket is full. Try again; for TCP the kernel does that.
            connection.close()
            self._after(0.01, self._waiting.append, line)
            return
        line.socket, line.connecting, line.fresh, line.unsent = connection, True, True, b""
        self._connecting += 1
        if code not in (0, errno.EINPROGRESS):
            self._refused(line)
            return
        self._byFd[connection.fileno()] = line
        self._epoll.register(connection, select.EPOLLOUT)

    def _established(self, line: _Line) -> None:
        assert line.socket is not None
        if line.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            self._refused(line)
            return
        self._settled(line)
        self._epoll.modify(line.socket, select.EPOLLIN)
        if self._asking:
            self._ask(line)

    def _settled(self, line: _Line) -> None:
        line.connecting = False
        self._connecting -= 1
        self._tried += 1

    def _refused(self, line: _Line) -> None:
        self._settled(line)
        self._record(line, "refused")
        self._over(line)

    def _close(self, line: _Line) -> None:
        if line.socket is not None:
            if line.connecting:
                self._connecting -= 1
            self._byFd.pop(line.socket.fileno(), None)
            line.socket.close()
            line.socket = None

    def _over(self, line: _Line) -> None:
        """
        Close the connection, and connect again after a pause.
        """
        self._close(line)
        if self._settings.reconnect:
            self._after(AGAIN, self._waiting.append, line)

    # Requests and answers

    def _ask(self, line: _Line) -> None:
        client, most = line.client, self._settings.requests
        left = most - client.made if most else self._settings.depth
        if not self._asking or line.socket is None or line.connecting or client.due or left <= 0:
            return
        if self._settings.watched:
            line.spent = cpu(self._settings.watched)
        line.unsent += client.batch(min(left, self._settings.depth), time.monotonic())
        self._send(line)

    def _send(self, line: _Line) -> None:
        assert line.socket is not None
        try:
            sent = line.socket.send(line.unsent)
        except BlockingIOError:
            sent = 0
        except OSError:
            # Received bytes may still have to be read. Reading them ends with the end of the connection.
            sent = len(line.unsent)
        line.unsent = line.unsent[sent:]
        self._epoll.modify(line.socket, select.EPOLLIN | (select.EPOLLOUT if line.unsent else 0))

    def _ready(self, line: _Line, event: int) -> None:
        assert line.socket is not None
        if line.connecting:
            self._established(line)
            return
        if event & select.EPOLLOUT:
            self._send(line)
        if event & ~select.EPOLLOUT:
            try:
                data = line.socket.recv(1 << 16)
            except BlockingIOError:
                return
            except OSError:
                data = b""
            self._received(line, data)

    def _received(self, line: _Line, data: bytes) -> None:
        if not data:
            self._closed(line)
            return
        if line.fresh and data.startswith(b"ERROR Too many open connections\r\n"):
            line.client.lost()
            self._count["turnedAway"] += 1
            self._record(line, "refused")
            self._over(line)
            return
        line.fresh = False
        now = time.monotonic()
        try:
            answered = line.client.received(data)
        except Wrong as e:
            self._mistaken(line, str(e))
            return
        if self._settings.watched and answered:
            self._busiest = max(self._busiest, cpu(self._settings.watched) - line.spent)
        for request, error in answered:
            self._latencies.append(now - request.sent)
            self._record(line, "errors" if error else "ok", slowest=now - request.sent)
            if error:
                self._errors[error] += 1
        if not line.client.due:
            if self._settings.pause:
                self._after(self._settings.pause, self._ask, line)
            else:
                self._ask(line)

    def _mistaken(self, line: _Line, why: str) -> None:
        if len(self._wrong) < DESCRIBED:
            self._wrong.append(why)
        line.client.lost()
        self._record(line, "wrong")
        self._over(line)

    def _closed(self, line: _Line) -> None:
        unanswered, halved = line.client.lost()
        self._count["lost"] += len(unanswered)
        self._count["halved"] += halved
        self._count["idle"] += not unanswered
        self._record(line, "closed")
        self._over(line)

    def _stuck(self, line: _Line) -> None:
        unanswered, _ = line.client.lost()
        self._record(line, "stuck", len(unanswered))
        self._over(line)

    # Counting

    def _record(self, line: _Line, what: str, count: int = 1, slowest: float = 0.0) -> None:
        now = time.monotonic()
        self._count[what] += count
        if what == "ok":
            if line.failed and not line.well:
                line.well = now
        else:
            line.failed, line.well = now, 0.0
        if self._start:
            self._end = now
            second = self._second(int(now - self._start))
            second[what] += count  # type: ignore[literal-required]
            second["slowest"] = max(second["slowest"], slowest)

    def _second(self, number: int) -> Second:
        while len(self._timeline) <= number:
            self._timeline.append(Second(ok=0, errors=0, wrong=0, closed=0, refused=0, stuck=0, slowest=0.0))
        return self._timeline[number]

    def _report(self) -> Report:
        count = self._count
        latencies = sorted(self._latencies) or [0.0]
        again = [line.well for line in self._lines if line.failed]
        return Report(
            clients=len(self._lines),
            connected=self._connected,
            ok=count["ok"],
            missed=sum(line.client.missed for line in self._lines),
            errors=dict(self._errors.most_common()),
            ignored=sum(line.client.ignored for line in self._lines),
            wrong=self._wrong,
            wrongs=count["wrong"],
            stuck=count["stuck"],
            lost=count["lost"],
            halved=count["halved"],
            closed=count["closed"],
            idle=count["idle"],
            refused=count["refused"],
            turnedAway=count["turnedAway"],
            begun=self._start,
            ended=self._end,
            median=latencies[len(latencies) // 2],
            p99=latencies[len(latencies) * 99 // 100],
            slowest=latencies[-1],
            busiest=self._busiest,
            lastError=max(line.failed for line in self._lines),
            resumed=[min(filter(None, again), default=0.0), 0.0 if 0.0 in again else max(again, default=0.0)],
            timeline=self._timeline,
        )


class Load:
    """
    A load that runs in a child process.
    """

    def __init__(self, address: Address, **settings: Any) -> None:
        """
        @param settings: the fields of L{Settings}.
        """
        self.settings = Settings(address, **settings)
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> Self:
        """
        Start the process, and wait until all clients have connected or were refused.

        @raise ServerFailed: the process ended.
        """
        self._process = subprocess.Popen(
            [sys.executable, "-m", __name__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            cwd=SOURCE,
            preexec_fn=dieWithParent,
        )
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps(asdict(self.settings)).encode("ascii") + b"\n")
        if not self._process.stdout.readline():
            self.kill()
            raise ServerFailed("the load did not start")
        return self

    def count(self, what: str) -> int:
        """
        @param what: the name of a number of the L{Report}: C{ok}, C{closed} and others, C{errors} for their sum.
        @return: the number so far.
        """
        process = self._process
        assert process is not None and process.stdin is not None and process.stdout is not None
        process.stdin.write(b"?")
        counts: dict[str, int] = json.loads(process.stdout.readline())
        return counts.get(what, 0)

    def untilServed(self, count: int) -> None:
        """
        Wait until so many more requests were answered correctly.

        @raise ServerFailed: they were not, for a long time.
        """
        enough = self.count("ok") + count
        until(lambda: self.count("ok") >= enough, 4 * PATIENCE, f"{count} replies")

    def finish(self) -> Report:
        """
        End the load early: wait for the outstanding replies, and for the result.
        """
        assert self._process is not None and self._process.stdin is not None
        self._process.stdin.write(b"\n")
        return self.report()

    def report(self) -> Report:
        """
        Wait for the end of the load.

        @raise ServerFailed: it did not end in time, or ended without a result.
        """
        process = self._process
        assert process is not None
        # After the last request the load takes one timeout at most. The second one allows for a busy machine.
        patience = self.settings.seconds + 2 * self.settings.timeout + 30.0
        try:
            output, _ = process.communicate(timeout=patience)
        except subprocess.TimeoutExpired as e:
            self.kill()
            raise ServerFailed(f"the load did not end within {patience} s") from e
        if not output:
            raise ServerFailed("the load ended without a report")
        report: Report = json.loads(output)
        return report

    def running(self) -> bool:
        """
        @return: whether the load goes on.
        """
        assert self._process is not None
        return self._process.poll() is None

    @property
    def pid(self) -> int:
        """
        The process id of the child, after L{start}.
        """
        assert self._process is not None
        return self._process.pid

    def kill(self) -> None:
        """
        Kill the process, which may have ended already. For C{addCleanup}.
        """
        if self._process is not None:
            self._process.kill()
            self._process.communicate()


def run(address: Address, **settings: Any) -> Report:
    """
    Run a load in a child process, and wait for its end.

    @param settings: the fields of L{Settings}.
    """
    load = Load(address, **settings).start()
    try:
        return load.report()
    finally:
        load.kill()


def main() -> None:
    """
    Run the child process: read settings from the standard input, and write a line to the standard output when the load
    begins, for each question, and with the result.
    """
    raiseFileLimit()
    settings = json.loads(sys.stdin.buffer.readline())
    if not isinstance(settings["address"], str):
        settings["address"] = tuple(settings["address"])

    def send(message: object) -> None:
        sys.stdout.write(json.dumps(message) + "\n")
        sys.stdout.flush()

    report = Runner(Settings(**settings), send, sys.stdin.fileno()).run()
    send(report)


if __name__ == "__main__":
    main()
