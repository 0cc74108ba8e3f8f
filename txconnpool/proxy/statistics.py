# -*- test-case-name: tests.proxy.test_statistics -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Replies to clients that ask for statistics: those of the servers, and the proxy's own.

Many clients may ask, and again and again. So the servers are asked for the same statistics at most once in L{FRESH}
seconds: clients that ask meanwhile share the replies, and clients that ask while a question is under way wait for it.
A server that does not answer costs one timeout, not one for each client.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from functools import partial
from math import inf
from typing import Any, Final, TypeAlias

from twisted.internet.defer import Deferred, DeferredList, maybeDeferred, succeed
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from txconnpool.errors import PoolError, ServerUnavailable
from txconnpool.pool.decisions.health import NO_SERVERS
from txconnpool.proxy.broadcast import askAny, askOne, failed
from txconnpool.routing.clusterrouters import ClusterRouter, ReplicatedRouter

_log = Logger("txconnpool.proxy")

#: Seconds for which replies of the servers are shared.
FRESH: Final = 1.0

#: What is put before the names of the proxy's own statistics, among those of the servers.
PREFIX: Final = "proxy_"

#: The proxy's own statistics that can be asked for without the word C{proxy}, as in earlier versions. memcached has no
#: statistics of these names.
_SHORT: Final = ((b"servers",), (b"sessions",))

#: The replies of the servers, each with the name of the server, in the order of the servers.
Replies: TypeAlias = list[tuple[str, bytes]]


class NoStatistics(LookupError):
    """
    There are no such statistics. The text of the exception is the error for the client; if it is empty, the client gets
    the dialect's reply to unknown statistics.
    """


class Shared:
    """
    Results that are shared by all who ask for them within a time, each identified by a key.
    """

    def __init__(self, seconds: Callable[[], float], fresh: float = FRESH) -> None:
        """
        @param seconds: returns the time.
        @param fresh: for how many seconds a result is shared.
        """
        self._seconds = seconds
        self._fresh = fresh
        self._results: dict[Hashable, tuple[float, Any]] = {}
        self._asking: dict[Hashable, list[Deferred[tuple[Any, float]]]] = {}

    def get(self, key: Hashable, ask: Callable[[], Deferred[tuple[Any, float]]]) -> Deferred[tuple[Any, float]]:
        """
        Get a result that is not older than allowed.

        @param ask: called if there is none. Returns a Deferred that fires with a result and its age in seconds.

        @return: fires with a result and its age; fails as the result of C{ask} does.
        """
        now = self._seconds()
        self._results = {each: kept for each, kept in self._results.items() if 0 <= now - kept[0] < self._fresh}
        if key in self._results:
            since, result = self._results[key]
            return succeed((result, now - since))
        waiting = self._asking.get(key)
        got: Deferred[tuple[Any, float]] = Deferred()
        if waiting is not None:
            waiting.append(got)
            return got
        self._asking[key] = waiting = [got]
        maybeDeferred(ask).addBoth(self._asked, key, waiting)
        return got

    def forget(self) -> None:
        """
        Share no result that was asked for before this.
        """
        self._results = {}
        self._asking = {}

    def _asked(self, result: Any, key: Hashable, waiting: list[Deferred[tuple[Any, float]]]) -> None:
        if self._asking.get(key) is waiting:
            del self._asking[key]
            if not isinstance(result, Failure):
                self._results[key] = self._seconds() - result[1], result[0]
        for got in waiting:
            got.callback(result)


def askEach(router: Any, dialect: Any, command: Any, request: bytes) -> Deferred[Replies]:
    """
    Send one request to every server that can be reached.

    @param router: the L{IRouter<txconnpool.interfaces.IRouter>}.
    @param dialect: the L{IDialect<txconnpool.wire.IDialect>}.

    @return: fires with the replies. A server that cannot be reached, or does not answer, has an error as its reply.

    @raise ServerUnavailable: there is no server.
    """
    names: list[str] = []
    asked: list[Deferred[bytes]] = []
    for pool in router.pools:
        names += [server.name for server in pool.servers]
        asked += _ask(pool, dialect, command, request)
    if not names:
        raise ServerUnavailable(NO_SERVERS)

    def replies(results: list[tuple[bool, Any]]) -> Replies:
        each = [result if done else failed(dialect, result.value) for done, result in results]
        return list(zip(names, each, strict=True))

    return DeferredList(asked, consumeErrors=True).addCallback(replies)


def _ask(pool: Any, dialect: Any, command: Any, request: bytes) -> list[Deferred[bytes]]:
    if len(pool.servers) != 1:
        found = [record for _, record in pool.eachServer()]
        return [
            succeed(failed(dialect, each)) if isinstance(each, PoolError) else each.connection.ask(command, request)
            for each in found
        ]
    return [askOne(pool, command, request)]


def _modeOf(router: Any) -> str:
    """
    @return: in a word, what the servers of a pool are to each other.
    """
    if isinstance(router, ReplicatedRouter):
        return "replicas"
    if isinstance(router, ClusterRouter):
        return "cluster"
    if router.keyed:
        return "keys"
    return "equal" if sum(len(pool.servers) for pool in router.pools) > 1 else "single"


