# -*- test-case-name: tests.proxy.test_clustering -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Tests for L{txconnpool.proxy.clustering} and L{txconnpool.proxy.redirects}.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.trial.unittest import SynchronousTestCase

from tests.bugs import covers
from tests.pipes import Pipe
from tests.rediscluster import CROSS_SLOT, READ_ONLY, ClusterNode, FakeCluster, keysOf
from tests.redisstage import FlavouredStage, assertNodesClosed, requests
from txconnpool.pool.decisions.limits import Limits
from txconnpool.routing import measuring
from txconnpool.routing.clusterrouters import ClusterRouters
from txconnpool.routing.clusters import ClusterPool
from txconnpool.routing.flavours import FlavouredPool
from txconnpool.wire.redis.framing import encode
from txconnpool.wire.redis.topology import readShards
from txconnpool.wire.topology import Node, Shard, slotOf

#: The error of a request for the key C{k} if only redirects come.
UNSERVED = b"-ERR upstream unavailable: no node of the cluster serves slot %d now\r\n" % slotOf(b"k")


class ClusterStage(FlavouredStage):
    """
    A stage with a cluster.

    @ivar cluster: the cluster.
    @ivar questions: how often it was asked for its map.
    """

    def __init__(self, nodes: int = 3, readFrom: str = "primary", **options: Any) -> None:
        """
        @param readFrom: which nodes read. If it is not C{"primary"}, each has a replica.
        """
        self._count = nodes
        self._readFrom = readFrom
        self.questions = 0
        super().__init__(nodes, **options)

    def _make(self, limits: Limits) -> None:
        self.dialect.cluster(True)
        self.cluster = FakeCluster(self.clock, self._count)
        self.servers: Any = self.cluster.nodes
        if self._readFrom != "primary":
            self.cluster.replicate()
            self.servers = [*self.cluster.nodes, *self.cluster.replicas]

        def newPool(node: Node, limits: Limits, maxPinned: int, **options: Any) -> FlavouredPool:
            return self.flavoured(self.at(node), limits, maxPinned, **options)

        def ask(node: Node) -> Deferred[Sequence[Shard]]:
            self.questions += 1
            return succeed(readShards(self.cluster.shards()))

        self.pool = ClusterPool(
            "pool", self.clock, newPool, ask, [Node("node0", 6379)], limits, {}, 6, self._readFrom,
            probe=self.dialect.probe,
        )  # fmt: skip
        self.pool.patience = 2.0
        self.flavours = ClusterRouters(self.pool, self.dialect.base, self.dialect.reading)

    def at(self, node: Node) -> ClusterNode:
        """
        @return: the server of a node.
        """
        return next(each for each in (*self.cluster.nodes, *self.cluster.replicas) if each.node == node)


class UnknownStage(ClusterStage):
    """
    A stage with a cluster that reports no slots.
    """

    def _make(self, limits: Limits) -> None:
        super()._make(limits)
        self.cluster.told = []


class ClusterCase(SynchronousTestCase):
    """
    Base class of these tests.

    @ivar stage: the stage.
    @ivar cluster: its cluster.
    @ivar client: a client.
    """

    readFrom = "primary"

    def setUp(self) -> None:
        """
        Make a stage.
        """
        self.stage = ClusterStage(readFrom=self.readFrom)
        self.cluster = self.stage.cluster
        self.addCleanup(self.assertTidy)
        self.client = self.stage.client()

    def assertTidy(self) -> None:
        """
        Assert that no connection carries anything, and that no timer is left.
        """
        assertNodesClosed(self, self.stage)

    def ask(self, *texts: str, client: Pipe | None = None) -> bytes:
        """
        @return: the replies.
        """
        return self.stage.ask(client or self.client, requests(*texts))

    def wait(self, seconds: float) -> bytes:
        """
        Let time pass.

        @return: what the client has received.
        """
        for _ in range(round(seconds / 0.05)):
            self.stage.clock.advance(0.05)
            self.stage.serve()
        return self.client.take()

    def loseRedirected(self, text: str, key: bytes) -> bytes:
        """
        Move the slot of a key, and send a request. Close the connections of the new node before it replies.

        @return: what the client has received.
        """
        source, target = self.cluster.owner(key), self.cluster.move(key)
        self.client.send(requests(text))
        self.stage.turns()
        for line in source.open:
            line.deliver()
        self.stage.turns()
        for line in target.open:
            line.lose()
        self.stage.serve()
        return self.wait(0.5)


class KeyTests(ClusterCase):
    """
    Tests for requests that no node redirects.
    """

    def test_single(self) -> None:
        """
        Each key is on the node of its slot.
        """
        for key in keysOf(20):
            self.assertEqual(self.ask(f"SET {key} v"), b"+OK\r\n")
            self.assertEqual(self.stage.asked(self.cluster.owner(key.encode())), [f"SET {key} v".encode()])
        self.assertEqual(self.stage.questions, 1)

    def test_divided(self) -> None:
        """
        A request for several slots is divided by slot, although nodes have many slots.
        """
        keys = keysOf(5)
        self.assertEqual(self.ask("MSET " + " ".join(f"{key} {key}" for key in keys)), b"+OK\r\n")
        self.assertEqual(sum(len(self.stage.asked(node)) for node in self.cluster.nodes), 5)
        values = b"".join(b"$%d\r\n%b\r\n" % (len(key), key.encode()) for key in keys)
        self.assertEqual(self.ask("MGET " + " ".join(keys)), b"*5\r\n" + values)
        self.assertEqual(self.ask("DEL " + " ".join(keys)), b":5\r\n")

    def test_oneSlot(self) -> None:
        """
        A request for one slot is forwarded as it is. Other requests for several slots get the error of Redis.
        """
        self.assertEqual(self.ask("MSET {a}1 x {a}2 y"), b"+OK\r\n")
        self.assertEqual(self.stage.asked(self.cluster.owner(b"a")), [b"MSET {a}1 x {a}2 y"])
        a, b = keysOf(2)
        self.assertEqual(self.ask(f"MSETNX {a} 1 {b} 2"), CROSS_SLOT)

    def test_unserved(self) -> None:
        """
        A key whose slot no node has gets an error at once.
        """
        stage = self.stage
        stage.cluster.told = [stage.cluster.nodes[0]] * 100
        stage.pool.wrong()
        stage.clock.advance(2)
        stage.serve()
        key = next(key for key in keysOf(10) if slotOf(key.encode()) >= 100)
        self.assertEqual(
            self.ask(f"GET {key}"), b"-ERR upstream unavailable: no node of the cluster has the slot of the key\r\n"
        )

    def test_database(self) -> None:
        """
        A cluster has one database.
        """
        self.assertEqual(self.ask("SELECT 0", "SELECT 1"), b"+OK\r\n-ERR SELECT is not allowed in cluster mode\r\n")


