# -*- test-case-name: tests.routing.cluster.test_line -*-
# Copyright txconnpool contributors. See LICENSE.
"""
The line of settings that stands for a cluster.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from txconnpool.net.tlswords import PLAIN, TLS_WORDS, TLSWords, readTLS
from txconnpool.wire.topology import Node

#: A line with nodes.
FORM = "cluster:HOST:PORT,HOST:PORT"

_FORM = f"{FORM}, cluster:dns:NAME:PORT or cluster:srv:NAME"
_SOURCE = re.compile(r"(?:dns|srv):", re.IGNORECASE).match
_NODE = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([^:,\[\]\s]+)):([0-9]{1,5})").fullmatch


@dataclass(frozen=True)
class ClusterLine:
    """
    A cluster: C{cluster:10.0.0.1:6379,10.0.0.2:6379}. With one of the words C{tls=yes}, C{trustRoots=DIRECTORY},
    C{certificate=FILE} or C{privateKey=FILE} after it, all connections have TLS. C{map=HOST:PORT>HOST:PORT,...} has the
    addresses at which nodes are reached, if they are not those that the cluster reports. C{cluster:dns:NAME:PORT} and
    C{cluster:srv:NAME} stand for the nodes that are found by DNS.

    @ivar seeds: the nodes that are asked first for all others.
    @ivar source: the line of the source of the seeds, see L{txconnpool.net.discovery}; empty: they are in this line.
    @ivar tls: the words for TLS.
    @ivar addresses: the addresses at which nodes are reached, by those that the cluster reports.
    """

    seeds: tuple[Node, ...]
    tls: TLSWords = PLAIN
    addresses: Mapping[Node, Node] = field(default_factory=dict)
    source: str = ""

    def endpoint(self, node: Node) -> str:
        """
        @return: the client endpoint string for a node.
        """
        return self.tls.endpoint(node.host, node.port)

    @property
    def secure(self) -> bool:
        """
        Whether connections have TLS.
        """
        return self.tls.secure

    @property
    def endpoints(self) -> list[str]:
        """
        The endpoint strings of the seeds.
        """
        return [self.endpoint(node) for node in self.seeds]

    def found(self, endpoints: Iterable[str]) -> ClusterLine:
        """
        @param endpoints: the client endpoint strings of what the source has found: C{tcp:HOST:PORT}.

        @return: the same line with these seeds.
        """
        pieces = (re.split(r"(?<!\\):", endpoint) for endpoint in endpoints)
        return replace(self, seeds=tuple(Node(host.replace("\\:", ":"), int(port)) for _, host, port in pieces))

    def located(self, directory: str) -> ClusterLine:
        """
        @param directory: the directory that relative paths are relative to.

        @return: the same line with absolute paths.
        """
        return replace(self, tls=self.tls.located(directory))

    def __str__(self) -> str:
        """
        @return: a line from which L{readCluster} makes the same.
        """
        words = [f"cluster:{self.source or ','.join(map(_written, self.seeds))}", *self.tls.words]
        if self.addresses:
            pairs = (f"{_written(inner)}>{_written(outer)}" for inner, outer in self.addresses.items())
            words.append(f"map={','.join(pairs)}")
        return " ".join(words)


def isCluster(line: str) -> bool:
    """
    @param line: a server line.

    @return: whether it stands for a cluster.
    """
    return line.lstrip().lower().startswith("cluster:")


def readCluster(line: str) -> ClusterLine:
    """
    Read a line for which L{isCluster} is true.

    @raise ValueError: it is wrong. The text says what would be right.
    """
    first, *words = line.split()
    places = first.partition(":")[2].split(",")
    source = ""
    seeds: tuple[Node, ...] = ()
    if _SOURCE(places[0]) and not _NODE(places[0]):
        source = ",".join(places)
    else:
        seeds = tuple(_readNode(text, _FORM) for text in places)
    if len(set(seeds)) < len(seeds):
        raise ValueError("a node is listed twice; expected each only once")
    tls, others = readTLS(words)
    addresses: dict[Node, Node] = {}
    for word in others:
        name, _, value = word.partition("=")
        if name == "resolver" and value and source and " " not in source:
            source = f"{source} {word}"
        elif name == "map" and value and not addresses:
            for pair in value.split(","):
                inner, _, outer = pair.partition(">")
                form = "map=HOST:PORT>HOST:PORT"
                addresses[_readNode(inner, form)] = _readNode(outer, form)
        else:
            more = ", or resolver=ADDRESS" if source else ""
            raise ValueError(
                f"unexpected {word!r}; expected {TLS_WORDS} or map=HOST:PORT>HOST:PORT{more}, each only once"
            )
    return ClusterLine(seeds, tls, addresses, source)


def _readNode(text: str, form: str) -> Node:
    found = _NODE(text)
    if found is None:
        raise ValueError(f"wrong node {text!r}; expected {form}, and [ADDRESS]:PORT for IPv6")
    port = int(found[3])
    if not 0 < port < 1 << 16:
        raise ValueError(f"wrong port {port}; expected a number from 1 to 65535")
    return Node(found[1] or found[2], port)


def _written(node: Node) -> str:
    return f"[{node.host}]:{node.port}" if ":" in node.host else f"{node.host}:{node.port}"
