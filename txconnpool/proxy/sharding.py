# -*- test-case-name: tests.proxy.test_sharding -*-
# Copyright txconnpool contributors. See LICENSE.
"""
A client of a proxy whose keys are on several servers.

While the session has requests in flight, its further requests for the same server are sent on the same connection, as
in L{Session}. A request for another server is sent at once on a connection to that server, and the replies that must
wait for earlier ones are kept in the L{ReplyQueue<txconnpool.proxy.replies.ReplyQueue>}. A client that waits for each
reply needs no queue.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from txconnpool.errors import PoolError
from txconnpool.proxy.mergedreplies import MergedReplies
from txconnpool.proxy.merging import LONG
from txconnpool.proxy.replies import QueuedRequest
from txconnpool.proxy.scatter import FIRST, ScatteredReply
from txconnpool.proxy.session import COMPOUND, LOOK, Session
from txconnpool.wire import CLOSE, MORE, PIN, SPLIT, SWITCH, Command, Frame

#: A request that comes as several, because it has very many keys, is only sent at once for a client that may have this
#: number of requests in flight, which it may not if its last replies were large.
ROOM: Final = 100

#: The connections of a session without requests in flight on several.
NO_LANES: Final[dict[Any, Any]] = {}


class ShardedSession(Session):
    """
    The session of one client whose requests go to several pools.

    @cvar scattered: the class of replies to requests for several keys.
    @cvar merges: whether requests may be sent together with those of other clients.
    """

    scattered: type[ScatteredReply] = ScatteredReply
    merges = True

    __slots__ = ()

    def __init__(self, factory: Any, host: str | None = None) -> None:
        super().__init__(factory, host)
        self.routed()

    def routed(self) -> None:
        """
        Called when the session is of this kind from now on.
        """
        # The pools and connections that were used since nothing was in flight, except the current ones, which are
        # C{_pool} and C{_connection}.
        self._lanes = NO_LANES
        self.router = self.factory.router
        self._merging = self.factory.merging
        self._sinkPool: Any = None  # the pool of the replies that are due to C{_sink}
        self._granted: Any = None  # the connection that the session was just given

    def _advance(self, data: bytes, refusal: PoolError | None = None, refused: int = 0) -> None:
        """
        Process the complete requests in C{data}, as far as possible now, and keep the remaining bytes.

        @param refusal: the error of the pool for which the session has waited, for the requests that begin in the first
            C{refused} bytes; C{None} if there is none.
        """
        pos, size, taken = 0, len(data), 0
        read = self._read
        errors: dict[Any, PoolError] = {} if refusal is None else {self._pool: refusal}
        while pos < size:
            room = self._window - self._inFlight
            if room <= 0 or self._blocked or (self.unread and self.unread > self._limits.unreadSoft):
                break
            what, end, count, payload = frame = read(data, pos, room)
            if not self._inFlight and (what is SPLIT or (count and (end < size or count > 1 or what.multiKey))):
                after = pos if errors else self._merge(data, pos, frame)
                if after > pos:
                    pos = after
                    taken += self._inFlight
                    break
            if count:
                if refusal is not None and pos >= refused:
                    errors, refusal = {}, None
                request = data[pos:end] if payload is None else payload
                try:
                    if count == 1 and not what.multiKey:
                        done = self._forward(what, request, data, pos, errors)
                    else:
                        done = self._divide(what, request, count > 1, errors)
                except PoolError as error:
                    self.answer(self.refusal(what, 1, error))
                    self._answered()
                    done = True
                if not done:
                    break
            elif what is MORE:
                self._line = not payload
                self._need = payload or size - pos + LOOK
                break
            elif what is CLOSE:
                self._answerLast(payload)
                pos = size
                taken += 1
                break
            elif what is PIN:
                try:
                    if self._pinFor(payload, errors):
                        continue
                    break
                except PoolError as error:
                    self.answer(self.refusal(payload[0], 1, error))
                    self._answered()
            elif self._follow(what, payload, end - size):
                read = self._read
            else:
                break
            pos = end
            taken += count or what is not SWITCH
            if self._unsent:
                break
        self._counters.requests += taken
        if pos < size:
            self._keep(data[pos:])

    @property
    def own(self) -> Any:
        """
        The router, see L{Session.own}.
        """
        return self.router

    # -- Requests for one server

    def _forward(self, command: Any, request: bytes, data: bytes, pos: int, errors: dict[Any, PoolError]) -> bool:
        """
        Send a request to the server of its key.

        @param data: bytes that contain the request as the client has sent it, at C{pos}.
        @param errors: the errors of pools that have none for this client at the moment.

        @return: whether it was sent; if not, it is read again later.

        @raise PoolError: it cannot be sent.
        """
        key = command.key(data, pos)
        router = self.router
        pool = router.anyOf() if key is None else router.choose(key)
        if errors and pool in errors:
            raise errors[pool]
        self._select(pool)
        if command.unites and router.standIn is None and self._unite(pool, command, request):
            self._sinkPool = pool
            return True
        try:
            room = self._take()
        except PoolError as error:
            if self._isMoved(key):  # the server is known to be down only now
                return self._forward(command, request, data, pos, errors)
            errors[pool] = error  # it cannot change within this call
            raise
        if room <= 0:
            return False
        if router.standIn is not None and pool not in router.pools:
            request = router.standIn.take(command, request)
        sink = self._sinkOf(pool)
        self._inFlight += 1
        self._connection.send(sink, command, 1, request)
        return True

    def _select(self, pool: Any) -> None:
        """
        Make a pool the current one. If the session has requests in flight, it stays on the connection that it has used
        there.
        """
        if not self._inFlight:
            self._lanes = NO_LANES
            if pool is not self._pool:
                self._pool = pool
                self._connection = None
            return
        connection = self._connection
        if pool is not self._pool:
            if self._lanes is NO_LANES:
                self._lanes = {}
            self._lanes[self._pool] = connection
            self._pool = pool
            self._connection = connection = self._lanes.get(pool)
        if connection is not None and not connection.record.load and connection is not self._granted:
            self._connection = None  # nothing is in flight there: it may be idle, or closed

    @property
    def _used(self) -> Iterable[Any]:
        return (self._connection, *self._lanes.values())

    def _sinkOf(self, pool: Any) -> Any:
        """
        @return: the sink of the next request on the current connection.
        """
        sink = self._sink
        if sink is None:
            if not self._inFlight or pool is self._sinkPool:
                self._sinkPool = pool
                return self
            sink = self._needQueue().last
        elif sink.left and pool is not self._sinkPool:
            assert self._queue is not None
            sink = self._queue.extend()
        self._sink = sink
        self._sinkPool = pool
        sink.left += 1
        return sink

    # -- Requests for several servers, and requests of queue entries

    def _divide(self, command: Any, request: bytes, merged: bool, errors: dict[Any, PoolError]) -> bool:
        """
        Send the parts of a request to the servers of its keys.

        @param merged: whether it was merged from requests for one key each.
        @param errors: as for L{_forward}.

        @return: whether this is done; if not, the request is read again later.
        """
        entry = self.scattered(self, command.several, (request,), merged)
        if command.whole is not None and entry.isWhole:
            entry.discard()  # breaks the reference cycles
            return self._forward(command.whole, request, request, 0, errors)
        self._distribute(entry)
        return True

    def _distribute(self, *entries: Any) -> None:
        """
        Send the requests of queue entries, and refuse those that cannot be sent.
        """
        for entry in entries:
            self.enqueue(entry)
        self._sendUnsent()
        if self._queue is None:
            self._answered(COMPOUND)  # all of it was refused

    # -- Requests that are sent together with those of other clients

    def _merge(self, data: bytes, pos: int, frame: Frame) -> int:
        """
        Let requests be sent together with those of other clients, if nothing is in flight. Until they are answered, the
        session sends no others.

        @param frame: the frame at C{pos}.

        @return: the position after these requests; C{pos} if there are none.
        """
        size = len(data)
        if self._queue is not None or self._connection is not None or self._pin is not None or not self.merges:
            return pos
        what: Any
        what, end, count, payload = frame
        if end == size and count:
            request: bytes = data[pos:] if payload is None else payload
            if not self._isMerged(what, request) or (merge := self._merging.begin(self.router)) is None:
                return pos
            merge.add(self, what.several, request, count, not what.multiKey)
            self._inFlight = count
            self._blocked = True
            return end
        if end < size and not self.factory.dialect.mergesReads:
            return pos  # further requests would wait
        merge = self._merging.begin(self.router)
        merged = None if merge is None else MergedReplies(merge, self)
        while merged is not None and (count := self._add(merged, data, pos, frame)):
            self._inFlight += count
            pos = frame[1]
            room = self._window - self._inFlight
            if pos == size or room <= 0:
                break
            frame = self._read(data, pos, room)
        self._blocked = self._inFlight > 0
        return pos

    def _isMerged(self, command: Command, request: bytes) -> bool:
        """
        @return: whether a request for several keys may be sent together with those of other clients.
        """
        several = command.several
        return several is not None and several.part.merges and not command.translates and len(request) <= LONG

    def _add(self, merged: MergedReplies, data: bytes, pos: int, frame: Frame) -> int:
        """
        Add the request of a frame to those that are sent together with those of other clients.

        @return: the number of its replies; 0: it cannot be added.
        """
        what, end, count, payload = frame
        if what is SPLIT:
            command, requests = payload
            several = command.several
            if several.translates or not several.part.merges or len(requests) > FIRST or self.room < ROOM:
                return 0
            merged.addReads(several, several.united(requests), 1, False)
            return 1
        if not isinstance(what, Command) or what.translates:
            return 0
        request: bytes = data[pos:end] if payload is None else payload
        if self._isMerged(what, request):
            merged.addReads(what.several, request, count, not what.multiKey)
        elif count == 1 and not what.multiKey:
            merged.addOther(what, request, what.key(data, pos))
        else:
            return 0
        return count

    def answerMerged(self, reply: bytes, count: int, last: bool) -> None:
        """
        Write the next replies to the requests that were sent together with those of other clients.

        @param count: the number of these requests.
        @param last: whether all are answered now.
        """
        if last:
            self._blocked = False
        self.replied(reply, count)

    def sendApart(self, entries: list[Any]) -> None:
        """
        Send requests alone that could not be sent together with others.
        """
        self._blocked = False
        self._inFlight = 0
        self._distribute(*entries)
        self.proceed()

    def takeApart(self, entries: list[Any], inFlight: int, lanes: dict[Any, Any]) -> None:
        """
        Go on with requests that were sent together with others as if they had been sent alone.

        @param entries: the queue entries for their replies.
        @param inFlight: the number of their requests and parts in flight.
        @param lanes: the connections of requests in flight, by their pools.
        """
        if self.gone:
            for entry in entries:
                entry.discard()
        else:
            self._blocked = False
            self._inFlight = 0
            self._needQueue().ahead = 0  # it may have frames that came after these requests
            self.replace(None, entries)
            self.advance()
            self._lanes = lanes
            self._pool, self._connection = next(iter(lanes.items()))
        self._inFlight = inFlight

    def _follow(self, action: Any, payload: Any, missing: int) -> bool:
        """
        Carry out a L{LocalAction<txconnpool.wire.LocalAction>}, see L{Session._follow}.
        """
        if action is SPLIT:
            if self._isQueueFull:
                return False
            command, requests = payload
            self._distribute(self.scattered(self, command.several, requests))
            self._count()
            return True
        return super()._follow(action, payload, missing)

    def _sendEntry(self, entry: Any) -> bool:
        """
        Send all parts of a request for several servers, or the request of another queue entry.

        @return: whether all was sent or refused; if not, the session is called again later.
        """
        return self._sendParts(entry) if isinstance(entry, ScatteredReply) else self._sendQueued(entry)

    def _sendParts(self, entry: ScatteredReply) -> bool:
        """
        Send the parts of a request for several servers.

        @return: whether all of them were sent.
        """
        parts, command = entry.parts, entry.command.part
        while parts:
            part = parts[0]
            self._select(part.pool)
            connection = self._connection
            if connection is None:
                try:
                    record = part.pool.take(self)
                except PoolError as error:
                    self._refuse(entry, error)
                    continue
                if record is None:
                    self._wait()
                    return False
                self._connection = connection = record.connection
            elif self._take() <= 0:
                return False
            entry.sent()
            self._inFlight += 1
            connection.send(part, command, 1, part.request)
        return True

    def _sendQueued(self, entry: QueuedRequest) -> bool:
        """
        Send the request of a queue entry.

        @return: whether it was sent, or refused.
        """
        try:
            self._select(self._poolOf(entry))
            room = self._take()
        except PoolError as error:
            self._refuse(entry, error)
            return True
        if room <= 0:
            return False
        command, count, request = entry.next(room)
        self._inFlight += count
        self._connection.send(entry, command, count, request)
        return True

    # -- A connection for this client alone

    def _pinFor(self, payload: Any, errors: dict[Any, PoolError]) -> bool:
        """
        Lease a connection for this client alone, see L{PIN<txconnpool.wire.LocalAction.PIN>}.

        @param errors: the errors of pools that have none for this client at the moment.

        @return: whether the client has one now; if not, the request is read again later.

        @raise PoolError: there is no connection, and waiting for one is not possible.
        """
        raise NotImplementedError("this protocol needs no connections for single clients")

    # -- Waiting

    def _isMoved(self, key: bytes | None) -> bool:
        """
        @return: whether another pool than the current one gets a key now: the server of the current one was removed or
            ejected, or another one stands in for it.
        """
        try:
            return key is not None and self.router.choose(key) is not self._pool
        except PoolError:
            return False

    def _poolOf(self, entry: Any) -> Any:
        """
        @return: the pool for the next request of a queue entry.

        @raise PoolError: there is none.
        """
        if isinstance(entry, ScatteredReply):
            return entry.parts[0].pool
        router, key = self.router, entry.command.key(entry.request, 0)
        return router.anyOf() if key is None else router.choose(key)

    def _refuse(self, entry: Any, error: PoolError) -> None:
        """
        Refuse the next request of a queue entry, for which the current pool has no connection, unless another pool gets
        its keys now.
        """
        isParts = isinstance(entry, ScatteredReply)
        if not self._isMoved(entry.key if isParts else entry.command.key(entry.request, 0)):
            entry.refuse(error)
            self.advance()
        elif isParts:
            entry.divideAgain()

    def granted(self, record: Any) -> None:
        """
        Continue with a connection of the pool for which the session has waited.
        """
        self._granted = record.connection
        super().granted(record)
        self._granted = None

    def refused(self, error: PoolError) -> None:
        """
        Answer the request that has waited for a connection with an error, and go on with those for other servers.
        """
        self.ticket = None
        self._blocked = False
        if not self._unsent:
            self.proceed(error)
            return
        # The entry may have come while a later request waited: then it is for another pool, and is sent now.
        entry = self._unsent[0]
        try:
            concerned = self._poolOf(entry) is self._pool
        except PoolError:
            concerned = True
        if concerned:
            self._refuse(entry, error)
        self.proceed()