class RedirectTests(ClusterCase):
    """
    Tests for requests that a node has not executed.
    """

    @covers("R31", "R37")
    def test_moved(self) -> None:
        """
        A request goes to the node that has its slot now, and further ones do at once. The cluster is asked once.
        """
        self.ask("SET k v")
        target = self.cluster.move(b"k")
        self.assertEqual(self.ask("GET k"), b"$1\r\nv\r\n")
        for node in self.cluster.nodes:
            self.stage.asked(node)
        self.assertEqual(self.ask("GET k", "SET k w", "GET k"), b"$1\r\nv\r\n+OK\r\n$1\r\nw\r\n")
        self.assertEqual(self.stage.asked(target), [b"GET k", b"SET k w", b"GET k"])
        self.assertEqual(self.stage.questions, 1)
        self.wait(2)
        self.assertEqual(self.stage.questions, 2)

    def test_storm(self) -> None:
        """
        Any number of redirects leads to one question.
        """
        keys = keysOf(300)
        for key in keys:
            self.cluster.move(key.encode())
        self.assertEqual(self.ask(*(f"SET {key} v" for key in keys)), b"+OK\r\n" * 300)
        self.wait(2)
        self.assertEqual(self.stage.questions, 2)

    def test_ask(self) -> None:
        """
        A request for a key that has been moved ahead of its slot goes to the other node once, right after C{ASKING}.
        """
        self.ask("SET {k}1 v")
        self.cluster.begin(slotOf(b"k"), self.cluster.other(b"k"))
        self.assertEqual(self.ask("SET {k}2 w", "GET {k}2", "GET {k}1"), b"+OK\r\n$1\r\nw\r\n$1\r\nv\r\n")
        asked = self.stage.asked(self.cluster.other(b"k"))
        self.assertEqual(asked, [b"ASKING", b"SET {k}2 w", b"ASKING", b"GET {k}2"])
        self.assertEqual(self.stage.pool.moved, 0)

    def test_order(self) -> None:
        """
        Replies are in the order of the requests, whichever were redirected.
        """
        keys = keysOf(6)
        for key in keys[::2]:
            self.cluster.move(key.encode())
        texts = [f"SET {key} {key}" for key in keys] + ["PING"] + [f"GET {key}" for key in keys]
        values = b"".join(b"$%d\r\n%b\r\n" % (len(key), key.encode()) for key in keys)
        self.assertEqual(self.ask(*texts), b"+OK\r\n" * 6 + b"+PONG\r\n" + values)

    @covers("R35")
    def test_written(self) -> None:
        """
        Only the redirected requests of a pipeline are sent again.
        """
        a, b = keysOf(2)
        self.cluster.move(a.encode())
        self.assertEqual(self.ask(f"INCR {b}", f"INCR {a}", f"INCR {b}", f"INCR {a}"), b":1\r\n:1\r\n:2\r\n:2\r\n")

    def test_part(self) -> None:
        """
        A part of a divided request is sent again alone.
        """
        keys = keysOf(4)
        self.cluster.move(keys[1].encode())
        self.cluster.begin(slotOf(keys[2].encode()), self.cluster.other(keys[2].encode()))
        self.assertEqual(self.ask("MSET " + " ".join(f"{key} v" for key in keys)), b"+OK\r\n")
        self.assertEqual(self.ask("MGET " + " ".join(keys)), b"*4\r\n" + b"$1\r\nv\r\n" * 4)

    def test_tryAgain(self) -> None:
        """
        A request for several keys, some of which have moved, is sent again later. Later requests wait for it.
        """
        self.ask("MSET {k}1 a {k}2 b")
        slot = slotOf(b"k")
        self.cluster.begin(slot, self.cluster.other(b"k"))
        self.cluster.moveKey(b"{k}1")
        self.assertEqual(self.ask("MSETNX {k}1 c {k}2 d"), b"")
        self.assertEqual(self.ask("PING", "GET {k}1"), b"")
        self.cluster.finish(slot)
        self.assertEqual(self.wait(0.2), b":1\r\n+PONG\r\n$1\r\nc\r\n")

    def test_tooLong(self) -> None:
        """
        When its time is over, a request gets the error of the server.
        """
        for text in (b"-TRYAGAIN Later\r\n", b"-CLUSTERDOWN The cluster is down\r\n"):
            for node in self.cluster.nodes:
                node.says = text
            self.assertEqual(self.ask("GET k"), b"")
            self.assertEqual(self.ask("MGET k {k}2 l"), b"")
            self.assertEqual(self.wait(1.5), b"")
            self.assertEqual(self.wait(4), text * 2)

    def test_loop(self) -> None:
        """
        Nodes that redirect to each other lead to an error.
        """
        self.cluster.owner(b"k").says = f"-MOVED {slotOf(b'k')} {self.cluster.other(b'k').name}:6379\r\n".encode()
        self.cluster.other(b"k").says = f"-MOVED {slotOf(b'k')} {self.cluster.owner(b'k').name}:6379\r\n".encode()
        self.assertEqual(self.ask("GET k"), b"")
        self.assertEqual(self.wait(3), UNSERVED)

    def test_unknownNode(self) -> None:
        """
        No request goes to a node that the cluster has not reported.
        """
        for word in ("MOVED", "ASK"):
            self.cluster.owner(b"k").says = f"-{word} {slotOf(b'k')} evil.example:22\r\n".encode()
            self.assertEqual(self.ask("SET k v"), b"")
            self.assertEqual(self.wait(3), UNSERVED)

    def test_otherSlot(self) -> None:
        """
        A redirect for another slot than that of the request is not followed.
        """
        self.cluster.owner(b"k").says = f"-MOVED 1 {self.cluster.other(b'k').name}:6379\r\n".encode()
        self.assertIn(b"redirects a request for slot", self.ask("GET k"))
        self.assertEqual(self.stage.pool.moved, 0)

    def test_script(self) -> None:
        """
        A script may say anything: what it says is the reply.
        """
        text = f"-MOVED {slotOf(b'k')} {self.cluster.other(b'k').name}:6379"
        self.assertEqual(
            self.stage.ask(self.client, encode([b"EVAL", text.encode(), b"1", b"k"])), text.encode() + b"\r\n"
        )
        self.assertEqual(self.stage.pool.moved, 0)

    def test_scriptMoved(self) -> None:
        """
        If a script has said that a slot is elsewhere, the cluster is asked, at most once in a second. Nothing else is
        done, also without a reply. What else a script says has no effect.
        """
        target = self.cluster.move(b"k")
        moved = f"-MOVED {slotOf(b'k')} {target.name}:6379\r\n".encode()
        for _ in range(5):
            self.assertEqual(self.ask("EVAL +x 1 k"), moved)
        self.assertEqual(self.ask("CLIENT REPLY OFF", "EVAL +x 1 k", "CLIENT REPLY ON"), b"+OK\r\n")
        self.assertEqual((self.stage.pool.moved, self.stage.questions), (0, 1))
        self.wait(1.2)
        self.assertEqual(self.ask("EVAL +x 1 k"), b"+x\r\n")
        for word in ("ASK", "TRYAGAIN", "CLUSTERDOWN"):
            text = f"-{word} {slotOf(b'k')} {self.cluster.other(b'k').name}:6379".encode()
            self.assertEqual(self.stage.ask(self.client, encode([b"EVAL", text, b"1", b"k"])), text + b"\r\n")
        self.wait(5)
        self.assertEqual(self.stage.questions, 2)

    def test_newNode(self) -> None:
        """
        A node that the cluster reports only now gets the request after that.
        """
        node = ClusterNode(self.stage.clock, self.cluster, 3)
        self.cluster.nodes.append(node)
        self.cluster.begin(slotOf(b"k"), node)
        self.cluster.finish(slotOf(b"k"))
        self.assertEqual(self.ask("SET k v"), b"")
        self.assertEqual(self.wait(2), b"+OK\r\n")
        self.assertEqual(node.data[b"0"], {b"k": b"v"})

    def test_silent(self) -> None:
        """
        A client that has turned replies off gets none to redirected requests either.
        """
        self.cluster.move(b"k")
        self.assertEqual(self.ask("CLIENT REPLY OFF", "SET k v", "CLIENT REPLY ON", "GET k"), b"+OK\r\n$1\r\nv\r\n")

    def test_silentTooLong(self) -> None:
        """
        Such a request is given up when its time is over, and the next ones are executed.
        """
        for node in self.cluster.nodes:
            node.says = b"-CLUSTERDOWN The cluster is down\r\n"
        self.assertEqual(self.ask("CLIENT REPLY OFF", "SET k v", "CLIENT REPLY ON", "PING"), b"")
        self.assertEqual(self.wait(3), b"+OK\r\n+PONG\r\n")
        for node in self.cluster.nodes:
            self.assertLess(self.stage.asked(node).count(b"SET k v"), 20)

    def test_gone(self) -> None:
        """
        Nothing is left of a client that leaves while its requests wait.
        """
        for node in self.cluster.nodes:
            node.says = b"-CLUSTERDOWN The cluster is down\r\n"
        self.ask("GET k", "MGET k l m")
        self.client.lose()
        self.stage.serve()

    @covers("R43")
    def test_lost(self) -> None:
        """
        A read whose connection is lost after it was redirected is sent again. A write fails.
        """
        self.ask("SET k v")
        for text, reply in (("GET k", b"$1\r\nv\r\n"), ("SET k w", b"-ERR ")):
            self.stage.clock.advance(2)
            self.stage.serve()
            self.assertEqual(self.loseRedirected(text, b"k")[: len(reply)], reply)

    def test_random(self) -> None:
        """
        Each client sees its keys as if it were alone on one server, while slots move.
        """
        for seed in range(60):
            rng = random.Random(seed)
            stage = ClusterStage(6)
            stage.pool.patience = 1000.0
            cluster = stage.cluster
            keys = keysOf(6, f"{seed}-")
            values: dict[str, str] = {}
            sent, expected = b"", b""
            for number in range(40):
                key, other = rng.choice(keys), rng.choice(keys)
                kind = rng.randrange(5)
                if kind == 0:
                    sent, expected = sent + requests(f"SET {key} {number}"), expected + b"+OK\r\n"
                    values[key] = str(number)
                elif kind == 1:
                    sent += requests(f"MGET {key} {other}")
                    expected += b"*2\r\n" + _bulk(values.get(key)) + _bulk(values.get(other))
                elif kind == 2:
                    sent += requests(f"MSET {key} {number} {other} {number}a")
                    expected += b"+OK\r\n"
                    values.update({key: str(number), other: f"{number}a"})
                else:
                    sent, expected = sent + requests(f"GET {key}"), expected + _bulk(values.get(key))
            client, got = stage.client(), b""
            slots = {slotOf(key.encode()) for key in keys}
            while sent or len(got) < len(expected):
                size = rng.choice((5, 100, 1000))
                client.send(sent[:size])
                sent = sent[size:]
                for line in rng.sample(stage.lines, len(stage.lines)):
                    line.deliver(rng.choice((3, 50, 1000)))
                stage.turns()
                for slot in slots:
                    if slot in cluster.migrating:
                        if not rng.randrange(4):
                            cluster.finish(slot)
                        else:
                            cluster.moveKey(rng.choice(keys).encode())
                    elif not rng.randrange(4):
                        # No slot comes back: a node would execute the second of two requests after it has refused the
                        # first one.
                        following = cluster.nodes.index(cluster.owners[slot]) + 1
                        if following < len(cluster.nodes):
                            cluster.begin(slot, cluster.nodes[following])
                stage.clock.advance(0.02)
                got += client.take()
                if not sent and not rng.randrange(20):
                    for slot in slots:
                        cluster.finish(slot)
            stage.serve()
            self.assertEqual(got + client.take(), expected, seed)
            stage.pool.close()


