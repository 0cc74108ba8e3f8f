# Copyright txconnpool contributors. See LICENSE.
"""
Attacks on the console.
"""

from __future__ import annotations

import contextlib
import re
import signal
import socket
import ssl
import tempfile
import time
from pathlib import Path

from tests.certificates import Certificate, missingTLS, quoted
from tests.real.attacks import ATTACKERS, Attacker, SecurityTestCase
from tests.real.operated import execute
from tests.real.servers import HOST, Address, connect, everything, freePort, until
from txconnpool.operate.console.passwords import INTERVAL
from txconnpool.operate.console.protocol import CONSOLES, LOGIN, STRANGERS
from txconnpool.operate.listening import LOG_PERIOD

PASSWORD = "open sesame"

#: The most seconds that an operator waits for the console under attack: each attacker's password may be checked first.
PATIENCE = ATTACKERS * INTERVAL + 30.0


class ConsoleTestCase(SecurityTestCase):
    """
    Base class of tests with a proxy that has a console with a password.
    """

    def arguments(self) -> list[str]:
        self.directory = tempfile.TemporaryDirectory()
        self.addCleanup(self.directory.cleanup)
        password = Path(self.directory.name, "password")
        password.write_text(f"{PASSWORD}\n", "utf-8")
        password.chmod(0o600)
        self.port = freePort()
        return ["--admin", self.endpoint(), "--admin-password-file", str(password)]

    def endpoint(self) -> str:
        return f"tcp:{self.port}:interface={HOST}"

    @property
    def console(self) -> Address:
        """
        The address of the console.
        """
        return HOST, self.port

    def open(self) -> socket.socket:
        """
        Open a console.
        """
        return connect(self.console, PATIENCE)

    def operate(self) -> None:
        """
        Assert that an operator gets in, in time.
        """
        began = time.monotonic()
        with self.open() as console:
            console.sendall(f"auth {PASSWORD}\nshow pools\nquit\n".encode())
            answers = everything(console).decode()
        self.assertIn("OK 1 pool\nOK bye\n", answers)
        self.assertLess(time.monotonic() - began, PATIENCE)

    def attackers(
        self, data: bytes = b"", end: bytes = b"", count: int = ATTACKERS, reads: bool = False
    ) -> list[Attacker]:
        return [Attacker(self.console, data, end, reads) for _ in range(count)]


