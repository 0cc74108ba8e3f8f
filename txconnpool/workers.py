# -*- test-case-name: tests.test_workers -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Several processes on the same listening sockets, for more than one processor.

The first process listens and accepts nothing; it starts the workers, which inherit its sockets, each with its share of
every bound, and starts another when one dies. Parent and worker speak over a L{Channel}.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from random import uniform
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, DeferredList, maybeDeferred, succeed
from twisted.internet.endpoints import serverFromString
from twisted.internet.interfaces import IDelayedCall, IListeningPort
from twisted.internet.protocol import Factory, ProcessProtocol, Protocol, connectionDone
from twisted.internet.stdio import StandardIO
from twisted.logger import ILogObserver, Logger, formatEventAsClassicLogText, globalLogBeginner
from twisted.python.failure import Failure
from zope.interface import implementer

from txconnpool.config import PoolSettings, Settings
from txconnpool.service import ProxyService, withBacklog
from txconnpool.state import Backoff

#: The descriptors of a worker: what it is told, what it prints, what it tells; then the listening sockets.
STDIN, STDOUT, STDERR, ANSWERS, SOCKETS = range(5)

#: A worker that ran for so many seconds and then died is replaced at once.
STEADY = 60.0

#: Seconds that a worker has to end after its sessions have been closed.
GRACE = 2.0


def shares(settings: Settings, workers: int) -> Iterator[Settings]:
    """
    Divide the bounds of a process among several, so that they hold for all together.
    """
    for index in range(workers):
        yield replace(
            settings,
            pools=tuple(_share(pool, workers, index) for pool in settings.pools),
            workers=1,
            maxUnreadBytes=max(settings.maxUnreadBytes // workers, 1 << 20),
        )


def _share(pool: PoolSettings, workers: int, index: int) -> PoolSettings:
    def part(whole: int) -> int:
        return whole // workers + (index < whole % workers)

    size = part(pool.poolSize)
    return replace(
        pool,
        poolSize=size,
        minPoolSize=min(size, part(pool.minPoolSize)),
        maxClients=max(1, part(pool.maxClients)),
        maxWaiting=part(pool.maxWaiting),
    )


class Channel:
    """
    Calls in both directions, as lines of JSON.
    """

    def __init__(self, write: Callable[[bytes], object], answer: Callable[..., Any]) -> None:
        """
        @param write: sends bytes to the other side.
        @param answer: called with the name and the arguments of a call; may return a Deferred.
        """
        self._write = write
        self._answer = answer
        self._calls: dict[int, Deferred[Any]] = {}
        self._count = 0
        self._tail = b""

    def call(self, name: str, *args: Any) -> Deferred[Any]:
        """
        Have the other side do something.

        @return: fires with what it answers; fails with L{ChannelError} when it could not, or is gone.
        """
        self._count += 1
        answered = self._calls[self._count] = Deferred()
        self._send({"call": self._count, "name": name, "args": args})
        return answered

    def _send(self, message: dict[str, Any]) -> None:
        self._write(json.dumps(message).encode() + b"\n")

    def dataReceived(self, data: bytes) -> None:
        """
        Take what the other side sent.
        """
        *lines, self._tail = (self._tail + data).split(b"\n")
        for line in lines:
            self._take(json.loads(line))

    def _take(self, message: dict[str, Any]) -> None:
        if "name" in message:
            number = message["call"]
            answer = maybeDeferred(self._answer, message["name"], *message["args"])
            answer.addCallbacks(
                lambda value: self._send({"done": number, "value": value}),
                lambda failure: self._send({"done": number, "error": failure.getErrorMessage()}),
            )
        elif "error" in message:
            self._calls.pop(message["done"]).errback(ChannelError(message["error"]))
        else:
            self._calls.pop(message["done"]).callback(message["value"])

    def lost(self) -> None:
        """
        The other side is gone.
        """
        calls, self._calls = self._calls, {}
        for answered in calls.values():
            answered.errback(ChannelError("the process has ended"))


class ChannelError(Exception):
    """
    A call that the other side could not answer.
    """


class _Sockets:
    """
    A reactor to listen with, and nothing else: whatever L{serverFromString} makes of a description ends in one of
    these three calls.
    """

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reactor, name)


class Binding(_Sockets):
    """
    Of the parent: binds and listens, and leaves it to others to accept.

    @ivar ports: all that was bound.
    """

    def __init__(self, reactor: Any) -> None:
        super().__init__(reactor)
        self.ports: list[Any] = []

    def listenTCP(self, port: int, factory: Factory, backlog: int = 50, interface: str = "") -> IListeningPort:
        """
        Bind a TCP port.
        """
        return self._bound(self._reactor.listenTCP(port, factory, backlog, interface))

    def listenSSL(
        self, port: int, factory: Factory, context: object, backlog: int = 50, interface: str = ""
    ) -> IListeningPort:
        """
        Bind a TCP port; TLS is for who accepts.
        """
        return self.listenTCP(port, factory, backlog, interface)

    def listenUNIX(
        self, address: str, factory: Factory, backlog: int = 50, mode: int = 0o666, wantPID: bool = False
    ) -> IListeningPort:
        """
        Bind a UNIX socket.
        """
        return self._bound(self._reactor.listenUNIX(address, factory, backlog, mode, wantPID))

    def _bound(self, port: Any) -> IListeningPort:
        port.stopReading()
        self.ports.append(port)
        bound: IListeningPort = port
        return bound


