# -*- test-case-name: tests.bench.test_bench -*-
# Copyright txconnpool contributors. See LICENSE.
"""
The load of a benchmark: many clients in one process, every reply compared byte by byte.

L{Generator} runs it as a child process and speaks lines of JSON with it. What counts is that asking and checking cost
little, since on a small machine the load competes with the contender for the processors: one C{recv}, one C{send} and
one comparison for an exchange whose reply comes in one piece.
"""

from __future__ import annotations

import gc
import json
import select
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from itertools import cycle
from typing import Any

from tests.bench.workloads import Exchange, Workload
from tests.real.servers import SOURCE, Address, connect, dieWithParent, raiseFileLimit

#: Seconds without any answer at all after which a load is given up.
PATIENCE = 10.0

#: Seconds of load before the first that is measured, so that all buffers have grown and all connections are made.
WARM_UP = 0.3

#: Most bytes taken at once, or what a reply has if that is less: a larger buffer is cut to size after each call, which
#: was measured to cost more than the call itself.
RECEIVE = 1 << 16


class WrongAnswer(Exception):
    """
    What came is not what was due.
    """


@dataclass
class Outcome:
    """
    What one run of the load saw.

    @ivar requests: answered, and rightly.
    @ivar seconds: from the first request to the last reply.
    @ivar latencies: how many exchanges took how many microseconds, see L{rounded}.
    """

    requests: int = 0
    seconds: float = 0.0
    latencies: Counter[int] = field(default_factory=Counter)

    def percentile(self, share: float) -> int:
        """
        The microseconds within which this share of the exchanges was answered.
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
        Take in what another generator saw at the same time.
        """
        self.requests += other.requests
        self.seconds = max(self.seconds, other.seconds)
        self.latencies.update(other.latencies)


def rounded(nanoseconds: int) -> int:
    """
    Turn a duration into microseconds, rounded down by at most two percent.
    """
    microseconds = nanoseconds // 1000
    step = 1 << max(0, microseconds.bit_length() - 7)
    return microseconds // step * step


class Clients:
    """
    All clients of one process, on one epoll.
    """

    def __init__(self, address: Address, clients: int, plan: list[Exchange]) -> None:
        """
        @param plan: the exchanges, begun anew when all were used: each client that is free takes the next one.
        @raise OSError: when a client cannot connect.
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
        Keep each client busy for so long, then wait for the replies that are still due.

        @raise WrongAnswer: when anything comes that is not due, a connection is closed, or no answer comes any more.
        """
        # By descriptor: the bytes that are due, or None; the number of requests they answer; when these were sent.
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
                raise WrongAnswer(f"{busy} clients wait for an answer, none came for {PATIENCE} s")
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
    A part of a reply came.

    @return: what is still due.
    @raise WrongAnswer: when nothing was due, something else was, or the connection was closed (C{data} is empty).
    """
    if not data:
        raise WrongAnswer(f"closed while {_shortened(due or b'')} was due")
    if due is None or not due.startswith(data):
        raise WrongAnswer(f"{_shortened(due or b'')} was due, {_shortened(data)} came")
    return due[len(data) :]


def _shortened(data: bytes) -> str:
    return repr(data) if len(data) <= 200 else f"{data[:150]!r}...{data[-50:]!r} ({len(data)} bytes)"


class Generator:
    """
    A child process with clients, seen from the parent.
    """

    def __init__(self, address: Address, workload: Workload, clients: int) -> None:
        """
        Start the process and have its clients connect and warm up, which L{ready} waits for.

        @param clients: how many of the workload's clients this process is.
        """
        self._process = subprocess.Popen(
            [sys.executable, "-m", __name__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=SOURCE,
            preexec_fn=dieWithParent,
        )
        self._say({"address": address, "workload": asdict(workload), "clients": clients})

    def ready(self) -> None:
        """
        Wait until all clients are connected and have been answered.

        @raise WrongAnswer: when one cannot connect, or was answered wrongly.
        """
        self._hear()

    def go(self, seconds: float) -> None:
        """
        Start the load; L{outcome} waits for its end.
        """
        self._say({"seconds": seconds})

    def outcome(self) -> Outcome:
        """
        Wait for the end of the load.

        @raise WrongAnswer: when a client was answered wrongly, or not at all.
        """
        heard = self._hear()
        latencies = Counter({int(value): count for value, count in heard["latencies"].items()})
        return Outcome(heard["requests"], heard["seconds"], latencies)

    @property
    def pid(self) -> int:
        """
        The process id of the child.
        """
        return self._process.pid

    def close(self) -> None:
        """
        End the process.
        """
        self._process.kill()
        self._process.communicate()

    def _say(self, message: dict[str, Any]) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(message) + "\n")
        self._process.stdin.flush()

    def _hear(self) -> dict[str, Any]:
        # The child gives up by itself when nothing happens, so this ends.
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        heard: dict[str, Any] = json.loads(line) if line else {"failed": "the load generator died"}
        if "failed" in heard:
            raise WrongAnswer(heard["failed"])
        return heard


def _serve(hear: Callable[[], str], say: Callable[[dict[str, Any]], None]) -> None:
    told = json.loads(hear())
    address = told["address"] if isinstance(told["address"], str) else tuple(told["address"])
    clients = Clients(address, told["clients"], Workload(**told["workload"]).plan())
    gc.collect()
    gc.freeze()
    clients.run(WARM_UP)
    say({})
    while line := hear():
        outcome = clients.run(json.loads(line)["seconds"])
        say(vars(outcome))
        # Half a million integers a second: collecting in between would be seen in the latencies.
        gc.collect()


def main() -> None:
    """
    The child process.
    """

    def say(message: dict[str, Any]) -> None:
        sys.stdout.write(json.dumps(message) + "\n")
        sys.stdout.flush()

    gc.disable()
    raiseFileLimit()
    try:
        _serve(sys.stdin.readline, say)
    except (WrongAnswer, OSError) as e:
        say({"failed": f"{type(e).__name__}: {e}"})


if __name__ == "__main__":
    main()
