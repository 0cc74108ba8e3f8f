# -*- test-case-name: tests.routing.distribution.test_keys -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Tests for L{txconnpool.routing.distribution.keys}.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from txconnpool.routing.distribution.keys import inOrder, salter, skipper, stopper, tagger, withoutRoute


class CutTests(SynchronousTestCase):
    """
    Tests for what of a key is hashed.
    """

    def test_tag(self) -> None:
        """
        What is between the first opening character and the next closing one is hashed, if there is anything.
        """
        cut = tagger(b"{}")
        for key, hashed in (
            (b"{user}:profile", b"user"),
            (b"a{user}b{other}c", b"user"),
            (b"a}b{user}c", b"user"),
            (b"{{user}}", b"{user"),
            *((key, key) for key in (b"user", b"{}user", b"{user", b"user}", b"}user{", b"{}x{y}", b"")),
        ):
            self.assertEqual(cut(key), hashed, key)

    def test_equalTag(self) -> None:
        """
        Both characters of a tag may be equal.
        """
        self.assertEqual([tagger(b"$$")(key) for key in (b"a$b$c", b"$$a", b"$a")], [b"b", b"$$a", b"$a"])

    def test_emptyTag(self) -> None:
        """
        Nothing is hashed of a key with an empty tag, if the system has it so.
        """
        cut = tagger(b"{}", emptyTags=True)
        self.assertEqual([cut(key) for key in (b"{}a", b"{b}a", b"}{")], [b"", b"b", b"}{"])

    def test_stop(self) -> None:
        """
        A key ends for hashing where the text begins, even if nothing is before it.
        """
        cut = stopper(b"|#|")
        self.assertEqual([cut(key) for key in (b"a|#|b|#|c", b"a|#", b"|#|a")], [b"a", b"a|#", b""])

    def test_skip(self) -> None:
        """
        A prefix is left out once, where it is. A key may consist of it.
        """
        cut = skipper(b"app:")
        self.assertEqual([cut(key) for key in (b"app:app:a", b"a:app:", b"app:")], [b"app:a", b"a:app:", b""])

    def test_route(self) -> None:
        """
        A routing prefix has two names. Slashes after it are part of the key.
        """
        for key, hashed in (
            (b"/east/web/a", b"a"),
            (b"/east/web/a/b", b"a/b"),
            (b"/east/web/", b""),
            *((key, key) for key in (b"/east/a", b"east/web/a/b", b"a", b"/", b"")),
        ):
            self.assertEqual(withoutRoute(key), hashed, key)

    def test_order(self) -> None:
        """
        Several of them are applied in their order; none is nothing.
        """
        self.assertIsNone(inOrder([]))
        self.assertIs(inOrder([withoutRoute]), withoutRoute)
        cut = inOrder([skipper(b"app:"), tagger(b"{}"), salter(b"+")])
        assert cut is not None
        self.assertEqual([cut(key) for key in (b"app:{a}b", b"{app:a}")], [b"a+", b"app:a+"])
