# -*- test-case-name: tests.memcache.test_batching -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Batching: all C{get}s of one turn of the reactor are sent as one request for several keys.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IDelayedCall

from txconnpool.memcache.requests import Retrieval, Together
from txconnpool.wire import Command


class Batches:
    """
    The requests that collect keys until the turn of the reactor ends. There is at most one for each command.
    """

    __slots__ = ("_begin", "_flushing", "_open", "_reactor", "_send", "_size")

    def __init__(
        self,
        reactor: Any,
        size: int,
        begin: Callable[[Command], Retrieval],
        send: Callable[[Retrieval], object],
    ) -> None:
        """
        @param reactor: schedules the end of the turn, an
            L{IReactorTime<twisted.internet.interfaces.IReactorTime>}.
        @param size: the maximum number of keys in one request.
        @param begin: makes a request without keys. Its exceptions are raised by L{open}.
        @param send: sends a complete request.
        """
        self._reactor = reactor
        self._size = size
        self._begin = begin
        self._send = send
        self._open: dict[Command, Retrieval] = {}
        self._flushing: IDelayedCall | None = None

    def open(self, command: Command) -> Retrieval:
        """
        @return: the request of this command to which keys can be added now.
        """
        retrieval = self._open.get(command)
        if retrieval is None:
            retrieval = self._open[command] = self._begin(command)
            if self._flushing is None:
                self._flushing = self._reactor.callLater(0, self._flush)
        return retrieval

    def add(self, retrieval: Retrieval, key: bytes, caller: Any) -> None:
        """
        Add a key to a request. If the request is full then, it is sent at once.

        @param retrieval: the request, from L{open}.
        @param caller: receives the value of the key, see L{Retrieval}.
        """
        other = retrieval.callers.setdefault(key, caller)
        if other is not caller:
            if isinstance(other, Together):
                other.callers.append(caller)
            else:
                retrieval.callers[key] = Together(other, caller)
        elif len(retrieval.callers) >= self._size:
            self._send(self._open.pop(retrieval.command))

    def flush(self) -> None:
        """
        Send all requests now instead of at the end of the turn.
        """
        if self._flushing is not None:
            self._flushing.cancel()
            self._flush()

    def _flush(self) -> None:
        self._flushing = None
        retrievals = self._open
        self._open = {}
        for retrieval in retrievals.values():
            self._send(retrieval)
