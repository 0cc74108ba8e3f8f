# -*- test-case-name: tests.operate.test_systemd -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Tests for L{txconnpool.operate.systemd}.
"""

from __future__ import annotations

import os
import secrets
import socket
import tempfile
import time
from pathlib import Path

from twisted.application.service import IService
from twisted.internet.task import Clock
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from txconnpool.operate.systemd import Notifier


class NotifierTests(SynchronousTestCase):
    """
    Tests for L{Notifier}.
    """

    def setUp(self) -> None:
        """
        Make a clock, and a socket like systemd's.
        """
        self.clock = Clock()
        self.status = "all is well"
        self.systemd = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.systemd.setblocking(False)
        self.addCleanup(self.systemd.close)
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.path = str(Path(directory.name) / "notify")
        self.systemd.bind(self.path)

    def notifier(self, **environment: str) -> Notifier:
        """
        @return: a notifier with environment variables.
        """
        notifier = Notifier(lambda: self.status, self.clock, environment)
        verifyObject(IService, notifier)
        return notifier

    def notifications(self) -> list[str]:
        """
        @return: the notifications since the last call, with C{

        } between lines.
        """
        received = []
        try:
            while True:
                received.append(self.systemd.recv(1000).decode().replace("\n", "|"))
        except BlockingIOError:
            return received

    def test_life(self) -> None:
        """
        Start and stop are notified, and no timer is left.
        """
        notifier = self.notifier(NOTIFY_SOCKET=self.path)
        notifier.startService()
        self.assertEqual((self.notifications(), notifier.running), (["READY=1|STATUS=all is well"], 1))
        self.clock.advance(1000)
        self.assertEqual(self.notifications(), [])
        notifier.stopService()
        self.assertEqual(
            (self.notifications(), notifier.running), (["STOPPING=1|STATUS=waiting for requests in flight"], 0)
        )
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_restart(self) -> None:
        """
        It can be started again.
        """
        notifier = self.notifier(NOTIFY_SOCKET=self.path)
        for _ in range(2):
            notifier.startService()
            notifier.stopService()
            self.assertEqual([each[:7] for each in self.notifications()], ["READY=1", "STOPPIN"])

    def test_abstract(self) -> None:
        """
        The socket can be in the abstract namespace.
        """
        name = f"txconnpool-{secrets.token_hex(8)}"
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as self.systemd:
            self.systemd.setblocking(False)
            self.systemd.bind(f"\0{name}")
            self.notifier(NOTIFY_SOCKET=f"@{name}").startService()
            self.assertEqual(self.notifications(), ["READY=1|STATUS=all is well"])

    def test_reload(self) -> None:
        """
        A reload is notified with its time, by which systemd finds the READY that belongs to it.
        """
        notifier = self.notifier(NOTIFY_SOCKET=self.path)
        notifier.startService()
        self.notifications()
        before = time.monotonic_ns() // 1000
        notifier.reloading()
        (notification,) = self.notifications()
        first, _, micros = notification.partition("|MONOTONIC_USEC=")
        self.assertEqual(first, "RELOADING=1")
        self.assertTrue(before <= int(micros) <= time.monotonic_ns() // 1000)
        self.status = "better"
        notifier.ready()
        self.assertEqual(self.notifications(), ["READY=1|STATUS=better"])

    def test_watchdog(self) -> None:
        """
        For the watchdog it sends a notification twice in the watchdog's time, with the status.
        """
        notifier = self.notifier(NOTIFY_SOCKET=self.path, WATCHDOG_USEC="3000000", WATCHDOG_PID=str(os.getpid()))
        notifier.startService()
        self.notifications()
        self.clock.advance(1.4)
        self.assertEqual(self.notifications(), [])
        self.status = "worse"
        for _ in range(3):
            self.clock.advance(1.5)
            self.assertEqual(self.notifications(), ["WATCHDOG=1|STATUS=worse"])
        notifier.stopService()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_othersWatchdog(self) -> None:
        """
        It sends none for the watchdog of another process.
        """
        notifier = self.notifier(NOTIFY_SOCKET=self.path, WATCHDOG_USEC="3000000", WATCHDOG_PID="1")
        notifier.startService()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_nobody(self) -> None:
        """
        Without systemd it does nothing, and does not ask for the status.
        """

        def status() -> str:
            raise AssertionError("nobody asked")

        for environment in ({}, {"NOTIFY_SOCKET": ""}, {"NOTIFY_SOCKET": "vsock:2:1"}, {"WATCHDOG_USEC": "100"}):
            notifier = Notifier(status, self.clock, environment)
            notifier.startService()
            notifier.reloading()
            notifier.stopService()
        self.assertEqual((self.notifications(), self.clock.getDelayedCalls()), ([], []))

    def test_gone(self) -> None:
        """
        A notification that cannot be sent is logged, and nothing else happens.
        """
        notifier = self.notifier(NOTIFY_SOCKET=f"{self.path}.gone")
        with capturedLogs() as logs:
            notifier.startService()
            notifier.stopService()
        self.assertEqual([event["state"] for event in logs], ["READY=1", "STOPPING=1"])
