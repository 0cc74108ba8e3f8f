# -*- test-case-name: tests.proxy.test_topics -*-
# Copyright txconnpool contributors. See LICENSE.
"""
What servers send without being asked, for the clients that want it: all clients that want the same share one connection
to its server. L{Hub<txconnpool.wire.topics.Hub>} decides who gets what.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from zope.interface import implementer

from txconnpool.errors import PoolClosed, PoolError
from txconnpool.interfaces import IRedirectedSink, IWaiter
from txconnpool.net.loglimit import LogLimit
from txconnpool.pool.containment import DROPPED, contain
from txconnpool.pool.decisions.reasons import NONE, TOO_OLD
from txconnpool.proxy.broadcast import failed
from txconnpool.proxy.pinning import LentConnection
from txconnpool.proxy.topicmoves import TopicMoves
from txconnpool.routing.shards import unserved
from txconnpool.wire.topics import Ask, Hub, ITopicRequest, Topic
from txconnpool.wire.topology import Redirect

_log = Logger("txconnpool.proxy")

#: Seconds after which the log says again that subscribers are closed.
PERIOD = 60.0

LOST = "the connection on which their messages come was lost"
MOVED = "other servers have their topics now"
UNSERVED = "no server sends their messages now"


class _Line(LentConnection):
    """
    The connection of a source.
    """

    __slots__ = ("_source",)

    def __init__(self, source: Source, factory: Any, pool: Any, record: Any, flavour: Any) -> None:
        super().__init__(factory, pool, record)
        self._source = source
        self._prepare(factory.dialect.prelude(flavour))

    @property
    def ends(self) -> bool:
        """
        Whether the pool has a reason to close the connection other than its age: a subscription may last for ever.
        """
        record, pool = self._record, self._pool
        isReplaced = record.reason is not NONE and record.reason is not TOO_OLD
        return isReplaced or record.server.drained or record.server not in pool.servers

    def pushed(self, data: bytes) -> None:
        self._source.pushed(data)

    def connectionLost(self, error: PoolError) -> None:
        super().connectionLost(error)
        self._source.lost(self._refusal or error)

    def abort(self, error: PoolError) -> None:
        self._source.abort(error)

    def prepared(self) -> None:
        self._source.update()


@implementer(IWaiter, IRedirectedSink)
class Source:
    """
    The topics that come on one connection, which is one to a server or to one of several equal ones.

    @ivar pool: the pool of the connection.
    @ivar flavour: the flavour of the connection.
    @ivar hub: the topics, and who wants them.
    """

    joins = False
    ticket: Any = None

    _line: _Line | None = None
    _lost: _Line | None = None  # a lost connection whose requests have not failed yet

    def __init__(self, subscribers: Subscribers, pool: Any, flavour: Any) -> None:
        self.pool = pool
        self.flavour = flavour
        self._subscribers = subscribers
        self._factory = subscribers.sessions
        self.hub: Hub = self._factory.dialect.hub()
        self._reply = b""

    @property
    def connected(self) -> bool:
        """
        Whether there is a connection.
        """
        return self._line is not None

    @property
    def ends(self) -> bool:
        """
        Whether the pool closes the connection soon, so that no client should begin to use it.
        """
        return self._line is not None and self._line.ends

    # -- Requests

    def update(self) -> None:
        """
        Send what the server is to be asked for, as soon as there is a connection; or give the connection back, if no
        client wants anything.
        """
        if self.hub.unused:
            self._end()
            return
        if self._line is None and self.ticket is None and self.hub.outgoing:
            self._connect()
        if self._line is not None and self._line.ready and self.hub.outgoing:
            steps, self.hub.outgoing = self.hub.outgoing, []
            for adds, topics in steps:
                command, request = self._factory.dialect.topicRequest(adds, topics)
                self._line.connection.send(self, command, 1, request)
                if command.redirectable and not adds:  # the reply may be ambiguous, see IStatefulDialect
                    self._line.connection.send(
                        DROPPED, self._factory.dialect.probe[0], 1, self._factory.dialect.probe[1]
                    )

    def _connect(self) -> None:
        try:
            record = self.pool.take(self, True)
        except PoolError as error:
            self._fail(error)
        else:
            if record is not None:
                self._use(record)

    def _use(self, record: Any) -> None:
        self._line = _Line(self, self._factory, self.pool, record, self.flavour)

    def granted(self, record: Any) -> None:
        """
        Use a connection of the pool.
        """
        self.ticket = None
        self._use(record)
        self.update()

    def refused(self, error: PoolError) -> None:
        """
        There is no connection.
        """
        self.ticket = None
        self._fail(error)

    def _end(self) -> None:
        """
        Give the connection back. It is closed if the server does not know yet that no client wants anything.
        """
        line, self._line = self._line, None
        self._subscribers.remove(self)
        if self.ticket is not None:
            self.pool.forget(self.ticket)
            self.ticket = None
        elif line is not None:
            if self.hub.waits or len(self.hub):
                line.abandon()
            else:
                line.release()

    # -- What the server sends

    def replied(self, data: bytes, done: int) -> None:
        """
        Take the reply to a request.
        """
        self._reply += data
        if not done:
            return
        reply, self._reply = self._reply, b""
        self._subscribers.finish(self.hub.replied(reply))
        self.update()

    def redirected(self, redirect: Redirect, server: Any) -> None:
        """
        A node of a cluster has not done the oldest request, because another one has its topics, or none has them now.
        """
        adds, asks = self.hub.redirected()
        if adds:
            self._subscribers.moves.redirected(asks, redirect, server)
        else:
            self._subscribers.finish(asks)
        self.update()

    def pushed(self, data: bytes) -> None:
        """
        Write a frame to the clients that want it. If it says that the server sends no more about a topic, they get the
        frames of another one.
        """
        sessions = self.hub.clientsOf(data)
        for session in sessions:
            self._subscribers.write(session, data)
        ended = None if sessions else self.hub.ended(data)
        if ended is not None:
            topic, clients, asks = ended
            self._subscribers.moves.ended(topic, self.flavour, clients, asks)
            self.update()

    # -- The end

    def lost(self, error: PoolError) -> None:
        """
        The connection was lost: close its clients, which have to know that frames may be missing.
        """
        line, self._line = self._line, None
        if line is not None:
            if line.ready and self.hub.waits:
                self._lost = line
            else:  # it has none
                line.release()
        self._fail(error)

    def requestsLost(self, requests: list[Any], begun: bool, error: PoolError) -> None:
        """
        Do nothing: L{lost} was called.
        """

    def afterLoss(self, error: PoolError) -> None:
        """
        Forget the connection, whose requests have failed.
        """
        lost, self._lost = self._lost, None
        if lost is not None:
            lost.release()

    def abort(self, error: PoolError) -> None:
        """
        Close the connection and its clients, because of an unexpected exception.
        """
        line, self._line = self._line, None
        if line is not None:
            line.abandon()
        self._fail(error)

    def _fail(self, error: PoolError) -> None:
        self._subscribers.remove(self)
        asks, sessions = self.hub.lose(failed(self._factory.dialect, error))
        self._subscribers.finish(asks)
        self._subscribers.close(sessions, LOST)


class Subscribers:
    """
    The clients of a pool that want topics.

    @ivar dropped: how many were closed because they did not read fast enough.
    @ivar moves: their requests for topics that other servers have now.
    """

    def __init__(self, sessions: Any) -> None:
        """
        @param sessions: the L{SessionFactory<txconnpool.proxy.sessions.SessionFactory>}.
        """
        self.sessions = sessions
        self.dropped = 0
        self._sources: dict[tuple[Any, Any], Source] = {}
        self._used: set[Source] = set()  # all that are in use; some are not for new clients
        self._clients: dict[Any, dict[Topic, tuple[Source, ...]]] = {}
        self._asks: dict[Any, tuple[Ask, Deferred[bytes]]] = {}
        self.moves = TopicMoves(self)
        self._log = LogLimit(sessions.reactor.seconds, PERIOD)

    @property
    def counts(self) -> dict[str, int]:
        """
        The numbers of subscribers, of the topics that servers were asked for, of the connections for them, and of
        subscribers that were closed because they did not read fast enough.
        """
        return {
            "clients": len(self._clients),
            "topics": sum(len(source.hub) for source in self._used),
            "connections": sum(source.connected for source in self._used),
            "dropped": self.dropped,
        }

    # -- Requests of clients

    def ask(self, session: Any, request: ITopicRequest) -> Deferred[bytes]:
        """
        Carry out a request of a client, which has no other one under way.

        @return: fires with the reply.
        """
        ask = Ask(session, request)
        reply: Deferred[bytes] = Deferred()
        self._asks[session] = ask, reply
        self.begin(ask)
        return reply

    def begin(self, ask: Ask) -> None:
        """
        Make a request of the servers that have its topics.
        """
        (self._join if ask.request.adds else self._leave)(ask)
        if not ask.steps:
            self.finish([ask])
        for source in list(ask.shares):
            source.update()

    def _join(self, ask: Ask) -> None:
        known = self._clients.get(ask.client, {})
        fresh = [topic for topic in dict.fromkeys(ask.request.topics) if topic not in known]
        try:
            for topic in fresh:
                for pool in self._poolsOf(topic):
                    ask.shares.setdefault(self._source(pool, ask.request.flavour), []).append(topic)
        except PoolError as error:
            ask.error = failed(self.sessions.dialect, error)
            return
        for source, topics in ask.shares.items():
            source.hub.join(ask, topics)

    def _leave(self, ask: Ask) -> None:
        unwanted = dict.fromkeys(ask.request.topics)
        self.moves.left(ask.client, unwanted)
        for topic in unwanted:
            for source in self.lacks(ask.client, topic):
                ask.shares.setdefault(source, []).append(topic)
        for source, topics in ask.shares.items():
            source.hub.leave(ask.client, topics, ask)

    def finish(self, asks: Iterable[Ask]) -> None:
        """
        Answer the requests that are complete or have failed.
        """
        for ask in asks:
            session, request = ask.client, ask.request
            isRenewal = self.moves.finish(ask)
            current, reply = self._asks.get(session, (None, None))
            if not isRenewal and current is not ask:
                continue
            if not ask.error and request.adds and not self._settle(ask):
                ask.error = failed(self.sessions.dialect, PoolClosed(MOVED))
            if ask.error:
                self.cancel(ask)
            if reply is not None and current is ask:
                del self._asks[session]
                reply.callback(request.refused(ask.error) if ask.error else request.confirmed())
            elif ask.error:
                self.close([session], UNSERVED)

    def _settle(self, ask: Ask) -> bool:
        """
        Let the client of a complete request get frames from now on.

        @return: whether this was done. If not, other servers have its topics now.
        """
        found: dict[Topic, tuple[Source, ...]] = {}
        for source, topics in ask.shares.items():
            for topic in topics:
                found[topic] = (*found.get(topic, ()), source)
        if any(self._isMoved(topic, [source.pool for source in sources]) for topic, sources in found.items()):
            return False
        for source, topics in ask.shares.items():
            source.hub.settle(ask, topics)
        self._clients.setdefault(ask.client, {}).update(found)
        return True

    def lacks(self, client: Any, topic: Topic) -> tuple[Source, ...]:
        """
        A client gets no frames of a topic any more.

        @return: the sources that it has got them of.
        """
        known = self._clients.get(client, {})
        sources = known.pop(topic, ())
        if not known:
            self._clients.pop(client, None)
        return sources

    def cancel(self, ask: Ask) -> None:
        """
        Nobody waits for a request any more.
        """
        for source, topics in ask.shares.items():
            source.hub.cancel(ask, topics)
            source.update()

    # -- Frames

    def write(self, session: Any, data: bytes) -> None:
        """
        Write a frame to a client. One that leaves too much unread is closed.
        """
        if session.gone:
            return
        try:
            session.interject(data)
        except Exception:  # it concerns no other subscriber
            contain(session)
            return
        if session.gone:
            self.dropped += 1

    # -- Servers

    def _poolsOf(self, topic: Topic) -> tuple[Any, ...]:
        """
        @return: the pools whose servers send the frames of a topic.

        @raise PoolError: there is none at the moment.
        """
        router = self.sessions.flavours.leases
        if not self.sessions.router.keyed:
            return (router,)
        key = self.sessions.dialect.topicKey(topic)
        pools: tuple[Any, ...] = router.serving if key is None else (router.choose(key),)
        if not pools:
            raise unserved(pools)
        return pools

    def _source(self, pool: Any, flavour: Any) -> Source:
        source = self._sources.get((pool, flavour))
        if source is None or source.ends:
            source = self._sources[pool, flavour] = Source(self, pool, flavour)
            self._used.add(source)
        return source

    def remove(self, source: Source) -> None:
        """
        Use a source no more.
        """
        self._used.discard(source)
        key = source.pool, source.flavour
        if self._sources.get(key) is source:
            del self._sources[key]

    def _isMoved(self, topic: Topic, pools: Iterable[Any]) -> bool:
        """
        @return: whether other pools have a topic now.
        """
        router = self.sessions.flavours.leases
        if self.sessions.router.keyed and router.passesOn and self.sessions.dialect.topicKey(topic) is not None:
            return not set(pools) <= set(router.serving)
        try:
            return set(self._poolsOf(topic)) != set(pools)
        except PoolError:
            return True

    # -- The end

    def left(self, session: Any) -> None:
        """
        A client is gone.
        """
        ask, _ = self._asks.pop(session, (None, None))
        bySource: dict[Source, list[Topic]] = {}
        for topic, sources in self._clients.pop(session, {}).items():
            for source in sources:
                bySource.setdefault(source, []).append(topic)
        for source, topics in bySource.items():
            source.hub.leave(session, topics)
        self.moves.left(session)
        if ask is not None:
            self.moves.finish(ask)
            self.cancel(ask)
        for source in bySource:
            source.update()

    def close(self, sessions: Iterable[Any], why: str) -> None:
        """
        Close clients that may miss frames.
        """
        count = 0
        for session in sessions:
            self.left(session)
            if session.gone:
                continue
            count += 1
            try:
                if session.blocked:
                    session.drop()
                else:
                    session.expel()
            except Exception:
                contain(session)
        if count and self._log.add():
            _log.warn("{pool}: {count} subscribers are closed: {why}", pool=self.sessions.name, count=count, why=why)

    def check(self) -> None:
        """
        Close the clients that have topics of which other servers send the frames now.
        """
        places = {place for known in self._clients.values() for place in known.items()}
        moved = {
            (topic, sources) for topic, sources in places if self._isMoved(topic, [source.pool for source in sources])
        }
        sessions = [session for session, known in self._clients.items() if not moved.isdisjoint(known.items())]
        self.close(sessions, MOVED)
