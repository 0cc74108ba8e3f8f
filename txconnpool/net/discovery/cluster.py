# -*- test-case-name: tests.net.discovery.test_cluster -*-
# Copyright txconnpool contributors. See LICENSE.
"""
The auto discovery of ElastiCache: a memcached that lists the nodes of its cluster.

The reply to C{config get cluster} is a line C{CONFIG cluster FLAGS LENGTH}, a line with the version of the
configuration, a line with the nodes as C{HOST|IP|PORT}, separated by spaces, and an empty line and C{END}. The IP may
be empty. See U{https://docs.aws.amazon.com/AmazonElastiCache/latest/dg/AutoDiscovery.AddingToYourClientLibrary.html}.
"""

from __future__ import annotations

from dataclasses import dataclass

from txconnpool.net.discovery.descriptions import asAddress, isHostName, parsePort

REQUEST = b"config get cluster\r\n"


@dataclass(frozen=True, slots=True)
class Node:
    """
    A node of a cluster.

    @ivar host: its name, or its address if it has no name.
    @ivar ip: its address, or an empty string.
    @ivar port: its port.
    """

    host: str
    ip: str
    port: int


def parseCluster(data: bytes) -> tuple[Node, ...] | None:
    """
    Parse the reply to L{REQUEST}. The length that it states is not used: the last line ends it as well, and some
    imitations count differently.

    @param data: all bytes received.

    @return: the nodes, or C{None} while the reply is incomplete.

    @raise ValueError: it is something else, or there is no node.
    """
    lines = data.decode("latin-1").replace("\r\n", "\n").split("\n")
    complete = lines[:-1]
    if complete and not complete[0].startswith("CONFIG cluster "):
        known = complete[0] != "END" and not complete[0].startswith(("ERROR", "CLIENT_ERROR", "SERVER_ERROR"))
        raise ValueError("not a reply of memcached" if known else "the server has no list of a cluster")
    if "END" not in complete:
        return None
    content = complete[1 : complete.index("END")]
    if len(content) < 2 or not content[0].strip().isdecimal():
        raise ValueError("the list of the cluster has no version")
    nodes = tuple(_node(text) for line in content[1:] for text in line.split())
    if not nodes:
        raise ValueError("the list of the cluster is empty")
    return nodes


def _node(text: str) -> Node:
    pieces = text.split("|")
    if len(pieces) != 3:
        raise ValueError(f"{text[:100]!r} in the list of the cluster is not HOST|IP|PORT")
    host, ip, port = pieces[0], asAddress(pieces[1]) or "", parsePort(pieces[2])
    if host and not isHostName(host):
        host = asAddress(host) or ""
    if not (host or ip):
        raise ValueError(f"{text[:100]!r} in the list of the cluster has neither a name nor an address")
    return Node(host or ip, ip, port)
