# -*- test-case-name: tests.proxy.test_admission -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Clients that have no session yet, because they have to complete a TLS handshake or to log in.

They are counted apart from the sessions, and have a time limit. When there are too many, the oldest is closed: so
connections that do nothing cannot keep other clients out.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from twisted.internet.interfaces import IDelayedCall, IHalfCloseableProtocol, IHandshakeListener
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from txconnpool.net.deadlines import Deadlines
from txconnpool.net.tls import tlsProblem
from txconnpool.net.transport import closeAfterFlush
from txconnpool.proxy.logins import Penalties
from txconnpool.wire import ADMIT, CLOSE, MORE, SWITCH, Foreign, Login

#: The number of logins that may fail on one connection.
TRIES = 3

#: The number of clients with the same address whose next login waits at the same time.
WAITING = 16


@implementer(IHandshakeListener, IHalfCloseableProtocol)
class PendingClient(Protocol):
    """
    A client without a session. When it gets one, it passes all events of the connection on to it.

    @ivar session: the session, or the protocol that refuses the client; C{None} before.
    """

    transport: Any
    session: Any = None

    def __init__(self, admission: Admission, host: str | None, secure: bool) -> None:
        """
        @param host: the address of the client, or C{None}.
        @param secure: whether the client has to complete a TLS handshake.
        """
        self.host = host
        self._admission = admission
        self._secure = secure
        self._reader: Any = None
        self._data = b""
        self._failures = 0
        self._timer: IDelayedCall | None = None  # the next login is read then
        self._atEnd = False  # the client has closed its side
        self._over = False

    def connectionMade(self) -> None:
        """
        Wait for the handshake, or for the login.
        """
        self._admission.add(self)
        if not self._secure:
            self.handshakeCompleted()

    def handshakeCompleted(self) -> None:
        """
        Wait for the login, if there is one.
        """
        if self.session is not None:
            return
        sessions = self._admission.sessions
        if sessions.gate.accepted is None:
            self._admit(b"")
        else:
            self._reader = sessions.dialect.loginReader(self._check)

    # -- The login

    def dataReceived(self, data: bytes) -> None:
        """
        Read a login.
        """
        if self.session is not None:
            self.session.dataReceived(data)
        elif not self._over:
            self._data += data
            self._next()

    def _next(self) -> None:
        """
        Read the next login. It waits if others have failed. What is left after it is read in the next turn of the
        reactor, so that a client that sends much does not hold up others.
        """
        if self._timer is None and not self._over:
            delay = self._admission.penalties.delay(self.host) if self._data else 0.0
            if delay:
                self._admission.wait(self)
                self._later(delay, self._waited)
            else:
                self._read()

    def _later(self, delay: float, then: Callable[[], None]) -> None:
        self.transport.pauseProducing()
        self._timer = self._admission.reactor.callLater(delay, then)

    def _waited(self) -> None:
        self._admission.waited(self)
        self._resume(self._read)

    def _resume(self, then: Callable[[], None]) -> None:
        self._timer = None
        self.transport.resumeProducing()
        then()

    def _read(self) -> None:
        """
        Read a login, or other requests.
        """
        if not self._data:  # nothing more comes
            self._close()
            return
        counters = self._admission.sessions.counters
        action, end, _, reply = self._reader.read(self._data, 0, 1)
        if action is SWITCH:
            self._reader = reply
            action, end, _, reply = reply.read(self._data, 0, 1)
        if action is MORE:
            if self._atEnd:
                self._close()
            return
        rest, self._data = self._data[end:], b""
        counters.received += end
        self._admission.sessions.countReply(reply)
        if action is ADMIT:
            self._admit(reply, rest)
            return
        if isinstance(reply, Foreign):
            self._admission.sessions.strangers.add(reply.protocol, self.transport)
        self.transport.write(reply)
        counters.sent += len(reply)
        if action is CLOSE or self._failures >= TRIES:
            self._close()
            return
        self._data = rest
        if rest or self._atEnd:
            self._later(0.0, partial(self._resume, self._next))

    def _check(self, login: Login | None) -> bool:
        """
        Check a user and password. After L{TRIES} failures, others that arrived together with them are not checked.
        """
        if self._failures >= TRIES:
            return False
        valid: bool = self._admission.sessions.gate.check(login)
        if not valid:
            self._failures += 1
            self._admission.failed(self)
        return valid

    # -- The session

    def _admit(self, reply: bytes, rest: bytes = b"") -> None:
        """
        Begin a session, or refuse the client.

        @param reply: the reply to the login.
        @param rest: the bytes after the login.
        """
        self._admission.discard(self)
        session = self.session = self._admission.sessions.admit()
        session.makeConnection(self.transport)
        if reply:
            session.admitted(reply, rest, self._reader)
        if self._atEnd:
            self.readConnectionLost()

    # -- The end

    def expire(self) -> None:
        """
        Close the client at once.
        """
        self._over = True
        self.transport.abortConnection()

    def _close(self) -> None:
        self._over = True
        self._data = b""
        closeAfterFlush(self.transport)

    def readConnectionLost(self) -> None:
        """
        The client sends nothing more, but still reads.
        """
        if self.session is None:
            self._atEnd = True
            self._next()
        elif IHalfCloseableProtocol.providedBy(self.session):
            self.session.readConnectionLost()
        else:
            self.transport.loseConnection()

    def writeConnectionLost(self) -> None:
        """
        Do nothing: this side never closes only one direction.
        """

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """
        Forget the client.
        """
        if (
            self._secure
            and self.session is None
            and not self._over
            and reason.value is not None
            and tlsProblem(reason.value)
        ):
            self._admission.sessions.strangers.add("no_tls", self.transport)
        self._over = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._admission.waited(self)
        self._admission.discard(self)
        if self.session is not None:
            self.session.connectionLost(reason)
        self._admission.sessions.left(self.host)


