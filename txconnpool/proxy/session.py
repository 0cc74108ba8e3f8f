# -*- test-case-name: tests.proxy.test_session -*-
# Copyright txconnpool contributors. See LICENSE.
"""
One client of the proxy: reads its requests and forwards them, within limits.

While a session has requests in flight, its further requests are sent on the same connection. So pipelined requests are
executed in order, and their replies arrive in order. The session need not keep any data for a request in flight.
"""

from __future__ import annotations

import sys
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

from txconnpool.errors import PoolError
from txconnpool.metrics import tally
from txconnpool.net.transport import endsOf, placeOf, redirect
from txconnpool.proxy.broadcast import learn
from txconnpool.proxy.compound import SplitReply
from txconnpool.proxy.directory import consult
from txconnpool.proxy.dumping import DumpReply
from txconnpool.proxy.replies import LaterReply, QueuedRequest
from txconnpool.proxy.sending import RequestSender
from txconnpool.routing.single import SinglePool
from txconnpool.wire import (
    ADDRESSED,
    ANSWER,
    BROADCAST,
    CLIENTS,
    CLOSE,
    DUMP,
    FLAVOUR,
    LEARN,
    LOGIN,
    MORE,
    PIN,
    REPLACE,
    REPORT,
    SPLIT,
    STATISTICS,
    SWITCH,
    TOPICS,
    ClientFacts,
    Foreign,
)

#: An incomplete line is read again when a line end has arrived, or this many more bytes.
LOOK = 1 << 12

#: The number of requests of a session that are answered or refused here before it waits for the next turn of the
#: reactor. Such a request may be a single byte, an empty line: all those of one read would hold up the other clients.
ANSWERS: Final = 32

#: A request for several servers, or with very many keys, counts as so many there.
COMPOUND: Final = 8


