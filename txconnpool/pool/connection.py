# -*- test-case-name: tests.pool.test_connection -*-
# Copyright txconnpool contributors. See LICENSE.
"""
One upstream connection: many requests in flight, each reply to whom it is owed.

The queue of what is in flight is the order of replies and, because a session with requests in flight stays on its
connection, of execution too. What a session is told from here, not by the server, stands in the same queue.
"""

from __future__ import annotations

from collections import deque
from math import inf
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress, IDelayedCall, IPushProducer
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from txconnpool.errors import ConnectionLostInFlight, PoolError, PoolTimeout, WireError
from txconnpool.interfaces import IPipelined, IRequester
from txconnpool.metrics import Traffic
from txconnpool.net.transport import adopt, tune
from txconnpool.pool.slow import Noted, SlowLog
from txconnpool.wire import REPLY_LINE_MAX

_log = Logger("txconnpool.pool")

#: What is in flight: whose it is, the command of its replies, how many there are to be, when it was sent, and the
#: request itself if it may be sent once more or replies name its keys. Without a command, it is an answer of ours (its
#: bytes last) that waits for its turn.
Entry = tuple[Any, Any, int, float, Any]


@implementer(IPipelined, IPushProducer)
class Connection(Protocol):
    """
    A pipelined connection to a server.

    @ivar record: the pool's record of it.
    """

    record: Any
    transport: Any

    def __init__(self, factory: ConnectionFactory) -> None:
        self.factory: ConnectionFactory = factory
        self._replies = factory.dialect.replies
        self._run = factory.dialect.run
        self._seconds = factory.reactor.seconds
        self._inFlight: deque[Entry] = deque()
        self._said = 0  # how many of these are answers of ours
        self._owed = 0  # replies the head is still owed; 0: none has begun
        self._due = -1  # bytes of a body still to come; -1: at the start of a reply
        self._asked: list[bytes] | None = None  # the keys that its replies may be about
        self._tail = b""  # a line that is not complete yet
        self._timer: IDelayedCall | None = None
        self._error: PoolError | None = None
        self._ended = False
        self._wanted = 0  # keys that the head asks for, if it is a request for several,
        self._values = 0  # and how many values beyond the first have come
        self._heed()

    # -- Requests

    def connectionMade(self) -> None:
        """
        Take the socket over, and ask to be told when the server does not read.
        """
        transport: Any = self.transport
        tune(transport)
        self.transport = transport = adopt(self, self.factory.reactor)
        self._write = transport.write
        transport.registerProducer(self, True)

    @property
    def sending(self) -> bool:
        """
        Whether what was sent has yet to leave. Twisted's own transports do not tell.
        """
        return getattr(self.transport, "queued", False)

    def ask(self, request: bytes, command: Any) -> Deferred[bytes]:
        """
        Send one request for those who have time for a Deferred.

        @return: fires with the whole reply; fails with L{PoolError} when the connection is lost first.
        """
        asked = _Asked()
        self.send(asked, command, 1, request)
        return asked.answer

    def send(self, owner: Any, command: Any, count: int, data: bytes, keep: bool = True) -> None:
        """
        Send requests.

        @param owner: the L{IRequester} who is given the replies.
        @param command: the command of the replies.
        @param count: how many replies there will be.
        @param data: the requests.
        @param keep: whether they are kept, to be given back if the connection is lost, where it is safe to send them
            once more, and to know the keys that replies may be about.
        """
        record, seconds, write = self.record, self._seconds, self._write
        record.server.traffic.sent += len(data)
        kept = (
            data if keep and (command.idempotent or command.keysOf is not None) else self._notes and self._notes(data)
        )
        self._inFlight.append((owner, command, count, seconds(), kept))
        record.load += count
        write(data)
        if self._timer is None:
            self._watch(self.factory.requestTimeout)

    def say(self, owner: Any, data: bytes) -> None:
        """
        Tell C{owner} something of our own when all that is in flight before has been answered. Something is.
        """
        self._inFlight.append((owner, None, 1, 0.0, data))
        self._said += 1

    # -- Replies

    def dataReceived(self, data: bytes) -> None:
        """
        Give each reply to whom it is owed.
        """
        record = self.record
        traffic: Traffic = record.server.traffic
        traffic.received += len(data)
        if self._tail:
            data = self._tail + data
            self._tail = b""
        try:
            self._deliver(data, record, traffic)
        except WireError as error:
            self.factory.violated(self)
            self._tellClosing(str(error))
            # What came may be somebody's data: it is not for clients.
            self._fail(ConnectionLostInFlight(f"upstream protocol error ({record.server.name})", kind="protocol"))
            return
        if not record.load or self.factory.connectionPool.waiters.count:
            self.factory.connectionPool.hasCapacity(record)

    def _deliver(self, data: bytes, record: Any, traffic: Traffic) -> None:
        replies, run, inFlight = self._replies, self._run, self._inFlight
        latency, requests = traffic.latency, traffic.requests
        now = self._seconds()
        owed, due, asked, slow = self._owed, self._due, self._asked, self._slow
        counts, bucket, low, high = latency.counts, 0, 0.0, 0.0  # most replies took about as long as the one before
        pos, size = 0, len(data)
        while pos < size:
            if not inFlight:
                if self._ended:  # an owner closed this connection when it was told its reply
                    return
                raise WireError("bytes that no request is owed")
            owner, command, count, since, request = inFlight[0]
            start, fresh, whole = pos, due < 0, command.matchWhole
            if count == 1 and not owed and command.plain and (end := whole(data, pos, request)):
                pos, done = end, 1
            else:
                if not owed:
                    ask = command.keysOf
                    asked = ask(request) if request and ask is not None else None
                    if command.multiKey:
                        self._wanted = len(asked) if asked else 0
                before = owed or count
                if count == 1:
                    pos, owed, due = replies(data, pos, command, before, due, asked, traffic)
                else:
                    pos, owed, due, told = run(data, pos, command, before, due, asked, traffic, before == count)
                done = before - owed
            requests[command.index] += done
            if not owed:
                inFlight.popleft()
                took = now - since
                if not low < took <= high:
                    if not 0.0 <= took <= slow:
                        took = self._unusual(owner, count, since, request, took)
                    bucket, low, high = latency.bucket(took)
                    high = min(high, slow)
                counts[bucket] += count
                latency.total += took * count
            unseen = False
            if not command.plain:
                if command.multiKey:
                    self._countSeveral(command, request, done, traffic)
                elif fresh:
                    unseen = command.hidden(data, start)
                    if owed and unseen:
                        if due > REPLY_LINE_MAX:
                            raise WireError(f"{due} bytes in a reply that is not to be seen")
                        self._tail = data[start:]  # all of it or nothing
                        return
            # Kept in step before the owner hears of it: it may send, or close this very connection.
            if owed or self._owed:
                self._owed, self._due, self._asked = owed, due, asked
            record.load -= done
            if unseen and done:
                owner.replied(b"", done)
            elif pos > start:
                owner.replied(told if count > 1 else data if pos - start == size else data[start:pos], done)
            if owed:
                self._tail = data[pos:]
                return
            if self._said:
                self._saySome()

    def _saySome(self) -> None:
        """
        Say what has its turn now.
        """
        inFlight = self._inFlight
        while inFlight and inFlight[0][1] is None:
            owner, *_, data = inFlight.popleft()
            self._said -= 1
            owner.replied(data, 1)

    def _unusual(self, owner: Any, count: int, since: float, request: Any, took: float) -> float:
        """
        A reply took long, or the clock was put back.

        @return: how long it took.
        """
        if took < 0 or self.factory.slow is None:
            return 0.0
        waited, start, end = getattr(owner, "waited", (0.0, 0.0, 0.0))
        waited = waited if start <= since <= end else 0.0
        self.factory.slow.answered(self.record.server.name, request, count, took, waited)
        return took

    def _countSeveral(self, command: Any, request: Any, done: int, traffic: Traffic) -> None:
        """
        Count what was found of several keys, as soon as the reply is complete.
        """
        values = self._values + traffic.more
        traffic.more = 0
        if not done:
            self._values = values
            return
        self._values = 0
        if values >= 0:
            keys = values
            if request and self._wanted - 1 != values:
                keys = sum(map(bool, command.keysOf(request))) - 1
                traffic.moreMissed += keys - values
            traffic.moreKeys += keys

    # -- Time, and the end

    def _watch(self, delay: float) -> None:
        self._timer = self.factory.reactor.callLater(delay, self._check)

    def _check(self) -> None:
        """
        Close if the head is late: a pipelined stream cannot skip. One timer serves all requests.
        """
        self._timer = None
        if not self._inFlight:
            return
        timeout = self.factory.requestTimeout
        left = self._inFlight[0][3] + timeout - self._seconds()
        if left > 0:
            self._watch(left)
            return
        server = self.record.server.name
        self.factory.timedOut(self)
        if timeout > self._slow:
            owner, _, count, since, request = self._inFlight[0]
            self._unusual(owner, count, since, request, self._seconds() - since)
        why = f"no answer within {timeout:g} s"
        self._tellClosing(why)
        self._fail(PoolTimeout(f"upstream timed out: {why} ({server})", "request"))

    def _heed(self) -> None:
        slow = self.factory.slow
        self._slow = inf if slow is None else slow.threshold
        self._notes = Noted if slow is not None and slow.wanted else None

    def retime(self) -> None:
        """
        The time that a request may take, or what is slow, has changed.
        """
        self._heed()
        if self._timer is not None:
            self._timer.cancel()
            self._check()

    def _tellClosing(self, why: str) -> None:
        record, pool = self.record, self.factory.connectionPool
        _log.warn("{pool}: closing a connection to {server}, {count} requests in flight: {why}", pool=pool.name,
                  server=record.server.name, count=record.load, why=why)  # fmt: skip

    def _fail(self, error: PoolError) -> None:
        if self._error is None:
            self._error = error
            self.factory.connectionPool.hold(self.record)  # the pool hears of the end in a later turn only
            self.transport.abortConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """
        Tell everyone who is owed something that it will not come from here.
        """
        self._ended = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if not self._inFlight:
            return
        error = self._error or ConnectionLostInFlight(f"upstream connection lost ({self.record.server.name})")
        entries = self._inFlight.copy()
        self._inFlight.clear()
        begun = self._due >= 0
        owner, command, count, since, again = first = entries.popleft()
        if self._owed:
            if self._owed < count and again:
                _, again = self.factory.dialect.split(again, count - self._owed)
            first = (owner, command, self._owed, since, again)
        owners: dict[Any, list[Entry]] = {owner: [first]}
        for entry in entries:
            owners.setdefault(entry[0], []).append(entry)
        for each, its in owners.items():
            each.unanswered(its, begun and each is owner, error)

    def loseConnection(self) -> None:
        """
        Close, as the pool wishes; nothing is in flight.
        """
        self.transport.unregisterProducer()  # without this TLS would wait for the producer to end
        self.transport.loseConnection()

    # -- Back-pressure: the server does not read

    def pauseProducing(self) -> None:
        """
        Take no new requests.
        """
        self.factory.connectionPool.hold(self.record)

    def resumeProducing(self) -> None:
        """
        Take new requests again.
        """
        self.factory.connectionPool.unhold(self.record)

    def stopProducing(self) -> None:
        """
        The connection ends; C{connectionLost} does what there is to do.
        """