class StatisticsReplies:
    """
    The replies to the requests for statistics of a pool's clients.

    @ivar askServers: called with the arguments of a request that changes nothing; returns a Deferred that fires with
        the L{Replies} and their age in seconds. With several processes it asks on behalf of all of them.
    """

    def __init__(self, sessions: Any) -> None:
        """
        @param sessions: the L{SessionFactory<txconnpool.proxy.sessions.SessionFactory>} of the clients.
        """
        self.askServers: Callable[[tuple[bytes, ...]], Deferred[tuple[Replies, float]]] = self.askHere
        self._sessions = sessions
        self._shared = Shared(sessions.reactor.seconds)
        self._changed = -inf  # when a client has last changed the servers, such as with `stats reset`

    def reply(self, words: tuple[bytes, ...]) -> Deferred[bytes]:
        """
        Make the reply to a client. This takes at least one turn of the reactor, so that a client with many such
        requests does not block others.

        @param words: the arguments of its request. After C{proxy} they are those of the proxy's own statistics.

        @return: fires with the reply. It does not fail.
        """
        reply: Deferred[Any] = deferLater(self._sessions.reactor, 0, self._find, words)
        return reply.addErrback(self._noStatistics)

    def report(
        self,
        router: Any,
        command: Any,
        request: bytes | None,
        join: Callable[[bytes | None, list[tuple[str, object]]], bytes],
    ) -> Deferred[bytes]:
        """
        Make a reply to a client that has the reply of one server and the proxy's own statistics.

        @param router: the L{IRouter<txconnpool.interfaces.IRouter>} of the client.
        @param request: the request for the server; C{None}: none is asked.
        @param join: makes the reply of that of the server, which may be an error, and of names and values.

        @return: fires with the reply. It does not fail.
        """
        reply: Deferred[Any] = deferLater(self._sessions.reactor, 0, self._report, router, command, request, join)
        return reply.addErrback(self._noStatistics)

    def _report(self, router: Any, command: Any, request: bytes | None, join: Callable[..., bytes]) -> Deferred[bytes]:
        sessions = self._sessions

        def asked(got: tuple[Any, float]) -> Any:
            own = [("mode", _modeOf(sessions.router)), *got[0]]
            if request is None:
                return join(None, own)
            return askAny(router, sessions.dialect, command, request).addCallback(join, own)

        return self._shared.get("own", self._summary).addCallback(asked)

    def _summary(self) -> Deferred[tuple[list[tuple[str, object]], float]]:
        own: Deferred[Any] = maybeDeferred(self._sessions.report, (b"summary",))
        return own.addCallback(lambda items: (list(items), 0.0))

    def askHere(self, words: tuple[bytes, ...]) -> Deferred[tuple[Replies, float]]:
        """
        Ask the servers, on the connections of this process.

        @param words: the arguments of a request that L{reply} accepts.
        """
        asked = self._sessions.dialect.serverStatistics(words, True)
        return self._ask(asked).addCallback(lambda replies: (replies, 0.0))

    def _ask(self, asked: Any) -> Deferred[Replies]:
        return askEach(self._sessions.router, self._sessions.dialect, asked.command, asked.request)

    def _find(self, words: tuple[bytes, ...]) -> Any:
        if words[:1] == (b"proxy",):
            return self._own(words[1:])
        if words in _SHORT:
            return self._own(words)
        if not words:
            return self._shared.get(None, self._everything).addCallback(lambda got: got[0])
        return self._ofServers(words)

    def _own(self, words: tuple[bytes, ...]) -> Deferred[bytes]:
        items: Deferred[Any] = maybeDeferred(self._sessions.report, words)
        return items.addCallback(self._sessions.dialect.statistics)

    def _ofServers(self, words: tuple[bytes, ...]) -> Deferred[bytes] | bytes:
        asked = self._sessions.dialect.serverStatistics(words, self._sessions.limits.statsAddresses)
        if isinstance(asked, bytes):
            return asked

        def join(replies: Replies) -> bytes:
            names, each = zip(*replies, strict=True)
            reply: bytes = asked.join(list(names), list(each))
            return reply

        if not asked.shared:
            return self._ask(asked).addCallback(self._noteChange).addCallback(join)
        return self._sharedReplies(asked.words).addCallback(lambda got: join(got[0]))

    def _sharedReplies(self, words: tuple[bytes, ...]) -> Deferred[tuple[Replies, float]]:
        # What other processes share may be older than the change.
        isRecent = 0 <= self._sessions.reactor.seconds() - self._changed < FRESH
        return self._shared.get(words, partial(self.askHere if isRecent else self.askServers, words))

    def _noteChange(self, replies: Replies) -> Replies:
        self._changed = self._sessions.reactor.seconds()
        self._shared.forget()
        return replies

    def _everything(self) -> Deferred[tuple[bytes, float]]:
        """
        Make the reply to a request without arguments: the statistics of all servers together, and the proxy's own.
        """
        return self._sharedReplies(()).addCallback(self._withOwn)

    def _withOwn(self, got: tuple[Replies, float]) -> Any:
        replies, age = got
        dialect = self._sessions.dialect
        items = dialect.mergeStatistics([reply for _, reply in replies])
        if items is None:
            return replies[0][1], age
        own: Deferred[Any] = maybeDeferred(self._sessions.report, (b"summary",))
        return own.addCallback(
            lambda found: (dialect.statistics([*items, *((PREFIX + name, value) for name, value in found)]), age)
        )

    def _noStatistics(self, failure: Failure) -> bytes:
        text = str(failure.value)
        if not failure.check(NoStatistics, PoolError):
            _log.failure("no statistics", failure)
            text = "no statistics at the moment; the log has the reason"
        dialect = self._sessions.dialect
        reply: bytes = dialect.error("other", text) if text else dialect.unknownStatistics()
        return reply
