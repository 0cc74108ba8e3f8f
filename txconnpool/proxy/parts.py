# -*- test-case-name: tests.proxy.test_parts -*-
# Copyright txconnpool contributors. See LICENSE.
"""
A request that is sent in parts, each when the one before is answered and its client has read.

One line can ask for any number of large values. Sent as it is, its reply would occupy a connection that others wait
for, for as long as it lasts, and nobody could stop it when the client does not read.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Any

from zope.interface import implementer

from txconnpool.errors import ConnectionLostInFlight, PoolError
from txconnpool.interfaces import IRequester, IWaiter


@implementer(IWaiter, IRequester)
class Parts:
    """
    The parts of one request of a session that has nothing else in flight meanwhile.

    @ivar ticket: its place among the waiters, while it waits.
    @ivar size: the bytes of all parts.
    """

    ticket: Any = None

    def __init__(self, session: Any, pool: Any, command: Any, parts: Iterable[bytes], ending: bytes) -> None:
        """
        @param session: has C{said(data)} to pass on a part of the reply, C{finished(data)} for the last one,
            C{failed(command, error, begun)} if there will be none, and C{crowded}: whether its client does not read.
        @param command: the command of the replies.
        @param parts: requests.
        @param ending: what ends the reply to a part and belongs only to that of the last one.
        """
        self._session = session
        self._pool = pool
        self._command = command
        self._parts = deque(parts)
        self.size = sum(map(len, self._parts))
        self._ending = ending
        self._out = False  # one has been sent, or waits for a connection
        self._again = False  # it is sent for the second time
        self._begun = False  # some of the reply is out

    def begin(self) -> PoolError | None:
        """
        Send the next part, if nothing speaks against it.

        @return: why the pool has no connection for it, if it has none.
        """
        if not (self._out or self._session.crowded):
            self._out = True
            try:
                record = self._pool.take(self)
            except PoolError as error:
                return error
            if record is not None:
                self._send(record)
        return None

    def go(self) -> None:
        """
        Send the next part, if nothing speaks against it; tell the session if there is no connection for it.
        """
        error = self.begin()
        if error is not None:
            self._fail(error)

    def stop(self) -> None:
        """
        The client is gone.
        """
        self._parts.clear()
        if self.ticket is not None:
            self._pool.forget(self.ticket)
            self.ticket = None

    def granted(self, record: Any) -> None:
        """
        Here is a connection.
        """
        self.ticket = None
        self._send(record)

    def refused(self, error: PoolError) -> None:
        """
        There is no connection.
        """
        self.ticket = None
        self._fail(error)

    def _send(self, record: Any) -> None:
        command = self._command.but(idempotent=False) if self._again else self._command
        record.connection.send(self, command, 1, self._parts[0])

    def replied(self, data: bytes, count: int) -> None:
        """
        Pass on what the server said, as if it said it in one piece.
        """
        if not self._parts:
            return  # the client is gone
        if not count:
            self._begun = True
            self._session.said(data)
            return
        last = len(self._parts) == 1
        if data != self._ending and not data.endswith(b"\r\n" + self._ending):  # an error in its stead
            self._parts.clear()
            if self._begun:
                self._session.failed(self._command, None, True)
            else:
                self._session.finished(data)
        elif last:
            self._parts.clear()
            self._session.finished(data)
        else:
            data = data.removesuffix(self._ending)
            if data:
                self._begun = True
                self._session.said(data)
            if self._parts:  # it may have been too much for the client
                self._parts.popleft()
                self._out = self._again = False
                self.go()

    def unanswered(self, entries: list[Any], begun: bool, error: PoolError) -> None:
        """
        The connection was lost: a read is tried once more.
        """
        if not self._parts:
            return
        self._out = False
        if begun or self._again or not (self._command.idempotent and isinstance(error, ConnectionLostInFlight)):
            self._begun = self._begun or begun
            self._fail(error)
        else:
            self._again = True
            self._pool.counters.retries += 1
            self.go()

    def _fail(self, error: PoolError) -> None:
        self._parts.clear()
        self._session.failed(self._command, error, self._begun)
