# -*- test-case-name: tests.proxy.test_idle -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Closes clients that have sent nothing for a long time.

There is no timer for each client, and nothing is noted when a client sends bytes: a few times within the time limit,
all clients are looked at. The bytes of a client that looks idle pass through L{_Watch.received}, once, so a client that
is busy costs nothing.
"""

from __future__ import annotations

from typing import Any, Final

from twisted.internet.interfaces import IDelayedCall

from txconnpool.net.transport import redirect

#: How often clients are looked at within the time limit. So they are closed up to a quarter of it late.
LOOKS: Final = 4


class _Watch:
    """
    The watch over one client that looks idle.

    @ivar since: the time at which it was first found idle.
    """

    __slots__ = ("_idle", "_session", "since")

    def __init__(self, idle: IdleClients, session: Any, since: float) -> None:
        self._idle = idle
        self._session = session
        self.since = since
        redirect(session.transport, session, self.received)

    def received(self, data: bytes) -> None:
        """
        The client is not idle: pass on its bytes, and watch it no more.
        """
        self._idle.forget(self._session)
        self._session.dataReceived(data)

    def end(self) -> None:
        """
        Give the bytes to the session itself again.
        """
        redirect(self._session.transport, self._session, None)


class IdleClients:
    """
    The clients of a pool that may be idle.

    @ivar closed: the number of clients that were closed because they were idle for too long.
    """

    def __init__(self, sessions: Any) -> None:
        """
        @param sessions: the L{SessionFactory<txconnpool.proxy.sessions.SessionFactory>}.
        """
        self.closed = 0
        self._sessions = sessions
        self._watched: dict[Any, _Watch] = {}
        self._timer: IDelayedCall | None = None

    def schedule(self) -> None:
        """
        Look at the clients later, if there are any, and they have a time limit.
        """
        timeout = self._sessions.limits.idleTimeout
        if self._timer is None and timeout and self._sessions.sessions:
            self._timer = self._sessions.reactor.callLater(timeout / LOOKS, self._look)

    def restart(self) -> None:
        """
        The time limit has changed, or no client is left: begin again.
        """
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if not self._sessions.limits.idleTimeout:
            for session in list(self._watched):
                self.forget(session)
        self.schedule()

    def forget(self, session: Any) -> None:
        """
        Watch a client no more: it has sent bytes, or is gone.
        """
        watch = self._watched.pop(session, None)
        if watch is not None and not session.ending:
            watch.end()

    def _look(self) -> None:
        self._timer = None
        now, timeout = self._sessions.reactor.seconds(), self._sessions.limits.idleTimeout
        for session in list(self._sessions.sessions):
            if session.busy or session.listens or session.ending:
                self.forget(session)
                continue
            watch = self._watched.get(session)
            if watch is None:
                self._watched[session] = _Watch(self, session, now)
            elif now - watch.since >= timeout:
                self.forget(session)
                self.closed += 1
                session.expire()
        self.schedule()
