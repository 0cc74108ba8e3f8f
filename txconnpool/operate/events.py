# -*- test-case-name: tests.operate.test_events -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Recent events of the log.
"""

from __future__ import annotations

from collections import deque
from typing import Any, Final

from twisted.logger import ILogObserver, LogLevel, formatEvent, globalLogPublisher
from zope.interface import implementer

#: The number of events that are kept, and the maximum length of one in characters.
EVENTS: Final = 100
EVENT_MAX: Final = 400

#: A log event with this field is not kept: it may contain keys of clients, which the status page must not show.
CONFIDENTIAL: Final = "confidential"


@implementer(ILogObserver)
class Events:
    """
    Keeps the last events of txconnpool's own log from level info: servers that went down or came up, sessions that were
    closed, settings that were changed. The status page and the console show them, in the words of the log.

    @ivar recent: the events, the newest last, each with its C{time} in seconds since the epoch, its C{level} and its
        C{text}.
    """

    def __init__(self) -> None:
        self.recent: deque[dict[str, Any]] = deque(maxlen=EVENTS)
        self._users = 0

    def begin(self) -> None:
        """
        Keep events from now on, until L{end} has been called as often as this.
        """
        if not self._users:
            globalLogPublisher.addObserver(self)
        self._users += 1

    def end(self) -> None:
        """
        Undo one call of L{begin}.
        """
        self._users -= 1
        if not self._users:
            globalLogPublisher.removeObserver(self)

    def __call__(self, event: dict[str, Any]) -> None:
        """
        Keep a log event, if it is one of txconnpool's and not confidential.
        """
        namespace, level = event.get("log_namespace") or "", event.get("log_level")
        ours = namespace.startswith("txconnpool.") and not event.get(CONFIDENTIAL)
        if ours and level is not None and level >= LogLevel.info:
            text = formatEvent(event)[:EVENT_MAX]
            self.recent.append({"time": round(event["log_time"], 3), "level": level.name, "text": text})
