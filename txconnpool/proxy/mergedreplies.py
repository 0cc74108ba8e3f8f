# -*- test-case-name: tests.proxy.test_merging -*-
# Copyright txconnpool contributors. See LICENSE.
"""
The requests of one client that are sent together with those of others, and the replies in their order.
"""

from __future__ import annotations

from typing import Any, Final

from txconnpool.pool.containment import contain
from txconnpool.proxy.mergedreads import ReadGroup
from txconnpool.proxy.mergedrequest import MergedRequest
from txconnpool.proxy.replies import Entry, ForwardedReplies, QueuedRequest

#: The number of bytes of replies that may wait for earlier ones of the same client without being counted as held.
WAITING: Final = 4096


class MergedClient:
    """
    A client whose requests are sent together with the requests of other clients.

    @ivar session: the session of the client.
    @ivar complete: whether the client has all replies.
    """

    __slots__ = ("_held", "_merge", "complete", "session")

    def __init__(self, merge: Any, session: Any) -> None:
        """
        @param merge: the L{Merge<txconnpool.proxy.merging.Merge>}.
        """
        self._merge = merge
        self.session = session
        self._held = 0  # the number of bytes of values that the session counts
        self.complete = False

    def hold(self, size: int) -> None:
        """
        Count bytes of values that wait for others.
        """
        session = self.session
        self._held += size
        session.hold(size)
        if session.unread > session.factory.limits.unreadHard // 2:
            self._merge.overflows = True

    def _release(self) -> None:
        held, self._held = self._held, 0
        self.session.release(held)

    def put(self, place: int, reply: bytes) -> None:
        """
        Take the reply to a request.

        @param place: the number of the request.
        """
        raise NotImplementedError

    def _write(self, reply: bytes, count: int, last: bool) -> None:
        """
        Write so many replies.

        @param last: whether the client has all replies now.
        """
        if last:
            self.complete = True
            if self._held:
                self._release()
            self._merge.completed()
        session = self.session
        if not session.gone:
            try:
                session.answerMerged(reply, count, last)
            except Exception:
                contain(session)

    def end(self) -> None:
        """
        Break the reference cycles.
        """
        raise NotImplementedError

    def sendApart(self) -> None:
        """
        Let the session send the requests alone.
        """
        raise NotImplementedError

    def takeApart(self) -> None:
        """
        Let the requests without a reply go on as if the session had sent them alone.
        """
        raise NotImplementedError


class MergedReply(MergedClient):
    """
    A client with one request, which is for several keys.
    """

    __slots__ = ("_at", "_count", "_group")

    def __init__(self, merge: Any, session: Any, group: ReadGroup, request: bytes, count: int) -> None:
        """
        @param group: the group of the request.
        @param count: the number of replies to it.
        """
        super().__init__(merge, session)
        self._group: ReadGroup | None = group
        self._at = group.add(self, 0, request)
        self._count = count

    def put(self, place: int, reply: bytes) -> None:
        """
        Write the reply.
        """
        self._write(reply, self._count, True)

    def end(self) -> None:
        """
        Break the reference cycles.
        """
        self._group = None

    def sendApart(self) -> None:
        """
        Let the session send the request alone.
        """
        assert self._group is not None
        self.session.sendApart([self._group.entry(self._at, self.session)])

    def takeApart(self) -> None:
        """
        Let the request go on as if the session had sent it alone.
        """
        assert self._group is not None
        if self._held:
            self._release()
        lanes: dict[Any, Any] = {}
        entry = self._group.takeOut(self._at, self.session, lanes)
        self.complete = True
        self.session.takeApart([entry], len(entry.divided), lanes)


