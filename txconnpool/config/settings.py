# -*- test-case-name: tests.config.test_settings -*-
# Copyright txconnpool contributors. See LICENSE.
"""
The settings: one frozen object, with everything in it checked.

Each setting is one field, declared with L{option}: its ini key, its long option, the help, the check and the default
follow from that. C{conf/connpool.ini} explains them all, which a test holds.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from txconnpool.config.credentials import Accounts, SecretFile
from txconnpool.config.kinds import Choice, Endpoint, Seconds, Size, Whole, Words
from txconnpool.config.options import Option, option, optionsOf
from txconnpool.net.endpoints import checkClientFiles
from txconnpool.net.listening import checkServerFiles
from txconnpool.net.syntax import checkClient, checkServer
from txconnpool.wire.dialects import DIALECTS


@dataclass(frozen=True)
class Fault:
    """
    One thing that is wrong with settings.

    @ivar text: what was found and what would be right, in one line.
    @ivar attributes: the settings that are to blame, the first one most.
    @ivar pool: the name of the pool that has them, or nothing.
    """

    text: str
    attributes: tuple[str, ...] = ()
    pool: str = ""

    def __str__(self) -> str:
        return f"pool {self.pool!r}: {self.text}" if self.pool else self.text


class ConfigError(ValueError):
    """
    Settings that cannot be used. Its text has one line for each fault.

    @ivar faults: all that is wrong.
    """

    def __init__(self, faults: Iterable[Fault]) -> None:
        self.faults = tuple(faults)
        super().__init__("\n".join(map(str, self.faults)))


# A request's line stands beside its value in the buffers, and a get of many keys is a long line.
_LINE = 1 << 16
_UNREAD_HARD = 64 << 20
_COMMANDS = Words(
    "command",
    (word.decode() for each in DIALECTS.values() for word in each.commandNames),
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
        Endpoint(checkClient, checkClientFiles, "tcp:HOST:PORT, unix:PATH, tls:HOST:PORT or memory:"),
        "a server, as a client endpoint string; memory: is one inside the process; may be repeated",
        "Servers and clients",
        "u",
        many=True,
    )
    listen: tuple[str, ...] = option(
        ("tcp:11212:interface=127.0.0.1",),
        _listening("tcp:PORT:interface=ADDRESS, ssl:PORT:privateKey=FILE:certKey=FILE or unix:PATH"),
        "where clients connect, as a server endpoint string; may be repeated",
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
        Choice("round-robin"),
        "how requests are shared among several servers: round-robin sends them to each in turn, so it is for equal "
        "servers only, such as a row of proxies; it must be given when there are several",
        "Servers and clients",
    )
    upstreamAuth: str | None = option(
        None,
        Accounts(1),
        "where the user:password for the servers is: file:PATH or env:NAME; for servers with memcached's option -Y",
        "Servers and clients",
    )
    listenAuth: str | None = option(
        None,
        Accounts(),
        "where the users are who may connect, user:password in each line: file:PATH or env:NAME; they log in as with "
        "memcached's option -Y",
        "Servers and clients",
    )
    allowCommands: tuple[str, ...] | None = option(
        None, _COMMANDS, "the only commands that clients may use; without it, all", "Servers and clients"
    )
    denyCommands: tuple[str, ...] = option(
        (), _COMMANDS, "commands that clients may not use, such as flush_all", "Servers and clients"
    )

    poolSize: int = option(
        4, Whole(1, 65535), "most connections of the pool to its servers", "Connections to servers", "s"
    )
    minPoolSize: int = option(1, Whole(0, 65535), "connections kept open", "Connections to servers")
    pipelineDepth: int = option(
        1024, Whole(1, 65535), "most requests in flight on one connection", "Connections to servers"
    )
    idleTimeout: float = option(
        600.0,
        Seconds(0.001, _YEAR, "never"),
        "close a connection beyond min-pool-size when unused for so long; 0 = never",
        "Connections to servers",
    )
    maxLifetime: float = option(
        3600.0,
        Seconds(0.001, _YEAR, "never"),
        "replace a connection that is so old; 0 = never",
        "Connections to servers",
    )

    connectTimeout: float = option(1.0, Seconds(0.001, _DAY), "time to connect to a server", "Times of a request")
    waitTimeout: float = option(
        1.0, Seconds(0.001, _DAY), "time a request may wait for a connection", "Times of a request"
    )
    requestTimeout: float = option(
        2.0, Seconds(0.001, _DAY), "time a server has to answer a request", "Times of a request"
    )
    slowRequest: float = option(
        0.0, Seconds(0.001, _DAY, "none"), "log requests that take longer; 0 = none", "Times of a request"
    )
    logKeys: str = option(
        "yes", Choice("yes", "no"), "whether the log tells the keys of slow requests", "Times of a request"
    )

    maxClients: int = option(
        10000,
        Whole(1, 1000000),
        "most clients connected; one more is answered `ERROR Too many open connections` and closed",
        "Clients",
    )
    maxWaiting: int = option(
        10000,
        Whole(1, 10000000),
        "most requests waiting for a connection; one more is answered `SERVER_ERROR too many waiting requests`",
        "Clients",
    )
    maxItemSize: int = option(
        1 << 20, Size(1 << 10, 1 << 30), "largest value accepted, as memcached's option -I", "Clients"
    )
    maxInFlight: int = option(
        256,
        Whole(1, 1000000),
        "most unanswered requests of one client; beyond it the client is not read from",
        "Clients",
    )
    sessionBacklog: int = option(
        64 << 10,
        Size(1 << 10, 1 << 30),
        "a client that sends more bytes of requests than this while they cannot go on is not read from",
        "Clients",
    )
    sessionUnreadSoft: int = option(
        256 << 10,
        Size(1 << 10, 4 << 30),
        "a client that leaves more bytes of replies unread is not read from",
        "Clients",
    )
    sessionUnreadHard: int = option(
        _UNREAD_HARD,
        Size(1 << 16, 4 << 30),
        "a client that leaves more bytes of replies unread is closed; the default grows with max-item-size",
        "Clients",
    )

    def __post_init__(self) -> None:
        """
        Let the bounds that must hold a value grow with it where they have their defaults, and check everything.

        @raise ConfigError: with all that is wrong.
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


