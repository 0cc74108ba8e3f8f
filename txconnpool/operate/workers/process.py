# -*- test-case-name: tests.operate.workers.test_supervisor -*-
# Copyright txconnpool contributors. See LICENSE.
"""
A worker process, as the parent process sees it.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections import Counter, deque
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

from twisted.internet.defer import Deferred
from twisted.internet.protocol import ProcessProtocol
from twisted.logger import Logger
from twisted.python.failure import Failure

import txconnpool
from txconnpool.config.settings import Settings
from txconnpool.operate.logs import relay
from txconnpool.operate.workers.channel import (
    ANSWERS,
    CLIENTS,
    RECEIVED,
    STDERR,
    STDIN,
    STDOUT,
    Channel,
    ChannelLost,
    ignoreLost,
)

_log = Logger("txconnpool.workers")

#: The most bytes of a line that a worker prints; a longer one is logged in pieces.
LINE_MAX = 1 << 16

#: The number of pings in a row that a worker may leave unanswered until it gets no clients, and until it is killed:
#: after its start, and before that.
SILENT, DEAD, DEAD_AT_START = 3, 10, 30

#: Sockets that keep messages apart, and notice when the other end is closed. Some systems have only the first.
_PACKETS = socket.SOCK_SEQPACKET if sys.platform == "linux" else socket.SOCK_DGRAM


def modulePath() -> list[str]:
    """
    @return: the directories from which a worker imports modules: those of this process, except the current directory,
        where others may be able to create files such as C{json.py}. It is among them only if this package is there.
    """
    here, ours = os.path.realpath(os.getcwd()), os.path.realpath(Path(txconnpool.__file__).parent.parent)
    return [path for path in sys.path if path and (here == ours or os.path.realpath(path) != here)]


@dataclass(frozen=True)
class SentClient:
    """
    A client on its way to a worker.

    @ivar pool: the name of its pool.
    @ivar description: the endpoint string of the address that the client has connected to.
    @ivar socket: its connection.
    """

    pool: str
    description: str
    socket: socket.socket


class ProcessOwner(Protocol):
    """
    The owner of worker processes.

    @ivar reactor: the reactor.
    """

    reactor: Any

    def started(self, worker: WorkerProcess) -> Deferred[Any]:
        """
        A worker has started.

        @return: fires when clients can be sent to it.
        """

    def readinessChanged(self) -> None:
        """
        A worker can take clients now, or cannot any more.
        """

    def answer(self, name: str, *args: Any) -> Any:
        """
        Answer a call of a worker.

        @return: the answer, or a Deferred that fires with it.
        """

    def ended(self, worker: WorkerProcess, reason: Failure) -> None:
        """
        A worker has ended.
        """


def endOf(reason: Failure) -> str:
    """
    @param reason: why C{processEnded} was called.

    @return: how the process ended, with the name of the signal, without a full stop.
    """
    number, code = (getattr(reason.value, name, None) for name in ("signal", "exitCode"))
    if number is None:
        return reason.getErrorMessage().rstrip(".") if code is None else f"exit code {code}"
    try:
        return f"signal {number} ({signal.Signals(number).name})"
    except ValueError:  # most of the real-time signals have no name
        return f"signal {number}"


class WorkerProcess(ProcessProtocol):
    """
    A worker process.

    @ivar number: the number of the worker, from 1.
    @ivar stopping: whether it is about to end.
    @ivar unreceived: the clients that were sent to it and that it has not received yet, the oldest first.
    @ivar why: why it could not start; an empty string if it did not say that.
    @ivar since: when it was started, in seconds of the reactor's clock.
    @ivar channel: calls to it and from it.
    """

    transport: Any

    def __init__(self, number: int, settings: Settings, owner: ProcessOwner) -> None:
        """
        @param settings: the settings of this worker.
        """
        self.number = number
        self.stopping = False
        self.since = 0.0
        self.unreceived: deque[SentClient] = deque()
        self.why = ""
        self._prepared = False
        self._silence = 0  # pings in a row without an answer
        self._pinged = False
        self._killed = False
        self._settings = settings
        self._owner = owner
        self._sent: Counter[str] = Counter()
        self._closed: Counter[str] = Counter()
        self._printed = b""

    def spawn(self) -> None:
        """
        Start the process.

        @raise OSError: the system has no process for it.
        """
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, _PACKETS)
        self._socket.setblocking(False)
        descriptors = {STDIN: "w", STDOUT: "r", STDERR: "r", ANSWERS: "r", CLIENTS: theirs.fileno(), RECEIVED: "r"}
        # Without -P, Python would put the current directory first on its path.
        module = "txconnpool.operate.workers.worker"
        command = [sys.executable, "-P", "-m", module, type(self._owner.reactor).__module__]
        environment = dict(os.environ, PYTHONPATH=os.pathsep.join(modulePath()))
        with theirs:
            try:
                self._owner.reactor.spawnProcess(self, sys.executable, command, environment, childFDs=descriptors)
            except OSError:
                self._socket.close()
                raise

    def connectionMade(self) -> None:
        """
        Send the process its settings.
        """
        self.since = self._owner.reactor.seconds()
        self.channel = Channel(lambda data: self.transport.writeToChild(STDIN, data), self._answer)
        self.channel.call("start", asdict(self._settings)).addCallbacks(self._started, self._notStarted)

    def _started(self, _: None) -> None:
        self._owner.started(self).addCallback(self._becomeReady)

    def _becomeReady(self, _: object) -> None:
        self._prepared = True
        self._silence = 0  # it has just answered
        self._owner.readinessChanged()

    def _notStarted(self, failure: Failure) -> None:
        if not failure.check(ChannelLost):
            self.why = failure.getErrorMessage()
            _log.error("worker {number} did not start: {why}", number=self.number, why=self.why)
            self.transport.signalProcess("KILL")

    @property
    def state(self) -> str:
        """
        C{"starting"}, C{"ready"}, C{"silent"} (it does not answer) or C{"stopping"}.
        """
        if self.stopping:
            return "stopping"
        if self._silence >= SILENT and self._prepared:
            return "silent"
        return "ready" if self._prepared else "starting"

    @property
    def ready(self) -> bool:
        """
        Whether it can take clients.
        """
        return self.state == "ready"

    def ping(self) -> None:
        """
        Ask the process for an answer. One that gives none for some time gets no clients, and is killed after more time.
        Pings are counted, not seconds: a parent that was stopped itself has not asked meanwhile.
        """
        if self.stopping or self._killed:
            return
        if not self._pinged:
            self._pinged = True
            self.channel.call("ping").addCallbacks(self._answered, ignoreLost)
            return
        self._silence += 1
        if self._silence == SILENT and self._prepared:
            _log.error("worker {number} does not answer: it gets no clients", number=self.number)
            self._owner.readinessChanged()
        elif self._silence >= (DEAD if self._prepared else DEAD_AT_START):
            self.kill("does not answer")

    def _answered(self, _: None) -> None:
        silence, self._silence, self._pinged = self._silence, 0, False
        if silence >= SILENT and self._prepared:
            _log.info("worker {number} answers again", number=self.number)
            self._owner.readinessChanged()

    def _answer(self, name: str, *args: Any) -> Any:
        if name == "closed":
            self._closed = Counter(*args)
        elif name == "stopping":
            self.stopping = True
            self._owner.readinessChanged()
        else:
            return self._owner.answer(name, *args)
        return None

    # -- Clients

    def clients(self, pool: str) -> int:
        """
        @return: the number of clients of a pool that the worker has.
        """
        return self._sent[pool] - self._closed[pool]

    @property
    def load(self) -> int:
        """
        The number of clients of all pools that the worker has.
        """
        return self._sent.total() - self._closed.total()

    def send(self, pool: str, description: str, client: socket.socket, accepted: bool) -> bool:
        """
        Send a client to the worker.

        @param description: the endpoint string of the address that the client has connected to.
        @param client: its connection. If it was sent, it is kept until the worker has received it, and closed then.
        @param accepted: whether the worker is to serve the client; if not, it answers that there are too many.

        @return: whether it was sent. It is not when the worker is busy, or about to end.
        """
        label = f"{'+' if accepted else '-'}{pool}\0{description}".encode()
        try:
            socket.send_fds(self._socket, [label], [client.fileno()])
        except OSError:
            return False
        self.unreceived.append(SentClient(pool, description, client))
        self._sent[pool] += accepted
        return True

    # -- The process

    def childDataReceived(self, childFD: int, data: bytes) -> None:
        """
        Take bytes of the channel, or write printed lines to the log.
        """
        if childFD == ANSWERS:
            self.channel.dataReceived(data)
            return
        if childFD == RECEIVED:
            for _ in data:
                self.unreceived.popleft().socket.close()
            return
        *lines, self._printed = (self._printed + data).split(b"\n")
        if len(self._printed) > LINE_MAX:
            lines, self._printed = [*lines, self._printed], b""
        for line in lines:
            relay(_log, self.number, line)

    def processEnded(self, reason: Failure) -> None:
        """
        Close the channel and the socket, and notify the owner.
        """
        self._prepared = False
        self._socket.close()
        self.channel.lost()
        self._owner.ended(self, reason)

    def kill(self, why: str = "did not end in time") -> None:
        """
        End the process by force.

        @param why: what it did, for the log.
        """
        _log.error("worker {number} {what}: killing it", number=self.number, what=why)
        self._killed = True
        self.transport.signalProcess("KILL")
