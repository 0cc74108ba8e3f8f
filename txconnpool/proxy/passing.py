# -*- test-case-name: tests.proxy.test_passing -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Logins that the servers check, because the proxy does not know the users and passwords of clients.

A server is asked on a connection of the pool that nobody else uses meanwhile, and that is reset afterwards. It is not
asked again for a login that it has just accepted: many clients log in at the same time, or for each of their requests.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from zope.interface import implementer

from txconnpool.errors import PoolError
from txconnpool.interfaces import IWaiter
from txconnpool.net.transport import networkOf
from txconnpool.proxy.broadcast import failed
from txconnpool.proxy.pinning import LentConnection

#: The seconds for which a login is accepted without asking, after a server has accepted it.
TRUST: Final = 5.0

#: The number of logins that are remembered.
REMEMBERED: Final = 1000

#: What becomes of the reply of a server, see L{LOGIN<txconnpool.wire.LocalAction.LOGIN>}.
Conclude = Callable[[bytes], tuple[bytes, Any]]


class _Line(LentConnection):
    """
    A connection on which a server is asked.
    """

    __slots__ = ()

    def pushed(self, data: bytes) -> None:
        """
        Drop the frame: nothing was asked that leads to one.
        """


@implementer(IWaiter)
class _Question:
    """
    Waits for a connection.
    """

    ticket: Any = None

    def __init__(self) -> None:
        self.record: Deferred[Any] = Deferred()

    def granted(self, record: Any) -> None:
        self.ticket = None
        self.record.callback(record)

    def refused(self, error: PoolError) -> None:
        self.ticket = None
        self.record.errback(error)


class PassedLogins:
    """
    The logins of the clients of a pool.
    """

    def __init__(self, sessions: Any) -> None:
        """
        @param sessions: the L{SessionFactory<txconnpool.proxy.sessions.SessionFactory>}.
        """
        self._sessions = sessions
        self._accepted: dict[bytes, tuple[bytes, float]] = {}  # replies and times, by request
        self._asked: dict[bytes, list[Deferred[bytes]]] = {}  # those who wait for a reply, by request

    def logIn(self, session: Any, command: Any, request: bytes, conclude: Conclude) -> Deferred[bytes]:
        """
        Ask a server whether a client may log in. The login waits if others from its address have failed.

        @return: fires with the reply for the client.
        """
        return Deferred.fromCoroutine(self._logIn(session, command, request, conclude))

    async def _logIn(self, session: Any, command: Any, request: bytes, conclude: Conclude) -> bytes:
        sessions = self._sessions
        peer = networkOf(getattr(session.transport.getPeer(), "host", None))
        delay = sessions.admission.penalties.delay(peer)
        if delay:
            await deferLater(sessions.reactor, delay)
        sessions.gate.attempts += 1
        try:
            reply = await self._ask(command, request)
        except PoolError as error:
            return failed(sessions.dialect, error)
        if session.gone:
            return b""
        answer, flavour = conclude(reply)
        if flavour is None:
            sessions.gate.failures += 1
            sessions.admission.penalties.add(peer)
            return answer
        self._remember(request, reply)
        return session.useFlavour(flavour) or answer

    def _remember(self, request: bytes, reply: bytes) -> None:
        self._accepted.setdefault(request, (reply, self._sessions.reactor.seconds()))
        if len(self._accepted) > REMEMBERED:
            del self._accepted[next(iter(self._accepted))]

    def _ask(self, command: Any, request: bytes) -> Deferred[bytes]:
        """
        @return: fires with the reply of a server to a login.
        """
        reply, since = self._accepted.get(request, (b"", 0.0))
        answered: Deferred[bytes] = Deferred()
        if reply and self._sessions.reactor.seconds() - since < TRUST:
            answered.callback(reply)
            return answered
        self._accepted.pop(request, None)
        waiting = self._asked.setdefault(request, [])
        waiting.append(answered)
        if len(waiting) == 1:
            Deferred.fromCoroutine(self._askServer(command, request)).addBoth(self._answer, request)
        return answered

    def _answer(self, result: Any, request: bytes) -> None:
        for each in self._asked.pop(request):
            each.callback(result)  # a Failure becomes an exception

    async def _askServer(self, command: Any, request: bytes) -> bytes:
        question, sessions = _Question(), self._sessions
        leases = sessions.flavours.leases
        pool = leases.anyOf() if sessions.router.keyed else leases
        record = pool.take(question, True)
        if record is None:
            record = await question.record
        line = _Line(sessions, pool, record)
        try:
            return bytes(await line.connection.ask(command, request))
        finally:
            line.release()
