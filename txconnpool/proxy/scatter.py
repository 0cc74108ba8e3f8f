# -*- test-case-name: tests.proxy.test_scatter -*-
# Copyright txconnpool contributors. See LICENSE.
"""
The reply to a request for several keys that are on several servers.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Any

from zope.interface import implementer

from txconnpool.errors import PoolError
from txconnpool.interfaces import IReplySink
from txconnpool.pool.connection import isRetryable
from txconnpool.proxy.replies import Entry


@implementer(IReplySink)
class Part:
    """
    A request for those of the keys that one server has, and its reply.

    @ivar key: the first of the keys, by which the server is chosen.
    @ivar request: the request.
    """

    __slots__ = ("_pieces", "_whole", "key", "keys", "request", "retried")

    def __init__(self, whole: ScatteredReply, keys: list[bytes], request: bytes) -> None:
        self._whole = whole
        self.keys = keys
        self.key = keys[0]
        self.request = request
        self.retried = False
        self._pieces: list[bytes] = []

    def replied(self, data: bytes, done: int) -> None:
        """
        Take bytes of the reply.
        """
        session = self._whole.session
        session.batch += len(data)
        if not done:
            self._pieces.append(data)
            session.hold(len(data))
            return
        if self._pieces:
            session.release(sum(map(len, self._pieces)))
            data = b"".join([*self._pieces, data])
            self._pieces = []
        self._whole.answered(self, data)
        session.answered(1)

    def requestsLost(self, requests: list[Any], begun: bool, error: PoolError) -> None:
        """
        The connection was lost.
        """
        session = self._whole.session
        if self._pieces:
            session.release(sum(map(len, self._pieces)))
            self._pieces = []
        self._whole.lost(self, error)
        session.answered(1)


class ScatteredReply(Entry):
    """
    The reply to a request for several keys, or to several requests for one key each that were merged. Each server gets
    one request for its keys. When all have replied, the values are written in the order of the keys.

    A request for very many keys comes as several, of which one is sent after another, see
    L{SplitReply<txconnpool.proxy.compound.SplitReply>}.
    """

    __slots__ = ("_begun", "_command", "_failed", "_found", "_inFlight", "_keys", "_merged", "_parts", "_requests")

    def __init__(self, session: Any, command: Any, requests: Iterable[bytes], merged: bool = False) -> None:
        """
        @param command: the command of all requests.
        @param requests: the requests.
        @param merged: whether the only request was merged from several requests for one key each.
        """
        super().__init__(session, 1)
        self._command = command
        self._requests = deque(requests)
        self._merged = merged
        self._begun = False  # whether a part of the reply was passed on
        self._keys: list[bytes] = []  # of the first request
        self._found: dict[bytes, bytes] = {}  # what the servers have for these keys
        self._failed: dict[bytes, bytes] = {}  # the error for each key whose server has failed
        self._parts: deque[Part] = deque()  # those to be sent
        self._inFlight = 0
        self._divide()
        self._finish()

    def _divide(self) -> None:
        """
        Divide the first request among the servers.
        """
        request = self._requests[0]
        command, choose = self._command, self.session.factory.router.choose
        self._found, self._failed = {}, {}
        self._keys = keys = command.keys(request)
        shares: dict[Any, list[bytes]] = {}
        for key in keys:
            try:
                pool = choose(key)
            except PoolError as error:
                self._fail([key], error)
                continue
            if pool in shares:
                shares[pool].append(key)
            else:
                shares[pool] = [key]
        for share in shares.values():
            self._parts.append(Part(self, share, command.subset(request, share)))

    # -- Sending

    @property
    def unsent(self) -> bool:
        """
        Whether parts are left to be sent, so that later requests wait.
        """
        return bool(self._parts or len(self._requests) > 1)

    @property
    def ready(self) -> bool:
        """
        Whether the next part may be sent now.
        """
        return bool(self._parts) and not (self._begun and self.session.isCrowded(self.first))

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
        return self._parts[0].request if self._parts else self._requests[0]

    @property
    def key(self) -> bytes | None:
        """
        A key of the server that gets the next part.
        """
        return self._parts[0].keys[0]

    @property
    def sink(self) -> Part:
        """
        The sink of the next part.
        """
        return self._parts[0]

    def next(self, room: int) -> tuple[Any, int, bytes]:
        """
        @return: the command, the number of replies, and the bytes of the next part.
        """
        part = self._parts.popleft()
        if part.retried:
            self.session.retried(1)
        self._inFlight += 1
        return self._command, 1, part.request

    # -- Replies

    def answered(self, part: Part, reply: bytes) -> None:
        """
        A part has its whole reply.
        """
        self._inFlight -= 1
        if self._requests:
            if not self._command.collect(reply, self._found):
                self._failed.update(dict.fromkeys(part.keys, reply))
            self._finish()

    def lost(self, part: Part, error: PoolError) -> None:
        """
        The connection of a part was lost: send it once more, or fail its keys.
        """
        self._inFlight -= 1
        if not self._requests:
            return
        if isRetryable(self._command, error) and not part.retried:
            part.retried = True
            self._parts.append(part)
            self.session.collect()
        else:
            self._fail(part.keys, error)
            self._finish()

    def refuse(self, error: PoolError) -> None:
        """
        The next part cannot be sent: fail its keys.
        """
        self._fail(self._parts.popleft().keys, error)
        self._finish()

    def _fail(self, keys: list[bytes], error: PoolError) -> None:
        refusal = self.session.refusal
        if self._merged:
            self._failed.update((key, refusal(self._command, 1, error)) for key in keys)
        else:
            self._failed.update(dict.fromkeys(keys, refusal(self._command, 1, error)))

    def _finish(self) -> None:
        """
        Write the reply when all parts have theirs, and go on with the next request.
        """
        while self._requests and not (self._inFlight or self._parts):
            if self._failed and not self._merged and self.session.factory.countPartial(self._command):
                self._end(next(iter(self._failed.values())))
                return
            self._requests.popleft()
            self._write()
            if self._requests:
                self._divide()
            else:
                self.left = 0

    def _write(self) -> None:
        """
        Write the replies for the keys of the request that is complete.
        """
        gather, failed, found = self._command.gather, self._failed, self._found
        if failed and self._merged:
            reply = b"".join(failed.get(key) or gather([key], found, True) for key in self._keys)
        else:
            reply = gather(self._keys, found, self._merged)
            if self._requests:
                reply = self._command.withoutEnd(reply)
        self._begun = self._begun or bool(reply)
        self.take(reply)

    def _end(self, reply: bytes) -> None:
        """
        Make an error the whole reply. If a part of the reply was already written, the client is closed instead.
        """
        self._requests.clear()
        self.left = 0
        if self._begun:
            self.session.breakOff()
        else:
            self.take(reply)

    def discard(self) -> None:
        """
        Drop everything, because the client is gone.
        """
        super().discard()
        self._requests.clear()
        self._parts.clear()
        self.left = 0
