# -*- test-case-name: tests.proxy.test_compound -*-
# Copyright txconnpool contributors. See LICENSE.
"""
One reply that is made of several.

A request for very many keys is sent as several requests. The next ones are sent when those before were answered and the
client has read the replies: one at first, and more at a time while the replies are small. A single line can request any
number of large values: if it were forwarded unchanged, its reply would occupy a connection that others wait for, and
could not be stopped if the client does not read.
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

#: The maximum number of requests for one client's request that are in flight at the same time, and how many times more
#: there may be after each small reply. A get of 1,000 keys comes as 20 requests, so it waits for three round trips.
AHEAD = 16
GROWTH = 4


def widened(session: Any, ahead: int, size: int) -> int:
    """
    @param ahead: how many requests may be in flight at the same time.
    @param size: the number of bytes of the last reply.

    @return: how many may be from now on, so that their replies are probably not more than C{session} may leave unread.
    """
    bound: int = session.factory.limits.unreadSoft
    return max(1, min(GROWTH * ahead, AHEAD, bound // max(size, 1)))


@implementer(IReplySink)
class SplitReply(Entry):
    """
    The reply to a request that is sent as several requests. Later requests of the session wait until all of them are
    sent.
    """

    __slots__ = ("_again", "_ahead", "_begun", "_command", "_inFlight", "_received", "_requests", "_size")

    def __init__(self, session: Any, command: Any, requests: Iterable[bytes]) -> None:
        """
        @param command: the command of all requests.
        @param requests: the requests.
        """
        super().__init__(session, 1)
        self._command = command
        self._requests = deque(requests)
        self._size = sum(map(len, self._requests))
        self._inFlight = 0  # the number of requests in flight, which are the first ones
        self._again = 0  # how many of the first requests are sent for the second time
        self._ahead = 1  # how many requests may be in flight
        self._received = 0  # bytes of the reply to the first request
        self._begun = False  # whether a part of the reply was passed on

    @property
    def unsent(self) -> bool:
        """
        Whether requests are left to be sent.
        """
        return len(self._requests) > self._inFlight

    @property
    def size(self) -> int:
        """
        The number of bytes of the requests that are not answered.
        """
        return self._size

    @property
    def request(self) -> bytes:
        """
        The request to send next.
        """
        return self._requests[self._inFlight]

    @property
    def ready(self) -> bool:
        """
        Whether the next request may be sent now.
        """
        return self._inFlight < self._ahead and not self.session.isCrowded(self.first)

    def next(self, room: int) -> tuple[Any, int, bytes]:
        """
        @return: the command, the number of replies, and the bytes to send next.
        """
        request = self.request
        self._inFlight += 1
        if self._inFlight <= self._again:
            self.session.retried(1)
        return self._command, 1, request

    def replied(self, data: bytes, done: int) -> None:
        """
        Pass on bytes of the replies as parts of one reply.
        """
        self.session.batch += len(data)
        self._received += len(data)
        if not done:
            if self._requests:
                self._begun = True
                self.take(data)
            return
        if self._requests:
            self._answered(data)
        self.session.answered(1)

    def _answered(self, data: bytes) -> None:
        """
        Handle the end of the reply to one of the requests.

        @param data: the last bytes of this reply.
        """
        values = self._command.withoutEnd(data)
        if values is None:
            self._end(data)
        elif len(self._requests) == 1:
            self._requests.clear()
            self.take(data)
            self.left = 0
        else:
            self._begun = self._begun or bool(values)
            self._size -= len(self._requests.popleft())
            self._inFlight -= 1
            self._again = max(0, self._again - 1)
            self._ahead = widened(self.session, self._ahead, self._received)
            self._received = 0
            self.take(values)

    def requestsLost(self, requests: list[Any], begun: bool, error: PoolError) -> None:
        """
        Let the requests in flight be sent once more if possible; else end the reply with the error.
        """
        self._inFlight -= len(requests)
        self.session.settle(len(requests))
        if self._requests:
            if isRetryable(self._command, error) and not (begun or self._again):
                self._again = len(requests)
                self._ahead = 1
                self._received = 0
                self.session.collect()
            else:
                self._begun = self._begun or begun
                self._end(self.session.refusal(self._command, 1, error))

    def afterLoss(self, error: PoolError) -> None:
        """
        Let the session go on.
        """
        self.session.answered(0)

    def refuse(self, error: PoolError) -> None:
        """
        End the reply with the pool's error.
        """
        self._end(self.session.refusal(self._command, 1, error))

    def _end(self, reply: bytes) -> None:
        """
        Make an error the whole reply. If a part of the reply was already written, the client is closed instead.
        """
        self._requests.clear()
        self.conclude(reply, self._begun)

    def discard(self) -> None:
        """
        Drop everything, because the client is gone.
        """
        super().discard()
        self._requests.clear()
