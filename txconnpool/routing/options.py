# -*- test-case-name: tests.memcache.test_servers -*-
# Copyright txconnpool contributors. See LICENSE.
"""
The servers of a pool for programs, and the options about the distribution of keys among them.
"""

from __future__ import annotations

from typing import Any, Literal

from txconnpool.net.discovery import isSentinel
from txconnpool.net.endpoints import checkAddress
from txconnpool.pool.base import listed
from txconnpool.pool.checks import checkType, checkWhole
from txconnpool.routing.distribution import ROUND_ROBIN, Distribution
from txconnpool.routing.maps import Ejection, Shard
from txconnpool.routing.servers import Server, readServer


class Servers:
    """
    The servers of a pool, and how the keys are distributed among them.

    @ivar equal: whether the servers are equal, so that each request may be sent to any of them.
    @ivar distribution: the distribution of keys, or C{None} if there is one server or if the servers are equal.
    @ivar ejection: what happens to the keys of a server that is down.
    """

    def __init__(
        self,
        addresses: Any,
        default: str,
        port: int | None = None,
        *,
        follows: bool = False,
        distribution: str | None = None,
        hash: str | None = None,
        hashTag: str | bytes = b"",
        hashStop: str | bytes | None = None,
        hashSkip: str | bytes = b"",
        onFailure: Literal["fail", "rehash"] = "fail",
        ejectAfter: int = 2,
        minLiveServers: int | None = None,
    ) -> None:
        """
        @param addresses: an address, see L{endpointOf<txconnpool.net.addresses.endpointOf>}, or a L{Server}, or a list
            of them. An endpoint string may be followed by words: C{"tcp:10.0.0.1:11211 weight=2 label=cache-1"}.
        @param default: the distribution if none is given.
        @param port: the port that servers of this protocol usually have, for the error if one is missing.
        @param follows: whether C{sentinel:NAME@HOST:PORT} may stand for the server.
        @param distribution: the system whose map of keys is used, such as C{"ketama"} or C{"twemproxy"}, or
            C{"round-robin"} for equal servers.
        @param hash: the hash function; the default of the distribution if not given.
        @param hashTag: two characters; only what is between them is hashed.
        @param hashStop: only what is before this text is hashed; the default of the distribution if not given.
        @param hashSkip: a prefix of keys that is not hashed.
        @param onFailure: C{"fail"}: requests for a server that is down fail. C{"rehash"}: its keys go to the others.
        @param ejectAfter: the number of failed dials in a row after which C{"rehash"} does this.
        @param minLiveServers: the number of servers that keep their keys in any case; half of them if not given.

        @raise ValueError: an address or an option is invalid, or the servers are not possible with the distribution.
        """
        servers = [serverOf(each) for each in listed(addresses)]
        for server in servers:
            if isinstance(server.endpoint, str) and not (follows and isSentinel(server.endpoint)):
                checkAddress(server.endpoint, port)
        for name, text in (("hashTag", hashTag), ("hashStop", hashStop), ("hashSkip", hashSkip)):
            checkType(name, text, (str, bytes), "a text")
        chosen = Distribution(
            distribution or default, hash, encoded(hashTag), None if hashStop is None else encoded(hashStop),
            encoded(hashSkip),
        )  # fmt: skip
        if onFailure not in ("fail", "rehash"):
            raise ValueError(f"onFailure must be 'fail' or 'rehash', not {onFailure!r}")
        least = (len(servers) + 1) // 2 if minLiveServers is None else minLiveServers
        checkWhole("minLiveServers", least, 1, most=len(servers))
        checkWhole("ejectAfter", ejectAfter, 1)
        self.ejection = Ejection(onFailure == "rehash", ejectAfter, least)
        self.equal = not chosen.keyed
        self.distribution = chosen if chosen.keyed and len(servers) > 1 else None
        self._servers = servers
        if self.equal:
            weighted = next((server.name for server in servers if server.weight is not None), None)
            if weighted is not None:
                raise ValueError(f"{weighted} has a weight; with {ROUND_ROBIN} all servers get as many requests")

    @property
    def addresses(self) -> list[Any]:
        """
        The addresses of all servers.
        """
        return [server.endpoint for server in self._servers]

    def shards(self) -> list[Shard]:
        """
        @return: the servers as shards.

        @raise ValueError: the same server is given twice.
        """
        addresses = self.addresses
        for index, address in enumerate(addresses):
            if address in addresses[:index]:
                raise ValueError(f"{self._servers[index].name} is given twice")
        return [Shard(server.endpoint, server.spec()) for server in self._servers]


def serverOf(address: Any) -> Server:
    """
    @return: the server of an address, see L{Servers.__init__}.

    @raise ValueError: the words after an endpoint string are wrong.
    """
    if isinstance(address, Server):
        return address
    return readServer(address) if isinstance(address, str) else Server(address)


def encoded(text: str | bytes) -> bytes:
    """
    @return: text in UTF-8.
    """
    return text.encode() if isinstance(text, str) else text