def _bulk(value: str | None) -> bytes:
    return b"$-1\r\n" if value is None else b"$%d\r\n%b\r\n" % (len(value), value.encode())


class PinTests(ClusterCase):
    """
    Tests for clients with a connection of their own.
    """

    @covers("R17")
    def test_transaction(self) -> None:
        """
        A transaction is executed by the node of its first key. Keys of another one get an error.
        """
        a = "k"
        b = next(key for key in keysOf(20) if self.cluster.owner(key.encode()) is not self.cluster.owner(b"k"))
        self.assertEqual(
            self.ask("MULTI", f"SET {a} v", f"GET {a}", "EXEC"),
            b"+OK\r\n+QUEUED\r\n+QUEUED\r\n*2\r\n+OK\r\n$1\r\nv\r\n",
        )
        self.assertEqual(
            self.ask("MULTI", f"SET {a} w", f"SET {b} v", "EXEC"),
            b"+OK\r\n+QUEUED\r\n" + CROSS_SLOT + b"-EXECABORT Transaction discarded because of previous errors.\r\n",
        )

    def test_moved(self) -> None:
        """
        A transaction is not redirected. The next one goes to the right node.
        """
        target = self.cluster.move(b"k")
        moved = f"-MOVED {slotOf(b'k')} {target.name}:6379\r\n".encode()
        aborted = b"-EXECABORT Transaction discarded because of previous errors.\r\n"
        self.assertEqual(self.ask("MULTI", "SET k v", "EXEC"), b"+OK\r\n" + moved + aborted)
        self.assertEqual(self.ask("MULTI", "SET k v", "EXEC"), b"+OK\r\n+QUEUED\r\n*1\r\n+OK\r\n")
        self.assertEqual(target.data[b"0"], {b"k": b"v"})


