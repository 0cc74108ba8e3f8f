# -*- test-case-name: tests.test_interfaces -*-
# Copyright txconnpool contributors. See LICENSE.
"""
The interfaces between the rooms of txconnpool, and those that users implement.
"""

from __future__ import annotations

from typing import Any

from zope.interface import Attribute, Interface

from txconnpool.errors import PoolError
from txconnpool.metrics import Reason


class IWaiter(Interface):
    """
    Asks a pool for a connection, see L{IConnections.take}.
    """

    ticket = Attribute("Set by the pool when the waiter has to wait, for L{IConnections.forget}.")

    def granted(record: Any) -> None:
        """
        C{record.connection} has capacity. The waiter must add load to C{record} before it returns.
        """

    def refused(error: PoolError) -> None:
        """
        The waiter gets no connection.
        """

    def abort(error: PoolError) -> None:
        """
        End everything that waits for this waiter, because one of its methods has raised an unexpected exception.
        """


class IConnections(Interface):
    """
    A pool of interchangeable connections, as sessions use it.
    """

    servers = Attribute("The L{servers<txconnpool.pool.decisions.servers.Server>} of the pool.")
    waiters = Attribute("The queue of waiters. C{waiters.count} is how many there are.")
    counters = Attribute("L{Counters<txconnpool.metrics.Counters>} of all events.")

    def take(waiter: Any, exclusive: bool = False) -> Any:
        """
        Find a connection that has capacity, or let C{waiter} wait for one. The caller must add load to the returned
        record at once.

        @param waiter: an L{IWaiter}.
        @param exclusive: whether the connection must carry nothing else.

        @return: a L{record<txconnpool.pool.decisions.records.Record>}, or C{None} if C{waiter} waits.

        @raise PoolError: there is no connection, and waiting for one is in vain or not allowed.
        """

    def pick() -> Any:
        """
        Find a connection that has capacity. The caller must add load to the returned record at once, or pass it to
        C{putBack}.

        @return: a record, or C{None} if there is none, or others wait for one.
        """

    def putBack(record: Any) -> None:
        """
        Called when a connection that was picked is not used.
        """

    def forget(ticket: Any) -> None:
        """
        Remove a waiter that does not wait any more.

        @param ticket: C{waiter.ticket}.
        """

    def hasCapacity(record: Any) -> None:
        """
        Called when a connection carries less than before, or nothing any more.
        """

    def retire(record: Any, reason: Reason) -> None:
        """
        Give a connection no new requests, and close it when it carries nothing.

        @param reason: why, for logs and statistics.
        """

    def each() -> list[Any]:
        """
        Choose one connection of every server. The caller must add load to the returned records at once.

        @raise ServerUnavailable: a server has none.
        """

    def eachServer() -> list[tuple[Any, Any]]:
        """
        Choose one connection of every server that has one. The caller must add load to the records at once.

        @return: all servers, each with the record of a connection, or with the
            L{ServerUnavailable<txconnpool.errors.ServerUnavailable>} that says why it has none.
        """


