# -*- test-case-name: tests.proxy.test_session -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Finds connections of the pool for the requests of one client, waits for them, and leases one if the client needs a
connection for itself.
"""

from __future__ import annotations

from typing import Any

from zope.interface import implementer

from txconnpool.errors import PoolError
from txconnpool.interfaces import IWaiter
from txconnpool.proxy.ordering import NOTHING, OrderedReplies
from txconnpool.proxy.pinning import Pin


@implementer(IWaiter)
class RequestSender(OrderedReplies):
    """
    A client with requests to send. While requests are in flight, further requests are sent on the same connection.

    @ivar ticket: the ticket of the pool while the client waits for a connection, or C{None}.
    @ivar waited: if slow requests are logged: the seconds of the last wait for a connection, and the times between
        which the requests were sent that had waited.
    """

    ticket: Any = None
    waited = (0.0, 0.0, 0.0)

    _halfClosed = False  # the client has closed its side
    _leases: Any = None  # the pool of which it leases a connection

    def __init__(self, factory: Any) -> None:
        super().__init__(factory)
        self._reader = factory.dialect.requestReader()
        # Whether it sends nothing now: it waits for a connection, its leased connection is not ready, its requests are
        # in a L{Merge<txconnpool.proxy.merging.Merge>}, or it is gone.
        self._blocked = False
        self._refusable = 0  # how many of the kept bytes were there when the wait for a connection began

    @property
    def oldest(self) -> bytes:
        """
        Bytes that begin with the next request to send.
        """
        raise NotImplementedError

    def _take(self) -> int:
        """
        Take a connection.

        @return: how many requests the connection accepts now. If it is 0, the session is called again later: when it
            gets a connection, or when requests in flight are answered.

        @raise PoolError: there is no connection, and waiting for one is not possible.
        """
        connection = self._connection
        if connection is None:
            if self._pin is not None:
                return 0
            record = self._pool.take(self)
            if record is None:
                self._wait()
                return 0
            self._connection = record.connection
        elif self._inFlight and self._pool.waiters.count:
            return 0  # other sessions wait: this one takes a connection again when nothing is in flight
        else:
            record = connection.record
        room: int = record.depth - record.load
        return room

    def _unite(self, pool: Any, command: Any, request: bytes) -> bool:
        """
        Let a read be sent together with those of other clients, if nothing is in flight.

        @param command: the command, which C{unites}.

        @return: whether it will be; if not, it is sent alone.
        """
        if self._inFlight or self._queue is not None or self._pin is not None:
            return False
        united = self.factory.uniting.add(self, pool, command, request)
        if united is None:
            return False
        self._inFlight = 1
        self._connection = united
        return True

    def _wait(self) -> None:
        """
        Send nothing until the pool has a connection.
        """
        self._blocked = True
        self._refusable = self._size

    def granted(self, record: Any) -> None:
        """
        Continue with a connection of the pool.
        """
        slow, seconds = self.factory.slow, self.factory.reactor.seconds
        if slow is not None:
            start = seconds()
            waited = start - self.ticket.since
            if waited > slow.threshold:
                slow.waited(self.oldest, waited)
        pins, load = self.ticket.exclusive, record.load
        pool = self._leases if pins else self._pool
        self.ticket = None
        self._blocked = False
        if pins:
            self._engage(pool, record)
        else:
            self._connection = record.connection
        self.proceed()
        if slow is not None:
            self.waited = waited, start, seconds()
        if record.load == load and not pins:
            if not self._inFlight:
                self._connection = None
            pool.hasCapacity(record)

    def refused(self, error: PoolError) -> None:
        """
        Answer the requests that have waited for a connection with an error.
        """
        self.ticket = None
        self._blocked = False
        for entry in list(self._unsent):
            entry.refuse(error)
        self.advance()
        self.proceed(error)

    @property
    def waiting(self) -> bool:
        """
        Whether the session waits for a connection.
        """
        return self.ticket is not None

    # -- Requests of queue entries

    def _sendUnsent(self) -> None:
        """
        Send the requests of queue entries that come before the bytes that were kept, as far as possible now.
        """
        while self._unsent:
            entry = self._unsent[0]
            if entry.unsent and not (entry.ready and self._sendEntry(entry)):
                return
            if not entry.unsent and self._unsent and self._unsent[0] is entry:
                self._unsent.popleft()
        self._unsent = NOTHING
        if self.kept and self._size <= self._limits.backlog:
            self.factory.buffered.free(self)

    def _sendEntry(self, entry: Any) -> bool:
        """
        Send the next request of a queue entry.

        @return: whether it was sent or refused; if not, the session is called again later.
        """
        try:
            room = self._take()
        except PoolError as error:
            entry.refuse(error)
            self.advance()
            return True
        if room <= 0 and (room := self._ownRoom()) <= 0:
            return False
        command, count, data = entry.next(room)
        self._inFlight += count
        if self._pin is not None:
            self._pin.forwarded(command)
        self._connection.send(entry, command, count, data)
        return True

    # -- A connection for this client alone

    def _wantPin(self) -> bool:
        """
        Lease a connection for this client alone, when all earlier requests are answered.

        @return: whether the client has one now; if not, it is called again later.

        @raise PoolError: there is no connection, and waiting for one is not possible.
        """
        if self._inFlight or self._queue is not None:
            return False
        return self._lease(self._pool if self._flavours is None else self._flavours.leases)

    def _lease(self, pool: Any) -> bool:
        """
        Lease a connection of a pool for this client alone.

        @return: whether the client has one now; if not, it waits.

        @raise PoolError: there is no connection, and waiting for one is not possible.
        """
        self._leases = pool
        record = pool.take(self, True)
        if record is None:
            self._blocked = True
            return False
        return self._engage(pool, record)

    def _engage(self, pool: Any, record: Any) -> bool:
        """
        Have a connection for this client alone.

        @return: whether it can be used now; if not, the client waits.
        """
        self._pin = Pin(self, pool, record, self._reader)
        self._blocked = not self._pin.ready
        return self._pin.ready

    def pinReady(self) -> None:
        """
        Go on, because the leased connection can be used.
        """
        self._blocked = False
        self.proceed()

    def _ownRoom(self) -> int:
        """
        @return: how many requests may be sent on the leased connection; 0 if there is none, if the next request does
            not need it, or if the server does not read.
        """
        pin = self._pin
        if pin is None or not pin.needed or (pin.held and self._inFlight):
            return 0
        self._connection = pin.connection
        self._needQueue()
        room: int = self._window - self._inFlight
        return room

    def _changeFlavour(self, flavour: Any, reply: bytes) -> bool:
        """
        Use connections of another flavour, when all earlier requests are answered.

        @param reply: the reply to the request for it.

        @return: whether it was done; if not, the request is read again later.
        """
        if self._inFlight or self._queue is not None:
            return False
        answer = self.useFlavour(flavour) or reply
        self.factory.countReply(answer)
        self.answer(answer)
        return True

    def useFlavour(self, flavour: Any) -> bytes:
        """
        Use connections of another flavour from now on. Nothing is in flight.

        @return: the error for the client if there are none; else nothing.
        """
        try:
            pool = self._flavours.use(self, flavour)
        except PoolError as error:
            return bytes(self.factory.dialect.error(error.kind, str(error)))
        self._reader.switched(flavour)
        self._unpin()
        self._use(pool)
        return b""

    def _stateLost(self, error: PoolError) -> None:
        self.factory.unserved(error)
        self.pinLost(error)

    def readConnectionLost(self) -> None:
        """
        Handle a half-close: the client sends nothing more, but still reads.
        """
        self._halfClosed = True
        self.end()

    @property
    def blocked(self) -> bool:
        """
        Whether a server waits for something on behalf of the client.
        """
        return self._pin is not None and self._pin.blocks

    @property
    def blocksInVain(self) -> bool:
        """
        Whether a server waits for something on behalf of a client that has closed its side.
        """
        return self._halfClosed and self.blocked

    def pinLost(self, error: PoolError) -> None:
        """
        Answer what is unsent with an error, and close the client, because its leased connection was lost, and with it
        the state that its requests depend on.
        """
        self._blocked = False
        for entry in list(self._unsent):
            entry.refuse(error)
        self.advance()
        if not self._inFlight:
            self._unpin()
        self.end()

    # -- The end

    def forget(self) -> None:
        """
        Stop waiting for a connection, and close a leased one, because the client is gone or is being closed.
        """
        if self.ticket is not None:
            (self._leases if self.ticket.exclusive else self._pool).forget(self.ticket)
            self.ticket = None
        if self._pin is not None:
            pin, self._pin = self._pin, None
            pin.abandon()
        if self._flavours is not None:
            self._flavours.leave(self)
        self._blocked = True
        super().forget()
