# -*- test-case-name: tests.proxy.test_dumping -*-
# Copyright txconnpool contributors. See LICENSE.
"""
A reply of any length from every server, one after another, as one reply to a client: the keys of all servers.

memcached hands a connection with such a request to its crawler, and replies to the requests behind it late
(C{crawler.c}, C{lru_crawler_crawl}). So each server gets the request on a connection of its own, which is closed
afterwards. Bytes are passed on as they come. While the client does not read, the server is not read.
"""

from __future__ import annotations

from contextlib import closing
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from zope.interface import implementer

from txconnpool.errors import PoolClosed, PoolError
from txconnpool.interfaces import IReplySink, IWaiter
from txconnpool.net.transport import peerOf
from txconnpool.net.unsent import unsentOf
from txconnpool.proxy.replies import LaterReply

_log = Logger("txconnpool.proxy")

#: A client that has read none of the unread bytes of the reply for so many seconds is closed.
STALLED: Final = 30.0

#: How often it is looked at meanwhile.
LOOKS: Final = 6


@implementer(IReplySink, IWaiter)
class DumpReply(LaterReply):
    """
    The reply to one L{DUMP<txconnpool.wire.LocalAction.DUMP>}. Later requests of the session wait for it.
    """

    __slots__ = (
        "_begun", "_closes", "_command", "_connection", "_last", "_refusal", "_request", "_since", "_timer", "_unsent",
        "ticket",
    )  # fmt: skip

    joins = False

    def __init__(self, session: Any, command: Any, request: bytes, refusal: bytes, closes: bool) -> None:
        """
        The parameters are those of the action.
        """
        super().__init__(session, self._dump, True)
        self._command = command
        self._request = request
        self._refusal = refusal
        self._closes = closes
        self._begun = False  # whether lines were written
        self._last: Deferred[bytes] | None = None  # fires with the last bytes of the reply of a server
        self._connection: Any = None
        self._timer: Any = None  # runs while the server is not read, because the client has unread bytes
        self._unsent = 0  # the number of these
        self._since = 0.0  # the time at which it was first found to be that
        self.ticket: Any = None

    def _dump(self) -> Deferred[bytes]:
        return Deferred.fromCoroutine(self._replies())

    async def _replies(self) -> bytes:
        """
        Pass on the replies of all servers.

        @return: the last bytes of the reply to the client.
        """
        session = self.session
        if not session.factory.limits.keyDumps:
            last, closes = self._refusal, self._closes
        else:
            last, closes = await self._fromServers()
        if closes and self.left:
            # The client waits for END, so it sees that there is no more only when it is closed.
            self.take(last)
            session.breakOff()
            return b""
        return last

    async def _fromServers(self) -> tuple[bytes, bool]:
        """
        @return: the last bytes of the reply, and whether they are an error after lines that were written.
        """
        last = b""
        try:
            with closing(self.session.factory.separate.pools()) as pools:
                for pool in pools:
                    last = await self._from(pool)
                    if self._command.withoutEnd(last) is None:
                        return last, self._begun
        except PoolError as error:
            if self.left:
                return self.session.refusal(self._command, 1, error), self._begun
        return last, False

    async def _from(self, pool: Any) -> bytes:
        """
        Pass on the reply of one server.

        @return: its end.
        """
        last: Deferred[bytes] = Deferred()
        self._last = last
        try:
            record = pool.take(self)
            if record is not None:
                self.granted(record)
            return await last
        finally:
            self._last = self._connection = None
            self._stopTimer()
            self.session.factory.separate.end(pool)

    def granted(self, record: Any) -> None:
        """
        Send the request.
        """
        self._connection = record.connection
        self._connection.send(self, self._command, 1, self._request)

    def refused(self, error: PoolError) -> None:
        """
        There is no connection to the server.
        """
        self._fail(error)

    def replied(self, data: bytes, done: int) -> None:
        """
        Pass on bytes of the reply.
        """
        if self._last is None:  # the client is gone
            return
        if done:
            lines = self._command.withoutEnd(data)
            end = data if lines is None else data[len(lines) :]
        else:
            lines, end = data, b""
        if lines:
            self._begun = True
            self.take(lines)
        last = self._last
        if last is None:  # writing has closed the client
            return
        if done:
            self._last = None
            last.callback(end)
        elif self.session.isFull and self._timer is None:
            self._connection.pauseReplies()
            self._unsent, self._since = unsentOf(self.session.transport), self.session.factory.reactor.seconds()
            self._watch()

    def requestsLost(self, requests: list[Any], begun: bool, error: PoolError) -> None:
        """
        Do nothing: L{afterLoss} follows.
        """

    def afterLoss(self, error: PoolError) -> None:
        """
        The connection was lost.
        """
        self._fail(error)

    def _fail(self, error: PoolError) -> None:
        last, self._last = self._last, None
        if last is not None:
            last.errback(error)

    # -- The client

    def drained(self) -> None:
        """
        Read from the server again, because the client has read everything.
        """
        if self._timer is not None:
            self._stopTimer()
            self._connection.resumeReplies()

    def _watch(self) -> None:
        self._timer = self.session.factory.reactor.callLater(STALLED / LOOKS, self._look)

    def _look(self) -> None:
        """
        Close the client if it has read nothing for some time. One that reads slowly is served.
        """
        now, unsent = self.session.factory.reactor.seconds(), unsentOf(self.session.transport)
        if unsent < self._unsent:
            self._unsent, self._since = unsent, now
        elif now - self._since >= STALLED:
            self._stalled()
            return
        self._watch()

    def _stopTimer(self) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None

    def _stalled(self) -> None:
        session = self.session
        _log.warn("{pool}: closing {client}: it has read nothing of a dump of keys for {seconds:g} s",
                  pool=session.factory.name, client=peerOf(session.transport), seconds=STALLED)  # fmt: skip
        session.drop()

    def discard(self) -> None:
        """
        Close the connection to the server, because the client is gone.
        """
        super().discard()
        self._fail(PoolClosed("the client is gone"))
