# Copyright txconnpool contributors. See LICENSE.
"""
Tests for L{txconnpool.wire.redis.learning}: commands that the table lacks.
"""

from __future__ import annotations

from math import inf
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.wire.redis.clients import Reading
from txconnpool.wire.redis.commands import BY_NAME, COMMANDS, Use
from txconnpool.wire.redis.dialect import Redis
from txconnpool.wire.redis.framing import encode
from txconnpool.wire.redis.learning import INDEX, NAMES_MAX, OTHER, Learned, LearnedCommand, described
from txconnpool.wire.redis.rules import Rules


def dump(value: Any) -> bytes:
    """
    @return: a value as a reply of RESP2: texts are bulk strings, but those that begin with C{+} are statuses.
    """
    if value is None:
        return b"*-1\r\n"
    if isinstance(value, int):
        return b":%d\r\n" % value
    if isinstance(value, list):
        return b"*%d\r\n%b" % (len(value), b"".join(map(dump, value)))
    return value.encode() + b"\r\n" if value.startswith("+") else b"$%d\r\n%b\r\n" % (len(value), value.encode())


def specification(begin: list[Any], find: list[Any]) -> list[Any]:
    """
    @return: a key specification, as servers send it.
    """
    return ["flags", [], "begin_search", ["type", begin[0], "spec", begin[1:]],
            "find_keys", ["type", find[0], "spec", find[1:]]]  # fmt: skip


#: The specification of a single key, the first argument.
FIRST = specification(["index", "index", 1], ["range", "lastkey", 0, "keystep", 1, "limit", 0])


def entry(name: str, arity: int = -2, *flags: str, specs: Any = (FIRST,), children: Any = ()) -> bytes:
    """
    @return: the reply of Redis 7 to C{COMMAND INFO} with one name.
    """
    return dump([_entry(name, arity, *flags, specs=specs, children=children)])


def _entry(name: str, arity: int, *flags: str, specs: Any = (FIRST,), children: Any = ()) -> list[Any]:
    return [name, arity, [f"+{flag}" for flag in flags], 1, 1, 1, [], [], list(specs), list(children)]


