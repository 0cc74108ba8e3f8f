# -*- test-case-name: tests.net.discovery.test_resolvconf -*-
# Copyright txconnpool contributors. See LICENSE.
"""
The configuration of the system's resolver, see C{resolv.conf(5)}.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from txconnpool.net.discovery.descriptions import asAddress

#: The most servers and attempts, as in glibc.
_MAX_SERVERS = 3
_MAX_ATTEMPTS = 5


@dataclass(frozen=True, slots=True)
class ResolvConf:
    """
    Which DNS servers to ask, and for which names.

    @ivar servers: their IP addresses and ports.
    @ivar search: the domains that are appended to short names.
    @ivar ndots: names with fewer dots are short.
    @ivar timeout: the seconds to wait for an answer of a server. glibc's default is 5; here it is 2, so that a second
        server can still answer within the time limit of a lookup.
    @ivar attempts: how often to ask each server.
    """

    servers: tuple[tuple[str, int], ...] = (("127.0.0.1", 53),)
    search: tuple[bytes, ...] = ()
    ndots: int = 1
    timeout: float = 2.0
    attempts: int = 2

    def candidates(self, name: bytes) -> tuple[bytes, ...]:
        """
        @param name: a name as it is configured.

        @return: the full names to look up, one after the other.
        """
        if name.endswith(b"."):
            return (name[:-1],)
        longer = tuple(b"%s.%s" % (name, domain) for domain in self.search)
        return (*longer, name) if name.count(b".") < self.ndots else (name, *longer)


def parseResolvConf(text: str) -> ResolvConf:
    """
    Parse a C{resolv.conf}. Lines and options that mean nothing here are ignored, as in other resolvers.
    """
    servers: list[tuple[str, int]] = []
    search: tuple[bytes, ...] = ()
    options: dict[str, int] = {}
    for line in text.splitlines():
        keyword, *words = re.sub("[#;].*", "", line).split() or [""]
        if keyword == "nameserver" and words and asAddress(words[0]):
            servers.append((words[0], 53))
        elif keyword in ("search", "domain"):
            search = tuple(word.strip(".").encode("ascii", "ignore") for word in words if word.strip("."))
        elif keyword == "options":
            found = (re.fullmatch("(ndots|timeout|attempts):([0-9]{1,4})", word) for word in words)
            options.update((each[1], int(each[2])) for each in found if each)
    default = ResolvConf()
    return ResolvConf(
        tuple(servers[:_MAX_SERVERS]) or default.servers,
        search,
        min(options.get("ndots", default.ndots), 15),
        max(options.get("timeout", default.timeout), 1),
        min(max(options.get("attempts", default.attempts), 1), _MAX_ATTEMPTS),
    )
