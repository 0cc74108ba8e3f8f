# -*- test-case-name: tests.operate.workers.test_channel -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Calls between the parent process and a worker.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, fail, maybeDeferred
from twisted.python.failure import Failure

#: The descriptors of a worker: calls from the parent, printed lines, calls to the parent (and answers), clients, and a
#: byte for each client that was received.
STDIN, STDOUT, STDERR, ANSWERS, CLIENTS, RECEIVED = range(6)


class ChannelError(Exception):
    """
    A call that the other process could not answer.
    """


class ChannelLost(ChannelError):
    """
    A call that the other process did not answer before it ended.
    """


class Channel:
    """
    Calls in both directions. Each call and each answer is a line of JSON.
    """

    def __init__(self, write: Callable[[bytes], object], answer: Callable[..., Any]) -> None:
        """
        @param write: sends bytes to the other process.
        @param answer: called with the name and the arguments of a call; returns the answer, or a Deferred that fires
            with it.
        """
        self._write = write
        self._answer = answer
        self._calls: dict[int, Deferred[Any]] = {}
        self._count = 0
        self._lost = False
        self._tail = b""

    def call(self, name: str, *args: Any) -> Deferred[Any]:
        """
        Call the other process.

        @param args: plain data, which JSON can carry.

        @return: fires with the answer; fails with L{ChannelError} if the other process could not answer or has ended.
        """
        if self._lost:
            return fail(ChannelLost(_ENDED))
        self._count += 1
        answered = self._calls[self._count] = Deferred()
        self._send({"call": self._count, "name": name, "args": args})
        return answered

    def _send(self, message: dict[str, Any]) -> None:
        self._write(json.dumps(message).encode() + b"\n")

    def dataReceived(self, data: bytes) -> None:
        """
        Take bytes that the other process has sent.
        """
        *lines, self._tail = (self._tail + data).split(b"\n")
        for line in lines:
            self._messageReceived(json.loads(line))

    def _messageReceived(self, message: dict[str, Any]) -> None:
        if "name" in message:
            number = message["call"]
            answer = maybeDeferred(self._answer, message["name"], *message["args"])
            answer.addCallbacks(
                lambda value: self._send({"done": number, "value": value}),
                lambda failure: self._send({"done": number, "error": failure.getErrorMessage()}),
            )
        elif "error" in message:
            self._calls.pop(message["done"]).errback(ChannelError(message["error"]))
        else:
            self._calls.pop(message["done"]).callback(message["value"])

    def lost(self) -> None:
        """
        Fail all calls, because the other process has ended.
        """
        self._lost = True
        calls, self._calls = self._calls, {}
        for answered in calls.values():
            answered.errback(ChannelLost(_ENDED))


_ENDED = "the process has ended"


def ignoreLost(failure: Failure) -> None:
    """
    Handle L{ChannelLost}, as an errback of calls to a process that may end before it has answered.
    """
    failure.trap(ChannelLost)
