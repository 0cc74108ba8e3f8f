# -*- test-case-name: tests.proxy.test_clustering -*-
# Copyright txconnpool contributors. See LICENSE.
"""
A fake Redis cluster for tests of the proxy: nodes that redirect requests as those of Redis do.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.task import Clock

from tests.redisserver import RedisLine, RedisServer, bulk
from txconnpool.wire.topology import SLOTS, Node, slotOf

CROSS_SLOT = b"-CROSSSLOT Keys in request don't hash to the same slot\r\n"
READ_ONLY = b"-READONLY You can't write against a read only replica.\r\n"
TRY_AGAIN = b"-TRYAGAIN Multiple keys request during rehashing of slot\r\n"

#: The positions of the keys of commands.
_KEYS = {
    b"GET": slice(1, 2), b"SET": slice(1, 2), b"INCR": slice(1, 2), b"MGET": slice(1, None), b"DEL": slice(1, None),
    b"MSET": slice(1, None, 2), b"MSETNX": slice(1, None, 2), b"EVAL": slice(3, 4), b"BLPOP": slice(1, -1),
    b"WATCH": slice(1, None), b"SSUBSCRIBE": slice(1, None), b"SUNSUBSCRIBE": slice(1, None),
}  # fmt: skip


class ClusterLine(RedisLine):
    """
    A connection to a node.
    """

    server: ClusterNode
    _mark = b"*"

    def __init__(self, clock: Clock) -> None:
        super().__init__(clock)
        self._asking = False
        self._reads = False
        self._dirty = False
        self.channels: list[bytes] = []

    def _subscribe(self, channel: bytes) -> bytes:
        self.channels.append(channel)
        return self._mark + b"3\r\n$10\r\nssubscribe\r\n%b:%d\r\n" % (bulk(channel), len(self.channels))

    def _unsubscribe(self, channel: bytes) -> bytes:
        if channel in self.channels:
            self.channels.remove(channel)
        return self._mark + b"3\r\n$12\r\nsunsubscribe\r\n%b:%d\r\n" % (bulk(channel), len(self.channels))

    def publish(self, channel: bytes, message: bytes) -> None:
        """
        Send a message, if the client is subscribed to the channel.
        """
        if self.connected and channel in self.channels:
            self.owed += self._mark + b"3\r\n$8\r\nsmessage\r\n" + bulk(channel) + bulk(message)

    def leave(self, slot: int) -> None:
        """
        The node has lost a slot, as C{removeChannelsInSlot} of Redis.
        """
        for channel in [each for each in self.channels if slotOf(each) == slot]:
            self.owed += self._unsubscribe(channel)

    def _answer(self, words: list[bytes]) -> bytes:
        asking, self._asking = self._asking, False
        if words[0] == b"ASKING":
            self._asking = True
            return b"+OK\r\n"
        if words[0] == b"READONLY":
            self._reads = True
            return b"+OK\r\n"
        keys = words[_KEYS[words[0]]] if words[0] in _KEYS else []
        refusal = self.server.refusal(keys, asking, self._reads and words[0] in (b"GET", b"MGET")) if keys else b""
        if refusal:
            self._dirty = self.transaction is not None
            return refusal
        if words[0] == b"EXEC" and self._dirty:
            self._dirty, self.transaction = False, None
            return b"-EXECABORT Transaction discarded because of previous errors.\r\n"
        return super()._answer(words)

    def _execute(self, words: list[bytes]) -> bytes:
        name, *rest = words
        data = self.server.data.setdefault(b"0", {})
        if name == b"CLUSTER":
            return self.server.cluster.shards()
        if name == b"FLUSHALL":
            if self.server.primary is not None:
                return READ_ONLY
            data.clear()
            return b"+OK\r\n"
        if name == b"INCR":
            data[rest[0]] = b"%d" % (int(data.get(rest[0], b"0")) + 1)
            return b":%b\r\n" % data[rest[0]]
        if name == b"EVAL":
            return rest[0] + b"\r\n"
        if name in (b"WATCH", b"UNWATCH"):
            return b"+OK\r\n"
        if name == b"HELLO":
            self._mark = b">"
            return b"%1\r\n+proto\r\n:3\r\n"
        if name == b"SSUBSCRIBE":
            return b"".join(map(self._subscribe, rest))
        if name == b"SUNSUBSCRIBE":
            return b"".join(map(self._unsubscribe, rest))
        if name == b"MSETNX":
            data.update(zip(rest[::2], rest[1::2], strict=True))
            return b":1\r\n"
        return super()._execute(words)


class ClusterNode(RedisServer):
    """
    A node.

    @ivar cluster: its cluster.
    @ivar node: its address.
    @ivar says: what it answers to all requests with keys, if it is not empty.
    @ivar primary: the primary of a replica.
    """

    kind = ClusterLine

    def __init__(self, clock: Clock, cluster: FakeCluster, number: int) -> None:
        super().__init__(clock, f"node{number}")
        self.cluster = cluster
        self.node = Node(f"node{number}", 6379)
        self.says = b""
        self.primary: ClusterNode | None = None

    def follow(self, primary: ClusterNode) -> None:
        """
        Become a replica.
        """
        self.primary = primary
        self.data = primary.data

    def refusal(self, keys: list[bytes], asking: bool, reads: bool) -> bytes:
        """
        @param reads: whether a replica may execute it.

        @return: the error with which the node does not execute a request; empty if it does.
        """
        if self.says:
            return self.says
        cluster, keys = self.cluster, list(dict.fromkeys(keys))
        slots = {slotOf(key) for key in keys}
        if len(slots) > 1:
            return CROSS_SLOT
        [slot] = slots
        owner, target = cluster.owners[slot], cluster.migrating.get(slot)
        here = sum(key in self.data.setdefault(b"0", {}) for key in keys)
        if owner is not self:
            if reads and owner is self.primary:
                return b""
            if target is self and asking:
                return TRY_AGAIN if len(keys) > 1 and here < len(keys) else b""
            return b"-MOVED %d %b:%d\r\n" % (slot, owner.name.encode(), owner.node.port)
        if target is not None and here < len(keys):
            return TRY_AGAIN if here else b"-ASK %d %b:%d\r\n" % (slot, target.name.encode(), target.node.port)
        return b""


class FakeCluster:
    """
    A cluster.

    @ivar nodes: the primaries.
    @ivar replicas: the replicas.
    @ivar owners: the node that has each slot.
    @ivar migrating: the node to which a slot is being moved.
    @ivar told: the owners that the cluster reports; C{None}: the real ones.
    """

    def __init__(self, clock: Clock, count: int = 3) -> None:
        self._clock = clock
        self.nodes = [ClusterNode(clock, self, number) for number in range(count)]
        self.owners = [self.nodes[slot * count // SLOTS] for slot in range(SLOTS)]
        self.migrating: dict[int, ClusterNode] = {}
        self.replicas: list[ClusterNode] = []
        self.told: list[ClusterNode] | None = None

    def replicate(self) -> None:
        """
        Give each primary a replica.
        """
        for primary in self.nodes:
            replica = ClusterNode(self._clock, self, len(self.nodes) + len(self.replicas))
            replica.follow(primary)
            self.replicas.append(replica)

    def failOver(self, replica: ClusterNode) -> ClusterNode:
        """
        Let a replica and its primary change their roles.

        @return: the node that was the primary.
        """
        primary = replica.primary
        assert primary is not None
        self.owners = [replica if each is primary else each for each in self.owners]
        self.nodes[self.nodes.index(primary)] = replica
        self.replicas[self.replicas.index(replica)] = primary
        replica.primary = None
        primary.follow(replica)
        return primary

    def replica(self, key: bytes) -> ClusterNode:
        """
        @return: the replica of the node of a key.
        """
        return next(each for each in self.replicas if each.primary is self.owner(key))

    def owner(self, key: bytes) -> ClusterNode:
        """
        @return: the node of a key.
        """
        return self.owners[slotOf(key)]

    def other(self, key: bytes) -> ClusterNode:
        """
        @return: another node.
        """
        return self.nodes[(self.nodes.index(self.owner(key)) + 1) % len(self.nodes)]

    def begin(self, slot: int, target: ClusterNode) -> None:
        """
        Begin to move a slot.
        """
        if self.owners[slot] is not target:
            self.migrating[slot] = target

    def moveKey(self, key: bytes) -> None:
        """
        Move a key of a slot that is being moved.
        """
        slot = slotOf(key)
        here = self.owners[slot].data.setdefault(b"0", {})
        if slot in self.migrating and key in here:
            self.migrating[slot].data.setdefault(b"0", {})[key] = here.pop(key)

    def finish(self, slot: int) -> None:
        """
        Move the rest of a slot.
        """
        target = self.migrating.get(slot)
        if target is not None:
            for key in list(self.owners[slot].data.setdefault(b"0", {})):
                if slotOf(key) == slot:
                    self.moveKey(key)
            lines: list[Any] = self.owners[slot].lines
            for line in lines:
                line.leave(slot)
            self.owners[slot] = target
            del self.migrating[slot]

    def move(self, key: bytes) -> ClusterNode:
        """
        Move the slot of a key to another node.

        @return: the node.
        """
        target = self.other(key)
        self.begin(slotOf(key), target)
        self.finish(slotOf(key))
        return target

    def shards(self) -> bytes:
        """
        @return: the reply to CLUSTER SHARDS.
        """
        owners = self.owners if self.told is None else self.told
        rows = []
        for node in self.nodes:
            bounds: list[int] = []
            for slot, owner in enumerate(owners):
                if owner is node:
                    if bounds and bounds[-1] == slot - 1:
                        bounds[-1] = slot
                    else:
                        bounds += [slot, slot]
            nodes = [_described(each) for each in (node, *self.replicas) if each is node or each.primary is node]
            slots = b"*%d\r\n" % len(bounds) + b"".join(b":%d\r\n" % each for each in bounds)
            rows.append(b"*4\r\n" + bulk(b"slots") + slots + bulk(b"nodes") + _array(nodes))
        return _array(rows)


def _array(items: list[bytes]) -> bytes:
    return b"*%d\r\n" % len(items) + b"".join(items)


def _described(node: ClusterNode) -> bytes:
    """
    @return: a node in the reply to CLUSTER SHARDS.
    """
    name, role = node.name.encode(), b"replica" if node.primary else b"master"
    pairs = {b"endpoint": name, b"ip": name, b"role": role, b"health": b"online"}
    words = [bulk(word) for pair in pairs.items() for word in pair]
    return _array([*words, bulk(b"port"), b":%d\r\n" % node.node.port])


def keysOf(count: int, prefix: str = "k") -> list[Any]:
    """
    @return: keys in different slots.
    """
    found: dict[int, str] = {}
    number = 0
    while len(found) < count:
        found.setdefault(slotOf(f"{prefix}{number}".encode()), f"{prefix}{number}")
        number += 1
    return list(found.values())
