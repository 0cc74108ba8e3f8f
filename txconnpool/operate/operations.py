# -*- test-case-name: tests.operate.test_operations -*-
# Copyright txconnpool contributors. See LICENSE.
"""
The operations of the console on a running proxy: tables of its pools, servers and sessions, and changes to them.

Arguments and results are plain data that JSON can carry, so that a parent process can have its workers do the same.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from twisted.internet.defer import Deferred, gatherResults
from twisted.logger import Logger

from txconnpool.config.settings import Settings
from txconnpool.net.transport import peerOf
from txconnpool.operate.service import ProxyService
from txconnpool.pool.decisions.servers import Server
from txconnpool.proxy.proxy import PoolProxy

_log = Logger("txconnpool.console")

#: A row of a table: values by the names of their columns. Numbers of several processes are added; the rest is text.
Row = dict[str, Any]

#: The tables there are, with the columns that identify a row.
TABLES = {"pools": ("pool",), "servers": ("pool", "server"), "slots": ("pool", "node"), "sessions": ("session",)}


#: The label of a server that has none.
NO_LABEL = "-"


class OperationError(Exception):
    """
    An operation that cannot be done. The text is one line: what is wrong, and what would be right.
    """


class Operations:
    """
    The operations on the proxy in this process.
    """

    def __init__(self, service: ProxyService) -> None:
        self._service = service

    def perform(self, name: str, *args: Any) -> Any:
        """
        Perform an operation, and log it if it changes something.

        @param name: C{"rows"} with the name of a table and a maximum of rows; C{"pause"}, C{"resume"} or
            C{"reconnect"} with the name of a pool or C{None} for all; C{"drain"} with the name of a server and whether
            to close its connections at once; C{"eject"} or C{"restore"} with the name of a server; C{"kill"} with the
            number of a session, as text.

        @return: the rows of the table, or text that describes what was done; C{"reconnect"} returns a Deferred that
            fires with it.

        @raise OperationError: it cannot be done.
        """
        operations: dict[str, Callable[..., Any]] = {
            "rows": self._rows,
            "pause": self._pause,
            "resume": self._resume,
            "reconnect": self._reconnect,
            "drain": self._drain,
            "eject": self._eject,
            "restore": self._restore,
            "kill": self._kill,
        }
        done = operations[name](*args)
        if isinstance(done, Deferred):
            return done.addCallback(_logged)
        return done if name == "rows" else _logged(done)

    # -- Tables

    def _rows(self, table: str, most: int) -> list[Row]:
        """
        @param table: a key of L{TABLES}.
        @param most: a maximum for the rows. It holds for sessions only; the busiest come first.
        """
        if table == "sessions":
            return busiest((row for proxy in self._service.proxies for row in _sessionRows(proxy)), most)
        if table == "slots":
            return [row for proxy in self._service.proxies for row in slotRows(proxy.settings.name, proxy.pool)]
        rowsOf = _poolRows if table == "pools" else _serverRows
        return [row for proxy in self._service.proxies for row in rowsOf(proxy)]

    # -- Changes

    def _poolsNamed(self, name: str | None) -> list[PoolProxy]:
        """
        @return: the pool of a name, or all pools.
        """
        proxies = self._service.proxies
        found = [proxy for proxy in proxies if name is None or proxy.name == name]
        if not found:
            raise _noPool(name, self._service.settings)
        return found

    def _pause(self, name: str | None) -> str:
        pools = self._poolsNamed(name)
        for proxy in pools:
            proxy.pool.pause()
        return f"{_names(pools)} paused: requests wait until `resume`"

    def _resume(self, name: str | None) -> str:
        pools = self._poolsNamed(name)
        for proxy in pools:
            proxy.pool.resume()
        return f"{_names(pools)} resumed"

    def _reconnect(self, name: str | None) -> Deferred[str]:
        pools = self._poolsNamed(name)

        def described(problems: list[list[str]]) -> str:
            lines = [f"{line}; its servers stay" for each in problems for line in each]
            return "\n".join([*lines, f"{_names(pools)}: connections are replaced, each when its successor is there"])

        return gatherResults([proxy.upstream.reconnect() for proxy in pools]).addCallback(described)

    def _poolsWith(self, server: str) -> list[PoolProxy]:
        """
        @return: all pools that have a server.
        """
        proxies = self._service.proxies
        found = [proxy for proxy in proxies if any(each.name == server for each in proxy.pool.servers)]
        if not found:
            names = dict.fromkeys(each.name for proxy in proxies for each in proxy.pool.servers)
            raise OperationError(f"no server {server!r}; there are: {', '.join(names)}")
        return found

    def _drain(self, server: str, now: bool) -> str:
        pools = self._poolsWith(server)
        for proxy in pools:
            proxy.pool.drain(server, abort=now)
        closed = ", its connections closed" if now else ""
        return f"{server} drained in {_names(pools)}{closed}: it gets no requests until `restore {server}`"

    def _eject(self, server: str) -> str:
        ejected, errors = [], []
        for proxy in self._poolsWith(server):
            try:
                proxy.upstream.eject(server)
                ejected.append(proxy)
            except ValueError as error:
                errors.append(f"pool {proxy.name}: {error}")
        if not ejected:
            raise OperationError("; ".join(errors))
        return f"{server} ejected in {_names(ejected)}: other servers have its keys until `restore {server}`"

    def _restore(self, server: str) -> str:
        pools = self._poolsWith(server)
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


def _logged(done: str) -> str:
    """
    Log what an operation has done.
    """
    _log.info("{done}", done=done)
    return done


def noSession(number: str) -> OperationError:
    """
    @return: the exception for a session number that no session has.
    """
    return OperationError(f"no session {number!r}; `show sessions` lists them")


def _noPool(name: str | None, settings: Settings) -> OperationError:
    return OperationError(f"no pool {name!r}; there are: {', '.join(pool.name for pool in settings.pools)}")


def _names(pools: list[PoolProxy]) -> str:
    return f"pool{'s' * (len(pools) > 1)} {', '.join(proxy.settings.name for proxy in pools)}"


def _poolRows(proxy: PoolProxy) -> Iterator[Row]:
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


def _serverRows(proxy: PoolProxy) -> Iterator[Row]:
    records, shares, ejected = proxy.pool.records, proxy.upstream.keyShares(), proxy.upstream.ejected
    for server in proxy.pool.servers:
        own = [record for record in records if record.server.traffic is server.traffic]
        weight, label, share = shares.get(server.name, ("-", NO_LABEL, "-"))
        yield {
            "pool": proxy.name,
            "server": server.name,
            "weight": weight,
            "label": label,
            "keys": share,
            "state": _stateOf(server, server.name in ejected),
            "connections": server.count - server.dialing,
            "in-flight": sum(record.load for record in own),
            "requests": sum(server.traffic.requests),
            "dials": server.traffic.dials,
            "failed-dials": sum(server.traffic.dialFailures.values()),
        }


def slotRows(name: str, pool: Any) -> Iterator[Row]:
    """
    @param name: the name of a pool.
    @param pool: its connections.

    @return: a row for each node, if it is a cluster.
    """
    if pool.cluster is not None:
        for node, view in pool.cluster.nodes().items():
            yield {
                "pool": name,
                "node": node,
                "role": view.role,
                "of": "-" if view.primary is None else f"{view.primary.host}:{view.primary.port}",
                "slots": str(view.slots),  # a text, because those of several workers must not be added
                "ranges": view.rangesText or "-",
            }


def _stateOf(server: Server, ejected: bool) -> str:
    state = f"down: {server.reason}" if server.state == "down" else server.state
    if ejected:
        return "ejected" if state == "up" else f"ejected, {state}"
    return state


def _sessionRows(proxy: PoolProxy) -> Iterator[Row]:
    for session in proxy.sessions.sessions:
        yield {
            "session": str(session.number),
            "pool": proxy.name,
            "client": peerOf(session.transport),
            "state": "waiting" if session.waiting else "busy" if session.inFlight else "idle",
            "in-flight": session.inFlight,
            "unread": session.unread,
        }


def busiest(rows: Iterable[Row], most: int) -> list[Row]:
    """
    Sort rows of sessions: first those with the most unread bytes, then those that wait, then the most in flight.

    @param most: how many rows to return, at most.
    """
    return heapq.nlargest(most, rows, key=lambda row: (row["unread"], row["state"] == "waiting", row["in-flight"]))


def mergeRows(table: str, tables: Mapping[int, list[Row]], most: int) -> list[Row]:
    """
    Make one table of those of several workers. Numbers are added. Texts that differ are given for each worker.

    @param table: a key of L{TABLES}.
    @param tables: the rows, by the number of the worker.
    @param most: how many sessions to return, at most.
    """
    if table == "sessions":
        numbered = [{**row, "session": f"{number}.{row['session']}"} for number, rows in tables.items() for row in rows]
        return busiest(numbered, most)
    groups: dict[tuple[Any, ...], dict[int, Row]] = {}
    for number, rows in tables.items():
        for row in rows:
            groups.setdefault(tuple(row[key] for key in TABLES[table]), {})[number] = row
    return [
        {
            column: _mergeValues({number: row[column] for number, row in group.items()})
            for column in next(iter(group.values()))
        }
        for group in groups.values()
    ]


def _mergeValues(values: Mapping[int, Any]) -> Any:
    if all(isinstance(value, int) for value in values.values()):
        return sum(values.values())
    return mergeTexts(values, " ")


def mergeTexts(texts: Mapping[int, str], separator: str) -> str:
    """
    Make one text of those of several workers: the text itself if all are equal, else each with its worker's number.

    @param texts: the texts, by the number of the worker.
    """
    if len(set(texts.values())) == 1:
        return next(iter(texts.values()))
    return separator.join(f"worker {number}: {text}" for number, text in texts.items())


def resized(settings: Settings, name: str, low: int, high: int) -> Settings:
    """
    Make settings with other bounds on the connections of a pool.

    @raise OperationError: there is no pool of this name.
    @raise ConfigError: C{low} is more than C{high}, or another setting contradicts.
    """
    if all(pool.name != name for pool in settings.pools):
        raise _noPool(name, settings)
    pools = [replace(pool, minPoolSize=low, poolSize=high) if pool.name == name else pool for pool in settings.pools]
    return replace(settings, pools=tuple(pools))
