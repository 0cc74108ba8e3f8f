# -*- test-case-name: tests.wire.test_dialects -*-
# Copyright txconnpool contributors. See LICENSE.
"""
The protocols that a pool can use, by name. No other module outside of the dialects refers to a dialect by its name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from txconnpool.wire.effects import Effects
from txconnpool.wire.memcache.dialect import REFUSED, Memcache
from txconnpool.wire.memcache.effects import CLOSING, ORDINARY, POSSIBLE
from txconnpool.wire.raw import Raw
from txconnpool.wire.redis import dialect as redis
from txconnpool.wire.redis.dialect import Redis


@dataclass(frozen=True)
class Dialect:
    """
    The properties of a dialect that are needed before a pool uses it.

    @ivar make: creates the L{IDialect<txconnpool.wire.IDialect>} of a pool. The arguments are those of
        L{Memcache<txconnpool.wire.memcache.dialect.Memcache>}: the maximum size of a value in bytes, the commands and
        effects that are refused, and the only ones that are accepted (C{None}: all).
    @ivar ordinary: the effects that each of its commands has without flags, by the name of the command.
    @ivar possible: the effects that each of its commands can have.
    @ivar refused: the names of other commands of the protocol, which are never forwarded because they act on a server
        or a connection.
    @ivar closing: the names of the commands that only close the connection of their client.
    @ivar distributes: whether keys can be distributed among several servers.
    @ivar hasRoles: whether a server tells whether it is a master or a replica.
    @ivar clusters: whether there are clusters, whose nodes tell which of them has which keys, and clients for these.
    @ivar hasDatabases: whether a server has several sets of keys, of which each client uses one.
    @ivar failsOver: whether servers of another pool can stand in for those that are down.
    @ivar opaque: whether bytes are passed on without being read: each client leases a connection.
    """

    make: Callable[[int, frozenset[bytes], frozenset[bytes] | None], Any]
    ordinary: Mapping[bytes, Effects]
    possible: Mapping[bytes, Effects]
    refused: frozenset[bytes]
    closing: frozenset[bytes] = frozenset()
    distributes: bool = True
    hasRoles: bool = False
    failsOver: bool = True
    opaque: bool = False
    clusters: bool = False
    hasDatabases: bool = False


#: All dialects, by the value of the setting C{protocol}.
DIALECTS: Final[dict[str, Dialect]] = {
    "memcache": Dialect(Memcache, ORDINARY, POSSIBLE, REFUSED, CLOSING),
    "redis": Dialect(
        Redis,
        redis.ORDINARY,
        redis.ORDINARY,
        redis.REFUSED,
        redis.CLOSING,
        hasRoles=True,
        failsOver=False,
        clusters=True,
        hasDatabases=True,
    ),
    "raw": Dialect(Raw, {}, {}, frozenset(), distributes=False, opaque=True),
}
