# -*- test-case-name: tests.pool.test_handshake -*-
# Copyright txconnpool contributors. See LICENSE.
"""
The first exchanges on a new connection, which a dialect describes and a pool carries out.
"""

from __future__ import annotations

from typing import Any

from twisted.logger import Logger

from txconnpool.errors import LoginFailed

_log = Logger("txconnpool.pool")


class Handshake:
    """
    Makes new connections ready: asks whether the server is alive, and logs in.

    @ivar login: the user and password for servers that want one, or C{None}.
    """

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
        @raise PoolError: the connection was lost.
        """
        server = connection.record.server.name
        exchanges = self._dialect.handshake(self.login, server)
        try:
            command, request = next(exchanges)
            while True:
                command, request = exchanges.send(await connection.ask(command, request))
        except LoginFailed as error:
            raise LoginFailed(str(error).replace("upstream-auth", self._option)) from None
        except StopIteration as stop:
            warning = stop.value and stop.value.replace("upstream-auth", self._option)
        if warning is not None and (server, warning) not in self._warned:
            self._warned.add((server, warning))
            _log.warn("{pool}: {server} {problem}", pool=self._pool, server=server, problem=warning)
