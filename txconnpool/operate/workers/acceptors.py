# -*- test-case-name: tests.operate.workers.test_supervisor -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Listening and accepting in the parent process.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from twisted.internet.defer import Deferred, DeferredList, gatherResults, maybeDeferred
from twisted.internet.interfaces import IDelayedCall, IReadDescriptor
from twisted.internet.protocol import Factory
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from txconnpool.config.changes import Address, Plan
from txconnpool.config.settings import PoolSettings
from txconnpool.net.listening import Listener, raiseIfFailed, withBacklog
from txconnpool.net.reactorproxy import OpenPort, ReactorProxy
from txconnpool.operate.reload import cannotChange
from txconnpool.operate.workers.inbox import BATCH

_log = Logger("txconnpool.workers")

#: Seconds until clients are accepted again after the process had no free file descriptor.
EXHAUSTED = 0.5

#: Seconds until a client is sent again that no worker could take, because all are busy. Until then no others are
#: accepted: they wait in the system's queue.
BUSY = 0.01


def _bind(factory: Any, openPort: OpenPort) -> Any:
    """
    Open a port from which the reactor accepts nothing.
    """
    port = openPort(factory)
    port.stopReading()
    return port


class _PortFactory(Factory):
    """
    The factory of a port that does not accept. It only has a name for the log.
    """

    noisy = False

    def __init__(self, pool: str) -> None:
        self._pool = pool

    def logPrefix(self) -> str:
        """
        @return: the name of the pool, for Twisted's log.
        """
        return f"pool {self._pool}"


@implementer(IReadDescriptor)
class Acceptor:
    """
    Accepts the clients of one listening socket.

    @ivar pool: the name of the pool that the clients are for.
    @ivar description: the server endpoint string.
    @ivar socket: the listening socket.
    """

    def __init__(
        self, reactor: Any, pool: str, description: str, accepted: Callable[[Acceptor, socket.socket], bool]
    ) -> None:
        """
        Bind the socket.

        @param accepted: called with each client, until it returns C{True}: then it has taken over the socket.

        @raise CannotListenError: the address is taken, or is not one of this machine.
        """
        self.pool = pool
        self.description = description
        self._reactor = reactor
        self._accepted = accepted
        self._accepting = False
        self._later: IDelayedCall | None = None
        self._client: socket.socket | None = None  # a client that no worker could take
        ports: list[Any] = []
        endpoint = Listener(ReactorProxy(reactor, _bind), withBacklog(description))
        raiseIfFailed(endpoint.listen(_PortFactory(pool))).addCallback(ports.append)
        (self._port,) = ports
        self.socket = socket.socket(fileno=os.dup(self._port.fileno()))

    def resume(self) -> None:
        """
        Accept clients.
        """
        if not self._accepting:
            self._accepting = True
            self._reactor.addReader(self)
            if self._client is not None:
                self.doRead()

    def pause(self) -> None:
        """
        Accept no clients for now. They wait in the system's queue.
        """
        if self._accepting:
            self._accepting = False
            self._reactor.removeReader(self)
        if self._later is not None:
            self._later.cancel()
            self._later = None

    def close(self) -> Deferred[None]:
        """
        Stop listening.

        @return: fires when the port is closed.
        """
        self.pause()
        if self._client is not None:
            self._client.close()
            self._client = None
        self.socket.close()
        return maybeDeferred(self._port.stopListening)

    def fileno(self) -> int:
        """
        @return: the descriptor to watch.
        """
        return self.socket.fileno()

    def logPrefix(self) -> str:
        """
        @return: the name of the pool, for Twisted's log.
        """
        return self.pool

    def doRead(self) -> None:
        """
        Accept the clients that wait, up to L{BATCH} of them.
        """
        for _ in range(BATCH):
            if self._client is None:
                try:
                    self._client, _ = self.socket.accept()
                except (BlockingIOError, ConnectionAbortedError):
                    return
                except OSError as error:
                    _log.error("{pool}: cannot accept clients: {error}", pool=self.pool, error=error)
                    self._pauseFor(EXHAUSTED)
                    return
            if not self._accepted(self, self._client):
                self._pauseFor(BUSY)
                return
            self._client = None

    def _pauseFor(self, seconds: float) -> None:
        self.pause()
        self._later = self._reactor.callLater(seconds, self._resumeLater)

    def _resumeLater(self) -> None:
        self._later = None
        self.resume()

    def connectionLost(self, reason: Failure) -> None:
        """
        Do nothing: the reactor has ended.
        """