class DescribedTests(SynchronousTestCase):
    """
    Tests for L{described}.
    """

    def command(self, reply: bytes) -> LearnedCommand:
        """
        @return: the command of a description.
        """
        command = described(reply)
        assert command is not None
        return command

    def test_read(self) -> None:
        """
        A command has the number of words, the flags and the keys that the server says.
        """
        command = self.command(entry("json.get", -2, "readonly"))
        self.assertEqual((command.name, command.index, command.idempotent), ("json.get", INDEX, True))
        self.assertEqual((command.accepts(1), command.accepts(5), command.use), (False, True, Use.SHARED))
        self.assertEqual(command.keysOf([b"json.get", b"k", b"$"]), [b"k"])
        self.assertFalse(command.vague)

    def test_keys(self) -> None:
        """
        Keys are found by all specifications; whether some cannot be found is known.
        """
        number = specification(["index", "index", 1], ["keynum", "keynumidx", 0, "firstkey", 1, "keystep", 1])
        word = specification(["keyword", "keyword", "IN", "startfrom", 1],
                             ["range", "lastkey", -1, "keystep", 1, "limit", 0])  # fmt: skip
        unknown = specification(["unknown"], ["unknown"])
        self.assertEqual(self.command(entry("x", specs=[number])).keysOf([b"x", b"2", b"a", b"b", b"c"]), [b"a", b"b"])
        self.assertEqual(self.command(entry("x", specs=[word])).keysOf([b"x", b"1", b"in", b"a", b"b"]), [b"a", b"b"])
        self.assertEqual([self.command(entry("x", specs=each)).vague for each in ([FIRST], [], [FIRST, unknown])],
                         [False, False, True])  # fmt: skip

    def test_old(self) -> None:
        """
        Servers before Redis 7 say only where the first and last key are.
        """

        def old(*rest: Any) -> LearnedCommand:
            return self.command(dump([["X", -2, *rest, []]]))

        self.assertEqual(old(["+readonly"], 1, 1, 1).keysOf([b"x", b"a", b"b"]), [b"a"])
        self.assertEqual(old(["+write"], 2, -1, 2).keysOf([b"x", b"-", b"a", b"b", b"c", b"d"]), [b"a", b"c"])
        self.assertEqual(old(["+write"], 0, 0, 0).keysOf([b"x", b"a"]), [])
        self.assertEqual([old(["+movablekeys"], first, first, 1).vague for first in (0, 1)], [True, True])

    def test_use(self) -> None:
        """
        A command for operators, or that changes the state of a connection, is refused. One that blocks has a connection
        of the client's own, for as long as it likes.
        """
        for flags, use in (
            (("readonly",), Use.SHARED), (("write", "denyoom", "module"), Use.SHARED), ((), Use.SHARED),
            (("blocking", "write"), Use.PINNED), (("blocking", "noscript", "write"), Use.PINNED),
            (("noscript",), Use.REFUSED), (("admin", "readonly"), Use.REFUSED), (("pubsub",), Use.REFUSED),
            (("blocking", "admin"), Use.REFUSED), (("no_auth",), Use.REFUSED),
        ):  # fmt: skip
            self.assertEqual(self.command(entry("x", -1, *flags)).use, use, flags)
        blocking = self.command(entry("x", -1, "blocking"))
        self.assertEqual((blocking.patience(encode([b"X"])), blocking.silenced.patience(b"")), (inf, inf))

    def test_trust(self) -> None:
        """
        An error of a command that neither reads nor writes may come from a script, and is passed on.
        """
        for flags, trusted in ((("write",), True), (("readonly",), True), ((), False)):
            command = self.command(entry("x", -1, *flags))
            self.assertEqual((command.redirectable, not command.runsScript), (trusted, trusted))
        self.assertTrue(self.command(entry("x", -1)).silenced.runsScript)

    def test_absent(self) -> None:
        """
        A null, an error and anything else that is no description are not commands.
        """
        for reply in (b"*1\r\n*-1\r\n", b"*1\r\n$-1\r\n", b"-ERR no\r\n", b"*0\r\n", b":1\r\n", b"*1\r\n:1\r\n",
                      dump([["x"]]), dump([["x", -1, 7, 1, 1, 1]]), dump([["x", -1, [], 1, 1, 1, [], [], [[]], []]]),
                      dump([["x", "y", [], "z", 1, 1]])):  # fmt: skip
            self.assertIs(described(reply), None, reply)


