# Copyright txconnpool contributors. See LICENSE.
"""
Tests for the log in JSON, of each command that can write it.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.documents import MANUAL, blocks
from tests.real.processes import dieWithParent
from tests.real.servers import HOST, PATIENCE, SOURCE, ask, freePort, missing, until

TWISTD = "from twisted.scripts.twistd import run; run()"
TWIST = "import sys; sys.argv[0] = 'twist'; from twisted.application.twist._twist import Twist; Twist.main()"


class LogTests(SynchronousTestCase):
    """
    Tests for C{--log-format}.
    """

    def setUp(self) -> None:
        """
        Create a directory for logs, and choose a port.
        """
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.directory = Path(directory.name)
        self.port = freePort()

    def run_(self, code: str, *arguments: str, options: tuple[str, ...] = ()) -> subprocess.Popen[bytes]:
        """
        Start a command with the plugin, and wait until it serves.

        @param arguments: options of the command.
        @param options: options of the plugin.
        """
        listen = f"tcp:{self.port}:interface={HOST}"
        plugin = ["connpool", "--upstream", "memory:", "--listen", listen, *options]
        with open(self.directory / "output", "ab") as output:
            process = subprocess.Popen(
                [sys.executable, "-c", code, *arguments, *plugin], cwd=self.directory, stdout=output, stderr=output,
                env={**os.environ, "PYTHONPATH": str(SOURCE)}, preexec_fn=dieWithParent,
            )  # fmt: skip
        self.addCleanup(self.end, process)

        def serves() -> bool:
            try:
                return ask((HOST, self.port), b"get a\r\n") == b"END\r\n"
            except OSError:
                return False

        until(serves, what="the proxy")
        return process

    def end(self, process: subprocess.Popen[bytes]) -> None:
        """
        Kill a process if it still runs.
        """
        if process.poll() is None:
            process.kill()
            process.wait()

    def lines(self, name: str = "output") -> list[dict[str, Any]]:
        """
        @return: the lines of a file, all of which must be JSON, decoded.
        """
        return [json.loads(line) for line in (self.directory / name).read_text("ascii").splitlines()]

    def assertLife(self, lines: list[dict[str, Any]]) -> None:
        """
        Assert that a log has events of a start and a stop.
        """
        starts = [line for line in lines if line["namespace"] == "txconnpool.proxy" and "listen" in line]
        self.assertEqual(len(starts), 1)
        self.assertEqual((starts[0]["pool"], starts[0]["size"], starts[0]["level"]), ("default", 4, "info"))
        self.assertIn(f"pool default starting on {self.port}", [line["text"] for line in lines])
        self.assertIn("Main loop terminated.", [line["text"] for line in lines])
        self.assertEqual([line for line in lines if not {"time", "level", "namespace", "text"} <= set(line)], [])

    def test_foreground(self) -> None:
        """
        In the foreground the standard output has the lines.
        """
        for code, arguments in ((TWISTD, ("-n", "--pidfile=")), (TWIST, ())):
            (self.directory / "output").unlink(missing_ok=True)
            process = self.run_(code, *arguments, options=("--log-format", "json"))
            process.terminate()
            process.wait(PATIENCE)
            self.assertLife(self.lines())

    def test_text(self) -> None:
        """
        C{twist}, which writes JSON in a format of its own to a file by default, writes text with C{--log-format text}.
        """
        process = self.run_(TWIST, options=("--log-format", "text"))
        process.terminate()
        process.wait(PATIENCE)
        text = (self.directory / "output").read_text("utf-8")
        self.assertIn("[txconnpool.proxy#info] default: ", text)
        self.assertNotIn("{", text)

    def test_daemon(self) -> None:
        """
        A daemon writes the lines to its log file, and opens a new file at SIGUSR1.
        """
        name = "some.log"
        self.run_(TWISTD, "--logfile", name, options=("--log-format", "json"))
        pid = int((self.directory / "twistd.pid").read_text("ascii"))
        self.addCleanup(self.kill, pid)
        os.kill(pid, signal.SIGUSR1)
        until((self.directory / f"{name}.1").exists, what="another log file")
        os.kill(pid, signal.SIGTERM)
        until(lambda: not (self.directory / "twistd.pid").exists(), what="the end of the daemon")
        self.assertLife(self.lines(f"{name}.1") + self.lines(name))
        self.assertEqual((self.directory / "output").read_text("utf-8"), "")

    def test_moved(self) -> None:
        """
        After C{mv} of the log file and SIGUSR1, a daemon writes to a new file of the same name, in each format.
        """
        for form in ((), ("--log-format", "text"), ("--log-format", "json")):
            name = "moved.log"
            self.run_(TWISTD, "--logfile", name, options=form)
            pid = int((self.directory / "twistd.pid").read_text("ascii"))
            self.addCleanup(self.kill, pid)
            path, old = self.directory / name, self.directory / "moved.log.old"
            path.rename(old)
            os.kill(pid, signal.SIGUSR1)
            until(path.exists, what="another log file")
            before = old.read_text("utf-8")
            os.kill(pid, signal.SIGTERM)
            until(lambda: not (self.directory / "twistd.pid").exists(), what="the end of the daemon")
            self.assertEqual(old.read_text("utf-8"), before)
            self.assertIn("Main loop terminated.", path.read_text("utf-8"))
            self.assertFalse((self.directory / f"{name}.1").exists())
            path.unlink()

    def test_logrotate(self) -> None:
        """
        The configuration of C{logrotate} in the manual works.
        """
        reason = missing("logrotate")
        if reason:
            self.skipTest(reason)
        (text,) = (block for block in blocks(MANUAL, "Logs") if "postrotate" in block)
        text = text.replace("/var/log/connpool/", f"{self.directory}/").replace("/run/", f"{self.directory}/")
        (self.directory / "logrotate.conf").write_text(text, "utf-8")
        path, pidFile = self.directory / "connpool.log", self.directory / "connpool.pid"
        self.run_(TWISTD, "--logfile", str(path), "--pidfile", str(pidFile))
        pid = int(pidFile.read_text("ascii"))
        self.addCleanup(self.kill, pid)
        command = ["logrotate", "-f", "-s", str(self.directory / "state"), str(self.directory / "logrotate.conf")]
        subprocess.run(command, check=True, timeout=PATIENCE)
        (old,) = self.directory.glob("connpool.log-*")
        until(path.exists, what="another log file")
        before = old.read_text("utf-8")
        self.assertIn("starting up", before)
        os.kill(pid, signal.SIGTERM)
        until(lambda: not pidFile.exists(), what="the end of the daemon")
        self.assertEqual(old.read_text("utf-8"), before)
        self.assertIn("Main loop terminated.", path.read_text("utf-8"))

    def kill(self, pid: int) -> None:
        """
        Kill the daemon if it still runs.
        """
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass

    def test_impossible(self) -> None:
        """
        If the log cannot be written in this format, one line reports it.
        """
        command = [sys.executable, "-c", TWISTD, "--syslog", "connpool", "--log-format", "json"]
        result = subprocess.run(
            command, env={**os.environ, "PYTHONPATH": str(SOURCE)}, capture_output=True, text=True, timeout=PATIENCE,
            check=False, cwd=self.directory,
        )  # fmt: skip
        self.assertEqual(
            (result.stderr, result.returncode),
            ("log-format = 'json': is for files and the standard output, not for --syslog\n", 1),
        )
