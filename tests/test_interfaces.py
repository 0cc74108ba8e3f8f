# -*- test-case-name: tests.test_interfaces -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Tests for L{txconnpool.interfaces}: that those who are said to implement them do.
"""

from __future__ import annotations

from inspect import signature
from typing import Any

from twisted.internet.interfaces import IHalfCloseableProtocol, IProtocol, IPushProducer
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.interface import Method
from zope.interface.verify import verifyObject

from tests.support import Stage
from txconnpool import interfaces
from txconnpool.interfaces import IDialect, IPipelined, IPoolObserver, IRequester, IWaiter
from txconnpool.pool.library import PoolObserver
from txconnpool.wire import Command
from txconnpool.wire.memcache.dialect import Memcache


class ImplementationTests(SynchronousTestCase):
    """
    Tests for what implements the interfaces.
    """

    def test_wire(self) -> None:
        """
        memcached's dialect is a dialect; whoever writes another is told of all that is asked of it.
        """
        dialect = Memcache()
        verifyObject(IDialect, dialect, tentative=True)
        for name, method in IDialect.namesAndDescriptions():
            if isinstance(method, Method):
                info: Any = method.getSignatureInfo()
                self.assertEqual(list(info["positional"]), list(signature(getattr(dialect, name)).parameters), name)

    def test_forms(self) -> None:
        """
        The commands of a dialect are in the order of their index.
        """
        commands = Memcache().commands
        self.assertEqual([command.index for command in commands], list(range(len(commands))))
        self.assertEqual({type(command) for command in commands}, {Command})
        self.assertEqual(len({command.name for command in commands}), len(commands))

    def test_session(self) -> None:
        """
        A session waits for connections and has requests in flight on them.
        """
        session = Stage().client().protocol
        for interface in (IWaiter, IRequester, IProtocol, IPushProducer, IHalfCloseableProtocol):
            verifyObject(interface, session)

    def test_connection(self) -> None:
        """
        A connection keeps its load itself.
        """
        connection = Stage().line.protocol.client
        for interface in (IPipelined, IProtocol, IPushProducer):
            verifyObject(interface, connection)

    def test_observer(self) -> None:
        """
        There is an observer to begin with, that does nothing.
        """
        verifyObject(IPoolObserver, PoolObserver())

    def test_documented(self) -> None:
        """
        Everything that is asked of an implementer is explained.
        """
        for name, interface in vars(interfaces).items():
            if name.startswith("I") and hasattr(interface, "namesAndDescriptions") and interface.names():
                for item, description in interface.namesAndDescriptions():
                    self.assertTrue(description.getDoc().strip(), f"{name}.{item}")
