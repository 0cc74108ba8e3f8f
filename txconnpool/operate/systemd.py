# -*- test-case-name: tests.operate.test_systemd -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Notifications to systemd, as C{sd_notify(3)} describes them.
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
    Notifies systemd that the process is ready, reloads its settings, stops, or is alive (for C{WatchdogSec}). It does
    nothing where C{NOTIFY_SOCKET} is not set. It must be started after everything that has to be ready.
    """

    def __init__(self, status: Callable[[], str], reactor: Any, environment: Mapping[str, str] | None = None) -> None:
        """
        @param status: returns the state of the process, in one line.
        @param environment: environment variables; C{None}: those of the process.
        """
        self._status = status
        self._reactor = reactor
        self._environment = os.environ if environment is None else environment
        self._socket: socket.socket | None = None
        self._interval = 0.0
        self._timer: IDelayedCall | None = None

    def startService(self) -> None:
        """
        Notify systemd that the process is ready, and begin with the regular notifications that it is alive.
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
            # Half of the watchdog's time, as sd_watchdog_enabled(3) recommends.
            self._interval = int(self._environment.get("WATCHDOG_USEC", "0")) / 2e6
        if self._interval:
            self._timer = self._reactor.callLater(self._interval, self._notifyAlive)

    def ready(self) -> None:
        """
        Notify systemd that the process is ready, at first or after a reload.
        """
        self._notify("READY=1", self._status)

    def reloading(self) -> None:
        """
        Notify systemd that the process reads its settings again. L{ready} must follow, also if that fails.
        """
        self._notify(f"RELOADING=1\nMONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")

    def _notifyAlive(self) -> None:
        self._timer = self._reactor.callLater(self._interval, self._notifyAlive)
        self._notify("WATCHDOG=1", self._status)

    def stopService(self) -> None:
        """
        Notify systemd that the process stops.
        """
        super().stopService()
        self._notify("STOPPING=1", lambda: "waiting for requests in flight")
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _notify(self, state: str, status: Callable[[], str] | None = None) -> None:
        if self._socket is None:
            return
        message = state if status is None else f"{state}\nSTATUS={status()}"
        try:
            self._socket.sendto(message.encode(), self._address)
        except OSError as error:
            _log.error("cannot notify systemd of {state}: {error}", state=state, error=error)
