# Copyright txconnpool contributors. See LICENSE.
"""
Tests for L{txconnpool.config.kinds}.
"""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from txconnpool.config.kinds import (
    Announced,
    Choice,
    Endpoint,
    HostNames,
    Kind,
    Seconds,
    Size,
    Text,
    Whole,
    Words,
    nearest,
)
from txconnpool.net.endpoints import checkClientFiles
from txconnpool.net.listening import checkServerFiles
from txconnpool.net.suggestions import suggestClient, suggestServer
from txconnpool.net.syntax import checkClient, checkServer

CLIENT = Endpoint(checkClient, checkClientFiles, "tcp:HOST:PORT", suggestClient)
SERVER = Endpoint(checkServer, checkServerFiles, "tcp:PORT", suggestServer)


def check(kind: Kind[Any], text: str) -> None:
    """
    Parse a value, and check it and the files that it names.
    """
    value = kind.parse(text)
    kind.checkValue(value)
    kind.checkFiles(value)


class KindTests(SynchronousTestCase):
    """
    Tests for the kinds of values.
    """

    def assertWrong(self, kind: Kind[Any], text: str, *words: str) -> None:
        """
        Assert that a kind refuses a text with an error that contains some words.
        """
        error = self.assertRaises(ValueError, check, kind, text)
        for each in words:
            self.assertIn(each, str(error))

    def test_whole(self) -> None:
        """
        A whole number consists of digits, and is in a range.
        """
        kind = Whole(1, 65535)
        self.assertEqual(kind.parse("0042"), 42)
        kind.checkValue(1)
        kind.checkValue(65535)
        for text in ("0", "65536", "-1", "1.5", "", "4k", "1_000", "٣", "9" * 5000):
            self.assertWrong(kind, text, "expected a whole number from 1 to 65535")

    def test_size(self) -> None:
        """
        A size is a number of bytes, or has a unit, a power of 1024, in small or capital letters.
        """
        kind = Size(1, 1 << 40)
        for text, value in (("1", 1), ("64k", 65536), ("64K", 65536), ("1m", 1 << 20), ("2g", 2 << 30)):
            self.assertEqual(kind.parse(text), value)
            kind.checkValue(value)
        for text in ("0", "1.5m", "1t", "m", "", "-1k", "1 k", "1kb"):
            self.assertWrong(kind, text, "expected a size from 1 to 1024g")

    def test_seconds(self) -> None:
        """
        A time is a number of seconds, or has a unit.
        """
        kind = Seconds(0.001, 86400)
        for text, value in (("2", 2.0), ("0.5", 0.5), ("500ms", 0.5), ("10s", 10.0), ("5m", 300.0), ("1H", 3600.0)):
            self.assertEqual(kind.parse(text), value)
            kind.checkValue(value)
        for text in ("0", "0.0001", "2d", "", "-1", "inf", "nan", "1e3", "25h", "1:30"):
            self.assertWrong(kind, text, "expected seconds from 0.001 to 86400")

    def test_milliseconds(self) -> None:
        """
        Whole milliseconds are read exactly, and shown as people write them; other times are shown in seconds.
        """
        kind = Seconds(0.001, 86400)
        for number in range(1, 1000):
            self.assertEqual(kind.parse(f"{number}ms"), number / 1000)
            self.assertEqual(kind.show(number / 1000), f"{number}ms")
        self.assertEqual(
            [kind.show(each) for each in (0.0, 0.0005, 0.4005, 1.5, 60.0)], ["0", "0.0005", "0.4005", "1.5", "60"]
        )

    def test_zeroSeconds(self) -> None:
        """
        A time may be 0 only if that has a meaning, which the error mentions.
        """
        kind = Seconds(1, 10, "never")
        kind.checkValue(0)
        self.assertWrong(kind, "0.5", "or 0 for never")

    def test_choice(self) -> None:
        """
        A choice is one of its words.
        """
        kind = Choice("left", "right")
        kind.checkValue(kind.parse("left"))
        self.assertWrong(kind, "up", "expected left or right")

    def test_text(self) -> None:
        """
        A text is compared with a pattern.
        """
        kind = Text("[a-z]{2}", "two letters")
        kind.checkValue(kind.parse("ab"))
        for text in ("", "a", "abc", "a1", "ab\n"):
            self.assertWrong(kind, text, "expected two letters")

    def test_words(self) -> None:
        """
        Words are separated by spaces or commas. The error for an unknown word suggests the one that is most like it.
        """
        kind = Words("color", ("red", "green", "blue"), ("black",), "is none")
        for text in ("red blue", " red,  blue ", "red,blue"):
            self.assertEqual(kind.parse(text), ("red", "blue"))
        kind.checkValue(("red", "blue"))
        kind.checkValue(())
        self.assertEqual((kind.parse(""), kind.show(("red", "blue")), kind.show(())), ((), "red blue", ""))
        self.assertWrong(kind, "red gren", "no such color: gren; did you mean green?")
        self.assertWrong(kind, "RED xyzzy", "no such color: RED; ")
        self.assertWrong(kind, "xyzzy", "no such color: xyzzy; expected some of blue green red")
        self.assertWrong(kind, "black", "black is none")
        for value in ("red", ["red"], None, (1,)):
            self.assertRaises(ValueError, kind.checkValue, value)

    def test_announced(self) -> None:
        """
        Addresses that clients see have a host and a port each, or are one word.
        """
        kind = Announced()
        for text in ("no", "self", "a:1 b.example.com:65535", "10.0.0.1:6379, [::1]:6379"):
            value = kind.parse(text)
            kind.checkValue(value)
            self.assertEqual(kind.parse(kind.show(value)), value)
        for text in ("", "no self", "self a:1", "a", "a:0", "a:65536", "a:1 a:1", "::1:6379", "tcp:a:1", "a:x", "a:01"):
            error = self.assertRaises(ValueError, kind.checkValue, kind.parse(text))
            self.assertIn("expected HOST:PORT of each proxy", str(error))
        self.assertRaises(ValueError, kind.checkValue, "no")

    def test_hostNames(self) -> None:
        """
        Names of hosts are separated by spaces or commas, and have no port.
        """
        kind = HostNames()
        for text in ("a.example B-1", " a.example,  B-1 "):
            check(kind, text)
            self.assertEqual(kind.parse(text), ("a.example", "B-1"))
        self.assertEqual((kind.parse(""), kind.show(("a", "b"))), ((), "a b"))
        for text in ("a:80", "a..b", ".a", "http://a/", "[::1]", "*.a"):
            self.assertWrong(kind, text, "expected names of hosts without a port")
        for value in ("a", ["a"], None, (1,)):
            self.assertRaises(ValueError, kind.checkValue, value)

    def test_endpoint(self) -> None:
        """
        All endpoint strings that Twisted accepts are right.
        """
        for text in ("tcp:127.0.0.1:11211", "unix:/run/x", r"tcp:\:\:1:11211", "tls:example.com:443:timeout=5"):
            CLIENT.checkValue(CLIENT.parse(text))
        for text in ("tcp:0", "tcp:65535:interface=127.0.0.1", "tcp6:1", "unix:/run/x:mode=660"):
            SERVER.checkValue(SERVER.parse(text))

    def test_wrongEndpoint(self) -> None:
        """
        The error for an endpoint string that Twisted refuses has the reason and an example.
        """
        self.assertWrong(CLIENT, "tcp:127.0.0.1", "the port is missing", "did you mean tcp:127.0.0.1:11211?")
        self.assertWrong(CLIENT, "tcp:127.0.0.1:http", "'http'", "expected tcp:HOST:PORT")
        self.assertWrong(CLIENT, "tcp:127.0.0.1:1:bogus=1", "'bogus'")
        self.assertWrong(CLIENT, "smtp:1", "Unknown endpoint type: 'smtp'")
        self.assertWrong(CLIENT, "tcp:\\", "expected")
        self.assertWrong(SERVER, "systemd:domain=INET", "expected")
        self.assertWrong(SERVER, "systemd:domain=INET:index=7", "systemd gave this process no such socket")
        self.assertWrong(SERVER, "ssl:1:privateKey=/nonexistent.pem", "/nonexistent.pem")

    def test_missingScheme(self) -> None:
        """
        The error for an endpoint string without C{tcp:} suggests that, and no other address to listen on.
        """
        self.assertWrong(CLIENT, "127.0.0.1:11211", "did you mean tcp:127.0.0.1:11211?")
        self.assertWrong(SERVER, "11212", "did you mean tcp:11212:interface=127.0.0.1?")
        self.assertWrong(CLIENT, "tcp:11211", "the port is missing; did you mean tcp:127.0.0.1:11211?")
        self.assertWrong(CLIENT, "tls:example.com", "the port is missing; did you mean tls:example.com:11211?")

    def test_port(self) -> None:
        """
        A port number that is too large is refused. Twisted would fail with a traceback when it uses the number.
        """
        self.assertWrong(CLIENT, "tcp:127.0.0.1:65536", "port 65536 is more than 65535")
        self.assertWrong(CLIENT, "tcp:host=127.0.0.1:port=99999", "port 99999")
        self.assertWrong(SERVER, "tcp:99999:interface=127.0.0.1", "port 99999")
        SERVER.checkValue("tcp:11212:backlog=100000")

    def test_endpointOneLine(self) -> None:
        """
        The reason is one line, even if that of the exception is not.
        """

        def refuse(description: str) -> object:
            raise KeyError("two\nlines")

        self.assertWrong(Endpoint(refuse, repr, "nothing"), "x", "do not take these arguments; expected nothing")
        self.assertWrong(Endpoint(repr, refuse, "nothing"), "x", "'two\\nlines'; expected nothing")

    @settings(deadline=None)
    @given(st.integers(0, 1 << 41))
    def test_sizeBack(self, value: int) -> None:
        """
        A size is parsed from the text that is shown for it.
        """
        kind = Size(0, 1 << 41)
        self.assertEqual(kind.parse(kind.show(value)), value)

    @settings(deadline=None)
    @given(st.floats(0.001, 31536000.0))
    def test_secondsBack(self, value: float) -> None:
        """
        A time is parsed from the text that is shown for it.
        """
        kind = Seconds(0.001, 31536000.0)
        self.assertEqual(kind.parse(kind.show(value)), value)

    @settings(deadline=None)
    @given(st.text())
    def test_noOtherError(self, text: str) -> None:
        """
        Any text is a value or a C{ValueError}.
        """
        kinds: list[Kind[Any]] = [
            Whole(0, 9),
            Size(0, 9),
            Seconds(0, 9),
            Choice("a"),
            HostNames(),
            Announced(),
            CLIENT,
            SERVER,
        ]
        for kind in kinds:
            try:
                check(kind, text)
            except ValueError as error:
                self.assertNotIn("\n", str(error))


class NearestTests(SynchronousTestCase):
    """
    Tests for L{nearest}.
    """

    def test_near(self) -> None:
        """
        A name with a mistake in its words, or without its hyphens, is found.
        """
        known = ["pool-size", "min-pool-size", "idle-timeout", "connect-timeout", "max-clients"]
        for name, right in (
            ("pol-size", "pool-size"),
            ("poolsize", "pool-size"),
            ("pool_size", "pool-size"),
            ("min-pool-sise", "min-pool-size"),
            ("connection-timeout", "connect-timeout"),
            ("max-client", "max-clients"),
        ):
            self.assertEqual(nearest(name, known), right, name)

    def test_other(self) -> None:
        """
        A name with another number of words, or with other words, means something else.
        """
        known = ["pool-size", "idle-timeout", "connect-timeout", "max-lifetime"]
        for name in ("client-idle-timeout", "timeout", "pool", "max-connections", "read-timeout", "", "-"):
            self.assertIsNone(nearest(name, known), name)
