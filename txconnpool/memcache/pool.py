# -*- test-case-name: tests.memcache.test_pool -*-
# Copyright txconnpool contributors. See LICENSE.
"""
A memcached client on a pool of connections::

    pool = MemCachePool(("127.0.0.1", 11211))
    await pool.set("greeting", b"hello", expireTime=60)
    flags, value = await pool.get("greeting")

Names and results of the commands are those of L{twisted.protocols.memcache.MemCacheProtocol}. All calls share the
connections: requests of one turn of the reactor are written together, and concurrent C{get}s are sent as one request
for several keys. So the order in which concurrent calls are executed is undefined: wait for the result of a call before
a call that depends on it.
"""

from __future__ import annotations

from collections.abc import Callable, Container
from functools import partial
from typing import Any, Final, Generic, Literal, Unpack

from twisted.internet.defer import Deferred, fail, gatherResults, maybeDeferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from txconnpool.errors import NoSuchCommand
from txconnpool.memcache.arguments import checkNumber
from txconnpool.memcache.commands import statisticsRequest
from txconnpool.memcache.computing import Computations
from txconnpool.memcache.connections import MemCacheConnections, allOf, probe
from txconnpool.memcache.errors import InvalidArgument
from txconnpool.memcache.recipes import MemCacheRecipes
from txconnpool.memcache.results import Key, V, statistics
from txconnpool.memcache.values import Codec, Compressor, Serializer
from txconnpool.net.loglimit import LogLimit
from txconnpool.pool.base import CommonOptions
from txconnpool.pool.calls import SingleRequest
from txconnpool.pool.checks import checkMethod, checkNames, checkParameters, checkSeconds, checkType, checkWhole
from txconnpool.pool.connection import Connection
from txconnpool.pool.handshake import Handshake
from txconnpool.routing.library import ForKey, PoolFace
from txconnpool.routing.options import Servers, encoded
from txconnpool.wire.memcache import replies
from txconnpool.wire.memcache.classic import INT32, checkKey
from txconnpool.wire.memcache.dialect import Memcache
from txconnpool.wire.memcache.statistics import numbered

_log = Logger("txconnpool.pool")

__all__ = ["MemCachePool", "probe"]

#: How often a failed server of a C{getMultiple} is logged, in seconds.
PERIOD: Final = 60.0


class MemCacheOptions(CommonOptions[Connection], Generic[V], total=False):
    """
    The options of L{MemCachePool} that are keywords, and C{maxClients} and C{forceShutdown}; L{MemCachePool.__init__}
    describes them.
    """

    maxClients: int
    forceShutdown: bool
    waitTimeout: float | None
    connectTimeout: float | None
    requestTimeout: float | None
    replyTimeout: float | None
    pipelineDepth: int
    batchSize: int
    maxItemSize: int
    configure: Callable[[Connection], object] | None
    allowedCommands: Container[str] | None
    distribution: str | None
    hash: str | None
    hashTag: str | bytes
    hashStop: str | bytes | None
    hashSkip: str | bytes
    onFailure: Literal["fail", "rehash"]
    ejectAfter: int
    minLiveServers: int | None
    partialGets: Literal["misses", "error"]
    login: tuple[str | bytes, str | bytes] | None
    namespace: str | bytes
    expireTime: int
    serializer: Serializer[V] | None
    compressor: Compressor | None


