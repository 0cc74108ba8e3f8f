# -*- test-case-name: tests.proxy.test_merging -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Reads of several clients that are divided among the servers as if they were one request, and the replies to them.
"""

from __future__ import annotations

from typing import Any

from txconnpool.errors import PoolError
from txconnpool.proxy.mergedrequest import MergedRequest
from txconnpool.proxy.parts import Part, PartGroup
from txconnpool.proxy.scatter import ALL, COUNTED, ScatteredReply
from txconnpool.wire.joining import Values, listOf


class ReadGroup:
    """
    Requests of several clients for keys. Each server gets one request for its keys. When a server has replied, each
    request all of whose keys have their values is answered.

    @ivar merge: the L{Merge<txconnpool.proxy.merging.Merge>}.
    @ivar command: the command of all requests.
    """

    __slots__ = (
        "_left", "_merged", "_orders", "_owners", "_requests", "_shares", "_taken", "_values", "command", "merge",
    )  # fmt: skip

    def __init__(self, merge: Any, command: Any, merged: bool) -> None:
        """
        @param merged: whether each request was merged from requests for one key each.
        """
        self.merge = merge
        self.command = command
        self._merged = merged
        self._requests: list[bytes] = []
        # For each request its owner, and the place of its reply among the owner's; C{None} when the owner has that.
        self._owners: list[tuple[Any, int] | None] = []
        self._orders: list[list[int]] = []  # for each request the number of the share of each key
        self._shares: list[ReadShare] = []
        self._left = 0  # the number of shares without a reply
        self._values: list[Values | None] = []  # the values of each share, C{None} until they have arrived
        # The parts of requests that go on as if they had been sent alone, by the numbers of their shares.
        self._taken: dict[int, dict[int, Part]] = {}

    def add(self, owner: Any, place: int, request: bytes) -> int:
        """
        Add a request.

        @param owner: gets the reply with C{owner.put(place, reply)}.

        @return: the number of the request.
        """
        self._owners.append((owner, place))
        self._requests.append(request)
        return len(self._requests) - 1

    # -- Sending

    def divide(self, router: Any, needed: dict[Any, int]) -> None:
        """
        Divide the keys among the servers.

        @param needed: the number of requests for each pool, which is increased.
        """
        self._orders, shares = router.divide(self.command, self._requests, ALL)
        self._values = [None] * len(shares)
        self._shares = [ReadShare(self, number, pool, own) for number, (pool, own, _) in enumerate(shares)]
        self._left = len(shares)
        for pool, _, _ in shares:
            needed[pool] = needed.get(pool, 0) + 1

    def send(self, connections: dict[Any, Any]) -> None:
        """
        Send the requests for the keys of each server.

        @param connections: the connection of each pool.
        """
        for share in self._shares:
            share.send(connections, self.command.part)

    # -- Replies

    def arrived(self, number: int, values: Values, counted: bool = False) -> None:
        """
        Answer the requests all of whose values are there.

        @param number: the number of a share.
        @param values: those of its keys.
        @param counted: whether their bytes are counted already.
        """
        self._values[number] = values
        replies, size = self.command.gatherEach(self._orders, self._values, number, self._merged)
        owners = self._owners
        for at, reply in replies:
            owner, owners[at] = owners[at], None
            assert owner is not None
            owner[0].put(owner[1], reply)
        if self.isLarge(size) and not counted:
            self.hold(size)
        self._left -= 1
        if not self._left:
            self.end()
        self.merge.settle()

    def end(self) -> None:
        """
        Break the reference cycles.
        """
        self._shares = []

    def isLarge(self, size: int) -> bool:
        """
        @return: whether so many bytes of values must be counted for the clients.
        """
        return size > COUNTED * len(self._owners)

    def hold(self, size: int) -> None:
        """
        Count bytes of values for the clients that wait. It is not known how many of them are for which of these.
        """
        waiting = [owner[0] for owner in self._owners if owner is not None and not owner[0].session.gone]
        if not waiting:
            self.merge.overflows = True  # nobody needs them
        for each in waiting:
            each.hold(size // len(waiting))

    # -- What is not usual

    def entry(self, at: int, session: Any) -> ScatteredReply:
        """
        @param at: the number of a request.

        @return: the queue entry for its reply, which sends it.
        """
        entry: ScatteredReply = session.scattered(session, self.command, (self._requests[at],), self._merged)
        return entry

    def takeOut(self, at: int, session: Any, lanes: dict[Any, Any]) -> ScatteredReply:
        """
        Make the queue entry for the reply to a request. Its parts are in flight.

        @param at: the number of the request.
        @param lanes: the connections of the session's requests in flight, by their pools, to which those of the parts
            without a reply are added.
        """
        request, order, shares = self._requests[at], self._orders[at], self._shares
        keys: dict[int, list[bytes]] = {}
        for key, number in zip(self.command.keys(request), order, strict=True):
            keys.setdefault(number, []).append(key)
        place = {number: index for index, number in enumerate(keys)}
        parts = [(shares[each].pool, self.command.subset(request, its), len(its)) for each, its in keys.items()]
        divided = [place[number] for number in order], parts
        entry: ScatteredReply = session.scattered(session, self.command, (request,), self._merged, divided)
        self._taken[at] = dict(zip(keys, entry.divided, strict=True))
        lanes.update((shares[each].pool, shares[each].connection) for each in keys if self._values[each] is None)
        return entry

    def takeApart(self) -> None:
        """
        Give the values and the replies of the servers to the parts of the requests that were taken out.
        """
        if not self._left:
            return
        used = [0] * len(self._shares)
        listed = [None if values is None else listOf(values) for values in self._values]
        groups: list[list[Part]] = [[] for _ in self._shares]
        for at, order in enumerate(self._orders):
            parts = self._taken.get(at)
            if parts is None:
                for number in order:
                    used[number] += 1
                continue
            for number, part in parts.items():
                values, start = listed[number], used[number]
                used[number] += part.count
                if values is None:
                    groups[number].append(part)
                else:
                    part.whole.arrived(part, values[start : used[number]])
        self._taken = {}
        for share, its in zip(self._shares, groups, strict=True):
            if its:
                share.replace(its[0] if len(its) == 1 else PartGroup(its, share.connection))


class ReadShare(MergedRequest):
    """
    The request that a server gets for its keys of a L{ReadGroup}, and the reply.
    """

    __slots__ = ("_group", "_isCounted", "_number", "_pieces", "_size")

    def __init__(self, group: ReadGroup, number: int, pool: Any, request: bytes) -> None:
        super().__init__(group.merge, pool, request)
        self._group = group
        self._number = number
        self._pieces: list[bytes] = []  # of the reply
        self._size = 0  # the number of their bytes
        self._isCounted = False  # whether they are counted for the clients

    def replied(self, data: Any, done: int) -> None:
        """
        Take bytes of the reply, or what the reader has found in the whole reply.
        """
        if self._sink is None:
            if data.__class__ is not bytes:
                self._group.arrived(self._number, data)
                return
            if not done:
                self._keep(data)
                return
            if self._isRead(data):
                return
        self._apart.replied(data, done)

    def _keep(self, data: bytes) -> None:
        """
        Keep bytes of the reply until all of it is there.
        """
        group, size = self._group, len(data)
        self._pieces.append(data)
        self._size += size
        if group.isLarge(self._size):
            group.hold(size if self._isCounted else self._size)
            self._isCounted = True
            self.merge.merging.replied(self._size)
            self.merge.settle()

    def _isRead(self, data: bytes) -> bool:
        """
        Take the last bytes of the reply.

        @return: whether it has values; if not, it is an error.
        """
        command = self._group.command
        values = command.values(command.keys(self.request), b"".join([*self._pieces, data]))
        if values is None:
            return False
        self._pieces = []
        self._group.arrived(self._number, values, self._isCounted)
        return True

    def replace(self, sink: Any) -> None:
        """
        Let something else get the reply, with the bytes of it that are there.
        """
        super().replace(sink)
        pieces, self._pieces = self._pieces, []
        for piece in pieces:
            sink.replied(piece, 0)

    def requestsLost(self, requests: list[Any], begun: bool, error: PoolError) -> None:
        """
        The connection was lost, and with it the rest of the reply.
        """
        self._pieces = []
        super().requestsLost(requests, begun, error)
