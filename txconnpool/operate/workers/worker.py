# -*- test-case-name: tests.operate.workers.test_worker -*-
# Copyright txconnpool contributors. See LICENSE.
"""
One of several processes behind the same listening sockets: a proxy that is given its clients, as sockets.

L{txconnpool.operate.workers.supervisor} is the other side.
"""

from __future__ import annotations

import signal
import socket
import sys
from collections import Counter
from collections.abc import Callable
from errno import ENOTCONN
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred, succeed
from twisted.internet.error import ReactorNotRunning
from twisted.internet.interfaces import IDelayedCall, IListeningPort, IReadDescriptor
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.stdio import StandardIO
from twisted.logger import ILogObserver, Logger, globalLogBeginner, globalLogPublisher
from twisted.python.failure import Failure
from zope.interface import implementer

from txconnpool.config.settings import PoolSettings, Settings
from txconnpool.net.clock import steady
from txconnpool.net.endpoints import Listener, withoutUnder
from txconnpool.operate.logs import jsonObserver
from txconnpool.operate.operations import Operations
from txconnpool.operate.service import ProxyService
from txconnpool.operate.workers.channel import Channel, ChannelError, ignoreLost
from txconnpool.proxy.listener import ClientListener

_log = Logger("txconnpool.workers")

#: The descriptors of a worker: what it is told, what it prints, what it answers, and where its clients come from.
STDIN, STDOUT, STDERR, ANSWERS, CLIENTS = range(5)

#: Clients that are taken in one turn of the reactor, at most.
BATCH = 64

#: Seconds in which a worker collects what it has to tell about clients that have gone.
COLLECT = 0.01

#: Seconds that a worker that is about to end waits until the parent knows.
NOTICE = 1.0


class Facade:
    """
    A reactor to listen with, and nothing else: whatever C{serverFromString} makes of a description ends in one of the
    calls that subclasses have.
    """

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reactor, name)


class Given:
    """
    A port where nothing is accepted: the clients are given to us.

    @ivar factory: makes them sessions.
    """

    def __init__(self, factory: Any) -> None:
        self.factory = factory

    def stopListening(self) -> Deferred[None]:
        """
        There is nothing to stop.
        """
        return succeed(None)


class _Giving(Facade):
    """
    Finds out what becomes of a factory on its way from an endpoint's description to the reactor.
    """

    def listenTCP(self, port: int, factory: Factory, backlog: int = 50, interface: str = "") -> Given:
        """
        Nothing.
        """
        return Given(factory)

    def listenUNIX(
        self, address: str, factory: Factory, backlog: int = 50, mode: int = 0o666, wantPID: bool = False
    ) -> Given:
        """
        Nothing.
        """
        return Given(factory)


@implementer(IReadDescriptor)
class Inbox:
    """
    Where a worker's clients come from.

    @ivar service: whose they become.
    """

    def __init__(self, reactor: Any, clients: socket.socket, gone: Callable[[dict[str, int]], object]) -> None:
        """
        @param clients: the other end of what the parent has.
        @param gone: called, soon after clients have gone, with how many of each pool have.
        """
        clients.setblocking(False)
        self._reactor = reactor
        self._clients = clients
        self._tellGone = gone
        self._taken: Counter[str] = Counter()
        self._telling: IDelayedCall | None = None
        self.service: ProxyService | None = None

    def fileno(self) -> int:
        """
        @return: the descriptor to watch.
        """
        return self._clients.fileno()

    def logPrefix(self) -> str:
        """
        @return: who this is, for logs.
        """
        return "clients"

    def listen(self, description: str, listener: ClientListener) -> Deferred[IListeningPort]:
        """
        Have the clients who come to an endpoint, for a L{ProxyService}.
        """
        if description.startswith(("systemd:", "unix:")):
            port: Deferred[Any] = succeed(Given(listener))  # the socket is the parent's
        else:
            listener.endpoint = Listener(_Giving(self._reactor), withoutUnder(description))
            port = listener.endpoint.listen(listener)
        return port

    def doRead(self) -> None:
        """
        Take who is there.
        """
        for _ in range(BATCH):
            if not self.take():
                return

    def empty(self) -> None:
        """
        Take all who are there.
        """
        while self.take():
            pass

    def take(self) -> bool:
        """
        Take one client.

        @return: whether there was one.
        """
        try:
            label, descriptors, _, _ = socket.recv_fds(self._clients, 1 << 16, 1)
        except BlockingIOError:
            return False
        if not label:
            self._reactor.removeReader(self)
            return False
        if not descriptors:
            _log.error("a client is lost: this process has no descriptor for it")
        welcome, (pool, description) = label[:1] == b"+", label[1:].decode().split("\0")
        self._taken[pool] += welcome
        for descriptor in descriptors:
            with socket.socket(fileno=descriptor) as client:
                self._adopt(pool, description, client, welcome)
        self.left()
        return True

    def _adopt(self, pool: str, description: str, client: socket.socket, welcome: bool) -> None:
        assert self.service is not None
        proxy = next((proxy for proxy in self.service.proxies if proxy.name == pool), None)
        listener = proxy.listeners.get(description) if proxy is not None else None
        if listener is None:
            return
        client.setblocking(False)
        port: Any = listener.port
        listener.sessions.ended = self.left
        listener.sessions.full = not welcome
        try:
            client.getpeername()
            # Twisted works on a copy of the descriptor.
            self._reactor.adoptStreamConnection(client.fileno(), client.family, port.factory)
        except Exception as error:
            # Whatever it is, the others are still to come: what let an exception out the reactor would read no more.
            if getattr(error, "errno", None) != ENOTCONN:  # it has not just gone
                _log.failure("a client is lost")
        finally:
            listener.sessions.full = False

    def left(self) -> None:
        """
        A client may have gone: tell soon.
        """
        if self._telling is None:
            self._telling = self._reactor.callLater(COLLECT, self._tell)

    def _tell(self) -> None:
        self._telling = None
        assert self.service is not None
        there = {proxy.name: len(proxy.sessions.sessions) for proxy in self.service.proxies}
        self._tellGone({pool: count - there.get(pool, 0) for pool, count in self._taken.items()})

    def connectionLost(self, reason: Failure) -> None:
        """
        The reactor has ended.
        """


