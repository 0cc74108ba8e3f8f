# -*- test-case-name: tests.wire.memcache.test_unsupported -*-
# Copyright txconnpool contributors. See LICENSE.
"""
The commands that servers do not support. They are answered by the proxy, because they would harm other clients:

  - A memcached before 1.6 does not know the meta commands. It takes the data block of C{ms} for commands.
  - Some servers close the connection at a command that they do not know, as twemproxy does. All clients with requests
    in flight on this connection would get errors.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Final

from txconnpool.wire import Command

#: The meta commands, which exist since memcached 1.6.
META: Final = (b"mg", b"ms", b"md", b"ma", b"mn", b"me")

#: The commands that every server knows. If a server closes a connection at one of these, it has another reason.
KNOWN: Final = frozenset(b"get gets set add replace append prepend cas incr decr delete version".split())

#: A command is refused if a server has closed this number of connections at it, and no server has ever replied to it.
CLOSINGS: Final = 2

#: Seconds after which a command that was refused for this reason is sent again.
PERIOD: Final = 60.0

# Servers that are no memcached have version numbers of their own.
_OLD: Final = re.compile(rb"VERSION (1\.[0-5](?:\.[0-9]{1,9})*)\b").match


class Unsupported:
    """
    What is known about the servers of one pool.
    """

    def __init__(self, changed: Callable[[frozenset[bytes]], object], now: Callable[[], float]) -> None:
        """
        @param changed: called with the names of all refused commands when they have changed.
        @param now: returns the time in seconds.
        """
        self._changed = changed
        self._now = now
        self._old: dict[str, bytes] = {}  # the versions of servers without meta commands
        self._closings: dict[tuple[str, bytes], int] = {}
        self._closed: dict[bytes, tuple[str, float]] = {}  # refused commands: the server, and until when

    @property
    def oldest(self) -> bytes | None:
        """
        The version of a server without meta commands, or C{None} if there is none.
        """
        return next(iter(self._old.values()), None)

    def greeted(self, server: str, reply: bytes) -> str | None:
        """
        A server has reported its version.

        @param reply: the reply to C{version}. Servers that are no memcached, and have versions of their own, are taken
            to know all commands.

        @return: the version if meta commands are refused for this server, or C{None}.
        """
        match = _OLD(reply)
        if match is not None:
            self._old[server] = match[1]
        else:
            self._old.pop(server, None)
        self._update()
        return self._old[server].decode("ascii", "replace") if server in self._old else None

    def closed(self, server: str, command: Command) -> None:
        """
        A server has closed a connection instead of replying to a command, and no server has ever replied to it.
        """
        name = command.name.encode()
        if name in KNOWN:
            return
        count = self._closings[server, name] = self._closings.get((server, name), 0) + 1
        if count >= CLOSINGS:
            del self._closings[server, name]
            self._closed[name] = server, self._now() + PERIOD
            self._update()

    def keep(self, servers: Iterable[str]) -> None:
        """
        Forget servers that are no longer used.

        @param servers: the names of those that are.
        """
        names = set(servers)
        self._old = {server: version for server, version in self._old.items() if server in names}
        self._closings = {each: count for each, count in self._closings.items() if each[0] in names}
        self._closed = {name: each for name, each in self._closed.items() if each[0] in names}
        self._update()

    def refusal(self, name: bytes) -> bytes | None:
        """
        @return: the reply to a request with this command; C{None} if it is sent to servers.
        """
        if name in META and self._old:
            server, version = next(iter(self._old.items()))
            return b"ERROR %b needs memcached 1.6 or newer, %b is %b\r\n" % (name, server.encode(), version)
        if name in self._closed:
            server, until = self._closed[name]
            if self._now() < until:
                return b"ERROR %b is not supported: %b closes its connections at it\r\n" % (name, server.encode())
            del self._closed[name]
            self._update()
        return None

    def _update(self) -> None:
        self._changed(frozenset(META if self._old else ()) | frozenset(self._closed))
