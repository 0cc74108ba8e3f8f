# -*- test-case-name: tests.proxy.test_passing -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Logins that the servers check, because the proxy does not know the users and passwords of clients.

A server is asked on a connection that nobody else uses meanwhile, and that is reset afterwards. It is not asked again
for a login that it has just accepted: many clients log in at the same time, or for each of their requests.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from hashlib import blake2b
from secrets import token_bytes
from typing import Any, Final

from twisted.internet.defer import Deferred

from txconnpool.errors import PoolClosed, PoolError
from txconnpool.net.transport import networkOf
from txconnpool.proxy.admission import TRIES
from txconnpool.proxy.broadcast import failed
from txconnpool.proxy.pinning import LentConnection
from txconnpool.routing.asking import take
from txconnpool.routing.waits import Waits

#: The seconds for which a login is accepted without asking, after a server has accepted it.
TRUST: Final = 5.0

#: The number of logins of an address that may be under way without a delay.
CONCURRENT: Final = 16

#: The number of logins that are remembered.
REMEMBERED: Final = 1000


class _Delayed:
    """
    A client whose login waits because others from its address have failed.
    """

    def __init__(self, session: Any, host: str | None) -> None:
        self._session = session
        self.host = host

    def expire(self) -> None:
        """
        Close the client, because too many of its address wait.
        """
        if not self._session.gone:
            self._session.drop()


class _Question(LentConnection):
    """
    A connection on which a server is asked.
    """

    __slots__ = ()

    def pushed(self, data: bytes) -> None:
        """
        Drop a frame that the server sent without a request.
        """

    def abort(self, error: PoolError) -> None:
        """
        Close the connection, because of an unexpected exception.
        """
        self._record.connection.abort()


class PassedLogins:
    """
    The logins of the clients of a pool.
    """

    def __init__(self, sessions: Any) -> None:
        """
        @param sessions: the L{SessionFactory<txconnpool.proxy.sessions.SessionFactory>}.
        """
        self._sessions = sessions
        self._key = token_bytes(32)
        self._accepted: dict[bytes, float] = {}  # when servers have accepted logins, by their hashes; the oldest first
        self._delays = Waits(sessions.reactor)
        self._waiting: dict[Any, Deferred[None]] = {}  # the delays of clients
        self._asked: dict[bytes, list[Deferred[bytes]]] = {}  # those who wait for a reply, by request
        self._undecided: dict[str | None, Counter[bytes]] = {}  # the logins that are under way from each address
        self._failures: Counter[Any] = Counter()  # the failed logins of each client

    def logIn(
        self, session: Any, step: tuple[Any, bytes, bytes], flavour: Any, conclude: Callable[[bytes], bytes]
    ) -> Deferred[bytes]:
        """
        Ask a server whether a client may log in. The login waits if others from its address have failed, or if many
        others are under way. A client is closed after L{TRIES} failures.

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
        host = networkOf(getattr(session.transport.getPeer(), "host", None))
        undecided = self._undecided.setdefault(host, Counter())
        others = len(undecided) - (request in undecided)
        undecided[request] += 1
        try:
            await self._delay(session, host, max(0, others - CONCURRENT))
            if session.gone:
                return b""
            sessions.gate.attempts += 1
            reply = b"" if self._isTrusted(request) else await self._ask(command, request)
        except PoolError as error:
            return failed(sessions.dialect, error)
        finally:
            undecided[request] -= 1
            if not undecided[request]:
                del undecided[request]
            if not undecided:
                self._undecided.pop(host, None)
        if reply and not reply.startswith(expected):
            self._refused(session, host)
            return reply
        if reply:
            self._trust(request)
        return b"" if session.gone else bytes(session.useFlavour(flavour))

    async def _delay(self, session: Any, host: str | None, others: int) -> None:
        """
        Wait before a login.

        @param others: the number of other logins of the address that are under way, beyond L{CONCURRENT}.
        """
        admission = self._sessions.admission
        delay = admission.penalties.delay(host, others)
        if not delay:
            return
        waiting = _Delayed(session, host)
        if admission.penalties.delay(host):
            admission.wait(waiting)
        try:
            if not session.gone:
                self._waiting[session] = self._delays.add(delay)
                await self._waiting[session]
        finally:
            self._waiting.pop(session, None)
            admission.waited(waiting)

    def _refused(self, session: Any, host: str | None) -> None:
        """
        A server has refused a login.
        """
        self._sessions.gate.failures += 1
        self._sessions.admission.penalties.add(host)
        if not session.gone:
            self._failures[session] += 1
            if self._failures[session] >= TRIES:
                session.expel()

    def left(self, session: Any) -> None:
        """
        A client is gone.
        """
        self._failures.pop(session, None)
        delay = self._waiting.pop(session, None)
        if delay is not None:
            delay.callback(None)

    def close(self) -> None:
        """
        End the delays, because the pool is closed.
        """
        self._delays.fail(PoolClosed("the pool was closed"))

    # -- What is known

    def _hash(self, request: bytes) -> bytes:
        """
        @return: a hash of a login, so that no passwords are kept and none is compared byte by byte.
        """
        return blake2b(request, key=self._key, digest_size=32).digest()

    def _isTrusted(self, request: bytes) -> bool:
        """
        @return: whether a server has just accepted a login.
        """
        self._forget()
        return self._hash(request) in self._accepted

    def _trust(self, request: bytes) -> None:
        login = self._hash(request)
        self._accepted.pop(login, None)
        self._accepted[login] = self._sessions.reactor.seconds()
        self._forget()

    def _forget(self) -> None:
        now = self._sessions.reactor.seconds()
        while self._accepted:
            oldest, since = next(iter(self._accepted.items()))
            if len(self._accepted) <= REMEMBERED and now - since < TRUST:
                return
            del self._accepted[oldest]

    # -- Questions

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
        pool = self._sessions.flavours.questions
        line = _Question(self._sessions, pool, await take(pool, True))
        try:
            return bytes(await line.connection.ask(command, request))
        finally:
            line.release()
