# Copyright txconnpool contributors. See LICENSE.
"""
Tests for L{txconnpool.net.unixports}.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
import tempfile
from pathlib import Path
from typing import Any
from unittest import mock

from twisted.internet.epollreactor import EPollReactor
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.testing import MemoryReactorClock
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from txconnpool.net.reactorproxy import ReactorProxy
from txconnpool.net.unixports import AdoptedPort, BoundPort, isSystemReactor


class PortTests(SynchronousTestCase):
    """
    Tests for L{BoundPort} and L{AdoptedPort}, on a reactor that the test drives.
    """

    def setUp(self) -> None:
        """
        Choose a path that is short enough for a socket.
        """
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.path = str(Path(directory.name) / "socket")
        self.reactor: Any = EPollReactor()
        self.addCleanup(self.endReactor)
        self.factory = Factory.forProtocol(Protocol)
        self.factory.noisy = False

    def endReactor(self) -> None:
        """
        Close the sockets of the reactor.
        """
        for reader in self.reactor.removeAll():
            reader.connectionLost(None)
        for waker in self.reactor._internalReaders:
            waker.connectionLost(None)
        self.reactor._poller.close()

    def accepts(self) -> bool:
        """
        @return: whether a client can connect.
        """
        with socket.socket(socket.AF_UNIX) as client:
            return client.connect_ex(self.path) == 0

    def test_system(self) -> None:
        """
        Reactors of tests, which have no sockets, have ports of their own.
        """
        self.assertTrue(isSystemReactor(self.reactor))
        self.assertFalse(isSystemReactor(MemoryReactorClock()))

    def test_bound(self) -> None:
        """
        The file of a socket has its mode, and is removed when the port stops.
        """
        port = ReactorProxy(self.reactor).listenUNIX(self.path, self.factory, mode=0o640)
        self.assertIsInstance(port, BoundPort)
        self.assertEqual(stat.S_IMODE(os.stat(self.path).st_mode), 0o640)
        self.assertTrue(self.accepts())
        stopped = port.stopListening()
        self.reactor.iterate(0)
        self.successResultOf(stopped)
        self.assertFalse(os.path.exists(self.path))

    def test_notRemoved(self) -> None:
        """
        A port stops, with one line in the log, if the file cannot be removed.
        """
        port = ReactorProxy(self.reactor).listenUNIX(self.path, self.factory)
        stopped = port.stopListening()
        refusal = PermissionError(errno.EPERM, "Operation not permitted")
        with mock.patch("os.unlink", side_effect=refusal), capturedLogs() as logs:
            self.reactor.iterate(0)
        self.successResultOf(stopped)
        self.assertEqual(self.factory.numPorts, 0)
        (line,) = [event for event in logs if event["log_namespace"] == "txconnpool.proxy"]
        self.assertEqual((line["path"], line["why"]), (self.path, "Operation not permitted"))
        self.assertFalse(self.accepts())

    def test_adopted(self) -> None:
        """
        The file of an adopted socket keeps its mode, whether the process owns it or not, and its owner can go on
        listening.
        """
        with socket.socket(socket.AF_UNIX) as owner:
            owner.bind(self.path)
            owner.listen()
            os.chmod(self.path, 0o620)
            with mock.patch("os.chmod", side_effect=PermissionError), mock.patch("os.unlink", side_effect=OSError):
                port = ReactorProxy(self.reactor).adoptStreamPort(owner.fileno(), socket.AF_UNIX, self.factory)
                self.assertIsInstance(port, AdoptedPort)
                self.assertEqual(os.fsdecode(port.getHost().name), self.path)
                self.assertIn(port, self.reactor.getReaders())
                port.stopReading()
                port.startReading()
                self.assertEqual(self.factory.numPorts, 1)
                port.stopListening()
            self.assertNotIn(port, self.reactor.getReaders())
            self.assertEqual(self.factory.numPorts, 0)
            self.assertEqual(stat.S_IMODE(os.stat(self.path).st_mode), 0o620)
            self.assertTrue(self.accepts())
