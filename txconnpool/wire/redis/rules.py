# -*- test-case-name: tests.wire.redis.test_requestreader -*-
# Copyright txconnpool contributors. See LICENSE.
"""
What the clients of a pool have in common: its limits, the commands that they may use, and what is known of the servers.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count as counter
from typing import Any, Final

from txconnpool.wire import Command
from txconnpool.wire.effects import Permissions
from txconnpool.wire.redis.announced import Place
from txconnpool.wire.redis.commands import BY_NAME, COMMANDS, CONTROLLED, LOOKUP, Use
from txconnpool.wire.redis.framing import ARGUMENTS_MAX, Usual
from txconnpool.wire.redis.learning import Learned, described
from txconnpool.wire.redis.several import DIVIDED

#: The version of the protocol and the database of a connection. A third item is 1 if a replica executes requests on it,
#: or the words of the login of its user if servers check logins; there are never both.
Flavour = tuple[Any, ...]

BASE: Final[Flavour] = (2, 0)

#: The beginnings of errors that depend on the user.
FORBIDDEN: Final = (b"-NOAUTH", b"-NOPERM", b"-WRONGPASS")


class Rules:
    """
    What the readers of all clients of a pool have in common.

    @ivar itemMax: the largest argument, in bytes.
    @ivar denied: the commands that are not allowed.
    @ivar ids: yields a number for each client.
    @ivar version: the version of the server, as far as it is known.
    @ivar databases: the number of databases that clients may select.
    @ivar base: the flavour of a new client.
    @ivar announced: the nodes that clients of a cluster see, see
        L{IStatefulDialect.announce<txconnpool.wire.IStatefulDialect.announce>}.
    @ivar cluster: whether the servers are the nodes of a cluster. A channel is then that of all nodes.
    @ivar learned: the commands that the servers have described.
    @ivar passes: whether the servers check the users and passwords of clients.
    @ivar guarded: whether the servers do nothing for clients that have not logged in, as far as it is known. They then
        close connections with large requests.
    """

    def __init__(self) -> None:
        self.itemMax = 1 << 20
        self.denied: set[Command] = set()
        self._usual: dict[int, dict[bytes, Usual]] = {1: {}, 2: {}}
        self.ids = counter(1)
        self.version = b"7.0.0"
        self.databases = 16
        self.base = BASE
        self.announced: Sequence[Place] | None = None
        self.cluster = False
        self.learned = Learned()
        self.passes = self.guarded = False
        self._permissions = Permissions({}, frozenset(), None)

    def limit(self, itemMax: int, permissions: Permissions) -> None:
        """
        @param itemMax: the largest argument, in bytes.
        @param permissions: which commands are allowed.
        """
        self.itemMax = itemMax
        self._permissions = permissions
        self._find()

    def _find(self) -> None:
        """
        Find the commands that are not allowed.
        """
        permits = self._permissions.permits
        self.denied = {
            command
            for command in (*COMMANDS, *self.learned.commands())
            if (command.use in (Use.SHARED, Use.PINNED, Use.SUBSCRIBING) or command.name in CONTROLLED)
            and not permits(command.name.encode(), command.effects)
        }
        for plain, usual in self._usual.items():
            usual.clear()
            usual.update(
                (name, (command, abs(command.arity), command.arity if command.arity > 0 else ARGUMENTS_MAX))
                for name, command in LOOKUP.items()
                if command.plain >= plain and command not in self.denied
            )
        self._usual[2].update(
            (spelling, (command, 3, ARGUMENTS_MAX))
            for (name, hidden), command in DIVIDED.items()
            for spelling in (name.encode(), name.upper().encode())
            if command.accepts(4) and not hidden and BY_NAME[name] not in self.denied
        )

    def usual(self, plain: int) -> dict[bytes, Usual]:
        """
        @param plain: 1, or 2 for a client whose keys are on several servers.

        @return: the commands whose requests need no further look, by name: those whose C{plain} is so much or more, and
            those that may be divided. The dict follows all changes.
        """
        return self._usual[plain]

    def learn(self, name: bytes, reply: bytes) -> bool:
        """
        @param reply: what a server says about a command that the table lacks.

        @return: whether it says something. It may not tell a user who may not ask.
        """
        if self.passes and reply.startswith(FORBIDDEN):
            return False
        self.learned.add(name, described(reply))
        self._find()
        return True

    def use(self, version: bytes | None) -> None:
        """
        A connection was made to a server.

        @param version: its version, if it is known.
        """
        if version is None or version == self.version:
            self.learned.forgetAbsent()
        else:
            self.version = version
            self.learned.clear()
            self._find()
