# -*- test-case-name: tests.memcache.test_pool -*-
# Copyright txconnpool contributors. See LICENSE.
"""
A memcached client on a pool of connections::

    pool = MemCachePool(("127.0.0.1", 11211))
    await pool.set("greeting", b"hello", expireTime=60)
    flags, value = await pool.get("greeting")

Names and results of the commands are those of L{twisted.protocols.memcache.MemCacheProtocol}. All calls share the
connections: requests of one turn of the reactor are written together, and concurrent C{get}s are sent as one request
for several keys. So the order in which concurrent calls are executed is undefined: wait for the result of a call before
a call that depends on it.
"""

from __future__ import annotations

from collections.abc import Callable, Container
from typing import Any, Final

from twisted.internet.defer import Deferred, fail, gatherResults, maybeDeferred

from txconnpool.errors import PoolClosed, PoolError
from txconnpool.memcache.batching import Batches
from txconnpool.memcache.commands import MemCacheCommands
from txconnpool.memcache.errors import NoSuchCommand
from txconnpool.memcache.requests import Request, Retrieval, SingleRequest
from txconnpool.memcache.results import Key, outcome
from txconnpool.metrics import PoolStats
from txconnpool.pool.base import BasePool
from txconnpool.pool.connection import Connection, ConnectionFactory
from txconnpool.wire import Command
from txconnpool.wire.memcache import replies
from txconnpool.wire.memcache.dialect import Memcache

__all__ = ["MemCachePool", "probe"]

_FLUSH_ALL: Final = b"flush_all\r\n"


def probe(connection: Connection) -> Deferred[bytes]:
    """
    Ask the server of a connection for its version. This is the default C{configure} of L{MemCachePool}, and may be its
    C{check}.

    @return: fires with the reply; fails if the server is not a memcached.
    """
    return connection.ask(*Memcache.probe)


class Statistics(PoolStats):
    """
    A snapshot of a pool, the attribute C{stats} of L{MemCachePool}. It can be called, as the method C{stats} of
    L{MemCacheProtocol<twisted.protocols.memcache.MemCacheProtocol>} is: the call asks a server for its statistics.
    """

    _pool: MemCachePool

    @classmethod
    def of(cls, pool: MemCachePool, now: PoolStats) -> Statistics:
        """
        Make a snapshot callable.

        @param pool: the pool that sends the request.
        @param now: the snapshot.
        """
        stats = cls(**vars(now))
        object.__setattr__(stats, "_pool", pool)  # not a field: fields are frozen, compared and shown
        return stats

    def __call__(self, arg: Key | None = None) -> Deferred[dict[bytes, bytes]]:
        return self._pool.serverStats(arg)


