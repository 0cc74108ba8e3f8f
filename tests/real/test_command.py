# Copyright txconnpool contributors. See LICENSE.
"""
Tests for the command C{twistd connpool} as a process.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.real.processes import dieWithParent
from tests.real.servers import HOST, PATIENCE, SOURCE, Proxy, ask, until


class CommandTests(SynchronousTestCase):
    """
    Tests for the output and the exit code of the command.
    """

    def run_(self, *arguments: str, program: str = "twisted.scripts.twistd") -> subprocess.CompletedProcess[str]:
        """
        Run a command that ends by itself, in a directory of its own.
        """
        self.directory = Path(self.mktemp())
        self.directory.mkdir()
        code = f"import sys; sys.argv[0] = 'twistd'; from {program} import run; run()"
        if program == "twisted.application.twist":
            code = f"import sys; sys.argv[0] = 'twist'; from {program} import _twist; _twist.Twist.main()"
        return subprocess.run(
            [sys.executable, "-c", code, *arguments],
            cwd=self.directory,
            env={**os.environ, "PYTHONPATH": str(SOURCE)},
            preexec_fn=dieWithParent,
            capture_output=True,
            text=True,
            timeout=2 * PATIENCE,
        )

    def taken(self) -> int:
        """
        @return: a port that is in use.
        """
        busy = socket.create_server((HOST, 0))
        self.addCleanup(busy.close)
        port: int = busy.getsockname()[1]
        return port

    def assertOneLine(self, result: subprocess.CompletedProcess[str], line: str) -> None:
        """
        Assert that a command ended with exit code 1 and printed one line, without a traceback.
        """
        self.assertEqual((result.stderr, result.returncode), (f"{line}\n", 1))
        self.assertNotIn("Traceback", result.stdout)

    def test_serves(self) -> None:
        """
        With C{--upstream memory:} the command serves until it is stopped.
        """
        with Proxy(upstream=["memory:"]) as proxy:
            self.assertEqual(ask(proxy.address, b"set a 0 0 1\r\nx\r\n"), b"STORED\r\n")
            self.assertEqual(ask(proxy.address, b"get a\r\n", end=b"END\r\n"), b"VALUE a 0 1\r\nx\r\nEND\r\n")

    def test_checkConfig(self) -> None:
        """
        C{--check-config} accepts the shipped ini: it prints C{configuration ok}, and the exit code is 0.
        """
        result = self.run_("connpool", "--check-config", "--config", str(SOURCE / "conf" / "connpool.ini"))
        self.assertEqual((result.stdout, result.stderr, result.returncode), ("configuration ok\n", "", 0))

    def test_wrongConfig(self) -> None:
        """
        A wrong setting is reported in one line without a traceback, and the exit code is 1, with and without
        C{--check-config}.
        """
        for arguments in (["--check-config"], []):
            result = self.run_("connpool", "--pool-size", "many", *arguments)
            self.assertOneLine(result, "command line: pool-size = 'many': expected a whole number from 1 to 65535")
            self.assertEqual(result.stdout, "")

    def test_takenPort(self) -> None:
        """
        A port in use is reported in one line without a traceback, the exit code is 1, and no pid file remains.
        """
        port = self.taken()
        line = f"cannot listen on {HOST}:{port}: Address already in use; choose another endpoint with --listen"
        arguments = ["connpool", "--upstream", "memory:", "--listen", f"tcp:{port}:interface={HOST}"]
        self.assertOneLine(self.run_("-n", *arguments), line)
        self.assertEqual([each.name for each in self.directory.iterdir()], [])
        self.assertOneLine(self.run_(*arguments, program="twisted.application.twist"), line)

    def test_takenPortOfDaemon(self) -> None:
        """
        If a daemon finds its port in use, the command prints the reason and ends with exit code 1. The log has the
        reason too.
        """
        port = self.taken()
        result = self.run_("connpool", "--upstream", "memory:", "--listen", f"tcp:{port}:interface={HOST}")
        self.assertIn(f"cannot listen on {HOST}:{port}: ", result.stderr)
        self.assertEqual(result.returncode, 1)
        log = (self.directory / "twistd.log").read_text("utf-8")
        self.assertIn(f"cannot listen on {HOST}:{port}: Address already in use", log)
        self.assertNotIn("Traceback", log)
        # The command does not wait for the daemon to end.
        until(lambda: not (self.directory / "twistd.pid").exists(), what="the end of the daemon")

    def test_noDirectory(self) -> None:
        """
        A UNIX socket in a directory that does not exist is reported in one line without a traceback, and the exit code
        is 1.
        """
        result = self.run_("-n", "connpool", "--upstream", "memory:", "--listen", "unix:/nonexistent/socket")
        reason = "/nonexistent/socket: No such file or directory"
        self.assertOneLine(result, f"cannot listen on {reason}; choose another endpoint with --listen")
