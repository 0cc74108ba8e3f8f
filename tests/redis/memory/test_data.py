# Copyright txconnpool contributors. See LICENSE.
"""
Tests for L{txconnpool.redis.memory.data}.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from txconnpool.redis.memory.data import Data, Pairs, ReplyError, encoded, floating, integer, pattern


class ValueTests(SynchronousTestCase):
    """
    Tests for the functions.
    """

    def test_pattern(self) -> None:
        """
        Glob-style patterns match as those of Redis.
        """
        for glob, texts, others in (
            ("*", ("", "a\nb"), ()),
            ("a?c", ("abc", "a\nc"), ("ac", "abbc")),
            ("a**c", ("ac", "abbc"), ("ab",)),
            ("[ab]1", ("a1", "b1"), ("c1",)),
            ("[a-c]", ("b",), ("d", "-")),
            ("[^a]", ("b",), ("a",)),
            ("[[]", ("[",), ("a",)),
            (r"\*.\[", ("*.[",), ("a.[",)),
            ("a.b+", ("a.b+",), ("axb",)),
        ):
            matches = pattern(glob.encode()).fullmatch
            self.assertEqual([text for text in texts if not matches(text.encode())], [], glob)
            self.assertEqual([text for text in others if matches(text.encode())], [], glob)

    def test_numbers(self) -> None:
        """
        Numbers are written as Redis reads them.
        """
        self.assertEqual([integer(b"0"), integer(b"-7"), floating(b"1e3"), floating(b".5")], [0, -7, 1000.0, 0.5])
        for word in (b"", b"01", b"+1", b"1.0", b" 1", b"9223372036854775808"):
            self.assertRaises(ReplyError, integer, word)
        for word in (b"", b"nan", b"1_0", b" 1", b"1e"):
            self.assertRaises(ReplyError, floating, word)

    def test_encoded(self) -> None:
        """
        Replies have the types of the version of RESP.
        """
        pairs = Pairs([[b"a", 1.5]])
        self.assertEqual(encoded(pairs, 2), b"*2\r\n$1\r\na\r\n$3\r\n1.5\r\n")
        self.assertEqual(encoded(pairs, 3), b"*1\r\n*2\r\n$1\r\na\r\n,1.5\r\n")
        self.assertEqual(encoded({b"a": None}, 2), b"*2\r\n$1\r\na\r\n$-1\r\n")
        self.assertEqual(encoded({b"a": None}, 3), b"%1\r\n$1\r\na\r\n_\r\n")
        self.assertEqual(encoded(ReplyError("ERR a\nb"), 3), b"-ERR a b\r\n")


class DataTests(SynchronousTestCase):
    """
    Tests for L{Data}.
    """

    def test_items(self) -> None:
        """
        A test can set and look at the values of database 0.
        """
        data = Data(lambda: 0.0)
        data.items[b"a"] = b"1"
        self.assertEqual(data.databases[0].find(b"a", bytes), b"1")
        self.assertEqual(data.databases[1].live(), [])
