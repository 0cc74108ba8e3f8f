# -*- test-case-name: tests.routing.test_requests -*-
# Copyright txconnpool contributors. See LICENSE.
"""
The pool that programs use::

    pool = Pool(("127.0.0.1", 7), clientFactory=Factory.forProtocol(EchoClient))
    answer = await pool.performRequest("echo", b"hello")

Requests and leases share a bounded set of connections and are served in the order in which they were made. Neither
importing this module nor constructing a L{Pool} does any I/O: a pool connects when it is started, or when it is first
used.
"""

from __future__ import annotations

from collections.abc import Callable, Container
from functools import partial
from typing import Any, Literal, Unpack

from twisted.internet.defer import Deferred, fail

from txconnpool.errors import PoolError
from txconnpool.pool.base import PoolOptions
from txconnpool.pool.checks import checkParameters
from txconnpool.pool.leases import C
from txconnpool.pool.library import RequestPool
from txconnpool.routing.distribution import ROUND_ROBIN
from txconnpool.routing.library import ForKey, PoolFace
from txconnpool.routing.options import Servers


class Pool(PoolFace[C]):
    """
    A bounded set of connections to one server or to several, whose requests are method calls: the pool calls a method
    of a client that has capacity, and the result is the reply::

        class Asker(LineReceiver):
            def ask(self, line):
                self.sendLine(line)
                self.answer = Deferred()
                return self.answer

            def lineReceived(self, line):
                self.answer.callback(line)

        pool = Pool("tcp:127.0.0.1:7000", maxClients=10, clientFactory=Factory.forProtocol(Asker))
        line = await pool.performRequest("ask", b"hello")
        async with pool.connection() as asker:      # for several steps on one connection
            await asker.ask(b"one")
            await asker.ask(b"two")

    Several servers are equal unless there is a C{distribution}: any of them gets any request. With a distribution they
    share the keys, and the pool does not know which key a request is about: L{forKey} chooses the server.

    @cvar clientFactory: a subclass of L{PooledClientFactory<txconnpool.pool.library.PooledClientFactory>}, or any
        L{IProtocolFactory<twisted.internet.interfaces.IProtocolFactory>}.
    """

    clientFactory: Any = None

    def __init__(
        self,
        serverAddresses: Any,
        maxClients: int = 5,
        reactor: Any = None,
        forceShutdown: bool = False,
        *,
        clientFactory: Any = None,
        requestTimeout: float | None = 60.0,
        cancelGrace: float | None = 5.0,
        allowedCommands: Container[str] | None = None,
        distribution: str | None = None,
        hash: str | None = None,
        hashTag: str | bytes = b"",
        hashStop: str | bytes | None = None,
        hashSkip: str | bytes = b"",
        onFailure: Literal["fail", "rehash"] = "fail",
        ejectAfter: int = 2,
        minLiveServers: int | None = None,
        **options: Unpack[PoolOptions[C]],
    ) -> None:
        """
        @param serverAddresses: the address of a server, or a list of them: an endpoint string such as
            C{"tcp:127.0.0.1:7000"}, an endpoint, an C{IPv4Address}, C{IPv6Address} or C{UNIXAddress},
            C{(host, port)}, or a L{Server<txconnpool.Server>}.
        @param maxClients: the maximum number of connections, dials in progress included.
        @param reactor: the reactor to use; the global reactor if not given.
        @param forceShutdown: whether the pool closes its connections at once when the reactor stops, without waiting
            for requests in flight.
        @param clientFactory: overrides the attribute of this name.
        @param requestTimeout: seconds from the sending of a request to its reply. When they have passed, the request
            fails and its connection is closed. C{None}: no limit.
        @param cancelGrace: seconds that the connection of a cancelled request waits for the reply before it is closed;
            C{None}: no limit. A connection that is shared (C{pipelineDepth}) is not closed for this reason.
        @param allowedCommands: the methods that L{performRequest} may call; C{None}: all but those that begin with an
            underscore and those that transports call, such as C{connectionLost}.
        @param distribution: how the servers share the keys; if not given, the servers are equal. The chapter "All
            options" of C{txconnpool/library.rst} describes this parameter and the next ones, up to C{minLiveServers}.
        @param options: the options that all pools have, such as C{minClients}, C{idleTimeout}, C{whenDown} and
            C{observer}: C{txconnpool/library.rst} lists them in the chapter "All options".

        @raise ValueError: an address or an option is invalid, or the servers are not possible with the distribution.
        @raise TypeError: C{clientFactory} is neither a subclass of
            L{PooledClientFactory<txconnpool.pool.library.PooledClientFactory>} nor another factory.
        """
        checkParameters(type(self).__name__, Pool.__init__, options, PoolOptions.__annotations__)
        servers = Servers(
            serverAddresses, ROUND_ROBIN, distribution=distribution, hash=hash, hashTag=hashTag, hashStop=hashStop,
            hashSkip=hashSkip, onFailure=onFailure, ejectAfter=ejectAfter, minLiveServers=minLiveServers,
        )  # fmt: skip
        options.setdefault("name", type(self).__name__)
        makePool = partial(
            RequestPool, maxClients=maxClients, reactor=reactor, forceShutdown=forceShutdown,
            clientFactory=self.clientFactory if clientFactory is None else clientFactory,
            requestTimeout=requestTimeout, cancelGrace=cancelGrace, allowedCommands=allowedCommands, owner=self,
            **options,
        )  # fmt: skip
        super().__init__(servers, makePool)

    def performRequest(self, method: str, /, *args: Any, **kwargs: Any) -> Deferred[Any]:
        """
        Call a method of a client that has capacity, now or as soon as there is one.

        @param method: the name of the method.

        @return: a Deferred that fires with the result of the method. It fails with
            L{NoSuchCommand<txconnpool.nosuchcommand.NoSuchCommand>}, with another L{PoolError}, or as the method fails.
            Cancelling it has effect at once: a request that was not sent is dropped, and the reply to one that was sent
            is ignored.

        @raise TypeError: the servers share the keys: use L{forKey}.
        """
        pool: Any = self._only or self._theOnly()
        answer: Deferred[Any] = pool.perform(method, args, kwargs)
        return answer

    def forKey(self, key: str | bytes) -> RequestsForKey[C]:
        """
        Choose the server of a key, for a request or a lease: C{pool.forKey(key).performRequest("ask", key)}.

        @param key: text is encoded as UTF-8.
        """
        choose: Callable[[bytes], Any] = self._poolOf
        return RequestsForKey(choose, key)


class RequestsForKey(ForKey[C]):
    """
    The server of a key, for requests and leases.
    """

    __slots__ = ()

    def performRequest(self, method: str, /, *args: Any, **kwargs: Any) -> Deferred[Any]:
        """
        Call a method of a client of the server, see L{Pool.performRequest}.
        """
        try:
            pool: Any = self._choose(self._key)
        except PoolError as error:
            return fail(error)
        answer: Deferred[Any] = pool.perform(method, args, kwargs)
        return answer
