# -*- test-case-name: tests.pool.test_library -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Pools of the clients of any protocol, whose requests are method calls.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Container
from copy import copy
from typing import Any

from twisted.internet.defer import Deferred, fail
from twisted.internet.interfaces import (
    IFileDescriptorReceiver,
    IHalfCloseableProtocol,
    IHandshakeListener,
    ILoggingContext,
    IProtocolFactory,
    IPullProducer,
    IPushProducer,
)
from twisted.internet.protocol import ClientFactory
from twisted.protocols.basic import IntNStringReceiver, LineOnlyReceiver, LineReceiver, NetstringReceiver
from twisted.protocols.policies import TimeoutMixin
from twisted.python.failure import Failure

from txconnpool.errors import ConnectionLostInFlight, NoSuchCommand, PoolError, PoolTimeout
from txconnpool.interfaces import IQuiet
from txconnpool.net.deadlines import Deadlines
from txconnpool.pool.base import BasePool
from txconnpool.pool.checks import checkMethod, checkNames, checkSeconds
from txconnpool.pool.decisions.reasons import CANCELLED, TIMEOUT
from txconnpool.pool.decisions.records import Record
from txconnpool.pool.leases import C
from txconnpool.pool.observer import PoolObserver
from txconnpool.pool.quiet import Quieting
from txconnpool.pool.requests import Request

__all__ = ["PoolObserver", "PooledClientFactory", "RequestPool"]

_INTERFACES: tuple[Any, ...] = (
    IFileDescriptorReceiver,
    IHalfCloseableProtocol,
    IHandshakeListener,
    ILoggingContext,
    IPullProducer,
    IPushProducer,
)

#: Methods that Twisted calls on a protocol, or that a protocol calls on itself. They are never commands, whether
#: allowedCommands has them or not.
_INTERNAL = frozenset[str]().union(
    *map(dir, (LineReceiver, LineOnlyReceiver, IntNStringReceiver, NetstringReceiver, TimeoutMixin)), *_INTERFACES
) - {"sendLine", "sendString"}


class PooledClientFactory(ClientFactory):
    """
    Makes one client that announces to the pool that it is ready: by C{self.factory.connectionPool.clientFree(self)},
    or by firing C{self.factory.deferred} with itself, or both. The pool makes one such factory for each connection.

    The clients of a factory of any other class are ready as soon as they are connected::

        class Greeter(LineReceiver):
            def lineReceived(self, line):           # the server's greeting
                self.factory.connectionPool.clientFree(self)

        class GreeterFactory(PooledClientFactory):
            protocol = Greeter

        pool = Pool("tcp:127.0.0.1:7000", clientFactory=GreeterFactory)

    @ivar protocol: the class of the client, see L{Factory<twisted.internet.protocol.Factory>}.
    @ivar connectionPool: the pool; set by the pool.
    @ivar deferred: a Deferred that fires when the client is ready, or fails if it never will be.
    """

    noisy = False
    connectionPool: Any = None
    deferred: Deferred[Any] | None = None

    def __init__(self) -> None:
        self.deferred = Deferred()


