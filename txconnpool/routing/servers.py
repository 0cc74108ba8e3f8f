# -*- test-case-name: tests.routing.test_servers -*-
# Copyright txconnpool contributors. See LICENSE.
"""
The servers of a pool, as they are written in settings and programs: an address, and words about the distribution of
keys.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress

from txconnpool.net.endpoints import nameOf
from txconnpool.net.syntax import argumentsOf
from txconnpool.routing.distribution import ServerSpec


@dataclass(frozen=True)
class Server:
    """
    One server of a pool::

        pool = MemCachePool([Server(("10.0.0.1", 11211), weight=2), Server("tcp:10.0.0.2:11211", label="cache-2")])

    @ivar endpoint: its client endpoint string, or another address, see
        L{endpointOf<txconnpool.net.addresses.endpointOf>}.
    @ivar weight: its weight in the distribution of keys, or C{None} for the default of the distribution.
    @ivar label: the text that is hashed for it, or C{None} for the one that the distribution makes of its address.
    """

    endpoint: Any
    weight: float | None = None
    label: str | None = None

    def __post_init__(self) -> None:
        weight, label = self.weight, self.label
        if weight is not None and (isinstance(weight, bool) or not isinstance(weight, int | float)):
            raise TypeError(f"weight of a Server must be a number, or None, not {weight!r}")
        if label is not None and not isinstance(label, str):
            raise TypeError(f"label of a Server must be a text, or None, not {label!r}")

    def __str__(self) -> str:
        """
        @return: a line from which L{readServer} makes this server, if its address is an endpoint string.
        """
        weight = "" if self.weight is None else f" weight={self.weight!r}".removesuffix(".0")
        return f"{self.endpoint}{weight}" + ("" if self.label is None else f" label={self.label}")

    @property
    def name(self) -> str:
        """
        The name for logs, statistics and commands.
        """
        return nameOf(self.endpoint) if isinstance(self.endpoint, str) else str(self.endpoint)

    def spec(self) -> ServerSpec:
        """
        Describe the server for a distribution: host and port, or the path of a UNIX socket, as they are written in the
        endpoint string. An endpoint string of another type has its name for a path, and an endpoint that is an object
        has no address.
        """
        host, port, path = _partsOf(self.endpoint)
        return ServerSpec(host=host, port=port, path=path, weight=self.weight, label=self.label)


#: The types of client endpoints that have a host and a port.
_WITH_PORT = ("tcp", "tls")


def _partsOf(address: Any) -> tuple[str | None, int | None, str | None]:
    """
    @return: host and port, or the path, of an address.
    """
    if isinstance(address, str):
        (kind, *positional), named = argumentsOf(address)
        if kind.lower() in _WITH_PORT:
            positions = [each for each in ("host", "port") if each not in named]
            named.update(zip(positions, positional, strict=False))
            return named["host"], int(named["port"]), None
        return None, None, named.get("path", *positional[:1]) if kind.lower() == "unix" else nameOf(address)
    if isinstance(address, tuple):
        return *address, None
    if isinstance(address, IPv4Address | IPv6Address):
        return address.host, address.port, None
    if isinstance(address, UNIXAddress) and address.name is not None:
        return None, None, os.fsdecode(address.name)
    return None, None, None


def readServer(line: str) -> Server:
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
    return Server(endpoint, None if weight is None else float(weight), label)
