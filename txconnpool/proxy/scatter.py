# -*- test-case-name: tests.proxy.test_scatter -*-
# Copyright txconnpool contributors. See LICENSE.
"""
The reply to a request for several keys that are on several servers.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from itertools import islice
from typing import Any

from zope.interface import implementer

from txconnpool.errors import PoolError
from txconnpool.interfaces import IResendingSink
from txconnpool.pool.connection import isRetryable
from txconnpool.proxy.compound import widened
from txconnpool.proxy.replies import Entry
from txconnpool.routing.shards import unserved

#: The number of bytes of a reply from which on it is counted while those of other servers are due. So small ones cost
#: less, and a client can have only as many of them as it may have requests in flight.
COUNTED = 1024

#: Which part of the bytes that may be held for a client the values of one request should have, after the values of its
#: keys were too large.
REPEATED = 8

#: The maximum number of requests in the first round of one for very many keys. A get of 100 keys comes as two requests,
#: and nothing is known about the size of their values, which are held until all servers have replied.
FIRST = 2


@implementer(IResendingSink)
class Part:
    """
    A request for those of the keys that one server has, and its reply.

    @ivar pool: the pool of the server.
    @ivar request: the request.
    @ivar retried: whether it is sent for the second time.
    @ivar refusal: the reply of a server that has declined it; empty: none has.
    @ivar size: the number of bytes of the reply so far, without the last piece.
    @ivar dropped: whether the reply is dropped, because too much is held for the client.
    """

    #: What has happened to it, if it was redirected.
    trail: Any = None

    __slots__ = ("_pieces", "_whole", "dropped", "keys", "pool", "refusal", "request", "retried", "size")

    joins = False

    def __init__(self, whole: ScatteredReply, pool: Any, keys: list[bytes], request: bytes) -> None:
        self._whole = whole
        self.pool = pool
        self.keys = keys
        self.request = request
        self.retried = False
        self.refusal = b""
        self.size = 0
        self.dropped = False
        self._pieces: list[bytes] | None = None

    def replied(self, data: Any, done: int) -> None:
        """
        Take bytes of the reply, or what the reader has found in the whole reply.
        """
        if not done:
            if not self._whole.session.gone:
                self._keep(data)
            return
        if self._pieces is not None:
            self._release()
            data = b"".join([*self._pieces, data])
        self._whole.answered(self, data)

    def _keep(self, data: bytes) -> None:
        """
        Hold a piece of the reply until all of it is there, unless too much is held already.
        """
        self.size += len(data)
        if not self.dropped and self._whole.overflows(len(data)):
            self.dropped = True
            if self._pieces is not None:
                self._release()
                self._pieces = None
        if not self.dropped:
            if self._pieces is None:
                self._pieces = []
            self._pieces.append(data)
            self._whole.session.hold(len(data))

    def declined(self, connection: Any, request: Any, reply: bytes) -> bool:
        """
        Send the request once more, unless it was already, or the session has others in flight on the connection, which
        the server may execute before.
        """
        if self.retried or connection.carries(self._whole.session, self):
            return False
        self.refusal = reply
        self._whole.declined(self)
        return True

    def requestsLost(self, requests: list[Any], begun: bool, error: PoolError) -> None:
        """
        The connection was lost.
        """
        if self._pieces is not None:
            self._release()
            self._pieces = None
        self._whole.lost(self, error)

    def afterLoss(self, error: PoolError) -> None:
        """
        Let the session go on.
        """
        self._whole.session.answered(0)

    def _release(self) -> None:
        assert self._pieces is not None
        self._whole.session.release(sum(map(len, self._pieces)))


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
    """

    __slots__ = (
        "_ahead", "_begun", "_collected", "_dropped", "_failed", "_found", "_inFlight", "_keys", "_merged", "_repeats",
        "_requests", "_round", "command", "parts",
    )  # fmt: skip

    def __init__(self, session: Any, command: Any, requests: Iterable[bytes], merged: bool = False) -> None:
        """
        @param requests: the requests.
        @param merged: whether the only request was merged from several requests for one key each.
        """
        super().__init__(session, 1)
        self.command = command
        self._requests = deque(requests)
        self._merged = merged
        self._begun = False  # whether a part of the reply was passed on
        self._ahead = 0  # how many requests may be in the next round; 0: see FIRST
        self._round = 1  # how many are in this one
        self._keys: list[bytes] = []  # of these
        self._found: dict[bytes, bytes] = {}  # what the servers have for these keys
        self._collected = 0  # the number of bytes of that, as far as they count as held
        self._failed: dict[bytes, bytes] | None = None  # the error for each key whose server has failed
        self._dropped: list[Part] | None = None  # the parts of this round whose replies were dropped
        self._repeats = False  # whether any were
        self.parts: deque[Part] = deque()
        self._inFlight = 0
        self._divide()
        self._finish()

    def _divide(self) -> None:
        """
        Divide the requests of the next round among the servers. No server gets more keys at once than a request has.
        """
        requests, command = self._requests, self.command
        request = requests[0]
        self._found = {}
        self._failed = None
        keys = command.keys(request)
        most = len(keys)
        self._round = 1
        if len(requests) > 1:
            ahead = self._ahead or min(FIRST, self.session.room // most)
            self._round = max(1, min(ahead, len(requests)))
            for other in islice(requests, 1, self._round):
                keys = keys + command.keys(other)
        self._keys = keys
        router, part, add = self.session.router, self._part, self.parts.append
        for pool, share in router.divide(keys):
            if pool is None:
                self._fail(share, self._unserved())
            elif len(share) <= most:
                add(part(pool, share, request))
            else:
                for start in range(0, len(share), most):
                    add(part(pool, share[start : start + most], request))

    def _unserved(self) -> PoolError:
        """
        @return: the error for keys that no pool has.
        """
        return unserved(self.session.router.pools)

    def _part(self, pool: Any, keys: list[bytes], request: bytes) -> Part:
        router = self.session.router
        if router.standIn is not None and pool not in router.pools:
            request = router.standIn.take(self.command, request)
        return Part(self, pool, keys, self.command.subset(request, keys))

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
        return self.parts[0].keys[0]

    def sent(self) -> None:
        """
        The next part was sent.
        """
        part = self.parts.popleft()
        self._inFlight += 1
        if part.retried:
            self.session.retried(1)

    # -- Replies

    def answered(self, part: Part, reply: Any) -> None:
        """
        A part has its whole reply.

        @param reply: its bytes, or what the reader has found in it.
        """
        self._inFlight -= 1
        if self._requests:
            if part.dropped or (isinstance(reply, bytes) and self.overflows(len(reply))):
                self._drop(part, len(reply))
                return
            size = self.command.collect(part.request, part.keys, reply, self._found)
            if not size:
                self._failed = {**(self._failed or {}), **dict.fromkeys(part.keys, self.command.visible(reply))}
            if self._inFlight or self.parts:
                if size > COUNTED:
                    self._collected += size
                    self.session.hold(size)
                self.session.partAnswered()
                return
            self._finish()
        self.session.answered(1)

    def overflows(self, size: int) -> bool:
        """
        @return: whether C{size} more bytes would be too much to hold. The first entry of the queue may hold more than
            the others, so that it can go on in any case.
        """
        if not (self.command.continues and self.command.idempotent) or len(self._keys) == 1:
            return False
        session = self.session
        hard: int = session.factory.limits.unreadHard
        limit = 3 * hard // 4 if self.first else hard // 2
        return bool(session.unread + size > limit)

    def _drop(self, part: Part, size: int) -> None:
        """
        Drop the reply of a part, because too much is held for the client.

        @param size: the number of bytes of its last piece.
        """
        part.size += size
        if self._dropped is None:
            self._dropped = []
        self._dropped.append(part)
        self._repeats = True
        if not (self._inFlight or self.parts):
            self._finish()
        self.session.answered(1)

    def _requestAgain(self, dropped: list[Part], request: bytes) -> None:
        """
        Request keys once more, from the first one whose value was dropped. Requests that the client has sent after this
        one may be executed before, as when a connection was lost.

        @param request: the request that had these keys, or the last of them.
        """
        lacking = frozenset(key for part in dropped for key in part.keys)
        first = next(index for index, key in enumerate(self._keys) if key in lacking)
        average = sum(part.size for part in dropped) / len(lacking)
        budget = self.session.factory.limits.unreadHard // REPEATED
        # Never more than half of the keys, so that this ends whatever the sizes are.
        count = max(1, min(int(budget / average), len(self._keys) // 2))
        rest, self._keys = self._keys[first:], self._keys[:first]
        starts = range(0, len(rest), count)
        requests = [self.command.subset(request, rest[start : start + count]) for start in starts]
        self._requests.extendleft(reversed(requests))

    def lost(self, part: Part, error: PoolError) -> None:
        """
        The connection of a part was lost: send it once more, or fail its keys.
        """
        self._inFlight -= 1
        self.session.settle(1)
        if not self._requests:
            return
        if not part.retried and self._mayRepeat(part, error):
            self._repeat(part)
        else:
            self._fail(part.keys, error)
            self._finish()

    def _mayRepeat(self, part: Any, error: PoolError) -> bool:
        return isRetryable(self.command, error)

    def declined(self, part: Part) -> None:
        """
        A server has not executed a part: send it once more.
        """
        self._inFlight -= 1
        self.session.settle(1)
        if self._requests:
            self._repeat(part)
            self.session.answered(0)

    def _repeat(self, part: Part) -> None:
        part.retried = True
        self.parts.append(part)
        self.session.collect()

    def refuse(self, error: PoolError) -> None:
        """
        The next part cannot be sent: fail its keys. If a server has declined it, the client gets the reply of that.
        """
        if self.parts:
            part = self.parts.popleft()
            self._fail(part.keys, error, self.command.visible(part.refusal) if part.refusal else b"")
            self._finish()

    def divideAgain(self) -> None:
        """
        Divide the keys of the next part again, because others get the keys of its server.
        """
        part = self.parts.popleft()
        router = self.session.router
        for pool, share in router.divide(part.keys):
            if pool is None:
                self._fail(share, self._unserved())
            else:
                again = self._part(pool, share, part.request)
                again.retried, again.refusal = part.retried, part.refusal
                self.parts.appendleft(again)
        self._finish()

    def _fail(self, keys: list[bytes], error: PoolError, reply: bytes = b"") -> None:
        """
        Fail keys.

        @param reply: the reply for them; empty: that for C{error}.
        """
        refusal, failed = self.session.refusal, self._failed or {}
        if self._merged:
            failed.update((key, refusal(self.command, 1, error)) for key in keys)
        else:
            failed.update(dict.fromkeys(keys, reply or refusal(self.command, 1, error)))
        self._failed = failed

    def _finish(self) -> None:
        """
        Write the reply when all parts have theirs, and go on with the next request.
        """
        while self._requests and not (self._inFlight or self.parts):
            if self._collected:
                self.session.release(self._collected)
                self._collected = 0
            if self._failed and not self._merged and self.session.factory.countPartial(self.command):
                self._requests.clear()
                self.conclude(next(iter(self._failed.values())), self._begun)
                return
            for _ in range(self._round):
                request = self._requests.popleft()
            dropped, self._dropped = self._dropped, None
            if dropped:
                self._requestAgain(dropped, request)
            size = self._write() if self._keys else 0
            if self._requests:
                self._ahead = 1 if dropped else widened(self.session, self._round, size // self._round)
                self._divide()
                self.session.collect()  # while the reply was written, there was perhaps nothing to send
            else:
                self.left = 0

    def _write(self) -> int:
        """
        Write the replies for the keys of the round that is complete.

        @return: the number of bytes.
        """
        gather, failed, found = self.command.gather, self._failed, self._found
        if failed and self._merged:
            reply = b"".join(failed.get(key) or gather([key], found, True) for key in self._keys)
        else:
            reply = gather(self._keys, found, self._merged)
            if self._requests and not self._merged:
                reply = self.command.withoutEnd(reply)
        self._begun = self._begun or bool(reply)
        self.session.batch += len(reply)
        self.take(reply)
        return len(reply)

    def discard(self) -> None:
        """
        Drop everything, because the client is gone.
        """
        super().discard()
        self._requests.clear()
        self._found = {}
        self.parts.clear()
        self.left = 0
