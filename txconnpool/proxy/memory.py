# -*- test-case-name: tests.proxy.test_memory -*-
# Copyright txconnpool contributors. See LICENSE.
"""
What is held for the clients of a process: replies that they have not read, and requests that are not dealt with.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import partial
from typing import Any

from twisted.logger import Logger

from txconnpool.net.transport import peerOf

_log = Logger("txconnpool.proxy")

#: If more bytes than this were held for clients, and a sixteenth of that is left, the system gets the memory back.
MUCH = 1 << 24


def _trimmer() -> Callable[[int], object]:
    """
    Find what gives free memory back to the system: the C library of GNU does so by itself only when none of it is in
    use at the end of its heap, which is next to never.
    """
    try:
        trim: Callable[[int], object] = ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError, TypeError):  # another library, or a system that has none of this kind
        return lambda pad: None
    return trim


giveBack = partial(_trimmer(), 0)


class BufferedBytes:
    """
    How much is held for all clients of a process, and the bound on it: replies that they have not read, and requests
    that they have not sent to their ends or that cannot be sent on yet.

    @ivar limit: bytes.
    @ivar total: bytes now.
    @ivar dropped: how many sessions were closed for it, or for their own bound.
    """

    def __init__(self, limit: int = 1 << 28) -> None:
        self.limit = limit
        self.total = 0
        self.dropped = 0
        self._most = 0  # since memory was given back
        self._sessions: set[Any] = set()

    def add(self, session: Any, size: int) -> None:
        """
        C{session} leaves C{size} bytes more unread. If that is too much for all, those with the most are dropped.
        """
        self._sessions.add(session)
        session.unread += size
        self.total += size
        self.enforce()

    def keep(self, session: Any, size: int) -> None:
        """
        C{size} bytes of requests are kept for C{session}.
        """
        self._sessions.add(session)
        self.total += size - session.kept
        session.kept = size
        self.enforce()

    def enforce(self) -> None:
        """
        Hold the bound.
        """
        while self.total > self.limit:
            most = max(self._sessions, key=lambda each: each.unread + each.kept)
            self.drop(most, f"{self.total} are held for all sessions")
        self._most = max(self._most, self.total)

    def drop(self, session: Any, why: str) -> None:
        """
        Close a session for what is held for it.
        """
        _log.warn("{pool}: closing {client}: {unread} bytes unread, {kept} kept, {why}",
                  pool=session.factory.name, client=peerOf(session.transport), unread=session.unread,
                  kept=session.kept, why=why)  # fmt: skip
        self.dropped += 1
        session.drop()

    def release(self, session: Any, size: int) -> None:
        """
        C{size} bytes of replies are not held for C{session} any more.
        """
        self.total -= size
        session.unread -= size
        session.held -= size
        self._cleared(session)

    def clear(self, session: Any) -> None:
        """
        C{session} has read everything that was written, or never will. What is held is still to be written.
        """
        self.total -= session.unread - session.held
        session.unread = session.held
        self._cleared(session)

    def free(self, session: Any) -> None:
        """
        No requests are kept for C{session} any more.
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
