# Copyright txconnpool contributors. See LICENSE.
"""
Tests for L{txconnpool.redis.arguments}.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from txconnpool.redis import InvalidArgument
from txconnpool.redis.arguments import (
    OTHER,
    STATEFUL,
    applyNamespace,
    checkStateless,
    commandOf,
    encodeWord,
    escapePattern,
    mayBlock,
)
from txconnpool.wire.redis.commands import BY_NAME, PINNED


class ArgumentTests(SynchronousTestCase):
    """
    Tests for the words of requests.
    """

    def test_words(self) -> None:
        """
        Text and numbers become bytes. Text that was decoded from other bytes becomes these again.
        """
        for value, data in (
            ("\u00e9", b"\xc3\xa9"),
            (b"\xff", b"\xff"),
            ("\udcff", b"\xff"),
            (-5, b"-5"),
            (1e100, b"1e+100"),
            (float("inf"), b"inf"),
            (bytearray(b"a"), b"a"),
        ):
            self.assertEqual(encodeWord(value), data)
        for wrong in (None, True, [], object()):
            self.assertRaises(InvalidArgument, encodeWord, wrong)

    def test_commands(self) -> None:
        """
        A command is found in any case, a subcommand too. A wrong number of words is an error.
        """
        self.assertEqual(commandOf([b"Get", b"k"]).name, "get")
        self.assertEqual(commandOf([b"config", b"Get", b"k"]).name, "config|get")
        self.assertIs(commandOf([b"BF.ADD"]), OTHER)
        for words in ([], [b""], [b"GET"], [b"CONFIG", b"GET"]):
            self.assertRaises(InvalidArgument, commandOf, words)

    def test_stateful(self) -> None:
        """
        No command that the proxy pins, and that does not only block, may be sent on a shared connection.
        """
        for name in PINNED:
            words = name.upper().encode().split(b"|")
            if name in STATEFUL:
                self.assertRaises(InvalidArgument, checkStateless, words, BY_NAME[name])
            else:
                self.assertTrue(BY_NAME[name].mayBlock, name)

    def test_blocking(self) -> None:
        """
        C{XREAD} blocks only with its option.
        """
        plain = [b"XREAD", b"STREAMS", b"s", b"0"]
        self.assertFalse(mayBlock(plain, commandOf(plain)))
        blocking = [b"XREAD", b"BLOCK", b"0", b"STREAMS", b"s", b"0"]
        self.assertTrue(mayBlock(blocking, commandOf(blocking)))

    def test_namespace(self) -> None:
        """
        The namespace is put before the keys, wherever they are.
        """
        for request, expected in (
            (b"GET k", b"GET n:k"),
            (b"MSET a 1 b 2", b"MSET n:a 1 n:b 2"),
            (b"EVAL x 1 k v", b"EVAL x 1 n:k v"),
            (b"ZUNIONSTORE d 2 a b WEIGHTS 1 2", b"ZUNIONSTORE n:d 2 n:a n:b WEIGHTS 1 2"),
            (b"BLPOP a b 0", b"BLPOP n:a n:b 0"),
            (b"XREAD COUNT 1 STREAMS a b 0 0", b"XREAD COUNT 1 STREAMS n:a n:b 0 0"),
            (b"KEYS a*", b"KEYS n:a*"),
            (b"SCAN 0", b"SCAN 0 MATCH n:*"),
            (b"SCAN 0 COUNT 5 match a", b"SCAN 0 COUNT 5 match n:a"),
            (b"PUBLISH c m", b"PUBLISH c m"),
            (b"SPUBLISH c m", b"SPUBLISH c m"),
        ):
            words = request.split(b" ")
            applyNamespace(words, commandOf(words), b"n:")
            self.assertEqual(b" ".join(words), expected)
        for request in (b"SORT k", b"BF.ADD k v", b"RANDOMKEY"):
            words = request.split(b" ")
            self.assertRaises(InvalidArgument, applyNamespace, words, commandOf(words), b"n:")

    def test_pattern(self) -> None:
        """
        Special characters of patterns are escaped.
        """
        self.assertEqual(escapePattern(b"a*[b]?\\^"), rb"a\*\[b\]\?\\\^")
