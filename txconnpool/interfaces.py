# -*- test-case-name: tests.test_interfaces -*-
# Copyright txconnpool contributors. See LICENSE.
"""
The interfaces between the rooms of txconnpool, and those that users implement.
"""

from __future__ import annotations

from typing import Any

from zope.interface import Attribute, Interface

from txconnpool.errors import PoolError


class IWaiter(Interface):
    """
    Who asks a pool for a connection with room.
    """

    ticket = Attribute("Set by the pool while it waits, for L{txconnpool.pool.library.Pool.forget}.")

    def granted(record: Any) -> None:
        """
        C{record.connection} has room. The waiter must put load on C{record} before it returns.
        """

    def refused(error: PoolError) -> None:
        """
        There will be no connection.
        """


class IReplySink(Interface):
    """
    What is given the replies to requests that were sent on a L{Connection<txconnpool.pool.connection.Connection>}.
    """

    def replied(data: bytes, done: int) -> None:
        """
        Take the next bytes of the replies, in the order of the requests.

        @param data: all that the client is to see of them; may be empty.
        @param done: how many replies these bytes complete. 0: more of the first one follows.
        """

    def requestsLost(requests: list[Any], begun: bool, error: PoolError) -> None:
        """
        The connection was lost: these requests of the sink, in their order, get no reply from it.

        @param requests: as the connection keeps them, see L{InFlight<txconnpool.pool.connection.InFlight>}; of merged
            requests that were answered in part, the rest.
        @param begun: whether C{replied} was given part of the first reply.
        """


class IPoolObserver(Interface):
    """
    Who is told what happens in a L{txconnpool.pool.library.Pool}. Servers are told by name. What these methods raise is
    logged. L{txconnpool.pool.library.PoolObserver} has all of them and does nothing.
    """

    def dialing(server: str) -> None:
        """
        A dial begins.
        """

    def dialFailed(server: str, reason: BaseException) -> None:
        """
        A dial, or the configuring of a client, failed.
        """

    def connected(server: str, client: Any) -> None:
        """
        C{client} is ready for use.
        """

    def disconnected(server: str, client: Any, reason: str) -> None:
        """
        The connection of C{client}, which was ready, has ended.

        @param reason: why, in a few words.
        """

    def refused(error: PoolError) -> None:
        """
        A request or lease that waited will get no connection.
        """

    def answered(method: str, seconds: float, result: Any) -> None:
        """
        A request that was sent has ended.

        @param seconds: since it was sent.
        @param result: what it gave: a L{Failure<twisted.python.failure.Failure>} if it failed.
        """

    def lent(client: Any) -> None:
        """
        Somebody borrows C{client}.
        """

    def returned(client: Any) -> None:
        """
        C{client} was given back.
        """

    def leaked(client: Any, seconds: float, where: str) -> None:
        """
        C{client} has not been given back for C{seconds}.

        @param where: the stack of the program when it was borrowed, as in a traceback.
        """


class IPipelined(Interface):
    """
    A client that keeps the load of its record itself, and carries the requests of many at once.
    """

    record = Attribute("Set by the pool when the connection is established.")
    sending = Attribute("Whether what it was given has yet to leave, so that more would travel with it.")

    def loseConnection() -> None:
        """
        Close the connection. It carries nothing, and will be given nothing.
        """
