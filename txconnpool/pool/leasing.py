# -*- test-case-name: tests.pool.test_leases -*-
# Copyright txconnpool contributors. See LICENSE.
"""
A pool whose connections can be leased.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from traceback import StackSummary
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar, overload

from twisted.internet.defer import Deferred, fail, maybeDeferred, succeed
from twisted.logger import Logger

from txconnpool.errors import ClientNotOwned, PoolError
from txconnpool.pool.checks import checkCall
from txconnpool.pool.decisions.limits import Limits
from txconnpool.pool.decisions.reasons import GIVEN_BACK, RESET_FAILED
from txconnpool.pool.decisions.records import GONE, OPEN, Record
from txconnpool.pool.engine import PoolEngine
from txconnpool.pool.leases import C, LeakWatch, Lease, Lending, callerStack
from txconnpool.pool.quiet import Quieting

_log = Logger("txconnpool.pool")

P = ParamSpec("P")
T = TypeVar("T")


class LeasingPool(PoolEngine, Generic[C]):
    """
    A pool whose connections can be leased. As in txconnpool 0.1.2, a I{client} is the protocol instance of a
    connection.
    """

    def __init__(
        self,
        servers: Any,
        factory: Any,
        limits: Limits,
        reactor: Any,
        *,
        reset: Callable[[C], object] | None = None,
        leakThreshold: float | None = None,
        **options: Any,
    ) -> None:
        """
        @param reset: see L{txconnpool.pool.base.BasePool.__init__}, as for C{leakThreshold}.
        @param options: see L{PoolEngine.__init__}, as for the other parameters.
        """
        super().__init__(servers, factory, limits, reactor, **options)
        self._checks = self._check is not None
        self._reset = reset
        self._quieting: Quieting | None = None  # if there are clients that may not be free at the end of a request
        # By the id of the client, so that clients need not be hashable.
        self._byClient: dict[int, Record] = {}
        self._watched = leakThreshold is not None or self.observer is not None
        self._leaks = None if leakThreshold is None else LeakWatch(reactor, leakThreshold, self._leaked)

    def acquire(self) -> Deferred[C]:
        """
        Lease a connection: the client is the caller's alone until it is given to L{release}.

        @return: a Deferred that fires with the client. It fails with a L{PoolError<txconnpool.errors.PoolError>}.
        """
        client = self.acquireNow()
        if client is not None:
            return succeed(client)
        lease = Lease(self, self._lend, None if self._leaks is None else callerStack())
        acquired: Any = lease.client
        try:
            self.take(lease, True)
        except PoolError as error:
            return fail(error)
        return acquired  # type: ignore[no-any-return]

    def acquireNow(self) -> C | None:
        """
        Lease a connection if one is idle and there are no waiters. This is L{acquire} without the cost of a
        L{Deferred<twisted.internet.defer.Deferred>}.

        @return: the client, or C{None}.
        """
        state = self.state
        if self._checks:
            state.doubt(self._seconds())
        if self.waiters.count:
            return None
        record = state.connections.pick(True)
        if record is None:
            return None
        self.counters.acquired += 1
        record.load = record.lent = record.depth  # no capacity for others
        client: C = record.connection
        if self._watched:
            self._leaseBegins(client, None)
        return client

    def _lend(self, record: Record, where: StackSummary | None) -> C:
        record.load = record.lent = record.depth  # as in acquireNow
        client: C = record.connection
        if self._watched:
            self._leaseBegins(client, where)
        return client

    def _leaseBegins(self, client: C, where: StackSummary | None) -> None:
        self._notify("lent", client)
        if self._leaks is not None:
            self._leaks.lent(id(client), where or callerStack())

    def release(self, client: C, discard: bool = False) -> None:
        """
        End a lease. This is also necessary if the connection was lost.

        @param discard: whether to close the connection, because it is not in a state in which others can use it.

        @raise ClientNotOwned: C{client} is not leased, or not any more.
        """
        try:
            record = self._byClient[id(client)]
            load = record.lent
        except KeyError:
            load = 0
        if not load or (self._reset is not None and record in self._errands):
            raise ClientNotOwned(f"not borrowed from {self.name}: {client!r}")
        record.lent = 0
        if self._watched:
            self._notify("returned", client)
            if self._leaks is not None:
                self._leaks.returned(id(client))
        if discard:
            self.retire(record, GIVEN_BACK)
        if record.phase is GONE:
            del self._byClient[id(client)]
        free = self.leaseEnded if self._reset is None else self._resetAndFree
        if discard or self._quieting is None or not self._quieting.waits(record, load, free):
            free(record, load)

    def _resetAndFree(self, record: Record, load: int) -> None:
        """
        A connection is free for others after its reset, if it is still open.
        """
        if record.phase is OPEN:
            assert self._reset is not None
            record.lent = load  # until the reset has ended, the connection has no capacity for others
            self._errands.run(record, self._reset, self._wasReset)
        else:
            self.leaseEnded(record, load)

    def _wasReset(self, record: Record, fault: str) -> None:
        if fault:
            _log.debug("{pool}: a connection to {server} could not be reset: {fault}", pool=self.name,
                       server=record.server.name, fault=fault)  # fmt: skip
            self.retire(record, RESET_FAILED)
        load, record.lent = record.lent, 0
        self.leaseEnded(record, load)

    def isMine(self, client: C) -> bool:
        """
        @return: whether C{client} is one of this pool: its connection is open, or it is leased.
        """
        return id(client) in self._byClient

    def connection(self) -> Lending[C]:
        """
        Lease a connection for a block: C{async with pool.connection() as client:}. If the block raises, the connection
        is closed.
        """
        return Lending(self)

    @overload
    def withConnection(
        self, f: Callable[Concatenate[C, P], Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs
    ) -> Deferred[T]: ...

    @overload
    def withConnection(
        self, f: Callable[Concatenate[C, P], T], /, *args: P.args, **kwargs: P.kwargs
    ) -> Deferred[T]: ...

    def withConnection(self, f: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Deferred[Any]:
        """
        Lease a connection for a call, C{f(client, *args, **kwargs)}. If C{f} returns a Deferred or an awaitable, the
        lease ends when that has a result. If the call fails, the connection is closed.

        @return: a Deferred that fires with the result of C{f}, or fails as C{f} does.

        @raise TypeError: C{f} cannot be called.
        """
        return callWith(self, f, *args, **kwargs)

    def _leaked(self, key: int, seconds: float, where: str) -> None:
        client = self._byClient[key].connection
        _log.warn("{pool}: {client} was borrowed and not given back for {seconds:g} s, at\n{where}",
                  pool=self.name, client=client, seconds=seconds, where=where)  # fmt: skip
        self._notify("leaked", client, seconds, where)

    # -- Events of connections

    def connectionMade(self, record: Record, connection: Any) -> None:
        """
        The protocol instance of C{record} exists.
        """
        super().connectionMade(record, connection)
        self._byClient[id(connection)] = record

    def dialFailed(self, record: Record, reason: BaseException) -> None:
        """
        The dial of C{record} failed.
        """
        self._byClient.pop(id(self._attempts[record].connection), None)
        super().dialFailed(record, reason)

    def _failPending(self, record: Record) -> None:
        super()._failPending(record)
        if self._quieting is not None:
            self._quieting.lost(record)
        if not record.lent:  # otherwise release is still to be called
            self._byClient.pop(id(record.connection), None)

    def _finished(self) -> None:
        super()._finished()
        if self._quieting is not None:
            self._quieting.stop()
        if self._leaks is not None:
            self._leaks.deadlines.stop()

    def selfCheck(self) -> None:
        """
        Check all invariants that hold between events. For tests.

        @raise AssertionError: one is broken. The text names it.
        """
        super().selfCheck()
        known = set(self.state.records)
        for record in self._byClient.values():
            assert record.lent if record.phase is GONE else record in known, f"not forgotten: {record}"
        named = set(self._byClient.values())
        for record in known:
            assert record.connection is None or record in named, f"not found by its client: {record}"


def callWith(pool: Any, f: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Deferred[Any]:
    """
    Lease a connection for a call, see L{LeasingPool.withConnection}.

    @param pool: has the method C{connection}.
    """
    checkCall(f)

    async def call() -> Any:
        async with pool.connection() as client:
            return await maybeDeferred(partial(f, client, *args, **kwargs))

    return Deferred.fromCoroutine(call())
