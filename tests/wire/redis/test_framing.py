# Copyright txconnpool contributors. See LICENSE.
"""
Tests for L{txconnpool.wire.redis.framing}.
"""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from txconnpool.wire.redis.framing import REQUEST_MAX, BrokenRequest, Scanner, encode, splitLine, wordsOf


class ScannerTests(SynchronousTestCase):
    """
    Tests for L{Scanner}.
    """

    def error(self, data: bytes, stranger: bool = False) -> str:
        """
        @return: the error for a request that arrives byte by byte, which is the same as for one that arrives at once.
        """
        whole = self.assertRaises(BrokenRequest, Scanner(100, stranger).scan, data, 0)
        scanner = Scanner(100, stranger)
        with self.assertRaises(BrokenRequest) as raised:
            for size in range(1, len(data) + 1):
                self.assertEqual(scanner.scan(data[:size], 0), 0)
        self.assertEqual(str(raised.exception), str(whole))
        return str(whole)

    @given(st.lists(st.binary(max_size=20), min_size=1, max_size=6), st.binary(max_size=5))
    def test_pieces(self, words: list[bytes], before: bytes) -> None:
        """
        The end of a request is found wherever the bytes are split. C{needed} is never too much.
        """
        request = encode(words)
        scanner = Scanner(100)
        for size in range(1, len(request)):
            self.assertEqual(scanner.scan(before + request[:size], len(before)), 0)
            self.assertLessEqual(scanner.needed, len(request))
        self.assertEqual(scanner.scan(before + request + b"*", len(before)), len(before + request))
        self.assertEqual(wordsOf(before + request + b"*", len(before)), words)

    def test_errorSoon(self) -> None:
        """
        An error is found when its bytes have arrived, however many words were announced. Only large requests are looked
        at less often.
        """
        for size, most in ((0, 1), (1000, 1), (1 << 17, 1 << 15)):
            start = b"*1000\r\n$%d\r\n%b\r\n" % (size, b"x" * size)
            scanner = Scanner(1 << 20)
            self.assertEqual(scanner.scan(start, 0), 0)
            self.assertTrue(len(start) < scanner.needed <= len(start) + most, (size, scanner.needed - len(start)))
            self.assertRaises(BrokenRequest, scanner.scan, start + b"!\r\n" + b"x" * most, 0)

    def test_nothing(self) -> None:
        """
        A request without words is complete.
        """
        for data in (b"*0\r\n", b"*-1\r\n", b"*-12\r\n"):
            scanner = Scanner(100)
            self.assertEqual((scanner.scan(data, 0), scanner.count <= 0), (len(data), True))

    def test_errors(self) -> None:
        """
        Headers that are not canonical, and sizes beyond the limits, have the errors of Redis.
        """
        for data in (b"*abc\r\n", b"*\r\n", b"*+1\r\n", b"*01\r\n", b"*-0\r\n", b"*1048577\r\n", b"*1_0\r\n"):
            self.assertEqual(self.error(data), "Protocol error: invalid multibulk length")
        for size in (b"abc", b"", b"-1", b"+1", b"01", b" 1", b"101", b"99999999999"):
            self.assertEqual(self.error(b"*1\r\n$%b\r\n" % size), "Protocol error: invalid bulk length")
        self.assertEqual(self.error(b"*1\r\n:1\r\n"), "Protocol error: expected '$', got ':'")
        for data in (b"*1\rx", b"*1\r\n$4\rx", b"*1\r\n$4\r\nPINGXX"):
            self.assertEqual(self.error(data), "Protocol error: invalid CRLF in request")

    def test_longLines(self) -> None:
        """
        A header without an end is refused.
        """
        long = b"*" + b"1" * (1 << 16)
        self.assertEqual(Scanner(100).scan(long[:-1], 0), 0)
        error = self.assertRaises(BrokenRequest, Scanner(100).scan, long, 0)
        self.assertEqual(str(error), "Protocol error: too big mbulk count string")
        error = self.assertRaises(BrokenRequest, Scanner(100).scan, b"*1\r\n$" + b"1" * (1 << 16), 0)
        self.assertEqual(str(error), "Protocol error: too big bulk count string")

    def test_total(self) -> None:
        """
        All words together are limited too.
        """
        scanner = Scanner(REQUEST_MAX)
        error = self.assertRaises(BrokenRequest, scanner.scan, b"*1\r\n$%d\r\n" % REQUEST_MAX, 0)
        self.assertEqual(str(error), "Protocol error: invalid bulk length")

    def test_stranger(self) -> None:
        """
        Before a login, the limits are lower.
        """
        self.assertEqual(Scanner(100, True).scan(b"*10\r\n", 0), 0)
        self.assertEqual(self.error(b"*11\r\n", True), "Protocol error: unauthenticated multibulk length")
        scanner = Scanner(1 << 20, True)
        self.assertEqual(scanner.scan(b"*1\r\n$16384\r\n", 0), 0)
        error = self.assertRaises(BrokenRequest, Scanner(1 << 20, True).scan, b"*1\r\n$16385\r\n", 0)
        self.assertEqual(str(error), "Protocol error: unauthenticated bulk length")

    @given(st.binary(max_size=60), st.integers(0, 60))
    def test_anything(self, data: bytes, place: int) -> None:
        """
        Any bytes have the same result however they arrive.
        """

        def result(*sizes: int) -> object:
            scanner = Scanner(20)
            end = 0
            for size in sizes:
                try:
                    end = scanner.scan(b"*" + data[:size], 0)
                except BrokenRequest as error:
                    return str(error)
                if end:
                    break
            return end

        self.assertEqual(result(len(data)), result(place, len(data)))


class LineTests(SynchronousTestCase):
    """
    Tests for L{splitLine}.
    """

    def test_words(self) -> None:
        """
        Words are separated by white space, and may be quoted.
        """
        for line, words in (
            (b"", []),
            (b"  get \t k  ", [b"get", b"k"]),
            (b"set 'a b' \"c\\n\\x41\\q\"", [b"set", b"a b", b"c\nAq"]),
            (b"'it\\'s' '\\n'", [b"it's", b"\\n"]),
            (b'ab"c d" ""', [b"abc d", b""]),
        ):
            self.assertEqual(splitLine(line), words)
            self.assertEqual(wordsOf(b"x" + line + b"\r\n", 1), words)

    def test_quotes(self) -> None:
        """
        Quotes have to be closed, before white space.
        """
        for line in (b'"a', b"'a", b"'a'b", b'"a\\', b'get "a"b'):
            self.assertRaises(BrokenRequest, splitLine, line)

    @given(st.binary(max_size=40))
    def test_anything(self, line: bytes) -> None:
        """
        Any line is split or refused.
        """
        try:
            splitLine(line)
        except BrokenRequest as error:
            self.assertIn("unbalanced quotes", str(error))
