# Copyright txconnpool contributors. See LICENSE.
"""
Tests for L{txconnpool.wire.redis.dialect} and L{txconnpool.wire.redis.commands}.
"""

from __future__ import annotations

from collections.abc import Generator
from math import inf
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.bugs import covers
from tests.wire.redis.clients import Reading, request
from txconnpool.errors import LoginFailed, LoginRefused, ServerUnavailable
from txconnpool.wire import IStatefulDialect
from txconnpool.wire.redis.commands import ANSWERED, BY_NAME, COMMANDS, LOOKUP, PINNED, REFUSED, Use
from txconnpool.wire.redis.dialect import Redis
from txconnpool.wire.redis.framing import encode, wordsOf

INFO = b"$22\r\nredis_version:7.2.4\r\n\r\n"


def carryOut(exchanges: Generator[Any, bytes, str | None], *replies: bytes) -> tuple[list[str], str | None]:
    """
    @return: the requests of exchanges with a server that sends these replies, and their result.
    """
    sent = []
    left = iter(replies)
    try:
        _, data = next(exchanges)
        while True:
            sent.append(b" ".join(wordsOf(data, 0)).decode())
            _, data = exchanges.send(next(left))
    except StopIteration as stop:
        return sent, stop.value


class DialectTests(SynchronousTestCase):
    """
    Tests for L{Redis}.
    """

    def test_interface(self) -> None:
        """
        It is a dialect with flavours, and its readers are what a session asks for: mypy compares the types.
        """
        dialect: IStatefulDialect = Redis()
        for reader in (dialect.requestReader(), dialect.loginReader(lambda login: True)):
            self.assertEqual((reader.flavour, reader.opening()), (dialect.base, ()))
        self.assertTrue(dialect.stateful and dialect.replyReader().pushes)

    @covers("R20")
    def test_handshake(self) -> None:
        """
        A new connection is logged in, and the server must be ready.
        """
        dialect = Redis()
        self.assertEqual(carryOut(dialect.handshake(None, "s"), b"+PONG\r\n", INFO), (["PING", "INFO server"], None))
        self.assertIn(b"7.2.4", dialect.requestReader().read(request("hello 3"), 0, 1)[3][1])
        self.assertEqual(
            carryOut(dialect.handshake((b"ann", b"x"), "s"), b"+OK\r\n", b"+PONG\r\n", INFO)[0][0], "AUTH ann x"
        )
        warned = b"-ERR AUTH <password> called without any password configured for the default user. Are you sure?\r\n"
        self.assertIn("not used", str(carryOut(dialect.handshake((b"ann", b"x"), "s"), warned, b"+PONG\r\n", INFO)[1]))
        for replies, error in (
            ((b"-WRONGPASS x\r\n",), LoginFailed),
            ((b"+OK\r\n", b"-LOADING Redis is loading the dataset in memory\r\n"), ServerUnavailable),
        ):
            self.assertRaises(error, carryOut, dialect.handshake((b"ann", b"x"), "s"), *replies)
        self.assertRaises(LoginFailed, carryOut, dialect.handshake(None, "s"), b"-NOAUTH Authentication required.\r\n")

    def test_flavours(self) -> None:
        """
        Connections of other flavours need further requests.
        """
        dialect = Redis()
        for flavour, requests in (((2, 0), []), ((3, 0), ["HELLO 3"]), ((3, 4), ["HELLO 3", "SELECT 4"])):
            steps = dialect.prelude(flavour)
            self.assertEqual([b" ".join(wordsOf(data, 0)).decode() for _, data, _ in steps], requests)

    def test_users(self) -> None:
        """
        If servers check the logins of clients, users have flavours of their own, and their connections log in.
        """
        dialect = Redis()
        for login, user in (((b"ann", b"x"), b"ann"), ((b"x",), b"default")):
            flavour = (3, 1, login)
            steps = [wordsOf(data, 0) for _, data, _ in dialect.prelude(flavour)]
            self.assertEqual(steps, [[b"AUTH", *login], [b"HELLO", b"3"], [b"SELECT", b"1"]])
            self.assertEqual(dialect.owner(flavour), user)
        self.assertEqual([dialect.owner(each) for each in ((2, 0), (3, 4), dialect.reading((2, 0)))], [None] * 3)

    def test_passedLogins(self) -> None:
        """
        If servers check the logins of clients, one that asks for a login can be used without one, and clients get what
        it says.
        """
        dialect, command = Redis(), BY_NAME["select"]
        for reply in (b"-NOAUTH Authentication required.\r\n", b"-NOPERM no\r\n", b"-WRONGPASS no\r\n"):
            self.assertIsInstance(dialect.unprepared(command, reply), ServerUnavailable)
        self.assertRaises(ServerUnavailable, carryOut, dialect.handshake(None, "s"), b"-NOPERM no\r\n")
        dialect.passLogins(True)
        for reply in (b"-NOAUTH Authentication required.\r\n", b"-NOPERM no\r\n", b"-WRONGPASS no\r\n"):
            error = dialect.unprepared(command, reply)
            self.assertIsInstance(error, LoginRefused)
            self.assertEqual(dialect.error(error.kind, str(error)), reply)
            self.assertEqual(carryOut(dialect.handshake(None, "s"), reply), (["PING"], None))
        self.assertIn("select failed", str(dialect.unprepared(command, b"-ERR DB index is out of range\r\n")))
        withoutPassword = b"-ERR AUTH <password> called without any password configured for the default user.\r\n"
        error = dialect.unprepared(BY_NAME["auth"], withoutPassword)
        self.assertEqual((type(error), dialect.error(error.kind, str(error))), (LoginRefused, withoutPassword))
        self.assertRaises(ServerUnavailable, carryOut, dialect.handshake(None, "s"), b"-LOADING no\r\n")

    @covers("R39")
    def test_replicas(self) -> None:
        """
        Each new connection for reading from a replica says so.
        """
        dialect = Redis()
        for flavour in ((2, 0), (3, 0)):
            *others, last = dialect.prelude(dialect.reading(flavour))
            self.assertEqual((others, wordsOf(last[1], 0)), (dialect.prelude(flavour), [b"READONLY"]))

    @covers("R3")
    def test_reset(self) -> None:
        """
        A connection that a client had is reset, and logged in again. Old servers cannot do that.
        """
        dialect = Redis()
        self.assertEqual(
            carryOut(dialect.reset((b"ann", b"x"), "s"), b"+RESET\r\n", b"+OK\r\n", b"+PONG\r\n", INFO)[0],
            ["RESET", "AUTH ann x", "PING", "INFO server"],
        )
        self.assertRaises(ServerUnavailable, carryOut, dialect.reset(None, "s"), b"-ERR unknown command `RESET`\r\n")

    def test_texts(self) -> None:
        """
        Errors are one line, and requests are described without their values.
        """
        dialect = Redis()
        self.assertEqual(dialect.error("lost", "a\r\nb"), b"-ERR a b\r\n")
        self.assertEqual(dialect.describe(request("set k v")), ("set", [b"k"]))
        self.assertEqual(dialect.describe(b"get k\r\n"), ("get", [b"k"]))
        for data in (b"", b"*3\r\n$3\r\nset", b"nonsense\r\n", b"get 'x\r\n"):
            self.assertEqual(dialect.describe(data), ("a request", []))
        self.assertEqual(dialect.statistics([("a", 1), ("b", "x\ny")]), b"$12\r\na:1\r\nb:x y\r\n\r\n")