class ReaderTests(SynchronousTestCase):
    """
    Tests for requests whose command the table lacks.
    """

    def test_once(self) -> None:
        """
        The server is asked once, and the request is forwarded.
        """
        reading = Reading()
        reading.description = entry("json.get", -2, "readonly")
        self.assertEqual(reading.ask("JSON.GET k $", "json.get k"), ["> JSON.GET k $", "> json.get k"])
        self.assertEqual(reading.ask("json.get"), ["< -ERR wrong number of arguments for 'json.get' command"])
        self.assertEqual(reading.feed(b"JSON.Get k\r\n"), ["> JSON.Get k"])
        self.assertEqual(reading.lookups, ["COMMAND INFO json.get"])
        self.assertEqual(reading.dialect.describe(encode([b"JSON.GET", b"k"])), ("json.get", [b"k"]))

    def test_unknown(self) -> None:
        """
        What the server does not know is an error, for which it is asked once too.
        """
        reading = Reading()
        error = "< -ERR unknown command 'FOO', with args beginning with: 'a'"
        self.assertEqual(reading.ask("FOO a", "FOO a"), [f"{error}"] * 2)
        self.assertEqual(reading.lookups, ["COMMAND INFO foo"])

    def test_names(self) -> None:
        """
        The server is not asked for what is no name, and not on behalf of clients that have to log in.
        """
        reading = Reading()
        reading.ask("a/b", "x" * 65, "\xff")
        stranger = Reading(check=lambda login: True)
        self.assertEqual(stranger.ask("foo"), ["< -ERR unknown command 'foo', with args beginning with:"])
        self.assertEqual(reading.lookups + stranger.lookups, [])

    def test_noServer(self) -> None:
        """
        If no server can be asked, the request gets this error, and the next one asks again.
        """
        reading = Reading()
        reading.description = None
        self.assertEqual(reading.ask("foo", "foo"), ["< -ERR no server"] * 2)
        self.assertEqual(len(reading.lookups), 2)

    def test_own(self) -> None:
        """
        A command that blocks, and one in a transaction, are sent on the client's own connection.
        """
        reading = Reading()
        reading.description = entry("x.pop", -2, "blocking", "write")
        self.assertEqual(reading.ask("x.pop k 0"), ["PIN", ">> x.pop k 0"])
        self.assertEqual(reading.ask("multi", "x.pop k 0", "exec"), ["PIN", ">> multi", ">> x.pop k 0", ">> exec"])
        reading.description = b"*1\r\n*-1\r\n"
        self.assertEqual(reading.ask("multi", "foo", "exec")[2:],
                         ["< -ERR unknown command 'foo', with args beginning with:", ">> DISCARD (silent)",
                          "< -EXECABORT Transaction discarded because of previous errors."])  # fmt: skip

    def test_refused(self) -> None:
        """
        Commands for operators are refused, in containers too.
        """
        reading = Reading()
        children = [_entry("log|get", -2, "readonly", specs=()), _entry("log|reset", 2, "admin", specs=())]
        reading.description = entry("log", -2, specs=(), children=children)
        self.assertEqual(reading.ask("LOG get 1", "log reset", "log x"), [
            "> LOG get 1", "< -ERR unknown command 'log|reset': the proxy does not forward it",
            "< -ERR unknown subcommand 'x'. Try LOG HELP.",
        ])  # fmt: skip

    def test_silent(self) -> None:
        """
        A client gets no reply to the first use after C{CLIENT REPLY SKIP}, or with C{OFF}.
        """
        reading = Reading()
        reading.description = entry("x.get", -2, "readonly")
        self.assertEqual(reading.ask("client reply skip", "x.get k", "x.get k"), ["> x.get k (silent)", "> x.get k"])

    def test_forbidden(self) -> None:
        """
        Effects are those of the flags. A command that writes may delete; one without flags may do anything.
        """
        for flags, words in (
            (("readonly",), b"@read"), (("write",), b"@write @delete"), ((), b"@read @write @delete"),
        ):  # fmt: skip
            for word in (b"@read", b"@write", b"@delete"):
                reading = Reading(Redis(denied=frozenset((word,))))
                reading.description = entry("x", -1, *flags)
                refused = reading.ask("x k") == ["< -ERR unknown command 'x': this proxy does not allow it"]
                self.assertEqual(refused, word in words.split(), (flags, word))
        reading = Reading()
        reading.description = entry("x", -1, "write")
        self.assertEqual(reading.ask("x k"), ["> x k"])
        reading.dialect.limit(1 << 20, frozenset((b"@write",)), None)
        self.assertEqual(reading.ask("x k"), ["< -ERR unknown command 'x': this proxy does not allow it"])

    def test_counted(self) -> None:
        """
        All of them have one index after those of the table.
        """
        commands = Redis().commands
        self.assertEqual(commands, (*COMMANDS, OTHER))
        self.assertEqual([command.index for command in commands], list(range(len(commands))))
        self.assertNotIn("other", BY_NAME)


class LearnedTests(SynchronousTestCase):
    """
    Tests for L{Learned}, and what L{Rules} does with it.
    """

    def test_bounded(self) -> None:
        """
        The oldest names are forgotten.
        """
        learned = Learned()
        for number in range(NAMES_MAX + 5):
            learned.add(b"%d" % number, None)
        self.assertEqual([b"%d" % number in learned for number in (4, 5, NAMES_MAX + 4)], [False, True, True])

    def test_servers(self) -> None:
        """
        A new connection makes unknown names be asked for again; another version, all names.
        """
        rules = Rules()
        rules.use(b"7.2.0")
        rules.learn(b"x", entry("x"))
        rules.learn(b"y", b"*1\r\n*-1\r\n")
        rules.use(b"7.2.0")
        self.assertEqual((b"x" in rules.learned, b"y" in rules.learned), (True, False))
        rules.use(None)
        self.assertIn(b"x", rules.learned)
        rules.use(b"8.0.0")
        self.assertNotIn(b"x", rules.learned)
