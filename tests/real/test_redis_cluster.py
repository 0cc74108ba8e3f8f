# Copyright txconnpool contributors. See LICENSE.
"""
Tests for the proxy with a real Redis cluster.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Any, Self

from twisted.internet import reactor as _reactor
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import SynchronousTestCase, TestCase

from tests.real.nameserver import Zone, serveZone
from tests.real.rediscluster import Cluster, Node, keyOf
from tests.real.relay import Relay, delay
from tests.real.resp import Client, ReplyError
from tests.real.servers import HOST, Address, Proxy, missing, until
from txconnpool.redis import RedisPool

reactor: Any = _reactor

CROSS_SLOT = "CROSSSLOT Keys in request don't hash to the same slot"


class ClusterCase(SynchronousTestCase):
    """
    Base class of tests with three primaries, their replicas, and a proxy.
    """

    skip = missing("redis-server")
    options: tuple[str, ...] = ()
    password = ""

    def setUp(self) -> None:
        """
        Start them, and connect a client.
        """
        self.cluster = Cluster(3, 1, password=self.password).start()
        self.addCleanup(self.cluster.stop)
        self.proxy = Proxy("--protocol", "redis", *self.options, upstream=[f"cluster:{self.cluster.seeds}"]).start()
        self.addCleanup(self.proxy.stop)
        self.client = self.connect()

    def each(self, *steps: Callable[[], None]) -> None:
        """
        Take steps, each with an empty cluster: starting one takes seconds.
        """
        for step in steps:
            self.client.close()
            self.client = self.connect()
            self.client.ask("FLUSHALL")
            step()

    def connect(self) -> Client:
        """
        @return: a client of the proxy.
        """
        client = Client(self.proxy.address, 30.0)
        self.addCleanup(client.close)
        return client

    def fails(self, error: str, *words: Any) -> None:
        """
        Assert that a request gets an error.
        """
        self.assertIn(error, str(self.assertRaises(ReplyError, self.client.ask, *words)))

    def keys(self, name: str = "key") -> list[str]:
        """
        @return: a key of each primary.
        """
        return [keyOf(self.cluster.slots(node)[0], name) for node in self.cluster.primaries()]

    def other(self, node: Node) -> Node:
        """
        @return: another primary.
        """
        return next(each for each in self.cluster.primaries() if each is not node)


class ServingTests(ClusterCase):
    """
    Tests for a cluster that does not change.
    """

    def test_serving(self) -> None:
        """
        The cluster is like one server, except for keys of several slots.
        """
        self.each(
            self.single, self.divided, self.apart, self.everywhere, self.transaction, self.channels, self.blocking
        )

    def single(self) -> None:
        """
        Requests go to the node of their key, in both versions of the protocol, also many of them in one packet.
        """
        for version in (2, 3):
            self.client.ask("HELLO", version)
            for number in range(300):
                self.client.send("SET", f"k{number}", f"{version}:{number}")
                self.client.send("GET", f"k{number}")
            replies = [self.client.read() for _ in range(600)]
            expected = [word for number in range(300) for word in (b"OK", b"%d:%d" % (version, number))]
            self.assertEqual(replies, expected)
        self.assertGreater(min(node.ask("DBSIZE") for node in self.cluster.primaries()), 0)

    def divided(self) -> None:
        """
        Requests for keys of several slots are divided, and get one reply.
        """
        keys = [f"k{number}" for number in range(50)]
        self.assertEqual(self.client.ask("MSET", *(word for key in keys for word in (key, key))), b"OK")
        values = [key.encode() for key in keys]
        self.assertEqual(self.client.ask("MGET", *keys, "none", keys[0]), [*values, None, values[0]])
        self.assertEqual(self.client.ask("EXISTS", *keys, "none", keys[0]), 51)
        self.assertEqual(self.client.ask("DEL", *keys[:20], "none"), 20)
        self.assertEqual(self.client.ask("UNLINK", *keys), 30)

    def apart(self) -> None:
        """
        Other requests for several slots get the error of Redis, even if one node has them.
        """
        one, two = (keyOf(slot) for slot in self.cluster.slots(self.cluster.primaries()[0])[:2])
        for words in (("MSETNX", one, 1, two, 2), ("SINTER", one, two), ("RENAME", one, two)):
            self.fails(CROSS_SLOT, *words)
        self.assertEqual(self.client.ask("MSETNX", "{a}1", 1, "{a}2", 2), 1)
        self.assertEqual(self.client.ask("EVAL", "return redis.call('GET', KEYS[2])", 2, "{a}1", "{a}2"), b"2")

    def everywhere(self) -> None:
        """
        Requests that concern all keys go to all primaries.
        """
        keys = {b"k%d" % number for number in range(60)}
        for key in keys:
            self.client.ask("SET", key, "v")
        self.assertEqual(self.client.ask("DBSIZE"), 60)
        self.assertEqual(set(self.client.ask("KEYS", "*")), keys)
        self.assertIn(self.client.ask("RANDOMKEY"), keys)
        cursor, found = b"0", []
        while True:
            cursor, some = self.client.ask("SCAN", cursor, "COUNT", 7)
            found += some
            if cursor == b"0":
                break
        self.assertEqual(set(found), keys)
        sha = self.client.ask("SCRIPT", "LOAD", "return KEYS[1]")
        for own in self.keys():
            self.assertEqual(self.client.ask("EVALSHA", sha, 1, own), own.encode())
        self.assertEqual(self.client.ask("FLUSHALL"), b"OK")
        self.assertEqual(self.client.ask("DBSIZE"), 0)

    def transaction(self) -> None:
        """
        A transaction is executed by the node of its first key, and sees what others have changed meanwhile.
        """
        a, b = self.keys()[:2]
        other = self.connect()
        for key in (a, b):
            self.client.ask("WATCH", key)
            self.client.ask("MULTI")
            self.assertEqual(self.client.ask("SET", key, 1), b"QUEUED")
            self.assertEqual(self.client.ask("EXEC"), [b"OK"])
            self.client.ask("WATCH", key)
            other.ask("SET", key, 2)
            self.client.ask("MULTI")
            self.client.ask("SET", key, 3)
            self.assertIsNone(self.client.ask("EXEC"))
        self.client.ask("MULTI")
        self.client.ask("SET", a, 4)
        self.fails(CROSS_SLOT, "SET", b, 4)
        self.fails("EXECABORT", "EXEC")
        self.assertEqual(self.client.ask("MGET", a, b), [b"2", b"2"])

    def channels(self) -> None:
        """
        A message reaches the subscribers of all nodes.
        """
        subscribers = [self.connect() for _ in range(4)]
        for number, each in enumerate(subscribers[:3]):
            each.ask("SUBSCRIBE", "news", f"own{number}")
            each.read()
        subscribers[3].ask("PSUBSCRIBE", "new*")
        self.client.ask("PUBLISH", "news", "hello")
        for each in subscribers[:3]:
            self.assertEqual(each.read(), [b"message", b"news", b"hello"])
        self.assertEqual(subscribers[3].read(), [b"pmessage", b"new*", b"news", b"hello"])
        self.assertEqual(self.client.ask("PUBSUB", "NUMSUB", "news"), [b"news", 1])
        for key in self.keys():
            shard = self.connect()
            shard.ask("SSUBSCRIBE", key)
            self.assertEqual(self.client.ask("SPUBLISH", key, "x"), 1)
            self.assertEqual(shard.read(), [b"smessage", key.encode(), b"x"])

    def blocking(self) -> None:
        """
        A blocking request waits at the node of its key.
        """
        for key in self.keys("list"):
            waiting = self.connect()
            waiting.send("BLPOP", key, 30)
            self.client.ask("RPUSH", key, "element")
            self.assertEqual(waiting.read(), [key.encode(), b"element"])


class Reading(threading.Thread):
    """
    A client that reads keys, until the end of a block.

    @ivar count: how often it has read all keys.
    @ivar errors: the errors that it got.
    """

    def __init__(self, address: Address, keys: list[str]) -> None:
        super().__init__(daemon=True)
        self.count = 0
        self.errors: list[str] = []
        self._address = address
        self._keys = keys
        self._ended = False

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended = True
        self.join(90)

    def run(self) -> None:
        """
        Read.
        """
        with Client(self._address, 90.0) as client:
            while not self._ended:
                for words in [("MGET", *self._keys), *(("GET", key) for key in self._keys)]:
                    try:
                        client.ask(*words)
                    except ReplyError as error:
                        self.errors.append(f"{words[0]}: {error}")
                self.count += 1

    def untilMore(self) -> None:
        """
        Wait until it has read all keys some more times.
        """
        count = self.count
        until(lambda: self.count > count + 10 or not self.is_alive(), what="the work of a client")


class ReplicaTests(ClusterCase):
    """
    Tests for requests that replicas execute.
    """

    options = ("--read-from", "prefer-replica", "--request-timeout", "30", "--connect-timeout", "20")

    def reads(self, node: Node) -> int:
        """
        @return: how many C{GET} a node has executed.
        """
        text = node.info("commandstats").get("cmdstat_get", "calls=0")
        return int(text.partition("calls=")[2].partition(",")[0])

    def untilCopied(self, key: str, value: bytes) -> None:
        """
        Wait until the replica that reads a key has a value.
        """
        until(lambda: self.client.ask("GET", key) == value, what="the replication")

    def test_replicas(self) -> None:
        """
        Replicas read, and some fail.
        """
        self.each(self.reading, self.loading, self.frozenReplica, self.nearest, self.frozen)

    def loading(self) -> None:
        """
        No read fails while a replica is dead, and then loads its data.
        """
        primary = self.cluster.primaries()[0]
        replica = self.cluster.replicas(primary)[0]
        keys = [keyOf(self.cluster.slots(primary)[0], f"{number}") for number in range(40)]
        for key in keys:
            self.client.ask("SET", key, "v" * 2000)
        with Reading(self.proxy.address, keys[:3]) as client:
            replica.kill()
            client.untilMore()
            # The microseconds for each key. It replies after so many bytes, if these are not compressed.
            primary.ask("CONFIG", "SET", "rdbcompression", "no")
            slow = ("--key-load-delay", "200000", "--loading-process-events-interval-bytes", "1024")
            replica.options = (*replica.options, *slow)
            (replica.directory / "dump.rdb").unlink(missing_ok=True)  # so that it gets a copy of all data
            replica.start()
            until(lambda: replica.info("persistence")["loading"] == "1", what="the replica loads its data")
            client.untilMore()
            replica.ask("CONFIG", "SET", "key-load-delay", 0)
            self.cluster.untilConsistent()
            client.untilMore()
        self.assertEqual(client.errors, [])

    def frozen(self) -> None:
        """
        No read fails while a primary is frozen, is replaced, and comes back.
        """
        primary = self.cluster.primaries()[1]
        replica = self.cluster.replicas(primary)[0]
        keys = [keyOf(slot) for slot in self.cluster.slots(primary)[:3]]
        for key in keys:
            self.client.ask("SET", key, "v")
        self.cluster.untilReplicated(primary)
        with Reading(self.proxy.address, keys) as client:
            client.untilMore()
            primary.freeze()
            client.untilMore()
            self.cluster.failover(replica)
            client.untilMore()
            primary.thaw()
            self.cluster.untilConsistent()
            client.untilMore()
        self.assertEqual(client.errors, [])
        self.client.ask("SET", keys[0], "w")
        self.untilCopied(keys[0], b"w")

    def frozenReplica(self) -> None:
        """
        Reads that are in flight to a replica when it is frozen get their replies from the primary.
        """
        primary = self.cluster.primaries()[2]
        (replica,) = self.cluster.replicas(primary)
        keys = [keyOf(slot) for slot in self.cluster.slots(primary)[:3]]
        options = ("--read-from", "prefer-replica", "--request-timeout", "6", "--connect-timeout", "20")
        with Proxy("--protocol", "redis", *options, upstream=[f"cluster:{self.cluster.seeds}"]) as proxy:
            clients = [Client(proxy.address, 60.0) for _ in range(6)]
            for client in clients:
                self.addCleanup(client.close)
                self.assertEqual(client.ask("MSET", *(word for key in keys for word in (key, "v"))), b"OK")
            until(lambda: clients[0].ask("MGET", *keys) == [b"v"] * 3, what="the replication")
            before = self.reads(primary)
            replica.freeze()
            for client in clients:
                client.send("GET", keys[0])
                client.send("MGET", *keys)
            try:
                for client in clients:
                    self.assertEqual([client.read(), client.read()], [b"v", [b"v"] * 3])
                self.assertGreater(self.reads(primary), before)
            finally:
                replica.thaw()

    def nearest(self) -> None:
        """
        A replica whose replies take long gets no reads if the nearest node reads.
        """
        primary = self.cluster.primaries()[2]
        (replica,) = self.cluster.replicas(primary)
        keys = [keyOf(slot) for slot in self.cluster.slots(primary)[:4]]
        for key in keys:
            self.client.ask("SET", key, "v")
        with Relay(replica.address) as relay:
            relay.set(delay(0.2))
            assert not isinstance(relay.address, str)
            far = f"map={HOST}:{replica.port}>{HOST}:{relay.address[1]}"
            options = ("--protocol", "redis", "--read-from", "nearest", "--request-timeout", "30")
            with Proxy(*options, upstream=[f"cluster:{self.cluster.seeds} {far}"]) as proxy:
                with Client(proxy.address, 60.0) as client:

                    def unread() -> bool:
                        before = self.reads(replica)
                        for key in keys:
                            self.assertEqual(client.ask("GET", key), b"v")
                        return self.reads(replica) == before

                    until(unread, what="the primary reads")

    def reading(self) -> None:
        """
        Replicas read and primaries write. While there is no replica, the primary reads.
        """
        primaries = self.cluster.primaries()
        keys = [keyOf(self.cluster.slots(node)[number]) for node in primaries for number in range(3)]
        for version in (2, 3):
            self.client.ask("HELLO", version)
            for key in keys:
                self.client.ask("SET", key, version)
                self.untilCopied(key, b"%d" % version)
            self.assertEqual(self.client.ask("MGET", *keys), [b"%d" % version] * len(keys))
        self.assertEqual([self.reads(node) for node in primaries], [0, 0, 0])
        self.assertEqual(sum(node.ask("DBSIZE") for node in primaries), len(keys))
        replica = self.cluster.replicas(primaries[0])[0]
        replica.kill()
        for _ in range(30):
            self.assertEqual(self.client.ask("GET", keys[0]), b"3")
            self.assertEqual(self.client.ask("MGET", *keys), [b"3"] * len(keys))
        self.assertGreater(self.reads(primaries[0]), 0)
        replica.start()
        # While it loads its data it is not in the map, which is asked for again after up to 38 s.
        until(lambda: self.client.ask("GET", keys[0]) and self.reads(replica), 90.0, "the replica reads again")


class ChangingTests(ClusterCase):
    """
    Tests for a cluster that changes. Its nodes have a password.
    """

    password = "secret"

    options = ("--upstream-auth", "env:TXCONNPOOL_TEST_CLUSTER", "--request-timeout", "30", "--connect-timeout", "20")

    def setUp(self) -> None:
        """
        Start them, the proxy with the password.
        """
        self.addCleanup(os.environ.pop, "TXCONNPOOL_TEST_CLUSTER")
        os.environ["TXCONNPOOL_TEST_CLUSTER"] = f"default:{self.password}"
        super().setUp()

    def test_changing(self) -> None:
        """
        Slots move, and nodes fail.
        """
        self.each(self.migration, self.transaction, self.blocked, self.subscribed, self.loading, self.failover)

    def migration(self) -> None:
        """
        While a slot moves, requests for its keys are executed where these are; afterwards, by the new node.
        """
        source = self.cluster.primaries()[0]
        slot, target = self.cluster.slots(source)[5], self.other(source)
        old, new, third = (keyOf(slot, name) for name in ("old", "new", "third"))
        ask = self.client.ask
        ask("SET", old, 1)
        self.cluster.beginMigration([slot], target)
        self.assertEqual([ask("SET", new, 2), ask("INCR", new), ask("INCR", old)], [b"OK", 3, 2])
        self.assertEqual(target.askAll([["ASKING"], ["GET", new]]), [b"OK", b"3"])
        self.assertEqual([ask("GET", key) for key in (old, new, third)], [b"2", b"3", None])
        self.client.send("MSETNX", old, 9, third, 9)  # one node has one of the keys, another the other one
        self.client.send("GET", new)
        self.cluster.finishMigration([slot], source, target)
        self.assertEqual([self.client.read(), self.client.read()], [0, b"3"])
        self.assertEqual(ask("MGET", old, new, third), [b"2", b"3", None])
        self.assertEqual(target.ask("GET", old), b"2")

    def transaction(self) -> None:
        """
        A transaction is not redirected: it fails, and the next one goes to the new node.
        """
        source = self.cluster.primaries()[0]
        slot, target = self.cluster.slots(source)[7], self.other(source)
        key = keyOf(slot)
        self.client.ask("SET", key, 1)
        for node in (target, source):
            self.cluster.migrate([slot], node)
            value = int(self.client.ask("GET", key)) if node is source else 1
            until(lambda: self.incremented(key), what="a transaction")
            self.assertEqual(int(node.ask("GET", key)), value + 1)

    def blocked(self) -> None:
        """
        A client that waits for an element of a list waits at the node that has the key.
        """
        source = self.cluster.primaries()[0]
        slot, target = self.cluster.slots(source)[9], self.other(source)
        key, client = keyOf(slot), self.connect()
        client.send("BLPOP", key, 0)
        for node in (target, source):
            until(lambda: int(self.cluster.owner(slot).info("clients")["blocked_clients"]) > 0, what="the wait")
            self.cluster.migrate([slot], node)
        until(lambda: int(source.info("clients")["blocked_clients"]) > 0, what="the wait")
        self.client.ask("RPUSH", key, "element")
        self.assertEqual(client.read(), [key.encode(), b"element"])

    def loading(self) -> None:
        """
        While a primary loads its data, requests for its keys get an error that says so, and others are executed.
        """
        primary = self.cluster.primaries()[2]
        other, *keys = [self.keys("other")[0], *(keyOf(self.cluster.slots(primary)[0], f"{n}") for n in range(100))]
        primary.ask("CONFIG", "SET", "rdbcompression", "no")
        for key in keys:
            self.client.ask("SET", key, "v" * 2000)
        primary.ask("SAVE")
        primary.kill()
        options = primary.options
        primary.options = (*options, "--key-load-delay", "200000", "--loading-process-events-interval-bytes", "1024")
        primary.start()
        primary.options = options
        until(lambda: primary.info("persistence")["loading"] == "1", what="the primary loads its data")

        def refused() -> bool:
            self.assertEqual(self.client.ask("SET", other, "w"), b"OK")
            return "LOADING" in str(self.assertRaises(ReplyError, self.client.ask, "GET", keys[0]))

        until(refused, what="an error that says why")
        self.assertIn("LOADING", str(self.assertRaises(ReplyError, self.client.ask, "MGET", other, keys[0])))
        primary.ask("CONFIG", "SET", "key-load-delay", 0)
        self.cluster.untilConsistent()
        until(lambda: self.client.result("GET", keys[0]) == b"v" * 2000, what="the primary serves")
        self.assertEqual(self.client.ask("MGET", other, *keys), [b"w", *[b"v" * 2000] * len(keys)])

    def subscribed(self) -> None:
        """
        A subscriber of channels of a slot gets their messages wherever the slot is.
        """
        source = self.cluster.primaries()[0]
        slot, target = self.cluster.slots(source)[11], self.other(source)
        channel = keyOf(slot)
        for version in (2, 3):
            client = self.connect()
            client.ask("HELLO", version)
            client.ask("SSUBSCRIBE", channel)
            for node in (target, source):
                self.cluster.migrate([slot], node)
                # The node of the slot counts the receivers.
                until(lambda: self.client.ask("SPUBLISH", channel, "x") == 1, what="the subscriber is found")
                self.assertEqual(client.read(), [b"smessage", channel.encode(), b"x"])
            client.close()
            until(lambda: self.client.ask("SPUBLISH", channel, "x") == 0, what="the subscriber has left")
            self.assertNotIn("no request has asked for", self.proxy.log)
            self.cluster.migrate([slot], target)  # the proxy does not know it yet
            client = self.connect()
            client.ask("HELLO", version)
            self.assertEqual(client.ask("SSUBSCRIBE", channel), [b"ssubscribe", channel.encode(), 1])
            client.close()
            self.cluster.migrate([slot], source)
        self.manyNodes(slot, source, target)

    def untilReceivers(self, channel: str, count: int) -> None:
        """
        Publish messages until one has so many receivers.
        """
        until(lambda: self.client.ask("SPUBLISH", channel, "x") == count, 30.0, f"{count} receivers")

    def manyNodes(self, slot: int, source: Node, target: Node) -> None:
        """
        Clients may be subscribed to channels of all nodes, and share a connection to each. One slot moves.
        """
        clients, channels = [self.connect(), self.connect()], [keyOf(slot), *self.keys("channel")]
        for client in clients:
            for count, channel in enumerate(channels, 1):
                self.assertEqual(client.ask("SSUBSCRIBE", channel), [b"ssubscribe", channel.encode(), count])
        for node in (None, target, source):
            if node is not None:
                self.cluster.migrate([slot], node)
            for channel in channels:
                self.untilReceivers(channel, 1)  # both have one subscription at the node
                for client in clients:
                    self.assertEqual(client.read(), [b"smessage", channel.encode(), b"x"])
        self.assertIn("CROSSSLOT", str(self.assertRaises(ReplyError, clients[0].ask, "SSUBSCRIBE", *channels)))
        clients[0].send("SUNSUBSCRIBE")
        self.assertEqual({clients[0].read()[0] for _ in channels}, {b"sunsubscribe"})
        self.assertEqual(self.client.ask("SPUBLISH", channels[1], "y"), 1)
        self.assertEqual(clients[1].read(), [b"smessage", channels[1].encode(), b"y"])
        clients[1].close()
        for channel in channels:
            self.untilReceivers(channel, 0)
        self.assertEqual(clients[0].ask("PING"), b"PONG")
        self.assertNotIn("no request has asked for", self.proxy.log)

    def incremented(self, key: str) -> bool:
        """
        @return: whether a transaction was executed.
        """
        self.client.ask("MULTI")
        try:
            self.assertEqual(self.client.ask("INCR", key), b"QUEUED")
        except ReplyError as error:
            self.assertIn("MOVED", str(error))
        try:
            self.client.ask("EXEC")
        except ReplyError as error:
            self.assertIn("EXECABORT", str(error))
            return False
        return True

    def failover(self) -> None:
        """
        A replica that has replaced its primary gets the requests, whether the primary became its replica or is dead.
        """
        primary = self.cluster.primaries()[1]
        key = keyOf(self.cluster.slots(primary)[0])
        self.client.ask("SET", key, 1)
        replica = self.cluster.replicas(primary)[0]
        self.cluster.failover(replica)
        # The proxy does not know it yet.
        library = "#!lua name=some\nredis.register_function('one', function() return 1 end)"
        self.assertEqual(self.client.ask("FUNCTION", "LOAD", "REPLACE", library), b"some")
        self.cluster.untilConsistent()
        for node in self.cluster.primaries():
            self.assertEqual(len(node.ask("FUNCTION", "LIST")), 1, node)
        self.assertEqual(self.client.ask("INCR", key), 2)
        # Wait until the old primary has the data.
        until(lambda: primary.askAll([["READONLY"], ["GET", key]])[1] == b"2", what="the old primary has the data")
        replica.kill()
        self.cluster.failover(primary)

        def served() -> bool:
            try:
                return bool(self.client.ask("GET", key) == b"2")
            except ReplyError:
                return False

        until(served, what="the new primary serves")
        self.assertEqual(self.client.ask("INCR", key), 3)
        replica.start()
        self.cluster.untilConsistent()


class SeedTests(TestCase):
    """
    Tests for a cluster whose first nodes are looked up. The DNS server runs in the reactor, and the test in a thread.
    """

    skip = missing("redis-server")
    timeout = 120

    def setUp(self) -> None:
        """
        Start a DNS server and a cluster of one node.
        """
        self.zone = Zone()
        tcp, udp = serveZone(self.zone, reactor)
        self.addCleanup(tcp.stopListening)
        self.addCleanup(udp.stopListening)
        self.cluster = Cluster(1).start()
        self.addCleanup(self.cluster.stop)
        port = self.cluster.nodes[0].port
        self.line = f"cluster:dns:redis.example:{port} resolver={HOST}:{tcp.getHost().port}"

    async def test_found(self) -> None:
        """
        A proxy that starts before the name exists finds the cluster later. So does a program.
        """
        await deferToThread(self.find)
        async with RedisPool(self.line, decode="utf-8", connectTimeout=20.0, waitTimeout=20.0) as pool:
            self.assertEqual(await pool.get("k"), "v")

    def find(self) -> None:
        """
        Start the proxy, then let the name have an address.
        """
        options = ("--protocol", "redis", "--discover-interval", "1", "--connect-timeout", "2")
        with Proxy(*options, upstream=[self.line]) as proxy, Client(proxy.address, 30.0) as client:
            error = str(self.assertRaises(ReplyError, client.ask, "SET", "k", "v"))
            self.assertIn("no node of the cluster has reported yet", error)
            self.zone.learn("redis.example", HOST)

            def stored() -> bool:
                try:
                    return bool(client.ask("SET", "k", "v") == b"OK")
                except ReplyError:
                    return False

            until(stored, what="the cluster is found")
