# -*- test-case-name: tests.config.test_servers -*-
# Copyright txconnpool contributors. See LICENSE.
"""
The checks of the servers of a pool in settings.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace

from txconnpool.config.kinds import Endpoint
from txconnpool.net.discovery import checkDiscovery, endpointsOf, isDiscovery, located
from txconnpool.routing.cluster.line import ClusterLine, isCluster, readCluster
from txconnpool.routing.distribution import Distribution
from txconnpool.routing.servers import Server, readServer
from txconnpool.wire.topology import Node


def mistakes(servers: Sequence[Server], distribution: Distribution, variable: bool = False) -> Iterator[str]:
    """
    Find mistakes in the servers of a pool.

    @param variable: whether there may be other servers at other times.

    @return: a line for each reason why keys cannot be distributed among them.
    """
    counts = Counter(server.name for server in servers)
    same = [name for name, count in counts.items() if count > 1]
    yield from (f"upstream has {name} {counts[name]} times; expected each server only once" for name in same)
    if same or not servers or (len(servers) == 1 and not variable):
        return
    try:
        distribution.check([server.spec() for server in servers])
    except ValueError as error:
        yield str(error)
    weighted = next((server.name for server in servers if server.weight is not None), None)
    if weighted is not None and not distribution.keyed:
        yield f"{weighted} has a weight; the distribution {distribution.name} sends all servers as many requests"


class ServerLine(Endpoint):
    """
    A server: a client endpoint string, and words after it; or a source of servers that are looked up; or a cluster.
    """

    metavar = "SERVER"

    def checkValue(self, value: str) -> None:
        """
        @raise ValueError: the endpoint string or one of the words is wrong.
        """
        if not isinstance(value, str):
            raise self.wrong()
        if isDiscovery(value):
            checkDiscovery(value)
            for endpoint in endpointsOf(value):
                super().checkValue(endpoint)
            return
        if isCluster(value):
            line = readCluster(value)
            if line.source:
                checkDiscovery(line.source)
            for endpoint in _endpoints(line):
                super().checkValue(endpoint)
            return
        try:
            endpoint = readServer(value).endpoint
        except ValueError as error:
            right = self._suggest(value)
            raise ValueError(f"{error}; {right}" if right else str(error)) from None
        super().checkValue(endpoint)

    def located(self, value: str, directory: str) -> str:
        """
        Make the paths in the endpoint string absolute.
        """
        if isDiscovery(value):
            return located(value, directory)
        if isCluster(value):
            line = readCluster(value)
            absolute = line.located(directory)
            return value if absolute == line else str(absolute)
        server = readServer(value)
        endpoint = super().located(server.endpoint, directory)
        return value if endpoint == server.endpoint else str(replace(server, endpoint=endpoint))

    def checkFiles(self, value: str) -> None:
        """
        Read the keys and certificates that the endpoint string names.
        """
        if isDiscovery(value):
            endpoints = endpointsOf(value)
        else:
            endpoints = _endpoints(readCluster(value)) if isCluster(value) else [readServer(value).endpoint]
        for endpoint in endpoints[:1]:  # all nodes and sentinels have the same files
            super().checkFiles(endpoint)


def _endpoints(line: ClusterLine) -> list[str]:
    """
    @return: the endpoint strings of the seeds, or that of any node if these are not known.
    """
    return line.endpoints or [line.endpoint(Node("localhost", 6379))]