class IPoolControl(Interface):
    """
    A pool, or the pools of several servers, as operators use it.
    """

    name = Attribute("The name of the pool.")
    servers = Attribute("The L{servers<txconnpool.pool.decisions.servers.Server>} of the pool.")
    former = Attribute("The servers that were removed, with their counters.")
    records = Attribute("The L{records<txconnpool.pool.decisions.records.Record>} of all connections and dials.")
    stats = Attribute("Gauges and counters, as L{PoolStats<txconnpool.metrics.PoolStats>}.")
    counters = Attribute("L{Counters<txconnpool.metrics.Counters>} of all events.")
    limits = Attribute("The L{limits<txconnpool.pool.decisions.limits.Limits>} in force.")
    paused = Attribute("Whether all requests wait.")
    waiting = Attribute("The number of waiters.")
    waits = Attribute("The L{times<txconnpool.metrics.Histogram>} that waiters have waited.")
    longestWait = Attribute("How long the first waiter has waited, in seconds.")
    cluster = Attribute("The pool as a L{ClusterPool<txconnpool.routing.clusters.ClusterPool>}, or C{None}.")
    replicas = Attribute("The names of the servers that are replicas; C{None}: the servers have no such roles.")

    def start() -> None:
        """
        Begin to connect.
        """

    def close(timeout: float | None = None) -> Any:
        """
        Accept no more requests, refuse the waiters, let requests in flight end, and close all connections.

        @param timeout: seconds until connections with requests in flight are closed too; C{None}: no limit.

        @return: a L{Deferred<twisted.internet.defer.Deferred>} that fires when no connection, dial or timer is left.
        """

    def pause() -> None:
        """
        Let all requests wait from now on, without limit. Requests in flight continue.
        """

    def resume() -> None:
        """
        End a pause.
        """

    def drain(address: Any, abort: bool = False) -> None:
        """
        Take a server out of service: it is given no new requests, its connections are closed when they carry nothing,
        and it is not dialed.

        @param address: the address or the name of the server.
        @param abort: whether to close its connections at once, with requests in flight.

        @raise ValueError: there is no such server.
        """

    def restore(address: Any) -> None:
        """
        Put a drained server back into service.

        @param address: the address or the name of the server.

        @raise ValueError: there is no such server.
        """

    def expire() -> None:
        """
        Replace all existing connections one after another. Each stays in use until its successor is established, and
        is closed when it carries nothing.
        """

    def setLimits(limits: Any) -> None:
        """
        Apply other L{limits<txconnpool.pool.decisions.limits.Limits>}, to existing connections and waiters too.
        """


class IRouter(Interface):
    """
    Chooses the pool that gets a request.
    """

    keyed = Attribute("Whether requests are routed by their keys. If not, there is one pool, which gets all requests.")
    pools = Attribute("All pools, each an L{IConnections}.")
    standIn = Attribute("What stands in for servers that are down, or C{None}; see L{txconnpool.routing.standin}.")

    def choose(key: bytes) -> Any:
        """
        @return: the pool of a key.

        @raise PoolError: there is none at the moment.
        """

    def divide(command: Any, requests: list[bytes], most: int) -> Any:
        """
        Divide requests for several keys into shares, each of which is for one pool.

        @param command: the L{Command<txconnpool.wire.Command>}.
        @param requests: a request; or several, if the command C{merges}.
        @param most: the maximum number of keys in a share. A pool may get several.

        @return: for each request a list with the number of the share of each key; and a list of the shares. Each is a
            tuple of the pool, C{None} for keys that have no pool, the request for these keys, and their number.
        """

    def anyOf() -> Any:
        """
        @return: a pool for a request without a key.

        @raise PoolError: there is none at the moment.
        """


class IReplySink(Interface):
    """
    Receives the replies to requests that were sent on a L{Connection<txconnpool.pool.connection.Connection>}.
    """

    joins = Attribute("Whether C{replied} may get the replies to several requests at once.")

    def replied(data: Any, done: int) -> None:
        """
        Receive bytes of replies, in the order of the requests.

        @param data: the bytes for the client; may be empty. For a part of a request that was divided it may be what the
            L{IReplyReader<txconnpool.wire.IReplyReader>} has found in the whole reply.
        @param done: the number of replies that these bytes complete. 0: more bytes of the first one follow.
        """

    def requestsLost(requests: list[Any], begun: bool, error: PoolError) -> None:
        """
        Handle the loss of a connection: these requests of the sink get no reply from it. Send nothing yet: other sinks
        may not have been notified of earlier requests.

        @param requests: the requests in order, as L{InFlight<txconnpool.pool.connection.InFlight>}. Of merged requests
            that were answered in part, these are the remaining ones.
        @param begun: whether C{replied} was called with a part of the first reply.
        """

    def afterLoss(error: PoolError) -> None:
        """
        Go on after C{requestsLost}: all sinks of the connection have been notified.
        """

    def abort(error: PoolError) -> None:
        """
        End everything that waits for replies of this sink, because one of its methods has raised an unexpected
        exception: close the client, or fail the Deferreds. The connection that has called it calls it no more.
        """