class MemCachePool(PoolFace[Connection], MemCacheRecipes[V]):
    """
    A memcached client::

        pool = MemCachePool("tcp:127.0.0.1:11211")
        await pool.set("greeting", b"hello", expireTime=60)
        flags, value = await pool.get("greeting")

    It has one server, or several that share the keys, as other clients and proxies do it (C{distribution}). Each
    request is sent to the server of its key, and C{getMultiple} to those of its keys.

    With C{distribution="round-robin"} the servers are equal: copies of one another, or proxies to the same servers.
    Each key may be requested from any of them then.

    All errors are failures of the C{Deferred}s that the commands return:

      - L{InvalidArgument<txconnpool.memcache.errors.InvalidArgument>} for an invalid argument; nothing is sent.
      - L{ServerError<txconnpool.memcache.errors.ServerError>},
        L{ClientError<txconnpool.memcache.errors.ClientError>} or
        L{NoSuchCommand<txconnpool.nosuchcommand.NoSuchCommand>} for an error reply of the server.
      - another L{PoolError<txconnpool.errors.PoolError>} if there is no reply; the errors above are L{PoolError}s too.

    A command may be cancelled at any time. If it was not sent yet, it never is; otherwise its reply is dropped.

    Reads (C{get}, C{gets}, C{getMultiple}, C{version}, C{stats}) are tried once more if their connection is lost.
    """

    def __init__(
        self,
        serverAddresses: Any,
        maxClients: int = 5,
        reactor: Any = None,
        forceShutdown: bool = False,
        *,
        waitTimeout: float | None = 5.0,
        connectTimeout: float | None = 5.0,
        requestTimeout: float | None = 5.0,
        replyTimeout: float | None = 60.0,
        pipelineDepth: int = 100,
        batchSize: int = 64,
        maxItemSize: int = 1 << 20,
        configure: Callable[[Connection], object] | None = probe,
        allowedCommands: Container[str] | None = None,
        distribution: str | None = None,
        hash: str | None = None,
        hashTag: str | bytes = b"",
        hashStop: str | bytes | None = None,
        hashSkip: str | bytes = b"",
        onFailure: Literal["fail", "rehash"] = "fail",
        ejectAfter: int = 2,
        minLiveServers: int | None = None,
        partialGets: Literal["misses", "error"] = "misses",
        login: tuple[str | bytes, str | bytes] | None = None,
        namespace: str | bytes = b"",
        expireTime: int = 0,
        serializer: Serializer[V] | None = None,
        compressor: Compressor | None = None,
        **options: Unpack[CommonOptions[Connection]],
    ) -> None:
        """
        @param serverAddresses: the address of a server, or a list of them: an endpoint string such as
            C{"tcp:127.0.0.1:11211"}, an endpoint, an C{IPv4Address}, C{IPv6Address} or C{UNIXAddress},
            C{(host, port)}, or a L{Server<txconnpool.Server>}. An endpoint string may be followed by
            words: C{"tcp:10.0.0.1:11211 weight=2 label=cache-1"}.
        @param maxClients: the maximum number of connections to all servers together; each may have at least one. One is
            enough for most programs: another one is dialed only while all have requests in flight.
        @param waitTimeout: the seconds that a request waits for a connection; C{None}: no limit.
        @param connectTimeout: the seconds until a new connection must be ready; C{None}: no limit.
        @param requestTimeout: the seconds that a server may be silent while requests are in flight. A late reply closes
            its connection and fails all requests in flight on it.
        @param replyTimeout: the seconds that the server may take for one reply whose bytes keep coming; C{None}: no
            limit.
        @param pipelineDepth: the maximum number of requests in flight on one connection.
        @param batchSize: the maximum number of keys in one request. 1 sends every C{get} as a request of its own.
        @param maxItemSize: the maximum length of a value, in bytes: the same number as memcached's option C{-I}.
        @param configure: called with each new connection before it is used; L{probe} if not given.
        @param allowedCommands: the names that L{performRequest} accepts; C{None}: those of all commands.
        @param distribution: the system whose map of keys to servers is used, C{"ketama"} if not given. The
            chapter "All options" of C{txconnpool/library.rst} describes this parameter and the next ones, up to
            C{minLiveServers}. C{"round-robin"} is for equal servers.
        @param partialGets: what C{getMultiple} results in if some of the servers have failed: C{"misses"} for their
            keys, or the C{"error"} of one of them.
        @param login: user and password for servers that require a login (memcached's option C{-Y}).
        @param namespace: a text that is put before all keys. It counts for their length. Results have the keys of the
            caller. L{flushAll} deletes all keys nevertheless.
        @param expireTime: the expiry time of values that are stored without one, see
            L{set<txconnpool.memcache.commands.MemCacheCommands.set>}.
        @param serializer: makes bytes of values, and values of bytes, so that they need not be bytes; see
            L{Serializer<txconnpool.memcache.values.Serializer>}.
        @param compressor: makes the bytes shorter, see L{Compressor<txconnpool.memcache.values.Compressor>}.
        @param options: the options that all pools have, such as C{minClients}, C{idleTimeout}, C{whenDown} and
            C{observer}: C{txconnpool/library.rst} lists them in the chapter "All options". A borrowed client is a
            L{Connection}. C{observer} is not notified of single replies.

        @raise ValueError: an address or an option is invalid, or the servers are not possible with the distribution.
        """
        if reactor is None:
            from twisted.internet import reactor
        checkParameters(type(self).__name__, MemCachePool.__init__, options, CommonOptions.__annotations__)
        for each, seconds in (("requestTimeout", requestTimeout), ("replyTimeout", replyTimeout)):
            checkSeconds(each, seconds, above=True)
        checkWhole("batchSize", batchSize, 1)
        checkWhole("maxItemSize", maxItemSize, 1)
        if partialGets not in ("misses", "error"):
            raise ValueError(f"partialGets must be 'misses' or 'error', not {partialGets!r}")
        checkNames("allowedCommands", allowedCommands)
        checkWhole("expireTime", expireTime, INT32[0], most=INT32[1])
        checkType("namespace", namespace, (str, bytes), "a text")
        self._namespace = encoded(namespace)
        if self._namespace:
            try:
                checkKey(self._namespace + b"k")
            except ValueError as reason:
                raise ValueError(f"namespace {namespace!r} is no beginning of a key: {reason}") from None
        self._expireTime = expireTime
        self._codec = Codec(serializer, compressor, maxItemSize)
        name = options.setdefault("name", type(self).__name__)
        configure = _preparation(name or type(self).__name__, configure, checkedLogin(login))
        servers = Servers(
            serverAddresses, "ketama", 11211, distribution=distribution, hash=hash, hashTag=hashTag, hashStop=hashStop,
            hashSkip=hashSkip, onFailure=onFailure, ejectAfter=ejectAfter, minLiveServers=minLiveServers,
        )  # fmt: skip
        makePool = partial(
            MemCacheConnections, maxClients=maxClients, reactor=reactor, forceShutdown=forceShutdown,
            waitTimeout=waitTimeout, connectTimeout=connectTimeout, requestTimeout=requestTimeout,
            replyTimeout=replyTimeout, pipelineDepth=pipelineDepth, batchSize=batchSize, configure=configure, **options,
        )  # fmt: skip
        PoolFace.__init__(self, servers, makePool)
        self._computations: Computations[V] = Computations(
            self.reactor, self._codec, self._perform, self._getNamed, self._storeNamed
        )
        self._partialError = partialGets == "error"
        self._partialLog = LogLimit(self.reactor.seconds, PERIOD)
        self._allowed = allowedCommands

    def performRequest(self, method: str, /, *args: Any, **kwargs: Any) -> Deferred[Any]:
        """
        Call a command by its name.

        @return: fires with the result of the command. Fails with L{NoSuchCommand} if there is no such command, or if
            C{allowedCommands} excludes it.

        @raise TypeError: C{method} is no name.
        """
        checkMethod(method)
        # The table has the methods of this class, not those of a subclass: a subclass may implement its methods by
        # performRequest, as with 0.1.2.
        command = _COMMANDS.get(method)
        if command is None or (self._allowed is not None and method not in self._allowed):
            return fail(NoSuchCommand(f"{method!r} is no command"))
        return maybeDeferred(partial(command, self, *args, **kwargs))

    def forKey(self, key: Key) -> ForKey[Connection]:
        """
        Choose the server of a key. Nothing is kept: the result may be dropped, or used again.

        @param key: text is encoded as UTF-8. The C{namespace} is put before it.

        @return: has the methods for leases of this pool; they concern the server of the key.
        """
        return ForKey(self._poolOf, self._namespace + encoded(key))

    # -- The servers

    def close(self, timeout: float | None = 5.0) -> Deferred[None]:
        """
        Accept no more requests, refuse the waiters, let requests in flight and leases end, and close all connections.

        @param timeout: seconds until connections with requests in flight or leases are closed too; C{None}: no limit.

        @return: a Deferred that fires when no connection, dial or timer is left.
        """
        closed = super().close(timeout)
        self._computations.close()
        return closed

    def flushAll(self, delay: int = 0) -> Deferred[bool]:
        """
        Delete all keys on every server. With equal servers, nothing is deleted if one of them cannot be reached; with
        servers that share the keys, each that can be reached deletes its own.

        @param delay: the servers do it after this number of seconds.

        @return: fires with C{True}. Fails if one of the servers does.
        """
        try:
            seconds = checkNumber("delay", delay, (0, INT32[1]))
        except InvalidArgument as error:
            return fail(error)
        request = b"flush_all %d\r\n" % seconds if seconds else b"flush_all\r\n"
        if self._only is not None:
            flushed: Deferred[bool] = self._only.sendEach(replies.FLUSH_ALL, request)
            return flushed
        return allOf([pool.sendEach(replies.FLUSH_ALL, request) for pool in self._router.pools])

    def serverStats(self, arg: Key | None = None) -> Deferred[dict[bytes, bytes]]:
        """
        Ask the servers for their statistics. Equal servers have the same ones, so any of them is asked.

        @param arg: the group of statistics, such as C{"items"}; the general ones if not given.

        @return: fires with the values by their names. With servers that share the keys, each name begins with the
            number of its server and a colon: C{b"1:curr_items"}. A server that has failed has the name C{b"2:error"}.
        """
        if self._only is not None:
            return super().serverStats(arg)
        try:
            request = statisticsRequest(arg)
        except InvalidArgument as error:
            return fail(error)
        asked = []
        for pool in self._router.pools:
            each = SingleRequest(pool, replies.STATS, request, lambda reply: reply)
            pool.send(each)
            asked.append(each.result.addErrback(_failed))
        return gatherResults(asked).addCallback(_joined)

    def _countPartial(self, error: Exception) -> bool:
        self.counters.partial += 1
        if self._partialLog.add():
            _log.warn(
                "{pool}: a server has failed, and getMultiple gets {what}: {error}",
                pool=self.name,
                what="an error" if self._partialError else "misses for its keys",
                error=error,
            )
        return not self._partialError


