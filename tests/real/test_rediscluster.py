# Copyright txconnpool contributors. See LICENSE.
"""
Tests for C{tests/real/rediscluster.py}.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tests.real.rediscluster import Cluster, Node, keyOf, slotOf
from tests.real.resp import Client
from tests.real.servers import missing


class ClusterTests(SynchronousTestCase):
    """
    Tests for L{Cluster}.
    """

    skip = missing("redis-server")

    def errors(self, node: Node, *requests: str) -> list[str]:
        """
        @return: the first word of each reply.
        """
        with node.client() as client:
            return [str(client.result(*words.split())).split()[0] for words in requests]

    def test_keys(self) -> None:
        """
        The slots of keys are those that Redis computes.
        """
        for key, slot in ((b"123456789", 0x31C3), (b"{foo}bar", 12182), (b"a{}b", 13694), (b"{{a}}", 10276)):
            self.assertEqual(slotOf(key), slot)
        self.assertEqual(slotOf(keyOf(3300).encode()), 3300)

    def test_cluster(self) -> None:
        """
        Slots move, a replica replaces its primary, and nodes join and leave. All nodes have a password.
        """
        with Cluster(3, 1, password="secret") as cluster:
            one, two, three = cluster.primaries()
            self.assertEqual([len(cluster.slots(node)) for node in (one, two, three)], [5461, 5461, 5462])
            slot = cluster.slots(one)[0]
            a, b = keyOf(slot, "a"), keyOf(slot, "b")
            one.ask("MSET", a, 1, b, 2)
            self.moving(cluster, slot, a, b)
            self.failing(cluster)
            joined = cluster.addNode()
            cluster.migrate([slot], joined)
            self.assertEqual((cluster.owner(slot), joined.ask("MGET", a, b)), (joined, [b"1", b"2"]))
            replica = cluster.addNode(joined)
            self.assertEqual(cluster.replicas(joined), [replica])
            cluster.migrate([slot], one)
            cluster.removeNode(replica)
            cluster.removeNode(joined)
            self.assertEqual(one.ask("MGET", a, b), [b"1", b"2"])
            self.detecting(cluster)

    def moving(self, cluster: Cluster, slot: int, a: str, b: str) -> None:
        """
        Move a slot to another node and back.
        """
        one, two, _ = cluster.primaries()
        self.assertEqual(cluster.beginMigration([slot], two), one)
        new = keyOf(slot, "new")
        self.assertEqual(self.errors(one, f"GET {a}", f"GET {new}"), ["b'1'", "ASK"])
        self.assertEqual(cluster.moveKeys([slot], one, two, most=1), 1)
        self.assertEqual(self.errors(one, f"MGET {a} {b}"), ["TRYAGAIN"])
        self.assertEqual(self.errors(two, f"MGET {a} {b}", f"GET {new}", "ASKING", f"GET {new}"),
                         ["MOVED", "MOVED", "b'OK'", "None"])  # fmt: skip
        cluster.finishMigration([slot], one, two)
        self.assertEqual((cluster.owner(slot), self.errors(one, f"GET {a}")), (two, ["MOVED"]))
        cluster.migrate([slot], one)
        cluster.untilConsistent()

    def failing(self, cluster: Cluster) -> None:
        """
        Kill and suspend a primary.
        """
        one, _, three = cluster.primaries()
        (replica,) = cluster.replicas(three)
        three.kill()
        cluster.failover(replica)
        three.start()
        cluster.untilConsistent()
        self.assertEqual(cluster.replicas(replica), [three])
        replica.freeze()
        cluster.failover(three)
        replica.thaw()
        cluster.untilConsistent()
        self.assertEqual(cluster.replicas(three), [replica])
        (other,) = cluster.replicas(one)
        for each in (other, one):
            cluster.failover(each)
            cluster.untilConsistent()

    def detecting(self, cluster: Cluster) -> None:
        """
        With a short timeout, the nodes notice by themselves that a primary has failed.
        """
        primary = cluster.primaries()[0]
        with Client(primary.address) as stranger:
            self.assertIn("NOAUTH", str(stranger.result("GET", "k")))
        cluster.setNodeTimeout(1000)
        primary.kill()
        cluster.untilReplaced(primary)
        cluster.setNodeTimeout(15000)
        primary.start()
        cluster.untilConsistent()
        self.assertEqual(primary.info("replication")["role"], "slave")
