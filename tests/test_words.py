# Copyright txconnpool contributors. See LICENSE.
"""
Tests that only the rooms of memcached contain words of memcached's protocol.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from twisted.trial.unittest import SynchronousTestCase

from tests.test_layering import modules, room

#: The rooms that know memcached.
KNOWING = ("wire.memcache", "memcache", "migrate")

#: The rooms that know Redis, which has the same line end and some of the same words.
REDIS = ("wire.redis", "redis")

#: A module that knows one command of memcached, by which servers are discovered.
DISCOVERY = ("net.discovery.cluster", "net.discovery.sentinels")

#: In bytes: memcached's line end, and its commands and replies as words between spaces or line ends.
IN_BYTES = re.compile(
    rb"\r\n"
    rb"|(?<![^ \n])(?:gets?|gats?|set|add|replace|append|prepend|cas|incr|decr|delete|touch|flush_all|verbosity|version"
    rb"|stats|quit|mg|ms|md|ma|me|mn|noreply"
    rb"|VALUE|END|STORED|NOT_STORED|EXISTS|NOT_FOUND|DELETED|TOUCHED|OK|STAT|RESET|VERSION|MN|HD|EN|NS|EX|NF|VA|ME"
    rb"|ERROR|CLIENT_ERROR|SERVER_ERROR)(?![^ \r\n])"
)

#: In text: words that have no other meaning, at the beginning of a string. Prose that mentions one, such as the help of
#: an option, does not count.
IN_TEXT = re.compile(
    r"\A(?:gats?|incr|decr|flush_all|noreply|STORED|NOT_STORED|NOT_FOUND|DELETED|TOUCHED|CLIENT_ERROR|SERVER_ERROR)\b"
)


def literals(tree: ast.Module) -> Iterator[tuple[int, str | bytes]]:
    """
    Find the string and bytes literals of a module, including those in f-strings.

    @return: line numbers and values. Docstrings, and other strings that are statements, are left out.
    """
    documentation = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str | bytes) and id(node) not in documentation:
            yield node.lineno, node.value


def words(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """
    Find words of memcached's protocol in the literals of a module.

    @return: line numbers and words.
    """
    for line, value in literals(tree):
        if isinstance(value, bytes):
            yield from ((line, repr(match[0])) for match in IN_BYTES.finditer(value))
        else:
            yield from ((line, repr(match[0])) for match in IN_TEXT.finditer(value))


class WordsTests(SynchronousTestCase):
    """
    Tests for the words in the modules.
    """

    def test_elsewhere(self) -> None:
        """
        Modules outside of memcached's rooms contain none of its words, except that lines of HTTP end in the same way,
        and that a memcached or the sentinels of a Redis may name the servers.
        """
        wrong = [
            f"{name or '__init__'}, line {line}: {word}"
            for name, tree in modules().items()
            if room(name) not in (*KNOWING, *REDIS) and name not in DISCOVERY
            for line, word in words(tree)
            if not (name.startswith("operate.http.") and word == repr(b"\r\n"))
        ]
        self.assertEqual(wrong, [])

    def test_there(self) -> None:
        """
        The rooms of memcached contain them, so the search works.
        """
        found = {word for name, tree in modules().items() if room(name) in KNOWING for _, word in words(tree)}
        self.assertLessEqual({repr(word) for word in (b"\r\n", b"noreply", b"END", b"STORED", b"stats")}, found)

    def test_literals(self) -> None:
        """
        Comments and docstrings are not searched, parts of f-strings are.
        """
        tree = ast.parse(
            '"""NOT_FOUND"""\n'
            "# noreply\n"
            "class A:\n"
            '    """DELETED"""\n'
            '    b = f"STORED {A} deleted"\n'
            '    c = b"x END\\r\\n"\n'
            '    "incr"\n'
            '    d = "as in incr", b"-END-"\n'
        )
        self.assertEqual(sorted(words(tree)), [(5, repr("STORED")), (6, repr(b"END")), (6, repr(b"\r\n"))])
