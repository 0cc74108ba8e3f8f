# -*- test-case-name: tests.wire.memcache.binary.test_logins -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Tests for binary logins, and for the choice of the protocol.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tests.wire.memcache.binary.cases import GET, NOOP, SASL_AUTH, SASL_LIST, SASL_STEP, VERSION
from tests.wire.memcache.binary.packets import header, number, reply, request
from txconnpool.wire import ADMIT, ANSWER, CLOSE, MORE, SWITCH, Login
from txconnpool.wire.memcache.auth import LoginReader
from txconnpool.wire.memcache.binary.logins import BinaryLoginReader
from txconnpool.wire.memcache.binary.requests import BinaryReader
from txconnpool.wire.memcache.dialect import Memcache
from txconnpool.wire.memcache.requestreader import RequestReader

FAILED = b"Auth failure."


class LoginTests(SynchronousTestCase):
    """
    Tests for L{BinaryLoginReader}.
    """

    def setUp(self) -> None:
        """
        Create a reader.
        """
        self.attempts: list[Login | None] = []
        self.reader = BinaryLoginReader(self.check)

    def check(self, login: Login | None) -> bool:
        """
        Accept one user.
        """
        self.attempts.append(login)
        return login == (b"joe", b"secret")

    def auth(self, message: bytes, mechanism: bytes = b"PLAIN", opcode: int = SASL_AUTH) -> tuple[object, bytes]:
        """
        @return: the action and the reply to a login.
        """
        data = request(opcode, mechanism, b"", message)
        what, end, count, answer = self.reader.read(data + b"rest", 0, 1)
        self.assertEqual((end, count), (len(data), 0))
        return what, answer

    def test_admitted(self) -> None:
        """
        A client with the right password is admitted. It may name the identity it acts as if that is the user.
        """
        for message in (b"\0joe\0secret", b"joe\0joe\0secret"):
            self.assertEqual(self.auth(message), (ADMIT, reply(SASL_AUTH, 0, b"Authenticated")))
        self.assertEqual(self.attempts, [(b"joe", b"secret")] * 2)

    def test_failed(self) -> None:
        """
        Any other login fails, and counts as an attempt.
        """
        for message in (b"\0joe\0wrong", b"ann\0joe\0secret", b"joe secret", b"", b"\0joe\0secret\0"):
            self.assertEqual(self.auth(message), (ANSWER, reply(SASL_AUTH, 0x20, FAILED)))
        self.assertEqual(self.auth(b"\0joe\0secret", b"CRAM-MD5"), (ANSWER, reply(SASL_AUTH, 0x20, FAILED)))
        self.assertEqual(self.auth(b"\0joe\0secret", opcode=SASL_STEP), (ANSWER, reply(SASL_STEP, 0x20, FAILED)))
        self.assertEqual(self.attempts, [(b"joe", b"wrong")] + [None] * 6)

    def test_mechanisms(self) -> None:
        """
        The mechanisms are listed.
        """
        self.assertEqual(self.reader.read(request(SASL_LIST), 0, 1), (ANSWER, 24, 0, reply(SASL_LIST, 0, b"PLAIN")))

    def test_others(self) -> None:
        """
        Any other request, and one with wrong lengths, gets an error, and the client is closed.
        """
        for data, answer in (
            (request(GET, b"k"), reply(GET, 0x20, FAILED)),
            (request(NOOP), reply(NOOP, 0x20, FAILED)),
            (request(VERSION), reply(VERSION, 0x20, FAILED)),
            (request(SASL_LIST, b"k"), reply(SASL_LIST, 4, b"Invalid arguments")),
            (request(SASL_AUTH, b"", b"", b"x"), reply(SASL_AUTH, 4, b"Invalid arguments")),
            (request(SASL_AUTH, b"PLAIN", number(1), b"x"), reply(SASL_AUTH, 4, b"Invalid arguments")),
            (request(SASL_AUTH, b"PLAIN", b"", bytes(3000))[:30], reply(SASL_AUTH, 4, b"Invalid arguments")),
            (header(0x80, SASL_AUTH, 5, 0, 0, 4), reply(SASL_AUTH, 0x81, b"Unknown command")),
            (b"\x81" + request(NOOP)[1:], b""),
        ):
            self.assertEqual(self.reader.read(data, 0, 1), (CLOSE, len(data), 0, answer))
        self.assertEqual(self.attempts, [])

    def test_incomplete(self) -> None:
        """
        An incomplete login waits for the rest.
        """
        data = request(SASL_AUTH, b"PLAIN", b"", b"\0joe\0secret")
        for size in range(1, len(data)):
            self.assertEqual(self.reader.read(data[:size], 0, 1), (MORE, 0, 0, 24 if size < 24 else len(data)))


class ChoiceTests(SynchronousTestCase):
    """
    Tests for the choice of the protocol.
    """

    def test_firstByte(self) -> None:
        """
        The first byte of a client chooses its protocol.
        """
        dialect = Memcache()
        for byte in range(256):
            binary = byte == 0x80
            what, end, count, reader = dialect.requestReader().read(bytes([byte]), 0, 1)
            self.assertEqual((what, end, count), (SWITCH, 0, 0))
            self.assertIs(type(reader), BinaryReader if binary else RequestReader)
            what, end, count, reader = dialect.loginReader(bool).read(bytes([byte]), 0, 1)
            self.assertEqual((what, end, count), (SWITCH, 0, 0))
            self.assertIs(type(reader), BinaryLoginReader if binary else LoginReader)

    def test_later(self) -> None:
        """
        A later line of a client of the text protocol that begins so is an invalid request, as in memcached.
        """
        self.assertEqual(RequestReader().read(b"\x80\r\n", 0, 1), (ANSWER, 3, 0, b"ERROR\r\n"))

    def greet(self, dialect: Memcache, version: bytes) -> str | None:
        """
        @return: the warning of a handshake with a server of a version.
        """
        handshake = dialect.handshake(None, "one")
        next(handshake)
        try:
            handshake.send(b"VERSION %b\r\n" % version)
        except StopIteration as stop:
            return stop.value  # type: ignore[no-any-return]
        raise AssertionError("the handshake goes on")

    def test_old(self) -> None:
        """
        If a server is older than 1.6, clients of the binary protocol are refused, and the log says so. Servers that are
        no memcached have other numbers.
        """
        for version in (b"1.6.0", b"1.6.45", b"1.10.0", b"2.0", b"mcrouter 1.4", b"0.5.0", b""):
            dialect = Memcache()
            self.assertIsNone(self.greet(dialect, version))
            *_, reader = dialect.requestReader().read(b"\x80", 0, 1)
            self.assertEqual(reader.read(request(NOOP), 0, 1), (ANSWER, 24, 0, reply(NOOP)))
        for version in (b"1.4.15", b"1.5.22-beta", b"1.2"):
            dialect = Memcache()
            number = version.removesuffix(b"-beta")
            self.assertEqual(
                self.greet(dialect, version),
                f"is memcached {number.decode()}: meta commands and binary clients are refused, they need 1.6 or newer",
            )
            *_, reader = dialect.requestReader().read(b"\x80", 0, 1)
            text = b"a server is memcached %b, and binary clients need 1.6 or newer" % number
            self.assertEqual(reader.read(request(NOOP), 0, 1), (CLOSE, 24, 0, reply(NOOP, 0x83, text)))
            *_, reader = dialect.requestReader().read(b"g", 0, 1)
            self.assertEqual(reader.read(b"get k\r\n", 0, 1)[1:], (7, 1, None))
