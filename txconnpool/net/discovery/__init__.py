# Copyright txconnpool contributors. See LICENSE.
"""
Find the servers of a pool by DNS, by the auto discovery of ElastiCache, or by the sentinels of a Redis, and notice when
they change.

A server line of a configuration may name such a source of servers instead of one server:

  - C{dns:HOST:PORT}: every A and AAAA address of the name is a server.
  - C{srv:NAME}: every SRV record of the name is a server.
  - C{elasticache:HOST:PORT}: the servers are those that a memcached with auto discovery lists.
  - C{sentinel:NAME@HOST:PORT,HOST:PORT}: the server is the master that the sentinels name, with its
    replicas if they are wanted.

L{checkDiscovery} checks such a line without I/O, L{Discovery} looks the servers up.
"""

from txconnpool.net.discovery.descriptions import (
    REPLICA,
    Discovered,
    checkDiscovery,
    endpointsOf,
    isDiscovery,
    isSentinel,
    located,
)
from txconnpool.net.discovery.discovery import Discovery
from txconnpool.net.discovery.results import DiscoveryFailed

__all__ = [
    "REPLICA",
    "Discovered",
    "Discovery",
    "DiscoveryFailed",
    "checkDiscovery",
    "endpointsOf",
    "isDiscovery",
    "isSentinel",
    "located",
]