class MergedReplies(MergedClient):
    """
    A client with several requests, which gets its replies in their order.
    """

    __slots__ = ("_counts", "_level", "_next", "_replies", "_requests", "_waiting")

    def __init__(self, merge: Any, session: Any) -> None:
        super().__init__(merge, session)
        self._level = -1  # that of the last request
        self._requests: list[tuple[ReadGroup, int] | OtherRequest] = []  # a group, and the number of a request there
        self._counts: list[int] = []  # the number of replies to each request
        self._replies: list[bytes | None] = []
        self._next = 0  # the number of the request whose reply is written next
        self._waiting = 0  # the number of bytes of later replies

    # -- Requests

    def addReads(self, command: Any, request: bytes, count: int, merged: bool) -> None:
        """
        Add a request for several keys.

        @param command: the command, which C{merges}.
        @param count: the number of replies to the request.
        @param merged: whether it was merged from requests for one key each.
        """
        self._level += 1
        group = self._merge.level(self._level).group(command, merged)
        self._add((group, group.add(self, len(self._replies), request)), count, request)

    def addOther(self, command: Any, request: bytes, key: bytes | None) -> None:
        """
        Add another request.

        @param key: the key; C{None}: any server may get the request.
        """
        self._level = max(self._level, 0)
        other = OtherRequest(self._merge, self, len(self._replies), command, request, key)
        self._merge.level(self._level).others.append(other)
        self._add(other, 1, request)

    def _add(self, request: Any, count: int, data: bytes) -> None:
        if not self._requests:
            self._merge.clients.append(self)
        self._requests.append(request)
        self._counts.append(count)
        self._replies.append(None)
        self._merge.size += len(data)

    # -- Replies

    def put(self, place: int, reply: bytes) -> None:
        """
        Write the reply to a request, and those after it that have waited for it.

        @param place: the number of the request.
        """
        replies = self._replies
        if place != self._next:
            replies[place] = reply
            self._waiting += len(reply)
            if self._waiting > WAITING:
                self._merge.overflows = True
            return
        end, count = place + 1, self._counts[place]
        while end < len(replies) and (following := replies[end]) is not None:
            self._waiting -= len(following)
            reply += following
            count += self._counts[end]
            end += 1
        self._next = end
        self._write(reply, count, end == len(replies))

    def end(self) -> None:
        """
        Break the reference cycles.
        """
        self._requests = []

    # -- What is not usual

    def sendApart(self) -> None:
        """
        Let the session send the requests alone.
        """
        session = self.session
        entries: list[Entry] = []
        for each in self._requests:
            if isinstance(each, OtherRequest):
                entries.append(QueuedRequest(session, each.command, 1, each.request))
            else:
                entries.append(each[0].entry(each[1], session))
        session.sendApart(entries)

    def takeApart(self) -> None:
        """
        Let the requests without a reply go on as if the session had sent them alone.
        """
        session, start = self.session, self._next
        if self._held:
            self._release()
        entries: list[Any] = []
        lanes: dict[Any, Any] = {}
        inFlight = 0
        for each, reply in zip(self._requests[start:], self._replies[start:], strict=True):
            if reply is not None:
                entry = Entry(session)
                entry.take(reply)
            elif isinstance(each, OtherRequest):
                entry = ForwardedReplies(session, 1)
                each.replace(entry)
                lanes[each.pool] = each.connection
                inFlight += 1
            else:
                entry = each[0].takeOut(each[1], session, lanes)
                inFlight += len(entry.divided)
            entries.append(entry)
        self.complete = True
        session.takeApart(entries, inFlight, lanes)


class OtherRequest(MergedRequest):
    """
    A request that is sent as it is, and the reply.

    @ivar command: its command.
    """

    __slots__ = ("_key", "_owner", "_place", "command")

    def __init__(
        self, merge: Any, owner: MergedReplies, place: int, command: Any, request: bytes, key: bytes | None
    ) -> None:
        super().__init__(merge, None, request)
        self._owner = owner
        self._place = place
        self._key = key
        self.command = command

    def choose(self, router: Any, needed: dict[Any, int]) -> None:
        """
        Choose the pool.

        @param needed: the number of requests for each pool, which is increased.

        @raise PoolError: there is none at the moment.
        """
        self.pool = pool = router.anyOf() if self._key is None else router.choose(self._key)
        needed[pool] = needed.get(pool, 0) + 1

    def replied(self, data: bytes, done: int) -> None:
        """
        Take bytes of the reply.
        """
        if done and self._sink is None:
            self._owner.put(self._place, data)
            self.merge.settle()
        else:
            self._apart.replied(data, done)
