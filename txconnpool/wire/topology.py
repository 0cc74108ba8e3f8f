# -*- test-case-name: tests.wire.redis.test_topology -*-
# Copyright txconnpool contributors. See LICENSE.
"""
What the nodes of a cluster report about it: which of them has which keys, in replies and in redirects.

The keys of a cluster are divided into I{slots}. A I{shard} is a primary, which has some slots, with its replicas.
"""

from __future__ import annotations

from binascii import crc_hqx
from typing import Any, NamedTuple

#: The number of slots of a cluster.
SLOTS = 16384


class Node(NamedTuple):
    """
    A node of a cluster.

    @ivar host: its host name or IP address; empty: that of the node that reported it.
    @ivar port: its port.
    """

    host: str
    port: int


class Shard(NamedTuple):
    """
    A primary with its replicas.

    @ivar slots: the first and the last slot of each range that the primary has, in any order.
    @ivar primary: the primary.
    @ivar replicas: the replicas that can serve requests.
    """

    slots: tuple[tuple[int, int], ...]
    primary: Node
    replicas: tuple[Node, ...] = ()


class Redirect(bytes):
    """
    The error with which a node says that it has not executed a request, because another node has the key, or because
    the key cannot be served now. The bytes are the reply.

    @ivar node: the node to which the request is to be sent instead; C{None}: the same again, later.
    @ivar slot: the slot of that node, as the reply says.
    @ivar once: whether only this request is for that node, because the slot is being moved there.
    @ivar command: the command of the request.
    @ivar request: the request.
    @ivar since: when the request was sent, in seconds of the clock of the connection.
    """

    node: Node | None
    slot: int
    once: bool
    command: Any
    request: bytes
    since = 0.0

    def __new__(
        cls, reply: bytes, command: Any, request: bytes, node: Node | None = None, slot: int = -1, once: bool = False
    ) -> Redirect:
        """
        The parameters are the attributes.
        """
        self = super().__new__(cls, reply)
        self.command = command
        self.request = request
        self.node = node
        self.slot = slot
        self.once = once
        return self


def slotOf(key: bytes) -> int:
    """
    @return: the slot of a key: CRC16 (XMODEM) of what is between the first C{{} and the first C{}} after it, if that is
        not empty, or of the whole key (C{keyHashSlot} of Redis).
    """
    start = key.find(b"{")
    if start >= 0:
        end = key.find(b"}", start + 1)
        if end > start + 1:
            key = key[start + 1 : end]
    return crc_hqx(key, 0) % SLOTS
