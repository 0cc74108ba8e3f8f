# -*- test-case-name: tests.test_interfaces -*-
# Copyright txconnpool contributors. See LICENSE.
"""
What the parts of txconnpool ask of each other, and what an extender implements.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from zope.interface import Attribute, Interface

from txconnpool.errors import PoolError


class IDialect(Interface):
    """
    A protocol as the proxy sees it: where requests and replies begin and end. Free of input and output.

    L{txconnpool.wire.memcache.dialect.Memcache} is the one there is; its docstrings tell the details.
    """

    commands = Attribute("All commands of replies, each a L{txconnpool.wire.Command}, in the order of their index.")
    noStatistics = Attribute("Bytes said to a client who asks for statistics of which the dialect knows nothing.")
    tooManyClients = Attribute("Bytes said to a client who comes when no more may come.")

    gate = Attribute(
        "Makes what reads the requests of clients until they have logged in: an object with requests, "
        "which may give the directive ADMIT; with tokens, C{None} if clients need not log in; with logins and failures."
    )

    def requests(data: bytes, pos: int, most: int) -> tuple[Any, int, int, Any]:
        """
        Look at the bytes of a client from C{pos}.

        @param most: how many requests may be taken as one run.
        @return: C{(command, end, count, payload)}. With C{count}: so many complete requests end at C{end}, each owed
            one reply of C{command}; C{payload}, if not C{None}, is to be sent in their stead. Without: a directive.
            Several requests are a run, which is sent as one request for what all of them want.
        """

    def replies(
        data: bytes, pos: int, command: Any, count: int, due: int, asked: list[bytes] | None = None, tally: Any = None
    ) -> tuple[int, int, int]:
        """
        Look at the bytes of a server from C{pos}: replies of C{command}, of which C{count} are still owed.

        @param due: -1 at the start of a reply, else how many bytes of a body are still to come.
        @param asked: what C{command.keysOf} made of the requests, less what has been answered.
        @param tally: where to count what the replies hold, a L{txconnpool.wire.Tally}.
        @return: C{(pos, count, due)} after all that is certain.
        @raise WireError: they are no such replies.
        """

    def run(
        data: bytes, pos: int, command: Any, count: int, due: int, asked: list[bytes], tally: Any, fresh: bool
    ) -> tuple[int, int, int, bytes]:
        """
        Look at the bytes of a server from C{pos}: its reply to a run, of which the client is owed C{count} of
        C{command}.

        @param fresh: whether nothing of it has come yet.
        @return: C{(pos, count, due, told)} after all that is certain; C{told} is what the client gets of it.
        @raise WireError: it is no such reply.
        """

    def split(run: bytes, count: int) -> tuple[bytes, bytes]:
        """
        @return: two runs instead of one, the first of C{count} requests.
        """

    def merge(replies: list[bytes]) -> bytes:
        """
        @return: one reply to a request that every server has answered.
        """

    def error(text: str) -> bytes:
        """
        @return: the bytes that tell a client that its request failed on the way.
        """

    def statistics(items: Iterable[tuple[str, object]]) -> bytes:
        """
        @return: the bytes that tell a client names and values.
        """

    def statisticsOfServer(words: tuple[bytes, ...]) -> tuple[bytes, Any] | None:
        """
        @return: the request by which a server is asked for its own, and the command of its reply; C{None} for words
            that clients may not ask with.
        """

    def together(replies: list[bytes]) -> bytes:
        """
        @return: one reply to a client, of those that each server gave to that.
        """

    def about(request: bytes) -> tuple[str, list[bytes]]:
        """
        @return: the command and the keys of a request, of which the beginning is enough.
        """

    probe = Attribute("(request, command): a request that any living server answers, for the handshake.")


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


class IRequester(Interface):
    """
    Who has requests in flight on a L{txconnpool.pool.connection.Connection}.
    """

    def replied(data: bytes, count: int) -> None:
        """
        The next bytes of the replies, in the order of the requests.

        @param count: how many replies they complete. 0: there is more to come of the first one.
        """

    def unanswered(entries: list[Any], begun: bool, error: PoolError) -> None:
        """
        The connection was lost; these of the requester's requests will get no reply from it.

        @param entries: what was in flight, in order, as the connection keeps it.
        @param begun: whether part of the first reply has been passed on.
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