class Inherited(_Sockets):
    """
    Of a worker: takes the sockets that the parent bound, in the order in which it did.
    """

    def __init__(self, reactor: Any, first: int = SOCKETS) -> None:
        super().__init__(reactor)
        self._next = first

    def listenTCP(self, port: int, factory: Any, backlog: int = 50, interface: str = "") -> Any:
        """
        Accept from the next socket.
        """
        number = self._next
        self._next += 1
        # Twisted works on a copy; this one would keep the socket listening when that has been closed.
        with socket.socket(fileno=number) as inherited:
            inherited.setblocking(False)
            return self._reactor.adoptStreamPort(number, inherited.family, factory)

    def listenSSL(
        self, port: int, factory: Factory, context: Any, backlog: int = 50, interface: str = ""
    ) -> IListeningPort:
        """
        Accept TLS connections from the next socket.
        """
        from twisted.protocols.tls import TLSMemoryBIOFactory  # there is no TLS without its extra

        accepted: IListeningPort = self.listenTCP(port, TLSMemoryBIOFactory(context, False, factory))
        return accepted

    def listenUNIX(
        self, address: str, factory: Factory, backlog: int = 50, mode: int = 0o666, wantPID: bool = False
    ) -> SharedUNIX:
        """
        Accept from the next socket.
        """
        return SharedUNIX(self.listenTCP(0, factory))


class SharedUNIX:
    """
    A UNIX socket of the parent. Twisted's own port would remove its file when it stops.
    """

    def __init__(self, port: Any) -> None:
        self._port = port

    def getHost(self) -> Any:
        """
        @return: the address.
        """
        return self._port.getHost()

    def stopListening(self) -> Deferred[None]:
        """
        Accept nothing more. The parent has removed the file, so nobody finds the socket.
        """
        self._port.stopReading()
        return succeed(None)


class _Nobody(Factory):
    """
    Of sockets from which nothing is accepted here.
    """

    noisy = False


class Worker(ProcessProtocol):
    """
    A worker, as its parent sees it.
    """

    _log = Logger()
    transport: Any

    def __init__(self, number: int, settings: Settings, parent: Workers) -> None:
        self.number = number
        self.settings = settings
        self._parent = parent
        self._printed = b""
        self.since = 0.0

    def connectionMade(self) -> None:
        """
        Tell it what it is to be.
        """
        self.since = self._parent.reactor.seconds()
        self.channel = Channel(lambda data: self.transport.writeToChild(STDIN, data), self._parent.answer)
        self.channel.call("start", asdict(self.settings)).addErrback(
            lambda failure: self._log.error("worker {number} did not start: {why}", number=self.number,
                                            why=failure.getErrorMessage())
        )  # fmt: skip

    def childDataReceived(self, childFD: int, data: bytes) -> None:
        """
        Take what it says; what it prints goes to the log.
        """
        if childFD == ANSWERS:
            self.channel.dataReceived(data)
            return
        *lines, self._printed = (self._printed + data).split(b"\n")
        for line in lines:
            self._log.info("worker {number}: {line}", number=self.number, line=line.decode(errors="replace"))

    def processEnded(self, reason: Failure) -> None:
        """
        It has ended.
        """
        self.channel.lost()
        self._parent.ended(self, reason)

    def signal(self, name: str) -> None:
        """
        Send it a signal.
        """
        self.transport.signalProcess(name)


