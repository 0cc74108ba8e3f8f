# -*- test-case-name: tests.wire.test_topics -*-
# Copyright txconnpool contributors. See LICENSE.
"""
What the clients that share one connection get from its server without asking for each frame: the messages of channels,
for example. All that a server sends about one of them is a I{topic}.

The server is asked for a topic when the first client wants it, and asked to end it when no client wants it any more.
All of this is decided here, without I/O.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any, NamedTuple, Protocol


class Topic(NamedTuple):
    """
    What a server sends frames about.

    @ivar kind: the kind, for example that of patterns. One request to a server is about topics of one kind.
    @ivar name: the name, for example that of a channel.
    """

    kind: str
    name: bytes


class ITopicRequest(Protocol):
    """
    A request of a client to get the frames of topics, or to get them no more.
    """

    @property
    def flavour(self) -> Any:
        """
        The flavour of the connections on which these frames arrive.
        """

    @property
    def adds(self) -> bool:
        """
        Whether the client wants the frames.
        """

    @property
    def topics(self) -> Sequence[Topic]:
        """
        The topics.
        """

    def confirmed(self) -> bytes:
        """
        Called when the servers have done what the request asks for.

        @return: the reply for the client.
        """

    def refused(self, reply: bytes) -> bytes:
        """
        Called when they have not, and nothing has changed for the client.

        @param reply: the error of a server, or of the proxy.

        @return: the reply for the client.
        """


def _kindOf(topic: Topic) -> Hashable:
    return topic.kind


def _nothing(frame: bytes) -> None:
    return None


class Ask:
    """
    A request of a client, until servers have confirmed what it needs of them.

    @ivar client: the client.
    @ivar request: the L{ITopicRequest}.
    @ivar shares: the topics that it needs of each server, by objects of the caller that have a C{hub}.
    @ivar steps: the steps that are not confirmed yet. When there are none, the request is complete.
    @ivar error: the error because of which it has failed; empty: it has not.
    """

    __slots__ = ("client", "error", "request", "shares", "steps")

    def __init__(self, client: Any, request: ITopicRequest) -> None:
        self.client = client
        self.request = request
        self.shares: dict[Any, list[Topic]] = {}
        self.steps: set[_Step] = set()
        self.error = b""

    @property
    def over(self) -> bool:
        """
        Whether it is complete, or has failed.
        """
        return not self.steps or bool(self.error)


class _Step:
    """
    A request to the server.

    @ivar topics: its topics.
    @ivar owner: the L{Ask} for which it was sent, which gets the error if it fails; C{None}: nobody does.
    @ivar asks: those that wait for it.
    """

    __slots__ = ("adds", "asks", "owner", "topics")

    def __init__(self, adds: bool, topics: list[Topic], owner: Ask | None) -> None:
        self.adds = adds
        self.topics = topics
        self.owner = owner
        self.asks: dict[Ask, None] = {}
        if owner is not None:
            self.wait(owner)

    def wait(self, ask: Ask) -> None:
        self.asks[ask] = None
        ask.steps.add(self)


class _Followers:
    """
    Those who want one topic.

    @ivar clients: the clients that get its frames, the first one first.
    @ivar asks: the requests of clients that will get them when the whole request is complete.
    @ivar step: the step that asks the server for it, until this is confirmed.
    """

    __slots__ = ("asks", "clients", "step")

    def __init__(self) -> None:
        self.clients: dict[Any, None] = {}
        self.asks: dict[Ask, None] = {}
        self.step: _Step | None = None

    @property
    def unused(self) -> bool:
        return not (self.clients or self.asks)


class Hub:
    """
    The topics of one connection, and the clients that want them.

    @ivar outgoing: for each step that is still to be sent, whether it asks for topics, and which these are.
    """

    def __init__(
        self,
        isError: Callable[[bytes], bool],
        topicOf: Callable[[bytes], Topic | None],
        groupOf: Callable[[Topic], Hashable] = _kindOf,
        endedOf: Callable[[bytes], Topic | None] = _nothing,
    ) -> None:
        """
        @param isError: returns whether a reply says that a step was not done.
        @param topicOf: returns the topic of a frame; C{None} if it has none.
        @param groupOf: returns the same for topics that one request may end.
        @param endedOf: returns the topic of which a frame says that the server sends no more, because another one does;
            C{None} if it says nothing like that.
        """
        self._isError = isError
        self._topicOf = topicOf
        self._groupOf = groupOf
        self._endedOf = endedOf
        self._topics: dict[Topic, _Followers] = {}
        self._steps: deque[_Step] = deque()
        self.outgoing: list[tuple[bool, list[Topic]]] = []

    def __len__(self) -> int:
        """
        @return: the number of topics.
        """
        return len(self._topics)

    @property
    def waits(self) -> bool:
        """
        Whether a step is not confirmed.
        """
        return bool(self._steps)

    @property
    def unused(self) -> bool:
        """
        Whether no client wants a topic, or waits for a step.
        """
        return not any(step.asks for step in self._steps) and all(each.unused for each in self._topics.values())

    # -- What clients want

    def join(self, ask: Ask, topics: Iterable[Topic]) -> None:
        """
        A client wants topics. It gets their frames after L{settle}.
        """
        fresh = []
        for topic in topics:
            followers = self._topics.get(topic)
            if followers is None:
                followers = self._topics[topic] = _Followers()
                fresh.append(topic)
            followers.asks[ask] = None
            if followers.step is not None:
                followers.step.wait(ask)
        self._begin(ask, fresh)

    def _begin(self, ask: Ask, topics: list[Topic]) -> None:
        """
        Ask the server for topics.
        """
        if topics:
            step = self._send(True, topics, ask)
            for topic in topics:
                self._topics[topic].step = step

    def settle(self, ask: Ask, topics: Iterable[Topic]) -> None:
        """
        The whole request is complete: the client gets the frames of its topics from now on.
        """
        for topic in topics:
            followers = self._topics[topic]
            del followers.asks[ask]
            followers.clients[ask.client] = None

    def cancel(self, ask: Ask, topics: Iterable[Topic]) -> None:
        """
        The request has failed, or its client is gone.
        """
        for step in ask.steps:
            step.asks.pop(ask, None)
        for topic in topics:
            followers = self._topics.get(topic)
            if followers is not None:
                followers.asks.pop(ask, None)
        self._drop(topics, None)

    def leave(self, client: Any, topics: Iterable[Topic], ask: Ask | None = None) -> None:
        """
        A client wants topics no more.

        @param ask: its request, which waits until the server sends nothing more about them; C{None}: the client is
            gone.
        """
        for topic in topics:
            followers = self._topics.get(topic)
            if followers is not None:
                followers.clients.pop(client, None)
        self._drop(topics, ask)

    def _drop(self, topics: Iterable[Topic], ask: Ask | None) -> None:
        """
        Ask the server to end topics that no client wants. An unconfirmed topic is checked when it is confirmed.
        """
        dropped: dict[Hashable, list[Topic]] = {}
        for topic in topics:
            followers = self._topics.get(topic)
            if followers is not None and followers.unused and followers.step is None:
                del self._topics[topic]
                dropped.setdefault(self._groupOf(topic), []).append(topic)
        for its in dropped.values():
            self._send(False, its, ask)

    def _send(self, adds: bool, topics: list[Topic], ask: Ask | None) -> _Step:
        step = _Step(adds, topics, ask)
        self._steps.append(step)
        self.outgoing.append((adds, topics))
        return step

    # -- What the server sends

    def replied(self, reply: bytes) -> list[Ask]:
        """
        The server has replied to the oldest step.

        @return: the requests that are over because of it.
        """
        step = self._steps.popleft()
        waiting = list(step.asks)
        for ask in waiting:
            ask.steps.discard(step)
        if step.adds:
            for topic in step.topics:
                self._topics[topic].step = None
            if self._isError(reply):
                self._fail(step, reply)
            self._drop(step.topics, None)
        return [ask for ask in waiting if ask.over]

    def _fail(self, step: _Step, reply: bytes) -> None:
        """
        The server does not send all topics of a step: only the client that wants them all gets the error. Others may
        want fewer of them: these are asked for again.
        """
        owner = step.owner
        if owner is not None:
            owner.error = reply
        others = [ask for ask in step.asks if ask is not owner]
        for topic in step.topics:
            followers = self._topics[topic]
            if owner is not None:
                followers.asks.pop(owner, None)
            if followers.unused:
                del self._topics[topic]
        for ask in others:
            wanted = [topic for topic in step.topics if topic in self._topics and ask in self._topics[topic].asks]
            for topic in wanted:
                begun = self._topics[topic].step
                if begun is not None:
                    begun.wait(ask)
            self._begin(ask, [topic for topic in wanted if self._topics[topic].step is None])

    def clientsOf(self, frame: bytes) -> list[Any]:
        """
        @return: the clients that get a frame.
        """
        topic = self._topicOf(frame)
        followers = None if topic is None else self._topics.get(topic)
        return [] if followers is None else list(followers.clients)

    def redirected(self) -> tuple[bool, list[Ask]]:
        """
        The server has not done the oldest step, because another one has its topics.

        @return: whether the step asks for topics; and the requests that wait for it, which are to be made of the other
            server. If it ends topics, which this server does not send then, these requests are over.
        """
        step = self._steps.popleft()
        asks = dict(step.asks)
        for ask in asks:
            ask.steps.discard(step)
        if not step.adds:
            return False, [ask for ask in asks if ask.over]
        for topic in step.topics:
            asks.update(self._topics.pop(topic).asks)
        return True, list(asks)

    def ended(self, frame: bytes) -> tuple[Topic, list[Any], list[Ask]] | None:
        """
        @return: the topic that this server sends no more, because another one does, as a frame says; the clients that
            want it; and the requests of those that will want it. C{None} if the frame says nothing like that.
        """
        topic = self._endedOf(frame)
        followers = None if topic is None else self._topics.get(topic)
        if topic is None or followers is None or followers.step is not None:
            return None
        del self._topics[topic]
        return topic, list(followers.clients), list(followers.asks)

    def lose(self, error: bytes) -> tuple[list[Ask], list[Any]]:
        """
        The connection is lost.

        @param error: the reply to requests that are not complete.

        @return: these requests, and the clients that get no frames any more.
        """
        asks: dict[Ask, None] = {}
        clients: dict[Any, None] = {}
        for step in self._steps:
            asks.update(step.asks)
        for followers in self._topics.values():
            asks.update(followers.asks)
            clients.update(followers.clients)
        for ask in asks:
            ask.error = error
        self._topics.clear()
        self._steps.clear()
        self.outgoing.clear()
        return list(asks), list(clients)
