# -*- test-case-name: tests.proxy.test_passing -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Logins that the servers check, because the proxy does not know the users and passwords of clients.

A server is asked on a connection of the pool that nobody else uses meanwhile, and that is reset afterwards. It is not
asked again for a login that it has just accepted: many clients log in at the same time, or for each of their requests.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import Any, Final

from twisted.internet.defer import Deferred

from txconnpool.errors import PoolClosed, PoolError
from txconnpool.net.transport import networkOf
from txconnpool.proxy.broadcast import failed
from txconnpool.proxy.pinning import LentConnection
from txconnpool.routing.asking import take
from txconnpool.routing.waits import Waits

#: The seconds for which a login is accepted without asking, after a server has accepted it.
TRUST: Final = 5.0

#: The number of logins that are remembered.
REMEMBERED: Final = 1000


class PassedLogins:
    """
    The logins of the clients of a pool.
    """

    def __init__(self, sessions: Any) -> None:
        """
        @param sessions: the L{SessionFactory<txconnpool.proxy.sessions.SessionFactory>}.
        """
        self._sessions = sessions
        self._accepted: dict[bytes, float] = {}  # the times at which servers have accepted logins, the oldest first
        self._delays = Waits(sessions.reactor)
        self._asked: dict[bytes, list[Deferred[bytes]]] = {}  # those who wait for a reply, by request

    def logIn(
        self, session: Any, step: tuple[Any, bytes, bytes], flavour: Any, conclude: Callable[[bytes], bytes]
    ) -> Deferred[bytes]:
        """
        Ask a server whether a client may log in. The login waits if others from its address have failed.

        The parameters are those of L{LOGIN<txconnpool.wire.LocalAction.LOGIN>}.

        @return: fires with the reply for the client.
        """
        return Deferred.fromCoroutine(self._logIn(session, step, flavour)).addCallback(conclude)

    async def _logIn(self, session: Any, step: tuple[Any, bytes, bytes], flavour: Any) -> bytes:
        """
        @return: the error for the client; no bytes if it has logged in.
        """
        command, request, expected = step
        sessions = self._sessions
        peer = networkOf(getattr(session.transport.getPeer(), "host", None))
        delay = sessions.admission.penalties.delay(peer)
        try:
            if delay:
                await self._delays.add(delay)
            if session.gone:
                return b""
            sessions.gate.attempts += 1
            reply = b"" if self._isTrusted(request) else await self._ask(command, request)
        except PoolError as error:
            return failed(sessions.dialect, error)
        if reply and not reply.startswith(expected):
            sessions.gate.failures += 1
            sessions.admission.penalties.add(peer)
            return reply
        if reply:
            self._trust(request)
        return b"" if session.gone else bytes(session.useFlavour(flavour))

    def close(self) -> None:
        """
        End the delays, because the pool is closed.
        """
        self._delays.fail(PoolClosed("the pool was closed"))

    def _isTrusted(self, request: bytes) -> bool:
        """
        @return: whether a server has just accepted a login.
        """
        return bool(self._sessions.reactor.seconds() - self._accepted.get(request, -inf) < TRUST)

    def _trust(self, request: bytes) -> None:
        self._accepted.pop(request, None)
        self._accepted[request] = self._sessions.reactor.seconds()
        if len(self._accepted) > REMEMBERED:
            del self._accepted[next(iter(self._accepted))]

    def _ask(self, command: Any, request: bytes) -> Deferred[bytes]:
        """
        @return: fires with the reply of a server to a login.
        """
        answered: Deferred[bytes] = Deferred()
        waiting = self._asked.setdefault(request, [])
        waiting.append(answered)
        if len(waiting) == 1:
            Deferred.fromCoroutine(self._askServer(command, request)).addBoth(self._answer, request)
        return answered

    def _answer(self, result: Any, request: bytes) -> None:
        for each in self._asked.pop(request):
            each.callback(result)  # a Failure becomes an exception

    async def _askServer(self, command: Any, request: bytes) -> bytes:
        sessions = self._sessions
        leases = sessions.flavours.leases
        pool = leases.anyOf() if sessions.router.keyed else leases
        line = LentConnection(sessions, pool, await take(pool, True))
        try:
            return bytes(await line.connection.ask(command, request))
        finally:
            line.release()
