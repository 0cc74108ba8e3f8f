# Copyright txconnpool contributors. See LICENSE.
"""
Tests for L{txconnpool.operate.console.protocol}.
"""

from __future__ import annotations

import hmac
import time
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.logger import capturedLogs, formatEvent
from zope.interface.verify import verifyObject

from tests.bugs import covers
from tests.operate.consoles import ConsoleTestCase
from txconnpool import __version__
from txconnpool.operate.console.passwords import INTERVAL
from txconnpool.operate.console.protocol import (
    CONSOLES,
    IDLE,
    LINE_MAX,
    LINGER,
    LOGIN,
    PENALTY,
    STRANGERS,
    TRIES,
)
from txconnpool.operate.listening import LOG_PERIOD


class ConsoleTests(ConsoleTestCase):
    """
    Tests for L{Console}.
    """

    def test_interface(self) -> None:
        """
        A console is notified when its peer closes one side of the connection.
        """
        verifyObject(IHalfCloseableProtocol, self.open().console)

    def test_greeting(self) -> None:
        """
        A console that needs no password greets, and C{exit} and C{quit} end it.
        """
        for word in ("exit", "quit", "EXIT"):
            terminal = self.open()
            self.assertEqual(
                terminal.greeting,
                f"txconnpool {__version__}: `help` lists the commands, `exit` closes the console\n",
            )
            self.assertEqual((terminal.enter(word), terminal.disconnecting), ("OK bye\n", True))

    def test_events(self) -> None:
        """
        The log has the commands that do something, and not what was mistyped.
        """
        terminal = self.open()
        with capturedLogs() as logs:
            terminal.enter("puase", "pause a b c", "help", "show pools x y", "pause a")
        self.assertEqual([event["line"] for event in logs], ["pause a"])

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

    def test_turns(self) -> None:
        """
        A console that sends many lines at once has one of them carried out in each turn of the reactor, in turn with
        the other consoles, and nothing of it is read meanwhile. A line of blanks that are not ASCII counts too.
        """
        terminals = [self.open() for _ in range(2)]
        for name, terminal in zip("ab", terminals, strict=True):
            terminal.console.dataReceived(b"pause 1%b\n\xc2\xa0\npause 2%b\nunfinished" % (2 * (name.encode(),)))
            self.assertEqual((self.running.orders[-1], terminal.producerState), (("pause", f"1{name}"), "paused"))
        self.reactor.advance(0)
        self.assertEqual([name for _, name in self.running.orders], ["1a", "1b", "2a", "2b"])
        self.assertEqual([each.producerState for each in terminals], ["producing"] * 2)

    def test_closedBetweenLines(self) -> None:
        """
        A console that is closed or lost before the next line's turn carries out no more.
        """
        closed, lost = self.open(), self.open()
        for terminal in (closed, lost):
            terminal.console.dataReceived(b"pause\nresume\n")
        closed.console.end("bye")
        lost.hangUp()
        self.assertEqual(closed.turn().splitlines()[-1], "bye")
        self.assertEqual(self.running.orders, [("pause", None)] * 2)

    def test_notUTF8(self) -> None:
        """
        A line that is not UTF-8 gets an error.
        """
        terminal = self.open()
        terminal.console.dataReceived(b"\xff\n")
        self.assertIn("ERROR no command '\ufffd'", terminal.turn())

    def test_printable(self) -> None:
        """
        Replies have no characters that control the terminal, and can always be encoded.
        """
        self.running.answers["pause"] = "\x1b[2J\r\u202e\udcff {x} \u00e9"
        self.assertEqual(self.enter("pause"), "OK \\x1b[2J\\r\\u202e\\udcff {x} \u00e9\n")

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
        One console more than L{CONSOLES} is served, and the one that was idle longest is closed. A command that is
        being carried out is not idle.
        """
        self.running.answers["pause"] = Deferred()
        busy = self.open()
        busy.enter("pause")
        others = [self.open() for _ in range(CONSOLES - 1)]
        self.reactor.advance(1)
        others[0].enter("resume")
        self.reactor.advance(1)
        self.assertFalse(any(each.disconnecting for each in self.terminals))
        for number in (1, 2):
            self.assertEqual(self.enter("resume"), "OK done\n")
            self.assertTrue(
                others[number]
                .turn()
                .endswith("ERROR closed for another console; the limit is 8, and this one was idle longest\n")
            )
            self.assertTrue(others[number].disconnecting)
            self.assertFalse(others[0].disconnecting or busy.disconnecting or others[number + 1].disconnecting)

    def test_allBusy(self) -> None:
        """
        If all consoles are busy, or their peers do not read, one is closed nevertheless.
        """
        self.running.answers["pause"] = Deferred()
        for _ in range(CONSOLES):
            self.open().enter("pause")
        self.terminals[0].console.pauseProducing()
        self.assertEqual(self.enter("pause"), "")
        self.assertTrue(self.terminals[0].disconnected)
        self.assertEqual(self.enter("resume"), "OK done\n")
        self.assertTrue(self.terminals[1].disconnecting)

    def test_ended(self) -> None:
        """
        After its end a console drops what comes, does not count any more, and is aborted if its peer does not let it
        be closed.
        """
        for _ in range(2 * CONSOLES):
            self.enter("quit")
        terminal = self.terminals[-1]
        for _ in range(100):
            terminal.console.dataReceived(b"pause\n" * 1000)
        self.assertEqual((terminal.console._data, self.running.orders), (b"", []))
        self.assertEqual(terminal.turn(), "OK bye\n")
        self.reactor.advance(LINGER - 0.1)
        self.assertFalse(terminal.disconnected)
        self.reactor.advance(0.1)
        self.assertTrue(all(each.disconnected for each in self.terminals))

    def test_foreign(self) -> None:
        """
        A request in HTTP, as a web page can make a browser send it, and a TLS handshake close the console at once.
        """
        for data in (
            b"POST / HTTP/1.1\r\nHost: a\r\n\r\npause\r\n",
            b"GET /",
            b"pause HTTP/1.1\r\npause\r\n",
            b"pause x HTTP/1.0\npause\n",
            b"BREW / HTTP/2\npause\n",
            b"\r\n\r\nPUT x\npause\n",
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\npause\n",
            b"\x16\x03\x01\x00\xf0\npause\n",
        ):
            terminal = self.open()
            terminal.console.dataReceived(data)
            self.assertEqual((terminal.turn(), terminal.disconnected), ("", True), data)
        self.assertEqual(self.running.orders, [])

    def test_emptyLines(self) -> None:
        """
        Many empty lines take little time.
        """
        terminal = self.open()
        began = time.process_time()
        terminal.console.dataReceived(b"\n" * 1000000 + b"pause\n")
        self.assertLess(time.process_time() - began, 0.5)
        self.assertEqual(terminal.turn(), "OK done\n")


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
        self.assertEqual((self.open().greeting, self.enter("exit")), ("", "OK bye\n"))

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
        A wrong password costs time, and the third one closes the console.
        """
        terminal = self.open()
        for number in range(TRIES):
            self.assertEqual(terminal.enter("auth open" + " sesame" * number * 2), "")
            self.reactor.advance(PENALTY)
            self.assertIn("ERROR wrong password\n", terminal.turn())
        self.assertTrue(terminal.disconnecting)
        self.assertEqual(self.running.orders, [])

    def test_logged(self) -> None:
        """
        The log has one line in a period for wrong passwords, with their number and the address of the last one. It has
        not what was typed.
        """
        with capturedLogs() as logs:
            for number in range(5):
                self.open(f"10.0.0.{number}").enter("auth {log_time}\x1b[2J secret")
            self.reactor.pump([INTERVAL] * 5)
            self.assertEqual([(event["count"], event["client"]) for event in logs], [(1, "10.0.0.0:1")])
            self.reactor.advance(LOG_PERIOD)
        self.assertEqual((logs[-1]["count"], logs[-1]["client"], len(logs)), (4, "10.0.0.4:1", 2))
        texts = [formatEvent(event).partition(",")[0] for event in logs]
        self.assertEqual(texts, ["console: 1 wrong password", "console: 4 wrong passwords"])
        self.assertNotIn("secret", str(logs))

    def test_guesses(self) -> None:
        """
        However many consoles try passwords, one is checked in L{INTERVAL} seconds, and each has its turn in less than
        L{LOGIN} seconds. The right one is accepted then.
        """
        compared: list[bytes] = []

        def compare(given: bytes, right: bytes) -> bool:
            compared.append(given)
            return given == right

        self.patch(hmac, "compare_digest", compare)
        for number in range(STRANGERS - 1):
            self.open(f"10.0.{number}.1").enter(f"auth {number}")
        operator = self.open()
        self.assertEqual(operator.enter("auth open sesame", "pause"), "")
        self.assertEqual(len(compared), 1)
        for number in range(1, STRANGERS):
            self.reactor.advance(INTERVAL)
            self.assertEqual(len(compared), number + 1)
        self.assertLess(self.reactor.seconds(), LOGIN)
        self.assertEqual(operator.turn(), "OK welcome; `help` lists the commands\nOK done\n")

    def test_late(self) -> None:
        """
        A console that has not logged in is closed after L{LOGIN} seconds, whatever it sends, also while its password
        waits. One that has logged in is not.
        """
        silent, drip, waiting, right = self.open(), self.open(), self.open(), self.open()
        right.enter("auth open sesame")
        for _ in range(9):
            self.reactor.advance(LOGIN / 10)
            drip.console.dataReceived(b" a")
        waiting.enter("auth x")
        self.reactor.advance(LOGIN / 10)
        self.reactor.pump([0.01] * 10)
        for terminal in (silent, drip, waiting):
            self.assertIn(f"ERROR expected auth PASSWORD within {LOGIN:g} seconds\n", terminal.turn())
            self.assertTrue(terminal.disconnecting)
        self.assertEqual(right.enter("pause"), "OK done\n")

    def test_strangers(self) -> None:
        """
        Consoles that have not logged in have a bound of their own, beyond which the oldest one of the busiest network
        is closed. They do not count for those that have logged in.
        """
        operator = self.open("192.0.2.7")
        strangers = [self.open() for _ in range(STRANGERS + 2)]
        self.assertEqual([each for each in self.terminals if each.disconnected], strangers[:3])
        self.assertEqual(
            operator.enter("auth open sesame", "pause"), "OK welcome; `help` lists the commands\nOK done\n"
        )
        self.open()
        self.assertEqual([each for each in self.terminals if each.disconnected], strangers[:3])

    def test_operators(self) -> None:
        """
        One more login than L{CONSOLES} closes the console that was idle longest.
        """
        for _ in range(CONSOLES + 1):
            self.reactor.advance(INTERVAL)
            self.assertIn("OK welcome", self.enter("auth open sesame"))
        self.assertEqual([each for each in self.terminals if each.disconnecting], self.terminals[:1])

    def test_mistakes(self) -> None:
        """
        A console that has not logged in may make L{TRIES} mistakes.
        """
        for line in ("pause", "\xa0", "auth"):
            terminal = self.open()
            terminal.console.dataReceived(f"{line}\n".encode() * 10000)
            self.reactor.pump([INTERVAL, PENALTY] * TRIES)
            self.assertEqual(terminal.turn().count("ERROR "), TRIES)
            self.assertTrue(terminal.disconnecting)

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
        When the connection is lost, or the console is closed, before the reply to a password, no timer is left.
        """
        for wait in (False, True):
            terminal, other = self.open(), self.open()
            terminal.enter("auth x")
            other.enter("auth open sesame")
            if wait:
                self.reactor.advance(INTERVAL / 2)
            other.hangUp()
            terminal.hangUp()
            self.factory.wrongPasswords.stop()
            self.assertEqual(self.reactor.getDelayedCalls(), [])
            self.assertEqual(terminal.turn(), "")
            self.reactor.advance(INTERVAL)
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_closed(self) -> None:
        """
        A stop ends consoles that wait for the reply to a password.
        """
        terminal = self.open()
        terminal.enter("auth x")
        closed = self.factory.close()
        self.reactor.advance(LINGER)
        self.assertTrue(terminal.disconnected)
        terminal.hangUp()
        self.successResultOf(closed)
