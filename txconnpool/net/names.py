# -*- test-case-name: tests.net.test_names -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Look up the addresses of hosts, in threads of our own.

Twisted looks names up in the reactor's threads, of which there are ten. A few names whose DNS server hangs take all of
them, so that no other name is found any more, and a reactor that stops waits for them. Here each name has at most one
thread, each caller waits for a limited time, and nobody waits for a thread: it is a daemon.

The threads call C{getaddrinfo}, which reads C{nsswitch.conf}, C{/etc/hosts} and C{resolv.conf} as all programs do. If
a program has installed another resolver in the reactor, this one is used.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from functools import partial
from threading import Thread
from typing import Any

from twisted.internet._resolver import GAIResolver
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred, TimeoutError
from twisted.internet.error import DNSLookupError
from twisted.internet.interfaces import IAddress, IHostResolution, IResolutionReceiver
from twisted.python.failure import Failure
from zope.interface import implementer

#: An address of a host. Its port is 0.
Address = IPv4Address | IPv6Address

#: The seconds that a caller waits for the addresses of a name.
TIME_LIMIT = 10.0

#: The most names that are looked up at the same time. More names wait for a thread.
MAX_THREADS = 64


class Names:
    """
    Looks up the addresses of names: each name once at a time, whoever asks for it.
    """

    def __init__(
        self,
        reactor: Any,
        timeLimit: float = TIME_LIMIT,
        getaddrinfo: Callable[..., Any] = socket.getaddrinfo,
        start: Callable[[Callable[[], None]], object] | None = None,
        maxThreads: int = MAX_THREADS,
    ) -> None:
        """
        @param reactor: the reactor of the timers, which gets the results of threads by C{callFromThread}.
        @param timeLimit: the seconds that a caller waits.
        @param getaddrinfo: called in a thread.
        @param start: called with a function to call in a thread.
        @param maxThreads: the most threads at the same time.
        """
        self._reactor = reactor
        self._timeLimit = timeLimit
        self._getaddrinfo = getaddrinfo
        self._start = start or _startThread
        self._maxThreads = maxThreads
        self._waiting: dict[str, list[Deferred[list[Address]]]] = {}
        self._running: set[str] = set()

    def lookUp(self, host: str) -> Deferred[list[Address]]:
        """
        Look up a name.

        @return: fires with its addresses, in the order in which they should be tried; fails with C{DNSLookupError}. It
            may be cancelled.
        """
        waiting: Deferred[list[Address]] = Deferred(lambda waiting: self._forget(host, waiting))
        self._waiting.setdefault(host, []).append(waiting)
        self._startNext()
        waiting.addTimeout(self._timeLimit, self._reactor)
        waiting.addErrback(self._explain, host)
        return waiting

    def _startNext(self) -> None:
        """
        Start threads for the names that have none, as long as there may be more.
        """
        for host in list(self._waiting):
            if len(self._running) >= self._maxThreads:
                break
            if host not in self._running:
                self._running.add(host)
                self._begin(host)

    def _begin(self, host: str) -> None:
        """
        Look up a name: in a thread, or by the resolver that the program has installed in the reactor.
        """
        resolver = getattr(self._reactor, "nameResolver", None)
        if resolver is not None and not isinstance(resolver, GAIResolver):
            resolver.resolveHostName(_Receiver(partial(self._ended, host)), host)
            return
        try:
            self._start(partial(self._work, host))
        except RuntimeError as error:  # the system allows no more threads
            self._ended(host, error)

    def _work(self, host: str) -> None:
        """
        Look up a name. This is called in a thread.
        """
        result: list[Address] | Exception
        try:
            result = _addresses(self._getaddrinfo(host, 0, socket.AF_UNSPEC, socket.SOCK_STREAM))
        except Exception as error:
            # A UnicodeError, for instance, if it is no possible name.
            result = error
        self._reactor.callFromThread(self._ended, host, result)

    def _ended(self, host: str, result: list[Address] | Exception) -> None:
        self._running.discard(host)
        waiting = self._waiting.pop(host, [])
        self._startNext()
        for each in waiting:
            if isinstance(result, Exception):
                each.errback(DNSLookupError(f"{host}: {getattr(result, 'strerror', None) or result}"))
            else:
                each.callback(result)

    def _forget(self, host: str, waiting: Deferred[list[Address]]) -> None:
        """
        A caller does not wait any more. The thread, if there is one, goes on, and is that of the next caller.
        """
        everyone = self._waiting[host]
        everyone.remove(waiting)
        if not everyone:
            del self._waiting[host]

    def _explain(self, failure: Failure, host: str) -> Failure:
        if failure.check(TimeoutError):
            return Failure(DNSLookupError(f"{host}: no answer in {self._timeLimit:g} s"))
        return failure


#: By reactor. A process has one reactor.
_names: dict[Any, Names] = {}


def namesOf(reactor: Any) -> Names:
    """
    @return: what looks names up for all pools of a reactor.
    """
    if reactor not in _names:
        _names[reactor] = Names(reactor)
    return _names[reactor]


@implementer(IResolutionReceiver)
class _Receiver:
    """
    Receives the addresses of a name from a resolver of Twisted.
    """

    def __init__(self, ended: Callable[[list[Address]], None]) -> None:
        self._ended = ended
        self._addresses: list[Address] = []

    def resolutionBegan(self, resolutionInProgress: IHostResolution) -> None:
        """
        The resolution has begun.
        """

    def addressResolved(self, address: IAddress) -> None:
        if isinstance(address, Address):
            self._addresses.append(address)

    def resolutionComplete(self) -> None:
        self._ended(self._addresses)


def _addresses(found: list[Any]) -> list[Address]:
    addresses: dict[Address, None] = {}
    for family, _kind, _protocol, _name, place in found:
        if family == socket.AF_INET:
            addresses[IPv4Address("TCP", place[0], 0)] = None
        elif family == socket.AF_INET6:
            addresses[IPv6Address("TCP", place[0], 0)] = None
    return list(addresses)


def _startThread(function: Callable[[], None]) -> None:
    Thread(target=function, name="txconnpool name lookup", daemon=True).start()
