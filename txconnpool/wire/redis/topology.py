# -*- test-case-name: tests.wire.redis.test_topology -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Reads what the nodes of a Redis or Valkey cluster report about it: the replies to C{CLUSTER SHARDS} and
C{CLUSTER SLOTS}, and redirects.

The address of a node is what C{cluster-preferred-endpoint-type} of the servers says: an IP address, a host name, or
nothing, which stands for the host that was asked. A node that has no such name is C{?}; then its IP address is used, if
the reply has it.
"""

from __future__ import annotations

import re
from collections.abc import Generator
from typing import Any, Final

from txconnpool.errors import WireError
from txconnpool.wire import ReplyCounters
from txconnpool.wire.redis.commands import BY_NAME, RedisCommand
from txconnpool.wire.redis.framing import encode
from txconnpool.wire.redis.replyreader import ReplyReader
from txconnpool.wire.redis.values import ReplyParser
from txconnpool.wire.topology import SLOTS, Node, Redirect, Shard

#: An error that says that the request was not executed, if it is that of a plain command.
_REDIRECT: Final = re.compile(
    rb"-(?:(MOVED|ASK) ([0-9]{1,5}) ([^ \r\n]{0,255}):([0-9]{1,5})"
    rb"|(?:TRYAGAIN|CLUSTERDOWN|LOADING|MASTERDOWN) [^\r\n]*)\r\n"
).match

_CLUSTER: Final = BY_NAME["cluster|slots"]
_PARSER: Final = ReplyParser(str)


class NoTopology(WireError):
    """
    The reply of a node does not describe a cluster. The text says why.
    """


def askTopology(secure: bool) -> Generator[tuple[RedisCommand, bytes], bytes, list[Shard]]:
    """
    Ask a node for its cluster.

    @param secure: whether the ports for TLS are wanted.

    @return: a generator that yields commands and requests, and is sent their replies. It returns the shards.

    @raise NoTopology: the node does not know its cluster.
    """
    reply = yield _CLUSTER, encode([b"CLUSTER", b"SHARDS"])
    if not reply.startswith(b"-"):
        return readShards(reply, secure)
    return readSlots((yield _CLUSTER, encode([b"CLUSTER", b"SLOTS"])))  # before Redis 7.0


def readShards(reply: bytes, secure: bool = False) -> list[Shard]:
    """
    @param reply: the reply to C{CLUSTER SHARDS}, of RESP2 or RESP3.
    @param secure: whether the ports for TLS are wanted.

    @return: the shards that have a primary. Those without slots are included.

    @raise NoTopology: it is no such reply.
    """
    shards = []
    for each in _rows(reply):
        shard = _mapping(each)
        numbers = [_slot(number) for number in _list(shard.get(b"slots"))]
        primary, replicas = None, []
        for row in _list(shard.get(b"nodes")):
            node = _mapping(row)
            port = node.get(b"tls-port" if secure else b"port")
            found = _node(node.get(b"endpoint"), node.get(b"ip"), port)
            if found is None:
                continue
            if node.get(b"role") == b"master":
                # Of two, one has failed, and the other has taken its place.
                if primary is None or node.get(b"health") == b"online":
                    primary = found
            elif node.get(b"health") == b"online":
                replicas.append(found)
        if primary is not None:
            ranges = tuple(zip(numbers[::2], numbers[1::2], strict=False))
            shards.append(Shard(ranges, primary, tuple(replicas)))
    return shards


def readSlots(reply: bytes) -> list[Shard]:
    """
    @param reply: the reply to C{CLUSTER SLOTS}, of RESP2 or RESP3.

    @return: the shards that have slots.

    @raise NoTopology: it is no such reply.
    """
    ranges: dict[Node, list[tuple[int, int]]] = {}
    replicas: dict[Node, tuple[Node, ...]] = {}
    for each in _rows(reply):
        first, last, *rows = _list(each)
        nodes = [found for row in rows if (found := _slotsNode(row)) is not None]
        if not nodes or _slotsNode(rows[0]) is None:
            continue  # nothing can be sent to the primary
        ranges.setdefault(nodes[0], []).append((_slot(first), _slot(last)))
        replicas[nodes[0]] = tuple(nodes[1:])
    return [Shard(tuple(slots), primary, replicas[primary]) for primary, slots in ranges.items()]


def readRedirect(command: Any, request: bytes, data: bytes, pos: int) -> Redirect | None:
    """
    @param command: the command of the request.
    @param request: the request.
    @param data: bytes with the reply at C{pos}.

    @return: the redirect; C{None} if the complete error at C{pos} is none. Of a script, which may say anything, also
        when it has changed data, only C{MOVED} is one. It must not be followed then: the command is not
        C{redirectable}.
    """
    if not (command.redirectable or command.runsScript):
        return None
    found = _REDIRECT(data, pos)
    if found is None or (command.runsScript and found[1] != b"MOVED"):
        return None
    reply = data[pos : found.end()]
    if found[1] is None:
        return Redirect(reply, command, request)
    try:
        host = found[3].decode("ascii")
        slot, port = int(found[2]), int(found[4])
    except ValueError:
        return None
    if slot >= SLOTS or not 0 < port < 65536:
        return None
    return Redirect(reply, command, request, Node(host, port), slot, found[1] == b"ASK")


#: The beginning of an error that no C{PING} gets, the length from which on it is known, and the longest one.
_MET: Final = re.compile(rb"-(?:MOVED|CLUSTERDOWN) ").match
_MET_MIN: Final = len(b"-CLUSTERDOWN ")
_MET_MAX: Final = 1 << 10


class ClusterReplyReader(ReplyReader):
    """
    Finds the ends of replies of a node of a cluster, and redirects among them.
    """

    __slots__ = ()

    def push(self, data: bytes, pos: int, command: RedisCommand | None, request: Any) -> int:
        """
        Find a frame that no request asked for. One is the error of a C{SUNSUBSCRIBE} that has met the frame with which
        the node has ended the subscription already, which was taken for the reply. A C{PING} follows such a request.
        """
        if data[pos] != 45:
            return super().push(data, pos, command, request)
        if command is None or command.name != "ping":
            return 0
        if _MET(data, pos):
            end = data.find(b"\n", pos) + 1
            return end or (-1 if len(data) - pos < _MET_MAX else 0)
        return -1 if len(data) - pos < _MET_MIN and data.find(b"\n", pos) < 0 else 0

    def _confirmed(self, data: bytes, pos: int, command: RedisCommand, request: bytes) -> tuple[int, int, bytes | None]:
        found = super()._confirmed(data, pos, command, request)
        if not self.left and command.name == "sunsubscribe":
            self.pushes += b"-"  # until the next confirmation, see push
        return found

    def read(
        self, data: bytes, pos: int, command: RedisCommand, count: int, request: Any, counters: ReplyCounters
    ) -> tuple[int, int, bytes | None]:
        """
        Read the bytes of a server from C{pos}, see L{IReplyReader.read<txconnpool.wire.IReplyReader.read>}. A redirect
        is a L{Redirect}.
        """
        if data[pos] == 45 and not (self._elements or self._due):
            redirect = readRedirect(command, request, data, pos)
            if redirect is not None:
                self.left = 0
                return pos + len(redirect), 1, redirect
        return super().read(data, pos, command, count, request, counters)


def _rows(reply: bytes) -> list[Any]:
    value = _PARSER.parse(reply)
    if isinstance(value, str):
        raise NoTopology(f"it says {value!r}")
    return _list(value)


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise NoTopology("its reply has another form")
    return value


def _mapping(value: Any) -> dict[bytes, Any]:
    """
    @return: a map of RESP3, or the list that stands for it in RESP2.
    """
    if isinstance(value, dict):
        return value
    row = _list(value)
    return dict(zip(row[::2], row[1::2], strict=False))


def _slot(value: Any) -> int:
    if not isinstance(value, int) or not 0 <= value < SLOTS:
        raise NoTopology(f"its reply has the slot {value!r}")
    return value


def _slotsNode(row: Any) -> Node | None:
    """
    @return: the node in a reply to C{CLUSTER SLOTS}: endpoint, port, identifier, and since 7.0 further names.
    """
    endpoint, port, *rest = _list(row)
    further = rest[1] if len(rest) > 1 and isinstance(rest[1], list | dict) else []
    return _node(endpoint, _mapping(further).get(b"ip"), port)


def _node(endpoint: Any, ip: Any, port: Any) -> Node | None:
    """
    @param endpoint: the name or address of a node; C{None} and empty: that of the node that was asked; C{?}: unknown.
    @param ip: its IP address, if the reply has one.

    @return: the node; C{None} if nothing can be sent to it.
    """
    host = ip if endpoint == b"?" else endpoint
    if endpoint == b"?" and not ip:
        return None
    if not isinstance(port, int) or not 0 < port < 65536 or not isinstance(host, bytes | None):
        return None
    return Node((host or b"").decode("ascii", "replace"), port)