class FailingTests(ClusterCase):
    """
    Tests for nodes that cannot be reached.
    """

    def lose(self, node: ClusterNode) -> None:
        """
        Let a node lose its connections, and refuse others.
        """
        node.mode = "refuse"
        for line in node.open:
            line.lose()

    def test_down(self) -> None:
        """
        A request that is redirected to a node that is down gets an error, and so does its part of a divided one.
        """
        self.lose(self.cluster.move(b"k"))
        self.assertIn(b"-ERR ", self.ask("GET k"))
        key = next(key for key in keysOf(50) if self.cluster.owner(key.encode()) is not self.cluster.owner(b"k"))
        replies = self.ask(f"SET {key} v", f"MGET k {key}", f"GET {key}")
        self.assertTrue(replies.startswith(b"+OK\r\n-ERR "), replies)
        self.assertTrue(replies.endswith(b"$1\r\nv\r\n"), replies)

    def test_partDown(self) -> None:
        """
        A part that is redirected to a node that is down gets an error.
        """
        a, b = keysOf(2)
        self.lose(self.cluster.move(a.encode()))
        self.assertIn(b"-ERR ", self.ask(f"MGET {a} {b}"))

    def test_partLost(self) -> None:
        """
        If a part of a read was redirected, and its connection is then lost, the part is sent again.
        """
        a, b = keysOf(2)
        self.ask(f"MSET {a} v {b} w")
        self.stage.clock.advance(2)
        self.stage.serve()
        self.assertEqual(self.loseRedirected(f"MGET {a} {b}", a.encode()), b"*2\r\n$1\r\nv\r\n$1\r\nw\r\n")

    def test_asked(self) -> None:
        """
        If the node that gets a slot is down, the one that has it is asked again.
        """
        a, b = "{k}1", "{l}1"
        for key in (a, b):
            self.cluster.begin(slotOf(key.encode()), self.cluster.other(key.encode()))
            self.lose(self.cluster.other(key.encode()))
        self.assertEqual(self.ask(f"GET {a}"), b"")
        self.assertIn(b"-ERR ", self.wait(4))
        self.assertEqual(self.ask(f"MGET {a} {b}"), b"")
        self.assertIn(b"-ERR ", self.wait(4))

    def test_transaction(self) -> None:
        """
        While no node has the slot of a key, it cannot be a part of a transaction.
        """
        self.assertEqual(self.ask("MULTI", "SET k v"), b"+OK\r\n+QUEUED\r\n")
        self.cluster.told = [self.cluster.nodes[0]] * 100
        self.stage.pool.wrong()
        self.wait(2)
        self.assertEqual(self.ask("GET {k}2"), CROSS_SLOT)
        self.assertEqual(self.ask("DISCARD"), b"+OK\r\n")

    def test_everyNode(self) -> None:
        """
        A request for all nodes, and divided ones, wait for the end of a blocking one.
        """
        a, b = keysOf(2)
        replies = self.ask(f"MSET {a} v {b} w", "BLPOP k 1", "DBSIZE", f"MGET {a} {b}")
        self.assertEqual(replies, b"+OK\r\n*-1\r\n:2\r\n*2\r\n$1\r\nv\r\n$1\r\nw\r\n")

    def test_noNode(self) -> None:
        """
        While no node is known, all requests get an error.
        """
        stage = UnknownStage()
        client = stage.client()
        for text in ("GET k", "MGET k l", "BLPOP k 0"):
            reply = stage.ask(client, requests(text))
            self.assertTrue(reply.startswith(b"-ERR upstream unavailable: no node of the cluster"), (text, reply))
        self.assertEqual(stage.ask(client, requests("DBSIZE")), b"-ERR the pool has no servers\r\n")
        stage.pool.close()
        stage.serve()


class BlockedTests(ClusterCase):
    """
    Tests for clients for which a node waits.
    """

    def setUp(self) -> None:
        """
        Let there be a connection to each node that a client can have for itself.
        """
        super().setUp()
        for node in self.cluster.nodes:
            key = next(key for key in keysOf(50) if self.cluster.owner(key.encode()) is node)
            self.assertEqual(self.ask(f"BLPOP {key} 0"), b"*-1\r\n")
            self.stage.asked(node)

    def block(self, text: str) -> None:
        """
        Send a request to which the node does not reply yet.
        """
        self.client.send(requests(text))
        self.stage.turns()

    def test_moved(self) -> None:
        """
        If the slot of a key moves, the new node waits for the rest of the time.
        """
        source = self.cluster.owner(b"k")
        self.block("BLPOP k 5")
        self.stage.clock.advance(2)
        target = self.cluster.move(b"k")
        self.stage.serve()
        self.assertEqual(self.client.take(), b"*-1\r\n")
        self.assertEqual(self.stage.asked(source), [b"BLPOP k 5"])
        self.assertEqual(self.stage.asked(target), [b"BLPOP k 3.000"])
        self.assertEqual(self.ask("SET k v", "GET k"), b"+OK\r\n$1\r\nv\r\n")

    def test_asked(self) -> None:
        """
        While a slot moves, its new node waits for a key that its old one does not have.
        """
        self.cluster.begin(slotOf(b"k"), self.cluster.other(b"k"))
        self.assertEqual(self.ask("BLPOP k 0", "PING"), b"*-1\r\n+PONG\r\n")
        self.assertEqual(self.stage.asked(self.cluster.other(b"k")), [b"ASKING", b"BLPOP k 0"])
        self.assertEqual(self.stage.pool.moved, 0)

    def test_often(self) -> None:
        """
        A request that waits follows its slot however often it moves. Nodes that do not agree lead to an error.
        """
        self.block("BLPOP k 0")
        for _ in range(10):
            self.stage.clock.advance(3)
            owner = self.cluster.owner(b"k")
            self.cluster.move(b"k")
            for _ in range(5):  # the reply, and those to the reset of the connection
                for line in owner.open:
                    line.deliver()
                self.stage.turns()
            self.assertEqual(self.client.take(), b"")
        self.stage.serve()
        self.assertEqual(self.client.take(), b"*-1\r\n")
        for node in self.cluster.nodes:
            node.says = f"-MOVED {slotOf(b'k')} {self.cluster.other(node.name.encode()).name}:6379\r\n".encode()
        self.assertEqual(self.ask("BLPOP k 0"), b"")
        self.assertEqual(self.wait(4), UNSERVED)

    def test_later(self) -> None:
        """
        A node that cannot serve the slot now is asked again. Without a node the client gets an error.
        """
        self.block("BLPOP k 0")
        self.cluster.owner(b"k").says = b"-CLUSTERDOWN The cluster is down\r\n"
        self.stage.serve()
        self.assertEqual(self.client.take(), b"")
        self.cluster.owner(b"k").says = b""
        self.assertEqual(self.wait(1), b"*-1\r\n")
        self.cluster.owner(b"k").says = b"-CLUSTERDOWN The cluster is down\r\n"
        self.assertEqual(self.ask("BLPOP k 0"), b"")
        self.cluster.told = [self.cluster.nodes[0]] * 100
        self.assertIn(b"no node of the cluster has the slot", self.wait(1.9))

    def test_lease(self) -> None:
        """
        The client waits for a connection to the new node, if all are in use.
        """
        target = self.cluster.other(b"k")
        key = next(key for key in keysOf(50) if self.cluster.owner(key.encode()) is target)
        others = [self.stage.client() for _ in range(2)]  # the share of a node
        for each in others:
            self.assertEqual(self.ask(f"WATCH {key}", client=each), b"+OK\r\n")
        self.cluster.move(b"k")
        self.assertEqual(self.ask("BLPOP k 0", "PING"), b"")
        for each in others:
            self.assertEqual(self.ask("UNWATCH", client=each), b"+OK\r\n")
        self.assertEqual(self.wait(0.1), b"*-1\r\n+PONG\r\n")

    def test_refused(self) -> None:
        """
        If no connection to the new node is free in time, the client gets an error.
        """
        target = self.cluster.other(b"k")
        key = next(key for key in keysOf(50) if self.cluster.owner(key.encode()) is target)
        others = [self.stage.client() for _ in range(2)]
        for each in others:
            self.assertEqual(self.ask(f"WATCH {key}", client=each), b"+OK\r\n")
        self.cluster.move(b"k")
        self.assertEqual(self.ask("BLPOP k 0", "PING"), b"")
        self.assertIn(b"-ERR ", self.wait(10))
        for each in others:
            self.assertEqual(self.ask("UNWATCH", client=each), b"+OK\r\n")

    def test_movedMeanwhile(self) -> None:
        """
        If the slot gets another node while the client waits for a connection, the new node executes the request.
        """
        others = [self.stage.client() for _ in range(2)]  # the share of a node
        for each in others:
            self.assertEqual(self.ask("WATCH {k}1", client=each), b"+OK\r\n")
        self.assertEqual(self.ask("BLPOP k 0", "PING"), b"")
        target = self.cluster.move(b"k")
        self.assertEqual(self.ask("SET k v", client=self.stage.client()), b"+OK\r\n")
        for each in others:
            self.assertEqual(self.ask("UNWATCH", client=each), b"+OK\r\n")
        self.assertEqual(self.wait(0.1), b"*-1\r\n+PONG\r\n")
        self.assertEqual(self.stage.asked(target)[-1:], [b"BLPOP k 0"])

    def test_state(self) -> None:
        """
        A client whose connection has a state gets the reply of the node.
        """
        self.assertEqual(self.ask("WATCH k"), b"+OK\r\n")
        target = self.cluster.move(b"k")
        moved = f"-MOVED {slotOf(b'k')} {target.name}:6379\r\n".encode()
        self.assertEqual(self.ask("BLPOP k 0", "UNWATCH", "BLPOP k 0"), moved + b"+OK\r\n*-1\r\n")
        aborted = b"-EXECABORT Transaction discarded because of previous errors.\r\n"
        target = self.cluster.move(b"k")
        moved = f"-MOVED {slotOf(b'k')} {target.name}:6379\r\n".encode()
        self.assertEqual(self.ask("MULTI", "BLPOP k 0", "EXEC"), b"+OK\r\n" + moved + aborted)

    def test_gone(self) -> None:
        """
        Nothing is left of a client that leaves while its request waits.
        """
        for node in self.cluster.nodes:
            node.says = b"-CLUSTERDOWN The cluster is down\r\n"
        self.ask("BLPOP k 0")
        self.client.lose()
        self.stage.serve()


