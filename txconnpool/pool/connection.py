# -*- test-case-name: tests.pool.test_connection -*-
# Copyright txconnpool contributors. See LICENSE.
"""
One upstream connection: many requests in flight, and each reply given to the sink of its request.

The queue of requests in flight is the order in which the server executes them and replies. A session that has requests
in flight stays on its connection, so its requests are executed in their order too.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from math import inf
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress, IDelayedCall, IPushProducer
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from txconnpool.errors import ConnectionLostInFlight, PoolError, PoolTimeout, WireError
from txconnpool.interfaces import IPipelined, IReplySink, IResendingSink
from txconnpool.metrics import Traffic
from txconnpool.net.transport import adopt, outletOf, tune
from txconnpool.pool.containment import DROPPED, contain
from txconnpool.pool.slow import Noted, SlowLog
from txconnpool.wire import Declined
from txconnpool.wire.topology import Redirect

_log = Logger("txconnpool.pool")

#: A connection without any traffic for this time, in seconds, may have been forgotten by a firewall or balancer. A
#: request that is sent on it then gets no reply, although its server is well.
IDLE = 5.0

#: The maximum length of a reply to a request of L{Connection.ask}, in bytes. Replies to clients are not collected.
WHOLE_MAX = 1 << 22

#: A request in flight: the sink of its replies, its command, the number of its replies, the time at which it was sent,
#: and the request itself, if it is kept (see L{txconnpool.wire.Command.keepsRequest}).
InFlight = tuple[Any, Any, int, float, Any]


def isRetryable(command: Any, error: PoolError) -> bool:
    """
    @return: whether a request that failed may be sent once more: reads are, when their connection was lost, or had been
        idle and got no reply; nothing else is ever sent twice.
    """
    return bool(command.idempotent) and error.isStale


def isLate(command: Any, error: PoolError) -> bool:
    """
    @return: whether a request has failed that may be sent once more to another server: reads are, when the reply was
        late, because the server may be frozen.
    """
    return bool(command.idempotent) and isinstance(error, PoolTimeout) and error.phase == "request"


@implementer(IPipelined, IPushProducer)
class Connection(Protocol):
    """
    A pipelined connection to a server.

    @ivar record: the pool's record of this connection.
    @ivar ended: whether the connection was lost.
    @ivar lease: an object that is notified while the connection is leased to one client: C{pushed} is called with each
        frame of the server that is no reply, C{connectionLost} when the connection is lost, and C{abort} when one of
        these has raised an unexpected exception. C{None}: there is no lease, and such frames are dropped.
    """

    record: Any
    transport: Any
    outlet: Any
    lease: Any = None

    # The bucket of the last latency and its bounds: most replies take about as long as the one before.
    _usual: tuple[int, float, float]

    def __init__(self, factory: ConnectionFactory) -> None:
        self.factory: ConnectionFactory = factory
        self._reader = reader = factory.dialect.replyReader()
        self._read: Callable[..., tuple[int, int, Any]] = reader.read
        self._push = reader.push
        self._seconds = factory.reactor.seconds
        self._inFlight: deque[InFlight] = deque()
        self._tail = b""  # the beginning of a reply, which can be read when more bytes have arrived
        self._held = 0  # the bytes of held replies that are counted by the sink of the oldest request
        self._timer: IDelayedCall | None = None
        self._heard = -inf  # the time at which bytes of a reply were last received
        self._oldest: InFlight | None = None  # the oldest request when the timer last fired
        self._oldestSince = 0.0  # the time at which the timer first found it to be the oldest
        self._error: PoolError | None = None
        self.ended = False
        self._readSlowLog()

    # -- Requests

    def connectionMade(self) -> None:
        """
        Take over the socket, and register as a producer, which is paused while the server does not read.
        """
        transport: Any = self.transport
        tune(transport)
        self.transport = transport = adopt(self, self.factory.reactor)
        self._write = transport.write
        self.outlet = outletOf(transport)
        self._traffic: Traffic = self.record.server.traffic
        transport.registerProducer(self, True)

    def established(self) -> None:
        """
        Forget when replies of the handshake were received: they do not show that the server serves requests.
        """
        self._heard = -inf

    @property
    def unanswered(self) -> int:
        """
        The number of replies that are still due.
        """
        counts = [count for _, _, count, _, _ in self._inFlight]
        return sum(counts) - (counts[0] - self._reader.left if self._reader.left else 0)

    @property
    def served(self) -> bool:
        """
        Whether the server has replied to requests. The handshake is none.
        """
        return self._heard != -inf

    @property
    def patient(self) -> bool:
        """
        Whether the server may wait for something else before it replies to a request in flight.
        """
        return any(command.patience(request) for _, command, _, _, request in self._inFlight)

    @property
    def receiving(self) -> bool:
        """
        Whether a part of a reply has arrived.
        """
        return bool(self._tail) or self._reader.begun or self._reader.held > 0

    def ask(self, command: Any, request: bytes) -> Deferred[bytes]:
        """
        Send one request. This costs a Deferred, unlike L{send}.

        @return: fires with the whole reply; fails with a L{PoolError} if the connection is lost before.
        """
        reply = _Reply()
        self.send(reply, command, 1, request)
        return reply.whole

    def probe(self, command: Any, request: bytes) -> Deferred[bytes]:
        """
        Send one request of the pool itself. The connection has no others. It is not counted in the server's traffic.

        @return: as L{ask}.
        """
        counted = self._traffic
        self._traffic = Traffic(len(counted.requests))

        def count(result: bytes | Failure) -> bytes | Failure:
            self._traffic = counted
            return result

        return self.ask(command, request).addBoth(count)

    def send(self, sink: Any, command: Any, count: int, data: bytes, keep: bool = True) -> None:
        """
        Send one request, or several that were merged into one.

        @param sink: the L{IReplySink} of the replies.
        @param command: the L{Command<txconnpool.wire.Command>}.
        @param count: the number of replies to the request.
        @param data: the request.
        @param keep: whether the request is kept if C{command.keepsRequest}: the sink gets it back if the connection is
            lost, and replies are compared with it.
        """
        record, seconds, write = self.record, self._seconds, self._write
        self._traffic.sent += len(data)
        kept = data if keep and command.keepsRequest else self._notes and self._notes(data)
        self._inFlight.append((sink, command, count, seconds(), kept))
        record.load += count
        write(data)
        if self._timer is None:
            self._watch(self.factory.requestTimeout)

    # -- Replies

    def dataReceived(self, data: bytes) -> None:
        """
        Pass each reply to the sink of its request.
        """
        record = self.record
        traffic = self._traffic
        traffic.received += len(data)
        if self._tail:
            data = self._tail + data
            self._tail = b""
        try:
            self._deliver(data, record, traffic)
        except WireError as error:
            self.factory.violated(self)
            self._logClosing(str(error))
            # The bytes may be another client's data, so no client gets them.
            self._fail(ConnectionLostInFlight(f"upstream protocol error ({record.server.name})", kind="protocol"))
            return
        if not record.load or self.factory.connectionPool.waiters.count:
            self.factory.connectionPool.hasCapacity(record)

    def _deliver(self, data: bytes, record: Any, traffic: Traffic) -> None:
        """
        Find the replies that are complete and simple, which most are, and let L{_readReply} find all others.
        """
        reader, inFlight = self._reader, self._inFlight
        latency, requests = traffic.latency, traffic.requests
        now = self._seconds()
        left, pushes = reader.left, reader.pushes
        if not pushes or left:
            self._heard = now
        counts, (bucket, low, high) = latency.counts, self._usual
        pos, size = 0, len(data)
        while pos < size:
            if pushes and not left:
                if data[pos] in pushes:
                    pos = self._pushed(data, pos)
                    if pos == size:
                        return
                self._heard = now
            if not inFlight:
                if self.ended:  # a sink has closed this connection when it got its reply
                    return
                raise WireError("bytes that no request has asked for")
            sink, command, count, since, request = inFlight[0]
            matchWhole = command.matchWhole
            if matchWhole is None or count != 1 or left or not (end := matchWhole(data, pos, request, traffic)):
                pos = self._readReply(data, pos, now, record, traffic)
                left, pushes = reader.left, reader.pushes
                if left:
                    self._tail = data[pos:]
                    return
                bucket, low, high = self._usual
                continue
            inFlight.popleft()
            took = now - since
            if not low < took <= high:
                took, bucket, low, high = self._place(took, sink, 1, since, request)
            counts[bucket] += 1
            latency.total += took
            requests[command.index] += 1
            done = 1
            if end < size and inFlight and inFlight[0][0] is sink and sink.joins:
                end, joined = self._join(data, end, sink, now)
                done += joined
            # The state is consistent before the sink is called: it may send requests, or close this connection.
            record.load -= done
            try:
                sink.replied(data[pos:end], done)
            except Exception as error:
                self._endSink(sink, error)
            pos = end

    def _readReply(self, data: bytes, pos: int, now: float, record: Any, traffic: Traffic) -> int:
        """
        Read the reply at C{pos}, or the part of it that has arrived.

        @return: the end of what was read.
        """
        reader, inFlight = self._reader, self._inFlight
        sink, command, count, since, request = inFlight[0]
        try:
            end, done, reply = self._read(data, pos, command, count, request, traffic)
        except Declined as declined:
            traffic.requests[command.index] += 1
            self._declined(declined, data[pos : declined.end])
            return declined.end
        traffic.requests[command.index] += done
        if not reader.left:
            inFlight.popleft()
            took, bucket, _, _ = self._place(now - since, sink, count, since, request)
            traffic.latency.counts[bucket] += count
            traffic.latency.total += took * count
            if reply is None and end < len(data) and sink.joins:
                end, joined = self._join(data, end, sink, now)
                done += joined
        record.load -= done
        try:
            if reply is not None:
                if reply.__class__ is Redirect:
                    reply.since = since
                    sink.redirected(reply, record.server)
                elif reply or done:
                    if self._held:
                        self._countHeld(sink)
                    sink.replied(reply, done)
            elif end > pos:
                sink.replied(data[pos:end], done)
            if reader.left and reader.held != self._held:
                self._countHeld(sink)
        except Exception as error:
            self._endSink(sink, error)
        return end

    def _endSink(self, sink: Any, error: Exception) -> None:
        """
        End the requests of a sink that has raised the current exception. Those of other sinks go on, unless it says
        that the received bytes violate the protocol.
        """
        self.reassign(sink, DROPPED)
        contain(sink)
        if isinstance(error, WireError):
            raise error

    def _place(self, took: float, sink: Any, count: int, since: float, request: Any) -> tuple[float, int, float, float]:
        """
        Find the bucket of the time that a reply has taken, in seconds, and log it if that is slow.

        @return: the time, corrected if the clock was set back; the bucket; and its bounds.
        """
        bucket, low, high = self._usual
        if not low < took <= high:
            if not 0.0 <= took <= self._slow:
                took = self._unusual(sink, count, since, request, took)
            bucket, low, high = self._traffic.latency.bucket(took)
            self._usual = bucket, low, high = bucket, low, min(high, self._slow)
        return took, bucket, low, high

    def _join(self, data: bytes, pos: int, sink: Any, now: float) -> tuple[int, int]:
        """
        Find further whole replies to the requests of one sink, so that it gets them all at once. They have taken about
        as long as the reply before them.

        @return: the end of the last one, and their number.
        """
        inFlight, traffic, size = self._inFlight, self._traffic, len(data)
        latency, requests = traffic.latency, traffic.requests
        bucket, low, high = self._usual
        joined = 0
        while pos < size and inFlight:
            other, command, count, since, request = inFlight[0]
            took, matchWhole = now - since, command.matchWhole
            if other is not sink or matchWhole is None or count != 1 or not low < took <= high:
                break
            end = matchWhole(data, pos, request, traffic)
            if not end:
                break
            pos = end
            inFlight.popleft()
            joined += 1
            requests[command.index] += 1
            latency.total += took
        latency.counts[bucket] += joined
        return pos, joined

    def _declined(self, declined: Declined, reply: bytes) -> None:
        """
        The server has not executed the oldest request: let the pool look for one that does, and the sink send the
        request again.
        """
        sent = self._inFlight.popleft()
        sink, _, _, _, _ = sent
        self.record.load -= 1
        self.factory.connectionPool.declined(self.record, declined.why, reply)
        try:
            if not (IResendingSink.providedBy(sink) and sink.declined(self, sent, reply)):
                sink.replied(reply, 1)
        except Exception as error:
            self._endSink(sink, error)

    def reassign(self, old: Any, new: Any) -> int:
        """
        Let another sink get the replies to the requests in flight of a sink.

        @return: the number of these replies.
        """
        moved = 0
        for at, (sink, command, count, since, request) in enumerate(self._inFlight):
            if sink is old:
                self._inFlight[at] = (new, command, count, since, request)
                moved += count
        return moved

    def carries(self, session: Any, besides: Any) -> bool:
        """
        @return: whether requests in flight are those of a session, by their C{sink.session} or C{sink.sessions},
            besides those of one sink.
        """
        return any(
            getattr(sink, "session", sink) is session or session in getattr(sink, "sessions", ())
            for sink, _, _, _, _ in self._inFlight
            if sink is not besides
        )

    def _countHeld(self, sink: Any) -> None:
        """
        Let the sink of the oldest request count the bytes of its replies that the reader holds back.
        """
        change = self._reader.held - self._held
        self._held += change
        if not sink.heldBack(change):
            self._reader.discard()
            self._held = 0

    def _pushed(self, data: bytes, pos: int) -> int:
        """
        Pass the frames at C{pos} that are no replies to the lease, or drop them. Keep an incomplete one.

        @return: the position of their end.
        """
        _, command, _, _, request = self._inFlight[0] if self._inFlight else (None,) * 5
        while pos < len(data) and (end := self._push(data, pos, command, request)):
            if end < 0:
                self._tail = data[pos:]
                return len(data)
            if self.lease is not None:
                lease = self.lease
                try:
                    lease.pushed(data[pos:end])
                except Exception:
                    contain(lease)
            pos = end
        return pos

    def _unusual(self, sink: Any, count: int, since: float, request: Any, took: float) -> float:
        """
        Log a reply that took long, and correct a time that is negative because the clock was set back.

        @return: the time of the reply, in seconds.
        """
        if took < 0 or self.factory.slow is None:
            return 0.0
        waited, start, end = getattr(sink, "waited", (0.0, 0.0, 0.0))
        waited = waited if start <= since <= end else 0.0
        self.factory.slow.answered(self.record.server.name, request, count, took, waited)
        return took

    # -- Time, and the end

    def _watch(self, delay: float, again: bool = False) -> None:
        self._timer = self.factory.reactor.callLater(delay, self._check, again)

    def _check(self, again: bool = False) -> None:
        """
        Close the connection if the reply to the oldest request is late: later replies cannot arrive before it. There is
        one timer for all requests.

        @param again: whether the reply was late in the turn of the reactor before.
        """
        self._timer = None
        if not self._inFlight:
            self._oldest = None
            return
        now, factory, oldest = self._seconds(), self.factory, self._inFlight[0]
        _, command, _, since, request = oldest
        patience = command.patience(request)
        if oldest is not self._oldest:
            self._oldest, self._oldestSince = oldest, now
        heard = max(since, self._heard)
        silence = heard + factory.requestTimeout + patience - now
        left = min(silence, self._oldestSince + factory.replyTimeout + patience - now)
        if left > 0:
            self._watch(min(left, factory.requestTimeout) if patience else left)
        elif not again:
            # If this process was suspended or busy, the bytes may be there. They are read before the next turn.
            self._watch(0.0, True)
        elif silence > 0:
            self._late(oldest, now, f"reply incomplete after {factory.replyTimeout:g} s", None)
        else:
            self._late(oldest, now, f"no answer within {factory.requestTimeout:g} s", heard)

    def _late(self, oldest: InFlight, now: float, why: str, silentSince: float | None) -> None:
        self.factory.timedOut(self, silentSince)
        sink, _, count, since, request = oldest
        if now - since > self._slow:
            self._unusual(sink, count, since, request, now - since)
        self._logClosing(why)
        error = PoolTimeout(f"upstream timed out: {why} ({self.record.server.name})", "request")
        error.isStale = since - max(self._heard, self.record.born) >= IDLE
        error.server = self.record.server.name
        self._fail(error)

    def _readSlowLog(self) -> None:
        slow = self.factory.slow
        self._slow = inf if slow is None else slow.threshold
        self._notes = Noted if slow is not None and slow.wanted else None
        self._usual = 0, 0.0, 0.0

    def retime(self) -> None:
        """
        Apply other timeouts, and another limit for slow requests.
        """
        self._readSlowLog()
        if self._timer is not None:
            self._timer.cancel()
            self._check()

    def _logClosing(self, why: str) -> None:
        record, pool = self.record, self.factory.connectionPool
        _log.warn("{pool}: closing a connection to {server}, {count} requests in flight: {why}", pool=pool.name,
                  server=record.server.name, count=record.load, why=why)  # fmt: skip

    def _fail(self, error: PoolError) -> None:
        if self._error is None:
            self._error = error
            self.factory.connectionPool.hold(self.record)  # the pool is notified of the end in a later turn
            self.transport.abortConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """
        Fail all in-flight requests of this connection.
        """
        self.ended = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._error is None and self._inFlight and not self.receiving:
            _, command, _, _, _ = self._inFlight[0]
            self._closedAt(command)
        error = self._error or ConnectionLostInFlight(f"upstream connection lost ({self.record.server.name})")
        error.server = self.record.server.name
        if self.lease is not None:
            lease = self.lease
            try:
                lease.connectionLost(error)  # first, so that its client sends nothing more on this connection
            except Exception:
                contain(lease)
        if self._inFlight:
            self._failAll(error)

    def _closedAt(self, command: Any) -> None:
        """
        Report that the server has closed the connection, or was lost, while C{command} was the next to be answered. If
        any server has ever replied to the command, this one has another reason.
        """
        server = self.record.server
        if server.up and not self.factory.isAnswered(command):
            self.factory.dialect.closed(server.name, command)

    def _failAll(self, error: PoolError) -> None:
        requests = self._inFlight.copy()
        self._inFlight.clear()
        begun, left = self._reader.begun, self._reader.left
        oldest, command, count, since, request = first = requests.popleft()
        if left:
            if left < count and request:
                _, request = command.divide(request, count - left)
            first = (oldest, command, left, since, request)
        self._reader.discard()
        bySink: dict[Any, list[InFlight]] = {oldest: [first]}
        for sent in requests:
            sink, _, _, _, _ = sent
            bySink.setdefault(sink, []).append(sent)
        notified = []
        for sink, its in bySink.items():
            try:
                if self._held:  # by the oldest, which is the first
                    self._countHeld(sink)
                sink.requestsLost(its, begun and sink is oldest, error)
            except Exception:
                contain(sink)
            else:
                notified.append(sink)
            self.record.load -= sum(count for _, _, count, _, _ in its)
        for sink in notified:
            try:
                sink.afterLoss(error)
            except Exception:
                contain(sink)

    def abort(self) -> None:
        """
        Close the connection at once, also with requests in flight.
        """
        self.factory.connectionPool.hold(self.record)
        self.transport.abortConnection()

    def loseConnection(self) -> None:
        """
        Close the connection, which has no requests in flight.
        """
        self.transport.unregisterProducer()  # without this TLS would wait for the producer to end
        self.transport.loseConnection()

    # -- Back-pressure: a client does not read its reply

    def pauseReplies(self) -> None:
        """
        Read nothing more of the server, which is not late meanwhile. The connection has one request in flight.
        """
        self.transport.pauseProducing()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def resumeReplies(self) -> None:
        """
        Read the server again. From now on it may be late.
        """
        self._heard = self._seconds()
        if self._timer is None and not self.ended:
            self._watch(self.factory.requestTimeout)
        self.transport.resumeProducing()

    # -- Back-pressure: the server does not read

    def pauseProducing(self) -> None:
        """
        Let the pool give this connection no new requests, because the server does not read.
        """
        self.factory.connectionPool.hold(self.record)

    def resumeProducing(self) -> None:
        """
        Let the pool use this connection again, because the server reads.
        """
        self.factory.connectionPool.unhold(self.record)

    def stopProducing(self) -> None:
        """
        Do nothing: C{connectionLost} follows.
        """


@implementer(IReplySink)
class _Reply:
    """
    Collects the reply to one request.
    """

    joins = False

    def __init__(self) -> None:
        self.whole: Deferred[bytes] = Deferred()
        self._data = bytearray()

    def replied(self, data: bytes, done: int) -> None:
        self._data += data
        if done:
            self.whole.callback(bytes(self._data))
        elif len(self._data) > WHOLE_MAX:
            raise WireError(f"expected a reply of up to {WHOLE_MAX} bytes")

    def requestsLost(self, requests: list[InFlight], begun: bool, error: PoolError) -> None:
        pass

    def afterLoss(self, error: PoolError) -> None:
        self.whole.errback(error)

    def abort(self, error: PoolError) -> None:
        if not self.whole.called:
            self.whole.errback(error)


class ConnectionFactory(Factory):
    """
    Makes the connections of a pool.

    @ivar dialect: the protocol, an L{IDialect<txconnpool.wire.IDialect>}.
    @ivar commands: the commands of the dialect, which are counted separately.
    @ivar requestTimeout: a connection is closed when so many seconds have passed since the oldest request was sent, and
        since bytes of a reply were last received.
    @ivar replyTimeout: a connection is also closed when it has waited about so many seconds for one reply, after those
        before it, even if bytes of it are received: up to C{requestTimeout} more.
    @ivar slow: logs slow requests, or C{None}.
    @ivar connectionPool: set by the pool.
    @ivar everyServer: returns all servers that may get the same requests; C{None}: those of the pool may.
    """

    noisy = False
    connectionPool: Any = None
    everyServer: Callable[[], Iterable[Any]] | None = None

    def __init__(
        self,
        dialect: Any,
        reactor: Any,
        requestTimeout: float,
        slow: SlowLog | None = None,
        replyTimeout: float = inf,
    ) -> None:
        self.slow = slow
        self.dialect = dialect
        self.commands = dialect.commands
        self.reactor = reactor
        self.requestTimeout = requestTimeout
        self.replyTimeout = replyTimeout

    def buildProtocol(self, addr: IAddress | None) -> Connection:  # type: ignore[override]  # Factory's is a TypeVar
        """
        @return: a new connection.
        """
        return Connection(self)

    def isAnswered(self, command: Any) -> bool:
        """
        @return: whether a server has ever replied to a command.
        """
        servers = self.connectionPool.servers if self.everyServer is None else self.everyServer()
        return any(server.traffic.requests[command.index] for server in servers)

    def timedOut(self, connection: Connection, silentSince: float | None) -> None:
        """
        Count a connection that is closed because a reply was late. If its server was silent, the pool does not use
        other connections to it that have received nothing meanwhile.

        @param silentSince: the time at which the server was last heard on the connection, or the oldest request was
            sent if that is later; C{None}: the server was not silent.
        """
        self.connectionPool.counters.requestTimeouts += 1
        connection.record.server.traffic.timeouts += 1
        if silentSince is not None:
            self.connectionPool.suspect(connection.record, silentSince)

    def violated(self, connection: Connection) -> None:
        """
        Count a connection that is closed because its bytes did not match the requests in flight.
        """
        self.connectionPool.counters.violations += 1
        connection.record.server.traffic.violations += 1
