# -*- test-case-name: tests.pool.test_handshake -*-
# Copyright txconnpool contributors. See LICENSE.
"""
The first exchanges on a new connection, which a dialect describes and a pool carries out.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection
from typing import Any

from twisted.logger import Logger

from txconnpool.errors import LoginFailed, ServerUnavailable

_log = Logger("txconnpool.pool")


class Handshake:
    """
    Makes new connections ready: asks whether the server is alive, and logs in.

    @ivar login: the user and password for servers that want one, or C{None}.
    @ivar primary: whether only a server is used that says that it is no replica.
    @ivar replicas: the names of those that may be replicas, all the same.
    """

    primary = False
    replicas: Collection[str] = ()

    def __init__(
        self, pool: str, dialect: Any, login: tuple[bytes, bytes] | None = None, option: str = "upstream-auth"
    ) -> None:
        """
        @param pool: the name of the pool, for logs.
        @param dialect: an L{IDialect<txconnpool.wire.IDialect>}.
        @param option: the name of the option with the user and password, for errors and warnings.
        """
        self._option = option
        self.login = login
        self._pool = pool
        self._dialect = dialect
        self._warned: set[tuple[str, str]] = set()

    async def __call__(self, connection: Any) -> None:
        """
        Carry out the handshake of the dialect. Its warning is logged once for each server.

        @param connection: a L{Connection<txconnpool.pool.connection.Connection>} that was just made.

        @raise LoginFailed: the server does not accept the user and password, or wants one.
        @raise TooManyConnections: the server has as many connections as it accepts.
        @raise ServerUnavailable: it is a replica, and must not be one.
        @raise PoolError: the connection was lost.
        """
        await self._carryOut(connection, self._dialect.handshake(self.login, connection.record.server.name))
        if self.primary and connection.record.server.name not in self.replicas:
            command, request, expected = self._dialect.primary
            if not (await connection.probe(command, request)).startswith(expected):
                raise ServerUnavailable("the server is a replica and not the master")

    async def reset(self, connection: Any) -> None:
        """
        Make a connection as good as new, after a client had it for itself. This needs an
        L{IStatefulDialect<txconnpool.wire.IStatefulDialect>}.

        @raise PoolError: this is not possible, or the connection was lost.
        """
        await self._carryOut(connection, self._dialect.reset(self.login, connection.record.server.name))

    def flavoured(self, flavour: Any) -> Callable[[Any], Awaitable[None]]:
        """
        @return: a function that does what L{__call__} does, and makes the connection one of a flavour.
        """

        async def prepare(connection: Any) -> None:
            await self(connection)
            for command, request, expected in self._dialect.prelude(flavour):
                reply = await connection.probe(command, request)
                if not reply.startswith(expected):
                    raise self._dialect.unprepared(command, reply)

        return prepare

    async def _carryOut(self, connection: Any, exchanges: Any) -> None:
        try:
            command, request = next(exchanges)
            while True:
                command, request = exchanges.send(await connection.probe(command, request))
        except LoginFailed as error:
            raise LoginFailed(str(error).replace("upstream-auth", self._option)) from None
        except StopIteration as stop:
            warning = stop.value and stop.value.replace("upstream-auth", self._option)
        server = connection.record.server.name
        if warning is not None and (server, warning) not in self._warned:
            self._warned.add((server, warning))
            _log.warn("{pool}: {server} {problem}", pool=self._pool, server=server, problem=warning)
