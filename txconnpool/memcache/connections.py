# -*- test-case-name: tests.memcache.test_pool -*-
# Copyright txconnpool contributors. See LICENSE.
"""
The connections of a memcached client to one server, or to several equal ones.
"""

from __future__ import annotations

from math import inf
from typing import Any

from twisted.internet.defer import Deferred, fail, gatherResults

from txconnpool.errors import PoolClosed
from txconnpool.memcache.batching import Batches
from txconnpool.memcache.requests import Retrieval
from txconnpool.memcache.results import outcome
from txconnpool.pool.calls import CallingPool, SingleRequest
from txconnpool.pool.connection import Connection
from txconnpool.wire import Command
from txconnpool.wire.memcache.dialect import Memcache, checkGreeting


class MemCacheConnections(CallingPool):
    """
    A pool of memcached connections that sends the requests of a client.

    @ivar batches: collects the keys of the C{get}s of one turn of the reactor.
    """

    def __init__(
        self,
        serverAddresses: Any,
        maxClients: int,
        reactor: Any,
        forceShutdown: bool,
        *,
        batchSize: int,
        **options: Any,
    ) -> None:
        """
        @param batchSize: see L{MemCachePool.__init__<txconnpool.memcache.pool.MemCachePool.__init__>}, as for the other
            parameters.
        @param options: see L{CallingPool.__init__}.
        """
        if options.get("keepAlive") is not None and options.get("check") is None:
            options.update(check=probe, checkIfIdleFor=inf)
        super().__init__(serverAddresses, maxClients, reactor, forceShutdown, Memcache(), **options)
        self.batches = Batches(reactor, batchSize, self._beginBatch, self.send)

    def _beginBatch(self, command: Command) -> Retrieval:
        if self._lifeCycle.ended:
            raise PoolClosed(self.state.whyClosed)
        return Retrieval(self, command, command.name.encode())

    def sendEach(self, command: Command, data: bytes) -> Deferred[bool]:
        """
        Send a request to every server. If one of them cannot be reached, it is sent to none.

        @return: fires with whether all have done it.
        """
        if len(self.servers) == 1:
            request = SingleRequest(self, command, data, outcome)
            self.send(request)
            return request.result
        ready = self.ready(len(self.servers), self.state.limits.waitTimeout)
        return ready.addCallback(lambda _: self._sendNow(command, data))

    def _sendNow(self, command: Command, data: bytes) -> Deferred[bool]:
        records = self.each()
        requests = [SingleRequest(self, command, data, outcome) for _ in records]
        for request, record in zip(requests, records, strict=True):
            request.granted(record)
        return allOf([request.result for request in requests])

    def close(self, timeout: float | None = 5.0) -> Deferred[None]:
        """
        Refuse new requests, wait for those in flight, and close all connections.

        @param timeout: the seconds until requests that are still in flight fail; C{None}: no limit.

        @return: fires when no connection, dial or timer is left.
        """
        self.batches.flush()
        return super().close(timeout)


def probe(connection: Connection) -> Deferred[bytes]:
    """
    Ask the server of a connection for its version. This may be the C{check} of a L{MemCachePool
    <txconnpool.memcache.pool.MemCachePool>}. As its C{configure}, which it is by default, it includes the C{login}.

    @return: fires with the reply; fails if the server is not a memcached, or has as many connections as it accepts.
    """
    return connection.probe(*Memcache.greeting).addCallback(checkGreeting)


def allOf(results: list[Deferred[bool]]) -> Deferred[bool]:
    """
    @return: fires with whether all results are true; fails as the first of them that fails.
    """
    done = gatherResults(results, consumeErrors=True)
    return done.addCallbacks(all, lambda failure: fail(failure.value.subFailure))