class Session(RequestSender):
    """
    The session of one client.

    @ivar number: identifies the session on the console and in statistics.
    @ivar host: see L{__init__}.
    """

    # Objects share the names in their __dict__ only if these are thirty at most in all. A session that sets another one
    # has a dict of its own, of a kilobyte. Most of these are for L{ShardedSession
    # <txconnpool.proxy.sharding.ShardedSession>}, which a session may become.
    __slots__ = ("_answers", "_granted", "_lanes", "_merging", "_moving", "_sinkPool", "_swallow", "router")

    host: str | None = None
    router: Any

    _late = b""  # the reply to the request of C{_swallow}, which is written when all of that has arrived
    _refusal: PoolError | None = None  # the error for requests that waited, and have to wait for the end of a pause

    def __init__(self, factory: Any, host: str | None = None) -> None:
        """
        @param factory: the L{SessionFactory<txconnpool.proxy.sessions.SessionFactory>}.
        @param host: the address with which C{factory} counts the client, or C{None}.
        """
        super().__init__(factory)
        if host is not None:
            self.host = host
        self.number = next(factory.numbers)
        self._read = self._reader.read
        self._kept: list[bytes] = []  # bytes of requests that could not be forwarded yet
        self._need = 0  # the kept bytes are read again when there are this many
        self._line = False  # whether the kept bytes are also read again when a line end arrives
        self._moving = False  # whether it uses another router as soon as nothing is in flight
        self._answers = 0  # the number of requests that were answered here since the last pause
        self._swallow = 0  # the number of bytes of a request that will be dropped when they arrive

    # -- Requests

    def admitted(self, reply: bytes, data: bytes, reader: Any) -> None:
        """
        The client has logged in.

        @param reply: the reply to the login.
        @param data: the bytes that have arrived after the login.
        @param reader: the reader of the login.
        """
        if self.factory.dialect.stateful:
            self._reader, self._read = reader, reader.read
            error = self.useFlavour(reader.flavour)
            if error:
                self._answerLast(error)
                return
        self.answer(reply)
        if data:
            self.dataReceived(data)

    def dataReceived(self, data: bytes) -> None:
        """
        Forward the requests that can be forwarded, and keep the remaining bytes.
        """
        self._counters.received += len(data)
        if self._swallow:
            data = self._swallowed(data)
        if self._size or self._blocked or self._unsent:
            self._append(data)
            if self._size >= self._need or (self._line and b"\n" in data):
                self._need = 0
                self.proceed()
        else:
            self._advance(data)

    def _append(self, data: bytes) -> None:
        """
        Keep more bytes of requests that cannot be forwarded yet.
        """
        if self._kept and len(self._kept[-1]) < LOOK:
            self._kept[-1] += data  # many small pieces would need many times their size in memory
        else:
            self._kept.append(data)
        self._size += len(data)
        if self._size > self._limits.backlog:
            self._count()

    def _advance(self, data: bytes, refusal: PoolError | None = None, refused: int = 0) -> None:
        """
        Process the complete requests in C{data}, as far as possible now, and keep the remaining bytes.

        @param refusal: the pool's error for the requests that begin in the first C{refused} bytes; C{None} if there is
            none.
        """
        pos, size, taken = 0, len(data), 0
        while pos < size:
            room = self._window - self._inFlight
            if room <= 0 or self._blocked or (self.unread and self.unread > self._limits.unreadSoft):
                break
            read = self._read
            what, end, count, payload = read(data, pos, room)
            if not count:
                if what is MORE:
                    self._line = not payload
                    self._need = payload or size - pos + LOOK
                    break
                if what is CLOSE:
                    self._answerLast(payload)
                    pos = size
                    taken += 1
                    break
                if what is BROADCAST and self.factory.alone:
                    what, payload = payload  # with one server it is forwarded like any other request
                elif (what is SPLIT or what is PIN) and refusal is not None and pos < refused:
                    what, payload = payload
                elif what is PIN:
                    try:
                        if self._wantPin():
                            continue
                        break
                    except PoolError as error:
                        refusal, refused = error, size
                        continue
                elif self._follow(what, payload, end - size):
                    pos = end
                    taken += what is not SWITCH
                    if self._unsent:
                        break
                    continue
                else:
                    break
                count = 1
            elif (
                what.unites and count == 1 and end == size and refusal is None
                and self._unite(self._pool, what, data[pos:] if payload is None else payload)
            ):  # fmt: skip
                self._counters.requests += taken + 1
                return
            if refusal is None or pos >= refused:
                try:
                    room = self._take()
                except PoolError as error:
                    refusal, refused = error, size  # the pool's state cannot change within this call
                else:
                    if room <= 0 and (room := self._ownRoom()) <= 0:
                        break
                    if count > room:
                        what, end, count, payload = read(data, pos, room)
                    self._inFlight += count
                    taken += count
                    sink = self._sink
                    if sink is None:
                        sink = self
                    else:
                        sink.left += count
                        if self._pin is not None:
                            self._pin.forwarded(what)
                    self._connection.send(sink, what, count, data[pos:end] if payload is None else payload)
                    pos = end
                    continue
            self.answer(self.refusal(what, count, refusal))
            pos = end
            taken += count
            self._answered(count)
            if self._unsent:
                self._refusal, self._refusable = refusal, max(0, refused - pos)
                break
        self._counters.requests += taken
        if pos < size:
            self._keep(data[pos:])

    def _keep(self, data: bytes) -> None:
        """
        Keep bytes of requests that could not be forwarded.
        """
        self._kept = [data]
        self._size = len(data)
        if self._size > self._limits.backlog:
            self._count()
        if self._blocked:
            self._refusable = self._size

    def proceed(self, refusal: PoolError | None = None) -> None:
        """
        Continue with the bytes that were kept, close the client if everything is done, and pause or resume reading.

        @param refusal: the pool's error for the requests that have waited.
        """
        if self._unsent and not self._blocked:
            self._sendUnsent()
        if self._size and self._size >= self._need and not (self._unsent or self._blocked):
            data = self._kept[0] if len(self._kept) == 1 else b"".join(self._kept)
            self._kept = []
            self._size = 0
            if self.kept:
                self.factory.buffered.free(self)
            self._need, self._line = 0, False
            if self._refusal is not None:
                refusal, self._refusal = self._refusal, None
            self._advance(data, refusal, self._refusable)
        if self._moving and not self._unanswered:
            self._move()
            return
        self.regulate(not self._unanswered, self._size >= max(self._need, self._limits.backlog))

    @property
    def _unanswered(self) -> bool:
        return bool(self._inFlight or self._blocked or self._unsent or self._queue is not None)

    @property
    def busy(self) -> bool:
        """
        Whether the client waits for a reply, or has not read all.
        """
        return self._unanswered or self._full or self.unread > 0

    @property
    def listens(self) -> bool:
        """
        Whether the client need not send anything, because it waits for what servers send without being asked.
        """
        return bool(self._reader.listens)

    def _count(self) -> None:
        """
        Count the kept bytes of requests for L{BufferedBytes<txconnpool.proxy.memory.BufferedBytes>} if they exceed the
        backlog.
        """
        size = self._size + sum(entry.size for entry in self._unsent)
        if size > self._limits.backlog:
            self.factory.buffered.keep(self, size)

    # -- Requests that are not simply forwarded

    def _follow(self, action: Any, payload: Any, missing: int) -> bool:
        """
        Carry out a L{LocalAction<txconnpool.wire.LocalAction>}.

        @param missing: the number of bytes of the request that have not been received.
        @return: whether it was carried out; if not, the request is read again later.
        """
        factory = self.factory
        if action is SWITCH:
            self._reader = payload
            self._read = payload.read
            return True
        if action is ADDRESSED:
            payload = payload(placeOf(self.transport))
            action = ANSWER
        if action is REPLACE:
            command, request, payload = payload
            self.enqueue(QueuedRequest(self, command, 1, request))
            self._sendUnsent()
            action = ANSWER
        if action is ANSWER:
            factory.countReply(payload)
            if missing > 0:
                self._swallow, self._late = missing, payload
            else:
                self.answer(payload)
                self._answered()
            return True
        if action is FLAVOUR:
            switched = self._changeFlavour(*payload)
            if switched:
                self._answered()
            return switched
        if action is LOGIN:
            if self._inFlight or self._queue is not None:
                return False
            self.enqueue(LaterReply(self, lambda: factory.passing.logIn(self, *payload), True))
            self._answered()  # the reply may be there already
            return True
        if self._isQueueFull:
            return False
        if action is SPLIT:
            self.enqueue(SplitReply(self, *payload))
            self._count()
            self._sendUnsent()
            if self._queue is None:
                self._answered(COMPOUND)  # it was refused
        elif action is BROADCAST:
            self.enqueue(LaterReply(self, lambda: factory.broadcast(*payload), True))
            self._answered(COMPOUND)  # if no server can be asked, the reply is there already
        elif action is DUMP:
            self.enqueue(DumpReply(self, *payload))
            self._answered(COMPOUND)
        elif action is CLIENTS:
            self.enqueue(LaterReply(self, lambda: consult(self, payload), True))
        elif action is TOPICS:
            self.enqueue(LaterReply(self, lambda: factory.subscribers.ask(self, payload), True))
            self._answered()  # the reply may be there already
        elif action is REPORT:
            self.enqueue(LaterReply(self, lambda: factory.replies.report(self.own, *payload), False))
        elif action is LEARN:
            self.enqueue(LaterReply(self, lambda: learn(self.own, factory.dialect, *payload), True))
        else:
            assert action is STATISTICS, action
            command, words = payload
            self.enqueue(LaterReply(self, lambda: factory.statistics(words).addCallback(command.visible), False))
        return True

    @property
    def _isQueueFull(self) -> bool:
        """
        Whether so many replies wait for earlier ones that no request for a further entry of the queue is accepted.
        """
        return self._queue is not None and len(self._queue) > self._window

    def _answerLast(self, reply: bytes) -> None:
        """
        Write the last reply, and close the client.
        """
        if isinstance(reply, Foreign):
            self.factory.strangers.add(reply.protocol, self.transport)
        self.factory.countReply(reply)
        self.answer(reply)
        self.end()

    def _answered(self, count: int = 1) -> None:
        """
        Count requests that were answered or refused here. After L{ANSWERS} of them, later requests wait for the next
        turn of the reactor.
        """
        self._answers += count
        if self._answers >= ANSWERS:
            self._answers = 0
            self.enqueue(LaterReply(self, self._nothingLater, True))

    def _nothingLater(self) -> Deferred[bytes]:
        return deferLater(self.factory.reactor, 0, bytes)

    def _swallowed(self, data: bytes) -> bytes:
        """
        Drop the rest of a request that was processed before it was complete.

        @return: the bytes after the request.
        """
        dropped = min(self._swallow, len(data))
        self._swallow -= dropped
        if not self._swallow:
            self.answer(self._late)
            self._late = b""
        return data[dropped:]

    @property
    def facts(self) -> ClientFacts:
        """
        What the session knows of its client.
        """
        factory = self.factory
        peer, here = endsOf(self.transport)
        return ClientFacts(
            self._reader, peer, here, factory.limits.statsAddresses, factory.reactor.seconds() - factory.sessions[self],
            self._size, self.unread, self.blocked, self._ending and not self._moving,
        )  # fmt: skip

    @property
    def own(self) -> Any:
        """
        The router for what servers are asked on behalf of the client: they may allow it to some users only.
        """
        return SinglePool(self._pool)

    @property
    def oldest(self) -> bytes:
        """
        Bytes that begin with the next request to send.
        """
        request: bytes = self._unsent[0].request if self._unsent else self._kept[0]
        return request

    # -- Another router

    def reroute(self) -> None:
        """
        Use another router of the factory as soon as nothing is in flight. Until then, further requests are kept. A
        client that only waits for a connection waits for one of the other router. If the client has a flavour, which
        the other router does not know, it is closed, and connects again.
        """
        if self._flavours is not None:
            self.end()
        elif self._ending:
            return
        elif self.ticket is not None and not (self._inFlight or self._unsent or self._queue is not None):
            self._pool.forget(self.ticket)
            self.ticket = None
            self._blocked = False
            self._useRouter()
            self.proceed()
        elif self._unanswered:
            self._moving = self._ending = True
            self._need = sys.maxsize
            redirect(self.transport, self, self._keepReceived)
        else:
            self._useRouter()

    def _keepReceived(self, data: bytes) -> None:
        self._counters.received += len(data)
        if self._swallow:
            data = self._swallowed(data)
        if data:
            self._append(data)
            self.proceed()

    def _move(self) -> None:
        self._stay()
        redirect(self.transport, self, None)
        self._useRouter()
        self.proceed()

    def _stay(self) -> None:
        self._moving = self._ending = False
        self._need = 0

    def _useRouter(self) -> None:
        """
        Use the router that the factory has now, which may need another kind of session. The kinds have the same
        attributes.
        """
        self.__class__ = self.factory.kind
        pools = self.factory.router.pools
        self._pool = pools[0] if pools else None
        self._connection = None
        self.routed()
        self.factory.moved(self)

    def routed(self) -> None:
        """
        Called when the session is of this kind from now on.
        """
        self.router = None

    # -- The end

    def end(self) -> None:
        """
        Stop reading, answer the requests that were read, then close the client.
        """
        if self._moving:
            self._stay()
        super().end()

    def expel(self) -> None:
        """
        Stop reading, answer the requests that were sent, drop the others, then close the client.
        """
        self._dropKept()
        self.end()

    def pinLost(self, error: PoolError) -> None:
        """
        Drop the bytes that were kept too. If they have waited for the leased connection, the client gets the error.
        """
        hasWaited = self._blocked and self._size > 0
        self._dropKept()
        if hasWaited:
            tally(self._counters.errors, error.kind)
            self.answer(self.factory.dialect.error(error.kind, str(error)))
        super().pinLost(error)

    def forget(self) -> None:
        """
        Drop all requests, because the client is gone or is being closed.
        """
        self._dropKept()
        super().forget()

    def _dropKept(self) -> None:
        self._kept = []
        self._size = self._need = 0
        if self.kept:
            self.factory.buffered.free(self)