class _Process(Protocol):
    """
    The worker's side of its L{Channel}, on its standard descriptors. Without a parent it ends.
    """

    def __init__(self, reactor: Any, clients: socket.socket, observer: ILogObserver) -> None:
        self._reactor = reactor
        self._observer = observer
        self._inbox = Inbox(reactor, clients, self._gone)
        self._hurry = False
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
        The parent is gone, and whoever read the log.
        """
        globalLogPublisher.removeObserver(self._observer)
        self._channel.lost()
        self.stop()

    def _gone(self, counts: dict[str, int]) -> None:
        self._channel.call("gone", counts).addErrback(ignoreLost)

    def _answer(self, name: str, *args: Any) -> Any:
        calls: dict[str, Callable[..., Any]] = {
            "start": self._start,
            "apply": self._apply,
            "stop": self.stop,
            "abort": self._abort,
            "perform": self._perform,
            "statistics": self._snapshot,
        }
        if name not in calls:
            raise ChannelError(f"no call {name!r}")
        return calls[name](*args)

    def _start(self, settings: dict[str, Any]) -> None:
        self.service = self._inbox.service = ProxyService(_revive(settings), self._reactor, self._inbox.listen)
        self.service.fullSnapshot = lambda: self._channel.call("statistics")
        self.service.privilegedStartService()
        self.service.startService()
        self._reactor.addReader(self._inbox)
        self._reactor.addSystemEventTrigger("before", "shutdown", self._leave)

    def _apply(self, settings: dict[str, Any]) -> Deferred[None]:
        assert self.service is not None
        self._inbox.empty()  # who was sent before this, comes in by what there was before
        new = _revive(settings)
        return self.service.change(lambda old: new, quiet=True).addCallback(lambda lines: None)

    def _snapshot(self) -> dict[str, Any]:
        assert self.service is not None
        return self.service.snapshot()

    def _perform(self, name: str, *args: Any) -> Any:
        assert self.service is not None
        return Operations(self.service).perform(name, *args)

    def stop(self) -> None:
        """
        End.
        """
        try:
            self._reactor.stop()
        except ReactorNotRunning:
            pass  # it is told so for the second time

    def _leave(self) -> Deferred[None]:
        """
        This process is about to end: have no more clients sent, take those who were, and end as the proxy does.
        """
        # A person may end a worker by SIGTERM, as systemd does with all processes: once is enough.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        noticed = self._channel.call("leaving").addTimeout(NOTICE, self._reactor)
        return noticed.addErrback(ignoreLost).addBoth(self._end)

    def _end(self, _: object) -> Deferred[None]:
        assert self.service is not None
        self._inbox.empty()
        stopped = maybeDeferred(self.service.stopService)
        if self._hurry:
            self.service.abort()
        return stopped

    def _abort(self) -> None:
        assert self.service is not None
        self._hurry = True
        self.service.abort()
        self.stop()


def _revive(settings: dict[str, Any]) -> Settings:
    """
    Make settings from their JSON, in which tuples have become lists.
    """
    pools = tuple(PoolSettings(**{name: _tuple(value) for name, value in pool.items()}) for pool in settings["pools"])
    return Settings(**{**settings, "pools": pools})


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def work() -> None:
    """
    Be a worker: the main function of its process.
    """
    from twisted.internet import reactor

    process: Any = reactor
    steady(process)
    standardIO: Any = StandardIO  # what it takes is another thing on Windows
    # Reload is the parent's to do, for all, and what is typed is meant for the parent.
    for number in (signal.SIGHUP, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    # What is printed goes into the log of the parent, see L{relay<txconnpool.operate.logs.relay>}.
    observer = jsonObserver(sys.stdout)
    globalLogBeginner.beginLoggingTo([observer], redirectStandardIO=False)
    clients = socket.socket(fileno=CLIENTS)
    worker = _Process(process, clients, observer)
    standardIO(worker, stdin=STDIN, stdout=ANSWERS, reactor=process)
    # Not the reactor's own way, for which a second order to stop is an error.
    signal.signal(signal.SIGTERM, lambda number, frame: process.callFromThread(worker.stop))
    process.run(installSignalHandlers=False)


if __name__ == "__main__":
    work()