class Workers(Service):
    """
    The proxy in several processes: listens in this one, and works in others.
    """

    _log = Logger()

    def __init__(self, settings: Settings, reactor: Any = None) -> None:
        """
        @param settings: the whole of it; C{settings.workers} processes share its bounds.
        @param reactor: where to run; the global reactor if not given.
        """
        if reactor is None:
            from twisted.internet import reactor
        self.settings = settings
        self.reactor = reactor
        self.workers: dict[int, Worker] = {}
        self._binding: Binding | None = None
        self._backoff = Backoff(initial=0.2, maximum=10.0)
        self._deaths: dict[int, int] = {}
        self._restarts: dict[int, IDelayedCall] = {}
        self._ending: Deferred[None] | None = None
        self.setName("workers")

    def privilegedStartService(self) -> None:
        """
        Bind what the workers will accept from.

        @raise CannotListenError: an address is taken or not ours.
        """
        super().privilegedStartService()
        self._bind()

    def _bind(self) -> None:
        self._binding = Binding(self.reactor)
        for pool in self.settings.pools:
            for description in pool.listen:
                failures: list[Failure] = []
                endpoint = serverFromString(self._binding, withBacklog(description))
                endpoint.listen(_Nobody()).addErrback(failures.append)
                if failures:
                    failures[0].raiseException()

    def startService(self) -> None:
        """
        Start the workers.
        """
        super().startService()
        if self._binding is None:
            self._bind()
        for number, settings in enumerate(shares(self.settings, self.settings.workers), 1):
            self._spawn(number, settings)

    def _spawn(self, number: int, settings: Settings) -> None:
        self._restarts.pop(number, None)
        worker = self.workers[number] = Worker(number, settings, self)
        descriptors: dict[int, int | str] = {STDIN: "w", STDOUT: "r", STDERR: "r", ANSWERS: "r"}
        ports = self._binding.ports if self._binding is not None else []
        descriptors.update((SOCKETS + index, port.fileno()) for index, port in enumerate(ports))
        command = [sys.executable, "-m", "txconnpool.workers"]
        environment = dict(os.environ, PYTHONPATH=os.pathsep.join(path or os.getcwd() for path in sys.path))
        self.reactor.spawnProcess(worker, sys.executable, command, environment, childFDs=descriptors)

    def ended(self, worker: Worker, reason: Failure) -> None:
        """
        A worker has ended. If it was not told to, another takes its place.
        """
        number = worker.number
        del self.workers[number]
        if self._ending is not None:
            if not self.workers:
                self._ending.callback(None)
            return
        if self.reactor.seconds() - worker.since > STEADY:
            self._deaths[number] = 0
        self._deaths[number] = self._deaths.get(number, 0) + 1
        delay = self._backoff.delay(self._deaths[number], uniform)
        self._log.error("worker {number} ended: {reason}; another starts in {delay:.1f} s", number=number,
                        reason=reason.getErrorMessage(), delay=delay)  # fmt: skip
        self._restarts[number] = self.reactor.callLater(delay, self._spawn, number, worker.settings)

    def stopService(self) -> Deferred[None]:
        """
        Listen no more, and let each worker end as the proxy does.

        @return: fires when the last of them has ended.
        """
        super().stopService()
        for restart in self._restarts.values():
            restart.cancel()
        self._restarts.clear()
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        if self._binding is not None:
            await DeferredList([maybeDeferred(port.stopListening) for port in self._binding.ports])
            self._binding = None
        if not self.workers:
            return
        self._ending = Deferred()
        for worker in self.workers.values():
            worker.signal("TERM")
        kill = self.reactor.callLater(self.settings.drainTimeout + GRACE, self._kill)
        await self._ending
        self._ending = None
        if kill.active():
            kill.cancel()

    def _kill(self) -> None:
        for worker in self.workers.values():
            self._log.error("worker {number} did not end in time: killing it", number=worker.number)
            worker.signal("KILL")

    def answer(self, name: str, *args: Any) -> Any:
        """
        Answer a worker's call.
        """
        raise ChannelError(f"no call {name!r}")


class _Process(Protocol):
    """
    The worker's side of its L{Channel}, on its standard descriptors. Without a parent it ends.
    """

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self.service: ProxyService | None = None

    def connectionMade(self) -> None:
        """
        Listen to the parent.
        """
        transport: Any = self.transport
        self._channel = Channel(transport.write, self._answer)

    def dataReceived(self, data: bytes) -> None:
        """
        The parent says something.
        """
        self._channel.dataReceived(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """
        The parent is gone.
        """
        self._channel.lost()
        if self._reactor.running:
            self._reactor.stop()

    def _answer(self, name: str, *args: Any) -> Any:
        if name == "start":
            return self._start(*args)
        raise ChannelError(f"no call {name!r}")

    def _start(self, settings: dict[str, Any]) -> None:
        self.service = ProxyService(_revive(settings), self._reactor, Inherited(self._reactor))
        self.service.privilegedStartService()
        self.service.startService()
        self._reactor.addSystemEventTrigger("before", "shutdown", self.service.stopService)


def _revive(settings: dict[str, Any]) -> Settings:
    """
    Make settings of what JSON made of them.
    """
    pools = [PoolSettings(**{key: _tuple(value) for key, value in pool.items()}) for pool in settings.pop("pools")]
    return Settings(pools=tuple(pools), **{key: _tuple(value) for key, value in settings.items()})


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


@implementer(ILogObserver)
class _Print:
    """
    The log of a worker: lines for the parent, which puts the time to them.
    """

    def __call__(self, event: dict[str, Any]) -> None:
        text = formatEventAsClassicLogText(event, formatTime=lambda time: "")
        if text is not None:
            sys.stdout.write(text.lstrip())
            sys.stdout.flush()


def work() -> None:
    """
    Be a worker: the main function of its process.
    """
    from twisted.internet import reactor

    process: Any = reactor
    standardIO: Any = StandardIO  # what it takes is another thing on Windows
    # Reload is the parent's to do, for all.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    globalLogBeginner.beginLoggingTo([_Print()], redirectStandardIO=False)
    standardIO(_Process(process), stdin=STDIN, stdout=ANSWERS, reactor=process)
    process.run()


if __name__ == "__main__":
    work()
