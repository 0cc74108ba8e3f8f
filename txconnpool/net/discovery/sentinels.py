# -*- test-case-name: tests.net.discovery.test_sentinels -*-
# Copyright txconnpool contributors. See LICENSE.
"""
The sentinels of Redis: servers that agree on which Redis is the master of a group, and make a replica the new one when
it fails.

See U{https://redis.io/docs/latest/develop/reference/sentinel-clients/}: a client asks one sentinel after another for
the address of the master, and subscribes to C{+switch-master} at each of them. A subscription may be lost without
notice, so the sentinels are also asked again and again. One that wants replicas, too, subscribes to their events.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure

from txconnpool.net.discovery.descriptions import (
    REPLICA,
    Description,
    Discovered,
    asAddress,
    isHostName,
    parsePort,
)
from txconnpool.net.discovery.exchanges import overTCP
from txconnpool.net.discovery.results import Answer, DiscoveryFailed, Source, explain
from txconnpool.net.endpoints import clientEndpoint

#: The longest reply of a sentinel, in bytes. It describes a replica with about 1 kB.
REPLY_MAX = 1 << 17

#: The seconds until a subscription that was lost is made again.
AGAIN = 5.0

#: The seconds until the sentinels are asked again while a replica cannot be read from. They report some changes of
#: replicas with no event.
UNREADABLE = 5.0

#: The event that there is another master, and those that there may be other replicas.
_SWITCH = b"+switch-master"
_OF_REPLICAS = (b"+sdown", b"-sdown", b"+slave", b"+slave-reconf-done", b"+reboot")

#: What the flags of a server have if it is down for the sentinel.
_DOWN = frozenset(("s_down", "o_down", "disconnected"))

_LINE = re.compile(rb"([-+:$*])([^\r\n]*)\r\n").match


def request(*words: bytes) -> bytes:
    """
    @return: the bytes of a request.
    """
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in words)


def readReply(data: bytes, pos: int, depth: int = 1) -> tuple[Any, int] | None:
    """
    Read a reply in RESP2.

    @param depth: how many levels of arrays it may have. Only that with all replicas has two.

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
        if depth == 1 and data[end : end + 1] == b"*":
            raise ValueError("not a reply of a sentinel")
        item = readReply(data, end, depth - 1)
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
    values = _values(data, replies)
    return None if values is None else _masterOf(values[-1])


def parseGroup(data: bytes, replies: int) -> tuple[tuple[str, int], list[tuple[str, int]], bool] | None:
    """
    Parse the replies to requests of which the last are C{SENTINEL GET-MASTER-ADDR-BY-NAME}, C{SENTINEL MASTER} and
    C{SENTINEL REPLICAS}.

    @param replies: how many replies are due.

    @return: host and port of the master; those of the replicas that are up and have a link to it, or had one until it
        went down; and whether there are others. C{None} if the replies are incomplete.

    @raise ValueError: there is no master. The text says why.
    """
    values = _values(data, replies)
    if values is None:
        return None
    master, entries = _masterOf(values[-3]), values[-1]
    if not isinstance(entries, list):
        raise ValueError("not a reply of a sentinel")
    described = [_described(each) for each in entries]
    isUp = _isUp(_described(values[-2]))
    usable = [each for each in described if _isUsable(each, isUp)]
    found = {_address(each.get("ip"), each.get("port"), "a replica") for each in usable} - {master}
    return master, sorted(found), len(usable) < len(described)


def _values(data: bytes, replies: int) -> list[Any] | None:
    values: list[Any] = []
    pos = 0
    while len(values) < replies:
        found = readReply(data, pos, 2)
        if found is None:
            return None
        value, pos = found
        if isinstance(value, ValueError):
            raise value
        values.append(value)
    return values


def _masterOf(value: Any) -> tuple[str, int]:
    if value is None:
        raise ValueError("it knows no master of this name")
    if not isinstance(value, list) or len(value) != 2 or not all(isinstance(each, str) for each in value):
        raise ValueError("not a reply of a sentinel")
    return _address(value[0], value[1], "the master")


def _described(entry: Any) -> dict[str, str]:
    """
    @return: what a sentinel reports of a replica.
    """
    if not isinstance(entry, list) or len(entry) % 2 or not all(isinstance(each, str) for each in entry):
        raise ValueError("not a reply of a sentinel")
    return dict(zip(entry[::2], entry[1::2], strict=True))


