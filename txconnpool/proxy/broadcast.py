# -*- test-case-name: tests.proxy.test_sessions -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Requests that are sent to every server on behalf of one client.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, DeferredList, fail

from txconnpool.errors import PoolError, ServerUnavailable
from txconnpool.pool.decisions.health import NO_SERVERS


def askAll(router: Any, dialect: Any, command: Any, request: bytes) -> Deferred[list[bytes]]:
    """
    Send one request to every server.

    @param router: the L{IRouter<txconnpool.interfaces.IRouter>}.
    @param dialect: the L{IDialect<txconnpool.wire.IDialect>}.

    @return: fires with the replies in the order of the servers. A request that failed has an error as its reply, and so
        has a pool in which a server has no connection.
    """

    def replies(results: list[tuple[bool, Any]]) -> list[bytes]:
        return [result if done else failed(dialect, result.value) for done, result in results]

    asked: list[Deferred[bytes]] = []
    for pool in router.pools:
        try:
            asked += [record.connection.ask(command, request) for record in pool.each()]
        except PoolError:
            asked.append(fail())
    if not asked:
        asked.append(fail(ServerUnavailable(NO_SERVERS)))
    return DeferredList(asked, consumeErrors=True).addCallback(replies)


def broadcast(router: Any, dialect: Any, command: Any, request: bytes) -> Deferred[bytes]:
    """
    Send one request to every server, and make one reply of theirs.

    @return: fires with the bytes for the client.
    """
    joined: Deferred[bytes] = askAll(router, dialect, command, request).addCallback(command.join)
    return joined


def failed(dialect: Any, error: BaseException) -> bytes:
    """
    @return: the reply to a request that failed.
    """
    reply: bytes = dialect.error(getattr(error, "kind", "other"), str(error))
    return reply