class RequestPool(BasePool[C]):
    """
    A bounded set of connections to one server, or to several equal ones, whose requests are method calls: the pool
    calls a method of a client that has capacity, and the result is the reply.

    L{txconnpool.routing.requests.Pool} has one of them, or one for each server.
    """

    def __init__(
        self,
        serverAddresses: Any,
        maxClients: int = 5,
        reactor: Any = None,
        forceShutdown: bool = False,
        *,
        clientFactory: Any,
        requestTimeout: float | None = 60.0,
        cancelGrace: float | None = 5.0,
        allowedCommands: Container[str] | None = None,
        owner: Any = None,
        **options: Any,
    ) -> None:
        """
        @param owner: what the factories of clients that announce themselves have as their C{connectionPool}; this pool
            if not given.
        @param options: see L{Pool.__init__<txconnpool.routing.requests.Pool.__init__>}, as for the other parameters.

        @raise ValueError: an address or a limit is invalid.
        @raise TypeError: C{clientFactory} is neither a subclass of L{PooledClientFactory} nor another factory.
        """
        if reactor is None:
            from twisted.internet import reactor
        checkSeconds("requestTimeout", requestTimeout, above=True)
        checkSeconds("cancelGrace", cancelGrace)
        checkNames("allowedCommands", allowedCommands)
        self._announcing = isinstance(clientFactory, type) and issubclass(clientFactory, PooledClientFactory)
        shared = IProtocolFactory.providedBy(clientFactory) and not isinstance(clientFactory, PooledClientFactory)
        if not (self._announcing or shared):
            raise TypeError(
                "clientFactory must be a subclass of PooledClientFactory, or another factory such as "
                f"Factory.forProtocol(MyProtocol), not {clientFactory!r}"
            )
        if shared and options.get("shared"):
            clientFactory = copy(clientFactory)  # each pool sets connectionPool
        super().__init__(
            serverAddresses, maxClients, reactor, forceShutdown, clientFactory, announces=self._announcing, **options
        )
        self._owner = owner or self
        self._allowed = allowedCommands
        self._sent = Deadlines(reactor, requestTimeout, self._unanswered)
        self._graces = Deadlines(reactor, cancelGrace, self._overstayed)

    def performRequest(self, method: str, /, *args: Any, **kwargs: Any) -> Deferred[Any]:
        """
        Call a method of a client, see L{perform}.
        """
        return self.perform(method, args, kwargs)

    def perform(self, method: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Deferred[Any]:
        """
        Call a method of a client that has capacity, now or as soon as there is one.

        @param method: the name of the method.

        @return: see L{Pool.performRequest<txconnpool.routing.requests.Pool.performRequest>}.

        @raise TypeError: C{method} is no name.
        """
        if not isinstance(method, str):
            checkMethod(method)
        if method[:1] == "_" or method in _INTERNAL or (self._allowed is not None and method not in self._allowed):
            return fail(NoSuchCommand(f"{method!r} is no command"))
        if self._checks:
            self.state.doubt(self._seconds())
        request = Request(self, method, args, kwargs or None)
        answer: Any = request.answer
        try:
            record = self.take(request)
        except PoolError as error:
            return fail(error)
        if record is not None:
            request.granted(record)
        return answer  # type: ignore[no-any-return]

    def connectionMade(self, record: Record, connection: Any) -> None:
        """
        The protocol instance of C{record} exists.
        """
        super().connectionMade(record, connection)
        if self._quieting is None and IQuiet.providedBy(connection):
            self._quieting = Quieting(self.reactor, self._sent.timeout, self.retire, self._abort)

    def _unanswered(self, request: Request) -> None:
        record: Record = request.record
        self.counters.requestTimeouts += 1
        text = f"no answer within {self._sent.timeout:g} s ({record.server.name})"
        self.retire(record, TIMEOUT)  # before the caller is notified, which may make the next request
        request.fail(PoolTimeout(text, "request", self.state.stats()))
        self._abort(record)

    def _cancelled(self, request: Request) -> None:
        """
        The caller cancelled C{request} after it was sent.
        """
        if self.state.limits.depth == 1:
            self._graces.add(request)

    def _overstayed(self, request: Request) -> None:
        record: Record = request.record
        self.retire(record, CANCELLED)
        self._abort(record)

    def _newFactory(self, record: Record) -> Any:
        if not self._announcing:
            return super()._newFactory(record)
        factory = self._factory()
        factory.noisy = False
        factory.connectionPool = self._owner
        if factory.deferred is None:
            factory.deferred = Deferred()
        factory.deferred.addCallbacks(self.clientFree, self._unannounced, errbackArgs=(record,))
        return factory

    def _unannounced(self, failure: Failure, record: Record) -> None:
        """
        The factory's Deferred failed: the client of C{record} will never be ready.
        """
        if record in self._attempts:
            self._attempts[record].fail(failure.value or PoolError("the client will never be ready"))

    def _failPending(self, record: Record) -> None:
        super()._failPending(record)
        for request in [each for each in self._sent.since if each.record is record]:
            request.fail(ConnectionLostInFlight(f"the connection was lost ({record.server.name})"))

    def _finished(self) -> None:
        super()._finished()
        self._sent.stop()
        self._graces.stop()

    def selfCheck(self) -> None:
        """
        Check all invariants that hold between events. For tests.

        @raise AssertionError: one is broken. The text names it.
        """
        super().selfCheck()
        known = self.state.records
        sent = Counter(request.record for request in self._sent.since)
        assert set(sent) <= set(known), f"requests in flight without a connection: {sent}"
        assert set(self._graces.since) <= set(self._sent.since), "cancelled requests that are not in flight"
        for record in known:
            load = sent[record] + record.lent + self._selfBusy.get(id(record.connection), 0)
            load += 0 if self._quieting is None else self._quieting.load(record)
            assert not record.weight or record.load == load, f"load is not {load}: {record}"
