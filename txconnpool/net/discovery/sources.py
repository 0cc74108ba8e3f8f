# -*- test-case-name: tests.net.discovery.test_sources -*-
# Copyright txconnpool contributors. See LICENSE.
"""
The sources of servers: DNS, memcacheds with auto discovery, and the sentinels of Redis.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from ipaddress import ip_address
from typing import Any

from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.interfaces import IResolver
from twisted.names import dns
from twisted.names.error import DNSNameError

from txconnpool.net.discovery.cluster import REQUEST, Node, parseCluster
from txconnpool.net.discovery.descriptions import Description, Discovered, endpointString, isHostName
from txconnpool.net.discovery.exchanges import overTCP
from txconnpool.net.discovery.nameservers import NameServers
from txconnpool.net.discovery.records import canonical, follow
from txconnpool.net.discovery.results import Answer, DiscoveryFailed, Source
from txconnpool.net.discovery.sentinels import Sentinels
from txconnpool.net.endpoints import clientEndpoint

#: How often the answer to a question may be the name to ask for next.
MAX_ALIASES = 8

#: The longest list of a cluster, in bytes.
MAX_LIST = 1 << 20

#: The methods of resolvers for the types of records.
_METHODS = {dns.A: "lookupAddress", dns.AAAA: "lookupIPV6Address", dns.SRV: "lookupService"}


def makeSource(description: Description, reactor: Any, resolver: IResolver | None, timeLimit: float) -> Source:
    """
    Make the source that a server line names.

    @param resolver: looks up names; C{None}: L{NameServers}, with those of the description if it names some.
    @param timeLimit: the seconds that a lookup may take.
    """
    if description.kind == "elasticache":
        return Cluster(description, reactor, timeLimit)
    if description.kind == "sentinel":
        return Sentinels(description, reactor, timeLimit)
    lookUp = RecordLookup(resolver or NameServers(reactor, description.resolver), reactor, timeLimit)
    return Addresses(description, lookUp) if description.kind == "dns" else Services(description, lookUp)


class RecordLookup:
    """
    Looks up records of a name, following aliases.
    """

    def __init__(self, resolver: IResolver, reactor: Any, timeLimit: float) -> None:
        """
        @param timeLimit: the seconds after which a lookup fails.
        """
        self._resolver = resolver
        self._reactor = reactor
        self._timeLimit = timeLimit

    def __call__(self, name: str, kind: int) -> Deferred[tuple[tuple[Any, ...], float]]:
        """
        @param name: a name in ASCII.
        @param kind: L{dns.A}, L{dns.AAAA} or L{dns.SRV}.

        @return: fires with the payloads of the records and their TTL. There are none if there is no such name: some
            servers say so of names that have records of other types.
        """
        return Deferred.fromCoroutine(self._follow(name.encode("ascii"), kind)).addTimeout(
            self._timeLimit, self._reactor
        )

    async def _follow(self, name: bytes, kind: int) -> tuple[tuple[Any, ...], float]:
        ask: Callable[[bytes], Deferred[Any]] = getattr(self._resolver, _METHODS[kind])
        ttl = float("inf")
        for _ in range(MAX_ALIASES):
            try:
                answers, _authority, _additional = await ask(name)
            except DNSNameError:
                return (), ttl
            found = follow(name, kind, answers)
            ttl = min(ttl, found.ttl)
            if found.payloads or found.name == name:
                return found.payloads, ttl
            name = found.name
        raise DiscoveryFailed("too many CNAME records one after the other")


class Addresses(Source):
    """
    Every address of a name is a server. The default label is the address.
    """

    def __init__(self, description: Description, lookUp: RecordLookup) -> None:
        self._description = description
        self._lookUp = lookUp
        self._families: set[int] = set()

    def lookUp(self) -> Deferred[Answer]:
        """
        Look up both families of addresses. One that fails is ignored if it never had an address: there are DNS servers
        that do not answer to questions for AAAA records.
        """
        return Deferred.fromCoroutine(self._addresses())

    async def _addresses(self) -> Answer:
        kinds = (dns.A, dns.AAAA)
        results: list[tuple[bool, Any]] = await DeferredList(
            [self._lookUp(self._description.name, kind) for kind in kinds], consumeErrors=True
        )
        addresses, ttl, failures = set(), float("inf"), []
        for kind, (succeeded, result) in zip(kinds, results, strict=True):
            if succeeded:
                payloads, validity = result
                addresses |= {ip_address(payload.address) for payload in payloads}
                ttl = min(ttl, validity)
                if payloads:
                    self._families.add(kind)
            else:
                failures.append(result)
                if kind in self._families:
                    result.raiseException()
        if not addresses:
            if failures:
                failures[0].raiseException()
            raise DiscoveryFailed("the name has no address")
        ordered = sorted(addresses, key=lambda each: (each.version, each))
        return Answer(tuple(self._server(str(each)) for each in ordered), ttl)

    def _server(self, ip: str) -> Discovered:
        described = self._description
        label = described.labelOf(described.name, ip, described.port, ip)
        return Discovered(endpointString(ip, described.port), label, described.weight)


class Services(Source):
    """
    Every SRV record of a name is a server. The default label is that of the same server in a server line of its own.

    Only the records with the best priority count: the others are there for the time when these are down, and keys do
    not change their server then. The weights are those of the records, unless all are equal.
    """

    def __init__(self, description: Description, lookUp: RecordLookup) -> None:
        self._description = description
        self._lookUp = lookUp

    def lookUp(self) -> Deferred[Answer]:
        """
        Look up the records.
        """
        return Deferred.fromCoroutine(self._services())

    async def _services(self) -> Answer:
        payloads, ttl = await self._lookUp(self._description.name, dns.SRV)
        # The target "." says that there is no such service (RFC 2782).
        records = [each for each in payloads if each.target.name not in (b"", b".")]
        best = min((each.priority for each in records), default=0)
        weights = {
            (_target(each), each.port): each.weight
            for each in sorted(records, key=lambda each: each.weight)
            if each.priority == best and each.port
        }
        if not weights:
            raise DiscoveryFailed("the name has no service")
        weighted = len(set(weights.values())) > 1
        # Weight 0 is "next to nothing" in SRV records, and no weight in most distributions.
        return Answer(
            tuple(
                self._server(host, port, float(max(weight, 1)) if weighted else None)
                for (host, port), weight in sorted(weights.items())
            ),
            ttl,
        )

    def _server(self, host: str, port: int, weight: float | None) -> Discovered:
        described = self._description
        label = described.labelOf(host, "", port, None)
        return Discovered(endpointString(host, port), label, weight if described.weight is None else described.weight)


def _target(record: Any) -> str:
    host: str = canonical(record.target.name).decode("latin-1")
    # It becomes a part of a server line, where a space would begin a word.
    if not isHostName(host):
        raise DiscoveryFailed(f"an SRV record has the wrong target {host[:100]!r}")
    return host


class Cluster(Source):
    """
    The nodes of a cluster, as one of its memcacheds lists them. The default label is the name of the host, with the
    port only where a host has several nodes; the endpoint has the address if the list has it.
    """

    def __init__(self, description: Description, reactor: Any, timeLimit: float) -> None:
        self._description = description
        self._reactor = reactor
        self._timeLimit = timeLimit
        self._endpoint = clientEndpoint(reactor, endpointString(description.name, description.port))

    def lookUp(self) -> Deferred[Answer]:
        """
        Ask the server.
        """
        asked = overTCP(self._endpoint, REQUEST, parseCluster, MAX_LIST)
        return asked.addTimeout(self._timeLimit, self._reactor).addCallback(self._answer)

    def _answer(self, nodes: Iterable[Node]) -> Answer:
        ordered = sorted(
            {(node.host, node.port): node for node in nodes}.values(), key=lambda each: (each.host, each.port)
        )
        ports = Counter(node.host for node in ordered)
        return Answer(tuple(self._server(node, ports[node.host] == 1) for node in ordered))

    def _server(self, node: Node, alone: bool) -> Discovered:
        described = self._description
        default = node.host if alone else f"{node.host}:{node.port}"
        label = described.labelOf(node.host, node.ip or node.host, node.port, default)
        return Discovered(endpointString(node.ip or node.host, node.port), label, described.weight)
