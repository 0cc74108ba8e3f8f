# Copyright txconnpool contributors. See LICENSE.
"""
Tests for UNIX sockets: permissions, and sockets that a process left behind.
"""

from __future__ import annotations

import os
import pwd
import stat
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.real.servers import Proxy, ServerFailed, ask


class UNIXTests(SynchronousTestCase):
    """
    Tests for listening on a UNIX socket.
    """

    def proxy(self, path: str, arguments: str = "", *options: str) -> Proxy:
        """
        @return: a proxy that listens on a UNIX socket and on a port.
        """
        proxy = Proxy("--listen", f"unix:{path}{arguments}", *options, upstream=["memory:"])
        self.addCleanup(proxy.stop)
        return proxy

    def setUp(self) -> None:
        """
        Choose a path that is short enough.
        """
        self.first = self.proxy("socket", ":mode=600")
        self.path = self.first.directory / "socket"

    def assertServes(self, path: Path) -> None:
        """
        Assert that a proxy answers at the socket.
        """
        self.assertEqual(ask(str(path), b"get a\r\n"), b"END\r\n")

    def test_life(self) -> None:
        """
        The socket has the configured mode, and is removed when the process ends.
        """
        self.first.start()
        self.assertServes(self.path)
        self.assertEqual(stat.S_IMODE(self.path.stat().st_mode), 0o600)
        directory = self.path.parent
        self.first.signal(15)
        self.first.wait()
        self.assertEqual([each.name for each in directory.iterdir()], ["log"])

    def test_everybody(self) -> None:
        """
        Without a mode every user may connect, as with Twisted's own endpoints.
        """
        self.proxy(f"{self.path}2").start()
        self.assertEqual(stat.S_IMODE(Path(f"{self.path}2").stat().st_mode), 0o666)

    def test_crashed(self) -> None:
        """
        A process replaces the socket of a process that crashed.
        """
        for _ in range(2):
            self.first.start()
            self.first.kill()
            self.assertTrue(self.path.exists())
        self.first.start()
        self.assertServes(self.path)

    def test_lock(self) -> None:
        """
        A lock beside the socket, which anybody may have made in a shared directory, does not prevent a start.
        """
        Path(f"{self.path}.lock").symlink_to("1")
        self.first.start()
        self.assertServes(self.path)

    def test_inUse(self) -> None:
        """
        A process does not replace the socket of a running process. The error names that process.
        """
        self.first.start()
        error = self.assertRaises(ServerFailed, self.proxy(str(self.path)).start)
        text = f"cannot listen on {self.path}: process {self.first.pid} listens there; choose another"
        self.assertIn(text, str(error))
        self.assertNotIn("Traceback", str(error))
        self.assertServes(self.path)

    def test_otherUser(self) -> None:
        """
        A process that was started by root and has become another user ends without a traceback, although it can remove
        neither its socket nor the file with its number.
        """
        if os.geteuid() != 0:
            self.skipTest("this needs root")
        proxy = Proxy(
            "--listen", "unix:socket:mode=666", upstream=["memory:"], general=["--uid", "nobody", "--pidfile=pid"]
        )
        self.addCleanup(proxy.stop)
        proxy.start()
        path = proxy.directory / "socket"
        self.assertServes(path)
        self.assertEqual(os.stat(f"/proc/{proxy.pid}").st_uid, pwd.getpwnam("nobody").pw_uid)
        proxy.signal(15)
        proxy.wait()
        self.assertIn(f"cannot remove the socket {path}: ", proxy.log)
        self.assertNotIn("Traceback", proxy.log)
        self.assertNotIn("Unhandled", proxy.log)
        proxy.start()
        self.assertServes(path)

    def test_workers(self) -> None:
        """
        The same with workers.
        """
        proxy = self.proxy(f"{self.path}3", ":mode=660", "--workers", "2", "--pool-size", "2")
        proxy.upstream = ["tcp:127.0.0.1:9"]
        for _ in range(2):
            proxy.start()
            self.assertEqual(ask(f"{self.path}3", b"mn\r\n")[:12], b"SERVER_ERROR")
            self.assertEqual(stat.S_IMODE(Path(f"{self.path}3").stat().st_mode), 0o660)
            proxy.kill()
