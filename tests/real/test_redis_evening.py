# Copyright txconnpool contributors. See LICENSE.
"""
All that happens to a Redis Cluster, or to Redis servers with a sentinel, one after another, while clients of the proxy
work.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Sequence
from importlib.util import find_spec
from math import inf
from typing import Any

from twisted.python import log
from twisted.trial.unittest import SynchronousTestCase

from tests.real.clusterload import Failed, NativeStore, PlainStore, Worker
from tests.real.operated import execute, rows
from tests.real.rediscluster import PATIENCE, Cluster, Node, slotOf
from tests.real.resp import Client
from tests.real.servers import HOST, Proxy, Redis, Sentinel, clientEndpoint, missing, until
from tests.real.watched import Watched

#: Seconds after which the sentinel has begun a failover, or given it up.
AGAIN = 10.0

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

    def test_returned(self) -> None:
        """
        Writes to a master are lost too if the master before it becomes the master again, with its old values.
        """
        before = dict(self.store.data)
        self.steps(100)
        predecessor, self.store.data = self.store.data, before
        self.steps(10)
        self.store.data = predecessor
        self.steps(300)
        self.assertEqual(self.worker.wrong, [])
        self.assertGreater(len(self.worker.lost), 1)

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


class WatchingStore(PlainStore):
    """
    Redis for one client that watches keys.
    """

    def watched(self, key: str, value: str) -> Any:
        """
        Read a key, and set it unless another client has done so meanwhile.

        @return: the old value, and the reply to C{EXEC}.
        """

        def do(client: Client) -> Any:
            client.ask("WATCH", key)
            old = client.ask("GET", key)
            client.ask("MULTI")
            client.ask("SET", key, value)
            return old, client.ask("EXEC")

        return self._do(do, True)


class WatchingWorker(Worker):
    """
    A client that watches keys, too, and comes and goes.
    """

    def __init__(self, number: int, store: WatchingStore, end: threading.Event) -> None:
        super().__init__(number, store, end)
        self._steps = [*self._steps, self._watch]

    def step(self) -> None:
        """
        Do a step, and sometimes make another connection.
        """
        self._try(self._chance.choices(self._steps, (6, 6, 3, 3, 6, 3, 3, 2, 3))[0])
        if self._chance.random() < 0.05:
            self.store.close()

    def _watch(self) -> None:
        key, value = self._chance.choice(self.tagged), self._value()

        def do() -> Any:
            old, reply = self.store.watched(key, value)
            self._read(key, old)
            if reply is None:
                raise Failed("the key was changed")  # by an earlier request of this client, which has failed
            return reply

        self._check("EXEC", self._write({key: value}, do), [b"OK"])


class SentinelEveningTests(Watched, SynchronousTestCase):
    """
    A master and two replicas that a sentinel watches. The proxy reloads its settings, the server is drained, a replica
    takes over in turn because of an operator, of a master that is killed, and of one that hangs.
    """

    skip = missing("redis-server")

    def setUp(self) -> None:
        """
        Start all processes, and the load.
        """
        # The next failover of a group may be soon after the last one.
        line = self.watch(2, "sentinel failover-timeout cache 1000")
        self.servers = [self.master, *self.replicas]
        directory = self.master.directory
        self.console, self.ini = str(directory / "admin.sock"), directory / "connpool.ini"
        self.configure(4)
        times = ("--connect-timeout", "4", "--request-timeout", "4", "--wait-timeout", "30")
        options = ("--config", str(self.ini), *times, "--max-pinned", "12")
        self.proxy = self.start(
            Proxy("--protocol", "redis", "--admin", f"unix:{self.console}", *options, upstream=[line])
        )
        self.end = threading.Event()
        self.workers = [
            WatchingWorker(number, WatchingStore(self.proxy.address), self.end) for number in range(CLIENTS)
        ]
        until(lambda: self.named() == [clientEndpoint(self.master.address)], what="the master")
        for worker in self.workers:
            worker.start()
        self.addCleanup(self.finish)

    def configure(self, poolSize: int) -> None:
        """
        Write the settings.
        """
        self.ini.write_text(f"[pool:default]\npool-size = {poolSize}\n")

    def finish(self) -> None:
        """
        End the load.
        """
        self.end.set()
        for worker in self.workers:
            worker.join(2 * PATIENCE)

    def named(self) -> list[str]:
        """
        @return: the servers of the proxy: the master.
        """
        return [row["server"] for row in rows(self.console, "servers")]

    def proceed(self, what: str) -> None:
        """
        Wait until each client has done some steps.
        """
        before = [worker.answered for worker in self.workers]
        until(
            lambda: all(worker.answered >= count + STEPS for worker, count in zip(self.workers, before, strict=True)),
            PATIENCE,
            f"the work of all clients after {what}",
        )

    def errors(self) -> list[Counter[tuple[str, str]]]:
        """
        @return: the errors of all clients so far.
        """
        return [Counter(worker.errors) for worker in self.workers]

    def present(self) -> Redis:
        """
        @return: the master.
        """
        (name,) = self.named()
        found: dict[str, Redis] = {clientEndpoint(server.address): server for server in self.servers}
        return found[name]

    def replaced(self, old: Redis, what: str) -> None:
        """
        Wait until another server is the master, and the clients work.
        """
        until(lambda: self.present() is not old, 2 * PATIENCE, f"another master after {what}")
        self.proceed(what)

    def failOver(self) -> None:
        """
        Let the sentinel make another server the master. It gives up if the replica is too slow for it, which it may be
        on a busy machine, so it is asked again.
        """
        old, asked = self.present(), -inf
        with Client(self.sentinel.address) as direct:

            def isReplaced() -> bool:
                nonlocal asked
                if self.present() is not old:
                    return True
                if time.monotonic() > asked + AGAIN:
                    asked = time.monotonic()
                    direct.result("SENTINEL", "FAILOVER", "cache")  # an error while it is doing so
                return False

            until(isReplaced, 2 * PATIENCE, "another master after a failover")
        self.proceed("a failover")

    def failovers(self) -> int:
        """
        @return: how many there were. On a slow machine the sentinel may begin one by itself.
        """
        with Client(self.sentinel.address) as direct:
            reply = direct.ask("SENTINEL", "MASTER", "cache")
        return int(dict(zip(reply[::2], reply[1::2], strict=True))[b"config-epoch"])

    def follow(self, least: int) -> None:
        """
        Wait until replicas follow the master, so that the sentinel can choose one.
        """
        with Client(self.sentinel.address) as direct:
            until(lambda: self._linked(direct) >= least, 2 * PATIENCE, "replicas")

    def test_evening(self) -> None:
        """
        No client gets a wrong reply or another client's, or waits for ever. No request fails because of a reload. No
        write, and no element of a list, is lost that was confirmed before the first failover or after the last one:
        what a failover loses was not replicated yet, and is counted.
        """
        self.proceed("the start")
        self.configure(6)
        self.assertIn("OK", execute(self.console, "reload"))
        self.proceed("a reload")
        if not self.failovers():
            self.assertEqual(self.errors(), [Counter()] * CLIENTS)
        self.draining()
        began = 0.0 if self.failovers() else time.monotonic()
        self.failOver()
        self.follow(1)
        killed = self.present()
        self.failAfter(500)
        killed.kill()
        self.replaced(killed, "the end of a master")
        self.failAfter(Sentinel.downAfter)
        killed.start()
        self.follow(1)
        frozen = self.present()
        self.failAfter(500)
        frozen.freeze()
        self.replaced(frozen, "a master that hangs")
        self.failAfter(Sentinel.downAfter)
        frozen.thaw()
        self.follow(2)
        count, ended = -1, 0.0
        while count != self.failovers():
            count, ended = self.failovers(), time.monotonic()
            self.proceed("the return of all servers")
        self.finish()
        self.assertEqual([worker for worker in self.workers if worker.is_alive()], [])
        answered, lost = (
            sum(worker.answered for worker in self.workers),
            sum(len(worker.lost) for worker in self.workers),
        )
        log.msg(f"clients of the proxy: {answered} steps, {lost} confirmed writes lost by failovers")
        self.assertEqual([wrong for worker in self.workers for wrong in worker.wrong], [])
        self.assertEqual([worker.stuck for worker in self.workers], [0] * CLIENTS)
        self.assertEqual([when for worker in self.workers for when in worker.lost if not began < when < ended], [])

    def draining(self) -> None:
        """
        The server is drained: requests fail at once until it is restored.
        """
        server = clientEndpoint(self.master.address)
        before = self.errors()
        self.assertIn(f"OK {server} drained", execute(self.console, f"drain {server}"))
        until(lambda: all(now != then for now, then in zip(self.errors(), before, strict=True)), what="errors")
        execute(self.console, f"restore {server}")
        self.proceed("a drain")
