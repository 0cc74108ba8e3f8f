# -*- test-case-name: tests.proxy.test_merging -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Requests of several clients that are sent together: reads of single keys become few requests for many keys, which cost
the servers, the network and the proxy less.

All requests that come from clients in one turn of the reactor are sent at its end, on one connection to each server. A
client sends nothing more until it has the replies, and gets them in the order of its requests. If anything unusual
happens, such as an error, a lost connection or a large value, all requests go on as if they had been sent alone, see
L{Merge.takeApart}.

The requests of one client are executed in their order on each server, and no client sees an older value after a newer
one. Therefore there are levels: a client has only one request for reads in each level, and its other requests come
after it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from txconnpool.errors import PoolError
from txconnpool.pool.containment import contain
from txconnpool.proxy.mergedreads import ReadGroup
from txconnpool.proxy.mergedreplies import MergedClient, MergedReply, OtherRequest

#: Requests are sent together until they have this number of bytes. A server gets a part of their keys.
TOGETHER: Final = 16384

#: A longer request has so many keys that it is sent alone.
LONG: Final = 4096

#: If a reply of a server to reads has more bytes, the next L{APART} clients send their requests alone: the values are
#: so large that sending requests together saves little, and lets clients wait for each other.
LARGE: Final = 1 << 17
APART: Final = 64


class Merging:
    """
    The requests of all clients of a pool that are sent together at the end of this turn of the reactor.
    """

    def __init__(self, atEnd: Callable[[Callable[[], object]], bool]) -> None:
        """
        @param atEnd: see L{atEndOfTurn<txconnpool.net.turn.atEndOfTurn>}.
        """
        self._atEnd = atEnd
        self._open: dict[Any, Merge] = {}
        self._apart = 0  # how many clients send their requests alone

    def begin(self, router: Any) -> Merge | None:
        """
        Let a client without requests in flight add its requests.

        @param router: the router of the client.

        @return: that to which it adds them; C{None} if they must be sent alone.
        """
        if self._apart:
            self._apart -= 1
            return None
        merge = self._open.get(router)
        if merge is None or merge.size > TOGETHER:
            merge = Merge(self, router)
            if not self._atEnd(merge.send):
                return None
            self._open[router] = merge
        return merge

    def ended(self, merge: Merge) -> None:
        """
        A merge gets no further requests.
        """
        if self._open.get(merge.router) is merge:
            del self._open[merge.router]

    def replied(self, size: int) -> None:
        """
        A server has sent so many bytes of a reply to reads.
        """
        if size > LARGE:
            self._apart = APART


class Level:
    """
    Requests that are sent before those of the next level: first the reads, then the others.

    @ivar groups: the reads, by their command and whether they were merged from requests for one key each.
    @ivar others: the other requests.
    """

    __slots__ = ("_merge", "groups", "others")

    def __init__(self, merge: Merge) -> None:
        self._merge = merge
        self.groups: dict[tuple[Any, bool], ReadGroup] = {}
        self.others: list[OtherRequest] = []

    def group(self, command: Any, merged: bool) -> ReadGroup:
        """
        @return: the group of such reads.
        """
        group = self.groups.get((command, merged))
        if group is None:
            group = self.groups[command, merged] = ReadGroup(self._merge, command, merged)
        return group


class Merge:
    """
    Requests of several clients that are sent together.

    @ivar merging: the L{Merging}.
    @ivar clients: the clients with requests, each with the replies that it will get.
    @ivar router: the router of all of them.
    @ivar size: the number of bytes of the requests.
    @ivar overflows: whether too much is held for one of the clients.
    """

    __slots__ = ("_left", "_levels", "clients", "merging", "overflows", "router", "size")

    def __init__(self, merging: Merging, router: Any) -> None:
        self.merging = merging
        self._levels = [Level(self)]
        self._left = 0  # the number of clients without all replies
        self.router = router
        self.clients: list[MergedClient] = []
        self.size = 0
        self.overflows = False

    def level(self, number: int) -> Level:
        """
        @return: a level, which is the next one or exists already.
        """
        if number == len(self._levels):
            self._levels.append(Level(self))
        return self._levels[number]

    def add(self, session: Any, command: Any, request: bytes, count: int, merged: bool) -> None:
        """
        Add the only request of a client, which is for several keys.

        @param command: the command, which C{merges}.
        @param count: the number of replies to the request.
        @param merged: whether it was merged from requests for one key each.
        """
        client = MergedReply(self, session, self._levels[0].group(command, merged), request, count)
        self.clients.append(client)
        self.size += len(request)

    @property
    def _groups(self) -> list[ReadGroup]:
        return [group for level in self._levels for group in level.groups.values()]

    @property
    def _others(self) -> list[OtherRequest]:
        return [other for level in self._levels for other in level.others]

    # -- Sending

    def send(self) -> None:
        """
        Send the requests.
        """
        self.merging.ended(self)
        try:
            self._left = len(self.clients)
            connections = self._connect()
            if connections is None:
                self._sendApart()
                return
            for level in self._levels:
                for group in level.groups.values():
                    group.send(connections)
                for other in level.others:
                    other.send(connections, other.command)
        except Exception:
            contain(self)

    def _connect(self) -> dict[Any, Any] | None:
        """
        @return: a connection to each server that gets requests, by its pool; C{None} if one has none with so much
            capacity now, or another server stands in for it.
        """
        needed: dict[Any, int] = {}
        try:
            for group in self._groups:
                group.divide(self.router, needed)
            for other in self._others:
                other.choose(self.router, needed)
        except PoolError:
            return None
        router, records = self.router, {}
        for pool, count in needed.items():
            usual = pool is not None and (router.standIn is None or pool in router.pools)
            record = pool.pick() if usual else None
            if record is not None:
                records[pool] = record
            if record is None or record.depth - record.load < count:
                for each, picked in records.items():
                    each.putBack(picked)
                return None
        return {pool: record.connection for pool, record in records.items()}

    def _sendApart(self) -> None:
        for client in self.clients:
            if not client.session.gone:
                try:
                    client.sendApart()
                except Exception:
                    contain(client.session)
        self._end()

    def completed(self) -> None:
        """
        A client has all replies.
        """
        self._left -= 1
        if not self._left:
            self._end()

    def _end(self) -> None:
        """
        Break the reference cycles.
        """
        for group in self._groups:
            group.end()
        for client in self.clients:
            client.end()
        self.clients = []
        self._levels = []

    # -- What is not usual

    def settle(self) -> None:
        """
        Called after bytes were counted: take the requests apart if they are too many for one of the clients.
        """
        if self.overflows:
            self.overflows = False
            self.takeApart()

    def takeApart(self) -> None:
        """
        Let each request without a reply go on as if it had been sent alone.
        """
        for client in self.clients:
            if not client.complete:
                client.takeApart()
        for group in self._groups:
            group.takeApart()
        self._end()

    def abort(self, error: PoolError) -> None:
        """
        Close the clients, because of an unexpected exception.
        """
        for client in self.clients:
            if not client.complete:
                client.session.abort(error)