def checkedLogin(login: Any) -> tuple[bytes, bytes] | None:
    """
    Check a user and password.

    @raise TypeError: they are no pair of texts.
    @raise ValueError: one is empty, or memcached could not read it.
    """
    if login is None:
        return None
    if not (
        isinstance(login, tuple | list) and len(login) == 2 and all(isinstance(each, str | bytes) for each in login)
    ):
        raise TypeError("login must be a user and a password, such as ('user', 'password'), or None")
    user, password = (encoded(each) for each in login)
    for name, text in (("user", user), ("password", password)):
        if not text or any(byte <= 32 or byte == 127 for byte in text):
            raise ValueError(f"the {name} of login must not be empty, and must have no spaces or control characters")
    return user, password


def _preparation(
    name: str, configure: Callable[[Connection], object] | None, login: tuple[bytes, bytes] | None
) -> Callable[[Connection], object] | None:
    """
    @return: what prepares a new connection: the handshake of the dialect, then C{configure}.
    """
    if configure is not probe and login is None:
        return configure
    handshake = Handshake(name, Memcache(), login, "login")
    if configure is probe or configure is None:
        return handshake

    async def prepare(connection: Connection) -> None:
        await handshake(connection)
        await maybeDeferred(configure, connection)

    return prepare


def _failed(failure: Failure) -> bytes:
    return b"%b\r\n" % str(failure.value).encode()


def _joined(replies: list[bytes]) -> dict[bytes, bytes]:
    return statistics(numbered([], replies))


#: The commands that L{MemCachePool.performRequest} accepts.
_COMMANDS: Final[dict[str, Callable[..., Deferred[Any]]]] = {
    name: getattr(MemCachePool, name)
    for name in (
        *("get", "gets", "getMultiple", "getAndTouch", "set", "add", "replace", "append", "prepend", "checkAndSet"),
        *("increment", "decrement", "touch", "delete", "flushAll", "version", "serverStats"),
    )
} | {"stats": MemCachePool.serverStats}  # the name of Twisted's MemCacheProtocol