@dataclass(frozen=True)
class PreparedChange:
    """
    A change of the addresses that has been prepared.

    @ivar acceptors: all acceptors that there will be.
    @ivar opened: those that did not exist before.
    @ivar closed: those that will be closed.
    """

    acceptors: dict[Address, Acceptor]
    opened: list[Acceptor]
    closed: list[Acceptor]


class Acceptors:
    """
    The acceptors of all pools.
    """

    def __init__(self, reactor: Any, accepted: Callable[[Acceptor, socket.socket], bool]) -> None:
        """
        @param accepted: see L{Acceptor}.
        """
        self._reactor = reactor
        self._accepted = accepted
        self._acceptors: dict[Address, Acceptor] = {}
        self._suspended: set[Acceptor] = set()
        self._ready = False

    def bind(self, pools: Iterable[PoolSettings]) -> None:
        """
        Bind all addresses of pools that are not bound yet.

        @raise CannotListenError: an address is taken, or is not one of this machine.
        """
        for pool in pools:
            for description in pool.listen:
                address = (pool.name, description)
                if address not in self._acceptors:
                    self._acceptors[address] = self._acceptor(address)

    def _acceptor(self, address: Address) -> Acceptor:
        return Acceptor(self._reactor, *address, self._accepted)

    def setReady(self, ready: bool) -> None:
        """
        Accept clients, or let them wait in the system's queue.
        """
        self._ready = ready
        for acceptor in self._acceptors.values():
            if ready and acceptor not in self._suspended:
                acceptor.resume()
            else:
                acceptor.pause()

    @property
    def addresses(self) -> list[Address]:
        """
        The addresses that are listened on.
        """
        return list(self._acceptors)

    async def prepare(self, plan: Plan) -> PreparedChange:
        """
        Prepare a change of the addresses: bind new ones, and accept no clients on those that get another pool or will
        be closed.

        @return: to be given to L{commit} or L{rollBack}.

        @raise CannotChange: an address cannot be bound. Nothing has changed.
        """
        opened: dict[Address, Acceptor] = {}
        try:
            for address in plan.opened:
                opened[address] = self._acceptor(address)
        except Exception as error:
            await gatherResults([acceptor.close() for acceptor in opened.values()])
            raise cannotChange(error) from None
        kept = {address: self._acceptors[address] for address in plan.kept}
        moved = {(taker, each): self._acceptors[giver, each] for each, giver, taker in plan.moved}
        closed = [self._acceptors[address] for address in plan.closed]
        self._suspended = {*moved.values(), *closed}
        self.setReady(self._ready)
        return PreparedChange({**kept, **moved, **opened}, list(opened.values()), closed)

    async def rollBack(self, change: PreparedChange) -> None:
        """
        Undo what L{prepare} has done.
        """
        self._suspended = set()
        self.setReady(self._ready)
        await gatherResults([acceptor.close() for acceptor in change.opened])

    async def commit(self, change: PreparedChange) -> None:
        """
        Put a change in force.
        """
        self._suspended = set()
        self._acceptors = change.acceptors
        for (pool, _), acceptor in change.acceptors.items():
            acceptor.pool = pool
        self.setReady(self._ready)
        await gatherResults([acceptor.close() for acceptor in change.closed])

    def close(self) -> Deferred[Any]:
        """
        Stop listening.

        @return: fires when all ports are closed.
        """
        acceptors, self._acceptors = self._acceptors, {}
        return DeferredList([acceptor.close() for acceptor in acceptors.values()])
