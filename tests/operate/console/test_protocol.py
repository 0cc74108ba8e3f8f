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
    Tests for L{Console}.
    """

    def test_interface(self) -> None:
        """
        A console is notified when its peer closes one side of the connection.
        """
        verifyObject(IHalfCloseableProtocol, self.open().console)

    def test_pieces(self) -> None:
        """
        Lines may arrive in any pieces. Empty lines are ignored.
        """
        terminal = self.open()
        for byte in b"\n  \npause a\r\nresume":
            terminal.console.dataReceived(bytes([byte]))
        self.assertEqual(terminal.turn(), "OK done\n")
        self.assertEqual(self.running.orders, [("pause", "a")])

    def test_oneAfterAnother(self) -> None:
        """
        A command begins when the one before it has ended. Meanwhile nothing is read.
        """
        waiting: Deferred[str] = Deferred()
        self.running.answers["pause"] = waiting
        terminal = self.open()
        self.assertEqual(terminal.enter("pause", "resume"), "")
        self.assertEqual((self.running.orders, terminal.producerState), ([("pause", None)], "paused"))
        waiting.callback("at last")
        self.assertEqual(terminal.turn(), "OK at last\nOK done\n")
        self.assertEqual(terminal.producerState, "producing")

    def test_notUTF8(self) -> None:
        """
        A line that is not UTF-8 gets an error.
        """
        terminal = self.open()
        terminal.console.dataReceived(b"\xff\n")
        self.assertIn("ERROR no command '\ufffd'", terminal.turn())

    def test_longLine(self) -> None:
        """
        A line that is too long gets an error, and the connection is closed.
        """
        terminal = self.open()
        terminal.console.dataReceived(b"x" * LINE_MAX)
        self.assertFalse(terminal.disconnecting)
        terminal.console.dataReceived(b"x")
        self.assertEqual(terminal.turn(), f"ERROR the line is longer than {LINE_MAX} bytes\n")
        self.assertTrue(terminal.disconnecting)

    def test_idle(self) -> None:
        """
        A console is closed after L{IDLE} seconds without a line. The time begins anew with each line and with the end
        of each command.
        """
        waiting: Deferred[str] = Deferred()
        self.running.answers["pause"] = waiting
        terminal = self.open()
        self.reactor.advance(IDLE - 1)
        terminal.enter("pause")
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
        While the peer does not read replies, no command is carried out. After L{IDLE} seconds the connection is
        aborted.
        """
        terminal = self.open()
        terminal.console.pauseProducing()
        self.assertEqual(terminal.enter("pause"), "")
        self.assertEqual((self.running.orders, terminal.producerState), ([], "paused"))
        terminal.console.resumeProducing()
        self.assertEqual(terminal.turn(), "OK done\n")
        terminal.console.pauseProducing()
        self.reactor.advance(IDLE)
        self.assertTrue(terminal.disconnected)

    def test_halfClosed(self) -> None:
        """
        When the peer closes its side, the complete lines are carried out, then the console is closed.
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
        When the connection is lost, the command that is being carried out goes on, and no other begins.
        """
        waiting: Deferred[str] = Deferred()
        self.running.answers["pause"] = waiting
        terminal = self.open()
        terminal.enter("pause", "resume")
        terminal.console.stopProducing()
        terminal.hangUp()
        waiting.callback("done")
        self.assertEqual((terminal.turn(), self.running.orders), ("", [("pause", None)]))

    def test_tooMany(self) -> None:
        """
        One console more than L{CONSOLES} gets an error and is closed.
        """
        for _ in range(CONSOLES):
            self.open()
        terminal = self.open()
        self.assertEqual(terminal.turn(), f"ERROR too many consoles; the limit is {CONSOLES}\n")
        self.assertTrue(terminal.disconnecting)
        terminal.hangUp()
        self.terminals[0].hangUp()
        self.assertEqual(self.enter("pause"), "OK done\n")


class PasswordTests(ConsoleTestCase):
    """
    Tests for a console with a password.
    """

    password = b"open sesame"

    @covers("28")
    def test_stranger(self) -> None:
        """
        Without the password every command but C{quit} gets an error.
        """
        self.assertEqual(self.enter("pause", "help", "quit"), "ERROR expected auth PASSWORD first\n" * 2 + "OK bye\n")
        self.assertEqual(self.running.orders, [])

    def test_right(self) -> None:
        """
        With the password every command is carried out. The password is not logged.
        """
        with capturedLogs() as logs:
            replies = self.enter("auth open sesame", "pause")
        self.assertEqual(replies, "OK welcome; `help` lists the commands\nOK done\n")
        self.assertNotIn("sesame", str(logs))

    @covers("28")
    def test_wrong(self) -> None:
        """
        A wrong password costs time, and the third one closes the console. The log has the address of the peer, not the
        password.
        """
        terminal = self.open()
        for number in range(TRIES):
            with capturedLogs() as logs:
                self.assertEqual(terminal.enter("auth open" + " sesame" * number * 2, "pause"), "")
            self.assertNotIn("open", str([event for event in logs if "peer" in event]))
            self.assertEqual(len(logs), 1)
            self.reactor.advance(PENALTY)
            self.assertIn("ERROR wrong password\n", terminal.turn())
        self.assertTrue(terminal.disconnecting)
        self.assertEqual(self.running.orders, [])

    def test_constantTime(self) -> None:
        """
        The time of the comparison does not depend on how much of a password is right.
        """
        compared: list[tuple[bytes, bytes]] = []

        def compare(*both: Any) -> bool:
            compared.append(both)
            return False

        self.patch(hmac, "compare_digest", compare)
        terminal = self.open()
        terminal.enter("auth x")
        self.reactor.advance(PENALTY)
        terminal.turn()
        self.assertEqual(compared, [(b"x", self.password)])

    def test_goneMeanwhile(self) -> None:
        """
        The connection may be lost before the reply to a wrong password.
        """
        terminal = self.open()
        terminal.enter("auth x")
        terminal.hangUp()
        self.reactor.advance(PENALTY)
        self.assertEqual(terminal.turn(), "")
