# -*- test-case-name: tests.proxy.test_compound -*-
# Copyright txconnpool contributors. See LICENSE.
"""
One reply that is made of several.

A request for very many keys is sent as several requests, one when the one before is answered and its client has read.
One line can ask for any number of large values: sent as it is, its reply would occupy a connection that others wait
for, and nothing could stop it when the client does not read.
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
class SplitReply(Entry):
    """
    The reply to a request that is sent as several. Later requests of the session wait until all are sent.
    """

    __slots__ = ("_begun", "_command", "_inFlight", "_requests", "_retried", "_size")

    def __init__(self, session: Any, command: Any, requests: Iterable[bytes]) -> None:
        """
        @param command: that of each request.
        """
        super().__init__(session, 1)
        self._command = command
        self._requests = deque(requests)
        self._size = sum(map(len, self._requests))
        self._inFlight = False
        self._retried = False  # the request in flight is sent for the second time
        self._begun = False  # part of the joined reply is known

    @property
    def unsent(self) -> bool:
        """
        Whether there is something to send.
        """
        return len(self._requests) > self._inFlight

    @property
    def size(self) -> int:
        """
        The bytes of the requests that are not answered.
        """
        return self._size

    @property
    def request(self) -> bytes:
        """
        The request that is sent next.
        """
        return self._requests[0]

    @property
    def ready(self) -> bool:
        """
        Whether the next request may be sent now.
        """
        return not (self._inFlight or self.session.crowded)

    def next(self, room: int) -> tuple[Any, int, bytes]:
        """
        @return: the command, the number of replies, and the bytes to send next.
        """
        if self._retried:
            self.session.retried(1)
        self._inFlight = True
        return self._command, 1, self._requests[0]

    def replied(self, data: bytes, done: int) -> None:
        """
        Pass on what the server sent, as if it were one reply.
        """
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
        One of the requests is answered.

        @param data: the last bytes of its reply.
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
            self._inFlight = self._retried = False
            self.take(values)

    def requestsLost(self, requests: list[Any], begun: bool, error: PoolError) -> None:
        """
        Send the request once more, if it may be.
        """
        self._inFlight = False
        if self._requests:
            if isRetryable(self._command, error) and not (begun or self._retried):
                self._retried = True
                self.session.collect()
            else:
                self._begun = self._begun or begun
                self._end(self.session.refusal(self._command, 1, error))
        self.session.answered(1)

    def refuse(self, error: PoolError) -> None:
        """
        The pool has no connection for the next request.
        """
        self._end(self.session.refusal(self._command, 1, error))

    def _end(self, reply: bytes) -> None:
        """
        Let an error be the whole reply. Behind part of a reply there is no place for one: then the client is closed.
        """
        self._requests.clear()
        self._inFlight = False
        self.left = 0
        if self._begun:
            self.session.breakOff()
        else:
            self.take(reply)

    def discard(self) -> None:
        """
        The client is gone.
        """
        super().discard()
        self._requests.clear()
