# -*- test-case-name: tests.proxy.test_session -*-
# Copyright txconnpool contributors. See LICENSE.
"""
One downstream client: requests in, replies out in their order, and no more of either than is agreed.

While a session has requests in flight it stays on their connection, so replies come in the order of the requests, and
what it pipelines is executed in that order, without anything being kept here for one request.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Any

from twisted.internet.interfaces import IHalfCloseableProtocol, IPushProducer
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from txconnpool.errors import ConnectionLostInFlight, PoolError
from txconnpool.interfaces import IRequester, IWaiter
from txconnpool.metrics import tally
from txconnpool.net.transport import adopt, closeAfterFlush, tune
from txconnpool.pool.connection import Entry
from txconnpool.proxy.parts import Parts
from txconnpool.wire import ADMIT, ANSWER, CLOSE, EVERYWHERE, INSTEAD, MORE, PARTS, STATISTICS

#: While a line has no end yet, it is looked at again when an end has come, or so many bytes more.
LOOK = 1 << 12

#: Requests that a session may have in flight at first. They may all be for the largest values, and the client may be
#: one of very many: what was asked for stands before the requests of everybody else.
FIRST_WINDOW = 2

#: Bytes of replies that a session should have on their way at once, at most.
BATCH = 1 << 20

#: What most sessions have to send again. It stays empty: each of its own would take more memory than all else.
_NOTHING: deque[Entry] = deque(maxlen=0)


@dataclass(frozen=True)
class SessionLimits:
    """
    The bounds of the sessions of a pool.

    @ivar maxClients: most sessions.
    @ivar maxInFlight: most requests in flight of one session.
    @ivar backlog: bytes of requests kept, above which a session that may not send now (it waits, or has as much in
        flight as it may) is not read from. One read may bring more; of much, much is copied as it goes.
    @ivar unreadSoft: bytes of replies that a client has not read, above which its requests are not read either.
    @ivar unreadHard: bytes of replies that a client has not read, above which it is closed.
    """

    maxClients: int = 10000
    maxInFlight: int = 256
    backlog: int = 1 << 16
    unreadSoft: int = 1 << 18
    unreadHard: int = 1 << 26


@implementer(IWaiter, IRequester, IPushProducer, IHalfCloseableProtocol)
class Session(Protocol):
    """
    A downstream client.

    @ivar number: for people, to tell it from others.
    @ivar ticket: its place among the waiters, while it waits.
    @ivar unread: bytes of replies written since the transport was full, and thus not read by the client.
    @ivar kept: bytes of requests that were read and are not dealt with, as far as they count for
        L{txconnpool.proxy.memory.BufferedBytes}.
    @ivar waited: how long it last waited for a connection, and from when to when it sent what waited, where slow
        requests are looked for.
    """

    waited = (0.0, 0.0, 0.0)

    ticket: Any = None
    transport: Any

    def __init__(self, factory: Any) -> None:
        """
        @param factory: the L{txconnpool.proxy.sessions.SessionFactory}.
        """
        self.factory: Any = factory
        self.number = next(factory.numbers)
        gate = factory.gate
        self._requests = factory.dialect.requests if gate.tokens is None else gate.requests
        self._pool = factory.pool
        self._limits: SessionLimits = factory.limits
        self._counters = factory.counters
        # Opens while the client reads what it asked for and closes when it does not, or when that is large: without
        # it, a few kilobytes of requests for large values would bring all these values here at once.
        self._window = min(FIRST_WINDOW, factory.limits.maxInFlight)
        self._inFlight = 0
        self._batch = 0  # bytes of replies since there was nothing in flight
        self._connection: Any = None  # where these are
        self._kept: list[bytes] = []  # what was read and not dealt with
        self._size = 0  # how much that is
        self._need = 0  # how much it must be before it is worth another look,
        self._line = False  # unless a line end has come
        self._again: deque[Entry] = _NOTHING  # what a lost connection left to be sent once more, or to be said
        self._swallow = 0  # bytes to be dropped; then _answer is said
        self._answer = b""
        self._parts: Parts | None = None  # a request that is being sent in parts
        self._blocked = False  # a connection or an answer is being waited for
        self._full = False  # the transport has all it can take
        self._reading = True
        self._ending = False  # nothing more will be read: to be closed when all is answered
        self.unread = 0
        self.kept = 0

    def connectionMade(self) -> None:
        """
        Take the socket over, and ask to be told when the client does not read.
        """
        transport: Any = self.transport
        tune(transport)
        self.transport = transport = adopt(self, self.factory.reactor)
        self._write = transport.write
        transport.registerProducer(self, True)
        self.factory.sessions.add(self)

    # -- Requests

    def dataReceived(self, data: bytes) -> None:
        """
        Send on what can be sent.
        """
        self._counters.received += len(data)
        if self._swallow:
            data = self._swallowed(data)
        if self._size or self._blocked or self._again:
            if self._kept and len(self._kept[-1]) < LOOK:
                self._kept[-1] += data  # many small pieces would take many times their bytes in memory
            else:
                self._kept.append(data)
            self._size += len(data)
            if self._size > self._limits.backlog:
                self.factory.unread.keep(self, self._size + (self._parts.size if self._parts is not None else 0))
            if self._size >= self._need or (self._line and b"\n" in data):
                self._need = 0
                self._resume()
        else:
            self._advance(data)

    def _advance(self, data: bytes, refusal: PoolError | None = None) -> None:
        """
        Deal with the requests that are complete in C{data}, as far as they may go now, and keep the rest.

        @param refusal: why the pool refuses them, if it does.
        """
        self._need = pos = 0
        self._line = False
        size = len(data)
        while pos < size:
            room = self._window - self._inFlight
            if room <= 0 or self._blocked or self.unread > self._limits.unreadSoft:
                break
            requests = self._requests
            command, end, count, payload = requests(data, pos, room)
            if not count:
                if command is MORE:
                    self._line = not payload
                    self._need = payload or size - pos + LOOK
                    break
                if command is CLOSE:
                    self._tell(payload)
                    pos = size
                    self.end()
                    break
                if command is not EVERYWHERE or not self.factory.alone:
                    if not self._follow(command, payload, end - size, refusal):
                        break
                    pos = end
                    continue
                command, payload, quiet = payload  # there is one server: everywhere is there
                count = 1
                if quiet:
                    command = command.silent()
            if refusal is None:
                try:
                    room = self._take()
                except PoolError as error:
                    refusal = error
                else:
                    if room <= 0:
                        break
                    if count > room:
                        command, end, count, payload = requests(data, pos, room)
                    self._inFlight += count
                    self._connection.send(self, command, count, data[pos:end] if payload is None else payload)
                    pos = end
                    continue
            self._tell(self._refusal(command, count, refusal))
            pos = end
        if pos < size:
            self._kept = [data[pos:]]
            self._size = size - pos

    def _take(self) -> int:
        """
        Find a connection.

        @return: how many requests it takes now. If none, this session will be called again: because it waits for a
            connection, or because it has something in flight.

        @raise PoolError: there is none and will be none.
        """
        connection = self._connection
        if connection is None:
            record = self._pool.take(self)
            if record is None:
                self._blocked = True
                return 0
            self._connection = record.connection
        elif self._inFlight and self._pool.waiters.count:
            return 0  # it is the turn of others; ours comes when all we have in flight is answered
        else:
            record = connection.record
        room: int = record.depth - record.load
        return room

    def granted(self, record: Any) -> None:
        """
        The wait is over.
        """
        slow, seconds = self.factory.slow, self.factory.reactor.seconds
        if slow is not None:
            start = seconds()
            waited = start - self.ticket.since
            if waited > slow.threshold:
                slow.waited(self._again[0][4] if self._again else self._kept[0], waited)
        self.ticket = None
        self._blocked = False
        self._connection = record.connection
        self._resume()
        if slow is not None:
            self.waited = waited, start, seconds()
        if not self._inFlight:
            self._connection = None
            self._pool.hasCapacity(record)

    def refused(self, error: PoolError) -> None:
        """
        The wait was in vain, for all that stands behind its first request too.
        """
        self.ticket = None
        self._blocked = False
        again, self._again = self._again, _NOTHING
        for _, command, count, _, data in again:
            self._put(data if command is None else self._refusal(command, count, error))
        self._resume(error)

    def _resume(self, refusal: PoolError | None = None) -> None:
        """
        Something has changed: go on with what was kept, close if all is done, and read or do not.
        """
        if self._parts is not None:
            self._parts.go()
        if self._again and not self._blocked:
            self._sendAgain()
        if self._size and self._size >= self._need and not (self._again or self._blocked):
            data = self._kept[0] if len(self._kept) == 1 else b"".join(self._kept)
            self._kept = []
            self._size = 0
            if self.kept:
                self.factory.unread.free(self)
            self._advance(data, refusal)
        crowded = self.crowded
        if self._ending and not (self._inFlight or self._blocked or self._again or crowded):
            self.transport.unregisterProducer()
            closeAfterFlush(self.transport)
        reading = not (self._ending or crowded) and self._size < max(self._need, self._limits.backlog)
        if reading is not self._reading:
            self._reading = reading
            if reading:
                self.transport.resumeProducing()
            else:
                if not self._ending:
                    self._counters.pauses["unread" if crowded else "backlog"] += 1
                self.transport.pauseProducing()

    # -- What has no place upstream

    def _follow(self, directive: Any, payload: Any, missing: int, refusal: PoolError | None) -> bool:
        """
        Do what the dialect says is to be done with a request instead of forwarding it.

        @param missing: how many of its bytes have not come yet.
        @param refusal: why the pool refuses it, if it does.
        @return: whether it is done; if not, it is looked at again later.
        """
        if directive is ADMIT:
            self._requests = self.factory.dialect.requests
            directive = ANSWER
        if directive is INSTEAD:
            command, request, payload = payload
            if refusal is None and not self._sendInstead(command, request):
                return False
            directive = ANSWER
        if directive is ANSWER:
            self._counters.answered += 1
            if missing > 0:
                self._swallow, self._answer = missing, payload
            else:
                self._tell(payload)
            return True
        if self._inFlight:
            return False  # it must overtake nothing: wait until all before it is answered
        factory = self.factory
        if directive is PARTS:
            self._parts = Parts(self, self._pool, *payload)
            error = refusal or self._parts.begin()
            if error is None:
                self._blocked = True
                if self._parts.size > self._limits.backlog:
                    self.factory.unread.keep(self, self._parts.size)
            else:
                self._parts = None
                self._tell(self._refusal(payload[0], 1, error))
            return True
        answer = factory.statistics(payload) if directive is STATISTICS else factory.everywhere(*payload)
        if isinstance(answer, bytes):
            self._tell(answer)
        else:
            self._blocked = True
            answer.addCallback(self._answered)
        return True

    def _sendInstead(self, command: Any, request: bytes) -> bool:
        """
        Send a request that the client did not make, and will see no reply to.

        @return: whether it was sent, or never can be.
        """
        try:
            room = self._take()
        except PoolError:
            return True  # the client is about to be told of its own request, which is worse
        if room <= 0:
            return False
        self._inFlight += 1
        self._connection.send(self, command, 1, request)
        return True

    def _answered(self, answer: bytes) -> None:
        """
        What had to be asked elsewhere is known.
        """
        self._blocked = False
        self._tell(answer)
        self._resume()

    # What is sent in parts

    @property
    def crowded(self) -> bool:
        """
        Whether the client leaves too much unread to be asked for more.
        """
        return self.unread > self._limits.unreadSoft

    def said(self, data: bytes) -> None:
        """
        Part of the reply to a request that was sent in parts.
        """
        self._put(data)

    def finished(self, data: bytes) -> None:
        """
        The last of it.
        """
        self._parts = None
        self.factory.unread.free(self)
        self._answered(data)

    def failed(self, command: Any, error: PoolError | None, begun: bool) -> None:
        """
        There will be no reply, or not the rest of it.

        @param error: why the pool could not get it; C{None} if the server said an error.
        """
        if begun or error is None:
            self._break()
        else:
            self.finished(self._refusal(command, 1, error))

    def _tell(self, data: bytes) -> None:
        """
        Say something of our own, in its place in the order.
        """
        if data:
            if self._inFlight:
                self._inFlight += 1
                self._connection.say(self, data)
            else:
                self._put(data)

    def _put(self, data: bytes) -> None:
        """
        Write something of our own.
        """
        self._counters.sent += len(data)
        self._write(data)
        if self._full:
            self._pile(len(data))

    def _refusal(self, command: Any, count: int, error: PoolError) -> bytes:
        """
        What to say instead of replies that will not come. A client that wants to see no reply sees none of these.
        """
        tally(self._counters.errors, error.kind, count)
        line: bytes = self.factory.dialect.error(str(error))
        if command.hidden is not None and command.hidden(line, 0):
            return b""
        return line * count

    def _swallowed(self, data: bytes) -> bytes:
        """
        Drop what is to be dropped.

        @return: what is left.
        """
        dropped = min(self._swallow, len(data))
        self._swallow -= dropped
        if not self._swallow:
            if self._again:
                self._again.append((self, None, 1, 0.0, self._answer))
            else:
                self._tell(self._answer)
            self._answer = b""
        return data[dropped:]

    # -- Replies

    def replied(self, data: bytes, count: int) -> None:
        """
        Pass on what the server said.
        """
        if data:
            self._counters.sent += len(data)
            self._batch += len(data)
            write = self._write
            write(data)
            if self._full:
                self._pile(len(data))
        if count:
            self._inFlight -= count
            if not self._inFlight:
                self._connection = None
                if self._batch > BATCH:
                    self._window = max(1, self._window // 2)
                elif self._window < self._limits.maxInFlight and not self._full:
                    self._window = min(2 * self._window, self._limits.maxInFlight)
                self._batch = 0
            if self._size or self._ending or self._again:
                self._resume()

    def unanswered(self, entries: list[Entry], begun: bool, error: PoolError) -> None:
        """
        The connection was lost. Reads are tried once more, nothing else is; a client that has part of a reply can only
        be closed.
        """
        self._connection = None
        self._inFlight = 0
        if begun:
            self._break()
        if begun or self not in self.factory.sessions:
            return
        lost = isinstance(error, ConnectionLostInFlight)
        if not self._again:
            self._again = deque()
        # What is left over from another loss already had no room on this connection: it comes later.
        for entry in reversed(entries):
            _, command, count, _, _ = entry
            if command is not None and not (lost and command.idempotent):
                entry = (self, None, 1, 0.0, self._refusal(command, count, error))
            self._again.appendleft(entry)
        self._resume()

    def _sendAgain(self) -> None:
        """
        Send again, or say, what a lost connection left over, as far as it goes now.
        """
        again = self._again
        while again:
            _, command, count, _, data = again[0]
            if command is None:
                again.popleft()
                self._tell(data or b"")
                continue
            try:
                room = self._take()
            except PoolError as error:
                again[0] = (self, None, 1, 0.0, self._refusal(command, count, error))
                continue
            if room <= 0:
                return
            again.popleft()
            if count > room:
                data, rest = self.factory.dialect.split(data, room)
                again.appendleft((self, command, count - room, 0.0, rest))
                count = room
            self._pool.counters.retries += count
            self._inFlight += count
            self._connection.send(self, command.but(idempotent=False), count, data)

    # -- Back-pressure: the client does not read

    def pauseProducing(self) -> None:
        """
        The transport is full: count what it gets beyond that.
        """
        self._full = True

    def resumeProducing(self) -> None:
        """
        The client has read.
        """
        self._full = False
        self.factory.unread.clear(self)
        if self._size or self._ending or not self._reading:
            self._resume()

    def stopProducing(self) -> None:
        """
        The connection ends; C{connectionLost} does what there is to do.
        """

    def _pile(self, size: int) -> None:
        """
        C{size} more bytes are unread.
        """
        unread = self.factory.unread
        unread.add(self, size)
        if self.unread > self._limits.unreadHard:
            unread.drop(self, f"{self._limits.unreadHard} may be")
        elif self.unread > self._limits.unreadSoft:
            self._window = max(1, self._window // 2)
            self._resume()

    # -- For people

    @property
    def inFlight(self) -> int:
        """
        How many requests are in flight.
        """
        return self._inFlight

    @property
    def waiting(self) -> bool:
        """
        Whether it waits for a connection.
        """
        return self.ticket is not None

    def limit(self, limits: SessionLimits) -> None:
        """
        Hold other bounds from now on.
        """
        self._limits = limits
        self._window = min(self._window, limits.maxInFlight)
        if self.unread > limits.unreadHard:
            self.factory.unread.drop(self, f"{limits.unreadHard} may be")
        else:
            self._resume()

    # -- The end

    def end(self) -> None:
        """
        Read nothing more, answer what was read, then close.
        """
        self._ending = True
        # TLS goes on to deliver what it has decrypted already.
        self.dataReceived = _drop  # type: ignore[method-assign]
        self._resume()

    def readConnectionLost(self) -> None:
        """
        The client has said all it will say, and listens.
        """
        self.end()

    def writeConnectionLost(self) -> None:
        """
        Never asked for; L{IHalfCloseableProtocol} wants it.
        """

    def _break(self) -> None:
        """
        Close in the middle of a reply. What was written before is let through, to a client that reads.
        """
        if self._full:
            self.drop()
        else:
            self.transport.unregisterProducer()
            closeAfterFlush(self.transport)
            self._forget()

    def drop(self) -> None:
        """
        Close at once, whatever it is owed.
        """
        self.transport.abortConnection()
        self._forget()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """
        The client is gone. What it has in flight is swallowed when it comes.
        """
        self._forget()
        self.factory.closed(self)

    def _forget(self) -> None:
        if self.ticket is not None:
            self._pool.forget(self.ticket)
            self.ticket = None
        if self._parts is not None:
            self._parts.stop()
            self._parts = None
        self._kept = []
        self._size = 0
        self._again = _NOTHING
        self._blocked = True
        self._full = False
        self._write = _drop
        self.factory.unread.clear(self)
        self.factory.unread.free(self)


def _drop(data: bytes) -> None:
    """
    Nobody is there to hear it.
    """
