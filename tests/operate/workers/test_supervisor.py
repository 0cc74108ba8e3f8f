# Copyright txconnpool contributors. See LICENSE.
"""
Tests for L{txconnpool.operate.workers.supervisor}: the parent, with workers that are no processes.
"""

from __future__ import annotations

import errno
import json
import os
import socket
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any
from unittest import mock

from twisted.application.service import IService
from twisted.internet.defer import Deferred
from twisted.internet.error import CannotListenError, ProcessDone, ProcessTerminated
from twisted.internet.testing import MemoryReactorClock
from twisted.logger import capturedLogs, formatEvent
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from tests.bugs import covers
from txconnpool.config.changes import CannotChange
from txconnpool.config.settings import PoolSettings, Settings
from txconnpool.operate.operations import OperationError
from txconnpool.operate.workers import workerset
from txconnpool.operate.workers.acceptors import BUSY, EXHAUSTED
from txconnpool.operate.workers.channel import ANSWERS, CLIENTS, RECEIVED, STDERR, STDIN, STDOUT, Channel
from txconnpool.operate.workers.process import DEAD, DEAD_AT_START, LINE_MAX, SILENT, WorkerProcess
from txconnpool.operate.workers.shares import shares
from txconnpool.operate.workers.supervisor import SupervisorService, WorkersFailed
from txconnpool.operate.workers.workerset import ATTEMPTS, GRACE, PING, STEADY, TOGETHER

A = PoolSettings(name="a", listen=("tcp:1",), maxClients=3)


class Port:
    """
    A port with a real socket on another address.
    """

    def __init__(self) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self._socket.setblocking(False)
        self.address = self._socket.getsockname()
        self.reading = True
        self.open = True

    def fileno(self) -> int:
        return self._socket.fileno()

    def stopReading(self) -> None:
        self.reading = False

    def stopListening(self) -> None:
        assert self.open
        self.open = False
        self._socket.close()


class Process:
    """
    A worker process, as its parent sees it.

    @ivar calls: the calls that it has received.
    @ivar answers: its answers by the names of calls: a value, a Deferred, or an exception that is raised.
    @ivar signals: the signals that it has received.
    """

    def __init__(self, protocol: Any, command: list[str], environment: dict[str, str], descriptors: Any) -> None:
        self.protocol = protocol
        self.command = command
        self.environment = environment
        self.pipes = {number: kind for number, kind in descriptors.items() if number != CLIENTS}
        self.clients = socket.socket(fileno=os.dup(descriptors[CLIENTS]))
        self.clients.setblocking(False)
        self.calls: list[tuple[Any, ...]] = []
        self.answers: dict[str, Any] = {}
        self.signals: list[str] = []
        self.channel = Channel(lambda data: protocol.childDataReceived(ANSWERS, data), self.answer)

    def answer(self, *call: Any) -> Any:
        self.calls.append(call)
        answer = self.answers.get(call[0])
        if isinstance(answer, Exception):
            raise answer
        return answer(*call[1:]) if callable(answer) else answer

    def called(self, name: str) -> list[Any]:
        """
        @return: the arguments of the calls of a name.
        """
        return [call[1:] for call in self.calls if call[0] == name]

    def writeToChild(self, descriptor: int, data: bytes) -> None:
        assert descriptor == STDIN
        self.channel.dataReceived(data)

    def signalProcess(self, name: str) -> None:
        self.signals.append(name)

    def end(self, status: int = 0) -> None:
        self.clients.close()
        self.protocol.processEnded(Failure(ProcessTerminated(status) if status else ProcessDone(0)))

    def take(self) -> list[str]:
        """
        @return: the labels of the clients that were sent to it.
        """
        labels: list[str] = []
        while True:
            try:
                label, descriptors, _, _ = socket.recv_fds(self.clients, 1000, 1)
            except BlockingIOError:
                return labels
            labels.append(label.decode())
            for descriptor in descriptors:
                os.close(descriptor)
            self.protocol.childDataReceived(RECEIVED, b"1")


class Reactor(MemoryReactorClock):
    """
    A reactor with such ports and processes.

    @ivar begin: called with each process that is started.
    """

    def __init__(self) -> None:
        super().__init__()
        self.ports: dict[object, Port] = {}
        self.taken: set[object] = set()
        self.processes: list[Process] = []
        self.begin: Callable[[Process], object] = lambda process: None

    def _listen(self, key: object) -> Port:
        if key in self.taken:
            raise CannotListenError("", key, OSError(errno.EADDRINUSE, "Address already in use"))
        assert key not in self.ports or not self.ports[key].open
        port = self.ports[key] = Port()
        return port

    def listenTCP(self, port: int, factory: Any, backlog: int = 50, interface: str = "") -> Any:
        return self._listen(port)

    def listenUNIX(
        self, address: Any, factory: Any, backlog: int = 50, mode: int = 0o666, wantPID: bool | int = False
    ) -> Any:
        return self._listen((address, mode))

    def adoptStreamPort(self, fileDescriptor: int, addressFamily: int, factory: Any) -> Any:
        return self._listen(fileDescriptor)

    def spawnProcess(self, protocol: Any, executable: str, args: Any, env: Any, childFDs: Any) -> None:
        process = Process(protocol, [executable, *args], env, childFDs)
        self.begin(process)
        self.processes.append(process)
        protocol.makeConnection(process)