class Admission:
    """
    The clients of a pool that have no session yet.

    @ivar sessions: the L{SessionFactory<txconnpool.proxy.sessions.SessionFactory>}.
    @ivar clients: these clients, the oldest first.
    @ivar penalties: the addresses from which logins have failed.
    @ivar expired: the number of clients that were closed without a session: they took too long, or were too many.
    """

    def __init__(self, sessions: Any) -> None:
        self.sessions = sessions
        self.reactor = sessions.reactor
        self.clients: dict[PendingClient, None] = {}
        self.penalties = Penalties(sessions.name, sessions.reactor.seconds)
        self.expired = 0
        self._deadlines = Deadlines(sessions.reactor, sessions.limits.loginTimeout, self._expire)
        self._waiting: dict[str | None, dict[PendingClient, None]] = {}

    def limit(self, timeout: float) -> None:
        """
        Change the time limit, also for clients that are here.

        @param timeout: seconds.
        """
        self._deadlines.retime(timeout)

    def add(self, client: PendingClient) -> None:
        """
        Add a client. If there are more than C{maxClients}, the oldest is closed.
        """
        self.clients[client] = None
        self._deadlines.add(client)
        if len(self._deadlines.since) > self.sessions.limits.maxClients:
            self.evict()

    def discard(self, client: PendingClient) -> None:
        """
        Forget a client that has a session, or has left.
        """
        self._deadlines.discard(client)
        if not self._deadlines.since:
            self._deadlines.stop()
        if self.clients.pop(client, client) is None:
            self.sessions.changed()

    def evict(self) -> None:
        """
        Close the oldest client, if there is one.
        """
        oldest = next(iter(self._deadlines.since), None)
        if oldest is not None:
            self._deadlines.discard(oldest)
            self._expire(oldest)

    def _expire(self, client: PendingClient) -> None:
        self.expired += 1
        client.expire()

    def failed(self, client: PendingClient) -> None:
        """
        Count a failed login.
        """
        self.penalties.add(client.host)

    def wait(self, client: PendingClient) -> None:
        """
        The next login of a client waits. If too many of its address do, the oldest of them is closed.
        """
        waiting = self._waiting.setdefault(client.host, {})
        waiting[client] = None
        if len(waiting) > WAITING:
            oldest = next(iter(waiting))
            del waiting[oldest]
            self._expire(oldest)

    def waited(self, client: PendingClient) -> None:
        """
        The login of a client does not wait any more.
        """
        waiting = self._waiting.get(client.host, {})
        waiting.pop(client, None)
        if not waiting:
            self._waiting.pop(client.host, None)

    def close(self) -> None:
        """
        Close all clients at once.
        """
        for client in list(self.clients):
            client.expire()
