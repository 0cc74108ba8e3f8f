# -*- test-case-name: tests.operate.test_events -*-
# Copyright txconnpool contributors. See LICENSE.
"""
What has happened lately.
"""

from __future__ import annotations

from collections import deque
from typing import Any, Final

from twisted.logger import ILogObserver, LogLevel, formatEvent, globalLogPublisher
from zope.interface import implementer

#: Events that are kept, and characters of one, at most.
EVENTS: Final = 100
EVENT_MAX: Final = 400

#: The field of a log event that is for the log only: it may hold keys of clients, which are not for everyone who sees
#: the status page.
CONFIDENTIAL: Final = "confidential"


@implementer(ILogObserver)
class Events:
    """
    The last things worth telling that were logged: servers that went down or came up, sessions that were dropped,
    settings that were changed. The page and the console show what the log says, in the same words.

    @ivar recent: the newest last, each with its C{time} in seconds since the epoch, its C{level} and its C{text}.
    """

    def __init__(self) -> None:
        self.recent: deque[dict[str, Any]] = deque(maxlen=EVENTS)
        self._users = 0

    def begin(self) -> None:
        """
        Keep what is logged, until L{end} is called as often as this was.
        """
        if not self._users:
            globalLogPublisher.addObserver(self)
        self._users += 1

    def end(self) -> None:
        """
        One who wanted it kept wants it no more.
        """
        self._users -= 1
        if not self._users:
            globalLogPublisher.removeObserver(self)

    def __call__(self, event: dict[str, Any]) -> None:
        """
        Keep an event, if it is one.
        """
        namespace, level = event.get("log_namespace") or "", event.get("log_level")
        ours = namespace.startswith("txconnpool.") and not event.get(CONFIDENTIAL)
        if ours and level is not None and level >= LogLevel.info:
            text = formatEvent(event)[:EVENT_MAX]
            self.recent.append({"time": round(event["log_time"], 3), "level": level.name, "text": text})
