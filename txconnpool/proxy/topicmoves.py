# -*- test-case-name: tests.proxy.test_clustering -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Topics that another server of a cluster has now, because their slot has got another node: their clients get the frames
from that one.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from txconnpool.errors import PoolError
from txconnpool.proxy.broadcast import failed
from txconnpool.routing.courses import Course
from txconnpool.wire.topics import Ask, Topic
from txconnpool.wire.topology import Redirect


class Renewal:
    """
    A request of the proxy to get the frames of a topic again for a client, which gets no reply. It is an
    L{ITopicRequest<txconnpool.wire.topics.ITopicRequest>}.
    """

    adds = True

    def __init__(self, topic: Topic, flavour: Any) -> None:
        self.topics = [topic]
        self.flavour = flavour

    def confirmed(self) -> bytes:
        """
        @return: nothing.
        """
        return b""

    def refused(self, reply: bytes) -> bytes:
        """
        @return: nothing.
        """
        return b""


class _Pause:
    """
    Requests that are made again after a delay.
    """

    def __init__(self, asks: Iterable[Ask]) -> None:
        self.asks = dict.fromkeys(asks)
        self.timer: Any = None


class TopicMoves:
    """
    The requests of clients for topics that other servers have now.
    """

    def __init__(self, subscribers: Any) -> None:
        """
        @param subscribers: the L{Subscribers<txconnpool.proxy.topics.Subscribers>}.
        """
        self._subscribers = subscribers
        self._renewals: dict[Any, dict[Ask, None]] = {}  # those of each client
        self._courses: dict[Ask, Course] = {}  # what has happened to the requests that were redirected
        self._pauses: dict[Ask, _Pause] = {}

    def redirected(self, asks: list[Ask], redirect: Redirect, server: Any) -> None:
        """
        Make requests again, of the server that has their topics, or after a delay. If no server has them within the
        time of a request, they fail.

        @param asks: the requests, which wait for the same topics.
        @param redirect: what the server has replied.
        """
        self._detach(asks)
        if not asks:
            return
        sessions = self._subscribers.sessions
        now, router = sessions.reactor.seconds(), sessions.flavours.leases
        course = next((self._courses[ask] for ask in asks if ask in self._courses), None) or Course(now)
        key = redirect.command.key(redirect.request, 0)
        error, following = b"", None
        try:
            following = course.follow(router, redirect, key, server, now)
        except PoolError as reason:
            error = failed(sessions.dialect, reason)
        if following is None:
            for ask in asks:
                ask.error = error or bytes(redirect)
            self._subscribers.finish(asks)
            return
        self._courses.update(dict.fromkeys(asks, course))
        delay = following[1]
        if not delay:
            self._begin(asks)
            return
        pause = _Pause(asks)
        pause.timer = sessions.reactor.callLater(delay, self._resume, pause)
        self._pauses.update(dict.fromkeys(asks, pause))

    def ended(self, topic: Topic, flavour: Any, clients: list[Any], asks: list[Ask]) -> None:
        """
        Make requests for a topic that a server sends no more.

        @param flavour: the flavour of the connection.
        @param clients: those who get its frames.
        @param asks: the requests of those who will get them.
        """
        self._detach(asks)
        renewals = [Ask(client, Renewal(topic, flavour)) for client in clients]
        for ask in renewals:
            self._subscribers.lacks(ask.client, topic)
            self._renewals.setdefault(ask.client, {})[ask] = None
        self._begin([*renewals, *asks])

    def _detach(self, asks: Iterable[Ask]) -> None:
        for ask in asks:
            self._subscribers.cancel(ask)
            ask.shares.clear()
            ask.steps.clear()

    def _begin(self, asks: Iterable[Ask]) -> None:
        for ask in asks:
            if not ask.client.gone:  # else it was closed meanwhile
                self._subscribers.begin(ask)

    def _resume(self, pause: _Pause) -> None:
        for ask in pause.asks:
            del self._pauses[ask]
        self._begin(pause.asks)

    # -- The end of requests

    def finish(self, ask: Ask) -> bool:
        """
        A request is over.

        @return: whether it is one of the proxy itself.
        """
        self._courses.pop(ask, None)
        pause = self._pauses.pop(ask, None)
        if pause is not None:
            del pause.asks[ask]
            if not pause.asks:
                pause.timer.cancel()
        renewals = self._renewals.get(ask.client, {})
        if ask not in renewals:
            return False
        del renewals[ask]
        if not renewals:
            del self._renewals[ask.client]
        return True

    def left(self, client: Any, topics: Iterable[Topic] | None = None) -> None:
        """
        A client is gone, or wants topics no more.

        @param topics: the topics; C{None}: all.
        """
        for ask in list(self._renewals.get(client, ())):
            if topics is None or ask.request.topics[0] in topics:
                self.finish(ask)
                self._subscribers.cancel(ask)
