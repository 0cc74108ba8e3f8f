# -*- test-case-name: tests.test_interfaces -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Tests that classes implement the interfaces of L{txconnpool.interfaces} that they declare.
"""

from __future__ import annotations

from twisted.internet.interfaces import IHalfCloseableProtocol, IProtocol, IPushProducer
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from tests.stage import Stage
from txconnpool import interfaces
from txconnpool.interfaces import IConnections, IMergedReplySink, IPipelined, IPoolObserver, IWaiter
from txconnpool.pool.library import PoolObserver
from txconnpool.wire import IDialect, IReplyReader, IRequestReader
from txconnpool.wire.memcache.dialect import Memcache
from txconnpool.wire.memcache.matching import DumpCommand, MemcacheCommand


class ImplementationTests(SynchronousTestCase):
    """
    Tests for the classes that implement the interfaces.
    """

    def test_dialect(self) -> None:
        """
        memcached's dialect, and its readers, are what a session and a connection ask for: mypy compares the types.
        """
        dialect: IDialect = Memcache()
        requests: IRequestReader = dialect.requestReader()
        logins: IRequestReader = dialect.loginReader(lambda login: True)
        replies: IReplyReader = dialect.replyReader()
        self.assertFalse(
            requests.pinned or logins.pinned or replies.begun or replies.left or replies.held or replies.pushes
        )

    def test_commands(self) -> None:
        """
        The commands of a dialect are in the order of their index.
        """
        commands = Memcache().commands
        self.assertEqual([command.index for command in commands], list(range(len(commands))))
        self.assertEqual({type(command) for command in commands}, {MemcacheCommand, DumpCommand})
        self.assertEqual(len({command.name for command in commands}), len(commands))

    def test_session(self) -> None:
        """
        A session can wait for a connection, and can have requests in flight on it.
        """
        session = Stage().client().protocol
        for interface in (IWaiter, IMergedReplySink, IProtocol, IPushProducer, IHalfCloseableProtocol):
            verifyObject(interface, session)

    def test_pool(self) -> None:
        """
        A pool has what sessions and operators call.
        """
        verifyObject(IConnections, Stage().pool)

    def test_connection(self) -> None:
        """
        A connection provides the interfaces that the pool and the transport call.
        """
        connection = Stage().line.protocol.connection
        for interface in (IPipelined, IProtocol, IPushProducer):
            verifyObject(interface, connection)

    def test_observer(self) -> None:
        """
        L{PoolObserver}, the base class for observers, has all methods of L{IPoolObserver}.
        """
        verifyObject(IPoolObserver, PoolObserver())

    def test_documented(self) -> None:
        """
        Every attribute and method of an interface has a docstring.
        """
        for name, interface in vars(interfaces).items():
            if name.startswith("I") and hasattr(interface, "namesAndDescriptions") and interface.names():
                for item, description in interface.namesAndDescriptions():
                    self.assertTrue(description.getDoc().strip(), f"{name}.{item}")
