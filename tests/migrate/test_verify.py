# Copyright txconnpool contributors. See LICENSE.
"""
Tests for L{txconnpool.migrate.verify}. Those with real proxies are in C{tests/real/test_migrate.py}.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from functools import partial
from io import BytesIO
from typing import Any, cast

from twisted.trial.unittest import SynchronousTestCase

from txconnpool.migrate.verify import (
    SHAPES,
    Outcome,
    Peer,
    RedisPeer,
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


class FakeSocket:
    """
    A connection to a proxy that sends given replies.

    @ivar sent: all bytes that were sent.
    @ivar error: what sending and receiving raise, or C{None}.
    """

    def __init__(self, replies: bytes) -> None:
        self.replies = BytesIO(replies)
        self.sent = b""
        self.error: OSError | None = None
        self.closed = False
        self.connected: object = None

    def settimeout(self, timeout: float) -> None:
        self.timeout = timeout

    def gettimeout(self) -> float:
        return self.timeout

    def connect(self, address: object) -> None:
        self._fail()
        self.connected = address

    def makefile(self, mode: str) -> FakeSocket:
        return self

    def sendall(self, data: bytes) -> None:
        self._fail()
        self.sent += data

    def readline(self, size: int) -> bytes:
        self._fail()
        return self.replies.readline(size)

    def read(self, size: int) -> bytes:
        self._fail()
        return self.replies.read(size)

    def close(self) -> None:
        self.closed = True

    def _fail(self) -> None:
        if self.error is not None:
            raise self.error


class PeerTests(SynchronousTestCase):
    """
    Tests for L{Peer} and L{RedisPeer}.
    """

    def connect(self, kind: Callable[..., Any], replies: bytes, *args: Any, address: Any = ("old", 1)) -> Any:
        """
        @return: a peer that receives C{replies}.
        """
        self.socket = FakeSocket(replies)
        self.socket.timeout = 2.0
        self.patch(socket, "create_connection", lambda address, timeout: self.socket)
        self.patch(socket, "socket", lambda family: self.socket)
        return kind("the old proxy", address, 2.0, *args)

    def test_memcached(self) -> None:
        """
        Keys are set, got and deleted with memcached's commands. Errors are passed on for the keys that have them.
        """
        peer = self.connect(Peer, b"STORED\r\nSERVER_ERROR down\r\n")
        self.assertEqual(peer.set([(b"a", b"1"), (b"b", b"22")]), [None, "SERVER_ERROR down"])
        self.assertEqual(self.socket.sent, b"set a 0 600 1\r\n1\r\nset b 0 600 2\r\n22\r\n")
        peer = self.connect(Peer, b"VALUE a 0 4\r\n1\r\n2\r\nEND\r\nEND\r\nSERVER_ERROR down\r\n")
        self.assertEqual(repr(peer.get([b"a", b"b", b"c"])), repr([b"1\r\n2", None, Refused("SERVER_ERROR down")]))
        self.assertEqual(self.socket.sent, b"get a\r\nget b\r\nget c\r\n")
        peer = self.connect(Peer, b"DELETED\r\nNOT_FOUND\r\n")
        peer.delete([b"a", b"b"])
        self.assertEqual(self.socket.sent, b"delete a\r\ndelete b\r\n")
        peer.close()
        self.assertTrue(self.socket.closed)

    def test_redis(self) -> None:
        """
        Keys are set, got and deleted with the commands of Redis, after a login if there is a password.
        """
        peer = self.connect(RedisPeer, b"+OK\r\n+OK\r\n-ERR down\r\n", "secret")
        self.assertEqual(peer.set([(b"a", b"1"), (b"b", b"2")]), [None, "-ERR down"])
        self.assertTrue(self.socket.sent.startswith(b"*2\r\n$4\r\nAUTH\r\n$6\r\nsecret\r\n*5\r\n$3\r\nSET\r\n"))
        peer = self.connect(RedisPeer, b"$4\r\n1\r\n2\r\n$-1\r\n-ERR down\r\n")
        self.assertEqual(repr(peer.get([b"a", b"b", b"c"])), repr([b"1\r\n2", None, Refused("-ERR down")]))
        peer = self.connect(RedisPeer, b":1\r\n")
        peer.delete([b"a"])
        self.assertEqual(self.socket.sent, b"*2\r\n$3\r\nDEL\r\n$1\r\na\r\n")

    def test_wrongPassword(self) -> None:
        """
        A wrong password is an error, with the reply of the server; the connection is closed.
        """
        error = self.assertRaises(Trouble, self.connect, RedisPeer, b"-WRONGPASS no\r\n", "secret")
        self.assertEqual(str(error), "the old proxy old:1: -WRONGPASS no")
        self.assertTrue(self.socket.closed)

    def test_unix(self) -> None:
        """
        The address may be the path of a UNIX socket.
        """
        peer = self.connect(Peer, b"", address="/run/old.sock")
        self.assertEqual((self.socket.connected, peer.address), ("/run/old.sock", "/run/old.sock"))

    def test_refused(self) -> None:
        """
        If there is no connection, the error has its address and the reason.
        """

        def refuse(address: object, timeout: float) -> None:
            raise ConnectionRefusedError(111, "Connection refused")

        self.patch(socket, "create_connection", refuse)
        error = self.assertRaises(Trouble, Peer, "the old proxy", ("old", 1), 2.0)
        self.assertEqual(str(error), "the old proxy old:1: cannot connect: Connection refused")

    def test_broken(self) -> None:
        """
        A reply that matches no request, one that ends early, a lost connection and silence are errors that say so.
        """
        name = "the old proxy old:1: "
        for replies, text in (
            (b"VALUE b 0 1\r\n1\r\nEND\r\n", "a reply to get does not match the request"),
            (b"VALUE a 0 9\r\n1", "closed the connection instead of a reply"),
            (b"VALUE a", "closed the connection instead of a reply"),
        ):
            peer = self.connect(Peer, replies)
            self.assertEqual(str(self.assertRaises(Trouble, peer.get, [b"a"])), name + text)
        for cause, text in (
            (TimeoutError(), "no reply within 2 seconds"),
            (ConnectionResetError(104, "Connection reset by peer"), "closed the connection: Connection reset by peer"),
        ):
            peer = self.connect(Peer, b"")
            self.socket.error = cause
            for call in (partial(peer.get, [b"a"]), peer._line, partial(peer._read, 1)):
                self.assertEqual(str(self.assertRaises(Trouble, call)), name + text)
