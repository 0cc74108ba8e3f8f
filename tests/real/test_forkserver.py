# Copyright txconnpool contributors. See LICENSE.
"""
Tests for L{tests.real.forkserver}.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.real.forkserver import Forked, ForkFailed, ForkServer, forkServer
from tests.real.servers import HOST, SOURCE, Proxy, Twistd, ask, freePort, refuses, serverEndpoint, until

VERSION = b"version\r\n"


class ForkServerTests(SynchronousTestCase):
    """
    Tests for L{ForkServer} and what it forks.
    """

    if sys.platform != "linux":
        skip = "needs Linux"

    def proxy(self) -> Proxy:
        """
        @return: a proxy that was forked.
        """
        proxy = Proxy(upstream=["memory:"]).start()
        self.addCleanup(proxy.stop)
        self.assertIsInstance(proxy._process, Forked)
        return proxy

    def test_child(self) -> None:
        """
        The process is a child of this one, has a session and a directory of its own, writes to its log only, and leaves
        its exit status.
        """
        proxy = self.proxy()
        self.assertTrue(ask(proxy.address, VERSION).startswith(b"VERSION "))
        parent, group, session = Path(f"/proc/{proxy.pid}/stat").read_text("ascii").rpartition(")")[2].split()[1:4]
        self.assertEqual((int(parent), int(group), int(session)), (os.getpid(), proxy.pid, proxy.pid))
        self.assertEqual(os.readlink(f"/proc/{proxy.pid}/cwd"), str(proxy.directory))
        opened = [os.readlink(f"/proc/{proxy.pid}/fd/{number}") for number in range(3)]
        self.assertEqual(opened, ["/dev/null", str(proxy.directory / "log"), str(proxy.directory / "log")])
        self.assertEqual(proxy.stop(), -signal.SIGTERM)
        self.assertIn("Server Shut Down", proxy.log)

    def test_others(self) -> None:
        """
        The processes know nothing of each other: each ends alone, and has only its own connections and files.
        """
        first, second = self.proxy(), self.proxy()
        names = [
            {os.readlink(each) for each in Path(f"/proc/{proxy.pid}/fd").iterdir()} - {"/dev/null"}
            for proxy in (first, second)
        ]
        self.assertEqual(names[0] & names[1], {"anon_inode:[eventpoll]"})
        first.kill()
        self.assertTrue(refuses(first.address))
        self.assertTrue(ask(second.address, VERSION).startswith(b"VERSION "))

    def test_environment(self) -> None:
        """
        The process has the environment that it is given. If it differs in a variable of Python or of this package, the
        fork server is another one, which had it when it imported the package.
        """

        class Pure(Proxy):
            def environment(self) -> dict[str, str]:
                return {**super().environment(), "TXCONNPOOL_PURE": "1"}

        with Pure(upstream=["memory:"]) as pure:
            self.assertIn(b"STAT implementation python\r\n", ask(pure.address, b"stats proxy\r\n", b"END\r\n"))
        self.assertIs(forkServer({"A": "1", "PYTHONPATH": "x"}), forkServer({"A": "2", "PYTHONPATH": "x"}))

    def test_otherwise(self) -> None:
        """
        A process that runs another program, or one that does not want it, is not forked.
        """

        class Alone(Proxy):
            forks = False

        with Alone(upstream=["memory:"]) as alone:
            self.assertNotIsInstance(alone._process, Forked)

    def test_failure(self) -> None:
        """
        A process that fails at its start leaves its exit status and its log.
        """
        address = (HOST, freePort())
        twistd = Twistd("--pool-size", "none", "--listen", serverEndpoint(address), plugin="connpool", address=address)
        with open(twistd.directory / "log", "ab") as log:
            process = twistd._run(twistd.command(), log)
        self.assertEqual(process.wait(), 1)
        self.assertIn("pool-size", twistd.log)
        twistd.stop()

    def test_ended(self) -> None:
        """
        If the fork server has ended, the error says so.
        """
        server = ForkServer({**os.environ, "PYTHONPATH": str(SOURCE)})
        server._process.kill()
        server._process.wait()
        with open(os.devnull, "ab") as output:
            self.assertRaises((ForkFailed, BrokenPipeError), server.twistd, [], output, Path("/"), {})

    def test_threads(self) -> None:
        """
        The fork server does not end with the thread that started it, and neither does what was forked for a thread.
        """
        environment = {**Proxy().environment(), "TXCONNPOOL_TEST": "threads"}
        proxy = Proxy(upstream=["memory:"])
        self.patch(proxy, "environment", lambda: environment)
        self.addCleanup(proxy.stop)
        thread = threading.Thread(target=proxy.start)
        thread.start()
        thread.join()
        self.assertTrue(ask(proxy.address, VERSION).startswith(b"VERSION "))
        proxy.restart()
        self.assertTrue(ask(proxy.address, VERSION).startswith(b"VERSION "))

    def test_end(self) -> None:
        """
        The fork server ends when its parent closes the connection to it.
        """
        server = ForkServer({**os.environ, "PYTHONPATH": str(SOURCE)})
        server._socket.close()
        until(lambda: server._process.poll() is not None)
        self.assertEqual(server._process.returncode, 0)
