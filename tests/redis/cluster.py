# Copyright txconnpool contributors. See LICENSE.
"""
A cluster of nodes in memory, and test cases with a client of it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.trial.unittest import SynchronousTestCase

from txconnpool.redis import RedisPool
from txconnpool.redis.memory.data import OK, ReplyError
from txconnpool.redis.memory.server import RedisConnection, RedisFactory
from txconnpool.routing.cluster.line import ClusterLine
from txconnpool.testing import FakeRedis, FakeServer, SteppingClock, finish
from txconnpool.wire.redis.commands import RedisCommand
from txconnpool.wire.topology import SLOTS, Node, slotOf


class FakeSource:
    """
    A source of servers, whose answers the test gives.

    @ivar line: its line.
    @ivar hurried: how often the servers were looked for again.
    """

    login: Any = None
    replicas = False

    def __init__(self, line: str, reactor: Any) -> None:
        self.line = line
        self.hurried = 0
        self.changed: Callable[[Any], object] | None = None
        self._waiting: list[Deferred[Any]] = []

    def start(self, changed: Callable[[Any], object]) -> None:
        self.changed = changed

    def stop(self) -> None:
        self.changed = None
        waiting, self._waiting = self._waiting, []
        for each in waiting:
            each.errback(CancelledError())

    def hurry(self) -> None:
        self.hurried += 1

    def lookUp(self) -> Deferred[Any]:
        self._waiting.append(Deferred())
        return self._waiting[-1]

    def answer(self, result: Any) -> None:
        """
        End a lookup.
        """
        if not isinstance(result, Exception) and self.changed is not None:
            self.changed(result)
        waiting, self._waiting = self._waiting, []
        for each in waiting:
            each.errback(result) if isinstance(result, Exception) else each.callback(result)


class NodeConnection(RedisConnection):
    """
    A connection to a node.
    """

    node: FakeNode
    asking = False
    reading = False

    def _answer(self, words: list[bytes]) -> Any:
        words = [words[0].upper(), *words[1:]]
        self.node.asked.append(b" ".join(words))
        if words[0] == b"CLUSTER":
            return self.node.cluster.shards()
        if words[0] == b"FLUSHDB" and self.node.readOnly:
            return ReplyError("READONLY You can't write against a read only replica.")
        if words[0] == b"ROLE":
            return [self.node.role(), 0, []]
        if words[0] in (b"ASKING", b"READONLY"):
            self.asking, self.reading = words[0] == b"ASKING" or self.asking, words[0] == b"READONLY" or self.reading
            return OK
        try:
            return super()._answer(words)
        finally:
            self.asking = self.asking and self._queue is not None

    def _find(self, words: list[bytes]) -> RedisCommand:
        command = super()._find(words)
        if self.node.errors and command.keysOf(words):
            raise ReplyError(self.node.errors.pop(0))
        for key in command.keysOf(words):
            self._check(command, key)
        return command

    def _check(self, command: RedisCommand, key: bytes) -> None:
        cluster, slot = self.node.cluster, slotOf(key)
        owner = cluster.owners[slot]
        target = cluster.moving.get(slot)
        if target is self.node and self.asking:
            return
        if owner is not self.node:
            if self.reading and self.node.primary is owner and command.idempotent:
                return
            raise ReplyError(f"MOVED {slot} {owner.node.host}:{owner.node.port}")
        if target is not None and key not in self.node.data.items:
            raise ReplyError(f"ASK {slot} {target.node.host}:{target.node.port}")


class FakeNode(FakeRedis):
    """
    A node.

    @ivar primary: the primary of a replica, whose data it has, or C{None}.
    @ivar asked: all requests.
    @ivar errors: the errors of the next requests with keys.
    @ivar role: returns its role, as C{ROLE} has it.
    @ivar readOnly: whether it has become a replica, and executes no C{FLUSHDB}.
    """

    readOnly = False

    def __init__(self, cluster: FakeCluster, node: Node, primary: FakeNode | None = None) -> None:
        super().__init__(cluster.clock)
        self.cluster = cluster
        self.node = node
        self.primary = primary
        if primary is not None:
            self.data = primary.data
        self.asked: list[bytes] = []
        self.errors: list[str] = []
        self.role: Callable[[], bytes] = lambda: b"master" if primary is None else b"slave"
        FakeServer.__init__(self, cluster.clock, _Factory(self))

    def __repr__(self) -> str:
        return f"{self.node.host}:{self.node.port}"

    def keyed(self, *names: bytes) -> list[bytes]:
        """
        @return: the requests with some names.
        """
        return [each for each in self.asked if each.split()[0] in names]


class _Factory(RedisFactory):
    def __init__(self, node: FakeNode) -> None:
        super().__init__(node.data, node.cluster.clock)
        self._node = node

    def buildProtocol(self, addr: Any) -> Any:
        connection = NodeConnection(self._node.data, self._node.cluster.clock)
        connection.node = self._node
        return connection


class FakeCluster:
    """
    Some primaries, each with some replicas, which have the same numbers of slots.

    @ivar owners: the primary of each slot.
    @ivar moving: the nodes to which slots are being moved.
    """

    def __init__(self, clock: SteppingClock, primaries: int = 2, replicas: int = 0) -> None:
        self.clock = clock
        self.primaries = [FakeNode(self, Node(f"p{number}", 7000)) for number in range(primaries)]
        self.replicas = [
            FakeNode(self, Node(f"r{number}{index}", 7000), primary)
            for number, primary in enumerate(self.primaries)
            for index in range(replicas)
        ]
        self.owners = [self.primaries[slot * primaries // SLOTS] for slot in range(SLOTS)]
        self.moving: dict[int, FakeNode] = {}
        self.nodes = {each.node: each for each in (*self.primaries, *self.replicas)}

    def shards(self) -> list[Any]:
        """
        @return: the reply to C{CLUSTER SHARDS}.
        """
        found = []
        for primary in self.primaries:
            slots = [slot for slot in range(SLOTS) if self.owners[slot] is primary]
            ranges: list[int] = []
            for slot in slots:
                if ranges and ranges[-1] == slot - 1:
                    ranges[-1] = slot
                else:
                    ranges += [slot, slot]
            rows = [self._row(primary, b"master")]
            rows += [self._row(each, b"replica") for each in self.replicas if each.primary is primary]
            found.append([b"slots", ranges, b"nodes", rows])
        return found

    @staticmethod
    def _row(each: FakeNode, role: bytes) -> list[Any]:
        host = each.node.host.encode()
        return [b"port", each.node.port, b"ip", host, b"endpoint", host, b"role", role, b"health", b"online"]

    def keyOf(self, primary: int, name: str = "") -> str:
        """
        @return: a key of a primary.
        """
        names = (f"{name}{number}" for number in range(10000))
        return next(each for each in names if self.owners[slotOf(each.encode())] is self.primaries[primary])

    def move(self, key: str, primary: int) -> None:
        """
        Move the slot of a key with all of its keys.
        """
        slot = slotOf(key.encode())
        source, target = self.owners[slot], self.primaries[primary]
        for each in [each for each in source.data.items if slotOf(each) == slot]:
            target.data.items[each] = source.data.items.pop(each)
        self.owners[slot] = target
        self.moving.pop(slot, None)


class ClusterTestCase(SynchronousTestCase):
    """
    A client of a cluster.
    """

    settings: dict[str, Any] = {}
    primaries = 2
    replicas = 0

    def setUp(self) -> None:
        self.clock = SteppingClock()
        self.cluster = FakeCluster(self.clock, self.primaries, self.replicas)
        self.patch(ClusterLine, "endpoint", lambda line, node: self.cluster.nodes[node])
        self.pool: RedisPool[bytes] = RedisPool("cluster:p0:7000", reactor=self.clock, **self.settings)
        self.addCleanup(finish, self.pool)

    def result(self, answer: Any) -> Any:
        answer = answer if isinstance(answer, Deferred) else Deferred.fromCoroutine(answer)
        self.clock.advance(0)
        return self.successResultOf(answer)

    def fails(self, answer: Any, kind: type[Exception]) -> str:
        answer = answer if isinstance(answer, Deferred) else Deferred.fromCoroutine(answer)
        self.clock.advance(0)
        return str(self.failureResultOf(answer, kind).value)
