# -*- test-case-name: tests.operate.test_logs -*-
# Copyright txconnpool contributors. See LICENSE.
"""
The log as lines of JSON, for programs that collect logs.

Each line is an object with C{time} (ISO 8601), C{level}, C{namespace} and C{text}, the fields of the event that are
plain values, and C{traceback} if the event has a failure.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable, MutableMapping
from datetime import UTC, datetime
from typing import IO, Any

from twisted.logger import (
    FileLogObserver,
    InvalidLogLevelError,
    LogEvent,
    Logger,
    LogLevel,
    formatEvent,
    textFileLogObserver,
)
from twisted.python.logfile import LogFile


def asJSON(event: LogEvent) -> str:
    """
    @return: the event as a line of JSON.
    """
    record: dict[str, Any] = {
        "time": datetime.fromtimestamp(event.get("log_time", 0.0), UTC).isoformat(timespec="milliseconds"),
        "level": (event.get("log_level") or LogLevel.info).name,
        "namespace": event.get("log_namespace"),
        "text": formatEvent(event),
    }
    if event.get("log_failure") is not None:
        record["traceback"] = event["log_failure"].getTraceback()
    if record["namespace"] != "log_legacy":  # its other fields repeat the text
        for name, value in event.items():
            if not name.startswith("log_"):
                plain = value is None or isinstance(value, (str, int, float))
                if plain or isinstance(value, Exception):
                    record.setdefault(name, value if plain else str(value))
    return json.dumps(record) + "\n"


def jsonObserver(file: IO[str]) -> FileLogObserver:
    """
    @return: an observer that writes each event to a file as a line of JSON.
    """
    return FileLogObserver(file, asJSON)


def relay(log: Logger, worker: int, line: bytes) -> None:
    """
    Log an event of a worker again in this process, with the worker's number, under the namespace that it had. A line
    that is not an event, such as the traceback of a crash, becomes a warning.

    @param log: logs lines that are not events.
    @param worker: the number of the worker.
    @param line: a line that the worker has printed: an event as L{asJSON} writes it, or anything else.
    """
    try:
        record = json.loads(line)
        level, text = LogLevel.levelWithName(record.pop("level")), record.pop("text")
        log = Logger(record.pop("namespace"))
    except (ValueError, KeyError, TypeError, AttributeError, InvalidLogLevelError):
        # It may contain anything, also what a terminal would obey.
        text = "".join(each if each.isprintable() else ascii(each)[1:-1] for each in line.decode(errors="replace"))
        level, record = LogLevel.warn, {}
    template = "worker {worker}: {text}\n{traceback}" if "traceback" in record else "worker {worker}: {text}"
    fields = {name: value for name, value in record.items() if name not in ("time", "format")}
    log.emit(level, template, **{**fields, "worker": worker, "text": text})


def chooseObserver(command: MutableMapping[str, Any], form: str | None) -> Callable[[], FileLogObserver] | None:
    """
    Choose the format of the log of C{twistd} or C{twist}.

    @param command: the options of the command, which stand before the name of the plugin. The observer of C{twist} is
        set here.
    @param form: C{"text"} or C{"json"}; C{None} for the format of the command.

    @return: makes the log observer of an application under C{twistd}; C{None} if the command makes its own. It does not
        if it logs to a file, since its own would go on writing to a file that was moved (L{MovedLogFile}).

    @raise ValueError: the command cannot log in this format.
    """
    if "fileLogObserverFactory" in command:
        if form is not None:
            command["fileLogObserverFactory"] = textFileLogObserver if form == "text" else jsonObserver
        return None
    if command.get("logger"):
        return None
    if form == "json" and command.get("syslog"):
        raise ValueError("is for files and the standard output, not for --syslog")
    if form == "json" and command.get("logfile") == "-" and not command.get("nodaemon"):
        raise ValueError("a daemon cannot log to the standard output")
    name = _logName(command)
    if form == "json":
        return lambda: jsonObserver(sys.stdout if name is None else _logFile(name))
    if command.get("syslog") or name is None:
        return None
    return lambda: textFileLogObserver(_logFile(name))


class MovedLogFile(LogFile):
    """
    A log file that may be moved while it is open, as C{logrotate} does it.
    """

    def rotate(self) -> None:
        """
        Begin a new file. If another program has moved or deleted the old one, it stays as it is.
        """
        try:
            there = os.stat(self.path)
            moved = not os.path.samestat(there, os.fstat(self._file.fileno()))
        except FileNotFoundError:
            moved = True
        if moved:
            self.reopen()
        else:
            super().rotate()


def _logName(command: MutableMapping[str, Any]) -> str | None:
    """
    @return: the file that C{twistd} would log to; C{None} if that is the standard output.
    """
    name: str | None = command.get("logfile")
    if name == "-" or (command.get("nodaemon") and not name):
        return None
    return name or "twistd.log"


def _logFile(name: str) -> IO[str]:
    """
    Open a log file. As with the log of C{twistd}, SIGUSR1 begins a new file.
    """
    file: Any = MovedLogFile.fromFullPath(name)

    def rotate(number: int, frame: object) -> None:
        from twisted.internet import reactor

        now: Any = reactor
        now.callFromThread(file.rotate)

    if not signal.getsignal(signal.SIGUSR1):
        signal.signal(signal.SIGUSR1, rotate)
    opened: IO[str] = file
    return opened
