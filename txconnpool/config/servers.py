# -*- test-case-name: tests.config.test_servers -*-
# Copyright txconnpool contributors. See LICENSE.
"""
The servers of a pool, as they are written in settings: an endpoint string, and words about the distribution of keys.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from txconnpool.config.kinds import Endpoint
from txconnpool.net.endpoints import nameOf
from txconnpool.net.syntax import argumentsOf
from txconnpool.routing.distribution import Distribution, ServerSpec


@dataclass(frozen=True)
class UpstreamServer:
    """
    One server of a pool.

    @ivar endpoint: its client endpoint string.
    @ivar weight: its weight in the distribution of keys, or C{None} for the default of the distribution.
    @ivar label: the text that is hashed for it, or C{None} for the one that the distribution makes of its address.
    """

    endpoint: str
    weight: float | None = None
    label: str | None = None

    def __str__(self) -> str:
        """
        @return: a line from which L{upstreamServer} makes this server.
        """
        weight = "" if self.weight is None else f" weight={self.weight!r}".removesuffix(".0")
        return f"{self.endpoint}{weight}" + ("" if self.label is None else f" label={self.label}")

    @property
    def name(self) -> str:
        """
        The name for logs, statistics and commands.
        """
        return nameOf(self.endpoint)

    def spec(self) -> ServerSpec:
        """
        Describe the server for a distribution: host and port, or the path of a UNIX socket, as they are written in the
        endpoint string. An endpoint of another type has its name for a path.
        """
        (kind, *positional), named = argumentsOf(self.endpoint)
        if kind.lower() in _WITH_PORT:
            positions = [each for each in ("host", "port") if each not in named]
            named.update(zip(positions, positional, strict=False))
            return ServerSpec(host=named["host"], port=int(named["port"]), weight=self.weight, label=self.label)
        path = named.get("path", *positional[:1]) if kind.lower() == "unix" else self.name
        return ServerSpec(path=path, weight=self.weight, label=self.label)


#: The types of client endpoints that have a host and a port.
_WITH_PORT = ("tcp", "tls")


def upstreamServer(line: str) -> UpstreamServer:
    """
    Read a server from a line of settings: C{tcp:10.0.0.11:11211 weight=2 label=cache-1}. The endpoint string itself is
    not checked. A space in it has a backslash before it.

    @raise ValueError: the words after the endpoint string are wrong.
    """
    endpoint, rest = re.findall(r"^\s*((?:[^\s\\]|\\.?)*)(.*)", line, re.DOTALL)[0]
    values: dict[str, str] = {}
    for word in rest.split():
        name, _, value = word.partition("=")
        if name not in ("weight", "label"):
            raise ValueError(
                f"unknown word {word!r}: after the endpoint there may be weight=NUMBER and label=TEXT; a space in an "
                "endpoint has a backslash before it"
            )
        if name in values:
            raise ValueError(f"{name} is given twice")
        values[name] = value
    weight, label = values.get("weight"), values.get("label")
    if weight is not None and not re.fullmatch(r"[0-9]{1,10}(\.[0-9]{1,10})?", weight):
        raise ValueError(f"weight={weight}: expected a number, such as 2 or 0.5")
    if label == "":
        raise ValueError("label= is empty: expected a text without spaces")
    return UpstreamServer(endpoint, None if weight is None else float(weight), label)


def mistakes(servers: Sequence[UpstreamServer], distribution: Distribution) -> Iterator[str]:
    """
    Find mistakes in the servers of a pool.

    @return: a line for each reason why keys cannot be distributed among them.
    """
    counts = Counter(server.name for server in servers)
    same = [name for name, count in counts.items() if count > 1]
    yield from (f"upstream has {name} {counts[name]} times; expected each server only once" for name in same)
    if len(servers) == 1 or same:
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
    A server: a client endpoint string, and words after it.
    """

    metavar = "SERVER"

    def checkValue(self, value: str) -> None:
        """
        @raise ValueError: the endpoint string or one of the words is wrong.
        """
        if not isinstance(value, str):
            raise self.wrong()
        super().checkValue(upstreamServer(value).endpoint)

    def checkFiles(self, value: str) -> None:
        """
        Read the keys and certificates that the endpoint string names.
        """
        super().checkFiles(upstreamServer(value).endpoint)
