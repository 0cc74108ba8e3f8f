# -*- test-case-name: tests.operate.test_systemd -*-
# Copyright txconnpool contributors. See LICENSE.
"""
What systemd is told about the process, as C{sd_notify(3)} tells it.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Mapping
from typing import Any

from twisted.application.service import Service
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger

_log = Logger("txconnpool.systemd")


class Notifier(Service):
    """
    Tells systemd that the process is ready, reloads, stops, and lives. Under anything else it does nothing.

    To be started after what it speaks for.
    """

    def __init__(self, status: Callable[[], str], reactor: Any, environment: Mapping[str, str] | None = None) -> None:
        """
        @param status: says how things are, in one line.
        @param environment: instead of that of the process.
        """
        self._status = status
        self._reactor = reactor
        self._environment = os.environ if environment is None else environment
        self._socket: socket.socket | None = None
        self._interval = 0.0
        self._timer: IDelayedCall | None = None

    def startService(self) -> None:
        """
        The process is ready.
        """
        super().startService()
        address = self._environment.get("NOTIFY_SOCKET", "")
        if not address.startswith(("/", "@")):
            return
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        self._address = address.replace("@", "\0", 1) if address[0] == "@" else address
        self.ready()
        if self._environment.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid()):
            # Half the time that it has, as sd_watchdog_enabled(3) recommends.
            self._interval = int(self._environment.get("WATCHDOG_USEC", "0")) / 2e6
        if self._interval:
            self._timer = self._reactor.callLater(self._interval, self._live)

    def ready(self) -> None:
        """
        It is ready, or ready again.
        """
        self._tell("READY=1", self._status)

    def reloading(self) -> None:
        """
        It reads its settings again, and will be L{ready} again, whatever comes of it.
        """
        self._tell(f"RELOADING=1\nMONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")

    def _live(self) -> None:
        self._timer = self._reactor.callLater(self._interval, self._live)
        self._tell("WATCHDOG=1", self._status)

    def stopService(self) -> None:
        """
        The process stops.
        """
        super().stopService()
        self._tell("STOPPING=1", lambda: "waiting for requests in flight")
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _tell(self, state: str, status: Callable[[], str] | None = None) -> None:
        if self._socket is None:
            return
        message = state if status is None else f"{state}\nSTATUS={status()}"
        try:
            self._socket.sendto(message.encode(), self._address)
        except OSError as error:
            _log.error("systemd cannot be told {state}: {error}", state=state, error=error)
