# -*- test-case-name: tests.net.test_named -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Connect to a host by its name: all of its addresses are tried.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred
from twisted.internet.error import DNSLookupError
from twisted.internet.interfaces import (
    IDelayedCall,
    IHostnameResolver,
    IProtocol,
    IProtocolFactory,
    IReactorPluggableNameResolver,
    IReactorThreads,
    IStreamClientEndpoint,
)
from twisted.python.failure import Failure
from zope.interface import directlyProvides, implementer

from txconnpool.net.names import Address, namesOf
from txconnpool.net.syntax import argumentsOf

#: The seconds after which the next address is tried as well, as in RFC 8305. After a failure it is tried at once.
DELAY = 0.25


def nameIn(description: str) -> str | None:
    """
    @param description: a client endpoint string. Twisted's parser finds what is wrong with it.

    @return: the name that has to be looked up to connect, or C{None} if there is none.
    """
    (kind, *positional), named = argumentsOf(description)
    if kind.lower() not in ("tcp", "tls"):
        return None
    if "endpoint" in named:
        return nameIn(named["endpoint"])
    host = named.get("host", "".join(positional[:1]))
    return nameOrNone(host) if host else None


def nameOrNone(host: str) -> str | None:
    """
    @return: a host that is a name, or C{None} for an IP address.
    """
    return None if isIPAddress(host) or isIPv6Address(host) else host


def byName(reactor: Any, host: str | None, make: Callable[[Any], IStreamClientEndpoint]) -> IStreamClientEndpoint:
    """
    Make an endpoint that may have a name.

    @param host: the name, or C{None} if there is none to look up.
    @param make: makes the endpoint for a reactor.

    @return: a L{NamedEndpoint} if there is a name and the reactor has threads, which those of tests have not.
    """
    if host is None or not IReactorThreads.providedBy(reactor):
        return make(reactor)
    return NamedEndpoint(reactor, host, make)


@implementer(IStreamClientEndpoint)
class NamedEndpoint:
    """
    An endpoint with a name: the name is looked up for each connection, and the addresses are tried in turn until there
    is a connection.
    """

    def __init__(self, reactor: Any, host: str, make: Callable[[Any], IStreamClientEndpoint]) -> None:
        """
        @param reactor: a reactor with threads.
        @param host: the name.
        @param make: makes the endpoint, which connects to whatever address the reactor passed to it chooses.
        """
        self._reactor = reactor
        self._host = host
        self._chooser = _Chooser(reactor)
        self._endpoint = make(self._chooser)

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        """
        Look up the name and connect.

        @return: fires with the protocol of the first connection; fails with the last failure of all addresses, or with
            C{DNSLookupError}.
        """
        return Deferred.fromCoroutine(self._connect(protocolFactory))

    async def _connect(self, factory: IProtocolFactory) -> IProtocol:
        addresses = await namesOf(self._reactor).lookUp(self._host)
        if not addresses:
            raise DNSLookupError(f"{self._host}: the name has no address")
        protocol: IProtocol = await connectFirst(self._reactor, addresses, lambda each: self._attempt(each, factory))
        return protocol

    def _attempt(self, address: Address, factory: IProtocolFactory) -> Deferred[Any]:
        # The endpoint asks for the address before connect() returns.
        self._chooser.address = address
        connecting: Deferred[Any] = self._endpoint.connect(factory)
        return connecting


def connectFirst(
    reactor: Any, addresses: Iterable[Address], attempt: Callable[[Address], Deferred[Any]], delay: float = DELAY
) -> Deferred[Any]:
    """
    Connect to the first of some addresses that accepts.

    @param addresses: the addresses, at least one, in the order in which they are tried.
    @param attempt: called with an address; connects to it.
    @param delay: the seconds after which the next one is tried as well. L{HostnameEndpoint
        <twisted.internet.endpoints.HostnameEndpoint>} waits that long even if an address has failed.

    @return: fires with the first result; fails with the last failure if there is none.
    """
    race = _Race(reactor, addresses, attempt, delay)
    race.next()
    return race.result


class _Race:
    """
    The attempts of L{connectFirst}.

    @ivar result: fires with the first result.
    """

    def __init__(
        self, reactor: Any, addresses: Iterable[Address], attempt: Callable[[Address], Deferred[Any]], delay: float
    ) -> None:
        self._reactor = reactor
        self._left = list(addresses)
        self._attempt = attempt
        self._delay = delay
        self._timer: IDelayedCall | None = None
        self._pending: set[Deferred[Any]] = set()
        self.result: Deferred[Any] = Deferred(lambda result: self._end())

    def next(self) -> None:
        """
        Try the next address, and set the timer for the one after it.
        """
        self._timer = None
        attempt = self._attempt(self._left.pop(0))
        self._pending.add(attempt)
        if self._left:
            self._timer = self._reactor.callLater(self._delay, self.next)
        attempt.addCallbacks(self._won, self._lost, callbackArgs=(attempt,), errbackArgs=(attempt,))

    def _won(self, connected: Any, attempt: Deferred[Any]) -> None:
        self._pending.remove(attempt)
        self._end()
        self.result.callback(connected)

    def _lost(self, failure: Failure, attempt: Deferred[Any]) -> None:
        if attempt not in self._pending:
            return  # it was cancelled
        self._pending.remove(attempt)
        if self._timer is not None:
            self._timer.reset(0)
        elif not self._pending:
            self.result.errback(failure)

    def _end(self) -> None:
        """
        Cancel everything.
        """
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        pending, self._pending = self._pending, set()
        for attempt in pending:
            attempt.cancel()


@implementer(IHostnameResolver)
class _Chooser:
    """
    Passed to an endpoint in place of a reactor, it replaces the host of connections by one address.

    @ivar address: the address of the next connection.
    """

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self.address: Address = IPv4Address("TCP", "127.0.0.1", 0)
        directlyProvides(self, IReactorPluggableNameResolver, IHostnameResolver)

    @property
    def nameResolver(self) -> _Chooser:
        return self

    def resolveHostName(self, resolutionReceiver: Any, hostName: str, portNumber: int = 0, *others: Any) -> Any:
        resolutionReceiver.resolutionBegan(self)
        kind = IPv6Address if isinstance(self.address, IPv6Address) else IPv4Address
        resolutionReceiver.addressResolved(kind("TCP", self.address.host, portNumber))
        resolutionReceiver.resolutionComplete()
        return self

    def connectTCP(self, host: str, port: int, *args: Any, **kwargs: Any) -> Any:
        return self._reactor.connectTCP(self.address.host, port, *args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reactor, name)