@dataclass(frozen=True, kw_only=True)
class Settings:
    """
    The settings of a process: its pools, and what they share.
    """

    pools: tuple[PoolSettings, ...] = field(default_factory=lambda: (PoolSettings(),))

    workers: int = option(
        1,
        Whole(1, 64),
        "processes that share all clients and all bounds, for as many processors",
        "The whole process",
        fixed=True,
    )
    drainTimeout: float = option(
        5.0,
        Seconds(0.001, _DAY, "not waiting"),
        "time a stop waits for what is in flight; 0 = none",
        "The whole process",
    )
    maxUnreadBytes: int = option(
        256 << 20,
        Size(1 << 20, 1 << 40),
        "most bytes held for all clients together: replies they have not read, values they have not sent to the end; "
        "beyond it the clients with most are closed",
        "The whole process",
    )
    logFormat: str | None = option(
        None,
        Choice("text", "json"),
        "how the log is written: text, or json with one object in each line; the default is what twistd and twist do",
        "The whole process",
        fixed=True,
    )
    stats: str | None = option(
        None,
        _listening("tcp:PORT:interface=ADDRESS or unix:PATH"),
        "where statistics are served over HTTP, as a server endpoint string: a page for people, /metrics for "
        "Prometheus, /stats.json, /healthz",
        "The whole process",
        fixed=True,
    )
    admin: str | None = option(
        None,
        _listening("unix:PATH or tcp:PORT:interface=ADDRESS"),
        "where the proxy is administered, as a server endpoint string; anything but unix: needs a password",
        "The whole process",
        fixed=True,
    )
    adminPasswordFile: str | None = option(
        None,
        SecretFile(),
        "file whose first line is the password that --admin asks for",
        "The whole process",
        fixed=True,
    )

    def __post_init__(self) -> None:
        """
        Check everything.

        @raise ConfigError: with all that is wrong.
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
    Check the settings of a pool against each other.
    """
    if pool.minPoolSize > pool.poolSize:
        text = f"min-pool-size {pool.minPoolSize} is more than pool-size {pool.poolSize}"
        yield Fault(text, ("minPoolSize", "poolSize"), pool.name)
    if len(pool.upstream) > 1 and pool.distribution is None:
        text = (
            "several servers in upstream need `distribution`: round-robin if they are equal, such as a row of "
            "proxies; servers with a cache each would lose keys"
        )
        yield Fault(text, ("upstream", "distribution"), pool.name)
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
    Check whether several processes can share a pool.
    """
    if pool.poolSize < workers * len(pool.upstream):
        servers = f" to each of {len(pool.upstream)} servers" if len(pool.upstream) > 1 else ""
        text = f"pool-size {pool.poolSize} has no connection{servers} for each of {workers} workers"
        yield Fault(text, ("poolSize", "workers"), pool.name)
    if pool.maxWaiting < workers:
        text = f"max-waiting {pool.maxWaiting} is less than one for each of {workers} workers"
        yield Fault(text, ("maxWaiting", "workers"), pool.name)
    if any(server.startswith("memory:") for server in pool.upstream):
        text = f"memory: is in one process, and {workers} workers would each have their own; expected workers = 1"
        yield Fault(text, ("workers", "upstream"), pool.name)


def _conflicts(settings: Settings) -> Iterator[Fault]:
    """
    Check the pools against each other and against the settings of the process.
    """
    if settings.admin is not None and not settings.admin.startswith("unix:") and settings.adminPasswordFile is None:
        text = f"admin {settings.admin} needs admin-password-file; only unix: may be without"
        yield Fault(text, ("admin", "adminPasswordFile"))
    listening: dict[str, str] = {}
    for pool in settings.pools:
        if settings.stats in pool.listen:
            text = f"stats {settings.stats} is where pool {pool.name!r} listens; expected an endpoint of its own"
            yield Fault(text, ("stats",), pool.name)
        if settings.workers > 1:
            yield from _notShared(pool, settings.workers)
        for endpoint in pool.listen:
            other = listening.setdefault(endpoint, pool.name)
            # Port 0 is another port each time.
            if other != pool.name and not re.match(r"tcp6?:(port=)?0(:|$)", endpoint):
                text = f"pool {other!r} listens on {endpoint} too; expected a listen of its own for each pool"
                yield Fault(text, ("listen",), pool.name)
            if endpoint == settings.admin:
                yield Fault(f"admin {endpoint} is in listen too; expected a place of its own", ("admin", "listen"))
