# Copyright txconnpool contributors. See LICENSE.
"""
Tests for L{txconnpool.migrate.verify}. Those of its connections are in C{tests/real/test_migrate.py}.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import cast

from twisted.trial.unittest import SynchronousTestCase

from txconnpool.migrate.verify import (
    SHAPES,
    Outcome,
    Peer,
    Refused,
    Report,
    Trouble,
    Verification,
    makeKeys,
    parseAddress,
)

Servers = dict[int, dict[bytes, bytes]]


class FakePeer:
    """
    A proxy in front of servers.
    """

    def __init__(self, name: str, servers: Servers, choose: Callable[[bytes], int]) -> None:
        self.address = name
        self.servers, self.choose = servers, choose
        self.down: set[int] = set()
        self.broken = False
        self.closed = False

    def close(self) -> None:
        self.closed = True

    def set(self, pairs: Sequence[tuple[bytes, bytes]]) -> list[str | None]:
        if self.broken:
            raise Trouble("broken")
        return [self._set(key, value) for key, value in pairs]

    def _set(self, key: bytes, value: bytes) -> str | None:
        server = self.choose(key)
        if server in self.down:
            return "SERVER_ERROR down"
        self.servers[server][key] = value
        return None

    def get(self, keys: Sequence[bytes]) -> list[bytes | Refused | None]:
        return [
            Refused("SERVER_ERROR down") if self.choose(key) in self.down else self.servers[self.choose(key)].get(key)
            for key in keys
        ]

    def delete(self, keys: Sequence[bytes]) -> None:
        for key in keys:
            self.servers[self.choose(key)].pop(key, None)


class VerificationTests(SynchronousTestCase):
    """
    Tests for L{Verification} and L{Report}.
    """

    def setUp(self) -> None:
        """
        Make two proxies with the same map.
        """
        self.servers: Servers = {0: {}, 1: {}}
        self.old = FakePeer("old:1", self.servers, lambda key: sum(key) % 2)
        self.new = FakePeer("new:2", self.servers, lambda key: sum(key) % 2)

    def run_(self, count: int = 110) -> Report:
        """
        Compare them.
        """
        verification = Verification(lambda: cast(Peer, self.old), lambda: cast(Peer, self.new), "p")
        return verification.run(count)

    def after(self) -> None:
        """
        Check that no key is left, and that the connections are closed.
        """
        self.assertEqual(self.servers, {0: {}, 1: {}})
        self.assertTrue(self.old.closed and self.new.closed)

    def test_same(self) -> None:
        """
        If the maps are the same, so are the servers of all keys.
        """
        report = self.run_()
        self.assertEqual({outcome for _, _, outcome, _ in report.outcomes}, {Outcome.SAME})
        self.assertEqual((report.status, len(report.outcomes)), (0, 110))
        self.assertRegex(
            report.text(20), r"^OLD old:1, NEW new:2: 110 keys that begin with p\w{12}, .*\nAll 110 keys are"
        )
        self.after()

    def test_different(self) -> None:
        """
        Keys on other servers are listed, with their share, by kind.
        """
        self.new.choose = lambda key: (sum(key) + (b"7" in key[13:])) % 2
        report = self.run_(100)
        text = report.text(3)
        self.assertEqual(report.status, 1)
        others = [key for _, key, outcome, _ in report.outcomes if outcome is Outcome.OTHER]
        self.assertGreater(len(others), 3)
        self.assertTrue(all(b"7" in key[13:] for key in others))
        self.assertIn(
            f"{len(others)} of 100 keys ({len(others)}.0 %) are on another server:\n  {others[0].decode()}", text
        )
        self.assertIn(f"  and {len(others) - 3} more\n", text)
        self.assertRegex(text, r"  keys plain +[0-9]+ of 10 on another server\n")
        self.assertIn("Compare distribution and hash, and the labels", text)
        self.assertNotIn("more\n", report.text(None))
        self.after()

    def test_hints(self) -> None:
        """
        If only one kind of keys differs, the report says what that means.
        """
        for mark, hint in (
            ("é".encode(), "depend on the processor"),
            (b"|#|", "compare hash-stop"),
            (b"{", "compare hash-tag"),
        ):
            self.new.choose = partial(lambda mark, key: (sum(key) + (mark in key)) % 2, mark)
            self.assertIn(hint, self.run_().text(20))

    def test_down(self) -> None:
        """
        Keys of a server that is down cannot be compared.
        """
        self.new.down.add(0)
        report = self.run_()
        self.assertEqual(report.status, 2)
        unknown = [why for _, _, outcome, why in report.outcomes if outcome is Outcome.UNKNOWN]
        self.assertEqual(set(unknown), {"SERVER_ERROR down"})
        self.assertIn(f"{len(unknown)} of 110 keys could not be compared:\n", report.text(20))
        self.after()

    def test_random(self) -> None:
        """
        A proxy that does not find its own keys has no map.
        """
        turns = iter(range(100000))
        self.new.choose = lambda key: next(turns) // 110 % 2
        report = self.run_()
        self.assertNotEqual(report.status, 0)
        self.assertIn("new:2 does not return what was set through it", report.text(None))

    def test_trouble(self) -> None:
        """
        What was set is deleted if the comparison fails.
        """
        self.new.broken = True
        self.assertRaises(Trouble, self.run_)
        self.after()


class KeyTests(SynchronousTestCase):
    """
    Tests for the keys and the arguments.
    """

    def test_keys(self) -> None:
        """
        All keys are different, possible, and begin with the prefix.
        """
        keys = makeKeys("p" * 30, 1000)
        self.assertEqual(len({key for _, key in keys}), 1000)
        self.assertEqual({shape for shape, _ in keys}, set(SHAPES))
        for _, key in keys:
            self.assertTrue(key.startswith(b"p" * 30))
            self.assertRegex(key, rb"\A[^\x00-\x20\x7f]{1,250}\Z")

    def test_prefix(self) -> None:
        """
        A prefix that cannot be one is an error.
        """
        for prefix in ("", "a b", "a\n", "a" * 101):
            self.assertRaises(Trouble, makeKeys, prefix, 1)

    def test_addresses(self) -> None:
        """
        Addresses are host and port, or a path.
        """
        for text, expected in (
            ("127.0.0.1:11211", ("127.0.0.1", 11211)),
            ("tcp:localhost:1", ("localhost", 1)),
            ("[::1]:2", ("::1", 2)),
            ("/run/a.sock", "/run/a.sock"),
            ("unix:./a.sock", "./a.sock"),
        ):
            self.assertEqual(parseAddress(text), expected)
        for text in ("a", "a:", ":1", "a:0", "a:65536", "a:b"):
            self.assertRaises(Trouble, parseAddress, text)
