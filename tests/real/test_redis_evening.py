# Copyright txconnpool contributors. See LICENSE.
"""
All that happens to a Redis Cluster, one after another, while clients of the proxy work.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

from twisted.python import log
from twisted.trial.unittest import SynchronousTestCase

from tests.real.clusterload import NativeStore, PlainStore, Worker
from tests.real.operated import rows
from tests.real.rediscluster import PATIENCE, Cluster, Node, slotOf
from tests.real.servers import HOST, Proxy, missing, until

#: The numbers of clients of the proxy, and of clients that use the cluster without it.
CLIENTS, NATIVE = 6, 2

#: The number of steps of each client after which the next thing happens.
STEPS = 15

#: The steps of a load whose requests have no state, so that the proxy sends them again to another node.
REDIRECTED = ("set", "get", "mset", "mget", "incr")


class FakeStore:
    """
    A Redis in memory, which makes no mistakes by itself.

    @ivar data: the values of keys.
    @ivar lists: the lists.
    """

    def __init__(self) -> None:
        self.data: dict[str, str] = {}
        self.lists: dict[str, list[str]] = {}

    def close(self) -> None:
        """
        Do nothing.
        """

    def ask(self, *words: Any) -> Any:
        """
        Execute a request.
        """
        name, key, *rest = words
        if name == "SET":
            self.data[key] = rest[0]
            return b"OK"
        if name == "INCR":
            self.data[key] = str(int(self.data.get(key, 0)) + 1)
            return int(self.data[key])
        if name == "RPUSH":
            self.lists.setdefault(key, []).append(rest[0])
            return 1
        if name == "BLPOP":
            return [key.encode(), self.lists[key].pop(0).encode()] if self.lists[key] else None
        value = self.data.get(key)
        return None if value is None else value.encode()

    def transaction(self, *requests: Any) -> Any:
        """
        Execute requests.
        """
        return [self.ask(*words) for words in requests]

    def mset(self, values: dict[str, str]) -> None:
        """
        Set values.
        """
        self.data |= values

    def mget(self, keys: list[str]) -> list[Any]:
        """
        Get values.
        """
        return [self.ask("GET", key) for key in keys]

    def subscribed(self, channel: str, message: str) -> Any:
        """
        Deliver a message.
        """
        return message.encode()


class WorkerTests(SynchronousTestCase):
    """
    Tests that the load notices mistakes.
    """

    def setUp(self) -> None:
        """
        Let a worker do many steps.
        """
        self.store = FakeStore()
        self.end = threading.Event()
        self.worker = Worker(1, self.store, self.end)
        self.steps(300)
        self.assertEqual((self.worker.wrong, self.worker.lost, self.worker.stuck), ([], [], 0))

    def steps(self, count: int) -> None:
        """
        Do steps.
        """
        for _ in range(count):
            self.worker.step()

    def test_lost(self) -> None:
        """
        Writes that are undone are lost.
        """
        before = dict(self.store.data)
        self.steps(100)
        self.store.data = before
        self.steps(300)
        self.assertEqual(self.worker.wrong, [])
        self.assertGreater(len(self.worker.lost), 1)
        self.assertLess(max(self.worker.lost), time.monotonic())

    def test_crossed(self) -> None:
        """
        The value of another client is wrong.
        """
        self.store.data = dict.fromkeys(self.store.data, "<2.1>") | {"count:1": "1000000"}
        self.steps(300)
        self.assertTrue(any("is <2.1>" in wrong for wrong in self.worker.wrong))
        self.assertTrue(any("INCR is 1000001" in wrong for wrong in self.worker.wrong))

    def test_message(self) -> None:
        """
        So is the message of another client.
        """
        self.store.subscribed = lambda channel, message: b"<2.1>"  # type: ignore[method-assign]
        self.steps(300)
        self.assertTrue(any("message: b'<2.1>'" in wrong for wrong in self.worker.wrong))


class ClusterEveningTests(SynchronousTestCase):
    """
    A cluster of three primaries and three replicas. Slots move, a node joins and leaves, a primary is killed, another
    one hangs.
    """

    skip = missing("redis-server") or (None if find_spec("redis") else "redis-py is not installed")

    def setUp(self) -> None:
        """
        Start all processes, and the load.
        """
        self.cluster = Cluster(3, 1).start()
        self.addCleanup(self.cluster.stop)
        self.console = str(self.cluster.nodes[0].directory / "admin.sock")
        options = (
            "--protocol", "redis", "--pool-size", "12", "--connect-timeout", "1", "--request-timeout", "2",
            "--admin", f"unix:{self.console}",
        )  # fmt: skip
        self.proxy = Proxy(*options, upstream=[f"cluster:{self.cluster.seeds}"]).start()
        self.addCleanup(self.proxy.stop)
        self.end = threading.Event()
        self.workers = [Worker(number, PlainStore(self.proxy.address), self.end) for number in range(CLIENTS)]
        port = self.cluster.nodes[0].port
        self.native = [Worker(CLIENTS + number, NativeStore(HOST, port), self.end) for number in range(NATIVE)]
        for worker in self.workers + self.native:
            worker.start()
        self.addCleanup(self.finish)

    def finish(self) -> None:
        """
        End the load.
        """
        self.end.set()
        for worker in self.workers + self.native:
            worker.join(2 * PATIENCE)

    def proceed(self, what: str) -> None:
        """
        Wait until each client of the proxy has done some steps.
        """
        before = [worker.answered for worker in self.workers]
        until(
            lambda: all(worker.answered >= count + STEPS for worker, count in zip(self.workers, before, strict=True)),
            PATIENCE,
            f"the work of all clients after {what}",
        )

    def answered(self) -> int:
        """
        @return: the number of steps of all clients of the proxy.
        """
        return sum(worker.answered for worker in self.workers)

    def move(self, slots: Sequence[int], target: Node) -> None:
        """
        Move slots, and stop for a while half way.
        """
        source = self.cluster.beginMigration(slots, target)
        self.cluster.moveKeys(slots, source, target, most=1)
        # Some requests for several keys cannot be served until the slot has moved.
        enough = self.answered() + STEPS * CLIENTS
        until(lambda: self.answered() >= enough, PATIENCE, "the work of clients during a migration")
        self.cluster.finishMigration(slots, source, target)

    def slots(self, owner: Node) -> list[int]:
        """
        @return: those slots of a node that the load uses.
        """
        used = {slotOf(key.encode()) for worker in self.workers for key in worker.keys + worker.tagged}
        return sorted(used.intersection(self.cluster.slots(owner)))

    def test_evening(self) -> None:
        """
        No client gets a wrong reply or another client's, or waits for ever, or sees a redirect. No write is lost that
        was confirmed before the first primary failed: until then Redis itself loses none.
        """
        self.proceed("the start")
        self.moving()
        self.joining()
        calm = [dict(worker.errors) for worker in self.workers]
        began = time.monotonic()
        for primary in self.cluster.primaries():
            self.cluster.untilReplicated(primary)
        self.failing()
        self.finish()
        everybody = self.workers + self.native
        self.assertEqual([worker for worker in everybody if worker.is_alive()], [])
        for name, workers in (("the proxy", self.workers), ("redis-py", self.native)):
            answered, lost = sum(worker.answered for worker in workers), sum(len(worker.lost) for worker in workers)
            log.msg(f"clients of {name}: {answered} steps, {lost} confirmed writes lost")
        self.assertEqual([wrong for worker in self.workers for wrong in worker.wrong], [])
        self.assertEqual([worker.stuck for worker in self.workers], [0] * CLIENTS)
        self.assertEqual([when for worker in everybody for when in worker.lost if when < began], [])
        redirects = [
            (step, text)
            for errors in calm
            for step, text in errors
            if step in REDIRECTED and text.startswith(("MOVED", "ASK", "CLUSTERDOWN"))
        ]
        self.assertEqual(redirects, [])
        self.shown()

    def shown(self) -> None:
        """
        The console shows the nodes of the cluster as they are.
        """
        primaries = {f"tcp:{HOST}:{node.port}": len(self.cluster.slots(node)) for node in self.cluster.primaries()}

        def agrees() -> bool:
            found = {row["node"]: int(row["slots"]) for row in rows(self.console, "slots") if row["role"] == "primary"}
            return found == primaries

        until(agrees, 2 * PATIENCE, "the proxy shows the slots of all primaries")
        of = {row["of"] for row in rows(self.console, "slots") if row["role"] == "replica"}
        self.assertLessEqual(of, {name.removeprefix("tcp:") for name in primaries})

    def moving(self) -> None:
        """
        Slots move to another node and back.
        """
        one, two, _ = self.cluster.primaries()
        slots = self.slots(one)
        self.move(slots, two)
        self.proceed("a migration")
        self.move(slots, one)

    def joining(self) -> None:
        """
        A node joins, gets slots, and leaves.
        """
        joined = self.cluster.addNode()
        two = self.cluster.primaries()[1]
        slots = self.slots(two)
        self.move(slots, joined)
        self.proceed("a migration to a new node")
        self.cluster.migrate(slots, two)
        self.cluster.removeNode(joined)
        self.proceed("the end of a node")

    def failing(self) -> None:
        """
        A primary is killed, another one hangs. Each comes back as a replica.
        """
        self.cluster.setNodeTimeout(1500)
        one, two, _ = self.cluster.primaries()
        one.kill()
        self.cluster.untilReplaced(one)
        one.start()
        self.proceed("the failover of a primary that was killed")
        self.cluster.untilConsistent()
        two.freeze()
        self.cluster.untilReplaced(two)
        self.proceed("the failover of a primary that hangs")
        two.thaw()
        self.cluster.untilConsistent()
        self.proceed("the return of a primary that hung")