class SubscriberTests(ClusterCase):
    """
    Tests for clients that are subscribed to the channels of a slot.
    """

    #: The first byte of confirmations and messages.
    mark = b"*"

    def setUp(self) -> None:
        """
        Subscribe, after there is a connection to each node.
        """
        super().setUp()
        for node in self.cluster.nodes:
            key = next(key for key in keysOf(50) if self.cluster.owner(key.encode()) is node)
            self.assertEqual(self.ask(f"BLPOP {key} 0"), b"*-1\r\n")
            self.stage.asked(node)
        self.prepare()

    def prepare(self) -> None:
        """
        Choose the version of the protocol.
        """

    def confirmed(self, *channels: str) -> bytes:
        """
        @return: the replies to a request that subscribes.
        """
        head = self.mark + b"3\r\n$10\r\nssubscribe\r\n"
        return b"".join(
            head + b"$%d\r\n%b\r\n:%d\r\n" % (len(each), each.encode(), count) for count, each in enumerate(channels, 1)
        )

    def published(self, channel: bytes) -> bytes:
        """
        Publish a message.

        @return: what the client has received.
        """
        lines: list[Any] = self.cluster.owner(channel).open
        for line in lines:
            line.publish(channel, b"x")
        self.stage.serve()
        return self.client.take()

    def message(self, channel: bytes) -> bytes:
        """
        @return: the message.
        """
        return self.mark + b"3\r\n$8\r\nsmessage\r\n$%d\r\n%b\r\n$1\r\nx\r\n" % (len(channel), channel)

    def test_redirected(self) -> None:
        """
        A request to subscribe to channels of a slot that has got another node is sent to that one.
        """
        target = self.cluster.move(b"k")
        self.assertEqual(self.ask("SSUBSCRIBE k {k}2"), self.confirmed("k", "{k}2"))
        self.assertEqual(self.stage.asked(target)[-1], b"SSUBSCRIBE k {k}2")
        self.assertEqual(self.published(b"{k}2"), self.message(b"{k}2"))
        self.assertIn(b"PONG" if self.mark == b">" else b"pong", self.ask("PING"))
        self.leave()

    def leave(self) -> None:
        """
        Close the client.
        """
        self.client.lose()
        self.stage.serve()

    @covers("R45")
    def test_moved(self) -> None:
        """
        When the slot of the channels gets another node, the client gets their messages from that one, however often.
        """
        self.assertEqual(self.ask("SSUBSCRIBE k {k}2"), self.confirmed("k", "{k}2"))
        violations = self.stage.pool.counters.violations
        for _ in range(4):
            self.cluster.move(b"k")
            self.stage.serve()
            self.assertEqual(self.client.take(), b"")
            self.assertEqual(self.published(b"k"), self.message(b"k"))
            self.assertEqual(self.published(b"{k}2"), self.message(b"{k}2"))
        self.assertEqual(self.stage.pool.counters.violations, violations)
        self.assertIn(b"PONG" if self.mark == b">" else b"pong", self.ask("PING"))
        self.leave()

    def test_inFlight(self) -> None:
        """
        So does a client that waits for a reply, and one that has channels of other slots too.
        """
        self.ask("SSUBSCRIBE k")
        self.client.send(requests("SSUBSCRIBE {k}2"))
        self.stage.turns()
        self.cluster.move(b"k")
        self.stage.serve()
        self.assertIn(b"$4\r\n{k}2\r\n:2\r\n", self.client.take())
        owner = self.cluster.owner(b"k")
        channels = ["k", next(key for key in keysOf(50) if self.cluster.owner(key.encode()) is owner)]
        self.ask(f"SSUBSCRIBE {channels[1]}")
        self.cluster.move(channels[1].encode())
        self.stage.serve()
        for channel in (*channels, "{k}2"):
            self.assertEqual(self.published(channel.encode()), self.message(channel.encode()))
        self.assertTrue(self.client.connected)
        self.assertEqual(self.stage.pool.counters.violations, 0)
        self.leave()

    def channelsOf(self, count: int) -> list[str]:
        """
        @return: channels of each node, in different slots.
        """
        found = []
        for node in self.cluster.nodes:
            found += [key for key in keysOf(100) if self.cluster.owner(key.encode()) is node][:count]
        return found

    def test_nodes(self) -> None:
        """
        A client may be subscribed to channels of all nodes, one slot at a time. Clients that want the same channels
        share a connection to each node, which sends each message once.
        """
        channels, other = self.channelsOf(2), self.stage.client()
        if self.mark == b">":
            self.ask("HELLO 3", client=other)
        for count, channel in enumerate(channels, 1):
            self.assertTrue(self.ask(f"SSUBSCRIBE {channel}").endswith(b":%d\r\n" % count))
            self.ask(f"SSUBSCRIBE {channel}", client=other)
        self.assertEqual(self.ask(f"SSUBSCRIBE {channels[0]} {channels[-1]}"), CROSS_SLOT)
        for number, node in enumerate(self.cluster.nodes):
            asked = [each for each in self.stage.asked(node) if b"SUBSCRIBE" in each]
            self.assertEqual(
                asked, [b"SSUBSCRIBE %b" % each.encode() for each in channels[2 * number : 2 * number + 2]]
            )
        self.assertEqual(self.stage.sessions.subscribers.counts["connections"], 3)
        for channel in channels:
            self.assertEqual(self.published(channel.encode()), self.message(channel.encode()))
            self.assertEqual(other.take(), self.message(channel.encode()))
        self.assertEqual(self.ask("SUNSUBSCRIBE").count(b"sunsubscribe"), 6)
        self.assertEqual(self.published(channels[0].encode()), b"")
        self.assertEqual(other.take(), self.message(channels[0].encode()))
        self.ask("SUNSUBSCRIBE", client=other)
        for number, node in enumerate(self.cluster.nodes):
            asked = [each for each in self.stage.asked(node) if b"SUBSCRIBE" in each]
            its = channels[2 * number : 2 * number + 2]
            self.assertEqual(asked, [b"SUNSUBSCRIBE %b" % each.encode() for each in its])
        self.assertEqual(self.stage.sessions.subscribers.counts["connections"], 0)
        other.lose()
        self.leave()

    def test_unwanted(self) -> None:
        """
        A client that ends its subscription while no node serves the slot gets no messages of it later.
        """
        other = self.stage.client()
        if self.mark == b">":
            self.ask("HELLO 3", client=other)
        for client in (self.client, other):
            self.ask("SSUBSCRIBE k", client=client)
        self.cluster.other(b"k").says = b"-CLUSTERDOWN The cluster is down\r\n"
        target = self.cluster.move(b"k")
        self.assertEqual(self.wait(0.5), b"")
        self.assertIn(b"sunsubscribe", self.ask("SUNSUBSCRIBE k"))
        target.says = b""
        self.wait(1)
        self.assertEqual(self.published(b"k"), b"")
        self.assertEqual(other.take(), self.message(b"k"))
        self.ask("SUNSUBSCRIBE k", client=other)
        self.ask("SSUBSCRIBE k", client=other)
        self.cluster.other(b"k").says = b"-CLUSTERDOWN The cluster is down\r\n"
        self.cluster.move(b"k")
        self.stage.serve()
        other.lose()
        self.leave()

    def test_pinned(self) -> None:
        """
        A client that watches a key of one node may be subscribed to channels of others.
        """
        if self.mark == b"*":
            return
        channels = self.channelsOf(1)
        self.ask(f"WATCH {channels[0]}")
        for channel in channels:
            self.assertIn(b"ssubscribe", self.ask(f"SSUBSCRIBE {channel}"))
        for channel in channels:
            self.assertEqual(self.published(channel.encode()), self.message(channel.encode()))
        self.assertEqual(self.ask("UNWATCH"), b"+OK\r\n")
        self.leave()

    @covers("R46")
    def test_random(self) -> None:
        """
        Clients come, subscribe, end subscriptions and leave while slots move. Each gets each message of its channels
        once, also if a node sends no more about a channel at the moment in which the subscription is to end.
        """
        for seed in range(10):
            rng = random.Random(seed)
            channels = self.channelsOf(2)
            wants: dict[Pipe, set[str]] = {}
            for _ in range(40):
                kind = rng.randrange(6)
                channel = rng.choice(channels)
                if kind == 0 or not wants:
                    client = self.stage.client()
                    if self.mark == b">":
                        self.ask("HELLO 3", client=client)
                    wants[client] = set()
                elif kind == 1:
                    client = rng.choice(list(wants))
                    del wants[client]
                    client.lose()
                elif kind == 2:
                    self.cluster.move(channel.encode())
                else:
                    client = rng.choice(list(wants))
                    wanted = wants[client]
                    if channel in wanted:
                        wanted.discard(channel)
                        client.send(requests(f"SUNSUBSCRIBE {channel}"))
                    else:
                        wanted.add(channel)
                        client.send(requests(f"SSUBSCRIBE {channel}"))
                self.stage.turns()
                if rng.randrange(2):
                    self.stage.serve()
            self.wait(3)
            for client in wants:
                self.assertTrue(client.connected, seed)
                client.take()
            for channel in channels:
                self.published(channel.encode())
                expected = self.message(channel.encode())
                for client, wanted in wants.items():
                    self.assertEqual(client.take(), expected if channel in wanted else b"", (seed, channel))
            self.assertEqual(self.stage.pool.counters.violations, 0)
            for client in wants:
                client.lose()
            self.stage.serve()
            self.assertEqual(list(self.stage.sessions.subscribers.counts.values()), [0] * 4)
        self.leave()

    def test_later(self) -> None:
        """
        While no node serves the slot, the client waits. If that lasts too long, it is closed, or gets the error of its
        request and is no subscriber.
        """
        self.ask("SSUBSCRIBE k")
        self.cluster.other(b"k").says = b"-CLUSTERDOWN The cluster is down\r\n"
        target = self.cluster.move(b"k")
        self.assertEqual(self.wait(1), b"")
        target.says = b""
        self.assertEqual(self.wait(0.5), b"")
        self.assertEqual(self.published(b"k"), self.message(b"k"))
        self.cluster.other(b"k").says = b"-CLUSTERDOWN The cluster is down\r\n"
        target = self.cluster.move(b"k")
        self.wait(4)
        self.assertFalse(self.client.connected)
        self.client = self.stage.client()
        self.prepare()
        self.assertEqual(self.ask("SSUBSCRIBE k"), b"")
        self.assertEqual(self.wait(4), target.says)
        target.says = b""
        self.assertEqual(self.ask("SET k v"), b"+OK\r\n")

    def test_refused(self) -> None:
        """
        If no node can be reached, the client is closed.
        """
        self.ask("SSUBSCRIBE k")
        target = self.cluster.other(b"k")
        for line in target.open:
            line.lose()
        target.mode = "refuse"
        self.stage.serve()
        self.cluster.move(b"k")
        self.wait(10)
        self.assertFalse(self.client.connected)

    def test_gone(self) -> None:
        """
        Nothing is left of a client that leaves while it waits to be subscribed again.
        """
        self.ask("SSUBSCRIBE k")
        self.cluster.other(b"k").says = b"-CLUSTERDOWN The cluster is down\r\n"
        self.cluster.move(b"k")
        self.stage.serve()
        self.leave()


