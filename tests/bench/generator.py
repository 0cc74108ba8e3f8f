# -*- test-case-name: tests.bench.test_bench -*-
# Copyright txconnpool contributors. See LICENSE.
"""
The load of a benchmark: many clients in one process, which compare every reply byte by byte.

L{Generator} runs the clients in a child process and exchanges lines of JSON with it. The clients must use little
processor time, since on a small machine the load competes with the contender for the processors. An exchange takes one
C{recv}, one C{send} and one comparison if its reply arrives in one piece.
"""

from __future__ import annotations

import gc
import json
import select
import socket
import subprocess
import sys
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from itertools import cycle
from typing import Any

from tests.bench.workloads import Exchange, Workload
from tests.real.processes import dieWithParent
from tests.real.servers import SOURCE, Address, connect, raiseFileLimit

#: Seconds without any reply to any client after which a load fails.
PATIENCE = 60.0

#: Seconds of load before the first measured round: buffers grow to their final size, connections are established.
WARM_UP = 0.3

#: The maximum size of a C{recv}. It is less if replies are smaller: Python shrinks a larger buffer after each call,
#: which costs more than the call itself (measured).
RECEIVE = 1 << 16


class WrongAnswer(Exception):
    """
    A client received something other than the expected reply, or nothing.
    """


@dataclass
class Outcome:
    """
    The result of one run of the load.

    @ivar requests: the number of correctly answered requests.
    @ivar seconds: the time from the first request to the last reply.
    @ivar latencies: the number of exchanges for each latency in microseconds, as rounded by L{rounded}.
    """

    requests: int = 0
    seconds: float = 0.0
    latencies: Counter[int] = field(default_factory=Counter)

    def percentile(self, share: float) -> int:
        """
        Compute the latency, in microseconds, that this share of the exchanges did not exceed.

        @param share: between 0 and 1.
        """
        left = share * self.latencies.total()
        value = 0
        for value in sorted(self.latencies):
            left -= self.latencies[value]
            if left <= 0:
                break
        return value

    def add(self, other: Outcome) -> None:
        """
        Add the outcome of another generator that ran at the same time.
        """
        self.requests += other.requests
        self.seconds = max(self.seconds, other.seconds)
        self.latencies.update(other.latencies)


def rounded(nanoseconds: int) -> int:
    """
    Convert nanoseconds to microseconds, rounded down by at most two percent.
    """
    microseconds = nanoseconds // 1000
    step = 1 << max(0, microseconds.bit_length() - 7)
    return microseconds // step * step


class Clients:
    """
    The clients of one process, which share one epoll object.
    """

    def __init__(self, address: Address, clients: int, plan: list[Exchange]) -> None:
        """
        @param plan: the exchanges. Each idle client takes the next one; after the last comes the first again.
        @raise OSError: a client cannot connect.
        """
        self._turn: Callable[[], Exchange] = cycle(plan).__next__
        self._epoll = select.epoll(clients)
        self._sockets: dict[int, socket.socket] = {}
        self._unsent: dict[int, memoryview] = {}
        self._receive = min(RECEIVE, max(len(reply) for _, reply, _ in plan) + 1)
        try:
            for _ in range(clients):
                client = connect(address)
                self._sockets[client.fileno()] = client
                client.setblocking(False)
                if client.family == socket.AF_INET:
                    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._epoll.register(client, select.EPOLLIN)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """
        Close all connections.
        """
        self._epoll.close()
        for client in self._sockets.values():
            client.close()

    def run(self, seconds: float) -> Outcome:
        """
        Keep each client busy for the given time, then wait for the outstanding replies.

        @raise WrongAnswer: unexpected bytes arrived, a connection was closed, or replies stopped arriving.
        """
        # By descriptor: the expected bytes, or None; the number of requests that they answer; when these were sent.
        wanted: dict[int, bytes | None] = dict.fromkeys(self._sockets)
        count = dict.fromkeys(self._sockets, 0)
        since = dict.fromkeys(self._sockets, 0)
        receive = {fd: client.recv for fd, client in self._sockets.items()}
        turn, ask, poll, clock = self._turn, self._ask, self._epoll.poll, time.perf_counter_ns
        most = self._receive
        latencies: list[int] = []
        answered = 0
        busy = len(self._sockets)
        begin = clock()
        end = begin + int(seconds * 1e9)
        for fd in self._sockets:
            since[fd] = clock()
            request, wanted[fd], count[fd] = turn()
            ask(fd, request)
        while busy:
            events = poll(PATIENCE, busy)
            if not events:
                raise WrongAnswer(f"{busy} clients got no reply within {PATIENCE} s")
            for fd, event in events:
                if event & select.EPOLLOUT:
                    ask(fd, self._unsent.pop(fd))
                    if event == select.EPOLLOUT:
                        continue
                data = receive[fd](most)
                due = wanted[fd]
                if data != due:
                    wanted[fd] = rest(data, due)
                    continue
                now = clock()
                latencies.append(now - since[fd])
                answered += count[fd]
                if now < end:
                    since[fd] = now
                    request, wanted[fd], count[fd] = turn()
                    ask(fd, request)
                else:
                    wanted[fd] = None
                    busy -= 1
        return Outcome(answered, (clock() - begin) / 1e9, Counter(map(rounded, latencies)))

    def runPaced(self, seconds: float, rate: int) -> Outcome:
        """
        Send requests at a constant rate for the given time, each by a client that has nothing to do, then wait for the
        outstanding replies.

        @param rate: exchanges a second. It is less if all clients wait for replies.
        @raise WrongAnswer: as L{run}.
        """
        clock, interval = time.perf_counter_ns, int(1e9 / rate)
        idle = deque(self._sockets)
        wanted: dict[int, bytes] = {}
        since: dict[int, int] = {}
        count: dict[int, int] = {}
        outcome = Outcome()
        begin = due = clock()
        end = begin + int(seconds * 1e9)
        while due < end or wanted:
            now = clock()
            if idle and due <= now and due < end:
                fd = idle.popleft()
                since[fd] = now
                request, wanted[fd], count[fd] = self._turn()
                self._ask(fd, request)
                due += interval
                continue
            wait = (due - now) / 1e9 if idle and due < end else PATIENCE
            # The timeout of epoll itself is in milliseconds.
            if not select.select([self._epoll], [], [], max(0.0, wait))[0]:
                if wait == PATIENCE:
                    raise WrongAnswer(f"{len(wanted)} clients got no reply within {PATIENCE} s")
                continue
            for fd, event in self._epoll.poll(0):
                if event & select.EPOLLOUT:
                    self._ask(fd, self._unsent.pop(fd))
                if event != select.EPOLLOUT:
                    wanted[fd] = rest(self._sockets[fd].recv(self._receive), wanted.get(fd))
                    if not wanted[fd]:
                        del wanted[fd]
                        idle.append(fd)
                        outcome.requests += count[fd]
                        outcome.latencies[rounded(clock() - since[fd])] += 1
        outcome.seconds = (clock() - begin) / 1e9
        return outcome

    def _ask(self, fd: int, request: bytes | memoryview) -> None:
        try:
            sent = self._sockets[fd].send(request)
        except BlockingIOError:
            sent = 0
        if sent < len(request):
            self._unsent[fd] = memoryview(request)[sent:]
            self._epoll.modify(fd, select.EPOLLIN | select.EPOLLOUT)
        elif type(request) is memoryview:
            self._epoll.modify(fd, select.EPOLLIN)


