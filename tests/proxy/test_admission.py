# Copyright txconnpool contributors. See LICENSE.
"""
Tests for L{txconnpool.proxy.admission}: clients that have no session yet.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.logger import capturedLogs, formatEvent

from tests.clients import SessionTestCase, get
from tests.pipes import Pipe
from tests.stage import Stage
from txconnpool.proxy.admission import TRIES, WAITING
from txconnpool.proxy.flow import SessionLimits
from txconnpool.proxy.logins import DELAY, DELAY_MAX, FORGET, FREE, PERIOD

RIGHT = b"set x 0 0 10\r\njoe secret\r\n"
WRONG = b"set x 0 0 9\r\njoe wrong\r\n"
FAILURE = b"CLIENT_ERROR authentication failure\r\n"
TOO_MANY = b"ERROR Too many open connections\r\n"


class AdmissionTestCase(SessionTestCase):
    """
    Base class of these tests.
    """

    def begin(self, login: bool = True, **limits: Any) -> Stage:
        """
        @param login: whether clients have to log in.

        @return: a stage.
        """
        stage = self.stage(sessionLimits=SessionLimits(**limits))
        if login:
            stage.sessions.gate.accepted = ((b"joe", b"secret"),)
        return stage

    def client(self, stage: Stage, host: str = "192.0.2.1", secure: bool = False) -> Pipe:
        """
        Connect a client.
        """
        client = Pipe(stage.clock).connect(stage.sessions.buildProtocol(IPv4Address("TCP", host, 1), secure))
        stage.clients.append(client)
        stage.turns()
        return client

    def fail(self, stage: Stage, count: int, host: str = "192.0.2.1") -> None:  # type: ignore[override]
        """
        Let logins from an address fail.
        """
        for _ in range(count):
            client = self.client(stage, host)
            client.send(WRONG)
            stage.clock.advance(DELAY_MAX)
            client.lose()


class TimeTests(AdmissionTestCase):
    """
    Tests for the time limit and the number of clients without a session.
    """

    def test_noHandshake(self) -> None:
        """
        A client that does not complete its TLS handshake is closed after the time limit.
        """
        stage = self.begin(login=False, loginTimeout=5.0)
        client = self.client(stage, secure=True)
        stage.clock.advance(4.9)
        self.assertTrue(client.connected)
        stage.clock.advance(0.2)
        stage.turns()
        self.assertEqual((client.connected, stage.sessions.admission.expired), (False, 1))
        self.assertEqual((stage.clock.getDelayedCalls(), stage.sessions.hosts), ([], {}))

    def test_handshake(self) -> None:
        """
        After the handshake a client has a session without a time limit.
        """
        stage = self.begin(login=False)
        client = self.client(stage, secure=True)
        client.protocol.handshakeCompleted()
        self.assertEqual(stage.clock.getDelayedCalls(), [])
        self.assertEqual(stage.ask(client, b"get a\r\n"), get(b"a"))
        client.lose()
        self.assertEqual((stage.sessions.sessions, stage.sessions.hosts), ({}, {}))

    def test_noLogin(self) -> None:
        """
        A client that does not log in is closed after the time limit, whatever else it sends. After a login there is no
        limit.
        """
        stage = self.begin(loginTimeout=5.0)
        quiet, busy, right = (self.client(stage) for _ in range(3))
        self.assertEqual(stage.ask(right, RIGHT), b"STORED\r\n")
        for _ in range(5):
            busy.send(b"get a\r\n")
            stage.clock.advance(1.1)
        stage.turns()
        self.assertEqual([each.connected for each in (quiet, busy, right)], [False, False, True])
        self.assertEqual(stage.clock.getDelayedCalls(), [])

    def test_slowLogin(self) -> None:
        """
        A login that arrives byte by byte does not extend the time limit.
        """
        stage = self.begin(loginTimeout=5.0)
        client = self.client(stage)
        for byte in RIGHT[:20]:
            client.send(bytes([byte]))
            stage.clock.advance(0.3)
        stage.turns()
        self.assertFalse(client.connected)

    def test_changed(self) -> None:
        """
        Another time limit applies to clients that are connected.
        """
        stage = self.begin(loginTimeout=50.0)
        client = self.client(stage)
        stage.clock.advance(3)
        stage.sessions.limit(SessionLimits(loginTimeout=2.0))
        stage.turns()
        self.assertFalse(client.connected)

    def test_apart(self) -> None:
        """
        Clients without a session do not count as sessions. If there are too many of them, the oldest is closed.
        """
        stage = self.begin(maxClients=3)
        idle = [self.client(stage, secure=number % 2 == 0) for number in range(3)]
        right = [self.client(stage) for _ in range(3)]
        self.assertEqual([each.connected for each in idle], [False] * 3)
        self.assertEqual([stage.ask(each, RIGHT) for each in right], [b"STORED\r\n"] * 3)
        late = self.client(stage)
        self.assertEqual(stage.ask(late, RIGHT), TOO_MANY)
        self.assertEqual(stage.sessions.refused, 1)
        stage.turns()
        self.assertFalse(late.connected)

    def test_tooManySecure(self) -> None:
        """
        A client that is one too many gets the error after its handshake.
        """
        stage = self.begin(login=False, maxClients=1)
        self.client(stage)
        late = self.client(stage, secure=True)
        self.assertTrue(late.connected)
        late.protocol.handshakeCompleted()
        stage.turns()
        self.assertEqual((late.take(), late.connected), (TOO_MANY, False))

    def test_stop(self) -> None:
        """
        A stop closes clients without a session at once, and waits until they are gone.
        """
        stage = self.begin()
        clients = [self.client(stage), self.client(stage, secure=True)]
        self.fail(stage, FREE)
        clients[0].send(WRONG)  # waits
        drained: Deferred[None] = stage.sessions.drain()
        self.assertNoResult(drained)
        stage.turns()
        self.successResultOf(drained)
        self.assertEqual([each.connected for each in clients], [False] * 2)
        self.assertEqual(stage.clock.getDelayedCalls(), [])

    def test_halfClosed(self) -> None:
        """
        A client that closes its side after the login gets the replies to its requests. One that closes it before is
        closed.
        """
        stage = self.begin()
        client, other = self.client(stage), self.client(stage)
        client.send(RIGHT + b"get a\r\n")
        client.protocol.readConnectionLost()
        other.send(WRONG)
        other.protocol.readConnectionLost()
        stage.serve()
        self.assertEqual((client.take(), client.connected), (b"STORED\r\n" + get(b"a"), False))
        self.assertEqual((other.take(), other.connected), (FAILURE, False))


class AddressTests(AdmissionTestCase):
    """
    Tests for the number of clients from one address.
    """

    def test_perAddress(self) -> None:
        """
        No more clients from one address are accepted than the limit, with or without a session. Others are.
        """
        stage = self.begin(login=False, maxPerAddress=2)
        first, second, third = self.client(stage), self.client(stage, secure=True), self.client(stage)
        stage.turns()
        self.assertEqual([each.connected for each in (first, second, third)], [True, True, False])
        self.assertEqual(third.take(), TOO_MANY)
        self.assertTrue(self.client(stage, "192.0.2.2").connected)
        for leaving in first, second:
            leaving.lose()
            self.assertTrue(self.client(stage).connected)
        self.assertEqual(stage.sessions.hosts, {"192.0.2.1": 2, "192.0.2.2": 1})

    def test_network(self) -> None:
        """
        The clients of one IPv6 network, whose addresses one host can use, are counted together. So are their failures.
        """
        stage = self.begin(maxPerAddress=2)
        self.fail(stage, FREE, "2001:db8::1")
        client, _ = self.client(stage, "2001:db8::2"), self.client(stage, "2001:db8::3")
        client.send(RIGHT)
        self.assertEqual(client.take(), b"")
        self.assertEqual(self.client(stage, "2001:db8::4").take(), TOO_MANY)
        self.assertEqual(self.client(stage, "2001:db8:0:1::4").take(), b"")
        self.assertEqual(stage.sessions.hosts, {"2001:0db8:0000:0000": 2, "2001:0db8:0000:0001": 1})

    def test_noAddress(self) -> None:
        """
        Clients without an address are not limited.
        """
        stage = self.begin(login=False, maxPerAddress=1)
        clients = [stage.client() for _ in range(3)]
        stage.turns()
        self.assertEqual([each.connected for each in clients], [True] * 3)


class GuessTests(AdmissionTestCase):
    """
    Tests for failed logins.
    """

    def test_closed(self) -> None:
        """
        A client is closed after some failed logins.
        """
        stage = self.begin()
        client = self.client(stage)
        for number in range(1, TRIES + 1):
            self.assertEqual(stage.ask(client, WRONG), FAILURE)
            self.assertIs(client.connected, number < TRIES)
        self.assertEqual(stage.sessions.gate.attempts, TRIES)

    def test_together(self) -> None:
        """
        Of the logins that arrive together, only so many are checked.
        """
        stage = self.begin()
        client = self.client(stage)
        self.assertEqual(stage.ask(client, (WRONG * 1000 + RIGHT)), FAILURE)
        self.assertEqual((stage.sessions.gate.attempts, client.connected), (TRIES, False))

    def test_delay(self) -> None:
        """
        After some failed logins from an address each further login waits, right or wrong, up to a maximum. After a time
        without failures none waits.
        """
        stage = self.begin()
        self.fail(stage, FREE)
        for delay in (DELAY, 2 * DELAY, 4 * DELAY, 8 * DELAY, 16 * DELAY, DELAY_MAX, DELAY_MAX):
            for login, reply in ((RIGHT, b"STORED\r\n"), (WRONG, FAILURE)):
                client = self.client(stage)
                client.send(login)
                stage.clock.advance(delay - 0.01)
                self.assertEqual(client.take(), b"")
                stage.clock.advance(0.02)
                self.assertEqual(client.take(), reply)
        other = self.client(stage, "192.0.2.2")
        self.assertEqual(stage.ask(other, RIGHT), b"STORED\r\n")
        stage.clock.advance(FORGET)
        self.assertEqual(stage.ask(self.client(stage), RIGHT), b"STORED\r\n")

    def test_delayedPieces(self) -> None:
        """
        The bytes that arrive while a login waits are not lost.
        """
        stage = self.begin()
        self.fail(stage, FREE)
        client = self.client(stage)
        client.send(RIGHT[:5])
        client.send(RIGHT[5:] + b"get a\r\n")
        stage.clock.advance(2 * DELAY)
        stage.serve()
        stage.clock.advance(2 * DELAY)
        stage.serve()
        self.assertEqual(client.take(), b"STORED\r\n" + get(b"a"))

    def test_waiting(self) -> None:
        """
        Only some clients of one address wait at the same time: one more closes the oldest of them. Nothing is kept
        when they are gone.
        """
        stage = self.begin()
        self.fail(stage, FREE)
        clients = [self.client(stage) for _ in range(WAITING + 2)]
        for client in clients:
            client.send(WRONG)
        stage.turns()
        self.assertEqual([each.connected for each in clients], [False] * 2 + [True] * WAITING)
        for client in clients:
            client.lose()
        self.assertEqual(stage.clock.getDelayedCalls(), [])

    def test_log(self) -> None:
        """
        Failed logins are logged with the last address, at most one line in a period.
        """
        stage = self.begin()
        with capturedLogs() as events:
            self.fail(stage, 1)
            self.fail(stage, 3, "192.0.2.2")
            stage.clock.advance(PERIOD)
            self.fail(stage, 1, "192.0.2.3")
        self.assertEqual([formatEvent(event) for event in events], [
            "pool: 1 failed logins, the last from 192.0.2.1", "pool: 4 failed logins, the last from 192.0.2.3"
        ])  # fmt: skip