class MemCachePool(MemCacheCommands, BasePool[Connection]):
    """
    A memcached client for one server, or for several equal ones: copies of one another, or proxies to the same servers.
    Each key may be requested from any of them.

    All errors are failures of the C{Deferred}s that the commands return:

      - L{InvalidArgument<txconnpool.memcache.errors.InvalidArgument>} for an invalid argument; nothing is sent.
      - L{ServerError<twisted.protocols.memcache.ServerError>},
        L{ClientError<twisted.protocols.memcache.ClientError>} or L{NoSuchCommand} for an error reply of the server.
      - L{PoolError<txconnpool.errors.PoolError>} if there is no reply.

    A command may be cancelled at any time. If it was not sent yet, it never is; otherwise its reply is dropped.

    Reads (C{get}, C{gets}, C{getMultiple}, C{version}, C{stats}) are tried once more if their connection is lost.
    """

    def __init__(
        self,
        serverAddresses: Any,
        maxClients: int = 5,
        reactor: Any = None,
        forceShutdown: bool = False,
        *,
        waitTimeout: float | None = 5.0,
        connectTimeout: float | None = 5.0,
        requestTimeout: float = 5.0,
        pipelineDepth: int = 100,
        batchSize: int = 64,
        maxItemSize: int = 1 << 20,
        configure: Callable[[Connection], object] | None = probe,
        allowedCommands: Container[str] | None = None,
        **options: Any,
    ) -> None:
        """
        @param serverAddresses: an address or a list of addresses, see L{txconnpool.net.addresses.endpointOf}.
        @param maxClients: the maximum number of connections. One is enough for most programs: another one is dialed
            only while all have requests in flight.
        @param waitTimeout: the seconds that a request waits for a connection; C{None}: no limit.
        @param connectTimeout: the seconds until a new connection must be ready; C{None}: no limit.
        @param requestTimeout: the seconds until the server must have replied. A late reply closes its connection and
            fails all requests in flight on it.
        @param pipelineDepth: the maximum number of requests in flight on one connection.
        @param batchSize: the maximum number of keys in one request. 1 sends every C{get} as a request of its own.
        @param maxItemSize: the maximum length of a value, in bytes: the same number as memcached's option C{-I}.
        @param configure: called with each new connection before it is used; L{probe} if not given.
        @param allowedCommands: the names that L{performRequest} accepts; C{None}: those of all commands.
        @param options: see L{BasePool.__init__<txconnpool.pool.base.BasePool.__init__>}. A borrowed client is a
            L{Connection}. C{observer} is not notified of single replies.
        """
        if reactor is None:
            from twisted.internet import reactor
        dialect = Memcache()
        super().__init__(
            serverAddresses,
            maxClients,
            reactor,
            forceShutdown,
            ConnectionFactory(dialect, reactor, requestTimeout),
            waitTimeout=waitTimeout,
            connectTimeout=connectTimeout,
            pipelineDepth=pipelineDepth,
            configure=configure,
            **options,
        )
        self._allowed = allowedCommands
        self._batches = Batches(reactor, batchSize, self._beginBatch, self.send)
        self._maxItemSize = maxItemSize

    def _beginBatch(self, command: Command) -> Retrieval:
        if self._lifeCycle.ended:
            raise PoolClosed("the pool is closed")
        return Retrieval(self, command, command.name.encode())

    def close(self, timeout: float | None = 5.0) -> Deferred[None]:
        """
        Refuse new requests, wait for those in flight, and close all connections.

        @param timeout: the seconds until requests that are still in flight fail; C{None}: no limit.

        @return: fires when no connection, dial or timer is left.
        """
        self._batches.flush()
        return super().close(timeout)

    def performRequest(self, method: str, *args: Any, **kwargs: Any) -> Deferred[Any]:
        """
        Call a command by its name.

        @return: fires with the result of the command. Fails with L{NoSuchCommand} if there is no such command, or if
            C{allowedCommands} excludes it.
        """
        # The table has the methods of this class, not those of a subclass: a subclass may implement its methods by
        # performRequest, as with 0.1.2.
        command = _COMMANDS.get(method)
        if command is None or (self._allowed is not None and method not in self._allowed):
            return fail(NoSuchCommand(f"{method!r} is no command"))
        return maybeDeferred(command, self, *args, **kwargs)

    def send(self, request: Request) -> None:
        """
        Send a request on a connection with capacity, at once or when there is one.
        """
        if self._checks:
            self.state.doubt(self._seconds())
        try:
            record = self.take(request)
        except PoolError as error:
            request.fail(error)
        else:
            if record is not None:
                request.granted(record)

    def flushAll(self) -> Deferred[bool]:
        """
        Delete all keys on every server. If one of the servers cannot be reached, nothing is deleted.

        @return: fires with C{True}.
        """
        if len(self.servers) == 1:
            return self._perform(replies.FLUSH_ALL, _FLUSH_ALL)
        return self.ready(len(self.servers), self.state.limits.waitTimeout).addCallback(self._flushEach)

    def _flushEach(self, _: object) -> Deferred[bool]:
        records = self.each()
        requests = [SingleRequest(self, replies.FLUSH_ALL, _FLUSH_ALL, outcome) for _ in records]
        for request, record in zip(requests, records, strict=True):
            request.granted(record)
        done = gatherResults([request.result for request in requests], consumeErrors=True)
        return done.addCallbacks(all, lambda failure: failure.value.subFailure)

    @property
    def stats(self) -> Statistics:
        """
        A snapshot of the pool. A call of it, C{pool.stats()}, asks a server for its statistics:
        L{serverStats<txconnpool.memcache.commands.MemCacheCommands.serverStats>}.
        """
        return Statistics.of(self, super().stats)


#: The commands that L{MemCachePool.performRequest} accepts.
_COMMANDS: Final[dict[str, Callable[..., Deferred[Any]]]] = {
    name: getattr(MemCachePool, name)
    for name in (
        *("get", "gets", "getMultiple", "getAndTouch", "set", "add", "replace", "append", "prepend", "checkAndSet"),
        *("increment", "decrement", "touch", "delete", "flushAll", "version"),
    )
} | {"stats": MemCachePool.serverStats}
