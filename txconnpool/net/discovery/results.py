# -*- test-case-name: tests.net.discovery.test_sources -*-
# Copyright txconnpool contributors. See LICENSE.
"""
A source of servers, and what a lookup has found, or why it failed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from twisted.internet import defer, error
from twisted.internet.defer import Deferred
from twisted.names.error import DNSNameError, DNSQueryRefusedError, DNSServerError, DomainError

from txconnpool.net.discovery.descriptions import Discovered
from txconnpool.net.reasons import describe


class DiscoveryFailed(Exception):
    """
    Servers could not be looked up. The text says why.
    """


@dataclass(frozen=True, slots=True)
class Answer:
    """
    What a source knows at a time.

    @ivar servers: the servers, sorted, and each only once; a master comes before its replicas.
    @ivar ttl: for how many seconds this is valid; infinite if the source does not say.
    """

    servers: tuple[Discovered, ...]
    ttl: float = float("inf")


class Source:
    """
    A source of servers.

    @ivar login: a user and password for those who are asked, or C{None}. Only sentinels ask for one.
    @ivar replicas: whether the replicas of the server are found, too. Only sentinels know them.
    """

    login: tuple[bytes, bytes] | None = None
    replicas = False

    def lookUp(self) -> Deferred[Answer]:
        """
        Look up the servers, at least one.

        @return: fires, or fails, within the time limit of the source. Cancelling it leaves no socket and no timer.
        """
        raise NotImplementedError

    def watch(self, notify: Callable[[], object]) -> None:
        """
        Call C{notify} whenever the source reports that the servers have changed. Most sources never do.
        """

    def unwatch(self) -> None:
        """
        End what L{watch} has begun. No socket and no timer is left.
        """


def explain(reason: BaseException | None) -> str:
    """
    @return: a text of a few words for the failure of a lookup.
    """
    for kinds, text in _REASONS:
        if isinstance(reason, kinds):
            return text
    return describe(reason)


_REASONS: tuple[tuple[type | tuple[type, ...], str], ...] = (
    ((defer.TimeoutError, error.TimeoutError), "no answer in time"),
    (DNSNameError, "there is no such name"),
    (DNSQueryRefusedError, "the DNS server refuses to answer"),
    (DNSServerError, "the DNS server cannot answer"),
    (DomainError, "the DNS server answers with an error"),
    (ConnectionRefusedError, "connection refused"),
    (error.ConnectionClosed, "the server closed the connection"),
)
