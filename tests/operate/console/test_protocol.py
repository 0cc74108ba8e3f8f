# Copyright txconnpool contributors. See LICENSE.
"""
Tests for L{txconnpool.operate.console.protocol}.
"""

from __future__ import annotations

import hmac
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.logger import capturedLogs
from zope.interface.verify import verifyObject

from tests.bugs import covers
from tests.operate.consoles import ConsoleTestCase
from txconnpool.operate.console.protocol import CONSOLES, IDLE, LINE_MAX, PENALTY, TRIES


class ConsoleTests(ConsoleTestCase):
    """
    Tests for the console itself.
    """

    def test_interface(self) -> None:
        """
        The console hears when nothing more will be typed.
        """
        verifyObject(IHalfCloseableProtocol, self.open().console)

    def test_pieces(self) -> None:
        """
        It does not matter in which pieces lines arrive; empty ones say nothing.
        """
        terminal = self.open()
        for byte in b"\n  \npause a\r\nresume":
            terminal.console.dataReceived(bytes([byte]))
        self.assertEqual(terminal.turn(), "OK done\n")
        self.assertEqual(self.running.orders, [("pause", "a")])

    def test_oneAfterAnother(self) -> None:
        """
        A command begins when the one before it has ended, and meanwhile nothing is read.
        """
        waiting: Deferred[str] = Deferred()
        self.running.answers["pause"] = waiting
        terminal = self.open()
        self.assertEqual(terminal.say("pause", "resume"), "")
        self.assertEqual((self.running.orders, terminal.producerState), ([("pause", None)], "paused"))
        waiting.callback("at last")
        self.assertEqual(terminal.turn(), "OK at last\nOK done\n")
        self.assertEqual(terminal.producerState, "producing")

    def test_notUTF8(self) -> None:
        """
        What is no text is an error like any other.
        """
        terminal = self.open()
        terminal.console.dataReceived(b"\xff\n")
        self.assertIn("ERROR no command '\ufffd'", terminal.turn())

    def test_longLine(self) -> None:
        """
        A line that is too long is an error, and the end.
        """
        terminal = self.open()
        terminal.console.dataReceived(b"x" * LINE_MAX)
        self.assertFalse(terminal.disconnecting)
        terminal.console.dataReceived(b"x")
        self.assertEqual(terminal.turn(), f"ERROR the line is longer than {LINE_MAX} bytes\n")
        self.assertTrue(terminal.disconnecting)

    def test_idle(self) -> None:
        """
        A console at which nobody types is closed. Each line, and the end of each command, begins a new time.
        """
        waiting: Deferred[str] = Deferred()
        self.running.answers["pause"] = waiting
        terminal = self.open()
        self.reactor.advance(IDLE - 1)
        terminal.say("pause")
        self.reactor.advance(10 * IDLE)
        self.assertFalse(terminal.disconnecting)
        waiting.callback("done")
        self.reactor.advance(IDLE - 1)
        self.assertFalse(terminal.disconnecting)
        terminal.clear()
        self.reactor.advance(1)
        self.assertEqual(terminal.turn(), f"ERROR nothing was typed for {IDLE:g} seconds\n")
        self.assertTrue(terminal.disconnecting)

    def test_notReading(self) -> None:
        """
        While answers are not read nothing more is done; if that lasts, the connection is closed by force.
        """
        terminal = self.open()
        terminal.console.pauseProducing()
        self.assertEqual(terminal.say("pause"), "")
        self.assertEqual((self.running.orders, terminal.producerState), ([], "paused"))
        terminal.console.resumeProducing()
        self.assertEqual(terminal.turn(), "OK done\n")
        terminal.console.pauseProducing()
        self.reactor.advance(IDLE)
        self.assertTrue(terminal.disconnected)

    def test_halfClosed(self) -> None:
        """
        When nothing more will be typed, what was typed is done; then the console is closed.
        """
        waiting: Deferred[str] = Deferred()
        self.running.answers["pause"] = waiting
        terminal = self.open()
        terminal.console.dataReceived(b"pause\nresume\nunfinished")
        terminal.console.readConnectionLost()
        terminal.console.writeConnectionLost()
        self.assertFalse(terminal.disconnecting)
        waiting.callback("done")
        self.assertEqual(terminal.turn(), "OK done\nOK done\n")
        self.assertTrue(terminal.disconnecting)

    def test_gone(self) -> None:
        """
        When the person is gone, what was begun is done, and nothing else.
        """
        waiting: Deferred[str] = Deferred()
        self.running.answers["pause"] = waiting
        terminal = self.open()
        terminal.say("pause", "resume")
        terminal.console.stopProducing()
        terminal.hangUp()
        waiting.callback("done")
        self.assertEqual((terminal.turn(), self.running.orders), ("", [("pause", None)]))

    def test_tooMany(self) -> None:
        """
        One console more than there may be is told so and closed.
        """
        for _ in range(CONSOLES):
            self.open()
        terminal = self.open()
        self.assertEqual(terminal.turn(), f"ERROR too many consoles; the limit is {CONSOLES}\n")
        self.assertTrue(terminal.disconnecting)
        terminal.hangUp()
        self.terminals[0].hangUp()
        self.assertEqual(self.say("pause"), "OK done\n")


class PasswordTests(ConsoleTestCase):
    """
    Tests for a console that asks for a password.
    """

    password = b"open sesame"

    @covers("28")
    def test_stranger(self) -> None:
        """
        Without the password nothing is told or done.
        """
        self.assertEqual(self.say("pause", "help", "quit"), "ERROR expected auth PASSWORD first\n" * 2 + "OK bye\n")
        self.assertEqual(self.running.orders, [])

    def test_right(self) -> None:
        """
        With it everything may be done. It is not in the log.
        """
        with capturedLogs() as logs:
            told = self.say("auth open sesame", "pause")
        self.assertEqual(told, "OK welcome; `help` lists the commands\nOK done\n")
        self.assertNotIn("sesame", str(logs))

    @covers("28")
    def test_wrong(self) -> None:
        """
        A wrong one costs time; after a few the console is closed. They are not in the log, but where they came from.
        """
        terminal = self.open()
        for number in range(TRIES):
            with capturedLogs() as logs:
                self.assertEqual(terminal.say("auth open" + " sesame" * number * 2, "pause"), "")
            self.assertNotIn("open", str([event for event in logs if "peer" in event]))
            self.assertEqual(len(logs), 1)
            self.reactor.advance(PENALTY)
            self.assertIn("ERROR wrong password\n", terminal.turn())
        self.assertTrue(terminal.disconnecting)
        self.assertEqual(self.running.orders, [])

    def test_constantTime(self) -> None:
        """
        How long the comparison takes does not depend on how much of a password is right.
        """
        compared: list[tuple[bytes, bytes]] = []

        def compare(*both: Any) -> bool:
            compared.append(both)
            return False

        self.patch(hmac, "compare_digest", compare)
        terminal = self.open()
        terminal.say("auth x")
        self.reactor.advance(PENALTY)
        terminal.turn()
        self.assertEqual(compared, [(b"x", self.password)])

    def test_goneMeanwhile(self) -> None:
        """
        Who has typed a wrong password may be gone before that is told.
        """
        terminal = self.open()
        terminal.say("auth x")
        terminal.hangUp()
        self.reactor.advance(PENALTY)
        self.assertEqual(terminal.turn(), "")