class PasswordAttackTests(ConsoleTestCase):
    """
    Tests without TLS.
    """

    def test_streams(self) -> None:
        """
        Attackers go on to send after C{quit}, or send empty lines, commands or one long line without a password.
        """
        lines = (b"quit\n", b"\n", b"\xc2\xa0\n", b"pause\n", b"x")
        attackers = [each for line in lines for each in self.attackers(line, line * 20000, ATTACKERS // len(lines))]
        self.attack(*attackers, meanwhile=self.operate)
        self.assertNotIn("paused", self.proxy.log)

    def test_silent(self) -> None:
        """
        Attackers who are silent, or have said C{quit} and stay, lock out nobody, and most are closed at once.
        """
        before = self.descriptors()
        silent = [self.open() for _ in range(100)]
        for each in silent:
            self.addCleanup(each.close)
        self.attack(*self.attackers(b"quit\n", b"", 2 * CONSOLES), meanwhile=self.operate)
        until(lambda: self.descriptors() <= before + STRANGERS + 5, LOGIN / 2, "the end of most")

    def test_guesses(self) -> None:
        """
        Attackers try passwords on many connections. The rate is bounded, the log has one line in a while, and the
        operator gets in.
        """
        guesses = self.attackers(b"auth {log_time}\x1b[2J\x85\n", reads=True)
        began = time.monotonic()
        self.attack(*guesses, meanwhile=self.operate)
        for each in guesses:
            each.close()
        self.assertNotIn("log_time", self.proxy.log)
        self.proxy.signal(signal.SIGTERM)
        self.proxy.wait()
        passed = time.monotonic() - began
        pattern = r" (\d+) wrong passwords?, the last one from 127\.0\.0\.1:\d+$"
        counts = [int(each) for each in re.findall(pattern, self.proxy.log, re.MULTILINE)]
        # The first one at once, and the others together, at the end at last.
        self.assertEqual(counts[0], 1)
        self.assertTrue(2 <= len(counts) <= 2 + passed / LOG_PERIOD, self.proxy.log)
        self.assertEqual(self.proxy.log.count("wrong password"), len(counts))
        self.assertLess(sum(counts), passed / INTERVAL + 3)

    def test_browser(self) -> None:
        """
        A web page can make a browser send a request to the console. Nothing in it is carried out.
        """
        for request in (
            f"POST / HTTP/1.1\r\nHost: localhost\r\n\r\nauth {PASSWORD}\r\nshutdown now\r\n",
            f"auth {PASSWORD} HTTP/1.1\r\nauth {PASSWORD}\r\nshutdown now\r\n",
        ):
            with self.open() as console:
                console.sendall(request.encode())
                try:
                    self.assertEqual(console.recv(100), b"")
                except ConnectionResetError:
                    pass
        self.operate()

    def test_stop(self) -> None:
        """
        A stop waits for nobody who is connected, waits for the reply to a password, or does not read.
        """
        consoles = [self.open() for _ in range(3)]
        for each in consoles:
            self.addCleanup(each.close)
        consoles[1].sendall(b"auth x\n")
        consoles[2].setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 10)
        consoles[2].sendall(f"auth {PASSWORD}\n".encode() + b"help\n" * 10000)
        time.sleep(0.3)
        self.proxy.signal(signal.SIGTERM)
        self.proxy.wait()
        self.assertNotIn("Traceback", self.proxy.log)


class TLSAttackTests(ConsoleTestCase):
    """
    Tests with TLS.
    """

    skip = missingTLS or ConsoleTestCase.skip

    def endpoint(self) -> str:
        host = Certificate(Path(self.directory.name), HOST)
        self.context = ssl.create_default_context(cafile=str(host.certificate))
        return f"ssl:{self.port}:interface={HOST}:privateKey={quoted(host.key)}:certKey={quoted(host.certificate)}"

    def open(self) -> ssl.SSLSocket:
        return self.context.wrap_socket(super().open(), server_hostname=HOST)

    def test_streams(self) -> None:
        """
        Attackers go on to send after C{quit}, or send no password.
        """
        careless = ssl._create_unverified_context()
        attackers = [
            Attacker(self.console, line, line * 20000, tls=careless)
            for line in (b"quit\n", b"\n", b"pause\n", b"x") * (ATTACKERS // 4)
        ]
        self.attack(*attackers, meanwhile=self.operate)

    def test_silent(self) -> None:
        """
        Attackers who do not shake hands, or say C{quit} and stay, lock out nobody, and are closed.
        """
        before = self.descriptors()
        silent = [connect(self.console) for _ in range(300)]
        silent += [self.open() for _ in range(2 * CONSOLES)]
        for each in silent:
            self.addCleanup(each.close)
        for each in silent[-CONSOLES:]:
            each.sendall(b"quit\n")
        self.attack(meanwhile=self.operate)
        until(lambda: self.descriptors() <= before + STRANGERS + 5, LOGIN / 2, "the end of most")
        until(lambda: self.descriptors() <= before, what="the end of all")
        self.assertNotIn("Traceback", self.proxy.log)


class UNIXAttackTests(SecurityTestCase):
    """
    Tests with a UNIX socket and no password.
    """

    def arguments(self) -> list[str]:
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.console = f"{directory.name}/admin.sock"
        return ["--admin", f"unix:{self.console}"]

    def operate(self) -> None:
        """
        Assert that an operator gets in.
        """
        self.assertIn("OK 1 pool\nOK bye\n", execute(self.console, "show pools", "quit"))

    def test_forgotten(self) -> None:
        """
        Consoles that are open, that were quit, and that do not read, do not lock out an operator.
        """
        consoles = [connect(self.console) for _ in range(3 * CONSOLES)]
        for number, each in enumerate(consoles):
            self.addCleanup(each.close)
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it may have been closed for another one
                each.sendall((b"", b"quit\n", b"help\n" * 1000)[number % 3])
        self.attack(meanwhile=self.operate)
        self.assertIn(b"closed for another console", everything(consoles[0]))

    def test_streams(self) -> None:
        """
        Programs send commands as fast as they are taken, and do not read the replies, or go on after C{quit}.
        """
        attackers = [
            Attacker(self.console, line, line * 10000) for line in (b"quit\n", b"help\n", b"nonsense\n", b"\n") * 2
        ]
        self.attack(*attackers, meanwhile=self.operate)
