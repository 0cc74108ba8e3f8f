# -*- test-case-name: tests.net.discovery.test_sentinels -*-
# Copyright txconnpool contributors. See LICENSE.
"""
The sentinels of Redis: servers that agree on which Redis is the master of a group, and make a replica the new one when
it fails.

See U{https://redis.io/docs/latest/develop/reference/sentinel-clients/}: a client asks one sentinel after another for
the address of the master, and subscribes to C{+switch-master} at each of them. A subscription may be lost without
notice, so the sentinels are also asked again and again.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure

from txconnpool.net.discovery.descriptions import (
    Description,
    Discovered,
    asAddress,
    isHostName,
    parsePort,
)
from txconnpool.net.discovery.exchanges import overTCP
from txconnpool.net.discovery.results import Answer, DiscoveryFailed, Source, explain
from txconnpool.net.endpoints import clientEndpoint

#: The longest reply of a sentinel, in bytes.
REPLY_MAX = 1 << 16

#: The seconds until a subscription that was lost is made again.
AGAIN = 5.0

_LINE = re.compile(rb"([-+:$*])([^\r\n]*)\r\n").match


def request(*words: bytes) -> bytes:
    """
    @return: the bytes of a request.
    """
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in words)


def readReply(data: bytes, pos: int) -> tuple[Any, int] | None:
    """
    Read a reply in RESP2. Those of sentinels have no arrays in arrays.

    @return: what it says, and its end: a text; a list of texts; C{None} for a null; a C{ValueError} for an error.
        C{None} if it is incomplete.

    @raise ValueError: it is no such reply.
    """
    found = _LINE(data, pos)
    if found is None:
        if b"\r\n" in data[pos:] or not re.match(rb"[-+:$*]|\Z", data[pos : pos + 1]):
            raise ValueError("not a reply of a sentinel")
        return None
    kind, text, end = found[1], found[2].decode("utf-8", "replace"), found.end()
    if kind in b"+:":
        return text, end
    if kind == b"-":
        return ValueError(f"it answers {text[:200]}"), end
    if not re.fullmatch(r"-1|[0-9]{1,5}", text):
        raise ValueError("not a reply of a sentinel")
    size = int(text)
    if size < 0:
        return None, end
    if kind == b"$":
        stop = end + size + 2
        return (data[end : stop - 2].decode("utf-8", "replace"), stop) if len(data) >= stop else None
    items: list[Any] = []
    for _ in range(size):
        if data[end : end + 1] == b"*":
            raise ValueError("not a reply of a sentinel")
        item = readReply(data, end)
        if item is None:
            return None
        items.append(item[0])
        end = item[1]
    return items, end


def parseMaster(data: bytes, replies: int) -> tuple[str, int] | None:
    """
    Parse the replies to requests of which the last is C{SENTINEL GET-MASTER-ADDR-BY-NAME}.

    @param replies: how many replies are due.

    @return: host and port of the master; C{None} if the replies are incomplete.

    @raise ValueError: there is none. The text says why.
    """
    value: Any = None
    pos = 0
    for _ in range(replies):
        found = readReply(data, pos)
        if found is None:
            return None
        value, pos = found
        if isinstance(value, ValueError):
            raise value
    if value is None:
        raise ValueError("it knows no master of this name")
    if not isinstance(value, list) or len(value) != 2 or not all(isinstance(each, str) for each in value):
        raise ValueError("not a reply of a sentinel")
    host, port = value
    if asAddress(host) is None and not isHostName(host):
        raise ValueError(f"the master has the wrong address {host[:100]!r}")
    return host, parsePort(port)


class Sentinels(Source):
    """
    A source of servers: the master that the sentinels name.
    """

    def __init__(self, description: Description, reactor: Any, timeLimit: float) -> None:
        self._description = description
        self._reactor = reactor
        self._timeLimit = timeLimit
        self._places = list(description.sentinels)
        self._subscriptions: list[_Subscription] = []

    def lookUp(self) -> Deferred[Answer]:
        """
        Ask one sentinel after the other, first the one that has answered last.
        """
        return Deferred.fromCoroutine(self._master()).addTimeout(self._timeLimit, self._reactor)

    def _endpoint(self, host: str, port: int) -> Any:
        """
        @return: the endpoint of a sentinel. It is made for each connection, so that new certificates are used.
        """
        return clientEndpoint(self._reactor, self._description.tls.endpoint(host, port))

    async def _master(self) -> Answer:
        failures = []
        share = self._timeLimit / len(self._places)
        asked = self._greeting() + request(b"SENTINEL", b"GET-MASTER-ADDR-BY-NAME", self._description.name.encode())
        replies = 1 + bool(self.login)
        for place in list(self._places):
            try:
                host, port = await overTCP(
                    self._endpoint(*place), asked, lambda data: parseMaster(data, replies), REPLY_MAX
                ).addTimeout(share, self._reactor)
            except CancelledError:
                raise
            except Exception as error:
                failures.append(f"{place[0]}:{place[1]}: {explain(error)}")
                continue
            self._places.sort(key=lambda each: each != place)
            return Answer((Discovered(self._description.tls.endpoint(host, port)),))
        raise DiscoveryFailed("; ".join(failures))

    def _greeting(self) -> bytes:
        return b"" if self.login is None else request(b"AUTH", *self.login)

    # -- Events

    def watch(self, notify: Callable[[], object]) -> None:
        """
        Subscribe to the events of all sentinels.

        @param notify: called when the master has changed.
        """
        channel = request(b"SUBSCRIBE", b"+switch-master")
        for place in self._places:
            subscription = _Subscription(
                partial(self._endpoint, *place), lambda: self._greeting() + channel, self._description.name, notify,
                self._reactor,
            )  # fmt: skip
            self._subscriptions.append(subscription)
            subscription.start()

    def unwatch(self) -> None:
        """
        End the subscriptions.
        """
        subscriptions, self._subscriptions = self._subscriptions, []
        for each in subscriptions:
            each.stop()


class _Subscription(Factory):
    """
    The subscription at one sentinel. It is made again when it is lost.
    """

    noisy = False

    def __init__(
        self,
        endpoint: Callable[[], Any],
        request: Callable[[], bytes],
        name: str,
        notify: Callable[[], object],
        reactor: Any,
    ) -> None:
        self._endpoint = endpoint
        self._request = request
        self._name = name
        self._notify = notify
        self._reactor = reactor
        self._connecting: Deferred[Any] | None = None
        self._timer: IDelayedCall | None = None
        self.protocol: Any = None

    def start(self) -> None:
        self._timer = None
        self._connecting = connecting = self._endpoint().connect(self)
        connecting.addCallbacks(self._connected, self._again)

    def stop(self) -> None:
        connecting, self._connecting = self._connecting, None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        elif self.protocol is not None:
            protocol, self.protocol = self.protocol, None
            protocol.transport.abortConnection()
        elif connecting is not None:
            connecting.cancel()

    def buildProtocol(self, addr: Any) -> _Subscriber:
        return _Subscriber(self)

    def _connected(self, protocol: Any) -> None:
        if self._connecting is None:
            protocol.transport.abortConnection()
            return
        self.protocol = protocol
        protocol.transport.write(self._request())

    def _again(self, reason: Failure) -> None:
        if self._connecting is not None:
            self._timer = self._reactor.callLater(AGAIN, self.start)

    def received(self, data: bytes) -> bytes:
        """
        Read the replies and messages.

        @return: what is incomplete.

        @raise ValueError: it is something else.
        """
        pos = 0
        while pos < len(data) and (found := readReply(data, pos)) is not None:
            value, pos = found
            if isinstance(value, ValueError):
                raise value
            # The text is: name, old host, old port, new host, new port.
            if isinstance(value, list) and value[:2] == ["message", "+switch-master"] and self._concerns(value[2:]):
                self._notify()
        if len(data) - pos > REPLY_MAX:
            raise ValueError("too long")
        return data[pos:]

    def _concerns(self, texts: list[Any]) -> bool:
        return bool(texts) and str(texts[0]).split(" ")[0] == self._name

    def lost(self, reason: Failure) -> None:
        """
        The connection has ended.
        """
        if self.protocol is not None:
            self.protocol = None
            self._again(reason)


class _Subscriber(Protocol):
    """
    The connection of a subscription.
    """

    transport: Any

    def __init__(self, subscription: _Subscription) -> None:
        self._subscription = subscription
        self._data = b""

    def dataReceived(self, data: bytes) -> None:
        try:
            self._data = self._subscription.received(self._data + data)
        except ValueError:
            self.transport.abortConnection()  # it is made again, and the sentinels are asked as well

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._subscription.lost(reason)
