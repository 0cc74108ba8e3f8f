# Copyright txconnpool contributors. See LICENSE.
"""
The README is true: what it tells to type works as it stands there, but for the numbers of ports.

The commands that install are run by C{.ci/run}; here the same programs are taken from where the tests run.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.real.servers import SOURCE, Memcached, Twistd, ask, freePort, missing
from txconnpool.config.settings import OPTIONS
from txconnpool.operate.console.commands import COMMAND_NAMES
from txconnpool.operate.statistics.table import POOL, PROCESS, SERVER

README = (Path(SOURCE) / "README.rst").read_text("utf-8")


def blocks(heading: str) -> list[str]:
    """
    The literal and code blocks below a heading of the README.
    """
    _, _, section = README.partition(f"\n{heading}\n")
    section = re.split(r"\n[^\n]+\n[=-]{3,}\n", section, maxsplit=1)[0]
    found = re.findall(r"(?:::|code-block:: \w+)\n\n((?:(?:    [^\n]*)?\n)+)", section + "\n")
    return [textwrap.dedent(block).strip("\n") + "\n" for block in found]


def optionsText() -> str:
    """
    What the README says of the options.
    """
    lines = []
    for each in OPTIONS:
        default = each.show(each.default)
        lines.append(f"``--{each.name} {each.kind.metavar}``{f' ({default})' if default else ''}")
        lines += textwrap.wrap(each.doc, 120, initial_indent="    ", subsequent_indent="    ", break_on_hyphens=False)
    return "\n".join(lines) + "\n"


def statisticsText() -> str:
    """
    What the README says of the statistics.
    """
    lines = []
    for title, scope in (("The process", PROCESS), ("Each pool", POOL), ("Each server", SERVER)):
        lines += [f"{title}, as ``{scope.prefix}…`` for Prometheus:", ""]
        for each in scope.statistics:
            lines.append(f"``{each.name}`` ({each.kind}{f', by {each.label}' if each.label else ''})")
            lines += textwrap.wrap(
                each.meaning, 120, initial_indent="    ", subsequent_indent="    ", break_on_hyphens=False
            )
        lines.append("")
    return "\n".join(lines)


class ReadmeTests(SynchronousTestCase):
    """
    Each test takes the blocks of one chapter.
    """

    def setUp(self) -> None:
        """
        Choose ports that are free, where the README has the usual ones.
        """
        self.server, self.proxy = freePort(), freePort()
        # Not below trial's own, which may be too deep for a UNIX socket.
        temporary = tempfile.TemporaryDirectory()
        self.addCleanup(temporary.cleanup)
        self.directory = Path(temporary.name)

    def here(self, text: str) -> str:
        """
        Put the ports, programs and paths of this test into what the README says.
        """
        text = text.replace("11211", str(self.server)).replace("11212", str(self.proxy))
        text = text.replace("unix:/tmp/", f"unix:{self.directory.resolve()}/")
        return text.replace(".venv/bin", str(Path(sys.executable).parent))

    def twistd(self, command: str, *more: str) -> Twistd:
        """
        Run a C{twistd} command of the README until the test ends.
        """
        words = shlex.split(command)
        self.assertEqual(Path(words[0]).name, "twistd")
        self.assertEqual(words[1:3], ["-n", "connpool"])
        process = Twistd(*words[3:], *more, plugin="connpool", address=("127.0.0.1", self.proxy))
        self.addCleanup(process.stop)
        return process.start()

    def shell(self, command: str) -> str:
        """
        Run a command of the README to its end.

        @return: what it printed.
        """
        done = subprocess.run(
            ["bash", "-c", command], cwd=self.directory, capture_output=True, text=True, timeout=60, check=False,
            env=dict(os.environ, PYTHONPATH=str(SOURCE)),
        )  # fmt: skip
        self.assertEqual(done.returncode, 0, done.stderr)
        return done.stdout

    def memcached(self) -> None:
        """
        Run a memcached where the README expects one.
        """
        reason = missing("memcached")
        if reason:
            self.skipTest(reason)
        server = Memcached(address=("127.0.0.1", self.server))
        self.addCleanup(server.kill)
        server.start()

    def test_options(self) -> None:
        """
        Every option is explained, with its default.
        """
        self.assertTrue(f"\n\n{optionsText()}\n" in README, f"expected in the README:\n{optionsText()}")

    def test_statistics(self) -> None:
        """
        Every statistic is explained.
        """
        self.assertTrue(f"\n\n{statisticsText()}\n" in README, f"expected in the README:\n{statisticsText()}")

    def test_commands(self) -> None:
        """
        Every command of the console is explained, and no other.
        """
        chapter = README.partition("\nThe console\n")[2].partition("\nChanging settings")[0]
        self.assertEqual(set(re.findall(r"^``([a-z]+)(?: [^`]*)?``  ", chapter, re.MULTILINE)), set(COMMAND_NAMES))

    def test_run(self) -> None:
        """
        The first command runs the proxy, and the session with it goes as printed.
        """
        reason = missing("nc")
        if reason:
            self.skipTest(reason)
        command, session, answer = blocks("Run it")
        last = command.strip().rpartition(" && ")[2]
        self.twistd(self.here(last), "--listen", f"tcp:{self.proxy}:interface=127.0.0.1")
        self.assertEqual(self.shell(self.here(session)).replace("\r", ""), answer)

    def test_real(self) -> None:
        """
        The proxy runs in front of a real memcached.
        """
        self.memcached()
        (command,) = blocks("In front of a real memcached")
        self.twistd(self.here(command))
        self.assertEqual(ask(("127.0.0.1", self.proxy), b"set a 0 0 1\r\nx\r\n"), b"STORED\r\n")

    def test_ini(self) -> None:
        """
        The ini is correct, and both of its pools work.
        """
        self.memcached()
        ini, commands = blocks("With an ini file")
        path = self.directory / "connpool.ini"
        path.write_text(self.here(ini))
        check, run = self.here(commands).strip().split("\n")
        self.assertEqual(self.shell(check), "configuration ok\n")
        self.twistd(run.replace("connpool.ini", str(path.resolve())))
        for address in (("127.0.0.1", self.proxy), str(self.directory.resolve() / "fragments.sock")):
            self.assertEqual(ask(address, b"set a 0 0 1\r\nx\r\n"), b"STORED\r\n")

    def test_tac(self) -> None:
        """
        The application is complete.
        """
        self.memcached()
        (program,) = blocks("In your own application")
        path = self.directory / "proxy.tac"
        path.write_text(self.here(program))
        process = Twistd(plugin=str(path.resolve()), general=["-y"], address=("127.0.0.1", self.proxy))
        self.addCleanup(process.stop)
        process.start()
        self.assertEqual(ask(("127.0.0.1", self.proxy), b"set a 0 0 1\r\nx\r\n"), b"STORED\r\n")
