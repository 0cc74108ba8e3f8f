# -*- test-case-name: tests.net.test_reactor -*-
# Copyright txconnpool contributors. See LICENSE.
"""
A reactor whose turns cost less with direct transports. This module can be imported only where there is epoll.

In any other reactor the L{Turn<txconnpool.net.turn.Turn>} is one reader of many: the reactor waits until the epoll of
the turn is readable, and the turn then asks that epoll for the sockets, until it has no more. With one client these
are three C{epoll_wait} for each message. A L{TurnReactor} lets the turn wait instead, so it is one.
"""

from __future__ import annotations

import select

from twisted.internet.epollreactor import EPollReactor
from twisted.internet.interfaces import IReadDescriptor, IWriteDescriptor
from twisted.internet.main import installReactor

from txconnpool.net.turn import Turn


class TurnReactor(EPollReactor):
    """
    Twisted's epoll reactor, but if there are direct transports, their turn waits for all events, and takes its own
    without a log context for each. The epoll of all other descriptors is one more descriptor for the turn.

    No interface of Twisted gives the epoll of the reactor. It is C{EPollReactor._poller}, as was checked for versions
    24.7 and 26.10. If a version has none there, this reactor behaves as its base class does.
    """

    _turn: Turn | None = None  # the turn that waits for events, if there is one

    def addReader(self, reader: IReadDescriptor) -> None:
        """
        Add a descriptor. A turn is the one that waits from now on.
        """
        poller = getattr(self, "_poller", None)
        if isinstance(reader, Turn) and isinstance(poller, select.epoll):
            self._turn = reader
            reader.lead(poller)
        else:
            super().addReader(reader)

    def removeReader(self, reader: IReadDescriptor) -> None:
        """
        Remove a descriptor.
        """
        if reader is self._turn:
            self._leave()
        else:
            super().removeReader(reader)

    def removeAll(self) -> list[IReadDescriptor | IWriteDescriptor]:
        """
        Remove all descriptors but the reactor's own.

        @return: the removed descriptors.
        """
        removed: list[IReadDescriptor | IWriteDescriptor] = super().removeAll()
        if self._turn is not None:
            removed.append(self._turn)
            self._leave()
        return removed

    def getReaders(self) -> list[IReadDescriptor]:
        """
        @return: the descriptors that are watched for reading.
        """
        readers = super().getReaders()
        return readers if self._turn is None else [*readers, self._turn]

    def doIteration(self, timeout: float | None) -> None:
        """
        Wait for events, and handle them.

        @param timeout: how long to wait, in seconds; C{None}: until there is an event.
        """
        if self._turn is None:
            self.doPoll(timeout)
        elif self._turn.take(timeout):
            self.doPoll(0)

    def _leave(self) -> None:
        if self._turn is not None:
            self._turn.follow()
            self._turn = None


def install() -> None:
    """
    Make a L{TurnReactor} the reactor of this process.

    @raise ReactorAlreadyInstalledError: there is a reactor already.
    """
    installReactor(TurnReactor())
