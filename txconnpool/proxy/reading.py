# -*- test-case-name: tests.proxy.test_clustering -*-
# Copyright txconnpool contributors. See LICENSE.
"""
A client whose requests that read may be executed by several nodes. If one of them fails, another one gets the request.
"""

from __future__ import annotations

from typing import Any

from txconnpool.errors import PoolError
from txconnpool.pool.connection import isLate, isRetryable
from txconnpool.proxy.parts import Part
from txconnpool.proxy.placing import PlacedSession
from txconnpool.proxy.redirects import SlotPart
from txconnpool.proxy.replies import RetriedRequest
from txconnpool.proxy.scatter import ScatteredReply


class RepeatedRead(RetriedRequest):
    """
    A request that reads, and is sent a second time, to another node if there is one.

    @ivar avoided: the name of the server that has failed to execute it.
    """

    __slots__ = ("avoided",)

    def __init__(self, session: Any, command: Any, count: int, request: bytes, avoided: str) -> None:
        super().__init__(session, command, count, request)
        self.avoided = avoided


class ReadingSession(PlacedSession):
    """
    The session of one client.
    """

    __slots__ = ()

    def _forward(self, command: Any, request: bytes, data: bytes, pos: int, errors: dict[Any, PoolError]) -> bool:
        router = self.router
        if self._pin is not None or router.cluster.readFrom == "primary" or (reads := self._reads(command)) is None:
            return super()._forward(command, request, data, pos, errors)
        self.router = reads
        try:
            return super()._forward(command, request, data, pos, errors)
        except PoolError as error:
            failed = next((pool for pool, its in errors.items() if its is error), None)
            if failed is None:
                raise
            self.router = reads.without(failed.servers[0].name)
            return super()._forward(command, request, data, pos, errors)
        finally:
            self.router = router

    def _reads(self, command: Any) -> Any:
        """
        @return: the router for requests of a command that read; C{None} if they have the same as all.
        """
        return self.router.reads if command.redirectable and command.idempotent else None

    def hasOther(self, command: Any, key: bytes, error: PoolError) -> bool:
        """
        @return: whether a request whose reply was late may be sent to another node.
        """
        reads = self._reads(command)
        return reads is not None and isLate(command, error) and bool(reads.without(error.server).nodes(key))

    def _repeated(self, command: Any, count: int, request: bytes, error: PoolError) -> RetriedRequest | None:
        if self._reads(command) is None:
            return super()._repeated(command, count, request, error)
        if isRetryable(command, error) or self.hasOther(command, command.key(request, 0), error):
            return RepeatedRead(self, command, count, request, error.server)
        return None

    def _poolOf(self, entry: Any) -> Any:
        if isinstance(entry, RetriedRequest):
            reads, key = self._reads(entry.command), entry.command.key(entry.request, 0)
            if reads is not None and key is not None:
                return reads.without(entry.avoided if isinstance(entry, RepeatedRead) else "").choose(key)
        return super()._poolOf(entry)

    def _refuse(self, entry: Any, error: PoolError) -> None:
        if not isinstance(entry, RetriedRequest):
            super()._refuse(entry, error)
        elif not self._movesOn(entry):
            entry.refuse(error)
            self.advance()

    def _movesOn(self, entry: RetriedRequest) -> bool:
        """
        @return: whether another pool than the current one gets a request that was lost or declined.
        """
        try:
            return self._poolOf(entry) is not self._pool
        except PoolError:
            return False

    # -- Parts of requests

    def refused(self, error: PoolError) -> None:
        """
        Answer the requests that have waited for a connection with an error. If a part of a request that reads has
        waited, another node gets it.
        """
        entry = self._unsent[0] if self._unsent else None
        if isinstance(entry, ScatteredReply) and entry.parts and self._avoidsNode(entry.parts[0], entry.command):
            self.ticket = None
            self._blocked = False
            self.proceed()
        else:
            super().refused(error)

    def _avoidsNode(self, part: Part, command: Any) -> bool:
        """
        @return: whether another node gets a part that reads, because the one that was chosen has no connection.
        """
        if not isinstance(part, SlotPart) or part.trail is not None or part.avoided or self._reads(command) is None:
            return False
        part.avoided = part.pool.servers[0].name
        return True

    def _readersOf(self, part: SlotPart, command: Any) -> Any:
        """
        @return: the router for a part that was not redirected.
        """
        reads = self._reads(command)
        if reads is None:
            return self.router
        return reads.without(part.avoided) if part.avoided else reads