def rest(data: bytes, due: bytes | None) -> bytes:
    """
    Check a part of a reply.

    @return: the bytes that are still expected.
    @raise WrongAnswer: no bytes or other bytes were expected, or the connection was closed (C{data} is empty).
    """
    if not data:
        raise WrongAnswer(f"closed, expected {_shortened(due or b'')}")
    if due is None or not due.startswith(data):
        raise WrongAnswer(f"expected {_shortened(due or b'')}, received {_shortened(data)}")
    return due[len(data) :]


def _shortened(data: bytes) -> str:
    return repr(data) if len(data) <= 200 else f"{data[:150]!r}...{data[-50:]!r} ({len(data)} bytes)"


class Generator:
    """
    The parent's handle of a child process that runs L{Clients}.
    """

    def __init__(self, address: Address, workload: Workload, clients: int) -> None:
        """
        Start the process. Its clients connect and warm up; L{ready} waits for that.

        @param clients: the number of clients in this process.
        """
        self._process = subprocess.Popen(
            # Not -m: this module would be there twice, with two classes WrongAnswer.
            [sys.executable, "-c", f"from {__name__} import main; main()"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=SOURCE,
            preexec_fn=dieWithParent,
        )
        self._send({"address": address, "workload": asdict(workload), "clients": clients})

    def ready(self) -> None:
        """
        Wait until all clients are connected and warmed up.

        @raise WrongAnswer: a client could not connect, or got a wrong reply.
        """
        self._receive()

    def go(self, seconds: float) -> None:
        """
        Start the load, for C{seconds}. L{outcome} waits for its end.
        """
        self._send({"seconds": seconds})

    def outcome(self) -> Outcome:
        """
        Wait for the end of the load.

        @raise WrongAnswer: a client got a wrong reply, or none.
        """
        message = self._receive()
        latencies = Counter({int(value): count for value, count in message["latencies"].items()})
        return Outcome(message["requests"], message["seconds"], latencies)

    @property
    def pid(self) -> int:
        """
        The process id of the child.
        """
        return self._process.pid

    def close(self) -> None:
        """
        Kill the process.
        """
        self._process.kill()
        self._process.communicate()

    def _send(self, message: dict[str, Any]) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(message) + "\n")
        self._process.stdin.flush()

    def _receive(self) -> dict[str, Any]:
        # This returns: the child has a timeout of its own (PATIENCE).
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        message: dict[str, Any] = json.loads(line) if line else {"failed": "the load generator died"}
        if "failed" in message:
            raise WrongAnswer(message["failed"])
        return message


def _serve(receive: Callable[[], str], send: Callable[[dict[str, Any]], None]) -> None:
    setup = json.loads(receive())
    address = setup["address"] if isinstance(setup["address"], str) else tuple(setup["address"])
    workload = Workload(**setup["workload"])
    kind: type[Clients] = Clients
    if workload.native:
        from tests.bench.native import NativeClients, missingCompiler  # it imports this module

        kind = Clients if missingCompiler() else NativeClients
    clients = kind(address, setup["clients"], workload.plan())
    gc.collect()
    gc.freeze()
    clients.run(WARM_UP)
    send({})
    while line := receive():
        seconds = json.loads(line)["seconds"]
        outcome = clients.runPaced(seconds, workload.rate) if workload.rate else clients.run(seconds)
        send(vars(outcome))
        # A run creates half a million integers a second. To collect garbage during a run would distort latencies.
        gc.collect()


def main() -> None:
    """
    Run the child process: read commands from the standard input, write results to the standard output.
    """

    def send(message: dict[str, Any]) -> None:
        sys.stdout.write(json.dumps(message) + "\n")
        sys.stdout.flush()

    gc.disable()
    raiseFileLimit()
    try:
        _serve(sys.stdin.readline, send)
    except (WrongAnswer, OSError) as e:
        send({"failed": f"{type(e).__name__}: {e}"})
