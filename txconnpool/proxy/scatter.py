# -*- test-case-name: tests.proxy.test_scatter -*-
# Copyright txconnpool contributors. See LICENSE.
"""
The reply to a request for several keys that are on several servers.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any

from txconnpool.errors import PoolError
from txconnpool.pool.connection import isRetryable
from txconnpool.proxy.compound import widened
from txconnpool.proxy.parts import Part
from txconnpool.proxy.replies import Entry
from txconnpool.routing.shards import replaceShare, unserved

#: The number of bytes of a reply from which on it is counted while those of other servers are due. So small ones cost
#: less, and a client can have only as many of them as it may have requests in flight.
COUNTED = 1024

#: Which part of the bytes that may be held for a client the values of one request should have, after the values of its
#: keys were too large.
REPEATED = 8

#: The maximum number of keys of a part of a single request: all of them.
ALL = sys.maxsize

#: The maximum number of requests in the first round of one for very many keys. A get of 100 keys comes as two requests,
#: and nothing is known about the size of their values, which are held until all servers have replied.
FIRST = 2


class ScatteredReply(Entry):
    """
    The reply to a request for several keys, or to several requests for one key each that were merged. Each server gets
    one request for its keys. When all have replied, the values are written in the order of the keys.

    A request for very many keys comes as several. They are divided in rounds: the first round is L{FIRST} of them if
    the session may have as many requests in flight as these have keys, which it may not if its last replies were large.
    The next rounds are more while the replies are small, as for L{SplitReply<txconnpool.proxy.compound.SplitReply>}.

    If the values turn out to be so large that too much is held for the client, the replies that are not complete yet
    are dropped. Their keys are requested once more, few at a time, when the client has read those before them.

    @ivar command: the command of all requests.
    @ivar parts: the parts that are to be sent.
    @cvar kind: the class of the parts.
    """

    kind = Part

    __slots__ = (
        "_ahead", "_begun", "_collected", "_divided", "_dropped", "_hasFailed", "_inFlight", "_known", "_merged",
        "_order", "_repeats", "_requests", "_round", "_text", "command", "parts",
    )  # fmt: skip

    def __init__(
        self, session: Any, command: Any, requests: Iterable[bytes], merged: bool = False, divided: Any = None
    ) -> None:
        """
        @param requests: the requests.
        @param merged: whether the only request was merged from several requests for one key each.
        @param divided: if the parts of the only request are in flight already: the number of the part of each key; and
            the parts, each with its pool, its request, and the number of its keys.
        """
        super().__init__(session, 1)
        self.command = command
        self._requests = list(requests)
        self._merged = merged
        self._begun = False  # whether a part of the reply was passed on
        self._ahead = 0  # how many requests may be in the next round; 0: see FIRST
        self._round = 1  # how many are in this one
        self._text = b""  # a request for their keys
        self._order: list[int] = []  # the number of the part of each of these keys
        self._divided: list[Part] = []  # these parts
        self._collected = 0  # the number of bytes of their replies, as far as they count as held
        self._hasFailed = False  # whether one of them has
        self._dropped: list[Part] | None = None  # the parts of this round whose replies were dropped
        self._repeats = False  # whether any were
        self.parts: list[Part] = []
        self._inFlight = 0
        self._known = 0  # how many of the parts the session counts as in flight
        if divided is None:
            self._divide()
            if not self.parts:
                self._finish()
        else:
            self._text = self._requests[0]
            self._order, self._divided = self._partsOf(*divided)
            self._inFlight = self._known = len(self._divided)

    def _divide(self) -> None:
        """
        Divide the requests of the next round among the servers. No server gets more keys at once than a request has.
        """
        requests, command = self._requests, self.command
        text = requests[0]
        most = ALL
        self._round = 1
        if len(requests) > 1:
            most = len(command.keys(text))
            ahead = self._ahead or min(FIRST, self.session.room // most)
            self._round = max(1, min(ahead, len(requests)))
            text = command.united(requests[: self._round])
        self._hasFailed = False
        self._text = text
        self._order, self._divided = self._divideRequest(text, most)
        self._queue(self._divided)

    def _divideRequest(self, request: bytes, most: int) -> tuple[list[int], list[Part]]:
        """
        Divide a request among the servers.

        @param most: the maximum number of keys of a part.

        @return: the number of the part of each key, and the parts.
        """
        (order,), shares = self.session.router.divide(self.command, [request], most)
        return self._partsOf(order, shares)

    def _partsOf(self, order: list[int], shares: Iterable[tuple[Any, bytes, int]]) -> tuple[list[int], list[Part]]:
        kind = self.kind
        return order, [kind(self, pool, own, count) for pool, own, count in shares]

    def _queue(self, parts: list[Part]) -> None:
        """
        Let parts be sent. Those for which there is no server fail.
        """
        router = self.session.router
        if router.standIn is not None:
            for part in parts:
                if part.pool is not None and part.pool not in router.pools:
                    part.request = router.standIn.take(self.command, part.request)
        for part in parts:
            if part.pool is None:
                self._fail(part, self._unserved())
                parts = [each for each in parts if each.pool is not None]
        self.parts[:0] = parts

    def _unserved(self) -> PoolError:
        """
        @return: the error for keys that no pool has.
        """
        return unserved(self.session.router.pools)

    @property
    def isWhole(self) -> bool:
        """
        Whether one server has all keys of the request.
        """
        return len(self._divided) == 1 and self._divided[0].pool is not None

    # -- Sending

    @property
    def unsent(self) -> bool:
        """
        Whether parts are left to be sent, so that later requests wait.
        """
        return bool(self.parts or len(self._requests) > self._round)

    @property
    def ready(self) -> bool:
        """
        Whether the next part may be sent now.
        """
        return bool(self.parts) and not ((self._begun or self._repeats) and self.session.isCrowded(self.first))

    @property
    def size(self) -> int:
        """
        The number of bytes of the requests that are not answered.
        """
        return sum(map(len, self._requests)) if len(self._requests) > 1 else 0

    @property
    def request(self) -> bytes:
        """
        The request to send next.
        """
        return self.parts[0].request if self.parts else self._requests[0]

    @property
    def key(self) -> bytes | None:
        """
        The first key of the next part, by which it may get another server; C{None} if it may not.
        """
        return self.parts[0].key

    def sent(self) -> None:
        """
        The next part was sent.
        """
        part = self.parts.pop(0)
        self._inFlight += 1
        self._known += 1
        if part.retried:
            self.session.retried(1)

    # -- Replies

    @property
    def divided(self) -> list[Part]:
        """
        The parts of this round.
        """
        return self._divided

    def arrived(self, part: Part, values: list[bytes]) -> None:
        """
        A part had its whole reply before this entry was made.
        """
        part.values = values
        self._inFlight -= 1
        self._collect(part)
        self.session.settle(self._counted())

    def _collect(self, part: Part) -> None:
        """
        Count the values of a part as held, if they are large.
        """
        if (size := sum(map(len, part.values))) > COUNTED:
            self._collected += size
            self.session.hold(size)

    def answered(self, part: Part) -> None:
        """
        A part has its whole reply. As long as other parts are in flight, and nothing waits to be sent, the session need
        not know.
        """
        self._inFlight = left = self._inFlight - 1
        if self._requests:
            if left or self.parts:
                self._collect(part)
                if not self.parts:
                    return
            else:
                self._finish()
        self.session.answered(self._counted())

    def _counted(self) -> int:
        """
        @return: the number of parts that are not in flight any more, and that the session counts as such from now on.
        """
        counted, self._known = self._known - self._inFlight, self._inFlight
        return counted

    def failed(self, part: Part, reply: bytes) -> None:
        """
        Make an error the reply for the keys of a part.
        """
        self._hasFailed = True
        part.error = reply

    def overflows(self, size: int) -> bool:
        """
        @return: whether C{size} more bytes would be too much to hold. The first entry of the queue may hold more than
            the others, so that it can go on in any case.
        """
        if not (self.command.continues and self.command.idempotent) or len(self._order) == 1:
            return False
        session = self.session
        hard: int = session.factory.limits.unreadHard
        limit = 3 * hard // 4 if self.first else hard // 2
        return bool(session.unread + size > limit)

    def drop(self, part: Part) -> None:
        """
        The reply of a part is complete, and was dropped because too much is held for the client.
        """
        self._inFlight -= 1
        if self._requests:
            if self._dropped is None:
                self._dropped = []
            self._dropped.append(part)
            self._repeats = True
            if not (self._inFlight or self.parts):
                self._finish()
        self.session.answered(self._counted())

    def _requestAgain(self, dropped: list[Part], request: bytes) -> None:
        """
        Request keys once more, from the first one whose value was dropped. Requests that the client has sent after this
        one may be executed before, as when a connection was lost.

        @param request: the request that had these keys, or the last of them.
        """
        lacking = frozenset(key for part in dropped for key in part.keys)
        keys = self.command.keys(self._text)
        first = next(index for index, key in enumerate(keys) if key in lacking)
        # The size is 0 if only the first bytes of a reply that has parts of other clients too were counted.
        average = max(1.0, sum(part.size for part in dropped) / len(lacking))
        budget = self.session.factory.limits.unreadHard // REPEATED
        # Never more than half of the keys, so that this ends whatever the sizes are.
        count = max(1, min(int(budget / average), len(keys) // 2))
        rest = keys[first:]
        del self._order[first:]
        starts = range(0, len(rest), count)
        self._requests[:0] = [self.command.subset(request, rest[start : start + count]) for start in starts]

    def lost(self, part: Part, error: PoolError) -> None:
        """
        The connection of a part was lost: send it once more, or fail its keys.
        """
        self._inFlight -= 1
        self.session.settle(self._counted())
        if not self._requests:
            return
        if not part.retried and self._mayRepeat(part, error):
            self._repeat(part)
        else:
            self._fail(part, error)
            self._finish()

    def _mayRepeat(self, part: Any, error: PoolError) -> bool:
        return isRetryable(self.command, error)

    def declined(self, part: Part) -> None:
        """
        A server has not executed a part: send it once more.
        """
        self._inFlight -= 1
        self.session.settle(self._counted())
        if self._requests:
            self._repeat(part)
            self.session.answered(0)

    def _repeat(self, part: Part) -> None:
        part.retried, part.dropped, part.size = True, False, 0
        self.parts.append(part)
        self.session.collect()

    def refuse(self, error: PoolError) -> None:
        """
        The next part cannot be sent: fail its keys. If a server has declined it, the client gets the reply of that.
        """
        if self.parts:
            part = self.parts.pop(0)
            self._fail(part, error, self.command.visible(part.refusal) if part.refusal else b"")
            self._finish()

    def divideAgain(self) -> None:
        """
        Divide the keys of the next part again, because others get the keys of its server.
        """
        part = self.parts.pop(0)
        order, parts = self._divideRequest(part.request, part.count)
        number = self._divided.index(part)
        (self._order,), self._divided = replaceShare([self._order], self._divided, number, order, parts)
        for each in parts:
            each.retried, each.refusal = part.retried, part.refusal
        self._queue(parts)
        self._finish()

    def _fail(self, part: Part, error: PoolError, reply: bytes = b"") -> None:
        """
        Fail a part.

        @param reply: the reply for its keys; empty: that for C{error}.
        """
        self._hasFailed = True
        part.error = reply or self.session.errorFor(self.command, error)
        if not reply:
            if self._merged:
                self.session.countErrors(part.count, error)
            else:
                part.reason = error

    def _finish(self) -> None:
        """
        Write the reply when all parts have theirs, and go on with the next request.
        """
        while self._requests and not (self._inFlight or self.parts):
            if self._collected:
                self.session.release(self._collected)
                self._collected = 0
            if self._hasFailed and not self._merged and self.session.factory.countPartial(self.command):
                error, reason = next((part.error, part.reason) for part in self._divided if part.error is not None)
                if reason is not None:
                    self.session.countErrors(1, reason)
                self._requests.clear()
                self._divided = []
                self.conclude(error, self._begun)
                return
            request = self._requests[self._round - 1]
            del self._requests[: self._round]
            dropped, self._dropped = self._dropped, None
            if dropped:
                self._requestAgain(dropped, request)
            size = self._write() if self._order or not dropped else 0
            if self._requests:
                self._ahead = 1 if dropped else widened(self.session, self._round, size // self._round)
                self._divide()
                self.session.collect()  # while the reply was written, there was perhaps nothing to send
            else:
                self._divided = []  # breaks the reference cycles
                self.left = 0

    def _write(self) -> int:
        """
        Write the replies for the keys of the round that is complete.

        @return: the number of bytes.
        """
        gather = self.command.gather
        if self._hasFailed:
            reply = self._gatherOthers()
        else:
            reply = gather(self._order, [part.values for part in self._divided], self._merged)
        if self._requests and not self._merged:
            reply = self.command.withoutEnd(reply)
        self._begun = self._begun or bool(reply)
        self.session.batch += len(reply)
        self.take(reply)
        return len(reply)

    def _gatherOthers(self) -> bytes:
        """
        @return: the reply if some parts have failed: their keys are missing in it. If it is several replies, those for
            these keys are errors.
        """
        gather, parts = self.command.gather, self._divided
        if not self._merged:
            values = [part.values if part.error is None else [b""] * part.count for part in parts]
            reply: bytes = gather(self._order, values, False)
            return reply
        replies = [
            iter([gather([0], [[value]], True) for value in part.values]
                 if part.error is None else [part.error] * part.count)
            for part in parts
        ]  # fmt: skip
        return b"".join([next(replies[number]) for number in self._order])

    def discard(self) -> None:
        """
        Drop everything, because the client is gone.
        """
        super().discard()
        self._requests.clear()
        self._divided = []
        self.parts.clear()
        self.left = 0
