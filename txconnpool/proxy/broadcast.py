# -*- test-case-name: tests.proxy.test_sessions -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Requests that are sent to every server, or to one of them, on behalf of one client, whose reply is not simply that of a
server.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, DeferredList, fail, maybeDeferred
from twisted.python.failure import Failure

from txconnpool.errors import PoolError, ServerUnavailable
from txconnpool.pool.decisions.health import NO_SERVERS
from txconnpool.routing.asking import take


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


async def _askOne(pool: Any, command: Any, request: bytes) -> bytes:
    reply: bytes = await (await take(pool)).connection.ask(command, request)
    return reply


def askOne(pool: Any, command: Any, request: bytes) -> Deferred[bytes]:
    """
    Send a request to one server of a pool, which may have to connect first.

    @return: fires with the reply; fails with a L{PoolError}.
    """
    return Deferred.fromCoroutine(_askOne(pool, command, request))


def _askAny(router: Any, command: Any, request: bytes) -> Deferred[Any]:
    return maybeDeferred(lambda: askOne(router.anyOf(), command, request))


def _failedWith(failure: Failure, dialect: Any) -> bytes:
    failure.trap(PoolError)
    assert failure.value is not None
    return failed(dialect, failure.value)


def askAny(router: Any, dialect: Any, command: Any, request: bytes) -> Deferred[bytes]:
    """
    Send a request to one server.

    @return: fires with the reply, which is an error if it got none.
    """
    return _askAny(router, command, request).addErrback(_failedWith, dialect)


def learn(router: Any, dialect: Any, command: Any, request: bytes, learned: Any, lost: Any) -> Deferred[bytes]:
    """
    Carry out a L{LEARN<txconnpool.wire.LEARN>}.

    @param router: the L{IRouter<txconnpool.interfaces.IRouter>} of the client.
    @param learned: called with the reply of the server.
    @param lost: called with the reply to the client if there is none.

    @return: fires with no bytes.
    """
    asked = _askAny(router, command, request)
    asked.addCallbacks(learned, lambda failure: lost(_failedWith(failure, dialect)))
    return asked.addCallback(lambda _: b"")
