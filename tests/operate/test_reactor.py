# -*- test-case-name: tests.operate.test_reactor -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Tests for L{txconnpool.operate.reactor}.
"""

from __future__ import annotations

import select
import subprocess
import sys
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.certificates import Certificate, missingTLS, quoted

#: Prints the class of the reactor.
_PROGRAM = """
import sys
from txconnpool.operate.reactor import processReactor
if sys.argv[1:2] == ["before"]:
    from twisted.internet.selectreactor import install
    install()
    del sys.argv[1]
print(type(processReactor(*sys.argv[1:])).__name__)
"""


#: Reads and checks settings, and prints whether that has installed a reactor.
_SETTINGS = """
import sys
from txconnpool.tap import Options
Options().parseOptions(sys.argv[1:])
print("twisted.internet.reactor" in sys.modules)
"""


class ProcessReactorTests(SynchronousTestCase):
    """
    Tests for L{processReactor<txconnpool.operate.reactor.processReactor>}, each in a process of its own.
    """

    def reactor(self, *arguments: str) -> str:
        """
        @return: the name of the reactor's class.
        """
        done = subprocess.run(
            [sys.executable, "-c", _PROGRAM, *arguments], capture_output=True, text=True, check=True, timeout=600
        )
        return done.stdout.strip()

    def test_ours(self) -> None:
        """
        Where there is epoll, our reactor is installed.
        """
        self.assertEqual(self.reactor(), "TurnReactor")

    if not hasattr(select, "epoll"):
        test_ours.skip = "no epoll"  # type: ignore[attr-defined]

    def test_settings(self) -> None:
        """
        Settings are read and checked without a reactor, whatever the addresses, so that ours can be installed after
        that.
        """
        directory = Path(self.mktemp())
        directory.mkdir()
        host = Certificate(directory, "host")
        files = f"privateKey={quoted(host.key)}:certKey={quoted(host.certificate)}"
        authority = quoted(directory)
        upstream = "tcp:127.0.0.1:9", "unix:/socket", "memory:", f"tls:127.0.0.2:1:trustRoots={authority}"
        options = [f"--upstream={each}" for each in upstream]
        for listen in ("tcp:1", "unix:socket", f"ssl:2:{files}", f"ssl:3:{files}:caCertsDir={authority}"):
            options.append(f"--listen={listen}")
        for chosen in (options, ["--upstream=dns:cache.example:11211"], ["--upstream=elasticache:127.0.0.1:11211"]):
            done = subprocess.run(
                [sys.executable, "-c", _SETTINGS, *chosen], capture_output=True, text=True, check=False, timeout=600
            )
            self.assertEqual((done.stdout, done.returncode), ("False\n", 0), done.stderr + done.stdout)

    test_settings.skip = missingTLS  # type: ignore[attr-defined]

    def test_installed(self) -> None:
        """
        A reactor that is installed already is kept.
        """
        self.assertEqual(self.reactor("before"), "SelectReactor")

    def test_chosen(self) -> None:
        """
        A worker has the reactor of its parent.
        """
        self.assertEqual(self.reactor("twisted.internet.selectreactor"), "SelectReactor")

    def test_unknown(self) -> None:
        """
        A module that cannot install a reactor leaves the choice to Twisted.
        """
        for module in ("txconnpool.none", "txconnpool.errors"):
            self.assertIn(self.reactor(module), ("EPollReactor", "PollReactor", "SelectReactor"))
