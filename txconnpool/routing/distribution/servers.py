# -*- test-case-name: tests.routing.distribution.test_distributions -*-
# Copyright txconnpool contributors. See LICENSE.
"""
What a distribution knows of a server: its address as it is written in the configuration, its weight and its label.

A I{label} is the text that stands for a server in a hash ring. Names of hosts are never resolved for it and their case
is not changed, because the other systems do neither.
"""

from __future__ import annotations

from dataclasses import dataclass

#: The default port of memcached. Several systems leave it out of the label.
DEFAULT_PORT = 11211


@dataclass(frozen=True, slots=True)
class ServerSpec:
    """
    One server, as a distribution sees it.

    @ivar host: the host as written, or C{None} for a server that has no host and port.
    @ivar port: the port, or C{None}.
    @ivar path: the path of a UNIX socket, or C{None}.
    @ivar weight: the weight if one is given. Without one it is the default of the distribution: 1, or 0.5 for
        C{mcrouter} if other servers have weights.
    @ivar label: the label if one is given, otherwise the rule of the distribution makes it from host and port or path.
    """

    host: str | None = None
    port: int | None = None
    path: str | None = None
    weight: float | None = None
    label: str | None = None

    @property
    def address(self) -> str:
        """
        The address for messages: C{host:port}, the path, or an empty string if it has neither.
        """
        return self.path or (f"{self.host}:{self.port}" if self.host is not None else "")

    def __str__(self) -> str:
        return self.label or self.address or "a server without an address"


@dataclass(frozen=True, slots=True)
class LabelRule:
    """
    A rule that makes a label from host and port or path.

    @ivar withDefaultPort: whether C{:11211} is part of a label, as all other ports are.
    @ivar afterPath: what is appended to the path of a UNIX socket.
    @ivar before: what is before a host.
    """

    withDefaultPort: bool
    afterPath: str = ""
    before: str = ""

    def __call__(self, server: ServerSpec) -> str:
        """
        @return: the label, or an empty string for a server without an address.
        """
        if server.path is not None:
            return server.path + self.afterPath
        if server.host is None:
            return ""
        return self.before + (server.host if self._short(server.port) else server.address)

    def _short(self, port: int | None) -> bool:
        return port == DEFAULT_PORT and not self.withDefaultPort

    def __str__(self) -> str:
        path = f"PATH{self.afterPath} of a UNIX socket"
        if self.withDefaultPort:
            return f"{self.before}HOST:PORT or {path}"
        return f"HOST:PORT, HOST if the port is 11211, or {path}"


#: The rule of pymemcache, dalli, spymemcached and others.
HOST_AND_PORT = LabelRule(withDefaultPort=True)

#: The rule of new pools.
SHORT = LabelRule(withDefaultPort=False)

#: The rule of xmemcached.
XMEMCACHED = LabelRule(withDefaultPort=True, before="/")

#: The rule of twemproxy. The weight is not part of the label, although its documentation says so.
TWEMPROXY = LabelRule(withDefaultPort=False, afterPath=":")

#: The rule of libmemcached.
LIBMEMCACHED = LabelRule(withDefaultPort=False, afterPath=":0")


@dataclass(frozen=True, slots=True)
class Member:
    """
    A server with its complete values.

    @ivar index: the position in the list of all servers.
    @ivar label: the label, in UTF-8; empty if the distribution does not use labels.
    @ivar weight: the weight.
    """

    index: int
    label: bytes
    weight: float


@dataclass(frozen=True, slots=True)
class Members:
    """
    All servers, some of which may be down.

    @ivar everyone: all servers, in their order.
    @ivar weighted: whether any server has a weight of its own.
    @ivar down: the positions of servers that are down.
    """

    everyone: tuple[Member, ...]
    weighted: bool
    down: frozenset[int] = frozenset()

    @property
    def live(self) -> tuple[Member, ...]:
        """
        The servers that are not down, in their order.
        """
        return tuple(member for member in self.everyone if member.index not in self.down)
