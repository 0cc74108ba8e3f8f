# Copyright txconnpool contributors. See LICENSE.
"""
Tests that the README and the manual are correct: their commands and programs run unchanged, except for the port
numbers.

C{.ci/run} tests the commands that install txconnpool. These tests use the programs of the current environment.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.documents import MANUAL, README, blocks
from tests.real.servers import SOURCE, Memcached, Redis, Twistd, ask, freePort, missing, withPorts


class ReadmeTests(SynchronousTestCase):
    """
    Tests for the blocks of the chapters.
    """

    def setUp(self) -> None:
        """
        Choose free ports, to replace those in the documents.
        """
        self.server, self.proxy = freePort(), freePort()
        # Not below trial's temporary directory, whose path may be too long for a UNIX socket.
        temporary = tempfile.TemporaryDirectory()
        self.addCleanup(temporary.cleanup)
        self.directory = Path(temporary.name)

    def here(self, text: str) -> str:
        """
        Replace ports, programs and paths in a text of a document by those of this test.
        """
        text = withPorts(text, {"11211": self.server, "11212": self.proxy})
        text = text.replace("unix:fragments", f"unix:{self.directory.resolve()}/fragments")
        return re.sub(r"(\.venv|/opt/connpool)/bin", str(Path(sys.executable).parent), text)

    def twistd(self, command: str, *more: str) -> Twistd:
        """
        Run a C{twistd} command of a document until the test ends.
        """
        words = [word for word in shlex.split(command) if word != "--pidfile="]  # the process here gets it anyway
        self.assertEqual(Path(words[0]).name, "twistd")
        self.assertEqual(words[1:3], ["-n", "connpool"])
        process = Twistd(*words[3:], *more, plugin="connpool", address=("127.0.0.1", self.proxy))
        self.addCleanup(process.stop)
        return process.start()

    def shell(self, command: str) -> str:
        """
        Run a command of a document, and wait for its end.

        @return: its standard output.
        """
        done = subprocess.run(
            ["bash", "-c", command], cwd=self.directory, capture_output=True, text=True, timeout=240, check=False,
            env=dict(os.environ, PYTHONPATH=str(SOURCE)),
        )  # fmt: skip
        self.assertEqual(done.returncode, 0, done.stderr)
        return done.stdout

    def memcached(self) -> None:
        """
        Start a memcached at the port that replaces 11211.
        """
        reason = missing("memcached")
        if reason:
            self.skipTest(reason)
        server = Memcached(address=("127.0.0.1", self.server))
        self.addCleanup(server.kill)
        server.start()

    def test_run(self) -> None:
        """
        The first command runs the proxy, and the example session has the printed output.
        """
        reason = missing("nc")
        if reason:
            self.skipTest(reason)
        command, session, answer = blocks(README, "Run it")
        last = command.strip().rpartition(" && ")[2]
        self.twistd(self.here(last), "--listen", f"tcp:{self.proxy}:interface=127.0.0.1")
        self.assertEqual(self.shell(self.here(session)).replace("\r", ""), answer)

    def test_real(self) -> None:
        """
        The proxy runs in front of a real memcached.
        """
        self.memcached()
        (command,) = blocks(README, "In front of a real memcached")
        self.assertEqual(blocks(MANUAL, "Starting it"), [command.replace(".venv/", "/opt/connpool/")])
        self.twistd(self.here(command))
        self.assertEqual(ask(("127.0.0.1", self.proxy), b"set a 0 0 1\r\nx\r\n"), b"STORED\r\n")

    def test_redis(self) -> None:
        """
        The proxy runs in front of a real Redis, and both examples have the printed output.
        """
        reason = missing("redis-server", "nc")
        if reason:
            self.skipTest(reason)
        server = Redis().start()
        self.addCleanup(server.stop)

        def here(text: str) -> str:
            return self.here(withPorts(text, {"6379": server.address[1], "6380": self.proxy}))

        command, session, answer = blocks(README, "In front of Redis")
        self.twistd(here(command))
        self.assertEqual(self.shell(here(session)).replace("\r", ""), answer)
        (program,) = blocks(README, "The pool for Redis")
        path = self.directory / "program.py"
        path.write_text(here(program))
        self.assertEqual(self.shell(f"{sys.executable} {path}"), "['hello', None]\n")

    def test_ini(self) -> None:
        """
        The ini is valid, and both of its pools work.
        """
        self.memcached()
        ini, commands = blocks(MANUAL, "With an ini file")
        path = self.directory / "connpool.ini"
        path.write_text(self.here(ini))
        check, run = self.here(commands).strip().split("\n")
        self.assertEqual(self.shell(check), "configuration ok\n")
        self.twistd(run.replace("connpool.ini", str(path.resolve())))
        for address in (("127.0.0.1", self.proxy), str(self.directory.resolve() / "fragments.sock")):
            self.assertEqual(ask(address, b"set a 0 0 1\r\nx\r\n"), b"STORED\r\n")

    def test_migrate(self) -> None:
        """
        The commands convert a file of twemproxy into the ini that is shown.
        """
        convert, ini, _ = blocks(MANUAL, "Coming from twemproxy or mcrouter")
        (self.directory / "nutcracker.yml").write_text(
            "cache:\n  listen: 127.0.0.1:22121\n  distribution: ketama\n  servers:\n  - 10.0.0.11:11211:2 cache-1\n"
        )
        command = re.sub(r"(\.venv|/opt/connpool)/bin", str(Path(sys.executable).parent), convert).strip()
        self.assertTrue(self.shell(command.replace("\n", " && ")).endswith("configuration ok\n"))
        self.assertIn(ini, (self.directory / "connpool.ini").read_text("utf-8"))

    def test_tac(self) -> None:
        """
        The application is complete.
        """
        self.memcached()
        (program,) = blocks(README, "In your own application")
        path = self.directory / "proxy.tac"
        path.write_text(self.here(program))
        process = Twistd(plugin=str(path.resolve()), general=["-y"], address=("127.0.0.1", self.proxy))
        self.addCleanup(process.stop)
        process.start()
        self.assertEqual(ask(("127.0.0.1", self.proxy), b"set a 0 0 1\r\nx\r\n"), b"STORED\r\n")
