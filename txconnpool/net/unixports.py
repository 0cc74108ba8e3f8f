# -*- test-case-name: tests.net.test_unixports -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Ports on UNIX sockets whose files belong to somebody else.

Twisted's own port sets the mode of the file of a socket that another process has opened, such as systemd, and removes
the file when it stops. A process that does not own the file may do neither, and fails with a traceback; one that may do
both takes the socket away from its owner.
"""

from __future__ import annotations

import os
import socket
from typing import Any

from twisted.internet import tcp, unix
from twisted.internet.posixbase import PosixReactorBase
from twisted.logger import Logger
from twisted.python.failure import Failure

_log = Logger("txconnpool.proxy")


def isSystemReactor(reactor: Any) -> bool:
    """
    @return: whether a reactor has real sockets, which those of tests have not.
    """
    return isinstance(reactor, PosixReactorBase)


class BoundPort(unix.Port):
    """
    A port on a UNIX socket that this process has opened.
    """

    def __init__(
        self, reactor: Any, address: str, factory: Any, backlog: int = 50, mode: int = 0o666, wantPID: bool = False
    ) -> None:
        """
        @param address: the path of the socket. For the other parameters, see C{IReactorUNIX.listenUNIX}.
        """
        self._path = os.fsencode(address)
        super().__init__(self._path, factory, backlog, mode, reactor, wantPID)

    def connectionLost(self, reason: Failure) -> None:
        """
        Remove the file of the socket, and close it. After C{twistd --uid} the process may be unable to remove the file.
        The next process that listens there replaces it.
        """
        try:
            super().connectionLost(reason)
        except OSError as error:
            _log.warn(
                "cannot remove the socket {path}: {why}; the next start replaces it",
                path=os.fsdecode(self._path),
                why=error.strerror,
            )
            tcp.Port.connectionLost(self, reason)


class AdoptedPort(unix.Port):
    """
    A port on a UNIX socket that another process has opened. The file of the socket stays as it is.
    """

    def __init__(self, reactor: Any, fileDescriptor: int, factory: Any) -> None:
        """
        @param fileDescriptor: the listening socket, which is duplicated.
        """
        self._adopted = socket.fromfd(fileDescriptor, socket.AF_UNIX, socket.SOCK_STREAM)
        self._adopted.setblocking(False)
        self._factory = factory
        super().__init__(os.fsencode(self._adopted.getsockname()), factory, reactor=reactor)

    def startListening(self) -> None:
        """
        Accept connections.
        """
        self._factory.doStart()
        self.socket = self._adopted
        self.connected = True
        self.numberAccepts = 100
        self.startReading()

    def fileno(self) -> int:
        """
        @return: the number of the socket.
        """
        return self._adopted.fileno()

    def stopListening(self, connDone: Any = None) -> None:
        """
        Accept no more connections. The file of the socket stays, and the socket is not shut down, which would end it
        for its owner too.
        """
        self.stopReading()
        self.connected = False
        self._adopted.close()
        self._factory.doStop()
