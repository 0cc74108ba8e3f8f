# -*- test-case-name: tests.redis.test_sentinel -*-
# Copyright txconnpool contributors. See LICENSE.
"""
A pool for programs whose server is looked up, and may be another one later: the master that sentinels name.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from txconnpool.errors import PoolClosed, ServerUnavailable
from txconnpool.net.discovery import isSentinel
from txconnpool.pool.calls import CallingPool
from txconnpool.pool.connection import Connection
from txconnpool.routing.lookups import Lookups
from txconnpool.routing.waits import Waits

_log = Logger("txconnpool.routing")

#: What is wrong if the sentinels answer.
NO_MASTER = "it names no master"


def sentinelsOf(addresses: Any) -> str | None:
    """
    @return: the line C{sentinel:NAME@HOST:PORT,HOST:PORT} that the addresses of a pool are, or C{None}.

    @raise ValueError: there are other addresses.
    """
    lines = list(addresses) if isinstance(addresses, list | tuple) else [addresses]
    found = [each for each in lines if isinstance(each, str) and isSentinel(each)]
    if found and len(lines) > 1:
        raise ValueError("sentinel:NAME@HOST:PORT,HOST:PORT stands for the server of a pool; it cannot have others")
    return found[0] if found else None


class FollowingPool(CallingPool):
    """
    A pool whose server is the master of a group.

    @ivar lookups: looks up the master.
    """

    def __init__(self, lines: list[str], *, sentinelLogin: tuple[bytes, bytes] | None, **options: Any) -> None:
        """
        @param lines: the line C{sentinel:NAME@HOST:PORT,HOST:PORT}.
        @param sentinelLogin: the user and password for the sentinels.
        @param options: see L{CallingPool.__init__}.

        @raise ValueError: the line is wrong.
        """
        (line,) = lines
        super().__init__([], lookAgain=self._lookForMaster, **options)
        self.lookups = Lookups(line, self.reactor, self._found, self._tried)
        self.lookups.source.login = sentinelLogin
        self._waits = Waits(self.reactor)

    # -- The master

    def _begin(self) -> None:
        super()._begin()
        self.lookups.start()

    def _tried(self) -> None:
        for waiting in self._waits:
            if self.servers:
                waiting.callback(None)
            else:
                waiting.errback(self.lookups.unavailable(NO_MASTER))

    def _found(self, servers: Iterable[Any]) -> None:
        """
        The sentinels name another master.
        """
        names = [each.endpoint for each in servers]
        known = {server.name: server for server in self.servers}
        for name in names:
            if name not in known:
                self.addServer(name)
                _log.info("{pool}: {server} is the master now", pool=self.name, server=name)
        for name in known:
            if name not in names:
                self.removeServer(name)

    def _lookForMaster(self) -> None:
        """
        The master may be another one: a connection was lost, or a server has declined a request.
        """
        self.lookups.hurry()

    def _unknown(self) -> bool:
        """
        @return: whether a caller has to wait, because no lookup has ended yet.

        @raise ServerUnavailable: the lookups have failed.
        """
        if self.servers or self._lifeCycle.ended:
            return False
        if self.lookups.count:
            self.lookups.hurry()
            raise self.lookups.unavailable(NO_MASTER)
        return True

    def _whenKnown(self) -> Deferred[None]:
        """
        @return: fires when the first lookup has found the master, or C{waitTimeout} is over; fails with a L{PoolError}.
        """
        self.start()
        return self._waits.add(self.limits.waitTimeout)

    def _end(self) -> None:
        self._waits.fail(PoolClosed("the pool was closed"))
        self.lookups.stop()
        super()._end()

    # -- Requests

    def send(self, request: Any) -> None:
        """
        Send a request on a connection with capacity, at once or when there is one.

        @param request: see L{CallingPool.send}.
        """
        try:
            unknown = self._unknown()
        except ServerUnavailable as error:
            request.fail(error)
            return
        if unknown:
            known = self._whenKnown()
            known.addCallbacks(lambda _: self._sendNow(request), lambda failure: request.fail(failure.value))
        else:
            super().send(request)

    def _sendNow(self, request: Any) -> None:
        super().send(request)

    def acquire(self) -> Deferred[Connection]:
        """
        Lease a connection, see L{LeasingPool.acquire<txconnpool.pool.leasing.LeasingPool.acquire>}.
        """
        return Deferred.fromCoroutine(self._acquire())

    async def _acquire(self) -> Connection:
        if self._unknown():
            await self._whenKnown()
        return await super().acquire()

    def ready(self, count: int | None = None, timeout: float | None = 30.0) -> Deferred[None]:
        """
        Start the pool, and wait until connections are established, see
        L{BasePool.ready<txconnpool.pool.base.BasePool.ready>}.
        """
        return Deferred.fromCoroutine(self._ready(count, timeout))

    async def _ready(self, count: int | None, timeout: float | None) -> None:
        if self._unknown():
            await self._whenKnown()
        await super().ready(count, timeout)
