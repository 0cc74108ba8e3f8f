# Copyright txconnpool contributors. See LICENSE.
"""
Tests for L{txconnpool.operate.reload}. L{tests.operate.test_service} and L{tests.operate.workers.test_supervisor} test
how the services apply a change.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from txconnpool.config.changes import Address, CannotChange, Plan
from txconnpool.config.settings import PoolSettings, Settings
from txconnpool.operate.reload import Changeable

A = PoolSettings(name="a")


class Example(Service, Changeable):
    """
    A service whose settings may change.

    @ivar applied: the settings that it was to put in force.
    @ivar waits: what it waits for meanwhile.
    @ivar fault: why it cannot, if it cannot.
    """

    def __init__(self) -> None:
        Changeable.__init__(self, Settings(pools=(A,)))
        self.applied: list[Settings] = []
        self.waits: Deferred[None] | None = None
        self.fault: Exception | None = None

    def _listening(self) -> list[Address]:
        return []

    async def _apply(self, change: Plan) -> None:
        self.applied.append(change.settings)
        if self.waits is not None:
            await self.waits
        if self.fault is not None:
            raise self.fault


class ChangeableTests(SynchronousTestCase):
    """
    Tests for L{Changeable}.
    """

    def setUp(self) -> None:
        self.service = Example()
        self.service.startService()

    def test_told(self) -> None:
        """
        The changes are the result, and lines in the log.
        """
        with capturedLogs() as logs:
            changed = self.service.change(lambda old: replace(old, drainTimeout=1.0))
        lines = ["drain-timeout 5 -> 1"]
        self.assertEqual((self.successResultOf(changed), [event["line"] for event in logs]), (lines, lines))
        self.assertEqual(self.service.settings.drainTimeout, 1.0)

    def test_warnings(self) -> None:
        """
        Warnings about the settings are logged at the start, and those that are new at a change.
        """
        denied = replace(A, denyCommands=("delete",))
        warned = []
        for change in (denied, denied, replace(A, denyCommands=("delete", "@delete"))):
            with capturedLogs() as logs:
                self.successResultOf(self.service.change(partial(replace, pools=(change,))))
            warned.append([event["log_level"].name for event in logs if "caution" in event])
        self.assertEqual(warned, [["warn"], [], []])
        service = Example()
        service.settings = Settings(pools=(denied,))
        with capturedLogs() as logs:
            service.readFiles()
            service.readFiles()
        (event,) = logs
        self.assertIn("pool 'a': deny-commands: delete is denied, but clients can delete with", event["caution"])

    def test_notes(self) -> None:
        """
        What a distribution stands for is logged at the start, and after a change if it is another one.
        """
        servers = replace(A, upstream=("tcp:a:1", "tcp:b:1"))
        noted = []
        for pool in (servers, replace(servers, maxClients=5), replace(servers, distribution="twemproxy")):
            with capturedLogs() as logs:
                self.successResultOf(self.service.change(partial(replace, pools=(pool,))))
            noted.append([event["line"].partition(": a ring")[0] for event in logs if " a ring of " in event["line"]])
        self.assertEqual(
            noted,
            [
                ["pool 'a': the distribution of 2 servers is by default ketama"],
                [],
                ["pool 'a': the distribution of 2 servers is twemproxy"],
            ],
        )
        service = Example()
        service.settings = Settings(pools=(servers,))
        with capturedLogs() as logs:
            service.readFiles()
        (event,) = logs
        self.assertEqual(event["log_level"].name, "info")
        self.assertIn("the distribution of 2 servers is by default ketama: a ring of ", event["line"])

    def test_quiet(self) -> None:
        """
        With C{quiet} nothing is logged.
        """
        with capturedLogs() as logs:
            self.successResultOf(self.service.change(lambda old: replace(old, drainTimeout=1.0), quiet=True))
        self.assertEqual(logs, [])

    def test_same(self) -> None:
        """
        Equal settings are put in force too: the files that they name may have changed.
        """
        self.assertEqual(self.successResultOf(self.service.change(lambda old: old)), [])
        self.assertEqual(len(self.service.applied), 1)

    def test_fixed(self) -> None:
        """
        Settings that need a restart do not change, and the result says so.
        """
        changed = self.service.change(lambda old: replace(old, workers=2, drainTimeout=1.0))
        self.assertEqual(self.successResultOf(changed), ["drain-timeout 5 -> 1", "workers 1 -> 2: needs a restart"])
        self.assertEqual(self.service.applied, [Settings(pools=(A,), drainTimeout=1.0)])

    def test_cannot(self) -> None:
        """
        When a change fails, the settings are the old ones.
        """
        self.service.fault = CannotChange("no")
        self.failureResultOf(self.service.change(lambda old: replace(old, drainTimeout=1.0)), CannotChange)
        self.assertEqual(self.service.settings.drainTimeout, 5.0)
        self.service.fault = None
        self.successResultOf(self.service.change(lambda old: replace(old, drainTimeout=1.0)))

    def test_oneAtATime(self) -> None:
        """
        A change waits for the one before it, and begins with its settings.
        """
        self.service.waits = Deferred()
        first = self.service.change(lambda old: replace(old, drainTimeout=1.0))
        second = self.service.change(lambda old: replace(old, maxUnreadBytes=1 << 20))
        self.assertEqual(len(self.service.applied), 1)
        self.service.waits.callback(None)
        self.assertEqual(self.successResultOf(first), ["drain-timeout 5 -> 1"])
        self.assertEqual(self.successResultOf(second), ["max-unread-bytes 256m -> 1m"])
        self.assertEqual(self.service.settings.drainTimeout, 1.0)

    def test_stopped(self) -> None:
        """
        A service that does not run cannot change.
        """
        self.service.stopService()
        self.failureResultOf(self.service.change(lambda old: old), CannotChange)
