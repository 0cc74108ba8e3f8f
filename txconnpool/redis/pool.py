# -*- test-case-name: tests.redis.test_pool -*-
# Copyright txconnpool contributors. See LICENSE.
"""
A Redis client on a pool of connections::

    pool = RedisPool(("127.0.0.1", 6379))
    await pool.set("greeting", b"hello", ex=60)
    value = await pool.get("greeting")

Names of the commands are those of redis-py. All calls share the connections: requests of one turn of the reactor are
written together, and none waits for the reply to another. So the order in which concurrent calls are executed is
undefined: wait for the result of a call before a call that depends on it, or use C{pipeline}.
"""

from __future__ import annotations

import codecs
from collections.abc import Callable, Iterable
from functools import partial
from math import inf
from typing import Any, Final, Literal, Unpack, overload

from twisted.internet.defer import Deferred, fail, maybeDeferred

from txconnpool.pool.base import CommonOptions, PoolOptions
from txconnpool.pool.calls import CallingPool
from txconnpool.pool.checks import checkParameters, checkSeconds, checkType, checkWhole
from txconnpool.pool.connection import Connection
from txconnpool.pool.handshake import Handshake
from txconnpool.redis.arguments import OTHER, Key, encodeWords, listOf
from txconnpool.redis.base import Convert, Meanings, V
from txconnpool.redis.clustering import ClusterSender
from txconnpool.redis.commands import RedisCommands
from txconnpool.redis.errors import InvalidArgument
from txconnpool.redis.pipeline import Pipeline, Transaction
from txconnpool.redis.scripts import Lock, Script
from txconnpool.redis.sending import Sender
from txconnpool.redis.subscription import Subscription
from txconnpool.routing.clientcluster import ClusterServers, ReadFrom, checkReadFrom, clusterOf
from txconnpool.routing.clientreplicas import ReplicatedServers
from txconnpool.routing.following import FollowingPool, sentinelsOf
from txconnpool.routing.library import ForKey, PoolFace
from txconnpool.routing.options import Servers, encoded
from txconnpool.wire.redis.commands import COMMANDS, RedisCommand
from txconnpool.wire.redis.dialect import Redis

#: The seconds until a subscription asks for another connection, if there is none.
RESUBSCRIBE: Final = 1.0


class ClientDialect(Redis):
    """
    The dialect of a client, which sends commands that the table lacks, too.
    """

    commands = (*COMMANDS, OTHER)


class RedisOptions(PoolOptions[Connection], total=False):
    """
    The keywords of L{RedisPool}, except C{decode}, on which the type of the values depends.
    """

    requestTimeout: float | None
    replyTimeout: float | None
    database: int
    protocol: Literal[2, 3]
    login: str | bytes | tuple[str | bytes, str | bytes] | None
    namespace: str | bytes
    distribution: str | None
    hash: str | None
    hashTag: str | bytes
    hashStop: str | bytes | None
    hashSkip: str | bytes
    onFailure: Literal["fail", "rehash"]
    ejectAfter: int
    minLiveServers: int | None
    readFrom: ReadFrom
    sentinelLogin: str | bytes | tuple[str | bytes, str | bytes] | None