class SubscriberTests3(SubscriberTests):
    """
    The same tests with RESP3.
    """

    mark = b">"

    def prepare(self) -> None:
        """
        Choose the version of the protocol.
        """
        self.ask("HELLO 3")


class PrimariesTests(ClusterCase):
    """
    Tests for requests that all primaries get, after one of these has become a replica.
    """

    def setUp(self) -> None:
        """
        Give each primary a replica.
        """
        super().setUp()
        self.cluster.replicate()
        self.stage.servers = [*self.cluster.nodes, *self.cluster.replicas]
        self.assertEqual(self.ask("MSET " + " ".join(f"{key} 1" for key in keysOf(9))), b"+OK\r\n")

    def failOver(self) -> tuple[ClusterNode, ClusterNode]:
        """
        Let a primary and its replica change their roles, of which the proxy learns nothing yet.

        @return: both, the former primary first.
        """
        replica = self.cluster.replicas[1]
        shards = self.cluster.shards()
        self.old = self.patch(self.cluster, "shards", lambda: shards)
        old = self.cluster.failOver(replica)
        self.stage.servers = [*self.cluster.nodes, *self.cluster.replicas]
        return old, replica

    def flushes(self, *nodes: ClusterNode) -> list[int]:
        """
        @return: how often nodes were asked to remove all keys.
        """
        return [self.stage.asked(node).count(b"FLUSHALL") for node in nodes]

    def test_readOnly(self) -> None:
        """
        The primary in its place gets the request as soon as the cluster reports it, and no other one gets it twice. The
        cluster is asked at once. Later requests of the client wait.
        """
        old, new = self.failOver()
        others = [node for node in self.cluster.nodes if node is not new]
        questions = self.stage.questions
        self.assertEqual(self.ask("FLUSHALL", "GET k0"), b"")
        self.assertEqual(self.wait(0.4), b"")
        self.assertEqual(self.flushes(*others), [1, 1])
        self.assertGreaterEqual(self.flushes(old)[0], 2)
        self.old.restore()
        self.assertEqual(self.wait(1.5), b"+OK\r\n$-1\r\n")
        self.assertEqual(self.flushes(*others, new), [0, 0, 1])
        self.assertLessEqual(self.stage.questions - questions, 3)
        self.assertEqual(self.ask("DBSIZE"), b":0\r\n")

    def test_known(self) -> None:
        """
        If the other primary is known when the error comes, it gets the request as soon as it may be sent again.
        """
        _, new = self.failOver()
        self.client.send(requests("FLUSHALL"))
        self.stage.turns()
        self.old.restore()
        self.stage.pool.wrong()
        self.stage.clock.advance(2.0 - 0.5)
        self.stage.serve()
        self.assertEqual(self.wait(0.1), b"+OK\r\n")
        self.assertEqual(self.flushes(new), [1])

    def test_never(self) -> None:
        """
        If the cluster reports no other primary within the time of the request, the client gets the error.
        """
        self.failOver()
        self.assertEqual(self.ask("FLUSHALL"), b"")
        self.assertEqual(self.wait(3), READ_ONLY)
        self.assertEqual(self.ask("PING"), b"+PONG\r\n")
        self.old.restore()

    def test_gone(self) -> None:
        """
        A client that leaves meanwhile leaves nothing behind.
        """
        self.failOver()
        self.assertEqual(self.ask("FLUSHALL"), b"")
        self.client.lose()
        self.stage.turns()
        self.old.restore()
        self.wait(2)


