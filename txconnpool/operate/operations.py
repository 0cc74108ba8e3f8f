# -*- test-case-name: tests.operate.test_operations -*-
# Copyright txconnpool contributors. See LICENSE.
"""
What an operator may see of a running proxy, and do to it. What goes in and comes out is plain: JSON could carry it.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from twisted.logger import Logger

from txconnpool.config.settings import Settings
from txconnpool.net.transport import peerOf
from txconnpool.operate.service import ProxyService
from txconnpool.proxy.proxy import PoolProxy

_log = Logger("txconnpool.console")

#: A line of a table, by the names of its columns. Numbers of several processes add up, the rest is text.
Row = dict[str, Any]

#: Which columns tell whose row it is.
KEYS = {"pools": ("pool",), "servers": ("pool", "server"), "sessions": ("session",)}


class ControlError(Exception):
    """
    Something cannot be done. Its text is one line: what is wrong, and what would be right.
    """


class Controls:
    """
    The controls of the proxy in this process.
    """

    def __init__(self, service: ProxyService) -> None:
        self._service = service

    def do(self, name: str, *args: Any) -> Any:
        """
        Use one of the controls.

        @param name: C{"rows"}, C{"pause"}, C{"resume"}, C{"drain"}, C{"eject"}, C{"restore"} or C{"kill"}.

        @return: the rows of a table, or one line about what was done.

        @raise ControlError: it cannot be done.
        """
        controls: dict[str, Callable[..., Any]] = {
            "rows": self._rows,
            "pause": self._pause,
            "resume": self._resume,
            "drain": self._drain,
            "eject": self._eject,
            "restore": self._restore,
            "kill": self._kill,
        }
        done = controls[name](*args)
        if name != "rows":
            _log.info("{done}", done=done)
        return done

    # -- Seeing

    def _rows(self, what: str, most: int) -> list[Row]:
        """
        @param what: which table, see L{KEYS}.
        @param most: rows, at most. It matters for sessions only; those with most to do come first.
        """
        if what == "sessions":
            return largest((row for proxy in self._service.proxies for row in _sessions(proxy)), most)
        of = _pool if what == "pools" else _servers
        return [row for proxy in self._service.proxies for row in of(proxy)]

    # -- Doing

    def _pools(self, name: str | None) -> list[PoolProxy]:
        """
        @return: the pool of a name, or all.
        """
        proxies = self._service.proxies
        found = [proxy for proxy in proxies if name is None or proxy.name == name]
        if not found:
            raise _noPool(name, self._service.settings)
        return found

    def _pause(self, name: str | None) -> str:
        pools = self._pools(name)
        for proxy in pools:
            proxy.pool.pause()
        return f"{_names(pools)} paused: requests wait until `resume`"

    def _resume(self, name: str | None) -> str:
        pools = self._pools(name)
        for proxy in pools:
            proxy.pool.resume()
        return f"{_names(pools)} resumed"

    def _with(self, server: str) -> list[PoolProxy]:
        """
        @return: the pools that have a server.
        """
        proxies = self._service.proxies
        found = [proxy for proxy in proxies if any(each.name == server for each in proxy.pool.servers)]
        if not found:
            names = dict.fromkeys(each.name for proxy in proxies for each in proxy.pool.servers)
            raise ControlError(f"no server {server!r}; there are: {', '.join(names)}")
        return found

    def _drain(self, server: str) -> str:
        pools = self._with(server)
        for proxy in pools:
            proxy.pool.drain(server)
        return f"{server} drained in {_names(pools)}: it is asked nothing until `restore {server}`"

    def _eject(self, server: str) -> str:
        pools = self._with(server)
        for proxy in pools:
            proxy.pool.drain(server, abort=True)
        return f"{server} ejected in {_names(pools)}: it is asked nothing until `restore {server}`"

    def _restore(self, server: str) -> str:
        pools = self._with(server)
        for proxy in pools:
            proxy.pool.restore(server)
        return f"{server} restored in {_names(pools)}"

    def _kill(self, number: str) -> str:
        for proxy in self._service.proxies:
            for session in proxy.sessions.sessions:
                if str(session.number) == number:
                    session.drop()
                    return f"session {number} of pool {proxy.name} closed"
        raise noSession(number)


def noSession(number: str) -> ControlError:
    """
    @return: the exception for a session that is not there.
    """
    return ControlError(f"no session {number!r}; `show sessions` lists them")


def _noPool(name: str | None, settings: Settings) -> ControlError:
    return ControlError(f"no pool {name!r}; there are: {', '.join(pool.name for pool in settings.pools)}")


def _names(pools: list[PoolProxy]) -> str:
    return f"pool{'s' * (len(pools) > 1)} {', '.join(proxy.settings.name for proxy in pools)}"


def _pool(proxy: PoolProxy) -> Iterator[Row]:
    stats = proxy.pool.stats
    states = Counter(server.state for server in proxy.pool.servers)
    yield {
        "pool": proxy.name,
        "state": "paused" if proxy.pool.paused else "running",
        "sessions": len(proxy.sessions.sessions),
        "waiting": stats.waiting,
        "in-flight": stats.inFlight,
        "connections": stats.connections,
        "pool-size": stats.maximum,
        "dialing": stats.dialing,
        "servers": ", ".join(f"{count} {state}" for state, count in states.items()),
    }


def _servers(proxy: PoolProxy) -> Iterator[Row]:
    records = proxy.pool.state.records
    for server in proxy.pool.servers:
        own = [record for record in records if record.server is server]
        yield {
            "pool": proxy.name,
            "server": server.name,
            "state": f"down: {server.reason}" if server.state == "down" else server.state,
            "connections": server.count - server.dialing,
            "in-flight": sum(record.load for record in own),
            "requests": sum(server.traffic.requests),
            "dials": server.traffic.dials,
            "failed-dials": sum(server.traffic.dialFailures.values()),
        }


def _sessions(proxy: PoolProxy) -> Iterator[Row]:
    for session in proxy.sessions.sessions:
        yield {
            "session": str(session.number),
            "pool": proxy.name,
            "client": peerOf(session.transport),
            "state": "waiting" if session.waiting else "busy" if session.inFlight else "idle",
            "in-flight": session.inFlight,
            "unread": session.unread,
        }


def largest(rows: Iterable[Row], most: int) -> list[Row]:
    """
    @return: the sessions with most to do.
    """
    return heapq.nlargest(most, rows, key=lambda row: (row["unread"], row["state"] == "waiting", row["in-flight"]))


def merged(what: str, parts: Mapping[int, list[Row]], most: int) -> list[Row]:
    """
    Make one table of those of several processes: numbers add up, and texts that differ are told of each.

    @param parts: the tables, by the number of the process.
    """
    if what == "sessions":
        numbered = [{**row, "session": f"{number}.{row['session']}"} for number, rows in parts.items() for row in rows]
        return largest(numbered, most)
    groups: dict[tuple[Any, ...], dict[int, Row]] = {}
    for number, rows in parts.items():
        for row in rows:
            groups.setdefault(tuple(row[key] for key in KEYS[what]), {})[number] = row
    return [
        {
            column: _together({number: row[column] for number, row in group.items()})
            for column in next(iter(group.values()))
        }
        for group in groups.values()
    ]


def _together(values: Mapping[int, Any]) -> Any:
    if all(isinstance(value, int) for value in values.values()):
        return sum(values.values())
    return told(values, " ")


def told(texts: Mapping[int, str], separator: str) -> str:
    """
    Say what several processes say: once if they agree.
    """
    if len(set(texts.values())) == 1:
        return next(iter(texts.values()))
    return separator.join(f"worker {number}: {text}" for number, text in texts.items())


def resized(settings: Settings, name: str, low: int, high: int) -> Settings:
    """
    Make settings with other bounds on the connections of a pool.

    @raise ControlError: there is no such pool.
    @raise ConfigError: the bounds cannot be.
    """
    if all(pool.name != name for pool in settings.pools):
        raise _noPool(name, settings)
    pools = [replace(pool, minPoolSize=low, poolSize=high) if pool.name == name else pool for pool in settings.pools]
    return replace(settings, pools=tuple(pools))