def _isUp(server: dict[str, str]) -> bool:
    return _DOWN.isdisjoint(server.get("flags", "s_down").split(","))


def _isUsable(replica: dict[str, str], masterIsUp: bool) -> bool:
    """
    @return: whether a replica is up, follows its master, and may be named to clients (C{replica-announced}). If the
        master is down, no replica has a link to it.
    """
    isLinked = replica.get("master-link-status") == "ok" or not masterIsUp
    return _isUp(replica) and isLinked and replica.get("replica-announced", "1") != "0"


def _address(host: Any, port: Any, whose: str) -> tuple[str, int]:
    if asAddress(str(host)) is None and not isHostName(str(host)):
        raise ValueError(f"{whose} has the wrong address {str(host)[:100]!r}")
    return host, parsePort(str(port))


class Sentinels(Source):
    """
    A source of servers: the master that the sentinels name, and its replicas if they are wanted.
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
        return Deferred.fromCoroutine(self._ask()).addTimeout(self._timeLimit, self._reactor)

    def _endpoint(self, host: str, port: int) -> Any:
        """
        @return: the endpoint of a sentinel. It is made for each connection, so that new certificates are used.
        """
        return clientEndpoint(self._reactor, self._description.tls.endpoint(host, port))

    async def _ask(self) -> Answer:
        failures = []
        share = self._timeLimit / len(self._places)
        name, replicas = self._description.name.encode(), self.replicas
        asked = self._greeting() + request(b"SENTINEL", b"GET-MASTER-ADDR-BY-NAME", name)
        replies = 1 + bool(self.login)
        if replicas:
            asked += request(b"SENTINEL", b"MASTER", name) + request(b"SENTINEL", b"REPLICAS", name)
            replies += 2
        parse: Callable[[bytes, int], Any] = parseGroup if replicas else parseMaster
        for place in list(self._places):
            try:
                found = await overTCP(
                    self._endpoint(*place), asked, lambda data: parse(data, replies), REPLY_MAX
                ).addTimeout(share, self._reactor)
            except CancelledError:
                raise
            except Exception as error:
                failures.append(f"{place[0]}:{place[1]}: {explain(error)}")
                continue
            self._places.sort(key=lambda each: each != place)
            return self._answer(*found) if replicas else self._answer(found)
        raise DiscoveryFailed("; ".join(failures))

    def _answer(
        self, master: tuple[str, int], replicas: Sequence[tuple[str, int]] = (), others: bool = False
    ) -> Answer:
        endpoint = self._description.tls.endpoint
        found = (Discovered(endpoint(*master)), *(Discovered(endpoint(*each), REPLICA) for each in replicas))
        return Answer(found, UNREADABLE) if others else Answer(found)

    def _greeting(self) -> bytes:
        return b"" if self.login is None else request(b"AUTH", *self.login)

    # -- Events

    def watch(self, notify: Callable[[], object]) -> None:
        """
        Subscribe to the events of all sentinels.

        @param notify: called when the master has changed.
        """
        # The events of replicas arrive in any case: whether they are wanted may change.
        channels = request(b"SUBSCRIBE", _SWITCH, *_OF_REPLICAS)
        for place in self._places:
            subscription = _Subscription(
                partial(self._endpoint, *place), lambda: self._greeting() + channels, self._concerns, notify,
                self._reactor,
            )  # fmt: skip
            self._subscriptions.append(subscription)
            subscription.start()

    def _concerns(self, event: str, text: str) -> bool:
        """
        @param text: for another master its name, old host, old port, new host, new port; for a replica its kind, name,
            host, port, C{@}, and the name of the master.

        @return: whether an event may change the servers.
        """
        words, name = text.split(" "), self._description.name
        if event == _SWITCH.decode():
            return words[0] == name
        return self.replicas and words[0] == "slave" and words[4:6] == ["@", name]

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
        concerns: Callable[[str, str], bool],
        notify: Callable[[], object],
        reactor: Any,
    ) -> None:
        self._endpoint = endpoint
        self._request = request
        self._concerns = concerns
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
            if isinstance(value, list) and len(value) == 3 and value[0] == "message":
                event, text = value[1:]
                if self._concerns(str(event), str(text)):
                    self._notify()
        if len(data) - pos > REPLY_MAX:
            raise ValueError("too long")
        return data[pos:]

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