class ReplicaTests(ClusterCase):
    """
    Tests for requests that replicas execute.
    """

    readFrom = "prefer-replica"

    def test_reads(self) -> None:
        """
        Replicas read, and primaries write. Scripts, transactions and blocking requests are for primaries.
        """
        keys = keysOf(6)
        self.assertEqual(self.ask("MSET " + " ".join(f"{key} {key}" for key in keys)), b"+OK\r\n")
        for node in self.cluster.nodes:
            self.stage.asked(node)
        values = b"".join(b"$%d\r\n%b\r\n" % (len(key), key.encode()) for key in keys)
        self.assertEqual(self.ask("MGET " + " ".join(keys), *(f"GET {key}" for key in keys)), b"*6\r\n" + values * 2)
        self.assertEqual([self.stage.asked(node) for node in self.cluster.nodes], [[], [], []])
        self.ask("EVAL +x 1 k", "MULTI", "GET k", "EXEC", "BLPOP k 0", "SET k v")
        self.assertEqual(self.stage.asked(self.cluster.replica(b"k")).count(b"GET k"), 0)
        self.assertEqual(self.ask("GET k"), b"$1\r\nv\r\n")
        self.assertEqual(self.stage.asked(self.cluster.replica(b"k"))[-1:], [b"GET k"])

    def test_moved(self) -> None:
        """
        A replica whose primary has lost the slot redirects to the new primary, which reads until the next report.
        """
        self.ask("SET k v")
        old = self.cluster.replica(b"k")
        target = self.cluster.move(b"k")
        self.assertEqual(self.ask("GET k", "MGET k l"), b"$1\r\nv\r\n*2\r\n$1\r\nv\r\n$-1\r\n")
        self.assertIn(b"GET k", self.stage.asked(old))
        self.assertIn(b"GET k", self.stage.asked(target))
        self.wait(2)
        self.stage.asked(target)
        self.assertEqual(self.ask("GET k"), b"$1\r\nv\r\n")
        self.assertEqual(self.stage.asked(target), [])

    def test_changed(self) -> None:
        """
        Another C{read-from} is in force at once: the nodes are known.
        """
        self.ask("SET k v")
        pool, node = self.stage.pool, Node("node0", 6379)
        for readFrom in ("primary", "replica", "prefer-replica"):
            pool.wrong()
            self.stage.serve()  # the nodes were just asked, and are not asked again at once
            pool.change(pool.limits, [node], {}, 6, readFrom)
            for each in self.cluster.nodes:
                self.stage.asked(each)
            self.assertEqual(self.ask("GET k"), b"$1\r\nv\r\n", readFrom)
            asked = self.stage.asked(self.cluster.replica(b"k"))
            self.assertEqual(asked[-1:], [] if readFrom == "primary" else [b"GET k"])
            self.wait(2)

    def test_notReady(self) -> None:
        """
        What a replica cannot serve now is sent to the primary at once.
        """
        self.ask("SET k v")
        for text in (b"-LOADING Redis is loading\r\n", b"-MASTERDOWN Link\r\n", b"-CLUSTERDOWN The cluster\r\n"):
            self.cluster.replica(b"k").says = text
            self.assertEqual(self.ask("GET k", "MGET k {k}2"), b"$1\r\nv\r\n*2\r\n$1\r\nv\r\n$-1\r\n")

    def test_lost(self) -> None:
        """
        What a replica has not answered when its connection is lost is sent to the primary, and so are further requests
        while the replica is down.
        """
        self.ask("SET k v", "GET k")
        replica = self.cluster.replica(b"k")
        self.client.send(requests("GET k", "MGET k {l}1 {l}2"))
        self.stage.turns()
        replica.mode = "refuse"
        for line in replica.open:
            line.lose()
        self.stage.serve()
        self.assertEqual(self.client.take(), b"$1\r\nv\r\n*3\r\n$1\r\nv\r\n$-1\r\n$-1\r\n")
        for _ in range(3):
            self.assertEqual(self.ask("MGET k l", "GET k"), b"*2\r\n$1\r\nv\r\n$-1\r\n$1\r\nv\r\n")
            self.wait(0.3)

    def freeze(self, key: bytes) -> ClusterNode:
        """
        Let the replica of a key reply to nothing any more.

        @return: the replica.
        """
        replica = self.cluster.replica(key)
        replica.mode = "hang"
        self.stage.servers = [each for each in self.stage.servers if each is not replica]
        return replica

    def test_late(self) -> None:
        """
        What a replica has not answered in time is sent to the primary, once.
        """
        self.ask("SET k v", "GET k")
        self.freeze(b"k")
        self.client.send(requests("GET k", "MGET k {l}1 {l}2"))
        self.assertEqual(self.wait(1.9), b"")
        self.assertEqual(self.wait(0.2), b"$1\r\nv\r\n*3\r\n$1\r\nv\r\n$-1\r\n$-1\r\n")

    def test_lateTwice(self) -> None:
        """
        If the primary does not answer either, the client gets the error.
        """
        self.ask("SET k v", "GET k")
        self.freeze(b"k")
        primary = self.cluster.owner(b"k")
        self.client.send(requests("GET k", "MGET k {l}1 {l}2"))
        self.stage.servers = [each for each in self.stage.servers if each is not primary]
        self.assertEqual(self.wait(1.9), b"")
        replies = self.wait(6).split(b"\r\n")
        self.assertEqual(len(replies), 3)
        self.assertEqual({reply[:4] for reply in replies[:2]}, {b"-ERR"})

    def test_waiting(self) -> None:
        """
        What waits for a connection to a replica is sent to the primary, if there is none in time.
        """
        self.ask("SET k v", "GET k")
        for line in self.freeze(b"k").open:
            line.lose()
        for texts, reply in ((["GET k"] * 2, b"$1\r\nv\r\n" * 2), (["MGET k l"], b"*2\r\n$1\r\nv\r\n$-1\r\n")):
            self.client.send(requests(*texts))
            self.assertEqual(self.wait(5), reply)

    def tearDown(self) -> None:
        """
        Let frozen replicas reply.
        """
        for each in self.cluster.replicas:
            each.mode = "refuse"
            for line in each.open:
                line.lose()
        self.stage.servers = [*self.cluster.nodes, *self.cluster.replicas]
        self.wait(5)


