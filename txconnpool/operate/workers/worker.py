# -*- test-case-name: tests.operate.workers.test_worker -*-
# Copyright txconnpool contributors. See LICENSE.
"""
A worker process: a proxy that receives its clients from the parent process, as sockets.
"""

from __future__ import annotations

import signal
import socket
import sys
from collections.abc import Callable
from typing import Any, NoReturn

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.error import ReactorNotRunning
from twisted.internet.protocol import Protocol, connectionDone
from twisted.internet.stdio import StandardIO
from twisted.logger import ILogObserver, globalLogBeginner, globalLogPublisher
from twisted.python.failure import Failure

from txconnpool.config.settings import PoolSettings, Settings
from txconnpool.operate.logs import jsonObserver
from txconnpool.operate.operations import Operations
from txconnpool.operate.reactor import processReactor
from txconnpool.operate.service import ProxyService
from txconnpool.operate.statistics.snapshot import Snapshot
from txconnpool.operate.workers.channel import ANSWERS, CLIENTS, RECEIVED, STDIN, Channel, ChannelError, ignoreLost
from txconnpool.operate.workers.inbox import Inbox
from txconnpool.proxy.statistics import NoStatistics, Replies

#: Seconds that a worker that is about to end waits for the parent's answer.
NOTICE = 1.0


class WorkerProtocol(Protocol):
    """
    The worker's side of the L{Channel}, on its standard descriptors. When the parent ends, the worker ends too.

    @ivar inbox: receives the clients.
    @ivar service: the proxy, once it has started.
    """

    def __init__(self, reactor: Any, clients: socket.socket, received: int, observer: ILogObserver) -> None:
        """
        @param clients: the socket from which clients are received.
        @param received: the descriptor for a byte for each of them.
        @param observer: writes the log to the parent.
        """
        self.inbox = Inbox(reactor, clients, received, self._notifyClosed)
        self.service: ProxyService | None = None
        self._reactor = reactor
        self._observer = observer
        self._immediately = False

    def connectionMade(self) -> None:
        """
        Make the channel.
        """
        transport: Any = self.transport
        self._channel = Channel(transport.write, self._answer)

    def dataReceived(self, data: bytes) -> None:
        """
        Take bytes of the channel.
        """
        self._channel.dataReceived(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """
        The parent has ended, which read the log too: end.
        """
        globalLogPublisher.removeObserver(self._observer)
        self._channel.lost()
        self.stop()

    def _notifyClosed(self, counts: dict[str, int]) -> None:
        self._channel.call("closed", counts).addErrback(ignoreLost)

    def _answer(self, name: str, *args: Any) -> Any:
        calls: dict[str, Callable[..., Any]] = {
            "start": self._start,
            "apply": self._apply,
            "stop": self.stop,
            "abort": self._abort,
            "perform": self._perform,
            "ping": lambda: None,
            "statistics": self._snapshot,
            "ask": self._askHere,
        }
        if name not in calls:
            raise ChannelError(f"no call {name!r}")
        return calls[name](*args)

    def _start(self, settings: dict[str, Any]) -> Deferred[None]:
        self.service = self.inbox.service = ProxyService(
            _revive(settings), self._reactor, self.inbox.listen, command=True
        )
        self.service.fullSnapshot = lambda: self._channel.call("statistics")
        self.service.askServers = self._askServers
        self.service.privilegedStartService()
        self.service.startService()
        self._reactor.addReader(self.inbox)
        self._reactor.addSystemEventTrigger("before", "shutdown", self._beforeShutdown)
        return self.service.searched()

    def _apply(self, settings: dict[str, Any]) -> Deferred[None]:
        assert self.service is not None
        self.inbox.empty()  # clients that were sent before this have connected to the old addresses
        new = _revive(settings)
        return self.service.change(lambda old: new, quiet=True).addCallback(lambda lines: None)

    def _snapshot(self) -> Snapshot:
        assert self.service is not None
        return self.service.snapshot()

    def _askServers(self, pool: str, words: tuple[bytes, ...]) -> Deferred[tuple[Replies, float]]:
        """
        Ask the servers on behalf of all workers: the parent knows whether another worker has just done so.
        """
        asked = self._channel.call("ask", pool, [word.decode("latin-1") for word in words])
        return asked.addCallbacks(_revived, _unavailable)

    def _askHere(self, pool: str, words: list[str]) -> Deferred[list[tuple[str, str]]]:
        assert self.service is not None
        asked = self.service.askHere(pool, tuple(word.encode("latin-1") for word in words))
        return asked.addCallback(lambda got: [(server, reply.decode("latin-1")) for server, reply in got[0]])

    def _perform(self, name: str, *args: Any) -> Any:
        assert self.service is not None
        return Operations(self.service).perform(name, *args)

    # -- Stop

    def stop(self) -> None:
        """
        End the process.
        """
        try:
            self._reactor.stop()
        except ReactorNotRunning:
            pass  # it is being stopped already

    def _beforeShutdown(self) -> Deferred[None]:
        """
        Make the parent send no more clients, take those that it has sent, and stop the proxy.
        """
        # SIGTERM may come from a person, and from systemd, which sends it to all processes: once is enough.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        noticed = self._channel.call("stopping").addTimeout(NOTICE, self._reactor)
        return noticed.addErrback(ignoreLost).addBoth(self._stopProxy)

    def _stopProxy(self, _: object) -> Deferred[None]:
        assert self.service is not None
        self.inbox.empty()
        stopped = maybeDeferred(self.service.stopService)
        if self._immediately:
            self.service.abort()
        return stopped

    def _abort(self) -> None:
        assert self.service is not None
        self._immediately = True
        self.service.abort()
        self.stop()


def _revived(got: tuple[list[tuple[str, str]], float]) -> tuple[Replies, float]:
    replies, age = got
    return [(server, reply.encode("latin-1")) for server, reply in replies], age


def _unavailable(failure: Failure) -> NoReturn:
    failure.trap(ChannelError)
    raise NoStatistics(f"no statistics at the moment: {failure.getErrorMessage()}")


def _revive(settings: dict[str, Any]) -> Settings:
    """
    Make settings from their JSON, in which tuples have become lists.
    """
    pools = tuple(PoolSettings(**_withTuples(pool)) for pool in settings["pools"])
    return Settings(**{**_withTuples(settings), "pools": pools})


def _withTuples(settings: dict[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in settings.items()}


def work(reactor: str) -> None:
    """
    Run a worker. This is the main function of its process.

    @param reactor: the module of the parent's reactor.
    """
    process = processReactor(reactor)
    standardIO: Any = StandardIO  # its arguments are different on Windows
    # The parent reloads all workers at SIGHUP, and ends them at SIGINT, which a terminal sends to all processes.
    for number in (signal.SIGHUP, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    # The parent writes to its log what is printed here, see L{relay<txconnpool.operate.logs.relay>}.
    observer = jsonObserver(sys.stdout)
    globalLogBeginner.beginLoggingTo([observer], redirectStandardIO=False)
    clients = socket.socket(fileno=CLIENTS)
    worker = WorkerProtocol(process, clients, RECEIVED, observer)
    standardIO(worker, stdin=STDIN, stdout=ANSWERS, reactor=process)
    # Instead of the reactor's own handler, which raises an exception at the second signal.
    signal.signal(signal.SIGTERM, lambda number, frame: process.callFromThread(worker.stop))
    process.run(installSignalHandlers=False)


if __name__ == "__main__":
    work(*sys.argv[1:])