@implementer(IRequester)
class _Asked:
    """
    Collects the reply to one request.
    """

    def __init__(self) -> None:
        self.answer: Deferred[bytes] = Deferred()
        self._data = b""

    def replied(self, data: bytes, count: int) -> None:
        """
        Part of the answer.
        """
        self._data += data
        if count:
            self.answer.callback(self._data)

    def unanswered(self, entries: list[Entry], begun: bool, error: PoolError) -> None:
        """
        The connection was lost.
        """
        self.answer.errback(error)


class ConnectionFactory(Factory):
    """
    Makes the connections of a pool.

    @ivar dialect: the protocol, an L{txconnpool.interfaces.IDialect}.
    @ivar requestTimeout: seconds a request may take.
    @ivar slow: who is told what takes long.
    @ivar connectionPool: set by the pool.
    """

    noisy = False
    connectionPool: Any = None

    def __init__(self, dialect: Any, reactor: Any, requestTimeout: float, slow: SlowLog | None = None) -> None:
        self.slow = slow
        self.dialect = dialect
        self.reactor = reactor
        self.requestTimeout = requestTimeout

    def buildProtocol(self, addr: IAddress | None) -> Connection:  # type: ignore[override]  # Factory's is a TypeVar
        """
        @return: a new connection.
        """
        return Connection(self)

    def timedOut(self, connection: Connection) -> None:
        """
        A connection is closed because a reply was late.
        """
        self.connectionPool.counters.requestTimeouts += 1
        connection.record.server.traffic.timeouts += 1

    def violated(self, connection: Connection) -> None:
        """
        A connection is closed because its bytes did not fit.
        """
        self.connectionPool.counters.violations += 1
        connection.record.server.traffic.violations += 1
