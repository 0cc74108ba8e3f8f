# -*- test-case-name: tests.proxy.test_memory -*-
# Copyright txconnpool contributors. See LICENSE.
"""
The bytes that a process holds for its clients: replies that they have not read, and requests that are not dealt with.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import partial
from typing import Any

from twisted.logger import Logger

from txconnpool.net.transport import peerOf

_log = Logger("txconnpool.proxy")

#: If more bytes than this were held for clients, and a sixteenth of that is left, free memory is given back to the
#: system.
MUCH = 1 << 24


def _trimmer() -> Callable[[int], object]:
    """
    Find the function that gives free memory back to the system. The C library of GNU does so by itself only for memory
    at the end of its heap, which is hardly ever free.

    @return: called with 0.
    """
    try:
        trim: Callable[[int], object] = ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError, TypeError):  # another C library
        return lambda pad: None
    return trim


giveBack = partial(_trimmer(), 0)


class BufferedBytes:
    """
    The bytes that are held for all clients of a process, and the bound on them: replies that clients have not read, and
    requests that are not complete or cannot be forwarded yet.

    @ivar limit: the bound, in bytes.
    @ivar total: the bytes held now.
    @ivar dropped: how many sessions were closed because of this bound or of their own.
    """

    def __init__(self, limit: int = 1 << 28) -> None:
        self.limit = limit
        self.total = 0
        self.dropped = 0
        self._most = 0  # the largest total since memory was given back
        self._sessions: set[Any] = set()

    def add(self, session: Any, size: int) -> None:
        """
        Count C{size} more bytes of replies for C{session}, and apply the bound.
        """
        self._sessions.add(session)
        session.unread += size
        self.total += size
        self.enforce()

    def keep(self, session: Any, size: int) -> None:
        """
        Count C{size} bytes of requests for C{session}, in place of those counted before.
        """
        self._sessions.add(session)
        self.total += size - session.kept
        session.kept = size
        self.enforce()

    def enforce(self) -> None:
        """
        Close the sessions with the most bytes until the bound holds.
        """
        while self.total > self.limit:
            most = max(self._sessions, key=lambda each: each.unread + each.kept)
            self.drop(most, f"{self.total} bytes are held for all clients")
        self._most = max(self._most, self.total)

    def drop(self, session: Any, why: str) -> None:
        """
        Close a session because of the bytes that are held for it.
        """
        _log.warn("{pool}: closing {client}: {unread} bytes unread, {kept} kept, {why}",
                  pool=session.factory.name, client=peerOf(session.transport), unread=session.unread,
                  kept=session.kept, why=why)  # fmt: skip
        self.dropped += 1
        session.drop()

    def release(self, session: Any, size: int) -> None:
        """
        Count C{size} bytes of replies less: they no longer wait for an earlier reply.
        """
        self.total -= size
        session.unread -= size
        session.held -= size
        self._cleared(session)

    def clear(self, session: Any) -> None:
        """
        C{session} has read everything that was written, or never will. Replies that wait for an earlier one are still
        counted.
        """
        self.total -= session.unread - session.held
        session.unread = session.held
        self._cleared(session)

    def free(self, session: Any) -> None:
        """
        No requests of C{session} are kept any more.
        """
        self.total -= session.kept
        session.kept = 0
        self._cleared(session)

    def _cleared(self, session: Any) -> None:
        if not session.unread + session.kept:
            self._sessions.discard(session)
        if self._most > MUCH and self.total < self._most // 16:
            self._most = self.total
            giveBack()