class NearestTests(ClusterCase):
    """
    Tests for requests that the nearest node executes.
    """

    readFrom = "nearest"

    def setUp(self) -> None:
        """
        Measure at fixed times.
        """
        self.patch(measuring, "SPREAD", (1.0, 1.0))
        super().setUp()

    def readers(self, keys: list[str]) -> set[ClusterNode]:
        """
        Read keys.

        @return: the nodes that were asked.
        """
        for key in keys:
            self.assertEqual(self.ask(f"GET {key}", f"MGET {key} {{{key}}}2"), b"$1\r\nv\r\n*2\r\n$1\r\nv\r\n$-1\r\n")
        nodes = (*self.cluster.nodes, *self.cluster.replicas)
        return {node for node in nodes if any(b"GET" in each for each in self.stage.asked(node))}

    def test_nearest(self) -> None:
        """
        While both are as near, the primary and the replica read. When the replies of one take long, the other one does.
        """
        primary = self.cluster.owner(b"k")
        replica = self.cluster.replica(b"k")
        keys = [key for key in keysOf(60) if self.cluster.owner(key.encode()) is primary]
        self.ask(*(f"SET {key} v" for key in keys))
        self.wait(5)
        self.assertEqual(self.readers(keys), {primary, replica})
        servers = self.stage.servers
        for slow, fast in ((replica, primary), (primary, replica)):
            for _ in range(20):
                self.stage.servers = [each for each in servers if each is not slow]
                self.wait(1.5)
                self.stage.servers = servers
                self.wait(0.05)
            self.assertEqual(self.readers(keys), {fast})
        self.wait(30)
        self.assertEqual(self.readers(keys), {primary, replica})

    def test_down(self) -> None:
        """
        What the nearest node has not answered when its connection is lost, or in time, is sent to the other one, as are
        further requests while it is down.
        """
        self.ask("SET k v")
        for node in (self.cluster.replica(b"k"), self.cluster.owner(b"k")):
            for frozen in (False, True):
                self.ask("GET k", *(f"GET {{{key}}}k" for key in keysOf(50)))
                servers = self.stage.servers
                self.client.send(requests("GET k", "MGET k {l}1 {l}2"))
                self.stage.turns()
                node.mode = "hang" if frozen else "refuse"
                self.stage.servers = [each for each in servers if each is not node]
                for line in [] if frozen else node.open:
                    line.lose()
                reply = b"$1\r\nv\r\n*3\r\n$1\r\nv\r\n$-1\r\n$-1\r\n"
                self.assertEqual(self.wait(5), reply)
                for _ in range(3):
                    self.client.send(requests("MGET k l", "GET k"))
                    self.assertEqual(self.wait(3), b"*2\r\n$1\r\nv\r\n$-1\r\n$1\r\nv\r\n")
                node.mode = "accept"
                for line in node.open:
                    line.lose()
                for _, dial in list(node.hanging):
                    dial.cancel()
                self.stage.servers = servers
                self.wait(20)


class ReplicaOnlyTests(ClusterCase):
    """
    Tests for requests that only replicas execute.
    """

    readFrom = "replica"

    def test_down(self) -> None:
        """
        If no replica is up, requests that read get an error, and the primary gets none.
        """
        self.ask("SET k v", "GET k", "MGET k l")
        replica = self.cluster.replica(b"k")
        replica.mode = "refuse"
        for line in replica.open:
            line.lose()
        self.wait(1)
        self.stage.asked(self.cluster.owner(b"k"))
        error = b"-ERR upstream unavailable: no replica with the slot of the key is up\r\n"
        self.assertEqual(self.ask("GET k", "MGET k {k}2 l", "SET k w"), error + error + b"+OK\r\n")
        self.assertEqual(self.stage.asked(self.cluster.owner(b"k")), [b"SET k w"])


class SharedSubscriberTests(ClusterCase):
    """
    Tests for subscribers, who share connections to the nodes.
    """

    def test_shared(self) -> None:
        """
        One node is asked for a channel, and sends its messages also when the slot of the channel has got another one.
        """
        clients = [self.stage.client() for _ in range(3)]
        for client in clients[:2]:
            self.assertEqual(self.ask("SUBSCRIBE k", client=client)[-4:], b":1\r\n")
        source = self.cluster.owner(b"k")
        self.assertEqual(self.stage.asked(source), [b"SUBSCRIBE k"])
        target = self.cluster.move(b"k")
        self.ask("SET k v")
        self.stage.asked(target)
        self.ask("SUBSCRIBE k", client=clients[2])
        self.assertEqual(self.stage.asked(target), [b"SUBSCRIBE k"])
        for node in (source, target):
            for line in node.open:
                line.sendMessage(b"k", b"x")
        self.stage.serve()
        self.assertEqual([client.take().count(b"message") for client in clients], [1, 1, 1])
        self.assertEqual([client.connected for client in clients], [True] * 3)
        for client in clients:
            client.lose()
        self.stage.serve()

    def test_gone(self) -> None:
        """
        When a node has no slots any more, the subscribers of its channels are closed, and those of the events of keys.
        """
        self.stage.pool.remapped = self.stage.sessions.subscribers.check
        clients = []
        for node in self.cluster.nodes:
            channel = next(each for each in keysOf(100) if self.cluster.owner(each.encode()) is node)
            clients.append(self.stage.client())
            self.ask(f"SUBSCRIBE {channel}", client=clients[-1])
        clients.append(self.stage.client())
        self.ask("PSUBSCRIBE __keyspace@0__:*", client=clients[-1])
        for node in self.cluster.nodes:
            self.assertIn(b"PSUBSCRIBE __keyspace@0__:*", self.stage.asked(node))
        first, second, _ = self.cluster.nodes
        self.cluster.told = [first] * 8192 + [second] * 8192
        self.stage.pool.wrong()
        self.wait(5)
        self.assertEqual([client.connected for client in clients], [True, True, False, False])
        for client in clients:
            client.lose()
        self.stage.serve()