class RedisPool(PoolFace[Connection], RedisCommands[V]):
    """
    A Redis client::

        pool = RedisPool("tcp:127.0.0.1:6379")
        await pool.set("greeting", b"hello", ex=60)
        value = await pool.get("greeting")

    It has one server, or several that share the keys (C{distribution}). Each request is sent to the server of its keys.
    The keys of one request must be on one server. Only C{mget}, C{mset}, C{delete}, C{unlink}, C{exists} and C{touch}
    are divided among several ones. C{dbsize}, C{keys}, C{flushdb}, C{scan} and C{script_load} concern all servers.
    The nodes of a cluster are such servers too, which report themselves which of them has which keys.

    All errors are failures of the C{Deferred}s that the commands return:

      - L{InvalidArgument<txconnpool.redis.InvalidArgument>} for an invalid argument; nothing is sent.
      - L{ResponseError<txconnpool.redis.ResponseError>}, or a subclass of it, for an error reply of the server.
      - another L{PoolError<txconnpool.errors.PoolError>} if there is no reply; the errors above are L{PoolError}s too.

    A command may be cancelled at any time. If it was not sent yet, it never is; otherwise its reply is dropped.
    Commands that only read are tried once more if their connection is lost.

    A command that waits on the server, such as C{blpop}, and a subscription have a connection of their own meanwhile:
    C{maxClients} must have room for them.
    """

    @overload
    def __init__(
        self: RedisPool[bytes],
        serverAddresses: Any,
        maxClients: int = 5,
        reactor: Any = None,
        forceShutdown: bool = False,
        *,
        decode: None = None,
        **options: Unpack[RedisOptions],
    ) -> None: ...

    @overload
    def __init__(
        self: RedisPool[str],
        serverAddresses: Any,
        maxClients: int = 5,
        reactor: Any = None,
        forceShutdown: bool = False,
        *,
        decode: str,
        **options: Unpack[RedisOptions],
    ) -> None: ...

    def __init__(
        self,
        serverAddresses: Any,
        maxClients: int = 5,
        reactor: Any = None,
        forceShutdown: bool = False,
        *,
        decode: str | None = None,
        waitTimeout: float | None = 5.0,
        connectTimeout: float | None = 5.0,
        requestTimeout: float | None = 5.0,
        replyTimeout: float | None = 60.0,
        pipelineDepth: int = 100,
        configure: Callable[[Connection], object] | None = None,
        database: int = 0,
        protocol: Literal[2, 3] = 3,
        login: str | bytes | tuple[str | bytes, str | bytes] | None = None,
        namespace: str | bytes = b"",
        distribution: str | None = None,
        hash: str | None = None,
        hashTag: str | bytes = b"{}",
        hashStop: str | bytes | None = None,
        hashSkip: str | bytes = b"",
        onFailure: Literal["fail", "rehash"] = "fail",
        ejectAfter: int = 2,
        minLiveServers: int | None = None,
        readFrom: ReadFrom = "primary",
        sentinelLogin: str | bytes | tuple[str | bytes, str | bytes] | None = None,
        **options: Unpack[CommonOptions[Connection]],
    ) -> None:
        """
        @param serverAddresses: the address of a server, or a list of them: an endpoint string such as
            C{"tcp:127.0.0.1:6379"}, an endpoint, an C{IPv4Address}, C{IPv6Address} or C{UNIXAddress},
            C{(host, port)}, or a L{Server<txconnpool.Server>}; or a cluster: C{"cluster:10.0.0.1:6379,10.0.0.2:6379"},
            C{"cluster:dns:NAME:PORT"} or C{"cluster:srv:NAME"}; or the master that sentinels name:
            C{"sentinel:NAME@10.0.0.1:26379,10.0.0.2:26379"}.
        @param maxClients: the maximum number of connections to all servers together; each may have at least one.
        @param decode: an encoding, such as C{"utf-8"}: values and other strings in replies are C{str} then. Bytes that
            are invalid in it become surrogates, and are sent as the same bytes again.
        @param waitTimeout: the seconds that a request waits for a connection; C{None}: no limit.
        @param connectTimeout: the seconds until a new connection must be ready; C{None}: no limit.
        @param requestTimeout: the seconds that a server may be silent while requests are in flight. A late reply closes
            its connection and fails all requests in flight on it. The timeout of a blocking command is added.
        @param replyTimeout: the seconds that the server may take for one reply whose bytes keep coming; C{None}: no
            limit.
        @param pipelineDepth: the maximum number of requests in flight on one connection.
        @param configure: called with each new connection before it is used, after the handshake.
        @param database: the number of the database.
        @param protocol: the version of RESP. 2 is for servers before Redis 6.
        @param login: the password, or user and password.
        @param namespace: a text that is put before all keys of requests, not before channels. Results of the methods
            have the keys of the caller, those of C{execute} and of scripts have the namespace.
        @param distribution: the system whose map of keys to servers is used, C{"ketama"} if not given. The
            chapter "All options" of C{txconnpool/library.rst} describes this parameter and the next ones, up to
            C{minLiveServers}.
        @param readFrom: which servers get commands that read, of a cluster or of those that sentinels name:
            C{"primary"}; C{"prefer-replica"}: replicas, or the primary if none is up; C{"replica"}: only replicas, so
            that they fail if none is up; C{"nearest"}: the node with the shortest reply time. A replica may have an
            older value than its primary.
        @param sentinelLogin: the password, or user and password, for the sentinels.
        @param options: the options that all pools have, such as C{minClients}, C{idleTimeout}, C{whenDown} and
            C{observer}: C{txconnpool/library.rst} lists them in the chapter "All options". A borrowed client is a
            L{Connection<txconnpool.pool.connection.Connection>}.

        @raise ValueError: an address or an option is invalid, or the servers are not possible with the distribution.
        """
        if reactor is None:
            from twisted.internet import reactor
        checkParameters(type(self).__name__, RedisPool.__init__, options, CommonOptions.__annotations__)
        for each, seconds in (("requestTimeout", requestTimeout), ("replyTimeout", replyTimeout)):
            checkSeconds(each, seconds, above=True)
        checkWhole("database", database, 0)
        if protocol not in (2, 3):
            raise ValueError(f"protocol must be 2 or 3, not {protocol!r}")
        checkType("namespace", namespace, (str, bytes), "a text")
        if decode is not None:
            try:
                codecs.lookup(decode)
            except (LookupError, TypeError):
                raise ValueError(f"decode must be an encoding such as 'utf-8', not {decode!r}") from None
        self._namespace = encoded(namespace)
        self._meanings = Meanings(decode)
        if options.get("keepAlive") is not None and options.get("check") is None:
            options["check"], options["checkIfIdleFor"] = probe, inf
        name = options.setdefault("name", type(self).__name__)
        line, sentinels = clusterOf(serverAddresses), sentinelsOf(serverAddresses)
        checkReadFrom(readFrom, line is not None or sentinels is not None)
        dialect = ClientDialect()
        handshake = Handshake(name or type(self).__name__, dialect, readLogin("login", login), "login")
        patience = inf if requestTimeout is None else requestTimeout
        flavour: Any = (protocol, database)
        make: Any = CallingPool
        servers: Servers | ClusterServers | ReplicatedServers
        if line is not None:
            if distribution is not None or database:
                raise ValueError("a cluster distributes the keys itself and has database 0 only: leave out the options")
            dialect.cluster(True)
            servers = ClusterServers(line, readFrom, patience, dialect.topology, dialect.probe)
            flavour = flavour if readFrom == "primary" else dialect.reading(flavour)
        else:
            servers = Servers(
                serverAddresses, "ketama", 6379, follows=sentinels is not None, distribution=distribution, hash=hash,
                hashTag=hashTag, hashStop=hashStop, hashSkip=hashSkip, onFailure=onFailure, ejectAfter=ejectAfter,
                minLiveServers=minLiveServers,
            )  # fmt: skip
        if sentinels is not None:
            handshake.primary = True
            users = readLogin("sentinelLogin", sentinelLogin)
            users = users and (users[0] or b"default", users[1])
            if readFrom == "primary":
                make = partial(FollowingPool, sentinelLogin=users)
            else:
                servers = ReplicatedServers(sentinels, readFrom, patience, users, handshake, dialect.probe)
        elif sentinelLogin is not None:
            raise ValueError("sentinelLogin is for sentinels: the address must be sentinel:NAME@HOST:PORT,HOST:PORT")
        makePool = partial(
            make, maxClients=maxClients, reactor=reactor, forceShutdown=forceShutdown, dialect=dialect,
            waitTimeout=waitTimeout, connectTimeout=connectTimeout, requestTimeout=requestTimeout,
            replyTimeout=replyTimeout, pipelineDepth=pipelineDepth,
            configure=_preparation(handshake.flavoured(flavour), configure), **options,
        )  # fmt: skip
        PoolFace.__init__(self, servers, makePool)
        self._sender = (Sender if self.nodes is None else ClusterSender)(self, self._meanings, self._namespace)

    def _send(self, command: RedisCommand, words: list[bytes], convert: Convert) -> Deferred[Any]:
        return self._sender.send(command, words, convert)

    # -- Names that a command and the pool have in common

    @overload
    def expire(self) -> None: ...

    @overload
    def expire(
        self, name: Key, time: int, nx: bool = False, xx: bool = False, gt: bool = False, lt: bool = False
    ) -> Deferred[bool]: ...

    def expire(
        self,
        name: Key | None = None,
        time: int | None = None,
        nx: bool = False,
        xx: bool = False,
        gt: bool = False,
        lt: bool = False,
    ) -> Any:
        """
        Let a key expire, see L{KeyCommands.expire<txconnpool.redis.keys.KeyCommands.expire>}. Without arguments,
        replace all existing connections, see L{PoolFace.expire}.
        """
        if name is None and time is None:
            return PoolFace.expire(self)
        if name is None or time is None:
            return fail(InvalidArgument("expire needs a key and a time"))
        return RedisCommands.expire(self, name, time, nx, xx, gt, lt)

    @overload
    def restore(self, name: Any, /) -> None: ...

    @overload
    def restore(self, name: Key, ttl: int, value: bytes, replace: bool = False) -> Deferred[bool]: ...

    def restore(self, name: Any, ttl: int | None = None, value: bytes | None = None, replace: bool = False) -> Any:
        """
        Create a key from a serialized value, see L{KeyCommands.restore<txconnpool.redis.keys.KeyCommands.restore>}.
        With one argument, put the server of that address back into service, see L{PoolFace.restore}.
        """
        if ttl is None and value is None:
            return PoolFace.restore(self, name)
        if ttl is None or value is None:
            return fail(InvalidArgument("restore needs a key, a time and a value"))
        return RedisCommands.restore(self, name, ttl, value, replace)

    # -- Several requests

    def pipeline(self) -> Pipeline[V]:
        """
        Send several commands together, on one connection for each server, in order::

            async with pool.pipeline() as pipe:
                pipe.incr("visits")
                pipe.get("name")
            visits, name = pipe.results
        """
        return Pipeline(self._namespace, self._meanings, self._sender)

    def transaction(self, *watch: Key) -> Transaction[V]:
        """
        Execute several commands together, see L{Transaction}::

            async with pool.transaction() as block:
                block.incr("visits")
                block.rpush("log", "visit")

        @param watch: keys. If one of them is changed before the end of the block, nothing is executed, and the block
            raises L{WatchError<txconnpool.redis.WatchError>}.
        """
        return Transaction(self._namespace, self._meanings, self._sender, watch=watch)

    def subscribe(self, *channels: Key, patterns: Iterable[Key] = (), sharded: bool = False) -> Subscription[V]:
        """
        Receive the messages of channels, see L{Subscription}. The C{namespace} is not put before channels.

        @param patterns: glob-style patterns of channels.
        @param sharded: whether to receive what C{spublish} sends (Redis 7.0). In a cluster, only the nodes of the slot
            of such channels know of their messages. All are in one slot, and there are no patterns.

        @raise InvalidArgument: there are no channels and no patterns; or several servers share the keys, and not one
            of them has all channels, or there are patterns.
        """
        names, globs = encodeWords(channels), encodeWords(listOf("patterns", patterns))
        if not names and not globs:
            raise InvalidArgument("subscribe needs a channel or a pattern")
        if sharded and globs:
            raise InvalidArgument("sharded channels have no patterns")
        target = self._sender.channelTarget(names, globs, sharded)
        return Subscription(self._sender, target, self._meanings, names, globs, sharded, RESUBSCRIBE)

    def register_script(self, script: str | bytes) -> Script:
        """
        @return: a function that executes a script, see L{Script}.
        """
        return Script(self, script)

    def lock(self, name: Key, timeout: float = 30.0, sleep: float = 0.1, blocking_timeout: float | None = None) -> Lock:
        """
        @param name: the key of the lock.
        @param timeout: the seconds after which the lock ends by itself.
        @param sleep: the seconds between two attempts to acquire it.
        @param blocking_timeout: how long to try, in seconds; C{None}: no limit.

        @return: a lock that is not held yet, see L{Lock}.
        """
        checkSeconds("timeout", timeout, above=True)
        checkSeconds("sleep", sleep, above=True)
        return Lock(self, name, timeout, sleep, blocking_timeout)

    def forKey(self, key: Key) -> ForKey[Connection]:
        """
        Choose the server of a key. Nothing is kept: the result may be dropped, or used again.

        @param key: text is encoded as UTF-8. The C{namespace} is put before it.

        @return: has the methods for leases of this pool; they concern the server of the key.
        """
        return super().forKey(self._namespace + encoded(key))


async def probe(connection: Connection) -> bool:
    """
    Ask the server of a connection whether it is alive. This may be the C{check} of a L{RedisPool}, and is if it has a
    C{keepAlive} and no other.
    """
    reply: bytes = await connection.probe(*Redis.probe)
    return reply == b"+PONG\r\n"


def readLogin(name: str, login: Any) -> tuple[bytes, bytes] | None:
    """
    @param name: the name of the option.

    @return: the user, who may be empty, and the password.
    """
    if login is None:
        return None
    pair = (b"", login) if isinstance(login, str | bytes) else login
    if not (isinstance(pair, tuple | list) and len(pair) == 2 and all(isinstance(each, str | bytes) for each in pair)):
        raise TypeError(f"{name} must be a password, or a user and a password, such as ('user', 'password'), or None")
    user, password = (encoded(each) for each in pair)
    if not password:
        raise ValueError(f"the password of {name} must not be empty")
    return user, password


def _preparation(
    handshake: Callable[[Connection], Any], configure: Callable[[Connection], object] | None
) -> Callable[[Connection], object]:
    if configure is None:
        return handshake

    async def prepare(connection: Connection) -> None:
        await handshake(connection)
        await maybeDeferred(configure, connection)

    return prepare
