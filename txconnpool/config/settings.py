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
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from txconnpool.config.credentials import Accounts, SecretFile
from txconnpool.config.kinds import Choice, Endpoint, HostNames, Seconds, Size, Whole, Words
from txconnpool.config.options import Option, option, optionsOf
from txconnpool.config.servers import ServerLine, UpstreamServer, upstreamServer
from txconnpool.net.endpoints import checkClientFiles
from txconnpool.net.listening import checkServerFiles
from txconnpool.net.syntax import checkClient, checkServer
from txconnpool.routing.distribution import NAMES, ROUND_ROBIN, Distribution
from txconnpool.wire.dialects import DIALECTS
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
_COMMANDS = Words(
    "command",
    (word.decode() for word in EFFECTS.union(*(each.ordinary for each in DIALECTS.values()))),
    (word.decode() for each in DIALECTS.values() for word in each.refused),
    "is about a server or a connection, and both are shared here: it is never passed on",
)
POOL_NAME = r"[A-Za-z0-9_.-]+"
POOL_NAME_EXPECTED = "letters, digits, `_`, `.` and `-`"
_DAY = 86400.0
_YEAR = 365 * _DAY


def _listening(expected: str) -> Endpoint:
    return Endpoint(checkServer, checkServerFiles, expected)


@dataclass(frozen=True, kw_only=True)
class PoolSettings:
    """
    The settings of one pool: its servers, where it listens, and its bounds.

    @ivar name: the NAME of the ini's C{[pool:NAME]}, for logs and statistics.
    """

    name: str = "default"

    upstream: tuple[str, ...] = option(
        ("tcp:127.0.0.1:11211",),
        ServerLine(checkClient, checkClientFiles, "tcp:HOST:PORT, unix:PATH, tls:HOST:PORT or memory:"),
        "the address of a server, as a client endpoint string; memory: is a server inside the process; weight=NUMBER "
        "and label=TEXT may follow; may be repeated",
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
        "the protocol of the pool's clients and servers: memcache is the text protocol of memcached",
        "Servers and clients",
    )
    distribution: str | None = option(
        None,
        Choice(*NAMES),
        "how requests are distributed among several servers, required if there are several: round-robin sends them to "
        "each in turn, so it is for interchangeable servers only, such as a row of proxies",
        "Servers and clients",
    )
    upstreamAuth: str | None = option(
        None,
        Accounts(1),
        "the file or environment variable with the user:password for the servers: file:PATH or env:NAME; for servers "
        "with memcached's option -Y",
        "Servers and clients",
    )
    listenAuth: str | None = option(
        None,
        Accounts(),
        "the file or environment variable with the user:password of each client that may connect, one in each line: "
        "file:PATH or env:NAME; clients log in as with memcached's option -Y",
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

    poolSize: int = option(
        4, Whole(1, 65535), "the maximum number of connections to the servers", "Connections to servers", "s"
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
        "replace a connection of this age; 0 = never",
        "Connections to servers",
    )

    connectTimeout: float = option(1.0, Seconds(0.001, _DAY), "how long connecting to a server may take", "Timeouts")
    waitTimeout: float = option(1.0, Seconds(0.001, _DAY), "how long a request may wait for a connection", "Timeouts")
    requestTimeout: float = option(
        2.0, Seconds(0.001, _DAY), "how long a server may take to reply to a request", "Timeouts"
    )
    loginTimeout: float = option(
        10.0,
        Seconds(0.001, _DAY),
        "how long a client may take for its TLS handshake and its login",
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
        "the maximum number of clients from one address, in each worker; 0 = no limit; clients of UNIX sockets have "
        "none",
        "Clients",
    )
    statsAddresses: str = option(
        "no",
        Choice("yes", "no"),
        "whether clients may see the addresses of other clients, with `stats sessions` and `stats upstream conns`",
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
        Check all values. Before the check, C{sessionUnreadHard} grows with C{maxItemSize} if it has its default.

        @raise ConfigError: with all faults.
        """
        faults = list(faultsOf(self, Option.checkValue))
        if not re.fullmatch(POOL_NAME, self.name):
            faults.append(Fault(f"pool {self.name!r}: expected a name of {POOL_NAME_EXPECTED}"))
        if not faults:
            if self.sessionUnreadHard == _UNREAD_HARD:
                object.__setattr__(self, "sessionUnreadHard", max(_UNREAD_HARD, self.maxItemSize + _LINE))
            faults += _contradictions(self)
        if faults:
            raise ConfigError(faults)

    @cached_property
    def servers(self) -> tuple[UpstreamServer, ...]:
        """
        The servers, from the lines of C{upstream}.
        """
        return tuple(map(upstreamServer, self.upstream))

    @cached_property
    def distributionByKey(self) -> Distribution | None:
        """
        How keys are distributed among the servers, or C{None} if there is one server, or if the servers are equal.
        """
        if len(self.servers) == 1 or self.distribution == ROUND_ROBIN:
            return None
        return Distribution(self.distribution or NAMES[0])


@dataclass(frozen=True, kw_only=True)
class Settings:
    """
    The settings of a process: those of its pools, and those that the pools share.

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
        "Prometheus, /stats.json, /healthz",
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
        Check all values.

        @raise ConfigError: with all faults.
        """
        faults = list(faultsOf(self, Option.checkValue))
        if len({pool.name for pool in self.pools}) < len(self.pools):
            faults.append(Fault("pools: two have one name; expected each only once"))
        if not self.pools:
            faults.append(Fault("pools: expected at least one"))
        if not faults:
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


def _contradictions(pool: PoolSettings) -> Iterator[Fault]:
    """
    Find settings of a pool that contradict each other.
    """
    if pool.minPoolSize > pool.poolSize:
        text = f"min-pool-size {pool.minPoolSize} is more than pool-size {pool.poolSize}"
        yield Fault(text, ("minPoolSize", "poolSize"), pool.name)
    names = [server.name for server in pool.servers]
    for name in sorted({name for name in names if names.count(name) > 1}):
        yield Fault(f"upstream has {name} twice; expected each server only once", ("upstream",), pool.name)
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
    for pool in settings.pools:
        if pool.distributionByKey is not None:
            text = (
                "several servers in upstream need `distribution = round-robin`; distribution by key does not exist yet"
            )
            yield Fault(text, ("upstream", "distribution"), pool.name)
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
            if endpoint == settings.admin:
                text = f"admin {endpoint} is in listen too; expected an address of its own"
                yield Fault(text, ("admin", "listen"))
