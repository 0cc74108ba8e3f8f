# -*- test-case-name: tests.config.test_credentials -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Users and passwords: where they are kept, and how a connection to a server uses them.

Settings only say where they are. What is there is read when it is needed, and never part of a message.
"""

from __future__ import annotations

import os
import re
from typing import Any

from twisted.logger import Logger

from txconnpool.config.kinds import Kind
from txconnpool.errors import LoginFailed
from txconnpool.wire import Command
from txconnpool.wire.memcache.auth import LINE_MAX, STORED, UNAUTHENTICATED, login

_log = Logger("txconnpool.pool")


def tokens(source: str) -> tuple[bytes, ...]:
    """
    Read users and passwords.

    @param source: C{file:PATH}, or C{env:NAME} for an environment variable; in there, one C{user:password} a line.

    @return: each as C{user password}, see L{txconnpool.wire.memcache.auth}.

    @raise ValueError: there are none; its message says why, and nothing of what is there.
    """
    kind, _, place = source.partition(":")
    if kind == "file" and place:
        try:
            with open(place, "rb") as file:
                content = file.read()
        except OSError as error:
            raise ValueError(f"{place} cannot be read: {error.strerror}") from None
    elif kind == "env" and place:
        if place not in os.environ:
            raise ValueError(f"there is no environment variable {place}")
        content = os.fsencode(os.environ[place])
    else:
        raise ValueError("expected file:PATH or env:NAME, in there user:password")
    found = []
    for number, line in enumerate(content.splitlines(), 1):
        if line:
            if len(line) > LINE_MAX or not re.fullmatch(rb"[^ :\0]+:[^ \0]+", line):
                raise ValueError(f"line {number} of {place}: expected user:password, without spaces")
            found.append(line.replace(b":", b" ", 1))
    if not found:
        raise ValueError(f"{place} is empty: expected user:password")
    return tuple(found)


class Accounts(Kind[str]):
    """
    Where users and passwords are.
    """

    metavar = "SOURCE"
    expected = "file:PATH or env:NAME, in there user:password"

    def __init__(self, most: int | None = None) -> None:
        """
        @param most: how many users there may be; C{None}: any number.
        """
        self._most = most

    def parse(self, text: str) -> str:
        """
        Make the path of a file absolute, because twistd may change its working directory before the file is read again.
        """
        kind, _, place = text.partition(":")
        return f"file:{os.path.abspath(place)}" if kind == "file" and place else text

    def checkValue(self, value: str) -> None:
        """
        Check that the value begins with C{file:} or C{env:}.
        """
        if not (isinstance(value, str) and re.match("(file|env):.", value, re.DOTALL)):
            raise self.wrong()

    def checkFiles(self, value: str) -> None:
        """
        Read and count the users and passwords.
        """
        found = tokens(value)
        if self._most is not None and len(found) > self._most:
            raise ValueError(f"{len(found)} users: expected {self._most}")

    def quote(self, value: object) -> str:
        """
        Do not show a value that is neither a file nor an environment variable: it may be the password itself.
        """
        return repr(value) if isinstance(value, str) and re.match("(file|env):", value) else "'...'"


class SecretFile(Kind[str]):
    """
    A file whose first line is a secret.
    """

    metavar = "FILE"
    expected = "a file that can be read, with the secret in its first line"

    def parse(self, text: str) -> str:
        """
        Make the path absolute, because twistd may change its working directory before the file is read again.
        """
        return os.path.abspath(text)

    @staticmethod
    def read(value: str) -> bytes:
        """
        @return: the secret, without spaces around it.

        @raise OSError: the file cannot be read.
        """
        with open(value, "rb") as file:
            return file.readline(_SECRET_MAX).strip()

    def checkValue(self, value: str) -> None:
        """
        Check that there is a path.
        """
        if not (isinstance(value, str) and value):
            raise self.wrong()

    def checkFiles(self, value: str) -> None:
        """
        Read the secret, which may not be empty.
        """
        try:
            secret = self.read(value)
        except OSError:
            secret = b""
        if not secret:
            raise self.wrong()


#: The length of a secret in bytes, at most.
_SECRET_MAX = 1024


class Greeting:
    """
    The first words on a connection to a server: is it alive, and does it know us?

    A server that does not ask for a password does not get it: to one without C{-Y} a login is a C{set}, which would
    show it to every client.

    @ivar token: the user, a space and the password, or C{None}.
    """

    def __init__(self, pool: str, probe: tuple[bytes, Command], token: bytes | None = None) -> None:
        """
        @param pool: its name, for logs.
        @param probe: the request that any living server answers, and the command of the reply.
        """
        self.token = token
        self._pool = pool
        self._probe = probe
        self._told: set[str] = set()

    async def __call__(self, connection: Any) -> None:
        """
        Say them.

        @param connection: a L{txconnpool.pool.connection.Connection} that was just made.

        @raise LoginFailed: the server does not know us.
        """
        server = connection.record.server.name
        if await connection.ask(*self._probe) != UNAUTHENTICATED:
            if self.token is not None and server not in self._told:
                self._told.add(server)
                _log.warn("{pool}: {server} asks for no password: upstream-auth is not used", pool=self._pool,
                          server=server)  # fmt: skip
            return
        if self.token is None:
            raise LoginFailed("authentication failure: the server asks for a password, and upstream-auth is not set")
        reply = await connection.ask(*login(self.token))
        if reply != STORED:
            words = reply.decode("ascii", "replace").strip()
            raise LoginFailed(words.removeprefix("CLIENT_ERROR "))
