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
        Make a clock, and a socket as systemd has it.
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
        @return: a notifier in an environment.
        """
        notifier = Notifier(lambda: self.status, self.clock, environment)
        verifyObject(IService, notifier)
        return notifier

    def told(self) -> list[str]:
        """
        @return: what systemd has been told since the last time, with C{|} between lines.
        """
        told = []
        try:
            while True:
                told.append(self.systemd.recv(1000).decode().replace("\n", "|"))
        except BlockingIOError:
            return told

    def test_life(self) -> None:
        """
        A start and a stop are told, and no timer stays.
        """
        notifier = self.notifier(NOTIFY_SOCKET=self.path)
        notifier.startService()
        self.assertEqual((self.told(), notifier.running), (["READY=1|STATUS=all is well"], 1))
        self.clock.advance(1000)
        self.assertEqual(self.told(), [])
        notifier.stopService()
        self.assertEqual((self.told(), notifier.running), (["STOPPING=1|STATUS=waiting for requests in flight"], 0))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_again(self) -> None:
        """
        It may be started again.
        """
        notifier = self.notifier(NOTIFY_SOCKET=self.path)
        for _ in range(2):
            notifier.startService()
            notifier.stopService()
            self.assertEqual([told[:7] for told in self.told()], ["READY=1", "STOPPIN"])

    def test_abstract(self) -> None:
        """
        The socket may have a name without a file.
        """
        name = f"txconnpool-{secrets.token_hex(8)}"
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as self.systemd:
            self.systemd.setblocking(False)
            self.systemd.bind(f"\0{name}")
            self.notifier(NOTIFY_SOCKET=f"@{name}").startService()
            self.assertEqual(self.told(), ["READY=1|STATUS=all is well"])

    def test_reload(self) -> None:
        """
        A reload is told with its time, so that systemd knows which READY is the answer to it.
        """
        notifier = self.notifier(NOTIFY_SOCKET=self.path)
        notifier.startService()
        self.told()
        before = time.monotonic_ns() // 1000
        notifier.reloading()
        (told,) = self.told()
        first, _, micros = told.partition("|MONOTONIC_USEC=")
        self.assertEqual(first, "RELOADING=1")
        self.assertTrue(before <= int(micros) <= time.monotonic_ns() // 1000)
        self.status = "better"
        notifier.ready()
        self.assertEqual(self.told(), ["READY=1|STATUS=better"])

    def test_watchdog(self) -> None:
        """
        Where a sign of life is wanted it is given twice in the time allowed, with the news of the moment.
        """
        notifier = self.notifier(NOTIFY_SOCKET=self.path, WATCHDOG_USEC="3000000", WATCHDOG_PID=str(os.getpid()))
        notifier.startService()
        self.told()
        self.clock.advance(1.4)
        self.assertEqual(self.told(), [])
        self.status = "worse"
        for _ in range(3):
            self.clock.advance(1.5)
            self.assertEqual(self.told(), ["WATCHDOG=1|STATUS=worse"])
        notifier.stopService()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_othersWatchdog(self) -> None:
        """
        A sign of life that is wanted of another process is not given.
        """
        notifier = self.notifier(NOTIFY_SOCKET=self.path, WATCHDOG_USEC="3000000", WATCHDOG_PID="1")
        notifier.startService()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_nobody(self) -> None:
        """
        Without systemd nothing is told, and nothing is asked for: the status least of all.
        """

        def status() -> str:
            raise AssertionError("nobody asked")

        for environment in ({}, {"NOTIFY_SOCKET": ""}, {"NOTIFY_SOCKET": "vsock:2:1"}, {"WATCHDOG_USEC": "100"}):
            notifier = Notifier(status, self.clock, environment)
            notifier.startService()
            notifier.reloading()
            notifier.stopService()
        self.assertEqual((self.told(), self.clock.getDelayedCalls()), ([], []))

    def test_gone(self) -> None:
        """
        That systemd cannot be told is logged, and hinders nothing.
        """
        notifier = self.notifier(NOTIFY_SOCKET=f"{self.path}.gone")
        with capturedLogs() as logs:
            notifier.startService()
            notifier.stopService()
        self.assertEqual([event["state"] for event in logs], ["READY=1", "STOPPING=1"])