class IResendingSink(IReplySink):
    """
    Sends requests again that a server L{has declined<txconnpool.wire.Declined>}.
    """

    def declined(connection: Any, sent: Any, reply: bytes) -> bool:
        """
        Send a request of the sink again, if this is possible without a change of the order of its requests.

        @param connection: the L{Connection<txconnpool.pool.connection.Connection>} on which it was sent.
        @param sent: the request, an L{InFlight<txconnpool.pool.connection.InFlight>}. It has left the connection.
        @param reply: the reply of the server.

        @return: whether the sink does it, or writes the reply itself. If not, C{replied} is called with the reply.
        """


class IRedirectedSink(IReplySink):
    """
    Receives the replies to requests for a cluster, whose nodes may redirect them.
    """

    def redirected(redirect: Any, server: Any) -> None:
        """
        Receive the reply to one request that the server has not executed. Nothing of it was passed to C{replied}.

        @param redirect: the reply, a L{Redirect<txconnpool.wire.topology.Redirect>}.
        @param server: the L{server<txconnpool.pool.decisions.servers.Server>} of the connection.
        """


class IMergedReplySink(IReplySink):
    """
    Receives the replies to merged requests too.
    """

    def heldBack(change: int) -> bool:
        """
        Count bytes of replies that have arrived, and that the connection holds back until an earlier reply is known.

        @param change: how many more bytes are held than before; negative before they are passed to C{replied}, or if
            the connection was lost.

        @return: whether the replies are still wanted. If not, the connection drops the bytes, and counts none.
        """


class IPoolObserver(Interface):
    """
    Is notified of the events of a pool. A C{server} is the name of a server, a C{client} the protocol instance of a
    connection. Exceptions of these methods are logged. L{PoolObserver<txconnpool.pool.observer.PoolObserver>} has all
    methods and does nothing.
    """

    def dialing(server: str) -> None:
        """
        A dial begins.
        """

    def dialFailed(server: str, reason: BaseException) -> None:
        """
        A dial failed, or the configuration of a client.
        """

    def connected(server: str, client: Any) -> None:
        """
        A connection is established and configured.
        """

    def disconnected(server: str, client: Any, reason: str) -> None:
        """
        A connection that was established has ended.

        @param reason: a short text.
        """

    def refused(error: PoolError) -> None:
        """
        A request or lease that waited for a connection fails.
        """

    def answered(method: str, seconds: float, result: Any) -> None:
        """
        A request that was sent has a result.

        @param method: the name of the method.
        @param seconds: the time since it was sent.
        @param result: the result, or a L{Failure<twisted.python.failure.Failure>}.
        """

    def lent(client: Any) -> None:
        """
        A lease begins.
        """

    def returned(client: Any) -> None:
        """
        A lease has ended.
        """

    def leaked(client: Any, seconds: float, where: str) -> None:
        """
        A lease has lasted for C{seconds}.

        @param where: the stack of the program when the lease began, as in a traceback.
        """


class IQuiet(Interface):
    """
    A client, the protocol instance of a connection, that may not be free yet when the Deferred of a request has fired:
    an HTTP client, for example, has a response as soon as its headers are there, while the body is still to come.

    The pool asks the client when a request has its result, and when a lease ends. A client that does not provide this
    interface is free then.
    """

    def whenQuiet() -> Any:
        """
        Say when the client is free for another request.

        @return: C{None} if it is free now; otherwise a L{Deferred<twisted.internet.defer.Deferred>} or an awaitable
            that fires when it is. If that fails, or does not fire within C{requestTimeout}, the connection is closed.
            The pool cancels it when the connection is lost.
        """


class IPipelined(Interface):
    """
    A connection that keeps the load of its record itself, because it carries requests of many callers at once.
    """

    record = Attribute("The record of the connection. Set by the pool before the connection is made.")
    outlet = Attribute(
        "An object whose C{queued} is true while requests were written that will be sent at the end of this turn of "
        "the reactor, so that further requests are sent together with them."
    )
    served = Attribute(
        "Whether the server has replied to requests. If it has, it is dialed again before it is called down."
    )

    def established() -> None:
        """
        The handshake is over: the pool gives the connection requests from now on.
        """

    def loseConnection() -> None:
        """
        Close the connection, which carries no requests and is given no more.
        """