class DatabaseTests(SynchronousTestCase):
    """
    Tests for the database that clients have at first.
    """

    def test_begin(self) -> None:
        """
        A client has it when it is new, and after C{RESET}; it may select another one.
        """
        dialect = Redis()
        dialect.begin(3)
        self.assertEqual(dialect.base, (2, 3))
        reading = Reading(dialect)
        self.assertEqual(reading.ask("select 3", "select 0"), ["< +OK", "FLAVOUR (2, 0) +OK"])
        self.assertEqual(reading.ask("reset"), ["FLAVOUR (2, 3) +RESET"])
        self.assertEqual(reading.ask("hello 3")[0][:14], "FLAVOUR (3, 3)")
        self.assertEqual([request for _, request, _ in dialect.prelude((2, 3))], [encode([b"SELECT", b"3"])])


class CommandsTests(SynchronousTestCase):
    """
    Tests for the table of commands.
    """

    def test_names(self) -> None:
        """
        The lists name commands that exist, each of them once.
        """
        for names in (ANSWERED, PINNED, REFUSED):
            self.assertLessEqual(names, BY_NAME.keys())
        self.assertFalse(ANSWERED & PINNED or ANSWERED & REFUSED or PINNED & REFUSED)
        self.assertEqual([command.index for command in COMMANDS], list(range(len(COMMANDS))))
        self.assertIs(LOOKUP[b"GET"], LOOKUP[b"get"])

    def test_retried(self) -> None:
        """
        Only reads are sent again.
        """
        for name in ("get", "mget", "eval_ro", "xrange", "scan"):
            self.assertTrue(BY_NAME[name].idempotent, name)
        for name in ("set", "getdel", "getex", "spop", "eval", "fcall", "publish", "blpop", "xread", "exec", "multi"):
            self.assertFalse(BY_NAME[name].idempotent, name)
        self.assertTrue(BY_NAME["xread"].unblocked.idempotent)

    def test_administration(self) -> None:
        """
        What the server calls administration is not forwarded.
        """
        for command in COMMANDS:
            if "admin" in command.flags:
                self.assertIn(command.use, (Use.REFUSED, Use.ANSWERED), command.name)

    def test_keys(self) -> None:
        """
        The keys of a request are found as the server finds them. A wrong number of keys is not guessed.
        """
        for text, keys in (
            ("get k", "k"), ("mset a 1 b 2", "a b"), ("del a b", "a b"), ("blpop a b 0", "a b"), ("ping", ""),
            ("eval s 2 a b c", "a b"), ("eval s 0 a", ""), ("eval s 9 a", ""), ("eval s -1 a", ""), ("eval s x a", ""),
            ("zunionstore d 2 a b weights 1 2", "d a b"), ("xread count 1 streams a b 0 0", "a b"),
            ("xreadgroup group streams c streams a >", "a"), ("georadius a 1 2 3 m store d", "a d"),
            ("sort k by nosort", "k"), ("object encoding k", "k"), ("memory usage k", "k"),
            ("bitop and d a b", "d a b"),
            ("migrate h 1 k 0 1", "k"), ("rename a b", "a b"), ("smove a b m", "a b"), ("xread streams a", ""),
        ):  # fmt: skip
            words = text.encode().split(b" ")
            command = BY_NAME[words[0].decode()]
            if command.subcommands:
                command = command.subcommands[words[1]]
            self.assertEqual(b" ".join(command.keysOf(words)).decode(), keys, text)

    @covers("R27")
    def test_patience(self) -> None:
        """
        A server may take as long for a blocking command as the request says.
        """
        for text, seconds in (
            ("blpop k 0", inf), ("blpop k 2.5", 2.5), ("blpop k x", 0.0), ("blpop k -1", 0.0), ("brpop a b 3", 3.0),
            ("blmpop 4 1 k left", 4.0), ("xread block 1500 streams k 0", 1.5), ("xread block 0 streams k 0", inf),
            ("xread streams block 0", 0.0), ("xreadgroup group g block noack block 2000 streams k >", 2.0),
        ):  # fmt: skip
            name = text.split(" ")[0]
            self.assertEqual(BY_NAME[name].patience(request(text)), seconds, text)
        self.assertEqual(BY_NAME["get"].patience(request("get k")), 0.0)

    def test_shortened(self) -> None:
        """
        A request for which a server has waited can be sent to another one for the rest of the time.
        """
        for text, seconds, expected in (
            ("blpop k 5", 2.0, "blpop k 3.000"), ("blpop k 0", 2.0, "blpop k 0"), ("blpop k 2.5", 9.0, "blpop k 0.001"),
            ("blmpop 4 1 k left", 0.5, "blmpop 3.500 1 k left"), ("blpop k x", 1.0, "blpop k x"),
            ("xread block 1500 streams k 0", 1.0, "xread block 500 streams k 0"),
            ("xread block 1500 streams k 0", 2.0, "xread block 1 streams k 0"),
            ("xread streams k 0", 2.0, "xread streams k 0"),
        ):  # fmt: skip
            name = text.split(" ")[0]
            self.assertEqual(BY_NAME[name].shortened(request(text), seconds), request(expected), text)
        self.assertEqual(BY_NAME["get"].shortened(request("get k"), 1.0), request("get k"))
