# -*- test-case-name: tests.config.test_settings -*-
# Copyright txconnpool contributors. See LICENSE.
"""
The settings: frozen objects that check themselves when they are constructed.

Each setting is one field, declared with L{option}, from which its ini key, its long option, the help, the checks and
the default are made. C{conf/connpool.ini} explains all settings; a test ensures that it does. Constructing settings
reads no file, see L{txconnpool.config.files}.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from copy import copy
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from txconnpool.config.credentials import Accounts, SecretFile
from txconnpool.config.kinds import Announced, Choice, Endpoint, HostNames, Seconds, Size, Text, Whole, Words, placeOf
from txconnpool.config.options import Automatic, Option, option, optionsOf
from txconnpool.config.servers import ServerLine, mistakes
from txconnpool.net.discovery import endpointsOf, isDiscovery, isSentinel
from txconnpool.net.endpoints import checkClientFiles
from txconnpool.net.listening import checkServerFiles
from txconnpool.net.suggestions import suggestClient, suggestServer
from txconnpool.net.syntax import checkClient, checkServer, reaches
from txconnpool.routing.cluster.line import ClusterLine, isCluster, readCluster
from txconnpool.routing.distribution import HASH_NAMES, NAMES, Distribution
from txconnpool.routing.servers import Server, readServer
from txconnpool.wire.dialects import DIALECTS, Dialect
from txconnpool.wire.effects import EFFECTS


@dataclass(frozen=True)
class Fault:
    """
    One error in settings.

    @ivar text: one line with the value that was found and with those that are allowed.
    @ivar attributes: the attributes of the settings that are wrong, or that contradict each other. The first one is
        most likely to be changed.
    @ivar pool: the name of their pool; an empty string for settings of the process.
    """

    text: str
    attributes: tuple[str, ...] = ()
    pool: str = ""

    def __str__(self) -> str:
        return f"pool {self.pool!r}: {self.text}" if self.pool else self.text


class ConfigError(ValueError):
    """
    Settings that cannot be used. The text of the exception has one line for each fault.

    @ivar faults: all faults.
    """

    def __init__(self, faults: Iterable[Fault]) -> None:
        self.faults = tuple(faults)
        super().__init__("\n".join(map(str, self.faults)))


#: Bytes of a buffer that a value of the maximum size leaves for the line of its request or reply.
_LINE = 1 << 16
_UNREAD_HARD = 64 << 20
#: The least default of C{poolSize}.
_POOL_SIZE = 4


class _Commands(Words):
    """
    Names of commands and effects. Which ones there are depends on another setting, see L{_noCommands}.
    """

    def checkValue(self, value: tuple[str, ...]) -> None:
        if not isinstance(value, tuple):
            raise self.wrong()


def _commandsOf(dialect: Dialect) -> Words:
    return Words(
        "command",
        (word.decode() for word in EFFECTS | dialect.ordinary.keys()),
        (word.decode() for word in dialect.refused),
        "is about a server or a connection, and both are shared here: it is never passed on",
    )


_COMMANDS_OF = {name: _commandsOf(dialect) for name, dialect in DIALECTS.items()}
_COMMANDS = _Commands(
    "command", (word.decode() for each in DIALECTS.values() for word in EFFECTS | each.ordinary.keys())
)
POOL_NAME = r"[A-Za-z0-9_.-]+"
POOL_NAME_EXPECTED = "letters, digits, `_`, `.` and `-`"
_DAY = 86400.0
_YEAR = 365 * _DAY


def _listening(expected: str) -> Endpoint:
    return Endpoint(checkServer, checkServerFiles, expected, suggestServer, listening=True)


@dataclass(frozen=True, kw_only=True)
class PoolSettings:
    """
    The settings of one pool: its servers, where it listens, and its bounds::

        pool = PoolSettings(
            name="cache", upstream=("tcp:10.0.0.1:11211", "tcp:10.0.0.2:11211"), listen=("tcp:11212",), poolSize=8
        )

    @ivar name: the NAME of the ini's C{[pool:NAME]}, for logs and statistics.
    @ivar found: the servers that were looked up: pairs of a line of C{upstream} that names their source, and a server
        line. A proxy adds them to the settings of a configuration.
    """

    name: str = "default"
    found: tuple[tuple[str, str], ...] = ()

    upstream: tuple[str, ...] = option(
        ("tcp:127.0.0.1:11211",),
        ServerLine(checkClient, checkClientFiles, "tcp:HOST:PORT, unix:PATH, tls:HOST:PORT or memory:", suggestClient),
        "the address of a server, as a client endpoint string; memory: is a server inside the process; weight=NUMBER "
        "and label=TEXT may follow; dns:NAME:PORT, srv:NAME and elasticache:HOST:PORT stand for all servers that are "
        "found there, sentinel:NAME@HOST:PORT,HOST:PORT for the master of a Redis, cluster:HOST:PORT,HOST:PORT for all "
        "nodes of a Redis cluster, as cluster:dns:NAME:PORT and cluster:srv:NAME; may be repeated",
        "Servers and clients",
        "u",
        many=True,
    )
    listen: tuple[str, ...] = option(
        ("tcp:11212:interface=127.0.0.1",),
        _listening("tcp:PORT:interface=ADDRESS, ssl:PORT:privateKey=FILE:certKey=FILE or unix:PATH"),
        "an address to listen on for clients, as a server endpoint string; may be repeated",
        "Servers and clients",
        "l",
        many=True,
    )
    protocol: str = option(
        "memcache",
        Choice(*DIALECTS),
        "the protocol of the pool's clients and servers: memcache is the text protocol of memcached; redis is that of "
        "Redis and Valkey; raw is any other one: each client has a connection of its own until it ends",
        "Servers and clients",
    )
    leaseAt: str = option(
        "connect",
        Choice("connect", "first-byte"),
        "when a client gets its connection with `protocol = raw`: connect = at once, which is needed if the server "
        "speaks first; first-byte = when it has sent something, so that clients that do nothing hold no connection",
        "Servers and clients",
    )
    reset: str = option(
        "close",
        Choice("close", "none"),
        "what happens to the connection of a client that has ended, with `protocol = raw`: close = it is closed; none "
        "= the next client gets it as it is, which is safe only if clients leave no state",
        "Servers and clients",
    )
    upstreamAuth: str | None = option(
        None,
        Accounts(1),
        "the file or environment variable with the user:password for the servers: file:PATH or env:NAME; for servers "
        "with memcached's option -Y",
        "Servers and clients",
    )
    sentinelAuth: str | None = option(
        None,
        Accounts(1),
        "the file or environment variable with the user:password for the sentinels of sentinel: in upstream: file:PATH "
        "or env:NAME",
        "Servers and clients",
    )
    listenAuth: str | None = option(
        None,
        Accounts(),
        "the file or environment variable with the user:password of each client that may connect, one in each line: "
        "file:PATH or env:NAME; clients log in as with memcached's option -Y",
        "Servers and clients",
    )
    auth: str = option(
        "check",
        Choice("check", "pass"),
        "who checks the users and passwords of clients of Redis: check = the proxy, with `listen-auth`; pass = the "
        "server, so that each client has the rights of its user",
        "Servers and clients",
    )
    allowCommands: tuple[str, ...] | None = option(
        None,
        _COMMANDS,
        "the only commands that clients may use, by name or by effect: @read, @write, @delete, @admin; the default is "
        "all",
        "Servers and clients",
    )
    denyCommands: tuple[str, ...] = option(
        (),
        _COMMANDS,
        "the commands that clients may not use, by name or by effect, such as flush_all or @write",
        "Servers and clients",
    )

    announce: tuple[str, ...] | None = option(
        None,
        Announced(),
        "what clients of a cluster see with `protocol = redis`: HOST:PORT of each proxy, which they take for the "
        "nodes; self = the address that they have connected to; no = that there is no cluster; the default is self "
        "with cluster: in upstream, and no otherwise",
        "Servers and clients",
    )

    distribution: str | None = option(
        None,
        Choice(*NAMES),
        "which of several servers has a key: as with the client or proxy of this name, such as twemproxy or "
        "libmemcached; round-robin sends requests to each server in turn, for equal servers such as a row of proxies; "
        "the default is ketama",
        "Many servers",
    )
    hash: str | None = option(
        None,
        Choice(*HASH_NAMES),
        "the hash function of keys; the default is that of the distribution",
        "Many servers",
    )
    hashTag: str | None = option(
        None,
        Text("[!-~]{2}", "two characters, such as {}"),
        "two characters, such as {}: of a key that has both, only what is between them is hashed",
        "Many servers",
    )
    hashStop: str | None = option(
        None,
        Text(r"[^\s\x00-\x1f\x7f]{1,250}", "a text without spaces"),
        "a text: of a key that has it, only what is before it is hashed; the default is `|#|` for mcrouter and "
        "mcrouter-rendezvous",
        "Many servers",
    )
    hashSkip: str | None = option(
        None,
        Text(r"[^\s\x00-\x1f\x7f]{1,250}", "a text without spaces"),
        "a prefix of keys that is not hashed",
        "Many servers",
    )
    readFrom: str = option(
        "primary",
        Choice("primary", "prefer-replica", "replica", "nearest"),
        "which servers get requests that read, of a Redis cluster or of those that sentinels name: primary; "
        "prefer-replica = a replica, or the primary if none is up; replica = only replicas; nearest = the node with "
        "the shortest reply time",
        "Many servers",
    )
    onFailure: str = option(
        "fail",
        Choice("fail", "rehash", "failover"),
        "what happens to the keys of a server that is down: fail = their requests get errors until it is back; rehash "
        "= other servers get the keys, as the client or proxy of the distribution does it; failover = the pool of the "
        "setting failover gets them",
        "Many servers",
    )
    failover: str | None = option(
        None,
        Text(POOL_NAME, "the name of a pool"),
        "the name of another pool, which gets the keys of a server that is down with `on-failure = failover`",
        "Many servers",
    )
    failoverExpire: float = option(
        60.0,
        Seconds(1, 30 * _DAY),
        "the longest time that values are kept which are stored in the pool of failover",
        "Many servers",
    )
    ejectAfter: int = option(
        2,
        Whole(1, 1000000),
        "the number of failures in a row after which rehash gives the keys of a server to others",
        "Many servers",
    )
    minLiveServers: int = option(
        0,
        Whole(0, 65535),
        "the number of servers to which rehash always leaves their keys, down or not; 0 = half of them",
        "Many servers",
    )
    partialGets: str = option(
        "misses",
        Choice("misses", "error"),
        "the reply to a get of several keys if the servers of some of them fail: misses = without these keys; error = "
        "one error",
        "Many servers",
    )

    discoverInterval: float = option(
        30.0,
        Seconds(0.1, _DAY),
        "how often the servers of dns:, srv:, elasticache: and sentinel: in upstream are looked up; a shorter TTL wins",
        "Many servers",
    )

    poolSize: int = option(
        Automatic(_POOL_SIZE),
        Whole(1, 65535),
        "the maximum number of connections to the servers; the default is larger if that is too few for each worker "
        "and server",
        "Connections to servers",
        "s",
    )
    database: int = option(
        0,
        Whole(0, 15),
        "the database that clients with `protocol = redis` have before they send SELECT, and after RESET",
        "Connections to servers",
    )
    maxPinned: int = option(
        100,
        Whole(1, 65535),
        "the maximum number of connections that clients have for themselves with `protocol = redis`, for transactions "
        "and blocking commands, and of those on which all get the messages of channels",
        "Connections to servers",
    )
    minPoolSize: int = option(
        1, Whole(0, 65535), "the number of connections that are kept open", "Connections to servers"
    )
    pipelineDepth: int = option(
        1024, Whole(1, 65535), "the maximum number of requests in flight on one connection", "Connections to servers"
    )
    idleTimeout: float = option(
        600.0,
        Seconds(0.001, _YEAR, "never"),
        "close a connection beyond min-pool-size that has been unused for this time; 0 = never",
        "Connections to servers",
    )
    maxLifetime: float = option(
        3600.0,
        Seconds(0.001, _YEAR, "never"),
        "replace a connection of this age, as soon as another one is established; 0 = never",
        "Connections to servers",
    )
    keepAlive: float = option(
        0.0,
        Seconds(0.001, _YEAR, "never"),
        "send a request on a connection that has been idle for this time, so that no firewall or balancer forgets it, "
        "and replace it if no reply comes within connect-timeout; 0 = never",
        "Connections to servers",
    )

    connectTimeout: float = option(1.0, Seconds(0.001, _DAY), "how long connecting to a server may take", "Timeouts")
    waitTimeout: float = option(1.0, Seconds(0.001, _DAY), "how long a request may wait for a connection", "Timeouts")
    requestTimeout: float = option(
        2.0,
        Seconds(0.001, _DAY),
        "how long a server may be silent while it has requests to reply to; no reply is late while bytes keep coming",
        "Timeouts",
    )
    replyTimeout: float = option(
        60.0,
        Seconds(0.001, _DAY, "none"),
        "how long a server may take for one reply whose bytes keep coming; 0 = none",
        "Timeouts",
    )
    loginTimeout: float = option(
        10.0,
        Seconds(0.001, _DAY),
        "how long a client may take for its TLS handshake and its login",
        "Timeouts",
    )
    clientIdleTimeout: float = option(
        0.0,
        Seconds(0.001, _YEAR, "never"),
        "close clients that send nothing for so long, wait for no reply and are subscribed to nothing; 0 = never",
        "Timeouts",
    )
    slowRequest: float = option(
        0.0, Seconds(0.001, _DAY, "none"), "log requests that take longer than this; 0 = none", "Timeouts"
    )
    logKeys: str = option("yes", Choice("yes", "no"), "whether the log shows the keys of slow requests", "Timeouts")

    maxClients: int = option(
        10000,
        Whole(1, 1000000),
        "the maximum number of clients; one more is answered `ERROR Too many open connections` and closed",
        "Clients",
    )
    maxClientsPerAddress: int = option(
        0,
        Whole(0, 1000000),
        "the maximum number of clients from one address, or one IPv6 network of 64 bits, in each worker; 0 = no limit; "
        "clients of UNIX sockets have none",
        "Clients",
    )
    statsAddresses: str = option(
        "no",
        Choice("yes", "no"),
        "whether clients may see the addresses of other clients, with `stats proxy sessions` and `stats conns`, and in "
        "`CLIENT LIST` of Redis",
        "Clients",
    )
    keyDumps: str = option(
        "yes",
        Choice("yes", "no"),
        "whether clients may get the keys of all values, with `lru_crawler metadump`, `lru_crawler mgdump` and `stats "
        "cachedump`; no = they get the errors of `memcached -X`",
        "Clients",
    )
    maxWaiting: int = option(
        10000,
        Whole(1, 10000000),
        "the maximum number of requests that wait for a connection; one more is answered `SERVER_ERROR too many "
        "waiting requests`",
        "Clients",
    )
    maxItemSize: int = option(
        1 << 20, Size(1 << 10, 1 << 30), "the largest value that is accepted, as memcached's option -I", "Clients"
    )
    maxInFlight: int = option(
        256,
        Whole(1, 1000000),
        "the maximum number of requests of one client in flight; later ones wait, see session-backlog",
        "Clients",
    )
    sessionBacklog: int = option(
        64 << 10,
        Size(1 << 10, 1 << 30),
        "the maximum number of bytes of one client's requests that cannot be forwarded yet; with more, reading from "
        "the client pauses",
        "Clients",
    )
    sessionUnreadSoft: int = option(
        256 << 10,
        Size(1 << 10, 4 << 30),
        "the bytes of replies that one client may leave unread; with more, reading from the client pauses",
        "Clients",
    )
    sessionUnreadHard: int = option(
        _UNREAD_HARD,
        Size(1 << 16, 4 << 30),
        "the bytes of replies that one client may leave unread; with more, the client is closed; the default grows "
        "with max-item-size",
        "Clients",
    )

    def __post_init__(self) -> None:
        """
        Check all values. Before they are compared, C{poolSize} grows with the number of servers, and
        C{sessionUnreadHard} with C{maxItemSize}, if they have their defaults.

        @raise ConfigError: with all faults.
        """
        faults = [*faultsOf(self, Option.checkValue), *_noCommands(self)]
        if not isinstance(self.name, str) or not re.fullmatch(POOL_NAME, self.name):
            faults.append(Fault(f"pool {self.name!r}: expected a name of {POOL_NAME_EXPECTED}"))
        if not faults:
            if isinstance(self.poolSize, Automatic):
                object.__setattr__(self, "poolSize", Automatic(max(_POOL_SIZE, len(self.servers))))
            if self.sessionUnreadHard == _UNREAD_HARD:
                object.__setattr__(self, "sessionUnreadHard", max(_UNREAD_HARD, self.maxItemSize + _LINE))
            faults += _contradictions(self)
        if faults:
            raise ConfigError(faults)

    @cached_property
    def servers(self) -> tuple[Server, ...]:
        """
        The servers, from the lines of C{upstream}: each server that was found stands in the place of its source. One
        that several lines stand for counts once. Of a cluster they are the nodes that its line has.
        """
        servers: list[Server] = []
        if self.cluster is not None:
            return tuple(map(Server, self.cluster.endpoints))
        names = {readServer(line).name for line in self.upstream if not isDiscovery(line)}
        for line in self.upstream:
            if not isDiscovery(line):
                servers.append(readServer(line))
                continue
            for server in (readServer(text) for source, text in self.found if source == line):
                if server.name not in names:
                    names.add(server.name)
                    servers.append(server)
        return tuple(servers)

    @property
    def isOpaque(self) -> bool:
        """
        Whether the protocol is not known, so that each client leases a connection.
        """
        return DIALECTS[self.protocol].opaque

    @cached_property
    def sources(self) -> tuple[str, ...]:
        """
        The lines of C{upstream} that stand for all servers that are looked up there, or that part of the line of a
        cluster.
        """
        if self.cluster is not None:
            return (self.cluster.source,) if self.cluster.source else ()
        return tuple(filter(isDiscovery, self.upstream))

    @cached_property
    def cluster(self) -> ClusterLine | None:
        """
        The cluster, or C{None} if the servers are none.
        """
        line = next((readCluster(line) for line in self.upstream if isCluster(line)), None)
        if line is None or not line.source:
            return line
        return line.found(readServer(text).endpoint for source, text in self.found if source == line.source)

    @cached_property
    def announced(self) -> tuple[tuple[str, int], ...] | None:
        """
        What C{announce} says: the hosts and ports of all proxies; empty for the address that a client has connected
        to; C{None} if there is no cluster for clients.
        """
        clusters = self.cluster is not None and DIALECTS[self.protocol].clusters
        default = ("self",) if clusters else ("no",)
        value = default if self.announce is None else self.announce
        return None if value == ("no",) else tuple(filter(None, map(placeOf, value)))

    @cached_property
    def dialed(self) -> tuple[str, ...]:
        """
        The endpoint strings of all servers that are known, and of the sentinels.
        """
        sentinels = (endpoint for line in self.upstream if isDiscovery(line) for endpoint in endpointsOf(line))
        return (*(server.endpoint for server in self.servers), *sentinels)

    @cached_property
    def hasSentinels(self) -> bool:
        """
        Whether the server is the master that sentinels name.
        """
        return any(map(isSentinel, self.upstream))

    @cached_property
    def readsReplicas(self) -> bool:
        """
        Whether the replicas that sentinels name get requests that read. They are servers of the pool then.
        """
        return self.hasSentinels and self.readFrom != "primary"

    @cached_property
    def distributionByKey(self) -> Distribution | None:
        """
        How keys are distributed among the servers, or C{None} if there is one server, or if the servers are equal.
        Where servers are looked up, there may be any number of them, so keys are distributed in any case. A cluster
        distributes them itself.
        """
        if self.cluster is not None:
            return None
        distribution = _distribution(self)
        several = len(self.servers) > 1 or bool(self.sources) or self.onFailure == "failover"
        return distribution if several and distribution.keyed and not self.hasSentinels else None

    def minLive(self, servers: int) -> int:
        """
        @param servers: the number of servers of the pool.

        @return: to how many of them C{on-failure = rehash} leaves their keys in any case. By default it is half of
            them, rounded up. So no server ever gets more than about twice its own keys, and a fault of the network
            between the proxy and most servers does not move all keys to the few that are left.
        """
        return min(self.minLiveServers or (servers + 1) // 2, servers)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """
    The settings of a process: those of its pools, and those that the pools share::

        settings = Settings(pools=(PoolSettings(poolSize=8),), drainTimeout=2, stats="tcp:9311:interface=127.0.0.1")

    @ivar pools: the settings of each pool.
    """

    pools: tuple[PoolSettings, ...] = field(default_factory=lambda: (PoolSettings(),))

    workers: int = option(
        1,
        Whole(1, 64),
        "the number of processes that share all clients and all bounds, to use as many processors",
        "The process",
        fixed=True,
    )
    drainTimeout: float = option(
        5.0,
        Seconds(0.001, _DAY, "not waiting"),
        "how long a stop waits for requests in flight; 0 = not at all",
        "The process",
    )
    maxUnreadBytes: int = option(
        256 << 20,
        Size(1 << 20, 1 << 40),
        "the maximum number of bytes held for all clients together: replies that they have not read, and values that "
        "they have not sent completely; with more, the clients with most of them are closed",
        "The process",
    )
    logFormat: str | None = option(
        None,
        Choice("text", "json"),
        "the format of the log: text, or json with one object in each line; the default is that of twistd and twist",
        "The process",
        fixed=True,
    )
    strictPermissions: str = option(
        "no",
        Choice("yes", "no"),
        "whether a file with a password that its group or other users can read, or a private key that other users can "
        "read, is an error; it is a warning otherwise",
        "The process",
    )
    stats: str | None = option(
        None,
        _listening("tcp:PORT:interface=ADDRESS or unix:PATH"),
        "the address to serve statistics on over HTTP, as a server endpoint string: a status page, /metrics for "
        "Prometheus, /stats.json, /healthz and /livez",
        "The process",
        fixed=True,
    )
    statsHosts: tuple[str, ...] = option(
        (),
        HostNames(),
        "the names of this host in URLs of stats, such as proxy1.example.com; IP addresses and localhost always work, "
        "requests for other names are refused",
        "The process",
        fixed=True,
    )
    admin: str | None = option(
        None,
        _listening("unix:PATH or tcp:PORT:interface=ADDRESS"),
        "the address of the console, as a server endpoint string; any but unix: needs a password",
        "The process",
        fixed=True,
    )
    adminPasswordFile: str | None = option(
        None,
        SecretFile(),
        "the file whose first line is the password of the console",
        "The process",
        fixed=True,
    )

    def __post_init__(self) -> None:
        """
        Check all values. Before they are compared, C{poolSize} of each pool grows with C{workers}, if it has its
        default.

        @raise ConfigError: with all faults.
        """
        faults = list(faultsOf(self, Option.checkValue))
        if not (isinstance(self.pools, tuple | list) and all(isinstance(pool, PoolSettings) for pool in self.pools)):
            text = "expected a tuple of PoolSettings, such as (PoolSettings(),)"
            raise ConfigError([*faults, Fault(f"pools is a {type(self.pools).__name__}: {text}")])
        if len({pool.name for pool in self.pools}) < len(self.pools):
            faults.append(Fault("pools: two have one name; expected each only once"))
        if not self.pools:
            faults.append(Fault("pools: expected at least one"))
        if not faults:
            object.__setattr__(self, "pools", tuple(_sized(pool, self.workers) for pool in self.pools))
            faults += _conflicts(self)
        if faults:
            raise ConfigError(faults)


POOL_OPTIONS = tuple(optionsOf(PoolSettings))
PROCESS_OPTIONS = tuple(optionsOf(Settings))
OPTIONS = POOL_OPTIONS + PROCESS_OPTIONS


def faultsOf(settings: PoolSettings | Settings, check: Callable[[Option, Any], None]) -> Iterator[Fault]:
    """
    Check each setting by itself. The settings of the pools in L{Settings} are not checked.

    @param check: a method of L{Option}, called with the value of each setting.

    @return: a fault for each C{ValueError} that it raises.
    """
    options, pool = (POOL_OPTIONS, settings.name) if isinstance(settings, PoolSettings) else (PROCESS_OPTIONS, "")
    for each in options:
        value = getattr(settings, each.attribute)
        try:
            check(each, value)
        except ValueError as error:
            yield Fault(f"{each.attribute} = {each.kind.quote(value)}: {error}", (each.attribute,), pool)


def _noCommands(pool: PoolSettings) -> Iterator[Fault]:
    """
    Find names of commands that the protocol of a pool does not have.
    """
    words = _COMMANDS_OF.get(pool.protocol)
    for attribute in ("allowCommands", "denyCommands"):
        value = getattr(pool, attribute)
        if words is not None and isinstance(value, tuple):
            try:
                words.checkValue(value)
            except ValueError as error:
                yield Fault(f"{attribute} = {_COMMANDS.quote(value)}: {error}", (attribute,), pool.name)


def _sized(pool: PoolSettings, workers: int) -> PoolSettings:
    """
    @return: the pool with the default of C{poolSize} for a number of workers.
    """
    size = max(_POOL_SIZE, workers * len(pool.servers))
    if size == pool.poolSize or not isinstance(pool.poolSize, Automatic):
        return pool
    sized = copy(pool)
    object.__setattr__(sized, "poolSize", Automatic(size))
    return sized


def _distribution(pool: PoolSettings) -> Distribution:
    """
    @raise ValueError: its settings contradict each other.
    """
    return Distribution(
        pool.distribution or NAMES[0],
        pool.hash,
        hashTag=(pool.hashTag or "").encode(),
        hashStop=None if pool.hashStop is None else pool.hashStop.encode(),
        hashSkip=(pool.hashSkip or "").encode(),
    )


#: The settings that a cluster cannot have, because it distributes the keys itself, with their values if they are unset.
_BY_CLUSTER = {
    "distribution": None, "hash": None, "hashTag": None, "hashStop": None, "hashSkip": None, "onFailure": "fail",
}  # fmt: skip


def _noCluster(pool: PoolSettings) -> Iterator[Fault]:
    """
    Find settings of a pool that contradict its cluster.
    """
    if len(pool.upstream) > 1:
        text = "a cluster is all of its servers; expected one line cluster: in upstream, and no other"
        yield Fault(text, ("upstream",), pool.name)
    if not DIALECTS[pool.protocol].clusters:
        yield Fault(f"protocol {pool.protocol} has no clusters; expected redis", ("protocol", "upstream"), pool.name)
    if pool.database:
        text = f"database {pool.database}: a cluster has database 0 only; expected 0"
        yield Fault(text, ("database", "upstream"), pool.name)
    for attribute, unset in _BY_CLUSTER.items():
        if getattr(pool, attribute) != unset:
            name = next(each.name for each in POOL_OPTIONS if each.attribute == attribute)
            text = f"{name} has no meaning for a cluster, whose nodes report which of them has a key; expected none"
            yield Fault(text, (attribute, "upstream"), pool.name)


def _undistributed(pool: PoolSettings) -> Iterator[Fault]:
    """
    Find settings of a pool with which its keys cannot be distributed among its servers.
    """
    if pool.cluster is not None:
        yield from _noCluster(pool)
        return
    if pool.readFrom != "primary" and not pool.hasSentinels:
        text = (
            f"read-from {pool.readFrom} is for clusters and sentinels; expected primary, or a line cluster: or "
            "sentinel: in upstream"
        )
        yield Fault(text, ("readFrom", "upstream"), pool.name)
    try:
        distribution = _distribution(pool)
    except ValueError as error:
        yield Fault(str(error), ("hash", "hashTag", "hashStop", "hashSkip", "distribution"), pool.name)
        return
    if pool.distributionByKey is not None and not DIALECTS[pool.protocol].distributes:
        text = (
            f"protocol {pool.protocol} cannot distribute keys among servers; expected one server in upstream, or "
            "`distribution = round-robin` for servers that are equal"
        )
        yield Fault(text, ("upstream", "protocol"), pool.name)
    if pool.onFailure == "failover" and not DIALECTS[pool.protocol].failsOver:
        text = f"protocol {pool.protocol} cannot use the servers of another pool; expected on-failure = fail or rehash"
        yield Fault(text, ("onFailure", "protocol"), pool.name)
    if not pool.hasSentinels:
        for text in mistakes(pool.servers, distribution, bool(pool.sources)):
            yield Fault(text, ("upstream", "distribution"), pool.name)
    if pool.onFailure == "rehash" and not pool.sources and pool.minLiveServers > len(pool.servers) > 1:
        text = f"min-live-servers {pool.minLiveServers} is more than the {len(pool.servers)} servers in upstream"
        yield Fault(text, ("minLiveServers", "upstream"), pool.name)


def _withoutSentinels(pool: PoolSettings) -> Iterator[Fault]:
    """
    Find what is wrong with the sentinels of a pool.
    """
    if pool.hasSentinels and not DIALECTS[pool.protocol].hasRoles:
        text = (
            f"sentinel: in upstream is for servers of Redis, and protocol is {pool.protocol}; expected protocol = redis"
        )
        yield Fault(text, ("upstream", "protocol"), pool.name)
    if pool.hasSentinels and len(pool.upstream) > 1:
        yield Fault("sentinel: in upstream names the only server; expected no other line", ("upstream",), pool.name)
    if pool.sentinelAuth is not None and not pool.hasSentinels:
        text = "sentinel-auth has no use without sentinel:NAME@HOST:PORT in upstream"
        yield Fault(text, ("sentinelAuth", "upstream"), pool.name)


def _noFailover(pool: PoolSettings, pools: Mapping[str, PoolSettings]) -> Iterator[Fault]:
    """
    Find what is wrong with the pool that stands in for another one.
    """
    if pool.onFailure != "failover":
        return
    other = None if pool.failover is None else pools.get(pool.failover)
    if pool.failover is None:
        text = "on-failure = failover needs the setting failover, the name of another pool"
    elif other is None or other is pool:
        text = (
            f"failover {pool.failover!r} is no other pool; there are: {', '.join(set(pools) - {pool.name}) or 'none'}"
        )
    elif other.onFailure == "failover":
        text = f"failover {pool.failover!r} has `on-failure = failover` itself; expected fail or rehash there"
    elif other.protocol != pool.protocol:
        text = f"failover {pool.failover!r} has another protocol"
    elif pool.distributionByKey is None:
        text = "on-failure = failover needs a distribution by key, not round-robin"
    else:
        return
    yield Fault(text, ("failover", "onFailure"), pool.name)


#: The settings that need to know the protocol, and why they have no use without.
_NOT_RAW = {
    "upstreamAuth": "it does not log in",
    "listenAuth": "clients cannot log in to it",
    "sentinelAuth": "it has no sentinels",
    "allowCommands": "it finds no commands",
    "denyCommands": "it finds no commands",
    "hash": "it finds no keys",
    "hashTag": "it finds no keys",
    "hashStop": "it finds no keys",
    "hashSkip": "it finds no keys",
    "onFailure": "it finds no keys",
    "failover": "it finds no keys",
    "keepAlive": "it has no request for it; TCP probes idle connections by itself",
}


def _opaque(pool: PoolSettings) -> Iterator[Fault]:
    """
    Find settings that an unknown protocol cannot have, and those that only an unknown one has.
    """
    opaque = pool.isOpaque
    for each in POOL_OPTIONS:
        name = each.attribute
        wrong = name in _NOT_RAW if opaque else name in ("leaseAt", "reset")
        if wrong and getattr(pool, name) != each.default:
            why = f"with protocol {pool.protocol}: {_NOT_RAW[name]}" if opaque else "is for protocol raw only"
            yield Fault(f"{each.name} {'has no use ' if opaque else ''}{why}", (name, "protocol"), pool.name)


def _contradictions(pool: PoolSettings) -> Iterator[Fault]:
    """
    Find settings of a pool that contradict each other.
    """
    yield from _opaque(pool)
    yield from _undistributed(pool)
    if pool.announced is not None and not DIALECTS[pool.protocol].clusters:
        text = f"announce is for clients of a cluster, which protocol {pool.protocol} does not have; expected no"
        yield Fault(text, ("announce", "protocol"), pool.name)
    if pool.database and not DIALECTS[pool.protocol].hasDatabases:
        text = f"database is for protocol redis, and protocol is {pool.protocol}; expected 0"
        yield Fault(text, ("database", "protocol"), pool.name)
    yield from _passing(pool)
    yield from _withoutSentinels(pool)
    if pool.minPoolSize > pool.poolSize:
        text = f"min-pool-size {pool.minPoolSize} is more than pool-size {pool.poolSize}"
        yield Fault(text, ("minPoolSize", "poolSize"), pool.name)
    if len(pool.upstream) > pool.poolSize:
        text = f"pool-size {pool.poolSize} has no connection for each of the {len(pool.upstream)} servers in upstream"
        yield Fault(text, ("poolSize", "upstream"), pool.name)
    bound, room = pool.sessionUnreadHard, pool.maxItemSize + _LINE
    if bound < room:
        text = f"session-unread-hard {bound} has no room for a value of max-item-size; expected {room} or more"
        yield Fault(text, ("sessionUnreadHard", "maxItemSize"), pool.name)
    if pool.sessionUnreadSoft > pool.sessionUnreadHard:
        text = f"session-unread-soft {pool.sessionUnreadSoft} is more than session-unread-hard {pool.sessionUnreadHard}"
        yield Fault(text, ("sessionUnreadSoft", "sessionUnreadHard"), pool.name)


def _passing(pool: PoolSettings) -> Iterator[Fault]:
    """
    Find settings that contradict C{auth = pass}: the proxy has no login of its own then.
    """
    if pool.auth != "pass":
        return
    if not DIALECTS[pool.protocol].hasDatabases:
        text = f"auth = pass is for protocol redis, and protocol is {pool.protocol}; expected check"
        yield Fault(text, ("auth", "protocol"), pool.name)
    for name, attribute in (("listen-auth", "listenAuth"), ("upstream-auth", "upstreamAuth")):
        if getattr(pool, attribute) is not None:
            text = f"{name} has no use with auth = pass: the servers check the users of clients"
            yield Fault(text, ("auth", attribute), pool.name)
    if pool.cluster is not None or pool.hasSentinels:
        kind = "a cluster" if pool.cluster is not None else "sentinels"
        text = f"auth = pass needs servers in upstream, not {kind}, because the proxy has no login of its own with it"
        yield Fault(text, ("auth", "upstream"), pool.name)


def _notShared(pool: PoolSettings, workers: int) -> Iterator[Fault]:
    """
    Find settings of a pool that several processes cannot share.
    """
    if pool.poolSize < workers * len(pool.upstream):
        servers = f" to each of {len(pool.upstream)} servers" if len(pool.upstream) > 1 else ""
        text = f"pool-size {pool.poolSize} has no connection{servers} for each of {workers} workers"
        yield Fault(text, ("poolSize", "workers"), pool.name)
    if pool.maxWaiting < workers:
        text = f"max-waiting {pool.maxWaiting} is less than one for each of {workers} workers"
        yield Fault(text, ("maxWaiting", "workers"), pool.name)
    if any(server.endpoint.startswith("memory:") for server in pool.servers):
        text = f"memory: is in one process, and {workers} workers would each have their own; expected workers = 1"
        yield Fault(text, ("workers", "upstream"), pool.name)


def _conflicts(settings: Settings) -> Iterator[Fault]:
    """
    Find settings of pools that contradict each other or the settings of the process.
    """
    if settings.admin is not None and not settings.admin.startswith("unix:") and settings.adminPasswordFile is None:
        text = f"admin {settings.admin} needs admin-password-file; only unix: may be without"
        yield Fault(text, ("admin", "adminPasswordFile"))
    listening: dict[str, str] = {}
    named = {pool.name: pool for pool in settings.pools}
    for pool in settings.pools:
        yield from _noFailover(pool, named)
        if settings.stats in pool.listen:
            text = f"stats {settings.stats} is in listen too; expected an address of its own"
            yield Fault(text, ("stats",), pool.name)
        if settings.workers > 1:
            yield from _notShared(pool, settings.workers)
        for endpoint in pool.listen:
            other = listening.setdefault(endpoint, pool.name)
            # With port 0 each listener gets a port of its own.
            if other != pool.name and not re.match(r"tcp6?:(port=)?0(:|$)", endpoint):
                text = f"pool {other!r} listens on {endpoint} too; expected another address for each pool"
                yield Fault(text, ("listen",), pool.name)
            for server in pool.servers:
                if reaches(server.endpoint, endpoint):
                    text = f"{server.endpoint} is where this pool listens itself ({endpoint}); expected the server"
                    yield Fault(text, ("upstream", "listen"), pool.name)
            if endpoint == settings.admin:
                text = f"admin {endpoint} is in listen too; expected an address of its own"
                yield Fault(text, ("admin", "listen"))
