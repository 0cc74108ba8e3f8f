# -*- test-case-name: tests.wire.redis.test_announced -*-
# Copyright txconnpool contributors. See LICENSE.
"""
The replies to clients of a cluster: the proxies that they may connect to are its only nodes.

Several proxies share the slots in equal parts, in the order of their addresses. All compute the same identifiers from
these, so the clients of all proxies see one cluster. The replies have the form of Redis 7.0.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from hashlib import sha1
from typing import Final

from txconnpool.wire.redis import answers
from txconnpool.wire.topology import SLOTS, slotOf

#: A host and a port.
Place = tuple[str, int]


class Nodes:
    """
    The nodes that a client sees.
    """

    def __init__(self, places: Sequence[Place], here: Place | None) -> None:
        """
        @param places: the addresses of all proxies. If empty, there is one, at C{here}.
        @param here: where the client has connected to; C{None}: not by TCP. This node calls itself C{myself}; if it is
            none of C{places}, the first one does.
        """
        self._places = sorted(places) if places or here is None else [here]
        self._me = self._places.index(here) if here is not None and here in self._places else 0

    def id(self, index: int) -> bytes:
        """
        @return: the identifier of a node: 40 hexadecimal digits.
        """
        host, port = self._places[index]
        return sha1(f"{host}:{port}".encode(), usedforsecurity=False).hexdigest().encode()

    def slots(self, index: int) -> tuple[int, int]:
        """
        @return: the first and last slot of a node.
        """
        size = len(self._places)
        return SLOTS * index // size, SLOTS * (index + 1) // size - 1

    # -- Replies, by the name of the subcommand

    def replySlots(self, version: int, words: Sequence[bytes]) -> bytes:
        """
        @return: the reply to C{CLUSTER SLOTS}.
        """
        metadata = answers.mapping(version)
        return b"*%d\r\n" % len(self._places) + b"".join(
            b"*3\r\n:%d\r\n:%d\r\n*4\r\n%b:%d\r\n%b%b"
            % (*self.slots(index), answers.bulk(host.encode()), port, answers.bulk(self.id(index)), metadata)
            for index, (host, port) in enumerate(self._places)
        )

    def replyShards(self, version: int, words: Sequence[bytes]) -> bytes:
        """
        @return: the reply to C{CLUSTER SHARDS}.
        """
        bulk = answers.bulk
        shards = []
        for index, (host, port) in enumerate(self._places):
            node = answers.mapping(
                version,
                bulk(b"id"), bulk(self.id(index)),
                bulk(b"port"), b":%d\r\n" % port,
                bulk(b"ip"), bulk(host.encode()),
                bulk(b"endpoint"), bulk(host.encode()),
                bulk(b"role"), bulk(b"master"),
                bulk(b"replication-offset"), b":0\r\n",
                bulk(b"health"), bulk(b"online"),
            )  # fmt: skip
            slots = b"*2\r\n:%d\r\n:%d\r\n" % self.slots(index)
            shards.append(answers.mapping(version, bulk(b"slots"), slots, bulk(b"nodes"), b"*1\r\n" + node))
        return b"*%d\r\n" % len(shards) + b"".join(shards)

    def replyNodes(self, version: int, words: Sequence[bytes]) -> bytes:
        """
        @return: the reply to C{CLUSTER NODES}. The nodes have no bus, so its port is 0.
        """
        lines = []
        for index, (host, port) in enumerate(self._places):
            flags = b"myself,master" if index == self._me else b"master"
            first, last = self.slots(index)
            lines.append(
                b"%b %b:%d@0 %b - 0 0 %d connected %d-%d\n"
                % (self.id(index), host.encode(), port, flags, index + 1, first, last)
            )
        return answers.verbatim(version, b"".join(lines))

    def replyMyId(self, version: int, words: Sequence[bytes]) -> bytes:
        """
        @return: the reply to C{CLUSTER MYID}.
        """
        return answers.bulk(self.id(self._me))

    def replyInfo(self, version: int, words: Sequence[bytes]) -> bytes:
        """
        @return: the reply to C{CLUSTER INFO}.
        """
        size = len(self._places)
        values = {
            "state": "ok",
            "slots_assigned": SLOTS,
            "slots_ok": SLOTS,
            "slots_pfail": 0,
            "slots_fail": 0,
            "known_nodes": size,
            "size": size,
            "current_epoch": size,
            "my_epoch": self._me + 1,
        }
        lines = "".join(f"cluster_{name}:{value}\r\n" for name, value in values.items())
        return answers.verbatim(version, lines.encode())

    def replyKeySlot(self, version: int, words: Sequence[bytes]) -> bytes:
        """
        @return: the reply to C{CLUSTER KEYSLOT}.
        """
        return b":%d\r\n" % slotOf(words[2])

    def replyReplicas(self, version: int, words: Sequence[bytes]) -> bytes:
        """
        @return: the reply to C{CLUSTER REPLICAS}: no node has any.
        """
        if words[2].lower() in map(self.id, range(len(self._places))):
            return b"*0\r\n"
        return answers.error(b"ERR Unknown node %b" % words[2])


#: The method of L{Nodes} for each command that is answered.
REPLIES: Final[Mapping[str, Callable[[Nodes, int, Sequence[bytes]], bytes]]] = {
    "cluster|slots": Nodes.replySlots,
    "cluster|shards": Nodes.replyShards,
    "cluster|nodes": Nodes.replyNodes,
    "cluster|myid": Nodes.replyMyId,
    "cluster|info": Nodes.replyInfo,
    "cluster|keyslot": Nodes.replyKeySlot,
    "cluster|replicas": Nodes.replyReplicas,
    "cluster|slaves": Nodes.replyReplicas,
}
