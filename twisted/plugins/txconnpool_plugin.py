# -*- test-case-name: tests.test_plugin -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Twisted plugins of txconnpool: the C{twistd} command C{connpool}, and the endpoint string C{memory:}.

Twisted imports this module for every C{twistd} command and for every endpoint string that is not built in. So the
module imports txconnpool only when one of the plugins is used.
"""

from __future__ import annotations

from typing import Any

from twisted.application.service import ServiceMaker
from twisted.internet.interfaces import IStreamClientEndpoint, IStreamClientEndpointStringParserWithReactor
from twisted.plugin import IPlugin
from zope.interface import implementer

connpool = ServiceMaker(
    "txconnpool",
    "txconnpool.tap",
    "A connection pool and pooling proxy for memcached.",
    "connpool",
)


@implementer(IPlugin, IStreamClientEndpointStringParserWithReactor)
class MemoryEndpointParser:
    """
    Creates the endpoints of C{memory:} strings. See L{txconnpool.memcache.memory.MemoryParser}.
    """

    prefix = "memory"

    @staticmethod
    def parseStreamClient(reactor: Any, *args: Any, **kwargs: Any) -> IStreamClientEndpoint:
        """
        Import L{txconnpool.memcache.memory.MemoryParser} and call its method of the same name.
        """
        from txconnpool.memcache.memory import MemoryParser

        return MemoryParser().parseStreamClient(reactor, *args, **kwargs)


memoryEndpointParser = MemoryEndpointParser()
