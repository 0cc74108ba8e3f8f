# -*- test-case-name: tests.wire.redis.test_topology -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Tests for L{txconnpool.wire.redis.topology} and L{txconnpool.wire.topology}.
"""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.bugs import covers
from txconnpool.errors import WireError
from txconnpool.wire.redis.commands import BY_NAME
from txconnpool.wire.redis.framing import encode
from txconnpool.wire.redis.topology import NoTopology, askTopology, readRedirect, readShards, readSlots
from txconnpool.wire.topology import Node, Shard


def resp(value: Any, version: int = 2) -> bytes:
    """
    @return: a reply with a value.
    """
    if isinstance(value, dict):
        head = b"%%%d\r\n" % len(value) if version == 3 else b"*%d\r\n" % (2 * len(value))
        return head + b"".join(resp(each, version) for item in value.items() for each in item)
    if isinstance(value, list):
        return b"*%d\r\n" % len(value) + b"".join(resp(each, version) for each in value)
    if isinstance(value, int):
        return b":%d\r\n" % value
    if value is None:
        return b"_\r\n" if version == 3 else b"$-1\r\n"
    data = value.encode()
    return b"$%d\r\n%b\r\n" % (len(data), data)


def node(endpoint: str, port: int | None = 6379, role: str = "master", **more: Any) -> dict[str, Any]:
    """
    @return: a node in the reply to CLUSTER SHARDS.
    """
    ports = {} if port is None else {"port": port}
    return {
        "id": "0" * 40, **ports, "ip": "10.0.0.9", "endpoint": endpoint, "role": role, "replication-offset": 7,
        "health": "online", **more,
    }  # fmt: skip


class ShardsTests(SynchronousTestCase):
    """
    Tests for L{readShards}.
    """

    def test_shards(self) -> None:
        """
        Shards have the ranges of their primary, and the replicas that are online, in both versions of the protocol.
        """
        value = [
            {
                "slots": [0, 100, 200, 300],
                "nodes": [
                    node("10.0.0.2", role="replica"), node("10.0.0.1"), node("10.0.0.3", role="replica", health="fail"),
                    node("10.0.0.4", role="replica", health="loading"),
                ],
            },
            {"slots": [], "nodes": [node("new.example", 7000)]},
        ]  # fmt: skip
        expected = [
            Shard(((0, 100), (200, 300)), Node("10.0.0.1", 6379), (Node("10.0.0.2", 6379),)),
            Shard((), Node("new.example", 7000)),
        ]
        for version in (2, 3):
            self.assertEqual(readShards(resp(value, version)), expected)

    def test_endpoints(self) -> None:
        """
        An endpoint is an address, a name, nothing for the host that was asked, or unknown: then the address is used.
        """
        for endpoint, host in (("2001:db8::1", "2001:db8::1"), ("a.example", "a.example"), ("", ""), ("?", "10.0.0.9")):
            [shard] = readShards(resp([{"slots": [1, 2], "nodes": [node(endpoint)]}]))
            self.assertEqual(shard.primary, Node(host, 6379))
        self.assertEqual(readShards(resp([{"slots": [1, 2], "nodes": [node("?", ip="")]}])), [])

    def test_secure(self) -> None:
        """
        With TLS, the ports for it are used. A node without such a port is left out.
        """
        value = [{"slots": [1, 2], "nodes": [{**node("a"), "tls-port": 6380}, node("b", role="replica")]}]
        self.assertEqual(readShards(resp(value), True), [Shard(((1, 2),), Node("a", 6380))])
        self.assertEqual(readShards(resp([{"slots": [1, 2], "nodes": [node("a", None)]}])), [])

    def test_failover(self) -> None:
        """
        If a shard has a primary that has failed and one that is online, the latter counts.
        """
        nodes = [node("a", health="fail"), node("b"), node("c", health="fail")]
        for order in (nodes, nodes[::-1]):
            self.assertEqual(readShards(resp([{"slots": [1, 2], "nodes": order}]))[0].primary, Node("b", 6379))
        [shard] = readShards(resp([{"slots": [1, 2], "nodes": nodes[:1]}]))
        self.assertEqual(shard.primary, Node("a", 6379))

    def test_wrong(self) -> None:
        """
        Other replies are errors that say what was wrong.
        """
        for reply, what in (
            (b"-ERR This instance has cluster support disabled\r\n", "says .*cluster support disabled"),
            (resp(7), "another form"),
            (resp([7]), "another form"),
            (resp([{"slots": [1, 16384], "nodes": []}]), "slot 16384"),
            (resp([{"slots": ["a"], "nodes": []}]), "slot b'a'"),
        ):
            self.assertRaisesRegex(NoTopology, what, readShards, reply)
        self.assertRaises(WireError, readShards, b"*1\r\n")


class SlotsTests(SynchronousTestCase):
    """
    Tests for L{readSlots}.
    """

    def test_slots(self) -> None:
        """
        The ranges of one primary are one shard.
        """
        a, b = ["10.0.0.1", 7001, "a" * 40], ["10.0.0.2", 7002, "b" * 40, []]
        value = [[0, 5, a, b], [6, 9, b], [10, 11, a, b]]
        expected = [
            Shard(((0, 5), (10, 11)), Node("10.0.0.1", 7001), (Node("10.0.0.2", 7002),)),
            Shard(((6, 9),), Node("10.0.0.2", 7002)),
        ]
        for version in (2, 3):
            self.assertEqual(readSlots(resp(value, version)), expected)

    def test_endpoints(self) -> None:
        """
        A null endpoint is the host that was asked. An unknown one has its address among the further names.
        """
        unknown = ["?", 7001, "a" * 40, ["ip", "10.0.0.5"]]
        for row, host in (([None, 7001, "a" * 40, ["hostname", "x"]], ""), (unknown, "10.0.0.5")):
            self.assertEqual(readSlots(resp([[0, 5, row]])), [Shard(((0, 5),), Node(host, 7001))])
        self.assertEqual(readSlots(resp([[0, 5, ["?", 7001, "a" * 40], ["10.0.0.1", 7002, "b" * 40]]])), [])

    def test_wrong(self) -> None:
        """
        Other replies are errors.
        """
        self.assertRaises(NoTopology, readSlots, b"-ERR no\r\n")
        self.assertRaises(NoTopology, readSlots, resp([[0, 16384, ["10.0.0.1", 1, "a"]]]))


class AskTests(SynchronousTestCase):
    """
    Tests for L{askTopology}.
    """

    def test_old(self) -> None:
        """
        A server that does not know CLUSTER SHARDS is asked for CLUSTER SLOTS.
        """
        asking = askTopology(False)
        self.assertEqual(next(asking)[1], encode([b"CLUSTER", b"SHARDS"]))
        self.assertEqual(asking.send(b"-ERR Unknown subcommand\r\n")[1], encode([b"CLUSTER", b"SLOTS"]))
        with self.assertRaises(StopIteration) as stop:
            asking.send(resp([[0, 5, ["10.0.0.1", 7001, "a" * 40]]]))
        self.assertEqual(stop.exception.value, [Shard(((0, 5),), Node("10.0.0.1", 7001))])

    def test_new(self) -> None:
        """
        The reply to CLUSTER SHARDS is enough.
        """
        asking = askTopology(False)
        next(asking)
        with self.assertRaises(StopIteration) as stop:
            asking.send(resp([]))
        self.assertEqual(stop.exception.value, [])


class RedirectTests(SynchronousTestCase):
    """
    Tests for L{readRedirect}.
    """

    def read(self, reply: bytes, command: str = "get") -> Any:
        """
        Read a reply that is not the first one in the bytes.
        """
        return readRedirect(BY_NAME[command], b"request", b"xx" + reply, 2)

    @covers("R32")
    def test_moved(self) -> None:
        """
        The node may be named by an address, a name, or a port of the same host.
        """
        for host in ("127.0.0.1", "2001:db8::1", "a.example", ""):
            for word, once in (("MOVED", False), ("ASK", True)):
                line = f"-{word} 12182 {host}:17012\r\n".encode()
                redirect = self.read(line)
                self.assertEqual(redirect, line)
                self.assertEqual((redirect.node, redirect.slot, redirect.once), (Node(host, 17012), 12182, once))
                self.assertEqual((redirect.command, redirect.request), (BY_NAME["get"], b"request"))

    def test_later(self) -> None:
        """
        Some errors mean that the same request can be sent later.
        """
        for line in (
            b"-TRYAGAIN Multiple keys request during rehashing of slot\r\n",
            b"-CLUSTERDOWN Hash slot not served\r\n",
            b"-LOADING Redis is loading the dataset in memory\r\n",
            b"-MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.\r\n",
        ):
            self.assertEqual(self.read(line), line)
            self.assertIsNone(self.read(line).node)

    def test_none(self) -> None:
        """
        Other errors, and broken redirects, are not followed.
        """
        for line in (
            b"-ERR MOVED 1 a:1\r\n", b"-MOVED 16384 a:1\r\n", b"-MOVED 1 a:0\r\n", b"-MOVED 1 a:65536\r\n",
            b"-MOVED 1 \xff:1\r\n", b"-MOVED 1 a\r\n", b"-MOVED x a:1\r\n", b"-ASK 1 a:1 b\r\n", b"-WRONGTYPE x\r\n",
        ):  # fmt: skip
            self.assertIsNone(self.read(line), line)

    def test_scripts(self) -> None:
        """
        The error of a script is not followed: it may have changed data before.
        """
        for name in ("eval", "evalsha", "eval_ro", "evalsha_ro", "fcall", "fcall_ro"):
            self.assertIsNone(self.read(b"-ASK 1 10.0.0.1:22\r\n", name))