class SupervisorServiceTests(SynchronousTestCase):
    """
    Tests for L{SupervisorService}.
    """

    def setUp(self) -> None:
        self.reactor = Reactor()
        self.addCleanup(self._close)
        self.clients: list[socket.socket] = []

    def _close(self) -> None:
        for process in self.reactor.processes:
            process.clients.close()
        for client in self.clients:
            client.close()

    def start(self, *pools: PoolSettings, count: int = 2, **settings: Any) -> SupervisorService:
        """
        Start a service with workers.
        """
        service = SupervisorService(Settings(pools=pools or (A,), workers=count, **settings), self.reactor)
        service.privilegedStartService()
        service.startService()
        self.addCleanup(self._stop, service)
        return service

    def _stop(self, service: SupervisorService) -> None:
        if service.running:
            self.stop(service)

    def stop(self, service: SupervisorService) -> None:
        """
        Stop the service; its workers end when asked to.
        """
        stopped = service.stopService()
        for process in self.running(service):
            process.end()
        self.successResultOf(stopped)
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def running(self, service: SupervisorService) -> list[Process]:
        """
        @return: the processes that run, in the order of their numbers.
        """
        transports: list[Any] = [
            service.workers.processes[number].transport for number in sorted(service.workers.processes)
        ]
        return transports

    def connect(self, port: object, count: int = 1) -> None:
        """
        Connect clients to a port.
        """
        for _ in range(count):
            self.clients.append(socket.create_connection(self.reactor.ports[port].address))
        for reader in list(self.reactor.readers):
            reader.doRead()

    def given(self, service: SupervisorService) -> list[int]:
        """
        @return: the number of clients that each worker has received since the last call.
        """
        return [len(process.take()) for process in self.running(service)]

    # -- Start

    def test_interface(self) -> None:
        """
        It is a service, which opens nothing before it is started.
        """
        verifyObject(IService, SupervisorService(Settings(workers=2), self.reactor))
        self.assertEqual((self.reactor.ports, self.reactor.processes), ({}, []))

    def test_start(self) -> None:
        """
        The ports are opened here and do not accept by themselves. Each worker is started with its pipes and its
        settings.
        """
        service = self.start(A, count=2)
        self.assertEqual([port.reading for port in self.reactor.ports.values()], [False])
        for number, process in enumerate(self.reactor.processes):
            self.assertEqual(process.command[-3:], ["-m", "txconnpool.operate.workers.worker", self.reactor.__module__])
            self.assertEqual(process.pipes, {STDIN: "w", STDOUT: "r", STDERR: "r", ANSWERS: "r", RECEIVED: "r"})
            share = list(shares(service.settings, 2))[number]
            ((started,),) = process.called("start")
            self.assertEqual(started, json.loads(json.dumps(asdict(share))))

    def test_taken(self) -> None:
        """
        The error of an address that is taken is raised by the start, and no worker is started.
        """
        self.reactor.taken.add(1)
        service = SupervisorService(Settings(pools=(A,), workers=2), self.reactor)
        self.assertRaises(CannotListenError, service.privilegedStartService)
        self.assertEqual(self.reactor.processes, [])

    def test_kinds(self) -> None:
        """
        UNIX sockets are opened here too, with their mode.
        """
        self.start(replace(A, listen=("unix:/tmp/x:mode=600",)))
        self.assertEqual(list(self.reactor.ports), [("/tmp/x", 0o600)])

    # -- Clients

    def test_equal(self) -> None:
        """
        Each client is sent to the worker with the fewest clients of all pools.
        """
        service = self.start(replace(A, maxClients=99), PoolSettings(name="b", listen=("tcp:2",)), count=3)
        self.connect(1, 6)
        self.assertEqual(self.given(service), [2, 2, 2])
        first, second, third = self.running(service)
        second.channel.call("closed", {"a": 2})
        third.channel.call("closed", {"a": 1})
        self.connect(2, 3)
        self.assertEqual([len(first.take()), second.take(), third.take()], [0, ["+b\0tcp:2"] * 2, ["+b\0tcp:2"]])

    def test_tooMany(self) -> None:
        """
        The maximum of clients holds for all workers together. A client beyond it is sent to a worker to be refused, and
        not counted.
        """
        service = self.start(A)
        self.connect(1, 5)
        labels = [label for process in self.running(service) for label in process.take()]
        self.assertEqual(sorted(labels), ["+a\0tcp:1"] * 3 + ["-a\0tcp:1"] * 2)
        self.running(service)[0].channel.call("closed", {"a": 1})
        self.connect(1, 2)
        labels = [label for process in self.running(service) for label in process.take()]
        self.assertEqual(sorted(labels), ["+a\0tcp:1", "-a\0tcp:1"])

    def test_allStartFirst(self) -> None:
        """
        No client is accepted before all workers have started, and later while none runs.
        """
        starting: list[Deferred[None]] = []

        def begin(process: Process) -> None:
            starting.append(Deferred())
            process.answers["start"] = starting[-1]

        self.reactor.begin = begin
        service = self.start(A)
        self.connect(1)
        starting[0].callback(None)
        self.connect(1)
        self.assertEqual(self.given(service), [0, 0])
        starting[1].callback(None)
        self.connect(1)
        self.assertEqual(sum(self.given(service)), 3)
        for process in self.running(service):
            process.end(1)
        self.assertEqual(self.reactor.readers, set())
        self.reactor.advance(1)
        starting[2].callback(None)
        self.connect(1)
        self.assertEqual(sum(self.given(service)), 1)

    def test_busyWorker(self) -> None:
        """
        A client that the first worker cannot take is sent to another.
        """
        service = self.start(A)
        self.running(service)[0].clients.close()
        self.connect(1, 2)
        self.assertEqual(len(self.running(service)[1].take()), 2)

    def test_nobodyTakes(self) -> None:
        """
        A client that no worker can take waits, and so do later ones, until a worker can.
        """
        service = self.start(A)
        with mock.patch.object(WorkerProcess, "send", return_value=False) as send:
            self.connect(1, 2)
            self.reactor.advance(BUSY)
            self.assertEqual((send.call_count, self.given(service)), (2 * 2, [0, 0]))
        self.reactor.advance(BUSY)
        self.connect(1)
        self.assertEqual(sum(self.given(service)), 3)

    def test_nobodyTakesAnyMore(self) -> None:
        """
        Such a client is closed when the proxy stops.
        """
        service = self.start(A)
        with mock.patch.object(WorkerProcess, "send", return_value=False):
            self.connect(1)
            self.stop(service)
        self.assertEqual(self.clients[0].recv(1), b"")

    def test_stopping(self) -> None:
        """
        A worker that is about to end gets no clients.
        """
        service = self.start(A)
        self.running(service)[0].channel.call("stopping")
        self.connect(1, 2)
        self.assertEqual(self.given(service), [0, 2])

    @covers("21")
    def test_exhausted(self) -> None:
        """
        When the process has no free descriptor for a client, that is logged, and accepting goes on after L{EXHAUSTED}
        seconds.
        """
        service = self.start(A)
        (acceptor,) = self.reactor.readers
        listening, acceptor.socket = acceptor.socket, Failing()
        with capturedLogs() as logs:
            self.connect(1)
        self.assertEqual([event["log_format"] for event in logs], ["{pool}: cannot accept clients: {error}"])
        self.assertEqual(self.reactor.readers, set())
        acceptor.socket = listening
        self.reactor.advance(EXHAUSTED)
        self.connect(1)
        self.assertEqual(self.given(service), [1, 1])

    def test_exhaustedAtTheEnd(self) -> None:
        """
        A stop does not wait for these seconds.
        """
        service = self.start(A)
        (acceptor,) = self.reactor.readers
        acceptor.socket.close()
        acceptor.socket = Failing()
        self.connect(1)
        acceptor.socket = socket.socket()
        self.stop(service)

    def test_goneClient(self) -> None:
        """
        A client that disconnects while it is accepted has no effect on others.
        """
        self.start(A)
        (acceptor,) = self.reactor.readers
        listening, acceptor.socket = acceptor.socket, Failing(ConnectionAbortedError())
        self.connect(1)
        self.assertEqual(self.reactor.readers, {acceptor})
        acceptor.socket = listening

    # -- Deaths

    def test_replaced(self) -> None:
        """
        A worker that ends is replaced, after a delay that grows each time and is short again after L{STEADY} seconds.
        Its clients are not counted any more.
        """
        self.patch(workerset, "uniform", lambda low, high: 1.0)
        service = self.start(A)
        self.connect(1, 3)
        self.given(service)
        delays = []
        for _ in range(3):
            with capturedLogs() as logs:
                self.running(service)[0].end(9)
            delays += [event["delay"] for event in logs if "delay" in event]
            self.assertEqual(sorted(service.workers.processes), [2])
            self.reactor.advance(delays[-1])
            self.assertEqual(sorted(service.workers.processes), [1, 2])
        for _ in range(int(STEADY / PING) + 1):
            self.reactor.advance(PING)
        with capturedLogs() as logs:
            self.running(service)[0].end(9)
        delays += [event["delay"] for event in logs if "delay" in event]
        self.assertEqual(delays, [0.2, 0.4, 0.8, 0.2])
        self.reactor.advance(1)
        self.given(service)
        self.connect(1)
        self.assertEqual(self.running(service)[0].take(), ["+a\0tcp:1"])

    def test_handOver(self) -> None:
        """
        The clients that a worker has not received when it ends are sent to others, and the received ones are not.
        """
        service = self.start(replace(A, maxClients=9))
        first, second = self.running(service)
        self.connect(1, 2)
        self.assertEqual((first.take(), second.take()), (["+a\0tcp:1"], ["+a\0tcp:1"]))
        self.connect(1, 4)
        self.assertEqual(second.take(), ["+a\0tcp:1"] * 2)
        first.end(9)
        self.assertEqual(second.take(), ["+a\0tcp:1"] * 2)
        self.assertEqual([service.workers.processes[2].load, len(service.workers.processes[2].unreceived)], [5, 0])

    def test_handOverLater(self) -> None:
        """
        If no other worker runs, they wait for the next one. Those of a pool that was removed meanwhile are closed.
        """
        service = self.start(A, PoolSettings(name="b", listen=("tcp:2",)))
        self.connect(2)
        self.connect(1)
        for process in self.running(service):
            process.end(9)
        self.successResultOf(service.change(lambda old: replace(old, pools=(A,))))
        self.reactor.advance(1)
        self.assertEqual([label for process in self.running(service) for label in process.take()], ["+a\0tcp:1"])
        self.assertEqual(self.clients[0].recv(1), b"")

    def test_handOverAtTheEnd(self) -> None:
        """
        At a stop they are closed.
        """
        service = self.start(A)
        self.connect(1)
        self.stop(service)
        self.assertEqual(self.clients[0].recv(1), b"")

    # -- Workers that do not answer

    def pings(self, count: int) -> list[str]:
        """
        Wait for some pings.

        @return: what is logged.
        """
        with capturedLogs() as logs:
            for _ in range(count):
                self.reactor.advance(PING)
        return [formatEvent(event) for event in logs]

    def test_silent(self) -> None:
        """
        A worker that does not answer gets no clients, and gets them again if it answers.
        """
        service = self.start(A)
        first, second = self.running(service)
        self.assertEqual(self.pings(20), [])
        answer: Deferred[None] = Deferred()
        first.answers["ping"] = answer
        self.assertEqual(self.pings(SILENT), [])
        self.assertEqual(service.workers.states()["ready"], 2)
        self.assertEqual(self.pings(1), ["worker 1 does not answer: it gets no clients"])
        self.assertEqual(service.workers.states(), {"ready": 1, "starting": 0, "silent": 1, "stopping": 0, "ended": 0})
        self.connect(1, 2)
        self.assertEqual(self.given(service), [0, 2])
        first.answers["ping"] = None
        with capturedLogs() as logs:
            answer.callback(None)
        self.assertEqual([formatEvent(event) for event in logs], ["worker 1 answers again"])
        self.connect(1)
        self.assertEqual(self.given(service), [1, 0])
        self.assertEqual(self.pings(DEAD), [])
        self.assertEqual((first.signals, second.signals), ([], []))

    def test_dead(self) -> None:
        """
        One that stays silent is killed and replaced, and the clients that it has not received go to another.
        """
        service = self.start(replace(A, maxClients=9))
        first, second = self.running(service)
        first.answers["ping"] = Deferred()
        self.connect(1, 2)
        self.assertEqual(second.take(), ["+a\0tcp:1"])
        self.assertEqual(self.pings(DEAD + 1)[-1], "worker 1 does not answer: killing it")
        self.assertEqual(first.signals, ["KILL"])
        self.pings(5)
        self.assertEqual(first.signals, ["KILL"])
        first.end(9)
        self.assertEqual(second.take(), ["+a\0tcp:1"])
        self.reactor.advance(1)
        self.assertEqual(service.workers.states()["ready"], 2)

    def test_stoppedParent(self) -> None:
        """
        However long the parent was stopped itself, the workers have time to answer afterwards.
        """
        service = self.start(A)
        self.running(service)[0].answers["ping"] = Deferred()
        self.reactor.advance(PING)
        with capturedLogs() as logs:
            self.reactor.advance(1000)
        self.assertEqual(logs, [])

    def test_stuckAtStart(self) -> None:
        """
        A worker that does not start does not keep clients waiting for the others, and is killed after a longer time.
        """
        started: list[Deferred[None]] = []

        def begin(process: Process) -> None:
            if not started:
                started.append(Deferred())
                process.answers["start"] = started[0]
                process.answers["ping"] = Deferred()

        self.reactor.begin = begin
        service = self.start(A)
        self.connect(1)
        self.assertEqual(self.given(service), [0, 0])
        self.pings(TOGETHER)
        self.connect(1)
        self.assertEqual(self.given(service), [0, 2])
        self.assertEqual(self.pings(DEAD_AT_START), ["worker 1 does not answer: killing it"])
        self.assertEqual(self.running(service)[0].signals, ["KILL"])

    def test_slowStart(self) -> None:
        """
        A worker that takes long to start is ready as soon as it has started. It was not silent before.
        """
        started: list[Deferred[None]] = []
        answer: Deferred[None] = Deferred()

        def begin(process: Process) -> None:
            if not started:
                started.append(Deferred())
                process.answers["start"] = started[0]
                process.answers["ping"] = answer

        self.reactor.begin = begin
        service = self.start(A)
        self.assertEqual(self.pings(SILENT + 2), [])
        with capturedLogs() as logs:
            started[0].callback(None)
            self.assertEqual(service.workers.states()["ready"], 2)
            answer.callback(None)
        self.assertEqual([formatEvent(event) for event in logs], [])

    def test_stoppingNotAsked(self) -> None:
        """
        A worker that is about to end is not asked whether it is alive.
        """
        service = self.start(A)
        process = self.running(service)[0]
        process.channel.call("stopping")
        process.answers["ping"] = Deferred()
        self.assertEqual(self.pings(DEAD + 1), [])
        self.assertEqual(service.workers.states()["stopping"], 1)

    def test_serving(self) -> None:
        """
        The service is ready when a worker can take clients.
        """
        starting: list[Deferred[None]] = []

        def begin(process: Process) -> None:
            starting.append(Deferred())
            process.answers["start"] = starting[-1]

        self.reactor.begin = begin
        service = self.start(A)
        serving = service.serving()
        starting[0].callback(None)
        self.assertNoResult(serving)
        starting[1].callback(None)
        self.successResultOf(serving)
        self.successResultOf(service.serving())

    def test_noneStarts(self) -> None:
        """
        If no worker can start, that is an error with the reason, after L{ATTEMPTS} attempts of each.
        """

        def begin(process: Process) -> None:
            process.answers["start"] = ValueError("no such server")

        self.reactor.begin = begin
        service = self.start(A)
        serving = service.serving()
        for attempt in range(ATTEMPTS):
            self.assertNoResult(serving)
            for process in self.running(service):
                process.end(9)
            if attempt < ATTEMPTS - 1:
                self.reactor.advance(PING)
        error = self.failureResultOf(serving, WorkersFailed)
        self.assertEqual(str(error.value), "no worker can start: no such server")
        self.failureResultOf(service.serving(), WorkersFailed)
        count = len(self.reactor.processes)
        self.pings(60)
        self.assertEqual(len(self.reactor.processes), count)

    def test_oneHasServed(self) -> None:
        """
        Once a worker has served, workers that cannot start are started again and again.
        """
        self.patch(workerset, "uniform", lambda low, high: 1.0)
        service = self.start(A)
        serving = service.serving()
        for _ in range(3 * ATTEMPTS):
            for process in self.running(service):
                process.end(9)
            self.reactor.advance(20)
        self.assertEqual(len(self.running(service)), 2)
        self.successResultOf(serving)

    def test_notStarted(self) -> None:
        """
        A worker that answers that it cannot start is killed, and replaced.
        """

        def begin(process: Process) -> None:
            process.answers["start"] = ValueError("no such server")

        self.reactor.begin = begin
        with capturedLogs() as logs:
            service = self.start(A)
        self.assertEqual([event["why"] for event in logs if "why" in event], ["no such server"] * 2)
        process = self.running(service)[0]
        self.assertEqual(process.signals, ["KILL"])
        process.end(9)
        self.reactor.begin = lambda process: None
        self.reactor.advance(1)
        self.assertTrue(service.workers.processes[1].ready)

    def test_noProcess(self) -> None:
        """
        When the system has no process for a worker, it is started later.
        """

        def begin(process: Process) -> None:
            process.clients.close()
            raise OSError(errno.EAGAIN, "Resource temporarily unavailable")

        self.reactor.begin = begin
        service = self.start(A)
        self.assertEqual(service.workers.processes, {})
        self.reactor.begin = lambda process: None
        self.reactor.advance(1)
        self.assertEqual(sorted(service.workers.processes), [1, 2])
        self.connect(1, 2)
        self.assertEqual(self.given(service), [1, 1])

    def test_repeated(self) -> None:
        """
        Pools are paused, and servers drained and ejected, in a worker that replaces another, before it takes clients.
        """
        service = self.start(A, PoolSettings(name="b", listen=("tcp:2",)))
        for process in self.running(service):
            process.answers["perform"] = "done"
        for order in (("pause", None), ("resume", "b"), ("drain", "s", False), ("drain", "t", True), ("eject", "s"),
                      ("eject", "u"), ("restore", "s")):  # fmt: skip
            self.assertEqual(self.successResultOf(service.perform(*order)), "done")
        done: Deferred[str] = Deferred()

        def begin(process: Process) -> None:
            process.answers["perform"] = lambda name, *args: done if name == "pause" else "done"

        self.reactor.begin = begin
        self.running(service)[0].end(9)
        self.reactor.advance(1)
        process = self.running(service)[0]
        self.assertEqual(process.called("perform"), [("pause", "a"), ("drain", "t", False), ("eject", "u")])
        self.assertFalse(service.workers.processes[1].ready)
        done.callback("done")
        self.assertTrue(service.workers.processes[1].ready)

    def test_repeatFails(self) -> None:
        """
        An operation that cannot be repeated in a new worker is logged.
        """
        service = self.start(A)
        for process in self.running(service):
            process.answers["perform"] = "done"
        self.successResultOf(service.perform("drain", "s", False))

        def begin(process: Process) -> None:
            process.answers["perform"] = OperationError("no server")

        self.reactor.begin = begin
        self.running(service)[0].end(9)
        with capturedLogs() as logs:
            self.reactor.advance(1)
        self.assertEqual([event["why"] for event in logs if "why" in event], ["no server"])
        self.assertTrue(service.workers.processes[1].ready)

    # -- What they print and ask

    def test_prints(self) -> None:
        """
        Lines that a worker prints are logged with its number, whatever their length.
        """
        service = self.start(A)
        worker = service.workers.processes[2]
        with capturedLogs() as logs:
            worker.childDataReceived(STDOUT, b"one\ntw")
            worker.childDataReceived(STDERR, b"o \xff\n")
            worker.childDataReceived(STDOUT, b"x" * (LINE_MAX + 1))
        printed = [(event["worker"], event["text"]) for event in logs]
        self.assertEqual(printed[:2], [(2, "one"), (2, "two \ufffd")])
        self.assertEqual(len(printed[2][1]), LINE_MAX + 1)

    def test_unknown(self) -> None:
        """
        An unknown call of a worker gets an error.
        """
        service = self.start(A)
        called = self.running(service)[0].channel.call("dance")
        self.assertEqual(self.failureResultOf(called).getErrorMessage(), "no call 'dance'")

    # -- The end

    def test_stop(self) -> None:
        """
        A stop closes the ports, ends all workers, and waits for the last one.
        """
        service = self.start(A)
        stopped = service.stopService()
        self.assertFalse(self.reactor.ports[1].open)
        first, second = self.running(service)
        self.assertEqual((first.called("stop"), second.called("stop")), ([()], [()]))
        first.end()
        self.assertNoResult(stopped)
        second.end()
        self.successResultOf(stopped)
        self.assertEqual((self.reactor.getDelayedCalls(), self.reactor.readers), ([], set()))

    def test_stopWhileRestarting(self) -> None:
        """
        During a stop no worker is replaced.
        """
        service = self.start(A)
        for process in self.running(service):
            process.end(1)
        self.successResultOf(service.stopService())
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_stubborn(self) -> None:
        """
        A worker that does not end in time is killed.
        """
        service = self.start(A, drainTimeout=3.0)
        stopped = service.stopService()
        first, second = self.running(service)
        first.end()
        self.reactor.advance(3.0 + GRACE - 0.1)
        self.assertEqual(second.signals, [])
        self.reactor.advance(0.2)
        self.assertEqual((first.signals, second.signals), ([], ["KILL"]))
        second.end(9)
        self.successResultOf(stopped)

    def test_abort(self) -> None:
        """
        C{abort} ends a stop at once.
        """
        service = self.start(A, drainTimeout=100.0)
        stopped = service.stopService()
        service.abort()
        for process in self.running(service):
            self.assertEqual([call[0] for call in process.calls], ["start", "stop", "abort"])
        self.reactor.advance(GRACE)
        for process in self.running(service):
            self.assertEqual(process.signals, ["KILL"])
            process.end(9)
        self.successResultOf(stopped)

    def test_abortFirst(self) -> None:
        """
        C{abort} before a stop makes the stop end at once.
        """
        service = self.start(A, drainTimeout=100.0)
        service.abort()
        stopped = service.stopService()
        for process in self.running(service):
            self.assertEqual([call[0] for call in process.calls], ["start", "abort"])
            process.end()
        self.successResultOf(stopped)
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    # -- Changes

    def change(self, service: SupervisorService, *pools: PoolSettings, **settings: Any) -> Deferred[list[str]]:
        """
        Put other settings in force.
        """
        return service.change(lambda old: Settings(pools=pools, **{"workers": 2, **settings}))

    def test_change(self) -> None:
        """
        Each worker gets its share of the new settings.
        """
        service = self.start(A)
        new = replace(A, poolSize=9)
        self.assertEqual(self.successResultOf(self.change(service, new)), ["pool a: pool-size 4 -> 9"])
        sizes = [process.called("apply")[0][0]["pools"][0]["poolSize"] for process in self.running(service)]
        self.assertEqual(sizes, [5, 4])

    def test_fixed(self) -> None:
        """
        The number of workers does not change, and the result says so.
        """
        service = self.start(A)
        self.assertEqual(self.successResultOf(self.change(service, A, workers=3)), ["workers 2 -> 3: needs a restart"])
        self.assertEqual(len(service.workers.processes), 2)

    def test_listeners(self) -> None:
        """
        Addresses are added, moved and removed while the workers run. On those that change, no client is accepted before
        all workers have the new settings.
        """
        service = self.start(replace(A, listen=("tcp:1", "tcp:2", "tcp:3"), maxClients=99))
        waiting: Deferred[None] = Deferred()
        self.running(service)[1].answers["apply"] = waiting
        b = PoolSettings(name="b", listen=("tcp:3", "tcp:4"))
        changed = self.change(service, replace(A, listen=("tcp:1",), maxClients=99), b)
        for port in (1, 2, 3, 4):
            self.connect(port)
        self.assertEqual([label for each in self.running(service) for label in each.take()], ["+a\0tcp:1"])
        waiting.callback(None)
        self.successResultOf(changed)
        self.assertEqual([self.reactor.ports[port].open for port in (1, 2, 3, 4)], [True, False, True, True])
        self.connect(1)
        labels = [label for each in self.running(service) for label in each.take()]
        self.assertEqual(sorted(labels), ["+a\0tcp:1", "+b\0tcp:3", "+b\0tcp:4"])

    def test_cannotListen(self) -> None:
        """
        When one of the new addresses cannot be listened on, nothing is sent to the workers and nothing changes.
        """
        service = self.start(A)
        self.reactor.taken.add(9)
        change = self.change(service, replace(A, listen=("tcp:8", "tcp:9")))
        failure = self.failureResultOf(change, CannotChange)
        self.assertEqual(failure.getErrorMessage(), "cannot listen on *:9: Address already in use")
        self.assertEqual([self.reactor.ports[port].open for port in (1, 8)], [True, False])
        self.assertEqual([process.called("apply") for process in self.running(service)], [[], []])
        self.assertEqual(service.settings.pools, (A,))

    def test_defect(self) -> None:
        """
        An unexpected exception changes nothing, and is the result.
        """
        service = self.start(A)

        def listenTCP(*args: Any, **kwargs: Any) -> Any:
            raise ZeroDivisionError

        self.patch(self.reactor, "listenTCP", listenTCP)
        self.failureResultOf(self.change(service, replace(A, listen=("tcp:8",))), ZeroDivisionError)
        self.assertEqual(service.settings.pools, (A,))

    @covers("23")
    def test_workerCannot(self) -> None:
        """
        When a worker fails, all workers get the old settings again, and the reason is the error, once.
        """
        service = self.start(A)
        first, second = self.running(service)
        for faults in ({2}, {1, 2}):
            for number, process in enumerate((first, second), 1):
                process.calls.clear()
                process.answers["apply"] = CannotChange("no") if number in faults else None
            failure = self.failureResultOf(self.change(service, replace(A, listen=("tcp:8",))), CannotChange)
            self.assertEqual(failure.getErrorMessage(), "no")
            self.assertEqual([call[0]["pools"][0]["listen"] for call in first.called("apply")], [["tcp:8"], ["tcp:1"]])
            self.assertEqual([self.reactor.ports[port].open for port in (1, 8)], [True, False])
            self.connect(1)
        self.assertEqual(service.settings.pools, (A,))

    @covers("23")
    def test_endedMeanwhile(self) -> None:
        """
        A worker that ends instead of answering does not fail a change. Its replacement starts with the new settings.
        """
        service = self.start(A)
        second = self.running(service)[1]
        second.answers["apply"] = Deferred()
        changed = self.change(service, replace(A, poolSize=9))
        second.end(9)
        self.assertEqual(self.successResultOf(changed), ["pool a: pool-size 4 -> 9"])
        self.reactor.advance(1)
        ((started,),) = self.running(service)[1].called("start")
        self.assertEqual(started["pools"][0]["poolSize"], 4)

    def test_stoppingMeanwhile(self) -> None:
        """
        A worker that is about to end gets no new settings.
        """
        service = self.start(A)
        first, second = self.running(service)
        second.channel.call("stopping")
        self.successResultOf(self.change(service, replace(A, poolSize=9)))
        self.assertEqual((len(first.called("apply")), second.called("apply")), (1, []))

    def test_stopMeanwhile(self) -> None:
        """
        A change fails when the service stops meanwhile, and leaves no port.
        """
        service = self.start(A)
        waiting: Deferred[None] = Deferred()
        first, second = self.running(service)
        first.answers["apply"] = waiting
        change = self.change(service, replace(A, listen=("tcp:8",)))
        stopped = service.stopService()
        waiting.callback(None)
        self.assertIn("stopping", self.failureResultOf(change, CannotChange).getErrorMessage())
        first.end()
        second.end()
        self.successResultOf(stopped)
        self.assertEqual([port.open for port in self.reactor.ports.values()], [False, False])

    def test_forgotten(self) -> None:
        """
        Paused pools and drained servers that are removed are forgotten.
        """
        service = self.start(A)
        for process in self.running(service):
            process.answers["perform"] = "done"
        self.successResultOf(service.perform("pause", None))
        self.successResultOf(service.perform("drain", A.upstream[0], False))
        self.successResultOf(self.change(service, replace(A, name="b", upstream=("tcp:other:1",))))
        self.running(service)[0].end(9)
        self.reactor.advance(1)
        self.assertEqual(self.running(service)[0].called("perform"), [])

    # -- Controls

    def answers(self, service: SupervisorService, *answers: Any) -> None:
        """
        Set the answer of each worker to operations.
        """
        for process, answer in zip(self.running(service), answers, strict=True):
            process.answers["perform"] = answer

    def refused(self, service: SupervisorService, *order: Any) -> str:
        """
        @return: the error of an operation.
        """
        return str(self.failureResultOf(service.perform(*order), OperationError).value)

    def test_perform(self) -> None:
        """
        Operations are performed in all workers. Equal results become one, others are given for each worker.
        """
        service = self.start(A)
        self.answers(service, "done", "done")
        self.assertEqual(self.successResultOf(service.perform("pause", "a")), "done")
        self.assertEqual([each.called("perform") for each in self.running(service)], [[("pause", "a")]] * 2)
        self.answers(service, "done", "also done")
        self.assertEqual(self.successResultOf(service.perform("pause", "a")), "worker 1: done\nworker 2: also done")

    def test_cannotPerform(self) -> None:
        """
        When an operation fails in one worker, the error has the results of all.
        """
        service = self.start(A)
        self.answers(service, OperationError("no such pool"), OperationError("no such pool"))
        self.assertEqual(self.refused(service, "pause", "z"), "no such pool")
        self.answers(service, "done", OperationError("no such pool"))
        self.assertEqual(self.refused(service, "pause", "z"), "worker 1: done\nworker 2: no such pool")

    def test_nobodyRuns(self) -> None:
        """
        While no worker runs, operations fail and tables are empty.
        """
        service = self.start(A)
        for process in self.running(service):
            process.end(9)
        self.assertEqual(self.refused(service, "pause", None), "no worker runs at the moment")
        self.assertEqual(self.successResultOf(service.perform("rows", "pools", 9)), [])

    def test_rows(self) -> None:
        """
        Tables of workers are added.
        """
        service = self.start(A)
        self.answers(service, [{"pool": "a", "sessions": 2}], [{"pool": "a", "sessions": 3}])
        self.assertEqual(self.successResultOf(service.perform("rows", "pools", 9)), [{"pool": "a", "sessions": 5}])

    def test_rowsOfReady(self) -> None:
        """
        A worker that is starting has no rows.
        """
        starting: Deferred[None] = Deferred()
        self.reactor.begin = lambda process: process.answers.update(start=starting)
        service = self.start(A)
        self.answers(service, [{"pool": "a", "sessions": 2}], [{"pool": "a", "sessions": 3}])
        self.assertEqual(self.successResultOf(service.perform("rows", "pools", 9)), [])
        starting.callback(None)
        self.assertEqual(self.successResultOf(service.perform("rows", "pools", 9)), [{"pool": "a", "sessions": 5}])

    def test_kill(self) -> None:
        """
        The number of a session begins with that of its worker.
        """
        service = self.start(A)
        self.answers(service, "closed", OperationError("no session '7'"))
        self.assertEqual(self.successResultOf(service.perform("kill", "1.7")), "session 1.7 closed")
        self.assertEqual([each.called("perform") for each in self.running(service)], [[("kill", "7")], []])
        for number in ("2.7", "3.7", "7", ""):
            expected = f"no session {number!r}; `show sessions` lists them"
            self.assertEqual(self.refused(service, "kill", number), expected)


class Failing:
    """
    A socket whose C{accept} fails.
    """

    def __init__(self, error: OSError | None = None) -> None:
        self._error = error or OSError(errno.EMFILE, "Too many open files")

    def accept(self) -> None:
        raise self._error
